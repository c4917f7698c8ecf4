# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Services without an aikitfile: an image of ours under a local name, and images with LocalAI from a registry.

AIKit's own images cannot be had where the tests run. ``tests/fixtures/fake-localai`` stands in for them: it is a script
that answers and logs as LocalAI does, and what is tested with it is what happens around the server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import registries
import stand_ins
import support
import yaml
from helpers import task
from support import docker, inspect

LOGS = support.ROOT / "tests/fixtures/logs"
NAME = "aikit-e2e-premade"


@pytest.fixture
def own(quickstart, tmp_path):
    found = support.Project(tmp_path / "project")
    yield found
    for name in (NAME, f"{NAME}--previous"):
        docker("rm", "--force", "--volumes", name, check=False)


def test_an_image_of_ours_under_a_local_name(own):
    image = docker("inspect", "--format={{.Id}}", f"localhost/aikit/{support.QUICKSTART}:latest")
    docker("tag", image, "localhost/aikit-e2e/premade:1")
    port = support.free_port()
    own.services = [{"name": NAME, "image": "localhost/aikit-e2e/premade:1", "port": port, "settings": {"context_size": 512}}]
    own.write()
    try:
        run = own.run()
        assert run.code == 0, run.output[-4000:]
        found = inspect(NAME)
        assert found["Image"] == image and found["HostConfig"]["ReadonlyRootfs"] is True
        assert "LLAMA_ARG_CTX_SIZE=512" in found["Config"]["Env"]
        current = own.state_of(NAME)["current"]
        assert (current["id"], current["verdict"], current["release"]["server"]) == (image, "cpu", "llama_cpp")
        assert support.completion(port)["usage"]["completion_tokens"] > 0
        again = own.run()
        assert (again.code, again.changed) == (0, 0) and inspect(NAME)["Id"] == found["Id"]
    finally:
        docker("rmi", "localhost/aikit-e2e/premade:1", check=False)


def test_an_image_that_nobody_has(own):
    own.services = [{"name": NAME, "image": f"127.0.0.1:{support.free_port()}/aikit-e2e/none:1", "port": support.free_port()}]
    own.write()
    run = own.run()
    assert run.code != 0 and "aikit-e2e/none" in run.messages() and "refused" in run.messages(), run.messages()
    assert docker("ps", "--all", "--quiet", f"--filter=name=^{NAME}$") == "" and not (own.state / f"{NAME}.json").exists()


# --- a registry and the stand-in for LocalAI -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Debian's docker-registry on loopback, which engines may talk to without TLS."""
    folder = tmp_path_factory.mktemp("registry")
    port = support.free_port()
    configuration = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(json.dumps(configuration))
    program = support.debian_program("docker-registry", "usr/bin/docker-registry", folder)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([str(program), "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        support.wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").close(), OSError, 30)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        images = set(docker("images", "--no-trunc", "--quiet", f"127.0.0.1:{port}/aikit-e2e/localai").split())
        docker("rmi", "--force", *images, check=False)


def backend_log(kind: str) -> list[str]:
    """Lines of llama.cpp's loader: as a real server wrote them for the CPU, as they are documented for a GPU."""
    if kind == "cpu":
        words = ("No devices found", "print_info: n_", "buffer size =")
        return [line for line in (LOGS / "captured/cpu.log").read_text().splitlines() if any(word in line for word in words)]
    return [json.loads(line)["line"] for line in (LOGS / "made/localai-xlog-json-cuda.log").read_text().splitlines()]


def fake_localai(folder: Path, name: str, kind: str) -> None:
    """An image as AIKit makes them: entrypoint local-ai, /config.yaml, no label."""
    root = stand_ins.localai_root(folder / kind, backend_log(kind))
    if kind == "cuda":
        (root / "cuda").touch()
    with tarfile.open(folder / f"{kind}.tar", "w") as writer:
        writer.add(root, ".")
    changes = ['ENTRYPOINT ["local-ai"]', "ENV CONFIG_FILE=/config.yaml", "ENV PATH=/usr/bin:/bin"]
    docker("import", *(f"--change={change}" for change in changes), str(folder / f"{kind}.tar"), name)


@pytest.fixture
def pushed(registry, tmp_path):
    """Push the stand-in as ``localai:1`` and take it off the engine; returns (reference, digest)."""

    def push(kind: str) -> tuple[str, str]:
        name = f"{registry}/aikit-e2e/localai:1"
        fake_localai(tmp_path / "image", name, kind)
        docker("push", "--quiet", name)
        (digest,) = [word.partition("@")[2] for word in json.loads(docker("inspect", "--format={{json .RepoDigests}}", name)) if registry in word]
        docker("rmi", "--force", docker("inspect", "--format={{.Id}}", name))
        return name, digest

    return push


