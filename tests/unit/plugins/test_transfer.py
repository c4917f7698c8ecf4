# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Downloads from a real server with real habits, and the store they end in."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest

from ansible_collections.aikit.fleet.plugins.module_utils._core import model_source as sources
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import download, files, transfer
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page

MODEL = gguf_bytes(tensors=[("token_embd.weight", (256, 16384), 12), ("output_norm.weight", (7,), 0)])
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def server(model_server: ModelServer) -> ModelServer:
    model_server.pages["/m.gguf"] = Page(MODEL)
    return model_server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, not slept."""
    slept: list[float] = []
    real = download.fetch

    def quick(*args: Any, **options: Any) -> download.Fetched:
        return real(*args, **{"sleep": slept.append, **options})

    monkeypatch.setattr(transfer, "fetch", quick)
    return slept


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def ensure(server: ModelServer, store: Path, sha256: Optional[str] = DIGEST, path: str = "/m.gguf", **options: Any) -> transfer.StoredModel:
    return transfer.ensure_model(server.url + path, sha256, str(store), timeout_seconds=5, **options)


def refused(server: ModelServer, store: Path, sha256: Optional[str] = DIGEST, path: str = "/m.gguf", **options: Any) -> str:
    with pytest.raises(AikitError) as caught:
        ensure(server, store, sha256, path, **options)
    assert caught.value.hint
    return str(caught.value)


def tree(store: Path) -> list[str]:
    """The files of the store, without caches."""
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and "digests" not in path.parts)


def part(store: Path, key: str = DIGEST) -> Path:
    return store / "partial" / f"{key}.part"


def leave_part(server: ModelServer, store: Path, data: bytes, sha256: str = DIGEST, **changes: Any) -> Path:
    """What a run that was killed leaves."""
    key = sha256 or sources.parse(server.url + "/m.gguf").key
    path = part(store, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    page = server.pages["/m.gguf"]
    meta = {"source": "x", "validators": {"etag": page.etag}, "total": len(page.data), "boot": download._boot_id(), **changes}
    path.with_name(path.name + ".json").write_text(json.dumps(meta))
    return path


# A first download


def test_a_download_ends_in_the_store(server: ModelServer, store: Path) -> None:
    model = ensure(server, store)
    path = store / "sha256" / DIGEST / "m.gguf"
    assert (model.path, model.sha256, model.size_bytes) == (str(path), DIGEST, len(MODEL))
    assert (model.changed, model.downloaded_bytes, model.resumed) == (True, len(MODEL), False)
    assert path.read_bytes() == MODEL and path.stat().st_mode & 0o777 == 0o444
    assert model.header is not None and model.header.architecture == "llama"
    assert tree(store) == [f"sha256/{DIGEST}/m.gguf"]
    assert model.plan.after == {"path": str(path), "sha256": DIGEST, "size_bytes": len(MODEL)}


def test_what_is_in_the_store_is_not_asked_for_and_not_read(server: ModelServer, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(server, store)
    asked = len(server.seen)
    monkeypatch.setattr(files, "read_into", lambda *dummy: pytest.fail("the file was read again"))
    model = ensure(server, store)
    assert not model.changed and not model.plan.actions and model.downloaded_bytes == 0
    assert len(server.seen) == asked


def test_the_same_content_under_another_name_is_linked(server: ModelServer, store: Path) -> None:
    ensure(server, store)
    model = ensure(server, store, name="other.gguf", check_mode=True)
    assert model.changed and not (store / "sha256" / DIGEST / "other.gguf").exists()
    # The bytes can be read all the same
    assert model.path.endswith("/other.gguf") and model.read_from == str(store / "sha256" / DIGEST / "m.gguf")
    model = ensure(server, store, name="other.gguf")
    assert model.changed and model.plan.actions[0].verb == "link" and len(server.gets()) == 1
    assert os.path.samefile(model.path, store / "sha256" / DIGEST / "m.gguf")
    assert model.read_from == model.path
    assert not ensure(server, store, name="other.gguf").changed


def test_a_damaged_file_is_replaced(server: ModelServer, store: Path) -> None:
    path = Path(ensure(server, store).path)
    path.chmod(0o644)
    path.write_bytes(MODEL[:-1] + b"x")
    model = ensure(server, store)
    assert [action.verb for action in model.plan.actions] == ["replace", "download"]
    assert path.read_bytes() == MODEL and path.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("page", [Page(MODEL, chunked=True), Page(MODEL, length=-1), Page(MODEL, etag=""), Page(b"", etag="")])
def test_servers_that_say_little(server: ModelServer, store: Path, page: Page) -> None:
    server.pages["/m.bin"] = page
    model = ensure(server, store, None, "/m.bin")
    assert Path(model.path).read_bytes() == page.data


# Going on after an interruption


def test_cut_connections_are_continued(server: ModelServer, store: Path, waits: list[float]) -> None:
    server.pages["/m.gguf"].cuts = [1000, 200_000, 70_000]
    model = ensure(server, store)
    assert model.downloaded_bytes == len(MODEL) and model.resumed is False
    assert [request.headers.get("range") for request in server.gets()] == [None, "bytes=1000-", "bytes=201000-", "bytes=271000-"]
    assert {request.headers.get("if-range") for request in server.gets()[1:]} == {'"one"'}
    assert waits == [1.0, 2.0, 4.0]


def test_too_many_cuts_are_an_error_and_the_next_run_goes_on(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].cuts = [1000] * 5
    text = refused(server, store)
    assert "the connection ended after 5000 of" in text and "Run again" in text
    model = ensure(server, store)
    assert model.resumed and model.downloaded_bytes == len(MODEL) - 5000


def test_cuts_with_progress_do_not_count(server: ModelServer, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PROGRESS_BYTES", 100_000)
    server.pages["/m.gguf"].cuts = [100_000] * 12
    assert ensure(server, store).downloaded_bytes == len(MODEL)


@pytest.mark.parametrize("sha256", [DIGEST, ""])
def test_a_part_is_continued(server: ModelServer, store: Path, sha256: str) -> None:
    leave_part(server, store, MODEL[:500_000], sha256)
    model = ensure(server, store, sha256)
    assert model.resumed and model.downloaded_bytes == len(MODEL) - 500_000
    assert Path(model.path).read_bytes() == MODEL
    assert not list((store / "partial").iterdir())


@pytest.mark.parametrize("sha256", [DIGEST, ""])
def test_a_whole_part_needs_no_more_bytes(server: ModelServer, store: Path, sha256: str) -> None:
    leave_part(server, store, MODEL, sha256)
    model = ensure(server, store, sha256)
    assert model.resumed and model.downloaded_bytes == 0 and Path(model.path).read_bytes() == MODEL


def test_a_file_that_changed_meanwhile_starts_again(server: ModelServer, store: Path) -> None:
    leave_part(server, store, b"old" * 1000, "", validators={"etag": '"zero"'})
    model = ensure(server, store, None)
    assert not model.resumed and model.downloaded_bytes == len(MODEL) and Path(model.path).read_bytes() == MODEL


def test_a_server_that_ignores_if_range_is_caught_by_its_etag(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].careless = True
    leave_part(server, store, b"old" * 1000, "", validators={"etag": '"zero"'})
    model = ensure(server, store, None)
    assert not model.resumed and Path(model.path).read_bytes() == MODEL


def test_a_date_does_where_there_is_no_strong_etag(server: ModelServer, store: Path) -> None:
    page = server.pages["/m.gguf"]
    page.etag, page.last_modified, page.cuts = 'W/"1"', "Sat, 01 Aug 2026 10:00:00 GMT", [1000]
    ensure(server, store, None)
    assert server.gets()[1].headers["if-range"] == page.last_modified and server.gets()[1].status == 206


def test_without_sha256_and_validators_nothing_is_continued(server: ModelServer, store: Path) -> None:
    leave_part(server, store, MODEL[:1000], "", validators={})
    assert ensure(server, store, None).downloaded_bytes == len(MODEL)


def test_without_sha256_a_part_from_before_a_reboot_is_not_trusted(server: ModelServer, store: Path) -> None:
    leave_part(server, store, bytes(1000), "", boot="another")
    model = ensure(server, store, None)
    assert model.downloaded_bytes == len(MODEL) and model.sha256 == DIGEST


def test_a_part_that_does_not_fit_is_noticed_by_the_sha256(server: ModelServer, store: Path) -> None:
    leave_part(server, store, b"x" * 1000)
    said: list[str] = []
    model = ensure(server, store, say=said.append)
    assert Path(model.path).read_bytes() == MODEL and not model.resumed
    assert any("starting again" in line for line in said)


@pytest.mark.parametrize("data", [MODEL + b"more", b"x" * (len(MODEL) + 1)])
def test_a_part_that_is_too_long_starts_again(server: ModelServer, store: Path, data: bytes) -> None:
    leave_part(server, store, data, total=len(data) + 5)
    assert Path(ensure(server, store).path).read_bytes() == MODEL


@pytest.mark.parametrize("meta", [b"", b"{", b"[]", b'{"validators": 1, "total": "x"}', b'{"validators": {"etag": 5}}'])
def test_what_is_known_of_a_part_may_be_broken(server: ModelServer, store: Path, meta: bytes) -> None:
    path = leave_part(server, store, MODEL[:1000])
    path.with_name(path.name + ".json").write_bytes(meta)
    assert Path(ensure(server, store).path).read_bytes() == MODEL


def test_a_server_without_ranges_sends_it_all_again(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].ranges = False
    leave_part(server, store, MODEL[:1000])
    model = ensure(server, store)
    assert not model.resumed and model.downloaded_bytes == len(MODEL)


DOWNLOAD = """
import sys
from ansible_collections.aikit.fleet.plugins.module_utils._io import transfer
model = transfer.ensure_model(sys.argv[1], sys.argv[2] or None, sys.argv[3])
print(model.downloaded_bytes, model.resumed, model.changed)
"""


@pytest.fixture
def program(tmp_path: Path, root: Path) -> Any:
    """Start a download in a process of its own."""
    namespace = tmp_path / "import" / "ansible_collections" / "aikit"
    namespace.mkdir(parents=True)
    (namespace / "fleet").symlink_to(root)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "import"), "no_proxy": "127.0.0.1"}

    def start(url: str, sha256: str, store: Path) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", DOWNLOAD, url, sha256, str(store)], stdout=subprocess.PIPE, env=env, text=True)

    return start


@pytest.mark.parametrize("sha256", [DIGEST, ""])
def test_kill_and_run_again(server: ModelServer, store: Path, program: Any, sha256: str) -> None:
    server.pages["/m.gguf"].pause_seconds = 0.05
    key = sha256 or sources.parse(server.url + "/m.gguf").key
    process = program(server.url + "/m.gguf", sha256, store)
    deadline = time.monotonic() + 10
    while (not part(store, key).exists() or part(store, key).stat().st_size < 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    kept = part(store, key).stat().st_size
    assert 0 < kept < len(MODEL)
    assert not [path for path in tree(store) if path.startswith("sha256")]
    server.pages["/m.gguf"].pause_seconds = 0
    model = ensure(server, store, sha256)
    assert model.resumed and model.downloaded_bytes == len(MODEL) - kept
    assert Path(model.path).read_bytes() == MODEL
    assert not list((store / "partial").iterdir())


def test_one_download_serves_all_who_need_it(server: ModelServer, store: Path, program: Any) -> None:
    server.pages["/m.gguf"].pause_seconds = 0.02
    processes = [program(server.url + "/m.gguf", DIGEST, store) for dummy in range(3)]
    said = sorted(process.communicate(timeout=30)[0].split() for process in processes)
    assert said == [["0", "False", "False"], ["0", "False", "False"], [str(len(MODEL)), "False", "True"]]
    assert len(server.gets()) == 1


# Servers that refuse


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_servers_are_asked_again(server: ModelServer, store: Path, waits: list[float], status: int) -> None:
    server.pages["/m.gguf"].statuses = [status, status]
    assert ensure(server, store).changed
    assert waits == [1.0, 2.0]


def test_retry_after_is_obeyed_within_reason(server: ModelServer, store: Path, waits: list[float]) -> None:
    page = server.pages["/m.gguf"]
    page.statuses, page.retry_after = [429], "7"
    ensure(server, store)
    page.statuses, page.retry_after, page.etag = [503, 503], "Sat, 01 Aug 2099 10:00:00 GMT", '"two"'
    ensure(server, store / "other")
    assert waits == [7.0, 120.0, 120.0]


def test_a_server_that_stays_busy(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].statuses = [503] * 9
    text = refused(server, store)
    assert "HTTP status 503 (5 attempts)" in text and "try again later" in text
    assert tree(store) == []


@pytest.mark.parametrize(
    ("status", "parts"),
    [(401, ["needs a login", "Give a `token`"]), (403, ["is not allowed", "token"]), (404, ["is not there"]), (410, ["is not there"]), (418, ["418"])],
)
def test_refusals_are_not_repeated(server: ModelServer, store: Path, waits: list[float], status: int, parts: list[str]) -> None:
    server.pages["/m.gguf"].statuses = [status]
    text = refused(server, store, path="/m.gguf?key=hunter22")
    for each in [*parts, str(status), "/m.gguf?key=***"]:
        assert each in text
    assert "hunter22" not in text and not waits and len(server.gets()) == 1 and tree(store) == []


def test_nobody_listens(server: ModelServer, store: Path, waits: list[float]) -> None:
    server.close()
    text = refused(server, store)
    assert "127.0.0.1: Connection refused (5 attempts)" in text and "proxy" in text
    assert len(waits) == 4


def test_a_server_that_says_nothing_more(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].pause_seconds = 1.0
    with pytest.raises(AikitError, match="broke after"):
        transfer.ensure_model(server.url + "/m.gguf", DIGEST, str(store), timeout_seconds=0.05)


# Wrong bytes


def test_a_wrong_sha256(server: ModelServer, store: Path) -> None:
    wrong = "0" * 64
    text = refused(server, store, wrong)
    assert f"found {DIGEST}, expected {wrong}" in text and f"{server.url}/m.gguf" in text
    assert tree(store) == []


@pytest.mark.parametrize("lengthless", [{"length": -1}, {"length": -1, "ranges": False, "etag": ""}])
def test_a_cut_that_looks_like_the_end_is_tried_once_more(server: ModelServer, store: Path, lengthless: dict[str, Any]) -> None:
    server.pages["/m.gguf"] = Page(MODEL, cuts=[5000], **lengthless)
    model = ensure(server, store)
    assert model.sha256 == DIGEST and len(server.gets()) == 2
    assert tree(store) == [f"sha256/{DIGEST}/m.gguf"]


def test_a_wrong_sha256_of_a_file_of_unknown_length_names_the_cut(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"] = Page(MODEL, length=-1)
    text = refused(server, store, "0" * 64)
    assert "the connection was cut" in text and f"{len(MODEL)} bytes came" in text and len(server.gets()) == 2
    assert tree(store) == []
    server.pages["/m.gguf"] = Page(MODEL)
    assert "cut" not in refused(server, store, "0" * 64)


def test_a_length_that_is_too_long(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].length = len(MODEL) + 1000
    server.pages["/m.gguf"].ranges = False
    assert f"the connection ended after {len(MODEL)} of {len(MODEL) + 1000} bytes" in refused(server, store, None)


def test_a_length_that_is_too_short(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].length = 1000
    assert "another sha256" in refused(server, store)
    assert "cut off in its header" in refused(server, store, None)
    assert tree(store) == []


def test_a_page_instead_of_a_model(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].data = b"<!DOCTYPE html><title>Sign in</title>"
    text = refused(server, store, None)
    assert "no GGUF file" in text and "a web page" in text and f"{server.url}/m.gguf" in text
    assert tree(store) == []
    assert ensure(server, store, None, validate=False).changed


def test_a_compressed_answer(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].encoding = "gzip"
    assert "is sent compressed (gzip)" in refused(server, store)


def test_a_disk_that_is_too_small_is_noticed_before_the_body(server: ModelServer, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    for check_mode in (True, False):
        text = refused(server, store, check_mode=check_mode)
        assert "Not enough disk space for the model m.gguf" in text and str(store) in text
    assert tree(store) == []


def test_a_disk_that_fills_up(server: ModelServer, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: Any, piece: memoryview) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    assert "No space left in" in refused(server, store)
    assert tree(store) == []


# Tokens and redirects


@pytest.fixture
def cdn() -> Iterator[ModelServer]:
    made = ModelServer()
    made.pages["/blob"] = Page(MODEL)
    yield made
    made.close()


def test_the_token_stays_with_its_host(server: ModelServer, cdn: ModelServer, store: Path) -> None:
    """Another port is another host here, as it is for browsers."""
    server.pages["/m.gguf"] = Page(location="/hop", token="hunter22")
    server.pages["/hop"] = Page(location=cdn.url + "/blob?sig=1", token="hunter22")
    model = ensure(server, store, token=" hunter22\n")
    assert Path(model.path).read_bytes() == MODEL
    assert [request.headers.get("authorization") for request in server.seen] == ["Bearer hunter22"] * 2
    assert [request.headers.get("authorization") for request in cdn.seen] == [None]


def test_a_user_in_the_address_stays_with_its_host() -> None:
    client = download.Http(sources.parse("https://me:hunter22@example.com/m.gguf"))
    hop = client._redirected
    assert hop("https://me:hunter22@example.com/m.gguf", "/n") == "https://me:hunter22@example.com/n"
    assert hop("https://me:hunter22@example.com/m.gguf", "https://example.com/n") == "https://me:hunter22@example.com/n"
    assert hop("https://me:hunter22@example.com/m.gguf", "https://you:x@cdn.example.com/n") == "https://cdn.example.com/n"
    assert hop("https://cdn.example.com/n", "https://example.com:8443/n") == "https://example.com:8443/n"


def test_open_url_itself_would_leak_it(server: ModelServer, cdn: ModelServer) -> None:
    """Why redirects are followed here. Should this ever fail, that code can go."""
    server.pages["/m.gguf"] = Page(location=cdn.url + "/blob", token="hunter22")
    download.open_url(server.url + "/m.gguf", headers={"Authorization": "Bearer hunter22"}).close()
    assert cdn.seen[0].headers.get("authorization") == "Bearer hunter22"


def test_netrc_does_not_replace_the_token(server: ModelServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.pages["/m.gguf"].token = "hunter22"
    assert ensure(server, store, token="hunter22").changed


def test_a_token_that_is_refused(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].token = "right-one"
    for check_mode in (False, True):
        text = refused(server, store, token="hunter22", check_mode=check_mode)
        assert "The token was not accepted" in text and "hunter22" not in text
    with pytest.raises(AikitError, match="cannot stand in an HTTP header") as caught:
        ensure(server, store, token="hunter22\nX-Evil: 1")
    assert "hunter22" not in str(caught.value)


def test_same_origin() -> None:
    assert download.same_origin("https://example.com/a", "https://EXAMPLE.com:443/b")
    assert not download.same_origin("https://example.com/a", "http://example.com/a")
    assert not download.same_origin("https://example.com/a", "https://cdn.example.com/a")
    assert not download.same_origin("http://example.com/a", "http://example.com:8080/a")


def test_redirects_that_lead_nowhere(server: ModelServer, store: Path) -> None:
    page = server.pages["/m.gguf"]
    page.location = "/m.gguf"
    assert "redirects more than 10 times" in refused(server, store)
    for bad in ("ftp://example.com/m", "file:///etc/passwd", "http://[::1", "http://127.0.0.1:99999/m"):
        page.location = bad
        assert "no address" in refused(server, store)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    client = download.Http(sources.parse("https://example.com/m.gguf"))
    with pytest.raises(AikitError, match="not encrypted"):
        client._redirected("https://example.com/m.gguf", "http://example.com/m.gguf")
    assert client._redirected("https://example.com/a/m.gguf", "../b x") == "https://example.com/b%20x"


def test_plain_http_without_sha256_is_remarked(server: ModelServer, store: Path) -> None:
    assert [finding.path for finding in ensure(server, store, None).findings] == ["source"]
    assert ensure(server, store).findings == ()


# Without a sha256


def test_a_known_url_is_taken_as_it_is(server: ModelServer, store: Path) -> None:
    first = ensure(server, store, None)
    asked = len(server.seen)
    again = ensure(server, store, None)
    assert not again.changed and again.path == first.path and len(server.seen) == asked


def test_refresh_asks_whether_it_changed(server: ModelServer, store: Path) -> None:
    first = ensure(server, store, None)
    for check_mode in (True, False):
        assert not ensure(server, store, None, refresh=True, check_mode=check_mode).changed
    assert [request.status for request in server.seen[-2:]] == [304, 304]
    page = server.pages["/m.gguf"]
    page.data, page.etag = gguf_bytes(fill=1), '"two"'
    predicted = ensure(server, store, None, refresh=True, check_mode=True)
    second = ensure(server, store, None, refresh=True)
    assert predicted.changed and second.changed and second.sha256 != first.sha256
    assert Path(first.path).exists() and Path(second.path).read_bytes() == page.data
    assert not ensure(server, store, None, refresh=True).changed


def test_refresh_of_a_server_that_cannot_tell(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].etag = ""
    ensure(server, store, None)
    again = ensure(server, store, None, refresh=True)
    assert not again.changed and again.downloaded_bytes == len(MODEL)
    assert not list((store / "partial").iterdir())


# Check mode


def test_check_mode_tells_and_does_nothing(server: ModelServer, store: Path) -> None:
    model = ensure(server, store, check_mode=True)
    assert model.changed and model.size_bytes == len(MODEL)
    assert model.plan.actions[0].describe() == f"download {server.url}/m.gguf ({len(MODEL)} bytes, as m.gguf)"
    assert model.path == str(store / "sha256" / DIGEST / "m.gguf")
    assert model.read_from == ""
    assert ensure(server, store, None, check_mode=True).path == ""
    assert not server.gets() and not store.exists()
    real = ensure(server, store)
    assert [action.describe() for action in real.plan.actions] == [action.describe() for action in model.plan.actions]


def test_check_mode_of_what_is_there(server: ModelServer, store: Path) -> None:
    ensure(server, store)
    before = sorted(str(path) for path in store.rglob("*"))
    assert not ensure(server, store, check_mode=True).changed
    assert sorted(str(path) for path in store.rglob("*")) == before


def test_check_mode_where_head_does_not_help(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].head = 405
    assert "size not known" in ensure(server, store, check_mode=True).plan.actions[0].describe()
    assert "is not there" in refused(server, store, path="/none.gguf", check_mode=True)
    server.close()
    model = ensure(server, store, check_mode=True)
    assert model.changed and "did not answer" in model.findings[0].message


# Local files


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "m.gguf"
    path.parent.mkdir()
    path.write_bytes(MODEL)
    return path


@pytest.mark.parametrize("sha256", [None, DIGEST])
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_file_is_copied(local: Path, store: Path, sha256: Optional[str], form: str) -> None:
    source = form.format(local)
    told = transfer.ensure_model(source, sha256, str(store), check_mode=True)
    assert told.changed and not store.exists()
    model = transfer.ensure_model(source, sha256, str(store))
    assert model.changed and model.plan == told.plan and (model.path, model.sha256) == (told.path, DIGEST)
    assert Path(model.path).read_bytes() == MODEL and not os.path.samefile(model.path, local)
    assert not transfer.ensure_model(source, sha256, str(store)).changed
    assert tree(store) == [f"sha256/{DIGEST}/m.gguf"]


def test_with_a_sha256_the_local_file_may_be_gone(local: Path, store: Path) -> None:
    transfer.ensure_model(str(local), DIGEST, str(store))
    local.unlink()
    assert not transfer.ensure_model(str(local), DIGEST, str(store)).changed
    with pytest.raises(AikitError, match="does not exist"):
        transfer.ensure_model(str(local), None, str(store))


def test_a_local_file_can_be_used_where_it_is(local: Path, store: Path) -> None:
    model = transfer.ensure_model("m.gguf", DIGEST, str(store), context_dir=str(local.parent), local_in_place=True)
    assert (model.path, model.sha256, model.size_bytes, model.changed) == (str(local), DIGEST, len(MODEL), False)
    assert tree(store) == []
    with pytest.raises(AikitError, match="another sha256"):
        transfer.ensure_model(str(local), "0" * 64, str(store), local_in_place=True)


def test_bad_local_files(local: Path, store: Path, tmp_path: Path) -> None:
    cases = [
        ("m.gguf", None, "relative path"),
        (str(tmp_path / "none.gguf"), None, "does not exist"),
        (str(tmp_path / "in" / "m.gguf" / "x"), None, "does not exist"),
        (str(tmp_path / "in"), None, "is a folder"),
        (str(local), "0" * 64, f"found {DIGEST}, expected {'0' * 64}"),
        ("huggingface://o/n", None, "gives no file name"),
    ]
    (tmp_path / "short.gguf").write_bytes(MODEL[:-100])
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    cases += [(str(tmp_path / "short.gguf"), None, "cut off in its data"), (str(tmp_path / "page.gguf"), None, "no GGUF file")]
    for source, sha256, part_of_text in cases:
        for check_mode in (True, False):
            with pytest.raises(AikitError) as caught:
                transfer.ensure_model(source, sha256, str(store), check_mode=check_mode)
            assert part_of_text in str(caught.value) and caught.value.hint
    assert tree(store) == []


def test_a_copy_that_is_killed_is_done_again(local: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = store / "partial" / f"{DIGEST}.copy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half of it")
    transfer.ensure_model(str(local), None, str(store))
    assert tree(store) == [f"sha256/{DIGEST}/m.gguf"]


def test_copies_need_room(local: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(AikitError, match="Not enough disk space for the model m.gguf"):
        transfer.ensure_model(str(local), None, str(store))


def test_what_a_killed_copy_left_does_not_take_its_own_room(local: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = store / "partial" / f"{DIGEST}.copy"
    left.parent.mkdir(parents=True)
    left.write_bytes(MODEL[:-1000])
    monkeypatch.setattr(files, "free_bytes", lambda path: len(MODEL) if not left.exists() else 1000)
    assert transfer.ensure_model(str(local), None, str(store), check_mode=True).changed and left.exists()
    assert transfer.ensure_model(str(local), None, str(store)).changed and not left.exists()


# Taking away


def test_remove_by_source_and_by_sha256(server: ModelServer, store: Path, local: Path) -> None:
    url = server.url + "/m.gguf"
    for make, arguments in (
        (lambda: ensure(server, store, None), {"source": url}),
        (lambda: ensure(server, store), {"sha256": DIGEST}),
        (lambda: ensure(server, store), {"source": str(local)}),
    ):
        make()
        told = transfer.remove_model(store=str(store), check_mode=True, **arguments)
        assert told.changed and tree(store)
        assert transfer.remove_model(store=str(store), **arguments) == told
        assert tree(store) == [] and not (store / "sha256" / DIGEST).exists()
        assert not transfer.remove_model(store=str(store), **arguments).changed


def test_remove_one_name_only(server: ModelServer, store: Path) -> None:
    ensure(server, store)
    ensure(server, store, name="other.gguf")
    transfer.remove_model(server.url + "/m.gguf", DIGEST, str(store), name="other.gguf")
    assert tree(store) == [f"sha256/{DIGEST}/m.gguf"]


def test_remove_takes_the_rest_of_an_interrupted_download(server: ModelServer, store: Path) -> None:
    leave_part(server, store, MODEL[:1000])
    leave_part(server, store, MODEL[:1000], "")
    assert transfer.remove_model(server.url + "/m.gguf", DIGEST, str(store)).changed
    assert tree(store) == []
    assert not transfer.remove_model(server.url + "/m.gguf", None, str(store / "none")).changed
    assert not (store / "none").exists()


def test_threads_share_a_store(server: ModelServer, store: Path) -> None:
    server.pages["/m.gguf"].pause_seconds = 0.005
    results: list[transfer.StoredModel] = []
    threads = [threading.Thread(target=lambda: results.append(ensure(server, store))) for dummy in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(model.changed for model in results) == [False, False, False, True]
    assert len(server.gets()) == 1
