# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before a build, exact command lines, fingerprints, and what a build's output says."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import buildkit, data_buildkit, hub
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model, PromptTemplate
from ansible_collections.aikit.fleet.plugins.module_utils._core.buildkit import Build, Instance, Observed, Secret, Target, Versions
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_aikit import MAIN
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

V21 = (0, 21, 0)
DIGEST = "sha256:" + "1" * 64
FRONTEND = f"ghcr.io/kaito-project/aikit/aikit:v0.21.0@{DIGEST}"
TOKEN = "hf_" + "a1" * 12


def checked(config="", templates=(), model_source="https://a.example/b.gguf"):
    models = (Model("a", model_source, None, tuple(PromptTemplate(*pair) for pair in templates)),)
    return Aikitfile(config=config, models=models, lines={"models[0].source": 4, "models[0].promptTemplates[0].name": 7})


# --- text that frontends change

@pytest.mark.parametrize("text", ["a: 'b'\n", "it's {{.Input}} | ok; $ 5\n", 'b: \\"q\\"\n', "100 % & (a) > b < c # d\n", "C:\\ Program\n"])
def test_text_that_a_shell_leaves_alone(text):
    assert buildkit.refused(checked(text), {}, V21) == ()


@pytest.mark.parametrize("text", ['"', "`id`", "$(id)", "${A}", "$A", "$$", "$?", "a\\\\b", "a\\`", "a\\$b", "a\\nb", "a\\tb", "a\\0b", "a\\cb", "a\\\nb"])
def test_text_that_a_shell_changes(text):
    (finding, *_more) = buildkit.refused(checked(text), {}, V21)
    assert finding.level == "error" and "through a shell" in finding.message and "line 1 of the text, character" in finding.message


def test_templates_and_their_names():
    name, text, _second = buildkit.refused(checked(templates=[("a b", "{{.Input}} `id`")]), {}, V21)
    assert text.path == "models[0].promptTemplates[0].template" and name.path == "models[0].promptTemplates[0].name"
    assert name.line == 7 and "' ' in the name of a template" in name.message
    assert buildkit.refused(checked(templates=[("a-b_c.1", "{{.Input}}")]), {}, V21) == ()
    assert buildkit.refused(checked(templates=[("a;b", "`")]), {}, MAIN) == ()


@pytest.mark.parametrize("release", [V21, MAIN])
def test_sources_that_go_to_a_shell_or_are_patterns(release):
    (finding,) = buildkit.refused(checked(model_source="oci://registry.example/a:1;id"), {}, release)
    assert finding.line == 4 and "';' (character 27 of the source)" in finding.message and "would run it" in finding.message
    (finding,) = buildkit.refused(checked(model_source="weights/*.gguf"), {}, release)
    assert "weights/*.gguf is a pattern" in finding.message
    for fine in ("oci://registry.example:5000/a/b@sha256:00", "weights/a.gguf", "https://a.example/b?c=d&e=f", "huggingface://a/b/c.gguf"):
        assert buildkit.refused(checked(model_source=fine), {}, release) == ()


def test_a_download_that_nothing_checks_is_refused():
    (finding,) = buildkit.source_findings(checked(), True, hub.DEFAULT_URL)
    assert (finding.level, finding.path, finding.line) == ("error", "models[0].source", 4)
    assert finding.message == "no sha256 is given for https://a.example/b.gguf, and AIKit's frontend takes whatever comes"
    assert buildkit.source_findings(checked(), False, hub.DEFAULT_URL) == ()
    pinned = Aikitfile(models=(Model("a", "https://a.example/b.gguf", "1" * 64),))
    assert buildkit.source_findings(pinned, True, hub.DEFAULT_URL) == ()
    for other in ("oci://registry.example:5000/a/b:1", "weights/a.gguf", "huggingface://a/b/c.gguf"):
        assert buildkit.source_findings(checked(model_source=other), True, f"{hub.DEFAULT_URL}/") == ()


def test_another_hub_is_not_what_the_frontend_asks():
    (finding,) = buildkit.source_findings(checked(model_source="huggingface://a/b/c.gguf"), True, "https://hub.example")
    assert finding.level == "warning" and "from https://huggingface.co, whatever hub_url says" in finding.message


# --- build arguments


