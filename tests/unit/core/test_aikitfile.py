# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every rule of an aikitfile, one row each."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import aikitfile, data_aikit, localai
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Model, image_file, repository_file
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from hypothesis import given, settings
from hypothesis import strategies as st

SHA = "0123456789abcdef" * 4
GGUF = {"name": "one", "source": "one.gguf"}


def source(document: Any, config: Any = None, **more: Any) -> dict[str, Any]:
    """What the controller's reader makes of a document; ``config`` is the parsed block."""
    if config is not None and isinstance(document, dict):
        document = {**document, "config": str(document.get("config", "parsed elsewhere"))}
    return {"name": "file", "text": "text\n", "document": document, "config_document": config, "problems": [], **more}


def doc(**keys: Any) -> dict[str, Any]:
    return {"apiVersion": "v1alpha1", "models": [GGUF], **keys}


def model(**keys: Any) -> dict[str, Any]:
    return doc(models=[{**GGUF, **keys}])


def config(**keys: Any) -> list[dict[str, Any]]:
    return [{"name": "one", "backend": "llama", "parameters": {"model": "one.gguf"}, **keys}]


def check(document: Any, configs: Any = None, version: str = "0.21.0", platforms: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """(level, path, message and hint) of every finding."""
    _found, findings = aikitfile.validate(source(document, configs), version, platforms)
    return [(finding.level, finding.path, f"{finding.message} | {finding.hint}") for finding in findings]


# ---- what is right


@pytest.mark.parametrize(
    ("document", "configs", "version", "platforms"),
    [
        (doc(), None, "0.21.0", ()),
        (doc(), config(), "v0.21.0", ("linux/amd64", "linux/arm64/v8")),
        (doc(debug=True, runtime="", backends=[], config=None), None, "main", ()),
        (doc(runtime="cuda", backends=["llama-cpp"]), config(gpu_layers=20, flash_attention=True, threads=4), "0.21", ("linux/amd64",)),
        (doc(runtime="applesilicon"), config(), "0.21.0", ("linux/arm64",)),
        (doc(runtime="rocm"), config(), "main", ("linux/amd64",)),
        (doc(runtime="avx2"), None, "0.13.0", ()),
        (doc(runtime="cuda", backends=["exllama2"]), [{"name": "one", "backend": "exllama2", "parameters": {"model": "x"}}], "0.20.3", ()),
        (doc(loadToMemory=["one"]), config(), "main", ()),
        (doc(runtime="cuda", backends=["vllm"], models=[{"name": "q", "source": "huggingface://ns/repo"}]), None, "0.21.0", ()),
        (doc(models=[{"name": "a/b", "source": "https://example/x/m.gguf?download=true", "sha256": SHA}]), None, "0.21.0", ()),
        (
            doc(models=[{"name": "o", "source": "oci://registry.ollama.ai/library/llama3.2:1b"}]),
            [{"name": "o", "parameters": {"model": "llama3.2"}}],
            "0.21.0",
            (),
        ),
        (doc(models=[{"name": "g", "source": "models/*.gguf"}]), [{"name": "g", "parameters": {"model": "any.gguf"}}], "0.21.0", ()),
        (doc(), config(main_gpu=0, tensor_split="3,1", lora_scales=[1], parameters={"model": "one.gguf", "temperature": "1e-3"}), "0.21.0", ()),
        (doc(), [*config(), {"name": "two", "alias": "one"}], "0.21.0", ()),
    ],
)
def test_right(document: Any, configs: Any, version: str, platforms: tuple[str, ...]) -> None:
    assert check(document, configs, version, platforms) == []


# ---- what is wrong: (document, parsed config, version, platforms) → (level, path, a part of message or hint)

ROWS: list[tuple[Any, Any, str, tuple[str, ...], str, str, str]] = []


def row(level: str, path: str, part: str, document: Any, configs: Any = None, version: str = "0.21.0", platforms: tuple[str, ...] = ()) -> None:
    ROWS.append((document, configs, version, platforms, level, path, part))


# the document
row("error", "", "is empty", None)
row("error", "", "a mapping, this is a list", [])
row("error", "", "this is 'text'", "text")
row("error", "baseModel", "fine-tune file", doc(baseModel="x"))
row("error", "datasets", "fine-tune file", doc(datasets=[]))
row("error", "apiVersion", "apiVersion is missing", {"models": [GGUF]})
row("error", "apiVersion", "'v1' is not supported", doc(apiVersion="v1"))
row("error", "runtimes", "did you mean runtime?", doc(runtimes="cuda"))
row("error", "Models", "did you mean models?", doc(Models=[]))
row("error", "context_size", "write it inside config", doc(context_size=1))
row("error", "name", "image's name is given when it is built", doc(name="x"))
row("error", "zzz", "known keys: apiVersion", doc(zzz=1))
row("error", "debug", "must be true or false, found 'yes'", doc(debug="yes"))
row("error", "runtime", "must be text, found the number 1", doc(runtime=1))
row("error", "backends", "write a list with one entry: [vllm]", doc(backends="vllm"))
row("error", "models", "must be a list, found a mapping", doc(models={}))
row("error", "config", "write config: |", doc(config=[]))
row("error", "config", "must be text, found the number 7", doc(config=7))
# runtime
row("error", "runtime", "write cuda", doc(runtime="nvidia"))
row("error", "runtime", "leave runtime out for the CPU", doc(runtime="cpu"))
row("error", "runtime", "did you mean applesilicon?", doc(runtime="applesilicone"))
row("error", "runtime", "the last one was v0.13.0", doc(runtime="avx512"))
row("error", "runtime", "AIKit v0.21.0 does not have runtime rocm | it comes with main", doc(runtime="rocm"))
row("error", "runtime", "it comes with v0.15.0", doc(runtime="applesilicon"), None, "0.14.0")
# backends
row("error", "backends[0]", "llama is right only in config", doc(backends=["llama"]))
row("error", "backends[0]", "did you mean diffusers?", doc(backends=["difusers"], runtime="cuda"))
row("error", "backends[0]", "llama-cpp, diffusers or vllm", doc(backends=["torch"]))
row("error", "backends[0]", "must be text", doc(backends=[1]))
row("error", "backends", "only one backend is supported, found 2", doc(backends=["llama-cpp", "vllm"], runtime="cuda"))
row("error", "backends[0]", "the last one that had it is v0.20.3", doc(backends=["exllama2"], runtime="cuda"))
row("error", "backends[0]", "the last one that had it is v0.20.3", doc(backends=["exllama2"], runtime="cuda"), None, "main")
row("error", "backends[0]", "it came with v0.4.0", doc(backends=["exllama2"], runtime="cuda"), None, "0.3.0")
row("error", "backends[0]", "the last one that had it is v0.18.2", doc(backends=["mamba"], runtime="cuda"))
row("error", "backends[0]", "the last one that had it is v0.17.0", doc(backends=["stablediffusion"]))
row("error", "backends[0]", "it came with v0.21.0", doc(backends=["vllm"], runtime="cuda"), None, "0.20.0")
row("error", "backends[0]", "leave backends out", doc(backends=["llama-cpp"]), None, "0.18.0")
row("error", "backends[0]", "backend vllm needs runtime cuda", doc(backends=["vllm"]))
row("error", "backends[0]", "it always runs on the GPU", doc(backends=["exllama2"]), None, "0.20.0")
row("error", "backends[0]", "allows only backend llama-cpp, not stablediffusion", doc(backends=["stablediffusion"], runtime="applesilicon"), None, "0.17.0")
row("error", "backends[0]", "backend vllm needs runtime cuda", doc(backends=["vllm"], runtime="rocm"), None, "main")
# platforms and versions
row("error", "platforms", "'linux/riscv64' is no platform", doc(), None, "0.21.0", ("linux/riscv64",))
row("error", "platforms", "write linux/amd64", doc(), None, "0.21.0", ("amd64",))
row("error", "platforms", "does not have platform linux/arm64 | they came with v0.11.0", doc(), None, "0.10.0", ("linux/arm64",))
row("error", "runtime", "applesilicon is for linux/arm64 only", doc(runtime="applesilicon"), None, "0.21.0", ("linux/amd64",))
row("error", "runtime", "rocm is for linux/amd64 only", doc(runtime="rocm"), None, "main", ("linux/arm64",))
row("error", "backends[0]", "backend vllm is not there for linux/arm64", doc(runtime="cuda", backends=["vllm"]), None, "0.21.0", ("linux/arm64",))
row("warning", "runtime", "runs on the CPU only", doc(runtime="cuda"), None, "0.21.0", ("linux/amd64", "linux/arm64"))
row("error", "runtime", "no runner images", doc(runtime="applesilicon", backends=["llama-cpp"], models=[]))
row("error", "backends", "takes no backends", doc(runtime="applesilicon", backends=["llama-cpp"]), None, "0.18.0")
row("error", "models[0].source", "serves GGUF models only", doc(runtime="applesilicon", models=[{"name": "a", "source": "a.safetensors"}]))
row("error", "aikit_version", "'newest' is no AIKit version", doc(), None, "newest")
row("warning", "aikit_version", "checked against main", doc(), None, "0.22.0")
# no models
row("warning", "backends", "builds a runner", doc(models=[], backends=["llama-cpp"]))
row("warning", "backends", "its config is used by no model", doc(models=[], backends=["vllm"], runtime="cuda"), [{"name": "x", "backend": "vllm"}])
row("warning", "models", "the image holds none", doc(models=[]))
row("error", "models", "models is missing", doc(models=[]), None, "0.12.0")
# models
row("error", "models[0]", "a mapping with name and source", doc(models=["x"]))
row("error", "models[0].sha", "did you mean sha256?", model(sha="x"))
row("error", "models[0].name", "name is missing", model(name=None))
row("error", "models[0].name", "must be text", model(name=3.2))
row("error", "models[0].name", "blanks around it", model(name=" one"))
row("error", "models[0].name", "leads out of /models", model(name="../one"))
row("error", "models[0].source", "source is missing", model(source=""))
row("error", "models[1].name", "already the name of models[0]", doc(models=[GGUF, {"name": "one", "source": "two.gguf"}]))
row("error", "models[1].source", "already the file of models[0]", doc(models=[GGUF, {"name": "two", "source": "sub/one.gguf"}]))
row(
    "error",
    "models[0].source",
    "is part 1 of 3, and 1 of the others are missing: big-00003-of-00003.gguf",
    doc(models=[{"name": "a", "source": "big-00001-of-00003.gguf"}, {"name": "b", "source": "big-00002-of-00003.gguf"}]),
)
row("error", "models[0].sha256", "64 digits", model(source="https://example/one.gguf", sha256="abc"))
row("error", "models[0].sha256", f"write {SHA}", model(source="https://example/one.gguf", sha256=SHA.upper()))
row("error", "models[0].sha256", f"write {SHA}", model(source="https://example/one.gguf", sha256="sha256:" + SHA))
row("warning", "models[0].sha256", "not for a local file", model(sha256=SHA))
row("warning", "models[0].sha256", "not for a huggingface:// source", model(source="huggingface://n/r/one.gguf", sha256=SHA))
row("warning", "models[0].sha256", "not for a oci:// source", model(source="oci://registry.example/one:1", sha256=SHA))
row("warning", "models[0].source", "plain HTTP and has no sha256", model(source="http://example/one.gguf"))
# sources
row("error", "models[0].source", "blanks around it", model(source="one.gguf "))
row("error", "models[0].source", "an absolute path", model(source="/srv/one.gguf"))
row("error", "models[0].source", "starts with ~", model(source="~/one.gguf"))
row("error", "models[0].source", "leads out of the build context", model(source="../one.gguf"))
row("error", "models[0].source", "has a backslash", model(source="models\\one.gguf"))
row("error", "models[0].source", "name the file, or all of its files: models/*", model(source="models/"))
row("warning", "models[0].source", "did you mean https://huggingface.co/", model(source="huggingface.co/n/r/resolve/main/one.gguf"))
row("error", "models[0].source", "path relative to the build context, without a scheme", model(source="file:///srv/one.gguf"))
row("error", "models[0].source", "write huggingface://n/r/f.gguf", model(source="hf://n/r/f.gguf"))
row("error", "models[0].source", "write oci://registry.ollama.ai/library/llama3", model(source="ollama://llama3"))
row("error", "models[0].source", "did you mean https://?", model(source="htps://example/one.gguf"))
row("error", "models[0].source", "or a path relative", model(source="gopher://example/one.gguf"))
row("error", "models[0].source", "is no valid address", model(source="https:///one.gguf"))
row("error", "models[0].source", "is no valid address", model(source="https://[::1/one.gguf"))
row("error", "models[0].source", "names no file", model(source="https://example/models/"))
row("error", "models[0].source", "user name or password", model(source="https://me:secret@example/one.gguf"))
row("error", "models[0].source", "a key: token=***, X-Amz-Signature=***", model(source="https://example/one.gguf?token=SECRET&X-Amz-Signature=deadbeef&x=1"))
row("error", "models[0].source", "a key: token=*** in it", model(source="https://example/one.gguf?x=1&tok%65n=SUPERSECRET"))
row("error", "config[0].context_size", "99999999999999999999", doc(), config(context_size=99999999999999999999))
row("error", "config[0].context_size", "too large", doc(), config(context_size=1 << 31))
row("error", "config[0].parameters.temperature", "a number", doc(), config(parameters={"model": "one.gguf", "temperature": float("nan")}))
row("error", "config[0].parameters.temperature", "a number", doc(), config(parameters={"model": "one.gguf", "temperature": float("inf")}))
row("error", "models[0].source", "write /resolve/", model(source="https://huggingface.co/n/r/blob/main/one.gguf"))
row("error", "models[0].source", "must be huggingface://", model(source="huggingface://n"))
row("error", "models[0].source", "would fetch n/r/a", model(source="huggingface://n/r/a/b/one.gguf"))
row("warning", "models[0].source", "the third of four parts, a, as a branch", model(source="huggingface://n/r/a/one.gguf"))
row("error", "models[0].source", "write huggingface://n/r/v2/one.gguf", model(source="huggingface://n/r@v2/one.gguf"))
row("warning", "models[0].source", "is read by builder direct alone", model(source="huggingface://n/r@v2/a/one.gguf"))
row("error", "models[0].source", "is no path of a file", model(source="huggingface://n/r@v2/a/../one.gguf"))
row("warning", "models[0].source", "takes every file", model(source="huggingface://n/r"))
row("error", "models[0].source", "they came with v0.10.0", model(source="huggingface://n/r/f"), None, "0.9.0")
row("error", "models[0].source", "they came with v0.11.0", model(source="oci://registry.example/one:1"), None, "0.10.0")
row("error", "models[0].source", "must be oci://", model(source="oci://registry.example"))
row("error", "models[0].source", "needs a tag", model(source="oci://registry.ollama.ai/library/llama3.2"))
row("error", "models[0].source", "needs a tag", model(source="oci://registry.ollama.ai/library/llama3.2@sha256:0"))
row("error", "models[0].source", "reads only oci://registry.ollama.ai/library/", model(source="oci://registry.ollama.ai/me/llama3.2:1"))
row("warning", "models[0].source", "it means latest", model(source="oci://registry.example/one"))
# prompt templates
row("error", "models[0].promptTemplates", "must be a list", model(promptTemplates="x"))
row("error", "models[0].promptTemplates[0]", "a mapping with name and template", model(promptTemplates=["x"]))
row("error", "models[0].promptTemplates[0].text", "unknown key text", model(promptTemplates=[{"name": "a", "template": "b", "text": 1}]))
row("warning", "models[0].promptTemplates[0]", "has no template", model(promptTemplates=[{"name": "a"}]))
row("warning", "models[0].promptTemplates[0]", "has no name", model(promptTemplates=[{"template": "a"}]))
row("error", "models[0].promptTemplates[0].template", "must be text", model(promptTemplates=[{"name": "a", "template": {}}]))
row("error", "models[0].promptTemplates[0].name", "is no file name", model(promptTemplates=[{"name": "a/b", "template": "x"}]))
row(
    "error",
    "models[0].promptTemplates[1].name",
    "another template is called a too",
    model(promptTemplates=[{"name": "a", "template": "x"}, {"name": "a", "template": "y"}]),
)
row("warning", "models[0].promptTemplates[0]", "no model of config uses template a", model(promptTemplates=[{"name": "a", "template": "x"}]), config())
# config
row("error", "config", "must hold a list of models, found a mapping", doc(), {"name": "one"})
row("error", "config[0]", "a model's settings are a mapping", doc(), ["x"])
row("error", "config[0].name", "name is missing", doc(), config(name=None))
row("error", "config[0].name", "must be text, found the number 3", doc(), config(name=3))
row("error", "config[0].name", "blanks around it", doc(), config(name="a "))
row("error", "config[1].name", "already the name of config[0]", doc(), config() * 2)
row("warning", "config[0].contextsize", "did you mean context_size?", doc(), config(contextsize=1))
row("warning", "config[0].temperature", "belongs under parameters", doc(), config(temperature=1))
row("warning", "config[0].use_tokenizer_template", "belongs under template", doc(), config(use_tokenizer_template=True))
row("warning", "config[0].parameters.context_size", "belongs to the model itself", doc(), config(parameters={"model": "one.gguf", "context_size": 1}))
row("warning", "config[0].template.chatmessage", "did you mean chat_message?", doc(), config(template={"chatmessage": "x"}))
row("error", "config[0].context_size", "must be a whole number, found 'lots'", doc(), config(context_size="lots"))
row("error", "config[0].context_size", "auto is no value of an aikitfile", doc(), config(context_size="auto"))
row("error", "config[0].gpu_layers", "settings: {gpu_layers: auto}", doc(), config(gpu_layers="auto"))
row("error", "config[0].mmap", "must be true or false", doc(), config(mmap=1))
row("error", "config[0].flash_attention", "must be on, off or auto", doc(), config(flash_attention="maybe"))
row("error", "config[0].stopwords", "must be a list of texts", doc(), config(stopwords="x"))
row("error", "config[0].template", "must be a mapping", doc(), config(template="chat"))
row("error", "config[0].parameters.temperature", "must be a number", doc(), config(parameters={"model": "one.gguf", "temperature": "hot"}))
row("error", "config[0].tensor_split", "must be text", doc(), config(tensor_split=[3, 1]))
row("error", "config[0].cache_type_k", "did you mean q8_0?", doc(), config(cache_type_k="q80"))
row("error", "config[0].cache_type_v", "one of f32", doc(), config(cache_type_v="zzz"))
row("error", "config[0].context_size", "-1 is the least", doc(), config(context_size=-2))
row("error", "config[0].threads", "0 is the least", doc(), config(threads=-1))
row("error", "config[0].parameters.model", "names no model file", doc(), config(parameters={}))
row("error", "config[0].parameters.model", "did you mean one.gguf?", doc(), config(parameters={"model": "on.gguf"}))
row("error", "config[0].mmproj", "is no file of models", doc(), config(mmproj="mmproj.gguf"))
row("error", "config[0].draft_model", "files of models: one.gguf", doc(), config(draft_model="zzz"))
row("error", "config[0].lora_adapter", "is no file of models", doc(), config(lora_adapter="l.gguf"))
row("error", "config[0].lora_adapters[1]", "is no file of models", doc(), config(lora_adapters=["one.gguf", "l.gguf"]))
row("warning", "models[1]", "in the image and not served", doc(models=[GGUF, {"name": "two", "source": "two.gguf"}]), config())
row("error", "config[0].template.chat", "is no template: every prompt would be that word", doc(), config(template={"chat": "chatml"}))
row(
    "error",
    "config[0].template.chat",
    "did you mean instruct?",
    model(promptTemplates=[{"name": "instruct", "template": "x"}]),
    config(template={"chat": "instrukt"}),
)
row("error", "config[0].backend", "write backends: [vllm]", doc(), config(backend="vllm"))
row("warning", "config[0].backend", "an AIKit image has no backend whisper", doc(), config(backend="whisper"))
row("warning", "config[0].backend", "the image holds backend vllm, not llama-cpp", doc(backends=["vllm"], runtime="cuda"), config())
# settings that do nothing
row("warning", "config[0].f16", "does nothing", doc(), config(f16=True))
row("warning", "config[0].low_vram", "use no_kv_offloading", doc(), config(low_vram=True))
row("warning", "config[0].gpu_layers", "without runtime the image is for the CPU", doc(), config(gpu_layers=20))
row("warning", "config[0].gpu_layers", "35 is the example", doc(runtime="cuda"), config(gpu_layers=35))
row("warning", "config[0].gpu_layers", "keeps the whole model on the CPU", doc(runtime="cuda"), config(gpu_layers=0))
row(
    "warning",
    "config[0].gpu_layers",
    "exllama2 always runs on the GPU",
    doc(runtime="cuda", backends=["exllama2"]),
    config(backend="exllama2", gpu_layers=1),
    "0.20.0",
)
row("warning", "config[0].f16", "exllama2 always runs on the GPU", doc(runtime="cuda", backends=["exllama2"]), config(backend="exllama2", f16=True), "0.20.0")
# loadToMemory
row("error", "loadToMemory", "set aikit_version to main", doc(loadToMemory=["one"]))
row("error", "loadToMemory", "must be a list", doc(loadToMemory="one"), None, "main")
row("error", "loadToMemory[0]", "must be the name of a model", doc(loadToMemory=[" "]), None, "main")
row("error", "loadToMemory[0]", "must be the name of a model", doc(loadToMemory=[1]), None, "main")
row("error", "loadToMemory[0]", "a comma", doc(loadToMemory=["a,b"]), None, "main")
row("error", "loadToMemory[0]", "a backslash", doc(loadToMemory=["a\\b"]), None, "main")
row("error", "loadToMemory[1]", "there twice", doc(loadToMemory=["a", "a"]), None, "main")
row("error", "loadToMemory[0]", "did you mean one?", doc(loadToMemory=["onee"]), config(), "main")
# text that a shell changes
row("warning", "config", '" at line 1 of the text, character 4', doc(config='a: "b"\n'))
row("warning", "config", "` at line 2 of the text, character 1 and 1 more", doc(config="a\n`b`\n"))
row("warning", "config", "$ at", doc(config="cost: $x\n"))
row("warning", "config", "\\\\ at", doc(config="a: b\\\\c\n"))
row("warning", "models[0].promptTemplates[0].template", "passes this text through a shell", model(promptTemplates=[{"name": "a", "template": "`x`"}]))
row("warning", "config", "reaches LocalAI with its backslash", doc(config='a: \\"b\\"\n'), None, "main")


@pytest.mark.parametrize(("document", "configs", "version", "platforms", "level", "path", "part"), ROWS)
def test_findings(document: Any, configs: Any, version: str, platforms: tuple[str, ...], level: str, path: str, part: str) -> None:
    found = check(document, configs, version, platforms)
    assert [entry for entry in found if entry[:2] == (level, path) and part in entry[2]], found


@pytest.mark.parametrize(
    ("document", "configs", "version", "paths"),
    [
        # one cause, one finding
        (model(source="/srv/one.gguf"), None, "0.21.0", ["models[0].source"]),
        (doc(baseModel="x", datasets=[], models=3), None, "0.21.0", ["baseModel"]),
        (doc(backends=["exllama2"], runtime="cuda"), None, "0.21.0", ["backends[0]"]),
        (doc(), config(f16=False, low_vram=False, gpu_layers=0), "0.21.0", []),
        (doc(runtime="cuda", backends=["diffusers"], models=[GGUF]), [{"name": "d", "backend": "diffusers", "f16": True, "step": 25}], "0.21.0", []),
        # LocalAI before 2.16 read it
        (doc(), config(f16=True), "0.8.0", []),
        (doc(config='a: \\"b\\"\n'), None, "0.21.0", []),
        (doc(config="a: 5$ 100%\n"), None, "0.21.0", []),
        (doc(config='a: "b" $c `d`\n'), None, "main", []),
        (doc(models=[GGUF, {"name": "p", "source": "big-00002-of-00002.gguf"}, {"name": "q", "source": "big-00001-of-00002.gguf"}]), None, "0.21.0", []),
    ],
)
def test_nothing_more(document: Any, configs: Any, version: str, paths: list[str]) -> None:
    assert [path for _level, path, _text in check(document, configs, version)] == paths


def test_all_errors_at_once_in_the_order_of_the_file() -> None:
    given_source = source(
        {"apiVersion": "v2", "models": [{"name": "a", "source": "/x", "sha256": "1"}], "runtime": "gpu"},
        lines={"runtime": 2, "apiVersion": 5, "models[0]": 7, "models[0].source": 9},
    )
    with pytest.raises(AikitError) as caught:
        aikitfile.load(given_source)
    assert str(caught.value).split("\n") == [
        "file: 4 errors:",
        "  file:2: runtime: runtime 'gpu' is not known (write cuda)",
        "  file:5: apiVersion: 'v2' is not supported (the only one is v1alpha1)",
        "  file:7: models[0].sha256: '1' is no SHA-256 digest (64 digits of 0-9 and a-f; this has 1 characters)",
        "  file:9: models[0].source: is an absolute path, which AIKit takes for an address with no scheme (write it relative to the build context)",
    ]
    assert len(caught.value.data["findings"]) == 4


def test_positions_of_hazards_are_those_of_the_file() -> None:
    given_source = source(doc(config='a: 1\nb: "c"\n'), lines={"config": 4}, text_lines={"config": 5})
    _found, findings = aikitfile.validate(given_source)
    assert [(finding.line, '" at line 6, character 4 and 1 more' in finding.message) for finding in findings] == [(6, True)]


def test_lines_of_config() -> None:
    given_source = source(doc(), config(f16=True), lines={"config": 4}, config_lines={"[0]": 5, "[0].f16": 8})
    found, findings = aikitfile.validate(given_source)
    assert [finding.line for finding in findings] == [8]
    assert found is not None
    assert (found.line("config[0].backend"), found.line("config[3]"), found.line("elsewhere")) == (5, 4, 0)


def test_problems_of_the_reader_are_findings() -> None:
    problem = {"level": "error", "path": "a", "line": 3, "message": "twice", "hint": ""}
    found, findings = aikitfile.validate(source(None, problems=[problem]))
    assert found is None
    assert [finding.as_dict() for finding in findings] == [problem]


def test_value() -> None:
    document = doc(
        debug=True,
        runtime="cuda",
        backends=["llama-cpp"],
        loadToMemory=["one"],
        models=[{**GGUF, "promptTemplates": [{"name": "t", "template": "{{.Input}}"}]}],
        config="parsed",
    )
    found, findings = aikitfile.validate(source(document, config(template={"chat": '\\"t\\"'}, stopwords=['\\"[INST]\\"'])), "main")
    assert found is not None
    assert [finding.path for finding in findings] == []
    assert found.models == (Model("one", "one.gguf", None, (aikitfile.PromptTemplate("t", "{{.Input}}"),)),)
    assert found.model_configs[0]["stopwords"] == ["[INST]"]
    assert found.sha256 == "b9e68e1bea3e5b19ca6b2f98b73a54b73daafaa250484902e09982e07a12e733"
    assert aikitfile.normalised(found) == document


def test_normalised_has_every_key() -> None:
    found, _findings = aikitfile.load(source({"apiVersion": "v1alpha1", "models": [{**GGUF, "sha256": SHA, "promptTemplates": []}]}))
    assert aikitfile.normalised(found) == {
        "apiVersion": "v1alpha1",
        "debug": False,
        "runtime": "",
        "backends": [],
        "models": [{**GGUF, "sha256": SHA}],
        "config": "",
    }


@pytest.mark.parametrize(
    ("name", "origin", "file"),
    [
        ("a", "models/a.gguf", "a.gguf"),
        ("a", "https://example/x/a%20b.gguf?download=true#x", "a b.gguf"),
        ("dir/a", "https://example/x/a.gguf", "dir/a.gguf"),
        ("./dir//a", "https://example/x/a.gguf", "dir/a.gguf"),
        ("a", "huggingface://n/r/f.gguf", "f.gguf"),
        ("a", "huggingface://n/r/main/f.gguf", "f.gguf"),
        ("a", "huggingface://n/r@v2/x/y/f.gguf", "f.gguf"),
        ("a", "huggingface://n/r", ""),
        ("a", "oci://registry.ollama.ai/library/llama3.2:1b", "llama3.2"),
        ("a", "oci://registry.example/a:1", ""),
        ("a", "models/*.gguf", ""),
        ("a", "s3://x/y", ""),
        ("a", "https://[::1/a", ""),
    ],
)
def test_image_file(name: str, origin: str, file: str) -> None:
    assert image_file(Model(name, origin)) == file


@pytest.mark.parametrize(
    ("origin", "path", "file"),
    [
        ("huggingface://n/r", "m.gguf", "n/r/m.gguf"),
        ("huggingface://n/r@v2", "sub/m.gguf", "n/r/sub/m.gguf"),
        ("huggingface://n/r:v2", "README.txt", "n/r/README.txt"),
        ("huggingface://n/r", "README.md", None),
        ("huggingface://n/r", "LICENSE", None),
        ("huggingface://n/r", "sub/README.md", "n/r/sub/README.md"),
        ("oci://registry.example/a:1", "README.md", "README.md"),
        ("models/*.gguf", "", ""),
    ],
)
def test_files_of_a_repository(origin: str, path: str, file: Optional[str]) -> None:
    assert repository_file(Model("a", origin), path) == file


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.21.0", (0, 21, 0)),
        ("v0.21.0", (0, 21, 0)),
        ("0.9", (0, 9, 0)),
        ("main", data_aikit.MAIN),
        ("", None),
        ("1", None),
        ("1.2.3.4", None),
        ("1.x", None),
        ("vv1.2", None),
        ("٣.١", None),
    ],
)
def test_parse_version(text: str, version: Optional[data_aikit.Version]) -> None:
    assert data_aikit.parse_version(text) == version


