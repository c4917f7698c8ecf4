# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor's checks of a host."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.host_checks import host_checks

ENGINE = {"engine": {"name": "docker", "version": "26.1.5", "installed": True, "answers": True, "problem": "", "hint": ""}}
GPUS = {"gpus": True}
# A host that is well, in the shape of gpu_info
WELL = {
    "gpus": [{"vendor": "nvidia", "name": "NVIDIA H100 80GB HBM3", "pci_bus_id": f"0000:{bus}:00.0", "driver_in_use": "nvidia"} for bus in ("3b", "3d")],
    "driver": {
        "state": "loaded",
        "version": "580.159.03",
        "installed_version": "580.159.03",
        "flavour": "open",
        "cuda_version": "13.0",
        "branch": 580,
        "source": "nvidia_repository",
        "floor": "580.159.03",
        "below_floor": False,
    },
    "toolkit": {"version": "1.19.1", "floor": "1.19.1", "below_floor": False, "packages": {}},
    "cdi": {"devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"], "spec_version": "0.7.0", "files": ["/var/run/cdi/nvidia.yaml"]},
    "engines": [{"name": "docker", "version": "26.1.5", "cdi": True, "gpus_flag": True, "cdi_spec_max": "0.7.0", "rootless": False}],
    "host": {
        "secure_boot": False,
        "kernel": "6.12.1",
        "headers": True,
        "kernels": [{"release": "6.12.1", "headers": True, "image": True, "nvidia_module": "580.159.03"}],
        "fabric_manager": {"needed": False, "installed": False, "active": False, "version": "", "state": ""},
        "unattended_upgrades": False,
        "packages": {"nvidia-kernel-open-dkms": "580.159.03-1", "nvidia-driver-cuda": "580.159.03-1", "nvidia-driver-pinning-580": "580-1"},
        "held_packages": [],
        "pinned_packages": [],
        "unattended_blacklist": [],
        "persistence": {"installed": True, "active": True},
    },
    "problems": [],
}
NAMES = [
    "engine",
    "gpus",
    "driver",
    "driver floor",
    "cuda floor",
    "secure boot",
    "kernel headers",
    "next kernel",
    "persistence",
    "night upgrades",
    "toolkit",
    "cdi devices",
    "cdi in engine",
    "cdi specification",
]


def with_(path="", value=None, problems=()):
    """``WELL`` with one value of another kind."""
    found = copy.deepcopy(WELL)
    if path:
        *parents, last = path.split(".")
        here = found
        for parent in parents:
            here = here[parent]
        here[last] = value
    found["problems"] = [{"name": name, "detail": f"{name} was found", "hint": f"mend {name}"} for name in problems]
    return found


def kernel(release, headers=True, module="580.159.03", image=True):
    return {"release": release, "headers": headers, "image": image, "nvidia_module": module}


def failed(checks):
    return [check["name"] for check in checks if not check["ok"]]


def test_a_host_that_is_well():
    checks = host_checks(WELL, ENGINE, GPUS)
    assert [check["name"] for check in checks] == NAMES
    assert failed(checks) == [] and {check["hint"] for check in checks} == {""}
    details = {check["name"]: check["detail"] for check in checks}
    assert details["gpus"] == "2 x NVIDIA H100 80GB HBM3"
    assert details["driver"] == "580.159.03 open (nvidia repository)"
    assert details["cdi specification"] == "0.7.0; docker 26.1.5 reads 0.7.0 and older"


