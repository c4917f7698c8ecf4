# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model as far as memory is concerned: its tensors, and what each of its layers keeps per token.

Made from the header of a GGUF file, small enough to travel as a module's result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence, Union

from . import data_arch
from .data_ggml import TENSOR_TYPES
from .errors import AikitError

if TYPE_CHECKING:
    from .gguf import GgufHeader

LAYER_NAME = re.compile(r"blk\.(\d+)\.(.+)\Z")
# llama.cpp's own limit
MAX_LAYERS = 512
# What is worth to travel with a shape: keys of the architecture, never vocabularies or templates
_GENERAL = ("general.architecture", "general.name", "general.file_type", "clip.")


@dataclass(frozen=True)
class Weight:
    """One tensor: ``name`` without ``blk.N.``, ``layer`` -1 outside of the blocks."""

    name: str
    type_id: int
    shape: tuple[int, ...]
    layer: int = -1

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def size_bytes(self) -> int:
        # An unknown type counts as f16: more than any quantised one takes
        _name, block, size = TENSOR_TYPES.get(self.type_id, ("", 1, 2))
        return self.elements // block * size if self.elements % block == 0 else (self.elements // block + 1) * size

    @property
    def quantised(self) -> bool:
        return TENSOR_TYPES.get(self.type_id, ("", 1, 2))[1] > 1

    @property
    def is_expert(self) -> bool:
        """One of the matrices that hold all experts of a layer, which ``n_cpu_moe`` keeps in host memory."""
        return "_exps" in self.name or "_chexps" in self.name


@dataclass(frozen=True)
class Layer:
    """What one block keeps: keys and values of ``heads_kv`` heads (``attends``), a recurrent state, or nothing.

    ``reads``: it computes attention, on its own keys and values or on those of another block.
    """

    index: int
    heads: int
    heads_kv: int
    key_length: int
    value_length: int
    feed_forward: int
    attends: bool
    recurrent: bool
    window: bool
    reads: bool = True

    @property
    def key_width(self) -> int:
        return self.heads_kv * self.key_length

    @property
    def value_width(self) -> int:
        return self.heads_kv * self.value_length


