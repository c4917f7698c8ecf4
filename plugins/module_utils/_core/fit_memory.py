# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much memory llama.cpp takes on each device for a model and its settings: weights, KV cache, recurrent states, compute buffers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from . import data_arch, fit_compute
from .data_era import NEWEST, Era
from .data_ggml import TENSOR_TYPES
from .fit_shape import Layer, ModelShape, Weight

# Outside of the blocks, read by the CPU (llama-arch.cpp: LLM_TENSOR_LAYER_INPUT)
INPUT_TENSORS = ("token_embd.", "token_embd_norm.", "position_embd.", "token_types.", "per_layer_token_embd.")
# Outside of the blocks, and yet with the first of them
FIRST_TENSORS = ("per_layer_model_proj.", "per_layer_proj_norm.")
# Held by every device that has a block
SHARED_TENSORS = ("rope_freqs.", "rope_factors_long.", "rope_factors_short.")
# CUDA aligns every tensor, and quantised rows to what its kernels read at once
_ALIGN = 128
_ROW = 512
KV_PAD = 256
WINDOW_PAD = 256

TYPE_IDS = {name.lower(): type_id for type_id, (name, _block, _size) in TENSOR_TYPES.items()}


@dataclass(frozen=True)
class Load:
    """Settings with nothing left open. ``counts``: layers for each GPU in order, the output layer among them; their sum is ``gpu_layers``."""

    context: int
    gpu_layers: int
    counts: tuple[int, ...] = (0,)
    parallel: int = 1
    unified: bool = True
    ubatch: int = 512
    flash: bool = True
    type_k: str = "f16"
    type_v: str = "f16"
    cpu_moe: int = 0
    kv_on_host: bool = False
    swa_full: bool = False
    # Embedding and reranking: all tokens of a batch are output
    all_outputs: bool = False
    # ... and only one vector is made of them
    pooled: bool = False
    op_offload: bool = True
    # What a device adds to a tensor: "cuda", or nothing
    padding: str = "cuda"


@dataclass(frozen=True)
class Use:
    """Bytes on one device."""

    weights: int = 0
    kv: int = 0
    state: int = 0
    compute: int = 0
    layers: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.state + self.compute


@dataclass(frozen=True)
class Placement:
    """Which device has which layer: -1 is the CPU. ``output`` is where the logits are made."""

    blocks: tuple[int, ...]
    output: int


def padded(value: int, step: int) -> int:
    return (value + step - 1) // step * step


def place(shape: ModelShape, load: Load, era: Era = NEWEST) -> Placement:
    """llama.cpp counts the output as one layer more; newer builds place it first, older ones last."""
    total = shape.block_count + 1
    layers = max(0, min(load.gpu_layers, total))
    if layers == 0 or not load.counts or sum(load.counts) == 0:
        return Placement((-1,) * shape.block_count, -1)
    if era.output_first:
        start, acting = total - layers, layers
    else:
        start, acting = max(0, shape.block_count - layers), min(layers, total)
    bounds = []
    summed = 0
    for count in load.counts:
        summed += count
        bounds.append(summed)

    def device(index: int) -> int:
        if index < start or index - start >= acting:
            return -1
        # As llama.cpp: the first device whose share of the layers reaches beyond this one
        position = (index - start) / acting
        for number, bound in enumerate(bounds):
            if bound / summed > position:
                return number
        return len(bounds) - 1

    places = [device(index) for index in range(total)]
    return Placement(tuple(places[:-1]), places[-1])


def tensor_bytes(weight: Weight, padding: str = "cuda") -> int:
    """What a tensor takes on a device."""
    size = weight.size_bytes
    if padding != "cuda":
        return size
    if weight.quantised and weight.shape and weight.shape[0] % _ROW:
        _name, block, step = TENSOR_TYPES.get(weight.type_id, ("", 1, 2))
        size += (_ROW - weight.shape[0] % _ROW) // block * step
    return padded(size, _ALIGN)


@lru_cache(maxsize=256)
def _groups(shape: ModelShape, padding: str, first_block: bool) -> tuple[tuple[tuple[int, int, int, int], ...], tuple[int, int, int, int, int]]:
    """(bytes, experts' bytes, both padded) of each block, and of input, output (raw, padded), shared."""
    blocks = [[0, 0, 0, 0] for dummy in range(shape.block_count)]
    read = output = output_padded = shared = 0
    skipped = shape.layer_count if shape.block_count > shape.layer_count else None
    for weight in shape.weights:
        size, size_padded = weight.size_bytes, tensor_bytes(weight, padding)
        layer = 0 if first_block and weight.name.startswith(FIRST_TENSORS) else weight.layer
        if layer >= 0:
            # Blocks that predict further tokens are loaded only when asked for
            if layer >= shape.block_count or (skipped is not None and layer >= skipped):
                continue
            entry = blocks[layer]
            entry[0] += size
            entry[2] += size_padded
            if weight.is_expert:
                entry[1] += size
                entry[3] += size_padded
        elif weight.name.startswith(INPUT_TENSORS):
            read += size
            if weight.name == "token_embd.weight" and shape.tied:
                output += size
                output_padded += size_padded
        elif weight.name.startswith(SHARED_TENSORS):
            shared += size_padded
        else:
            output += size
            output_padded += size_padded
    return tuple((entry[0], entry[1], entry[2], entry[3]) for entry in blocks), (read, output, output_padded, shared, 0)


