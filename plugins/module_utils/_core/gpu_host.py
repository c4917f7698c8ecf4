# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What surrounds the GPUs of a host: the Container Toolkit, CDI, the engines, Secure Boot, Fabric Manager."""

from __future__ import annotations

import fnmatch
import re
from typing import Any, Mapping, Optional, Sequence

from . import cdi, data_nvidia
from .container_engine import parse_os_release
from .gpu import Gpu, is_nvswitch
from .gpu_driver import Package, is_wsl, kernels, listed, unfinished
from .gpu_raw import EngineAnswer, Raw
from .version import at_least, numbers, upstream

TOOLKIT_PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
_CTK_VERSION = re.compile(r"version:? v?(\d[\w.+~-]*)", re.I)
_FABRIC_PACKAGE = re.compile(r"nvidia-fabric-?manager(-\d+)?")
_UNATTENDED = re.compile(r'^[ \t]*APT::Periodic::Unattended-Upgrade[ \t]+"?(\w+)"?;', re.M)
_COMMENT = re.compile(r'("[^"\n]*")|//[^\n]*|^[ \t]*#(?!clear)[^\n]*|/\*.*?\*/', re.M | re.S)
_BLACKLIST = re.compile(r'\bPackage-Blacklist(?:::\w*)?\s*(?:\{([^}]*)\}|("[^"\n]*"))', re.I)
_CLEAR = re.compile(r"#clear\s+Unattended-Upgrade::Package-Blacklist\b", re.I)
# From here on a pin also takes a package back, so nothing newer comes in its place
_PIN_PRIORITY = 1000
# Engines that may not answer, and the package that tells their version then
_ENGINE_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "docker": ("docker-ce", "docker.io", "moby-engine", "docker-engine", "docker"),
    "podman": ("podman",),
    "containerd": ("containerd.io", "containerd"),
}


def toolkit(raw: Raw, packages: Mapping[str, Package]) -> dict[str, Any]:
    """The NVIDIA Container Toolkit: by its packages, else by its program."""
    found = {name: packages[name].version for name in TOOLKIT_PACKAGES if name in packages}
    version = next((upstream(found[name]) for name in TOOLKIT_PACKAGES[:2] if name in found), "")
    if not version and raw.ctk_version.status == 0:
        match = _CTK_VERSION.search(raw.ctk_version.text)
        version = upstream(match.group(1)) if match else ""
    return {
        "version": version,
        "below_floor": bool(version) and not at_least(version, data_nvidia.TOOLKIT_FLOOR),
        "floor": data_nvidia.TOOLKIT_FLOOR,
        "packages": found,
    }


def cdi_devices(raw: Raw) -> dict[str, Any]:
    """What the CDI specifications offer, and the newest version among those with NVIDIA's GPUs."""
    devices: list[str] = []
    versions: list[str] = []
    for path in sorted(raw.cdi):
        found = cdi.devices(raw.cdi[path])
        devices += found
        if cdi.nvidia_gpus(found):
            versions.append(cdi.spec_version(raw.cdi[path]))
    return {
        "devices": list(dict.fromkeys(devices)),
        "spec_version": max(versions, key=numbers, default=""),
        "files": sorted(raw.cdi),
    }


def engines(raw: Raw, packages: Mapping[str, Package]) -> list[dict[str, Any]]:
    """The engines that are there, and what each can do with GPUs."""
    return [_engine(raw, answer, packages) for answer in raw.engines if answer.installed or answer.version]


def _engine(raw: Raw, answer: EngineAnswer, packages: Mapping[str, Package]) -> dict[str, Any]:
    version = answer.version or next((packages[name].version for name in _ENGINE_PACKAGES[answer.name] if name in packages), "")
    enabled = _cdi_enabled(answer, version)
    return {
        "name": answer.name,
        "version": version,
        "answers": bool(answer.version) if answer.listens is None else answer.listens,
        "cdi": enabled,
        "gpus_flag": _gpus_flag(raw, answer, version, enabled),
        "cdi_spec_max": cdi_spec_max(answer.name, version),
        "rootless": answer.rootless,
        "problem": answer.problem,
    }


