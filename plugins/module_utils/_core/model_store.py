# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a store of models goes when it is cleaned up, and what that gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Optional, Sequence

from .errors import AikitError
from .plan import Action, Plan

DAY_SECONDS = 86400


@dataclass(frozen=True)
class File:
    """A file of the store. Names of one inode share their bytes, and they are free when the last one is gone."""

    path: str
    inode: tuple[int, int]
    links: int
    size_bytes: int


@dataclass(frozen=True)
class Content:
    """All names of one content, and when it was last asked for (seconds since 1970)."""

    sha256: str
    files: tuple[File, ...]
    used_at: float

    @property
    def size_bytes(self) -> int:
        return max((file.size_bytes for file in self.files), default=0)


@dataclass(frozen=True)
class Leftover:
    """What an interrupted run has left, or a record or a set that belongs to nothing any more."""

    file: File
    changed_at: float


@dataclass(frozen=True)
class Cleanup:
    """``paths`` go, in this order; ``removed`` are the models among them."""

    paths: tuple[str, ...]
    removed: tuple[dict[str, Any], ...]
    freed_bytes: int
    plan: Plan


def check_unused_days(value: Optional[float]) -> Optional[float]:
    if value is not None and not 0 <= value < 1e6:
        raise AikitError(f"unused_days is {value:g}.", "Give a number of days, 0 or more.")
    return value


def goes(contents: Sequence[Content], keep: Collection[str], unused_days: Optional[float], now: float) -> list[Content]:
    """The contents that nobody wants: not in ``keep``, and not asked for in so many days."""
    limit = now - unused_days * DAY_SECONDS if unused_days is not None else None
    return [content for content in contents if content.sha256 not in keep and (limit is None or content.used_at <= limit)]


def plan(contents: Sequence[Content], gone: Sequence[Content], more: Sequence[File], leftovers: Sequence[Leftover], now: float) -> Cleanup:
    """What is removed: ``gone``, the sets and records that go with it (``more``), and leftovers."""
    files = [file for content in gone for file in content.files] + list(more) + [leftover.file for leftover in leftovers]
    files = list({file.path: file for file in files}.values())
    names: dict[tuple[int, int], int] = {}
    for file in files:
        names[file.inode] = names.get(file.inode, 0) + 1
    freed = sum({file.inode: file.size_bytes for file in files if names[file.inode] >= file.links}.values())
    actions = []
    for content in gone:
        days = max(0, int((now - content.used_at) // DAY_SECONDS))
        used = "used today" if days == 0 else f"last used {days} day{'' if days == 1 else 's'} ago"
        actions += [Action("remove", file.path, f"{file.size_bytes} bytes, {used}") for file in content.files]
    if leftovers:
        actions.append(Action("remove", f"{len(leftovers)} leftovers", f"{sum(leftover.file.size_bytes for leftover in leftovers)} bytes"))
    elif files and not gone:
        actions.append(Action("remove", f"{len(files)} records and links"))
    lost = {content.sha256 for content in gone}
    before = _state(contents)
    after = _state([content for content in contents if content.sha256 not in lost])
    removed = tuple({"path": file.path, "sha256": content.sha256, "size_bytes": file.size_bytes} for content in gone for file in content.files)
    return Cleanup(tuple(file.path for file in files), removed, freed, Plan(tuple(actions), before, after))


def _state(contents: Sequence[Content]) -> dict[str, Any]:
    return {
        "models": {
            content.sha256: {"names": [file.path.rpartition("/")[2] for file in content.files], "size_bytes": content.size_bytes} for content in contents
        },
        "total_bytes": sum(content.size_bytes for content in contents),
    }
