# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Are plans any good? Each is loaded by the real server, and compared with the best that the real server could have loaded.

A GPU gets 0.5 to 1.3 times what the whole model needs, and both keep the same margin free. The best is searched for by loading: the
most layers, or for a mixture of experts the fewest blocks whose experts stay in host memory.

    python tests/oracle/decisions.py      writes tests/fixtures/oracle/decisions/llama_cpp-0.7.0.json (half an hour, root, the network)
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".venv" / "collections"))

from ansible_collections.aikit.fleet.plugins.module_utils._core.fit import Fit, Gpu, Policy, Wish, plan
from ansible_collections.aikit.fleet.tests.oracle import sparse
from ansible_collections.aikit.fleet.tests.oracle.servers import Config, Debian
from ansible_collections.aikit.fleet.tests.unit.shapes import shape

SERVER, CONTEXT = "llama_cpp 0.7.0", 8192
DENSE = ("Llama 3.1 8B", "Qwen3 8B", "Gemma 3 12B", "Qwen2.5 7B", "Mistral Small 22B", "GLM 4 9B", "Falcon H1 7B")
MODELS = (*DENSE, "Qwen3 30B A3B", "gpt-oss 20B", "DeepSeek V2 Lite")
FACTORS = (0.5, 0.7, 0.85, 0.95, 1.0, 1.1, 1.3)
FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "oracle" / "decisions"


def margin(total: float, policy: Policy = Policy()) -> float:
    return max(float(policy.margin_mib), policy.margin_percent / 100 * total)


def decide(name: str, total: int) -> Fit:
    return plan([Wish("a", shape(name), {"context_size": CONTEXT})], [Gpu(0, "", total, total, "9.0")], Policy(), SERVER)[0]


class Loader:
    """Loads of one model, each once."""

    def __init__(self, engine: Debian, name: str, said: Callable[[str], Any] = print) -> None:
        self.engine, self.name, self.said = engine, name, said
        self._seen: dict[Config, dict[str, float]] = {}
        sparse.write(engine.models / "decisions.gguf", shape(name))

    def gpu(self, config: Config) -> dict[str, float]:
        if config not in self._seen:
            found = self.engine.observe("decisions.gguf", config)
            if found.error:
                # A machine that is busy with other things can make the server late
                found = self.engine.observe("decisions.gguf", config, 600)
            if found.error:
                raise RuntimeError(f"{self.name} {config.short()}: {found.error}")
            self._seen[config] = dict(found.buffers.get("CUDA0", {}))
        return self._seen[config]

    def total(self, config: Config) -> float:
        return sum(size for kind, size in self.gpu(config).items() if kind != "output")


def best(loader: Loader, room: float) -> Optional[Config]:
    """The most that fits into ``room``: all layers, else experts on the host, else layers on the host."""
    model = shape(loader.name)
    base = Config(context=CONTEXT)
    if loader.total(base) <= room:
        return base

    def search(low: int, high: int, make: Callable[[int], Config]) -> Optional[Config]:
        """The smallest number whose load fits; fitting is monotonous."""
        if loader.total(make(high)) > room:
            return None
        while low < high:
            middle = (low + high) // 2
            if loader.total(make(middle)) <= room:
                high = middle
            else:
                low = middle + 1
        return make(high)

    if model.is_mixture:
        found = search(1, model.block_count, lambda number: replace(base, cpu_moe=number))
        if found is not None:
            return found
    return search(1, model.block_count, lambda number: replace(base, gpu_layers=model.block_count + 1 - number))


def main() -> int:
    engine = Debian(Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/oracle").resolve())
    if not (engine.root / "pretend").exists():
        engine.prepare()
    engine.models.mkdir(parents=True, exist_ok=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{SERVER.replace(' ', '-')}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for name in MODELS:
        if any(row["model"] == name for row in rows):
            # To start anew, remove the file
            continue
        loader = Loader(engine, name)
        whole = loader.total(Config(context=CONTEXT)) + Policy().context_mib
        for factor in FACTORS:
            total = int(whole * factor + margin(whole * factor))
            chosen = decide(name, total)
            settings = chosen.settings
            config = Config(context=CONTEXT, gpu_layers=settings["gpu_layers"], cpu_moe=settings["n_cpu_moe"], flash=settings["flash_attention"] == "on")
            real = loader.total(config) + Policy().context_mib
            top = best(loader, total - margin(total) - Policy().context_mib)
            rows.append(
                {
                    "model": name,
                    "factor": factor,
                    "total_mib": total,
                    "gpu_layers": settings["gpu_layers"],
                    "n_cpu_moe": settings["n_cpu_moe"],
                    "real_mib": round(real, 2),
                    "weights_mib": loader.gpu(config).get("model", 0.0),
                    "best": top.short() if top else None,
                    "best_weights_mib": loader.gpu(top).get("model", 0.0) if top else 0.0,
                }
            )
            print(rows[-1], flush=True)
        text = ",\n".join(f" {json.dumps(row)}" for row in rows)
        path.write_text(f"[\n{text}\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
