# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hands of the direct builder: read and hash files, stream an image into an engine or an archive."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping, Optional, Sequence, Union

from .._core import gguf
from .._core.aikitfile import Aikitfile, Model, image_file, is_projector, repository_file
from .._core.base import Base, parse_base
from .._core.engine import missing_layers
from .._core.errors import AikitError, Finding
from .._core.gguf import GgufHeader
from .._core.image import Image, Layer, LayerRecipe, ModelFile, Release, archive, check_parts, laid_over, model_parts, model_paths
from .._core.plan import Action
from .._core.tar import FileRef, Segment, segment_size, total_size
from . import files, progress, transfer
from .engine import Engine
from .load import load_needs, verified_chunks
from .models import Reach, ensure_models
from .transfer import StoredModel

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
    # The context is a path, whatever characters it holds
    matching = glob.glob(os.path.join(glob.escape(root), model.source))
    found = [pattern] if os.path.isfile(pattern) else sorted(name for name in matching if os.path.isfile(name))
    if not found:
        raise AikitError(
            f"models: {model.name}: source {model.source} names no file below {root}.",
            "Sources without a scheme are relative to the folder of the aikitfile, or to option context.",
        )
    for name in found:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise AikitError(
                f"models: {model.name}: source {model.source} names the file {os.fsencode(os.path.basename(name))!r}, which is no UTF-8.",
                "Rename the file, or write a source that leaves it out.",
            ) from None
    outside = [name for name in found if os.path.commonpath([root, os.path.realpath(name)]) != root]
    if outside:
        raise AikitError(
            f"models: {model.name}: source {model.source} leads out of the context {root} to {os.path.realpath(outside[0])}.",
            "Set option context to a folder above it, or copy the file there.",
        )
    return found


@dataclass
class FoundModels:
    """The model files of an aikitfile.

    ``metadata`` is that of GGUF files, by the names that :func:`image.model_paths` gives them. ``actions`` is what was done
    to have the files, or in check mode would be; ``absent`` is true when some are not here yet, which is so in check mode only.
    ``companions`` are the paths in the image of files that came with a model and are none, such as the README of a repository.
    ``revisions`` has the commit or the manifest that the source of a model meant, by the model's name.
    """

    models: list[ModelFile] = field(default_factory=list)
    metadata: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    absent: bool = False
    companions: set[str] = field(default_factory=set)
    revisions: dict[str, str] = field(default_factory=dict)

    @property
    def served(self) -> dict[str, str]:
        """The models by name, and where each lies in the image."""
        return {name: path for name, path in model_paths(self.models).items() if path not in self.companions}


def find_models(
    aikitfile: Aikitfile,
    context: str,
    store: str,
    tokens: Mapping[str, Optional[str]],
    cache: files.DigestCache,
    check_mode: bool,
    reach: Reach = Reach(),
    require_sha256: bool = True,
    revisions: Mapping[str, str] = MappingProxyType({}),
    refresh: bool = False,
    companions: bool = False,
) -> FoundModels:
    """Have every model file of an aikitfile: downloads go into ``store``, files below ``context`` are used where they are.

    ``tokens`` has the token of each source that gets one. ``context`` may be empty when no source is relative.
    ``revisions`` are those to take, by the names of the models; ``refresh`` asks anew what a branch, a tag or an address means.
    ``companions``: have the files too that no server needs, and that AIKit's images hold.
    """
    found = FoundModels()
    seen: set[str] = set()
    headers: dict[str, GgufHeader] = {}
    for model in aikitfile.models:
        local = "://" not in model.source
        if local and not context:
            raise AikitError(
                f"models: {model.name}: source {model.source} is relative, and nothing says what it is relative to.",
                "Set option context; only an aikitfile of its own (src) has a folder.",
            )
        if local and check_mode and not os.path.isdir(context):
            # A folder that does not exist yet is what an earlier task would have made
            found.absent = True
            continue
        for source in local_models(model, context) if local else [model.source]:
            if local:
                _hash_once(ModelFile(model.name, source, "", os.path.getsize(source), image_file(model)), seen, transfer.Store(store).cache, cache)
            acquired = ensure_models(
                source,
                model.sha256,
                store,
                reach=replace(reach, token=tokens.get(source)),
                revision=revisions.get(model.name, ""),
                require_sha256=require_sha256,
                refresh=refresh and not local,
                check_mode=check_mode,
                local_in_place=local,
                companions=companions,
            )
            # Who has a file by its digest does not ask what else it is
            found.revisions[model.name] = acquired.revision or revisions.get(model.name, "")
            found.actions += acquired.plan.actions
            found.findings += acquired.findings
            for stored in (*sorted(acquired.files, key=_serving_first), *acquired.companions):
                if not stored.read_from:
                    found.absent = True
                    continue
                # Where AIKit's build would put it: a file of a repository or an artifact stands under its path there
                file = image_file(model) or repository_file(model, stored.name)
                if file is None:
                    continue
                beside = stored in acquired.companions
                one = ModelFile(model.name, stored.read_from, stored.sha256, stored.size_bytes, file, beside)
                found.models = laid_over(found.models, one, found.companions)
                if beside or (len(acquired.files) > 1 and not file.lower().endswith(".gguf")):
                    found.companions.add(f"/{found.models[-1].image_path}")
                if not local:
                    model_parts(found.models[-1], seen)
                if stored.header is not None:
                    headers[stored.read_from] = stored.header
    names = model_paths(found.models)
    found.metadata = {name: headers[model.path].metadata for name, model in zip(names, found.models) if model.path in headers}
    if not found.absent:
        whole = check_parts([model for model in found.models if not model.companion], {path: header.shards for path, header in headers.items()})
        files_of_parts = {os.path.basename(path) for path in whole}
        found.findings = [entry for entry in found.findings if entry.path not in files_of_parts or not entry.message.startswith(gguf.PART)]
    return found


