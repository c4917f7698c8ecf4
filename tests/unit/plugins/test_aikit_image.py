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
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleError
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase
from ansible_collections.aikit.fleet.plugins.action import aikit_image as action
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ImageState, Room
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.lock import Lock
from ansible_collections.aikit.fleet.plugins.module_utils._core.tar import Entry, segments
from ansible_collections.aikit.fleet.plugins.module_utils._io import build, files, load
from ansible_collections.aikit.fleet.plugins.module_utils._io import image as image_io
from ansible_collections.aikit.fleet.plugins.modules import aikit_image, aikit_image_info, aikit_image_load
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import DEFAULT_METADATA, U32, Value, gguf_bytes
from ansible_collections.aikit.fleet.tests.unit.fake_registry import FakeRegistry
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page

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
        missing = {diff_id for path, diff_id in zip(manifest["Layers"], config["rootfs"]["diff_ids"]) if path not in names}
        if missing and (self.refuse_thin or not missing <= have):
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
    for module in (build, load, aikit_image_info):
        monkeypatch.setattr(module, "open_engine", lambda name="auto": made)
    return made


def write_base(path, **changes):
    rootfs = io.BytesIO()
    with tarfile.open(fileobj=rootfs, mode="w") as writer:
        writer.addfile(tarfile.TarInfo("usr/bin/llama-server"))
    path.write_bytes(rootfs.getvalue())
    options = ["--model", "--alias", "--host", "--port", "--verbosity", "--ctx-size", "--models-preset", "--models-max"]
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
                # Its servers are strangers on plain HTTP that tell no digest
                "require_sha256": False,
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
    again = run(context=512, load=["docker"])
    assert [layer["reused"] for layer in again["image"]["layers"]] == [True, True, True]
    for context, same in ((512, again), (4096, run(context=4096, load=["docker"], check_mode=True))):
        told = run(context=context, load=["docker"], check_mode=True)
        assert [layer["reused"] for layer in told["image"]["layers"]] == [layer["reused"] for layer in same["image"]["layers"]]
    assert [layer["reused"] for layer in told["image"]["layers"]] == [True, True, False]
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
    # One without labels, by its comment; another is somebody else's
    engine.stored["r.example/gemma:1"] = ImageState("sha256:" + "1" * 64, ("r.example/gemma:1",), facts={"io.aikit.fleet.server": "localai"})
    engine.stored["r.example/other:1"] = ImageState("sha256:" + "2" * 64, ("r.example/other:1",), entrypoint=("local-ai",))
    assert [image["ref"] for image in run(aikit_image_info)["images"]] == ["localhost/tiny:1", "r.example/gemma:1"]


# ---- models


def aikitfile(*models, config=""):
    """A parsed aikitfile of (name, source) and, where it matters, sha256."""
    lines = ["apiVersion: v1alpha1", "models:"]
    for name, source, *sha256 in models:
        lines += [f"  - name: {name}", f"    source: '{source}'", *(f"    sha256: {digest}" for digest in sha256)]
    return yaml_source.from_text("\n".join(lines) + "\n" + config, "aikitfile.yaml")


def contents(path):
    """File name → bytes of all layers but the base of an archive."""
    found = {}
    with tarfile.open(path) as reader:
        (manifest,) = json.load(reader.extractfile("manifest.json"))
        for layer in manifest["Layers"][1:]:
            with tarfile.open(fileobj=io.BytesIO(reader.extractfile(layer).read())) as inner:
                found.update((entry.name, inner.extractfile(entry).read()) for entry in inner if entry.isfile())
    return found


def model_bytes(fill):
    return gguf_bytes(fill=fill)


def test_models_of_one_file_name_keep_their_weights(engine, run, folder, model_server):
    model_server.pages.update({"/a/m.gguf": Page(model_bytes(1)), "/b/m.gguf": Page(model_bytes(2))})
    parsed = aikitfile(("a/one", f"{model_server.url}/a/m.gguf"), ("b/two", f"{model_server.url}/b/m.gguf"))
    built = run(parsed=parsed, archive=str(folder / "out.tar"))
    found = contents(folder / "out.tar")
    assert (found["models/a/m.gguf"], found["models/b/m.gguf"]) == (model_bytes(1), model_bytes(2))
    presets = found["aikit/presets.ini"].decode()
    assert "[a/one]\nmodel = /models/a/m.gguf" in presets and "[b/two]\nmodel = /models/b/m.gguf" in presets
    assert [model["name"] for model in built["image"]["models"]] == ["a/one", "b/two"]


