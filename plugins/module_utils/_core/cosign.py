# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of images: whose is asked for, how cosign is called, and what its answers mean.

Sources: cosign's help and answers, versions 2.5.0 and 3.1.1 of Debian.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Union

from . import data_cosign
from .errors import AikitError

NONE = "none"
KEY = "key"
AUTO = "auto"
INSTALL = "Install cosign on the build host (Debian 13: apt install cosign)"
MISSING_HINT = f"{INSTALL}, or take images unverified with verify: {{mode: none}}."
SIGN_HINT = f"{INSTALL}, or leave sign_key out."
OPT_OUT = "verify: {mode: none} takes it as it is."

# cosign's own exit codes
_NO_SIGNATURE = 10
_NO_MATCH = 12
# The first is of signatures as cosign 2 wrote them, the second of bundles
_SUBJECTS = re.compile(r"got subjects \[([^\]]*)\]|expected SAN value to match[^\n]*, got \"([^\"]*)\"")
_OTHERS = ("none of the expected identities matched", "no matching CertificateIdentity")
_NO_MATCHES = ("no matching signatures", "no matching attestations")
_NETWORK = re.compile(r"dial tcp|no such host|i/o timeout|connection refused|TLS handshake timeout|context deadline exceeded|network is unreachable", re.I)
_SIGSTORE = re.compile(r"\btuf\b|rekor|fulcio|sigstore\.dev", re.I)
_DENIED = re.compile(r"UNAUTHORIZED|DENIED|status code 40[13]|unexpected status.* 40[13]", re.I)


@dataclass(frozen=True)
class Policy:
    """What has to be signed: what AIKit signs (``auto``), everything with one key (``key``), or nothing (``none``)."""

    mode: str = AUTO
    key: str = ""
    identity: str = ""
    issuer: str = ""
    mirrors: bool = False
    ignore_tlog: bool = False


@dataclass(frozen=True)
class Demand:
    """The signature that an image must have. ``repository`` is where the image is read from, ``signatures`` where its signatures are, if elsewhere."""

    repository: str
    key: str = ""
    identity: str = ""
    issuer: str = ""
    signatures: str = ""
    ignore_tlog: bool = False

    @property
    def by(self) -> str:
        return f"key {self.key}" if self.key else f"{self.identity} ({self.issuer})"


@dataclass(frozen=True)
class Connection:
    """How a registry is reached."""

    ca_file: str = ""
    insecure: bool = False

    @property
    def options(self) -> list[str]:
        found = [f"--registry-cacert={self.ca_file}"] if self.ca_file else []
        return [*found, "--allow-insecure-registry=true", "--allow-http-registry=true"] if self.insecure else found


def parse_policy(given: Optional[Mapping[str, Any]]) -> Policy:
    """Option ``verify``."""
    values = {name: value for name, value in (given or {}).items() if value is not None}
    policy = Policy(**values)
    if policy.mode == KEY and not policy.key:
        raise AikitError("verify.key: mode key needs a public key.", "Give the path of cosign.pub on the build host, or the reference of a key in a KMS.")
    only = {"key": KEY, "ignore_tlog": KEY, "identity": AUTO, "issuer": AUTO, "mirrors": AUTO}
    for name, mode in only.items():
        if values.get(name) and policy.mode != mode:
            raise AikitError(f"verify.{name}: mode is {policy.mode}, and {name} is for mode {mode}.", f"Set mode: {mode}, or leave {name} out.")
    if policy.issuer and not policy.identity:
        raise AikitError("verify.issuer: there is no identity with it.", "Give identity, too: a regular expression for who signed.")
    if policy.identity and not policy.identity.startswith("^"):
        raise AikitError(
            f"verify.identity: {policy.identity!r} fits anywhere in a name, so others could sign with a name that holds it.", "Begin it with ^ and https://."
        )
    return policy


