# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which NVIDIA driver a host has: loaded, installed, for which kernels, from where, and whether its parts agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from . import data_nvidia
from .gpu import Gpu
from .gpu_raw import Holder, Kernel, Raw
from .gpu_smi import SmiGpu, SmiReport
from .version import at_least, numbers, upstream

_PROC_VERSION = re.compile(r"NVRM version:.*?Kernel Module\s+(?:for \S+\s+)?(\d{1,5}\.\d{1,5}(?:\.\d{1,5})?)")
_LIBRARY = re.compile(r"libnvidia-ml\.so\.(\d{1,5}\.\d{1,5}(?:\.\d{1,5})?)")
_VERSION = re.compile(r"\d{1,5}\.\d{1,5}(?:\.\d{1,5})?")
# Packages whose version is the driver's, the userspace's before the kernel module's; those of one branch carry its number
_DRIVER_PACKAGES = (
    re.compile(r"libnvidia-compute(-\d+)?(-server)?"),
    re.compile(r"nvidia-utils(-\d+)?(-server)?"),
    re.compile(r"nvidia-smi"),
    re.compile(r"libnvidia-ml1"),
    re.compile(r"nvidia-driver-cuda(-libs)?"),
    re.compile(r"nvidia-(compute-utils|compute)-G0\d"),
    re.compile(r"xorg-x11-drv-nvidia-cuda(-libs)?"),
    re.compile(r"nvidia-driver(-libs|-bin|-\d+|-\d+-open|-\d+-server|-\d+-server-open)?"),
    re.compile(r"(nvidia-kernel|nvidia-kernel-open|nvidia-open-kernel)-dkms"),
    re.compile(r"nvidia-dkms(-\d+)?(-server)?(-open)?"),
    re.compile(r"kmod-nvidia(-open)?-dkms|kmod-nvidia-latest-dkms|nvidia-open-kmod|dkms-nvidia"),
)
_OPEN_PACKAGE = re.compile(
    r"nvidia-(kernel-open|open-kernel)-dkms|nvidia-dkms(-\d+)?(-server)?-open|kmod-nvidia-open-dkms|nvidia-open-kmod"
    r"|nvidia-open.*-kmp-.*|linux-modules-nvidia-.*-open-.*"
)
_CLOSED_PACKAGE = re.compile(r"nvidia-kernel-dkms|nvidia-dkms(-\d+)?(-server)?|kmod-nvidia-(latest-)?dkms|linux-modules-nvidia-.*")
# What roles decide from: the driver, its repositories, and what modules are built with
_LISTED_PACKAGE = re.compile(
    r".*nvidia.*|cuda-drivers.*|cuda-keyring|cuda-repo.*|libcuda1|libcudadebugger1|libnvcuvid1|libnvsdm.*|nvlsm|infiniband-diags|dkms"
    r"|linux-(headers|image)-.*|pve-headers.*|kernel(-core|-devel|-devel-matched|-headers|-modules|-modules-core|-modules-extra)?"
    r"|kernel-default(-devel)?|unattended-upgrades|dnf-automatic|python3-dnf-plugin-versionlock|mokutil"
)
_NVIDIA_MAKERS = re.compile(r"cudatools|@nvidia\.com|\bNVIDIA Corporation\b|^NVIDIA\b", re.I)
_DISTRIBUTIONS = re.compile(r"debian|ubuntu|canonical|red hat|rocky|alma|centos|oracle|suse|amazon|fedora project|system76|pop!?_os|kylin", re.I)
_CUDA_REPOSITORY = re.compile(r"cuda.*\.(list|sources|repo)|nvidia-driver-local-.*\.(list|sources|repo)")


@dataclass(frozen=True)
class Package:
    """One installed package. ``version`` is the package manager's."""

    name: str
    version: str
    maker: str = ""
    held: bool = False


@dataclass(frozen=True)
class ModuleFile:
    """What modinfo says of one file."""

    path: str
    version: str = ""
    licence: str = ""
    signer: str = ""


@dataclass(frozen=True)
class Driver:
    """All that is known of the driver. ``parts`` holds the versions that should be one: loaded, library, module."""

    state: str
    version: str = ""
    flavour: str = ""
    cuda_version: str = ""
    installed_version: str = ""
    source: str = ""
    floor: str = ""
    below_floor: Optional[bool] = None
    parts: tuple[tuple[str, str], ...] = ()
    holders: tuple[Mapping[str, Any], ...] = ()

    @property
    def branch(self) -> Optional[int]:
        found = numbers(self.version or self.installed_version)
        return found[0] if found else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "version": self.version,
            "flavour": self.flavour,
            "cuda_version": self.cuda_version,
            "installed_version": self.installed_version,
            "branch": self.branch,
            "source": self.source,
            "floor": self.floor,
            "below_floor": self.below_floor,
            "parts": dict(self.parts),
            "holders": [dict(holder) for holder in self.holders],
        }


