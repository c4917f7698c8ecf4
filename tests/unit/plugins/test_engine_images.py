# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engines are asked besides containers: where they keep images, and files of images."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils import _module
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import Room
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import engine as engines


class Client:
    """Docker's SDK, as far as it is used here."""

    base_url, api_version = "http+docker://localhost", "1.41"

    def __init__(self, info: dict[str, Any], archive: Optional[bytes] = b"") -> None:
        self._info = info
        self.removed = False
        self.archive = archive
        self.read = 0

    def info(self) -> dict[str, Any]:
        return self._info

    def create_container(self, *_words: Any, **_more: Any) -> dict[str, str]:
        return {"Id": "c1"}

    def get(self, url: str, **_more: Any) -> "Answer":
        assert url == "http+docker://localhost/v1.41/containers/c1/archive"
        self.answer = Answer(self)
        return self.answer

    def inspect_container(self, _name: str) -> dict[str, Any]:
        return {"Id": "c1"}

    def remove_container(self, _name: str, **_more: Any) -> None:
        # The daemon would wait for somebody to read the rest
        assert self.answer.closed
        self.removed = True


class Answer:
    """A tar archive that comes in pieces."""

    def __init__(self, client: Client) -> None:
        self._client, self.closed = client, False
        self.status_code = 404 if client.archive is None else 200

    def raise_for_status(self) -> None:
        assert self.status_code == 200

    def iter_content(self, _size: int) -> Iterator[bytes]:
        for start in range(0, len(self._client.archive or b""), 10240):
            self._client.read += 1
            yield self._client.archive[start : start + 10240]

    def close(self) -> None:
        self.closed = True


def docker(client: Client, url: str = "unix:///var/run/docker.sock") -> engines.DockerEngine:
    made = engines.DockerEngine.__new__(engines.DockerEngine)
    made._client, made._url = client, url
    return made


CONTAINERD = [["driver-type", "io.containerd.snapshotter.v1"]]


def test_where_docker_keeps_images(tmp_path: Path) -> None:
    info = {"DockerRootDir": str(tmp_path), "DriverStatus": [["Backing Filesystem", "extfs"]]}
    # This may be a container with the socket of its host, where a folder of that name means nothing
    assert docker(Client(info)).rooms() == ()
    (tmp_path / "containers").mkdir()
    assert docker(Client(info)).rooms() == (Room(str(tmp_path), 2),)
    assert docker(Client(info), "tcp://builder:2376").rooms() == docker(Client(info), "ssh://builder").rooms() == ()
    assert docker(Client({})).rooms() == ()


def test_where_docker_keeps_images_in_containerd(tmp_path: Path) -> None:
    info = {"DockerRootDir": str(tmp_path), "DriverStatus": CONTAINERD}
    (tmp_path / "containerd/daemon/io.containerd.content.v1.content").mkdir(parents=True)
    assert docker(Client(info)).rooms() == (Room(f"{tmp_path}/containerd/daemon", 2),)


@pytest.mark.parametrize(("remote", "rooms"), [(False, ["graph", "tmp"]), (True, [])])
def test_where_podman_keeps_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool, rooms: list[str]) -> None:
    for name in ("graph", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    info = {"store": {"graphRoot": str(tmp_path / "graph")}, "host": {"serviceIsRemote": remote}}
    monkeypatch.setattr(engines.PodmanEngine, "_run", staticmethod(lambda *words: json.dumps(info) if words == ("info", "--format", "json") else ""))
    made = engines.PodmanEngine.__new__(engines.PodmanEngine)
    assert made.rooms() == tuple(Room(str(tmp_path / name), 1) for name in rooms)


def archive(*members: tarfile.TarInfo, content: bytes = b"") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as writer:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            writer.addfile(member, io.BytesIO(content))
    return made.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def test_a_file_of_an_image() -> None:
    assert docker(Client({}, archive(member("config.yaml"), content=b"- name: a\n"))).image_file("i", "/config.yaml") == b"- name: a\n"
    assert docker(Client({}, b"")).image_file("i", "/config.yaml") is None
    assert docker(Client({}, None)).image_file("i", "/config.yaml") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(member("models", tarfile.DIRTYPE), member("models/a.gguf"), content=b"x" * (1 << 20)), "/x of i is a folder"),
        (archive(member("x", tarfile.SYMTYPE, "/y")), "/x of i is a link to /y"),
        (archive(member("x", tarfile.FIFOTYPE)), "is no regular file"),
        (archive(member("x"), content=b"x" * (engines.FILE_MAX_BYTES + 1)), "has 1048577 bytes"),
    ],
)
def test_what_is_no_small_file_is_refused_before_it_is_read(data: bytes, words: str) -> None:
    client = Client({}, data)
    with pytest.raises(AikitError, match=words):
        docker(client).image_file("i", "/x")
    assert client.read <= 2 and client.removed


def test_the_head_of_a_large_file_leaves_the_rest_unread() -> None:
    client = Client({}, archive(member("m.gguf"), content=b"GGUF" + bytes(1 << 20)))
    assert docker(client).image_head("i", "/m.gguf", lambda read, size: (read(4), size)) == (b"GGUF", 4 + (1 << 20))
    assert client.read <= 2 and client.removed


