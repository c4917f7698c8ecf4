# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict over logs: captured ones, made ones, in every wrapping, and over garbage."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.offload import VERDICTS, Evidence, evidence
from hypothesis import given, settings
from hypothesis import strategies as st

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "logs"

# file -> (verdict, layers offloaded, layers in all, kind of failure, something that the reasons must say)
CAPTURED = {
    "bad-data": ("failed", None, None, "model", "cut off or damaged"),
    "bad-device": ("failed", None, None, "init", "invalid device: CUDA0"),
    "bad-folder": ("failed", None, None, "model", "a folder"),
    "bad-header": ("failed", None, None, "model", "cut off or damaged"),
    "bad-magic": ("failed", None, None, "model", "no GGUF file"),
    "bad-missing": ("failed", None, None, "model", "missing or not readable"),
    "bad-option": ("failed", None, None, "config", "--no-mmap"),
    "cpu": ("cpu", None, None, "", "All 235 MiB of weights lie in host memory"),
    "cpu-vision": ("cpu", None, None, "", "All 235 MiB of weights lie in host memory"),
    "cpu-layers-asked": ("cpu", None, None, "", "no usable GPU found"),
    "out-of-memory": ("failed", 19, 19, "oom", "not enough memory"),
    "out-of-memory-fit": ("failed", None, None, "crash", "smaller context"),
    "quiet": ("unverified", None, None, "", "LLAMA_ARG_LOG_VERBOSITY=4"),
    "router-bad-model": ("failed", None, None, "model", "broken: The model file is cut off"),
    "router-cpu": ("cpu", None, None, "", "beta: All 235 MiB"),
    "router-cpu-jsonl": ("cpu", None, None, "", "alpha: All 235 MiB"),
    "router-vulkan": ("software", 19, 19, "", "alpha: The device is a software renderer"),
    "vulkan-device-none": ("cpu", 19, 19, "", "only repeats what was asked for"),
    "vulkan-draft": ("software", 19, 19, "", "llvmpipe"),
    "vulkan-full": ("software", 19, 19, "", "65 of 235 MiB"),
    "vulkan-full-jsonl": ("software", 19, 19, "", "65 of 235 MiB"),
    "vulkan-no-kv-offload": ("software", 19, 19, "", "llvmpipe"),
    "vulkan-no-layers": ("cpu", 0, 19, "", "only a compute buffer"),
    "vulkan-partial": ("software", 10, 19, "", "33 of 235 MiB"),
    "vulkan-verbosity-5": ("software", 19, 19, "", "65 of 235 MiB"),
}
MADE = {
    "2023h1-cublas-full": ("proven", 29, 29, "", "3895 MiB"),
    "2023h1-partial": ("partial", 12, 35, "", "23 layers stayed on the CPU"),
    "2023h2-cuda-zerolog": ("proven", 35, 35, "", "NVIDIA A10"),
    "2024-apple-venus-zerolog": ("proven", 33, 33, "", "Virtio-GPU Venus (Apple M3)"),
    "2024-cuda-full": ("proven", 33, 33, "", "NVIDIA L4"),
    "2024-rocm-partial": ("partial", 24, 41, "", "17 layers stayed on the CPU"),
    "2025-cuda-init-failed": ("cpu", 29, 29, "", "no GPU reaches the container"),
    "2025-cuda-tied-output": ("proven", 17, 17, "", "token embeddings"),
    "2025-llvmpipe": ("software", None, None, "", "llvmpipe"),
    "2025-rocm-no-buffer-lines": ("unverified", 27, 27, "", "buffer sizes are missing"),
    "2026-amx-tied-output": ("partial", 19, 19, "", "More weight bytes stayed in host memory (360 MiB)"),
    "2026-cpu-future-names": ("cpu", None, None, "", "KLEIDIAI, TENSIX7"),
    "2026-cuda-experts-on-cpu": ("partial", 49, 49, "", "5210 MiB of weights stayed in host memory"),
    "2026-cuda-fit-dry-run": ("proven", 41, 41, "", "8153 of 8570 MiB"),
    "2026-cuda-kv-on-cpu": ("partial", 33, 33, "", "1024 MiB of the KV cache"),
    "2026-cuda-two-cards": ("proven", 81, 81, "", "CUDA1 (NVIDIA GeForce RTX 3090)"),
    "2026-metal": ("proven", 33, 33, "", "MTL0 (Apple M2 Max)"),
    "2026-rocm-compute-only": ("cpu", 0, 49, "", "only a compute buffer"),
    "2026-rocm-overflowing": ("partial", 25, 25, "", "5 layers overflow"),
    "2026-vulkan-full": ("proven", 33, 33, "", "NVIDIA GeForce RTX 3080 Ti"),
    "crash-after-load": ("failed", 41, 41, "crash", "illegal memory access"),
    "cuda-arch": ("failed", 33, 33, "arch", "not compiled for this GPU"),
    "diffusers-no-cuda": ("failed", None, None, "init", "no CUDA support"),
    "diffusers-no-driver": ("failed", None, None, "driver", "no NVIDIA driver"),
    "exllama2": ("unverified", None, None, "", "no line about devices"),
    "libkrun-host-memory": ("failed", None, None, "driver", "libkrun"),
    "localai-cpu-backend": ("cpu", None, None, "", "cpu-llama-cpp"),
    "localai-debug-off": ("unverified", None, None, "", "LOCALAI_LOG_LEVEL=debug"),
    "localai-default-capability-cuda": ("cpu", None, None, "", "detected no GPU"),
    "localai-detection-missed": ("unverified", None, None, "", "0 bytes of VRAM"),
    "localai-less-than-4gb": ("cpu", None, None, "", "less than 4 GiB"),
    "localai-newest-load": ("cpu", 33, 33, "", "only repeats what was asked for"),
    "localai-newest-load-silent": ("unverified", None, None, "", "no line about devices"),
    "localai-not-loaded": ("unverified", None, None, "", "has not loaded the model yet"),
    "localai-prompt-injection": ("cpu", None, None, "", "All 4685 MiB"),
    "localai-rpc-error": ("failed", None, None, "model", "too old for this model"),
    "localai-slog-text-cuda": ("proven", 33, 33, "", "NVIDIA A100"),
    "localai-v2-fallback": ("cpu", None, None, "", "All 4165 MiB"),
    "localai-v2-no-cuda-backend": ("cpu", None, None, "", "no CUDA backend"),
    "localai-xlog-ansi-cuda": ("proven", 33, 33, "", "NVIDIA A100"),
    "localai-xlog-json-cuda": ("proven", 33, 33, "", "NVIDIA A100"),
    "no-usable-gpu": ("cpu", None, None, "", "no usable GPU found"),
    "out-of-memory-cuda": ("failed", None, None, "oom", "144817.04 MiB"),
    "out-of-memory-host": ("failed", None, None, "ram", "The host has not enough memory"),
    "quiet-cuda-init-failed": ("cpu", None, None, "", "driver is older"),
    "restarted-quiet": ("unverified", None, None, "", "verbosity 3"),
    "rocm-code-objects": ("failed", None, None, "arch", "gfx1035"),
    "rotated": ("unverified", None, None, "", "rotated out"),
    "vllm-cpu": ("cpu", None, None, "", "CPU platform"),
    "vllm-no-platform": ("failed", None, None, "init", "no device that vLLM can use"),
    "vllm-v0": ("proven", None, None, "", "21.21 GiB"),
    "vllm-v1": ("proven", None, None, "", "2,042,016 tokens"),
    "vulkaninfo-llvmpipe": ("software", None, None, "", "llvmpipe"),
    "vulkaninfo-venus": ("unverified", None, None, "", "Virtio-GPU Venus (Apple M1)"),
}
ALL = [("captured", name, want) for name, want in CAPTURED.items()] + [("made", name, want) for name, want in MADE.items()]


