#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Write or remove several small text files at once
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Keeps small text files as they shall be, with one round trip for all of them. M(ansible.builtin.copy) needs two for each, and one more for
    its folder, which is most of what a run costs that finds nothing to do.
  - Each file is replaced whole. Missing folders are made with mode 0755.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
  diff_mode:
    description: Returns each file before and after.
    support: full
  idempotent:
    description: A file that is as it shall be is not written again.
    support: full
options:
  files:
    description:
      - The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Where the file is.
        type: path
        required: true
      content:
        description:
          - What it holds. Ignored with V(absent).
        type: str
        default: ""
      mode:
        description:
          - Its mode in octal, in quotes.
        type: str
        default: "0644"
      state:
        description:
          - Whether it is there.
        type: str
        choices: [present, absent]
        default: present
seealso:
  - module: ansible.builtin.copy
"""

EXAMPLES = r"""
- name: Pin a package and keep it out of unattended upgrades
  aikit.fleet.host_files:
    files:
      - path: /etc/apt/preferences.d/example
        content: |
          Package: example
          Pin: version 1.2*
          Pin-Priority: 1001
      - path: /etc/apt/apt.conf.d/52example
        content: |
          Unattended-Upgrade::Package-Blacklist { "^example$"; };
  become: true

- name: Remove them
  aikit.fleet.host_files:
    files:
      - path: /etc/apt/preferences.d/example
        state: absent
      - path: /etc/apt/apt.conf.d/52example
        state: absent
  become: true
"""

RETURN = r"""
changed_paths:
  description: The files that were written or removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [/etc/apt/preferences.d/example]
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
  sample: [write /etc/apt/preferences.d/example]
"""

from ..module_utils._io.host_files import ensure
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "default": ""},
            "mode": {"type": "str", "default": "0644"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
}


def main():
    run_module(lambda module: ensure(module.params["files"], module.check_mode), argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
