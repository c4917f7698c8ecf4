# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources that name a repository or an artifact: what they give, what is written down of it, what is sent where."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import model_source
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import download, files, models, transfer
from ansible_collections.aikit.fleet.plugins.module_utils._io.models import Reach
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer, Repository
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page

MODEL = gguf_bytes()
OTHER = gguf_bytes(fill=1)
DIGEST = hashlib.sha256(MODEL).hexdigest()
README = b"# Tiny\n"
FILES = {".gitattributes": b"*.gguf filter=lfs\n", "README.md": README, "m.gguf": MODEL, "sub/dir/m.gguf": OTHER}
TOKEN = "hf_T0KENT0KEN"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    real = download.retrying
    monkeypatch.setattr(models, "retrying", lambda attempt, what, say: real(attempt, what, say, lambda seconds: None))


@pytest.fixture
def tiny(hub_server: HubServer) -> Repository:
    return hub_server.repository("ns/tiny", FILES)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def ensure(hub_server: HubServer, store: Path) -> Any:
    def call(source: str, sha256: Any = None, *, token: Any = None, **options: Any) -> models.Acquired:
        return models.ensure_models(source, sha256, str(store), reach=Reach(token, hub_server.url), **options)

    return call


def refused(ensure: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AikitError) as caught:
        ensure(*arguments, **options)
    assert caught.value.hint
    return str(caught.value)


def stored(store: Path) -> list[str]:
    found = (path.relative_to(store) for path in store.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "digests")


# One file of the hub


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("huggingface://ns/tiny/m.gguf", MODEL),
        ("huggingface://ns/tiny/main/m.gguf", MODEL),
        ("huggingface://ns/tiny@main/m.gguf", MODEL),
        ("huggingface://ns/tiny:main/m.gguf", MODEL),
        ("huggingface://ns/tiny@main/sub/dir/m.gguf", OTHER),
        ("huggingface://ns/tiny@refs%2Fpr%2F1/m.gguf", OTHER),
    ],
)
def test_every_form_of_one_file(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path, source: str, data: bytes) -> None:
    main = tiny.branches["main"]
    request = tiny.commit({"m.gguf": OTHER}, "refs/pr/1")
    told = ensure(source, check_mode=True)
    assert not store.exists() and told.plan.changed and (told.sha256, told.size_bytes) == (sha(data), len(data))
    real = ensure(source)
    assert real.plan.actions == told.plan.actions
    assert real.revision == (request if "refs" in source else main)
    assert real.path == str(store / "sha256" / sha(data) / "m.gguf") and Path(real.path).read_bytes() == data
    assert (real.sha256, real.size_bytes, real.downloaded_bytes) == (sha(data), len(data), len(data))
    count = len(hub_server.seen)
    for check_mode in (False, True):
        again = ensure(source, check_mode=check_mode)
        assert not again.plan.changed and (again.path, again.sha256, again.revision) == (real.path, real.sha256, real.revision)
    assert len(hub_server.seen) == count, "what was looked up once is not asked again"


def test_a_branch_is_looked_up_once_and_refresh_looks_again(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path) -> None:
    first = ensure("huggingface://ns/tiny/m.gguf")
    moved = tiny.commit({"m.gguf": OTHER})
    assert ensure("huggingface://ns/tiny/m.gguf").sha256 == first.sha256 == DIGEST
    os.unlink(first.path)
    again = ensure("huggingface://ns/tiny/m.gguf")
    assert (again.revision, again.sha256) == (first.revision, DIGEST), "what is gone comes back from the commit that it was"
    told = ensure("huggingface://ns/tiny/m.gguf", refresh=True, check_mode=True)
    assert told.plan.changed and (told.revision, told.sha256) == (moved, sha(OTHER))
    fresh = ensure("huggingface://ns/tiny/m.gguf", refresh=True)
    assert (fresh.revision, fresh.sha256, fresh.plan.actions) == (moved, sha(OTHER), told.plan.actions)
    assert not ensure("huggingface://ns/tiny/m.gguf", refresh=True).plan.changed
    assert all(f"/resolve/{moved}/" in seen.path or f"/resolve/{first.revision}/" in seen.path or seen.method == "HEAD" for seen in hub_server.seen)