def read(kind: str, name: str) -> str:
    return (LOGS / kind / f"{name}.log").read_text(encoding="utf-8")


def test_every_fixture_is_judged_here():
    for kind, table in (("captured", CAPTURED), ("made", MADE)):
        assert {path.stem for path in (LOGS / kind).iterdir()} == set(table)


@pytest.mark.parametrize(("kind", "name", "want"), ALL, ids=[name for _kind, name, _want in ALL])
def test_verdicts(kind, name, want):
    found = evidence(read(kind, name))
    assert (found.verdict, found.layers_offloaded, found.layers_total, found.failure) == want[:4]
    assert want[4] in "\n".join(found.reasons)
    assert found.reasons
    json.dumps(found.as_dict())


# --- wrapping


def go_quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f").replace("\\u001b", "\\x1b")


def grpc(line: str) -> str:
    return f"5:32AM DBG GRPC(some-model.Q4-127.0.0.1:43735): stderr {line}"


def xlog(line: str) -> str:
    caller = '\x1b[36mcaller\x1b[0m={\x1b[36mcaller.file\x1b[0m="/build/pkg/model/process.go"  \x1b[36mcaller.L\x1b[0m=219 } '
    return (
        "\x1b[90mMar 20 07:45:12\x1b[0m \x1b[90mDEBUG\x1b[0m GRPC stderr \x1b[36mid\x1b[0m="
        f'"some-model.Q4-127.0.0.1:39311" \x1b[36mline\x1b[0m={go_quote(line)} {caller}'
    )


