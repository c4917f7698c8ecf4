# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs and manifests into a registry: what it has is not sent, what is cut goes on, and a tag comes last."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Optional
from urllib.parse import quote, urlencode, urljoin

from .._core import oci
from .._core import registry as rules
from .._core.errors import AikitError
from .registry import COMMIT_TIMEOUT_SECONDS, Answer, Body, Registry, Retry

# The bytes of a blob from a position on, so many of them
Read = Callable[[int, int], Iterator[bytes]]
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Pushed:
    """``how`` a blob came to be there: present, mounted or uploaded; ``sent_bytes`` counts what was sent in vain, too."""

    how: str
    sent_bytes: int = 0


def has_blob(registry: Registry, repository: str, digest: str) -> bool:
    """Whether a repository (``host/path``) has a blob."""
    host, path = rules.split_repository(repository)

    def attempt() -> bool:
        # The right to write is asked for at once: the same token serves for all that follows
        answer = registry.request("HEAD", host, f"/v2/{path}/blobs/{digest}", (rules.scope(path, "pull", "push"),))
        if answer.status == 200:
            answer.refused()
            return True
        if answer.status == 404:
            answer.refused()
            return False
        raise registry.failure(answer, f"{repository}@{digest}", host, path, push=True)

    return registry.retry(f"{repository}@{digest}", attempt)


def push_blob(
    registry: Registry, repository: str, digest: str, size: int, read: Read, mount_from: str = "", progress: Optional[Callable[[int], None]] = None
) -> Pushed:
    """Have a blob in a repository (``host/path``). ``mount_from`` is another one of the same registry that has it.

    ``progress`` is called with the number of bytes that the registry was sent.
    """
    return _Upload(registry, repository, digest, size, read, mount_from, progress).run()


class _Restart(Exception):
    """The upload begins anew; ``cause`` is the failure that led here, which has not been counted yet."""

    def __init__(self, cause: Optional[Retry] = None) -> None:
        super().__init__()
        self.cause = cause


class _Whole(Exception):
    """The registry takes no chunks."""


