# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GGUF headers: what whole files say, and what broken and hostile ones are told."""

from __future__ import annotations

import re
import struct
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.aikit.fleet.plugins.module_utils._core import gguf
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_ggml import FILE_TYPES, RETIRED_TENSOR_TYPES, TENSOR_TYPES
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import (
    ARRAY,
    BOOL,
    DEFAULT_METADATA,
    F64,
    FORMATS,
    I32,
    STRING,
    U16,
    U32,
    Value,
    Writer,
    gguf_bytes,
)


def check(data: bytes, size: Any = None, **options: Any) -> gguf.GgufHeader:
    return gguf.check(lambda offset, length: data[offset : offset + length], len(data) if size is None else size, "m.gguf", **options)


def refused(data: bytes, size: Any = None) -> str:
    with pytest.raises(AikitError) as caught:
        check(data, size)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_whole_file(version: int, big_endian: bool) -> None:
    data = Writer(version, big_endian).file()
    header = check(data)
    assert (header.version, header.big_endian) == (version, big_endian)
    assert (header.architecture, header.name, header.quantisation) == ("llama", "Tiny", "Q4_K_M")
    assert (header.block_count, header.context_length, header.embedding_length) == (2, 2048, 256)
    assert (header.head_count, header.head_count_kv) == (8, 4)
    assert header.has_chat_template is True
    assert header.tensor_count == len(header.tensors) == 4
    assert header.tensor_bytes == 4 * 144 + 2 * 24 * 34 + 5 * 4
    assert header.parameters == 256 * 4 + 2 * 256 * 3 + 5
    assert header.array_lengths["tokenizer.ggml.tokens"] == 4
    assert "tokenizer.ggml.scores" not in header.metadata
    assert header.header_bytes % 32 == 0
    assert header.header_bytes + header.tensors[-1].offset + 32 == len(data)


def test_a_small_window_reads_the_same_and_skips_what_it_can() -> None:
    data = gguf_bytes()
    asked: list[tuple[int, int]] = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return data[offset : offset + length]

    assert gguf.check(read_at, len(data), "m.gguf", window_bytes=64) == check(data)
    scores = data.index(b"tokenizer.ggml.scores")
    assert not any(scores + 200 < offset < scores + 7800 for offset, dummy in asked)


def test_padding_after_the_last_tensor_may_be_missing() -> None:
    data = gguf_bytes()
    header = check(data)
    end = header.header_bytes + header.tensors[-1].offset + 20
    assert check(data[:end]).tensor_count == 4
    assert "1 bytes are missing, in 1 of 4 tensors" in refused(data[: end - 1])


def test_heads_per_layer_and_the_default_of_kv_heads() -> None:
    metadata = {**DEFAULT_METADATA, "llama.attention.head_count_kv": Value(ARRAY, [4, 0], I32)}
    assert check(gguf_bytes(metadata=metadata)).head_count_kv == (4, 0)
    del metadata["llama.attention.head_count_kv"]
    assert check(gguf_bytes(metadata=metadata)).head_count_kv == 8


def test_metadata_of_the_wrong_type_counts_as_absent() -> None:
    metadata = {"general.architecture": Value(U32, 7), ".block_count": Value(STRING, "x"), "general.file_type": Value(BOOL, True)}
    header = check(gguf_bytes(metadata=metadata))
    assert (header.architecture, header.block_count, header.quantisation, header.name) == ("", 0, "", "")


def test_every_value_type_is_read() -> None:
    metadata = {f"k{kind}": Value(kind, 1) for kind in FORMATS}
    metadata.update({f"a{kind}": Value(ARRAY, [1, 0, 1], kind) for kind in FORMATS})
    header = check(gguf_bytes(metadata=metadata))
    assert all(header.metadata[f"k{kind}"] == 1 and header.metadata[f"a{kind}"] == (1, 0, 1) for kind in FORMATS)


def test_long_values_are_not_kept() -> None:
    metadata = {
        "tokenizer.chat_template": Value(STRING, "x" * 100_000),
        "big": Value(ARRAY, [0.5] * 5000, F64),
        "names": Value(ARRAY, ["abc"] * 100_000, STRING),
    }
    header = check(gguf_bytes(metadata=metadata))
    assert header.has_chat_template and not header.metadata
    assert header.array_lengths == {"big": 5000, "names": 100_000}


def test_another_alignment() -> None:
    metadata = {"general.alignment": Value(U32, 256)}
    header = check(gguf_bytes(metadata=metadata, alignment=256))
    assert header.alignment == 256 and header.header_bytes % 256 == 0
    for bad in (0, 3, 48):
        assert f"general.alignment is {bad}" in refused(gguf_bytes(metadata={"general.alignment": Value(U32, bad)}))


