# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models in container registries: which files an artifact holds, and how they are packed.

Three habits: Ollama's registry has the weights as one layer of a type of its own; ModelPack (the CNCF's model specification,
which AIKit's packager writes) has a layer for each file, raw or as a tar, with its path in an annotation; oras has a layer for
each file with its name as title. Docker's model images are like Ollama's under another type. Date: 2026-11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence

from . import model_source
from .errors import AikitError
from .hub import matches, safe_path
from .oci import Descriptor
from .registry import RemoteName, parse_name

OLLAMA_MODEL = "application/vnd.ollama.image.model"
OLLAMA_PREFIX = "application/vnd.ollama."
DOCKER_GGUF = "application/vnd.docker.ai.gguf"
MODELPACK = re.compile(r"application/vnd\.cncf\.model\.(?P<what>[a-z.]+?)\.v1\.(?P<form>raw|tar(?:\+gzip|\+zstd)?)")
# Documentation, code and datasets belong to a model, and no server loads them: they are its companions
MODELPACK_WANTED = ("weight", "weight.config")
FILE_PATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
UNPACK = "io.deis.oras.content.unpack"
HINT = "Name an artifact of Ollama's registry, one that follows ModelPack, or one that oras pushed."


@dataclass(frozen=True)
class Packed:
    """One layer of an artifact. ``form`` is raw (it is the file ``path``), or tar, tar+gzip, tar+zstd (it holds files)."""

    path: str
    descriptor: Descriptor
    form: str = "raw"
    gguf: bool = False

    @property
    def sha256(self) -> str:
        """The digest of the file, where the layer is the file."""
        return self.descriptor.digest.partition(":")[2] if self.form == "raw" else ""


def parse(source: str) -> RemoteName:
    """Read an ``oci://`` source."""
    text = source.partition("://")[2]
    if "/" not in text:
        raise AikitError(f"The model's source {model_source.redact(source)!r} names no repository.", "Write oci://REGISTRY/NAME:TAG.")
    return parse_name(text, "The model's source")


def packed_files(layers: Sequence[Descriptor], where: RemoteName) -> tuple[Packed, ...]:
    """The layers of an artifact that make the model; :class:`AikitError` where there is none."""
    found = [
        Packed(where.repository.rpartition("/")[2], layer, gguf=True)
        for layer in layers
        if layer.media_type == OLLAMA_MODEL or (layer.media_type.startswith(DOCKER_GGUF) and FILE_PATH not in layer.annotations)
    ]
    if len(found) > 1:
        raise AikitError(f"{where.text} has {len(found)} layers with weights and no names for them.", HINT)
    if not found:
        found = [entry for layer in layers for entry in _named(layer, where)]
    if found:
        return tuple(found)
    types = ", ".join(sorted({layer.media_type[:100] for layer in layers})) or "none"
    if any(layer.media_type.startswith(OLLAMA_PREFIX) for layer in layers):
        raise AikitError(f"{where.text} is a model of Ollama without a GGUF file; its layers are {types}.", "Choose a tag whose weights are GGUF.")
    raise AikitError(f"{where.text} holds no model: no layer has the name of a file; its layers are {types}.", HINT)


def companions(layers: Sequence[Descriptor], where: RemoteName) -> tuple[Packed, ...]:
    """Documentation, code and datasets of a ModelPack artifact, which AIKit's images have too.

    AIKit takes what oras pulls: every file that has a title. An archive would stay one there; it is left out.
    """
    packs = [(layer, MODELPACK.fullmatch(layer.media_type)) for layer in layers]
    wanted = [layer for layer, pack in packs if pack and pack.group("what") not in MODELPACK_WANTED and pack.group("form") == "raw"]
    return tuple(_packed(layer, where) for layer in wanted if layer.annotations.get(TITLE))


def choose(files: Sequence[Packed], include: Sequence[str], where: RemoteName) -> list[Packed]:
    """The layers that can hold what ``include`` names; what is in a tar is known once it is open."""
    chosen = [entry for entry in files if not include or entry.form != "raw" or matches(entry.path, include)]
    if not chosen:
        names = ", ".join(entry.path for entry in files[:10])
        raise AikitError(f"{where.text} has no file that include ({', '.join(include)}) names; it has: {names}.", "Check include.")
    return chosen


def _named(layer: Descriptor, where: RemoteName) -> list[Packed]:
    pack = MODELPACK.fullmatch(layer.media_type)
    if pack and pack.group("what") not in MODELPACK_WANTED:
        return []
    found = _packed(layer, where)
    if found.form == "raw" and not _path(layer):
        if pack:
            raise AikitError(f"{where.text}: the layer {layer.digest} has no path ({FILE_PATH}).", "The artifact is broken; pack it again.")
        return []
    return [found]


def _path(layer: Descriptor) -> str:
    """The name that oras gives a layer, which is its title; without one its path."""
    return layer.annotations.get(TITLE) or layer.annotations.get(FILE_PATH) or ""


def _packed(layer: Descriptor, where: RemoteName) -> Packed:
    pack = MODELPACK.fullmatch(layer.media_type)
    path = _path(layer)
    form = pack.group("form") if pack else "raw"
    if not pack and layer.annotations.get(UNPACK) == "true":
        form = "tar+gzip" if layer.media_type.endswith(("gzip", "tar")) else "tar"
    if path.startswith("./"):
        path = path[2:]
    if path and not safe_path(path):
        raise AikitError(f"{where.text}: the layer {layer.digest} wants to be {path[:200]!r}, which leads elsewhere.", "The artifact is broken; pack it again.")
    return Packed(path or layer.digest, layer, form)
