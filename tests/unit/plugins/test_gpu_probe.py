# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""gpu_info on trees that look like hosts, with programs that answer, hang and talk nonsense."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_nvidia_driver, gpu_health, nvidia_driver, nvidia_toolkit
from ansible_collections.aikit.fleet.plugins.module_utils._core.host_checks import host_checks
from ansible_collections.aikit.fleet.plugins.module_utils._io import command, gpu_probe
from ansible_collections.aikit.fleet.plugins.module_utils._io.tree import Tree
from ansible_collections.aikit.fleet.tests.support import BIN, environment
from ansible_collections.aikit.fleet.tests.unit.core.test_host_checks import WELL

ROOT = Path(__file__).resolve().parents[3]
MAKE_TREE = ROOT / "tests/fixtures/fake-gpu-host/make-tree"


@pytest.fixture
def make(tmp_path):
    """A function that lays the tree of a scenario."""

    def lay(scenario, *options):
        subprocess.run([str(MAKE_TREE), str(tmp_path / "root"), scenario, *options], check=True)
        return tmp_path / "root"

    return lay


def observe(root, timeout=10.0, previous=()):
    return gpu_probe.observe(str(root), previous, timeout)


def program(root, name, script):
    path = root / "usr/bin" / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


# scenario: number of GPUs, state, flavour, names of problems
SCENARIOS = [
    ("none", 0, "absent", "", []),
    ("h100-no-driver", 2, "absent", "", []),
    ("h100-loaded", 2, "loaded", "open", []),
    ("volta-no-driver", 1, "absent", "", []),
    ("mixed", 2, "absent", "", []),
    ("mismatch", 2, "mismatch", "open", ["driver_mismatch", "driver_below_floor"]),
    ("nouveau", 1, "nouveau", "", ["nouveau_in_use"]),
    ("b200-nvswitch", 8, "loaded", "open", ["fabric_manager_inactive"]),
    ("t4", 1, "loaded", "proprietary", []),
    ("a100-mig", 2, "loaded", "open", []),
    ("gb10", 1, "loaded", "open", []),
    ("vfio", 2, "vfio", "", []),
    ("wsl", 1, "wsl", "", []),
    ("mi300", 2, "absent", "", []),
    ("apu", 1, "absent", "", []),
    ("intel", 1, "absent", "", []),
    ("m3max", 1, "absent", "", []),
    ("secure-boot-rejected", 1, "installed_not_loaded", "open", ["secure_boot_rejects_module", "driver_not_loaded"]),
    ("hgx-h100", 8, "loaded", "open", ["fabric_manager_mismatch"]),
]


@pytest.mark.parametrize(("scenario", "count", "state", "flavour", "problems"), SCENARIOS, ids=[case[0] for case in SCENARIOS])
def test_scenarios(make, scenario, count, state, flavour, problems):
    found = observe(make(scenario))
    assert (len(found["gpus"]), found["driver"]["state"], found["driver"]["flavour"]) == (count, state, flavour)
    assert [problem["name"] for problem in found["problems"]] == problems
    assert [gpu["index"] for gpu in found["gpus"]] == list(range(count))
    assert all(gpu["memory_total_mib"] != 0 for gpu in found["gpus"])
    assert json.loads(json.dumps(found)) == found


def test_an_early_file_system_older_than_what_keeps_nouveau_away(make):
    root = make("h100-loaded", "--kernel", "6.12.48+deb13-amd64")
    conf, early, older = (root / name for name in ("etc/modprobe.d/aikit-fleet-nouveau.conf", "boot/initrd.img-6.12.48+deb13-amd64", "boot/initrd.img-5.1"))
    for path in (conf, early, older):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (root / "boot/vmlinuz-6.12.48+deb13-amd64").write_text("")
    (root / "lib/modules/5.1/build").mkdir(parents=True)
    os.utime(older, (1, 1))
    for moments, expected in (((100, 200), False), ((200, 100), True)):
        for path, moment in zip((conf, early), moments):
            os.utime(path, (moment, moment))
        assert observe(root)["host"]["initramfs_outdated"] is expected
    # A host that keeps it elsewhere, or has nothing to keep away
    early.unlink()
    assert observe(root)["host"]["initramfs_outdated"] is False
    early.write_text("")
    os.utime(early, (1, 1))
    conf.unlink()
    assert observe(root)["host"]["initramfs_outdated"] is False


