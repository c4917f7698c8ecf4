# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What roles nvidia_driver and nvidia_container_toolkit do to systems that no test can run on: every module, command and file, in order.

The recordings are in tests/fixtures/recordings; AIKIT_WRITE_RECORDINGS=1 writes them anew, and a review reads the difference. What NVIDIA's
guides say of these systems is asserted here besides, so that a recording cannot be wrong unseen.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_nvidia_driver, nvidia_driver, nvidia_toolkit
from ansible_collections.aikit.fleet.tests.support import BIN, environment
from ansible_collections.aikit.fleet.tests.unit.recorder import Recorder, Stopped

ROOT = Path(__file__).resolve().parents[3]
RECORDINGS = ROOT / "tests/fixtures/recordings"
SYSTEMS = {
    "rhel-9": ("rhel", "9.6", "5.14.0-570.12.1.el9_6.x86_64", "rhel fedora"),
    "rhel-10": ("rhel", "10.1", "6.12.0-55.9.1.el10_0.x86_64", "rhel fedora"),
    "rocky-9": ("rocky", "9.6", "5.14.0-570.12.1.el9_6.x86_64", "rhel centos fedora"),
    "rocky-10": ("rocky", "10.1", "6.12.0-55.9.1.el10_0.x86_64", "rhel centos fedora"),
    "almalinux-9": ("almalinux", "9.6", "5.14.0-570.12.1.el9_6.x86_64", "rhel centos fedora"),
    "almalinux-10": ("almalinux", "10.1", "6.12.0-55.9.1.el10_0.x86_64", "rhel centos fedora"),
    "ubuntu-22.04": ("ubuntu", "22.04", "5.15.0-139-generic", "debian"),
    "ubuntu-24.04": ("ubuntu", "24.04", "6.8.0-60-generic", "debian"),
    "ubuntu-26.04": ("ubuntu", "26.04", "7.0.0-14-generic", "debian"),
    "debian-12": ("debian", "12", "6.1.0-37-amd64", ""),
    "debian-13": ("debian", "13", "6.12.41+deb13-amd64", ""),
}
RPM = [name for name in SYSTEMS if not name.startswith(("ubuntu", "debian"))]
UBUNTU = [name for name in SYSTEMS if name.startswith("ubuntu")]
VERSIONS = {"580": "580.159.03", "595": "595.91.07", "535": "535.309.01", "620": "620.32.03"}


def gpu_info(system, driver="", nvswitch=False, selinux="", toolkit="", engines=(), packages=None, gpu=("NVIDIA H100 80GB HBM3", "2330", "hopper")):
    identity, version, kernel, like = SYSTEMS[system]
    name, device, architecture = gpu
    state = {"state": "absent", "version": "", "installed_version": "", "flavour": "", "source": ""}
    if driver:
        state = {"state": "loaded", "version": driver, "installed_version": driver, "flavour": "open", "source": "nvidia_repository"}
    card = {"vendor": "nvidia", "name": name, "pci_id": f"10de:{device}", "architecture": architecture, "driver_in_use": "nvidia" if driver else ""}
    return {
        "gpus": [card],
        "driver": state,
        "toolkit": {"version": toolkit, "packages": {}},
        "cdi": {"devices": [], "spec_version": "", "files": ["/etc/cdi/nvidia.yaml"]},
        "engines": [dict(engine) for engine in engines],
        "problems": [],
        "host": {
            "secure_boot": False,
            "kernel": kernel,
            "kernels": [{"release": kernel, "headers": True, "image": True, "nvidia_module": driver}],
            "packages": packages or {},
            "fabric_manager": {"needed": nvswitch, "version": ""},
            "os": {"id": identity, "version_id": version, "pretty_name": system, "arch": "x86_64", "id_like": like.split()},
            "service_manager": "systemd",
            "selinux": selinux,
            "wsl": False,
        },
    }


