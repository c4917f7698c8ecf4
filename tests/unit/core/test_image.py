# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image assembler: layers, config, manifest, archive; and that the same inputs give the same bytes everywhere."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import engine, image, oci, reference
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model
from ansible_collections.aikit.fleet.plugins.module_utils._core.base import Base, Server
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.llama_server import ServerSettings
from ansible_collections.aikit.fleet.plugins.module_utils._core.tar import FileRef, total_size
from ansible_collections.aikit.fleet.tests.unit.fake_registry import FakeRegistry
from hypothesis import assume, given, settings
from hypothesis import strategies as st

DIGESTS = tuple("sha256:" + letter * 64 for letter in "abc")


def make_base(**changes):
    values = {
        "variant": "cpu",
        "suite": "sid",
        "architecture": "amd64",
        "sha256": "1" * 64,
        "size_bytes": 2048,
        "packages": ({"name": "llama.cpp-tools", "version": "0.7.0-1", "architecture": "amd64"}, {"name": "libc6", "version": "2", "architecture": "amd64"}),
        "server": Server("/usr/bin/llama-server", "0.7.0"),
        "backends": ("cpu",),
        "key": "2" * 64,
    }
    return Base(**{**values, **changes})


def make_recipe(base=None, env=None, files=None, name="localhost/a:1", runtime="", models=None):
    aikitfile = Aikitfile(
        runtime=runtime, models=(Model("gemma", "gemma.gguf", None, ()),), config="- name: gemma\n", text="apiVersion: v1alpha1\n", sha256="3" * 64
    )
    settings = ServerSettings(env=env or {"LLAMA_ARG_MODEL": "/models/gemma.gguf"}, args=(), files=files or {}, findings=())
    models = models or [image.ModelFile("gemma", "/store/gemma.gguf", "4" * 64, 1000)]
    return image.recipe(name, aikitfile, base or make_base(), "/bases/base.tar", models, settings)


def make_image(**changes):
    return image.finish(make_recipe(**changes), DIGESTS)


def test_layers_are_base_models_config():
    plan = make_recipe()
    assert [layer.role for layer in plan.layers] == ["base", "model", "config"]
    assert plan.layers[0].parts == (FileRef("/bases/base.tar", 2048),)
    model = plan.layers[1]
    assert model.size_bytes == 512 + 512 + 1024 + 1024
    assert FileRef("/store/gemma.gguf", 1000) in model.parts


def read_layer(layer):
    data = b"".join(part if isinstance(part, bytes) else b"m" * part.size for part in layer.parts)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        return {m.name: (m.mode, None if m.isdir() else reader.extractfile(m).read()) for m in reader}


def test_the_model_is_read_only_and_its_folder_made_once():
    assert read_layer(make_recipe().layers[1]) == {"models": (0o755, None), "models/gemma.gguf": (0o444, b"m" * 1000)}


def test_the_config_layer_holds_the_aikitfile_byte_for_byte():
    entries = read_layer(make_recipe(files={"/presets.ini": "version = 1\n", "/models/templates/a.jinja": "{{ x }}"}).layers[2])
    assert entries == {
        "aikit": (0o755, None),
        "aikit/aikitfile.yaml": (0o444, b"apiVersion: v1alpha1\n"),
        "aikit/config.yaml": (0o444, b"- name: gemma\n"),
        "models/templates": (0o755, None),
        "models/templates/a.jinja": (0o444, b"{{ x }}"),
        "presets.ini": (0o444, b"version = 1\n"),
    }


def test_config_and_manifest_agree():
    built = make_image()
    config, manifest = json.loads(built.config), json.loads(built.manifest)
    assert config["rootfs"]["diff_ids"] == list(DIGESTS) == [layer["digest"] for layer in manifest["layers"]]
    assert len(config["history"]) == 3
    assert manifest["config"] == {"mediaType": image.MEDIA_CONFIG, "digest": built.id, "size": len(built.config)}
    assert config["config"]["Entrypoint"] == ["/usr/bin/llama-server"] and config["config"]["User"] == "65532:65532"
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}
    labels = config["config"]["Labels"]
    assert labels["io.aikit.fleet.base.packages"] == "llama.cpp-tools=0.7.0-1"
    assert json.loads(labels["io.aikit.fleet.models"]) == [{"name": "gemma", "sha256": "4" * 64, "size_bytes": 1000}]
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == "sha256:" + "1" * 64
    assert built.size_bytes == len(built.config) + len(built.manifest) + total_size(part for layer in built.layers for part in layer.parts)