@pytest.mark.parametrize("release, written", [((0, 21, 0), 'a: "b"\n'), ((0, 18, 0), 'a: "b"\n'), ((0, 30, 0), 'a: \\"b\\"\n'), (MAIN, 'a: \\"b\\"\n')])
def test_the_config_as_the_frontend_writes_it(release, written):
    assert buildkit.written_config(Aikitfile(config='a: \\"b\\"\n'), release) == written
    assert buildkit.written_config(Aikitfile(config=""), release) == ""


@pytest.mark.parametrize(
    "name, value, secret",
    [
        ("HF_TOKEN", "x", True),
        ("hf-token", "x", True),
        ("apiKey", "x", True),
        ("api_key", "x", True),
        ("password", "x", True),
        ("MY_SECRET_FILE", "x", True),
        ("tokenizer", "bpe", False),
        ("author", "me", False),
        ("model", "huggingface://a/b/c.gguf", False),
        ("model", "https://user:pw12345@a.example/b.gguf", True),
        ("run", f"curl {TOKEN}", True),
        ("HF_TOKEN", "", False),
    ],
)
def test_what_looks_like_a_secret(name, value, secret):
    assert buildkit.is_secret(name, value) is secret
    found = buildkit.build_arg_findings({name: value}, "registry.example/mine:1")
    assert bool(found) is secret
    if secret:
        assert found[0].level == "warning" and found[0].path == f"build_args.{name}" and value not in found[0].describe().replace(name, "")


def test_a_secret_that_is_also_a_build_argument_is_seen():
    (finding,) = buildkit.build_arg_findings({"run": "use s3cr3t now"}, "mine:1", ["s3cr3t"])
    assert "looks like a secret" in finding.message and "s3cr3t" not in finding.describe()


def test_build_arguments_that_aikit_does_not_read():
    (finding,) = buildkit.build_arg_findings({"Model": "a", "HTTP_PROXY": "b", "https_proxy": "b", "model": "c", "runtime": "cuda"}, FRONTEND)
    assert finding.path == "build_args.Model" and finding.hint == "write model"
    (finding,) = buildkit.build_arg_findings({"quantize": "q4"}, "mirror.example/kaito-project/aikit/aikit:v0.21.0")
    assert finding.hint == "it reads model and runtime"
    assert buildkit.build_arg_findings({"quantize": "q4"}, "registry.example/mine:1") == ()


@pytest.mark.parametrize(
    "name, value, word",
    [
        ("BUILDKIT_SYNTAX", "a", "Write it into frontend"),
        ("cdiDevice", "nvidia.com/gpu", "is for fine-tuning"),
        ("a b", "c", "no name of a build argument"),
        ("a=b", "c", "no name of a build argument"),
        ("model", "a\nb", "more than one line"),
    ],
)
def test_build_arguments_that_are_refused(name, value, word):
    with pytest.raises(AikitError) as caught:
        buildkit.build_arg_findings({name: value}, FRONTEND)
    assert word in str(caught.value)


# --- secrets


def test_secrets_travel_in_the_environment_or_as_a_file():
    secrets = buildkit.parse_secrets({"hf-token": {"value": TOKEN}, "b": {"env": "B_TOKEN"}, "c": {"file": '/srv/a,"b'}})
    words, environment = buildkit.secret_arguments(secrets)
    assert words == ["--secret", "id=b,env=B_TOKEN", "--secret", 'id=c,"src=/srv/a,""b"', "--secret", "id=hf-token,env=AIKIT_FLEET_SECRET_3"]
    assert environment == {"AIKIT_FLEET_SECRET_3": TOKEN} and TOKEN not in " ".join(words)


@pytest.mark.parametrize(
    "wanted, word",
    [
        ({"a": "text"}, "secrets.a: must be a mapping"),
        ({"a": {}}, "secrets.a: nothing is given"),
        ({"a": {"value": ""}}, "secrets.a: nothing is given, or it is empty"),
        ({"a": {"env": "A", "file": "/b"}}, "secrets.a: env and file are both given"),
        ({"a": {"from": "A"}}, "secrets.a: unknown key from"),
        ({"a b": {"env": "A"}}, "'a b' is no id of a secret"),
        ({"a": {"value": 12345}}, "secrets.a.value: must be text"),
        ({"a": {"env": TOKEN + "!"}}, "secrets.a.env: this is no name"),
    ],
)
def test_secrets_that_are_refused_without_being_shown(wanted, word):
    with pytest.raises(AikitError) as caught:
        buildkit.parse_secrets(wanted)
    assert word in str(caught.value) and TOKEN not in str(caught.value)


