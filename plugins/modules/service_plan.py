#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_plan
short_description: Check what a host should serve, and complete it
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Reads C(inference_services) of a host, merges C(inference_service_defaults) under each service, checks everything at once, and reads the
    aikitfiles that are named there.
  - It runs on the controller alone and needs no connection to the host.
  - Before anything is templated, LocalAI's templates in inline definitions that lack C(!unsafe) are found; Ansible would fail on them with an
    error that helps nobody.
  - Variables that begin like one of this collection's and are none are errors. Variables of a play's keywords that were set for hosts or groups,
    where they have no effect, are warnings.
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
      - The services.
      - By default variable C(inference_services) of the host. Only then are inline definitions checked before they are templated.
    type: list
    elements: dict
  defaults:
    description:
      - Merged under each service.
      - By default variable C(inference_service_defaults) of the host.
    type: dict
  project_dir:
    description:
      - Folder that relative paths start from.
      - By default the folder of the inventory. With several inventories, or a list of hosts instead of one, the folder of the playbook.
    type: path
  aikit_version:
    description:
      - The AIKit release whose rules the aikitfiles must follow.
    type: str
    default: 0.21.0
seealso:
  - plugin: aikit.fleet.images_to_build
    plugin_type: filter
  - plugin: aikit.fleet.container_spec
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Resolve the services of this host
  aikit.fleet.service_plan:
  register: plan

- name: Check services that are given here
  aikit.fleet.service_plan:
    services:
      - name: llama
        image: registry.example:5000/llama:1
        port: 8081
"""

RETURN = r"""
services:
  description: The services, every value checked and completed. API keys are not among them.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Name of the service.
      type: str
      sample: llama
    state:
      description: V(present), V(stopped) or V(absent).
      type: str
      sample: present
    built:
      description: Whether the image is built from an aikitfile.
      type: bool
      sample: true
    image:
      description: Reference of the image.
      type: str
      sample: localhost/aikit/llama:latest
    src:
      description: Path of the aikitfile on the controller; empty for inline definitions and pre-made images.
      type: str
      sample: /srv/deploy/aikitfiles/llama.yaml
    parsed:
      description: The aikitfile as it was read, for module M(aikit.fleet.aikit_image); empty when there is none.
      type: dict
    aikitfile_sha256:
      description: Checksum of its text.
      type: str
      sample: 5e8b3c1f0a9d7e6c5b4a39281706f5e4d3c2b1a0918273645546372819a0b1c2
    runtime:
      description: Its runtime; empty means CPU.
      type: str
      sample: cuda
    models:
      description: Its models.
      type: list
      elements: dict
      sample:
        - name: llama
          source: https://models.example/llama.gguf
          sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    context:
      description: Folder on the build host that relative sources start from.
      type: str
      sample: /srv/deploy/aikitfiles
    server:
      description: The server to build in; empty for pre-made images.
      type: str
      sample: llama_cpp
    builder:
      description: What builds the image, V(direct) or V(buildkit); empty for pre-made images.
      type: str
      sample: direct
    builder_reason:
      description: Why it does.
      type: str
      sample: AIKit's frontend runs no command in this image, so its layers are assembled directly
    base_variant:
      description: Variant of the base; empty for pre-made images.
      type: str
      sample: cuda
    gpus:
      description: GPUs of the service; none means CPU.
      type: list
      elements: str
      sample: [all]
    bind_address:
      description: Address that the service listens on.
      type: str
      sample: 127.0.0.1
    port:
      description: Port that the service listens on.
      type: int
      sample: 8080
    url:
      description: Where the service answers, seen from the host.
      type: str
      sample: http://127.0.0.1:8080
    engine:
      description: The container engine.
      type: str
      sample: auto
    settings:
      description: Settings of the server on this host.
      type: dict
      sample:
        context_size: 4096
    expect:
      description: What the proof must show.
      type: dict
      sample:
        verdict: [proven]
    default_verdict:
      description: Whether C(expect.verdict) was not given. A plan of the host's GPU memory may then say better what to expect.
      type: bool
      sample: true
    wish:
      description:
        - What the service leaves to a plan of the host's GPU memory (C(auto)), the C(settings) that are decided, C(files) and C(mmproj) of its
          model, the C(problem) that stands in the way of a plan, and the C(server) of an image with LocalAI that is to be built.
      type: dict
      sample:
        auto: [gpu_layers, context_size]
        settings: {gpu_layers: auto, context_size: auto, flash_attention: "on"}
        files:
          - name: llama
            source: https://models.example/llama.gguf
            sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
        mmproj: []
        problem: ""
        server: localai v4.0.0
    environment:
      description: Further environment variables.
      type: dict
      sample: {}
    has_api_key:
      description: Whether the service has an API key.
      type: bool
      sample: false
    memory:
      description: Limit of memory; empty for none.
      type: str
      sample: ""
    cpus:
      description: Limit of CPUs; 0 for none.
      type: float
      sample: 0.0
    timeout_seconds:
      description: How long the service may take until it answers.
      type: int
      sample: 600
wants_gpus:
  description: Whether any service that shall be present asks for GPUs.
  returned: always
  type: bool
  sample: true
uses_gpus:
  description: Whether any service that shall be present computes on GPUs, so that their memory is planned. A Vulkan build may without asking for one.
  returned: always
  type: bool
  sample: true
project_dir:
  description: Folder that relative paths started from.
  returned: always
  type: str
  sample: /srv/deploy
findings:
  description: Remarks. Errors fail the task, which then names all of them.
  returned: always
  type: list
  elements: dict
  sample:
    - level: warning
      path: inference_services[0].bind_address
      line: 0
      message: '0.0.0.0 lets everyone who reaches this host use llama: it has no API key'
      hint: Set api_key, or bind to 127.0.0.1 and put a proxy in front.
"""

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(
        argument_spec={
            "services": {"type": "list", "elements": "dict"},
            "defaults": {"type": "dict"},
            "project_dir": {"type": "path"},
            "aikit_version": {"type": "str", "default": "0.21.0"},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="aikit.fleet.service_plan runs on the controller, as an action; it cannot be called as a module.")


if __name__ == "__main__":
    main()
