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
import posixpath
import re
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import localai, localai_image
from .aikitfile import Aikitfile, Model, image_file, is_projector, meant, shard
from .container import LLAMA_SETTINGS
from .errors import AikitError, Finding
from .fit_shape import MAX_LAYERS
from .llama_server import DEFAULT_CONTEXT
from .services import Service, suggestion

# What ``auto`` in settings, or low_vram, lets a plan decide
AUTO_KEYS = ("gpu_layers", "context_size", "parallel")
# Settings that speak to the plan alone
PLAN_KEYS = ("low_vram", "extra_mib")
_MODEL_KEYS = ("source", "sha256", "name", "gpus", "settings")
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
# What loads beside the model, and takes memory that its header does not tell
_BESIDE = {
    "draft_model": "draft_model loads a second model, which is not planned; give what it takes as extra_mib",
    "lora_adapter": "its LoRA adapters are not planned; give the size of their files as extra_mib",
}
_BESIDE["lora_adapters"] = _BESIDE["lora_adapter"]
# ... and how llama-server is told of it
_LLAMA_BESIDE = {
    "LLAMA_ARG_SPEC_DRAFT_MODEL": "draft_model",
    "LLAMA_ARG_MODEL_DRAFT": "draft_model",
    "--spec-draft-model": "draft_model",
    "--model-draft": "draft_model",
    "-md": "draft_model",
    "--lora": "lora_adapter",
    "--lora-scaled": "lora_adapter",
}
_BY_HAND = ("override_tensor", "tensor_buft_overrides", "split_mode", "sm", "device", "devices", "grpc_servers", "rpc_servers")


def wish(service: Service, document: Optional[Aikitfile], aikit_version: str = "") -> dict[str, Any]:
    """The service for a planner, in JSON types.

    ``auto``: the settings that are left to the plan. ``settings``: all others that are known. ``files`` and ``mmproj``: the model's
    files as the aikitfile lists them; a pre-made image has its files inside (``image``). ``problem``: why it cannot be planned.
    ``server``: what will be in the image ("localai v4.0.0"), where that is known before it is built.
    """
    own = dict(service.settings)
    auto = [key for key in AUTO_KEYS if own.get(key) == "auto"]
    files: list[Model] = []
    projector: list[Model] = []
    problem = server = ""
    inside: dict[str, Any] = {}
    if document is not None:
        files, projector, inside, problem = _from_aikitfile(document)
        problem = problem or _uncounted(own, _beside(document.model_configs))
        if service.server == "localai":
            server = f"localai {localai_image.server_version(document.runtime, aikit_version)}".strip()
    if own.get("low_vram") and "gpu_layers" not in {**inside, **own}:
        # A wish that only a plan can honour
        auto = ["gpu_layers", *auto]
    # The defaults of a server are below what an image says, so those of a pre-made one wait until it was read
    settings = _merged(inside, own, auto, service.server) if document is not None else {**_decided(own), **dict.fromkeys(auto, "auto")}
    return {
        "auto": auto,
        "settings": settings,
        "files": [_file(model) for model in files],
        "mmproj": [_file(model) for model in projector],
        "problem": problem,
        "server": server,
    }


