# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several small files of a host in one go."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Any, Optional, Sequence

from .._core.errors import AikitError
from .files import sync_directory, write_atomic


@dataclass(frozen=True)
class Wanted:
    """``content`` is None for a file that shall not be there; ``mode`` is for a file that is written."""

    path: str
    content: Optional[str]
    mode: int


def parse(files: Sequence[dict[str, Any]]) -> tuple[Wanted, ...]:
    """The files as the module's option has them."""
    found = []
    for entry in files:
        path, mode = entry["path"], entry["mode"]
        if not os.path.isabs(path):
            raise AikitError(f"files: {path} is no absolute path.", "Begin it with a slash.")
        try:
            number = int(mode, 8)
        except ValueError:
            raise AikitError(f"files: the mode of {path} is {mode!r}.", "Write it in octal, in quotes: '0644'.") from None
        found.append(Wanted(path, entry["content"] if entry["state"] == "present" else None, number))
    twice = sorted({wanted.path for wanted in found if [other.path for other in found].count(wanted.path) > 1})
    if twice:
        raise AikitError(f"files: {', '.join(twice)} is named twice.", "Say once what it shall hold.")
    return tuple(found)


def ensure(files: Sequence[dict[str, Any]], check_mode: bool) -> dict[str, Any]:
    """The result of module host_files."""
    diff, actions, changed = [], [], []
    for wanted in parse(files):
        before, mode = _read(wanted.path)
        if wanted.content is None and before is None:
            continue
        if wanted.content is not None and before == wanted.content.encode() and mode == wanted.mode:
            continue
        changed.append(wanted.path)
        actions.append(f"{'remove' if wanted.content is None else 'write'} {wanted.path}")
        diff.append(
            {
                "before_header": wanted.path,
                "after_header": wanted.path,
                "before": _text(before, mode, wanted),
                "after": _text(None if wanted.content is None else wanted.content.encode(), wanted.mode if before is not None else 0, wanted, mode),
            }
        )
        if not check_mode:
            _apply(wanted)
    return {"changed": bool(changed), "changed_paths": changed, "actions": actions, "diff": diff}


def _read(path: str) -> tuple[Optional[bytes], int]:
    try:
        with open(path, "rb") as handle:
            return handle.read(), stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        # A link that leads nowhere is there all the same
        return (b"", 0) if os.path.islink(path) else (None, 0)
    except IsADirectoryError:
        raise AikitError(f"{path} is a folder, and a file is wanted there.", "Move it away, then run again.") from None


def _text(content: Optional[bytes], mode: int, wanted: Wanted, other: Optional[int] = None) -> str:
    if content is None:
        return ""
    # A mode is shown only where that is what differs
    differs = wanted.content is not None and mode and mode != (wanted.mode if other is None else other)
    return content.decode("utf-8", "replace") + (f"(mode {mode:04o})\n" if differs else "")


def _apply(wanted: Wanted) -> None:
    if wanted.content is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(wanted.path)
        sync_directory(os.path.dirname(wanted.path))
        return
    folder = os.path.dirname(wanted.path)
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        os.mkdir(path)
        # Whatever the umask: services and package managers read them
        os.chmod(path, 0o755)
    write_atomic(wanted.path, wanted.content.encode(), wanted.mode)
