# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module and action plugin aikitfile: real, check, again; files good and bad."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase
from ansible_collections.aikit.fleet.plugins.action import aikitfile as action
from ansible_collections.aikit.fleet.plugins.module_utils._core import aikitfile as core
from ansible_collections.aikit.fleet.plugins.modules import aikitfile as module
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source

GOOD = Path(__file__).resolve().parents[2] / "fixtures" / "aikitfiles" / "good"
BAD = GOOD.parent / "bad"


def run(capsys: Any, src: Path, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    """What the module prints, with ``src`` parsed as the action plugin does."""
    parsed = yaml_source.from_file(str(src), src.name)
    with patch_module_args({"src": str(src), "parsed": parsed, "_ansible_check_mode": check_mode, **arguments}):
        with pytest.raises(SystemExit):
            module.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", sorted(path.name for path in GOOD.iterdir()))
def test_good_files(capsys: Any, name: str) -> None:
    result = run(capsys, GOOD / name)
    assert not result.get("failed"), result
    assert (result["changed"], result["actions"]) == (False, [])
    assert [finding for finding in result["findings"] if finding["level"] == "error"] == []


@pytest.mark.parametrize("name", sorted(path.name for path in GOOD.iterdir()))
def test_normalised_good_files_mean_the_same(name: str) -> None:
    first, _findings = core.load(yaml_source.from_file(str(GOOD / name)))
    second, _findings = core.load(yaml_source.from_text(core.render(core.normalised(first)), "again"))
    assert core.normalised(second) == core.normalised(first)
    assert second.model_configs == first.model_configs


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("duplicate-key.txt", [(5, "models[0].name"), (7, "runtime")]),
        ("tab.txt", [(3, "")]),
        ("config-syntax.yaml", [(9, "config")]),
        ("fine-tune.yaml", [(3, "baseModel")]),
        (
            "many.yaml",
            [
                (2, "apiVersion"),
                (3, "debug"),
                (4, "runtimes"),
                (5, "backend"),
                (6, "backends[0]"),
                (9, "models[0].source"),
                (10, "models[0].sha"),
                (11, "models[0].sha256"),
                (12, "models[1].name"),
                (13, "models[1].source"),
                (17, "config[0].gpu_layers"),
                (18, "config[0].context_size"),
            ],
        ),
    ],
)
def test_bad_files_leave_dest_untouched(capsys: Any, tmp_path: Path, name: str, errors: list[tuple[int, str]]) -> None:
    dest = tmp_path / "aikitfile.yaml"
    dest.write_text("before\n")
    result = run(capsys, BAD / name, dest=str(dest))
    assert result["failed"]
    assert [(finding["line"], finding["path"]) for finding in result["findings"] if finding["level"] == "error"] == errors
    assert all(f"{name}:{line}: " in result["msg"] for line, _path in errors)
    assert dest.read_text() == "before\n"


def test_every_bad_file_is_tested() -> None:
    assert sorted(path.name for path in BAD.iterdir()) == ["config-syntax.yaml", "duplicate-key.txt", "fine-tune.yaml", "many.yaml", "tab.txt"]


def test_check_write_again_change(capsys: Any, tmp_path: Path) -> None:
    dest = tmp_path / "new" / "aikitfile.yaml"
    text = (GOOD / "cuda.yaml").read_text()
    write = {"changed": True, "actions": [f"write {dest}"], "diff": {"before": "", "after": text, "before_header": str(dest), "after_header": str(dest)}}

    checked = run(capsys, GOOD / "cuda.yaml", check_mode=True, dest=str(dest))
    assert {key: checked[key] for key in write} == write
    assert not dest.parent.exists()

    written = run(capsys, GOOD / "cuda.yaml", dest=str(dest))
    assert {key: written[key] for key in write} == write
    assert dest.read_bytes() == (GOOD / "cuda.yaml").read_bytes()
    assert stat.S_IMODE(dest.stat().st_mode) == 0o644

    for check_mode in (True, False):
        again = run(capsys, GOOD / "cuda.yaml", check_mode=check_mode, dest=str(dest))
        assert (again["changed"], again["actions"], again["diff"]["before"], again["diff"]["after"]) == (False, [], "", "")

    dest.chmod(0o600)
    changed = run(capsys, GOOD / "minimal.yaml", dest=str(dest))
    assert (changed["changed"], changed["diff"]["before"]) == (True, text)
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600


