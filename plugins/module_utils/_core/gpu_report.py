# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result of module gpu_info, out of what was read on the host."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from . import gpu, gpu_driver, gpu_health, gpu_host, gpu_smi
from .errors import AikitError
from .gpu_raw import Raw
from .gpu_smi import SmiGpu, SmiReport


def report(raw: Raw, previous: Sequence[Mapping[str, Any]] = (), timeout: float = 10) -> dict[str, Any]:
    """``previous``: GPUs that an earlier result held; ``timeout``: how long nvidia-smi was given."""
    unreadable: list[str] = []
    csv = _csv(raw, unreadable)
    xml = _xml(raw, unreadable)
    smi = gpu.merge_smi(csv, xml.gpus, gpu_smi.parse_list(raw.smi_list.text))
    gpus = gpu.observe(raw, smi)
    packages = gpu_driver.parse_packages(raw.packages)
    driver = gpu_driver.observe(raw, gpus, packages, csv, xml)
    toolkit = gpu_host.toolkit(raw, packages)
    cdi = gpu_host.cdi_devices(raw)
    engines = gpu_host.engines(raw, packages)
    host = gpu_host.host(raw, packages, gpus)
    return {
        "gpus": [found.as_dict() for found in gpus],
        "driver": driver.as_dict(),
        "toolkit": toolkit,
        "cdi": cdi,
        "engines": engines,
        "host": host,
        "problems": gpu_health.problems(raw, gpus, driver, toolkit, cdi, engines, host, previous, unreadable, timeout),
    }


def wants_list(csv: str) -> bool:
    """Whether nvidia-smi has divided GPUs to list: nothing else names their instances."""
    try:
        return any(found.mig_current == "enabled" for found in gpu_smi.parse_csv(csv))
    except AikitError:
        return False


def _csv(raw: Raw, unreadable: list[str]) -> Sequence[SmiGpu]:
    if raw.smi_csv.status not in gpu_smi.GOOD:
        return ()
    try:
        return gpu_smi.parse_csv(raw.smi_csv.text)
    except AikitError as exc:
        unreadable.append(exc.message)
        return ()


def _xml(raw: Raw, unreadable: list[str]) -> SmiReport:
    if raw.smi_xml.status not in gpu_smi.GOOD:
        return SmiReport()
    try:
        return gpu_smi.parse_xml(raw.smi_xml.text)
    except AikitError as exc:
        unreadable.append(exc.message)
        return SmiReport()
