# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words in and out of a plan: settings as people write them, settings as servers take them, and why a plan is as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence

from . import data_arch
from .errors import AikitError, Finding
from .fit_types import MIB, Policy, Wish, context_mib
from .localai import CACHE_TYPES

if TYPE_CHECKING:
    from .fit_memory import Load
    from .fit_plan import Need, Room, _Asked
    from .fit_shape import ModelShape

# What AIKit's examples have, and people copy for models that it was not made for
COPIED_LAYERS = 35
_ON, _OFF = ("on", "true", "enabled"), ("off", "false", "disabled")


class Reader:
    """Settings of a service; missing ones and ``auto`` are None."""

    def __init__(self, service: str, settings: Mapping[str, Any]) -> None:
        self.service, self.settings = service, settings

    def _value(self, key: str) -> Any:
        value = self.settings.get(key)
        return None if value in (None, "", "auto") else value

    def _wrong(self, key: str, expected: str) -> AikitError:
        return AikitError(f"{self.service}: settings.{key} is {self.settings[key]!r}.", f"Give {expected}.")

    def number(self, key: str, least: int = 1) -> Optional[int]:
        value = self._value(key)
        if value is None:
            return None
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, f"a whole number from {least}, or auto")
        return value

    def layers(self, key: str, total: int) -> Optional[int]:
        value = self._value(key)
        if value == "all":
            return total
        if value == -1:
            return None
        number = self.number(key, 0)
        return None if number is None else min(number, total)

    def switch(self, key: str) -> Optional[bool]:
        value = self._value(key)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).lower()
        if word in _ON:
            return True
        if word in _OFF:
            return False
        raise self._wrong(key, "on, off or auto")

    def cache_type(self, key: str) -> Optional[str]:
        value = self._value(key)
        if value is None:
            return None
        if str(value) not in CACHE_TYPES:
            raise self._wrong(key, f"one of {', '.join(CACHE_TYPES)}")
        return str(value)

    def split(self, key: str) -> Optional[tuple[int, ...]]:
        value = self._value(key)
        if value is None:
            return None
        parts = list(value) if isinstance(value, (list, tuple)) else str(value).replace("/", ",").split(",")
        try:
            numbers = tuple(int(round(float(part) * 1000)) for part in parts)
        except ValueError:
            raise self._wrong(key, "numbers with commas between them, such as 20,13") from None
        if any(number < 0 for number in numbers) or not sum(numbers):
            raise self._wrong(key, "numbers that are not all 0")
        return numbers


def explain(wish: Wish, shape: ModelShape) -> tuple[Finding, ...]:
    """Settings that do not do what people think."""
    found = []
    settings, where = wish.settings, f"{wish.service}.settings"
    total = shape.block_count + 1
    if settings.get("f16") is True:
        found.append(
            Finding(
                "warning",
                f"{where}.f16",
                0,
                "f16 does nothing for llama.cpp: its KV cache is f16 already",
                "Leave it out; cache_type_k and cache_type_v choose the type.",
            )
        )
    layers = settings.get("gpu_layers")
    if layers == COPIED_LAYERS and total != COPIED_LAYERS:
        part = f"leaves {total - COPIED_LAYERS} of its {total} layers on the CPU" if total > COPIED_LAYERS else f"means all of its {total}"
        found.append(
            Finding(
                "warning",
                f"{where}.gpu_layers",
                0,
                f"gpu_layers 35 is the number of AIKit's examples; for {shape.name or 'this model'} it {part}",
                f"Write auto, or {total} for all layers.",
            )
        )
    if settings.get("low_vram") is True:
        found.append(
            Finding(
                "info",
                f"{where}.low_vram",
                0,
                "low_vram does nothing for llama.cpp by itself; the plan honours it with a smaller batch, and a KV cache that is quantised or in"
                " host memory where it has to be",
            )
        )
    return tuple(found)


def settings(asked: _Asked, load: Load, delegated: bool, total: int) -> dict[str, Any]:
    """Explicit settings, named as in ``inference_services``."""
    if delegated:
        # llama.cpp's fit changes nothing that it was given
        return {
            "gpu_layers": "auto" if asked.layers is None else min(asked.layers, total),
            "context_size": "auto" if asked.context is None else asked.context,
            "batch": load.ubatch,
            "flash_attention": "on" if load.flash else "off",
            "cache_type_k": asked.type_k or "f16",
            "cache_type_v": asked.type_v or "f16",
            "no_kv_offloading": asked.kv_on_host,
            "n_cpu_moe": asked.cpu_moe or 0,
            "parallel": load.parallel,
            "tensor_split": ",".join(map(str, asked.split or ())),
        }
    divided = {"kv_unified": False} if asked.wish.settings.get("kv_unified") is False else {}
    several = len([count for count in load.counts if count]) > 1 or (len(load.counts) > 1 and load.gpu_layers > 0)
    return {
        "gpu_layers": min(load.gpu_layers, total),
        "context_size": load.context,
        "batch": load.ubatch,
        "flash_attention": "on" if load.flash else "off",
        "cache_type_k": load.type_k,
        "cache_type_v": load.type_v,
        "no_kv_offloading": load.kv_on_host,
        "n_cpu_moe": load.cpu_moe,
        "parallel": load.parallel,
        "tensor_split": ",".join(str(count) for count in load.counts) if several else "",
        **divided,
    }


