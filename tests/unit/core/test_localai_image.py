# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AIKit's image of an aikitfile, release by release: what goes in, what is said of it, and what cannot be done."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import replace

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_aikit_release, image, localai_image
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile, Model, PromptTemplate
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_aikit_release import CPU, CUDA, VULKAN
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import parse_image
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.image import ModelFile
from ansible_collections.aikit.fleet.plugins.module_utils._core.localai_image import BaseLayer, Overrides, Parts
from ansible_collections.aikit.fleet.plugins.module_utils._core.tar import FileRef
from hypothesis import given, settings
from hypothesis import strategies as st

OLD, MAIN = (localai_image.release(version) for version in ("0.21.0", "main"))
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILE = Aikitfile(models=(Model("m", "m.gguf"),), config="- name: m\n", text="text", sha256="0" * 64)
DIGEST = "sha256:" + "1" * 64
NO_OVERRIDES = Overrides()


def test_releases():
    assert OLD.localai == "v4.0.0" and MAIN.localai == "v4.7.1" and OLD.legacy == MAIN.legacy == "v3.12.1"
    assert localai_image.release("v0.21") is OLD
    assert localai_image.release("0.20.3") is None and localai_image.release("nonsense") is None


@pytest.mark.parametrize(
    "runtime, architecture, release, expected",
    [
        (
            "",
            "amd64",
            OLD,
            {
                "base": "ghcr.io/kaito-project/aikit/base:latest",
                "local-ai": "ghcr.io/kaito-project/aikit/localai:v4.0.0-amd64",
                "cpu-llama-cpp": "quay.io/go-skynet/local-ai-backends:v4.0.0-cpu-llama-cpp",
            },
        ),
        (
            "",
            "arm64",
            MAIN,
            {
                "base": "ghcr.io/kaito-project/aikit/base:latest",
                "local-ai": "ghcr.io/kaito-project/aikit/localai:v4.7.1-arm64",
                "cpu-llama-cpp": "quay.io/go-skynet/local-ai-backends:v4.7.1-cpu-llama-cpp",
            },
        ),
        (
            "cuda",
            "amd64",
            MAIN,
            {
                "base": "ghcr.io/kaito-project/aikit/base:latest",
                "local-ai": "ghcr.io/kaito-project/aikit/localai:v4.7.1-amd64",
                "cuda12-llama-cpp": "quay.io/go-skynet/local-ai-backends:v4.7.1-gpu-nvidia-cuda-12-llama-cpp",
                "cpu-llama-cpp": "quay.io/go-skynet/local-ai-backends:v4.7.1-cpu-llama-cpp",
            },
        ),
        (
            "cuda",
            "arm64",
            OLD,
            {
                "base": "ghcr.io/kaito-project/aikit/base:latest",
                "local-ai": "ghcr.io/kaito-project/aikit/localai:v4.0.0-arm64",
                "cpu-llama-cpp": "quay.io/go-skynet/local-ai-backends:v4.0.0-cpu-llama-cpp",
            },
        ),
        (
            "applesilicon",
            "arm64",
            OLD,
            {
                "base": "ghcr.io/kaito-project/aikit/applesilicon/base:latest",
                "local-ai": "ghcr.io/kaito-project/aikit/localai:v3.12.1-arm64",
                "gpu-vulkan-llama-cpp": "quay.io/go-skynet/local-ai-backends:v3.12.1-gpu-vulkan-llama-cpp",
            },
        ),
    ],
)
def test_sources(runtime, architecture, release, expected):
    assert localai_image.sources(replace(FILE, runtime=runtime), release, architecture, NO_OVERRIDES).as_dict() == expected


def test_a_named_backend_has_another_base_in_one_release():
    named = replace(FILE, backends=("llama-cpp",))
    assert localai_image.sources(named, OLD, "amd64", NO_OVERRIDES).base == "docker.io/library/ubuntu:22.04"
    assert localai_image.sources(named, MAIN, "amd64", NO_OVERRIDES).base == "ghcr.io/kaito-project/aikit/base:latest"
    assert localai_image.folders_of_base("docker.io/library/ubuntu:22.04") and not localai_image.folders_of_base(data_aikit_release.BASE)


