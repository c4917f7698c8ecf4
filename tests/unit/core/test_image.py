# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image assembler: layers, config, manifest, archive; and that the same inputs give the same bytes everywhere."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import image
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model
from ansible_collections.aikit.fleet.plugins.module_utils._core.base import Base, Server
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.llama_server import ServerSettings
from ansible_collections.aikit.fleet.plugins.module_utils._core.tar import FileRef, total_size

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


def make_recipe(base=None, env=None, files=None, name="localhost/a:1", runtime=""):
    aikitfile = Aikitfile(
        runtime=runtime, models=(Model("gemma", "gemma.gguf", None, ()),), config="- name: gemma\n", text="apiVersion: v1alpha1\n", sha256="3" * 64
    )
    settings = ServerSettings(env=env or {"LLAMA_ARG_MODEL": "/models/gemma.gguf"}, args=(), files=files or {}, findings=())
    models = [image.ModelFile("gemma", "/store/gemma.gguf", "4" * 64, 1000)]
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
    assert image.check_reference("localhost/aikit/a") == "localhost/aikit/a:latest"


@pytest.mark.parametrize("name", ["", "A", "a@sha256:" + "0" * 64])
def test_names_that_engines_refuse(name):
    with pytest.raises(AikitError, match="is no image reference"):
        image.check_reference(name)


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


def test_info_of_an_aikit_image():
    found = image.info(ImageState("sha256:1", ("ghcr.io/a/b:1",), ("ghcr.io/a/b@sha256:9",), {}, {"BUILD_TYPE": "cublas"}, ("local-ai",)))
    assert (found["server"], found["runtime"], found["digest"]) == ("localai", "cuda", "sha256:9")
