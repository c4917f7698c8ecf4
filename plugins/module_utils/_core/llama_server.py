# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the model settings of an aikitfile (LocalAI's words) to the settings of llama.cpp's own server.

The server changes its options from release to release and stops at one that it does not know. So every setting is looked up
in the options of the very server that will run (its ``--help``, recorded with the base image): as a variable
``LLAMA_ARG_*`` where there is one, because a host can override that without a new image, else as an argument.

Several models run in the server's router mode: settings that all of them share stay variables, the others go into a preset file.
"""

from __future__ import annotations

import fnmatch
import json
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Optional

from . import localai
from .aikitfile import Aikitfile, is_projector, meant, shard
from .errors import Finding

if TYPE_CHECKING:
    from .base import Server

PORT = 8080
# The lines that say where a model's layers went are printed from this level on
LOG_VERBOSITY = 4
# LocalAI's upper limit when context_size is not set. The server's own default is all that the model was trained for, which
# for today's models can need more memory than the model itself. It lowers the number by itself for smaller models.
DEFAULT_CONTEXT = 8192
DIRECTORY = "/aikit"
# The server's whole numbers have 32 bits
INT_MAX = 2**31 - 1


@dataclass(frozen=True)
class ServerSettings:
    """What the image needs: variables, the arguments that have no variable, files by their path, and remarks."""

    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Flag:
    """One setting of the server under all the names it has had, newest first.

    ``off`` are the names that switch it off. Kinds: ``value``, ``switch`` (on or off), ``words`` (may be given more than once).
    """

    names: tuple[str, ...]
    off: tuple[str, ...] = ()
    kind: str = "value"


def _value(*names: str) -> Flag:
    return Flag(names)


def _switch(names: Iterable[str], off: Iterable[str] = ()) -> Flag:
    return Flag(tuple(names), tuple(off), "switch")


# Source: llama-server 0.7.0 (build 11669) --help, and the older names of github.com/ggml-org/llama.cpp common/arg.cpp. Read 2026-11.
FLAGS: Mapping[str, Flag] = {
    "model": _value("--model", "-m"),
    "alias": _value("--alias", "-a"),
    "host": _value("--host"),
    "port": _value("--port"),
    "log_verbosity": _value("--verbosity", "--log-verbosity", "-lv"),
    "models_preset": _value("--models-preset"),
    "models_max": _value("--models-max"),
    "threads": _value("--threads", "-t"),
    "threads_batch": _value("--threads-batch", "-tb"),
    "ctx_size": _value("--ctx-size", "-c"),
    "predict": _value("--predict", "--n-predict", "-n"),
    "batch_size": _value("--batch-size", "-b"),
    "ubatch_size": _value("--ubatch-size", "-ub"),
    "keep": _value("--keep"),
    "swa_full": _switch(["--swa-full"]),
    "flash_attn": _value("--flash-attn", "-fa"),
    "rope_scaling": _value("--rope-scaling"),
    "rope_freq_base": _value("--rope-freq-base"),
    "rope_freq_scale": _value("--rope-freq-scale"),
    "yarn_ext_factor": _value("--yarn-ext-factor"),
    "yarn_attn_factor": _value("--yarn-attn-factor"),
    "yarn_beta_slow": _value("--yarn-beta-slow"),
    "yarn_beta_fast": _value("--yarn-beta-fast"),
    "kv_offload": _switch(["--kv-offload", "-kvo"], ["--no-kv-offload", "-nkvo"]),
    "cache_type_k": _value("--cache-type-k", "-ctk"),
    "cache_type_v": _value("--cache-type-v", "-ctv"),
    "rpc": _value("--rpc"),
    "load_mode": _value("--load-mode", "-lm"),
    "mmap": _switch(["--mmap"], ["--no-mmap"]),
    "mlock": _switch(["--mlock"]),
    "direct_io": _switch(["--direct-io", "-dio"], ["--no-direct-io", "-ndio"]),
    "numa": _value("--numa"),
    "device": _value("--device", "-dev"),
    "override_tensor": _value("--override-tensor", "-ot"),
    "cpu_moe": _switch(["--cpu-moe", "-cmoe"]),
    "n_cpu_moe": _value("--n-cpu-moe", "-ncmoe"),
    "gpu_layers": _value("--gpu-layers", "--n-gpu-layers", "-ngl"),
    "split_mode": _value("--split-mode", "-sm"),
    "tensor_split": _value("--tensor-split", "-ts"),
    "main_gpu": _value("--main-gpu", "-mg"),
    "fit": _value("--fit", "-fit"),
    "fit_target": _value("--fit-target", "-fitt"),
    "fit_ctx": _value("--fit-ctx", "-fitc"),
    "check_tensors": _switch(["--check-tensors"]),
    "override_kv": _value("--override-kv"),
    "op_offload": _switch(["--op-offload"], ["--no-op-offload"]),
    "lora": _value("--lora"),
    "lora_scaled": _value("--lora-scaled"),
    "seed": _value("--seed", "-s"),
    "ignore_eos": _switch(["--ignore-eos"]),
    "temperature": _value("--temperature", "--temp"),
    "top_k": _value("--top-k"),
    "top_p": _value("--top-p"),
    "min_p": _value("--min-p"),
    "typical_p": _value("--typical-p", "--typical"),
    "repeat_last_n": _value("--repeat-last-n"),
    "repeat_penalty": _value("--repeat-penalty"),
    "presence_penalty": _value("--presence-penalty"),
    "frequency_penalty": _value("--frequency-penalty"),
    "mirostat": _value("--mirostat"),
    "mirostat_lr": _value("--mirostat-lr"),
    "mirostat_ent": _value("--mirostat-ent"),
    "grammar_file": _value("--grammar-file"),
    "reverse_prompt": Flag(("--reverse-prompt", "-r"), (), "words"),
    "spec_type": _value("--spec-type"),
    "spec_draft_model": _value("--spec-draft-model", "--model-draft", "-md"),
    "spec_draft_n_max": _value("--spec-draft-n-max", "--draft-max", "--draft-n", "--draft"),
    "spec_draft_n_min": _value("--spec-draft-n-min", "--draft-min", "--draft-n-min"),
    "spec_draft_p_min": _value("--spec-draft-p-min", "--draft-p-min"),
    "spec_draft_p_split": _value("--spec-draft-p-split", "--draft-p-split"),
    "spec_draft_ngl": _value("--spec-draft-ngl", "--gpu-layers-draft", "--n-gpu-layers-draft", "-ngld"),
    "spec_draft_type_k": _value("--spec-draft-type-k", "--cache-type-k-draft", "-ctkd"),
    "spec_draft_type_v": _value("--spec-draft-type-v", "--cache-type-v-draft", "-ctvd"),
    "spec_draft_threads": _value("--spec-draft-threads", "--threads-draft", "-td"),
    "spec_draft_threads_batch": _value("--spec-draft-threads-batch", "--threads-batch-draft", "-tbd"),
    "spec_draft_cpu_moe": _switch(["--spec-draft-cpu-moe", "--cpu-moe-draft", "-cmoed"]),
    "spec_draft_n_cpu_moe": _value("--spec-draft-n-cpu-moe", "--spec-draft-ncmoe", "--n-cpu-moe-draft", "-ncmoed"),
    "spec_draft_override_tensor": _value("--spec-draft-override-tensor", "--override-tensor-draft", "-otd"),
    "ctx_checkpoints": _value("--ctx-checkpoints", "--swa-checkpoints", "-ctxcp"),
    "checkpoint_min_step": _value("--checkpoint-min-step", "-cms"),
    "cache_ram": _value("--cache-ram", "-cram"),
    "kv_unified": _switch(["--kv-unified", "-kvu"], ["--no-kv-unified", "-no-kvu"]),
    "cache_idle_slots": _switch(["--cache-idle-slots"], ["--no-cache-idle-slots"]),
    "context_shift": _switch(["--context-shift"], ["--no-context-shift"]),
    "warmup": _switch(["--warmup"], ["--no-warmup"]),
    "pooling": _value("--pooling"),
    "parallel": _value("--parallel", "-np"),
    "cont_batching": _switch(["--cont-batching", "-cb"], ["--no-cont-batching", "-nocb"]),
    "mmproj": _value("--mmproj", "-mm"),
    "mmproj_offload": _switch(["--mmproj-offload"], ["--no-mmproj-offload"]),
    "image_min_tokens": _value("--image-min-tokens"),
    "image_max_tokens": _value("--image-max-tokens"),
    "embd_normalize": _value("--embd-normalize"),
    "embeddings": _switch(["--embeddings", "--embedding"]),
    "reranking": _switch(["--reranking", "--rerank"]),
    "chat_template_kwargs": _value("--chat-template-kwargs"),
    "cache_reuse": _value("--cache-reuse"),
    "jinja": _switch(["--jinja"], ["--no-jinja"]),
    "reasoning_format": _value("--reasoning-format"),
    "reasoning_effort": _value("--reasoning-effort"),
    "reasoning_budget": _value("--reasoning-budget"),
    "chat_template_file": _value("--chat-template-file"),
    "prefill_assistant": _switch(["--prefill-assistant"], ["--no-prefill-assistant"]),
    "slot_prompt_similarity": _value("--slot-prompt-similarity", "-sps"),
}
_BY_NAME = {name: key for key, flag in FLAGS.items() for name in (*flag.names, *flag.off)}

# A model's keys, and those of its parameters, that carry over as they are
_MODEL_FLAGS = {
    "threads": "threads",
    "cache_type_k": "cache_type_k",
    "cache_type_v": "cache_type_v",
    "main_gpu": "main_gpu",
    "rope_scaling": "rope_scaling",
    "yarn_ext_factor": "yarn_ext_factor",
    "yarn_attn_factor": "yarn_attn_factor",
    "yarn_beta_slow": "yarn_beta_slow",
    "yarn_beta_fast": "yarn_beta_fast",
    "n_draft": "spec_draft_n_max",
    "mirostat": "mirostat",
    "mirostat_eta": "mirostat_lr",
    "mirostat_tau": "mirostat_ent",
    "reasoning_effort": "reasoning_effort",
}
_PARAMETER_FLAGS = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "max_tokens": "predict",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "n_keep": "keep",
    "rope_freq_base": "rope_freq_base",
    "rope_freq_scale": "rope_freq_scale",
}
# Numbers that LocalAI reads as "not set" when they are 0
_ZERO_IS_UNSET = {
    "threads",
    "predict",
    "repeat_penalty",
    "repeat_last_n",
    "frequency_penalty",
    "presence_penalty",
    "keep",
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_slow",
    "yarn_beta_fast",
    "spec_draft_n_max",
    "mirostat",
}
# Words of ``options``, and the settings they mean. The first word of a pair is LocalAI's own.
_OPTIONS = {
    "context_shift": "context_shift",
    "use_jinja": "jinja",
    "jinja": "jinja",
    "cache_ram": "cache_ram",
    "parallel": "parallel",
    "n_parallel": "parallel",
    "grpc_servers": "rpc",
    "rpc_servers": "rpc",
    "fit_params": "fit",
    "fit": "fit",
    "fit_params_target": "fit_target",
    "fit_target": "fit_target",
    "fit_params_min_ctx": "fit_ctx",
    "fit_ctx": "fit_ctx",
    "n_cache_reuse": "cache_reuse",
    "cache_reuse": "cache_reuse",
    "slot_prompt_similarity": "slot_prompt_similarity",
    "sps": "slot_prompt_similarity",
    "swa_full": "swa_full",
    "cont_batching": "cont_batching",
    "continuous_batching": "cont_batching",
    "check_tensors": "check_tensors",
    "warmup": "warmup",
    "no_op_offload": "op_offload",
    "device": "device",
    "devices": "device",
    "split_mode": "split_mode",
    "sm": "split_mode",
    "kv_unified": "kv_unified",
    "unified_kv": "kv_unified",
    "n_ctx_checkpoints": "ctx_checkpoints",
    "ctx_checkpoints": "ctx_checkpoints",
    "cache_idle_slots": "cache_idle_slots",
    "idle_slots_cache": "cache_idle_slots",
    "checkpoint_min_step": "checkpoint_min_step",
    "checkpoint_min_spacing": "checkpoint_min_step",
    "checkpoint_every_nt": "checkpoint_min_step",
    "checkpoint_every_n_tokens": "checkpoint_min_step",
    "n_ubatch": "ubatch_size",
    "ubatch": "ubatch_size",
    "threads_batch": "threads_batch",
    "n_threads_batch": "threads_batch",
    "pooling_type": "pooling",
    "pooling": "pooling",
    "verbosity": "log_verbosity",
    "direct_io": "direct_io",
    "use_direct_io": "direct_io",
    "embd_normalize": "embd_normalize",
    "embedding_normalize": "embd_normalize",
    "reasoning_format": "reasoning_format",
    "enable_reasoning": "reasoning_budget",
    "reasoning_budget": "reasoning_budget",
    "prefill_assistant": "prefill_assistant",
    "mmproj_use_gpu": "mmproj_offload",
    "mmproj_offload": "mmproj_offload",
    "image_min_tokens": "image_min_tokens",
    "image_max_tokens": "image_max_tokens",
    "override_tensor": "override_tensor",
    "tensor_buft_overrides": "override_tensor",
    "spec_type": "spec_type",
    "speculative_type": "spec_type",
    "spec_n_max": "spec_draft_n_max",
    "draft_max": "spec_draft_n_max",
    "spec_n_min": "spec_draft_n_min",
    "draft_min": "spec_draft_n_min",
    "spec_p_min": "spec_draft_p_min",
    "draft_p_min": "spec_draft_p_min",
    "spec_p_split": "spec_draft_p_split",
    "draft_gpu_layers": "spec_draft_ngl",
    "draft_cache_type_k": "spec_draft_type_k",
    "spec_draft_cache_type_k": "spec_draft_type_k",
    "draft_cache_type_v": "spec_draft_type_v",
    "spec_draft_cache_type_v": "spec_draft_type_v",
    "draft_threads": "spec_draft_threads",
    "spec_draft_threads": "spec_draft_threads",
    "draft_threads_batch": "spec_draft_threads_batch",
    "spec_draft_threads_batch": "spec_draft_threads_batch",
    "draft_cpu_moe": "spec_draft_cpu_moe",
    "spec_draft_cpu_moe": "spec_draft_cpu_moe",
    "draft_n_cpu_moe": "spec_draft_n_cpu_moe",
    "spec_draft_n_cpu_moe": "spec_draft_n_cpu_moe",
    "cpu_moe": "cpu_moe",
    "n_cpu_moe": "n_cpu_moe",
    "draft_override_tensor": "spec_draft_override_tensor",
    "spec_draft_override_tensor": "spec_draft_override_tensor",
}
_OPTION_OFF = ("no_op_offload",)
# What an image decides, and no model
_RESERVED = ("model", "alias", "host", "port", "models_preset", "models_max")
# Flags that no image may have, as patterns of their names (short ones too, for servers whose help nobody has read): the first
# that fits one of a flag's spellings counts
_REFUSED = (
    (
        ("--help", "-h", "--usage", "--version", "--license", "--list-devices", "--cache-list", "-cl", "--completion-bash", "--log-disable", "--log-file"),
        "does not let the server serve, or show its evidence",
        "remove it",
    ),
    (
        ("--api-key", "--api-key-file"),
        "would put a key into the image, for everybody who has the image",
        "remove it, and set api_key at the service, in inference_services",
    ),
    (
        ("--hf-token", "-hft"),
        "would put a token into the image, for everybody who has the image",
        "remove it; a token for the sources of models is given to the build (inference_model_token)",
    ),
    (
        (
            *("--hf-*", "-hf*", "--spec-draft-hf", "--model-url", "-mu", "--mmproj-url", "-mmu", "--docker-repo", "-dr"),
            *("--fim-*-default", "--fim-*-spec", "--gpt-oss-*-default", "--embd-*-default", "--vision-*-default"),
        ),
        "lets the server fetch a model when it starts",
        "remove it, and list the model under models: the image holds what it serves",
    ),
    (
        ("--api-prefix", "--ssl-*", "--reuse-port", "--models-*"),
        "changes where or how the server answers, which is set by the image and the service",
        "remove it",
    ),
    (
        ("--path", "--media-path", "--tools", "--tools-*", "--mcp-*", "--agent", "--ui-mcp-proxy"),
        "opens more than the models to clients: files, commands or other servers",
        "remove it",
    ),
)

# Keys that need no setting here and no remark: names, descriptions, and those the aikitfile's own check has remarked on
_SILENT = {
    "name",
    "alias",
    "backend",
    "parameters",
    "template",
    "description",
    "usage",
    "known_usecases",
    "known_input_modalities",
    "known_output_modalities",
    "debug",
    "disabled",
    "pinned",
    "cuda",
    "f16",
    "low_vram",
    "grpc",
    "feature_flags",
    "lora_base",
}
_UNTRANSLATABLE = {
    "system_prompt": ("is not set by the server: every client sends its own", "send it as the first message"),
    "function": (
        "LocalAI's function calling is not there: the server uses the tool format of the model's own chat template",
        "leave it out",
    ),
    "roles": ("is for Go templates: the roles' names come from the model's own chat template", "leave it out"),
    "download_files": ("nothing is downloaded when the server runs", "list the files under models"),
    "artifacts": ("nothing is downloaded when the server runs", "list the files under models"),
    "reasoning": ("is LocalAI's own", "use options: [reasoning_format:…] and [reasoning_budget:…]"),
}

_ON = ("true", "1", "yes", "on", "enabled")
_OFF = ("false", "0", "no", "off", "disabled")
_JINJA = re.compile(r"\{%|\{\{-?\s*(messages|bos_token|eos_token|add_generation_prompt|raise_exception)\b")
_RAW_PROMPT = re.compile(r"\s*\{\{-?\s*\.Input\s*-?\}\}\s*\Z")


def translate(
    aikitfile: Aikitfile,
    server: Server,
    models: Mapping[str, str],
    metadata: Optional[Mapping[str, Mapping[str, Any]]] = None,
) -> ServerSettings:
    """The settings under which ``server`` serves the models of ``aikitfile``.

    ``models`` maps the name of a model to the path of its file in the image. ``metadata`` holds, by the same names, the
    metadata of GGUF files where it is known; without it an embedding model is taken to have no pooling of its own.
    Findings of level error are for the caller to raise: the rest is then not complete.
    """
    context = _Context(aikitfile, server, models, metadata or {})
    if not server.options:
        context.error(
            "", f"the options of {context.version()} are not known", "build the base on a machine of its own architecture, where the server can be asked"
        )
        return ServerSettings(findings=tuple(context.findings))
    served = _served(context)
    common = [
        Setting("host", "0.0.0.0"),
        Setting("port", str(PORT)),
        Setting("log_verbosity", str(max([LOG_VERBOSITY, *(model.verbosity for model in served)]))),
    ]
    if not served and not any(finding.level == "error" for finding in context.findings):
        context.error("models", "there is no model to serve", "list one under models")
    if not served:
        return ServerSettings(findings=tuple(context.findings))
    if len(served) == 1:
        settings = _Output(context)
        settings.add(common)
        settings.add(served[0].all())
        return settings.done()
    return _router(context, served, common)


@dataclass(frozen=True)
class Setting:
    """A setting of the server, and where it comes from. ``value`` is a bool for switches."""

    key: str
    value: Any
    path: str = ""


class _Context:
    """What a translation reads from, and the findings it adds to."""

    def __init__(self, aikitfile: Aikitfile, server: Server, models: Mapping[str, str], metadata: Mapping[str, Mapping[str, Any]]) -> None:
        self.aikitfile = aikitfile
        self.server = server
        self.models = models
        self.metadata = metadata
        self.findings: list[Finding] = []
        self.files: dict[str, str] = {}

    def error(self, path: str, message: str, hint: str = "") -> None:
        self._add("error", path, message, hint)

    def warning(self, path: str, message: str, hint: str = "") -> None:
        self._add("warning", path, message, hint)

    def _add(self, level: str, path: str, message: str, hint: str) -> None:
        finding = Finding(level, path, self.aikitfile.line(path), message, hint)
        if finding not in self.findings:
            self.findings.append(finding)

    def file(self, path: str, reference: str) -> Optional[tuple[str, str]]:
        """Name and path in the image of the model that ``reference`` names."""
        files = {where[len("/models/") :] if where.startswith("/models/") else where.lstrip("/"): name for name, where in self.models.items()}
        found = meant(files, reference)
        if len(found) == 1:
            return files[found[0]], self.models[files[found[0]]]
        if found:
            self.error(path, f"{localai.describe(reference)} is the name of several files: {', '.join(found)}", f"write {found[0]}, with its folder")
            return None
        hint = localai.did_you_mean(reference, files, f"files in the image: {', '.join(files) or 'none'}")
        self.error(path, f"{localai.describe(reference)} is no file of the image", hint)
        return None

    def write(self, folder: str, name: str, suffix: str, text: str) -> str:
        """Put ``text`` into the image and return its path."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", name).strip(".") or "model"
        path = f"{DIRECTORY}/{folder}/{stem}{suffix}"
        number = 2
        while self.files.get(path, text) != text:
            path = f"{DIRECTORY}/{folder}/{stem}-{number}{suffix}"
            number += 1
        self.files[path] = text
        return path

    def version(self) -> str:
        return f"llama-server {self.server.version}" + (f" (build {self.server.build})" if self.server.build else "")


