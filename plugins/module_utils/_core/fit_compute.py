# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The compute buffers: what the largest graph needs for what it has between two operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import data_arch
from .data_era import Era
from .fit_shape import ModelShape

if TYPE_CHECKING:
    from .fit_memory import Load, Placement

_COPIES = 4


def buffers(shape: ModelShape, load: Load, era: Era, where: Placement) -> tuple[list[int], int]:
    """Bytes on each GPU, and on the CPU."""
    from . import fit_memory as memory

    ubatch = memory.effective_ubatch(shape, load)
    cells = memory.padded(load.context, memory.KV_PAD)
    heads = max((layer.heads for layer in shape.layers), default=0)
    width = max((layer.heads * max(layer.key_length, layer.value_length) for layer in shape.layers), default=0)
    feed = max(max((layer.feed_forward for layer in shape.layers), default=0), shape.experts_used * shape.number("expert_feed_forward_length"))
    outputs = ubatch if load.all_outputs or not era.outputs_per_slot else min(ubatch, load.parallel)
    mask = (2 if era.mask_f16 or not load.flash else 6) * ubatch * cells
    work = 4 * ubatch * (2 * feed + shape.embedding)
    if load.flash:
        if load.type_k != "f16":
            work = max(work, 4 * cells * max((layer.key_width for layer in shape.layers), default=0) + 4 * ubatch * (2 * feed + shape.embedding))
    else:
        work = max(work, 4 * ubatch * cells * heads + 4 * ubatch * cells + 24 * ubatch * max(shape.embedding, width))
    if shape.architecture in data_arch.DELTA_NET:
        work = max(work, 49 * ubatch * shape.embedding)
    logits = 4 * outputs * shape.rows
    busy = [number for number in range(len(load.counts)) if number in where.blocks or number == where.output]
    many = len(busy) > 1
    result = [0] * len(load.counts)
    blocks, (_read, output, _padded, _shared, _dummy) = memory._groups(shape, load.padding)
    staged = max((blocks[index][0] for index, device in enumerate(where.blocks) if device < 0), default=0)
    for number in range(len(load.counts)):
        if number not in busy:
            continue
        part = mask * (_COPIES if many else 1) + work
        if number == where.output:
            part = max(part, logits + 4 * ubatch * shape.embedding + mask)
        if number == busy[0] and load.op_offload:
            if where.output < 0:
                part = max(part, output + 4 * ubatch * (shape.rows + shape.embedding))
            if load.cpu_moe:
                part += int(1.05 * memory.largest_expert(shape, range(load.cpu_moe)))
            elif staged:
                part += staged
        result[number] = part
    return result, 4 * ubatch * shape.embedding * 2 + mask
