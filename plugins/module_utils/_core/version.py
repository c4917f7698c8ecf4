# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions of drivers, toolkits and engines: compared as numbers, never as text.

Package versions carry more than the version: an epoch (``3:``), a build (``-0ubuntu1``, ``-1.el9``) and a suffix
(``~beta``, ``+dfsg1``). What is compared is what its makers call the version: the dotted numbers.
"""

from __future__ import annotations

import re
from typing import Optional

_NUMBERS = re.compile(r"(?:\d+:)?[vV]?(\d+(?:\.\d+)*)")


def numbers(text: str) -> tuple[int, ...]:
    """``(580, 159, 3)`` of ``580.159.03``, ``3:580.159.03-1.el9`` or ``v580.159.03``; empty where no version leads the text."""
    found = _NUMBERS.match(text.strip())
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def at_least(found: str, floor: str) -> Optional[bool]:
    """Whether ``found`` is ``floor`` or newer (``1.19`` is ``1.19.0``); None where ``found`` is no version."""
    mine, least = numbers(found), numbers(floor)
    if not mine:
        return None
    length = max(len(mine), len(least))
    return mine + (0,) * (length - len(mine)) >= least + (0,) * (length - len(least))


def upstream(text: str) -> str:
    """What the makers call the version, as they write it: ``580.159.03`` of ``3:580.159.03-1.el9``; empty where there is none."""
    found = _NUMBERS.match(text.strip())
    return found.group(1) if found else ""
