# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it costs to find that nothing has to be done: provision.yml on hosts that are provisioned, over SSH with sudo. Prints the table of docs/benchmarks.md.

    .venv/bin/python tests/benchmarks/provision.py --runs 3 --hosts 1

Against it: ``provision_builtin.yml``, the same steps with ansible.builtin and community modules alone, and as many pings as provision.yml has tasks on
the host. Each with pipelining and without. Hosts are systemd hosts of tests/hosts with fake GPUs. Round trips are SSH sessions, as Ansible's own log has
them: a task without pipelining needs several.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "hosts")]

import lab
import support

PREFIX = os.environ.get("AIKIT_TEST_PREFIX", "aikit-bench-")
PACKAGES = ("openssh-server", "docker.io", "docker-cli", "iptables", "python3-docker", "python3-requests", "python3-debian", "busybox-static", "gpg")
# Actions that end on the controller
LOCAL = {"debug", "set_fact", "assert", "meta", "include_tasks", "import_tasks", "include_role", "import_role", "fail", "import_playbook", "include_vars"}
PING = "- name: Ping\n  hosts: aikit_hosts\n  gather_facts: false\n  tasks:\n"


class Fleet:
    """Hosts with a driver, a toolkit and an engine, reached as users reach theirs."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        self.repository = lab.Repository(folder / "www", ("debian13",))
        self.hosts = [lab.GpuHost(f"{PREFIX}{number}", self.repository.facts, "trixie", packages=PACKAGES) for number in range(count)]
        for host in self.hosts:
            host.destroy()
            host.create()
            host.sh("useradd --create-home --shell /bin/bash ops; echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops; mkdir -p /home/ops/.ssh")
            host.write("/home/ops/.ssh/authorized_keys", (folder / "key.pub").read_text())
            host.sh("chown -R ops: /home/ops/.ssh; chmod 700 /home/ops/.ssh; systemctl start ssh docker")
            host.sh("tar -C / -c usr/bin/busybox | docker import - busybox >/dev/null")
        self.inventory = folder / "inventory.json"
        self.inventory.write_text(json.dumps({"aikit_hosts": {"hosts": {host.name: self.reach(host) for host in self.hosts}, "vars": self.variables()}}))
        (folder / "builtin.yml").write_text((HERE / "provision_builtin.yml").read_text())

    def reach(self, host: lab.GpuHost) -> dict[str, Any]:
        address = support.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", host.name)
        return {"ansible_host": address, "ansible_user": "ops", "ansible_python_interpreter": "/usr/bin/python3"}

    def variables(self) -> dict[str, Any]:
        facts, cuda = self.repository.facts, self.repository.facts["cuda"]["debian13"]
        return {
            "inference_services": [],
            "nvidia_driver_state": "managed",
            "nvidia_driver_version": "580.159.03",
            "nvidia_driver_source": "mirror",
            "nvidia_driver_mirror_url": cuda["url"],
            "nvidia_driver_mirror_key": cuda["keyring_url"],
            "nvidia_driver_mirror_key_sha256": cuda["keyring_sha256"],
            "nvidia_container_toolkit_state": "managed",
            "nvidia_container_toolkit_repository_url": f"{facts['url']}/libnvidia-container",
            "nvidia_container_toolkit_key_fingerprint": facts["fingerprints"]["toolkit"],
            "bench_root": lab.FAKE_ROOT,
            "bench_toolkit_version": "1.20.0-1",
        }

    def overrides(self) -> dict[str, Any]:
        """Variables that have to win over a role's own."""
        return {"aikit_serial": "100%", **self.hosts[0].variables()}

    def run(self, name: str, pipelining: bool, *words: str, json_output: bool = False) -> tuple[float, str]:
        """Seconds and output of one run that has to succeed."""
        ssh = "-o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        arguments = f"{ssh} -i {self.folder}/key"
        environment = support.environment(
            ANSIBLE_PIPELINING=str(pipelining),
            ANSIBLE_SSH_ARGS=arguments,
            ANSIBLE_FORKS=str(max(5, len(self.hosts))),
            **({"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"} if json_output else {}),
        )
        command = [str(support.BIN / "ansible-playbook"), name, "-i", str(self.inventory), "-e", json.dumps(self.overrides()), *words]
        started = time.monotonic()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        if done.returncode != 0:
            raise SystemExit(f"{name}: exit {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}")
        return seconds, done.stdout

    def counted(self, name: str, pipelining: bool) -> tuple[int, int]:
        """How often a module ran on the first host (a loop counts each time), and SSH sessions to it. Nothing may change."""
        _seconds, output = self.run(name, pipelining, "-vvv", json_output=True)
        document = json.loads(output[re.search(r"^\{$", output, re.M).start() :])
        changed = {host: entry["changed"] for host, entry in document["stats"].items() if entry["changed"]}
        if changed:
            raise SystemExit(f"{name} changed something: {changed}")
        count = 0
        for play in document["plays"]:
            for task in play["tasks"]:
                result = task["hosts"].get(self.hosts[0].name)
                if result is None or result.get("skipped") or str(result.get("action", "")).rpartition(".")[2] in LOCAL:
                    continue
                items = result.get("results")
                count += len([item for item in items if not item.get("skipped")]) if isinstance(items, list) and "item" in (items or [{}])[0] else 1
        address = re.escape(self.reach(self.hosts[0])["ansible_host"])
        return count, len(re.findall(rf"^<{address}> SSH: EXEC (?:ssh|sftp|scp)\b", output, re.M))

    def close(self) -> None:
        for host in self.hosts:
            host.destroy()
        self.repository.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--own-time", action="store_true", help="only how long gpu_info takes")
    parser.add_argument("--keep", action="store_true", help="leave the hosts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder), given.hosts)
        try:
            for name in ("aikit.fleet.provision", "builtin.yml"):
                seconds, _output = fleet.run(name, True)
                print(f"{name}, first run: {seconds:.1f} s", file=sys.stderr)
            own_time(fleet.hosts[0], max(given.runs, 10))
            if not given.own_time:
                table(fleet, given.runs)
        finally:
            if not given.keep:
                fleet.close()


# What module gpu_info does, without Ansible: all of it, and what of it is nvidia-smi
OWN_TIME = """\
import json, sys, time
sys.path.insert(0, "/var/tmp/gpu-info")
from ansible_collections.aikit.fleet.plugins.module_utils._io import command, gpu_probe
smi = 0.0
def run(argv, timeout):
    global smi
    started = time.monotonic()
    answer = command.run(argv, timeout)
    smi += (time.monotonic() - started) * argv[0].endswith("nvidia-smi")
    return answer
started = time.monotonic()
found = gpu_probe.observe(sys.argv[1], None, 10, run)
print(json.dumps([time.monotonic() - started, smi, len(found["gpus"])]))
"""


def own_time(host: lab.GpuHost, runs: int) -> None:
    """How long gpu_info takes on a host beside nvidia-smi."""
    place = "/var/tmp/gpu-info/ansible_collections/aikit/fleet/plugins"
    host.run("mkdir", "-p", place)
    support.docker("cp", str(support.ROOT / "plugins/module_utils"), f"{host.name}:{place}/module_utils")
    measured = [json.loads(host.run("python3", "-c", OWN_TIME, host.root)) for _run in range(runs)]
    whole, smi = ([one[index] for one in measured] for index in (0, 1))
    own = [one - other for one, other in zip(whole, smi)]
    print(f"gpu_info beside nvidia-smi: {statistics.median(own):.2f} s ({min(own):.2f}-{max(own):.2f}), nvidia-smi {statistics.median(smi):.2f} s", flush=True)


def table(fleet: Fleet, runs: int) -> None:
    counts = {("aikit.fleet.provision", True): fleet.counted("aikit.fleet.provision", True)}
    number = counts[("aikit.fleet.provision", True)][0]
    (fleet.folder / "ping.yml").write_text(PING + "".join(f"    - name: Ping {one}\n      ansible.builtin.ping:\n" for one in range(number)))
    rows = {"`provision.yml`": "aikit.fleet.provision", "builtin and community modules": "builtin.yml", f"{number} × `ping`": "ping.yml"}
    print("| what | pipelining | tasks on the host | SSH sessions | seconds per host (median, range) | times the builtin way |")
    print("|---|---|---|---|---|---|")
    for pipelining in (True, False):
        # In turns, so that what else happens on the machine happens to all
        seconds: dict[str, list[float]] = {name: [] for name in rows.values()}
        for _run in range(runs):
            for name, found in seconds.items():
                found.append(fleet.run(name, pipelining)[0] / len(fleet.hosts))
        base = statistics.median(seconds["builtin.yml"])
        for title, name in rows.items():
            tasks, sessions = counts.get((name, pipelining)) or fleet.counted(name, pipelining)
            found = seconds[name]
            middle = statistics.median(found)
            print(
                f"| {title} | {'on' if pipelining else 'off'} | {tasks} | {sessions} |"
                f" {middle:.1f} ({min(found):.1f}–{max(found):.1f}) | {middle / base:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
