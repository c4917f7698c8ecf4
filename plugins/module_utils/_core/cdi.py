# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which devices a CDI specification offers (Container Device Interface, /etc/cdi and /var/run/cdi).

Specifications are JSON or YAML. A target has no YAML parser for sure, and only the kind and the names
are needed, so YAML is read line by line in the block style that ``nvidia-ctk`` writes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Mapping, Optional

NVIDIA = "nvidia.com/gpu"
SPEC_SUFFIXES = (".json", ".yaml", ".yml")

_LINE = re.compile(r"(?P<indent> *)(?P<dash>- +)?(?P<key>[A-Za-z]+):(?: +(?P<value>.*?))? *")


def devices(text: str) -> tuple[str, ...]:
    """``nvidia.com/gpu=0``, ``nvidia.com/gpu=all``, … of one specification; nothing for what is none."""
    kind, names = _from_json(text) if text.lstrip().startswith("{") else _from_yaml(text)
    return tuple(f"{kind}={name}" for name in names) if kind else ()


def spec_version(text: str) -> str:
    """The version of the specification that a file claims to follow; empty for what is none."""
    if text.lstrip().startswith("{"):
        document = _document(text)
        return str(document.get("cdiVersion") or "")
    for raw in text.splitlines():
        match = _LINE.fullmatch(raw.rstrip())
        if match and match["key"] == "cdiVersion" and not match["indent"] and not match["dash"]:
            return _scalar(match["value"] or "")
    return ""


def nvidia_gpus(found: Iterable[str]) -> tuple[str, ...]:
    """The names after ``nvidia.com/gpu=``, without doubles, in the order found."""
    prefix = f"{NVIDIA}="
    return tuple(dict.fromkeys(name[len(prefix) :] for name in found if name.startswith(prefix)))


def gpu_count(names: Iterable[str]) -> int:
    """How many devices a CUDA process sees when it gets all of ``names``.

    Indexes and ids name the same cards twice, so either is counted. A process uses one MIG instance,
    however many it is given.
    """
    known = tuple(names)
    indexes = [name for name in known if name.isdigit()]
    ids = [name for name in known if name.startswith("GPU-")]
    instances = [name for name in known if re.fullmatch(r"\d+:\d+|MIG-.+", name)]
    return max(len(indexes), len(ids)) or (1 if instances else 0)


def _document(text: str) -> Mapping[str, Any]:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, Mapping) else {}


def _from_json(text: str) -> tuple[str, list[str]]:
    document = _document(text)
    devices_ = document.get("devices")
    listed = devices_ if isinstance(devices_, list) else ()
    return str(document.get("kind") or ""), [str(entry["name"]) for entry in listed if isinstance(entry, Mapping) and "name" in entry]


def _from_yaml(text: str) -> tuple[str, list[str]]:
    kind = ""
    names = []
    section = ""
    key_indent: Optional[int] = None
    for raw in text.splitlines():
        match = _LINE.fullmatch(raw.rstrip())
        if not match:
            continue
        indent, dash, value = len(match["indent"]), match["dash"], _scalar(match["value"] or "")
        if indent == 0 and not dash:
            section, key_indent = match["key"], None
            kind = value if section == "kind" else kind
        elif section == "devices":
            column = indent + len(dash or "")
            if dash and (key_indent is None or column <= key_indent):
                key_indent = column
            if column == key_indent and match["key"] == "name":
                names.append(value)
    return kind, names


def _scalar(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text.partition(" #")[0].strip()