def parse_packages(text: str) -> dict[str, Package]:
    """The installed packages by name: the answer to :data:`gpu_raw.DPKG_QUERY` or its kin. Of a package in several versions, the newest."""
    found: dict[str, Package] = {}
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) < 4 or cells[0][1:2] != "i":
            continue
        # No epoch and epoch 0 are the same, and rpm always has one
        name, version = cells[1].partition(":")[0], re.sub(r"^0:", "", cells[2])
        package = Package(name, version, cells[4].replace("(none)", "").strip() if len(cells) > 4 else "", cells[0][:1] == "h")
        # Kernels of one version differ in what follows it
        if name not in found or release_numbers(version) > release_numbers(found[name].version):
            found[name] = package
    return found


# dpkg's states between not there and installed, by the letter of dpkg-query
_UNFINISHED = {"H": "half-installed", "U": "unpacked", "F": "half-configured", "W": "triggers-awaited", "t": "triggers-pending"}
_LETTERS = {"installed": "i", **{word: letter for letter, word in _UNFINISHED.items()}}


def parse_unfinished(text: str) -> dict[str, str]:
    """Packages that dpkg has begun to change and not finished, with the state that each was left in."""
    found = {}
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) >= 4 and cells[0][1:2] in _UNFINISHED:
            found[cells[1].partition(":")[0]] = _UNFINISHED[cells[0][1]]
    return {name: found[name] for name in sorted(found)}


def unfinished(raw: Raw) -> dict[str, str]:
    """Of those packages that roles decide from."""
    found = parse_unfinished(raw.packages) if raw.package_manager == "dpkg" else {}
    return {name: state for name, state in found.items() if _LISTED_PACKAGE.fullmatch(name)}


def parse_dpkg_status(text: str) -> str:
    """/var/lib/dpkg/status as :data:`gpu_raw.DPKG_QUERY` would print it: for a disk whose dpkg cannot be run."""
    lines = []
    for paragraph in re.split(r"\n\s*\n", text):
        values = dict(re.findall(r"^(Package|Status|Version|Architecture|Maintainer): *(.*)$", paragraph, re.M))
        words = values.get("Status", "").split()
        if len(words) == 3 and words[2] in _LETTERS:
            wish = "h" if words[0] == "hold" else "i"
            cells = (values.get(key, "") for key in ("Package", "Version", "Architecture", "Maintainer"))
            lines.append("\t".join((f"{wish}{_LETTERS[words[2]]} ", *cells)))
    return "\n".join(lines)


def listed(packages: Mapping[str, Package]) -> dict[str, str]:
    """The packages that roles decide from, with their versions."""
    return {name: packages[name].version for name in sorted(packages) if _LISTED_PACKAGE.fullmatch(name)}


def proc_version(text: str) -> tuple[str, str]:
    """Version and flavour of the loaded module: /proc/driver/nvidia/version."""
    found = _PROC_VERSION.search(text)
    if not found:
        return "", ""
    return found.group(1), "open" if "Open Kernel Module" in text.partition("\n")[0] else "proprietary"


def parse_modinfo(text: str) -> dict[str, ModuleFile]:
    """Files of kernel modules, by path."""
    found: dict[str, ModuleFile] = {}
    values: dict[str, str] = {}

    def finish() -> None:
        if values.get("filename"):
            path = values["filename"]
            found[path] = ModuleFile(path, upstream(values.get("version", "")), values.get("license", ""), values.get("signer", ""))

    for line in text.splitlines():
        match = re.match(r"(filename|version|license|signer): +(.*?)\s*$", line)
        if not match:
            continue
        if match.group(1) == "filename":
            finish()
            values = {}
        values.setdefault(match.group(1), match.group(2))
    finish()
    return found


def module_flavour(licence: str) -> str:
    return {"NVIDIA": "proprietary", "": ""}.get(licence, "open")


def kernels(raw: Raw) -> list[dict[str, Any]]:
    """The kernels, the oldest first, and for each whether an NVIDIA module waits for it."""
    modules = parse_modinfo(raw.modinfo.text)
    return [
        {
            "release": kernel.release,
            "headers": kernel.headers,
            "image": kernel.image,
            "nvidia_module": _module_version(kernel, modules),
        }
        for kernel in sorted(raw.kernels, key=lambda kernel: boot_order(kernel.release))
    ]


