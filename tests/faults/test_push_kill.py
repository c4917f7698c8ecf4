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
import signal
import subprocess
import sys
import tarfile
import time

import pytest
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


def start(folder, registry, tag):
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
    }
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH") or str(support.BIN.parent / "collections")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, collections], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(options))
    process.stdin.close()
    process.stdin = None
    return process


def finish(folder, registry, tag):
    process = start(folder, registry, tag)
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
