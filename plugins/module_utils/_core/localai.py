# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LocalAI's model configuration, the language of an aikitfile's ``config`` block: which keys there are, and of what type.

Source: github.com/mudler/LocalAI, core/config/model_config.go, core/schema/prediction.go and
backend/cpp/llama-cpp/grpc-server.cpp on its main branch of 2026-08-22 (after v4.9). Read 2026-11.
LocalAI ignores keys that it does not know, and its schema grows: an unknown key is a warning, a wrong type an error.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Any, Iterable, Mapping, Optional

# Types: str (any scalar but a mapping or list; LocalAI takes numbers too), int, float, bool, switch (on, off, auto or a
# boolean), words (list of str), map, list, any
MODEL_KEYS: Mapping[str, str] = {
    "name": "str",
    "alias": "str",
    "backend": "str",
    "parameters": "map",
    "template": "map",
    "description": "str",
    "usage": "str",
    "disabled": "bool",
    "pinned": "bool",
    "debug": "bool",
    "options": "words",
    "overrides": "words",
    # compute
    "threads": "int",
    "f16": "bool",
    "low_vram": "bool",
    "cuda": "bool",
    "numa": "bool",
    "gpu_layers": "int",
    "main_gpu": "str",
    "tensor_split": "str",
    "mmap": "bool",
    "mmlock": "bool",
    "flash_attention": "switch",
    "no_kv_offloading": "bool",
    "cache_type_k": "str",
    "cache_type_v": "str",
    "context_size": "int",
    "no_mulmatq": "bool",
    "ngqa": "int",
    "rms_norm_eps": "float",
    # what the model does
    "embeddings": "bool",
    "reranking": "bool",
    "mmproj": "str",
    "draft_model": "str",
    "n_draft": "int",
    "lora_adapter": "str",
    "lora_base": "str",
    "lora_scale": "float",
    "lora_adapters": "words",
    "lora_scales": "list",
    "rope_scaling": "str",
    "yarn_ext_factor": "float",
    "yarn_attn_factor": "float",
    "yarn_beta_fast": "float",
    "yarn_beta_slow": "float",
    "type": "str",
    # prompt and answer
    "system_prompt": "str",
    "roles": "map",
    "grammar": "str",
    "stopwords": "words",
    "cutstrings": "words",
    "extract_regex": "words",
    "trimspace": "words",
    "trimsuffix": "words",
    "mirostat": "int",
    "mirostat_eta": "float",
    "mirostat_tau": "float",
    "prompt_cache_path": "str",
    "prompt_cache_all": "bool",
    "prompt_cache_ro": "bool",
    "function": "map",
    "reasoning": "map",
    "reasoning_effort": "str",
    "chat_template_kwargs": "map",
    "cfg_scale": "float",
    # other backends
    "quantization": "str",
    "load_format": "str",
    "gpu_memory_utilization": "float",
    "trust_remote_code": "bool",
    "enforce_eager": "bool",
    "swap_space": "int",
    "max_model_len": "int",
    "tensor_parallel_size": "int",
    "disable_log_stats": "bool",
    "dtype": "str",
    "limit_mm_per_prompt": "map",
    "engine_args": "map",
    "diffusers": "map",
    "step": "int",
    "tts": "map",
    # LocalAI itself
    "artifacts": "list",
    "known_usecases": "any",
    "known_input_modalities": "words",
    "known_output_modalities": "words",
    "pipeline": "map",
    "feature_flags": "map",
    "compression": "map",
    "grpc": "map",
    "download_files": "list",
    "concurrency_groups": "words",
    "mcp": "map",
    "agent": "map",
    "pii": "map",
    "pii_detection": "map",
    "router": "map",
    "proxy": "map",
    "mitm": "map",
    "limits": "map",
}

PARAMETER_KEYS: Mapping[str, str] = {
    "model": "str",
    "language": "str",
    "translate": "bool",
    "n": "int",
    "top_p": "float",
    "top_k": "int",
    "min_p": "float",
    "temperature": "float",
    "max_tokens": "int",
    "echo": "bool",
    "batch": "int",
    "ignore_eos": "bool",
    "repeat_penalty": "float",
    "repeat_last_n": "int",
    "n_keep": "int",
    "frequency_penalty": "float",
    "presence_penalty": "float",
    "tfz": "float",
    "typical_p": "float",
    "seed": "int",
    "logprobs": "any",
    "top_logprobs": "int",
    "logit_bias": "map",
    "negative_prompt": "str",
    "negative_prompt_scale": "float",
    "rope_freq_base": "float",
    "rope_freq_scale": "float",
    "clip_skip": "int",
    "tokenizer": "str",
    "encoding_format": "str",
    "pooling": "str",
    "pooling_half_life_tokens": "int",
}

