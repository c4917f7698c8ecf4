# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's effects on an engine and on files: real, in check mode, and again."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import stat
import sys

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ContainerState, ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import host
from ansible_collections.aikit.fleet.plugins.modules import inference_release

LABELS = {"io.aikit.fleet.service": "llama"}


class FakeEngine:
    """An engine in memory that refuses what a real one refuses, and remembers what it was told to do."""

    name = "docker"

    def __init__(self):
        self.known = {}
        self.stored = {}
        self.calls = []

    def version(self):
        return {"version": "28.2.2", "cdi_devices": [], "cdi_spec_dirs": [], "runtimes": ["runc"]}

    def image(self, ref):
        return self.stored.get(ref)

    def images(self):
        return list(self.stored.values())

    def remove_image(self, image_id):
        self.calls.append(("remove_image", image_id))
        self.stored.pop(image_id, None)

    def container(self, name):
        return self.known.get(name)

    def containers(self, label=""):
        return list(self.known.values())

    def logs(self, name, tail=None, since=""):
        return "first\nlast words\n"

    def start(self, name):
        self._running(name, True)
        self.calls.append(("start", name))

    def stop(self, name, timeout=30):
        self._running(name, False)
        self.calls.append(("stop", name, timeout))

    def rename(self, name, new):
        assert new not in self.known
        self.known[new] = dataclasses.replace(self.known.pop(name), name=new)
        self.calls.append(("rename", name, new))

    def remove(self, name, volumes=False):
        self.known.pop(name, None)
        self.calls.append(("remove", name))

    def _running(self, name, running):
        self.known[name] = dataclasses.replace(self.known[name], running=running, status="running" if running else "exited")

    def add(self, spec, name="llama", running=True, **changes):
        changes.setdefault("labels", {**LABELS, "io.aikit.fleet.spec": spec})
        self.known[name] = ContainerState(
            name=name,
            id=f"id-{spec}",
            image_id=f"sha256:{spec}",
            status="running" if running else "exited",
            running=running,
            started_at="2026-01-01T00:00:00Z",
            **changes,
        )
        self.stored[f"sha256:{spec}"] = ImageState(id=f"sha256:{spec}", labels={"io.aikit.fleet.server": "llama_cpp"})


def spec(name, port=0):
    return {
        "name": "llama",
        "spec": name,
        "image": {"ref": f"localhost/{name}:1", "id": f"sha256:{name}", "digest": ""},
        "settings": {},
        "container": {"name": "llama"},
        "files": [],
        "ports": [{"bind_address": "127.0.0.1", "port": port}] if port else [],
    }


@pytest.fixture
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr(inference_release, "open_engine", lambda name: fake)
    return fake


@pytest.fixture
def call(tmp_path, engine, capsys):
    def run(step, check=False, **arguments):
        arguments = {"name": "llama", "step": step, "state_dir": str(tmp_path / "state"), "_ansible_check_mode": check, **arguments}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            inference_release.main()
        result = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def state(tmp_path):
    def read():
        path = tmp_path / "state" / "llama.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    return read


def deploy(call, engine, name, verdict="cpu"):
    call("prepare", spec=spec(name))
    engine.add(name)
    return call("commit", spec=spec(name), verdict=verdict, evidence={"layers_total": 19})


def test_observe_changes_nothing(call, engine, state):
    engine.add("old")
    result = call("observe")
    assert (result["changed"], result["actions"], engine.calls, state()) == (False, [], [], None)
    assert result["container"]["spec"] == "old"
    assert result["host"]["engine"]["version"] == "28.2.2"
    assert result["volumes"] == ["aikit-fleet-llama-cache"]
    assert result["state"]["current"] is None


def test_prepare_puts_the_old_one_aside(call, engine, state):
    deploy(call, engine, "old")
    engine.calls.clear()
    checked = call("prepare", check=True, spec=spec("new"))
    assert (engine.calls, state()["pending"]) == ([], None)
    result = call("prepare", spec=spec("new"), stop_timeout=7)
    assert checked["actions"] == result["actions"] == ["write state of llama (pending)", "stop llama", "rename llama (to llama--previous)"]
    assert checked["diff"] == result["diff"]
    assert (result["decision"], result["start_container"], result["proof_due"]) == ("replace", True, True)
    assert engine.calls == [("stop", "llama", 7), ("rename", "llama", "llama--previous")]
    assert state()["pending"] == {
        "spec": "new",
        "image": {"ref": "localhost/new:1", "id": "sha256:new"},
        "replaces": "old",
        "was_running": True,
    }
    again = call("prepare", spec=spec("new"))
    assert (again["changed"], again["decision"], again["start_container"]) == (False, "create", True)


