# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service from its first deployment to its removal: real Docker, real model, real server."""

from __future__ import annotations

import http.server
import json
import os
import random
import threading
import urllib.error
from pathlib import Path

import pytest
import support
from support import completion, docker, inspect


def test_quickstart_answers_and_shows_a_table(quickstart):
    run, port, _arguments = quickstart
    answer = completion(port)
    assert answer["usage"]["completion_tokens"] > 0 and answer["choices"][0]["finish_reason"] in ("stop", "length")
    (report,) = run.results("What runs where")
    assert report["msg"][2].split()[:5] == ["localhost", support.QUICKSTART, "gemma-3-270m", "present", "cpu"]
    assert report["msg"][-1].startswith(f"curl -s http://127.0.0.1:{port}/v1/chat/completions")


def test_a_second_quickstart_changes_nothing(quickstart):
    _run, _port, arguments = quickstart
    again = support.playbook("aikit.fleet.quickstart", *arguments)
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]


def test_the_image_works_with_the_bare_command(quickstart):
    image = inspect(support.QUICKSTART)["Image"]
    port = support.free_port()
    docker("run", "--rm", "--detach", "--name=aikit-e2e-bare", f"--publish=127.0.0.1:{port}:8080", image)
    try:
        answer = support.wait(lambda: completion(port), (OSError, urllib.error.HTTPError))
        assert answer["usage"]["completion_tokens"] > 0
    finally:
        docker("rm", "--force", "aikit-e2e-bare")


@pytest.fixture(scope="module")
def deployed(project):
    port = support.free_port()
    project.service("aikit-e2e", port, environment={"EXTRA": "1"})
    check = project.run("deploy.yml", "--check", "--diff")
    assert check.code == 0 and check.changed > 0, check.output[-3000:]
    assert not docker("ps", "--all", "--quiet", "--filter=name=^aikit-e2e$")
    run = project.run()
    assert run.code == 0, run.output[-4000:]
    return project, port


def test_the_container_is_locked_down(deployed):
    _project, port = deployed
    found = inspect("aikit-e2e")
    host = found["HostConfig"]
    assert found["Config"]["User"] == "65532:65532" and host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"] and not host["Privileged"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    assert found["Config"]["Healthcheck"]["Test"][-1] == "http://127.0.0.1:8080/health"


def test_a_second_deployment_changes_nothing(deployed):
    project, _port = deployed
    before = inspect("aikit-e2e")["Id"]
    again = project.run()
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
    assert inspect("aikit-e2e")["Id"] == before


def test_the_state_file_holds_verdict_and_evidence(deployed):
    project, _port = deployed
    current = project.state_of("aikit-e2e")["current"]
    assert current["verdict"] == "cpu" and current["evidence"]["buffers"]
    assert (project.state / "aikit-e2e.json").stat().st_mode & 0o777 == 0o600


def test_doctor_finds_nothing(deployed):
    project, _port = deployed
    run = project.run("aikit.fleet.doctor")
    assert (run.code, run.changed) == (0, 0), run.output[-3000:]


def test_build_writes_an_archive_that_docker_loads(deployed):
    project, _port = deployed
    run = project.run("aikit.fleet.build")
    assert run.code == 0, run.output[-3000:]
    (path,) = {Path(result["archive"]) for result in run.results("Assemble the image") if result.get("archive")}
    try:
        assert project.run("aikit.fleet.build").changed == 0
        assert docker("load", "--quiet", f"--input={path}") == "Loaded image: localhost/aikit/aikit-e2e:latest"
        assert docker("inspect", "--format={{.Id}}", "localhost/aikit/aikit-e2e:latest") == inspect("aikit-e2e")["Image"]
    finally:
        path.unlink()


def test_an_option_taken_out_replaces_the_container(deployed):
    project, port = deployed
    image = inspect("aikit-e2e")["Image"]
    project.service("aikit-e2e", port)
    run = project.run("deploy.yml", "--diff")
    assert run.code == 0 and run.changed > 0
    found = inspect("aikit-e2e")
    assert not any(word.startswith("EXTRA=") for word in found["Config"]["Env"])
    assert found["Image"] == image and completion(port)["choices"]
    assert docker("ps", "--all", "--quiet", "--filter=name=aikit-e2e--previous") == ""