def test_masks():
    hidden = buildkit.masks(["s3cr3t\n", "-----BEGIN-----\nabcdef\n", "ab", "", 'a"quoted"b'])
    shown = buildkit.mask('x s3cr3t y abcdef z ab -----BEGIN----- a\\"quoted\\"b a"quoted"b', hidden)
    assert shown == "x ******** y ******** z ab ******** ******** ********"


# --- the frontend


@pytest.mark.parametrize(
    "text, expected",
    [
        ("#syntax=ghcr.io/a/b:1\napiVersion: v1alpha1\n", "ghcr.io/a/b:1"),
        ("# syntax = ghcr.io/a/b:1 extra\r\na: b\n", "ghcr.io/a/b:1"),
        ("\ufeff#SYNTAX=a\n", "a"),
        ("# escape=`\n# syntax=a\n", "a"),
        ("# a comment\n#syntax=a\n", ""),
        ("\n#syntax=a\n", ""),
        ("apiVersion: v1alpha1\n#syntax=a\n", ""),
        ("", ""),
    ],
)
def test_the_syntax_line(text, expected):
    assert buildkit.syntax_line(text) == expected


def test_which_frontend():
    assert buildkit.frontend(None, "a: b\n", V21) == ("ghcr.io/kaito-project/aikit/aikit:v0.21.0", "aikit_version")
    assert buildkit.frontend(None, "a: b\n", MAIN) == ("ghcr.io/kaito-project/aikit/aikit:dev", "aikit_version")
    assert buildkit.frontend(None, "", (0, 22, 0))[0] == "ghcr.io/kaito-project/aikit/aikit:v0.22.0"
    assert buildkit.frontend(None, "", (0, 18, 2))[0] == "ghcr.io/kaito-project/aikit/aikit:v0.18.2"
    assert buildkit.frontend(None, "", (0, 18, 1))[0] == "ghcr.io/sozercan/aikit:v0.18.1"
    assert buildkit.frontend(None, "#syntax=a/b\n", V21) == ("a/b:latest", "the #syntax line")
    assert buildkit.frontend(f"c/d@{DIGEST}", "#syntax=a/b\n", V21) == (f"c/d@{DIGEST}", "frontend")
    for option, text, word in (("Upper/Case:1", "", "frontend: 'Upper/Case:1'"), (None, "#syntax=http://a\n", "the #syntax line: 'http://a'")):
        with pytest.raises(AikitError) as caught:
            buildkit.frontend(option, text, V21)
        assert word in str(caught.value)


def test_a_frontend_of_another_release_is_remarked():
    assert buildkit.release_findings(FRONTEND, "frontend", V21) == ()
    (finding,) = buildkit.release_findings("mirror/kaito-project/aikit/aikit:v0.20.3", "the #syntax line", V21)
    assert "is AIKit v0.20.3, and the aikitfile was checked for v0.21.0" in finding.message and finding.hint == "set aikit_version to 0.20.3"
    (finding,) = buildkit.release_findings("ghcr.io/kaito-project/aikit/aikit:dev", "frontend", V21)
    assert finding.hint == "set aikit_version to main"
    for other in ("ghcr.io/kaito-project/aikit/aikit:latest", "registry.example/mine:v0.1.0"):
        assert buildkit.release_findings(other, "frontend", V21) == ()


def test_pinned():
    assert buildkit.pinned("a/b:1", DIGEST) == f"a/b:1@{DIGEST}" and buildkit.pinned(FRONTEND, "") == FRONTEND
    with pytest.raises(AikitError, match="which is none"):
        buildkit.pinned("a/b:1", "")


# --- versions and instances


@pytest.mark.parametrize(
    "text, expected",
    [
        ("github.com/docker/buildx v0.13.1 788433953af10f2a698f5c07611dddce2e08c7a0\n", "0.13.1"),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3\n", "0.13.1"),
        ("docker: 'buildx' is not a docker command.", ""),
        ("", ""),
    ],
)
def test_parse_buildx(text, expected):
    assert buildkit.parse_buildx(text) == expected


