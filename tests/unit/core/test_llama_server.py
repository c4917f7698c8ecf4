# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From LocalAI's settings to llama-server's, against the options of a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import aikitfile, base, llama_server, localai
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model, PromptTemplate
from ansible_collections.aikit.fleet.plugins.module_utils._core.llama_server import FLAGS, ServerSettings
from hypothesis import given, settings
from hypothesis import strategies as st

HELP = (Path(__file__).resolve().parents[2] / "fixtures" / "llama-server-0.7.0-help.txt").read_text(encoding="utf-8")
OPTIONS, ENVIRONMENT = base.parse_help(HELP)
SERVER = base.Server("/usr/bin/llama-server", "0.7.0", "11669", OPTIONS, ENVIRONMENT, *base.parse_arguments(HELP))
# A release from before load modes, renamed draft options and paired variables
OLD = base.Server(
    "/usr/bin/llama-server",
    "b6000",
    "",
    frozenset(
        """--model -m --alias --host --port --verbosity -lv --ctx-size --gpu-layers --n-gpu-layers -ngl --mlock --no-mmap --no-kv-offload -nkvo --model-draft
        --draft-max --no-warmup --flash-attn --grammar-file --reverse-prompt --embeddings --pooling""".split()
    ),
    {
        "LLAMA_ARG_MODEL": "--model",
        "LLAMA_ARG_ALIAS": "--alias",
        "LLAMA_ARG_HOST": "--host",
        "LLAMA_ARG_PORT": "--port",
        "LLAMA_ARG_CTX_SIZE": "--ctx-size",
        "LLAMA_ARG_N_GPU_LAYERS": "--gpu-layers",
        "LLAMA_ARG_NO_MMAP": "--no-mmap",
        "LLAMA_ARG_MLOCK": "--mlock",
        "LLAMA_ARG_NO_KV_OFFLOAD": "--no-kv-offload",
    },
)
ALWAYS = {"LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_ARG_PORT": "8080", "LLAMA_ARG_LOG_VERBOSITY": "4"}
ONE = {**ALWAYS, "LLAMA_ARG_MODEL": "/models/one.gguf", "LLAMA_ARG_ALIAS": "one", "LLAMA_ARG_CTX_SIZE": "8192"}
FILES = {"one": "/models/one.gguf", "two": "/models/two.gguf", "projector": "/models/mmproj-one.gguf"}


def entry(name: str = "one", file: str = "one.gguf", parameters: Optional[dict[str, Any]] = None, **keys: Any) -> dict[str, Any]:
    return {"name": name, "parameters": {"model": file, **(parameters or {})}, **keys}


def translate(*configs: dict[str, Any], server: base.Server = SERVER, files: Optional[dict[str, str]] = None, **keys: Any) -> ServerSettings:
    return llama_server.translate(Aikitfile(model_configs=configs, **keys), server, FILES if files is None else files)


def found(result: ServerSettings) -> list[tuple[str, str, str]]:
    return [(finding.level, finding.path, f"{finding.message} | {finding.hint}") for finding in result.findings]


# ---- without config


def test_one_model_without_config() -> None:
    result = translate(files={"gemma": "/models/gemma.gguf"})
    assert result == ServerSettings({**ONE, "LLAMA_ARG_MODEL": "/models/gemma.gguf", "LLAMA_ARG_ALIAS": "gemma"})


def test_projector_without_config_goes_with_the_only_model() -> None:
    result = translate(files={"one": "/models/one.gguf", "p": "/models/mmproj-one.gguf"})
    assert result.env == {**ONE, "LLAMA_ARG_MMPROJ": "/models/mmproj-one.gguf"}


def test_only_the_first_part_of_a_split_model_is_served() -> None:
    files = {"a": "/models/m-00001-of-00002.gguf", "b": "/models/m-00002-of-00002.gguf"}
    result = translate(files=files)
    assert (result.env["LLAMA_ARG_MODEL"], result.env["LLAMA_ARG_ALIAS"], result.findings) == (files["a"], "a", ())


