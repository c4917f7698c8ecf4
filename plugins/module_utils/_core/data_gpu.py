# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What GPUs are behind PCI ids, and what their errors mean; read in November 2026.

Sources: the table of supported GPUs in NVIDIA's open-gpu-kernel-modules (README, 595.45.04) and the PCI id database for the ranges,
the names of NVIDIA's Xid catalog with what operators commonly do about them, LLVM's AMDGPU guide and the amdgpu driver for AMD's names.
"""

from __future__ import annotations

from typing import Mapping, Optional, Sequence

REVIEWED = "2026-11-22"

# The GPUs that a host had when a role last found all of them
REMEMBERED_PATH = "/var/lib/aikit-fleet/host/gpus.json"

VENDORS: Mapping[str, str] = {"10de": "nvidia", "1002": "amd", "8086": "intel"}

# Classes of a GPU: a display controller of any kind; AMD's accelerators without display outputs call themselves processing accelerators.
DISPLAY_CLASS = "03"
ACCELERATOR_CLASS = "12"
# NVSwitch up to its third generation is an "other bridge" of NVIDIA's.
BRIDGE_CLASS = "0680"

# The first device id of a GPU that NVIDIA's open kernel modules drive (Turing): every older GPU has a lower one.
FIRST_OPEN_DEVICE = 0x1E00

# First device id, last device id, architecture, compute capability where the whole range has one. GPUs older than Maxwell are not
# listed: no driver of today drives them.
NVIDIA_RANGES: Sequence[tuple[int, int, str, str]] = (
    (0x1340, 0x13BF, "maxwell", "5.0"),
    (0x13C0, 0x15EF, "maxwell", "5.2"),
    (0x15F0, 0x15FF, "pascal", "6.0"),
    (0x1600, 0x17FF, "maxwell", "5.2"),
    (0x1B00, 0x1D7F, "pascal", "6.1"),
    (0x1D80, 0x1DFF, "volta", "7.0"),
    (0x1E00, 0x1FFF, "turing", "7.5"),
    (0x2080, 0x20FF, "ampere", "8.0"),
    (0x2100, 0x21FF, "turing", "7.5"),
    (0x2200, 0x22FF, "ampere", "8.6"),
    (0x2300, 0x23FF, "hopper", "9.0"),
    (0x2400, 0x25FF, "ampere", "8.6"),
    (0x2600, 0x28FF, "ada", "8.9"),
    (0x2900, 0x29FF, "blackwell", "10.0"),
    (0x2B00, 0x2DFF, "blackwell", "12.0"),
    (0x2E00, 0x2EFF, "blackwell", "12.1"),
    (0x2F00, 0x2FFF, "blackwell", "12.0"),
    (0x3180, 0x31FF, "blackwell", "10.3"),
)

# Multiprocessors (AMD: compute units) of GPUs that have many, by words of their name; the first that is found counts. Source: the vendors'
# data sheets. What a driver keeps for a process grows with them: NVIDIA gives every thread that can be resident a stack of its own.
MULTIPROCESSORS: Mapping[str, int] = {
    **{"RTX PRO 6000": 188, "RTX PRO 5000": 110, "RTX 6000 Ada": 142, "RTX 5880 Ada": 110, "RTX 5000 Ada": 100, "RTX 5090": 170, "RTX 4090": 128},
    **{"A100": 108, "A800": 108, "H100": 132, "H200": 132, "H800": 132, "GH200": 132, "L20": 92},
    **{"B200": 148, "GB200": 148, "B300": 160, "GB300": 160, "L40": 142, "L40S": 142},
    **{"MI300A": 228, "MI300X": 304, "MI325X": 304, "MI250X": 110, "MI250": 104, "MI210": 104, "MI100": 120, "7900 XTX": 96, "W7900": 96},
}

# The chip of a notebook has the name of a larger one, and fewer of them than counts
FEW_MULTIPROCESSORS = "Laptop"

# What nvidia-smi calls an architecture -> how it is written here.
ARCHITECTURES: Mapping[str, str] = {
    "maxwell": "maxwell",
    "pascal": "pascal",
    "volta": "volta",
    "turing": "turing",
    "ampere": "ampere",
    "ada lovelace": "ada",
    "ada": "ada",
    "hopper": "hopper",
    "blackwell": "blackwell",
    "rubin": "rubin",
}

# Names where nothing on the host has one: a host without a driver and without a PCI id database. NVIDIA's are those of data centres.
NAMES: Mapping[str, str] = {
    "10de:15f7": "Tesla P100-PCIE-12GB",
    "10de:15f8": "Tesla P100-PCIE-16GB",
    "10de:1b38": "Tesla P40",
    "10de:1bb3": "Tesla P4",
    "10de:1db1": "Tesla V100-SXM2-16GB",
    "10de:1db4": "Tesla V100-PCIE-16GB",
    "10de:1db5": "Tesla V100-SXM2-32GB",
    "10de:1db6": "Tesla V100-PCIE-32GB",
    "10de:1eb8": "Tesla T4",
    "10de:20b0": "NVIDIA A100-SXM4-40GB",
    "10de:20b2": "NVIDIA A100-SXM4-80GB",
    "10de:20b5": "NVIDIA A100 80GB PCIe",
    "10de:20b7": "NVIDIA A30",
    "10de:20f1": "NVIDIA A100-PCIE-40GB",
    "10de:2230": "NVIDIA RTX A6000",
    "10de:2235": "NVIDIA A40",
    "10de:2236": "NVIDIA A10",
    "10de:2237": "NVIDIA A10G",
    "10de:2321": "NVIDIA H100 NVL",
    "10de:2330": "NVIDIA H100 80GB HBM3",
    "10de:2331": "NVIDIA H100 PCIe",
    "10de:2335": "NVIDIA H200",
    "10de:233b": "NVIDIA H200 NVL",
    "10de:2342": "NVIDIA GH200 480GB",
    "10de:2348": "NVIDIA GH200 144G HBM3e",
    "10de:25b6": "NVIDIA A2",
    "10de:26b5": "NVIDIA L40",
    "10de:26b9": "NVIDIA L40S",
    "10de:27b8": "NVIDIA L4",
    "10de:2901": "NVIDIA B200",
    "10de:2941": "NVIDIA GB200",
    "10de:2bb5": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "10de:2e12": "NVIDIA GB10",
    "10de:3182": "NVIDIA B300 SXM6 AC",
    "10de:31c2": "NVIDIA GB300",
    "1002:738c": "AMD Instinct MI100",
    "1002:7408": "AMD Instinct MI250X",
    "1002:740c": "AMD Instinct MI250X/MI250",
    "1002:740f": "AMD Instinct MI210",
    "1002:74a0": "AMD Instinct MI300A",
    "1002:74a1": "AMD Instinct MI300X",
    "1002:74a5": "AMD Instinct MI325X",
    "1002:75a0": "AMD Instinct MI350X",
    "1002:75a3": "AMD Instinct MI355X",
    "1002:744c": "AMD Radeon RX 7900 XTX",
    "1002:1586": "AMD Radeon 8060S Graphics",
}

# NVIDIA GPUs that have no memory of their own: nvidia-smi says [N/A], the system's memory is theirs. By device id, and by words of the name.
UNIFIED_DEVICES = frozenset({0x2E12, 0x2B00})
UNIFIED_WORDS = ("GB10", "Orin", "Thor")

# Grace Hopper, Blackwell and everything newer: NVIDIA's proprietary modules do not drive them.
OPEN_ONLY_ARCHITECTURES = frozenset({"blackwell", "rubin"})
OPEN_ONLY_DEVICES = frozenset({0x2342, 0x2345, 0x2348})

# The last driver branch for GPUs before Turing.
LAST_BRANCH_BEFORE_TURING = 580

# AMD's integrated GPUs take most of their memory from the system's: at most this much of their own, and the system's share several times that.
APU_VRAM_MOST_MIB = 4 * 1024
APU_GTT_LEAST_MIB = 8 * 1024
APU_GTT_TIMES = 4

# Xid -> (is the GPU itself in doubt, what it means, what to do). An Xid that is not listed is reported with the catalog's address.
# False: a program made it, and restarting that program is all it takes.
XIDS: Mapping[int, tuple[bool, str, str]] = {
    13: (False, "a program made the graphics engine fail", "Look at the program that ran; run a diagnostic when several programs do it."),
    31: (False, "a program touched memory that is not its own", "Look at the program that ran."),
    32: (True, "the commands to the GPU were damaged", "Restart the program; check the PCIe connection when it comes back."),
    38: (True, "the driver's firmware failed", "Restart the program, then update the driver."),
    43: (False, "a program was stopped after its own fault", "Look at the program that ran."),
    45: (False, "a program's work was cleaned up after another error, or it was killed", "Look for an error before it."),
    48: (True, "memory has an error that ECC cannot mend", "Drain the host and reset the GPU (nvidia-smi --gpu-reset) or reboot."),
    61: (True, "the GPU's microcontroller stopped on a breakpoint", "Reset the GPU or reboot."),
    62: (True, "the GPU's microcontroller halted", "Reset the GPU or reboot; have the card looked at when it comes back."),
    63: (True, "a row of memory was taken out of use, which takes effect with the next reset", "Drain the host and reset the GPU when it suits."),
    64: (True, "a row of memory is faulty and could not be taken out of use", "Drain the host and reset the GPU; replace the card when it comes back."),
    69: (False, "a program made the graphics engine fail", "Look at the program that ran."),
    74: (True, "an NVLink connection failed", "Drain the host, reset all GPUs or reboot; check the fabric when it comes back."),
    79: (True, "the GPU has fallen off the bus", "Power the host off and on; check seat, power and heat of the card when it comes back."),
    92: (True, "memory has many errors that ECC mends", "Run a diagnostic; plan to replace the card."),
    94: (False, "memory had an error that ECC cannot mend; only the program that met it was stopped", "Restart the program; reset the GPU when it suits."),
    95: (True, "memory had an error that ECC cannot mend and that may have spread", "Drain the host and reset the GPU or reboot."),
    109: (True, "the GPU does not switch between programs", "Reset the GPU or reboot."),
    110: (True, "the GPU refused an action for security's sake", "Reboot; have the card looked at when it comes back."),
    119: (True, "the GPU's system processor (GSP) does not answer", "Reset the GPU or reboot; update the driver when it comes back."),
    120: (True, "the GPU's system processor (GSP) failed", "Reset the GPU or reboot; update the driver when it comes back."),
    121: (True, "the connection between processor and GPU (C2C) had errors", "Reset the GPU when it suits."),
    136: (True, "an NVLink connection could not be trained", "Reset all GPUs or reboot; check the fabric when it comes back."),
    137: (False, "a program used NVLink wrongly, or its partner failed", "Look at the program that ran, and for an error of another GPU."),
    140: (True, "memory had an error that ECC cannot mend", "Drain the host and reset the GPU or reboot."),
    143: (True, "the GPU did not start", "Reset the GPU or reboot; have the card looked at when it comes back."),
    144: (True, "an NVLink connection failed (SAW)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    145: (True, "an NVLink connection failed (RLW)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    146: (True, "an NVLink connection failed (TLW)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    147: (True, "an NVLink connection failed (TREX)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    148: (True, "an NVLink connection failed (NVLPW_CTRL)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    149: (True, "an NVLink connection failed (NETIR)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    150: (True, "an NVLink connection failed (MSE)", "Reset all GPUs or reboot; check the fabric when it comes back."),
    154: (True, "the driver says what the GPU needs to recover", "Do what nvidia-smi -q calls GPU Recovery Action."),
    155: (True, "an NVLink connection failed", "Reset all GPUs or reboot; check the fabric when it comes back."),
    156: (True, "a part of the GPU was taken out of use, which takes effect with the next reset", "Drain the host and reset the GPU when it suits."),
    157: (True, "a part of the GPU is faulty and could not be taken out of use", "Drain the host and reset the GPU; replace the card when it comes back."),
    158: (True, "the GPU does not answer in time", "Reset the GPU or reboot."),
}
XID_CATALOG = "https://docs.nvidia.com/deploy/xid-errors/"

# What the driver wants (nvidia-smi -q: GPU Recovery Action) -> what to do. "None" and "N/A" want nothing.
RECOVERY_ACTIONS: Mapping[str, str] = {
    "reset": "Drain the host and reset the GPU: nvidia-smi --gpu-reset -i INDEX.",
    "reboot": "Drain the host and reboot it.",
    "drain p2p": "Stop programs that use several GPUs, then reset the GPU.",
    "drain and reset": "Let what runs end, then reset the GPU: nvidia-smi --gpu-reset -i INDEX.",
}


def nvidia_range(device: int) -> Optional[tuple[str, str]]:
    """Architecture and compute capability of an NVIDIA device id; None where no range has it."""
    for first, last, architecture, capability in NVIDIA_RANGES:
        if first <= device <= last:
            return architecture, capability
    return None
