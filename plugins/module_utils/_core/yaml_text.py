# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes plain data as block YAML.

AIKit's releases up to v0.21.0 pass parts of an aikitfile through a shell, so this never adds a double quote, a ``$``, a
backtick or a backslash of its own: text is plain, in single quotes, or a literal block. Only text that YAML cannot hold in any of
these (control characters, exotic line breaks) is written with escapes.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .errors import AikitError

# Characters that need no thought anywhere in a plain scalar
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./:@+=~()<>-]*( [A-Za-z0-9_./@+=~()<>][A-Za-z0-9_./:@+=~()<>-]*)*\Z", re.ASCII)
# What some YAML reader takes for something other than text: numbers in all their forms, dates, 1:30, words such as no
_NOT_TEXT = re.compile(
    r"[-+]?[.0-9][-0-9_.:eExXoOa-fA-FtTzZ+]*( [0-9.:+-]+)*\Z|(y|yes|n|no|true|false|on|off|null|nan|inf|none)\Z",
    re.ASCII | re.IGNORECASE,
)
# What YAML can hold unescaped: no control characters, no line break but \n, no byte order mark, no surrogates
_UNPRINTABLE = re.compile("[^\\n\\t\\x20-\\x7e\\xa0-\\u2027\\u202a-\\ud7ff\\ue000-\\ufefe\\uff00-\\ufffd\\U00010000-\\U0010ffff]")


def render(document: Any, syntax: str = "") -> str:
    """``document`` (JSON types) as block YAML. ``syntax`` names a frontend for the first line, ``#syntax=…``."""
    head = f"#syntax={syntax}\n" if syntax else ""
    if isinstance(document, dict) and document:
        return head + _mapping(document, 0)
    if isinstance(document, list) and document:
        return head + _sequence(document, 0)
    return head + _scalar(document, 0) + "\n"


def _mapping(mapping: dict[Any, Any], indent: int) -> str:
    lines = []
    for key, value in mapping.items():
        lines.append(" " * indent + _key(key) + ":" + _value(value, indent + 2))
    return "".join(lines)


def _sequence(items: list[Any], indent: int) -> str:
    lines = []
    for item in items:
        if isinstance(item, dict) and item:
            block = _mapping(item, indent + 2)
        elif isinstance(item, list) and item:
            block = _sequence(item, indent + 2)
        else:
            lines.append(" " * indent + "- " + _scalar(item, indent + 2) + "\n")
            continue
        lines.append(" " * indent + "- " + block[indent + 2 :])
    return "".join(lines)


def _value(value: Any, indent: int) -> str:
    if isinstance(value, dict) and value:
        return "\n" + _mapping(value, indent)
    if isinstance(value, list) and value:
        return "\n" + _sequence(value, indent)
    return " " + _scalar(value, indent) + "\n"


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise AikitError(f"The key {key!r} is not text.", "Keys of an aikitfile are names.")
    # A literal block cannot be a key
    return _quoted(key) if "\n" in key or "\t" in key else _text(key, 0)


def _scalar(value: Any, indent: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _text(value, indent)
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    raise AikitError(f"{value!r} is a {type(value).__name__}, which an aikitfile cannot hold.")


def _number(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    # YAML 1.1 wants a point before the exponent
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _text(text: str, indent: int) -> str:
    if _UNPRINTABLE.search(text):
        return _quoted(text)
    if "\n" in text:
        return _block(text, indent)
    if _PLAIN.match(text) and not _NOT_TEXT.match(text) and not text.endswith(":") and ": " not in text:
        return text
    return "'" + text.replace("'", "''") + "'"


def _block(text: str, indent: int) -> str:
    """A literal block: the text line by line, none of it changed."""
    lines = text.split("\n")
    first = next((line for line in lines if line), "")
    # Where the first line is empty or starts with a blank, a reader cannot see how deep the block is
    depth = "2" if not lines[0] or first.startswith((" ", "\t")) else ""
    chomp = "-"
    if text.endswith("\n\n") or not text.strip("\n"):
        chomp = "+"
    elif text.endswith("\n"):
        chomp = ""
    if text.endswith("\n"):
        lines.pop()
    pad = " " * max(indent, 2)
    body = "\n".join(pad + line if line else "" for line in lines)
    return f"|{depth}{chomp}\n{body}"


def _quoted(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise AikitError(f"A text holds half a character (surrogate) at position {exc.start}: {text[:40]!r}.") from exc
    # JSON's escapes are YAML's, except that YAML's reader refuses what JSON leaves unescaped
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: _escape(match.group()), quoted)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
