# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan the GPU memory of a host, on the controller: what it has and what its services want are known there together."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils._core import fit_options, plan_report, service_fit
from ..module_utils._core.errors import AikitError
from ..plugin_utils.plain import plain


class ActionModule(ActionBase):
    _requires_connection = False
    _VALID_ARGS = frozenset(("services", "models", "gpus", "memory", "policy", "servers", "replan", "final", "alone", "strict"))
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "services": {"type": "list", "elements": "dict", "required": True},
                "models": {"type": "dict", "default": {}},
                "gpus": {"type": "dict", "default": {}},
                "memory": {"type": "dict", "default": {}},
                "policy": {"type": "dict", "default": {}},
                "servers": {"type": "dict", "default": {}},
                "replan": {"type": "bool", "default": False},
                "final": {"type": "bool", "default": False},
                "alone": {"type": "bool", "default": False},
                "strict": {"type": "bool", "default": True},
            }
        )
        # Tagged values of Ansible's are no values to compute a digest from
        given = {key: plain(value) for key, value in arguments.items()}
        host = str((task_vars or {}).get("inventory_hostname", "this host"))
        try:
            found = service_fit.plan_host(
                given["services"],
                given["models"],
                given["gpus"] or None,
                given["memory"] or None,
                fit_options.policy_of(given["policy"], "inference_fit_policy"),
                given["servers"],
                given["replan"],
                given["final"],
                given["alone"],
            )
        except AikitError as exc:
            raise AnsibleActionFail(f"{host}: {exc}") from exc
        errors = [finding.describe() for finding in found.findings if finding.level == "error"]
        if errors and given["strict"]:
            lines = "\n".join(f"  {line}" for line in errors)
            raise AnsibleActionFail(f"The plan of {host} cannot work:\n{lines}", result={"findings": [finding.as_dict() for finding in found.findings]})
        for finding in found.findings:
            if finding.level == "warning" or (finding.level == "error" and not given["strict"]):
                self._display.warning(f"{host}: {finding.describe()}")
        services = {entry.name: entry.as_dict() for entry in found.services}
        result.update(
            changed=False,
            known=found.known,
            reason=found.reason,
            fits=found.fits and not errors,
            services=services,
            findings=[finding.as_dict() for finding in found.findings],
            lines=plan_report.lines(services),
        )
        return result