class _Upload:
    def __init__(
        self, registry: Registry, repository: str, digest: str, size: int, read: Read, mount_from: str, progress: Optional[Callable[[int], None]]
    ) -> None:
        self.registry = registry
        self.host, self.path = rules.split_repository(repository)
        self.what = f"{repository}@{digest}"
        self.digest = digest
        self.size = size
        self.read = read
        self.mount_from = mount_from
        self.progress = progress
        self.scopes = (rules.scope(self.path, "pull", "push"),)
        self.location = ""
        self.chunk = rules.CHUNK_BYTES
        self.sent = 0
        self.position = 0
        self.reached = 0
        self.failures = 0
        self.damaged = 0
        self.whole = rules.takes_no_chunks(self.host)
        self.chunks = 0
        # What the registry said of a chunk, for the message when it refuses the whole as well
        self.refused_chunk = ""
        # Whether the last request was sent, and no answer came
        self.committing = False

    def run(self) -> Pushed:
        try:
            while True:
                try:
                    return self._attempt()
                except Retry as exc:
                    self._failed(exc)
                except _Restart as exc:
                    if exc.cause is not None:
                        self._failed(exc.cause)
                except _Whole:
                    self._abandon()
                    self.whole = True
                    if not self.failures:
                        self.registry.chunkless.add(self.host)
        except AikitError as exc:
            self._abandon()
            if self.refused_chunk:
                raise AikitError(f"{exc.message} In chunks it did not go, either: {self.refused_chunk}.", exc.hint, **exc.data) from None
            raise

    def _attempt(self) -> Pushed:
        if self._is_there():
            self._tell(self.size)
            return Pushed("uploaded" if self.sent else "present", self.sent)
        if self._begin():
            self._tell(self.size)
            return Pushed("mounted", self.sent)
        if self.size <= rules.MONOLITHIC_BYTES:
            self._commit(Body(self.size, lambda: self._count(0, self.size)))
        elif self._is_whole():
            self._send_whole()
        else:
            self._send()
            self._finish()
        return Pushed("uploaded", self.sent)

    def _is_there(self) -> bool:
        return has_blob(self.registry, f"{self.host}/{self.path}", self.digest)

    def _is_whole(self) -> bool:
        return self.whole or self.host in self.registry.chunkless

    def _begin(self) -> bool:
        """Open an upload; True when the blob could be taken over from another repository."""
        address = f"/v2/{self.path}/blobs/uploads/"
        self.position = 0
        self.committing = False
        mount = self.mount_from
        # What is not there after all is not asked for again
        self.mount_from = ""
        if mount:
            dummy, source = rules.split_repository(mount)
            query = urlencode({"mount": self.digest, "from": source})
            answer = self.registry.request("POST", self.host, f"{address}?{query}", (*self.scopes, rules.scope(source, "pull")))
            if answer.status == 201:
                answer.refused()
                return True
            if answer.status != 202:
                answer.refused()
                answer = self.registry.request("POST", self.host, address, self.scopes)
        else:
            answer = self.registry.request("POST", self.host, address, self.scopes)
        if answer.status != 202:
            raise self._refused(answer)
        self.chunk = rules.chunk_bytes(answer.header("OCI-Chunk-Min-Length"))
        self._follow(answer)
        return False

    def _follow(self, answer: Answer) -> None:
        """Every answer names the address of the next request."""
        target = urljoin(answer.url, answer.header("Location"))
        answer.refused()
        if answer.header("Location"):
            rules.check_redirect(answer.url, target, self.what)
            self.location = target

    def _send(self) -> None:
        while self.position < self.size:
            start = self.position
            length = min(self.chunk, self.size - start)
            headers = {**OCTETS, "Content-Range": f"{start}-{start + length - 1}"}
            try:
                body = Body(length, lambda: self._count(start, length))  # pylint: disable=cell-var-from-loop
                answer = self.registry.request("PATCH", self.host, self.location, self.scopes, headers, body)
                if answer.status in rules.NO_CHUNKS_STATUS:
                    raise self._refused_chunk(answer)
                if answer.status not in (201, 202, 204):
                    raise self._refused(answer)
                position = rules.parse_range(answer.header("Range"))
                self._follow(answer)
                self.position = start + length if position is None else position
                if not start < self.position <= start + length:
                    raise self._misplaced(f"{self.host} answered with Range {answer.header('Range')} after bytes {start} to {start + length - 1}")
                self.chunks += 1
            except Retry as exc:
                self._failed(exc)
                self._resume()

    def _refused_chunk(self, answer: Answer) -> Exception:
        body = answer.refused()
        said = rules.answer_text(self.host, answer.status, body)
        if answer.status in (404, 410, 416):
            return self._misplaced(said)
        return self._without_chunks(said) or rules.refusal(self.what, self.host, answer.status, body, True, push=True)

    def _misplaced(self, said: str) -> Exception:
        """The registry has another part of the upload than it was thought to have, or nothing of it."""
        return self._without_chunks(said) or _Restart(Retry(f"the registry has lost the upload ({said})"))

    def _without_chunks(self, said: str) -> Optional[Exception]:
        """Where no chunk ever came through, or nothing else went wrong, it is the chunks: some registries take a blob only whole."""
        if self.chunks and self.failures:
            return None
        self.refused_chunk = said
        return _Whole()

    def _resume(self) -> None:
        """Ask how far the upload has come, until an answer comes; registries that cannot say have lost it."""
        while True:
            try:
                answer = self.registry.request("GET", self.host, self.location, self.scopes)
                if answer.status in (401, 403, *rules.RETRY_STATUS):
                    raise self._refused(answer)
                break
            except Retry as exc:
                self._failed(exc)
        if answer.status != 204:
            answer.refused()
            raise _Restart
        position = rules.upload_position(answer.header("Range"), self.position)
        self._follow(answer)
        if not 0 <= position <= self.size:
            raise _Restart
        self.position = position

    def _send_whole(self) -> None:
        """One request with all of it."""
        before = self.sent
        try:
            self._commit(Body(self.size, lambda: self._count(0, self.size)))
        except Retry as exc:
            if self.sent - before < self.size:
                raise
            self._finish(exc)

    def _finish(self, failure: Optional[Retry] = None) -> None:
        """The last request, for what the registry has all of; ``failure`` is that of one that was sent already.

        A proxy may have answered in the registry's place, which hashes or moves a big blob still: only what is gone is sent again.
        """
        while True:
            if failure is not None:
                self.committing = True
                self._failed(failure)
                if self._is_there():
                    return
            try:
                if failure is not None:
                    self._resume()
                    self._send_rest()
                self._commit(None)
                return
            except Retry as exc:
                failure = exc
            except _Restart:
                if not self.committing or not self._comes():
                    raise
                return

    def _send_rest(self) -> None:
        if self.position < self.size:
            if self._is_whole():
                raise _Restart
            self._send()

    def _comes(self) -> bool:
        """An upload that is gone may be on its way to the blobs: that is waited for before everything is sent again."""
        for failures in range(1, rules.MAX_ATTEMPTS):
            if self._is_there():
                return True
            self.registry.wait(self.what, Retry("the registry has lost the upload"), failures)
        return self._is_there()

    def _commit(self, body: Optional[Body]) -> None:
        url = f"{self.location}{'&' if '?' in self.location else '?'}digest={quote(self.digest, safe='')}"
        timeout = max(COMMIT_TIMEOUT_SECONDS, self.registry.settings.timeout_seconds) if self.size > rules.MONOLITHIC_BYTES else None
        answer = self.registry.request("PUT", self.host, url, self.scopes, OCTETS, body, timeout)
        if answer.status == 400:
            said = rules.error_text(answer.refused())
            if "DIGEST_INVALID" in said or "SIZE_INVALID" in said or "BLOB_UPLOAD_INVALID" in said:
                # Damaged on the way, or the file is another one by now
                self.damaged += 1
                error = AikitError(
                    f"{self.what}: {self.host} received other bytes than were sent ({said}).",
                    "A file that changed during the build, or a broken connection; run again.",
                )
                if self.damaged > 1:
                    raise error
                raise _Restart(Retry("the registry received other bytes", error=error))
            raise AikitError(f"{self.what}: {self.host} answered 400 ({said}).", "See the registry's log.")
        if answer.status in (404, 410, 416):
            said = rules.error_text(answer.refused())
            raise _Restart(Retry(f"the registry has lost the upload{said and f' ({said})'}"))
        if answer.status not in (201, 204):
            raise self._refused(answer)
        told = answer.header("Docker-Content-Digest")
        answer.refused()
        if oci.is_digest(told) and told != self.digest:
            raise AikitError(f"{self.what}: {self.host} says that it stored {told}.", "The registry is broken.")

    def _count(self, start: int, length: int) -> Iterator[bytes]:
        done = start
        for piece in self.read(start, length):
            yield piece
            self.sent += len(piece)
            done += len(piece)
            self._tell(done)

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done)

    def _failed(self, exc: Retry) -> None:
        # Only new ground counts: a registry that begins anew after every cut would never end
        self.failures = 1 if self.position > self.reached else self.failures + 1
        self.reached = max(self.reached, self.position)
        self.registry.wait(self.what, exc, self.failures)

    def _refused(self, answer: Answer) -> Exception:
        return self.registry.failure(answer, self.what, self.host, self.path, push=True)

    def _abandon(self) -> None:
        """Tell the registry to forget what it has of the upload; it would forget it some day by itself.

        Not when it may be at the last request still: the next run finds the blob there.
        """
        if self.location and not self.committing:
            try:
                self.registry.request("DELETE", self.host, self.location, self.scopes).refused()
            except (Retry, AikitError):
                pass


def put_manifest(registry: Registry, repository: str, wanted: str, raw: bytes, media_type: str) -> None:
    """Store a manifest or an index under a digest or a tag, and see that the registry took it as it is."""
    host, path = rules.split_repository(repository)
    what = f"{repository}{'@' if oci.is_digest(wanted) else ':'}{wanted}"
    digest = oci.sha256(raw)
    scopes = (rules.scope(path, "pull", "push"),)

    def attempt() -> str:
        answer = registry.request("PUT", host, f"/v2/{path}/manifests/{wanted}", scopes, {"Content-Type": media_type}, Body(len(raw), lambda: iter((raw,))))
        if answer.status not in (200, 201, 202, 204):
            raise registry.failure(answer, what, host, path, push=True)
        told = answer.header("Docker-Content-Digest")
        answer.refused()
        return told

    told = registry.retry(what, attempt)
    if not oci.is_digest(told):
        told = registry.digest_of(what)
    if told != digest:
        raise AikitError(f"{what}: {host} stored a manifest with digest {told or '(none)'}, and {digest} was sent.", "The registry is broken.")


class Counter:
    """Bytes that several threads send."""

    def __init__(self) -> None:
        self.total = 0
        self._lock: Any = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.total += count
