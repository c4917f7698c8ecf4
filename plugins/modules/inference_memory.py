#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inference_memory
short_description: What services hold of a host's memory, and the plans they run with
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.engine
description:
  - Says how much GPU memory the containers of services hold, so that a plan can count it as theirs, and returns the plan that each of them was
    started with.
  - The NVIDIA driver is asked for the memory of the containers' processes. Where it cannot tell, the buffers in the evidence of this run of the
    container count, else the plan. A driver that names other processes and none of a container has told that the container holds nothing.
  - A host without a container engine, or without a driver, is no error. Nothing is held there.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - This module changes nothing.
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
options:
  services:
    description:
      - Names of the services. Left out, every service that has a state file on the host.
    type: list
    elements: str
  state_dir:
    description:
      - Folder of the state files.
    type: path
    default: /var/lib/aikit-fleet
  root:
    description:
      - Folder that stands for the root of the host's file system when the driver is looked for; for tests.
    type: path
    default: /
seealso:
  - module: aikit.fleet.gpu_info
  - module: aikit.fleet.service_fit
"""

EXAMPLES = r"""
- name: Look at what the services hold
  aikit.fleet.inference_memory:
    services: [llama]
  register: memory
"""

RETURN = r"""
services:
  description: The services, in the order of O(services), else of their names.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the service.
      type: str
      sample: llama
    running:
      description: Whether its container runs.
      type: bool
      sample: true
    held:
      description:
        - How much of which GPU it holds. The GPU is named by C(uuid) where the driver says it, by C(position) (its number inside the container)
          where the log does, and by C(index) where it is taken from the plan.
      type: list
      elements: dict
      sample:
        - uuid: GPU-00002330-0000-4000-8000-00000000003b
          mib: 6104.0
    source:
      description: Who says so, V(driver), V(log) or V(plan). Empty when the container does not run, or nobody knows.
      type: str
      sample: driver
    host_held_mib:
      description: How much of the host's memory it holds that is no file's, such as a cache that is kept out of the GPU. Mapped weights do not count.
      type: float
      sample: 812.4
    fit:
      description: The plan that the current release was started with; empty when it was not planned.
      type: dict
      sample: {}
    settings:
      description: The settings of the current release.
      type: dict
      sample: {gpu_layers: 33, context_size: 8192}
    step_down:
      description: What an out-of-memory error taught - C(count), C(reason), and the C(inputs) it holds for. Empty without one.
      type: dict
      sample: {}
host:
  description:
    - Memory of the host, C(total_mib) and C(available_mib), within the limit of the control group where the host is a container itself.
    - 0 where it is not known. A Mac tells the total alone.
  returned: always
  type: dict
  sample: {total_mib: 128748, available_mib: 117187}
engine:
  description: The container engine that was asked; empty when none answers.
  returned: always
  type: str
  sample: docker
problem:
  description: Why none answers; empty when one does.
  returned: always
  type: str
  sample: ""
"""

from ..module_utils._core.plan import Plan, report
from ..module_utils._io.service_memory import observe
from ..module_utils._module import ENGINE_OPTION, run_module

ARGUMENT_SPEC = {
    "services": {"type": "list", "elements": "str"},
    "engine": ENGINE_OPTION,
    "state_dir": {"type": "path", "default": "/var/lib/aikit-fleet"},
    "root": {"type": "path", "default": "/"},
}


def work(module):
    params = module.params
    return report(Plan(), **observe(params["services"], params["engine"], params["state_dir"], params["root"]))


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
