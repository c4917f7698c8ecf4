# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a model file comes from, what it is called, and what has to be done to have it in the store."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from . import hub
from .errors import AikitError, Finding
from .plan import Action, Plan

HTTPS, HTTP, LOCAL, HUGGINGFACE, OCI = "https", "http", "local", "huggingface", "oci"
SECRET_NAME = re.compile("token|secret|password|passwd|signature|^sig$|credential|key|auth|policy", re.IGNORECASE)
# RFC 3986, appendix B, for URLs with an authority.
URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?", re.DOTALL)
HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]@:]+)(?::(?P<port>[0-9]{1,5})?)?")
SUPPORTED = "Supported are https://, http://, huggingface://, oci://, file:// and a path on the host."


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
            url = split_url(self.location)
            public = f"{url.scheme}://{url.host.lower()}{url.path}{url.suffix}"
        elif self.kind == HUGGINGFACE:
            public = hub.parse(self.location).text
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
        return _parse_named(scheme, f"{scheme}://{rest}")
    if scheme not in (HTTPS, HTTP):
        hint = f"Did you mean huggingface://{rest}? " if scheme == "hf" else ""
        raise AikitError(f"The model's source {redact(text)} has the unknown scheme {scheme}://.", hint + SUPPORTED)
    return _parse_http(text, scheme)


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
    parts = split_url(url)
    names = [pair.partition("=")[0] for pair in parts.query.split("&") if pair]
    # What has no "=" may be a key as a whole.
    query = "&".join(f"{name}=***" if "=" in parts.query else "***" for name in names)
    return f"{parts.scheme}://{parts.host}{parts.path}{'?' if query else ''}{query}" if parts.scheme else parts.path


def secrets(url: str) -> frozenset[str]:
    """The parts of a URL that nobody should see: its password, and values of its query that are named like credentials."""
    raw = [split_url(url).user.partition(":")[2], *(value for dummy, value in _secret_pairs(url))]
    return frozenset(value for text in raw for value in (text, unquote(text)) if _is_secret(value))


def secret_names(url: str) -> tuple[str, ...]:
    """The names in a URL's query whose values :func:`secrets` has."""
    return tuple(unquote(name) for name, value in _secret_pairs(url) if _is_secret(value))


def _secret_pairs(url: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in split_url(url).query.split("&")]
    return [(name, value) for name, dummy, value in pairs if SECRET_NAME.search(unquote(name))]


def _is_secret(value: str) -> bool:
    # Hiding a short one would also hide innocent text that happens to hold it.
    return len(value) >= 6


def host_of(source: str, hub_url: str = hub.DEFAULT_URL) -> str:
    """The host that a token for this source goes to, with a port that is not the scheme's own; empty where no token is sent."""
    parts = split_url(hub_url if source.lower().startswith(hub.SCHEME) else source)
    default = {HTTPS: ":443", HTTP: ":80"}.get(parts.scheme)
    if default is None:
        return ""
    host = parts.host.lower().rstrip(":")
    return host[: -len(default)] if host.endswith(default) else host


def tokens_by_source(
    sources: Iterable[str], token: Optional[str], tokens: Mapping[str, str], hub_url: str = hub.DEFAULT_URL
) -> dict[str, Optional[str]]:
    """Which token goes along with each source.

    ``token`` is for all, and refused where they are of several hosts: it is a secret between us and one of them.
    ``tokens`` has one by host.
    """
    known = {}
    for host, value in tokens.items():
        if "/" in host or "@" in host or not host:
            raise AikitError(f"tokens: {redact(host)!r} is no host.", "Write hosts as in the sources: models.example.com, or models.example.com:8443.")
        known[host.lower()] = value
    hosts = {source: host_of(source, hub_url) for source in sources}
    several = sorted({host for host in hosts.values() if host})
    if token and len(several) > 1:
        raise AikitError(
            f"token: the models come from several hosts ({', '.join(several)}), and each of them would get the token.",
            "Give option tokens instead: a mapping of host to token, with the hosts that need one.",
        )
    return {source: (token or known.get(host)) if host else None for source, host in hosts.items()}


def require_pin(source: ModelSource, sha256: str) -> None:
    """Refuse a download of which nothing says what it should be."""
    if source.remote and not sha256:
        raise AikitError(
            f"No sha256 is given for {source.shown}, so nothing would show that the file is the one you want.",
            "Give its sha256 (`sha256sum FILE` prints it), take it from a hub or a registry that tells it (huggingface://, oci://),"
            " or set require_sha256 to false to trust what comes.",
        )


def set_sha256(digests: Mapping[str, str]) -> str:
    """The digest of several files, by their paths: that of what ``sha256sum`` prints of them, sorted by path."""
    lines = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


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
    verb = "copy" if source.kind == LOCAL else "download"
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


def _parse_named(scheme: str, text: str) -> ModelSource:
    shown = redact(text)
    if shown != text or not text.isprintable():
        raise AikitError(f"The model's source {shown!r} has a login, a query or characters that do not belong into it.", "Give a token with the option for it.")
    if scheme == HUGGINGFACE:
        return ModelSource(scheme, text, text, hub.parse(text).path.rpartition("/")[2])
    # Ollama's models and AIKit's frontend: the name of the repository, without its tag
    return ModelSource(scheme, text, text, re.split("[:@]", text.rpartition("/")[2])[0])


def _parse_http(text: str, scheme: str) -> ModelSource:
    parts = split_url(text)
    host = HOST.fullmatch(parts.host)
    port = host.group("port") if host else None
    if not host or (port and not 0 < int(port) < 65536) or not text.isprintable() or re.search(r"[\s\\]", text):
        raise AikitError(f"The model's source {redact(text)!r} is no valid URL.", f"Write it as {scheme}://host/path, with %20 for a space.")
    # What browsers do with an address that is typed in: only ASCII travels.
    path, suffix = _ascii(parts.path or "/"), _ascii(parts.suffix)
    location = f"{scheme}://{parts.user}{'@' if parts.user else ''}{parts.host}{path}{suffix}"
    return ModelSource(scheme, location, redact(location), unquote(path.rpartition("/")[2]))


@dataclass(frozen=True)
class UrlParts:
    """Where a URL falls apart; ``user`` holds the password too, ``host`` the port."""

    scheme: str
    user: str
    host: str
    path: str
    query: str

    @property
    def suffix(self) -> str:
        return f"?{self.query}" if self.query else ""


def split_url(text: str) -> UrlParts:
    """The parts of a URL; a text that is none is all path."""
    found = URL.fullmatch(text)
    if not found:
        return UrlParts("", "", "", text, "")
    user, dummy, host = found.group("authority").rpartition("@")
    return UrlParts(found.group("scheme").lower(), user, host, found.group("path"), found.group("query") or "")


def unquote(text: str) -> str:
    """``%20`` and kin decoded, as UTF-8."""
    return re.sub("(?:%[0-9A-Fa-f]{2})+", lambda found: bytes.fromhex(found.group().replace("%", "")).decode("utf-8", "replace"), text)


def _ascii(text: str) -> str:
    return "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace")) for char in text)
