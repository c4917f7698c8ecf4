# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load every model of ``tests/fixtures/fit/shapes.json`` with real llama.cpp builds and write down their buffers.

    make test-oracle                      compare a few models with Debian's server, in minutes
    make test-oracle ARGS="--record"      all models, all settings, all builds, into tests/fixtures/oracle (half an hour, root, the network)

Settings vary in two ways: one at a time, and together, so that every two values of two settings meet in some load of each model
(``combined``). A model that makes embeddings or ranks texts is loaded as a server for that loads it.

Nothing of a GPU is needed: see servers.py. Models are holes in files; the memory of the GPUs is address space.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Sequence, Union

from allpairspy import AllPairs

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".venv" / "collections"))

from ansible_collections.aikit.fleet.plugins.module_utils._core import fit_memory
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_types import Policy
from ansible_collections.aikit.fleet.tests.oracle import compare, sparse
from ansible_collections.aikit.fleet.tests.oracle.servers import Config, Debian, Npm
from ansible_collections.aikit.fleet.tests.unit.shapes import SHAPES, shape

# npm's release -> what its build is called in a plan
BUILDS = {"3.13.0": "llama_cpp b6431", "3.17.1": "llama_cpp b8179", "3.19.1": "llama_cpp b10068", "3.22.1": "llama_cpp 0.5.0"}
# Whose combinations are kept: the newest, and the one nearest to what AIKit's images with LocalAI hold
COMBINED = ("llama_cpp 0.7.0", "llama_cpp b10068")
NEWEST = "llama_cpp 0.7.0"
# One or two of each class of architectures: what is loaded where all models would only repeat themselves
CLASSES = (
    *("Llama 3.1 8B", "Llama 3.2 1B", "Qwen2.5 7B", "Phi 2", "GPT-2 XL", "Gemma 3 12B", "Gemma 3n E4B", "Command R7B 12-2024", "gpt-oss 20B", "Qwen3 30B A3B"),
    *("Mixtral 8x7B", "Qwen1.5 MoE A2.7B", "DeepSeek V2 Lite", "Falcon H1 7B", "Granite 4 H Tiny", "LFM2 1.2B", "Mamba 2 2.7B", "RWKV7 2.9B"),
    *(
        "Nemotron Nano 9B v2",
        "Qwen3.6 27B",
        "Qwen3.6 35B A3B",
        "Qwen3 Next 80B A3B",
        "Kimi Linear 48B A3B",
        "BGE M3",
        "ModernBERT embed base",
        "EmbeddingGemma 300M",
    ),
    *("Nomic Embed 2 MoE", "Qwen3 Embedding 0.6B", "Qwen3 Reranker 0.6B"),
)
# Builds of which these are enough
IN_PART = ("llama_cpp b6431",)
FEW = ("Llama 3.1 8B", "Qwen3 30B A3B", "Gemma 3 12B", "Falcon H1 7B", "DeepSeek V2 Lite", "Qwen3.6 35B A3B", "BGE M3", "Qwen3 Embedding 0.6B")


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
    if model.pools:
        # As the server's plan has it: the whole text in one batch
        found.append(Config(context=4096, ubatch=4096))
    return as_served(model, found)


def as_served(model: ModelShape, found: Sequence[Config]) -> list[Config]:
    return [replace(config, embeddings=True) for config in found] if model.pools else list(found)


