# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shapes of models of real sizes, of many architectures: what tests plan with, and what tests/oracle loads."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "fit"
SHAPES: dict[str, Any] = json.loads((FIXTURES / "shapes.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=None)
def shape(name: str) -> ModelShape:
    return ModelShape.from_dict(SHAPES[name], name)