REF = "registry.example:5000/a@sha256:" + "1" * 64


@pytest.mark.parametrize("login", [None, ("anna", "s3cret")])
def test_docker_pulls_with_a_login_in_a_header(monkeypatch: pytest.MonkeyPatch, login: Any) -> None:
    calls = []

    class Puller:
        api: Any = None
        events: list[dict[str, str]] = [{"status": "Pulling"}]

        def pull(self, *words: Any, **more: Any) -> Any:
            calls.append((words, more))
            return self.events

        def close(self) -> None:
            calls.append("closed")

    puller = Puller()
    puller.api = puller
    monkeypatch.setattr(engines.docker, "from_env", lambda **_more: puller)
    docker(Client({})).pull(REF, login)
    auth = {"username": "anna", "password": "s3cret"} if login else None
    assert calls == [(("registry.example:5000/a",), {"tag": "sha256:" + "1" * 64, "stream": True, "decode": True, "auth_config": auth}), "closed"]
    calls.clear()
    docker(Client({})).pull("registry.example:5000/a:1", login)
    assert calls[0][0] == ("registry.example:5000/a",) and calls[0][1]["tag"] == "1"
    puller.events = [{"error": "manifest unknown\n"}]
    with pytest.raises(AikitError, match="Docker could not pull .*manifest unknown"):
        docker(Client({})).pull(REF, login)


@pytest.mark.parametrize(
    "answer, told",
    [({"Descriptor": {"digest": "sha256:" + "2" * 64}}, "sha256:" + "2" * 64), ({}, ""), ({"Descriptor": None}, ""), (engines.DockerException("no"), "")],
)
def test_docker_tells_what_a_registry_has(answer: Any, told: str) -> None:
    calls = []

    class Distribution(Client):
        def inspect_distribution(self, *words: Any, **more: Any) -> Any:
            calls.append((words, more))
            if isinstance(answer, Exception):
                raise answer
            return answer

    made = docker(Distribution({}))
    assert made.remote_digest("registry.example:5000/a:1", ("anna", "s3cret")) == told and made.remote_digest("a:1") == told
    assert calls == [(("registry.example:5000/a:1",), {"auth_config": {"username": "anna", "password": "s3cret"}}), (("a:1",), {"auth_config": None})]


def test_podman_pulls_with_a_login_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[str, ...], Any]] = []
    made = engines.PodmanEngine.__new__(engines.PodmanEngine)

    def run(*words: str, **_more: Any) -> str:
        path = words[words.index("--authfile") + 1] if "--authfile" in words else None
        calls.append((words, json.loads(Path(path).read_text()) if path else None))
        return ""

    monkeypatch.setattr(made, "_run", run)
    assert made.remote_digest("registry.example:5000/a:1", ("anna", "s3cret")) == "" and not calls
    made.pull(REF)
    made.pull("127.0.0.1:5000/a@sha256:" + "1" * 64)
    made.pull(REF, ("anna", "s3cret"))
    assert calls[0] == (("pull", "--quiet", REF), None) and "--tls-verify=false" in calls[1][0]
    assert calls[2][1] == {"auths": {"registry.example:5000": {"auth": "YW5uYTpzM2NyZXQ="}}} and not any("s3cret" in word for word in calls[2][0])
    assert not Path(calls[2][0][3]).exists()


# What the SDK says of a socket that belongs to root, to a user that is none
DENIED = "Error while fetching server API version: ('Connection aborted.', PermissionError(13, 'Permission denied'))"


def test_a_user_who_may_not_use_docker_is_told_to_become_root(monkeypatch):
    def refuse(**_more):
        raise engines.DockerException(DENIED)

    monkeypatch.setattr(engines.docker, "from_env", refuse)
    with pytest.raises(AikitError, match="may not be used by this user. Set ansible_become: true for this host"):
        engines.open_engine("docker")


@pytest.mark.parametrize(
    "error, user, message",
    [
        (PermissionError(13, "Permission denied", "/var/lib/x"), 1000, "Permission denied: /var/lib/x. Set ansible_become: true for this host"),
        # Root becomes nobody who may more
        (PermissionError(13, "Permission denied", "/var/lib/x"), 0, "Permission denied: /var/lib/x"),
        (OSError(28, "No space left on device", "/var/lib/x"), 1000, "No space left on device: /var/lib/x"),
        (OSError("no name"), 1000, "no name"),
    ],
)
def test_what_a_user_may_not_do_names_the_way_out(monkeypatch, error, user, message):
    told = {}

    class Module:
        params: dict = {}

        def __init__(self, **_arguments):
            pass

        def fail_json(self, **result):
            told.update(result)
            raise SystemExit

    def work(_module):
        raise error

    monkeypatch.setattr(_module, "AnsibleModule", Module)
    monkeypatch.setattr(_module.os, "geteuid", lambda: user)
    with pytest.raises(SystemExit):
        _module.run_module(work)
    assert told["msg"].startswith(message) and ("become" in told["msg"]) == ("become" in message) == bool(told["hint"])
