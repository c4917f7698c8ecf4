# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builder buildkit with a docker command that records what it is asked: check, real, again, changed; and what is refused.

What really builds is in tests/hosts/test_buildkit.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import buildkit
from ansible_collections.aikit.fleet.plugins.modules import aikit_image
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source

FAKE = Path(__file__).resolve().parents[2] / "fixtures/fake-docker"
NAME = "registry.example:5000/fleet/flux:1"
DIGEST = "sha256:" + "1" * 64
FRONTEND = f"ghcr.io/kaito-project/aikit/aikit:v0.21.0@{DIGEST}"
AIKITFILE = (
    "#syntax=ghcr.io/kaito-project/aikit/aikit:v0.21.0\r\napiVersion: v1alpha1  \nruntime: cuda\nbackends: [diffusers]\n# Größe\n"
    "models:\n  - name: tiny\n    source: tiny.gguf"
)
TOKEN = "hf_" + "s3cr3t" * 4


class FakeRegistry:
    """Digests of tags, and the manifests behind them."""

    def __init__(self):
        self.tags = {"ghcr.io/kaito-project/aikit/aikit:v0.21.0": DIGEST}
        self.documents = {}
        self.asked = []
        # Where manifests were read: in the registry itself, or in a mirror of it
        self.mirrored = []

    def digest_of(self, ref):
        self.asked.append(ref)
        return self.tags.get(ref, "")

    def index(self, ref, mirrors=True):
        self.mirrored.append(mirrors)
        return None

    def manifest(self, ref, platform="", mirrors=True):
        self.mirrored.append(mirrors)
        return SimpleNamespace(document=self.documents.get(ref.rpartition("@")[2], {"config": {"digest": "sha256:c", "size": 1}, "layers": []}))

    def config(self, manifest):
        return {"architecture": "arm64", "config": {"Env": ["A=b"], "Labels": None, "Entrypoint": ["local-ai"], "Cmd": ["--debug"]}}

    def close(self):
        pass


class FakeEngine:
    def __init__(self, name):
        self.name = name
        self.stored = {}
        self.loaded = []
        self.tagged = []

    def image(self, ref):
        return self.stored.get(ref)

    def load(self, chunks):
        path = Path(os.environ["FAKE_DOCKER"]) / f"loaded-{self.name}.tar"
        path.write_bytes(b"".join(chunks))
        with tarfile.open(path) as reader:
            index = json.load(reader.extractfile("index.json"))
            manifest = json.load(reader.extractfile("blobs/sha256/" + index["manifests"][0]["digest"][7:]))
        image_id = manifest["config"]["digest"]
        self.loaded.append(image_id)
        self.stored[image_id] = ImageState(image_id)

    def tag(self, image_id, ref):
        self.tagged.append(ref)
        self.stored[ref] = self.stored[image_id]


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """The fake command on PATH, a registry and engines in memory, an aikitfile and its model."""
    monkeypatch.setenv("PATH", f"{FAKE}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path / "fake"))
    (tmp_path / "fake").mkdir()
    registry, engines = FakeRegistry(), {name: FakeEngine(name) for name in ("docker", "podman")}
    monkeypatch.setattr(buildkit, "Registry", lambda _settings: registry)
    monkeypatch.setattr(buildkit, "open_engine", lambda name="auto": engines[name])
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    (tmp_path / "flux.yaml").write_bytes(AIKITFILE.encode())
    return SimpleNamespace(folder=tmp_path, fake=tmp_path / "fake", registry=registry, engines=engines)


@pytest.fixture
def run(ground, capsys):
    def call(check_mode=False, **arguments):
        arguments = {
            "name": NAME,
            "parsed": yaml_source.from_file(str(ground.folder / "flux.yaml")),
            "server": "localai",
            "cache": str(ground.folder / "cache/digests"),
            # Frontends of AIKit's that are none
            "verify": {"mode": "none"},
            **arguments,
        }
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode, "_ansible_diff": True}), pytest.raises(SystemExit):
            aikit_image.main()
        return json.loads(capsys.readouterr().out)

    return call


def calls(ground, *words):
    path = ground.fake / "calls.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [call for call in found if call["argv"][: len(words)] == list(words)]


def settle(ground, **told):
    (ground.fake / "settings.json").write_text(json.dumps(told))


