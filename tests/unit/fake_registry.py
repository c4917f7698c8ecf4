# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container registry in memory that follows the distribution specification, and breaks it where a test wants that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FakeRegistry:
    """``faults`` are asked before every request, in their order: ``fault(handler)`` answers it and returns true, or lets it pass.

    ``user`` and ``password`` switch basic authentication on, ``tokens`` lets a token server of its own stand before it.
    """

    def __init__(self, user="", password="", tokens=False, token_seconds=300, min_chunk=0, keep_partial=True, certificate=None):
        self.blobs = {}
        self.manifests = {}
        self.uploads = {}
        self.requests = []
        self.faults = []
        self.user, self.password = user, password
        self.tokens = tokens
        self.token_seconds = token_seconds
        self.min_chunk = min_chunk
        self.keep_partial = keep_partial
        self.issued = {}
        self.received = 0
        self.lock = threading.Lock()
        registry = self

        class Handler(_Handler):
            owner = registry

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *dummy):
        self.server.shutdown()
        self.server.server_close()

    @property
    def host(self):
        return f"127.0.0.1:{self.server.server_address[1]}"

    def seen(self, method="", part=""):
        return [(verb, path) for verb, path in self.requests if (not method or verb == method) and part in path]

    # --- content

    def put_blob(self, repository, data):
        self.blobs.setdefault(repository, {})[sha256(data)] = data
        return {"digest": sha256(data), "size": len(data)}

    def put_manifest(self, repository, reference, document, media_type=MANIFEST):
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        stored = self.manifests.setdefault(repository, {})
        stored[sha256(raw)] = stored[reference] = (media_type, raw)
        return {"mediaType": media_type, "digest": sha256(raw), "size": len(raw)}

    def put_image(self, repository, reference, layers, config=None, platform=("linux", "amd64"), media_type=LAYER, diff_ids=None):
        """An image of layers (bytes); its descriptor."""
        document = {
            "os": platform[0],
            "architecture": platform[1],
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [sha256(layer) for layer in layers]},
        }
        raw = json.dumps(document).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **self.put_blob(repository, raw)},
            "layers": [{"mediaType": media_type, **self.put_blob(repository, layer)} for layer in layers],
        }
        return self.put_manifest(repository, reference, manifest)

    def put_index(self, repository, reference, images):
        """An index of ``{platform: descriptor}``."""
        manifests = [{**descriptor, "platform": dict(zip(("os", "architecture", "variant"), platform.split("/")))} for platform, descriptor in images.items()]
        return self.put_manifest(repository, reference, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FakeRegistry
    timeout = 20

    def log_message(self, *dummy):
        pass

    def handle(self):
        try:
            super().handle()
        except (OSError, ssl.SSLError):
            pass

    # --- answers

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code="UNKNOWN", message="", headers=None):
        self.close_connection = True
        self.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), {"Connection": "close", **(headers or {})})

    def cut(self):
        """End the connection as a broken network does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        raise ConnectionResetError

    def body(self, limit=None):
        left = int(self.headers.get("Content-Length") or 0)
        left = left if limit is None else min(left, limit)
        found = bytearray()
        while left:
            piece = self.rfile.read(min(65536, left))
            if not piece:
                break
            found += piece
            left -= len(piece)
        with self.owner.lock:
            self.owner.received += len(found)
        return bytes(found)

    # --- requests

    def serve(self):
        owner = self.owner
        with owner.lock:
            owner.requests.append((self.command, self.path))
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.route = parts.path
        for fault in list(owner.faults):
            if fault(self):
                return
        if parts.path == "/token":
            self.token()
            return
        if not self.allowed():
            return
        if parts.path == "/v2/":
            self.answer(200, b"{}")
            return
        for pattern, method in (
            (r"/v2/(.+)/manifests/([^/]+)", self.manifest),
            (r"/v2/(.+)/blobs/uploads/", self.begin),
            (r"/v2/(.+)/blobs/uploads/([^/]+)", self.upload),
            (r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", self.blob),
        ):
            found = re.fullmatch(pattern, parts.path)
            if found:
                method(*found.groups())
                return
        self.refuse(404, "NOT_FOUND")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve

    def basic(self):
        scheme, _blank, value = (self.headers.get("Authorization") or "").partition(" ")
        return scheme == "Basic" and base64.b64decode(value).decode() == f"{self.owner.user}:{self.owner.password}"

    def allowed(self):
        owner = self.owner
        if not owner.user and not owner.tokens:
            return True
        if owner.tokens:
            value = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            until, scopes = owner.issued.get(value, (0, ()))
            if until > time.monotonic():
                name = re.match(r"/v2/(.+)/(?:manifests|blobs)/", self.route)
                action = "pull" if self.command in ("GET", "HEAD") and "/uploads/" not in self.route else "push"
                if name is None or any(scope.startswith(f"repository:{name.group(1)}:") and action in scope.rpartition(":")[2].split(",") for scope in scopes):
                    return True
            challenge = f'Bearer realm="{owner.scheme}://{owner.host}/token",service="fake registry"'
        elif self.basic():
            return True
        else:
            challenge = 'Basic realm="fake"'
        self.body()
        self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}', {"WWW-Authenticate": challenge})
        return False

    def token(self):
        owner = self.owner
        if self.command == "POST":
            form = {key: values[0] for key, values in parse_qs(self.body().decode()).items()}
            if form.get("refresh_token") != owner.password:
                self.refuse(401, "UNAUTHORIZED", "bad refresh token")
                return
            scopes = form["scope"].split()
        else:
            if owner.user and not self.basic():
                self.refuse(401, "UNAUTHORIZED", "incorrect username or password")
                return
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
        value = uuid.uuid4().hex
        owner.issued[value] = (time.monotonic() + owner.token_seconds, tuple(scopes))
        self.answer(200, json.dumps({"token": value, "expires_in": 300}).encode(), {"Content-Type": "application/json"})

    def manifest(self, repository, reference):
        stored = self.owner.manifests.get(repository, {})
        if self.command == "PUT":
            stored = self.owner.manifests.setdefault(repository, {})
            raw = self.body()
            document = json.loads(raw)
            blobs = self.owner.blobs.get(repository, {})
            wanted = [entry["digest"] for entry in (document.get("config"), *document.get("layers", ())) if entry]
            missing = [digest for digest in wanted if digest not in blobs]
            missing += [entry["digest"] for entry in document.get("manifests", ()) if entry["digest"] not in stored]
            if missing:
                self.refuse(400, "MANIFEST_BLOB_UNKNOWN", f"{missing[0]} is not here")
                return
            stored[sha256(raw)] = stored[reference] = (self.headers["Content-Type"], raw)
            self.answer(201, b"", {"Docker-Content-Digest": sha256(raw), "Location": f"/v2/{repository}/manifests/{reference}"})
            return
        if reference not in stored:
            self.refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        media_type, raw = stored[reference]
        self.answer(200, raw, {"Content-Type": media_type, "Docker-Content-Digest": sha256(raw)})

    def blob(self, repository, digest):
        data = self.owner.blobs.get(repository, {}).get(digest)
        if data is None:
            self.refuse(404, "BLOB_UNKNOWN", "blob unknown")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted:
            start = int(wanted.group(1))
            self.answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
            return
        self.answer(200, data, {"Docker-Content-Digest": digest})

    def begin(self, repository):
        self.body()
        digest, source = self.query.get("mount"), self.query.get("from")
        if digest and digest in self.owner.blobs.get(source, {}):
            self.owner.blobs.setdefault(repository, {})[digest] = self.owner.blobs[source][digest]
            self.answer(201, b"", {"Location": f"/v2/{repository}/blobs/{digest}"})
            return
        name = uuid.uuid4().hex
        self.owner.uploads[name] = bytearray()
        extra = {"OCI-Chunk-Min-Length": str(self.owner.min_chunk)} if self.owner.min_chunk else {}
        self.answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/{name}?state=0", "Range": "0-0", **extra})

    def upload(self, repository, name):
        data = self.owner.uploads.get(name)
        if data is None:
            self.body()
            self.refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
            return
        location = {"Location": f"/v2/{repository}/blobs/uploads/{name}?state={len(data)}"}
        if self.command == "GET":
            self.answer(204, b"", {**location, "Range": f"0-{max(0, len(data) - 1)}"})
        elif self.command == "PATCH":
            start = int((self.headers.get("Content-Range") or f"{len(data)}-").partition("-")[0])
            if start != len(data):
                self.body()
                self.answer(416, b"", {**location, "Range": f"0-{max(0, len(data) - 1)}"})
                return
            self.take(data)
            self.answer(202, b"", {"Location": f"/v2/{repository}/blobs/uploads/{name}?state={len(data)}", "Range": f"0-{len(data) - 1}"})
        elif self.command == "PUT":
            data += self.body()
            digest = self.query["digest"]
            del self.owner.uploads[name]
            if sha256(bytes(data)) != digest:
                self.refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
                return
            self.owner.blobs.setdefault(repository, {})[digest] = bytes(data)
            self.answer(201, b"", {"Docker-Content-Digest": digest, "Location": f"/v2/{repository}/blobs/{digest}"})
        else:
            del self.owner.uploads[name]
            self.answer(204)

    def take(self, data):
        """The bytes of a chunk, as they come: what came before a cut may be kept."""
        left = int(self.headers.get("Content-Length") or 0)
        arrived = bytearray()
        while left:
            piece = self.rfile.read(min(65536, left))
            if not piece:
                break
            left -= len(piece)
            arrived += piece
            with self.owner.lock:
                self.owner.received += len(piece)
            if self.owner.keep_partial:
                data += piece
        if not self.owner.keep_partial and not left:
            data += arrived


def once(condition, action, times=1):
    """A fault for the first requests that ``condition(handler)`` holds for."""
    left = [times]
    lock = threading.Lock()

    def fault(handler):
        with lock:
            if not left[0] or not condition(handler):
                return False
            left[0] -= 1
        action(handler)
        return True

    return fault


def is_(method, part):
    return lambda handler: handler.command == method and part in handler.path
