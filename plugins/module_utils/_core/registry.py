# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a client of container registries decides: names, logins, challenges, retries, and what to tell people.

Sources: OCI distribution specification 1.1; Docker's token authentication (distribution, spec/auth/token.md) and
config.json; containers-auth.json(5) of Podman and skopeo.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from . import data_registry, model_source, reference
from .errors import AikitError, Finding
from .oci import is_digest

DOCKER_HUB = "docker.io"
DOCKER_HUB_HOST = "registry-1.docker.io"
# The key that `docker login` writes for Docker Hub
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
MAX_ATTEMPTS = 5
MAX_WAIT_SECONDS = 120.0
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
# What registries answer to a chunk where they take a blob only whole: GitHub's says 416, and that the body is too large
NO_CHUNKS_STATUS = (400, 404, 405, 410, 413, 416, 501)
REDIRECT_STATUS = (301, 302, 303, 307, 308)
# Below this a blob is sent in one request
MONOLITHIC_BYTES = 16 * 1024 * 1024
# A connection that is cut costs this much at most, where a registry keeps the chunks that came whole
CHUNK_BYTES = 64 * 1024 * 1024
DEFAULT_TOKEN_SECONDS = 60.0

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
_CHALLENGE = re.compile(r"\s*([A-Za-z][A-Za-z0-9._-]*)(?:\s+|\s*$|(?=,))")
_PARAMETER = re.compile(r'\s*([A-Za-z][A-Za-z0-9._-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_NAMESPACE = re.compile(r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*")


@dataclass(frozen=True)
class RemoteName:
    """A name of an image in a registry: ``host`` as people write it, ``repository`` without it; one of ``tag`` and ``digest`` may be empty."""

    host: str
    repository: str
    tag: str
    digest: str

    @property
    def full_repository(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def reference(self) -> str:
        """What a registry is asked for: the digest where there is one."""
        return self.digest or self.tag

    @property
    def text(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}{'@' if self.digest else ''}{self.digest}"

    def at(self, digest: str) -> "RemoteName":
        """The same image by its digest alone."""
        return RemoteName(self.host, self.repository, "", digest)


def parse_name(text: str, option: str = "name") -> RemoteName:
    """Read ``[host/]path[:tag][@digest]``; Docker Hub is ``docker.io``, and its official images are below ``library/``."""
    plain, at, digest = text.partition("@")
    if (at and not is_digest(digest)) or not reference.complete(plain):
        raise AikitError(f"{option}: {text!r} is no image reference.", reference.HINT)
    rest, tag = reference.split_tag(plain)
    if at and rest == plain:
        tag = ""
    host, repository = split_repository(rest)
    return RemoteName(host, repository, tag, digest)


def split_repository(text: str) -> tuple[str, str]:
    """``host`` and path of a repository; what has no registry in front is on Docker Hub, as for every engine."""
    first, slash, rest = text.partition("/")
    if slash and names_registry(text):
        host, path = first.lower(), rest
    else:
        host, path = DOCKER_HUB, text
    if host in ("index.docker.io", DOCKER_HUB_HOST):
        host = DOCKER_HUB
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return host, path


def names_registry(text: str) -> bool:
    """Whether the name of an image begins with the host of a registry (a dot, a port, or localhost)."""
    first, slash, dummy = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())


def api_host(host: str) -> str:
    """The host that answers for a registry."""
    return DOCKER_HUB_HOST if host == DOCKER_HUB else host


def check_host(text: str, option: str) -> str:
    """A host with or without a port, as registries are named; a scheme or a path is refused."""
    host = text.strip().lower()
    if not _HOST.fullmatch(host):
        raise AikitError(f"{option}: {text!r} is no registry.", "Give host or host:port alone, without https:// and without a path.")
    return host


def check_mirrors(mirrors: Mapping[str, Any], option: str = "mirrors") -> dict[str, str]:
    """``{prefix: replacement}`` of repositories, both ``host[/path]``."""
    found = {}
    for key, value in mirrors.items():
        pair = []
        for text in (key, value):
            host, slash, path = str(text).strip().rstrip("/").partition("/")
            check_host(host, option)
            if slash and not _NAMESPACE.fullmatch(path):
                raise AikitError(f"{option}: {text!r} is no registry, and no repository in one.", "Write host[:port][/path] on both sides.")
            pair.append(f"{host.lower()}{slash}{path}")
        found[pair[0]] = pair[1]
    return found


def mirrored(repository: str, mirrors: Mapping[str, str]) -> str:
    """Where ``host/path`` is read from; the longest prefix counts, which ends at a slash."""
    for prefix in sorted(mirrors, key=len, reverse=True):
        if repository == prefix or repository.startswith(f"{prefix}/"):
            return mirrors[prefix] + repository[len(prefix) :]
    return repository


# --- logins


@dataclass(frozen=True)
class Credentials:
    """A login. ``identity_token`` stands for a password where a registry gave one."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.user!r})"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True)
class Login:
    """What a login file says of a repository: credentials, or the helper that has them and the name that it knows them by."""

    credentials: Optional[Credentials] = None
    helper: str = ""
    server: str = ""


def given_logins(entries: Iterable[Mapping[str, Any]], option: str = "registry_logins") -> dict[str, Credentials]:
    """Logins that a task names, by registry."""
    found = {}
    for entry in entries:
        host = check_host(str(entry.get("registry") or ""), f"{option}.registry")
        user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if not user or not password:
            raise AikitError(f"{option}: {host} has no {'username' if not user else 'password'}.", "Give both, or leave the registry out.")
        found[DOCKER_HUB if host in ("index.docker.io", DOCKER_HUB_HOST) else host] = Credentials(user, password)
    return found


def find_login(document: Mapping[str, Any], host: str, repository: str, where: str) -> Login:
    """The login of ``host/repository`` in a login file of Docker or Podman. ``where`` is its path.

    Podman's file may have logins of namespaces, the longest counts. A helper of the registry goes before what stands in the file,
    and that before the helper of all registries, as in Docker.
    """
    hub = host == DOCKER_HUB
    helpers = document.get("credHelpers")
    keys = [DOCKER_HUB_KEY, DOCKER_HUB, "index.docker.io", DOCKER_HUB_HOST] if hub else [host]
    if isinstance(helpers, dict):
        for key in keys:
            if isinstance(helpers.get(key), str) and helpers[key]:
                return Login(helper=_helper(helpers[key], where), server=DOCKER_HUB_KEY if hub else host)
    auths = document.get("auths")
    stored = {_login_key(key): (key, value) for key, value in auths.items()} if isinstance(auths, dict) else {}
    path = f"{host}/{repository}"
    while path:
        for key in (path,) if "/" in path else [_login_key(key) for key in keys]:
            if key in stored:
                name, entry = stored[key]
                credentials = _credentials(entry, f"{where}: auths: {name}")
                if credentials is not None:
                    return Login(credentials)
        path = path.rpartition("/")[0]
    store = document.get("credsStore")
    if isinstance(store, str) and store:
        return Login(helper=_helper(store, where), server=DOCKER_HUB_KEY if hub else host)
    return Login()


def parse_login_file(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON of a login file."""
    try:
        document = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AikitError(f"{where} is no login file: it holds no JSON object.", "Log in again with docker login or podman login.")
    return document


def parse_helper_answer(raw: bytes, helper: str) -> Credentials:
    """What ``docker-credential-X get`` prints."""
    try:
        found = json.loads(raw)
        user, secret = found["Username"], found["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise AikitError(f"{helper} did not answer with a user and a secret.", "Log in again with docker login.")
    return Credentials(identity_token=secret) if user == "<token>" else Credentials(user, secret)


def helper_has_none(text: str) -> bool:
    """Whether a helper says that it knows no login, which is no error: the registry may need none."""
    return "credentials not found" in text.lower()


def _helper(name: str, where: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise AikitError(f"{where}: {name!r} is no name of a credential helper.", "It is what follows docker-credential- in the name of the program.")
    return f"docker-credential-{name}"


def _login_key(key: str) -> str:
    """Old files have URLs for keys: ``https://host/v1/`` is ``host``."""
    text = re.sub(r"^https?://", "", key.strip().lower())
    return re.sub(r"/v[12]/?$", "", text).rstrip("/") if text != key.strip().lower() else text.rstrip("/")


def _credentials(entry: Any, where: str) -> Optional[Credentials]:
    if not isinstance(entry, dict):
        return None
    token = entry.get("identitytoken") or entry.get("identityToken")
    if isinstance(token, str) and token:
        return Credentials(identity_token=token)
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            user, colon, password = base64.b64decode(auth, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = user = password = ""
        if not colon:
            raise AikitError(f"{where}: auth is not the base64 of user:password.", "Log in again with docker login or podman login.")
        return Credentials(user, password.rstrip("\0"))
    plain_user, plain_password = entry.get("username"), entry.get("password")
    if isinstance(plain_user, str) and isinstance(plain_password, str) and plain_user:
        return Credentials(plain_user, plain_password)
    return None


@dataclass(frozen=True)
class Challenge:
    """How a registry wants to be asked: ``basic``, or ``bearer`` with the address that gives tokens."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse_challenges(headers: Iterable[str]) -> Optional[Challenge]:
    """The challenge of WWW-Authenticate headers that can be met; a token before a password."""
    found: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        position = 0
        while position < len(header):
            parameter = _PARAMETER.match(header, position)
            if parameter and found:
                value = parameter.group(3) if parameter.group(2) is None else re.sub(r"\\(.)", r"\1", parameter.group(2))
                found[-1][1][parameter.group(1).lower()] = value
                position = parameter.end()
                continue
            scheme = _CHALLENGE.match(header, position)
            if scheme:
                found.append((scheme.group(1).lower(), {}))
                position = scheme.end()
            else:
                # Something that is no challenge: up to the next comma
                position = header.find(",", position) + 1 or len(header)
    for wanted in ("bearer", "basic"):
        for scheme_name, values in found:
            if scheme_name == wanted and (wanted == "basic" or values.get("realm")):
                return Challenge(wanted, values.get("realm", ""), values.get("service", ""), values.get("scope", ""), values.get("error", ""))
    return None


def scope(repository: str, *actions: str) -> str:
    """What a token is asked for."""
    return f"repository:{repository}:{','.join(actions)}"


@dataclass(frozen=True)
class Token:
    """A bearer token and the seconds that it is good for."""

    value: str
    seconds: float

    def __repr__(self) -> str:
        return f"Token({self.seconds:g} s)"


def parse_token(raw: bytes, where: str) -> Token:
    """The answer of a token server."""
    try:
        found = json.loads(raw)
        value = found.get("token") or found.get("access_token")
        seconds = found.get("expires_in")
    except (ValueError, AttributeError, RecursionError):
        value = seconds = None
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        raise AikitError(f"{where} did not answer with a token.", "Check the registry's settings for its token server.")
    good = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds > 0
    return Token(value, float(seconds) if good else DEFAULT_TOKEN_SECONDS)


# --- transfer


def parse_range(text: str) -> Optional[int]:
    """How many bytes a registry has of an upload, from its Range header (``0-1023`` → 1024); None when it does not say."""
    found = re.fullmatch(r"(?:bytes[= ])?\s*0\s*-\s*([0-9]{1,18}|-1)\s*", text.strip())
    return int(found.group(1)) + 1 if found else None


def upload_position(text: str, sent: int) -> int:
    """Where an upload goes on. Distribution writes ``0-0`` for nothing and for one byte: nothing it is."""
    position = parse_range(text)
    if position is None:
        return 0 if sent == 0 else -1
    return 0 if position == 1 else position


def chunk_bytes(minimum: str, default: int = CHUNK_BYTES) -> int:
    """The size of the chunks of an upload; a registry may want larger ones (OCI-Chunk-Min-Length)."""
    return max(default, int(minimum)) if minimum.isascii() and minimum.isdigit() and len(minimum) < 16 else default


def content_range(text: str) -> tuple[Optional[int], Optional[int]]:
    """First byte and total of a Content-Range header (``bytes 5-9/10`` → 5, 10)."""
    found = re.fullmatch(r"\s*bytes\s+([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)\s*", text, re.I)
    if not found:
        return None, None
    return int(found.group(1)), int(found.group(2)) if found.group(2) != "*" else None


def wait_seconds(failures: int, asked: Optional[float], chance: float) -> float:
    """How long to wait after so many failures in a row; ``chance`` (0 to 1) keeps clients from coming back together."""
    if asked is not None:
        # Never earlier than asked, and not all at the same moment
        return asked + chance
    return float(min(MAX_WAIT_SECONDS, 2.0 ** (failures - 1)) * (0.5 + chance / 2))


def origin(url: str) -> tuple[str, str]:
    """Scheme and host with port, which decide whether a login may be sent along."""
    parts = model_source.split_url(url)
    port = {"https": ":443", "http": ":80"}.get(parts.scheme, "")
    host = parts.host.lower()
    return parts.scheme, host[: -len(port)] if port and host.endswith(port) else host


def check_redirect(source: str, target: str, what: str) -> None:
    """Refuse an address that is none, and one that leaves encryption behind."""
    scheme, host = origin(target)
    if scheme not in ("http", "https") or not host:
        raise AikitError(
            f"{what}: the registry names {model_source.redact(target)[:200]!r}, which is no address.", "Check the registry, and the proxy before it."
        )
    if origin(source)[0] == "https" and scheme != "https":
        raise AikitError(
            f"{what}: the registry names {model_source.redact(target)}, which is not encrypted.",
            "Tell the registry its address (REGISTRY_HTTP_HOST), or let the proxy before it send X-Forwarded-Proto.",
        )


# --- messages


def error_text(raw: bytes) -> str:
    """The errors in the body of an answer, as one line for people."""
    try:
        document = json.loads(raw[:65536])
        errors = document.get("errors")
        entries = errors if isinstance(errors, list) else [document]
        found = [": ".join(str(entry[key]) for key in ("code", "message", "details") if isinstance(entry.get(key), str) and entry[key]) for entry in entries]
        text = "; ".join(entry for entry in found if entry)
    except (ValueError, AttributeError, RecursionError):
        text = ""
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", text)[:400].strip()


def answer_text(host: str, status: int, body: bytes) -> str:
    """What a registry answered, as a clause for people."""
    said = error_text(body)
    return f"{host} answered {status}{f' ({said})' if said else ''}"


def refusal(what: str, host: str, status: int, body: bytes, logged_in: bool, push: bool, denied: bool = False) -> AikitError:
    """What to tell people about a status that another attempt will not mend. ``what`` is a noun phrase.

    ``denied``: the registry knows who asks, and says that the token is for less.
    """
    answer = answer_text(host, status, body)
    login = f"Log in with docker login {host} or podman login {host} on this machine, or name a login file with registry_auth_file."
    if status == 401 and not (denied and logged_in):
        hint = f"The login of {host} was not accepted: is it still valid? {login}" if logged_in else login
    elif status in (401, 403):
        right = "write to" if push else "read"
        hint = f"May this login {right} the repository?" if logged_in else login
    elif status == 404 and push:
        hint = "Some registries want the repository to be made first; others say this when a login may not write to it."
    elif status == 404:
        hint = "Check name and tag; some registries also say this when a login is missing."
    elif status == 413:
        hint = "The registry, or a proxy before it, limits what is sent at once (nginx: client_max_body_size 0)."
    elif status == 405:
        hint = "The registry is read only: a pull-through cache, for example."
    elif status in (429, *RETRY_STATUS):
        hint = "The registry is busy or broken; run again later. What it has already is not sent again."
    else:
        hint = "See the registry's log."
    return AikitError(f"{what}: {answer}.", hint, http_status=status)


def takes_no_chunks(host: str) -> bool:
    """Whether a registry is known to take a blob in one request only."""
    return any(re.fullmatch(entry.host, host) for entry in data_registry.CHUNKLESS)


def layer_findings(host: str, layers: Iterable[tuple[str, int]]) -> tuple[Finding, ...]:
    """Remarks on layers (title and size) that are larger than a registry says it takes."""
    limit = next((entry for entry in data_registry.LIMITS if re.fullmatch(entry.host, host)), None)
    if limit is None:
        return ()
    return tuple(
        Finding(
            "warning",
            "push",
            0,
            f"the layer of {title} has {size} bytes, and {limit.name} takes {limit.layer_bytes} at most",
            "split the model with llama-gguf-split: every part is a layer of its own",
        )
        for title, size in layers
        if size > limit.layer_bytes
    )