def test_every_cut_is_noticed_and_named() -> None:
    data = gguf_bytes()
    header = check(data)
    last_byte = header.header_bytes + header.tensors[-1].offset + 20
    for length in range(0, last_byte):
        text = refused(data[:length])
        if length < 4:
            assert "is no GGUF file" in text
        elif length < header.header_bytes - 32:
            assert "is cut off in its header" in text and f"the file ends at byte {length}" in text, text
        else:
            assert "is cut off in its" in text, text


def test_a_cut_in_the_data_says_how_much_is_missing() -> None:
    data = gguf_bytes()
    header = check(data)
    text = refused(data[: header.header_bytes + 600])
    end = header.header_bytes + header.tensors[-1].offset + 20
    assert f'tensor "output_norm.weight" reaches to byte {end}, the file ends at byte {header.header_bytes + 600}' in text
    assert f"{end - header.header_bytes - 600} bytes are missing, in 3 of 4 tensors" in text


def test_a_file_shorter_than_its_owner_says() -> None:
    data = gguf_bytes()
    assert "although the file should have" in refused(data[:100], len(data))


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["it is empty"]),
        (b"hello world", ['expected "GGUF"', 'found "hell"']),
        (b"<!DOCTYPE html><html>", ["a web page", "/resolve/"]),
        (b"\n\n  <HTML lang='en'>", ["a web page"]),
        (b'{"error": "no"}', ["JSON"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", ["a Git LFS pointer", "git lfs pull"]),
        (b"PK\x03\x04aaaa", ["zip"]),
        (b"\x1f\x8b\x08\x00", ["gzip compressed", "Unpack"]),
        (b"\x28\xb5\x2f\xfd", ["zstd compressed"]),
        (b"tjgg\x03\0\0\0", ["before GGUF"]),
        (b"FUGG\x03\0\0\0", ["swapped"]),
        (b"\0" * 600, ["zeros"]),
        (struct.pack("<Q", 100) + b'{"__metadata__"', ["safetensors", "convert_hf_to_gguf"]),
        (b"GGUF", ["cut off in its header", "the version"]),
        (b"GGUF" + struct.pack("<I", 4), ["byte 4", "version 4 is not known"]),
        (b"GGUF" + struct.pack(">I", 9), ["version 9 is not known"]),
        (b"GGUF" + b"\xff" * 4, ["byte 4", "version is 4294967295"]),
    ],
)
def test_what_is_no_gguf_file_is_named(data: bytes, parts: list[str]) -> None:
    text = refused(data)
    assert "m.gguf" in text
    for part in parts:
        assert part in text, text


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


HEAD = b"GGUF" + struct.pack("<I", 3)
KEY = u64(1) + b"k"


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (HEAD + u64(2**62, 0), "byte 8: the file claims 4611686018427387904 tensors"),
        (HEAD + u64(0, 2**62), "byte 16: the file claims 4611686018427387904 metadata keys"),
        (HEAD + u64(0, 1, 2**62), "the name of a metadata key is 4611686018427387904 bytes long"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<I", 13), "unknown value type 13"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<I", 8) + u64(2**40), "bytes long"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<I", 8) + u64(2**20), "cut off in its header"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<II", 9, 9) + u64(1), "holds arrays"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<II", 9, 77) + u64(1), "unknown item type 77"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<II", 9, 8) + u64(2**50), "claims 1125899906842624 strings"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<II", 9, 4) + u64(2**50), "claims 1125899906842624 items"),
        (HEAD + u64(0, 1) + KEY + struct.pack("<II", 9, 8) + u64(1, 2**50) + b"x" * 64, "a string in the array"),
        (HEAD + u64(0, 2) + (KEY + struct.pack("<II", 4, 1)) * 2, "is there twice"),
        (HEAD + u64(1, 0, 1) + b"t" + struct.pack("<I", 5) + bytes(100), "5 dimensions"),
        (HEAD + u64(1, 0, 1) + b"t" + struct.pack("<I", 1) + u64(2**63) + struct.pack("<IQ", 0, 0), "has the shape 9223372036854775808"),
        (HEAD + u64(1, 0, 1) + b"t" + struct.pack("<I", 1) + u64(33) + struct.pack("<IQ", 2, 0), "no multiple of 32, the block of Q4_0"),
        (HEAD + u64(1, 0, 1) + b"t" + struct.pack("<I", 1) + u64(32) + struct.pack("<IQ", 2, 7), "the offset 7"),
        (HEAD + u64(1, 0, 1) + b"t" + struct.pack("<I", 1) + u64(32) + struct.pack("<IQ", 4, 0), "Q4_2, which llama.cpp no longer reads"),
        (HEAD + u64(1, 0, 1) + b"t" + struct.pack("<I", 1) + u64(32) + struct.pack("<IQ", 99, 2**50), "cut off in its data"),
        (HEAD + u64(2, 0) + (u64(1) + b"t" + struct.pack("<I", 1) + u64(0) + struct.pack("<IQ", 0, 0)) * 2, "is there twice"),
    ],
)
def test_hostile_numbers_are_refused_with_their_offset(data: bytes, part: str) -> None:
    text = refused(data)
    assert part in text, text
    assert "byte " in text


