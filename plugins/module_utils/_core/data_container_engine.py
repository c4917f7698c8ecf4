# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages and repositories that make a container engine, by operating system; names of November 2026.

Debian 11 to 13 were installed from; Ubuntu's, Red Hat's and docker.com's are from their archives and Docker's installation pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Sequence

REVIEWED = "2026-11-25"

# Systems that share packages and versions. Those built on Debian or Ubuntu carry versions of their own, and are none of ours.
FAMILY: Mapping[str, str] = {"debian": "debian", "ubuntu": "ubuntu", "rhel": "rhel", "rocky": "rhel", "almalinux": "rhel"}
MANAGER: Mapping[str, str] = {"debian": "apt", "ubuntu": "apt", "rhel": "dnf"}
NAMES: Mapping[str, str] = {"debian": "Debian", "ubuntu": "Ubuntu", "rhel": "RHEL, Rocky Linux and AlmaLinux"}

_PODMAN = ("podman", "crun", "iptables", "dbus", "ca-certificates")

# Family → the first version whose packages are named so → engine → the distribution's own packages. Versions compare as numbers;
# a system without VERSION_ID (Debian's testing and unstable) is newer than all.
PACKAGES: Mapping[str, Sequence[tuple[int, Mapping[str, tuple[str, ...]]]]] = {
    "debian": (
        (11, {"docker": ("docker.io", "iptables", "ca-certificates"), "podman": _PODMAN}),
        (
            13,
            {
                # The client is a package of its own since trixie
                "docker": ("docker.io", "docker-cli", "iptables", "ca-certificates"),
                # Netavark calls nft since trixie
                "podman": ("podman", "crun", "nftables", "dbus", "ca-certificates"),
            },
        ),
    ),
    "ubuntu": (
        (22, {"docker": ("docker.io", "iptables", "ca-certificates"), "podman": _PODMAN}),
        # Netavark is built for nft there; nobody has tried whether iptables can be left out
        (26, {"docker": ("docker.io", "iptables", "ca-certificates"), "podman": (*_PODMAN, "nftables")}),
    ),
    # Red Hat ships no Docker
    "rhel": ((9, {"podman": ("podman", "crun", "ca-certificates")}),),
}

# What docker.com's own installation pages install, but for the compose plug-in.
DOCKER_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "ca-certificates")

# What brings docker buildx: family → the first version whose distribution has it → package. Debian has it since trixie, Ubuntu in the
# updates of 22.04 and newer; docker.com's comes with DOCKER_PACKAGES, and later to a Docker of theirs that has none.
BUILDX: Mapping[str, tuple[int, str]] = {"debian": (13, "docker-buildx"), "ubuntu": (22, "docker-buildx")}
DOCKER_BUILDX = "docker-buildx-plugin"

# Loads Docker's profile; without it Docker starts no container on a Debian or Ubuntu kernel that has AppArmor switched on.
APPARMOR = "apparmor"

# Python module that our modules import on the host → package for the system's own interpreter. On the RHEL family python3-docker comes
# from EPEL (from 10.3 on for version 10).
PYTHON_PACKAGES: Mapping[str, str] = {"docker": "python3-docker", "requests": "python3-requests"}
# Brings EPEL; RHEL itself has no package for it, its users follow EPEL's own page.
EPEL: Mapping[str, str] = {"rocky": "epel-release", "almalinux": "epel-release"}


@dataclass(frozen=True)
class Key:
    """What signs a repository. ``sha256`` is of the file that is downloaded, where it is checked by that."""

    fingerprint: str
    sha256: str = ""


@dataclass(frozen=True)
class DockerRepository:
    """Versions of a system that docker.com has packages for, and where."""

    folder: str
    versions: tuple[int, ...]
    key: Key


# The same key for Debian and Ubuntu. Digest and fingerprints: Docker's installation pages and several published pins of 2026.
_DEB = Key("9DC858229FC7DD38854AE2D88D81803C0EBFCD88", "1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570")
_RPM = Key("060A61C51B558A7F742B77AAC52FEB6B621E9F35")

DOCKER_COM = "https://download.docker.com/linux"
# ID of os-release → repository. Rocky Linux and AlmaLinux take the packages for CentOS Stream, as Docker calls them.
DOCKER_REPOSITORIES: Mapping[str, DockerRepository] = {
    "debian": DockerRepository("debian", (11, 12, 13), _DEB),
    "ubuntu": DockerRepository("ubuntu", (22, 24, 26), _DEB),
    "rhel": DockerRepository("rhel", (9, 10), _RPM),
    "rocky": DockerRepository("centos", (9, 10), _RPM),
    "almalinux": DockerRepository("centos", (9, 10), _RPM),
}
APT_KEY = "/etc/apt/keyrings/docker.asc"
APT_SOURCE = "/etc/apt/sources.list.d/docker.sources"
YUM_REPOSITORY = "docker-ce-stable"

# Below these an engine is no use here: the engine API 1.41 that our modules speak, and the Podman of Debian 11. What GPUs need is
# more (data_nvidia), and role nvidia_container_toolkit says so.
FLOORS: Mapping[str, str] = {"docker": "20.10", "podman": "3.0"}


@dataclass(frozen=True)
class Packages:
    """Installed packages that tell where an engine came from, or that cannot stand beside another's."""

    telling: tuple[str, ...]
    others: tuple[str, ...] = field(default=())


DISTRIBUTION = Packages(("docker.io", "docker-cli", "moby-engine", "moby-cli"), ("containerd", "runc"))
DOCKER_CE = Packages(("docker-ce", "docker-ce-cli"), ("containerd.io",))
ALIAS = "podman-docker"
DESKTOP = "docker-desktop"
WATCHED: tuple[str, ...] = (*DISTRIBUTION.telling, *DISTRIBUTION.others, *DOCKER_CE.telling, *DOCKER_CE.others, ALIAS, DESKTOP, "podman", "epel-release")

# Our containers carry it.
SERVICE_LABEL = "io.aikit.fleet.service"

# Podman reads drop-ins for registries; its storage settings have none.
PODMAN_MIRRORS = "/etc/containers/registries.conf.d/50-aikit-fleet.conf"
PODMAN_STORAGE = "/etc/containers/storage.conf"

# Left by a snap and by Docker Desktop.
SNAP_PATHS = ("/snap/docker/current", "/var/lib/snapd/snap/docker/current")
SNAP_DATA = "/var/snap/"
DESKTOP_PATHS = ("/opt/docker-desktop",)
