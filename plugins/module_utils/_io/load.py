# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that a host takes: out of an archive, or from a registry."""

from __future__ import annotations

import hashlib
import os
import tarfile
from typing import Any, Iterator, Mapping, Optional, Sequence

from .._core import registry as rules
from .._core.engine import ImageState, identities, missing_layers
from .._core.errors import AikitError
from .._core.plan import Action, Plan, report
from .._core.reference import check_reference
from . import files, progress
from .engine import Engine, open_engine, present_image

CHUNK_BYTES = 1024 * 1024


def load_archive(
    name: str,
    image: dict[str, Any],
    archive: Optional[str],
    engine_name: str,
    check_mode: bool,
    pull: Optional[str] = None,
    logins: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The result of module aikit_image_load. ``pull`` is the image by digest in a registry, in place of an archive."""
    name = check_reference(name)
    remote = rules.parse_name(pull, "pull") if pull else None
    if remote is not None and not remote.digest:
        raise AikitError(f"pull: {pull} names no digest.", "A tag may mean another image tomorrow: write host/path@sha256:….")
    known = rules.given_logins(logins)
    ids, layers = identities(image)
    engine = open_engine(engine_name)
    named = engine.image(name)
    found = present_image(engine, name, *ids)
    lacking = () if found else missing_layers(engine.images(), [diff_id for diff_id, _digest in layers])
    missing = list(dict.fromkeys(digest for diff_id, digest in layers if diff_id in lacking))
    actions = []
    if found is None and archive:
        if not os.path.isfile(archive):
            raise AikitError(f"archive: there is no file {archive} on this host.", "Copy it there first; module aikit.fleet.aikit_image writes it.")
        files.require_spaces(load_needs(engine, name, os.path.getsize(archive)))
        actions.append(Action("load", name, engine.name))
    elif found is None:
        # Also where it is only asked, before anything travels
        size = sum(int(layer.get("size_bytes") or 0) for layer in image.get("layers") or () if layer["digest"] in missing)
        files.require_spaces(load_needs(engine, name, size))
        actions += [Action("pull", remote.text, engine.name)] if remote is not None else []
    elif named is None or named.id != found.id:
        actions.append(Action("tag", name, engine.name))
    if not check_mode:
        if found is not None and actions:
            engine.tag(found.id, name)
        elif found is None and archive:
            found = _load(engine, name, ids, archive)
        elif found is None and remote is not None:
            login = known.get(remote.host)
            with progress.stage(f"pull {name} into {engine.name}"):
                engine.pull(remote.text, (login.user, login.password) if login else None)
            found = _named(engine, name, ids, remote.text)
    return report(
        Plan(tuple(actions), {"image": named.id if named else None}, {"image": ids[0] if actions else named.id if named else None}),
        present=found is not None,
        id=found.id if found else "",
        missing=[] if found else missing,
        engine=engine.name,
    )


def pull_image(
    name: str,
    engine_name: str,
    check_mode: bool,
    pull: Optional[str] = None,
    logins: Sequence[Mapping[str, Any]] = (),
    always: bool = False,
) -> dict[str, Any]:
    """The result of module aikit_image_load for an image of which nothing is known but its name. ``pull`` is the same by digest."""
    wanted, remote = rules.parse_name(name), rules.parse_name(pull or name, "pull" if pull else "name")
    # A tag beside a digest says nothing, and engines do not take both
    origin = remote.at(remote.digest).text if remote.digest else remote.text
    given = rules.given_logins(logins).get(remote.host)
    login = (given.user, given.password) if given else None
    engine = open_engine(engine_name)
    before = engine.image(wanted.text)
    found = engine.image(origin)
    action = None
    # What a digest names is never another image
    ask = always and not remote.digest
    if ask and check_mode and found is not None:
        # A pull finds this out by itself
        ask = found.is_behind(engine.remote_digest(origin, login))
    if found is None or ask:
        action = Action("pull", origin, engine.name)
    elif not wanted.digest and (before is None or before.id != found.id):
        action = Action("tag", wanted.text, engine.name)
    if action is not None and not check_mode:
        if action.verb == "pull":
            with progress.stage(f"pull {name} into {engine.name}"):
                engine.pull(origin, login)
            found = engine.image(origin)
        if found is None:
            raise AikitError(f"{origin} was pulled, but {engine.name} does not list it.", "Run again; the engine's own list shows what is there.")
        named = before if wanted.digest else engine.image(wanted.text)
        if not wanted.digest and (named is None or named.id != found.id):
            engine.tag(found.id, wanted.text)
        # The tag may mean what it meant before
        action = action if before is None or before.id != found.id else None
    old = before.id if before else None
    return report(
        Plan((action,), {"image": old}, {"image": found.id if found and not check_mode else origin}) if action else Plan(),
        present=found is not None,
        id=found.id if found else "",
        missing=[],
        engine=engine.name,
    )


def _load(engine: Engine, name: str, ids: list[str], archive: str) -> ImageState:
    try:
        with progress.stage(f"load {name} into {engine.name}", os.path.getsize(archive)) as current:
            engine.load(current.counted(verified_chunks(archive)))
    except AikitError:
        # Docker's containerd store keeps the tag of an image whose load failed
        half = present_image(engine, name, *ids)
        if half is not None:
            engine.remove_image(half.id)
        raise
    return _named(engine, name, ids, archive)


def _named(engine: Engine, name: str, ids: list[str], origin: str) -> ImageState:
    """The image that came from ``origin``, under its name."""
    found = present_image(engine, name, *ids)
    if found is None:
        raise AikitError(f"{origin} was loaded, but {engine.name} does not list {ids[0]}.", "It holds another image; build it again.")
    named = engine.image(name)
    if named is None or named.id != found.id:
        # The archive was written under another name, and what was pulled by digest has none
        engine.tag(found.id, name)
    return found


def load_needs(engine: Engine, name: str, size_bytes: int) -> list[files.Need]:
    """The disk space that a load of so many bytes takes, where the engine's folders can be seen from here."""
    return [files.Need(room.path, room.copies * size_bytes, f"loading {name} into {engine.name}") for room in engine.rooms()]


def verified_chunks(path: str) -> Iterator[bytes]:
    """The bytes of an image archive, every blob checked against the digest in its name while it passes."""
    blobs = []
    try:
        with tarfile.open(path, "r:") as reader:
            for member in reader:
                if member.isfile() and member.name.startswith("blobs/sha256/"):
                    blobs.append((member.offset_data, member.size, os.path.basename(member.name)))
    except tarfile.TarError as exc:
        raise AikitError(f"{path} is no image archive: {exc}.", "Transfer it again.") from exc
    if not blobs:
        raise AikitError(f"{path} holds no image.", "Transfer it again.")
    with open(path, "rb", buffering=0) as handle:
        for start, size, digest in blobs:
            yield from _span(handle, start - handle.tell())
            found = hashlib.sha256()
            for chunk in _span(handle, size):
                found.update(chunk)
                yield chunk
            if found.hexdigest() != digest:
                raise AikitError(f"{path}: blob {digest} has sha256 {found.hexdigest()}.", "The transfer was damaged; run again.")
        yield from iter(lambda: handle.read(CHUNK_BYTES), b"")


def _span(handle: Any, length: int) -> Iterator[bytes]:
    while length > 0:
        chunk = handle.read(min(CHUNK_BYTES, length))
        if not chunk:
            raise AikitError(f"{handle.name} ends too early.", "The transfer was cut; run again.")
        length -= len(chunk)
        yield chunk
