# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it takes to let the container engines of a host hand out its NVIDIA GPUs.

``plan`` reads a result of module gpu_info and the wishes of role nvidia_container_toolkit, and returns JSON types that the role's
tasks carry out: they decide nothing themselves.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import cdi, data_gpu, gpu_health
from . import data_nvidia as nvidia
from . import data_nvidia_toolkit as data
from .container_engine import lost_by_restart
from .errors import AikitError
from .nvidia_driver import installed_state
from .version import at_least, numbers, upstream

STATES = ("ensure", "managed", "absent")
ALL = f"{cdi.NVIDIA}=all"
BELOW_FLOOR = "toolkit version"

# A driver in these states talks to programs; what comes after a reboot cannot be asked for its devices yet.
_WORKING = ("loaded", "wsl")
_AFTER_REBOOT = ("installed_not_loaded", "mismatch")

# What gpu_info could not see, or would not see a second time
_NO_JUDGEMENT = ("nvidia_smi_hung", "packages_unreadable")

_BY = "# Written by aikit.fleet, role nvidia_container_toolkit."


@dataclass(frozen=True)
class Wishes:
    """What the user asked for, and what the role knows besides gpu_info."""

    state: str = "ensure"
    version: str = ""
    packages: str = "all"
    repository: str = "nvidia"
    repository_url: str = ""
    key_url: str = ""
    key_sha256: str = ""
    key_fingerprint: str = ""
    selinux: str = "boolean"
    check_mode: bool = False
    # Names of the records that earlier runs left; only state absent needs them
    owned: Sequence[str] = ()
    # The text of the role's file start-gpu-containers
    starter: str = ""


@dataclass
class _Result:
    """A plan in the making."""

    action: str = "none"
    reason: str = ""
    version: str = ""
    waits_for: str = ""
    refusals: list[str] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def problem(self, name: str, detail: str, hint: str) -> None:
        self.problems.append({"name": name, "detail": detail, "hint": hint})


def parse_wishes(given: Mapping[str, Any]) -> Wishes:
    """The wishes of the role; AikitError names one that nobody knows."""
    unknown = sorted(set(given) - set(Wishes.__dataclass_fields__))
    if unknown:
        raise AikitError(f"nvidia_toolkit_plan knows no wish {', '.join(unknown)}.", f"It knows {', '.join(Wishes.__dataclass_fields__)}.")
    wishes = Wishes(**given)
    if wishes.state not in STATES:
        raise AikitError(f"state is {wishes.state!r}.", f"It is one of {', '.join(STATES)}.")
    if wishes.version and not numbers(wishes.version):
        raise AikitError(f"nvidia_container_toolkit_version is {wishes.version!r}, which is no version.", f"Write it like {data.VERSION}.")
    return wishes


