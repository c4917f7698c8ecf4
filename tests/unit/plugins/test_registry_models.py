# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models in registries: Ollama's, ModelPack's, those that oras pushed, and artifacts that are none."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.oci import Descriptor
from ansible_collections.aikit.fleet.plugins.module_utils._io import files, model_store, models
from ansible_collections.aikit.fleet.plugins.module_utils._io.model_file import reach
from ansible_collections.aikit.fleet.plugins.module_utils._io.models import Reach
from ansible_collections.aikit.fleet.plugins.module_utils._io.registry import Registry, RegistrySettings
from ansible_collections.aikit.fleet.tests.unit.fake_registry import FakeRegistry
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes

MODEL = gguf_bytes()
OTHER = gguf_bytes(fill=1)
DIGEST = hashlib.sha256(MODEL).hexdigest()
# Types of members, as texts, so that bytes are always contents
DIRTYPE, SYMTYPE, LNKTYPE, CHRTYPE = (kind.decode() for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE))
OLLAMA = "application/vnd.ollama.image."
PACK = "application/vnd.cncf.model."
TITLE = "org.opencontainers.image.title"
PATH = "org.cncf.model.filepath"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    with FakeRegistry() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def ensure(registry: FakeRegistry, store: Path) -> Any:
    def call(name: str, sha256: Optional[str] = None, **options: Any) -> models.Acquired:
        return models.ensure_models(f"oci://{registry.host}/{name}", sha256, str(store), **options)

    return call


def put(registry: FakeRegistry, name: str, layers: list[tuple[str, bytes, Mapping[str, str]]], media_type: str = "", **more: Any) -> str:
    """An artifact; returns the digest of its manifest."""
    repository, dummy, tag = name.partition(":")
    entries = [{"mediaType": kind, **registry.put_blob(repository, data), **({"annotations": dict(notes)} if notes else {})} for kind, data, notes in layers]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **registry.put_blob(repository, b"{}")}
    manifest = {"schemaVersion": 2, "mediaType": media_type or "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": entries, **more}
    return str(registry.put_manifest(repository, tag, manifest, manifest["mediaType"])["digest"])


