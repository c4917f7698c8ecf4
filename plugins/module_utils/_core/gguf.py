# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the header of a GGUF model file, and tell whether the file is whole.

Layout: magic, version, number of tensors, number of metadata keys; the keys with their values; name, shape, type and
offset of each tensor; padding; the tensors' data. A file may come from anywhere, so nothing in it is believed:
every length is compared with what is left of the file before it is used, and time and memory have fixed bounds.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Optional, Sequence, Union

from .data_ggml import FILE_TYPES, RETIRED_TENSOR_TYPES, TENSOR_TYPES
from .errors import AikitError, Finding

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
# llama.cpp's own limits (GGML_MAX_DIMS; the longest string that its reader takes)
MAX_DIMENSIONS = 4
MAX_STRING_BYTES = 2**30
# Ours. Large models have about 60 keys, 2000 tensors, 600,000 strings in all arrays, and names under 64 bytes.
MAX_KEYS = 65536
MAX_TENSORS = 65536
MAX_ARRAY_STRINGS = 4 * 1024 * 1024
MAX_ARRAY_ITEMS = 2**32
MAX_NAME_BYTES = 1024
# What is kept of the metadata: per-layer arrays fit, vocabularies and chat templates do not.
KEEP_STRING_BYTES = 4096
KEEP_ARRAY_ITEMS = 1024
KEEP_BYTES = 4 * 1024 * 1024
WINDOW_BYTES = 1024 * 1024
# The least that is read at once where reading costs (over a network)
LEAN_BYTES = 64 * 1024

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

DOWNLOAD_AGAIN = "Download it again, and give its sha256 so that a bad download is noticed at once."

ReadAt = Callable[[int, int], bytes]