@dataclass
class _Served:
    """One model that the server offers: its name, its file and its settings."""

    name: str
    file: str
    settings: list[Setting]
    path: str
    aliases: list[str] = field(default_factory=list)
    verbosity: int = LOG_VERBOSITY

    def all(self) -> list[Setting]:
        alias = ",".join([self.name, *self.aliases])
        return [Setting("model", self.file, f"{self.path}.parameters.model"), Setting("alias", alias, f"{self.path}.name"), *self.settings]


# ---- which models are served


def _served(context: _Context) -> list[_Served]:
    configs = context.aikitfile.model_configs
    return _from_configs(context, configs) if configs else _from_models(context)


def _from_models(context: _Context) -> list[_Served]:
    """Without a config block every model file is served under its own name, with the defaults."""
    files = [(index, name, path) for index, (name, path) in enumerate(context.models.items()) if shard(path)[0] == 1]
    projectors = [path for _index, _name, path in files if is_projector(path)]
    chosen = [(index, name, path) for index, name, path in files if not is_projector(path)]
    served = []
    for index, name, path in chosen:
        where = f"models[{index}]"
        if not path.lower().endswith(".gguf") and not path.endswith(".bin"):
            context.warning(where, f"{posixpath.basename(path)} does not end in .gguf: the server reads GGUF files only")
        settings = [Setting("ctx_size", str(DEFAULT_CONTEXT))]
        if len(projectors) == 1 and len(chosen) == 1:
            settings.append(Setting("mmproj", projectors[0], where))
        _check_name(context, name, where)
        served.append(_Served(name, path, settings, where))
    return served