def models_of(*files):
    return [image.ModelFile(name, f"/store/{number}/{file.rpartition('/')[2]}", "4" * 64, 1000, file) for number, (name, file) in enumerate(files)]


def test_models_of_one_file_name_stand_in_their_folders():
    models = models_of(("a/one", "a/m.gguf"), ("b/two", "b/m.gguf"))
    assert image.model_paths(models) == {"a/one": "/models/a/m.gguf", "b/two": "/models/b/m.gguf"}
    plan = make_recipe(models=models)
    assert read_layer(plan.layers[1]) == {"models": (0o755, None), "models/a": (0o755, None), "models/a/m.gguf": (0o444, b"m" * 1000)}
    assert read_layer(plan.layers[2]) == {"models/b": (0o755, None), "models/b/m.gguf": (0o444, b"m" * 1000)}
    assert [FileRef(f"/store/{number}/m.gguf", 1000) in plan.layers[1 + number].parts for number in (0, 1)] == [True, True]


@pytest.mark.parametrize(
    "files, words",
    [
        ([("one", "m.gguf"), ("two", "m.gguf")], "/store/0/m.gguf of one and /store/1/m.gguf of two cannot both be in the image"),
        ([("one", "a"), ("a/two", "a/m.gguf")], "they would be /models/a and /models/a/m.gguf"),
        ([("a/two", "a/m.gguf"), ("one", "a")], "cannot both be in the image"),
        ([("one", "x.gguf"), ("one", "y.gguf"), ("y.gguf", "z.gguf")], "would be called y.gguf, as another model is"),
        ([("y.gguf", "z.gguf"), ("one", "x.gguf"), ("one", "y.gguf")], "would be called y.gguf, as another model is"),
    ],
)
def test_no_model_stands_for_another(files, words):
    with pytest.raises(AikitError, match=words):
        image.model_paths(models_of(*files))


@pytest.mark.parametrize(
    "files, counts, words",
    [
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], {}, "part 1 of 3, and 1 of the others are missing: m-00002-of-00003.gguf"),
        (["m-00002-of-00002.gguf"], {}, "m-00001-of-00002.gguf"),
        (["m-00001-of-00002.gguf", "x/m-00002-of-00002.gguf"], {}, "are missing"),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], {0: 3}, "part 1 of 2 by its name, and one of 3 by its content"),
    ],
)
def test_split_models_need_all_parts(files, counts, words):
    models = models_of(*(("split", file) for file in files))
    with pytest.raises(AikitError, match=words):
        image.check_parts(models, {models[number].path: count for number, count in counts.items()})


def test_whole_models_are_told():
    models = models_of(("split", "m-00001-of-00002.gguf"), ("split", "m-00002-of-00002.gguf"), ("plain", "p.gguf"))
    assert image.check_parts(models, {models[0].path: 2, models[2].path: 1}) == {models[0].path, models[1].path}


def test_a_registry_sees_what_the_image_holds():
    manifest = json.loads(make_image().manifest)
    assert set(manifest["annotations"]) == {
        "io.aikit.fleet.aikitfile.sha256",
        "io.aikit.fleet.base.packages",
        "io.aikit.fleet.models",
        "org.opencontainers.image.base.digest",
        "org.opencontainers.image.base.name",
        "org.opencontainers.image.title",
    }
    assert json.loads(manifest["annotations"]["io.aikit.fleet.models"])[0]["sha256"] == "4" * 64
    assert manifest["annotations"]["io.aikit.fleet.aikitfile.sha256"] == "3" * 64
    assert [layer["annotations"] for layer in manifest["layers"]] == [
        {"io.aikit.fleet.role": "base", "org.opencontainers.image.title": "sid cpu"},
        {"io.aikit.fleet.role": "model", "org.opencontainers.image.title": "gemma"},
        {"io.aikit.fleet.role": "config", "org.opencontainers.image.title": "aikitfile and settings"},
    ]


