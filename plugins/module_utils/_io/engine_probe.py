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
import urllib.parse
from typing import Any, Callable, Sequence

from .._core import container_engine
from .._core import data_container_engine as data
from .._core.container_engine import Host, Probe, Service, Wishes
from .._core.data_container_engine import PYTHON_PACKAGES
from .._core.errors import AikitError

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


def observe(wishes: Wishes, docker_socket: str, run: Run, storage: bool = False, restart: bool = False) -> dict[str, Any]:
    """The result of module container_engine_info. ``storage``: ask Podman what it holds, which takes it a while; ``restart``: ask Docker what
    would not run again after one."""
    probes = [_docker(docker_socket), _podman(run, storage)]
    host = _host(run, wishes.looks_for_buildx)
    return {**container_engine.result(wishes, probes, host), "lost_by_restart": _lost_by_restart(docker_socket) if restart else []}


def _lost_by_restart(path: str) -> list[str]:
    (about, running), problem = docker_answers(path, "/info", "/containers/json")
    if problem:
        # One that does not answer may have containers all the same
        raise AikitError(f"What a restart of Docker would stop cannot be asked: {problem}.", "Nothing was restarted. docker ps says whether it works.")
    asked = [docker_answers(path, f"/containers/{one['Id']}/json") for one in running]
    # One that ended meanwhile has nothing to lose
    return container_engine.lost_by_restart(bool(about.get("LiveRestoreEnabled")), [inspected for (inspected,), gone in asked if not gone])


def _program(name: str) -> bool:
    # Daemons are in sbin, which is not on every user's PATH
    return shutil.which(PROGRAMS[name], path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin") is not None


def _docker(path: str) -> Probe:
    installed = _program("docker")
    label = urllib.parse.quote(json.dumps({"label": [data.SERVICE_LABEL]}))
    (found, about, services), problem = docker_answers(path, "/version", "/info", f"/containers/json?all=1&filters={label}")
    try:
        parts = [str(part.get("Name", "")) for part in found.get("Components") or ()]
        product = next((name for name in parts if name.startswith("Podman")), str((found.get("Platform") or {}).get("Name", "")))
        return Probe(
            "docker",
            installed,
            "" if problem else str(found["Version"]),
            path,
            problem,
            product=product,
            root=str(about.get("DockerRootDir", "")),
            containers=int(about.get("Containers") or 0),
            images=int(about.get("Images") or 0),
            services=tuple(Service(str(one["Names"][0]).lstrip("/"), one.get("State") == "running") for one in services if one.get("Names")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        return Probe("docker", installed, "", path, problem or f"{path} does not answer: {exc}")


def docker_answers(path: str, *pages: str, timeout: float = TIMEOUT_SECONDS) -> tuple[list[Any], str]:
    """What Docker says on ``pages`` of its API, over one connection; empty answers, and why, where it does not say all."""
    connection = _Connection(path, timeout)
    try:
        # An idle daemon that is started by its socket answers late; one that hangs must not hang us
        return [_get(connection, page) for page in pages], ""
    except FileNotFoundError:
        problem = f"{path} does not exist"
    except PermissionError:
        problem = f"{path} may not be used by this user: set become: true"
    except _Status as exc:
        problem = f"{path} answers with status {exc}"
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as exc:
        problem = f"{path} does not answer: {exc}"
    finally:
        connection.close()
    return [{} for _page in pages], problem


class _Status(Exception):
    """An answer that is not 200."""


def _get(connection: _Connection, path: str) -> Any:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read(16 * 1024 * 1024)
    if answer.status != 200:
        raise _Status(answer.status)
    return json.loads(body)


def _podman(run: Run, storage: bool) -> Probe:
    if not _program("podman"):
        return Probe("podman", False, problem="podman is not installed")
    status, output, errors = run(list(PODMAN_VERSION))
    if status != 0 or not output.strip():
        return Probe("podman", True, problem=f"podman version fails: {(errors or output).strip()}")
    version = output.strip()
    if not storage:
        return Probe("podman", True, version)
    status, output, errors = run(["podman", "info", "--format", "json"])
    try:
        store = json.loads(output)["store"]
        return Probe(
            "podman", True, version, root=store["graphRoot"], containers=int(store["containerStore"]["number"]), images=int(store["imageStore"]["number"])
        )
    except (ValueError, KeyError, TypeError):
        return Probe("podman", True, problem=f"podman info fails: {(errors or output).strip()[:500]}")


def _installed(run: Run) -> dict[str, str]:
    """Version of each watched package that is installed."""
    for program, argv in (
        ("dpkg-query", ["--show", "--showformat=${db:Status-Abbrev} ${Package} ${Version}\n", *data.WATCHED]),
        # Lines of what is not installed begin with other words
        ("rpm", ["--query", "--queryformat", "ii  %{NAME} %{VERSION}-%{RELEASE}\n", *data.WATCHED]),
    ):
        if shutil.which(program) is None:
            continue
        _status, output, _errors = run([program, *argv])
        words = [line.split() for line in output.splitlines()]
        return {line[1]: line[2] for line in words if len(line) == 3 and line[0] == "ii"}
    return {}


def _has_buildx(run: Run) -> bool:
    return shutil.which("docker") is not None and run(["docker", "buildx", "version"])[0] == 0


def _host(run: Run, buildx: bool) -> Host:
    return Host(
        os_release=container_engine.parse_os_release(_read("/etc/os-release") or _read("/usr/lib/os-release")),
        service_manager=service_manager(),
        apparmor=_read("/sys/module/apparmor/parameters/enabled").strip() == "Y",
        python=sys.executable,
        python_is_systems=sys.prefix == sys.base_prefix and os.path.dirname(os.path.realpath(sys.executable)) == "/usr/bin",
        missing_python_modules=tuple(name for name in PYTHON_PACKAGES if importlib.util.find_spec(name) is None),
        packages=_installed(run),
        snap=any(os.path.exists(path) for path in data.SNAP_PATHS),
        desktop=any(os.path.exists(path) for path in data.DESKTOP_PATHS),
        buildx=buildx and _has_buildx(run),
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