def verdict_of(own) -> str:
    return own.state_of(NAME)["current"]["verdict"]


def test_a_localai_image_is_pulled_and_proven(own, pushed):
    name, digest = pushed("cpu")
    own.services = [{"name": NAME, "image": name, "port": support.free_port(), "settings": {"context_size": 512, "parallel": 2}}]
    own.write()
    check = own.run("deploy.yml", "--check")
    assert check.code == 0, check.output[-3000:]
    assert docker("images", "--quiet", name) == ""
    run = own.run()
    assert run.code == 0, run.output[-4000:]
    current = own.state_of(NAME)["current"]
    assert current["digest"] == digest and current["image"] == name and current["release"]["server"] == "localai"
    assert current["verdict"] == "cpu" and current["evidence"]["sources"][0] == "log" and current["evidence"]["buffers"]

    found = inspect(NAME)
    env = dict(word.split("=", 1) for word in found["Config"]["Env"])
    assert (env["LOCALAI_LOG_LEVEL"], env["LOCALAI_LOG_FORMAT"], env["LOCALAI_LOAD_TO_MEMORY"]) == ("debug", "json", "fake-model")
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is False and host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert found["Config"]["User"] == "65532:65532" and set(host["Tmpfs"]) == {"/tmp", "/data", "/configuration"}
    assert host["PortBindings"]["8080/tcp"][0]["HostIp"] == "127.0.0.1"
    (mount,) = [mount for mount in found["Mounts"] if mount["Destination"] == "/config.yaml"]
    assert mount["RW"] is False and Path(mount["Source"]).parent == own.state / NAME
    (model,) = yaml.safe_load(Path(mount["Source"]).read_text())
    assert model["options"] == ["parallel:2", "verbosity:4"] and model["context_size"] == 512
    # What was in the image's own configuration is still there, byte for byte
    assert model["template"] == {"chat": "{{.Input}}\n"} and model["parameters"] == {"model": "fake-model.gguf"}

    again = own.run()
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
    (report,) = again.results("What runs where")
    assert "fake-model" in report["msg"][2]


def test_a_registry_that_wants_a_login(own, tmp_path):
    """The login of the inventory reaches the pull on the host, and stays nowhere."""
    with registries.Registry(tmp_path / "locked", logins=True) as locked:
        name = f"{locked.host}/aikit-e2e/localai-locked:1"
        fake_localai(tmp_path / "image", name, "cpu")
        config = tmp_path / "login"
        config.mkdir()
        shutil.copy(locked.auth_file, config / "config.json")
        docker("--config", str(config), "push", "--quiet", name)
        docker("rmi", "--force", docker("inspect", "--format={{.Id}}", name))
        own.services = [{"name": NAME, "image": name, "port": support.free_port()}]
        own.write()
        try:
            refused = own.run()
            assert refused.code != 0 and "no basic auth credentials" in refused.messages(), refused.messages()
            login = {"registry": locked.host, "username": registries.USER, "password": registries.PASSWORD}
            arguments = ("-e", json.dumps({"inference_registry_logins": [login]}))
            run = own.run("deploy.yml", "-v", *arguments)
            assert run.code == 0 and registries.PASSWORD not in run.output, run.output[-4000:]
            assert own.state_of(NAME)["current"]["image"] == name and verdict_of(own) == "cpu"
            again = own.run("deploy.yml", "-e", "inference_pull=always", *arguments)
            assert (again.code, again.changed) == (0, 0), again.output[-3000:]
        finally:
            docker("rm", "--force", "--volumes", NAME, check=False)
            docker("rmi", "--force", name, check=False)


def test_without_its_override_nothing_would_be_known(own, pushed):
    """The same image under the bare command: the proof says that it cannot tell, and how to change that."""
    name, digest = pushed("cpu")
    port = support.free_port()
    docker("run", "--detach", f"--name={NAME}", f"--publish=127.0.0.1:{port}:8080", f"{name.rpartition(':')[0]}@{digest}")
    support.wait(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close(), (OSError, urllib.error.URLError))
    result = task("inference_check", url=f"http://127.0.0.1:{port}", container=NAME)
    assert result["verdict"] == "unverified" and "LOCALAI_LOG_LEVEL=debug" in " ".join(result["reasons"])


