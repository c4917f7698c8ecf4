# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The store of model files.

The store::

    STORE/sha256/<hex>/<file name>   the files, mode 0444
    STORE/sets/<hex>/<path>          sources of several files, side by side: second links to the same files
    STORE/sources/<key>.json         which content a source gave, where no sha256 was given
    STORE/partial/<key>.part|.json   a download that is under way, and what the server said about it
    STORE/digests/                   digests that need not be computed again

A file appears under ``sha256/`` by one rename, after its digest and its header were checked. What is
killed before that leaves a part that the next run goes on with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Mapping, Optional

from .._core import gguf, hub
from .._core import model_source as sources
from .._core.errors import AikitError, Finding
from .._core.model_source import ModelSource, Observed, StoredFile
from .._core.plan import Plan
from . import files, progress
from .download import TIMEOUT_SECONDS, Fetched, Http, NoHead, Retry, Say, announced_bytes, conditional, discard, fetch, part_size, silent, validators_of

DEFAULT_STORE = "~/.cache/aikit-fleet/models"
FILE_MODE = 0o444
# A repository of a few thousand files
RECORD_BYTES = 8 * 1024 * 1024
TOUCH_SECONDS = 3600
PARTIAL_SUFFIXES = (".part", ".part.json", ".copy", ".link", ".blob", ".blob.part", ".member")
# Looks at a finished download before it becomes a file of the store; raises AikitError
Verify = Callable[[str], None]


@dataclass(frozen=True)
class StoredModel:
    """A model file that is there (or, in check mode, would be), and what it took.

    In check mode ``path`` and ``sha256`` are empty where only the download can tell; ``size_bytes`` is 0 then,
    unless the server said it. ``read_from`` is the file that has the bytes now: in check mode it can be another than
    ``path``, and is empty where there is none.
    """

    path: str
    sha256: str
    size_bytes: int
    plan: Plan = Plan()
    downloaded_bytes: int = 0
    resumed: bool = False
    findings: tuple[Finding, ...] = ()
    header: Optional[gguf.GgufHeader] = None
    read_from: str = ""
    # Its path in a source of several files
    name: str = ""

    @property
    def changed(self) -> bool:
        return self.plan.changed


@dataclass(frozen=True)
class Resolved:
    """What a source of a hub or a registry gave: a commit or a manifest, and its files as (path, sha256, size).

    ``companions`` are the files that only an image has beside them; None where nobody asked for them yet.
    """

    revision: str = ""
    files: tuple[tuple[str, str, int], ...] = ()
    companions: Optional[tuple[tuple[str, str, int], ...]] = None

    @property
    def set_sha256(self) -> str:
        """The digest of all together; empty where there is one file or none."""
        return sources.set_sha256({path: digest for path, digest, dummy in self.files}) if len(self.files) > 1 else ""


@dataclass(frozen=True)
class Record:
    """A record of ``sources`` in the store: the contents that it points to, and the folder of them where they are several.

    ``companions`` are contents too, and the record is good without them.
    """

    path: str
    digests: frozenset[str]
    companions: frozenset[str]
    set_sha256: str
    shown: str


def parse_resolved(entry: Mapping[str, Any]) -> Resolved:
    """A record of the store as far as it is one."""
    found = _parse_files(entry.get("files"))
    return Resolved(str(entry.get("revision") or ""), found, _parse_files(entry.get("companions"))) if found else Resolved()


def _parse_files(entries: Any) -> Optional[tuple[tuple[str, str, int], ...]]:
    if not isinstance(entries, list):
        return None
    found = []
    for file in entries:
        good = isinstance(file, list) and len(file) == 3 and isinstance(file[0], str) and hub.safe_path(file[0]) and isinstance(file[2], int)
        if not good or not re.fullmatch("[0-9a-f]{64}", str(file[1])):
            return None
        found.append((file[0], file[1], file[2]))
    return tuple(found)


def listed(folder: str, suffix: str = "") -> list[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(suffix)]
    except (FileNotFoundError, NotADirectoryError):
        return []


