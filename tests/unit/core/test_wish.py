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
    return wish.wish(service, document(models, configs))


def document(models=(LLAMA,), configs=(), runtime="cuda"):
    return Aikitfile(runtime=runtime, models=tuple(models), model_configs=tuple(configs))


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


def test_low_vram_that_no_plan_honours_is_told():
    for settings, told in (({"gpu_layers": 10}, 1), ({}, 0), ({"gpu_layers": 10, "context_size": "auto"}, 0), ({"low_vram": False, "gpu_layers": 10}, 0)):
        (service,), _findings = services.resolve([{"name": "llama", "src": "a.yaml", "gpus": ["all"], "settings": {"low_vram": True, **settings}}])
        found = wish.findings(service, wish.wish(service, document()))
        assert [finding.path for finding in found] == ["inference_services[0].settings.low_vram"] * told


@pytest.mark.parametrize(
    ("server", "runtime", "aikit_version", "told"),
    [
        ("localai", "cuda", "0.21.0", "localai v4.0.0"),
        ("localai", "cuda", "", "localai v4.0.0"),
        ("localai", "cuda", "main", "localai v4.7.1"),
        ("localai", "applesilicon", "main", "localai v3.12.1"),
        ("localai", "cuda", "0.20.2", "localai v3.7.0"),
        ("localai", "applesilicon", "0.20.2", "localai"),
        ("localai", "cuda", "0.22.0", "localai v4.0.0"),
        ("llama_cpp", "cuda", "0.21.0", ""),
    ],
)
def test_the_server_of_an_image_is_known_before_it_is_built(server, runtime, aikit_version, told):
    (service,), _findings = services.resolve([{"name": "llama", "src": "a.yaml", "server": server}])
    assert wish.wish(service, document(runtime=runtime), aikit_version)["server"] == told


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
        ([config(lora_adapter="a.gguf")], (LLAMA,), "LoRA adapters are not planned; give the size of their files as extra_mib"),
        ([config(lora_adapters=["a.gguf"], lora_scales=[0.5])], (LLAMA,), "extra_mib"),
        ([config(options=["override_tensor:exps=CPU"])], (LLAMA,), "places the model by hand"),
        ([config(options=["-ngl:20"])], (LLAMA,), "places the model by hand"),
        ([config(parameters={"model": "other.gguf"})], (LLAMA,), "parameters.model (other.gguf) names no file"),
    ],
)
def test_what_cannot_be_planned_says_why(configs, models, words):
    found = asked(AUTO, configs, models)
    assert words in found["problem"]


def test_what_loads_beside_a_model_is_planned_once_its_size_is_told():
    for entry in (config(draft_model="d.gguf"), config(lora_adapters=["a.gguf"])):
        found = asked({**AUTO, "extra_mib": 300}, [entry])
        assert not found["problem"] and found["settings"]["extra_mib"] == 300
    told = resolved({**AUTO, "extra_mib": 300})
    for image, entries in (
        ({"env": {"LLAMA_ARG_MODEL": "/m"}, "command": ["--lora", "/a.gguf"]}, ()),
        ({"env": {"LLAMA_ARG_MODEL": "/m", "LLAMA_ARG_SPEC_DRAFT_MODEL": "/d"}}, ()),
        ({"env": {}}, [config(lora_adapter="a.gguf")]),
    ):
        first, second = wish.with_images([resolved(AUTO), told], read_image(image, entries))
        assert "extra_mib" in first["wish"]["problem"] and not second["wish"]["problem"] and second["wish"]["paths"]


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


def resolved(settings=None):
    (service,), findings = services.resolve([{"name": "pp", "image": "r.example/p:1", "gpus": ["all"], "settings": settings or {}}])
    assert not findings
    return {**service.as_dict(), "wish": wish.wish(service, None)}


def read_image(image, config=()):
    return {"r.example/p:1": {"wish": wish.of_image({"images": [image]}, config), "image": image, "models": {"r.example/p:1:/m": {}}}}


def test_an_image_of_ours_says_it_in_its_variables():
    env = {"LLAMA_ARG_MODEL": "/models/m.gguf", "LLAMA_ARG_MMPROJ": "/models/mmproj.gguf", "LLAMA_ARG_CTX_SIZE": "65536", "LLAMA_ARG_N_GPU_LAYERS": "99"}
    env.update(LLAMA_ARG_BATCH="2048", LLAMA_ARG_UBATCH="256", LLAMA_ARG_KV_OFFLOAD="0")
    read = read_image({"server": "llama_cpp", "env": env})
    said = {"context_size": 65536, "gpu_layers": 99, "batch": 256, "no_kv_offloading": True}
    silent, planned, mine = wish.with_images([resolved(), resolved({"gpu_layers": "auto"}), resolved({"context_size": 1024, "threads": 2})], read)
    assert silent["wish"]["paths"] == ["/models/m.gguf", "/models/mmproj.gguf"]
    assert silent["wish"]["settings"] == {**said, "parallel": 4}
    assert planned["wish"]["settings"] == {**said, "gpu_layers": "auto"}
    assert mine["wish"]["settings"] == {**said, "context_size": 1024, "parallel": 4}


