# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A builder that is neither the controller nor a host that serves: the archive takes both ways."""

from __future__ import annotations

import json
import subprocess

import pytest
import support
from support import docker

BUILDER, HOST = "aikit-remote-builder", "aikit-remote-host"


@pytest.fixture
def machines():
    for name in (BUILDER, HOST):
        subprocess.run([str(support.ROOT / "tests/tools/host"), "create", name], check=True)
    assert support.playbook("aikit.fleet.quickstart_model").code == 0
    docker("exec", BUILDER, "mkdir", "-p", "/srv/models")
    docker("cp", str(support.MODEL_DIR / support.MODEL_NAME), f"{BUILDER}:/srv/models/")
    yield
    for name in (BUILDER, HOST):
        subprocess.run([str(support.ROOT / "tests/tools/host"), "destroy", name], check=True)


def test_a_remote_builder(machines, tmp_path):
    project = support.Project(tmp_path)
    project.service("remote", 8080, context="/srv/models")
    inventory = {
        "all": {"vars": {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3"}},
        "aikit_builders": {"hosts": {BUILDER: {}}},
        "aikit_hosts": {"hosts": {HOST: {"inference_services": project.services}}},
    }
    # The controller keeps its own connection
    inventory["all"]["hosts"] = {"localhost": {"ansible_connection": "local"}}
    (tmp_path / "inventory.yml").write_text(json.dumps(inventory))
    run = project.run()
    assert run.code == 0, run.messages()
    assert len(run.results("Bring the archive to the controller", HOST)) == 1
    assert json.loads(docker("exec", HOST, "cat", "/var/lib/aikit-fleet/remote.json"))["current"]["verdict"] == "cpu"
    left = docker("exec", BUILDER, "sh", "-c", "ls /root/.cache/aikit-fleet/transfer 2>/dev/null || true")
    assert left == "" and not list((support.CACHE / "transfer").glob("*/*"))
    assert project.run().changed == 0