def _from_configs(context: _Context, configs: Iterable[Mapping[str, Any]]) -> list[_Served]:
    served: list[_Served] = []
    redirects: list[tuple[str, str, str]] = []
    for index, entry in enumerate(configs):
        path = f"config[{index}]"
        if entry.get("disabled") is True:
            context.warning(path, f"{entry.get('name')} is disabled, so it is not served")
        elif entry.get("alias"):
            redirects.append((path, str(entry.get("name")), str(entry["alias"])))
        elif not localai.is_llama(entry.get("backend")):
            context.error(f"{path}.backend", f"backend {entry.get('backend')} cannot be served by llama-server", "build with server: localai")
        else:
            model = _Model(context, path, entry).translate()
            if model is not None:
                served.append(model)
    for path, name, target in redirects:
        model = next((model for model in served if model.name == target), None)
        if model is None:
            context.error(f"{path}.alias", f"there is no model {target}", "name another model of config")
        else:
            model.aliases.append(name)
            _check_name(context, name, path)
    return served


def _check_name(context: _Context, name: str, path: str) -> None:
    if "," in name:
        context.error(f"{path}.name", f"{localai.describe(name)} has a comma in it, which separates names for the server", "choose a name without one")


class _Model:
    """Translates one entry of ``config``."""

    def __init__(self, context: _Context, path: str, entry: Mapping[str, Any]) -> None:
        self.context = context
        self.path = path
        self.entry = entry
        parameters = entry.get("parameters")
        template = entry.get("template")
        self.parameters: Mapping[str, Any] = parameters if isinstance(parameters, dict) else {}
        self.template: Mapping[str, Any] = template if isinstance(template, dict) else {}
        self.name = str(entry.get("name"))
        self.settings: dict[str, Setting] = {}
        self.verbosity = LOG_VERBOSITY

    def put(self, key: str, value: Any, path: str) -> None:
        where = f"{self.path}.{path}" if path else self.path
        self.settings[key] = Setting(key, value if isinstance(value, bool) else _text(value), where)
        name = _spelling(FLAGS[key].names, self.context.server)
        if FLAGS[key].kind != "value" or self.context.server.arguments.get(name) != "N":
            return
        problem = _number_problem(_text(value))
        if problem and not (key in ("gpu_layers", "spec_draft_ngl") and value in ("auto", "all")):
            self.context.error(where, f"{localai.describe(value)} {problem}, as {name} needs one")

    def translate(self) -> Optional[_Served]:
        reference = self.parameters.get("model")
        where = f"{self.path}.parameters.model"
        found = self.context.file(where, str(reference)) if reference else None
        if not reference:
            self.context.error(where, "names no model file")
        if found and shard(found[1])[0] != 1:
            part, count = shard(found[1])
            self.context.error(where, f"is part {part} of {count}", "name the first part; the server finds the others")
        _check_name(self.context, self.name, self.path)
        self._plain()
        self._compute()
        self._purpose(found[0] if found else "")
        self._files()
        self._prompt()
        self._remarks()
        raw = self._options()
        if found is None:
            return None
        settings = [*self.settings.values(), *raw]
        return _Served(self.name, found[1], settings, self.path, verbosity=self.verbosity)

    def _plain(self) -> None:
        for keys, values, prefix in ((_MODEL_FLAGS, self.entry, ""), (_PARAMETER_FLAGS, self.parameters, "parameters.")):
            for key, flag in keys.items():
                value = values.get(key)
                if value is None or value == "" or (flag in _ZERO_IS_UNSET and _is_zero(value)):
                    continue
                self.put(flag, value, prefix + key)
        if self.parameters.get("ignore_eos") is True:
            self.put("ignore_eos", True, "parameters.ignore_eos")

    def _compute(self) -> None:
        entry = self.entry
        context_size = _int(entry.get("context_size")) or 0
        if context_size < 0:
            self.put("ctx_size", 0, "context_size")  # LocalAI's -1, all that the model was trained for, is 0 here
        else:
            self.put("ctx_size", context_size or DEFAULT_CONTEXT, "context_size")
        layers = _int(entry.get("gpu_layers"))
        if layers is not None and layers >= 0:
            self.put("gpu_layers", layers, "gpu_layers")
        if entry.get("tensor_split"):
            self.put("tensor_split", ",".join(part.strip() for part in re.split("[,/]", str(entry["tensor_split"]))), "tensor_split")
        if entry.get("no_kv_offloading") is True:
            self.put("kv_offload", False, "no_kv_offloading")
        if entry.get("numa") is True:
            self.put("numa", "distribute", "numa")
        attention = entry.get("flash_attention")
        if attention not in (None, ""):
            word = {"true": "on", "false": "off", "enabled": "on", "disabled": "off"}
            text = str(attention).lower()
            self.put("flash_attn", word.get(text, text), "flash_attention")
        batch = _int(self.parameters.get("batch")) or 0
        if batch > 0:
            # LocalAI sets both: a reranker or an embedding model takes no more tokens at once than the smaller one
            self.put("batch_size", batch, "parameters.batch")
            self.put("ubatch_size", batch, "parameters.batch")
        self._loading()

    def _loading(self) -> None:
        """mmap, mmlock and direct_io, of which the server has made one setting."""
        mmap, mlock = self.entry.get("mmap"), self.entry.get("mmlock")
        if not isinstance(mmap, bool) and mlock is not True:
            return
        path = "mmap" if isinstance(mmap, bool) else "mmlock"
        if _spelling(FLAGS["load_mode"].names, self.context.server):
            modes = {(True, True): "mmap+mlock", (False, True): "mlock", (True, False): "mmap", (False, False): "none"}
            self.put("load_mode", modes[mmap is not False, mlock is True], path)
            return
        if isinstance(mmap, bool):
            self.put("mmap", mmap, "mmap")
        if mlock is True:
            self.put("mlock", True, "mmlock")

    def _purpose(self, model: str) -> None:
        embeddings = self.entry.get("embeddings") is True
        reranking = self.entry.get("reranking") is True
        if reranking:
            self.put("reranking", True, "reranking")
        elif embeddings:
            self.put("embeddings", True, "embeddings")
            self._pooling(model)
        if (embeddings or reranking) and "batch_size" not in self.settings:
            # The whole text has to fit into one batch
            size = self.settings["ctx_size"].value
            size = size if 0 < int(size) < DEFAULT_CONTEXT else str(DEFAULT_CONTEXT)
            self.put("batch_size", size, "embeddings" if embeddings else "reranking")
            self.put("ubatch_size", size, "embeddings" if embeddings else "reranking")

    def _pooling(self, model: str) -> None:
        known = self.context.metadata.get(model)
        if known is not None and any(key.endswith(".pooling_type") for key in known):
            return
        self.put("pooling", "mean", "embeddings")
        named = any(_OPTIONS.get(_split_option(option)[0]) == "pooling" for option in self._words("options"))
        if known is None and not named:
            self.context.warning(
                f"{self.path}.embeddings",
                "the mean of a text's tokens is taken as its embedding, whatever the model would choose",
                "write options: ['pooling:cls'] (or last, mean) as the model's description says",
            )

    def _files(self) -> None:
        if self.entry.get("mmproj"):
            self._file("mmproj", "mmproj")
        if self.entry.get("draft_model"):
            self._file("draft_model", "spec_draft_model")
            if _spelling(FLAGS["spec_type"].names, self.context.server):
                self.put("spec_type", "draft-simple", "draft_model")
        adapters = [(f"lora_adapters[{index}]", name) for index, name in enumerate(self._words("lora_adapters"))]
        scales = self.entry.get("lora_scales")
        factors = [scale if _is_number(scale) else 1 for scale in scales] if isinstance(scales, list) else []
        if self.entry.get("lora_adapter"):
            adapters.insert(0, ("lora_adapter", str(self.entry["lora_adapter"])))
            factors.insert(0, self.entry.get("lora_scale") or 1)
        found = [(path, self.context.file(f"{self.path}.{path}", name)) for path, name in adapters]
        paths = [entry[1] for _path, entry in found if entry]
        if not paths or len(paths) < len(found):
            return
        factors += [1] * (len(paths) - len(factors))
        if all(float(factor) == 1 for factor in factors[: len(paths)]):
            self.put("lora", ",".join(paths), found[0][0])
        else:
            self.put("lora_scaled", ",".join(f"{path}:{_text(factor)}" for path, factor in zip(paths, factors)), found[0][0])

    def _file(self, key: str, flag: str) -> None:
        found = self.context.file(f"{self.path}.{key}", str(self.entry[key]))
        if found:
            self.put(flag, found[1], key)

    def _prompt(self) -> None:
        if self.entry.get("grammar"):
            self.put("grammar_file", self.context.write("grammars", self.name, ".gbnf", str(self.entry["grammar"])), "grammar")
        stop = [word for word in self._words("stopwords") if word]
        if stop:
            self.settings["reverse_prompt"] = Setting("reverse_prompt", tuple(dict.fromkeys(stop)), f"{self.path}.stopwords")
        overrides = self._words("overrides")
        if overrides:
            self.put("override_kv", ",".join(overrides), "overrides")
        kwargs = self.entry.get("chat_template_kwargs")
        if isinstance(kwargs, dict) and kwargs:
            self.put("chat_template_kwargs", json.dumps(kwargs, sort_keys=True, ensure_ascii=False), "chat_template_kwargs")
        self._templates()

    def _templates(self) -> None:
        """A Jinja template is passed on; a Go template cannot be, and the model's own takes its place."""
        named = {item.name: item.template for model in self.context.aikitfile.models for item in model.prompt_templates}
        own = self.template.get("use_tokenizer_template") is True
        lost = []
        for key in localai.TEMPLATES:
            reference = self.template.get(key)
            if not isinstance(reference, str) or not reference or own:
                continue
            text = named.get(reference, reference)
            if key in ("chat", "chat_message") and _JINJA.search(text):
                if "chat_template_file" not in self.settings:
                    self.put("chat_template_file", self.context.write("templates", self.name, ".jinja", text), f"template.{key}")
                    self.put("jinja", True, f"template.{key}")
            elif not (key == "completion" and _RAW_PROMPT.match(text)):
                lost.append(key)
        if lost:
            self.context.warning(
                f"{self.path}.template",
                f"{', '.join(lost)}: LocalAI's Go templates mean nothing to llama-server. Chats use the template inside the model file "
                "(ChatML where it has none), completions the bare prompt",
                "write template: {use_tokenizer_template: true} to say that this is meant, or give chat a Jinja template",
            )

    def _options(self) -> list[Setting]:
        """The words of ``options``; raw flags that are none of the settings here come back as they are."""
        raw: list[Setting] = []
        for index, option in enumerate(self._words("options")):
            path = f"options[{index}]"
            where = f"{self.path}.{path}"
            name, text = _split_option(option)
            if option.startswith("-"):
                self._raw(option, path, raw)
                continue
            key = _OPTIONS.get(name)
            if key is None:
                hint = localai.did_you_mean(name, _OPTIONS, "options: ['-flag:value'] passes a flag of the server on")
                self.context.warning(where, f"{localai.describe(name)} is no option of LocalAI's llama.cpp backend, which ignores it", hint)
                continue
            if ":" not in option and key not in ("fit", "direct_io") and FLAGS[key].kind == "value":
                self.context.error(where, f"{name} needs a value", f"write '{name}:VALUE'")
                continue
            self._option(key, name, text, path)
        if "parallel" in self.settings and "kv_unified" not in self.settings:
            # As LocalAI has it: slots share the context, they do not cut it into pieces
            self.put("kv_unified", True, self.settings["parallel"].path[len(self.path) + 1 :])
        return raw

    def _option(self, key: str, name: str, text: str, path: str) -> None:
        where = f"{self.path}.{path}"
        if key == "log_verbosity":
            self._verbosity(text, where)
        elif key == "direct_io" and _spelling(FLAGS["load_mode"].names, self.context.server):
            if _flag(text) is True:
                self.put("load_mode", "dio", path)
        elif FLAGS[key].kind == "switch":
            value = _flag(text)
            if value is None:
                self.context.error(where, f"{localai.describe(text)} is neither on nor off", f"write {name}:true or {name}:false")
            else:
                self.put(key, value is not (name in _OPTION_OFF), path)
        elif key == "fit":
            self.put(key, "on" if _flag(text) else "off", path)
        elif key == "spec_type":
            words = {"draft": "draft-simple", "eagle3": "draft-eagle3"}
            names = [word.strip().replace("_", "-") for word in text.split(",")]
            self.put(key, ",".join(words.get(word, word) for word in names), path)
        else:
            self.put(key, text.replace("/", ",") if key == "fit_target" else text, path)

    def _raw(self, option: str, path: str, raw: list[Setting]) -> None:
        where = f"{self.path}.{path}"
        server = self.context.server
        flag, colon, value = option.partition(":")
        # What stands behind = or a blank may be a secret, and is no name
        name = re.split(r"[=\s]", flag)[0]
        refused = _refusal(name, server)
        if refused:
            self.context.error(where, f"{name} {refused[0]}", refused[1])
            return
        if name != flag:
            self.context.error(where, f"{name} is not followed by a colon", f"write '{name}:VALUE'")
            return
        key = _BY_NAME.get(flag)
        if key in _RESERVED:
            self.context.error(where, f"{flag} is set by the image itself", "remove it")
        elif colon and server.arguments.get(flag, "?") == "" and (key is None or FLAGS[key].kind != "switch"):
            self.context.error(where, f"{flag} takes no value", f"write '{flag}'")
        elif not colon and server.arguments.get(flag):
            self.context.error(where, f"{flag} needs a value", f"write '{flag}:VALUE'")
        elif key == "log_verbosity":
            self._verbosity(value, where)
        elif key is None or FLAGS[key].kind == "words":
            if flag not in self.context.server.options:
                hint = localai.did_you_mean(flag, self.context.server.options, "llama-server --help in the base lists them")
                self.context.error(where, f"{self.context.version()} has no option {flag}", hint)
            else:
                raw.append(Setting("", (flag, value) if colon else (flag,), where))
        elif FLAGS[key].kind == "switch":
            on = flag in FLAGS[key].names
            state = _flag(value) if colon else True
            if state is None:
                self.context.error(where, f"{localai.describe(value)} is neither on nor off", f"write '{flag}:on' or '{flag}:off'")
            else:
                self.put(key, on if state else not on, path)
        elif not colon:
            self.context.error(where, f"{flag} needs a value", f"write '{flag}:VALUE'")
        else:
            self.put(key, value, path)

    def _verbosity(self, text: str, where: str) -> None:
        if not re.match(r"\d{1,3}\Z", text, re.ASCII):
            self.context.error(where, f"{localai.describe(text)} is no log level", "a number from 0 to 5")
        elif int(text) < LOG_VERBOSITY:
            self.context.warning(
                where,
                f"log level {text} hides where the model's layers went, so it stays {LOG_VERBOSITY}",
                "a service that needs no proof can set LLAMA_ARG_LOG_VERBOSITY on its host",
            )
        else:
            self.verbosity = max(self.verbosity, int(text))

    def _remarks(self) -> None:
        """Settings that have no counterpart."""
        handled = {*_SILENT, *_MODEL_FLAGS, "context_size", "gpu_layers", "tensor_split", "no_kv_offloading", "numa", "flash_attention", "mmap", "mmlock"}
        handled |= {"embeddings", "reranking", "mmproj", "draft_model", "lora_adapter", "lora_adapters", "lora_scale", "lora_scales", "grammar"}
        handled |= {"stopwords", "overrides", "chat_template_kwargs", "options"}
        for key, value in self.entry.items():
            if key in localai.MODEL_KEYS and key not in handled and value not in (None, "", [], {}, False, 0):
                message, hint = _UNTRANSLATABLE.get(
                    key, ("has no counterpart in llama-server, so it does nothing", "leave it out, or build with server: localai")
                )
                self.context.warning(f"{self.path}.{key}", message, hint)
        known = {*_PARAMETER_FLAGS, "model", "batch", "ignore_eos"}
        for key, value in self.parameters.items():
            if key in localai.PARAMETER_KEYS and key not in known and value not in (None, "", {}, False, 0):
                self.context.warning(f"{self.path}.parameters.{key}", "has no server-wide counterpart in llama-server", "send it with the request")

    def _words(self, key: str) -> list[str]:
        value = self.entry.get(key)
        return [_text(entry) for entry in value if entry is not None] if isinstance(value, list) else []


