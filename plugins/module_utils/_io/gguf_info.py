# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The headers of a model's GGUF files, wherever they are, with as few bytes as can be."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Optional, Sequence

from .._core import gguf, hub, oci_model
from .._core import model_source as sources
from .._core.data_ggml import REVIEWED
from .._core.errors import AikitError, Finding
from .._core.gguf import GgufHeader
from .._core.model_source import ModelSource
from . import files, transfer
from .download import Http, Say, silent
from .models import HubClient, Reach
from .ranges import RangeFile
from .registry import Registry
from .transfer import Resolved, Store

DEFAULT_CACHE = "~/.cache/aikit-fleet/gguf"
ENTRY_BYTES = 64 * 1024 * 1024
# Over a network: what is asked for at once, at most
WINDOW_BYTES = 4 * 1024 * 1024
PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf)", re.ASCII)


@dataclass(frozen=True)
class Read:
    """One header that was read, and what it took."""

    header: GgufHeader
    file_bytes: int
    bytes_read: int = 0
    requests: int = 0
    cached: bool = False
    sha256: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Info:
    """The header of a model, all parts in one, and what it took to read it."""

    header: GgufHeader
    parts: tuple[Read, ...]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            **gguf.summary(self.header),
            "file_bytes": sum(part.file_bytes for part in self.parts),
            "header_bytes_read": sum(part.bytes_read for part in self.parts),
            "requests": sum(part.requests for part in self.parts),
            "cached": all(part.cached for part in self.parts),
            "sha256": self.parts[0].sha256,
            "revision": self.parts[0].revision,
        }


@dataclass
class _Job:
    source: ModelSource
    sha256: str
    reach: Reach
    store: Store
    cache: "Cache"
    say: Say
    told: tuple[Resolved, ...] = ()
    hub_commit: str = ""
    registries: list[Registry] = field(default_factory=list)


class Cache:
    """Headers that were read before, by what tells that a file is still the same."""

    def __init__(self, path: str, read_only: bool = False) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.read_only = read_only

    def get(self, key: str) -> tuple[Optional[Read], dict[str, Any]]:
        """What was read, and what else was written down with it."""
        entry = files.read_json(self._path(key), ENTRY_BYTES)
        header = gguf.from_document(entry.get("header")) if entry.get("key") == key and entry.get("tables") == REVIEWED else None
        size = entry.get("file_bytes")
        if header is None or not isinstance(size, int):
            return None, {}
        more = entry.get("more")
        return Read(header, size, cached=True), more if isinstance(more, dict) else {}

    def put(self, key: str, read: Read, more: Optional[Mapping[str, Any]] = None) -> None:
        if self.read_only:
            return
        entry = {"key": key, "tables": REVIEWED, "file_bytes": read.file_bytes, "header": gguf.as_document(read.header), "more": dict(more or {})}
        # Without it the next run takes longer, and that is all
        with contextlib.suppress(OSError):
            files.write_atomic(self._path(key), json.dumps(entry, separators=(",", ":")).encode(), 0o644, durable=False)

    def _path(self, key: str) -> str:
        return os.path.join(self.path, hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest() + ".json")


def read_info(
    src: str,
    sha256: Optional[str] = None,
    *,
    reach: Reach = Reach(),
    store: str = transfer.DEFAULT_STORE,
    cache: str = DEFAULT_CACHE,
    check_mode: bool = False,
    say: Say = silent,
    told: Sequence[Resolved] = (),
) -> Info:
    """Read the header of a model; of a split one those of all parts, which are found beside the one that is named.

    :param sha256: of the file in ``src``. What is known of it is taken from the cache, or from the store, without a request.
    :param told: what the sources of all parts, in order, or the one of all together, were found to be before: they are not asked again
        then, and where they have to be, at the same commit or manifest.
    """
    source = sources.parse(src)
    if source.kind == sources.LOCAL and not os.path.isabs(os.path.expanduser(source.location)):
        raise AikitError(
            f"src: {source.shown} is a relative path, and nothing says what it is relative to.",
            "Give an absolute path or a source with a scheme.",
        )
    reach = replace(reach, hub_url=hub.check_url(reach.hub_url))
    digest = sources.parse_sha256(sha256)
    if not told and digest:
        told = (Resolved("", ((source.file_name, digest, 0),)),)
    job = _Job(source, digest, reach, Store(store, read_only=check_mode), Cache(cache, check_mode), say, tuple(told))
    try:
        return _read(job)
    finally:
        for registry in job.registries:
            registry.close()