def test_files_of_one_name_are_refused(engine, run, folder):
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / name / "m.gguf").write_bytes(model_bytes(1))
    parsed = {**aikitfile(("one", "x/*.gguf"), ("two", "y/*.gguf")), "directory": str(folder)}
    failed = run(parsed=parsed, load=["docker"])
    assert failed["failed"] and "cannot both be in the image" in failed["msg"] and not engine.loads


def test_a_model_in_a_folder_is_found_by_the_config(engine, run, model_server):
    model_server.pages["/a/m.gguf"] = Page(model_bytes(1))
    config = "config: |\n  - name: one\n    parameters:\n      model: dir/m.gguf\n"
    built = run(parsed=aikitfile(("dir/one", f"{model_server.url}/a/m.gguf"), config=config))
    assert built["image"]["env"]["LLAMA_ARG_MODEL"] == "/models/dir/m.gguf"


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_source_with_a_secret_is_refused_and_shown_nowhere(engine, run, folder, model_server, check_mode):
    model_server.pages["/m.gguf"] = Page(model_bytes(1))
    failed = run(
        parsed=aikitfile(("one", f"{model_server.url}/m.gguf?token=SUPERSECRET&X-Amz-Signature=deadbeefdeadbeef")), load=["docker"], check_mode=check_mode
    )
    assert failed["failed"] and "token=***, X-Amz-Signature=***" in failed["msg"] and "option token" in failed["msg"]
    assert "SUPERSECRET" not in json.dumps(failed) and "deadbeefdeadbeef" not in json.dumps(failed)
    assert not model_server.seen and not engine.loads


def test_a_query_that_is_no_secret_is_not_shown_either(engine, run, model_server):
    model_server.pages["/m.gguf"] = Page(model_bytes(1))
    told = run(parsed=aikitfile(("one", f"{model_server.url}/m.gguf?download=true")), check_mode=True)
    assert told["actions"] == [f"download {model_server.url}/m.gguf?download=*** ({len(model_bytes(1))} bytes, as m.gguf)"]


def test_downloads_are_told_and_done(engine, run, model_server):
    model_server.pages["/m.gguf"] = Page(model_bytes(1))
    parsed = aikitfile(("one", f"{model_server.url}/m.gguf"))
    told = run(parsed=parsed, check_mode=True)
    assert told["changed"] and told["image"]["digest"] == "" and not model_server.gets()
    real = run(parsed=parsed)
    assert (real["changed"], real["actions"]) == (True, told["actions"])
    for check_mode in (True, False):
        again = run(parsed=parsed, check_mode=check_mode)
        assert (again["changed"], again["actions"], again["image"]["digest"]) == (False, [], real["image"]["digest"])


def test_content_that_is_in_the_store_under_another_name(engine, run, folder, model_server):
    data = model_bytes(1)
    model_server.pages.update({"/m.gguf": Page(data), "/other.gguf": Page(data)})
    run(parsed=aikitfile(("one", f"{model_server.url}/other.gguf")))
    parsed = aikitfile(("one", f"{model_server.url}/m.gguf", hashlib.sha256(data).hexdigest()))
    told = run(parsed=parsed, load=["docker"], check_mode=True)
    assert [text.split()[0] for text in told["actions"]] == ["link", "load"] and told["image"]["env"]["LLAMA_ARG_MODEL"] == "/models/m.gguf"
    real = run(parsed=parsed, load=["docker"])
    assert (real["actions"], real["image"]["digest"]) == (told["actions"], told["image"]["digest"])
    assert run(parsed=parsed, load=["docker"])["changed"] is False


def test_a_download_without_a_digest_is_refused(engine, run, model_server):
    model_server.pages["/m.gguf"] = Page(model_bytes(1))
    parsed = aikitfile(("one", f"{model_server.url}/m.gguf"))
    for check_mode in (True, False):
        failed = run(parsed=parsed, require_sha256=True, check_mode=check_mode)
        assert failed["failed"] and "No sha256 is given" in failed["msg"] and "require_sha256" in failed["hint"] and not model_server.seen
    assert run(parsed=aikitfile(("one", f"{model_server.url}/m.gguf", hashlib.sha256(model_bytes(1)).hexdigest())), require_sha256=True)["changed"]


