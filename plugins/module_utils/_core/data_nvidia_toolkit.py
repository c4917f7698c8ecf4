# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the NVIDIA Container Toolkit comes from, what it consists of and which files it uses.

Sources: its installation guide and release notes (1.20.0), packaging and units in its repository, its product security bulletins; November 2026.
Floors and what engines read are in data_nvidia.py.
"""

from __future__ import annotations

from typing import Mapping

REVIEWED = "2026-11-22"

# What is installed where nothing else is asked for, and the build that NVIDIA publishes of it, for Debian's and for RPM's packages.
VERSION = "1.20.0"
BUILD = "1"

# They depend on one another with exact versions since 1.18. Pinning two of them only left apt without a solution.
PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
# nvidia-ctk, nvidia-cdi-hook and the refresh units: all that CDI needs. Docker's own --gpus needs the rest before Docker 29.2.
BASE_PACKAGES = ("nvidia-container-toolkit-base",)

REPOSITORY = "https://nvidia.github.io/libnvidia-container"
KEY = "gpgkey"
# The primary key signs; a signing subkey of it expired in 2021 and was never renewed, which some scanners complain about.
KEY_FINGERPRINT = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"

# Machine as the kernel calls it -> as Debian does. The folders of the repository are named so (RPM: like the kernel).
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}

# ID of os-release -> package manager. The repository is one for all releases, so systems built on these are served by it too (ID_LIKE).
MANAGERS: Mapping[str, str] = {
    "debian": "apt",
    "ubuntu": "apt",
    "rhel": "dnf",
    "centos": "dnf",
    "rocky": "dnf",
    "almalinux": "dnf",
    "ol": "dnf",
    "fedora": "dnf",
    "amzn": "dnf",
}

# Needed on the host to add a repository: gpg reads the key's fingerprint, python3-debian is what deb822_repository works with.
PREREQUISITES: Mapping[str, tuple[str, ...]] = {
    "apt": ("ca-certificates", "gpg", "python3-debian"),
    "dnf": ("ca-certificates", "gnupg2", "python3-dnf-plugin-versionlock"),
}

# The same repository under older names or with another Signed-By: apt refuses to read both.
OLD_FILES: Mapping[str, tuple[str, ...]] = {
    "apt": (
        "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
        "/etc/apt/sources.list.d/libnvidia-container.list",
        "/etc/apt/sources.list.d/nvidia-container-runtime.list",
        "/etc/apt/sources.list.d/nvidia-docker.list",
    ),
    "dnf": (
        "/etc/yum.repos.d/libnvidia-container.repo",
        "/etc/yum.repos.d/nvidia-container-runtime.repo",
        "/etc/yum.repos.d/nvidia-docker.repo",
    ),
}

# How deb822_repository and yum_repository call the file of a repository named nvidia-container-toolkit
REPOSITORY_FILES: Mapping[str, str] = {"apt": "nvidia-container-toolkit.sources", "dnf": "nvidia-container-toolkit.repo"}

KEY_DOWNLOAD = "/etc/aikit-fleet/keys/nvidia-container-toolkit.asc"
KEY_PATHS: Mapping[str, str] = {
    "apt": "/etc/apt/keyrings/nvidia-container-toolkit.asc",
    "dnf": "/etc/pki/rpm-gpg/RPM-GPG-KEY-nvidia-container-toolkit",
}
PIN_PATH = "/etc/apt/preferences.d/nvidia-container-toolkit"

# What this collection did on a host: an empty file for each thing that state absent may take back.
RECORDS = "/etc/aikit-fleet/nvidia_container_toolkit"

# The toolkit's own units, since 1.18. The specification lies on a tmpfs; they write it at boot and after an upgrade.
REFRESH_SINCE = "1.18.0"
REFRESH_SERVICE = "nvidia-cdi-refresh.service"
# From the first of these on, and before the second, that unit waits for multi-user.target, which waits for Docker: systemd would leave one of them out.
REFRESH_AFTER_ALL = ("1.19.0", "1.19.1")
REFRESH_ENVIRONMENT = "/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env"
REFRESH_DROP_IN = "/etc/systemd/system/nvidia-cdi-refresh.service.d/aikit-fleet.conf"
SPEC_PATH = "/var/run/cdi/nvidia.yaml"
# Where instructions before 1.18 had it written by hand; nothing refreshes it.
OLD_SPEC_PATH = "/etc/cdi/nvidia.yaml"

# Docker of a user runs behind rootlesskit, which shows it links in place of /etc/cdi and /run/cdi: it does not follow them (moby/moby#47676; Docker's
# own script mends that for folders that are there when it starts, in versions of 2025). So it reads a copy elsewhere, which every refresh renews.
ROOTLESS_SPEC_DIR = "/var/lib/aikit-fleet-cdi"
ROOTLESS_SPEC_PATH = f"{ROOTLESS_SPEC_DIR}/nvidia.yaml"
ROOTLESS_DROP_IN = "/etc/systemd/system/nvidia-cdi-refresh.service.d/aikit-fleet-rootless.conf"
# For the docker.service of every user who has one
ROOTLESS_DOCKER_DROP_IN = "/etc/systemd/user/docker.service.d/aikit-fleet.conf"

# Without additional groups, specifications are written as 0.5.0: nvidia-ctk takes the lowest version that has what it writes.
NO_GIDS_FLAG = "no-additional-gids-for-device-nodes"
FLAGS_VARIABLE = "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS"

DOCKER_DROP_IN = "/etc/systemd/system/docker.service.d/aikit-fleet-nvidia.conf"
# Starts the legacy hook in each container of Podman's, beside CDI. Toolkits before 1.18 installed it.
PODMAN_HOOK = "/usr/share/containers/oci/hooks.d/oci-nvidia-hook.json"
CONTAINERD_CONFIG = "/etc/containerd/config.toml"
CONTAINERD_SERVICE = "containerd.service"
SELINUX_BOOLEAN = "container_use_devices"

# What Docker before 25 looks for when it starts
HOOK = "nvidia-container-runtime-hook"

# Docker that does not bring containers with CDI devices back: it starts them before it learns of CDI (moby/moby#49989, fixed in 28.2)
DOCKER_FORGETS_CDI = ("25.0", "28.2")
STARTER_PATH = "/usr/local/lib/aikit-fleet/start-gpu-containers"
