# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role inference and the playbooks compute over services and hosts."""

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import fleet

IMAGE = {
    "id": "sha256:" + "ab" * 32,
    "layers": [
        {"digest": "sha256:base", "size_bytes": 1000},
        {"digest": "sha256:model", "size_bytes": 5000},
        {"digest": "sha256:config", "size_bytes": 10},
    ],
}


def test_a_full_archive_and_a_thin_one_have_different_names():
    full = fleet.archive_plan(IMAGE, ["sha256:base", "sha256:model", "sha256:config"], "/cache/images", "/var/tmp")
    assert full == {
        "builder_path": "/cache/images/abababababababab-full.tar",
        "host_path": "/var/tmp/aikit-fleet-abababababababab-full.tar",
        "omit": [],
        "size_bytes": 6010 + (1 << 20),
        "written": False,
    }
    # One that is there already travels as it is, whatever the host lacks
    whole = fleet.archive_plan(IMAGE, ["sha256:config"], "/cache/images", "/var/tmp", "/cache/images/buildkit-1.tar")
    assert whole == {**full, "builder_path": "/cache/images/buildkit-1.tar", "written": True}
    thin = fleet.archive_plan(IMAGE, ["sha256:config"], "/cache/images", "/var/tmp")
    assert thin["omit"] == ["sha256:base", "sha256:model"] and thin["size_bytes"] == 10 + (1 << 20)
    assert thin["builder_path"] != full["builder_path"]
    # Hosts that lack the same layers share one file
    assert thin == fleet.archive_plan(IMAGE, ("sha256:config",), "/cache/images", "/var/tmp")


def test_every_deployment_has_a_folder_of_its_own_for_archives():
    folder = fleet.transfer_folder(["h1", "h2"], ["/p/inventory.yml"], "~/.cache")
    assert folder.startswith("~/.cache/transfer/") and len(folder.rpartition("/")[2]) == 12
    # Run again, it finds what it has written
    assert folder == fleet.transfer_folder(["h2", "h1"], ["/p/inventory.yml"], "~/.cache")
    others = [fleet.transfer_folder(["h1"], ["/p/inventory.yml"], "~/.cache"), fleet.transfer_folder(["h1", "h2"], ["/q/inventory.yml"], "~/.cache")]
    assert len({folder, *others}) == 3


SERVICE = {"name": "llama", "state": "present", "image": "i:1", "url": "http://127.0.0.1:1", "has_api_key": False, "gpus": [], "port": 1, "api_key": "secret"}


def test_a_result_holds_no_key():
    found = fleet.service_result(SERVICE, {"verdict": "cpu", "model": "m", "answer": "text"})
    assert found["verdict"] == "cpu" and found["tokens_per_second"] is None
    assert "api_key" not in found and "answer" not in found


RUNNING = {"container": {"running": True, "status": "running"}, "state": {"pending": None}}


@pytest.mark.parametrize(
    "state, observed, check, expected",
    [
        ("present", {"msg": "No engine answers."}, {}, [("llama: engine", False, "No engine answers.")]),
        ("present", {"container": {}, "state": {}}, {"skipped": True}, [("llama: container", False, "there is none")]),
        (
            "present",
            RUNNING,
            {"passed": True, "verdict": "cpu", "tokens_per_second": 61.23},
            [("llama: container", True, "running"), ("llama: proof", True, "cpu, 61.2 tokens/s")],
        ),
        (
            "present",
            RUNNING,
            {"passed": False, "verdict": "cpu", "msg": "expected proven"},
            [("llama: container", True, "running"), ("llama: proof", False, "expected proven")],
        ),
        (
            "present",
            {**RUNNING, "state": {"pending": {"spec": "x"}}},
            {"passed": True, "verdict": "proven"},
            [
                ("llama: container", True, "running"),
                ("llama: release", False, "a release was interrupted before it was proven"),
                ("llama: proof", True, "proven"),
            ],
        ),
        ("stopped", RUNNING, {}, [("llama: container", False, "running")]),
        ("stopped", {"container": {"running": False, "status": "exited"}}, {}, [("llama: container", True, "stopped, as wanted")]),
        ("absent", {"container": {}}, {}, [("llama: container", True, "absent, as wanted")]),
        ("absent", RUNNING, {}, [("llama: container", False, "running")]),
    ],
)
def test_checks(state, observed, check, expected):
    found = fleet.service_checks({**SERVICE, "state": state}, observed, check)
    assert [(entry["name"], entry["ok"], entry["detail"]) for entry in found] == expected
    assert all(bool(entry["hint"]) != entry["ok"] for entry in found)


