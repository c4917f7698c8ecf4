# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real registries for tests (Debian's docker-registry), with logins and certificates, and a proxy that breaks connections."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import parse_qs, urlsplit

import jwt
import support

USER, PASSWORD = "anna", "correct-horse"


def cosign() -> str:
    """cosign: the machine's own, else out of Debian 13's package, with an apt that knows that suite alone and touches nothing of the machine's."""
    found = shutil.which("cosign")
    if found:
        return found
    path = support.CACHE / "test-programs/cosign/usr/bin/cosign"
    if path.exists():
        return str(path)
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian"]
    mirrors = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert mirrors, "apt on this machine knows no Debian mirror; apt-get update makes its own known"
    target = support.CACHE / f"test-programs/cosign.{os.getpid()}"
    state = target / "apt"
    (state / "lists/partial").mkdir(parents=True)
    (state / "cache/archives/partial").mkdir(parents=True)
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {min(mirrors)} trixie main\n")
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    for words in (["update"], ["download", "cosign"]):
        subprocess.run([*apt, *words], cwd=target, check=True)
    (archive,) = target.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(archive), str(target)], check=True)
    archive.unlink()
    shutil.rmtree(state)
    target.rename(path.parents[2])
    return str(path)


def program() -> str:
    """docker-registry; out of Debian's package, which would start a service if it were installed."""
    found = shutil.which("docker-registry")
    if found:
        return found
    folder = support.CACHE / "test-programs"
    path = folder / "docker-registry/usr/bin/docker-registry"
    return str(path if path.exists() else support.debian_program("docker-registry", "usr/bin/docker-registry", folder))


class TokenServer:
    """Gives a registry's users tokens that it signs, as the specification of Docker's registries has it; the certificate of its key is in ``folder``.

    A token is good for ``seconds``; whoever asks is told ``told_seconds``, which may be a lie.
    """

    issuer, service = "tokens of a test", "registry of a test"

    def __init__(self, folder: Path, seconds: int = 300, told_seconds: int = 300, may_push: bool = True) -> None:
        self.seconds, self.told_seconds, self.may_push = seconds, told_seconds, may_push
        # The scopes of every token that was given
        self.given: list[tuple[str, ...]] = []
        folder.mkdir(parents=True, exist_ok=True)
        make_certificate(folder)
        self.certificate = folder / "cert.pem"
        self.key = (folder / "key.pem").read_bytes()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                query = parse_qs(urlsplit(self.path).query)
                known = self.headers.get("Authorization") == f"Basic {login}"
                good = known and query.get("service") == [outer.service]
                body = json.dumps(outer.token(query.get("scope", [])) if good else {"details": "incorrect username or password"}).encode()
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def token(self, scopes: list[str]) -> dict[str, Any]:
        access = []
        # One parameter with several, or one each
        for scope in " ".join(scopes).split():
            kind, name, actions = scope.rsplit(":", 2)
            access.append({"type": kind, "name": name, "actions": [action for action in actions.split(",") if self.may_push or action == "pull"]})
        now = int(time.time())
        # The registry takes a token for a minute longer than it says
        claims = {
            "iss": self.issuer,
            "aud": self.service,
            "sub": USER,
            "nbf": now - 60,
            "iat": now - 60,
            "exp": now - 60 + self.seconds,
            "jti": os.urandom(8).hex(),
        }
        chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).decode()]
        signed = jwt.encode({**claims, "access": access}, self.key, "RS256", {"x5c": chain})
        self.given.append(tuple(f"{entry['name']}:{','.join(entry['actions'])}" for entry in access))
        return {"token": signed, "expires_in": self.told_seconds}

    def __enter__(self) -> "TokenServer":
        return self

    def __exit__(self, *_dummy: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


class Registry:
    """One docker-registry on a free port of the loopback interface; its data lies below ``folder``.

    ``logins`` are its own, or those of the server that gives ``tokens`` for it.
    """

    def __init__(self, folder: Path, logins: bool = False, tls: bool = False, tokens: Optional[TokenServer] = None) -> None:
        self.folder = folder
        self.port = support.free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.scheme = "https" if tls else "http"
        folder.mkdir(parents=True, exist_ok=True)
        listen: dict[str, Any] = {"addr": self.host, "secret": "of no importance"}
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": listen,
        }
        self.ca = folder / "ca.pem"
        if logins:
            hashed = subprocess.run(["htpasswd", "-nBi", USER], input=PASSWORD, capture_output=True, text=True, check=True).stdout
            (folder / "htpasswd").write_text(hashed)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        if tokens is not None:
            config["auth"] = {
                "token": {
                    "realm": tokens.url,
                    "service": tokens.service,
                    "issuer": tokens.issuer,
                    "rootcertbundle": str(tokens.certificate.with_name("ca.pem")),
                }
            }
        if tls:
            make_certificate(folder)
            listen["tls"] = {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
        # YAML reads JSON
        (folder / "config.yml").write_text(json.dumps(config))
        self.auth_file = folder / "auth.json"
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self.auth_file.write_text(json.dumps({"auths": {self.host: {"auth": login}}} if logins or tokens is not None else {}))
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.start()

    def start(self) -> None:
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([program(), "serve", str(self.folder / "config.yml")], stdout=log, stderr=log)
        support.wait(self._answers, (OSError, ssl.SSLError), 20)

    def _answers(self) -> None:
        context = ssl.create_default_context(cafile=str(self.ca)) if self.scheme == "https" else None
        try:
            urllib.request.urlopen(f"{self.scheme}://{self.host}/v2/", timeout=5, context=context).close()
        except urllib.error.HTTPError as exc:
            assert exc.code == 401

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_dummy: Any) -> None:
        self.stop()

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def commits(self) -> list[str]:
        """The digests of the blobs that were uploaded whole, in their order."""
        return re.findall(r'"PUT /v2/[^"]*/blobs/uploads/[^"]*digest=sha256%3A([0-9a-f]{64})[^"]*" 201', self.log())

    def answers(self, method: str, status: int) -> int:
        """How often the registry answered so."""
        return len(re.findall(rf'"{method} /v2/[^"]*" {status} ', self.log()))

    def tag(self, repository: str, tag: str) -> str:
        """The digest that a tag links to in the registry's own storage; empty when there is none."""
        link = self.folder / f"data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link"
        return link.read_text() if link.is_file() else ""