COLLECTORS = {
    "docker -t": lambda line: f"2026-11-22T21:40:00.123456789Z {line}",
    "docker json-file": lambda line: json.dumps({"log": line + "\n", "stream": "stderr", "time": "2026-11-22T21:40:00.1Z"}),
    "compose": lambda line: f"llama-1  | {line}",
    "compose, coloured, with times": lambda line: f"\x1b[36mllama-1  | \x1b[0m2026-11-22T21:40:00.123456789Z {line}",
    "journald": lambda line: f"Nov 26 20:52:05 gpu1 llama[800377]: {line}",
    "journald, short-iso": lambda line: f"2026-11-26T20:52:05+0000 gpu1 llama[800377]: {line}",
    "CRI": lambda line: f"2026-11-22T21:40:00.123456789+01:00 stderr F {line}",
    "kubectl --prefix": lambda line: f"[pod/llama-7d9/server] {line}",
    "carriage returns": lambda line: f"{line}\r",
}
PROCESSES = {
    "zerolog": grpc,
    "zerolog, ANSI": lambda line: f"\x1b[90m5:32AM\x1b[0m \x1b[33mDBG\x1b[0m GRPC(some-model.Q4-127.0.0.1:43735): stderr {line}",
    "xlog": xlog,
    "slog": lambda line: f'time=2026-03-20T07:45:12.1Z level=DEBUG msg="GRPC stderr" id="some-model.Q4-127.0.0.1:39311" line={go_quote(line)}',
    "xlog json": lambda line: json.dumps({"time": "t", "level": "DEBUG", "msg": "GRPC stderr", "id": "some-model.Q4-127.0.0.1:39311", "line": line}),
    "router": lambda line: f"[53671] {line}",
    "llama.cpp's prefix": lambda line: line if re.match(r"\d+\.\d\d\.\d{3}\.\d{3} ", line) else f"0.01.779.585 I {line}",
    "jsonl": lambda line: json.dumps({"type": "log", "time": 1156, "level": "info", "msg": line + "\n"}),
    "jsonl of a router's child": lambda line: json.dumps(
        {"type": "log", "time": 1, "level": "none", "msg": "[42341] " + json.dumps({"type": "log", "time": 1, "level": "info", "msg": line + "\n"}) + "\n"}
    ),
}


def wrap(text: str, *wrappers) -> str:
    lines = text.splitlines()
    for wrapper in wrappers:
        lines = [wrapper(line) for line in lines]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("collector", COLLECTORS)
@pytest.mark.parametrize(("kind", "name", "want"), ALL, ids=[name for _kind, name, _want in ALL])
def test_a_collector_does_not_change_the_verdict(kind, name, want, collector):
    plain, wrapped = evidence(read(kind, name)), evidence(wrap(read(kind, name), COLLECTORS[collector]))
    assert wrapped.as_dict() == plain.as_dict()


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(
    ("kind", "name", "want"),
    [case for case in ALL if not case[1].startswith(("localai", "router", "diffusers", "exllama")) and "zerolog" not in case[1]],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_around_the_process_does_not_change_the_verdict(kind, name, want, process):
    found = evidence(wrap(read(kind, name), PROCESSES[process]))
    assert (found.verdict, found.layers_offloaded, found.layers_total, found.failure) == want[:4]


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from([case for case in ALL if case[0] == "made"]),
    collectors=st.lists(st.sampled_from(sorted(set(COLLECTORS) - {"carriage returns"})), max_size=3),
)
def test_collectors_nest(case, collectors):
    kind, name, want = case
    assert evidence(wrap(read(kind, name), *(COLLECTORS[collector] for collector in collectors))).verdict == want[0]


