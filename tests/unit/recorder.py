# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the tasks of a role on a host that is only described, and writes down what each would do: module and every argument.

Conditions, loops, includes and filters are Ansible's own; the modules are not run. ``answers`` says what a task that registers something
gets to hear. So the commands and files of systems that no test can run on can be read, and compared with what they should be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Optional

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

KEYWORDS = {
    "name",
    "when",
    "become",
    "register",
    "loop",
    "loop_control",
    "vars",
    "changed_when",
    "failed_when",
    "check_mode",
    "block",
    "rescue",
    "always",
    "until",
    "retries",
    "delay",
    "environment",
    "tags",
    "run_once",
}


class Stopped(Exception):
    """A task that ends the role: a refusal."""


def trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trusted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [trusted(inner) for inner in value]
    return trust_as_template(value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """Without Ansible's marks, so that it can be written as YAML."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, bool) or value is None:
        return value
    return int(value) if isinstance(value, int) else str(value)


class Recorder:
    """``done`` is what ran, in order: {module, arguments}, with ``loop`` items as one entry each."""

    def __init__(self, role: Path, variables: Mapping[str, Any], answers: Optional[Mapping[str, Any]] = None) -> None:
        self.role = role
        self.variables: dict[str, Any] = {"role_path": str(role), "inventory_hostname": "host", "ansible_check_mode": False, **variables}
        self.variables.update(trusted(yaml.safe_load((role / "defaults/main.yml").read_text())), **variables)
        self.variables.update({key: value for key, value in trusted(yaml.safe_load((role / "vars/main.yml").read_text())).items() if key not in variables})
        self.answers = answers or {}
        self.done: list[dict[str, Any]] = []

    def run(self, name: str) -> list[dict[str, Any]]:
        self._file(name, {})
        return self.done

    def _templar(self, local: Mapping[str, Any]) -> Templar:
        return Templar(loader=DataLoader(), variables={**self.variables, **local})

    def _file(self, name: str, local: Mapping[str, Any]) -> None:
        self._tasks(yaml.safe_load((self.role / "tasks" / name).read_text()), local)

    def _tasks(self, tasks: list[dict[str, Any]], local: Mapping[str, Any]) -> None:
        for task in tasks:
            here = {**local, **trusted(task.get("vars") or {})}
            if "loop" in task:
                self._loop(task, here)
            elif self._wanted(task, here):
                self._task(task, here)
            elif "register" in task:
                self.variables[task["register"]] = {"skipped": True, "changed": False}

    def _loop(self, task: dict[str, Any], local: Mapping[str, Any]) -> None:
        name = (task.get("loop_control") or {}).get("loop_var", "item")
        results = []
        for item in self._templar(local).template(trusted(task["loop"])):
            here = {**local, name: item}
            results.append({"item": item, **(self._task(task, here) if self._wanted(task, here) else {"skipped": True})})
        if "register" in task:
            self.variables[task["register"]] = {"results": results, "changed": any(result.get("changed") for result in results)}

    def _wanted(self, task: dict[str, Any], local: Mapping[str, Any]) -> bool:
        conditions = task.get("when", [])
        templar = self._templar(local)
        return all(self._true(templar, condition) for condition in (conditions if isinstance(conditions, list) else [conditions]))

    @staticmethod
    def _true(templar: Templar, condition: Any) -> bool:
        return condition if isinstance(condition, bool) else bool(templar.evaluate_conditional(trust_as_template(condition)))

    def _task(self, task: dict[str, Any], local: Mapping[str, Any]) -> dict[str, Any]:
        if "block" in task:
            for part in ("block", "always"):
                self._tasks(task.get(part) or [], local)
            return {}
        (module,) = set(task) - KEYWORDS
        short = module.rpartition(".")[2]
        templar = self._templar(local)
        if short in ("include_tasks", "import_tasks"):
            name = task[module]["file"] if isinstance(task[module], dict) else task[module]
            self._file(str(templar.template(trusted(name))), local)
        elif short == "set_fact":
            for key, value in task[module].items():
                self.variables[key] = templar.template(trusted(value))
        elif short == "assert":
            conditions = task[module]["that"]
            if not all(self._true(templar, condition) for condition in (conditions if isinstance(conditions, list) else [conditions])):
                raise Stopped(str(templar.template(trusted(task[module]["fail_msg"]))))
        elif short != "debug":
            return self._module(task, module, templar)
        return {}

    def _module(self, task: dict[str, Any], module: str, templar: Templar) -> dict[str, Any]:
        entry = {"module": module, "arguments": plain(templar.template(trusted(task[module] or {})))}
        if task.get("environment"):
            entry["environment"] = plain(templar.template(trusted(task["environment"])))
        # Nothing that changes a host works without
        entry["become"] = bool(task.get("become"))
        self.done.append(entry)
        answer = {"changed": True, **self.answers.get(task["name"], {})}
        if "register" in task and "loop" not in task:
            self.variables[task["register"]] = answer
        return answer
