# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module docker_daemon_config: check, real, again, and what it refuses; with a recorded dockerd."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import daemon_json
from ansible_collections.aikit.fleet.plugins.module_utils._io.daemon_json import Request
from ansible_collections.aikit.fleet.plugins.modules import docker_daemon_config

FOREIGN = '{\n    "features": {"containerd-snapshotter": true},\n    "log-driver": "local"\n}\n'
CDI = {"features": {"cdi": True}}
UNIT = "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS ; ignore_errors=no }\n"


class Host:
    """A root folder with processes, and a dockerd that says what a test wants."""

    def __init__(self, folder, monkeypatch):
        self.root = folder / "root"
        (self.root / "run/systemd/system").mkdir(parents=True)
        (self.root / "proc").mkdir()
        self.file = folder / "etc" / "daemon.json"
        self.commands = []
        self.validated = []
        self.answers = {"--validate": (0, "", "configuration OK\n"), "show": (0, UNIT, "")}
        monkeypatch.setattr(daemon_json, "_program", lambda name: f"/usr/sbin/{name}" if "--validate" in self.answers else None)

    def process(self, pid, *argv, root=None, started=100):
        folder = self.root / "proc" / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (dock) erd) S " + " ".join(str(number) for number in range(1, 19)) + f" {started} 0 0\n")
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
        (folder / "root").symlink_to(root or self.root)

    def run(self, argv):
        self.commands.append([word for word in argv if not word.startswith("--config-file=")])
        for word in argv:
            if word.startswith("--config-file="):
                path = word.partition("=")[2]
                assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
                with open(path, encoding="utf-8") as handle:
                    self.validated.append(handle.read())
        return next((self.answers[word] for word in argv if word in self.answers), (0, "", ""))

    def call(self, settings=None, check=False, absent=(), backup=True, restart_for=()):
        request = Request(settings or {}, absent, str(self.file), "dockerd", backup, restart_for)
        return daemon_json.ensure(request, self.run, check, str(self.root))

    def write(self, text, mode=0o644):
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text)
        self.file.chmod(mode)

    def files(self):
        return sorted(path.name for path in self.file.parent.iterdir()) if self.file.parent.exists() else []


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def test_check_real_again(host):
    host.write(FOREIGN, 0o640)
    told = host.call(CDI, check=True)
    assert (told["changed"], told["restart_needed"], told["backup_file"], told["validated"]) == (True, True, "", True)
    assert host.file.read_text() == FOREIGN and host.files() == ["daemon.json"]
    real = host.call(CDI)
    assert (real["actions"], real["diff"], real["restart_keys"]) == (told["actions"], told["diff"], ["features.cdi"])
    assert json.loads(host.file.read_text()) == {"features": {"containerd-snapshotter": True, "cdi": True}, "log-driver": "local"}
    assert host.validated == [host.file.read_text()] * 2
    assert stat.S_IMODE(host.file.stat().st_mode) == 0o640
    # The one copy, as private as the file
    assert host.files() == ["daemon.json", os.path.basename(real["backup_file"])]
    with open(real["backup_file"], encoding="utf-8") as handle:
        assert handle.read() == FOREIGN
    assert stat.S_IMODE(os.stat(real["backup_file"]).st_mode) == 0o640
    host.commands.clear()
    before = host.file.stat()
    again = host.call(CDI)
    assert (again["changed"], again["restart_needed"], again["reload_enough"], again["backup_file"]) == (False, False, False, "")
    assert again["diff"] == {"before": "", "after": ""}
    # Nothing to validate, nothing written
    assert host.commands == [] and host.file.stat().st_mtime_ns == before.st_mtime_ns and len(host.files()) == 2


def test_a_host_without_the_file_and_without_docker(host):
    del host.answers["--validate"]
    told = host.call(CDI, check=True)
    assert told["changed"] and not told["validated"] and host.files() == []
    real = host.call(CDI)
    assert real["backup_file"] == "" and not real["running"]
    assert host.file.read_text() == '{\n  "features": {\n    "cdi": true\n  }\n}\n'
    assert stat.S_IMODE(host.file.stat().st_mode) == 0o644 and host.files() == ["daemon.json"]
    assert not host.call(CDI)["changed"]


def test_without_a_copy(host):
    host.write(FOREIGN)
    assert host.call(CDI, backup=False)["backup_file"] == "" and host.files() == ["daemon.json"]


def test_a_reload_is_enough(host):
    host.write(FOREIGN)
    result = host.call({"live-restore": True})
    assert (result["restart_needed"], result["reload_enough"], result["restart_keys"]) == (False, True, [])


def test_a_restart_that_an_earlier_run_did_not_come_to(host, monkeypatch):
    monkeypatch.setattr(daemon_json.daemon_json.data, "CONFIG_FILE", str(host.file))
    host.process(7, "dockerd")
    assert host.call(CDI, check=True)["restart_keys"] and not (host.root / "run/aikit-fleet").exists()
    assert host.call(CDI)["restart_needed"]
    again = host.call(CDI)
    assert (again["changed"], again["restart_needed"], again["restart_keys"], again["reload_enough"]) == (False, True, ["features.cdi"], False)
    # What a reload would apply comes with the restart
    more = host.call({"debug": True})
    assert (more["changed"], more["restart_keys"], more["reload_enough"]) == (True, ["features.cdi"], False)
    # The same number, another process
    (host.root / "proc/7/stat").write_text("7 (dockerd) S " + " ".join(str(number) for number in range(1, 19)) + " 200 0 0\n")
    assert host.call(CDI)["restart_keys"] == []
    assert host.call({"debug": False})["reload_enough"]


