# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_nvidia, data_nvidia_toolkit, nvidia_toolkit
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

VERSION = data_nvidia_toolkit.VERSION
FULL = f"{VERSION}-{data_nvidia_toolkit.BUILD}"
NAMES = data_nvidia_toolkit.PACKAGES
HOOK = "nvidia-container-runtime-hook"

GPU = {"vendor": "nvidia", "driver_in_use": "nvidia"}
DEBIAN = {"id": "debian", "version_id": "13", "pretty_name": "Debian GNU/Linux 13 (trixie)", "id_like": [], "arch": "x86_64"}

DOCKER_20 = {"name": "docker", "version": "20.10.24+dfsg1", "cdi": False, "gpus_flag": False, "cdi_spec_max": "", "rootless": False}
DOCKER_25 = {**DOCKER_20, "version": "25.0.3", "cdi_spec_max": "0.6.0"}
DOCKER_26 = {**DOCKER_20, "version": "26.1.5+dfsg1", "cdi_spec_max": "0.7.0"}
DOCKER_28 = {**DOCKER_20, "version": "28.2.2", "cdi": True, "cdi_spec_max": "0.7.0"}
DOCKER_29 = {**DOCKER_28, "version": "29.2.0"}
PODMAN_3 = {"name": "podman", "version": "3.0.1", "cdi": False, "gpus_flag": False, "cdi_spec_max": "", "rootless": False}
PODMAN_43 = {**PODMAN_3, "version": "4.3.1", "cdi": True, "cdi_spec_max": "0.5.0"}
PODMAN_54 = {**PODMAN_3, "version": "5.4.2", "cdi": True, "cdi_spec_max": "0.7.0"}
CONTAINERD = {"name": "containerd", "version": "1.7.24", "cdi": False, "gpus_flag": False, "cdi_spec_max": "0.7.0", "rootless": False}


def at(version, names=NAMES):
    return {"version": version, "packages": {name: f"{version}-1" for name in names}}


def host(engines=(DOCKER_26,), toolkit=None, driver="loaded", gpus=(GPU,), os=None, files=(), **more):
    return {
        "gpus": list(gpus),
        "driver": {"state": driver},
        "toolkit": toolkit or {"version": "", "packages": {}},
        "cdi": {"devices": [], "spec_version": "", "files": list(files)},
        "engines": list(engines),
        "host": {"os": {**DEBIAN, **(os or {})}, "service_manager": "systemd", "selinux": "", "wsl": driver == "wsl", **more},
    }


def plan(found, **wishes):
    made = nvidia_toolkit.plan(copy.deepcopy(found), wishes)
    assert json.loads(json.dumps(made)) == made
    return made


MIXED = {"version": "1.19.1", "packages": {**at("1.19.1")["packages"], "libnvidia-container1": "1.20.0-1"}}


