# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The swap: each state that a kill can leave behind, and then every kill there is, in a small model of a host."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import release
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ContainerState, ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.procnet import Listener

OURS = {"io.aikit.fleet.server": "llama_cpp"}


def container(spec, name="llama", running=True, status=None, **changes):
    return ContainerState(
        name=name,
        id=f"id-{spec}",
        image_id=f"sha256:{spec}",
        status=status or ("running" if running else "exited"),
        running=running,
        started_at="2026-01-01T00:00:00Z",
        labels={"io.aikit.fleet.service": "llama", "io.aikit.fleet.spec": spec},
        **changes,
    )


def put_aside(spec):
    return container(spec, "llama--previous", running=False)


def record(spec, **changes):
    return {
        "spec": spec,
        "id": f"sha256:{spec}",
        "image": f"localhost/{spec}:1",
        "digest": "",
        "settings": {},
        "verdict": "cpu",
        "evidence": {},
        "release": {
            "spec": spec,
            "image": {"id": f"sha256:{spec}", "ref": f"localhost/{spec}:1"},
            "files": [{"path": f"/s/config-{spec}.yaml"}],
        },
        "container_id": f"id-{spec}",
        "started_at": "2026-01-01T00:00:00Z",
        **changes,
    }


def pending(spec, replaces=None, was_running=True):
    return {"spec": spec, "image": {"ref": f"localhost/{spec}:1", "id": f"sha256:{spec}"}, "replaces": replaces, "was_running": was_running}


def observed(found=None, aside=None, proven=None, wish=None, **state):
    """``proven``, ``wish`` and ``state`` make the state file; the first two are containers."""
    return release.Observed(
        "llama",
        found,
        aside,
        {**release.empty_state("llama"), "current": record(proven) if proven else None, "pending": wish, **state},
    )


def decide(found, spec="new"):
    return release.prepare(found, spec, {"ref": f"localhost/{spec}:1", "id": f"sha256:{spec}"})


def verbs(steps):
    return [
        {
            "write": f"write {(step.state['pending'] or {}).get('spec', '-')}" if step.state else "",
            "rename": f"rename {step.target} {step.to}",
        }.get(step.verb, f"{step.verb} {step.target}")
        for step in steps
    ]


PUT_ASIDE = ["stop llama", "rename llama llama--previous"]


