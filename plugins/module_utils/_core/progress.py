# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far long work is: a rate, what is left of it, the document that says so, and one line for people.

Nothing here knows the time: callers hand in their clock's seconds.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Iterable, Mapping, Optional, Sequence

VERSION = 1
BYTES = "bytes"
# A change of speed shows after about this long; what is shorter than this is noise
SMOOTHING_SECONDS = 5.0
MAX_TEXT = 200
MAX_STAGES = 64
_BAR = 20
_BAR_COLOUR = "\x1b[36m"
_PLAIN = "\x1b[0m"


@dataclass(frozen=True)
class Rate:
    """Amounts per second, as measured at the clock's ``at``."""

    started: float
    at: float
    done: int = 0
    per_second: float = 0.0


def begin(now: float, done: int = 0) -> Rate:
    """Measure from here; ``done`` was there before, and took no time now."""
    return Rate(now, now, done)


def measure(rate: Rate, now: float, done: int) -> Rate:
    """The rate after one more look.

    At first the average since the start, later one that forgets. A clock that stood still or went back measures nothing;
    an amount that shrank (a download from the start again) begins a new measurement.
    """
    passed = now - rate.at
    if done < rate.done:
        return begin(now, done)
    if passed < 0:
        return replace(rate, at=now, done=done, started=min(rate.started, now))
    if passed == 0:
        return rate
    current = (done - rate.done) / passed
    weight = max(1 - math.exp(-passed / SMOOTHING_SECONDS), min(1.0, passed / (now - rate.started)))
    return replace(rate, at=now, done=done, per_second=rate.per_second + weight * (current - rate.per_second))


def left_seconds(done: int, total: Optional[int], per_second: float) -> Optional[float]:
    """How long it will take; None where nobody can know."""
    if total is None:
        return None
    if done >= total:
        return 0.0
    return (total - done) / per_second if per_second > 0 else None


@dataclass(frozen=True)
class Stage:
    """One thing that takes time. ``total`` is None where it is not known; ``unit`` is ``bytes`` or a plural noun."""

    name: str
    done: int
    total: Optional[int] = None
    unit: str = BYTES
    elapsed_seconds: float = 0.0
    per_second: float = 0.0

    @property
    def left_seconds(self) -> Optional[float]:
        return left_seconds(self.done, self.total, self.per_second)

    def as_dict(self) -> dict[str, Any]:
        left = self.left_seconds
        return {
            "name": self.name,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "elapsed_seconds": round(self.elapsed_seconds, 1),
            "per_second": round(self.per_second, 1),
            "left_seconds": None if left is None else round(left, 1),
        }


def document(work: str, pid: int, updated: float, stages: Iterable[Stage]) -> dict[str, Any]:
    """What stands in a status file. ``updated`` is seconds since 1970."""
    return {"version": VERSION, "work": work, "pid": pid, "updated": round(updated, 1), "stages": [stage.as_dict() for stage in stages]}


def parse(found: Any) -> tuple[Stage, ...]:
    """The stages of a status file. It comes from another machine: what is not as it should be is left out, and texts are plain."""
    if not isinstance(found, Mapping) or found.get("version") != VERSION or not isinstance(found.get("stages"), list):
        return ()
    stages = []
    for entry in found["stages"][:MAX_STAGES]:
        if not isinstance(entry, Mapping) or _count(entry.get("done")) is None:
            continue
        stages.append(
            Stage(
                plain(entry.get("name")),
                _count(entry.get("done")) or 0,
                _count(entry.get("total")),
                plain(entry.get("unit")) or BYTES,
                _number(entry.get("elapsed_seconds")),
                _number(entry.get("per_second")),
            )
        )
    return tuple(stages)


def plain(text: Any) -> str:
    """A text that does nothing to a terminal but show."""
    if not isinstance(text, str):
        return ""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT])


def _count(value: Any) -> Optional[int]:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return value if good else None


