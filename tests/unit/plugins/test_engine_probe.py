# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module container_engine_info against sockets that answer, refuse, talk nonsense or are not there."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.container_engine import Wishes
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import engine_probe


@contextlib.contextmanager
def listening(path, answer):
    """A UNIX socket that gives every client the same answer, or one by the path that it asks for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _address = server.accept()
                    with client:
                        asked = client.recv(65536).split()[1:2]
                        client.sendall(answer if isinstance(answer, bytes) else answer[asked[0].decode().partition("?")[0]])

        threading.Thread(target=serve, daemon=True).start()
        yield str(path)
        server.shutdown(socket.SHUT_RDWR)


def http(status, body):
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def observe(path, podman=(127, "", "not found")):
    return engine_probe.observe(Wishes(), str(path), lambda argv: podman if argv[0] == "podman" else (0, "", ""))["engine"]


@pytest.fixture(autouse=True)
def _programs(monkeypatch):
    monkeypatch.setattr(engine_probe, "_program", lambda name: name == "docker")


VERSION = '{"Version": "26.1.5+dfsg1", "ApiVersion": "1.45", "Platform": {"Name": ""}, "Components": [{"Name": "Engine"}]}'
INFO = '{"DockerRootDir": "/var/lib/docker", "Containers": 3, "Images": 2}'
CONTAINERS = '[{"Names": ["/llama"], "State": "running"}, {"Names": ["/qwen"], "State": "exited"}]'
ANSWERS = {"/version": http("200 OK", VERSION), "/info": http("200 OK", INFO), "/containers/json": http("200 OK", CONTAINERS)}


def test_docker_answers(tmp_path):
    with listening(tmp_path / "s", ANSWERS) as path:
        found = observe(path)
        everything = engine_probe.observe(Wishes(expected_services=("llama", "qwen")), path, lambda argv: (0, "", ""))
    assert found["name"] == "docker" and found["version"] == "26.1.5+dfsg1" and found["answers"] and found["socket"] == path
    assert (found["data_root"], found["containers"], found["images"]) == ("/var/lib/docker", 3, 2)
    assert (everything["running_services"], everything["services_down"]) == (["llama"], ["qwen"])


@pytest.mark.parametrize(("live_restore", "expected"), [(False, ["job", "web"]), (True, [])])
def test_what_a_restart_would_stop_for_good(tmp_path, live_restore, expected):
    def inspected(name, policy):
        return http("200 OK", json.dumps({"Name": f"/{name}", "HostConfig": {"RestartPolicy": {"Name": policy}}}))

    answers = {
        **ANSWERS,
        "/info": http("200 OK", json.dumps({"LiveRestoreEnabled": live_restore})),
        "/containers/json": http("200 OK", json.dumps([{"Id": key, "Names": [f"/{key}"], "State": "running"} for key in "abcd"])),
        "/containers/a/json": inspected("web", "no"),
        "/containers/b/json": inspected("llama", "unless-stopped"),
        "/containers/c/json": inspected("job", "on-failure"),
        # It ended meanwhile
        "/containers/d/json": http("404 Not Found", "{}"),
    }
    with listening(tmp_path / "s", answers) as path:
        assert engine_probe.observe(Wishes(name="docker"), path, lambda argv: (0, "", ""), restart=True)["lost_by_restart"] == expected
        assert engine_probe.observe(Wishes(name="docker"), path, lambda argv: (0, "", ""))["lost_by_restart"] == []
    with pytest.raises(AikitError, match="cannot be asked.*Nothing was restarted"):
        engine_probe.observe(Wishes(name="docker"), str(tmp_path / "none"), lambda argv: (0, "", ""), restart=True)


def test_podman_on_dockers_socket(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_probe, "_program", lambda name: name == "podman")
    answer = http("200 OK", json.dumps({"Version": "5.4.2", "Platform": {"Name": "linux/amd64/debian-13"}, "Components": [{"Name": "Podman Engine"}]}))
    with listening(tmp_path / "s", {**ANSWERS, "/version": answer}) as path:
        assert observe(path, (0, "5.4.2\n", ""))["name"] == "podman"


def test_what_podman_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_probe, "_program", lambda name: name == "podman")
    store = {"store": {"graphRoot": "/var/lib/containers/storage", "containerStore": {"number": 1}, "imageStore": {"number": 4}}}
    answers = {"version": (0, "5.4.2\n", ""), "info": (0, json.dumps(store), "")}

    def run(argv):
        return answers.get(argv[1], (0, "", ""))

    found = engine_probe.observe(Wishes(), str(tmp_path / "s"), run, storage=True)["engine"]
    assert (found["data_root"], found["containers"], found["images"]) == ("/var/lib/containers/storage", 1, 4)
    answers["info"] = (125, "", "cannot open\n")
    assert "podman info fails: cannot open" in engine_probe.observe(Wishes(), str(tmp_path / "s"), run, storage=True)["engine"]["problem"]


@pytest.mark.parametrize(
    ("program", "output", "expected"),
    [
        ("dpkg-query", "ii  docker.io 26.1.5+dfsg1-9+b9\nrc  containerd 1.7.24\nun  runc \n", {"docker.io": "26.1.5+dfsg1-9+b9"}),
        ("rpm", "package docker.io is not installed\nii  docker-ce 29.1.0-1.el9\n", {"docker-ce": "29.1.0-1.el9"}),
        ("neither", "", {}),
    ],
)
def test_installed_packages(monkeypatch, program, output, expected):
    monkeypatch.setattr(engine_probe.shutil, "which", lambda name, path=None: f"/usr/bin/{name}" if name == program else None)
    asked = []

    def run(argv):
        asked.append(argv[0])
        return (1, output, "")

    assert engine_probe._installed(run) == expected
    assert asked == ([program] if expected else [])


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (http("503 Service Unavailable", "{}"), "answers with status 503"),
        (http("200 OK", "hello"), "does not answer"),
        (http("200 OK", "[]"), "does not answer"),
        (http("200 OK", "{}"), "does not answer"),
        (b"\0\1\2\n", "does not answer"),
        (b"", "does not answer"),
    ],
)
def test_something_else_answers(tmp_path, answer, problem):
    with listening(tmp_path / "s", answer) as path:
        found = observe(path)
    assert not found["answers"] and problem in found["problem"] and found["hint"]


def test_nobody_listens(tmp_path):
    assert "does not exist" in observe(tmp_path / "s")["problem"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "dead"))
    assert "Connection refused" in observe(tmp_path / "dead")["problem"]


def test_podman(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_probe, "_program", lambda name: name == "podman")
    assert observe(tmp_path / "s", (0, "5.4.2\n", ""))["version"] == "5.4.2"
    assert "podman version fails: broken" in observe(tmp_path / "s", (125, "", "broken\n"))["problem"]