# ---- several models


def _router(context: _Context, served: list[_Served], common: list[Setting]) -> ServerSettings:
    """One server process a model, behind a router that reads a preset file."""
    shared = _shared(context, served)
    output = _Output(context)
    output.add(common)
    output.add(Setting(key, value) for key, value in shared.items())
    wanted = set(context.aikitfile.load_to_memory)
    known = {name for model in served for name in (model.name, *model.aliases)}
    for index, name in enumerate(context.aikitfile.load_to_memory):
        if name not in known:
            context.error(f"loadToMemory[{index}]", f"there is no model {name}")
    sections = ["version = 1\n"]
    names: set[str] = set()
    for model in served:
        load = not wanted or bool(wanted.intersection((model.name, *model.aliases)))
        sections.append(_section(context, model, shared, _section_name(model, names), load))
    path = f"{DIRECTORY}/presets.ini"
    context.files[path] = "\n".join(sections)
    output.add([Setting("models_preset", path), Setting("models_max", str(len(served)))])
    return output.done()


def _shared(context: _Context, served: list[_Served]) -> dict[str, Any]:
    """Settings that every model has with the same value and that can be a variable: a host can then override them."""
    first = {setting.key: setting.value for setting in served[0].settings if setting.key}
    for model in served[1:]:
        own = {setting.key: setting.value for setting in model.settings if setting.key}
        first = {key: value for key, value in first.items() if own.get(key) == value}
    return {key: value for key, value in first.items() if FLAGS[key].kind != "words" and _variable(FLAGS[key], value, context.server)}


