# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Model files from wherever a source says: a host, a path, the Hugging Face hub, a container registry.

What a branch or a tag meant is looked up once and written into the store: later runs need no network, and get the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterator, Optional, Sequence
from urllib.parse import urljoin, urlsplit

from .._core import hub, model_revision, oci_model
from .._core import model_source as sources
from .._core.errors import AikitError, Finding
from .._core.hub import HubFile, HubName
from .._core.model_source import ModelSource
from .._core.oci_model import Packed
from .._core.plan import Action, Plan
from . import files, transfer
from .download import REPORT_SECONDS, TIMEOUT_SECONDS, Http, Retry, Say, part_size, read_body, retrying, silent
from .registry import Registry, RegistrySettings
from .transfer import Resolved, Store, StoredModel

ANSWER_BYTES = 16 * 1024 * 1024
MAX_FILES = 10_000


@dataclass(frozen=True)
class Reach:
    """How sources are reached: logins, mirrors, patience."""

    token: Optional[str] = None
    hub_url: str = hub.DEFAULT_URL
    timeout_seconds: float = TIMEOUT_SECONDS
    registry: RegistrySettings = field(default_factory=RegistrySettings)


@dataclass(frozen=True)
class Acquired:
    """The files of a source. ``path`` and ``sha256`` are those of the file, or where there are several those of the set.

    ``revision`` is the commit or the manifest that a branch or a tag meant. ``companions`` are files that only an image has.
    """

    files: tuple[StoredModel, ...]
    path: str
    sha256: str
    plan: Plan
    revision: str = ""
    findings: tuple[Finding, ...] = ()
    companions: tuple[StoredModel, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)

    @property
    def downloaded_bytes(self) -> int:
        return sum(entry.downloaded_bytes for entry in self.files)

    @property
    def resumed(self) -> bool:
        return any(entry.resumed for entry in self.files)


@dataclass(frozen=True)
class _Job:
    """One call of :func:`ensure_models`."""

    source: ModelSource
    expected: str
    place: Store
    key: str
    reach: Reach
    name: Optional[str]
    include: tuple[str, ...]
    validate: bool
    refresh: bool
    check_mode: bool
    say: Say
    companions: bool = False

    def file_name(self, path: str) -> str:
        origin = "`name`" if self.name else f"the source {self.source.shown}"
        return sources.check_file_name(self.name or path.rpartition("/")[2], origin)


def ensure_models(
    source: str,
    sha256: Optional[str] = None,
    store: str = transfer.DEFAULT_STORE,
    *,
    name: Optional[str] = None,
    include: Sequence[str] = (),
    revision: str = "",
    context_dir: Optional[str] = None,
    reach: Reach = Reach(),
    validate: bool = True,
    refresh: bool = False,
    require_sha256: bool = True,
    check_mode: bool = False,
    local_in_place: bool = False,
    companions: bool = False,
    say: Say = silent,
) -> Acquired:
    """Have every file of a source in the store; see :func:`transfer.ensure_model` for what the parameters share.

    :param include: of a source with several files, those that one of these patterns matches.
    :param revision: the commit or the manifest to take, whatever a branch or a tag in the source means today.
    :param require_sha256: refuse a download of which nothing tells the digest.
    :param companions: have the files too that are no part of a model, and that AIKit puts into an image with it.
    """
    parsed = sources.parse(source)
    hub_url = hub.check_url(reach.hub_url)
    # A file of a hub comes alone
    companions = companions and (parsed.kind == sources.OCI or (parsed.kind == sources.HUGGINGFACE and not hub.parse(parsed.location).path))
    if revision and not _is_known(Store(store, read_only=check_mode), source_key(parsed, hub_url, include), revision, companions):
        source = model_revision.source_at(source, revision)
        parsed = sources.parse(source)
    job = _Job(
        parsed,
        sources.parse_sha256(sha256),
        Store(store, read_only=check_mode),
        source_key(parsed, hub_url, include),
        replace(reach, hub_url=hub_url),
        name,
        tuple(include),
        validate,
        refresh,
        check_mode,
        say,
        companions,
    )
    if parsed.kind == sources.HUGGINGFACE:
        found = _from_hub(job)
    elif parsed.kind == sources.OCI:
        found = _from_registry(job)
    else:
        if include:
            raise AikitError(f"include is given, and {parsed.shown} is one file.", "It is for huggingface:// and oci:// sources with several.")
        told = _told(job) if require_sha256 and parsed.remote and not job.expected else Resolved()
        expected = told.files[0][1] if told and told.files else sha256 or ""
        if require_sha256 and told is not None:
            sources.require_pin(parsed, expected)
        one = transfer.ensure_model(
            source,
            expected,
            store,
            name=name,
            context_dir=context_dir,
            token=reach.token,
            timeout_seconds=reach.timeout_seconds,
            validate=validate,
            refresh=refresh,
            check_mode=check_mode,
            local_in_place=local_in_place,
            say=say,
        )
        if told and told.files and not check_mode:
            job.place.remember_resolved(job.key, parsed.shown, told)
        return Acquired((one,), one.path, one.sha256, one.plan, told.revision if told else "", one.findings)
    if reach.token and parsed.kind == sources.HUGGINGFACE:
        at_hub = ModelSource(urlsplit(hub_url).scheme, hub_url, hub_url, "")
        found = replace(found, findings=(*sources.findings(at_hub, "-", reach.token), *found.findings))
    if not check_mode:
        for entry in (*found.files, *found.companions):
            job.place.touch(entry.sha256)
    return found