def test_golden_digest():
    # A change of these changes the digest of every image that users have: a major version and a word in the changelog
    built = make_image()
    assert (built.id, built.digest) == (
        "sha256:5f0edec955949fde75f73ec61dcef24341e4b0231652fe4862eb8777aea4bc8a",
        "sha256:218e801eb530cfa751d4dac44b676f1f213c875ee44682c3b4783ce47f237b87",
    )


def test_the_name_is_no_part_of_the_digest():
    assert make_image(name="localhost/a:1").digest == make_image(name="localhost/b:2").digest


def test_a_setting_changes_the_config_alone():
    one, other = make_image(), make_image(env={"LLAMA_ARG_MODEL": "/models/gemma.gguf", "LLAMA_ARG_CTX_SIZE": "99"})
    assert one.id != other.id
    assert [layer.parts for layer in one.layers] == [layer.parts for layer in other.layers]


def test_every_blob_of_the_archive_stands_under_its_digest():
    built = make_image()
    parts = image.archive(built)
    assert all(not isinstance(part, bytes) or part for part in parts)
    data = b"".join(part if isinstance(part, bytes) else b"z" * part.size for part in parts)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        names = reader.getnames()
        assert names[:5] == ["oci-layout", "index.json", "manifest.json", "blobs", "blobs/sha256"]
        index = json.load(reader.extractfile("index.json"))
        docker = json.load(reader.extractfile("manifest.json"))
        assert index["manifests"][0]["digest"] == built.digest
        assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/a:1"
        assert docker == [
            {
                "Config": "blobs/sha256/" + built.id[7:],
                "RepoTags": ["localhost/a:1"],
                "Layers": ["blobs/sha256/" + digest[7:] for digest in DIGESTS],
            }
        ]
        assert reader.extractfile("blobs/sha256/" + built.id[7:]).read() == built.config
        assert reader.extractfile("blobs/sha256/" + built.digest[7:]).read() == built.manifest
        for layer in built.layers:
            assert reader.getmember("blobs/sha256/" + layer.digest[7:]).size == layer.size_bytes


def test_a_thin_archive_leaves_layers_out():
    built = make_image()
    thin = total_size(image.archive(built, DIGESTS[:2]))
    assert thin < total_size(image.archive(built)) - 4000 < total_size(image.archive(built))


