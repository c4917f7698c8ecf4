# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parsers and judgement of gpu_info: tables over the shapes that hosts have."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import cdi, data_gpu, data_nvidia, gpu, gpu_driver, gpu_host, gpu_report, gpu_smi
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.gpu_raw import EngineAnswer, Kernel, Output, Raw
from hypothesis import given, settings
from hypothesis import strategies as st

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release Build  (dvs-builder@U22)  Wed Jul 29 20:42:05 UTC 2026\nGCC version: 14\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.216.03  Thu Oct 24 2024\n"
ARM = "NVRM version: NVIDIA UNIX Kernel Module for aarch64  34.1.1  Release Build\n"


def record(device, vendor="10de", kind="030200", address="0000:3b:00.0", **more):
    return {"address": address, "vendor": f"0x{vendor}\n", "device": f"0x{device}\n", "class": f"0x{kind}\n", **more}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPEN, ("595.91.07", "open")),
        (CLOSED, ("535.216.03", "proprietary")),
        (ARM, ("34.1.1", "proprietary")),
        ("", ("", "")),
        ("NVRM version: something else\n", ("", "")),
    ],
)
def test_proc_version(text, expected):
    assert gpu_driver.proc_version(text) == expected


@pytest.mark.parametrize(
    ("device", "architecture", "capability", "open_modules"),
    [
        ("1001", "", "", "no"),  # Kepler
        ("13c2", "maxwell", "5.2", "no"),
        ("15f8", "pascal", "6.0", "no"),
        ("1b06", "pascal", "6.1", "no"),
        ("1db4", "volta", "7.0", "no"),
        ("1dff", "volta", "7.0", "no"),
        ("1e00", "turing", "7.5", "yes"),
        ("1eb8", "turing", "7.5", "yes"),
        ("2182", "turing", "7.5", "yes"),
        ("20b0", "ampere", "8.0", "yes"),
        ("2236", "ampere", "8.6", "yes"),
        ("2484", "ampere", "8.6", "yes"),
        ("26b9", "ada", "8.9", "yes"),
        ("2330", "hopper", "9.0", "yes"),
        ("2342", "hopper", "9.0", "only"),
        ("2901", "blackwell", "10.0", "only"),
        ("2bb5", "blackwell", "12.0", "only"),
        ("2e12", "blackwell", "12.1", "only"),
        ("3182", "blackwell", "10.3", "only"),
        ("4000", "", "", "only"),
    ],
)
def test_nvidia_device_ids(device, architecture, capability, open_modules):
    (found,) = gpu.from_pci([record(device)])
    assert (found.architecture, found.compute_capability, found.open_modules) == (architecture, capability, open_modules)


def test_ranges_are_in_order_and_apart():
    ranges = data_gpu.NVIDIA_RANGES
    assert all(first <= last for first, last, _name, _capability in ranges)
    assert all(before[1] < after[0] for before, after in zip(ranges, ranges[1:]))
    # The border between the drivers lies between two ranges
    assert not any(first < data_gpu.FIRST_OPEN_DEVICE <= last for first, last, _name, _capability in ranges)


@pytest.mark.parametrize(
    ("fields", "vendor"),
    [
        ({"device": "2330"}, "nvidia"),
        ({"device": "2204", "kind": "030000"}, "nvidia"),
        ({"device": "2204", "kind": "038000"}, "nvidia"),
        ({"device": "1aef", "kind": "040300"}, None),  # sound
        ({"device": "22a3", "kind": "068000"}, None),  # NVSwitch
        ({"device": "74a1", "vendor": "1002", "kind": "120000"}, "amd"),
        ({"device": "744c", "vendor": "1002", "kind": "030000"}, "amd"),
        ({"device": "46a6", "vendor": "8086", "kind": "030000"}, "intel"),
        ({"device": "0b60", "vendor": "8086", "kind": "120000"}, None),  # another kind of accelerator
        ({"device": "2000", "vendor": "1a03", "kind": "030000"}, None),  # a server's management processor
        ({"device": "zz"}, None),
        ({"device": "2330", "vendor": ""}, None),
        ({"device": "2330", "address": "nonsense"}, None),
    ],
)
def test_what_counts_as_a_gpu(fields, vendor):
    found = gpu.from_pci([record(**fields)])
    assert [one.vendor for one in found] == ([vendor] if vendor else [])


def test_bridges():
    assert gpu.is_nvswitch(record("22a3", kind="068000")) and not gpu.is_nvswitch(record("2330"))
    assert gpu.may_have_nvlink5(record("2901")) and gpu.may_have_nvlink5(record("3182"))
    assert not gpu.may_have_nvlink5(record("2bb5")) and not gpu.may_have_nvlink5(record("2330")) and not gpu.may_have_nvlink5({})