def state_files(ground):
    folder = ground.folder / "cache/buildkit"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_check_real_again(ground, run):
    archive, layout = str(ground.folder / "out/a.tar"), str(ground.folder / "out/layout")
    told = run(check_mode=True, archive=archive, oci_layout=layout)
    assert told["changed"] and told["actions"] == [f"build {NAME} (BuildKit)", f"write {archive}", f"write {layout}"]
    assert (told["builder"], told["frontend"], told["image"]["digest"]) == ("buildkit", FRONTEND, "")
    assert not calls(ground, "buildx", "build") and not calls(ground, "buildx", "create")
    assert not (ground.folder / "out").exists() and not (ground.folder / "cache").exists()
    real = run(archive=archive, oci_layout=layout)
    assert real["actions"] == told["actions"] and real["diff"] == told["diff"] and real["fingerprint"] == told["fingerprint"]
    (call,) = calls(ground, "buildx", "build")
    # Byte for byte, in a file that others cannot read
    assert call["file"] == AIKITFILE and call["mode"] == "0o600" and "tiny.gguf" in call["context"]
    shape = "oci-mediatypes=true,compression=uncompressed,force-compression=true"
    shape += f",annotation.io.aikit.fleet.fingerprint={real['fingerprint']}"
    shape += f",annotation.io.aikit.fleet.aikitfile.sha256={hashlib.sha256(AIKITFILE.encode()).hexdigest()}"
    work = Path(call["argv"][-2]).parent
    assert call["argv"] == [
        *("buildx", "build", "--builder", "default", "--progress", "plain", "--provenance=false"),
        *("--build-arg", f"BUILDKIT_SYNTAX={FRONTEND}", "--platform", "linux/amd64"),
        *("--output", f"type=docker,name={NAME},dest={archive}.part,{shape}"),
        *("--output", f"type=oci,name={NAME},dest={layout}.part,tar=false,{shape}"),
        *("--metadata-file", f"{work}/metadata.json", "--file", f"{work}/aikitfile.yaml", str(ground.folder)),
    ]
    assert not work.exists() and not list(ground.folder.glob("out/*.part"))
    image = real["image"]
    assert image["digest"].startswith("sha256:") and image["env"] == {"CONFIG_FILE": "/config.yaml"} and image["labels"] == {"ai.kaito.aikit.runner": "true"}
    assert len(image["layers"]) == 1 and image["size_bytes"] > 10000 and real["bytes_written"] > 20000
    assert real["bytes_sent"] is None, "nobody knows"
    assert (image["entrypoint"], image["command"], image["architecture"]) == (["local-ai"], ["--debug", "--config-file=/config.yaml"], "amd64")
    for check_mode in (True, False):
        again = run(check_mode=check_mode, archive=archive, oci_layout=layout)
        assert (again["changed"], again["actions"], again["image"], again["diff"]) == (False, [], image, {"before": "", "after": ""})
    assert len(calls(ground, "buildx", "build")) == 1
    # Another machine: what was written says itself what it is
    for path in (ground.folder / "cache/buildkit").iterdir():
        path.unlink()
    assert run(archive=archive, oci_layout=layout)["image"]["digest"] == image["digest"] and len(calls(ground, "buildx", "build")) == 1


def test_push_and_load(ground, run):
    docker, podman = ground.engines["docker"], ground.engines["podman"]

    def pushed(argv, environment, on_line):
        status = real_build(commands, argv, environment, on_line)
        metadata = json.loads(Path(argv[argv.index("--metadata-file") + 1]).read_text())
        ground.registry.tags[NAME] = metadata["containerimage.digest"]
        docker.stored[NAME] = docker.stored[metadata["containerimage.digest"]] = ImageState(metadata["containerimage.digest"])
        return status

    real_build = buildkit.Commands.build
    commands = buildkit.Commands()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buildkit.Commands, "build", lambda _self, argv, environment, on_line: pushed(argv, environment, on_line))
        built = run(push=True, load=["docker", "podman"])
    assert built["actions"] == [f"build {NAME} (BuildKit)", f"push {NAME}", f"load {NAME} (docker)", f"load {NAME} (podman)"]
    assert built["image"]["digest"] == ground.registry.tags[NAME] and len(podman.loaded) == 1 and podman.tagged == [NAME]
    assert not run(push=True, load=["docker", "podman"])["changed"]
    assert (built["image"]["entrypoint"], built["image"]["command"], built["image"]["architecture"]) == (["local-ai"], ["--debug"], "arm64")
    # A mirror of the registry need not have what was pushed
    assert ground.registry.mirrored and not any(ground.registry.mirrored)
    # An engine alone does not tell the digest
    alone = run(load=["docker"])
    assert not alone["changed"] and alone["image"]["digest"] == built["image"]["digest"]
    # Somebody moved the tag; the engines are as they were
    ground.registry.tags[NAME] = DIGEST
    assert run(check_mode=True, push=True, load=["docker", "podman"])["actions"] == [f"build {NAME} (BuildKit)", f"push {NAME}"]
    # The engine lost it
    del docker.stored[NAME]
    assert run(check_mode=True, load=["docker"])["actions"] == [f"build {NAME} (BuildKit)", f"load {NAME} (docker)"]


