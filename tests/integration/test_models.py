# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real model and a real registry; and the hub that other tests use, seen with the eyes of the hub's own client."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
import support
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer
from helpers import gguf, serving, task
from models import parts, push
from registries import Registry

import gguf as peer

MODEL = gguf()
DIGEST = hashlib.sha256(MODEL).hexdigest()
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PATH = "org.cncf.model.filepath"
WEIGHT = "application/vnd.cncf.model.weight.v1."


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = HubServer()
    yield made
    made.close()


def done(result):
    assert not result.get("failed"), result
    return result


def info(src, tmp_path, **arguments):
    return done(task("gguf_info", src=src, cache=str(tmp_path / "headers"), store=str(tmp_path / "store"), **arguments))["gguf"]


def test_the_real_model_is_what_its_peer_says(quickstart, tmp_path):
    """Gemma 3 270M, which the quickstart serves."""
    path = support.MODEL_DIR / support.MODEL_NAME
    found = info(str(path), tmp_path, tensors=True)
    reader = peer.GGUFReader(path)
    assert [(entry["name"], entry["shape"], entry["type"], entry["bytes"]) for entry in found["tensors"]] == [
        (tensor.name, [int(length) for length in tensor.shape], tensor.tensor_type.name, int(tensor.n_bytes)) for tensor in reader.tensors
    ]
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and field.types[0] not in (peer.GGUFValueType.ARRAY, peer.GGUFValueType.STRING):
            assert found["metadata"][name] == pytest.approx(field.parts[-1][0]), name
    assert found["file_bytes"] == 253113024 and found["header_bytes"] == 6525120
    assert (found["tensor_bytes"], found["input_bytes"], found["layers"][0]["bytes"]) == (246587904, 178257920, 3995648)
    assert (found["block_count"], found["vocabulary_size"], found["tied_output"], found["tensor_count"]) == (18, 262144, True, 236)
    # The arrays of scores and types (2.1 MB) are stepped over
    assert found["header_bytes_read"] < found["header_bytes"] - 1_800_000
    with serving(support.MODEL_DIR) as address:
        # Python's own server knows no ranges
        remote = info(f"{address}/{support.MODEL_NAME}", tmp_path)
    assert remote["requests"] == 1 and remote["header_bytes_read"] < found["header_bytes"] + 65536
    assert {key: remote[key] for key in ("layers", "tensor_bytes", "parameters")} == {key: found[key] for key in ("layers", "tensor_bytes", "parameters")}


def test_the_real_model_out_of_a_real_registry(quickstart, registry, tmp_path):
    path = support.MODEL_DIR / support.MODEL_NAME
    manifest = push(registry.host, "library/gemma3", "270m", [("application/vnd.ollama.image.model", path, {})], DOCKER_MANIFEST)
    source = f"oci://{registry.host}/library/gemma3:270m"
    found = info(source, tmp_path)
    assert (found["sha256"], found["revision"], found["tensor_bytes"]) == (support.MODEL_SHA256, manifest, 246587904)
    assert found["header_bytes_read"] < found["header_bytes"] - 1_800_000, "a registry sends pieces of a blob"
    told = done(task("model_file", check=True, source=source, store=str(tmp_path / "store")))
    real = done(task("model_file", source=source, store=str(tmp_path / "store")))
    assert real["actions"] == told["actions"] and (real["sha256"], real["revision"]) == (support.MODEL_SHA256, manifest)
    assert os.path.getsize(real["path"]) == 253113024
    assert done(task("model_file", source=source, store=str(tmp_path / "store")))["changed"] is False


