# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service with a GPU, from its deployment on: after the host was restarted, and while the driver below it changes.

The server is the stand-in for LocalAI, which says what a GPU's log says; engine, CDI, units and restarts are real. The tests go on from
one another, as the life of a host does.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import support
from test_provision import Fleet, checks

FAKE = support.ROOT / "tests/fixtures/fake-localai"
LOG = support.ROOT / "tests/fixtures/logs/made/localai-xlog-json-cuda.log"
IMAGE = "localhost/aikit-hosts/localai:1"
SERVICE = {"name": "llama", "image": IMAGE, "server": "localai", "gpus": ["all"], "port": 8080}
PACKAGES = ("docker.io", "docker-cli", "iptables", "python3-docker", "python3-requests", "busybox-static")


def image_archive() -> bytes:
    """A root file system as AIKit's images have it, less everything that makes it large."""
    lines = [json.loads(line)["line"] for line in LOG.read_text().splitlines()]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:

        def add(name: str, data: bytes, mode: int = 0o755) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            writer.addfile(entry, io.BytesIO(data))

        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        writer.addfile(folder)
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        writer.addfile(link)
        add("bin/busybox", Path("/bin/busybox").read_bytes())
        add("usr/bin/local-ai", (FAKE / "local-ai").read_bytes())
        add("config.yaml", (FAKE / "config.yaml").read_bytes(), 0o644)
        add("backend.log", ("\n".join(lines) + "\n").encode(), 0o644)
        add("cuda", b"", 0o644)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def fleet(gpu_host, tmp_path_factory):
    host = gpu_host("service", "trixie", packages=PACKAGES)
    host.sh("systemctl start docker")
    changes = [f"--change={line}" for line in ('ENTRYPOINT ["local-ai"]', "ENV CONFIG_FILE=/config.yaml", "ENV PATH=/usr/bin:/bin")]
    command = ["docker", "exec", "--interactive", host.name, "docker", "import", *changes, "-", IMAGE]
    subprocess.run(command, input=image_archive(), check=True, capture_output=True)
    found = Fleet(host, tmp_path_factory.mktemp("service"))
    found.variables["inference_services"] = [SERVICE]
    return found


def started(fleet):
    return fleet.host.run("docker", "inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", "llama")


def test_a_service_is_proven_on_a_host_that_had_no_driver(fleet):
    run = fleet("deploy")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    state = json.loads(fleet.host.run("cat", "/var/lib/aikit-fleet/llama.json"))
    assert state["current"]["verdict"] == "proven"
    devices = json.loads(fleet.host.run("docker", "inspect", "-f", "{{json .HostConfig.DeviceRequests}}", "llama"))
    assert devices[0]["Driver"] == "cdi" and devices[0]["DeviceIDs"] == ["nvidia.com/gpu=all"]
    again = fleet("deploy")
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]


def test_it_is_proven_after_a_restart_of_the_host(fleet):
    before = started(fleet)
    fleet.host.reboot()
    ask = ("docker", "exec", "llama", "/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/readyz")
    try:
        support.wait(lambda: fleet.host.run(*ask), AssertionError, 180)
    except AssertionError as error:
        raise AssertionError(
            "\n".join(
                [
                    str(error),
                    fleet.host.run("docker", "inspect", "-f", "{{json .State}} {{.RestartCount}}", "llama", check=False),
                    fleet.host.sh("ls -l /var/run/cdi; journalctl -b --no-pager -u docker -u nvidia-cdi-refresh | tail -30", check=False),
                ]
            )
        ) from error
    assert started(fleet).startswith("true") and started(fleet) != before
    run = fleet("doctor")
    wrong = sorted(name for name, ok in checks(run).items() if not ok)
    assert run.code == 0 and not wrong, f"{wrong}\n{run.messages()}\n{run.output[-2000:]}"
    assert "proven" in json.dumps(run.document)


def test_an_upgrade_of_the_driver_ends_with_a_service_that_is_proven_again(fleet):
    before = started(fleet)
    run = fleet("provision", nvidia_driver_state="managed", nvidia_driver_version="580.178.04")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    proofs = [name for name in task_names(run) if name.startswith("Prove the answers of llama")]
    assert proofs and started(fleet).startswith("true") and started(fleet) != before
    assert "580.178.04" in fleet.host.run("nvidia-smi")
    # The description of the GPUs names the new driver's libraries, and the container got them
    assert "580.178.04" in fleet.host.run("cat", "/var/run/cdi/nvidia.yaml")


def test_one_that_is_not_proven_again_fails_its_host(fleet):
    fleet.variables["inference_services"] = [{**SERVICE, "expect": {"verdict": ["cpu"]}}]
    run = fleet("provision", nvidia_driver_state="managed", nvidia_driver_version="580.159.03", nvidia_driver_allow=["below_floor"])
    fleet.variables["inference_services"] = [SERVICE]
    assert run.code != 0 and run.failed == 1 and "proven" in run.messages(), run.output[-3000:]
    # It serves all the same: what is wrong is the word of the proof
    assert started(fleet).startswith("true")


def test_a_night_upgrade_is_named_and_ended_by_a_reboot_with_a_proof(fleet):
    host = fleet.host
    host.run("rm", "/etc/apt/preferences.d/aikit-fleet-nvidia-driver")
    parts = host.sh("dpkg-query -W -f '${Package} ${Version}\n' | grep ' 580.159.03-1$' | cut -d' ' -f1").split()
    host.apt("install", *(f"{name}=580.178.04-1" for name in parts))
    before = started(fleet)
    run = fleet("doctor")
    assert run.code != 0 and run.changed == 0 and not checks(run)["driver"] and "reboot" in json.dumps(run.document).lower()
    # Nobody allows the reboot: the host is left out and named, and serves on
    run = fleet("provision", nvidia_driver_version="")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    (table,) = run.results("Show what the hosts have")
    assert "mismatch" in table["msg"][2] and f"Waiting for a reboot, and left out until then: {host.name}." in table["msg"][-1]
    assert started(fleet) == before and "Prove the answers of llama" not in task_names(run)
    run = fleet("provision", nvidia_driver_version="", nvidia_driver_reboot="if_required")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert "Prove the answers of llama" in task_names(run) and started(fleet).startswith("true") and started(fleet) != before
    assert "580.178.04" in host.run("nvidia-smi") and checks(fleet("doctor"))["driver"]


def test_a_service_that_waited_for_a_reboot_is_proven_when_it_starts(fleet):
    fleet.host.control("in-use")
    run = fleet("provision", nvidia_driver_state="managed", nvidia_driver_version="580.159.03", nvidia_driver_allow=["below_floor"])
    fleet.host.control("in-use", None)
    assert run.code != 0 and run.failed == 1 and "llama stopped for the change" in run.messages(), run.output[-3000:]
    fleet.host.reboot()
    assert started(fleet).startswith("false")
    run = fleet("provision", nvidia_driver_state="managed", nvidia_driver_version="580.159.03", nvidia_driver_allow=["below_floor"])
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert "Prove the answers of llama" in task_names(run) and started(fleet).startswith("true")
    assert fleet("provision", nvidia_driver_state="managed", nvidia_driver_version="580.159.03").changed == 0


def test_a_restart_of_docker_is_followed_by_a_proof(fleet):
    before = started(fleet)
    run = fleet("provision", container_engine_docker_log_max_size="7m")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert started(fleet) != before and "Prove the answers of llama" in task_names(run)


def task_names(run):
    return [entry["task"]["name"].split(" : ")[-1] for play in run.document.get("plays", ()) for entry in play["tasks"] if entry["hosts"]]