def findings(service: Service, asked: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What a service wishes for in vain."""
    if not service.settings.get("low_vram") or asked["auto"]:
        return ()
    return (
        Finding(
            "warning",
            f"{service.path}.settings.low_vram",
            0,
            "low_vram does nothing here: it is a wish for a plan, and no setting is left to one",
            "Set gpu_layers or context_size to auto, or take low_vram out.",
        ),
    )


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


def premade(services: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pre-made images that plans need to know, each once, as the service that has them."""
    found: dict[str, Mapping[str, Any]] = {}
    for service in services:
        if service.get("state") == "present" and not service.get("built") and uses_gpu(service):
            found.setdefault(str(service["image"]), service)
    return list(found.values())


def of_image(read: Mapping[str, Any], config: Sequence[Any]) -> dict[str, Any]:
    """What a pre-made image says of itself: ``settings`` inside, ``server``, ``paths`` of its model and its projector, ``problem``, and
    what it loads ``beside`` them.

    Services that share the image share this; what each of them sets itself is laid over it by :func:`with_images`.

    :param read: result of aikit_image_info; without images while the image is not there.
    :param config: the parsed configuration in an image with LocalAI.
    """
    image = next(iter(read.get("images") or ()), None)
    if image is None:
        return {"settings": {}, "server": "", "problem": "", "beside": "", "paths": []}
    env = image.get("env") or {}
    models = [entry for entry in config if isinstance(entry, Mapping) and not entry.get("disabled") and not entry.get("alias")]
    server = str(image.get("server") or "")
    paths: list[str] = []
    problem = beside = ""
    settings: dict[str, Any] = {}
    if models:
        # Only LocalAI reads such a configuration
        server = server or "localai"
        paths, settings, problem = _in_localai(models)
        beside = _beside(models)
    elif env.get("LLAMA_ARG_MODEL"):
        server = server or "llama_cpp"
        paths = [str(env[name]) for name in ("LLAMA_ARG_MODEL", "LLAMA_ARG_MMPROJ") if env.get(name)]
        settings = _from_env(env)
        words = [*env, *(str(word).partition("=")[0] for word in image.get("command") or ())]
        beside = next((_BESIDE[key] for word, key in _LLAMA_BESIDE.items() if word in words), "")
    else:
        problem = "its image does not say which model it serves (neither LLAMA_ARG_MODEL nor /config.yaml)"
        if env.get("LLAMA_ARG_MODELS_PRESET"):
            problem = _several(2)
    return {"settings": settings, "server": server, "problem": problem, "beside": beside, "paths": [] if problem else paths}


def with_images(services: Iterable[Mapping[str, Any]], read: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The services, those of pre-made images with what was read there: ``read`` maps an image to ``{wish, image, models}``."""
    result = []
    for service in services:
        found = read.get(str(service.get("image"))) if not service.get("built") else None
        inside = (found or {}).get("wish")
        if inside and service.get("wish"):
            asked = service["wish"]
            own = service.get("settings") or {}
            mine = {"paths": inside["paths"], "problem": inside["problem"] or _uncounted(own, inside["beside"])}
            if inside["paths"]:
                server = str(service.get("server") or inside["server"])
                mine["settings"] = _merged(inside["settings"], own, asked["auto"], server)
            service = {**service, "wish": {**asked, **mine}}
        result.append(dict(service))
    return result


def image_shapes(read: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The shapes of all images that were read, by :func:`image_key`."""
    return {key: shape for found in read.values() for key, shape in (found.get("models") or {}).items()}


def known_models(image: str, found: Mapping[str, Any], paths: Sequence[str], hosts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The shapes of an image's models where they were read in this run already, here or on another host; empty where one of them was not.

    :param found: the image as it is here now; what counts is its id, a tag may have moved.
    :param hosts: what each host remembers of images, as :func:`image_shapes` takes it.
    """
    for read in hosts.values():
        for name, entry in read.items():
            if found.get("id") and (entry.get("image") or {}).get("id") == found["id"]:
                models = {image_key(image, path): (entry.get("models") or {}).get(image_key(name, path)) or {} for path in paths}
                if all("shape" in model for model in models.values()):
                    return {key: {**model, "cached": True, "read_bytes": 0} for key, model in models.items()}
    return {}


def image_key(image: str, path: str) -> str:
    return f"{image}:{path}"


def server_versions(builds: Mapping[str, Mapping[str, Any]], read: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By image, what serves in it: ``llama_cpp 0.7.0``. Images that do not say it are left out.

    :param builds: what role inference remembers of its builds, ``{image, request}`` by reference.
    """
    found = {}
    for name, entry in [*builds.items(), *read.items()]:
        image = entry.get("image") or {}
        # AIKit's images have no labels; ours say in annotations what is in them, those of AIKit's frontend nowhere
        told = {**(image.get("annotations") or {}), **(image.get("labels") or {})}
        server = str(image.get("server") or told.get("io.aikit.fleet.server") or "")
        version = str(told.get("io.aikit.fleet.server.version") or "")
        if server == "localai" and not version and name in builds:
            version = localai_image.server_version(str(image.get("runtime") or ""), str((entry.get("request") or {}).get("aikit_version") or ""))
        if server:
            found[name] = f"{server} {version}".strip()
    return found


def models_as_services(models: Any, settings: Any = None) -> list[dict[str, Any]]:
    """``inference_plan_models`` as services that leave everything to the plan.

    An entry is a source, or a mapping with ``source`` and ``sha256``, ``name``, ``gpus``, ``settings``.
    """
    if isinstance(models, (str, Mapping)) or not isinstance(models, Sequence):
        raise AikitError("inference_plan_models must be a list.", "Each entry is the source of a model, or a mapping with source and sha256.")
    result: list[dict[str, Any]] = []
    for index, raw in enumerate(models):
        entry: Any = {"source": raw} if isinstance(raw, str) else raw
        where = f"inference_plan_models[{index}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("source"), str):
            raise AikitError(f"{where} has no source.", "Write the source of a model as in an aikitfile, or a mapping with source and sha256.")
        for key in entry:
            if key not in _MODEL_KEYS:
                raise AikitError(f"{where}.{key} is no key of a model.", suggestion(str(key), _MODEL_KEYS) or f"Known: {', '.join(_MODEL_KEYS)}.")
        name = re.sub(r"[^A-Za-z0-9_.-]+|-{2,}", "-", str(entry.get("name") or posixpath.basename(entry["source"].partition("?")[0]))).strip("-._")
        # A container's name has two characters at least
        name = name if len(name) > 1 else f"model-{name or index}"
        # An aikitfile has no absolute paths: they start from a folder on the builder
        local = entry["source"].startswith("/")
        model = {"name": name, "source": posixpath.basename(entry["source"]) if local else entry["source"]}
        if entry.get("sha256"):
            model["sha256"] = entry["sha256"]
        result.append(
            {
                "name": name[:50] if name[:50] not in [other["name"] for other in result] else f"{name[:50]}.{index}",
                "definition": {"apiVersion": "v1alpha1", "runtime": "cuda", "models": [model]},
                **({"context": posixpath.dirname(entry["source"])} if local else {}),
                "image": f"localhost/aikit/plan:{index}",
                "gpus": entry.get("gpus") or ["all"],
                # They are never started; each service of a host has to have a port of its own
                "port": 1024 + index,
                "settings": {**dict.fromkeys(("gpu_layers", "context_size"), "auto"), **(settings or {}), **(entry.get("settings") or {})},
            }
        )
    return result


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


def _beside(entries: Iterable[Mapping[str, Any]]) -> str:
    """What the active models of a configuration load beside them, as a reason why it is not planned."""
    active = [entry for entry in entries if not entry.get("disabled") and not entry.get("alias")]
    return next((words for key, words in _BESIDE.items() if any(entry.get(key) for entry in active)), "")


def _uncounted(own: Mapping[str, Any], beside: str) -> str:
    """Nothing, once somebody says how much it is."""
    return "" if own.get("extra_mib") else beside


def _in_localai(models: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Any], str]:
    """Paths, settings and the problem of a LocalAI configuration."""
    if len(models) != 1:
        return [], {}, _several(len(models))
    entry = models[0]
    if not localai.is_llama(entry.get("backend")):
        return [], {}, f"backend {entry.get('backend')} is not llama.cpp, and only that is planned"
    settings, problem = _settings(entry)
    names = [str((entry.get("parameters") or {}).get("model") or ""), str(entry.get("mmproj") or "")]
    if not names[0]:
        return [], settings, problem or "parameters.model of its configuration is not set"
    return [name if name.startswith("/") else f"/models/{name}" for name in names if name], settings, problem


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    """What the variables of an image with llama-server set."""
    found: dict[str, Any] = {}
    for key, variable in LLAMA_SETTINGS.items():
        value = env.get(variable)
        if value and key != "threads":
            found[key] = int(value) if value.lstrip("-").isdigit() else value
    if env.get("LLAMA_ARG_UBATCH", "").isdigit():
        found["batch"] = int(env["LLAMA_ARG_UBATCH"])
    else:
        found.pop("batch", None)
    if env.get("LLAMA_ARG_KV_OFFLOAD"):
        found["no_kv_offloading"] = env["LLAMA_ARG_KV_OFFLOAD"].lower() in _OFF
    return found


def _decided(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a service's settings a plan has to know."""
    return {key: value for key, value in settings.items() if key != "threads"}


def _merged(inside: Mapping[str, Any], own: Mapping[str, Any], auto: Sequence[str], server: str) -> dict[str, Any]:
    """The service's settings over those of its aikitfile or its image, and below both what the server does by itself."""
    settings = {**inside, **_decided(own)}
    if not auto:
        # Nobody honours it then
        settings.pop("low_vram", None)
        _as_the_server_would(settings, server)
    return {**settings, **dict.fromkeys(auto, "auto")}


def _as_the_server_would(settings: dict[str, Any], server: str) -> None:
    settings.setdefault("context_size", DEFAULT_CONTEXT)
    if server == "localai":
        settings.setdefault("gpu_layers", "all")
    else:
        settings.setdefault("gpu_layers", "auto")
        settings.setdefault("parallel", SERVER_SLOTS)
