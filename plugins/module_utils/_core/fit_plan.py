# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The search for the best settings that fit: full offload before a long context, one GPU before several, experts to the host before whole layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Mapping, Optional, Sequence

from . import fit_memory as memory
from . import fit_words as words
from .data_era import Era, era
from .errors import AikitError, Finding
from .fit_shape import ModelShape
from .fit_types import MIB, Fit, Gpu, Host, Policy, Share, Wish, context_mib

# A context of this length is enough to stop looking for more with a second GPU or a smaller cache
ENOUGH_CONTEXT = 32768
STEP = memory.KV_PAD
BATCH = 512
LOW_BATCH = 128
# A text whose embedding is made has to be in one batch; no longer ones than this unless the batch is given (as llama_server.py has it)
EMBEDDING_BATCH = 8192
# What each out-of-memory error adds to the margin of a GPU
STEP_DOWN_MIB = 512
STEP_DOWN_PERCENT = 4.0
# An image encoder takes this much of its weights' size on top, for its own graph
MMPROJ_COMPUTE = 0.35
MMPROJ_COMPUTE_MIN = 128 * MIB
# Of the memory of a Mac, the part that its GPU may use (Metal's recommended working set)
APPLE_SMALL, APPLE_PART, APPLE_PART_LARGE = 36864, 0.66, 0.75
QUANTISED = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"})


@dataclass(frozen=True)
class Room:
    """What a plan may take on one GPU, margin already off, in bytes. ``shared``: what it may take there and on the CPU together, where both
    have one memory."""

    gpu: Gpu
    free: int
    margin: int
    shared: Optional[int] = None


@dataclass(frozen=True)
class Need:
    """What settings take: on each GPU of the wish in order, and on the CPU."""

    load: memory.Load
    gpus: tuple[memory.Use, ...]
    cpu: memory.Use
    extra: tuple[int, ...]
    # Beside the buffers, with the first long text
    pool: tuple[int, ...]
    mmproj: int

    def total(self, number: int) -> int:
        return self.gpus[number].total + self.extra[number] + self.pool[number]

    @property
    def offloaded(self) -> int:
        return sum(use.layers for use in self.gpus)

    def left_for_cpu(self, rooms: Sequence[Room]) -> Optional[int]:
        """What the part on the GPUs leaves to the one on the CPU, in bytes; None where each has a memory of its own."""
        shared = [room.shared for room in rooms if room.shared is not None]
        if not shared:
            return None
        return min(shared) - sum(self.total(number) for number, room in enumerate(rooms) if room.shared is not None)


@dataclass(frozen=True)
class _Asked:
    """A wish with its words understood."""

    wish: Wish
    era: Era
    gpus: tuple[Gpu, ...]
    layers: Optional[int]
    context: Optional[int]
    batch: Optional[int]
    cpu_moe: Optional[int]
    parallel: int
    unified: bool
    flash: bool
    type_k: Optional[str]
    type_v: Optional[str]
    kv_on_host: bool
    low_vram: bool
    all_outputs: bool
    pooled: bool
    swa_full: bool
    split: Optional[tuple[int, ...]]
    mmproj_on_gpu: bool
    kernels: bool
    findings: tuple[Finding, ...]

    @property
    def shape(self) -> ModelShape:
        return self.wish.model

    @property
    def total(self) -> int:
        return self.shape.block_count + 1


