# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hands of the direct builder: read and hash files, stream an image into an engine or an archive."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tarfile
import time
from typing import Any, Iterable, Iterator, Mapping, Optional

from .._core.aikitfile import Aikitfile, Model, image_file
from .._core.base import Base, parse_base
from .._core.engine import missing_layers
from .._core.errors import AikitError, Finding
from .._core.image import Image, LayerRecipe, ModelFile, archive
from .._core.tar import FileRef, Segment, total_size
from . import files, transfer
from .engine import Engine

# An engine unpacks what it is sent into a temporary folder of its own, and then into its store
LOAD_COPIES = 2

CHUNK_BYTES = 1 << 20


def read_base(path: str, cache: files.DigestCache) -> Base:
    """The base at ``path``, whose description stands beside it; its bytes are checked against that."""
    description = f"{path}.json"
    try:
        with open(description, encoding="utf-8") as handle:
            base = parse_base(json.load(handle), description)
    except FileNotFoundError as exc:
        raise AikitError(
            f"base: {exc.filename} does not exist.", "Build a base with role llama_cpp_base, and give the path of its .tar file."
        ) from exc
    except ValueError as exc:
        raise AikitError(f"base: {description} is no JSON: {exc}.", "Build the base again with llama_cpp_base_refresh: true.") from exc
    if not os.path.isfile(path):
        raise AikitError(f"base: {path} does not exist.", "Build a base with role llama_cpp_base.")
    found = files.sha256_file(path, cache)
    if found != base.sha256:
        raise AikitError(
            f"base: {path} has sha256 {found}, its description says {base.sha256}.",
            "Build the base again with llama_cpp_base_refresh: true.",
        )
    return base


def local_models(model: Model, context: str) -> list[str]:
    """The files that a relative ``source`` (a path or a glob) names below ``context``, sorted; shards are several."""
    root = os.path.realpath(context)
    pattern = os.path.join(root, model.source)
    found = [pattern] if os.path.isfile(pattern) else sorted(name for name in glob.glob(pattern) if os.path.isfile(name))
    if not found:
        raise AikitError(
            f"models: {model.name}: source {model.source} names no file below {root}.",
            "Sources without a scheme are relative to the folder of the aikitfile, or to option context.",
        )
    outside = [name for name in found if os.path.commonpath([root, os.path.realpath(name)]) != root]
    if outside:
        raise AikitError(
            f"models: {model.name}: source {model.source} leads out of the context {root} to {os.path.realpath(outside[0])}.",
            "Set option context to a folder above it, or copy the file there.",
        )
    return found


def find_models(
    aikitfile: Aikitfile, context: str, store: str, token: Optional[str], check_mode: bool
) -> tuple[list[ModelFile], dict[str, Mapping[str, Any]], list[str], list[Finding]]:
    """Every model file of an aikitfile, GGUF metadata by model name, the sources that are not on this host yet, and remarks.

    Outside check mode no source is missing: it was fetched into ``store``. Files below ``context`` are used where they are.
    """
    found: list[ModelFile] = []
    metadata: dict[str, Mapping[str, Any]] = {}
    absent: list[str] = []
    findings: list[Finding] = []
    for model in aikitfile.models:
        local = "://" not in model.source
        if check_mode and (not os.path.isdir(context) if local else transfer.find_model(model.source, model.sha256, store) is None):
            # A folder that does not exist yet is what an earlier task would have made
            absent.append(model.source)
            continue
        for source in local_models(model, context) if local else [model.source]:
            stored = transfer.ensure_model(source, model.sha256, store, token=token, check_mode=check_mode, local_in_place=local)
            found.append(ModelFile(model.name, stored.path, stored.sha256, stored.size_bytes, "" if local else image_file(model)))
            findings += stored.findings
            if stored.header is not None:
                metadata.setdefault(model.name, stored.header.metadata)
    return found, metadata, absent, findings


def layer_digest(layer: LayerRecipe, cache: files.DigestCache) -> str:
    """``sha256:…`` of a layer; cached by the stat of its file and the bytes around it."""
    references = [part for part in layer.parts if isinstance(part, FileRef)]
    if len(references) != 1:
        return "sha256:" + _hash(layer.parts)
    if len(layer.parts) == 1:
        return "sha256:" + files.sha256_file(references[0].path, cache)
    around = hashlib.sha256(b"|".join(part for part in layer.parts if isinstance(part, bytes))).hexdigest()
    kind = f"layer:{around}"
    path = references[0].path
    before = os.stat(path)
    cached = cache.get(kind, before)
    if cached is not None:
        return f"sha256:{cached}"
    started = time.time_ns()
    digest = _hash(layer.parts)
    if files.identity(before) == files.identity(os.stat(path)):
        cache.put(kind, before, digest, started)
    return f"sha256:{digest}"


