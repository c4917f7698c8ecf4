# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read what a host has to say about its GPUs. Nothing is changed, nothing but Python is needed, and nothing is waited for without end."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
from typing import Any, Callable, Mapping, Optional, Sequence

from .._core import cdi, data_gpu, data_nvidia_driver, gpu, gpu_driver, gpu_health, gpu_report
from .._core.gpu_raw import DPKG_QUERY, RPM_QUERY, SMI_CSV, SMI_LIST, SMI_XML, EngineAnswer, Holder, Kernel, Output, Raw
from . import command, engine_probe
from .tree import Tree

# For everything but nvidia-smi, which has an option
TIMEOUT_SECONDS = 10.0
# Daemons and modinfo are in sbin, which is not on every user's PATH; WSL has its nvidia-smi where no PATH leads
EXTRA_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/wsl/lib"

PCI = "sys/bus/pci/devices"
GPU_FILES = (
    "current_link_width",
    "max_link_width",
    "power_state",
    "mem_info_vram_total",
    "mem_info_vram_used",
    "mem_info_gtt_total",
    "mem_info_gtt_used",
    "product_name",
    "unique_id",
)
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
MODULE_FOLDERS = ("updates", "extra", "weak-updates", "kernel/drivers/video", "kernel/drivers/char/drm")
MODULE_FILE = re.compile(r"nvidia(-current|-current-open|-open|-tesla(-\d+)?|-legacy-\d+xx)?\.ko(\.(xz|zst|gz))?")
LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")

Run = Callable[[Sequence[str], float], "tuple[int, str, str]"]


def observe(root: str, previous: Optional[Sequence[Mapping[str, Any]]], timeout: float, run: Optional[Run] = None) -> dict[str, Any]:
    """The result of module gpu_info. Without ``previous`` the GPUs count that a role remembered on the host."""
    if previous is None:
        previous = gpu_health.remembered(Tree(root).text(data_gpu.REMEMBERED_PATH))
    return gpu_report.report(collect(root, timeout, run), previous, timeout)


