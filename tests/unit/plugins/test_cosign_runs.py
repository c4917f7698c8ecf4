# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules with a cosign that records what it is asked, in front of a registry in memory. The real one is in tests/integration/test_cosign.py."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.modules import aikit_image_verify
from ansible_collections.aikit.fleet.tests.unit.fake_registry import FakeRegistry

AIKIT = "ghcr.io/kaito-project/aikit"
SUBJECT = "https://github.com/kaito-project/aikit/.github/workflows/release-base.yaml@refs/heads/main"
FAKE = """#!{python}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
config = os.environ.get("DOCKER_CONFIG", "")
login = open(os.path.join(config, "config.json")).read() if config else ""
with open(os.path.join(here, "calls"), "a") as file:
    environment = {{name: value for name, value in os.environ.items() if name.startswith("COSIGN_")}}
    file.write(json.dumps({{"argv": sys.argv[1:], "environment": environment, "login": login}}) + "\\n")
if "--help" in sys.argv:
    print("--certificate-identity-regexp='' --insecure-ignore-tlog=false")
    sys.exit(0)
told = json.load(open(os.path.join(here, "answer")))
print(told["output"])
print(told["errors"], file=sys.stderr)
sys.exit(told["status"])
"""


@pytest.fixture
def ground(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cosign").write_text(FAKE.format(python=sys.executable))
    (folder / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def answer(status=0, output=json.dumps([{"optional": {"Subject": SUBJECT}}]), errors=""):
        (folder / "answer").write_text(json.dumps({"status": status, "output": output, "errors": errors}))

    def calls():
        path = folder / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return [call for call in found if "--help" not in call["argv"]]

    answer()
    with FakeRegistry() as server:
        for repository in ("ghcr/kaito-project/aikit/base", "ghcr/kaito-project/aikit/applesilicon/base", "fleet/llama"):
            made = server.put_image(repository, "1", [b"layer"])
        digest = made["digest"]
        yield SimpleNamespace(digest=digest, server=server, host=server.host, answer=answer, calls=calls, folder=folder, cache=tmp_path / "cache/digests")


@pytest.fixture
def run(ground, capsys):
    def call(name, check_mode=False, **arguments):
        arguments = {"name": name, "cache": str(ground.cache), "registry_mirrors": {"ghcr.io": f"{ground.host}/ghcr"}, **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            aikit_image_verify.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_a_mirror_is_asked_for_aikits_signature(ground, run):
    digest = ground.digest
    place = f"{ground.host}/ghcr/kaito-project/aikit/base@{digest}"
    logins = [{"registry": ground.host, "username": "anna", "password": "s3cret-word"}]
    arguments = {"verify": {"mirrors": True}, "registry_logins": logins, "registry_insecure": [ground.host]}
    told = run(f"{AIKIT}/base:1", check_mode=True, **arguments)
    assert not told["changed"] and told["pull"] == f"{AIKIT}/base@{digest}" and told["digest"] == digest
    assert told["signatures"] == {"verified": [{"ref": f"{AIKIT}/base:1", "digest": digest, "by": SUBJECT}], "skipped": []}
    (call,) = ground.calls()
    assert call["argv"] == [
        "verify", "--output=json", "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
        r"--certificate-identity-regexp=^https://github\.com/(kaito-project|sozercan)/aikit/\.github/workflows/.+",
        "--allow-insecure-registry=true", "--allow-http-registry=true", place,
    ]  # fmt: skip
    assert ground.host in call["login"] and "s3cret-word" not in json.dumps(told)
    # Check mode remembers nothing; a run does
    assert not (ground.cache.parent / "signatures").exists()
    assert run(f"{AIKIT}/base:1", **arguments) == told and len(ground.calls()) == 1
    assert run(f"{AIKIT}/base:1", **arguments) == told and ground.calls() == []


def test_signatures_that_are_elsewhere(ground, run):
    assert run(f"{AIKIT}/applesilicon/base:1", verify={"mirrors": True})["pull"]
    (call,) = ground.calls()
    assert call["environment"] == {"COSIGN_REPOSITORY": f"{ground.host}/ghcr/kaito-project/aikit/base"}


def test_another_signer(ground, run):
    assert run(f"{AIKIT}/base:1", verify={"mirrors": True, "identity": "^https://a/", "issuer": "https://b"})["pull"]
    (call,) = ground.calls()
    assert {"--certificate-oidc-issuer=https://b", "--certificate-identity-regexp=^https://a/"} <= set(call["argv"])


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        (f"{AIKIT}/base:1", {}, "a mirror that the user named"),
        (f"{AIKIT}/base:1", {"verify": {"mode": "none"}}, "verify.mode is none"),
        ("192.0.2.1:5000/any:1", {}, "nobody is known to sign 192.0.2.1:5000/any"),
    ],
)
def test_what_needs_no_signature_is_asked_of_nobody(ground, run, name, arguments, reason):
    told = run(name, **arguments)
    assert (told["pull"], told["digest"], told["signatures"]["verified"]) == ("", "", []) and reason in told["signatures"]["skipped"][0]["reason"]
    assert ground.calls() == [] and ground.server.requests == []


def test_keys(ground, run):
    name = f"{ground.host}/fleet/llama:1"
    told = run(name, verify={"mode": "key", "key": "awskms:///alias/fleet"})
    assert told["signatures"]["verified"][0]["by"] == "key awskms:///alias/fleet"
    assert ground.calls()[0]["argv"][2:-1] == ["--key=awskms:///alias/fleet"]
    run(name, verify={"mode": "key", "key": "awskms:///alias/fleet", "ignore_tlog": True})
    assert ground.calls()[0]["argv"][2:-1] == ["--key=awskms:///alias/fleet", "--insecure-ignore-tlog=true"]


def test_refusals(ground, run):
    name = f"{ground.host}/fleet/llama:1"
    key = {"mode": "key", "key": "/k.pub"}
    ground.answer(status=10, output="", errors="Error: no signatures found")
    refused = run(name, verify=key)
    assert refused["failed"] and "is not signed" in refused["msg"] and not (ground.cache.parent / "signatures").exists()
    assert "verify.key: mode key needs" in run(name, verify={"mode": "key"})["msg"]
    assert "404" in run(f"{ground.host}/fleet/none:1", verify=key)["msg"]
    (ground.folder / "cosign").write_text(f"#!{sys.executable}\nprint('--key')\n")
    assert "older than 2.0" in run(name, verify=key)["msg"]