def test_vulkan_and_cuda_bases_get_their_variables():
    assert make_image(base=make_base(backends=("cpu", "vulkan"))).env["MESA_SHADER_CACHE_DIR"] == "/cache"
    assert make_image(base=make_base(backends=("cpu", "cuda")), runtime="cuda").env["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert "NVIDIA_VISIBLE_DEVICES" not in make_image().env


@pytest.mark.parametrize(
    "runtime, base, words",
    [
        ("cuda", {}, "needs a base with llama.cpp's CUDA backend; this base has: cpu"),
        ("cuda", {"backends": ("cpu", "vulkan")}, "has: cpu, vulkan"),
        ("applesilicon", {"backends": ("cpu", "vulkan")}, "needs an arm64 base"),
        ("applesilicon", {"architecture": "arm64"}, "Vulkan"),
        ("rocm", {}, "HIP"),
    ],
)
def test_a_base_that_would_fall_back_to_the_cpu_is_refused(runtime, base, words):
    with pytest.raises(AikitError, match=words):
        make_recipe(base=make_base(**base), runtime=runtime)


@pytest.mark.parametrize(
    "runtime, base",
    [("", {}), ("cuda", {"backends": ("cpu", "cuda")}), ("applesilicon", {"backends": ("vulkan",), "architecture": "arm64"})],
)
def test_a_fitting_base_is_taken(runtime, base):
    image.check_runtime(runtime, make_base(**base))


def test_a_name_gets_a_tag():
    assert reference.check_reference("localhost/aikit/a") == "localhost/aikit/a:latest"


@pytest.mark.parametrize("name", ["", "A", "a@sha256:" + "0" * 64])
def test_names_that_engines_refuse(name):
    with pytest.raises(AikitError, match="is no image reference"):
        reference.check_reference(name)


def state(built, **changes):
    values = {"id": built.id, "tags": (built.name,), "layers": DIGESTS, "env": built.env, "labels": built.labels}
    return ImageState(**{**values, **changes})


def test_what_an_engine_needs():
    built = make_image()
    assert image.load_action(built, "docker", state(built), state(built)) is None
    # Docker's containerd store calls the manifest digest the id
    assert image.load_action(built, "docker", state(built, id=built.digest), None) is None
    assert image.load_action(built, "docker", None, state(built)).verb == "tag"
    assert image.load_action(built, "docker", state(built, id="sha256:00"), None).verb == "load"


def test_the_diff_names_the_layer_and_the_setting():
    built = make_image(env={"LLAMA_ARG_CTX_SIZE": "2"})
    old = state(built, layers=(*DIGESTS[:2], "sha256:old"), env={"LLAMA_ARG_CTX_SIZE": "1"})
    before, after = image.describe_observed(old, built), image.describe(built)
    assert before["layers"][:2] == after["layers"][:2]
    assert (before["layers"][2], after["layers"][2]) == ("config: aikitfile and settings sha256:old", "config: aikitfile and settings " + DIGESTS[2])
    assert before["env"]["LLAMA_ARG_CTX_SIZE"] == "1" and after["env"]["LLAMA_ARG_CTX_SIZE"] == "2"
    assert image.describe_observed(None, built) == {}


def test_info_of_our_image():
    built = make_image()
    found = image.info(state(built, entrypoint=("/usr/bin/llama-server",)))
    assert (found["server"], found["runtime"], found["models"][0]["name"]) == ("llama_cpp", "", "gemma")
    assert found["base"]["digest"] == "sha256:" + "1" * 64


@pytest.mark.parametrize("label", ["not json", "[1]", "{}", "", "[" * 5000])
def test_info_of_labels_that_others_wrote(label):
    assert image.info(ImageState("sha256:1", labels={"io.aikit.fleet.models": label}))["models"] == []


@pytest.mark.parametrize(
    "asked, ref",
    [("localhost/b:2", "localhost/b:2"), ("gemma", "docker.io/library/gemma:latest"), ("sha256:" + "1" * 64, "localhost/a:1"), ("", "localhost/a:1")],
)
def test_info_names_the_image_as_it_was_asked_for(asked, ref):
    tags = ("localhost/a:1", "localhost/b:2", "docker.io/library/gemma:latest")
    found = image.info(ImageState("sha256:" + "1" * 64, tags), asked)
    assert (found["ref"], found["tags"]) == (ref, list(tags))


@pytest.mark.parametrize(
    "described, words",
    [
        ({}, "neither id nor digest"),
        ({"id": "sha256:1"}, "id: 'sha256:1' is no digest"),
        ({"id": DIGESTS[0], "layers": "abc"}, "must be a list of mappings"),
        ({"id": DIGESTS[0], "layers": ["abc"]}, "must be a list of mappings"),
        ({"id": DIGESTS[0], "layers": {"digest": "x"}}, "must be a list of mappings"),
        ({"id": DIGESTS[0], "layers": [{}]}, r"layers\[0\].digest: '' is no digest"),
        ({"id": DIGESTS[0], "layers": [{"digest": 5}]}, r"layers\[0\].digest: 5 is no digest"),
    ],
)
def test_a_description_of_an_image_that_is_none(described, words):
    with pytest.raises(AikitError, match=words):
        engine.identities(described)


def test_a_description_of_an_image():
    described = {"id": "", "digest": DIGESTS[1], "layers": [{"digest": DIGESTS[0], "role": "base"}, {"digest": DIGESTS[1], "diff_id": DIGESTS[2]}]}
    assert engine.identities(described) == (["", DIGESTS[1]], [(DIGESTS[0], DIGESTS[0]), (DIGESTS[2], DIGESTS[1])])
    assert engine.identities({"id": DIGESTS[0], "layers": None}) == ([DIGESTS[0], ""], [])


def test_images_with_labels_have_no_comment():
    config = json.loads(make_image().config)
    assert "comment" not in config and config["history"][-1]["comment"] == "aikitfile and settings"


def test_labels_and_annotations_win_over_a_comment():
    told = ImageState("sha256:1", facts={"io.aikit.fleet.server": "localai", "io.aikit.fleet.runtime": "a", "io.aikit.fleet.aikitfile.sha256": "1"})
    assert image.info(told)["annotations"] == told.facts
    found = image.info(replace(told, labels={"io.aikit.fleet.runtime": "b"}), "", {"io.aikit.fleet.runtime": "c", "io.aikit.fleet.aikitfile.sha256": "2"})
    assert (found["server"], found["runtime"], found["aikitfile_sha256"]) == ("localai", "b", "2")


def test_images_that_were_built_here():
    label = {"io.aikit.fleet.server": "llama_cpp"}
    assert image.built_here(ImageState("sha256:1", labels=label)) and image.built_here(ImageState("sha256:1", facts=label))
    assert image.built_here(ImageState("sha256:1", ("localhost/aikit/a:latest",)))
    assert not image.built_here(ImageState("sha256:1", ("localhost/gemma:1",), entrypoint=("local-ai",), facts={"other": "x"}))


def test_info_of_an_aikit_image():
    found = image.info(ImageState("sha256:1", ("ghcr.io/a/b:1",), ("ghcr.io/a/b@sha256:9",), {}, {"BUILD_TYPE": "cublas"}, ("local-ai",)))
    assert (found["server"], found["runtime"], found["digest"]) == ("localai", "cuda", "sha256:9")


WORDS = st.text(st.characters(min_codepoint=32, blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)
KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,15}", fullmatch=True)


@st.composite
def releases(draw):
    """Images of one or two platforms with layers of any bytes, some of them shared."""
    data = draw(st.lists(st.binary(max_size=300), min_size=1, max_size=4, unique=True))
    made = []
    for architecture in draw(st.sampled_from((("amd64",), ("arm64", "amd64")))):
        chosen = data[draw(st.integers(0, len(data) - 1)) :]
        layers = tuple(image.LayerRecipe(draw(st.sampled_from(("base", "model", "config"))), draw(WORDS), (raw,)) for raw in chosen)
        config = {
            "Env": [f"{key}={value}" for key, value in draw(st.dictionaries(KEYS, WORDS, max_size=3)).items()],
            "Entrypoint": draw(st.lists(WORDS, min_size=1, max_size=3)),
            "Labels": draw(st.dictionaries(KEYS, WORDS, max_size=3)),
        }
        plan = image.ImageRecipe("registry.example:5000/any:1", architecture, layers, config, draw(st.dictionaries(KEYS, WORDS, max_size=2)))
        made.append(image.finish(plan, [oci.sha256(raw) for raw in chosen]))
    return image.release(made)


def layout_of(release, folder):
    """What the archive unpacks to, which is an OCI layout."""
    raw = b"".join(image.archive(release))
    with tarfile.open(fileobj=io.BytesIO(raw)) as reader:
        for member in reader:
            if not member.isdir():
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(reader.extractfile(member).read())


@settings(deadline=None, max_examples=100)
@given(releases())
def test_any_image_is_what_its_digests_say(release):
    blobs = {digest: b"".join(parts) for digest, parts in release.blobs().items()}
    assert all(oci.sha256(raw) == digest for digest, raw in blobs.items())
    for made in release.images:
        parsed = oci.parse_manifest(blobs[made.digest], oci.MEDIA_MANIFEST, "x")
        assert [(layer.digest, layer.size) for layer in parsed.layers] == [(layer.digest, len(blobs[layer.digest])) for layer in made.layers]
        assert (parsed.config.digest, parsed.config.size) == (made.id, len(blobs[made.id]))
        assert oci.diff_ids(json.loads(blobs[made.id]), parsed.layers, "x") == tuple(layer.digest for layer in made.layers)
        assert parsed.annotations == made.annotations
    if len(release.images) > 1:
        index = oci.parse_index(release.raw, release.media_type, "x")
        assert [(entry.digest, entry.size, entry.platform) for entry in index.manifests] == [
            (made.digest, len(made.manifest), made.platform) for made in release.images
        ]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not here")
@settings(deadline=None, max_examples=15)
@given(releases())
def test_skopeo_reads_any_image_as_it_is(release):
    for made in release.images:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            layout_of(release, folder)
            words = ["skopeo", "inspect", f"--override-arch={made.platform.split('/')[1]}", "--override-os=linux", f"oci:{folder}"]
            told = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
            config = json.loads(subprocess.run([*words, "--config"], capture_output=True, check=True).stdout)
            # Copied, all of it is read, and compared with its digests
            subprocess.run(
                [words[0], "--insecure-policy", "copy", "--quiet", "--all", f"oci:{folder}", f"dir:{folder / 'copy'}"], check=True, capture_output=True
            )
        assert told["Layers"] == [layer.digest for layer in made.layers] and told["Architecture"] == made.platform.split("/")[1]
        assert (told["Labels"] or {}) == dict(made.labels)
        assert config["config"]["Entrypoint"] == json.loads(made.config)["config"]["Entrypoint"]
        assert sorted(config["config"].get("Env") or []) == sorted(f"{key}={value}" for key, value in made.env.items())


def is_json(raw):
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True


def test_oras_carries_any_image_to_a_registry_and_back(monkeypatch):
    """The ORAS project's client checks a layout and its manifests, pushes what it found in it, and makes a layout of what it pulls."""
    layout = pytest.importorskip("oras.layout")
    client = pytest.importorskip("oras.client")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    @settings(deadline=None, max_examples=25)
    @given(releases())
    def carries(release):
        blobs = {digest: b"".join(parts) for digest, parts in release.blobs().items()}
        # It takes a layer that is JSON by chance for a manifest
        assume(not any(is_json(blobs[layer.digest]) for layer in release.layers))
        with tempfile.TemporaryDirectory() as name, FakeRegistry() as server:
            folder, target = Path(name), f"{server.host}/fleet/any:1"
            layout_of(release, folder / "ours")
            ours = layout.Layout(str(folder / "ours"))
            order = ours.get_ordered_blobs(release.name)
            assert set(order) == set(blobs) and order[-1] == release.digest
            provider = client.OrasClient(insecure=True)
            ours.push_to_registry(provider, target, release.name)
            assert server.manifests["fleet/any"]["1"] == (release.media_type, release.raw)
            layout.NewLayoutFromRegistry(str(folder / "theirs"), provider, target)
            there = {f"sha256:{path.name}": path.read_bytes() for path in (folder / "theirs/blobs/sha256").iterdir()}
            assert there == blobs

    carries()


def test_of_two_files_beside_models_the_later_is_in_the_image():
    first, other = image.ModelFile("a", "/store/1", "1" * 64, 1, "LICENSE", True), image.ModelFile("a", "/store/2", "2" * 64, 1, "README.md", True)
    weights = image.ModelFile("a", "/store/3", "3" * 64, 1, "m.gguf")
    later = image.ModelFile("b", "/store/4", "4" * 64, 1, "LICENSE", True)
    no_weights = {"/models/LICENSE", "/models/README.md"}
    assert image.laid_over([weights, first, other], later, no_weights) == [weights, other, later]
    # Models are never replaced, nor does a model replace anything: two of one name are told elsewhere
    named = image.ModelFile("b", "/store/5", "5" * 64, 1, "m.gguf", True)
    assert image.laid_over([weights], named, no_weights) == [weights, named]
    model = image.ModelFile("b", "/store/6", "6" * 64, 1, "LICENSE")
    assert image.laid_over([first], model, no_weights) == [first, model]
