#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Say which GPUs a host has, what drives them, and what is wrong with them
version_added: 0.2.0
author:
  - aikit.fleet authors (@aikit-fleet)
description: [x]
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
options:
  timeout_seconds:
    description: [x]
    type: float
    default: 10
  root:
    description: [x]
    type: path
    default: /
  previous:
    description: [x]
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Ask for the GPUs
  aikit.fleet.gpu_info:
  register: found
"""

RETURN = r"""
"""

from ..module_utils._io.gpu_probe import observe
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "timeout_seconds": {"type": "float", "default": 10},
    "root": {"type": "path", "default": "/"},
    "previous": {"type": "list", "elements": "dict", "default": []},
}


def work(module):
    return {"changed": False, **observe(module.params["root"], module.params["previous"], module.params["timeout_seconds"])}


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
