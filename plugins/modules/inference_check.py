#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inference_check
short_description: Prove that an inference service answers, and where its model runs
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.engine
description:
  - Waits until an OpenAI-compatible server (llama-server, LocalAI, vLLM) is ready, asks it for one completion, and reads from its log whether
    the model's layers sit on the GPU.
  - A container that ends while it is waited for is reported at once, with its exit code, the reason that its log gives and its last lines.
  - The answer is judged by its tokens, its finish reason and its usage, not by its sense.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - A completion changes nothing, so it is asked for in check mode too.
      - Where O(container) does not exist yet, the verdict is V(unverified) and RV(passed) is true, since nothing can be known before it does.
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
options:
  url:
    description:
      - Where the server listens, seen from the host that runs the module. A path before C(/v1) is kept.
      - Proxies from the environment are not used.
    type: str
    default: http://127.0.0.1:8080
  container:
    description:
      - Name of the server's container. Its state is watched, and its log is the evidence.
      - The names in its C(LLAMA_ARG_ALIAS) must be among the models that the server lists; otherwise another server answers at O(url).
    type: str
  expect:
    description:
      - What the service must show. Where it does not, the module fails and still returns all that it found.
      - Without any, every verdict but V(failed) will do.
    type: dict
    default: {}
    suboptions:
      verdict:
        description:
          - Verdicts that are good enough. See RV(verdict).
        type: list
        elements: str
        choices: [proven, partial, cpu, software, failed, unverified]
        default: []
      min_tokens_per_second:
        description:
          - Speed of generation that is needed.
        type: float
      max_time_to_first_token_seconds:
        description:
          - How long the first token may take.
        type: float
      max_ready_seconds:
        description:
          - How long the server may take to get ready. See RV(ready_seconds).
        type: float
  prompt:
    description:
      - What to ask.
    type: str
    default: Write one sentence about the sea.
  model:
    description:
      - The model to ask. Without it, the first that C(/v1/models) lists; of the files that LocalAI lists without a config, the first GGUF file.
    type: str
  api_key:
    description:
      - Key of the service.
      - Mutually exclusive with O(api_key_file).
    type: str
  api_key_file:
    description:
      - File on the host with the key of the service, as role P(aikit.fleet.inference#role) writes it.
        The key is taken from there, so it does not travel.
      - Mutually exclusive with O(api_key).
    type: path
  max_tokens:
    description:
      - How long the answer may get. Speed is measured over these tokens.
    type: int
    default: 32
  timeout_seconds:
    description:
      - How long the server may take to get ready. A model of 40 GB on a slow disk needs minutes.
      - The answer itself gets what is left of this time, and at least 120 seconds.
    type: float
    default: 300
  log:
    description:
      - Log to judge instead of the one of O(container), as text or as the name of a file on the host.
    type: str
  evidence:
    description:
      - RV(evidence) of an earlier check. It is used when the log no longer holds the load and O(container) is still the same run of the same container.
    type: dict
    default: {}
  planned:
    description:
      - A plan of GPU memory, C(fit) of a service as M(aikit.fleet.service_fit) returns it. Its amounts are compared with the buffers of the log.
      - What is off by more than 5 percent is a warning, and fails nothing.
    type: dict
    default: {}
notes:
  - The rules behind the verdicts are described with filter P(aikit.fleet.offload_evidence#filter).
  - Where C(nvidia-smi) is on the host, the GPU memory that the container's processes hold is added to the evidence. It turns V(unverified) into
    V(proven) when it is at least 80 percent of the model's size (2 GiB where the size is not known), and never changes another verdict.
seealso:
  - plugin: aikit.fleet.offload_evidence
    plugin_type: filter
  - module: aikit.fleet.inference_release
"""

EXAMPLES = r"""
- name: Wait for the service and see where it runs
  aikit.fleet.inference_check:
    url: http://127.0.0.1:8080
    container: llama
  register: check

- name: Fail unless all layers are on the GPU and it is fast
  aikit.fleet.inference_check:
    url: http://127.0.0.1:8080
    container: llama
    expect:
      verdict: [proven]
      min_tokens_per_second: 20
    timeout_seconds: 600
  when: false # needs a GPU
"""

RETURN = r"""
verdict:
  description:
    - V(proven) (all layers are on a GPU), V(partial) (some stayed in host memory), V(cpu) (none is on a GPU), V(software) (on a renderer that computes
      on the CPU), V(failed) (the model did not load or the server does not answer), V(unverified) (nothing says where).
  returned: always
  type: str
  sample: proven
reasons:
  description: Why, in sentences.
  returned: always
  type: list
  elements: str
  sample:
    - 33 of 33 layers and 4403 of 4685 MiB of weights are on CUDA0 (NVIDIA L4).
passed:
  description: Whether the service answered and met O(expect). Present in failures too, where it is false.
  returned: always
  type: bool
  sample: true
evidence:
  description: What the verdict rests on. Keep it and give it back as O(evidence) to judge the service after its log was rotated.
  returned: always
  type: dict
  contains:
    verdict:
      description: As RV(verdict).
      type: str
      sample: proven
    reasons:
      description: As RV(reasons).
      type: list
      elements: str
      sample:
        - 33 of 33 layers and 4403 of 4685 MiB of weights are on CUDA0 (NVIDIA L4).
    layers_offloaded:
      description: Layers that the server says it offloaded; null where it does not say.
      type: int
      sample: 33
    layers_total:
      description: Layers of the model.
      type: int
      sample: 33
    devices:
      description: Devices that the server uses.
      type: list
      elements: dict
      sample:
        - name: CUDA0
          description: NVIDIA L4
          software: false
    buffers:
      description: Buffers in MiB, with their place (V(gpu), V(software) or V(host)).
      type: list
      elements: dict
      sample:
        - name: CUDA0
          kind: model
          size_mib: 4403.49
          place: gpu
    failure:
      description: Kind of the failure (oom, ram, init, driver, arch, crash, model, config, load), else empty.
      type: str
      sample: ""
    sources:
      description: Where it comes from (log, stored, nvidia-smi, resources).
      type: list
      elements: str
      sample: [log]
    container_id:
      description: Id of the container.
      type: str
      sample: 4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a
    started_at:
      description: When this run of the container began.
      type: str
      sample: "2026-11-22T21:40:00.123456789Z"
planned:
  description:
    - The amounts of O(planned) beside those of the log, for each GPU of the plan. Empty where the log shows no buffer on a GPU.
    - C(percent) is how much more the server took than was planned; null where nothing was.
  returned: always
  type: list
  elements: dict
  sample:
    - device: CUDA0
      index: 0
      weights: {planned_mib: 4403.49, actual_mib: 4403.49, percent: 0.0}
      kv: {planned_mib: 1024.0, actual_mib: 1024.0, percent: 0.0}
      compute: {planned_mib: 258.5, actual_mib: 264.0, percent: 2.13}
      total: {planned_mib: 5685.99, actual_mib: 5691.49, percent: 0.1}
findings:
  description: Where the server took other amounts than planned.
  returned: always
  type: list
  elements: dict
  sample:
    - level: warning
      path: CUDA0
      line: 0
      message: "the server took other amounts than planned: compute 530 MiB where 258 were planned (+105.0 %)"
      hint: "A plan that is too low can run out of memory: raise margin_mib of inference_fit_policy, and report the model and the version of the server."
answer:
  description: The text of the completion.
  returned: always
  type: str
  sample: The sea is wide and never still.
model:
  description: The model that answered.
  returned: always
  type: str
  sample: llama-3.1-8b-instruct
ready_seconds:
  description: Seconds from the start of this check until the server could answer; null when it never could.
  returned: always
  type: float
  sample: 3.204
time_to_first_token_seconds:
  description: Seconds from the request to the first token; null when the server did not stream.
  returned: always
  type: float
  sample: 0.112
tokens_per_second:
  description: Speed of generation, measured by the server where it does so; null when the answer was too short to tell.
  returned: always
  type: float
  sample: 61.3
prompt_tokens:
  description: Tokens of the prompt.
  returned: always
  type: int
  sample: 17
completion_tokens:
  description: Tokens of the answer.
  returned: always
  type: int
  sample: 32
finish_reason:
  description: Why the answer ended.
  returned: always
  type: str
  sample: length
container_id:
  description: Id of O(container), else empty.
  returned: always
  type: str
  sample: 4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a
started_at:
  description: When this run of O(container) began, else empty.
  returned: always
  type: str
  sample: "2026-11-22T21:40:00.123456789Z"
hint:
  description: What to do about it.
  returned: failure
  type: str
  sample: Check that the container was given a GPU and that the driver works on the host, or accept cpu in expect.verdict.
"""

from ..module_utils._core import check
from ..module_utils._core.errors import AikitError
from ..module_utils._core.offload import VERDICTS, Evidence
from ..module_utils._core.plan import Plan, report
from ..module_utils._io import inference
from ..module_utils._io.engine import open_engine
from ..module_utils._io.openai import Client
from ..module_utils._module import ENGINE_OPTION, run_module

ARGUMENT_SPEC = {
    "url": {"type": "str", "default": "http://127.0.0.1:8080"},
    "container": {"type": "str"},
    "engine": ENGINE_OPTION,
    "expect": {
        "type": "dict",
        "default": {},
        "options": {
            "verdict": {"type": "list", "elements": "str", "choices": list(VERDICTS), "default": []},
            "min_tokens_per_second": {"type": "float", "no_log": False},
            "max_time_to_first_token_seconds": {"type": "float", "no_log": False},
            "max_ready_seconds": {"type": "float"},
        },
    },
    "prompt": {"type": "str", "default": "Write one sentence about the sea."},
    "model": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "api_key_file": {"type": "path", "no_log": False},
    "max_tokens": {"type": "int", "default": 32, "no_log": False},
    "timeout_seconds": {"type": "float", "default": 300},
    "log": {"type": "str"},
    "evidence": {"type": "dict", "default": {}},
    "planned": {"type": "dict", "default": {}},
}


def watch(params, check_mode):
    """The container to watch; None in check mode where there is none yet."""
    name = params["container"]
    try:
        return inference.Watched(open_engine(params["engine"]) if name else None, name or "")
    except AikitError:
        if check_mode:
            return None
        raise


def work(module):
    params = module.params
    client = Client(params["url"], inference.find_api_key(params["api_key"], params["api_key_file"], module.no_log_values))
    if params["max_tokens"] < 1:
        raise AikitError(f"max_tokens is {params['max_tokens']}.", "An answer needs at least 1 token; 32 are enough to measure.")
    log = inference.read_log(params["log"] or "")
    try:
        watched = watch(params, module.check_mode)
        if watched is None:
            found = Evidence("unverified", (f"There is no container {params['container']} yet; this is known after the deployment.",))
            return report(Plan(), passed=True, **inference.result(found, [], inference.Watched(None, ""), None, None))
        result = inference.prove(
            client, watched, params["model"] or "", params["prompt"], params["max_tokens"], params["timeout_seconds"], log, params["evidence"]
        )
        result = inference.beside_plan(result, params["planned"])
    except AikitError as exc:
        raise AikitError(exc.message, exc.hint, **report(Plan(), passed=False, **inference.complete(exc.data))) from exc
    problems, hint = check.unmet(check.expectation(params["expect"]), result)
    if problems:
        raise AikitError(" ".join(problems), hint, **report(Plan(), passed=False, **result))
    return report(Plan(), passed=True, **result)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC, mutually_exclusive=[("api_key", "api_key_file")])


if __name__ == "__main__":
    main()
