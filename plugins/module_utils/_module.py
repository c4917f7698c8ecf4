# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The thin wrapper around AnsibleModule: errors become fail_json, a plan becomes the result."""

from __future__ import annotations

import contextlib
import os
import traceback
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from ._core.errors import AikitError
from ._core.model_source import secrets
from ._core.plan import report
from ._io import progress

__all__ = [
    "ENGINE_OPTION",
    "REGISTRY_OPTIONS",
    "STATUS_FILE_OPTION",
    "VERIFY_OPTION",
    "hide_sources",
    "report",
    "run_module",
    "warn",
]

# Documented in plugins/doc_fragments/engine.py
ENGINE_OPTION = {"type": "str", "choices": ["auto", "docker", "podman"], "default": "auto"}
# Documented in plugins/doc_fragments/progress.py
STATUS_FILE_OPTION = {"type": "path"}
# Documented in plugins/doc_fragments/registry.py
REGISTRY_OPTIONS = {
    "registry_auth_file": {"type": "path"},
    "registry_ca_file": {"type": "path"},
    "registry_insecure": {"type": "list", "elements": "str", "default": []},
    "registry_mirrors": {"type": "dict", "default": {}},
    "registry_timeout_seconds": {"type": "float", "default": 60},
    "registry_logins": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "registry": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
        },
    },
}

# Documented in plugins/doc_fragments/signatures.py
VERIFY_OPTION = {
    "type": "dict",
    "options": {
        "mode": {"type": "str", "choices": ["auto", "key", "none"], "default": "auto"},
        # The public one
        "key": {"type": "str", "no_log": False},
        "ignore_tlog": {"type": "bool", "default": False},
        "identity": {"type": "str"},
        "issuer": {"type": "str"},
        "mirrors": {"type": "bool", "default": False},
    },
}


def run_module(work: Callable[[AnsibleModule], dict[str, Any]], **module_args: Any) -> None:
    """Build the AnsibleModule, call ``work(module)`` and exit with what it returns.

    ``work`` raises :class:`AikitError` for what the user can mend. Findings of level ``warning``
    in the result are shown as warnings too. A module with option ``status_file`` tells how far it is.
    """
    module = AnsibleModule(supports_check_mode=True, **module_args)
    try:
        with _progress(module):
            result = work(module)
    except AikitError as exc:
        warn(module, exc.data.get("findings", ()))
        module.fail_json(msg=str(exc), hint=exc.hint, **exc.data)
    except OSError as exc:
        message = f"{exc.strerror or exc}: {exc.filename}" if exc.filename else str(exc)
        hint = "Set ansible_become: true for this host (become: true for a play or a task)." if isinstance(exc, PermissionError) and os.geteuid() else ""
        module.fail_json(msg=f"{message}. {hint}" if hint else message, hint=hint, exception=traceback.format_exc())
    warn(module, result.get("findings", ()))
    module.exit_json(**result)


def _progress(module: AnsibleModule) -> contextlib.AbstractContextManager[None]:
    if "status_file" not in module.params:
        return contextlib.nullcontext()
    return progress.reporting(module.params["status_file"], module._name.rpartition(".")[2])


def hide_sources(module: AnsibleModule, parsed: Any) -> None:
    """Keep what is secret in the sources of an aikitfile out of the result: it is refused, and the text of the refused file comes back."""
    document = parsed.get("document") if isinstance(parsed, dict) else None
    models = document.get("models") if isinstance(document, dict) else None
    for model in models if isinstance(models, list) else ():
        if isinstance(model, dict) and isinstance(model.get("source"), str):
            module.no_log_values.update(secrets(model["source"]))


def warn(module: AnsibleModule, findings: Any) -> None:
    """Show findings of level warning. ``findings`` holds dicts as :meth:`Finding.as_dict` makes them."""
    for finding in findings:
        if finding["level"] == "warning":
            where = f"line {finding['line']}, " if finding["line"] else ""
            hint = f" ({finding['hint']})" if finding["hint"] else ""
            module.warn(f"{where}{finding['path']}: {finding['message']}{hint}")