@pytest.mark.parametrize(
    ("found", "decision", "steps", "start", "due"),
    [
        pytest.param(observed(), "create", ["write new"], True, True, id="first deployment"),
        pytest.param(
            observed(wish=pending("new", was_running=False)), "create", [], True, True, id="killed before the container was created"
        ),
        pytest.param(observed(proven="new"), "create", ["write new"], True, True, id="removed by hand"),
        pytest.param(observed(container("new"), proven="new"), "unchanged", [], False, False, id="nothing to do"),
        pytest.param(observed(container("new", running=False), proven="new"), "start", [], True, False, id="stopped"),
        pytest.param(
            observed(container("new"), proven="new", wish=pending("other", "new")),
            "unchanged",
            ["write -"],
            False,
            False,
            id="reverted before anything was stopped",
        ),
        pytest.param(
            observed(container("new", running=False), proven="new", wish=pending("other", "new")),
            "start",
            [],
            True,
            False,
            id="reverted after the stop",
        ),
        pytest.param(observed(container("new")), "resume", ["write new"], False, True, id="state file lost"),
        pytest.param(
            observed(container("new"), wish=pending("new", was_running=False)),
            "resume",
            [],
            False,
            True,
            id="killed before the proof of a first deployment",
        ),
        pytest.param(
            observed(container("new", running=False), wish=pending("new", was_running=False)),
            "resume",
            [],
            True,
            True,
            id="created but not started",
        ),
        pytest.param(observed(container("old"), proven="old"), "replace", ["write new", *PUT_ASIDE], True, True, id="replace"),
        pytest.param(
            observed(container("old", running=False), proven="old"),
            "replace",
            ["write new", "rename llama llama--previous"],
            True,
            True,
            id="replace a stopped one",
        ),
        pytest.param(
            observed(container("old", running=False, status="restarting"), proven="old"),
            "replace",
            ["write new", *PUT_ASIDE],
            True,
            True,
            id="replace one that crashes again and again",
        ),
        pytest.param(
            observed(container("old"), proven="old", wish=pending("new", "old")),
            "replace",
            PUT_ASIDE,
            True,
            True,
            id="killed before the stop",
        ),
        pytest.param(
            observed(container("old", running=False), proven="old", wish=pending("new", "old")),
            "replace",
            ["rename llama llama--previous"],
            True,
            True,
            id="killed after the stop",
        ),
        pytest.param(
            observed(container("old"), proven="old", wish=pending("mid", "old")),
            "replace",
            ["write new", *PUT_ASIDE],
            True,
            True,
            id="another wish before the stop",
        ),
        pytest.param(
            observed(container("mid"), wish=pending("mid", was_running=False)),
            "create",
            ["remove llama", "write new"],
            True,
            True,
            id="a candidate that was never proven, nothing before it",
        ),
        pytest.param(
            observed(container("old"), proven="old", wish=pending("old", was_running=False)),
            "replace",
            ["write new", *PUT_ASIDE],
            True,
            True,
            id="proven meanwhile",
        ),
        pytest.param(
            observed(None, put_aside("old"), proven="old", wish=pending("new", "old")),
            "create",
            [],
            True,
            True,
            id="killed after the rename",
        ),
        pytest.param(
            observed(None, put_aside("old"), proven="old", wish=pending("mid", "old")),
            "create",
            ["write new"],
            True,
            True,
            id="another wish after the rename",
        ),
        pytest.param(
            observed(None, put_aside("new"), proven="new", wish=pending("mid", "new")),
            "put_back",
            ["rename llama--previous llama"],
            True,
            False,
            id="reverted after the rename",
        ),
        pytest.param(
            observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old")),
            "resume",
            [],
            False,
            True,
            id="killed before the proof",
        ),
        pytest.param(
            observed(container("new", running=False, status="created"), put_aside("old"), proven="old", wish=pending("new", "old")),
            "resume",
            [],
            True,
            True,
            id="killed before the start",
        ),
        pytest.param(
            observed(container("mid"), put_aside("old"), proven="old", wish=pending("mid", "old")),
            "create",
            ["remove llama", "write new"],
            True,
            True,
            id="a candidate of another wish",
        ),
        pytest.param(
            observed(container("mid"), put_aside("new"), proven="new", wish=pending("mid", "new")),
            "put_back",
            ["remove llama", "rename llama--previous llama"],
            True,
            False,
            id="reverted before the proof",
        ),
        pytest.param(
            observed(container("new"), put_aside("old"), proven="new"),
            "unchanged",
            ["remove llama--previous"],
            False,
            False,
            id="killed after the commit was written",
        ),
        pytest.param(
            observed(container("mid"), put_aside("old"), proven="mid"),
            "replace",
            ["remove llama--previous", "write new", *PUT_ASIDE],
            True,
            True,
            id="killed in a commit, then another wish",
        ),
        pytest.param(
            observed(None, put_aside("new"), proven="new"),
            "start",
            ["rename llama--previous llama"],
            True,
            False,
            id="only the one put aside is left, and wanted",
        ),
        pytest.param(
            observed(None, put_aside("old"), proven="old"),
            "replace",
            ["rename llama--previous llama", "write new", "rename llama llama--previous"],
            True,
            True,
            id="only the one put aside is left",
        ),
        pytest.param(observed(container("new"), put_aside("old")), "resume", ["write new"], False, True, id="state lost in the middle"),
        pytest.param(
            observed(container("mid"), put_aside("old")),
            "create",
            ["remove llama", "write new"],
            True,
            True,
            id="state lost in the middle, another wish",
        ),
        pytest.param(
            observed(container("mid"), put_aside("new")),
            "put_back",
            ["remove llama", "rename llama--previous llama"],
            True,
            True,
            id="state lost in the middle, reverted",
        ),
    ],
)
def test_every_state_that_can_be_found(found, decision, steps, start, due):
    done = decide(found)
    assert (done.name, verbs(done.steps), done.start_container, done.due) == (decision, steps, start, due)


