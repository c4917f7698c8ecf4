#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aikit_image_info
short_description: Read what an image says of itself
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.engine
  - aikit.fleet.registry
description:
  - Returns server, runtime, models and origin of an image, whether aikit.fleet or AIKit built it.
  - The image is in a container engine of this host, in a registry (O(registry)) or in an OCI layout (O(oci_layout)). Of a registry, only
    the manifest and the config are read; nothing is pulled.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - This module changes nothing. To read O(config_path), it creates a container that is never started, and removes it.
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
options:
  name:
    description:
      - Name or id of the image. Without it, all images built by aikit.fleet are returned, or all that are in O(oci_layout).
      - In an engine, those are images with labels or a comment of aikit.fleet, and those with a name below C(localhost/aikit/).
    type: str
  registry:
    description:
      - Read the image from the registry in O(name), which is needed then. An image of several platforms is returned once for each.
    type: bool
    default: false
  oci_layout:
    description:
      - Read images from this folder, an OCI layout.
    type: path
  config_path:
    description:
      - A file in the image to return, for example V(/config.yaml), the configuration of AIKit's own images.
      - Needs O(name). A folder, a link and a file of more than 1 MiB are refused.
      - In a registry and a layout, layers are read for it, the top first and the small ones before the large.
    type: str
seealso:
  - module: aikit.fleet.aikit_image
"""

EXAMPLES = r"""
- name: List the images that aikit.fleet built
  aikit.fleet.aikit_image_info:

- name: Look into a pre-made image
  aikit.fleet.aikit_image_info:
    name: localhost/gemma:1
    config_path: /config.yaml

- name: Ask a registry which models an image has
  aikit.fleet.aikit_image_info:
    name: registry.example:5000/gemma:1
    registry: true

- name: List the images of a layout
  aikit.fleet.aikit_image_info:
    oci_layout: /srv/images/layout
"""

RETURN = r"""
images:
  description:
    - The images; empty when there is none of that name.
    - C(annotations) are those of the manifest. Engines do not keep them, and show those that an image has in its comment too. Images with
      LocalAI that O(aikit.fleet.aikit_image#module:builder=direct) made have them, and no labels.
  returned: always
  type: list
  elements: dict
  sample:
    - ref: localhost/gemma:1
      tags: [localhost/gemma:1]
      digest: ""
      id: sha256:0b1f4a5b6ad0c35a22ef1f3a7b3f8e63d0c41c2f5be7a2f57c3dbd5a0a9c4e2f
      runtime: ""
      server: llama_cpp
      models:
        - name: gemma
          sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
          size_bytes: 253113024
      aikitfile_sha256: 5e8b3c1f0a9d7e6c5b4a39281706f5e4d3c2b1a0918273645546372819a0b1c2
      base:
        ref: aikit.fleet/llama_cpp_base:sid-cpu
        digest: sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b
      labels:
        io.aikit.fleet.server: llama_cpp
      annotations: {}
      env:
        LLAMA_ARG_ALIAS: gemma
      entrypoint: [/usr/bin/llama-server]
      command: []
      architecture: amd64
      platform: linux/amd64
      index_digest: ""
config:
  description: Text of O(config_path); empty when the image has no such file.
  returned: when O(config_path) is set
  type: str
  sample: |
    - name: llama-3.2-1b-instruct
      backend: llama
"""

from ..module_utils._core.image import built_here, info
from ..module_utils._core.plan import Plan, report
from ..module_utils._io import image_info
from ..module_utils._io.engine import open_engine
from ..module_utils._io.registry import RegistrySettings
from ..module_utils._module import ENGINE_OPTION, REGISTRY_OPTIONS, run_module

ARGUMENT_SPEC = {
    "name": {"type": "str"},
    "engine": ENGINE_OPTION,
    "registry": {"type": "bool", "default": False},
    "oci_layout": {"type": "path"},
    "config_path": {"type": "str"},
    **REGISTRY_OPTIONS,
}


def work(module):
    name, path = module.params["name"] or "", module.params["config_path"] or ""
    if module.params["registry"]:
        settings = RegistrySettings(**{key.partition("_")[2]: module.params[key] for key in REGISTRY_OPTIONS})
        found, text = image_info.in_registry(name, settings, path)
    elif module.params["oci_layout"]:
        found, text = image_info.in_layout(module.params["oci_layout"], name, path)
    else:
        found, text = in_engine(open_engine(module.params["engine"]), name, path)
    return report(Plan(), images=found, **({"config": text} if path else {}))


def in_engine(engine, name, path):
    if name:
        state = engine.image(name)
        states = [] if state is None else [state]
    else:
        states = [state for state in engine.images() if built_here(state)]
    raw = engine.image_file(name, path) if states and path else None
    return [{**info(state, name), "index_digest": ""} for state in states], (raw or b"").decode("utf-8", "replace")


def main():
    run_module(
        work,
        argument_spec=ARGUMENT_SPEC,
        required_by={"config_path": "name"},
        required_if=[("registry", True, ["name"])],
        mutually_exclusive=[("registry", "oci_layout")],
    )


if __name__ == "__main__":
    main()
