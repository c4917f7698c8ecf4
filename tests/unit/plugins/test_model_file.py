# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module model_file: check, real, again, absent; what it never shows."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import models, transfer
from ansible_collections.aikit.fleet.plugins.module_utils._io.registry import RegistrySettings
from ansible_collections.aikit.fleet.plugins.modules import model_file
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import Writer, gguf_bytes
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page

MODEL = gguf_bytes()
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def server(model_server: ModelServer) -> ModelServer:
    model_server.pages["/m.gguf"] = Page(MODEL)
    return model_server


@pytest.fixture
def run(capsys: Any, tmp_path: Path) -> Any:
    def call(check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        arguments = {"store": str(tmp_path / "store"), **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            model_file.main()
        return json.loads(capsys.readouterr().out)

    return call


def stored(tmp_path: Path) -> list[str]:
    store = tmp_path / "store"
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file() and "digests" not in path.parts)


def test_check_real_again_absent(server: ModelServer, run: Any, tmp_path: Path) -> None:
    source = {"source": server.url + "/m.gguf", "sha256": DIGEST}
    path = str(tmp_path / "store" / "sha256" / DIGEST / "m.gguf")
    told = run(check_mode=True, **source)
    assert (told["changed"], told["path"], told["size_bytes"], told["downloaded_bytes"]) == (True, path, len(MODEL), 0)
    assert not (tmp_path / "store").exists()
    real = run(**source)
    assert real["actions"] == told["actions"] == [f"download {server.url}/m.gguf ({len(MODEL)} bytes, as m.gguf)"]
    assert (real["changed"], real["path"], real["sha256"], real["downloaded_bytes"], real["resumed"]) == (True, path, DIGEST, len(MODEL), False)
    assert json.loads(real["diff"]["after"])["path"] == path and real["diff"]["before"] == ""
    again = run(**source)
    assert (again["changed"], again["actions"], again["path"]) == (False, [], path)
    assert again["diff"]["before"] == again["diff"]["after"]
    assert run(check_mode=True, **source)["changed"] is False
    gone = run(check_mode=True, state="absent", sha256=DIGEST)
    assert gone["changed"] and Path(path).exists()
    assert run(state="absent", sha256=DIGEST)["actions"] == gone["actions"] == [f"remove {path}"]
    assert run(state="absent", sha256=DIGEST)["changed"] is False
    assert stored(tmp_path) == []


def test_a_warning_is_a_finding_and_a_warning(server: ModelServer, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.warn", lambda self, text, **options: shown.append(text))
    server.pages["/m.gguf"].data = Writer(1).file()
    result = run(source=server.url + "/m.gguf", require_sha256=False)
    assert [finding["path"] for finding in result["findings"]] == ["source", "m.gguf"]
    assert len(shown) == 2


@pytest.mark.parametrize("good", [True, False])
def test_secrets_are_not_shown(server: ModelServer, run: Any, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(model_file.AnsibleModule, "log", lambda self, text, log_args=None: said.append(str(text)))
    server.pages["/m.gguf"].token = "hunter22" if good else "another"
    server.pages["/n.gguf"] = Page(MODEL + b"n", statuses=[] if good else [401])
    with_user = server.url.replace("http://", "http://me:swordfish@") + "/n.gguf?signature=opensesame"
    other = hashlib.sha256(MODEL + b"n").hexdigest()
    results = [
        run(source=server.url + "/m.gguf", sha256=DIGEST, token="hunter22"),
        run(source=with_user, sha256=other),
        run(source=with_user, sha256="0" * 64, token="hunter22"),
    ]
    assert [result.get("failed", False) for result in results] == [not good, not good, True]
    assert "Give one of them" in results[2]["msg"]
    for secret in ("hunter22", "swordfish", "opensesame"):
        assert secret not in json.dumps(results)
        # The first line is Ansible's own, of the arguments as they came; it knows passwords and no_log, not signed URLs.
        assert not any(secret in line for line in said if secret != "opensesame" or not line.startswith("Invoked with"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"source": "huggingface://owner"}, ["names no repository", "huggingface://NAMESPACE/REPOSITORY/FILE"]),
        ({"source": "huggingface://owner/name/m.gguf", "hub_url": "hub.example"}, ["hub_url", "no address of a hub"]),
        ({"source": "oci://registry"}, ["names no repository", "oci://REGISTRY/NAME:TAG"]),
        ({"source": "oci://registry.example/M M:1"}, ["no image reference"]),
        ({"source": "oci://registry.example/m:1", "registry_insecure": ["https://x"]}, ["insecure", "no registry"]),
        ({"source": "http://example.com/m.gguf"}, ["No sha256 is given for http://example.com/m.gguf", "require_sha256"]),
        ({"source": "/srv/m.gguf", "include": ["*"]}, ["include is given"]),
        ({"state": "pruned"}, ["any of the following are missing: keep, unused_days"]),
        ({"state": "pruned", "unused_days": -1}, ["unused_days is -1"]),
        ({"state": "pruned", "keep": ["m.gguf"]}, ["keep[0]", "no digest"]),
        ({"state": "pruned", "keep": ["https://example.com/m.gguf"]}, ["keep[0]", "no record", "Give the sha256"]),
        ({"source": "/none.gguf"}, ["/none.gguf does not exist"]),
        ({"source": "m.gguf"}, ["relative path"]),
        ({"source": "/srv/m.gguf", "sha256": "12"}, ["2 characters", "64 hexadecimal digits"]),
        ({"source": "https://example.com/", "require_sha256": False}, ["gives no file name", "`name`"]),
        ({"source": "https://example.com/m.gguf", "sha256": DIGEST, "timeout_seconds": 0}, ["timeout_seconds is 0"]),
        ({}, ["source"]),
        ({"state": "absent"}, ["one of the following is required: source, sha256"]),
    ],
)
def test_bad_input_changes_nothing(run: Any, tmp_path: Path, arguments: dict[str, Any], parts: list[str]) -> None:
    for check_mode in (True, False):
        result = run(check_mode=check_mode, **arguments)
        assert result["failed"]
        for part in parts:
            assert part in result["msg"]
        assert not (tmp_path / "store").exists()


def test_a_file_that_is_no_gguf(run: Any, tmp_path: Path) -> None:
    bad = tmp_path / "page.gguf"
    bad.write_bytes(b"<!DOCTYPE html>")
    result = run(source=str(bad))
    assert result["failed"] and "no GGUF file" in result["msg"] and "hint" in result
    assert stored(tmp_path) == []
    assert run(source=str(bad), validate=False)["changed"]
    assert run(source=str(bad), validate=False, name="page.html")["changed"]


def test_options_reach_the_store(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def ensure(*positional: Any, **named: Any) -> models.Acquired:
        seen.update(named, positional=positional)
        raise AikitError("seen")

    monkeypatch.setattr(models, "ensure_models", ensure)
    run(
        source="s",
        sha256="d",
        name="n",
        include=["*.gguf"],
        token="secret-token",
        hub_url="https://mirror.example",
        registry_auth_file="/auth.json",
        registry_ca_file="/ca.pem",
        registry_insecure=["r.example"],
        registry_mirrors={"a.example": "b.example"},
        registry_timeout_seconds=2.5,
        timeout_seconds=1.5,
        validate=False,
        refresh=True,
        require_sha256=False,
        store="/x",
    )
    assert seen.pop("say") is not None
    registry = RegistrySettings("/auth.json", "/ca.pem", ("r.example",), {"a.example": "b.example"}, 2.5)
    assert seen == {
        "positional": ("s", "d", "/x"),
        "name": "n",
        "include": ["*.gguf"],
        "reach": models.Reach("secret-token", "https://mirror.example", 1.5, registry),
        "validate": False,
        "refresh": True,
        "require_sha256": False,
        "check_mode": False,
    }


# The hub


def test_a_file_and_a_repository_of_the_hub(hub_server: HubServer, run: Any, tmp_path: Path) -> None:
    repository = hub_server.repository("ns/tiny", {"m.gguf": MODEL, "q/n.gguf": gguf_bytes(fill=1)}, gated="hf_hunter22")
    common = {"hub_url": hub_server.url, "token": "hf_hunter22"}
    one = run(source="huggingface://ns/tiny/m.gguf", **common)
    assert (one["changed"], one["sha256"], one["revision"], len(one["files"])) == (True, DIGEST, repository.branches["main"], 1)
    told = run(check_mode=True, source="huggingface://ns/tiny", **common)
    whole = run(source="huggingface://ns/tiny", **common)
    assert whole["actions"] == told["actions"] and [entry["name"] for entry in whole["files"]] == ["m.gguf", "q/n.gguf"]
    assert json.loads(whole["diff"]["after"]) == json.loads(told["diff"]["after"])
    again = run(source="huggingface://ns/tiny", **common)
    assert again["changed"] is False and again["path"] == whole["path"] and again["diff"]["before"] == again["diff"]["after"]
    assert "hf_hunter22" not in json.dumps([one, told, whole, again])
    gone = run(state="absent", source="huggingface://ns/tiny/m.gguf", **common)
    assert gone["changed"] and run(state="absent", source="huggingface://ns/tiny", **common)["changed"]
    assert stored(tmp_path) == []


# Cleaning up


@pytest.fixture
def full(run: Any, tmp_path: Path, hub_server: HubServer) -> dict[str, Any]:
    """A store with two local models, a set of two that shares one of them, and what an interrupted download left."""
    for number, name in enumerate(("a.gguf", "b.gguf")):
        (tmp_path / name).write_bytes(gguf_bytes(fill=number))
        run(source=str(tmp_path / name))
    hub_server.repository("ns/set", {"a.gguf": gguf_bytes(fill=0), "c.gguf": gguf_bytes(fill=2)})
    run(source="huggingface://ns/set", hub_url=hub_server.url)
    (tmp_path / "store" / "partial").mkdir(exist_ok=True)
    (tmp_path / "store" / "partial" / f"{'9' * 64}.part").write_bytes(b"12345")
    return {name: hashlib.sha256(gguf_bytes(fill=number)).hexdigest() for number, name in enumerate("abc")}


def names(tmp_path: Path) -> list[str]:
    return sorted({path.split("/")[2] for path in stored(tmp_path) if path.startswith("sha256/")})


def test_prune_keeps_what_is_named(full: dict[str, Any], run: Any, tmp_path: Path, hub_server: HubServer) -> None:
    path = str(tmp_path / "store" / "sha256" / full["b"] / "b.gguf")
    before = stored(tmp_path)
    sizes = {text: (tmp_path / "store" / text).stat().st_size for text in before}
    told = run(check_mode=True, state="pruned", keep=[path, "sha256:" + full["a"].upper()])
    assert stored(tmp_path) == before and told["changed"]
    real = run(state="pruned", keep=[path, "sha256:" + full["a"].upper()])
    for key in ("actions", "diff", "removed", "freed_bytes"):
        assert real[key] == told[key], key
    assert names(tmp_path) == ["a.gguf", "b.gguf"]
    assert [entry["sha256"] for entry in real["removed"]] == [full["c"]]
    gone = set(before) - set(stored(tmp_path))
    record = next(text for text in gone if text.startswith("sources/"))
    assert real["freed_bytes"] == len(MODEL) + sizes[record] + 5
    assert set(json.loads(real["diff"]["before"])["models"]) - set(json.loads(real["diff"]["after"])["models"]) == {full["c"]}
    assert not any(text.startswith(("sets/", "sources/", "partial/")) for text in stored(tmp_path))
    again = run(state="pruned", keep=[path, full["a"]])
    assert (again["changed"], again["removed"], again["freed_bytes"]) == (False, [], 0)
    assert run(state="pruned", keep=[])["freed_bytes"] == 2 * len(MODEL) and stored(tmp_path) == []


def test_prune_keeps_a_set_by_its_digest_its_path_or_its_source(full: dict[str, Any], run: Any, tmp_path: Path, hub_server: HubServer) -> None:
    whole = run(source="huggingface://ns/set", hub_url=hub_server.url)
    for keep in (whole["sha256"], whole["path"], "huggingface://ns/set"):
        run(state="pruned", keep=[keep], hub_url=hub_server.url)
        assert names(tmp_path) == ["a.gguf", "c.gguf"]
        assert not run(source="huggingface://ns/set", hub_url=hub_server.url)["changed"]


def test_prune_by_use(full: dict[str, Any], run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "sha256"
    for digest, days in ((full["a"], 40), (full["b"], 40), (full["c"], 1)):
        os.utime(folder / digest, (0, time.time() - days * 86400))
    assert run(state="pruned", unused_days=50)["changed"] is False
    # Being asked for is being used
    assert run(source=str(tmp_path / "b.gguf"))["changed"] is False
    real = run(state="pruned", unused_days=30)
    assert real["actions"][0] == f"remove {folder / full['a'] / 'a.gguf'} ({len(MODEL)} bytes, last used 40 days ago)"
    assert names(tmp_path) == ["b.gguf", "c.gguf"]
    assert run(state="pruned", unused_days=0, keep=[full["c"]])["changed"] and names(tmp_path) == ["c.gguf"]


def test_prune_leaves_what_another_run_works_on(full: dict[str, Any], run: Any, tmp_path: Path) -> None:
    place = transfer.Store(str(tmp_path / "store"))
    with place.lock(full["a"], lambda text: None), place.lock("9" * 64, lambda text: None):
        run(state="pruned", keep=[])
        assert names(tmp_path) == ["a.gguf"] and f"partial/{'9' * 64}.part" in stored(tmp_path)
    run(state="pruned", keep=[])
    assert stored(tmp_path) == []


def test_what_is_in_use_elsewhere_gains_nothing(full: dict[str, Any], run: Any, tmp_path: Path) -> None:
    os.link(tmp_path / "store" / "sha256" / full["b"] / "b.gguf", tmp_path / "mounted.gguf")
    assert run(state="pruned", keep=[full["a"], full["c"]])["freed_bytes"] == 5
    assert (tmp_path / "mounted.gguf").read_bytes() == gguf_bytes(fill=1)
