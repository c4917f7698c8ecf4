# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the integration tests, fault tests and benchmarks share: run playbooks and modules as users do, and read what they said."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# The service of fixture quickstart; every process of a parallel run has its own
QUICKSTART = f"aikit-e2e-quickstart{os.environ.get('PYTEST_XDIST_WORKER', '')}"


@dataclass(frozen=True)
class Run:
    """One finished ansible command; ``stats`` is the recap per host."""

    code: int
    output: str
    document: dict[str, Any]

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        return self.document.get("stats", {})

    def results(self, task: str, host: Optional[str] = None) -> list[dict[str, Any]]:
        """The results of every task whose name is ``task``."""
        found = []
        for play in self.document.get("plays", ()):
            for entry in play["tasks"]:
                if entry["task"]["name"].split(" : ")[-1] == task:
                    found += [result for name, result in entry["hosts"].items() if host in (None, name)]
        return found

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.stats.values())

    @property
    def failed(self) -> int:
        return sum(host["failures"] + host["unreachable"] for host in self.stats.values())

    def messages(self) -> str:
        """Every message of a failed task, joined."""
        lines = []
        for play in self.document.get("plays", ()):
            for entry in play["tasks"]:
                for result in entry["hosts"].values():
                    if result.get("failed"):
                        lines.append(str(result.get("msg", "")))
        return "\n".join(lines)


def environment(**extra: str) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(BIN.parent / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_NOCOLOR": "1",
        **extra,
    }


def kinds_of_hosts(folder: Path) -> dict[str, dict[str, Any]]:
    """Variables of a host that is here, and of one whose connection is refused."""
    nothing = folder / "ssh"
    nothing.write_text("#!/bin/sh\necho 'ssh: connect to host: Connection refused' >&2\nexit 255\n")
    nothing.chmod(0o755)
    return {
        "here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "gone": {"ansible_connection": "ssh", "ansible_ssh_executable": str(nothing), "ansible_ssh_retries": 0},
    }


def playbook(name: str, *arguments: str, cwd: Optional[Path] = None, timeout: float = 1800, **extra: str) -> Run:
    """Run ``ansible-playbook NAME ARGUMENTS`` and read its result as JSON. ``extra``: of its environment."""
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), name, *arguments],
        cwd=cwd or ROOT,
        env=environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", **extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    start = done.stdout.find("{\n")
    try:
        document = json.loads(done.stdout[start:]) if start >= 0 else {}
    except ValueError:
        document = {}
    return Run(done.returncode, done.stdout + done.stderr, document)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def completion(port: int, host: str = "127.0.0.1", key: str = "") -> dict[str, Any]:
    """One real answer over the API that users call."""
    body = json.dumps({"messages": [{"role": "user", "content": "Say one word."}], "max_tokens": 8}).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"http://{host}:{port}/v1/chat/completions", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def sweep(*prefixes: str) -> None:
    """Remove what tests of ours left in Docker when they were killed: containers, volumes and images whose names begin so."""
    for name in docker("ps", "--all", "--format={{.Names}}").splitlines():
        if name.startswith(prefixes):
            docker("rm", "--force", "--volumes", name, check=False)
    for name in docker("volume", "ls", "--format={{.Name}}").splitlines():
        if name.startswith(tuple(f"aikit-fleet-{prefix}" for prefix in prefixes)):
            docker("volume", "rm", name, check=False)
    for name in docker("images", "--format={{.Repository}}:{{.Tag}}").splitlines():
        if name.startswith(tuple(f"localhost/{folder}{prefix}" for folder in ("", "aikit/") for prefix in prefixes)):
            docker("rmi", "--force", name, check=False)
    if shutil.which("podman"):
        listed = subprocess.run(["podman", "ps", "--all", "--format={{.Names}}"], capture_output=True, text=True, check=False).stdout
        for name in listed.split():
            if name.startswith(prefixes):
                subprocess.run(["podman", "rm", "--force", name], capture_output=True, check=False)


MODEL_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
MODEL_NAME = "gemma-3-270m-q4_k_m.gguf"
CACHE = Path.home() / ".cache/aikit-fleet"
MODEL_DIR = CACHE / "models/sha256" / MODEL_SHA256

AIKITFILE = """\
apiVersion: v1alpha1
models:
  - name: gemma-3-270m
    source: gemma-3-270m-q4_k_m.gguf
config: |
  - name: gemma-3-270m
    backend: llama
    parameters:
      model: gemma-3-270m-q4_k_m.gguf
    context_size: %d
"""


class Project:
    """A user's folder: an inventory with this machine, aikitfiles, and the three-line deploy.yml."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        (path / "aikitfiles").mkdir(parents=True, exist_ok=True)
        (path / "deploy.yml").write_text("- name: Deploy\n  ansible.builtin.import_playbook: aikit.fleet.deploy\n")
        self.services: list[dict[str, Any]] = []
        self.aikitfile(2048)
        self.write()

    def aikitfile(self, context_size: int, name: str = "gemma.yaml") -> None:
        (self.path / "aikitfiles" / name).write_text(AIKITFILE % context_size)

    def write(self) -> None:
        """The inventory is JSON, which is YAML."""
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        variables = {"inference_services": self.services, "inference_state_dir": str(self.state)}
        inventory = {"aikit_hosts": {"hosts": {"localhost": host}, "vars": variables}}
        (self.path / "inventory.yml").write_text(json.dumps(inventory))

    def service(self, name: str, port: int, **more: Any) -> dict[str, Any]:
        entry = {"name": name, "src": "aikitfiles/gemma.yaml", "context": str(MODEL_DIR), "port": port, "server": "llama_cpp", **more}
        self.services = [other for other in self.services if other["name"] != name] + [entry]
        self.write()
        return entry

    def run(self, name: str = "deploy.yml", *arguments: str) -> Run:
        return playbook(name, "-i", "inventory.yml", *arguments, cwd=self.path)

    def state_of(self, name: str) -> dict[str, Any]:
        return json.loads((self.state / f"{name}.json").read_text())


def inspect(container: str) -> dict[str, Any]:
    return json.loads(docker("inspect", container))[0]


def wait(probe: Any, errors: Any, seconds: float = 60) -> Any:
    """Call ``probe`` until it raises none of ``errors``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return probe()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def import_busybox(folder: Path, name: str, entrypoint: list[str]) -> None:
    """A tiny image from Debian's busybox-static."""
    root = folder / "root" / "bin"
    root.mkdir(parents=True)
    (root / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "busybox").chmod(0o755)
    archive = folder / "root.tar"
    subprocess.run(["tar", "-cf", str(archive), "-C", str(folder / "root"), "bin"], check=True)
    docker("import", f"--change=ENTRYPOINT {json.dumps(entrypoint)}", str(archive), name)


def debian_program(package: str, path: str, folder: Path) -> Path:
    """A program out of one of Debian's packages, without installing it: no service of that package starts on this machine."""
    target = folder / package
    target.mkdir(parents=True)
    for command in (["apt-get", "-qq", "download", package], ["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", package]):
        if subprocess.run(command, cwd=target, capture_output=True, text=True, check=False).returncode == 0 and command[2] == "download":
            break
    (archive,) = target.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(archive), str(target)], check=True)
    return target / path
