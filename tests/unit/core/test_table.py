# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables for people."""

from __future__ import annotations

from ansible_collections.aikit.fleet.plugins.module_utils._core import table


def test_columns_are_aligned_and_numbers_stand_right():
    lines = table.table([{"host": "h1", "n": 5}, {"host": "long-name", "n": 12.5}, {"host": "h3"}], ("host", "n"))
    assert lines == [
        "host          n",
        "---------  ----",
        "h1            5",
        "long-name  12.5",
        "h3            -",
    ]


def test_no_rows_still_has_a_heading():
    assert table.table([], ("a", "b")) == ["a  b", "-  -"]


RESULT = {
    "name": "llama",
    "state": "present",
    "model": "gemma",
    "verdict": "proven",
    "evidence": {"layers_offloaded": 19, "layers_total": 19},
    "tokens_per_second": 61.234,
    "time_to_first_token_seconds": 0.123,
    "url": "http://127.0.0.1:8080",
}


def test_services_end_with_a_line_to_paste():
    lines = table.services({"h2": [RESULT], "h1": [{"name": "old", "state": "absent"}]})
    assert lines[2].split() == ["h1", "old", "-", "absent", "-", "-", "-", "-", "-"]
    assert lines[3].split() == ["h2", "llama", "gemma", "present", "proven", "19/19", "61.2", "0.12", "http://127.0.0.1:8080"]
    assert lines[-1].startswith("curl -s http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type")


def test_the_key_is_never_printed():
    lines = table.services({"h1": [{**RESULT, "has_api_key": True, "api_key": "s3cret"}]})
    assert "YOUR-KEY" in lines[-1] and "s3cret" not in "\n".join(lines)


def test_hosts_that_wait_for_a_reboot_are_named():
    lines = table.services({}, {"b": True, "a": False, "c": True})
    assert lines[-1].startswith("Waiting for a reboot, and left out until then: b, c.")
    assert table.services({}, {"a": False}) == table.services({})
    assert table.hosts({}, {"b": True, "a": False, "c": True})[-1] == lines[-1]
    assert table.hosts({}, {"a": False}) == table.hosts({})


def test_the_drivers_of_a_fleet():
    facts = {
        "h2": {"gpus": 0, "state": "absent", "action": "none"},
        "h1": {
            "gpus": 8,
            "state": "loaded",
            "version": "580.178.04",
            "flavour": "open",
            "cuda_version": "13.0",
            "source": "nvidia_repository",
            "action": "install",
        },
    }
    lines = table.hosts(facts)
    assert [line.split() for line in lines[2:]] == [
        ["h1", "8", "loaded", "580.178.04", "open", "13.0", "nvidia_repository", "install"],
        ["h2", "0", "absent", "-", "-", "-", "-", "none"],
    ]