def test_several_models_without_config() -> None:
    result = translate(files={"a": "/models/a.gguf", "b": "/models/b.gguf"})
    shared = {"LLAMA_ARG_CTX_SIZE": "8192", "LLAMA_ARG_MODELS_PRESET": "/aikit/presets.ini", "LLAMA_ARG_MODELS_MAX": "2"}
    assert result.env == {**ALWAYS, **shared}
    assert result.files == {
        "/aikit/presets.ini": "version = 1\n\n[a]\nmodel = /models/a.gguf\nload-on-startup = true\n\n[b]\nmodel = /models/b.gguf\nload-on-startup = true\n"
    }


def test_no_model() -> None:
    assert found(translate(files={})) == [("error", "models", "there is no model to serve | list one under models")]


def test_a_file_that_is_no_gguf_without_config() -> None:
    assert found(translate(files={"a": "/models/a.safetensors"}))[0][0] == "warning"


# ---- one setting each: (settings, parameters) → variables, arguments

E = "LLAMA_ARG_"


@pytest.mark.parametrize(
    ("keys", "parameters", "env", "args"),
    [
        ({}, {}, {}, ()),
        ({"backend": "llama", "description": "x", "debug": True, "f16": True, "low_vram": True, "cuda": True, "known_usecases": ["chat"]}, {}, {}, ()),
        ({"context_size": 4096}, {}, {"CTX_SIZE": "4096"}, ()),
        ({"context_size": 0}, {}, {"CTX_SIZE": "8192"}, ()),
        ({"context_size": -1}, {}, {"CTX_SIZE": "0"}, ()),
        ({"gpu_layers": 20}, {}, {"N_GPU_LAYERS": "20"}, ()),
        ({"gpu_layers": 0}, {}, {"N_GPU_LAYERS": "0"}, ()),
        ({"gpu_layers": -1}, {}, {}, ()),
        ({"threads": 4}, {}, {"THREADS": "4"}, ()),
        ({"threads": 0}, {}, {}, ()),
        ({}, {"batch": 256}, {"BATCH": "256", "UBATCH": "256"}, ()),
        ({"options": ["n_ubatch:64"]}, {"batch": 256}, {"BATCH": "256", "UBATCH": "64"}, ()),
        ({"mmap": True}, {}, {"LOAD_MODE": "mmap"}, ()),
        ({"mmap": False}, {}, {"LOAD_MODE": "none"}, ()),
        ({"mmlock": True}, {}, {"LOAD_MODE": "mmap+mlock"}, ()),
        ({"mmlock": True, "mmap": False}, {}, {"LOAD_MODE": "mlock"}, ()),
        ({"mmlock": False}, {}, {}, ()),
        ({"mmap": True, "options": ["direct_io:true"]}, {}, {"LOAD_MODE": "dio"}, ()),
        ({"options": ["direct_io:false"]}, {}, {}, ()),
        ({"flash_attention": True}, {}, {"FLASH_ATTN": "on"}, ()),
        ({"flash_attention": "disabled"}, {}, {"FLASH_ATTN": "off"}, ()),
        ({"flash_attention": "auto"}, {}, {"FLASH_ATTN": "auto"}, ()),
        ({"cache_type_k": "q8_0", "cache_type_v": "q4_0"}, {}, {"CACHE_TYPE_K": "q8_0", "CACHE_TYPE_V": "q4_0"}, ()),
        ({"no_kv_offloading": True}, {}, {"KV_OFFLOAD": "0"}, ()),
        ({"no_kv_offloading": False}, {}, {}, ()),
        ({"tensor_split": "3/1"}, {}, {"TENSOR_SPLIT": "3,1"}, ()),
        ({"main_gpu": 1}, {}, {"MAIN_GPU": "1"}, ()),
        ({"numa": True}, {}, {"NUMA": "distribute"}, ()),
        ({"mmproj": "mmproj-one.gguf"}, {}, {"MMPROJ": "/models/mmproj-one.gguf"}, ()),
        ({"lora_adapter": "two.gguf"}, {}, {}, ("--lora", "/models/two.gguf")),
        ({"lora_adapter": "two.gguf", "lora_scale": 0.5}, {}, {}, ("--lora-scaled", "/models/two.gguf:0.5")),
        ({"lora_adapters": ["two.gguf", "/models/one.gguf"], "lora_scales": [0.5]}, {}, {}, ("--lora-scaled", "/models/two.gguf:0.5,/models/one.gguf:1")),
        (
            {"draft_model": "two.gguf", "n_draft": 4},
            {},
            {"SPEC_DRAFT_MODEL": "/models/two.gguf", "SPEC_TYPE": "draft-simple", "SPEC_DRAFT_N_MAX": "4"},
            (),
        ),
        (
            {"draft_model": "two.gguf", "options": ["spec_type:eagle3,ngram_mod"]},
            {},
            {"SPEC_DRAFT_MODEL": "/models/two.gguf", "SPEC_TYPE": "draft-eagle3,ngram-mod"},
            (),
        ),
        ({"reranking": True}, {}, {"RERANKING": "1", "BATCH": "8192", "UBATCH": "8192"}, ()),
        (
            {"rope_scaling": "yarn", "yarn_ext_factor": 1.5},
            {"rope_freq_base": 10000.0},
            {"ROPE_SCALING_TYPE": "yarn", "YARN_EXT_FACTOR": "1.5", "ROPE_FREQ_BASE": "10000"},
            (),
        ),
        ({}, {"temperature": 0, "top_k": 0, "top_p": 0.9, "min_p": 0.1}, {"TEMPERATURE": "0", "TOP_K": "0", "TOP_P": "0.9", "MIN_P": "0.1"}, ()),
        ({}, {"seed": 7, "typical_p": 0.5}, {}, ("--typical-p", "0.5", "--seed", "7")),
        ({}, {"max_tokens": 64, "repeat_penalty": 1.1, "ignore_eos": True}, {"N_PREDICT": "64", "REPEAT_PENALTY": "1.1"}, ("--ignore-eos",)),
        ({}, {"max_tokens": 0, "repeat_penalty": 0, "frequency_penalty": 0.0}, {}, ()),
        ({"mirostat": 2, "mirostat_tau": 5.0}, {}, {}, ("--mirostat", "2", "--mirostat-ent", "5")),
        ({"stopwords": ["###", "END", "###", ""]}, {}, {}, ("--reverse-prompt", "###", "--reverse-prompt", "END")),
        ({"overrides": ["a=int:1", "b=bool:true"]}, {}, {}, ("--override-kv", "a=int:1,b=bool:true")),
        ({"chat_template_kwargs": {"b": False, "a": 1}}, {}, {"CHAT_TEMPLATE_KWARGS": '{"a": 1, "b": false}'}, ()),
        ({"reasoning_effort": "low"}, {}, {"REASONING_EFFORT": "low"}, ()),
        ({"template": {"use_tokenizer_template": True, "chat": "{{.Input}}"}}, {}, {}, ()),
        ({"template": {"completion": "{{ .Input }}\n"}}, {}, {}, ()),
        # options
        ({"options": ["parallel:2"]}, {}, {"N_PARALLEL": "2", "KV_UNIFIED": "1"}, ()),
        ({"options": ["parallel:2", "kv_unified:false"]}, {}, {"N_PARALLEL": "2", "KV_UNIFIED": "0"}, ()),
        ({"options": ["fit:off", "fit_target:512/256"]}, {}, {"FIT": "off", "FIT_TARGET": "512,256"}, ()),
        ({"options": ["fit"]}, {}, {"FIT": "on"}, ()),
        ({"options": ["n_cpu_moe:10", "cpu_moe"]}, {}, {"N_CPU_MOE": "10", "CPU_MOE": "1"}, ()),
        ({"options": ["cpu_moe:off"]}, {}, {}, ()),
        ({"options": ["no_op_offload:true"]}, {}, {}, ("--no-op-offload",)),
        ({"options": ["no_op_offload:false"]}, {}, {}, ("--op-offload",)),
        ({"options": ["warmup:no"]}, {}, {}, ("--no-warmup",)),
        ({"options": ["cont_batching:0"]}, {}, {"CONT_BATCHING": "0"}, ()),
        ({"options": ["verbosity:5"]}, {}, {"LOG_VERBOSITY": "5"}, ()),
        ({"options": ["-lv:5"]}, {}, {"LOG_VERBOSITY": "5"}, ()),
        ({"options": ["-ngl:12"], "gpu_layers": 99}, {}, {"N_GPU_LAYERS": "12"}, ()),
        ({"options": ["-nkvo"]}, {}, {"KV_OFFLOAD": "0"}, ()),
        ({"options": ["--kv-offload:off"]}, {}, {"KV_OFFLOAD": "0"}, ()),
        ({"options": ["--no-mmproj"]}, {}, {}, ("--no-mmproj",)),
        ({"options": ["--rpc:host:50052"]}, {}, {"RPC": "host:50052"}, ()),
        ({"options": ["--sleep-idle-seconds:60"]}, {}, {}, ("--sleep-idle-seconds", "60")),
        ({"options": ["--spec-draft-sampling:greedy"]}, {}, {}, ("--spec-draft-sampling", "greedy")),
    ],
)
def test_settings(keys: dict[str, Any], parameters: dict[str, Any], env: dict[str, str], args: tuple[str, ...]) -> None:
    result = translate(entry(parameters=parameters, **keys))
    assert result.env == {**ONE, **{E + name: value for name, value in env.items()}}
    assert result.args == args
    assert result.findings == ()


