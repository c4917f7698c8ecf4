# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exact container of a service: a pure function of the service, its image and what its host has.

``container`` holds options of ``community.docker.docker_container``; no other engine detail is in the
specification, so another engine's options can be made from the same value. What is not asked for is
not listed: the hash over the whole specification, kept in a label, makes a removed option count.

Secrets stay out. The API key is a file that the role writes and the container gets read-only; only a
salted, slow digest of the key goes into the hash, so that a changed key replaces the container.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from . import cdi
from .errors import AikitError, Finding
from .fit_settings import to_llama_env, to_localai
from .localai import is_llama

SERVICE_LABEL = "io.aikit.fleet.service"
SPEC_LABEL = "io.aikit.fleet.spec"
USER_ID = 65532
USER = f"{USER_ID}:{USER_ID}"
CONTAINER_PORT = 8080
STATE_DIR = "/var/lib/aikit-fleet"
STOP_TIMEOUT_SECONDS = 30
# The proof reads the log of the last start; it is kept in the state file afterwards
LOG_MAX_SIZE = "64m"
LOG_MAX_FILE = "3"
KEY_ROUNDS = 100_000

API_KEY_TARGET = "/run/aikit-fleet/api-key"
# LocalAI reads this file into its environment before it looks at its options
LOCALAI_ENV_TARGET = "/etc/localai.env"
LOCALAI_CONFIG_TARGET = "/config.yaml"
CACHE_TARGET = "/cache"

# LocalAI cannot be told to do without a CPU: it drops device names that llama.cpp does not know, and loads its CPU backend
# where it finds no GPU. So nothing starts before the driver lists one.
LOCALAI_GPU_CHECK = (
    "if ! said=$(nvidia-smi --list-gpus 2>&1); then "
    'echo "aikit.fleet: this service was given GPUs, and the driver lists none: ${said}. LocalAI would use the CPU, so it is not started." >&2; exit 69; fi; '
    'exec "$@"'
)

# settings → llama-server's environment
LLAMA_SETTINGS = {
    "gpu_layers": "LLAMA_ARG_N_GPU_LAYERS",
    "context_size": "LLAMA_ARG_CTX_SIZE",
    "batch": "LLAMA_ARG_BATCH",
    "flash_attention": "LLAMA_ARG_FLASH_ATTN",
    "cache_type_k": "LLAMA_ARG_CACHE_TYPE_K",
    "cache_type_v": "LLAMA_ARG_CACHE_TYPE_V",
    "n_cpu_moe": "LLAMA_ARG_N_CPU_MOE",
    "parallel": "LLAMA_ARG_N_PARALLEL",
    "tensor_split": "LLAMA_ARG_TENSOR_SPLIT",
    "threads": "LLAMA_ARG_THREADS",
}

# settings → keys of a model in LocalAI's configuration; the others are entries of its options
LOCALAI_KEYS = ("gpu_layers", "context_size", "flash_attention", "cache_type_k", "cache_type_v", "no_kv_offloading", "tensor_split", "threads")
LOCALAI_OPTIONS = ("n_cpu_moe", "parallel")


@dataclass(frozen=True)
class GpuRequest:
    """``method`` is none, cdi or gpus (the legacy hook); ``count`` is how many devices the server will see."""

    method: str = "none"
    device_requests: tuple[Mapping[str, Any], ...] = ()
    count: int = 0