def test_services_that_only_the_host_remembers_are_removed_too():
    found = fleet.services_to_remove(
        [SERVICE],
        [{"path": "/var/lib/aikit-fleet/old.json"}, {"path": "/var/lib/aikit-fleet/llama.json"}],
        [{"Labels": {"io.aikit.fleet.service": "older"}}, {"Labels": None}],
    )
    assert [(entry["name"], entry["state"]) for entry in found] == [("llama", "absent"), ("old", "absent"), ("older", "absent")]


def test_images_that_somebody_elses_container_runs_from_stay():
    images = [{"id": f"sha256:{letter}", "ref": letter} for letter in "abc"]
    running = [
        {"ImageID": "sha256:b", "Names": ["/notebook"], "Labels": {"x": "y"}},
        {"ImageID": "sha256:b", "Names": ["/another"], "Labels": None},
        # In check mode it is still there
        {"ImageID": "sha256:c", "Names": ["/llama"], "Labels": {"io.aikit.fleet.service": "llama"}},
    ]
    found = fleet.images_to_remove(images, running)
    assert [image["ref"] for image in found["remove"]] == ["a", "c"]
    assert [(image["ref"], image["used_by"]) for image in found["keep"]] == [("b", ["another", "notebook"])]


@pytest.mark.parametrize(
    "restored, answers, words",
    [
        ({"skipped": True}, {}, "x: bad"),
        ({"restored": False}, {}, "There was no earlier release of x to go back to."),
        (
            {"restored": False, "container": {"running": True, "spec": "a"}, "state": {"current": {"spec": "a"}}},
            {},
            "The release that runs was not touched.",
        ),
        (
            {"restored": False, "container": {"running": True, "spec": "b"}, "state": {"current": {"spec": "a"}}},
            {},
            "There was no earlier release of x to go back to.",
        ),
        ({"restored": True}, {"skipped": True}, "The earlier release was put back."),
        ({"restored": True}, {"passed": True, "verdict": "cpu"}, "put back and answers again (verdict cpu)."),
        ({"restored": True}, {"passed": False, "msg": "silence"}, "put back, but does not answer: silence"),
    ],
)
def test_the_failure_says_what_runs_now(restored, answers, words):
    message = fleet.release_failure("x", "bad\n", restored, answers)
    assert message.startswith("x: bad") and message.endswith(words)


def test_plan_table():
    service = {
        **SERVICE,
        "built": True,
        "src": "/p/llama.yaml",
        "runtime": "cuda",
        "models": [{"name": "m"}],
        "gpus": ["all"],
        "bind_address": "127.0.0.1",
        "expect": {"verdict": ["proven"]},
    }
    lines = fleet.plan_table({"h1": {"services": [service, {**service, "name": "pre", "built": False, "models": []}]}})
    assert lines[2].split()[:5] == ["h1", "llama", "present", "i:1", "llama.yaml"] and "(cuda)" in lines[2]
    assert "llama.yaml (cuda, built by BuildKit)" in fleet.plan_table({"h1": {"services": [{**service, "builder": "buildkit"}]}})[2]
    assert "pre-made image" in lines[3]


