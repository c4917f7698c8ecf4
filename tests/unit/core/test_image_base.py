# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images as bases: the server found in them, the image made of them, several platforms, and golden digests."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_llama_server, image, image_base, oci, tar
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model
from ansible_collections.aikit.fleet.plugins.module_utils._core.base import Server
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.image_base import ImageBase, LayerFiles, ServerHint
from ansible_collections.aikit.fleet.plugins.module_utils._core.llama_server import ServerSettings
from ansible_collections.aikit.fleet.plugins.module_utils._core.oci import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

DIGESTS = tuple("sha256:" + letter * 64 for letter in "abcdef")
GZIP = f"{oci.MEDIA_LAYER}+gzip"


def make_base(**changes):
    values = {
        "ref": "registry.example/llama.cpp:server",
        "digest": DIGESTS[0],
        "index_digest": "",
        "platform": "linux/amd64",
        "layers": (Descriptor(GZIP, DIGESTS[1], 100), Descriptor(oci.MEDIA_LAYER, DIGESTS[2], 200)),
        "diff_ids": (DIGESTS[3], DIGESTS[2]),
        "config": {"Env": ["PATH=/bin"], "WorkingDir": "/app"},
        "server": Server("/app/llama-server", "0.7.0"),
        "backends": ("cpu",),
        "library_path": "/app",
        "source": "registry.example/llama.cpp",
    }
    return ImageBase(**{**values, **changes})


def make_image(name="registry.example/fleet/a:1", **changes):
    aikitfile = Aikitfile(models=(Model("gemma", "gemma.gguf", None, ()),), config="- name: gemma\n", text="apiVersion: v1alpha1\n", sha256="3" * 64)
    models = [image.ModelFile("gemma", "/store/gemma.gguf", "4" * 64, 1000)]
    plan = image.recipe(
        name, aikitfile, make_base(**changes), "", models, ServerSettings(env={"LLAMA_ARG_MODEL": "/models/gemma.gguf"}), lambda digest: f"/blobs/{digest}"
    )
    return image.finish(plan, [layer.digest or f"sha256:{number:064d}" for number, layer in enumerate(plan.layers)])


def test_layers_of_another_image_are_kept():
    made = make_image()
    manifest, config = json.loads(made.manifest), json.loads(made.config)
    assert [(layer["mediaType"], layer["digest"], layer["size"]) for layer in manifest["layers"][:2]] == [
        (GZIP, DIGESTS[1], 100),
        (oci.MEDIA_LAYER, DIGESTS[2], 200),
    ]
    assert config["rootfs"]["diff_ids"][:2] == [DIGESTS[3], DIGESTS[2]] and len(config["history"]) == 4
    assert made.layers[0].parts == (tar.FileRef(f"/blobs/{DIGESTS[1]}", 100),) and made.layers[0].source == "registry.example/llama.cpp"
    assert made.layers[0].unpacked == DIGESTS[3] and made.layers[1].unpacked == DIGESTS[2]
    assert config["config"]["WorkingDir"] == "/app" and "Healthcheck" not in config["config"] and "LD_LIBRARY_PATH=/app" in config["config"]["Env"]
    with pytest.raises(AikitError, match="runtime: rocm needs"):
        image.check_runtime("rocm", make_base())
    image.check_runtime("rocm", make_base(backends=("cpu", "hip")))


def test_a_variant_is_told():
    made = make_image(platform="linux/arm/v7")
    assert json.loads(made.config)["variant"] == "v7" and made.platform == "linux/arm/v7"
    index = json.loads(image.release([make_image(), made]).raw)
    assert index["manifests"][1]["platform"] == {"os": "linux", "architecture": "arm", "variant": "v7"}


