# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AIKit's frontend makes a llama-cpp image of, release by release: sources, versions, and how it writes text.

Source: github.com/kaito-project/aikit, pkg/aikit2llb/inference (image.go, backend.go, convert.go, download.go) and
pkg/utils/const.go at tag v0.21.0, and at 6f814e9 of the main branch, from which the branch release-0.22 was cut.
Read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from .data_aikit import MAIN, Version

REVIEWED = "2026-11-25"

BASE = "ghcr.io/kaito-project/aikit/base:latest"
APPLE_SILICON_BASE = "ghcr.io/kaito-project/aikit/applesilicon/base:latest"
UBUNTU_BASE = "docker.io/library/ubuntu:22.04"
# Repositories; the tags are made of the versions below
LOCALAI_REPOSITORY = "ghcr.io/kaito-project/aikit/localai"
BACKEND_REPOSITORY = "quay.io/go-skynet/local-ai-backends"

# The one file of LocalAI's artifact: AIKit's mirror workflow pushes it raw, with oras
LOCALAI_TITLE = "local-ai"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG_FILE = "/config.yaml"
GALLERY_URL = "github:mudler/LocalAI/backend/index.yaml@master"


@dataclass(frozen=True)
class Backend:
    """A build of LocalAI's llama-cpp backend: its folder below /backends, and what stands behind the version in its tag."""

    directory: str
    tag_suffix: str


CPU = Backend("cpu-llama-cpp", "cpu-llama-cpp")
CUDA = Backend("cuda12-llama-cpp", "gpu-nvidia-cuda-12-llama-cpp")
VULKAN = Backend("gpu-vulkan-llama-cpp", "gpu-vulkan-llama-cpp")
BACKENDS: Mapping[str, Backend] = {backend.directory: backend for backend in (CPU, CUDA, VULKAN)}


@dataclass(frozen=True)
class Release:
    """One release. ``localai`` is the version of LocalAI's program, ``backend`` that of its llama-cpp backends;
    ``legacy`` stands for both in applesilicon images.

    - ``named_backend_base``: the base once the aikitfile names its backend, llama-cpp.
    - ``cuda_commands``: commands that the frontend runs in cuda images for amd64; empty where there are none.
    - ``cuda_env``: what cuda images have in their environment beside the common part.
    - ``shell_text``: whether config and templates go through a shell, between double quotes.
    - ``installed_at``: whether metadata.json has the time of the build in it.
    - ``load_to_memory``: whether the aikitfile may name models to load at start.
    """

    version: Version
    localai: str
    backend: str
    legacy: str
    named_backend_base: str
    cuda_commands: str
    cuda_env: tuple[str, ...]
    shell_text: bool
    installed_at: bool
    load_to_memory: bool


RELEASES: tuple[Release, ...] = (
    Release(
        version=(0, 21, 0),
        localai="v4.0.0",
        backend="v4.0.0",
        legacy="v3.12.1",
        named_backend_base=UBUNTU_BASE,
        cuda_commands="apt-get install of pciutils, libcublas-12-5 and cuda-cudart-12-5",
        cuda_env=(
            f"PATH={PATH}:/usr/local/cuda/bin",
            "NVIDIA_REQUIRE_CUDA=cuda>=12.0",
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            "NVIDIA_VISIBLE_DEVICES=all",
            "LD_LIBRARY_PATH=/usr/local/cuda/lib64",
            "BUILD_TYPE=cublas",
            "CUDA_HOME=/usr/local/cuda",
        ),
        shell_text=True,
        installed_at=True,
        load_to_memory=False,
    ),
    Release(
        version=MAIN,
        localai="v4.7.1",
        backend="v4.7.1",
        legacy="v3.12.1",
        named_backend_base=BASE,
        cuda_commands="",
        cuda_env=(
            "NVIDIA_REQUIRE_CUDA=cuda>=12.0",
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            "NVIDIA_VISIBLE_DEVICES=all",
            "BUILD_TYPE=cublas",
        ),
        shell_text=False,
        installed_at=False,
        load_to_memory=True,
    ),
)

APPLE_SILICON_ENV = ("VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/virtio_icd.aarch64.json",)
