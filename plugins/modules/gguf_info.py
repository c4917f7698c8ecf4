#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gguf_info
short_description: Read what a GGUF model is, without downloading it
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Reads the header of a GGUF file, which says what the model is and how large each of its layers is. The weights are not read.
  - Over a network only the pieces that are needed are asked for, a few megabytes of a file of many gigabytes. How many bytes that were is returned.
  - Of a model that is split into parts, the headers of all parts are read and put together.
  - What was read is remembered by the file's digest, by what its server says of it, or by its times, so that it is read once.
  - A file that is no GGUF file, is cut off or is corrupt is an error that names the byte.
extends_documentation_fragment:
  - aikit.fleet.registry
attributes:
  check_mode:
    description: Can run in check mode and return the same.
    support: full
    details:
      - Nothing is remembered then.
  diff_mode:
    description: Nothing changes, so there is no difference to show.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
options:
  src:
    description:
      - The model. A path on the host that the module runs on, an C(https://), C(http://) or C(file://) URL, or a C(huggingface://) or C(oci://) source
        as M(aikit.fleet.model_file) takes it.
      - Of a split model, any one of its parts. The others are looked for beside it, under the names that the format prescribes
        (C(NAME-00001-of-00003.gguf)).
    type: str
    required: true
  sha256:
    description:
      - The SHA-256 of the file in O(src). A model that is known by it, or is in O(store), is not asked for again.
      - A file on the host is compared with it. Of a remote one, a hub's or a registry's word is compared; a header alone cannot be.
    type: str
  token:
    description:
      - A bearer token that is sent to the host of O(src) or to O(hub_url), and not to another host that these redirect to.
    type: str
  hub_url:
    description:
      - The hub that C(huggingface://) sources are read from.
    type: str
    default: https://huggingface.co
  tensors:
    description:
      - Return every tensor, and the metadata as far as it is kept, too.
    type: bool
    default: false
  cache:
    description:
      - The folder in which headers are remembered.
    type: path
    default: ~/.cache/aikit-fleet/gguf
  store:
    description:
      - The store of models, see M(aikit.fleet.model_file). A file that is there is not asked for over the network.
    type: path
    default: ~/.cache/aikit-fleet/models
  timeout_seconds:
    description:
      - How long to wait for a server that sends nothing.
    type: float
    default: 60
seealso:
  - module: aikit.fleet.model_file
"""

EXAMPLES = r"""
- name: Look at a model before it is downloaded
  aikit.fleet.gguf_info:
    src: https://models.example.com/gemma-3-270m-q4_k_m.gguf
  register: info

- name: Show how large its layers are
  ansible.builtin.debug:
    msg: >-
      {{ info.gguf.name }} has {{ info.gguf.block_count }} layers, {{ info.gguf.layers | map(attribute='bytes') | sum }} bytes in all;
      {{ info.gguf.header_bytes_read }} of {{ info.gguf.file_bytes }} bytes were read

- name: Look at a model on this host
  aikit.fleet.gguf_info:
    src: /srv/incoming/mistral-7b.gguf

- name: Look at a gated model of the hub
  aikit.fleet.gguf_info:
    src: huggingface://example/tiny-GGUF/tiny.gguf
    token: "{{ model_token }}"

- name: Look at all parts of a split model of the hub, at one commit
  aikit.fleet.gguf_info:
    src: huggingface://example/split-GGUF@main/Q4_K_M/model-00001-of-00002.gguf

- name: Look at a model of a registry, with every tensor
  aikit.fleet.gguf_info:
    src: oci://registry.example:5000/models/tiny:1
    tensors: true
"""

RETURN = r"""
gguf:
  description:
    - What the header says. Numbers and texts that it does not give are 0 and empty.
    - RV(gguf.input_bytes), RV(gguf.output_bytes), RV(gguf.other_bytes) and the bytes of all layers make RV(gguf.tensor_bytes).
  returned: success
  type: dict
  contains:
    architecture:
      description: The architecture, as llama.cpp names it.
      type: str
      sample: gemma3
    name:
      description: The name that the model has for people.
      type: str
      sample: Gemma 3 270m
    quantisation:
      description: The kind of quantisation, empty for one that is not known.
      type: str
      sample: Q4_K_M
    block_count:
      description: The number of layers, without the output layer that servers count as one more.
      type: int
      sample: 18
    context_length:
      description: The context that the model was trained for, in tokens.
      type: int
      sample: 32768
    embedding_length:
      description: The width of the model.
      type: int
      sample: 640
    head_count:
      description: The number of attention heads, or a list with one for each layer.
      type: raw
      sample: 4
    head_count_kv:
      description: The number of heads that have keys and values, or a list with one for each layer.
      type: raw
      sample: 1
    vocabulary_size:
      description: The number of tokens.
      type: int
      sample: 262144
    parameters:
      description: The number of parameters.
      type: int
      sample: 268098176
    tensor_count:
      description: The number of tensors.
      type: int
      sample: 236
    tensor_bytes:
      description: The size of all tensors. Of a type that is not known, the room up to the next one.
      type: int
      sample: 246587904
    tensor_types:
      description: The bytes that tensors of each type take.
      type: dict
      sample: {F32: 223744, Q4_K: 13271040, Q5_0: 43591680, Q6_K: 9676800, Q8_0: 179824640}
    layers:
      description: The bytes of each layer.
      type: list
      elements: dict
      sample: [{index: 0, bytes: 3995648}, {index: 1, bytes: 3995648}]
    input_bytes:
      description: The bytes of the token embeddings and what belongs to them.
      type: int
      sample: 178257920
    output_bytes:
      description: The bytes of the output layer.
      type: int
      sample: 2560
    other_bytes:
      description: The bytes of tensors that belong to none of these, such as those of a projector.
      type: int
      sample: 0
    tied_output:
      description: Whether the token embeddings serve as the output layer too. A server that puts the output layer onto a GPU holds them twice.
      type: bool
      sample: true
    has_chat_template:
      description: Whether the file has a template for chats.
      type: bool
      sample: false
    shards:
      description: The number of files that the model consists of.
      type: int
      sample: 1
    version:
      description: The version of the format.
      type: int
      sample: 3
    big_endian:
      description: Whether the file is for big-endian machines.
      type: bool
      sample: false
    header_bytes:
      description: The size of the header, that of all parts together.
      type: int
      sample: 6525120
    file_bytes:
      description: The size of the file, that of all parts together.
      type: int
      sample: 253113024
    header_bytes_read:
      description: How many bytes were read for this. 0 where all was known.
      type: int
      sample: 4547175
    requests:
      description: How many requests for them were made.
      type: int
      sample: 5
    cached:
      description: Whether all of it was known already.
      type: bool
      sample: false
    sha256:
      description: The SHA-256 of the file in O(src), where it was given, or a hub or a registry told it.
      type: str
      sample: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    revision:
      description:
        - The commit of the hub, or the digest of the registry's manifest, that O(src) meant.
        - Empty for other sources, and where O(sha256) was known already, so that nobody was asked.
      type: str
      sample: 0f4bbd9ea4d1b7d3a6d3a1b2f86bfb0f9f5b1d7c
    tensors:
      description: Every tensor.
      returned: when O(tensors=true)
      type: list
      elements: dict
      sample: [{name: token_embd.weight, type: Q8_0, shape: [640, 262144], bytes: 178257920}]
    metadata:
      description: The metadata, without the vocabulary and other values that are large.
      returned: when O(tensors=true)
      type: dict
      sample: {general.architecture: gemma3, gemma3.block_count: 18, gemma3.attention.sliding_window: 512}
    array_lengths:
      description: The lengths of all arrays of the metadata, also of those that are not kept.
      returned: when O(tensors=true)
      type: dict
      sample: {tokenizer.ggml.tokens: 262144}
findings:
  description: What will not be served as expected.
  returned: success
  type: list
  elements: dict
  sample:
    - level: warning
      path: /srv/models/old.gguf
      line: 0
      message: it is big-endian, which x86 and ARM machines do not load
      hint: Get the little-endian file, or convert it with gguf-convert-endian.
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core import gguf
from ..module_utils._core.model_source import secrets
from ..module_utils._io.gguf_info import read_info
from ..module_utils._io.model_file import reach
from ..module_utils._module import REGISTRY_OPTIONS, run_module

ARGUMENT_SPEC: dict[str, Any] = {
    "src": {"type": "str", "required": True},
    "sha256": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "hub_url": {"type": "str", "default": "https://huggingface.co"},
    "tensors": {"type": "bool", "default": False},
    "cache": {"type": "path", "default": "~/.cache/aikit-fleet/gguf"},
    "store": {"type": "path", "default": "~/.cache/aikit-fleet/models"},
    "timeout_seconds": {"type": "float", "default": 60},
    **REGISTRY_OPTIONS,
}


def work(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    module.no_log_values.update(secrets(given["src"]))
    info = read_info(
        given["src"],
        given["sha256"],
        reach=reach(given),
        store=given["store"],
        cache=given["cache"],
        check_mode=module.check_mode,
        say=module.log,
    )
    more = gguf.details(info.header) if given["tensors"] else {}
    return {"changed": False, "gguf": {**info.as_dict(), **more}, "findings": [finding.as_dict() for finding in info.findings]}


def main() -> None:
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
