# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules nvidia_cdi_spec and nvidia_container_check with recorded commands, and the filters of role nvidia_container_toolkit."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.aikit.fleet.plugins.filter.nvidia_toolkit import FilterModule
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import cdi_spec, container_probe
from ansible_collections.aikit.fleet.tests.support import BIN, environment

SPEC = (
    "---\ncdiVersion: 0.7.0\nkind: nvidia.com/gpu\ndevices:\n    - name: all\n      containerEdits:\n        deviceNodes:\n            - path: /dev/nvidia0\n"
)
SERVICE = "nvidia-cdi-refresh.service"
CTK = "/usr/bin/nvidia-ctk"


class Host:
    """Answers commands like a host with a driver, and remembers those that change something."""

    def __init__(self, path, spec=SPEC, unit=True, skips=False, flags="", watched=True):
        self.watched = watched
        self.path, self.spec, self.unit, self.skips, self.flags = path, spec, unit, skips, flags
        self.changes = []

    def __call__(self, argv):
        words = list(argv)
        if words[:2] == ["systemctl", "show"]:
            state = f"LoadState=loaded\nUnitFileState=enabled\nEnvironment=NVIDIA_CTK_CDI_OUTPUT_FILE_PATH={self.path} {self.flags}\n"
            return (0, state if self.unit else "LoadState=not-found\n", "")
        if "generate" in words:
            if not self.spec:
                return (1, "", 'level=error msg="failed to initialize NVML"\n')
            if words[-1] == "--output=":
                self.environment = [word for word in words if word.startswith("NVIDIA_")]
                return (0, self.spec, "level=info\n")
            self.changes.append(words[words.index(CTK) :])
            self.path.write_text(self.spec)
            return (0, "", "")
        if words[:2] == ["systemctl", "is-enabled"]:
            return (0, "enabled\nenabled\n", "") if self.watched else (1, "enabled\ndisabled\n", "")
        self.changes.append(words)
        if words[:2] == ["systemctl", "restart"] and not self.skips:
            self.path.write_text(self.spec)
        return (0, "", "")


RESTARTED = [["systemctl", "reset-failed", SERVICE], ["systemctl", "restart", SERVICE]]


@pytest.mark.parametrize(
    ("there", "unit", "skips", "changed", "changes"),
    [
        ("", True, False, True, RESTARTED),
        ("old", True, False, True, RESTARTED),
        (SPEC, True, False, False, []),
        # A service whose conditions see no driver
        ("", True, True, True, [*RESTARTED, [CTK, "cdi", "generate", "--output=PATH"]]),
        ("", False, False, True, [[CTK, "cdi", "generate", "--output=PATH"]]),
    ],
)
def test_specification(tmp_path, there, unit, skips, changed, changes):
    path = tmp_path / "nvidia.yaml"
    if there:
        path.write_text(there)
    host = Host(path, unit=unit, skips=skips)
    looked = cdi_spec.ensure(str(path), SERVICE, {}, CTK, host, True)
    assert looked["changed"] == looked["stale"] == changed and host.changes == [], "check mode changes nothing"
    found = cdi_spec.ensure(str(path), SERVICE, {}, CTK, host, False)
    assert found["changed"] is changed and not found["stale"]
    assert host.changes == [[word.replace("PATH", str(path)) for word in command] for command in changes]
    assert found["devices"] == ["nvidia.com/gpu=all"] and found["nodes"] == ["/dev/nvidia0"] and found["spec_version"] == "0.7.0"
    host.changes.clear()
    assert not cdi_spec.ensure(str(path), SERVICE, {}, CTK, host, False)["changed"] and host.changes == []


def test_nvidia_ctk_is_asked_as_the_service_asks_it(tmp_path):
    path = tmp_path / "nvidia.yaml"
    host = Host(path, flags="NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=x")
    cdi_spec.ensure("/elsewhere", SERVICE, {"NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS": "y"}, CTK, host, True)
    assert host.environment == ["NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=x"]
    host = Host(path, unit=False)
    cdi_spec.ensure(str(path), "", {"NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS": "y"}, CTK, host, True)
    assert host.environment == ["NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=y"]


def test_a_host_without_a_driver_or_a_toolkit(tmp_path):
    path = tmp_path / "nvidia.yaml"
    found = cdi_spec.ensure(str(path), SERVICE, {}, CTK, Host(path, spec=""), True)
    assert found["problem"].endswith('level=error msg="failed to initialize NVML"') and found["stale"] and not found["changed"]
    with pytest.raises(AikitError, match="failed to initialize NVML.*nvidia-smi says"):
        cdi_spec.ensure(str(path), SERVICE, {}, CTK, Host(path, spec=""), False)
    assert cdi_spec.ensure(str(path), SERVICE, {}, None, Host(path), True)["problem"] == "there is no nvidia-ctk"
    with pytest.raises(AikitError, match="There is no nvidia-ctk"):
        cdi_spec.ensure(str(path), SERVICE, {}, None, Host(path), False)


class Engine:
    """Answers like a container engine; ``broken`` names a word of the command that fails, ``after_reload`` whether opening fails then."""

    def __init__(self, broken="", errors="", after_reload=False):
        self.broken, self.errors, self.after_reload = broken, errors, after_reload
        self.commands, self.names = [], []

    def __call__(self, argv):
        words = list(argv)
        self.commands.append(words)
        if words[0] == "ldd":
            return (0, "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /etc/passwd (0x00007f01)\n\t/etc/group (0x00007f02)\n", "")
        if words[1] == "import":
            with tarfile.open(words[2]) as tar:
                self.names = tar.getnames()
        if words == ["systemctl", "daemon-reload"] and self.after_reload:
            self.broken, self.errors = "exec", "dd: failed to open '/dev/nvidia0': Operation not permitted"
        return (1, "", self.errors) if self.broken and self.broken in words else (0, "", "")

    def verbs(self):
        return [" ".join(words[:2]) if words[0] == "systemctl" else words[1] for words in self.commands if words[0] != "ldd"]