def test_commit_writes_the_state_and_cleans_up(call, engine, state, tmp_path):
    deploy(call, engine, "old")
    call("prepare", spec=spec("new"))
    engine.add("new")
    folder = tmp_path / "state" / "llama"
    folder.mkdir()
    for name in ("config-1.yaml", "config-2.yaml", "api-key-1", "api-key-2", "notes"):
        (folder / name).write_text("x", encoding="utf-8")
    new = {**spec("new"), "files": [{"path": str(folder / "config-2.yaml")}], "api_key_file": str(folder / "api-key-2")}
    engine.calls.clear()
    checked = call("commit", check=True, spec=new, verdict="cpu")
    assert checked["changed"] and engine.calls == [] and state()["pending"]
    result = call("commit", spec=new, verdict="cpu", evidence={"layers_total": 19})
    assert result["changed"]
    assert engine.calls == [("remove", "llama--previous")]
    assert sorted(os.listdir(folder)) == ["api-key-2", "config-2.yaml", "notes"]
    found = state()
    assert (found["pending"], found["previous"]["spec"]) == (None, "old")
    assert {key: value for key, value in found["current"].items() if key != "release"} == {
        "image": "localhost/new:1",
        "id": "sha256:new",
        "digest": "",
        "settings": {},
        "spec": "new",
        "verdict": "cpu",
        "evidence": {"layers_total": 19},
        "container_id": "id-new",
        "started_at": "2026-01-01T00:00:00Z",
    }
    again = call("commit", spec=new, verdict="cpu", evidence={"layers_total": 18})
    assert (again["changed"], again["actions"]) == (False, [])
    assert not call("commit", check=True, spec=new, verdict="cpu")["changed"]


def test_the_state_file_is_private(call, engine, tmp_path):
    deploy(call, engine, "old")
    assert stat.S_IMODE((tmp_path / "state" / "llama.json").stat().st_mode) == 0o600


def test_old_images_go_unless_another_service_needs_them(call, engine, tmp_path):
    for name in ("c1", "c2"):
        deploy(call, engine, name)
    other = {"schema": 1, "service": "other", "current": {"id": "sha256:c1"}}
    path = tmp_path / "state" / "other.json"
    path.write_text(json.dumps(other), encoding="utf-8")
    deploy(call, engine, "c3")
    assert "sha256:c1" in engine.stored
    path.write_text("not json", encoding="utf-8")
    deploy(call, engine, "c4")
    assert "sha256:c1" in engine.stored
    path.unlink()
    deploy(call, engine, "c5")
    assert sorted(engine.stored) == ["sha256:c4", "sha256:c5"]


def test_restore_brings_the_old_one_back_with_the_last_words_of_the_new_one(call, engine, state):
    deploy(call, engine, "old")
    call("prepare", spec=spec("new"))
    engine.add("new")
    engine.calls.clear()
    checked = call("restore", check=True)
    assert (checked["changed"], checked["restored"], engine.calls) == (True, True, [])
    result = call("restore")
    assert result["restored"] and result["logs"] == ["first", "last words"]
    assert engine.calls == [("remove", "llama"), ("rename", "llama--previous", "llama"), ("start", "llama")]
    assert engine.container("llama").running and state()["pending"] is None
    again = call("restore")
    assert (again["changed"], again["restored"]) == (False, False)


def test_rollback_returns_what_ran_before(call, engine):
    deploy(call, engine, "old")
    failed = call("rollback")
    assert failed["failed"] and "has no earlier release on this host" in failed["msg"]
    deploy(call, engine, "new")
    result = call("rollback")
    assert (result["changed"], result["release"]["spec"], result["release"]["container"]) == (False, "old", {"name": "llama"})
    del engine.stored["sha256:old"]
    assert "The image of the earlier release is gone" in call("rollback")["msg"]


