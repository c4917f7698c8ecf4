# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask a host for its container engines without needing anything but Python: this runs before the SDK is installed."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import socket
import sys
from typing import Any, Callable, Sequence

from .._core import container_engine
from .._core.container_engine import Host, Probe
from .._core.data_container_engine import PYTHON_PACKAGES

TIMEOUT_SECONDS = 20
PODMAN_VERSION = ("podman", "version", "--format", "{{.Client.Version}}")
PROGRAMS = {"docker": "dockerd", "podman": "podman"}

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


class _Connection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def observe(wanted: str, docker_socket: str, run: Run) -> dict[str, Any]:
    """The result of module container_engine_info."""
    probes = [_docker(docker_socket), _podman(run)]
    return container_engine.result(wanted, probes, _host())


def _program(name: str) -> bool:
    # Daemons are in sbin, which is not on every user's PATH
    return shutil.which(PROGRAMS[name], path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin") is not None


def _docker(path: str) -> Probe:
    answer, problem = docker_answer(path, "/version")
    version = str(answer.get("Version") or "")
    return Probe("docker", _program("docker"), version, path, problem or ("" if version else f"{path} does not answer: no version"))


def docker_answer(path: str, page: str, timeout: float = TIMEOUT_SECONDS) -> tuple[dict[str, Any], str]:
    """What Docker says on ``page`` of its API, and why it says nothing: one of the two is empty."""
    connection = _Connection(path, timeout)
    try:
        # An idle daemon that is started by its socket answers late; one that hangs must not hang us
        connection.request("GET", page)
        answer = connection.getresponse()
        body = answer.read(1024 * 1024)
        if answer.status != 200:
            return {}, f"{path} answers with status {answer.status}"
        found = json.loads(body)
    except FileNotFoundError:
        return {}, f"{path} does not exist"
    except PermissionError:
        return {}, f"{path} may not be used by this user: set become: true"
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as exc:
        return {}, f"{path} does not answer: {exc}"
    finally:
        connection.close()
    return (found, "") if isinstance(found, dict) else ({}, f"{path} does not answer: no mapping")


def _podman(run: Run) -> Probe:
    if not _program("podman"):
        return Probe("podman", False, problem="podman is not installed")
    status, output, errors = run(list(PODMAN_VERSION))
    if status != 0 or not output.strip():
        return Probe("podman", True, problem=f"podman version fails: {(errors or output).strip()}")
    return Probe("podman", True, output.strip())


def _host() -> Host:
    return Host(
        os_release=container_engine.parse_os_release(_read("/etc/os-release") or _read("/usr/lib/os-release")),
        service_manager=service_manager(),
        apparmor=_read("/sys/module/apparmor/parameters/enabled").strip() == "Y",
        python=sys.executable,
        python_is_systems=sys.prefix == sys.base_prefix and os.path.dirname(os.path.realpath(sys.executable)) == "/usr/bin",
        missing_python_modules=tuple(name for name in PYTHON_PACKAGES if importlib.util.find_spec(name) is None),
    )


def service_manager(root: str = "/") -> str:
    """What starts services on a host."""
    # systemd makes this folder early at boot, and only where it is in charge
    if os.path.isdir(os.path.join(root, "run/systemd/system")):
        return "systemd"
    path = os.pathsep.join(os.path.join(root, folder) for folder in ("usr/sbin", "sbin", "usr/bin"))
    return "sysvinit" if shutil.which("service", path=path) else "none"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""