def test_the_result_is_what_the_registry_has(ground, run):
    """Two builds of the same need not give the same digest: what hosts are told to pull is what is there."""
    lock, archive = str(ground.folder / "lock.json"), str(ground.folder / "a.tar")
    first, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    real = buildkit.Commands.build

    def build(commands, argv, environment, on_line):
        status = real(commands, argv, environment, on_line)
        if any("push=true" in word for word in argv):
            ground.registry.tags[NAME] = json.loads(Path(argv[argv.index("--metadata-file") + 1]).read_text())["containerimage.digest"]
        return status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buildkit.Commands, "build", build)
        settle(ground, digest=first)
        built = run(push=True, lock=lock)
        assert built["image"]["digest"] == json.loads(Path(lock).read_text())["digest"] == first
        # Another builder put its own under the tag
        ground.registry.tags[NAME] = other
        ground.registry.documents[other] = {
            "annotations": {"io.aikit.fleet.fingerprint": built["fingerprint"]}, "config": {"digest": "sha256:d", "size": 1}, "layers": []
        }
        moved = run(push=True, lock=lock)
        assert moved["actions"] == [f"lock {lock}"] and (moved["image"]["digest"], moved["image"]["id"]) == (other, "sha256:d")
        assert json.loads(Path(lock).read_text())["digest"] == other and not run(push=True, lock=lock)["changed"]
        # Built for another place alone, with another digest
        settle(ground)
        both = run(push=True, lock=lock, archive=archive)
        assert both["actions"] == [f"build {NAME} (BuildKit)", f"write {archive}"] and both["image"]["digest"] == other
        assert run(archive=archive)["image"]["digest"] not in (first, other) and not run(push=True, lock=lock)["changed"]


def test_a_push_that_somebody_else_overtook_fails(ground, run):
    failed = run(push=True)
    assert failed["failed"] and f"{NAME} was pushed as sha256:" in failed["msg"] and "the registry has nothing" in failed["msg"]
    assert not [name for name in state_files(ground) if name.endswith(".json")]


def test_an_engine_that_does_not_list_what_it_got(ground, run):
    assert "docker does not list the image" in run(load=["docker"])["msg"]


def test_what_changed_is_in_the_diff(ground, run):
    archive = str(ground.folder / "a.tar")
    run(archive=archive)
    (ground.folder / "tiny.gguf").write_bytes(b"GGUF2")
    changed = run(archive=archive, build_args={"runtime": "cuda"})
    before, after = (json.loads(changed["diff"][side]) for side in ("before", "after"))
    assert set(before) == {"context", "build_args", "targets"} and before["build_args"] == {} and after["build_args"] == {"runtime": "cuda"}
    assert before["context"]["tiny.gguf"] == "sha256:" + hashlib.sha256(b"GGUF").hexdigest() != after["context"]["tiny.gguf"]
    assert len(calls(ground, "buildx", "build")) == 2 and not run(archive=archive, build_args={"runtime": "cuda"})["changed"]


def test_a_damaged_archive_or_layout_is_built_again(ground, run):
    archive, layout = ground.folder / "a.tar", ground.folder / "layout"
    run(archive=str(archive), oci_layout=str(layout))
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"diff_ids", b"diff_idz"))
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    told = run(check_mode=True, archive=str(archive), oci_layout=str(layout))
    assert [action.split()[0] for action in told["actions"]] == ["build", "write", "write"]
    run(archive=str(archive), oci_layout=str(layout))
    assert not run(archive=str(archive), oci_layout=str(layout))["changed"]


def test_a_layout_keeps_images_of_other_names_and_nothing_else(ground, run):
    layout = ground.folder / "layout"
    run(oci_layout=str(layout))
    run(oci_layout=str(layout), name="registry.example:5000/other:1", build_args={"runtime": "cuda"})

    def names():
        return [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in json.loads((layout / "index.json").read_text())["manifests"]]

    assert names() == [NAME, "registry.example:5000/other:1"]
    blobs = {path.name for path in (layout / "blobs/sha256").iterdir()}
    (ground.folder / "tiny.gguf").write_bytes(b"GGUF2")
    run(oci_layout=str(layout), build_args={"runtime": "cuda"})
    assert sorted(names()) == sorted([NAME, "registry.example:5000/other:1"])
    now = {path.name for path in (layout / "blobs/sha256").iterdir()}
    # One manifest went, one came; the layer and the config are of both
    assert len(now) == len(blobs) and len(now & blobs) == len(blobs) - 1
    (ground.folder / "full").mkdir()
    (ground.folder / "full/file").write_text("mine")
    assert "holds something that is no OCI layout" in run(oci_layout=str(ground.folder / "full"))["msg"]


