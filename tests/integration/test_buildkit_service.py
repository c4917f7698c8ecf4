# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service whose image BuildKit builds: LocalAI with CUDA of AIKit 0.21.0, which is what ``runtime: cuda`` and nothing else means.

The machine's own Docker runs it; ``docker buildx`` is a command that writes what a build would write (tests/fixtures/fake-docker).
There is no GPU: the service is given none.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import stand_ins
import support
import yaml
from helpers import gguf
from registries import Registry
from support import docker, inspect

SERVICE = "aikit-e2e-buildkit"
IMAGE = f"localhost/aikit/{SERVICE}:latest"
LOGS = support.ROOT / "tests/fixtures/logs"
ENV = ["PATH=/usr/bin:/bin", "CONFIG_FILE=/config.yaml", "BUILD_TYPE=cublas"]


@pytest.fixture
def builds(tmp_path, monkeypatch):
    """``docker buildx`` is the fake, every other command Docker's own; returns what reads the builds that were made."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = f'#!/bin/sh\n[ "$1" != buildx ] || exec python3 {support.ROOT}/tests/fixtures/fake-docker/docker "$@"\nexec {shutil.which("docker")} "$@"\n'
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)
    telling = ("No devices found", "print_info: n_", "buffer size =")
    lines = [line for line in (LOGS / "captured/cpu.log").read_text().splitlines() if any(words in line for words in telling)]
    rootfs = stand_ins.localai_root(tmp_path / "rootfs", lines)
    told = {"rootfs": str(rootfs), "config": {"Entrypoint": ["local-ai"], "Cmd": ["--config-file=/config.yaml"], "Env": ENV}}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def made() -> list[list[str]]:
        calls = [json.loads(line)["argv"] for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
        return [argv for argv in calls if argv[:2] == ["buildx", "build"]]

    return made


@pytest.fixture
def project(tmp_path):
    with Registry(tmp_path / "registry") as registry:
        pushed = stand_ins.Pusher(registry.host)
        pushed.image("aikit/aikit", "v0.21.0", [stand_ins.layer(stand_ins.entry("frontend", b"a frontend"))])
        found = support.Project(tmp_path / "project")
        config = (stand_ins.FAKE / "config.yaml").read_text()
        text = f"#syntax={registry.host}/aikit/aikit:v0.21.0\napiVersion: v1alpha1\nruntime: cuda\nmodels:\n"
        text += "  - name: fake-model\n    source: fake-model.gguf\nconfig: |\n" + "".join(f"  {line}\n" for line in config.splitlines())
        (found.path / "aikitfiles/fake.yaml").write_text(text)
        (found.path / "aikitfiles/fake-model.gguf").write_bytes(gguf())
        found.services = [{"name": SERVICE, "src": "aikitfiles/fake.yaml", "port": support.free_port(), "gpus": [], "settings": {"context_size": 512}}]
        found.write()
        yield found
        for name in (SERVICE, f"{SERVICE}--previous"):
            docker("rm", "--force", "--volumes", name, check=False)
        docker("rmi", "--force", IMAGE, check=False)


def test_the_default_service_with_cuda(project, builds, tmp_path):
    cache = tmp_path / "cache"
    # A token for models of other services is no obstacle
    arguments = ("-e", json.dumps({"inference_cache_dir": str(cache), "inference_model_token": "t0ken-of-a-hub"}))
    plan = project.run("aikit.fleet.plan", *arguments)
    assert plan.code == 0 and "fake.yaml (cuda, built by BuildKit)" in plan.output, plan.output[-3000:]
    check = project.run("deploy.yml", "--check", *arguments)
    assert check.code == 0 and not builds() and not (cache / "images").exists(), check.output[-3000:]
    run = project.run("deploy.yml", *arguments)
    assert run.code == 0, run.output[-4000:]
    (argv,) = builds()
    (archive,) = (cache / "images").iterdir()
    assert f"type=docker,name={IMAGE},dest={archive}.part" in argv[argv.index("--output") + 1] and argv.count("--output") == 1
    (built,) = run.results("Assemble the image")
    assert built["builder"] == "buildkit" and built["reason"].startswith("with runtime cuda AIKit v0.21.0 runs commands inside the image")

    # All that the role promises of images with LocalAI
    current = project.state_of(SERVICE)["current"]
    assert (current["release"]["server"], current["verdict"]) == ("localai", "cpu")
    found = inspect(SERVICE)
    env = dict(word.split("=", 1) for word in found["Config"]["Env"])
    assert (env["LOCALAI_LOG_LEVEL"], env["LOCALAI_LOG_FORMAT"], env["LOCALAI_LOAD_TO_MEMORY"]) == ("debug", "json", "fake-model")
    (mount,) = [mount for mount in found["Mounts"] if mount["Destination"] == "/config.yaml"]
    (model,) = yaml.safe_load(Path(mount["Source"]).read_text())
    assert model["context_size"] == 512 and model["options"] == ["verbosity:4"] and model["template"] == {"chat": "{{.Input}}\n"}

    again = project.run("deploy.yml", *arguments)
    assert (again.code, again.changed) == (0, 0) and len(builds()) == 1, again.output[-3000:]
    packed = project.run("aikit.fleet.build", *arguments)
    assert (packed.code, packed.changed) == (0, 0) and list((cache / "images").iterdir()) == [archive], packed.output[-3000:]

    # Another host gets the same file
    docker("rm", "--force", "--volumes", SERVICE)
    docker("rmi", "--force", IMAGE)
    inventory = json.loads((project.path / "inventory.yml").read_text())
    inventory["aikit_builders"] = {"hosts": {"maker": inventory["aikit_hosts"]["hosts"]["localhost"]}}
    (project.path / "inventory.yml").write_text(json.dumps(inventory))
    brought = project.run("deploy.yml", *arguments)
    assert brought.code == 0, brought.output[-4000:]
    assert inspect(SERVICE)["Image"] == found["Image"] and len(builds()) == 1 and archive.exists()
