# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which AIKit release knows what.

Source: the tags of github.com/kaito-project/aikit (pkg/build/build.go, pkg/utils/const.go, pkg/aikit2llb/inference),
v0.1.0 to v0.21.0, and its main branch at 6f814e9. Read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional

REVIEWED = "2026-11-01"

Version = tuple[int, int, int]

# Later than every release; what only the development branch has starts here.
MAIN: Version = (9999, 0, 0)

# (version, date, LocalAI in it)
RELEASES: tuple[tuple[Version, str, str], ...] = (
    ((0, 1, 0), "2023-12-02", "1.40.0"),
    ((0, 2, 0), "2023-12-04", "1.40.0"),
    ((0, 3, 0), "2023-12-04", "2.0.0"),
    ((0, 4, 0), "2023-12-27", "2.2.0"),
    ((0, 5, 0), "2024-01-04", "2.4.0"),
    ((0, 5, 1), "2024-01-09", "2.5.1"),
    ((0, 5, 2), "2024-01-16", "2.5.1"),
    ((0, 6, 0), "2024-01-25", "2.6.1"),
    ((0, 6, 1), "2024-02-11", "2.8.0"),
    ((0, 6, 2), "2024-02-25", "2.9.0"),
    ((0, 7, 0), "2024-03-17", "2.10.0"),
    ((0, 7, 1), "2024-03-17", "2.10.0"),
    ((0, 7, 2), "2024-04-11", "2.12.3"),
    ((0, 8, 0), "2024-04-21", "2.12.3"),
    ((0, 9, 0), "2024-05-30", "2.16.0"),
    ((0, 10, 0), "2024-06-06", "2.16.0"),
    ((0, 11, 0), "2024-06-12", "2.16.0"),
    ((0, 11, 1), "2024-06-12", "2.16.0"),
    ((0, 11, 2), "2024-07-27", "2.16.0"),
    ((0, 12, 0), "2024-07-27", "2.19.1"),
    ((0, 12, 1), "2024-08-03", "2.19.4"),
    ((0, 12, 2), "2024-08-03", "2.19.4"),
    ((0, 13, 0), "2024-09-07", "2.20.1"),
    ((0, 14, 0), "2024-09-26", "2.21.1"),
    ((0, 15, 0), "2024-11-26", "2.23.0"),
    ((0, 16, 0), "2024-12-09", "2.24.1"),
    ((0, 17, 0), "2025-02-21", "2.25.0"),
    ((0, 18, 0), "2025-02-25", "2.26.0"),
    ((0, 18, 1), "2025-08-06", "2.26.0"),
    ((0, 18, 2), "2025-08-07", "2.26.0"),
    ((0, 19, 0), "2025-08-21", "3.4.0"),
    ((0, 19, 1), "2025-08-26", "sha-1a0d06f"),
    ((0, 19, 2), "2025-08-29", "sha-1a0d06f"),
    ((0, 19, 3), "2025-09-10", "sha-1a0d06f"),
    ((0, 19, 4), "2025-10-10", "3.6.0"),
    ((0, 20, 0), "2025-10-27", "3.6.0"),
    ((0, 20, 1), "2025-10-30", "3.6.0"),
    ((0, 20, 2), "2025-12-02", "3.7.0"),
    ((0, 20, 3), "2025-12-03", "3.8.0"),
    ((0, 21, 0), "2026-03-17", "4.0.0"),
    (MAIN, "2026-08-08", "4.7.1"),
)
NEWEST_RELEASE: Version = (0, 21, 0)


@dataclass(frozen=True)
class Span:
    """The releases that have something: from ``first`` up to, but without, ``gone``; None where it is still there."""

    first: Version
    gone: Optional[Version] = None

    def holds(self, version: Version) -> bool:
        return self.first <= version and (self.gone is None or version < self.gone)

    def last(self) -> Optional[Version]:
        """The last release that had it."""
        gone = self.gone
        if gone is None:
            return None
        return max(version for version, _date, _localai in RELEASES if version < gone)


BACKENDS: Mapping[str, Span] = {
    "llama-cpp": Span((0, 19, 0)),  # before that the only choice that had no name
    "diffusers": Span((0, 13, 0)),
    "vllm": Span((0, 21, 0)),
    "exllama2": Span((0, 4, 0), (0, 21, 0)),
    "exllama": Span((0, 4, 0), (0, 14, 0)),
    "mamba": Span((0, 6, 0), (0, 19, 0)),
    "stablediffusion": Span((0, 4, 0), (0, 18, 0)),
}

# v0.18 to v0.20 checked only diffusers, yet had CUDA builds of exllama2 and mamba alone
CUDA_ONLY_BACKENDS = ("diffusers", "vllm", "exllama2", "exllama", "mamba")

RUNTIMES: Mapping[str, Span] = {
    "": Span((0, 1, 0)),
    "cuda": Span((0, 1, 0)),
    "applesilicon": Span((0, 15, 0)),
    "rocm": Span(MAIN),
    "avx": Span((0, 1, 0), (0, 14, 0)),
    "avx2": Span((0, 1, 0), (0, 14, 0)),
    "avx512": Span((0, 1, 0), (0, 14, 0)),
}

FEATURES: Mapping[str, Span] = {
    "huggingface:// sources": Span((0, 10, 0)),
    "oci:// sources": Span((0, 11, 0)),
    "platform linux/arm64": Span((0, 11, 0)),
    "loadToMemory": Span(MAIN),
    "images without models": Span((0, 13, 0)),
    "runner images": Span((0, 21, 0)),
    # from here on config and templates pass verbatim; before, they went through a shell in double quotes
    "verbatim text": Span(MAIN),
    # LocalAI 2.16 stopped handing f16 to llama.cpp
    "f16 without effect": Span((0, 9, 0)),
}

# The word that people carry over from other tools, and what AIKit calls it
RUNTIME_WORDS: Mapping[str, str] = {
    "cpu": "leave runtime out for the CPU",
    "none": "leave runtime out for the CPU",
    "nvidia": "write cuda",
    "gpu": "write cuda",
    "cublas": "write cuda",
    "amd": "write rocm",
    "hip": "write rocm",
    "hipblas": "write rocm",
    "metal": "write applesilicon",
    "apple": "write applesilicon",
    "apple-silicon": "write applesilicon",
    "vulkan": "AIKit has Vulkan only as applesilicon; for other GPUs leave runtime out and take a Vulkan base",
}
BACKEND_WORDS: Mapping[str, str] = {
    "llama": "here it is called llama-cpp; llama is right only in config, as a model's backend",
    "llama.cpp": "write llama-cpp",
    "llamacpp": "write llama-cpp",
    "llama_cpp": "write llama-cpp",
    "exllamav2": "it was called exllama2, and is gone since v0.21.0",
    "rwkv": "AIKit never had it",
}


def parse_version(text: str) -> Optional[Version]:
    """``0.21.0``, ``v0.21.0``, ``0.21`` or ``main`` as a tuple that compares; None for anything else."""
    word = text.strip()
    if word == "main":
        return MAIN
    parts = word[1:].split(".") if word[:1] == "v" else word.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        return None
    numbers = [int(part) for part in parts] + [0]
    return (numbers[0], numbers[1], numbers[2])


def describe(version: Version) -> str:
    """How a version is written in messages."""
    return "main" if version >= MAIN else "v" + ".".join(str(part) for part in version)