def cdi_spec_max(engine: str, version: str) -> str:
    """The newest CDI specification that an engine reads; empty where it reads none or nothing is known."""
    found = ""
    for first, newest in data_nvidia.CDI_READABLE.get(engine, ()):
        if at_least(version, first):
            found = newest
    return found


def _cdi_enabled(answer: EngineAnswer, version: str) -> bool:
    if answer.name == "docker":
        if "CDISpecDirs" in answer.info:
            # Docker names the folders only where CDI is on
            return bool(answer.info["CDISpecDirs"])
        if answer.version:
            return False
        # A daemon that does not answer will do as its version does when it is not told otherwise
        return bool(at_least(version, data_nvidia.DOCKER_CDI_DEFAULT))
    if answer.name == "containerd":
        told = re.search(r"^\s*enable_cdi\s*=\s*(true|false)\b", answer.config, re.M)
        if told:
            return told.group(1) == "true" and bool(at_least(version, data_nvidia.CONTAINERD_CDI))
        return bool(at_least(version, data_nvidia.CONTAINERD_CDI_DEFAULT))
    return bool(cdi_spec_max(answer.name, version))


def _gpus_flag(raw: Raw, answer: EngineAnswer, version: str, enabled: bool) -> bool:
    if answer.name == "docker":
        by_cdi = enabled and raw.nvidia_cdi_hook and bool(at_least(version, data_nvidia.DOCKER_GPUS_BY_CDI))
        return raw.nvidia_hook or by_cdi
    if answer.name == "podman":
        return bool(at_least(version, data_nvidia.PODMAN_GPUS))
    return False


def secure_boot(raw: Raw) -> Optional[bool]:
    """True or False as the firmware says; None where it cannot be asked (in a container)."""
    if raw.secure_boot is not None:
        # Four bytes of attributes, then the value
        return raw.secure_boot[4] == 1 if len(raw.secure_boot) >= 5 else None
    # A firmware that is not UEFI has no Secure Boot
    return False if raw.firmware and "efi" not in raw.firmware else None


def fabric_manager(raw: Raw, packages: Mapping[str, Package], gpus: Sequence[Gpu]) -> dict[str, Any]:
    """GPUs behind NVSwitch run no CUDA program before Fabric Manager has joined them."""
    package = next((packages[name] for name in sorted(packages, reverse=True) if _FABRIC_PACKAGE.fullmatch(name)), None)
    states = [gpu.smi.fabric_state for gpu in gpus if gpu.smi and gpu.smi.fabric_state]
    # One GPU that is not ready is what everyone waits for
    state = next((state for state in states if state.lower() != "completed"), states[0] if states else "")
    active = raw.fabric_manager_active
    return {
        "needed": bool(raw.nvswitches or any(is_nvswitch(record) for record in raw.pci) or any("SW_MNG" in text for text in raw.vpd)),
        "nvlink5": any("SW_MNG" in text for text in raw.vpd),
        "installed": package is not None,
        "version": upstream(package.version) if package else "",
        "active": active.status == 0 and active.text.strip() == "active",
        "state": state,
    }


def selinux(raw: Raw) -> str:
    enforce = raw.selinux_enforce.strip()
    if enforce in ("0", "1"):
        return "enforcing" if enforce == "1" else "permissive"
    return "disabled" if raw.selinux_config else ""


def unattended_upgrades(raw: Raw, packages: Mapping[str, Package]) -> bool:
    """Whether packages are upgraded without anyone asking: apt's or dnf's way."""
    told = _UNATTENDED.findall(raw.apt_configuration)
    return ("unattended-upgrades" in packages and bool(told) and told[-1] not in ("0", "false", "no")) or raw.dnf_automatic


def unattended_blacklist(raw: Raw) -> list[str]:
    """Patterns of packages that unattended-upgrades leaves alone: regular expressions for the beginning of a name."""
    text = _COMMENT.sub(lambda match: match.group(1) or "", raw.apt_configuration)
    # #clear takes back what comes before it
    text = _CLEAR.split(text)[-1]
    return [pattern for block, single in _BLACKLIST.findall(text) for pattern in re.findall(r'"([^"\n]+)"', block or single)]


