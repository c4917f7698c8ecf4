# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build that pushes and writes a layout is killed at many moments; after each, nothing is corrupt, and nothing is sent twice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest
import stand_ins
import support
from ansible_collections.aikit.fleet.plugins.module_utils._core import base as bases
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes
from registries import Registry

ROUNDS = 12
# One run of the builder in a process of its own, as the module runs
PROGRAM = """\
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.aikit.fleet.plugins.module_utils._io import build
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source
options = json.load(sys.stdin)
parsed = yaml_source.from_file(options.pop("src"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = build.build(build.Request(parsed=parsed, **options), False)
print(json.dumps({**result, "grown_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024}))
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two models and a base, 150 MB: a push takes long enough to be killed in it."""
    folder = tmp_path_factory.mktemp("inputs")
    header = gguf_bytes()
    for name in ("one", "two"):
        (folder / f"{name}.gguf").write_bytes(header + random.Random(name).randbytes(60_000_000))
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as writer:
        member = tarfile.TarInfo("usr/lib/filler")
        member.size = 30_000_000
        writer.addfile(member, io.BytesIO(random.Random("base").randbytes(member.size)))
    (folder / "base.tar").write_bytes(raw.getvalue())
    server = bases.server_from_table("0.7.0")
    found = bases.Base("cpu", "sid", "amd64", hashlib.sha256(raw.getvalue()).hexdigest(), len(raw.getvalue()), (), server, ("cpu",), "0" * 64)
    (folder / "base.tar.json").write_text(json.dumps(found.as_dict()))
    lines = ["apiVersion: v1alpha1", "models:", *(line for name in ("one", "two") for line in (f"  - name: {name}", f"    source: {name}.gguf"))]
    (folder / "aikitfile.yaml").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What AIKit's images are made of, in a registry; LocalAI and its backend have the size that makes work of them."""
    with Registry(tmp_path_factory.mktemp("parts")) as made:
        stand_ins.fill(made.host)
        push = stand_ins.Pusher(made.host)
        program = (stand_ins.FAKE / "local-ai").read_bytes() + random.Random("program").randbytes(25_000_000)
        push.artifact("ghcr/kaito-project/aikit/localai", "v4.7.1-amd64", {"local-ai": program})
        layers = [*stand_ins.backend_layers("cpu"), stand_ins.layer(stand_ins.entry("lib/filler", random.Random("backend").randbytes(50_000_000)))]
        push.image("quay/go-skynet/local-ai-backends", "v4.7.1-cpu-llama-cpp", layers)
        yield made


def start(folder, registry, tag, **more):
    options = {
        "name": f"{registry.host}/kill/two:{tag}",
        "src": str(folder / "aikitfile.yaml"),
        "context": None,
        "server": "llama_cpp",
        "base": str(folder / "base.tar"),
        "localai": None,
        "platforms": [],
        "aikit_version": "0.21.0",
        "load": [],
        "archive": None,
        "archive_omit": [],
        "store": str(folder / "store"),
        "cache": str(folder / "digests"),
        "token": None,
        "tokens": None,
        "push": True,
        "oci_layout": str(folder / f"layout-{tag}"),
        "lock": str(folder / f"lock-{tag}.json"),
        **more,
    }
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH") or str(support.BIN.parent / "collections")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, collections], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(options))
    process.stdin.close()
    process.stdin = None
    return process