def _is_known(place: Store, key: str, revision: str, companions: bool) -> bool:
    """Whether a source was found at a revision before, and all of it is here: then nobody is asked."""
    known = place.resolved(key)
    if known.revision != revision or (companions and known.companions is None):
        return False
    return all(place.names(digest) for dummy, digest, dummy2 in (*known.files, *((known.companions or ()) if companions else ())))


def source_key(source: ModelSource, hub_url: str = hub.DEFAULT_URL, include: Sequence[str] = ()) -> str:
    """The name of a source's record in the store: another hub may have other files under the same name."""
    if source.kind not in (sources.HUGGINGFACE, sources.OCI) or (not include and (hub_url == hub.DEFAULT_URL or source.kind == sources.OCI)):
        return source.key
    text = json.dumps([source.key, hub_url if source.kind == sources.HUGGINGFACE else "", sorted(include)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def remove_models(
    source: Optional[str],
    sha256: Optional[str],
    store: str,
    *,
    name: Optional[str] = None,
    include: Sequence[str] = (),
    hub_url: str = hub.DEFAULT_URL,
    check_mode: bool = False,
    say: Say = silent,
) -> Plan:
    """Take what :func:`ensure_models` brought out of the store."""
    key = source_key(sources.parse(source), hub.check_url(hub_url), include) if source else ""
    return transfer.remove_model(source, sha256, store, name=name, key=key, check_mode=check_mode, say=say)


# What both have in common


def _recorded(job: _Job) -> Resolved:
    """What the source was found to be before. Who asks for a refresh wants to know it anew."""
    return Resolved() if job.refresh else job.place.resolved(job.key)


def _is_wanted(job: _Job, record: Resolved) -> bool:
    """Whether a record is of the content that was asked for by its digest, if by any."""
    return not job.expected or job.expected in (record.set_sha256, record.files[0][1] if len(record.files) == 1 else "")


def _present(job: _Job, record: Resolved) -> Optional[Acquired]:
    """The files of a record, where all are in the store."""
    if not record.files or not _is_wanted(job, record) or (job.companions and record.companions is None):
        return None
    found = []
    companions = (record.companions or ()) if job.companions else ()
    for path, digest, dummy in (*record.files, *companions):
        name = path.rpartition("/")[2]
        beside = len(found) >= len(record.files)
        if beside:
            name = _companion_name(path)
        elif len(record.files) == 1:
            name = job.file_name(path)
        seen = job.place.observe(digest, name)
        have = seen.stored or seen.twin
        if not have:
            return None
        checks = _checks(job, path) and not beside
        found.append(replace(transfer.from_store(job.place, job.source, name, seen, have, checks, job.check_mode), name=path))
    return _joined(job, found[: len(record.files)], record.revision, found[len(record.files) :])


def _checks(job: _Job, path: str) -> bool:
    return job.validate and path.lower().endswith(".gguf")


def _companion_name(path: str) -> str:
    """The name of a companion in the store, where no file is hidden."""
    name = path.rpartition("/")[2]
    return f"dot{name}" if name.startswith(".") else name


def _joined(job: _Job, models: Sequence[StoredModel], revision: str, companions: Sequence[StoredModel] = ()) -> Acquired:
    """The result; several files are put side by side in a folder of their own."""
    findings = tuple(finding for model in models for finding in model.findings)
    actions = [action for model in (*models, *companions) for action in model.plan.actions]
    before: dict[str, Any] = dict(models[0].plan.before)
    after: dict[str, Any] = dict(models[0].plan.after)
    path, digest = models[0].path, models[0].sha256
    if len(models) > 1:
        if job.name:
            raise AikitError(f"name is given, and {job.source.shown} has {len(models)} files.", "Leave it out, or choose one file with include.")
        known = all(model.sha256 for model in models)
        digest = sources.set_sha256({model.name: model.sha256 for model in models}) if known else ""
        path = job.place.set_path(digest) if digest else ""
        before, after = {}, {"files": [{"name": model.name, "sha256": model.sha256, "size_bytes": model.size_bytes} for model in models]}
        if digest:
            after["path"] = path
        # In check mode the digest of all can be unknown, and then there is no folder yet
        if not digest or job.place.missing_links(digest, {model.name: model.path for model in models}):
            actions.append(Action("link", job.source.shown, f"{len(models)} files, side by side"))
        if not actions:
            before = after
    if job.expected and digest and digest != job.expected:
        raise AikitError(
            f"{job.source.shown} has another sha256 than expected: found {digest}, expected {job.expected}.",
            "Either the source was changed, or the sha256 is wrong." + (" That of several files is told in docs/models.md." if len(models) > 1 else ""),
        )
    if revision:
        after["revision"] = revision
        if not actions:
            before = {**before, "revision": revision}
    if not job.check_mode:
        if len(models) > 1:
            with job.place.lock(digest, job.say):
                job.place.link_set(digest, {model.name: model.path for model in models})
        old = job.place.resolved(job.key)
        beside = old.companions if old.revision == revision else None
        record = Resolved(revision, _listed(models), _listed(companions) if job.companions else beside)
        job.place.remember_resolved(job.key, job.source.shown, record)
    return Acquired(tuple(models), path, digest, Plan(tuple(actions), before, after), revision, findings, tuple(companions))


def _listed(models: Sequence[StoredModel]) -> tuple[tuple[str, str, int], ...]:
    return tuple((model.name, model.sha256, model.size_bytes) for model in models)


# The hub


def _told(job: _Job) -> Optional[Resolved]:
    """What a hub tells of a file that is asked for by its https:// address; empty where the server is none.

    None in check mode while the server does not answer: whether it would tell a digest is not known then.
    """
    if job.source.kind != sources.HTTPS:
        return Resolved()
    record = _recorded(job)
    if len(record.files) == 1:
        return record
    client = Http(job.source, job.reach.token, job.reach.timeout_seconds)
    try:
        headers = client.head_at_origin() if job.check_mode else retrying(client.head_at_origin, job.source.shown, job.say)
    except Retry:
        return None
    digest = hub.linked_sha256(headers)
    return Resolved(headers["x-repo-commit"], ((job.file_name(job.source.file_name), digest, 0),)) if digest else Resolved()


def _from_hub(job: _Job) -> Acquired:
    name = hub.parse(job.source.location)
    if job.include and name.path:
        raise AikitError(f"include is given, and {job.source.shown} names one file.", "It is for a whole repository.")
    record = _recorded(job)
    found = _present(job, record)
    if found:
        return found
    if job.expected and name.path:
        seen = job.place.observe(job.expected, job.file_name(name.path))
        have = seen.stored or seen.twin
        if have:
            model = transfer.from_store(job.place, job.source, job.file_name(name.path), seen, have, _checks(job, name.path), job.check_mode)
            return Acquired((replace(model, name=name.path),), model.path, model.sha256, model.plan, findings=model.findings)
    if record.revision and _is_wanted(job, record):
        # Some of it is not in the store: the same commit brings the same files again
        name = name.at(record.revision)
    client = HubClient(job.reach, name, job.say)
    if name.path:
        entry, commit = client.file()
        entries = [entry]
        beside: list[HubFile] = []
    else:
        commit = client.commit()
        tree = client.tree(commit)
        entries = hub.choose(tree, job.include, name)
        beside = sorted((entry for entry in tree if entry.hidden and job.companions), key=lambda entry: entry.path)
    old = job.place.resolved(job.key)
    if old.revision == commit:
        found = _present(job, old)
        if found:
            return found
    if len(entries) > MAX_FILES:
        raise AikitError(f"{name.text} has {len(entries)} files.", "Choose some with include.")
    name = name.at(commit)
    _check_told(job, entries)
    _require_room(job, [*entries, *beside], name)

    def fetch(entry: HubFile, file_name: str, expected: str) -> StoredModel:
        target = replace(name, path=entry.path)
        digest = entry.sha256 or expected or _same_as_before(job, old, entry)
        verify = _git_check(entry, target) if not entry.sha256 else None
        model = transfer.ensure_remote(
            job.place,
            client.http(target),
            digest,
            file_name,
            _checks(job, entry.path) and entry not in beside,
            False,
            job.check_mode,
            job.say,
            size_bytes=entry.size_bytes,
            verify=verify,
        )
        return replace(model, name=entry.path)

    if len(entries) == 1:
        models = [fetch(entries[0], job.file_name(entries[0].path), job.expected)]
    else:
        origin = f"the source {job.source.shown}"
        models = [fetch(entry, sources.check_file_name(entry.path.rpartition("/")[2], origin), "") for entry in entries]
    return _joined(job, models, commit, [fetch(entry, _companion_name(entry.path), "") for entry in beside])


def _check_told(job: _Job, entries: Sequence[HubFile]) -> None:
    """Notice a wrong file before it is downloaded, where the hub tells its digest."""
    told = entries[0].sha256
    if len(entries) > 1:
        known = all(entry.sha256 for entry in entries)
        told = sources.set_sha256({entry.path: entry.sha256 for entry in entries}) if known else ""
    if job.expected and told and told != job.expected:
        raise AikitError(
            f"{job.source.shown} has another sha256 than expected: the hub says {told}, expected {job.expected}.",
            "Either the file was replaced there (name the revision that you mean), or the sha256 is wrong.",
        )


def _require_room(job: _Job, entries: Sequence[HubFile], name: HubName) -> None:
    needed = 0
    for entry in entries:
        there = bool(entry.sha256) and bool(job.place.names(entry.sha256))
        needed += 0 if there else max(0, (entry.size_bytes or 0) - part_size(job.place.partial(entry.sha256) + ".part"))
    files.require_space(job.place.path, needed, f"the files of {name.text}")


def _same_as_before(job: _Job, old: Resolved, entry: HubFile) -> str:
    """The digest of a small file, where git's id shows that it is the one of an earlier commit."""
    for path, digest, size in (*old.files, *(old.companions or ())):
        names = job.place.names(digest)
        if path == entry.path and size == entry.size_bytes and names and entry.git_id == _git_id(os.path.join(job.place.folder(digest), names[0])):
            return digest
    return ""


def _git_id(path: str) -> str:
    digest = hashlib.sha1(f"blob {os.path.getsize(path)}\0".encode())  # noqa: S324
    with open(path, "rb", buffering=0) as handle:
        files.read_into(handle, digest.update)
    return digest.hexdigest()


def _git_check(entry: HubFile, name: HubName) -> Callable[[str], None]:
    """A small file is none of LFS: what names it is git's SHA-1 of a blob."""

    def check(path: str) -> None:
        size = os.path.getsize(path)
        if entry.size_bytes is not None and size != entry.size_bytes:
            raise AikitError(f"{name.text} has {size} bytes, and the hub says {entry.size_bytes}.", "Run again.")
        found = _git_id(path) if entry.git_id else ""
        if found != entry.git_id:
            raise AikitError(f"{name.text} is not what its commit holds: git's id of it is {found}, expected {entry.git_id}.", "Run again.")

    return check


class HubClient:
    """Requests to one hub about one repository. The token goes to the hub alone."""

    def __init__(self, reach: Reach, name: HubName, say: Say = silent) -> None:
        self.reach = reach
        self.name = name
        self.say = say

    def http(self, name: HubName) -> Http:
        """A client for one file."""
        return self._client(hub.file_url(self.reach.hub_url, name), name)

    def _client(self, url: str, name: HubName) -> Http:
        token = (self.reach.token or "").strip()
        source = ModelSource(urlsplit(url).scheme, url, name.text, name.path.rpartition("/")[2])
        return Http(source, token, self.reach.timeout_seconds, lambda status, headers: hub.refusal(name, status, headers, bool(token)))

    def file(self) -> tuple[HubFile, str]:
        """What the hub says of a file, and the commit it is at."""
        client = self.http(self.name)
        return hub.parse_headers(retrying(client.head_at_origin, self.name.text, self.say), self.name)

    def commit(self) -> str:
        """The commit that the revision is at."""
        return hub.parse_commit(self._json(hub.revision_url(self.reach.hub_url, self.name))[0], self.name)

    def tree(self, commit: str) -> list[HubFile]:
        """All files at a commit."""
        url = hub.tree_url(self.reach.hub_url, self.name.at(commit))
        found: list[HubFile] = []
        while url:
            document, link = self._json(url)
            found += hub.parse_tree(document, self.name)
            if len(found) > MAX_FILES:
                raise AikitError(f"{self.name.text} has more than {MAX_FILES} files.", "Name the file that you want.")
            following = hub.next_page(link)
            # A mirror may pass the hub's own address on: the next page is asked for where the first came from
            target = urlsplit(urljoin(url, following))
            url = urljoin(self.reach.hub_url, f"{target.path}?{target.query}") if following else ""
        return found

    def _json(self, url: str) -> tuple[Any, str]:
        client = self._client(url, self.name)

        def attempt() -> tuple[bytes, str]:
            response = client.request("GET", {"Accept": "application/json"})
            return read_body(response, ANSWER_BYTES, self.name.text), str(response.headers.get("Link") or "")

        body, link = retrying(attempt, self.name.text, self.say)
        try:
            return json.loads(body), link
        except (ValueError, RecursionError):
            raise AikitError(f"{self.name.text}: the hub's answer is no JSON.", "Check hub_url: is it a hub, and no page with a login?") from None


# Registries


def _from_registry(job: _Job) -> Acquired:
    where = oci_model.parse(job.source.location)
    record = _recorded(job)
    found = _present(job, record)
    if found:
        return found
    registry = Registry(job.reach.registry)
    manifest = registry.manifest(where.at(record.revision).text if record.revision and _is_wanted(job, record) else where.text)
    layers = oci_model.choose(oci_model.packed_files(manifest.layers, where), job.include, where)
    alone = len(layers) == 1 and layers[0].form == "raw"
    if alone and job.expected and layers[0].sha256 != job.expected:
        raise AikitError(
            f"{job.source.shown} has another sha256 than expected: its manifest says {layers[0].sha256}, expected {job.expected}.",
            "Either the tag was moved (name a digest), or the sha256 is wrong.",
        )
    models: list[StoredModel] = []
    for layer in layers:
        if layer.form == "raw":
            models.append(_ensure_blob(job, registry, manifest.repository, layer, job.file_name(layer.path) if alone else layer.path.rpartition("/")[2]))
        else:
            models += _ensure_packed(job, registry, manifest.repository, layer)
    if not models:
        raise AikitError(f"{where.text} has no file that include ({', '.join(job.include)}) names.", "Check include.")
    twice = [model.name for model in models if [other.name for other in models].count(model.name) > 1]
    if twice:
        raise AikitError(f"{where.text} has two files with the name {twice[0]}.", "The artifact is broken; pack it again.")
    beside = oci_model.companions(manifest.layers, where) if job.companions else ()
    # Of a companion nothing is expected, whatever its name
    plain = replace(job, validate=False)
    fetched = [_ensure_blob(plain, registry, manifest.repository, layer, _companion_name(layer.path)) for layer in beside]
    return _joined(job, sorted(models, key=lambda model: model.name), manifest.digest, fetched)


def _ensure_blob(job: _Job, registry: Registry, repository: str, layer: Packed, name: str) -> StoredModel:
    """A layer that is a file."""
    place, digest, size = job.place, layer.sha256, layer.descriptor.size
    sources.check_file_name(name, f"the source {job.source.shown}")
    gguf_name = f"{name}.gguf" if layer.gguf and not name.lower().endswith(".gguf") else name
    with contextlib.nullcontext() if job.check_mode else place.lock(digest, job.say):
        seen = place.observe(digest, name)
        have = seen.stored or seen.twin
        if have:
            return replace(transfer.from_store(place, job.source, name, seen, have, _checks(job, gguf_name), job.check_mode), name=layer.path)
        plan = sources.plan_present(job.source, name, digest, seen, size)
        path = place.partial(digest) + ".blob"
        already = part_size(f"{path}.part")
        files.require_space(place.path, max(0, size - already), f"the model {name} from {job.source.shown}")
        if job.check_mode:
            return StoredModel(os.path.join(place.folder(digest), name), digest, size, plan, name=layer.path)
        whole = part_size(path)
        registry.fetch_blob(repository, layer.descriptor, path, _progress(job.say, f"the model {name} from {job.source.shown}", size))
        try:
            header, remarks = transfer.validated(path, gguf_name, job.source.shown, job.validate)
        except AikitError:
            os.unlink(path)
            raise
        stored = place.commit(path, digest, name)
    received = 0 if whole == size else size - min(already, size)
    return StoredModel(stored.path, digest, size, plan, received, 0 < received < size, remarks, header, stored.path, layer.path)


def _ensure_packed(job: _Job, registry: Registry, repository: str, layer: Packed) -> list[StoredModel]:
    """The files in a layer that is a tar. It is fetched whole, so that its digest is known to be right before anything is taken out of it."""
    place, digest, size = job.place, layer.descriptor.digest.partition(":")[2], layer.descriptor.size
    if job.check_mode:
        action = Action("download", job.source.shown, f"{size} bytes, {layer.path}, to be unpacked")
        return [StoredModel("", "", size, Plan((action,), {}, {"source": job.source.shown}), name=layer.path)]
    path = place.partial(digest) + ".blob"
    with place.lock(digest, job.say):
        # Packed and unpacked stand side by side for a while
        files.require_space(place.path, 2 * size - part_size(f"{path}.part") - part_size(path), f"the files of {job.source.shown}")
        registry.fetch_blob(repository, layer.descriptor, path, _progress(job.say, f"{layer.path} from {job.source.shown}", size))
        try:
            with _open_tar(path, layer, job.source.shown) as reader:
                models = [model for member in reader for model in _take_member(job, reader, member, digest)]
        except (tarfile.TarError, EOFError) as exc:
            raise AikitError(
                f"{job.source.shown}: the layer {layer.descriptor.digest} is no tar archive: {exc}.", "The artifact is broken; pack it again."
            ) from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    if models:
        models[0] = replace(models[0], downloaded_bytes=size)
    return models


def _take_member(job: _Job, reader: tarfile.TarFile, member: tarfile.TarInfo, key: str) -> list[StoredModel]:
    name = member.name[2:] if member.name.startswith("./") else member.name
    if member.isdir():
        return []
    if not member.isfile() or not hub.safe_path(name):
        raise AikitError(f"{job.source.shown} holds {name[:200]!r}, which is no plain file below its folder.", "Do not use this artifact.")
    if job.include and not hub.matches(name, job.include):
        return []
    files.require_space(job.place.path, member.size, f"{name} of {job.source.shown}")
    temporary = job.place.partial(key) + ".member"
    content = reader.extractfile(member)
    digest = hashlib.sha256()
    size = 0
    try:
        with open(temporary, "wb", buffering=0) as writer:
            for piece in iter(lambda: content.read(files.READ_BYTES) if content else b"", b""):
                digest.update(piece)
                size += len(piece)
                files.write_all(writer, memoryview(piece))
            os.fsync(writer.fileno())
        base = sources.check_file_name(name.rpartition("/")[2], f"the source {job.source.shown}")
        header, remarks = transfer.validated(temporary, base, job.source.shown, job.validate)
        seen = job.place.observe(digest.hexdigest(), base)
        plan = sources.plan_present(job.source, base, digest.hexdigest(), replace(seen, twin=None), size)
        path = seen.stored.path if seen.stored else job.place.commit(temporary, digest.hexdigest(), base).path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return [StoredModel(path, digest.hexdigest(), size, plan, 0, False, remarks, header, path, name)]


@contextlib.contextmanager
def _open_tar(path: str, layer: Packed, shown: str) -> Iterator[tarfile.TarFile]:
    if layer.form != "tar+zstd":
        with tarfile.open(path, "r|*") as reader:
            yield reader
        return
    if sys.version_info >= (3, 14):
        with tarfile.open(path, "r|zst") as reader:
            yield reader
        return
    program = shutil.which("zstd")
    if not program:
        raise AikitError(f"{shown} is compressed with zstd, which this Python does not read.", "Install the package zstd on the host that downloads.")
    with subprocess.Popen([program, "-dcq", "--", path], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as reader:
            yield reader


def _progress(say: Say, what: str, size: int) -> Callable[[int], None]:
    last = [time.monotonic()]

    def tell(position: int) -> None:
        if time.monotonic() - last[0] >= REPORT_SECONDS:
            last[0] = time.monotonic()
            say(f"{what}: {files.human_bytes(position)} of {files.human_bytes(size)}")

    return tell