TEMPLATE_KEYS: Mapping[str, str] = {
    "chat": "str",
    "chat_message": "str",
    "completion": "str",
    "edit": "str",
    "function": "str",
    "use_tokenizer_template": "bool",
    "join_chat_messages_by_character": "str",
    "multimodal": "str",
    "reply_prefix": "str",
}
# Those of TEMPLATE_KEYS that hold a template or the name of one
TEMPLATES = ("chat", "chat_message", "completion", "edit", "function", "multimodal")

SECTIONS: Mapping[str, Mapping[str, str]] = {"parameters": PARAMETER_KEYS, "template": TEMPLATE_KEYS}

# Keys that hold the name of a file of a llama.cpp model
FILE_KEYS = ("mmproj", "draft_model", "lora_adapter", "lora_base")

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
SWITCH_WORDS = ("on", "off", "auto", "enabled", "disabled", "true", "false")

_EXPECTED = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "switch": "on, off or auto",
    "words": "a list of texts",
    "map": "a mapping",
    "list": "a list",
}
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\Z", re.ASCII)


def is_llama(backend: Any) -> bool:
    """Whether ``config[].backend`` means llama.cpp: not named, by its short name, or as one of LocalAI's builds of it."""
    if not isinstance(backend, str):
        return backend is None
    return backend in ("", "llama", "llama-cpp") or backend.startswith("llama-cpp-") or backend.endswith("-llama-cpp")


def mismatch(value: Any, kind: str) -> str:
    """What was expected, or an empty string when ``value`` is of that kind. Null counts as left out."""
    if value is None or kind == "any" or _fits(value, kind):
        return ""
    return _EXPECTED[kind]


def _fits(value: Any, kind: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str) or number
    if kind == "int":
        # LocalAI's whole numbers have 64 bits
        return number and isinstance(value, int) and -(2**63) <= value < 2**63
    if kind == "float":
        # YAML 1.1 reads 1e-3 as text, LocalAI's parser as a number
        return math.isfinite(value) if number and isinstance(value, float) else number or (isinstance(value, str) and is_number(value))
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "switch":
        return isinstance(value, bool) or (isinstance(value, str) and value.lower() in SWITCH_WORDS)
    if kind == "words":
        return isinstance(value, list) and all(_fits(entry, "str") for entry in value)
    if kind == "map":
        return isinstance(value, dict)
    return isinstance(value, list)


def is_number(text: str) -> bool:
    """Whether a text is a decimal number."""
    return _NUMBER.match(text) is not None


def describe(value: Any) -> str:
    """A value for messages: its kind, and the value itself when it is short."""
    if isinstance(value, bool):
        return f"{str(value).lower()} (true/false; yes, no, on and off are read as that too)"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"the number {shown}" if isinstance(value, (int, float)) else f"'{shown}'"


def suggest(word: str, known: Iterable[str]) -> Optional[str]:
    """The known word that is most like ``word``: other case, other separators, or a slip of the keyboard."""
    candidates = [name for name in known if name]
    folded = {_fold(name): name for name in reversed(candidates)}
    if _fold(word) in folded:
        return folded[_fold(word)]
    longer = [name for name in candidates if len(word) > 2 and _fold(name).startswith(_fold(word))]
    if len(longer) == 1:
        return longer[0]
    close = difflib.get_close_matches(_fold(word), list(folded), n=1, cutoff=0.7)
    return folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint: the known word that is most like ``word``, or ``otherwise``."""
    near = suggest(word, known)
    return f"did you mean {near}?" if near else otherwise


def _fold(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "").replace(".", "")


def hint_for_key(key: str, section: str) -> str:
    """Where an unknown key may belong. ``section`` is empty for a model's own keys."""
    known = SECTIONS.get(section, MODEL_KEYS)
    places = {"": MODEL_KEYS, **SECTIONS}
    for place, keys in places.items():
        if place != section and key in keys:
            return f"{key} belongs under {place}" if place else f"{key} belongs to the model itself, not under {section}"
    return did_you_mean(key, known)


def unescape(value: Any) -> Any:
    """Undo the ``\\"`` that AIKit's releases up to v0.21.0 need around texts of ``config``.

    There the text passes through a shell, so people write ``\\"USER:\\"``; what LocalAI reads is ``USER:``.
    """
    if isinstance(value, str):
        if len(value) >= 4 and value.startswith('\\"') and value.endswith('\\"'):
            return value[2:-2].replace('\\"', '"')
        return value
    if isinstance(value, list):
        return [unescape(entry) for entry in value]
    if isinstance(value, dict):
        return {unescape(key): unescape(entry) for key, entry in value.items()}
    return value