def test_a_changed_aikitfile_sends_the_configuration_alone_and_can_be_rolled_back(deployed):
    project, port = deployed
    old = inspect("aikit-e2e")
    # One that no earlier run has left in the engine
    wanted = 1000 + random.randrange(1000)
    project.aikitfile(wanted)
    check = project.run("deploy.yml", "--check", "--diff")
    assert (check.code, check.failed) == (0, 0) and check.changed > 0, check.output[-3000:]
    assert inspect("aikit-e2e")["Id"] == old["Id"] and project.state_of("aikit-e2e")["pending"] is None
    (told,) = [result for result in check.results("Assemble the image") if result["actions"]]
    assert f'"LLAMA_ARG_CTX_SIZE": "{wanted}"' in told["diff"]["after"]
    run = project.run()
    assert run.code == 0, run.output[-3000:]
    (loaded,) = [result for result in run.results("Assemble the image") if result.get("bytes_sent")]
    assert loaded["bytes_sent"] < 64 * 1024
    assert [layer["reused"] for layer in loaded["image"]["layers"]] == [True, True, False]
    assert f"LLAMA_ARG_CTX_SIZE={wanted}" in inspect("aikit-e2e")["Config"]["Env"]
    back = project.run("aikit.fleet.rollback")
    assert back.code == 0, back.output[-3000:]
    found = inspect("aikit-e2e")
    assert found["Image"] == old["Image"] and "LLAMA_ARG_CTX_SIZE=2048" in found["Config"]["Env"]
    assert completion(port)["choices"]
    project.aikitfile(2048)
    run = project.run()
    # The name of the image still pointed to the release that was left
    assert (run.code, run.changed) == (0, 1) and inspect("aikit-e2e")["Id"] == found["Id"]
    assert project.run().changed == 0


def failing(project, port, **options):
    """Deploy something that cannot be proven; the old container must answer again, the host must have failed."""
    before = inspect("aikit-e2e")["Id"]
    proven = list(project.services)
    project.service("aikit-e2e", port, **options)
    run = project.run()
    try:
        assert run.code != 0 and run.failed == 1, run.output[-3000:]
        found = inspect("aikit-e2e")
        assert found["Id"] == before and found["State"]["Running"]
        assert completion(port)["choices"]
        assert project.state_of("aikit-e2e")["pending"] is None
    finally:
        project.services = proven
        project.write()
    # The old container was started anew, so its evidence is taken anew; it is not replaced
    assert project.run().code == 0 and inspect("aikit-e2e")["Id"] == before
    assert project.run().changed == 0
    return run.messages()


def test_cpu_where_proven_was_expected(deployed):
    message = failing(*deployed, settings={"context_size": 512}, expect={"verdict": ["proven"]})
    assert "proven" in message and "cpu" in message and "answers again" in message


def test_a_crash_shows_the_last_lines_of_the_log(deployed):
    message = failing(*deployed, environment={"LLAMA_ARG_DEVICE": "CUDA0"})
    assert "invalid device" in message and "answers again" in message


def test_a_server_that_is_never_ready(deployed, sleeping_image):
    message = failing(*deployed, src=None, context=None, image=sleeping_image, server="llama_cpp", timeout_seconds=5)
    assert "5 s" in message and "answers again" in message


@pytest.fixture(scope="module")
def sleeping_image(tmp_path_factory):
    """An image whose server never listens: a static busybox that sleeps."""
    name = "localhost/aikit-e2e/sleeps:1"
    support.import_busybox(tmp_path_factory.mktemp("busybox"), name, ["/bin/busybox", "sleep", "100000"])
    yield name
    docker("rmi", "--force", name, check=False)


def test_a_port_that_is_taken_names_who_has_it(deployed):
    project, _port = deployed
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        message = refused(project, server.server_address[1])
    finally:
        server.shutdown()
    assert f"127.0.0.1:{server.server_address[1]} is held by" in message and f"(pid {os.getpid()})" in message
    assert message.endswith("The release that runs was not touched.")


