# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What services leave to a plan: out of the service, out of the aikitfile, out of an image."""

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import services, wish
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

LLAMA = Model("llama", "https://models.example/llama.gguf", "a" * 64)
PROJECTOR = Model("eyes", "https://models.example/mmproj-f16.gguf")
AUTO = {"gpu_layers": "auto", "context_size": "auto"}


def config(**more):
    parameters = {"model": "llama.gguf", **more.pop("parameters", {})}
    return {"name": "llama", "backend": "llama", "parameters": parameters, **more}


def asked(settings=None, configs=(), models=(LLAMA,), server="llama_cpp"):
    (service,), findings = services.resolve([{"name": "llama", "src": "a.yaml", "gpus": ["all"], "settings": settings or {}}])
    assert not findings
    service = services.replace(service, server=server)
    return wish.wish(service, Aikitfile(runtime="cuda", models=tuple(models), model_configs=tuple(configs)))


def test_a_service_that_says_nothing_is_what_the_server_does():
    found = asked()
    assert found["auto"] == [] and found["settings"] == {"context_size": 8192, "gpu_layers": "auto", "parallel": 4}
    assert asked(server="localai")["settings"] == {"context_size": 8192, "gpu_layers": "all"}
    assert found["files"] == [{"name": "llama", "source": LLAMA.source, "sha256": "a" * 64}] and found["problem"] == ""


def test_the_service_wins_over_the_aikitfile():
    options = ["parallel:2", "n_cpu_moe:3", "swa_full"]
    entry = config(context_size=4096, gpu_layers=35, f16=True, parameters={"batch": 256}, flash_attention=True, options=options)
    found = asked({"gpu_layers": "auto", "threads": 4}, [entry])
    assert found["auto"] == ["gpu_layers"]
    assert found["settings"] == {
        "context_size": 4096,
        "gpu_layers": "auto",
        "f16": True,
        "batch": 256,
        "flash_attention": "on",
        "parallel": 2,
        "n_cpu_moe": 3,
        "swa_full": True,
    }
    assert asked({**AUTO, "parallel": 1}, [entry])["settings"]["parallel"] == 1
    assert asked(AUTO, [entry])["settings"]["context_size"] == "auto"


def test_low_vram_is_a_wish_of_the_service_and_of_an_aikitfile_that_is_planned():
    assert asked({"low_vram": True})["auto"] == ["gpu_layers"] and asked({"low_vram": True})["settings"]["low_vram"] is True
    assert asked({"low_vram": True, "gpu_layers": 10})["auto"] == []
    assert asked(AUTO, [config(low_vram=True)])["settings"]["low_vram"] is True
    assert "low_vram" not in asked({}, [config(low_vram=True)])["settings"]


def test_projectors_and_split_models():
    found = asked(AUTO, [config(mmproj="mmproj-f16.gguf")], [LLAMA, PROJECTOR])
    assert [entry["name"] for entry in found["mmproj"]] == ["eyes"]
    assert [entry["name"] for entry in asked(AUTO, (), [LLAMA, PROJECTOR])["mmproj"]] == ["eyes"]
    parts = [Model(f"p{number}", f"https://models.example/m-{number:05d}-of-00003.gguf") for number in (2, 1, 3)]
    for configs in ((), [config(parameters={"model": "m-00001-of-00003.gguf"})]):
        assert [entry["name"] for entry in asked(AUTO, configs, parts)["files"]] == ["p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("configs", "models", "words"),
    [
        ((), (), "lists no model"),
        ((), (LLAMA, Model("b", "https://models.example/b.gguf")), "serves 2 models"),
        ([config(), config(name="b")], (LLAMA,), "serves 2 models"),
        ([config(backend="diffusers")], (LLAMA,), "backend diffusers is not llama.cpp"),
        ([config(draft_model="d.gguf")], (LLAMA,), "draft_model"),
        ([config(options=["override_tensor:exps=CPU"])], (LLAMA,), "places the model by hand"),
        ([config(options=["-ngl:20"])], (LLAMA,), "places the model by hand"),
        ([config(parameters={"model": "other.gguf"})], (LLAMA,), "parameters.model (other.gguf) names no file"),
    ],
)
def test_what_cannot_be_planned_says_why(configs, models, words):
    found = asked(AUTO, configs, models)
    assert words in found["problem"]


def test_models_are_read_once_and_keys_show_no_signature():
    signed = "https://models.example/m.gguf?X-Signature=secret"
    asked_for = {"files": [{"name": "m", "source": signed, "sha256": ""}], "mmproj": [], "problem": ""}
    present = {"state": "present", "gpus": ["all"], "context": "/a", "wish": asked_for}
    found = wish.needed_files([{"services": [present, present]}, {"services": [{**present, "state": "absent"}, {**present, "gpus": []}]}, {}])
    assert len(found) == 1 and "secret" not in found[0]["key"]
    local = [{"name": "m", "source": "m.gguf", "sha256": ""}]
    assert wish.key_of(local, "/a") != wish.key_of(local, "/b")
    pinned = [{"name": "m", "source": "m.gguf", "sha256": "b" * 64}]
    assert wish.key_of(pinned, "/a") == wish.key_of([{**pinned[0], "source": signed}], "/b")


# --- pre-made images -------------------------------------------------------------------------------------------------


