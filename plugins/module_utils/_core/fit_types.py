# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan of GPU memory is made from, and what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from . import data_gpu
from .errors import Finding
from .fit_shape import ModelShape

MIB = 1024 * 1024
# What a process takes on every GPU that it sees: 253 MiB (MI50) to 330 on cards of up to 82 multiprocessors; on larger ones four for each of
# them (seen: RX 7900 XTX 410, RTX PRO 6000 705 to 753, MI300X 1382; docs/benchmarks.md)
CONTEXT_MIB = 330
CONTEXT_MIB_EACH = 4


@dataclass(frozen=True)
class Gpu:
    """One GPU. ``free_mib`` is what is free now, ``ours_mib`` what our own running containers hold of it.

    A plan may use both together: the containers give their part back before they start anew, and a second run
    must come to the same plan as the first.
    """

    index: int
    name: str = ""
    total_mib: int = 0
    free_mib: int = 0
    compute_capability: str = ""
    unified_memory: bool = False
    ours_mib: int = 0
    uuid: str = ""
    vendor: str = "nvidia"

    @property
    def usable_mib(self) -> int:
        return min(self.total_mib or self.free_mib + self.ours_mib, self.free_mib + self.ours_mib)

    @property
    def label(self) -> str:
        return f"GPU {self.index}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class Host:
    """The host's memory, for what stays out of the GPU. 0: not known, then it is not checked."""

    total_mib: int = 0
    available_mib: int = 0


@dataclass(frozen=True)
class Policy:
    """How a plan decides. The margin is the larger of both, for each GPU that has to hold something."""

    margin_mib: int = 512
    margin_percent: float = 3.0
    # The driver's own memory for the process, its kernels and cuBLAS: in no buffer of llama.cpp. 0: what a card of this name takes
    context_mib: int = 0
    # Types of the KV cache that may be chosen, in this order; f16 loses nothing
    kv_types: tuple[str, ...] = ("f16",)
    context_min: int = 4096
    # 0: what the model was trained for
    context_max: int = 0
    # On top of the margin where the compute buffer of the architecture is not known
    unknown_percent: float = 50.0
    # Architectures whose memory cannot be predicted: "margin" plans with unknown_percent, "server" leaves it to llama.cpp's own fit
    unknown: str = "margin"
    # What the host itself keeps of its memory
    host_reserve_mib: int = 2048


def context_mib(gpu: Gpu, policy: Policy) -> int:
    """What a server takes of a GPU before it holds anything of a model."""
    if policy.context_mib:
        return policy.context_mib
    # An instance of a GPU has few of its multiprocessors
    few = gpu.uuid.startswith("MIG-") or data_gpu.FEW_MULTIPROCESSORS in gpu.name
    # Whole words: an RTX A1000 is no A100
    counts = (count for words, count in data_gpu.MULTIPROCESSORS.items() if re.search(rf"(?<!\w){re.escape(words)}(?!\w)", gpu.name))
    return max(CONTEXT_MIB, CONTEXT_MIB_EACH * (0 if few else next(counts, 0)))


@dataclass(frozen=True)
class Wish:
    """One service that wants its model on the GPUs. ``settings`` are those of ``inference_services``; a missing key and ``auto`` mean "choose".

    ``gpus``: ``all``, indexes or UUIDs; empty is the CPU. ``step_down``: how many out-of-memory errors this plan had to learn from.
    """

    service: str
    model: ModelShape
    settings: Mapping[str, Any] = field(default_factory=dict)
    gpus: tuple[str, ...] = ("all",)
    mmproj: Optional[ModelShape] = None
    step_down: int = 0
    # "localai v4.7.1", "llama_cpp 0.7.0"; empty: as plan() was told
    server_version: str = ""
    # What an operator measured and wants added on each GPU, and files that load beside the model (LoRA adapters)
    extra_mib: int = 0


@dataclass(frozen=True)
class Share:
    """What one device (a GPU, or ``CPU``) has to hold for a service."""

    device: str
    weights_mib: float = 0.0
    kv_mib: float = 0.0
    # State of recurrent layers
    state_mib: float = 0.0
    compute_mib: float = 0.0
    mmproj_mib: float = 0.0
    context_mib: float = 0.0
    # The part of context_mib that is taken only with the first long text
    pool_mib: float = 0.0
    margin_mib: float = 0.0
    # What was there for it before this service
    available_mib: float = 0.0
    layers: int = 0
    index: Optional[int] = None

    @property
    def needed_mib(self) -> float:
        """What is really taken, without the margin."""
        return self.weights_mib + self.kv_mib + self.state_mib + self.compute_mib + self.mmproj_mib + self.context_mib

    def as_dict(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "index": self.index,
            "layers": self.layers,
            "weights_mib": round(self.weights_mib, 2),
            "kv_mib": round(self.kv_mib, 2),
            "state_mib": round(self.state_mib, 2),
            "compute_mib": round(self.compute_mib, 2),
            "mmproj_mib": round(self.mmproj_mib, 2),
            "context_mib": round(self.context_mib, 2),
            "pool_mib": round(self.pool_mib, 2),
            "margin_mib": round(self.margin_mib, 2),
            "needed_mib": round(self.needed_mib, 2),
            "available_mib": round(self.available_mib, 2),
        }


@dataclass(frozen=True)
class Fit:
    """The plan for one service. ``settings`` are explicit; only in what is ``delegated`` can something be ``auto``."""

    service: str
    settings: Mapping[str, Any]
    offload: str
    confidence: str
    reason: str
    breakdown: tuple[Share, ...] = ()
    layers_offloaded: int = 0
    layers_total: int = 0
    findings: tuple[Finding, ...] = ()
    # Set where even the CPU cannot hold it
    fits: bool = True
    # Left to llama.cpp's own fit: settings then say so
    delegated: bool = False
    step_down: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "settings": dict(self.settings),
            "offload": self.offload,
            "confidence": self.confidence,
            "reason": self.reason,
            "fits": self.fits,
            "delegated": self.delegated,
            "layers_offloaded": self.layers_offloaded,
            "layers_total": self.layers_total,
            "step_down": self.step_down,
            "breakdown": [share.as_dict() for share in self.breakdown],
            "findings": [finding.as_dict() for finding in self.findings],
        }
