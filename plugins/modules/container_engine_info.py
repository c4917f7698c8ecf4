#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_engine_info
short_description: Say which container engine a host has, or what it takes to give it one
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Asks the engines themselves, not a service manager, so that an engine counts that was started by other means.
  - Needs nothing but Python on the host.
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
options:
  name:
    description:
      - The engine to ask for.
    type: str
    choices:
      auto: The first that answers, Docker before Podman; else the first that is installed; else Docker.
      docker: Docker.
      podman: Podman.
    default: auto
  docker_socket:
    description:
      - Where Docker listens.
    type: path
    default: /var/run/docker.sock
notes:
  - Role P(aikit.fleet.container_engine#role) acts on what it returns.
"""

EXAMPLES = r"""
- name: Ask for the container engine
  aikit.fleet.container_engine_info:
  register: found
"""

RETURN = r"""
engine:
  description: The engine.
  returned: success
  type: dict
  contains:
    name:
      description: Its name, V(docker) or V(podman).
      returned: always
      type: str
      sample: docker
    version:
      description: Its version; empty when it does not answer.
      returned: always
      type: str
      sample: 26.1.5+dfsg1
    socket:
      description: Where Docker listens; empty for Podman, which has no daemon.
      returned: always
      type: str
      sample: /var/run/docker.sock
    installed:
      description: Whether its program is there.
      returned: always
      type: bool
      sample: true
    answers:
      description: Whether it answers.
      returned: always
      type: bool
      sample: true
    problem:
      description: Why it does not answer; empty when it does.
      returned: always
      type: str
      sample: ""
    hint:
      description: How to start it; empty when it answers.
      returned: always
      type: str
      sample: ""
packages:
  description: Packages that would install it; empty when it is installed.
  returned: success
  type: list
  elements: str
  sample: []
python_packages:
  description: Packages with what the modules of this collection import on the host; empty when they are there.
  returned: success
  type: list
  elements: str
  sample: [python3-docker, python3-requests]
service_manager:
  description: What starts services here, V(systemd), V(sysvinit) or V(none).
  returned: success
  type: str
  sample: systemd
"""

from ..module_utils._io.engine_probe import observe
from ..module_utils._module import ENGINE_OPTION, run_module

ARGUMENT_SPEC = {
    "name": ENGINE_OPTION,
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def work(module):
    return {"changed": False, **observe(module.params["name"], module.params["docker_socket"], module.run_command)}


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
