#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_fit
short_description: Plan which layers of which models go to which GPU, and with how much context
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Computes how much memory llama.cpp takes for each model on each GPU, and chooses settings that fit - the layers on the GPU, the context,
    the type of the KV cache, the experts that stay in host memory, and how several GPUs share a model.
  - All services of a host are planned together, in the order of their list. Each first gets what its shortest context needs; what is left
    then lengthens the contexts.
  - Only the headers of the models are looked at, so this can run before a model travels. Nothing but numbers is needed of the GPUs.
  - Settings that a service has are kept. Those that it leaves out, and those that are V(auto), are chosen.
  - Everything is computed on the machine that runs this module. Delegate it to the controller.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - Nothing is ever changed.
  diff_mode:
    description: Returns what changed.
    support: none
    details:
      - Nothing is ever changed.
  idempotent:
    description: A second run returns the same.
    support: full
    details:
      - The memory that containers of a plan hold is added back when it is given as C(ours_mib), so it does not shrink the next plan.
options:
  services:
    description:
      - The services, the most important first.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - The service's name.
        type: str
        required: true
      model:
        description:
          - The path of its GGUF file; of a split model that of any part, with the others beside it.
          - Or the result of module gguf_info with C(tensors=true), which also reads headers on servers.
          - Or its shape, a dictionary with C(metadata), C(vocabulary) and C(tensors), or a dictionary that has one under C(shape).
        type: raw
        required: true
      mmproj:
        description:
          - The model's image encoder, in the same way.
        type: raw
      settings:
        description:
          - Settings as in O(ignore:inference_services).
          - V(auto), or leaving one out, lets the plan choose. C(low_vram) is honoured with a smaller batch, and with a KV cache that is
            quantised or in host memory where that is needed.
        type: dict
        default: {}
      gpus:
        description:
          - The GPUs that it gets - V(all), numbers or UUIDs. An empty list is the CPU.
        type: list
        elements: str
      server_version:
        description:
          - What serves it, in place of O(server_version).
        type: str
      step_down:
        description:
          - How many times it ran out of memory with a plan like this. Each makes the margin larger.
        type: int
        default: 0
      extra_mib:
        description:
          - Memory that it takes beside its model on each GPU, such as LoRA adapters.
          - For architectures whose memory is not known it is your own measure, with which they are planned here.
        type: int
        default: 0
  gpus:
    description:
      - The host's GPUs, as RV(aikit.fleet.gpu_info#module:gpus) has them. C(ours_mib) is what our own running containers hold of each.
    type: list
    elements: dict
    required: true
  host:
    description:
      - The host's memory, for what stays out of the GPUs. Without it that is not checked.
    type: dict
    suboptions:
      memory_total_mib:
        description:
          - What it has.
        type: int
      memory_available_mib:
        description:
          - What of it programs can have.
        type: int
  policy:
    description:
      - How to decide. What is left out keeps its default.
    type: dict
    default: {}
    suboptions:
      margin_mib:
        description:
          - Memory that stays free on each GPU, at least.
        type: int
        default: 512
      margin_percent:
        description:
          - The same as a part of the GPU's memory. The larger of both counts.
        type: float
        default: 3.0
      context_mib:
        description:
          - What the driver takes for a server on every GPU that the server sees.
          - V(0) is what a card of its name takes, 330 MiB or more.
        type: int
        default: 0
      kv_types:
        description:
          - Types of the KV cache that may be chosen, the first before the second.
          - V(q8_0) halves the cache, and takes room for converting one layer of it.
        type: list
        elements: str
        choices: [f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl]
        default: [f16]
      context_min:
        description:
          - The shortest context that is worth having all layers on the GPU for.
        type: int
        default: 4096
      context_max:
        description:
          - The longest context that is chosen. V(0) is what the model was trained for.
        type: int
        default: 0
      unknown:
        description:
          - What to do with an architecture that this collection does not know. V(margin) plans it with a margin, V(server) leaves it to
            llama.cpp's own fit.
        type: str
        choices: [margin, server]
        default: margin
      unknown_percent:
        description:
          - That margin, on top of the compute buffer.
        type: float
        default: 50.0
      host_reserve_mib:
        description:
          - What the host keeps of its own memory.
        type: int
        default: 2048
  server_version:
    description:
      - What serves the models - V(localai v4.7.1), V(llama_cpp 0.7.0), V(llama_cpp b8179). llama.cpp's use of memory changed over time.
      - Empty is the newest that this collection knows. V(localai) without a version counts as an old one, 3.0.
    type: str
    default: ""
