# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io.host_files import ensure


def file(path, content="", mode="0644", state="present"):
    return {"path": str(path), "content": content, "mode": mode, "state": state}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_files_are_written_once(tmp_path):
    old_mask = os.umask(0o077)
    try:
        files = [file(tmp_path / "new/deep/a", "ä\n"), file(tmp_path / "b", "two\n", "0600"), file(tmp_path / "gone", state="absent")]
        (tmp_path / "gone").write_text("x")
        looked = ensure(files, True)
        assert looked["changed"] and not (tmp_path / "new").exists() and (tmp_path / "gone").exists()
        done = ensure(files, False)
    finally:
        os.umask(old_mask)
    assert done == looked and done["changed_paths"] == [entry["path"] for entry in files]
    assert done["actions"] == [f"write {tmp_path}/new/deep/a", f"write {tmp_path}/b", f"remove {tmp_path}/gone"]
    assert (tmp_path / "new/deep/a").read_text(encoding="utf-8") == "ä\n" and not (tmp_path / "gone").exists()
    assert (mode(tmp_path / "new/deep/a"), mode(tmp_path / "new/deep"), mode(tmp_path / "new"), mode(tmp_path / "b")) == (0o644, 0o755, 0o755, 0o600)
    again = ensure(files, False)
    assert (again["changed"], again["changed_paths"], again["diff"]) == (False, [], [])


def test_what_differs_is_shown(tmp_path):
    (tmp_path / "a").write_text("old\n")
    os.chmod(tmp_path / "a", 0o644)
    (shown,) = ensure([file(tmp_path / "a", "new\n")], True)["diff"]
    assert (shown["before"], shown["after"], shown["before_header"]) == ("old\n", "new\n", str(tmp_path / "a"))
    (shown,) = ensure([file(tmp_path / "a", "old\n", "0600")], False)["diff"]
    assert (shown["before"], shown["after"]) == ("old\n(mode 0644)\n", "old\n(mode 0600)\n") and mode(tmp_path / "a") == 0o600
    (shown,) = ensure([file(tmp_path / "a", state="absent")], True)["diff"]
    assert (shown["before"], shown["after"]) == ("old\n", "")


def test_links_are_replaced_and_not_followed(tmp_path):
    (tmp_path / "target").write_text("theirs\n")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    done = ensure([file(tmp_path / "link", "ours\n"), file(tmp_path / "nowhere", state="absent")], False)
    assert len(done["changed_paths"]) == 2
    assert (tmp_path / "target").read_text() == "theirs\n" and (tmp_path / "link").read_text() == "ours\n" and not (tmp_path / "link").is_symlink()
    assert not os.path.lexists(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([file("relative", "x")], "relative is no absolute path"),
        ([file("/a", "x", "u=rw")], "the mode of /a is 'u=rw'"),
        ([file("/a", "x"), file("/a", state="absent")], "/a is named twice"),
    ],
)
def test_refusals(files, words):
    with pytest.raises(AikitError, match=words):
        ensure(files, True)


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(AikitError, match="is a folder"):
        ensure([file(tmp_path, "x")], True)
