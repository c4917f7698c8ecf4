# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which container engine a host has, and what it takes to give it one."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import data_container_engine as data
from . import version
from .errors import AikitError, Finding

NAMES = ("docker", "podman")

# Where an engine comes from
DISTRIBUTION = "distribution"
DOCKER_COM = "docker"
SNAP = "snap"
DESKTOP = "desktop"
ALIAS = "podman-docker"


@dataclass(frozen=True)
class Service:
    """A container of ours, as the engine lists it."""

    name: str
    running: bool


@dataclass(frozen=True)
class Probe:
    """What one engine said. ``installed``: its program is there; ``version`` is empty unless it answers.

    ``product`` is what calls itself so on Docker's socket: "Podman Engine" there is no Docker.
    """

    name: str
    installed: bool
    version: str = ""
    socket: str = ""
    problem: str = ""
    product: str = ""
    root: str = ""
    containers: int = 0
    images: int = 0
    services: tuple[Service, ...] = ()

    @property
    def answers(self) -> bool:
        return bool(self.version)


@dataclass(frozen=True)
class Host:
    """What else decides how an engine is installed and started. ``packages``: those of ``data.WATCHED`` that are installed."""

    os_release: Mapping[str, str]
    service_manager: str
    apparmor: bool
    python: str
    python_is_systems: bool
    missing_python_modules: tuple[str, ...]
    packages: Mapping[str, str] = field(default_factory=dict)
    snap: bool = False
    desktop: bool = False
    # Looked for only where somebody wishes it
    buildx: bool = False


@dataclass(frozen=True)
class Wishes:
    """What the user asks for."""

    name: str = "auto"
    source: str = "auto"
    minimum_version: str = ""
    repository_url: str = ""
    repository_key_sha256: str = ""
    repository_key_fingerprint: str = ""
    expected_services: tuple[str, ...] = ()
    # auto, required or never; auto is for hosts that build images
    buildx: str = "auto"
    builds: bool = False

    @property
    def looks_for_buildx(self) -> bool:
        return self.buildx == "required" or (self.buildx == "auto" and self.builds)


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


def choose(wanted: str, probes: Sequence[Probe], minimum: str = "") -> Probe:
    """The engine to use: the one that is wanted; with ``auto`` the first that answers and is new enough, else the first that answers,
    else the first that is installed, else Docker."""
    for probe in probes:
        if probe.name == wanted:
            return probe
    answering = [probe for probe in probes if probe.answers]
    fit = [probe for probe in answering if new_enough(probe, minimum)]
    installed = [probe for probe in probes if probe.installed]
    return [*fit, *answering, *installed, *probes][0]


def floor(engine: str, wanted: str) -> str:
    """The oldest version that will do; a wish below what works here counts for nothing."""
    least = data.FLOORS[engine]
    return wanted if wanted and version.at_least(wanted, least) else least


def new_enough(probe: Probe, wanted: str) -> bool:
    return version.at_least(probe.version, floor(probe.name, wanted)) is not False


def without_alias(probes: Sequence[Probe]) -> list[Probe]:
    """Podman on Docker's socket (podman-docker) is Podman: it is counted once, under its own name."""
    return [
        (
            replace(probe, installed=False, version="", product="", problem=f"{probe.socket} belongs to Podman, by podman-docker or a link")
            if probe.name == "docker" and probe.product.startswith("Podman")
            else probe
        )
        for probe in probes
    ]


def origin(probe: Probe, host: Host) -> str:
    """Where an installed or answering engine comes from; empty where nobody can tell (built by hand, or another distribution)."""
    if probe.name == "podman":
        return DISTRIBUTION if "podman" in host.packages else ""
    if "Docker Desktop" in probe.product:
        return DESKTOP
    if probe.root.startswith(data.SNAP_DATA) or (host.snap and not probe.installed and not probe.answers):
        return SNAP
    if any(name in host.packages for name in data.DOCKER_CE.telling):
        return DOCKER_COM
    if any(name in host.packages for name in data.DISTRIBUTION.telling):
        return DISTRIBUTION
    return ""


def _system(host: Host) -> str:
    return host.os_release.get("PRETTY_NAME") or host.os_release.get("ID") or "An unknown system"


