# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads an image that is a base: from a registry, of which only what is needed is fetched, or from an OCI layout."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Optional, Union

from .._core import image_base, oci, reference
from .._core import registry as rules
from .._core.base import Base
from .._core.errors import AikitError
from .._core.image_base import ImageBase, LayerFiles, ServerHint
from .._core.oci import Descriptor
from . import files, progress
from .blob_store import BlobStore
from .image import read_base
from .oci_layout import Layout
from .registry import Registry

SCAN_BYTES = 1 << 20
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class FoundBase:
    """The base of one platform. ``path`` is the file of a base that is one; ``blob_path`` says where each layer of an image is, or will be."""

    base: Union[Base, ImageBase]
    path: str = ""
    blob_path: Callable[[str], str] = str
    # Where the name was looked up, for the lock: what it was resolved to
    resolved: str = ""


@dataclass(frozen=True)
class ImageSource:
    """An image, wherever it is: its documents, and its blobs as streams."""

    ref: str
    digest: str
    index_digest: str
    manifest: oci.Manifest
    config: dict[str, Any]
    repository: str
    blob_path: Callable[[str], str]
    open: Callable[[Descriptor], Iterator[bytes]]


def find_base(
    text: str,
    platform: str,
    hint: ServerHint,
    registry: Registry,
    store: BlobStore,
    cache: files.DigestCache,
    pinned: str = "",
    verify: Callable[[str, str], None] = lambda ref, digest: None,
    skip: Callable[[str, str, str], None] = lambda ref, digest, reason: None,
) -> FoundBase:
    """The base that ``text`` names, for ``platform`` (empty: the only one that there is).

    ``pinned`` is the digest that a lock has for it: then that is read, whatever the name means today.
    ``verify`` is called with the name and the digest of an image in a registry, before its layers are read; ``skip`` with those
    of a base that can have no signature, and why.
    """
    kind = image_base.kind(text)
    path = os.path.expanduser(os.path.expandvars(text))
    if kind == "path" and os.path.isdir(path):
        kind = "layout"
    if kind == "path" or (kind == "image" and os.path.isfile(path)):
        path = os.path.abspath(path)
        found = read_base(path, cache)
        if platform and platform != f"linux/{found.architecture}":
            raise AikitError(
                f"platforms: {platform} asked for, but the base is linux/{found.architecture}.",
                "Build a base with llama_cpp_base_architecture set to it, and give base as a mapping of platforms.",
            )
        skip(path, f"sha256:{found.sha256}", "it is a file on the build host, and has the SHA-256 that its description says")
        return FoundBase(found, path, resolved=f"sha256:{found.sha256}")
    if kind == "layout":
        source = layout_source(text, platform, pinned)
        skip(text, source.index_digest or source.digest, "it is in an OCI layout on the build host, where no signatures are looked for")
    elif not reference.complete(text.partition("@")[0]):
        raise AikitError(f"base: {text} is neither a file, nor a layout, nor the name of an image.", "Build a base with role llama_cpp_base, or name an image.")
    else:
        source = registry_source(text, platform, registry, store, pinned)
        verify(source.ref, source.index_digest or source.digest)
    return FoundBase(_describe(source, hint, cache), blob_path=source.blob_path, resolved=source.index_digest or source.digest)


def registry_source(text: str, platform: str, registry: Registry, store: BlobStore, pinned: str) -> ImageSource:
    name = rules.parse_name(text, "base")
    wanted = name.at(pinned).text if pinned else name.text
    found = registry.manifest(wanted, platform)
    manifest = oci.parse_manifest(found.raw, found.media_type, name.text)
    return ImageSource(
        name.text,
        found.digest,
        found.index_digest,
        manifest,
        registry.config(found),
        found.repository,
        store.path,
        lambda descriptor: registry.open_blob(found.repository, descriptor),
    )


def layout_source(text: str, platform: str, pinned: str, child: str = "") -> ImageSource:
    """``child`` is the digest of an entry of an index, in place of its platform."""
    folder, name = image_base.split_layout(text)
    layout = Layout(os.path.expandvars(folder))
    if not layout.exists():
        raise AikitError(
            f"base: {layout.path} is no OCI layout: it has no file oci-layout.", "Name a base (.tar), an image, or a folder that skopeo or aikit_image wrote."
        )
    entry = layout.find(pinned or name) or (layout.find(name) if pinned else None)
    if entry is None:
        raise AikitError(
            f"base: {layout.path} has no image {name}; it has: {', '.join(layout.names()) or 'none with a name'}.", "Name one of them: oci:FOLDER:NAME."
        )
    where = f"{layout.path}:{name}" if name else layout.path
    raw, media_type, index_digest = layout.read(entry.digest), entry.media_type, ""
    full = entry.annotations.get("io.containerd.image.name", "")
    if oci.is_index(oci.parse_document(raw, where), media_type):
        index_digest = entry.digest
        index = oci.parse_index(raw, media_type, where)
        entry = next((image for image in index.manifests if image.digest == child), None) or oci.choose_platform(index, platform, where)
        raw, media_type = layout.read(entry.digest), entry.media_type
    manifest = oci.parse_manifest(raw, media_type, where)
    try:
        config = json.loads(layout.read(manifest.config.digest))
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise AikitError(f"base: the config of {where} is no JSON object.", "Write the layout again.")
    have = oci.config_platform(config)
    if platform and not index_digest and have and have.split("/")[:2] != platform.split("/")[:2]:
        raise AikitError(f"base: {where} is an image for {have}, and {platform} is asked for.", "Name an image that has this platform.")

    def read(descriptor: Descriptor) -> Iterator[bytes]:
        digest = hashlib.sha256()
        try:
            with open(layout.blob_path(descriptor.digest), "rb", buffering=0) as handle:
                for piece in iter(lambda: handle.read(SCAN_BYTES), b""):
                    digest.update(piece)
                    yield piece
        except FileNotFoundError:
            raise AikitError(f"base: {layout.path} lacks layer {descriptor.digest} of {where}.", "The layout is incomplete; write it again.") from None
        if f"sha256:{digest.hexdigest()}" != descriptor.digest:
            raise AikitError(
                f"base: layer {descriptor.digest} in {layout.path} has digest sha256:{digest.hexdigest()}.", "The layout is damaged; write it again."
            )

    ref = name if "/" in name else full or (name if not oci.is_digest(name) else "") or os.path.basename(layout.path)
    return ImageSource(ref, entry.digest, index_digest, manifest, config, "", layout.blob_path, read)


