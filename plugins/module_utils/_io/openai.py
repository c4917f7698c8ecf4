# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An OpenAI-compatible server over HTTP: what it says, as it says it. Proxies from the environment are not used."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from typing import Any, Callable, Iterator, Optional
from urllib.parse import urlsplit

from .._core.check import Reply
from .._core.errors import AikitError

_BODY_LIMIT = 4 * 1024 * 1024
_LINE_LIMIT = 1024 * 1024


class Refused(Exception):
    """The server did not give a completion; ``reply`` is what it gave."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.error or f"HTTP {reply.status}")
        self.reply = reply


class Client:
    """One server. Every call opens a connection of its own: a server that restarts in between is no special case."""

    def __init__(self, url: str, api_key: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise AikitError(f"{url} is no URL: {exc}.", "Write it like http://127.0.0.1:8080.") from exc
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AikitError(f"{url} is no URL of an HTTP server.", "Write it like http://127.0.0.1:8080.")
        self.url = url.rstrip("/")
        self._tls = parts.scheme == "https"
        self._host: str = parts.hostname
        self._port: Optional[int] = port
        # Users copy base URLs that end in /v1; every path here brings its own
        path = parts.path.rstrip("/")
        self._path = path[: -len("/v1")] if path.endswith("/v1") else path
        self._headers = {"Accept": "application/json", "User-Agent": "aikit.fleet"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._clock = clock

    def get(self, path: str, timeout: float = 5.0) -> Reply:
        """Ask for ``path``; whatever goes wrong is in the reply."""
        try:
            connection = self._connect(timeout)
            try:
                connection.request("GET", self._path + path, headers=self._headers)
                response = connection.getresponse()
                return _reply(response, response.read(_BODY_LIMIT))
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as exc:
            return _failure(exc)

    def complete(self, path: str, body: dict[str, Any], timeout: float) -> Iterator[tuple[float, Any]]:
        """Post ``body`` and yield (seconds since the request, event). Raises :class:`Refused`, also in the middle."""
        deadline = self._clock() + timeout
        started = self._clock()
        try:
            connection = self._connect(timeout)
            try:
                headers = {**self._headers, "Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
                connection.request("POST", self._path + path, json.dumps(body).encode("utf-8"), headers)
                # The response may take the socket away from the connection, but not its time-out
                plug = connection.sock
                response = connection.getresponse()
                if response.status != 200:
                    raise Refused(_reply(response, response.read(_BODY_LIMIT)))
                if "event-stream" not in (response.getheader("Content-Type") or ""):
                    whole = _reply(response, response.read(_BODY_LIMIT))
                    yield self._clock() - started, whole.json() if whole.json() is not None else whole.describe()
                    return
                while True:
                    left = deadline - self._clock()
                    if left <= 0:
                        raise Refused(Reply(error=f"the answer was not complete after {timeout:.0f} seconds"))
                    plug.settimeout(left)
                    line = response.readline(_LINE_LIMIT)
                    if not line:
                        raise Refused(Reply(error="it closed the connection in the middle of the answer"))
                    field, _colon, data = line.strip().partition(b":")
                    data = data.strip()
                    if field not in (b"data", b"error") or not data:
                        continue
                    if data == b"[DONE]":
                        return
                    yield self._clock() - started, _event(data)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as exc:
            raise Refused(_failure(exc)) from exc

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)


def _event(data: bytes) -> Any:
    text = data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _reply(response: http.client.HTTPResponse, body: bytes) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def _failure(exc: Exception) -> Reply:
    """Why there is no answer. A listener that speaks no HTTP is told from one that is not up yet."""
    if isinstance(exc, http.client.RemoteDisconnected):
        return Reply(error="it closed the connection without an answer")
    if isinstance(exc, http.client.BadStatusLine):
        return Reply(body=str(exc).strip("'\"").encode("utf-8", "replace"), error="it does not speak HTTP", foreign=True)
    if isinstance(exc, http.client.IncompleteRead):
        return Reply(error="it closed the connection in the middle of the answer")
    if isinstance(exc, http.client.HTTPException):
        return Reply(body=str(exc).encode("utf-8", "replace"), error="it does not speak HTTP", foreign=True)
    if isinstance(exc, ssl.SSLError):
        return Reply(error=f"TLS failed: {exc.reason or exc}")
    if isinstance(exc, socket.timeout):
        return Reply(error="no answer in time")
    if isinstance(exc, ConnectionRefusedError):
        return Reply(error="connection refused")
    if isinstance(exc, ConnectionResetError):
        return Reply(error="connection reset")
    return Reply(error=str(getattr(exc, "strerror", None) or exc))
