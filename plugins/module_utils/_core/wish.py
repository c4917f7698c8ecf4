# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service leaves to the plan of its host's GPU memory, and what is decided already.

A setting of the service wins over the same setting in the aikitfile's config; ``auto`` in the service leaves it to the plan,
whatever the aikitfile says. What neither of them says is what the server would do by itself, so that a service without ``auto`` can be
counted too: it takes memory that the others cannot have.
"""

from __future__ import annotations

import hashlib
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import localai
from .aikitfile import Aikitfile, Model, image_file, is_projector, meant, shard
from .fit_shape import MAX_LAYERS
from .llama_server import DEFAULT_CONTEXT
from .services import Service

# What ``auto`` in settings, or low_vram, lets a plan decide
AUTO_KEYS = ("gpu_layers", "context_size", "parallel")
# llama-server's slots when nobody says how many
SERVER_SLOTS = 4

_SAME = ("gpu_layers", "context_size", "cache_type_k", "cache_type_v", "no_kv_offloading", "tensor_split", "low_vram", "f16", "embeddings", "reranking")
_OPTIONS = {"parallel": "parallel", "n_parallel": "parallel", "n_cpu_moe": "n_cpu_moe", "ubatch": "batch", "n_ubatch": "batch"}
_SWITCHES = {
    "swa_full": "swa_full",
    "kv_unified": "kv_unified",
    "unified_kv": "kv_unified",
    "mmproj_use_gpu": "mmproj_offload",
    "mmproj_offload": "mmproj_offload",
}
_OFF = ("false", "0", "no", "off", "disabled")
_BY_HAND = ("override_tensor", "tensor_buft_overrides", "split_mode", "sm", "device", "devices", "grpc_servers", "rpc_servers")


def wish(service: Service, document: Optional[Aikitfile]) -> dict[str, Any]:
    """The service for a planner, in JSON types.

    ``auto``: the settings that are left to the plan. ``settings``: all others that are known. ``files`` and ``mmproj``: the model's
    files as the aikitfile lists them; a pre-made image has its files inside (``image``). ``problem``: why it cannot be planned.
    """
    own = dict(service.settings)
    auto = [key for key in AUTO_KEYS if own.get(key) == "auto"]
    files: list[Model] = []
    projector: list[Model] = []
    problem = ""
    settings: dict[str, Any] = {}
    if document is not None:
        files, projector, settings, problem = _from_aikitfile(document)
    settings.update({key: value for key, value in own.items() if key != "threads"})
    if own.get("low_vram") and "gpu_layers" not in settings:
        # A wish that only a plan can honour
        auto = ["gpu_layers", *auto]
    if not auto:
        # Nobody honours the aikitfile's then
        settings.pop("low_vram", None)
        _as_the_server_would(settings, service.server)
    settings.update((key, "auto") for key in auto)
    return {
        "auto": auto,
        "settings": settings,
        "files": [_file(model) for model in files],
        "mmproj": [_file(model) for model in projector],
        "problem": problem,
    }


def needed_files(plans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The models, each once, whose headers plans need: ``{key, files, context}``. ``plans`` are results of service_plan."""
    found: dict[str, dict[str, Any]] = {}
    for plan in plans:
        for service in plan.get("services") or ():
            for files in files_of(service):
                found.setdefault(key_of(files, service.get("context") or ""), {"files": files, "context": service.get("context") or ""})
    return [{"key": key, **found[key]} for key in sorted(found)]


