# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Iterator

import pytest
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer


@pytest.fixture
def model_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server on loopback, without pages."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = ModelServer()
    yield made
    made.close()


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback, without repositories."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = HubServer()
    yield made
    made.close()
