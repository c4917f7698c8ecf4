# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles and playbooks compute over hosts. Each filter is documented in the YAML file of its name."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping

from ..module_utils._core import fleet, host_checks, table


def from_hosts(hostvars: Mapping[str, Any], hosts: Iterable[str], name: str) -> dict[str, Any]:
    """``name`` of every host that has it; a host that failed or was skipped has none."""
    return {host: hostvars[host][name] for host in hosts if name in hostvars[host]}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "all_checks": fleet.all_checks,
            "any_failed": fleet.any_failed,
            "archive_plan": fleet.archive_plan,
            "checks_report": fleet.checks_report,
            "checks_table": fleet.checks_table,
            "failed_result": fleet.failed_result,
            "failure_text": fleet.failure_text,
            "from_hosts": from_hosts,
            "hosts_table": table.hosts,
            "host_checks": host_checks.host_checks,
            "images_to_remove": fleet.images_to_remove,
            "not_checked": fleet.not_checked,
            "plan_table": fleet.plan_table,
            "registry_reference": fleet.registry_reference,
            "release_failure": fleet.release_failure,
            "rollout_table": fleet.rollout_table,
            "service_checks": fleet.service_checks,
            "service_names": fleet.service_names,
            "service_result": fleet.service_result,
            "service_table": table.services,
            "services_to_remove": fleet.services_to_remove,
            "transfer_folder": fleet.transfer_folder,
        }