# --- rules

HEAD = "llama_prepare_model_devices: using device CUDA0 (NVIDIA L4) (0000:00:03.0) - 22500 MiB free\n"


def load(offloaded: str, *buffers: str) -> str:
    return HEAD + f"load_tensors: offloaded {offloaded} layers to GPU\n" + "".join(f"load_tensors: {buffer}\n" for buffer in buffers)


def test_as_dict_has_the_public_keys():
    found = evidence(load("33/33", "CPU_Mapped model buffer size = 281.81 MiB", "CUDA0 model buffer size = 4403.49 MiB")).as_dict()
    assert set(found) == {"verdict", "reasons", "layers_offloaded", "layers_total", "devices", "buffers", "failure"}
    assert found["devices"] == [{"name": "CUDA0", "description": "NVIDIA L4", "software": False}]
    assert found["buffers"] == [
        {"name": "CPU_Mapped", "kind": "model", "size_mib": 281.81, "place": "host"},
        {"name": "CUDA0", "kind": "model", "size_mib": 4403.49, "place": "gpu"},
    ]


READY = "srv  llama_server: model loaded\nsrv  update_slots: all slots are idle\n"
# What llama-server logs of '{"messages":"CUDA error: foo"' and of a grammar that it rejects
BAD_JSON = (
    'srv    operator(): got exception: {"error":{"code":500,"message":"[json.exception.parse_error.101] parse error: '
    'last read: \'{\\"messages\\":\\"CUDA error: foo\\"\'","type":"server_error"}}\n'
)
BAD_GRAMMAR = (
    "parse: error parsing grammar: unknown escape\n\n"
    "load_tensors: offloaded 33/33 layers to GPU\n"
    "load_tensors: CUDA0 model buffer size = 5000.00 MiB\n"
)


@pytest.mark.parametrize("words", [BAD_JSON, BAD_GRAMMAR, "[41000] error loading model\n" + BAD_GRAMMAR])
@pytest.mark.parametrize("one_run", [False, True])
@pytest.mark.parametrize("name", ["cpu", "vulkan-full", "router-cpu"])
def test_what_clients_send_is_no_evidence(name, one_run, words):
    text = read("captured", name)
    if name == "router-cpu":
        port = re.search(r"^\[\d+\] ", text, re.M).group()
        text, words = text + port + READY.replace("\n", "\n" + port, 1), "".join(port + line + "\n" for line in words.splitlines())
    want = evidence(text, one_run)
    assert evidence(text + words, one_run) == want
    assert want.verdict == CAPTURED[name][0]


def test_a_log_whose_start_is_lost_proves_nothing():
    timing = "slot print_timing: id  0 | task 0 | prompt eval time = 12.0 ms\n"
    assert evidence(timing + BAD_GRAMMAR, one_run=True).verdict == "unverified"


def test_a_crash_after_the_load_stands_at_the_start_of_a_line():
    text = load("33/33", "CUDA0 model buffer size = 4685.30 MiB") + READY
    assert evidence(text).verdict == "proven"
    for line in ("CUDA error: an illegal memory access", "/app/ggml/src/ggml-cuda.cu:97: CUDA error: foo", "srv  update_slots: ggml_vulkan: ErrorDeviceLost"):
        assert evidence(text + line + "\n").verdict == "failed"
    assert evidence(text + 'srv  log_server_r: request:  {"messages":"CUDA error: foo"}\n').verdict == "proven"


def test_many_small_buffers_are_one():
    found = evidence(read("captured", "cpu"))
    mapped = [buffer for buffer in found.buffers if buffer["name"] == "CPU_Mapped"]
    assert len(mapped) == 1
    assert mapped[0]["size_mib"] == pytest.approx(222.49, abs=0.1)