def test_overrides():
    asked = localai_image.overrides({"version": "v9", "backend_version": "v8", "sources": {"cpu-llama-cpp": f"r.example/cpu@{DIGEST}"}}, None)
    found = localai_image.sources(replace(FILE, runtime="cuda"), MAIN, "amd64", asked)
    assert found.local_ai.endswith("localai:v9-amd64")
    assert [ref for _backend, ref in found.backends] == ["quay.io/go-skynet/local-ai-backends:v8-gpu-nvidia-cuda-12-llama-cpp", f"r.example/cpu@{DIGEST}"]
    assert localai_image.sources(FILE, MAIN, "amd64", localai_image.overrides(None, "r.example/base:1")).base == "r.example/base:1"
    with pytest.raises(AikitError, match="cuda-llama is no part of an image. Known: base, local-ai, cpu-llama-cpp"):
        localai_image.sources(FILE, MAIN, "amd64", localai_image.overrides({"sources": {"cuda-llama": "x"}}, None))
    with pytest.raises(AikitError, match="Keep one of the two"):
        localai_image.sources(FILE, MAIN, "amd64", localai_image.overrides({"sources": {"base": "a.example/x"}}, "b.example/y"))
    with pytest.raises(AikitError, match="is a path, and server localai takes the reference.*server: llama_cpp"):
        localai_image.overrides(None, "/root/.cache/base.tar")


@pytest.mark.parametrize(
    "changes, version, architectures, why",
    [
        ({}, "0.21.0", ["amd64", "arm64"], ""),
        ({"runtime": "cuda"}, "main", ["amd64"], ""),
        ({"runtime": "cuda"}, "0.21.0", ["arm64"], ""),
        ({"runtime": "applesilicon"}, "0.21.0", ["arm64"], ""),
        ({"backends": ("llama-cpp",)}, "0.21.0", ["amd64"], ""),
        ({"runtime": "cuda"}, "0.21.0", ["amd64"], "AIKit v0.21.0 runs commands inside the image (apt-get install of pciutils, libcublas-12-5"),
        ({"runtime": "rocm"}, "main", ["amd64"], "with runtime rocm AIKit main runs commands inside the image"),
        ({"backends": ("vllm",), "runtime": "cuda"}, "main", ["amd64"], "backend vllm gets its Python libraries"),
        ({"backends": ("llama-cpp",), "models": ()}, "main", ["amd64"], "this is a runner image"),
        ({}, "0.20.3", ["amd64"], "what AIKit v0.21.0 and main put into an image, not what v0.20.3 does"),
    ],
)
def test_what_cannot_be_assembled(changes, version, architectures, why):
    wanted = replace(FILE, **changes)
    found = localai_image.obstacle(wanted, version, architectures)
    assert (why in found) if why else found == ""
    if not why:
        assert localai_image.require_direct(wanted, version, architectures) is localai_image.release(version)
        return
    with pytest.raises(AikitError, match="cannot be assembled directly. Use builder: buildkit") as error:
        localai_image.require_direct(wanted, version, architectures)
    assert ("aikit_version: main" in str(error.value)) == (changes == {"runtime": "cuda"})


def test_architecture():
    assert localai_image.architecture([], "", "x86_64") == "amd64" and localai_image.architecture([], "cuda", "aarch64") == "arm64"
    assert localai_image.architecture([], "applesilicon", "x86_64") == "arm64"
    assert localai_image.architecture(["linux/arm64"], "", "x86_64") == "arm64"
    with pytest.raises(AikitError, match="no images for riscv64"):
        localai_image.architecture([], "", "riscv64")
    with pytest.raises(AikitError, match="applesilicon is for linux/arm64 only"):
        localai_image.architecture(["linux/amd64"], "applesilicon", "x86_64")


