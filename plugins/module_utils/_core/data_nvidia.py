# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Floors below which an NVIDIA host is not fit to serve; from NVIDIA's security bulletins and release notes, read in November 2026."""

from __future__ import annotations

from typing import Mapping

REVIEWED = "2026-11-22"

# Driver branch -> first version without known vulnerabilities (bulletin 5821 of May 2026). A branch that is not listed gets no fixes.
DRIVER_FLOORS: Mapping[int, str] = {535: "535.309.01", 580: "580.159.03", 595: "595.71.05"}

# AIKit's CUDA images are made with CUDA 12 and ask for cuda>=12.0; the first driver that runs them (CUDA 12.0 release notes).
CUDA_FLOOR = "12.0"
CUDA_DRIVER_FLOOR = "525.60.13"

# CVE-2026-24260 (June 2026); every earlier one is fixed below it too.
TOOLKIT_FLOOR = "1.19.1"

# Newest CDI specification that an engine reads, by the engine's first version that does. An engine refuses a whole specification
# for its version line alone, with an error that hides why. Docker: moby's go.mod by tag. Podman: 4.3.1 was tried, 5.1 and containerd's 1.7.16 are
# NVIDIA's own figures.
CDI_READABLE: Mapping[str, tuple[tuple[str, str], ...]] = {
    "docker": (("25.0", "0.6.0"), ("26.1", "0.7.0")),
    "podman": (("4.1", "0.5.0"), ("5.1", "0.7.0")),
    "containerd": (("1.7", "0.5.0"), ("1.7.16", "0.7.0")),
}

# Docker reads CDI devices since 25.0 where features.cdi is set, and without that since 28.2.
DOCKER_CDI = "25.0"
DOCKER_CDI_DEFAULT = "28.2"

# docker run --gpus goes by CDI since 29.2 where nvidia-cdi-hook is on the daemon's PATH; else it needs the toolkit's older hook.
DOCKER_GPUS_BY_CDI = "29.2"

# podman run --gpus is another way to write --device nvidia.com/gpu= since 5.0; before, Podman took it and did nothing.
PODMAN_GPUS = "5.0"

# containerd reads CDI devices since 1.7 where enable_cdi is set, and without that since 2.0.
CONTAINERD_CDI = "1.7"
CONTAINERD_CDI_DEFAULT = "2.0"