def test_the_plan_of_a_replacement_for_people():
    found = observed(container("old"), proven="old")
    plan = release.plan(found, decide(found).steps)
    assert [action.describe() for action in plan.actions] == [
        "write state of llama (pending)",
        "stop llama",
        "rename llama (to llama--previous)",
    ]
    assert (plan.before["container"], plan.before["previous_container"], plan.before["pending"]) == ("old running", None, None)
    assert (plan.after["container"], plan.after["previous_container"]) == (None, "old stopped")
    assert plan.after["pending"]["spec"] == "new"


def test_whether_the_old_one_ran_is_remembered_across_kills():
    stopped_by_us = observed(container("old", running=False), proven="old", wish=pending("new", "old", was_running=True))
    assert decide(stopped_by_us, "third").steps[0].state["pending"]["was_running"] is True
    stopped_by_the_user = observed(container("old", running=False), proven="old")
    assert decide(stopped_by_the_user).steps[0].state["pending"]["was_running"] is False


@pytest.mark.parametrize("labels", [{}, {"io.aikit.fleet.service": "other"}])
@pytest.mark.parametrize("name", ["llama", "llama--previous"])
@pytest.mark.parametrize("step", ["prepare", "restore", "stop", "rollback_target"])
def test_containers_of_others_are_never_touched(labels, name, step):
    foreign = dataclasses.replace(container("old", name), labels=labels)
    found = observed(foreign if name == "llama" else None, foreign if name != "llama" else None, proven="old")
    with pytest.raises(AikitError, match=f"There is a container {name} that is not this service's"):
        decide(found) if step == "prepare" else getattr(release, step)(found)


def test_absent_leaves_containers_of_others():
    foreign = dataclasses.replace(container("old"), labels={})
    assert release.absent(observed(foreign), ["/s/llama.json"]) == (release.Step("delete", "/s/llama.json"),)


# --- commit ------------------------------------------------------------------------------------------------------


def image(spec, labels=None):
    return ImageState(id=f"sha256:{spec}", tags=(f"localhost/{spec}:1",), labels=labels or OURS)


def commit(found, spec, keep=1, images=(), containers=(), elsewhere=(), files=()):
    wish = {key: value for key, value in record(spec).items() if key not in ("container_id", "started_at")}
    return release.commit(found, wish, keep, images, containers, set(elsewhere), files)


def test_a_commit_writes_first_and_removes_then():
    found = observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old"), previous=record("older"))
    steps = commit(
        found,
        "new",
        images=[image("old"), image("older"), image("new")],
        files=["/s/config-new.yaml", "/s/config-old.yaml", "/s/config-older.yaml"],
    )
    assert verbs(steps) == ["write -", "remove llama--previous", "remove_image sha256:older", "write -", "delete /s/config-older.yaml"]
    first, last = steps[0].state, steps[3].state
    assert (last["current"]["spec"], last["previous"]["spec"], last["pending"], last["retired"]) == ("new", "old", None, [])
    assert first["retired"] == [{"id": "sha256:older", "ref": "localhost/older:1"}]
    assert last["current"]["container_id"] == "id-new"


def test_a_second_commit_changes_nothing_whatever_was_measured():
    found = observed(container("new"), proven="new", previous=record("old"))
    assert commit(found, "new", images=[image("old")], files=["/s/config-new.yaml", "/s/config-old.yaml"]) == ()
    wish = {**record("new"), "evidence": {"tokens_per_second": 99}}
    assert release.commit(found, wish, 1, [], [], set()) == ()


def test_a_restarted_container_gets_its_new_evidence():
    found = observed(dataclasses.replace(container("new"), started_at="2026-02-02T00:00:00Z"), proven="new", previous=record("old"))
    steps = commit(found, "new")
    assert verbs(steps) == ["write -"]
    assert (steps[0].state["current"]["started_at"], steps[0].state["previous"]["spec"]) == ("2026-02-02T00:00:00Z", "old")


def test_the_first_commit():
    steps = commit(observed(container("new"), wish=pending("new", was_running=False)), "new")
    assert verbs(steps) == ["write -"]
    assert (steps[0].state["current"]["spec"], steps[0].state["previous"]) == ("new", None)


