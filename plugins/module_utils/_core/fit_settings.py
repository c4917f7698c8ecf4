# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a plan in the words of the servers that take them."""

from __future__ import annotations

from typing import Any, Mapping

# How short a context llama.cpp's own fit may make (its default)
FIT_CONTEXT = 4096


def to_localai(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a model in LocalAI's configuration that a plan decides. Options are merged by their first word."""
    keys = ("gpu_layers", "context_size", "flash_attention", "cache_type_k", "cache_type_v", "no_kv_offloading")
    # LocalAI cannot leave the context to llama.cpp's fit: without a number it takes its own
    result: dict[str, Any] = {key: values[key] for key in keys if key in values and values[key] != "auto"}
    if values.get("gpu_layers") == "auto":
        # Any number but -1 switches llama.cpp's own fit off
        result["gpu_layers"] = -1
    result["parameters"] = {"batch": values["batch"]}
    if values.get("tensor_split"):
        result["tensor_split"] = values["tensor_split"]
    options = [f"parallel:{values['parallel']}"]
    if values.get("n_cpu_moe"):
        options.append(f"n_cpu_moe:{values['n_cpu_moe']}")
    result["options"] = options
    return result


def to_llama_env(values: Mapping[str, Any]) -> dict[str, str]:
    """``LLAMA_ARG_*`` of llama.cpp's server."""
    env = {
        "LLAMA_ARG_N_GPU_LAYERS": str(values["gpu_layers"]),
        "LLAMA_ARG_CTX_SIZE": str(values["context_size"]),
        "LLAMA_ARG_UBATCH": str(values["batch"]),
        "LLAMA_ARG_BATCH": str(max(2048, int(values["batch"]))),
        "LLAMA_ARG_FLASH_ATTN": str(values["flash_attention"]),
        "LLAMA_ARG_N_PARALLEL": str(values["parallel"]),
    }
    if values["context_size"] == "auto":
        # 0 is what the model was trained for, and the least context is what allows the server to shorten it. The image sets a number
        env.update(LLAMA_ARG_CTX_SIZE="0", LLAMA_ARG_FIT_CTX=str(FIT_CONTEXT))
    fitted = "auto" in (values["gpu_layers"], values["context_size"])
    env["LLAMA_ARG_FIT"] = "on" if fitted else "off"
    if int(values["parallel"]) > 1 and not fitted:
        # The server divides the cache among slots whose number it is told, and a plan shares it
        env["LLAMA_ARG_KV_UNIFIED"] = "0" if values.get("kv_unified") is False else "1"
    for key, variable in (("cache_type_k", "LLAMA_ARG_CACHE_TYPE_K"), ("cache_type_v", "LLAMA_ARG_CACHE_TYPE_V")):
        if key in values:
            env[variable] = str(values[key])
    if "no_kv_offloading" in values:
        env["LLAMA_ARG_KV_OFFLOAD"] = "0" if values["no_kv_offloading"] else "1"
    if values.get("n_cpu_moe"):
        env["LLAMA_ARG_N_CPU_MOE"] = str(values["n_cpu_moe"])
    if values.get("tensor_split"):
        env["LLAMA_ARG_TENSOR_SPLIT"] = str(values["tensor_split"])
    return env