def test_who_holds_the_driver(make):
    root = make("h100-loaded")
    container = "0123456789abcdef" * 4
    processes = {
        "1": ("systemd", "0::/init.scope", ["/dev/null"]),
        "77": ("nvidia-persiste", "0::/system.slice/nvidia-persistenced.service", ["/dev/null", "/dev/nvidiactl"]),
        "4242": ("llama-server", f"0::/system.slice/docker-{container}.scope", ["socket:[1]", "/dev/nvidia-uvm", "/dev/nvidia0"]),
        "4300": ("jupyter", f"12:devices:/docker/{container}", ["/dev/nvidia-caps/nvidia-cap2"]),
        # A log of that name is no node of the driver
        "4400": ("less", "0::/user.slice", ["/var/log/nvidia-installer.log"]),
    }
    for pid, (name, cgroup, targets) in processes.items():
        folder = root / "proc" / pid
        (folder / "fd").mkdir(parents=True)
        (folder / "comm").write_text(name + "\n")
        (folder / "cgroup").write_text(cgroup + "\n")
        for number, target in enumerate(targets):
            (folder / "fd" / str(number)).symlink_to(target)
    # One that ended meanwhile
    (root / "proc/5000").mkdir()
    assert observe(root)["driver"]["holders"] == [
        {"pid": 77, "name": "nvidia-persiste", "container": ""},
        {"pid": 4242, "name": "llama-server", "container": container},
        {"pid": 4300, "name": "jupyter", "container": container},
    ]
    # What is not loaded is held by nobody
    (root / "proc/driver/nvidia/version").unlink()
    assert observe(root)["driver"]["holders"] == []


def test_a_whole_host(make):
    found = observe(make("h100-loaded", "--kernel", "6.12.48+deb13-amd64"))
    assert found["gpus"][0] == {
        "index": 0,
        "vendor": "nvidia",
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-00002330-0000-4000-8000-00000000003b",
        "pci_bus_id": "0000:3b:00.0",
        "pci_id": "10de:2330",
        "driver_in_use": "nvidia",
        "memory_total_mib": 81559,
        "memory_free_mib": 80959,
        "compute_capability": "9.0",
        "architecture": "hopper",
        "mig": {"current": "disabled", "pending": "disabled", "devices": []},
        "virtualization": "none",
        "unified_memory": False,
        "gfx": "",
        "open_modules": "yes",
    }
    assert found["driver"]["cuda_version"] == "13.0" and found["driver"]["source"] == "nvidia_repository"
    assert found["cdi"] == {
        "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"],
        "spec_version": "0.5.0",
        "files": ["/var/run/cdi/nvidia.yaml"],
    }
    host = found["host"]
    assert host["kernels"] == [{"release": "6.12.48+deb13-amd64", "headers": True, "image": True, "nvidia_module": "580.159.03"}]
    assert (host["kernel"], host["headers"], host["secure_boot"], host["service_manager"]) == ("6.12.48+deb13-amd64", True, False, "systemd")
    assert host["os"]["id"] == "debian" and host["os"]["version_id"] == "13" and host["os"]["arch"] == "x86_64"
    assert host["packages"]["nvidia-kernel-open-dkms"] == "580.159.03-1" and host["packages"]["linux-headers-amd64"]


def test_divided_and_shared(make):
    divided = observe(make("a100-mig"))["gpus"][0]["mig"]
    assert divided["current"] == "enabled"
    assert [(device["profile"], device["memory_total_mib"], device["gpu_instance_id"]) for device in divided["devices"]] == [
        ("3g.20gb", 19968, 1),
        ("3g.20gb", 19968, 2),
    ]
    (shared,) = observe(make("gb10"))["gpus"]
    assert shared["unified_memory"] and shared["memory_total_mib"] == 128747
    assert [gpu["gfx"] for gpu in observe(make("mi300"))["gpus"]] == ["gfx942", "gfx942"]


