# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a model file comes from, what it is called, and what has to be done to have it in the store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from .errors import AikitError, Finding
from .plan import Action, Plan

HTTPS, HTTP, LOCAL, HUGGINGFACE, OCI = "https", "http", "local", "huggingface", "oci"
NOT_YET = {
    HUGGINGFACE: "Give the file's https:// address (on Hugging Face: /resolve/ instead of /blob/), or download it and give its path.",
    OCI: "Download the artifact with a tool that speaks OCI (oras, for one) and give the path of the file, or give an https:// address.",
}
SECRET_NAME = re.compile("token|secret|password|passwd|signature|^sig$|credential|key|auth|policy", re.IGNORECASE)
SUPPORTED = "Supported are https://, http://, file:// and a path on the host."


@dataclass(frozen=True)
class ModelSource:
    """A parsed ``source``.

    ``location`` is the URL, or the path of a local file. It can hold credentials: show ``shown`` instead.
    """

    kind: str
    location: str
    shown: str
    file_name: str

    @property
    def remote(self) -> bool:
        return self.kind in (HTTPS, HTTP)

    @property
    def key(self) -> str:
        """A name for the source that holds nothing secret and is the same for every user of it."""
        public = self.location
        if self.remote:
            parts = urlsplit(self.location)
            host = parts.netloc.rpartition("@")[2].lower()
            public = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        return hashlib.sha256(public.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file that is in the store, whole, with the digest that its folder says."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Observed:
    """What stands in the store for one request.

    ``stored`` has the wanted content under the wanted name; ``twin`` has the content under another name;
    ``damaged`` is a file of the store whose content is no longer what its folder says.
    """

    stored: Optional[StoredFile] = None
    twin: Optional[StoredFile] = None
    damaged: str = ""


def parse(source: str) -> ModelSource:
    """Parse ``source`` as users and aikitfiles write it; :class:`AikitError` names what is wrong with it."""
    text = source.strip()
    if not text:
        raise AikitError("The model's source is empty.", SUPPORTED)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if "\0" in text or text.endswith("/"):
            raise AikitError(f"The model's source {text!r} is no path of a file.", SUPPORTED)
        return ModelSource(LOCAL, text, text, text.rpartition("/")[2])
    scheme = scheme.lower()
    if scheme == "file":
        return _parse_file_url(text, rest)
    if scheme in (HUGGINGFACE, OCI):
        return ModelSource(scheme, text, redact(text), unquote(rest.rpartition("/")[2]))
    if scheme not in (HTTPS, HTTP):
        hint = f"Did you mean huggingface://{rest}? " if scheme == "hf" else ""
        raise AikitError(f"The model's source {redact(text)} has the unknown scheme {scheme}://.", hint + SUPPORTED)
    return _parse_http(text, scheme)


def require_supported(source: ModelSource) -> None:
    """Refuse what is a valid source of an aikitfile and cannot be fetched."""
    if source.kind in NOT_YET:
        raise AikitError(f"{source.kind}:// sources are not supported yet: {source.shown}.", NOT_YET[source.kind])


def parse_sha256(text: Optional[str]) -> str:
    """A SHA-256 in lower-case hex, "" when none is given; ``sha256:`` in front is allowed."""
    value = (text or "").strip()
    if not value:
        return ""
    digest = value[7:] if value[:7].lower() == "sha256:" else value
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        found = f"{len(digest)} characters" if len(digest) != 64 else "characters that are no hexadecimal digits"
        raise AikitError(f"sha256 {value[:100]!r} is no SHA-256: it has {found}.", "A SHA-256 has 64 hexadecimal digits; `sha256sum FILE` prints it.")
    return digest.lower()


def check_file_name(name: str, origin: str) -> str:
    """The name under which a file can stand in the store; ``origin`` says where the name comes from."""
    fix = "Give `name`, a plain file name such as model.gguf."
    if not name or name in (".", ".."):
        raise AikitError(f"{origin} gives no file name.", fix)
    if "/" in name or not name.isprintable():
        raise AikitError(f"{name!r} ({origin}) is no plain file name.", fix)
    if name.startswith("."):
        raise AikitError(f"{name!r} ({origin}) is a hidden file.", fix)
    if len(name.encode("utf-8", "surrogatepass")) > 200:
        raise AikitError(f"The file name {name[:40]!r}... ({origin}) is longer than 200 bytes.", fix)
    return name


def redact(url: str) -> str:
    """A URL for people and logs: without user, password and fragment, and without the values of its query (signed URLs hold keys there)."""
    try:
        parts = urlsplit(url)
        query = "&".join(f"{quote(key, safe='')}=***" for key, dummy in parse_qsl(parts.query, keep_blank_values=True))
        if parts.query and not query:
            query = "***"
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
    except ValueError:
        return url.partition("://")[0] + "://***"


def secrets(url: str) -> frozenset[str]:
    """The parts of a URL that nobody should see: its password, and values of its query that are named like credentials."""
    try:
        parts = urlsplit(url)
        password = parts.password or ""
        named = [value for key, value in parse_qsl(parts.query) if SECRET_NAME.search(key)]
    except ValueError:
        return frozenset()
    found = [password, unquote(password), *named, *(quote(value, safe="") for value in named)]
    # A short one would also hide innocent text that happens to hold it.
    return frozenset(value for value in found if len(value) >= 6)


def same_origin(first: str, second: str) -> bool:
    """Whether two URLs have the same scheme, host and port, so that a token for one may be sent to the other."""
    return _origin(first) == _origin(second)


def findings(source: ModelSource, sha256: str, token: Optional[str]) -> tuple[Finding, ...]:
    """What is allowed and not wise."""
    found = []
    if source.kind == HTTP and not sha256:
        found.append(
            Finding(
                "warning",
                "source",
                0,
                f"{source.shown} comes over plain HTTP and no sha256 is given: nothing shows that the file is the one you want.",
                "Give its sha256, or use https.",
            )
        )
    if source.kind == HTTP and token:
        found.append(Finding("warning", "token", 0, "The token is sent over plain HTTP, readable by others on the way.", "Use https."))
    return tuple(found)


def plan_present(source: ModelSource, name: str, sha256: str, observed: Observed, size_bytes: Optional[int]) -> Plan:
    """What brings the file into the store. ``size_bytes`` is None where it is not known."""
    if observed.stored:
        state = _state(observed.stored.path, observed.stored.sha256, observed.stored.size_bytes)
        return Plan(before=state, after=state)
    if observed.twin:
        path = observed.twin.path.rpartition("/")[0] + "/" + name
        after = _state(path, observed.twin.sha256, observed.twin.size_bytes)
        return Plan((Action("link", path, f"to {observed.twin.path}"),), {}, after)
    verb = "download" if source.remote else "copy"
    size = f"{size_bytes} bytes" if size_bytes is not None else "size not known"
    actions = [Action(verb, source.shown, f"{size}, as {name}")]
    if observed.damaged:
        actions.insert(0, Action("replace", observed.damaged, "its content is not what its sha256 says"))
    after = {"source": source.shown, "name": name}
    if sha256:
        after["sha256"] = sha256
    return Plan(tuple(actions), {"damaged": observed.damaged} if observed.damaged else {}, after)


def plan_absent(paths: tuple[str, ...]) -> Plan:
    """What takes the files away; ``paths`` are those that are there."""
    return Plan(tuple(Action("remove", path) for path in paths), {"paths": list(paths)} if paths else {}, {})


def _state(path: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    return {"path": path, "sha256": sha256, "size_bytes": size_bytes}


def _parse_file_url(text: str, rest: str) -> ModelSource:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise AikitError(f"The model's source {redact(text)} is no file URL of this host.", "Write file:///absolute/path, or the path alone.")
    path = "/" + unquote(path)
    if path.endswith("/") or "\0" in path:
        raise AikitError(f"The model's source {text} is no path of a file.", SUPPORTED)
    return ModelSource(LOCAL, path, path, path.rpartition("/")[2])


def _parse_http(text: str, scheme: str) -> ModelSource:
    try:
        parts = urlsplit(text)
        good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or any(char.isspace() or not char.isprintable() for char in text):
        raise AikitError(f"The model's source {redact(text)!r} is no valid URL.", f"Write it as {scheme}://host/path, with %20 for a space.")
    if not parts.path.isascii() or not parts.query.isascii():
        # What browsers do with an address that is typed in; urllib sends ASCII only.
        text = urlunsplit((scheme, parts.netloc, quote(parts.path, safe="/%:@!$&'()*+,;=~"), quote(parts.query, safe="/%:@!$&'()*+,;=~?"), ""))
        parts = urlsplit(text)
    location = urlunsplit((scheme, parts.netloc, parts.path or "/", parts.query, ""))
    return ModelSource(scheme, location, redact(location), unquote(parts.path.rpartition("/")[2]))


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme.lower() == HTTPS else 80)
    return parts.scheme.lower(), (parts.hostname or "").lower(), port
