# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What llama.cpp's own Python package ``gguf`` writes and reads, and what this collection reads in the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_ggml
from ansible_collections.aikit.fleet.plugins.module_utils._core import gguf as ours
from ansible_collections.aikit.fleet.plugins.module_utils._io import gguf_info
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import Writer

import gguf as peer

# A type for sums on the way, never for a file. Its block has had two halves in place of two floats since 2024 (ggml-common.h); the peer's table has not
OUTDATED = "Q8_1"
ARCHITECTURES = sorted(peer.MODEL_ARCH_NAMES.values())


def compare(path: Path, tmp_path: Path) -> ours.GgufHeader:
    """Every key and every tensor that the peer reads in a file is read here too, with the same value."""
    header = gguf_info.read_info(str(path), cache=str(tmp_path / "cache")).header
    reader = peer.GGUFReader(path)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    for name, field in fields.items():
        if field.types[0] == peer.GGUFValueType.ARRAY:
            assert header.array_lengths[name] == len(field.data), name
            if field.types[1] != peer.GGUFValueType.STRING and len(field.data) <= ours.KEEP_ARRAY_ITEMS:
                assert list(header.metadata[name]) == [field.parts[index][0] for index in field.data], name
        elif field.types[0] == peer.GGUFValueType.STRING:
            text = bytes(field.parts[-1]).decode()
            assert header.metadata.get(name, text) == text and (name in header.metadata) is (len(text.encode()) <= ours.KEEP_STRING_BYTES)
        else:
            assert header.metadata[name] == field.parts[-1][0], name
    assert set(header.metadata) | set(header.array_lengths) <= set(fields)
    assert header.big_endian is (reader.endianess == peer.GGUFEndian.BIG) and header.alignment == reader.alignment
    theirs = [(tensor.name, [int(length) for length in tensor.shape], int(tensor.tensor_type), int(tensor.n_bytes)) for tensor in reader.tensors]
    assert [(tensor.name, list(tensor.shape), tensor.type_id, tensor.bytes) for tensor in header.tensors] == theirs
    assert [header.header_bytes + tensor.offset for tensor in header.tensors] == [int(tensor.data_offset) for tensor in reader.tensors]
    assert header.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)
    return header


def write(path: Path, architecture: str, endianess: Any = peer.GGUFEndian.LITTLE, types: Any = (), tokens: int = 40, **options: Any) -> None:
    writer = peer.GGUFWriter(path, architecture, endianess=endianess, **options)
    writer.add_name(f"Tiny {architecture}")
    writer.add_block_count(3)
    writer.add_context_length(8192)
    writer.add_embedding_length(512)
    writer.add_feed_forward_length([1024, 2048, 1024])
    writer.add_head_count(8)
    writer.add_head_count_kv([8, 0, 2])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_sliding_window(1024)
    writer.add_array(f"{architecture}.attention.sliding_window_pattern", [True, False, True])
    writer.add_file_type(peer.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {number} ü" for number in range(tokens)])
    writer.add_token_scores([float(number) for number in range(tokens)])
    writer.add_token_types([1] * tokens)
    writer.add_token_merges([f"{number} {number}" for number in range(tokens)])
    writer.add_chat_template("{{ messages }}" * 400)
    small = (("uint8", 200), ("int8", -3), ("uint16", 60000), ("int16", -300))
    for kind, value in (*small, ("int32", -70000), ("uint64", 2**60), ("int64", -(2**60)), ("float64", 0.1)):
        getattr(writer, f"add_{kind}")(f"{architecture}.extra.{kind}", value)
    for index, kind in enumerate(types or (peer.GGMLQuantizationType.F32, peer.GGMLQuantizationType.Q8_0, peer.GGMLQuantizationType.Q4_K)):
        block, size = peer.GGML_QUANT_SIZES[kind]
        row = max(256, block)
        # The shape is that of the bytes; the package turns it into elements
        data = np.zeros((4, row // block * size), dtype=np.uint8)
        writer.add_tensor(f"blk.{index}.attn_q.weight", data, raw_dtype=kind)
    writer.add_tensor("token_embd.weight", np.zeros((10, 512), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(512, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_that_the_peer_knows(tmp_path: Path, architecture: str) -> None:
    write(tmp_path / "m.gguf", architecture, (peer.GGUFEndian.LITTLE, peer.GGUFEndian.BIG)[len(architecture) % 2])
    header = compare(tmp_path / "m.gguf", tmp_path)
    assert (header.architecture, header.block_count, header.context_length, header.embedding_length) == (architecture, 3, 8192, 512)
    assert (header.head_count, header.head_count_kv, header.vocabulary_size) == (8, (8, 0, 2), 40)
    assert header.metadata[f"{architecture}.attention.sliding_window_pattern"] == (True, False, True)
    assert header.metadata[f"{architecture}.feed_forward_length"] == (1024, 2048, 1024)
    assert header.quantisation == "Q4_K_M" and header.has_chat_template


@pytest.mark.parametrize("endianess", list(peer.GGUFEndian))
def test_every_type_of_tensor_that_the_peer_knows(tmp_path: Path, endianess: Any) -> None:
    types = [kind for kind in peer.GGMLQuantizationType if kind not in data_ggml.RETIRED_TENSOR_TYPES and kind.name != OUTDATED]
    write(tmp_path / "m.gguf", "llama", endianess, types, tokens=3000)
    header = compare(tmp_path / "m.gguf", tmp_path)
    assert header.unknown_types == () and {tensor.type_name for tensor in header.tensors} >= {kind.name for kind in types}


def test_the_tables_are_those_of_the_peer() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in peer.GGML_QUANT_SIZES.items() if kind.name != OUTDATED}
    assert {kind: entry for kind, entry in data_ggml.TENSOR_TYPES.items() if kind in theirs} == theirs
    names = {int(kind): kind.name.replace("MOSTLY_", "").replace("ALL_", "") for kind in peer.LlamaFileType}
    for number, name in data_ggml.FILE_TYPES.items():
        if number in names:
            assert names[number] == name


def test_a_split_model_of_the_peer(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    parts = sorted(path.name for path in tmp_path.glob("*.gguf"))
    assert parts == ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    info = gguf_info.read_info(str(tmp_path / parts[0]), cache=str(tmp_path / "cache"))
    theirs = [(tensor.name, int(tensor.n_bytes)) for name in parts for tensor in peer.GGUFReader(tmp_path / name).tensors]
    assert [(tensor.name, tensor.bytes) for tensor in info.header.tensors] == theirs and info.header.shards == 3


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_the_peer_reads_what_the_tests_write(tmp_path: Path, version: int, big_endian: bool) -> None:
    (tmp_path / "m.gguf").write_bytes(Writer(version, big_endian).file())
    compare(tmp_path / "m.gguf", tmp_path)
