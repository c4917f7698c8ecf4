# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of GPU memory beside the buffers that the server then made.

A plan names GPUs as the host counts them, a log as the container does: ``visible`` lists the host's indexes in the order in which
the container sees them. What no buffer shows (CUDA's own memory, the margin, a projector) is not compared.
"""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, Sequence

from .errors import Finding

LIMIT_PERCENT = 5.0
# A part that is off by less than this share of its GPU's total is noise: some buffers are a few MiB
NOISE_SHARE = 0.01

PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weights": (("weights_mib",), ("model",)),
    "kv": (("kv_mib", "state_mib"), ("kv", "rs")),
    "compute": (("compute_mib",), ("compute",)),
}

_DEVICE = re.compile(r"(?P<name>[A-Za-z]+(?P<number>\d{1,3}))(?:_Mapped|_Split|_Private)?(?:\[.*)?\Z")


def compare(fit: Mapping[str, Any], buffers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each GPU of the plan: planned and actual MiB of weights, kv, compute and total, and by how many percent they differ.

    :param fit: ``breakdown`` and ``visible`` of a plan.
    :param buffers: those of the evidence. Nothing is compared with none.
    """
    found, names = _by_position(buffers)
    # What was left to the server's own fit has only an estimate
    if not found or fit.get("delegated"):
        return []
    visible = [int(index) for index in fit.get("visible") or ()]
    rows = []
    for share in fit.get("breakdown") or ():
        index = share.get("index")
        if index is None:
            continue
        position = visible.index(int(index)) if int(index) in visible else int(index)
        row: dict[str, Any] = {"device": names.get(position, str(share.get("device"))), "index": int(index)}
        sums = [0.0, 0.0]
        for part, (planned_keys, kinds) in PARTS.items():
            planned = sum(float(share.get(key) or 0.0) for key in planned_keys)
            actual = sum(found.get((position, kind), 0.0) for kind in kinds)
            sums = [sums[0] + planned, sums[1] + actual]
            row[part] = _pair(planned, actual)
        row["total"] = _pair(*sums)
        rows.append(row)
    return rows


def findings(rows: Sequence[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """A warning for each part that is off by more than 5 percent."""
    result = []
    for row in rows:
        noise = NOISE_SHARE * max(row["total"]["planned_mib"], row["total"]["actual_mib"])
        off = []
        for part in (*PARTS, "total"):
            pair = row[part]
            difference = pair["actual_mib"] - pair["planned_mib"]
            if abs(difference) > noise and abs(difference) > LIMIT_PERCENT / 100 * pair["planned_mib"]:
                words = "planned none" if pair["percent"] is None else f"{pair['percent']:+.1f} %"
                off.append(f"{part} {pair['actual_mib']:.0f} MiB where {pair['planned_mib']:.0f} were planned ({words})")
        if off:
            hint = "A plan that is too low can run out of memory: raise margin_mib of inference_fit_policy, and report the model and the version of the server."
            result.append(Finding("warning", f"{row['device']}", 0, f"the server took other amounts than planned: {'; '.join(off)}", hint))
    return tuple(result)


def held(buffers: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """MiB of all buffers by the position of their GPU in the container."""
    found, _names = _by_position(buffers)
    sums: dict[int, float] = {}
    for (position, _kind), size in found.items():
        sums[position] = sums.get(position, 0.0) + size
    return sums


def _by_position(buffers: Iterable[Mapping[str, Any]]) -> tuple[dict[tuple[int, str], float], dict[int, str]]:
    found: dict[tuple[int, str], float] = {}
    names: dict[int, str] = {}
    for buffer in buffers:
        match = _DEVICE.match(str(buffer.get("name")))
        if match is None or buffer.get("place") not in ("gpu", "software"):
            continue
        position, kind = int(match["number"]), str(buffer.get("kind"))
        names[position] = match["name"]
        found[position, kind] = found.get((position, kind), 0.0) + float(buffer.get("size_mib") or 0.0)
    return found, names


def _pair(planned: float, actual: float) -> dict[str, Any]:
    percent = None if not planned else round(100 * (actual - planned) / planned, 2)
    return {"planned_mib": round(planned, 2), "actual_mib": round(actual, 2), "percent": percent}
