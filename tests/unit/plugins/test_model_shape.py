# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shapes of models: of files, of a split model, out of an image; and of what cannot be read."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape
from ansible_collections.aikit.fleet.plugins.module_utils._io import engine as engines
from ansible_collections.aikit.fleet.plugins.module_utils._io import models
from ansible_collections.aikit.fleet.plugins.module_utils._io.models import Reach
from ansible_collections.aikit.fleet.plugins.module_utils._io.transfer import Resolved, Store
from ansible_collections.aikit.fleet.plugins.modules import model_shape
from ansible_collections.aikit.fleet.tests.unit.fake_registry import FakeRegistry
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import DEFAULT_METADATA, STRING, U16, U32, Value, gguf_bytes


def call(capsys, tmp_path, **arguments):
    with patch_module_args({"store": str(tmp_path / "store"), "cache": str(tmp_path / "cache"), **arguments}), pytest.raises(SystemExit):
        model_shape.main()
    return json.loads(capsys.readouterr().out)


def part(number, count, **tensors):
    metadata = {"split.no": Value(U16, number - 1), "split.count": Value(U16, count), "split.tensors.count": Value(U32, count)}
    if number == 1:
        metadata = {**DEFAULT_METADATA, **metadata}
    else:
        metadata = {"general.architecture": Value(STRING, "llama"), **metadata}
    return gguf_bytes(metadata=metadata, tensors=[(f"blk.{number - 1}.attn_q.weight", (256, 3), 8)])


def test_files_with_and_without_a_digest(capsys, tmp_path):
    raw = gguf_bytes()
    (tmp_path / "tiny.gguf").write_bytes(raw)
    files = [{"source": "tiny.gguf", "sha256": hashlib.sha256(raw).hexdigest()}]
    models = [{"key": "relative", "files": files, "context": str(tmp_path)}, {"key": "path", "files": [{"source": str(tmp_path / "tiny.gguf")}]}]
    found = call(capsys, tmp_path, models=models)
    assert found["changed"] is False
    shape = ModelShape.from_dict(found["models"]["relative"]["shape"])
    assert (shape.architecture, shape.block_count, shape.context_length) == ("llama", 2, 2048)
    assert found["models"]["path"]["shape"] == found["models"]["relative"]["shape"]
    assert found["models"]["relative"]["cached"] is False
    again = call(capsys, tmp_path, models=models)
    assert again["models"]["relative"]["cached"] and again["models"]["relative"]["shape"] == found["models"]["relative"]["shape"]