def test_container_configs():
    """As image.go writes them: also a variable that is there twice."""
    cuda = ["NVIDIA_REQUIRE_CUDA=cuda>=12.0", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "NVIDIA_VISIBLE_DEVICES=all"]
    plain = [PATH, "CONFIG_FILE=/config.yaml"]
    command = ["--config-file=/config.yaml"]
    cases = [
        (FILE, MAIN, plain, command),
        (replace(FILE, debug=True), OLD, plain, ["--debug", *command]),
        (replace(FILE, config=""), OLD, plain, None),
        (replace(FILE, runtime="cuda"), MAIN, [*plain, *cuda, "BUILD_TYPE=cublas"], command),
        (
            replace(FILE, runtime="cuda"),
            OLD,
            [*plain, f"{PATH}:/usr/local/cuda/bin", *cuda, "LD_LIBRARY_PATH=/usr/local/cuda/lib64", "BUILD_TYPE=cublas", "CUDA_HOME=/usr/local/cuda"],
            command,
        ),
        (replace(FILE, runtime="applesilicon"), OLD, [*plain, "VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/virtio_icd.aarch64.json"], command),
        (replace(FILE, load_to_memory=("a", "b")), MAIN, [*plain, "LOCALAI_LOAD_TO_MEMORY=a,b"], command),
    ]
    for aikitfile, release, env, cmd in cases:
        wanted = {"Entrypoint": ["local-ai"], "Env": env, "WorkingDir": "/", **({"Cmd": cmd} if cmd else {})}
        assert localai_image.container_config(aikitfile, release, "amd64") == wanted


def test_metadata():
    assert localai_image.metadata(MAIN, CPU) == (
        b'{\n  "alias": "llama-cpp",\n  "name": "cpu-llama-cpp",\n  "gallery_url": "github:mudler/LocalAI/backend/index.yaml@master"\n}'
    )
    assert localai_image.metadata(OLD, CUDA) == (
        b'{\n  "alias": "llama-cpp",\n  "name": "cuda12-llama-cpp",\n  "gallery_url": "github:mudler/LocalAI/backend/index.yaml@master",\n'
        b'  "installed_at": "1970-01-01T00:00:00Z"\n}'
    )
    assert json.loads(localai_image.metadata(OLD, VULKAN))["name"] == "gpu-vulkan-llama-cpp"


# ---- texts


def by_the_shell(text: str) -> bytes:
    return subprocess.run(["/bin/sh", "-c", f'echo -n "{text}"'], check=True, capture_output=True, env={"x": "value", "PATH": "/nowhere"}).stdout


def test_texts_of_both_releases():
    template = PromptTemplate("chat", '{{ if eq .RoleName \\"user\\" }}x{{ end }}\n')
    wanted = replace(FILE, config='- name: m\n  x: \\"a\\"\n', models=(Model("m", "m.gguf", prompt_templates=(template, PromptTemplate("empty", ""))),))
    old, new = localai_image.texts(wanted, OLD), localai_image.texts(wanted, MAIN)
    assert old.findings == new.findings == ()
    assert old.config == b'- name: m\n  x: "a"\n' == by_the_shell(wanted.config)
    assert old.templates == {"chat": b'{{ if eq .RoleName "user" }}x{{ end }}\n'} and by_the_shell(template.template) == old.templates["chat"]
    assert new.config == wanted.config.encode() and new.templates == {"chat": template.template.encode()}
    assert localai_image.texts(replace(FILE, config=""), OLD).config is None