@pytest.mark.parametrize(
    ("found", "wishes", "action", "version", "reason"),
    [
        # No GPU to hand out
        (host(gpus=()), {}, "none", "", "skipped: no NVIDIA GPU was found"),
        (host(gpus=[{"vendor": "amd", "driver_in_use": "amdgpu"}]), {}, "none", "", "skipped: no NVIDIA GPU was found"),
        (host(gpus=[{**GPU, "driver_in_use": "vfio-pci"}]), {"state": "managed"}, "none", "", "passed through"),
        # WSL shows no card on its bus
        (host(gpus=(), driver="wsl"), {}, "install", VERSION, "there is no"),
        # Nothing there
        (host(), {}, "install", VERSION, "there is no"),
        (host(), {"state": "managed"}, "install", VERSION, "there is no"),
        (host(), {"version": "1.19.1"}, "install", "1.19.1", "there is no"),
        # ensure leaves alone what is there
        (host(toolkit=at("1.19.1")), {}, "none", "1.19.1", "left alone"),
        (host(toolkit={"version": "1.21.0", "packages": {}}), {}, "none", "1.21.0", "left alone"),
        (host(toolkit=at("1.18.0")), {}, "none", "1.18.0", "left alone"),
        (host(toolkit=at("1.18.0")), {"version": "1.20.0"}, "none", "1.18.0", "left alone"),
        # managed keeps one version
        (host(toolkit=at("1.18.0")), {"state": "managed"}, "upgrade", VERSION, "1.18.0 is installed, 1.20.0 is wanted"),
        (host(toolkit=at(VERSION)), {"state": "managed"}, "none", VERSION, "is installed"),
        # A newer one is not taken back unasked
        (host(toolkit=at("1.21.0")), {"state": "managed"}, "none", "1.21.0", "is installed"),
        (host(toolkit=at("1.21.0")), {"state": "managed", "version": "1.20.0"}, "upgrade", "1.20.0", "1.21.0 is installed, 1.20.0 is wanted"),
        (host(toolkit=at("1.20.0")), {"state": "managed", "version": "1.19.1"}, "upgrade", "1.19.1", "1.20.0 is installed"),
        # 1.9 is no newer than 1.19
        (host(toolkit=at("1.9.0")), {"state": "managed"}, "upgrade", VERSION, "1.9.0 is installed"),
        # Half an upgrade is mended
        (host(toolkit=MIXED), {"state": "managed", "version": "1.19.1"}, "upgrade", "1.19.1", "libnvidia-container1 1.20.0-1"),
        (host(toolkit=at(VERSION, NAMES[1:2])), {"state": "managed"}, "upgrade", VERSION, "nvidia-container-toolkit missing"),
        (host(toolkit=at("1.21.0", NAMES[1:2])), {"state": "managed"}, "upgrade", "1.21.0", "missing"),
        (host(toolkit=at(VERSION, NAMES[1:2]), engines=[PODMAN_54]), {"state": "managed", "packages": "base"}, "none", VERSION, "is installed"),
        # Refusals
        (host(toolkit={"version": "1.20.0", "packages": {}}), {"state": "managed"}, "refuse", "", "belongs to no package"),
        (host(), {"version": "1.19.0"}, "refuse", "", "CVE-2026-24260"),
        (host(driver="absent"), {}, "refuse", "", "there is no NVIDIA driver. Run role aikit.fleet.nvidia_driver first"),
        (host(driver="nouveau"), {}, "refuse", "", "nouveau drives the GPUs"),
        (host(os={"id": "arch", "pretty_name": "Arch Linux"}), {}, "refuse", "", "Arch Linux on x86_64 has no recipe here"),
        (host(os={"arch": "ppc64le"}), {}, "refuse", "", "on ppc64le has no recipe"),
        # … which a toolkit that is there already makes none
        (host(os={"id": "arch"}, toolkit=at("1.20.0")), {}, "none", "1.20.0", "left alone"),
    ],
)
def test_decision(found, wishes, action, version, reason):
    made = plan(found, **wishes)
    assert (made["action"], made["version"]) == (action, version)
    assert reason in made["reason"]
    assert made["configure"] == (action != "refuse" and "skipped" not in made["reason"])


def test_below_the_floor_is_a_problem_in_ensure_only():
    (problem,) = plan(host(toolkit=at("1.19.0")))["problems"]
    assert problem["name"] == nvidia_toolkit.BELOW_FLOOR
    assert "1.19.0, below 1.19.1" in problem["detail"] and "managed" in problem["hint"]
    assert plan(host(toolkit=at("1.19.0")), state="managed")["problems"] == []
    assert plan(host(toolkit=at(data_nvidia.TOOLKIT_FLOOR)))["problems"] == []
    assert "is no version" in plan(host(toolkit={"version": "unknown", "packages": {}}))["problems"][0]["detail"]


@pytest.mark.parametrize(
    ("driver", "check_mode", "waits_for"),
    [
        ("loaded", False, ""),
        ("wsl", False, ""),
        ("installed_not_loaded", False, "reboot"),
        ("mismatch", False, "reboot"),
        ("absent", True, "driver"),
        ("nouveau", True, "driver"),
    ],
)
def test_what_waits_for_the_driver(driver, check_mode, waits_for):
    made = plan(host(driver=driver), check_mode=check_mode)
    assert made["action"] == "install"
    assert made["waits_for"] == waits_for
    assert made["cdi"]["generate"] == (not waits_for)
    assert bool(made["notes"]) == bool(waits_for)


def test_nouveau_goes_with_the_reboot_that_the_installed_driver_waits_for():
    found = host(driver="nouveau", toolkit=at("1.20.0"))
    found["driver"]["installed_version"] = "580.159.03"
    made = plan(found)
    assert (made["action"], made["waits_for"], made["refusals"]) == ("none", "reboot", [])


