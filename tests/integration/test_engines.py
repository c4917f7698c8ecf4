# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One image, several engines and tools, and the whole offload path on a device that is no CPU for llama.cpp."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import support
from helpers import BASE, task
from support import completion, docker, inspect

IMAGE = "localhost/aikit-e2e/engines:1"
VULKAN = "aikit-e2e-vulkan"
PODMAN = "aikit-e2e-podman"


def build(context: Path = support.MODEL_DIR, context_size: int = 2048, source: str = support.MODEL_NAME, **more: Any) -> dict[str, Any]:
    """The image of the quickstart's model under a name of these tests."""
    model = {"name": "gemma-3-270m", "backend": "llama", "context_size": context_size, "parameters": {"model": support.MODEL_NAME}}
    definition = {"apiVersion": "v1alpha1", "models": [{"name": "gemma-3-270m", "source": source}], "config": json.dumps([model])}
    found = task("aikit_image", name=IMAGE, definition=definition, context=str(context), server="llama_cpp", base=str(BASE), **more)
    assert not found.get("failed"), found
    return found


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


# --- software Vulkan -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vulkan(tmp_path_factory):
    """The quickstart on Mesa's llvmpipe: devices, layers and buffers as on a GPU, computed on the CPU."""
    port = support.free_port()
    state = tmp_path_factory.mktemp("vulkan")
    extra = (f"quickstart_name={VULKAN}", f"quickstart_port={port}", f"inference_state_dir={state}", "quickstart_base_variant=vulkan")
    arguments = [word for pair in extra for word in ("-e", pair)]
    try:
        first = support.playbook("aikit.fleet.quickstart", *arguments)
        assert first.code == 0, first.output[-4000:]
        yield first, port, json.loads((state / f"{VULKAN}.json").read_text())["current"], arguments
    finally:
        docker("rm", "--force", "--volumes", VULKAN, check=False)
        docker("volume", "rm", f"aikit-fleet-{VULKAN}-cache", check=False)
        docker("rmi", f"localhost/aikit/{VULKAN}:latest", check=False)


def test_software_vulkan_is_called_what_it_is(vulkan):
    _first, port, current, _arguments = vulkan
    evidence = current["evidence"]
    assert current["verdict"] == "software" and (evidence["layers_offloaded"], evidence["layers_total"]) == (19, 19)
    assert [(device["name"], device["software"]) for device in evidence["devices"]] == [("Vulkan0", True)]
    assert sum(buffer["size_mib"] for buffer in evidence["buffers"] if buffer["place"] == "software" and buffer["kind"] == "model") > 50
    assert completion(port)["usage"]["completion_tokens"] > 0
    # Shaders are kept on a volume that the server may write although its root is read-only
    assert inspect(VULKAN)["HostConfig"]["ReadonlyRootfs"] is True
    assert [mount["Name"] for mount in inspect(VULKAN)["Mounts"]] == [f"aikit-fleet-{VULKAN}-cache"]


def test_a_second_run_with_vulkan_changes_nothing(vulkan):
    _first, _port, _current, arguments = vulkan
    before = inspect(VULKAN)["Id"]
    again = support.playbook("aikit.fleet.quickstart", *arguments)
    assert (again.code, again.changed) == (0, 0) and inspect(VULKAN)["Id"] == before, again.output[-3000:]


def test_software_is_not_good_enough_where_a_gpu_is_expected(vulkan):
    _first, port, _current, _arguments = vulkan
    found = task("inference_check", url=f"http://127.0.0.1:{port}", container=VULKAN, expect={"verdict": ["proven", "partial"]})
    assert found["failed"] and found["passed"] is False and "expected proven or partial, found software" in found["msg"]


# --- Podman ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def podman_image(quickstart):
    """Build into Podman; afterwards nothing of it is left there, whatever name it has by then."""
    built = []

    def load(**more: Any) -> dict[str, Any]:
        built.append(build(load=["podman"], **more))
        return built[-1]

    subprocess.run(["podman", "image", "rm", "--force", build()["image"]["id"]], capture_output=True, check=False)
    yield load
    subprocess.run(["podman", "rm", "--force", PODMAN], capture_output=True, check=False)
    subprocess.run(["podman", "image", "rm", "--force", *{found["image"]["id"] for found in built}], capture_output=True, check=False)