@pytest.mark.parametrize("name", ["AMX", "CPU_REPACK", "CPU_AARCH64", "BLAS", "ACCEL", "CUDA_Host", "ROCm0", "NEWTHING", "NEWTHING7"])
def test_what_no_line_calls_a_device_is_host_memory(name):
    text = load("33/33", f"{name} model buffer size = 4685.30 MiB")
    assert evidence(text).verdict == "cpu"
    # The name of an option of a CPU without any device line at all, unless it looks like a numbered device
    if not re.match(r"[A-Za-z]+\d+\Z", name):
        assert evidence(text.replace(HEAD, "")).verdict == "cpu"


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("ROCm0", "ROCm0_Host"),
        ("CUDA0", "CUDA0_Host"),
        ("CUDA0", "CUDA0_Other"),
        ("Metal", "Metal_Host"),
        ("GPUOpenCL", "GPUOpenCL_Host"),
        ("BLAS", "BLAS"),
        ("ACCEL", "ACCEL"),
    ],
)
def test_host_memory_under_a_devices_name(device, name):
    text = load("33/33", f"{name} model buffer size = 4685.30 MiB").replace("CUDA0 (", f"{device} (")
    assert evidence(text).verdict == "cpu"


@pytest.mark.parametrize("name", ["CUDA0", "CUDA_Split", "CUDA0_Mapped", "CUDA0_Private", "CUDA0[remote]"])
def test_buffers_of_a_device(name):
    assert evidence(load("33/33", f"{name} model buffer size = 4685.30 MiB")).verdict == "proven"


def test_opencl_buffers_do_not_carry_their_devices_name():
    text = load("33/33", "OpenCL model buffer size = 4685.30 MiB").replace("CUDA0", "GPUOpenCL")
    assert evidence(text).verdict == "proven"


def test_a_log_that_lost_its_device_lines_still_proves_with_a_remark():
    found = evidence(load("33/33", "CUDA0 model buffer size = 4403.49 MiB").replace(HEAD, ""))
    assert found.verdict == "proven"
    assert "does not list its devices" in found.reasons[-1]


def test_layers_without_bytes_prove_nothing_and_bytes_without_layers_neither():
    assert evidence(HEAD + "load_tensors: offloaded 33/33 layers to GPU\n").verdict == "unverified"
    assert evidence(HEAD + "load_tensors: CUDA0 model buffer size = 4403.49 MiB\n").verdict == "unverified"


@pytest.mark.parametrize(
    ("gpu", "host", "facts", "verdict"),
    [
        (4403, 282, "", "proven"),  # 6 %: token embeddings
        (762, 205, "", "proven"),  # 21 %, small: embeddings of a tied model, loaded twice
        (12000, 4000, "", "partial"),  # 25 %, large: experts
        (762, 205, "print_info: n_vocab = 128256\nprint_info: n_embd = 2048\n", "proven"),
        (5000, 1200, "print_info: n_vocab = 32000\nprint_info: n_embd = 4096\n", "partial"),  # embeddings take 250 MiB at most
        (2800, 1900, "llama_model_loader: - kv 9: gemma3n.embedding_length_per_layer_input u32 = 256\nprint_info: n_vocab = 262144\n"
                     "print_info: n_embd = 2048\nprint_info: n_layer = 30\n", "proven"),  # embeddings of every layer stay on the host
        (65, 360, "", "partial"),  # the output matrix outweighs what is on the GPU
        (3800, 4000, "print_info: file size = 3.80 GiB (4.5 BPW)\n", "proven"),  # a mapped range covers more than its tensors
    ],
)  # fmt: skip
def test_bytes_are_weighed_where_all_layers_are_on_the_gpu(gpu, host, facts, verdict):
    text = HEAD + facts + load("33/33", f"CPU_Mapped model buffer size = {host}.00 MiB", f"CUDA0 model buffer size = {gpu}.00 MiB").replace(HEAD, "")
    assert evidence(text).verdict == verdict


def test_overridden_tensors_are_partial():
    text = HEAD + "tensor blk.3.ffn_up_exps.weight (54 MiB q4_K) buffer type overridden to CPU\n"
    text += load("33/33", "CUDA0 model buffer size = 4403.49 MiB").replace(HEAD, "")
    assert evidence(text).verdict == "partial"
    assert evidence(text.replace("overridden to CPU", "overridden to CUDA1")).verdict == "proven"


def test_fit_forgets_what_it_tried_before():
    lines = "common_params_fit_impl: getting device memory data for initial parameters:\n"
    tried = "common_params_fit_impl:   - CUDA0 (NVIDIA L4): 25 layers ( 5 overflowing),  11065 MiB used,   1036 MiB free\n"
    settled = tried.replace("( 5", "( 0")
    good = load("33/33", "CUDA0 model buffer size = 4403.49 MiB")
    assert evidence(lines + tried + good).verdict == "partial"
    assert evidence(lines + tried + settled + good).verdict == "proven"
    assert evidence(lines + tried + lines + good).verdict == "proven"


