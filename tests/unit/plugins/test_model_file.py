# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module model_file: check, real, again, absent; what it never shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import transfer
from ansible_collections.aikit.fleet.plugins.modules import model_file
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import Writer, gguf_bytes
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
    result = run(source=server.url + "/m.gguf")
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
        ({"source": "huggingface://owner/name/m.gguf"}, ["not supported yet", "/resolve/"]),
        ({"source": "oci://registry.example/m:1"}, ["not supported yet", "path of the file"]),
        ({"source": "/none.gguf"}, ["/none.gguf does not exist"]),
        ({"source": "m.gguf"}, ["relative path"]),
        ({"source": "/srv/m.gguf", "sha256": "12"}, ["2 characters", "64 hexadecimal digits"]),
        ({"source": "https://example.com/"}, ["gives no file name", "`name`"]),
        ({"source": "https://example.com/m.gguf", "timeout_seconds": 0}, ["timeout_seconds is 0"]),
        ({}, ["source"]),
        ({"state": "absent"}, ["one of the following is required: source, sha256"]),
        ({"state": "absent", "source": "oci://registry.example/m:1"}, ["not supported yet"]),
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

    def ensure(*positional: Any, **named: Any) -> transfer.StoredModel:
        seen.update(named, positional=positional)
        raise AikitError("seen")

    monkeypatch.setattr(transfer, "ensure_model", ensure)
    run(source="s", sha256="d", name="n", token="secret-token", timeout_seconds=1.5, validate=False, refresh=True, store="/x")
    assert seen.pop("say") is not None
    assert seen == {
        "positional": ("s", "d", "/x"),
        "name": "n",
        "token": "secret-token",
        "timeout_seconds": 1.5,
        "validate": False,
        "refresh": True,
        "check_mode": False,
    }
