# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_nvidia, version


@pytest.mark.parametrize(
    "text, numbers, upstream",
    [
        ("580.159.03", (580, 159, 3), "580.159.03"),
        ("3:580.159.03-1.el9", (580, 159, 3), "580.159.03"),
        ("580.159.03-0ubuntu1", (580, 159, 3), "580.159.03"),
        ("v1.19.1", (1, 19, 1), "1.19.1"),
        ("26.1.5+dfsg1", (26, 1, 5), "26.1.5"),
        (" 1.20.0~rc.1-1\n", (1, 20, 0), "1.20.0"),
        ("610", (610,), "610"),
        ("", (), ""),
        ("unknown", (), ""),
        ("[N/A]", (), ""),
    ],
)
def test_what_counts_as_the_version(text, numbers, upstream):
    assert version.numbers(text) == numbers
    assert version.upstream(text) == upstream


@pytest.mark.parametrize(
    "found, floor, answer",
    [
        ("580.159.03", "580.159.03", True),
        ("580.95.05", "580.159.03", False),  # as text, 95 is more than 159
        ("580.159.3", "580.159.03", True),
        ("1.9.0", "1.19.1", False),
        ("1.20", "1.19.1", True),
        ("1.19", "1.19.0", True),
        ("1.19", "1.19.1", False),
        ("3:595.91.07-1", "595.71.05", True),
        ("", "1.19.1", None),
    ],
)
def test_at_least(found, floor, answer):
    assert version.at_least(found, floor) is answer


def test_the_floors_are_versions_of_their_branches():
    for branch, floor in data_nvidia.DRIVER_FLOORS.items():
        assert version.numbers(floor)[0] == branch
    for steps in data_nvidia.CDI_READABLE.values():
        firsts = [version.numbers(first) for first, _spec in steps]
        assert firsts == sorted(firsts)