def make_certificate(folder: Path, names: str = "IP:127.0.0.1") -> None:
    """A CA of this test in ca.pem, and a certificate of it in cert.pem and key.pem."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    # Since 3.13 Python wants of a CA that it says what for
    authority = ["-subj", "/CN=CA of a test", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", *authority)
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=server of a test")
    (folder / "names").write_text(f"subjectAltName={names}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "cert.pem")


class Proxy:
    """TCP in front of a registry. ``up`` and ``down`` see every piece with its offset in its connection; they return what goes on, or None to cut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.up: Callable[[bytes, int], Optional[bytes]] = lambda piece, _offset: piece
        self.down: Callable[[bytes, int], Optional[bytes]] = lambda piece, _offset: piece
        self.sent = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(50)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_dummy: Any) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._socket.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for source, sink, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._pump, args=(source, sink, way), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        offset = 0
        hard = False
        try:
            while True:
                piece = source.recv(65536)
                if not piece:
                    break
                changed = getattr(self, way)(piece, offset)
                if changed is None:
                    hard = True
                    break
                offset += len(piece)
                self.sent += len(piece) if way == "up" else 0
                sink.sendall(changed)
        except OSError:
            pass
        for end in (source, sink):
            try:
                if hard:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Wakes the thread that reads the other way: while it waits, the connection lives on, closed or not
                    end.shutdown(socket.SHUT_RD)
                    end.close()
                else:
                    end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def cut_after(count: int, times: int = 1) -> Callable[[bytes, int], Optional[bytes]]:
    """Cut the first connections that carried so many bytes."""
    left = [times]

    def change(piece: bytes, offset: int) -> Optional[bytes]:
        if offset + len(piece) > count and left[0]:
            left[0] -= 1
            return None
        return piece

    return change


def damage_at(position: int, times: int = 1) -> Callable[[bytes, int], Optional[bytes]]:
    """Turn one bit of the byte at a position of the first connections that carried so many."""
    left = [times]

    def change(piece: bytes, offset: int) -> Optional[bytes]:
        at = position - offset
        if 0 <= at < len(piece) and left[0]:
            left[0] -= 1
            return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        return piece

    return change


def damage_every(count: int) -> Callable[[bytes, int], Optional[bytes]]:
    """Turn one bit of every so manieth byte of every connection."""

    def change(piece: bytes, offset: int) -> Optional[bytes]:
        at = -offset % count
        if 0 < offset + at and at < len(piece):
            return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        return piece

    return change


def slow(seconds: float, every: int) -> Callable[[bytes, int], Optional[bytes]]:
    """Wait at every so many bytes."""

    def change(piece: bytes, offset: int) -> Optional[bytes]:
        if offset // every != (offset + len(piece)) // every:
            time.sleep(seconds)
        return piece

    return change


def environment(registry: Registry) -> dict[str, str]:
    """For skopeo and podman: the login of a registry."""
    return {**os.environ, "REGISTRY_AUTH_FILE": str(registry.auth_file)}