def _section_name(model: _Served, taken: set[str]) -> str:
    """The name of a preset. The router changes what follows a colon to capitals, and brackets end a name: such names become aliases."""
    plain = re.sub(r"[:\[\];#*]", "-", model.name).strip() or "model"
    if plain.lower() == "default":
        plain += "-"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    taken.add(name)
    return name


def _section(context: _Context, model: _Served, shared: Mapping[str, Any], name: str, load: bool) -> str:
    aliases = [*([model.name] if model.name != name else []), *model.aliases]
    settings = [Setting("model", model.file, f"{model.path}.parameters.model")]
    if aliases:
        settings.append(Setting("alias", ",".join(aliases), f"{model.path}.name"))
    settings += [setting for setting in model.settings if setting.key not in shared]
    lines = [f"[{name}]"]
    for setting in settings:
        line = _preset_line(context, setting)
        if line:
            lines.append(line)
    if load:
        lines.append("load-on-startup = true")
    return "\n".join(lines) + "\n"


def _preset_line(context: _Context, setting: Setting) -> str:
    if not setting.key:
        flag = setting.value[0]
        value = setting.value[1] if len(setting.value) > 1 else "true"
        return _preset_value(context, setting.path, flag.lstrip("-"), value)
    flag_ = FLAGS[setting.key]
    value = setting.value
    if flag_.kind == "words":
        if len(value) > 1:
            context.warning(
                setting.path,
                f"only the first of {len(value)} is set: with several models llama-server takes one",
                "let clients send stop, or build one image for each model",
            )
        value = value[0]
    if flag_.kind == "switch":
        name, negative = _spelling(flag_.names, context.server), _spelling(flag_.off, context.server)
        if name:
            return _preset_value(context, setting.path, name.lstrip("-"), "true" if value else "false") if value or negative else ""
        if negative:
            return "" if value else _preset_value(context, setting.path, negative.lstrip("-"), "true")
    else:
        name = _spelling(flag_.names, context.server)
        if name:
            return _preset_value(context, setting.path, name.lstrip("-"), str(value))
    _missing(context, setting)
    return ""


