# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which container engine a host has, and what it takes to give it one."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from . import data_container_engine as data
from .errors import AikitError

NAMES = ("docker", "podman")


@dataclass(frozen=True)
class Probe:
    """What one engine said. ``installed``: its program is there; ``version`` is empty unless it answers."""

    name: str
    installed: bool
    version: str = ""
    socket: str = ""
    problem: str = ""

    @property
    def answers(self) -> bool:
        return bool(self.version)


@dataclass(frozen=True)
class Host:
    """What else decides how an engine is installed and started."""

    os_release: Mapping[str, str]
    service_manager: str
    apparmor: bool
    python: str
    python_is_systems: bool
    missing_python_modules: tuple[str, ...]


def parse_os_release(text: str) -> dict[str, str]:
    """The settings of /etc/os-release."""
    found = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and re.match(r"[A-Z][A-Z0-9_]*\Z", key.strip()):
            try:
                words = shlex.split(value, comments=True)
            except ValueError:
                # A quote that nothing closes
                words = [value.strip().strip("\"'")]
            found[key.strip()] = words[0] if words else ""
    return found


def choose(wanted: str, probes: Sequence[Probe]) -> Probe:
    """The engine to use: the one that is wanted; with ``auto`` the first that answers, else the first that is installed, else Docker."""
    for probe in probes:
        if probe.name == wanted:
            return probe
    answering = [probe for probe in probes if probe.answers]
    installed = [probe for probe in probes if probe.installed]
    return [*answering, *installed, *probes][0]


def packages(engine: str, host: Host) -> tuple[str, ...]:
    """What to install for ``engine``; AikitError names the system when it is not one of ours."""
    name = host.os_release.get("PRETTY_NAME") or host.os_release.get("ID") or "An unknown system"
    identity = host.os_release.get("ID", "")
    # Systems built on Debian or Ubuntu carry their versions, not ours: only the two themselves are known
    versions = data.PACKAGES.get(identity)
    if versions is None:
        raise AikitError(
            f"{name} has no recipe here for {engine}.",
            f"Install {engine} there by its own means and run again: an engine that answers is used as it is. Known are: {_known()}.",
        )
    number = _version(host.os_release.get("VERSION_ID", ""))
    fitting = [named for first, named in versions if number is None or number >= first]
    if not fitting:
        raise AikitError(f"{name} is too old for {engine} to be installed.", f"Known are: {_known()}.")
    extra = (data.APPARMOR,) if engine == "docker" and host.apparmor else ()
    return (*fitting[-1][engine], *extra)


def _known() -> str:
    return ", ".join(f"{identity.capitalize()} {versions[0][0]} and newer" for identity, versions in data.PACKAGES.items())


def _version(text: str) -> Optional[int]:
    found = re.match(r"\d+", text)
    return int(found.group()) if found else None


def python_packages(engine: str, host: Host) -> tuple[str, ...]:
    """Packages that our modules lack on the host. An interpreter that is not the system's needs pip, which is the user's to run."""
    if engine != "docker" or not host.missing_python_modules:
        return ()
    if not host.python_is_systems:
        raise AikitError(
            f"{host.python} lacks the Python package {' and '.join(host.missing_python_modules)}.",
            f"{host.python} -m pip install {' '.join(host.missing_python_modules)}, or set ansible_python_interpreter to /usr/bin/python3.",
        )
    return tuple(data.PYTHON_PACKAGES[name] for name in host.missing_python_modules)


def start_hint(engine: str, service_manager: str) -> str:
    """How a person starts the engine, and learns why it ended."""
    if engine == "podman":
        return "podman info says what is wrong."
    if service_manager == "systemd":
        return "Start it with systemctl start docker; journalctl -u docker says why it ended."
    return (
        "Start it with service docker start, or without a service manager: start-stop-daemon --start --background"
        " --pidfile /var/run/docker.pid --output /var/log/docker.log --exec /usr/sbin/dockerd; /var/log/docker.log says why it ended."
    )


def result(wanted: str, probes: Sequence[Probe], host: Host) -> dict[str, Any]:
    """The result of module container_engine_info."""
    chosen = choose(wanted, probes)
    return {
        "engine": {
            "name": chosen.name,
            "version": chosen.version,
            "socket": chosen.socket,
            "installed": chosen.installed,
            "answers": chosen.answers,
            "problem": chosen.problem,
            "hint": "" if chosen.answers else start_hint(chosen.name, host.service_manager),
        },
        "packages": [] if chosen.installed or chosen.answers else list(packages(chosen.name, host)),
        "python_packages": list(python_packages(chosen.name, host)),
        "service_manager": host.service_manager,
    }
