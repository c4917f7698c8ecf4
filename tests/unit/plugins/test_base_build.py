# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module llama_cpp_base with an mmdebstrap of our own: which commands run in real, check and second runs, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import base_build

PACKAGES = "llama.cpp-tools 1:0.7.0+dfsg-2 amd64\nlibc6 2.43-7 amd64\n"
SIMULATED = "Inst llama.cpp-tools (1:0.7.0+dfsg-2 Debian:unstable [amd64])\nInst libc6 (2.43-7 Debian:unstable [amd64])\n"
VERSION = "version: 0.7.0 (build 11669, commit Debian)\n"


class Fake:
    """Stands for apt and mmdebstrap; ``words`` remembers the commands."""

    def __init__(self, help_text: str) -> None:
        self.help = help_text
        self.words: list[str] = []
        self.packages = PACKAGES
        self.simulated = SIMULATED
        self.status = 0
        self.errors = ""

    def __call__(self, argv, environment):
        if argv[0] == "apt-get":
            self.words.append("mirror")
            return 0, "http://mirror.example/debian/\n", ""
        if argv[0] == "apt-config":
            return 0, "", ""
        assert os.path.isdir(environment["TMPDIR"]) and environment["LC_ALL"] == "C.UTF-8"
        if "--simulate" in argv:
            self.words.append("simulate")
            return 0, self.simulated, ""
        self.words.append("build")
        work = Path(environment["TMPDIR"]).parent
        assert (work / "hook").is_file() and (work / "apt.conf").is_file()
        output = next(Path(word) for word in argv if word.endswith("/base.tar"))
        output.write_bytes(b"half" if self.status else b"the root file system")
        for name, text in (("packages", self.packages), ("help", self.help), ("version", VERSION), ("backends", "libggml-cpu-x64.so")):
            (work / name).write_text(text)
        (work / "log").write_text("+ serve --version\n")
        return self.status, "", self.errors


