# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load every model of ``tests/fixtures/fit/shapes.json`` with real llama.cpp builds and write down their buffers.

    make test-oracle                      compare a few models with Debian's server, in minutes
    make test-oracle ARGS="--record"      all models, all settings, all builds, into tests/fixtures/oracle (half an hour, root, the network)

Nothing of a GPU is needed: see servers.py. Models are holes in files; the memory of the GPUs is address space.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Iterable, Union

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".venv" / "collections"))

from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape
from ansible_collections.aikit.fleet.tests.oracle import compare, sparse
from ansible_collections.aikit.fleet.tests.oracle.servers import Config, Debian, Npm
from ansible_collections.aikit.fleet.tests.unit.shapes import SHAPES, shape

# npm's release -> what its build is called in a plan
BUILDS = {"3.17.1": "llama_cpp b8179", "3.22.1": "llama_cpp 0.5.0"}
FEW = ("Llama 3.1 8B", "Qwen3 30B A3B", "Gemma 3 12B", "Falcon H1 7B", "DeepSeek V2 Lite")


def configs(model: ModelShape) -> list[Config]:
    blocks = model.block_count
    found = [
        Config(),
        Config(context=32768),
        Config(flash=False),
        Config(flash=False, context=32768),
        Config(ubatch=128),
        Config(ubatch=2048),
        Config(type_k="q8_0", type_v="q8_0", context=32768),
        Config(parallel=4),
        Config(parallel=4, unified=False),
        Config(gpu_layers=blocks),
        Config(gpu_layers=blocks // 2),
        Config(gpu_layers=1),
        Config(gpu_layers=0),
        Config(gpus=2),
        Config(gpus=2, split="1,3", context=16384),
        Config(kv_on_host=True),
    ]
    if model.is_mixture:
        found += [Config(cpu_moe=blocks), Config(cpu_moe=blocks // 2), Config(cpu_moe=blocks // 2, gpus=2)]
    return found


def observe(engine: Union[Debian, Npm], server: str, names: Iterable[str], all_configs: bool) -> dict[str, Any]:
    engine.prepare()
    engine.models.mkdir(parents=True, exist_ok=True)
    observations: dict[str, Any] = {}
    refused: dict[str, Any] = {}
    for name in names:
        model = shape(name)
        path = engine.models / "model.gguf"
        sparse.write(path, model)
        wanted = configs(model)
        for config in wanted if all_configs else [*wanted[:3], *wanted[6:7], wanted[10], wanted[13]]:
            seen = engine.observe(path.name, config)
            if seen.error:
                refused.setdefault(name, []).append([config.short(), seen.error])
            else:
                observations.setdefault(name, []).append([config.short(), seen.buffers])
        path.unlink()
        print(f"{server}: {name}: {len(observations.get(name, ()))} loads", flush=True)
    # What an old build does not know at all says nothing about settings
    unknown = {name: refused.pop(name)[0][1] for name in list(refused) if name not in observations}
    return {"server": server, "version": engine.version, "unknown": unknown, "refused": refused, "observations": observations}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="all models, settings and builds, into tests/fixtures/oracle")
    parser.add_argument("--work", default=".cache/oracle", help="where builds and models lie")
    arguments = parser.parse_args()
    work = Path(arguments.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.record:
        engines = [(Debian(work), "llama_cpp 0.7.0"), *((Npm(work, release), server) for release, server in BUILDS.items())]
        for engine, server in engines:
            write(compare.FIXTURES / f"{server.replace(' ', '-')}.json", observe(engine, server, sorted(SHAPES), True))
        return 0
    recorded = observe(Debian(work), "llama_cpp 0.7.0", FEW, False)
    wrong = [pair for pair in compare.pairs(recorded) if pair.kind != "compute" and abs(pair.ours - pair.real) > 0.011 + pair.real / 1000]
    off = [(pair, ours, real) for pair, ours, real in compare.totals(compare.pairs(recorded)) if not 0.97 < ours / real < 1.10]
    for pair in wrong:
        print(f"{pair.model} {pair.config} {pair.device} {pair.kind}: {pair.ours:.2f} MiB planned, {pair.real:.2f} MiB real")
    for pair, ours, real in off:
        print(f"{pair.model} {pair.config} {pair.device}: {ours:.0f} MiB planned in all, {real:.0f} MiB real")
    print(f"{recorded['version']}: {sum(map(len, recorded['observations'].values()))} loads, {len(wrong)} wrong buffers, {len(off)} totals that are off")
    return 1 if wrong or off or recorded["refused"] or recorded["unknown"] else 0


def write(path: Path, recorded: dict[str, Any]) -> None:
    """One load a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    models = []
    for name, rows in recorded["observations"].items():
        models.append(f"  {json.dumps(name)}: [\n" + ",\n".join(f"   {json.dumps(row)}" for row in rows) + "\n  ]")
    head = "".join(f' {json.dumps(key)}: {json.dumps(recorded[key])},\n' for key in ("server", "version", "unknown", "refused"))
    path.write_text("{\n" + head + ' "observations": {\n' + ",\n".join(models) + "\n }\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