@pytest.mark.parametrize("kind", ["value", "env", "file"])
def test_secrets_are_in_the_environment_or_a_file_alone(ground, run, monkeypatch, kind):
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    (ground.folder / "token").write_text(TOKEN + "\n")
    given = {"value": TOKEN, "env": "MY_TOKEN", "file": str(ground.folder / "token")}[kind]
    built = run(archive=str(ground.folder / "a.tar"), secrets={"hf-token": {kind: given}})
    assert "failed" not in built, built
    (call,) = calls(ground, "buildx", "build")
    word = {"value": "id=hf-token,env=AIKIT_FLEET_SECRET_1", "env": "id=hf-token,env=MY_TOKEN", "file": f"id=hf-token,src={given}"}[kind]
    assert call["argv"][call["argv"].index("--secret") + 1] == word
    assert call["environment"].get("AIKIT_FLEET_SECRET_1") == (TOKEN if kind == "value" else None)
    assert TOKEN not in json.dumps(call["argv"]) and TOKEN not in json.dumps(built)
    kept = b"".join(path.read_bytes() for path in (ground.folder / "cache").rglob("*") if path.is_file())
    assert TOKEN.encode() not in kept


def test_names_in_secrets_can_be_read_in_messages(ground, run):
    failed = run(push=True, secrets={"hf-token": {"env": "NOT_SET"}, "other": {"value": TOKEN}})
    assert "secrets.hf-token.env: variable NOT_SET is not set on the build host" in failed["msg"] and TOKEN not in json.dumps(failed)
    failed = run(push=True, secrets={"hf-token": {"file": "/no/such/token"}})
    assert "secrets.hf-token.file: /no/such/token cannot be read on the build host: No such file" in failed["msg"]
    (ground.folder / "empty").write_text("")
    assert "is empty" in run(push=True, secrets={"hf-token": {"file": str(ground.folder / "empty")}})["msg"]


def test_a_secret_in_a_build_argument_is_warned_about_and_hidden(ground, run):
    built = run(archive=str(ground.folder / "a.tar"), build_args={"HF_TOKEN": TOKEN})
    (finding,) = [entry for entry in built["findings"] if entry["path"] == "build_args.HF_TOKEN" and "looks like a secret" in entry["message"]]
    assert finding["level"] == "warning" and TOKEN not in json.dumps(built)
    (call,) = calls(ground, "buildx", "build")
    assert call["argv"][call["argv"].index("--build-arg", 9) + 1] == "HF_TOKEN" and call["environment"]["HF_TOKEN"] == TOKEN


@pytest.mark.parametrize("kind", ["value", "env", "file"])
def test_the_value_of_a_secret_as_a_build_argument_is_kept_nowhere(ground, run, monkeypatch, kind):
    value = "S3cretValue1"
    monkeypatch.setenv("MY_TOKEN", value)
    (ground.folder / "token").write_text(value + "\n")
    given = {"value": value, "env": "MY_TOKEN", "file": str(ground.folder / "token")}[kind]
    built = run(archive=str(ground.folder / "a.tar"), build_args={"hf-x": value, "HF_X": f"use {value}"}, secrets={"hf-token": {kind: given}})
    assert [entry["path"] for entry in built["findings"] if "looks like a secret" in entry["message"]] == ["build_args.hf-x", "build_args.HF_X"]
    assert value not in json.dumps(built)
    (call,) = calls(ground, "buildx", "build")
    assert value not in json.dumps(call["argv"]) and call["environment"]["HF_X"] == f"use {value}"
    # In the process's environment, which no shell has seen
    assert call["argv"].count("hf-x") == 1 and call["arguments"]["hf-x"] == value
    kept = b"".join(path.read_bytes() for path in (ground.folder / "cache").rglob("*") if path.is_file())
    assert value.encode() not in kept


