# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan the GPU memory of a host for all of its services: explicit settings for each, before anything travels.

The services are planned in the order of their list. Each one first gets what it needs for the shortest context it may have; what is
left then lengthens the contexts, again in order. Free memory and the memory of our own running containers count together, so a second
run gives the same plan.
"""

from __future__ import annotations

from typing import Optional, Sequence

from .fit_plan import plan_all
from .fit_shape import ModelShape
from .fit_types import Fit, Gpu, Host, Policy, Share, Wish

__all__ = ["Fit", "Gpu", "Host", "ModelShape", "Policy", "Share", "Wish", "plan"]


def plan(
    wishes: Sequence[Wish], gpus: Sequence[Gpu], policy: Policy = Policy(), server_version: str = "", host: Optional[Host] = None
) -> tuple[Fit, ...]:
    """Settings for each service, in the order of ``wishes``."""
    return plan_all(wishes, gpus, policy, server_version, host)