@pytest.mark.parametrize(
    ("system", "manager", "first", "url"),
    [
        ({}, "apt", f"{NAMES[0]}={FULL}", "/stable/deb/amd64"),
        ({"id": "ubuntu", "version_id": "24.04", "arch": "aarch64"}, "apt", f"{NAMES[0]}={FULL}", "/stable/deb/arm64"),
        ({"id": "linuxmint", "id_like": ["ubuntu", "debian"]}, "apt", f"{NAMES[0]}={FULL}", "/stable/deb/amd64"),
        ({"id": "pop", "id_like": "ubuntu debian"}, "apt", f"{NAMES[0]}={FULL}", "/stable/deb/amd64"),
        ({"id": "rhel", "version_id": "9.7"}, "dnf", f"{NAMES[0]}-{FULL}", "/stable/rpm/x86_64"),
        ({"id": "rocky", "version_id": "10", "arch": "aarch64"}, "dnf", f"{NAMES[0]}-{FULL}", "/stable/rpm/aarch64"),
        ({"id": "almalinux", "version_id": "8.10"}, "dnf", f"{NAMES[0]}-{FULL}", "/stable/rpm/x86_64"),
    ],
)
def test_systems(system, manager, first, url):
    made = plan(host(os=system))
    assert made["manager"] == manager
    assert made["packages"][0] == first and len(made["packages"]) == 4
    assert {package.rpartition("-1")[0].rpartition("=" if manager == "apt" else "-")[2] for package in made["packages"]} == {VERSION}
    repository = made["repository"]
    assert (repository["uris"][0] if manager == "apt" else repository["baseurl"]) == data_nvidia_toolkit.REPOSITORY + url
    assert made["key"]["url"] == data_nvidia_toolkit.REPOSITORY + "/gpgkey"
    assert made["key"]["fingerprint"] == "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
    assert made["key"]["checksum"] == ""
    if manager == "apt":
        assert made["pin"]["content"].endswith(f"Package: {' '.join(NAMES)}\nPin: version {FULL}\nPin-Priority: 1001\n")
        assert repository["signed_by"] == made["key"]["path"] and made["versionlock"] == []
    else:
        assert made["versionlock"] == [f"{name}-{FULL}" for name in NAMES] and made["pin"] == {}
        assert repository["repo_gpgcheck"] and repository["gpgkey"] == "file://" + made["key"]["path"]


def test_a_mirror():
    made = plan(host(), repository_url="http://mirror.example/nvidia/", key_url="http://mirror.example/key", key_sha256="ab", key_fingerprint="aa bb cc")
    assert made["repository"]["uris"] == ["http://mirror.example/nvidia/stable/deb/amd64"]
    assert made["key"] == {
        "url": "http://mirror.example/key",
        "checksum": "sha256:ab",
        "fingerprint": "AABBCC",
        "download": data_nvidia_toolkit.KEY_DOWNLOAD,
        "path": data_nvidia_toolkit.KEY_PATHS["apt"],
    }
    made = plan(host(), repository="none")
    assert made["repository"] == made["key"] == {} and made["prerequisites"] == made["old_files"] == []
    assert len(made["packages"]) == 4


def test_only_what_cdi_needs():
    assert plan(host(engines=[PODMAN_54]), packages="base")["packages"] == [f"nvidia-container-toolkit-base={FULL}"]


def test_one_that_is_left_alone_gets_no_repository():
    made = plan(host(toolkit=at("1.20.0")))
    assert made["manager"] == "" and made["packages"] == [] and made["repository"] == {}
    # … and one that is managed keeps its own
    assert plan(host(toolkit=at(VERSION)), state="managed")["repository"]["uris"]


@pytest.mark.parametrize(
    ("engines", "flags"),
    [
        ([DOCKER_26], False),
        ([DOCKER_26, PODMAN_54], False),
        ([DOCKER_26, PODMAN_43], True),
        ([DOCKER_25], True),
        ([DOCKER_20], False),
        ([PODMAN_3], False),
        ([], False),
        ([{**CONTAINERD, "version": "1.7.2", "cdi_spec_max": "0.5.0"}], True),
        # Docker's own
        ([DOCKER_26, {**CONTAINERD, "version": "1.7.2", "cdi_spec_max": "0.5.0"}], False),
    ],
)
def test_the_specification_is_one_that_every_engine_reads(engines, flags):
    made = plan(host(engines=engines))["cdi"]
    assert made["flags"] == ("no-additional-gids-for-device-nodes" if flags else "")
    assert ("NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=no-additional-gids-for-device-nodes" in made["drop_in"]["content"]) == flags
    judged = [engine for engine in engines if engine["cdi_spec_max"] and (engine["name"] != "containerd" or DOCKER_26 not in engines)]
    assert made["readable"] == {engine["name"]: engine["cdi_spec_max"] for engine in judged}