def test_models_of_a_hub(engine, run, folder, hub_server):
    hub_server.repository("ns/tiny", {"README.md": b"# Tiny", "m.gguf": model_bytes(1), "sub/n.gguf": model_bytes(2)}, gated="HUB-TOKEN")
    common = {"require_sha256": True, "hub_url": hub_server.url, "token": "HUB-TOKEN"}
    one = run(parsed=aikitfile(("one", "huggingface://ns/tiny@main/sub/n.gguf")), archive=str(folder / "one.tar"), **common)
    assert contents(folder / "one.tar")["models/n.gguf"] == model_bytes(2)
    assert one["image"]["env"]["LLAMA_ARG_MODEL"] == "/models/n.gguf" and "HUB-TOKEN" not in json.dumps(one)
    parsed = aikitfile(("one", "huggingface://ns/tiny"))
    told = run(parsed=parsed, check_mode=True, **common)
    whole = run(parsed=parsed, archive=str(folder / "all.tar"), **common)
    assert told["changed"] and told["image"]["digest"] == ""
    found = {name: data for name, data in contents(folder / "all.tar").items() if name.startswith("models/") and data}
    # A folder of its own, and no README, as AIKit has it
    assert found == {"models/ns/tiny/m.gguf": model_bytes(1), "models/ns/tiny/sub/n.gguf": model_bytes(2)}
    presets = contents(folder / "all.tar")["aikit/presets.ini"].decode()
    assert "[one]\nmodel = /models/ns/tiny/m.gguf" in presets and "/models/ns/tiny/sub/n.gguf" in presets and "README" not in presets
    assert not [finding for finding in whole["findings"] if "README" in finding["message"]]
    assert run(parsed=parsed, archive=str(folder / "all.tar"), **common)["changed"] is False