def test_a_restart_for_something_else_is_remembered_until_it_happened(host, monkeypatch):
    monkeypatch.setattr(daemon_json.daemon_json.data, "CONFIG_FILE", str(host.file))
    host.write(json.dumps(CDI))
    host.process(7, "dockerd")
    assert host.call(CDI, check=True, restart_for=["hook"])["restart_needed"] and not host.call(CDI)["restart_needed"]
    for result in (host.call(CDI, restart_for=["hook"]), host.call(CDI)):
        assert (result["changed"], result["restart_needed"], result["restart_keys"], result["reload_enough"]) == (False, True, ["hook"], False)
    # The same number, another process
    (host.root / "proc/7/stat").write_text("7 (dockerd) S " + " ".join(str(number) for number in range(1, 19)) + " 200 0 0\n")
    assert not host.call(CDI)["restart_needed"]


def test_a_link_stays_a_link(host):
    host.write("{}")
    target = host.file.parent / "real.json"
    host.file.rename(target)
    host.file.symlink_to(target)
    result = host.call(CDI)
    assert result["path"] == str(target) and host.file.is_symlink() and json.loads(target.read_text()) == CDI


@pytest.mark.parametrize("damage", ["", "{", '{"a": 1, "a": 2}', "[]"])
def test_a_damaged_file_is_not_touched(host, damage):
    host.write(damage)
    with pytest.raises(AikitError, match="line 1, column"):
        host.call(CDI)
    assert host.file.read_text() == damage and host.files() == ["daemon.json"] and host.commands == []


def test_a_file_that_is_no_text_is_not_touched(host):
    host.write("")
    host.file.write_bytes(b'{\n "a": "\xff"}')
    with pytest.raises(AikitError, match="is no UTF-8 text: line 2, column 8"):
        host.call(CDI)


def test_what_dockerd_refuses_is_not_written(host):
    host.write(FOREIGN)
    host.answers["--validate"] = (1, "", "unable to configure the Docker daemon with file /tmp/x: the following directives don't match: debg\n")
    for check in (True, False):
        with pytest.raises(AikitError, match="would not start with the new .*directives don't match: debg"):
            host.call({"debg": True}, check=check)
    assert host.file.read_text() == FOREIGN and host.files() == ["daemon.json"]


def test_an_old_docker_is_asked_what_it_knows(host):
    host.write(FOREIGN)
    host.answers["--validate"] = (125, "", "Status: unknown flag: --validate\nSee 'dockerd --help'., Code: 125\n")
    host.answers["--help"] = (0, "--config-file string\n--debug\n", "")
    assert host.call({"debug": True})["validated"] is False
    assert ["/usr/sbin/dockerd", "--help"] in host.commands
    with pytest.raises(AikitError, match="knows no setting debg"):
        host.call({"debg": True})


def test_flags_of_the_running_daemon_and_of_its_unit(host, monkeypatch):
    host.write(FOREIGN)
    monkeypatch.setattr(daemon_json.daemon_json.data, "CONFIG_FILE", str(host.file))
    host.process(7, "/usr/bin/dockerd", "--live-restore")
    # Not ours: in a container, with another file, no dockerd at all
    host.process(8, "dockerd", "--debug", root="/proc")
    host.process(9, "dockerd", "--debug", "--config-file=/other.json")
    host.process(10, "/bin/sh", "dockerd", "--debug")
    with pytest.raises(AikitError, match=r"live-restore cannot be set .*: the running dockerd \(pid 7\) sets it with the flag --live-restore"):
        host.call({"live-restore": True})
    with pytest.raises(AikitError, match="hosts cannot be set .*: docker.service sets it with the flag -H"):
        host.call({"hosts": ["fd://"]})
    assert host.file.read_text() == FOREIGN
    assert host.call({"debug": True})["running"] is True


def test_a_write_that_fails_leaves_nothing(host, monkeypatch):
    host.write(FOREIGN)

    def fail(*_arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        host.call(CDI, backup=False)
    assert host.file.read_text() == FOREIGN and host.files() == ["daemon.json"]


def test_the_module(host, capsys):
    host.write('{"debug": true,}')
    arguments = {"settings": CDI, "path": str(host.file), "dockerd": "no-such-program"}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        docker_daemon_config.main()
    failed = json.loads(capsys.readouterr().out)
    assert failed["failed"] and failed["line"] == 1 and failed["hint"]
    host.write("{}")
    del host.answers["--validate"]
    with patch_module_args(arguments), pytest.raises(SystemExit):
        docker_daemon_config.main()
    result = json.loads(capsys.readouterr().out)
    assert result["changed"] and result["restart_needed"] and result["diff"]["after"]
