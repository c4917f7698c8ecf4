# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module on a host with an engine and a driver, and on one with neither."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ContainerState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import service_memory
from ansible_collections.aikit.fleet.plugins.modules import inference_memory


class FakeEngine:
    name = "docker"

    def container(self, name):
        return (
            ContainerState(name=name, id="c1", image_id="i", status="running", running=True, started_at="t1", labels={"io.aikit.fleet.spec": "s1"})
            if name == "llama"
            else None
        )

    def processes(self, name):
        return [42]


def tree(folder, loaded=True, apps="GPU-a, 42, 6104", used="6104"):
    """A root of a host; nvidia-smi there answers as it is asked, and counts how often."""
    program = folder / "usr/bin/nvidia-smi"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$*" >>{folder}/asked\ncase "$*" in *compute-apps*) echo "{apps}" ;; *) echo "{used}" ;; esac\n')
    program.chmod(0o755)
    if loaded:
        (folder / "proc/driver/nvidia").mkdir(parents=True)
        (folder / "proc/driver/nvidia/version").write_text("NVRM version: 580\n")
    return folder


def call(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        inference_memory.main()
    return json.loads(capsys.readouterr().out)


def test_what_is_held_and_what_was_planned(capsys, monkeypatch, tmp_path):
    root, state = tree(tmp_path / "root"), tmp_path / "state"
    state.mkdir()
    (root / "proc/meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 10485760 kB\n")
    (root / "proc/42").mkdir()
    (root / "proc/42/status").write_text("RssAnon:\t  832000 kB\nRssFile:\t 8000000 kB\n")
    current = {"spec": "s1", "settings": {"gpu_layers": 33}, "release": {"fit": {"offload": "full"}}}
    (state / "llama.json").write_text(json.dumps({"schema": 1, "service": "llama", "current": current}))
    monkeypatch.setattr(inference_memory, "observe", lambda *args: service_memory.observe(*args, opened=lambda name: FakeEngine()))
    found = call(capsys, services=["llama", "new"], state_dir=str(state), root=str(root), engine="docker")
    assert found["changed"] is False and found["engine"] == "docker" and found["problem"] == ""
    llama, new = found["services"]
    assert (llama["held"], llama["source"], llama["fit"]) == ([{"uuid": "GPU-a", "mib": 6104.0}], "driver", {"offload": "full"})
    assert new == {"name": "new", "running": False, "held": [], "source": "", "host_held_mib": 0.0, "fit": {}, "settings": {}, "step_down": {}}
    assert llama["host_held_mib"] == 812.5 and found["host"] == {"total_mib": 16384, "available_mib": 10240}
    assert (root / "asked").read_text().split() == ["--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits"]


@pytest.mark.parametrize(("apps", "used", "source"), [("GPU-a, 7, 20000", "", "driver"), ("", "12", "driver"), ("", "20100", "plan")])
def test_a_container_that_was_just_restarted_holds_its_plan_only_if_the_driver_cannot_tell(capsys, monkeypatch, tmp_path, apps, used, source):
    root, state = tree(tmp_path / "root", apps=apps, used=used), tmp_path / "state"
    state.mkdir()
    fit = {"breakdown": [{"index": 0, "needed_mib": 21113.0}]}
    current = {"spec": "s1", "evidence": {"container_id": "c1", "started_at": "t0"}, "release": {"fit": fit}}
    (state / "llama.json").write_text(json.dumps({"schema": 1, "service": "llama", "current": current}))
    monkeypatch.setattr(inference_memory, "observe", lambda *args: service_memory.observe(*args, opened=lambda name: FakeEngine()))
    (llama,) = call(capsys, services=["llama"], state_dir=str(state), root=str(root))["services"]
    assert (llama["held"], llama["source"]) == ([] if source == "driver" else [{"index": 0, "mib": 21113.0}], source)


def test_all_services_of_the_host(capsys, monkeypatch, tmp_path):
    for name in ("llama", "stopped"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"schema": 1, "service": name}))
    monkeypatch.setattr(inference_memory, "observe", lambda *args: service_memory.observe(*args, opened=lambda name: FakeEngine()))
    found = call(capsys, state_dir=str(tmp_path), root=str(tree(tmp_path / "root")))["services"]
    assert [(entry["name"], entry["running"], entry["source"]) for entry in found] == [("llama", True, "driver"), ("stopped", False, "")]
    assert call(capsys, state_dir=str(tmp_path / "none"), root=str(tmp_path / "root"))["services"] == []


def test_a_host_without_engine_and_driver_holds_nothing(capsys, monkeypatch, tmp_path):
    root = tree(tmp_path, loaded=False)

    def nobody(name):
        raise AikitError("No container engine answers on this host.")

    monkeypatch.setattr(inference_memory, "observe", lambda *args: service_memory.observe(*args, opened=nobody))
    found = call(capsys, services=["llama"], state_dir=str(tmp_path / "none"), root=str(root), _ansible_check_mode=True)
    assert not found.get("failed") and found["engine"] == "" and "No container engine" in found["problem"]
    assert found["services"][0]["held"] == []
    # It would load the driver
    assert not (root / "asked").exists()


def test_a_broken_state_file_is_an_error(capsys, monkeypatch, tmp_path):
    (tmp_path / "llama.json").write_text("{")
    monkeypatch.setattr(inference_memory, "observe", lambda *args: service_memory.observe(*args, opened=lambda name: FakeEngine()))
    assert "is no state file" in call(capsys, services=["llama"], state_dir=str(tmp_path), root=str(tmp_path))["msg"]
