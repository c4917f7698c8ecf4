# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How llama.cpp used memory, by its build: what changed, and in which build each server of ours has.

Source: github.com/ggml-org/llama.cpp pull requests 18148 (output layer first, December 2025), 19067 (no V for MLA, January 2026), 23861 and
23988 (outputs are reserved for the slots alone, June 2026); LocalAI's Makefile of its llama-cpp backend for the commits it pins;
13194 (windows of their own size, May 2025);
observations of builds b6431, b7698, b8179, b10068, 0.5.0 and 0.7.0 (tests/oracle). Read 2026-11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Mapping

REVIEWED = "2026-11-25"


@dataclass(frozen=True)
class Era:
    """``output_first``: with k layers on the GPU these are the output layer and the last k-1 blocks, not the last k blocks.

    ``outputs_per_slot``: logits are reserved for one token per slot, not for every token of a batch.
    ``mla_without_values``: multi-head latent attention keeps no V. ``unified``: the slots share one KV cache unless told otherwise.
    ``mask_f16``: the mask of attention is made in f16 at once, not made in f32 and converted.
    ``keeps_inputs``: inputs stay in the compute buffer to the end. ``dequantises``: flash attention on a quantised cache counts there.
    ``inputs``: activations of the model's width that live beside the largest tensors, on one GPU, on the first and the other ones of
    several, and in host memory. ``cpu_moe``: whether the server reads ``n_cpu_moe``.
    """

    name: str
    output_first: bool
    outputs_per_slot: bool
    mla_without_values: bool
    mask_f16: bool
    keeps_inputs: bool
    dequantises: bool
    inputs: int
    inputs_first: int
    inputs_other: int
    inputs_host: int = 2
    inputs_host_pipeline: int = 2
    cpu_moe: bool = True
    unified: bool = True
    # Layers with a sliding window keep no more than it
    windows: bool = True
    # Gated delta nets are one operation of NVIDIA's backend, not many
    fused_delta: bool = False
    # Logits are made even where one vector for the whole text is all that is asked for
    pooled_logits: bool = True
    # Models that are recurrent in part give each slot the whole context where others divide it
    hybrids_undivided: bool = False
    # Flash attention takes keys and values of different types, and more types of them
    flash_mixed: bool = False
    # Latent attention stops where keys and values are given different types (pull request 25871, July 2026)
    mla_one_type: bool = False
    # Tensors that prepare the inputs of all layers lie with the first of them, not with the output
    inputs_first_block: bool = True


# The first build of each era (llama.cpp's number of commits)
BUILDS: tuple[tuple[int, Era], ...] = (
    (0, Era("2024", False, False, False, False, True, False, 4, 8, 8, cpu_moe=False, windows=False, inputs_first_block=False, hybrids_undivided=True)),
    (5427, Era("2025", False, False, False, False, True, False, 4, 8, 8, cpu_moe=False, inputs_first_block=False, hybrids_undivided=True)),
    # Option n_cpu_moe (pull request 15077, August 2025)
    (6089, Era("2025", False, False, False, False, True, False, 4, 8, 8, inputs_first_block=False, hybrids_undivided=True)),
    (7500, Era("2026-01", True, False, False, False, False, False, 4, 7, 7, inputs_first_block=False)),
    (7850, Era("2026-02", True, False, True, False, False, False, 4, 7, 7, inputs_first_block=False)),
    (9450, Era("2026-06", True, True, True, True, False, True, 3, 7, 7, fused_delta=True)),
    (10900, Era("2026-09", True, True, True, True, False, True, 3, 7, 7, fused_delta=True, flash_mixed=True, mla_one_type=True)),
    (
        11200,
        Era("2026-10", True, True, True, True, False, True, 4, 16, 7, 4, 10, fused_delta=True, pooled_logits=False, flash_mixed=True, mla_one_type=True),
    ),
)
NEWEST = BUILDS[-1][1]

# llama.cpp's releases have numbers of their own since 2026
RELEASES: Mapping[str, int] = {"0.5.0": 10900, "0.7.0": 11669}
# ... and those before the first of these are not older than this
FIRST_RELEASE = 9450

# LocalAI's release -> llama.cpp's build that its backend pins (2026-02-21 and 2026-07-13). The first is from June 2025: its build is
# not older than this
LOCALAI: Mapping[str, int] = {"v3.0.0": 5427, "v3.12.1": 8120, "v4.7.1": 10000}
# Images that do not say which LocalAI they hold. Older ones are of AIKit's releases before August 2025
UNKNOWN_LOCALAI = "v3.0.0"
# From which release on LocalAI shares one KV cache between slots, and reads n_cpu_moe (backend/cpp/llama-cpp/grpc-server.cpp at each tag)
_LOCALAI_UNIFIED = [4, 3]
_LOCALAI_CPU_MOE = [4, 5, 1]


def era(server_version: str) -> Era:
    """The era of ``localai v4.7.1``, ``llama_cpp 0.7.0``, ``llama_cpp b8179``; the newest where the version is not known.

    AIKit's images with LocalAI do not say their version, and hold old ones for long: not known, it counts as an old one.
    """
    words = server_version.lower().split()
    text = words[-1] if words else ""
    if words and words[0] == "localai":
        known = re.search(r"\d+\.\d+(?:\.\d+)?", text)
        number = _numbers(known.group() if known else UNKNOWN_LOCALAI)
        # The newest release that is not newer than this one: older builds take more, so a plan errs on the safe side
        older = [build for release, build in LOCALAI.items() if _numbers(release) <= number]
        return replace(of_build(max(older, default=0)), unified=number >= _LOCALAI_UNIFIED, cpu_moe=number >= _LOCALAI_CPU_MOE)
    release = re.search(r"\d+\.\d+\.\d+", text)
    if release:
        number = _numbers(release.group())
        older = [build for known_release, build in RELEASES.items() if _numbers(known_release) <= number]
        return of_build(max(older)) if older else of_build(FIRST_RELEASE)
    found_build = re.search(r"(?:^|\s|\bb)(\d{3,6})\b", server_version.lower())
    return of_build(int(found_build.group(1))) if found_build else NEWEST


def of_build(number: int) -> Era:
    found = BUILDS[0][1]
    for first, entry in BUILDS:
        if number >= first:
            found = entry
    return found


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
