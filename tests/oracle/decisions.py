# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Are plans any good? Each is loaded by the real server, and compared with the best that the real server could have loaded.

A GPU gets 0.5 to 1.3 times what the whole model needs, and both keep the same margin free. The best is searched for by loading: the
most layers, or for a mixture of experts the fewest blocks whose experts stay in host memory. The same for one model on two GPUs of
different sizes (the best is that of all divisions), and for two services on one GPU (the best for the first, then for the second).

    python tests/oracle/decisions.py      writes tests/fixtures/oracle/decisions/ (half an hour, root, the network)
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".venv" / "collections"))

from ansible_collections.aikit.fleet.plugins.module_utils._core.fit import Fit, Gpu, Policy, Wish, plan
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_types import CONTEXT_MIB
from ansible_collections.aikit.fleet.tests.oracle import sparse
from ansible_collections.aikit.fleet.tests.oracle.servers import Config, Debian
from ansible_collections.aikit.fleet.tests.unit.shapes import shape

SERVER, CONTEXT = "llama_cpp 0.7.0", 8192
DENSE = ("Llama 3.1 8B", "Qwen3 8B", "Gemma 3 12B", "Qwen2.5 7B", "Mistral Small 22B", "GLM 4 9B", "Falcon H1 7B")
MODELS = (*DENSE, "Qwen3 30B A3B", "gpt-oss 20B", "DeepSeek V2 Lite")
FACTORS = (0.5, 0.7, 0.85, 0.95, 1.0, 1.1, 1.3)
# Several together: fewer points, for each takes many loads
DIVIDED = ("Llama 3.1 8B", "Gemma 3 12B", "Mistral Small 22B", "Qwen3 30B A3B")
TOGETHER = (("Llama 3.1 8B", "Qwen2.5 7B"), ("Qwen3 8B", "Qwen3 30B A3B"))
FEW_FACTORS = (0.6, 0.85, 1.0, 1.2)
# What each of two GPUs gets of the whole
PARTS = (0.6, 0.4)
FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "oracle" / "decisions"
ALONE, DIVISIONS, SHARED = (FOLDER / f"{SERVER.replace(' ', '-')}{suffix}.json" for suffix in ("", "-two-gpus", "-two-services"))


def margin(total: float, policy: Policy = Policy()) -> float:
    return max(float(policy.margin_mib), policy.margin_percent / 100 * total)


def decide(name: str, total: int) -> Fit:
    return plan([Wish("a", shape(name), {"context_size": CONTEXT})], [Gpu(0, "", total, total, "9.0")], Policy(), SERVER)[0]


def decide_together(names: Sequence[str], totals: Sequence[int]) -> tuple[Fit, ...]:
    """Services in the order of ``names``, on GPUs of these sizes."""
    wishes = [Wish(f"service {number}", shape(name), {"context_size": CONTEXT}) for number, name in enumerate(names)]
    return plan(wishes, [Gpu(number, "", total, total, "9.0") for number, total in enumerate(totals)], Policy(), SERVER)


def chosen_settings(found: Fit) -> dict[str, Any]:
    return {key: found.settings[key] for key in ("gpu_layers", "n_cpu_moe", "tensor_split")}


class Loader:
    """Loads of one model, each once."""

    def __init__(self, engine: Debian, name: str, file: str = "decisions.gguf") -> None:
        self.engine, self.name, self.file = engine, name, file
        self._seen: dict[Config, tuple[dict[str, float], ...]] = {}
        sparse.write(engine.models / file, shape(name))

    def gpus(self, config: Config) -> tuple[dict[str, float], ...]:
        """The buffers of each GPU."""
        if config not in self._seen:
            found = self.engine.observe(self.file, config)
            if found.error:
                # A machine that is busy with other things can make the server late
                found = self.engine.observe(self.file, config, 600)
            if found.error:
                raise RuntimeError(f"{self.name} {config.short()}: {found.error}")
            self._seen[config] = tuple(dict(found.buffers.get(f"CUDA{number}", {})) for number in range(config.gpus))
        return self._seen[config]

    def gpu(self, config: Config) -> dict[str, float]:
        return self.gpus(config)[0]

    def total(self, config: Config, number: int = 0) -> float:
        return sum(size for kind, size in self.gpus(config)[number].items() if kind != "output")

    def weights(self, config: Config) -> float:
        return sum(buffers.get("model", 0.0) for buffers in self.gpus(config))

    def config_of(self, found: Fit) -> Config:
        """The load that a plan asks for."""
        settings = found.settings
        gpus = len([share for share in found.breakdown if share.index is not None])
        return Config(
            context=CONTEXT,
            gpu_layers=settings["gpu_layers"],
            cpu_moe=settings["n_cpu_moe"],
            flash=settings["flash_attention"] == "on",
            gpus=gpus,
            split=settings["tensor_split"] if gpus > 1 else "",
        )


