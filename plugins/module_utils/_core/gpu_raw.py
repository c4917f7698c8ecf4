# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was read on a host about its GPUs, as it was read: texts of files, names in folders, outputs of commands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence

# As timeout(1) says it; nvidia-smi has no such status of its own
TIMED_OUT = 124

SMI_FIELDS = ("index", "uuid", "name", "pci.bus_id", "driver_version", "memory.total", "memory.free", "compute_cap", "mig.mode.current")
SMI_CSV = (f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits")
SMI_XML = ("-q", "-x")
SMI_LIST = ("-L",)

# db:Status-Abbrev tells a held package from another, the maintainer whose package it is
DPKG_QUERY = ("dpkg-query", "-W", "-f=${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Architecture}\\t${Maintainer}\\n")
RPM_QUERY = ("rpm", "-qa", "--qf", "ii \\t%{NAME}\\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{VENDOR} %{PACKAGER}\\n")


@dataclass(frozen=True)
class Output:
    """What a command said. ``status`` is 127 where there is no such command."""

    status: int = 127
    text: str = ""
    errors: str = ""

    @property
    def found(self) -> bool:
        return self.status != 127

    @property
    def hung(self) -> bool:
        return self.status == TIMED_OUT


@dataclass(frozen=True)
class Kernel:
    """One folder below /lib/modules. ``modules``: files of the NVIDIA driver in it, the one that is loaded first."""

    release: str
    headers: bool = False
    image: bool = False
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holder:
    """A process that has device nodes of the NVIDIA driver open; ``cgroup`` is the text that tells its container."""

    pid: int
    name: str = ""
    cgroup: str = ""


@dataclass(frozen=True)
class EngineAnswer:
    """What a container engine said: ``version`` and ``info`` are Docker's own answers, texts are those of commands and files."""

    name: str
    installed: bool = False
    version: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    problem: str = ""
    rootless: bool = False
    # Of an engine whose version is known while it rests; else a version is the answer
    listens: Optional[bool] = None


@dataclass(frozen=True)
class Raw:
    """All of it. A text is empty where the file is not there; ``proc_version`` and ``kernel_log`` are None then, for it says something."""

    system: str = "Linux"
    kernel: str = ""
    machine: str = ""
    os_release: str = ""
    service_manager: str = "none"
    # One mapping per PCI device: address, vendor, device, class, driver and more files of its folder
    pci: Sequence[Mapping[str, str]] = ()
    pci_ids: str = ""
    kfd: Sequence[str] = ()
    meminfo: str = ""
    cpuinfo_hypervisor: bool = False
    proc_version: Optional[str] = None
    proc_gpus: Mapping[str, str] = field(default_factory=dict)
    holders: Sequence[Holder] = ()
    nvswitches: Sequence[str] = ()
    vpd: Sequence[str] = ()
    smi_csv: Output = Output()
    smi_xml: Output = Output()
    smi_list: Output = Output()
    smi_path: str = ""
    # Files of the userspace libraries, whose names hold the version: libnvidia-ml.so.580.159.03
    libraries: Sequence[str] = ()
    runfile: bool = False
    kernels: Sequence[Kernel] = ()
    modinfo: Output = Output()
    packages: str = ""
    packages_problem: str = ""
    package_manager: str = ""
    initramfs_outdated: bool = False
    repositories: Sequence[str] = ()
    ctk_version: Output = Output()
    nvidia_hook: bool = False
    nvidia_cdi_hook: bool = False
    cdi: Mapping[str, str] = field(default_factory=dict)
    engines: Sequence[EngineAnswer] = ()
    secure_boot: Optional[bytes] = None
    firmware: Sequence[str] = ()
    selinux_enforce: str = ""
    selinux_config: bool = False
    apt_configuration: str = ""
    apt_preferences: str = ""
    dnf_automatic: bool = False
    version_locks: str = ""
    fabric_manager_active: Output = Output()
    persistence_installed: bool = False
    persistence_active: Output = Output()
    dxg: bool = False
    kernel_log: Optional[str] = None
    system_profiler: Output = Output()
    memsize: Output = Output()
