# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import variables

ROLES = {"inference": {"inference_services", "inference_pull"}, "container_engine": {"container_engine_name"}}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("inference_servces", "Did you mean inference_services?"),
        ("aikit_max_fail_percent", "Did you mean aikit_max_fail_percentage?"),
        ("container_engine_nmae", "Did you mean container_engine_name?"),
        ("inference_zzz", "Variables that begin with inference_ belong to aikit.fleet; rename or remove this one."),
    ],
)
def test_a_variable_that_nothing_reads_is_named(name, hint):
    found = variables.unknown([name, "inference_services"], ROLES)
    assert [(finding.level, finding.path, finding.hint) for finding in found] == [("error", name, hint)]


@pytest.mark.parametrize(
    "name",
    [
        "inference_services",
        "inference_pull",
        "inference_state_dir",
        "inference_result",
        "inference_results",
        "inference_checks",
        "aikit_serial",
        "__inference_plan",
        "nvidia_driver_branch",
        "my_inference_services",
    ],
)
def test_what_is_ours_or_somebody_elses_passes(name):
    assert variables.unknown([name], ROLES) == ()


def test_play_level_variables_set_for_hosts_are_warned_of():
    names = ["aikit_serial", "aikit_max_fail_percentage", "inference_services"]
    assert [finding.path for finding in variables.play_level(names, {"aikit_serial"})] == ["aikit_max_fail_percentage"]
    assert variables.play_level(["inference_services"], ()) == ()


GO = [
    "{{.Input}}",
    "{{ .Foo }}",
    '{{ if eq .Role "x" }}',
    "{{if .System}}",
    "{{- if .X -}}",
    "{{range .Messages}}",
    "{{ range $i, $e := .X }}",
    "{{end}}",
    "{{ end }}",
    "{{else}}",
    '{{else if eq .A "b"}}',
    "{{ . }}",
    "{{.}}",
    "{{ $x := .Y }}",
    '{{template "x" .}}',
    "{{ toJson .Tools }}",
    "{{ with .X }}",
    "{{ if (eq 1 2) }}",
    "{{ trim .Input | upper }}",
]
JINJA = [
    "{{ foo }}",
    "{{ foo.bar }}",
    "{{ range(3) | list }}",
    "{{ range (3) }}",
    "{{ a if b else c }}",
    "{{ end_date }}",
    "{{ template_name }}",
    "{{ 'x' }}",
    "{{ with_x | default('.') }}",
    "{{ foo + .5 }}",
    "{{ lookup('env', 'X') }}",
    "plain {.Input} text",
    "{% if x %}",
]


@pytest.mark.parametrize("text", GO)
def test_go_templates_are_found(text):
    found = variables.go_templates([{"name": "llama", "definition": {"config": f"a: b\nchat: {text}\n"}}], "inference_services", lambda _text: True)
    assert [(finding.level, finding.path) for finding in found] == [("error", "inference_services[0].definition.config")]
    assert found[0].message.startswith("line 2 of the text: ")


@pytest.mark.parametrize("text", JINJA)
def test_jinja_is_left_alone(text):
    assert variables.go_templates({"a": [text]}, "x", lambda _text: True) == ()


def test_unsafe_texts_are_left_alone():
    assert variables.go_templates({"a": "{{.Input}}", "b": [1, None, {"c": "{{.Input}}"}]}, "x", lambda _text: False) == ()


@pytest.mark.parametrize(
    ("value", "name"),
    [("{{ my_services }}", "my_services"), ("{{my_services}}", "my_services"), ("{{ a + b }}", ""), ("x", ""), ([], ""), (None, "")],
)
def test_referenced(value, name):
    assert variables.referenced(value) == name