CASES = {
    "driver absent": (with_("driver", {"state": "absent"}), ["driver"], "absent"),
    "not loaded": (with_("driver.state", "installed_not_loaded", ["driver_not_loaded"]), ["driver"], "driver_not_loaded was found"),
    "mismatch": (with_("driver.state", "mismatch", ["driver_mismatch"]), ["driver"], "driver_mismatch was found"),
    "nouveau": (with_("driver", {"state": "nouveau"}, ["nouveau_in_use"]), ["driver"], "nouveau_in_use was found"),
    "vfio": (with_("driver.state", "vfio"), ["driver"], "vfio"),
    "hung": (with_(problems=["nvidia_smi_hung"]), ["driver"], "nvidia_smi_hung was found"),
    "below the floor": (with_("driver.below_floor", True), ["driver floor"], "580.159.03, floor 580.159.03"),
    "below the floor, told": (with_("driver.below_floor", True, ["driver_below_floor"]), ["driver floor"], "driver_below_floor was found"),
    "old CUDA": (with_("driver.cuda_version", "11.8"), ["cuda floor"], "11.8, images need 12.0"),
    "key rejected": (with_("host.secure_boot", True, ["secure_boot_rejects_module"]), ["secure boot"], "secure_boot_rejects_module was found"),
    "no headers for one": (with_("host.kernels", [kernel("6.12.1", headers=False), kernel("6.12.9")]), ["kernel headers"], "no headers for 6.12.1"),
    "no module for the next": (
        with_("host.kernels", [kernel("6.12.1"), kernel("6.12.9", headers=False, module="")]),
        ["kernel headers", "next kernel"],
        "no headers for 6.12.9",
    ),
    "module of another version": (
        with_("host.kernels", [kernel("6.12.9", module="580.142")]),
        ["next kernel"],
        "6.12.9 has nvidia 580.142, the driver is 580.159.03",
    ),
    "fabric manager": (with_(problems=["fabric_manager_inactive"]), ["fabric manager"], "fabric_manager_inactive was found"),
    "fabric manager, untold": (
        with_("host.fabric_manager", {"needed": True, "installed": True, "active": False}),
        ["fabric manager"],
        "the cards are joined by NVSwitch, and it does not run",
    ),
    "persistence": (with_("host.persistence", {"installed": True, "active": False}), ["persistence"], "not active"),
    "no toolkit": (with_("toolkit", {"version": "", "below_floor": False}), ["toolkit"], "NVIDIA Container Toolkit is not installed"),
    "old toolkit": (with_("toolkit.below_floor", True, ["toolkit_below_floor"]), ["toolkit"], "toolkit_below_floor was found"),
    "no devices": (with_("cdi", {"devices": [], "spec_version": ""}), ["cdi devices"], "no CDI specification offers a GPU"),
    "another maker's devices": (with_("cdi.devices", ["amd.com/gpu=0"]), ["cdi devices"], "no CDI specification offers a GPU"),
    "CDI is off": (
        with_("engines", [{"name": "docker", "version": "26.1.5", "cdi": False}]),
        ["cdi in engine"],
        "docker 26.1.5 does not hand out CDI devices",
    ),
    "too new": (with_("engines", [{**WELL["engines"][0], "cdi_spec_max": "0.5.0"}]), ["cdi specification"], "0.7.0; docker 26.1.5 reads 0.5.0 and older"),
    "a card is gone": (with_(problems=["gpus_missing"]), ["gpus"], "gpus_missing was found"),
    "another problem": (with_(problems=["row_remap_pending"]), ["row remap pending"], "row_remap_pending was found"),
    "two of one kind": (with_(problems=["xid", "xid"]), ["xid", "xid"], "xid was found"),
}


@pytest.mark.parametrize("found, names, detail", CASES.values(), ids=CASES)
def test_what_is_wrong(found, names, detail):
    checks = host_checks(found, ENGINE, GPUS)
    assert failed(checks) == names
    bad = next(check for check in checks if not check["ok"])
    assert bad["detail"] == detail and bad["hint"]


def test_a_problem_keeps_its_hint_and_is_told_once():
    checks = host_checks(with_("driver.state", "mismatch", ["driver_mismatch"]), ENGINE, GPUS)
    assert [check["hint"] for check in checks if not check["ok"]] == ["mend driver_mismatch"]


def test_a_program_that_erred_does_not_make_the_host_ill():
    checks = host_checks(with_(problems=["xid_application"]), ENGINE, GPUS)
    assert failed(checks) == [] and checks[-1]["detail"] == "xid_application was found"


def test_prebuilt_modules_need_no_headers():
    found = with_("host.packages", {"linux-modules-nvidia-580-server-open-generic": "1"})
    found["host"]["kernels"][0]["headers"] = False
    assert "kernel headers" not in [check["name"] for check in host_checks(found, ENGINE, GPUS)]


def test_what_a_removed_kernel_left_behind_does_not_count():
    found = with_("host.kernels", [kernel("6.12.1"), kernel("6.12.9", headers=False, module="", image=False)])
    assert failed(host_checks(found, ENGINE, GPUS)) == []


