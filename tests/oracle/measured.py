# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loads that people measured on their cards (tests/fixtures/fit/measured.json, each with its source), beside what a plan would say.

The logs have no list of tensors, so the weights are taken from them; cache, states and compute buffer are ours.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional

from ansible_collections.aikit.fleet.plugins.module_utils._core import data_era, fit_memory
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape, Weight
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_types import Gpu, Policy, context_mib

PATH = Path(__file__).resolve().parent.parent / "fixtures" / "fit" / "measured.json"
OUTSIDE = PATH.with_name("outside.json")
MIB = 1024 * 1024
# Widths of the delta nets of these sizes (Qwen3.5, 3.6 and Next), which the logs do not print
_INNER = {2048: 2048, 2560: 4096, 4096: 4096, 5120: 6144}
_INNER_OF_MIXTURES = 4096
_DELTA_NETS = ("qwen35", "qwen35moe", "qwen3next")
# Experts of a file, by its name
_TYPES = {"Q8_0": 8, "Q6_K": 14, "Q5_K": 13, "Q4_K": 12}


@dataclass(frozen=True)
class Point:
    name: str
    architecture: str
    engine: str
    source: str
    config: str
    # Whether a server of ours would use memory like this one: no fork, no tensors moved by hand, one GPU
    comparable: bool
    why_not: str
    ours_kv_mib: float
    real_kv_mib: Optional[float]
    ours_mib: float
    real_mib: Optional[float]
    ours_compute_mib: float = 0.0
    real_compute_mib: Optional[float] = None
    # What the driver said that the process holds: the buffers, and what is in none of them
    ours_process_mib: float = 0.0
    real_process_mib: Optional[float] = None
    gpu: str = ""


