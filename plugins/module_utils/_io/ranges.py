# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pieces of a file on an HTTP server: as few as are needed, and none of the rest."""

from __future__ import annotations

import contextlib
import http.client
from typing import Any, Mapping, Optional

from .._core.errors import AikitError
from .download import Http, Retry, Say, announced_bytes, conditional, content_range, retrying, silent, validators_of

FIRST_BYTES = 64 * 1024
# What a header may cost at most, where a server sends what was not asked for, or a file claims endless arrays
MAX_BYTES = 512 * 1024 * 1024
STEP_BYTES = 256 * 1024


class RangeFile:
    """A file of which pieces are read with Range requests, in order.

    A server that knows no ranges sends the file from its start: that answer is read as far as it is needed, and dropped then.
    Redirects are followed once; the place that they led to is asked directly after that, for as long as it answers.
    """

    def __init__(self, client: Http, say: Say = silent) -> None:
        self.client = client
        self.shown = client.source.shown
        self.say = say
        self.size = 0
        self.bytes_read = 0
        self.requests = 0
        self.validators: dict[str, str] = {}
        self._first = b""
        # The last piece that was given out, from where it began: a reader may want its end once more
        self._last = (0, b"")
        self._stream: Any = None
        self._position = 0
        self._start = ""

    def open(self, known: Optional[Mapping[str, str]] = None) -> bool:
        """Ask for the first piece; False when the file is still the one that has the validators ``known``."""
        return retrying(lambda: self._open(conditional(known or {}), known or {}), self.shown, self.say)

    def _open(self, conditions: Mapping[str, str], known: Mapping[str, str]) -> bool:
        answer = self._request(0, FIRST_BYTES, conditions)
        if answer.status == 304:
            answer.close()
            return False
        if answer.status == 416:
            # An empty file has no first byte
            answer.close()
            return True
        self.validators = validators_of(answer)
        start, total = content_range(answer)
        if answer.status == 206:
            if start != 0 or total is None:
                answer.close()
                raise AikitError(f"{self.shown}: the server sends a part of the file, and not how long it is.", "Download the file, and give its path.")
            self.size = total
        else:
            size = announced_bytes(answer)
            if size is None:
                answer.close()
                raise AikitError(f"{self.shown}: the server does not tell how long the file is.", "Download it with model_file, and give its path.")
            self.size = size
        if known and known == self.validators:
            answer.close()
            return False
        if answer.status == 200:
            self._stream, self._position = answer, 0
        self._first = self._take(answer, min(FIRST_BYTES, self.size))
        if answer.status == 206:
            answer.close()
        self._last = (0, self._first)
        return True

    def read_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, fewer at the end of the file; offsets do not go back further than the last piece."""
        end = min(offset + length, self.size)
        begin, piece = self._last
        have = piece[offset - begin : end - begin] if begin <= offset < begin + len(piece) else b""
        found = bytearray(have)
        while offset + len(found) < end:
            if self.bytes_read > MAX_BYTES:
                raise AikitError(f"{self.shown}: its header takes more than {MAX_BYTES // 2**20} MiB to read.", "Download the file, and give its path.")
            found += retrying(lambda: self._piece(offset + len(found), end - offset - len(found)), self.shown, self.say)
        self._last = (offset, bytes(found))
        return bytes(found)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _piece(self, offset: int, length: int) -> bytes:
        if self._stream is None or self._position > offset:
            self.close()
            answer = self._request(offset, length, {})
            if answer.status == 206:
                with contextlib.closing(answer):
                    start, total = content_range(answer)
                    self._check_same(answer, total)
                    if start != offset:
                        raise AikitError(f"{self.shown}: the server was asked for bytes from {offset} and sends them from {start}.", "The server is broken.")
                    return self._take(answer, length)
            self._check_same(answer, announced_bytes(answer))
            self._stream, self._position = answer, 0
        while self._position < offset:
            if self.bytes_read > MAX_BYTES:
                raise AikitError(
                    f"{self.shown}: the server sends no pieces, and more than {MAX_BYTES // 2**20} MiB had to be read.", "Download the file, and give its path."
                )
            self._take(self._stream, min(STEP_BYTES, offset - self._position))
        return self._take(self._stream, length)

    def _check_same(self, answer: Any, total: Optional[int]) -> None:
        found = validators_of(answer)
        if answer.status in (200, 206) and total == self.size and found.get("etag", "") == self.validators.get("etag", ""):
            return
        answer.close()
        raise AikitError(f"{self.shown} changed on the server while it was read.", "Run again.")

    def _take(self, answer: Any, length: int) -> bytes:
        """Up to ``length`` bytes of an answer, at least one."""
        try:
            piece = answer.read(length)
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise Retry(f"the connection broke ({getattr(exc, 'strerror', None) or type(exc).__name__})") from None
        if not piece and length:
            self.close()
            raise Retry("the connection ended too early")
        self.bytes_read += len(piece)
        if answer is self._stream:
            self._position += len(piece)
        return bytes(piece)

    def _request(self, offset: int, length: int, more: Mapping[str, str]) -> Any:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}", **more}
        self.requests += 1
        try:
            answer = self.client.request("GET", headers, self._start)
        except AikitError:
            if not self._start:
                raise
            # A signed address of a content network is good for a while; the host of the file gives another one
            self._start = ""
            answer = self.client.request("GET", headers)
        self._start = self.client.final_url
        encoding = str(answer.headers.get("Content-Encoding") or "identity").lower()
        if encoding != "identity":
            answer.close()
            raise AikitError(
                f"{self.shown} is sent compressed ({encoding}), although that was not asked for.",
                "Give an address that serves the file as it is.",
            )
        return answer