@pytest.mark.parametrize(
    "text, expected", [("26.1.5+dfsg1 linux/amd64\n", ("26.1.5", "linux/amd64")), ("29.0.0", ("29.0.0", "")), ("", ("", "")), ("not found", ("", "found"))]
)
def test_parse_docker(text, expected):
    assert buildkit.parse_docker(text) == expected


def test_platforms_are_always_named():
    assert buildkit.platforms(["linux/arm64", "linux/amd64", "linux/arm64"], "", "linux/amd64") == ["linux/arm64", "linux/amd64"]
    assert buildkit.platforms([], "cuda", "linux/amd64") == ["linux/amd64"]
    assert buildkit.platforms([], "applesilicon", "linux/amd64") == ["linux/arm64"]
    assert buildkit.platforms([], "", "") == []


def test_parse_inspect():
    text = (
        'Name:   aikit-fleet\nDriver: docker-container\n\nNodes:\nName: aikit-fleet0\nDriver Options: image="mirror/buildkit:1"\n'
        "Status: running\nBuildKit version: v0.20.1\n"
    )
    assert buildkit.parse_inspect(text) == {"driver": "docker-container", "options": 'image="mirror/buildkit:1"', "status": "running", "buildkit": "v0.20.1"}


@pytest.mark.parametrize(
    "told, docker, expected",
    [
        ("v0.13.2", "26.1.5", "0.13.2"),
        ("v0.0.0+unknown", "26.1.5", "0.13.0"),
        ("", "24.0.9", "0.11.0"),
        ("", "20.10.24", "0.8.0"),
        ("", "29.0.0", "0.20.0"),
        ("", "1.13", ""),
    ],
)
def test_the_buildkit_inside_docker(told, docker, expected):
    assert buildkit.docker_buildkit(told, docker) == expected


GOOD = Versions("26.1.5", "0.13.1", "0.13.2", True)


@pytest.mark.parametrize(
    "found, features, word",
    [
        (replace(GOOD, buildx="0.9.1"), (), "needs buildx 0.10.0 or newer to leave attestations out of an image; this host has 0.9.1. Install a newer buildx"),
        (replace(GOOD, buildkit="0.10.6"), (), "needs BuildKit 0.11.0 or newer"),
        (replace(GOOD, docker="23.0.6"), ("containerd store",), "needs Docker 24.0.0 or newer for the containerd image store; this host has 23.0.6"),
        (replace(GOOD, buildx="0.12.1"), ("outputs",), "needs buildx 0.13.0 or newer for more than one output"),
        (replace(GOOD, buildkit="0.12.5"), ("outputs",), "needs BuildKit 0.13.0 or newer for more than one output"),
    ],
)
def test_versions_that_are_too_old(found, features, word):
    with pytest.raises(AikitError) as caught:
        buildkit.check_versions(found, features)
    assert word in str(caught.value)


def test_versions_that_are_enough():
    buildkit.check_versions(GOOD, ["outputs", "containerd store"])
    buildkit.check_versions(replace(GOOD, buildx="0.12.1", buildkit=""))
    # Every floor names a program that is looked at, and says what to do
    for floor in (*data_buildkit.FLOORS, *(floor for floors in data_buildkit.FEATURES.values() for floor in floors)):
        assert floor.program in ("Docker", "buildx", "BuildKit") and floor.hint and floor.what


GRAPH = replace(GOOD, containerd_store=False)
OURS = {"driver": "docker-container", "options": 'image="mirror/buildkit:1"'}


