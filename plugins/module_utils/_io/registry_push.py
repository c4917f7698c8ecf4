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
        raise registry.failure(answer, f"{repository}@{digest}", host, path)

    return registry.retry(f"{repository}@{digest}", attempt)


def push_blob(
    registry: Registry, repository: str, digest: str, size: int, read: Read, mount_from: str = "", progress: Optional[Callable[[int], None]] = None
) -> Pushed:
    """Have a blob in a repository (``host/path``). ``mount_from`` is another one of the same registry that has it.

    ``progress`` is called with the number of bytes that the registry was sent.
    """
    return _Upload(registry, repository, digest, size, read, mount_from, progress).run()


class _Restart(Exception):
    """The registry knows nothing of the upload any more. ``counted``: the failure that led here has been counted."""

    counted = False


class _Lost(_Restart):
    counted = True


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

    def run(self) -> Pushed:
        try:
            while True:
                try:
                    return self._attempt()
                except Retry as exc:
                    self._failed(exc)
                except _Restart as exc:
                    if not exc.counted:
                        self._failed(Retry("the registry has lost the upload"))
        except AikitError:
            self._abandon()
            raise

    def _attempt(self) -> Pushed:
        if has_blob(self.registry, f"{self.host}/{self.path}", self.digest):
            self._tell(self.size)
            return Pushed("uploaded" if self.sent else "present", self.sent)
        if self._begin():
            self._tell(self.size)
            return Pushed("mounted", self.sent)
        if self.size <= rules.MONOLITHIC_BYTES:
            self._commit(Body(self.size, lambda: self._count(0, self.size)))
        else:
            self._send()
            self._commit(None)
        return Pushed("uploaded", self.sent)

    def _begin(self) -> bool:
        """Open an upload; True when the blob could be taken over from another repository."""
        address = f"/v2/{self.path}/blobs/uploads/"
        self.position = 0
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
                if answer.status in (404, 410):
                    answer.refused()
                    raise _Restart
                if answer.status == 416:
                    answer.refused()
                    raise Retry("the registry has another part of the upload than was sent")
                if answer.status not in (201, 202, 204):
                    raise self._refused(answer)
                position = rules.parse_range(answer.header("Range"))
                self._follow(answer)
                self.position = start + length if position is None else position
                if not start < self.position <= start + length:
                    raise _Restart
            except Retry as exc:
                self._failed(exc)
                self._resume()

    def _resume(self) -> None:
        """Ask how far the upload has come; registries that cannot say have lost it."""
        answer = self.registry.request("GET", self.host, self.location, self.scopes)
        if answer.status != 204:
            answer.refused()
            raise _Lost
        position = rules.upload_position(answer.header("Range"), self.position)
        self._follow(answer)
        if not 0 <= position <= self.size:
            raise _Lost
        self.position = position

    def _commit(self, body: Optional[Body]) -> None:
        url = f"{self.location}{'&' if '?' in self.location else '?'}digest={quote(self.digest, safe='')}"
        timeout = max(COMMIT_TIMEOUT_SECONDS, self.registry.settings.timeout_seconds) if body is None else None
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
                raise Retry("the registry received other bytes", error=error)
            raise AikitError(f"{self.what}: {self.host} answered 400 ({said}).", "See the registry's log.")
        if answer.status in (404, 410, 416):
            answer.refused()
            raise _Restart
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
        """Tell the registry to forget what it has of the upload; it would forget it some day by itself."""
        if self.location:
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