seealso:
  - module: aikit.fleet.gpu_info
  - module: aikit.fleet.inference_check
notes:
  - The guide C(docs/fit.md) explains the numbers, and C(docs/benchmarks.md) how far they were off.
"""

EXAMPLES = r"""
- name: Look at the GPUs
  aikit.fleet.gpu_info:
  register: found

- name: Plan two services for them
  aikit.fleet.gpu_fit:
    services:
      - name: chat
        model: /srv/models/llama-3.1-8b-q4_k_m.gguf
        settings: {gpu_layers: auto, context_size: auto}
      - name: code
        model: /srv/models/qwen2.5-coder-7b-q4_k_m.gguf
        settings: {context_size: 16384}
    gpus: "{{ found.gpus }}"
    server_version: llama_cpp 0.7.0
  delegate_to: localhost
  register: plan

- name: Say what does not fit, before anything travels
  ansible.builtin.debug:
    msg: "{{ item.service }}: {{ item.reason }}"
  loop: "{{ plan.fits | rejectattr('offload', 'eq', 'full') }}"
  loop_control:
    label: "{{ item.service }}"

- name: Would it fit on a card that is not there yet?
  aikit.fleet.gpu_fit:
    services:
      - name: chat
        model: /srv/models/llama-3.1-8b-q4_k_m.gguf
    gpus:
      - {index: 0, name: NVIDIA L4, memory_total_mib: 23034}
    policy:
      kv_types: [f16, q8_0]
      context_max: 65536
  delegate_to: localhost
  register: dreamt