@pytest.mark.parametrize(
    "asked, image, config, found, exists, expected",
    [
        (None, None, None, GOOD, {}, Instance("default", "docker", "Docker's own BuildKit, with the containerd image store")),
        (
            None,
            None,
            None,
            GRAPH,
            {},
            Instance(
                "aikit-fleet",
                "docker-container",
                "Docker's graph driver cannot merge file systems, which AIKit's frontend does",
                ("docker", "buildx", "create", "--name", "aikit-fleet", "--driver", "docker-container"),
            ),
        ),
        (
            None,
            None,
            None,
            GRAPH,
            {"aikit-fleet": OURS},
            Instance("aikit-fleet", "docker-container", "Docker's graph driver cannot merge file systems, which AIKit's frontend does"),
        ),
        (None, "mirror/buildkit:1", None, GOOD, {"aikit-fleet": OURS}, Instance("aikit-fleet", "docker-container", "buildkit_image was given")),
        (
            None,
            "mirror/buildkit:1",
            "/etc/buildkitd.toml",
            GOOD,
            {},
            Instance(
                "aikit-fleet",
                "docker-container",
                "buildkit_image was given",
                (
                    *("docker", "buildx", "create", "--name", "aikit-fleet", "--driver", "docker-container"),
                    *("--driver-opt", "image=mirror/buildkit:1", "--config", "/etc/buildkitd.toml"),
                ),
            ),
        ),
        ("mine", None, None, GRAPH, {"mine": {"driver": "kubernetes"}}, Instance("mine", "kubernetes", "buildx_builder was given")),
    ],
)
def test_which_instance(asked, image, config, found, exists, expected):
    assert buildkit.choose_instance(asked, image, config, found, exists) == expected


@pytest.mark.parametrize(
    "asked, image, exists, word",
    [
        ("mine", None, {}, "there is no instance mine"),
        ("mine", "a:1", {"mine": {}}, "has its image and its configuration already"),
        (None, "other:1", {"aikit-fleet": OURS}, "is there with mirror/buildkit:1, not with other:1"),
        (None, "other:1", {"aikit-fleet": {}}, "is there with the default image"),
    ],
)
def test_instances_that_do_not_fit(asked, image, exists, word):
    with pytest.raises(AikitError) as caught:
        buildkit.choose_instance(asked, image, None, GOOD, exists)
    assert word in str(caught.value)


# --- targets and commands

ALL = (Target("push"), Target("docker"), Target("podman"), Target("archive", "/o/a.tar"), Target("oci_layout", "/o/l"))
SHAPE = "oci-mediatypes=true,compression=uncompressed,force-compression=true,annotation.x=y"


def test_targets():
    assert buildkit.targets(True, ["docker", "podman", "docker"], "/o/a.tar", "/o/l") == ALL
    assert [target.action("n:1").describe() for target in ALL] == ["push n:1", "load n:1 (docker)", "load n:1 (podman)", "write /o/a.tar", "write /o/l"]
    described = []
    left = list(ALL)
    while left:
        described.append(buildkit.described_target(left).kind)
        left = [target for target in left if target.kind != described[-1]]
    assert described == ["push", "oci_layout", "archive", "docker", "podman"]
    with pytest.raises(AikitError, match="nowhere to put the image"):
        buildkit.check_targets((), (), True)


@pytest.mark.parametrize(
    "kind, store, word", [("podman", True, "Podman takes"), ("docker", False, "Docker's graph driver takes"), ("docker", True, ""), ("push", False, "")]
)
def test_engines_that_take_one_platform(kind, store, word):
    buildkit.check_targets([Target(kind)], ["linux/amd64"], store)
    if not word:
        buildkit.check_targets([Target(kind)], ["linux/amd64", "linux/arm64"], store)
        return
    with pytest.raises(AikitError, match=word):
        buildkit.check_targets([Target(kind)], ["linux/amd64", "linux/arm64"], store)


def test_outputs():
    paths = {"podman": "/w/p.tar", "archive:/o/a.tar": "/o/a.tar.part", "oci_layout:/o/l": "/o/l.part"}

    def made(*kinds, driver="docker", platforms=()):
        return buildkit.outputs([target for target in ALL if target.kind in kinds], "n:1", driver, "uncompressed", ["annotation.x=y"], platforms, paths)

    image, layout = f"type=image,name=n:1,push=true,{SHAPE}", f"type=oci,name=n:1,dest=/o/l.part,tar=false,{SHAPE}"
    archive = f"type=docker,name=n:1,dest=/o/a.tar.part,{SHAPE}"
    # Docker has what it pushes; Podman reads the archive
    assert made("push", "docker", "podman", "archive", "oci_layout") == [image, archive, layout]
    assert made("docker") == [f"type=image,name=n:1,{SHAPE}"]
    assert made("docker", driver="docker-container") == [f"type=docker,name=n:1,{SHAPE}"]
    assert made("push", "docker", driver="docker-container") == [image, f"type=docker,name=n:1,{SHAPE}"]
    assert made("podman") == [f"type=docker,name=n:1,dest=/w/p.tar,{SHAPE}"]
    assert made("archive", platforms=["linux/amd64", "linux/arm64"]) == [f"type=oci,name=n:1,dest=/o/a.tar.part,{SHAPE}"]


