# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nvidia-smi says: ``--query-gpu`` as CSV, ``-q -x`` as XML, ``-L`` as text.

The XML comes from a program on another host and is treated as a stranger's: no document type of its own, no entities, bounded in size and depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from .errors import AikitError
from .gpu_raw import SMI_FIELDS

# nvidia-smi answers in full and ends with 14 when a card's own information is damaged
DAMAGED = 14
GOOD = (0, DAMAGED)
MOST_CHARACTERS = 16 * 1024 * 1024
MOST_DEPTH = 32

# What nvidia-smi writes where it knows nothing, in all versions
_UNKNOWN = re.compile(r"\[?(?:n/a|not supported|not available|unknown error|unknown|requested functionality has been deprecated|gpu is lost|gpu requires reset|insufficient permissions)\]?|err!|", re.I)
_BUS_ID = re.compile(r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<bus>[0-9a-f]{2}):(?P<device>[0-9a-f]{2})(?:\.(?P<function>[0-7]))?", re.I)
_NUMBER = re.compile(r"(\d{1,15})(?:\.\d+)?(?: ?(?:MiB|x|W|C|%))?", re.I)
_END = "</nvidia_smi_log>"
_LISTED_GPU = re.compile(r"GPU \d+: .*\(UUID: (?P<uuid>GPU-[0-9A-Za-z-]+)\)\s*")
_LISTED_MIG = re.compile(r"\s+MIG (?P<profile>\S+)\s+Device\s+(?P<index>\d+): \(UUID: (?P<uuid>MIG-[0-9A-Za-z/-]+)\)\s*")


@dataclass(frozen=True)
class MigDevice:
    """One instance of a divided GPU."""

    index: int
    gpu_instance_id: Optional[int] = None
    compute_instance_id: Optional[int] = None
    memory_total_mib: Optional[int] = None
    profile: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class SmiGpu:
    """One GPU as nvidia-smi knows it. What it does not know is None or empty, never 0."""

    pci_bus_id: str
    index: Optional[int] = None
    uuid: str = ""
    name: str = ""
    driver_version: str = ""
    memory_total_mib: Optional[int] = None
    memory_free_mib: Optional[int] = None
    compute_capability: str = ""
    architecture: str = ""
    mig_current: str = ""
    mig_pending: str = ""
    mig_devices: tuple[MigDevice, ...] = ()
    recovery_action: str = ""
    ecc_uncorrected: Optional[int] = None
    ecc_uncorrected_aggregate: Optional[int] = None
    # Names of what is pending or has failed: remapped_row_pending, remapped_row_failure, …
    memory_flags: frozenset[str] = frozenset()
    width_current: Optional[int] = None
    width_max: Optional[int] = None
    fabric_state: str = ""
    fabric_status: str = ""
    virtualisation: str = ""


@dataclass(frozen=True)
class SmiReport:
    """The XML as a whole."""

    driver_version: str = ""
    cuda_version: str = ""
    gpus: tuple[SmiGpu, ...] = field(default_factory=tuple)


def known(text: Optional[str]) -> str:
    """A cell's text; empty for all the ways in which nvidia-smi says that it does not know."""
    stripped = (text or "").strip()
    return "" if _UNKNOWN.fullmatch(stripped) else stripped


def number(text: Optional[str]) -> Optional[int]:
    """81559 of ``81559``, ``81559 MiB`` or ``16x``; None for what is no number."""
    found = _NUMBER.fullmatch(known(text))
    return int(found.group(1)) if found else None


def bus_id(text: str) -> str:
    """The address as sysfs writes it: ``0000:3b:00.0`` of ``00000000:3B:00.0``; empty for what is none."""
    found = _BUS_ID.fullmatch(text.strip())
    if not found:
        return ""
    domain = int(found["domain"] or "0", 16)
    return f"{domain:04x}:{found['bus'].lower()}:{found['device'].lower()}.{found['function'] or '0'}"


def mib(text: Optional[str]) -> Optional[int]:
    """Memory: nothing has none, so a 0 is one more way of not knowing."""
    return number(text) or None


