# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phrases of llama.cpp, LocalAI, vLLM and PyTorch logs that say why a model did not load, and names that age.

Sources: logs of llama-server 0.7.0 (build 11669) captured for the tests (tests/fixtures/logs/README.md), the log
statements of llama.cpp from 2023 to 2026, of LocalAI v2.0 to v4.7 and of vLLM 0.6 to 0.11. Date: 2026-11.
"""

from __future__ import annotations

REVIEWED = "2026-11-01"

_HOST_MEMORY = "the host has not enough memory for what stays out of the GPU"

# (phrase, kind, ends the load?, what it means). The first phrase that a line holds wins, so exact ones come first.
# Kinds: oom (the GPU's memory), ram (the host's), driver, arch, init, crash, model, config, load ("load" only says that it failed,
# another line says why).
# A phrase that does not end the load is forgotten when a later line shows that the load went on.
FAILURES: tuple[tuple[str, str, bool, str], ...] = (
    (
        "ErrorOutOfHostMemory",
        "driver",
        False,
        "the Vulkan driver could not get memory from the host; in a libkrun machine this is a Mesa that does not fit the virtual GPU",
    ),
    ("ErrorOutOfDeviceMemory", "oom", False, "the GPU has not enough memory"),
    ("cudaMalloc failed", "oom", False, "the GPU has not enough memory"),
    ("hipMalloc failed", "oom", False, "the GPU has not enough memory"),
    ("CUDA out of memory", "oom", True, "the GPU has not enough memory"),
    ("HIP out of memory", "oom", True, "the GPU has not enough memory"),
    ("CUDA error: out of memory", "oom", True, "the GPU has not enough memory"),
    ("ROCm error: out of memory", "oom", True, "the GPU has not enough memory"),
    ("failed to fit params", "oom", False, "the model and its context do not fit the free GPU memory"),
    ("failed to allocate CPU", "ram", False, _HOST_MEMORY),
    ("cpu_buffer_type_alloc_buffer: failed", "ram", False, _HOST_MEMORY),
    ("unable to allocate CPU", "ram", False, _HOST_MEMORY),
    ("_Host buffer of size", "ram", False, _HOST_MEMORY),
    ("(attempted to allocate ", "ram", False, _HOST_MEMORY),
    ("unable to allocate", "oom", False, "there was not enough memory for a buffer"),
    ("failed to allocate", "oom", False, "there was not enough memory for a buffer"),
    ("no kernel image is available", "arch", True, "the server was not compiled for this GPU's architecture"),
    ("No compatible code objects found", "arch", True, "the server was not compiled for this GPU's architecture"),
    ("device kernel image is invalid", "arch", True, "the server was not compiled for this GPU's architecture"),
    ("has no device code compatible", "arch", True, "the server was not compiled for this GPU's architecture"),
    ("llegal instruction", "arch", True, "the server uses instructions that this CPU does not have"),
    ("unsupported toolchain", "driver", True, "the GPU driver is older than the server's CUDA"),
    ("ErrorIncompatibleDriver", "driver", False, "Vulkan found no driver that fits"),
    ("ErrorInitializationFailed", "driver", False, "the Vulkan driver could not start"),
    ("ErrorDeviceLost", "driver", True, "the GPU stopped answering"),
    ("Found no NVIDIA driver", "driver", True, "no NVIDIA driver reaches the container"),
    ("Failed to initialize NVML", "driver", False, "the NVIDIA driver does not answer in the container"),
    ("libcuda.so.1: cannot open", "driver", False, "no NVIDIA driver library reaches the container"),
    ("Torch not compiled with CUDA", "init", True, "the backend's PyTorch has no CUDA support"),
    ("Failed to infer device type", "init", True, "there is no device that vLLM can use"),
    ("No platform detected, vLLM", "init", False, "there is no device that vLLM can use"),
    ("invalid device: ", "init", True, "the server was told to use a device that it does not see"),
    ("CUDA error: ", "crash", True, "CUDA reported an error and the server gave up"),
    ("ROCm error: ", "crash", True, "ROCm reported an error and the server gave up"),
    ("MUSA error: ", "crash", True, "MUSA reported an error and the server gave up"),
    ("invalid magic characters", "model", True, "the model file is no GGUF file"),
    ("failed to read magic", "model", True, "the model file cannot be read as GGUF (a folder or an empty file, perhaps)"),
    ("failed to read key-value pairs", "model", True, "the model file is cut off or damaged"),
    ("failed to read tensor info", "model", True, "the model file is cut off or damaged"),
    ("is not within the file bounds", "model", True, "the model file is cut off or damaged"),
    ("failed to open GGUF file", "model", True, "the model file is missing or not readable"),
    ("unknown model architecture", "model", True, "the server is too old for this model"),
    ("wrong number of tensors", "model", True, "the model file does not fit this version of the server"),
    ("missing tensor", "model", True, "the model file does not fit this version of the server"),
    ("error: invalid argument", "config", True, "the server does not know one of its options"),
    ("error while handling argument", "config", True, "the server refused the value of an option"),
    ("error while handling environment variable", "config", True, "the server refused the value of an option"),
    ("Backend process exited unexpectedly", "crash", True, "the backend's process ended by itself"),
    ("that cannot run the operation", "crash", True, "a buffer did not fit the device and the server stopped (a smaller context may help)"),
    ("GGML_ASSERT", "crash", True, "the server stopped at an internal check"),
    ("ggml_abort", "crash", True, "the server aborted"),
    ("terminate called after", "crash", True, "the server aborted"),
    ("Segmentation fault", "crash", True, "the server crashed"),
    ("error loading model", "load", True, "the model could not be loaded"),
    ("failed to load model", "load", True, "the model could not be loaded"),
    ("failed to load draft model", "load", True, "the draft model could not be loaded"),
    ("failed to create context", "load", True, "the model's context could not be made"),
    ("failed to initialize the context", "load", True, "the model's context could not be made"),
    ("exiting due to model loading error", "load", True, "the model could not be loaded"),
    ("could not load model", "load", True, "LocalAI's backend could not load the model"),
    ("Failed to load model", "load", True, "LocalAI's backend could not load the model"),
    ("grpc service not ready", "load", True, "LocalAI's backend did not come up"),
)

# What the text after "failed to initialize CUDA: " says of the cause
INIT_CAUSES: tuple[tuple[str, str, str], ...] = (
    ("no CUDA-capable device", "init", "no GPU reaches the container"),
    ("no ROCm-capable device", "init", "no GPU reaches the container"),
    ("driver version is insufficient", "driver", "the GPU driver is older than the server's CUDA"),
    ("forward compatibility was attempted", "driver", "the GPU does not support CUDA's forward compatibility with this driver"),
    ("system not yet initialized", "driver", "the GPU waits for the fabric manager (NVSwitch machines need it)"),
    ("out of memory", "oom", "the GPU has no memory left, not even for a context"),
    ("version mismatch", "driver", "kernel module and driver libraries have different versions: reboot or reload the module"),
)

# Renderers that run on the CPU although the API calls them a device
SOFTWARE_RENDERERS: tuple[str, ...] = (
    "llvmpipe",
    "lavapipe",
    "softpipe",
    "swrast",
    "SwiftShader",
    "Microsoft Basic Render",
    "Portable Computing Language",
)

# Backends whose buffers do not carry the name of their device
DEVICE_OF_BUFFER: dict[str, str] = {"OpenCL": "GPUOpenCL"}

# Devices of ggml that compute on the CPU, in host memory
HOST_DEVICES: tuple[str, ...] = ("CPU", "BLAS", "ACCEL", "AMX")

# Names without a number that device buffers had in generations that named no device in the log; those generations are
# over, so this list does not grow. Newer backends number their devices.
EARLY_DEVICE_BUFFERS: frozenset[str] = frozenset({"Metal", "Metal_Mapped", "Kompute", "OpenCL", "CUDA_Split", "ROCm_Split"})

# LocalAI's directories of backends (/backends/<name>/run.sh) that drive a GPU
GPU_BACKEND_WORDS: tuple[str, ...] = ("cuda", "nvidia", "rocm", "hip", "vulkan", "sycl", "intel", "metal", "musa")
