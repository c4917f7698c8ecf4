# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""daemon.json: read it strictly, merge into it, and say what it takes to make dockerd follow.

The file is the user's. Its order, its keys that nobody here knows and its indentation stay; a file that means the same is not
written again.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import data_docker as data
from .errors import AikitError
from .plan import Action, Plan

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]')
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)
_MEND = "Nothing was changed: mend the file by hand, then run again."


@dataclass(frozen=True)
class Process:
    """A dockerd that runs here: its command line, whether it is root's, and when it began."""

    pid: int
    argv: tuple[str, ...]
    root: bool = True
    started: str = ""

    @property
    def identity(self) -> str:
        return f"{self.pid}@{self.started}"


@dataclass(frozen=True)
class Change:
    """What to write, and what has to happen for dockerd to follow. ``text`` is the whole new file."""

    plan: Plan
    text: str
    restart_keys: tuple[str, ...]
    keys: tuple[str, ...]


def parse(text: Optional[str], path: str) -> dict[str, Any]:
    """The settings in ``text``; none where there is no file. AikitError names line and column of what is wrong."""
    if text is None:
        return {}
    if not text.strip():
        raise AikitError(f"{path} is empty: line 1, column 1.", f"Docker reads no settings from it: delete the file, or write {{}} into it. {_MEND}")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        raise AikitError(f"{path} is no JSON: line {exc.lineno}, column {exc.colno}: {exc.msg}.", _MEND, line=exc.lineno, column=exc.colno) from None
    except ValueError as exc:
        line, column = _position(text, max(text.find(str(exc)), 0))
        raise AikitError(f"{path} is no JSON: line {line}, column {column}: {exc} is no number there.", _MEND, line=line, column=column) from None
    except RecursionError:
        raise AikitError(f"{path} is nested too deep.", _MEND) from None
    if not isinstance(found, dict):
        line, column = _position(text, len(text) - len(text.lstrip()))
        raise AikitError(
            f"{path} holds no object: line {line}, column {column}: Docker's settings stand between {{ and }}.", _MEND, line=line, column=column
        )
    _refuse_duplicates(text, path)
    return found


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _position(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _refuse_duplicates(text: str, path: str) -> None:
    """A key that stands twice: dockerd takes the last and forgets the first, and so would we. ``text`` is valid JSON."""
    seen: list[Optional[dict[str, int]]] = []
    key_next = False
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in "{[":
            seen.append({} if word == "{" else None)
            key_next = word == "{"
        elif word in "}]":
            seen.pop()
            key_next = False
        elif word in ",:":
            key_next = word == "," and seen[-1] is not None
        elif key_next:
            keys, key = seen[-1], json.loads(word)
            assert keys is not None
            line, column = _position(text, token.start())
            if key in keys:
                raise AikitError(
                    f"{path} holds the key {key} twice: line {keys[key]}, and again line {line}, column {column}.",
                    f"Docker would read only the second one: leave one of them. {_MEND}",
                    line=line,
                    column=column,
                )
            keys[key] = line


def _same(one: Any, other: Any) -> bool:
    # Not ==: for Python true is 1 and 1.0
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def merge(found: Any, wanted: Any) -> Any:
    """``wanted`` laid into ``found``: objects key by key, lists by adding what is missing, all else replaced."""
    if isinstance(found, dict) and isinstance(wanted, Mapping):
        merged = dict(found)
        for key, value in wanted.items():
            merged[key] = merge(found.get(key), value)
        return merged
    if isinstance(found, list) and isinstance(wanted, (list, tuple)):
        return found + [item for index, item in enumerate(wanted) if not any(_same(item, other) for other in (*found, *wanted[:index]))]
    return _copy(wanted)


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def take_out(found: Mapping[str, Any], dotted: str) -> dict[str, Any]:
    """``found`` without the key; objects that have nothing else in them go too."""
    # A key may hold dots itself ("com.example.x" of log-opts): the longest that is there counts
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:length]), ".".join(parts[length:])
        if key not in found:
            continue
        if not rest:
            return {name: value for name, value in found.items() if name != key}
        if isinstance(found[key], dict):
            inner = take_out(found[key], rest)
            if inner == found[key]:
                continue
            return {name: (inner if name == key else value) for name, value in found.items() if name != key or inner}
    return dict(found)


def plan(text: Optional[str], path: str, settings: Mapping[str, Any], absent: Sequence[str]) -> Change:
    """What changes when ``absent`` is taken out of the file and then ``settings`` are merged into it."""
    before = parse(text, path)
    after: dict[str, Any] = before
    for dotted in absent:
        after = take_out(after, dotted)
    after = merge(after, settings)
    # A key that is taken out and set again (a list that is replaced) keeps its place in the file
    after = {key: after[key] for key in (*before, *after) if key in after}
    if _same(before, after):
        return Change(Plan(), text or "", (), ())
    changed = tuple(_changed(before, after))
    tops = sorted({key for key in {*before, *after} if _differs(key, before, after)})
    actions = tuple(Action("remove" if gone else "set", dotted, f"in {path}") for dotted, gone in changed)
    return Change(
        plan=Plan(actions, {key: before[key] for key in tops if key in before}, {key: after[key] for key in tops if key in after}),
        text=render(after, text),
        restart_keys=tuple(dotted for dotted, _gone in changed if not _reloads(dotted, before, after)),
        keys=tuple(tops),
    )