def test_names_out_of_the_file_cannot_break_the_message() -> None:
    key = "\x1b[31m\n" + "z" * 500
    text = refused(HEAD + u64(0, 1) + u64(len(key)) + key.encode() + struct.pack("<I", 13))
    assert "\n" not in text and "\x1b" not in text and len(text) < 400


def test_an_unknown_tensor_type_passes_with_a_remark() -> None:
    header = check(gguf_bytes(tensors=[("t", (64,), 99)]))
    assert header.unknown_types == (99,) and header.tensor_bytes == 64
    assert [finding.level for finding in gguf.remarks(header, "m.gguf")] == ["warning"]
    assert "unknown type 99" in gguf.remarks(header, "m.gguf")[0].message


def test_an_unknown_type_takes_the_room_up_to_the_next_tensor() -> None:
    header = check(gguf_bytes(tensors=[("a", (64,), 99), ("blk.0.b", (5,), 0), ("blk.1.c", (40,), 98), ("output.weight", (8,), 0)]))
    assert [(tensor.size_bytes, tensor.bytes) for tensor in header.tensors] == [(None, 64), (20, 20), (None, 64), (32, 32)]
    assert [tensor.type_name for tensor in header.tensors] == ["type 99", "F32", "type 98", "F32"]
    assert header.bytes_by_place() == {("other", -1): 64, ("layer", 0): 20, ("layer", 1): 64, ("output", -1): 32}
    assert header.tensor_bytes == 180


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("token_embd.weight", ("input", -1)),
        ("token_embd_norm.bias", ("input", -1)),
        ("per_layer_token_embd.weight", ("input", -1)),
        ("blk.17.ffn_gate_exps.weight", ("layer", 17)),
        ("enc.blk.3.attn_q.weight", ("layer", 3)),
        ("dec.blk.3.attn_q.weight", ("layer", 3)),
        ("output.weight", ("output", -1)),
        ("dec.output_norm.weight", ("output", -1)),
        ("cls.output.weight", ("output", -1)),
        ("rope_freqs.weight", ("other", -1)),
        ("v.blk.0.ln1.weight", ("other", -1)),
        ("blk.99999.x", ("other", -1)),
    ],
)
def test_where_a_tensor_belongs(name: str, place: tuple[str, int]) -> None:
    assert check(gguf_bytes(tensors=[(name, (4,), 0)])).tensors[0].place == place


def test_the_vocabulary_and_the_tied_output() -> None:
    header = check(gguf_bytes())
    assert header.vocabulary_size == 4 and header.tied_output
    bare = {"general.architecture": Value(STRING, "bert"), "bert.vocab_size": Value(U32, 30522)}
    header = check(gguf_bytes(metadata=bare, tensors=[("token_embd.weight", (4,), 0), ("output.weight", (4,), 0)]))
    assert header.vocabulary_size == 30522 and not header.tied_output


def part(number: int, count: int, total: int, names: list[str], **options: Any) -> gguf.GgufHeader:
    metadata = {"split.no": Value(U16, number), "split.count": Value(U16, count), "split.tensors.count": Value(I32, total)}
    if not number:
        metadata = {**DEFAULT_METADATA, **metadata}
    return check(Writer(**options).file(metadata=metadata, tensors=[(name, (8,), 0) for name in names]))


