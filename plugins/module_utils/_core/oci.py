# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and indexes of images, as registries and OCI layouts hold them.

Source of the shapes: OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md), and Docker's
image manifest version 2, schema 2, which says the same under other media types.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from .errors import AikitError

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEX_TYPES = (MEDIA_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (MEDIA_MANIFEST, DOCKER_MANIFEST)
ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
# Docker's names of layers that are the same bytes as OCI's (image specification, media-types.md, "Compatibility Matrix")
OCI_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": MEDIA_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{MEDIA_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
}
# How a comment begins that says what an image is made of
COMMENT_PREFIX = "io.aikit.fleet:"
# Registries refuse larger ones (distribution specification, "Pushing Manifests")
MANIFEST_MAX_BYTES = 4 * 1024 * 1024

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ANY_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+")
# How architectures are called by those who ask (uname, Debian, Go)
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}


@dataclass(frozen=True)
class Descriptor:
    """What points at a blob or a manifest: its type, digest (``sha256:…``) and size. ``platform`` is ``os/architecture[/variant]`` or empty."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The descriptor as it stands in a manifest."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        if self.platform:
            found["platform"] = platform_dict(self.platform)
        return found


@dataclass(frozen=True)
class Manifest:
    """A manifest of one image."""

    media_type: str
    document: Mapping[str, Any]
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Index:
    """A list of manifests, one a platform."""

    media_type: str
    document: Mapping[str, Any]
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms that there are images for."""
        return tuple(entry.platform for entry in self.images if entry.platform)

    @property
    def images(self) -> tuple[Descriptor, ...]:
        """The entries that are images: those with a platform; all, where none has one. Attestations are for an unknown one."""
        known = tuple(entry for entry in self.manifests if not entry.platform.startswith("unknown/"))
        return tuple(entry for entry in known if entry.platform) or known


def sha256(data: bytes) -> str:
    """``sha256:<hex>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, as UTF-8: the exact bytes that are hashed and stored."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def comment_of(facts: Mapping[str, str]) -> str:
    """What an image says of itself as the comment of its config, which engines keep; they drop the annotations of manifests."""
    return COMMENT_PREFIX + canonical(dict(facts)).decode("utf-8")


def facts_in(comment: Any) -> dict[str, str]:
    """What :func:`comment_of` wrote; nothing for any other comment."""
    if not isinstance(comment, str) or not comment.startswith(COMMENT_PREFIX):
        return {}
    try:
        return _texts(json.loads(comment[len(COMMENT_PREFIX) :]))
    except (ValueError, RecursionError):
        return {}


def config_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """The same of a config: its own comment, or that of its last step where a tool kept no other."""
    history = config.get("history")
    last = history[-1] if isinstance(history, list) and history else None
    return facts_in(config.get("comment")) or facts_in(last.get("comment") if isinstance(last, dict) else None)


def is_digest(text: str) -> bool:
    return bool(_DIGEST.fullmatch(text))


def is_index(document: Mapping[str, Any], media_type: str) -> bool:
    """Whether a document lists manifests; its own media type counts more than what the server calls it."""
    told = document.get("mediaType") or media_type
    return told in INDEX_TYPES or (told not in MANIFEST_TYPES and isinstance(document.get("manifests"), list) and "layers" not in document)


def parse_document(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON of a manifest or an index. ``where`` names it in messages."""
    if len(raw) > MANIFEST_MAX_BYTES:
        raise AikitError(f"{where}: the manifest has more than {MANIFEST_MAX_BYTES} bytes.", "It is no image manifest.")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise AikitError(f"{where}: what came is no JSON, so it is no manifest: {_shown(raw)}.", "Check that the address is that of a registry.") from None
    if not isinstance(document, dict):
        raise AikitError(f"{where}: the manifest is no JSON object: {_shown(raw)}.", "Check the name of the image.")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise AikitError(f"{where} has a manifest of Docker's schema 1, which nobody writes any more.", "Push the image again with a current engine.")
    return document


def parse_manifest(raw: bytes, media_type: str = "", where: str = "manifest") -> Manifest:
    """Read the manifest of one image; :class:`AikitError` for an index and for what is none."""
    document = parse_document(raw, where)
    if is_index(document, media_type):
        raise AikitError(f"{where} is an index of several images.", "Name a platform.")
    told = document.get("mediaType") or media_type or MEDIA_MANIFEST
    if told not in MANIFEST_TYPES:
        raise AikitError(f"{where} is of type {str(told)[:200]!r}, which is no image.", "Name an image that a container engine can run.")
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise AikitError(f"{where}: layers: is no list.", "The manifest is broken; push the image again.")
    return Manifest(
        media_type=told,
        document=document,
        config=parse_descriptor(document.get("config"), f"{where}: config"),
        layers=tuple(parse_descriptor(entry, f"{where}: layers[{number}]") for number, entry in enumerate(layers)),
        annotations=_texts(document.get("annotations")),
    )