def test_overflow_without_sizes_is_partial():
    text = "common_params_fit_impl:   - ROCm0 (AMD Radeon RX 6700 XT): 25 layers ( 5 overflowing),  11065 MiB used,   1036 MiB free\n"
    assert evidence(text + "llm_load_tensors: offloaded 25/25 layers to GPU\n").verdict == "partial"


@pytest.mark.parametrize("rest", ["5:32AM DBG GRPC(...:43735): stderr ", "    ... stderr ", "\u2026 stderr "])
def test_quoted_logs_are_shortened(rest):
    text = "  5:32AM DBG GRPC(llama-2-7b-chat.Q4_K_M.gguf-127.0.0.1:43735): stderr ggml_init_cublas: found 1 CUDA devices:\n"
    text += f"{rest}llm_load_tensors: offloaded 35/35 layers to GPU\n{rest}llm_load_tensors: VRAM used: 5869 MB\n"
    found = evidence(text)
    assert (found.verdict, found.layers_offloaded) == ("proven", 35)


def test_zerolog_json():
    lines = [json.dumps({"level": "debug", "time": "t", "message": grpc(line).partition("DBG ")[2]}) for line in read("made", "2026-vulkan-full").splitlines()]
    assert lines[0].count("GRPC(") == 1
    assert evidence("\n".join(lines)).verdict == "proven"


def test_a_real_gpu_beside_a_software_renderer():
    text = "ggml_vulkan: Found 2 Vulkan devices:\n"
    text += "ggml_vulkan: 0 = NVIDIA L4 (NVIDIA) | uma: 0 | fp16: 1\nggml_vulkan: 1 = llvmpipe (LLVM 20, 256 bits) (llvmpipe) | uma: 0 | fp16: 1\n"
    good = text + "load_tensors: offloaded 33/33 layers to GPU\nload_tensors: Vulkan0 model buffer size = 4403.49 MiB\n"
    assert evidence(good).verdict == "proven"
    assert evidence(good + "load_tensors: Vulkan1 model buffer size = 900.00 MiB\n").verdict == "partial"
    assert evidence(good.replace("Vulkan0 model", "Vulkan1 model")).verdict == "software"


def test_a_real_gpu_instead_of_llvmpipe():
    """The captured logs, had their device been a real one."""
    for name, verdict in (("vulkan-partial", "partial"), ("vulkan-full", "partial"), ("vulkan-no-layers", "cpu")):
        assert evidence(read("captured", name).replace("llvmpipe (LLVM 22.1.8, 256 bits)", "NVIDIA L4")).verdict == verdict
    # A GPU that takes the tied output matrix holds the whole file
    whole = read("captured", "vulkan-full").replace("llvmpipe (LLVM 22.1.8, 256 bits)", "NVIDIA L4").replace("65.16 MiB", "235.16 MiB")
    assert evidence(whole).verdict == "proven"


def test_the_last_load_counts():
    gpu = load("33/33", "CUDA0 model buffer size = 4403.49 MiB") + "llama_kv_cache: CUDA0 KV buffer size = 512.00 MiB\n"
    cpu = "srv    load_model: loading model '/m'\nload_tensors: CPU_Mapped model buffer size = 4685.30 MiB\n"
    assert evidence(gpu + cpu).verdict == "cpu"
    assert evidence(cpu + gpu).verdict == "proven"
    assert evidence(read("captured", "out-of-memory") + gpu).verdict == "proven"
    assert evidence(gpu + read("captured", "out-of-memory")).verdict == "failed"
    assert evidence(read("captured", "vulkan-full") + read("captured", "cpu")).verdict == "cpu"
    assert evidence(gpu + read("captured", "quiet")).verdict == "unverified"


def test_a_draft_model_is_not_the_model():
    draft = "srv load_model: loading draft model '/d'\nload_tensors: offloaded 5/9 layers to GPU\nload_tensors: CUDA0 model buffer size = 100.00 MiB\n"
    gpu = load("33/33", "CUDA0 model buffer size = 4403.49 MiB") + "llama_kv_cache: CUDA0 KV buffer size = 512.00 MiB\n"
    found = evidence(gpu + draft)
    assert (found.verdict, found.layers_total) == ("proven", 33)