def test_artifacts_of_a_real_registry(registry, tmp_path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        member = tarfile.TarInfo("q/m.gguf")
        member.size = len(MODEL)
        writer.addfile(member, io.BytesIO(MODEL))
    store = str(tmp_path / "store")
    cases = {
        "raw": [(WEIGHT + "raw", MODEL, {PATH: "m.gguf"}), ("application/vnd.cncf.model.doc.v1.raw", b"# x", {PATH: "README.md"})],
        "tar": [(WEIGHT + "tar", archive.getvalue(), {})],
        "gzip": [(WEIGHT + "tar+gzip", gzip.compress(archive.getvalue()), {})],
    }
    for tag, layers in cases.items():
        digest = push(registry.host, "models/tiny", tag, layers)
        found = done(task("model_file", source=f"oci://{registry.host}/models/tiny:{tag}", store=store))
        assert (found["sha256"], found["revision"]) == (DIGEST, digest), tag
        assert Path(found["path"]).read_bytes() == MODEL
    pruned = done(task("model_file", state="pruned", keep=[], store=store))
    assert pruned["removed"] and not list((tmp_path / "store/sha256").iterdir())


def test_what_oras_pushed(registry, tmp_path, monkeypatch):
    """By the ORAS project's own client."""
    import oras.client

    (tmp_path / "m.gguf").write_bytes(MODEL)
    monkeypatch.chdir(tmp_path)
    target = f"{registry.host}/models/tiny:oras"
    answer = oras.client.OrasClient(insecure=True).push(files=["m.gguf:application/octet-stream"], target=target, quiet=True)
    found = done(task("model_file", source=f"oci://{target}", store=str(tmp_path / "store")))
    assert (found["sha256"], found["revision"]) == (DIGEST, answer.headers["Docker-Content-Digest"])
    assert Path(found["path"]).name == "m.gguf" and Path(found["path"]).read_bytes() == MODEL


def test_the_hub_of_the_tests_is_one_to_its_own_client(hub, tmp_path, monkeypatch):
    """The stand-in is worth as much as it is like the hub: huggingface_hub must get along with it."""
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub import errors

    files = {"README.md": b"# Tiny", "m.gguf": MODEL, **{f"q/{name}": data for name, data in parts().items()}}
    repository = hub.repository("ns/tiny", files)
    hub.repository("ns/gated", files, gated="hf_token")
    api = huggingface_hub.HfApi(endpoint=hub.url)
    commit = repository.branches["main"]
    assert api.model_info("ns/tiny", revision="main").sha == commit
    listed = {entry.path: entry for entry in api.list_repo_tree("ns/tiny", recursive=True) if hasattr(entry, "size")}
    assert set(listed) == set(files) and listed["m.gguf"].lfs.sha256 == DIGEST
    for name, data in files.items():
        path = huggingface_hub.hf_hub_download("ns/tiny", name, endpoint=hub.url, cache_dir=tmp_path / "theirs")
        assert Path(path).read_bytes() == data and commit in path
    metadata = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url("ns/tiny", "m.gguf", endpoint=hub.url))
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (commit, DIGEST, len(MODEL))
    for call, error in (
        (lambda: huggingface_hub.hf_hub_download("ns/gated", "m.gguf", endpoint=hub.url, cache_dir=tmp_path / "x", token=False), errors.GatedRepoError),
        (lambda: huggingface_hub.hf_hub_download("ns/tiny", "no.gguf", endpoint=hub.url, cache_dir=tmp_path / "x"), errors.RemoteEntryNotFoundError),
        (lambda: api.model_info("ns/tiny", revision="v9"), errors.RevisionNotFoundError),
        (lambda: api.model_info("ns/none", token=False), errors.RepositoryNotFoundError),
    ):
        with pytest.raises(error):
            call()
    ours = done(task("model_file", source="huggingface://ns/tiny", hub_url=hub.url, store=str(tmp_path / "ours")))
    assert ours["revision"] == commit
    theirs = huggingface_hub.snapshot_download("ns/tiny", endpoint=hub.url, cache_dir=tmp_path / "theirs")
    assert {str(path.relative_to(ours["path"])): path.read_bytes() for path in Path(ours["path"]).rglob("*") if path.is_file()} == {
        str(path.relative_to(theirs)): path.read_bytes() for path in Path(theirs).rglob("*") if path.is_file()
    }