def test_the_parts_of_a_split_model_make_one() -> None:
    parts = [part(0, 3, 4, ["token_embd.weight", "blk.0.a"]), part(1, 3, 4, ["blk.1.a"]), part(2, 3, 4, ["output.weight"])]
    whole = gguf.combine(parts, "m.gguf")
    assert (whole.architecture, whole.shards, whole.tensor_count, whole.tensor_bytes) == ("llama", 3, 4, 4 * 32)
    assert whole.header_bytes == sum(entry.header_bytes for entry in parts)
    assert whole.bytes_by_place() == {("input", -1): 32, ("layer", 0): 32, ("layer", 1): 32, ("output", -1): 32}
    single = check(gguf_bytes())
    assert gguf.combine([single], "m.gguf") is single


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([part(0, 2, 2, ["a"])], "is one part of 2, and 1 are here"),
        ([part(0, 2, 2, ["a"]), part(0, 2, 2, ["b"])], "part 2 of 2 says of itself: split.no 0, split.count 2; expected 1 and 2"),
        ([part(0, 2, 2, ["a"]), part(1, 3, 2, ["b"])], "split.no 1, split.count 3"),
        ([part(0, 2, 2, ["a"]), check(gguf_bytes())], "split.no nothing, split.count nothing"),
        ([part(0, 2, 2, ["a"]), part(1, 2, 2, ["b"], version=2)], "part 2 of 2 has another GGUF version or byte order"),
        ([part(0, 2, 2, ["a"]), part(1, 2, 2, ["b"], big_endian=True)], "part 2 of 2 has another GGUF version or byte order"),
        ([part(0, 2, 2, ["a"]), part(1, 2, 2, ["a"])], "have tensors of the same name"),
        ([part(0, 2, 5, ["a"]), part(1, 2, 5, ["b"])], "have 2 tensors, split.tensors.count says 5"),
    ],
)
def test_parts_that_do_not_fit_together(parts: list[gguf.GgufHeader], message: str) -> None:
    with pytest.raises(AikitError, match=re.escape(message)) as caught:
        gguf.combine(parts, "m.gguf")
    assert caught.value.hint


def test_remarks() -> None:
    assert gguf.remarks(check(gguf_bytes()), "m.gguf") == ()
    old = gguf.remarks(check(Writer(1, True).file()), "m.gguf")
    assert [finding.message.split()[2] for finding in old] == ["GGUF", "big-endian,"]
    part = gguf.remarks(check(gguf_bytes(metadata={"split.count": Value(U32, 3)})), "m.gguf")
    assert "one part of 3" in part[0].message
    assert "no tensors" in gguf.remarks(check(gguf_bytes(tensors=[])), "m.gguf")[0].message


def test_a_hostile_string_array_ends_soon() -> None:
    """The limit on strings is for all arrays together: what the first one uses up, the second cannot have."""
    count = gguf.MAX_ARRAY_STRINGS
    first = HEAD + u64(0, 2) + KEY + struct.pack("<II", 9, 8) + u64(count)
    second = u64(1) + b"l" + struct.pack("<II", 9, 8) + u64(1)
    middle = len(first) + 8 * count

    def read_at(offset: int, length: int) -> bytes:
        if offset >= middle:
            return second[offset - middle : offset - middle + length]
        return (first[offset : offset + length] + bytes(length))[: min(length, middle - offset)]

    started = time.monotonic()
    with pytest.raises(AikitError, match='the array "l" claims 1 strings'):
        gguf.check(read_at, middle + 10**12, "m.gguf", window_bytes=65536)
    assert time.monotonic() - started < 60


def test_the_tables_agree_with_each_other() -> None:
    assert not set(TENSOR_TYPES) & set(RETIRED_TENSOR_TYPES)
    names = {name for name, dummy, dummy2 in TENSOR_TYPES.values()}
    for name in FILE_TYPES.values():
        assert name in names or name.rsplit("_", 1)[0] in names or name in ("IQ3_XS", "IQ3_M", "IQ2_M"), name


WHOLE = gguf_bytes(metadata={key: value for key, value in DEFAULT_METADATA.items() if key != "tokenizer.ggml.scores"})


def no_other_error(data: bytes, size: int) -> None:
    try:
        check(data, size, window_bytes=256)
    except AikitError as exc:
        assert len(str(exc)) < 1000


@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=400), st.sampled_from([b"", b"GGUF", HEAD, HEAD + u64(1, 1), HEAD + u64(0, 3), HEAD + u64(3, 0)]), st.integers(0, 2**40))
def test_arbitrary_bytes_raise_nothing_else(data: bytes, start: bytes, extra: int) -> None:
    no_other_error(start + data, len(start + data))
    no_other_error(start + data, len(start + data) + extra)


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, len(WHOLE)))
def test_mutated_files_raise_nothing_else(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE)
    for position, value in changes:
        data[position % len(data)] = value
    no_other_error(bytes(data), len(data))
    no_other_error(bytes(data[:cut]), cut)
