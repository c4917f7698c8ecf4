# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the running services of a host hold of its GPUs, and the plans that its state files remember.

A plan may use what our own containers hold, for they give it back before they start anew. Who holds what is told by the driver;
where it cannot tell (WSL, some MIG instances, other makers' GPUs), by the buffers in the evidence of this very run, else by the
plan that the container was started with.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional

from . import planned
from .engine import ContainerState

SMI_APPS = ("--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")


def compute_apps(text: str) -> dict[tuple[str, int], Optional[float]]:
    """MiB by GPU (its UUID) and process; None where the driver cannot tell how much it is."""
    found: dict[tuple[str, int], Optional[float]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[1].isdigit():
            amount = cells[2].split()[:1]
            number = amount[0] if amount else ""
            known = number.replace(".", "", 1).isdigit()
            key = (cells[0], int(cells[1]))
            before = found.get(key, 0.0)
            found[key] = before + float(number) if known and before is not None else None
    return found


def held(
    container: Optional[ContainerState], processes: Iterable[int], apps: Mapping[tuple[str, int], Optional[float]], current: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """What one container holds and who says so: ``driver``, ``log``, ``plan``, or empty when it holds nothing or nobody knows.

    Entries have ``uuid`` (driver), ``position`` (the GPU's number inside the container: log) or ``index`` (the host's: plan), and ``mib``.

    :param current: the release in the state file.
    """
    if container is None or not container.running:
        return [], ""
    mine = set(processes)
    told = {key: amount for key, amount in apps.items() if key[1] in mine}
    if told and all(amount is not None for amount in told.values()):
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
        outside = [float(share.get("context_mib") or 0.0) for share in shares.values()]
        extra = max(outside, default=0.0)
        return [{"position": position, "mib": round(size + extra, 2)} for position, size in sorted(buffers.items())], "log"
    if shares and container.labels.get("io.aikit.fleet.spec") == current.get("spec"):
        return [{"index": index, "mib": float(share.get("needed_mib") or 0.0)} for index, share in sorted(shares.items())], "plan"
    return [], ""


def remembered(name: str, state: Mapping[str, Any], container: Optional[ContainerState], processes: Iterable[int], apps: Mapping[Any, Any]) -> dict[str, Any]:
    """One service for a planner: what it holds, the plan that it runs with, and what an error of memory taught."""
    current = state.get("current") or {}
    amounts, source = held(container, processes, apps, current)
    return {
        "name": name,
        "running": container is not None and container.running,
        "held": amounts,
        "source": source,
        "fit": (current.get("release") or {}).get("fit") or {},
        "settings": current.get("settings") or {},
        "step_down": state.get("step_down") or {},
    }
