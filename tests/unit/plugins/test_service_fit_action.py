# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action and the filters of a plan as a playbook has them: out of variables, with warnings and errors for people."""

from __future__ import annotations

import json

import pytest
import support
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.aikit.fleet.plugins.filter.fit import FilterModule
from ansible_collections.aikit.fleet.plugins.module_utils._core import wish
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape
from ansible_collections.aikit.fleet.plugins.module_utils._core.gguf import check
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes

FILTERS = FilterModule().filters()
SOURCE = "https://models.example/tiny.gguf"
SERVICES = [
    {"name": "tiny", "definition": {"apiVersion": "v1alpha1", "runtime": "cuda", "models": [{"name": "tiny", "source": SOURCE, "sha256": "a" * 64}]}},
]
SETTINGS = {"gpu_layers": "auto", "context_size": "auto"}


def shapes():
    raw = gguf_bytes()
    shape = ModelShape.from_header(check(lambda offset, length: raw[offset : offset + length], len(raw), "tiny")).as_dict()
    return {wish.key_of([{"source": SOURCE, "sha256": "a" * 64}], ""): {"shape": shape}}


def gpus(total, **more):
    card = {"index": 0, "vendor": "nvidia", "name": "Card", "uuid": "GPU-1", "memory_total_mib": total, "memory_free_mib": total, "compute_capability": "8.9"}
    return {"gpus": [{**card, "unified_memory": False, "mig": None, **more}], "driver": {"state": "loaded", "version": "580"}}


def fit(**arguments):
    base = {"services": "{{ plan.services }}", "models": shapes(), "memory": {"services": []}}
    return {"name": "fit", "aikit.fleet.service_fit": {**base, **arguments}, "ignore_errors": True}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    services = [{**SERVICES[0], "settings": SETTINGS}]
    tasks = [
        {"name": "plan", "aikit.fleet.service_plan": {"services": services}, "register": "plan"},
        fit(gpus=gpus(8192)),
        fit(gpus=gpus(600)),
        fit(gpus=gpus(600), strict=False),
        fit(gpus={"unreachable": True, "msg": "no route"}),
        fit(gpus=gpus(8192), memory={"failed": True, "msg": "permission denied"}),
        fit(gpus=gpus(8192), policy={"margin": 5}),
        fit(gpus=gpus(8192), nonsense=1),
    ]
    (folder / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    run = support.playbook("play.yml", cwd=folder)
    return run.results("plan"), run.results("fit")


def test_settings_and_lines(results):
    (plan,), found = results
    assert plan["uses_gpus"] and plan["services"][0]["wish"]["auto"] == ["gpu_layers", "context_size"]
    planned = found[0]["services"]["tiny"]
    assert (found[0]["changed"], found[0]["known"], found[0]["fits"]) == (False, True, True)
    assert planned["settings"]["gpu_layers"] == 3 and planned["settings"]["context_size"] == 2048 and planned["verdict"] == ["proven"]
    assert found[0]["lines"][0].startswith("tiny: planned, 3/3 layers, context 2048.")


def test_what_cannot_work_fails_the_task_or_warns(results):
    _plan, found = results
    assert found[1]["failed"] and found[1]["msg"].startswith("The plan of localhost cannot work:\n  ") and "tiny" in found[1]["msg"]
    assert not found[2].get("failed") and found[2]["fits"] is False


def test_a_host_that_could_not_be_asked_is_planned_later(results):
    _plan, found = results
    for result, words in ((found[3], "no route"), (found[4], "permission denied")):
        assert not result.get("failed") and result["known"] is False and words in result["reason"] and result["reason"].startswith("after provisioning")


def test_a_slip_in_the_policy_is_named(results):
    _plan, found = results
    assert "inference_fit_policy.margin is no setting of a plan. Did you mean margin_mib?" in found[5]["msg"]
    assert "nonsense" in found[6]["msg"]


# --- filters ---------------------------------------------------------------------------------------------------------


def test_every_filter_is_documented(root):
    for name in FILTERS:
        document = yaml.safe_load((root / "plugins" / "filter" / f"{name}.yml").read_text(encoding="utf-8"))
        assert document["DOCUMENTATION"]["name"] == name
        assert document["EXAMPLES"] and document["RETURN"]


def test_the_policy_for_people():
    assert FILTERS["fit_policy"]({"context_max": 8192})["context_max"] == 8192 and FILTERS["fit_policy"]({})["margin_mib"] == 512
    for value, words in ((["a"], "must be a mapping"), ({"kv_type": ["f16"]}, "Did you mean kv_types?")):
        with pytest.raises(AnsibleFilterError, match=words.replace("?", r"\?")):
            FILTERS["fit_policy"](value)


def test_a_service_without_a_plan_stays_as_it_is():
    service = {"name": "llama", "settings": SETTINGS, "expect": {}}
    assert FILTERS["fitted_service"](service, {}) == service
    planned = {"state": "planned", "settings": {"gpu_layers": 3}, "verdict": ["proven"], "fit": {"planned": True}}
    assert FILTERS["fitted_service"](service, {"services": {"llama": planned}})["settings"] == {"gpu_layers": 3}


@pytest.mark.parametrize("config", ["- name: a\n  parameters: {model: m.gguf}\n", "name: a\nparameters: {model: m.gguf}\n"])
def test_the_configuration_in_an_image_is_read(config):
    found = FILTERS["image_wish"]({"images": [{"env": {}}], "config": config})
    assert found["paths"] == ["/models/m.gguf"] and found["server"] == "localai"
    # What is no YAML is told by the release, with its position
    assert FILTERS["image_wish"]({"images": [{"env": {}}], "config": "a: ["})["paths"] == []


def test_errors_of_filters_are_sentences():
    with pytest.raises(AnsibleFilterError, match="inference_plan_models must be a list"):
        FILTERS["models_as_services"]("m.gguf")
    with pytest.raises(AnsibleFilterError, match="fitted_service: the input has not the documented form"):
        FILTERS["fitted_service"]({}, {})