def test_a_failing_build_shows_the_end_of_its_log_without_secrets(ground, run):
    settle(
        ground,
        status=1,
        output=f"#3 [linux/amd64] pip install\n#3 0.1 using {TOKEN}\n#3 0.2 no space left on device\n"
        "#3 ERROR: exit code: 1\nERROR: failed to solve: exit code: 1",
    )
    failed = run(archive=str(ground.folder / "a.tar"), secrets={"hf-token": {"value": TOKEN}})
    assert failed["failed"] and failed["failed_step"] == "[linux/amd64] pip install" and TOKEN not in json.dumps(failed)
    assert "The last 2 lines of its log:\n  using ********\n  no space left on device" in failed["msg"] and "docker buildx prune" in failed["hint"]
    assert not (ground.folder / "a.tar").exists() and not [name for name in state_files(ground) if not name.endswith(".lock")]


def test_an_instance_is_made_where_docker_cannot_build(ground, run):
    settle(ground, store=False)
    told = run(check_mode=True, archive=str(ground.folder / "a.tar"))
    assert told["actions"][0] == "create buildx instance aikit-fleet (docker-container)" and not calls(ground, "buildx", "create")
    built = run(archive=str(ground.folder / "a.tar"), buildkit_image="mirror.example/buildkit:1")
    (create,) = calls(ground, "buildx", "create")
    assert create["argv"] == ["buildx", "create", "--name", "aikit-fleet", "--driver", "docker-container", "--driver-opt", "image=mirror.example/buildkit:1"]
    assert calls(ground, "buildx", "inspect", "--bootstrap")[-1]["argv"][-1] == "aikit-fleet"
    assert calls(ground, "buildx", "build")[-1]["argv"][3] == "aikit-fleet" and built["instance"]["driver"] == "docker-container"
    # It is kept, and used again
    run(archive=str(ground.folder / "b.tar"))
    assert len(calls(ground, "buildx", "create")) == 1 and not calls(ground, "buildx", "rm")


def test_an_instance_that_does_not_start_is_not_left_behind(ground, run):
    settle(ground, store=False, created="ERROR: failed to pull moby/buildkit: no such host")
    failed = run(archive=str(ground.folder / "a.tar"))
    assert (
        "instance aikit-fleet (Docker's graph driver cannot merge file systems, which AIKit's frontend does) does not start: ERROR: failed to pull"
        in failed["msg"]
    )
    assert len(calls(ground, "buildx", "rm")) == 1 and not calls(ground, "buildx", "build")


def test_a_config_for_the_instance(ground, run):
    config = ground.folder / "buildkitd.toml"
    assert "there is no file" in run(archive="/a.tar", buildkitd_config=str(config))["msg"]
    config.write_text("")
    run(archive=str(ground.folder / "a.tar"), buildkitd_config=str(config))
    assert calls(ground, "buildx", "create")[0]["argv"][-2:] == ["--config", str(config)]


@pytest.mark.parametrize(
    "told, arguments, word",
    [
        ({"docker": ""}, {}, "Docker does not answer: Cannot connect to the Docker daemon"),
        ({"buildx": ""}, {}, "needs the buildx plugin of Docker 26.1.5"),
        ({"buildx": "v0.9.1"}, {}, "needs buildx 0.10.0 or newer to leave attestations out of an image; this host has 0.9.1"),
        ({"buildkit": "v0.10.6"}, {}, "needs BuildKit 0.11.0 or newer"),
        ({"docker": "23.0.6"}, {}, "needs Docker 24.0.0 or newer for the containerd image store"),
        ({"buildx": "v0.12.1"}, {"oci_layout": "/tmp/l"}, "needs buildx 0.13.0 or newer for more than one output"),
        ({"store": False, "instances": {"aikit-fleet": "Driver: docker-container\nBuildKit version: v0.10.6\n"}}, {}, "needs BuildKit 0.11.0 or newer"),
        ({}, {"buildx_builder": "mine"}, "there is no instance mine"),
        ({}, {"frontend": "ghcr.io/no/frontend:1"}, "there is no image ghcr.io/no/frontend:1 (from frontend)"),
        ({}, {"builder": "direct"}, "builder: direct cannot make this image: backend diffusers"),
        ({}, {"server": "llama_cpp", "builder": "buildkit"}, "not of llama.cpp's server"),
        ({}, {"token": "t0ken-t0ken"}, "token: builder buildkit cannot use this"),
        ({}, {"base": "/base.tar"}, "base: builder buildkit cannot use this"),
        ({}, {"localai": {"version": "v4.0.0"}}, "localai: builder buildkit cannot use this: AIKit's frontend takes the parts of its own release"),
        ({}, {"build_args": {"model": "https://a.example/b.gguf"}}, "no sha256 is given for https://a.example/b.gguf"),
        ({}, {"platforms": ["linux/amd64", "linux/arm64"]}, "backend diffusers is not there for linux/arm64"),
        ({}, {"build_args": {"BUILDKIT_SYNTAX": "a"}}, "Write it into frontend"),
        ({}, {"build_args": {"model": "https://user:s3cr3t-pw@a.example/b.gguf"}}, "models[0].source"),
        ({}, {"build_args": {"runtime": "gpu"}}, "write cuda"),
        ({}, {"build_args": {"model": ["a"]}}, "build_args.model: must be text, found a list"),
        ({}, {"registry_auth_file": "/no/auth.json"}, "registry_auth_file"),
        ({}, {"secrets": {"a": {}}}, "secrets.a: nothing is given"),
        ({}, {"secrets": {"a": {"env": ["MY_TOKEN_NAME"]}}}, "secrets.a.env: must be text"),
        ({}, {"archive": None}, "nowhere to put the image"),
    ],
)
def test_refused_before_a_build(ground, run, told, arguments, word):
    settle(ground, **told)
    failed = run(**{"archive": str(ground.folder / "a.tar"), **arguments})
    assert failed.get("failed") and word in failed["msg"], failed
    assert not calls(ground, "buildx", "build") and "s3cr3t-pw" not in json.dumps(failed)


