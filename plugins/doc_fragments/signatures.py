# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  verify:
    description:
      - Whose signature an image must have that is taken from a registry. C(cosign) on the host of the module verifies it, by digest and
        before anything of it is used;
        what was verified once is remembered, so that a second run asks nobody.
      - By default what AIKit signs, where it comes from AIKit's own registries. What is taken without a signature is named with the reason
        in RV(signatures.skipped).
    type: dict
    suboptions:
      mode:
        description:
          - Whose signatures are asked for.
        type: str
        choices:
          auto: Those of AIKit's workflows, for the images that AIKit signs.
          key: That of O(verify.key), for every image of a registry.
          none: Nobody's. All that is taken is in RV(signatures.skipped).
        default: auto
      key:
        description:
          - Public key, as a path on the host of the module or as the reference of a key in a KMS. For O(verify.mode=key).
        type: str
      ignore_tlog:
        description:
          - Ask for no entry in the public transparency log, which needs the network. For O(verify.mode=key), with signatures that are not there.
        type: bool
        default: false
      identity:
        description:
          - Regular expression for who must have signed, instead of AIKit's workflows. It begins with C(^). For O(verify.mode=auto).
        type: str
      issuer:
        description:
          - Who vouches for O(verify.identity); by default GitHub's workflows, C(https://token.actions.githubusercontent.com).
        type: str
      mirrors:
        description:
          - Ask for AIKit's signatures also where O(registry_mirrors) stands in for its registry. They must have been copied along (C(cosign copy)).
        type: bool
        default: false
"""