def _preset_value(context: _Context, path: str, key: str, value: str) -> str:
    if re.search(r"[#;\r\n]", value) or value != value.strip() or not value:
        context.error(path, f"{localai.describe(value)} cannot stand in the preset file that several models need", "build one image for each model")
    return f"{key} = {value}"


# ---- from settings to variables and arguments


class _Output:
    """Collects variables and arguments for one server process."""

    def __init__(self, context: _Context) -> None:
        self.context = context
        self.env: dict[str, str] = {}
        self.args: list[str] = []

    def add(self, settings: Iterable[Setting]) -> None:
        for setting in settings:
            if not setting.key:
                self.args += setting.value
                continue
            flag = FLAGS[setting.key]
            variable = None if flag.kind == "words" else _variable(flag, setting.value, self.context.server)
            if variable:
                self.env[variable[0]] = variable[1]
                continue
            arguments = _arguments(flag, setting.value, self.context.server)
            if arguments is None:
                _missing(self.context, setting)
            else:
                self.args += arguments

    def done(self) -> ServerSettings:
        context = self.context
        findings = tuple(sorted(context.findings, key=lambda finding: (finding.line or 1 << 30)))
        return ServerSettings(dict(sorted(self.env.items())), tuple(self.args), dict(sorted(context.files.items())), findings)