ARGUMENTS = ["--device", "nvidia.com/gpu=all"]


def probe(engine, folder, reload=False):
    return container_probe.probe("docker", ARGUMENTS, ["/dev/nvidia0", "/dev/nvidiactl"], reload, str(folder), engine)


def test_a_container_that_sees_the_gpu(tmp_path):
    engine = Engine()
    found = probe(engine, tmp_path)
    assert found["ok"] and found["detail"] == "2 device nodes open" and not found["changed"]
    assert engine.verbs() == ["import", "run", "exec", "exec", "rm", "rmi"]
    assert engine.names == ["bin/dd", "bin/sleep", "etc/group", "etc/passwd"]
    run = engine.commands[3]
    assert run[:4] == ["docker", "run", "--detach", "--name"] and run[5:8] == ["--network=none", *ARGUMENTS]
    assert engine.commands[4][3:] == ["/bin/dd", "if=/dev/nvidia0", "of=/dev/null", "count=0"]


def test_after_a_reload(tmp_path):
    engine = Engine()
    assert probe(engine, tmp_path, reload=True)["ok"]
    assert engine.verbs() == ["import", "run", "exec", "exec", "systemctl daemon-reload", "exec", "exec", "rm", "rmi"]
    found = probe(Engine(after_reload=True), tmp_path, reload=True)
    assert not found["ok"] and found["detail"].startswith("after systemctl daemon-reload: dd: failed to open") and "use CDI" in found["hint"]


@pytest.mark.parametrize(
    ("broken", "errors", "detail", "hint"),
    [
        ("import", "no space left", "docker import fails: no space left", "docker info"),
        ("run", "Error: unresolvable CDI devices nvidia.com/gpu=all\nSee 'docker run --help'.", "unresolvable CDI devices", "whose version it does not read"),
        ("run", 'could not select device driver "" with capabilities: [[gpu]]', "could not select", "There is no nvidia-container-runtime-hook"),
        ("exec", "dd: failed to open '/dev/nvidia0': Permission denied", "Permission denied", "SELinux"),
    ],
)
def test_a_container_that_does_not(tmp_path, broken, errors, detail, hint):
    engine = Engine(broken, errors)
    found = probe(engine, tmp_path)
    assert not found["ok"] and detail in found["detail"] and hint in found["hint"] and not found["restart_needed"]
    # Nothing is left behind, whatever happened
    assert broken == "import" or engine.verbs()[-2:] == ["rm", "rmi"]


def test_a_docker_that_was_started_before_the_hook_came(tmp_path, monkeypatch):
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = probe(Engine("run", 'could not select device driver "" with capabilities: [[gpu]]'), tmp_path)
    assert not found["ok"] and found["restart_needed"] and "restart Docker" in found["hint"]
    # Another reason is no reason for that
    assert not probe(Engine("run", "Error: unresolvable CDI devices nvidia.com/gpu=all"), tmp_path)["restart_needed"]
    assert not probe(Engine(), tmp_path)["restart_needed"]


def run_module(name, folder, programs, **arguments):
    """A module through Ansible, with programs of these scripts first on PATH; its result, and how long it took."""
    for program, script in programs.items():
        (folder / program).write_text(f"#!/bin/sh\n{script}")
        (folder / program).chmod(0o755)
    started = time.monotonic()
    done = subprocess.run(
        [str(BIN / "ansible"), "localhost", "-m", f"aikit.fleet.{name}", "-a", json.dumps(arguments)],
        env=environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1", PATH=f"{folder}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"], time.monotonic() - started


def test_an_nvidia_ctk_that_hangs_is_not_waited_for(tmp_path):
    found, seconds = run_module("nvidia_cdi_spec", tmp_path, {"nvidia-ctk": "sleep 300\n"}, path=str(tmp_path / "nvidia.yaml"), service="", timeout_seconds=1)
    assert found["failed"] and "nvidia-ctk cdi generate fails: no answer within 1 seconds" in found["msg"] and seconds < 60


def test_a_node_that_hangs_is_not_waited_for(tmp_path):
    script = f'echo "$1" >>{tmp_path}/said; [ "$1" != exec ] || sleep 300\n'
    found, seconds = run_module("nvidia_container_check", tmp_path, {"docker": script}, nodes=["/dev/nvidia0"], timeout_seconds=1)
    assert not found["ok"] and found["detail"] == "no answer within 1 seconds" and seconds < 60
    assert (tmp_path / "said").read_text().split() == ["import", "run", "exec", "rm", "rmi"]


FILTERS = FilterModule().filters()


def test_every_filter_is_documented(root):
    for name in FILTERS:
        document = yaml.safe_load((root / "plugins" / "filter" / f"{name}.yml").read_text(encoding="utf-8"))
        assert document["DOCUMENTATION"]["name"] == name
        assert document["EXAMPLES"] and document["RETURN"]


def test_errors_are_sentences():
    with pytest.raises(AnsibleFilterError, match="nvidia_toolkit_plan: the input has not the documented form .KeyError: 'gpus'."):
        FILTERS["nvidia_toolkit_plan"]({}, {})
    with pytest.raises(AnsibleFilterError, match="It is one of ensure, managed, absent"):
        FILTERS["nvidia_toolkit_plan"]({}, {"state": "latest"})
