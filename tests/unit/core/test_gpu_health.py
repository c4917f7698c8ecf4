# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which problems gpu_info names: a healthy host with one thing changed at a time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_gpu, gpu_report
from ansible_collections.aikit.fleet.plugins.module_utils._core.gpu_raw import EngineAnswer, Kernel, Output, Raw

ROOT = Path(__file__).resolve().parents[3]
UUID = "GPU-00002330-0000-4000-8000-00000000003b"
CARD = {"address": "0000:3b:00.0", "vendor": "0x10de", "device": "0x2330", "class": "0x030200", "driver": "nvidia"}
BEFORE = {"uuid": UUID, "pci_bus_id": "0000:3b:00.0", "name": "NVIDIA H100"}
CSV = f"0, {UUID}, NVIDIA H100, 00000000:3B:00.0, 580.159.03, 81559, 80959, 9.0, Disabled\n"
XML = (
    "<nvidia_smi_log><driver_version>580.159.03</driver_version><cuda_version>%s</cuda_version>"
    '<gpu id="00000000:3B:00.0"><gpu_recovery_action>None</gpu_recovery_action>%s</gpu></nvidia_smi_log>'
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  %s  Release Build\n"
SPEC = 'cdiVersion: %s\nkind: nvidia.com/gpu\ndevices:\n  - name: "0"\n'
PACKAGES = "ii \tnvidia-smi\t580.159.03-1\tamd64\tNVIDIA <cudatools@nvidia.com>\n"
TOOLKIT = "".join(f"ii \t{name}\t1.20.0-1\tamd64\tNVIDIA\n" for name in ("nvidia-container-toolkit", "nvidia-container-toolkit-base"))
HEALTHY = Raw(
    kernel="6.1.0",
    pci=[CARD],
    proc_version=OPEN % "580.159.03",
    smi_csv=Output(0, CSV),
    smi_xml=Output(0, XML % ("13.0", "")),
    smi_path="/usr/bin/nvidia-smi",
    libraries=["libnvidia-ml.so.580.159.03"],
    kernels=[Kernel("6.1.0", True, True)],
    packages=PACKAGES,
    firmware=["efi"],
    secure_boot=b"\x06\0\0\0\0",
    kernel_log="",
)


def found(previous=(), **changes):
    return gpu_report.report(replace(HEALTHY, **changes), previous)["problems"]


def names(previous=(), **changes):
    return [problem["name"] for problem in found(previous, **changes)]


def inside(text, cuda="13.0"):
    return {"smi_xml": Output(0, XML % (cuda, text))}


def log(text):
    return {"kernel_log": f"Linux version 6\n{text}\nlast line"}


def link(current, most, port=None, **more):
    card = {**CARD, "current_link_width": str(current), "max_link_width": str(most), "port_max_link_width": str(port or most), **more}
    return {"pci": [card]}


def widths(current, most):
    return f"<pci><pci_gpu_link_info><link_widths><max_link_width>{most}x</max_link_width><current_link_width>{current}x</current_link_width></link_widths></pci_gpu_link_info></pci>"


SWITCHED = {"pci": [CARD, {"address": "0000:07:00.0", "vendor": "0x10de", "device": "0x22a3", "class": "0x068000"}]}
MANAGER = PACKAGES + "ii \tnvidia-fabricmanager\t580.159.03-1\tamd64\tNVIDIA\n"
ACTIVE = {"fabric_manager_active": Output(0, "active\n")}
NO_SMI = {"smi_csv": Output(), "smi_xml": Output(), "proc_version": None}
NOTHING = {**NO_SMI, "libraries": [], "packages": ""}
REJECTED = "Loading of module with unavailable key is rejected"
DKMS = PACKAGES + "ii \tnvidia-kernel-open-dkms\t580.159.03-1\tamd64\tNVIDIA\n"
PODMAN4 = EngineAnswer("podman", True, "4.3.1")
PODMAN5 = EngineAnswer("podman", True, "5.4.2")
OLD_TOOLKIT = TOOLKIT.replace("1.20.0", "1.18.2")
VOLTA = [{**CARD, "device": "0x1db4"}]
BLACKWELL = [{**CARD, "device": "0x2901"}]

CASES = [
    ("healthy", {}, []),
    ("no GPU", {**NOTHING, "pci": []}, []),
    ("no driver", {**NOTHING, "pci": [{**CARD, "driver": ""}]}, []),
    ("hung", {"smi_csv": Output(124), "smi_xml": Output()}, ["nvidia_smi_hung"]),
    ("hung later", {"smi_xml": Output(124)}, ["nvidia_smi_hung"]),
    ("failed", {"smi_csv": Output(9, "NVIDIA-SMI has failed"), "smi_xml": Output(9)}, ["nvidia_smi_failed"]),
    ("old tool without a field", {"smi_csv": Output(2, 'Field "compute_cap" is not a valid field to query.')}, []),
    ("missing", {"smi_csv": Output(), "smi_xml": Output()}, ["nvidia_smi_missing"]),
    ("garbage", {"smi_csv": Output(0, "hello"), "smi_xml": Output(0, "<x>")}, ["nvidia_smi_unreadable", "nvidia_smi_unreadable"]),
    ("damaged information", {"smi_csv": Output(14, CSV + "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n")}, ["inforom_corrupted"]),
    ("mismatch", {"libraries": ["libnvidia-ml.so.580.170.01"], "smi_csv": Output(18, "Failed to initialize NVML"), "smi_xml": Output(18)}, ["driver_mismatch"]),
    ("nouveau", {**NOTHING, "pci": [{**CARD, "driver": "nouveau"}]}, ["nouveau_in_use"]),
    ("below floor", {"proc_version": OPEN % "580.126.09", "libraries": []}, ["driver_below_floor"]),
    ("branch without fixes", {"proc_version": OPEN % "570.211.01", "libraries": []}, ["driver_below_floor"]),
    ("CUDA 11", inside("", "11.8"), ["cuda_below_floor"]),
    ("CUDA 12.0", inside("", "12.0"), []),
    ("too old for CUDA 12", {**NO_SMI, "libraries": ["libnvidia-ml.so.470.256.02"], "packages": ""}, ["driver_below_floor", "cuda_below_floor"]),
    ("open modules and Volta", {"pci": VOLTA}, ["driver_flavour_wrong"]),
    ("R595 and Volta", {"pci": VOLTA, "proc_version": OPEN % "595.91.07", "libraries": []}, ["gpu_too_old_for_driver"]),
    ("proprietary modules and Blackwell", {"pci": BLACKWELL, "proc_version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.03  x\n"}, ["driver_flavour_wrong"]),
    ("Secure Boot", {**NO_SMI, "pci": [{**CARD, "driver": ""}], "secure_boot": b"\x06\0\0\0\1", **log(REJECTED)}, ["secure_boot_rejects_module", "driver_not_loaded"]),
    ("Secure Boot, another's module", {"secure_boot": b"\x06\0\0\0\1", **log(REJECTED)}, []),
    ("rejected, Secure Boot off", {**NOTHING, "pci": [{**CARD, "driver": ""}], **log(REJECTED)}, []),
    ("headers missing", {"kernels": [Kernel("6.1.0")], "packages": DKMS}, ["headers_missing"]),
    ("no headers needed", {"kernels": [Kernel("6.1.0")]}, []),
    ("not loaded", {**NO_SMI, "pci": [{**CARD, "driver": ""}]}, ["driver_not_loaded"]),
    ("fabric manager missing", SWITCHED, ["fabric_manager_inactive"]),
    ("fabric manager off", {**SWITCHED, "packages": MANAGER, "fabric_manager_active": Output(3, "inactive\n")}, ["fabric_manager_inactive"]),
    ("fabric manager on", {**SWITCHED, **ACTIVE, "packages": MANAGER}, []),
    ("fabric manager older", {**SWITCHED, **ACTIVE, "packages": MANAGER.replace("manager\t580.159", "manager\t580.126")}, ["fabric_manager_mismatch"]),
    ("fabric in progress", {**SWITCHED, **ACTIVE, "packages": MANAGER, **inside("<fabric><state>In Progress</state></fabric>")}, ["fabric_not_ready"]),
    ("NVLink 5", {"vpd": ["V3 SW_MNG"]}, ["fabric_manager_inactive"]),
    ("recovery", {"smi_xml": Output(0, (XML % ("13.0", "")).replace(">None<", ">Reboot<"))}, ["gpu_recovery_action"]),
    ("ECC", inside("<ecc_errors><volatile><dram_uncorrectable>1</dram_uncorrectable></volatile></ecc_errors>"), ["ecc_uncorrected"]),
    ("ECC of the past", inside("<ecc_errors><aggregate><dram_uncorrectable>9</dram_uncorrectable></aggregate></ecc_errors>"), []),
    ("remap pending", inside("<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>"), ["row_remap_pending"]),
    ("remap failure", inside("<remapped_rows><remapped_row_failure>Yes</remapped_row_failure></remapped_rows>"), ["row_remap_failure"]),
    ("unrepairable", inside("<ecc_errors><unrepairable_memory>Yes</unrepairable_memory></ecc_errors>"), ["row_remap_failure"]),
    ("repair pending", inside("<ecc_errors><channel_repair_pending>Yes</channel_repair_pending></ecc_errors>"), ["memory_repair_pending"]),
    ("caches", inside("<ecc_errors><aggregate><sram_threshold_exceeded>Yes</sram_threshold_exceeded></aggregate></ecc_errors>"), ["sram_threshold_exceeded"]),
    ("width", inside(widths(8, 16)), ["pcie_width"]),
    ("full width", inside(widths(16, 16)), []),
    ("a slot of eight lanes", {**inside(widths(8, 16)), **link(8, 16, 8)}, []),
    ("width in a virtual machine", {**inside(widths(8, 16)), "cpuinfo_hypervisor": True}, []),
    ("width by sysfs", link(4, 16), ["pcie_width"]),
    ("width asleep", link(4, 16, power_state="D3cold"), []),
    ("no link", link(0, 16), []),
    ("width without a driver", {**NOTHING, **link(4, 16, driver="")}, []),
    ("Xid 79", log("[1.0] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."), ["xid"]),
    ("old Xid", log("NVRM: Xid (0000:3b:00): 48, DBE"), ["xid"]),
    ("Xid of a program", log("NVRM: Xid (PCI:0000:3b:00): 31, pid=1, name=python, MMU Fault"), ["xid_application"]),
    ("Xid twice", log("NVRM: Xid (PCI:0000:3b:00): 31, a\nNVRM: Xid (PCI:0000:3b:00): 31, b"), ["xid_application"]),
    ("Xids", log("NVRM: Xid (PCI:0000:3b:00): 48, a\nNVRM: Xid (PCI:0000:3b:00): 63, b\nNVRM: Xid (PCI:0000:4b:00): 48, b"), ["xid", "xid", "xid"]),
    ("Xid unknown", log("NVRM: Xid (PCI:0000:3b:00): 999, what"), ["xid"]),
    ("no Xid", log("some program talks of NVRM: Xid problems"), []),
    ("SXid", log("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 29 LTSSM Fault Up"), ["sxid"]),
    ("legacy", log("NVRM: The NVIDIA Tesla V100 GPU installed in this system is supported through the NVIDIA 580.xx Legacy drivers."), ["gpu_ignored_by_driver"]),
    ("init", log("NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x26:0x56:1474)"), ["gpu_init_failed"]),
    ("toolkit", {"packages": PACKAGES + TOOLKIT, "cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.7.0"}}, []),
    ("toolkit old", {"packages": PACKAGES + OLD_TOOLKIT, "cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.5.0"}}, ["toolkit_below_floor"]),
    ("toolkit mixed", {"packages": PACKAGES + TOOLKIT.replace("1.20.0", "1.21.0", 1), "cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.5.0"}}, ["toolkit_mixed"]),
    ("no CDI", {"packages": PACKAGES + TOOLKIT}, ["cdi_devices_missing"]),
    ("CDI too new", {"engines": [PODMAN4, PODMAN5], "cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.7.0"}}, ["cdi_spec_too_new"]),
    ("CDI readable", {"engines": [PODMAN4, PODMAN5], "cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.5.0"}}, []),
    ("CDI stale", {"cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.5.0", "/etc/cdi/nvidia.yaml": SPEC % "0.5.0"}}, ["cdi_spec_stale"]),
    ("CDI in /etc alone", {"cdi": {"/etc/cdi/nvidia.yaml": SPEC % "0.5.0"}}, []),
    ("CDI of another", {"cdi": {"/var/run/cdi/nvidia.yaml": SPEC % "0.5.0", "/etc/cdi/amd.yaml": (SPEC % "0.5.0").replace("nvidia", "amd")}}, []),
]