def test_an_image_with_localai_says_it_in_its_configuration():
    entry = {"name": "m", "backend": "llama-cpp", "parameters": {"model": "sub/m.gguf"}, "context_size": 2048, "f16": True}
    for image in ({"server": "localai", "env": {}}, {"env": {}}):
        read = read_image(image, [entry])
        silent, planned = wish.with_images([resolved(), resolved({"context_size": 1024, "gpu_layers": "auto"})], read)
        assert silent["wish"]["paths"] == ["/models/sub/m.gguf"]
        # LocalAI's own defaults: every layer, one slot
        assert silent["wish"]["settings"] == {"context_size": 2048, "f16": True, "gpu_layers": "all"}
        assert planned["wish"]["settings"] == {"context_size": 1024, "f16": True, "gpu_layers": "auto"}


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
    (service,) = wish.with_images([resolved({"gpu_layers": "auto"})], read_image({"env": env}, config))
    assert words in service["wish"]["problem"] and service["wish"]["paths"] == []


def test_an_image_that_is_not_there_yet():
    for read in ({"images": []}, {"failed": True}):
        found = wish.of_image(read, ())
        assert found["paths"] == [] and not found["problem"]
        (service,) = wish.with_images([resolved({"parallel": 2})], {"r.example/p:1": {"wish": found}})
        assert service["wish"] == {**resolved({"parallel": 2})["wish"], "paths": []}


def test_services_that_share_an_image_keep_their_own_settings():
    read = read_image({"server": "llama_cpp", "env": {"LLAMA_ARG_MODEL": "/m", "LLAMA_ARG_CTX_SIZE": "4096"}})
    small = resolved({"context_size": 512, "cache_type_k": "q8_0", "parallel": 1})
    first, second, planned, built = wish.with_images([small, resolved(), resolved(AUTO), {**resolved(), "built": True}], read)
    assert first["wish"]["settings"] == {"context_size": 512, "cache_type_k": "q8_0", "parallel": 1, "gpu_layers": "auto"}
    assert second["wish"]["settings"] == {"context_size": 4096, "parallel": 4, "gpu_layers": "auto"}
    assert planned["wish"]["settings"] == AUTO and planned["wish"]["paths"] == ["/m"]
    assert "paths" not in built["wish"]
    assert wish.premade([premade(), premade(), {**premade(), "gpus": []}]) == [premade()]
    assert wish.image_shapes(read) == {"r.example/p:1:/m": {}}


SHAPE = {"shape": {"architecture": "llama"}, "cached": False, "read_bytes": 5}
READ = {"h1": {"r.example/p:1": {"image": {"id": "sha256:1"}, "models": {"r.example/p:1:/m": SHAPE, "r.example/p:1:/bad": {"error": "no GGUF"}}}}}


@pytest.mark.parametrize(
    "name, image, paths, known",
    [
        # The same image under another name
        ("r.example/p:latest", {"id": "sha256:1"}, ["/m"], {"r.example/p:latest:/m": {**SHAPE, "cached": True, "read_bytes": 0}}),
        # The tag has moved
        ("r.example/p:1", {"id": "sha256:2"}, ["/m"], {}),
        # What could not be read, or was not, is tried again; what is not there has nothing to be known by
        ("r.example/p:1", {"id": "sha256:1"}, ["/m", "/bad"], {}),
        ("r.example/p:1", {"id": "sha256:1"}, ["/m", "/other"], {}),
        ("r.example/p:1", {}, ["/m"], {}),
    ],
)
def test_no_header_is_read_twice(name, image, paths, known):
    assert wish.known_models(name, image, paths, READ) == known
    assert wish.known_models(name, image, paths, {"h2": {"r.example/none:1": {"image": {}, "models": {}}}}) == {}


def test_servers_by_image():
    labels = {"io.aikit.fleet.server": "llama_cpp", "io.aikit.fleet.server.version": "0.7.0"}
    ours = {"io.aikit.fleet.server": "localai", "io.aikit.fleet.server.version": "v4.7.1"}
    builds = {
        "a:1": {"image": {"labels": labels}},
        "b:1": {"image": {}},
        "direct:1": {"image": {"server": "localai", "labels": {}, "annotations": ours}},
        # BuildKit's images are AIKit's own, and say nothing
        "buildkit:1": {"image": {"server": "localai", "runtime": "cuda", "labels": {}}, "request": {"aikit_version": ""}},
        "mac:1": {"image": {"server": "localai", "runtime": "applesilicon", "labels": {}}, "request": {"aikit_version": "main"}},
    }
    assert wish.server_versions(builds, {"c:1": {"image": {"server": "localai", "labels": {}}}}) == {
        "a:1": "llama_cpp 0.7.0",
        "direct:1": "localai v4.7.1",
        "buildkit:1": "localai v4.0.0",
        "mac:1": "localai v3.12.1",
        "c:1": "localai",
    }


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
