# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The compute buffers: the most that a graph holds between two of its operations.

llama.cpp reserves for the largest graph, a full batch on a full cache. What lives at one moment is the same in all layers, so a few moments
decide: attention, the feed-forward part (dense or with experts), a recurrent layer, the logits. Each is a sum of tensors of known
shapes: ``rows`` tokens times a width, in f32. The allocator leaves holes, so these sums are met from above by a few of them.

Sizes are those of NVIDIA's backend (flash attention converts a quantised cache to f16 for one layer, in its compute buffer).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Sequence

from . import data_arch
from .data_era import Era
from .fit_shape import Layer, ModelShape

if TYPE_CHECKING:
    from .fit_memory import Load, Placement

# With several GPUs the scheduler keeps this many copies of what goes into a graph
COPIES = 4
# From this many tokens on an operation whose weights lie in host memory runs on the GPU
_LARGE_BATCH = 32
# Tokens that a delta net of many operations takes together
_CHUNK = 64
_F16, _F32 = 2, 4


@dataclass(frozen=True)
class _Graph:
    """What all moments need to know, in bytes unless said otherwise."""

    shape: ModelShape
    load: Load
    era: Era
    rows: int
    cells: int
    window: int
    streams: int
    # One activation of the model's width, for all tokens of a batch
    width: int

    def of(self, columns: int) -> int:
        return _F32 * self.rows * columns


def buffers(shape: ModelShape, load: Load, era: Era, where: Placement, cells: int, window: int, rows: int, streams: int) -> tuple[list[int], int]:
    """Bytes on each GPU, and on the CPU.

    :param cells: of one stream of the KV cache; ``window``: of its sliding part, 0 without one.
    :param rows: tokens of a batch. ``streams``: of the cache.
    """
    graph = _Graph(shape, load, era, rows, cells, window, streams, _F32 * rows * shape.embedding)
    busy = [number for number in range(len(load.counts)) if number in where.blocks or number == where.output]
    pipeline = len(busy) > 1 and not load.cpu_moe and not load.kv_on_host and load.gpu_layers > shape.block_count
    result = [0] * len(load.counts)
    hosted = [index for index, device in enumerate(where.blocks) if device < 0]
    # Without layers the first GPU still computes large batches of what lies in host memory
    working = busy or ([0] if load.counts and load.op_offload else [])
    for number in working:
        blocks = [index for index, device in enumerate(where.blocks) if device == number]
        first = number == working[0]
        peak = _blocks(graph, blocks, pipeline, first, [], load.kv_on_host)
        if first and load.op_offload:
            staged = [index for index in range(min(load.cpu_moe if shape.is_mixture else 0, shape.block_count)) if where.blocks[index] >= 0]
            peak = max(peak, _blocks(graph, hosted, pipeline, True, hosted, True), _blocks(graph, staged, pipeline, True, staged, load.kv_on_host))
        if number == where.output:
            peak = max(peak, _logits(graph, pipeline))
        elif where.output < 0 and first and load.op_offload and _output_rows(graph) >= _LARGE_BATCH:
            # The output matrix comes over for the logits of a whole batch
            peak = max(peak, _logits(graph, pipeline) + _output_bytes(shape))
        result[number] = peak + _borrowed(graph, where, blocks, number) * (COPIES if pipeline else 1)
    return result, _host(graph, pipeline)


def _borrowed(graph: _Graph, where: Placement, blocks: Sequence[int], number: int) -> int:
    """Blocks that read the cache of an earlier one: it comes over, for each of them, where that one lies on another device."""
    layers = graph.shape.layers
    found = 0
    for index in blocks:
        if layers[index].attends or not layers[index].reads or not graph.shape.caches:
            continue
        source = max((other for other in range(index) if layers[other].attends and layers[other].window == layers[index].window), default=index)
        if where.blocks[source] != number and not graph.load.kv_on_host:
            found += _layer_cache(graph, layers[index])
    return found


