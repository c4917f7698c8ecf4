# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file over HTTP: retried, continued after an interruption, and checked."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import hashlib
import http.client
import json
import os
import ssl
import time
import urllib.error
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, TypeVar
from urllib.parse import urljoin, urlsplit

from .._core import model_source as sources
from .._core.errors import AikitError
from .._core.model_source import ModelSource
from . import files, progress

TIMEOUT_SECONDS = 60.0
MAX_REDIRECTS = 10
MAX_ATTEMPTS = 5
MAX_WAIT_SECONDS = 120.0
# A connection that is cut after it brought the download this much further is no failed attempt.
PROGRESS_BYTES = 1024 * 1024
REPORT_SECONDS = 10.0
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
REDIRECT_STATUS = (301, 302, 303, 307, 308)
RUN_AGAIN = "Run again: the bytes that are here are kept, and the download goes on from there."

Say = Callable[[str], None]
Result = TypeVar("Result")
Refuse = Callable[[int, Mapping[str, str]], Exception]


def open_url(*words: Any, **options: Any) -> Any:
    """Ansible's own, which takes eleven megabytes of memory (the cryptography library): a build whose models are here needs it not."""
    from ansible.module_utils import urls  # pylint: disable=import-outside-toplevel

    return urls.open_url(*words, **options)


def silent(dummy: str) -> None:
    """For callers that show no progress."""


@dataclass(frozen=True)
class Fetched:
    """The outcome of :func:`fetch`. ``not_modified``: the server says that the file known by its validators is current."""

    size_bytes: int = 0
    sha256: str = ""
    downloaded_bytes: int = 0
    resumed: bool = False
    validators: Mapping[str, str] = field(default_factory=dict)
    not_modified: bool = False


class Retry(Exception):
    """Worth another attempt. The text has no URL; ``wait_seconds`` is what the server asked for."""

    def __init__(self, reason: str, wait_seconds: Optional[float] = None, hint: str = "") -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.hint = hint


class NoHead(Exception):
    """The server does not answer HEAD, which says nothing about GET."""


