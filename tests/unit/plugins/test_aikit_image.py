# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The builder's effects on engines and files: check, real, again, changed; and what it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import build
from ansible_collections.aikit.fleet.plugins.modules import aikit_image, aikit_image_info, aikit_image_load
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes

AIKITFILE = """\
apiVersion: v1alpha1
models:
  - name: tiny
    source: tiny.gguf
config: |
  - name: tiny
    backend: llama
    parameters:
      model: tiny.gguf
    context_size: {context}
"""


class FakeEngine:
    """An engine in memory: it really reads what it is given, and refuses an archive that lacks layers it does not have."""

    name = "docker"

    def __init__(self):
        self.stored = {}
        self.loads = []
        self.refuse_thin = False
        self.containers_made = 0
        self.room = ()

    def rooms(self):
        return self.room

    def image(self, ref):
        return next((image for key, image in self.stored.items() if ref in (key, image.id)), None)

    def images(self):
        return list(self.stored.values())

    def tag(self, image_id, ref):
        self.stored[ref] = self.image(image_id)

    def remove_image(self, ref):
        self.stored = {key: image for key, image in self.stored.items() if ref not in (key, image.id)}

    def image_file(self, ref, path):
        self.containers_made += 1
        return b"- name: tiny\n" if path == "/config.yaml" else None

    def load(self, chunks):
        data = b"".join(chunks)
        self.loads.append(len(data))
        with tarfile.open(fileobj=io.BytesIO(data)) as reader:
            (manifest,) = json.load(reader.extractfile("manifest.json"))
            config_bytes = reader.extractfile(manifest["Config"]).read()
            names = set(reader.getnames())
        config = json.loads(config_bytes)
        have = {layer for image in self.stored.values() for layer in image.layers}
        missing = [path for path in manifest["Layers"] if path not in names]
        if missing and (self.refuse_thin or not {"sha256:" + os.path.basename(path) for path in missing} <= have):
            raise AikitError("Docker could not load the image: content digest not found")
        image = ImageState(
            id="sha256:" + hashlib.sha256(config_bytes).hexdigest(),
            tags=tuple(manifest["RepoTags"]),
            labels=config["config"]["Labels"],
            env=dict(pair.split("=", 1) for pair in config["config"]["Env"]),
            entrypoint=tuple(config["config"]["Entrypoint"]),
            layers=tuple(config["rootfs"]["diff_ids"]),
        )
        for ref in manifest["RepoTags"]:
            self.stored[ref] = image


@pytest.fixture
def engine(monkeypatch):
    made = FakeEngine()
    for module in (build, aikit_image_info):
        monkeypatch.setattr(module, "open_engine", lambda name="auto": made)
    return made


def write_base(path, **changes):
    rootfs = io.BytesIO()
    with tarfile.open(fileobj=rootfs, mode="w") as writer:
        writer.addfile(tarfile.TarInfo("usr/bin/llama-server"))
    path.write_bytes(rootfs.getvalue())
    options = ["--model", "--alias", "--host", "--port", "--verbosity", "--ctx-size"]
    description = {
        "schema": 1,
        "variant": "cpu",
        "suite": "sid",
        "architecture": "amd64",
        "sha256": hashlib.sha256(rootfs.getvalue()).hexdigest(),
        "size_bytes": len(rootfs.getvalue()),
        "packages": [{"name": "llama.cpp-tools", "version": "0.7.0-1", "architecture": "amd64"}],
        "server": {
            "path": "/usr/bin/llama-server",
            "version": "0.7.0",
            "build": "11669",
            "options": options,
            "environment": {
                "LLAMA_ARG_MODEL": "--model",
                "LLAMA_ARG_ALIAS": "--alias",
                "LLAMA_ARG_HOST": "--host",
                "LLAMA_ARG_PORT": "--port",
                "LLAMA_ARG_LOG_VERBOSITY": "--verbosity",
                "LLAMA_ARG_CTX_SIZE": "--ctx-size",
            },
        },
        "backends": ["cpu"],
        "key": "0" * 64,
    }
    (path.parent / (path.name + ".json")).write_text(json.dumps({**description, **changes}))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(gguf_bytes())
    write_base(tmp_path / "base.tar")
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    def call(module=aikit_image, check_mode=False, context=2048, **arguments):
        if module is aikit_image:
            (folder / "aikitfile.yaml").write_text(AIKITFILE.format(context=context))
            arguments = {
                "name": "localhost/tiny:1",
                "src": "aikitfile.yaml",
                "parsed": yaml_source.from_file(str(folder / "aikitfile.yaml")),
                "server": "llama_cpp",
                "base": str(folder / "base.tar"),
                "store": str(folder / "store"),
                "cache": str(folder / "digests"),
                **arguments,
            }
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode, "_ansible_diff": True}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_check_real_again(engine, run):
    told = run(check_mode=True, load=["docker"])
    assert told["changed"] and not engine.loads and told["image"]["digest"]
    real = run(load=["docker"])
    assert real["actions"] == told["actions"] == ["load localhost/tiny:1 (docker)"]
    assert real["image"]["digest"] == told["image"]["digest"] and real["diff"] == told["diff"]
    assert real["bytes_sent"] == engine.loads[0] and (real["builder"], real["bytes_written"]) == ("direct", 0)
    assert [layer["role"] for layer in real["image"]["layers"]] == ["base", "model", "config"]
    assert engine.stored["localhost/tiny:1"].id == real["image"]["id"]
    again = run(load=["docker"])
    assert (again["changed"], again["actions"], again["bytes_sent"], len(engine.loads)) == (False, [], 0, 1)
    assert again["diff"]["before"] == again["diff"]["after"] == ""


