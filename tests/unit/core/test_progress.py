# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rates, what is left, and the line that people see."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import progress
from ansible_collections.aikit.fleet.plugins.module_utils._core.progress import Stage, begin, line, measure

GB = 10**9


def measured(points, start=(0.0, 0)):
    rate = begin(*start)
    for now, done in points:
        rate = measure(rate, now, done)
    return rate


@pytest.mark.parametrize(
    "points, start, expected",
    [
        pytest.param([], (0.0, 0), 0, id="nothing yet"),
        pytest.param([(1.0, 100)], (0.0, 0), 100, id="one look is the average"),
        pytest.param([(second / 4, second * 25) for second in range(1, 200)], (0.0, 0), 100, id="steady"),
        pytest.param([(1.0, 100), (2.0, 100)], (0.0, 0), 50, id="the average at first"),
        pytest.param([(1.0, 150)], (0.0, 100), 50, id="what was there before is no speed"),
        pytest.param([(1.0, 100), (1.0, 200)], (0.0, 0), 100, id="a clock that stands still measures nothing"),
        pytest.param([(10.0, 100), (5.0, 200)], (0.0, 0), 10, id="nor one that goes back"),
        pytest.param([(10.0, 100), (5.0, 200), (6.0, 210)], (0.0, 0), 10, id="and it goes on from there"),
        pytest.param([(1.0, 0)], (0.0, 0), 0, id="no bytes"),
        pytest.param([(1.0, 100), (2.0, 10), (3.0, 20)], (0.0, 0), 10, id="from the start again"),
    ],
)
def test_the_rate(points, start, expected):
    assert measured(points, start).per_second == pytest.approx(expected)


def test_the_rate_forgets():
    fast = [(second, second * 100) for second in range(1, 61)]
    slow = [(60 + second, 6000 + second) for second in range(1, 31)]
    after = [measured(fast + slow[:count]).per_second for count in (0, 1, 5, 30)]
    assert after[0] == pytest.approx(100)
    assert 75 < after[1] < 90 and 30 < after[2] < 45 and after[3] < 2
    assert after == sorted(after, reverse=True)


def test_a_stall_never_divides_by_zero():
    assert measured([(1.0, 100)] + [(second, 100) for second in range(2, 600)]).per_second == pytest.approx(0, abs=1e-6)
    assert progress.left_seconds(100, 200, 0.0) is None


@pytest.mark.parametrize(
    "done, total, rate, expected",
    [(0, None, 10, None), (0, 100, 0, None), (0, 100, 10, 10), (50, 100, 10, 5), (100, 100, 0, 0), (120, 100, 10, 0), (0, 0, 0, 0)],
)
def test_what_is_left(done, total, rate, expected):
    assert progress.left_seconds(done, total, rate) == expected


@pytest.mark.parametrize(
    "count, unit, expected",
    [
        (0, "bytes", "0 B"),
        (1, "bytes", "1 B"),
        (999, "bytes", "999 B"),
        (999.7, "bytes", "1.0 kB"),
        (1000, "bytes", "1.0 kB"),
        (99_949, "bytes", "99.9 kB"),
        (123_456, "bytes", "123 kB"),
        (999_949_999, "bytes", "1000 MB"),
        (999_950_000, "bytes", "1.0 GB"),
        (2_020_000_000, "bytes", "2.0 GB"),
        (40 * GB, "bytes", "40.0 GB"),
        (5000 * 1000 * GB, "bytes", "5000 TB"),
        (7, "steps", "7 steps"),
    ],
)
def test_amounts(count, unit, expected):
    assert progress.amount(count, unit) == expected


@pytest.mark.parametrize(
    "seconds, expected",
    [(-5, "0:00"), (0, "0:00"), (0.4, "0:00"), (7.6, "0:08"), (59.6, "1:00"), (725, "12:05")]
    + [(3600, "1:00:00"), (172_799, "47:59:59"), (172_800, "2 days"), (10**6, "11 days")],
)
def test_durations(seconds, expected):
    assert progress.duration(seconds) == expected


HALF = Stage("push gemma", GB, 2 * GB, "bytes", 4.0, 250e6)


