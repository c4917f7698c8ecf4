# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role container_engine has to compute. The filter is documented in the YAML file of its name."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ..module_utils._core import container_engine
from ..module_utils._core.errors import AikitError


def container_engine_configuration(observed: Mapping[str, Any], **wishes: Any) -> dict[str, Any]:
    """What the user can mend reads as one sentence, not as a traceback."""
    try:
        return container_engine.configuration(observed, **wishes)
    except AikitError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"container_engine_configuration": container_engine_configuration}