def confidence(shape: ModelShape, load: Load, offload: str, delegated: bool) -> str:
    if delegated or not shape.known:
        return "estimated"
    if offload == "full" and shape.architecture in data_arch.VERIFIED and len([count for count in load.counts if count]) == 1:
        return "exact"
    return "known"


def reason(asked: _Asked, need: Need, rooms: Sequence[Room], policy: Policy, offload: str, holds: bool, delegated: bool) -> str:
    """Why the plan is as it is, in a sentence or two."""
    shape, load = asked.shape, need.load
    name = shape.name or asked.wish.service
    if not rooms:
        return "The service gets no GPU."
    if delegated:
        # The policy decides first: extra_mib changes nothing while that leaves it to the server
        by_policy = not shape.known and policy.unknown == "server"
        advice = "Let the policy have unknown: margin to plan it here." if by_policy else "Set extra_mib to plan it here with a margin of yours."
        return f"The memory of architecture {shape.architecture} is not known to this collection, so llama.cpp's own fit decides when it loads. {advice}"
    free = sum(max(0, room.free) for room in rooms) // MIB
    left = need.left_for_cpu(rooms)
    if not holds and left is not None and need.cpu.total > left:
        wanted = (need.cpu.total + sum(need.total(number) for number in range(len(rooms)))) // MIB
        return f"GPU and CPU share one memory: {name} needs {wanted} MiB of it in all, and {free} MiB are free for it."
    busy = _too_busy(asked, rooms, policy) if not holds else ""
    if busy:
        return busy
    if not holds and asked.layers is None and asked.cpu_moe is None:
        wanted = sum(need.total(number) for number in range(len(rooms))) // MIB
        return (
            f"Not one layer fits: {free} MiB are free for it, and computing large batches on the GPU needs {wanted} MiB by itself."
            " Give the service no GPU (gpus: [])."
        )
    if not holds:
        wanted = sum(need.total(number) for number in range(len(rooms))) // MIB
        return f"The settings asked for need {wanted} MiB on the GPU, and {free} MiB are free for it: it would run out of memory."
    what = f"Some of its tensors have a type that is not known ({', '.join(map(str, shape.unknown_types))})" if shape.unknown_types else ""
    unknown = "" if shape.known else f" {what or f'The architecture {shape.architecture} is not known'}, so its compute buffer has a margin."
    if offload == "full":
        asked_for = asked.context
        wanted = asked.shape.context_length
        if asked_for is None and wanted and load.context < wanted:
            return f"All layers fit; the context is {load.context} of the {wanted} tokens that {name} can have, because no more fit or were allowed.{unknown}"
        return f"All layers and a context of {load.context} tokens fit.{unknown}"
    if offload == "none":
        return f"Not one layer fits: {free} MiB are free for it.{unknown}"
    if load.cpu_moe:
        moved = f"{load.cpu_moe} of {shape.block_count} blocks"
        return f"All layers fit but for the experts of {moved}, which stay in host memory: {free} MiB are free for it.{unknown}"
    if need.offloaded == asked.total:
        return f"All layers fit because the KV cache stays in host memory.{unknown}"
    if asked.layers is not None:
        return f"gpu_layers asks for {asked.layers} of {asked.total} layers.{unknown}"
    return f"{need.offloaded} of {asked.total} layers fit: {free} MiB are free for it, and all of them need more.{unknown}"


def _too_busy(asked: _Asked, rooms: Sequence[Room], policy: Policy) -> str:
    """GPUs of several that have no room for what a server takes on every GPU that it sees, in a sentence; empty where there are none."""
    least = {room.gpu.index: context_mib(room.gpu, policy) + asked.wish.extra_mib for room in rooms}
    busy = [room for room in rooms if room.free < least[room.gpu.index] * MIB]
    if not busy or len(busy) == len(rooms):
        return ""
    has = " and ".join(f"{room.gpu.label} has {max(0, room.free + room.margin) // MIB} MiB for it" for room in busy)
    rest = ", ".join(str(room.gpu.index) for room in rooms if room not in busy)
    why = f"{has}, too little: a server takes {least[busy[0].gpu.index]} MiB on every GPU that it sees, and the margin stays free"
    return f"{why}. Give the service the others alone (gpus: [{rest}])."
