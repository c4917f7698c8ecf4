# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
import subprocess

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import base, data_base, data_llama_server
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from hypothesis import given
from hypothesis import strategies as st

MIRROR = "http://mirror.example/debian"
VERSION = "version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU 16.2.0 for Linux x86_64\n"
PACKAGES = "libc6 2.43-7 amd64\nllama.cpp-tools 1:0.7.0+dfsg-2 amd64\nlibggml0 0.27.0-1 amd64\n"


@pytest.fixture(scope="module")
def help_text(fixtures):
    return (fixtures / "llama-server-0.7.0-help.txt").read_text()


def make(**changes):
    return base.recipe(**{"variant": "cpu", "suite": "sid", "mirror": MIRROR, "architecture": "amd64", **changes})


def captured(help_text, **changes):
    return {"packages": PACKAGES, "version": VERSION, "help": help_text, "backends": "libggml-cpu-haswell.so\nlibggml-cpu-x64.so\n", **changes}


# What the server says about itself


def test_help_of_a_real_server(help_text):
    options, environment = base.parse_help(help_text)
    assert len(options) == 407 and len(environment) == 150
    assert {"-c", "--ctx-size", "-ngl", "--n-gpu-layers", "-nkvo", "--no-kv-offload", "-np", "--models-preset", "-lm", "--alias"} <= options
    # Listed only to say that they are gone, or not at all
    assert not {"--draft", "--draft-max", "--spec-ngram-size-n", "--mmap", "--no-mmap", "--mlock"} & options
    # Metavariables and words of descriptions are no options
    assert all(re.fullmatch(r"-{1,2}[A-Za-z0-9][A-Za-z0-9.-]*", option) for option in options)


@pytest.mark.parametrize(
    ("variable", "option"),
    [
        ("LLAMA_ARG_ALIAS", "--alias"),
        ("LLAMA_ARG_CTX_SIZE", "--ctx-size"),
        ("LLAMA_ARG_N_GPU_LAYERS", "--gpu-layers"),
        ("LLAMA_ARG_KV_OFFLOAD", "--kv-offload"),
        ("LLAMA_ARG_LOG_VERBOSITY", "--verbosity"),
        ("LLAMA_API_KEY", "--api-key"),
        ("LLAMA_ARG_CHAT_TEMPLATE_FILE", "--chat-template-file"),
    ],
)
def test_environment_of_a_real_server(help_text, variable, option):
    assert base.parse_help(help_text)[1][variable] == option


def test_the_table_is_what_the_server_said(help_text):
    options, environment = base.parse_help(help_text)
    known = data_llama_server.VERSIONS["0.7.0"]
    assert set(known["options"]) == options
    assert known["environment"] == environment
    assert (known["aliases"], known["arguments"]) == base.parse_arguments(help_text)
    assert base.parse_version(VERSION) == ("0.7.0", known["build"])


def test_arguments_and_other_names(help_text):
    server = base.server_from_table("0.7.0")
    assert [server.arguments[name] for name in ("-c", "--swa-full", "-hft", "--no-mmproj", "--spec-type", "-otd")] == [
        "N",
        "",
        "TOKEN",
        "",
        "none,draft-simple,draft-eagle3,draft-mtp,draft-dflash,draft-dspark,ngram-simple,ngram-map-k,ngram-map-k4v,ngram-mod,ngram-cache",
        "<tensor name pattern>=<buffer type>,...",
    ]
    assert server.spellings("-hfr") == {"-hf", "-hfr", "--hf-repo"} and server.spellings("--x") == {"--x"}
    assert set(server.arguments) == server.options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VERSION, ("0.7.0", "11669")),
        ("version: 6401 (c252ce67)\nbuilt with cc\n", ("6401", "")),
        ("load_backend: loaded CPU backend\nversion: 0.8.1\n", ("0.8.1", "")),
        ("", ("", "")),
        ("error while loading shared libraries: libggml.so.0", ("", "")),
    ],
)
def test_version(text, expected):
    assert base.parse_version(text) == expected


@pytest.mark.parametrize("mirror", ["user:S3cret@mirror.example/debian", "S3cret@mirror.example/debian", "user:S3cret@mirror.example/debian main"])
def test_a_mirror_with_a_login_is_refused_with_the_place_for_it(mirror):
    with pytest.raises(AikitError) as caught:
        make(mirror=f"https://{mirror}")
    assert "mirror.example/debian" in str(caught.value) and "auth.conf.d" in caught.value.hint and "S3cret" not in str(caught.value)