@pytest.mark.parametrize(
    ("found", "service", "path", "stale"),
    [
        (host(files=["/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"]), True, "/var/run/cdi/nvidia.yaml", ["/etc/cdi/nvidia.yaml"]),
        (host(files=["/etc/cdi/other.yaml"]), True, "/var/run/cdi/nvidia.yaml", []),
        # Without the refresh units it is the only one
        (host(toolkit=at("1.17.8"), files=["/etc/cdi/nvidia.yaml"]), False, "/etc/cdi/nvidia.yaml", []),
        (host(service_manager="none"), False, "/etc/cdi/nvidia.yaml", []),
    ],
)
def test_where_the_specification_lies(found, service, path, stale):
    made = plan(found)["cdi"]
    assert (bool(made["service"]), made["path"], made["stale_files"]) == (service, path, stale)


@pytest.mark.parametrize(
    ("engine", "settings", "keys", "restart_for", "arguments"),
    [
        (DOCKER_20, {"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}, ["runtimes.nvidia"], [HOOK], ["--gpus", "all"]),
        (DOCKER_25, {"features": {"cdi": True}}, ["features.cdi"], [], ["--device", "nvidia.com/gpu=all"]),
        (DOCKER_26, {"features": {"cdi": True}}, ["features.cdi"], [], ["--device", "nvidia.com/gpu=all"]),
        (DOCKER_28, {}, [], [], ["--device", "nvidia.com/gpu=all"]),
        (DOCKER_29, {}, [], [], ["--device", "nvidia.com/gpu=all"]),
    ],
)
def test_docker(engine, settings, keys, restart_for, arguments):
    made = plan(host(engines=[engine]))
    assert made["docker"] == {"settings": settings, "restart_for": restart_for, "service": "docker.service", "keys": keys}
    assert made["engines"] == [{"name": "docker", "arguments": arguments}]
    assert "default-runtime" not in json.dumps(made)
    # What is there already needs no restart; what a setting needs, the module says
    assert plan(host(engines=[engine], toolkit=at("1.20.0")))["docker"]["restart_for"] == []


@pytest.mark.parametrize(("hook", "restart_for"), [(True, []), (False, ["nvidia-container-runtime-hook"])])
def test_an_upgrade_that_brings_the_hook_restarts_docker(hook, restart_for):
    made = plan(host(engines=[{**DOCKER_20, "gpus_flag": hook}], toolkit=at("1.18.0")), state="managed")
    assert made["action"] == "upgrade" and made["docker"]["restart_for"] == restart_for


def test_docker_that_does_not_answer_is_left_alone():
    assert plan(host(engines=[{**DOCKER_26, "version": "", "cdi_spec_max": ""}]))["docker"]["settings"] == {}


def test_cdi_that_was_switched_off_is_named():
    (problem,) = plan(host(engines=[{**DOCKER_28, "cdi": False}]))["problems"]
    assert "features.cdi: false" in problem["hint"]


def test_podman():
    made = plan(host(engines=[PODMAN_54]))
    assert made["podman"]["remove"] == ["/usr/share/containers/oci/hooks.d/oci-nvidia-hook.json"]
    assert made["docker"]["settings"] == {} and made["ordering"] == {}
    (problem,) = plan(host(engines=[PODMAN_3]))["problems"]
    assert problem["name"] == "podman too old"


def test_containerd_alone_and_beside_docker():
    wanted = {"config": "/etc/containerd/config.toml", "service": "containerd.service", "record": "/etc/aikit-fleet/nvidia_container_toolkit/containerd"}
    assert plan(host(engines=[CONTAINERD]))["containerd"] == wanted
    assert plan(host(engines=[DOCKER_26, CONTAINERD]))["containerd"] == {}
    # A restart may have been left over
    assert plan(host(engines=[{**CONTAINERD, "cdi": True}]))["containerd"] == wanted
    # On by default since 2.0, unless somebody switched it off
    assert plan(host(engines=[{**CONTAINERD, "version": "2.1.4", "cdi": True}]))["containerd"] == {}
    assert plan(host(engines=[{**CONTAINERD, "version": "2.1.4"}]))["containerd"] == wanted
    old = plan(host(engines=[{**CONTAINERD, "version": "1.6.20", "cdi_spec_max": ""}]))
    assert old["containerd"] == {} and [problem["name"] for problem in old["problems"]] == ["containerd too old"]
    gone = plan(host(engines=[CONTAINERD]), state="absent", owned=["containerd"])
    assert gone["containerd"] == {"config": wanted["config"], "service": wanted["service"]}


def test_an_engine_that_rests_is_not_woken():
    resting = {**CONTAINERD, "answers": False}
    made = plan(host(engines=[PODMAN_54, resting]))
    assert made["containerd"] == {} and [engine["name"] for engine in made["engines"]] == ["podman"] and "Containerd" not in str(made["notes"])
    old = plan(host(engines=[PODMAN_54, {**resting, "version": "1.6.20", "cdi_spec_max": ""}]))
    assert old["problems"] == []
    gone = plan(host(engines=[resting]), state="absent", owned=["containerd"])
    assert gone["containerd"]["config"] and gone["containerd"]["service"] == ""
    for docker in (DOCKER_20, DOCKER_26):
        made = plan(host(engines=[{**docker, "answers": False}, PODMAN_54]))
        assert made["docker"] == {"settings": {}, "restart_for": [], "service": "", "keys": []}
        assert [engine["name"] for engine in made["engines"]] == ["podman"] and "Docker does not answer" in made["notes"][0]


def test_only_engines_that_hand_out_gpus_are_tried():
    podman = {**PODMAN_3, "version": "3.4.4"}
    made = plan(host(engines=[DOCKER_29, podman]))
    assert [engine["name"] for engine in made["engines"]] == ["docker"]
    assert [problem["name"] for problem in made["problems"]] == ["podman too old"]
    # Switched off by its owner: NVIDIA's hook is there, or nothing is
    off = {**DOCKER_29, "cdi": False}
    assert plan(host(engines=[off, PODMAN_54]))["engines"] == [{"name": "podman", "arguments": ["--device", "nvidia.com/gpu=all"]}]
    assert plan(host(engines=[{**off, "gpus_flag": True}]))["engines"] == [{"name": "docker", "arguments": ["--gpus", "all"]}]
    names, made = failing(host(engines=[off], toolkit=at("1.20.0")), containers=())
    assert names == ["container engine", "CDI is off in docker"] and made["failures"][0].startswith("container engine: no engine hands out GPUs: docker 29.2.0")


@pytest.mark.parametrize("name", ["nvidia_smi_hung", "packages_unreadable"])
def test_what_cannot_be_judged_is_refused(name):
    found = {**host(toolkit=at("1.20.0")), "problems": [{"name": name, "detail": "It says nothing.", "hint": "Look at it.", "severity": "error"}]}
    for state in ("ensure", "managed"):
        made = plan(found, state=state)
        assert (made["action"], made["configure"], made["reason"]) == ("refuse", False, "It says nothing. Look at it.")
    assert plan({**found, "gpus": []})["action"] == "none"


def test_gpus_are_remembered_and_one_that_is_gone_stays_so():
    found = host(gpus=[{**GPU, "uuid": f"GPU-{number}", "pci_bus_id": f"0000:0{number}:00.0", "pci_id": "10de:2330", "name": "H100"} for number in (1, 2)])
    path = "/var/lib/aikit-fleet/host/gpus.json"

    def remembered(made):
        return [entry["content"] for entry in made["configuration_files"] if entry["path"] == path]

    (text,) = remembered(plan(found))
    assert [gpu["uuid"] for gpu in json.loads(text)] == ["GPU-1", "GPU-2"]
    gone = {"name": "gpus_missing", "detail": "There are 1 GPUs where there were 2.", "hint": "Look for it.", "severity": "error"}
    one = {**found, "gpus": found["gpus"][:1], "problems": [gone]}
    assert remembered(plan(one)) == [] and plan(one)["problems"][0]["name"] == "gpus_missing"
    # As many as before, and others: the host has new ones
    assert len(remembered(plan({**found, "problems": [{**gone, "severity": "warning"}]}))) == 1
    # Before its driver works a GPU has no id
    assert remembered(plan({**found, "driver": {"state": "installed_not_loaded"}})) == []
    # All of them may be gone
    none = plan({**one, "gpus": []})
    assert none["action"] == "none" and "There are 1 GPUs where there were 2" in nvidia_toolkit.facts(none)["summary"]
    assert path in plan(found, state="absent", owned=["packages"])["remove_files"]


def test_the_old_specification_stays_until_there_is_a_new_one():
    assert plan(host(files=["/etc/cdi/nvidia.yaml"]))["cdi"]["stale_files"] == ["/etc/cdi/nvidia.yaml"]
    assert plan(host(files=["/etc/cdi/nvidia.yaml"], driver="mismatch"))["cdi"]["stale_files"] == []


@pytest.mark.parametrize("enabled", [True, False])
def test_containerd_says_itself_whether_cdi_is_on(enabled):
    found = host(engines=[{**CONTAINERD, "cdi": enabled}], toolkit=at("1.20.0"))
    made = nvidia_toolkit.facts(plan(found), found, {"devices": [nvidia_toolkit.ALL], "spec_version": "0.7.0", "survives_reboot": True})
    (check,) = [check for check in made["checks"] if check["name"] == "CDI in containerd"]
    assert check["ok"] is enabled and bool(made["failures"]) is not enabled
    # Beside Docker it is Docker's
    both = host(engines=[DOCKER_28, {**CONTAINERD, "cdi": enabled}], toolkit=at("1.20.0"))
    assert not any("containerd" in check["name"] for check in nvidia_toolkit.facts(plan(both), both)["checks"])


def test_order_of_docker():
    content = plan(host())["ordering"]["content"]
    for word in ("Wants", "After"):
        assert f"{word}=nvidia-cdi-refresh.service nvidia-persistenced.service\n" in content
    assert plan(host(service_manager="none"))["ordering"] == {}


@pytest.mark.parametrize(("version", "helped"), [("20.10.24", False), ("25.0.3", True), ("26.1.5", True), ("28.1.1", True), ("28.2.2", False), ("29.0", False)])
def test_containers_that_docker_forgets_at_boot_are_started(version, helped):
    path = data_nvidia_toolkit.STARTER_PATH
    program = (Path(__file__).resolve().parents[3] / "roles/nvidia_container_toolkit/files" / Path(path).name).read_text()
    compile(program, path, "exec")
    # As Ansible's lookup reads it
    made = plan(host(engines=[{**DOCKER_26, "version": version}]), starter=program.rstrip())
    line = f"ExecStartPost=-/usr/bin/python3 {path} "
    assert (f"{line}/run/docker.sock\n" in made["ordering"]["content"]) is helped
    # The same for Docker of users, whose runtime directory is another one
    (users,) = [entry for entry in made["cdi"]["users_files"] if entry["path"] == "/etc/systemd/user/docker.service.d/aikit-fleet.conf"]
    assert users.get("content", "").endswith(f"[Service]\n{line}%t/docker.sock\n") is helped and (users.get("state") == "absent") is not helped
    assert users["path"] in plan(host(engines=[DOCKER_26]), state="absent", owned=["packages"])["remove_files"]
    (entry,) = [entry for entry in made["configuration_files"] if entry["path"] == path]
    assert (entry.get("content"), entry.get("state")) == ((program, None) if helped else (None, "absent"))


@pytest.mark.parametrize(("version", "ordered"), [("1.17.8", False), ("1.18.2", True), ("1.19.0", False), ("1.19.1", True), ("1.20.0", True)])
def test_docker_is_not_ordered_after_what_waits_for_docker(version, ordered):
    # The unit of 1.19.0 has After=multi-user.target, and Docker belongs to that target
    assert bool(plan(host(toolkit=at(version)))["ordering"]) == ordered


@pytest.mark.parametrize(
    ("selinux", "wish", "boolean", "note"),
    [
        ("enforcing", "boolean", True, False),
        ("permissive", "boolean", True, False),
        ("enforcing", "none", False, True),
        ("disabled", "boolean", False, False),
        ("", "boolean", False, False),
    ],
)
def test_selinux(selinux, wish, boolean, note):
    made = plan(host(selinux=selinux), selinux=wish)
    assert made["selinux"] == ({"boolean": "container_use_devices"} if boolean else {})
    assert any("label=disable" in text for text in made["notes"]) == note


def test_rootless_engines():
    assert any("keep-groups" in text for text in plan(host(engines=[{**PODMAN_54, "rootless": True}]))["notes"])


PASSWD = {"alice": ["x", "1000", "1000", "", "/home/alice", "/bin/bash"], "bob": ["x", "1001", "1001", "", "/home/bob", "/bin/bash"]}


def test_rootless_engines_of_users():
    made = nvidia_toolkit.rootless(plan(host(engines=[DOCKER_26, PODMAN_54])), ["alice", "bob"], PASSWD, {"bob": True})
    assert [(one["user"], one["engine"]) for one in made] == [("alice", "podman"), ("bob", "podman"), ("bob", "docker")]
    assert made[0]["environment"] == {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/alice"} and made[0]["settings"] == {}
    docker = made[2]
    # What is later in the list wins: the copy is for engines that see nothing else
    folders = ["/var/lib/aikit-fleet-cdi", "/etc/cdi", "/var/run/cdi", "/home/bob/.config/cdi", "/run/user/1001/cdi"]
    assert docker["daemon_json"] == "/home/bob/.config/docker/daemon.json"
    assert docker["settings"] == {"features": {"cdi": True}, "cdi-spec-dirs": folders}
    assert docker["environment"]["DOCKER_HOST"] == docker["socket"] == "unix:///run/user/1001/docker.sock"
    # CDI is on by default
    assert nvidia_toolkit.rootless(plan(host(engines=[DOCKER_28])), ["bob"], PASSWD, {"bob": True})[0]["settings"] == {"cdi-spec-dirs": folders}
    # No engine, nothing to do
    assert nvidia_toolkit.rootless(plan(host(engines=[CONTAINERD])), ["alice"], PASSWD, {}) == []


def test_every_refresh_is_copied_for_docker_of_users():
    written = plan(host(engines=[DOCKER_26]))["cdi"]["users_files"][0]
    assert written["path"] == "/etc/systemd/system/nvidia-cdi-refresh.service.d/aikit-fleet-rootless.conf"
    assert written["content"].splitlines()[-2:] == [
        "[Service]",
        "ExecStartPost=-/usr/bin/install -D --mode=0644 /var/run/cdi/nvidia.yaml /var/lib/aikit-fleet-cdi/nvidia.yaml",
    ]
    gone = plan(host(engines=[DOCKER_26]), state="absent", owned=["packages"])["remove_files"]
    assert {written["path"], "/var/lib/aikit-fleet-cdi"} <= set(gone)


def test_rootless_engines_that_cannot_be():
    with pytest.raises(AikitError, match="names carol, and the host has no such user"):
        nvidia_toolkit.rootless(plan(host()), ["alice", "carol"], PASSWD, {})
    with pytest.raises(AikitError, match="bob has a rootless Docker before 25.0.*takes the GPUs from"):
        nvidia_toolkit.rootless(plan(host(engines=[DOCKER_20])), ["bob"], PASSWD, {"bob": True})


@pytest.mark.parametrize(
    ("owned", "toolkit", "action", "packages", "keys"),
    [
        ([], at("1.20.0"), "none", [], []),
        ([], None, "none", [], []),
        (["packages"], at("1.20.0"), "remove", list(NAMES), []),
        (["packages", "docker-features.cdi"], at("1.20.0", NAMES[1:2]), "remove", list(NAMES[1:2]), ["features.cdi"]),
        # Somebody else's toolkit, our setting
        (["docker-runtimes.nvidia"], at("1.20.0"), "remove", [], ["runtimes.nvidia"]),
    ],
)
def test_absent_takes_back_only_what_was_done(owned, toolkit, action, packages, keys):
    made = plan(host(toolkit=toolkit), state="absent", owned=owned)
    assert (made["action"], made["packages"], made["docker"]["keys"]) == (action, packages, keys)
    ours = "packages" in owned
    assert (data_nvidia_toolkit.PIN_PATH in made["remove_files"]) == ours
    assert bool(made["repository"]) == ours
    assert made["configure"] is False
    # A host whose card was taken out is cleaned too
    assert plan(host(toolkit=toolkit, gpus=(), driver="absent"), state="absent", owned=owned)["action"] == action


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"stat": "ensure"}, "knows no wish stat"),
        ({"state": "present"}, "state is 'present'"),
        ({"version": "latest"}, "'latest', which is no version. Write it like"),
    ],
)
def test_bad_wishes(wishes, message):
    with pytest.raises(AikitError, match=message):
        plan(host(), **wishes)