def test_the_commit_in_a_source_is_the_one_that_comes(ensure: Any, tiny: Repository) -> None:
    old = tiny.branches["main"]
    tiny.commit({"m.gguf": OTHER})
    assert ensure(f"huggingface://ns/tiny@{old}/m.gguf").sha256 == DIGEST
    assert ensure(f"huggingface://ns/tiny/{old}/m.gguf").revision == old


def test_a_given_sha256_is_compared_before_anything_travels(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path) -> None:
    text = refused(ensure, "huggingface://ns/tiny/m.gguf", sha(OTHER))
    assert f"the hub says {DIGEST}" in text and not hub_server.cdn.seen and not store.exists()
    assert ensure("huggingface://ns/tiny/m.gguf", DIGEST).sha256 == DIGEST
    count = len(hub_server.seen)
    assert not ensure("huggingface://ns/tiny/m.gguf", DIGEST, refresh=True).plan.changed and len(hub_server.seen) == count


def test_a_cdn_that_sends_something_else_is_noticed(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path) -> None:
    hub_server.cdn.pages[f"/xet/{DIGEST}"] = Page(OTHER)
    assert f"found {sha(OTHER)}, expected {DIGEST}" in refused(ensure, "huggingface://ns/tiny/m.gguf")
    assert not any(path.startswith("sha256/") for path in stored(store))


@pytest.mark.parametrize("resolve_cache", [False, True])
def test_a_small_file_is_checked_with_the_id_that_git_gave_it(
    ensure: Any, tiny: Repository, hub_server: HubServer, store: Path, resolve_cache: bool
) -> None:
    hub_server.resolve_cache = resolve_cache
    told = ensure("huggingface://ns/tiny/README.md", check_mode=True)
    assert told.plan.changed and told.sha256 == "" and told.size_bytes == len(README)
    real = ensure("huggingface://ns/tiny/README.md")
    assert Path(real.path).read_bytes() == README and real.sha256 == sha(README)
    assert not ensure("huggingface://ns/tiny/README.md").plan.changed