def _masks(graph: _Graph, blocks: Sequence[int], copies: int = 1) -> int:
    """The masks of attention: one for the whole cache, one for its sliding part."""
    shape = graph.shape
    if shape.architecture in data_arch.RECURRENT:
        return 0
    size = (_F16 if graph.load.flash else _F32) * graph.rows * copies
    if not shape.caches:
        kinds = {layer.window for layer in _kinds(shape, tuple(blocks))}
        return size * graph.rows * len(kinds)
    layers = [layer for layer in _kinds(shape, tuple(blocks)) if layer.reads]
    full = graph.cells if any(not layer.window for layer in layers) else 0
    return size * (full + (graph.window if any(layer.window for layer in layers) else 0))


def _blocks(graph: _Graph, blocks: Sequence[int], pipeline: bool, first: bool, staged: Sequence[int], kv_on_host: bool) -> int:
    """The largest moment of ``blocks``. The weights of ``staged`` lie in host memory and come over, with ``kv_on_host`` so does the cache."""
    shape = graph.shape
    layers = _kinds(shape, tuple(blocks))
    if not layers:
        return 0
    inputs = graph.era.inputs
    if pipeline:
        inputs = graph.era.inputs_first if first else graph.era.inputs_other
    masks = _masks(graph, blocks, COPIES if pipeline else 1)
    if pipeline and first and not graph.era.mask_f16:
        # All copies in f32, one converted
        masks = 2 * masks + masks // COPIES
    steady = graph.width * inputs
    further = shape.number("embedding_length_per_layer_input")
    if further:
        # One more input for each layer
        steady += graph.of(further * shape.block_count)
    if shape.architecture == "gemma3n":
        # The activations are there several times, and all of them pass from one GPU to the next
        steady += graph.width * (shape.number("altup.num_inputs", 4) + 1)
        steady *= COPIES if pipeline else 1
    fused = shape.architecture in data_arch.DELTA_NET and graph.era.fused_delta
    if pipeline and shape.number("ssm.inner_size") and any(layer.recurrent for layer in layers) and not fused:
        # The states pass too
        steady += 16 * graph.width
    # llama.cpp computes attention on the CPU when it is told to keep the cache there and has no flash attention
    away = graph.load.kv_on_host and not graph.load.flash and shape.caches and not shape.is_mla
    cache = max((_layer_cache(graph, layer) for layer in layers if layer.reads), default=0) if kv_on_host and shape.caches and not away else 0
    behind = 0
    if cache:
        # The cache leaves a hole that the larger tensors of the feed-forward part do not fit into
        behind = cache + graph.width + (graph.of(shape.embedding * shape.experts_used) if shape.is_mixture else 0)
    weights = _staged(graph, staged)
    moments = [_feed_forward(graph, blocks) + (weights or behind)]
    if any(layer.reads for layer in layers):
        moments.append(cache + max(_attention(graph, layer, kv_on_host, away and layer.attends) for layer in layers if layer.reads))
    if any(layer.recurrent for layer in layers):
        # What a delta net of many operations leaves is large enough for weights that come over
        apart = shape.architecture in data_arch.DELTA_NET and not graph.era.fused_delta
        moments.append(max(_recurrent(graph), weights) if apart else _recurrent(graph) + weights)
    # Where both read the same input, their largest moments can be one
    peak = masks + steady + (sum(moments) if shape.architecture in data_arch.PARALLEL and graph.load.flash else max(moments))
    if weights and fused and shape.is_mixture and graph.load.cpu_moe:
        # Between two experts' matrices something of the delta net takes a part of the hole of the first, so the next lies beside it
        peak = max(peak, masks + steady + 2 * _largest_experts(graph, staged) + 2 * graph.width)
    if not graph.era.mask_f16 and graph.load.flash and not pipeline:
        # Made in f32 and converted: both are there for a moment
        peak = max(peak, masks * 3 + 4 * graph.width)
    return peak


@lru_cache(maxsize=4096)
def _kinds(shape: ModelShape, blocks: tuple[int, ...]) -> tuple[Layer, ...]:
    """Blocks of which no two are alike."""
    return tuple(dict.fromkeys(replace(shape.layers[index], index=0) for index in blocks))


def _layer_cache(graph: _Graph, layer: Layer) -> int:
    cells = graph.window if layer.window and graph.window else graph.cells
    width = layer.key_width + (0 if graph.shape.is_mla else layer.value_width)
    return _F16 * cells * width * graph.streams


