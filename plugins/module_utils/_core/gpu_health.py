# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with the GPUs of a host, by name; each with what was found and what to do. docs/gpus.md explains every name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional, Sequence

from . import data_gpu as data
from . import data_nvidia
from .gpu import Gpu, decimal
from .gpu_driver import Driver
from .gpu_raw import Output, Raw
from .gpu_smi import DAMAGED, GOOD
from .version import at_least, numbers, upstream

# "NVRM: Xid (PCI:0000:3b:00): 79, pid=…"; older drivers leave PCI: out
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<address>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})(?:\.[0-7])?\): (?P<xid>\d{1,4})\b(?P<rest>[^\n]*)")
_SXID = re.compile(r"nvidia-nvswitch\d+: SXid \(PCI:(?P<address>[0-9a-fA-F:.]{7,16})\): (?P<sxid>\d{1,6}), (?P<rest>[^\n]*)")
_LEGACY = re.compile(r"supported through the NVIDIA (\d+\.\w+) Legacy drivers")
_NO_OPEN = re.compile(r"NVRM: [^\n]*(?:requires? use of the NVIDIA open kernel modules|not supported by open nvidia\.ko)")
_REJECTED = re.compile(
    r"(?:Loading of (?:unsigned )?module (?:with unavailable key )?is rejected|Lockdown: [^\n]*unsigned module loading is restricted"
    r"|nvidia[^\n]*(?:Required key not available|Key was rejected by service))"
)
_INIT_FAILED = re.compile(r"NVRM: [^\n]*RmInitAdapter failed")
_FABRIC_DIFFERS = re.compile(r"fabric manager NVIDIA GPU driver interface version [^\n]*match", re.I)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``severity`` is error where GPUs cannot be relied upon, warning where they work all the same."""

    name: str
    detail: str
    hint: str
    severity: str = "error"

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "detail": self.detail, "hint": self.hint, "severity": self.severity}


def problems(
    raw: Raw,
    gpus: Sequence[Gpu],
    driver: Driver,
    toolkit: Mapping[str, Any],
    cdi: Mapping[str, Any],
    engines: Sequence[Mapping[str, Any]],
    host: Mapping[str, Any],
    previous: Sequence[Mapping[str, Any]],
    unreadable: Sequence[str],
    timeout: float,
) -> list[dict[str, Any]]:
    """All problems, those of the driver first."""
    nvidia = [gpu for gpu in gpus if gpu.vendor == "nvidia"]
    found = [
        *_packages(raw),
        *_smi(raw, driver, unreadable, timeout),
        *_driver(raw, nvidia, driver),
        *_host(nvidia, driver, host, raw.kernel_log or ""),
        *_fabric(driver, host["fabric_manager"], raw.kernel_log or ""),
        *_cards(raw, gpus, previous),
        *_log(raw.kernel_log or ""),
        *_containers(nvidia, driver, toolkit, cdi, engines, raw.cdi),
    ]
    return [problem.as_dict() for problem in found]


def _packages(raw: Raw) -> Iterator[Problem]:
    if raw.packages_problem:
        yield Problem(
            "packages_unreadable",
            f"The package manager does not say what is installed ({raw.packages_problem}): where the driver and the toolkit came from is not known.",
            "Look at it by hand: rpm -qa." if raw.package_manager == "rpm" else "Look at it by hand: dpkg-query -W.",
        )


def _smi(raw: Raw, driver: Driver, unreadable: Sequence[str], timeout: float) -> Iterator[Problem]:
    for output in (raw.smi_csv, raw.smi_xml, raw.smi_list):
        if output.hung:
            yield Problem(
                "nvidia_smi_hung",
                f"{raw.smi_path} did not answer within {timeout:g} seconds and was killed.",
                "A GPU or its driver hangs: look at the kernel log, then reboot the host.",
            )
            return
    if driver.state == "mismatch":
        return
    if driver.state == "loaded" and not raw.smi_csv.found:
        yield Problem(
            "nvidia_smi_missing",
            "The NVIDIA driver is loaded, but nvidia-smi is not there.",
            "Install the driver's utilities (nvidia-utils, nvidia-smi or nvidia-driver-cuda) of the same version.",
        )
        return
    # A driver may lack one field of the list; what it says in the other way counts then
    if raw.smi_csv.status == DAMAGED:
        yield Problem(
            "inforom_corrupted",
            f"nvidia-smi says: {_said(Output(text=raw.smi_csv.text[raw.smi_csv.text.find('WARNING:') :]))}",
            "Have the card looked at.",
            "warning",
        )
    if raw.smi_csv.status not in (*GOOD, 127) and raw.smi_xml.status not in GOOD:
        yield Problem(
            "nvidia_smi_failed", f"{raw.smi_path} ends with status {raw.smi_csv.status}: {_said(raw.smi_csv)}", "Look at the kernel log (dmesg | grep NVRM)."
        )
    for message in unreadable:
        yield Problem("nvidia_smi_unreadable", message, "Is that NVIDIA's nvidia-smi, and of the driver's version?")


def _said(output: Output) -> str:
    lines = [line.strip() for line in (output.text + "\n" + output.errors).splitlines() if line.strip()]
    return (lines[0][:200] if lines else "it says nothing").rstrip(".") + "."


def _driver(raw: Raw, nvidia: Sequence[Gpu], driver: Driver) -> Iterator[Problem]:
    if driver.state == "mismatch":
        parts = ", ".join(f"{name} {version}" for name, version in driver.parts)
        said = f" nvidia-smi says: {_said(raw.smi_csv)}" if raw.smi_csv.status not in (0, 127) and not raw.smi_csv.hung else ""
        yield Problem(
            "driver_mismatch",
            f"The parts of the NVIDIA driver have different versions: {parts}.{said}",
            "Reboot the host; or stop all that uses the GPUs, and load the new modules:"
            " modprobe -r nvidia_drm nvidia_modeset nvidia_uvm nvidia && modprobe nvidia.",
        )
    for gpu in nvidia:
        if gpu.driver_in_use == "nouveau":
            yield Problem(
                "nouveau_in_use",
                f"GPU {gpu.pci_bus_id} ({gpu.name or gpu.pci_id}) is driven by nouveau, with which CUDA does not work.",
                "Install NVIDIA's driver, which turns nouveau off, and reboot.",
            )
    if driver.below_floor:
        newest = f"R{driver.branch} gets no fixes" if driver.branch not in data_nvidia.DRIVER_FLOORS else "the fixes begin there"
        yield Problem(
            "driver_below_floor",
            f"Driver {driver.version or driver.installed_version} has known vulnerabilities; the floor is {driver.floor} ({newest}).",
            f"Upgrade the driver to {driver.floor} or newer.",
            "warning",
        )
    cuda = driver.cuda_version
    version = driver.version or driver.installed_version
    too_old = at_least(cuda, data_nvidia.CUDA_FLOOR) is False
    if not cuda and version and driver.state != "wsl":
        too_old = at_least(version, data_nvidia.CUDA_DRIVER_FLOOR) is False
    if too_old:
        yield Problem(
            "cuda_below_floor",
            f"The driver {version} runs CUDA {cuda or 'older than 12'}; images need {data_nvidia.CUDA_FLOOR} or newer.",
            f"Upgrade the driver to {data_nvidia.CUDA_DRIVER_FLOOR} or newer.",
        )
    if driver.state in ("loaded", "mismatch", "installed_not_loaded"):
        yield from _flavours(nvidia, driver)


def _flavours(nvidia: Sequence[Gpu], driver: Driver) -> Iterator[Problem]:
    """GPUs that the driver which is there will never drive."""
    for gpu in nvidia:
        name = f"GPU {gpu.pci_bus_id} ({gpu.name or gpu.pci_id})"
        if driver.branch is not None and gpu.open_modules == "no" and driver.branch > data.LAST_BRANCH_BEFORE_TURING:
            yield Problem(
                "gpu_too_old_for_driver",
                f"{name} is older than Turing; driver R{driver.branch} ignores it.",
                f"Install branch {data.LAST_BRANCH_BEFORE_TURING} with proprietary modules, the last one for this GPU.",
            )
        elif driver.flavour == "open" and gpu.open_modules == "no":
            yield Problem(
                "driver_flavour_wrong", f"{name} is older than Turing, which the open kernel modules do not drive.", "Install the proprietary modules."
            )
        elif driver.flavour == "proprietary" and gpu.open_modules == "only":
            yield Problem(
                "driver_flavour_wrong", f"{name} is driven by the open kernel modules only; the proprietary ones are here.", "Install the open modules."
            )


def _host(nvidia: Sequence[Gpu], driver: Driver, host: Mapping[str, Any], log: str) -> Iterator[Problem]:
    if host["secure_boot"] and driver.state != "loaded" and _REJECTED.search(log):
        yield Problem(
            "secure_boot_rejects_module",
            f"Secure Boot is on, and the kernel refused a module without a known signature: {_line(_REJECTED, log)}.",
            "Use modules that the distribution signs, or enrol the key that DKMS signs with (mokutil --import, then confirm on the console at the next boot).",
        )
    if nvidia and driver.state != "wsl" and not host["headers"] and _built_here(host["packages"]):
        yield Problem(
            "headers_missing",
            f"The headers of the running kernel {host['kernel']} are not installed, but its NVIDIA modules are built on this host.",
            "Install the headers, and the metapackage that brings those of the next kernel (linux-headers-amd64, linux-headers-generic, kernel-devel-matched).",
            "warning" if driver.state == "loaded" else "error",
        )
    if driver.state == "installed_not_loaded" and nvidia and all(gpu.driver_in_use == "" for gpu in nvidia):
        yield Problem(
            "driver_not_loaded",
            f"NVIDIA driver {driver.installed_version or ''} is installed, but not loaded.".replace("  ", " "),
            "Load it (modprobe nvidia) or reboot; the kernel log says why it does not load.",
        )


def _built_here(packages: Mapping[str, str]) -> bool:
    return any(re.fullmatch(r"nvidia-.*-?dkms.*|kmod-nvidia.*-dkms|dkms-nvidia", name) for name in packages)


def _line(pattern: "re.Pattern[str]", log: str) -> str:
    match = pattern.search(log)
    if match is None:
        return ""
    start = log.rfind("\n", 0, match.start()) + 1
    end = log.find("\n", match.end())
    return log[start : end if end >= 0 else None].strip()[:200]


def _fabric(driver: Driver, manager: Mapping[str, Any], log: str) -> Iterator[Problem]:
    if not manager["needed"] or driver.state not in ("loaded", "mismatch"):
        return
    if not manager["active"]:
        what = "does not run" if manager["installed"] else "is not installed"
        yield Problem(
            "fabric_manager_inactive",
            f"The GPUs are joined by NVSwitch, but Fabric Manager {what}: CUDA programs end with error 802, though nvidia-smi looks well.",
            f"Install nvidia-fabricmanager {driver.version}, and start it: systemctl enable --now nvidia-fabricmanager.",
        )
    elif manager["state"] and manager["state"].lower() != "completed":
        yield Problem(
            "fabric_not_ready",
            f"Fabric Manager runs, but the GPUs have not joined the fabric: its state is {manager['state']}.",
            "Look at journalctl -u nvidia-fabricmanager; with NVLink 5 nvlsm and the InfiniBand modules must be there too.",
        )
    differs = bool(manager["version"]) and bool(driver.version) and numbers(manager["version"]) != numbers(driver.version)
    if differs or _FABRIC_DIFFERS.search(log):
        yield Problem(
            "fabric_manager_mismatch",
            f"Fabric Manager is {manager['version']}, the driver is {driver.version}; they must be of one version.",
            f"Install nvidia-fabricmanager {driver.version}, and restart it.",
        )


def _cards(raw: Raw, gpus: Sequence[Gpu], previous: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    for gpu in gpus:
        name = f"GPU {gpu.index if gpu.index is not None else ''} ({gpu.pci_bus_id})".replace("  ", " ")
        smi = gpu.smi
        if smi is not None:
            if smi.recovery_action:
                hint = data.RECOVERY_ACTIONS.get(smi.recovery_action.lower(), "Look at the kernel log.").replace("INDEX", str(gpu.index))
                yield Problem("gpu_recovery_action", f"The driver says that {name} needs: {smi.recovery_action}.", hint)
            if smi.ecc_uncorrected:
                yield Problem(
                    "ecc_uncorrected",
                    f"{name} had {smi.ecc_uncorrected} memory errors since the driver was loaded that ECC could not mend.",
                    "Drain the host and reset the GPU; have the card looked at when they come back.",
                )
            yield from _memory_flags(name, smi.memory_flags)
        yield from _width(raw, gpu, name)
    yield from gone(gpus, previous)


_FLAG_PROBLEMS: Mapping[str, tuple[str, str, str, str]] = {
    "remapped_row_pending": ("row_remap_pending", "has rows of memory to take out of use", "Drain the host and reset the GPU when it suits.", "warning"),
    "page_retirement_pending": ("row_remap_pending", "has pages of memory to take out of use", "Reload the driver or reboot when it suits.", "warning"),
    "channel_repair_pending": ("memory_repair_pending", "has a memory channel to repair", "Drain the host and reset the GPU when it suits.", "warning"),
    "tpc_repair_pending": ("memory_repair_pending", "has a processing cluster to repair", "Drain the host and reset the GPU when it suits.", "warning"),
    "remapped_row_failure": ("row_remap_failure", "could not take a faulty row of memory out of use", "Have the card replaced.", "error"),
    "unrepairable_memory": ("row_remap_failure", "has memory that cannot be repaired", "Have the card replaced.", "error"),
    "sram_threshold_exceeded": ("sram_threshold_exceeded", "had more errors in its caches than it may have", "Have the card looked at.", "error"),
}


def _memory_flags(name: str, flags: frozenset[str]) -> Iterator[Problem]:
    for flag in sorted(flags):
        problem, says, hint, severity = _FLAG_PROBLEMS[flag]
        yield Problem(problem, f"{name} {says}.", hint, severity)


def _width(raw: Raw, gpu: Gpu, name: str) -> Iterator[Problem]:
    """A link that is narrower than both its ends. Speed falls when a GPU idles, and says nothing; width does not fall."""
    if gpu.unified_memory or gpu.vendor not in ("nvidia", "amd") or gpu.driver_in_use not in ("nvidia", "amdgpu"):
        # Without its driver, or inside the processor's package, a GPU has no link to judge
        return
    if gpu.smi is not None and gpu.smi.width_max is not None:
        # nvidia-smi's maximum is that of GPU and slot together; that of a virtual machine's slot is made up
        current, most = gpu.smi.width_current, gpu.smi.width_max
        port = decimal(gpu.values.get("port_max_link_width"))
        most = min(most, port) if port else most
    else:
        current, device, port = (decimal(gpu.values.get(key)) for key in ("current_link_width", "max_link_width", "port_max_link_width"))
        if not device or not port:
            return
        most = min(device, port)
    if raw.cpuinfo_hypervisor or not current or gpu.values.get("power_state", "D0") not in ("D0", "unknown", ""):
        return
    if current < most:
        yield Problem(
            "pcie_width",
            f"{name} is connected by {current} PCIe lanes, but it and its slot have {most}.",
            "Power the host off, and seat the card and its riser anew.",
            "warning",
        )


def gone(gpus: Sequence[Gpu], previous: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """GPUs that were there before: by id, else by address. A card that moved to another slot is still there."""
    ids = {gpu.uuid for gpu in gpus if gpu.uuid}
    addresses = {gpu.pci_bus_id for gpu in gpus if gpu.pci_bus_id}
    missing = []
    for before in previous:
        uuid, address = str(before.get("uuid") or ""), str(before.get("pci_bus_id") or "")
        # Without a driver nothing has an id: the address decides then
        there = uuid in ids if uuid and ids else address in addresses
        if (uuid or address) and not there:
            missing.append(f"{before.get('name') or before.get('pci_id') or 'a GPU'} at {address or 'an unknown address'}{f' ({uuid})' if uuid else ''}")
    if missing or len(gpus) < len(previous):
        fewer = len(gpus) < len(previous)
        yield Problem(
            "gpus_missing",
            f"There are {len(gpus)} GPUs where there were {len(previous)}; gone: {', '.join(missing) or 'not known which'}.",
            "Look for Xid 79 in the kernel log; power the host off and on, then look at the card's seat and power."
            f" Was it taken out on purpose? Then remove {data.REMEMBERED_PATH}."
            if fewer
            else "Were cards exchanged on purpose? aikit.fleet.provision takes those that are there now for the host's own.",
            "error" if fewer else "warning",
        )


def remember(gpus: Sequence[Mapping[str, Any]]) -> str:
    """What is kept of a result's GPUs on a host, so that a later look sees when one is gone."""
    kept = ("uuid", "pci_bus_id", "pci_id", "name")
    return json.dumps([{key: gpu.get(key) or "" for key in kept} for gpu in gpus], indent=1) + "\n"


