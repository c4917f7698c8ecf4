#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_fit
short_description: Plan the GPU memory of a host for its services
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Decides what the services of a host leave to C(auto), for all of them together and in the order of their list.
  - It runs on the controller, out of what other modules found on the host and on the builder.
  - A plan that a service was proven with stays while it still fits and while what it was made from is the same. See the guide on services.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - This action changes nothing.
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
options:
  services:
    description:
      - The services of the host, as M(aikit.fleet.service_plan) returns them.
    type: list
    elements: dict
    required: true
  models:
    description:
      - Shapes of models by their key, as M(aikit.fleet.model_shape) returns them.
    type: dict
    default: {}
  gpus:
    description:
      - The result of M(aikit.fleet.gpu_info). Without it nothing can be known before the host is provisioned.
    type: dict
    default: {}
  memory:
    description:
      - The result of M(aikit.fleet.inference_memory).
    type: dict
    default: {}
  policy:
    description:
      - How a plan decides; the options of M(aikit.fleet.gpu_fit) of the same name.
    type: dict
    default: {}
  servers:
    description:
      - By image, which server is in it, for example C(llama_cpp 0.7.0). Versions differ in the memory that they take.
    type: dict
    default: {}
  replan:
    description:
      - Make new plans, whatever was planned and learned earlier.
    type: bool
    default: false
  final:
    description:
      - Nothing comes later. A service whose model cannot be read is left to its server, with a warning.
    type: bool
    default: false
  alone:
    description:
      - Plan each service as if it were the only one of the host.
    type: bool
    default: false
  strict:
    description:
      - Fail when a plan says that a service cannot work.
    type: bool
    default: true
seealso:
  - module: aikit.fleet.service_plan
  - module: aikit.fleet.inference_memory
  - module: aikit.fleet.model_shape
"""

EXAMPLES = r"""
- name: Plan services that compute on the CPU, which takes nothing from GPUs
  aikit.fleet.service_fit:
    services:
      - name: llama
        state: present
        image: localhost/aikit/llama:latest
        gpus: []
        wish: {auto: [], settings: {}, files: [], mmproj: [], problem: ""}
  register: fit
"""

RETURN = r"""
known:
  description: Whether all could be planned. False while the driver, or the header of a model, is not there yet.
  returned: always
  type: bool
  sample: true
reason:
  description: What has to be there first.
  returned: always
  type: str
  sample: ""
fits:
  description: Whether nothing is known not to fit.
  returned: always
  type: bool
  sample: true
services:
  description:
    - By name, the services that use GPUs or leave something to a plan.
    - C(state) is V(planned), V(counted) (it has settings of its own, and takes memory), V(server) (left to the server, see C(reason)) or V(later).
  returned: always
  type: dict
  sample:
    llama:
      name: llama
      state: planned
      reason: All layers and a context of 8192 tokens fit.
      settings: {gpu_layers: 33, context_size: 8192}
      verdict: [proven]
      kept: false
      note: ""
      fits: true
      before: {}
      fit: {offload: full, confidence: exact, layers_offloaded: 33, layers_total: 33, step_down: 0}
findings:
  description: Remarks. Errors fail the task, unless O(strict=false).
  returned: always
  type: list
  elements: dict
  sample: []
lines:
  description: The plan for people.
  returned: always
  type: list
  elements: str
  sample:
    - "llama: planned, 33/33 layers, context 8192. All layers and a context of 8192 tokens fit."
"""

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "dict", "required": True},
            "models": {"type": "dict", "default": {}},
            "gpus": {"type": "dict", "default": {}},
            "memory": {"type": "dict", "default": {}},
            "policy": {"type": "dict", "default": {}},
            "servers": {"type": "dict", "default": {}},
            "replan": {"type": "bool", "default": False},
            "final": {"type": "bool", "default": False},
            "alone": {"type": "bool", "default": False},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="aikit.fleet.service_fit runs on the controller, as an action; it cannot be called as a module.")


if __name__ == "__main__":
    main()
