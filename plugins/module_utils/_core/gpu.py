# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which GPUs a host has: from its PCI devices, with what the driver and its tools say beside it.

The PCI devices come first, for they are there without a driver; what is not known is None or empty, and memory is never 0.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Optional, Sequence

from . import data_gpu as data
from .gpu_raw import Raw
from .gpu_smi import MigDevice, SmiGpu, bus_id

_HEX = re.compile(r"(?:0x)?([0-9a-f]{1,8})\s*", re.I)
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``values`` holds what else its PCI device says; ``smi`` what nvidia-smi says."""

    vendor: str
    pci_bus_id: str = ""
    pci_id: str = ""
    index: Optional[int] = None
    name: str = ""
    uuid: str = ""
    driver_in_use: str = ""
    memory_total_mib: Optional[int] = None
    memory_free_mib: Optional[int] = None
    compute_capability: str = ""
    architecture: str = ""
    unified_memory: bool = False
    gfx: str = ""
    mig: Optional[Mapping[str, Any]] = None
    values: Mapping[str, str] = field(default_factory=dict)
    smi: Optional[SmiGpu] = None

    @property
    def device(self) -> Optional[int]:
        return hexadecimal(self.pci_id.partition(":")[2])

    def as_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "vendor": self.vendor,
            "name": self.name,
            "uuid": self.uuid,
            "pci_bus_id": self.pci_bus_id,
            "pci_id": self.pci_id,
            "driver_in_use": self.driver_in_use,
            "memory_total_mib": self.memory_total_mib,
            "memory_free_mib": self.memory_free_mib,
            "compute_capability": self.compute_capability,
            "architecture": self.architecture,
            "mig": None if self.mig is None else dict(self.mig),
            "virtualization": self.smi.virtualisation.lower() if self.smi else "",
            "unified_memory": self.unified_memory,
            "gfx": self.gfx,
            "open_modules": self.open_modules,
        }

    @property
    def open_modules(self) -> Optional[str]:
        """Whether NVIDIA's open kernel modules drive it: ``no``, ``yes``, or ``only`` where the proprietary ones do not. None for other makers."""
        if self.vendor != "nvidia" or self.device is None:
            return None
        if self.device < data.FIRST_OPEN_DEVICE:
            return "no"
        only = self.architecture in data.OPEN_ONLY_ARCHITECTURES or self.device in data.OPEN_ONLY_DEVICES or not self.architecture
        return "only" if only else "yes"


def hexadecimal(text: str) -> Optional[int]:
    """12 of ``0xc`` or ``c``; None for what is no such number."""
    found = _HEX.fullmatch(text.strip())
    return int(found.group(1), 16) if found else None


def decimal(text: Optional[str]) -> Optional[int]:
    stripped = (text or "").strip()
    return int(stripped) if re.fullmatch(r"[0-9]{1,20}", stripped) else None


def is_gpu(record: Mapping[str, str]) -> bool:
    vendor, kind = _vendor(record), _class(record)
    if data.VENDORS.get(vendor) == "amd" and kind.startswith(data.ACCELERATOR_CLASS):
        return True
    return vendor in data.VENDORS and kind.startswith(data.DISPLAY_CLASS)


def is_nvswitch(record: Mapping[str, str]) -> bool:
    return data.VENDORS.get(_vendor(record)) == "nvidia" and _class(record).startswith(data.BRIDGE_CLASS)


def may_have_nvlink5(record: Mapping[str, str]) -> bool:
    """Blackwell's GPUs for data centres: their NVSwitches are no PCI devices, a network card that manages them tells of them."""
    device = hexadecimal(record.get("device", ""))
    ranged = data.nvidia_range(device) if device is not None and data.VENDORS.get(_vendor(record)) == "nvidia" and is_gpu(record) else None
    return ranged is not None and ranged[0] == "blackwell" and ranged[1].startswith("10.")


def _vendor(record: Mapping[str, str]) -> str:
    value = hexadecimal(record.get("vendor", ""))
    return "" if value is None else f"{value:04x}"


def _class(record: Mapping[str, str]) -> str:
    value = hexadecimal(record.get("class", ""))
    return "" if value is None else f"{value:06x}"


def from_pci(records: Sequence[Mapping[str, str]]) -> tuple[Gpu, ...]:
    """The GPUs among the PCI devices, in the order of their addresses."""
    found = []
    for record in records:
        address, device = bus_id(record.get("address", "")), hexadecimal(record.get("device", ""))
        if not address or device is None or not is_gpu(record):
            continue
        vendor = _vendor(record)
        gpu = Gpu(
            vendor=data.VENDORS[vendor],
            pci_bus_id=address,
            pci_id=f"{vendor}:{device:04x}",
            driver_in_use=record.get("driver", ""),
            values=record,
        )
        ranged = data.nvidia_range(device) if gpu.vendor == "nvidia" else None
        if ranged:
            gpu = replace(gpu, architecture=ranged[0], compute_capability=ranged[1])
        found.append(gpu)
    return tuple(sorted(found, key=lambda gpu: tuple(int(part, 16) for part in re.split("[:.]", gpu.pci_bus_id))))


