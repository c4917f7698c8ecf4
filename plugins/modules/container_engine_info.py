#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: container_engine_info
short_description: Say which container engine a host has, or what it takes to give it one
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Asks the engines themselves, not a service manager, so that an engine counts that was started by other means.
  - Needs nothing but Python on the host.
  - Fails, and says what to do, where an engine is there that will not do (older than O(minimum_version), a snap), or where the one that would
    be installed cannot stand beside what is there (C(docker.io) beside C(docker-ce), C(podman-docker), Docker Desktop).
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - Nothing is ever changed.
  diff_mode:
    description: Returns what changed.
    support: none
    details:
      - Nothing is ever changed.
  idempotent:
    description: A second run returns the same.
    support: full
options:
  name:
    description:
      - The engine to ask for.
    type: str
    choices:
      auto: The first that answers and is new enough, Docker before Podman; else the first that is installed; else Docker.
      docker: Docker.
      podman: Podman.
    default: auto
  docker_socket:
    description:
      - Where Docker listens.
    type: path
    default: /var/run/docker.sock
  source:
    description:
      - Where Docker's packages would come from. An engine that answers is used as it is, wherever it came from.
    type: str
    choices:
      auto: From where packages of Docker on the host come already; else from the distribution, where it has Docker; else from docker.com.
      distribution: The distribution's own packages.
      docker: The packages of docker.com.
    default: auto
  minimum_version:
    description:
      - The oldest version of the engine that will do. Without it, and for an older one, what this collection works with, which is Docker 20.10
        or Podman 3.0.
    type: str
    default: ""
  repository_url:
    description:
      - A mirror of docker.com's repository for this system, such as V(https://mirror.example/docker/linux/debian).
    type: str
    default: ""
  repository_key_sha256:
    description:
      - Digest of the key file of O(repository_url), where it is another one than docker.com's.
    type: str
    default: ""
  repository_key_fingerprint:
    description:
      - Fingerprint of the key of O(repository_url), where it is another one than docker.com's.
    type: str
    default: ""
  buildx:
    description:
      - Whether Docker shall have its plugin buildx, which builds with BuildKit.
    type: str
    choices:
      auto: With O(builds), the package of it is among RV(packages) where Docker is installed, too, and packages have it.
      required: It is also beside a Docker that is there, and an error where no package has it.
      never: It is not looked for.
    default: auto
  builds:
    description:
      - Whether images are built on this host.
    type: bool
    default: false
  storage:
    description:
      - Ask Podman what it holds, too. It takes a while.
    type: bool
    default: false
  restart:
    description:
      - Ask Docker which containers would not run again after a restart, RV(lost_by_restart).
    type: bool
    default: false
  expected_services:
    description:
      - Containers of services that ran before.
    type: list
    elements: str
    default: []