def premade(settings=None, auto=("gpu_layers", "context_size"), **more):
    asked_for = {**(settings or {}), **{key: "auto" for key in auto}}
    blank = {"auto": list(auto), "settings": dict(asked_for), "files": [], "mmproj": [], "problem": ""}
    return {"name": "p", "state": "present", "built": False, "image": "r.example/p:1", "gpus": ["all"], "settings": asked_for, "wish": blank, **more}


def test_an_image_of_ours_says_it_in_its_variables():
    env = {"LLAMA_ARG_MODEL": "/models/m.gguf", "LLAMA_ARG_MMPROJ": "/models/mmproj.gguf", "LLAMA_ARG_CTX_SIZE": "4096"}
    env.update(LLAMA_ARG_BATCH="2048", LLAMA_ARG_UBATCH="256")
    read = {"images": [{"server": "llama_cpp", "env": {**env, "LLAMA_ARG_KV_OFFLOAD": "0"}}]}
    found = wish.of_image(premade(auto=("gpu_layers",)), read, ())
    assert found["paths"] == ["/models/m.gguf", "/models/mmproj.gguf"]
    assert found["settings"] == {"context_size": 4096, "batch": 256, "no_kv_offloading": True, "gpu_layers": "auto"}


def test_an_image_with_localai_says_it_in_its_configuration():
    entry = {"name": "m", "backend": "llama-cpp", "parameters": {"model": "sub/m.gguf"}, "context_size": 2048, "f16": True}
    read = {"images": [{"server": "localai", "env": {}}]}
    found = wish.of_image(premade({"context_size": 1024}, ("gpu_layers",)), read, [entry])
    assert found["paths"] == ["/models/sub/m.gguf"] and found["settings"] == {"context_size": 1024, "f16": True, "gpu_layers": "auto"}


@pytest.mark.parametrize(
    ("env", "config", "words"),
    [
        ({}, (), "does not say which model it serves"),
        ({"LLAMA_ARG_MODELS_PRESET": "/aikit/models.ini"}, (), "models from one container"),
        ({}, [{"name": "a"}, {"name": "b"}], "serves 2 models"),
        ({}, [{"name": "a", "backend": "vllm"}], "backend vllm"),
        ({}, [{"name": "a"}], "parameters.model of its configuration is not set"),
    ],
)
def test_images_that_cannot_be_planned(env, config, words):
    found = wish.of_image(premade(), {"images": [{"env": env}]}, config)
    assert words in found["problem"] and found["paths"] == []


def test_an_image_that_is_not_there_yet():
    assert wish.of_image(premade(), {"images": []}, ()) == {**premade()["wish"], "paths": []}
    assert wish.of_image(premade(), {"failed": True}, ())["paths"] == []


def test_services_that_share_an_image_keep_their_own_wishes():
    inside = {"paths": ["/m"], "problem": "", "settings": {"context_size": 4096, "gpu_layers": "auto"}}
    read = {"r.example/p:1": {"wish": inside, "image": {}, "models": {"r.example/p:1:/m": {}}}}
    first, second, built = wish.with_images([premade(), premade(auto=("gpu_layers",)), {**premade(), "built": True}], read)
    assert first["wish"]["settings"] == {"context_size": "auto", "gpu_layers": "auto"} and first["wish"]["paths"] == ["/m"]
    assert second["wish"]["settings"] == {"context_size": 4096, "gpu_layers": "auto"}
    assert "paths" not in built["wish"]
    assert wish.premade([premade(), premade(), {**premade(), "gpus": []}]) == [premade()]
    assert wish.image_shapes(read) == {"r.example/p:1:/m": {}}


def test_servers_by_image():
    labels = {"io.aikit.fleet.server": "llama_cpp", "io.aikit.fleet.server.version": "0.7.0"}
    builds = {"a:1": {"image": {"labels": labels}}, "b:1": {"image": {}}}
    assert wish.server_versions(builds, {"c:1": {"image": {"server": "localai", "labels": {}}}}) == {"a:1": "llama_cpp 0.7.0", "c:1": "localai"}


# --- models of a plan ------------------------------------------------------------------------------------------------


def test_models_become_services():
    listed = ["https://models.example/A b.gguf?x=1", {"source": "m.gguf", "name": "m", "sha256": "c" * 64, "gpus": [0]}]
    found = wish.models_as_services(listed, {"context_size": 8192})
    resolved, findings = services.resolve(found)
    assert not findings and [entry.name for entry in resolved] == ["A-b.gguf", "model-m"]
    assert resolved[0].settings == {"gpu_layers": "auto", "context_size": 8192} and resolved[1].gpus == ("0",)
    assert found[1]["definition"]["models"] == [{"name": "model-m", "source": "m.gguf", "sha256": "c" * 64}]
    (local,) = wish.models_as_services(["/srv/models/m1.gguf"])
    assert (local["context"], local["definition"]["models"][0]["source"]) == ("/srv/models", "m1.gguf")
    twice = wish.models_as_services(["m.gguf", "m.gguf"])
    assert len({entry["name"] for entry in twice}) == 2 and not services.resolve(twice)[1]


@pytest.mark.parametrize(
    ("models", "words"),
    [("m.gguf", "must be a list"), ([1], "[0] has no source"), ([{"sorce": "m"}], "has no source"), ([{"source": "m", "sha265": "x"}], "Did you mean sha256?")],
)
def test_models_that_are_none(models, words):
    with pytest.raises(AikitError) as caught:
        wish.models_as_services(models)
    assert words in str(caught.value)
