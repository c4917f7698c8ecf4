# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of our services hold GPUs, so that they are stopped before the driver under them changes, and who else does."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

from .container import SERVICE_LABEL
from .data_nvidia_driver import STOPPED_PROGRAMS


def gpu_services(containers: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the running containers of aikit.fleet that were given a GPU; of containers as ``docker inspect`` shows them."""
    return sorted(str(container["Name"]).lstrip("/") for container in containers if _ours(container) and _running(container) and _has_gpu(container))


def left(looked: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which of the services that wait are still there; of the results of docker_container_info, one for each name.

    A service may be removed while it waits. One that could not be looked at is kept: nothing says that it is gone.
    """
    return [str(result["item"]) for result in looked if result.get("exists") is not False]


def other_holders(holders: Iterable[Mapping[str, Any]], containers: Iterable[Mapping[str, Any]]) -> list[str]:
    """What would hold the driver still when our services are stopped, in words. ``holders`` are those of gpu_info."""
    found = list(containers)
    stopped = {str(container.get("Id") or "") for container in found if _ours(container) and _running(container) and _has_gpu(container)}
    words: dict[str, str] = {}
    for holder in holders:
        inside = holder["container"]
        if inside in stopped and inside or not inside and holder["name"] in STOPPED_PROGRAMS:
            continue
        # One line for a container, however many processes it has
        words.setdefault(inside or str(holder["pid"]), f"{holder['name']} (process {holder['pid']}{f' in container {inside[:12]}' if inside else ''})")
    return list(words.values())


def _ours(container: Mapping[str, Any]) -> bool:
    return SERVICE_LABEL in ((container.get("Config") or {}).get("Labels") or {})


def _running(container: Mapping[str, Any]) -> bool:
    # One that crashes again and again runs too, as soon as it can
    state = container.get("State") or {}
    return bool(state.get("Running") or state.get("Restarting"))


def _has_gpu(container: Mapping[str, Any]) -> bool:
    settings = container.get("HostConfig") or {}
    devices = [str(device.get("PathOnHost") or "") for device in settings.get("Devices") or ()]
    return bool(settings.get("DeviceRequests")) or any(path.startswith("/dev/nvidia") for path in devices)