def stream(parts: Iterable[Segment]) -> Iterator[bytes]:
    """The bytes of ``parts``. A file that is not as long as it was when it was hashed ends the stream with an error."""
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        left = part.size
        with open(part.path, "rb", buffering=0) as handle:
            while left:
                chunk = handle.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise AikitError(f"{part.path} became shorter while it was read.", "Leave the file alone during a build, and run again.")
                left -= len(chunk)
                yield chunk
            if handle.read(1):
                raise AikitError(f"{part.path} became longer while it was read.", "Leave the file alone during a build, and run again.")


def require_engine_space(engine: Engine, size_bytes: int) -> None:
    """Fail before anything is sent when ``size_bytes`` of layers do not fit into ``engine``. A daemon elsewhere is not looked at."""
    root = engine.data_root()
    if root and os.path.isdir(root):
        files.require_space(root, LOAD_COPIES * size_bytes, f"loading an image into {engine.name}")


def load(engine: Engine, image: Image) -> tuple[int, set[str]]:
    """Load ``image`` into ``engine``; returns the bytes sent and the digests of the layers that it had already.

    Only missing layers are sent. What an engine says it has can still be refused (a layer chain
    that was pruned half way), so the second attempt sends everything.
    """
    diff_ids = [layer.digest for layer in image.layers]
    present = set(diff_ids) - set(missing_layers(engine.images(), diff_ids))
    sent = 0
    for omit in [present, set()] if present else [set()]:
        parts = archive(image, omit)
        require_engine_space(engine, total_size(parts))
        sent += total_size(parts)
        try:
            engine.load(stream(parts))
        except AikitError:
            if omit:
                continue
            _drop_half_loaded(engine, image)
            raise
        state = engine.image(image.name)
        if state is not None and state.id in (image.id, image.digest):
            return sent, omit
    raise AikitError(f"{engine.name} took the image {image.name} but does not list it as {image.id}.")


def archive_is_current(path: str, parts: tuple[Segment, ...]) -> bool:
    """True when the file at ``path`` starts as this archive does (its head names every digest) and is as long.

    Archives are put in place by a rename, so a file under its final name is whole.
    """
    head = parts[0]
    try:
        if os.path.getsize(path) != total_size(parts):
            return False
        with open(path, "rb") as handle:
            return isinstance(head, bytes) and handle.read(len(head)) == head
    except FileNotFoundError:
        return False


def write_archive(path: str, parts: tuple[Segment, ...]) -> int:
    """Write an archive beside ``path`` and rename it; returns the bytes written."""
    size = total_size(parts)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    files.require_space(path, size, f"the image archive {path}")
    part = f"{path}.part"
    try:
        with open(part, "wb", buffering=0) as handle:
            for chunk in stream(parts):
                # An unbuffered write may take only a part
                files.write_all(handle, memoryview(chunk))
            os.fsync(handle.fileno())
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    return size


def verified_chunks(path: str) -> Iterator[bytes]:
    """The bytes of an image archive, every blob checked against the digest in its name while it passes."""
    blobs = []
    try:
        with tarfile.open(path, "r:") as reader:
            for member in reader:
                if member.isfile() and member.name.startswith("blobs/sha256/"):
                    blobs.append((member.offset_data, member.size, os.path.basename(member.name)))
    except tarfile.TarError as exc:
        raise AikitError(f"{path} is no image archive: {exc}.", "Transfer it again.") from exc
    if not blobs:
        raise AikitError(f"{path} holds no image.", "Transfer it again.")
    with open(path, "rb", buffering=0) as handle:
        for start, size, digest in blobs:
            yield from _span(handle, start - handle.tell())
            found = hashlib.sha256()
            for chunk in _span(handle, size):
                found.update(chunk)
                yield chunk
            if found.hexdigest() != digest:
                raise AikitError(f"{path}: blob {digest} has sha256 {found.hexdigest()}.", "The transfer was damaged; run again.")
        yield from iter(lambda: handle.read(CHUNK_BYTES), b"")


def _span(handle: Any, length: int) -> Iterator[bytes]:
    while length > 0:
        chunk = handle.read(min(CHUNK_BYTES, length))
        if not chunk:
            raise AikitError(f"{handle.name} ends too early.", "The transfer was cut; run again.")
        length -= len(chunk)
        yield chunk


def _hash(parts: Iterable[Segment]) -> str:
    digest = hashlib.sha256()
    for chunk in stream(parts):
        digest.update(chunk)
    return digest.hexdigest()


def _drop_half_loaded(engine: Engine, image: Image) -> None:
    """Docker's containerd store keeps the tag of an image whose load failed; it must not look present next time."""
    state = engine.image(image.name)
    if state is not None and state.id in (image.id, image.digest):
        engine.remove_image(image.name)
