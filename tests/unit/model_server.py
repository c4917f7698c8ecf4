# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A web server for tests of downloads, with the habits of good servers and of bad ones."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional


@dataclass
class Page:
    """One file and how it is served. Numbers in lists are used up, one per GET request."""

    data: bytes = b""
    etag: str = '"one"'
    last_modified: str = ""
    ranges: bool = True
    # Close the connection after so many bytes of the body.
    cuts: list[int] = field(default_factory=list)
    # Answer with these first.
    statuses: list[int] = field(default_factory=list)
    retry_after: str = ""
    location: str = ""
    token: str = ""
    # What Content-Length says instead of the truth; -1: no length at all.
    length: Optional[int] = None
    chunked: bool = False
    head: int = 200
    encoding: str = ""
    # Take no notice of If-Range and If-None-Match.
    careless: bool = False
    # Content-Range without the size of the whole
    no_total: bool = False
    # After each piece of 64 KiB, to have time for a kill.
    pause_seconds: float = 0.0


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0


class ModelServer:
    """Listens on a free port of 127.0.0.1; ``pages`` by path, ``seen`` has the requests."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.seen: list[Seen] = []
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
                """Clients that go away are what is tested."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def gets(self) -> list[Seen]:
        return [request for request in self.seen if request.method == "GET"]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {key.lower(): value for key, value in handler.headers.items()}
        seen = Seen(handler.command, handler.path, headers)
        self.seen.append(seen)
        page = self.pages.get(handler.path.partition("?")[0])
        status, extra, body = self._choose(page, handler.command, headers)
        seen.status = status
        handler.send_response(status)
        for key, value in extra.items():
            handler.send_header(key, value)
        length = len(body)
        if page and page.length is not None and status == 200:
            length = page.length
        chunked = bool(page and page.chunked and status == 200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        elif length >= 0:
            handler.send_header("Content-Length", str(length))
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if handler.command == "HEAD":
            return
        cut = page.cuts.pop(0) if page and page.cuts and status in (200, 206) else None
        self._send(handler, body if cut is None else body[:cut], chunked, page.pause_seconds if page else 0.0)
        if cut is not None or length != len(body):
            handler.close_connection = True
        elif chunked:
            handler.wfile.write(b"0\r\n\r\n")

    def _choose(self, page: Optional[Page], method: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if page is None:
            return 404, {}, b"no"
        if page.token and headers.get("authorization") != f"Bearer {page.token}":
            return 401, {"WWW-Authenticate": 'Basic realm="models"'}, b"who are you"
        if method == "HEAD" and page.head != 200:
            return page.head, {}, b""
        if page.statuses and method == "GET":
            status = page.statuses.pop(0)
            return status, {"Retry-After": page.retry_after} if page.retry_after else {}, b"busy"
        if page.location:
            return 302, {"Location": page.location}, b""
        extra = {"ETag": page.etag, "Last-Modified": page.last_modified, "Content-Encoding": page.encoding}
        extra = {key: value for key, value in extra.items() if value}
        if not page.careless and page.etag and headers.get("if-none-match") == page.etag:
            return 304, extra, b""
        wanted = headers.get("range", "")
        same = page.careless or headers.get("if-range", page.etag) in (page.etag, page.last_modified)
        if wanted and page.ranges and same:
            first, dummy, last = wanted[len("bytes=") :].partition("-")
            start = int(first)
            if start >= len(page.data):
                return 416, {"Content-Range": f"bytes */{len(page.data)}"}, b""
            body = page.data[start : int(last) + 1] if last else page.data[start:]
            extra["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{'*' if page.no_total else len(page.data)}"
            return 206, extra, body
        return 200, extra, page.data

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, body: bytes, chunked: bool, pause_seconds: float) -> None:
        step = 65536
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if pause_seconds:
                handler.wfile.flush()
                time.sleep(pause_seconds)
