# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of module aikit_image: reads the aikitfile, so that hosts need no YAML library, and shows how far a build is."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._core.errors import AikitError
from ..plugin_utils import yaml_source
from ..plugin_utils.progress_display import execute_module


class ActionModule(ActionBase):
    _requires_connection = True
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    @classmethod
    def finalize_task_arg(cls, name, value, templar, context):
        return yaml_source.finalize(name, value, templar)

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("parsed") is None:
            try:
                arguments["parsed"] = yaml_source.from_task(self, arguments.get("definition"), arguments.get("src"))
            except AikitError as exc:
                raise AnsibleActionFail(str(exc)) from None
        result = execute_module(self, arguments, task_vars)
        # The whole text once more helps nobody who reads the result with -vvv, and may hold what is secret
        result.get("invocation", {}).get("module_args", {}).pop("parsed", None)
        return result