def demand(policy: Policy, repository: str, source_of: Callable[[str], str]) -> Union[Demand, str]:
    """What an image of ``repository`` has to show; or in words why nothing. ``source_of`` says where a repository is read from."""
    source = source_of(repository)
    if policy.mode == NONE:
        return "verify.mode is none"
    if policy.mode == KEY:
        return Demand(source, key=policy.key, ignore_tlog=policy.ignore_tlog)
    signer = signer_of(repository)
    if signer is None:
        return f"nobody is known to sign {repository}; it is taken by its digest"
    if signer.unsigned:
        return signer.unsigned
    if source != repository and not policy.mirrors:
        return f"it comes from {source}, a mirror that the user named; verify.mirrors asks for AIKit's signature there, too"
    identity, issuer = policy.identity or signer.identity, policy.issuer or signer.issuer
    return Demand(source, identity=identity, issuer=issuer, signatures=source_of(signer.signatures) if signer.signatures else "")


def signer_of(repository: str) -> Optional[data_cosign.Signer]:
    fitting = [signer for signer in data_cosign.SIGNERS if repository == signer.prefix or repository.startswith(f"{signer.prefix}/")]
    return max(fitting, key=lambda signer: len(signer.prefix), default=None)


# --- calls


def verify_command(wanted: Demand, digest: str, connection: Connection) -> tuple[list[str], dict[str, str]]:
    """cosign's words and environment for one image, by its digest."""
    if wanted.key:
        who = [f"--key={wanted.key}", *(["--insecure-ignore-tlog=true"] if wanted.ignore_tlog else [])]
    else:
        who = [f"--certificate-oidc-issuer={wanted.issuer}", f"--certificate-identity-regexp={wanted.identity}"]
    environment = {"COSIGN_REPOSITORY": wanted.signatures} if wanted.signatures else {}
    return ["cosign", "verify", "--output=json", *who, *connection.options, f"{wanted.repository}@{digest}"], environment


def sign_command(key: str, ref: str, tlog: bool, new_form: bool, connection: Connection) -> list[str]:
    """``new_form`` is for a cosign that would write what older ones cannot read."""
    form = ["--use-signing-config=false", "--new-bundle-format=false"] if new_form else []
    return ["cosign", "sign", f"--key={key}", "--yes", f"--tlog-upload={'true' if tlog else 'false'}", *form, *connection.options, ref]


def public_key_command(key: str) -> list[str]:
    return ["cosign", "public-key", f"--key={key}"]


def check_features(verify_help: str, sign_help: str, signing: bool = False) -> bool:
    """Refuse a cosign that is too old; whether it has to be told the form of signatures."""
    lacking = [option for option in data_cosign.NEEDED_OPTIONS if option not in verify_help]
    if lacking:
        raise AikitError(
            f"cosign on the build host is older than {data_cosign.OLDEST}: cosign verify has no {', '.join(lacking)}.",
            "Install a newer one" + (", or leave sign_key out." if signing else f". {OPT_OUT}"),
        )
    return data_cosign.NEW_FORM_OPTION in sign_help


def record_key(wanted: Demand, digest: str, key_sha256: str) -> str:
    """The name under which it is remembered that an image has the signature that is asked for. A digest never stands for anything else."""
    facts = [wanted.repository, digest, wanted.key, key_sha256, wanted.identity, wanted.issuer, wanted.signatures, wanted.ignore_tlog]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


# --- answers


def signed_by(output: str, wanted: Demand) -> str:
    """Who signed, as the certificates say it; the key where it was one."""
    try:
        entries = json.loads(output)
    except (ValueError, RecursionError):
        entries = None
    subjects = []
    for entry in entries if isinstance(entries, list) else ():
        optional = entry.get("optional") if isinstance(entry, dict) else None
        subject = optional.get("Subject") if isinstance(optional, dict) else None
        if isinstance(subject, str) and subject:
            subjects.append(subject)
    return ", ".join(dict.fromkeys(subjects)) if subjects and not wanted.key else wanted.by