def test_podman_takes_the_same_image(podman_image):
    first = podman_image()
    assert first["changed"] and first["bytes_sent"] > 200 << 20
    again = podman_image()
    assert not again["changed"] and again["bytes_sent"] == 0 and again["image"]["id"] == first["image"]["id"]
    (found,) = json.loads(run("podman", "image", "inspect", IMAGE))
    assert f"sha256:{found['Id'].removeprefix('sha256:')}" == first["image"]["id"]

    # A container host without systemd and cgroups needs these flags; they have nothing to do with the image
    port = support.free_port()
    limits = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=1024:4096", "--cgroups=disabled"]
    hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    run("podman", "run", "--detach", f"--name={PODMAN}", *limits, *hardened, "--network=host", f"--env=LLAMA_ARG_PORT={port}", IMAGE)
    checked = task("inference_check", url=f"http://127.0.0.1:{port}", container=PODMAN, engine="podman", expect={"verdict": ["cpu"]})
    assert checked.get("passed") and checked["completion_tokens"] > 0, checked

    changed = podman_image(context_size=1024)
    assert changed["bytes_sent"] < 64 * 1024
    assert [layer["reused"] for layer in changed["image"]["layers"]] == [True, True, False]


# --- the archive, read by others -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(quickstart, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    built = build(archive=str(path))
    assert built["changed"] and built["bytes_written"] == path.stat().st_size
    yield path, built["image"]
    docker("rmi", "--force", IMAGE, check=False)
    path.unlink()


def test_skopeo_reads_it_as_both_of_its_formats(archive):
    path, image = archive
    layers = [layer["digest"] for layer in image["layers"]]
    as_docker = json.loads(run("skopeo", "inspect", f"docker-archive:{path}"))
    assert as_docker["Layers"] == layers and as_docker["Labels"] == image["labels"]
    assert f"sha256:{_sha256(run_bytes('skopeo', 'inspect', '--config', '--raw', f'docker-archive:{path}'))}" == image["id"]
    raw = run_bytes("skopeo", "inspect", "--raw", f"oci-archive:{path}")
    assert f"sha256:{_sha256(raw)}" == image["digest"]
    manifest = json.loads(raw)
    assert [layer["digest"] for layer in manifest["layers"]] == layers and manifest["config"]["digest"] == image["id"]
    assert sum(layer["size"] for layer in manifest["layers"]) <= image["size_bytes"]


def run_bytes(*words: str) -> bytes:
    return subprocess.run(words, capture_output=True, check=True).stdout


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def test_every_blob_has_the_digest_of_its_name(archive):
    path, image = archive
    found = {}
    with tarfile.open(path) as reader:
        for member in reader:
            if member.isfile() and member.name.startswith("blobs/sha256/"):
                digest = hashlib.sha256()
                for chunk in iter(lambda handle=reader.extractfile(member): handle.read(1 << 20), b""):
                    digest.update(chunk)
                found[member.name.rpartition("/")[2]] = digest.hexdigest()
    assert found == {name: name for name in found}
    assert {image["id"], image["digest"], *(layer["digest"] for layer in image["layers"])} <= {f"sha256:{name}" for name in found}


def test_docker_loads_it_under_the_same_id(archive):
    path, image = archive
    docker("load", "--quiet", "--input", str(path))
    assert docker("inspect", "--format={{.Id}}", IMAGE) == image["id"]
    # So the module has nothing left to do
    assert not build(load=["docker"])["changed"]


def test_the_same_inputs_elsewhere_give_the_same_digest(archive, tmp_path):
    """Another folder, another time of change, another mode, no cache: the same image, bit for bit."""
    _path, image = archive
    elsewhere = tmp_path / "a" / "b c"
    elsewhere.mkdir(parents=True)
    shutil.copyfile(support.MODEL_DIR / support.MODEL_NAME, elsewhere / support.MODEL_NAME)
    os.utime(elsewhere / support.MODEL_NAME, (1, 1))
    (elsewhere / support.MODEL_NAME).chmod(0o600)
    found = build(context=elsewhere, cache=str(tmp_path / "cache"))
    assert (found["image"]["digest"], found["image"]["id"]) == (image["digest"], image["id"])


def test_other_inputs_give_other_digests(archive):
    _path, image = archive
    other = build(context_size=1024)["image"]
    assert other["digest"] != image["digest"]
    assert [layer["digest"] for layer in other["layers"]][:2] == [layer["digest"] for layer in image["layers"]][:2]