def test_embeddings_take_the_mean_of_a_model_that_names_nothing() -> None:
    configs = entry(embeddings=True, context_size=512)
    expected = {**ONE, "LLAMA_ARG_EMBEDDINGS": "1", "LLAMA_ARG_CTX_SIZE": "512", "LLAMA_ARG_BATCH": "512", "LLAMA_ARG_UBATCH": "512"}
    parsed = Aikitfile(model_configs=(configs,))
    unknown = llama_server.translate(parsed, SERVER, FILES)
    assert unknown.env == {**expected, "LLAMA_ARG_POOLING": "mean"}
    assert found(unknown)[0][:2] == ("warning", "config[0].embeddings")
    none = llama_server.translate(parsed, SERVER, FILES, {"one": {"general.architecture": "llama"}})
    assert (none.env, none.findings) == ({**expected, "LLAMA_ARG_POOLING": "mean"}, ())
    own = llama_server.translate(parsed, SERVER, FILES, {"one": {"bert.pooling_type": 2}})
    assert (own.env, own.findings) == (expected, ())


def test_pooling_that_is_named_counts() -> None:
    result = translate(entry(embeddings=True, options=["pooling:cls"]))
    assert (result.env["LLAMA_ARG_POOLING"], result.findings) == ("cls", ())