def test_order_and_index():
    records = [record("2330", address="0000:c1:00.0"), record("46a6", "8086", "030000", "0000:00:02.0"), record("2330", address="0000:1b:00.0")]
    found = gpu.observe(Raw(pci=records), {})
    assert [(one.vendor, one.index, one.pci_bus_id) for one in found] == [
        ("intel", 0, "0000:00:02.0"),
        ("nvidia", 0, "0000:1b:00.0"),
        ("nvidia", 1, "0000:c1:00.0"),
    ]


def test_a_gpu_that_nvidia_smi_leaves_out_has_no_index():
    smi = {"0000:c1:00.0": gpu_smi.SmiGpu("0000:c1:00.0", index=0, memory_total_mib=5)}
    found = gpu.observe(Raw(pci=[record("2330", address="0000:1b:00.0"), record("2330", address="0000:c1:00.0")]), smi)
    assert [one.index for one in found] == [None, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"),
        ("0000:3b:00.0", "0000:3b:00.0"),
        ("00010000:3B:00.0", "10000:3b:00.0"),
        ("0001:c1:1f.7", "0001:c1:1f.7"),
        ("3b:00.0", "0000:3b:00.0"),
        ("0000:3b:00", "0000:3b:00.0"),
        ("3b", ""),
        ("", ""),
        ("00000000:3B:00.8", ""),
    ],
)
def test_bus_id(text, expected):
    assert gpu_smi.bus_id(text) == expected


UUID = "GPU-00002330-0000-4000-8000-00000000003b"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("81559, 80959, 9.0, Disabled", (81559, 80959, "9.0", "disabled")),
        ("[N/A], [N/A], 12.1, [N/A]", (None, None, "12.1", "")),
        ("[Not Supported], [Not Supported], 7.0, [Not Supported]", (None, None, "7.0", "")),
        ("N/A, N/A, N/A, N/A", (None, None, "", "")),
        ("0, 0, 9.0, Enabled", (None, None, "9.0", "enabled")),
        ("16384, 0, 7.0, [N/A]", (16384, 0, "7.0", "")),
        ("[Unknown Error], [GPU requires reset], 9.0, ERR!", (None, None, "9.0", "")),
    ],
)
def test_csv(cells, expected):
    (found,) = gpu_smi.parse_csv(f"0, {UUID}, NVIDIA H100, 00000000:3B:00.0, 580.159.03, {cells}\nWARNING: infoROM is corrupted at gpu 0000:3B:00.0\n")
    assert (found.memory_total_mib, found.memory_free_mib, found.compute_capability, found.mig_current) == expected
    assert (found.index, found.uuid, found.name, found.driver_version) == (0, UUID, "NVIDIA H100", "580.159.03")


@pytest.mark.parametrize("text", ["hello", "a, b", 'Field "x" is not a valid field to query.', "0, 1, 2, 3, 4, 5, 6, 7, 8", "\0\0\0"])
def test_csv_refuses_what_is_no_list(text):
    with pytest.raises(AikitError, match="no list of GPUs"):
        gpu_smi.parse_csv(text)


XML = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <driver_version>580.159.03</driver_version><cuda_version>13.0</cuda_version>
  <gpu id="00000000:3B:00.0">%s</gpu>
