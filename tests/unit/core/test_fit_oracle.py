# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every buffer as llama.cpp printed it (recorded by tests/oracle), and loads that people measured."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from ansible_collections.aikit.fleet.plugins.module_utils._core import data_arch, fit_memory
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit import Policy
from ansible_collections.aikit.fleet.tests.oracle import compare, decisions, measured
from ansible_collections.aikit.fleet.tests.unit.shapes import SHAPES, shape

RECORDINGS = dict(compare.recordings())
NEWEST = "llama_cpp-0.7.0"
PAIRS = {name: tuple(compare.pairs(recorded)) for name, recorded in RECORDINGS.items()}


def test_there_is_enough_to_compare() -> None:
    assert set(RECORDINGS) == {"llama_cpp-0.5.0", NEWEST, "llama_cpp-b8179"}
    assert len({pair.architecture for pair in PAIRS[NEWEST]}) >= 40
    assert sum(map(len, RECORDINGS[NEWEST]["observations"].values())) >= 900
    # An old build knows neither every architecture nor every way to write one
    assert {name: len(recorded["unknown"]) for name, recorded in RECORDINGS.items()} == {"llama_cpp-0.5.0": 0, NEWEST: 0, "llama_cpp-b8179": 6}


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_weights_cache_and_states(name: str) -> None:
    """Weights within 0.1 %; caches, states and where everything lies to the last digit that is printed."""
    wrong = []
    for pair in PAIRS[name]:
        if pair.kind == "compute" or (pair.kind == "weights" and pair.device == "CPU" and name != NEWEST):
            # Older builds print the part of the file that is mapped, whatever of it is used
            continue
        allowed = 0.011 + (pair.real / 1000 if pair.kind == "weights" else 0)
        if abs(pair.ours - pair.real) > allowed * (3 if pair.kind == "state" else 1):
            wrong.append(f"{pair.model} {pair.config} {pair.device} {pair.kind}: {pair.ours:.2f} {pair.real:.2f}")
    assert wrong == []


@pytest.mark.parametrize(("name", "part"), [("llama_cpp-0.5.0", 0.91), (NEWEST, 0.92), ("llama_cpp-b8179", 0.95)])
def test_totals(name: str, part: float) -> None:
    """All buffers of a GPU together: within 5 %, and never so far below that the margin would be gone."""
    totals = list(compare.totals(iter(PAIRS[name])))
    near = [abs(ours / real - 1) <= 0.05 for _pair, ours, real in totals]
    assert sum(near) >= part * len(near)
    # With few or no layers on the GPU a total is little more than the compute buffer
    near = [abs(ours / real - 1) <= 0.05 for pair, ours, real in totals if "gpu_layers" not in pair.config]
    assert sum(near) >= 0.97 * len(near)
    under = [f"{pair.model} {pair.config} {pair.device}: {ours:.0f} {real:.0f}" for pair, ours, real in totals if real - ours > Policy().margin_mib / 2]
    assert under == []


def test_whole_models_on_one_gpu() -> None:
    """What nearly everybody runs: within 2 %, for every architecture that is called exact."""
    far = []
    for pair, ours, real in compare.totals(iter(PAIRS[NEWEST])):
        if set(pair.config) <= {"context", "parallel", "unified", "embeddings"} and pair.architecture in data_arch.VERIFIED and abs(ours / real - 1) > 0.02:
            far.append(f"{pair.model} {pair.config}: {ours:.0f} {real:.0f}")
    assert far == []


def test_what_the_server_refuses_is_not_planned() -> None:
    for recorded in RECORDINGS.values():
        for name, rows in recorded["refused"].items():
            for config, _error in rows:
                assert not fit_memory.quantisable(shape(name), config["type_k"], config["type_v"])


def test_half_of_the_architectures_says_nothing_about_the_other() -> None:
    """The formulas have few constants. Whole models of two halves of the architectures are equally near."""
    errors: dict[bool, list[float]] = defaultdict(list)
    names = sorted({entry["metadata"]["general.architecture"] for entry in SHAPES.values()})
    for pair, ours, real in compare.totals(iter(PAIRS[NEWEST])):
        if not pair.config:
            errors[names.index(pair.architecture) % 2 == 0].append(abs(ours / real - 1))
    for half in errors.values():
        assert len(half) >= 12 and sorted(half)[len(half) // 2] < 0.005 and sorted(half)[int(len(half) * 0.95)] < 0.05


POINTS = measured.points()


def test_measured_caches() -> None:
    checked = 0
    for point in POINTS:
        if point.real_kv_mib and point.comparable:
            assert point.ours_kv_mib == pytest.approx(point.real_kv_mib, rel=0.001), point.name
            checked += 1
    assert checked >= 10


def test_measured_totals() -> None:
    """Loads on real cards, single GPU, no experts moved by hand: within 5 %."""
    complete = [point for point in POINTS if point.real_mib and point.comparable]
    errors = {point.name: point.ours_mib / point.real_mib - 1 for point in complete}
    assert len(errors) >= 6
    assert all(abs(error) <= 0.05 for error in errors.values()), errors


def test_decisions() -> None:
    rows = json.loads(decisions.ALONE.read_text(encoding="utf-8"))
    assert len(rows) >= 28
    for row in rows:
        # It loads, and the margin is still there but for what a formula may be off
        assert row["real_mib"] <= row["total_mib"], row
        chosen = decisions.decide(row["model"], row["total_mib"])
        assert (chosen.settings["gpu_layers"], chosen.settings["n_cpu_moe"]) == (row["gpu_layers"], row["n_cpu_moe"]), row
    taken, best = sum(row["weights_mib"] for row in rows), sum(row["best_weights_mib"] for row in rows)
    assert taken >= 0.95 * best


@pytest.mark.parametrize(("path", "least"), [(decisions.DIVISIONS, 16), (decisions.SHARED, 8)], ids=["two GPUs", "two services"])
def test_decisions_about_several(path: Path, least: int) -> None:
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert len(rows) >= least
    for row in rows:
        assert all(real <= total for real, total in zip(row["real_mib"], row["totals_mib"])), row
        chosen = decisions.decide_together(row["models"], row["totals_mib"])
        assert [decisions.chosen_settings(found) for found in chosen] == row["chosen"], row
    taken, best = sum(row["weights_mib"] for row in rows), sum(row["best_weights_mib"] for row in rows)
    assert taken >= 0.95 * best
