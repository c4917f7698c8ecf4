# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AIKit's own image, assembled from a registry, against the same built by Docker from a Dockerfile that does what AIKit does.

What the images are made of stands in a real registry, and stands in for the real ones (tests/stand_ins.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Mapping, Optional

import models
import pytest
import stand_ins
import support
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer
from helpers import gguf, task
from registries import Registry
from support import docker, inspect

IMAGE = "localhost/aikit-e2e/localai:1"
ORACLE = "localhost/aikit-e2e/localai-oracle:1"
SERVICE = "aikit-e2e-localai"
PACK, PATH, TITLE = "application/vnd.cncf.model.", "org.cncf.model.filepath", "org.opencontainers.image.title"
TEMPLATE = "{{ if eq .RoleName 'user' }}USER: {{ end }}{{.Content}}\n"
LOGS = support.ROOT / "tests/fixtures/logs"


def cpu_lines() -> list[str]:
    words = ("No devices found", "print_info: n_", "buffer size =")
    return [line for line in (LOGS / "captured/cpu.log").read_text().splitlines() if any(word in line for word in words)]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        found = made.host
        stand_ins.fill(found, cpu_lines())
        yield found
        listed = docker("images", "--format={{.Repository}}:{{.Tag}}").splitlines()
        images = [line for line in listed if line.startswith((f"{found}/", "localhost/aikit-e2e/localai"))]
        docker("rmi", "--force", *images, check=False)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    (folder / "fake-model.gguf").write_bytes(gguf())
    (folder / "other.gguf").write_bytes(gguf("qwen2"))
    return folder


@pytest.fixture
def build(host, context, tmp_path):
    """Run aikit_image; everything that it keeps is below ``tmp_path``."""

    def run(check: bool = False, fails: bool = False, runtime: str = "", version: str = "main", more: Any = None, **arguments: Any) -> dict[str, Any]:
        document = {
            "apiVersion": "v1alpha1",
            "models": [
                {"name": "fake-model", "source": "fake-model.gguf", "promptTemplates": [{"name": "chat", "template": TEMPLATE}]},
                {"name": "other", "source": "other.gguf"},
            ],
            "config": (stand_ins.FAKE / "config.yaml").read_text(),
            **({"runtime": runtime} if runtime else {}),
            **(more or {}),
        }
        config = "".join(f"  {line}\n" for line in document.pop("config").splitlines())
        aikitfile = tmp_path / "aikitfile.yaml"
        aikitfile.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items()) + f"config: |\n{config}")
        folders = {"blobs": str(tmp_path / "blobs"), "cache": str(tmp_path / "digests"), "store": str(tmp_path / "models")}
        wanted = {"name": IMAGE, "src": str(aikitfile), "context": str(context), "aikit_version": version, "registry_mirrors": stand_ins.mirrors(host)}
        found = task("aikit_image", check=check, **{**wanted, **folders, **arguments})
        assert bool(found.get("failed")) == fails, found.get("msg")
        return found

    return run


