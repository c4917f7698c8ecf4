# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller side of module aikitfile: finds and parses the YAML, as it is, and hands it to the module."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._core.errors import AikitError
from ..plugin_utils import yaml_source


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    @classmethod
    def finalize_task_arg(cls, name: str, value: Any, templar: Any, context: Any) -> Any:
        return yaml_source.finalize(name, value, templar)

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.pop("parsed", None) is not None:
            raise AnsibleActionFail("parsed is filled in by the action plugin. Give definition or src.")
        try:
            arguments["parsed"] = yaml_source.from_task(self, arguments.get("definition"), arguments.get("src"))
        except AikitError as exc:
            raise AnsibleActionFail(str(exc)) from None
        result.update(self._execute_module(module_name="aikit.fleet.aikitfile", module_args=arguments, task_vars=task_vars or {}, tmp=tmp))
        # The whole text once more helps nobody who reads the result with -vvv
        result.get("invocation", {}).get("module_args", {}).pop("parsed", None)
        return result