def compare(name, done):
    """With the recording of that name; what is new is written first, and then read by people."""
    path = RECORDINGS / f"{name}.yml"
    text = yaml.safe_dump(done, sort_keys=False, width=150, allow_unicode=True)
    if os.environ.get("AIKIT_WRITE_RECORDINGS"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("---\n# What the role does there; see tests/unit/plugins/test_gpu_recordings.py\n" + text)
    assert yaml.safe_load(path.read_text()) == done


def only(done, module):
    return [entry["arguments"] for entry in done if entry["module"].rpartition(".")[2] == module]


def argvs(done):
    return [arguments["argv"] for arguments in only(done, "command")]


def files(done):
    """path -> what is written there."""
    found = {arguments["dest"]: arguments["content"] for arguments in only(done, "copy") if "content" in arguments}
    found.update((entry["path"], entry["content"]) for arguments in only(done, "host_files") for entry in arguments["files"] if "content" in entry)
    return found


# --- the driver ------------------------------------------------------------------------------------------------------


def offers(plan, apt, system, versions=tuple(VERSIONS.values())):
    tail = {"ubuntu": "-1ubuntu1", "debian": "-1"}.get(system.partition("-")[0], f"-1.el{system.rpartition('-')[2]}")
    names = plan["query"]
    if apt:
        return "\n".join(f" {name} | {version}{tail} | https://x Packages" for name in names for version in versions)
    return "\n".join(f"{name} 3:{version}{tail}" for name in names for version in versions)


def driver(system, wishes=None, before=None, after=None, remembered="", answers=None, variables=None):
    """Everything that the role does to a host of ``system``."""
    apt = system not in RPM
    found = before or gpu_info(system)
    given = {"state": "managed", **(wishes or {})}
    plan = nvidia_driver.plan(found, given, remembered)
    text = offers(plan, apt, system)
    branch = str(plan["branch"] or 580)
    then = after or gpu_info(system, VERSIONS[branch])
    recorder = Recorder(
        ROOT / "roles/nvidia_driver",
        {
            "__nvidia_driver_gpu": found,
            "__nvidia_driver_wishes": given,
            "__nvidia_driver_plan": plan,
            "__nvidia_driver_outcome": nvidia_driver.outcome(found, plan),
            "__nvidia_driver_remembered": {"content": base64.b64encode(remembered.encode()).decode()},
            "nvidia_driver_allow": [],
            "ansible_connection": "ssh",
            **(variables or {}),
        },
        {
            "Ask which versions there are": {"stdout": text, "changed": False},
            "Ask which packages are held": {"stdout": "", "changed": False},
            "Ask which driver there is now": then,
            "See which program rebuilds the early file system": {"stat": {"exists": True}},
            **(answers or {}),
        },
    )
    return recorder.run("change.yml")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_first_driver(system):
    done = driver(system)
    compare(f"nvidia_driver/{system}", done)
    # What only looks needs no rights, and some of it is asked with them
    looks = {"stat", "apt-cache", "apt-mark"}
    assert all(entry["become"] for entry in done if not looks & {entry["module"].rpartition(".")[2], *entry["arguments"].get("argv", [])})
    written = files(done)
    assert "blacklist nouveau" in written[data_nvidia_driver.NOUVEAU_PATH]
    assert "After=systemd-modules-load.service" in written[data_nvidia_driver.PERSISTENCE_PATH]
    assert {"name": "nvidia-persistenced.service", "enabled": True} == {key: only(done, "systemd_service")[0][key] for key in ("name", "enabled")}
    # First what may fail, and the pin; nouveau and the packages after it
    order = [str(entry["arguments"]) for entry in done]
    words = ("nvidia_driver.json", "aikit-fleet-nouveau", "modprobe', 'nvidia'")
    at = [next(number for number, text in enumerate(order) if word in text) for word in words]
    assert at == sorted(at)


@pytest.mark.parametrize("system", RPM)
def test_rpm_systems_follow_nvidias_guide(system):
    identity, version, kernel, _like = SYSTEMS[system]
    major = version.partition(".")[0]
    done = driver(system)
    base = f"https://developer.download.nvidia.com/compute/cuda/repos/rhel{major}/x86_64"
    (key,) = only(done, "get_url")
    assert key["url"] == f"{base}/D42D0685.pub"
    assert only(done, "rpm_key") == [{"key": key["dest"], "fingerprint": "610C7B14E068A878070DA4E99CD0A493D42D0685"}]
    assert only(done, "yum_repository") == [
        {
            "name": "aikit-fleet-nvidia-driver",
            "description": "NVIDIA's driver",
            "baseurl": f"{base}/",
            "gpgkey": "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-aikit-fleet-nvidia-driver",
            "gpgcheck": True,
        }
    ]
    installed = [arguments["name"] for module in ("package", "dnf") for arguments in only(done, module)]
    assert (["epel-release"] in installed) is (identity != "rhel")
    assert ["kernel-devel-matched", "kernel-headers"] in installed and ["python3-dnf-plugin-versionlock"] in installed
    full = f"3:580.159.03-1.el{major}"
    names = ["nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced"]
    assert [f"{name}-{full}" for name in names] in installed
    # All of it is there before anything stops
    (download,) = [number for number, entry in enumerate(done) if entry["arguments"].get("download_only")]
    assert done[download]["arguments"]["name"] == ["kernel-devel-matched", "kernel-headers", *(f"{name}-{full}" for name in names)]
    assert download < next(number for number, entry in enumerate(done) if entry["arguments"].get("name") == ["kernel-devel-matched", "kernel-headers"])
    assert only(done, "dnf_versionlock") == [{"name": [f"{name}-{full}.*" for name in names], "raw": True, "state": "present"}]
    streams = [argv for argv in argvs(done) if "module" in argv]
    expected = [["dnf", "--assumeyes", "module", "reset", "nvidia-driver"], ["dnf", "--assumeyes", "module", "enable", "nvidia-driver:580-open"]]
    assert streams == (expected if major == "9" else [])
    assert ["/usr/bin/dracut", "--force", "--regenerate-all"] in argvs(done)
    assert ["grubby", "--args=nouveau.modeset=0 rd.driver.blacklist=nouveau", "--update-kernel=ALL"] in argvs(done)
    # apt's files are apt's
    assert not any("/etc/apt" in path for path in files(done))


@pytest.mark.parametrize("system", UBUNTU)
def test_ubuntu_follows_nvidias_guide(system):
    done = driver(system)
    key = system.partition("-")[2].replace(".", "")
    branch = "595" if key == "2604" else "580"
    (keyring,) = only(done, "get_url")
    assert keyring["url"] == f"https://developer.download.nvidia.com/compute/cuda/repos/ubuntu{key}/x86_64/cuda-keyring_1.1-1_all.deb"
    assert keyring["checksum"] == f"sha256:{data_nvidia_driver.PLATFORMS[('ubuntu', system.partition('-')[2])].keyring_sha256}"
    assert any(arguments.get("deb") == "/var/lib/aikit-fleet/host/cuda-keyring_1.1-1_all.deb" for arguments in only(done, "apt"))
    tail = "" if branch == "595" else "-580"
    names = [f"nvidia-headless-no-dkms{tail}-open", f"nvidia-dkms{tail}-open", *([] if branch == "595" else ["nvidia-utils-580"])]
    assert [f"{name}={VERSIONS[branch]}-1ubuntu1" for name in names] in [arguments.get("name") for arguments in only(done, "apt")]
    pin = files(done)["/etc/apt/preferences.d/aikit-fleet-nvidia-driver"]
    assert f"Pin: version {VERSIONS[branch]}*\nPin-Priority: 1001\n" in pin and "Pin: release o=Ubuntu\nPin-Priority: -1\n" in pin
    blacklist = files(done)["/etc/apt/apt.conf.d/52aikit-fleet-nvidia-driver"]
    assert blacklist.splitlines()[1:] == [
        "Unattended-Upgrade::Package-Blacklist {",
        *(f'    "{name}";' for name in ("^nvidia-", "^libnvidia-", "^libcuda1", "^cuda-drivers", "^linux-modules-nvidia-")),
        "};",
    ]
    assert ["/usr/sbin/update-initramfs", "-u", "-k", "all"] in argvs(done)
    headers = "linux-headers-generic"
    assert [headers] in [arguments["name"] for arguments in only(done, "package")]
    (download,) = [argv for argv in argvs(done) if "--download-only" in argv]
    assert headers in download and f"{names[0]}={VERSIONS[branch]}-1ubuntu1" in download


@pytest.mark.parametrize("system", ["almalinux-9", "almalinux-10", *UBUNTU, "debian-12"])
def test_a_driver_of_the_distribution(system):
    done = driver(system, {"source": "distribution"})
    compare(f"nvidia_driver/{system}-distribution", done)
    # Nothing of NVIDIA's own repository
    assert "nvidia.com" not in json.dumps(done) and "cuda-keyring" not in json.dumps(done)
    names = [name for module in ("apt", "dnf", "package") for arguments in only(done, module) for name in arguments.get("name") or ()]
    wanted = {"almalinux": "nvidia-open-kmod", "ubuntu": "nvidia-headless-no-dkms", "debian": "nvidia-open-kernel-dkms"}[system.partition("-")[0]]
    assert any(name.startswith(wanted) for name in names), names
    assert ("almalinux-release-nvidia-driver" in json.dumps(done)) is system.startswith("almalinux")
    assert any("download" in json.dumps(entry["arguments"]) for entry in done)


@pytest.mark.parametrize("system", ["rocky-9", "rhel-10", "ubuntu-24.04"])
def test_an_upgrade(system):
    """With NVSwitch: Fabric Manager is of exactly the driver's version."""
    apt = system not in RPM
    suffix = "-1ubuntu1" if apt else f"-1.el{system.rpartition('-')[2]}"
    flavoured = ["nvidia-dkms-580-open"] if apt else ["kmod-nvidia-open-dkms", "nvidia-driver-cuda"]
    before = gpu_info(system, "580.142", nvswitch=True, packages={name: f"{'' if apt else '3:'}580.142{suffix}" for name in flavoured})
    mine = {"version": "580.142", "branch": 580, "flavour": "open", "source": "nvidia_repository", "packages": flavoured}
    locks = [] if apt else [f"{name}-3:580.142{suffix}.*" for name in flavoured]
    state = {"schema": 1, "current": mine, "previous": None, "repository": {"kind": "none"}, "locks": locks}
    done = driver(system, {}, before, remembered=nvidia_driver.state_text(state))
    compare(f"nvidia_driver/{system}-upgrade", done)
    lists = [arguments.get("name", []) for arguments in only(done, "apt" if apt else "dnf")]
    installed = next(names for names in lists if any("fabricmanager" in name for name in names))
    wanted = f"nvidia-fabricmanager{'=' if apt else '-3:'}580.159.03"
    assert any(name.startswith(wanted) for name in installed)
    assert {"name": "nvidia-fabricmanager.service", "enabled": True} in only(done, "systemd_service")
    if not apt:
        released, locked = only(done, "dnf_versionlock")
        assert (released["state"], released["name"], locked["state"]) == ("absent", locks, "present")


@pytest.mark.parametrize("system", ["rhel-9", "rhel-10", "rocky-9", "rocky-10"])
def test_a_rollback(system):
    """An upgrade to another branch is taken back. What dnf is told here, a real dnf 4.23 with packages of these names and a module of these streams did."""
    tail = f"-1.el{system.rpartition('-')[2]}"
    wanted = ["nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced"]
    # What came along with them
    companions = ["libnvidia-cfg", "libnvidia-ml", "nvidia-driver-cuda-libs", "nvidia-kmod-common"]

    def at(version):
        return [f"{name}-3:{version}{tail}" for name in (*wanted, *companions)]

    def record(version):
        return {"version": version, "branch": int(version[:3]), "flavour": "open", "source": "nvidia_repository", "packages": wanted}

    before = gpu_info(system, "595.91.07", packages={name: f"3:595.91.07{tail}" for name in (*wanted, *companions)})
    new = [f"{spec}.*" for spec in at("595.91.07")]
    repository = {"kind": "rpm", "name": "aikit-fleet-nvidia-driver"}
    state = {"schema": 1, "current": record("595.91.07"), "previous": record("580.159.03"), "repository": repository, "locks": new}
    done = driver(system, {"rollback": True}, before, remembered=nvidia_driver.state_text(state))
    compare(f"nvidia_driver/{system}-rollback", done)
    base = f"https://developer.download.nvidia.com/compute/cuda/repos/rhel{system.rpartition('-')[2]}/x86_64"
    assert [entry["baseurl"] for entry in only(done, "yum_repository")] == [f"{base}/"]
    # The stream of the branch to go back to: dnf refuses to change from one to the other, and takes one that was reset
    streams = [argv[3:] for argv in argvs(done) if "module" in argv]
    assert streams == ([["reset", "nvidia-driver"], ["enable", "nvidia-driver:580-open"]] if system.endswith("-9") else [])
    # The newer version is locked until then, and a transaction would see no other; afterwards it sees the older one alone
    released, locked = only(done, "dnf_versionlock")
    assert (released["state"], sorted(released["name"])) == ("absent", sorted(new))
    assert (locked["state"], locked["name"]) == ("present", [f"{spec}.*" for spec in at("580.159.03")])
    # All parts of the driver at once: each needs the others in its own version. dnf installs an older one where it is told to
    locks, download, install = only(done, "dnf")
    assert locks["name"] == ["python3-dnf-plugin-versionlock"]
    assert install["name"] == at("580.159.03") and install["allow_downgrade"] and install["allowerasing"]
    assert download == {**install, "name": ["kernel-devel-matched", "kernel-headers", *install["name"]], "download_only": True}
    order = [json.dumps(entry["arguments"]) for entry in done]
    steps = [next(number for number, text in enumerate(order) if word in text) for word in ("repoquery", "changing", "absent", "present", "download_only")]
    assert steps == sorted(steps)
    assert ["/usr/bin/dracut", "--force", "--regenerate-all"] in argvs(done)
    # What was there before can be come back to
    remembered = json.loads(only(done, "copy")[-1]["content"])
    assert (remembered["current"]["version"], remembered["previous"]["version"]) == ("580.159.03", "595.91.07")
    assert remembered["locks"] == locked["name"]


@pytest.mark.parametrize("system", ["rocky-9", "almalinux-10", "ubuntu-22.04"])
def test_a_removal(system):
    apt = system not in RPM
    names = ["nvidia-utils-580"] if apt else ["kmod-nvidia-open-dkms", "nvidia-driver-cuda"]
    before = gpu_info(system, "580.159.03", packages={name: "580.159.03-1" for name in names})
    mine = {"version": "580.159.03", "branch": 580, "flavour": "open", "source": "nvidia_repository", "packages": names}
    repository = (
        {"kind": "keyring_package", "package": "cuda-keyring", "installed": False} if apt else {"kind": "rpm", "name": "aikit-fleet-nvidia-driver"}
    )
    state = {"schema": 1, "current": mine, "previous": None, "repository": repository, "locks": [] if apt else [f"{name}-3:580.159.03-1.*" for name in names]}
    done = driver(system, {"state": "absent"}, before, gpu_info(system), nvidia_driver.state_text(state))
    compare(f"nvidia_driver/{system}-absent", done)
    gone = {arguments["path"] for arguments in only(done, "file") if arguments.get("state") == "absent"}
    assert {data_nvidia_driver.NOUVEAU_PATH, data_nvidia_driver.PERSISTENCE_PATH, data_nvidia_driver.STATE_PATH} <= gone
    assert any(arguments.get("name") == names and arguments.get("state") == "absent" for arguments in only(done, "apt" if apt else "dnf"))
    if not apt:
        assert only(done, "yum_repository") == [{"name": "aikit-fleet-nvidia-driver", "state": "absent"}]
        assert ["grubby", "--remove-args=nouveau.modeset=0 rd.driver.blacklist=nouveau", "--update-kernel=ALL"] in argvs(done)
    assert (["dnf", "--assumeyes", "module", "reset", "nvidia-driver"] in argvs(done)) is (system == "rocky-9")


@pytest.mark.parametrize("system", RPM + UBUNTU)
def test_secure_boot_stops_before_anything_is_done(system):
    found = gpu_info(system)
    found["host"]["secure_boot"] = True
    plan = nvidia_driver.plan(found, {"state": "managed", "source": "nvidia_repository"})
    assert plan["action"] == "refuse" and [refusal["name"] for refusal in plan["refusals"]] == ["secure_boot"]


def test_a_mirror_on_rpm_systems_is_the_only_place():
    wishes = {"source": "mirror", "mirror_url": "https://mirror.example/rhel9", "mirror_key": "https://mirror.example/key.asc", "mirror_key_sha256": "b" * 64}
    done = driver("rocky-9", wishes)
    assert [key["url"] for key in only(done, "get_url")] == ["https://mirror.example/key.asc"]
    assert only(done, "get_url")[0]["checksum"] == f"sha256:{'b' * 64}" and len(only(done, "rpm_key")) == 1
    assert "nvidia.com" not in json.dumps(done) and "epel-release" not in json.dumps(done)


def test_what_cannot_be_installed_stops_the_role_before_the_packages():
    with pytest.raises(Stopped, match="No source of packages on this host offers nvidia-driver-cuda"):
        driver("rocky-9", answers={"Ask which versions there are": {"stdout": ""}})


SERVED = "a" * 64
SERVICE = {"Id": SERVED, "Name": "/llama", "State": {"Running": True}, "Config": {"Labels": {"io.aikit.fleet.service": "llama"}}}
HELD = [{"pid": 7, "name": "nvidia-persiste", "container": ""}, {"pid": 8, "name": "llama-server", "container": SERVED}]


def upgrade_under_services(holders, **variables):
    before = gpu_info("debian-13", "580.142", engines=[{"name": "docker", "answers": True}])
    before["driver"]["holders"] = holders
    answers = {
        "List our services": {"containers": [{"Id": SERVED, "Names": ["/llama"]}]},
        "Look at each": {"container": {**SERVICE, "HostConfig": {"DeviceRequests": [{"Driver": "cdi"}]}}},
        "Read what this role remembers now": {"content": base64.b64encode(b'{"schema": 1}').decode()},
    }
    return driver("debian-13", {}, before, answers=answers, variables=variables)


def test_what_else_holds_the_driver_leaves_our_services_alone():
    stranger = [*HELD, {"pid": 9, "name": "dcgm-exporter", "container": ""}]
    with pytest.raises(Stopped, match=r"dcgm-exporter \(process 9\) would hold the old driver.* llama would be stopped until then. Nothing was changed"):
        upgrade_under_services(stranger)
    # A reboot ends that, but not of the machine that Ansible runs on
    with pytest.raises(Stopped, match="dcgm-exporter"):
        upgrade_under_services(stranger, nvidia_driver_reboot="if_required", ansible_connection="local")
    for done in (upgrade_under_services(stranger, nvidia_driver_reboot="if_required"), upgrade_under_services(HELD)):
        assert [arguments["state"] for arguments in only(done, "docker_container")] == ["stopped", "started"]
        # All packages are there before
        order = [str(entry["arguments"]) for entry in done]
        at = [next(number for number, text in enumerate(order) if word in text) for word in ("--download-only", "'stopped'", "'started'")]
        assert at == sorted(at)


@pytest.mark.parametrize("there", [True, False])
def test_a_service_that_was_removed_while_it_waited_is_forgotten(there):
    found = gpu_info("debian-13", "580.159.03")
    remembered = nvidia_driver.state_text({"schema": 1}, ["llama"])
    answers = {
        "Ask which driver there is now": found,
        "Look at those that wait": {"exists": there},
        "Read what this role remembers now": {"content": base64.b64encode(remembered.encode()).decode()},
    }
    for name in ("pending.yml", "drain.yml"):
        plan = nvidia_driver.plan(found, {"state": "managed"}, remembered)
        assert plan["drained"] == ["llama"]
        variables = {
            "__nvidia_driver_gpu": found,
            "__nvidia_driver_plan": plan,
            "__nvidia_driver_outcome": nvidia_driver.outcome(found, plan),
            "__nvidia_driver_inspected": {"results": []},
        }
        recorder = Recorder(ROOT / "roles/nvidia_driver", variables, answers)
        done = recorder.run(name)
        assert [arguments["name"] for arguments in only(done, "docker_container")] == (["llama"] if there else [])
        # What is started, or is not there, is forgotten; what is stopped is written down
        left = ["llama"] if there and name == "drain.yml" else []
        assert recorder.variables["__nvidia_driver_plan"]["drained"] == left
        assert [json.loads(text).get("drained", []) for text in files(done).values()] == ([] if name == "drain.yml" and not there else [left])


# --- files that modules of others write ----------------------------------------------------------------------------------


def test_the_repository_file_that_dnf_reads(tmp_path):
    """The module itself writes it: into a folder of this test."""
    for name, done in (("driver", driver("rhel-9")), ("toolkit", toolkit("rhel-9"))):
        (arguments,) = only(done, "yum_repository")
        command = [str(BIN / "ansible"), "localhost", "-m", "ansible.builtin.yum_repository", "-a", json.dumps({**arguments, "reposdir": str(tmp_path)})]
        done_ = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done_.returncode == 0, done_.stdout + done_.stderr
        parsed = configparser.ConfigParser()
        parsed.read(tmp_path / f"{arguments['name']}.repo")
        expected = {
            "driver": {
                "baseurl": "https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/",
                "gpgcheck": "1",
                "gpgkey": "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-aikit-fleet-nvidia-driver",
                "name": "NVIDIA's driver",
            },
            "toolkit": {
                "baseurl": "https://nvidia.github.io/libnvidia-container/stable/rpm/x86_64",
                "gpgcheck": "0",
                "gpgkey": "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit",
                "name": "NVIDIA Container Toolkit",
                "repo_gpgcheck": "1",
            },
        }[name]
        assert dict(parsed[arguments["name"]]) == expected


# --- the toolkit -----------------------------------------------------------------------------------------------------------

DOCKER = {"name": "docker", "version": "29.0.1", "answers": True, "cdi": True, "gpus_flag": False, "cdi_spec_max": "0.7.0", "rootless": False, "problem": ""}
PODMAN = {"name": "podman", "version": "5.4.0", "answers": True, "cdi": True, "gpus_flag": True, "cdi_spec_max": "0.7.0", "rootless": False, "problem": ""}
FINGERPRINT = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"


def toolkit(system, wishes=None, engines=(DOCKER, PODMAN), locks=(), **info):
    apt = system not in RPM
    found = gpu_info(system, "580.159.03", engines=engines, **info)
    given = {"state": "managed", **(wishes or {})}
    plan = nvidia_toolkit.plan(found, given)
    recorder = Recorder(
        ROOT / "roles/nvidia_container_toolkit",
        {
            "__nvidia_container_toolkit_gpu": found,
            "__nvidia_container_toolkit_plan": plan,
            "__nvidia_container_toolkit_restart": {},
            "__nvidia_container_toolkit_containers": {"results": []},
            "__nvidia_container_toolkit_rootless": [],
        },
        {
            "Write what systemd and the engines read": {"changed_paths": ["/etc/systemd/system/docker.service.d/aikit-fleet-nvidia.conf"]},
            "Keep the packages at one version": {"locklist_pre": list(locks)},
            "Unlock the packages": {"locklist_pre": list(locks)},
            "Read the fingerprint": {"stdout": f"pub:-:4096:1:DDCAE044F796ECB0:1:::-:::\nfpr:::::::::{FINGERPRINT}:\n"},
        },
    )
    if plan["action"] == "remove":
        return recorder.run("remove.yml")
    recorder.run(f"install-{'apt' if apt else 'dnf'}.yml")
    return recorder.run("configure.yml")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_first_toolkit(system):
    rpm = system in RPM
    done = toolkit(system, selinux="enforcing" if rpm else "")
    compare(f"nvidia_container_toolkit/{system}", done)
    assert all(entry["become"] for entry in done)
    names = ["nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1"]
    (key,) = only(done, "get_url")
    assert key["url"] == "https://nvidia.github.io/libnvidia-container/gpgkey"
    # Read before any package manager gets it
    modules = [entry["module"].rpartition(".")[2] for entry in done]
    assert modules.index("command") < modules.index("yum_repository" if rpm else "deb822_repository")
    if rpm:
        assert [f"{name}-1.20.0-1" for name in names] in [arguments["name"] for arguments in only(done, "dnf")]
        assert only(done, "dnf_versionlock") == [{"name": [f"{name}-1.20.0-1" for name in names], "state": "present", "raw": True}]
        assert only(done, "seboolean") == [{"name": "container_use_devices", "state": True, "persistent": True}]
    else:
        assert [f"{name}=1.20.0-1" for name in names] in [arguments["name"] for arguments in only(done, "apt")]
        assert "Pin: version 1.20.0-1\nPin-Priority: 1001" in files(done)["/etc/apt/preferences.d/nvidia-container-toolkit"]
        assert only(done, "seboolean") == []
        (repository,) = only(done, "deb822_repository")
        assert repository["uris"] == ["https://nvidia.github.io/libnvidia-container/stable/deb/amd64"] and repository["suites"] == ["/"]


def test_locks_of_the_version_before_go():
    names = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
    old = sorted(f"{name}-1.20.0-1" for name in names)
    done = toolkit("rocky-9", {"version": "1.19.1"}, locks=["nginx-1.26.3-1", *old])
    compare("nvidia_container_toolkit/rocky-9-version", done)
    locked, released = only(done, "dnf_versionlock")
    assert locked == {"name": [f"{name}-1.19.1-1" for name in names], "state": "present", "raw": True}
    assert released == {"name": old, "state": "absent", "raw": True}
    assert only(toolkit("rocky-9", {"state": "absent", "owned": ["packages"]}, locks=old), "dnf_versionlock")[1] == released


def test_a_docker_that_looks_for_the_hook_at_its_start_is_restarted_for_it():
    old = {**DOCKER, "version": "20.10.24", "cdi": False, "cdi_spec_max": ""}
    wished = [arguments["restart_for"] for arguments in only(toolkit("debian-12", engines=[old]), "docker_daemon_config")]
    assert wished == [["nvidia-container-runtime-hook"]]


@pytest.mark.parametrize("system", RPM)
def test_selinux_is_left_to_those_who_want_it_so(system):
    assert only(toolkit(system, {"selinux": "none"}, selinux="enforcing"), "seboolean") == []
    assert only(toolkit(system, selinux="disabled"), "seboolean") == []


@pytest.mark.parametrize("system", ["rocky-9", "ubuntu-24.04"])
def test_a_toolkit_goes(system):
    done = toolkit(system, {"state": "absent", "owned": ["packages", "docker-features.cdi"]}, toolkit="1.20.0")
    compare(f"nvidia_container_toolkit/{system}-absent", done)


# --- what a run costs that finds nothing to do ----------------------------------------------------------------------------


@pytest.mark.parametrize(("wishes", "most"), [({}, 4), ({"source": "mirror", "mirror_url": "https://mirror.example/d", "mirror_key": ""}, 8)])
def test_a_driver_that_is_as_it_shall_be_is_asked_little(wishes, most):
    """Beside gpu_info and the state file, which are read first. A mirror has a key that is compared again."""
    found = gpu_info("debian-13", "580.159.03", packages={"cuda-keyring": "1.1-1", "nvidia-driver-cuda": "580.159.03-1"})
    given = {"state": "managed", **wishes}
    mine = {"version": "580.159.03", "branch": 580, "flavour": "open", "source": "nvidia_repository", "packages": ["nvidia-driver-cuda"]}
    remembered = nvidia_driver.state_text({"schema": 1, "current": mine, "previous": None, "repository": {"kind": "keyring_package"}, "locks": []})
    plan = nvidia_driver.plan(found, given, remembered)
    assert (plan["action"], plan["configure"]) == ("none", True)
    unchanged = {"changed": False}
    recorder = Recorder(
        ROOT / "roles/nvidia_driver",
        {
            "__nvidia_driver_gpu": found,
            "__nvidia_driver_plan": plan,
            "__nvidia_driver_remembered": {"content": base64.b64encode(remembered.encode()).decode()},
        },
        {name: unchanged for name in ("Keep nouveau from loading", "Have the persistence daemon wait for the driver")},
    )
    done = recorder.run("configure.yml")
    assert len(done) <= most, [(entry["module"], entry["arguments"]) for entry in done]


def test_a_toolkit_that_is_as_it_shall_be_is_asked_little():
    """Beside gpu_info, which is asked first; one container for each engine is the proof."""
    found = gpu_info("debian-13", "580.159.03", engines=[{**DOCKER, "version": "26.1.5"}])
    names = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
    found["toolkit"] = {"version": "1.20.0", "packages": {name: "1.20.0-1" for name in names}}
    found["host"]["repositories"] = ["nvidia-container-toolkit.sources"]
    found["cdi"]["files"] = ["/var/run/cdi/nvidia.yaml"]
    plan = nvidia_toolkit.plan(found, {"state": "managed"})
    assert plan["action"] == "none"
    recorder = Recorder(
        ROOT / "roles/nvidia_container_toolkit",
        {
            "__nvidia_container_toolkit_gpu": found,
            "__nvidia_container_toolkit_plan": plan,
            "__nvidia_container_toolkit_restart": {},
            "__nvidia_container_toolkit_containers": {"results": []},
            "__nvidia_container_toolkit_rootless": [],
            "__nvidia_container_toolkit_spec": {"skipped": True},
        },
        {
            "Describe the GPUs as the driver has them now": {"changed": False, "enabled": True, "nodes": ["/dev/nvidia0"]},
            "Write what systemd and the engines read": {"changed": False, "changed_paths": []},
            "Set what Docker needs": {"changed": False, "restart_needed": False, "reload_enough": False},
        },
    )
    for name in ("install-apt.yml", "configure.yml", "checks.yml"):
        done = recorder.run(name)
    assert [entry["module"].rpartition(".")[2] for entry in done] == [
        "deb822_repository",
        "host_files",
        "host_files",
        "host_files",
        "nvidia_cdi_spec",
        "docker_daemon_config",
        "nvidia_container_check",
    ]