def test_logins_of_the_host_are_passed_on_and_not_told():
    settings = make().files("/work")["apt.conf"]
    assert 'Dir::Etc::netrc "/etc/apt/auth.conf";' in settings and 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";' in settings
    told = base.failure(make(), "E: Failed to fetch https://user:S3cret@mirror.example/debian/x  401")
    assert "https://***@mirror.example" in str(told) and "S3cret" not in str(told)


@given(st.text())
def test_any_text_is_read(text):
    base.parse_help(text)
    base.parse_arguments(text)
    base.parse_version(text)
    base.parse_packages(text)
    base.parse_simulation(text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["libggml-cpu-haswell.so", "libggml-cpu-x64.so"], ("cpu",)),
        (["/usr/lib/x/ggml/backends0/libggml-vulkan.so", "libggml-cpu-sse42.so"], ("cpu", "vulkan")),
        (["libggml-cpu-armv8.2_1.so", "libggml-cuda.so"], ("cpu", "cuda")),
        (["libggml-base.so", "libggml.so.0", "libllama.so", "README"], ()),
        (["libggml-metal.dylib"], ("metal",)),
    ],
)
def test_backends(names, expected):
    assert base.backends_from_names(names) == expected


# Recipes


def test_command_of_the_plain_recipe():
    work = "/cache/.sid-cpu-amd64.tar.work-1"
    assert make().argv(work, f"{work}/base.tar") == [
        *"setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child".split(),
        *f"mmdebstrap --mode=root --variant=extract --aptopt={work}/apt.conf --skip=check/qemu --format=tar".split(),
        "--include=base-files,llama.cpp-tools",
        "--architectures=amd64",
        *[f"--dpkgopt=path-exclude={pattern}" for pattern in data_base.EXCLUDES],
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f'--extract-hook=sh {work}/hook "$1" {work}',
        "--skip=cleanup/apt",
        "--skip=output/dev",
        "sid",
        f"{work}/base.tar",
        f"deb {MIRROR} sid main",
    ]


def test_a_path_with_spaces_is_quoted_for_the_hook():
    assert """--extract-hook=sh '/a b/hook' "$1" '/a b'""" in make().argv("/a b", "/a b/base.tar")


def test_simulation_downloads_nothing():
    argv = make(variant="vulkan").simulate_argv("/w")
    assert "--simulate" in argv and "/dev/null" in argv and not [word for word in argv if "hook" in word]


def test_cuda_takes_nothing_that_the_host_mounts():
    recipe = make(variant="cuda")
    files = recipe.files("/w")
    assert recipe.source.endswith(" main contrib non-free")
    assert 'Dir::State::status "/w/status";' in files["apt.conf"]
    assert "Provides: libcuda1 (= 9999), libcuda.so.1 (= 9999)\n" in files["status"]
    assert "status" not in make().files("/w")


def test_apt_keeps_the_proxy_of_the_host():
    text = make().files("/w", 'Acquire::http::Proxy "http://proxy.example:3128";\n')["apt.conf"]
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in text


@pytest.mark.parametrize("native", [True, False])
def test_hook_is_a_shell_script(native):
    script = base.hook_script(native)
    subprocess.run(["sh", "-n"], input=script.encode(), check=True)
    assert ("--list-devices" in script) == native
    assert "65532:65532" in script and "{" not in re.sub(r"\$\{\w+\}|serve\(\) \{", "", script)


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "vulkan"},
        {"suite": "forky"},
        {"architecture": "arm64"},
        {"extra_packages": ["ca-certificates"]},
        {"source_date_epoch": 1},
    ],
)
def test_inputs_change_the_key(changes):
    assert make(**changes).key != make().key
    assert make(**changes).file_name != make().file_name


@pytest.mark.parametrize("changes", [{"mirror": "https://other.example/debian/"}, {"keyring": "/k.gpg"}, {"extra_packages": ["llama.cpp-tools"]}])
def test_where_packages_come_from_does_not(changes):
    assert make(**changes).key == make().key
    assert make(**changes).file_name == make().file_name == "sid-cpu-amd64.tar"


