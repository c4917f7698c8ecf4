# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: unknown_variables
short_description: Variables that look like a role's and are none
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Compares names of variables that begin like a role with those in the role's argument specification, and describes each that is not among them.
  - A misspelt variable is silently ignored otherwise.
positional: _input, role, argument_specs
options:
  _input:
    description:
      - Names of variables.
    type: list
    elements: str
    required: true
  role:
    description:
      - The role's name.
    type: str
    required: true
  argument_specs:
    description:
      - The content of the role's C(meta/argument_specs.yml).
    type: dict
    required: true
  facts:
    description:
      - Names that the role itself sets.
    type: list
    elements: str
    default: []
seealso:
  - plugin: ansible.builtin.varnames
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Refuse variables that would be ignored
  ansible.builtin.assert:
    that: strange | length == 0
    fail_msg: "{{ strange | join(' ') }}"
  vars:
    specs: "{{ lookup('ansible.builtin.file', role_path ~ '/meta/argument_specs.yml') | from_yaml }}"
    names: "{{ query('ansible.builtin.varnames', '^container_engine_') }}"
    strange: "{{ names | aikit.fleet.unknown_variables('container_engine', specs, ['container_engine_facts']) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each unknown variable; empty when there is none.
  type: list
  elements: str
  sample:
    - container_engine_nam is no variable of aikit.fleet, so nothing reads it. Did you mean container_engine_name?
"""

from ..module_utils._core import variables


def unknown_variables(names, role, argument_specs, facts=()):
    """One sentence for every name with the role's prefix that none of its entry points takes."""
    known = {option for entry in argument_specs["argument_specs"].values() for option in entry.get("options") or {}}
    found = variables.unknown(set(names) - set(facts), {role: known})
    return [f"{finding.path} {finding.message}. {finding.hint}".strip() for finding in found]


class FilterModule:
    """Filters of aikit.fleet."""

    def filters(self):
        return {"unknown_variables": unknown_variables}