NVIDIA = data_nvidia_toolkit.KEY_FINGERPRINT
OTHER = "0" * 40


def test_locks_of_other_versions():
    old, new = ([f"{name}-{version}-1" for name in NAMES] for version in ("1.19.1", "1.20.0"))
    users = ["nginx-1.26.3-1", "nvidia-container-toolkit-0:1.18.0-1.*", "!libnvidia-container1-1.18.0-1", "my-libnvidia-container1-1.18.0-1"]
    assert nvidia_toolkit.stale_locks([*users, *old, *new], new) == sorted(old)
    assert nvidia_toolkit.stale_locks([*users, *new], new) == []
    assert nvidia_toolkit.stale_locks([*users, *old, *new]) == sorted(old + new)


def listing(*keys):
    lines = []
    for key in keys:
        lines += [
            "pub:-:4096:1:DDCAE044F796ECB0:1522280423:::-:::scSC::::::23::0:",
            f"fpr:::::::::{key}:",
            "uid:-::::1522280423::AB::NVIDIA CORPORATION (Open Source)::::::::::0:",
        ]
        lines += ["sub:e:4096:1:6ED91CA3AC1160CD:1528310544:1623850000:::::e::::::23:", f"fpr:::::::::{'F' * 40}:"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (listing(NVIDIA), ""),
        (listing(OTHER), f"holds {OTHER}; expected is {NVIDIA}"),
        # A second key would be trusted as well
        (listing(NVIDIA, OTHER), f"holds {NVIDIA}, {OTHER}"),
        ("", "holds no key"),
        ("gpg: no valid OpenPGP data found.", "holds no key"),
        # The fingerprint of a subkey is not that of the key
        (listing(OTHER).replace("F" * 40, NVIDIA), f"holds {OTHER}"),
    ],
)
def test_key(text, problem):
    found = nvidia_toolkit.key_problem(text, NVIDIA, "https://example/gpgkey")
    assert found == "" if not problem else problem in found


