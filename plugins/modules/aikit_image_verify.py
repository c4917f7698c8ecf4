#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aikit_image_verify
short_description: Verify who signed an image in a registry
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.registry
  - aikit.fleet.signatures
description:
  - Resolves the name of an image to its digest, and has C(cosign) verify the signature of that digest. Hosts that pull RV(pull) get what was verified,
    whatever the name means by then.
  - An image without the signature that it must have fails the task. Of one that needs none, the registry is not asked.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - Nothing is changed but what is remembered of images that were verified. Where C(cosign) is not there yet, RV(signatures.skipped) says so.
  diff_mode:
    description: Nothing is changed, so there is no difference to show.
    support: none
  idempotent:
    description: Nothing is changed.
    support: full
options:
  name:
    description:
      - Name of the image, by tag or digest.
    type: str
    required: true
  cache:
    description:
      - Folder of the digest cache. What was verified is remembered beside it.
    type: path
    default: ~/.cache/aikit-fleet/digests
seealso:
  - module: aikit.fleet.aikit_image
"""

EXAMPLES = r"""
- name: Verify a pre-made image of AIKit's once, on the build host
  aikit.fleet.aikit_image_verify:
    name: ghcr.io/kaito-project/aikit/llama3.1:8b
  register: verified

- name: Verify an image that was signed with a key
  aikit.fleet.aikit_image_verify:
    name: registry.example:5000/llama:1
    verify:
      mode: key
      key: /etc/aikit/fleet.pub
      ignore_tlog: true
"""

RETURN = r"""
digest:
  description: The digest of the name now. Empty where the registry was not asked.
  returned: always
  type: str
  sample: sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
pull:
  description: The image by the digest that was verified. Empty where nothing was.
  returned: always
  type: str
  sample: ghcr.io/kaito-project/aikit/llama3.1@sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
signatures:
  description: Whether the image was verified.
  returned: always
  type: dict
  contains:
    verified:
      description: Who signed what, by name and digest.
      type: list
      elements: dict
      sample:
        - ref: ghcr.io/kaito-project/aikit/llama3.1:8b
          digest: sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b
          by: https://github.com/kaito-project/aikit/.github/workflows/patch-models.yaml@refs/heads/main
    skipped:
      description: What was taken without a signature, and the reason.
      type: list
      elements: dict
      sample: []
actions:
  description: Always empty.
  returned: always
  type: list
  elements: str
  sample: []
"""

from ..module_utils._io.cosign import verify_image
from ..module_utils._io.registry import RegistrySettings
from ..module_utils._module import REGISTRY_OPTIONS, VERIFY_OPTION, run_module

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "verify": VERIFY_OPTION,
    "cache": {"type": "path", "default": "~/.cache/aikit-fleet/digests"},
    **REGISTRY_OPTIONS,
}


def work(module):
    params = module.params
    settings = RegistrySettings(**{key.partition("_")[2]: params[key] for key in REGISTRY_OPTIONS})
    return verify_image(params["name"], params["verify"], params["cache"], settings, module.check_mode)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
