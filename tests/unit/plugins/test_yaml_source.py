# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's reader: what it says, on which line, and what is wrong with the YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFileNotFound
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.yaml_text import render
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source
from hypothesis import given, settings
from hypothesis import strategies as st

# Everything that JSON can hold; text of the whole of Unicode but halves of characters
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
LINES = st.lists(st.text(st.sampled_from("ab :#-'\"\\$`{}[]|>&*!%@,?\t0~."), max_size=8), max_size=5).map("\n".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | LINES
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | LINES, inner, max_size=4), max_leaves=12)


class Dateless(yaml.SafeLoader):
    pass


Dateless.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if "timestamp" not in tag] for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def messages(source: dict[str, Any]) -> list[tuple[int, str]]:
    return [(problem["line"], problem["message"]) for problem in source["problems"]]


def test_document_and_lines() -> None:
    source = yaml_source.from_text("#syntax=x\napiVersion: v1alpha1\nmodels:\n  - name: a\n    source: b\n", "file")
    assert source["document"] == {"apiVersion": "v1alpha1", "models": [{"name": "a", "source": "b"}]}
    assert source["lines"] == {
        "": 2,
        "apiVersion": 2,
        "models": 3,
        "models[0]": 4,
        "models[0].name": 4,
        "models[0].source": 5,
    }
    assert source["problems"] == []


def test_config_has_the_lines_of_the_file() -> None:
    source = yaml_source.from_text("apiVersion: x\nconfig: |\n\n  - name: a\n    parameters:\n      model: f\n", "file")
    assert source["config_document"] == [{"name": "a", "parameters": {"model": "f"}}]
    assert source["config_lines"]["[0].parameters.model"] == 6
    assert source["text_lines"] == {"config": 3}


@pytest.mark.parametrize("text", ["config: '- name: a'\n", "config: >\n  - name: a\n", 'config: "- name: a"\n'])
def test_config_in_another_style_has_the_line_of_its_key(text: str) -> None:
    source = yaml_source.from_text("apiVersion: x\n" + text, "file")
    assert source["config_document"] == [{"name": "a"}]
    assert set(source["config_lines"].values()) == {2}


def test_config_with_quotes_for_a_shell_is_read_as_localai_will_see_it() -> None:
    source = yaml_source.from_text('config: |\n  - name: a\n    roles:\n      user: \\"USER: x\\"\n', "file")
    assert source["config_document"] == [{"name": "a", "roles": {"user": "USER: x"}}]
    assert source["problems"] == []


def test_config_that_is_yaml_as_it_stands_keeps_its_backslashes() -> None:
    source = yaml_source.from_text('config: |\n  - name: a\n    grammar: "root ::= \\"a\\""\n', "file")
    assert source["config_document"] == [{"name": "a", "grammar": 'root ::= "a"'}]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: [\n", 3, "is no valid YAML, line 3, column 1"),
        ("a:\n\t- b\n", 2, "cannot start any token"),
        ("a: 1\na: 2\n", 2, "key a is there twice, first on line 1"),
        ("m:\n  - n: 1\n    n: 2\n", 3, "key n is there twice, first on line 2"),
        ("a: {{.Input}}\n", 1, "a key is text"),
        ("a: 1\n---\nb: 2\n", 2, "but found another document"),
        ("a: !unsafe b\n", 1, "tag !unsafe means nothing here"),
        ("a: !!binary aGk=\n", 1, "tag !!binary means nothing here"),
        ("a: &x [*x]\n", 1, "an alias stands inside what it repeats"),
        ("a: 1\n<<: 3\n", 1, "<< merges mappings only"),
        ("a: \x00\n", 1, "holds character U+0000"),
        ("config: |\n  - a: 1\n     b: 2\n", 3, "is no valid YAML, line 3, column 7"),
        ("config: |\n  - a: 1\n    a: 2\n", 3, "key a is there twice, first on line 2"),
    ],
)
def test_problems(text: str, line: int, part: str) -> None:
    found = messages(yaml_source.from_text(text, "file"))
    assert len(found) >= 1
    assert found[0][0] == line
    assert part in found[0][1]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\t- b\n", "tabs"),
        ("a: b: c\n", "single quotes"),
        ("a: {{.Input}\n", "below a |"),
        ("a: 1\n---\nb: 2\n", "second ---"),
        ("a: !unsafe b\n", "playbook"),
    ],
)
def test_hints(text: str, hint: str) -> None:
    assert hint in yaml_source.from_text(text, "file")["problems"][0]["hint"]


def test_a_document_that_aliases_blow_up_is_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    assert "grows beyond" in messages(yaml_source.from_text("\n".join(rows), "file"))[0][1]


def test_a_deeply_nested_document_is_refused() -> None:
    assert messages(yaml_source.from_text("[" * 5000 + "]" * 5000, "file"))[0][1] == "is nested too deeply"


def test_merge_keys_count() -> None:
    source = yaml_source.from_text("base: &b {name: a, source: s}\nmodels:\n  - <<: *b\n    source: t\n", "file")
    assert source["document"]["models"] == [{"source": "t", "name": "a"}]


@pytest.mark.parametrize(("text", "value"), [("2026-01-02", "2026-01-02"), ("on", True), ("0.21.0", "0.21.0"), ("0b", "0b"), ("=", "=")])
def test_scalars(text: str, value: Any) -> None:
    assert yaml_source.from_text(f"a: {text}\n", "file")["document"] == {"a": value}


