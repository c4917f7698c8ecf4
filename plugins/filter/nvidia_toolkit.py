# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role nvidia_container_toolkit has to decide. Each filter is documented in the YAML file of its name."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..module_utils._core import nvidia_toolkit
from ..module_utils._core.errors import AikitError


def _told(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """What the user can mend reads as one sentence, not as a traceback."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AikitError as exc:
            raise AnsibleFilterError(str(exc)) from exc
        except (KeyError, TypeError, AttributeError) as exc:
            raise AnsibleFilterError(f"{name}: the input has not the documented form ({type(exc).__name__}: {exc}).") from exc

    return call


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        found = {
            "nvidia_toolkit_docker_restart": nvidia_toolkit.docker_restart,
            "nvidia_toolkit_facts": nvidia_toolkit.facts,
            "nvidia_toolkit_key_problem": nvidia_toolkit.key_problem,
            "nvidia_toolkit_rootless": nvidia_toolkit.rootless,
            "nvidia_toolkit_plan": nvidia_toolkit.plan,
            "nvidia_toolkit_stale_locks": nvidia_toolkit.stale_locks,
        }
        return {name: _told(function, name) for name, function in found.items()}