def test_no_docker_command(ground, run, monkeypatch):
    monkeypatch.setenv("PATH", str(ground.folder))
    failed = run(push=True)
    assert "this host has no docker. It is needed because backend diffusers" in failed["msg"]
    assert "because" not in run(push=True, builder="buildkit")["msg"]
    # Check mode on a host that will be provided later
    check = run(check_mode=True, push=True)
    assert check["changed"] and check["actions"] == [f"build {NAME} (BuildKit)", f"push {NAME}"] and check["image"]["digest"] == ""
    assert [finding["path"] for finding in check["findings"] if "has no docker" in finding["message"]] == ["builder"]


@pytest.mark.parametrize("text, version, refused", [("cost: $HOME", "0.21.0", True), ("cost: $HOME", "main", False), ("cost: 5 $", "0.21.0", False)])
def test_text_that_the_frontend_would_run_is_refused_with_its_place(ground, run, text, version, refused):
    file = ground.folder / "flux.yaml"
    file.write_text(
        "apiVersion: v1alpha1\nmodels:\n  - name: tiny\n    source: tiny.gguf\nconfig: |\n  - name: tiny\n    parameters:\n"
        f"      model: tiny.gguf\n    system_prompt: '{text}'\n"
    )
    ground.registry.tags["ghcr.io/kaito-project/aikit/aikit:dev"] = DIGEST
    told = run(check_mode=True, archive=str(ground.folder / "a.tar"), builder="buildkit", aikit_version=version)
    assert bool(told.get("failed")) is refused, told
    if refused:
        assert f"{yaml_source.from_file(str(file))['name']}:9: config: $ at line 9, character 27: AIKit v0.21.0 passes this text through a shell" in told["msg"]


@pytest.mark.parametrize(
    "prepare, word",
    [
        (lambda folder: (folder / "tiny.gguf").unlink(), "there is no file"),
        (lambda folder: (folder / "tiny.gguf").rename(folder / "x") and (folder / "tiny.gguf").symlink_to("x"), "is a symbolic link"),
    ],
)
def test_a_source_that_is_not_there_or_a_link(ground, run, prepare, word):
    prepare(ground.folder)
    assert word in run(push=True)["msg"] and not calls(ground, "buildx", "build")


def test_a_source_outside_of_the_context(ground, run):
    (ground.folder / "context").mkdir()
    (ground.folder / "context/sub").symlink_to(ground.folder)
    file = ground.folder / "flux.yaml"
    file.write_text(AIKITFILE.replace("tiny.gguf", "sub/tiny.gguf"))
    assert "leads out of the context" in run(push=True, context=str(ground.folder / "context"))["msg"]
    # A folder beside it whose name begins the same
    (ground.folder / "context-other").mkdir()
    (ground.folder / "context-other/tiny.gguf").write_text("GGUF")
    (ground.folder / "context/near").symlink_to(ground.folder / "context-other")
    file.write_text(AIKITFILE.replace("tiny.gguf", "near/tiny.gguf"))
    assert "leads out of the context" in run(push=True, context=str(ground.folder / "context"))["msg"]


def test_without_local_sources_the_context_is_empty(ground, run):
    (ground.folder / "flux.yaml").write_text(AIKITFILE.replace("tiny.gguf", "https://models.example.com/tiny.gguf"))
    run(archive=str(ground.folder / "a.tar"), require_sha256=False)
    (call,) = calls(ground, "buildx", "build")
    assert call["context"] == [] and not Path(call["argv"][-1]).exists()


