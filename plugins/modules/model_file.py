#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_file
short_description: Keep a model file in a content-addressed store
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Downloads or copies a model file into a store on the host, checks it, and says where it is.
  - The store has one folder per content, named after its SHA-256, so a file that is there is never fetched again, and it never changes.
  - An interrupted download goes on where it stopped, however it was interrupted. After a reboot that needs O(sha256).
    However many tasks and builds need the same file at the same time, it is downloaded once.
  - A file appears in the store only when it is whole, has the right O(sha256), and (for C(.gguf) files) is a GGUF file.
extends_documentation_fragment:
  - aikit.fleet.progress
attributes:
  check_mode:
    description: Can run in check mode and return the changed status prediction without modifying the target.
    support: full
    details:
      - A file that is missing is asked for with a HEAD request to tell its size. Where the server does not answer that, the size is not known.
      - The digest and the content of a file that is not there yet can only be checked by a real run.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - Without O(sha256), a URL is taken to give what it gave the first time, unless O(refresh=true).
options:
  source:
    description:
      - Where the file comes from, written as in an aikitfile.
      - C(https://) and C(http://) URLs are downloaded. C(file://) URLs and absolute paths name a file on the host that the module runs on, which is copied.
      - C(huggingface://) and C(oci://) are not supported yet and are refused. Use the C(https://) address of the file, or a local file.
      - Proxies, certificates and C(~/.netrc) are used as by M(ansible.builtin.get_url).
      - Credentials in a URL (a password, the signature of a signed URL) are not shown in results, messages and the store.
        Ansible itself still writes a module's arguments to the host's log. Set C(no_log) on the task if a signed URL should not be there.
      - Required with O(state=present).
    type: str
  sha256:
    description:
      - The SHA-256 of the file in hexadecimal.
      - Strongly recommended. Without it nothing shows that the file is the one you want.
    type: str
  store:
    description:
      - The folder of the store. It is created when it is missing.
    type: path
    default: ~/.cache/aikit-fleet/models
  name:
    description:
      - The name of the file in the store.
      - By default the last part of O(source).
      - With O(state=absent), remove only the file of this name.
    type: str
  token:
    description:
      - A bearer token that is sent to the host of O(source), in the header C(Authorization).
      - It is not sent to another host that the download is redirected to.
    type: str
  timeout_seconds:
    description:
      - How long to wait for a server that sends nothing.
      - There is no limit on the whole download.
    type: float
    default: 60
  validate:
    description:
      - Check the header of files whose name ends in C(.gguf), and that all their tensors are there.
    type: bool
    default: true
  refresh:
    description:
      - Ask the server whether the file has changed since it was downloaded, and download it again if it has.
      - Only for URLs without O(sha256).
    type: bool
    default: false
  state:
    description:
      - V(present) has the file in the store.
      - V(absent) removes it, and what is left of an interrupted download of it.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: aikit.fleet.aikit_image
"""

EXAMPLES = r"""
- name: Have a model in the store
  aikit.fleet.model_file:
    source: https://models.example.com/gemma-3-270m-q4_k_m.gguf
    sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  register: model

- name: Show where it is
  ansible.builtin.debug:
    msg: "{{ model.path }} has {{ model.size_bytes }} bytes"

- name: Take a file that is on the host already
  aikit.fleet.model_file:
    source: /srv/incoming/mistral-7b.gguf
    store: /srv/models

- name: Download from a server that wants a token
  aikit.fleet.model_file:
    source: https://models.example.com/private/model.gguf
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    token: "{{ model_token }}"
    store: /srv/models

- name: Remove a model, whatever it is called
  aikit.fleet.model_file:
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    store: /srv/models
    state: absent
"""

RETURN = r"""
path:
  description:
    - The file in the store.
    - Empty in check mode when neither O(sha256) nor an earlier download tells the digest, and with O(state=absent).
  returned: success
  type: str
  sample: /root/.cache/aikit-fleet/models/sha256/a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818/gemma-3-270m-q4_k_m.gguf
sha256:
  description: Its SHA-256 in hexadecimal; empty where RV(path) is.
  returned: success
  type: str
  sample: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
size_bytes:
  description: Its size; 0 where it is not known.
  returned: success
  type: int
  sample: 253113024
downloaded_bytes:
  description: How many bytes this run received; fewer than RV(size_bytes) when it went on with an interrupted download.
  returned: success
  type: int
  sample: 253113024
resumed:
  description: Whether an interrupted download was continued.
  returned: success
  type: bool
  sample: false
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - download https://models.example.com/gemma-3-270m-q4_k_m.gguf (253113024 bytes, as gemma-3-270m-q4_k_m.gguf)
findings:
  description: What is allowed and not wise, or will not be served as expected.
  returned: success
  type: list
  elements: dict
  contains:
    level:
      description: Always V(warning) here.
      type: str
      sample: warning
    path:
      description: The option or the file that is meant.
      type: str
      sample: source
    line:
      description: Always 0 here.
      type: int
      sample: 0
    message:
      description: What was found.
      type: str
      sample: "http://models.example.com/m.gguf comes over plain HTTP and no sha256 is given: nothing shows that the file is the one you want."
    hint:
      description: What to do about it.
      type: str
      sample: Give its sha256, or use https.
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core.model_source import secrets
from ..module_utils._io import transfer
from ..module_utils._module import STATUS_FILE_OPTION, report, run_module

ARGUMENT_SPEC: dict[str, Any] = {
    "source": {"type": "str"},
    "sha256": {"type": "str"},
    "store": {"type": "path", "default": "~/.cache/aikit-fleet/models"},
    "name": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "timeout_seconds": {"type": "float", "default": 60},
    "validate": {"type": "bool", "default": True},
    "refresh": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "status_file": STATUS_FILE_OPTION,
}


def work(module: AnsibleModule) -> dict[str, Any]:
    given = module.params
    module.no_log_values.update(secrets(given["source"] or ""))
    common = {"name": given["name"], "check_mode": module.check_mode, "say": module.log}
    if given["state"] == "absent":
        plan = transfer.remove_model(given["source"], given["sha256"], given["store"], **common)
        model = transfer.StoredModel("", "", 0, plan)
    else:
        model = transfer.ensure_model(
            given["source"],
            given["sha256"],
            given["store"],
            token=given["token"],
            timeout_seconds=given["timeout_seconds"],
            validate=given["validate"],
            refresh=given["refresh"],
            **common,
        )
    return report(
        model.plan,
        path=model.path,
        sha256=model.sha256,
        size_bytes=model.size_bytes,
        downloaded_bytes=model.downloaded_bytes,
        resumed=model.resumed,
        findings=[finding.as_dict() for finding in model.findings],
    )


def main() -> None:
    run_module(
        work,
        argument_spec=ARGUMENT_SPEC,
        required_if=[("state", "present", ["source"])],
        required_one_of=[("source", "sha256")],
    )


if __name__ == "__main__":
    main()
