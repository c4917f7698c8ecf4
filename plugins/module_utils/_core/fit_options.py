# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of module gpu_fit, as values of a plan."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Callable, Mapping, Optional, Sequence

from .data_ggml import TENSOR_TYPES
from .errors import AikitError
from .fit import Fit, Gpu, Host, ModelShape, Policy, Wish, plan
from .fit_shape import LAYER_NAME
from .localai import CACHE_TYPES
from .services import suggestion

# Reads the header of a file on the machine that plans
ReadShape = Callable[[str], ModelShape]


def fits(
    services: Sequence[Mapping[str, Any]],
    gpus: Sequence[Mapping[str, Any]],
    policy: Mapping[str, Any],
    server_version: str,
    host: Optional[Mapping[str, Any]],
    read_shape: ReadShape,
) -> tuple[Fit, ...]:
    """Plan what the options describe."""
    wishes = tuple(_wish(f"services[{index}]", service, read_shape) for index, service in enumerate(services))
    return plan(wishes, tuple(_gpu(f"gpus[{index}]", gpu, index) for index, gpu in enumerate(gpus)), policy_of(policy), server_version, _host(host))


def policy_of(options: Optional[Mapping[str, Any]], path: str = "policy") -> Policy:
    """A policy from its words; what is left out keeps its default.

    :param path: what the user knows it as.
    """
    defaults = Policy()
    values: dict[str, Any] = {}
    known = [field.name for field in fields(Policy)]
    for key, value in (options or {}).items():
        if key not in known:
            raise AikitError(f"{path}.{key} is no setting of a plan.", suggestion(str(key), known) or f"Known: {', '.join(known)}.")
        if value is None:
            continue
        if key == "kv_types":
            wrong = [kind for kind in value if kind not in CACHE_TYPES] if isinstance(value, (list, tuple)) and value else [value]
            if wrong:
                raise AikitError(f"{path}.kv_types has {wrong[0]!r}.", f"Give a list of types: {', '.join(CACHE_TYPES)}.")
            values[key] = tuple(value)
        elif key == "unknown":
            if value not in ("margin", "server"):
                raise AikitError(f"{path}.unknown is {value!r}.", "Give margin or server.")
            values[key] = value
        else:
            values[key] = _amount(f"{path}.{key}", value, type(getattr(defaults, key)))
    return Policy(**values)


def _amount(path: str, value: Any, kind: Callable[[Any], Any]) -> Any:
    """A number; of a command line (``-e``) it comes as text."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        found = -1.0
    if not 0 <= found < 1e9:
        raise AikitError(f"{path} is {value!r}.", "Give a number that is not negative.")
    return kind(found)


def _wish(path: str, service: Mapping[str, Any], read_shape: ReadShape) -> Wish:
    name = service["name"]
    projector = service.get("mmproj")
    return Wish(
        service=name,
        model=_shape(f"{path}.model", service["model"], read_shape),
        settings=dict(service.get("settings") or {}),
        gpus=tuple(str(gpu) for gpu in service["gpus"]) if service.get("gpus") is not None else ("all",),
        mmproj=_shape(f"{path}.mmproj", projector, read_shape) if projector else None,
        step_down=int(service.get("step_down") or 0),
        server_version=service.get("server_version") or "",
        extra_mib=int(service.get("extra_mib") or 0),
    )


def _shape(path: str, value: Any, read_shape: ReadShape) -> ModelShape:
    """A path, a shape, or a result that has one."""
    if isinstance(value, str):
        return read_shape(value)
    if isinstance(value, Mapping):
        for key in ("shape", "gguf"):
            if isinstance(value.get(key), Mapping):
                return _shape(path, value[key], read_shape)
        if "header_bytes_read" in value or "tensor_count" in value:
            return _listed(path, value)
        return ModelShape.from_dict(value, path)
    raise AikitError(f"{path} is {type(value).__name__}.", "Give the path of a GGUF file on the machine that plans, or a shape.")


def _listed(path: str, value: Mapping[str, Any]) -> ModelShape:
    """From what gguf_info returns: a tensor in each entry, its type by name."""
    tensors, metadata = value.get("tensors"), value.get("metadata")
    if not isinstance(tensors, (list, tuple)) or not isinstance(metadata, Mapping):
        raise AikitError(f"{path} is a result of gguf_info without its tensors.", "Run gguf_info with tensors: true, or give the path of the file.")
    numbers = {name: number for number, (name, _block, _size) in TENSOR_TYPES.items()}
    entries = []
    for tensor in tensors:
        name, kind = str(tensor.get("name")), str(tensor.get("type"))
        unknown = kind.rpartition(" ")[2]
        number = numbers.get(kind, int(unknown) if unknown.isdigit() else -1)
        match = LAYER_NAME.match(name)
        entries.append([match.group(2) if match else name, number, tensor.get("shape"), match.group(1) if match else ""])
    lengths = value.get("array_lengths") or {}
    vocabulary = value.get("vocabulary_size") or lengths.get("tokenizer.ggml.tokens") or 0
    return ModelShape.from_dict({"metadata": dict(metadata), "vocabulary": vocabulary, "tensors": entries}, path)


def _gpu(path: str, value: Mapping[str, Any], position: int) -> Gpu:
    total, free = value.get("memory_total_mib"), value.get("memory_free_mib")
    if not isinstance(total, int) or isinstance(total, bool) or total <= 0:
        raise AikitError(f"{path}.memory_total_mib is {total!r}: the GPU's memory is not known.", "Install the driver first, or leave this GPU out.")
    index = value.get("index")
    return Gpu(
        index=index if isinstance(index, int) else position,
        name=str(value.get("name") or ""),
        total_mib=total,
        free_mib=free if isinstance(free, int) else total,
        compute_capability=str(value.get("compute_capability") or ""),
        unified_memory=value.get("unified_memory") is True,
        ours_mib=int(value.get("ours_mib") or 0),
        uuid=str(value.get("uuid") or ""),
        vendor=str(value.get("vendor") or "nvidia"),
    )


def _host(value: Optional[Mapping[str, Any]]) -> Optional[Host]:
    if not value:
        return None
    return Host(total_mib=int(value.get("memory_total_mib") or 0), available_mib=int(value.get("memory_available_mib") or 0))