def finish(folder, registry, tag, **more):
    process = start(folder, registry, tag, **more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def whole(layout):
    """The names in a layout, each of which leads to blobs that are whole."""
    if not (layout / "index.json").exists():
        return []
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    for entry in entries:
        manifest = json.loads((layout / "blobs/sha256" / entry["digest"].partition(":")[2]).read_text())
        for blob in (manifest["config"], *manifest["layers"]):
            value = blob["digest"].partition(":")[2]
            with open(layout / "blobs/sha256" / value, "rb") as handle:
                assert hashlib.file_digest(handle, "sha256").hexdigest() == value
    return entries


def test_builds_that_are_killed(inputs, registry):
    begun = time.monotonic()
    first = finish(inputs, registry, "whole")
    seconds = time.monotonic() - begun
    # 150 MB went through it, four blobs at a time
    assert first["grown_mib"] < 16
    moments = random.Random(20261125)
    for number in range(ROUNDS):
        # Every round has a registry without these blobs
        with Registry(registry.folder / f"round-{number}") as fresh:
            tag = f"r{number}"
            process = start(inputs, fresh, tag)
            time.sleep(moments.uniform(0.1, max(1.0, seconds)))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            # The tag is not there, or what it names is
            tagged = fresh.tag("kill/two", tag)
            assert tagged in ("", first["image"]["digest"])
            whole(inputs / f"layout-{tag}")
            done = finish(inputs, fresh, tag)
            assert done["image"]["digest"] == first["image"]["digest"] == fresh.tag("kill/two", tag)
            assert len(whole(inputs / f"layout-{tag}")) == 1 and not list((inputs / f"layout-{tag}").rglob("*.part"))
            assert json.loads((inputs / f"lock-{tag}.json").read_text())["digest"] == first["image"]["digest"]
            commits = fresh.commits()
            assert len(commits) == len(set(commits)) == 5, "a blob was uploaded twice"
            assert not finish(inputs, fresh, tag)["changed"]


def whole_store(blobs):
    """Everything in a store of blobs is what its name or its description says."""
    for path in blobs.glob("sha256/*"):
        if path.suffix == "":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for path in blobs.glob("backends/*.json"):
        told, tar = json.loads(path.read_text()), path.with_suffix(".tar")
        assert not tar.exists() or hashlib.sha256(tar.read_bytes()).hexdigest() == told["sha256"]


def test_builds_of_aikits_own_image_that_are_killed(inputs, registry, parts):
    """While LocalAI and a backend are fetched, repacked, hashed, pushed, and written into a layout: each round begins with nothing."""

    def options(tag):
        return {
            "server": "localai",
            "aikit_version": "main",
            "base": None,
            "platforms": ["linux/amd64"],
            "registry_mirrors": stand_ins.mirrors(parts.host),
            "blobs": str(inputs / f"blobs-{tag}"),
            "cache": str(inputs / f"digests-{tag}"),
        }

    begun = time.monotonic()
    first = finish(inputs, registry, "localai", **options("localai"))
    seconds = time.monotonic() - begun
    assert first["builder"] == "direct" and first["grown_mib"] < 32
    blobs = {layer["digest"] for layer in first["image"]["layers"]} | {first["image"]["id"]}
    moments = random.Random(20261126)
    killed = 0
    for number in range(ROUNDS):
        with Registry(registry.folder / f"localai-{number}") as fresh:
            tag = f"l{number}"
            process = start(inputs, fresh, tag, **options(tag))
            time.sleep(moments.uniform(0.3, max(1.0, seconds)))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            assert fresh.tag("kill/two", tag) in ("", first["image"]["digest"])
            whole(inputs / f"layout-{tag}")
            store = inputs / f"blobs-{tag}"
            whole_store(store)
            done = finish(inputs, fresh, tag, **options(tag))
            assert done["image"]["digest"] == first["image"]["digest"] == fresh.tag("kill/two", tag)
            assert len(whole(inputs / f"layout-{tag}")) == 1
            whole_store(store)
            for folder in (store, inputs / f"layout-{tag}"):
                assert not [path for path in folder.rglob("*") if path.name.endswith((".part", ".layers", ".lock"))]
            commits = fresh.commits()
            assert sorted(f"sha256:{value}" for value in commits) == sorted(blobs), "a blob was uploaded twice, or not at all"
            assert not finish(inputs, fresh, tag, **options(tag))["changed"]
            for path in (store, inputs / f"layout-{tag}"):
                shutil.rmtree(path)
    assert killed > ROUNDS // 2
