# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option that every module has which talks to a container engine."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  engine:
    description:
      - The container engine of the host.
    type: str
    choices:
      auto: The first that answers, Docker before Podman.
      docker: Docker.
      podman: Podman.
    default: auto
"""
