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
import platform as platform_module
import shutil
from typing import Any, Iterable, Optional, Sequence

from .._core import data_aikit_release, oci, tar_rewrite
from .._core import image as images
from .._core import localai_image as rules
from .._core import registry as names
from .._core.aikitfile import Aikitfile
from .._core.data_aikit_release import Backend, Release
from .._core.errors import AikitError, Finding, raise_for_errors
from .._core.image import ImageRecipe
from .._core.localai_image import BaseLayer, Parts, Sources, folders_of_base, metadata
from .._core.lock import Lock
from .._core.oci import Descriptor
from .._core.plan import Action
from .._core.reference import short_name
from .._core.tar import FileRef
from . import files, progress
from .blob_store import BlobStore
from .cosign import Signatures
from .image import FoundModels
from .registry import Registry, RemoteManifest
from .unpack import unpacked

# Counted up when the same backend would become another tar
REWRITE_VERSION = 1
FOLDERS = ("usr", "usr/bin")


class Maker:
    """What makes an image for one server: it has its inputs before the models come, and recipes, one a platform, when they are here.

    ``absent`` is true in check mode while something is not on this host; ``actions`` is what was fetched, or would be.
    ``locked_images`` are inputs beside bases and models, with their digests; ``result`` is added to what the module says of the image.
    """

    def __init__(self) -> None:
        self.absent = False
        self.actions: list[Action] = []
        self.findings: tuple[Finding, ...] = ()
        self.locked_images: dict[str, str] = {}
        self.result: dict[str, Any] = {}

    def recipes(self, name: str, found: FoundModels) -> list[ImageRecipe]:
        raise NotImplementedError

    def locked_bases(self, whole: images.Release) -> dict[str, dict[str, Any]]:
        raise NotImplementedError


class LocalAIMaker(Maker):
    """AIKit's own image."""

    def __init__(
        self,
        request: Any,
        aikitfile: Aikitfile,
        registry: Registry,
        store: BlobStore,
        cache: files.DigestCache,
        pins: Lock,
        signatures: Signatures,
        check_mode: bool,
    ) -> None:
        super().__init__()
        self.aikitfile = aikitfile
        self.aikit_version = request.aikit_version
        parsed = request.parsed or {}
        asked = rules.overrides(request.localai, request.base)
        platforms = request.platforms or [""]
        machine = platform_module.machine()
        architectures = [rules.architecture([wanted] if wanted else [], aikitfile.runtime, machine) for wanted in dict.fromkeys(platforms)]
        self.release = rules.require_direct(aikitfile, request.aikit_version, architectures)
        self.texts = rules.texts(aikitfile, self.release, parsed.get("text_lines"))
        raise_for_errors(self.texts.findings, str(parsed.get("name") or "aikitfile"))
        if self.texts.config is not None:
            self.result = {"config": self.texts.config.decode("utf-8")}
        preparation = Preparation(registry, store, cache, pins, signatures, check_mode)
        self.parts: dict[str, Optional[Parts]] = {}
        self.bases: dict[str, dict[str, Any]] = {}
        for architecture in architectures:
            wanted = rules.sources(aikitfile, self.release, architecture, asked)
            self.parts[architecture] = preparation.prepare(wanted, self.release, architecture)
            self.bases[f"linux/{architecture}"] = {"source": wanted.base, "digest": preparation.resolved[wanted.base]}
        self.actions = preparation.actions
        self.absent = preparation.absent
        bases = {entry["source"] for entry in self.bases.values()}
        self.locked_images = {ref: digest for ref, digest in preparation.resolved.items() if ref not in bases}

    def recipes(self, name: str, found: FoundModels) -> list[ImageRecipe]:
        images.model_paths(found.models)
        return [
            rules.recipe(name, self.aikitfile, self.aikit_version, self.release, architecture, parts, found.models, self.texts)
            for architecture, parts in self.parts.items()
            if parts is not None
        ]

    def locked_bases(self, whole: images.Release) -> dict[str, dict[str, Any]]:
        return self.bases