def test_versions_compare_as_numbers() -> None:
    versions = [version for version, _date, _localai in data_aikit.RELEASES]
    assert versions == sorted(versions)
    assert data_aikit.BACKENDS["diffusers"].holds((0, 13, 0))
    assert not data_aikit.BACKENDS["diffusers"].holds((0, 9, 0))


@pytest.mark.parametrize(
    ("word", "known", "suggestion"),
    [
        ("Context-Size", ["context_size", "x"], "context_size"),
        ("contxt_size", ["context_size"], "context_size"),
        ("sha", ["sha256", "source"], "sha256"),
        ("zzz", ["context_size"], None),
        ("", ["a"], None),
        ("x", ["", "y"], None),
    ],
)
def test_suggest(word: str, known: list[str], suggestion: Optional[str]) -> None:
    assert localai.suggest(word, known) == suggestion


# ---- whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*aikitfile.KEYS, *aikitfile.MODEL_KEYS, *aikitfile.TEMPLATE_KEYS, "x"])
WORDS = st.sampled_from(
    [
        "v1alpha1",
        "cuda",
        "llama-cpp",
        "exllama2",
        "https://",
        "huggingface://a",
        "oci://registry.ollama.ai",
        "oci://",
        "/",
        "*",
        "a:b",
        "-00001-of-00009.gguf",
        "",
        "auto",
    ]
)
NEAR = st.recursive(JSON | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20)
SETTINGS = st.lists(st.dictionaries(st.sampled_from([*localai.MODEL_KEYS, "zz"]), NEAR | st.integers(-2, 40), max_size=8) | JSON, max_size=3)
VERSIONS = st.sampled_from(["0.1.0", "0.13.0", "0.18.0", "0.20.3", "0.21.0", "1.0.0", "main", "x"])


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(KEYS, NEAR, max_size=7) | JSON, SETTINGS | JSON, VERSIONS, st.lists(st.sampled_from(["linux/arm64", "linux/amd64", "x"]), max_size=2))
def test_never_raises(document: Any, configs: Any, version: str, platforms: list[str]) -> None:
    found, findings = aikitfile.validate({"document": document, "config_document": configs}, version, platforms)
    assert (found is None) == any(finding.level == "error" for finding in findings)
    for finding in findings:
        assert finding.message
        assert finding.line == 0
    if found is not None:
        again, repeated = aikitfile.validate({"document": aikitfile.normalised(found), "config_document": configs}, version, platforms)
        assert again is not None
        assert aikitfile.normalised(again) == aikitfile.normalised(found)
        assert not [finding for finding in repeated if finding.level == "error"]


