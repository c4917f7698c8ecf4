# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the CDI specification of a host is the one that its driver would give now, and who writes it anew.

NVIDIA's refresh service runs at boot and after package changes. It misses MIG reconfiguration, removed drivers, and a start that
failed too often. So what ``nvidia-ctk cdi generate`` prints now is compared with what lies there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Sequence

from . import cdi
from .plan import Action, Plan

# In YAML as nvidia-ctk writes it, and in JSON. Hooks have a path too, in /usr/bin
_NODE = re.compile(r'"?\bpath"?:\s*"?(/dev/[^"\s,}]+)')
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.S)


@dataclass(frozen=True)
class Unit:
    """What systemd says of the refresh service; without one ``loaded`` is false."""

    loaded: bool = False
    enabled: bool = False
    environment: tuple[str, ...] = ()
    environment_files: tuple[str, ...] = ()


def nodes(text: str) -> tuple[str, ...]:
    """Every device node that the specification brings into containers, without doubles."""
    return tuple(dict.fromkeys(_NODE.findall(text)))


def same(one: str, other: str) -> bool:
    """Whether two specifications say the same. The order of lines follows that of folders on the disk, and means nothing."""
    return _lines(one) == _lines(other)


def _lines(text: str) -> list[str]:
    return sorted(line.strip().lstrip("- ") for line in text.splitlines() if line.strip(" -"))


def parse_unit(text: str) -> Unit:
    """``systemctl show`` of the service: LoadState, UnitFileState, Environment, EnvironmentFiles."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator:
            values.setdefault(key, []).append(value)
    files = [re.sub(r" \(ignore_errors=\w+\)$", "", value) for value in values.get("EnvironmentFiles", ()) if value]
    return Unit(
        loaded=values.get("LoadState") == ["loaded"],
        enabled=values.get("UnitFileState", [""])[0] in ("enabled", "enabled-runtime", "static"),
        environment=tuple(_words(" ".join(values.get("Environment", ())))),
        environment_files=tuple(files),
    )


def _words(text: str) -> list[str]:
    """systemctl quotes a setting with spaces as a whole."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', text)]


def environment(unit: Unit, file_texts: Sequence[str], more: Mapping[str, str]) -> dict[str, str]:
    """The variables that nvidia-ctk reads when the service runs it: the unit's, then those of its files, which win.

    ``more`` is for hosts without the service.
    """
    found = {} if unit.loaded else dict(more)
    lines = [*unit.environment, *(line.strip() for text in file_texts for line in text.splitlines())]
    for line in lines:
        match = _SETTING.fullmatch(line)
        if match:
            found[match.group(1)] = match.group(2).strip("'\"")
    return {name: value for name, value in found.items() if name.startswith("NVIDIA_")}


def plan(path: str, current: str, wanted: str, service: str, problem: str) -> Plan:
    """One action where what lies at ``path`` is not what the driver would give now. Without an answer of the driver nothing is planned."""
    if problem or same(current, wanted):
        return Plan()
    why = "is not there" if not current else "is not what the driver has now"
    return Plan((Action("refresh", path, f"{why}; with {service or 'nvidia-ctk'}"),), _summary(current), _summary(wanted))


def _summary(text: str) -> dict[str, object]:
    return {"cdiVersion": cdi.spec_version(text), "devices": list(cdi.devices(text)), "nodes": list(nodes(text)), "libraries": _libraries(text)} if text else {}


def _libraries(text: str) -> list[str]:
    """Names that carry the driver's version, so that a diff shows an upgrade."""
    return sorted(set(re.findall(r"\blib(?:cuda|nvidia-ml)\.so\.[0-9.]*[0-9]", text)))
