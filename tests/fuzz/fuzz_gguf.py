# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Feed the reader of GGUF headers with files that were damaged with care, a million of them by default.

For each one it must return a header or raise AikitError with a short message, in bounded time and memory; what it returns must
be consistent, survive the way into the cache and back, and be the same however little is read at once. Every input is made from
its number and the seed alone, so one that failed is made again with ``--only NUMBER``.

    python tests/fuzz/fuzz_gguf.py --inputs 1000000 --seed 1 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import struct
import sys
import time
import traceback
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / ".venv/collections"))

from ansible_collections.aikit.fleet.plugins.module_utils._core import gguf  # noqa: E402
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_ggml import TENSOR_TYPES  # noqa: E402
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError  # noqa: E402
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import (  # noqa: E402
    ARRAY,
    BOOL,
    DEFAULT_METADATA,
    F32,
    FORMATS,
    I32,
    STRING,
    U16,
    U32,
    Value,
    Writer,
)

# An address space that a process needs anyway is about 200 MB; a header must not take more than this on top of it
MEMORY_BYTES = 1024**3
# What one input may take of Python's memory
PEAK_BYTES = 48 * 1024**2
SECONDS_PER_INPUT = 5.0
MESSAGE_CHARACTERS = 1200
BATCH = 2000
# Every input runs under the limit of the process; of one in so many it is measured what it takes, and all that is said of a header is compared
MEASURED = 50
INTERESTING = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    13,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    1023,
    1024,
    1025,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def corpus() -> list[bytes]:
    """Whole files of every version, byte order, value type and tensor type, and with the keys that converters write."""
    kinds: dict[str, Value] = {"general.architecture": Value(STRING, "llama")}
    for kind in FORMATS:
        kinds[f"scalar.{kind}"] = Value(kind, 1)
        kinds[f"array.{kind}"] = Value(ARRAY, [1, 0, 1], kind)
    kinds["array.text"] = Value(ARRAY, ["a", "", "bcd" * 20], STRING)
    plain = {key: value for key, value in DEFAULT_METADATA.items() if not key.endswith("scores")}
    layers = {
        "general.architecture": Value(STRING, "gemma3n"),
        "gemma3n.block_count": Value(U32, 4),
        "gemma3n.attention.head_count_kv": Value(ARRAY, [4, 0, 4, 0], U32),
        "gemma3n.attention.sliding_window_pattern": Value(ARRAY, [True, False, True, True], 7),
        "general.alignment": Value(U32, 64),
        "tokenizer.ggml.tokens": Value(ARRAY, [f"t{number}" for number in range(40)], STRING),
    }
    converted = {
        "general.architecture": Value(STRING, "gemma3"),
        "general.type": Value(STRING, "model"),
        "general.name": Value(STRING, "Gemma 3 270m"),
        "general.size_label": Value(STRING, "270M"),
        "general.tags": Value(ARRAY, ["gemma3", "gemma", "google", "text-generation"], STRING),
        **{
            f"gemma3.{key}": Value(U32, value)
            for key, value in {"context_length": 32768, "embedding_length": 640, "block_count": 18, "feed_forward_length": 2048}.items()
        },
        **{
            f"gemma3.attention.{key}": Value(U32, value) for key, value in {"head_count": 4, "key_length": 256, "value_length": 256, "head_count_kv": 1}.items()
        },
        "gemma3.attention.layer_norm_rms_epsilon": Value(F32, 1e-6),
        "gemma3.attention.sliding_window": Value(U32, 512),
        "gemma3.rope.freq_base": Value(F32, 1e6),
        "tokenizer.ggml.model": Value(STRING, "llama"),
        "tokenizer.ggml.pre": Value(STRING, "default"),
        "tokenizer.ggml.tokens": Value(ARRAY, ["<pad>", "<eos>", "<bos>", "<unk>", "▁the", "\U0001f600"], STRING),
        "tokenizer.ggml.scores": Value(ARRAY, [-1000.0] * 6, F32),
        "tokenizer.ggml.token_type": Value(ARRAY, [3, 3, 3, 3, 1, 1], I32),
        **{f"tokenizer.ggml.{key}_token_id": Value(U32, value) for key, value in {"bos": 2, "eos": 1, "unknown": 3, "padding": 0}.items()},
        **{f"tokenizer.ggml.add_{key}": Value(BOOL, key == "bos_token") for key in ("bos_token", "sep_token", "eos_token", "space_prefix")},
        "general.quantization_version": Value(U32, 2),
        "general.file_type": Value(U32, 15),
    }
    block = [("attn_k", 6), ("attn_k_norm", 0), ("attn_norm", 0), ("attn_output", 12), ("attn_q", 6), ("attn_q_norm", 0), ("ffn_down", 14), ("ffn_gate", 6)]
    weights = [("output_norm.weight", (640,), 0), ("token_embd.weight", (640, 6), 8)]
    weights += [(f"blk.{index}.{name}.weight", (256, 2) if kind else (256,), kind) for index in range(2) for name, kind in block]
    split = {**plain, "split.no": Value(U16, 0), "split.count": Value(U16, 2), "split.tensors.count": Value(5, 4)}
    types = [(f"blk.{index}.t", (256, 2), kind) for index, kind in enumerate(TENSOR_TYPES)]
    types += [("token_embd.weight", (256,), 99), ("v.blk.0.x", (256, 1, 1, 1), 0)]
    found = [Writer(version, big).file(metadata=plain) for version in (1, 2, 3) for big in (False, True)]
    found += [Writer().file(metadata=kinds, tensors=types), Writer(3, True).file(metadata=kinds, tensors=types)]
    found += [Writer().file(metadata=converted, tensors=weights), Writer(2, True).file(metadata=converted, tensors=weights)]
    found += [Writer().file(metadata=layers, alignment=64), Writer().file(metadata=split), Writer().file(metadata={}, tensors=[])]
    return found