@pytest.mark.parametrize(
    ("keep", "removed", "retired", "previous"),
    [(0, ["old", "c3", "c2"], [], None), (1, ["c3", "c2"], [], "old"), (2, ["c2"], ["c3"], "old"), (9, [], ["c3", "c2"], "old")],
)
def test_how_many_images_stay(keep, removed, retired, previous):
    found = observed(
        container("new"), proven="old", previous=record("c3"), retired=[{"id": "sha256:c2", "ref": ""}], wish=pending("new", "old")
    )
    steps = commit(found, "new", keep, [image(name) for name in ("old", "c3", "c2", "new", "strange")])
    assert [step.target for step in steps if step.verb == "remove_image"] == [f"sha256:{name}" for name in removed]
    state = [step.state for step in steps if step.verb == "write"][-1]
    assert [entry["id"] for entry in state["retired"]] == [f"sha256:{name}" for name in retired]
    assert (state["previous"] or {}).get("spec") == previous


def test_images_that_somebody_needs_stay_and_are_tried_again():
    found = observed(container("new"), proven="old", previous=record("c3"), retired=[{"id": "sha256:c2", "ref": ""}])
    other = dataclasses.replace(container("c3"), name="other")
    steps = commit(found, "new", 1, [image("c3"), image("c2")], [other], ["sha256:c2"])
    assert verbs(steps) == ["write -"]
    assert [entry["id"] for entry in steps[0].state["retired"]] == ["sha256:c3", "sha256:c2"]


def test_images_of_others_and_images_that_are_gone_are_forgotten():
    found = observed(container("new"), proven="old", previous=record("c3"), retired=[{"id": "sha256:c2", "ref": ""}])
    steps = commit(found, "new", 1, [image("c3", labels={"maintainer": "x"})])
    assert [step.verb for step in steps] == ["write", "write"]
    assert steps[-1].state["retired"] == []


def test_images_without_labels_that_were_built_for_the_service_are_removed():
    """AIKit's images have no labels, also those that we build; the state file knows which those are."""
    retired = [{"id": "sha256:c2", "ref": "", "built": True}]
    bare = [ImageState(id="sha256:c2"), ImageState(id="sha256:c3")]
    found = observed(container("new"), proven="old", previous=record("c3", built=True), retired=retired)
    steps = release.commit(found, record("new", built=True), 1, bare, [], set())
    assert [step.target for step in steps if step.verb == "remove_image"] == ["sha256:c3", "sha256:c2"]
    assert release.committed(found, record("new", built=True), 1)["current"]["built"] is True
    gone = release.absent(observed(container("c3"), proven=None, current=record("c3", built=True)), [], True, bare)
    assert "remove_image sha256:c3" in verbs(gone) and "remove_image sha256:c2" not in verbs(gone)
    # Premade ones stay, whatever they look like
    assert "remove_image sha256:c3" not in verbs(release.absent(observed(container("c3"), proven=None, current=record("c3")), [], True, bare))
    assert release.make_record({"spec": "x", "image": {"id": "sha256:1", "built": True}}, "cpu", {})["built"] is True
    assert "built" not in release.make_record({"spec": "x", "image": {"id": "sha256:1"}}, "cpu", {})


def test_the_image_of_the_one_put_aside_counts_as_unused():
    found = observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old"))
    steps = commit(found, "new", 0, [image("old")], [container("new"), put_aside("old")])
    assert "remove_image sha256:old" in verbs(steps)


def test_two_releases_on_one_image_keep_it():
    same = {"id": "sha256:same"}
    found = observed(container("new"), proven=None, current=record("old", **same), previous=record("older", **same))
    steps = release.commit(found, record("new", **same), 1, [ImageState(id="sha256:same", labels=OURS)], [], set())
    assert verbs(steps) == ["write -"]


def test_what_was_proven_must_be_what_is_there():
    for found in (observed(), observed(container("other"))):
        with pytest.raises(AikitError, match="that was proven .* is gone"):
            commit(found, "new")


def test_check_mode_says_whether_a_commit_would_change_something():
    assert release.would_commit(observed(container("new"), proven="new"), record("new")) == ()
    assert verbs(release.would_commit(observed(container("old"), proven="old"), record("new"))) == ["write -"]