class Http:
    """Requests for one source. The token goes to the host of the source and nowhere else.

    Proxies, certificates and netrc are the business of Ansible's ``open_url``. It would send the Authorization
    header along to whatever host it is redirected to, so redirects are followed here.
    """

    def __init__(
        self, source: ModelSource, token: Optional[str] = None, timeout_seconds: float = TIMEOUT_SECONDS, refuse: Optional[Refuse] = None
    ) -> None:
        """``refuse`` makes the error of a status that the source's own host answers with; it gets the headers with names in lower case."""
        self.source = source
        # Where the last answer came from, redirects followed
        self.final_url = source.location
        self._refuse = refuse
        self.token = (token or "").strip()
        if not self.token.isprintable() or not self.token.isascii() or " " in self.token:
            raise AikitError("The token holds characters that cannot stand in an HTTP header.", "Give the bare token, one word on one line.")
        if not 0 < timeout_seconds < float("inf"):
            raise AikitError(f"timeout_seconds is {timeout_seconds:g}.", "Give a number above 0.")
        self.timeout_seconds = timeout_seconds
        self.user = urlsplit(source.location).netloc.rpartition("@")[0]
        if self.user and self.token:
            raise AikitError(f"{source.shown} has a user in its address, and a token is given too.", "Give one of them.")

    def request(self, method: str, headers: Mapping[str, str], start: str = "") -> Any:
        """The response (200, 206, 304 or 416); :class:`AikitError` for what another attempt will not mend, else :class:`Retry`.

        :param start: ``final_url`` of an earlier answer, to go there at once.
        """
        url = start or self.source.location
        for dummy in range(MAX_REDIRECTS + 1):
            answer = self._once(method, url, headers)
            if answer.status not in REDIRECT_STATUS:
                self.final_url = url
                return answer
            answer.close()
            url = self._redirected(url, answer.headers.get("Location", ""))
        raise AikitError(f"{self.source.shown} redirects more than {MAX_REDIRECTS} times.", "Give the address that it should end at.")

    def head_at_origin(self) -> dict[str, str]:
        """The headers with which the source's own host answers, which may be those of a redirect to another one; names in lower case."""
        url = self.source.location
        method = "HEAD"
        extra: dict[str, str] = {}
        first: dict[str, str] = {}
        for dummy in range(MAX_REDIRECTS + 1):
            try:
                answer = self._once(method, url, extra)
            except NoHead:
                method, extra = "GET", {"Range": "bytes=0-0"}
                continue
            headers = {**first, **lower(answer.headers)}
            status = answer.status
            answer.close()
            if status not in REDIRECT_STATUS or "x-linked-etag" in headers:
                return headers
            target = self._redirected(url, headers.pop("location", ""))
            if not same_origin(target, self.source.location):
                return headers
            # A repository that was renamed, or a cache of the hub's own: what was said so far stays said
            first = {name: value for name, value in headers.items() if name.startswith("x-repo-")}
            url = target
        raise AikitError(f"{self.source.shown} redirects more than {MAX_REDIRECTS} times.", "Give the address that it should end at.")

    def _once(self, method: str, url: str, headers: Mapping[str, str]) -> Any:
        own = same_origin(url, self.source.location)
        send = {"Accept-Encoding": "identity", **headers}
        if self.token and own:
            send["Authorization"] = f"Bearer {self.token}"
        try:
            return open_url(
                url,
                method=method,
                headers=send,
                timeout=self.timeout_seconds,
                follow_redirects="no",
                decompress=False,
                http_agent="aikit.fleet",
                use_netrc=not (self.token and own),
            )
        except urllib.error.HTTPError as exc:
            if exc.code in REDIRECT_STATUS or exc.code in (304, 416):
                return exc
            exc.close()
            if method == "HEAD" and exc.code in (400, 403, 405, 501) and not exc.headers.get("X-Error-Code"):
                raise NoHead from None
            raise self._refused(exc, url) from None
        except urllib.error.URLError as exc:
            raise self._unreachable(url, exc.reason) from None
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(url, exc) from None
        except ValueError:
            # A host name that cannot be encoded, or a redirect that urllib refuses to look at.
            raise AikitError(f"{sources.redact(url)}, or what it redirects to, is no address.", "Check the address.") from None

    def _redirected(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location.strip().replace(" ", "%20"))
            parts = urlsplit(target)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not location or not good:
            raise AikitError(f"{self.source.shown} redirects to {sources.redact(location)!r}, which is no address.", "Give the final address.")
        if urlsplit(url).scheme == "https" and parts.scheme != "https":
            raise AikitError(
                f"{self.source.shown} redirects to {sources.redact(target)}, which is not encrypted.",
                "Give that address yourself, with the sha256, if it is what you want.",
            )
        user = f"{self.user}@" if self.user and same_origin(target, self.source.location) else ""
        return parts._replace(netloc=user + parts.netloc.rpartition("@")[2]).geturl()

    def _refused(self, exc: urllib.error.HTTPError, url: str) -> Exception:
        shown = self.source.shown
        via = "" if url == self.source.location else f" (redirected to {sources.redact(url)})"
        status = f"HTTP status {exc.code}"
        if exc.code in RETRY_STATUS:
            return Retry(status, _retry_after(exc.headers.get("Retry-After")), "The server is busy or broken; try again later.")
        if self._refuse is not None and same_origin(url, self.source.location):
            return self._refuse(exc.code, lower(exc.headers))
        if exc.code == 401:
            hint = "The token was not accepted: is it valid, and may it read this file?" if self.token else "Give a `token`."
            return AikitError(f"{shown} needs a login: {status}{via}.", hint)
        if exc.code == 403:
            hint = "May this token read the file? A gated model's terms must be accepted first." if self.token else "If it needs a login, give a `token`."
            return AikitError(f"{shown} is not allowed: {status}{via}.", hint)
        if exc.code in (404, 410):
            return AikitError(f"{shown} is not there: {status}{via}.", "Check the address; some servers also say this when a `token` is missing.")
        if exc.code == 407:
            return AikitError(f"The proxy wants a login for {shown}: {status}.", "Put user and password into the https_proxy variable of that host.")
        return AikitError(f"{shown} cannot be downloaded: {status}{via}.", "Open the address to see what the server says.")

    def _unreachable(self, url: str, reason: Any) -> Exception:
        host = urlsplit(url).hostname or ""
        if isinstance(reason, ssl.SSLCertVerificationError):
            return AikitError(
                f"The certificate of {host} is not trusted ({reason.verify_message}).",
                "Install the CA on the host that downloads, or name its bundle in SSL_CERT_FILE; check the clock, too.",
            )
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return Retry(f"{host}: {text}", None, "Check the address, the network, and the proxy settings (https_proxy, no_proxy).")


