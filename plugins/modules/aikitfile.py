#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validates, normalises and writes an aikitfile."""

from __future__ import annotations

DOCUMENTATION = r"""
module: aikitfile
short_description: Check an aikitfile, and write it to a host
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Checks an AIKit C(aikitfile) (the inference kind, C(apiVersion) V(v1alpha1)) strictly, with the model settings in its C(config) block,
    and reports everything that is wrong with it at once, with path and line.
  - AIKit itself ignores keys that it does not know, and does not read C(config) before the image runs.
  - Warns of what is allowed but does nothing, such as C(f16) and C(low_vram) for today's llama.cpp.
  - Writes the file to O(dest) where that is wanted. A file with an error is never written.
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tell what would change, without changing anything.
  diff_mode:
    support: full
    description: Shows the text of O(dest) before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
    details:
      - O(dest) is compared byte for byte.
options:
  definition:
    description:
      - The aikitfile as a mapping. Mark it with C(!unsafe) if it holds templates such as C({{.Input}}), or Ansible templates them first.
      - Exactly one of O(definition) and O(src) is needed.
    type: dict
  src:
    description:
      - Path of the aikitfile on the controller. A relative path is looked for as with M(ansible.builtin.copy), an absolute one is taken as it is.
      - Nothing in the file is templated.
    type: path
  dest:
    description:
      - Where to write the file on the host. Without it nothing is written.
      - From O(src) it is written byte for byte, from O(definition) as block YAML.
      - A new file gets mode V(0644), one that is there keeps its mode and its owner. Missing parent folders are made.
      - Where a symbolic link stands, the file that it leads to is written.
    type: path
  aikit_version:
    description:
      - The AIKit release whose rules count, such as V(0.21.0), or V(main) for its development branch.
    type: str
    default: 0.21.0
  platforms:
    description:
      - The platforms that the image is built for, such as V(linux/amd64). Some runtimes and backends are not there for all of them.
    type: list
    elements: str
    default: []
  parsed:
    description:
      - The parsed aikitfile. Filled in by the action plugin, do not set it.
    type: dict
seealso:
  - module: aikit.fleet.aikit_image
notes:
  - The file is read and parsed on the controller, so the host needs no YAML library.
"""

EXAMPLES = r"""
- name: Check an aikitfile and change nothing
  aikit.fleet.aikitfile:
    src: aikitfiles/llama.yaml
    platforms: [linux/amd64]

- name: Write an inline one
  aikit.fleet.aikitfile:
    dest: /srv/aikit/aikitfile.yaml
    definition: !unsafe
      apiVersion: v1alpha1
      runtime: cuda
      models:
        - name: mistral-7b-instruct
          source: models/mistral-7b-instruct-q4_k_m.gguf
          promptTemplates:
            - name: instruct
              template: |
                [INST] {{.Input}} [/INST]
      config: |
        - name: mistral-7b-instruct
          backend: llama
          context_size: 8192
          parameters:
            model: mistral-7b-instruct-q4_k_m.gguf
          template:
            chat: instruct

- name: Ask what another release of AIKit would say
  aikit.fleet.aikitfile:
    src: aikitfiles/llama.yaml
    aikit_version: main
  register: answer
  failed_when: false

- name: Show it
  ansible.builtin.debug:
    var: answer.findings
"""

RETURN = r"""
aikitfile:
  description: The aikitfile in one fixed shape, with every key. C(loadToMemory) is there only if it is not empty.
  returned: success
  type: dict
  sample:
    apiVersion: v1alpha1
    debug: false
    runtime: cuda
    backends: []
    models:
      - name: mistral-7b-instruct
        source: models/mistral-7b-instruct-q4_k_m.gguf
    config: ""
sha256:
  description: SHA-256 of the file's text, which images carry as label C(io.aikit.fleet.aikitfile.sha256).
  returned: success
  type: str
  sample: 0a4d55a8d778e5022fab701977c5d840bbc486d0f9f0d4a3a3bb1f0b9f9f5c3e
findings:
  description: Everything that was found, in the order of the file. After an error the module fails, with this in the result.
  returned: always
  type: list
  elements: dict
  contains:
    level:
      description: V(error) or V(warning).
      type: str
    path:
      description: Where in the document. Parts of the C(config) block begin with C(config), and platforms and versions with the option's name.
      type: str
    line:
      description: The line of the file, V(0) where there is none (inline definitions).
      type: int
    message:
      description: What was found.
      type: str
    hint:
      description: What to do about it, may be empty.
      type: str
  sample:
    - level: warning
      path: config[0].f16
      line: 12
      message: "does nothing: today's llama.cpp backend does not read f16"
      hint: leave it out; the precision is the model file's, that of the KV cache is set by cache_type_k and cache_type_v
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample: ["write /srv/aikit/aikitfile.yaml"]
"""

import os
import stat
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core import aikitfile
from ..module_utils._core.errors import AikitError, raise_for_errors
from ..module_utils._core.plan import Action, Plan
from ..module_utils._io import files
from ..module_utils._module import hide_sources, report, run_module

ARGUMENT_SPEC = {
    "definition": {"type": "dict"},
    "src": {"type": "path"},
    "dest": {"type": "path"},
    "aikit_version": {"type": "str", "default": "0.21.0"},
    "platforms": {"type": "list", "elements": "str", "default": []},
    "parsed": {"type": "dict"},
}


def work(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    parsed = params["parsed"]
    hide_sources(module, parsed)
    if not parsed:
        raise AikitError("parsed: the aikitfile was not read.", "Call aikit.fleet.aikitfile as a task; its action plugin reads the file.")
    found, findings = aikitfile.validate(parsed, params["aikit_version"], params["platforms"])
    raise_for_errors(findings, parsed["name"])
    if found is None:
        raise AikitError(f"{parsed['name']}: the aikitfile is empty.")
    plan = Plan()
    dest = params["dest"]
    before, mode = read(dest) if dest else (None, 0)
    text = found.text.encode("utf-8")
    if dest and before != text:
        shown = {} if before is None else {"text": before.decode("utf-8", "replace")}
        plan = Plan((Action("write", dest),), shown, {"text": found.text})
    if plan.changed and not module.check_mode:
        files.write_atomic(dest, text, mode, keep=True)
    diff = {"before": plan.before.get("text", ""), "after": plan.after.get("text", ""), "before_header": dest or "", "after_header": dest or ""}
    return {
        **report(plan, aikitfile=aikitfile.normalised(found), sha256=found.sha256, findings=[item.as_dict() for item in findings]),
        "diff": diff,
    }


def read(dest: str) -> tuple[Optional[bytes], int]:
    """The bytes of ``dest`` and its mode; None and the default mode when there is no such file."""
    if os.path.isdir(dest):
        raise AikitError(f"dest: {dest} is a folder.", "Name the file to write.")
    try:
        with open(dest, "rb") as handle:
            return handle.read(), stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
    except FileNotFoundError:
        return None, 0o644
    except NotADirectoryError:
        raise AikitError(f"dest: {dest} is below something that is no folder.", "Name a file in a folder, or one that is not there yet.") from None


def main() -> None:
    run_module(
        work,
        argument_spec=ARGUMENT_SPEC,
        mutually_exclusive=[("definition", "src")],
        required_one_of=[("definition", "src")],
    )


if __name__ == "__main__":
    main()