def test_a_dry_run_alone_is_no_load():
    text = read("made", "2026-cuda-fit-dry-run")
    dry = text[: text.index("0.00.980.226")]
    assert evidence(dry).verdict == "unverified"
    # Without the line that names it, its empty buffers give it away
    assert evidence(re.sub(r".*no_alloc.*\n", "", dry)).verdict == "unverified"


def test_a_recovered_error_is_no_failure():
    good = load("33/33", "CUDA0 model buffer size = 4403.49 MiB")
    assert evidence(HEAD + "ggml_cuda_host_malloc: failed to allocate 512.00 MiB of pinned memory: out of memory\n" + good).verdict == "proven"
    retried = good + "ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 12345\n"
    assert evidence(retried).verdict == "failed"
    assert evidence(retried + "sched_reserve: CUDA0 compute buffer size = 256.00 MiB\n").verdict == "proven"


@pytest.mark.parametrize(
    "lines",
    [
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 137438953504\n"
        "llama_kv_cache_init: failed to allocate buffer for kv cache\n",
        "ggml_gallocr_reserve_n: failed to allocate CPU buffer of size 139183763104\n",
        "alloc_tensor_range: failed to allocate CUDA_Host buffer of size 68719476736\n"
        "llama_model_load: error loading model: unable to allocate CUDA_Host buffer\n",
        "llama_model_load: error loading model: unable to allocate CPU_REPACK buffer\n",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 65536.00 MB)\n",
    ],
)
def test_memory_of_the_host_is_not_that_of_the_gpu(lines):
    found = evidence(HEAD + lines + "srv    load_model: failed to load model, '/m.gguf'\n")
    assert (found.verdict, found.failure) == ("failed", "ram")
    # A buffer of pinned memory is none that failed
    assert evidence(load("33/33", "CUDA_Host buffer size = 70.31 MiB", "CUDA0 buffer size = 4403.49 MiB")).verdict == "proven"


def test_an_image_encoder_has_a_buffer_of_its_own():
    sizes = {(buffer["name"], buffer["kind"]): buffer["size_mib"] for buffer in evidence(read("captured", "cpu-vision"), one_run=True).buffers}
    assert (sizes["CPU", "compute"], sizes["CPU", "encoder"], sizes["CPU", "kv"]) == (22.28, 0.86, 36.0)
    # Lines of llama.cpp's pull request 22790 (Gemma 3 4B and its encoder on CUDA), behind a model's own
    text = load("33/33", "CUDA0 model buffer size = 4403.49 MiB") + (
        "sched_reserve:      CUDA0 compute buffer size =   116.00 MiB\n"
        "clip_ctx: CLIP using CUDA0 backend\n"
        "load_hparams: model size:         811.79 MiB\n"
        "warmup: warmup with image size = 896 x 896\n"
        "alloc_compute_meta:      CUDA0 compute buffer size =   121.25 MiB\n"
        "alloc_compute_meta:        CPU compute buffer size =     9.19 MiB\n"
        "alloc_compute_meta: graph splits = 1, nodes = 863\n"
    )
    found = evidence(text)
    sizes = {(buffer["name"], buffer["kind"]): buffer["size_mib"] for buffer in found.buffers}
    assert found.verdict == "proven" and sizes["CUDA0", "compute"] == 116.0 and sizes["CUDA0", "encoder"] == 121.25
    # Before a model it is no load
    assert evidence(text[text.index("clip_ctx") :] + text).buffers == found.buffers


def test_models_are_judged_one_by_one():
    def child(port, lines):
        return "".join(f"[{port}] {line}\n" for line in lines.splitlines())

    gpu = load("33/33", "CUDA0 model buffer size = 4403.49 MiB")
    partial = load("10/33", "CUDA0 model buffer size = 1403.49 MiB", "CPU_Mapped model buffer size = 3000.00 MiB")
    spawn = "srv load: spawning server instance with name={} on port {}\n"
    text = spawn.format("a", 41001) + spawn.format("b", 41002)
    mixed = "".join(one + two for one, two in zip(child(41001, gpu).splitlines(True), child(41002, partial).splitlines(True)))
    found = evidence(text + mixed + child(41002, partial.splitlines()[-1]))
    assert found.verdict == "partial"
    assert found.reasons[0].startswith("b: 10 of 33 layers")
    assert {buffer["model"] for buffer in found.buffers} == {"a", "b"}
    # b is loaded again under another port, and nothing of its first load is left
    assert evidence(text + mixed + spawn.format("b", 41003) + child(41003, gpu)).verdict == "proven"
    assert evidence(text + child(41001, gpu)).verdict == "unverified"
    died = "srv run: instance name=b exited with status 137\n"
    assert evidence(text + child(41001, gpu) + died).failure == "crash"