def fetch(
    client: Http,
    part: str,
    *,
    sha256: str = "",
    validators: Optional[Mapping[str, str]] = None,
    what: str = "",
    say: Say = silent,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Download into ``part``, going on with what is there; the caller holds its lock and gives it its place.

    With ``sha256`` any part is continued, because the digest shows whether the pieces fit. Without it a part
    is continued only when the server can confirm that the file is still the same (ETag or Last-Modified).

    :param validators: of a file that is known already: nothing is sent when it is still current.
    :param what: a noun phrase for messages.
    """
    download = _Download(client, part, sha256, validators or {}, what or client.source.shown, say, sleep)
    return download.run()


class _Download:
    def __init__(
        self, client: Http, part: str, sha256: str, validators: Mapping[str, str], what: str, say: Say, sleep: Callable[[float], None]
    ) -> None:
        self.client = client
        self.shown = client.source.shown
        self.part = part
        self.expected = sha256
        self.conditions = conditional(validators)
        self.what = what
        self.say = say
        self.sleep = sleep
        self.digest = hashlib.sha256()
        self.size = 0
        self.total: Optional[int] = None
        self.validators: dict[str, str] = {}
        self.downloaded = 0
        self.resumed = False
        self.repeated = False
        self.not_modified = False

    def run(self) -> Fetched:
        os.makedirs(os.path.dirname(self.part), exist_ok=True)
        self._load()
        while True:
            self._complete()
            if self.not_modified:
                return Fetched(not_modified=True)
            found = self.digest.hexdigest()
            if not self.expected or found == self.expected:
                break
            # The first piece may have been of another version of the file. And where a server does not tell the length,
            # a connection that was cut looks like the end. Once more, from the start.
            cut = self.total is None
            again = not self.repeated and (self.resumed or cut)
            size = self.size
            self._reset()
            if not again:
                why = f", or the connection was cut: the server does not tell the length, and {size} bytes came" if cut else ""
                raise AikitError(
                    f"{self.what} has another sha256 than expected: found {found}, expected {self.expected}.",
                    f"Either the file was replaced at its source, or the sha256 is wrong{why}. Nothing was stored.",
                )
            self.say(f"{self.what}: {'the pieces do not fit together' if self.resumed else 'the sha256 is another one'}, starting again")
            self.resumed = False
            self.repeated = True
        with open(self.part, "rb") as handle:
            os.fsync(handle.fileno())
        return Fetched(self.size, found, self.downloaded, self.resumed, dict(self.validators))

    def _load(self) -> None:
        """Take up what an earlier run left, if it can be continued."""
        size = part_size(self.part)
        meta = files.read_json(self.part + ".json")
        validators = meta.get("validators")
        if isinstance(validators, dict) and all(isinstance(value, str) for value in validators.values()):
            self.validators = validators
        total = meta.get("total")
        same_boot = meta.get("boot") == _boot_id()
        # After a power cut a file may have its length and not its bytes; only a digest would notice.
        continued = bool(self.expected) or (_if_range(self.validators) != "" and same_boot)
        if not size or not continued or (isinstance(total, int) and size > total):
            self._reset()
            return
        self.total = total if isinstance(total, int) else None
        self.say(f"{self.what}: checking the {files.human_bytes(size)} that are here")
        with open(self.part, "rb", buffering=0) as handle, progress.stage(f"check the beginning of {self.client.source.file_name}", size) as current:
            self.size = files.read_into(handle, self.digest.update, current.reach)
        self.resumed = True

    def _reset(self) -> None:
        discard(self.part)
        self.digest = hashlib.sha256()
        self.size = 0
        self.total = None
        self.validators = {}

    def _complete(self) -> None:
        failures = 0
        reached = self.size
        while True:
            try:
                self._attempt()
                return
            except Retry as exc:
                # Only new ground counts: a server that cannot continue sends the same beginning for ever.
                failures = 1 if self.size - reached >= PROGRESS_BYTES else failures + 1
                reached = max(reached, self.size)
                if failures >= MAX_ATTEMPTS:
                    kept = f", {files.human_bytes(self.size)} are here" if self.size else ""
                    hint = " ".join(part for part in (exc.hint, RUN_AGAIN if self.size else "") if part)
                    raise AikitError(f"{self.what} could not be downloaded: {exc} ({MAX_ATTEMPTS} attempts{kept}).", hint) from None
                wait = min(MAX_WAIT_SECONDS, exc.wait_seconds if exc.wait_seconds is not None else 2.0 ** (failures - 1))
                self.say(f"{self.what}: {exc}; next attempt in {wait:g} s")
                self.sleep(wait)

    def _attempt(self) -> None:
        """One request; returns when the part is complete."""
        if self.expected and self.size and self.size == self.total:
            return
        headers: dict[str, str] = {}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if _if_range(self.validators):
                headers["If-Range"] = _if_range(self.validators)
        else:
            headers.update(self.conditions)
        with contextlib.closing(self.client.request("GET", headers)) as response:
            if response.status == 304 and self.conditions:
                self.not_modified = True
            elif response.status == 416 and self.size:
                self._past_the_end(response)
            elif response.status in (200, 206):
                self._receive(response)
            else:
                raise AikitError(f"{self.shown} answered with HTTP status {response.status}, which was not asked for.", "Check the address.")

    def _past_the_end(self, response: Any) -> None:
        dummy, total = content_range(response)
        if total == self.size:
            return
        self._restart("the server has fewer bytes than are here")

    def _restart(self, reason: str) -> None:
        self._reset()
        self.resumed = False
        raise Retry(reason, 0.0)

    def _receive(self, response: Any) -> None:
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise AikitError(
                f"{self.shown} is sent compressed ({encoding}), although that was not asked for.", "Give an address that serves the file as it is."
            )
        validators = validators_of(response)
        if response.status == 206:
            start, total = content_range(response)
            other = self.validators.get("etag") and validators.get("etag") and self.validators["etag"] != validators["etag"]
            if start != self.size or other or (self.total is not None and total is not None and total != self.total):
                self._restart("the file has changed on the server")
        else:
            total = announced_bytes(response)
            if self.size:
                self.say(f"{self.what}: the server sends it from the start")
            self._reset()
            self.resumed = False
        self.total, self.validators = total, validators
        if total is not None:
            files.require_space(os.path.dirname(self.part), total - self.size, self.what)
        meta = {"source": self.shown, "validators": validators, "total": total, "boot": _boot_id()}
        files.write_atomic(self.part + ".json", json.dumps(meta, sort_keys=True).encode(), 0o600, durable=False)
        try:
            self._body(response)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._reset()
            raise AikitError(
                f"No space left in {os.path.dirname(self.part)} for {self.what}; the part was removed.", "Free some space, or choose another `store`."
            ) from None
        if self.total is not None and self.size < self.total:
            raise Retry(f"the connection ended after {self.size} of {self.total} bytes")

    def _body(self, response: Any) -> None:
        buffer = memoryview(bytearray(files.READ_BYTES))
        reported = time.monotonic()
        with open(self.part, "ab", buffering=0) as handle, progress.stage(f"download {self.client.source.file_name}", self.total) as current:
            current.start_at(self.size)
            while True:
                try:
                    count = response.readinto(buffer)
                except (OSError, http.client.HTTPException) as exc:
                    raise Retry(f"the connection broke after {self.size} bytes ({getattr(exc, 'strerror', None) or type(exc).__name__})") from None
                if not count:
                    return
                if self.total is not None and self.size + count > self.total:
                    raise AikitError(f"{self.shown} sends more than the {self.total} bytes that it announced.", "Report it to whoever runs that server.")
                files.write_all(handle, buffer[:count])
                self.digest.update(buffer[:count])
                self.size += count
                self.downloaded += count
                current.advance(count)
                if time.monotonic() - reported >= REPORT_SECONDS:
                    reported = time.monotonic()
                    of = f" of {files.human_bytes(self.total)}" if self.total else ""
                    self.say(f"{self.what}: {files.human_bytes(self.size)}{of}")


def retrying(attempt: Callable[[], Result], what: str, say: Say = silent, sleep: Callable[[float], None] = time.sleep) -> Result:
    """What ``attempt`` returns, tried again while it raises :class:`Retry`; for answers that are small."""
    for failures in range(1, MAX_ATTEMPTS + 1):
        try:
            return attempt()
        except Retry as exc:
            if failures == MAX_ATTEMPTS:
                raise AikitError(f"{what}: {exc} ({MAX_ATTEMPTS} attempts).", exc.hint) from None
            wait = min(MAX_WAIT_SECONDS, exc.wait_seconds if exc.wait_seconds is not None else 2.0 ** (failures - 1))
            say(f"{what}: {exc}; next attempt in {wait:g} s")
            sleep(wait)
    raise AssertionError("unreachable")


def read_body(response: Any, limit: int, what: str) -> bytes:
    """The whole body of a small answer; :class:`Retry` where it is cut."""
    try:
        with contextlib.closing(response):
            body = response.read(limit + 1)
    except (OSError, http.client.HTTPException) as exc:
        raise Retry(f"the connection broke ({getattr(exc, 'strerror', None) or type(exc).__name__})") from None
    if len(body) > limit:
        raise AikitError(f"{what} answers with more than {limit} bytes.", "Check the address.")
    return bytes(body)


def lower(headers: Any) -> dict[str, str]:
    """Headers with their names in lower case."""
    return {str(key).lower(): str(value) for key, value in headers.items()}


def same_origin(first: str, second: str) -> bool:
    """Whether two URLs have the same scheme, host and port, so that a token for one may be sent to the other."""
    return _origin(first) == _origin(second)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def validators_of(response: Any) -> dict[str, str]:
    found = {"etag": response.headers.get("ETag", ""), "last_modified": response.headers.get("Last-Modified", "")}
    return {key: value for key, value in found.items() if value}


def _if_range(validators: Mapping[str, str]) -> str:
    """What If-Range may hold: a strong ETag, else a date (RFC 9110, 13.1.5)."""
    etag = validators.get("etag", "")
    return etag if etag and not etag.startswith("W/") else validators.get("last_modified", "")


def conditional(validators: Mapping[str, str]) -> dict[str, str]:
    if validators.get("etag"):
        return {"If-None-Match": validators["etag"]}
    if validators.get("last_modified"):
        return {"If-Modified-Since": validators["last_modified"]}
    return {}


def announced_bytes(response: Any) -> Optional[int]:
    return _number(response.headers.get("Content-Length", ""))


def content_range(response: Any) -> tuple[Optional[int], Optional[int]]:
    """Start and total of ``bytes 5-9/10`` and ``bytes */10``; None for what is not there."""
    unit, dummy, rest = response.headers.get("Content-Range", "").strip().partition(" ")
    span, dummy, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit.lower() != "bytes":
        return None, None
    return _number(start), _number(total)


def _number(text: str) -> Optional[int]:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _retry_after(text: Optional[str]) -> Optional[float]:
    if not text:
        return None
    seconds = _number(text)
    if seconds is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def part_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def discard(part: str) -> None:
    for path in (part, part + ".json"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""