def test_marks():
    assert buildkit.marks("f", "a", ["linux/amd64"]) == ["annotation.io.aikit.fleet.fingerprint=f", "annotation.io.aikit.fleet.aikitfile.sha256=a"]
    assert [word.partition("=")[0] for word in buildkit.marks("f", "a", ["linux/amd64", "linux/arm64"])] == [
        "annotation.io.aikit.fleet.fingerprint",
        "annotation.io.aikit.fleet.aikitfile.sha256",
        "annotation-index.io.aikit.fleet.fingerprint",
        "annotation-index.io.aikit.fleet.aikitfile.sha256",
    ]


def test_the_whole_command():
    words, environment = buildkit.command(
        Build(
            "default",
            FRONTEND,
            "/w/aikitfile.yaml",
            "/srv/flux",
            "/w/metadata.json",
            ["type=image,name=n:1,push=true"],
            ["linux/amd64", "linux/arm64"],
            {"runtime": "cuda", "model": "huggingface://a/b/c.gguf", "HF_TOKEN": TOKEN, "hf-token": TOKEN[::-1]},
            [Secret("hf-token", value=TOKEN)],
            ["type=registry,ref=r/c:1"],
            ["type=local,dest=/c"],
        )
    )
    assert words == [
        *("docker", "buildx", "build", "--builder", "default", "--progress", "plain", "--provenance=false"),
        *("--build-arg", f"BUILDKIT_SYNTAX={FRONTEND}"),
        *("--build-arg", "HF_TOKEN"),
        *("--build-arg", "hf-token"),
        *("--build-arg", "model=huggingface://a/b/c.gguf"),
        *("--build-arg", "runtime=cuda"),
        *("--secret", "id=hf-token,env=AIKIT_FLEET_SECRET_1"),
        *("--platform", "linux/amd64,linux/arm64"),
        *("--cache-from", "type=registry,ref=r/c:1"),
        *("--cache-to", "type=local,dest=/c"),
        *("--output", "type=image,name=n:1,push=true"),
        *("--metadata-file", "/w/metadata.json"),
        *("--file", "/w/aikitfile.yaml", "/srv/flux"),
    ]
    # A shell could not set it; who starts a program can
    assert environment == {"HF_TOKEN": TOKEN, "hf-token": TOKEN[::-1], "AIKIT_FLEET_SECRET_1": TOKEN}


def test_a_build_argument_with_the_value_of_a_secret_is_in_no_command_line():
    build = Build("default", FRONTEND, "/w/a", "/c", "/w/m", [], build_args={"x": "use S3cretValue1", "y": "1"}, hidden=buildkit.masks(["S3cretValue1\n"]))
    words, environment = buildkit.command(build)
    assert "S3cretValue1" not in " ".join(words) and environment == {"x": "use S3cretValue1"}
    assert words[words.index("x") - 1] == "--build-arg" and "y=1" in words


# --- fingerprint and plan


def made_inputs(**changes):
    given = {
        "aikitfile_sha256": "a" * 64,
        "frontend_reference": FRONTEND,
        "build_args": {"runtime": "cuda"},
        "platforms": ["linux/arm64", "linux/amd64"],
        "context": {"a.gguf": DIGEST},
        "compression": "uncompressed",
        "secrets": [Secret("hf-token", value=TOKEN)],
        **changes,
    }
    return buildkit.inputs(**given)


def test_the_fingerprint_is_of_everything_that_counts():
    plain = buildkit.fingerprint(made_inputs())
    # Golden: with another value every image would be built again
    assert plain == "72191d4bae61fc329b832c2a084629d7f19ad575685e54d63b9a0bbcd8bc378f"
    for same in (
        {"platforms": ["linux/amd64", "linux/arm64"]},
        {"frontend_reference": f"mirror.example/aikit:other@{DIGEST}"},
        {"secrets": [Secret("hf-token", environment="OTHER")]},
    ):
        assert buildkit.fingerprint(made_inputs(**same)) == plain, same
    for other in (
        {"aikitfile_sha256": "b" * 64},
        {"frontend_reference": FRONTEND.replace("1" * 64, "2" * 64)},
        {"build_args": {"runtime": "rocm"}},
        {"build_args": {}},
        {"platforms": ["linux/amd64"]},
        {"context": {"a.gguf": DIGEST, "b.gguf": DIGEST}},
        {"compression": "gzip"},
        {"secrets": []},
    ):
        assert buildkit.fingerprint(made_inputs(**other)) != plain, other