@pytest.mark.parametrize(
    "text, shown",
    [
        ('a: "b"', '"'),
        ("cost: $x", "$"),
        ("a: `id`", "`"),
        ("a: $(id)", "$"),
        ("b: \\\\", "\\\\"),
        ("b: \\$x", "\\$"),
        ("b: x\\ny", "\\n"),
        ("b: \\0123", "\\0"),
        ("end \\", "\\"),
        ("two\\\nlines", "a backslash at the end of the line"),
        ('x: \\\\"', "\\\\"),
        ("b: \\tx", "\\t"),
    ],
)
def test_what_the_old_shell_would_change_is_refused(text, shown):
    found = localai_image.texts(replace(FILE, config=f"- name: m\n  {text}"), OLD, {"config": 7})
    (finding,) = found.findings
    assert finding.level == "error" and finding.path == "config" and finding.line == 8
    assert finding.message.startswith(f"{shown} at line 8, character ") and "AIKit v0.21.0 hands this text to a shell" in finding.message
    assert localai_image.texts(replace(FILE, config=text), MAIN).findings == ()
    # It is no false alarm
    shell = subprocess.run(["/bin/sh", "-c", f'echo -n "{text}"'], capture_output=True, env={"x": "value", "PATH": "/nowhere"}, check=False)
    assert shell.returncode != 0 or shell.stdout != text.replace('\\"', '"').encode()


def test_positions_without_lines_and_names_of_templates():
    _text, (finding,) = localai_image.shell_text("one\ntwo $a $b `c`", "config", 0, "v0.21.0")
    assert "line 2 of the text, character 5 and 3 more" in finding.message and finding.line == 0
    wanted = replace(FILE, models=(Model("m", "m.gguf", prompt_templates=(PromptTemplate("a b", "x"),)),))
    (finding,) = localai_image.texts(wanted, OLD).findings
    assert finding.path == "models[0].promptTemplates[0].name" and "'a b' is a word that the shell" in finding.message
    assert localai_image.texts(wanted, MAIN).templates == {"a b": b"x"}


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab1 \n\\\"$`'!{}()|<>&;#*?~-.%nt0cue@"), max_size=30))
def test_what_passes_is_what_the_shell_writes(text):
    written, findings = localai_image.shell_text(text, "config", 1, "v0.21.0")
    if not findings:
        assert by_the_shell(text) == written.encode()


# ---- the image


def parts(tmp_path, backends=("cpu-llama-cpp",), folders=None, tag="v4.7.1-"):
    program = tmp_path / "local-ai"
    program.write_bytes(b"program")
    base = BaseLayer("/nowhere/base", "sha256:" + "b" * 64, "sha256:" + "d" * 64, 1000, "application/vnd.oci.image.layer.v1.tar+gzip", "r.example/base")
    tars = tuple((f"backends/{name}", FileRef(str(program), 7)) for name in backends)
    digests = {
        "base": f"r.example/base:1@{DIGEST}",
        "local-ai": f"r.example/localai:1@{DIGEST}",
        **{name: f"r.example/b:{tag}{name}@{DIGEST}" for name in backends},
    }
    return Parts((base,), folders or {}, FileRef(str(program), 7), tars, digests)


def listing(segments):
    data = b"".join(part if isinstance(part, bytes) else open(part.path, "rb").read() for part in segments)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        return [(m.name, oct(m.mode), m.uid, m.gid, None if m.isdir() else reader.extractfile(m).read()) for m in reader]