"""

RETURN = r"""
fits:
  description: One plan for each service, in the order of O(services).
  returned: success
  type: list
  elements: dict
  contains:
    service:
      description: The service's name.
      returned: always
      type: str
      sample: chat
    settings:
      description:
        - Explicit settings, named as in O(ignore:inference_services). C(gpu_layers) counts the output layer, so all are one more than the model's blocks.
        - C(batch) is llama.cpp's physical batch. C(tensor_split) are the layers on each GPU, empty on one.
        - Where RV(fits[].delegated), C(gpu_layers) and C(context_size) that were left open are V(auto), and the others are the user's or the server's defaults.
      returned: always
      type: dict
      sample: {gpu_layers: 33, context_size: 28672, batch: 512, flash_attention: "on", cache_type_k: f16, cache_type_v: f16,
               no_kv_offloading: false, n_cpu_moe: 0, parallel: 1, tensor_split: ""}
    localai:
      description: The same as LocalAI's model configuration has it. Its C(options) are merged by their first word.
      returned: always
      type: dict
      sample: {gpu_layers: 33, context_size: 28672, flash_attention: "on", parameters: {batch: 512}, options: ["parallel:1"]}
    environment:
      description: The same as the environment of llama.cpp's server.
      returned: always
      type: dict
      sample: {LLAMA_ARG_N_GPU_LAYERS: "33", LLAMA_ARG_CTX_SIZE: "28672"}
    offload:
      description: V(full), V(partial) (layers, experts or the KV cache stay in host memory) or V(none).
      returned: always
      type: str
      sample: full
    fits:
      description: V(false) where what was asked for, or the part in host memory, does not fit.
      returned: always
      type: bool
      sample: true
    delegated:
      description: Whether it is left to llama.cpp's own fit, because the architecture's memory is not known.
      returned: always
      type: bool
      sample: false
    confidence:
      description:
        - V(exact) where every buffer was compared with llama.cpp's for this architecture and all layers are on one GPU, V(known) where
          its kinds of memory are known, V(estimated) otherwise.
      returned: always
      type: str
      sample: exact
    reason:
      description: Why the plan is as it is.
      returned: always
      type: str
      sample: All layers and a context of 28672 tokens fit.
    layers_offloaded:
      description: Layers on GPUs, the output layer among them.
      returned: always
      type: int
      sample: 33
    layers_total:
      description: All layers.
      returned: always
      type: int
      sample: 33
    step_down:
      description: As it was given.
      returned: always
      type: int
      sample: 0
    breakdown:
      description:
        - What lies where, for each GPU and the CPU. C(available_mib) is what other services leave (of the host's memory, without their
          mapped weights), C(margin_mib) stays free of it, and C(needed_mib) is the sum of the others. C(pool_mib) is the part of
          C(context_mib) that is taken with the first long text.
      returned: always
      type: list
      elements: dict
      sample:
        - {device: GPU 0 (NVIDIA L4), index: 0, layers: 33, weights_mib: 4403.49, kv_mib: 3584.0, state_mib: 0.0, compute_mib: 144.0,
           mmproj_mib: 0.0, context_mib: 330.0, pool_mib: 0.0, margin_mib: 691.02, needed_mib: 8461.49, available_mib: 23034.0}
    findings:
      description: Remarks on the service's settings.
      returned: always
      type: list
      elements: dict
      sample:
        - {level: warning, path: chat.settings.f16, line: 0, message: "f16 does nothing for llama.cpp: its KV cache is f16 already",
           hint: Leave it out.}
"""

from ..module_utils._core.fit_options import fits
from ..module_utils._core.fit_settings import to_llama_env, to_localai
from ..module_utils._io.gguf_file import read_shape
from ..module_utils._module import run_module

SERVICE = {
    "name": {"type": "str", "required": True},
    "model": {"type": "raw", "required": True},
    "mmproj": {"type": "raw"},
    "settings": {"type": "dict", "default": {}},
    "gpus": {"type": "list", "elements": "str"},
    "server_version": {"type": "str"},
    "step_down": {"type": "int", "default": 0},
    "extra_mib": {"type": "int", "default": 0},
}
TYPES = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
POLICY = {
    "margin_mib": {"type": "int", "default": 512},
    "margin_percent": {"type": "float", "default": 3.0},
    "context_mib": {"type": "int", "default": 0},
    "kv_types": {"type": "list", "elements": "str", "choices": TYPES, "default": ["f16"]},
    "context_min": {"type": "int", "default": 4096},
    "context_max": {"type": "int", "default": 0},
    "unknown": {"type": "str", "choices": ["margin", "server"], "default": "margin"},
    "unknown_percent": {"type": "float", "default": 50.0},
    "host_reserve_mib": {"type": "int", "default": 2048},
}
ARGUMENT_SPEC = {
    "services": {"type": "list", "elements": "dict", "required": True, "options": SERVICE},
    "gpus": {"type": "list", "elements": "dict", "required": True},
    "host": {"type": "dict", "options": {"memory_total_mib": {"type": "int"}, "memory_available_mib": {"type": "int"}}},
    "policy": {"type": "dict", "default": {}, "options": POLICY},
    "server_version": {"type": "str", "default": ""},
}


def work(module):
    params = module.params
    found = fits(params["services"], params["gpus"], params["policy"], params["server_version"], params["host"], read_shape)
    for fit in found:
        for finding in fit.findings:
            if finding.level != "info":
                module.warn(finding.describe())
    results = [{**fit.as_dict(), "localai": to_localai(fit.settings), "environment": to_llama_env(fit.settings)} for fit in found]
    return {"changed": False, "fits": results}


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
