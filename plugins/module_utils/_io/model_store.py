# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remove what nobody needs from a store of models."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from typing import Optional, Sequence

from .._core import hub, model_store
from .._core import model_source as sources
from .._core.errors import AikitError
from .._core.model_store import Cleanup, Content, File, Leftover
from . import files
from .download import Say, silent
from .models import source_key
from .transfer import Store, delete, listed

BUSY_SECONDS = 0.0


def prune(
    store: str,
    keep: Sequence[str],
    unused_days: Optional[float] = None,
    *,
    hub_url: str = hub.DEFAULT_URL,
    check_mode: bool = False,
    say: Say = silent,
) -> Cleanup:
    """Remove every model that is not in ``keep`` and was not asked for in ``unused_days``, with what belongs to it.

    What another run is working on stays.

    :param keep: digests, sources, or paths in the store.
    """
    model_store.check_unused_days(unused_days)
    place = Store(store, read_only=check_mode)
    wanted = _kept(place, keep, hub.check_url(hub_url))
    now = time.time()
    contents = [content for content in (_content(place, digest) for digest in _digests(place)) if content.files]
    gone = model_store.goes(contents, wanted, unused_days, now)
    with contextlib.ExitStack() as locks:
        if not check_mode:
            gone = [content for content in gone if _claim(place, locks, content.sha256, say)]
        lost = {content.sha256 for content in gone}
        have = {content.sha256 for content in contents} - lost
        more = _belongings(place, have)
        claimed = {content.sha256: True for content in gone}
        leftovers = _leftovers(place, wanted, unused_days, now, locks, check_mode, claimed)
        found = model_store.plan(contents, gone, more, leftovers, now)
        if not check_mode:
            for path in found.paths:
                with contextlib.suppress(OSError):
                    place.cache.forget("sha256", os.lstat(path))
            delete(place, found.paths)
    return found


def _digests(place: Store) -> list[str]:
    return [os.path.basename(path) for path in listed(os.path.join(place.path, "sha256")) if re.fullmatch("[0-9a-f]{64}", os.path.basename(path))]


def _content(place: Store, digest: str) -> Content:
    found = [_file(os.path.join(place.folder(digest), name)) for name in place.names(digest)]
    try:
        used_at = os.stat(place.folder(digest)).st_mtime
    except OSError:
        used_at = 0.0
    return Content(digest, tuple(file for file in found if file is not None), used_at)


def _file(path: str) -> Optional[File]:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return None if stat.S_ISDIR(status.st_mode) else File(path, (status.st_dev, status.st_ino), status.st_nlink, status.st_size)


def _kept(place: Store, keep: Sequence[str], hub_url: str) -> frozenset[str]:
    """The digests of everything that is named. What names nothing known is an error: it may be just what is wanted."""
    records = place.records()
    sets = {record.set_sha256: record.digests for record in records if record.set_sha256}
    found: set[str] = set()
    for number, text in enumerate(keep):
        option = f"keep[{number}]"
        inside = os.path.relpath(os.path.abspath(os.path.expanduser(text)), place.path).split(os.sep) if "://" not in text else []
        if len(inside) > 1 and inside[0] in ("sha256", "sets") and re.fullmatch("[0-9a-f]{64}", inside[1]):
            digest = inside[1]
        elif re.fullmatch("(?:sha256:)?[0-9a-fA-F]{64}", text.strip()):
            digest = sources.parse_sha256(text)
        else:
            parsed = sources.parse(text)
            if parsed.kind == sources.LOCAL:
                raise AikitError(f"{option}: {text!r} is no digest, no path in the store {place.path} and no source.", "Give the sha256 of the model.")
            path = place.source_path(source_key(parsed, hub_url))
            record = next((entry for entry in records if entry.path == path or entry.shown == parsed.shown), None)
            if record is None:
                raise AikitError(f"{option}: the store has no record of what {parsed.shown} gave.", "Give the sha256 of the model instead.")
            found.update(record.digests | record.companions)
            continue
        kept = sets.get(digest, frozenset([digest]))
        found.update(kept)
        # An image has them beside the model: without them the next build would need the network
        for record in records:
            if record.digests & kept:
                found.update(record.companions)
    return frozenset(found)


def _claim(place: Store, locks: contextlib.ExitStack, digest: str, say: Say) -> bool:
    """Whether nobody works on this content; nobody starts to until the end of the block then."""
    try:
        locks.enter_context(files.lock(place.partial(digest) + ".lock", None, BUSY_SECONDS, remove=True))
    except AikitError:
        say(f"{digest} is in use by another run, and stays")
        return False
    return True


def _belongings(place: Store, have: set[str]) -> list[File]:
    """Records of contents that are not there, and sets that no record has any more."""
    records = place.records()
    alive = {record.set_sha256 for record in records if record.digests <= have}
    paths = [record.path for record in records if not record.digests <= have]
    for folder in listed(os.path.join(place.path, "sets")):
        if os.path.basename(folder) not in alive:
            paths += place.set_files(os.path.basename(folder))
    return [file for file in map(_file, paths) if file is not None]


def _leftovers(
    place: Store,
    wanted: frozenset[str],
    unused_days: Optional[float],
    now: float,
    locks: contextlib.ExitStack,
    check_mode: bool,
    claimed: dict[str, bool],
) -> list[Leftover]:
    """What interrupted runs have left. ``claimed`` has the contents whose lock is held here already."""
    found: list[Leftover] = []
    for path in listed(os.path.join(place.path, "partial")):
        key, dummy, suffix = os.path.basename(path).partition(".")
        file = _file(path)
        if file is None or suffix == "lock" or suffix.endswith(".lock") or key in wanted:
            continue
        changed_at = os.lstat(path).st_mtime
        if unused_days is not None and changed_at > now - unused_days * model_store.DAY_SECONDS:
            continue
        if key not in claimed:
            claimed[key] = check_mode or _claim(place, locks, key, silent)
        if claimed[key]:
            found.append(Leftover(file, changed_at))
    return found