def test_nvswitches(make):
    manager = observe(make("b200-nvswitch"))["host"]["fabric_manager"]
    assert manager == {"needed": True, "nvlink5": True, "installed": True, "version": "580.159.03", "active": False, "state": "In Progress"}
    manager = observe(make("hgx-h100"))["host"]["fabric_manager"]
    assert manager == {"needed": True, "nvlink5": False, "installed": True, "version": "580.126.09", "active": True, "state": "Completed"}


def test_gpus_that_are_gone(make):
    before = observe(make("hgx-h100"))["gpus"]
    (problem,) = observe(make("h100-no-driver"), previous=before)["problems"]
    assert problem["name"] == "gpus_missing" and "2 GPUs where there were 8" in problem["detail"] and problem["severity"] == "error"


def test_gpus_that_a_role_remembered(make):
    root = make("h100-loaded")
    gpus = observe(root)["gpus"]
    path = root / "var/lib/aikit-fleet/host/gpus.json"
    path.parent.mkdir(parents=True)
    for text in ("", "no JSON", "{}", "[1]", gpu_health.remember(gpus)):
        path.write_text(text)
        assert observe(root, previous=None)["problems"] == []
    third = {**gpus[0], "uuid": "GPU-3", "pci_bus_id": "0000:5d:00.0"}
    path.write_text(gpu_health.remember([*gpus, third]))
    (problem,) = observe(root, previous=None)["problems"]
    assert "2 GPUs where there were 3" in problem["detail"] and "GPU-3" in problem["detail"] and f"remove /{path.relative_to(root)}" in problem["hint"]
    assert [check["name"] for check in doctor(root) if not check["ok"] and check["name"] != "toolkit"] == ["gpus"]
    # One for another
    path.write_text(gpu_health.remember([gpus[0], third]))
    (problem,) = observe(root, previous=None)["problems"]
    assert (problem["name"], problem["severity"]) == ("gpus_missing", "warning")


def doctor(root):
    """The checks of what the probe itself returns."""
    found = observe(root, previous=None)
    # The engines are those of the tests' own cases
    return [check for check in host_checks(found, {}, {"gpus": True}) if not check["name"].startswith("cdi")]


def upgraded_at_night(root, *packages):
    """A Debian host that upgrades itself, with the driver's packages and more."""
    status = root / "var/lib/dpkg/status"
    for name in ("unattended-upgrades", *packages):
        status.write_text(status.read_text() + f"\nPackage: {name}\nStatus: install ok installed\nVersion: 580.159.03-1\nArchitecture: amd64\n")
    write(root, "etc/apt/apt.conf.d/20auto-upgrades", 'APT::Periodic::Unattended-Upgrade "1";\n')


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def at_night(root):
    (check,) = [check for check in doctor(root) if check["name"] == "night upgrades"]
    return check["ok"]


# What role nvidia_driver writes, and what others write
PIN = "Explanation: ours\nPackage: libnvidia* nvidia-*\nPin: version 580.159.03*\nPin-Priority: 1001\n"
BLACKLIST = 'Unattended-Upgrade::Package-Blacklist {\n    "^nvidia-"; // "^never-"\n    "^libnvidia-";\n    "^libcuda1";\n};\n'


