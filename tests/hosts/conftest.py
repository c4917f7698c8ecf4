# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixture repositories of NVIDIA's packages, and hosts whose GPUs are files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lab

# Two runs on one machine must not take each other's hosts
PREFIX = os.environ.get("AIKIT_TEST_PREFIX", "aikit-hosts-")


@pytest.fixture(scope="session")
def nvidia_repo(tmp_path_factory):
    """The repositories, served over HTTP: ``url``, ``facts`` (repository.json), ``requests`` so far."""
    found = lab.Repository(tmp_path_factory.mktemp("repositories") / "www")
    yield found
    found.close()


@pytest.fixture(scope="module")
def gpu_host(nvidia_repo):
    """``gpu_host(name, suite="trixie", **scenario)`` makes a host, or gives the one of that name; all end with the module."""
    made: dict[str, lab.GpuHost] = {}

    def make(name: str, suite: str = "trixie", **scenario) -> lab.GpuHost:
        if name not in made:
            made[name] = lab.GpuHost(PREFIX + name, nvidia_repo.facts, suite, **scenario)
            made[name].destroy()
            made[name].create()
        return made[name]

    yield make
    for host in made.values():
        host.destroy()