@dataclass
class Outcome:
    """What a number of inputs came to."""

    inputs: int = 0
    accepted: int = 0
    slowest_seconds: float = 0.0
    slowest_input: int = -1
    peak_bytes: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        self.inputs += other.inputs
        self.accepted += other.accepted
        if other.slowest_seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest_input = other.slowest_seconds, other.slowest_input
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.failures += other.failures


CORPUS = corpus()


def damaged(seed: int, number: int) -> tuple[bytes, int]:
    """An input, and how long its owner says that it is."""
    dice = random.Random(f"{seed}:{number}")
    data = bytearray(dice.choice(CORPUS))
    for dummy in range(dice.choice((1, 1, 1, 2, 3, 5, 8))):
        dice.choice(MUTATIONS)(dice, data)
    size = len(data)
    if dice.random() < 0.15:
        # A file that is said to be longer or shorter than it is
        size = max(0, dice.choice((size - dice.randrange(64), size + dice.randrange(4096), 2 ** dice.randrange(48))))
    return bytes(data), size


def _flip(dice: random.Random, data: bytearray) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _byte(dice: random.Random, data: bytearray) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.randrange(256)


def _number(dice: random.Random, data: bytearray) -> None:
    """An interesting number where one may stand."""
    kind, width = dice.choice((("<Q", 8), ("<I", 4), (">Q", 8), (">I", 4), ("<H", 2)))
    if len(data) > width:
        at = dice.randrange(len(data) - width)
        if dice.random() < 0.5:
            at = min(dice.choice((4, 8, 12, 16, 20, 24)), len(data) - width)
        data[at : at + width] = struct.pack(kind, (dice.choice(INTERESTING) + dice.choice((0, 0, 0, 1, -1))) % 256**width)


