# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kill -9 at ten moments of a quickstart and of a deployment: running it again ends well."""

from __future__ import annotations

import json
import shutil

import pytest
import support
from conftest import Timeline
from support import completion, docker, inspect

MOMENTS = 10


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A quickstart with a cache of its own, and how long it takes from nothing."""
    folder = tmp_path_factory.mktemp("cold")
    port = support.free_port()
    arguments = (
        *("-e", f"quickstart_port={port}", "-e", "quickstart_name=aikit-kill-quickstart"),
        *("-e", f"inference_cache_dir={folder}/cache", "-e", f"inference_state_dir={folder}/state"),
    )
    yield folder, port, arguments, Timeline("aikit.fleet.quickstart", *arguments)
    forget(folder)


def forget(folder):
    """Back to a machine that has never run it (but for the packages of Debian)."""
    docker("rm", "--force", "--volumes", "aikit-kill-quickstart", "aikit-kill-quickstart--previous", check=False)
    docker("rmi", "--force", "localhost/aikit/aikit-kill-quickstart:latest", check=False)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    shutil.rmtree(folder / "state", ignore_errors=True)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_quickstart_is_finished_by_the_next(cold, moment):
    folder, port, arguments, timeline = cold
    forget(folder)
    assert timeline.kill_at((moment + 0.5) / MOMENTS)
    run = support.playbook("aikit.fleet.quickstart", *arguments)
    assert run.code == 0, run.output[-3000:]
    assert completion(port)["choices"]
    left = [path for path in (folder / "cache").rglob("*") if path.suffix in (".part", ".copy") or path.name.startswith("mmdebstrap.")]
    assert not left
    again = support.playbook("aikit.fleet.quickstart", *arguments)
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, cold):
    folder, _port, arguments, _timeline = cold
    support.playbook("aikit.fleet.quickstart", *arguments)
    project = support.Project(tmp_path_factory.mktemp("project"))
    port = support.free_port()
    project.service("aikit-kill", port, context=f"{folder}/cache/models/sha256/{support.MODEL_SHA256}")
    assert project.run().code == 0
    project.aikitfile(512)
    yield project, port, Timeline("deploy.yml", "-i", "inventory.yml", cwd=project.path)
    docker("rm", "--force", "--volumes", "aikit-kill", "aikit-kill--previous", check=False)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_killed_deployment_is_finished_by_the_next(deployed, moment):
    project, port, timeline = deployed
    wanted = 1024 + 64 * moment
    project.aikitfile(wanted)
    assert timeline.kill_at((moment + 0.5) / MOMENTS)
    run = project.run()
    assert run.code == 0, run.output[-3000:]
    found = inspect("aikit-kill")
    assert found["State"]["Running"] and f"LLAMA_ARG_CTX_SIZE={wanted}" in found["Config"]["Env"]
    assert completion(port)["choices"]
    state = json.loads((project.state / "aikit-kill.json").read_text())
    assert state["pending"] is None and state["current"]["verdict"] == "cpu"
    assert docker("ps", "--all", "--quiet", "--filter=name=aikit-kill--previous") == ""
    again = project.run()
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