def test_the_recipe(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"gguf")
    model = ModelFile("m", str(tmp_path / "m.gguf"), "5" * 64, 4)
    wanted = replace(FILE, models=(Model("m", "m.gguf", prompt_templates=(PromptTemplate("chat", "{{.Input}}"),)),))
    made_of = parts(tmp_path, ("cuda12-llama-cpp", "cpu-llama-cpp"))
    found = localai_image.recipe("x:1", wanted, "main", MAIN, "amd64", made_of, [model], localai_image.texts(wanted, MAIN))
    assert [(layer.role, layer.title) for layer in found.layers] == [
        ("base", "base"),
        ("server", "local-ai"),
        ("backend", "backends/cuda12-llama-cpp"),
        ("backend", "backends/cpu-llama-cpp"),
        ("model", "m"),
        ("config", "config.yaml and templates"),
    ]
    assert listing(found.layers[1].parts) == [("usr", "0o755", 0, 0, None), ("usr/bin", "0o755", 0, 0, None), ("usr/bin/local-ai", "0o755", 0, 0, b"program")]
    assert listing(found.layers[4].parts) == [("models", "0o755", 0, 0, None), ("models/m.gguf", "0o444", 0, 0, b"gguf")]
    assert listing(found.layers[5].parts) == [
        ("config.yaml", "0o644", 0, 0, b"- name: m\n"),
        ("configuration", "0o755", 0, 0, None),
        ("models/chat.tmpl", "0o644", 0, 0, b"{{.Input}}"),
    ]
    made = image.finish(found, ["sha256:" + str(number) * 64 for number in range(6)])
    config, manifest = json.loads(made.config), json.loads(made.manifest)
    assert set(config["config"]) == {"Cmd", "Entrypoint", "Env", "WorkingDir"} and config["architecture"] == "amd64"
    assert config["rootfs"]["diff_ids"][0] == "sha256:" + "d" * 64
    assert manifest["layers"][0]["mediaType"].endswith("+gzip") and manifest["layers"][0]["size"] == 1000
    told = image.result(image.release([made]), (), [model])
    assert told["labels"] == {} and told["server"] == "localai" and told["base"] == {"ref": "r.example/base:1", "digest": DIGEST}
    assert json.loads(manifest["annotations"]["io.aikit.fleet.inputs"])["cpu-llama-cpp"] == f"r.example/b:v4.7.1-cpu-llama-cpp@{DIGEST}"
    assert told["annotations"]["io.aikit.fleet.server.version"] == "v4.7.1"


def made(tmp_path, runtime="", architecture="amd64", backends=("cpu-llama-cpp",), tag="v4.7.1-"):
    wanted, model = replace(FILE, runtime=runtime), ModelFile("m", "/m.gguf", "5" * 64, 4)
    written = localai_image.texts(wanted, MAIN)
    plan = localai_image.recipe("x:1", wanted, "main", MAIN, architecture, parts(tmp_path, backends, tag=tag), [model], written)
    return image.finish(plan, ["sha256:" + str(number) * 64 for number in range(len(plan.layers))])


def test_golden_digest(tmp_path):
    # A change of these changes the digest of every image that users have: a major version and a word in the changelog
    built = made(tmp_path)
    assert (built.id, built.digest) == (
        "sha256:07a30b51cc984bfe29c5a884066c515f25dc1bda7e83fa5d941e91a4b888d98d",
        "sha256:c2cb92bf2ecb5b5e61af92fd0ed68e840784cd89823d57e2c46baf6a58d5eec4",
    )