def test_grammar_is_a_file() -> None:
    result = translate(entry(name="a b/c", grammar='root ::= "a"'))
    assert result.args == ("--grammar-file", "/aikit/grammars/a-b-c.gbnf")
    assert result.files == {"/aikit/grammars/a-b-c.gbnf": 'root ::= "a"'}


JINJA = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.mark.parametrize("reference", ["mine", JINJA])
@pytest.mark.parametrize("key", ["chat", "chat_message"])
def test_jinja_template_is_a_file(key: str, reference: str) -> None:
    models = (Model("one", "one.gguf", None, (PromptTemplate("mine", JINJA),)),)
    result = translate(entry(template={key: reference}), models=models)
    assert result.env == {**ONE, "LLAMA_ARG_CHAT_TEMPLATE_FILE": "/aikit/templates/one.jinja", "LLAMA_ARG_JINJA": "1"}
    assert (dict(result.files), result.findings) == ({"/aikit/templates/one.jinja": JINJA}, ())


def test_go_templates_are_one_warning() -> None:
    models = (Model("one", "one.gguf", None, (PromptTemplate("go", "[INST]{{.Input}}[/INST]"),)),)
    result = translate(entry(template={"chat": "go", "chat_message": "{{ if .Content }}x{{ end }}", "completion": "{{.Input}}"}), models=models)
    assert (result.env, result.files) == (ONE, {})
    assert [(level, path, text.split(":")[0]) for level, path, text in found(result)] == [("warning", "config[0].template", "chat, chat_message")]


# ---- what cannot be translated


