# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host has: GPUs that its engine can hand out, listening sockets, state files."""

from __future__ import annotations

import glob
import os
import shutil
from typing import Any, Iterable, Optional

from .._core import cdi
from .._core.errors import AikitError
from .._core.procnet import Listener, listeners, socket_inode
from .engine import Engine

# Where Podman looks, and Docker where it does not say; the daemon's own answer comes first
CDI_DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
NVIDIA_HOOK = "nvidia-container-runtime-hook"
# dockerd started by hand or by a minimal init may have a longer PATH than the user that asks
EXTRA_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATE_SUFFIX = ".json"


def describe(engine: Engine) -> dict[str, Any]:
    """``{engine, cdi_devices, nvidia_hook, gpu_count, cores}``: what a container specification depends on."""
    version = engine.version()
    found = list(version.get("cdi_devices") or ())
    directories = version.get("cdi_spec_dirs") or (CDI_DIRECTORIES if engine.name == "podman" else ())
    if not found:
        found = [name for text in _texts(_cdi_files(directories)) for name in cdi.devices(text)]
    path = os.pathsep.join((os.environ.get("PATH", ""), EXTRA_PATH))
    return {
        "engine": {"name": engine.name, **version},
        "cdi_devices": sorted(set(found)),
        "nvidia_hook": shutil.which(NVIDIA_HOOK, path=path) is not None or "nvidia" in (version.get("runtimes") or ()),
        "gpu_count": len(glob.glob("/proc/driver/nvidia/gpus/*")),
        "cores": cores(),
    }


def cores(root: str = "/sys/devices/system/cpu") -> int:
    """Cores, not their hardware threads: what llama.cpp counts too."""
    siblings = set(_texts(glob.glob(os.path.join(root, "cpu[0-9]*/topology/thread_siblings_list"))))
    return len(siblings) or os.cpu_count() or 0


def listening(ports: Iterable[int], root: str = "/proc") -> list[tuple[Listener, str]]:
    """The listening TCP sockets on ``ports``, each with the process behind it ("nginx (pid 12)"), "" where it cannot be seen."""
    wanted = set(ports)
    found = [
        listener
        for name in ("tcp", "tcp6")
        for text in _texts([os.path.join(root, "net", name)])
        for listener in listeners(text)
        if listener.port in wanted
    ]
    owners = _socket_owners({listener.inode for listener in found}, root) if found else {}
    return [(listener, owners.get(listener.inode, "")) for listener in found]


def state_path(directory: str, service: str) -> str:
    return os.path.join(directory, service + STATE_SUFFIX)


def read_text(path: str) -> Optional[str]:
    """The text of a file; None when there is none."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        raise AikitError(f"{path} is no text: {exc}.", "Move the file away and deploy again.") from None


def services(directory: str) -> list[str]:
    """The names of all services that have a state file."""
    return [os.path.basename(path)[: -len(STATE_SUFFIX)] for path in sorted(glob.glob(os.path.join(glob.escape(directory), "*" + STATE_SUFFIX)))]


def other_states(directory: str, service: str) -> list[tuple[str, str]]:
    """Service and text of every other state file."""
    return [(other, read_text(state_path(directory, other)) or "") for other in services(directory) if other != service]


def service_files(directory: str, service: str) -> list[str]:
    """Files of single releases that the role wrote for a service: configuration and API keys."""
    folder = glob.escape(os.path.join(directory, service))
    return sorted(path for pattern in ("config-*.yaml", "api-key-*") for path in glob.glob(os.path.join(folder, pattern)))


def delete(path: str) -> None:
    """A file or a folder with all that is in it; nothing when it is gone already."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _cdi_files(directories: Iterable[str]) -> list[str]:
    return [path for directory in directories for path in sorted(glob.glob(os.path.join(directory, "*"))) if path.endswith(cdi.SPEC_SUFFIXES)]


def _texts(paths: Iterable[str]) -> list[str]:
    """What can be read of ``paths``: a file that vanished, or is not ours to read, tells nothing."""
    found = []
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                found.append(handle.read())
        except OSError:
            continue
    return found


def _socket_owners(inodes: set[int], root: str) -> dict[int, str]:
    owners: dict[int, str] = {}
    for directory in glob.iglob(os.path.join(root, "[0-9]*")):
        try:
            links = os.scandir(os.path.join(directory, "fd"))
        except OSError:
            continue
        with links:
            for link in links:
                try:
                    inode = socket_inode(os.readlink(link.path))
                except OSError:
                    continue
                # Several processes may share a socket; the one with the lowest number listened first
                if inode in inodes:
                    pid = int(os.path.basename(directory))
                    if inode not in owners or pid < int(owners[inode].rpartition(" ")[2].rstrip(")")):
                        owners[inode] = f"{_command(directory)} (pid {pid})"
    return owners


def _command(directory: str) -> str:
    """The name of a program, without its arguments: they may hold secrets."""
    for text in _texts([os.path.join(directory, "comm")]):
        return text.strip() or "a process"
    return "a process"