def proc_information(text: str) -> dict[str, str]:
    """The settings of /proc/driver/nvidia/gpus/ADDRESS/information."""
    found = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            found[key.strip()] = value.strip()
    return found


def pci_names(text: str, ids: Sequence[str]) -> dict[str, str]:
    """Names out of the PCI id database (pci.ids): ``10de:2330`` → ``GH100 [H100 SXM5 80GB]``."""
    wanted = set(ids)
    vendors = {name.partition(":")[0] for name in wanted}
    found: dict[str, str] = {}
    vendor = ""
    for line in text.splitlines() if wanted else ():
        if line[:1] in ("", "#"):
            continue
        if line[0] != "\t":
            vendor = line[:4].lower()
        elif vendor in vendors and line[1:2] != "\t":
            name = f"{vendor}:{line[1:5].lower()}"
            if name in wanted:
                found[name] = line[5:].strip()
    return found


def merge_smi(by_csv: Sequence[SmiGpu], by_xml: Sequence[SmiGpu], listed: Mapping[str, Sequence[tuple[int, str, str]]]) -> dict[str, SmiGpu]:
    """What nvidia-smi says in its three ways, by address."""
    found = {gpu.pci_bus_id: gpu for gpu in by_xml}
    for gpu in by_csv:
        more = found.get(gpu.pci_bus_id)
        found[gpu.pci_bus_id] = (
            gpu
            if more is None
            else replace(
                more,
                index=gpu.index if gpu.index is not None else more.index,
                uuid=gpu.uuid or more.uuid,
                name=gpu.name or more.name,
                driver_version=gpu.driver_version,
                memory_total_mib=gpu.memory_total_mib or more.memory_total_mib,
                memory_free_mib=gpu.memory_free_mib if gpu.memory_total_mib else more.memory_free_mib,
                compute_capability=gpu.compute_capability,
                mig_current=gpu.mig_current or more.mig_current,
            )
        )
    return {address: replace(gpu, mig_devices=_named(gpu.mig_devices, listed.get(gpu.uuid, ()))) for address, gpu in found.items()}


def _named(devices: Sequence[MigDevice], listed: Sequence[tuple[int, str, str]]) -> tuple[MigDevice, ...]:
    by_index = {device.index: device for device in devices}
    for index, profile, uuid in listed:
        by_index[index] = replace(by_index.get(index, MigDevice(index)), profile=profile, uuid=uuid)
    return tuple(by_index[index] for index in sorted(by_index))


def observe(raw: Raw, smi: Mapping[str, SmiGpu]) -> tuple[Gpu, ...]:
    """All GPUs of a host."""
    if raw.system == "Darwin":
        return apple(raw.system_profiler.text, raw.memsize.text)
    pci = list(from_pci(raw.pci))
    known = {gpu.pci_bus_id for gpu in pci}
    # WSL2 shows no PCI devices of the GPU, and a container may see less than the driver
    pci += [Gpu("nvidia", pci_bus_id=address) for address in sorted(smi) if address not in known]
    names = pci_names(raw.pci_ids, [gpu.pci_id for gpu in pci if gpu.pci_id])
    kfd = kfd_targets(raw.kfd)
    found = []
    for gpu in pci:
        if gpu.vendor == "nvidia":
            gpu = _nvidia(gpu, smi.get(gpu.pci_bus_id), _information(raw, gpu.pci_bus_id), raw.meminfo)
        elif gpu.vendor == "amd":
            gpu = _amd(gpu, kfd)
        else:
            gpu = replace(gpu, unified_memory=gpu.pci_bus_id.startswith("0000:00:"))
        found.append(replace(gpu, name=gpu.name or names.get(gpu.pci_id, "") or data.NAMES.get(gpu.pci_id, "")))
    return _numbered(found, bool(smi))


def _information(raw: Raw, address: str) -> Mapping[str, str]:
    for name, text in raw.proc_gpus.items():
        if bus_id(name) == address:
            return proc_information(text)
    return {}


def _numbered(gpus: Sequence[Gpu], smi: bool) -> tuple[Gpu, ...]:
    """Indexes as the makers' tools count: each maker's from 0, by address. A GPU that nvidia-smi leaves out has none."""
    counts: dict[str, int] = {}
    found = []
    for gpu in gpus:
        if gpu.index is None and not (smi and gpu.vendor == "nvidia"):
            gpu = replace(gpu, index=counts.get(gpu.vendor, 0))
        counts[gpu.vendor] = counts.get(gpu.vendor, 0) + 1
        found.append(gpu)
    return tuple(found)