def test_a_tag_that_moved(own, pushed):
    """``missing`` keeps what runs, ``always`` follows the tag; a digest never moves."""
    name, first = pushed("cpu")
    own.services = [{"name": NAME, "image": name, "port": support.free_port(), "expect": {"verdict": ["cpu", "proven"]}}]
    own.write()
    assert own.run().code == 0 and verdict_of(own) == "cpu"
    checked = own.run("deploy.yml", "--check", "-e", "inference_pull=always")
    assert (checked.code, checked.changed) == (0, 0), checked.output[-3000:]
    _name, second = pushed("cuda")
    docker("tag", inspect(NAME)["Image"], name)
    assert first != second
    checked = own.run("deploy.yml", "--check", "-e", "inference_pull=always")
    assert checked.code == 0 and f"pull {name}" in checked.output, checked.output[-3000:]
    same = own.run()
    assert (same.code, same.changed) == (0, 0), same.output[-3000:]
    moved = own.run("deploy.yml", "-e", "inference_pull=always")
    assert moved.code == 0 and moved.changed > 0, moved.output[-4000:]
    state = own.state_of(NAME)
    # Lines of documented shape for a GPU that is not here: what is shown is that they are read
    assert (state["current"]["digest"], state["current"]["verdict"]) == (second, "proven")
    assert state["previous"]["digest"] == first
    own.services[0]["image"] = f"{name.rpartition(':')[0]}@{first}"
    own.write()
    back = own.run()
    assert back.code == 0, back.output[-4000:]
    assert own.state_of(NAME)["current"]["digest"] == first and verdict_of(own) == "cpu"


def test_only_what_is_signed_reaches_a_host(own, pushed, tmp_path, monkeypatch):
    """The builder verifies with the real cosign; the host gets the digest, whatever the tag means by then."""
    program = registries.cosign()
    monkeypatch.setenv("PATH", f"{Path(program).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    for key in ("maker", "stranger"):
        subprocess.run([program, "generate-key-pair", f"--output-key-prefix={key}"], cwd=tmp_path, check=True, capture_output=True)
    name, digest = pushed("cpu")
    own.services = [{"name": NAME, "image": name, "port": support.free_port()}]
    own.write()

    def deploy(mode: str, *more: str) -> support.Run:
        key = {"key": str(tmp_path / f"{mode}.pub"), "mode": "key", "ignore_tlog": True}
        told = {"inference_verify": key if mode != "none" else {"mode": "none"}, "inference_cache_dir": str(tmp_path / "cache")}
        return own.run("deploy.yml", "-e", json.dumps(told), *more)

    unsigned = deploy("maker")
    assert unsigned.code != 0 and f"{name.rpartition(':')[0]}@{digest} is not signed" in unsigned.messages(), unsigned.messages()
    assert docker("images", "--quiet", name) == ""
    ref = f"{name.rpartition(':')[0]}@{digest}"
    sign = [program, "sign", f"--key={tmp_path / 'maker.key'}", "--yes", "--tlog-upload=false", ref]
    subprocess.run(sign, check=True, capture_output=True)
    stranger = deploy("stranger")
    assert stranger.code != 0 and "has no signature by key" in stranger.messages() and docker("images", "--quiet", name) == ""
    check = deploy("maker", "--check")
    assert check.code == 0 and docker("images", "--quiet", name) == "", check.output[-3000:]
    done = deploy("maker")
    assert done.code == 0, done.output[-4000:]
    (told,) = done.results("Verify who signed the image")
    assert told["pull"] == ref and told["signatures"]["verified"][0]["by"] == f"key {tmp_path / 'maker.pub'}"
    current = own.state_of(NAME)["current"]
    assert (current["digest"], current["image"]) == (digest, name)
    again = deploy("maker")
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
    # Asked for each time, it is the same image each time
    always = deploy("maker", "-e", "inference_pull=always")
    assert (always.code, always.changed) == (0, 0), always.output[-3000:]


def test_cpu_where_proven_was_expected(own, pushed):
    """LocalAI's way to fall back in silence ends the deployment."""
    name, _digest = pushed("cpu")
    own.services = [{"name": NAME, "image": name, "port": support.free_port(), "expect": {"verdict": ["proven"]}}]
    own.write()
    run = own.run()
    assert run.code != 0 and "expected proven, found cpu" in run.messages(), run.messages()
    # Left for a look at it, but it serves nobody
    assert inspect(NAME)["State"]["Running"] is False and own.state_of(NAME)["current"] is None