def _family(engine: str, host: Host) -> tuple[str, Optional[int]]:
    """Family and version of the system; AikitError names the system when it is not one of ours."""
    family = data.FAMILY.get(host.os_release.get("ID", ""))
    if family is None:
        raise AikitError(
            f"{_system(host)} has no recipe here for {engine}.",
            f"Install {engine} there by its own means and run again: an engine that answers is used as it is. Known are: {_known()}.",
        )
    number = _number(host.os_release.get("VERSION_ID", ""))
    if number is not None and number < data.PACKAGES[family][0][0]:
        raise AikitError(f"{_system(host)} is too old for {engine} to be installed.", f"Known are: {_known()}.")
    return family, number


def source(engine: str, wanted: str, host: Host) -> str:
    """Where packages come from: where the host's come from already, else the distribution where it has the engine."""
    family, _number_ = _family(engine, host)
    has = any(engine in named for _first, named in data.PACKAGES[family])
    if engine == "podman":
        return DISTRIBUTION
    if wanted == DISTRIBUTION and not has:
        raise AikitError(
            f"{_system(host)} ships no Docker of its own.",
            "Set container_engine_source to docker (docker.com's packages) or auto, or container_engine_name to podman.",
        )
    if wanted != "auto":
        return wanted
    theirs = any(name in host.packages for name in (*data.DOCKER_CE.telling, *data.DOCKER_CE.others))
    return DOCKER_COM if theirs or not has else DISTRIBUTION


def packages(engine: str, host: Host, origin_of: str = DISTRIBUTION) -> tuple[str, ...]:
    """What to install for ``engine``; AikitError names the system when it is not one of ours."""
    family, number = _family(engine, host)
    extra = (data.APPARMOR,) if engine == "docker" and host.apparmor and family != "rhel" else ()
    if origin_of == DOCKER_COM:
        return (*data.DOCKER_PACKAGES, *extra)
    fitting = [named for first, named in data.PACKAGES[family] if number is None or number >= first]
    return (*fitting[-1][engine], *extra)


def buildx_packages(engine: str, host: Host, origin_of: str, required: bool) -> tuple[str, ...]:
    """What gives Docker its plugin buildx; nothing where it is there, or where nobody has it and it is not ``required``."""
    family = data.FAMILY.get(host.os_release.get("ID", ""), "")
    if host.buildx or (engine == "podman" and not required):
        return ()
    if engine == "podman":
        raise AikitError(
            "buildx is required on this host, and its engine is Podman.", "Set container_engine_name to docker, or container_engine_buildx to auto."
        )
    if origin_of == DOCKER_COM and family:
        return (data.DOCKER_BUILDX,)
    number = _number(host.os_release.get("VERSION_ID", ""))
    first, name = data.BUILDX.get(family, (0, ""))
    if origin_of == DISTRIBUTION and name and (number is None or number >= first):
        return (name,)
    if not required:
        return ()
    if origin_of == DISTRIBUTION:
        raise AikitError(
            f"{_system(host)} has no package with buildx.",
            "docker.com has one: remove the distribution's Docker and set container_engine_source to docker (containers stop; images and volumes stay),"
            " or build on another host.",
        )
    raise AikitError(
        f"buildx is required on this host, and which package of {_system(host)} brings it is not known.",
        "Put the plugin there by the means that Docker was installed with, so that docker buildx version answers; or set container_engine_buildx to auto.",
    )


def repository(host: Host, wishes: Wishes) -> dict[str, Any]:
    """docker.com's repository for this system, or a mirror of it."""
    identity = host.os_release.get("ID", "")
    family, number = _family("docker", host)
    known = data.DOCKER_REPOSITORIES[identity]
    if number not in known.versions:
        raise AikitError(
            f"docker.com has no packages for {_system(host)}.",
            f"It has them for version {', '.join(str(one) for one in known.versions)}. Set container_engine_source to distribution.",
        )
    base = (wishes.repository_url or f"{data.DOCKER_COM}/{known.folder}").rstrip("/")
    if not re.match(r"(https?|file)://\S+\Z", base):
        raise AikitError(f"container_engine_repository_url is no address: {base}.", "It begins with https://, http:// or file://.")
    found: dict[str, Any] = {
        "manager": data.MANAGER[family],
        "key_url": f"{base}/gpg",
        "key_fingerprint": wishes.repository_key_fingerprint.replace(" ", "").upper() or known.key.fingerprint,
        "key_sha256": wishes.repository_key_sha256 or known.key.sha256,
    }
    if data.MANAGER[family] == "dnf":
        # The number instead of $releasever: that is 9.4 on a system which is held at a minor version, and no folder
        return {**found, "name": data.YUM_REPOSITORY, "url": f"{base}/{number}/$basearch/stable"}
    codename = host.os_release.get("VERSION_CODENAME", "")
    lines = ("Types: deb", f"URIs: {base}", f"Suites: {codename}", "Components: stable", f"Signed-By: {data.APT_KEY}")
    return {**found, "key_file": data.APT_KEY, "file": data.APT_SOURCE, "content": "\n".join(lines) + "\n"}