def tied_bytes(shape: ModelShape) -> int:
    """The embeddings, where the output layer reads them too."""
    if not shape.tied:
        return 0
    return sum(weight.size_bytes for weight in shape.weights if weight.layer < 0 and weight.name == "token_embd.weight")


def weights(shape: ModelShape, load: Load, where: Placement, era: Era = NEWEST) -> tuple[list[int], int]:
    """Bytes on each GPU, and on the CPU."""
    blocks, (read, output, output_padded, shared, _dummy) = _groups(shape, load.padding, era.inputs_first_block)
    gpus = [0] * len(load.counts)
    cpu = read
    for index, device in enumerate(where.blocks):
        size, experts, size_padded, experts_padded = blocks[index]
        if device < 0:
            cpu += size
        elif index < load.cpu_moe:
            gpus[device] += size_padded - experts_padded
            cpu += experts
        else:
            gpus[device] += size_padded
    if where.output < 0:
        # Not twice in one place
        cpu += output - tied_bytes(shape)
    else:
        gpus[where.output] += output_padded
    for device in set(where.blocks):
        if device >= 0:
            gpus[device] += shared
        else:
            cpu += shared
    return gpus, cpu


def context_cells(shape: ModelShape, load: Load, era: Era) -> tuple[int, int]:
    """Cells of one stream, and streams. The context is shared by the slots, or divided among them."""
    context = padded(load.context, KV_PAD)
    if load.unified or load.parallel <= 1:
        return context, 1
    if era.hybrids_undivided and shape.architecture in data_arch.HYBRID:
        return context, load.parallel
    return padded(context // load.parallel, KV_PAD) or KV_PAD, load.parallel


def window_cells(shape: ModelShape, load: Load, era: Era, ubatch: int) -> int:
    cells, streams = context_cells(shape, load, era)
    if load.swa_full or not era.windows:
        return cells
    sequences = load.parallel if streams == 1 else 1
    return padded(min(cells, shape.window_size * sequences + ubatch), WINDOW_PAD)


def kv_bytes(shape: ModelShape, load: Load, era: Era, index: int) -> int:
    """Keys and values of one block."""
    layer = shape.layers[index]
    if not layer.attends:
        return 0
    cells, streams = context_cells(shape, load, era)
    if layer.window and shape.window_size:
        cells = window_cells(shape, load, era, effective_ubatch(shape, load))
    value_width = layer.value_width
    if not load.flash:
        # Without flash attention V is transposed, and padded to the widest layer
        value_width = shape.widest_value
    if shape.is_mla and era.mla_without_values:
        value_width = 0
    return cells * streams * (row_bytes(load.type_k, layer.key_width) + row_bytes(load.type_v, value_width))


def row_bytes(name: str, width: int) -> int:
    _name, block, size = TENSOR_TYPES[TYPE_IDS[name.lower()]]
    return -(-width // block) * size


def _cache_padding(load: Load, layer: Layer) -> int:
    """What CUDA adds to a quantised cache whose rows its kernels do not divide, once for keys and once for values."""
    found = 0
    for name, width in ((load.type_k, layer.key_width), (load.type_v, layer.value_width)):
        if load.padding == "cuda" and TENSOR_TYPES[TYPE_IDS[name.lower()]][1] > 1 and width % _ROW:
            found += row_bytes(name, _ROW - width % _ROW)
    return found


def state_bytes(shape: ModelShape, load: Load, index: int) -> int:
    if not shape.layers[index].recurrent:
        return 0
    return sum(shape.state_width) * 4 * max(1, load.parallel)


def effective_ubatch(shape: ModelShape, load: Load) -> int:
    """A batch is never larger than the context."""
    return min(load.ubatch, padded(load.context, KV_PAD))


# NVIDIA's kernels of flash attention: lengths of keys and values, and of how many a number of heads must be a multiple for each key
FLASH = {(40, 40): 1, (64, 64): 1, (72, 72): 1, (80, 80): 1, (96, 96): 1, (112, 112): 1, (128, 128): 1, (256, 256): 1}
FLASH_GROUPED = {(192, 128): 8, (320, 256): 32, (512, 512): 2, (576, 512): 2}


# Types of a cache that they read in every build; newer ones read nearly all
FLASH_TYPES = frozenset({"f16", "q8_0", "q4_0"})


def flash_works(shape: ModelShape) -> bool:
    """Whether flash attention runs on the GPU in all layers. Where it does not, llama.cpp would compute attention on the CPU."""
    for layer in shape.layers:
        if not layer.attends and shape.caches:
            continue
        lengths = (layer.key_length, layer.value_length)
        grouped = FLASH_GROUPED.get(lengths)
        if grouped is not None:
            ratio = layer.heads // layer.heads_kv if layer.heads_kv else 0
            if ratio < grouped or ratio % grouped:
                return False
        elif lengths not in FLASH:
            return False
    return True


def flash_takes(type_k: str, type_v: str, era: Era = NEWEST) -> bool:
    """Whether NVIDIA's kernels read a cache of these types (as they are built by default); else attention runs on the CPU.

    Seen in the number of parts of a graph, build by build: tests/oracle.
    """
    key, value = type_k.lower(), type_v.lower()
    if "iq4_nl" in (key, value):
        return False
    return era.flash_mixed or (key == value and key in FLASH_TYPES)


def quantisable(shape: ModelShape, type_k: str, type_v: str) -> bool:
    """Whether the blocks of the types divide what one head keeps; the server stops where they do not."""
    blocks = [TENSOR_TYPES[TYPE_IDS[name.lower()]][1] for name in (type_k, type_v)]
    return all(layer.key_length % blocks[0] == 0 and layer.value_length % blocks[1] == 0 for layer in shape.layers if layer.attends)


def pool_bytes(shape: ModelShape, load: Load, era: Era = NEWEST) -> tuple[int, ...]:
    """What NVIDIA's and AMD's backend takes on each GPU beside its buffers, with the first long text: none of it is in a log.

    Older builds convert a quantised cache to f16 there, one layer at a time (ggml-org/llama.cpp#23861 has a load that grew by just
    that), and without flash attention the scores of all heads are (ggml-org/llama.cpp#5993).
    """
    if load.padding != "cuda":
        return (0,) * len(load.counts)
    where = place(shape, load, era)
    cells, streams = context_cells(shape, load, era)
    rows = effective_ubatch(shape, load)
    found = [0] * len(load.counts)
    for device, layer in zip(where.blocks, shape.layers):
        if device < 0 or not layer.reads:
            continue
        size = 0
        if not load.flash:
            size = 0 if load.kv_on_host else 2 * rows * (cells if shape.caches else rows) * layer.heads
        elif shape.caches and not era.dequantises:
            size = sum(2 * cells * streams * width for name, width in ((load.type_k, layer.key_width), (load.type_v, layer.value_width)) if name != "f16")
        found[device] = max(found[device], size)
    return tuple(found)


def measure(shape: ModelShape, load: Load, era: Era = NEWEST) -> tuple[tuple[Use, ...], Use]:
    """Bytes on each GPU, and on the CPU."""
    where = place(shape, load, era)
    gpu_weights, cpu_weights = weights(shape, load, where, era)
    gpus = len(load.counts)
    kv, state = [0] * gpus, [0] * gpus
    cpu_kv = cpu_state = 0
    seen: dict[tuple[int, int, bool, bool], int] = {}
    for index, device in enumerate(where.blocks):
        layer = shape.layers[index]
        kind = (layer.key_width, layer.value_width, layer.attends, layer.window)
        if kind not in seen:
            seen[kind] = kv_bytes(shape, load, era, index)
        keys, states = seen[kind], state_bytes(shape, load, index)
        if device < 0 or load.kv_on_host:
            cpu_kv += keys
            cpu_state += states
        else:
            kv[device] += keys + (_cache_padding(load, layer) if keys else 0)
            state[device] += states
    cells, streams = context_cells(shape, load, era)
    rows = effective_ubatch(shape, load)
    windowed = any(layer.attends and layer.window for layer in shape.layers)
    window = window_cells(shape, load, era, rows) if windowed and shape.window_size else 0
    compute, cpu_compute = fit_compute.buffers(shape, load, era, where, cells, window, rows, streams)
    counted = [sum(1 for device in where.blocks if device == number) + (1 if where.output == number else 0) for number in range(gpus)]
    on_gpus = tuple(Use(gpu_weights[n], kv[n], state[n], compute[n], counted[n]) for n in range(gpus))
    on_cpu = Use(cpu_weights, cpu_kv, cpu_state, cpu_compute, shape.block_count + 1 - sum(counted))
    return on_gpus, on_cpu