def divided(loader: Loader, config: Config, rooms: Sequence[float]) -> Optional[Config]:
    """A load on two GPUs with as many of its layers on the first as it holds; None where the second does not hold the rest."""
    layers = min(config.gpu_layers, shape(loader.name).block_count + 1)

    def split(first: int) -> Config:
        return replace(config, gpus=2, gpu_layers=layers, split=f"{first},{layers - first}")

    low, high = 0, layers
    while low < high:
        middle = (low + high + 1) // 2
        if loader.total(split(middle)) <= rooms[0]:
            low = middle
        else:
            high = middle - 1
    return split(low) if all(loader.total(split(low), number) <= room for number, room in enumerate(rooms)) else None


def best(loader: Loader, *rooms: float) -> Optional[Config]:
    """The most that fits into the GPUs' room: all layers, else experts on the host, else layers on the host."""
    model = shape(loader.name)
    base = Config(context=CONTEXT)

    def fitting(config: Config) -> Optional[Config]:
        if len(rooms) > 1:
            return divided(loader, config, rooms)
        return config if loader.total(config) <= rooms[0] else None

    whole = fitting(base)
    if whole is not None:
        return whole

    def search(low: int, high: int, make: Callable[[int], Config]) -> Optional[Config]:
        """The smallest number whose load fits; fitting is monotonous."""
        found = fitting(make(high))
        while found is not None and low < high:
            middle = (low + high) // 2
            better = fitting(make(middle))
            if better is not None:
                high, found = middle, better
            else:
                low = middle + 1
        return found

    if model.is_mixture:
        found = search(1, model.block_count, lambda number: replace(base, cpu_moe=number))
        if found is not None:
            return found
    return search(1, model.block_count, lambda number: replace(base, gpu_layers=model.block_count + 1 - number))


def alone(engine: Debian, name: str) -> Iterator[dict[str, Any]]:
    """One model on one GPU."""
    loader = Loader(engine, name)
    whole = loader.total(Config(context=CONTEXT)) + CONTEXT_MIB
    for factor in FACTORS:
        total = int(whole * factor + margin(whole * factor))
        chosen = decide(name, total)
        config = loader.config_of(chosen)
        top = best(loader, total - margin(total) - CONTEXT_MIB)
        yield {
            "model": name,
            "factor": factor,
            "total_mib": total,
            "gpu_layers": chosen.settings["gpu_layers"],
            "n_cpu_moe": chosen.settings["n_cpu_moe"],
            "real_mib": round(loader.total(config) + CONTEXT_MIB, 2),
            "weights_mib": loader.gpu(config).get("model", 0.0),
            "best": top.short() if top else None,
            "best_weights_mib": loader.gpu(top).get("model", 0.0) if top else 0.0,
        }


def together(engine: Debian, names: Sequence[str], parts: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Several services on one GPU, or one on several: each GPU has a part of what all of them need."""
    loaders = [Loader(engine, name, f"decisions-{number}.gguf") for number, name in enumerate(names)]
    context = CONTEXT_MIB
    whole = sum(loader.total(Config(context=CONTEXT)) + context * len(parts) for loader in loaders)
    for factor in FEW_FACTORS:
        totals = [int(whole * factor * part + margin(whole * factor * part)) for part in parts]
        fits = decide_together(names, totals)
        configs = [loader.config_of(found) for loader, found in zip(loaders, fits)]
        # What has no layer on a GPU opens it all the same, but for one that has none at all
        real = [
            sum(loader.total(config, number) + (context if config.gpu_layers else 0) for loader, config in zip(loaders, configs))
            for number in range(len(totals))
        ]
        rooms = [total - margin(total) for total in totals]
        tops: list[Optional[Config]] = []
        for loader in loaders:
            top = best(loader, *(room - context for room in rooms))
            tops.append(top)
            if top is not None:
                rooms = [room - context - loader.total(top, number) for number, room in enumerate(rooms)]
        yield {
            "models": list(names),
            "factor": factor,
            "totals_mib": totals,
            "chosen": [chosen_settings(found) for found in fits],
            "real_mib": [round(size, 2) for size in real],
            "weights_mib": round(sum(loader.weights(config) for loader, config in zip(loaders, configs)), 2),
            "best": [top.short() if top else None for top in tops],
            "best_weights_mib": round(sum(loader.weights(top) for loader, top in zip(loaders, tops) if top), 2),
        }


def main() -> int:
    engine = Debian(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/oracle").resolve())
    engine.prepare()
    FOLDER.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[Path, Any, Iterator[dict[str, Any]]]] = [(ALONE, name, alone(engine, name)) for name in MODELS]
    jobs += [(DIVISIONS, [name], together(engine, [name], PARTS)) for name in DIVIDED]
    jobs += [(SHARED, list(names), together(engine, names, (1.0,))) for names in TOGETHER]
    for path, names, made in jobs:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if any(row.get("models", row.get("model")) == names for row in rows):
            # To start anew, remove the file
            continue
        for row in made:
            rows.append(row)
            print(row, flush=True)
        text = ",\n".join(f" {json.dumps(row)}" for row in rows)
        path.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