@pytest.mark.parametrize(
    ("keys", "level", "path", "part"),
    [
        ({"parameters": {"model": "on.gguf"}}, "error", "parameters.model", "did you mean one.gguf?"),
        ({"parameters": {}}, "error", "parameters.model", "names no model file"),
        ({"mmproj": "x"}, "error", "mmproj", "is no file of the image"),
        ({"lora_adapters": ["one.gguf", "x"]}, "error", "lora_adapters[1]", "is no file of the image"),
        ({"backend": "vllm"}, "error", "backend", "build with server: localai"),
        ({"name": "a,b"}, "error", "name", "has a comma"),
        ({"alias": "nobody"}, "error", "alias", "there is no model nobody"),
        ({"system_prompt": "x"}, "warning", "system_prompt", "every client sends its own"),
        ({"function": {"a": 1}}, "warning", "function", "tool format of the model's own chat template"),
        ({"roles": {"user": "x"}}, "warning", "roles", "is for Go templates"),
        ({"download_files": [{"uri": "x"}]}, "warning", "download_files", "list the files under models"),
        ({"cutstrings": ["x"]}, "warning", "cutstrings", "has no counterpart in llama-server"),
        ({"gpu_memory_utilization": 0.5}, "warning", "gpu_memory_utilization", "has no counterpart"),
        ({"parameters": {"model": "one.gguf", "tfz": 1.0}}, "warning", "parameters.tfz", "send it with the request"),
        ({"disabled": True}, "warning", "", "is disabled"),
        ({"options": ["paralel:2"]}, "warning", "options[0]", "did you mean parallel?"),
        ({"options": ["parallel"]}, "error", "options[0]", "parallel needs a value"),
        ({"options": ["warmup:maybe"]}, "error", "options[0]", "is neither on nor off"),
        ({"options": ["verbosity:3"]}, "warning", "options[0]", "log level 3 hides"),
        ({"options": ["verbosity:many"]}, "error", "options[0]", "is no log level"),
        ({"options": ["x:1", "--no-such:1"]}, "error", "options[1]", "llama-server 0.7.0 (build 11669) has no option --no-such"),
        ({"options": ["--draft-max-tokens:1"]}, "error", "options[0]", "has no option"),
        ({"options": ["-c"]}, "error", "options[0]", "-c needs a value"),
        ({"options": ["--port:9000"]}, "error", "options[0]", "is set by the image itself"),
        ({"options": ["--help"]}, "error", "options[0]", "does not let the server serve"),
        ({"options": ["--mlock"]}, "error", "options[0]", "has no option --mlock"),
        ({"options": ["--offline:x"]}, "error", "options[0]", "--offline takes no value"),
        ({"options": ["--sleep-idle-seconds"]}, "error", "options[0]", "--sleep-idle-seconds needs a value"),
        ({"options": ["--kv-offload:maybe"]}, "error", "options[0]", "is neither on nor off"),
        ({"options": ["parallel:x"]}, "error", "options[0]", "'x' is no number, as --parallel needs one"),
        ({"options": ["-c:x"]}, "error", "options[0]", "'x' is no number"),
        ({"options": ["-c:99999999999999999999"]}, "error", "options[0]", "is too large a number"),
        ({"options": ["-ngl:most"]}, "error", "options[0]", "is no number"),
        ({"parameters": {"model": "one.gguf", "top_k": 1 << 40}}, "error", "parameters.top_k", "is too large a number"),
        ({"options": ["--rpc=a:1"]}, "error", "options[0]", "write '--rpc:VALUE'"),
    ],
)
def test_remarks(keys: dict[str, Any], level: str, path: str, part: str) -> None:
    where = f"config[0].{path}" if path else "config[0]"
    result = found(translate({**entry(), **keys}))
    assert [item for item in result if item[:2] == (level, where) and part in item[2]], result


