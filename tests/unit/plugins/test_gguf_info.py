# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module gguf_info: what is read of a model, from where, and how much of it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._io import download, models, ranges
from ansible_collections.aikit.fleet.plugins.modules import gguf_info
from ansible_collections.aikit.fleet.tests.unit.fake_registry import FakeRegistry
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import ARRAY, DEFAULT_METADATA, F32, STRING, U16, U32, Value, Writer, gguf_bytes
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page

# A vocabulary that is walked, numbers that are stepped over, and weights that nobody needs to see
LARGE = {
    "general.architecture": Value(STRING, "llama"),
    "llama.block_count": Value(U32, 2),
    "tokenizer.ggml.tokens": Value(ARRAY, [f"token number {number}" for number in range(20_000)], STRING),
    "tokenizer.ggml.scores": Value(ARRAY, [0.5] * 400_000, F32),
    "llama.context_length": Value(U32, 4096),
    "tokenizer.ggml.merges": Value(ARRAY, [f"{number} {number}" for number in range(20_000)], STRING),
}
TENSORS = [
    ("token_embd.weight", (256, 1000), 8),
    ("blk.0.attn_q.weight", (256, 2000), 0),
    ("blk.1.attn_q.weight", (256, 2000), 0),
    ("output.weight", (256, 100), 8),
]
MODEL = Writer().file(metadata=LARGE, tensors=TENSORS)
DIGEST = hashlib.sha256(MODEL).hexdigest()
SCORES_BYTES = 1_600_000
TOKEN = "hf_T0KENT0KEN"