# Where a tensor belongs
INPUT, LAYER, OUTPUT, OTHER = "input", "layer", "output", "other"
# T5 and kin have an encoder and a decoder with layers of the same numbers.
LAYER_NAME = re.compile(r"(?:enc\.|dec\.)?blk\.([0-9]{1,4})\.")
INPUT_NAMES = ("token_embd", "token_embd_norm", "token_types", "position_embd", "per_layer_token_embd")
OUTPUT_NAMES = ("output", "output_norm", "output_extra", "output_norm_enc", "cls", "cls_out")


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``offset`` counts from the start of the data; ``size_bytes`` is None for a type that is not known.

    ``room_bytes`` is what an unknown one can take at most, the distance to the next one.
    """

    name: str
    type_id: int
    shape: tuple[int, ...]
    offset: int
    size_bytes: Optional[int]
    room_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Its size, exact where the type is known."""
        return self.room_bytes if self.size_bytes is None else self.size_bytes

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.type_id][0] if self.type_id in TENSOR_TYPES else f"type {self.type_id}"

    @property
    def place(self) -> tuple[str, int]:
        """INPUT, LAYER, OUTPUT or OTHER, and the number of the layer (-1 for what is in none)."""
        layer = LAYER_NAME.match(self.name)
        if layer:
            return LAYER, int(layer.group(1))
        part = self.name[4:] if self.name.startswith(("enc.", "dec.")) else self.name
        base = part.partition(".")[0]
        return (INPUT if base in INPUT_NAMES else OUTPUT if base in OUTPUT_NAMES else OTHER), -1

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class GgufHeader:
    """What the header says. Numbers and texts that the file does not give are 0 and empty.

    ``metadata`` has every key whose value is small: numbers, texts up to 4 KiB, arrays of up to 1024 numbers (as tuples).
    ``array_lengths`` has the length of every array, also of those that are not kept.
    """

    version: int
    big_endian: bool
    tensor_count: int
    tensor_bytes: int
    header_bytes: int
    alignment: int
    tensors: tuple[Tensor, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    array_lengths: Mapping[str, int] = field(default_factory=dict)
    has_chat_template: bool = False
    unknown_types: tuple[int, ...] = ()

    @property
    def architecture(self) -> str:
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        return self._text("general.name")

    @property
    def quantisation(self) -> str:
        """The name of general.file_type, such as Q4_K_M."""
        return FILE_TYPES.get(self._number("general.file_type", -1), "")

    @property
    def block_count(self) -> int:
        return self._number(f"{self.architecture}.block_count")

    @property
    def context_length(self) -> int:
        return self._number(f"{self.architecture}.context_length")

    @property
    def embedding_length(self) -> int:
        return self._number(f"{self.architecture}.embedding_length")

    @property
    def head_count(self) -> Union[int, tuple[int, ...]]:
        """One number, or one per layer."""
        return self._per_layer(f"{self.architecture}.attention.head_count")

    @property
    def head_count_kv(self) -> Union[int, tuple[int, ...]]:
        """One number, or one per layer; the head count where the file says nothing."""
        return self._per_layer(f"{self.architecture}.attention.head_count_kv") or self.head_count

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are; models without a tokenizer may say it themselves."""
        return self.array_lengths.get("tokenizer.ggml.tokens") or self._number(f"{self.architecture}.vocab_size")

    @property
    def tied_output(self) -> bool:
        """Whether the token embeddings serve as the output layer too, because there is none."""
        names = {tensor.name for tensor in self.tensors}
        return "token_embd.weight" in names and not names & {"output.weight", "cls.weight", "cls.output.weight"}

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    def bytes_by_place(self) -> dict[tuple[str, int], int]:
        """The bytes of all tensors by :attr:`Tensor.place`; their sum is ``tensor_bytes``."""
        sizes: dict[tuple[str, int], int] = {}
        for tensor in self.tensors:
            sizes[tensor.place] = sizes.get(tensor.place, 0) + tensor.bytes
        return sizes

    @property
    def shards(self) -> int:
        return max(1, self._number("split.count"))

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def _number(self, key: str, default: int = 0) -> int:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def _per_layer(self, key: str) -> Union[int, tuple[int, ...]]:
        value = self.metadata.get(key)
        return value if isinstance(value, tuple) else self._number(key)


def check(read_at: ReadAt, size_bytes: int, name: str, window_bytes: int = WINDOW_BYTES, lean: bool = False) -> GgufHeader:
    """Parse the header and compare it with the size of the file.

    :param read_at: returns ``length`` bytes from ``offset``; only what the header needs is asked for, in order.
    :param size_bytes: the size of the whole file.
    :param name: how errors call the file.
    :param lean: ask for no more than is likely needed, because every byte costs. Arrays of numbers are stepped over.
    :raises AikitError: not a GGUF file, cut off, or corrupt; with the byte offset.
    """
    reader = _Reader(read_at, size_bytes, name, window_bytes, lean)
    _check_magic(reader)
    version, big_endian = _read_version(reader)
    tensor_count = reader.count("the number of tensors")
    if tensor_count > MAX_TENSORS:
        raise reader.corrupt(f"the file claims {tensor_count} tensors", 8)
    key_count = reader.count("the number of metadata keys")
    if key_count > MAX_KEYS:
        raise reader.corrupt(f"the file claims {key_count} metadata keys", reader.position - reader.length_bytes)

    metadata = _Metadata(reader)
    for dummy in range(key_count):
        metadata.read_pair()
    alignment = metadata.values.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or isinstance(alignment, bool) or alignment <= 0 or alignment & (alignment - 1):
        raise reader.corrupt(f"general.alignment is {alignment!r}, which is no power of two")

    tensors = _read_tensors(reader, tensor_count, alignment)
    header_bytes = _padded(reader.position, alignment) if tensors else reader.position
    _check_data(reader, tensors, header_bytes)
    tensors = _with_room(tensors, size_bytes - header_bytes)
    return GgufHeader(
        version=version,
        big_endian=big_endian,
        tensor_count=tensor_count,
        tensor_bytes=sum(tensor.bytes for tensor in tensors),
        header_bytes=header_bytes,
        alignment=alignment,
        tensors=tensors,
        metadata=metadata.values,
        array_lengths=metadata.array_lengths,
        has_chat_template=metadata.has_chat_template,
        unknown_types=_unknown_types(tensors),
    )


def combine(headers: Sequence[GgufHeader], name: str) -> GgufHeader:
    """One header for a model that is split into parts: the metadata of the first, the tensors of all.

    :param headers: of all parts, in order.
    :raises AikitError: they are not the parts of one model.
    """
    first = headers[0]
    if len(headers) == 1 and first.shards == 1:
        return first
    if len(headers) != first.shards:
        raise AikitError(f"{name} is one part of {first.shards}, and {len(headers)} are here.", PARTS_HINT)
    for number, header in enumerate(headers):
        found = (header.metadata.get("split.no"), header.metadata.get("split.count"))
        if found != (number, len(headers)):
            raise AikitError(
                f"{name}: part {number + 1} of {len(headers)} says of itself: split.no {_spoken(found[0])}, split.count {_spoken(found[1])};"
                f" expected {number} and {len(headers)}.",
                PARTS_HINT,
            )
        if (header.version, header.big_endian) != (first.version, first.big_endian):
            raise AikitError(f"{name}: part {number + 1} of {len(headers)} has another GGUF version or byte order than part 1.", PARTS_HINT)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise AikitError(f"{name}: its {len(headers)} parts have tensors of the same name.", PARTS_HINT)
    claimed = first.metadata.get("split.tensors.count")
    if claimed is not None and claimed != len(tensors):
        raise AikitError(f"{name}: its {len(headers)} parts have {len(tensors)} tensors, split.tensors.count says {_spoken(claimed)}.", PARTS_HINT)
    return replace(
        first,
        tensor_count=len(tensors),
        tensor_bytes=sum(header.tensor_bytes for header in headers),
        header_bytes=sum(header.header_bytes for header in headers),
        tensors=tensors,
        unknown_types=_unknown_types(tensors),
    )


PARTS_HINT = "All parts of one split model are needed, side by side and under their own names; download them again from one place."


def _spoken(value: Any) -> str:
    return "nothing" if value is None else _shown(value) if isinstance(value, str) else str(value)[:40]


# Changes with what is kept of a header, so that older documents are not taken for newer ones
DOCUMENT_SCHEMA = 1
_NUMBERS = ("version", "tensor_count", "tensor_bytes", "header_bytes", "alignment")


def as_document(header: GgufHeader) -> dict[str, Any]:
    """All of a header as JSON types; :func:`from_document` reads it."""
    return {
        "schema": DOCUMENT_SCHEMA,
        **{name: getattr(header, name) for name in _NUMBERS},
        "big_endian": header.big_endian,
        "has_chat_template": header.has_chat_template,
        "tensors": [[tensor.name, tensor.type_id, list(tensor.shape), tensor.offset, tensor.size_bytes, tensor.room_bytes] for tensor in header.tensors],
        "metadata": {key: list(value) if isinstance(value, tuple) else value for key, value in header.metadata.items()},
        "array_lengths": dict(header.array_lengths),
    }


def from_document(document: Any) -> Optional[GgufHeader]:
    """The header that :func:`as_document` wrote; None for anything else."""
    try:
        if document["schema"] != DOCUMENT_SCHEMA:
            return None
        tensors = tuple(
            Tensor(str(name), int(type_id), tuple(int(length) for length in shape), int(offset), None if size is None else int(size), int(room))
            for name, type_id, shape, offset, size, room in document["tensors"]
        )
        metadata = {str(key): tuple(value) if isinstance(value, list) else value for key, value in document["metadata"].items()}
        return GgufHeader(
            **{name: int(document[name]) for name in _NUMBERS},
            big_endian=document["big_endian"] is True,
            tensors=tensors,
            metadata=metadata,
            array_lengths={str(key): int(value) for key, value in document["array_lengths"].items()},
            has_chat_template=document["has_chat_template"] is True,
            unknown_types=_unknown_types(tensors),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def summary(header: GgufHeader) -> dict[str, Any]:
    """What people and plans want to know of a model, as JSON types."""
    places = header.bytes_by_place()
    types: dict[str, int] = {}
    for tensor in header.tensors:
        types[tensor.type_name] = types.get(tensor.type_name, 0) + tensor.bytes
    return {
        "architecture": header.architecture,
        "name": header.name,
        "quantisation": header.quantisation,
        "block_count": header.block_count,
        "context_length": header.context_length,
        "embedding_length": header.embedding_length,
        "head_count": _listed(header.head_count),
        "head_count_kv": _listed(header.head_count_kv),
        "vocabulary_size": header.vocabulary_size,
        "parameters": header.parameters,
        "tensor_count": header.tensor_count,
        "tensor_bytes": header.tensor_bytes,
        "tensor_types": dict(sorted(types.items())),
        "layers": [{"index": index, "bytes": size} for (place, index), size in sorted(places.items()) if place == LAYER],
        "input_bytes": places.get((INPUT, -1), 0),
        "output_bytes": places.get((OUTPUT, -1), 0),
        "other_bytes": places.get((OTHER, -1), 0),
        "tied_output": header.tied_output,
        "has_chat_template": header.has_chat_template,
        "shards": header.shards,
        "version": header.version,
        "big_endian": header.big_endian,
        "header_bytes": header.header_bytes,
    }


def details(header: GgufHeader) -> dict[str, Any]:
    """The rest of a header, as JSON types that Ansible can pass on: a number that is none becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "tensors": [{"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape), "bytes": tensor.bytes} for tensor in header.tensors],
        "metadata": {key: plain(value) for key, value in header.metadata.items()},
        "array_lengths": dict(header.array_lengths),
    }


def _listed(value: Union[int, tuple[int, ...]]) -> Union[int, list[int]]:
    return list(value) if isinstance(value, tuple) else value


def _unknown_types(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    return tuple(sorted({tensor.type_id for tensor in tensors if tensor.size_bytes is None}))


# How the remark on a part of a split model begins; who has all parts leaves it out
PART = "it is one part of"


def remarks(header: GgufHeader, name: str, whole: bool = False) -> tuple[Finding, ...]:
    """What is right as a file and will still not be served, or not as expected. ``whole``: all parts of a split model are there."""
    found = []
    if header.version == 1:
        found.append(("it is GGUF version 1, which llama.cpp no longer reads", "Convert the original model again."))
    if header.big_endian:
        found.append(("it is big-endian, which x86 and ARM machines do not load", "Get the little-endian file, or convert it with gguf-convert-endian."))
    if not header.tensors:
        found.append(("it holds no tensors (a vocabulary alone)", "Use the file with the weights."))
    if header.shards > 1 and not whole:
        found.append((f"{PART} {header.shards}", "All parts are needed, side by side and under their own names."))
    if header.unknown_types:
        numbers = ", ".join(str(number) for number in header.unknown_types)
        found.append((f"it has tensors of unknown type {numbers}, so their size was not checked", "The server may need a newer llama.cpp for it."))
    return tuple(Finding("warning", name, 0, message, hint) for message, hint in found)


class _Reader:
    """A cursor over the header with one window of bytes in memory."""

    def __init__(self, read_at: ReadAt, size: int, name: str, window_bytes: int, lean: bool = False) -> None:
        self.read_at = read_at
        self.size = size
        self.name = name
        self.position = 0
        self._window_bytes = window_bytes
        self._least_bytes = min(LEAN_BYTES, window_bytes) if lean else window_bytes
        # How much more of what is being read is likely to follow
        self.ahead = 0
        self._window = b""
        self._start = 0
        self.set_layout("<", 3)

    def set_layout(self, order: str, version: int) -> None:
        self.order = order
        # Version 1 counted with 32 bits.
        self._length = struct.Struct(order + ("I" if version == 1 else "Q"))
        self._u32 = struct.Struct(order + "I")
        self.length_bytes = self._length.size

    def corrupt(self, what: str, offset: Optional[int] = None) -> AikitError:
        at = self.position if offset is None else offset
        return AikitError(f"{self.name} is a corrupt GGUF file: byte {at}: {what}.", DOWNLOAD_AGAIN)

    def take(self, length: int, what: str) -> bytes:
        """The next bytes; never more than a window."""
        self._require(length, what)
        begin = self.position - self._start
        if begin < 0 or begin + length > len(self._window):
            self._fill(length)
            begin = 0
        self.position += length
        return self._window[begin : begin + length]

    def peek(self, length: int) -> bytes:
        """Up to ``length`` bytes from here, fewer at the end of the file."""
        if not self.size:
            return b""
        self._fill(min(length, self.size))
        return self._window[:length]

    def skip(self, length: int, what: str) -> None:
        self._require(length, what)
        self.position += length

    def u32(self, what: str) -> int:
        return int(self._u32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(struct.unpack(self.order + "Q", self.take(8, what))[0])

    def count(self, what: str) -> int:
        return int(self._length.unpack(self.take(self.length_bytes, what))[0])

    def scalars(self, kind: str, count: int, what: str) -> tuple[Any, ...]:
        form = struct.Struct(f"{self.order}{count}{kind}")
        return form.unpack(self.take(form.size, what))

    def text_length(self, what: str, limit: int) -> int:
        length = self.count(f"the length of {what}")
        if length > limit:
            raise self.corrupt(f"{what} is {length} bytes long", self.position - self.length_bytes)
        return length

    def text(self, what: str, limit: int) -> str:
        length = self.text_length(what, limit)
        return self.take(length, what).decode("utf-8", "replace")

    def skip_texts(self, count: int, what: str) -> None:
        """Step over an array of strings, the one part of a header that can only be walked."""
        width, unpack = self.length_bytes, self._length.unpack_from
        self._require(count * width, what)
        first = self.position
        for done in range(count):
            begin = self.position - self._start
            if begin < 0 or begin + width > len(self._window):
                self._require(width, what)
                self.expect(count - done, (self.position - first) / done if done else width + 8)
                self._fill(width)
                begin = 0
            length = unpack(self._window, begin)[0]
            if length > MAX_STRING_BYTES:
                raise self.corrupt(f"a string in {what} is {length} bytes long")
            self.position += width + length
            if self.position > self.size:
                raise self._truncated(what, self.position)
        self.ahead = 0

    def expect(self, count: int, average: float) -> None:
        """So many more things of that size are likely to follow (a little more, since sizes vary)."""
        self.ahead = int(count * average * 1.03) + 1024

    def _require(self, length: int, what: str) -> None:
        if self.position + length > self.size:
            raise self._truncated(what, self.position + length)

    def _truncated(self, what: str, needed: int) -> AikitError:
        return AikitError(
            f"{self.name} is cut off in its header: {what} reaches to byte {needed}, the file ends at byte {self.size}.", DOWNLOAD_AGAIN
        )

    def _fill(self, length: int) -> None:
        wanted = min(max(length, self._least_bytes, min(self.ahead, self._window_bytes)), self.size - self.position)
        self._window = bytes(self.read_at(self.position, wanted)[:wanted])
        self._start = self.position
        if len(self._window) < length:
            raise AikitError(
                f"{self.name}: reading {length} bytes at byte {self.position} gave {len(self._window)},"
                f" although the file should have {self.size} bytes.",
                "Let whatever writes it finish, then run again.",
            )


class _Metadata:
    """The key-value pairs, as far as they are worth keeping."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.values: dict[str, Any] = {}
        self.array_lengths: dict[str, int] = {}
        self.has_chat_template = False
        self._seen: set[str] = set()
        self._budget = KEEP_BYTES
        self._strings_left = MAX_ARRAY_STRINGS

    def read_pair(self) -> None:
        reader = self.reader
        start = reader.position
        key = reader.text("the name of a metadata key", MAX_NAME_BYTES)
        shown = _shown(key)
        if key in self._seen:
            raise reader.corrupt(f"the metadata key {shown} is there twice", start)
        self._seen.add(key)
        kind = reader.u32(f"the type of {shown}")
        if kind in SCALARS:
            self._keep(key, reader.scalars(SCALARS[kind], 1, f"the value of {shown}")[0], len(key) + 8)
        elif kind == STRING:
            self._read_string(key, shown)
        elif kind == ARRAY:
            self._read_array(key, shown)
        else:
            raise reader.corrupt(f"{shown} has the unknown value type {kind}", reader.position - 4)

    def _keep(self, key: str, value: Any, cost: int) -> None:
        if cost <= self._budget:
            self._budget -= cost
            self.values[key] = value

    def _read_string(self, key: str, shown: str) -> None:
        reader = self.reader
        what = f"the value of {shown}"
        length = reader.text_length(what, MAX_STRING_BYTES)
        if key == "tokenizer.chat_template" and length:
            self.has_chat_template = True
        if length > KEEP_STRING_BYTES:
            reader.skip(length, what)
        else:
            self._keep(key, reader.take(length, what).decode("utf-8", "replace"), len(key) + length)

    def _read_array(self, key: str, shown: str) -> None:
        reader = self.reader
        what = f"the array {shown}"
        kind = reader.u32(f"the item type of {what}")
        if kind not in SCALARS and kind != STRING:
            reason = "holds arrays, which llama.cpp does not read" if kind == ARRAY else f"has the unknown item type {kind}"
            raise reader.corrupt(f"{what} {reason}", reader.position - 4)
        length = reader.count(f"the length of {what}")
        if len(key) + 8 <= self._budget:
            self._budget -= len(key) + 8
            self.array_lengths[key] = length
        if kind == STRING:
            if length > self._strings_left:
                raise reader.corrupt(f"{what} claims {length} strings")
            self._strings_left -= length
            reader.skip_texts(length, what)
            return
        item = struct.calcsize("<" + SCALARS[kind])
        if length > MAX_ARRAY_ITEMS:
            raise reader.corrupt(f"{what} claims {length} items")
        if length <= KEEP_ARRAY_ITEMS:
            self._keep(key, reader.scalars(SCALARS[kind], length, what), len(key) + 16 * length)
        else:
            reader.skip(length * item, what)


def _check_magic(reader: _Reader) -> None:
    first = reader.peek(512)
    if first[:4] == MAGIC:
        reader.skip(4, "the magic")
        return
    if not first:
        raise AikitError(f"{reader.name} is no GGUF file: it is empty.", DOWNLOAD_AGAIN)
    kind, hint = _guess(first)
    found = _shown(first[:4].decode("latin-1"))
    raise AikitError(f'{reader.name} is no GGUF file: byte 0: expected "GGUF", found {found}{f" ({kind})" if kind else ""}.', hint)


def _guess(first: bytes) -> tuple[str, str]:
    """What a file that is no GGUF file looks like, and what to do about it."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "Run `git lfs pull` in that checkout, or download the file from its direct URL."
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        return (
            "a web page",
            "The server sent a page instead of the file: use the direct download link (on Hugging Face /resolve/ instead of /blob/), or give a token.",
        )
    convert = "Convert it to GGUF first (convert_hf_to_gguf.py of llama.cpp), or get a GGUF file of the model."
    if len(first) > 8 and first[8:9] == b"{" and struct.unpack("<Q", first[:8])[0] < 2**32:
        return "it looks like safetensors", convert
    if start.startswith((b"{", b"[")):
        return "JSON, perhaps an error message", "Open the URL to see what the server says."
    if first[:4] in (b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml", b"ggmf", b"ggjt", b"ggla"):
        return "a GGML file from before GGUF", "Get a GGUF file of the model; today's llama.cpp does not read this format."
    if first[:4] == MAGIC[::-1]:
        return "its bytes are swapped", DOWNLOAD_AGAIN
    for magic, kind in ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"7z\xbc\xaf", "7-Zip")):
        if first.startswith(magic):
            return f"{kind} compressed", "Unpack it first."
    if first.startswith(b"PK\x03\x04"):
        return "a zip archive or a PyTorch file", f"Unpack it if it is an archive. {convert}"
    if not first.strip(b"\0"):
        return "zeros, as left by a download that reserved its space and stopped", DOWNLOAD_AGAIN
    return "", "Give the URL or path of a GGUF file."


def _read_version(reader: _Reader) -> tuple[int, bool]:
    raw = reader.take(4, "the version")
    little, big = struct.unpack("<I", raw)[0], struct.unpack(">I", raw)[0]
    if little in (1, 2, 3):
        reader.set_layout("<", little)
        return little, False
    if big in (1, 2, 3):
        reader.set_layout(">", big)
        return big, True
    if min(little, big) <= 64:
        raise AikitError(
            f"{reader.name}: byte 4: GGUF version {min(little, big)} is not known; versions 1 to 3 are.",
            "If a newer format is out, a newer release of this collection may read it.",
        )
    raise reader.corrupt(f"the version is {little}", 4)


def _read_tensors(reader: _Reader, count: int, alignment: int) -> tuple[Tensor, ...]:
    size_kind = "Q" if reader.length_bytes == 8 else "I"
    tensors = []
    seen = set()
    first = reader.position
    for done in range(count):
        start = reader.position
        reader.expect(count - done, (start - first) / done if done else 80)
        name = reader.text("the name of a tensor", MAX_NAME_BYTES)
        shown = f"tensor {_shown(name)}"
        if name in seen:
            raise reader.corrupt(f"{shown} is there twice", start)
        seen.add(name)
        dimensions = reader.u32(f"the number of dimensions of {shown}")
        if dimensions > MAX_DIMENSIONS:
            raise reader.corrupt(f"{shown} has {dimensions} dimensions", reader.position - 4)
        shape = reader.scalars(size_kind, dimensions, f"the shape of {shown}")
        type_id = reader.u32(f"the type of {shown}")
        offset = reader.u64(f"the offset of {shown}")
        if offset % alignment:
            raise reader.corrupt(f"the offset {offset} of {shown} is no multiple of {alignment}", reader.position - 8)
        tensors.append(Tensor(name, type_id, shape, offset, _tensor_bytes(reader, shown, shape, type_id)))
    reader.ahead = 0
    return tuple(tensors)


def _tensor_bytes(reader: _Reader, shown: str, shape: tuple[int, ...], type_id: int) -> Optional[int]:
    if type_id in RETIRED_TENSOR_TYPES:
        raise AikitError(
            f"{reader.name}: byte {reader.position - 12}: {shown} has the type {RETIRED_TENSOR_TYPES[type_id]}, which llama.cpp no longer reads.",
            "Get a newer GGUF file of the model.",
        )
    elements = 1
    for length in shape:
        elements *= length
    if elements >= 2**63:
        raise reader.corrupt(f"{shown} has the shape {' x '.join(str(length) for length in shape)}")
    if type_id not in TENSOR_TYPES:
        return None
    name, block, size = TENSOR_TYPES[type_id]
    if (shape[0] if shape else 1) % block:
        raise reader.corrupt(f"rows of {shown} ({shape[0] if shape else 1}) are no multiple of {block}, the block of {name}")
    return elements // block * size


def _check_data(reader: _Reader, tensors: tuple[Tensor, ...], data_start: int) -> None:
    """An error when the file ends before the last tensor does."""
    end = 0
    last = ""
    cut = 0
    for tensor in tensors:
        tensor_end = data_start + tensor.offset + (tensor.size_bytes or 0)
        if tensor_end > reader.size:
            cut += 1
        if tensor_end > end:
            end, last = tensor_end, tensor.name
    if end > reader.size:
        raise AikitError(
            f"{reader.name} is cut off in its data: tensor {_shown(last)} reaches to byte {end}, the file ends at byte {reader.size}:"
            f" {end - reader.size} bytes are missing, in {cut} of {len(tensors)} tensors.",
            DOWNLOAD_AGAIN,
        )


def _with_room(tensors: tuple[Tensor, ...], data_bytes: int) -> tuple[Tensor, ...]:
    """The same with ``room_bytes`` where the type is not known. Padding counts, so it can be a little more than the tensor takes."""
    if all(tensor.size_bytes is not None for tensor in tensors):
        return tensors
    starts = sorted({tensor.offset for tensor in tensors})
    following = dict(zip(starts, [*starts[1:], data_bytes]))
    return tuple(
        tensor if tensor.size_bytes is not None else replace(tensor, room_bytes=max(0, following[tensor.offset] - tensor.offset)) for tensor in tensors
    )


def _padded(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment


def _shown(text: str) -> str:
    """A name out of the file, fit for an error message: short, one line, printable."""
    if len(text) <= 80 and text.isprintable() and '"' not in text:
        return f'"{text}"'
    clean = "".join(char if char.isprintable() and char != '"' else "?" for char in text[:80])
    return f'"{clean}{"..." if len(text) > 80 else ""}"'