def is_unsigned(status: int, text: str) -> bool:
    """Whether cosign looked, and there is no signature of the key that was asked for."""
    return status in (_NO_SIGNATURE, _NO_MATCH) or "no signatures found" in text or any(words in text for words in _NO_MATCHES)


def refusal(wanted: Demand, digest: str, status: int, text: str, reads_bundles: bool) -> AikitError:
    """What to tell people when an image could not be verified. ``reads_bundles`` is whether this cosign knows the signatures of cosign 3."""
    ref = f"{wanted.repository}@{digest}"
    said = last_error(text)
    if any(words in text for words in _OTHERS):
        found = _SUBJECTS.search(text)
        name = (found.group(1) or found.group(2)) if found else ""
        hint = "Do not use it before you know why. If that signer is right, name it with verify.identity."
        return AikitError(f"{ref} is signed{' by ' if name else ''}{name}, and not by {wanted.by}.", hint)
    if status == _NO_MATCH or any(words in text for words in _NO_MATCHES):
        return AikitError(f"{ref} has no signature by {wanted.by}: {said}", "Do not use it before you know why: check the key and where the image comes from.")
    if status == _NO_SIGNATURE or "no signatures found" in text:
        old = "" if reads_bundles else "This cosign does not see the signatures that cosign 3 writes: try with that one. "
        copied = "A copy in another registry needs its signatures, too (cosign copy takes them along). "
        return AikitError(f"{ref} is not signed, as far as cosign can see; expected is {wanted.by}.", f"{old}{copied}{OPT_OUT}")
    return trouble(f"verify: {ref}", status, text)


def trouble(what: str, status: int, text: str, signing: bool = False) -> AikitError:
    """cosign failed before it could say anything about a signature, or make one."""
    said = last_error(text)
    if status == 127:
        return AikitError(f"{what}: cosign is not on the build host.", SIGN_HINT if signing else MISSING_HINT)
    if "decryption failed" in text:
        return AikitError(f"{what}: the password does not open the key.", "Set sign_password to the key's password.")
    if "loading public key" in text or re.search(r"open [^:]+: no such file", text):
        return AikitError(f"{what}: the key cannot be read: {said}", "Give the path of a key on the build host.")
    if _SIGSTORE.search(text) and _NETWORK.search(text):
        if signing:
            hint = "The public log is at rekor.sigstore.dev: allow it, or leave sign_tlog out."
            return AikitError(f"{what}: sigstore's log cannot be reached: {said}", hint)
        return AikitError(
            f"{what}: sigstore's keys and log cannot be reached: {said}",
            "Keyless signatures need tuf-repo-cdn.sigstore.dev (and rekor.sigstore.dev for some): allow them, or take a mirror's own key with "
            "verify: {mode: key, key: …, ignore_tlog: true}. " + OPT_OUT,
        )
    if _DENIED.search(text):
        return AikitError(f"{what}: the registry refuses: {said}", "Log in there (docker login), or set registry_logins or registry_auth_file.")
    return AikitError(f"{what}: cosign failed ({status}): {said}", f"Run it by hand to see more: cosign {'sign' if signing else 'verify'} --verbose.")


def last_error(text: str) -> str:
    """The line that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.partition("Error: ")[2] for line in lines if line.startswith("Error: ")]
    return (errors or [line for line in lines if not line.startswith("WARNING")] or [""])[-1][:500]


def check_sign(key: Optional[str], password: Optional[str], tlog: bool, push: bool) -> None:
    """Options ``sign_key``, ``sign_password`` and ``sign_tlog``."""
    if not key:
        if password or tlog:
            raise AikitError(f"{'sign_password' if password else 'sign_tlog'}: there is no sign_key to sign with.", "Set sign_key, or leave it out.")
        return
    if not push:
        raise AikitError("sign_key: signatures are kept in a registry, and the image is not pushed.", "Set push: true, or leave sign_key out.")