def _read(job: _Job) -> Info:
    name = job.source.shown
    reader = _reader(job)
    first = reader(0)
    if first.header.shards == 1:
        return Info(first.header, (first,), gguf.remarks(first.header, name))
    found = PART.search(_named(job))
    count = first.header.shards
    if not found or int(found.group(2)) != count:
        raise AikitError(
            f"{name} is one part of {count}, and its name does not end in -00001-of-{count:05d}.gguf, so the others cannot be found.",
            "Give the files the names that they were made with.",
        )
    parts = tuple(first if number == int(found.group(1)) else reader(number) for number in range(1, count + 1))
    header = gguf.combine([part.header for part in parts], name)
    return Info(header, parts, gguf.remarks(header, name, whole=True))


def _named(job: _Job) -> str:
    """Where the number of a part stands."""
    if job.source.kind == sources.HUGGINGFACE:
        return hub.parse(job.source.location).path or job.source.file_name
    if job.source.kind == sources.OCI:
        return job.source.file_name
    return sources.split_url(job.source.location).path if job.source.remote else job.source.location


def _renumbered(text: str, number: int) -> str:
    """The name of another part; 0 leaves the name as it is."""
    return PART.sub(lambda found: f"-{number:05d}-of-{found.group(2)}", text) if number else text


def _reader(job: _Job) -> Callable[[int], Read]:
    """What reads a part by its number, 0 for the one that was named."""
    readers = {sources.LOCAL: _local, sources.HUGGINGFACE: _hub, sources.OCI: _oci}
    reader = readers.get(job.source.kind, _http)
    return lambda number: _not_asked(job, number) or reader(job, number)


def _not_asked(job: _Job, number: int) -> Optional[Read]:
    """A part that is known without asking its source."""
    if job.source.kind == sources.LOCAL:
        return None
    name, digest, revision = _told(job, number)
    read = _known(job, digest)
    if read is None:
        return None
    if not number and len(job.told[0].files) > 1:
        job.source = replace(job.source, file_name=name)
    return replace(read, revision=revision)


def _told(job: _Job, number: int) -> tuple[str, str, str]:
    """Name, sha256 and revision of a part, as far as they are known before it is asked for."""
    each = number and len(job.told) > 1
    if not job.told or (each and number > len(job.told)):
        return "", "", ""
    source = job.told[number - 1 if each else 0]
    files_of = {path: digest for path, digest, dummy in source.files}
    if len(files_of) == 1 and number and not each:
        # Of the first part alone
        return "", "", source.revision
    name = next(iter(files_of), "") if len(files_of) == 1 else next(iter(_models([path for path in files_of if path.lower().endswith(".gguf")], number)), "")
    return name, files_of.get(name, ""), source.revision


def _models(names: Sequence[str], number: int) -> list[str]:
    """Of the GGUF files of one source, those that are the model, or the part of it that is wanted."""
    found = [name for name in sorted(names) if not os.path.basename(name).lower().startswith("mmproj")] or list(names)
    if number:
        return [name for name in found if (match := PART.search(name)) and int(match.group(1)) == number]
    # Of a split model, its first part
    return [name for name in found if not (match := PART.search(name)) or int(match.group(1)) == 1]


def _known(job: _Job, digest: str) -> Optional[Read]:
    """A header by its file's digest: out of the cache, or of the file where the store has it."""
    if not digest:
        return None
    read, dummy = job.cache.get(f"sha256:{digest}")
    for name in job.store.names(digest) if read is None else ():
        path = os.path.join(job.store.folder(digest), name)
        with contextlib.suppress(OSError):
            # Believed as far as it is known to be whole; hashing it now would cost more than a request
            if job.store.cache.get("sha256", os.lstat(path)) == digest:
                read = _read_local(path, job.source.shown)
                job.cache.put(f"sha256:{digest}", read)
                break
    return replace(read, sha256=digest) if read else None


# Files of this host