class Preparation:
    """One run: every source is resolved first, then what is missing is fetched.

    ``resolved`` has the digest that each reference stands for, of an index where it names one; ``pins`` are digests to take instead.
    """

    def __init__(
        self, registry: Registry, blobs: BlobStore, cache: files.DigestCache, pins: Lock, signatures: Signatures, check_mode: bool
    ) -> None:
        self.registry = registry
        self.blobs = blobs
        self.cache = cache
        self.pins = pins
        self.signatures = signatures
        self.check_mode = check_mode
        self.actions: list[Action] = []
        self.absent = False
        self.resolved: dict[str, str] = {}

    def prepare(self, sources: Sources, release: Release, architecture: str) -> Optional[Parts]:
        """The parts of an image for one architecture; None in check mode while something is not here."""
        platform = f"linux/{architecture}"
        base = self._manifest(sources.base, platform, self.pins.base(platform, sources.base))
        program = self._manifest(sources.local_ai, "", self.pins.image(sources.local_ai))
        backends = [(backend, ref, self._manifest(ref, platform, self.pins.image(ref))) for backend, ref in sources.backends]
        diff_ids = oci.diff_ids(self.registry.config(base), base.layers, sources.base)
        layers = tuple(
            BaseLayer(
                self.blobs.path(layer.digest),
                layer.digest,
                "" if diff_id == layer.digest else diff_id,
                layer.size,
                oci.layer_media_type(layer.media_type, sources.base),
                base.repository,
            )
            for layer, diff_id in zip(base.layers, diff_ids)
        )
        folders = self._folders(base, sources.base) if folders_of_base(sources.base) else {}
        local_ai = self._program(program, sources.local_ai)
        rewritten = [(f"backends/{backend.directory}", self._backend(backend, release, found, ref)) for backend, ref, found in backends]
        if self.absent:
            return None
        digests = {
            "base": _pinned(sources.base, base),
            "local-ai": _pinned(sources.local_ai, program),
            **{backend.directory: _pinned(ref, found) for backend, ref, found in backends},
        }
        kept = tuple((title, ref) for title, ref in rewritten if ref is not None)
        return Parts(layers, folders, local_ai, kept, digests)

    def _manifest(self, ref: str, platform: str, pinned: str) -> RemoteManifest:
        name = names.parse_name(ref, "localai")
        found = self.registry.manifest(name.at(pinned).text if pinned else name.text, platform)
        self.resolved[ref] = found.index_digest or found.digest
        # Before anything of it is fetched
        self.signatures.verify(ref, self.resolved[ref])
        return found

    def _blob(self, manifest: RemoteManifest, descriptor: Descriptor, ref: str) -> str:
        """The path of a blob, which is fetched unless it is here."""
        path = self.blobs.path(descriptor.digest)
        if not self.blobs.has(descriptor):
            self._fetches(ref, descriptor.size)
            if not self.check_mode:
                with progress.stage(f"fetch {short_name(ref)}", descriptor.size) as current:
                    self.blobs.ensure(self.registry, manifest.repository, descriptor, current.reach)
        return path

    def _fetches(self, ref: str, size: int) -> None:
        self.absent = self.absent or self.check_mode
        self.actions.append(Action("fetch", ref, files.human_bytes(size)))

    def _program(self, manifest: RemoteManifest, ref: str) -> FileRef:
        title = data_aikit_release.LOCALAI_TITLE
        titles = [layer.annotations.get("org.opencontainers.image.title", "") for layer in manifest.layers]
        if titles.count(title) != 1:
            have = ", ".join(filter(None, titles)) or "none with a name"
            raise AikitError(
                f"{ref}: an artifact with one file {title} is expected; its files are: {have}.",
                "Name LocalAI's artifact as AIKit publishes it, or a copy of it, with localai: sources: local-ai.",
            )
        layer = manifest.layers[titles.index(title)]
        return FileRef(self._blob(manifest, layer, ref), layer.size)

    def _backend(self, backend: Backend, release: Release, manifest: RemoteManifest, ref: str) -> Optional[FileRef]:
        """The tar of a backend below /backends; None in check mode when it is not here."""
        extra = [("metadata.json", 0o644, metadata(release, backend))]
        prefix = f"backends/{backend.directory}"
        added = [[path, mode, data.decode()] for path, mode, data in extra]
        made_of = {"source": manifest.digest, "prefix": prefix, "extra": added, "version": REWRITE_VERSION}
        key = hashlib.sha256(oci.canonical(made_of)).hexdigest()
        path = os.path.join(self.blobs.root, "backends", f"{key}.tar")
        known = self._known(path)
        if known is not None:
            return known
        self._fetches(ref, sum(layer.size for layer in manifest.layers))
        if self.check_mode:
            return None
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with files.lock(f"{path}.lock", remove=True):
            return self._known(path) or self._rewrite(manifest, ref, prefix, extra, path, made_of)

    def _known(self, path: str) -> Optional[FileRef]:
        """A tar of an earlier run that is still what was written."""
        told = files.read_json(f"{path}.json")
        size, sha256 = told.get("size_bytes"), told.get("sha256")
        if not isinstance(size, int) or not os.path.isfile(path) or os.path.getsize(path) != size:
            return None
        return FileRef(path, size) if files.sha256_file(path, self.cache) == sha256 else None

    def _rewrite(
        self, manifest: RemoteManifest, ref: str, prefix: str, extra: Sequence[tuple[str, int, bytes]], path: str, made_of: dict[str, object]
    ) -> FileRef:
        """Two passes over the layers, which are here only for that time."""
        folder = f"{path}.layers"
        blobs = []
        for layer in manifest.layers:
            oci.layer_media_type(layer.media_type, ref)
            blobs.append(os.path.join(folder, layer.digest.partition(":")[2]))
            with progress.stage(f"fetch {short_name(ref)}", layer.size) as current:
                self.registry.fetch_blob(manifest.repository, layer, blobs[-1], current.reach)

        with progress.stage(f"look into {short_name(ref)}", sum(layer.size for layer in manifest.layers)) as current:
            try:
                plan = tar_rewrite.plan(_readers(current, manifest, blobs, ref), ref)
            except AikitError:
                # What is refused is not asked for again
                shutil.rmtree(folder, ignore_errors=True)
                raise
        part = f"{path}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "wb", buffering=0) as handle, progress.stage(f"repack {short_name(ref)}", current.total) as current:
                readers = _readers(current, manifest, blobs, ref)
                for piece in _joined(tar_rewrite.rewrite(plan, readers.__getitem__, prefix, extra)):
                    digest.update(piece)
                    size += len(piece)
                    files.require_space(part, len(piece), f"the files of {ref}")
                    files.write_all(handle, memoryview(piece))
                os.fsync(handle.fileno())
            os.replace(part, path)
        except BaseException:
            if os.path.exists(part):
                os.unlink(part)
            raise
        self.cache.put("sha256", os.stat(path), digest.hexdigest(), files.SETTLED)
        told = {**made_of, "ref": ref, "sha256": digest.hexdigest(), "size_bytes": size}
        files.write_atomic(f"{path}.json", json.dumps(told, indent=2, sort_keys=True).encode())
        shutil.rmtree(folder, ignore_errors=True)
        return FileRef(path, size)

    def _folders(self, base: RemoteManifest, ref: str) -> dict[str, tuple[int, int, int]]:
        """Mode and owners of the folders of the base into which LocalAI goes; they must stay as they are."""
        path = os.path.join(self.blobs.root, "bases", f"{base.digest.partition(':')[2]}.json")
        known = files.read_json(path)
        if known.get("version") == REWRITE_VERSION:
            return {name: tuple(numbers) for name, numbers in known["folders"].items()}
        blobs = [self._blob(base, layer, ref) for layer in base.layers]
        if self.absent:
            return {}
        with progress.stage(f"look into {short_name(ref)}", sum(layer.size for layer in base.layers)) as current:
            plan = tar_rewrite.plan(_readers(current, base, blobs, ref, strict=False), ref)
        found = {member.path: (member.mode, member.uid, member.gid) for member in plan.directories if member.path in FOLDERS}
        for member in plan.symlinks:
            if member.path in FOLDERS:
                hint = "LocalAI goes into /usr/bin: take a base that has this folder."
                raise AikitError(f"{ref}: /{member.path} is a symbolic link to {member.target}.", hint)
        if not self.check_mode:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            files.write_atomic(path, oci.canonical({"folders": found, "version": REWRITE_VERSION}))
        return found


def _readers(current: progress.Stage, manifest: RemoteManifest, blobs: Sequence[str], ref: str, strict: bool = True) -> list[tar_rewrite.Reader]:
    """A reader for each layer, which opens its blob when it is read; ``current`` follows the blobs."""
    found = []
    before = 0
    for layer, blob in zip(manifest.layers, blobs):
        what = f"{ref}: layer {layer.digest}"

        def reach(position: int, start: int = before) -> None:
            current.reach(start + position)

        found.append(tar_rewrite.Reader(unpacked(blob, what, reach), what, strict=strict))
        before += layer.size
    return found


def _pinned(ref: str, manifest: RemoteManifest) -> str:
    """The name that was asked for, and the digest that it stands for on one platform."""
    return f"{ref.partition('@')[0]}@{manifest.digest}"


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
