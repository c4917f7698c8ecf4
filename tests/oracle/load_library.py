# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load a model with the C library of a llama.cpp build: ``load_library.py FOLDER MODEL CONFIG``. Its log goes to stderr.

The structures of parameters differ between builds. Their defaults are asked from the library; what is set is found by them.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}


class Parameters(ctypes.Structure):
    """Room for either structure; what the callee does not read does no harm on the stack."""

    _fields_ = [("words", ctypes.c_uint32 * 64)]


class Override(ctypes.Structure):
    """llama_model_tensor_buft_override."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


def main(folder: str, model: str, text: str) -> int:
    config = json.loads(text)
    base = Path(folder)
    ctypes.CDLL(str(base / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
    ggml = ctypes.CDLL(str(next(base.glob("libggml.cuda.*.so"))), mode=ctypes.RTLD_GLOBAL)
    llama = ctypes.CDLL(str(next(base.glob("libllama.cuda.*.so"))), mode=ctypes.RTLD_GLOBAL)
    ggml.ggml_backend_load_all_from_path(ctypes.c_char_p(os.fsencode(folder)))
    llama.llama_backend_init()
    for function in ("llama_model_default_params", "llama_context_default_params"):
        getattr(llama, function).restype = Parameters
    llama.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Parameters]
    llama.llama_model_load_from_file.restype = ctypes.c_void_p
    llama.llama_init_from_model.argtypes = [ctypes.c_void_p, Parameters]
    llama.llama_init_from_model.restype = ctypes.c_void_p

    settings = llama.llama_model_default_params()
    # devices*, tensor_buft_overrides*, n_gpu_layers, split_mode, main_gpu, (padding or load mode), tensor_split*
    keep = []
    if config["cpu_moe"]:
        ggml.ggml_backend_cpu_buffer_type = ctypes.CDLL(str(base / "libggml-base.so")).ggml_backend_cpu_buffer_type
        ggml.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
        kind = ggml.ggml_backend_cpu_buffer_type()
        entries = (Override * (config["cpu_moe"] + 1))()
        for layer in range(config["cpu_moe"]):
            keep.append(f"blk\\.{layer}\\.ffn_(up|down|gate|gate_up)_(ch|)exps".encode())
            entries[layer] = Override(keep[-1], kind)
        keep.append(entries)
        _put_pointer(settings, 2, ctypes.addressof(entries))
    settings.words[4] = config["gpu_layers"] & 0xFFFFFFFF
    if config["split"]:
        parts = (ctypes.c_float * 128)(*[float(part) for part in config["split"].split(",")])
        keep.append(parts)
        # Newer builds have two modes of loading before it
        newer = not any(base.glob("libllama.cuda.b*.so"))
        _put_pointer(settings, 10 if newer else 8, ctypes.addressof(parts))
    loaded = llama.llama_model_load_from_file(os.fsencode(model), settings)
    if not loaded:
        print("error: the model was not loaded", file=sys.stderr)
        return 1

    context = llama.llama_context_default_params()
    context.words[0] = config["context"]
    context.words[1] = max(2048, config["ubatch"])
    context.words[2] = config["ubatch"]
    context.words[3] = config["parallel"]
    _by_defaults(context, config)
    llama.llama_init_from_model(loaded, context)
    sys.stderr.flush()
    os._exit(0)


def _put_pointer(settings: Parameters, word: int, value: int) -> None:
    settings.words[word] = value & 0xFFFFFFFF
    settings.words[word + 1] = value >> 32


def _by_defaults(context: Parameters, config: dict) -> None:
    """The types of the cache are the pair (1, 1); after them come two pointers and the switches embeddings, offload_kqv, no_perf, op_offload, …"""
    words = list(context.words)
    position = next(index for index in range(12, 48) if words[index] == 1 and words[index + 1] == 1 and words[index - 1] == 0)
    context.words[position] = TYPES[config["type_k"]]
    context.words[position + 1] = TYPES[config["type_v"]]
    data = (ctypes.c_uint8 * ctypes.sizeof(context)).from_buffer(context)
    switches = (position + 2) * 4 + 16 + (4 if (position + 2) % 2 else 0)
    data[switches] = 1 if config["embeddings"] else 0
    data[switches + 1] = 0 if config["kv_on_host"] else 1
    # The server's default, and not the library's: windows take no more than they need
    data[switches + 4] = 0
    data[switches + 5] = 1 if config["unified"] else 0
    # flash_attn_type: the fourth of the enumerations that stand at -1
    minus = [index for index in range(4, 14) if words[index] == 0xFFFFFFFF]
    context.words[minus[-1]] = 1 if config["flash"] else 0
    if minus[0] >= 9:
        # n_outputs_max, which the server sets: a whole batch for embeddings, as the library itself would
        context.words[5] = 0 if config["embeddings"] else config["parallel"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