notes:
  - Role P(aikit.fleet.container_engine#role) acts on what it returns.
"""

EXAMPLES = r"""
- name: Ask for the container engine
  aikit.fleet.container_engine_info:
  register: found
"""

RETURN = r"""
engine:
  description: The engine.
  returned: success
  type: dict
  contains:
    name:
      description: Its name, V(docker) or V(podman).
      returned: always
      type: str
      sample: docker
    version:
      description: Its version; empty when it does not answer.
      returned: always
      type: str
      sample: 26.1.5+dfsg1
    socket:
      description: Where Docker listens; empty for Podman, which has no daemon.
      returned: always
      type: str
      sample: /var/run/docker.sock
    installed:
      description: Whether its program is there.
      returned: always
      type: bool
      sample: true
    answers:
      description: Whether it answers.
      returned: always
      type: bool
      sample: true
    problem:
      description: Why it does not answer; empty when it does.
      returned: always
      type: str
      sample: ""
    hint:
      description: How to start it; empty when it answers.
      returned: always
      type: str
      sample: ""
    source:
      description: >-
        Where it comes from, V(distribution), V(docker) (docker.com), V(desktop) or V(snap); empty where packages do not tell.
      returned: always
      type: str
      sample: distribution
    minimum_version:
      description: The oldest version that will do.
      returned: always
      type: str
      sample: "20.10"
    data_root:
      description: Its folder of images and containers; empty when it does not answer, and for Podman without O(storage).
      returned: always
      type: str
      sample: /var/lib/docker
    containers:
      description: How many containers it has; 0 where RV(engine.data_root) is empty.
      returned: always
      type: int
      sample: 2
    images:
      description: How many images it has; 0 where RV(engine.data_root) is empty.
      returned: always
      type: int
      sample: 3
packages:
  description: Packages that would install it, and with O(buildx) that plugin; empty when they are installed.
  returned: success
  type: list
  elements: str
  sample: []
python_packages:
  description: Packages with what the modules of this collection import on the host; empty when they are there.
  returned: success
  type: list
  elements: str
  sample: [python3-docker, python3-requests]
first_packages:
  description: Packages to install before all others, because they make others known.
  returned: success
  type: list
  elements: str
  sample: [epel-release]
package_manager:
  description: What installs packages, V(apt) or V(dnf); empty on systems that nobody here knows.
  returned: success
  type: str
  sample: apt
repository:
  description: The repository that the packages need; empty when they are the distribution's own.
  returned: success
  type: dict
  contains:
    manager:
      description: What it is for, V(apt) or V(dnf).
      returned: always
      type: str
      sample: apt
    key_url:
      description: Where its key is.
      returned: always
      type: str
      sample: https://download.docker.com/linux/debian/gpg
    key_fingerprint:
      description: The key's fingerprint.
      returned: always
      type: str
      sample: 9DC858229FC7DD38854AE2D88D81803C0EBFCD88
    key_sha256:
      description: Digest of the key's file; empty where the fingerprint is checked.
      returned: always
      type: str
      sample: 1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570
    key_file:
      description: Where the key is put.
      returned: for apt
      type: str
      sample: /etc/apt/keyrings/docker.asc
    file:
      description: The file that names the repository.
      returned: for apt
      type: str
      sample: /etc/apt/sources.list.d/docker.sources
    content:
      description: Its content.
      returned: for apt
      type: str
      sample: "Types: deb"
    name:
      description: Its name.
      returned: for dnf
      type: str
      sample: docker-ce-stable
    url:
      description: Its address.
      returned: for dnf
      type: str
      sample: https://download.docker.com/linux/rhel/9/$basearch/stable
running_services:
  description: Containers of this collection's services that run, as Docker lists them.
  returned: success
  type: list
  elements: str
  sample: [llama]
services_down:
  description: Those of O(expected_services) that do not run.
  returned: success
  type: list
  elements: str
  sample: []
lost_by_restart:
  description: With O(restart), running containers whose restart policy does not bring them back, where Docker runs without live-restore.
  returned: success
  type: list
  elements: str
  sample: []
findings:
  description: What a user should know about an engine that is used as it is; warnings are shown as such too.
  returned: success
  type: list
  elements: dict
  sample: []
service_manager:
  description: What starts services here, V(systemd), V(sysvinit) or V(none).
  returned: success
  type: str
  sample: systemd
"""

from ..module_utils._core.container_engine import Wishes
from ..module_utils._io.engine_probe import observe
from ..module_utils._module import ENGINE_OPTION, run_module

ARGUMENT_SPEC = {
    "name": ENGINE_OPTION,
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "source": {"type": "str", "choices": ["auto", "distribution", "docker"], "default": "auto"},
    "minimum_version": {"type": "str", "default": ""},
    "repository_url": {"type": "str", "default": ""},
    "repository_key_sha256": {"type": "str", "default": "", "no_log": False},
    "repository_key_fingerprint": {"type": "str", "default": "", "no_log": False},
    "buildx": {"type": "str", "choices": ["auto", "required", "never"], "default": "auto"},
    "builds": {"type": "bool", "default": False},
    "storage": {"type": "bool", "default": False},
    "restart": {"type": "bool", "default": False},
    "expected_services": {"type": "list", "elements": "str", "default": []},
}


def work(module):
    names = ("name", "source", "minimum_version", "repository_url", "repository_key_sha256", "repository_key_fingerprint", "buildx", "builds")
    wishes = Wishes(**{name: module.params[name] for name in names}, expected_services=tuple(module.params["expected_services"]))
    return {"changed": False, **observe(wishes, module.params["docker_socket"], module.run_command, module.params["storage"], module.params["restart"])}


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