@pytest.mark.parametrize(
    ("data", "part"), [(b"a: \xff\n", "is not UTF-8: byte 3 is 0xff"), (b"\xff\xfea\x00", "is not UTF-8"), (b" " * 9_000_000, "is larger than")]
)
def test_bytes_that_are_no_text(data: bytes, part: str) -> None:
    source = yaml_source.from_bytes(data, "file")
    assert part in source["problems"][0]["message"]
    assert source["document"] is None


@pytest.mark.parametrize("data", [b"a: 1\r\nb: |\r\n  x\r\n", "\ufeffa: 1\n".encode(), b"", b"# nothing\n", "a: ü €\n".encode()])
def test_text_is_kept_byte_for_byte(data: bytes) -> None:
    source = yaml_source.from_bytes(data, "file")
    assert source["text"].encode() == data
    assert source["problems"] == []


def test_file_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1\n")
    source = yaml_source.from_file(str(tmp_path / "f.yaml"), "f.yaml")
    assert (source["name"], source["directory"]) == ("f.yaml", str(tmp_path))


class Action:
    """Stands for an action plugin; finds what is in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _find_needle(self, where: str, name: str) -> str:
        assert where == "files"
        if not (self.folder / name).exists():
            raise AnsibleFileNotFound(file_name=name, paths=["/one", "/two", "/one"])
        return str(self.folder / name)


def test_task_with_both_or_neither_is_left_to_the_module(tmp_path: Path) -> None:
    assert yaml_source.from_task(Action(tmp_path), None, None) is None
    assert yaml_source.from_task(Action(tmp_path), {}, "x") is None


def test_task_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("a: 1\n")
    source = yaml_source.from_task(Action(tmp_path), None, "f.yaml")
    assert source is not None
    assert source["document"] == {"a": 1}


def test_task_with_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AikitError, match="no file f.yaml on the controller. Searched: /one, /two"):
        yaml_source.from_task(Action(tmp_path), None, "f.yaml")


def test_task_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(AikitError, match="cannot be read"):
        yaml_source.from_task(Action(tmp_path), None, "d")


def test_definition_is_rendered_and_has_no_lines() -> None:
    source = yaml_source.from_definition({"apiVersion": "v1alpha1", "config": "- name: a\n  template: {chat: '{{.Input}}'}\n"})
    assert source["text"] == "apiVersion: v1alpha1\nconfig: |\n  - name: a\n    template: {chat: '{{.Input}}'}\n"
    assert source["config_document"] == [{"name": "a", "template": {"chat": "{{.Input}}"}}]
    assert (source["lines"], source["config_lines"], source["name"]) == ({}, {}, "definition")


def test_problems_of_a_definition_have_no_line() -> None:
    assert messages(yaml_source.from_definition({"config": "- a: 1\n  a: 2\n"})) == [(0, "key a is there twice, first on line 2")]


def test_definition_of_ansibles_own_kinds_becomes_plain() -> None:
    class Text(str):
        pass

    source = yaml_source.from_definition({Text("a"): [Text("b"), (1, 2.5, None, True)]})
    value = source["document"]["a"]
    assert value == ["b", [1, 2.5, None, True]]
    assert not isinstance(value[0], Text)


@pytest.mark.parametrize("definition", [{1: "a"}, {"a": {None: 1}}])
def test_definition_with_keys_that_are_no_text(definition: Any) -> None:
    assert "which is not text" in yaml_source.from_definition(definition)["problems"][0]["message"]


@settings(max_examples=400, deadline=None)
@given(DOCUMENTS)
def test_render_keeps_every_document(document: Any) -> None:
    assert yaml.load(render(document), Loader=Dateless) == document


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["config", "models", "name"]), LINES | st.integers() | st.lists(LINES, max_size=3), max_size=3))
def test_render_adds_nothing_that_a_shell_reads(document: dict[str, Any]) -> None:
    text = render(document)
    for character in '"$`\\':
        assert text.count(character) == "".join(_strings(document)).count(character)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _strings(entry)]
    return [text for entry in value for text in _strings(entry)] if isinstance(value, list) else []


@settings(max_examples=300, deadline=None)
@given(TEXT | LINES | st.text(st.sampled_from("a:-[]{}&*#?|>!%@`\"'\\\n\t <=~,.")))
def test_reading_never_raises(text: str) -> None:
    source = yaml_source.from_text(text, "file")
    assert source["document"] is None or not [problem for problem in source["problems"] if "no valid YAML" in problem["message"] and not problem["path"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain text", "a: plain text\n"),
        ("", "a: ''\n"),
        ("no", "a: 'no'\n"),
        ("1e3", "a: '1e3'\n"),
        ("it's", "a: 'it''s'\n"),
        ("a: b", "a: 'a: b'\n"),
        ("one\ntwo\n", "a: |\n  one\n  two\n"),
        ("one\ntwo", "a: |-\n  one\n  two\n"),
        ("one\n\n", "a: |+\n  one\n\n"),
        ("  one\ntwo\n", "a: |2\n    one\n  two\n"),
        ([], "a: []\n"),
        ({}, "a: {}\n"),
        ([{"b": [1, [2]]}], "a:\n  - b:\n      - 1\n      - - 2\n"),
        (1e-07, "a: 1.0e-07\n"),
        (float("-inf"), "a: -.inf\n"),
        ("bell \x07", 'a: "bell \\u0007"\n'),
    ],
)
def test_render(value: Any, text: str) -> None:
    assert render({"a": value}) == text


def test_render_with_a_frontend() -> None:
    assert render({"a": 1}, "example/aikit:1") == "#syntax=example/aikit:1\na: 1\n"


@pytest.mark.parametrize("value", [object(), {1: 2}, "half \ud800"])
def test_render_refuses_what_yaml_cannot_hold(value: Any) -> None:
    with pytest.raises(AikitError):
        render({"a": value})