@pytest.mark.parametrize(
    ("files", "ok"),
    [
        ({}, False),
        ({"etc/apt/apt.conf.d/52aikit-fleet-nvidia-driver": BLACKLIST}, True),
        ({"etc/apt/apt.conf.d/52aikit-fleet-nvidia-driver.dpkg-old": BLACKLIST}, False),
        ({"etc/apt/apt.conf": 'Unattended-Upgrade { Package-Blacklist { "nvidia"; "lib(nvidia|cuda)"; } };'}, True),
        ({"etc/apt/apt.conf": 'Unattended-Upgrade::Package-Blacklist:: "nvidia|libnvidia|libcuda";'}, True),
        ({"etc/apt/apt.conf": '// Unattended-Upgrade::Package-Blacklist { "nvidia"; "lib"; };\n/* Package-Blacklist { "nvidia"; "lib"; } */'}, False),
        ({"etc/apt/apt.conf": BLACKLIST + "#clear Unattended-Upgrade::Package-Blacklist;\n"}, False),
        ({"etc/apt/preferences.d/aikit-fleet-nvidia-driver": PIN}, True),
        ({"etc/apt/preferences": "Package: *\nPin: version 580.159.03-1\nPin-Priority: 1001"}, True),
        # A branch is no version, and a low priority is a wish
        ({"etc/apt/preferences.d/branch": PIN.replace("580.159.03*", "580.*")}, False),
        ({"etc/apt/preferences.d/weak": PIN.replace("1001", "990")}, False),
        ({"etc/apt/preferences.d/release": PIN.replace("version 580.159.03*", "release o=NVIDIA")}, False),
        ({"etc/apt/preferences.d/half": PIN.replace("libnvidia* ", "")}, False),
        ({"etc/apt/preferences.d/half": PIN.replace("libnvidia* ", ""), "etc/apt/apt.conf": 'Unattended-Upgrade::Package-Blacklist { "lib"; };'}, True),
    ],
)
def test_what_a_night_upgrade_may_take(make, files, ok):
    root = make("h100-loaded")
    upgraded_at_night(root, "libnvidia-ml1")
    for name, text in files.items():
        write(root, name, text)
    assert at_night(root) is ok


def test_what_the_driver_role_writes_is_protection_enough(make):
    """With a package of somebody else's held, too."""
    root = make("h100-loaded")
    upgraded_at_night(root)
    status = root / "var/lib/dpkg/status"
    status.write_text(status.read_text() + "\nPackage: linux-image-6.1.0-37-amd64\nStatus: hold ok installed\nVersion: 6.1.140-1\nArchitecture: amd64\n")
    assert observe(root)["host"]["held_packages"] and not at_night(root)
    system = nvidia_driver.platform({"id": "debian", "version_id": "13"})
    write(root, data_nvidia_driver.PIN_PATH.lstrip("/"), nvidia_driver.pin_content(system, "nvidia_repository", "580.159.03"))
    assert at_night(root)
    names = observe(root)["host"]["pinned_packages"]
    assert "nvidia-driver-cuda" in names and "linux-headers-amd64" not in names


@pytest.mark.parametrize(
    ("locks", "ok"),
    [
        ({}, False),
        ({"etc/dnf/plugins/versionlock.list": "# ours\nnvidia-driver-cuda-3:580.159.03-1.el9.*\n"}, True),
        ({"etc/dnf/plugins/versionlock.list": "nvidia-driver-cuda-3:580.142-1.el9.*\n!nvidia-driver-cuda-3:580.159.03-1.el9.*\n"}, False),
        ({"etc/dnf/plugins/versionlock.list": "nvidia-driver-cuda-580.159.03-*\n"}, True),
        ({"etc/dnf/versionlock.toml": 'version = "1.0"\n[[packages]]\nname = "nvidia-driver-cuda"\n[[packages.conditions]]\nkey = "evr"\n'}, True),
    ],
)
def test_what_a_night_upgrade_of_dnf_may_take(make, locks, ok):
    root = make("h100-loaded")
    (root / "var/lib/dpkg/status").unlink()
    program(root, "rpm", "printf 'ii \\tnvidia-driver-cuda\\t3:580.159.03-1.el9\\tx86_64\\tNVIDIA Corporation\\n'\n")
    write(root, "etc/systemd/system/timers.target.wants/dnf-automatic-install.timer", "")
    for name, text in locks.items():
        write(root, name, text)
    assert at_night(root) is ok


@pytest.mark.parametrize(
    ("unit", "status", "expected"),
    [("", 0, (True, "not installed")), ("usr/lib", 0, (True, "active")), ("etc", 3, (False, "not active"))],
)
def test_the_persistence_daemon(make, unit, status, expected):
    root = make("h100-loaded")
    program(root, "systemctl", f"exit {status}\n")
    if unit:
        write(root, f"{unit}/systemd/system/nvidia-persistenced.service", "")
    (check,) = [check for check in doctor(root) if check["name"] == "persistence"]
    assert (check["ok"], check["detail"]) == expected
    (root / "run/systemd/system").rmdir()
    assert observe(root)["host"]["persistence"] is None