def test_a_changed_setting_sends_the_configuration_and_shows_it(engine, run):
    run(load=["docker"])
    changed = run(context=512, load=["docker"])
    assert [layer["reused"] for layer in changed["image"]["layers"]] == [True, True, False]
    before, after = (json.loads(changed["diff"][side]) for side in ("before", "after"))
    assert before["layers"][:2] == after["layers"][:2] and before["layers"][2] != after["layers"][2]
    assert (before["env"]["LLAMA_ARG_CTX_SIZE"], after["env"]["LLAMA_ARG_CTX_SIZE"]) == ("2048", "512")


def test_an_engine_that_refuses_a_part_gets_all(engine, run):
    run(load=["docker"])
    engine.refuse_thin = True
    changed = run(context=512, load=["docker"])
    assert len(engine.loads) == 3 and engine.loads[2] > engine.loads[1]
    assert not any(layer["reused"] for layer in changed["image"]["layers"])


def test_an_image_under_another_name_is_tagged(engine, run):
    run(load=["docker"])
    tagged = run(name="localhost/other:2", load=["docker"])
    assert tagged["actions"] == ["tag localhost/other:2 (docker)"] and tagged["bytes_sent"] == 0
    assert engine.stored["localhost/other:2"].id == tagged["image"]["id"]


def test_a_failed_load_leaves_no_name_behind(engine, run, monkeypatch):
    def half(chunks):
        FakeEngine.load(engine, chunks)
        raise AikitError("Docker could not load the image: no space left on device")

    monkeypatch.setattr(engine, "load", half)
    failed = run(load=["docker"])
    assert failed["failed"] and "no space left" in failed["msg"]
    assert engine.stored == {}


def test_the_archive_is_written_once_and_holds_what_the_result_says(engine, run, folder):
    path = folder / "out" / "image.tar"
    told = run(check_mode=True, archive=str(path))
    assert told["changed"] and not path.exists()
    real = run(archive=str(path))
    assert real["actions"] == [f"write {path}"] and real["bytes_written"] == path.stat().st_size
    stamp = path.stat().st_mtime_ns
    assert run(archive=str(path))["changed"] is False and path.stat().st_mtime_ns == stamp
    with tarfile.open(path) as reader:
        index = json.load(reader.extractfile("index.json"))
    assert index["manifests"][0]["digest"] == real["image"]["digest"]
    assert run(context=512, archive=str(path))["changed"] is True
    assert [entry.name for entry in (folder / "out").iterdir() if entry.suffix == ".part"] == []


def test_the_same_inputs_elsewhere_give_the_same_digest(engine, run, folder):
    one = run()["image"]["digest"]
    other = folder / "elsewhere"
    other.mkdir()
    (folder / "tiny.gguf").rename(other / "tiny.gguf")
    os.utime(other / "tiny.gguf", (0, 0))
    write_base(other / "base.tar")
    found = run(base=str(other / "base.tar"), cache=str(other / "digests"), name="localhost/else:9", parsed=parsed_in(other))
    assert found["image"]["digest"] == one


