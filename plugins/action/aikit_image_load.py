# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's side of module aikit_image_load: shows how far a load is."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase

from ..plugin_utils.progress_display import execute_module


class ActionModule(ActionBase):
    _requires_connection = True
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        return execute_module(self, dict(self._task.args), task_vars)
