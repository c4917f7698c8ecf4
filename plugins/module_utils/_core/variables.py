# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes in variables that Ansible itself passes over in silence."""

from __future__ import annotations

import re
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping, Sequence

from .data_variables import PLAY_LEVEL, PLAYBOOK_PREFIXES, PLAYBOOK_VARIABLES, RESULT_SUFFIXES
from .errors import Finding
from .localai import suggest

# What opens a Go template and no Jinja expression: a field, a Go variable, or one of Go's control words where it
# cannot be Jinja ("{{ range(3) }}" and "{{ end }}" could be)
_GO_TEMPLATE = re.compile(
    r"\{\{-?\s*(?:"
    r"\.(?:[A-Za-z_]|\s*-?\}\})"
    r"|\$[A-Za-z_:. ]"
    r"|(?:if|else\s+if|with)\s+[^(}\s]*\s*[.$(]"
    r"|range\s+[^(}\s]*\s*[.$]"
    r"|else\s*-?\}\}"
    r"|end\s*-?\}\}"
    r"|(?:template|block|define)\s+[\"`]"
    r"|[A-Za-z_]\w*\s+[.$][A-Za-z_.]*\s*(?:-?\}\}|\|)"
    r")[^}\n]{0,40}"
)
_REFERENCE_ONLY = re.compile(r"\s*\{\{\s*([A-Za-z_]\w*)\s*\}\}\s*")


def unknown(names: Iterable[str], known_by_role: Mapping[str, Collection[str]]) -> tuple[Finding, ...]:
    """Name every variable that begins like one of ours and is none.

    ``known_by_role`` maps the roles of this collection to the options of their argument specs. Only
    prefixes of roles that it holds are judged: a variable of another collection's role is not ours.
    """
    known = set(PLAYBOOK_VARIABLES).union(*known_by_role.values())
    results = {f"{role}_{suffix}" for role in known_by_role for suffix in RESULT_SUFFIXES}
    prefixes = tuple(f"{role}_" for role in sorted(known_by_role)) + PLAYBOOK_PREFIXES
    findings = []
    for name in sorted(set(names)):
        if name.startswith(prefixes) and name not in known and name not in results:
            role = max((prefix for prefix in prefixes if name.startswith(prefix)), key=len)
            # The common beginning would make everything look alike
            tails = {other[len(role) :] for other in known if other.startswith(role)}
            near = suggest(name[len(role) :], sorted(tails))
            hint = f"Did you mean {role}{near}?" if near else f"Variables that begin with {role} belong to aikit.fleet; rename or remove this one."
            findings.append(Finding("error", name, 0, "is no variable of aikit.fleet, so nothing reads it", hint))
    return tuple(findings)


def play_level(inventory_names: Iterable[str], extra_names: Collection[str]) -> tuple[Finding, ...]:
    """Warn of variables that were set for hosts or groups, where a play's keywords cannot see them.

    ``inventory_names``: what a host has without the vars of the play; extra vars are among them.
    """
    found = [name for name in sorted(set(inventory_names)) if name in PLAY_LEVEL and name not in extra_names]
    return tuple(
        Finding(
            "warning",
            name,
            0,
            "is set for hosts or groups, where it has no effect: Ansible reads it before it looks at hosts",
            f"Pass it with -e {name}=…, or set it in vars: beside import_playbook.",
        )
        for name in found
    )


def go_templates(value: Any, path: str, is_template: Callable[[str], bool]) -> tuple[Finding, ...]:
    """LocalAI's templates in strings that Ansible would take as its own templates.

    ``is_template`` says whether Ansible would template a string (it would not when it is marked ``!unsafe``).
    """
    findings = []
    for where, text in _strings(value, path):
        match = _GO_TEMPLATE.search(text) if is_template(text) else None
        if match:
            line = text.count("\n", 0, match.start()) + 1
            at = f"line {line} of the text: " if "\n" in text else ""
            findings.append(
                Finding(
                    "error",
                    where,
                    0,
                    f"{at}{match.group(0).strip()!r} is a template of LocalAI, but Ansible would take it as one of its own",
                    "Mark the definition (definition: !unsafe), or put the aikitfile into a file and name it with src.",
                )
            )
    return tuple(findings)


def referenced(value: Any) -> str:
    """The variable that a value consists of (``"{{ my_services }}"``), or nothing."""
    match = _REFERENCE_ONLY.fullmatch(value) if isinstance(value, str) else None
    return match.group(1) if match else ""


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]")
