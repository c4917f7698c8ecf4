# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads an aikitfile on the controller: what it says, where it says it, and what is wrong with its YAML.

Modules run where PyYAML may be missing, and Ansible would template what LocalAI's templates look like. So the file is read
here, as it is, and travels to the module as plain data: the "source" mapping that ``_core/aikitfile.py`` takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Optional

import yaml
from ansible.errors import AnsibleError
from ansible.template import is_trusted_as_template

from ..module_utils._core import variables
from ..module_utils._core.errors import AikitError
from ..module_utils._core.yaml_text import render

# Anchors can turn a small file into a huge document
MAX_NODES = 100_000
MAX_BYTES = 8 * 1024 * 1024
_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "value")}


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates: AIKit and LocalAI read them as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def from_task(action: Any, definition: Any, src: Any) -> Optional[dict[str, Any]]:
    """The source mapping for a task's ``definition`` or ``src``, None unless exactly one of them is given.

    ``action`` is the action plugin: a relative ``src`` is looked for where Ansible looks for files of a task.
    A file that is not there, or cannot be read, is an :class:`AikitError`.
    """
    if (definition is None) == (src is None):
        return None
    if definition is not None:
        return from_definition(definition)
    try:
        return from_file(action._find_needle("files", str(src)), str(src))
    except AnsibleError as exc:  # Ansible prints a cause below an error: ours says all that it would
        searched = ", ".join(dict.fromkeys(getattr(exc, "paths", None) or ()))
        where = f"Searched: {searched}." if searched else exc.message
        raise AikitError(f"src: there is no file {src} on the controller.", where) from None
    except OSError as exc:
        raise AikitError(f"src: {exc.filename} cannot be read: {exc.strerror}.") from None


def finalize(name: str, value: Any, templar: Any) -> Any:
    """A task's argument, templated. A ``definition`` that holds templates of LocalAI and is not ``!unsafe`` is refused with that hint."""
    if name != "definition":
        return templar.template(value)
    found = variables.go_templates(value, name, is_trusted_as_template)
    if found:
        raise AnsibleError("\n".join(finding.describe() for finding in found))
    try:
        return templar.template(value)
    except AnsibleError as exc:
        hint = "If that is a template of LocalAI, mark the definition (definition: !unsafe), or put the aikitfile into a file and name it with src."
        raise AnsibleError(f"definition cannot be templated: {str(exc).rstrip('.')}. {hint}") from None


def from_file(path: str, name: str = "") -> dict[str, Any]:
    """Read a file. ``name`` is what messages call it."""
    with open(path, "rb") as handle:
        data = handle.read(MAX_BYTES + 1)
    source = from_bytes(data, name or path)
    source["directory"] = os.path.dirname(os.path.abspath(path))
    return source