def _feed_forward(graph: _Graph, blocks: Sequence[int]) -> int:
    """Up, gate and their product; with experts, all that one token uses, and their outputs before and after weighing."""
    columns = feed_columns(graph.shape)
    return graph.of(max((columns[index] for index in blocks), default=0))


@lru_cache(maxsize=64)
def feed_columns(shape: ModelShape) -> tuple[int, ...]:
    """What the feed-forward part of each block holds at its largest moment, in numbers for one token."""
    found = []
    for layer, weights in zip(shape.layers, shape.by_block):
        names = [weight.name for weight in weights]
        gated = any(name.startswith(("ffn_gate.", "ffn_gate_up.")) for name in names) or any(
            weight.name == "ffn_up.weight" and len(weight.shape) > 1 and weight.shape[1] == 2 * layer.feed_forward for weight in weights
        )
        dense = layer.feed_forward * (3 if gated else 1)
        experts = [weight for weight in weights if weight.is_expert and len(weight.shape) > 1]
        if not experts:
            found.append(dense)
            continue
        used = shape.experts_used
        inner = max((weight.shape[1] for weight in experts if weight.name.startswith(("ffn_up_exps", "ffn_gate_exps"))), default=0)
        inner = max(inner, max((weight.shape[1] // 2 for weight in experts if weight.name.startswith("ffn_gate_up_exps")), default=0))
        split = any(weight.name.startswith("ffn_gate") for weight in experts)
        outputs = shape.embedding * used
        wide = max(inner * used * (3 if split else 1) + (0 if split else outputs), 2 * outputs + shape.embedding)
        shared = max((weight.shape[1] for weight in weights if weight.name in ("ffn_up_shexp.weight", "ffn_gate_shexp.weight")), default=0)
        if shared:
            wide = max(wide + shape.embedding, shared * 3 + 2 * shape.embedding)
        if not any(name.startswith(("ffn_up.", "ffn_down.")) for name in names):
            dense = 0
        found.append(max(dense, wide))
    return tuple(found)


@lru_cache(maxsize=64)
def largest_matrices(shape: ModelShape) -> tuple[tuple[int, int], ...]:
    """The largest matrix of each block, and the largest of its experts."""
    found = []
    for weights in shape.by_block:
        dense = max((weight.size_bytes for weight in weights if not weight.is_expert and len(weight.shape) > 1), default=0)
        found.append((dense, max((weight.size_bytes for weight in weights if weight.is_expert), default=0)))
    return tuple(found)


def _attention(graph: _Graph, layer: Layer, hosted: bool, away: bool) -> int:
    """Queries and what comes of them; the scores of all heads without flash attention (not where they are made ``away``, on the CPU); the
    converted cache with it."""
    shape, load = graph.shape, graph.load
    queries = graph.of(layer.heads * max(layer.key_length, layer.value_length))
    # The model's own width is counted with the inputs, twice of it is free by now
    found = 3 * queries - 2 * graph.width
    cells = graph.rows if not shape.caches else graph.window if layer.window and graph.window else graph.cells
    if load.flash:
        if graph.era.dequantises and load.padding == "cuda" and shape.caches:
            for name, width in ((load.type_k, layer.key_width), (load.type_v, 0 if shape.is_mla else layer.value_width)):
                if name != "f16":
                    found += _F16 * cells * width * graph.streams
    elif hosted and shape.sinks:
        # What becomes of scores with sinks lies beside them
        found += 2 * _F32 * graph.rows * cells * layer.heads
    elif not away:
        found += _F32 * graph.rows * cells * layer.heads + graph.of(layer.key_width + layer.value_width)
    plain = found - 3 * queries + 2 * graph.width
    if shape.is_mixture:
        # The outputs of the experts left a hole that these do not fit into
        found += graph.of(shape.embedding * shape.experts_used)
    if shape.architecture in data_arch.GATED:
        found = max(found, plain + 5 * queries - graph.width)
    return max(0, found)


def _recurrent(graph: _Graph) -> int:
    shape = graph.shape
    inner, state, groups = shape.number("ssm.inner_size"), shape.number("ssm.state_size"), shape.number("ssm.group_count")
    if shape.architecture in data_arch.DELTA_NET:
        return _delta_net(graph)
    if inner:
        mixed = inner + 2 * groups * state
        # Projections, the convolution's input and output, the result, and the new state
        return graph.of(2 * inner + 2 * groups * state) + 2 * graph.of(mixed) + graph.of(inner) + _F32 * state * inner * max(1, graph.load.parallel)
    if shape.number("wkv.head_size"):
        return 16 * graph.width
    return 4 * graph.width


def _delta_net(graph: _Graph) -> int:
    """A gated delta net: keys and values are repeated for all heads and taken apart, in f32."""
    shape = graph.shape
    heads, channels = next(iter(shape.per_layer("attention.head_count")), 0), shape.number("kda.head_dim")
    if not graph.era.fused_delta or graph.load.padding != "cuda":
        if channels:
            # Each channel has a decay of its own: two of those square matrices for every channel
            return graph.of(heads * channels) * (2 * _CHUNK + 8)
        # Chunks of tokens with the square matrices between them, for each sequence on its own (measured on three sizes)
        return 49 * graph.rows * shape.embedding * (1 if graph.load.unified else max(1, graph.load.parallel))
    inner, state, groups = shape.number("ssm.inner_size"), shape.number("ssm.state_size"), shape.number("ssm.group_count")
    if not inner:
        inner, groups, state = heads * channels, heads, channels
    mixed = inner + 2 * groups * state
    return 3 * graph.of(mixed) + 3 * graph.of(inner)


def _output_rows(graph: _Graph) -> int:
    """Tokens of a batch whose logits are made."""
    if graph.shape.architecture in data_arch.NO_OUTPUT or (graph.load.pooled and not graph.era.pooled_logits):
        return 0
    return graph.rows if graph.load.all_outputs or not graph.era.outputs_per_slot else min(graph.rows, graph.load.parallel)


def _logits(graph: _Graph, pipeline: bool) -> int:
    rows = _output_rows(graph)
    if not rows:
        return 0
    every = range(graph.shape.block_count)
    logits = _F32 * rows * graph.shape.rows
    size = logits + graph.width
    if pipeline:
        size += graph.width * 4 + _masks(graph, every, COPIES)
        if graph.shape.is_mixture and graph.shape.number("ssm.inner_size") and graph.shape.architecture not in data_arch.DELTA_NET and not graph.era.mask_f16:
            # Seen with Granite 4 H; what lies there is not understood
            size += logits * 9 // 4
    elif graph.era.keeps_inputs:
        size += 3 * _masks(graph, every)
    if graph.load.pooled:
        # What becomes the one vector lies beside them
        size += graph.width * (2 if graph.era.mask_f16 else 8)
    return size


def _output_bytes(shape: ModelShape) -> int:
    name = "token_embd.weight" if shape.tied else "output.weight"
    return sum(weight.size_bytes for weight in shape.weights if weight.layer < 0 and weight.name == name)


def _staged(graph: _Graph, blocks: Sequence[int]) -> int:
    """Weights in host memory come over one by one for large batches. A hole of one serves the next, if what is between is no larger."""
    largest = largest_matrices(graph.shape)
    experts = _largest_experts(graph, blocks)
    if experts:
        return experts * 105 // 100
    matrix = max((largest[index][0] for index in blocks), default=0)
    between = graph.of(max((graph.shape.layers[index].feed_forward for index in blocks), default=0))
    return matrix * 2 if between > matrix else matrix + (graph.width if blocks else 0)


def _largest_experts(graph: _Graph, blocks: Sequence[int]) -> int:
    largest = largest_matrices(graph.shape)
    return max((largest[index][1] for index in blocks), default=0)


def _host(graph: _Graph, pipeline: bool) -> int:
    masks = _masks(graph, range(graph.shape.block_count), COPIES if pipeline else 1) * (1 if graph.era.mask_f16 or not graph.load.flash else 2)
    return masks + graph.width * (graph.era.inputs_host_pipeline if pipeline else graph.era.inputs_host)