def parse_csv(text: str) -> tuple[SmiGpu, ...]:
    """The answer to ``--query-gpu`` with the fields of :data:`gpu_raw.SMI_FIELDS`; AikitError for anything else."""
    found = []
    for line in text[:MOST_CHARACTERS].splitlines():
        if not line.strip() or line.startswith("WARNING:"):
            continue
        cells = dict(zip(SMI_FIELDS, (cell.strip() for cell in line.split(","))))
        address = bus_id(cells.get("pci.bus_id", ""))
        if len(line.split(",")) != len(SMI_FIELDS) or not address:
            raise AikitError(f"nvidia-smi answers with {_short(line)}, which is no list of GPUs.", "Run it by hand and see.")
        found.append(
            SmiGpu(
                pci_bus_id=address,
                index=number(cells["index"]),
                uuid=known(cells["uuid"]),
                name=known(cells["name"]),
                driver_version=known(cells["driver_version"]),
                memory_total_mib=mib(cells["memory.total"]),
                memory_free_mib=number(cells["memory.free"]) if mib(cells["memory.total"]) else None,
                compute_capability=_capability(cells["compute_cap"]),
                mig_current=known(cells["mig.mode.current"]).lower(),
            )
        )
    return tuple(found)


def parse_xml(text: str) -> SmiReport:
    """The answer to ``-q -x``; AikitError for what is no such answer."""
    root = _tree(text)
    if root.tag != "nvidia_smi_log":
        raise AikitError(f"nvidia-smi -q -x answers with <{_short(root.tag)}> instead of <nvidia_smi_log>.", "Run it by hand and see.")
    return SmiReport(
        driver_version=_text(root, "driver_version"),
        cuda_version=_text(root, "cuda_version"),
        gpus=tuple(gpu for index, element in enumerate(root.findall("gpu")) for gpu in _gpu(index, element)),
    )


def parse_list(text: str) -> dict[str, tuple[tuple[int, str, str], ...]]:
    """The MIG devices of ``-L``: id of the GPU → (index, profile, id) of each."""
    found: dict[str, list[tuple[int, str, str]]] = {}
    current = ""
    for line in text[:MOST_CHARACTERS].splitlines():
        gpu = _LISTED_GPU.fullmatch(line)
        device = _LISTED_MIG.fullmatch(line)
        if gpu:
            current = gpu["uuid"]
        elif device and current:
            found.setdefault(current, []).append((int(device["index"][:9]), device["profile"], device["uuid"]))
    return {uuid: tuple(devices) for uuid, devices in found.items()}


def _capability(text: str) -> str:
    return text if re.fullmatch(r"\d{1,2}\.\d", text) else ""


def _short(text: str) -> str:
    line = text.strip()
    return repr(line if len(line) <= 80 else line[:77] + "...")