def _serving_first(model: StoredModel) -> tuple[bool, bool]:
    """Of the files of one source, the first is the model by its name: weights, not a projector or a README."""
    name = model.name or model.path
    return not name.lower().endswith(".gguf"), is_projector(name)


def _hash_once(model: ModelFile, seen: set[str], known: files.DigestCache, cache: files.DigestCache) -> None:
    """Read a new model once for its digest (into ``known``) and that of its layer (into ``cache``), not once for each.

    The two digests are computed side by side: they take longer than anything else here, and hashing leaves Python's lock alone.
    """
    parts = model_parts(model, seen)
    before = os.stat(model.path)
    kind = _layer_kind(parts)
    if cache.read_only or known.get("sha256", before) is not None or cache.get(kind, before) is not None:
        return
    if not model.size_bytes or not os.access(model.path, os.R_OK) or not files.settle(before):
        return
    started = time.time_ns()
    plain, layer = hashlib.sha256(), hashlib.sha256()
    with progress.stage(f"hash {os.path.basename(model.path)}", total_size(parts)) as current, ThreadPoolExecutor(1, "hash") as pool:
        other: Optional[Future[None]] = None
        for part in parts:
            for chunk in stream((part,)):
                if other is not None:
                    other.result()
                other = pool.submit(plain.update, chunk) if isinstance(part, FileRef) else None
                layer.update(chunk)
                current.advance(len(chunk))
        if other is not None:
            other.result()
    if files.identity(before) == files.identity(os.stat(model.path)):
        known.put("sha256", before, plain.hexdigest(), started)
        cache.put(kind, before, layer.hexdigest(), started)


def _layer_kind(parts: Iterable[Segment]) -> str:
    around = hashlib.sha256(b"|".join(part for part in parts if isinstance(part, bytes))).hexdigest()
    return f"layer:{around}"


def layer_digest(layer: Union[LayerRecipe, Layer], cache: files.DigestCache) -> str:
    """``sha256:…`` of a layer; cached by the stat of its file and the bytes around it."""
    if isinstance(layer, LayerRecipe) and layer.digest:
        return layer.digest
    references = [part for part in layer.parts if isinstance(part, FileRef)]
    if len(references) != 1:
        return "sha256:" + _hash(layer.parts)
    if len(layer.parts) == 1:
        return "sha256:" + files.sha256_file(references[0].path, cache)
    kind = _layer_kind(layer.parts)
    path = references[0].path
    before = os.stat(path)
    cached = cache.get(kind, before)
    if cached is not None:
        return f"sha256:{cached}"
    started = time.time_ns()
    digest = _hash(layer.parts, os.path.basename(path))
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


def stream_range(parts: Iterable[Segment], start: int, length: int) -> Iterator[bytes]:
    """``length`` bytes of ``parts`` from ``start`` on, as an upload needs them that goes on in the middle."""
    for part in parts:
        size = segment_size(part)
        first, start = min(start, size), max(0, start - size)
        count = min(size - first, length)
        length -= count
        if not count:
            continue
        if isinstance(part, bytes):
            yield part[first : first + count]
            continue
        with open(part.path, "rb", buffering=0) as handle:
            handle.seek(first)
            while count:
                chunk = handle.read(min(CHUNK_BYTES, count))
                if not chunk:
                    raise AikitError(f"{part.path} became shorter while it was read.", "Leave the file alone during a build, and run again.")
                count -= len(chunk)
                yield chunk


