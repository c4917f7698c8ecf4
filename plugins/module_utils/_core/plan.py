# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module is about to do. ``changed``, ``actions`` and ``diff`` are read off one value, so they cannot disagree."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping


@dataclass(frozen=True)
class Action:
    """One change. ``verb`` and ``target`` are for people and for the code that applies it; ``detail`` only for people.

    Never put a secret into any of them: they are returned as ``actions``.
    """

    verb: str
    target: str
    detail: str = ""

    def describe(self) -> str:
        return " ".join(part for part in (self.verb, self.target, f"({self.detail})" if self.detail else "") if part)


@dataclass(frozen=True)
class Plan:
    """The difference between what is wanted and what was observed.

    ``before`` and ``after`` hold only what a person wants to compare (JSON types).
    """

    actions: tuple[Action, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.actions)


def report(plan: Plan, **extra: Any) -> dict[str, Any]:
    """The result keys that every module has: changed, actions, diff."""
    return {
        "changed": plan.changed,
        "actions": [action.describe() for action in plan.actions],
        "diff": {"before": _diff_text(plan.before), "after": _diff_text(plan.after)},
        **extra,
    }


def _diff_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n" if value else ""