def test_checks_table_shows_hints_only_where_needed():
    checks = [{"name": "a", "ok": True, "detail": "fine", "hint": ""}, {"name": "b", "ok": False, "detail": "bad\nmore", "hint": "mend it"}]
    lines = fleet.checks_table({"h": checks})
    assert lines[2].split() == ["h", "a", "yes", "fine", "-"] and lines[3].endswith("mend it") and "more" not in lines[3]


def test_the_names_of_all_services():
    plans = {
        "h1": {"services": [{"name": "b", "state": "present"}, {"name": "gone", "state": "absent"}]},
        "h2": {"services": [{"name": "a", "state": "present"}, {"name": "b", "state": "present"}]},
        "h3": {},
    }
    assert fleet.service_names(plans) == ["a", "b"]
    assert fleet.service_names({}) == []


def test_the_checks_for_programs():
    good = {"name": "engine", "ok": True, "detail": "docker 28.2.2", "hint": ""}
    bad = {"name": "driver", "ok": False, "detail": "absent", "hint": "Run aikit.fleet.provision."}
    assert fleet.checks_report({"b": [good, bad], "a": [good]}) == {"ok": False, "hosts": {"a": [good], "b": [good, bad]}}
    assert fleet.checks_report({"a": [good]})["ok"] is True
    # Silence is no good news
    assert fleet.checks_report({"a": [good], "b": []})["ok"] is False and fleet.checks_report({}) == {"ok": False, "hosts": {}}


def test_a_host_that_was_not_checked_is_not_left_out():
    good = {"name": "engine", "ok": True, "detail": "docker 28.2.2", "hint": ""}
    made = fleet.all_checks({"a": [good]}, ["a", "b"])
    assert made["a"] == [good] and [(check["name"], check["ok"]) for check in made["b"]] == [("reachable", False)]
    assert fleet.checks_report(made)["ok"] is False and fleet.checks_table(made)[-1].split()[:3] == ["b", "reachable", "NO"]
    (check,) = fleet.not_checked({"unreachable": True, "msg": "Connection refused"})
    assert (check["name"], check["detail"]) == ("reachable", "Connection refused") and check["hint"]
    (check,) = fleet.not_checked({"failed": True, "msg": "The inventory is wrong.", "hint": "Mend it."})
    assert (check["name"], check["ok"], check["hint"]) == ("checked", False, "Mend it.")


@pytest.mark.parametrize(
    "name, digest, reference",
    [
        ("registry.example:5000/a/b:1", "", "registry.example:5000/a/b:1"),
        ("registry.example/a", "sha256:" + "1" * 64, "registry.example/a@sha256:" + "1" * 64),
        ("localhost:5000/a:1", "", "localhost:5000/a:1"),
        ("docker.io/me/a:1", "", "docker.io/me/a:1"),
        ("localhost/aikit/a:1", "", ""),
        ("me/a:1", "", ""),
        ("a", "sha256:" + "1" * 64, ""),
    ],
)
def test_where_an_image_is_in_a_registry(name, digest, reference):
    assert fleet.registry_reference(name, digest) == reference


def test_the_doctor_puts_the_plan_beside_what_was_taken():
    row = {"device": "CUDA0", "total": {"planned_mib": 5686.0, "actual_mib": 5691.5, "percent": 0.1}}
    checks = fleet.service_checks({"name": "llama", "state": "present"}, RUNNING, {"passed": True, "verdict": "proven", "planned": [row]})
    assert checks[-1] == {"name": "llama: memory", "ok": True, "detail": "CUDA0 5692 MiB, planned 5686 (+0.1 %)", "hint": ""}


CURRENT = {"image": "i:1", "id": "sha256:0123456789abcdef", "spec": "a", "verdict": "proven"}
BACK = {"restored": True, "state": {"current": CURRENT}}


