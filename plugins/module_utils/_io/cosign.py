# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have cosign verify what a build takes, and sign what it makes. Images are named by digest, always."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import tempfile
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

from .._core import cosign as rules
from .._core import registry as names
from .._core.cosign import Connection, Demand, Policy
from .._core.plan import Action, Plan, report
from . import command, files
from .registry import Registry, RegistrySettings
from .registry_login import docker_config

# cosign gives up after three minutes itself
SECONDS = 240.0

Run = Callable[[Sequence[str], float, Mapping[str, str]], "tuple[int, str, str]"]


class Cosign:
    """The program. It is looked for when it is needed first."""

    def __init__(self, settings: RegistrySettings, run: Run = command.run) -> None:
        self.settings = settings
        self._run = run
        self._new_form: Optional[bool] = None

    def available(self) -> bool:
        return shutil.which("cosign") is not None

    def new_form(self, what: str, signing: bool = False) -> bool:
        """Whether it is a cosign 3; one that is missing or too old is an error."""
        if self._new_form is None:
            helps = []
            for verb in ("verify", "sign"):
                status, output, errors = self._run(["cosign", verb, "--help"], SECONDS, {})
                if status in (command.NOT_FOUND, command.TIMED_OUT):
                    raise rules.trouble(what, status, errors, signing)
                helps.append(output + errors)
            self._new_form = rules.check_features(*helps, signing)
        return self._new_form

    def call(self, argv: Callable[[Connection], list[str]], host: str, environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run cosign with the logins and the certificates of the task."""
        with _workspace() as work:
            login = docker_config(work, self.settings.auth_file, names.given_logins(self.settings.logins))
            insecure = host in {names.check_host(entry, "registry_insecure") for entry in self.settings.insecure}
            connection = Connection(_certificates(work, self.settings.ca_file), insecure)
            return self._run(argv(connection), SECONDS, {**login, **environment})

    def verify(self, wanted: Demand, digest: str) -> tuple[int, str, str]:
        self.new_form(f"verify: {wanted.repository}@{digest}")
        environment = rules.verify_command(wanted, digest, Connection())[1]
        return self.call(lambda connection: rules.verify_command(wanted, digest, connection)[0], wanted.repository.partition("/")[0], environment)


class Verifier:
    """Verifies the images of one run, each once, and remembers over runs what was verified."""

    def __init__(self, policy: Policy, cosign: Cosign, source_of: Callable[[str], str], records: str, check_mode: bool) -> None:
        self.policy = policy
        self.cosign = cosign
        self.source_of = source_of
        self.records = records
        self.check_mode = check_mode
        self.verified: list[dict[str, str]] = []
        self.skipped: list[dict[str, str]] = []

    def verify(self, ref: str, digest: str, mirrors: bool = True) -> None:
        """Refuse an image that lacks the signature it must have. ``mirrors`` is false for what is read from its own registry in any case."""
        repository = names.parse_name(ref, "verify").full_repository
        source_of = self.source_of if mirrors else str
        wanted = rules.demand(self.policy, repository, source_of)
        if isinstance(wanted, str):
            self.skip(ref, digest, wanted)
            return
        record = os.path.join(self.records, rules.record_key(wanted, digest, _key_digest(wanted.key)) + ".json")
        by = str(files.read_json(record).get("by") or "")
        if not by:
            if self.check_mode and not self.cosign.available():
                self.skip(ref, digest, f"check mode: cosign is not on the build host, and a signature by {wanted.by} is needed")
                return
            status, output, errors = self.cosign.verify(wanted, digest)
            if status:
                raise rules.refusal(wanted, digest, status, errors, self.cosign.new_form(""))
            by = rules.signed_by(output, wanted)
            if not self.check_mode:
                os.makedirs(self.records, exist_ok=True)
                files.write_atomic(record, json.dumps({"ref": ref, "digest": digest, "by": by}, sort_keys=True).encode())
        entry = {"ref": ref, "digest": digest, "by": by}
        if entry not in self.verified:
            self.verified.append(entry)

    def skip(self, ref: str, digest: str, reason: str) -> None:
        entry = {"ref": ref, "digest": digest, "reason": reason}
        if entry not in self.skipped:
            self.skipped.append(entry)


class Signer:
    """Signs one image with the user's key, unless it has that signature."""

    def __init__(self, cosign: Cosign, key: str, password: str, tlog: bool) -> None:
        self.cosign = cosign
        self.key = os.path.expanduser(key) if "://" not in key else key
        self.secret = {"COSIGN_PASSWORD": password}
        self.tlog = tlog

    def check(self) -> None:
        """Before anything is built: cosign and the key are there, and the password opens it."""
        self._public_key()

    def _public_key(self) -> bytes:
        what = f"sign_key: {self.key}"
        self.cosign.new_form(what, signing=True)
        status, output, errors = self.cosign.call(lambda dummy: rules.public_key_command(self.key), "", self.secret)
        if status:
            raise rules.trouble(what, status, errors, signing=True)
        return output.encode()

    def is_signed(self, name: str, digest: str) -> bool:
        repository = names.parse_name(name).full_repository
        with _workspace() as work:
            path = os.path.join(work, "public.pem")
            files.write_atomic(path, self._public_key(), durable=False)
            status, _output, errors = self.cosign.verify(Demand(repository, key=path, ignore_tlog=not self.tlog), digest)
        if status and not rules.is_unsigned(status, errors):
            raise rules.trouble(f"sign_key: {repository}@{digest}", status, errors, signing=True)
        return status == 0

    def sign(self, name: str, digest: str) -> None:
        repository = names.parse_name(name).full_repository
        what = f"sign_key: {repository}@{digest}"
        new_form = self.cosign.new_form(what, signing=True)

        def argv(connection: Connection) -> list[str]:
            return rules.sign_command(self.key, f"{repository}@{digest}", self.tlog, new_form, connection)

        status, _output, errors = self.cosign.call(argv, repository.partition("/")[0], self.secret)
        if status:
            raise rules.trouble(what, status, errors, signing=True)


def records_beside(cache: str) -> str:
    """Where it is remembered what was verified: beside the digest cache."""
    return os.path.join(os.path.dirname(os.path.expanduser(cache).rstrip("/")), "signatures")


def verify_image(name: str, verify: Optional[Mapping[str, Any]], cache: str, settings: RegistrySettings, check_mode: bool) -> dict[str, Any]:
    """The result of module aikit_image_verify. No registry is asked about an image that needs no signature."""
    remote = names.parse_name(name)
    policy = rules.parse_policy(verify)
    mirrors = names.check_mirrors(settings.mirrors)

    def source_of(repository: str) -> str:
        return names.mirrored(repository, mirrors)

    verifier = Verifier(policy, Cosign(settings), source_of, records_beside(cache), check_mode)
    digest = remote.digest
    if not digest and not isinstance(rules.demand(policy, remote.full_repository, source_of), str):
        registry = Registry(settings)
        try:
            digest = registry.raw_manifest(registry.source_of(remote), remote.reference, remote.text)[0]
        finally:
            registry.close()
    verifier.verify(name, digest)
    pull = f"{remote.full_repository}@{digest}" if verifier.verified else ""
    return report(Plan(), digest=digest, pull=pull, signatures={"verified": verifier.verified, "skipped": verifier.skipped})


class Signatures:
    """Both sides for one run of a builder: ``request`` has the options of the module."""

    def __init__(self, request: Any, check_mode: bool, cosign: Optional[Cosign] = None) -> None:
        rules.check_sign(request.sign_key, request.sign_password, bool(request.sign_tlog), bool(request.push))
        policy = rules.parse_policy(request.verify)
        self.check_mode = check_mode
        self.cosign = cosign or Cosign(request.registry_settings)
        mirrors = names.check_mirrors(request.registry_mirrors or {})
        self.verifier = Verifier(policy, self.cosign, lambda repository: names.mirrored(repository, mirrors), records_beside(request.cache), check_mode)
        self.signer = Signer(self.cosign, request.sign_key, request.sign_password or "", bool(request.sign_tlog)) if request.sign_key else None
        self.signed: dict[str, Any] = {}
        # An earlier task may be the one that installs it
        self.absent = check_mode and not self.cosign.available()
        if self.signer is not None and not self.absent:
            self.signer.check()

    def verify(self, ref: str, digest: str, mirrors: bool = True) -> None:
        self.verifier.verify(ref, digest, mirrors)

    def skip(self, ref: str, digest: str, reason: str) -> None:
        """Name what is taken and has no place for a signature."""
        self.verifier.skip(ref, digest, reason)

    def plan(self, name: str, digest: str, pushed: bool) -> tuple[Action, ...]:
        """What is to be done for a signature; ``pushed`` is whether the registry has the image already."""
        if self.signer is None:
            return ()
        lacking = not digest or not pushed or self.absent or not self.signer.is_signed(name, digest)
        self.signed = {"ref": name, "digest": digest, "key": self.signer.key, "tlog": self.signer.tlog, "changed": lacking}
        return (Action("sign", name, f"key {self.signer.key}"),) if lacking else ()

    def apply(self, name: str, digest: str) -> None:
        """Sign what :meth:`plan` found unsigned. An image that is back in the registry may have its signature still."""
        if self.signer is not None and self.signed.get("changed") and not self.check_mode and not self.signer.is_signed(name, digest):
            self.signer.sign(name, digest)
            self.signed["digest"] = digest

    def result(self) -> dict[str, Any]:
        return {"verified": self.verifier.verified, "skipped": self.verifier.skipped, "signed": self.signed}


def _key_digest(key: str) -> str:
    """Which key a file holds now; a key elsewhere is known by its name alone."""
    path = os.path.expanduser(key)
    return files.sha256_file(path) if key and os.path.isfile(path) else ""


def _certificates(work: str, ca_file: Optional[str]) -> str:
    """cosign trusts one file alone: the system's certificates and the one that was named."""
    if not ca_file:
        return ""
    paths = ssl.get_default_verify_paths()
    content = b""
    for path in (paths.cafile or paths.openssl_cafile, os.path.expanduser(ca_file)):
        if path and os.path.isfile(path):
            with open(path, "rb") as handle:
                content += handle.read() + b"\n"
    target = os.path.join(work, "ca.pem")
    files.write_atomic(target, content, durable=False)
    return target


@contextlib.contextmanager
def _workspace() -> Iterator[str]:
    """A folder that nobody else can look into, gone afterwards."""
    path = tempfile.mkdtemp(prefix="aikit-cosign-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
