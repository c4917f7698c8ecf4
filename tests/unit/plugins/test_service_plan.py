# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action as users meet it: in a playbook, with an inventory, since variables and their templates are what it is about."""

from __future__ import annotations

import json

import pytest
import support

SHA256 = "0" * 64
INVENTORY = {
    "inventory.yml": """\
aikit_hosts:
  hosts:
    h1: {}
    h2: {aikit_max_fail_percentage: 10}
""",
    "group_vars/aikit_hosts.yml": f"""\
aikit_serial: 2
secret: correct-horse
inference_service_defaults:
  settings: {{threads: 2}}
inference_services:
  - name: llama
    src: aikitfiles/llama.yaml
    port: "{{{{ 8000 + 81 }}}}"
    api_key: "{{{{ secret }}}}"
    bind_address: 0.0.0.0
  - name: inline
    port: 9000
    definition: !unsafe
      apiVersion: v1alpha1
      runtime: cuda
      models:
        - name: m
          source: https://models.example/m.gguf
          sha256: "{SHA256}"
          promptTemplates:
            - name: chat
              template: "{{{{.Input}}}}"
  - name: premade
    image: registry.example/premade:1
    gpus: [0]
    port: 9001
  - name: gone
    state: absent
    src: aikitfiles/removed-long-ago.yaml
""",
    "aikitfiles/llama.yaml": """\
apiVersion: v1alpha1
models:
  - name: llama
    source: llama.gguf
""",
}


def play(*tasks, **variables):
    return json.dumps([{"hosts": "aikit_hosts", "gather_facts": False, "vars": variables, "tasks": list(tasks)}])


def task(arguments=None, **variables):
    return {"name": "plan", "aikit.fleet.service_plan": arguments or {}, "vars": variables, "ignore_errors": True}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    for name, text in INVENTORY.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def good(project):
    """One run with services as people write them, on two hosts."""
    (project / "good.yml").write_text(play(task(), task({"project_dir": "aikitfiles"}, inference_services=[])), encoding="utf-8")
    return support.playbook("good.yml", "-i", "inventory.yml", "-e", "aikit_serial=1", cwd=project)


@pytest.fixture(scope="module")
def bad(project):
    """One run with every mistake."""
    document = {"apiVersion": "v1alpha1", "config": "- name: m\n  template:\n    chat: '{{.Input}}'\n"}
    tasks = [
        task(inference_services=[{"name": "llama", "definition": document}]),
        task(inference_services="{{ indirect }}", indirect=[{"name": "llama", "definition": document}]),
        task(
            inference_services=[
                {"name": "nix", "src": "nix.yaml", "prot": 1},
                {"name": "odd", "definition": {"apiVersion": "v9"}, "gpus": "all", "port": 2},
            ]
        ),
        task(inference_services="{{ nowhere }}"),
        task({"project_dir": "nowhere"}),
        task(inference_servces=[]),
        task({"services": [], "sevices": []}),
    ]
    (project / "bad.yml").write_text(play(*tasks), encoding="utf-8")
    return support.playbook("bad.yml", "-i", "inventory.yml", "--limit", "h1", cwd=project).results("plan")


def test_a_plan_is_complete(good, project):
    result = good.results("plan", "h1")[0]
    assert result["changed"] is False
    assert result["project_dir"] == str(project)
    llama, inline, premade, gone = result["services"]
    assert (llama["port"], llama["settings"], llama["has_api_key"]) == (8081, {"threads": 2}, True)
    assert (llama["src"], llama["context"]) == (f"{project}/aikitfiles/llama.yaml", f"{project}/aikitfiles")
    assert llama["parsed"]["lines"]["models[0].source"] == 4
    assert llama["models"] == [{"name": "llama", "source": "llama.gguf", "sha256": ""}]
    assert (inline["runtime"], inline["gpus"], inline["base_variant"], inline["expect"]) == ("cuda", ["all"], "", {"verdict": ["proven"]})
    # What needs commands inside the image of a release is known before anything is built
    assert (llama["builder"], inline["builder"], premade["builder"], gone["builder"]) == ("direct", "buildkit", "", "")
    assert inline["builder_reason"].startswith("with runtime cuda AIKit v0.21.0 runs commands inside the image")
    assert inline["parsed"]["document"]["models"][0]["promptTemplates"][0]["template"] == "{{.Input}}"
    assert inline["context"] == str(project)
    assert (premade["built"], premade["gpus"], premade["parsed"], premade["server"]) == (False, ["0"], {}, "")
    assert (gone["state"], gone["parsed"]) == ("absent", {})


def test_the_api_key_is_not_shown(good):
    assert "correct-horse" not in good.output


def test_play_level_variables_of_hosts_are_warned_of_but_extra_vars_are_not(good):
    found = {name: [finding["path"] for finding in good.results("plan", name)[0]["findings"]] for name in ("h1", "h2")}
    assert found == {"h1": [], "h2": ["aikit_max_fail_percentage"]}


def test_the_project_folder_can_be_named(good, project):
    assert [result["project_dir"] for result in good.results("plan", "h1")] == [str(project), f"{project}/aikitfiles"]


@pytest.mark.parametrize(("number", "path"), [(0, "inference_services[0].definition.config"), (1, "indirect[0].definition.config")])
def test_templates_of_localai_without_unsafe_are_named(bad, number, path):
    assert bad[number]["failed"]
    assert f"{path}: line 3 of the text: " in bad[number]["msg"]
    assert "Mark the definition (definition: !unsafe)" in bad[number]["msg"]


def test_all_mistakes_are_said_at_once(bad, project):
    lines = bad[2]["msg"].splitlines()
    assert any("inference_services[0].prot: is no key of a service (Did you mean port?)" in line for line in lines)
    assert any(f"inference_services[0].src: cannot read {project}/nix.yaml: No such file or directory" in line for line in lines)
    assert any("inference_services[1].gpus: must be a list" in line for line in lines)
    assert any("definition of odd" in line and "v9" in line for line in lines)
    assert {finding["level"] for finding in bad[2]["findings"]} >= {"error"}


def test_variables_that_cannot_be_templated(bad):
    assert "inference_services: cannot be templated" in bad[3]["msg"]
    assert "nowhere" in bad[3]["msg"]


def test_a_project_folder_that_is_not_there(bad, project):
    assert bad[4]["msg"].endswith(f"there is no folder {project}/nowhere.")


def test_a_misspelt_variable_is_named(bad):
    assert "inference_servces: is no variable of aikit.fleet, so nothing reads it (Did you mean inference_services?)" in bad[5]["msg"]


def test_a_misspelt_option_is_an_error(bad):
    assert bad[6]["failed"] and "sevices" in bad[6]["msg"]


def test_set_for_a_group_it_is_warned_of(project):
    (project / "short.yml").write_text(play(task({"services": []})), encoding="utf-8")
    two = support.playbook("short.yml", "-i", "inventory.yml", "-i", "h3,", "--limit", "h1", cwd=project).results("plan")[0]
    assert [finding["path"] for finding in two["findings"]] == ["aikit_serial"]
    # Several inventories: the folder of the playbook
    assert two["project_dir"] == str(project)


def test_called_as_a_module_it_says_what_it_is(capsys):
    from ansible.module_utils.testing import patch_module_args
    from ansible_collections.aikit.fleet.plugins.modules import service_plan

    with patch_module_args({}), pytest.raises(SystemExit):
        service_plan.main()
    assert "runs on the controller" in json.loads(capsys.readouterr().out)["msg"]