def files_of(service: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The model and the projector of a service that uses a GPU, as lists of parts."""
    asked = service.get("wish") or {}
    if service.get("state") != "present" or not uses_gpu(service) or asked.get("problem"):
        return []
    return [files for files in (asked.get("files"), asked.get("mmproj")) if files]


def uses_gpu(service: Mapping[str, Any]) -> bool:
    """Whether a service computes on GPUs of its host. A Vulkan build takes those that its container sees, with or without ``gpus``."""
    return bool(service.get("gpus")) or service.get("runtime") == "applesilicon" or service.get("base_variant") == "vulkan"


def key_of(files: Sequence[Mapping[str, Any]], context: str) -> str:
    """One name for a model: its digests where they are known, else where it comes from."""
    parts = []
    for entry in files:
        local = "://" not in entry["source"] and not entry["source"].startswith("/")
        parts.append(entry["sha256"] or (f"{context}:{entry['source']}" if local else entry["source"]))
    # A source can hold the signature of a URL, and keys are shown
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _file(model: Model) -> dict[str, Any]:
    return {"name": model.name, "source": model.source, "sha256": model.sha256 or ""}


def _from_aikitfile(document: Aikitfile) -> tuple[list[Model], list[Model], dict[str, Any], str]:
    by_file = {image_file(model) or model.name: model for model in document.models}
    configs = [entry for entry in document.model_configs if not entry.get("disabled") and not entry.get("alias")]
    if not configs:
        main = [name for name in by_file if not is_projector(name) and shard(name)[0] == 1]
        projectors = [name for name in by_file if is_projector(name)]
        if len(main) != 1:
            return [], [], {}, _several(len(main))
        return _parts(by_file, main[0]), [by_file[name] for name in projectors] if len(projectors) == 1 else [], {}, ""
    if len(configs) != 1:
        return [], [], {}, _several(len(configs))
    entry = configs[0]
    if not localai.is_llama(entry.get("backend")):
        return [], [], {}, f"backend {entry.get('backend')} is not llama.cpp, and only that is planned"
    settings, problem = _settings(entry)
    reference = str((entry.get("parameters") or {}).get("model") or "")
    named = meant(by_file, reference) if reference else []
    if not named and not reference and len(by_file) == 1:
        named = list(by_file)
    if len(named) != 1:
        return [], [], settings, problem or f"parameters.model ({reference or 'not set'}) names no file of the aikitfile"
    projector = meant(by_file, str(entry.get("mmproj"))) if entry.get("mmproj") else []
    return _parts(by_file, named[0]), [by_file[name] for name in projector[:1]], settings, problem


def _several(count: int) -> str:
    if not count:
        return "the aikitfile lists no model"
    return f"it serves {count} models from one container, and the plan is for one; give each a service of its own"


def _parts(by_file: Mapping[str, Model], name: str) -> list[Model]:
    """A model's file, or all the parts of it."""
    _number, count = shard(name)
    if count == 1:
        return [by_file[name]]
    stem = name[: name.rfind("-00001-of-")]
    found = {shard(other)[0]: model for other, model in by_file.items() if other.startswith(f"{stem}-") and shard(other)[1] == count}
    return [found[number] for number in sorted(found)]


def _settings(entry: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The settings of one model of ``config`` in the words of a service, and what in them cannot be planned."""
    found = {key: entry[key] for key in _SAME if entry.get(key) is not None}
    batch = (entry.get("parameters") or {}).get("batch")
    if batch:
        found["batch"] = batch
    flash = entry.get("flash_attention")
    if flash is not None:
        word = str(flash).lower()
        found["flash_attention"] = {"true": "on", "enabled": "on", "false": "off", "disabled": "off"}.get(word, word)
    problem = ""
    if entry.get("draft_model"):
        problem = "draft_model loads a second model, which is not planned"
    for option in entry.get("options") or ():
        name, _colon, value = str(option).partition(":")
        if name in _OPTIONS and value.lstrip("-").isdigit():
            found[_OPTIONS[name]] = int(value)
        elif name in _SWITCHES:
            found[_SWITCHES[name]] = value.lower() not in _OFF
        elif name == "cpu_moe" and value.lower() not in _OFF:
            found["n_cpu_moe"] = MAX_LAYERS
        elif name in _BY_HAND or name.startswith("-"):
            problem = problem or f"options: {option} places the model by hand, which is not planned"
    # LocalAI reads 0 as "not set"
    if not found.get("context_size"):
        found.pop("context_size", None)
    return found, problem


def _as_the_server_would(settings: dict[str, Any], server: str) -> None:
    settings.setdefault("context_size", DEFAULT_CONTEXT)
    if server == "localai":
        settings.setdefault("gpu_layers", "all")
    else:
        settings.setdefault("gpu_layers", "auto")
        settings.setdefault("parallel", SERVER_SLOTS)
