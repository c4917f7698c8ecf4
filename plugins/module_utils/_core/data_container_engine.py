# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packages that make a container engine, by operating system; names of November 2026, from the distributions' own archives.

Debian: bullseye (11), bookworm (12), trixie (13), forky and sid. Ubuntu: 22.04, 24.04.
"""

from __future__ import annotations

from typing import Mapping, Sequence

# ID of os-release → the first version whose packages are named so → engine → packages. Versions compare as numbers;
# a system without VERSION_ID (Debian's testing and unstable) is newer than all.
PACKAGES: Mapping[str, Sequence[tuple[int, Mapping[str, tuple[str, ...]]]]] = {
    "debian": (
        (
            11,
            {
                "docker": ("docker.io", "iptables", "ca-certificates"),
                "podman": ("podman", "crun", "iptables", "dbus", "ca-certificates"),
            },
        ),
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
        (
            22,
            {
                "docker": ("docker.io", "iptables", "ca-certificates"),
                "podman": ("podman", "crun", "iptables", "dbus", "ca-certificates"),
            },
        ),
    ),
}

# Loads Docker's profile; without it Docker starts no container on a kernel that has AppArmor switched on.
APPARMOR = "apparmor"

# Python module that our modules import on the host → package for the system's own interpreter.
PYTHON_PACKAGES: Mapping[str, str] = {"docker": "python3-docker", "requests": "python3-requests"}