def load(engine: Engine, image: Image, fetch: Callable[[Collection[str]], Any] = len) -> tuple[int, set[str]]:
    """Load ``image`` into ``engine``; returns the bytes sent and the digests of the layers that it had already.

    Only missing layers are sent; ``fetch`` is called with their digests before, and has them here. What an engine says it
    has can still be refused (a layer chain that was pruned half way), so the second attempt sends everything.
    """
    present = {layer.digest for layer in image.layers} - _lacking(engine, image)
    sent = 0
    for omit in [present, set()] if present else [set()]:
        parts = archive(image, omit)
        files.require_spaces(load_needs(engine, image.name, total_size(parts)))
        fetch({layer.digest for layer in image.layers} - omit)
        sent += total_size(parts)
        try:
            with progress.stage(f"load {image.name} into {engine.name}", total_size(parts)) as current:
                engine.load(current.counted(stream(parts)))
        except AikitError:
            if omit:
                continue
            _drop_half_loaded(engine, image)
            raise
        state = engine.image(image.name)
        if state is not None and state.id in (image.id, image.digest):
            return sent, omit
    raise AikitError(f"{engine.name} took the image {image.name} but does not list it as {image.id}.")


def missing_bytes(engine: Engine, image: Image) -> tuple[int, set[str]]:
    """The bytes that a load would send, and the digests of the layers among them."""
    missing = _lacking(engine, image)
    return total_size(archive(image, {layer.digest for layer in image.layers} - missing)), missing


def _lacking(engine: Engine, image: Image) -> set[str]:
    """The digests of the layers that an engine does not have; it knows them by what they unpack to."""
    missing = missing_layers(engine.images(), [layer.unpacked for layer in image.layers])
    return {layer.digest for layer in image.layers if layer.unpacked in missing}


def archive_need(path: str, parts: tuple[Segment, ...]) -> files.Need:
    """The disk space for an archive that is written; what a run that was killed has left will be gone by then."""
    already = files.leftover_bytes(f"{path}.part", remove=False)
    return files.Need(path, max(0, total_size(parts) - already), f"the image archive {path}")


def archive_is_current(path: str, parts: tuple[Segment, ...], cache: files.DigestCache) -> bool:
    """True when the file at ``path`` is this archive: as long, with the same head (it names every digest), and whole.

    It is read once to see that its blobs have their digests; after that, as long as it does not change, the cache knows.
    """
    head = parts[0]
    if not isinstance(head, bytes) or not os.path.isfile(path) or os.path.getsize(path) != total_size(parts):
        return False
    with open(path, "rb") as handle:
        before = os.fstat(handle.fileno())
        if handle.read(len(head)) != head:
            return False
    kind = _archive_kind(head)
    if cache.get(kind, before) is not None:
        return True
    started = time.time_ns()
    try:
        for _chunk in progress.counted(verified_chunks(path), f"check {os.path.basename(path)}", before.st_size):
            pass
    except AikitError:
        return False
    if files.identity(before) == files.identity(os.stat(path)):
        cache.put(kind, before, "whole", started)
    return True


def write_archive(path: str, image: Union[Image, Release], omit: Collection[str], cache: files.DigestCache) -> int:
    """Write an archive beside ``path`` and rename it; returns the bytes written."""
    parts = archive(image, omit)
    size = total_size(parts)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    part = f"{path}.part"
    files.leftover_bytes(part, remove=True)
    files.require_space(path, size, f"the image archive {path}")
    try:
        with open(part, "wb", buffering=0) as handle:
            for chunk in progress.counted(stream(parts), f"write {os.path.basename(path)}", size):
                # An unbuffered write may take only a part
                files.write_all(handle, memoryview(chunk))
            os.fsync(handle.fileno())
        # Files that are as they were when they were hashed cost nothing here
        changed = [layer for layer in image.layers if layer.digest not in omit and layer_digest(layer, cache) != layer.digest]
        if changed:
            raise AikitError(f"The file of layer {changed[0].title} changed while {path} was written.", "Leave the file alone during a build, and run again.")
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    if isinstance(parts[0], bytes):
        cache.put(_archive_kind(parts[0]), os.stat(path), "whole", files.SETTLED)
    return size


def _archive_kind(head: bytes) -> str:
    return f"archive:{hashlib.sha256(head).hexdigest()}"


def _hash(parts: Sequence[Segment], name: str = "") -> str:
    digest = hashlib.sha256()
    for chunk in progress.counted(stream(parts), f"hash {name or 'a layer'}", total_size(parts)):
        digest.update(chunk)
    return digest.hexdigest()


def _drop_half_loaded(engine: Engine, image: Image) -> None:
    """Docker's containerd store keeps the tag of an image whose load failed; it must not look present next time."""
    state = engine.image(image.name)
    if state is not None and state.id in (image.id, image.digest):
        engine.remove_image(image.name)