def test_golden_digests():
    # A change of these changes the digest of every image: it needs a major version and a word in the changelog
    both = image.release([make_image(), make_image(platform="linux/arm64", digest=DIGESTS[5])])
    assert (make_image().digest, make_image().id, both.digest) == (
        "sha256:fb63ac2d5407b8eeab67c3404dbb2473b7cbaacd897ac9eae69b7ee0d0dcd484",
        "sha256:d3cf54683c1649e49283bcecfa47b626f91e0e665e53d4dc53fd929c116177cd",
        "sha256:e016dee4f396794bf6aaa5eb1c53085178bc6e0cf0b4491d31dfb150ee2bf647",
    )
    assert (
        oci.sha256(b"".join(part if isinstance(part, bytes) else b"x" * part.size for part in image.archive(both)))
        == "sha256:dbf5dbd11e8c705fac5bae3d527a1ca255083efa345f33d0b8aa830faadf3e1d"
    )


def test_a_release_of_two_platforms():
    both = image.release([make_image(), make_image(platform="linux/arm64", digest=DIGESTS[5])])
    assert len(both.layers) == 4 and both.media_type == oci.MEDIA_INDEX and both.descriptor.platform == ""
    index = json.loads(both.raw)
    assert "org.opencontainers.image.base.digest" not in index["annotations"] and "io.aikit.fleet.models" in index["annotations"]
    assert set(both.blobs()) == {layer.digest for layer in both.layers} | {entry for made in both.images for entry in (made.id, made.digest)} | {both.digest}
    data = b"".join(part if isinstance(part, bytes) else b"x" * part.size for part in image.archive(both))
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        (entry,) = json.load(reader.extractfile("index.json"))["manifests"]
        (first,) = json.load(reader.extractfile("manifest.json"))
        assert entry["digest"] == both.digest and "platform" not in entry and first["Config"] == "blobs/sha256/" + both.images[0].id.partition(":")[2]


def test_the_search_for_a_server():
    top = LayerFiles(("app/llama-server",), (), {"app/llama-server": ("--model",)})
    below = LayerFiles(("app/libggml-cpu-x64.so", "app/libggml-cuda.so", "usr/lib/x86_64-linux-gnu/libllama.so.0", "opt/libllama.so"))
    assert not image_base.is_enough(top) and image_base.is_enough(image_base.merge([top, below]))
    hidden = LayerFiles((), ("app/libggml-cuda.so", "opt/"))
    found = image_base.merge([top, hidden, below])
    assert found.files == ("app/libggml-cpu-x64.so", "app/llama-server", "usr/lib/x86_64-linux-gnu/libllama.so.0")
    server, backends, library_path = image_base.find_server(image_base.merge([top, below]), {}, ServerHint(version="0.7.0"), "x")
    assert (server.path, backends, library_path) == ("/app/llama-server", ("cpu", "cuda"), "/app:/opt")
    assert image_base.find_server(LayerFiles(("a/b/llama-server", "z/llama-server")), {}, ServerHint(version="0.7.0"), "x")[0].path == "/z/llama-server"
    for name, expected in (("a/.wh.b", "a/b"), ("a/.wh..wh..opq", "a/"), ("a/b", "")):
        assert image_base.removed_path(name) == expected


def test_options_by_texts():
    table = data_llama_server.VERSIONS["0.7.0"]
    words = tuple(option for option in table["options"] if option.startswith("--"))
    every = LayerFiles(("app/llama-server",), (), {"app/llama-server": (*words, *table["environment"], "--of-another-program")})
    server = image_base.find_server(every, {"Labels": {"org.opencontainers.image.version": "b9999"}}, ServerHint(), "x/llama:server-b11669")[0]
    assert server.options == frozenset(table["options"]) and (server.version, server.build) == ("b9999", "11669")
    # An older one: what it has and is known, under the names that it has
    older = LayerFiles(
        ("app/llama-server",),
        (),
        {"app/llama-server": ("--model", "--port", "--n-gpu-layers", "--mlock", "--color", "-ngl", "LLAMA_ARG_PORT", "LLAMA_ARG_MODEL")},
    )
    server = image_base.find_server(older, {}, ServerHint(), "x")[0]
    assert (
        {"--model", "--port", "--mlock"} <= server.options
        and "--color" not in server.options
        and server.environment == {"LLAMA_ARG_PORT": "--port", "LLAMA_ARG_MODEL": "--model"}
    )


