#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aikit_image
short_description: Build an AIKit image from an aikitfile
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Assembles an image from an C(aikitfile), a base and model files, without a daemon and without a temporary copy of the weights.
  - The layers are the base, one uncompressed layer for each model, and the configuration last. So a changed setting changes a layer of a few kilobytes.
  - The same inputs give the same digest on every machine and every Python.
  - Loads the image into the engines of the build host, or writes it as an archive that Docker and Podman load. Without either, it only computes the digest.
  - Digests of big files are cached by device, inode, size and times of change, so that a second run reads nothing.
extends_documentation_fragment:
  - aikit.fleet.progress
attributes:
  async:
    description: Supports being used with the C(async) keyword.
    support: full
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - While a model is not on the build host yet, the digest cannot be known; then RV(image.digest) is empty.
      - Servers are asked for the sizes of models that are missing, so that a disk that is too small is found.
  diff_mode:
    description: Returns the layers, environment and labels that would change.
    support: full
  idempotent:
    description: A second run changes nothing; the image is compared by digest, not by its tag.
    support: full
options:
  name:
    description:
      - Name of the image, with or without a tag (C(latest)).
    type: str
    required: true
  src:
    description:
      - Path of the aikitfile on the controller.
      - One of O(src) and O(definition) is required.
    type: path
  definition:
    description:
      - The aikitfile as a mapping. Mark it C(!unsafe) where it holds LocalAI templates such as C({{.Input}}).
    type: dict
  context:
    description:
      - Folder on the build host to which sources without a scheme are relative.
      - By default the folder of O(src). Needed when a O(definition) has such sources.
    type: path
  builder:
    description:
      - How the image is built.
    type: str
    choices:
      auto: The fastest builder that gives an equivalent image; RV(reason) says why.
      direct: Assemble the image from its layers.
    default: auto
  server:
    description:
      - The program that serves the model.
    type: str
    choices:
      llama_cpp: llama.cpp's own server, under the settings of the aikitfile.
    required: true
  base:
    description:
      - Path of the base on the build host, as role C(aikit.fleet.llama_cpp_base) makes it. Its description stands beside it, with C(.json) added.
    type: path
    required: true
  platforms:
    description:
      - Platforms the image is for. Without it, that of the base.
    type: list
    elements: str
    default: []
  aikit_version:
    description:
      - The AIKit release whose rules the aikitfile must follow.
    type: str
    default: 0.21.0
  load:
    description:
      - Engines of the build host to load the image into.
      - Only layers that an engine lacks are sent.
    type: list
    elements: str
    choices: [docker, podman]
    default: []
  archive:
    description:
      - Path on the build host to write the image to, as one file that is a C(docker-archive) and an OCI layout.
    type: path
  archive_omit:
    description:
      - Digests of layers to leave out of O(archive), because the engine that will load it has them.
      - Module M(aikit.fleet.aikit_image_load) returns them.
    type: list
    elements: str
    default: []
  store:
    description:
      - Where models from C(https) sources are kept, see M(aikit.fleet.model_file).
    type: path
    default: ~/.cache/aikit-fleet/models
  cache:
    description:
      - Folder of the digest cache.
    type: path
    default: ~/.cache/aikit-fleet/digests
  token:
    description:
      - Bearer token for the sources of the models, which must be of one host then. It is sent to that host alone.
      - No source may hold a secret itself, because the aikitfile becomes a part of the image.
    type: str
  tokens:
    description:
      - Bearer tokens by host, for models that come from several, each with its port where the source has one.
      - A host that is not here gets no token. Tokens of hosts that no source has are not used.
      - Mutually exclusive with O(token).
    type: dict
  parsed:
    description:
      - The parsed aikitfile. Filled in by the action plugin, do not set it.
    type: dict
seealso:
  - module: aikit.fleet.aikitfile
  - module: aikit.fleet.model_file
  - module: aikit.fleet.aikit_image_load
"""

EXAMPLES = r"""
- name: Build an image and load it into Docker
  aikit.fleet.aikit_image:
    name: localhost/gemma:1
    src: aikitfiles/gemma.yaml
    server: llama_cpp
    base: ~/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
    load: [docker]

- name: Write an archive for hosts that reach no registry
  aikit.fleet.aikit_image:
    name: localhost/gemma:1
    definition: !unsafe
      apiVersion: v1alpha1
      models:
        - name: gemma
          source: models/gemma-3-270m-q4_k_m.gguf
    context: /srv
    server: llama_cpp
    base: ~/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
    archive: /srv/images/gemma.tar