def test_no_secret_stands_in_the_inputs():
    found = made_inputs(build_args={"HF_TOKEN": TOKEN})
    assert TOKEN not in repr(found) and found["secrets"] == ["hf-token"]
    assert found["build_args"] == {"HF_TOKEN": f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()[:12]}"}
    found = made_inputs(build_args={"x": "S3cretValue1", "runtime": "cuda"}, hidden=buildkit.masks(["S3cretValue1\n"]))
    assert found["build_args"] == {"x": f"sha256:{hashlib.sha256(b'S3cretValue1').hexdigest()[:12]}", "runtime": "cuda"}


def test_a_plan_trusts_what_stands_there_alone():
    found, mark = made_inputs(), buildkit.fingerprint(made_inputs())
    instance = Instance("default", "docker", "why")
    push, docker = Target("push"), Target("docker")
    first, lacking = buildkit.plan("n:1", [push, docker], found, {}, {"push": Observed(), "docker": Observed()}, instance)
    assert [action.describe() for action in first.actions] == ["build n:1 (BuildKit)", "push n:1", "load n:1 (docker)"] and lacking == (push, docker)
    state = buildkit.new_state({}, "n:1", found, {"push": DIGEST, "docker": "sha256:id"}, DIGEST)
    there = {"push": Observed(DIGEST), "docker": Observed("sha256:id")}
    assert buildkit.plan("n:1", [push, docker], found, state, there, instance) == (buildkit.Plan(), ())
    # Another image under the tag, nothing, or one that says of itself that it is something else
    for observed in (Observed("sha256:other"), Observed(), Observed(DIGEST, "other")):
        plan, lacking = buildkit.plan("n:1", [push, docker], found, state, {**there, "push": observed}, instance)
        assert lacking == (push,) and [action.verb for action in plan.actions] == ["build", "push"]
    # One that says of itself that it is this one needs no record
    assert buildkit.plan("n:1", [push], found, {}, {"push": Observed("sha256:new", mark)}, instance)[1] == ()
    # A new place: only that one
    assert buildkit.plan("n:1", [push, docker, Target("archive", "/a")], found, state, there, instance)[1] == (Target("archive", "/a"),)


def test_the_diff_shows_the_inputs_that_changed_and_an_instance_is_made_first():
    old, new = made_inputs(), made_inputs(context={"a.gguf": "sha256:new"}, compression="gzip")
    state = buildkit.new_state({}, "n:1", old, {"push": DIGEST}, DIGEST)
    instance = Instance("aikit-fleet", "docker-container", "why", ("docker",))
    plan, _lacking = buildkit.plan("n:1", [Target("push")], new, state, {"push": Observed(DIGEST)}, instance)
    assert plan.actions[0].describe() == "create buildx instance aikit-fleet (docker-container)"
    assert plan.before == {"compression": "uncompressed", "context": {"a.gguf": DIGEST}, "targets": {"push": DIGEST}}
    assert plan.after == {"compression": "gzip", "context": {"a.gguf": "sha256:new"}, "targets": {"push": f"fingerprint {buildkit.fingerprint(new)}"}}


def test_a_build_for_one_target_keeps_what_is_known_of_the_others():
    state = buildkit.new_state({}, "n:1", made_inputs(), {"push": DIGEST}, DIGEST)
    state = buildkit.new_state(state, "n:1", made_inputs(compression="gzip"), {"docker": "sha256:id"}, "sha256:other")
    assert set(state["targets"]) == {"push", "docker"}
    assert buildkit.built_digests(state, made_inputs(compression="gzip")) == {"docker": "sha256:other"}
    assert buildkit.built_digests(state, made_inputs()) == {"push": DIGEST} and buildkit.built_digests({}, made_inputs()) == {}
    assert not buildkit.current(Target("push"), buildkit.fingerprint(made_inputs(compression="gzip")), state, Observed(DIGEST))