@pytest.mark.parametrize(
    "restored, answers, expected",
    [
        ({"skipped": True}, {}, ("failed", "")),
        ({"restored": False}, {}, ("failed", "")),
        ({"restored": False, "container": {"running": True, "spec": "a"}, "state": {"current": CURRENT}}, {}, ("not touched", "i:1")),
        # What runs there is not what was proven
        ({"restored": False, "container": {"running": True, "spec": "b"}, "state": {"current": CURRENT}}, {}, ("failed", "")),
        (BACK, {"skipped": True}, ("rolled back", "i:1")),
        (BACK, {"passed": True, "verdict": "proven"}, ("rolled back", "i:1")),
        (BACK, {"passed": False}, ("down", "i:1")),
    ],
)
def test_a_failed_service_in_a_word(restored, answers, expected):
    found = fleet.failed_result({**SERVICE, "image": "i:2"}, "bad\nworse", restored, answers)
    assert (found["outcome"], found["image"], found["failure"]) == (*expected, "bad")


def test_what_went_wrong_with_a_task():
    assert fleet.failure_text({"msg": " bad\n"}) == "bad"
    assert fleet.failure_text({"msg": "One or more items failed", "results": [{"msg": "well"}, {"failed": True, "msg": "bad"}]}) == "bad"
    # Ended by the failure of another host, a host has no result of its own
    assert "another host" in fleet.failure_text({})


def test_the_table_of_a_rollout_names_every_service_of_every_host():
    plan = {"services": [{"name": "llama"}, {"name": "mistral"}]}
    good = fleet.service_result({**SERVICE, "image": "i:2"}, {"verdict": "proven"}, {"image": {"ref": "i:2", "id": "sha256:fedcba9876543210"}})
    bad = fleet.failed_result({**SERVICE, "image": "i:2"}, "The verdict is not as expected", BACK, {"passed": True, "verdict": "proven"})
    hosts = ["h2", "h1", "h3", "h4", "h5", "h6", "h7"]
    rollouts = {
        "h2": {"state": "done"},
        "h1": {"state": "failed", "failure": "llama: The verdict"},
        "h3": {"state": "unreachable", "failure": "h3 cannot be reached: timeout"},
        "h4": {"state": "begun"},
        "h5": {"state": "begun"},
        "h7": {"state": "failed", "failure": "x" * 200 + "\nmore"},
    }
    results = {"h2": [good, {"name": "mistral", "state": "stopped", "image": "i:3"}], "h1": [bad], "h4": [{**good, "verdict": None}]}
    lines = fleet.rollout_table(hosts, rollouts, dict.fromkeys(hosts[:6], plan), results, {"h5": True, "h2": False})
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "h2 llama proven proven i:2 (fedcba987654) -",
        "h2 mistral stopped - i:3 -",
        "h1 llama rolled back proven i:1 (0123456789ab) The verdict is not as expected",
        "h1 mistral not reached - as before llama failed before it",
        "h3 llama unreachable - as before h3 cannot be reached: timeout",
        "h3 mistral unreachable - as before h3 cannot be reached: timeout",
        "h4 llama would be replaced - i:2 (fedcba987654) -",
        "h4 mistral lost - as before its connection was lost half way, or an error on another host ended its part; see above",
        "h5 llama waits for a reboot - as before -",
        "h5 mistral waits for a reboot - as before -",
        "h6 llama not reached - as before -",
        "h6 mistral not reached - as before -",
        "h7 - failed - as before " + "x" * 159 + "…",
    ]


def test_a_rollout_without_trouble_has_no_table():
    assert fleet.rollout_table(["h1", "h2"], {"h1": {"state": "done"}, "h2": {"state": "begun"}}, {}, {}, {"h2": True}) == []


@pytest.mark.parametrize("state, expected", [("done", False), ("failed", True), ("unreachable", True)])
def test_a_batch_with_a_host_that_failed(state, expected):
    assert fleet.any_failed({"h1": {"state": "done"}, "h2": {"state": state}}) is expected