def _cut(dice: random.Random, data: bytearray) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _insert(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.randbytes(dice.randrange(1, 40))


def _remove(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    del data[at : at + dice.randrange(1, 40)]


def _copy(dice: random.Random, data: bytearray) -> None:
    """A piece twice: keys and tensors of the same name."""
    if data:
        at, length = dice.randrange(len(data)), dice.randrange(1, 200)
        to = dice.randrange(len(data))
        data[to:to] = data[at : at + length]


def _noise(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:] = dice.randbytes(dice.randrange(300))


def _swap(dice: random.Random, data: bytearray) -> None:
    """Half of another file."""
    other = dice.choice(CORPUS)
    at = dice.randrange(len(data) + 1)
    data[at:] = other[dice.randrange(len(other)) :]


def _text(dice: random.Random, data: bytearray) -> None:
    """Bytes that are no UTF-8, or a terminal's commands, in a name."""
    at = dice.randrange(len(data) + 1)
    data[at : at + 6] = dice.choice((b"\xff\xfe\xed\xa0\x80\x00", b"\x1b[2J\r\n", b"\xf0\x9f\x98\x80ab", b"\x00" * 6))


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip,
    _byte,
    _number,
    _number,
    _number,
    _cut,
    _insert,
    _remove,
    _copy,
    _noise,
    _swap,
    _text,
)


def judge(data: bytes, size: int, thorough: bool = True) -> Optional[gguf.GgufHeader]:
    """The header, or None where the file was refused as it should be; raises for everything else."""
    asked = [0]

    def read_at(offset: int, length: int) -> bytes:
        asked[0] += length
        assert 0 <= offset and 0 <= length <= max(gguf.WINDOW_BYTES, gguf.KEEP_STRING_BYTES, 8 * gguf.KEEP_ARRAY_ITEMS), (offset, length)
        return data[offset : offset + length]

    outcomes: list[Any] = []
    for window, lean in ((gguf.WINDOW_BYTES, False), (64, False), (4096, True))[: 3 if thorough else 1]:
        try:
            outcomes.append(gguf.check(read_at, size, "fuzz.gguf", window, lean))
        except AikitError as exc:
            text = str(exc)
            assert len(text) < MESSAGE_CHARACTERS, f"a message of {len(text)} characters"
            assert text.isprintable(), f"a message that does not print: {text!r}"
            assert exc.hint, f"no hint: {text}"
            outcomes.append(None)
    first = outcomes[0]
    if size == len(data):
        assert all((other is None) == (first is None) for other in outcomes), "accepted with one window and refused with another"
        assert all(json.dumps(gguf.details(other)) == json.dumps(gguf.details(first)) for other in outcomes[1:] if other is not None)
    if first is None:
        return None
    header: gguf.GgufHeader = first
    if not thorough:
        gguf.summary(header)
        return header
    summary = gguf.summary(header)
    json.dumps(summary, allow_nan=False)
    json.dumps(gguf.details(header), allow_nan=False)
    parts = sum(entry["bytes"] for entry in summary["layers"]) + summary["input_bytes"] + summary["output_bytes"] + summary["other_bytes"]
    assert parts == header.tensor_bytes, "the parts do not make the whole"
    assert header.header_bytes <= size + header.alignment or not header.tensors
    for finding in gguf.remarks(header, "fuzz.gguf"):
        assert finding.message.isprintable()
    again = gguf.from_document(json.loads(json.dumps(gguf.as_document(header))))
    assert again is not None and json.dumps(gguf.summary(again)) == json.dumps(summary), "another header comes out of the cache"
    try:
        gguf.combine([header, header], "fuzz.gguf")
    except AikitError as exc:
        assert str(exc).isprintable()
    return header


def batch(job: tuple[int, int, int]) -> Outcome:
    """Inputs from one number up to another."""
    seed, first, last = job
    found = Outcome()
    for number in range(first, last):
        data, size = damaged(seed, number)
        measured = number % MEASURED == 0
        peak = 0
        if measured:
            tracemalloc.start()
        started = time.process_time()
        try:
            found.accepted += judge(data, size, measured) is not None
        except Exception:
            found.failures.append((number, traceback.format_exc(limit=-3)))
        seconds = time.process_time() - started
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        found.inputs += 1
        found.peak_bytes = max(found.peak_bytes, peak)
        if seconds > found.slowest_seconds:
            found.slowest_seconds, found.slowest_input = seconds, number
        if peak > PEAK_BYTES:
            found.failures.append((number, f"took {peak} bytes of memory"))
        if seconds > SECONDS_PER_INPUT:
            found.failures.append((number, f"took {seconds:.1f} s"))
    return found


def limit_memory() -> None:
    """What asks for more memory than a header can need fails here, and not on a user's machine."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def fuzz(inputs: int, seed: int, jobs: int, start: int = 0) -> Outcome:
    found = Outcome()
    work = [(seed, first, min(first + BATCH, start + inputs)) for first in range(start, start + inputs, BATCH)]
    for part in _mapped(work, jobs):
        found.add(part)
        if sys.stderr.isatty():
            print(f"\r{found.inputs} inputs, {len(found.failures)} failures", end="", file=sys.stderr)
    return found


def _mapped(work: list[tuple[int, int, int]], jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(batch, work)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=limit_memory) as pool:
        yield from pool.imap_unordered(batch, work)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", type=int, help="make this input again, and show what happens")
    given = parser.parse_args()
    if given.only is not None:
        data, size = damaged(given.seed, given.only)
        print(f"input {given.only}: {len(data)} bytes, said to be {size}\n{data.hex()}")
        print(judge(data, size))
        return 0
    started = time.monotonic()
    found = fuzz(given.inputs, given.seed, max(2, given.jobs))
    seconds = time.monotonic() - started
    print(
        f"{found.inputs} inputs with seed {given.seed} in {seconds:.0f} s: {found.accepted} accepted, {found.inputs - found.accepted} refused,"
        f" {len(found.failures)} failures; slowest {found.slowest_seconds * 1000:.0f} ms (input {found.slowest_input}),"
        f" at most {found.peak_bytes / 2**20:.1f} MiB for one."
    )
    for number, text in found.failures[:20]:
        print(f"--- input {number} (--seed {given.seed} --only {number})\n{text}")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