def pinned_packages(raw: Raw, names: Mapping[str, str]) -> list[str]:
    """Those of ``names`` (with their versions) that apt's preferences or dnf's locks keep at the version that is installed."""
    found = set()
    for paragraph in re.split(r"\n[ \t]*\n", re.sub(r"^(#|Explanation:).*\n?", "", raw.apt_preferences, flags=re.M)):
        record = {key.lower(): value.strip() for key, value in re.findall(r"^(Package|Pin|Pin-Priority):[ \t]*(.*)$", paragraph, re.M | re.I)}
        kept = re.fullmatch(r"version\s+(\S+)", record.get("pin", ""))
        priority = record.get("pin-priority", "")
        if not kept or not priority.lstrip("-").isdigit() or int(priority) < _PIN_PRIORITY:
            continue
        for name, version in names.items():
            # A whole branch (580.*) is no version
            whole = numbers(kept.group(1)) == numbers(version) and fnmatch.fnmatchcase(version, kept.group(1))
            if whole and any(_pins(glob, name) for glob in record.get("package", "").split()):
                found.add(name)
    for line in re.findall(r"""^[ \t]*(?:name[ \t]*=[ \t]*["'])?([\w.+:~^*-]+)""", raw.version_locks, re.M):
        found.update(name for name, version in names.items() if _locks(line, name, version))
    return sorted(found)


def _pins(glob: str, name: str) -> bool:
    """A pattern of apt's preferences; ``src:`` names a source package, whose packages nobody here knows."""
    return fnmatch.fnmatchcase(name, glob.partition(":")[0]) and not glob.startswith("src:")


def _locks(line: str, name: str, version: str) -> bool:
    """A line of versionlock: name-version, name-epoch:version-release.architecture, with wildcards; dnf 5 writes the name alone."""
    bare = version.partition(":")[2] or version
    epoch = version.partition(":")[0] if ":" in version else "0"
    texts = (name, f"{name}-{bare}", f"{name}-{bare}.arch", f"{name}-{epoch}:{bare}", f"{name}-{epoch}:{bare}.arch")
    return any(fnmatch.fnmatchcase(text, line) for text in texts)


def persistence(raw: Raw) -> Optional[dict[str, bool]]:
    """NVIDIA's persistence daemon; None where nothing starts services."""
    if raw.service_manager != "systemd":
        return None
    return {"installed": raw.persistence_installed, "active": raw.persistence_active.status == 0}


def host(raw: Raw, packages: Mapping[str, Package], gpus: Sequence[Gpu]) -> dict[str, Any]:
    """Key ``host`` of the result."""
    system = parse_os_release(raw.os_release)
    return {
        "secure_boot": secure_boot(raw),
        "kernel": raw.kernel,
        "headers": any(kernel.headers for kernel in raw.kernels if kernel.release == raw.kernel),
        "kernels": kernels(raw),
        "fabric_manager": fabric_manager(raw, packages, gpus),
        "os": {
            "id": system.get("ID", "macos" if raw.system == "Darwin" else ""),
            "version_id": system.get("VERSION_ID", ""),
            "pretty_name": system.get("PRETTY_NAME", ""),
            "id_like": system.get("ID_LIKE", "").split(),
            "codename": system.get("VERSION_CODENAME", ""),
            "arch": {"arm64": "aarch64", "amd64": "x86_64"}.get(raw.machine, raw.machine),
        },
        "service_manager": raw.service_manager,
        "wsl": is_wsl(raw),
        "selinux": selinux(raw),
        "unattended_upgrades": unattended_upgrades(raw, packages),
        "kernel_log": raw.kernel_log is not None,
        "package_manager": raw.package_manager,
        "repositories": sorted(raw.repositories),
        "packages": listed(packages),
        "unfinished_packages": unfinished(raw),
        "initramfs_outdated": raw.initramfs_outdated,
        "held_packages": sorted(name for name in listed(packages) if packages[name].held),
        "pinned_packages": pinned_packages(raw, listed(packages)),
        "unattended_blacklist": unattended_blacklist(raw),
        "persistence": persistence(raw),
    }
