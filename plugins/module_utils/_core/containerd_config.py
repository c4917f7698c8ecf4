# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Switch CDI on in containerd's config.toml, and leave every other line as it is.

A drop-in would not do: containerd 1.7 takes the section of a plugin whole from the last file that has it, so one that holds nothing but
``enable_cdi`` takes back every other setting of the CRI plugin. Whether the new text means what it should is asked of containerd itself.
"""

from __future__ import annotations

import re
from typing import Mapping, Optional

from .errors import AikitError

# The table that has the key, by the version of the file
TABLES: Mapping[int, str] = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_VERSION = re.compile(r"^[ \t]*version[ \t]*=[ \t]*(\d+)", re.M)
_KEY = re.compile(r"^([ \t]*enable_cdi[ \t]*=[ \t]*)(true|false)\b", re.M)
_HEADER = re.compile(r"^[ \t]*\[", re.M)
HINT = "Nothing was changed. Set enable_cdi = true for containerd's CRI plugin by hand, and restart containerd."


def enabled(dump: str) -> bool:
    """Whether CDI is on, by ``containerd config dump``."""
    return any(found.group(2) == "true" for found in _KEY.finditer(dump))


def knows(dump: str) -> bool:
    """Whether this containerd has CDI, on or off: since 1.7 the key is in every ``containerd config dump``."""
    return _KEY.search(dump) is not None


def enable_cdi(text: Optional[str], path: str) -> str:
    """The file with CDI on; AikitError for one that has to be edited by people."""
    if not (text or "").strip():
        return f'version = 2\n\n[plugins."{TABLES[2]}"]\n  enable_cdi = true\n'
    given = text or ""
    found = _VERSION.search(given)
    version = int(found.group(1)) if found else 1
    if version not in TABLES:
        raise AikitError(
            f"{path} is of version {version}{'' if found else ' (it names none)'}, and only versions {' and '.join(map(str, TABLES))} are known here.", HINT
        )
    header = re.compile(rf"^([ \t]*)\[[ \t]*plugins[ \t]*\.[ \t]*(['\"]){re.escape(TABLES[version])}\2[ \t]*\][ \t]*(#.*)?$", re.M)
    table = header.search(given)
    if table is None:
        # A table after those that are in it is good TOML
        return f'{given.rstrip()}\n\n[plugins."{TABLES[version]}"]\n  enable_cdi = true\n'
    following = _HEADER.search(given, table.end())
    end = following.start() if following else len(given)
    key = _KEY.search(given, table.end(), end)
    if key:
        return given[: key.start()] + key.group(1) + "true" + given[key.end() :]
    return f"{given[: table.end()]}\n{table.group(1)}  enable_cdi = true{given[table.end() :]}"


def disable_cdi(text: str) -> str:
    """The file as it was before: where its table says true, it says false."""
    version = _VERSION.search(text)
    name = TABLES.get(int(version.group(1)) if version else 2, "-")
    table = re.search(rf"^[ \t]*\[[ \t]*plugins[ \t]*\.[ \t]*['\"]{re.escape(name)}['\"][ \t]*\]", text, re.M)
    if table is None:
        return text
    following = _HEADER.search(text, table.end())
    key = _KEY.search(text, table.end(), following.start() if following else len(text))
    return text[: key.start()] + key.group(1) + "false" + text[key.end() :] if key else text


def check(before: str, after: str, path: str, trial: str) -> None:
    """Compare two ``containerd config dump``: of the file as it is, and of the new one, which lies at ``trial``."""
    if not enabled(after):
        raise AikitError(f"{path} would not switch CDI on: a file that it imports has the section of the CRI plugin, and containerd takes that whole.", HINT)
    lost = sorted(set(_lines(before, path)) - set(_lines(after, trial)))
    if lost:
        raise AikitError(f"{path} would lose settings: {'; '.join(lost[:5])}.", HINT)


def _lines(dump: str, path: str) -> list[str]:
    # The first import is the file itself
    return [line.strip() for line in dump.replace(path, "").splitlines() if not _KEY.match(line)]
