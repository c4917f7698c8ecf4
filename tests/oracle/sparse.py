# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GGUF files of real sizes without data: a header, and a hole where the tensors would be."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Mapping, Sequence

from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape

_ALIGNMENT = 32


def write(path: Path, shape: ModelShape) -> int:
    """Write the model of ``shape``; returns its size. It takes a few hundred KiB on disk."""
    metadata = {**shape.metadata, "tokenizer.ggml.model": "none"}
    if shape.vocabulary:
        metadata[f"{shape.architecture}.vocab_size"] = shape.vocabulary
    metadata = {key: value for key, value in metadata.items() if not key.startswith("split.")}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shape.weights), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    offset = 0
    infos = []
    for weight in shape.weights:
        name = weight.name if weight.layer < 0 else f"blk.{weight.layer}.{weight.name}"
        infos.append(_text(name) + struct.pack(f"<I{len(weight.shape)}QIQ", len(weight.shape), *weight.shape, weight.type_id, offset))
        offset += -(-weight.size_bytes // _ALIGNMENT) * _ALIGNMENT
    head += b"".join(infos)
    head += b"\0" * (-len(head) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)
    return len(head) + offset


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    kind, data = _plain(value)
    return struct.pack("<I", kind) + data


def _plain(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _text(value)
    if isinstance(value, (tuple, list)):
        kinds = [_plain(entry) for entry in value]
        return 9, struct.pack("<IQ", kinds[0][0] if kinds else 4, len(value)) + b"".join(data for _kind, data in kinds)
    raise TypeError(f"{value!r} has no type in GGUF")


def names(shapes: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(shape["metadata"]["general.name"]) for shape in shapes]
