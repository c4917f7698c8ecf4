# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of the hub, and answers that may say anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.aikit.fleet.plugins.module_utils._core import hub
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

COMMIT = "0f4bbd9ea4d1b7d3a6d3a1b2f86bfb0f9f5b1d7c"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
NAME = hub.HubName("ns/tiny", "main", "m.gguf")


@pytest.mark.parametrize(
    ("text", "repository", "revision", "path"),
    [
        ("ns/tiny", "ns/tiny", "main", ""),
        ("ns/tiny@v1", "ns/tiny", "v1", ""),
        ("ns/tiny:v1", "ns/tiny", "v1", ""),
        ("ns/tiny/m.gguf", "ns/tiny", "main", "m.gguf"),
        ("ns/tiny/v1/m.gguf", "ns/tiny", "v1", "m.gguf"),
        ("ns/tiny@v1/m.gguf", "ns/tiny", "v1", "m.gguf"),
        ("ns/tiny@v1/a/b/m.gguf", "ns/tiny", "v1", "a/b/m.gguf"),
        ("ns/tiny@refs%2Fpr%2F3/m.gguf", "ns/tiny", "refs/pr/3", "m.gguf"),
        (f"ns/tiny@{COMMIT}/a%20b.gguf", "ns/tiny", COMMIT, "a b.gguf"),
        ("Ns-1/tiny.GGUF_2/m.gguf", "Ns-1/tiny.GGUF_2", "main", "m.gguf"),
    ],
)
def test_every_form(text: str, repository: str, revision: str, path: str) -> None:
    name = hub.parse(f"huggingface://{text}")
    assert (name.repository, name.revision, name.path, name.pinned) == (repository, revision, path, revision == COMMIT)
    assert hub.parse(name.text.replace(" ", "%20")) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ns",
        "ns/",
        "/tiny",
        "ns//m.gguf",
        "ns/tiny@",
        "ns/tiny@/m",
        "ns/tiny/a/b/c",
        "ns/tiny@v1/../x",
        "ns/tiny@v1/a\\b",
        "n s/tiny",
        "ns/ti..ny",
        "-ns/tiny",
        "ns/tiny@a..b",
    ],
)
def test_bad_names(text: str) -> None:
    with pytest.raises(AikitError) as caught:
        hub.parse(f"huggingface://{text}")
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        name = hub.parse(f"huggingface://{text}")
    except AikitError:
        return
    assert not name.path or hub.safe_path(name.path)
    assert hub.file_url("https://h", name).isascii()


def test_addresses() -> None:
    name = hub.HubName("ns/tiny", "refs/pr/1", "a/b c.gguf")
    assert hub.file_url("https://h/x", name) == "https://h/x/ns/tiny/resolve/refs%2Fpr%2F1/a/b%20c.gguf"
    assert hub.revision_url("https://h", name) == "https://h/api/models/ns/tiny/revision/refs%2Fpr%2F1"
    assert hub.tree_url("https://h", name) == "https://h/api/models/ns/tiny/tree/refs%2Fpr%2F1?recursive=true"
    assert hub.check_url("https://huggingface.co/") == "https://huggingface.co"
    for bad in ("huggingface.co", "ftp://x", "https://me:secretpw@x", "https://x?y", ""):
        with pytest.raises(AikitError) as caught:
            hub.check_url(bad)
        assert "secretpw" not in str(caught.value)


def test_pages() -> None:
    assert hub.next_page('<https://h/api?cursor=a%3D>; rel="next"') == "https://h/api?cursor=a%3D"
    assert hub.next_page('<https://h/1>; rel="prev", <https://h/2>; rel="next"') == "https://h/2"
    assert hub.next_page("") == hub.next_page('<https://h/1>; rel="prev"') == ""


@pytest.mark.parametrize("answer", [None, [], {}, {"sha": 1}, {"sha": "main"}, "x"])
def test_an_answer_without_a_commit(answer: Any) -> None:
    with pytest.raises(AikitError, match="names no commit"):
        hub.parse_commit(answer, NAME)


def test_a_list_of_files() -> None:
    lfs = {"type": "file", "path": "m.gguf", "oid": "1" * 40, "size": 134, "lfs": {"oid": SHA256, "size": 99, "pointerSize": 134}}
    small = {"type": "file", "path": "a/config.json", "oid": COMMIT, "size": 5}
    odd: list[Any] = [{"type": "directory", "path": "a"}, {"type": "file", "path": ".gitattributes"}, {"type": "file", "path": "a/.x"}, None, 3]
    odd.append({"type": "file", "path": "b", "oid": 7, "size": -1, "lfs": "x"})
    found = hub.parse_tree([lfs, small, *odd], NAME)
    listed = [hub.HubFile("m.gguf", 99, SHA256), hub.HubFile("a/config.json", 5, "", COMMIT), hub.HubFile("a/.x", None), hub.HubFile("b", None)]
    assert found == listed and [entry.path for entry in found if entry.hidden] == ["a/.x"]
    assert [entry.path for entry in hub.choose(found, (), NAME)] == ["a/config.json", "b", "m.gguf"]
    for path in ("../x", "/etc/passwd", "a//b", "a\\b", 3, "a\nb"):
        with pytest.raises(AikitError, match="leads elsewhere"):
            hub.parse_tree([{"type": "file", "path": path}], NAME)
    with pytest.raises(AikitError, match="is no list"):
        hub.parse_tree({}, NAME)


def test_headers() -> None:
    lfs = {"x-repo-commit": COMMIT, "x-linked-etag": f'"{SHA256}"', "x-linked-size": "99", "etag": '"x"', "content-length": "5"}
    assert hub.parse_headers(lfs, NAME) == (hub.HubFile("m.gguf", 99, SHA256), COMMIT)
    small = {"x-repo-commit": COMMIT, "etag": f'W/"{COMMIT}"', "content-length": "5"}
    assert hub.parse_headers(small, NAME) == (hub.HubFile("m.gguf", 5, "", COMMIT), COMMIT)
    assert hub.linked_sha256(lfs) == SHA256
    assert hub.linked_sha256(small) == hub.linked_sha256({**lfs, "x-repo-commit": ""}) == ""
    for bad in ({}, {**lfs, "x-repo-commit": "main"}):
        with pytest.raises(AikitError, match="does not say at which commit"):
            hub.parse_headers(bad, NAME)


def test_a_refusal_prints_and_shows_no_more_than_it_should() -> None:
    text = str(hub.refusal(NAME, 403, {"x-error-code": "\x1b[31m", "x-error-message": "a\r\nb\x1b" + "z" * 1000}, True))
    assert text.isprintable() and len(text) < 700