# As Docker 20.10 and Podman 4.3 were seen to do it; Docker's containerd store, as its source does
SHOWN = {
    "docker": lambda config: {"Comment": config["comment"]},
    "containerd": lambda config: {"Comment": config["history"][-1]["comment"]},
    "podman": lambda config: {"Comment": config["history"][0]["comment"], "History": config["history"]},
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_an_engine_tells_what_a_registry_tells(tmp_path, shown):
    built = made(tmp_path, "applesilicon", "arm64", ("gpu-vulkan-llama-cpp",), "v3.12.1-")
    config = json.loads(built.config)
    document = {"Id": built.id, "RepoTags": ["localhost/gemma:1"], "Config": config["config"], "Architecture": "arm64", "Os": "linux"}
    state = parse_image({**document, "RootFS": {"Layers": config["rootfs"]["diff_ids"]}, **shown(config)})
    told = image.info(state)
    assert state.facts == built.annotations == json.loads(built.manifest)["annotations"] and state.labels == {}
    assert (told["server"], told["runtime"], told["aikitfile_sha256"]) == ("localai", "applesilicon", "0" * 64)
    assert told["models"] == [{"name": "m", "sha256": "5" * 64, "size_bytes": 4}]
    assert told["base"] == {"ref": "r.example/base:1", "digest": DIGEST}
    assert told == image.info(replace(state, facts={}), "", built.annotations)
    # Whatever it is called
    assert image.built_here(state) and not image.built_here(replace(state, facts={}))


def test_steps_keep_their_comments_but_the_last(tmp_path):
    config = json.loads(made(tmp_path).config)
    assert [entry["comment"].partition(":")[0] for entry in config["history"]] == ["base", "local-ai", "backends/cpu-llama-cpp", "m", "io.aikit.fleet"]
    assert set(config["config"]) == {"Cmd", "Entrypoint", "Env", "WorkingDir"}


def test_a_backend_of_another_source_has_no_version(tmp_path):
    bare = replace(FILE, config="", models=())
    found = localai_image.recipe("x:1", bare, "main", MAIN, "amd64", parts(tmp_path, tag=""), [], localai_image.texts(bare, MAIN))
    assert "io.aikit.fleet.server.version" not in found.annotations


def test_folders_of_the_base_stay_as_they_are(tmp_path):
    bare = replace(FILE, config="", models=())
    found = localai_image.recipe(
        "x:1", bare, "main", MAIN, "arm64", parts(tmp_path, folders={"usr": (0o755, 0, 0), "usr/bin": (0o555, 0, 5)}), [], localai_image.texts(bare, MAIN)
    )
    assert listing(found.layers[1].parts)[:2] == [("usr", "0o755", 0, 0, None), ("usr/bin", "0o555", 0, 5, None)]
    # Nothing is written where there is nothing to write
    assert [layer.role for layer in found.layers] == ["base", "server", "backend"]


def test_files_of_artifacts_are_as_oras_writes_them(tmp_path):
    (tmp_path / "w.gguf").write_bytes(b"w")
    sources = {"a": "oci://r.example/model:1", "b": "oci://registry.ollama.ai/library/b:1", "c": "https://x.example/c.gguf"}
    wanted = replace(FILE, models=tuple(Model(name, source) for name, source in sources.items()))
    modes = [localai_image.model_mode(wanted, ModelFile(name, str(tmp_path / "w.gguf"), "", 1)) for name in sources]
    assert modes == [0o644, 0o444, 0o444]


def test_what_is_no_part_of_a_model_is_one_layer_and_no_model(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    models = [
        ModelFile("m", str(tmp_path / "a"), "1" * 64, 1, "m-1.gguf"),
        ModelFile("m", str(tmp_path / "b"), "2" * 64, 1, "m-2.gguf"),
        ModelFile("m", str(tmp_path / "c"), "3" * 64, 1, "LICENSE", companion=True),
        ModelFile("n", str(tmp_path / "a"), "1" * 64, 1, "n.gguf"),
        *(ModelFile("n", str(tmp_path / "b"), "2" * 64, 1, f"code/{number}.py", companion=True) for number in range(200)),
    ]
    wanted = replace(FILE, models=(Model("m", "oci://r.example/m:1"), Model("n", "huggingface://ns/n")))
    plan = localai_image.recipe("x:1", wanted, "main", MAIN, "amd64", parts(tmp_path), models, localai_image.texts(wanted, MAIN))
    found = [(layer.role, layer.title) for layer in plan.layers][3:]
    assert found == [("model", "m"), ("model", "m"), ("model", "n"), ("model", "files beside the models"), ("config", "config.yaml and templates")]
    held = listing(plan.layers[-2].parts)
    assert held[0] == ("models/LICENSE", "0o644", 0, 0, b"c") and held[1][0] == "models/code" and held[2] == ("models/code/0.py", "0o444", 0, 0, b"b")
    assert len(held) == 202 and plan.annotations["org.opencontainers.image.title"] == "m, n"
    listed = [{"name": name, "sha256": digest * 64, "size_bytes": 1} for name, digest in (("m", "1"), ("m", "2"), ("n", "1"))]
    assert json.loads(plan.annotations["io.aikit.fleet.models"]) == listed
    built = image.finish(plan, ["sha256:" + f"{number:064x}" for number in range(len(plan.layers))])
    assert image.result(image.release([built]), (), models)["models"] == listed