# --- output

FAILED = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from a.yaml
#1 transferring dockerfile: 99B done
#1 DONE 0.0s

#5 [linux/amd64] base
#5 CACHED

#11 [linux/amd64] run
#11 0.100 first
#5 ...

#11 [linux/amd64] run
#11 0.428 token hf-s3cr3t
#11 0.500
#11 0.428 last
#11 ERROR: process "/bin/sh -c pip install" did not complete successfully: exit code: 3
#12 [linux/arm64] run
#12 CANCELED
------
 > [linux/amd64] run:
0.428 last
------
ERROR: failed to solve: process "/bin/sh -c pip install" did not complete successfully: exit code: 3
"""


def read(text):
    progress = buildkit.Progress()
    steps = [progress.feed(line) for line in text.splitlines(keepends=True)]
    return progress, [step for step in steps if step]


def test_the_step_that_failed_and_its_log():
    progress, steps = read(FAILED)
    assert steps == ["[internal] load build definition from a.yaml", "[linux/amd64] base", "[linux/amd64] run", "[linux/arm64] run"]
    assert progress.done == {"1", "5", "12"}
    error = progress.failure(buildkit.masks(["hf-s3cr3t"]), 1)
    assert error.message == (
        "BuildKit: step '[linux/amd64] run' failed: process \"/bin/sh -c pip install\" did not complete successfully: exit code: 3\n"
        "The last 4 lines of its log:\n  first\n  token ********\n  \n  last\n"
    )
    assert error.data == {"failed_step": "[linux/amd64] run"}


def test_a_long_log_is_cut():
    progress, _steps = read("#1 a\n" + "".join(f"#1 0.{number} line {number}\n" for number in range(100)) + "#1 ERROR: x\n")
    lines = progress.failure((), 1).message.splitlines()
    assert lines[1] == "The last 20 lines of its log:" and lines[2:] == [f"  line {number}" for number in range(80, 100)]


def test_errors_outside_of_a_step():
    progress, _steps = read("ERROR: failed to push a/b:1: denied: access forbidden\n")
    error = progress.failure((), 1)
    assert error.message == "BuildKit: failed to push a/b:1: denied: access forbidden." and "docker login" in error.hint
    progress, _steps = read("unknown flag: --x\nsee docker buildx build --help\n")
    assert "ended with status 125:\n  unknown flag: --x\n" in progress.failure((), 125).message
    assert "status 137" in buildkit.Progress().failure((), 137).message


@pytest.mark.parametrize(
    "text, word",
    [
        (
            "failed to load LLB: requested feature mergeop  has been disabled on the build server: only enabled with containerd image store backend",
            "containerd-snapshotter",
        ),
        ("unknown API capability mergeop", "containerd-snapshotter"),
        ("requested experimental feature mergeop  is not supported by build server", "containerd-snapshotter"),
        ("write /x: no space left on device", "docker buildx prune"),
        ("exec /bin/sh: exec format error", "emulator"),
        ("failed to resolve source metadata for a/b:1: a/b:1: not found", "no such image"),
        ("failed to calculate checksum of ref x::y: \"/a.gguf\": not found", "looked for in context"),
        ("dial tcp: lookup ghcr.io: no such host", "mirror of the frontend"),
        ("http: server gave HTTP response to HTTPS client", "plain HTTP"),
        ("x509: certificate signed by unknown authority", "not trusted"),
        ("no match for platform in manifest", "take it out of platforms"),
        ("exit code: 137", "memory"),
        ("something else", ""),
    ],
)
def test_hints(text, word):
    assert word in buildkit.hint_for(text) if word else buildkit.hint_for(text) == ""


def test_the_digest_that_was_built():
    assert buildkit.built_digest({"containerimage.digest": DIGEST}) == DIGEST
    assert buildkit.built_digest({}) == buildkit.built_digest({"containerimage.digest": "sha256:1"}) == ""


@pytest.mark.parametrize("name", data_buildkit.DIRECT_OPTIONS)
def test_options_of_the_direct_builder_are_refused(name):
    buildkit.check_options({name: None})
    with pytest.raises(AikitError, match=f"{name}: builder buildkit cannot use this"):
        buildkit.check_options({name: "x"})