def container(name, policy):
    return {"Name": f"/{name}", "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}}}


@pytest.mark.parametrize(
    ("wish", "live_restore", "containers", "restart", "reason"),
    [
        ("if_safe", False, [], True, ""),
        ("if_safe", False, [container("a", "always"), container("b", "unless-stopped")], True, ""),
        ("if_safe", False, [container("web", "no"), container("b", "always")], False, "web would not come back"),
        ("if_safe", False, [container("web", "")], False, "web"),
        # It restarts what failed, and a daemon that ends stops containers in good order
        ("if_safe", False, [container("job", "on-failure")], False, "job"),
        ("if_safe", True, [container("web", "no")], True, ""),
        ("always", False, [container("web", "no")], True, ""),
        ("never", True, [], False, "is never"),
    ],
)
def test_restart_of_docker(wish, live_restore, containers, restart, reason):
    found = nvidia_toolkit.docker_restart(wish, live_restore, containers)
    assert found["restart"] is restart and reason in found["reason"]


SPEC = {
    "path": "/var/run/cdi/nvidia.yaml",
    "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"],
    "spec_version": "0.7.0",
    "stale": False,
    "survives_reboot": True,
    "problem": "",
}
SEEN = {"engine": "docker", "ok": True, "detail": "2 device nodes open", "hint": ""}