@pytest.mark.parametrize(
    "extra, expected",
    [
        ({"unattended_blacklist": []}, False),
        ({"unattended_blacklist": ["^nvidia-"]}, True),
        ({"unattended_blacklist": ["^libnvidia-"]}, False),
        ({"held_packages": ["nvidia-kernel-open-dkms", "nvidia-driver-cuda"]}, True),
        ({"held_packages": ["nvidia-driver-cuda"]}, False),
        ({"held_packages": ["nvidia-driver-cuda"], "pinned_packages": ["nvidia-kernel-open-dkms"]}, True),
        # No pattern, so it keeps nothing back
        ({"unattended_blacklist": ["^nvidia-(", "*"]}, False),
        # gpu_info did not say what is kept back: nothing is claimed
        ({"unattended_blacklist": None}, None),
    ],
)
def test_night_upgrades(extra, expected):
    found = with_("host.unattended_upgrades", True)
    found["host"].update(extra)
    if found["host"]["unattended_blacklist"] is None:
        del found["host"]["unattended_blacklist"]
    told = [check["ok"] for check in host_checks(found, ENGINE, GPUS) if check["name"] == "night upgrades"]
    assert told == ([] if expected is None else [expected])


def test_a_host_that_is_not_for_gpus_is_judged_by_its_engine():
    desktop = with_("toolkit", {"version": "", "floor": "1.19.1", "below_floor": False, "packages": {}}, problems=["xid"])
    assert [check["name"] for check in host_checks(desktop, ENGINE, {"gpus": False})] == ["engine"]
    bare = with_("gpus", [])
    assert [check["name"] for check in host_checks(bare, ENGINE, {"gpus": False})] == ["engine"]


def test_a_host_that_was_made_for_gpus_is_judged_before_it_has_a_service():
    assert [check["name"] for check in host_checks(WELL, ENGINE, {"gpus": False})] == NAMES
    assert failed(host_checks(with_(problems=["xid"]), ENGINE, {"gpus": False})) == ["xid"]
    lost = with_("gpus", [], problems=["gpus_missing"])
    assert failed(host_checks(lost, ENGINE, {"gpus": False})) == ["gpus"]


@pytest.mark.parametrize(
    "engine, detail",
    [
        ({"name": "docker", "installed": False, "answers": False}, "docker is not installed"),
        ({"name": "docker", "installed": True, "answers": False}, "docker does not answer"),
        ({"name": "docker", "installed": True, "answers": False, "problem": "permission denied"}, "permission denied"),
    ],
)
def test_an_engine_that_does_not_answer(engine, detail):
    (check,) = host_checks({}, {"engine": engine})
    assert not check["ok"] and check["detail"] == detail and check["hint"]


def test_an_engine_that_will_not_do():
    failed_ = {"failed": True, "msg": "Docker 19.03 is older than 20.10, the oldest that will do. Update it.", "hint": "Update it."}
    (check,) = host_checks({}, failed_)
    assert check == {"name": "engine", "ok": False, "detail": "Docker 19.03 is older than 20.10, the oldest that will do.", "hint": "Update it."}
    (check,) = host_checks({}, {"failed": True, "msg": "Missing sudo password"})
    assert check["detail"] == "Missing sudo password" and check["hint"]


def test_a_driver_from_elsewhere_needs_no_persistence_daemon():
    found = with_("host.persistence", {"installed": False, "active": False})
    assert [(check["ok"], check["detail"]) for check in host_checks(found, ENGINE, GPUS) if check["name"] == "persistence"] == [(True, "not installed")]


def test_no_gpu_where_one_is_wanted():
    checks = host_checks({"gpus": [], "driver": {"state": "absent"}, "problems": []}, ENGINE, GPUS)
    assert failed(checks) == ["gpus"] and len(checks) == 2


def test_other_makers():
    amd = {"gpus": [{"vendor": "amd", "name": "MI300X", "pci_bus_id": "0000:03:00.0", "driver_in_use": ""}], "problems": []}
    assert failed(host_checks(amd, ENGINE, GPUS)) == ["driver"]
    amd["gpus"][0]["driver_in_use"] = "amdgpu"
    assert failed(host_checks(amd, ENGINE, GPUS)) == []
    assert failed(host_checks({"gpus": [{"vendor": "apple", "name": "Apple M3"}]}, ENGINE, GPUS)) == []


def test_wsl_has_no_kernel_of_its_own_to_judge():
    found = with_("driver", {"state": "wsl", "version": "591.44", "cuda_version": "13.0"})
    names = [check["name"] for check in host_checks(found, ENGINE, GPUS)]
    assert "secure boot" not in names and "next kernel" not in names and "driver" in names
    assert failed(host_checks(found, ENGINE, GPUS)) == []


def test_nothing_at_all_is_no_error():
    assert host_checks({}) == []
