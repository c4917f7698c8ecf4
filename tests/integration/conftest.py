# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A project that every integration test may deploy from, on this machine's own Docker."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support


def pytest_sessionstart(session):
    """A run that was killed leaves containers that Docker starts again: they would be taken for this run's."""
    if "PYTEST_XDIST_WORKER" not in os.environ and not session.config.option.collectonly:
        support.sweep("aikit-e2e")


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """The main job once, for real: base, model, image, service, proof. Everything else starts from what it leaves in the cache."""
    port = support.free_port()
    state = tmp_path_factory.mktemp("quickstart")
    arguments = ("-e", f"quickstart_port={port}", "-e", f"quickstart_name={support.QUICKSTART}", "-e", f"inference_state_dir={state}")
    # The base and the model are made and fetched by one; others find them in the cache
    with open(Path(tempfile.gettempdir()) / "aikit-e2e-quickstart.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = support.playbook("aikit.fleet.quickstart", *arguments)
    assert run.code == 0, run.output[-4000:]
    yield run, port, arguments
    support.docker("rm", "--force", "--volumes", support.QUICKSTART, check=False)


@pytest.fixture(scope="module")
def project(quickstart, tmp_path_factory):
    found = support.Project(tmp_path_factory.mktemp("project"))
    yield found
    for service in found.services:
        for name in (service["name"], service["name"] + "--previous"):
            support.docker("rm", "--force", "--volumes", name, check=False)
