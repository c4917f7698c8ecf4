# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log lines without their wrapping: what collectors, container engines, LocalAI and llama-server put around a line.

Every pattern is anchored and bounded, so a line costs no more than a few times its length.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Iterator, Optional

_ANSI = re.compile(r"\x1b\[[0-9;?]{0,32}[ -/]{0,4}[@-~]")
_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)\s+")
_CRI = re.compile(r"(?:stdout|stderr) [FP] ")
_POD = re.compile(r"\[pod/([^\]\s]{1,256})\] ")
_COMPOSE = re.compile(r"([A-Za-z0-9][\w.-]{0,127}) {1,64}\| ")
_JOURNAL = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})? (\S{1,256}) ([^\s\[\]:]{1,128})(?:\[\d{1,10}\])?: ")
_JOURNAL_ISO = re.compile(r"([\w.-]{1,256}) ([^\s\[\]:]{1,128})\[\d{1,10}\]: ")
_ZEROLOG = re.compile(r"\d{1,2}:\d\d(?:AM|PM) (TRC|DBG|INF|WRN|ERR|FTL|PNC) ")
_ZEROLOG_GRPC = re.compile(r"GRPC\(([^()\s]{1,512}?)(?:-127\.0\.0\.1|-localhost|-\[::1\]|-0\.0\.0\.0)?:(\d{1,5})\): (?:stderr|stdout) ?")
# People who quote a log shorten the prefix of all but the first lines
_SHORTENED = re.compile(r"(?:\.\.\.|\u2026) (?:stderr|stdout) ")
SAME = "\u2026"
# Not vLLM's "INFO 04-12 08:21:19 [worker.py:267]" and not llama-server's "INFO [ main]" of early 2024
_XLOG = re.compile(r"(?:[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d )?(TRACE|DEBUG|INFO|WARN|ERROR|FATAL) {1,4}(?!\d\d-\d\d |\[)(?=\S)")
_SLOG = re.compile(r"time=\S{1,64} level=([A-Z]{3,5})(?:[+-]\d{1,3})? (?:source=\S{1,256} )?msg=")
_FIELD_LINE = re.compile(r'\bline=(?:"((?:[^"\\]|\\.)*)"?|(\S*))')
_FIELD_ID = re.compile(r'\bid=(?:"((?:[^"\\]|\\.)*)"?|(\S*))')
_FIELD_MSG = re.compile(r'msg=(?:"((?:[^"\\]|\\.)*)"?|(\S*))')
_GRPC_ADDRESS = re.compile(r"(.{1,512})-(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0):(\d{1,5})\Z")
_CHILD_PORT = re.compile(r"\[(\d{4,5})\] ")
_LLAMA_TIME = re.compile(r"\d{1,6}\.\d\d\.\d{3}\.\d{3} [TDIWE] ?")
_GO_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))")
_GO_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LEVELS = {
    "TRC": "debug", "DBG": "debug", "INF": "info", "WRN": "warn", "ERR": "error", "FTL": "error", "PNC": "error",
    "TRACE": "debug", "DEBUG": "debug", "INFO": "info", "WARN": "warn", "ERROR": "error", "FATAL": "error",
}  # fmt: skip


def _unquote(text: str) -> str:
    """Undo Go's %q (without the quotes around it)."""
    if "\\" not in text:
        return text

    def replace(match: "re.Match[str]") -> str:
        byte, short, long, octal, simple = match.groups()
        code = byte or short or long
        if code:
            number = int(code, 16)
            return chr(number) if number < 0x110000 else ""
        if octal:
            return chr(int(octal, 8))
        return _GO_SIMPLE.get(simple, simple)

    return _GO_ESCAPE.sub(replace, text)


@dataclass(frozen=True)
class Line:
    """A line without what collectors and servers put around it.

    ``host`` tells containers or units of one collected log apart, ``child`` and ``instance`` the processes that a
    server started (a model's name and its port). ``child`` is :data:`SAME` where a shortened line leaves the name out.
    ``level`` is set where LocalAI itself wrote the line.
    """

    text: str
    host: str = ""
    child: str = ""
    instance: str = ""
    level: str = ""