@pytest.mark.parametrize("flag", ["-ngl:all", "--gpu-layers:auto", "-ngl:12"])
def test_gpu_layers_has_words_too(flag: str) -> None:
    assert translate(entry(options=[flag])).findings == ()


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("--api-key:SECRET", "set api_key at the service"),
        ("--api_key:SECRET", "set api_key at the service"),
        ("--api-key=SECRET", "set api_key at the service"),
        ("--api-key SECRET", "set api_key at the service"),
        ("--api-key-file:/SECRET", "set api_key at the service"),
        ("-hft:SECRET", "inference_model_token"),
        ("--hf-token:SECRET", "inference_model_token"),
        *((f"{flag}:SECRET", "list the model under models") for flag in ("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-hfd", "-hfrd", "--hf-repo-draft")),
        *((f"{flag}:SECRET", "list the model under models") for flag in ("--spec-draft-hf", "-mu", "--model-url", "-mmu", "--mmproj-url")),
        *((f"{flag}:SECRET", "list the model under models") for flag in ("-dr", "--docker-repo")),
        *((flag, "list the model under models") for flag in ("--fim-qwen-7b-spec", "--gpt-oss-20b-default", "--embd-gemma-default")),
        *((f"{flag}:SECRET", "how the server answers") for flag in ("--api-prefix", "--ssl-key-file", "--ssl-cert-file", "--models-dir", "--models-autoload")),
        *((f"{flag}:SECRET", "opens more than the models") for flag in ("--path", "--media-path", "--tools", "--tools-runtime", "--mcp-servers-json")),
        *((flag, "opens more than the models") for flag in ("--agent", "-ag", "--ui-mcp-proxy", "--webui-mcp-proxy")),
        *((flag, "show its evidence") for flag in ("--log-file:/dev/null", "--log-disable", "-h", "--usage", "-cl", "--version")),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_flags_that_no_image_may_have(option: str, part: str, known: bool) -> None:
    told_by_the_help_alone = option.startswith(("-ag", "--webui", "--hf-repo-draft"))
    server = SERVER if known or told_by_the_help_alone else replace(SERVER, aliases={}, arguments={})
    result = translate(entry(options=[option]), server=server)
    assert [item[:2] for item in found(result)] == [("error", "config[0].options[0]")] and part in found(result)[0][2]
    assert "SECRET" not in str(result)


def test_remarks_have_the_line_of_the_file() -> None:
    parsed = Aikitfile(model_configs=(entry(system_prompt="x"),), lines={"config[0].system_prompt": 17})
    assert [finding.line for finding in llama_server.translate(parsed, SERVER, FILES).findings] == [17]


def test_files_of_one_name_in_two_folders() -> None:
    files = {"a/one": "/models/a/m.gguf", "b/two": "/models/b/m.gguf"}
    assert translate(entry(file="b/m.gguf"), files=files).env["LLAMA_ARG_MODEL"] == "/models/b/m.gguf"
    assert translate(entry(file="/models/a/m.gguf"), files=files).env["LLAMA_ARG_MODEL"] == "/models/a/m.gguf"
    assert found(translate(entry(file="m.gguf"), files=files)) == [
        ("error", "config[0].parameters.model", "'m.gguf' is the name of several files: a/m.gguf, b/m.gguf | write a/m.gguf, with its folder")
    ]
    plain = translate(files=files).files["/aikit/presets.ini"]
    assert "model = /models/a/m.gguf" in plain and "model = /models/b/m.gguf" in plain


def test_part_of_a_split_model_that_is_not_the_first() -> None:
    files = {"a": "/models/m-00001-of-00002.gguf", "b": "/models/m-00002-of-00002.gguf"}
    assert found(translate(entry(file="m-00002-of-00002.gguf"), files=files))[0][2].startswith("is part 2 of 2")


def test_settings_without_effect_change_nothing() -> None:
    plain = translate(entry())
    assert replace(translate(entry(f16=True, low_vram=True)), findings=()) == plain


# ---- other servers


def test_older_names() -> None:
    configs = entry(mmap=False, mmlock=True, no_kv_offloading=True, draft_model="two.gguf", n_draft=3, options=["warmup:false"])
    result = translate(configs, server=OLD)
    assert result.findings == ()
    assert result.env == {
        **{key: value for key, value in ONE.items() if key != "LLAMA_ARG_LOG_VERBOSITY"},
        "LLAMA_ARG_NO_MMAP": "1",
        "LLAMA_ARG_MLOCK": "1",
        "LLAMA_ARG_NO_KV_OFFLOAD": "1",
    }
    assert result.args == ("--verbosity", "4", "--draft-max", "3", "--model-draft", "/models/two.gguf", "--no-warmup")


