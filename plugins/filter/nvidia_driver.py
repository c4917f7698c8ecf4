# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role nvidia_driver computes. Each filter is documented in the YAML file of its name."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

from ansible.errors import AnsibleFilterError

from ..module_utils._core import drain, nvidia_driver
from ..module_utils._core.errors import AikitError


def nvidia_driver_plan(
    info: Mapping[str, Any], wishes: Mapping[str, Any], remembered: str = "", offers: Optional[Mapping[str, str]] = None
) -> dict[str, Any]:
    try:
        return nvidia_driver.plan(info, wishes, remembered, offers)
    except AikitError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "gpu_holders": drain.other_holders,
            "gpu_services": drain.gpu_services,
            "gpu_services_left": drain.left,
            "nvidia_driver_outcome": nvidia_driver.outcome,
            "nvidia_driver_plan": nvidia_driver_plan,
            "nvidia_driver_state": nvidia_driver.state_text,
        }