def _nvidia(gpu: Gpu, smi: Optional[SmiGpu], information: Mapping[str, str], meminfo: str) -> Gpu:
    model = information.get("Model", "")
    uuid = information.get("GPU UUID", "")
    gpu = replace(gpu, name="" if "Unknown" in model else model, uuid=uuid if uuid.startswith("GPU-") and "?" not in uuid else "")
    if smi is None:
        return replace(gpu, unified_memory=gpu.device in data.UNIFIED_DEVICES)
    unified = smi.memory_total_mib is None and (gpu.device in data.UNIFIED_DEVICES or any(word in smi.name for word in data.UNIFIED_WORDS))
    total, free = smi.memory_total_mib, smi.memory_free_mib
    if unified:
        total, free = memory(meminfo)
    return replace(
        gpu,
        index=smi.index,
        name=smi.name or gpu.name,
        uuid=smi.uuid or gpu.uuid,
        memory_total_mib=total,
        memory_free_mib=free,
        compute_capability=smi.compute_capability or gpu.compute_capability,
        architecture=data.ARCHITECTURES.get(smi.architecture, gpu.architecture),
        unified_memory=unified,
        mig=_mig(smi),
        smi=smi,
    )


def _mig(smi: SmiGpu) -> Optional[dict[str, Any]]:
    if not smi.mig_current:
        return None
    return {
        "current": smi.mig_current,
        "pending": smi.mig_pending or smi.mig_current,
        "devices": [
            {
                "index": device.index,
                "profile": device.profile,
                "uuid": device.uuid,
                "gpu_instance_id": device.gpu_instance_id,
                "compute_instance_id": device.compute_instance_id,
                "memory_total_mib": device.memory_total_mib,
            }
            for device in smi.mig_devices
        ],
    }


def memory(meminfo: str) -> tuple[Optional[int], Optional[int]]:
    """Total and available memory of the system."""
    found = {key: int(value) // 1024 or None for key, value in re.findall(r"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB\s*$", meminfo, re.M)}
    return found.get("MemTotal"), found.get("MemAvailable")


def kfd_targets(nodes: Sequence[str]) -> dict[str, str]:
    """``gfx942`` and kin by address, out of /sys/class/kfd/kfd/topology/nodes/*/properties."""
    found = {}
    for text in nodes:
        values = dict(re.findall(r"^(\w+) (\d{1,20})\s*$", text, re.M))
        version, place = int(values.get("gfx_target_version", 0)), int(values.get("location_id", 0))
        if values.get("vendor_id") != "4098" or not version:
            continue
        # Two digits each, the last two as one hexadecimal digit: 90402 is gfx942, 90010 gfx90a, 110000 gfx1100
        target = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
        address = f"{int(values.get('domain', 0)):04x}:{place >> 8 & 255:02x}:{place >> 3 & 31:02x}.{place & 7}"
        found[address] = target
    return found


def _amd(gpu: Gpu, kfd: Mapping[str, str]) -> Gpu:
    vram, vram_used, gtt, gtt_used = (
        None if value is None else value // _MIB
        for value in (decimal(gpu.values.get(f"mem_info_{key}")) for key in ("vram_total", "vram_used", "gtt_total", "gtt_used"))
    )
    unified = bool(vram is not None and gtt is not None and vram <= data.APU_VRAM_MOST_MIB and gtt >= max(data.APU_GTT_LEAST_MIB, data.APU_GTT_TIMES * vram))
    total, used = vram, vram_used
    if unified and vram is not None and gtt is not None:
        total = vram + gtt
        used = None if vram_used is None or gtt_used is None else vram_used + gtt_used
    return replace(
        gpu,
        name=gpu.values.get("product_name", ""),
        uuid=f"GPU-{gpu.values['unique_id']}" if gpu.values.get("unique_id") else "",
        memory_total_mib=total or None,
        memory_free_mib=max(0, total - used) if total and used is not None else None,
        unified_memory=unified,
        gfx=kfd.get(gpu.pci_bus_id, ""),
    )


def apple(profile: str, memsize: str) -> tuple[Gpu, ...]:
    """The GPUs of a Mac: ``system_profiler SPDisplaysDataType -json`` and ``sysctl -n hw.memsize``."""
    try:
        document: Any = json.loads(profile)
    except (ValueError, RecursionError):
        return ()
    listed = document.get("SPDisplaysDataType") if isinstance(document, Mapping) else None
    found = []
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, Mapping):
            continue
        maker = str(entry.get("spdisplays_vendor", ""))
        vendor = next((vendor for vendor in ("apple", "amd", "nvidia", "intel") if vendor in maker.lower()), "")
        if not vendor:
            continue
        size = decimal(memsize)
        total = size // _MIB or None if size and vendor == "apple" else _vram(str(entry.get("spdisplays_vram", "")))
        name = str(entry.get("sppci_model") or entry.get("_name") or "")
        found.append(Gpu(vendor, name=name, memory_total_mib=total, unified_memory=vendor == "apple" or "spdisplays_vram_shared" in entry))
    return _numbered(found, False)


def _vram(text: str) -> Optional[int]:
    match = re.fullmatch(r"(\d{1,6}) (MB|GB)", text.strip())
    return (int(match.group(1)) * (1024 if match.group(2) == "GB" else 1) or None) if match else None