def _missing(context: _Context, setting: Setting) -> None:
    flag = FLAGS[setting.key]
    name = (flag.names or flag.off)[0]
    near = localai.suggest(name, context.server.options)
    hint = f"it has {near}" if near else "leave the setting out, or take a base with a newer server"
    context.error(setting.path, f"{context.version()} has no option {name}", hint)


def _spelling(names: Iterable[str], server: Server) -> str:
    """The name under which the server knows a setting, empty if it does not."""
    return next((name for name in names if name in server.options), "")


def _variable(flag: Flag, value: Any, server: Server) -> Optional[tuple[str, str]]:
    """The variable for a setting, if the server has one."""
    known = {option: variable for variable, option in server.environment.items()}
    name = next((known[option] for option in (*flag.names, *flag.off) if option in known), None)
    if name is None:
        return None
    if flag.kind != "switch":
        return (name, str(value)) if _spelling(flag.names, server) else None
    positive, negative = _spelling(flag.names, server), _spelling(flag.off, server)
    if positive and (negative or value):
        return name, "1" if value else "0"
    if negative and not positive and not value:
        return name, "1"
    return None


def _arguments(flag: Flag, value: Any, server: Server) -> Optional[list[str]]:
    positive, negative = _spelling(flag.names, server), _spelling(flag.off, server)
    if flag.kind == "switch":
        if value:
            return [positive] if positive else ([] if negative else None)
        return [negative] if negative else ([] if positive else None)
    if not positive:
        return None
    if flag.kind == "words":
        return [part for word in value for part in (positive, word)]
    return [positive, str(value)]


