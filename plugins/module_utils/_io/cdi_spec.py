# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read, compare and renew the CDI specification of a host."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Optional, Sequence

from .._core import cdi, cdi_spec
from .._core.cdi_spec import Unit
from .._core.errors import AikitError
from .._core.plan import Action, Plan, report

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

_PROPERTIES = "--property=LoadState,UnitFileState,Environment,EnvironmentFiles"


def ensure(path: str, service: str, more: Mapping[str, str], program: Optional[str], run: Run, check_mode: bool) -> dict[str, Any]:
    """The result of module nvidia_cdi_spec. ``program``: nvidia-ctk, None where there is none."""
    if program is None:
        if not check_mode:
            raise AikitError("There is no nvidia-ctk on this host.", "Role aikit.fleet.nvidia_container_toolkit installs it.")
        later = Plan((Action("refresh", path, "when nvidia-ctk is there"),))
        return _result(later, path, "", True, "there is no nvidia-ctk", Unit())
    unit = cdi_spec.parse_unit(run(["systemctl", "show", service, _PROPERTIES])[1]) if service else Unit()
    variables = cdi_spec.environment(unit, [_read(name) for name in unit.environment_files], more)
    path = variables.pop("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", "") or path
    command = ["env", *(f"{name}={value}" for name, value in sorted(variables.items())), program, "cdi", "generate"]
    status, wanted, errors = run([*command, "--output="])
    problem = "" if status == 0 and cdi.spec_version(wanted) else f"nvidia-ctk cdi generate fails: {_last(errors or wanted)}"
    if problem and not check_mode:
        raise AikitError(f"{problem} (status {status}).", "nvidia-smi says whether the driver works.")
    current = _read(path)
    plan = cdi_spec.plan(path, current, wanted, service if unit.loaded else "", problem)
    if plan.changed and not check_mode:
        current = _renew(path, service if unit.loaded else "", command, wanted, run)
    enabled = not unit.loaded or _enabled(service, run)
    return _result(plan, path, current, bool(problem) or (plan.changed and check_mode), problem, unit, enabled)


def _renew(path: str, service: str, command: Sequence[str], wanted: str, run: Run) -> str:
    if service:
        # One that failed five times in ten seconds is not started again before that is forgotten
        run(["systemctl", "reset-failed", service])
        run(["systemctl", "restart", service])
        found = _read(path)
        if cdi_spec.same(found, wanted):
            return found
    # No service, or one whose conditions do not see this driver: it looks for a module in modules.dep
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    status, output, errors = run([*command, f"--output={path}"])
    found = _read(path)
    if status != 0 or not found:
        raise AikitError(f"nvidia-ctk wrote no {path}: {_last(errors or output)} (status {status}).", "nvidia-smi says whether the driver works.")
    return found


def _enabled(service: str, run: Run) -> bool:
    """Whether the service and what watches the driver for it are started at boot."""
    _status, output, _errors = run(["systemctl", "is-enabled", service, service.replace(".service", ".path")])
    return output.split() == ["enabled", "enabled"]


def _result(plan: Plan, path: str, current: str, stale: bool, problem: str, unit: Unit, enabled: bool = True) -> dict[str, Any]:
    return report(
        plan,
        path=path,
        devices=list(cdi.devices(current)),
        spec_version=cdi.spec_version(current),
        nodes=list(cdi_spec.nodes(current)),
        stale=stale,
        # /run and what it is also called are a tmpfs
        enabled=enabled,
        survives_reboot=unit.enabled or not path.startswith(("/run/", "/var/run/")),
        problem=problem,
    )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""
