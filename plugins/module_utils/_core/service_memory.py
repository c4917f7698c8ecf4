# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the running services of a host hold of its GPUs, and the plans that its state files remember.

A plan may use what our own containers hold, for they give it back before they start anew. Who holds what is told by the driver;
where it cannot tell (WSL, some MIG instances, other makers' GPUs, a host that is a container itself), by the buffers in the evidence
of this very run, else by the plan that the container was started with: without what a server takes with its first long text, for
nothing tells whether there was one. A driver that names others and not ours has told: a container
that was just restarted, or has unloaded its model, holds nothing.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Optional

from . import gpu, planned
from .engine import ContainerState

SMI_APPS = ("--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")
SMI_USED = ("--query-gpu=memory.used", "--format=csv,noheader,nounits")
# Less than CUDA takes for a process that does nothing: a GPU with less in use serves nobody
IDLE_MIB = 256
MIB = 1024 * 1024
# Limit, use and details of the group at the root, by control groups of both versions
GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)

Apps = Mapping[tuple[str, int], Optional[float]]


def compute_apps(text: str) -> dict[tuple[str, int], Optional[float]]:
    """MiB by GPU (its UUID) and process; None where the driver cannot tell how much it is."""
    found: dict[tuple[str, int], Optional[float]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[1].isdigit():
            amount = _mib(cells[2])
            key = (cells[0], int(cells[1]))
            before = found.get(key, 0.0)
            found[key] = None if amount is None or before is None else before + amount
    return found


def _mib(text: str) -> Optional[float]:
    """``[N/A]`` and its like are no number."""
    number = (text.split() or [""])[0]
    return float(number) if number.replace(".", "", 1).isdigit() else None


def answer(apps: Mapping[tuple[str, int], Optional[float]], used: str) -> Optional[Apps]:
    """Who holds how much, if the driver tells it at all.

    A list without anybody says that nobody holds anything, or that this driver shows no processes here. What is in use of the GPUs tells which.

    :param used: MiB in use, a line for each GPU; asked for where the list is empty.
    """
    if apps:
        return apps if any(amount is not None for amount in apps.values()) else None
    amounts = [_mib(line) for line in used.splitlines() if line.strip()]
    return {} if amounts and all(amount is not None and amount < IDLE_MIB for amount in amounts) else None


def held(container: Optional[ContainerState], processes: Iterable[int], apps: Optional[Apps], current: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What one container holds and who says so: ``driver``, ``log``, ``plan``, or empty when it holds nothing or nobody knows.

    Entries have ``uuid`` (driver), ``position`` (the GPU's number inside the container: log) or ``index`` (the host's: plan), and ``mib``.

    :param apps: what the driver told; None where it could not be asked, or cannot tell.
    :param current: the release in the state file.
    """
    if container is None or not container.running:
        return [], ""
    mine = set(processes)
    told = {key: amount for key, amount in (apps or {}).items() if key[1] in mine}
    if apps is not None and mine and all(amount is not None for amount in told.values()):
        sums: dict[str, float] = {}
        for (uuid, _pid), amount in told.items():
            sums[uuid] = sums.get(uuid, 0.0) + (amount or 0.0)
        return [{"uuid": uuid, "mib": round(sums[uuid], 2)} for uuid in sorted(sums)], "driver"
    fit = (current.get("release") or {}).get("fit") or {}
    shares = {int(share["index"]): share for share in fit.get("breakdown") or () if share.get("index") is not None}
    evidence = current.get("evidence") or {}
    same_run = evidence.get("container_id") == container.id and evidence.get("started_at") == container.started_at
    buffers = planned.held(evidence.get("buffers") or ()) if same_run else {}
    if buffers:
        # What lies outside the buffers is only known from the plan
        outside = [_at_rest(share, "context_mib") for share in shares.values()]
        extra = max(outside, default=0.0)
        return [{"position": position, "mib": round(size + extra, 2)} for position, size in sorted(buffers.items())], "log"
    if shares and container.labels.get("io.aikit.fleet.spec") == current.get("spec"):
        return [{"index": index, "mib": round(_at_rest(share, "needed_mib"), 2)} for index, share in sorted(shares.items())], "plan"
    return [], ""


def _at_rest(share: Mapping[str, Any], key: str) -> float:
    """A part of a plan that has the pool in it, without that: it would count as ours on a GPU where nobody took it yet."""
    return max(0.0, float(share.get(key) or 0.0) - float(share.get("pool_mib") or 0.0))


def host_memory(meminfo: str, groups: Iterable[tuple[str, str, str]] = (), memsize: str = "") -> dict[str, int]:
    """Total and available memory of a host in MiB, 0 where it is not known.

    :param groups: limit, use and ``memory.stat`` of the control group that the whole host lies in: it is a container itself then.
    :param memsize: what a Mac says of its memory.
    """
    total, available = gpu.memory(meminfo)
    if total is None:
        return {"total_mib": int(memsize) // MIB if memsize.strip().isdigit() else 0, "available_mib": 0}
    for limit, use, stat in groups:
        # A group without a limit says max, or a number that no machine has
        if limit.strip().isdigit() and use.strip().isdigit() and int(limit) // MIB < total:
            # What of it is a cache of files goes when it is needed
            cached = sum(int(value) for value in re.findall(r"^(?:total_)?(?:in)?active_file (\d{1,18})$", stat, re.M)[-2:])
            total = int(limit) // MIB
            left = max(0, int(limit) - int(use) + min(int(use), cached)) // MIB
            available = left if available is None else min(available, left)
    return {"total_mib": total, "available_mib": available or 0}


def firm_mib(statuses: Iterable[str]) -> float:
    """Memory of processes (``/proc/PID/status``) that is no file's: weights that are mapped count as available, a cache does not."""
    kinds = (int(value) for text in statuses for value in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d{1,15}) kB$", text, re.M))
    return round(sum(kinds) / 1024, 2)


def remembered(
    name: str, state: Mapping[str, Any], container: Optional[ContainerState], processes: Iterable[int], apps: Optional[Apps], host_held_mib: float = 0.0
) -> dict[str, Any]:
    """One service for a planner: what it holds, the plan that it runs with, and what an error of memory taught."""
    current = state.get("current") or {}
    amounts, source = held(container, processes, apps, current)
    return {
        "name": name,
        "running": container is not None and container.running,
        "held": amounts,
        "source": source,
        "host_held_mib": host_held_mib,
        "fit": (current.get("release") or {}).get("fit") or {},
        "settings": current.get("settings") or {},
        "step_down": state.get("step_down") or {},
    }
