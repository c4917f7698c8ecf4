# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan beside the buffers of a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import planned
from ansible_collections.aikit.fleet.plugins.module_utils._core.offload import evidence

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "logs"
SHARE = {"device": "GPU 0", "index": 0, "weights_mib": 1000.0, "kv_mib": 200.0, "state_mib": 0.0, "compute_mib": 100.0, "context_mib": 330.0}


def buffers(weights=1000.0, kv=200.0, compute=100.0, name="CUDA0", place="gpu"):
    sizes = (("model", weights), ("kv", kv), ("compute", compute))
    return [{"name": name, "kind": kind, "size_mib": size, "place": place} for kind, size in sizes]


def test_what_a_real_log_shows():
    # Captured: 65.16 MiB of weights, KV caches of 12 and 37.5 MiB, 23.52 MiB for computing
    found = evidence((LOGS / "captured/vulkan-full.log").read_text()).as_dict()
    share = {**SHARE, "weights_mib": 65.16, "kv_mib": 49.5, "compute_mib": 23.52}
    (row,) = planned.compare({"breakdown": [share, {"device": "CPU", "index": None, "weights_mib": 170.0}]}, found["buffers"])
    assert row["device"] == "Vulkan0" and {row[part]["percent"] for part in ("weights", "kv", "compute", "total")} == {0.0}
    assert row["total"] == {"planned_mib": 138.18, "actual_mib": 138.18, "percent": 0.0}
    assert planned.findings([row]) == ()
    assert planned.held(found["buffers"]) == {0: pytest.approx(138.18)}


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (buffers(), ""),
        (buffers(compute=104.0), ""),
        (buffers(compute=112.0), ""),  # 12 % of the part, and less than 1 % of the GPU
        (buffers(compute=150.0), "compute 150 MiB where 100 were planned (+50.0 %)"),
        (buffers(kv=150.0), "kv 150 MiB where 200 were planned (-25.0 %)"),
        (buffers(weights=1100.0), "weights 1100 MiB where 1000 were planned (+10.0 %); total 1400 MiB where 1300 were planned (+7.7 %)"),
    ],
)
def test_more_than_five_percent_is_said(actual, words):
    found = planned.findings(planned.compare({"breakdown": [SHARE], "visible": [0]}, actual))
    assert [finding.level for finding in found] == (["warning"] if words else [])
    assert not words or found[0].message.endswith(words)


def test_what_was_left_to_the_server_is_not_compared():
    assert planned.compare({"breakdown": [SHARE], "visible": [0], "delegated": True}, buffers(compute=150.0)) == []


def test_what_was_not_planned_at_all():
    (row,) = planned.compare({"breakdown": [{**SHARE, "kv_mib": 0.0}]}, buffers())
    assert row["kv"]["percent"] is None
    (finding,) = planned.findings([row])
    assert "kv 200 MiB where 0 were planned (planned none)" in finding.message


def test_gpus_are_counted_as_the_container_sees_them():
    """The service has GPUs 1 and 3 of the host, which its container calls CUDA0 and CUDA1."""
    shares = [{**SHARE, "index": 1}, {**SHARE, "index": 3, "weights_mib": 500.0}]
    rows = planned.compare({"breakdown": shares, "visible": [1, 3]}, buffers() + buffers(weights=500.0, name="CUDA1"))
    assert [(row["index"], row["device"], row["weights"]["actual_mib"]) for row in rows] == [(1, "CUDA0", 1000.0), (3, "CUDA1", 500.0)]


def test_names_that_carry_a_suffix_are_the_same_device_and_host_memory_is_none():
    found = buffers(name="MTL0_Mapped") + buffers(name="CUDA_Host", place="host") + buffers(name="CPU", place="host")
    (row,) = planned.compare({"breakdown": [SHARE]}, found)
    assert row["device"] == "MTL0" and row["total"]["actual_mib"] == 1300.0


def test_nothing_is_compared_with_nothing():
    assert planned.compare({"breakdown": [SHARE]}, buffers(place="host")) == []
    assert planned.compare({}, buffers()) == []