@pytest.mark.parametrize(("changes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_problems(changes, expected):
    assert names(**changes) == expected


@pytest.mark.parametrize(
    ("previous", "changes", "expected"),
    [
        ([], {}, []),
        ([BEFORE], {}, []),
        ([BEFORE, {"uuid": "GPU-2", "pci_bus_id": "0000:4b:00.0"}], {}, ["gpus_missing"]),
        # The card is in another slot
        ([{**BEFORE, "pci_bus_id": "0000:99:00.0"}], {}, []),
        # Another card is in its place
        ([{**BEFORE, "uuid": "GPU-9"}], {}, ["gpus_missing"]),
        # Nothing has an id without a driver
        ([BEFORE], {**NOTHING, "pci": [{**CARD, "driver": ""}]}, []),
        ([BEFORE], {**NOTHING, "pci": []}, ["gpus_missing"]),
        ([{}, {}], {}, ["gpus_missing"]),
    ],
)
def test_gpus_that_are_gone(previous, changes, expected):
    assert names(previous, **changes) == expected


def test_every_problem_names_the_fix():
    for _name, changes, _expected in CASES:
        for problem in found(**changes):
            assert problem["detail"] and problem["hint"] and problem["severity"] in ("error", "warning")
            assert set(problem) == {"name", "detail", "hint", "severity"}


def test_every_problem_is_in_the_guide():
    source = (ROOT / "plugins/module_utils/_core/gpu_health.py").read_text()
    known = {name for _id, _changes, expected in CASES for name in expected} | {"gpus_missing"}
    guide = (ROOT / "docs/gpus.md").read_text()
    assert not {name for name in known if f"`{name}`" not in guide}
    assert not {name for name in known if f'"{name}"' not in source}


def test_table_of_xids():
    assert all(means and hint.endswith(".") and not re.search(r"\.$", means) for _serious, means, hint in data_gpu.XIDS.values())
    assert {31, 48, 63, 64, 74, 79, 94, 95, 119, 154} <= set(data_gpu.XIDS)
