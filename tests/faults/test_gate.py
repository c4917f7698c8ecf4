# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two systemd hosts, one after the other: what fails on the first never reaches the second."""

from __future__ import annotations

import json
import subprocess

import pytest
import support
from support import docker

HOSTS = ("aikit-gate-1", "aikit-gate-2")


class Fleet(support.Project):
    """Both hosts serve the same service."""

    def write(self) -> None:
        variables = {
            "ansible_connection": "community.docker.docker",
            "ansible_python_interpreter": "/usr/bin/python3",
            "inference_services": self.services,
        }
        inventory = {"aikit_hosts": {"hosts": {host: {} for host in HOSTS}, "vars": variables}}
        (self.path / "inventory.yml").write_text(json.dumps(inventory))

    def seen(self, host):
        """Container id, start time and answer of the service on ``host``."""
        found = json.loads(docker("exec", host, "docker", "inspect", "gate"))[0]
        body = '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}'
        words = ("exec", host, "python3", "-c", ASK, body)
        return found["Id"], found["State"]["StartedAt"], json.loads(docker(*words))["usage"]["completion_tokens"]


ASK = (
    "import sys, urllib.request; print(urllib.request.urlopen(urllib.request.Request('http://127.0.0.1:8080/v1/chat/completions', "
    "sys.argv[1].encode(), {'Content-Type': 'application/json'}), timeout=60).read().decode())"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    for host in HOSTS:
        subprocess.run([str(support.ROOT / "tests/tools/host"), "create", host], check=True)
    assert support.playbook("aikit.fleet.quickstart_model").code == 0
    found = Fleet(tmp_path_factory.mktemp("fleet"))
    found.service("gate", 8080)
    run = found.run()
    assert run.code == 0, run.output[-3000:]
    yield found
    for host in HOSTS:
        subprocess.run([str(support.ROOT / "tests/tools/host"), "destroy", host], check=True)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"expect": {"verdict": ["proven"]}, "settings": {"context_size": 512}}, ["expected", "proven", "cpu"]),
        ({"environment": {"LLAMA_ARG_DEVICE": "CUDA0"}}, ["invalid device: CUDA0"]),
        ({"settings": {"context_size": 640}, "cpus": 0.01, "timeout_seconds": 5}, ["5 s"]),
    ],
    ids=["answers on the CPU", "crashes", "is never ready"],
)
def test_the_old_service_answers_again_and_the_next_batch_is_untouched(fleet, options, words):
    before = [fleet.seen(host) for host in HOSTS]
    fleet.service("gate", 8080, **options)
    run = fleet.run()
    after = [fleet.seen(host) for host in HOSTS]
    assert run.code != 0
    assert run.stats[HOSTS[0]]["failures"] == 1 and run.stats[HOSTS[1]]["failures"] == 0
    assert after[0][0] == before[0][0] and after[0][2] > 0
    assert after[1][:2] == before[1][:2]
    message = run.messages()
    assert all(word in message for word in words) and "answers again" in message, message
    (table,) = [result["msg"] for result in run.results("How the rollout stands") if not result.get("skipped")]
    first, second = [line.split() for line in table[2:]]
    assert first[:5] == [HOSTS[0], "gate", "rolled", "back", "cpu"] and first[5] == "localhost/aikit/gate:latest" and len(first[6]) == 14
    assert second == [HOSTS[1], "gate", "not", "reached", "-", "as", "before", "-"]
    assert run.results("Prove the answers of gate", HOSTS[0]) and not run.results("Prove the answers of gate", HOSTS[1])


def test_a_good_release_reaches_both_and_only_the_changed_layer_travels(fleet):
    fleet.service("gate", 8080)
    fleet.aikitfile(1536)
    run = fleet.run()
    assert run.code == 0, run.output[-3000:]
    written = [result["bytes_written"] for result in run.results("Assemble the image") if result.get("bytes_written")]
    # One archive for both hosts, without the base and the model
    assert len(written) == 1 and written[0] < 64 * 1024
    for host in HOSTS:
        env = json.loads(docker("exec", host, "docker", "inspect", "gate"))[0]["Config"]["Env"]
        assert "LLAMA_ARG_CTX_SIZE=1536" in env
    assert fleet.run().changed == 0