def test_keyring_and_slashes():
    assert make(mirror=f"{MIRROR}//", keyring="/k.gpg").source == f"deb [signed-by=/k.gpg] {MIRROR} sid main"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "metal"}, "variant: there is no base 'metal'. Choose one of: cpu, vulkan, cuda."),
        ({"architecture": "s390x"}, "architecture: 's390x' is not supported. Choose one of: amd64, arm64."),
        ({"suite": "sid main"}, "suite: 'sid main' is no name of a Debian suite."),
        ({"suite": "-o"}, "suite: '-o' is no name"),
        ({"mirror": "[trusted=yes] http://x"}, "mirror: '[trusted=yes] http://x' is no URL."),
        ({"keyring": "/a b"}, "keyring: '/a b' holds a character"),
        ({"extra_packages": ["a=1"]}, "extra_packages: 'a=1' is no package name."),
    ],
)
def test_wishes_that_cannot_be(changes, message):
    with pytest.raises(AikitError) as caught:
        make(**changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64")])
def test_architecture_of_this_machine(machine, expected):
    assert base.oci_architecture(machine) == base.host_architecture(machine) == expected


def test_architecture_nobody_made_a_base_for():
    with pytest.raises(AikitError, match="'riscv64', which no base is made for"):
        base.oci_architecture("riscv64")
    assert base.host_architecture("riscv64") == "other"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://b.example/debian/\nhttp://a.example/debian/\n", "http://a.example/debian"),
        ("cdrom:[Debian]/\nhttp://a.example/debian\n", "http://a.example/debian"),
        ("cdrom:[Debian]/\n", ""),
        ("", ""),
    ],
)
def test_mirror_of_the_host(text, expected):
    assert base.parse_mirrors(text) == expected


def test_simulated_packages():
    text = """Inst gcc-16-base (16.2.0-4 Debian:unstable [amd64])
Inst libgcc-s1 (16.2.0-4 Debian:unstable [amd64]) []
Inst libc6 [2.42-1] (2.43-7 Debian:unstable [amd64])
Conf libc6 (2.43-7 Debian:unstable [amd64])
Inst debconf (1.5.92 Debian:unstable, Debian:testing [all])
"""
    assert [(p["name"], p["version"], p["architecture"]) for p in base.parse_simulation(text)] == [
        ("debconf", "1.5.92", "all"),
        ("gcc-16-base", "16.2.0-4", "amd64"),
        ("libc6", "2.43-7", "amd64"),
        ("libgcc-s1", "16.2.0-4", "amd64"),
    ]


# Descriptions


def test_description_goes_round(help_text):
    built = base.describe(make(), captured(help_text), "ab" * 32, 5)
    assert built.server.version == "0.7.0" and built.server.build == "11669" and built.backends == ("cpu",)
    assert base.parse_base(json.loads(json.dumps(built.as_dict())), "x") == built


def test_another_architecture_is_described_by_the_table(help_text):
    recipe = make(architecture="arm64", host_architecture="amd64")
    built = base.describe(recipe, {"packages": PACKAGES, "backends": "libggml-cpu-armv8.0_1.so"}, "ab" * 32, 5)
    assert built.server.version == "0.7.0" and "--alias" in built.server.options


def test_a_version_that_nobody_knows_has_no_options():
    known = base.server_from_table("99.1")
    assert known.version == "99.1" and not known.options and not known.environment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "libggml.so.0: cannot open shared object file"}, "does not describe itself: libggml.so.0: cannot open"),
        ({"help": ""}, "does not describe itself"),
        ({"backends": ""}, "has no cpu backend; it has: none"),
    ],
)
def test_a_base_that_is_not_what_it_should_be(help_text, changes, message):
    with pytest.raises(AikitError) as caught:
        base.describe(make(), captured(help_text, **changes), "ab" * 32, 5)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), "x.json: schema 2 was expected to be 1."),
        (lambda d: d.pop("variant"), "x.json: variant: a string was expected, found None."),
        (lambda d: d.update(size_bytes=True), "x.json: size_bytes: a number was expected, found True."),
        (lambda d: d.update(sha256="abc"), "x.json: sha256: 'abc' is no SHA-256 in hex."),
        (lambda d: d["server"].pop("options"), "x.json: server.options: a list was expected, found None."),
        (lambda d: d["packages"].append("libc6"), "x.json: packages[3]: a mapping was expected, found 'libc6'."),
        (lambda d: d["packages"][0].pop("version"), "x.json: packages[0].version: a string was expected, found None."),
    ],
)
def test_descriptions_that_cannot_be_read(help_text, change, message):
    document = base.describe(make(), captured(help_text), "ab" * 32, 5).as_dict()
    change(document)
    with pytest.raises(AikitError) as caught:
        base.parse_base(document, "x.json")
    assert str(caught.value).startswith(message)


def test_a_description_that_is_a_list():
    with pytest.raises(AikitError, match="a mapping was expected"):
        base.parse_base([], "x.json")


