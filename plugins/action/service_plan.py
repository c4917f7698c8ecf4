# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resolve the services of a host. Everything that is decided here is decided in _core; this reads files and variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Mapping, Optional

import yaml
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import is_trusted_as_template
from ansible.utils.vars import load_extra_vars

from ..module_utils._core import aikitfile, builder, services, variables, wish
from ..module_utils._core.errors import Finding
from ..plugin_utils import yaml_source
from ..plugin_utils.plain import plain

COLLECTION = Path(__file__).resolve().parents[2]
SERVICES = "inference_services"
DEFAULTS = "inference_service_defaults"


class ActionModule(ActionBase):
    _requires_connection = False
    _VALID_ARGS = frozenset(("services", "defaults", "project_dir", "aikit_version"))
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _unused, arguments = self.validate_argument_spec(
            {
                "services": {"type": "raw"},
                "defaults": {"type": "raw"},
                "project_dir": {"type": "str"},
                "aikit_version": {"type": "str", "default": aikitfile.DEFAULT_VERSION},
            }
        )
        task_vars = task_vars or {}
        findings = self._variable_findings(task_vars)
        if "services" in self._task.args:
            wanted = arguments["services"]
        else:
            wanted = self._own(SERVICES, task_vars, findings)
        defaults = arguments["defaults"] if "defaults" in self._task.args else self._own(DEFAULTS, task_vars, findings)
        project_dir = self._project_dir(arguments["project_dir"], task_vars)
        resolved, remarks = services.resolve(plain(wanted), plain(defaults))
        findings += [("", remark) for remark in remarks]
        plans = []
        for service in resolved:
            plan, told = _plan(service, project_dir, service.aikit_version or arguments["aikit_version"])
            plans.append(plan)
            findings += told
        findings += [("", remark) for remark in services.crowded(plans)]
        _raise(findings, task_vars.get("inventory_hostname", "this host"))
        for name, finding in findings:
            if finding.level == "warning":
                self._display.warning(finding.describe(name))
        result.update(
            changed=False,
            services=plans,
            uses_gpus=any(plan["state"] == "present" and wish.uses_gpu(plan) for plan in plans),
            wants_gpus=any(plan["gpus"] and plan["state"] == "present" for plan in plans),
            project_dir=project_dir,
            findings=[finding.as_dict() for _name, finding in findings],
        )
        return result

    def _own(self, name: str, task_vars: Mapping[str, Any], findings: list[tuple[str, Finding]]) -> Any:
        """A variable of the host, templated; None when it cannot be."""
        raw = task_vars.get(name)
        if raw is None:
            return None
        source = variables.referenced(raw)
        seen = task_vars.get(source, raw) if source else raw
        found = variables.go_templates(seen, source or name, is_trusted_as_template)
        if found:
            findings += [("", finding) for finding in found]
            return None
        try:
            return plain(self._templar.template(raw))
        except AnsibleError as exc:
            hint = "If that is a template of LocalAI, mark the definition: !unsafe."
            findings.append(("", Finding("error", name, 0, f"cannot be templated: {exc}", hint)))
            return None

    def _variable_findings(self, task_vars: Mapping[str, Any]) -> list[tuple[str, Finding]]:
        findings = list(variables.unknown(task_vars, _known_variables()))
        host = task_vars.get("inventory_hostname")
        hostvars = task_vars.get("hostvars")
        if host is not None and hostvars is not None:
            extra = load_extra_vars(self._loader)
            findings += variables.play_level(hostvars.raw_get(host), extra)
        return [("", finding) for finding in findings]

    def _project_dir(self, asked: Optional[str], task_vars: Mapping[str, Any]) -> str:
        playbook_dir = os.path.abspath(str(task_vars.get("playbook_dir") or "."))
        if asked:
            found = os.path.normpath(os.path.join(playbook_dir, os.path.expanduser(asked)))
            if not os.path.isdir(found):
                raise AnsibleActionFail(f"project_dir: there is no folder {found}.")
            return found
        sources = [str(source) for source in task_vars.get("ansible_inventory_sources") or ()]
        if len(sources) == 1 and os.path.exists(sources[0]):
            source = os.path.abspath(sources[0])
            return source if os.path.isdir(source) else os.path.dirname(source)
        # A playbook of the collection itself (ansible-playbook aikit.fleet.deploy) says nothing about the user's files
        if COLLECTION in (Path(playbook_dir).resolve(), *Path(playbook_dir).resolve().parents):
            return os.getcwd()
        return playbook_dir


