# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables for people: what a play prints at its end."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional, Sequence


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Lines of a table with a heading, columns as wide as their widest cell.

    A row without a column, or with None in it, shows ``-``; numbers stand to the right.
    """
    data = list(rows)
    cells = [[_text(row.get(column)) for column in columns] for row in data]
    right = [bool(data) and all(isinstance(row.get(column), (int, float)) or row.get(column) is None for row in data) for column in columns]
    widths = [max([len(column), *(len(line[position]) for line in cells)]) for position, column in enumerate(columns)]
    lines = [_line([column.replace("_", " ") for column in columns], widths, right)]
    lines.append("  ".join("-" * width for width in widths))
    lines += [_line(line, widths, right) for line in cells]
    return lines


def services(results: Mapping[str, Sequence[Mapping[str, Any]]], waits: Optional[Mapping[str, bool]] = None) -> list[str]:
    """What runs where. ``results`` maps a host to the results of its services, as role inference collects them; ``waits`` says of
    a host whether it waits for a reboot."""
    rows = []
    hints: list[str] = []
    for host in sorted(results):
        for result in results[host]:
            speed = result.get("tokens_per_second")
            first = result.get("time_to_first_token_seconds")
            rows.append(
                {
                    "host": host,
                    "service": result["name"],
                    "model": result.get("model") or None,
                    "state": result.get("state"),
                    "verdict": result.get("verdict") or None,
                    "layers": _layers(result.get("evidence") or {}),
                    "tokens/s": None if speed is None else round(speed, 1),
                    "first token s": None if first is None else round(first, 2),
                    "url": result.get("url") or None,
                }
            )
            if result.get("state") == "present" and result.get("url") and not hints:
                hints.append(curl(str(result["url"]), bool(result.get("has_api_key"))))
    columns = ("host", "service", "model", "state", "verdict", "layers", "tokens/s", "first token s", "url")
    return table(rows, columns) + _waiting(waits) + (["", "Try it:", *hints] if hints else [])


def _waiting(waits: Optional[Mapping[str, bool]]) -> list[str]:
    waiting = sorted(host for host, needed in (waits or {}).items() if needed)
    return (
        ["", f"Waiting for a reboot, and left out until then: {', '.join(waiting)}. Reboot them, or set nvidia_driver_reboot: if_required."]
        if waiting
        else []
    )


def hosts(facts: Mapping[str, Mapping[str, Any]], waits: Optional[Mapping[str, bool]] = None) -> list[str]:
    """The drivers of a fleet; ``facts`` maps a host to ``nvidia_driver_facts``, ``waits`` says whether it waits for a reboot."""
    columns = ("host", "gpus", "driver", "version", "modules", "cuda", "source", "done")
    lines = table(
        (
            {
                "host": host,
                "gpus": found.get("gpus"),
                "driver": found.get("state") or None,
                "version": found.get("version") or found.get("installed_version") or None,
                "modules": found.get("flavour") or None,
                "cuda": found.get("cuda_version") or None,
                "source": found.get("source") or None,
                "done": found.get("action") or None,
            }
            for host, found in sorted(facts.items())
        ),
        columns,
    )
    return lines + _waiting(waits)


def curl(url: str, has_api_key: bool) -> str:
    """A request that a person can paste."""
    key = " -H 'Authorization: Bearer YOUR-KEY'" if has_api_key else ""
    body = '{"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 64}'
    return f"curl -s {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"


def _layers(evidence: Mapping[str, Any]) -> Any:
    offloaded, total = evidence.get("layers_offloaded"), evidence.get("layers_total")
    return None if offloaded is None or total is None else f"{offloaded}/{total}"


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in zip(cells, widths, right))
    return "  ".join(padded).rstrip()
