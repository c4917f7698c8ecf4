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
    assert set(RECORDINGS) == {"llama_cpp-0.5.0", NEWEST, "llama_cpp-b6431", "llama_cpp-b8179", "llama_cpp-b10068"}
    assert len({pair.architecture for pair in PAIRS[NEWEST]}) >= 40
    assert sum(map(len, RECORDINGS[NEWEST]["observations"].values())) >= 900
    # An old build knows neither every architecture nor every way to write one
    unknown = {name: len(recorded["unknown"]) for name, recorded in RECORDINGS.items()}
    assert unknown == {"llama_cpp-0.5.0": 0, NEWEST: 0, "llama_cpp-b6431": 10, "llama_cpp-b8179": 6, "llama_cpp-b10068": 0}


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


@pytest.mark.parametrize(
    ("name", "part", "whole"),
    [
        ("llama_cpp-0.5.0", 0.91, 0.97),
        (NEWEST, 0.92, 0.97),
        ("llama_cpp-b6431", 0.91, 0.95),
        ("llama_cpp-b8179", 0.94, 0.97),
        ("llama_cpp-b10068", 0.92, 0.97),
    ],
)
def test_totals(name: str, part: float, whole: float) -> None:
    """All buffers of a GPU together: within 5 %, and never so far below that the margin would be gone."""
    totals = list(compare.totals(iter(PAIRS[name])))
    near = [abs(ours / real - 1) <= 0.05 for _pair, ours, real in totals]
    assert sum(near) >= part * len(near)
    # With few or no layers on the GPU a total is little more than the compute buffer
    near = [abs(ours / real - 1) <= 0.05 for pair, ours, real in totals if "gpu_layers" not in pair.config]
    assert sum(near) >= whole * len(near)
    under = [f"{pair.model} {pair.config} {pair.device}: {ours:.0f} {real:.0f}" for pair, ours, real in totals if real - ours > Policy().margin_mib / 2]
    assert under == []


COMBINED = {name: list(compare.pairs(recorded)) for name, recorded in compare.recordings(compare.COMBINED)}


@pytest.mark.parametrize("name", sorted(COMBINED))
def test_settings_together(name: str) -> None:
    """Every two values of two settings meet, also where no plan would have them. Caches and weights are exact; totals do not fall far below."""
    wrong = []
    for pair in COMBINED[name]:
        allowed = 0.011 + (pair.real / 1000 if pair.kind == "weights" else 0)
        if pair.kind == "compute" or (pair.kind == "weights" and pair.device == "CPU" and name != NEWEST):
            continue
        if abs(pair.ours - pair.real) > allowed * (3 if pair.kind == "state" else 1):
            wrong.append(f"{pair.model} {pair.config} {pair.device} {pair.kind}: {pair.ours:.2f} {pair.real:.2f}")
    assert wrong == []
    totals = list(compare.totals(iter(COMBINED[name])))
    assert len(totals) > 900
    low = {(pair.model, pair.config.get("gpu_layers", 999)) for pair, ours, real in totals if real - ours > Policy().margin_mib / 2}
    # A build's own way with several slots and a part of one model's layers; and large batches without any layer on the GPU
    assert low <= {("Kimi Linear 48B A3B", layers) for layers in (0, 6, 18, 27)} | {("Command R 7B", 0)}
    # What a plan has: all layers or some, the cache where its layers are, flash attention where it works
    plain = [abs(ours / real - 1) <= 0.05 for pair, ours, real in totals if _plain(pair)]
    assert len(plain) > 100 and sum(plain) >= (0.85 if name == NEWEST else 0.79) * len(plain)


def _plain(pair: compare.Pair) -> bool:
    config = pair.config
    works = fit_memory.flash_works(shape(pair.model))
    return not config.get("kv_on_host") and config.get("gpu_layers", 999) > 0 and bool(config.get("flash", True)) == works


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
                if (recorded["server"], name) == ("llama_cpp b10068", "Gemma 3n E4B"):
                    # A fault of that build: it stops where only a part of this model's layers is on the GPU
                    assert 0 < config["gpu_layers"] < 36
                    continue
                assert not fit_memory.quantisable(shape(name), config.get("type_k", "f16"), config.get("type_v", "f16")), (name, config)


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
    errors = [(point.name, point.config, point.ours_mib / point.real_mib - 1) for point in complete]
    assert len(errors) >= 28
    assert all(abs(error) <= 0.05 for _name, _config, error in errors), errors


def test_measured_compute_buffers() -> None:
    """Weights make a total look better than it is: the compute buffer alone, of mainline builds. None is far too low."""
    found = [point for point in POINTS if point.real_compute_mib and point.real_mib and point.comparable and "ik_llama" not in point.engine]
    off = sorted(point.ours_compute_mib - point.real_compute_mib for point in found)
    assert len(off) >= 25 and off[0] > -32
    # (no number is exact where the log has none of the tensors: what comes over from the host is as large as an expert of an assumed type)
    near = [abs(point.ours_compute_mib - point.real_compute_mib) <= max(32, 0.05 * point.real_compute_mib) for point in found]
    assert sum(near) >= 0.9 * len(near), off


def test_what_processes_took_beside_their_buffers() -> None:
    rows = measured.outside()
    assert len(rows) >= 10
    far = {row["card"] for row, ours in rows if max(row["seen_mib"]) > 1.2 * ours}
    # A fork that converts outside of its buffers, and two loads with much work in the driver's pools
    assert far == {"GeForce RTX 3080 (20 GB)", "Radeon Pro W7900", "Instinct MI210"}


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
