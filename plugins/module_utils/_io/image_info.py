# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What images in a registry or an OCI layout say of themselves; of their layers at most one small file is read."""

from __future__ import annotations

import posixpath
import tarfile
from dataclasses import replace
from typing import Any, Iterable, Optional

from .._core import image_base, oci
from .._core import registry as rules
from .._core.errors import AikitError
from .._core.image import info
from .base_image import SCAN_BYTES, ImageSource, Pieces, layout_source, registry_source
from .blob_store import BlobStore
from .oci_layout import Layout
from .outputs import state_of
from .registry import Registry, RegistrySettings

FILE_MAX_BYTES = 1024 * 1024


def in_registry(name: str, settings: RegistrySettings, config_path: str = "") -> tuple[list[dict[str, Any]], str]:
    """The image of every platform under ``name``, and the text of a file in the first; nothing where there is no such image."""
    registry = Registry(settings)
    asked = rules.parse_name(name).text
    try:
        try:
            index = registry.index(name)
        except AikitError as exc:
            # Of the name alone: an image that is there and lacks a part is no image that is not there
            if exc.data.get("http_status") == 404:
                return [], ""
            raise
        if index is None:
            sources = [registry_source(name, "", registry, BlobStore(), "")]
        else:
            sources = [
                replace(registry_source(name, "", registry, BlobStore(), image.digest), ref=asked, index_digest=index[0]) for image in index[1].images
            ]
        return _described(sources, asked, config_path)
    finally:
        registry.close()


def in_layout(path: str, name: str, config_path: str = "") -> tuple[list[dict[str, Any]], str]:
    """The images of a layout, or those under one name."""
    layout = Layout(path)
    if not layout.exists():
        raise AikitError(f"oci_layout: {layout.path} is no OCI layout: it has no file oci-layout.", "Name a folder that skopeo or aikit_image wrote.")
    entries = [layout.find(name)] if name else [oci.parse_descriptor(entry, f"{layout.path}/index.json") for entry in layout.entries()]
    sources = []
    for entry in entries:
        if entry is None:
            continue
        raw = layout.read(entry.digest)
        several = oci.is_index(oci.parse_document(raw, entry.digest), entry.media_type)
        children = [image.digest for image in oci.parse_index(raw, entry.media_type, entry.digest).images] if several else [""]
        sources += [layout_source(f"oci:{layout.path}:{entry.digest}", "", "", child) for child in children]
    return _described(sources, name, config_path)


def _described(sources: list[ImageSource], asked: str, config_path: str) -> tuple[list[dict[str, Any]], str]:
    found = []
    for source in sources:
        by_digest = f"{source.repository}@{source.digest}"
        state = state_of(source.config, source.ref if "/" in source.ref else "", by_digest, source.manifest.config.digest)
        found.append({**info(state, asked, source.manifest.annotations), "index_digest": source.index_digest})
    text = b""
    if config_path and sources:
        text = image_file(sources[0], config_path) or b""
    return found, text.decode("utf-8", "replace")


def image_file(source: ImageSource, path: str) -> Optional[bytes]:
    """A small file of an image; None where it is not there. Every layer above the one that has it is read, too."""
    wanted = posixpath.normpath(path).lstrip("/")
    # From the top, whatever their sizes: a higher layer has the last word
    for layer in reversed(source.manifest.layers):
        found, gone = _in_layer(source, layer, wanted)
        if found is not None or gone:
            return found
    return None


def _in_layer(source: ImageSource, layer: oci.Descriptor, wanted: str) -> tuple[Optional[bytes], bool]:
    """The file, and whether the layer takes it away."""
    found: Optional[bytes] = None
    gone = False
    stream = Pieces(source.open(layer))
    try:
        with tarfile.open(fileobj=stream, mode=stream.tar_mode(), bufsize=SCAN_BYTES) as reader:
            for member in reader:
                reader.members = []  # type: ignore[attr-defined]
                name = image_base.member_path(member.name)
                removed = image_base.removed_path(name)
                gone = gone or bool(removed) and image_base.hides(removed, wanted)
                if name != wanted:
                    continue
                if not member.isreg():
                    raise AikitError(
                        f"/{wanted} of {source.ref} is {'a link' if member.issym() or member.islnk() else 'no regular file'}.",
                        "Give the path of the file itself.",
                    )
                if member.size > FILE_MAX_BYTES:
                    raise AikitError(
                        f"/{wanted} of {source.ref} has {member.size} bytes, and files of up to {FILE_MAX_BYTES} bytes are read.",
                        "This is for configuration, not for models.",
                    )
                handle = reader.extractfile(member)
                found = handle.read() if handle is not None else None
    except tarfile.TarError as exc:
        raise AikitError(f"layer {layer.digest} of {source.ref} cannot be read: {exc}.", "Read it from an engine that has the image.") from exc
    _drain(stream.rest())
    return found, gone


def _drain(pieces: Iterable[bytes]) -> None:
    """To the end, where the digest is checked."""
    for _piece in pieces:
        pass