def test_bytes_are_kept(capsys: Any, tmp_path: Path) -> None:
    data = "\ufeffapiVersion: v1alpha1 # ü\r\nmodels:\r\n  - {name: a, source: a.gguf}\r\n".encode()
    (tmp_path / "src.yaml").write_bytes(data)
    result = run(capsys, tmp_path / "src.yaml", dest=str(tmp_path / "dest.yaml"))
    assert result["changed"]
    assert (tmp_path / "dest.yaml").read_bytes() == data


def test_dest_that_is_a_folder(capsys: Any, tmp_path: Path) -> None:
    result = run(capsys, GOOD / "minimal.yaml", dest=str(tmp_path))
    assert result["failed"]
    assert "is a folder" in result["msg"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_dest_below_a_file(capsys: Any, tmp_path: Path, check_mode: bool) -> None:
    (tmp_path / "file").write_text("x")
    result = run(capsys, GOOD / "minimal.yaml", dest=str(tmp_path / "file" / "a" / "b.yaml"), check_mode=check_mode)
    assert result["failed"] and "is below something that is no folder" in result["msg"]
    assert (tmp_path / "file").read_text() == "x"


def test_a_link_stays_and_its_target_is_written(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("old\n")
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    assert run(capsys, GOOD / "minimal.yaml", dest=str(tmp_path / "link.yaml"))["changed"]
    assert (tmp_path / "link.yaml").is_symlink() and (tmp_path / "real.yaml").read_bytes() == (GOOD / "minimal.yaml").read_bytes()
    assert not run(capsys, GOOD / "minimal.yaml", dest=str(tmp_path / "link.yaml"))["changed"]


def test_a_secret_in_a_source_is_not_shown(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: https://example/m.gguf?token=SUPERSECRET\n")
    result = run(capsys, tmp_path / "f.yaml", dest=str(tmp_path / "out.yaml"))
    assert result["failed"] and "f.yaml:4: models[0].source: has what looks like a key: token=***" in result["msg"]
    assert "SUPERSECRET" not in json.dumps(result) and not (tmp_path / "out.yaml").exists()


def test_version_and_platforms_count(capsys: Any) -> None:
    result = run(capsys, GOOD / "cuda.yaml", aikit_version="main", platforms=["linux/arm64"])
    assert [finding["path"] for finding in result["findings"]] == ["runtime"]


def test_without_the_action_plugin(capsys: Any) -> None:
    with patch_module_args({"src": "x"}), pytest.raises(SystemExit):
        module.main()
    assert "its action plugin reads the file" in json.loads(capsys.readouterr().out)["msg"]


# ---- the action plugin


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Calls the action plugin with task arguments; returns what it would send to the module."""

    def call(**arguments: Any) -> dict[str, Any]:
        sent: dict[str, Any] = {}

        def execute(_self: Any, module_name: str, module_args: dict[str, Any], **_more: Any) -> dict[str, Any]:
            sent.update(module_args, module=module_name)
            return {"changed": False, "invocation": {"module_args": dict(module_args)}}

        monkeypatch.setattr(ActionBase, "run", lambda *_arguments: {})
        monkeypatch.setattr(ActionBase, "_execute_module", execute)
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = SimpleNamespace(args=arguments)
        plugin._find_needle = lambda _folder, name: str(tmp_path / name)
        result = plugin.run(None, {})
        assert "parsed" not in result["invocation"]["module_args"]
        return sent

    return call


def test_action_parses_a_file(act: Any, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("apiVersion: v1alpha1\nconfig: |\n  - name: '{{ x }}'\n")
    sent = act(src="f.yaml", dest="/d")
    assert (sent["module"], sent["src"], sent["dest"]) == ("aikit.fleet.aikitfile", "f.yaml", "/d")
    assert sent["parsed"]["config_document"] == [{"name": "{{ x }}"}]
    assert sent["parsed"]["name"] == "f.yaml"


def test_action_parses_a_definition(act: Any) -> None:
    assert act(definition={"apiVersion": "v1alpha1"})["parsed"]["text"] == "apiVersion: v1alpha1\n"


@pytest.mark.parametrize("arguments", [{}, {"src": "a", "definition": {}}])
def test_action_leaves_wrong_arguments_to_the_module(act: Any, arguments: dict[str, Any]) -> None:
    assert act(**arguments)["parsed"] is None


def test_action_refuses_a_file_that_is_not_there(act: Any) -> None:
    with pytest.raises(AnsibleActionFail, match="cannot be read: No such file"):
        act(src="none.yaml")


def test_action_refuses_parsed(act: Any) -> None:
    with pytest.raises(AnsibleActionFail, match="filled in by the action plugin"):
        act(src="x", parsed={})