def test_the_doctor_reads_keys_that_the_probe_returns(make):
    found = observe(make("h100-loaded"))
    assert set(WELL) <= set(found) and set(WELL["host"]) <= set(found["host"])
    for key in ("driver", "toolkit", "cdi"):
        assert set(WELL[key]) <= set(found[key])


@pytest.mark.parametrize("script", ["echo 'dpkg-query: error: parsing file: no space' >&2; exit 2\n", "kill -9 $$\n"])
def test_a_package_manager_that_does_not_answer(make, script):
    """An empty list would make a stranger of every driver."""
    root = make("h100-loaded")
    (root / "var/lib/dpkg/status").unlink()
    program(root, "dpkg-query", script)
    found = observe(root)
    (problem,) = [problem for problem in found["problems"] if problem["name"] == "packages_unreadable"]
    assert "status" in problem["detail"] and problem["severity"] == "error"
    wishes = {"state": "managed", "source": "nvidia", "branch": "", "version": "", "flavour": "auto", "reboot": "never"}
    made = nvidia_driver.plan(found, wishes)
    assert made["action"] == "refuse" and "does not say what is installed" in made["reason"]
    assert nvidia_toolkit.plan(found, {})["action"] == "refuse"


def test_a_containerd_that_rests(make):
    root = make("h100-loaded")
    program(root, "containerd", "echo 'containerd github.com/containerd/containerd 1.7.24~ds1'\n")
    (root / "run/containerd").mkdir(parents=True)

    def answers():
        (engine,) = [engine for engine in observe(root)["engines"] if engine["name"] == "containerd"]
        assert engine["version"] == "1.7.24~ds1"
        return engine["answers"]

    assert answers() is False
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "run/containerd/containerd.sock"))
        assert answers() is False, "nobody listens"
        server.listen()
        assert answers() is True


def test_a_hung_nvidia_smi_is_killed(make):
    root = make("hung")
    program(root, "nvidia-smi", f"echo $$ > {root}/pid\ntrap '' TERM INT\nsleep 3600 &\necho $! >> {root}/pid\nwait\nsleep 3600\n")
    started = time.monotonic()
    found = observe(root, timeout=1)
    assert time.monotonic() - started < 3
    assert [problem["name"] for problem in found["problems"]] == ["nvidia_smi_hung", "xid"]
    assert len(found["gpus"]) == 2 and found["driver"]["state"] == "loaded"
    for pid in (root / "pid").read_text().split():
        for _try in range(50):
            # A process that is dead may wait to be collected
            stat = Path(f"/proc/{pid}/stat")
            if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.02)
        else:
            pytest.fail(f"process {pid} lives on")


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("echo hello\n", ["nvidia_smi_unreadable", "nvidia_smi_unreadable"]),
        ("head -c 100000 /dev/urandom\n", ["nvidia_smi_unreadable", "nvidia_smi_unreadable"]),
        ("exit 9\n", ["nvidia_smi_failed"]),
        ("kill -9 $$\n", ["nvidia_smi_failed"]),
        ('echo "No devices were found"\nexit 6\n', ["nvidia_smi_failed"]),
    ],
    ids=["words", "noise", "status", "killed", "no-devices"],
)
def test_an_nvidia_smi_that_talks_nonsense(make, script, names):
    root = make("h100-loaded")
    program(root, "nvidia-smi", script)
    found = observe(root)
    assert [problem["name"] for problem in found["problems"]] == names
    # What the kernel knows is there all the same
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA H100 80GB HBM3"] * 2 and found["gpus"][0]["uuid"].startswith("GPU-")