def refuse_mixture(engine: str, origin_of: str, host: Host) -> None:
    """Packages that cannot stand beside those to come. A package manager would take them away, with all that runs in them."""
    if engine == "docker" and data.ALIAS in host.packages:
        raise AikitError(
            "The package podman-docker is installed: docker on this host is Podman under another name, and the two exclude each other.",
            "Set container_engine_name to podman, or remove podman-docker and run again.",
        )
    if engine == "docker" and (host.snap or origin_of == SNAP):
        raise AikitError(
            "Docker is installed as a snap on this host. It cannot use the host's GPUs or files outside of home folders,"
            " and reads no /etc/docker/daemon.json.",
            "Save what its volumes hold, run snap remove docker, and run again; or set container_engine_name to podman.",
        )
    if engine == "docker" and (host.desktop or data.DESKTOP in host.packages):
        raise AikitError(
            "Docker Desktop is installed on this host. Its engine runs in a virtual machine that has none of the host's GPUs,"
            " and another Docker is not put beside it.",
            "Remove the package docker-desktop and run again, or set container_engine_name to podman.",
        )
    if engine != "docker":
        return
    strangers = data.DISTRIBUTION if origin_of == DOCKER_COM else data.DOCKER_CE
    found = [name for name in (*strangers.telling, *strangers.others) if name in host.packages]
    if found:
        mine, theirs = ("docker.com", "the distribution") if origin_of == DOCKER_COM else ("the distribution", "docker.com")
        raise AikitError(
            f"Docker would come from {mine}, and {' and '.join(found)} of {theirs} {'is' if len(found) == 1 else 'are'} installed:"
            " the one would remove the other.",
            f"Set container_engine_source to {DISTRIBUTION if origin_of == DOCKER_COM else DOCKER_COM}, or remove {' and '.join(found)} first"
            " (containers stop; images and volumes stay in /var/lib/docker).",
        )


def _known() -> str:
    return ", ".join(f"{data.NAMES[family]} {versions[0][0]} and newer" for family, versions in data.PACKAGES.items())


def _number(text: str) -> Optional[int]:
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
    if host.os_release.get("ID", "") not in data.FAMILY:
        raise AikitError(
            f"{host.python} lacks the Python package {' and '.join(host.missing_python_modules)}, and {_system(host)} has no recipe here.",
            "Install them by the system's own means and run again.",
        )
    return tuple(data.PYTHON_PACKAGES[name] for name in host.missing_python_modules)


def _first(python: Sequence[str], host: Host) -> tuple[str, ...]:
    """Packages that make others known."""
    epel = data.EPEL.get(host.os_release.get("ID", ""))
    return (epel,) if epel and epel not in host.packages and data.PYTHON_PACKAGES["docker"] in python else ()


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


def findings(chosen: Probe, came_from: str, wishes: Wishes, host: Host) -> list[Finding]:
    """What a user should know about an engine that is used as it is."""
    found = []
    if came_from == DESKTOP:
        found.append(
            Finding(
                "warning",
                "Docker Desktop",
                0,
                "its engine runs in a virtual machine, so the host's GPUs are there only under WSL2, and its settings belong to its own window",
            )
        )
    if wishes.source in (DISTRIBUTION, DOCKER_COM) and came_from in (DISTRIBUTION, DOCKER_COM) and chosen.name == "docker" and came_from != wishes.source:
        theirs = "the distribution" if came_from == DISTRIBUTION else "docker.com"
        found.append(
            Finding(
                "warning",
                "container_engine_source",
                0,
                f"Docker is there already, from {theirs}, and is used as it is",
                "Remove its packages first if it should come from elsewhere: containers stop, images and volumes stay",
            )
        )
    if chosen.name == "podman" and data.ALIAS in host.packages:
        found.append(Finding("note", data.ALIAS, 0, "the command docker is Podman on this host"))
    return found