def plan_all(wishes: Sequence[Wish], gpus: Sequence[Gpu], policy: Policy = Policy(), server_version: str = "", host: Optional[Host] = None) -> tuple[Fit, ...]:
    """First everybody's least, in order; then what is left, in order."""
    names = [wish.service for wish in wishes]
    for name in names:
        if names.count(name) > 1:
            raise AikitError(f"Two services are named {name}.", "Give each service a name of its own.")
    asked = [_understand(wish, gpus, policy, era(wish.server_version or server_version)) for wish in wishes]
    needs: list[Optional[Need]] = [None] * len(asked)
    for grow in (False, True):
        for number, entry in enumerate(asked):
            others = [needs[other] for other in range(len(asked)) if other != number and (grow or other < number)]
            taken = _taken(others, [asked[other] for other in range(len(asked)) if other != number and (grow or other < number)])
            rooms = tuple(_room(gpu, entry, policy, taken, host, others) for gpu in entry.gpus)
            needs[number] = _search(entry, rooms, policy, grow)
        if not grow and len(asked) == 1:
            needs = [None]
    fits = []
    for number, (entry, need) in enumerate(zip(asked, needs)):
        earlier = [(asked[other], needs[other]) for other in range(len(asked)) if other != number]
        taken = _taken([found for _entry, found in earlier], [other for other, _found in earlier])
        rooms = tuple(_room(gpu, entry, policy, taken, host, [found for _entry, found in earlier]) for gpu in entry.gpus)
        before = [(other, found) for other, found in earlier[:number] if found is not None]
        taken_of_host = (sum(found.cpu.total for _other, found in before), sum(_firm(other, found) for other, found in before))
        if need is not None:
            fits.append(_report(entry, need, rooms, policy, host, taken_of_host))
    return tuple(fits)


def _understand(wish: Wish, gpus: Sequence[Gpu], policy: Policy, found: Era) -> _Asked:
    shape, settings = wish.model, wish.settings
    if not shape.block_count:
        raise AikitError(
            f"{wish.service}: {shape.name or 'the model'} ({shape.architecture or 'no architecture'}) has no layers to place.",
            "Give the model's own file, not its image encoder or its vocabulary.",
        )
    read = words.Reader(wish.service, settings)
    flash = read.switch("flash_attention")
    type_k, type_v = read.cache_type("cache_type_k"), read.cache_type("cache_type_v")
    kind = "cache_type_v" if type_v else "cache_type_k"
    if shape.is_mla and found.mla_one_type:
        type_k, type_v = type_k or type_v, type_v or type_k
    asked_k, asked_v = type_k or "f16", type_v or "f16"
    findings = []
    if flash is False and asked_v in QUANTISED:
        findings.append(
            Finding(
                "error",
                f"{wish.service}.settings.{kind}",
                0,
                f"{kind} {asked_v} needs flash attention, which flash_attention: off forbids; the server would stop",
                "Leave one of the two out. The plan has flash attention on.",
            )
        )
        flash = True
    works = memory.flash_works(shape)
    needed = asked_v in QUANTISED
    # The server stops without it
    flash = True if flash is None and needed else flash
    if flash and not works:
        findings.append(
            Finding(
                "warning",
                f"{wish.service}.settings.{kind if needed else 'flash_attention'}",
                0,
                f"NVIDIA's backend has no flash attention for the heads of {shape.name or shape.architecture}, so attention would run on the CPU",
                f"Leave {f'{kind} out, which needs it' if needed else 'it out'}, and the plan switches it off.",
            )
        )
    # Latent attention without values reads them in the keys
    without_values = shape.is_mla and found.mla_without_values
    if without_values and type_k and type_v and type_k != type_v:
        findings.append(
            Finding(
                "error" if found.mla_one_type else "warning",
                f"{wish.service}.settings.cache_type_v",
                0,
                f"{shape.name or shape.architecture} keeps keys and values in one, so cache_type_k {asked_k} and cache_type_v {asked_v} cannot differ;"
                f" {'the server would stop' if found.mla_one_type else 'newer servers stop'}",
                "Leave one of the two out.",
            )
        )
    chosen = _chosen(wish, gpus)
    layers, kv_on_host = read.layers("gpu_layers", shape.block_count + 1), settings.get("no_kv_offloading") is True
    read_v = asked_k if without_values else asked_v
    # What NVIDIA's kernels read (AMD's are made from them) matters for a cache that lies there
    kernels = any(gpu.vendor in ("nvidia", "amd") for gpu in chosen) and any(layer.attends for layer in shape.layers) and not kv_on_host and layers != 0
    if kernels and (works if flash is None else flash) and (type_k or type_v) and not memory.flash_takes(asked_k, read_v, found):
        findings.append(
            Finding(
                "warning",
                f"{wish.service}.settings.{'cache_type_k' if type_k else 'cache_type_v'}",
                0,
                f"NVIDIA's backend of this server has no flash attention for keys of type {asked_k} with values of type {read_v}, so attention would"
                " run on the CPU",
                "Give cache_type_k and cache_type_v the same type: f16, q8_0 or q4_0.",
            )
        )
    moved = read.number("n_cpu_moe", 0)
    if moved and not found.cpu_moe:
        findings.append(
            Finding(
                "warning",
                f"{wish.service}.settings.n_cpu_moe",
                0,
                "the server of this image is too old for n_cpu_moe and ignores it: all experts go where their layers go",
                "Take an image with llama.cpp b6089 or LocalAI v4.5.1, or newer, or set gpu_layers.",
            )
        )
        moved = 0
    split = read.split("tensor_split")
    parallel = read.number("parallel") or 1
    low_vram = settings.get("low_vram") is True
    asked = _Asked(
        wish=wish,
        era=found,
        gpus=chosen,
        layers=layers,
        context=read.number("context_size"),
        batch=read.number("batch"),
        cpu_moe=moved,
        parallel=parallel,
        unified=bool(settings.get("kv_unified", found.unified)),
        flash=works if flash is None else flash,
        type_k=type_k,
        type_v=type_v,
        kv_on_host=kv_on_host,
        low_vram=low_vram,
        all_outputs=settings.get("embeddings") is True or settings.get("reranking") is True or not shape.caches,
        pooled=settings.get("reranking") is True or (settings.get("embeddings") is True and shape.pools),
        swa_full=settings.get("swa_full") is True,
        split=split,
        mmproj_on_gpu=settings.get("mmproj_offload") is not False,
        kernels=kernels,
        findings=(*findings, *words.explain(wish, shape)),
    )
    if not (type_k and type_v) and any(layer.attends for layer in shape.layers) and not _kinds(asked, policy):
        dropped = Finding(
            "warning",
            f"{wish.service}.policy.kv_types",
            0,
            f"none of {', '.join(policy.kv_types)} suits {shape.name or shape.architecture} and its server, so its KV cache is f16",
            "Let kv_types have f16 too, or another type: q8_0 and q4_0 are read by every server, with flash attention.",
        )
        asked = replace(asked, findings=(*asked.findings, dropped))
    if split is not None and len(split) != len(asked.gpus) and len(asked.gpus) > 0:
        raise AikitError(
            f"{wish.service}: tensor_split names {len(split)} GPUs, and the service gets {len(asked.gpus)}.", "Give one number for each GPU, or leave it out."
        )
    return asked


