# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception that users see, and the finding that validators report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence


class AikitError(Exception):
    """Something the user can mend.

    :param message: what was found, and where (file, key, line).
    :param hint: what to do about it; one sentence, may be empty.
    :param data: further result keys for ``fail_json`` (JSON types only, never secrets).
    """

    def __init__(self, message: str, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data: Mapping[str, Any] = data

    def also(self, **data: Any) -> "AikitError":
        """The same with further result keys; what is there already stays."""
        return AikitError(self.message, self.hint, **{**data, **self.data})

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class Finding:
    """One remark of a validator.

    ``level`` is ``error`` or ``warning``; ``path`` is dotted with list indexes (``models[0].sha256``);
    ``line`` counts from 1, 0 where no line is known.
    """

    level: str
    path: str
    line: int
    message: str
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "path": self.path,
            "line": self.line,
            "message": self.message,
            "hint": self.hint,
        }

    def describe(self, name: str = "") -> str:
        where = ":".join(part for part in (name, str(self.line) if self.line else "") if part)
        head = f"{where}: " if where else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{head}{path}{self.message}{hint}"


def raise_for_errors(findings: Iterable[Finding], name: str) -> None:
    """Raise one :class:`AikitError` that lists every error of ``findings``; warnings pass."""
    found: Sequence[Finding] = tuple(findings)
    errors = [finding for finding in found if finding.level == "error"]
    if not errors:
        return
    lines = "\n".join(f"  {finding.describe(name)}" for finding in errors)
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise AikitError(f"{name}: {count}:\n{lines}", findings=[finding.as_dict() for finding in found])