class Programs:
    """The programs of the host; where another folder stands for the root, only those in its usr/bin, which are then run as they are."""

    def __init__(self, tree: Tree, run: Optional[Run]) -> None:
        self._tree = tree
        self._run = run or self._command
        self._found: dict[str, str] = {}

    def _command(self, argv: Sequence[str], timeout: float) -> tuple[int, str, str]:
        path = os.environ.get("PATH", os.defpath)
        first = self._tree.path("usr/bin") if not self._tree.real else ""
        return command.run(argv, timeout, {"PATH": os.pathsep.join(part for part in (first, path, EXTRA_PATH) if part)})

    def where(self, name: str) -> str:
        """The path of a program; empty where there is none."""
        if name not in self._found:
            if self._tree.real:
                self._found[name] = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), EXTRA_PATH))) or ""
            else:
                self._found[name] = self._tree.path(f"usr/bin/{name}") if self._tree.executable(f"usr/bin/{name}") else ""
        return self._found[name]

    def output(self, argv: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> Output:
        path = self.where(argv[0])
        return Output(*self._run([path, *argv[1:]], timeout)) if path else Output()


def collect(root: str, timeout: float, run: Optional[Run] = None) -> Raw:
    """All that is read."""
    tree = Tree(root)
    programs = Programs(tree, run)
    if tree.is_file("System/Library/CoreServices/SystemVersion.plist"):
        return _mac(programs)
    pci = _pci(tree)
    kernels = _kernels(tree)
    modules = [kernel.modules[0] for kernel in kernels if kernel.modules]
    manager, packages = _packages(tree, programs)
    service_manager = engine_probe.service_manager(tree.root)
    persistence = any(tree.exists(f"{folder}/systemd/system/nvidia-persistenced.service") for folder in ("usr/lib", "lib", "etc"))
    dxg = tree.exists("dev/dxg")
    proc_version = _optional(tree, "proc/driver/nvidia/version")
    nvswitches = tree.names("proc/driver/nvidia-nvswitch/devices")
    vpd = _vpd(tree) if any(map(gpu.may_have_nvlink5, pci)) else []
    # nvidia-smi loads the driver where it is not loaded; to look must change nothing
    smi = _smi(programs, timeout) if proc_version is not None or dxg else (Output(), Output(), Output())
    manages_fabric = nvswitches or vpd or any(map(gpu.is_nvswitch, pci)) or tree.exists("usr/lib/systemd/system/nvidia-fabricmanager.service")
    return Raw(
        system="Linux",
        kernel=tree.text("proc/sys/kernel/osrelease").strip() or (platform.release() if tree.real else ""),
        machine=tree.text("proc/sys/kernel/arch").strip() or platform.machine(),
        os_release=tree.text("etc/os-release") or tree.text("usr/lib/os-release"),
        service_manager=service_manager,
        pci=pci,
        pci_ids=(tree.text("usr/share/misc/pci.ids") or tree.text("usr/share/hwdata/pci.ids")) if any(map(gpu.is_gpu, pci)) else "",
        kfd=[tree.text(f"sys/class/kfd/kfd/topology/nodes/{node}/properties") for node in tree.names("sys/class/kfd/kfd/topology/nodes")],
        meminfo=tree.text("proc/meminfo"),
        cpuinfo_hypervisor=bool(re.search(r"^flags\s*:.*\bhypervisor\b", tree.text("proc/cpuinfo", 65536), re.M)),
        proc_version=proc_version,
        proc_gpus={name: tree.text(f"proc/driver/nvidia/gpus/{name}/information") for name in tree.names("proc/driver/nvidia/gpus")},
        holders=_holders(tree) if proc_version is not None else (),
        nvswitches=nvswitches,
        vpd=vpd,
        smi_csv=smi[0],
        smi_xml=smi[1],
        smi_list=smi[2],
        smi_path=programs.where("nvidia-smi") or "nvidia-smi",
        libraries=_libraries(tree),
        runfile=tree.exists("usr/bin/nvidia-uninstall") or tree.exists("var/lib/nvidia/log"),
        kernels=kernels,
        modinfo=programs.output(["modinfo", *modules]) if modules else Output(),
        packages=packages.text if packages.status == 0 else "",
        packages_problem="" if packages.status == 0 or not manager else _unread(packages),
        package_manager=manager,
        initramfs_outdated=_initramfs_outdated(tree, kernels),
        repositories=[*tree.names("etc/apt/sources.list.d"), *tree.names("etc/yum.repos.d"), *tree.names("etc/zypp/repos.d")],
        ctk_version=programs.output(["nvidia-ctk", "--version"]) if "\tnvidia-container-toolkit" not in packages.text else Output(),
        nvidia_hook=bool(programs.where("nvidia-container-runtime-hook")),
        nvidia_cdi_hook=bool(programs.where("nvidia-cdi-hook")),
        cdi=_cdi(tree),
        engines=_engines(tree, programs),
        secure_boot=next((tree.data(f"{EFI}/{name}", 16) for name in tree.names(EFI) if name.startswith("SecureBoot-")), None),
        firmware=tree.names("sys/firmware"),
        selinux_enforce=tree.text("sys/fs/selinux/enforce"),
        selinux_config=tree.is_file("etc/selinux/config"),
        apt_configuration=_apt_configuration(tree),
        apt_preferences=_apt_preferences(tree),
        dnf_automatic=_dnf_automatic(tree),
        version_locks=tree.text("etc/dnf/plugins/versionlock.list") + tree.text("etc/dnf/versionlock.toml"),
        fabric_manager_active=programs.output(["systemctl", "is-active", "nvidia-fabricmanager"]) if manages_fabric else Output(),
        persistence_installed=persistence,
        persistence_active=programs.output(["systemctl", "is-active", "nvidia-persistenced"]) if persistence else Output(),
        dxg=dxg,
        kernel_log=_kernel_log(tree),
    )


EFI = "sys/firmware/efi/efivars"


def _mac(programs: Programs) -> Raw:
    return Raw(
        system="Darwin",
        kernel=platform.release(),
        machine=platform.machine(),
        system_profiler=programs.output(["system_profiler", "SPDisplaysDataType", "-json"]),
        memsize=programs.output(["sysctl", "-n", "hw.memsize"]),
        engines=[_podman(programs)],
    )


def _optional(tree: Tree, name: str) -> Optional[str]:
    data = tree.data(name)
    return None if data is None else data.decode("utf-8", "replace")


def _pci(tree: Tree) -> list[dict[str, str]]:
    found = []
    for address in tree.names(PCI):
        folder = f"{PCI}/{address}"
        record = {"address": address, **{name: tree.text(f"{folder}/{name}", 64).strip() for name in ("vendor", "device", "class")}}
        if gpu.is_gpu(record):
            record["driver"] = tree.link(f"{folder}/driver")
            record.update((name, value) for name in GPU_FILES for value in [tree.text(f"{folder}/{name}", 256).strip()] if value)
            # The slot, or the switch, that the card is plugged into: the folder above it
            place = tree.resolve(folder)
            above = "" if place is None else os.path.relpath(os.path.dirname(place), tree.root)
            record["port_max_link_width"] = tree.text(f"{above}/max_link_width", 64).strip() if above else ""
        found.append(record)
    return found


def _vpd(tree: Tree) -> list[str]:
    folder = "sys/class/infiniband"
    return [(tree.data(f"{folder}/{name}/device/vpd", 4096) or b"").decode("latin-1") for name in tree.names(folder)]


def _smi(programs: Programs, timeout: float) -> tuple[Output, Output, Output]:
    csv = programs.output(["nvidia-smi", *SMI_CSV], timeout)
    if csv.hung or not csv.found:
        return csv, Output(), Output()
    xml = programs.output(["nvidia-smi", *SMI_XML], timeout)
    listed = programs.output(["nvidia-smi", *SMI_LIST], timeout) if not xml.hung and gpu_report.wants_list(csv.text) else Output()
    return csv, xml, listed


def _kernels(tree: Tree) -> list[Kernel]:
    base = "lib/modules" if tree.is_folder("lib/modules") else "usr/lib/modules"
    found = []
    for release in tree.names(base):
        folder = f"{base}/{release}"
        if not tree.is_folder(folder):
            continue
        image = tree.exists(f"boot/vmlinuz-{release}") or tree.exists(f"{folder}/vmlinuz") or tree.exists(f"{folder}/modules.builtin")
        found.append(Kernel(release, headers=tree.is_folder(f"{folder}/build"), image=image, modules=_modules(tree, folder)))
    return found


def _holders(tree: Tree) -> list[Holder]:
    """Processes that have a node of the driver open: as long as there is one, its module cannot be taken out."""
    found = []
    for pid in sorted(int(name) for name in tree.names("proc") if name.isdigit()):
        if any(target.startswith("/dev/nvidia") for target in tree.targets(f"proc/{pid}/fd")):
            found.append(Holder(pid, tree.text(f"proc/{pid}/comm", 64).strip(), tree.text(f"proc/{pid}/cgroup", 65536)))
    return found


def _initramfs_outdated(tree: Tree, kernels: Sequence[Kernel]) -> bool:
    """Whether the next early file system is older than what keeps nouveau from loading: that was written, and the rebuild did not come to its end."""
    written = tree.modified(data_nvidia_driver.NOUVEAU_PATH)
    newest = max((kernel.release for kernel in kernels if kernel.image), key=gpu_driver.boot_order, default="")
    if written is None or not newest:
        return False
    made = [tree.modified(f"boot/{name}") for name in (f"initrd.img-{newest}", f"initramfs-{newest}.img")]
    return any(moment is not None and moment < written for moment in made)


def _modules(tree: Tree, folder: str) -> tuple[str, ...]:
    """Files of the NVIDIA driver, in the order in which modprobe would take them."""
    prebuilt = [f"kernel/{name}" for name in tree.names(f"{folder}/kernel") if name.startswith("nvidia")]
    found = []
    for name in (*MODULE_FOLDERS, *prebuilt):
        place = tree.resolve(f"{folder}/{name}")
        for here, folders, files in os.walk(place) if place else ():
            folders.sort()
            for file in sorted(files):
                path = os.path.join(here, file)
                # A link in weak-updates may lead nowhere
                if MODULE_FILE.fullmatch(file) and tree.is_file(os.path.relpath(path, tree.root)):
                    found.append(path)
    return tuple(found)


def _libraries(tree: Tree) -> list[str]:
    # Debian keeps each driver in a folder of its own
    folders = [*LIBRARY_FOLDERS, *(f"{folder}/nvidia/{name}" for folder in LIBRARY_FOLDERS[:2] for name in tree.names(f"{folder}/nvidia"))]
    return [name for folder in folders for name in tree.names(folder) if name.startswith("libnvidia-ml.so.")]


def _packages(tree: Tree, programs: Programs) -> tuple[str, Output]:
    """The package manager and what it has installed."""
    status = tree.is_file("var/lib/dpkg/status")
    if status and not tree.real:
        # The program below another root would speak of this machine's packages
        return "dpkg", Output(0, gpu_driver.parse_dpkg_status(tree.text("var/lib/dpkg/status", 64 * 1024 * 1024)))
    if programs.where("dpkg-query") and (status or not tree.real):
        return "dpkg", programs.output(DPKG_QUERY)
    if programs.where("rpm"):
        query = list(RPM_QUERY) if tree.real else [RPM_QUERY[0], "--root", tree.root, *RPM_QUERY[1:]]
        return "rpm", programs.output(query)
    return "", Output()


def _unread(output: Output) -> str:
    """Why the package manager did not say what it has."""
    said = (output.errors or output.text).strip().splitlines()
    return f"status {output.status}: {said[-1].strip()[:200] if said else 'it says nothing'}"


def _cdi(tree: Tree) -> dict[str, str]:
    found = {}
    for folder in CDI_FOLDERS:
        for name in tree.names(folder):
            if name.endswith(cdi.SPEC_SUFFIXES):
                found[f"{folder}/{name}"] = tree.text(f"{folder}/{name}")
    return found


def _engines(tree: Tree, programs: Programs) -> list[EngineAnswer]:
    return [_docker(tree, programs), _podman(programs), _containerd(tree, programs)]


def _docker(tree: Tree, programs: Programs) -> EngineAnswer:
    installed = bool(programs.where("dockerd"))
    # The socket itself may be a link out of another root, to the daemon that is meant
    path = os.path.join(tree.resolve("var/run") or tree.root, "docker.sock")
    (answer, info), problem = engine_probe.docker_answers(path, "/version", "/info", timeout=TIMEOUT_SECONDS)
    options = info.get("SecurityOptions")
    return EngineAnswer(
        "docker",
        installed=installed,
        version=str(answer.get("Version") or ""),
        info=info,
        problem=problem if installed else "",
        rootless=isinstance(options, list) and any("rootless" in str(option) for option in options),
    )


def _podman(programs: Programs) -> EngineAnswer:
    output = programs.output(engine_probe.PODMAN_VERSION)
    good = output.status == 0
    problem = "" if good or not output.found else f"podman version fails: {(output.errors or output.text).strip()}"
    return EngineAnswer("podman", installed=output.found, version=output.text.strip() if good else "", problem=problem, rootless=os.geteuid() != 0)


def _containerd(tree: Tree, programs: Programs) -> EngineAnswer:
    output = programs.output(["containerd", "--version"])
    version = re.search(r"\sv?(\d+\.\d+\S*)", output.text) if output.status == 0 else None
    # Its own answer: what files leave out, and what one of them takes back, is in it. Beside Docker it is Docker's, and nobody asks
    dump = programs.output(["containerd", "config", "dump"]) if version and not programs.where("dockerd") else Output()
    configuration = dump.text if dump.status == 0 else tree.text("etc/containerd/config.toml")
    listens = _listens(os.path.join(tree.resolve("run") or tree.root, "containerd/containerd.sock")) if version else False
    return EngineAnswer("containerd", installed=output.found, version=version.group(1) if version else "", config=configuration, listens=listens)


def _listens(path: str) -> bool:
    """Whether someone answers calls there: a socket outlives a daemon that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(TIMEOUT_SECONDS)
        try:
            caller.connect(path)
        except OSError:
            return False
    return True


def _apt_configuration(tree: Tree) -> str:
    names = [name for name in tree.names("etc/apt/apt.conf.d") if re.fullmatch(r"[\w-]+(\.conf)?", name)]
    return "\n".join(tree.text(f"etc/apt/{name}") for name in (*(f"apt.conf.d/{name}" for name in names), "apt.conf"))


def _apt_preferences(tree: Tree) -> str:
    names = [name for name in tree.names("etc/apt/preferences.d") if re.fullmatch(r"[\w-]+(\.pref)?", name)]
    # An empty line ends a record, also between files
    return "\n\n".join(tree.text(f"etc/apt/{name}") for name in ("preferences", *(f"preferences.d/{name}" for name in names)))


def _dnf_automatic(tree: Tree) -> bool:
    timers = [name for name in tree.names("etc/systemd/system/timers.target.wants") if name.startswith(("dnf-automatic", "dnf5-automatic"))]
    applies = re.search(r"^\s*apply_updates\s*=\s*(yes|true|1)\b", tree.text("etc/dnf/automatic.conf"), re.M | re.I)
    return any("install" in name or applies for name in timers)


def _kernel_log(tree: Tree) -> Optional[str]:
    """The kernel's messages since it booted; None where they may not be read."""
    if not tree.real:
        return _optional(tree, "dev/kmsg") or _optional(tree, "var/log/dmesg")
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    lines = []
    try:
        while True:
            try:
                record = os.read(descriptor, 8192)
            except BrokenPipeError:
                # The oldest messages went while they were read
                continue
            except OSError:
                break
            if not record:
                break
            # "6,339,5140900,-;text", then lines of details
            lines.append(record.partition(b"\n")[0].partition(b";")[2])
    finally:
        os.close(descriptor)
    return b"\n".join(lines).decode("utf-8", "replace")
