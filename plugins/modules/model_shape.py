#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_shape
short_description: Read what a plan of GPU memory needs to know of models
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.engine
  - aikit.fleet.registry
description:
  - Reads the headers of GGUF models and returns their shapes, the tensors and keys that decide how much memory a model takes.
  - A model is looked for in the store, in a folder of the host, and on the server that it comes from. Of the latter only the header is read.
    The models of an image are read inside the container engine that holds it.
  - Headers are kept, so that each is read once. What a source gave a build is what is read, also when its branch or its tag has moved since, and then
    no server is asked.
  - A model that cannot be read is no failure. Its entry says why.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - In check mode, what was read is not kept. To read O(image), a container is created that is never started, and removed.
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
options:
  models:
    description:
      - The models to read, as filter P(aikit.fleet.models_to_plan#filter) lists them.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description:
          - Under which name the shape is returned.
        type: str
        required: true
      files:
        description:
          - The model's file, or all parts of a split one in order, each with C(source) and C(sha256) as in an aikitfile.
        type: list
        elements: dict
        required: true
      context:
        description:
          - Folder that relative sources start from.
        type: str
        default: ""
  image:
    description:
      - An image in the engine of this host whose models are read.
    type: str
  paths:
    description:
      - Where the model, and its projector, lie in O(image). Of a split model, the first part.
    type: list
    elements: str
    default: []
  store:
    description:
      - The folder of the store of models.
    type: path
    default: ~/.cache/aikit-fleet/models
  cache:
    description:
      - Folder in which headers are kept, as M(aikit.fleet.gguf_info) does.
    type: path
    default: ~/.cache/aikit-fleet/gguf
  token:
    description:
      - Bearer token for models behind a login, sent to the host of the source.
    type: str
  tokens:
    description:
      - Bearer tokens by host, in place of O(token).
    type: dict
    default: {}
  hub_url:
    description:
      - Where C(huggingface://) sources are; a mirror that speaks the hub's API.
    type: str
    default: https://huggingface.co
  timeout_seconds:
    description:
      - How long to wait for a server that sends nothing.
    type: float
    default: 60
seealso:
  - module: aikit.fleet.service_fit
"""

EXAMPLES = r"""
- name: Read the header of a model
  aikit.fleet.model_shape:
    models:
      - key: llama
        files:
          - source: /srv/models/llama-3.1-8b-q4_k_m.gguf
            sha256: ""
  register: found
"""

RETURN = r"""
models:
  description:
    - By key (for O(image), its name, a colon and the path), C(shape), whether it was C(cached), and C(read_bytes).
    - Or C(error), why the header could not be read.
  returned: always
  type: dict
  sample:
    llama:
      shape: {metadata: {general.architecture: llama}, vocabulary: 128256, tensors: []}
      cached: false
      read_bytes: 7823360
"""

from ..module_utils._core.model_source import secrets
from ..module_utils._core.plan import Plan, report
from ..module_utils._io.engine import open_engine
from ..module_utils._io.model_file import reach
from ..module_utils._io.model_shape import Shapes, of_image
from ..module_utils._module import ENGINE_OPTION, REGISTRY_OPTIONS, run_module

ARGUMENT_SPEC = {
    "models": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "key": {"type": "str", "required": True, "no_log": False},
            "files": {"type": "list", "elements": "dict", "required": True},
            "context": {"type": "str", "default": ""},
        },
    },
    "image": {"type": "str"},
    "paths": {"type": "list", "elements": "str", "default": []},
    "engine": ENGINE_OPTION,
    "store": {"type": "path", "default": "~/.cache/aikit-fleet/models"},
    "cache": {"type": "path", "default": "~/.cache/aikit-fleet/gguf"},
    "token": {"type": "str", "no_log": True},
    "tokens": {"type": "dict", "default": {}, "no_log": True},
    "hub_url": {"type": "str", "default": "https://huggingface.co"},
    "timeout_seconds": {"type": "float", "default": 60},
    **REGISTRY_OPTIONS,
}


def work(module):
    params = module.params
    for entry in params["models"]:
        module.no_log_values.update(*(secrets(str(part.get("source") or "")) for part in entry["files"]))
    found = Shapes(reach(params), params["tokens"], params["store"], params["cache"], module.check_mode).all(params["models"])
    if params["image"]:
        found.update(of_image(open_engine(params["engine"]), params["image"], params["paths"]))
    return report(Plan(), models=found)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