def test_a_small_file_that_changed_on_the_way(ensure: Any, tiny: Repository, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    real = models.HubClient.file

    def swapped(self: Any) -> Any:
        found = real(self)
        tiny.commits[found[1]]["README.md"] = b"# T1ny\n"
        return found

    monkeypatch.setattr(models.HubClient, "file", swapped)
    assert "git's id of it is" in refused(ensure, "huggingface://ns/tiny/README.md")
    assert not any(path.startswith("sha256/") for path in stored(store))


def test_a_renamed_repository_and_a_hub_without_head(ensure: Any, tiny: Repository, hub_server: HubServer) -> None:
    hub_server.renamed["old/name"] = "ns/tiny"
    assert ensure("huggingface://old/name/m.gguf").sha256 == DIGEST
    hub_server.head_allowed = False
    assert ensure("huggingface://ns/tiny@main/sub/dir/m.gguf").sha256 == sha(OTHER)
    assert ensure("huggingface://ns/tiny/README.md").sha256 == sha(README)


def test_another_hub_is_another_source(tiny: Repository, hub_server: HubServer, store: Path, ensure: Any) -> None:
    second = HubServer()
    try:
        second.repository("ns/tiny", {"m.gguf": OTHER})
        assert ensure("huggingface://ns/tiny/m.gguf").sha256 == DIGEST
        other = models.ensure_models("huggingface://ns/tiny/m.gguf", store=str(store), reach=Reach(hub_url=second.url + "/"))
        assert other.sha256 == sha(OTHER)
        assert ensure("huggingface://ns/tiny/m.gguf").sha256 == DIGEST
    finally:
        second.close()


def test_a_busy_hub_is_asked_again(ensure: Any, tiny: Repository, hub_server: HubServer) -> None:
    hub_server.statuses = [503, 429]
    assert ensure("huggingface://ns/tiny/m.gguf").sha256 == DIGEST
    hub_server.statuses = [503] * 20
    assert "HTTP status 503 (5 attempts)" in refused(ensure, "huggingface://ns/tiny@main/sub/dir/m.gguf")


def test_an_interrupted_download_goes_on(ensure: Any, tiny: Repository, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_ATTEMPTS", 1)
    hub_server.cdn.pages[f"/xet/{DIGEST}"] = Page(MODEL, cuts=[1000])
    refused(ensure, "huggingface://ns/tiny/m.gguf")
    real = ensure("huggingface://ns/tiny/m.gguf")
    assert real.resumed and real.downloaded_bytes == len(MODEL) - 1000


# Whole repositories


def test_a_whole_repository_stands_side_by_side(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path) -> None:
    for source in ("huggingface://ns/tiny", "huggingface://ns/tiny@main", "huggingface://ns/tiny:main"):
        told = ensure(source, check_mode=True)
        assert told.plan.changed is (source == "huggingface://ns/tiny")
        real = ensure(source)
        assert real.plan.actions == told.plan.actions or not real.plan.changed
        names = {"README.md": README, "m.gguf": MODEL, "sub/dir/m.gguf": OTHER}
        assert {entry.name: Path(entry.path).read_bytes() for entry in real.files} == names
        assert {name: (Path(real.path) / name).read_bytes() for name in names} == names
        assert real.path == str(store / "sets" / real.sha256)
        assert os.stat(Path(real.path) / "m.gguf").st_nlink == 2, "a second link, not a copy"
        lines = "".join(f"{sha(data)}  {name}\n" for name, data in sorted(names.items()))
        assert real.sha256 == sha(lines.encode())
    count = len(hub_server.seen)
    again = ensure("huggingface://ns/tiny", real.sha256)
    assert not again.plan.changed and again.files[1].sha256 == DIGEST and len(hub_server.seen) == count


def test_an_image_has_the_hidden_files_of_a_repository(ensure: Any, hub_server: HubServer) -> None:
    files = {"m.gguf": MODEL, ".gitattributes": b"*.gguf lfs", ".gitignore": b"*.tmp", "sub/.gitattributes": b"x", ".cache/index": b"y"}
    hub_server.repository("ns/hidden", files)
    plain = ensure("huggingface://ns/hidden")
    assert [entry.name for entry in plain.files] == ["m.gguf"] and plain.sha256 == DIGEST and plain.companions == ()
    told = ensure("huggingface://ns/hidden", companions=True, check_mode=True)
    found = ensure("huggingface://ns/hidden", companions=True)
    assert found.plan.actions == told.plan.actions and found.sha256 == DIGEST
    assert {entry.name: Path(entry.path).read_bytes() for entry in found.companions} == {
        name: files[name] for name in (".cache/index", ".gitignore", "sub/.gitattributes")
    }
    count = len(hub_server.seen)
    again = ensure("huggingface://ns/hidden", companions=True)
    assert not again.plan.changed and [entry.path for entry in again.companions] == [entry.path for entry in found.companions]
    assert len(hub_server.seen) == count
    assert ensure("huggingface://ns/hidden/m.gguf", companions=True).companions == ()


@pytest.mark.parametrize("several", [False, True])
def test_hidden_files_come_from_the_commit_of_their_model(ensure: Any, hub_server: HubServer, several: bool) -> None:
    first = {"m.gguf": MODEL, ".note": b"old", **({"n.gguf": OTHER} if several else {})}
    repository = hub_server.repository("ns/moved", first)
    plain = ensure("huggingface://ns/moved")
    repository.commit({**first, "m.gguf": OTHER, ".note": b"new"})
    found = ensure("huggingface://ns/moved", plain.sha256, companions=True)
    assert found.revision == plain.revision and found.sha256 == plain.sha256
    assert [Path(entry.path).read_bytes() for entry in found.companions] == [b"old"]
    # What was asked for is something else: the record has no say
    assert "another sha256" in refused(ensure, "huggingface://ns/moved", "5" * 64, companions=True)


def test_a_hidden_file_with_the_name_of_a_model_is_none(ensure: Any, hub_server: HubServer) -> None:
    """macOS leaves files beside others whose names are theirs with ``._`` before."""
    hub_server.repository("ns/mac", {"m.gguf": MODEL, "._m.gguf": b"\x00\x05\x16\x07"})
    for refresh in (False, False, True):
        found = ensure("huggingface://ns/mac", companions=True, refresh=refresh)
        assert [entry.name for entry in found.companions] == ["._m.gguf"] and found.companions[0].header is None


def test_a_set_that_lost_a_file_is_mended(ensure: Any, tiny: Repository) -> None:
    real = ensure("huggingface://ns/tiny")
    os.unlink(Path(real.path) / "m.gguf")
    told = ensure("huggingface://ns/tiny", check_mode=True)
    assert [action.verb for action in told.plan.actions] == ["link"] and not (Path(real.path) / "m.gguf").exists()
    assert ensure("huggingface://ns/tiny").plan.actions == told.plan.actions
    (Path(real.path) / "m.gguf").unlink()
    (Path(real.path) / "m.gguf").write_bytes(b"something else")
    assert ensure("huggingface://ns/tiny").plan.changed and (Path(real.path) / "m.gguf").read_bytes() == MODEL
    assert not ensure("huggingface://ns/tiny").plan.changed


def test_a_new_commit_brings_what_changed_alone(ensure: Any, tiny: Repository, hub_server: HubServer) -> None:
    first = ensure("huggingface://ns/tiny")
    assert not ensure("huggingface://ns/tiny", refresh=True).plan.changed
    moved = tiny.commit({**FILES, "m.gguf": OTHER, "new.txt": b"new"})
    told = ensure("huggingface://ns/tiny", refresh=True, check_mode=True)
    real = ensure("huggingface://ns/tiny", refresh=True)
    assert real.plan.actions == told.plan.actions
    assert [action.describe().split(" (")[0] for action in real.plan.actions] == [
        f"download huggingface://ns/tiny@{moved}/new.txt",
        "link huggingface://ns/tiny",
    ]
    assert real.revision == moved and real.path != first.path and Path(first.path, "m.gguf").read_bytes() == MODEL


def test_include_chooses(ensure: Any, tiny: Repository, hub_server: HubServer) -> None:
    one = ensure("huggingface://ns/tiny", include=["sub/*"])
    assert one.path.endswith("/m.gguf") and one.sha256 == sha(OTHER)
    two = ensure("huggingface://ns/tiny", include=["*.gguf"])
    assert [entry.name for entry in two.files] == ["m.gguf", "sub/dir/m.gguf"]
    assert not ensure("huggingface://ns/tiny", include=["*.gguf"]).plan.changed
    assert "has no file that include (*.bin) names; it has: README.md, m.gguf" in refused(ensure, "huggingface://ns/tiny", include=["*.bin"])
    assert "names one file" in refused(ensure, "huggingface://ns/tiny/m.gguf", include=["*"])
    assert "is one file" in refused(ensure, "https://example.com/m.gguf", DIGEST, include=["*"])


def test_a_list_of_many_pages(tiny: Repository, hub_server: HubServer, ensure: Any) -> None:
    hub_server.page_size = 2
    assert len(ensure("huggingface://ns/tiny").files) == 3
    hub_server.link_host = "https://huggingface.co"
    seen = len(hub_server.seen)
    assert len(ensure("huggingface://ns/tiny", refresh=True).files) == 3
    assert len(hub_server.seen) > seen + 2, "a mirror's pages come from the mirror"


def test_the_sha256_of_a_repository(ensure: Any, tiny: Repository, store: Path) -> None:
    both = {"m.gguf": DIGEST, "sub/dir/m.gguf": sha(OTHER)}
    good = model_source.set_sha256(both)
    assert ensure("huggingface://ns/tiny", good, include=["*.gguf"]).sha256 == good
    assert "the hub says" in refused(ensure, "huggingface://ns/tiny", DIGEST, include=["*.gguf"], refresh=True)
    assert "found" in refused(ensure, "huggingface://ns/tiny", DIGEST, refresh=True)
    assert "name is given" in refused(ensure, "huggingface://ns/tiny", name="x.gguf")


def test_a_disk_that_is_too_small_for_all_is_noticed_before_the_first(
    ensure: Any, tiny: Repository, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: len(MODEL) + 10)
    for check_mode in (True, False):
        assert "Not enough disk space for the files of huggingface://ns/tiny@" in refused(ensure, "huggingface://ns/tiny", check_mode=check_mode)
    assert not hub_server.cdn.seen


def test_a_repository_that_lists_a_file_elsewhere(ensure: Any, hub_server: HubServer, store: Path) -> None:
    hub_server.repository("ns/evil", {"../../etc/passwd": b"x", "m.gguf": MODEL})
    assert "leads elsewhere" in refused(ensure, "huggingface://ns/evil")
    hub_server.repository("ns/empty", {".gitattributes": b"x"})
    assert "has no files" in refused(ensure, "huggingface://ns/empty")
    assert not store.exists()


# Logins


def test_a_gated_repository(ensure: Any, hub_server: HubServer) -> None:
    hub_server.repository("ns/gated", FILES, gated=TOKEN)
    for source in ("huggingface://ns/gated/m.gguf", "huggingface://ns/gated"):
        text = refused(ensure, source)
        assert "ns/gated is gated (HTTP status 401, GatedRepo" in text and "give a `token` of that account" in text
        text = refused(ensure, source, token="another-token")
        assert "HTTP status 403, GatedRepo" in text and "the account that the token belongs to" in text
        real = ensure(source, token=TOKEN)
        assert real.files[-1].sha256
        assert [finding.path for finding in real.findings] == ["token"], "over plain HTTP a token can be read"
    assert not any("authorization" in seen.headers for seen in hub_server.cdn.seen)
    shown = json.dumps([str(real), [action.describe() for action in real.plan.actions], dict(real.plan.after)])
    assert TOKEN not in shown


def test_the_token_is_in_no_file_of_the_store(ensure: Any, hub_server: HubServer, store: Path) -> None:
    hub_server.repository("ns/gated", FILES, gated=TOKEN)
    said: list[str] = []
    ensure("huggingface://ns/gated", token=TOKEN, say=said.append)
    assert not any(TOKEN in text for text in said)
    for path in store.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes() and b"s3cr3tsignature" not in path.read_bytes()


@pytest.mark.parametrize(
    ("source", "token", "parts"),
    [
        ("huggingface://ns/none/m.gguf", None, ["has no repository ns/none", "HTTP status 401, RepoNotFound", "`token`"]),
        ("huggingface://ns/private", None, ["has no repository ns/private", "If the repository is private"]),
        ("huggingface://ns/private", "wrong-token", ["HTTP status 404, RepoNotFound", "whether the token may read it"]),
        ("huggingface://ns/tiny/v9/m.gguf", None, ["ns/tiny has no revision v9", "Invalid rev id: v9"]),
        ("huggingface://ns/tiny@v9", None, ["ns/tiny has no revision v9"]),
        ("huggingface://ns/tiny/M.gguf", None, ["ns/tiny has no file M.gguf at main", "huggingface://ns/tiny@main/FOLDER/FILE"]),
    ],
)
def test_what_the_hub_refuses(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path, source: str, token: Any, parts: list[str]) -> None:
    hub_server.repository("ns/private", FILES, private=TOKEN)
    for check_mode in (True, False):
        text = refused(ensure, source, token=token, check_mode=check_mode)
        for part in parts:
            assert part in text, text
    assert not store.exists()
    assert ensure("huggingface://ns/private/m.gguf", token=TOKEN).sha256 == DIGEST


def test_a_server_that_is_no_hub(model_server: ModelServer, store: Path) -> None:
    model_server.pages["/ns/tiny/resolve/main/m.gguf"] = Page(MODEL)
    model_server.pages["/api/models/ns/tiny/revision/main"] = Page(b"<html>")
    for source, part in (("huggingface://ns/tiny/m.gguf", "does not say at which commit"), ("huggingface://ns/tiny", "is no JSON")):
        with pytest.raises(AikitError, match=part):
            models.ensure_models(source, store=str(store), reach=Reach(hub_url=model_server.url))
    with pytest.raises(AikitError, match="is no address of a hub"):
        models.ensure_models("huggingface://ns/tiny", store=str(store), reach=Reach(hub_url="https://me:secretpw@hub"))


# A digest, or a waiver


def test_a_download_without_a_digest_is_refused(model_server: ModelServer, store: Path) -> None:
    model_server.pages["/m.gguf"] = Page(MODEL)
    source = model_server.url + "/m.gguf"
    for check_mode in (True, False):
        with pytest.raises(AikitError, match="No sha256 is given for") as caught:
            models.ensure_models(source, store=str(store), check_mode=check_mode)
        assert "require_sha256" in caught.value.hint and not store.exists() and not model_server.seen
    assert models.ensure_models(source, store=str(store), require_sha256=False).sha256 == DIGEST
    with pytest.raises(AikitError, match="No sha256"):
        models.ensure_models(source, store=str(store))


def test_a_hub_tells_the_digest_of_a_file_that_is_asked_for_by_its_address(tiny: Repository, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over https alone: the test hub speaks http, so what decides is looked at."""
    client = download.Http(model_source.parse(f"{hub_server.url}/ns/tiny/resolve/main/m.gguf"))
    headers = client.head_at_origin()
    assert models.hub.linked_sha256(headers) == DIGEST and not hub_server.cdn.seen
    small = download.Http(model_source.parse(f"{hub_server.url}/ns/tiny/resolve/main/README.md")).head_at_origin()
    assert models.hub.linked_sha256(small) == ""


def test_what_an_https_hub_tells_counts(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.Http, "head_at_origin", lambda self: {"x-repo-commit": "0" * 40, "x-linked-etag": f'"{DIGEST}"'})
    asked: list[str] = []

    def fake(source: str, sha256: str, store: str, **options: Any) -> transfer.StoredModel:
        asked.append(sha256)
        return transfer.StoredModel("/p", sha256, 1)

    monkeypatch.setattr(transfer, "ensure_model", fake)
    source = "https://hub.example/ns/tiny/resolve/main/m.gguf"
    assert models.ensure_models(source, store=str(store)).revision == "0" * 40
    monkeypatch.setattr(download.Http, "head_at_origin", lambda self: pytest.fail("it is written down"))
    models.ensure_models(source, store=str(store))
    monkeypatch.setattr(download.Http, "head_at_origin", lambda self: {"x-linked-etag": f'"{DIGEST}"'})
    with pytest.raises(AikitError, match="No sha256"):
        models.ensure_models(source, store=str(store), refresh=True)
    assert asked == [DIGEST, DIGEST]


# Removing


def test_remove_what_a_repository_brought(ensure: Any, tiny: Repository, hub_server: HubServer, store: Path) -> None:
    ensure("huggingface://ns/tiny")
    ensure("huggingface://ns/tiny/m.gguf")

    def remove(source: Any, sha256: Any = None, **options: Any) -> model_source.Plan:
        return models.remove_models(source, sha256, str(store), hub_url=hub_server.url, **options)

    told = remove("huggingface://ns/tiny", check_mode=True)
    assert told.changed and len(stored(store)) == 8
    assert remove("huggingface://ns/tiny").actions == told.actions
    left = stored(store)
    assert [path for path in left if path.startswith("sha256/")] == [f"sha256/{DIGEST}/m.gguf"], "the other source has it too"
    assert not (store / "sets").exists() or not list((store / "sets").iterdir())
    assert not remove("huggingface://ns/tiny").changed
    assert remove("huggingface://ns/tiny/m.gguf").changed and not stored(store)


def test_remove_a_set_by_its_sha256_and_a_file_that_is_in_one(ensure: Any, tiny: Repository, store: Path) -> None:
    whole = ensure("huggingface://ns/tiny")
    assert models.remove_models(None, whole.sha256, str(store)).changed and not stored(store)
    ensure("huggingface://ns/tiny")
    assert models.remove_models(None, DIGEST, str(store)).changed
    assert not any(DIGEST in path or path.startswith(("sets/", "sources/")) for path in stored(store))


def test_check_mode_does_not_know_what_a_server_that_is_away_would_tell(tmp_path: Path) -> None:
    """A closed port: whether a digest would be told is not known, so nothing is refused and nothing is tried again."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    source = f"https://127.0.0.1:{port}/tiny.gguf"
    would = models.ensure_models(source, None, str(tmp_path / "store"), check_mode=True)
    assert would.plan.changed and any("did not answer" in entry.message for entry in would.findings)
    assert not (tmp_path / "store").exists()
