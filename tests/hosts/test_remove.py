# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbook remove on a host of its own: it takes every image of ours, so it is not tried on the machine that runs the tests."""

from __future__ import annotations

import json

import pytest
import support

NAMES = ("localhost/aikit/plain:1", "localhost/aikit/named:1", "localhost/aikit/named:2", "localhost/aikit/idle:1", "localhost/aikit/busy:1")
STATE = "/var/lib/aikit-fleet"
MEMORY = f"{STATE}/host/nvidia_driver.json"
SLEEP = ("/usr/bin/busybox", "sleep", "100000")


@pytest.fixture(scope="module")
def host(gpu_host):
    """Docker with images of ours: one with two names, one whose stranger's container is stopped, one whose stranger's container runs."""
    host = gpu_host("remove", "trixie", gpus=(), packages=("docker.io", "docker-cli", "iptables", "busybox-static", "python3-docker", "python3-requests"))
    host.sh("systemctl start docker; tar -C / -c usr/bin/busybox >/var/tmp/busybox.tar")
    for name in ("plain:1", "named:1", "idle:1", "busy:1"):
        # Different bytes, or they were one image
        label = f"LABEL io.aikit.fleet.server=llama_cpp test={name}"
        host.run("docker", "import", "--change", label, "/var/tmp/busybox.tar", f"localhost/aikit/{name}")
    host.run("docker", "tag", "localhost/aikit/named:1", "localhost/aikit/named:2")
    host.run("docker", "import", "/var/tmp/busybox.tar", "somebody/elses:1")
    options = ("--network=none", "--entrypoint=/usr/bin/busybox")
    host.run("docker", "run", "--detach", "--name=llama", "--label=io.aikit.fleet.service=llama", *options, "localhost/aikit/plain:1", *SLEEP[1:])
    host.run("docker", "create", "--name=sleeper", *options, "localhost/aikit/idle:1", *SLEEP[1:])
    host.run("docker", "run", "--detach", "--name=notebook", *options, "localhost/aikit/busy:1", *SLEEP[1:])
    host.write(MEMORY, '{"schema": 1, "drained": ["llama"]}')
    return host


@pytest.fixture
def remove(host, tmp_path):
    def run(*arguments):
        inventory = host.inventory(tmp_path, inference_services=[])
        return support.playbook("aikit.fleet.remove", "-i", str(inventory), "-e", json.dumps({"confirm": True}), *arguments, cwd=tmp_path)

    return run


def images(host):
    return set(host.run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split())


def test_check_mode_says_what_would_go(remove, host):
    run = remove("--check")
    assert run.code == 0 and run.changed > 0, run.messages()
    assert images(host) == {*NAMES, "somebody/elses:1"} and host.run("docker", "inspect", "-f", "{{.State.Running}}", "llama") == "true"
    assert "localhost/aikit/busy:1 stays: notebook runs from it" in run.output and "plain:1 stays" not in run.output


def test_what_somebody_elses_container_runs_from_is_left_and_named(remove, host):
    host.write(f"{STATE}/llama.json.new", "half a state")
    run = remove()
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert images(host) == {"localhost/aikit/busy:1", "somebody/elses:1"}
    assert "localhost/aikit/busy:1 stays: notebook runs from it" in run.output and "Remove the container" in run.output
    assert host.run("docker", "inspect", "-f", "{{.State.Running}}", "notebook") == "true"
    assert host.run("docker", "ps", "--all", "--format", "{{.Names}}").split() == ["notebook", "sleeper"]
    # Drivers stay, and so does what is known of them
    assert host.run("find", STATE, "-type", "f") == MEMORY and host.run("cat", MEMORY) == '{"schema": 1, "drained": ["llama"]}'
    again = remove()
    assert (again.code, again.changed) == (0, 0) and "notebook runs from it" in again.output


def test_when_that_container_is_gone_its_image_goes_too(remove, host):
    host.run("docker", "rm", "--force", "notebook")
    host.run("rm", "-r", f"{STATE}/host")
    run = remove()
    assert run.code == 0 and images(host) == {"somebody/elses:1"}, run.messages()
    assert host.sh(f"test -e {STATE} || echo gone") == "gone"