def tar(contents: Mapping[str, Any], mode: str = "w") -> bytes:
    """A tar archive; a value that is no bytes is the type of a member without content."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode=mode) as writer:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
                writer.addfile(member, io.BytesIO(data))
            else:
                member.type, member.linkname = data.encode(), "/etc/passwd"
                writer.addfile(member)
    return found.getvalue()


def refused(ensure: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AikitError) as caught:
        ensure(*arguments, **options)
    assert caught.value.hint
    return str(caught.value)


def ollama(registry: FakeRegistry, name: str = "library/llama3.2:1b", data: bytes = MODEL) -> str:
    layers = [(OLLAMA + "model", data, {}), (OLLAMA + "template", b"{{ .Prompt }}", {}), (OLLAMA + "license", b"free", {})]
    return put(registry, name, layers, DOCKER_MANIFEST)


def test_a_model_of_ollama(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    digest = ollama(registry)
    told = ensure("library/llama3.2:1b", check_mode=True)
    assert told.plan.changed and not store.exists() and (told.sha256, told.size_bytes, told.revision) == (DIGEST, len(MODEL), digest)
    real = ensure("library/llama3.2:1b")
    assert real.plan.actions == told.plan.actions and real.path == str(store / "sha256" / DIGEST / "llama3.2")
    assert Path(real.path).read_bytes() == MODEL and real.downloaded_bytes == len(MODEL) and real.revision == digest
    assert real.files[0].header is not None, "its header is read although its name does not end in .gguf"
    count = len(registry.requests)
    for check_mode in (True, False):
        again = ensure("library/llama3.2:1b", check_mode=check_mode)
        assert not again.plan.changed and again.revision == digest
    assert len(registry.requests) == count
    assert not [path for path in store.rglob("*") if path.parent.name == "partial"]


def test_an_image_has_what_no_server_needs(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    """AIKit takes what oras pulls: every file with a title, under its title."""
    layers = [
        (PACK + "weight.v1.raw", MODEL, {PATH: "m.gguf", TITLE: "q/m.gguf"}),
        (PACK + "doc.v1.raw", b"# Tiny", {PATH: "README.md", TITLE: "README.md"}),
        (PACK + "code.v1.raw", b"x = 1", {TITLE: "tools/.x.py"}),
        (PACK + "dataset.v1.raw", b"1", {PATH: "untitled.csv"}),
        (PACK + "dataset.v1.tar", tar({"data.csv": b"1"}), {TITLE: "dataset"}),
    ]
    put(registry, "models/tiny:1", layers)
    alone = ensure("models/tiny:1", DIGEST)
    assert [entry.name for entry in alone.files] == ["q/m.gguf"] and alone.companions == ()
    told = ensure("models/tiny:1", companions=True, check_mode=True)
    found = ensure("models/tiny:1", DIGEST, companions=True)
    assert found.plan.actions == told.plan.actions and len(found.plan.actions) == 2 and found.sha256 == DIGEST
    assert {entry.name: Path(entry.path).read_bytes() for entry in found.companions} == {"README.md": b"# Tiny", "tools/.x.py": b"x = 1"}
    count = len(registry.requests)
    for companions in (False, True):
        again = ensure("models/tiny:1", companions=companions)
        assert not again.plan.changed and len(again.companions) == (2 if companions else 0)
    assert ensure("models/tiny:1", companions=True, revision=found.revision).companions
    assert len(registry.requests) == count, "what came with a model is remembered with it"
    models.remove_models(f"oci://{registry.host}/models/tiny:1", None, str(store))
    assert not [path for path in (store / "sha256").rglob("*") if path.is_file()]


def test_companions_come_from_the_manifest_of_their_model(registry: FakeRegistry, ensure: Any) -> None:
    def pack(model: bytes, text: bytes) -> str:
        layers = [(PACK + "weight.v1.raw", model, {TITLE: "m.gguf"}), (PACK + "doc.v1.raw", text, {TITLE: "README.md"})]
        return put(registry, "models/tiny:1", layers)

    first = pack(MODEL, b"old")
    ensure("models/tiny:1", DIGEST)
    for moved in (MODEL, OTHER):
        pack(moved, b"new")
        found = ensure("models/tiny:1", DIGEST, companions=True)
        assert found.revision == first and [Path(entry.path).read_bytes() for entry in found.companions] == [b"old"]
        for entry in found.companions:
            Path(entry.path).unlink()


def test_a_companion_with_the_name_of_a_model_is_none(registry: FakeRegistry, ensure: Any) -> None:
    layers = [(PACK + "weight.v1.raw", MODEL, {TITLE: "m.gguf"}), (PACK + "dataset.v1.raw", b"no model", {TITLE: "._x.gguf"})]
    put(registry, "models/tiny:1", layers)
    for refresh in (False, False, True):
        found = ensure("models/tiny:1", companions=True, refresh=refresh)
        assert [entry.name for entry in found.companions] == ["._x.gguf"] and found.companions[0].header is None


@pytest.mark.parametrize("form", ["digest", "path", "source"])
def test_a_model_that_is_kept_keeps_its_companions(registry: FakeRegistry, ensure: Any, store: Path, form: str) -> None:
    layers = [(PACK + "weight.v1.raw", MODEL, {TITLE: "m.gguf"}), (PACK + "doc.v1.raw", b"# Tiny", {TITLE: "README.md"})]
    put(registry, "models/tiny:1", layers)
    put(registry, "models/other:1", [(PACK + "weight.v1.raw", OTHER, {TITLE: "m.gguf"}), (PACK + "doc.v1.raw", b"# Other", {TITLE: "README.md"})])
    found = ensure("models/tiny:1", companions=True)
    ensure("models/other:1", companions=True)
    keep = {"digest": DIGEST, "path": found.path, "source": f"oci://{registry.host}/models/tiny:1"}[form]
    model_store.prune(str(store), [keep])
    count = len(registry.requests)
    assert not ensure("models/tiny:1", companions=True).plan.changed and len(registry.requests) == count
    assert len([path for path in (store / "sha256").rglob("*") if path.is_file()]) == 2, "what belongs to another model is gone"


def test_a_model_of_ollama_has_no_companions(registry: FakeRegistry, ensure: Any) -> None:
    ollama(registry)
    found = ensure("library/llama3.2:1b", companions=True)
    count = len(registry.requests)
    assert found.companions == () and not ensure("library/llama3.2:1b", companions=True).plan.changed and len(registry.requests) == count


def test_a_tag_that_moves(registry: FakeRegistry, ensure: Any) -> None:
    first = ollama(registry)
    ensure("library/llama3.2:1b")
    second = ollama(registry, data=OTHER)
    assert ensure("library/llama3.2:1b").revision == first
    fresh = ensure("library/llama3.2:1b", refresh=True)
    assert fresh.revision == second and fresh.sha256 == hashlib.sha256(OTHER).hexdigest() and fresh.plan.changed
    assert not ensure("library/llama3.2:1b", refresh=True).plan.changed
    assert ensure(f"library/llama3.2@{first}").sha256 == DIGEST
    assert f"its manifest says {fresh.sha256}, expected {DIGEST}" in refused(ensure, "library/llama3.2:1b", DIGEST, refresh=True)
    Path(fresh.path).unlink()
    ollama(registry)
    assert ensure("library/llama3.2:1b").revision == second, "what is gone comes back as it was"


def test_a_broken_model_of_ollama_is_not_kept(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    ollama(registry, data=MODEL[:-200])
    assert "cut off in its data" in refused(ensure, "library/llama3.2:1b")
    assert not [path for path in store.rglob("*") if path.is_file()]
    assert ensure("library/llama3.2:1b", validate=False).sha256


def test_a_model_pack_of_raw_layers(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    layers = [
        (PACK + "weight.v1.raw", MODEL, {PATH: "m.gguf"}),
        (PACK + "weight.config.v1.raw", b"{}", {PATH: "config.json"}),
        (PACK + "doc.v1.raw", b"# Tiny", {PATH: "README.md"}),
        (PACK + "dataset.v1.tar", tar({"data.csv": b"1"}), {}),
    ]
    digest = put(registry, "models/tiny:1", layers, artifactType="application/vnd.cncf.model.manifest.v1+json")
    told = ensure("models/tiny:1", check_mode=True)
    real = ensure("models/tiny:1")
    assert real.plan.actions == told.plan.actions and real.sha256 == told.sha256 and real.revision == digest
    assert [entry.name for entry in real.files] == ["config.json", "m.gguf"]
    assert (Path(real.path) / "m.gguf").read_bytes() == MODEL
    one = ensure("models/tiny:1", include=["*.gguf"])
    assert one.path == str(store / "sha256" / DIGEST / "m.gguf") and one.sha256 == DIGEST
    assert "it has: m.gguf, config.json" in refused(ensure, "models/tiny:1", include=["*.bin"])


@pytest.mark.parametrize("form", ["tar", "tar+gzip", "tar+zstd"])
def test_a_model_pack_of_archives(registry: FakeRegistry, ensure: Any, store: Path, form: str) -> None:
    data = tar({"./sub": DIRTYPE, "./sub/m.gguf": MODEL, "tokenizer.json": b"{}"})
    if form == "tar+zstd":
        program = shutil.which("zstd")
        if sys.version_info < (3, 14) and not program:
            put(registry, "models/tiny:1", [(f"{PACK}weight.v1.{form}", b"x", {})])
            assert "Install the package zstd" in refused(ensure, "models/tiny:1")
            return
        data = subprocess.run([str(program), "-qc"], input=data, capture_output=True, check=True).stdout
    put(registry, "models/tiny:1", [(f"{PACK}weight.v1.{form}", gzip.compress(data) if form == "tar+gzip" else data, {PATH: "weights"})])
    told = ensure("models/tiny:1", check_mode=True)
    assert told.plan.changed and not store.exists() and told.sha256 == ""
    real = ensure("models/tiny:1")
    assert {entry.name: Path(entry.path).read_bytes() for entry in real.files} == {"sub/m.gguf": MODEL, "tokenizer.json": b"{}"}
    assert not ensure("models/tiny:1").plan.changed
    assert not [path for path in store.rglob("*") if path.parent.name == "partial"]
    one = ensure("models/tiny:1", DIGEST, include=["sub/*"])
    assert one.sha256 == DIGEST and one.path.endswith("/m.gguf")
    assert "has no file that include" in refused(ensure, "models/tiny:1", include=["*.bin"])


@pytest.mark.parametrize(
    ("contents", "part"),
    [
        ({"../../evil": b"x"}, "'../../evil', which is no plain file"),
        ({"/etc/evil": b"x"}, "'/etc/evil', which is no plain file"),
        ({"link": SYMTYPE}, "'link', which is no plain file"),
        ({"hard": LNKTYPE}, "'hard', which is no plain file"),
        ({"null": CHRTYPE}, "'null', which is no plain file"),
        ({".hidden": b"x"}, "is a hidden file"),
        ({"m.gguf": b"<html>"}, "is no GGUF file"),
    ],
)
def test_archives_that_hold_what_they_must_not(registry: FakeRegistry, ensure: Any, store: Path, tmp_path: Path, contents: Any, part: str) -> None:
    put(registry, "models/evil:1", [(PACK + "weight.v1.tar", tar(contents), {})])
    assert part in refused(ensure, "models/evil:1")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, left


def test_an_archive_that_is_none(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    put(registry, "models/bad:1", [(PACK + "weight.v1.tar", b"no tar" * 200, {})])
    assert "is no tar archive" in refused(ensure, "models/bad:1")
    put(registry, "models/cut:1", [(PACK + "weight.v1.tar+gzip", gzip.compress(tar({"m.gguf": MODEL}))[:-40], {})])
    assert "is no tar archive" in refused(ensure, "models/cut:1")
    assert not [path for path in store.rglob("*") if path.is_file()]


def test_what_oras_pushed(registry: FakeRegistry, ensure: Any) -> None:
    layers = [
        ("application/vnd.oci.image.layer.v1.tar", MODEL, {TITLE: "m.gguf"}),
        ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(tar({"folder/n.gguf": OTHER})), {TITLE: "folder", "io.deis.oras.content.unpack": "true"}),
    ]
    put(registry, "files/tiny:1", layers[:1])
    assert ensure("files/tiny:1").path.endswith("/m.gguf")
    put(registry, "files/two:1", layers)
    assert [entry.name for entry in ensure("files/two:1").files] == ["folder/n.gguf", "m.gguf"]


def test_a_model_of_docker(registry: FakeRegistry, ensure: Any) -> None:
    put(registry, "ai/tiny:1", [("application/vnd.docker.ai.gguf.v3", MODEL, {}), ("application/vnd.docker.ai.license", b"free", {})])
    assert ensure("ai/tiny:1").path.endswith(f"{DIGEST}/tiny")


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        ([("application/vnd.oci.image.layer.v1.tar", b"x", {})], "holds no model: no layer has the name of a file"),
        ([(OLLAMA + "tensor", b"x", {})], "is a model of Ollama without a GGUF file"),
        ([(OLLAMA + "model", b"x", {}), (OLLAMA + "model", b"y", {})], "has 2 layers with weights"),
        ([(PACK + "weight.v1.raw", b"x", {})], "has no path"),
        ([(PACK + "weight.v1.raw", b"x", {PATH: "../x"})], "wants to be '../x'"),
        ([("a/b", b"x", {TITLE: "/etc/passwd"})], "wants to be '/etc/passwd'"),
        ([("a/b", b"x", {TITLE: "m"}), ("a/b", b"y", {TITLE: "m"})], "two files with the name m"),
        ([], "its layers are none"),
    ],
)
def test_artifacts_that_are_no_model(registry: FakeRegistry, ensure: Any, layers: Any, part: str) -> None:
    put(registry, "models/none:1", layers)
    assert part in refused(ensure, "models/none:1")


def test_an_unknown_tag_and_a_disk_that_is_too_small(registry: FakeRegistry, ensure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "404" in refused(ensure, "library/llama3.2:9b")
    ollama(registry)
    monkeypatch.setattr(files, "free_bytes", lambda path: 100)
    for check_mode in (True, False):
        assert "Not enough disk space for the model llama3.2" in refused(ensure, "library/llama3.2:1b", check_mode=check_mode)


def test_an_interrupted_download_goes_on(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    ollama(registry)
    (store / "partial").mkdir(parents=True)
    (store / "partial" / f"{DIGEST}.blob.part").write_bytes(MODEL[:500])
    real = ensure("library/llama3.2:1b")
    assert real.resumed and real.downloaded_bytes == len(MODEL) - 500 and Path(real.path).read_bytes() == MODEL


def test_a_login_is_used_and_shown_nowhere(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with FakeRegistry(user="me", password="hunter22") as registry:
        ollama(registry)
        source = f"oci://{registry.host}/library/llama3.2:1b"
        with pytest.raises(AikitError) as caught:
            models.ensure_models(source, store=str(store))
        assert "docker login" in caught.value.hint
        (tmp_path / "auth.json").write_text('{"auths": {"%s": {"username": "me", "password": "hunter22"}}}' % registry.host)
        login_reach = Reach(registry=RegistrySettings(auth_file=str(tmp_path / "auth.json")))
        real = models.ensure_models(source, store=str(store), reach=login_reach)
        assert real.sha256 == DIGEST and "hunter22" not in str(real)
        assert not any(b"hunter22" in path.read_bytes() for path in store.rglob("*") if path.is_file())


def test_a_login_of_a_task_is_used(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DOCKER_CONFIG", "/nonexistent")
    options = {"registry_auth_file": None, "registry_ca_file": None, "registry_insecure": [], "registry_mirrors": {}, "registry_timeout_seconds": 60}
    options.update({"token": None, "hub_url": "https://huggingface.co", "timeout_seconds": 60})
    with FakeRegistry(user="me", password="hunter22") as registry:
        put(registry, "models/tiny:1", [(f"{OLLAMA}model", MODEL, {})])
        logins = [{"registry": registry.host, "username": "me", "password": "hunter22"}]
        found = models.ensure_models(f"oci://{registry.host}/models/tiny:1", None, str(store), reach=reach({**options, "registry_logins": logins}))
        assert found.sha256 == DIGEST


def test_a_piece_of_a_blob(registry: FakeRegistry) -> None:
    data = bytes(range(256)) * 20
    entry = registry.put_blob("a/b", data)
    client = Registry(RegistrySettings(), sleep=lambda seconds: None)
    descriptor = Descriptor("x", entry["digest"], len(data))
    repository = f"{registry.host}/a/b"
    for start, length in ((0, 10), (100, 1000), (len(data) - 5, 100), (len(data), 10), (0, len(data))):
        assert client.read_blob(repository, descriptor, start, length) == data[start : start + length]
    # A registry that knows no ranges
    registry.faults.append(lambda handler: "/blobs/" in handler.path and (handler.answer(200, data) or True))
    assert client.read_blob(repository, descriptor, 100, 50) == data[100:150]
    client.close()


def test_remove_a_model_of_a_registry(registry: FakeRegistry, ensure: Any, store: Path) -> None:
    ollama(registry)
    ensure("library/llama3.2:1b")
    source = f"oci://{registry.host}/library/llama3.2:1b"
    assert models.remove_models(source, None, str(store)).changed
    assert not [path for path in store.rglob("*") if path.is_file() and path.parent.name != "digests"]
    assert not models.remove_models(source, None, str(store)).changed
