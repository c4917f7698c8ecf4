#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: llama_cpp_base
short_description: Make the base image of the llama_cpp server from Debian's packages
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Makes a Debian root file system that holds llama.cpp's server and what it needs, as a tar file for
    O(aikit.fleet.aikit_image#module:base). No container registry and no container engine take part.
  - The tar file is kept in O(cache_dir), with a description beside it (the same name and C(.json)) that lists the packages, the options
    of the server and its backends. It is built once and then left alone, whatever the archive does; see O(refresh).
  - The file appears complete or not at all. A build that was killed leaves a folder behind that the next one removes.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - With O(refresh) the package lists are fetched into a temporary folder to compare, in check mode too, unless mmdebstrap is not installed yet.
  diff_mode:
    description: Returns the packages before and after.
    support: full
    details:
      - The packages of a base that is not there yet are not known before it is built.
  idempotent:
    description: A base that is there is not built again.
    support: full
    details:
      - With O(refresh) it is built again only when the archive has other packages than the base.
options:
  variant:
    description:
      - Which of llama.cpp's backends the base holds, besides the one for CPUs.
    type: str
    choices:
      cpu: None; small, for any machine.
      vulkan: Vulkan, with Mesa's drivers for AMD, Intel, Apple Silicon in a virtual machine and a software device.
      cuda: >-
        CUDA, from the contrib and non-free sections; its libraries have a licence of NVIDIA's that you accept by using them. The driver's
        own libraries are left out, the host's container toolkit mounts them.
    default: cpu
  suite:
    description:
      - Debian's suite. It must have llama.cpp, which V(forky) and V(sid) do.
    type: str
    default: sid
  mirror:
    description:
      - URL of a mirror of Debian's archive.
      - A login does not belong into the URL. What the host's C(/etc/apt/auth.conf) and C(/etc/apt/auth.conf.d) say is used.
      - Without it, the mirror that apt on this host uses. On hosts that are not Debian it has to be given.
      - The mirror says where packages come from, not what they are, so another mirror alone does not build the base again.
    type: str
  keyring:
    description:
      - File with the keys that sign the suite. V("") leaves the choice to mmdebstrap.
    type: path
    default: /usr/share/keyrings/debian-archive-keyring.gpg
  architecture:
    description:
      - The architecture of the base, as images call it. Without it, this host's.
      - The server of another architecture is not run, so its options come from a table by version.
    type: str
    choices: [amd64, arm64]
  extra_packages:
    description:
      - Packages to add.
    type: list
    elements: str
    default: []
  source_date_epoch:
    description:
      - No file in the base is newer than this, in seconds since 1970. It keeps the result the same for the same packages.
    type: int
    default: 1767225600
  cache_dir:
    description:
      - Folder for bases.
    type: path
    default: ~/.cache/aikit-fleet/bases
  digest_cache:
    description:
      - Folder of the digest cache, the one of O(aikit.fleet.aikit_image#module:cache).
    type: path
    default: ~/.cache/aikit-fleet/digests
  refresh:
    description:
      - Compare with the packages that the archive has today, and build the base again if they differ.
    type: bool
    default: false
notes:
  - Building needs root, mmdebstrap and a Debian or Ubuntu host; role P(aikit.fleet.llama_cpp_base#role) sees to it. A base that is there needs none of them.
seealso:
  - module: aikit.fleet.aikit_image
"""

EXAMPLES = r"""
- name: Make a base for machines without a GPU
  aikit.fleet.llama_cpp_base:
    variant: cpu
  register: llama_cpp_base

- name: Take today's packages
  aikit.fleet.llama_cpp_base:
    variant: vulkan
    refresh: true
"""

RETURN = r"""
base:
  description:
    - The base. In check mode, where it would be built, only RV(base.path), RV(base.variant), RV(base.suite), RV(base.architecture), RV(base.key)
      and an empty RV(base.sha256).
  returned: success
  type: dict
  contains:
    path:
      description: The tar file; its description stands beside it.
      returned: always
      type: str
      sample: /root/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
    variant:
      description: The variant.
      returned: always
      type: str
      sample: cpu
    suite:
      description: The suite.
      returned: always
      type: str
      sample: sid
    architecture:
      description: The architecture, as images call it.
      returned: always
      type: str
      sample: amd64
    key:
      description: Digest of all inputs of the recipe.
      returned: always
      type: str
      sample: 4f6a9b7c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f405162738495a6b7c8
    sha256:
      description: Digest of the tar file.
      returned: always
      type: str
      sample: 9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab
    size_bytes:
      description: Size of the tar file.
      returned: when it is there
      type: int
      sample: 63877120
    packages:
      description: The packages in it.
      returned: when it is there
      type: list
      elements: dict
      contains:
        name:
          description: The name.
          returned: always
          type: str
          sample: llama.cpp-tools
        version:
          description: The version.
          returned: always
          type: str
          sample: 1:0.7.0+dfsg-2
        architecture:
          description: The architecture, as Debian calls it.
          returned: always
          type: str
          sample: amd64
    server:
      description: The server in it.
      returned: when it is there
      type: dict
      contains:
        path:
          description: Where it stands.
          returned: always
          type: str
          sample: /usr/bin/llama-server
        version:
          description: Its version.
          returned: always
          type: str
          sample: 0.7.0
        build:
          description: Its build number; empty where it has none.
          returned: always
          type: str
          sample: "11669"
    backends:
      description: The backends in it.
      returned: when it is there
      type: list
      elements: str
      sample: [cpu]
duration_seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 7.3
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
  sample: ["build /root/.cache/aikit-fleet/bases/sid-cpu-amd64.tar (it is not there)"]
"""

from ..module_utils._io.base_build import Request, ensure
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "variant": {"type": "str", "choices": ["cpu", "vulkan", "cuda"], "default": "cpu"},
    "suite": {"type": "str", "default": "sid"},
    "mirror": {"type": "str"},
    "keyring": {"type": "path", "default": "/usr/share/keyrings/debian-archive-keyring.gpg"},
    "architecture": {"type": "str", "choices": ["amd64", "arm64"]},
    "extra_packages": {"type": "list", "elements": "str", "default": []},
    "source_date_epoch": {"type": "int", "default": 1767225600},
    "cache_dir": {"type": "path", "default": "~/.cache/aikit-fleet/bases"},
    "digest_cache": {"type": "path", "default": "~/.cache/aikit-fleet/digests"},
    "refresh": {"type": "bool", "default": False},
}


def work(module):
    def run(argv, environment):
        return module.run_command(list(argv), environ_update=dict(environment), errors="replace")

    return ensure(Request(**{name: module.params[name] for name in ARGUMENT_SPEC}), run, module.check_mode)


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