def test_a_record_holds_all_that_a_rollback_needs():
    spec = {
        "spec": "new",
        "image": {"ref": "a:1", "id": "sha256:1", "digest": "sha256:2"},
        "settings": {"threads": 1},
        "container": {"name": "llama"},
        "files": [],
        "findings": [{"level": "warning"}],
    }
    assert release.make_record(spec, "proven", {"layers_total": 1}) == {
        "image": "a:1",
        "id": "sha256:1",
        "digest": "sha256:2",
        "settings": {"threads": 1},
        "spec": "new",
        "verdict": "proven",
        "evidence": {"layers_total": 1},
        "release": {key: value for key, value in spec.items() if key != "findings"},
    }


# --- restore, rollback, stop, absent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "steps", "restored"),
    [
        pytest.param(
            observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old")),
            ["remove llama", "rename llama--previous llama", "start llama", "write -"],
            True,
            id="the proof failed",
        ),
        pytest.param(
            observed(None, put_aside("old"), proven="old", wish=pending("new", "old")),
            ["rename llama--previous llama", "start llama", "write -"],
            True,
            id="it could not be created",
        ),
        pytest.param(
            observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old", was_running=False)),
            ["remove llama", "rename llama--previous llama", "write -"],
            True,
            id="the old one did not run",
        ),
        pytest.param(
            observed(container("old", running=False), proven="old", wish=pending("new", "old")),
            ["start llama", "write -"],
            True,
            id="the rename failed",
        ),
        pytest.param(observed(container("old"), proven="old", wish=pending("new", "old")), ["write -"], True, id="the stop failed"),
        pytest.param(observed(container("new"), wish=pending("new", was_running=False)), ["stop llama"], False, id="a first deployment"),
        pytest.param(
            observed(container("new", running=False), wish=pending("new", was_running=False)), [], False, id="a first deployment that ended"
        ),
        pytest.param(observed(container("new"), proven="new"), [], False, id="proven before"),
        pytest.param(observed(), [], False, id="nothing there"),
    ],
)
def test_restore(found, steps, restored):
    assert (verbs(release.restore(found)[0]), release.restore(found)[1]) == (steps, restored)