def parse_index(raw: bytes, media_type: str = "", where: str = "index") -> Index:
    """Read an index; :class:`AikitError` for what is none."""
    document = parse_document(raw, where)
    entries = document.get("manifests")
    if not isinstance(entries, list):
        raise AikitError(f"{where}: manifests: is no list.", "The index is broken; push the image again.")
    return Index(
        media_type=document.get("mediaType") or media_type or MEDIA_INDEX,
        document=document,
        manifests=tuple(parse_descriptor(entry, f"{where}: manifests[{number}]") for number, entry in enumerate(entries)),
        annotations=_texts(document.get("annotations")),
    )


def parse_descriptor(value: Any, where: str) -> Descriptor:
    """One descriptor of a document; ``where`` is its path in messages."""
    if not isinstance(value, dict):
        raise AikitError(f"{where} is no descriptor.", "The manifest is broken; push the image again.")
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType", "")
    if not isinstance(digest, str) or not is_digest(digest):
        known = isinstance(digest, str) and _ANY_DIGEST.fullmatch(digest)
        raise AikitError(
            f"{where}: digest: {str(digest)[:200]!r} is no SHA-256 digest.",
            "Push the image again with SHA-256 digests, the only ones that every engine reads." if known else "The manifest is broken; push the image again.",
        )
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise AikitError(f"{where}: size: {str(size)[:200]!r} is no size.", "The manifest is broken; push the image again.")
    if not isinstance(media_type, str):
        raise AikitError(f"{where}: mediaType: is no text.", "The manifest is broken; push the image again.")
    return Descriptor(media_type, digest, size, _texts(value.get("annotations")), _platform_text(value.get("platform")))


def choose_platform(index: Index, platform: str, where: str = "index") -> Descriptor:
    """The image for ``platform`` (``linux/amd64``, ``linux/arm64/v8``); one without a variant takes any, the plainest first.

    Without ``platform``, the only image that there is.
    """
    images = [entry for entry in index.manifests if not entry.platform.startswith("unknown/")]
    if not platform:
        if len(images) == 1:
            return images[0]
        raise AikitError(f"{where} has images for {_listed(index.platforms)}, and no platform was named.", "Name one with platforms.")
    wanted = normalise_platform(platform)
    exact = [entry for entry in images if entry.platform == wanted]
    # arm64 means arm64/v8 (containerd's platforms package), and nobody builds for another one
    loose = [entry for entry in images if _base(entry.platform) == _base(wanted) and (wanted.count("/") == 1 or entry.platform.count("/") == 1)]
    found = next(iter((*exact, *sorted(loose, key=lambda entry: entry.platform))), None)
    if found is None:
        raise AikitError(f"{where} has no image for {platform}; it has: {_listed(index.platforms)}.", "Name one of them, or another image.")
    return found


def normalise_platform(text: str) -> str:
    """``linux/x86_64`` → ``linux/amd64``; :class:`AikitError` for what is no platform."""
    parts = text.strip().lower().split("/")
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9_.-]+", part) for part in parts):
        raise AikitError(f"platforms: {text!r} is no platform.", "A platform is os/architecture, for example linux/amd64.")
    parts[1] = _ARCHITECTURES.get(parts[1], parts[1])
    if parts[1:] == ["arm64", "v8"]:
        parts.pop()
    return "/".join(parts)


def platform_dict(platform: str) -> dict[str, str]:
    """``linux/arm64/v8`` as it stands in an index."""
    return dict(zip(("os", "architecture", "variant"), platform.split("/")))


def config_platform(config: Mapping[str, Any]) -> str:
    """The platform that the config of an image names."""
    return _platform_text({key: config.get(key) for key in ("os", "architecture", "variant")})


def layer_media_type(media_type: str, where: str) -> str:
    """The OCI name of a layer's type: manifests of Docker's kind and ours must not be mixed."""
    found = OCI_LAYER_TYPES.get(media_type, media_type)
    if found.startswith("application/vnd.oci.image.layer."):
        return found
    raise AikitError(f"{where}: {media_type[:200]!r} is no type of a layer.", "Name an image that a container engine can run.")


def diff_ids(config: Mapping[str, Any], layers: Sequence[Descriptor], where: str) -> tuple[str, ...]:
    """The digests of the unpacked layers, base first, of which there must be one a layer."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, str) and is_digest(entry) for entry in found):
        raise AikitError(f"{where}: rootfs.diff_ids of its config is no list of digests.", "Name an image that a container engine can run.")
    if len(found) != len(layers):
        raise AikitError(f"{where}: its config lists {len(found)} layers, its manifest {len(layers)}.", "The image is broken; push it again.")
    return tuple(found)


def _platform_text(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    parts = [value.get(key) for key in ("os", "architecture", "variant")]
    texts = [part for part in parts if isinstance(part, str) and part]
    if len(texts) < 2:
        return ""
    text = "/".join(texts)
    return normalise_platform(text) if re.fullmatch(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+){1,2}", text) else ""


def _base(platform: str) -> str:
    return "/".join(platform.split("/")[:2])


def _listed(platforms: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(platforms)) or "no platform that it names"


def _texts(value: Any) -> dict[str, str]:
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def _shown(raw: bytes) -> str:
    text: Optional[str] = raw[:80].decode("utf-8", "replace")
    return repr(text)
