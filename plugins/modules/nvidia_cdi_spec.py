#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_cdi_spec
short_description: Keep the CDI specification of a host what its NVIDIA driver would give now
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Asks C(nvidia-ctk cdi generate) what it would write now, with the variables of the refresh service, and compares that with what lies there.
    So an upgraded driver, a changed MIG geometry, a removed card and another feature flag are all seen.
  - Where they differ, NVIDIA's refresh service is started anew, after what it remembers of failed starts is forgotten. C(nvidia-ctk) writes the file
    itself on hosts without the service, and where the service skips a driver that it does not see.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - Does not fail in check mode where C(nvidia-ctk) or the driver is missing; RV(problem) says so.
  diff_mode:
    description: Returns version, devices and libraries of the specification, before and after.
    support: full
  idempotent:
    description: A specification that says the same is not written again.
    support: full
options:
  path:
    description:
      - Where the specification lies. The output path of the service wins where it has one.
    type: path
    default: /var/run/cdi/nvidia.yaml
  service:
    description:
      - The unit that writes it; empty for hosts without one.
    type: str
    default: nvidia-cdi-refresh.service
  environment:
    description:
      - Variables for C(nvidia-ctk) on hosts without the service.
    type: dict
    default: {}
  timeout_seconds:
    description:
      - How long C(nvidia-ctk), and the service, may take before they are no longer waited for; a broken GPU may never answer them.
    type: float
    default: 120
notes:
  - Role P(aikit.fleet.nvidia_container_toolkit#role) acts on what it returns.
"""

EXAMPLES = r"""
- name: Describe the GPUs to container engines
  aikit.fleet.nvidia_cdi_spec:
  become: true
  register: spec
"""

RETURN = r"""
path:
  description: Where the specification lies.
  returned: success
  type: str
  sample: /var/run/cdi/nvidia.yaml
devices:
  description: The devices that it names.
  returned: success
  type: list
  elements: str
  sample: [nvidia.com/gpu=0, nvidia.com/gpu=GPU-7f0b2b5c-6f0e-4f3a-9f59-0a4f2b8e3f11, nvidia.com/gpu=all]
spec_version:
  description: Its version; empty where there is none.
  returned: success
  type: str
  sample: 0.7.0
nodes:
  description: The device nodes that it brings into containers.
  returned: success
  type: list
  elements: str
  sample: [/dev/nvidia0, /dev/nvidiactl, /dev/nvidia-uvm]
stale:
  description: Whether it still differs from what the driver has now, or the driver did not answer. Only in check mode.
  returned: success
  type: bool
  sample: false
enabled:
  description: Whether O(service) and the path unit that watches the driver for it are started at boot. True where there is no such service.
  returned: success
  type: bool
  sample: true
survives_reboot:
  description: Whether the file, or the service that makes it at boot, is there after a reboot.
  returned: success
  type: bool
  sample: true
problem:
  description: Why nothing can be compared; empty where it can.
  returned: success
  type: str
  sample: ""
"""

from ..module_utils._io import command
from ..module_utils._io.cdi_spec import ensure
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "path": {"type": "path", "default": "/var/run/cdi/nvidia.yaml"},
    "service": {"type": "str", "default": "nvidia-cdi-refresh.service"},
    "environment": {"type": "dict", "default": {}},
    "timeout_seconds": {"type": "float", "default": 120},
}


def work(module):
    options = module.params
    program = module.get_bin_path("nvidia-ctk")

    def run(argv):
        return command.run(argv, options["timeout_seconds"])

    return ensure(options["path"], options["service"], options["environment"], program, run, module.check_mode)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
