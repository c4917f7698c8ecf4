# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read files below a folder that stands for the root of the file system: links in it lead to places in it, as they would after chroot."""

from __future__ import annotations

import os
import stat
from typing import Optional

MOST_BYTES = 8 * 1024 * 1024
MOST_LINKS = 40


class Tree:
    """What cannot be read, for whatever reason, is empty: a fact less, not an error."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.real = self.root == "/"

    def path(self, name: str) -> str:
        """Where ``name`` is, without following links."""
        return os.path.join(self.root, name.lstrip("/"))

    def resolve(self, name: str) -> Optional[str]:
        """Where ``name`` is after all links; None for a link that leads in circles."""
        if self.real:
            return os.path.realpath(os.path.join("/", name))
        todo = name.strip("/").split("/")[::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            here = os.path.join(self.root, *done, part)
            try:
                target = os.readlink(here)
            except OSError:
                done.append(part)
                continue
            links += 1
            if links > MOST_LINKS:
                return None
            if target.startswith("/"):
                done = []
            todo += target.strip("/").split("/")[::-1]
        return os.path.join(self.root, *done)

    def names(self, name: str) -> list[str]:
        """What is in a folder, sorted."""
        path = self.resolve(name)
        try:
            return sorted(os.listdir(path)) if path else []
        except OSError:
            return []

    def exists(self, name: str) -> bool:
        path = self.resolve(name)
        return path is not None and os.path.exists(path)

    def is_folder(self, name: str) -> bool:
        path = self.resolve(name)
        return path is not None and os.path.isdir(path)

    def is_file(self, name: str) -> bool:
        path = self.resolve(name)
        return path is not None and os.path.isfile(path)

    def data(self, name: str, most: int = MOST_BYTES) -> Optional[bytes]:
        """The first bytes of a file; None where there is none to read. Pipes and devices are not read: they may never end."""
        path = self.resolve(name)
        if path is None:
            return None
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return None
            with open(path, "rb") as handle:
                return handle.read(most)
        except OSError:
            return None

    def text(self, name: str, most: int = MOST_BYTES) -> str:
        return (self.data(name, most) or b"").decode("utf-8", "replace")

    def modified(self, name: str) -> Optional[float]:
        """When a file was last written; None where there is none."""
        path = self.resolve(name)
        try:
            return os.stat(path).st_mtime if path else None
        except OSError:
            return None

    def link(self, name: str) -> str:
        """The last part of what a link points to; empty for what is no link."""
        folder = self.resolve(os.path.dirname(name))
        try:
            return os.path.basename(os.readlink(os.path.join(folder, os.path.basename(name)))) if folder else ""
        except OSError:
            return ""

    def targets(self, name: str) -> list[str]:
        """What the links in a folder point to, as they have it."""
        path = self.resolve(name)
        found: list[str] = []
        try:
            entries = os.listdir(path) if path else []
        except OSError:
            return found
        for entry in entries:
            try:
                found.append(os.readlink(f"{path}/{entry}"))
            except OSError:
                # No link, or gone meanwhile: processes close files
                continue
        return found

    def executable(self, name: str) -> bool:
        path = self.path(name)
        return os.path.isfile(path) and os.access(path, os.X_OK)