def release_numbers(release: str) -> tuple[int, ...]:
    """What orders kernels. The name of the system (``.el9_4``, ``.fc42``) stands behind the build, and is no part of it: 427.8.1.el9 is newer than 427.el9."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", re.split(r"\.(?=[A-Za-z])", release)[0]))


def boot_order(release: str) -> tuple[tuple[int, ...], bool, str]:
    """The last one is booted next. Of two flavours of one version (amd64, cloud-amd64) GRUB takes the one whose name is last; RHEL's variants
    (x86_64+debug) are booted where somebody chose them, and not because they are installed."""
    return release_numbers(release), not re.search(r"\.[a-z]\w*\+[a-z0-9-]+$", release), release


def _module_version(kernel: Kernel, modules: Mapping[str, ModuleFile]) -> str:
    if not kernel.modules:
        return ""
    module = modules.get(kernel.modules[0])
    # A module that cannot be asked is there all the same
    return module.version if module and module.version else "unknown"


def floor_of(version: str) -> tuple[str, Optional[bool]]:
    """The floor for a driver, and whether it is below: its branch's, or that of the next branch which still gets fixes."""
    found = numbers(version)
    if not found:
        return "", None
    branches = [branch for branch in sorted(data_nvidia.DRIVER_FLOORS) if branch >= found[0]]
    if not branches:
        # Newer than the newest bulletin
        return "", False
    floor = data_nvidia.DRIVER_FLOORS[branches[0]]
    return floor, not at_least(version, floor)


def driver_package(packages: Mapping[str, Package]) -> Optional[Package]:
    """The package whose version is the driver's."""
    for pattern in _DRIVER_PACKAGES:
        for name in sorted(packages):
            if pattern.fullmatch(name) and _VERSION.fullmatch(upstream(packages[name].version)):
                return packages[name]
    return None


def observe(raw: Raw, gpus: Sequence[Gpu], packages: Mapping[str, Package], csv: Sequence[SmiGpu], report: SmiReport) -> Driver:
    """The driver of a host."""
    if is_wsl(raw):
        # The driver is Windows' own; nothing of it is installed here, and its versions have floors of their own
        version = next((gpu.driver_version for gpu in csv if gpu.driver_version), report.driver_version)
        return Driver("wsl", version, cuda_version=report.cuda_version)
    loaded, flavour = proc_version(raw.proc_version or "")
    package = driver_package(packages)
    library = _newest(match.group(1) for match in map(_LIBRARY.fullmatch, raw.libraries) if match)
    running = next((kernel for kernel in raw.kernels if kernel.release == raw.kernel and kernel.modules), None)
    modules = parse_modinfo(raw.modinfo.text)
    module = modules.get(running.modules[0]) if running else None
    any_module = module or next((modules[kernel.modules[0]] for kernel in raw.kernels if kernel.modules and kernel.modules[0] in modules), None)
    installed = library or (any_module.version if any_module else "") or (upstream(package.version) if package else "")
    there = bool(installed or package or any(kernel.modules for kernel in raw.kernels))
    parts = tuple((name, value) for name, value in (("loaded", loaded), ("library", library), ("module", module.version if module else "")) if value)
    flavour = flavour or (module_flavour(any_module.licence) if any_module else "") or _package_flavour(packages)
    floor, below = floor_of(loaded or installed)
    return Driver(
        state=_state(raw, gpus, parts, there),
        version=loaded,
        flavour=flavour,
        cuda_version=report.cuda_version,
        installed_version=installed,
        source=_source(raw, package) if there or loaded else "",
        floor=floor,
        below_floor=below,
        parts=parts,
        holders=tuple(_holder(holder) for holder in raw.holders),
    )


def _holder(holder: Holder) -> dict[str, Any]:
    """Engines name the cgroup of a container by its id, in whichever words around it."""
    found = re.findall(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", holder.cgroup)
    return {"pid": holder.pid, "name": holder.name, "container": found[-1] if found else ""}


def is_wsl(raw: Raw) -> bool:
    return raw.dxg or "microsoft" in raw.kernel.lower()


def _newest(versions: Any) -> str:
    return max(versions, key=numbers, default="")


def _state(raw: Raw, gpus: Sequence[Gpu], parts: Sequence[tuple[str, str]], installed: bool) -> str:
    drivers = {gpu.driver_in_use for gpu in gpus if gpu.vendor == "nvidia"}
    if drivers == {"vfio-pci"}:
        return "vfio"
    if raw.proc_version is not None:
        answers = (raw.smi_csv.text + raw.smi_csv.errors).lower()
        disagree = len({numbers(version) for _name, version in parts}) > 1 or "version mismatch" in answers
        return "mismatch" if disagree else "loaded"
    if "nouveau" in drivers:
        return "nouveau"
    return "installed_not_loaded" if installed else "absent"


def _package_flavour(packages: Mapping[str, Package]) -> str:
    if any(_OPEN_PACKAGE.fullmatch(name) for name in packages):
        return "open"
    return "proprietary" if any(_CLOSED_PACKAGE.fullmatch(name) for name in packages) else ""


def _source(raw: Raw, package: Optional[Package]) -> str:
    if package is None:
        return "runfile" if raw.runfile else "other"
    if _NVIDIA_MAKERS.search(package.maker):
        # Debian's maintainers are called "Debian NVIDIA Maintainers"
        return "distribution" if re.search(r"debian", package.maker, re.I) else "nvidia_repository"
    if _DISTRIBUTIONS.search(package.maker):
        return "distribution"
    if not package.maker and any(_CUDA_REPOSITORY.fullmatch(name) for name in raw.repositories):
        return "nvidia_repository"
    return "other"
