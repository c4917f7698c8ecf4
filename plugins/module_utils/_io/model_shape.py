# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the headers of models for a plan: from the store, a folder, a server, or an image in an engine. Models themselves are not fetched."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping, Optional, Sequence

from .._core import aikitfile, gguf
from .._core import model_source as sources
from .._core.errors import AikitError
from .._core.fit_shape import ModelShape
from .._core.wish import image_key
from . import files
from .engine import Engine
from .transfer import Store

# What stands in a file of the cache; another number makes old ones be read anew
SCHEMA = 1
# A header of a model with a vocabulary of 256,000 words has some 16 MiB
HEAD_BYTES = 256 * 1024 * 1024


class Shapes:
    """Models by their sources. ``read_only``: nothing is written, not even to the cache."""

    def __init__(self, store: str, cache: str, tokens: Mapping[str, str], token: str, read_only: bool) -> None:
        self.store = Store(store, read_only=True)
        self.cache = os.path.join(os.path.abspath(os.path.expanduser(cache)), "headers")
        self.tokens = tokens
        self.token = token
        self.read_only = read_only

    def all(self, models: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """By the key of each model ``{shape, origin, read_bytes}``, or ``{error}``: one that cannot be read stops no other."""
        found = {}
        for model in models:
            try:
                found[str(model["key"])] = self.one(str(model["key"]), model["files"], str(model.get("context") or ""))
            except AikitError as exc:
                found[str(model["key"])] = {"error": str(exc)}
            except OSError as exc:
                found[str(model["key"])] = {"error": f"{exc.strerror or exc}: {exc.filename}" if exc.filename else str(exc)}
        return found

    def one(self, key: str, parts: Sequence[Mapping[str, Any]], context: str) -> dict[str, Any]:
        pinned = all(part.get("sha256") for part in parts)
        path = os.path.join(self.cache, f"{key}.json")
        if pinned:
            cached = _cached(path)
            if cached:
                return {"shape": cached, "origin": "cache", "read_bytes": 0}
        headers, origins, read = [], [], 0
        for part in parts:
            header, origin, size = self._header(str(part["source"]), sources.parse_sha256(part.get("sha256")), context)
            headers.append(header)
            origins.append(origin)
            read += size
        shape = ModelShape.from_header(headers).as_dict()
        if pinned and not self.read_only:
            files.write_atomic(path, json.dumps({"schema": SCHEMA, "shape": shape}, sort_keys=True).encode("utf-8"), durable=False)
        return {"shape": shape, "origin": origins[0], "read_bytes": read}

    def _header(self, text: str, sha256: str, context: str) -> tuple[gguf.GgufHeader, str, int]:
        source = sources.parse(text)
        if source.kind == sources.LOCAL:
            path = os.path.normpath(os.path.join(context or ".", os.path.expanduser(source.location)))
            if os.path.isfile(path):
                return _of_file(path, path)
        if not sha256 and source.kind != sources.LOCAL:
            sha256 = str(self.store.known(source).get("sha256") or "")
        for name in self.store.names(sha256) if sha256 else ():
            path = os.path.join(self.store.folder(sha256), name)
            header, _origin, size = _of_file(path, source.shown)
            return header, "store", size
        if source.kind == sources.LOCAL:
            raise AikitError(f"the model file {source.shown} is not there", "")
        return self._remote(source)

    def _remote(self, source: sources.ModelSource) -> tuple[gguf.GgufHeader, str, int]:
        raise AikitError(f"the header of {source.shown} is read when the model has been fetched")


def of_image(engine: Engine, image: str, paths: Sequence[str]) -> dict[str, Any]:
    """``{shape, origin, read_bytes}`` or ``{error}`` of files inside an image, by :func:`wish.image_key`; of a split model, the first part is named."""
    result: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            headers, read = [], 0
            for part in _all_parts(path):
                found = engine.image_head(image, part, _Head(part).read)
                if found is None:
                    raise AikitError(f"{image} has no {part}")
                headers.append(found[0])
                read += found[1]
            result[image_key(image, path)] = {"shape": ModelShape.from_header(headers).as_dict(), "origin": "image", "read_bytes": read}
        except AikitError as exc:
            result[image_key(image, path)] = {"error": str(exc)}
    return result


class _Head:
    """A file that can only be read from its start, as the reader of headers wants it: it keeps what it has read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = bytearray()

    def read(self, more: Any, size: int) -> tuple[gguf.GgufHeader, int]:
        def read_at(offset: int, length: int) -> bytes:
            wanted = offset + length
            if wanted > HEAD_BYTES:
                raise AikitError(f"the header of {self.name} has more than {HEAD_BYTES // (1024 * 1024)} MiB")
            while len(self.held) < wanted:
                piece = more(min(1024 * 1024, wanted - len(self.held)))
                if not piece:
                    break
                self.held += piece
            return bytes(self.held[offset:wanted])

        return gguf.check(read_at, size, self.name), len(self.held)


def _all_parts(path: str) -> list[str]:
    number, count = aikitfile.shard(path)
    if count == 1 or number != 1:
        return [path]
    stem, tail = path[: path.rfind("-00001-of-")], path[path.rfind("-of-") :]
    return [f"{stem}-{part:05d}{tail}" for part in range(1, count + 1)]


def _of_file(path: str, name: str) -> tuple[gguf.GgufHeader, str, int]:
    read = 0
    with open(path, "rb") as handle:

        def read_at(offset: int, length: int) -> bytes:
            nonlocal read
            handle.seek(offset)
            data = handle.read(length)
            read += len(data)
            return data

        header = gguf.check(read_at, os.fstat(handle.fileno()).st_size, name)
    return header, "file", read


def _cached(path: str) -> Optional[Mapping[str, Any]]:
    try:
        with open(path, encoding="utf-8") as handle:
            entry = json.load(handle)
        # Judged by the one that reads shapes: a file of another release may hold another form
        return entry["shape"] if entry.get("schema") == SCHEMA and ModelShape.from_dict(entry["shape"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, AikitError):
        return None