def test_a_model_of_a_registry(engine, run, folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with FakeRegistry() as registry:
        layer = {"mediaType": "application/vnd.ollama.image.model", **registry.put_blob("me/tiny", model_bytes(1))}
        config = {"mediaType": "application/vnd.docker.container.image.v1+json", **registry.put_blob("me/tiny", b"{}")}
        registry.put_manifest("me/tiny", "1", {"schemaVersion": 2, "config": config, "layers": [layer]})
        parsed = aikitfile(("one", f"oci://{registry.host}/me/tiny:1"))
        built = run(parsed=parsed, archive=str(folder / "out.tar"), require_sha256=True)
    assert contents(folder / "out.tar")["models/tiny"] == model_bytes(1)
    assert built["image"]["env"]["LLAMA_ARG_MODEL"] == "/models/tiny"
    assert run(parsed=parsed, archive=str(folder / "out.tar"))["changed"] is False, "the registry is not asked again"


def test_a_hidden_file_is_no_part_of_a_split_model(folder, hub_server):
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    parts = [gguf_bytes(metadata={**DEFAULT_METADATA, "split.count": Value(U32, 2), "split.no": Value(U32, number)}) for number in (0, 1)]
    hub_server.repository("ns/mac", {**dict(zip(names, parts)), f"._{names[0]}": b"\x00\x05\x16\x07"})
    wanted = Aikitfile(models=(Model("m", "huggingface://ns/mac"),))
    cache = files.DigestCache(str(folder / "cache"))
    found = image_io.find_models(wanted, "", str(folder / "store"), {}, cache, False, image_io.Reach(hub_url=hub_server.url), companions=True)
    assert [(entry.file, entry.companion) for entry in found.models] == [
        *((f"ns/mac/{name}", False) for name in names),
        (f"ns/mac/._{names[0]}", True),
    ]


@pytest.mark.parametrize("sha256, revision", [(None, "c"), ("2" * 64, "c"), ("4" * 64, None)])
def test_a_lock_pins_a_model_with_files_beside_it(sha256, revision):
    """The revision too, unless the aikitfile asks for another file by now."""
    source = "oci://r.example/m:1"
    entry = {"name": "m", "source": source, "file": "models/m.gguf", "sha256": "2" * 64, "size_bytes": 1, "revision": "c"}
    lock = Lock({"models": [entry, {**entry, "file": "models/LICENSE", "sha256": "3" * 64}]})
    wanted = Aikitfile(models=(Model("m", source, sha256),))
    assert build._pin_models(wanted, lock)[1] == ({"m": revision} if revision else {})


def test_one_token_is_for_one_host(engine, run, model_server):
    second = ModelServer()
    try:
        model_server.pages["/m.gguf"] = Page(model_bytes(1), token="ONE-TOKEN")
        second.pages["/n.gguf"] = Page(model_bytes(2))
        parsed = aikitfile(("one", f"{model_server.url}/m.gguf"), ("two", f"{second.url}/n.gguf"))
        failed = run(parsed=parsed, token="ONE-TOKEN")
        assert failed["failed"] and f"127.0.0.1:{second.port}" in failed["msg"] and "option tokens" in failed["msg"]
        assert not model_server.seen and not second.seen
        built = run(parsed=parsed, tokens={f"127.0.0.1:{model_server.port}": "ONE-TOKEN", "elsewhere.example": "OTHER-TOKEN"})
        assert built["changed"] and "ONE-TOKEN" not in json.dumps(built) and "OTHER-TOKEN" not in json.dumps(built)
        assert {seen.headers.get("authorization") for seen in model_server.gets()} == {"Bearer ONE-TOKEN"}
        assert {seen.headers.get("authorization") for seen in second.seen} == {None}
        assert run(parsed=parsed, token="x", tokens={"a": "b"})["failed"]
    finally:
        second.close()


def split(folder, *parts, of=2, told=None):
    (folder / "s").mkdir()
    for part in parts:
        metadata = {**DEFAULT_METADATA, "split.count": Value(U32, told or of), "split.no": Value(U32, part - 1)}
        (folder / "s" / f"m-{part:05d}-of-{of:05d}.gguf").write_bytes(gguf_bytes(metadata=metadata, fill=part))
    return {**aikitfile(("s", "s/*.gguf")), "directory": str(folder)}


def test_a_split_model_through_a_glob(engine, run, folder):
    built = run(parsed=split(folder, 1, 2))
    assert built["image"]["env"]["LLAMA_ARG_MODEL"] == "/models/m-00001-of-00002.gguf" and built["findings"] == []


@pytest.mark.parametrize(
    "parts, more, words", [((1,), {}, "part 1 of 2, and 1 of the others are missing: m-00002-of-00002.gguf"), ((1, 2), {"told": 3}, "one of 3 by its content")]
)
def test_a_split_model_through_a_glob_that_is_not_whole(engine, run, folder, parts, more, words):
    failed = run(parsed=split(folder, *parts, **more), load=["docker"])
    assert failed["failed"] and words in failed["msg"] and not engine.loads


def test_a_single_part_is_remarked(engine, run, folder):
    metadata = {**DEFAULT_METADATA, "split.count": Value(U32, 3)}
    (folder / "tiny.gguf").write_bytes(gguf_bytes(metadata=metadata))
    assert "one part of 3" in run()["findings"][0]["message"]


def test_a_definition_with_a_relative_source_needs_a_context(engine, run, folder):
    for check_mode in (True, False):
        failed = run(parsed=yaml_source.from_definition({"apiVersion": "v1alpha1", "models": [{"name": "tiny", "source": "tiny.gguf"}]}), check_mode=check_mode)
        assert failed["failed"] and "nothing says what it is relative to" in failed["msg"] and "option context" in failed["msg"]


def test_a_context_with_characters_of_globs(engine, run, folder):
    odd = folder / "a[1] *?"
    odd.mkdir()
    (odd / "tiny.gguf").write_bytes(model_bytes(1))
    assert not run(parsed={**aikitfile(("tiny", "*.gguf")), "directory": str(odd)}).get("failed")


def test_a_file_name_that_is_no_utf_8(engine, run, folder):
    with open(os.fsencode(folder) + b"/bad\xff.gguf", "wb") as handle:
        handle.write(model_bytes(1))
    failed = run(parsed={**aikitfile(("tiny", "bad*.gguf")), "directory": str(folder)})
    assert failed["failed"] and r"b'bad\xff.gguf', which is no UTF-8" in failed["msg"]


def test_a_new_model_is_read_once(engine, run, folder, monkeypatch):
    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + 5 * 10**9)
    opened = []
    real = open

    def counted(path, *words, **more):
        if str(path).endswith("tiny.gguf") and "b" in "".join(words):
            opened.append(path)
        return real(path, *words, **more)

    for module in (files, image_io):
        monkeypatch.setattr(module, "open", counted, raising=False)
    first = run()
    # Once for both digests; a look at the cache, which opens and does not read
    read = len(opened)
    monkeypatch.setattr(files, "read_into", lambda *words: pytest.fail("read again"))
    monkeypatch.setattr(image_io, "_hash", lambda parts: pytest.fail("read again") if any(not isinstance(part, bytes) for part in parts) else "0" * 64)
    run()
    assert read == 2 and first["image"]["layers"][1]["digest"] == "sha256:" + layer_of(folder / "tiny.gguf")


