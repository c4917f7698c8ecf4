# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make this checkout importable as ansible_collections.aikit.fleet, with and without Ansible installed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _collections_path() -> Path:
    """A folder that holds ansible_collections/aikit/fleet as a link to this checkout."""
    base = Path(tempfile.mkdtemp(prefix="aikit-fleet-tests-"))
    namespace = base / "ansible_collections" / "aikit"
    namespace.mkdir(parents=True)
    (namespace / "fleet").symlink_to(ROOT, target_is_directory=True)
    return base


def _make_importable() -> None:
    path = _collections_path()
    try:
        from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
    except ImportError:  # the version matrix tests _core on Pythons that have no Ansible
        sys.path.insert(0, str(path))
    else:
        _AnsibleCollectionFinder(paths=[str(path)])._install()


# On import, not in a hook: conftest files further down import the collection before any hook runs
_make_importable()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Captured and made test data."""
    return ROOT / "tests" / "fixtures"
