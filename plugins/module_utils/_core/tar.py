# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tar archive as a list of segments: header bytes that we make, and files that are read when the archive is streamed.

Nothing is ever spooled, so a 40 GB layer costs no disk. The bytes depend on the entries alone: no
clock, no user, no library version (Python's own ``tarfile`` changed what it writes between releases).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Union

BLOCK = 512
# ustar holds sizes up to 8 GiB - 1 in its 11 octal digits; above, a PAX record does
MAX_USTAR_SIZE = 8**11 - 1
END_OF_ARCHIVE = b"\0" * (2 * BLOCK)


@dataclass(frozen=True)
class FileRef:
    """``size`` bytes that stand in the file ``path`` on this host."""

    path: str
    size: int


Segment = Union[bytes, FileRef]


@dataclass(frozen=True)
class Entry:
    """A directory (``content`` is None) or a regular file of a tar archive; ``path`` without a leading slash."""

    path: str
    mode: int
    content: Optional[tuple[Segment, ...]] = None
    owner: tuple[int, int] = (0, 0)


def segments(entries: Iterable[Entry]) -> tuple[Segment, ...]:
    """The archive of ``entries``, in the given order; neighbouring bytes are joined, no segment is empty."""
    parts: list[Segment] = []
    for entry in entries:
        size = total_size(entry.content or ())
        _append(parts, header(entry.path, size, entry.mode, directory=entry.content is None, owner=entry.owner))
        for part in entry.content or ():
            _append(parts, part)
        _append(parts, b"\0" * (-size % BLOCK))
    _append(parts, END_OF_ARCHIVE)
    return tuple(parts)


def segment_size(segment: Segment) -> int:
    """Bytes in one segment."""
    return segment.size if isinstance(segment, FileRef) else len(segment)


def total_size(parts: Iterable[Segment]) -> int:
    """Bytes in all segments."""
    return sum(segment_size(part) for part in parts)


def header(path: str, size: int, mode: int, directory: bool = False, owner: tuple[int, int] = (0, 0)) -> bytes:
    """The header of one entry (POSIX ustar; with a PAX header before it where ustar is too small).

    Owners (user and group) without names, time 0. Source: POSIX.1-2017, pax, "ustar Interchange Format".
    """
    name = path.rstrip("/") + ("/" if directory else "")
    raw = name.encode("utf-8")
    records = b""
    if len(raw) > 100 or not name.isascii():
        records += _pax_record("path", name)
    if size > MAX_USTAR_SIZE:
        records += _pax_record("size", str(size))
    block = ustar(raw[:100], 0 if size > MAX_USTAR_SIZE else size, mode, b"5" if directory else b"0", owner=owner)
    if not records:
        return block
    padded = records + b"\0" * (-len(records) % BLOCK)
    return ustar(b"PaxHeaders/" + raw[:80], len(records), 0o644, b"x") + padded + block


def ustar(
    name: bytes, size: int, mode: int, kind: bytes, *, owner: tuple[int, int] = (0, 0), mtime: int = 0, link: bytes = b""
) -> bytes:
    """One block of a POSIX ustar header; every value must fit its field."""
    fields = [
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % owner[0],
        b"%07o\0" % owner[1],
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b"        ",  # the checksum counts as eight spaces while it is made
        kind,
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        b"\0" * 64,
        b"0000000\0",
        b"0000000\0",
        b"\0" * 167,
    ]
    block = b"".join(fields)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def _pax_record(key: str, value: str) -> bytes:
    """``LENGTH key=value\\n``, where LENGTH counts itself."""
    body = f" {key}={value}\n".encode("utf-8")
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode("ascii") + body


def _append(parts: list[Segment], part: Segment) -> None:
    if segment_size(part) == 0:
        return
    last = parts[-1] if parts else None
    if isinstance(part, bytes) and isinstance(last, bytes):
        parts[-1] = last + part
    else:
        parts.append(part)
