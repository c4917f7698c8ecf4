# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who holds how much of which GPU, by the driver, by the log, by the plan."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import service_memory
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ContainerState

RUNNING = ContainerState(
    name="llama", id="c1", image_id="i", status="running", running=True, started_at="t1", labels={"io.aikit.fleet.spec": "s1"}
)
SHARE = {"index": 2, "needed_mib": 1500.0, "context_mib": 330.0}
CURRENT = {
    "spec": "s1",
    "settings": {"gpu_layers": 33},
    "evidence": {"container_id": "c1", "started_at": "t1", "buffers": [{"name": "CUDA0", "kind": "model", "size_mib": 1000.0, "place": "gpu"}]},
    "release": {"fit": {"breakdown": [SHARE, {"index": None, "needed_mib": 9.0}], "settings": {}}},
}


def test_the_drivers_list():
    text = "GPU-a, 10, 100\nGPU-a, 10, 50\nGPU-b, 11, 7 MiB\nGPU-b, 12, [N/A]\nGPU-b, 13, [Not Found]\nnonsense\n, , \n"
    assert service_memory.compute_apps(text) == {("GPU-a", 10): 150.0, ("GPU-b", 11): 7.0, ("GPU-b", 12): None, ("GPU-b", 13): None}


@pytest.mark.parametrize(
    ("container", "apps", "current", "amounts", "source"),
    [
        (None, {("GPU-a", 1): 5.0}, CURRENT, [], ""),
        (dataclasses.replace(RUNNING, running=False), {("GPU-a", 1): 5.0}, CURRENT, [], ""),
        (RUNNING, {("GPU-a", 1): 5.0, ("GPU-a", 2): 2.0, ("GPU-b", 99): 70.0}, CURRENT, [{"uuid": "GPU-a", "mib": 7.0}], "driver"),
        # The driver cannot tell how much: the buffers of this run, and what lies outside of them
        (RUNNING, {("GPU-a", 1): None}, CURRENT, [{"position": 0, "mib": 1330.0}], "log"),
        (RUNNING, None, CURRENT, [{"position": 0, "mib": 1330.0}], "log"),
        # It names another program and none of ours: ours was just restarted, or has unloaded its model
        (RUNNING, {("GPU-a", 99): 20000.0}, CURRENT, [], "driver"),
        (RUNNING, {}, CURRENT, [], "driver"),
        # The evidence is of an earlier run
        (dataclasses.replace(RUNNING, started_at="t2"), None, CURRENT, [{"index": 2, "mib": 1500.0}], "plan"),
        # Nothing is known of another container
        (dataclasses.replace(RUNNING, id="c2", labels={"io.aikit.fleet.spec": "s2"}), None, CURRENT, [], ""),
        (RUNNING, None, {}, [], ""),
    ],
)
def test_who_says_it(container, apps, current, amounts, source):
    assert service_memory.held(container, [1, 2], apps, current) == (amounts, source)


def test_an_engine_that_names_no_process_of_a_running_container_leaves_it_to_the_log():
    assert service_memory.held(RUNNING, [], {("GPU-a", 99): 70.0}, CURRENT) == ([{"position": 0, "mib": 1330.0}], "log")


def test_what_is_taken_with_the_first_long_text_is_not_counted_as_held():
    breakdown = [{**SHARE, "context_mib": 430.0, "pool_mib": 100.0}, {"index": 3, "needed_mib": 800.0, "context_mib": 330.0, "pool_mib": 0.0}]
    buffers = [{"name": f"CUDA{number}", "kind": "model", "size_mib": size, "place": "gpu"} for number, size in enumerate((1000.0, 400.0))]
    current = {**CURRENT, "evidence": {**CURRENT["evidence"], "buffers": buffers}, "release": {"fit": {"breakdown": breakdown}}}
    assert service_memory.held(RUNNING, [1], None, current) == ([{"position": 0, "mib": 1330.0}, {"position": 1, "mib": 730.0}], "log")
    planned = [{"index": 2, "mib": 1400.0}, {"index": 3, "mib": 800.0}]
    assert service_memory.held(RUNNING, [1], None, {**current, "evidence": {}}) == (planned, "plan")


@pytest.mark.parametrize(
    ("apps", "used", "told"),
    [
        ("GPU-a, 10, 100\nGPU-a, 11, [N/A]\n", "", {("GPU-a", 10): 100.0, ("GPU-a", 11): None}),
        # Who, but of nobody how much
        ("GPU-a, 10, [N/A]\n", "", None),
        # Nobody, and so says the memory in use: X, and what the driver keeps
        ("", "4\n96 MiB\n", {}),
        # Nobody is shown (WSL, a host that is a container itself), yet much is in use
        ("", "4\n21113\n", None),
        ("[Not Supported]\n", "[N/A]\n", None),
        ("", "", None),
    ],
)
def test_whether_the_driver_tells_who_holds_what(apps, used, told):
    assert service_memory.answer(service_memory.compute_apps(apps), used) == told


MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:   10485760 kB\n"
GIB = 1024**3
STAT = f"anon 5\ninactive_anon 7\ninactive_file {GIB}\nactive_file {GIB // 2}\n"
NO_LIMIT = ("", "", "")


@pytest.mark.parametrize(
    ("meminfo", "groups", "memsize", "total", "available"),
    [
        (MEMINFO, [NO_LIMIT, NO_LIMIT], "", 16384, 10240),
        (MEMINFO, [("max\n", f"{GIB}\n", STAT)], "", 16384, 10240),
        # The whole host is a container: 8 GiB, of which 5 are in use, 1.5 of them for files
        (MEMINFO, [(f"{8 * GIB}\n", f"{5 * GIB}\n", STAT)], "", 8192, 4608),
        # It may have more than the machine has left
        (MEMINFO, [(f"{12 * GIB}\n", f"{GIB}\n", STAT)], "", 12288, 10240),
        # The first version of control groups: a number that no machine has, and its totals
        (MEMINFO, [NO_LIMIT, (str(2**63 - 4096), str(GIB), "")], "", 16384, 10240),
        (MEMINFO, [NO_LIMIT, (str(4 * GIB), str(3 * GIB), f"{STAT}total_inactive_file {GIB}\ntotal_active_file 0\n")], "", 4096, 2048),
        ("", [NO_LIMIT], f"{16 * GIB}\n", 16384, 0),
        ("", [NO_LIMIT], "", 0, 0),
    ],
)
def test_the_hosts_memory(meminfo, groups, memsize, total, available):
    assert service_memory.host_memory(meminfo, groups, memsize) == {"total_mib": total, "available_mib": available}


def test_memory_that_is_no_files():
    status = "Name:\tllama-server\nVmRSS:\t 9000000 kB\nRssAnon:\t  102400 kB\nRssFile:\t 8000000 kB\nRssShmem:\t    1024 kB\n"
    assert service_memory.firm_mib([status, status, ""]) == 202.0


def test_what_a_planner_gets():
    step = {"count": 1, "reason": "r", "inputs": {}}
    found = service_memory.remembered("llama", {"current": CURRENT, "step_down": step}, RUNNING, [], None)
    assert found["fit"] == CURRENT["release"]["fit"] and found["settings"] == {"gpu_layers": 33} and found["step_down"] == step and found["running"]
    assert service_memory.remembered("new", {}, None, [], None) == {
        "name": "new",
        "running": False,
        "held": [],
        "source": "",
        "host_held_mib": 0.0,
        "fit": {},
        "settings": {},
        "step_down": {},
    }