@pytest.mark.parametrize(
    "stages, width, prefix, expected",
    [
        pytest.param([], 80, "", "", id="nothing goes on"),
        pytest.param([HALF], 0, "", "", id="no terminal"),
        pytest.param([HALF], 100, "h1", "h1: push gemma  [##########----------]  1.0 of 2.0 GB   50 %  250 MB/s  0:04 left", id="everything"),
        pytest.param([HALF], 70, "h1", "h1: push gemma  1.0 of 2.0 GB   50 %  250 MB/s  0:04 left", id="no bar"),
        pytest.param([HALF], 51, "h1", "h1: push gemma  1.0 of 2.0 GB   50 %  0:04 left", id="no rate"),
        pytest.param([HALF], 35, "h1", "h1: push gemma   50 %  0:04 left", id="no amounts"),
        pytest.param([HALF], 24, "h1", "h1: push gemma   50 %", id="no time"),
        pytest.param([HALF], 17, "h1", "h1: pus...   50 %", id="a shorter name"),
        pytest.param([HALF], 3, "h1", "h1:", id="almost nothing"),
        pytest.param([Stage("push", 5_000_000, 2 * GB, "bytes", 1.0, 5e6)], 60, "", "push  5.0 MB of 2.0 GB    0 %  5.0 MB/s  6:39 left", id="two units"),
        pytest.param([Stage("download m", 5_000_000, None, "bytes", 12.0, 1e6)], 80, "", "download m  5.0 MB  1.0 MB/s  0:12", id="unknown total"),
        pytest.param([Stage("download m", 0, None, "bytes", 12.0)], 80, "", "download m  0:12", id="nothing came yet"),
        pytest.param([Stage("unpack", 0, 0, "bytes", 1.0)], 80, "", "unpack  0:01", id="zero bytes"),
        pytest.param([Stage("load", GB, GB, "bytes", 3.0, 5.0)], 60, "", "load  1.0 of 1.0 GB  100 %  5 B/s  0:03", id="the engine is still at it"),
        pytest.param([Stage("load", 2 * GB, GB, "bytes", 3.0, 0.0)], 50, "", "load  2.0 of 1.0 GB  100 %  0:03", id="more than announced"),
        pytest.param([Stage("build", 3, 12, "steps", 9.0, 0.3)], 60, "", "build  3 of 12 steps   25 %  0:30 left", id="steps"),
        pytest.param(
            [Stage("push a", 1, GB, "bytes", 1.0, 1e9), HALF, Stage("push c", 0, None)], 80, "",
            "push gemma (+2 more)  1.0 of 2.0 GB   50 %  250 MB/s  0:04 left",
            id="several at once",
        ),
    ],
)  # fmt: skip
def test_the_line(stages, width, prefix, expected):
    found = line(stages, width, prefix)
    assert found == expected
    assert progress.columns(found) <= width


@pytest.mark.parametrize("width", range(1, 140))
@pytest.mark.parametrize("name", ["a", "push " + "x" * 300, "下載模型" * 20, "e\u0301" * 50])
def test_a_line_never_wraps(width, name):
    for stages in ([Stage(name, GB, 2 * GB, "bytes", 4.0, 250e6)], [Stage(name, 3, None, "steps", 1e7), HALF]):
        assert progress.columns(line(stages, width, "builder.example.com")) <= width


def test_colour_changes_the_bar_alone():
    plain, coloured = line([HALF], 100, "h1"), line([HALF], 100, "h1", colour=True)
    assert "\x1b" not in plain and "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == plain


def test_the_document_is_read_back():
    stages = (HALF, Stage("build", 3, None, "steps", 9.0, 0.3))
    found = json.loads(json.dumps(progress.document("aikit_image", 7, 1767225600.04, stages)))
    assert found["updated"] == 1767225600.0 and found["work"] == "aikit_image" and found["pid"] == 7
    assert found["stages"][0] == {
        "name": "push gemma", "done": GB, "total": 2 * GB, "unit": "bytes", "elapsed_seconds": 4.0, "per_second": 250e6, "left_seconds": 4.0,
    }  # fmt: skip
    assert found["stages"][1]["left_seconds"] is None
    assert progress.parse(found) == stages


@pytest.mark.parametrize(
    "found",
    [None, [], "x", {}, {"version": 2, "stages": []}, {"version": 1}, {"version": 1, "stages": "x"}, {"version": 1, "stages": [None, 3, {}, {"done": "7"}]}]
    + [{"version": 1, "stages": [{"name": "x", "done": bad}]} for bad in (-1, True, 1.5, 2**63, None)],
)
def test_what_is_no_status_says_nothing(found):
    assert progress.parse(found) == ()


def test_a_status_from_elsewhere_cannot_drive_the_terminal():
    entry = {"name": "\x1b]0;title\x07\r\nowned\x9b2J", "done": 1, "total": True, "unit": "\x1b[31m", "elapsed_seconds": "x", "per_second": float("nan")}
    (stage,) = progress.parse({"version": 1, "stages": [entry]})
    assert stage == Stage("?]0;title???owned?2J", 1, None, "?[31m", 0.0, 0.0)
    assert line([stage]).isprintable()
    assert len(progress.parse({"version": 1, "stages": [{"name": "x" * 10**6, "done": 1}] * 1000})) == progress.MAX_STAGES
