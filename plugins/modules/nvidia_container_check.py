#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_container_check
short_description: Check that a container can open the GPUs of a host
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Starts a container without network, opens the GPUs' device nodes in it, and removes it with its image.
  - The image is made of two programs of the host itself, so that no registry is needed.
  - Does not fail when the container cannot; RV(ok) says so.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: partial
    details:
      - Starts no container in check mode, and returns RV(ok) as true.
  diff_mode:
    description: Returns what changed.
    support: none
    details:
      - Nothing is left changed.
  idempotent:
    description: A second run returns the same.
    support: full
options:
  engine:
    description:
      - The engine to ask.
    type: str
    choices:
      docker: Docker.
      podman: Podman.
    default: docker
  arguments:
    description:
      - How the container gets its GPUs.
    type: list
    elements: str
    default: [--device, nvidia.com/gpu=all]
  nodes:
    description:
      - The device nodes to open; those of the CDI specification, as RV(aikit.fleet.nvidia_cdi_spec#module:nodes) lists them.
    type: list
    elements: path
    default: [/dev/nvidiactl]
  daemon_reload:
    description:
      - Run C(systemctl daemon-reload) meanwhile and open them once more. Containers that were given GPUs by the hook behind C(--gpus) lose
        them at that moment, also those of others.
    type: bool
    default: false
  timeout_seconds:
    description:
      - How long each command may take before it is killed - the engine's, and opening a node in the container, which a broken GPU may never answer.
    type: float
    default: 120
seealso:
  - module: aikit.fleet.nvidia_cdi_spec
"""

EXAMPLES = r"""
- name: Does a container see the GPU?
  aikit.fleet.nvidia_container_check:
    engine: podman
    nodes: [/dev/nvidia0, /dev/nvidiactl]
  become: true
  register: seen
"""

RETURN = r"""
engine:
  description: The engine.
  returned: success
  type: str
  sample: podman
ok:
  description: Whether every node could be opened.
  returned: success
  type: bool
  sample: true
detail:
  description: What was found.
  returned: success
  type: str
  sample: 3 device nodes open
hint:
  description: What to do; empty when all is well.
  returned: success
  type: str
  sample: ""
restart_needed:
  description:
    - Whether a restart of the engine is what is missing. Docker looks for NVIDIA's hook behind C(--gpus) when it starts, and finds none that came later.
  returned: success
  type: bool
  sample: false
nodes:
  description: The nodes that were tried.
  returned: success
  type: list
  elements: str
  sample: [/dev/nvidia0, /dev/nvidiactl]
"""

from ..module_utils._io import command
from ..module_utils._io.container_probe import probe
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "engine": {"type": "str", "choices": ["docker", "podman"], "default": "docker"},
    "arguments": {"type": "list", "elements": "str", "default": ["--device", "nvidia.com/gpu=all"]},
    "nodes": {"type": "list", "elements": "path", "default": ["/dev/nvidiactl"]},
    "daemon_reload": {"type": "bool", "default": False},
    "timeout_seconds": {"type": "float", "default": 120},
}


def work(module):
    options = module.params
    if module.check_mode:
        untried = {"ok": True, "detail": "not tried in check mode", "hint": "", "restart_needed": False}
        return {"changed": False, "engine": options["engine"], "nodes": options["nodes"], **untried}

    def run(argv):
        return command.run(argv, options["timeout_seconds"])

    return probe(options["engine"], options["arguments"], options["nodes"], options["daemon_reload"], module.tmpdir, run)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