"""

RETURN = r"""
image:
  description: The image.
  returned: always
  type: dict
  contains:
    ref:
      description: Name with tag.
      type: str
      sample: localhost/gemma:1
    digest:
      description: Digest of the manifest. Empty while a model is not on the build host (check mode).
      type: str
      sample: sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
    id:
      description: Digest of the config, which is what Docker and Podman show as the image's id.
      type: str
      sample: sha256:0b1f4a5b6ad0c35a22ef1f3a7b3f8e63d0c41c2f5be7a2f57c3dbd5a0a9c4e2f
    size_bytes:
      description: Size of all layers, the config and the manifest.
      type: int
      sample: 321197568
    layers:
      description: The layers, base first. O(ignore:reused) is true where nothing had to be sent.
      type: list
      elements: dict
      sample:
        - role: model
          title: gemma
          digest: sha256:9a1c0f1f8d6f6e0d3d7a2c7f1b5b7f0c4a3e2d1c0b9a8f7e6d5c4b3a29181706
          size_bytes: 253116416
          reused: false
    server:
      description: The program that serves the model.
      type: str
      sample: llama_cpp
    runtime:
      description: The aikitfile's runtime, empty for the CPU.
      type: str
      sample: cuda
    models:
      description: Name, sha256 and size of every model file.
      type: list
      elements: dict
      sample:
        - name: gemma
          sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
          size_bytes: 253113024
    base:
      description: Reference and digest of the base.
      type: dict
      sample:
        ref: aikit.fleet/llama_cpp_base:sid-cpu
        digest: sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b
    env:
      description: The environment that is built in; a host may override each variable.
      type: dict
      sample:
        LLAMA_ARG_ALIAS: gemma
        LLAMA_ARG_MODEL: /models/gemma-3-270m-q4_k_m.gguf
    labels:
      description: The labels of the image.
      type: dict
      sample:
        io.aikit.fleet.server: llama_cpp
findings:
  description: Remarks on the aikitfile and on settings that cannot be translated.
  returned: always
  type: list
  elements: dict
  sample:
    - level: warning
      path: config[0].f16
      line: 12
      message: f16 does nothing in llama.cpp
      hint: remove it
archive:
  description: Path of the archive.
  returned: when O(archive) is set
  type: str
  sample: /srv/images/gemma.tar
bytes_written:
  description: Bytes written to O(archive).
  returned: always
  type: int
  sample: 0
bytes_sent:
  description: Bytes sent to engines.
  returned: always
  type: int
  sample: 321207296
duration_seconds:
  description: How long the module worked.
  returned: always
  type: float
  sample: 2.4
builder:
  description: The builder that was used.
  returned: always
  type: str
  sample: direct
reason:
  description: Why that builder was used.
  returned: always
  type: str
  sample: no step of this image runs a command, so its layers are assembled directly
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
  sample: [load localhost/gemma:1 (docker)]
"""

import dataclasses

from ..module_utils._io.build import Request, build
from ..module_utils._module import STATUS_FILE_OPTION, hide_sources, run_module

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "src": {"type": "path"},
    "definition": {"type": "dict"},
    "context": {"type": "path"},
    "builder": {"type": "str", "choices": ["auto", "direct"], "default": "auto"},
    "server": {"type": "str", "choices": ["llama_cpp"], "required": True},
    "base": {"type": "path", "required": True},
    "platforms": {"type": "list", "elements": "str", "default": []},
    "aikit_version": {"type": "str", "default": "0.21.0"},
    "load": {"type": "list", "elements": "str", "choices": ["docker", "podman"], "default": []},
    "archive": {"type": "path"},
    "archive_omit": {"type": "list", "elements": "str", "default": []},
    "store": {"type": "path", "default": "~/.cache/aikit-fleet/models"},
    "cache": {"type": "path", "default": "~/.cache/aikit-fleet/digests"},
    "token": {"type": "str", "no_log": True},
    "tokens": {"type": "dict", "no_log": True},
    "status_file": STATUS_FILE_OPTION,
    "parsed": {"type": "dict"},
}


def work(module):
    hide_sources(module, module.params["parsed"])
    return build(Request(**{field.name: module.params[field.name] for field in dataclasses.fields(Request)}), module.check_mode)


def main():
    run_module(
        work,
        argument_spec=ARGUMENT_SPEC,
        mutually_exclusive=[("src", "definition"), ("token", "tokens")],
        required_one_of=[("src", "definition", "parsed")],
    )


if __name__ == "__main__":
    main()