def plan(found: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What the role does on a host, as JSON types."""
    wishes = parse_wishes(given)
    gpus = [gpu for gpu in found["gpus"] if gpu["vendor"] == "nvidia"]
    wsl = found["driver"]["state"] == "wsl"
    if wishes.state == "absent":
        return _absent(found, wishes)
    result = _Result()
    for problem in found.get("problems") or ():
        if problem["name"] in _NO_JUDGEMENT:
            result.refusals.append(f"{problem['detail']} {problem['hint']}")
        elif problem["name"] == "gpus_missing":
            result.problem(problem["name"], problem["detail"].rstrip("."), problem["hint"])
    if not gpus and not wsl:
        return _skipped(result, "no NVIDIA GPU was found")
    if gpus and all(gpu["driver_in_use"] == "vfio-pci" for gpu in gpus):
        return _skipped(result, "all NVIDIA GPUs are passed through to virtual machines (vfio-pci)")
    _decide(result, found["toolkit"], wishes)
    _judge_driver(result, found["driver"], wishes)
    system = _system(result, found["host"], wishes) if result.action in ("install", "upgrade") or wishes.state == "managed" else {}
    if result.refusals:
        return _document(_Result("refuse", " ".join(result.refusals), refusals=result.refusals, problems=result.problems))
    return _document(result, **system, **_configuration(result, found, wishes))


def _decide(result: _Result, toolkit: Mapping[str, Any], wishes: Wishes) -> None:
    """Action, reason and version, and the problem of a toolkit that is left alone below the floor."""
    version, packages = toolkit["version"], toolkit.get("packages") or {}
    wanted = upstream(wishes.version) or data.VERSION
    result.version = upstream(version) or version
    if at_least(wanted, nvidia.TOOLKIT_FLOOR) is False:
        result.refusals.append(
            f"nvidia_container_toolkit_version is {wanted}, below {nvidia.TOOLKIT_FLOOR}, which fixes a way out of containers (CVE-2026-24260)."
            f" Ask for {nvidia.TOOLKIT_FLOOR} or newer."
        )
    if not version:
        result.action, result.version, result.reason = "install", wanted, "there is no NVIDIA Container Toolkit"
    elif wishes.state == "ensure":
        result.reason = f"version {version} is there and is left alone"
        _judge_version(result, version)
    else:
        _upgrade(result, version, packages, wanted, wishes)


def _judge_version(result: _Result, version: str) -> None:
    meets = at_least(version, nvidia.TOOLKIT_FLOOR)
    if meets is None:
        result.problem(BELOW_FLOOR, f"{version!r} is no version", "nvidia-ctk --version says which it is.")
    elif not meets:
        result.problem(
            BELOW_FLOOR,
            f"the NVIDIA Container Toolkit is {version}, below {nvidia.TOOLKIT_FLOOR}: a container can become root on the host (CVE-2026-24260)",
            "Upgrade it by the means that installed it, or set nvidia_container_toolkit_state: managed.",
        )


def _upgrade(result: _Result, version: str, packages: Mapping[str, str], wanted: str, wishes: Wishes) -> None:
    """The managed state of a host that has a toolkit."""
    names = _packages(wishes)
    if not any(name in packages for name in data.PACKAGES):
        result.refusals.append(
            f"The NVIDIA Container Toolkit {version} on this host belongs to no package, so another program manages it (the GPU Operator, an image)."
            " Set nvidia_container_toolkit_state: ensure, or remove it by the means that installed it."
        )
        return
    installed = {name: numbers(upstream(packages[name])) for name in data.PACKAGES if name in packages}
    complete = all(name in installed for name in names) and len(set(installed.values())) == 1
    # A newer one is only taken back for a version that somebody asked for
    enough = numbers(version) == numbers(wanted) or (not wishes.version and at_least(version, wanted) is True)
    if complete and enough:
        result.reason = f"version {version} is installed"
    elif enough and not complete:
        target = wanted if wishes.version or at_least(wanted, version) else upstream(version)
        result.action, result.version = "upgrade", target
        listed = ", ".join(f"{name} {packages.get(name) or 'missing'}" for name in data.PACKAGES if name in names or name in packages)
        result.reason = f"its packages are not all of one version: {listed}"
    else:
        result.action, result.version = "upgrade", wanted
        result.reason = f"version {version} is installed, {wanted} is wanted"


def _judge_driver(result: _Result, driver: Mapping[str, Any], wishes: Wishes) -> None:
    state = installed_state(driver)
    if state in _WORKING:
        return
    if state in _AFTER_REBOOT:
        result.waits_for = "reboot"
        result.notes.append("The driver works after a reboot; until then there are no devices to describe. Run again after it.")
    elif wishes.check_mode:
        result.waits_for = "driver"
        result.notes.append("What containers see of the GPUs is known after the driver is there.")
    else:
        held = {"nouveau": "nouveau drives the GPUs", "vfio": "the GPUs are held for virtual machines (vfio-pci)"}.get(state, "there is no NVIDIA driver")
        result.refusals.append(f"Without NVIDIA's driver the toolkit can do nothing, and {held}. Run role aikit.fleet.nvidia_driver first.")


def _system(result: _Result, host: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    """Packages, repository, key and pin for the system of the host."""
    system = host["os"]
    manager = _manager(system)
    architecture = data.ARCHITECTURES.get(system["arch"], "")
    if not manager or not architecture:
        name = system.get("pretty_name") or system["id"] or "An unknown system"
        result.refusals.append(
            f"{name} on {system['arch'] or 'an unknown machine'} has no recipe here. Install the NVIDIA Container Toolkit {nvidia.TOOLKIT_FLOOR} or newer"
            f" by its own means and run again: it is used as it is. Known are systems of {', '.join(data.MANAGERS)} on {', '.join(data.ARCHITECTURES)}."
        )
        return {}
    names = _packages(wishes)
    full = f"{result.version}-{data.BUILD}"
    separator = "=" if manager == "apt" else "-"
    ours = wishes.repository == "nvidia"
    return {
        "manager": manager,
        "packages": [f"{name}{separator}{full}" for name in names],
        "prerequisites": list(data.PREREQUISITES[manager]) if ours else [],
        "key": _key(manager, wishes) if ours else {},
        "repository": _repository(manager, architecture, system["arch"], wishes) if ours else {},
        "old_files": list(data.OLD_FILES[manager]) if ours else [],
        "pin": {"path": data.PIN_PATH, "content": _pin(full)} if manager == "apt" else {},
        "files": [
            *([_written(data.PIN_PATH, _pin(full))] if manager == "apt" else []),
            # The same repository under another name, with another key
            *(_gone(path) for path in (data.OLD_FILES[manager] if ours else ())),
        ],
        # Its key was checked when it came
        "new_repository": ours and (result.action != "none" or data.REPOSITORY_FILES[manager] not in (host.get("repositories") or ())),
        "versionlock": [f"{name}-{full}" for name in data.PACKAGES] if manager == "dnf" else [],
    }


def _written(path: str, content: str) -> dict[str, str]:
    return {"path": path, "content": content}


def _gone(path: str) -> dict[str, str]:
    return {"path": path, "state": "absent"}


def _manager(system: Mapping[str, Any]) -> str:
    like = system.get("id_like") or ()
    names = [system["id"], *(like.split() if isinstance(like, str) else like)]
    return next((data.MANAGERS[name] for name in names if name in data.MANAGERS), "")


def _packages(wishes: Wishes) -> tuple[str, ...]:
    return data.BASE_PACKAGES if wishes.packages == "base" else data.PACKAGES


def _base_url(wishes: Wishes) -> str:
    return (wishes.repository_url or data.REPOSITORY).rstrip("/")


def _key(manager: str, wishes: Wishes) -> dict[str, str]:
    return {
        "url": wishes.key_url or f"{_base_url(wishes)}/{data.KEY}",
        "checksum": f"sha256:{wishes.key_sha256}" if wishes.key_sha256 else "",
        "fingerprint": _fingerprint(wishes.key_fingerprint) or data.KEY_FINGERPRINT,
        "download": data.KEY_DOWNLOAD,
        "path": data.KEY_PATHS[manager],
    }


def _repository(manager: str, architecture: str, machine: str, wishes: Wishes) -> dict[str, Any]:
    """Arguments of deb822_repository or of yum_repository."""
    if manager == "apt":
        return {
            "name": "nvidia-container-toolkit",
            "types": ["deb"],
            "uris": [f"{_base_url(wishes)}/stable/deb/{architecture}"],
            # A flat repository: the packages lie beside the index
            "suites": ["/"],
            "signed_by": data.KEY_PATHS[manager],
        }
    return {
        "name": "nvidia-container-toolkit",
        "description": "NVIDIA Container Toolkit",
        "baseurl": f"{_base_url(wishes)}/stable/rpm/{machine}",
        # NVIDIA signs the index, which holds the checksums of the packages, and not each package
        "repo_gpgcheck": True,
        "gpgcheck": False,
        "gpgkey": f"file://{data.KEY_PATHS[manager]}",
    }


def _pin(full: str) -> str:
    return (
        f"{_BY} All packages of the toolkit stay at one version; 1001 lets apt go back to it too.\n"
        f"Package: {' '.join(data.PACKAGES)}\nPin: version {full}\nPin-Priority: 1001\n"
    )


def _configuration(result: _Result, found: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    """What the engines of the host need."""
    host = found["host"]
    first, fixed = data.REFRESH_AFTER_ALL
    late = at_least(result.version, first) is True and at_least(result.version, fixed) is False
    names = [engine["name"] for engine in found["engines"]]
    # containerd beside Docker is Docker's own: Docker reads specifications itself, before containerd sees the container. One that rests is
    # nobody's: it is not woken
    engines = [engine for engine in found["engines"] if engine["name"] != "containerd" or ("docker" not in names and engine.get("answers", True))]
    for engine in engines:
        if not engine.get("answers", True):
            result.notes.append(f"{engine['name'].capitalize()} does not answer, and is left as it is. Run again when it does.")
    systemd = host.get("service_manager") == "systemd"
    refresh = systemd and at_least(result.version, data.REFRESH_SINCE) is True
    for engine in engines:
        _judge_engine(result, engine)
    limited = [engine for engine in engines if engine["cdi_spec_max"] and not at_least(engine["cdi_spec_max"], "0.7.0")]
    selinux = wishes.selinux == "boolean" and host.get("selinux") in ("enforcing", "permissive")
    if any(engine.get("rootless") for engine in engines):
        result.notes.append("Rootless engines read the same specification. A user needs access to /dev/nvidia*, with Podman also --group-add keep-groups.")
    if host.get("selinux") == "enforcing" and not selinux:
        result.notes.append("SELinux keeps containers from the GPUs: start them with --security-opt=label=disable, or set the boolean container_use_devices.")
    drop_in = {"path": data.REFRESH_DROP_IN, "content": _refresh_drop_in(limited)} if refresh else {}
    forgets = systemd and any(engine["name"] == "docker" and _forgets_cdi(engine["version"]) for engine in engines)
    ordering = {"path": data.DOCKER_DROP_IN, "content": _ordering(forgets)} if "docker" in names and refresh and not late else {}
    hooks = [data.PODMAN_HOOK] if "podman" in names else []
    return {
        "configure": True,
        "configuration_files": [
            # The newest specification where all engines read it
            *([_written(**drop_in) if drop_in["content"] else _gone(data.REFRESH_DROP_IN)] if drop_in else []),
            *([_written(**ordering)] if ordering else []),
            *([_written(data.STARTER_PATH, f"{wishes.starter.rstrip()}\n") if forgets else _gone(data.STARTER_PATH)] if ordering else []),
            *map(_gone, hooks),
            *_remember(found, result),
        ],
        "cdi": {
            "generate": not result.waits_for,
            "flags": data.NO_GIDS_FLAG if limited else "",
            "environment": {data.FLAGS_VARIABLE: data.NO_GIDS_FLAG} if limited else {},
            "service": data.REFRESH_SERVICE if refresh else "",
            "drop_in": drop_in,
            # A host without the units would lose a specification on a tmpfs at its next boot
            "path": data.SPEC_PATH if refresh else data.OLD_SPEC_PATH,
            # Until there is a new one, the old one is all that engines have
            "stale_files": [path for path in found["cdi"]["files"] if path == data.OLD_SPEC_PATH] if refresh and not result.waits_for else [],
            "readable": {engine["name"]: engine["cdi_spec_max"] for engine in engines if engine["cdi_spec_max"]},
            # For Docker of a user, where there is one
            "users_copy": data.ROOTLESS_SPEC_PATH,
            "users_files": [
                *([_written(data.ROOTLESS_DROP_IN, _copying())] if refresh else []),
                *(
                    [_written(data.ROOTLESS_DOCKER_DROP_IN, f"{_BY}\n{_starting('%t/docker.sock')}") if forgets else _gone(data.ROOTLESS_DOCKER_DROP_IN)]
                    if ordering
                    else []
                ),
            ],
        },
        "docker": _docker(result, engines, systemd),
        "podman": {"remove": hooks},
        "containerd": _containerd(engines, systemd),
        "ordering": ordering,
        "selinux": {"boolean": data.SELINUX_BOOLEAN} if selinux else {},
        "engines": [{"name": engine["name"], "arguments": _arguments(engine)} for engine in engines if _hands_out(engine)],
    }


def _remember(found: Mapping[str, Any], result: _Result) -> list[dict[str, str]]:
    """The file with the GPUs of the host, from which a later look sees that one is gone; what is gone stays in it."""
    fewer = any(problem["name"] == "gpus_missing" and problem["severity"] == "error" for problem in found.get("problems") or ())
    return [] if result.waits_for or fewer or not found["gpus"] else [_written(data_gpu.REMEMBERED_PATH, gpu_health.remember(found["gpus"]))]


def _judge_engine(result: _Result, engine: Mapping[str, Any]) -> None:
    name, version = engine["name"], engine["version"]
    if name == "podman" and not engine["cdi_spec_max"]:
        result.problem("podman too old", f"Podman {version} reads no CDI specification, so it cannot hand out GPUs", "Podman 4.1 is the first that does.")
    if name == "containerd" and at_least(version, nvidia.CONTAINERD_CDI) is False:
        result.problem(
            "containerd too old",
            f"containerd {version} reads no CDI specification, so it cannot hand out GPUs",
            f"containerd {nvidia.CONTAINERD_CDI} is the first that does.",
        )
    if name == "docker" and engine.get("answers", True) and _cdi_is_off(engine):
        result.problem(
            "CDI is off in docker",
            f"Docker {version} hands out CDI devices unless it is told not to, and it does not",
            "Take features.cdi: false out of Docker's daemon.json and restart Docker.",
        )


def _refresh_drop_in(limited: Sequence[Mapping[str, Any]]) -> str:
    """A drop-in: the file that the package provides for this is one of its configuration files, and a changed one stops night upgrades."""
    if not limited:
        return ""
    names = " and ".join(f"{engine['name']} {engine['version']} reads CDI specifications up to {engine['cdi_spec_max']}" for engine in limited)
    return f'{_BY}\n# {names}; with additional groups nvidia-ctk writes 0.7.0.\n[Service]\nEnvironment="{data.FLAGS_VARIABLE}={data.NO_GIDS_FLAG}"\n'


def _copying() -> str:
    copy = f"/usr/bin/install -D --mode=0644 {data.SPEC_PATH} {data.ROOTLESS_SPEC_PATH}"
    return f"{_BY}\n# Docker of a user does not see {posixpath.dirname(data.SPEC_PATH)}.\n[Service]\nExecStartPost=-{copy}\n"


def _forgets_cdi(version: str) -> bool:
    first, fixed = data.DOCKER_FORGETS_CDI
    return at_least(version, first) is True and at_least(version, fixed) is False


def _ordering(forgets: bool) -> str:
    units = f"{data.REFRESH_SERVICE} nvidia-persistenced.service"
    text = f"{_BY}\n# Containers that come back at boot find the GPUs described, and awake.\n[Unit]\nWants={units}\nAfter={units}\n"
    return f"{text}\n{_starting('/run/docker.sock')}" if forgets else text


def _starting(path: str) -> str:
    return (
        "# This Docker starts containers that come back by themselves before it knows of CDI, and those with GPUs stay down.\n"
        f"[Service]\nExecStartPost=-/usr/bin/python3 {data.STARTER_PATH} {path}\n"
    )


def _docker(result: _Result, engines: Sequence[Mapping[str, Any]], systemd: bool) -> dict[str, Any]:
    engine = next((one for one in engines if one["name"] == "docker" and one.get("answers", True)), None)
    nothing: dict[str, Any] = {"settings": {}, "restart_for": [], "service": "", "keys": []}
    if engine is None or not numbers(engine["version"]):
        return nothing
    service = "docker.service" if systemd else ""
    if at_least(engine["version"], nvidia.DOCKER_CDI_DEFAULT):
        return {**nothing, "service": service}
    if at_least(engine["version"], nvidia.DOCKER_CDI):
        return {"settings": {"features": {"cdi": True}}, "restart_for": [], "service": service, "keys": ["features.cdi"]}
    # Docker looks for the hook behind --gpus when it starts, and never again. An upgrade may bring the package that it is in
    new = result.action == "install" or (result.action == "upgrade" and not engine["gpus_flag"])
    runtime = {"path": "nvidia-container-runtime", "args": []}
    return {
        "settings": {"runtimes": {"nvidia": runtime}},
        "restart_for": [data.HOOK] if new else [],
        "service": service,
        "keys": ["runtimes.nvidia"],
    }


def _containerd(engines: Sequence[Mapping[str, Any]], systemd: bool) -> dict[str, Any]:
    """Without Docker, and where CDI is not on by default. NVIDIA's tool would write a drop-in, and with it containerd 1.7 forgets every other
    setting of its CRI plugin."""
    engine = next((one for one in engines if one["name"] == "containerd"), None)
    if engine is None or at_least(engine["version"], nvidia.CONTAINERD_CDI) is not True:
        return {}
    if engine["cdi"] and at_least(engine["version"], nvidia.CONTAINERD_CDI_DEFAULT):
        return {}
    return {"config": data.CONTAINERD_CONFIG, "service": data.CONTAINERD_SERVICE if systemd else "", "record": f"{data.RECORDS}/containerd"}


def _hands_out(engine: Mapping[str, Any]) -> bool:
    """Whether containers of this engine get GPUs once it is configured; of one that never will, its problem tells."""
    if not engine.get("answers", True):
        return False
    if engine["name"] == "docker":
        return not _cdi_is_off(engine) or bool(engine["gpus_flag"])
    return engine["name"] == "podman" and bool(engine["cdi_spec_max"])


def _cdi_is_off(docker: Mapping[str, Any]) -> bool:
    """Whether somebody switched off what this Docker does by default."""
    return at_least(docker["version"], nvidia.DOCKER_CDI_DEFAULT) is True and not docker["cdi"]


def _arguments(engine: Mapping[str, Any]) -> list[str]:
    """How a container of this engine gets all GPUs."""
    if engine["name"] == "docker" and (at_least(engine["version"], nvidia.DOCKER_CDI) is False or _cdi_is_off(engine)):
        return ["--gpus", "all"]
    return ["--device", ALL]


def rootless(planned: Mapping[str, Any], users: Sequence[str], passwd: Mapping[str, Sequence[Any]], units: Mapping[str, bool]) -> list[dict[str, Any]]:
    """The engines that users run for themselves: those of ``users`` that the host has.

    ``passwd``: what getent says, ``units``: whether a user has a docker.service, which is how Docker's own installer leaves it.
    """
    strange = [user for user in users if user not in passwd]
    if strange:
        raise AikitError(
            f"nvidia_container_toolkit_rootless_users names {', '.join(strange)}, and the host has no such user.",
            "Take them out, or make them first.",
        )
    found = []
    for user in users:
        uid, home = str(passwd[user][1]), str(passwd[user][4])
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{uid}", "HOME": home}
        one = {"user": user, "uid": int(uid), "daemon_json": "", "settings": {}, "socket": ""}
        # Podman reads the host's own description, and there is nothing to set
        found += [
            {**one, "engine": engine["name"], "arguments": engine["arguments"], "environment": runtime}
            for engine in planned["engines"]
            if engine["name"] == "podman"
        ]
        docker = next((engine for engine in planned["engines"] if engine["name"] == "docker"), None)
        if units.get(user) and docker:
            found.append(_rootless_docker(planned, {**one, "engine": "docker", "arguments": docker["arguments"], "environment": runtime}, home))
    return found


def _rootless_docker(planned: Mapping[str, Any], one: Mapping[str, Any], home: str) -> dict[str, Any]:
    settings = planned["docker"]["settings"]
    if "runtimes" in settings:
        raise AikitError(
            f"{one['user']} has a rootless Docker before 25.0, which hands GPUs out by NVIDIA's hook alone. Rootless, that needs no-cgroups in the"
            " toolkit's own configuration, which takes the GPUs from Docker's containers of root.",
            f"Upgrade Docker, or take {one['user']} out of nvidia_container_toolkit_rootless_users.",
        )
    runtime = one["environment"]["XDG_RUNTIME_DIR"]
    socket = f"unix://{runtime}/docker.sock"
    # The copy first: what is found later in the list wins. Behind it are Docker's own defaults, without root and with it
    folders = [data.ROOTLESS_SPEC_DIR, "/etc/cdi", "/var/run/cdi", f"{home}/.config/cdi", f"{runtime}/cdi"]
    return {
        **one,
        "daemon_json": f"{home}/.config/docker/daemon.json",
        "settings": {**settings, "cdi-spec-dirs": folders},
        "socket": socket,
        "environment": {**one["environment"], "DOCKER_HOST": socket},
    }


def _absent(found: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    """Only what this collection did is taken back."""
    packages = found["toolkit"].get("packages") or {}
    names = [name for name in data.PACKAGES if name in packages]
    manager = _manager(found["host"]["os"])
    systemd = found["host"].get("service_manager") == "systemd"
    docker = any(engine["name"] == "docker" for engine in found["engines"])
    containerd = any(engine["name"] == "containerd" and engine.get("answers", True) for engine in found["engines"])
    keys = sorted(name.partition("docker-")[2] for name in wishes.owned if name.startswith("docker-"))
    ours = "packages" in wishes.owned
    result = _Result(version="")
    if not wishes.owned:
        version = found["toolkit"]["version"]
        result.version = upstream(version)
        result.reason = f"version {version} was not installed by this role, and is left alone" if version else "nothing of this role is on the host"
        return _document(result)
    result.action, result.reason = "remove", "state absent"
    files = [
        data.REFRESH_DROP_IN,
        data.DOCKER_DROP_IN,
        data.STARTER_PATH,
        data.ROOTLESS_DROP_IN,
        data.ROOTLESS_DOCKER_DROP_IN,
        data.ROOTLESS_SPEC_DIR,
        data_gpu.REMEMBERED_PATH,
    ]
    if ours:
        files += [data.KEY_DOWNLOAD, data.SPEC_PATH]
        files += [data.PIN_PATH, data.KEY_PATHS["apt"]] if manager == "apt" else [data.KEY_PATHS["dnf"]]
    return _document(
        result,
        manager=manager,
        packages=names if ours else [],
        repository={"name": "nvidia-container-toolkit"} if ours else {},
        versionlock=list(data.PACKAGES) if ours and manager == "dnf" else [],
        remove_files=[*files, data.RECORDS],
        docker={"settings": {}, "restart_for": [], "service": "docker.service" if systemd else "", "keys": keys if docker else []},
        containerd=(
            {"service": data.CONTAINERD_SERVICE if systemd and containerd else "", "config": data.CONTAINERD_CONFIG} if "containerd" in wishes.owned else {}
        ),
    )


def _skipped(result: _Result, why: str) -> dict[str, Any]:
    result.reason = f"skipped: {why}"
    return _document(result)


def _document(result: _Result, **more: Any) -> dict[str, Any]:
    """Every key is there in every plan, so that tasks need no defaults."""
    document: dict[str, Any] = {
        "action": result.action,
        "reason": result.reason,
        "version": result.version,
        "waits_for": result.waits_for,
        "refusals": result.refusals,
        "problems": result.problems,
        "notes": result.notes,
        "manager": "",
        "packages": [],
        "prerequisites": [],
        "key": {},
        "repository": {},
        "old_files": [],
        "pin": {},
        "files": [],
        "new_repository": False,
        "configuration_files": [],
        "versionlock": [],
        "records": data.RECORDS,
        "remove_files": [],
        "configure": False,
        "cdi": {
            "generate": False,
            "flags": "",
            "environment": {},
            "service": "",
            "drop_in": {},
            "path": "",
            "stale_files": [],
            "readable": {},
            "users_copy": "",
            "users_files": [],
        },
        "docker": {"settings": {}, "restart_for": [], "service": "", "keys": []},
        "podman": {"remove": []},
        "containerd": {},
        "ordering": {},
        "selinux": {},
        "engines": [],
    }
    return {**document, **more}


def stale_locks(listed: Iterable[str], wanted: Sequence[str] = ()) -> list[str]:
    """Locks of dnf that this role made for other versions: beside them the one of ``wanted`` holds nothing. Those of users look otherwise."""
    ours = re.compile(rf"({'|'.join(map(re.escape, data.PACKAGES))})-\d+(\.\d+)*-\d+")
    return sorted({lock for lock in listed if ours.fullmatch(lock) and lock not in wanted})


def key_problem(listing: str, fingerprint: str, source: str) -> str:
    """Why the key in ``listing`` (``gpg --show-keys --with-colons``) is not the one that is pinned; empty when it is that one and no other."""
    found = []
    primary = False
    for line in listing.splitlines():
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            primary = fields[0] == "pub"
        if fields[0] == "fpr" and primary and len(fields) > 9:
            found.append(fields[9])
            primary = False
    if found == [fingerprint]:
        return ""
    what = f"holds {', '.join(found)}" if found else "holds no key"
    return f"{source} {what}; expected is {fingerprint} and nothing else."


def _fingerprint(text: str) -> str:
    return text.replace(" ", "").upper()


def docker_restart(wish: str, live_restore: bool, containers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether Docker may be restarted now.

    ``containers``: what ``docker inspect`` says of those that run. One without a restart policy would not come back.
    """
    lost = lost_by_restart(live_restore, containers)
    if wish == "never":
        return {"restart": False, "reason": "nvidia_container_toolkit_docker_restart is never", "containers": lost}
    if lost and wish != "always":
        return {
            "restart": False,
            "reason": f"{', '.join(lost)} would not come back: no restart policy, and Docker runs without live-restore",
            "containers": lost,
        }
    return {"restart": True, "reason": "", "containers": lost}


def facts(
    planned: Mapping[str, Any],
    found: Optional[Mapping[str, Any]] = None,
    spec: Optional[Mapping[str, Any]] = None,
    containers: Sequence[Mapping[str, Any]] = (),
    restart: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """What the role says at its end.

    ``found`` is the result of gpu_info after all was done, ``spec`` that of nvidia_cdi_spec, ``containers`` those of
    nvidia_container_check, ``restart`` what was decided about Docker; each is empty where it was not asked for.
    """
    found, spec, restart = found or {}, spec or {}, restart or {}
    toolkit = found.get("toolkit") or {}
    version = upstream(str(toolkit.get("version") or "")) or (planned["version"] if not planned["configure"] else "")
    pending = restart.get("reason", "") if restart and not restart["restart"] else ""
    told = [one for one in containers if "ok" in one]
    made = _checks(planned, toolkit, spec, told, found.get("engines") or ()) if planned["configure"] and found else []
    if pending:
        made.append(_check("docker restart", False, f"Docker has to be restarted: {pending}", "Restart it when you can: systemctl restart docker."))
    # One that is left alone below the floor is a problem of its own, and no reason to stop serving
    left_alone = {problem["name"] for problem in planned["problems"]}
    failures = [f"{one['name']}: {one['detail']}. {one['hint']}".strip() for one in made if not one["ok"] and one["name"] not in left_alone]
    notes = " ".join([f"{problem['detail']}. {problem['hint']}" for problem in planned["problems"]] + planned["notes"])
    return {
        "action": planned["action"],
        "reason": planned["reason"],
        "version": version,
        "waits_for": planned["waits_for"],
        "cdi_devices": list(spec.get("devices") or ()),
        "spec_version": spec.get("spec_version") or "",
        "problems": planned["problems"],
        "restart_pending": pending,
        "checks": made,
        "failures": failures,
        "summary": f"NVIDIA Container Toolkit: {_done(planned)}. {notes}".strip(),
    }


def _done(planned: Mapping[str, Any]) -> str:
    if planned["action"] in ("install", "upgrade"):
        return f"{planned['action']} of {planned['version']}, because {planned['reason']}"
    return f"{planned['reason']}"


def _checks(
    planned: Mapping[str, Any],
    toolkit: Mapping[str, Any],
    spec: Mapping[str, Any],
    containers: Sequence[Mapping[str, Any]],
    found_engines: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """name, ok, detail and hint for each thing that a host with NVIDIA GPUs has to be able to do."""
    version = str(toolkit.get("version") or "")
    made = [
        _check(
            BELOW_FLOOR if version else "toolkit",
            at_least(version, nvidia.TOOLKIT_FLOOR) is True,
            f"version {version}" if version else "not installed",
            f"{nvidia.TOOLKIT_FLOOR} or newer is needed (CVE-2026-24260). Set nvidia_container_toolkit_state: managed, and run the role.",
        )
    ]
    if planned["waits_for"]:
        return made
    devices = spec.get("devices") or ()
    unreadable = _unreadable(str(spec.get("spec_version") or ""), planned["cdi"]["readable"])
    service = planned["cdi"]["service"]
    made += [
        _check(
            "CDI devices",
            ALL in devices,
            f"{', '.join(cdi.nvidia_gpus(devices)) or 'none'} in {spec.get('path') or planned['cdi']['path']}",
            f"{spec.get('problem') or 'The specification names no GPU'}. nvidia-smi says whether the driver works, "
            "journalctl -u nvidia-cdi-refresh what was tried.",
        ),
        _check(
            "CDI specification is current",
            not spec.get("stale"),
            spec.get("problem") or ("differs from what the driver has now" if spec.get("stale") else "as the driver has it now"),
            f"Run the role, or systemctl reset-failed {service} and systemctl restart {service}." if service else "Run the role.",
        ),
        _check(
            "CDI specification is readable",
            not unreadable,
            unreadable or f"version {spec.get('spec_version') or 'unknown'}",
            f"Add {data.NO_GIDS_FLAG} to {data.FLAGS_VARIABLE} in {data.REFRESH_ENVIRONMENT}, or upgrade the engine.",
        ),
        _check(
            "CDI specification comes back at boot",
            bool(spec.get("survives_reboot")),
            "a service makes it" if service else "it is a file",
            f"systemctl enable {data.REFRESH_SERVICE} nvidia-cdi-refresh.path",
        ),
    ]
    answering = [f"{engine['name']} {engine['version']}" for engine in found_engines if engine["name"] != "containerd" and engine.get("answers", True)]
    if answering and not planned["engines"]:
        made.append(_check("container engine", False, f"no engine hands out GPUs: {', '.join(answering)}", "What was found above says why."))
    # containerd's own tool knows no CDI before 2.0, and CRI starts no container without a registry: its configuration has to do
    made += [
        _check(
            "CDI in containerd",
            bool(engine["cdi"]),
            f"containerd {engine['version']} {'reads' if engine['cdi'] else 'does not read'} CDI specifications",
            "Set enable_cdi = true for containerd's CRI plugin, and restart containerd.",
        )
        for engine in found_engines
        if engine["name"] == "containerd" and engine.get("answers", True) and not any(one["name"] == "docker" for one in found_engines)
    ]
    made += [_check(f"GPU in a container of {one['engine']}{_whose(one)}", bool(one["ok"]), str(one["detail"]), str(one["hint"])) for one in containers]
    made += [_check(problem["name"], False, problem["detail"], problem["hint"]) for problem in planned["problems"] if problem["name"] != BELOW_FLOOR]
    return made


def _whose(result: Mapping[str, Any]) -> str:
    """The user of a rootless engine, as the role's loop names it."""
    item = result.get("item")
    return f" of {item['user']}" if isinstance(item, Mapping) and item.get("user") else ""


def _check(name: str, passed: bool, detail: str, hint: str) -> dict[str, Any]:
    return {"name": name, "ok": passed, "detail": detail, "hint": "" if passed else hint}


def _unreadable(version: str, readable: Mapping[str, str]) -> str:
    """Which engines cannot read a specification of ``version``: they refuse the whole of it, with an error that does not say so."""
    blind = [f"{name} reads up to {most}" for name, most in sorted(readable.items()) if at_least(most, version) is False] if version else []
    return f"it is of version {version}, and {' and '.join(blind)}" if blind else ""