def test_check_mode_keeps_nothing(capsys, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(gguf_bytes())
    models = [{"key": "m", "files": [{"source": str(tmp_path / "tiny.gguf")}]}]
    assert "shape" in call(capsys, tmp_path, models=models, _ansible_check_mode=True)["models"]["m"]
    assert not (tmp_path / "cache").exists() and not (tmp_path / "store").exists()


def test_all_parts_of_a_split_model(capsys, tmp_path):
    for number in (1, 2):
        (tmp_path / f"m-{number:05d}-of-00002.gguf").write_bytes(part(number, 2))
    files = [{"source": str(tmp_path / f"m-{number:05d}-of-00002.gguf")} for number in (1, 2)]
    found = call(capsys, tmp_path, models=[{"key": "m", "files": files}])["models"]["m"]
    assert {weight.layer for weight in ModelShape.from_dict(found["shape"]).weights} == {0, 1}


def test_one_that_cannot_be_read_stops_no_other(capsys, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(gguf_bytes())
    (tmp_path / "text.gguf").write_text("<html>")
    models = [
        {"key": "good", "files": [{"source": str(tmp_path / "tiny.gguf")}]},
        {"key": "text", "files": [{"source": str(tmp_path / "text.gguf")}]},
        {"key": "gone", "files": [{"source": "gone.gguf"}], "context": str(tmp_path)},
        {"key": "away", "files": [{"source": "http://127.0.0.1:1/m.gguf?X-Signature=verysecretvalue"}]},
    ]
    result = call(capsys, tmp_path, models=models)
    found = result["models"]
    assert "shape" in found["good"]
    assert all(found[key]["error"].startswith("the header of its model cannot be read yet: ") for key in ("text", "gone", "away"))
    assert "a web page" in found["text"]["error"] and "No such file" in found["gone"]["error"]
    assert "verysecretvalue" not in json.dumps(result)


SHORT = gguf_bytes()
LONG = gguf_bytes(metadata={**DEFAULT_METADATA, "llama.context_length": Value(U32, 8192)})


def context(entry):
    assert "error" not in entry, entry
    return ModelShape.from_dict(entry["shape"]).context_length


def wanted(source, sha256=""):
    return [{"key": "m", "files": [{"source": source, "sha256": sha256}]}]


@pytest.mark.parametrize("header", ["kept", "in the store"])
@pytest.mark.parametrize("source", ["huggingface://ns/tiny/m.gguf", "huggingface://ns/tiny"])
def test_the_commit_that_was_built_is_the_one_that_is_planned(capsys, tmp_path, hub_server, source, header):
    repository = hub_server.repository("ns/tiny", {"m.gguf": SHORT, "README.md": b"# Tiny"})
    if header == "kept":
        assert context(call(capsys, tmp_path, models=wanted("huggingface://ns/tiny/m.gguf"), hub_url=hub_server.url)["models"]["m"]) == 2048
    models.ensure_models(source, None, str(tmp_path / "store"), reach=Reach(None, hub_server.url))
    repository.commit({"m.gguf": LONG})
    asked = len(hub_server.seen)
    found = call(capsys, tmp_path, models=wanted(source), hub_url=hub_server.url)["models"]["m"]
    assert context(found) == 2048 and len(hub_server.seen) == asked
    # With the hub away, as a build goes on too
    hub_server.close()
    assert context(call(capsys, tmp_path, models=wanted(source), hub_url=hub_server.url)["models"]["m"]) == 2048


def test_a_commit_whose_file_is_gone_is_asked_for_again(capsys, tmp_path, hub_server):
    repository = hub_server.repository("ns/tiny", {"m.gguf": SHORT})
    built = models.ensure_models("huggingface://ns/tiny/m.gguf", None, str(tmp_path / "store"), reach=Reach(None, hub_server.url))
    (tmp_path / "store" / "sha256" / built.sha256 / "m.gguf").unlink()
    repository.commit({"m.gguf": LONG})
    assert context(call(capsys, tmp_path, models=wanted("huggingface://ns/tiny/m.gguf"), hub_url=hub_server.url)["models"]["m"]) == 2048


def test_a_digest_whose_header_is_kept_needs_no_network(capsys, tmp_path, hub_server):
    hub_server.repository("ns/tiny", {"m.gguf": SHORT})
    files = wanted("huggingface://ns/tiny/m.gguf", hashlib.sha256(SHORT).hexdigest())
    assert context(call(capsys, tmp_path, models=files, hub_url=hub_server.url)["models"]["m"]) == 2048
    hub_server.close()
    assert call(capsys, tmp_path, models=files, hub_url=hub_server.url)["models"]["m"]["cached"]


def test_another_digest_than_the_one_that_was_built_is_asked_for(capsys, tmp_path, hub_server):
    repository = hub_server.repository("ns/tiny", {"m.gguf": SHORT})
    models.ensure_models("huggingface://ns/tiny/m.gguf", None, str(tmp_path / "store"), reach=Reach(None, hub_server.url))
    repository.commit({"m.gguf": LONG})
    files = wanted("huggingface://ns/tiny/m.gguf", hashlib.sha256(LONG).hexdigest())
    assert context(call(capsys, tmp_path, models=files, hub_url=hub_server.url)["models"]["m"]) == 8192


def test_the_parts_that_were_built_are_those_that_are_planned(capsys, tmp_path, hub_server):
    repository = hub_server.repository("ns/tiny", {f"m-{number:05d}-of-00002.gguf": part(number, 2) for number in (1, 2)})
    parts = [{"source": f"huggingface://ns/tiny/m-{number:05d}-of-00002.gguf"} for number in (1, 2)]
    for entry in parts:
        models.ensure_models(entry["source"], None, str(tmp_path / "store"), reach=Reach(None, hub_server.url))
    models.ensure_models("huggingface://ns/tiny", None, str(tmp_path / "store"), reach=Reach(None, hub_server.url))
    repository.commit({"README.md": b"all gone"})
    hub_server.close()
    asked = [{"key": "each", "files": parts}, {"key": "all", "files": [{"source": "huggingface://ns/tiny"}]}]
    found = call(capsys, tmp_path, models=asked, hub_url=hub_server.url)["models"]
    assert found["each"]["shape"] == found["all"]["shape"]
    assert {weight.layer for weight in ModelShape.from_dict(found["all"]["shape"]).weights} == {0, 1}


def test_what_a_hub_told_of_an_https_source(capsys, tmp_path):
    """Written down by a build, which got the file by its address at the hub."""
    digest = hashlib.sha256(SHORT).hexdigest()
    (tmp_path / "m.gguf").write_bytes(SHORT)
    models.ensure_models(str(tmp_path / "m.gguf"), None, str(tmp_path / "store"))
    source = "https://huggingface.invalid/ns/tiny/resolve/main/m.gguf"
    Store(str(tmp_path / "store")).remember_resolved(models.source_key(models.sources.parse(source)), source, Resolved("c" * 40, (("m.gguf", digest, 0),)))
    assert context(call(capsys, tmp_path, models=wanted(source))["models"]["m"]) == 2048


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    with FakeRegistry() as made:
        yield made


def push(registry, *layers):
    entries = [
        {"mediaType": f"application/vnd.cncf.model.weight.v1.{form}", **registry.put_blob("a/b", data), "annotations": {"org.cncf.model.filepath": path}}
        for path, data, form in layers
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **registry.put_blob("a/b", b"{}")}
    registry.put_manifest("a/b", "1", {"schemaVersion": 2, "config": config, "layers": entries})


def packed(name, data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as writer:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        writer.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["raw", "tar+gzip"])
def test_the_artifact_that_was_built_is_the_one_that_is_planned(capsys, tmp_path, registry, form):
    push(registry, ("m.gguf", SHORT if form == "raw" else packed("m.gguf", SHORT), form))
    source = f"oci://{registry.host}/a/b:1"
    models.ensure_models(source, None, str(tmp_path / "store"))
    push(registry, ("m.gguf", LONG, "raw"))
    asked = len(registry.requests)
    assert context(call(capsys, tmp_path, models=wanted(source))["models"]["m"]) == 2048 and len(registry.requests) == asked


def test_the_sha256_of_an_artifact_with_several_files(capsys, tmp_path, registry):
    push(registry, *((f"m-{number:05d}-of-00002.gguf", part(number, 2), "raw") for number in (1, 2)))
    source = f"oci://{registry.host}/a/b:1"
    digest = models.sources.set_sha256({f"m-{number:05d}-of-00002.gguf": hashlib.sha256(part(number, 2)).hexdigest() for number in (1, 2)})
    first = call(capsys, tmp_path, models=wanted(source, digest))["models"]["m"]
    assert {weight.layer for weight in ModelShape.from_dict(first["shape"]).weights} == {0, 1}
    models.ensure_models(source, digest, str(tmp_path / "store"))
    asked = len(registry.requests)
    assert call(capsys, tmp_path, models=wanted(source, digest))["models"]["m"]["shape"] == first["shape"] and len(registry.requests) == asked


class FakeEngine:
    """Files of an image, given as an engine gives them: an archive in pieces, of which not more is taken than is needed."""

    def __init__(self, files):
        self.files, self.taken = files, 0

    def image_head(self, ref, path, read):
        if path not in self.files:
            return None
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as writer:
            member = tarfile.TarInfo(path.rsplit("/", 1)[1])
            member.size = len(self.files[path])
            writer.addfile(member, io.BytesIO(self.files[path]))
        raw = buffer.getvalue()

        def pieces():
            for start in range(0, len(raw), 8192):
                self.taken += 8192
                yield raw[start : start + 8192]

        return engines._head(engines._Chunks(pieces()), path, ref, read)


def test_a_model_inside_an_image(capsys, monkeypatch, tmp_path):
    big = gguf_bytes(tensors=[("token_embd.weight", (256, 4), 0), ("blk.0.ffn_up.weight", (256, 20000), 0)])
    engine = FakeEngine({"/models/m.gguf": big, "/models/s-00001-of-00002.gguf": part(1, 2), "/models/s-00002-of-00002.gguf": part(2, 2)})
    monkeypatch.setattr(model_shape, "open_engine", lambda name: engine)
    found = call(capsys, tmp_path, image="i:1", paths=["/models/m.gguf", "/models/none.gguf", "/models/s-00001-of-00002.gguf"])["models"]
    assert ModelShape.from_dict(found["i:1:/models/m.gguf"]["shape"]).name == "Tiny"
    # 20 MB of weights were left where they are
    assert found["i:1:/models/m.gguf"]["read_bytes"] < 2 * 1024 * 1024 < len(big) and engine.taken < 4 * 1024 * 1024
    assert found["i:1:/models/none.gguf"]["error"] == "i:1 has no /models/none.gguf"
    assert "shape" in found["i:1:/models/s-00001-of-00002.gguf"]