def container_spec(
    service: Mapping[str, Any],
    image: Mapping[str, Any],
    host: Mapping[str, Any],
    api_key: str = "",
    state_dir: str = STATE_DIR,
    config: Optional[Sequence[Any]] = None,
) -> dict[str, Any]:
    """Everything that role ``inference`` needs to start a service.

    :param service: an entry of ``service_plan``'s result.
    :param image: an entry of ``aikit_image_info``'s result (id, ref, digest, labels, env, entrypoint, server, runtime).
    :param host: ``host`` of ``inference_release`` step observe.
    :param config: the parsed configuration inside a LocalAI image.
    :raises AikitError: what cannot work on this host, before anything there is touched.
    """
    name = service["name"]
    server = detect_server(service, image)
    gpu = gpu_request(service.get("gpus") or (), host, name)
    threads = quota_threads(float(service.get("cpus") or 0), int(host.get("cores") or 0))
    env: dict[str, str] = {}
    mounts: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    findings: list[Finding] = []
    directory = posixpath.join(state_dir, name)
    container: dict[str, Any] = {
        "name": name,
        "state": "started",
        "image": image["id"],
        "pull": "never",
        "image_name_mismatch": "ignore",
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opts": ["no-new-privileges"],
        "restart_policy": "unless-stopped",
        "published_ports": [published_port(service["bind_address"], service["port"])],
        "log_driver": "json-file",
        "log_options": {"max-size": LOG_MAX_SIZE, "max-file": LOG_MAX_FILE},
        "stop_timeout": STOP_TIMEOUT_SECONDS,
    }
    if server == "llama_cpp":
        backends = _backends(image)
        env.update(_llama_env(service, image, gpu, backends, threads))
        if "vulkan" in backends:
            # Mesa compiles shaders for half a minute at every start unless it can keep them
            env["MESA_SHADER_CACHE_DIR"] = CACHE_TARGET
            mounts.append(_volume(cache_volume(name), CACHE_TARGET, name))
    else:
        env.update(_localai_env(config))
        named = {**(image.get("env") or {}), **(service.get("environment") or {})}
        if threads and not {"LOCALAI_THREADS", "THREADS"} & named.keys():
            # For models that say nothing of them, also where the image has no configuration
            env["LOCALAI_THREADS"] = str(threads)
        if gpu.count:
            env.update(_localai_gpu_env(image))
            container.update(_localai_gpu_start(image))
        plan = (service.get("settings") or {}) if _planned(service) else {}
        text = json.dumps(localai_override(config or (), service.get("settings") or {}, plan), indent=2, ensure_ascii=False) + "\n"
        if config:
            # Named by content, so that the configuration of the container that is kept stays as it was
            path = posixpath.join(directory, f"config-{_digest(text)[:12]}.yaml")
            files.append({"path": path, "content": text, "mode": "0444"})
            mounts.append(_bind(path, LOCALAI_CONFIG_TARGET))
        elif service.get("settings"):
            findings.append(
                Finding("warning", "settings", 0, f"{image.get('ref') or image['id']} has no {LOCALAI_CONFIG_TARGET}; settings have no effect")
            )
        # LocalAI writes beside its models; what it needs besides is gone with the container
        container["read_only"] = False
        container["tmpfs"] = [
            "/tmp:rw,exec,nosuid,nodev,mode=1777",
            f"/data:rw,noexec,nosuid,nodev,mode=0700,uid={USER_ID},gid={USER_ID}",
            f"/configuration:rw,noexec,nosuid,nodev,mode=0700,uid={USER_ID},gid={USER_ID}",
        ]
        container["healthcheck"] = {
            # No curl and no wget inside, but bash; the port opens when the models are in memory
            "test": ["CMD", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{CONTAINER_PORT}"],
            "interval": "10s",
            "timeout": "6s",
            "retries": 3,
            "start_period": f"{service.get('timeout_seconds') or 600}s",
        }
    env.update(_gpu_env(gpu, image, _backends(image)))
    if _planned(service) and gpu.count > 1:
        # A plan counts GPUs as the driver does, by their address; CUDA would put the fastest first
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env.update(service.get("environment") or {})
    api_key_file = ""
    if api_key:
        # Named by the key: the container that is kept, and a rollback, still have theirs
        api_key_file = posixpath.join(directory, f"api-key-{key_digest(name, api_key)[:12]}")
        if server == "llama_cpp":
            env["LLAMA_ARG_API_KEY_FILE"] = API_KEY_TARGET
        mounts.append(_bind(api_key_file, API_KEY_TARGET if server == "llama_cpp" else LOCALAI_ENV_TARGET))
    if gpu.device_requests:
        container["device_requests"] = [dict(request) for request in gpu.device_requests]
    if mounts:
        container["mounts"] = mounts
    if service.get("memory"):
        container["memory"] = service["memory"]
    if service.get("cpus"):
        container["cpus"] = service["cpus"]
    container["env"] = dict(sorted(env.items()))
    container["labels"] = {SERVICE_LABEL: name}
    spec = _digest(
        json.dumps(
            {"container": container, "files": files, "key": key_digest(name, api_key)}, sort_keys=True, separators=(",", ":")
        )
    )
    container["labels"][SPEC_LABEL] = spec
    return {
        "name": name,
        "server": server,
        "spec": spec,
        "container": container,
        "files": files,
        "directory": directory,
        "api_key_file": api_key_file,
        "volumes": [mount["source"] for mount in mounts if mount["type"] == "volume"],
        "gpu": {"method": gpu.method, "count": gpu.count},
        "image": {
            "ref": image.get("ref", ""),
            "id": image["id"],
            "digest": image.get("digest", ""),
            # Such an image may be removed when nobody needs it any more
            **({"built": True} if service.get("built") and server == "localai" else {}),
        },
        "settings": dict(service.get("settings") or {}),
        "expect": dict(service.get("expect") or {}),
        **({"fit": dict(service["fit"])} if service.get("fit") else {}),
        "url": service["url"],
        "ports": [{"bind_address": service["bind_address"], "port": service["port"]}],
        "findings": [finding.as_dict() for finding in findings],
    }


def detect_server(service: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """``llama_cpp`` or ``localai``, by what the service says, else by what the image is."""
    ref = image.get("ref") or image["id"]
    labels = image.get("labels") or {}
    if labels.get("ai.kaito.aikit.runner") == "true":
        raise AikitError(
            f"{ref} is a runner image of AIKit: it holds no model and ends at once without a model argument.",
            "Use an image that was built with models, or name an aikitfile with src.",
        )
    server = service.get("server") or image.get("server") or labels.get("io.aikit.fleet.server") or ""
    if server:
        return str(server)
    words = {posixpath.basename(word) for word in image.get("entrypoint") or ()}
    if "local-ai" in words or "CONFIG_FILE" in (image.get("env") or {}):
        return "localai"
    if "llama-server" in words:
        return "llama_cpp"
    raise AikitError(
        f"{ref} starts neither llama-server nor LocalAI (entrypoint: {' '.join(image.get('entrypoint') or ()) or 'none'}).",
        "Set server of the service to llama_cpp or localai if it does so in a way that cannot be seen.",
    )


def gpu_request(gpus: Sequence[str], host: Mapping[str, Any], name: str) -> GpuRequest:
    """How the host's engine gives ``gpus`` to a container; CDI where it can, else the hook behind ``--gpus``."""
    if not gpus:
        return GpuRequest()
    known = cdi.nvidia_gpus(host.get("cdi_devices") or ())
    if known:
        missing = [gpu for gpu in gpus if gpu not in known]
        if missing:
            raise AikitError(
                f"Service {name} asks for GPU {', '.join(missing)}, but the engine of this host knows only {', '.join(known)} "
                f"(CDI, {cdi.NVIDIA}).",
                "Name one of these, or write the specification anew: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml.",
            )
        count = cdi.gpu_count(known) if "all" in gpus else cdi.gpu_count(gpus)
        request: dict[str, Any] = {"driver": "cdi", "device_ids": [f"{cdi.NVIDIA}={gpu}" for gpu in gpus]}
        return GpuRequest("cdi", (request,), count or 1)
    if not host.get("nvidia_hook"):
        raise AikitError(
            f"Service {name} asks for GPUs ({', '.join(gpus)}), but this host can give none to a container: the engine knows no CDI device "
            f"{cdi.NVIDIA} and there is no nvidia-container-runtime-hook.",
            "Install NVIDIA's driver and Container Toolkit (then nvidia-ctk cdi list names the devices), or set gpus: [] for CPU.",
        )
    if "all" in gpus:
        request = {"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}
        return GpuRequest("gpus", (request,), int(host.get("gpu_count") or 1))
    request = {"driver": "nvidia", "device_ids": list(gpus), "capabilities": [["gpu"]]}
    return GpuRequest("gpus", (request,), cdi.gpu_count(gpus) or 1)


def llama_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """llama-server's environment for ``settings``. ``auto`` leaves it to the image, and then to the server."""
    env = {}
    for key, variable in LLAMA_SETTINGS.items():
        value = settings.get(key)
        if value is not None and value != "auto":
            env[variable] = str(value)
    if settings.get("no_kv_offloading") is not None:
        env["LLAMA_ARG_KV_OFFLOAD"] = "0" if settings["no_kv_offloading"] else "1"
    # auto is a value of its own here, and the server's default differs between versions
    if settings.get("flash_attention") == "auto":
        env["LLAMA_ARG_FLASH_ATTN"] = "auto"
    return env


def quota_threads(cpus: float, cores: int) -> int:
    """How many threads a server gets that may use ``cpus`` of a host with ``cores``; 0 leaves it to the server.

    Servers count the cores of the host, whatever their container may use. Their threads wait for each other at every step, so one more than
    the limit lets run has all of them wait.
    """
    return max(1, int(cpus)) if cpus and (not cores or int(cpus) < cores) else 0


def localai_override(config: Sequence[Any], settings: Mapping[str, Any], plan: Optional[Mapping[str, Any]] = None) -> list[Any]:
    """LocalAI's configuration with ``settings`` in it, and made to log what proves the offload. ``plan`` are settings that a plan made.

    Its llama.cpp backend prints no offload line below verbosity 4 since May 2026; earlier ones ignore the option.
    """
    result = []
    for model in config:
        if not isinstance(model, Mapping) or not is_llama(model.get("backend")):
            result.append(model)
            continue
        changed = _with_plan(model, plan) if plan else dict(model)
        for key in LOCALAI_KEYS:
            if settings.get(key) is not None and (settings[key] != "auto" or key == "flash_attention"):
                # LocalAI's gpu_layers is a number; more than the model has means all
                changed[key] = 99999999 if settings[key] == "all" else settings[key]
        if settings.get("batch") is not None:
            changed["parameters"] = {**(changed.get("parameters") or {}), "batch": settings["batch"]}
        extra = {key: settings[key] for key in LOCALAI_OPTIONS if settings.get(key) not in (None, "auto")}
        kept = [word for word in changed.get("options") or () if str(word).partition(":")[0] not in (*extra, "verbosity", "-lv")]
        changed["options"] = [*kept, *(f"{key}:{value}" for key, value in sorted(extra.items())), "verbosity:4"]
        result.append(changed)
    return result


def _with_plan(model: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """A model of LocalAI's configuration with what a plan decided."""
    decided = to_localai(plan)
    words = {str(option).partition(":")[0] for option in decided["options"]}
    return {
        **model,
        **decided,
        "parameters": {**(model.get("parameters") or {}), **decided["parameters"]},
        "options": [*(word for word in model.get("options") or () if str(word).partition(":")[0] not in words), *decided["options"]],
    }


def _planned(service: Mapping[str, Any]) -> bool:
    return bool((service.get("fit") or {}).get("planned"))


def published_port(bind_address: str, port: int) -> str:
    host = f"[{bind_address}]" if ":" in bind_address else bind_address
    return f"{host}:{port}:{CONTAINER_PORT}"


def cache_volume(name: str) -> str:
    """The volume of a service's shader cache."""
    return f"aikit-fleet-{name}-cache"


def api_key_content(server: str, api_key: str) -> str:
    """What stands in the file with the API key."""
    if server != "localai":
        return f"{api_key}\n"
    # Single quotes keep everything but themselves literal in a .env file
    if "'" in api_key or "\n" in api_key:
        raise AikitError("api_key holds a quote or a line break, which LocalAI's environment file cannot.", "Choose another key.")
    return f"LOCALAI_API_KEY='{api_key}'\n"


def api_key_of(text: str) -> str:
    """The key in the text that :func:`api_key_content` made; the first one where a person wrote several."""
    line = (text.strip().splitlines() or [""])[0]
    name, equals, value = line.partition("=")
    return value.strip("'") if equals and name == "LOCALAI_API_KEY" else line


def key_digest(name: str, api_key: str) -> str:
    """Slow and salted: the hash in the label can be read by everyone who may list containers."""
    if not api_key:
        return ""
    return hashlib.pbkdf2_hmac("sha256", api_key.encode("utf-8"), f"aikit.fleet:{name}".encode("utf-8"), KEY_ROUNDS).hex()


def _llama_env(service: Mapping[str, Any], image: Mapping[str, Any], gpu: GpuRequest, backends: Sequence[str], threads: int) -> dict[str, str]:
    inside = image.get("env") or {}
    needed = {"LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_ARG_PORT": str(CONTAINER_PORT), "LLAMA_ARG_LOG_VERBOSITY": "4"}
    env = {key: value for key, value in needed.items() if inside.get(key) != value}
    if threads and "LLAMA_ARG_THREADS" not in inside:
        env["LLAMA_ARG_THREADS"] = str(threads)
    settings = service.get("settings") or {}
    env.update({**llama_settings(settings), **to_llama_env(settings)} if _planned(service) else llama_settings(settings))
    if gpu.count:
        device = _device_name(service["name"], image, backends)
        # Named devices make the server end with "invalid device" where it would fall back to the CPU in silence
        env["LLAMA_ARG_DEVICE"] = ",".join(f"{device}{number}" for number in range(gpu.count))
    return env


def _device_name(name: str, image: Mapping[str, Any], backends: Sequence[str]) -> str:
    """What llama.cpp calls the GPUs. An image that does not say what it has is taken for a CUDA one."""
    if "cuda" in backends or not backends:
        return "CUDA"
    if "vulkan" in backends:
        return "Vulkan"
    raise AikitError(
        f"Service {name} asks for GPUs, but {image.get('ref') or image['id']} has only these backends of llama.cpp: {', '.join(backends)}.",
        "Set runtime: cuda in the aikitfile (and take base_variant out), or gpus: [] for CPU.",
    )


def _localai_env(config: Optional[Sequence[Any]]) -> dict[str, str]:
    env = {"LOCALAI_LOG_LEVEL": "debug", "LOCALAI_LOG_FORMAT": "json"}
    names = [str(model["name"]) for model in config or () if isinstance(model, Mapping) and model.get("name")]
    if names:
        # Loads at start, so the evidence is there before the first request
        env["LOCALAI_LOAD_TO_MEMORY"] = ",".join(names)
    return env


def _localai_gpu_env(image: Mapping[str, Any]) -> dict[str, str]:
    """LocalAI takes its CPU backend on GPUs with up to 4 GiB, and where it cannot read how much there is."""
    cuda = image.get("runtime") == "cuda" and image.get("architecture", "amd64") in ("", "amd64")
    return {"LOCALAI_FORCE_META_BACKEND_CAPABILITY": "nvidia"} if cuda else {}


def _localai_gpu_start(image: Mapping[str, Any]) -> dict[str, Any]:
    """The image's own command behind a look at the GPUs, at every start: the first, after a crash, after a reboot."""
    words = [str(word) for word in image.get("entrypoint") or ("local-ai",)]
    started: dict[str, Any] = {"entrypoint": ["bash", "-c", LOCALAI_GPU_CHECK, "aikit.fleet", *words]}
    if image.get("command"):
        # With an entrypoint of ours the engine would drop the image's command
        started["command"] = [str(word) for word in image["command"]]
    return started


def _gpu_env(gpu: GpuRequest, image: Mapping[str, Any], backends: Sequence[str]) -> dict[str, str]:
    inside = image.get("env") or {}
    if gpu.method == "gpus" and "NVIDIA_DRIVER_CAPABILITIES" not in inside:
        # The hook gives no graphics libraries otherwise, and Vulkan is among them
        return {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility,graphics" if "vulkan" in backends else "compute,utility"}
    if gpu.method == "none" and "NVIDIA_VISIBLE_DEVICES" in inside:
        # Where NVIDIA's runtime is the default, the image's own value would hand all GPUs to a CPU service
        return {"NVIDIA_VISIBLE_DEVICES": "void"}
    return {}


def _backends(image: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(word for word in (image.get("labels") or {}).get("io.aikit.fleet.backends", "").split(",") if word)


def _bind(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def _volume(source: str, target: str, service: str) -> dict[str, Any]:
    return {"type": "volume", "source": source, "target": target, "labels": {SERVICE_LABEL: service}}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