def layer_of(path):
    made = io.BytesIO()
    for part in segments([Entry("models", 0o755), Entry("models/tiny.gguf", 0o444, (path.read_bytes(),))]):
        made.write(part)
    return hashlib.sha256(made.getvalue()).hexdigest()


# ---- room and archives


def test_an_engine_without_room_is_sent_nothing(engine, run, folder, monkeypatch):
    engine.room = (Room(str(folder), 2),)
    built = run()["image"]["size_bytes"]
    monkeypatch.setattr(files, "free_bytes", lambda path: 2 * built - 1000)
    for check_mode in (True, False):
        failed = run(load=["docker"], check_mode=check_mode)
        assert failed["failed"] and "Not enough disk space for loading localhost/tiny:1 into docker" in failed["msg"] and not engine.loads
    monkeypatch.setattr(files, "free_bytes", lambda path: 4 * built)
    # On one file system both have to fit
    assert run(load=["docker"], check_mode=True)["changed"]
    monkeypatch.setattr(files, "free_bytes", lambda path: 3 * built)
    assert run(load=["docker"])["changed"]
    # A changed setting needs room for what is new alone
    monkeypatch.setattr(files, "free_bytes", lambda path: 40_000)
    assert run(load=["docker"], context=512)["changed"]


def test_archive_and_engine_on_one_disk_count_together(engine, run, folder, monkeypatch):
    engine.room = (Room(str(folder), 1),)
    size = run(archive=str(folder / "one.tar"))["bytes_written"]
    monkeypatch.setattr(files, "free_bytes", lambda path: 2 * size - 1)
    for check_mode in (True, False):
        failed = run(load=["docker"], archive=str(folder / "two.tar"), check_mode=check_mode)
        assert f"loading localhost/tiny:1 into docker and the image archive {folder}/two.tar" in failed["msg"]
        assert not engine.loads and not (folder / "two.tar").exists()