def _tree(text: str) -> Element:
    if len(text) > MOST_CHARACTERS:
        raise AikitError(f"nvidia-smi -q -x answers with {len(text)} characters, which is too much.", "Run it by hand and see.")
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MOST_DEPTH:
            raise AikitError(f"nvidia-smi -q -x answers with elements {MOST_DEPTH} deep and deeper.", "Run it by hand and see.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def doctype(name: str, system: Optional[str], public: Optional[str], internal: int) -> None:
        # nvidia-smi names a file, which is never read; a document type inside the answer could hold entities
        if internal:
            raise AikitError("nvidia-smi -q -x answers with a document type of its own, which is refused.", "Is that NVIDIA's nvidia-smi?")

    def entity(*_arguments: Any) -> None:
        raise AikitError("nvidia-smi -q -x answers with entities of its own, which are refused.", "Is that NVIDIA's nvidia-smi?")

    def reference(*_arguments: Any) -> int:
        entity()
        return 0

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = entity
    parser.SkippedEntityHandler = entity
    parser.ExternalEntityRefHandler = reference
    try:
        # Warnings follow what is XML
        parser.Parse((text.partition(_END)[0] + _END if _END in text else text).encode("utf-8", "replace"), True)
        root: Element = builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as exc:
        raise AikitError(f"nvidia-smi -q -x answers with no valid XML ({exc}): {_short(text)}.", "Run it by hand and see.") from None
    return root


def _text(element: Element, path: str) -> str:
    return known(element.findtext(path))


def _gpu(index: int, element: Element) -> Sequence[SmiGpu]:
    address = bus_id(_text(element, "pci/pci_bus_id") or element.get("id", ""))
    if not address:
        return ()
    errors = element.find("ecc_errors")
    total = mib(_text(element, "fb_memory_usage/total"))
    return (
        SmiGpu(
            pci_bus_id=address,
            index=index,
            uuid=_text(element, "uuid"),
            name=_text(element, "product_name"),
            memory_total_mib=total,
            memory_free_mib=number(_text(element, "fb_memory_usage/free")) if total else None,
            architecture=_text(element, "product_architecture").lower(),
            mig_current=_text(element, "mig_mode/current_mig").lower(),
            mig_pending=_text(element, "mig_mode/pending_mig").lower(),
            mig_devices=tuple(_mig(number_, device) for number_, device in enumerate(element.findall("mig_devices/mig_device"))),
            recovery_action=_recovery(element),
            ecc_uncorrected=_uncorrected(errors, "volatile"),
            ecc_uncorrected_aggregate=_uncorrected(errors, "aggregate"),
            memory_flags=_flags(element),
            width_current=number(_text(element, "pci/pci_gpu_link_info/link_widths/current_link_width")),
            width_max=number(_text(element, "pci/pci_gpu_link_info/link_widths/max_link_width")),
            fabric_state=_text(element, "fabric/state"),
            fabric_status=_text(element, "fabric/status"),
            virtualisation=_text(element, "gpu_virtualization_mode/virtualization_mode"),
        ),
    )


def _mig(position: int, element: Element) -> MigDevice:
    index = number(_text(element, "index"))
    return MigDevice(
        index=position if index is None else index,
        gpu_instance_id=number(_text(element, "gpu_instance_id")),
        compute_instance_id=number(_text(element, "compute_instance_id")),
        memory_total_mib=mib(_text(element, "fb_memory_usage/total")),
    )


def _recovery(element: Element) -> str:
    action = _text(element, "gpu_recovery_action")
    if not action and _text(element, "gpu_reset_status/reset_required").lower() == "yes":
        # Drivers before R565 say it so
        return "Reset"
    if not action and _text(element, "gpu_reset_status/drain_and_reset_recommended").lower() == "yes":
        return "Drain and Reset"
    return "" if action.lower() == "none" else action


def _uncorrected(errors: Optional[Element], kind: str) -> Optional[int]:
    """Errors that ECC could not mend, of all memories; None where nothing counts them."""
    counted = None if errors is None else errors.find(kind)
    if counted is None:
        return None
    cells = [counted.findtext(tag) for tag in ("sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded", "dram_uncorrectable")]
    # GPUs before Turing count by the number of wrong bits
    cells.append(counted.findtext("double_bit/total"))
    found = [count for count in (number(cell) for cell in cells) if count is not None]
    return sum(found) if found else None


_FLAGS: Mapping[str, str] = {
    "remapped_rows/remapped_row_pending": "remapped_row_pending",
    "remapped_rows/remapped_row_failure": "remapped_row_failure",
    "retired_pages/pending_retirement": "page_retirement_pending",
    "retired_pages/pending_blacklist": "page_retirement_pending",
    "ecc_errors/channel_repair_pending": "channel_repair_pending",
    "ecc_errors/tpc_repair_pending": "tpc_repair_pending",
    "ecc_errors/unrepairable_memory": "unrepairable_memory",
    "ecc_errors/aggregate/sram_threshold_exceeded": "sram_threshold_exceeded",
}


def _flags(element: Element) -> frozenset[str]:
    return frozenset(name for path, name in _FLAGS.items() if _text(element, path).lower() == "yes")
