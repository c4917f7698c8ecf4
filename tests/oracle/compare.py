# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our numbers beside those that llama.cpp printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

from ansible_collections.aikit.fleet.plugins.module_utils._core import data_era, fit_memory
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape
from ansible_collections.aikit.fleet.tests.unit.shapes import shape

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "oracle"
COMBINED = FIXTURES / "combined"
MIB = 1024 * 1024
# How our fields are called in the log
KINDS = {"weights": "model", "kv": "kv", "state": "rs", "compute": "compute"}


@dataclass(frozen=True)
class Pair:
    """One buffer: MiB as planned and as printed."""

    server: str
    model: str
    architecture: str
    config: Mapping[str, Any]
    device: str
    kind: str
    ours: float
    real: float


def recordings(folder: Path = FIXTURES) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in sorted(folder.glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def load_of(model: ModelShape, config: Mapping[str, Any]) -> fit_memory.Load:
    layers = min(int(config.get("gpu_layers", 999)), model.block_count + 1)
    gpus = int(config.get("gpus", 1))
    if gpus == 1:
        counts: tuple[int, ...] = (layers,)
    elif config.get("split"):
        counts = tuple(int(part) for part in str(config["split"]).split(","))
    else:
        # GPUs with as much free memory each
        counts = (1000,) * gpus
    return fit_memory.Load(
        context=int(config.get("context", 8192)),
        gpu_layers=layers,
        counts=counts,
        parallel=int(config.get("parallel", 1)),
        unified=bool(config.get("unified", True)),
        ubatch=int(config.get("ubatch", 512)),
        flash=bool(config.get("flash", True)),
        type_k=str(config.get("type_k", "f16")),
        type_v=str(config.get("type_v", "f16")),
        cpu_moe=int(config.get("cpu_moe", 0)),
        kv_on_host=bool(config.get("kv_on_host", False)),
        all_outputs=bool(config.get("embeddings", False)) or not model.caches,
        pooled=bool(config.get("embeddings", False)) and model.pools,
    )


def pairs(recorded: Mapping[str, Any]) -> Iterator[Pair]:
    """Every buffer of a recording; those of the CPU are summed, whatever library they belong to."""
    era = data_era.era(recorded["server"])
    for name, rows in recorded["observations"].items():
        model = shape(name)
        for config, buffers in rows:
            on_gpus, on_cpu = fit_memory.measure(model, load_of(model, config), era)
            uses = {f"CUDA{number}": use for number, use in enumerate(on_gpus)}
            host: dict[str, float] = {}
            for device, kinds in buffers.items():
                if device not in uses:
                    for kind, size in kinds.items():
                        host[kind] = host.get(kind, 0.0) + size
            for device, use in (*uses.items(), ("CPU", on_cpu)):
                printed = host if device == "CPU" else buffers.get(device, {})
                for ours, theirs in KINDS.items():
                    yield Pair(recorded["server"], name, model.architecture, config, device, ours, getattr(use, ours) / MIB, printed.get(theirs, 0.0))


def _flashes(pair: Pair) -> bool:
    config, model = pair.config, shape(pair.model)
    if not config.get("flash", True):
        return True
    return fit_memory.flash_works(model) and (
        not model.caches or fit_memory.flash_takes(config.get("type_k", "f16"), config.get("type_v", "f16"), data_era.era(pair.server))
    )


def totals(found: Iterator[Pair]) -> Iterator[tuple[Pair, float, float]]:
    """All buffers of one GPU together: a pair that stands for them, ours, and real."""
    sums: dict[tuple[str, str, str, str], list[Any]] = {}
    for pair in found:
        if pair.device == "CPU" or not _flashes(pair):
            # Never planned: attention would run on the CPU
            continue
        entry = sums.setdefault((pair.server, pair.model, json.dumps(pair.config, sort_keys=True), pair.device), [pair, 0.0, 0.0])
        entry[1] += pair.ours
        entry[2] += pair.real
    for pair, ours, real in sums.values():
        if real:
            yield pair, ours, real
