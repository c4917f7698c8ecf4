#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aikit_image_load
short_description: Bring an image into the container engine of a host
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.engine
  - aikit.fleet.progress
description:
  - Says which layers of an image the engine of this host lacks, and loads an archive that holds them.
  - Or pulls it from a registry by its digest, and gives it its name.
  - Without O(image), pulls an image of which nothing is known but its name.
  - With O(image), and without O(archive) and O(pull), nothing is changed; RV(missing)
    tells the builder what to put into the archive, see O(aikit.fleet.aikit_image#module:archive_omit).
  - Every blob of the archive is checked against its sha256 while it is streamed into the engine.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
  diff_mode:
    description: Returns the image under the name before and after.
    support: full
  idempotent:
    description: An image that is there under its name is not loaded again.
    support: full
options:
  name:
    description:
      - Name of the image with its tag.
    type: str
    required: true
  image:
    description:
      - The image, as RV(aikit.fleet.aikit_image#module:image) describes it. RV(ignore:id), RV(ignore:digest) and RV(ignore:layers) are read.
      - Without it, the image is pulled that the registry has under O(name), or under O(pull).
    type: dict
  archive:
    description:
      - Path of an archive on this host.
      - The engine's storage must have room for it, where that is on this host.
    type: path
  pull:
    description:
      - The image in a registry, by its digest (C(host/path@sha256:…)). The engine pulls it when it has not got it.
    type: str
  always:
    description:
      - Ask the registry also when the engine has an image of that name, whose tag may mean another one by now. Only without O(image).
    type: bool
    default: false
  registry_logins:
    description:
      - Logins of registries, where the engine has none. They are kept nowhere.
    type: list
    elements: dict
    default: []
    suboptions:
      registry:
        description:
          - The registry, as C(host) or C(host:port).
        type: str
        required: true
      username:
        description:
          - The user.
        type: str
        required: true
      password:
        description:
          - The password or token.
        type: str
        required: true
seealso:
  - module: aikit.fleet.aikit_image
"""

EXAMPLES = r"""
- name: Ask which layers the host lacks
  aikit.fleet.aikit_image_load:
    name: localhost/gemma:1
    image: "{{ build.image }}"
  register: observed

- name: Load the archive that was copied to the host
  aikit.fleet.aikit_image_load:
    name: localhost/gemma:1
    image: "{{ build.image }}"
    archive: /var/tmp/gemma.tar
  when: not observed.present

- name: Pull what the builder pushed
  aikit.fleet.aikit_image_load:
    name: registry.example:5000/gemma:1
    image: "{{ build.image }}"
    pull: "registry.example:5000/gemma@{{ build.image.digest }}"

- name: Pull an image that somebody else made, with a login
  aikit.fleet.aikit_image_load:
    name: registry.example:5000/llama:1
    registry_logins:
      - {registry: "registry.example:5000", username: fleet, password: "{{ registry_password }}"}
"""

RETURN = r"""
present:
  description: Whether the engine has the image under its name (after the load, if there was one).
  returned: always
  type: bool
  sample: true
id:
  description: What the engine calls the image's id; empty when it is not there.
  returned: always
  type: str
  sample: sha256:0b1f4a5b6ad0c35a22ef1f3a7b3f8e63d0c41c2f5be7a2f57c3dbd5a0a9c4e2f
missing:
  description: Digests of the layers that the engine lacks.
  returned: always
  type: list
  elements: str
  sample:
    - sha256:9a1c0f1f8d6f6e0d3d7a2c7f1b5b7f0c4a3e2d1c0b9a8f7e6d5c4b3a29181706
engine:
  description: The engine that was asked.
  returned: always
  type: str
  sample: docker
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
  sample: [load localhost/gemma:1 (docker)]
"""

from ..module_utils._io.load import load_archive, pull_image
from ..module_utils._module import ENGINE_OPTION, REGISTRY_OPTIONS, STATUS_FILE_OPTION, run_module

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "image": {"type": "dict"},
    "archive": {"type": "path"},
    "pull": {"type": "str"},
    "always": {"type": "bool", "default": False},
    "engine": ENGINE_OPTION,
    "status_file": STATUS_FILE_OPTION,
    "registry_logins": REGISTRY_OPTIONS["registry_logins"],
}


def work(module):
    params = module.params
    if params["image"] is None:
        return pull_image(params["name"], params["engine"], module.check_mode, params["pull"], params["registry_logins"], params["always"])
    return load_archive(
        params["name"], params["image"], params["archive"], params["engine"], module.check_mode, params["pull"], params["registry_logins"]
    )


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC, mutually_exclusive=[("archive", "pull"), ("archive", "always")], required_by={"archive": "image"})


if __name__ == "__main__":
    main()
