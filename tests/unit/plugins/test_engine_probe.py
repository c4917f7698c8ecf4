# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module container_engine_info against sockets that answer, refuse, talk nonsense or are not there."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._io import engine_probe


@contextlib.contextmanager
def listening(path, answer):
    """A UNIX socket that gives every client the same answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _address = server.accept()
                    with client:
                        client.recv(65536)
                        client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield str(path)
        server.shutdown(socket.SHUT_RDWR)


def http(status, body):
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def observe(path, podman=(127, "", "not found")):
    return engine_probe.observe("auto", str(path), lambda argv: podman)["engine"]


@pytest.fixture(autouse=True)
def _programs(monkeypatch):
    monkeypatch.setattr(engine_probe, "_program", lambda name: name == "docker")


def test_docker_answers(tmp_path):
    with listening(tmp_path / "s", http("200 OK", '{"Version": "26.1.5+dfsg1", "ApiVersion": "1.45"}')) as path:
        found = observe(path)
    assert found["name"] == "docker" and found["version"] == "26.1.5+dfsg1" and found["answers"] and found["socket"] == path


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