def _refusal(flag: str, server: Server) -> Optional[tuple[str, str]]:
    """Why an image may not have this flag, and what to do; None for one that it may have. The server reads _ in long names as -."""
    name = flag.replace("_", "-") if flag.startswith("--") else flag
    for spelling in (name, *sorted(server.spellings(name) - {name})):
        for patterns, message, hint in _REFUSED:
            if any(fnmatch.fnmatchcase(spelling, pattern) for pattern in patterns):
                return message, hint
    return None


# ---- values


def _number_problem(text: str) -> str:
    """Why the server would not read ``text`` as a number; empty when it does."""
    if not localai.is_number(text):
        return "is no number"
    return "is too large a number" if text.lstrip("+-").isdigit() and abs(int(text)) > INT_MAX else ""


def _split_option(option: str) -> tuple[str, str]:
    """Name and value of an entry of ``options``, as LocalAI splits it: a second colon ends the value, no value is true."""
    parts = [part for part in option.split(":") if part]
    return (parts[0] if parts else "", parts[1] if len(parts) > 1 else "true")


def _flag(text: str) -> Optional[bool]:
    word = text.strip().lower()
    return True if word in _ON else False if word in _OFF else None


def _int(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_zero(value: Any) -> bool:
    return _is_number(value) and value == 0


def _text(value: Any) -> str:
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)
