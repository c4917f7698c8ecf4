# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the house that no linter knows: purity of _core, direction of imports, roles that say what they take."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted((ROOT / "plugins/module_utils/_core").glob("*.py"))
EFFECTS = sorted((ROOT / "plugins/module_utils/_io").glob("*.py"))
MODULES = sorted((ROOT / "plugins/modules").glob("*.py"))
ROLES = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
PREFIX = "ansible_collections.aikit.fleet.plugins."


def imports(path):
    """(level, module) of every import statement."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def ids(paths):
    return [path.stem if path.is_file() else path.name for path in paths]


@pytest.mark.parametrize("path", CORE, ids=ids(CORE))
def test_core_is_pure(path):
    # What reaches outside the process, or the clock, has no place in a decision
    allowed = sys.stdlib_module_names - {"subprocess", "socket", "urllib", "http", "os", "shutil", "tempfile", "pathlib", "time", "glob", "threading"}
    for level, module in imports(path):
        if level == 0:
            assert module.partition(".")[0] in allowed, f"{path.name} imports {module}"
        else:
            assert level == 1, f"{path.name} imports from outside _core: {'.' * level}{module}"
    calls = [node.func.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not {"open", "print", "eval", "exec", "input"} & set(calls)


CORE_TESTS = sorted((ROOT / "tests/unit/core").glob("*.py"))


@pytest.mark.parametrize("path", CORE_TESTS, ids=ids(CORE_TESTS))
def test_what_tests_core_needs_no_ansible(path):
    """It runs on every Python that a host may have."""
    for _level, module in imports(path):
        assert module.partition(".")[0] != "ansible" and not (module.startswith(PREFIX) and not module.startswith(f"{PREFIX}module_utils.")), module
        assert module != PREFIX.rstrip("."), "import from what is in it"


@pytest.mark.parametrize("path", EFFECTS, ids=ids(EFFECTS))
def test_effects_import_only_downwards(path):
    for level, module in imports(path):
        assert not module.startswith(PREFIX), "imports inside module_utils are relative"
        if level == 2:
            assert module.startswith("_core"), f"{path.name} imports {module}"
        if level == 0 and module.startswith("ansible"):
            assert module.startswith("ansible.module_utils"), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_modules_are_thin(path):
    tree = ast.parse(path.read_text())
    code = [node for node in tree.body if not (isinstance(node, ast.Assign) and node.targets[0].id in ("DOCUMENTATION", "EXAMPLES", "RETURN", "ARGUMENT_SPEC"))]
    lines = sum(node.end_lineno - node.lineno + 1 for node in code)
    assert lines <= 60, f"{lines} lines of code"


def texts(path):
    """The documentation in a module or a fragment."""
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("DOCUMENTATION", "EXAMPLES")
    }


@pytest.mark.parametrize("path", MODULES, ids=ids(MODULES))
def test_module_examples_name_real_options(path):
    documentation = yaml.safe_load(texts(path)["DOCUMENTATION"])
    options = documentation.get("options") or {}
    for fragment in documentation.get("extends_documentation_fragment", ()):
        source = ROOT / "plugins/doc_fragments" / f"{fragment.rpartition('.')[2]}.py"
        options.update(yaml.safe_load(texts(source)["DOCUMENTATION"])["options"])
    required = {name for name, option in options.items() if option.get("required")}

    class Loader(yaml.SafeLoader):
        pass

    def unsafe(loader, node):
        return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else loader.construct_scalar(node)

    Loader.add_constructor("!unsafe", unsafe)
    tasks = yaml.load(texts(path)["EXAMPLES"], Loader)
    name = f"aikit.fleet.{path.stem}"
    used = [task[name] or {} for task in tasks if name in task]
    assert used, "no example uses the module"
    for arguments in used:
        assert set(arguments) <= set(options)
        assert required <= set(arguments)


def load(path):
    return yaml.safe_load(path.read_text()) if path.is_file() else None


@pytest.mark.parametrize("role", ROLES, ids=ids(ROLES))
def test_defaults_equal_the_argument_specs(role):
    defaults = load(role / "defaults/main.yml") or {}
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    for entry, spec in specs.items():
        for name, option in (spec.get("options") or {}).items():
            assert name.startswith(f"{role.name}_"), f"{entry}: {name} lacks the role's prefix"
            if "default" in option:
                assert name in defaults and defaults[name] == option["default"], f"{entry}: {name}"
    described = {name for spec in specs.values() for name in (spec.get("options") or {})}
    assert set(defaults) <= described, f"not in argument_specs: {sorted(set(defaults) - described)}"


@pytest.mark.parametrize("role", ROLES, ids=ids(ROLES))
def test_every_entry_point_exists_and_is_described(role):
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    for entry, spec in specs.items():
        assert (role / "tasks" / f"{entry}.yml").is_file(), entry
        assert spec["short_description"] and spec["description"]


def known_variables():
    found = set()
    for role in ROLES:
        found |= set(load(role / "defaults/main.yml") or {})
        for spec in load(role / "meta/argument_specs.yml")["argument_specs"].values():
            found |= set(spec.get("options") or {})
    return found


DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.yml"), *(ROOT / "playbooks").glob("*.yml")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_no_document_names_a_variable_that_does_not_exist(path):
    from ansible_collections.aikit.fleet.plugins.module_utils._core import data_variables

    prefixes = tuple(f"{role.name}_" for role in ROLES)
    known = known_variables() | set(data_variables.PLAYBOOK_VARIABLES) | {path.stem for path in MODULES}
    facts = {f"{role.name}_{word}" for role in ROLES for word in data_variables.RESULT_SUFFIXES}
    words = set(re.findall(r"(?<![\w./:#-])[a-z][a-z0-9_]+(?![\w/-])", path.read_text()))
    strange = {word for word in words if word.startswith(prefixes)} - known - facts
    assert not strange


def test_no_text_says_how_the_project_is_made_or_where():
    """The project speaks of itself alone: no machine's path, no registry's host."""
    pattern = re.compile(r"/w[o]rk/|(?:deb|security)\.d[e]bian\.org|https?://[a-z.]*(?:pypi|npmjs|pythonhosted)\.", re.I)
    suffixes = {".py", ".yml", ".yaml", ".md", ".txt", ".cfg", ".toml", ".sh", ""}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if not path.is_file() or parts[0].startswith(".") and parts[0] != ".ci" or path.suffix not in suffixes or "__pycache__" in parts or "output" in parts:
            continue
        assert not pattern.search(path.read_text(errors="replace")), path