def _plan(
    service: services.Service, project_dir: str, aikit_version: str
) -> tuple[dict[str, Any], list[tuple[str, Finding]]]:
    """The service as a plan, and the findings about its aikitfile with the name of the file."""
    findings: list[tuple[str, Finding]] = []
    document = None
    found: dict[str, Any] = {"runtime": "", "parsed": {}, "models": [], "aikitfile_sha256": "", "context": "", "src": "", "builder": "", "builder_reason": ""}
    if service.built and service.state == "present":
        source, path = _source(service, project_dir, findings)
        found["src"] = path
        if source is not None:
            document, remarks = aikitfile.validate(source, aikit_version)
            findings += [(source["name"], remark) for remark in remarks]
            found["context"] = _resolve(project_dir, service.context) if service.context else source["directory"] or project_dir
            found["parsed"] = source
            if document is not None:
                found["runtime"] = document.runtime
                found["aikitfile_sha256"] = document.sha256
                found["models"] = [{"name": model.name, "source": model.source, "sha256": model.sha256 or ""} for model in document.models]
                findings += [("", remark) for remark in services.conflicts(services.complete(service, document.runtime), document.runtime)]
    completed = services.complete(service, found["runtime"])
    if document is not None:
        choice = builder.decide(completed.server, "auto", document, aikit_version, (), {})
        found.update(builder=choice.builder, builder_reason=choice.reason)
    wished = wish.wish(completed, document, aikit_version)
    findings += [("", remark) for remark in wish.findings(completed, wished)]
    return {**completed.as_dict(), **found, "wish": wished}, findings


def _source(
    service: services.Service, project_dir: str, findings: list[tuple[str, Finding]]
) -> tuple[Optional[dict[str, Any]], str]:
    if service.definition is not None:
        return yaml_source.from_definition(service.definition, f"definition of {service.name}"), ""
    path = _resolve(project_dir, service.src)
    try:
        return yaml_source.from_file(path, service.src), path
    except OSError as exc:
        hint = "Relative paths start from the folder of the inventory; inference_project_dir names another one."
        message = f"cannot read {path}: {exc.strerror or exc}"
        findings.append(("", Finding("error", f"{service.path}.src", 0, message, hint)))
        return None, path


def _resolve(project_dir: str, path: str) -> str:
    return os.path.normpath(os.path.join(project_dir, os.path.expanduser(path)))


def _raise(findings: list[tuple[str, Finding]], host: str) -> None:
    errors = [finding.describe(name) for name, finding in findings if finding.level == "error"]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        lines = "\n".join(f"  {line}" for line in errors)
        raise AnsibleActionFail(
            f"The services of {host} have {count}:\n{lines}",
            result={"findings": [finding.as_dict() for _name, finding in findings]},
        )


def _known_variables() -> dict[str, set[str]]:
    """The options of every role of this collection, read from where users read them too."""
    known: dict[str, set[str]] = {}
    for path in sorted(COLLECTION.glob("roles/*/meta/argument_specs.yml")):
        with open(path, encoding="utf-8") as handle:
            document = yaml.safe_load(handle) or {}
        options: set[str] = set()
        for entry in (document.get("argument_specs") or {}).values():
            options |= set((entry or {}).get("options") or ())
        known[path.parent.parent.name] = options
    return known