def unwrap(raw: str, host: str = "", child: str = "", instance: str = "", level: str = "", depth: int = 0) -> Iterator[Line]:
    text = raw.strip("\r\n\t ")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    for _round in range(8):
        before = text
        if text.startswith("{") and depth < 4:
            found = _json_envelope(text)
            if found is not None:
                payload, grpc, json_level = found
                if grpc is not None:
                    child, instance, level = grpc[0], grpc[1], ""
                elif json_level:
                    level = json_level
                for part in payload.splitlines():
                    yield from unwrap(part, host, child, instance, level, depth + 1)
                return
        match = _ISO_TIME.match(text)
        if match:
            text = text[match.end() :]
            cri = _CRI.match(text)
            unit = None if cri else _JOURNAL_ISO.match(text)
            if cri:
                text = text[cri.end() :]
            elif unit:
                host, text = f"{host}/{unit.group(2)}", text[unit.end() :]
            continue
        match = None if child else _XLOG.match(text)
        if match:
            level = _LEVELS[match.group(1)]
            text = text[match.end() :]
            grpc_line = _grpc_fields(text) if text.startswith("GRPC std") else None
            if grpc_line is not None:
                (child, instance), payload = grpc_line
                for part in payload.splitlines():
                    yield from unwrap(part, host, child, instance, "", depth + 1)
                return
            break
        match = None if child else _SLOG.match(text)
        if match:
            level = _LEVELS.get(match.group(1), "info")
            grpc_line = _grpc_fields(text) if "GRPC std" in text else None
            if grpc_line is not None:
                (child, instance), payload = grpc_line
                for part in payload.splitlines():
                    yield from unwrap(part, host, child, instance, "", depth + 1)
                return
            message = _FIELD_MSG.search(text)
            if message:
                text = f"{_unquote(_group(message))} {text[message.end() :]}"
            break
        match = None if child else _ZEROLOG.match(text)
        if match:
            level, text = _LEVELS[match.group(1)], text[match.end() :]
        grpc_match = None if child else _ZEROLOG_GRPC.match(text)
        if grpc_match:
            child, instance, level, text = grpc_match.group(1).strip(".") or SAME, grpc_match.group(2), "", text[grpc_match.end() :]
            continue
        if match:
            break
        match = None if child else _SHORTENED.match(text)
        if match:
            child, text = SAME, text[match.end() :]
            continue
        for pattern, group in ((_POD, 1), (_COMPOSE, 1), (_JOURNAL, 2)):
            match = pattern.match(text)
            if match and not (pattern is _JOURNAL and match.group(1) in _LEVELS):
                host, text = f"{host}/{match.group(group)}", text[match.end() :]
                break
        match = _CHILD_PORT.match(text)
        if match and not child:
            child, instance, text = f"port {match.group(1)}", match.group(1), text[match.end() :]
        match = _LLAMA_TIME.match(text)
        if match:
            text = text[match.end() :]
        if text == before:
            break
    yield Line(text, host, child, instance, level)


def _json_envelope(text: str) -> Optional[tuple[str, Optional[tuple[str, str]], str]]:
    """(payload, (child, instance) or None, LocalAI's level or "") of a JSON line; None when it is no envelope."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    message = document.get("msg")
    line, address = document.get("line"), document.get("id")
    if isinstance(message, str) and isinstance(line, str) and isinstance(address, str) and message.startswith("GRPC"):
        return line, _address(address), ""
    if isinstance(message, str):
        if document.get("type") == "log":
            return message, None, ""
        rest = " ".join(
            f'{key}="{value}"' for key, value in document.items() if key not in ("msg", "time", "level", "caller") and isinstance(value, (str, int, float))
        )
        level = str(document.get("level", ""))
        return f"{message} {rest}", None, _LEVELS.get(level.upper(), "info")
    for key in ("log", "MESSAGE", "message"):
        if isinstance(document.get(key), str):
            return document[key], None, ""
    return None


def _grpc_fields(text: str) -> Optional[tuple[tuple[str, str], str]]:
    """((child, instance), line) of LocalAI's ``GRPC stderr id="…" line="…"``."""
    address, line = _FIELD_ID.search(text), _FIELD_LINE.search(text)
    if address is None or line is None:
        return None
    return _address(_unquote(_group(address))), _unquote(_group(line))


def _group(match: "re.Match[str]") -> str:
    return match.group(1) if match.group(1) is not None else match.group(2) or ""


def _address(text: str) -> tuple[str, str]:
    match = _GRPC_ADDRESS.match(text)
    return (match.group(1), match.group(2)) if match else (text[:512], "")