@pytest.fixture
def run(capsys: Any, tmp_path: Path) -> Any:
    def call(src: str, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        arguments = {"src": src, "cache": str(tmp_path / "cache"), "store": str(tmp_path / "store"), **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            gguf_info.main()
        return dict(json.loads(capsys.readouterr().out))

    return call


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    real = download.retrying
    for module in (models, ranges):
        monkeypatch.setattr(module, "retrying", lambda attempt, what, say: real(attempt, what, say, lambda seconds: None))


def refused(result: dict[str, Any]) -> str:
    assert result["failed"] and result["hint"]
    return str(result["msg"])


def described(result: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the way it was read."""
    assert not result.get("failed"), result
    assert result["changed"] is False
    return {key: value for key, value in result["gguf"].items() if key not in ("header_bytes_read", "requests", "cached", "sha256", "revision")}


def test_what_is_said_of_a_model(run: Any, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    told = run(str(tmp_path / "m.gguf"), check_mode=True)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "store").exists()
    result = run(str(tmp_path / "m.gguf"))
    assert described(result) == described(told)
    found = result["gguf"]
    assert (found["architecture"], found["block_count"], found["context_length"], found["vocabulary_size"]) == ("llama", 2, 4096, 20_000)
    layer = 256 * 2000 * 4
    assert found["layers"] == [{"index": 0, "bytes": layer}, {"index": 1, "bytes": layer}]
    assert (found["input_bytes"], found["output_bytes"], found["other_bytes"]) == (256 * 1000 // 32 * 34, 256 * 100 // 32 * 34, 0)
    assert found["tensor_bytes"] == sum(entry["bytes"] for entry in found["layers"]) + found["input_bytes"] + found["output_bytes"]
    assert found["tensor_types"] == {"F32": 2 * layer, "Q8_0": found["input_bytes"] + found["output_bytes"]}
    assert (found["file_bytes"], found["shards"], found["tied_output"], found["cached"]) == (len(MODEL), 1, False, False)
    assert 0 < found["header_bytes_read"] < found["header_bytes"] - SCORES_BYTES + 200_000
    assert "tensors" not in found and "metadata" not in found
    again = run(f"file://{tmp_path}/m.gguf", tensors=True)["gguf"]
    assert (again["cached"], again["header_bytes_read"]) == (True, 0)
    assert again["tensors"][1] == {"name": "blk.0.attn_q.weight", "type": "F32", "shape": [256, 2000], "bytes": layer}
    assert again["metadata"] == {"general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 4096}
    assert again["array_lengths"]["tokenizer.ggml.scores"] == 400_000
    (tmp_path / "m.gguf").write_bytes(gguf_bytes())
    assert run(str(tmp_path / "m.gguf"))["gguf"]["name"] == "Tiny", "another file under the same name is read"


@pytest.mark.parametrize("page", [{}, {"etag": ""}, {"last_modified": "Wed, 01 Jan 2025 00:00:00 GMT", "etag": 'W/"x"'}, {"ranges": False}], ids=str)
def test_over_http_little_is_read(model_server: ModelServer, run: Any, tmp_path: Path, page: dict[str, Any]) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    model_server.pages["/m.gguf"] = Page(MODEL, **page)
    result = run(model_server.url + "/m.gguf")
    assert described(result) == described(run(str(tmp_path / "m.gguf")))
    found = result["gguf"]
    assert found["requests"] == len(model_server.seen) and all(seen.headers["accept-encoding"] == "identity" for seen in model_server.seen)
    if page.get("ranges", True):
        assert found["header_bytes_read"] < found["header_bytes"] - SCORES_BYTES + 3 * ranges.FIRST_BYTES and found["requests"] <= 8
        assert all(seen.status == 206 for seen in model_server.seen)
    else:
        assert found["requests"] == 1 and found["header_bytes_read"] < found["header_bytes"] + ranges.FIRST_BYTES, "read on, and dropped after the header"
    model_server.seen.clear()
    again = run(model_server.url + "/m.gguf")
    assert described(again) == described(result)
    if page.get("etag") == "":
        assert again["gguf"]["cached"] is False, "nothing tells whether it is still the same"
    else:
        assert (again["gguf"]["cached"], again["gguf"]["header_bytes_read"], len(model_server.seen)) == (True, 0, 1)
    model_server.pages["/m.gguf"] = Page(gguf_bytes(), **{"etag": '"two"', **page, **({"etag": 'W/"y"'} if page.get("last_modified") else {})})
    if page.get("etag") != "" and page.get("ranges", True):
        assert run(model_server.url + "/m.gguf")["gguf"]["name"] == "Tiny"


def test_a_server_that_ignores_conditions_tells_by_its_etag(model_server: ModelServer, run: Any) -> None:
    model_server.pages["/m.gguf"] = Page(MODEL, careless=True)
    run(model_server.url + "/m.gguf")
    assert run(model_server.url + "/m.gguf")["gguf"]["cached"] is True


def test_with_a_sha256_nothing_is_asked_twice(model_server: ModelServer, run: Any, tmp_path: Path) -> None:
    model_server.pages["/m.gguf"] = Page(MODEL)
    first = run(model_server.url + "/m.gguf", sha256=DIGEST)
    count = len(model_server.seen)
    again = run("https://mirror.example/other.gguf", sha256="sha256:" + DIGEST.upper())
    assert described(again) == described(first) and again["gguf"]["cached"] and again["gguf"]["sha256"] == DIGEST
    assert len(model_server.seen) == count


def test_a_file_of_the_store_is_read_there(model_server: ModelServer, run: Any, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    models.ensure_models(str(tmp_path / "m.gguf"), store=str(tmp_path / "store"))
    result = run("https://mirror.example/m.gguf", sha256=DIGEST)
    assert result["gguf"]["block_count"] == 2 and not model_server.seen


def test_the_token_goes_to_its_host_alone_and_is_shown_nowhere(model_server: ModelServer, run: Any, tmp_path: Path) -> None:
    cdn = ModelServer()
    try:
        cdn.pages["/x"] = Page(MODEL)
        model_server.pages["/m.gguf"] = Page(token=TOKEN, location=cdn.url + "/x?X-Amz-Signature=s3cr3tsignature")
        result = run(model_server.url + "/m.gguf", token=TOKEN)
        assert described(result)["block_count"] == 2
        assert [seen.headers.get("authorization") for seen in model_server.seen] == [f"Bearer {TOKEN}"], "the way is found once"
        assert len(cdn.seen) == result["gguf"]["requests"] and not any("authorization" in seen.headers for seen in cdn.seen)
        assert TOKEN not in json.dumps(result) and "s3cr3t" not in json.dumps(result)
        assert not any(TOKEN.encode() in path.read_bytes() or b"s3cr3t" in path.read_bytes() for path in (tmp_path / "cache").iterdir())
        text = refused(run(model_server.url + "/m.gguf", token="wrong-token-of-mine"))
        assert "needs a login" in text and "wrong-token-of-mine" not in text
    finally:
        cdn.close()


def test_a_signed_address_that_ran_out_is_asked_for_again(model_server: ModelServer, run: Any) -> None:
    model_server.pages["/m.gguf"] = Page(location=model_server.url + "/x")
    model_server.pages["/x"] = Page(MODEL, statuses=[])
    real = model_server._choose

    def forget(page: Any, method: str, headers: dict[str, str]) -> Any:
        if page is model_server.pages["/x"] and len(model_server.seen) == 3:
            return 403, {}, b"Request has expired"
        return real(page, method, headers)

    model_server._choose = forget  # type: ignore[method-assign]
    assert described(run(model_server.url + "/m.gguf"))["block_count"] == 2
    assert [seen.status for seen in model_server.seen][:5] == [302, 206, 403, 302, 206]


def test_broken_connections_are_tried_again(model_server: ModelServer, run: Any) -> None:
    model_server.pages["/m.gguf"] = Page(MODEL, cuts=[100, 70_000, 10], statuses=[503])
    assert described(run(model_server.url + "/m.gguf"))["block_count"] == 2
    model_server.pages["/n.gguf"] = Page(MODEL, cuts=[100_000, 200_000], ranges=False)
    assert described(run(model_server.url + "/n.gguf"))["block_count"] == 2


def test_a_file_that_changes_meanwhile(model_server: ModelServer, run: Any) -> None:
    page = Page(MODEL)
    model_server.pages["/m.gguf"] = page
    real = model_server._choose

    def change(*arguments: Any) -> Any:
        if len(model_server.seen) == 3:
            page.etag = '"two"'
        return real(*arguments)

    model_server._choose = change  # type: ignore[method-assign]
    assert "changed on the server while it was read" in refused(run(model_server.url + "/m.gguf"))


@pytest.mark.parametrize(
    ("page", "part"),
    [
        (Page(MODEL, no_total=True), "not how long it is"),
        (Page(MODEL, ranges=False, chunked=True), "does not tell how long the file is"),
        (Page(MODEL, encoding="gzip"), "is sent compressed (gzip)"),
        (Page(b""), "it is empty"),
        (Page(b"<html>log in</html>"), "a web page"),
        (Page(MODEL[:100_000]), "is cut off in its header"),
        (Page(MODEL[:-5000]), "5000 bytes are missing, in 1 of 4 tensors"),
        (Page(MODEL[:4] + b"\x09\0\0\0" + MODEL[8:]), "GGUF version 9 is not known"),
        (Page(statuses=[404]), "is not there"),
        (Page(statuses=[503] * 9), "HTTP status 503 (5 attempts)"),
    ],
)
def test_what_cannot_be_read(model_server: ModelServer, run: Any, tmp_path: Path, page: Page, part: str) -> None:
    model_server.pages["/m.gguf"] = page
    text = refused(run(model_server.url + "/m.gguf"))
    assert part in text and "/m.gguf" in text, text
    assert not (tmp_path / "cache").exists()


def test_a_header_that_costs_too_much_is_left(model_server: ModelServer, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MAX_BYTES", 300_000)
    for page in (Page(MODEL), Page(MODEL, ranges=False)):
        model_server.pages["/m.gguf"] = page
        assert "MiB" in refused(run(model_server.url + "/m.gguf"))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"src": "/none.gguf"}, "/none.gguf cannot be read: No such file"),
        ({"src": "/tmp"}, "/tmp cannot be read: Is a directory"),
        ({"src": "m.gguf"}, "is a relative path"),
        ({"src": "s3://x/m.gguf"}, "unknown scheme s3://"),
        ({"src": "huggingface://ns/tiny"}, "is a whole repository"),
        ({"src": "https://example.com/m.gguf", "sha256": "12"}, "is no SHA-256"),
        ({"src": "huggingface://ns/tiny/m.gguf", "hub_url": "ftp://x"}, "hub_url"),
    ],
)
def test_bad_input(run: Any, arguments: dict[str, Any], part: str) -> None:
    assert part in refused(run(**arguments))


def test_a_local_file_is_compared_with_its_sha256(run: Any, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    assert run(str(tmp_path / "m.gguf"), sha256=DIGEST)["gguf"]["sha256"] == DIGEST
    assert f"found {DIGEST}, expected {'0' * 64}" in refused(run(str(tmp_path / "m.gguf"), sha256="0" * 64))


def test_what_is_remarkable(run: Any, tmp_path: Path) -> None:
    (tmp_path / "old.gguf").write_bytes(Writer(1, True).file())
    result = run(str(tmp_path / "old.gguf"))
    assert (result["gguf"]["version"], result["gguf"]["big_endian"]) == (1, True)
    assert len(result["findings"]) == 2


def test_a_number_that_is_none_can_be_returned(run: Any, tmp_path: Path) -> None:
    metadata = {"general.architecture": Value(STRING, "x"), "x.nan": Value(F32, float("nan")), "x.inf": Value(ARRAY, [1.0, float("inf")], F32)}
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(metadata=metadata))
    for dummy in range(2):
        assert run(str(tmp_path / "m.gguf"), tensors=True)["gguf"]["metadata"] == {"general.architecture": "x", "x.nan": None, "x.inf": [1.0, None]}


# Split models


def parts() -> dict[str, bytes]:
    """A model in three parts, as llama.cpp's gguf-split writes them."""
    found = {}
    for number, tensor in enumerate((TENSORS[0], TENSORS[1], TENSORS[2])):
        metadata = {"split.no": Value(U16, number), "split.count": Value(U16, 3), "split.tensors.count": Value(U32, 3)}
        if number == 0:
            metadata = {**DEFAULT_METADATA, **metadata}
        found[f"q/big-{number + 1:05d}-of-00003.gguf"] = Writer().file(metadata=metadata, tensors=[tensor])
    return found


def check_parts(result: dict[str, Any]) -> None:
    found = described(result)
    data = parts()
    assert (found["shards"], found["tensor_count"], found["name"]) == (3, 3, "Tiny")
    assert found["file_bytes"] == sum(map(len, data.values())) and [entry["index"] for entry in found["layers"]] == [0, 1]
    assert result["findings"] == [], "all parts are there"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_parts_of_a_split_model_on_this_host(run: Any, tmp_path: Path, number: int) -> None:
    for name, data in parts().items():
        (tmp_path / Path(name).name).write_bytes(data)
    check_parts(run(str(tmp_path / f"big-0000{number}-of-00003.gguf")))
    (tmp_path / "big-00003-of-00003.gguf").unlink()
    if number != 3:
        text = refused(run(str(tmp_path / f"big-0000{number}-of-00003.gguf")))
        assert f"{tmp_path}/big-00003-of-00003.gguf, part 3 of the model, cannot be read" in text


def test_a_part_under_another_name(run: Any, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(parts()["q/big-00001-of-00003.gguf"])
    assert "is one part of 3, and its name does not end in -00001-of-00003.gguf" in refused(run(str(tmp_path / "m.gguf")))


def test_the_parts_of_a_split_model_over_http(model_server: ModelServer, run: Any) -> None:
    for name, data in parts().items():
        model_server.pages[f"/a-00001-of-00009/{name}"] = Page(data)
    check_parts(run(f"{model_server.url}/a-00001-of-00009/q/big-00001-of-00003.gguf?download=true"))
    assert all(seen.path.endswith("?download=true") for seen in model_server.seen)
    del model_server.pages["/a-00001-of-00009/q/big-00002-of-00003.gguf"]
    assert "big-00002-of-00003.gguf" in refused(run(f"{model_server.url}/a-00001-of-00009/q/big-00001-of-00003.gguf"))


# The hub and registries


def test_a_model_of_the_hub(hub_server: HubServer, run: Any) -> None:
    repository = hub_server.repository("ns/tiny", {"m.gguf": MODEL, **parts()}, gated=TOKEN)
    assert "is gated" in refused(run("huggingface://ns/tiny/m.gguf", hub_url=hub_server.url))
    result = run("huggingface://ns/tiny/m.gguf", hub_url=hub_server.url, token=TOKEN)
    assert (result["gguf"]["sha256"], result["gguf"]["revision"]) == (DIGEST, repository.branches["main"])
    assert result["gguf"]["header_bytes_read"] < result["gguf"]["header_bytes"] and TOKEN not in json.dumps(result)
    assert hub_server.cdn.seen and not any("authorization" in seen.headers for seen in hub_server.cdn.seen)
    hub_server.cdn.seen.clear()
    again = run("huggingface://ns/tiny/m.gguf", hub_url=hub_server.url, token=TOKEN)
    assert again["gguf"]["cached"] and described(again) == described(result) and not hub_server.cdn.seen
    assert "the hub says" in refused(run("huggingface://ns/tiny/m.gguf", hub_url=hub_server.url, token=TOKEN, sha256="0" * 64))
    check_parts(run("huggingface://ns/tiny@main/q/big-00001-of-00003.gguf", hub_url=hub_server.url, token=TOKEN))


def test_all_parts_are_of_one_commit(hub_server: HubServer, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub_server.repository("ns/split", parts())
    first = repository.branches["main"]
    real = models.HubClient.file

    def moving(self: Any) -> Any:
        found = real(self)
        repository.commit({"README.md": b"all gone"})
        return found

    monkeypatch.setattr(models.HubClient, "file", moving)
    result = run("huggingface://ns/split@main/q/big-00001-of-00003.gguf", hub_url=hub_server.url)
    check_parts(result)
    assert result["gguf"]["revision"] == first


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    with FakeRegistry() as made:
        yield made


def put(registry: FakeRegistry, layers: list[tuple[str, bytes, str]]) -> str:
    entries = []
    for kind, data, path in layers:
        annotations = {"org.cncf.model.filepath": path} if path else {}
        entries.append({"mediaType": kind, **registry.put_blob("a/b", data), "annotations": annotations})
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **registry.put_blob("a/b", b"{}")}
    return str(registry.put_manifest("a/b", "1", {"schemaVersion": 2, "config": config, "layers": entries})["digest"])


def tar(contents: dict[str, bytes]) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as writer:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            writer.addfile(member, io.BytesIO(data))
    return found.getvalue()


WEIGHT = "application/vnd.cncf.model.weight.v1."


@pytest.mark.parametrize(
    "layer",
    [
        ("application/vnd.ollama.image.model", MODEL, ""),
        (WEIGHT + "raw", MODEL, "m.gguf"),
        (WEIGHT + "tar", tar({"README.md": b"x" * 300_000, "sub/m.gguf": MODEL, "mmproj-m.gguf": MODEL}), ""),
    ],
    ids=["ollama", "raw", "tar"],
)
def test_a_model_of_a_registry(registry: FakeRegistry, run: Any, tmp_path: Path, layer: tuple[str, bytes, str]) -> None:
    digest = put(registry, [layer])
    source = f"oci://{registry.host}/a/b:1"
    result = run(source)
    (tmp_path / "m.gguf").write_bytes(MODEL)
    assert described(result) == described(run(str(tmp_path / "m.gguf")))
    assert result["gguf"]["revision"] == digest and result["gguf"]["sha256"] == ("" if "tar" in layer[0] else DIGEST)
    assert result["gguf"]["header_bytes_read"] < result["gguf"]["header_bytes"]
    blobs = len(registry.seen("GET", "/blobs/"))
    again = run(source)
    assert again["gguf"]["cached"] and described(again) == described(result)
    if "tar" not in layer[0]:
        assert len(registry.seen("GET", "/blobs/")) == blobs
        assert "its manifest says" in refused(run(source, sha256="0" * 64))


def test_a_split_model_of_a_registry(registry: FakeRegistry, run: Any) -> None:
    put(registry, [(WEIGHT + "raw", data, name) for name, data in parts().items()])
    check_parts(run(f"oci://{registry.host}/a/b:1"))
    put(registry, [(WEIGHT + "raw", data, name) for name, data in list(parts().items())[:2]])
    assert "does not hold part 3 of the model" in refused(run(f"oci://{registry.host}/a/b:1"))


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        ([(WEIGHT + "tar+gzip", gzip.compress(tar({"m.gguf": MODEL})), "")], "its layers are compressed (tar+gzip)"),
        ([(WEIGHT + "raw", MODEL, "a.gguf"), (WEIGHT + "raw", MODEL, "b.gguf")], "does not hold one GGUF file; its GGUF files are: a.gguf, b.gguf"),
        ([(WEIGHT + "raw", b"{}", "model.safetensors")], "its GGUF files are: none"),
        ([(WEIGHT + "tar", b"no tar" * 1000, "")], "is no tar archive"),
        ([(WEIGHT + "raw", MODEL[:-5000], "m.gguf")], "is cut off in its data"),
    ],
)
def test_artifacts_that_cannot_be_looked_into(registry: FakeRegistry, run: Any, layers: Any, part: str) -> None:
    put(registry, layers)
    assert part in refused(run(f"oci://{registry.host}/a/b:1"))