def refused(project, other):
    before = inspect("aikit-e2e")
    proven = list(project.services)
    project.service("aikit-e2e", other)
    run = project.run()
    project.services = proven
    project.write()
    assert run.code != 0
    found = inspect("aikit-e2e")
    assert (found["Id"], found["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    return run.messages()


def test_a_key_is_asked_for_and_shown_nowhere(deployed):
    project, port = deployed
    project.service("aikit-e2e", port, api_key="c0rrect-horse")
    run = project.run("deploy.yml", "--diff", "-vvv")
    assert run.code == 0, run.output[-3000:]
    assert "c0rrect-horse" not in run.output
    assert "c0rrect-horse" not in json.dumps(inspect("aikit-e2e")) + (project.state / "aikit-e2e.json").read_text()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        completion(port)
    assert project.run().changed == 0
    # A release that fails leaves the old one with the old key
    project.service("aikit-e2e", port, api_key="b4ttery-staple", environment={"LLAMA_ARG_DEVICE": "CUDA0"})
    failed = project.run()
    assert failed.code != 0 and "answers again" in failed.messages(), failed.output[-3000:]
    assert completion(port, key="c0rrect-horse")["choices"]
    # So does a rollback over a change of the key, which keeps the service closed all the time
    project.service("aikit-e2e", port, api_key="b4ttery-staple")
    assert project.run().code == 0 and completion(port, key="b4ttery-staple")["choices"]
    back = project.run("aikit.fleet.rollback")
    assert back.code == 0, back.output[-3000:]
    assert completion(port, key="c0rrect-horse")["choices"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        completion(port)
    unknown = project.run("aikit.fleet.rollback", "-e", '{"inference_rollback_services": ["aikit-e2f"]}')
    assert unknown.code != 0 and "aikit-e2f" in unknown.messages() and "aikit-e2e" in unknown.messages()
    project.service("aikit-e2e", port)
    assert project.run().code == 0
    # Without a key none is left behind, but that of the release to go back to
    assert len(list((project.state / "aikit-e2e").glob("api-key-*"))) == 1


def test_a_renamed_service_takes_over_the_port(deployed):
    project, port = deployed
    project.service("aikit-e2e-renamed", port)
    # The old name stands below the new one
    project.services = [*[entry for entry in project.services if entry["name"] != "aikit-e2e"], {"name": "aikit-e2e", "state": "absent"}]
    project.write()
    check = project.run("deploy.yml", "--check")
    assert check.code == 0 and check.changed > 0 and inspect("aikit-e2e"), check.output[-3000:]
    run = project.run("deploy.yml", "--skip-tags", "build")
    assert run.code == 0 and completion(port)["choices"], run.output[-3000:]
    assert docker("ps", "--all", "--quiet", "--filter=name=^aikit-e2e$") == ""
    project.services = [{"name": "aikit-e2e-renamed", "state": "absent"}]
    project.service("aikit-e2e", port)
    run = project.run()
    assert run.code == 0 and completion(port)["choices"], run.output[-3000:]
    project.services = [entry for entry in project.services if entry["name"] == "aikit-e2e"]
    project.write()


def test_a_service_moves_to_the_port_that_another_one_leaves(deployed):
    project, port = deployed
    second, third = support.free_port(), support.free_port()
    project.service("aikit-e2e-second", second)
    assert project.run().code == 0
    before = [inspect(name)["Id"] for name in ("aikit-e2e", "aikit-e2e-second")]
    # Each of them would have to be proven on a port that the other one needs to come back
    project.service("aikit-e2e", second)
    project.service("aikit-e2e-second", port)
    refused = project.run()
    assert refused.code != 0 and "exchange their ports" in refused.messages() and "Deploy twice" in refused.messages(), refused.output[-3000:]
    assert [inspect(name)["Id"] for name in ("aikit-e2e", "aikit-e2e-second")] == before
    project.service("aikit-e2e", second)
    project.service("aikit-e2e-second", third)
    check = project.run("deploy.yml", "--check")
    assert (check.code, check.failed) == (0, 0), check.output[-3000:]
    run = project.run()
    assert run.code == 0 and completion(second)["choices"] and completion(third)["choices"], run.output[-3000:]
    assert project.run().changed == 0
    project.service("aikit-e2e-second", third, state="absent")
    project.service("aikit-e2e", port)
    assert project.run().code == 0
    project.services = [entry for entry in project.services if entry["name"] == "aikit-e2e"]
    project.write()


def test_stopped_and_absent(deployed):
    project, port = deployed
    project.service("aikit-e2e", port, state="stopped")
    assert project.run().changed == 1
    assert inspect("aikit-e2e")["State"]["Running"] is False
    assert project.run().changed == 0
    image = inspect("aikit-e2e")["Image"]
    project.service("aikit-e2e", port, state="absent")
    assert project.run("deploy.yml", "--check").changed > 0
    assert inspect("aikit-e2e")
    assert project.run().code == 0
    assert docker("ps", "--all", "--quiet", "--filter=name=^aikit-e2e$") == ""
    assert not (project.state / "aikit-e2e.json").exists()
    assert project.run().changed == 0
    assert image not in docker("images", "--no-trunc", "--quiet") or "aikit-e2e-quickstart" in docker("ps", "--format={{.Names}}", f"--filter=ancestor={image}")
