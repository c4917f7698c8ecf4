# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures with the real cosign and a real registry: what is signed is taken, what is not is refused, and what is made is signed once.

Keys of a pair stand in for AIKit's keyless signatures, which need sigstore's servers.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import registries
import stand_ins
from helpers import gguf, task
from registries import Registry

PASSWORD = "opens-the-key"


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD, "DOCKER_CONFIG": str(cwd)}
    return subprocess.run([registries.cosign(), *words], capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def sign(ground: Any, ref: str, key: str = "maker") -> None:
    done = run("sign", f"--key={key}.key", "--yes", "--tlog-upload=false", ref, cwd=ground.keys)
    assert done.returncode == 0, done.stderr


def verifies(ground: Any, ref: str, key: str) -> bool:
    return run("verify", f"--key={key}.pub", "--insecure-ignore-tlog=true", ref, cwd=ground.keys).returncode == 0


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A registry with the parts of AIKit's images, all of them signed by their maker; keys of the maker, of a stranger and of the fleet."""
    keys = tmp_path_factory.mktemp("keys")
    for name in ("maker", "stranger", "fleet"):
        run("generate-key-pair", f"--output-key-prefix={name}", cwd=keys)
        assert (keys / f"{name}.pub").is_file()
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        stand_ins.fill(registry.host, [])
        yield SimpleNamespace(keys=keys, host=registry.host, registry=registry)


@pytest.fixture
def build(ground, tmp_path, monkeypatch):
    """Run aikit_image on a path that has cosign; everything that it keeps is below ``tmp_path``."""
    monkeypatch.setenv("PATH", f"{Path(registries.cosign()).parent}:{os.environ['PATH']}")
    (tmp_path / "fake-model.gguf").write_bytes(gguf())
    model = {"name": "fake-model", "backend": "llama", "parameters": {"model": "fake-model.gguf"}}
    definition = {"apiVersion": "v1alpha1", "models": [{"name": "fake-model", "source": "fake-model.gguf"}], "config": json.dumps([model])}

    def call(check: bool = False, fails: bool = False, **arguments: Any) -> dict[str, Any]:
        folders = {"blobs": str(tmp_path / "blobs"), "cache": str(tmp_path / "cache/digests"), "store": str(tmp_path / "models")}
        wanted = {"name": f"{ground.host}/e2e/gemma:1", "definition": definition, "context": str(tmp_path), "aikit_version": "main"}
        found = task("aikit_image", check=check, **{**wanted, "registry_mirrors": stand_ins.mirrors(ground.host), **folders, **arguments})
        assert bool(found.get("failed")) == fails, found.get("msg")
        assert PASSWORD not in json.dumps(found)
        return found

    return call


def key_of(ground: Any, name: str) -> dict[str, Any]:
    return {"mode": "key", "key": str(ground.keys / f"{name}.pub"), "ignore_tlog": True}


def without_cosign() -> str:
    return ":".join(folder for folder in os.environ["PATH"].split(":") if not Path(folder, "cosign").exists())


def test_parts_of_a_mirror_with_a_key_of_its_own(ground, build, tmp_path, monkeypatch):
    told = build(check=True)["signatures"]
    reasons = {entry["ref"].partition(":")[0]: entry["reason"] for entry in told["skipped"]}
    assert told["verified"] == [] and len(told["skipped"]) == 3
    assert "a mirror that the user named" in reasons["ghcr.io/kaito-project/aikit/base"]
    assert "does not sign its copy" in reasons["ghcr.io/kaito-project/aikit/localai"] and "LocalAI" in reasons["quay.io/go-skynet/local-ai-backends"]

    # The first part that lacks the signature is named, and nothing of it was fetched
    refused = build(fails=True, verify=key_of(ground, "maker"))["msg"]
    assert "kaito-project/aikit/base@sha256:" in refused and "is not signed" in refused and "verify: {mode: none}" in refused
    assert not (tmp_path / "blobs").exists() or not list((tmp_path / "blobs").rglob("*-*")), "fetched before it was verified"

    mirrors = stand_ins.mirrors(ground.host)
    places = {}
    for entry in told["skipped"]:
        repository = entry["ref"].partition(":")[0]
        place = next(mirror + repository[len(prefix) :] for prefix, mirror in mirrors.items() if repository.startswith(prefix))
        places[entry["ref"]] = f"{place}@{entry['digest']}"
        sign(ground, places[entry["ref"]])
    assert "has no signature by key" in build(fails=True, verify=key_of(ground, "stranger"))["msg"]
    shown = build(check=True, verify=key_of(ground, "maker"))["signatures"]["verified"]
    done = build(verify=key_of(ground, "maker"))["signatures"]
    assert done["skipped"] == [] and done["verified"] == shown
    assert {entry["ref"]: entry["digest"] for entry in shown} == {ref: place.partition("@")[2] for ref, place in places.items()}
    assert {entry["by"] for entry in shown} == {f"key {ground.keys / 'maker.pub'}"}

    # Once: what was verified by digest is remembered, also where cosign is not there any more
    with monkeypatch.context() as patch:
        patch.setenv("PATH", without_cosign())
        again = build(verify=key_of(ground, "maker"))
    assert again["signatures"] == done and not again["changed"]
    # Another key in the same file is another question
    (tmp_path / "moving.pub").write_bytes((ground.keys / "maker.pub").read_bytes())
    moving = {**key_of(ground, "maker"), "key": str(tmp_path / "moving.pub")}
    build(verify=moving)
    (tmp_path / "moving.pub").write_bytes((ground.keys / "stranger.pub").read_bytes())
    assert "has no signature by key" in build(fails=True, verify=moving)["msg"]

    # The tag stands for something else now: the signature of the old image is no help
    stand_ins.Pusher(ground.host).artifact("ghcr/kaito-project/aikit/localai", "v4.7.1-amd64", {"local-ai": b"#!/bin/sh\nexit 1\n"})
    try:
        swapped = build(fails=True, verify=key_of(ground, "maker"))["msg"]
        assert "aikit/localai@sha256:" in swapped and "is not signed" in swapped
    finally:
        stand_ins.Pusher(ground.host).artifact("ghcr/kaito-project/aikit/localai", "v4.7.1-amd64", {"local-ai": (stand_ins.FAKE / "local-ai").read_bytes()})
    build(verify=key_of(ground, "maker"))


def test_the_way_out_is_said(ground, build):
    told = build(verify={"mode": "none"})["signatures"]
    assert told["verified"] == [] and {entry["reason"] for entry in told["skipped"]} == {"verify.mode is none"} and len(told["skipped"]) == 3


def test_without_cosign(ground, build, monkeypatch):
    monkeypatch.setenv("PATH", without_cosign())
    missing = build(fails=True, verify=key_of(ground, "fleet"))["msg"]
    assert "cosign is not on the build host" in missing and "apt install cosign" in missing
    told = build(check=True, verify=key_of(ground, "fleet"))["signatures"]
    assert told["verified"] == [] and "check mode: cosign is not on the build host" in told["skipped"][0]["reason"]


def test_an_image_is_signed_once(ground, build):
    name = f"{ground.host}/e2e/signed:1"
    options = {"name": name, "push": True, "sign_key": str(ground.keys / "fleet.key"), "sign_password": PASSWORD}
    assert "push: true" in build(fails=True, **{**options, "push": False})["msg"]
    assert "does not open the key" in build(fails=True, **{**options, "sign_password": "another"})["msg"]
    assert "cannot be read" in build(fails=True, **{**options, "sign_key": "/none/fleet.key"})["msg"]
    assert not ground.registry.tag("e2e/signed", "1")

    told = build(check=True, **options)
    assert told["changed"] and told["signatures"]["signed"]["changed"] and not ground.registry.tag("e2e/signed", "1")
    done = build(**options)
    ref = f"{ground.host}/e2e/signed@{done['image']['digest']}"
    assert done["actions"][-1].startswith(f"sign {name}") and done["signatures"]["signed"]["digest"] == done["image"]["digest"]
    assert verifies(ground, ref, "fleet") and not verifies(ground, ref, "stranger")
    log = ground.registry.log().count('"PUT ')
    for check in (False, True):
        again = build(check=check, **options)
        assert not again["changed"] and again["signatures"]["signed"]["changed"] is False
    assert ground.registry.log().count('"PUT ') == log
    # A further key adds its signature; the image is not pushed again
    second = build(**{**options, "sign_key": str(ground.keys / "maker.key")})
    assert [line.partition(" ")[0] for line in second["actions"]] == ["sign"] and verifies(ground, ref, "maker") and verifies(ground, ref, "fleet")


def test_logins_and_certificates(ground, build, tmp_path):
    with Registry(tmp_path / "locked", logins=True, tls=True) as locked:
        name = f"{locked.host}/e2e/signed:1"
        login = [{"registry": locked.host, "username": registries.USER, "password": registries.PASSWORD}]
        options = {"name": name, "push": True, "sign_key": str(ground.keys / "fleet.key"), "sign_password": PASSWORD, "registry_ca_file": str(locked.ca)}
        done = build(registry_logins=login, **options)
        assert done["signatures"]["signed"]["changed"] and registries.PASSWORD not in json.dumps(done)
        assert not build(registry_logins=login, **options)["changed"]
        assert not build(registry_auth_file=str(locked.auth_file), **options)["changed"]