def _local(job: _Job, number: int) -> Read:
    path = os.path.normpath(os.path.expanduser(_renumbered(job.source.location, number)))
    digest = job.sha256 if not number else ""
    try:
        status = os.stat(path)
    except OSError as exc:
        part = f", part {number} of the model," if number else ""
        raise AikitError(f"src: {path}{part} cannot be read: {exc.strerror}.", "The path is one on the host that this runs on; check it there.") from None
    key = "file:" + json.dumps([path, files.identity(status)])
    found, dummy = job.cache.get(key)
    have = files.sha256_file(path, job.store.cache) if digest else ""
    if have != digest:
        raise AikitError(f"src: {path} has another sha256 than expected: found {have}, expected {digest}.", "Give the right file, or the right sha256.")
    if found is None:
        found = _read_local(path, path)
        job.cache.put(key, found)
    return replace(found, sha256=digest)


def _read_local(path: str, shown: str) -> Read:
    asked = [0]
    try:
        with open(path, "rb", buffering=0) as handle:
            descriptor = handle.fileno()
            size = os.fstat(descriptor).st_size

            def read_at(offset: int, length: int) -> bytes:
                piece = os.pread(descriptor, length, offset)
                asked[0] += len(piece)
                return piece

            header = gguf.check(read_at, size, shown, lean=True)
    except (IsADirectoryError, PermissionError) as exc:
        raise AikitError(f"src: {path} cannot be read: {exc.strerror}.", "Give the path of the model file itself.") from None
    return Read(header, size, asked[0])


# Over HTTP


def _http(job: _Job, number: int) -> Read:
    parts = sources.split_url(job.source.location)
    at = f"{parts.user}@" if parts.user else ""
    source = sources.parse(f"{parts.scheme}://{at}{parts.host}{_renumbered(parts.path, number)}{parts.suffix}")
    digest = _told(job, number)[1]
    client = Http(source, job.reach.token, job.reach.timeout_seconds)
    return _read_ranges(job, client, digest, f"url:{source.key}")


def _read_ranges(job: _Job, client: Http, digest: str, key: str) -> Read:
    """By the digest, where one is known, else by what the server says of the file."""
    before, more = job.cache.get(key) if not digest else (None, {})
    validators = {name: str(more[name]) for name in ("etag", "last_modified") if more.get(name)}
    remote = RangeFile(client, job.say)
    try:
        fresh = remote.open(validators if before else None)
        if before and not fresh:
            return replace(before, bytes_read=remote.bytes_read, requests=remote.requests)
        header = gguf.check(remote.read_at, remote.size, client.source.shown, WINDOW_BYTES, lean=True)
    finally:
        remote.close()
    read = Read(header, remote.size, remote.bytes_read, remote.requests, False, digest)
    if digest:
        job.cache.put(f"sha256:{digest}", read)
    elif remote.validators:
        job.cache.put(key, read, remote.validators)
    return read


def _hub(job: _Job, number: int) -> Read:
    name = hub.parse(job.source.location)
    if not name.path:
        raise AikitError(f"src: {job.source.shown} is a whole repository.", f"Name one of its files: {name.text}/FILE.gguf.")
    dummy, digest, commit = _told(job, number)
    name = replace(name, path=_renumbered(name.path, number), revision=job.hub_commit or commit or name.revision)
    entry, commit = HubClient(job.reach, name, job.say).file()
    # All parts are those of one commit
    job.hub_commit = commit
    if job.sha256 and not number and entry.sha256 and job.sha256 != entry.sha256:
        raise AikitError(
            f"src: {job.source.shown} has another sha256 than expected: the hub says {entry.sha256}, expected {job.sha256}.",
            "Name the revision that you mean, or the right sha256.",
        )
    digest = entry.sha256 or digest
    name = name.at(commit)
    read = _known(job, digest) or _read_ranges(job, HubClient(job.reach, name, job.say).http(name), digest, f"url:{job.reach.hub_url} {name.text}")
    return replace(read, revision=commit, requests=read.requests + 1)


# In registries