def from_bytes(data: bytes, name: str) -> dict[str, Any]:
    """The source mapping for the bytes of a file."""
    if len(data) > MAX_BYTES:
        return _source(name, "", [_problem("", 0, f"is larger than {MAX_BYTES} bytes", "an aikitfile is a small text; this is another file")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        return _source(name, "", [_problem("", line, f"is not UTF-8: byte {exc.start} is 0x{data[exc.start]:02x}", "save it as UTF-8")])
    return from_text(text, name)


def from_definition(definition: Any, name: str = "definition") -> dict[str, Any]:
    """The source mapping for an inline definition. It has no lines; its text is the block YAML that would be written."""
    try:
        document = _plain(definition, [MAX_NODES])
        text = render(document)
    except AikitError as exc:
        return _source(name, "", [_problem("", 0, exc.message, exc.hint)])
    source = from_text(text, name)
    source.update(document=document, lines={}, text_lines={}, config_lines={})
    for problem in source["problems"]:
        problem["line"] = 0
    return source


def from_text(text: str, name: str) -> dict[str, Any]:
    """The source mapping for the text of an aikitfile."""
    problems: list[dict[str, Any]] = []
    reader = _Reader(problems)
    document = reader.read(text, 0, "")
    source = _source(name, text, problems)
    source.update(document=document, lines=reader.lines, text_lines=reader.text_lines)
    config = document.get("config") if isinstance(document, dict) else None
    if isinstance(config, str) and config.strip():
        first = reader.text_lines.get("config", 0)
        fixed = reader.lines.get("config", 0) if not first else 0
        inner = _Reader(problems, fixed)
        inner.indent = _indent(text, config, first)
        source["config_document"] = _read_config(inner, config, first)
        source["config_lines"] = {path[len("config") :]: line for path, line in inner.lines.items()}
    return source


def _indent(text: str, block: str, first: int) -> int:
    """How far a literal block, whose text begins on line ``first``, is indented in the file."""
    if not first:
        return 0
    row = next((number for number, line in enumerate(block.split("\n")) if line), 0)
    rows = text.split("\n")
    there = rows[first - 1 + row].rstrip("\r") if first - 1 + row < len(rows) else ""
    return max(len(there) - len(block.split("\n")[row]), 0)


def _read_config(reader: _Reader, config: str, first: int) -> Any:
    """Parse the ``config`` block; ``first`` is the line it begins on.

    For AIKit's releases up to v0.21.0 double quotes are written ``\\"``. Most such texts are YAML as they stand, the
    others are read the way LocalAI will see them.
    """
    found = len(reader.problems)
    document = reader.read(config, first - 1 if first else 0, "config")
    if len(reader.problems) > found and '\\"' in config:
        kept, reader.problems[found:] = reader.problems[found:], []
        document = reader.read(config.replace('\\"', '"'), first - 1 if first else 0, "config")
        if len(reader.problems) > found:
            reader.problems[found:] = kept
    return document


class _Reader:
    """One YAML text to plain data, with the line of every path. ``fixed`` is the line of everything where lines say nothing."""

    def __init__(self, problems: list[dict[str, Any]], fixed: int = 0) -> None:
        self.problems = problems
        self.fixed = fixed
        self.lines: dict[str, int] = {}
        self.text_lines: dict[str, int] = {}
        self.nodes = 0
        self.offset = 0
        self.indent = 0

    def read(self, text: str, offset: int, root: str) -> Any:
        """The document, or None when it is empty or no YAML. ``offset`` is added to lines, ``root`` is the path of the document."""
        self.offset = offset
        self.nodes = 0
        loader = None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            return None if node is None else self._value(loader, node, root, [])
        except yaml.MarkedYAMLError as exc:
            self._syntax_error(exc, text, root)
        except yaml.reader.ReaderError as exc:
            line = text.count("\n", 0, exc.position) + 1 + offset
            self._add(root, line, f"holds character U+{exc.character:04X}, which YAML does not allow", "remove it")
        except _TooLarge:
            self._add(root, 0, f"grows beyond {MAX_NODES} values", "anchors and aliases repeat too much")
        except RecursionError:
            self._add(root, 0, "is nested too deeply")
        finally:
            if loader is not None:
                loader.dispose()
        return None

    def _syntax_error(self, exc: yaml.MarkedYAMLError, text: str, root: str) -> None:
        mark = exc.problem_mark or exc.context_mark
        line = (mark.line if mark else 0) + 1 + self.offset
        where = f", line {line}, column {mark.column + 1 + self.indent}" if mark and not self.fixed else ""
        context = f" ({exc.context})" if exc.context else ""
        rows = text.split("\n")
        row = rows[mark.line] if mark and mark.line < len(rows) else ""
        hint = ""
        if "\t" in row[: len(row) - len(row.lstrip())] or "'\\t'" in str(exc.problem):
            hint = "YAML is indented with spaces, never with tabs"
        elif any("{{" in above for above in rows[exc.context_mark.line if exc.context_mark else 0 : (mark.line if mark else 0) + 1]):
            hint = "a template with {{ }} belongs in quotes or below a |"
        elif exc.problem == "mapping values are not allowed here":
            hint = "a text with a colon in it belongs in single quotes"
        elif "expected a single document" in str(exc.context):
            hint = "an aikitfile is one document: remove the second ---"
        self._add(root, line, f"is no valid YAML{where}: {exc.problem}{context}", hint)

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, path: str, above: list[int]) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _TooLarge
        if id(node) in above:
            self._add(path, self._line(node), "an alias stands inside what it repeats")
            return None
        line = self._line(node)
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(loader, node, path)
        inside = [*above, id(node)]
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "tag:yaml.org,2002:seq", path)
            return [self._value(loader, item, f"{path}[{index}]", inside) for index, item in enumerate(node.value)]
        self._check_tag(node, "tag:yaml.org,2002:map", path)
        return self._mapping(loader, node, path, inside)

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.Node, path: str, above: list[int]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[Any] = []
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = self._line(key_node)
            if key_node.tag == _MERGE:
                merged.append(self._value(loader, value_node, path, above))
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                hint = "a template with {{ }} belongs in quotes or below a |"
                self._add(path, line, "a key is text, this one is a mapping or a list", hint)
                continue
            key = key_node.value
            where = f"{path}.{key}" if path else key
            if key in first:
                self._add(
                    where, line, f"key {key} is there twice, first on line {first[key]}" if first[key] and not self.fixed else f"key {key} is there twice"
                )
                continue
            first[key] = line
            self.lines[where] = line
            result[key] = self._value(loader, value_node, where, above)
        for value in merged:
            for entry in value if isinstance(value, list) else [value]:
                if isinstance(entry, dict):
                    for key, inherited in entry.items():
                        result.setdefault(key, inherited)
                else:
                    self._add(path, self._line(node), "<< merges mappings only")
        return result

    def _scalar(self, loader: yaml.SafeLoader, node: yaml.ScalarNode, path: str) -> Any:
        if node.style == "|":
            self.text_lines[path] = node.start_mark.line + 2 + self.offset
        if node.tag not in _SCALARS:
            self._tag_problem(node, path)
            return node.value
        if node.tag == "tag:yaml.org,2002:value":
            return node.value
        try:
            return loader.construct_object(node)
        except ValueError:
            # Such as 0b or 1__: what the resolver takes for a number and Python does not
            return node.value

    def _check_tag(self, node: yaml.Node, expected: str, path: str) -> None:
        if node.tag != expected:
            self._tag_problem(node, path)

    def _tag_problem(self, node: yaml.Node, path: str) -> None:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        hint = "!unsafe is for definitions inside a playbook; in a file of its own nothing is templated" if tag == "!unsafe" else "remove it"
        self._add(path, self._line(node), f"tag {tag} means nothing here", hint)

    def _line(self, node: yaml.Node) -> int:
        return self.fixed or int(node.start_mark.line) + 1 + self.offset

    def _add(self, path: str, line: int, message: str, hint: str = "") -> None:
        self.problems.append(_problem(path, self.fixed or line, message, hint))


class _TooLarge(Exception):
    pass


def _problem(path: str, line: int, message: str, hint: str = "") -> dict[str, Any]:
    return {"level": "error", "path": path, "line": line, "message": message, "hint": hint}


def _source(name: str, text: str, problems: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "text": text,
        "document": None,
        "lines": {},
        "text_lines": {},
        "config_document": None,
        "config_lines": {},
        "problems": problems,
        "directory": "",
    }


def _plain(value: Any, left: list[int], path: str = "") -> Any:
    """Ansible's own kinds of text, mapping and list as plain ones."""
    left[0] -= 1
    if left[0] < 0:
        raise AikitError(f"holds more than {MAX_NODES} values")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise AikitError(f"{path or 'the definition'} has key {key!r}, which is not text")
        return {str.__str__(key): _plain(entry, left, f"{path}.{key}" if path else str(key)) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, left, f"{path}[{index}]") for index, entry in enumerate(value)]
    return re.sub(r"\s+", " ", str(value))
