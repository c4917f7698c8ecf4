# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.aikit.fleet.plugins.filter.services import FilterModule

FILTERS = FilterModule().filters()
HOST = {"cdi_devices": [], "nvidia_hook": False, "gpu_count": 0}
SERVICE = {"name": "llama", "bind_address": "127.0.0.1", "port": 8080, "url": "http://127.0.0.1:8080"}
LOCALAI = {"id": "sha256:1", "ref": "r.example/a:1", "entrypoint": ["local-ai"]}


def test_every_filter_is_documented(root):
    for name in FILTERS:
        document = yaml.safe_load((root / "plugins" / "filter" / f"{name}.yml").read_text(encoding="utf-8"))
        assert document["DOCUMENTATION"]["name"] == name
        assert document["EXAMPLES"] and document["RETURN"]


def test_container_spec_with_the_least_that_is_needed():
    found = FILTERS["container_spec"](SERVICE, {"id": "sha256:1", "server": "llama_cpp"}, HOST)
    assert found["container"]["image"] == "sha256:1"


@pytest.mark.parametrize("config", ["- name: a\n  parameters: {model: m}\n", "name: a\nparameters: {model: m}\n"])
def test_container_spec_reads_the_configuration_of_localai(config):
    found = FILTERS["container_spec"](SERVICE, LOCALAI, HOST, config=config)
    assert json.loads(found["files"][0]["content"]) == [{"name": "a", "parameters": {"model": "m"}, "options": ["verbosity:4"]}]
    assert found["container"]["env"]["LOCALAI_LOAD_TO_MEMORY"] == "a"


def test_templates_of_localai_survive_the_override():
    config = "- name: a\n  template:\n    chat: \"{{.Input}}\\n\u00e4\\U0001F600\"\n"
    content = FILTERS["container_spec"](SERVICE, LOCALAI, HOST, config=config)["files"][0]["content"]
    assert yaml.safe_load(content)[0]["template"]["chat"] == "{{.Input}}\n\u00e4\U0001f600"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("container_spec", (SERVICE, LOCALAI, HOST, "", "/s", "a: ["), "The configuration inside r.example/a:1 is no YAML"),
        ("container_spec", (SERVICE, LOCALAI, HOST, "", "/s", "text"), "is no list of models"),
        ("container_spec", ({}, LOCALAI, HOST), r"container_spec: the input has not the documented form \(KeyError: 'name'\)"),
        ("container_spec", ({**SERVICE, "gpus": ["all"]}, LOCALAI, HOST), "this host can give none to a container"),
        ("images_to_build", ([],), "images_to_build: the input has not the documented form"),
        ("api_key_content", ("a'b", "localai"), "holds a quote"),
    ],
)
def test_errors_are_sentences(name, arguments, message):
    with pytest.raises(AnsibleFilterError, match=message):
        if name == "images_to_build":
            FILTERS[name]({"h1": {"services": [{"built": True, "state": "present"}]}})
        FILTERS[name](*arguments)


def test_keys():
    found = FILTERS["service_api_key"]([{"name": "llama", "image": "a:1", "api_key": "k"}], "llama", {})
    assert found == "k"
    assert FILTERS["api_key_content"](found) == "k\n"
    assert FILTERS["service_api_key"]([], "llama") == ""
