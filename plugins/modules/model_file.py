#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: model_file
short_description: Keep model files in a content-addressed store
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Downloads or copies a model into a store on the host, checks it, and says where it is.
  - The store has one folder per content, named after its SHA-256, so a file that is there is never fetched again, and it never changes.
  - An interrupted download goes on where it stopped, however it was interrupted. After a reboot that needs a digest.
    However many tasks and builds need the same file at the same time, it is downloaded once.
  - A file appears in the store only when it is whole, has the right digest, and (for C(.gguf) files) is a GGUF file.
extends_documentation_fragment:
  - aikit.fleet.registry
attributes:
  check_mode:
    description: Can run in check mode and return the changed status prediction without modifying the target.
    support: full
    details:
      - A file that is missing is asked for with a HEAD request to tell its size. Where the server does not answer that, the size is not known.
      - Hubs and registries are asked what they have, without downloading it.
      - The digest and the content of a file that is not there yet can only be checked by a real run.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
    details:
      - What a branch, a tag or a URL gave the first time is written down and taken again, unless O(refresh=true).
options:
  source:
    description:
      - Where the model comes from, written as in an aikitfile.
      - C(https://) and C(http://) URLs are downloaded. C(file://) URLs and absolute paths name a file on the host that the module runs on, which is copied.
      - C(huggingface://NAMESPACE/REPOSITORY/FILE) and C(huggingface://NAMESPACE/REPOSITORY/BRANCH/FILE) are a file of the Hugging Face hub,
        C(huggingface://NAMESPACE/REPOSITORY@REVISION/FOLDER/FILE) is one in a folder, at a branch, a tag or a commit,
        C(huggingface://NAMESPACE/REPOSITORY) with or without C(@REVISION) is the whole repository.
      - C(oci://REGISTRY/NAME:TAG) is a model of Ollama's registry, an artifact that follows ModelPack, or one that oras pushed.
      - Proxies, certificates and C(~/.netrc) are used as by M(ansible.builtin.get_url).
      - Credentials in a URL (a password, the signature of a signed URL) are not shown in results, messages and the store.
        Ansible itself still writes a module's arguments to the host's log. Set C(no_log) on the task if a signed URL should not be there.
      - Required with O(state=present).
    type: str
  sha256:
    description:
      - The SHA-256 of the file in hexadecimal.
      - Of a source with several files it is RV(sha256), the digest of what C(sha256sum) prints of all of them, sorted by path.
      - Required for C(https://) and C(http://) URLs, unless a hub tells it or O(require_sha256=false).
    type: str
  require_sha256:
    description:
      - Refuse a download of which nothing tells the digest.
      - A digest that the Hugging Face hub or a registry tells counts as one. So does the one that a hub tells of a file asked for by its C(https://) address.
      - With V(false), whatever comes is taken, and nothing shows that the file is the one you want.
    type: bool
    default: true
  include:
    description:
      - Of a source with several files, those whose path or name matches one of these patterns, such as V(*Q4_K_M*.gguf).
      - By default all of them. Hidden files of a repository are never among them.
    type: list
    elements: str
    default: []
  store:
    description:
      - The folder of the store. It is created when it is missing.
    type: path
    default: ~/.cache/aikit-fleet/models
  name:
    description:
      - The name of the file in the store.
      - By default the last part of O(source). Only for sources of one file.
      - With O(state=absent), remove only the file of this name.
    type: str
  token:
    description:
      - A bearer token that is sent to the host of O(source) or to O(hub_url), in the header C(Authorization).
      - It is not sent to another host that the download is redirected to.
      - Registries are not given it, see O(registry_auth_file).
    type: str
  hub_url:
    description:
      - The hub that C(huggingface://) sources are read from, for example a mirror of it.
    type: str
    default: https://huggingface.co
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
      - Ask again what the branch, the tag or the URL means, and download what has changed.
      - Of no use with the O(sha256) of one file, which cannot change.
    type: bool
    default: false
  keep:
    description:
      - With O(state=pruned), what stays in the store, as digests, paths in the store, or sources that gave something before.
      - A source that the store knows nothing of is an error, because its file may be there under its digest alone.
    type: list
    elements: str
  unused_days:
    description:
      - With O(state=pruned), remove only what no task and no build asked for in so many days.
    type: float
  state:
    description:
      - The state of the model, or of the whole store.
    type: str
    choices:
      present: The model is in the store.
      absent: The model is not in the store, nor what is left of an interrupted download of it. What another source has too stays for that.
      pruned: The store holds only models that are in O(keep) or were used in the last O(unused_days). What another run is working on stays.
    default: present
seealso:
  - module: aikit.fleet.aikit_image
  - module: aikit.fleet.gguf_info
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

- name: Take a gated model from the hub, checked with the digest that the hub tells
  aikit.fleet.model_file:
    source: huggingface://example/tiny-GGUF/tiny.gguf
    token: "{{ model_token }}"
    store: /srv/models

- name: Take all parts of one quantisation, which lie in a folder of their own, at a commit
  aikit.fleet.model_file:
    source: huggingface://example/split-GGUF@main
    include: ["Q4_K_M/*.gguf"]
    store: /srv/models
  register: split

- name: Show where the parts lie side by side
  ansible.builtin.debug:
    msg: "{{ split.path }} has {{ split.files | map(attribute='name') | join(', ') }}, of commit {{ split.revision }}"

- name: Take a model of a registry
  aikit.fleet.model_file:
    source: oci://registry.example:5000/models/tiny:1
    store: /srv/models
  register: artifact

- name: Remove what nobody asked for in a month, but for these two
  aikit.fleet.model_file:
    state: pruned
    keep:
      - "{{ artifact.path }}"
      - "{{ split.sha256 }}"
    unused_days: 30
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
    - The file in the store. Of a source with several files, the folder in which they stand side by side.
    - Empty in check mode when nothing tells the digest yet, and unless O(state=present).
  returned: success
  type: str
  sample: /root/.cache/aikit-fleet/models/sha256/a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818/gemma-3-270m-q4_k_m.gguf
sha256:
  description: Its SHA-256 in hexadecimal, of several files that of their list (see O(sha256)); empty where RV(path) is.
  returned: success
  type: str
  sample: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
size_bytes:
  description: Its size, that of all files together; 0 where it is not known.
  returned: success
  type: int
  sample: 253113024
files:
  description: Every file of the source.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its path in the source.
      type: str
      sample: Q4_K_M/model-00001-of-00002.gguf
    path:
      description: The file in the store; empty where it is not known yet.
      type: str
      sample: /srv/models/sha256/a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818/model-00001-of-00002.gguf
    sha256:
      description: Its SHA-256; empty where it is not known yet.
      type: str
      sample: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    size_bytes:
      description: Its size; 0 where it is not known.
      type: int
      sample: 253113024
  sample:
    - name: gemma-3-270m-q4_k_m.gguf
      path: /srv/models/sha256/a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818/gemma-3-270m-q4_k_m.gguf
      sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
      size_bytes: 253113024
revision:
  description: The commit of the hub, or the digest of the registry's manifest, that O(source) meant; empty for other sources.
  returned: success
  type: str
  sample: 0f4bbd9ea4d1b7d3a6d3a1b2f86bfb0f9f5b1d7c
removed:
  description: The files that were removed, or would be in check mode.
  returned: when O(state=pruned)
  type: list
  elements: dict
  sample:
    - path: /srv/models/sha256/a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818/gemma-3-270m-q4_k_m.gguf
      sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
      size_bytes: 253113024
freed_bytes:
  description: What that gains on the disk. A file that has another name elsewhere gains nothing.
  returned: when O(state=pruned)
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
from ..module_utils._io.model_file import run
from ..module_utils._module import REGISTRY_OPTIONS, run_module

ARGUMENT_SPEC: dict[str, Any] = {
    "source": {"type": "str"},
    "sha256": {"type": "str"},
    "require_sha256": {"type": "bool", "default": True},
    "include": {"type": "list", "elements": "str", "default": []},
    "store": {"type": "path", "default": "~/.cache/aikit-fleet/models"},
    "name": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "hub_url": {"type": "str", "default": "https://huggingface.co"},
    "timeout_seconds": {"type": "float", "default": 60},
    "validate": {"type": "bool", "default": True},
    "refresh": {"type": "bool", "default": False},
    "keep": {"type": "list", "elements": "str"},
    "unused_days": {"type": "float"},
    "state": {"type": "str", "choices": ["present", "absent", "pruned"], "default": "present"},
    **REGISTRY_OPTIONS,
}


def work(module: AnsibleModule) -> dict[str, Any]:
    for source in (module.params["source"] or "", *(module.params["keep"] or ())):
        module.no_log_values.update(secrets(source))
    return run(module.params, module.check_mode, module.log)


def main() -> None:
    run_module(
        work,
        argument_spec=ARGUMENT_SPEC,
        required_if=[
            ("state", "present", ["source"]),
            ("state", "pruned", ["keep", "unused_days"], True),
        ],
    )


if __name__ == "__main__":
    main()