def test_a_folder_as_a_source_counts_with_all_its_files(ground, run):
    (ground.folder / "weights").mkdir()
    (ground.folder / "weights/a").write_text("1")
    (ground.folder / "flux.yaml").write_text(AIKITFILE.replace("tiny.gguf", "weights"))
    archive = str(ground.folder / "a.tar")
    run(archive=archive)
    assert not run(archive=archive)["changed"]
    (ground.folder / "weights/b").write_text("2")
    assert run(archive=archive)["changed"]


def test_a_context_with_much_else_in_it_is_remarked(ground, run):
    with open(ground.folder / "other.gguf", "wb") as handle:
        handle.truncate(buildkit.CONTEXT_REMARK_BYTES + 1)
    told = run(check_mode=True, archive=str(ground.folder / "a.tar"))
    assert [finding["path"] for finding in told["findings"] if "beside the models" in finding["message"]] == ["context"]


def test_what_the_shell_of_the_user_says_does_not_decide(ground, run, monkeypatch):
    monkeypatch.setenv("BUILDX_BUILDER", "other")
    monkeypatch.setenv("BUILDKIT_PROGRESS", "tty")
    run(archive=str(ground.folder / "a.tar"))
    (call,) = calls(ground, "buildx", "build")
    assert "BUILDX_BUILDER" not in call["environment"] and "BUILDKIT_PROGRESS" not in call["environment"]
    assert call["environment"]["BUILDX_NO_DEFAULT_ATTESTATIONS"] == "1"


def test_progress_names_the_step_and_no_secret(ground, run, monkeypatch):
    seen = []

    class Stage:
        name = ""

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            seen.extend([(self.name, self.done)] if self.name.startswith("BuildKit") else [])

        def reach(self, done):
            self.done = done

    monkeypatch.setattr(buildkit.progress, "stage", lambda name, total=None, unit="bytes": Stage())
    settle(ground, output=f"#1 [internal] load\n#1 DONE 0.0s\n#2 [linux/amd64] use {TOKEN}\n#2 CACHED\n#3 exporting\n#3 DONE 0.1s")
    run(archive=str(ground.folder / "a.tar"), secrets={"hf-token": {"value": TOKEN}})
    assert seen == [("BuildKit: exporting", 3)]
    settle(ground, output=f"#2 [linux/amd64] use {TOKEN}\n#2 DONE 0.0s")
    run(archive=str(ground.folder / "b.tar"), secrets={"hf-token": {"value": TOKEN}})
    assert seen[-1] == ("BuildKit: [linux/amd64] use ********", 1)