def result(wishes: Wishes, probes: Sequence[Probe], host: Host) -> dict[str, Any]:
    """The result of module container_engine_info; AikitError where a host cannot get the engine, or has one that will not do."""
    chosen = choose(wishes.name, without_alias(probes), wishes.minimum_version)
    came_from = origin(chosen, host)
    least = floor(chosen.name, wishes.minimum_version)
    install = not (chosen.installed or chosen.answers)
    to_install: tuple[str, ...] = ()
    origin_of = came_from
    add_repository: dict[str, Any] = {}
    if came_from == SNAP or install:
        if came_from != SNAP:
            origin_of = source(chosen.name, wishes.source, host)
        refuse_mixture(chosen.name, origin_of, host)
        to_install = packages(chosen.name, host, origin_of)
        if origin_of == DOCKER_COM:
            add_repository = repository(host, wishes)
    if chosen.answers and not new_enough(chosen, wishes.minimum_version):
        raise AikitError(
            f"{chosen.name.capitalize()} {version.upstream(chosen.version)} is older than {least}, the oldest that will do.",
            _newer(chosen.name, came_from, host),
        )
    # Nothing is added to an engine that is there unless it is asked for: an offline builder of layers needs no buildx
    required = wishes.buildx == "required"
    if required or (wishes.looks_for_buildx and (install or came_from == SNAP)):
        to_install += tuple(name for name in buildx_packages(chosen.name, host, origin_of, required) if name not in to_install)
    python = python_packages(chosen.name, host)
    return {
        "engine": {
            "name": chosen.name,
            "version": chosen.version,
            "socket": chosen.socket,
            "installed": chosen.installed,
            "answers": chosen.answers,
            "problem": chosen.problem,
            "hint": "" if chosen.answers else start_hint(chosen.name, host.service_manager),
            "source": came_from,
            "minimum_version": least,
            "data_root": chosen.root,
            "containers": chosen.containers,
            "images": chosen.images,
        },
        "packages": list(to_install),
        "python_packages": list(python),
        "first_packages": list(_first(python, host)),
        "package_manager": data.MANAGER.get(data.FAMILY.get(host.os_release.get("ID", ""), ""), ""),
        "repository": add_repository,
        "service_manager": host.service_manager,
        "running_services": [service.name for service in chosen.services if service.running],
        "services_down": [name for name in wishes.expected_services if Service(name, True) not in chosen.services],
        "findings": [finding.as_dict() for finding in findings(chosen, came_from, wishes, host)],
    }


