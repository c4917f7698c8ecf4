# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which builder: runtime × backend × release × server × platforms."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import builder
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model
from ansible_collections.aikit.fleet.plugins.module_utils._core.builder import Choice, Wish
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_aikit import MAIN
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

V21, V20 = (0, 21, 0), (0, 20, 3)
# release, runtime, backend, models → builder, a word of the reason
CASES = [
    (V21, "", "", True, "direct", "no command"),
    (V21, "", "llama-cpp", True, "direct", "no command"),
    (V21, "cuda", "llama-cpp", True, "buildkit", "libcublas"),
    (V21, "applesilicon", "", True, "direct", "no command"),
    (V21, "cuda", "diffusers", True, "buildkit", "backend diffusers"),
    (V21, "cuda", "vllm", True, "buildkit", "backend vllm"),
    (V21, "", "llama-cpp", False, "buildkit", "runner image"),
    (V21, "cuda", "diffusers", False, "buildkit", "backend diffusers"),
    (V21, "", "", False, "direct", "no command"),
    (MAIN, "", "", True, "direct", "no command"),
    (MAIN, "cuda", "", True, "direct", "no command"),
    (MAIN, "applesilicon", "llama-cpp", True, "direct", "no command"),
    (MAIN, "rocm", "", True, "buildkit", "rocm"),
    (MAIN, "cuda", "vllm", True, "buildkit", "backend vllm"),
    (MAIN, "", "llama-cpp", False, "buildkit", "runner image"),
    (V20, "", "", True, "buildkit", "not what v0.20.3 does"),
    (V20, "cuda", "exllama2", True, "buildkit", "backend exllama2"),
    ((0, 13, 0), "avx", "", True, "buildkit", "not what v0.13.0 does"),
    ((0, 22, 0), "", "", True, "buildkit", "not what v0.22.0 does"),
]
PLATFORMS = [(), ("linux/amd64",), ("linux/arm64",), ("linux/amd64", "linux/arm64")]


@pytest.mark.parametrize("case, platforms", list(itertools.product(CASES, PLATFORMS)))
def test_auto_for_localai(case, platforms):
    version, runtime, backend, models, expected, word = case
    if case[:3] == (V21, "cuda", "llama-cpp") and platforms == ("linux/arm64",):
        # AIKit makes the CPU's image there, and installs nothing
        expected, word = "direct", "no command"
    wish = Wish("localai", version, runtime, backend, models, platforms)
    choice = builder.choose("auto", wish)
    assert choice.builder == expected and word in choice.reason
    assert builder.choose("buildkit", wish) == Choice("buildkit", "builder: buildkit was asked for")
    if expected == "direct":
        assert builder.choose("direct", wish) == choice
    else:
        with pytest.raises(AikitError, match="builder: direct cannot make this image"):
            builder.choose("direct", wish)


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_is_always_assembled(case):
    version, runtime, backend, models, _expected, _word = case
    wish = Wish("llama_cpp", version, runtime, backend, models)
    assert builder.choose("auto", wish) == builder.choose("direct", wish) == Choice("direct", builder.LLAMA_CPP)
    with pytest.raises(AikitError, match="not of llama.cpp's server"):
        builder.choose("buildkit", wish)


def test_options_that_only_buildkit_reads():
    wish = Wish("localai", V21, only_buildkit=("frontend", "secrets"))
    assert builder.choose("auto", wish) == Choice("buildkit", "only BuildKit reads what was given: frontend and secrets")
    with pytest.raises(AikitError, match="frontend and secrets: only builder buildkit reads this"):
        builder.choose("direct", wish)
    with pytest.raises(AikitError, match="it makes images of server localai"):
        builder.choose("auto", Wish("llama_cpp", V21, only_buildkit=("frontend",)))
    # What the image needs comes before what was given
    assert builder.choose("auto", Wish("localai", V21, "cuda", "vllm", only_buildkit=("secrets",))).reason.startswith("backend vllm")


@pytest.mark.parametrize("text, expected", [("0.21.0", V21), ("v0.20.3", V20), ("main", MAIN), ("0.22.0", (0, 22, 0)), ("nonsense", V21)])
def test_release(text, expected):
    assert builder.release(text) == expected


def test_decide_reads_the_aikitfile_and_the_options():
    aikitfile = Aikitfile(runtime="cuda", backends=("vllm",), models=(Model("a", "https://a.example/b"),))
    assert builder.decide("localai", "auto", aikitfile, "0.21.0", [], {}).reason.startswith("backend vllm")
    plain = Aikitfile(models=aikitfile.models)
    assert builder.decide("localai", "auto", plain, "main", [], {"frontend": None, "build_args": {}}).builder == "direct"
    assert builder.decide("localai", "auto", plain, "main", [], {"build_args": {"a": "b"}}).reason.endswith("given: build_args")