def test_check_mode_sees_that_an_archive_does_not_fit(engine, run, folder, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    assert "Not enough disk space for the image archive" in run(archive=str(folder / "out.tar"), check_mode=True)["msg"]


def test_what_a_killed_build_left_is_not_in_its_way(engine, run, folder, monkeypatch):
    path, part = folder / "out.tar", folder / "out.tar.part"
    size = run(archive=str(folder / "first.tar"))["bytes_written"]
    part.write_bytes(b"x" * (size - 100))
    monkeypatch.setattr(files, "free_bytes", lambda path: 200 if part.exists() and part.read_bytes()[:1] == b"x" else size)
    assert run(archive=str(path), check_mode=True)["changed"] and part.exists()
    assert run(archive=str(path))["bytes_written"] == size and not part.exists()


def test_an_archive_that_was_damaged_is_written_again(engine, run, folder):
    path = folder / "out.tar"
    written = run(archive=str(path))["bytes_written"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run(archive=str(path), check_mode=True)["actions"] == [f"write {path}"]
    assert run(archive=str(path))["bytes_written"] == written
    assert run(archive=str(path))["changed"] is False


def test_an_archive_that_was_only_touched_is_taken(engine, run, folder):
    path = folder / "out.tar"
    run(archive=str(path))
    os.utime(path, (0, 0))
    assert run(archive=str(path))["changed"] is False


def test_a_model_that_changes_under_the_writer_leaves_no_archive(engine, run, folder, monkeypatch):
    real = image_io.stream

    def meddling(parts):
        for part in parts:
            if not isinstance(part, bytes) and part.path.endswith("tiny.gguf") and (folder / "out.tar.part").exists():
                (folder / "tiny.gguf").write_bytes(model_bytes(9))
            yield from real((part,))

    monkeypatch.setattr(image_io, "stream", meddling)
    failed = run(archive=str(folder / "out.tar"))
    assert failed["failed"] and "changed while" in failed["msg"] and not list(folder.glob("out.tar*"))


def test_an_archive_of_another_name_gets_the_name_that_was_asked_for(engine, run, archive):
    path, image = archive
    real = run(aikit_image_load, name="localhost/other:2", image=image, archive=str(path))
    assert real["present"] and engine.stored["localhost/other:2"].id == image["id"]
    assert run(aikit_image_load, name="localhost/other:2", image=image, archive=str(path))["changed"] is False


PREMADE = "registry.example:5000/fleet/llama"
HASH = "sha256:" + "e" * 64


@pytest.fixture
def remote(engine):
    """What a registry has, by name: pulling puts it into the engine."""
    engine.pulled, engine.asked, engine.told, there = [], [], "", {}

    def remote_digest(ref, login=None):
        engine.asked.append((ref, login))
        return engine.told

    def pull(ref, login=None):
        engine.pulled.append((ref, login))
        if ref not in there:
            raise AikitError(f"Docker could not pull {ref}: manifest unknown")
        engine.stored[ref] = ImageState(there[ref])

    engine.pull, engine.remote_digest = pull, remote_digest
    return there


def test_an_image_of_somebody_else_is_pulled_by_its_name(engine, run, remote):
    remote[f"{PREMADE}:1"] = "sha256:one"
    logins = [
        {"registry": "other.example", "username": "bob", "password": "other-pw"},
        {"registry": "registry.example:5000", "username": "anna", "password": "s3cret"},
    ]
    options = {"name": f"{PREMADE}:1", "registry_logins": logins}
    told = run(aikit_image_load, check_mode=True, **options)
    assert (told["changed"], told["actions"], told["present"]) == (True, [f"pull {PREMADE}:1 (docker)"], False) and not engine.pulled
    real = run(aikit_image_load, **options)
    assert (real["changed"], real["actions"], real["id"]) == (True, told["actions"], "sha256:one")
    # The login of that registry, and of no other
    assert engine.pulled == [(f"{PREMADE}:1", ("anna", "s3cret"))] and "s3cret" not in json.dumps(real)
    assert not run(aikit_image_load, **options)["changed"] and len(engine.pulled) == 1
    # The same under the tag, then another
    asked = run(aikit_image_load, always=True, **options)
    assert (asked["changed"], asked["actions"], len(engine.pulled)) == (False, [], 2)
    # Check mode asks for the digest alone, and pulls nothing
    engine.stored[f"{PREMADE}:1"] = replace(engine.stored[f"{PREMADE}:1"], digests=(f"{PREMADE}@{HASH}",))
    for digest, actions in ((HASH, []), ("sha256:" + "9" * 64, told["actions"]), ("", told["actions"])):
        engine.told = digest
        check = run(aikit_image_load, check_mode=True, always=True, **options)
        assert (check["actions"], len(engine.pulled), engine.asked[-1]) == (actions, 2, (f"{PREMADE}:1", ("anna", "s3cret")))
    remote[f"{PREMADE}:1"] = "sha256:two"
    assert not run(aikit_image_load, **options)["changed"]
    moved = run(aikit_image_load, always=True, **options)
    assert (moved["changed"], moved["id"]) == (True, "sha256:two")
    assert "manifest unknown" in run(aikit_image_load, name=f"{PREMADE}:2")["msg"]


def test_what_was_verified_gets_the_name(engine, run, remote):
    remote[f"{PREMADE}@{HASH}"] = "sha256:one"
    engine.stored[f"{PREMADE}:1"] = ImageState("sha256:old")
    options = {"name": f"{PREMADE}:1", "pull": f"{PREMADE}@{HASH}", "always": True}
    assert run(aikit_image_load, check_mode=True, **options)["actions"] == [f"pull {PREMADE}@{HASH} (docker)"]
    assert run(aikit_image_load, **options)["changed"] and engine.stored[f"{PREMADE}:1"].id == "sha256:one"
    # A digest never means another image: nobody is asked
    assert not run(aikit_image_load, **options)["changed"] and len(engine.pulled) == 1
    engine.stored[f"{PREMADE}:1"] = ImageState("sha256:old")
    assert run(aikit_image_load, check_mode=True, **options)["actions"] == [f"tag {PREMADE}:1 (docker)"]
    assert run(aikit_image_load, **options)["changed"] and engine.stored[f"{PREMADE}:1"].id == "sha256:one" and len(engine.pulled) == 1
    # By digest alone there is no name to give, also beside a tag
    del engine.stored[f"{PREMADE}@{HASH}"]
    real = run(aikit_image_load, name=f"{PREMADE}:9@{HASH}")
    assert real["actions"] == [f"pull {PREMADE}@{HASH} (docker)"] and f"{PREMADE}:9" not in engine.stored


def test_a_load_needs_room_and_an_archive(engine, run, folder, archive, monkeypatch):
    path, image = archive
    engine.room = (Room(str(folder), 2),)
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    for check_mode in (True, False):
        told = run(aikit_image_load, name="localhost/tiny:1", image=image, archive=str(path), check_mode=check_mode)
        assert "Not enough disk space for loading localhost/tiny:1 into docker" in told["msg"]
        told = run(aikit_image_load, name="localhost/tiny:1", image=image, archive=str(folder / "none.tar"), check_mode=check_mode)
        assert f"there is no file {folder}/none.tar on this host" in told["msg"]
        # The question that comes before anything travels
        told = run(aikit_image_load, name="localhost/tiny:1", image=image, check_mode=check_mode)
        assert "Not enough disk space for loading localhost/tiny:1 into docker" in told["msg"]
    assert not engine.loads


# ---- the action plugin


@pytest.fixture
def act(monkeypatch, tmp_path):
    sent = {}

    def execute(_self, module_args, task_vars=None, wrap_async=None, **_more):
        sent.update(module_args, wrap_async=wrap_async)
        return {"changed": False, "invocation": {"module_args": dict(module_args)}}

    def call(async_val=0, **arguments):
        monkeypatch.setattr(ActionBase, "run", lambda *_words: {})
        monkeypatch.setattr(ActionBase, "_execute_module", execute)
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = SimpleNamespace(args=arguments, async_val=async_val, run_once=False, no_log=False)
        plugin._find_needle = lambda _folder, name: str(tmp_path / name)
        return sent, plugin.run(None, {})

    return call


def test_action_hands_the_text_over_and_does_not_return_it(act):
    sent, result = act(definition={"apiVersion": "v1alpha1"})
    assert sent["parsed"]["text"] == "apiVersion: v1alpha1\n" and sent["wrap_async"] == 0
    assert "parsed" not in result["invocation"]["module_args"]


def test_action_can_be_run_in_the_background(act):
    assert act(async_val=100, definition={"apiVersion": "v1alpha1"})[0]["wrap_async"] == 100
    assert action.ActionModule._supports_async


class Templar:
    def template(self, value):
        if "undefined" in str(value):
            raise AnsibleError("'Input' is undefined.")
        return value


def test_a_definition_that_is_not_unsafe_is_told_so(monkeypatch):
    monkeypatch.setattr(yaml_source, "is_trusted_as_template", lambda text: "{{" in text)
    finalize = action.ActionModule.finalize_task_arg
    assert finalize("name", "a", Templar(), None) == "a" and finalize("definition", {"a": 1}, Templar(), None) == {"a": 1}
    with pytest.raises(AnsibleError, match="'{{.Input' is a template of LocalAI.*definition: !unsafe"):
        finalize("definition", {"models": [{"template": "{{.Input}}"}]}, Templar(), None)
    with pytest.raises(AnsibleError, match="is undefined.*definition: !unsafe"):
        finalize("definition", {"undefined": "{{ Input }}"}, Templar(), None)