def points(path: Path = PATH) -> tuple[Point, ...]:
    return tuple(_point(entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def outside() -> list[tuple[Mapping[str, Any], float]]:
    """What processes took beside their buffers on cards of many kinds, and what a plan would say."""
    rows = json.loads(OUTSIDE.read_text(encoding="utf-8"))
    return [(row, context_mib(Gpu(0, row["card"]), Policy()) + row.get("pool_mib", 0)) for row in rows]


def _point(entry: Mapping[str, Any]) -> Point:
    model = _shape(entry)
    load = _load(entry, model)
    server = _server(str(entry["engine"]))
    on_gpus, on_cpu = fit_memory.measure(model, load, data_era.era(server))
    why = _why_not(entry)
    layers = entry["ngl"] if isinstance(entry["ngl"], int) else 9999
    real = None
    weights = entry.get("model_buffer_mib_gpu")
    if weights and entry.get("compute_mib") and entry.get("kv_mib") is not None:
        cache = entry["kv_mib"]
        if layers < (entry.get("ngl_total") or 0):
            cache = (entry.get("kv_per_device") or {}).get("CUDA0", cache)
        compute = sum(size for device, size in (entry.get("compute_per_device") or {}).items() if device[-1:].isdigit())
        real = weights + cache + (entry.get("rs_mib") or 0) + (compute if entry.get("n_gpus", 1) > 1 and compute else entry["compute_mib"])
    flash = "flash attention" if entry.get("flash_attn") else "no flash attention"
    compute_real = sum(size for device, size in (entry.get("compute_per_device") or {}).items() if device[-1:].isdigit()) or entry.get("compute_mib")
    ours = (weights or 0) + sum(use.kv + use.state + use.compute for use in on_gpus) / MIB
    outside = (
        sum(context_mib(Gpu(0, str(entry.get("gpu") or "")), Policy()) for dummy in on_gpus)
        + sum(fit_memory.pool_bytes(model, load, data_era.era(server))) / MIB
    )
    return Point(
        name=f"{entry['model']} {entry.get('quant', '')}".strip(),
        architecture=entry["arch"],
        engine=str(entry["engine"]),
        source=str(entry["source"]),
        config=f"{entry['ngl']} layers, context {entry.get('ctx')}, {entry.get('kv_type')}, {flash}",
        comparable=not why,
        why_not=why,
        ours_kv_mib=(sum(use.kv for use in on_gpus) + on_cpu.kv) / MIB,
        # Some logs give the cache and the states as one number, or the context is only known from the cache
        real_kv_mib=None if entry.get("kv_and_states") or entry.get("context_from_cache") else entry.get("kv_mib"),
        ours_mib=ours,
        real_mib=real,
        ours_compute_mib=sum(use.compute for use in on_gpus) / MIB,
        real_compute_mib=compute_real,
        ours_process_mib=ours + outside,
        real_process_mib=entry.get("process_mib"),
        gpu=str(entry.get("gpu") or ""),
    )


def _why_not(entry: Mapping[str, Any]) -> str:
    if entry.get("tensor_override") and not _all_experts_moved(entry):
        return "tensors moved by hand"
    if entry.get("n_gpus", 1) > 1 and not _all_experts_moved(entry):
        return "several GPUs"
    if entry.get("why_not"):
        return str(entry["why_not"])
    if "b3961" in str(entry["engine"]):
        return "a build of 2024, when such models had a cache"
    if "(MTP)" in str(entry["model"]):
        return "with snapshots for predicting several tokens"
    return ""


def _all_experts_moved(entry: Mapping[str, Any]) -> bool:
    """``-ot exps=CPU``, which is ``n_cpu_moe`` for all blocks: nearly all of a mixture of experts lies on the CPU, and all layers on a GPU."""
    held, there = entry.get("model_buffer_mib_gpu") or 0, entry.get("model_buffer_mib_cpu") or 0
    return bool(entry.get("n_expert")) and entry["ngl"] == entry.get("ngl_total") and there > 4 * held


def _server(engine: str) -> str:
    """What the builds behind the words are called in a plan."""
    build = re.search(r"\bb(\d{4})\b", engine)
    if "~b9625" in engine or "sched_reserve" in engine or ("2026" in engine and not build):
        return "llama_cpp b9625"
    return f"llama_cpp b{build.group(1)}" if build else "llama_cpp b5500"


def _load(entry: Mapping[str, Any], model: ModelShape) -> fit_memory.Load:
    type_k, _slash, type_v = str(entry.get("kv_type") or "f16").partition("/")
    layers = min(entry["ngl"] if isinstance(entry["ngl"], int) else 9999, model.block_count + 1)
    gpus = entry.get("n_gpus", 1)
    caches = [size for device, size in sorted((entry.get("kv_per_device") or {}).items()) if device[-1:].isdigit()]
    counts = tuple(round(1000 * size / sum(caches)) for size in caches) if gpus > 1 and len(caches) == gpus else (1000,) * gpus
    return fit_memory.Load(
        context=entry.get("ctx") or 4096,
        gpu_layers=layers,
        counts=(layers,) if gpus == 1 else counts,
        cpu_moe=int(entry.get("cpu_moe") or (model.block_count if _all_experts_moved(entry) else 0)),
        # A fork knows no windows
        swa_full="ik_llama" in str(entry["engine"]),
        all_outputs=not model.caches,
        parallel=entry.get("n_seq_max") or 1,
        unified=bool(entry.get("kv_unified", True)),
        ubatch=entry.get("n_ubatch") or 512,
        flash=bool(entry.get("flash_attn")),
        type_k=type_k,
        type_v=type_v or type_k,
        padding="" if "Vulkan" in str(entry["engine"]) else "cuda",
    )


def _shape(entry: Mapping[str, Any]) -> ModelShape:
    arch, layers, width = entry["arch"], entry.get("n_layers") or 32, entry["n_embd"]
    feed = entry.get("n_ff") or 0
    head = entry.get("n_embd_head_k") or 128
    keys: dict[str, Any] = {
        "block_count": layers,
        "context_length": entry.get("ctx") or 8192,
        "embedding_length": width,
        "feed_forward_length": feed,
        "attention.head_count": entry.get("n_head") or width // head,
        "attention.key_length": head,
        "attention.value_length": entry.get("n_embd_head_v") or head,
        "attention.sliding_window": entry.get("n_swa") or 0,
        "full_attention_interval": entry.get("full_attention_interval"),
        "attention.head_count_kv": entry.get("n_head_kv"),
    }
    if arch in _DELTA_NETS:
        inner_size = _INNER_OF_MIXTURES if entry.get("n_expert") else _INNER[width]
        keys.update({"ssm.inner_size": inner_size, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.conv_kernel": 4})
    weights = [Weight("output.weight", 14, (width, entry.get("n_vocab") or 0)), Weight("token_embd.weight", 12, (width, entry.get("n_vocab") or 0))]
    experts = entry.get("n_expert") or 0
    if experts:
        inner = entry["n_ff_exp"]
        keys.update({"expert_count": experts, "expert_used_count": entry.get("n_expert_used") or 8})
        kind = next((number for word, number in _TYPES.items() if word in str(entry.get("quant"))), 12)
        for layer in range(layers):
            weights += [Weight(f"ffn_{part}_exps.weight", kind, (width, inner, experts), layer) for part in ("up", "gate")]
            weights.append(Weight("ffn_down_exps.weight", kind, (inner, width, experts), layer))
    else:
        for layer, columns in enumerate(feed if isinstance(feed, list) else [feed] * layers):
            gate = [] if arch in ("gptneox", "bert") or not columns else [Weight("ffn_gate.weight", 12, (width, columns), layer)]
            weights += [*gate, *([Weight("ffn_up.weight", 12, (width, columns), layer)] if columns else [])]
    metadata = {f"{arch}.{key}": tuple(value) if isinstance(value, list) else value for key, value in keys.items() if value is not None}
    return ModelShape(arch, {"general.architecture": arch, **metadata}, tuple(weights), entry.get("n_vocab") or 0, entry["model"])
