# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A short run of the fuzzer (`make test-fuzz` is the long one), and whether the fuzzer would notice anything."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.aikit.fleet.plugins.module_utils._core import gguf
from ansible_collections.aikit.fleet.tests.fuzz import fuzz_gguf


def test_every_file_of_the_corpus_is_whole() -> None:
    for data in fuzz_gguf.CORPUS:
        assert fuzz_gguf.judge(data, len(data)) is not None


def test_a_short_run() -> None:
    found = fuzz_gguf.batch((20261125, 0, 1500))
    assert found.failures == []
    assert 150 < found.accepted < 1350, "neither all refused nor all taken, else the damage is of the wrong kind"


def test_an_input_is_made_again_from_its_number() -> None:
    assert fuzz_gguf.damaged(1, 77) == fuzz_gguf.damaged(1, 77) != fuzz_gguf.damaged(2, 77)
    assert len({fuzz_gguf.damaged(1, number)[0] for number in range(300)}) > 250


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("_check_data", lambda *dummy: 1 / 0),
        ("_shown", lambda text: text + "\x1b[31m"),
    ],
)
def test_it_would_notice(monkeypatch: pytest.MonkeyPatch, name: str, bad: Any) -> None:
    monkeypatch.setattr(gguf, name, bad)
    assert fuzz_gguf.batch((1, 0, 60)).failures
