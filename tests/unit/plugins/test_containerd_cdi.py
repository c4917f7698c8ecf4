# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io.containerd_config import ensure

TEXT = 'version = 2\n# mine\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "mine"\n'


class Containerd:
    """Dumps what a file says, with CDI off where it says nothing."""

    def __init__(self, broken=""):
        self.broken = broken
        self.commands = []

    def __call__(self, argv):
        self.commands.append(argv)
        if argv[1:] == ["config", "default"]:
            return (0, "  enable_cdi = false\n", "")
        path = argv[2]
        with open(path, encoding="utf-8") as handle:
            text = handle.read()
        if self.broken and self.broken in text:
            return (1, "", f"containerd: failed to load TOML from {path}: (3, 1): no value can start with x\n")
        return (0, f'imports = ["{path}"]\n{text}' + ("" if "enable_cdi" in text else "  enable_cdi = false\n"), "")


def proc(folder, started):
    """A /proc with one containerd, ``started`` so many seconds after boot."""
    folder.mkdir()
    (folder / "stat").write_text("cpu 1\nbtime 1000000\n")
    (folder / "self").mkdir()
    (folder / "77").mkdir()
    for name in ("self", "77"):
        (folder / name / "root").symlink_to("/")
    (folder / "77/comm").write_text("containerd\n")
    (folder / "77/stat").write_text(f"77 (containerd) S {' '.join('0' for _n in range(18))} {started * os.sysconf('SC_CLK_TCK')} 0\n")
    return str(folder)


def test_once(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    os.chmod(path, 0o640)
    run = Containerd()
    looked = ensure(str(path), "containerd", True, run, True)
    assert looked["changed"] and looked["restart_needed"] and path.read_text() == TEXT and os.listdir(tmp_path) == ["config.toml"]
    done = ensure(str(path), "containerd", True, run, False)
    assert (done["changed"], done["actions"]) == (True, looked["actions"]) and done["diff"] == looked["diff"]
    assert "  enable_cdi = true\n" in path.read_text() and "# mine" in path.read_text()
    with open(done["backup_file"], encoding="utf-8") as kept:
        assert kept.read() == TEXT and os.stat(done["backup_file"]).st_mode & 0o777 == 0o640
    assert all(argv[0] == "containerd" and argv[3:] == ["config", "dump"] for argv in run.commands)
    again = ensure(str(path), "containerd", True, run, False, proc(tmp_path / "proc", 10))
    assert (again["changed"], again["backup_file"]) == (False, "")


@pytest.mark.parametrize(("started", "needed"), [(100, True), (300, False)])
def test_a_restart_that_an_earlier_run_did_not_come_to(tmp_path, started, needed):
    path, record = tmp_path / "config.toml", tmp_path / "records/containerd"
    path.write_text(TEXT)
    looked = ensure(str(path), "containerd", False, Containerd(), True, record=str(record))
    assert looked["restart_needed"] and not record.exists()
    done = ensure(str(path), "containerd", False, Containerd(), False, record=str(record))
    assert done["restart_needed"] and record.read_bytes() == b""
    os.utime(record, (1000200, 1000200))
    found = ensure(str(path), "containerd", True, Containerd(), False, proc(tmp_path / "proc", started), record=str(record))
    assert (found["changed"], found["restart_needed"]) == (False, needed)


def test_what_a_user_wrote_is_the_users_to_restart_for(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("version = 2\nenable_cdi = true\n")
    os.utime(path, (1000200, 1000200))
    for record in ("", str(tmp_path / "none")):
        found = ensure(str(path), "containerd", True, Containerd(), False, proc(tmp_path / f"proc{len(record)}", 100), record=record)
        assert (found["changed"], found["restart_needed"]) == (False, False)


def test_it_is_taken_back(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    assert not ensure(str(path), "containerd", True, Containerd(), False, absent=True)["changed"]
    ensure(str(path), "containerd", False, Containerd(), False)
    done = ensure(str(path), "containerd", False, Containerd(), False, absent=True)
    assert done["changed"] and done["actions"] == [f"clear enable_cdi (in {path})"]
    assert path.read_text() == TEXT.replace('cri"]\n', 'cri"]\n  enable_cdi = false\n')
    assert not ensure(str(tmp_path / "none"), "containerd", True, Containerd(), False, absent=True)["changed"]


def test_a_host_without_the_file(tmp_path):
    path = tmp_path / "etc/config.toml"
    found = ensure(str(path), "containerd", True, Containerd(), False)
    assert found["changed"] and found["backup_file"] == "" and path.read_text().startswith("version = 2\n")


def test_a_file_that_containerd_cannot_read_is_not_touched(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("version = 2\nx\n")
    with pytest.raises(AikitError, match=f"containerd cannot read {path}: containerd: failed to load TOML from {path}: .3, 1."):
        ensure(str(path), "containerd", True, Containerd("x\n"), False)
    path.write_bytes(b"\xff")
    with pytest.raises(AikitError, match="is no UTF-8"):
        ensure(str(path), "containerd", True, Containerd(), False)


def test_a_containerd_that_is_older_than_cdi(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("version = 2\n")
    with pytest.raises(AikitError, match="does not know enable_cdi: CDI came with containerd 1.7"):
        ensure(str(path), "/usr/bin/containerd", True, lambda argv: (0, "version = 2\n", ""), False, str(tmp_path))
    assert path.read_text() == "version = 2\n"