def test_a_build_that_is_interrupted_ends_with_its_command(tmp_path):
    """The command gets the signal, and nothing of it stays."""
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); print('#1 a', flush=True); time.sleep(600)"
    mark = tmp_path / "pid"
    program = (
        "from ansible_collections.aikit.fleet.plugins.module_utils._io.buildkit import Commands\n"
        "import sys\n"
        "def line(text):\n    print(text, end='', flush=True)\n"
        f"Commands().build([sys.executable, '-c', {script!r}, {str(mark)!r}], {{}}, line)\n"
    )
    above = str(Path(buildkit.__file__.partition("/ansible_collections/")[0]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([above, *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "#1 a\n"
    child = int(mark.read_text())
    process.send_signal(signal.SIGINT)
    process.wait(30)
    for _try in range(100):
        if not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the build goes on")
    process.stdout.close()


def test_a_command_that_is_not_there():
    with pytest.raises(AikitError, match="cannot be run"):
        buildkit.Commands().build(["/no/such/docker"], {}, print)


def test_the_lock_has_the_digest_of_the_frontend(ground, run):
    lock, archive = ground.folder / "flux.lock.json", str(ground.folder / "a.tar")
    wanted = {"archive": archive, "lock": str(lock)}
    told = run(check_mode=True, **wanted)
    assert told["actions"][-1] == f"lock {lock}" and not lock.exists()
    built = run(**wanted)
    written = json.loads(lock.read_text())
    assert built["actions"] == told["actions"] and written["digest"] == built["image"]["digest"]
    assert written["images"] == {"ghcr.io/kaito-project/aikit/aikit:v0.21.0": DIGEST}
    assert [(entry["name"], entry["sha256"]) for entry in written["models"]] == [("tiny", hashlib.sha256(b"GGUF").hexdigest())]
    assert not run(**wanted)["changed"]
    # The tag means another frontend today: the locked one builds, and the registry is not even asked
    ground.registry.tags["ghcr.io/kaito-project/aikit/aikit:v0.21.0"] = "sha256:" + "2" * 64
    ground.registry.asked.clear()
    again = run(**wanted)
    assert not again["changed"] and again["frontend"] == FRONTEND and ground.registry.asked == []
    newer = run(**wanted, lock_update=True)
    assert newer["frontend"].endswith("2" * 64) and newer["actions"] == [f"build {NAME} (BuildKit)", f"write {archive}", f"lock {lock}"]
    assert not run(**wanted)["changed"]
    # A model that is not the locked one any more
    (ground.folder / "tiny.gguf").write_bytes(b"GGUF2")
    failed = run(**wanted)
    assert "does not fit what is there now" in failed["msg"] and "tiny.gguf" in failed["msg"]
    assert "lock" in run(**wanted, lock_update=True)["actions"][-1]


def test_logins_of_a_file_reach_the_build_and_nothing_stays(ground, run, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(ground.folder / "usual"))
    (ground.folder / "usual/cli-plugins").mkdir(parents=True)
    (ground.folder / "auth.json").write_text('{"auths": {}}')
    run(archive=str(ground.folder / "a.tar"), registry_auth_file=str(ground.folder / "auth.json"))
    (call,) = calls(ground, "buildx", "build")
    assert call["environment"]["BUILDX_CONFIG"] == str(ground.folder / "usual/buildx")
    assert call["config"] == {"cli-plugins": "link", "config.json": '{"auths": {}}'}
    assert [name for name in state_files(ground) if "build" in name] == []


def test_logins_of_a_task_reach_the_build_alone(ground, run, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(ground.folder / "usual"))
    (ground.folder / "usual").mkdir()
    mine = {"auths": {"other.example": {"auth": "bTpw"}}, "credsStore": "desktop", "credHelpers": {"registry.example:5000": "x", "third.example": "y"}}
    (ground.folder / "usual/config.json").write_text(json.dumps(mine))
    login = {"registry": "registry.example:5000", "username": "builder", "password": "s3cr3t-pw"}
    built = run(archive=str(ground.folder / "a.tar"), registry_logins=[login])
    (call,) = calls(ground, "buildx", "build")
    assert json.loads(call["config"]["config.json"]) == {
        "auths": {"other.example": {"auth": "bTpw"}, "registry.example:5000": {"auth": "YnVpbGRlcjpzM2NyM3QtcHc="}},
        "credHelpers": {"third.example": "y"},
    }
    assert "s3cr3t-pw" not in json.dumps([built, call["argv"]]) and json.loads((ground.folder / "usual/config.json").read_text()) == mine


def test_what_a_killed_build_left_goes_with_the_next_one(ground, run):
    archive = str(ground.folder / "a.tar")
    run(archive=archive)
    (name,) = [entry for entry in state_files(ground) if entry.endswith(".json")]
    left = ground.folder / "cache/buildkit" / f"{name[:-5]}-build-dead"
    other = ground.folder / "cache/buildkit/0123-build-alive"
    for folder in (left, other):
        folder.mkdir()
        (folder / "aikitfile.yaml").write_text("x")
    (ground.folder / "tiny.gguf").write_bytes(b"GGUF2")
    run(archive=archive)
    assert not left.exists() and other.exists()


def test_build_arguments_are_text(ground, run):
    run(archive=str(ground.folder / "a.tar"), build_args={"runtime": "cuda", "SOURCE_DATE_EPOCH": 0, "BUILDKIT_INLINE_CACHE": True})
    (call,) = calls(ground, "buildx", "build")
    found = [call["argv"][index + 1] for index, word in enumerate(call["argv"]) if word == "--build-arg"]
    assert found[1:] == ["BUILDKIT_INLINE_CACHE=true", "SOURCE_DATE_EPOCH=0", "runtime=cuda"]


def test_apple_silicon_is_built_for_arm64(ground, run):
    (ground.folder / "flux.yaml").write_text("apiVersion: v1alpha1\nruntime: applesilicon\nmodels:\n  - name: tiny\n    source: tiny.gguf\n")
    run(archive=str(ground.folder / "a.tar"), builder="buildkit")
    (call,) = calls(ground, "buildx", "build")
    assert call["argv"][call["argv"].index("--platform") + 1] == "linux/arm64"


def test_a_secret_file_may_be_named_from_home(ground, run, monkeypatch):
    monkeypatch.setenv("HOME", str(ground.folder))
    (ground.folder / "token").write_text(TOKEN)
    run(archive=str(ground.folder / "a.tar"), secrets={"hf-token": {"file": "~/token"}})
    (call,) = calls(ground, "buildx", "build")
    assert f"id=hf-token,src={ground.folder}/token" in call["argv"]