@dataclass(frozen=True, eq=False)
class ModelShape:
    """The tensors and the keys of a model's header. Everything else is derived from them, once for each object."""

    architecture: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()
    vocabulary: int = 0
    name: str = ""
    # Types in the file whose size is not known
    unknown_types: tuple[int, ...] = ()

    @classmethod
    def from_header(cls, headers: Union[GgufHeader, Sequence[GgufHeader]]) -> ModelShape:
        """From the header of a file, or of all parts of a split model."""
        parts = (headers,) if not isinstance(headers, (tuple, list)) else tuple(headers)
        if not parts:
            raise AikitError("A model has no header.", "Give the headers of all of its parts.")
        first = parts[0]
        wanted = first.shards
        whole = len(parts) == 1 and first.metadata.get("split.tensors.count") == len(first.tensors)
        if len(parts) != wanted and not whole:
            raise AikitError(
                f"The model {first.name or first.architecture} has {wanted} parts, and the headers of {len(parts)} are here.",
                "Give all of them: each part lists only its own tensors.",
            )
        tensors = [tensor for part in parts for tensor in part.tensors]
        total = first.metadata.get("split.tensors.count")
        if len(parts) > 1 and isinstance(total, int) and total != len(tensors):
            raise AikitError(
                f"The parts of {first.name or first.architecture} hold {len(tensors)} tensors, and should hold {total}.", "Get all parts from one place."
            )
        weights = tuple(_weight(tensor.name, tensor.type_id, tensor.shape) for tensor in tensors)
        return cls(
            architecture=first.architecture,
            metadata=_kept(first.metadata, first.architecture),
            weights=weights,
            vocabulary=_vocabulary(first.metadata, first.array_lengths, first.architecture, weights),
            name=first.name,
            unknown_types=tuple(sorted({weight.type_id for weight in weights if weight.type_id not in TENSOR_TYPES})),
        )

    @classmethod
    def from_dict(cls, value: Any, what: str = "model") -> ModelShape:
        """Back from :meth:`as_dict`."""
        if not isinstance(value, Mapping) or not isinstance(value.get("metadata"), Mapping) or not isinstance(value.get("tensors"), (list, tuple)):
            raise AikitError(f"{what} is no shape of a model.", "Give the shape that gguf_info returned, unchanged.")
        metadata = {str(key): tuple(entry) if isinstance(entry, list) else entry for key, entry in value["metadata"].items()}
        architecture = metadata.get("general.architecture", "")
        weights = tuple(_expand(value["tensors"], what))
        name = metadata.get("general.name", "")
        return cls(
            architecture=architecture if isinstance(architecture, str) else "",
            metadata=metadata,
            weights=weights,
            vocabulary=_whole(value.get("vocabulary")),
            name=name if isinstance(name, str) else "",
            unknown_types=tuple(sorted({weight.type_id for weight in weights if weight.type_id not in TENSOR_TYPES})),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON types alone; tensors that differ only in their layer share one entry: ``[name, type, shape, "0-31,40"]``."""
        groups: dict[tuple[str, int, tuple[int, ...]], list[int]] = {}
        for weight in self.weights:
            groups.setdefault((weight.name, weight.type_id, weight.shape), []).append(weight.layer)
        return {
            "metadata": {key: list(entry) if isinstance(entry, tuple) else entry for key, entry in self.metadata.items()},
            "vocabulary": self.vocabulary,
            "tensors": [[name, type_id, list(shape), _ranges(layers)] for (name, type_id, shape), layers in groups.items()],
        }

    # What the header says

    def number(self, key: str, default: int = 0) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def per_layer(self, key: str, default: int = 0) -> tuple[int, ...]:
        """A number for each block: the key's, or its array's."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, (tuple, list)) and value:
            numbers = [int(entry) for entry in value if isinstance(entry, (int, bool))]
            return tuple(numbers[index] if index < len(numbers) else default for index in range(self.block_count))
        return (self.number(key, default),) * self.block_count

    @cached_property
    def known(self) -> bool:
        """Whether this collection knows how llama.cpp uses memory for it."""
        return self.architecture in data_arch.KNOWN and not self.has_indexer and not self.unknown_types

    @cached_property
    def has_indexer(self) -> bool:
        """Sparse attention with an index: caches of another kind."""
        return self.architecture in data_arch.UNPREDICTED or any(".indexer." in key for key in self.metadata)

    @cached_property
    def block_count(self) -> int:
        """All blocks, those that predict further tokens (MTP) included."""
        return min(self.number("block_count"), MAX_LAYERS)

    @cached_property
    def layer_count(self) -> int:
        return self.block_count - min(self.number("nextn_predict_layers"), self.block_count)

    @property
    def context_length(self) -> int:
        return self.number("context_length")

    @cached_property
    def embedding(self) -> int:
        return self.number("embedding_length")

    @property
    def experts(self) -> int:
        return self.number("expert_count")

    @cached_property
    def experts_used(self) -> int:
        return max(self.per_layer("expert_used_count"), default=0)

    @cached_property
    def is_mixture(self) -> bool:
        return any(weight.is_expert for weight in self.weights)

    @cached_property
    def sinks(self) -> bool:
        """Whether attention has sinks, a weight among its scores."""
        return any(weight.name == "attn_sinks.weight" for weight in self.weights)

    @cached_property
    def by_block(self) -> tuple[tuple[Weight, ...], ...]:
        """The tensors of each block."""
        found: list[list[Weight]] = [[] for dummy in range(self.block_count)]
        for weight in self.weights:
            if 0 <= weight.layer < self.block_count:
                found[weight.layer].append(weight)
        return tuple(tuple(entry) for entry in found)

    @cached_property
    def window_size(self) -> int:
        rule = data_arch.window(self.architecture, self.layer_count)
        if rule is None:
            return self.number("attention.sliding_window") if self._hybrid_window else 0
        if self.metadata.get(f"{self.architecture}.attention.sliding_window") == 0:
            return 0
        if rule.fixed:
            return rule.fixed if not rule.needs_key or self.number("attention.sliding_window") else 0
        size = self.number("attention.sliding_window", 0 if rule.needs_key else rule.window)
        return size

    @property
    def _hybrid_window(self) -> bool:
        return self.architecture in ("lfm2", "lfm2moe")

    @cached_property
    def is_mla(self) -> bool:
        """Multi-head latent attention whose cache holds the compressed form alone."""
        return bool(self.number("attention.key_length_mla") and self.number("attention.value_length_mla"))

    @property
    def caches(self) -> bool:
        return self.architecture not in data_arch.NO_CACHE

    @property
    def pools(self) -> bool:
        """Whether it is made for embeddings or for ranking: one vector for a whole text."""
        return self.number("pooling_type") > 0

    @property
    def causal(self) -> bool:
        return self.metadata.get(f"{self.architecture}.attention.causal", self.caches) is not False

    @cached_property
    def tied(self) -> bool:
        """No output matrix of its own: the embeddings are held twice, on the CPU for reading and with the output layer."""
        if self.architecture in data_arch.NOT_TIED:
            return False
        return not any(weight.name == "output.weight" and weight.layer < 0 for weight in self.weights)

    @property
    def rows(self) -> int:
        """Entries of the vocabulary: what the logits of one token take."""
        return self.vocabulary

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        count = self.block_count
        heads = self.per_layer("attention.head_count")
        has_kv = f"{self.architecture}.attention.head_count_kv" in self.metadata
        heads_kv = self.per_layer("attention.head_count_kv") if has_kv else heads
        first = next((number for number in heads[:1]), 0)
        plain = self.embedding // first if first else 0
        key = self.number("attention.key_length", plain)
        value = self.number("attention.value_length", plain)
        key_window = self.number("attention.key_length_swa", key)
        value_window = self.number("attention.value_length_swa", value)
        feed_forward = self.per_layer("feed_forward_length")
        windows = self._windows()
        recurrent = self._recurrent(heads_kv, feed_forward)
        own = data_arch.kv_layers(self.architecture, count, self.number("attention.shared_kv_layers"))
        layers = []
        for index in range(count):
            both = self.architecture in data_arch.HYBRID_BOTH
            reads = index < self.layer_count and (both or not recurrent[index]) and (heads_kv[index] > 0 or not self.caches)
            if self.architecture in data_arch.HYBRID_BY_FEED_FORWARD:
                reads = reads and feed_forward[index] == 0
            attends = reads and self.caches and index < own
            layers.append(
                Layer(
                    index,
                    heads[index],
                    heads_kv[index],
                    key_window if windows[index] else key,
                    value_window if windows[index] else value,
                    feed_forward[index],
                    attends,
                    recurrent[index] and index < self.layer_count,
                    windows[index],
                    reads,
                )
            )
        return tuple(layers)

    def _windows(self) -> tuple[bool, ...]:
        if not self.window_size:
            return (False,) * self.block_count
        if self._hybrid_window:
            return tuple(number > 0 for number in self.per_layer("attention.head_count_kv"))
        rule = data_arch.window(self.architecture, self.layer_count)
        value = self.metadata.get(f"{self.architecture}.attention.sliding_window_pattern")
        if isinstance(value, (tuple, list)) and value:
            return tuple(index < len(value) and bool(value[index]) for index in range(self.block_count))
        period = self.number("attention.sliding_window_pattern", rule.period if rule else 0)
        found = []
        for index in range(self.block_count):
            if index >= self.layer_count:
                found.append(False)
            elif period == 0:
                found.append(True)
            elif rule is not None and rule.dense_first:
                found.append(index % period != 0)
            else:
                found.append(index % period < period - 1)
        return tuple(found)

    def _recurrent(self, heads_kv: Sequence[int], feed_forward: Sequence[int]) -> tuple[bool, ...]:
        arch = self.architecture
        if arch in data_arch.RECURRENT or arch in data_arch.HYBRID_BOTH:
            return (True,) * self.block_count
        if arch in data_arch.HYBRID_BY_HEADS:
            return tuple(number == 0 for number in heads_kv)
        if arch in data_arch.HYBRID_BY_FEED_FORWARD:
            return tuple(number == 0 and width == 0 for number, width in zip(heads_kv, feed_forward))
        if arch in data_arch.HYBRID_BY_INTERVAL:
            value = self.metadata.get(f"{arch}.attention.recurrent_layers")
            if isinstance(value, (tuple, list)) and value:
                return tuple(index < len(value) and bool(value[index]) for index in range(self.block_count))
            interval = self.number("full_attention_interval", 4) or 1
            return tuple((index + 1) % interval != 0 for index in range(self.block_count))
        return (False,) * self.block_count

    @cached_property
    def widest_value(self) -> int:
        return max((layer.value_width for layer in self.layers), default=0)

    @cached_property
    def state_width(self) -> tuple[int, int]:
        """Numbers (f32) that a recurrent layer keeps for each sequence: of its convolution, and of its state."""
        head_size = self.number("wkv.head_size")
        if head_size:
            return self.number("token_shift_count", 2) * self.embedding, self.embedding * head_size
        cache = self.number("shortconv.l_cache")
        if cache:
            return self.embedding * (cache - 1), 0
        inner, state, groups = self.number("ssm.inner_size"), self.number("ssm.state_size"), self.number("ssm.group_count")
        kernel = self.number("ssm.conv_kernel")
        heads = next(iter(self.per_layer("attention.head_count")), 0)
        delta = self.number("kda.head_dim")
        if delta:
            return 3 * (kernel - 1 if kernel else 3) * heads * delta, delta * delta * heads
        if self.architecture == "minimax-01":
            length = self.number("attention.key_length")
            return 0, length * length * heads
        return (kernel - 1 if kernel else 0) * (inner + 2 * groups * state), state * inner


def _weight(name: str, type_id: int, shape: Iterable[int]) -> Weight:
    match = LAYER_NAME.match(name)
    if match:
        return Weight(match.group(2), type_id, tuple(shape), int(match.group(1)))
    return Weight(name, type_id, tuple(shape))


def _kept(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    prefixes = (f"{architecture}.", *_GENERAL)
    return {key: value for key, value in metadata.items() if key.startswith(prefixes)}


def _vocabulary(metadata: Mapping[str, Any], lengths: Mapping[str, int], architecture: str, weights: Iterable[Weight]) -> int:
    for weight in weights:
        if weight.layer < 0 and weight.name in ("output.weight", "token_embd.weight") and len(weight.shape) > 1:
            return weight.shape[1]
    value = metadata.get(f"{architecture}.vocab_size")
    return value if isinstance(value, int) else lengths.get("tokenizer.ggml.tokens", 0)


def _ranges(layers: Iterable[int]) -> str:
    """``0-3,7``; empty for a tensor outside of the blocks."""
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if layer < 0:
            continue
        if parts and parts[-1][1] == layer - 1:
            parts[-1][1] = layer
        else:
            parts.append([layer, layer])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _expand(tensors: Iterable[Any], what: str) -> Iterable[Weight]:
    for entry in tensors:
        try:
            name, type_id, shape, layers = entry
            dimensions = tuple(int(length) for length in shape)
            if not layers:
                yield Weight(str(name), int(type_id), dimensions)
                continue
            for part in str(layers).split(","):
                first, _dash, last = part.partition("-")
                low, high = int(first), int(last or first)
                if not 0 <= low <= high < MAX_LAYERS:
                    raise ValueError(part)
                for layer in range(low, high + 1):
                    yield Weight(str(name), int(type_id), dimensions, layer)
        except (TypeError, ValueError) as exc:
            raise AikitError(f"{what} is no shape of a model: {entry!r} is no tensor.", "Give the shape that gguf_info returned, unchanged.") from exc


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
