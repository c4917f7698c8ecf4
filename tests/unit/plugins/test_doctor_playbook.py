# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook doctor where hosts cannot be looked at: none of them may be missing from what it says."""

from __future__ import annotations

import json

import pytest
from ansible_collections.aikit.fleet.tests.support import kinds_of_hosts, playbook

SERVICE = {"name": "llama", "image": "localhost/never-pulled:1", "gpus": [], "port": 8080, "server": "llama_cpp"}


@pytest.fixture
def doctor(tmp_path):
    """Run it on hosts ``{name: variables}``; the run, and the report for programs."""
    kinds = kinds_of_hosts(tmp_path)
    report = tmp_path / "report.json"
    report.write_text('{"ok": true, "hosts": {"old": []}}')

    def run(hosts, *arguments):
        found = {name: {"ansible_become": False, "inference_services": [SERVICE], **kinds[kind], **more} for name, (kind, more) in hosts.items()}
        (tmp_path / "hosts.json").write_text(json.dumps({"aikit_hosts": {"hosts": found}}))
        extra = {"inference_doctor_report": str(report), "container_engine_docker_socket": str(tmp_path / "no.sock")}
        done = playbook("aikit.fleet.doctor", "-i", str(tmp_path / "hosts.json"), "-e", json.dumps(extra), *arguments, cwd=tmp_path)
        return done, json.loads(report.read_text())

    return run


def names(found, host):
    return [check["name"] for check in found["hosts"][host] if not check["ok"]]


def test_a_host_that_cannot_be_reached_is_named(doctor):
    run, found = doctor({"up": ("here", {}), "down": ("gone", {}), "wrong": ("here", {"inference_services": [{"name": "UPPER"}]})})
    assert run.code != 0 and run.changed == 0 and found["ok"] is False
    assert sorted(found["hosts"]) == ["down", "up", "wrong"]
    assert names(found, "down") == ["reachable"] and "Connection refused" in found["hosts"]["down"][0]["detail"]
    assert names(found, "wrong") == ["checked"] and "inference_services[0]" in found["hosts"]["wrong"][0]["detail"]
    # The socket of the role's variable was asked, and no other
    (engine,) = [check for check in found["hosts"]["up"] if check["name"] == "engine"]
    assert "no.sock" in engine["detail"] or "podman" in engine["detail"]
    (table,) = run.results("What was checked")
    assert any(line.split()[:3] == ["down", "reachable", "NO"] for line in table["msg"])


def test_nothing_of_the_last_run_is_left_where_all_hosts_are_down(doctor):
    run, found = doctor({"one": ("gone", {}), "two": ("gone", {})})
    assert run.code != 0 and found["ok"] is False and sorted(found["hosts"]) == ["one", "two"]
    run, found = doctor({"one": ("gone", {}), "two": ("gone", {})}, "--limit", "two")
    assert run.code != 0 and sorted(found["hosts"]) == ["two"]