def combinations(model: ModelShape) -> list[Config]:
    """Loads in which every two values of two settings meet at least once, as far as the server takes them together.

    The lists are turned for each model, so that they do not all meet in the same loads.
    """
    number = zlib.crc32(model.name.encode())
    blocks = model.block_count
    works = fit_memory.flash_works(model)
    caches = ["f16", "q8_0", "q4_0", *([] if model.is_mla else ["q8_0/f16"])] if model.caches else ["f16"]
    values: dict[str, list[Any]] = {
        "gpu_layers": [999, blocks, blocks * 2 // 3, blocks // 4, 0],
        "context": [2048, 12288, 49152],
        "cache": [kind for kind in caches if fit_memory.quantisable(model, *_types(kind))],
        "flash": [True, False] if works else [False],
        "ubatch": [256, 512, 2048],
        # Without a cache a batch is divided among the slots, and nothing may be left
        "parallel": [1, 3, 8] if model.caches else [1, 2, 8],
        "unified": [True, False],
        "gpus": ["1", "2", "2:2,1", "3"],
        "kv_on_host": [False, True],
        "cpu_moe": [0, blocks // 3, blocks] if model.is_mixture else [0],
    }
    turned = [found[number % len(found) :] + found[: number % len(found)] for found in values.values()]
    names = list(values)

    def taken(row: Sequence[Any]) -> bool:
        chosen = dict(zip(names, row))
        if chosen.get("flash") is False and _types(chosen.get("cache", "f16"))[1] != "f16":
            # The server stops (with latent attention keys are values, too)
            return False
        # Without layers on a GPU it does not matter how many there are, and without slots not how they share
        if chosen.get("gpu_layers") == 0 and chosen.get("gpus", "1") != "1":
            return False
        return not (chosen.get("parallel") == 1 and chosen.get("unified") is False)

    keep: Callable[[Sequence[Any]], bool] = taken
    found = []
    for row in AllPairs(turned, filter_func=keep):
        chosen = dict(zip(names, row))
        gpus, _colon, split = chosen.pop("gpus").partition(":")
        type_k, type_v = _types(chosen.pop("cache"))
        found.append(Config(**chosen, type_k=type_k, type_v=type_v, gpus=int(gpus), split=split))
    return as_served(model, found)


def _types(name: str) -> tuple[str, str]:
    key, _slash, value = name.partition("/")
    return key, value or key


def observe(
    engine: Union[Debian, Npm],
    server: str,
    names: Iterable[str],
    make: Callable[[ModelShape], Sequence[Config]],
    known: Mapping[str, Any],
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Load ``names``; ``known`` is what was recorded before and is not loaded again, ``keep`` takes what there is after every model."""
    engine.prepare()
    engine.models.mkdir(parents=True, exist_ok=True)
    recorded: dict[str, Any] = {"server": server, "version": engine.version, "unknown": {}, "refused": {}, "observations": {}}
    for name in names:
        model = shape(name)
        path = engine.models / "model.gguf"
        sparse.write(path, model)
        before = {json.dumps(config, sort_keys=True): buffers for config, buffers in known.get("observations", {}).get(name, ())}
        before_refused = {json.dumps(config, sort_keys=True): error for config, error in known.get("refused", {}).get(name, ())}
        found, refused = [], []
        for config in make(model):
            key = json.dumps(config.short(), sort_keys=True)
            if key in before:
                found.append([config.short(), before[key]])
                continue
            if key in before_refused:
                refused.append([config.short(), before_refused[key]])
                continue
            seen = engine.observe(path.name, config)
            if seen.error:
                refused.append([config.short(), seen.error])
            else:
                found.append([config.short(), seen.buffers])
        path.unlink()
        if found:
            recorded["observations"][name] = found
            if refused:
                recorded["refused"][name] = refused
        else:
            # What an old build does not know at all says nothing about settings
            recorded["unknown"][name] = known.get("unknown", {}).get(name) or refused[0][1]
        keep(recorded)
        print(f"{server}: {name}: {len(found)} loads", flush=True)
    return recorded


def record(engine: Union[Debian, Npm], server: str) -> None:
    """Everything about one build, into its files; to start anew, remove them."""
    jobs = [(compare.FIXTURES, configs)]
    if server in COMBINED:
        jobs.append((compare.COMBINED, combinations))
    for folder, make in jobs:
        path = folder / f"{server.replace(' ', '-')}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        observe(engine, server, names_for(server, folder), make, known, lambda recorded, path=path: write(path, recorded))


def names_for(server: str, folder: Path) -> Sequence[str]:
    whole = server == NEWEST or (folder == compare.FIXTURES and server not in IN_PART)
    return sorted(SHAPES) if whole else sorted(CLASSES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", nargs="*", metavar="BUILD", help="all models, settings and builds (or these builds), into tests/fixtures/oracle")
    parser.add_argument("--work", default=".cache/oracle", help="where builds and models lie")
    arguments = parser.parse_args()
    work = Path(arguments.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.record is not None:
        engines = [(Debian(work), NEWEST), *((Npm(work, release), server) for release, server in BUILDS.items())]
        for engine, server in engines:
            if not arguments.record or server.split()[-1] in arguments.record:
                record(engine, server)
        return 0

    def few(model: ModelShape) -> list[Config]:
        single, together = configs(model), combinations(model)
        return [*single[:3], single[6], single[10], single[13], *together[:6]]

    recorded = observe(Debian(work), NEWEST, FEW, few, {}, lambda _recorded: None)
    wrong = [pair for pair in compare.pairs(recorded) if pair.kind != "compute" and abs(pair.ours - pair.real) > 0.011 + pair.real / 1000]
    # Of settings together only what would not load: a plan has few of them
    alone = {name: [config.short() for config in configs(shape(name))] for name in FEW}
    off = [
        (pair, ours, real)
        for pair, ours, real in compare.totals(compare.pairs(recorded))
        if (not 0.97 < ours / real < 1.10 if pair.config in alone[pair.model] else real - ours > Policy().margin_mib / 2)
    ]
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
    head = "".join(f" {json.dumps(key)}: {json.dumps(recorded[key])},\n" for key in ("server", "version", "unknown", "refused"))
    path.write_text("{\n" + head + ' "observations": {\n' + ",\n".join(models) + "\n }\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