</nvidia_smi_log>
"""


@pytest.mark.parametrize(
    ("inside", "field", "expected"),
    [
        ("", "recovery_action", ""),
        ("<gpu_recovery_action>None</gpu_recovery_action>", "recovery_action", ""),
        ("<gpu_recovery_action>Drain and Reset</gpu_recovery_action>", "recovery_action", "Drain and Reset"),
        ("<gpu_reset_status><reset_required>Yes</reset_required></gpu_reset_status>", "recovery_action", "Reset"),
        ("<gpu_reset_status><drain_and_reset_recommended>Yes</drain_and_reset_recommended></gpu_reset_status>", "recovery_action", "Drain and Reset"),
        ("<gpu_reset_status><reset_required>Requested functionality has been deprecated</reset_required></gpu_reset_status>", "recovery_action", ""),
        (
            "<ecc_errors><volatile><dram_uncorrectable>3</dram_uncorrectable><sram_uncorrectable_parity>1</sram_uncorrectable_parity></volatile></ecc_errors>",
            "ecc_uncorrected",
            4,
        ),
        (
            "<ecc_errors><volatile><sram_uncorrectable>2</sram_uncorrectable><dram_uncorrectable>0</dram_uncorrectable></volatile></ecc_errors>",
            "ecc_uncorrected",
            2,
        ),
        ("<ecc_errors><volatile><double_bit><total>5</total></double_bit></volatile></ecc_errors>", "ecc_uncorrected", 5),
        ("<ecc_errors><volatile><dram_uncorrectable>N/A</dram_uncorrectable></volatile></ecc_errors>", "ecc_uncorrected", None),
        ("<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>", "memory_flags", frozenset({"remapped_row_pending"})),
        ("<retired_pages><pending_blacklist>Yes</pending_blacklist></retired_pages>", "memory_flags", frozenset({"page_retirement_pending"})),
        ("<fb_memory_usage><total>81559 MiB</total><free>80 MiB</free></fb_memory_usage>", "memory_free_mib", 80),
        ("<fb_memory_usage><total>N/A</total><free>N/A</free></fb_memory_usage>", "memory_total_mib", None),
        ("<product_architecture>Ada Lovelace</product_architecture>", "architecture", "ada lovelace"),
        ("<mig_devices>\n\t\tNone\n</mig_devices>", "mig_devices", ()),
        ("<pci><pci_gpu_link_info><link_widths><current_link_width>8x</current_link_width></link_widths></pci_gpu_link_info></pci>", "width_current", 8),
        ("<fabric><state>Completed</state></fabric>", "fabric_state", "Completed"),
    ],
)
def test_xml(inside, field, expected):
    report = gpu_smi.parse_xml(XML % inside)
    assert (report.driver_version, report.cuda_version) == ("580.159.03", "13.0")
    assert getattr(report.gpus[0], field) == expected and report.gpus[0].pci_bus_id == "0000:3b:00.0"


BOMB = '<!DOCTYPE nvidia_smi_log [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><nvidia_smi_log>&b;</nvidia_smi_log>'
OUTSIDE = '<!DOCTYPE nvidia_smi_log [<!ENTITY x SYSTEM "file:///etc/passwd">]><nvidia_smi_log>&x;</nvidia_smi_log>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "document type of its own"),
        (OUTSIDE, "document type of its own"),
        ('<!DOCTYPE nvidia_smi_log SYSTEM "x.dtd"><nvidia_smi_log>&y;</nvidia_smi_log>', "entities of its own"),
        ("<nvidia_smi_log>&y;</nvidia_smi_log>", "no valid XML"),
        ("<a>" * 40 + "</a>" * 40, "deep and deeper"),
        ("<html></html>", "instead of <nvidia_smi_log>"),
        ("<nvidia_smi_log>", "no valid XML"),
        ("", "no valid XML"),
        ("\0", "no valid XML"),
        ("x" * (gpu_smi.MOST_CHARACTERS + 1), "too much"),
    ],
    ids=["bomb", "file", "undefined", "unknown", "deep", "html", "open", "empty", "nul", "long"],
)
def test_hostile_xml_is_refused(text, message):
    with pytest.raises(AikitError, match=message):
        gpu_smi.parse_xml(text)


def test_warnings_after_the_xml_do_no_harm():
    assert gpu_smi.parse_xml(XML % "" + "WARNING: infoROM is corrupted at gpu 0000:3B:00.0\n").gpus


def test_list():
    text = f"GPU 0: NVIDIA A100 (UUID: {UUID})\n"
    text += "  MIG 3g.20gb     Device  0: (UUID: MIG-1)\n  MIG 1g.5gb      Device  1: (UUID: MIG-2)\nGPU 1: NVIDIA A100 (UUID: GPU-2)\n"
    assert gpu_smi.parse_list(text) == {UUID: ((0, "3g.20gb", "MIG-1"), (1, "1g.5gb", "MIG-2"))}
    assert gpu_smi.parse_list("  MIG 3g.20gb Device 0: (UUID: MIG-1)\n") == {}


MEMINFO = "MemTotal:       131837832 kB\nMemAvailable:   120000000 kB\n"


@pytest.mark.parametrize(
    ("device", "name", "total", "unified"),
    [
        ("2e12", "NVIDIA GB10", 128747, True),
        ("9999", "NVIDIA Thor", 128747, True),
        ("2330", "NVIDIA H100", None, False),  # not known is not unified
    ],
)
def test_unified_memory(device, name, total, unified):
    smi = {"0000:3b:00.0": gpu_smi.SmiGpu("0000:3b:00.0", index=0, name=name)}
    (found,) = gpu.observe(Raw(pci=[record(device)], meminfo=MEMINFO), smi)
    assert (found.memory_total_mib, found.unified_memory) == (total, unified)


def test_unified_memory_without_meminfo_is_unknown():
    smi = {"0000:3b:00.0": gpu_smi.SmiGpu("0000:3b:00.0", index=0, name="NVIDIA GB10")}
    (found,) = gpu.observe(Raw(pci=[record("2e12")], meminfo="MemTotal: 0 kB\n"), smi)
    assert found.memory_total_mib is None and found.memory_free_mib is None and found.unified_memory


MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("vram", "gtt", "total", "unified"),
    [
        (196592, 1031000, 196592, False),
        (512, 61440, 61952, True),
        (4096, 8192, 4096, False),  # the system's share is no four times its own
        (4096, 16384, 20480, True),
        (8192, 65536, 8192, False),  # a small card in a large machine
        (0, 16384, 16384, True),
        (0, 0, None, False),
    ],
)
def test_amd_memory(vram, gtt, total, unified):
    values = {"mem_info_vram_total": str(vram * MIB), "mem_info_gtt_total": str(gtt * MIB), "mem_info_vram_used": "0", "mem_info_gtt_used": "0"}
    (found,) = gpu.observe(Raw(pci=[record("74a1", "1002", "120000", driver="amdgpu", **values)]), {})
    assert (found.memory_total_mib, found.memory_free_mib, found.unified_memory) == (total, total, unified)


def test_amd_without_its_driver():
    (found,) = gpu.observe(Raw(pci=[record("74a1", "1002", "120000")]), {})
    assert found.memory_total_mib is None and found.memory_free_mib is None and found.name == "AMD Instinct MI300X"


@pytest.mark.parametrize(
    ("version", "target"), [(90402, "gfx942"), (90010, "gfx90a"), (110000, "gfx1100"), (110501, "gfx1151"), (120001, "gfx1201"), (0, None)]
)
def test_kfd(version, target):
    found = gpu.kfd_targets([f"vendor_id 4098\ngfx_target_version {version}\nlocation_id 29952\ndomain 1\n", "nonsense", "vendor_id 0\ngfx_target_version 1\n"])
    assert found == ({"0001:75:00.0": target} if target else {})


def display(**fields):
    return json.dumps({"SPDisplaysDataType": [fields]})


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (display(sppci_model="Apple M3 Max", spdisplays_vendor="sppci_vendor_Apple"), [("apple", "Apple M3 Max", 65536, True)]),
        (display(_name="Radeon Pro", spdisplays_vendor="sppci_vendor_amd", spdisplays_vram="4 GB"), [("amd", "Radeon Pro", 4096, False)]),
        (display(_name="Intel UHD", spdisplays_vendor="Intel", spdisplays_vram_shared="1536 MB"), [("intel", "Intel UHD", None, True)]),
        (display(_name="x", spdisplays_vendor="other"), []),
        ("{}", []),
        ("[1]", []),
        ('{"SPDisplaysDataType": [1, null]}', []),
        ('{"SPDisplaysDataType": 7}', []),
        ("", []),
        ("[" * 100000, []),
    ],
)
def test_mac(profile, expected):
    found = gpu.observe(Raw(system="Darwin", system_profiler=Output(0, profile), memsize=Output(0, "68719476736\n")), {})
    assert [(one.vendor, one.name, one.memory_total_mib, one.unified_memory) for one in found] == expected


def test_mac_without_sysctl():
    (found,) = gpu.apple(display(sppci_model="Apple M1", spdisplays_vendor="sppci_vendor_Apple"), "")
    assert found.memory_total_mib is None


PCI_IDS = "# comment\n10de  NVIDIA Corporation\n\t2330  GH100 [H100 SXM5 80GB]\n\t\t10de 16c1  board\n\t9999  Other\n1002  AMD\n\t2330  Not this\n"


def test_names_without_a_driver():
    assert gpu.pci_names(PCI_IDS, ["10de:2330"]) == {"10de:2330": "GH100 [H100 SXM5 80GB]"}
    assert gpu.pci_names(PCI_IDS, []) == {}
    names = {one.pci_id: one.name for one in gpu.observe(Raw(pci=[record("2330"), record("20b0", address="0000:4b:00.0")], pci_ids=PCI_IDS), {})}
    assert names == {"10de:2330": "GH100 [H100 SXM5 80GB]", "10de:20b0": "NVIDIA A100-SXM4-40GB"}


def test_names_of_a_driver_whose_tool_says_nothing():
    text = f"Model: \t\t NVIDIA H100\nGPU UUID: \t {UUID}\n"
    (found,) = gpu.observe(Raw(pci=[record("2330")], proc_gpus={"0000:3b:00.0": text}), {})
    assert (found.name, found.uuid) == ("NVIDIA H100", UUID)
    (found,) = gpu.observe(Raw(pci=[record("2330")], proc_gpus={"0000:3b:00.0": "Model: Unknown\nGPU UUID: GPU-????????-????\n"}), {})
    assert (found.name, found.uuid) == ("NVIDIA H100 80GB HBM3", "")


DPKG = (
    "ii \tnvidia-driver-cuda\t580.159.03-1\tamd64\tNVIDIA <cudatools@nvidia.com>\nhi \tdkms\t3.2.2-1\tall\tDebian\n"
    "rc \tnvidia-old\t1\tamd64\tx\nii \tbash\t5\tamd64\tx\nnonsense\n"
)


def test_packages():
    found = gpu_driver.parse_packages(DPKG)
    assert set(found) == {"nvidia-driver-cuda", "dkms", "bash"} and found["dkms"].held
    assert gpu_driver.listed(found) == {"nvidia-driver-cuda": "580.159.03-1", "dkms": "3.2.2-1"}
    rpm = "ii \tkernel-devel\t0:5.14.0-100.el9\tx86_64\tRocky\n"
    rpm += "ii \tkernel-devel\t0:5.14.0-570.el9\tx86_64\tRocky\nii \tnvidia-open\t3:610.57.04-1.el9\tnoarch\t(none) (none)\n"
    found = gpu_driver.parse_packages(rpm)
    assert (found["kernel-devel"].version, found["nvidia-open"].version, found["nvidia-open"].maker) == ("5.14.0-570.el9", "3:610.57.04-1.el9", "")


def test_dpkg_status_reads_as_dpkg_query_prints():
    text = "Package: a\nStatus: install ok installed\nMaintainer: M <m@x>\nArchitecture: amd64\nVersion: 1:2-3\nDescription: x\n y\n\n"
    text += "Package: b\nStatus: deinstall ok config-files\nVersion: 1\n"
    assert gpu_driver.parse_dpkg_status(text) == "ii \ta\t1:2-3\tamd64\tM <m@x>"
    assert gpu_driver.parse_dpkg_status(text.replace("install ok", "hold ok", 1)).startswith("hi ")


def test_packages_that_dpkg_left_between_two_states():
    text = "".join(
        f"Package: nvidia-{word}\nStatus: install ok {word}\nVersion: 1\n\n"
        for word in ("installed", "unpacked", "half-configured", "half-installed", "triggers-awaited", "triggers-pending", "config-files", "not-installed")
    )
    text += "Package: vim\nStatus: install ok unpacked\nVersion: 1\n"
    packages = gpu_driver.parse_dpkg_status(text)
    found = {f"nvidia-{word}": word for word in ("half-configured", "half-installed", "triggers-awaited", "triggers-pending", "unpacked")}
    assert gpu_driver.parse_unfinished(packages) == {**found, "vim": "unpacked"}
    assert gpu_driver.unfinished(Raw(packages=packages, package_manager="dpkg")) == found
    # rpm has no such states
    assert gpu_driver.unfinished(Raw(packages=packages, package_manager="rpm")) == {}
    # What is half there is not counted as there
    assert set(gpu_driver.parse_packages(packages)) == {"nvidia-installed"}


@pytest.mark.parametrize(
    ("version", "floor", "below"),
    [
        ("580.159.03", "580.159.03", False),
        ("580.159.3", "580.159.03", False),
        ("580.126.09", "580.159.03", True),
        ("580.1000.01", "580.159.03", False),
        ("535.309.01", "535.309.01", False),
        ("470.256.02", "535.309.01", True),
        ("550.163.01", "580.159.03", True),
        ("570.211.01", "580.159.03", True),
        ("590.48.01", "595.71.05", True),
        ("595.91.07", "595.71.05", False),
        ("620.10.01", "", False),
        ("", "", None),
        ("nonsense", "", None),
    ],
)
def test_floor(version, floor, below):
    assert gpu_driver.floor_of(version) == (floor, below)


KERNEL = Kernel("6.1.0", True, True, ("/m/nvidia.ko",))
MODINFO = Output(0, "filename:       /m/nvidia.ko\nlicense:        Dual MIT/GPL\nversion:        580.159.03\nparm: version: x\n")
LIBRARY = ["libnvidia-ml.so.1", "libnvidia-ml.so.580.159.03", "libnvidia-ml.so.580.159.03.bak"]


def driver_of(devices=("nvidia",), **fields):
    pci = [record("2330", address=f"0000:{index + 16:02x}:00.0", driver=name) for index, name in enumerate(devices)]
    raw = Raw(kernel="6.1.0", pci=pci, **fields)
    return gpu_driver.observe(raw, gpu.observe(raw, {}), gpu_driver.parse_packages(raw.packages), (), gpu_smi.SmiReport())


LOADED = OPEN.replace("595.91.07", "580.159.03")


@pytest.mark.parametrize(
    ("devices", "fields", "state"),
    [
        (("",), {}, "absent"),
        ((), {}, "absent"),
        (("nouveau",), {}, "nouveau"),
        (("nouveau",), {"libraries": LIBRARY}, "nouveau"),
        (("vfio-pci", "vfio-pci"), {}, "vfio"),
        (("vfio-pci", "nvidia"), {"proc_version": LOADED}, "loaded"),
        (("vfio-pci", ""), {}, "absent"),
        (("",), {"libraries": LIBRARY}, "installed_not_loaded"),
        (("",), {"packages": DPKG}, "installed_not_loaded"),
        (("",), {"kernels": [KERNEL], "modinfo": MODINFO}, "installed_not_loaded"),
        (("nvidia",), {"proc_version": LOADED, "libraries": LIBRARY, "kernels": [KERNEL], "modinfo": MODINFO}, "loaded"),
        (("nvidia",), {"proc_version": OPEN, "libraries": LIBRARY}, "mismatch"),
        (("nvidia",), {"proc_version": OPEN, "kernels": [KERNEL], "modinfo": MODINFO}, "mismatch"),
        (("nvidia",), {"proc_version": OPEN, "kernels": [replace(KERNEL, release="6.2.0")], "modinfo": MODINFO}, "loaded"),
        (("nvidia",), {"proc_version": OPEN, "smi_csv": Output(18, "Failed to initialize NVML: Driver/library version mismatch\n")}, "mismatch"),
        ((), {"dxg": True}, "wsl"),
        (("nvidia",), {"proc_version": OPEN}, "loaded"),
    ],
)
def test_driver_state(devices, fields, state):
    assert driver_of(devices, **fields).state == state


@pytest.mark.parametrize(
    ("fields", "flavour"),
    [
        ({"proc_version": OPEN}, "open"),
        ({"proc_version": CLOSED}, "proprietary"),
        ({"kernels": [KERNEL], "modinfo": MODINFO}, "open"),
        ({"kernels": [KERNEL], "modinfo": Output(0, MODINFO.text.replace("Dual MIT/GPL", "NVIDIA"))}, "proprietary"),
        ({"packages": "ii \tnvidia-dkms-580-server-open\t580.95.05-0ubuntu0.24.04.2\tamd64\tUbuntu\n"}, "open"),
        ({"packages": "ii \tkmod-nvidia-open-dkms\t3:580.159.03-1.el9\tnoarch\tNVIDIA\n"}, "open"),
        ({"packages": "ii \tnvidia-kernel-dkms\t550.163.01-2\tamd64\tDebian\n"}, "proprietary"),
        ({}, ""),
    ],
)
def test_driver_flavour(fields, flavour):
    assert driver_of(("",), **fields).flavour == flavour


@pytest.mark.parametrize(
    ("name", "version", "maker", "source"),
    [
        ("nvidia-driver-cuda", "580.159.03-1", "NVIDIA <cudatools@nvidia.com>", "nvidia_repository"),
        ("libnvidia-compute-580", "580.126.09-1ubuntu1", "cudatools <cudatools@nvidia.com>", "nvidia_repository"),
        ("nvidia-utils-580-server", "580.95.05-0ubuntu0.24.04.2", "Ubuntu Core Developers <ubuntu-devel-discuss@lists.ubuntu.com>", "distribution"),
        ("nvidia-smi", "535.247.01-1~deb12u1", "Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>", "distribution"),
        ("nvidia-driver-cuda", "3:610.57.04-1.el9", "NVIDIA Corporation NVIDIA", "nvidia_repository"),
        ("nvidia-driver", "3:580.159.03-1.el10", "AlmaLinux AlmaLinux Packaging Team", "distribution"),
        ("xorg-x11-drv-nvidia-cuda", "3:580.119.02-1.fc43", "RPM Fusion", "other"),
    ],
)
def test_driver_source(name, version, maker, source):
    found = driver_of(("",), packages=f"ii \t{name}\t{version}\tamd64\t{maker}\n")
    assert found.source == source and found.installed_version and found.branch in (535, 580, 610)


def test_driver_source_without_a_package():
    assert driver_of(proc_version=OPEN, runfile=True).source == "runfile"
    assert driver_of(proc_version=OPEN).source == "other"
    assert driver_of(("",), packages="ii \tnvidia-driver-cuda\t3:580.159.03-1\tx\t(none)\n", repositories=["cuda-rhel9.repo"]).source == "nvidia_repository"


def test_modinfo_of_several_files():
    text = "filename:       /a/nvidia.ko\nversion:        1.2\nlicense:        NVIDIA\n"
    text += "filename:       /b/nvidia.ko\nversion:        3.4\nsigner:         DKMS module signing key\n"
    found = gpu_driver.parse_modinfo(text)
    assert (found["/a/nvidia.ko"].version, found["/b/nvidia.ko"].version, found["/b/nvidia.ko"].signer) == ("1.2", "3.4", "DKMS module signing key")


def test_kernels_are_in_order():
    kernels = [Kernel("6.10.0"), Kernel("6.9.0", modules=("/x",)), Kernel("6.1.0", True, True, ("/m/nvidia.ko",))]
    found = gpu_driver.kernels(Raw(kernels=kernels, modinfo=MODINFO))
    assert [(kernel["release"], kernel["nvidia_module"]) for kernel in found] == [("6.1.0", "580.159.03"), ("6.9.0", "unknown"), ("6.10.0", "")]


def engine_of(answer, packages="", **fields):
    (found,) = gpu_host.engines(Raw(engines=[answer], **fields), gpu_driver.parse_packages(packages))
    return found["version"], found["cdi"], found["gpus_flag"], found["cdi_spec_max"]


DIRS = {"CDISpecDirs": ["/etc/cdi", "/var/run/cdi"]}


@pytest.mark.parametrize(
    ("answer", "fields", "expected"),
    [
        (EngineAnswer("docker", True, "20.10.24"), {}, ("20.10.24", False, False, "")),
        (EngineAnswer("docker", True, "20.10.24"), {"nvidia_hook": True}, ("20.10.24", False, True, "")),
        (EngineAnswer("docker", True, "25.0.3", {"CDISpecDirs": []}), {}, ("25.0.3", False, False, "0.6.0")),
        (EngineAnswer("docker", True, "26.1.5+dfsg1", DIRS), {}, ("26.1.5+dfsg1", True, False, "0.7.0")),
        (EngineAnswer("docker", True, "28.2.2", DIRS), {"nvidia_cdi_hook": True}, ("28.2.2", True, False, "0.7.0")),
        (EngineAnswer("docker", True, "29.2.0", DIRS), {"nvidia_cdi_hook": True}, ("29.2.0", True, True, "0.7.0")),
        (EngineAnswer("docker", True, "29.2.0", {"CDISpecDirs": None}), {"nvidia_cdi_hook": True}, ("29.2.0", False, False, "0.7.0")),
        (EngineAnswer("podman", True, "3.4.4"), {}, ("3.4.4", False, False, "")),
        (EngineAnswer("podman", True, "4.3.1"), {}, ("4.3.1", True, False, "0.5.0")),
        (EngineAnswer("podman", True, "5.4.2"), {}, ("5.4.2", True, True, "0.7.0")),
        (EngineAnswer("containerd", True, "1.6.20~ds1"), {}, ("1.6.20~ds1", False, False, "")),
        (EngineAnswer("containerd", True, "1.7.27"), {}, ("1.7.27", False, False, "0.7.0")),
        (EngineAnswer("containerd", True, "1.7.27", config="  enable_cdi = true\n"), {}, ("1.7.27", True, False, "0.7.0")),
        (EngineAnswer("containerd", True, "2.1.4"), {}, ("2.1.4", True, False, "0.7.0")),
        (EngineAnswer("containerd", True, "2.1.4", config="enable_cdi = false"), {}, ("2.1.4", False, False, "0.7.0")),
    ],
)
def test_engines(answer, fields, expected):
    assert engine_of(answer, **fields) == expected


def test_an_engine_that_does_not_answer_has_its_packages_version():
    assert engine_of(EngineAnswer("docker", True), "ii \tdocker-ce\t5:29.3.0-1~debian.13~trixie\tamd64\tDocker\n")[:2] == ("5:29.3.0-1~debian.13~trixie", True)
    assert gpu_host.engines(Raw(engines=[EngineAnswer("docker", False)]), {}) == []


@pytest.mark.parametrize(
    ("packages", "ctk", "version", "below"),
    [
        ("", Output(), "", False),
        ("ii \tnvidia-container-toolkit\t1.19.0-1\tamd64\tNVIDIA\n", Output(), "1.19.0", True),
        ("ii \tnvidia-container-toolkit-base\t1.19.1-1\tamd64\tNVIDIA\n", Output(), "1.19.1", False),
        ("ii \tnvidia-container-toolkit\t1.20.0-1\tamd64\tNVIDIA\n", Output(), "1.20.0", False),
        ("", Output(0, "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n"), "1.17.8", True),
        ("", Output(0, "nonsense"), "", False),
    ],
)
def test_toolkit(packages, ctk, version, below):
    found = gpu_host.toolkit(Raw(ctk_version=ctk), gpu_driver.parse_packages(packages))
    assert (found["version"], found["below_floor"], found["floor"]) == (version, below, data_nvidia.TOOLKIT_FLOOR)


@pytest.mark.parametrize(
    ("variable", "firmware", "expected"),
    [
        (b"\x06\0\0\0\x01", ["efi"], True),
        (b"\x06\0\0\0\0", ["efi"], False),
        (b"\x06", ["efi"], None),
        (None, ["efi"], None),
        (None, ["acpi", "dmi"], False),
        (None, [], None),
    ],
)
def test_secure_boot(variable, firmware, expected):
    assert gpu_host.secure_boot(Raw(secure_boot=variable, firmware=firmware)) is expected


@pytest.mark.parametrize(
    ("periodic", "packages", "dnf", "expected"),
    [
        ('APT::Periodic::Unattended-Upgrade "1";\n', DPKG, False, False),
        ('APT::Periodic::Unattended-Upgrade "1";\n', "ii \tunattended-upgrades\t2.9\tall\tx\n", False, True),
        ('APT::Periodic::Unattended-Upgrade "1";\nAPT::Periodic::Unattended-Upgrade "0";\n', "ii \tunattended-upgrades\t2.9\tall\tx\n", False, False),
        ('// APT::Periodic::Unattended-Upgrade "1";\n', "ii \tunattended-upgrades\t2.9\tall\tx\n", False, False),
        ("", "", True, True),
        ("", "", False, False),
    ],
)
def test_unattended_upgrades(periodic, packages, dnf, expected):
    assert gpu_host.unattended_upgrades(Raw(apt_configuration=periodic, dnf_automatic=dnf), gpu_driver.parse_packages(packages)) is expected


@pytest.mark.parametrize(("enforce", "config", "expected"), [("1", True, "enforcing"), ("0\n", True, "permissive"), ("", True, "disabled"), ("", False, "")])
def test_selinux(enforce, config, expected):
    assert gpu_host.selinux(Raw(selinux_enforce=enforce, selinux_config=config)) == expected


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\n", "0.5.0"),
        ('cdiVersion: "0.7.0"\n', "0.7.0"),
        ('{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu"}', "0.6.0"),
        ("devices:\n  - cdiVersion: 9\n", ""),
        ("{", ""),
        ("[]", ""),
        ("", ""),
    ],
)
def test_cdi_version(text, version):
    assert cdi.spec_version(text) == version


NOISE = st.one_of(st.text(max_size=400), st.binary(max_size=400).map(lambda data: data.decode("utf-8", "replace")))
# Words that lead parsers further in than noise does
WORDS = st.lists(
    st.sampled_from(
        [
            "0, ",
            UUID,
            ", ",
            "00000000:3B:00.0",
            "<nvidia_smi_log>",
            "</nvidia_smi_log>",
            "<gpu id='0000:3b:00.0'>",
            "</gpu>",
            "&x;",
            "<!DOCTYPE a [",
            "]>",
            "\n",
            "\t",
        ]
        + [
            "filename: ",
            "version: ",
            "ii \tnvidia-smi\t",
            "Package: a\n",
            "Status: hold ok installed\n",
            "{",
            "[",
            '"SPDisplaysDataType"',
            ":",
            "NVRM: Xid (PCI:0000:3b:00): ",
            "79",
        ]
        + [
            "cdiVersion: ",
            "kind: nvidia.com/gpu\n",
            "devices:\n",
            "- name: ",
            "gfx_target_version 90402\n",
            "vendor_id 4098\n",
            "MemTotal: ",
            " kB",
            "10de",
            "ID='",
            "9" * 400,
            "\0",
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(NOISE, WORDS), more=st.one_of(NOISE, WORDS))
def test_nothing_but_an_error_of_ours_comes_out_of_noise(text, more):
    for parse in (gpu_smi.parse_csv, gpu_smi.parse_xml):
        try:
            parse(text)
        except AikitError:
            pass
    raw = Raw(
        system="Linux",
        kernel=more,
        os_release=text,
        pci=[
            record("2330"),
            {"address": text, "vendor": more, "device": text, "class": more},
            record("74a1", "1002", "120000", mem_info_vram_total=text, mem_info_gtt_total=more),
        ],
        pci_ids=text,
        kfd=[text, more],
        meminfo=text,
        proc_version=text,
        proc_gpus={more: text},
        vpd=[text],
        smi_csv=Output(0, text),
        smi_xml=Output(0, more),
        smi_list=Output(0, text),
        libraries=[text, more],
        kernels=[Kernel(more, modules=(text,))],
        modinfo=Output(0, text),
        packages=more,
        ctk_version=Output(0, text),
        cdi={"/etc/cdi/a.yaml": text, "/var/run/cdi/b.json": "{" + more},
        engines=[
            EngineAnswer("docker", True, text, {"CDISpecDirs": more}),
            EngineAnswer("podman", True, more),
            EngineAnswer("containerd", True, text, config=more),
        ],
        secure_boot=text.encode()[:8],
        apt_configuration=text,
        selinux_enforce=more,
        kernel_log=text,
    )
    result = gpu_report.report(raw, [{"uuid": text, "pci_bus_id": more}, {}])
    json.dumps(result)
    assert all(one["memory_total_mib"] != 0 for one in result["gpus"])
    gpu_report.report(replace(raw, system="Darwin", system_profiler=Output(0, text), memsize=Output(0, more)))
    gpu_driver.parse_dpkg_status(text)