def _chosen(wish: Wish, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    if "all" in wish.gpus:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for name in wish.gpus:
        found = [gpu for gpu in gpus if str(name) in (str(gpu.index), gpu.uuid)]
        if not found:
            known = ", ".join(str(gpu.index) for gpu in gpus) or "none"
            raise AikitError(f"{wish.service}: there is no GPU {name} here (there are: {known}).", "Give an index or a UUID as gpu_info returns them, or all.")
        # An index and a UUID can be the same GPU
        chosen.extend(gpu for gpu in found if gpu not in chosen)
    return tuple(chosen)


def _taken(needs: Iterable[Optional[Need]], asked: Iterable[_Asked]) -> dict[int, int]:
    """Bytes on each GPU (by index) that other services have."""
    taken: dict[int, int] = {}
    for need, entry in zip(needs, asked):
        if need is None:
            continue
        for number, gpu in enumerate(entry.gpus):
            taken[gpu.index] = taken.get(gpu.index, 0) + need.total(number)
    return taken


def _room(gpu: Gpu, asked: _Asked, policy: Policy, taken: Mapping[int, int], host: Optional[Host], others: Iterable[Optional[Need]]) -> Room:
    usable = whole = gpu.usable_mib
    margin = max(float(policy.margin_mib), policy.margin_percent / 100 * gpu.total_mib)
    used = taken.get(gpu.index, 0)
    if gpu.unified_memory:
        margin = max(margin, float(policy.host_reserve_mib))
        if host is not None and host.available_mib:
            whole = min(whole, host.available_mib + gpu.ours_mib)
        usable = whole
        if gpu.vendor == "apple" and gpu.total_mib:
            usable = min(whole, int(gpu.total_mib * (APPLE_PART if gpu.total_mib <= APPLE_SMALL else APPLE_PART_LARGE)))
    margin += asked.wish.step_down * max(STEP_DOWN_MIB, STEP_DOWN_PERCENT / 100 * gpu.total_mib)
    free = int((usable - margin) * MIB) - used
    if not gpu.unified_memory:
        return Room(gpu, free, int(margin * MIB))
    # One memory for both: what lies on the CPU is in it too
    shared = int((whole - margin) * MIB) - used - sum(need.cpu.total for need in others if need is not None)
    return Room(gpu, min(free, shared), int(margin * MIB), shared)


def _need(asked: _Asked, load: memory.Load, policy: Policy) -> Need:
    shape = asked.shape
    gpus, cpu = memory.measure(shape, load, asked.era)
    extra = [0] * len(gpus)
    mmproj = 0
    if not shape.known:
        factor = policy.unknown_percent / 100
        gpus = tuple(replace(use, compute=int(use.compute * (1 + factor))) for use in gpus)
    working = any(use.total for use in gpus) and bool(asked.gpus)
    pool = [0] * len(gpus)
    pools = memory.pool_bytes(shape, load, asked.era)
    if asked.wish.mmproj is not None:
        mmproj = mmproj_bytes(asked.wish.mmproj)
    for number in range(len(gpus)):
        if working or (mmproj and asked.mmproj_on_gpu and asked.gpus):
            # The server opens every GPU that it sees
            extra[number] = (context_mib(asked.gpus[number], policy) + asked.wish.extra_mib) * MIB
            pool[number] = pools[number]
            if number == 0 and asked.mmproj_on_gpu:
                extra[number] += mmproj
    if mmproj and not (asked.mmproj_on_gpu and asked.gpus):
        cpu = replace(cpu, weights=cpu.weights + mmproj)
        mmproj = 0
    return Need(load, gpus, cpu, tuple(extra), tuple(pool), mmproj)


def mmproj_bytes(shape: ModelShape) -> int:
    """An image encoder: its tensors, and a graph of its own."""
    held = sum(memory.tensor_bytes(weight) for weight in shape.weights)
    return held + max(MMPROJ_COMPUTE_MIN, int(held * MMPROJ_COMPUTE))


def _holds(need: Need, rooms: Sequence[Room]) -> bool:
    if not all(need.total(number) <= rooms[number].free or need.total(number) == 0 for number in range(len(rooms))):
        return False
    left = need.left_for_cpu(rooms)
    return left is None or need.cpu.total <= left or not any(need.total(number) for number in range(len(rooms)))


class _Search:
    """Loads for one wish, measured against the rooms of its GPUs."""

    def __init__(self, asked: _Asked, rooms: Sequence[Room], policy: Policy) -> None:
        self.asked, self.rooms, self.policy = asked, tuple(rooms), policy
        self._seen: dict[memory.Load, Need] = {}

    def need(self, load: memory.Load) -> Need:
        found = self._seen.get(load)
        if found is None:
            found = self._seen[load] = _need(self.asked, load, self.policy)
        return found

    def holds(self, load: memory.Load) -> bool:
        return _holds(self.need(load), self.rooms)

    def spread(self, load: memory.Load, layers: int, only: Optional[int]) -> Optional[memory.Load]:
        """``layers`` on the GPUs so that all of them hold their part: on one of them, as asked, or each filled in order."""
        count = len(self.rooms)
        load = replace(load, gpu_layers=layers)
        if only is not None or count == 1:
            counts = tuple(layers if number == (only or 0) else 0 for number in range(count))
            load = replace(load, counts=counts)
            return load if self.holds(load) else None
        if self.asked.split is not None:
            load = replace(load, counts=self.asked.split)
            return load if self.holds(load) else None
        return self._fill(load, layers)

    def _fill(self, load: memory.Load, layers: int) -> Optional[memory.Load]:
        count = len(self.rooms)
        counts = [0] * count
        left = layers
        for number in range(count):
            if number == count - 1:
                counts[number] = left
                break
            low, high = 0, left
            while low < high:
                middle = (low + high + 1) // 2
                # What is not placed yet stands on the last GPU, so that the layers keep their numbers
                trial = [*counts[:number], middle, *([0] * (count - number - 2)), left - middle]
                need = self.need(replace(load, counts=tuple(trial)))
                if need.total(number) <= self.rooms[number].free:
                    low = middle
                else:
                    high = middle - 1
            counts[number] = low
            left -= low
        load = replace(load, counts=tuple(counts))
        return load if self.holds(load) else None

    def longest(self, load: memory.Load, goal: int, layers: int, only: Optional[int]) -> Optional[memory.Load]:
        """The longest context up to ``goal`` with ``load``'s as the least; None where not even that fits."""
        best = self.spread(load, layers, only)
        if best is None:
            return None
        at_goal = self.spread(_of_context(self.asked, load, goal), layers, only)
        if at_goal is not None:
            return at_goal
        low, high = load.context // STEP, goal // STEP
        while low < high:
            middle = (low + high + 1) // 2
            found = self.spread(_of_context(self.asked, load, middle * STEP), layers, only)
            if found is None:
                high = middle - 1
            else:
                low, best = middle, found
        return best


def _search(asked: _Asked, rooms: Sequence[Room], policy: Policy, grow: bool) -> Need:
    search = _Search(asked, rooms, policy)
    floor, goal = _contexts(asked, policy)
    if not grow:
        goal = floor
    variants = _variants(asked, policy, floor)
    if not rooms:
        return search.need(replace(variants[0], gpu_layers=0, counts=()))
    full = asked.total if asked.layers is None else asked.layers
    found = _full(search, variants, goal, full)
    if found is None and full == asked.total:
        found = _experts(search, variants, goal)
    if found is None and asked.layers is None:
        found = _partial(search, variants, goal)
    if found is not None:
        return search.need(found)
    return search.need(_last_resort(asked, rooms, variants[0], full))


def _contexts(asked: _Asked, policy: Policy) -> tuple[int, int]:
    """The least context and the one to aim at."""
    trained = asked.shape.context_length or 8192
    if asked.context is not None:
        return asked.context, asked.context
    goal = trained if not policy.context_max else min(trained, policy.context_max)
    # Slots that do not share a cache divide the context among them
    goal *= 1 if asked.unified else asked.parallel
    if asked.all_outputs:
        # The whole text has to be in one batch, and its attention in memory
        goal = min(goal, max(policy.context_min, EMBEDDING_BATCH))
    floor = min(policy.context_min * (1 if asked.unified else asked.parallel), goal)
    if goal > STEP:
        goal = goal // STEP * STEP
    return floor, max(floor, goal)


def _kinds(asked: _Asked, policy: Policy) -> list[str]:
    """Types of the policy that the server takes, and that attention reads where the cache lies."""
    if not asked.flash:
        return [kind for kind in policy.kv_types if kind not in QUANTISED]
    fine = [kind for kind in policy.kv_types if memory.quantisable(asked.shape, kind, kind)]
    return [kind for kind in fine if not asked.kernels or memory.flash_takes(kind, kind, asked.era)]


def _variants(asked: _Asked, policy: Policy, floor: int) -> list[memory.Load]:
    """Settings to try, the best first: what the wish leaves open, in the order of the policy."""
    kinds = _kinds(asked, policy) or ["f16"]
    if asked.low_vram and asked.flash and "q8_0" not in kinds:
        kinds.append("q8_0")
    batch = asked.batch or (LOW_BATCH if asked.low_vram else BATCH)
    pairs: list[tuple[str, str]] = []
    for kind in kinds:
        pair = (asked.type_k or kind, asked.type_v or kind)
        if pair not in pairs and (memory.quantisable(asked.shape, *pair) or kind == kinds[0]):
            pairs.append(pair)
    base = memory.Load(
        context=floor,
        gpu_layers=0,
        counts=(0,) * len(asked.gpus),
        parallel=asked.parallel,
        unified=asked.unified,
        ubatch=batch,
        flash=asked.flash,
        kv_on_host=asked.kv_on_host,
        swa_full=asked.swa_full,
        all_outputs=asked.all_outputs,
        pooled=asked.pooled,
        cpu_moe=asked.cpu_moe or 0,
        padding="cuda" if all(gpu.vendor in ("nvidia", "amd") for gpu in asked.gpus) else "",
    )
    base = _of_context(asked, base, floor)
    found = [replace(base, type_k=key, type_v=value) for key, value in pairs]
    if asked.low_vram and not asked.kv_on_host:
        found.append(replace(found[0], kv_on_host=True))
    return found


def _of_context(asked: _Asked, load: memory.Load, context: int) -> memory.Load:
    """``load`` with another context, and the batch that follows from it where embeddings are made."""
    load = replace(load, context=context)
    if not asked.all_outputs or asked.batch is not None:
        return load
    text = context if asked.unified else context // asked.parallel
    batch = max(LOW_BATCH if asked.low_vram else BATCH, min(text, EMBEDDING_BATCH))
    load = replace(load, ubatch=batch)
    if asked.shape.caches:
        return load
    # Without a cache a batch is divided among the slots, and llama.cpp stops where that leaves a rest. It takes no larger one than the context,
    # so only a smaller one helps
    rows = memory.effective_ubatch(asked.shape, load)
    return replace(load, ubatch=max(asked.parallel, rows - rows % asked.parallel))


def _orders(rooms: Sequence[Room], asked: _Asked) -> list[Optional[int]]:
    """One GPU at a time, the emptiest first; then all of them (None)."""
    if len(rooms) == 1:
        return [0]
    if asked.split is not None:
        return [None]
    singles = sorted(range(len(rooms)), key=lambda number: (-rooms[number].free, number))
    return [*singles, None]


def _full(search: _Search, variants: Sequence[memory.Load], goal: int, layers: int) -> Optional[memory.Load]:
    best: Optional[memory.Load] = None
    for load in variants:
        for only in _orders(search.rooms, search.asked):
            found = search.longest(load, goal, layers, only)
            if found is None:
                continue
            if found.context >= min(goal, ENOUGH_CONTEXT):
                return found
            if best is None or found.context > best.context:
                best = found
    return best


def _experts(search: _Search, variants: Sequence[memory.Load], goal: int) -> Optional[memory.Load]:
    """All layers on the GPUs, the experts of as few blocks as possible in host memory."""
    asked = search.asked
    if not asked.shape.is_mixture or not asked.era.cpu_moe or asked.cpu_moe is not None:
        return None
    if all(room.shared is not None for room in search.rooms):
        # Host memory is the same memory
        return None
    for load in variants:
        best: Optional[tuple[int, Optional[int]]] = None
        for only in _orders(search.rooms, asked):
            # One GPU less is worth less than the experts of one block
            low, high = 1, asked.shape.block_count if best is None else best[0] - 1
            if not high or search.spread(replace(load, cpu_moe=high), asked.total, only) is None:
                continue
            while low < high:
                middle = (low + high) // 2
                if search.spread(replace(load, cpu_moe=middle), asked.total, only) is None:
                    low = middle + 1
                else:
                    high = middle
            best = (low, only)
        if best is not None:
            moved, only = best
            return search.longest(replace(load, cpu_moe=moved), min(goal, max(ENOUGH_CONTEXT, load.context)), asked.total, only)
    return None


def _partial(search: _Search, variants: Sequence[memory.Load], goal: int) -> Optional[memory.Load]:
    """As many layers as fit."""
    asked = search.asked
    best: Optional[tuple[int, memory.Load]] = None
    only = 0 if len(search.rooms) == 1 else None
    for load in variants:
        for layers in range(asked.total - 1, 0, -1):
            if best is not None and layers <= best[0]:
                break
            found = search.spread(load, layers, only)
            if found is not None:
                grown = search.longest(load, min(goal, max(ENOUGH_CONTEXT, load.context)), layers, only)
                best = (layers, grown or found)
                break
    return best[1] if best else None


def _last_resort(asked: _Asked, rooms: Sequence[Room], load: memory.Load, layers: int) -> memory.Load:
    """What was asked for though it does not fit, or nothing on the GPU."""
    if asked.layers is None:
        return replace(load, gpu_layers=0, counts=(0,) * len(rooms))
    counts = asked.split
    if counts is None:
        first = max(range(len(rooms)), key=lambda number: (rooms[number].free, -number))
        counts = tuple(layers if number == first else 0 for number in range(len(rooms)))
    return replace(load, gpu_layers=layers, counts=counts)


def _firm(asked: _Asked, need: Need) -> int:
    """Bytes of host memory that cannot be read again from a file, as mapped weights can."""
    return need.cpu.total - (0 if asked.wish.settings.get("mmap") is False else need.cpu.weights)


def _report(asked: _Asked, need: Need, rooms: Sequence[Room], policy: Policy, host: Optional[Host], taken_of_host: tuple[int, int]) -> Fit:
    shape, load, wish = asked.shape, need.load, asked.wish
    offloaded, total = need.offloaded, asked.total
    hosted = bool(load.cpu_moe and shape.is_mixture) or (load.kv_on_host and need.cpu.kv > 0)
    offload = "none" if offloaded == 0 else "full" if offloaded == total and not hosted else "partial"
    holds = _holds(need, rooms)
    delegated = bool(asked.gpus) and shape.has_indexer and not wish.extra_mib or (not shape.known and policy.unknown == "server" and bool(asked.gpus))
    findings = list(asked.findings)
    memory_finding, host_holds = _host_memory(asked, need, rooms, policy, host, taken_of_host)
    shared = need.left_for_cpu(rooms)
    left = (host.available_mib * MIB - taken_of_host[1] if host else 0) if shared is None else shared
    if memory_finding and not delegated:
        findings.append(memory_finding)
    breakdown = [_share(room, need, number, policy) for number, room in enumerate(rooms)]
    breakdown.append(
        Share(
            device="CPU",
            weights_mib=need.cpu.weights / MIB,
            kv_mib=need.cpu.kv / MIB,
            state_mib=need.cpu.state / MIB,
            compute_mib=need.cpu.compute / MIB,
            available_mib=max(0, left) / MIB,
            layers=need.cpu.layers,
        )
    )
    return Fit(
        service=wish.service,
        settings=words.settings(asked, load, delegated, total),
        offload=offload,
        confidence=words.confidence(shape, load, offload, delegated),
        reason=words.reason(asked, need, rooms, policy, offload, holds, delegated),
        breakdown=tuple(breakdown),
        layers_offloaded=offloaded,
        layers_total=total,
        findings=tuple(findings),
        fits=(holds and host_holds) or delegated,
        delegated=delegated,
        step_down=wish.step_down,
    )


def _share(room: Room, need: Need, number: int, policy: Policy) -> Share:
    use = need.gpus[number]
    used = need.total(number) > 0
    mmproj = need.mmproj if number == 0 else 0
    return Share(
        device=room.gpu.label,
        index=room.gpu.index,
        layers=use.layers,
        weights_mib=use.weights / MIB,
        kv_mib=use.kv / MIB,
        state_mib=use.state / MIB,
        compute_mib=use.compute / MIB,
        mmproj_mib=mmproj / MIB,
        context_mib=(need.extra[number] + need.pool[number] - mmproj) / MIB if used else 0.0,
        pool_mib=need.pool[number] / MIB,
        margin_mib=room.margin / MIB,
        available_mib=(room.free + room.margin) / MIB,
    )


def _host_memory(
    asked: _Asked, need: Need, rooms: Sequence[Room], policy: Policy, host: Optional[Host], taken: tuple[int, int]
) -> tuple[Optional[Finding], bool]:
    """Whether the host holds its part. ``taken`` is what services before have of it, with and without mapped weights."""
    left = need.left_for_cpu(rooms)
    if left is not None:
        room = firm_room = left
    elif host is None or not host.available_mib:
        return None, True
    else:
        whole = (host.available_mib - policy.host_reserve_mib) * MIB
        room, firm_room = whole - taken[0], whole - taken[1]
    if need.cpu.total <= room:
        return None, True
    # Weights are mapped from their file: without room for them they are read again and again, which is slow and no failure
    wanted, there = need.cpu.total // MIB, max(0, room) // MIB
    text = f"{wanted} MiB of the model stay in host memory, which has {there} MiB for it"
    if _firm(asked, need) <= firm_room and asked.wish.settings.get("mmap") is not False:
        return Finding("warning", asked.wish.service, 0, f"{text}; it will be read from disk again and again", "Take a smaller model or quantisation."), True
    return Finding("error", asked.wish.service, 0, text, "Take a smaller model, a shorter context, or a host with more memory."), False
