# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tiny writer of GGUF files for tests, so that they need no download."""

from __future__ import annotations

import struct
from typing import Any, Mapping, Optional, Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
# Written out, so that a wrong number in the table of the collection is noticed
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144)}
BLOCKS.update({13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110)})
BLOCKS.update({22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54)})
BLOCKS.update({35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18)})


class Value:
    """A metadata value with its type; for an array also the type of its items."""

    def __init__(self, kind: int, value: Any, item: int = U32) -> None:
        self.kind = kind
        self.value = value
        self.item = item


DEFAULT_METADATA: Mapping[str, Value] = {
    "general.architecture": Value(STRING, "llama"),
    "general.name": Value(STRING, "Tiny"),
    "general.file_type": Value(U32, 15),
    "llama.block_count": Value(U32, 2),
    "llama.context_length": Value(U32, 2048),
    "llama.embedding_length": Value(U32, 256),
    "llama.attention.head_count": Value(U32, 8),
    "llama.attention.head_count_kv": Value(U32, 4),
    "tokenizer.ggml.tokens": Value(ARRAY, ["<s>", "</s>", "a", "b"], STRING),
    "tokenizer.ggml.scores": Value(ARRAY, [0.0] * 2000, F32),
    "tokenizer.chat_template": Value(STRING, "{{ messages }}"),
}
# name, shape, type
DEFAULT_TENSORS: Sequence[tuple[str, tuple[int, ...], int]] = (
    ("token_embd.weight", (256, 4), 12),
    ("blk.0.attn_q.weight", (256, 3), 8),
    ("blk.1.attn_q.weight", (256, 3), 8),
    ("output_norm.weight", (5,), 0),
)


class Writer:
    def __init__(self, version: int = 3, big_endian: bool = False) -> None:
        self.version = version
        self.order = ">" if big_endian else "<"
        self.wide = "I" if version == 1 else "Q"

    def pack(self, kind: str, *values: Any) -> bytes:
        return struct.pack(self.order + kind, *values)

    def length(self, value: int) -> bytes:
        return self.pack(self.wide, value)

    def text(self, value: str) -> bytes:
        raw = value.encode()
        return self.length(len(raw)) + raw

    def item(self, kind: int, value: Any) -> bytes:
        return self.text(value) if kind == STRING else self.pack(FORMATS[kind], value)

    def value(self, value: Value) -> bytes:
        if value.kind != ARRAY:
            return self.pack("I", value.kind) + self.item(value.kind, value.value)
        items = b"".join(self.item(value.item, item) for item in value.value)
        return self.pack("II", ARRAY, value.item) + self.length(len(value.value)) + items

    def file(
        self,
        metadata: Optional[Mapping[str, Value]] = None,
        tensors: Sequence[tuple[str, tuple[int, ...], int]] = DEFAULT_TENSORS,
        alignment: int = 32,
        fill: int = 0x5A,
    ) -> bytes:
        """The bytes of a whole file; ``fill`` is the byte that the tensors are made of."""
        metadata = DEFAULT_METADATA if metadata is None else metadata
        head = b"GGUF" + self.pack("I", self.version) + self.length(len(tensors)) + self.length(len(metadata))
        head += b"".join(self.text(key) + self.value(value) for key, value in metadata.items())
        offset = 0
        data = b""
        for name, shape, kind in tensors:
            head += self.text(name) + self.pack("I", len(shape)) + b"".join(self.length(size) for size in shape)
            head += self.pack("IQ", kind, offset)
            count = 1
            for size in shape:
                count *= size
            block, size_bytes = BLOCKS.get(kind, (1, 1))
            data += bytes([fill]) * (count // block * size_bytes)
            data += b"\0" * (-len(data) % alignment)
            offset = len(data)
        head += b"\0" * (-len(head) % alignment if tensors else 0)
        return head + data


def gguf_bytes(**options: Any) -> bytes:
    """A small whole GGUF version 3 file."""
    return Writer().file(**options)
