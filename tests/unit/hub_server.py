# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for the Hugging Face hub, in the shape of its API's answers: repositories, commits, LFS files that lie with a CDN."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Mapping, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page, Seen

LFS_SUFFIXES = (".gguf", ".safetensors", ".bin")


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """``commits`` has the files of each commit, ``branches`` where the names point."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    # "" for all; gated: shown, and read with this token alone; private: not even shown without it
    gated: str = ""
    private: str = ""

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        text = json.dumps([branch, len(self.commits), sorted((name, git_id(data)) for name, data in files.items())])
        made = hashlib.sha1(text.encode()).hexdigest()
        self.commits[made] = dict(files)
        self.branches[branch] = made
        return made

    def find(self, revision: str) -> Optional[str]:
        return revision if revision in self.commits else self.branches.get(revision)


class HubServer:
    """Listens on a free port of 127.0.0.1; ``cdn`` is the server that it redirects to for LFS files."""

    def __init__(self, page_size: int = 1000) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renamed: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.cdn = ModelServer()
        self.page_size = page_size
        # Small files come by way of a cache of the hub's own, as since 2025
        self.resolve_cache = False
        self.head_allowed = True
        # The address in Link headers, as a mirror that passes the hub's own on
        self.link_host = ""
        # Answer with these first
        self.statuses: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *dummy: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *dummy: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.cdn.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repository(self, name: str, files: Mapping[str, bytes], **options: Any) -> Repository:
        made = self.repositories.setdefault(name, Repository(**options))
        made.commit(files)
        return made

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {key.lower(): value for key, value in handler.headers.items()}
        seen = Seen(handler.command, handler.path, headers)
        self.seen.append(seen)
        if self.statuses:
            status, extra, body = self.statuses.pop(0), {"Retry-After": "0"}, b"busy"
        else:
            status, extra, body = self._choose(handler.command, handler.path, headers)
        seen.status = status
        handler.send_response(status)
        for key, value in extra.items():
            handler.send_header(key, value)
        if "Content-Length" not in extra:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def _choose(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(path)
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        if method == "HEAD" and not self.head_allowed:
            return 405, {}, b""
        if words[:2] == ["api", "models"] and len(words) >= 6 and words[4] in ("revision", "tree"):
            name, action, revision = "/".join(words[2:4]), words[4], words[5]
        elif words[:2] == ["api", "models"] and len(words) == 4:
            name, action, revision = "/".join(words[2:4]), "revision", "main"
        elif words[:3] == ["api", "resolve-cache", "models"]:
            return self._file("/".join(words[3:5]), words[5], "/".join(words[6:]), headers, cached=True)
        elif len(words) > 4 and words[2] == "resolve":
            return self._file("/".join(words[:2]), words[3], "/".join(words[4:]), headers)
        else:
            return 404, {}, b"<!doctype html>"
        repository, refused = self._open(name, revision, headers)
        if repository is None:
            return refused
        commit = repository.find(revision)
        assert commit
        if action == "revision":
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            return self._json(
                {"_id": "0", "id": name, "modelId": name, "sha": commit, "gated": "auto" if repository.gated else False, "siblings": siblings}
            )
        return self._tree(name, repository.commits[commit], commit, parse_qs(parts.query))

    def _tree(self, name: str, files: Mapping[str, bytes], commit: str, query: Mapping[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        assert query["recursive"] == ["true"]
        entries: list[dict[str, Any]] = []
        for folder in sorted({path.rpartition("/")[0] for path in files if "/" in path}):
            entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": folder})
        for path, data in sorted(files.items()):
            entry: dict[str, Any] = {"type": "file", "oid": git_id(data), "size": len(data), "path": path}
            if path.endswith(LFS_SUFFIXES):
                entry["oid"] = git_id(b"version https://git-lfs")
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
                entry["xetHash"] = "1" * 64
            entries.append(entry)
        start = int(query.get("cursor", ["0"])[0])
        extra = {}
        if start + self.page_size < len(entries):
            following = f"{self.link_host or self.url}/api/models/{name}/tree/{commit}?recursive=true&cursor={start + self.page_size}"
            extra["Link"] = f'<{following}>; rel="next"'
        return self._json(entries[start : start + self.page_size], extra)

    def _file(self, name: str, revision: str, path: str, headers: Mapping[str, str], cached: bool = False) -> tuple[int, dict[str, str], bytes]:
        if name in self.renamed:
            return 307, {"Location": f"/{self.renamed[name]}/resolve/{revision}/{path}"}, b""
        repository, refused = self._open(name, revision, headers, read=True)
        if repository is None:
            return refused
        commit = repository.find(revision)
        assert commit
        data = repository.commits[commit].get(path)
        if data is None:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        extra = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path.endswith(LFS_SUFFIXES):
            digest = hashlib.sha256(data).hexdigest()
            self.cdn.pages.setdefault(f"/xet/{digest}", Page(data, etag=f'"{digest}"'))
            target = f"{self.cdn.url}/xet/{digest}?X-Amz-Signature=s3cr3tsignature"
            return 302, {**extra, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"', "Location": target}, b"Found. Redirecting"
        if self.resolve_cache and not cached:
            return 307, {**extra, "Location": f"/api/resolve-cache/models/{name}/{commit}/{path}?etag=%22{git_id(data)}%22"}, b""
        return 200, {**extra, "ETag": f'"{git_id(data)}"'}, data

    def _open(
        self, name: str, revision: str, headers: Mapping[str, str], read: bool = False
    ) -> tuple[Optional[Repository], tuple[int, dict[str, str], bytes]]:
        repository = self.repositories.get(name)
        token = headers.get("authorization", "").partition("Bearer ")[2]
        if repository is None or (repository.private and token != repository.private):
            if token:
                return None, self._error(404, "RepoNotFound", "Repository not found")
            return None, self._error(401, "RepoNotFound", "Invalid username or password.")
        if read and repository.gated and token != repository.gated:
            said = f"Access to model {name} is restricted" + (
                " and you are not in the authorized list." if token else ". You must be authenticated to access it."
            )
            return None, self._error(403 if token else 401, "GatedRepo", said)
        if repository.find(revision) is None:
            return None, self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, (0, {}, b"")

    @staticmethod
    def _json(value: Any, extra: Optional[dict[str, str]] = None) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json; charset=utf-8", **(extra or {})}, json.dumps(value).encode()

    @staticmethod
    def _error(status: int, code: str, message: str, extra: Optional[dict[str, str]] = None) -> tuple[int, dict[str, str], bytes]:
        return status, {"X-Error-Code": code, "X-Error-Message": message, **(extra or {})}, json.dumps({"error": message}).encode()
