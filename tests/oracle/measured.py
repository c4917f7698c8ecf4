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

PATH = Path(__file__).resolve().parent.parent / "fixtures" / "fit" / "measured.json"
MIB = 1024 * 1024
# Widths of the delta nets of these sizes (Qwen3.5 and 3.6), which the logs do not print
_INNER = {2048: 2048, 2560: 4096, 4096: 4096, 5120: 6144}


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


def points(path: Path = PATH) -> tuple[Point, ...]:
    return tuple(_point(entry) for entry in json.loads(path.read_text(encoding="utf-8")))


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
    return Point(
        name=f"{entry['model']} {entry.get('quant', '')}".strip(),
        architecture=entry["arch"],
        engine=str(entry["engine"]),
        source=str(entry["source"]),
        config=f"{entry['ngl']} layers, context {entry.get('ctx')}, {entry.get('kv_type')}, {flash}",
        comparable=not why,
        why_not=why,
        ours_kv_mib=(sum(use.kv for use in on_gpus) + on_cpu.kv) / MIB,
        real_kv_mib=entry.get("kv_mib"),
        ours_mib=(weights or 0) + sum(use.kv + use.state + use.compute for use in on_gpus) / MIB,
        real_mib=real,
    )


def _why_not(entry: Mapping[str, Any]) -> str:
    if entry.get("tensor_override"):
        return "tensors moved by hand"
    if entry.get("n_gpus", 1) > 1:
        return "several GPUs"
    if "ik_llama" in str(entry["engine"]) and (entry.get("n_swa") or entry["arch"] in ("bert",)):
        return "a fork without windows"
    if "b3961" in str(entry["engine"]):
        return "a build of 2024, when such models had a cache"
    if "(MTP)" in str(entry["model"]):
        return "with snapshots for predicting several tokens"
    if entry["model"] == "Qwen3-235B-A22B-128K":
        return "tensors moved by hand"
    return ""


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
    return fit_memory.Load(
        context=entry.get("ctx") or 4096,
        gpu_layers=layers,
        counts=(layers,) if gpus == 1 else (1000,) * gpus,
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
    if arch == "qwen35":
        keys.update({"ssm.inner_size": _INNER[width], "ssm.state_size": 128, "ssm.group_count": 16, "ssm.conv_kernel": 4})
    weights = [Weight("output.weight", 14, (width, entry.get("n_vocab") or 0)), Weight("token_embd.weight", 12, (width, entry.get("n_vocab") or 0))]
    experts = entry.get("n_expert") or 0
    if experts:
        inner = entry["n_ff_exp"]
        keys.update({"expert_count": experts, "expert_used_count": entry.get("n_expert_used") or 8})
        for layer in range(layers):
            weights += [Weight(f"ffn_{part}_exps.weight", 12, (width, inner, experts), layer) for part in ("up", "gate")]
            weights.append(Weight("ffn_down_exps.weight", 12, (inner, width, experts), layer))
    else:
        for layer, columns in enumerate(feed if isinstance(feed, list) else [feed] * layers):
            gate = [] if arch in ("gptneox", "bert") or not columns else [Weight("ffn_gate.weight", 12, (width, columns), layer)]
            weights += [*gate, *([Weight("ffn_up.weight", 12, (width, columns), layer)] if columns else [])]
    metadata = {f"{arch}.{key}": tuple(value) if isinstance(value, list) else value for key, value in keys.items() if value is not None}
    return ModelShape(arch, {"general.architecture": arch, **metadata}, tuple(weights), entry.get("n_vocab") or 0, entry["model"])