def _oci(job: _Job, number: int) -> Read:
    where = oci_model.parse(job.source.location)
    if not job.registries:
        job.registries.append(Registry(job.reach.registry))
    registry = job.registries[0]
    dummy, digest, revision = _told(job, number)
    manifest = registry.manifest(where.at(revision).text if revision else where.text)
    layers = oci_model.packed_files(manifest.layers, where)
    entry, start, size, read_before = _gguf_of(registry, manifest.repository, layers, job, number)
    digest = entry.sha256 or (digest if revision else "")
    together = sources.set_sha256({layer.path: layer.sha256 for layer in layers}) if all(layer.sha256 for layer in layers) else ""
    if job.sha256 and not number and entry.sha256 and job.sha256 not in (entry.sha256, together):
        raise AikitError(
            f"src: {job.source.shown} has another sha256 than expected: its manifest says {entry.sha256}, expected {job.sha256}.",
            "Name a digest, or the right sha256.",
        )
    key = f"layer:{entry.descriptor.digest}:{start}"
    known = _known(job, digest) or job.cache.get(key)[0]
    if known:
        return replace(known, revision=manifest.digest, bytes_read=read_before)
    asked = [read_before, 0]

    def read_at(offset: int, length: int) -> bytes:
        piece = registry.read_blob(manifest.repository, entry.descriptor, start + offset, length)
        asked[0] += len(piece)
        asked[1] += 1
        return piece

    header = gguf.check(read_at, size, job.source.shown, WINDOW_BYTES, lean=True)
    read = Read(header, size, asked[0], asked[1], False, digest, manifest.digest)
    job.cache.put(f"sha256:{digest}" if digest else key, read)
    return read


def _gguf_of(
    registry: Registry, repository: str, layers: Sequence[oci_model.Packed], job: _Job, number: int
) -> tuple[oci_model.Packed, int, int, int]:
    """The layer that holds the model (or a part of it), where in it the file begins, its size, and the bytes read to find that."""
    found: list[tuple[str, oci_model.Packed, int, int]] = []
    read = 0
    for entry in layers:
        if entry.form == "raw":
            if entry.gguf or entry.path.lower().endswith(".gguf"):
                found.append((entry.path, entry, 0, entry.descriptor.size))
        elif entry.form == "tar":
            blob = _Blob(registry, repository, entry)
            try:
                with tarfile.open(fileobj=blob, mode="r:") as reader:
                    found += [
                        (member.name, entry, member.offset_data, member.size) for member in reader if member.isfile() and member.name.lower().endswith(".gguf")
                    ]
            except (tarfile.TarError, EOFError) as exc:
                raise AikitError(
                    f"src: {job.source.shown}: the layer {entry.descriptor.digest} is no tar archive: {exc}.", "Pack the artifact again."
                ) from None
            read += blob.bytes_read
        else:
            raise AikitError(
                f"src: {job.source.shown}: its layers are compressed ({entry.form}), so there is no looking into them.",
                "Fetch it with model_file, and give the path.",
            )
    chosen = _models([item[0] for item in found], number)
    models = [item for item in found if item[0] in chosen]
    if len(models) != 1:
        names = ", ".join(item[0] for item in found) or "none"
        what = f"part {number} of the model" if number else "one GGUF file"
        raise AikitError(
            f"src: {job.source.shown} does not hold {what}; its GGUF files are: {names}.",
            "Fetch it with model_file, and give the path of the file.",
        )
    if not number and PART.search(models[0][0]):
        job.source = replace(job.source, file_name=models[0][0])
    dummy, entry, start, size = models[0]
    return entry, start, size, read


class _Blob(io.RawIOBase):
    """A blob as a file that can be sought in, for tarfile."""

    def __init__(self, registry: Registry, repository: str, entry: oci_model.Packed) -> None:
        super().__init__()
        self._read_blob = lambda start, length: registry.read_blob(repository, entry.descriptor, start, length)
        self._size = entry.descriptor.size
        self._position = 0
        self._window = (0, b"")
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (self._position if whence == 1 else self._size if whence == 2 else 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, length: int = -1) -> bytes:
        length = min(length if length >= 0 else 4096, max(0, self._size - self._position))
        begin, piece = self._window
        if not begin <= self._position <= self._position + length <= begin + len(piece):
            piece = self._read_blob(self._position, max(length, 4096))
            begin = self._position
            self._window = (begin, piece)
            self.bytes_read += len(piece)
        found = piece[self._position - begin : self._position - begin + length]
        self._position += len(found)
        return found