def test_labels_of_ours_are_enough():
    labels = {"io.aikit.fleet.server": "llama_cpp", "io.aikit.fleet.server.version": "0.7.0", "io.aikit.fleet.backends": "cpu,vulkan"}
    told = image_base.from_labels({"Labels": labels, "Entrypoint": ["/usr/bin/llama-server"]})
    assert told.complete and told.backends == ("cpu", "vulkan")
    assert (
        image_base.find_server(LayerFiles(), {"Labels": labels, "Entrypoint": ["/usr/bin/llama-server"]}, ServerHint(), "x")[0].path == "/usr/bin/llama-server"
    )
    assert not image_base.from_labels({"Labels": {**labels, "io.aikit.fleet.server": "localai"}}).complete


def test_bases_of_platforms():
    assert image_base.split_bases("a", []) == {"": "a"} and image_base.split_bases("a", ["linux/x86_64"]) == {"linux/amd64": "a"}
    assert image_base.split_bases({"linux/arm64/v8": "b", "linux/amd64": "a"}, []) == {"linux/arm64": "b", "linux/amd64": "a"}
    assert [image_base.kind(text) for text in ("oci:/x", "/x", "~/x", "x.tar", "ghcr.io/a/b")] == ["layout", "path", "path", "path", "image"]
    assert image_base.split_layout("oci:/x:a/b:1") == ("/x", "a/b:1") and image_base.split_layout("/x") == ("/x", "")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.binary(max_size=1500)), max_size=5, unique_by=lambda entry: entry[0]))
def test_any_tar_is_read_back(entries):
    # One path must not be the folder of another, and no name may be read as a folder
    paths = [path for path, _data in entries]
    entries = [(path, data) for path, data in entries if not any(other.startswith(path + "/") for other in paths)]
    raw = b"".join(part for part in tar.segments(tar.Entry(path, 0o644, (data,)) for path, data in entries))
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8") as reader:
        assert [(member.name, reader.extractfile(member).read()) for member in reader] == entries
    assert len(raw) % 512 == 0 and raw.endswith(b"\0" * 1024)
    listed = subprocess.run(["tar", "--list", "--null", "--quoting-style=literal", "--file=-"], input=raw, capture_output=True, check=True)
    assert listed.stderr == b"" and len([line for line in listed.stdout.split(b"\n") if line]) == len(entries)


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([oci.MEDIA_LAYER, GZIP]), st.integers(0, 2**45)), min_size=1, max_size=6),
    st.dictionaries(TEXT, TEXT, max_size=4),
    st.dictionaries(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), TEXT.filter(lambda text: "\0" not in text), max_size=4),
)
def test_any_manifest_says_what_its_image_is(layers, labels, env):
    found = tuple(Descriptor(kind, f"sha256:{number:064x}", size) for number, (kind, size) in enumerate(layers))
    base = {
        "layers": found,
        "diff_ids": tuple(layer.digest for layer in found),
        "config": {"Labels": labels, "Env": [f"{key}={value}" for key, value in env.items()]},
    }
    made = make_image(**base)
    manifest, config = oci.parse_manifest(made.manifest), json.loads(made.config)
    assert manifest.layers[: len(found)] == tuple(
        Descriptor(layer.media_type, layer.digest, layer.size, {"io.aikit.fleet.role": "base", "org.opencontainers.image.title": make_base().ref})
        for layer in found
    )
    assert manifest.config.digest == made.id == oci.sha256(made.config) and manifest.config.size == len(made.config)
    assert len(oci.diff_ids(config, manifest.layers, "x")) == len(config["history"]) == len(found) + 2
    assert oci.canonical(json.loads(made.manifest)) == made.manifest and make_image(**base).digest == made.digest
    assert {**env, **dict(pair.split("=", 1) for pair in config["config"]["Env"])} == dict(pair.split("=", 1) for pair in config["config"]["Env"])
