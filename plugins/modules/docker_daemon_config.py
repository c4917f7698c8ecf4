#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Set keys in Docker's daemon.json and leave the rest as it is
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Merges settings into C(daemon.json). Other keys, their order and the file's indentation stay as they are, and a file that means the same is not
    written again.
  - The new file is validated by C(dockerd) itself before it replaces the old one, whole and with the old one's owner and mode. A copy of the old one
    stays beside it.
  - A key that is also a flag on dockerd's command line is refused, because dockerd does not start with both.
  - A file that is broken, or holds a key twice, is an error with line and column, and is not touched.
  - Restarts nothing. It says whether a restart is needed, or whether a reload (SIGHUP) applies all that was changed.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - C(dockerd) validates the new settings in check mode too, from a temporary file.
  diff_mode:
    description: Returns the keys that change, before and after.
    support: full
  idempotent:
    description: A file that means the same is not written again.
    support: full
options:
  settings:
    description:
      - What the file must hold. Objects are merged key by key, lists get the items that they lack, everything else is replaced.
      - To replace a list, name its key in O(absent) too.
    type: dict
    default: {}
  absent:
    description:
      - Keys to take out before O(settings) are merged, with dots between the levels, such as V(log-opts.max-size).
    type: list
    elements: str
    default: []
  path:
    description:
      - The file. Where it is a link, the file behind it is replaced.
    type: path
    default: /etc/docker/daemon.json
  dockerd:
    description:
      - The program that validates. Where there is none, the file is not validated.
      - Docker before 23.0 cannot validate; it is asked which settings it knows.
    type: str
    default: dockerd
  backup:
    description:
      - Keep a copy of the file beside it when it is changed.
    type: bool
    default: true
  restart_for:
    description:
      - What else Docker has to be restarted for, for example a program that was installed and that it looks for at its start only. It is among
        RV(restart_keys), also of later runs, until the daemon was restarted.
    type: list
    elements: str
    default: []
notes:
  - Role P(aikit.fleet.container_engine#role) uses it, and restarts Docker as needed.
seealso:
  - module: aikit.fleet.container_engine_info
"""

EXAMPLES = r"""
- name: Let Docker hand out CDI devices
  aikit.fleet.docker_daemon_config:
    settings:
      features:
        cdi: true
  become: true
  register: daemon_config

- name: Use these mirrors and no other
  aikit.fleet.docker_daemon_config:
    settings:
      registry-mirrors: [https://mirror.example]
    absent: [registry-mirrors]
  become: true

- name: Have Docker follow, by a reload where that is enough
  ansible.builtin.include_role:
    name: aikit.fleet.container_engine
    tasks_from: restart
  vars:
    container_engine_restart: "{{ daemon_config.restart_needed }}"
  when: daemon_config.restart_needed or daemon_config.reload_enough
"""

RETURN = r"""
path:
  description: The file, links resolved.
  returned: success
  type: str
  sample: /etc/docker/daemon.json
backup_file:
  description: The copy of the file as it was; empty when there was none or nothing was changed.
  returned: success
  type: str
  sample: /etc/docker/daemon.json.2026-11-25T10-22-33~
validated:
  description: Whether dockerd found the new file good; false when nothing changed, or when there is no dockerd that can say.
  returned: success
  type: bool
  sample: true
restart_needed:
  description:
    - Whether something was written that only a restart of Docker applies, by this run, or by an earlier one if the daemon has not been restarted since.
      O(restart_for) counts as well.
  returned: success
  type: bool
  sample: true
restart_keys:
  description: What needs the restart.
  returned: success
  type: list
  elements: str
  sample: [features.cdi]
reload_enough:
  description: Whether something changed, and a reload applies all that Docker does not follow yet.
  returned: success
  type: bool
  sample: false
running:
  description: Whether a dockerd runs that reads this file.
  returned: success
  type: bool
  sample: true
actions:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: ["set features.cdi (in /etc/docker/daemon.json)"]
"""

from ..module_utils._io.daemon_json import Request, ensure
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "settings": {"type": "dict", "default": {}},
    "absent": {"type": "list", "elements": "str", "default": []},
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "dockerd": {"type": "str", "default": "dockerd"},
    "backup": {"type": "bool", "default": True},
    "restart_for": {"type": "list", "elements": "str", "default": []},
}


def work(module):
    return ensure(Request(**{name: module.params[name] for name in ARGUMENT_SPEC}), lambda argv: module.run_command(list(argv)), module.check_mode)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
