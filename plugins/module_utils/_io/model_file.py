# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of module model_file."""

from __future__ import annotations

from typing import Any, Mapping

from .._core.errors import AikitError
from .._core.plan import Plan, report
from . import model_store, models
from .download import Say
from .models import Acquired, Reach
from .registry import RegistrySettings


def reach(given: Mapping[str, Any]) -> Reach:
    """The options that say how sources are reached, which several modules share."""
    registry = RegistrySettings(
        auth_file=given["registry_auth_file"],
        ca_file=given["registry_ca_file"],
        insecure=tuple(given["registry_insecure"]),
        mirrors=given["registry_mirrors"],
        timeout_seconds=given["registry_timeout_seconds"],
        logins=tuple(given["registry_logins"] or ()),
    )
    return Reach(given["token"], given["hub_url"], given["timeout_seconds"], registry)


def run(given: Mapping[str, Any], check_mode: bool, say: Say) -> dict[str, Any]:
    """The result of the module for its options."""
    found = Acquired((), "", "", Plan())
    more: dict[str, Any] = {}
    if given["state"] == "pruned":
        cleanup = model_store.prune(given["store"], given["keep"] or (), given["unused_days"], hub_url=given["hub_url"], check_mode=check_mode, say=say)
        found = Acquired((), "", "", cleanup.plan)
        more = {"removed": list(cleanup.removed), "freed_bytes": cleanup.freed_bytes}
    elif given["state"] == "absent":
        if not given["source"] and not given["sha256"]:
            raise AikitError("state is absent, and one of the following is required: source, sha256.", "To remove whatever is not used, set state to pruned.")
        plan = models.remove_models(
            given["source"],
            given["sha256"],
            given["store"],
            name=given["name"],
            include=given["include"],
            hub_url=given["hub_url"],
            check_mode=check_mode,
            say=say,
        )
        found = Acquired((), "", "", plan)
    else:
        found = models.ensure_models(
            given["source"],
            given["sha256"],
            given["store"],
            name=given["name"],
            include=given["include"],
            reach=reach(given),
            validate=given["validate"],
            refresh=given["refresh"],
            require_sha256=given["require_sha256"],
            check_mode=check_mode,
            say=say,
        )
    return report(
        found.plan,
        path=found.path,
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        downloaded_bytes=found.downloaded_bytes,
        resumed=found.resumed,
        files=[
            {"name": entry.name or entry.path.rpartition("/")[2], "path": entry.path, "sha256": entry.sha256, "size_bytes": entry.size_bytes}
            for entry in found.files
        ],
        revision=found.revision,
        findings=[finding.as_dict() for finding in found.findings],
        **more,
    )