@pytest.fixture
def fake(fixtures, monkeypatch):
    monkeypatch.setattr(base_build.shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    monkeypatch.setattr(base_build.os, "geteuid", lambda: 0)
    return Fake((fixtures / "llama-server-0.7.0-help.txt").read_text())


@pytest.fixture
def request_(tmp_path):
    return base_build.Request(
        variant="cpu",
        suite="sid",
        mirror=None,
        keyring=None,
        architecture="amd64",
        extra_packages=[],
        source_date_epoch=1767225600,
        cache_dir=str(tmp_path / "bases"),
        digest_cache=str(tmp_path / "digests"),
        refresh=False,
    )


def names(request_):
    return sorted(os.listdir(request_.cache_dir))


def test_real_then_again_then_check(fake, request_):
    first = base_build.ensure(request_, fake, False)
    assert first["changed"] and fake.words == ["mirror", "build"]
    assert names(request_) == ["sid-cpu-amd64.tar", "sid-cpu-amd64.tar.json"]
    assert first["base"]["sha256"] == hashlib.sha256(b"the root file system").hexdigest()
    assert first["base"]["size_bytes"] == 20 and first["base"]["server"] == {"path": "/usr/bin/llama-server", "version": "0.7.0", "build": "11669"}
    assert os.stat(first["base"]["path"]).st_mode & 0o777 == 0o644
    fake.words.clear()
    for check_mode in (False, True):
        again = base_build.ensure(request_, fake, check_mode)
        assert not again["changed"] and again["actions"] == [] and again["base"] == first["base"]
    assert fake.words == []


def test_check_mode_on_a_virgin_host_runs_nothing(fake, request_, monkeypatch):
    monkeypatch.setattr(base_build.shutil, "which", lambda name, **_: None)
    result = base_build.ensure(request_, fake, True)
    assert result["changed"] and result["base"]["sha256"] == "" and result["base"]["path"].endswith("/sid-cpu-amd64.tar")
    assert fake.words == [] and not os.path.exists(request_.cache_dir)


def test_refresh(fake, request_):
    base_build.ensure(request_, fake, False)
    refresh = replace(request_, refresh=True)
    fake.words.clear()
    assert not base_build.ensure(refresh, fake, False)["changed"]
    assert fake.words == ["mirror", "simulate"]
    fake.simulated = SIMULATED.replace("2.43-7", "2.44-1")
    fake.packages = PACKAGES.replace("2.43-7", "2.44-1")
    assert base_build.ensure(refresh, fake, True)["actions"] == [f"build {request_.cache_dir}/sid-cpu-amd64.tar (libc6 2.43-7 → 2.44-1)"]
    result = base_build.ensure(refresh, fake, False)
    assert result["changed"] and '"libc6": "2.43-7"' in result["diff"]["before"] and '"libc6": "2.44-1"' in result["diff"]["after"]
    assert not base_build.ensure(refresh, fake, False)["changed"]


def test_a_failure_leaves_nothing_and_the_old_base(fake, request_):
    kept = base_build.ensure(request_, fake, False)["base"]
    fake.status, fake.errors = 25, "E: Unable to locate package llama.cpp-tools\n"
    with pytest.raises(AikitError, match="Unable to locate package llama.cpp-tools"):
        base_build.ensure(replace(request_, source_date_epoch=1), fake, False)
    assert names(request_) == ["sid-cpu-amd64.tar", "sid-cpu-amd64.tar.json"]
    fake.status = 0
    assert base_build.ensure(request_, fake, False)["base"] == kept


def test_a_failing_hook_is_quoted(fake, request_):
    fake.status = 25
    with pytest.raises(AikitError, match="error in the hook: . serve --version"):
        base_build.ensure(request_, fake, False)


@pytest.mark.parametrize("harm", ["truncate", "touch", "description", "missing tar", "schema"])
def test_what_cannot_be_trusted_is_built_again(fake, request_, harm):
    path = Path(base_build.ensure(request_, fake, False)["base"]["path"])
    description = Path(f"{path}.json")
    if harm == "truncate":
        path.write_bytes(b"short")
    elif harm == "touch":
        path.write_bytes(b"THE ROOT FILE SYSTEM")
    elif harm == "description":
        description.write_text("{")
    elif harm == "missing tar":
        path.unlink()
    else:
        description.write_text(json.dumps({"schema": 0}))
    assert base_build.ensure(request_, fake, False)["changed"]
    assert path.read_bytes() == b"the root file system"


def test_leftovers_of_a_killed_build_go(fake, request_):
    leftover = Path(request_.cache_dir) / ".sid-cpu-amd64.tar.work-dead" / "tmp" / "mmdebstrap.x"
    leftover.mkdir(parents=True)
    other = Path(request_.cache_dir) / ".sid-vulkan-amd64.tar.work-live"
    other.mkdir()
    base_build.ensure(request_, fake, False)
    assert names(request_) == [other.name, "sid-cpu-amd64.tar", "sid-cpu-amd64.tar.json"]


def test_a_leftover_with_something_mounted_is_not_touched(fake, request_, monkeypatch, tmp_path):
    leftover = Path(request_.cache_dir) / ".sid-cpu-amd64.tar.work-dead" / "proc"
    leftover.mkdir(parents=True)
    (leftover / "kept").touch()
    real = open

    def fake_open(path, *args, **kwargs):
        if path == "/proc/self/mountinfo":
            table = tmp_path / "mountinfo"
            table.write_text(f"36 35 98:0 / {os.path.realpath(leftover)} rw - proc proc rw\n")
            path = table
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", fake_open)
    with pytest.raises(AikitError, match="something is mounted at .*/proc. umount"):
        base_build.ensure(request_, fake, False)
    assert (leftover / "kept").exists() and fake.words == ["mirror"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("which", lambda name, **_: None if name == "mmdebstrap" else "/usr/bin/x", "mmdebstrap is not installed on .*apt-get install mmdebstrap"),
        ("geteuid", lambda: 1000, "A base is built as root.*become: true"),
    ],
)
def test_what_a_build_needs(fake, request_, monkeypatch, attribute, value, message):
    monkeypatch.setattr(base_build.shutil if attribute == "which" else base_build.os, attribute, value)
    with pytest.raises(AikitError, match=message):
        base_build.ensure(request_, fake, False)
    assert not os.path.exists(request_.cache_dir)


def test_no_mirror(fake, request_, monkeypatch):
    monkeypatch.setattr(base_build, "_host_mirror", lambda run: "")
    with pytest.raises(AikitError, match="knows no Debian mirror. Set llama_cpp_base_mirror"):
        base_build.ensure(request_, fake, False)


def test_no_keyring(fake, request_):
    with pytest.raises(AikitError, match="keyring: /nowhere.gpg does not exist"):
        base_build.ensure(replace(request_, keyring="/nowhere.gpg"), fake, False)


def test_a_small_disk_is_noticed_before(fake, request_, monkeypatch):
    monkeypatch.setattr(base_build.files, "free_bytes", lambda path: 1000)
    with pytest.raises(AikitError, match="Not enough disk space for building sid-cpu-amd64.tar"):
        base_build.ensure(request_, fake, False)
    assert names(request_) == [] and fake.words == ["mirror"]