def _number(value: Any) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63
    return float(value) if good else 0.0


# For people


def amount(count: float, unit: str = BYTES) -> str:
    """``1.2 GB``, ``12 kB``, ``7 steps``: decimal, as disks and links are labelled."""
    if unit != BYTES:
        return f"{count:.0f} {unit}"
    value = float(count)
    for name in ("B", "kB", "MB", "GB", "TB"):
        # 999.96 would be shown as 1000.0
        if round(value, 0 if name == "B" else 1) < 1000 or name == "TB":
            break
        value /= 1000
    return f"{value:.0f} {name}" if name == "B" or value >= 100 else f"{value:.1f} {name}"


def duration(seconds: float) -> str:
    """``0:07``, ``12:05``, ``3:00:00``, and days where it takes some."""
    whole = int(max(0.0, seconds) + 0.5)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(stage: Stage) -> Optional[int]:
    """Whole percent, rounded down so that 100 means all; None without a total."""
    if not stage.total:
        return None
    return min(100, 100 * stage.done // stage.total)


def main_stage(stages: Sequence[Stage]) -> Optional[Stage]:
    """The one of several at once that others wait for: the longest one to come, else the biggest."""
    return max(stages, key=lambda stage: (stage.left_seconds or 0.0, stage.total or 0, stage.done), default=None)


def line(stages: Sequence[Stage], width: int = 80, prefix: str = "", colour: bool = False) -> str:
    """One line of at most ``width`` columns; empty when nothing is going on. ``prefix`` is whose work it is.

    What matters least goes first when there is no room: the bar, the rate, the total, the end of the name.
    """
    stage = main_stage(stages)
    if stage is None or width < 1:
        return ""
    share, left = percent(stage), stage.left_seconds
    others = f" (+{len(stages) - 1} more)" if len(stages) > 1 else ""
    head = f"{plain(prefix)}: " if prefix else ""
    done = amount(stage.done, stage.unit)
    if stage.total is not None and stage.unit != BYTES:
        done = f"{stage.done} of {amount(stage.total, stage.unit)}"
    elif stage.total is not None:
        whole = amount(stage.total)
        # 1.2 of 3.4 GB
        same = done.rpartition(" ")[2] == whole.rpartition(" ")[2]
        done = f"{done.rpartition(' ')[0] if same else done} of {whole}"
    rate = f"{amount(stage.per_second)}/s" if stage.unit == BYTES and stage.per_second >= 1 else ""
    if left and share is not None:
        rest = f"{duration(left)} left"
    else:
        rest = duration(stage.elapsed_seconds)
    shown = f"{share:3} %" if share is not None else ""
    # A stage that counts nothing has only its time
    done = done if stage.done or stage.total else ""
    for parts in ((done, shown, rate, rest), (done, shown, rest), (shown or done, rest), (shown or done,)):
        tail = "".join(f"  {part}" for part in parts if part)
        room = width - columns(head) - columns(others) - columns(tail)
        if room >= min(columns(stage.name), 12):
            break
    name = shorten(stage.name, max(0, room))
    text = f"{head}{name}{others}{tail}"
    if columns(text) > width:
        return shorten(text, width)
    if share is not None and width - columns(text) >= _BAR + 4:
        filled = share * _BAR // 100
        drawn = "#" * filled + "-" * (_BAR - filled)
        coloured = f"{_BAR_COLOUR}{drawn}{_PLAIN}" if colour else drawn
        text = f"{head}{name}{others}  [{coloured}]{tail}"
    return text


def columns(text: str) -> int:
    """How many columns of a terminal a printable text takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)


def shorten(text: str, width: int) -> str:
    """The text, or its beginning with three dots."""
    if columns(text) <= width:
        return text
    dots = "..." if width > 5 else ""
    while text and columns(text) + len(dots) > width:
        text = text[:-1]
    return text.rstrip() + dots