def test_two_services_of_one_compose_log_are_not_mixed():
    gpu = load("33/33", "CUDA0 model buffer size = 4403.49 MiB")
    one = wrap(gpu, lambda line: f"a-1  | {line}").splitlines(True)
    two = wrap(read("captured", "cpu"), lambda line: f"b-1  | {line}").splitlines(True)
    assert evidence("".join(two[:140] + one[:2] + two[140:] + one[2:])).verdict == "cpu"
    assert evidence("".join(one)).verdict == "proven"


def test_silence_is_never_cpu():
    for text in ("", "\n", "hello\n", "0.00.1 I srv llama_server: listening\n", "INF LocalAI version: v3\n"):
        assert evidence(text).verdict == "unverified"
        assert evidence(text).reasons
    assert evidence("").reasons == ("The log is empty.",)


# --- robustness

WORDS = st.sampled_from(
    [
        "offloaded ", "33/33", " layers to GPU", "buffer size", " = ", "1.5 MiB", "CUDA0 ", "model ", "KV ", "using device ", "(", ")", " - ", "9 MiB free",
        "ggml_cuda_init: failed to initialize CUDA: ", "Found 1 Vulkan devices", "Device 0: X", "| uma", "\n", "[41001] ", '{"msg":"', '"}', "\x1b[0m",
        "5:32AM DBG GRPC(a-127.0.0.1:1): stderr ", "DEBUG GRPC stderr id=\"a\" line=\"", "\\x1b", "\\U7fffffff", "\"", "load_model: loading model", "draft ",
        "no_alloc = 1", "out of memory", "failed to allocate", "error loading model", "exited with status ", "with name=a on port 41001",
        "0 layers ( 5 overflowing)",
        "2026-01-01T00:00:00Z ", "stdout F ", "a-1  | ", "Loading GRPC Process", "Starting LocalAI", "model loaded", "llama_server: initializing", "²",
        "\ud800", "\x00", "... stderr ", "GRPC(...:1): stderr ",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(WORDS, st.text(max_size=20)), max_size=60).map("".join))
def test_nothing_in_a_log_makes_it_fail(text):
    found = evidence(text)
    assert found.verdict in VERDICTS
    assert found.reasons


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000).map(lambda data: data.decode("utf-8", "replace")))
def test_binary_garbage_is_unverified(text):
    assert evidence(text).verdict == "unverified"


@pytest.mark.parametrize(
    "piece", ["Vulkan0: ", "buffer size = ", "using device a (", "- a (", '{"msg":"', "[41001] ", "\\", 'line="', "a-", "\x1b[", "Found 1 ", " ", "VRAM used "]
)
def test_time_grows_with_the_length_only(piece):
    line = (piece * (200_000 // len(piece))) + " buffer size | uma Device 1 overflowing) line= MiB free)\n"
    started = time.process_time()
    evidence(line * 5)
    evidence((piece * (100 // len(piece) + 1) + " buffer size\n") * 5000)
    assert time.process_time() - started < 10


def test_a_long_line_keeps_its_start():
    text = load("33/33", "CUDA0 model buffer size = 4403.49 MiB " + "x" * 1_000_000)
    assert evidence("y" * 100_000 + "\n" + text).verdict == "proven"


def test_blocks_do_not_cut_lines():
    text = load("33/33", "CPU_Mapped model buffer size = 281.81 MiB", "CUDA0 model buffer size = 4403.49 MiB")
    want = evidence(text).as_dict()
    for padding in range(65536 - 300, 65536 + 2):
        assert evidence("p" * padding + "\n" + text).as_dict() == want


def test_thousands_of_processes():
    text = "".join(f"5:32AM DBG GRPC(m{index}-127.0.0.1:{index}): stderr load_tensors: offloaded 1/1 layers to GPU\n" for index in range(5000))
    assert evidence(text).verdict == "unverified"


def test_evidence_has_defaults():
    assert Evidence("unverified").as_dict()["layers_offloaded"] is None
