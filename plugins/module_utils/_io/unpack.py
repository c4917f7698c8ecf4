# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bytes of a layer's blob, unpacked while they are read: gzip, zstd, or none. In memory is a piece of one megabyte."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zlib
from typing import Any, Callable, Iterator

from .._core.errors import AikitError

PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def unpacked(path: str, what: str, reach: Callable[[int], None] = lambda position: None) -> Iterator[bytes]:
    """The pieces of the file at ``path``; what it is packed with is read off its first bytes. ``what`` names it in messages.

    ``reach`` is told how much of the file was read.
    """
    with open(path, "rb", buffering=0) as handle:
        magic = handle.read(4)
        handle.seek(0)
        if magic.startswith(_GZIP):
            pieces: Iterator[bytes] = _gzip(handle, what)
        elif magic == _ZSTD:
            pieces = _zstd(handle, what)
        else:
            pieces = iter(lambda: handle.read(PIECE_BYTES), b"")
        for piece in pieces:
            yield piece
            # A program that reads the same open file moves the same position
            reach(os.lseek(handle.fileno(), 0, os.SEEK_CUR))


def _gzip(handle: Any, what: str) -> Iterator[bytes]:
    packed = b""
    try:
        while True:
            # A gzip file may be several in a row
            inflate = zlib.decompressobj(wbits=31)
            packed = packed or handle.read(PIECE_BYTES)
            if not packed:
                return
            while not inflate.eof:
                piece = inflate.decompress(packed, PIECE_BYTES)
                if piece:
                    yield piece
                packed = inflate.unconsumed_tail or (b"" if inflate.eof else handle.read(PIECE_BYTES))
                if not packed and not inflate.eof and not piece:
                    raise AikitError(f"{what} ends in the middle of its gzip data.", "The image is damaged; push it again.")
            packed = inflate.unused_data
            if packed and not packed.strip(b"\0"):
                return
    except zlib.error as exc:
        raise AikitError(f"{what} is no valid gzip data: {exc}.", "The image is damaged; push it again.") from None


def _zstd(handle: Any, what: str) -> Iterator[bytes]:
    """By the program zstd: Python has no reader of its own before 3.14."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(["zstd", "--decompress", "--stdout", "--quiet"], stdin=handle, stdout=subprocess.PIPE, stderr=said)
        except FileNotFoundError:
            raise AikitError(f"{what} is packed with zstd, and program zstd is not on this machine.", "Install package zstd on the build host.") from None
        try:
            yield from iter(lambda: process.stdout.read(PIECE_BYTES), b"")  # type: ignore[union-attr]
            if process.wait() != 0:
                said.seek(0)
                reason = said.read(500).decode("utf-8", "replace").strip()
                raise AikitError(f"{what} cannot be unpacked: {reason or 'zstd failed'}.", "The image is damaged; push it again.")
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.kill()
                process.wait()
