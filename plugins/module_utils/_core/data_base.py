# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes into a base: names of Debian's packages as of November 2026 (suites forky and sid, llama.cpp 0.7.0)."""

from __future__ import annotations

from typing import Any, Mapping

REVIEWED = "2026-11-01"

# What images call an architecture → what Debian calls it.
ARCHITECTURES: Mapping[str, str] = {"amd64": "amd64", "arm64": "arm64"}

# What uname calls a machine → what images call it.
MACHINES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

_PLAIN = ("base-files", "llama.cpp-tools")

# needed_bytes: the peak of a build, measured on amd64, and a fifth on top.
# provided: packages that must not be installed because the host's container toolkit mounts what they hold.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "cpu": {
        "packages": _PLAIN,
        "components": ("main",),
        "architectures": ("amd64", "arm64"),
        "provided": (),
        "needed_bytes": 400_000_000,
    },
    "vulkan": {
        "packages": (*_PLAIN, "libggml0-backend-vulkan", "mesa-vulkan-drivers"),
        "components": ("main",),
        "architectures": ("amd64", "arm64"),
        "provided": (),
        "needed_bytes": 1_400_000_000,
    },
    # CUDA's own libraries are in non-free, what links against them in contrib.
    "cuda": {
        "packages": (*_PLAIN, "libggml0-backend-cuda"),
        "components": ("main", "contrib", "non-free"),
        "architectures": ("amd64", "arm64"),
        "provided": ("libcuda1 (= 9999)", "libcuda.so.1 (= 9999)"),
        "needed_bytes": 3_500_000_000,
    },
}

# Documentation, translations and test programs; copyright files stay.
EXCLUDES = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/share/llama.cpp/*",
    "/usr/libexec/*/ggml/*",
    "/usr/lib/*/gconv/*",
)