def test_the_image_of_a_failed_release_is_remembered_for_removal():
    steps, _restored = release.restore(observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old")))
    assert steps[-1].state["retired"] == [{"id": "sha256:new", "ref": "localhost/new:1"}]


@pytest.mark.parametrize(
    ("found", "target"),
    [
        (observed(container("new"), proven="new", previous=record("old")), "old"),
        (observed(container("new"), put_aside("old"), proven="old", wish=pending("new", "old"), previous=record("older")), "old"),
        (observed(container("new"), proven="old", previous=record("older")), "old"),
        (observed(None, None, proven="new", previous=record("old")), "old"),
    ],
)
def test_rollback_goes_one_step_back(found, target):
    assert release.rollback_target(found)["spec"] == target


def test_rollback_needs_something_to_go_back_to():
    with pytest.raises(AikitError, match="has no earlier release on this host"):
        release.rollback_target(observed(container("new"), proven="new"))
    with pytest.raises(AikitError, match=r"The image of the earlier release is gone: a:1 \(sha256:1\)") as caught:
        release.check_image({"image": "a:1", "id": "sha256:1", "digest": "sha256:2"}, None)
    assert caught.value.hint.startswith("Pull a:1@sha256:2 on the host")
    release.check_image({"id": "sha256:1"}, image("new"))


def test_stop():
    assert verbs(release.stop(observed(container("new")))) == ["stop llama"]
    assert verbs(release.stop(observed(container("new", running=False, status="restarting")))) == ["stop llama"]
    assert release.stop(observed(container("new", running=False))) == ()
    assert release.stop(observed()) == ()


def test_absent():
    found = observed(
        container("new"),
        put_aside("old"),
        proven="old",
        previous=record("older"),
        retired=[{"id": "sha256:c2"}],
        wish=pending("new", "old"),
    )
    images = [image(name) for name in ("c2", "new", "old", "older", "strange")] + [ImageState(id="sha256:mine", labels={})]
    containers = [container("new"), put_aside("old"), dataclasses.replace(container("older"), name="other", id="x")]
    steps = release.absent(found, ["/s/llama", "/s/llama.json"], True, images, containers, {"sha256:c2"})
    assert verbs(steps) == [
        "remove llama",
        "remove llama--previous",
        "remove_image sha256:new",
        "remove_image sha256:old",
        "delete /s/llama",
        "delete /s/llama.json",
    ]
    assert verbs(release.absent(found, [])) == ["remove llama", "remove llama--previous"]
    assert release.absent(observed(), []) == ()


# --- state file and ports ----------------------------------------------------------------------------------------


def test_the_state_file_survives_the_way_to_disk():
    state = observed(proven="new", wish=pending("x", "new")).state
    assert release.parse_state(release.state_text(state), "llama", "/s/llama.json") == state
    assert release.parse_state(None, "llama", "/s/llama.json") == release.empty_state("llama")
    assert release.image_ids({**state, "previous": record("old"), "retired": [{"id": "sha256:c"}]}) == {
        "sha256:new",
        "sha256:x",
        "sha256:old",
        "sha256:c",
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "service": "llama"}', '{"schema": 1, "service": "other"}'])
def test_a_state_file_that_makes_no_sense_is_named(text):
    with pytest.raises(AikitError, match="/s/llama.json") as caught:
        release.parse_state(text, "llama", "/s/llama.json")
    assert "Move the file away" in caught.value.hint


WISH = [{"bind_address": "127.0.0.1", "port": 8080}]


def publishes(name, host_ip="127.0.0.1", running=True, labels=None):
    found = container("x", name, running, ports=({"host_ip": host_ip, "host_port": 8080, "container_port": 80},))
    return dataclasses.replace(found, labels=labels or {})


@pytest.mark.parametrize(
    ("containers", "sockets", "owner"),
    [
        ([], [], None),
        ([publishes("web")], [], "container web"),
        ([publishes("web", labels={"io.aikit.fleet.service": "chat"})], [], "container web (service chat)"),
        ([publishes("web", running=False)], [], None),
        ([publishes("web", "192.0.2.1")], [], None),
        ([publishes("web", "0.0.0.0")], [], "container web"),
        ([publishes("llama")], [(Listener("127.0.0.1", 8080, 1), "docker-proxy (pid 3)")], None),
        ([publishes("llama", running=False)], [(Listener("127.0.0.1", 8080, 1), "nginx (pid 3)")], "nginx (pid 3)"),
        ([], [(Listener("0.0.0.0", 8080, 1), "")], "a process that this user may not see"),
        ([], [(Listener("::", 8080, 1), "nginx (pid 3)")], "nginx (pid 3)"),
        ([], [(Listener("127.0.0.2", 8080, 1), "nginx (pid 3)"), (Listener("127.0.0.1", 8081, 1), "x")], None),
    ],
)
def test_who_holds_a_port(containers, sockets, owner):
    found = release.port_owners(WISH, ("llama", "llama--previous"), containers, sockets)
    assert [entry.owner for entry in found] == ([owner] if owner else [])
    if owner:
        with pytest.raises(AikitError, match="Service llama cannot have its port: 127.0.0.1:8080 is held by ") as caught:
            release.check_ports("llama", found)
        assert owner in caught.value.message
        assert caught.value.data["port_owners"][0]["owner"] == owner
    else:
        release.check_ports("llama", found)


def test_a_described_container_is_json():
    assert json.dumps(release.describe(container("new")))
    assert release.describe(None) == {}


# --- every kill --------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


class Host:
    """Containers and a state file; every effect may be the last one before a kill."""

    def __init__(self):
        self.containers = {}
        self.state = None
        self.effects = None

    def effect(self):
        if self.effects is not None:
            if self.effects == 0:
                raise Killed
            self.effects -= 1

    def observe(self):
        return release.Observed(
            "llama",
            self.containers.get("llama"),
            self.containers.get("llama--previous"),
            release.parse_state(self.state, "llama", "/s/llama.json"),
        )

    def apply(self, steps):
        for step in steps:
            self.effect()
            if step.verb == "write":
                self.state = release.state_text(step.state)
            elif step.verb == "rename":
                assert step.to not in self.containers, "an engine refuses a name that is taken"
                self.containers[step.to] = dataclasses.replace(self.containers.pop(step.target), name=step.to)
            elif step.verb == "remove":
                self.containers.pop(step.target, None)
            elif step.verb in ("stop", "start"):
                running = step.verb == "start"
                self.containers[step.target] = dataclasses.replace(
                    self.containers[step.target], running=running, status="running" if running else "exited"
                )

    def deploy(self, spec, works=True):
        """What role inference does."""
        decision = release.prepare(self.observe(), spec, {"ref": "", "id": f"sha256:{spec}"})
        self.apply(decision.steps)
        if decision.start_container:
            if "llama" not in self.containers:
                self.effect()
                self.containers["llama"] = container(spec, running=False, status="created")
            self.effect()
            self.containers["llama"] = dataclasses.replace(self.containers["llama"], running=True, status="running")
        assert self.containers["llama"].labels["io.aikit.fleet.spec"] == spec
        if not works:
            self.apply(release.restore(self.observe())[0])
            return False
        self.apply(release.commit(self.observe(), record(spec), 1, [], [], set()))
        return True

    @property
    def specs(self):
        return {name: (found.labels["io.aikit.fleet.spec"], found.running) for name, found in self.containers.items()}

    @property
    def proven(self):
        return (release.parse_state(self.state, "llama", "")["current"] or {}).get("spec")


WISHES = [("old", True), ("new", True), ("bad", False)]


@pytest.mark.parametrize("first", [None, "old"])
@pytest.mark.parametrize("killed", WISHES, ids=lambda wish: wish[0])
@pytest.mark.parametrize("again", WISHES, ids=lambda wish: wish[0])
@pytest.mark.parametrize("last", WISHES, ids=lambda wish: wish[0])
def test_every_kill_is_mended_by_running_again(first, killed, again, last):
    """A deployment is killed after each number of effects, so is the next one, and the third one ends well."""
    for one, two in itertools.product(range(9), range(9)):
        host = Host()
        if first:
            host.deploy(first)
        for (spec, works), effects in ((killed, one), (again, two)):
            host.effects = effects
            try:
                host.deploy(spec, works)
            except Killed:
                pass
            if first:
                # What was proven is still there under one of the two names, whatever happened
                assert host.proven in {found for found, _running in host.specs.values()}
        host.effects = None
        before = host.proven
        spec, works = last
        assert host.deploy(spec, works) is works
        if works:
            assert host.specs == {"llama": (spec, True)}
            assert host.proven == spec
        elif before:
            assert host.specs == {"llama": (before, True)}
            assert host.proven == before
        else:
            assert host.specs == {"llama": (spec, False)}
        state = release.parse_state(host.state, "llama", "")
        assert works is (state["pending"] is None) or before
        # and once more changes nothing
        if works:
            text = host.state
            assert host.deploy(spec) and host.state == text


def test_a_failed_deployment_gives_the_same_answer_each_time():
    host = Host()
    host.deploy("old")
    for _time in range(3):
        assert host.deploy("bad", works=False) is False
        assert host.specs == {"llama": ("old", True)}
        assert release.parse_state(host.state, "llama", "")["pending"] is None


def test_there_and_back_again():
    host = Host()
    host.deploy("old")
    host.deploy("new")
    target = release.rollback_target(host.observe())
    assert host.deploy(target["spec"]) and host.specs == {"llama": ("old", True)}
    assert release.rollback_target(host.observe())["spec"] == "new"


# --- plans of GPU memory ---------------------------------------------------------------------------------------------


FIT = {"planned": True, "step_down": 0, "settings": {"gpu_layers": 33, "context_size": 8192}, "inputs": {"model": "m", "gpus": "GPU-1:12288"}}


def with_fit(name, fit):
    return {"spec": name, "image": {"id": "sha256:1", "ref": "i:1"}, "settings": dict(fit.get("settings") or {}), "fit": fit}


def test_a_record_says_what_its_plan_was_made_from():
    record = release.make_record(with_fit("A", FIT), "proven", {})
    assert record["planned_from"] == {"model": "m", "gpus": "GPU-1:12288", "step_down": 0} and record["release"]["fit"] == FIT
    assert "planned_from" not in release.make_record(with_fit("A", {}), "proven", {})


def test_a_plan_made_from_something_else_is_written_down_though_nothing_else_changed():
    old = {**release.make_record(with_fit("A", FIT), "proven", {}), "container_id": "id-A", "started_at": "2026-01-01T00:00:00Z"}
    state = {**release.empty_state("llama"), "current": old}
    seen = release.Observed("llama", container("A"), None, state)
    assert release.committed(seen, release.make_record(with_fit("A", FIT), "proven", {}), 1) == state
    other = {**FIT, "inputs": {**FIT["inputs"], "driver": "590"}}
    assert release.committed(seen, release.make_record(with_fit("A", other), "proven", {}), 1)["current"]["planned_from"]["driver"] == "590"
    assert release.would_commit(seen, release.make_record(with_fit("A", FIT), "proven", {})) == ()
    assert release.would_commit(seen, release.make_record(with_fit("A", other), "proven", {}))


def test_an_error_of_memory_is_remembered_once_and_forgotten_with_what_it_was_learned_on():
    state = release.empty_state("llama")
    seen = release.Observed("llama", container("A"), None, state)
    step, stop = release.step_down(seen, with_fit("A", FIT), "cudaMalloc failed: out of memory\nmore words")
    assert (stop.verb, stop.target) == ("stop", "llama")
    # One that was proven before may be what there is to go back to
    known = release.Observed("llama", container("A"), None, {**state, "current": {"spec": "A"}})
    assert [found.verb for found in release.step_down(known, with_fit("A", FIT), "out of memory")] == ["write"]
    entry = step.state["step_down"]
    assert (entry["count"], entry["reason"], entry["settings"]) == (1, "cudaMalloc failed: out of memory", FIT["settings"])
    assert step.action().describe() == "write state of llama (step 1 down: cudaMalloc failed: out of memory)"
    assert release.step_down(seen, with_fit("A", {}), "out of memory") == ()
    stepped = {**FIT, "step_down": 1}
    proven = release.Observed("llama", container("B"), None, step.state)
    assert release.committed(proven, release.make_record(with_fit("B", stepped), "proven", {}), 1)["step_down"] == entry
    # A plan that did not need it: another model, or one that was asked for anew
    other = {**FIT, "inputs": {**FIT["inputs"], "gpus": "GPU-2:12288"}}
    assert release.committed(proven, release.make_record(with_fit("B", other), "proven", {}), 1)["step_down"] is None
    # A rollback to the plan of before goes back to a container; what was learned stays
    earlier = release.make_record(with_fit("B", FIT), "proven", {})
    assert release.committed(proven, earlier, 1)["step_down"] == entry
    # Who asks for a new plan wants to forget; who goes back to that one later does not
    asked = release.make_record(with_fit("B", {**FIT, "replanned": True}), "proven", {})
    state = release.committed(proven, asked, 1)
    assert state["step_down"] is None and "replanned" not in json.dumps(state)
    assert release.committed(proven, release.make_record(state["current"]["release"], "proven", {}), 1)["step_down"] == entry
    (write,) = release.would_commit(proven, asked)
    assert "replanned" not in json.dumps(write.state)


def test_a_difference_shows_the_settings():
    state = {**release.empty_state("llama"), "current": {"spec": "A", "settings": {"context_size": 8192}}}
    seen = release.Observed("llama", container("A"), None, state)
    decision = release.prepare(seen, "B", {"id": "sha256:1"})
    plan = release.plan(seen, decision.steps, with_fit("B", FIT))
    assert plan.before["settings"] == {"context_size": 8192} and plan.after["settings"] == FIT["settings"]
    assert "settings" not in release.plan(seen, (), with_fit("B", FIT)).before


def test_a_container_between_two_restarts_has_its_port():
    mine = container("A", running=False, status="restarting", ports=({"host_ip": "127.0.0.1", "host_port": 8080, "container_port": 8080},))
    wish = [{"bind_address": "127.0.0.1", "port": 8080}]
    seen = [(Listener("127.0.0.1", 8080, 1), "docker-proxy (pid 9)")]
    assert release.port_owners(wish, ["llama"], [mine], seen) == ()
    assert release.port_owners(wish, ["other"], [mine], seen)[0].owner == "container llama"
