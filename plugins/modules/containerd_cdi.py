#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: containerd_cdi
short_description: Let containerd hand out CDI devices
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Switches C(enable_cdi) of containerd's CRI plugin on in C(config.toml). Every other line, comments too, stays as it is.
  - containerd itself reads the new file before it replaces the old one. A file that would lose a setting, or would not switch CDI on because of
    what it imports, is refused and not touched.
  - Does nothing where CDI is on already, as it is by default since containerd 2.0. Restarts nothing.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
  diff_mode:
    description: Returns the setting before and after.
    support: full
  idempotent:
    description: A file that switches CDI on is not written again.
    support: full
options:
  path:
    description:
      - The file. Where it is a link, the file behind it is replaced.
    type: path
    default: /etc/containerd/config.toml
  state:
    description:
      - V(absent) sets C(enable_cdi) to false where the file's own section says true.
    type: str
    choices: [present, absent]
    default: present
  containerd:
    description:
      - The program that reads the new file.
    type: str
    default: containerd
  record:
    description:
      - A file that is written when the setting is made; a containerd that started before it is owed a restart, which RV(restart_needed) says
        until it had one. What others write to O(path) is theirs to restart for.
    type: path
  backup:
    description:
      - Keep a copy of the file beside it when it is changed.
    type: bool
    default: true
seealso:
  - module: aikit.fleet.docker_daemon_config
"""

EXAMPLES = r"""
- name: Let containerd hand out CDI devices
  aikit.fleet.containerd_cdi:
  become: true
  register: containerd_cdi

- name: Restart it
  ansible.builtin.systemd_service:
    name: containerd.service
    state: restarted
  become: true
  when: containerd_cdi.restart_needed
"""

RETURN = r"""
path:
  description: The file, links resolved.
  returned: success
  type: str
  sample: /etc/containerd/config.toml
backup_file:
  description: The copy of the file as it was; empty when there was none or nothing was changed.
  returned: success
  type: str
  sample: /etc/containerd/config.toml.2026-11-25T10-22-33~
restart_needed:
  description: Whether the file was written by this run, or O(record) after containerd was started.
  returned: success
  type: bool
  sample: true
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
  sample: [set enable_cdi (in /etc/containerd/config.toml)]
"""

from ..module_utils._io.containerd_config import ensure
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "path": {"type": "path", "default": "/etc/containerd/config.toml"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "containerd": {"type": "str", "default": "containerd"},
    "record": {"type": "path"},
    "backup": {"type": "bool", "default": True},
}


def work(module):
    params = module.params
    program = module.get_bin_path(params["containerd"], required=True)
    return ensure(
        params["path"],
        program,
        params["backup"],
        lambda argv: module.run_command(list(argv)),
        module.check_mode,
        absent=params["state"] == "absent",
        record=params["record"] or "",
    )


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