def lost_by_restart(live_restore: bool, containers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of those that would not run again after a restart of Docker; of running containers as ``docker inspect`` shows them."""
    return [] if live_restore else sorted(str(one.get("Name", "")).lstrip("/") for one in containers if _policy(one) not in ("always", "unless-stopped"))


def _policy(container: Mapping[str, Any]) -> str:
    return str(((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "")


def _newer(engine: str, came_from: str, host: Host) -> str:
    manager = data.MANAGER.get(data.FAMILY.get(host.os_release.get("ID", ""), ""), "")
    how = "apt-get install --only-upgrade" if manager == "apt" else "dnf upgrade"
    if came_from == DOCKER_COM:
        return f"Update it: {how} {' '.join(data.DOCKER_PACKAGES[:3])}. Containers restart with it."
    if came_from == DISTRIBUTION and engine == "docker":
        return (
            f"Update it: {how} docker.io, if the distribution has a newer one. Else remove docker.io, set container_engine_source to docker, and run again:"
            " containers stop, images and volumes stay."
        )
    return "Update it by the means that it was installed with, or lower container_engine_minimum_version."


def configuration(
    observed: Mapping[str, Any],
    data_root: str = "",
    registry_mirrors: Sequence[str] = (),
    log_max_size: str = "",
    log_max_files: int = 0,
    live_restore: Optional[bool] = None,
    settings: Optional[Mapping[str, Any]] = None,
    absent: Sequence[str] = (),
) -> dict[str, Any]:
    """What role container_engine sets up in the engine that module container_engine_info found: nothing that nobody asked for.

    ``docker``: ``settings`` and ``absent`` for module docker_daemon_config. ``podman``: the text of a drop-in with mirrors, and options
    of storage.conf.
    """
    engine = observed["engine"]
    mirrors = [_mirror(mirror) for mirror in registry_mirrors]
    if data_root:
        refuse_move(engine, data_root)
    if engine["name"] == "podman":
        for name, value in (
            ("container_engine_docker_log_max_size", log_max_size),
            ("container_engine_docker_log_max_files", log_max_files),
            ("container_engine_docker_live_restore", live_restore is not None),
            ("container_engine_docker_settings", settings),
            ("container_engine_docker_settings_absent", absent),
        ):
            if value:
                raise AikitError(f"{name} is set, and the engine of this host is Podman.", "It is for Docker only: take it out for this host.")
        return {"docker": {"settings": {}, "absent": [], "wanted": False}, "podman": _podman(data_root, mirrors)}
    wanted: dict[str, Any] = {}
    out = list(absent)
    if data_root:
        wanted["data-root"] = data_root
    if mirrors:
        # This list and no other: what is taken out of the variable must not stay on the host
        wanted["registry-mirrors"] = mirrors
        out.append("registry-mirrors")
    log_options = {name: str(value) for name, value in (("max-size", log_max_size), ("max-file", log_max_files)) if value}
    if log_options:
        wanted["log-opts"] = log_options
    if live_restore is not None:
        wanted["live-restore"] = live_restore
    for key in settings or {}:
        if key in wanted and key != "log-opts":
            raise AikitError(
                f"container_engine_docker_settings sets {key}, and so does a variable of its own.", "Keep one of them: both would fight for the same key."
            )
    merged = {**wanted, **(settings or {})}
    if log_options and isinstance(merged.get("log-opts"), Mapping):
        merged["log-opts"] = {**merged["log-opts"], **log_options}
    if merged and engine["source"] == DESKTOP:
        raise AikitError("Docker Desktop reads no daemon.json of the host.", "Make these settings in its own window, and take the variables out for this host.")
    return {"docker": {"settings": merged, "absent": out, "wanted": bool(merged or out)}, "podman": _podman("", [])}


def _mirror(address: str) -> str:
    if not re.match(r"https?://[^\s/\"]+(/[^\s\"]*)?\Z", address):
        raise AikitError(f"container_engine_registry_mirrors holds {address}, which is no address.", "It begins with https:// or http://.")
    return address


def refuse_move(engine: Mapping[str, Any], data_root: str) -> None:
    """Another folder for images and containers hides those that are there: running services would be gone."""
    name = str(engine["name"]).capitalize()
    if not data_root.startswith("/"):
        raise AikitError(f"container_engine_data_root is {data_root}.", "It is a folder, from the root on.")
    now = str(engine["data_root"])
    if not now or now.rstrip("/") == data_root.rstrip("/") or not (engine["containers"] or engine["images"]):
        return
    stop = "systemctl stop docker.socket docker.service" if engine["name"] == "docker" else "podman stop --all"
    raise AikitError(
        f"{name} has {engine['containers']} containers and {engine['images']} images in {now}:"
        f" with container_engine_data_root {data_root} it would see none of them.",
        f"Move them first: {stop}; rsync -aHAXS --numeric-ids {now}/ {data_root}/; mv {now} {now}.old; then run again. Or remove what is there.",
    )


def _podman(data_root: str, mirrors: Sequence[str]) -> dict[str, Any]:
    lines = ["# Written by aikit.fleet.container_engine: mirrors of Docker Hub", "[[registry]]", 'prefix = "docker.io"', 'location = "docker.io"']
    for mirror in mirrors:
        scheme, _separator, location = mirror.partition("://")
        lines += ["", "[[registry.mirror]]", f'location = "{location.rstrip("/")}"', *(["insecure = true"] if scheme == "http" else [])]
    return {
        "mirrors_file": data.PODMAN_MIRRORS,
        "mirrors": "\n".join(lines) + "\n" if mirrors else "",
        "storage_file": data.PODMAN_STORAGE,
        "storage": {"driver": '"overlay"', "runroot": '"/run/containers/storage"', "graphroot": f'"{data_root}"'} if data_root else {},
    }
