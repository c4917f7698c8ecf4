# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Have what AIKit's image of an aikitfile is made of: its base, LocalAI's program, and backends below /backends.

A backend is an image of its own whose files go into a folder. They are packed anew once, and kept under what they were made
of, so that the next image takes them as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import Iterable, Optional, Sequence

from .._core import data_aikit_release, oci, tar_rewrite
from .._core.data_aikit_release import Backend, Release
from .._core.errors import AikitError
from .._core.localai_image import BaseLayer, Parts, Sources, folders_of_base, metadata
from .._core.oci import Descriptor
from .._core.plan import Action
from .._core.tar import FileRef
from . import files
from .blob_store import BlobStore
from .registry import Registry, RemoteManifest
from .unpack import unpacked

# Counted up when the same backend would become another tar
REWRITE_VERSION = 1
FOLDERS = ("usr", "usr/bin")


class Preparation:
    """One run: every source is resolved first, then what is missing is fetched."""

    def __init__(self, registry: Registry, blobs: BlobStore, cache: files.DigestCache, check_mode: bool) -> None:
        self.registry = registry
        self.blobs = blobs
        self.cache = cache
        self.check_mode = check_mode
        self.actions: list[Action] = []
        self.absent = False

    def prepare(self, sources: Sources, release: Release, architecture: str) -> tuple[Optional[Parts], tuple[Action, ...]]:
        """The parts of an image for one architecture, None in check mode while something is not here; what was fetched, or would be."""
        platform = f"linux/{architecture}"
        base = self.registry.manifest(sources.base, platform)
        program = self.registry.manifest(sources.local_ai)
        backends = [(backend, self.registry.manifest(ref, platform)) for backend, ref in sources.backends]
        diff_ids = oci.diff_ids(self.registry.config(base), base.layers, base.ref)
        layers = tuple(
            BaseLayer(
                self._blob(base, layer),
                layer.digest,
                "" if diff_id == layer.digest else diff_id,
                layer.size,
                oci.layer_media_type(layer.media_type, base.ref),
                base.repository,
            )
            for layer, diff_id in zip(base.layers, diff_ids)
        )
        local_ai = self._program(program)
        rewritten = [(f"backends/{backend.directory}", self._backend(backend, release, found)) for backend, found in backends]
        if self.absent:
            return None, tuple(self.actions)
        digests = {"base": _pinned(base), "local-ai": _pinned(program), **{backend.directory: _pinned(found) for backend, found in backends}}
        folders = self._folders(base, layers) if folders_of_base(sources.base) else {}
        kept = tuple((title, ref) for title, ref in rewritten if ref is not None)
        return Parts(layers, folders, local_ai, kept, digests), tuple(self.actions)

    def _blob(self, manifest: RemoteManifest, descriptor: Descriptor) -> str:
        """The path of a blob, which is fetched unless it is here."""
        path = self.blobs.path(descriptor.digest)
        if not self.blobs.has(descriptor):
            self._fetches(manifest.ref, descriptor.size)
            if not self.check_mode:
                self.blobs.ensure(self.registry, manifest.repository, descriptor)
        return path

    def _fetches(self, ref: str, size: int) -> None:
        self.absent = self.absent or self.check_mode
        self.actions.append(Action("fetch", ref, files.human_bytes(size)))

    def _program(self, manifest: RemoteManifest) -> FileRef:
        title = data_aikit_release.LOCALAI_TITLE
        titles = [layer.annotations.get("org.opencontainers.image.title", "") for layer in manifest.layers]
        if titles.count(title) != 1:
            have = ", ".join(filter(None, titles)) or "none with a name"
            raise AikitError(
                f"{manifest.ref}: an artifact with one file {title} is expected; its files are: {have}.",
                "Name LocalAI's artifact as AIKit publishes it, or a copy of it, with localai: sources: local-ai.",
            )
        layer = manifest.layers[titles.index(title)]
        return FileRef(self._blob(manifest, layer), layer.size)

    def _backend(self, backend: Backend, release: Release, manifest: RemoteManifest) -> Optional[FileRef]:
        """The tar of a backend below /backends; None in check mode when it is not here."""
        extra = [("metadata.json", 0o644, metadata(release, backend))]
        prefix = f"backends/{backend.directory}"
        made_of = {"source": manifest.digest, "prefix": prefix, "extra": [[path, mode, data.decode()] for path, mode, data in extra], "version": REWRITE_VERSION}
        key = hashlib.sha256(oci.canonical(made_of)).hexdigest()
        path = os.path.join(self.blobs.root, "backends", f"{key}.tar")
        known = self._known(path)
        if known is not None:
            return known
        self._fetches(manifest.ref, sum(layer.size for layer in manifest.layers))
        if self.check_mode:
            return None
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.lock(f"{path}.lock", remove=True):
            return self._known(path) or self._rewrite(manifest, prefix, extra, path, made_of)

    def _known(self, path: str) -> Optional[FileRef]:
        """A tar of an earlier run that is still what was written."""
        told = files.read_json(f"{path}.json")
        size, sha256 = told.get("size_bytes"), told.get("sha256")
        if not isinstance(size, int) or not os.path.isfile(path) or os.path.getsize(path) != size:
            return None
        return FileRef(path, size) if files.sha256_file(path, self.cache) == sha256 else None

    def _rewrite(self, manifest: RemoteManifest, prefix: str, extra: Sequence[tuple[str, int, bytes]], path: str, made_of: dict[str, object]) -> FileRef:
        """Two passes over the layers, which are here only for that time."""
        folder = f"{path}.layers"
        blobs = []
        for layer in manifest.layers:
            oci.layer_media_type(layer.media_type, manifest.ref)
            blobs.append(os.path.join(folder, layer.digest.partition(":")[2]))
            self.registry.fetch_blob(manifest.repository, layer, blobs[-1])

        def reader(number: int) -> tar_rewrite.Reader:
            what = f"{manifest.ref}: layer {manifest.layers[number].digest}"
            return tar_rewrite.Reader(unpacked(blobs[number], what), what)

        plan = tar_rewrite.plan([reader(number) for number in range(len(blobs))], manifest.ref)
        part = f"{path}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "wb", buffering=0) as handle:
                for piece in _joined(tar_rewrite.rewrite(plan, reader, prefix, extra)):
                    digest.update(piece)
                    size += len(piece)
                    files.require_space(part, len(piece), f"the files of {manifest.ref}")
                    files.write_all(handle, memoryview(piece))
                os.fsync(handle.fileno())
            os.replace(part, path)
        except BaseException:
            if os.path.exists(part):
                os.unlink(part)
            raise
        self.cache.put("sha256", os.stat(path), digest.hexdigest(), files.SETTLED)
        told = {**made_of, "ref": manifest.ref, "sha256": digest.hexdigest(), "size_bytes": size}
        files.write_atomic(f"{path}.json", json.dumps(told, indent=2, sort_keys=True).encode())
        shutil.rmtree(folder, ignore_errors=True)
        return FileRef(path, size)

    def _folders(self, base: RemoteManifest, layers: Sequence[BaseLayer]) -> dict[str, tuple[int, int, int]]:
        """Mode and owners of the folders of the base into which LocalAI goes; they must stay as they are."""
        path = os.path.join(self.blobs.root, "bases", f"{base.digest.partition(':')[2]}.json")
        known = files.read_json(path)
        if known.get("version") == REWRITE_VERSION:
            return {name: tuple(numbers) for name, numbers in known["folders"].items()}
        readers = []
        for layer in layers:
            what = f"{base.ref}: layer {layer.digest}"
            readers.append(tar_rewrite.Reader(unpacked(layer.path, what), what, strict=False))
        plan = tar_rewrite.plan(readers, base.ref)
        found = {member.path: (member.mode, member.uid, member.gid) for member in plan.directories if member.path in FOLDERS}
        for member in plan.symlinks:
            if member.path in FOLDERS:
                raise AikitError(f"{base.ref}: /{member.path} is a symbolic link to {member.target}.", "LocalAI goes into /usr/bin: take a base that has this folder.")
        if not self.check_mode:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            files.write_atomic(path, oci.canonical({"folders": found, "version": REWRITE_VERSION}))
        return found


def _pinned(manifest: RemoteManifest) -> str:
    """The name that was asked for, and the digest that it stands for."""
    return f"{manifest.ref.partition('@')[0]}@{manifest.digest}"


def _joined(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """The same bytes in pieces of about a megabyte: most headers and files are small."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= 1 << 20:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