def test_stop(call, engine):
    engine.add("old")
    assert call("stop", check=True)["changed"] and engine.calls == []
    assert call("stop")["actions"] == ["stop llama"]
    assert not call("stop")["changed"]


def test_absent(call, engine, state, tmp_path):
    deploy(call, engine, "old")
    call("prepare", spec=spec("new"))
    engine.add("new")
    (tmp_path / "state" / "llama").mkdir()
    engine.calls.clear()
    checked = call("absent", check=True, remove_images=True)
    assert engine.calls == [] and state()
    result = call("absent", remove_images=True)
    assert checked["actions"] == result["actions"]
    assert engine.known == {} and engine.stored == {}
    assert os.listdir(tmp_path / "state") == []
    assert not call("absent", remove_images=True)["changed"]


def test_absent_keeps_images_unless_asked(call, engine):
    deploy(call, engine, "old")
    call("absent")
    assert sorted(engine.stored) == ["sha256:old"]


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_said_before_anything_is_stopped(call, engine, state, taken):
    deploy(call, engine, "old")
    before = state()
    engine.calls.clear()
    for check in (True, False):
        result = call("prepare", check=check, spec=spec("new", taken))
        assert result["failed"]
        assert result["port_owners"][0]["port"] == taken
        assert f"(pid {os.getpid()})" in result["msg"]
    assert (engine.calls, state()) == ([], before)
    assert f"(pid {os.getpid()})" in call("observe", ports=[{"port": taken}])["port_owners"][0]["owner"]


def test_the_port_of_a_container_that_runs_as_wanted_is_not_looked_at(call, engine, taken):
    deploy(call, engine, "old")
    result = call("prepare", spec=spec("old", taken))
    assert (result["decision"], result["changed"]) == ("unchanged", False)


@pytest.mark.parametrize("step", ["prepare", "commit"])
def test_steps_that_need_a_spec(call, step):
    assert "spec" in call(step)["msg"]


def test_a_broken_state_file_is_named(call, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "llama.json").write_text("{", encoding="utf-8")
    result = call("observe")
    assert "llama.json" in result["msg"] and "Move the file away" in result["hint"]


def test_containers_of_others_are_an_error(call, engine):
    engine.add("old", labels={})
    assert "is not this service's" in call("prepare", spec=spec("new"))["msg"]
    assert engine.calls == []


# --- what is read from the host ----------------------------------------------------------------------------------


def test_cdi_devices_are_read_where_the_engine_only_names_folders(tmp_path, engine, monkeypatch):
    (tmp_path / "nvidia.yaml").write_text('kind: nvidia.com/gpu\ndevices:\n- name: "0"\n- name: all\n', encoding="utf-8")
    (tmp_path / "amd.json").write_text('{"kind": "amd.com/gpu", "devices": [{"name": "0"}]}', encoding="utf-8")
    (tmp_path / "notes.txt").write_text("kind: x/y\ndevices:\n- name: z\n", encoding="utf-8")
    monkeypatch.setattr(engine, "version", lambda: {"cdi_spec_dirs": [str(tmp_path), "/nowhere"], "runtimes": ["nvidia"]})
    found = host.describe(engine)
    assert found["cdi_devices"] == ["amd.com/gpu=0", "nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    assert found["nvidia_hook"] is True


def test_an_engine_without_cdi_offers_no_device(engine):
    assert host.describe(engine)["cdi_devices"] == []


def test_hardware_threads_of_one_core_count_once(tmp_path):
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{number}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}/topology/thread_siblings_list").write_text(f"{siblings}\n")
    (tmp_path / "cpufreq").mkdir()
    assert host.cores(str(tmp_path)) == 2
    assert host.cores("/nowhere") == os.cpu_count()


def test_a_socket_of_another_users_process_has_no_name(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "head\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n", encoding="utf-8"
    )
    found = host.listening([8080], str(tmp_path))
    assert [(listener.port, process) for listener, process in found] == ([(8080, "")] if sys.byteorder == "little" else [])


def test_a_state_file_that_is_no_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(AikitError, match="is no text"):
        host.read_text(str(tmp_path / "x"))