def listing(exported: bytes) -> dict[str, tuple[Any, ...]]:
    """Every path of an exported container: kind, mode, owners, what is in it, and which other names it has."""
    found: dict[str, tuple[Any, ...]] = {}
    names: dict[str, list[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(exported)) as reader:
        for member in reader:
            path = member.name.strip("/")
            first = member.linkname.strip("/") if member.islnk() else path
            names.setdefault(first, []).append(path)
            if member.islnk():
                continue
            content = hashlib.sha256(reader.extractfile(member).read()).hexdigest() if member.isreg() else member.linkname
            found[path] = (member.type, oct(member.mode), member.uid, member.gid, member.size, content)
    for first, others in names.items():
        for path in others:
            found[path] = (*found[first][:6], sorted(others))
    return found


def exported(engine: str, image: str) -> dict[str, tuple[Any, ...]]:
    def run(*words: str) -> bytes:
        done = subprocess.run([engine, *words], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    container = run("create", image).decode().strip()
    try:
        return listing(run("export", container))
    finally:
        run("rm", container)


def oracle(
    host: str,
    context: Path,
    folder: Path,
    runtime: str,
    version: str,
    base: str = "ghcr/kaito-project/aikit/base:latest",
    more: Optional[Mapping[str, tuple[bytes, int]]] = None,
) -> dict[str, Any]:
    """What Docker makes of AIKit's steps: the copies, files and modes of its frontend, one instruction each.

    ``more`` are further files of models, by their paths below /models.
    """
    release = {"main": "v4.7.1", "0.21.0": "v4.0.0"}[version]
    directories = {"cpu-llama-cpp": "cpu-llama-cpp"}
    if runtime == "cuda":
        directories = {"cuda12-llama-cpp": "gpu-nvidia-cuda-12-llama-cpp", **directories}
    platform = "linux/amd64"
    if runtime == "applesilicon":
        platform, base, release = "linux/arm64", "ghcr/kaito-project/aikit/applesilicon/base:latest", "v3.12.1"
        directories = {"gpu-vulkan-llama-cpp": "gpu-vulkan-llama-cpp"}
    lines = [f"FROM --platform={platform} {host}/{base}"]

    def copy(source: str, target: str, data: bytes, mode: int) -> None:
        path = folder / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        lines.append(f"COPY {source} {target}")

    for name in ("fake-model.gguf", "other.gguf"):
        copy(f"models/{name}", f"/models/{name}", (context / name).read_bytes(), 0o444)
    for name, (data, mode) in (more or {}).items():
        copy(f"models/{name}", f"/models/{name}", data, mode)
    copy("models/chat.tmpl", "/models/chat.tmpl", TEMPLATE.encode(), 0o644)
    copy("config.yaml", "/config.yaml", (stand_ins.FAKE / "config.yaml").read_bytes(), 0o644)
    (folder / "empty").mkdir()
    lines.append("COPY empty /configuration")
    copy("local-ai", "/usr/bin/local-ai", (stand_ins.FAKE / "local-ai").read_bytes(), 0o755)
    for directory, suffix in directories.items():
        lines.insert(0, f"FROM --platform={platform} {host}/quay/go-skynet/local-ai-backends:{release}-{suffix} AS {directory}")
        lines.append(f"COPY --from={directory} / /backends/{directory}/")
        installed = ',\n  "installed_at": "1970-01-01T00:00:00Z"' if version == "0.21.0" else ""
        text = f'{{\n  "alias": "llama-cpp",\n  "name": "{directory}",\n  "gallery_url": "github:mudler/LocalAI/backend/index.yaml@master"{installed}\n}}'
        copy(f"{directory}.json", f"/backends/{directory}/metadata.json", text.encode(), 0o644)
    (folder / "Dockerfile").write_text("\n".join([*lines, 'ENTRYPOINT ["local-ai"]', ""]))
    docker("build", "--quiet", f"--platform={platform}", f"--tag={ORACLE}", str(folder))
    return exported("docker", ORACLE)


@pytest.mark.parametrize("runtime, version", [("", "main"), ("cuda", "main"), ("applesilicon", "main"), ("", "0.21.0")])
def test_file_for_file_what_docker_makes_of_the_same_steps(host, context, build, tmp_path, runtime, version):
    found = build(runtime=runtime, version=version, load=["docker"])
    assert found["changed"] and found["builder"] == "direct"
    wanted = oracle(host, context, tmp_path / "oracle", runtime, version)
    have = exported("docker", IMAGE)
    assert {path for path in have if path.startswith("backends/gpu-vulkan" if runtime == "applesilicon" else "backends/cpu")} and len(have) > 40
    assert have == wanted
    described = json.loads(docker("inspect", IMAGE))[0]
    config = described["Config"]
    assert config["Entrypoint"] == ["local-ai"] and config["Cmd"] == ["--config-file=/config.yaml"] and config["WorkingDir"] == "/"
    assert not config["Labels"] and not config["User"] and not config.get("ExposedPorts") and not config.get("Healthcheck")
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CONFIG_FILE=/config.yaml"]
    if runtime == "applesilicon":
        env.append("VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/virtio_icd.aarch64.json")
        assert described["Architecture"] == "arm64"
    elif runtime:
        env += ["NVIDIA_REQUIRE_CUDA=cuda>=12.0", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "NVIDIA_VISIBLE_DEVICES=all", "BUILD_TYPE=cublas"]
    assert config["Env"] == env
    assert described["Id"] == found["image"]["id"]
    # Once more: nothing is fetched, packed or sent
    again = build(runtime=runtime, version=version, load=["docker"])
    assert not again["changed"] and again["image"]["digest"] == found["image"]["digest"] and again["bytes_sent"] == 0


def pulled(folder: Path, target: str, modes: int) -> dict[str, tuple[bytes, int]]:
    """What the ORAS project's own client makes of an artifact: AIKit's frontend runs that project's program.

    A layer without a title is a file named by its digest to this client, and to that program none.
    """
    import oras.client

    folder.mkdir()
    oras.client.OrasClient(insecure=True).pull(target=target, outdir=str(folder))
    return {str(path.relative_to(folder)): (path.read_bytes(), modes) for path in folder.rglob("*") if path.is_file() and ":" not in path.name}


def test_models_of_registries_and_hubs_lie_where_aikit_puts_them(host, context, build, tmp_path):
    model, data = gguf("qwen2"), gguf("gemma3")
    ollama = "application/vnd.ollama.image."
    layers = [(f"{ollama}model", model, {}), (f"{ollama}license", b"free", {})]
    models.push(host, "ollama/library/tiny", "1b", layers, "application/vnd.docker.distribution.manifest.v2+json")
    # As AIKit's packager writes them, and one without a title, which oras passes over
    files = {"weight.v1.raw": ("q/pack.gguf", data), "weight.config.v1.raw": ("config.json", b"{}"), "doc.v1.raw": ("README.md", b"# Pack")}
    files |= {"code.v1.raw": ("tools/run.py", b"x = 1"), "dataset.v1.raw": (".hidden.csv", b"1")}
    pack = [(PACK + kind, content, {PATH: name, TITLE: name}) for kind, (name, content) in files.items()]
    models.push(host, "models/pack", "1", [*pack, (PACK + "doc.v1.raw", b"no title", {PATH: "LICENSE"})])
    hub = HubServer()
    repository = {"README.md": b"# Tiny", "LICENSE": b"free", ".gitattributes": b"lfs", ".gitignore": b"*.tmp", "r.gguf": data, "sub/LICENSE": b"kept"}
    hub.repository("ns/tiny", repository)
    hub.repository("ns/one", {"one.gguf": model})
    sources = {
        "fake-model": "fake-model.gguf",
        "other": "other.gguf",
        "ollama": "oci://registry.ollama.ai/library/tiny:1b",
        "pack": f"oci://{host}/models/pack:1",
        "repository": "huggingface://ns/tiny",
        "file": "huggingface://ns/one/one.gguf",
    }
    entries = [{"name": name, "source": source} for name, source in sources.items()]
    entries[0]["promptTemplates"] = [{"name": "chat", "template": TEMPLATE}]
    lock = tmp_path / "image.lock.json"
    wanted = {
        "more": {"models": entries},
        "hub_url": hub.url,
        "registry_mirrors": {**stand_ins.mirrors(host), "registry.ollama.ai": f"{host}/ollama"},
        "load": ["docker"],
        "lock": str(lock),
    }
    found = build(**wanted)
    artifact = pulled(tmp_path / "artifact", f"{host}/models/pack:1", 0o644)
    assert set(artifact) == {name for name, _content in files.values()}
    kept = ("r.gguf", ".gitignore", "sub/LICENSE")
    more = {"tiny": (model, 0o444), **artifact, **{f"ns/tiny/{name}": (repository[name], 0o444) for name in kept}, "one.gguf": (model, 0o444)}
    assert exported("docker", IMAGE) == oracle(host, context, tmp_path / "oracle", "", "main", more=more)
    # From the lock, with everything fetched: nobody is asked, and nothing changes
    hub.close()
    again = build(**wanted)
    assert not again["changed"] and again["image"]["digest"] == found["image"]["digest"]


def test_a_named_backend_of_the_old_release_has_another_base(host, context, build, tmp_path):
    build(version="0.21.0", more={"backends": ["llama-cpp"]}, load=["docker"])
    assert exported("docker", IMAGE) == oracle(host, context, tmp_path / "oracle", "", "0.21.0", "hub/library/ubuntu:22.04")


def engine_tells(engine: str, found: dict[str, Any]) -> None:
    """What an engine says of an image under its name and in its list, against what was built; it has no labels to say it in."""
    name = "registry.example/gemma:1"
    subprocess.run([engine, "tag", IMAGE, name], check=True)
    subprocess.run([engine, "rmi", IMAGE], check=True, capture_output=True)
    try:
        listed = task("aikit_image_info", engine=engine)["images"]
        told = task("aikit_image_info", engine=engine, name=name)["images"]
        assert [entry for entry in listed if entry["id"] == found["image"]["id"]] == told
        keys = ("id", "server", "runtime", "models", "base", "labels", "annotations")
        assert {key: told[0][key] for key in keys} == {key: found["image"][key] for key in keys}
        assert [model["name"] for model in told[0]["models"]] == ["fake-model", "other"] and len(told[0]["aikitfile_sha256"]) == 64
    finally:
        subprocess.run([engine, "tag", name, IMAGE], check=False)
        subprocess.run([engine, "rmi", name], check=False, capture_output=True)


def test_podman_has_the_same_files(build, tmp_path):
    archive = tmp_path / "image.tar"
    found = build(runtime="cuda", load=["docker"], archive=str(archive))
    subprocess.run(["podman", "load", "--quiet", "--input", str(archive)], check=True, capture_output=True)
    try:
        docker_has, podman_has = exported("docker", IMAGE), exported("podman", IMAGE)
        # Mount points that the engines make themselves
        for path in set(docker_has) ^ set(podman_has):
            assert path.split("/")[0] in (".dockerenv", "dev", "proc", "sys", "run", "etc"), path
        same = [path for path in docker_has if path.split("/")[0] in ("backends", "models", "usr", "config.yaml", "configuration", "bin", "tmp")]
        assert len(same) > 50 and [docker_has[path] for path in same] == [podman_has[path] for path in same]
        identity = subprocess.run(["podman", "inspect", "--format={{.Id}} {{.Digest}}", IMAGE], capture_output=True, text=True, check=True).stdout.split()
        assert f"sha256:{identity[0]}" == found["image"]["id"]
        for engine in ("docker", "podman"):
            engine_tells(engine, found)
    finally:
        subprocess.run(["podman", "rmi", "--force", IMAGE], capture_output=True, check=False)


def test_apple_silicon_on_any_machine(build, tmp_path):
    """An image for arm64 needs no arm64: nothing of it is run. /usr/bin stays as the base has it."""
    archive = tmp_path / "image.tar"
    found = build(runtime="applesilicon", archive=str(archive))
    assert found["image"]["env"]["VK_ICD_FILENAMES"] == "/usr/share/vulkan/icd.d/virtio_icd.aarch64.json"
    with tarfile.open(archive) as reader:
        index = json.load(reader.extractfile("index.json"))
        assert index["manifests"][0]["platform"]["architecture"] == "arm64"
        manifest = json.load(reader.extractfile(f"blobs/{index['manifests'][0]['digest'].replace(':', '/')}"))
        names = {}
        for layer in manifest["layers"][1:]:
            blob = io.BytesIO(reader.extractfile(f"blobs/{layer['digest'].replace(':', '/')}").read())
            names.update({member.name: member for member in tarfile.open(fileobj=blob)})
    assert oct(names["usr/bin"].mode) == "0o555" and oct(names["usr/bin/local-ai"].mode) == "0o755"
    assert {name.split("/")[1] for name in names if name.startswith("backends/")} == {"gpu-vulkan-llama-cpp"}
    inputs = json.loads(manifest["annotations"]["io.aikit.fleet.inputs"])
    assert inputs["local-ai"].startswith("ghcr.io/kaito-project/aikit/localai:v3.12.1-arm64@sha256:")
    assert inputs["base"].startswith("ghcr.io/kaito-project/aikit/applesilicon/base:latest@sha256:")


def test_check_mode_fetches_nothing(build, tmp_path):
    found = build(check=True, load=["docker"])
    assert found["changed"] and found["image"]["digest"] == ""
    assert [line.split()[1] for line in found["actions"] if line.startswith("fetch ")] == [
        "ghcr.io/kaito-project/aikit/localai:v4.7.1-amd64",
        "quay.io/go-skynet/local-ai-backends:v4.7.1-cpu-llama-cpp",
    ]
    assert not (tmp_path / "blobs").exists()
    made = build(load=["docker"])
    check = build(check=True, load=["docker"])
    assert not check["changed"] and check["image"]["digest"] == made["image"]["digest"]


def test_the_cache_mends_itself(build, tmp_path):
    """A backend that was packed before and is damaged is packed again; a changed configuration packs and fetches nothing."""
    first = build()
    (packed,) = (tmp_path / "blobs/backends").glob("*.tar")
    with open(packed, "r+b") as handle:
        handle.seek(5000)
        handle.write(b"damage")
    again = build()
    assert again["image"]["digest"] == first["image"]["digest"] and any("local-ai-backends" in line for line in again["actions"])
    assert sorted(path.suffix for path in packed.parent.iterdir()) == [".json", ".tar"]
    changed = build(more={"debug": True})
    assert changed["image"]["digest"] != first["image"]["digest"] and changed["actions"] == []


def test_two_platforms_pushed_and_locked(host, build, tmp_path):
    """One index, one model layer; the lock holds every source, and a build from it does not follow a tag that moved."""
    name, lock = f"{host}/fleet/gemma:1", str(tmp_path / "gemma.lock.json")
    wanted = {"name": name, "platforms": ["linux/amd64", "linux/arm64"], "lock": lock, "push": True}
    found = build(**wanted)
    amd, arm = found["image"]["platforms"]
    assert [entry["platform"] for entry in (amd, arm)] == ["linux/amd64", "linux/arm64"]
    models = [layer["digest"] for layer in found["image"]["layers"] if layer["role"] == "model"]
    assert len(models) == 2 and set(models) <= set(amd["layers"]) & set(arm["layers"])
    locked = json.loads(Path(lock).read_text())
    assert locked["base"]["linux/arm64"]["source"] == "ghcr.io/kaito-project/aikit/base:latest" and locked["digest"] == found["image"]["digest"]
    assert sorted(locked["images"]) == [
        "ghcr.io/kaito-project/aikit/localai:v4.7.1-amd64", "ghcr.io/kaito-project/aikit/localai:v4.7.1-arm64",
        "quay.io/go-skynet/local-ai-backends:v4.7.1-cpu-llama-cpp",
    ]
    # What a registry says of it, and what an engine pulls
    (told, _other) = task("aikit_image_info", name=name, registry=True, config_path="/config.yaml")["images"]
    assert (told["server"], told["labels"], [model["name"] for model in told["models"]]) == ("localai", {}, ["fake-model", "other"])
    docker("pull", "--quiet", name)
    build(load=["docker"])
    assert exported("docker", name) == exported("docker", IMAGE)
    push = stand_ins.Pusher(host)
    try:
        push.artifact("ghcr/kaito-project/aikit/localai", "v4.7.1-amd64", {"local-ai": b"#!/bin/sh\nexit 1\n"})
        again = build(**wanted)
        assert not again["changed"] and again["image"]["digest"] == found["image"]["digest"]
        newer = build(**wanted, lock_update=True)
        assert newer["image"]["digest"] != found["image"]["digest"]
    finally:
        push.artifact("ghcr/kaito-project/aikit/localai", "v4.7.1-amd64", {"local-ai": (stand_ins.FAKE / "local-ai").read_bytes()})


BAD = [
    (stand_ins.entry("../outside", b"x"), "../outside leads out of the image"),
    (stand_ins.entry("/etc/passwd", b"x"), "/etc/passwd is an absolute name"),
    (stand_ins.entry("dev/sda", kind=tarfile.BLKTYPE), "dev/sda is a block device"),
]


@pytest.mark.parametrize("bad, message", BAD)
def test_a_backend_that_would_write_elsewhere(host, build, tmp_path, bad, message):
    stand_ins.Pusher(host).image("evil/backend", "1", [stand_ins.layer(stand_ins.entry("run.sh", b""), bad)])
    found = build(fails=True, localai={"sources": {"cpu-llama-cpp": f"{host}/evil/backend:1"}})
    assert f"{host}/evil/backend:1" in found["msg"] and message in found["msg"]
    assert not list((tmp_path / "blobs/backends").glob("*.tar"))


def test_sources_that_are_none(host, build):
    push = stand_ins.Pusher(host)
    push.artifact("evil/localai", "1", {"local-ai.exe": b"x"})
    found = build(fails=True, localai={"sources": {"local-ai": f"{host}/evil/localai:1"}})
    assert "an artifact with one file local-ai is expected; its files are: local-ai.exe" in found["msg"]
    found = build(fails=True, localai={"version": "v0.0.0"})
    assert "localai:v0.0.0-amd64" in found["msg"]
    # A base that is for another platform
    found = build(fails=True, base="ghcr.io/kaito-project/aikit/applesilicon/base:latest")
    assert "has no image for linux/amd64" in found["msg"]
    found = build(fails=True, version="0.21.0", runtime="cuda", builder="direct")
    assert "runs commands inside the image" in found["msg"]
    found = build(fails=True, version="0.21.0", more={"config": '- name: fake-model\n  parameters: {model: "fake-model.gguf"}\n'})
    assert "hands this text to a shell" in found["msg"] and "\" at line 5, character 23" in found["msg"], found["msg"]


def test_zstd_layers(host, build):
    def zstd(raw: bytes) -> bytes:
        return subprocess.run(["zstd", "--quiet", "--stdout"], input=raw, check=True, capture_output=True).stdout

    layers = stand_ins.backend_layers("v4.7.1-cpu")
    stand_ins.Pusher(host).image("zstd/backend", "1", layers, compress=zstd)
    stand_ins.Pusher(host).image("plain/backend", "1", layers, compress=lambda raw: raw)
    digests = set()
    for name in ("zstd", "plain"):
        found = build(localai={"sources": {"cpu-llama-cpp": f"{host}/{name}/backend:1"}})
        digests.add(next(layer["digest"] for layer in found["image"]["layers"] if layer["role"] == "backend"))
    assert len(digests) == 1


def test_a_service_of_a_user_who_names_no_server(host, context, tmp_path):
    """``src`` alone is AIKit's image; the role runs it with everything that it does for such images."""
    project = support.Project(tmp_path / "project")
    config = (stand_ins.FAKE / "config.yaml").read_text()
    text = "apiVersion: v1alpha1\nmodels:\n  - name: fake-model\n    source: fake-model.gguf\nconfig: |\n"
    text += "".join(f"  {line}\n" for line in config.splitlines())
    (project.path / "aikitfiles/fake.yaml").write_text(text)
    service = {"name": SERVICE, "src": "aikitfiles/fake.yaml", "context": str(context), "port": support.free_port()}
    project.services = [{**service, "settings": {"context_size": 512}}]
    project.write()
    arguments = ("-e", json.dumps({"inference_registry_mirrors": stand_ins.mirrors(host), "inference_cache_dir": str(tmp_path / "cache")}))
    try:
        check = project.run("deploy.yml", "--check", *arguments)
        assert check.code == 0, check.output[-3000:]
        run = project.run("deploy.yml", *arguments)
        assert run.code == 0, run.output[-4000:]
        current = project.state_of(SERVICE)["current"]
        assert (current["release"]["server"], current["verdict"]) == ("localai", "cpu")
        found = inspect(SERVICE)
        env = dict(word.split("=", 1) for word in found["Config"]["Env"])
        assert (env["LOCALAI_LOG_LEVEL"], env["LOCALAI_LOG_FORMAT"], env["LOCALAI_LOAD_TO_MEMORY"]) == ("debug", "json", "fake-model")
        assert not [label for label in json.loads(docker("inspect", found["Image"]))[0]["Config"]["Labels"] or {} if label.startswith("io.aikit")]
        (mount,) = [mount for mount in found["Mounts"] if mount["Destination"] == "/config.yaml"]
        (model,) = json.loads(Path(mount["Source"]).read_text())
        assert model["context_size"] == 512 and model["options"] == ["verbosity:4"]
        again = project.run("deploy.yml", *arguments)
        assert (again.code, again.changed) == (0, 0), again.output[-3000:]
    finally:
        for name in (SERVICE, f"{SERVICE}--previous"):
            docker("rm", "--force", "--volumes", name, check=False)
        docker("rmi", "--force", f"localhost/aikit/{SERVICE}:latest", check=False)