def _differs(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return not (key in before and key in after and _same(before[key], after[key]))


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, bool]]:
    """Dotted names of the values that differ, each with whether it is gone."""
    for key in (*before, *(name for name in after if name not in before)):
        if not _differs(key, before, after):
            continue
        old, new = before.get(key, {}), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and new:
            yield from _changed(old, new, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", key not in after


def _reloads(dotted: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    top = dotted.partition(".")[0]
    if top == "features":
        # One that went with the whole object may have been any of them
        names = [dotted] if dotted != top else [f"features.{name}" for name in {**_object(before, top), **_object(after, top)}]
        return all(name in data.RELOADABLE for name in names)
    return top in (data.RELOADABLE if top in after else data.RESET_BY_RELOAD)


def _object(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}


def render(settings: Mapping[str, Any], like: Optional[str] = None) -> str:
    """The file; indented as ``like`` is."""
    found = _INDENT.search(like or "")
    return json.dumps(settings, indent=found.group(1) if found else 2, ensure_ascii=False) + "\n"


def flags(argv: Iterable[str]) -> dict[str, str]:
    """Key of daemon.json -> the flag that sets it, of a dockerd command line."""
    found = {}
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--"):
            found[data.FLAG_KEYS.get(name, name[2:])] = name
        elif re.match(r"-[A-Za-z]", name):
            # -Hfd:// and -H fd://; a cluster of switches such as -Dl is not worth the reading
            found.setdefault(data.FLAG_KEYS.get(name[:2], ""), name[:2])
    found.pop("", None)
    return found


def unit_argv(text: str) -> tuple[str, ...]:
    """The command line in what ``systemctl show --property=ExecStart`` says; variables in it are unknown here and left out."""
    found = re.search(r"argv\[\]=(.*?) ; ", text)
    if not found:
        return ()
    try:
        words = shlex.split(found.group(1))
    except ValueError:
        words = found.group(1).split()
    return tuple(word for word in words if not word.startswith("$"))


def config_file(process: Process) -> str:
    """The file that a dockerd reads; empty for one of a user's own that does not say."""
    argv = process.argv
    for index, word in enumerate(argv):
        if word.startswith("--config-file="):
            return word.partition("=")[2]
        if word == "--config-file" and index + 1 < len(argv):
            return argv[index + 1]
    return data.CONFIG_FILE if process.root else ""


def refuse_flags(change: Change, settings: Mapping[str, Any], path: str, command_lines: Iterable[tuple[str, Sequence[str]]]) -> None:
    """dockerd does not start with a key that is also a flag of its: AikitError before anything is written.

    ``command_lines``: whose it is ("the running dockerd (pid 12)", "docker.service"), and the words.
    """
    wanted = {name for key in settings for name in (_object(settings, key) if key in data.GROUPS else (key,)) if key in change.keys}
    for whose, argv in command_lines:
        for key, flag in flags(argv).items():
            if key in wanted and key not in data.MERGED_WITH_FLAGS:
                raise AikitError(
                    f"{key} cannot be set in {path}: {whose} sets it with the flag {flag}, and dockerd refuses to start with both.",
                    f"Take {flag} out of the command line (systemctl edit docker.service, or /etc/default/docker) or leave {key} out of the settings.",
                    key=key,
                    flag=flag,
                )


def refuse_invalid(path: str, output: str) -> None:
    """Raise what ``dockerd --validate`` said."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = lines[-1] if lines else "it gives no reason"
    raise AikitError(
        f"dockerd would not start with the new {path}: {said}.".replace("..", "."), "Nothing was changed: correct the settings, or what the file holds already."
    )


def cannot_validate(output: str) -> bool:
    """Whether a dockerd is too old to be asked (before 23.0)."""
    return "unknown flag: --validate" in output


def refuse_unknown(path: str, help_text: str, settings: Mapping[str, Any]) -> None:
    """For a dockerd that cannot validate: it would not start with a key that it does not know. ``help_text``: of dockerd --help."""
    known = {data.FLAG_KEYS.get(flag, flag[2:]) for flag in re.findall(r"--[a-z][a-z0-9-]+", help_text)} | data.WITHOUT_FLAG | data.GROUPS
    strange = [key for key in settings if key not in known] if "--config-file" in help_text else []
    if strange:
        raise AikitError(
            f"dockerd would not start with the new {path}: this version knows no setting {', '.join(strange)}.",
            "Nothing was changed: leave it out, or update Docker.",
        )