class Store:
    """The folders of one store. With ``read_only`` nothing is written, caches included."""

    def __init__(self, path: str = DEFAULT_STORE, read_only: bool = False) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.cache = files.DigestCache(os.path.join(self.path, "digests"), read_only)

    def folder(self, sha256: str) -> str:
        return os.path.join(self.path, "sha256", sha256)

    def partial(self, key: str) -> str:
        return os.path.join(self.path, "partial", key)

    def lock(self, key: str, say: Say) -> contextlib.AbstractContextManager[None]:
        return files.lock(self.partial(key) + ".lock", say, remove=True)

    def observe(self, sha256: str, name: str) -> Observed:
        """What is there of this content; every file is believed only by its digest."""
        path = os.path.join(self.folder(sha256), name)
        stored = self._whole(path, sha256)
        if stored:
            return Observed(stored=stored)
        damaged = path if os.path.lexists(path) else ""
        for other in self.names(sha256):
            twin = self._whole(os.path.join(self.folder(sha256), other), sha256) if other != name else None
            if twin:
                return Observed(twin=twin, damaged=damaged)
        return Observed(damaged=damaged)

    def names(self, sha256: str) -> list[str]:
        try:
            return sorted(os.listdir(self.folder(sha256)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def known(self, source: ModelSource) -> dict[str, Any]:
        """What this URL gave the last time: sha256, size_bytes, validators; empty when it was never fetched without a sha256."""
        entry = files.read_json(self.source_path(source.key))
        good = re.fullmatch("[0-9a-f]{64}", str(entry.get("sha256"))) and isinstance(entry.get("validators"), dict)
        return entry if good else {}

    def remember(self, source: ModelSource, fetched: Fetched) -> None:
        entry = {"source": source.shown, "sha256": fetched.sha256, "size_bytes": fetched.size_bytes, "validators": dict(fetched.validators)}
        files.write_atomic(self.source_path(source.key), json.dumps(entry, sort_keys=True, indent=2).encode() + b"\n", 0o644)

    def resolved(self, key: str) -> Resolved:
        """What a source of a hub or a registry was the last time; empty when it was never asked."""
        return parse_resolved(files.read_json(self.source_path(key), RECORD_BYTES))

    def remember_resolved(self, key: str, shown: str, found: Resolved) -> bool:
        """Write it down; False when it stands there already."""
        if self.resolved(key) == found:
            return False
        entry: dict[str, Any] = {"source": shown, "revision": found.revision, "files": [list(file) for file in found.files]}
        if found.companions is not None:
            entry["companions"] = [list(file) for file in found.companions]
        files.write_atomic(self.source_path(key), json.dumps(entry, sort_keys=True, indent=2).encode() + b"\n", 0o644)
        return True

    def records(self) -> list[Record]:
        """Every record of a source, and the content that it points to."""
        found = []
        for path in listed(os.path.join(self.path, "sources"), ".json"):
            entry = files.read_json(path, RECORD_BYTES)
            resolved = parse_resolved(entry)
            digests = frozenset(digest for dummy, digest, dummy2 in resolved.files) or frozenset([str(entry.get("sha256"))])
            companions = frozenset(digest for dummy, digest, dummy2 in resolved.companions or ())
            found.append(Record(path, digests, companions, resolved.set_sha256, str(entry.get("source") or "")))
        return found

    def source_path(self, key: str) -> str:
        return os.path.join(self.path, "sources", key + ".json")

    def leftovers(self, key: str) -> list[str]:
        """What an interrupted run has left of a file."""
        return [path for path in (self.partial(key) + suffix for suffix in PARTIAL_SUFFIXES) if os.path.exists(path)]

    def set_files(self, digest: str) -> list[str]:
        return sorted(os.path.join(folder, name) for folder, dummy, names in os.walk(self.set_path(digest)) for name in names) if digest else []

    def set_path(self, digest: str) -> str:
        return os.path.join(self.path, "sets", digest)

    def missing_links(self, digest: str, members: Mapping[str, str]) -> dict[str, str]:
        """The members of a set (its path → the file of the store) that are not in its folder as links to just that file."""
        found = {}
        for name, target in members.items():
            try:
                have, want = os.lstat(os.path.join(self.set_path(digest), name)), os.lstat(target)
            except (FileNotFoundError, NotADirectoryError):
                found[name] = target
                continue
            if (have.st_dev, have.st_ino) != (want.st_dev, want.st_ino):
                found[name] = target
        return found

    def link_set(self, digest: str, members: Mapping[str, str]) -> None:
        for name, target in self.missing_links(digest, members).items():
            path = os.path.join(self.set_path(digest), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{os.getpid()}.link"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            before = os.stat(target)
            known = self.cache.get("sha256", before)
            os.link(target, temporary)
            os.replace(temporary, path)
            after = os.stat(target)
            if known and (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                # A link more is a new ctime; nobody has to read the file again for that
                self.cache.put("sha256", after, known, files.SETTLED)

    def touch(self, sha256: str) -> None:
        """Remember that this content is in use, for those who remove what is not."""
        with contextlib.suppress(OSError):
            if time.time() - os.stat(self.folder(sha256)).st_mtime > TOUCH_SECONDS:
                os.utime(self.folder(sha256))

    def commit(self, temporary: str, sha256: str, name: str) -> StoredFile:
        """Give a finished temporary file its place. Its digest is known to be ``sha256``."""
        path = os.path.join(self.folder(sha256), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.chmod(temporary, FILE_MODE)
        os.replace(temporary, path)
        files.sync_directory(os.path.dirname(path))
        status = os.stat(path)
        self.cache.put("sha256", status, sha256, files.SETTLED)
        return StoredFile(path, sha256, status.st_size)

    def _whole(self, path: str, sha256: str) -> Optional[StoredFile]:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode) or files.sha256_file(path, self.cache) != sha256:
            return None
        return StoredFile(path, sha256, status.st_size)


def ensure_model(
    source: str,
    sha256: Optional[str] = None,
    store: str = DEFAULT_STORE,
    *,
    name: Optional[str] = None,
    context_dir: Optional[str] = None,
    token: Optional[str] = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    validate: bool = True,
    refresh: bool = False,
    check_mode: bool = False,
    local_in_place: bool = False,
    say: Say = silent,
) -> StoredModel:
    """Have a model file in the store, and say where it is.

    A source with a sha256 is taken from the store when that content is there, and the source is not asked.
    A URL without one is taken as what it gave the first time; ``refresh`` asks the server whether it changed.
    A local file is always read (its digest is cached). Relative paths count from ``context_dir``.

    :param local_in_place: a local file is checked and used where it is, not copied.
    :param check_mode: write nothing; a missing file is asked for with HEAD, to tell its size.
    :param say: told what takes time, in one line each.
    """
    parsed, expected, file_name = request(source, sha256, name, context_dir)
    if not parsed.remote and parsed.kind != sources.LOCAL:
        raise ValueError(f"{parsed.kind}:// is for models.ensure_models")
    place = Store(store, read_only=check_mode)
    warnings = sources.findings(parsed, expected, token)
    if parsed.kind == sources.LOCAL:
        result = _ensure_local(place, parsed, expected, file_name, validate, check_mode, local_in_place, say)
    else:
        client = Http(parsed, token, timeout_seconds)
        result = ensure_remote(place, client, expected, file_name, validate, refresh, check_mode, say)
    if not check_mode and result.sha256 and not local_in_place:
        place.touch(result.sha256)
    return replace(result, findings=warnings + result.findings)


def remove_model(
    source: Optional[str] = None,
    sha256: Optional[str] = None,
    store: str = DEFAULT_STORE,
    *,
    name: Optional[str] = None,
    key: str = "",
    check_mode: bool = False,
    say: Say = silent,
) -> Plan:
    """Take a model out of the store: the file called ``name``, or all names of that content, and what belongs to it.

    :param key: that of the source, where it is not the source alone that tells it (another hub).
    """
    parsed = _resolve(sources.parse(source), None) if source else None
    expected = sources.parse_sha256(sha256)
    place = Store(store, read_only=check_mode)
    keys = [key or parsed.key] if parsed else []
    if not expected and parsed and parsed.kind == sources.LOCAL and os.path.isfile(parsed.location):
        expected = files.sha256_file(parsed.location, place.cache)
    if not expected and parsed:
        resolved = place.resolved(keys[0]).files
        expected = resolved[0][1] if len(resolved) == 1 else place.known(parsed).get("sha256", "")
    plan = sources.plan_absent(_removable(place, expected, keys, name, bool(sha256)))
    if plan.changed and not check_mode:
        with place.lock(expected or keys[0], say):
            delete(place, [action.target for action in plan.actions])
    return plan


def delete(place: Store, paths: Iterable[str]) -> None:
    """Remove files of the store, and the folders that are empty then."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        folder = os.path.dirname(path)
        while os.path.dirname(folder) != place.path and folder.startswith(place.path + os.sep):
            try:
                os.rmdir(folder)
            except OSError:
                break
            folder = os.path.dirname(folder)


def _removable(place: Store, expected: str, keys: list[str], name: Optional[str], explicit: bool) -> tuple[str, ...]:
    """The files that go, and with them every record and every set that would miss them."""
    records = place.records()
    own = [place.source_path(key) for key in keys]
    chosen = next((entry for entry in records if entry.path in own or (expected and entry.set_sha256 == expected)), None)
    if explicit and chosen and expected in chosen.digests:
        # The content itself is meant, wherever it came from
        chosen = None
    digests = chosen.digests | chosen.companions if chosen else frozenset([expected] if expected else ())
    if chosen:
        # What another source has too stays for it
        digests -= frozenset(digest for entry in records if entry is not chosen for digest in entry.digests | entry.companions)
    paths: list[str] = []
    gone = {chosen} if chosen and name is None else set()
    for digest in sorted(digests):
        names = place.names(digest)
        paths += [os.path.join(place.folder(digest), entry) for entry in names if name in (None, entry)]
        if name is None or names == [name]:
            gone.update(entry for entry in records if digest in entry.digests)
            paths += place.leftovers(digest)
    for record in sorted(gone, key=lambda entry: entry.path):
        paths += [*place.set_files(record.set_sha256), record.path]
    return tuple(dict.fromkeys([*paths, *(path for key in keys for path in place.leftovers(key))]))


def request(source: str, sha256: Optional[str], name: Optional[str], context_dir: Optional[str]) -> tuple[ModelSource, str, str]:
    """The parsed source, the expected digest, and the name in the store; :class:`AikitError` for what cannot be one of them."""
    parsed = _resolve(sources.parse(source), context_dir)
    expected = sources.parse_sha256(sha256)
    origin = "`name`" if name else f"the source {parsed.shown}"
    return parsed, expected, sources.check_file_name(name or parsed.file_name, origin)


def _resolve(source: ModelSource, context_dir: Optional[str]) -> ModelSource:
    if source.kind != sources.LOCAL:
        return source
    path = os.path.expanduser(source.location)
    if not os.path.isabs(path):
        if context_dir is None:
            raise AikitError(
                f"The model's source {source.shown} is a relative path, and nothing says what it is relative to.",
                "Give an absolute path, such as {{ inventory_dir }}/" + source.shown + ".",
            )
        path = os.path.join(context_dir, path)
    path = os.path.normpath(path)
    return replace(source, location=path, shown=path)


# Local files


def _ensure_local(
    place: Store, source: ModelSource, expected: str, name: str, validate: bool, check_mode: bool, in_place: bool, say: Say
) -> StoredModel:
    if expected and not in_place:
        seen = place.observe(expected, name)
        if seen.stored:
            return from_store(place, source, name, seen, seen.stored, validate, check_mode)
    status = _local_status(source)
    say(f"reading {source.shown} ({files.human_bytes(status.st_size)})")
    digest = files.sha256_file(source.location, place.cache)
    _require_digest(source, digest, expected)
    header, remarks = validated(source.location, name, source.shown, validate)
    if in_place:
        return StoredModel(source.location, digest, status.st_size, header=header, findings=remarks, read_from=source.location)
    with contextlib.nullcontext() if check_mode else place.lock(digest, say):
        seen = place.observe(digest, name)
        have = seen.stored or seen.twin
        if have:
            return from_store(place, source, name, seen, have, validate, check_mode)
        # What a copy that was killed has left is in the way of this one alone
        already = files.leftover_bytes(place.partial(digest) + ".copy", remove=not check_mode)
        files.require_space(place.path, max(0, status.st_size - already), f"the model {name}")
        plan = sources.plan_present(source, name, digest, seen, status.st_size)
        if not check_mode:
            _copy(place, source, digest, name)
    path = os.path.join(place.folder(digest), name)
    read_from = source.location if check_mode else path
    return StoredModel(path, digest, status.st_size, plan, header=header, findings=remarks, read_from=read_from)


def _local_status(source: ModelSource) -> os.stat_result:
    try:
        status = os.stat(source.location)
    except (FileNotFoundError, NotADirectoryError):
        raise AikitError(f"The model file {source.shown} does not exist.", "The path is one on the host that this runs on; check it there.") from None
    except PermissionError:
        raise AikitError(f"The model file {source.shown} cannot be read: permission denied.", "Check the modes of its folders.") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise AikitError(f"The model's source {source.shown} is {kind}.", "Give the path of the model file itself.")
    if not os.access(source.location, os.R_OK):
        raise AikitError(f"The model file {source.shown} cannot be read: permission denied.", "Check its owner and mode.")
    return status


def _require_digest(source: ModelSource, found: str, expected: str) -> None:
    if expected and found != expected:
        raise AikitError(
            f"{source.shown} has another sha256 than expected: found {found}, expected {expected}.",
            "Either the file is not the one that is meant, or the sha256 is wrong.",
        )


def _copy(place: Store, source: ModelSource, digest: str, name: str) -> None:
    temporary = place.partial(digest) + ".copy"
    os.makedirs(os.path.dirname(temporary), exist_ok=True)
    copied = hashlib.sha256()
    try:
        size = os.path.getsize(source.location)
        with open(source.location, "rb", buffering=0) as reader, open(temporary, "wb", buffering=0) as writer, progress.stage(f"copy {name}", size) as current:

            def both(piece: memoryview) -> None:
                copied.update(piece)
                files.write_all(writer, piece)
                current.advance(len(piece))

            files.read_into(reader, both)
            os.fsync(writer.fileno())
        if copied.hexdigest() != digest:
            raise AikitError(f"{source.shown} changed while it was being copied.", "Let whatever writes it finish, then run again.")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    place.commit(temporary, digest, name)


def _link(place: Store, twin: StoredFile, name: str) -> None:
    """A second name for a file of the store: both are read-only and of the same content, so they may share it."""
    temporary = place.partial(twin.sha256) + ".link"
    os.makedirs(os.path.dirname(temporary), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.link(twin.path, temporary)
    place.commit(temporary, twin.sha256, name)


# Remote files


def ensure_remote(
    place: Store,
    client: Http,
    expected: str,
    name: str,
    validate: bool,
    refresh: bool,
    check_mode: bool,
    say: Say,
    *,
    size_bytes: Optional[int] = None,
    verify: Optional[Verify] = None,
) -> StoredModel:
    """Have what ``client`` downloads in the store.

    :param size_bytes: need not be asked for in check mode then.
    :param verify: looks at the download, and is what makes it known: the source itself gets no record.
    """
    source = client.source
    with contextlib.nullcontext() if check_mode else place.lock(expected or source.key, say):
        known = {} if expected else place.known(source)
        digest = expected or known.get("sha256", "")
        seen = place.observe(digest, name) if digest else Observed()
        have = seen.stored or seen.twin
        ask = bool(refresh and not expected)
        validators = known.get("validators", {}) if have and ask else {}
        if have and not ask:
            return from_store(place, source, name, seen, have, validate, check_mode)
        if check_mode:
            return _would_fetch(place, client, expected, name, seen, have, validators, validate, size_bytes)
        label = f"the model {name} from {source.shown}"
        part = place.partial(expected or source.key) + ".part"
        fetched = fetch(client, part, sha256=expected, validators=validators, what=label, say=say)
        if fetched.not_modified and have:
            return from_store(place, source, name, seen, have, validate, check_mode)
        return _store(place, source, part, fetched, bool(expected or verify), name, validate, verify)


def from_store(
    place: Store, source: ModelSource, name: str, seen: Observed, have: StoredFile, validate: bool, check_mode: bool
) -> StoredModel:
    """What is in the store already, perhaps under another name."""
    header, remarks = validated(have.path, name, source.shown, validate)
    plan = sources.plan_present(source, name, have.sha256, seen, have.size_bytes)
    if not seen.stored and not check_mode:
        _link(place, have, name)
    path = os.path.join(place.folder(have.sha256), name)
    # Check mode makes no link: the bytes stand under their other name
    read_from = have.path if check_mode else path
    return StoredModel(path, have.sha256, have.size_bytes, plan, header=header, findings=remarks, read_from=read_from)


def _would_fetch(
    place: Store,
    client: Http,
    expected: str,
    name: str,
    seen: Observed,
    have: Optional[StoredFile],
    validators: Mapping[str, str],
    validate: bool,
    size: Optional[int] = None,
) -> StoredModel:
    """Check mode: what a real run would do, as far as the server tells without sending the file."""
    remarks: tuple[Finding, ...] = ()
    try:
        if size is not None:
            raise NoHead
        with contextlib.closing(client.request("HEAD", conditional(validators))) as response:
            # Some servers ignore the condition, and say the same in their headers.
            if have and (response.status == 304 or (validators and validators_of(response) == validators)):
                return from_store(place, client.source, name, seen, have, validate, True)
            if response.status == 200:
                size = announced_bytes(response)
    except Retry as exc:
        remarks = (Finding("warning", "source", 0, f"{client.source.shown} did not answer, so its size is not known: {exc}."),)
    except NoHead:
        pass
    already = part_size(place.partial(expected or client.source.key) + ".part")
    if size is not None:
        files.require_space(place.path, max(0, size - already), f"the model {name} from {client.source.shown}")
    plan = sources.plan_present(client.source, name, expected, replace(seen, stored=None, twin=None), size)
    path = os.path.join(place.folder(expected), name) if expected else ""
    return StoredModel(path, expected, size or 0, plan, findings=remarks)


def _store(
    place: Store, source: ModelSource, part: str, fetched: Fetched, pinned: bool, name: str, validate: bool, verify: Optional[Verify]
) -> StoredModel:
    """A finished part becomes a file of the store, or is thrown away when it is no good."""
    try:
        if verify is not None:
            verify(part)
        header, remarks = validated(part, name, source.shown, validate)
    except AikitError:
        discard(part)
        raise
    seen = place.observe(fetched.sha256, name)
    # A refreshed URL may have brought what is there already.
    plan = sources.plan_present(source, name, fetched.sha256, replace(seen, twin=None), fetched.size_bytes)
    if not pinned:
        # Before the rename: a run that is killed in between finds the whole part again.
        place.remember(source, fetched)
    if seen.stored:
        stored = seen.stored
    else:
        stored = place.commit(part, fetched.sha256, name)
        plan = replace(plan, after={"path": stored.path, "sha256": stored.sha256, "size_bytes": stored.size_bytes})
    discard(part)
    return StoredModel(
        stored.path, stored.sha256, stored.size_bytes, plan, fetched.downloaded_bytes, fetched.resumed, remarks, header, stored.path
    )


def validated(path: str, name: str, shown: str, validate: bool) -> tuple[Optional[gguf.GgufHeader], tuple[Finding, ...]]:
    """The header of a GGUF file, and what is remarkable about it; nothing for other files, as their names tell."""
    if not validate or not name.lower().endswith(".gguf"):
        return None, ()
    with open(path, "rb", buffering=0) as handle:
        descriptor = handle.fileno()
        header = gguf.check(lambda offset, length: os.pread(descriptor, length, offset), os.fstat(descriptor).st_size, shown)
    return header, gguf.remarks(header, name)