TWO_FOLDERS = doc(models=[{"name": "a/one", "source": "https://example/a/m.gguf"}, {"name": "b/two", "source": "https://example/b/m.gguf"}])


def test_a_model_in_a_folder_is_named_with_or_without_it() -> None:
    assert check(TWO_FOLDERS, [*config(parameters={"model": "a/m.gguf"}), {"name": "two", "parameters": {"model": "/models/b/m.gguf"}}]) == []
    one = doc(models=[{"name": "dir/one", "source": "https://example/a/m.gguf"}])
    assert check(one, config(parameters={"model": "dir/m.gguf"})) == check(one, config(parameters={"model": "m.gguf"})) == []


def test_a_name_that_two_models_have_is_ambiguous() -> None:
    assert ("error", "config[0].parameters.model", "'m.gguf' is the name of several files: a/m.gguf, b/m.gguf | write a/m.gguf, with its folder") in check(
        TWO_FOLDERS, config(parameters={"model": "m.gguf"})
    )


@pytest.mark.parametrize(
    ("pattern", "errors"), [("other/*.bin", ["models[0].source"]), ("more/*.gguf", []), ("huggingface://ns/repo", [])]
)
def test_parts_beside_a_glob(pattern: str, errors: list[str]) -> None:
    split = doc(models=[{"name": "s", "source": "https://example/m-00001-of-00002.gguf", "sha256": SHA}, {"name": "g", "source": pattern}])
    assert [path for level, path, _text in check(split) if level == "error"] == errors


def test_secrets_of_sources_are_in_no_finding() -> None:
    for text in ("https://u:{}@example/m.gguf", "https://example/m.gguf?sig={}", "example.com/m.gguf?token={}", "s3://x/y?token={}"):
        findings = check(model(source=text.format("SUPERSECRET")))
        assert findings and "SUPERSECRET" not in str(findings)