def failing(found, spec=None, containers=(SEEN,), restart=None, **wishes):
    made = nvidia_toolkit.facts(plan(found, **wishes), found, {**SPEC, **(spec or {})}, containers, restart)
    return [check["name"] for check in made["checks"] if not check["ok"]], made


@pytest.mark.parametrize(
    ("found", "spec", "containers", "names"),
    [
        (host(toolkit=at("1.20.0")), {}, [SEEN], []),
        (host(toolkit=at("1.20.0")), {"devices": []}, [SEEN], ["CDI devices"]),
        (host(toolkit=at("1.20.0")), {"stale": True}, [SEEN], ["CDI specification is current"]),
        (host(toolkit=at("1.20.0")), {"survives_reboot": False}, [SEEN], ["CDI specification comes back at boot"]),
        (host(toolkit=at("1.20.0"), engines=[DOCKER_26, PODMAN_43]), {}, [SEEN], ["CDI specification is readable"]),
        (host(toolkit=at("1.20.0"), engines=[DOCKER_26, PODMAN_43]), {"spec_version": "0.5.0"}, [SEEN], []),
        (host(toolkit=at("1.20.0")), {}, [{**SEEN, "ok": False, "hint": "why"}], ["GPU in a container of docker"]),
        # A loop that was skipped
        (host(toolkit=at("1.20.0")), {}, [{"skipped": True}], []),
        (host(toolkit=at("1.20.0"), driver="mismatch"), {"devices": []}, [], []),
        (host(toolkit=at("1.20.0"), engines=[PODMAN_3]), {}, [], ["container engine", "podman too old"]),
        (host(toolkit=at("1.20.0"), engines=[DOCKER_29, PODMAN_3]), {}, [SEEN], ["podman too old"]),
    ],
)
def test_checks(found, spec, containers, names):
    bad, made = failing(found, spec, containers)
    assert bad == names
    assert len(made["failures"]) == len([name for name in names if name != "podman too old"])
    assert all(check["hint"] for check in made["checks"] if not check["ok"])


def test_a_toolkit_below_the_floor_fails_its_check_and_not_the_role():
    bad, made = failing(host(toolkit=at("1.18.0")))
    assert bad == [nvidia_toolkit.BELOW_FLOOR] and made["failures"] == []
    assert "CVE-2026-24260" in made["summary"] and made["version"] == "1.18.0"
    # One that this very run should have upgraded fails both
    assert failing(host(toolkit=at("1.18.0")), state="managed")[1]["failures"]


def test_a_restart_that_waits():
    bad, made = failing(host(toolkit=at("1.20.0")), restart={"restart": False, "reason": "web would not come back", "containers": ["web"]})
    assert bad == ["docker restart"] and made["restart_pending"] == "web would not come back"
    assert failing(host(toolkit=at("1.20.0")), restart={"restart": True, "reason": "", "containers": []})[0] == []


def test_facts_of_a_host_without_gpus():
    made = nvidia_toolkit.facts(plan(host(gpus=())))
    assert made["summary"] == "NVIDIA Container Toolkit: skipped: no NVIDIA GPU was found."
    assert made["checks"] == made["failures"] == made["cdi_devices"] == []
