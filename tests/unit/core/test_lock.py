# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lock files: what they pin, what does not fit, what is stale."""

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import lock
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

BASE = {"linux/amd64": {"source": "ghcr.io/a/b:1", "digest": "sha256:1"}}
MODEL = {"name": "m", "source": "https://models.example/m.gguf", "file": "models/m.gguf", "sha256": "2", "size_bytes": 3}


def content(base=None, models=(MODEL,), images=None):
    return lock.document("x:1", "sha256:9", "3", base or BASE, models, images)


def made(**parts):
    return lock.parse(lock.render(content(**parts)), "lock.json")


def test_what_is_pinned():
    found = made(images={"ghcr.io/c:1": "sha256:4"})
    assert found.base("linux/amd64", "ghcr.io/a/b:1") == found.base("", "ghcr.io/a/b:1") == "sha256:1"
    assert found.base("linux/arm64", "ghcr.io/a/b:1") == found.base("linux/amd64", "ghcr.io/a/b:2") == lock.Lock().base("", "x") == ""
    assert found.model("m", MODEL["source"]) == "2" and found.model("m", "other") == "" and found.image("ghcr.io/c:1") == "sha256:4"
    # Several files of one source have no sha256 in common
    several = made(models=({**MODEL, "revision": "c"}, {**MODEL, "file": "models/n.gguf", "revision": "c"}))
    assert several.model("m", MODEL["source"]) == "" and several.revision("m", MODEL["source"]) == "c"
    assert several.revision("m", "other") == found.revision("m", MODEL["source"]) == ""
    beside = made(models=({**MODEL, "revision": "c"}, {**MODEL, "file": "models/LICENSE", "sha256": "4", "revision": "c"}))
    assert beside.has("m", MODEL["source"], "2") and not beside.has("m", MODEL["source"], "5") and not beside.has("m", "other", "2")


def test_it_is_text_that_can_be_compared():
    raw = lock.render(content())
    assert raw.decode().endswith("}\n") and raw.count(b"\n") > 15 and lock.render(lock.parse(raw, "x").document) == raw


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"base": {"linux/amd64": {"source": "ghcr.io/a/b:1", "digest": "sha256:5"}}}, "base of linux/amd64: ghcr.io/a/b:1 is sha256:5, locked is sha256:1"),
        ({"models": ({**MODEL, "sha256": "7"},)}, "models: m: https://models.example/m.gguf has sha256 7, locked is 2"),
        ({"images": {"ghcr.io/c:1": "sha256:5"}}, "images: ghcr.io/c:1 is sha256:5, locked is sha256:4"),
    ],
)
def test_what_does_not_fit(parts, words):
    found = made(images={"ghcr.io/c:1": "sha256:4"})
    wanted = content(**{"images": {"ghcr.io/c:1": "sha256:4"}, **parts})
    with pytest.raises(AikitError, match=words) as caught:
        lock.check(found, wanted, update=False)
    assert "lock_update" in caught.value.hint
    assert [finding.message for finding in lock.check(found, wanted, update=True)] == [words]


def test_what_is_stale():
    found = made(base={**BASE, "linux/arm64": {"source": "ghcr.io/a/b:1", "digest": "sha256:6"}}, images={"ghcr.io/c:1": "sha256:4"})
    wanted = content(base={"linux/amd64": {"source": "ghcr.io/a/b:2", "digest": "sha256:7"}}, models=({**MODEL, "name": "n"},))
    assert [finding.message for finding in lock.check(found, wanted, update=False)] == [
        "base of linux/amd64 was ghcr.io/a/b:1 and is ghcr.io/a/b:2 now",
        "base of linux/arm64 (ghcr.io/a/b:1) is not used any more",
        "model m (https://models.example/m.gguf, models/m.gguf) is not used any more",
        "image ghcr.io/c:1 is not used any more",
    ]
    assert lock.check(lock.Lock(), wanted, update=False) == () == lock.check(made(), content(), update=False)


@pytest.mark.parametrize("raw", [b"\xff", b"[]", b'"x"', b"{", b'{"schema": 2}', b'{"a": 1}'])
def test_files_that_are_none(raw):
    with pytest.raises(AikitError, match="lock: x"):
        lock.parse(raw, "x")


@pytest.mark.parametrize("document", [{"schema": 1, "base": [], "models": {}, "images": 3}, {"schema": 1, "base": {"linux/amd64": 5}, "models": [5]}])
def test_a_file_that_was_edited_by_hand_pins_nothing(document):
    found = lock.Lock(document, "x")
    assert found.base("", "a") == found.image("a") == found.model("a", "b") == ""
    lock.check(found, content(), update=False)