def test_older_switches_that_are_on_anyway() -> None:
    result = translate(entry(mmap=True, options=["warmup:true"]), server=OLD)
    assert (result.args, result.findings) == (("--verbosity", "4"), ())


@pytest.mark.parametrize(
    ("keys", "path", "part"),
    [
        ({"threads": 4}, "config[0].threads", "llama-server b6000 has no option --threads"),
        ({"reranking": True}, "config[0].reranking", "has no option --reranking"),
        ({"options": ["fit:on"]}, "config[0].options[0]", "has no option --fit"),
    ],
)
def test_options_that_a_server_lacks(keys: dict[str, Any], path: str, part: str) -> None:
    result = found(translate(entry(**keys), server=OLD))
    assert [item for item in result if item[:2] == ("error", path) and part in item[2]], result


def test_server_without_a_router() -> None:
    assert "has no option --models-preset" in found(translate(entry(), entry("two", "two.gguf"), server=OLD))[0][2]


def test_server_of_which_nothing_is_known() -> None:
    result = translate(entry(), server=base.Server("/usr/bin/llama-server", "9.9"))
    assert found(result) == [
        ("error", "", "the options of llama-server 9.9 are not known | build the base on a machine of its own architecture, where the server can be asked")
    ]


def test_every_setting_is_an_option_of_the_captured_server() -> None:
    gone = {"mmap", "mlock", "direct_io"}
    lacking = {key for key, flag in FLAGS.items() if not any(name in OPTIONS for name in flag.names)}
    assert lacking == gone
    assert {name for key, flag in FLAGS.items() for name in flag.off if key not in gone} <= OPTIONS
    names = [name for flag in FLAGS.values() for name in (*flag.names, *flag.off)]
    assert len(names) == len(set(names))


def test_every_option_of_localai_has_a_setting() -> None:
    assert set(llama_server._OPTIONS.values()) <= set(FLAGS)
    assert set(llama_server._MODEL_FLAGS) <= set(localai.MODEL_KEYS)
    assert set(llama_server._PARAMETER_FLAGS) <= set(localai.PARAMETER_KEYS)


# ---- several models


def preset(result: ServerSettings) -> str:
    return result.files["/aikit/presets.ini"]


def test_shared_settings_stay_variables() -> None:
    result = translate(entry(threads=4, context_size=512, flash_attention="on"), entry("two", "two.gguf", threads=4, context_size=1024))
    router = {"LLAMA_ARG_MODELS_PRESET": "/aikit/presets.ini", "LLAMA_ARG_MODELS_MAX": "2"}
    assert result.env == {**ALWAYS, "LLAMA_ARG_THREADS": "4", **router}
    assert preset(result) == (
        "version = 1\n\n[one]\nmodel = /models/one.gguf\nctx-size = 512\nflash-attn = on\nload-on-startup = true\n"
        "\n[two]\nmodel = /models/two.gguf\nctx-size = 1024\nload-on-startup = true\n"
    )


def test_only_the_models_of_load_to_memory_are_loaded_at_once() -> None:
    result = translate(entry(), entry("two", "two.gguf"), load_to_memory=("two",))
    assert preset(result).count("load-on-startup") == 1
    assert preset(result).index("load-on-startup") > preset(result).index("[two]")


def test_load_to_memory_of_an_unknown_model() -> None:
    assert found(translate(entry(), entry("two", "two.gguf"), load_to_memory=("x",))) == [("error", "loadToMemory[0]", "there is no model x | ")]


def test_names_that_the_router_would_change_become_aliases() -> None:
    result = translate(entry("a:b"), entry("a-b", "two.gguf"), entry("c", alias="a:b"))
    assert preset(result).startswith("version = 1\n\n[a-b]\nmodel = /models/one.gguf\nalias = a:b,c\n")
    assert "\n[a-b-2]\nmodel = /models/two.gguf\nalias = a-b\n" in preset(result)


