# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a state file remembers of a plan: what it was made from, and how often its load ran out of memory."""

from __future__ import annotations

from typing import Any, Mapping

# What a plan is made from. One that is not known yet (the server, before its image is there) is not compared
INPUTS = ("model", "projector", "wish", "gpus", "driver", "server", "policy")
# More out-of-memory errors than this, and something else is wrong
MAX_STEPS = 8


def same_inputs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two plans were made from the same things, as far as both know them."""
    return bool(one) and all(one[key] == other[key] for key in INPUTS if one.get(key) and other.get(key))


def steps(memory: Mapping[str, Any], inputs: Mapping[str, Any]) -> int:
    """How many steps down an earlier error of memory asks for."""
    step = memory.get("step_down") or {}
    return int(step.get("count") or 0) if same_inputs(step.get("inputs") or {}, inputs) else 0


def step_down(state: Mapping[str, Any], planned_fit: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The entry of the state file after a load ran out of memory with ``planned_fit``; empty when no further step makes sense."""
    inputs = planned_fit.get("inputs") or {}
    before = state.get("step_down") or {}
    count = int(planned_fit.get("step_down") or 0) + 1
    # The server's own fit takes no margin of ours: a step would lead to the same settings
    if not inputs or count > MAX_STEPS or planned_fit.get("delegated"):
        return {}
    reasons = [str(entry) for entry in before.get("reasons") or ()] if same_inputs(before.get("inputs") or {}, inputs) else []
    # The settings that ran out, as the plan had them: a step has to lead to others
    tried = dict(planned_fit.get("settings") or {})
    return {"count": count, "reason": reason, "reasons": [*reasons, reason][-MAX_STEPS:], "inputs": dict(inputs), "settings": tried}
