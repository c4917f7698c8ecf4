# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs of registries that were fetched, under their digests: what is there is whole, and need not be fetched again."""

from __future__ import annotations

import os
from typing import Optional

from .._core.oci import Descriptor
from .registry import Progress, Registry

DEFAULT_PATH = "~/.cache/aikit-fleet/blobs"


class BlobStore:
    """A folder of blobs. Any number of processes may use one."""

    def __init__(self, path: str = DEFAULT_PATH) -> None:
        self.root = os.path.abspath(os.path.expanduser(path))

    def path(self, digest: str) -> str:
        """Where a blob is, or will be."""
        algorithm, dummy, value = digest.partition(":")
        return os.path.join(self.root, algorithm, value)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here. Only whole ones get their name, so their size tells."""
        try:
            return os.path.getsize(self.path(descriptor.digest)) == descriptor.size
        except OSError:
            return False

    def ensure(self, registry: Registry, repository: str, descriptor: Descriptor, progress: Optional[Progress] = None) -> str:
        """The path of a blob, which is fetched where it is not here yet."""
        path = self.path(descriptor.digest)
        if not self.has(descriptor):
            registry.fetch_blob(repository, descriptor, path, progress)
        return path
