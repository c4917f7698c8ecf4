# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images in container registries: read and written over HTTP, with the standard library alone.

Blobs pass through in pieces of one megabyte, whatever their size. All that comes is checked against its digest,
what is cut goes on where it ended, and a login goes to the registry that it is for and nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import select
import socket
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, Mapping, Optional, Sequence, TypeVar
from urllib.parse import unquote, urlencode, urljoin, urlsplit

from .._core import model_source, oci
from .._core import registry as rules
from .._core.errors import AikitError
from .._core.oci import Descriptor, Index
from .._core.reference import is_loopback
from .._core.registry import Challenge, Credentials, RemoteName
from . import files
from .http_date import retry_after
from .registry_login import find_credentials

PIECE_BYTES = 1 << 20
MAX_REDIRECTS = 5
BODY_MAX_BYTES = 8 * 1024 * 1024
IDLE_CONNECTIONS = 4
# A registry may move or hash a big blob before it answers the last request of an upload
COMMIT_TIMEOUT_SECONDS = 900.0
CERTIFICATE_FOLDERS = ("/etc/docker/certs.d", "/etc/containers/certs.d")

Progress = Callable[[int], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class RegistrySettings:
    """How registries are reached. ``insecure`` names those that may do without encryption or without a good certificate."""

    auth_file: Optional[str] = None
    ca_file: Optional[str] = None
    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 60
    logins: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest in a registry. ``ref`` is what was asked for, ``repository`` (``host/path``) where it was read,
    ``index_digest`` the index that led to it, if one did."""

    ref: str
    repository: str
    digest: str
    media_type: str
    raw: bytes
    document: Mapping[str, Any]
    layers: tuple[Descriptor, ...]
    config: Descriptor
    index_digest: str = ""


class Retry(Exception):
    """Worth another attempt. ``wait_seconds`` is what the registry asked for; ``error`` is raised when it was the last one."""

    def __init__(self, reason: str, wait_seconds: Optional[float] = None, error: Optional[AikitError] = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.error = error


class Answer:
    """One answer of a server; its connection is used again once the body was read."""

    def __init__(self, response: http.client.HTTPResponse, release: Callable[[bool], None], url: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self.url = url
        self._response = response
        self._release = release
        self._open = True

    def header(self, name: str) -> str:
        return str(self.headers.get(name) or "")

    def pieces(self) -> Iterator[bytes]:
        """The body; a connection that is cut ends it early or raises :class:`Retry`."""
        while True:
            try:
                piece = self._response.read(PIECE_BYTES)
            except (OSError, http.client.HTTPException) as exc:
                self.close(broken=True)
                raise Retry(f"the connection was cut ({_reason(exc)})") from None
            if not piece:
                break
            yield piece
        self.close()

    def body(self, limit: int = BODY_MAX_BYTES) -> bytes:
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                self.close(broken=True)
                raise AikitError(f"{model_source.redact(self.url)} answers with more than {limit} bytes.", "Check that the address is that of a registry.")
        told = self.header("Content-Length")
        if told.isdigit() and self._response.length not in (0, None):
            raise Retry("the connection was cut")
        return bytes(found)

    def refused(self) -> bytes:
        """The body of an error, or what comes of it."""
        try:
            return self.body(65536)
        except (Retry, AikitError):
            return b""

    def close(self, broken: bool = False) -> None:
        if self._open:
            self._open = False
            reusable = not broken and self._response.isclosed() and not self._response.will_close
            self._response.close()
            self._release(reusable)


@dataclass
class _Host:
    """What is known of one registry."""

    name: str
    base: str = ""
    challenge: Optional[Challenge] = None
    credentials: dict[str, Optional[Credentials]] = field(default_factory=dict)
    tokens: dict[tuple[str, ...], tuple[str, float]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)


class Registry:
    """One client for all registries; may be used by several threads at once. It keeps connections and tokens."""

    def __init__(self, settings: RegistrySettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self._mirrors = rules.check_mirrors(settings.mirrors)
        self._logins = rules.given_logins(settings.logins)
        self._insecure = frozenset(rules.check_host(host, "insecure") for host in settings.insecure)
        if not 0 < settings.timeout_seconds < float("inf"):
            raise AikitError(f"timeout_seconds is {settings.timeout_seconds:g}.", "Give a number above 0.")
        # Registries that were seen to take blobs only whole
        self.chunkless: set[str] = set()
        self._sleep = sleep
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._manifests: dict[tuple[str, str], tuple[str, str, bytes]] = {}

    # --- reading

    def manifest(self, ref: str, platform: str = "", mirrors: bool = True) -> RemoteManifest:
        """The manifest of ``ref`` (a tag or a digest); an index is followed to ``platform`` (``linux/amd64[/variant]``)."""
        name = rules.parse_name(ref)
        repository = self.source_of(name) if mirrors else name.full_repository
        digest, media_type, raw = self.raw_manifest(repository, name.reference, name.text)
        index_digest = ""
        if oci.is_index(oci.parse_document(raw, name.text), media_type):
            index_digest = digest
            chosen = oci.choose_platform(oci.parse_index(raw, media_type, name.text), platform, name.text)
            digest, media_type, raw = self.raw_manifest(repository, chosen.digest, f"{name.text} for {chosen.platform or 'its platform'}")
        parsed = oci.parse_manifest(raw, media_type, name.text)
        found = RemoteManifest(name.text, repository, digest, parsed.media_type, raw, parsed.document, parsed.layers, parsed.config, index_digest)
        if platform and not index_digest:
            have = oci.config_platform(self.config(found))
            if have and not _serves(have, platform):
                raise AikitError(f"{name.text} is an image for {have}, and {platform} is asked for.", "Name an image that has this platform.")
        return found

    def index(self, ref: str, mirrors: bool = True) -> Optional[tuple[str, Index]]:
        """Digest and content of the index that ``ref`` names; None when it names one image."""
        name = rules.parse_name(ref)
        repository = self.source_of(name) if mirrors else name.full_repository
        digest, media_type, raw = self.raw_manifest(repository, name.reference, name.text)
        if not oci.is_index(oci.parse_document(raw, name.text), media_type):
            return None
        return digest, oci.parse_index(raw, media_type, name.text)

    def source_of(self, name: RemoteName) -> str:
        """``host/path`` that the images of a name are read from: a mirror, where there is one."""
        return rules.mirrored(name.full_repository, self._mirrors)

    def raw_manifest(self, repository: str, wanted: str, what: str = "") -> tuple[str, str, bytes]:
        """Digest, media type and bytes of a manifest or an index, checked."""
        key = (repository, wanted)
        with self._lock:
            known = self._manifests.get(key)
        if known is not None:
            return known
        what = what or f"{repository}{'@' if oci.is_digest(wanted) else ':'}{wanted}"
        host, path = rules.split_repository(repository)

        def attempt() -> tuple[str, str, bytes]:
            answer = self.request("GET", host, f"/v2/{path}/manifests/{wanted}", (rules.scope(path, "pull"),), {"Accept": oci.ACCEPT})
            if answer.status != 200:
                raise self.failure(answer, what, host, path)
            raw = answer.body(oci.MANIFEST_MAX_BYTES)
            media_type = answer.header("Content-Type").partition(";")[0].strip()
            digest = oci.sha256(raw)
            told = wanted if oci.is_digest(wanted) else answer.header("Docker-Content-Digest")
            if told and oci.is_digest(told) and told != digest:
                error = AikitError(
                    f"{what}: {host} sent a manifest with digest {digest}, which should be {told}.", "The registry, or something on the way to it, is broken."
                )
                raise Retry("the manifest has another digest", error=error)
            return digest, media_type, raw

        found = self.retry(what, attempt)
        with self._lock:
            # What a digest names never changes
            self._manifests[repository, found[0]] = found
        return found

    def digest_of(self, ref: str) -> str:
        """The digest that a tag has in its own registry (no mirror) now; empty when there is no such tag or repository."""
        name = rules.parse_name(ref)
        path = name.repository

        def attempt() -> str:
            address = f"/v2/{path}/manifests/{name.reference}"
            answer = self.request("HEAD", name.host, address, (rules.scope(path, "pull"),), {"Accept": oci.ACCEPT})
            if answer.status == 404:
                answer.refused()
                return ""
            if answer.status != 200:
                raise self.failure(answer, name.text, name.host, path)
            answer.refused()
            told = answer.header("Docker-Content-Digest")
            return told if oci.is_digest(told) else self.raw_manifest(name.full_repository, name.reference, name.text)[0]

        return self.retry(name.text, attempt)

    def config(self, manifest: RemoteManifest) -> dict[str, Any]:
        """The config of an image."""
        raw = self.small_blob(manifest.repository, manifest.config)
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise AikitError(f"{manifest.ref}: its config is no JSON object.", "Name an image that a container engine can run.")
        return found

    def small_blob(self, repository: str, descriptor: Descriptor) -> bytes:
        """A blob in memory; larger ones than a config may be are refused."""
        if descriptor.size > BODY_MAX_BYTES:
            raise AikitError(
                f"{repository}@{descriptor.digest} has {descriptor.size} bytes, too many for a config.", "Name an image that a container engine can run."
            )
        return b"".join(self.open_blob(repository, descriptor))

    def open_blob(self, repository: str, descriptor: Descriptor) -> Iterator[bytes]:
        """The bytes of a blob; goes on after a cut, and raises at the end when they have another digest."""
        digest = hashlib.sha256()
        for piece in self._blob_from(repository, descriptor, 0):
            digest.update(piece)
            yield piece
        _check_digest(repository, descriptor, digest.hexdigest())

    def read_blob(self, repository: str, descriptor: Descriptor, start: int, length: int) -> bytes:
        """A piece of a blob, for who wants to know what it is: it is not checked against the digest.

        A registry that sends no pieces is read up to the end of this one.
        """
        host, path = rules.split_repository(repository)
        what = f"{repository}@{descriptor.digest}"
        end = min(start + length, descriptor.size)

        def attempt() -> bytes:
            headers = {"Range": f"bytes={start}-{end - 1}"}
            answer = self.request("GET", host, f"/v2/{path}/blobs/{descriptor.digest}", (rules.scope(path, "pull"),), headers)
            with contextlib.closing(answer):
                if answer.status not in (200, 206):
                    raise self.failure(answer, what, host, path)
                position = (rules.content_range(answer.header("Content-Range"))[0] or 0) if answer.status == 206 else 0
                if position > start:
                    raise AikitError(f"{what}: {host} was asked for bytes from {start} and sends them from {position}.", "The registry is broken.")
                found = bytearray()
                for piece in answer.pieces():
                    found += piece[max(0, start - position) : max(0, end - position)]
                    position += len(piece)
                    if position >= end:
                        break
            if len(found) < end - start:
                raise Retry(f"the connection was cut after {len(found)} of {end - start} bytes")
            return bytes(found)

        return self.retry(what, attempt) if end > start else b""

    def fetch_blob(self, repository: str, descriptor: Descriptor, path: str, progress: Optional[Progress] = None) -> None:
        """Have a blob at ``path``: what an earlier run left is continued, and only whole blobs get that name."""
        path = os.path.abspath(os.path.expanduser(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.part"
        with files.lock(f"{path}.lock", remove=True):
            if os.path.isfile(path) and os.path.getsize(path) == descriptor.size and f"sha256:{files.sha256_file(path)}" == descriptor.digest:
                return
            for again in (True, False):
                digest, start = _take_up(part, descriptor.size)
                files.require_space(part, descriptor.size - start, f"blob {descriptor.digest} of {repository}")
                with open(part, "ab", buffering=0) as handle:
                    for piece in self._blob_from(repository, descriptor, start):
                        files.write_all(handle, memoryview(piece))
                        digest.update(piece)
                        if progress is not None:
                            progress(handle.tell())
                    os.fsync(handle.fileno())
                if f"sha256:{digest.hexdigest()}" == descriptor.digest:
                    break
                os.unlink(part)
                # Damaged on the way, or begun before a power cut: the whole is fetched once more
                if not again:
                    _check_digest(repository, descriptor, digest.hexdigest())
            os.replace(part, path)
            files.sync_directory(os.path.dirname(path))

    def _blob_from(self, repository: str, descriptor: Descriptor, start: int) -> Iterator[bytes]:
        host, path = rules.split_repository(repository)
        what = f"{repository}@{descriptor.digest}"
        position, failures, reached = start, 0, start
        while position < descriptor.size:
            try:
                headers = {"Range": f"bytes={position}-"} if position else {}
                answer = self.request("GET", host, f"/v2/{path}/blobs/{descriptor.digest}", (rules.scope(path, "pull"),), headers)
                with contextlib.closing(answer):
                    if answer.status not in (200, 206):
                        raise self.failure(answer, what, host, path)
                    first = (rules.content_range(answer.header("Content-Range"))[0] or 0) if answer.status == 206 else 0
                    if first > position:
                        raise AikitError(f"{what}: {host} was asked for bytes from {position} and sends them from {first}.", "The registry is broken.")
                    skip = position - first
                    for piece in answer.pieces():
                        usable = piece[skip:]
                        skip = max(0, skip - len(piece))
                        position += len(usable)
                        if position > descriptor.size:
                            raise AikitError(f"{what}: {host} sends more than the {descriptor.size} bytes that its manifest tells.", "The registry is broken.")
                        if usable:
                            yield usable
                if position < descriptor.size:
                    raise Retry(f"the connection was cut after {position} of {descriptor.size} bytes")
            except Retry as exc:
                failures = 1 if position - reached >= PIECE_BYTES else failures + 1
                reached = max(reached, position)
                self.wait(what, exc, failures)

    # --- requests

    def retry(self, what: str, attempt: Callable[[], Result]) -> Result:
        failures = 0
        while True:
            try:
                return attempt()
            except Retry as exc:
                failures += 1
                self.wait(what, exc, failures)

    def wait(self, what: str, exc: Retry, failures: int) -> None:
        seconds = rules.wait_seconds(failures, exc.wait_seconds, random.random())
        if failures >= rules.MAX_ATTEMPTS or seconds > rules.MAX_WAIT_SECONDS + 1:
            asked = f"; it asks to wait {seconds:.0f} s" if seconds > rules.MAX_WAIT_SECONDS + 1 else ""
            if exc.error is not None:
                raise AikitError(f"{exc.error.message} ({_times(failures)}{asked})", exc.error.hint) from None
            raise AikitError(
                f"{what}: {exc} ({_times(failures)}{asked}).", "Check the registry and the network; a run again goes on with what is there already."
            ) from None
        self._sleep(seconds)

    def failure(self, answer: Answer, what: str, host: str, path: str, push: bool = False) -> Exception:
        """What an answer that was not wanted means: :class:`Retry`, or :class:`AikitError`."""
        body = answer.refused()
        challenge = rules.parse_challenges(answer.headers.get_all("WWW-Authenticate") or ())
        denied = challenge is not None and challenge.error == "insufficient_scope"
        error = rules.refusal(what, host, answer.status, body, self._credentials(self._hosts[host], path) is not None, push, denied)
        if answer.status in rules.RETRY_STATUS:
            return Retry(f"{host} answered {answer.status}", retry_after(answer.header("Retry-After")), error)
        return error

    def request(
        self,
        method: str,
        host: str,
        address: str,
        scopes: Sequence[str],
        headers: Optional[Mapping[str, str]] = None,
        body: Optional["Body"] = None,
        timeout: Optional[float] = None,
    ) -> Answer:
        """One request to a registry, with its login; redirects are followed, without the login where they lead elsewhere.

        ``address`` is a path, or a URL that the registry gave. :class:`Retry` when no answer came.
        """
        state = self._open_host(host)
        url = urljoin(state.base, address)
        fresh = False
        for dummy in range(4):
            own = rules.origin(url) == rules.origin(state.base)
            authorization = self._authorization(state, scopes) if own else ""
            answer = self._follow(method, url, state.base, {**(headers or {}), **({"Authorization": authorization} if authorization else {})}, body, timeout)
            if answer.status != 401 or not own or rules.origin(answer.url) != rules.origin(state.base):
                return answer
            challenge = rules.parse_challenges(answer.headers.get_all("WWW-Authenticate") or ())
            with state.lock:
                if challenge is None or fresh:
                    return answer
                state.challenge = challenge
                if authorization.startswith("Bearer "):
                    # Expired, or taken back
                    key = tuple(scopes)
                    if state.tokens.get(key, ("", 0.0))[0] == authorization[len("Bearer ") :]:
                        del state.tokens[key]
                if challenge.scheme == "basic":
                    path = _path_of(scopes)
                    if authorization.startswith("Basic ") or self._credentials(state, path) is None:
                        return answer
                fresh = True
            answer.close(broken=True)
        return answer

    def _follow(self, method: str, url: str, base: str, headers: Mapping[str, str], body: Optional["Body"], timeout: Optional[float]) -> Answer:
        send = dict(headers)
        for dummy in range(MAX_REDIRECTS + 1):
            answer = self._send(method, url, send, body, timeout)
            if answer.status not in rules.REDIRECT_STATUS or not answer.header("Location"):
                return answer
            target = urljoin(url, answer.header("Location"))
            answer.refused()
            rules.check_redirect(url, target, model_source.redact(url))
            if rules.origin(target) != rules.origin(base):
                send.pop("Authorization", None)
            if answer.status == 303 and method != "HEAD":
                method, body = "GET", None
            url = target
        raise AikitError(f"{model_source.redact(url)} redirects more than {MAX_REDIRECTS} times.", "Check the registry, and the proxy before it.")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Optional["Body"] = None, timeout: Optional[float] = None) -> Answer:
        """One request on one connection; a connection that the server had closed meanwhile is replaced."""
        key = rules.origin(url)
        while True:
            connection = self._take(key)
            used = connection is not None
            try:
                if connection is None:
                    connection = self._connect(url)
                response = self._exchange(connection, method, url, headers, body, timeout or self.settings.timeout_seconds)
            except (OSError, http.client.HTTPException) as exc:
                if connection is not None:
                    connection.close()
                # It was closed while it waited. With a body nobody knows what has arrived: the caller asks
                if used and body is None and isinstance(exc, (ConnectionError, http.client.BadStatusLine)):
                    continue
                raise self._unreachable(url, exc) from None
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            return Answer(response, self._releaser(key, connection), url)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, url: str, headers: Mapping[str, str], body: Optional["Body"], timeout: float
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxied = getattr(connection, "aikit_proxy_headers", None)
        # A server may think long about what it has received, but not while it receives it
        connection.timeout = min(timeout, self.settings.timeout_seconds)
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(connection.timeout)
        connection.putrequest(method, target if proxied is None else f"{parts.scheme}://{parts.netloc}{target}", skip_accept_encoding=True)
        send = {"User-Agent": "aikit.fleet", "Accept-Encoding": "identity", **(proxied or {}), **headers}
        if body is not None:
            send["Content-Length"] = str(body.length)
        elif method in ("POST", "PUT", "PATCH"):
            send["Content-Length"] = "0"
        for name, value in send.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body is not None and body.length:
            try:
                for piece in body.pieces():
                    connection.send(piece)
            except OSError:
                # A server that refuses before it has read all says why, and closes
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection.sock.settimeout(min(timeout, 5.0))
                    response = connection.getresponse()
                    if response.status >= 400:
                        response.will_close = True
                        return response
                raise
        connection.sock.settimeout(timeout)
        return connection.getresponse()

    def _take(self, key: tuple[str, str]) -> Optional[http.client.HTTPConnection]:
        while True:
            with self._lock:
                idle = self._idle.get(key)
                connection = idle.pop() if idle else None
            if connection is None or not _is_closed(connection):
                return connection
            connection.close()

    def _releaser(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> Callable[[bool], None]:
        def release(reusable: bool) -> None:
            with self._lock:
                idle = self._idle.setdefault(key, [])
                if reusable and len(idle) < IDLE_CONNECTIONS:
                    idle.append(connection)
                    return
            connection.close()

        return release

    def close(self) -> None:
        """Close the connections that wait for further requests."""
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle = {}
        for connection in idle:
            connection.close()

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        proxy = _proxy(parts.scheme, parts.netloc)
        timeout = self.settings.timeout_seconds
        if parts.scheme == "https":
            context = self._context(rules.origin(url)[1])
            if proxy is None:
                return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
            through = http.client.HTTPSConnection(proxy.hostname or "", proxy.port or 80, timeout=timeout, context=context)
            through.set_tunnel(host, port, _proxy_headers(proxy))
            return through
        if proxy is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        plain = http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=timeout)
        plain.aikit_proxy_headers = _proxy_headers(proxy)  # type: ignore[attr-defined]
        return plain

    def _context(self, host: str) -> ssl.SSLContext:
        """TLS as the registry wants it: the system's CAs, that of the settings, and those that engines have for this host."""
        with self._lock:
            known = self._contexts.get(host)
        if known is not None:
            return known
        context = ssl.create_default_context()
        if self.settings.ca_file:
            path = os.path.expanduser(self.settings.ca_file)
            try:
                context.load_verify_locations(path)
            except FileNotFoundError:
                raise AikitError(f"registry_ca_file: there is no file {path} on this machine.", "Give the path of a PEM file.") from None
            except (ssl.SSLError, OSError) as exc:
                raise AikitError(f"registry_ca_file: {path} holds no certificate: {_reason(exc)}.", "Give a PEM file with the certificate of the CA.") from None
        for folder in CERTIFICATE_FOLDERS:
            _load_certificates(context, os.path.join(folder, host))
        if host in self._insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        with self._lock:
            self._contexts[host] = context
        return context

    def _unreachable(self, url: str, exc: Exception) -> Exception:
        host = urlsplit(url).netloc
        if isinstance(exc, ssl.SSLCertVerificationError):
            return AikitError(
                f"{host}: its certificate is not trusted ({exc.verify_message or _reason(exc)}).",
                "Name the CA with registry_ca_file, or install it on this machine; check the clock, too.",
            )
        if isinstance(exc, socket.gaierror):
            return Retry(f"{host} is not found ({_reason(exc)})")
        return Retry(f"{host} cannot be reached ({_reason(exc)})")

    # --- logins

    def _open_host(self, name: str) -> _Host:
        """What is known of a registry; the first time it is asked how it wants to be asked."""
        with self._lock:
            state = self._hosts.setdefault(name, _Host(name))
        with state.lock:
            if not state.base:
                self._ping(state)
        return state

    def _ping(self, state: _Host) -> None:
        host = rules.api_host(state.name)
        insecure = host in self._insecure
        schemes = ("https", "http") if insecure else ("http", "https") if is_loopback(host) else ("https",)
        problem: Optional[Exception] = None
        for scheme in schemes:
            base = f"{scheme}://{host}/"
            try:
                answer = self._send("GET", urljoin(base, "/v2/"), {})
                answer.refused()
            except (Retry, AikitError) as exc:
                # A port without TLS answers nonsense to a handshake
                problem = problem if isinstance(problem, AikitError) else exc
                continue
            if answer.status == 400 and scheme == "http" and len(schemes) > 1 and scheme == schemes[0]:
                # Servers that speak TLS say so in plain text
                continue
            state.base = base
            state.challenge = rules.parse_challenges(answer.headers.get_all("WWW-Authenticate") or ())
            return
        if isinstance(problem, AikitError):
            raise problem
        if not isinstance(problem, Retry):
            problem = Retry(f"{host} does not answer as a registry does")
        hint = "Check name and network; a registry without encryption must be named in registry_insecure."
        raise Retry(str(problem), problem.wait_seconds, AikitError(f"{state.name}: {problem}.", hint))

    def _credentials(self, state: _Host, repository: str) -> Optional[Credentials]:
        with state.lock:
            if repository not in state.credentials:
                given = self._logins.get(state.name)
                state.credentials[repository] = given or find_credentials(state.name, repository, self.settings.auth_file)
            return state.credentials[repository]

    def _authorization(self, state: _Host, scopes: Sequence[str]) -> str:
        """The Authorization header for these scopes; empty where none is wanted."""
        with state.lock:
            challenge = state.challenge
            if challenge is None:
                return ""
            credentials = self._credentials(state, _path_of(scopes))
            if challenge.scheme == "basic":
                return credentials.basic if credentials is not None and not credentials.identity_token else ""
            key = tuple(scopes)
            value, until = state.tokens.get(key, ("", 0.0))
            if not value or time.monotonic() >= until:
                token = self._token(state, challenge, scopes, credentials)
                # Renewed a little earlier, so that it does not end on the way
                value, until = token.value, time.monotonic() + token.seconds * 0.9
                state.tokens[key] = (value, until)
            return f"Bearer {value}"

    def _token(self, state: _Host, challenge: Challenge, scopes: Sequence[str], credentials: Optional[Credentials]) -> rules.Token:
        realm = urljoin(state.base, challenge.realm)
        what = f"a token of {model_source.redact(realm)} for {state.name}"
        rules.check_redirect(state.base, realm, what)
        query = [("service", challenge.service)] if challenge.service else []
        headers = {"Accept": "application/json"}
        body = None
        if credentials is not None and credentials.identity_token:
            form = urlencode(
                [
                    *query,
                    ("scope", " ".join(scopes)),
                    ("grant_type", "refresh_token"),
                    ("client_id", "aikit.fleet"),
                    ("refresh_token", credentials.identity_token),
                ]
            ).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            method, url, body = "POST", realm, Body(len(form), lambda: iter((form,)))
        else:
            query += [("scope", entry) for entry in scopes]
            if credentials is not None:
                query.append(("account", credentials.user))
                headers["Authorization"] = credentials.basic
            method, url = "GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        answer = self._send(method, url, headers, body)
        if answer.status != 200:
            raise self.failure(answer, what, state.name, _path_of(scopes))
        return rules.parse_token(answer.body(), what)


@dataclass(frozen=True)
class Body:
    """What is sent: ``pieces`` gives it from its beginning, each time it is called."""

    length: int
    pieces: Callable[[], Iterable[bytes]]


def _path_of(scopes: Sequence[str]) -> str:
    """The repository of the first scope: whose login it is."""
    return scopes[0].split(":")[1] if scopes else ""


def _serves(have: str, wanted: str) -> bool:
    wanted = oci.normalise_platform(wanted)
    return have == wanted or have.split("/")[:2] == wanted.split("/")[:2] and 2 in (len(have.split("/")), len(wanted.split("/")))


def _take_up(part: str, size: int) -> tuple[Any, int]:
    """The digest so far and the length of what an earlier run left."""
    digest = hashlib.sha256()
    try:
        if os.path.getsize(part) > size:
            os.unlink(part)
        with open(part, "rb", buffering=0) as handle:
            return digest, files.read_into(handle, digest.update)
    except FileNotFoundError:
        return digest, 0


def _check_digest(repository: str, descriptor: Descriptor, found: str) -> None:
    if f"sha256:{found}" != descriptor.digest:
        raise AikitError(
            f"{repository}@{descriptor.digest}: what came has digest sha256:{found}. Nothing was stored.",
            "The registry, or something on the way to it, is broken.",
        )


def _load_certificates(context: ssl.SSLContext, folder: str) -> None:
    """The CAs and the client certificate that Docker and Podman would use for a host."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert") and f"{name[:-5]}.key" in names:
                context.load_cert_chain(path, f"{path[:-5]}.key")
        except (ssl.SSLError, OSError) as exc:
            raise AikitError(f"{path} cannot be used: {_reason(exc)}.", "Container engines use this file, too: mend or remove it.") from None


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed a connection that waited: then there is something to read, its end."""
    try:
        return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _proxy(scheme: str, netloc: str) -> Any:
    """The proxy of the environment for a host; never for this machine itself."""
    if is_loopback(netloc.lower()):
        return None
    address = urllib.request.getproxies().get(scheme)
    if not address or urllib.request.proxy_bypass(netloc):
        return None
    return urlsplit(address if "://" in address else f"http://{address}")


def _proxy_headers(proxy: Any) -> dict[str, str]:
    if not proxy.username:
        return {}
    return {"Proxy-Authorization": Credentials(unquote(proxy.username), unquote(proxy.password or "")).basic}


def _reason(exc: BaseException) -> str:
    if isinstance(exc, (socket.timeout, TimeoutError)):
        return "no answer in time"
    return str(getattr(exc, "strerror", None) or exc or type(exc).__name__).strip(" .") or type(exc).__name__


def _times(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"