# Plans


def present(help_text, **changes):
    return base.describe(make(), captured(help_text, **changes), "ab" * 32, 5)


def test_build_what_is_not_there():
    plan = base.plan(make(), "/c/b.tar", None, "it is not there")
    assert [action.describe() for action in plan.actions] == ["build /c/b.tar (it is not there)"]
    assert not plan.before and plan.after["path"] == "/c/b.tar"


def test_leave_what_is_there(help_text):
    plan = base.plan(make(), "/c/b.tar", present(help_text), "")
    assert not plan.changed and plan.before == plan.after


def test_build_when_the_recipe_changed(help_text):
    plan = base.plan(make(suite="forky"), "/c/b.tar", present(help_text), "")
    assert plan.actions[0].detail == "the recipe has changed"


def test_refresh_with_the_same_packages(help_text):
    assert not base.plan(make(), "/c/b.tar", present(help_text), "", base.parse_packages(PACKAGES)).changed


def test_refresh_shows_what_differs(help_text):
    newer = PACKAGES.replace("0.7.0+dfsg-2", "0.8.0-1").replace("libc6 2.43-7", "libc7 3-1")
    plan = base.plan(make(), "/c/b.tar", present(help_text), "", base.parse_packages(newer))
    assert plan.actions[0].detail == "llama.cpp-tools 1:0.7.0+dfsg-2 → 1:0.8.0-1, libc6 2.43-7 → gone, libc7 new → 3-1"
    assert plan.before["packages"]["llama.cpp-tools"] != plan.after["packages"]["llama.cpp-tools"]


def test_many_changes_are_counted():
    before = base.parse_packages("".join(f"p{index} 1 all\n" for index in range(9)))
    after = base.parse_packages("".join(f"p{index} 2 all\n" for index in range(9)))
    assert base.package_changes(before, after).endswith("p4 1 → 2, 4 more")


# Failures: what mmdebstrap 1.3.5 printed

_TAIL = """E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> -oDpkg::Use-Pty=false failed
I: main() received signal PIPE: waiting for setup...
E: mmdebstrap failed to run
"""


@pytest.mark.parametrize(
    ("output", "quoted", "hint"),
    [
        (
            "Err:2 http://mirror.example/debian nosuch Release\n  404  Not Found\n"
            "E: The repository 'http://mirror.example/debian nosuch Release' does not have a Release file.\n",
            "does not have a Release file",
            f"{MIRROR} has no suite sid: set llama_cpp_base_suite",
        ),
        (
            "E: Unable to locate package llama.cpp-tools\nE: Couldn't find any package by glob 'llama.cpp-tools'\n",
            "cannot be built: E: Unable to locate package llama.cpp-tools.",
            "Suite sid has no package llama.cpp-tools: llama.cpp is in Debian's suites forky and sid",
        ),
        (
            "E: Failed to fetch http://mirror.example/debian/dists/sid/InRelease"
            "  Could not connect to mirror.example:80 (192.0.2.1). - connect (111: Connection refused)\n"
            "E: Some index files failed to download. They have been ignored, or old ones used instead.\n",
            "Connection refused",
            f"{MIRROR} cannot be reached",
        ),
        ("E: Failed to fetch http://mirror.example/debian/dists/sid/InRelease  Could not resolve 'mirror.example'\n", "Could not resolve", "cannot be reached"),
        (
            "W: GPG error: http://mirror.example/debian sid InRelease: The following signatures couldn't be verified"
            " because the public key is not available: NO_PUBKEY 6ED0E7B82643E131\n"
            "E: The repository 'http://mirror.example/debian sid InRelease' is not signed.\n",
            "is not signed",
            "llama_cpp_base_keyring",
        ),
        ("E: You don't have enough free space: No space left on device\n", "No space left", "llama_cpp_base_cache_dir"),
        ("E: Unable to correct problems, you have held broken packages.\n", "held broken packages", "do not fit together today"),
        ("error in the hook: + serve --version\nerror in the hook: env: 'chroot': No such file or directory\n", "No such file or directory", "-vvv"),
    ],
)
def test_failures_say_what_to_do(output, quoted, hint):
    error = base.failure(make(), "I: finding correct signed-by value...\n" + output + _TAIL)
    assert error.message.startswith("The base sid-cpu-amd64 cannot be built: ")
    assert quoted in error.message and "mmdebstrap failed to run" not in error.message
    assert hint in error.hint


def test_a_failure_without_a_word():
    assert "cannot be built" in base.failure(make(), "").message