def parsed_in(folder):
    (folder / "aikitfile.yaml").write_text(AIKITFILE.format(context=2048))
    return yaml_source.from_file(str(folder / "aikitfile.yaml"))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"name": "Bad Name"}, "is no image reference"),
        ({"platforms": ["linux/arm64"]}, "the base is linux/amd64"),
        ({"base": "/nowhere/base.tar"}, "Build a base with role llama_cpp_base"),
    ],
)
def test_bad_options(engine, run, change, words):
    failed = run(load=["docker"], **change)
    assert failed["failed"] and words in failed["msg"] and not engine.loads


def test_a_base_whose_bytes_changed_is_refused(engine, run, folder):
    (folder / "base.tar").write_bytes(b"x" * (folder / "base.tar").stat().st_size)
    failed = run(load=["docker"])
    assert "its description says" in failed["msg"] and not engine.loads


@pytest.mark.parametrize("content, words", [(b"<html>", "tiny.gguf"), (gguf_bytes()[:-40], "tiny.gguf"), (None, "names no file below")])
def test_a_bad_model_is_refused(engine, run, folder, content, words):
    (folder / "tiny.gguf").unlink()
    if content is not None:
        (folder / "tiny.gguf").write_bytes(content)
    failed = run(load=["docker"])
    assert failed["failed"] and words in failed["msg"] and not engine.loads


def test_a_source_outside_the_context_is_refused(engine, run, folder):
    outside = folder / "inner"
    outside.mkdir()
    (outside / "tiny.gguf").symlink_to(folder / "tiny.gguf")
    failed = run(load=["docker"], parsed={**parsed_in(folder), "directory": str(outside)})
    assert "leads out of the context" in failed["msg"]


def test_check_mode_before_the_context_is_there_says_what_it_cannot_know(engine, run, folder):
    parsed = {**parsed_in(folder), "directory": str(folder / "later")}
    told = run(check_mode=True, load=["docker"], parsed=parsed)
    assert told["changed"] and told["image"]["digest"] == "" and told["actions"] == ["load localhost/tiny:1 (docker)"]
    assert run(load=["docker"], parsed=parsed)["failed"]


@pytest.fixture
def archive(engine, run, folder):
    path = folder / "image.tar"
    return path, run(archive=str(path))["image"]


def test_load_check_real_again(engine, run, archive):
    path, image = archive
    options = {"name": "localhost/tiny:1", "image": image}
    asked = run(aikit_image_load, **options)
    assert (asked["changed"], asked["present"]) == (False, False)
    assert asked["missing"] == [layer["digest"] for layer in image["layers"]]
    told = run(aikit_image_load, check_mode=True, archive=str(path), **options)
    assert told["changed"] and not engine.loads
    real = run(aikit_image_load, archive=str(path), **options)
    assert real["actions"] == told["actions"] and (real["present"], real["id"], real["missing"]) == (True, image["id"], [])
    again = run(aikit_image_load, archive=str(path), **options)
    assert again["changed"] is False and len(engine.loads) == 1


def test_only_the_layers_that_are_missing_are_named(engine, run, archive):
    path, image = archive
    run(aikit_image_load, name="localhost/tiny:1", image=image, archive=str(path))
    newer = run(context=512)["image"]
    asked = run(aikit_image_load, name="localhost/tiny:1", image=newer)
    assert asked["missing"] == [newer["layers"][2]["digest"]]


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign"])
def test_a_damaged_archive_is_refused_and_nothing_is_loaded(engine, run, archive, damage):
    path, image = archive
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        data = data[: len(data) // 2]
    else:
        data = bytearray(b"no tar at all" * 100)
    path.write_bytes(data)
    failed = run(aikit_image_load, name="localhost/tiny:1", image=image, archive=str(path))
    assert failed["failed"] and str(path) in failed["msg"] and engine.stored == {}


def test_info(engine, run):
    run(load=["docker"])
    (found,) = run(aikit_image_info, name="localhost/tiny:1", config_path="/config.yaml")["images"]
    assert (found["server"], found["models"][0]["name"]) == ("llama_cpp", "tiny")
    assert run(aikit_image_info, name="localhost/tiny:1", config_path="/config.yaml")["config"] == "- name: tiny\n"
    nothing = run(aikit_image_info, name="localhost/nothing:1", config_path="/x")
    assert (nothing["images"], nothing["config"], engine.containers_made) == ([], "", 2)
    assert [image["ref"] for image in run(aikit_image_info)["images"]] == ["localhost/tiny:1"]
