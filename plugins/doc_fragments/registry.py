# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  registry_auth_file:
    description:
      - Path, on the host that the module runs on, of a file with logins, as C(docker login) and C(podman login) write it.
      - By default the files that these programs use themselves are read, and the credential helpers that those name are asked.
    type: path
  registry_ca_file:
    description:
      - Path of a PEM file with the CA of a registry, beside those of the system.
      - Certificates in C(/etc/docker/certs.d/HOST) and C(/etc/containers/certs.d/HOST) are used, too.
    type: path
  registry_insecure:
    description:
      - Registries (C(host) or C(host:port)) that may do without a good certificate, or without encryption.
      - Registries on the loopback interface may always do without encryption, as for Docker.
    type: list
    elements: str
    default: []
  registry_mirrors:
    description:
      - Where images are read from instead of their own registry, as C(host[/path]) for C(host[/path]). The longest that fits counts.
      - Images are always pushed to the registry in their name.
    type: dict
    default: {}
  registry_timeout_seconds:
    description:
      - How long a registry may be silent before a request counts as failed. It is tried again then.
    type: float
    default: 60
  registry_logins:
    description:
      - Logins of registries, before those in files. They go to their registry alone, and are kept nowhere.
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
"""