def test_switches_and_files_in_a_preset() -> None:
    result = translate(
        entry(no_kv_offloading=True, grammar="root ::= x", options=["cpu_moe:off", "--no-mmproj", "--sleep-idle-seconds:5"]), entry("two", "two.gguf")
    )
    assert "kv-offload = false\ngrammar-file = /aikit/grammars/one.gbnf\nno-mmproj = true\nsleep-idle-seconds = 5\n" in preset(result)
    assert "cpu-moe" not in preset(result)


def test_a_preset_takes_one_stopword() -> None:
    result = translate(entry(stopwords=["a", "b"]), entry("two", "two.gguf"))
    assert "reverse-prompt = a\n" in preset(result)
    assert found(result)[0][:2] == ("warning", "config[0].stopwords")


@pytest.mark.parametrize("word", ["a#b", "a;b", "a\nb", " a"])
def test_values_that_a_preset_cannot_hold(word: str) -> None:
    assert found(translate(entry(stopwords=[word]), entry("two", "two.gguf")))[0][:2] == ("error", "config[0].stopwords")


def test_an_alias_with_one_model() -> None:
    assert translate(entry(), {"name": "short", "alias": "one"}).env["LLAMA_ARG_ALIAS"] == "one,short"


# ---- whatever comes

KINDS = {
    "str": st.text(max_size=6) | st.integers(0, 9),
    "int": st.integers(-1, 99),
    "float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9) | st.just("1e-3"),
    "bool": st.booleans(),
    "switch": st.sampled_from(["on", "off", "auto", True, False]),
    "words": st.lists(st.text(max_size=6), max_size=3),
    "map": st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    "list": st.lists(st.integers() | st.text(max_size=2), max_size=2),
    "any": st.none() | st.integers(),
}
SPECIAL: dict[str, Any] = {
    **{key: st.sampled_from(["one.gguf", ""]) for key in localai.FILE_KEYS},
    **{key: st.sampled_from(localai.CACHE_TYPES) for key in ("cache_type_k", "cache_type_v")},
    "lora_adapters": st.lists(st.just("one.gguf"), max_size=2),
    "threads": st.integers(0, 9),
    "name": st.sampled_from(["one", "a:b", "[x]", "default"]),
    "backend": st.sampled_from(["", "llama", "llama-cpp"]),
    "alias": st.sampled_from(["", "one"]),
    "model": st.just("one.gguf"),
    "options": st.lists(
        st.tuples(st.sampled_from([*llama_server._OPTIONS, "-c", "--mlock", "-nkvo", "--x", ""]), st.sampled_from(["", ":", ":1", ":on", ":x:y"])).map("".join),
        max_size=4,
    ),
    **{key: st.sampled_from(["{{.Input}}", JINJA, ""]) for key in localai.TEMPLATES},
}


@st.composite
def section(draw: Any, keys: Any, *required: str) -> dict[str, Any]:
    chosen = [*required, *draw(st.lists(st.sampled_from(sorted(set(keys) - set(required))), max_size=8, unique=True))]
    return {key: draw(SPECIAL.get(key, KINDS[keys[key]])) for key in chosen}


SPECIAL.update(parameters=section(localai.PARAMETER_KEYS, "model"), template=section(localai.TEMPLATE_KEYS))
ENTRIES = section({key: kind for key, kind in localai.MODEL_KEYS.items() if key != "function"}, "name", "parameters")


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRIES, max_size=3))
def test_valid_settings_never_raise(configs: list[dict[str, Any]]) -> None:
    document = {"apiVersion": "v1alpha1", "models": [{"name": "one", "source": "one.gguf"}], "config": "x"}
    parsed, findings = aikitfile.validate({"document": document, "config_document": configs})
    if parsed is None:
        assert all(finding.path.endswith(".name") for finding in findings if finding.level == "error"), findings
        return
    result = llama_server.translate(parsed, SERVER, {"one": "/models/one.gguf"})
    assert all(isinstance(value, str) and name.startswith("LLAMA_ARG_") for name, value in result.env.items())
    assert all(isinstance(argument, str) for argument in result.args)
    assert {argument for argument in result.args if argument.startswith("--")} <= OPTIONS