def test_a_program_that_talks_without_end_is_killed():
    started = time.monotonic()
    status, output, _errors = command.run(["sh", "-c", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"], 0.5)
    assert status == command.TIMED_OUT and output == "" and time.monotonic() - started < 3


def test_a_child_that_holds_the_output_open_does_not_hold_us():
    started = time.monotonic()
    status, _output, _errors = command.run(["sh", "-c", "sleep 60 & exit 0"], 0.5)
    assert status == command.TIMED_OUT and time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], (3, "out\n", "err\n")),
        (["sh", "-c", "printf '\\377'"], (0, "\ufffd", "")),
        (["cat"], (0, "", "")),  # nothing to read, so it does not wait for a terminal
        (["sh", "-c", "echo $LC_ALL"], (0, "C\n", "")),
    ],
)
def test_command(argv, expected):
    assert command.run(argv, 10) == expected


def test_command_that_is_not_there(tmp_path):
    assert command.run([str(tmp_path / "missing")], 1)[0] == command.NOT_FOUND
    (tmp_path / "text").write_text("no program")
    assert command.run([str(tmp_path / "text")], 1)[0] == command.NOT_FOUND


READ_ONLY = {
    ("nvidia-smi", gpu_probe.SMI_CSV[0], gpu_probe.SMI_CSV[1]),
    ("nvidia-smi", "-q", "-x"),
    ("nvidia-smi", "-L"),
    ("modinfo", "FILE"),
    ("podman", "version", "--format", "{{.Client.Version}}"),
    ("containerd", "--version"),
    ("nvidia-ctk", "--version"),
    ("systemctl", "is-active", "nvidia-fabricmanager"),
    ("dpkg-query", *gpu_probe.DPKG_QUERY[1:]),
    ("rpm", "--root", "ROOT", *gpu_probe.RPM_QUERY[1:]),
    ("system_profiler", "SPDisplaysDataType", "-json"),
    ("sysctl", "-n", "hw.memsize"),
}


def commands(root):
    """The commands that are run on a tree where every program is there."""
    for name in {argv[0] for argv in READ_ONLY}:
        if not (root / "usr/bin" / name).exists():
            program(root, name, "")
    ran = []

    def run(argv, timeout):
        ran.append((os.path.relpath(argv[0], root / "usr/bin"), *argv[1:]))
        return command.run(argv, timeout)

    gpu_probe.observe(str(root), [], 10, run)
    return [tuple("FILE" if word.endswith(".ko") else "ROOT" if word == str(root) else word for word in argv) for argv in ran]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("none", ["nvidia-ctk", "podman", "containerd"]),
        ("h100-no-driver", ["nvidia-ctk", "podman", "containerd"]),
        ("h100-loaded", ["nvidia-smi", "nvidia-smi", "modinfo", "nvidia-ctk", "podman", "containerd"]),
        ("a100-mig", ["nvidia-smi", "nvidia-smi", "nvidia-smi", "modinfo", "nvidia-ctk", "podman", "containerd"]),
        ("mismatch", ["nvidia-smi", "nvidia-smi", "modinfo", "nvidia-ctk", "podman", "containerd"]),
        # To ask nvidia-smi here would load the driver
        ("secure-boot-rejected", ["modinfo", "nvidia-ctk", "podman", "containerd"]),
        ("b200-nvswitch", ["nvidia-smi", "nvidia-smi", "modinfo", "nvidia-ctk", "podman", "containerd", "systemctl"]),
        ("wsl", ["nvidia-smi", "nvidia-smi", "nvidia-ctk", "podman", "containerd"]),
        ("m3max", ["system_profiler", "sysctl", "podman"]),
    ],
)
def test_commands(make, scenario, expected):
    ran = commands(make(scenario))
    assert [argv[0] for argv in ran] == expected
    assert set(ran) <= READ_ONLY


def test_commands_of_package_managers(make):
    root = make("none")
    (root / "var/lib/dpkg/status").unlink()
    assert commands(root)[0] == ("dpkg-query", *gpu_probe.DPKG_QUERY[1:])
    (root / "usr/bin/dpkg-query").unlink()
    program(root, "rpm", "printf 'ii \\tnvidia-driver-cuda\\t3:580.159.03-1.el9\\tx86_64\\tNVIDIA Corporation NVIDIA\\n'\n")
    found = observe(root)
    assert found["host"]["package_manager"] == "rpm" and found["host"]["packages"] == {"nvidia-driver-cuda": "3:580.159.03-1.el9"}
    assert (found["driver"]["state"], found["driver"]["source"]) == ("installed_not_loaded", "nvidia_repository")