def _describe(source: ImageSource, hint: ServerHint, cache: files.DigestCache) -> ImageBase:
    layers = tuple(Descriptor(oci.layer_media_type(layer.media_type, f"base: {source.ref}"), layer.digest, layer.size) for layer in source.manifest.layers)
    found = source.config.get("config")
    config = found if isinstance(found, dict) else {}
    told = image_base.from_labels(config)
    known = hint.complete or (told.complete and not hint.path)
    listed = LayerFiles() if known else _look(source, layers, cache)
    server, backends, library_path = image_base.find_server(listed, config, hint, source.ref)
    return ImageBase(
        ref=source.ref,
        digest=source.digest,
        index_digest=source.index_digest,
        platform=oci.config_platform(source.config) or "linux/amd64",
        layers=layers,
        diff_ids=oci.diff_ids(source.config, layers, f"base: {source.ref}"),
        config=config,
        server=server,
        backends=backends,
        library_path=library_path,
        source=source.repository,
    )


def _look(source: ImageSource, layers: Iterable[Descriptor], cache: files.DigestCache) -> LayerFiles:
    """Read layers from the top until the server and its backends were found; what a layer tells is remembered by its digest."""
    seen: list[LayerFiles] = []
    found = LayerFiles()
    for layer in reversed(tuple(layers)):
        path = os.path.join(os.path.dirname(os.path.abspath(cache.directory)), "layers", f"{layer.digest.partition(':')[2]}.json")
        told = image_base.parse_layer_files(files.read_json(path))
        if told is None:
            pieces = progress.counted(source.open(layer), f"look into {reference.short_name(source.ref)}", layer.size)
            told = scan_layer(pieces, layer, source.ref)
            if not cache.read_only:
                try:
                    files.write_atomic(path, json.dumps(told.as_dict(), sort_keys=True).encode(), durable=False)
                except OSError:
                    # A cache is never needed
                    pass
        seen.append(told)
        found = image_base.merge(seen)
        if image_base.is_enough(found):
            break
    return found


def scan_layer(pieces: Iterator[bytes], layer: Descriptor, ref: str) -> LayerFiles:
    """What a layer tells, read once as a stream and checked against its digest; nothing of it is kept."""
    if layer.media_type.endswith("zstd"):
        raise AikitError(f"base: layer {layer.digest} of {ref} is compressed with zstd, which cannot be looked into.", image_base.HINT)
    names: list[str] = []
    removed: list[str] = []
    texts: dict[str, tuple[str, ...]] = {}
    stream = Pieces(pieces)
    try:
        with tarfile.open(fileobj=stream, mode=stream.tar_mode(), bufsize=SCAN_BYTES) as reader:
            for member in reader:
                # tarfile remembers every entry, and some layers have a hundred thousand
                reader.members = []  # type: ignore[attr-defined]
                path = image_base.member_path(member.name)
                gone = image_base.removed_path(path)
                if gone:
                    removed.append(gone)
                elif image_base.is_telling(path) and (member.isfile() or member.issym() or member.islnk()):
                    names.append(path)
                    handle = reader.extractfile(member) if member.isreg() and image_base.has_options(path) else None
                    if handle is not None:
                        texts[path] = tuple(sorted(_texts(handle)))
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise AikitError(f"base: layer {layer.digest} of {ref} cannot be read: {exc}.", image_base.HINT) from exc
    # What follows the last entry counts for the digest
    for _piece in stream.rest():
        pass
    return LayerFiles(tuple(names), tuple(removed), texts)


def _texts(handle: Any) -> set[str]:
    found: set[str] = set()
    tail = b"\0"
    while True:
        piece = handle.read(SCAN_BYTES)
        if not piece:
            return found | image_base.texts(tail + b"\0")
        found |= image_base.texts(tail + piece)
        tail = (tail + piece)[-image_base.TEXT_BYTES :]


class Pieces(io.RawIOBase):
    """Pieces of bytes as a file that tarfile reads."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def tar_mode(self) -> str:
        """How tarfile reads it, by its first bytes: Docker says gzip also of a layer that it took over plain from another repository."""
        while len(self._left) < len(GZIP):
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        return "r|gz" if self._left.startswith(GZIP) else "r|"

    def read(self, size: Optional[int] = -1) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        count = len(self._left) if size is None or size < 0 else size
        found, self._left = self._left[:count], self._left[count:]
        return found

    def rest(self) -> Iterator[bytes]:
        return self._pieces
