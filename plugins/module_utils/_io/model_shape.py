# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the headers of models for a plan: from the store, a folder, a server, or an image in an engine. Models themselves are not fetched."""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

from .._core import aikitfile, gguf, hub
from .._core import model_source as sources
from .._core.errors import AikitError
from .._core.fit_shape import ModelShape
from .._core.wish import image_key
from .engine import Engine
from .gguf_info import Info, read_info
from .models import Reach, source_key
from .transfer import Resolved, Store

# A header of a model with a vocabulary of 256,000 words has some 16 MiB
HEAD_BYTES = 256 * 1024 * 1024


class Shapes:
    """Models by their sources. In check mode nothing is written, not even to the cache."""

    def __init__(self, reach: Reach, tokens: Mapping[str, str], store: str, cache: str, check_mode: bool) -> None:
        self.reach = reach
        self.tokens = tokens
        self.store = store
        self.cache = cache
        self.check_mode = check_mode

    def all(self, models: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """By the key of each model ``{shape, cached, read_bytes}``, or ``{error}``: one that cannot be read stops no other."""
        found = {}
        for model in models:
            try:
                found[str(model["key"])] = self.one(model["files"], str(model.get("context") or ""))
            except AikitError as exc:
                found[str(model["key"])] = {"error": f"the header of its model cannot be read yet: {exc}"}
        return found

    def one(self, parts: Sequence[Mapping[str, Any]], context: str) -> dict[str, Any]:
        """The parts of a split model are found beside the first, under the names that they were made with."""
        texts = [str(part["source"]) for part in parts]
        tokens = sources.tokens_by_source(texts, self.reach.token, self.tokens, self.reach.hub_url)
        info = self._info(parts, context, tokens.get(texts[0]))
        shape = ModelShape.from_header([part.header for part in info.parts])
        return {
            "shape": shape.as_dict(),
            "cached": all(part.cached for part in info.parts),
            "read_bytes": sum(part.bytes_read for part in info.parts),
        }

    def _info(self, parts: Sequence[Mapping[str, Any]], context: str, token: Any) -> Info:
        text, sha256 = str(parts[0]["source"]), str(parts[0].get("sha256") or "")
        source = sources.parse(text)
        told: list[Resolved] = []
        if source.kind == sources.LOCAL:
            text = os.path.normpath(os.path.join(os.path.expanduser(context or "."), os.path.expanduser(source.location)))
            # The build compares the digest; to hash 40 GB for a header would be waste
            sha256 = ""
        else:
            told = [self._told(str(part["source"]), sources.parse_sha256(str(part.get("sha256") or ""))) for part in parts]
        reach = Reach(token, self.reach.hub_url, self.reach.timeout_seconds, self.reach.registry)
        return read_info(text, sha256 or None, reach=reach, store=self.store, cache=self.cache, check_mode=self.check_mode, told=told)

    def _told(self, text: str, sha256: str) -> Resolved:
        """What a build takes without asking: what this source gave the last time, unless another digest is wanted."""
        source, store = sources.parse(text), Store(self.store, read_only=True)
        found = store.resolved(source_key(source, hub.check_url(self.reach.hub_url)))
        before = str(store.known(source).get("sha256") or "") if not found.files and source.remote else ""
        if before:
            found = Resolved("", ((source.file_name, before, 0),))
        if not sha256 or sha256 in (found.set_sha256, found.files[0][1] if len(found.files) == 1 else ""):
            return found
        return Resolved("", ((source.file_name, sha256, 0),))


def of_image(engine: Engine, image: str, paths: Sequence[str]) -> dict[str, Any]:
    """``{shape, cached, read_bytes}`` or ``{error}`` of files inside an image, by :func:`wish.image_key`; of a split model, the first part is named."""
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
            result[image_key(image, path)] = {"shape": ModelShape.from_header(headers).as_dict(), "cached": False, "read_bytes": read}
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