def test_nothing_is_written(make):
    root = make("b200-nvswitch")

    def state():
        return {path: (os.lstat(path).st_mtime_ns, os.lstat(path).st_size) for path in sorted(str(path) for path in root.rglob("*"))}

    before = state()
    observe(root)
    assert state() == before


def test_what_may_not_be_read_is_left_out(make, monkeypatch):
    """For root every file is readable: refuse as the kernel refuses other users."""
    root = make("h100-loaded")
    refused = ("kmsg", "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "information", "nvidia.yaml")
    data = Tree.data

    def reading(self, name, *most):
        return None if os.path.basename(name) in refused else data(self, name, *most)

    monkeypatch.setattr(Tree, "data", reading)
    found = observe(root)
    assert len(found["gpus"]) == 2 and found["host"]["secure_boot"] is None and found["host"]["kernel_log"] is False and found["cdi"]["devices"] == []


def test_an_empty_tree_and_none(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        found = observe(root)
        assert found["gpus"] == [] and found["driver"]["state"] == "absent" and found["engines"] == [] and found["problems"] == []


def test_links_stay_in_the_tree(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/here").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (root / "absolute").symlink_to("/etc/here")
    (root / "etc/up").symlink_to("../../secret")
    (root / "etc/way-up").symlink_to("../../../../../../../../etc/here")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    tree = Tree(str(root))
    assert (tree.text("absolute"), tree.text("etc/up"), tree.text("etc/way-up"), tree.text("loop"), tree.text("pipe")) == ("inside", "", "inside", "", "")
    assert tree.link("absolute") == "here" and tree.link("etc/here") == "" and tree.names("loop") == [] and not tree.exists("loop")


def test_modules_in_all_their_places(make):
    root = make("none")
    modules = root / "lib/modules"
    for release, path in {
        "1-dkms": "updates/dkms/nvidia.ko.zst",
        "2-debian": "updates/dkms/nvidia-current.ko.xz",
        "3-ubuntu": "kernel/nvidia-580-server-open/nvidia.ko",
        "4-rhel": "extra/drivers/video/nvidia/nvidia.ko.xz",
        "5-runfile": "kernel/drivers/video/nvidia.ko",
        "6-none": "updates/dkms/nvidia-drm.ko",
    }.items():
        (modules / release / path).parent.mkdir(parents=True)
        (modules / release / path).write_text("")
    (modules / "7-weak/weak-updates").mkdir(parents=True)
    (modules / "7-weak/weak-updates/nvidia.ko").symlink_to("/lib/modules/4-rhel/extra/drivers/video/nvidia/nvidia.ko.xz")
    (modules / "8-dangling/weak-updates").mkdir(parents=True)
    (modules / "8-dangling/weak-updates/nvidia.ko").symlink_to("/gone")
    found = {kernel["release"]: kernel["nvidia_module"] for kernel in observe(root)["host"]["kernels"]}
    assert {release for release, module in found.items() if module == "unknown"} == {"1-dkms", "2-debian", "3-ubuntu", "4-rhel", "5-runfile", "7-weak"}


def module(*arguments):
    done = subprocess.run(
        [str(BIN / "ansible"), "localhost", "-m", "aikit.fleet.gpu_info", *arguments],
        env=environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]


def test_the_module_itself(make):
    """Through Ansible, on a tree and on this machine; check mode is no different."""
    root = make("h100-loaded")
    found = module("-a", f"root={root} timeout_seconds=5")
    assert not found["changed"] and [gpu["pci_id"] for gpu in found["gpus"]] == ["10de:2330"] * 2
    here = module("--check")
    assert not here["changed"] and here["host"]["kernel"] == os.uname().release and here["host"]["os"]["id"]