def remembered(text: str) -> list[dict[str, Any]]:
    """The GPUs of :func:`remember`; none where the text is not of it."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [gpu for gpu in found if isinstance(gpu, dict)] if isinstance(found, list) else []


def _log(log: str) -> Iterator[Problem]:
    seen: dict[tuple[str, int], list[str]] = {}
    for match in _XID.finditer(log):
        seen.setdefault((match["address"].lower(), int(match["xid"])), []).append(match["rest"].strip(", "))
    for (address, xid), lines in seen.items():
        serious, means, hint = data.XIDS.get(xid, (True, "an error that is not described here", f"Look it up: {data.XID_CATALOG}."))
        times = f", {len(lines)} times" if len(lines) > 1 else ""
        yield Problem(
            "xid" if serious else "xid_application",
            f"The kernel log has Xid {xid} for GPU {address}{times}: {means}. It says: {lines[-1][:160]}",
            hint,
            "error" if serious else "warning",
        )
    switches: dict[tuple[str, str], str] = {}
    for match in _SXID.finditer(log):
        switches.setdefault((match["address"], match["sxid"]), match["rest"].strip())
    for (address, sxid), rest in switches.items():
        fatal = not rest.startswith("Non-fatal")
        yield Problem(
            "sxid", f"The kernel log has SXid {sxid} for NVSwitch {address}: {rest[:160]}", f"Look it up: {data.XID_CATALOG}.", "error" if fatal else "warning"
        )
    legacy = _LEGACY.search(log)
    if legacy:
        yield Problem(
            "gpu_ignored_by_driver",
            f"The kernel log says that a GPU is driven by NVIDIA's {legacy.group(1)} drivers only, and is ignored.",
            "Install that branch with proprietary modules.",
        )
    for pattern, name, hint in (
        (_NO_OPEN, "driver_flavour_wrong", "Install the other kind of kernel modules."),
        (_INIT_FAILED, "gpu_init_failed", "Reboot; power, seat and firmware of the card are next."),
    ):
        if pattern.search(log):
            yield Problem(name, f"The kernel log says: {_line(pattern, log)}", hint)


def _containers(
    nvidia: Sequence[Gpu],
    driver: Driver,
    toolkit: Mapping[str, Any],
    cdi: Mapping[str, Any],
    engines: Sequence[Mapping[str, Any]],
    specs: Mapping[str, str],
) -> Iterator[Problem]:
    if toolkit["below_floor"]:
        yield Problem(
            "toolkit_below_floor",
            f"NVIDIA Container Toolkit {toolkit['version']} lets containers break out (CVE-2026-24260 and older); the floor is {toolkit['floor']}.",
            f"Upgrade its four packages to {toolkit['floor']} or newer.",
        )
    versions = {name: upstream(version) for name, version in toolkit["packages"].items()}
    if len(set(versions.values())) > 1:
        yield Problem(
            "toolkit_mixed",
            f"The packages of NVIDIA Container Toolkit have different versions: {', '.join(f'{name} {versions[name]}' for name in sorted(versions))}.",
            "Install all four at one version.",
            "warning",
        )
    spec = cdi["spec_version"]
    for engine in engines:
        most = engine["cdi_spec_max"]
        if spec and engine["cdi"] and most and not _readable(spec, most):
            yield Problem(
                "cdi_spec_too_new",
                f"The CDI specification of NVIDIA's GPUs has version {spec}; {engine['name']} {engine['version']} reads {most} at most"
                " and calls the devices unresolvable.",
                "Set NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=no-additional-gids-for-device-nodes in /etc/nvidia-container-toolkit/nvidia-cdi-refresh.env and"
                " restart nvidia-cdi-refresh, or upgrade the engine.",
            )
    ours = [path for path in cdi["files"] if "nvidia.com/gpu" in specs.get(path, "")]
    stale = [path for path in ours if path.startswith("/etc/cdi/")]
    if stale and any(not path.startswith("/etc/cdi/") for path in ours):
        yield Problem(
            "cdi_spec_stale",
            f"{', '.join(stale)} stands beside the specification in /var/run/cdi that is kept up to date, and is not.",
            f"Delete it: rm {' '.join(stale)}.",
            "warning",
        )
    if nvidia and driver.state == "loaded" and toolkit["version"] and not any(name.startswith("nvidia.com/gpu=") for name in cdi["devices"]):
        yield Problem(
            "cdi_devices_missing",
            "The NVIDIA driver and the Container Toolkit are there, but no CDI specification offers a GPU.",
            "systemctl reset-failed nvidia-cdi-refresh.service; systemctl restart nvidia-cdi-refresh.service; before toolkit 1.18: nvidia-ctk cdi generate.",
        )


def _readable(spec: str, most: str) -> Optional[bool]:
    return at_least(most, spec) is not False
