# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What engines say, as documents of Docker 20.10 and Podman 4.3 / 5.4 show it."""

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import engine

DOCKER = {
    "Id": "4f0c",
    "Name": "/llama",
    "Image": "sha256:aa",
    "RestartCount": 2,
    "State": {
        "Status": "running",
        "Running": True,
        "Pid": 4242,
        "ExitCode": 0,
        "StartedAt": "2026-11-22T21:00:00.123456789Z",
        "Health": {"Status": "healthy"},
    },
    "Config": {"Env": ["A=1", "B=x=y", "C"], "Labels": {"io.aikit.fleet.service": "llama"}, "Image": "localhost/llama:1", "Cmd": ["--debug"]},
    "HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}},
    "NetworkSettings": {"Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "9000/tcp": None}},
}


def test_a_running_docker_container():
    state = engine.parse_container(DOCKER)
    assert (state.name, state.id, state.image_id, state.status, state.running) == ("llama", "4f0c", "sha256:aa", "running", True)
    assert (state.restart_count, state.pid, state.health, state.command) == (2, 4242, "healthy", ("--debug",))
    assert state.env == {"A": "1", "B": "x=y", "C": ""}
    assert state.ports == ({"host_ip": "127.0.0.1", "host_port": 8080, "container_port": 8080},)


def test_a_stopped_container_shows_the_ports_it_asked_for():
    stopped = {**DOCKER, "State": {"Status": "exited", "Running": False, "ExitCode": 137}, "NetworkSettings": {"Ports": {}}}
    state = engine.parse_container(stopped)
    assert (state.running, state.exit_code, state.pid) == (False, 137, 0)
    assert state.ports[0]["host_port"] == 8080


def test_a_restarting_container_does_not_run():
    state = engine.parse_container({**DOCKER, "State": {"Status": "restarting", "Running": True, "ExitCode": 1}})
    assert not state.running


def test_podman_shapes():
    state = engine.parse_container(
        {
            "Id": "77",
            "Name": "llama",
            "Image": "bb",
            "ImageName": "localhost/llama:1",
            "State": {"Status": "Running", "Running": True, "Healthcheck": {"Status": ""}},
            "Config": {"Labels": None, "Env": None},
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Ports": {"8080/tcp": [{"HostIp": "", "HostPort": "8081"}]}},
        }
    )
    assert (state.name, state.image_id, state.status, state.health) == ("llama", "sha256:bb", "running", None)
    assert state.ports == ({"host_ip": "0.0.0.0", "host_port": 8081, "container_port": 8080},)


def test_images():
    found = engine.parse_image(
        {
            "Id": "cc",
            "RepoTags": ["localhost/a:1", "<none>:<none>"],
            "RepoDigests": None,
            "Config": {"Env": ["X=1"], "Entrypoint": "/usr/bin/llama-server", "Cmd": None, "Labels": {"a": "b"}},
            "RootFS": {"Layers": ["sha256:1", "2"]},
            "Architecture": "amd64",
            "Os": "linux",
        }
    )
    assert found.id == "sha256:cc" and found.tags == ("localhost/a:1",) and found.entrypoint == ("/usr/bin/llama-server",)
    assert found.layers == ("sha256:1", "sha256:2")


def image(*layers):
    return engine.ImageState(id="sha256:" + "".join(layers), layers=layers)


@pytest.mark.parametrize(
    "present, missing",
    [
        ([], ("a", "b", "c")),
        ([image("a")], ("b", "c")),
        ([image("x"), image("a", "b", "z")], ("c",)),
        ([image("a", "b", "c")], ()),
        # The same layer on another chain is another layer to an engine
        ([image("x", "b", "c")], ("a", "b", "c")),
    ],
)
def test_missing_layers(present, missing):
    assert engine.missing_layers(present, ("a", "b", "c")) == missing


def test_an_image_is_found_by_config_or_manifest_digest():
    images = [image("a"), image("b")]
    assert engine.find_image(images, "", "sha256:b") is images[1]
    assert engine.find_image(images, "b") is images[1]
    assert engine.find_image(images, "sha256:c") is None


def test_a_registry_that_has_another_image():
    here = engine.ImageState("sha256:1", digests=(f"registry.example/a@sha256:{'2' * 64}", f"other.example/a@sha256:{'3' * 64}"))
    assert [here.is_behind(digest) for digest in (f"sha256:{'2' * 64}", f"sha256:{'3' * 64}", f"sha256:{'4' * 64}", "")] == [False, False, True, True]
    assert engine.ImageState("sha256:1").is_behind(f"sha256:{'2' * 64}")
