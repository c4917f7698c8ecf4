# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images in a folder that is an OCI layout: blobs under their digests, and an index of names that changes at once.

Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Optional

from .._core import oci, reference
from .._core.errors import AikitError
from .._core.oci import Descriptor
from .._core.tar import FileRef, Segment, total_size
from . import files, progress
from .image import stream

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
LAYOUT = {"imageLayoutVersion": "1.0.0"}
# FICLONE of linux/fs.h: two files share their blocks until one is written to
FICLONE = 0x40049409
INDEX_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """What shall be in a layout: its digest and its bytes."""

    digest: str
    parts: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return total_size(self.parts)


class Layout:
    """One folder. Entries of others in its index stay as they are."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))

    def blob_path(self, digest: str) -> str:
        return os.path.join(self.path, "blobs", *digest.split(":", 1))

    def exists(self) -> bool:
        return os.path.isfile(os.path.join(self.path, "oci-layout"))

    def check(self) -> None:
        """Refuse a folder that holds something else."""
        if self.exists():
            marker = files.read_json(os.path.join(self.path, "oci-layout"))
            if not str(marker.get("imageLayoutVersion", "")).startswith("1."):
                raise AikitError(
                    f"oci_layout: {self.path} is a layout of version {marker.get('imageLayoutVersion')!r}.", "Only version 1 is known; take another folder."
                )
            self.entries()
            return
        if os.path.lexists(self.path) and not os.path.isdir(self.path):
            raise AikitError(f"oci_layout: {self.path} is no folder.", "Name a folder.")
        # What a run that was killed left is ours
        if os.path.isdir(self.path) and set(os.listdir(self.path)) - {"blobs", "index.json"}:
            raise AikitError(f"oci_layout: {self.path} is a folder with other things in it.", "Name a folder of its own for images.")

    def entries(self) -> list[dict[str, Any]]:
        """The entries of the index, as they are."""
        path = os.path.join(self.path, "index.json")
        try:
            with open(path, "rb") as handle:
                document = json.loads(handle.read(INDEX_MAX_BYTES))
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError):
            document = None
        found = document.get("manifests") if isinstance(document, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise AikitError(f"oci_layout: {path} is no index of images.", "Take another folder, or mend the file.")
        return found

    def names(self) -> list[str]:
        """The names of the images."""
        return [name for name in (_name(entry) for entry in self.entries()) if name]

    def find(self, name: str) -> Optional[Descriptor]:
        """The entry of an image by its name, its tag or its digest; without a name the only one. None when there is none."""
        entries = self.entries()
        if not name:
            if len(entries) > 1:
                raise AikitError(f"{self.path} has several images: {', '.join(self.names())}.", "Name one: oci:FOLDER:NAME.")
            found = entries[:1]
        else:
            full = reference.complete(name)
            found = [entry for entry in entries if _name(entry) in (name, full) or entry.get("digest") in (name, name.lstrip("@"))]
            found = found or [entry for entry in entries if (entry.get("annotations") or {}).get(CONTAINERD_NAME) == full != ""]
            # skopeo writes tags alone, we write whole names
            found = found or [entry for entry in entries if reference.split_tag(_name(entry))[1] == name and ":" in _name(entry)]
        return oci.parse_descriptor(found[0], f"{self.path}/index.json") if found else None

    def read(self, digest: str) -> bytes:
        """A small blob, checked."""
        path = self.blob_path(digest)
        try:
            with open(path, "rb") as handle:
                raw = handle.read(oci.MANIFEST_MAX_BYTES * 2 + 1)
        except FileNotFoundError:
            raise AikitError(f"{self.path} lacks blob {digest}.", "The layout is incomplete; write it again.") from None
        if oci.sha256(raw) != digest:
            raise AikitError(f"{path} has digest {oci.sha256(raw)}.", "The layout is damaged; write it again.")
        return raw

    # --- writing

    def lacking(self, blobs: list[Blob], cache: files.DigestCache) -> list[Blob]:
        """The blobs that are not here, or not whole. Each is read once; after that, as long as it does not change, the cache knows."""
        return [blob for blob in blobs if not self._has(blob.digest, blob.size, cache)]

    def is_current(self, entry: Mapping[str, Any]) -> bool:
        """Whether the index has exactly this entry under its name."""
        return entry in self.entries()

    def write(self, entry: Mapping[str, Any], blobs: list[Blob], cache: files.DigestCache) -> int:
        """Have the blobs, then the name; returns the bytes that were written or linked. What the old entry alone needed goes."""
        self.check()
        os.makedirs(self.path, exist_ok=True)
        with files.lock(f"{self.path}.lock", remove=True):
            written = 0
            for blob in self.lacking(blobs, cache):
                written += self._write_blob(blob, cache)
            if not self.exists():
                files.write_atomic(os.path.join(self.path, "oci-layout"), oci.canonical(LAYOUT))
            before = self.entries()
            name = _name(entry)
            old = [other for other in before if _name(other) == name and other != entry]
            after = [other for other in before if other not in old]
            if entry not in after:
                after.append(dict(entry))
            if after != before:
                files.write_atomic(os.path.join(self.path, "index.json"), oci.canonical({"schemaVersion": 2, "mediaType": oci.MEDIA_INDEX, "manifests": after}))
                self._drop(old, after)
            return written

    def _has(self, digest: str, size: int, cache: files.DigestCache) -> bool:
        path = self.blob_path(digest)
        try:
            if os.path.getsize(path) != size:
                return False
            return f"sha256:{files.sha256_file(path, cache)}" == digest
        except OSError:
            return False

    def _write_blob(self, blob: Blob, cache: files.DigestCache) -> int:
        path = self.blob_path(blob.digest)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.part"
        files.leftover_bytes(part, remove=True)
        whole = blob.parts[0] if len(blob.parts) == 1 else None
        try:
            if isinstance(whole, FileRef) and _share(whole.path, part):
                # The file may be another one by now than the one that was hashed
                digest = f"sha256:{files.sha256_file(part)}"
            else:
                digest = _copy(blob, part)
            if digest != blob.digest:
                raise AikitError(
                    f"A file changed while {self.path} was written: blob {blob.digest} would be {digest}.",
                    "Leave the files alone during a build, and run again.",
                )
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise
        files.sync_directory(os.path.dirname(path))
        cache.put("sha256", os.stat(path), digest.partition(":")[2], files.SETTLED)
        return blob.size

    def _drop(self, old: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
        """Remove blobs that only a replaced entry led to; nothing at all where an entry of others cannot be followed."""
        try:
            kept = {digest for entry in after for digest in self._closure(entry)}
            gone = {digest for entry in old for digest in self._closure(entry)} - kept
        except AikitError:
            return
        for digest in gone:
            with contextlib.suppress(OSError):
                os.unlink(self.blob_path(digest))

    def _closure(self, entry: Mapping[str, Any]) -> Iterator[str]:
        descriptor = oci.parse_descriptor(entry, f"{self.path}/index.json")
        yield descriptor.digest
        document = oci.parse_document(self.read(descriptor.digest), descriptor.digest)
        for child in document.get("manifests") or ():
            yield from self._closure(child)
        for value in (document.get("config"), *(document.get("layers") or ())):
            if value is not None:
                yield oci.parse_descriptor(value, descriptor.digest).digest


def _name(entry: Mapping[str, Any]) -> str:
    annotations = entry.get("annotations")
    value = annotations.get(REF_NAME) if isinstance(annotations, dict) else ""
    return value if isinstance(value, str) else ""


def _share(source: str, target: str) -> bool:
    """Have a file under a second name without copying its bytes, where the file system can."""
    try:
        with open(source, "rb") as reader, open(target, "xb") as writer:
            fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
            os.fchmod(writer.fileno(), 0o644)
            return True
    except OSError as exc:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        if exc.errno in (errno.ENOENT, errno.EACCES, errno.ENOSPC):
            raise
    try:
        os.link(source, target)
        return True
    except OSError:
        return False


def _copy(blob: Blob, part: str) -> str:
    files.require_space(part, blob.size, f"blob {blob.digest}")
    digest = hashlib.sha256()
    with open(part, "wb", buffering=0) as handle:
        for piece in progress.counted(stream(blob.parts), f"write blob {blob.digest[7:19]}", blob.size):
            files.write_all(handle, memoryview(piece))
            digest.update(piece)
        os.fsync(handle.fileno())
    return f"sha256:{digest.hexdigest()}"
