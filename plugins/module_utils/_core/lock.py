# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock file: what the names in a build stood for, so that a build from it gives the same image again.

It is JSON, sorted and one value a line, so that a difference between two of them can be read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from .base import Base
from .errors import AikitError, Finding
from .image import ModelFile
from .image_base import ImageBase

SCHEMA = 1
UPDATE = "Set lock_update: true to take what is there now, or bring back what the lock file names."


@dataclass(frozen=True)
class Lock:
    """A lock file that was read; empty where there is none yet."""

    document: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    @property
    def exists(self) -> bool:
        return bool(self.document)

    def base(self, platform: str, source: str) -> str:
        """The digest of the base of a platform, where it was asked for under the same name."""
        for key, entry in _mapping(self.document.get("base")).items():
            # Without platforms, a base has that of its own
            if (not platform or key == platform) and _mapping(entry).get("source") == source:
                return str(_mapping(entry).get("digest") or "")
        return ""

    def image(self, ref: str) -> str:
        """The digest of another image that a build takes something from."""
        return str(_mapping(self.document.get("images")).get(ref) or "")

    def model(self, name: str, source: str) -> str:
        """The sha256 of a model, where its source is one file."""
        found = [entry for entry in self.models() if entry.get("name") == name and entry.get("source") == source]
        return str(found[0].get("sha256") or "") if len(found) == 1 else ""

    def has(self, name: str, source: str, sha256: str) -> bool:
        """Whether one of the files of a model is this one: with what an image has beside it, it is not the only one."""
        return any((entry.get("name"), entry.get("source"), entry.get("sha256")) == (name, source, sha256) for entry in self.models())

    def revision(self, name: str, source: str) -> str:
        """The commit or the manifest that the source of a model stood for."""
        found = [str(entry.get("revision") or "") for entry in self.models() if entry.get("name") == name and entry.get("source") == source]
        return found[0] if found else ""

    def models(self) -> list[Mapping[str, Any]]:
        entries = self.document.get("models")
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def parse(raw: bytes, path: str) -> Lock:
    """Read a lock file."""
    hint = "Remove the file to lock anew, or bring back an earlier version of it."
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise AikitError(f"lock: {path} is no JSON: {exc}.", hint) from None
    if not isinstance(document, dict) or "schema" not in document:
        raise AikitError(f"lock: {path} is no lock file.", hint)
    if document["schema"] != SCHEMA:
        raise AikitError(f"lock: {path} has schema {document['schema']!r}, and {SCHEMA} is known.", "Use the version of aikit.fleet that wrote it. " + hint)
    return Lock(document, path)


def base_entry(source: str, base: Any, resolved: str) -> dict[str, Any]:
    """What is locked of a base: ``source`` is what the user wrote, ``resolved`` what it stood for."""
    entry: dict[str, Any] = {"source": source, "digest": resolved}
    if isinstance(base, ImageBase):
        entry.update(ref=base.ref, manifest=base.digest)
    elif isinstance(base, Base):
        entry["packages"] = {str(package.get("name")): str(package.get("version")) for package in base.packages}
    return entry


def model_entries(models: Iterable[ModelFile], sources: Mapping[str, str], revisions: Mapping[str, str]) -> list[dict[str, Any]]:
    """What is locked of the files of the models; ``sources`` has the source of each model by its name, ``revisions`` what a branch or a tag in it meant."""
    return [
        {
            "name": model.name,
            "source": sources.get(model.name, ""),
            "file": model.image_path,
            "sha256": model.sha256,
            "size_bytes": model.size_bytes,
            **({"revision": revisions[model.name]} if revisions.get(model.name) else {}),
        }
        for model in models
    ]


def document(
    name: str,
    digest: str,
    aikitfile_sha256: str,
    bases: Mapping[str, Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    images: Optional[Mapping[str, str]] = None,
) -> dict[str, Any]:
    """The content of a lock file. ``images`` maps further names to digests."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name,
        "digest": digest,
        "aikitfile_sha256": aikitfile_sha256,
        "base": {platform: dict(entry) for platform, entry in bases.items()},
        "models": [dict(entry) for entry in models],
    }
    if images:
        found["images"] = dict(images)
    return found


def render(content: Mapping[str, Any]) -> bytes:
    """The bytes of a lock file."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def conflicts(lock: Lock, wanted: Mapping[str, Any]) -> list[str]:
    """What is asked for as before and is something else now: the lock file and the inputs do not fit together."""
    found = []
    for platform, entry in _mapping(wanted.get("base")).items():
        old = _mapping(_mapping(lock.document.get("base")).get(platform))
        if old.get("source") == entry["source"] and old.get("digest") and old["digest"] != entry["digest"]:
            found.append(f"base of {platform}: {entry['source']} is {entry['digest']}, locked is {old['digest']}{_packages(old, entry)}")
    before = {(entry.get("name"), entry.get("source"), entry.get("file")): entry for entry in lock.models()}
    for entry in wanted["models"]:
        known = before.get((entry["name"], entry["source"], entry["file"]))
        if known is not None and known.get("sha256") != entry["sha256"]:
            found.append(f"models: {entry['name']}: {entry['source']} has sha256 {entry['sha256']}, locked is {known.get('sha256')}")
    for ref, digest in _mapping(wanted.get("images")).items():
        if lock.image(ref) and lock.image(ref) != digest:
            found.append(f"images: {ref} is {digest}, locked is {lock.image(ref)}")
    return found


def check(lock: Lock, wanted: Mapping[str, Any], update: bool) -> tuple[Finding, ...]:
    """Refuse conflicts unless the lock may be updated; remarks on entries that nobody asks for any more."""
    if not lock.exists:
        return ()
    found = conflicts(lock, wanted)
    if found and not update:
        raise AikitError(f"lock: {lock.path} does not fit what is there now: " + "; ".join(found) + ".", UPDATE)
    stale = []
    for platform, entry in _mapping(lock.document.get("base")).items():
        now = _mapping(wanted.get("base")).get(platform)
        old = _mapping(entry).get("source", "")
        if now is None:
            stale.append(f"base of {platform} ({old}) is not used any more")
        elif now["source"] != old:
            stale.append(f"base of {platform} was {old} and is {now['source']} now")
    have = {(entry["name"], entry["source"], entry["file"]) for entry in wanted["models"]}
    stale += [
        f"model {entry.get('name')} ({entry.get('source')}, {entry.get('file')}) is not used any more"
        for entry in lock.models()
        if (entry.get("name"), entry.get("source"), entry.get("file")) not in have
    ]
    now_images = _mapping(wanted.get("images"))
    stale += [f"image {ref} is not used any more" for ref in _mapping(lock.document.get("images")) if ref not in now_images]
    return tuple(Finding("warning", "lock", 0, text, f"{lock.path} is brought up to date") for text in (*found, *stale))


def _packages(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Which packages of a base are others now."""
    before, after = _mapping(old.get("packages")), _mapping(new.get("packages"))
    changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    shown = ", ".join(f"{name} {before.get(name, '(none)')} → {after.get(name, '(none)')}" for name in changed[:5])
    return f" ({shown}{' …' if len(changed) > 5 else ''})" if before and changed else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
