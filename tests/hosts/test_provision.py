# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks on a host with a GPU: from nothing to an engine that hands it out, and what a pending reboot does to a deployment.

The tests go on from one another, as the life of a host does.
"""

from __future__ import annotations

import json

import pytest
import support

SERVICE = {"name": "llama", "image": "localhost/never-pulled:1", "gpus": ["all"], "port": 8080, "server": "llama_cpp"}


class Fleet:
    """One host, and the playbooks of the collection with the fixture's repositories."""

    def __init__(self, host, folder):
        self.host, self.folder = host, folder
        cuda = host.facts["cuda"][host.distribution]
        self.variables = {
            "inference_services": [SERVICE],
            "nvidia_driver_source": "mirror",
            "nvidia_driver_mirror_url": cuda["url"],
            "nvidia_driver_mirror_key": cuda["keyring_url"],
            "nvidia_driver_mirror_key_sha256": cuda["keyring_sha256"],
            "nvidia_driver_version": "580.159.03",
            "nvidia_container_toolkit_repository_url": f"{host.facts['url']}/libnvidia-container",
            "nvidia_container_toolkit_key_fingerprint": host.facts["fingerprints"]["toolkit"],
        }

    def __call__(self, playbook, *arguments, **variables):
        inventory = self.host.inventory(self.folder, **self.variables)
        extra = {"__nvidia_driver_root": self.host.root, "__nvidia_container_toolkit_root": self.host.root, "__inference_root": self.host.root, **variables}
        return support.playbook(f"aikit.fleet.{playbook}", "-i", str(inventory), "-e", json.dumps(extra), *arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def fleet(gpu_host, tmp_path_factory):
    return Fleet(gpu_host("provision", "trixie", gpus=("h100", "h100")), tmp_path_factory.mktemp("provision"))


def checks(run):
    (said,) = run.results("Remember the checks of the host")
    return {check["name"]: check["ok"] for check in said["ansible_facts"]["inference_checks"]}


def test_the_doctor_names_all_that_is_missing(fleet):
    report = fleet.folder / "report.json"
    run = fleet("doctor", "-e", f"inference_doctor_report={report}")
    assert run.code != 0 and run.changed == 0
    found = checks(run)
    assert found["gpus"] and not found["engine"] and not found["driver"] and not found["toolkit"], found
    written = json.loads(report.read_text())
    assert written["ok"] is False and {check["name"] for check in written["hosts"][fleet.host.name]} >= set(found)


def test_check_mode_on_a_virgin_host(fleet):
    before = fleet.host.sh("dpkg-query -W; find /etc -type f | sort | xargs sha256sum | grep -v -e /etc/mtab")
    for playbook in ("provision", "deploy"):
        run = fleet(playbook, "--check", "--diff")
        assert run.code == 0 and run.changed > 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert fleet.host.sh("dpkg-query -W; find /etc -type f | sort | xargs sha256sum | grep -v -e /etc/mtab") == before


def test_from_nothing_to_an_engine_that_hands_out_the_gpu(fleet):
    run = fleet("provision")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    (table,) = run.results("Show what the hosts have")
    assert table["msg"][2].split()[:5] == [fleet.host.name, "2", "loaded", "580.159.03", "open"]
    assert "nvidia.com/gpu=all" in fleet.host.run("nvidia-ctk", "cdi", "list")


def test_a_second_run_changes_nothing(fleet):
    run = fleet("provision")
    assert (run.code, run.changed) == (0, 0), run.output[-3000:]


def test_the_doctor_is_content_with_the_host(fleet):
    run = fleet("doctor")
    found = checks(run)
    wrong = sorted(name for name, ok in found.items() if not ok)
    assert not wrong and found["driver"] and found["toolkit"] and found["cdi devices"], wrong
    # The service itself was never deployed
    assert run.code != 0 and "llama: container" in run.messages()


def test_a_gpu_that_is_gone_is_said(fleet):
    """By the doctor, who was told of it by nobody but the run that found all of them; and by the next run."""
    devices = f"{fleet.host.root}/sys/bus/pci/devices"
    fleet.host.sh(f"cp /etc/fake-nvidia/gpus /root/gpus; sed -i 2d /etc/fake-nvidia/gpus; mkdir /root/card; mv {devices}/0000:3d:00.* /root/card")
    run = fleet("doctor")
    assert not checks(run)["gpus"] and "There are 1 GPUs where there were 2" in run.output, run.output[-3000:]
    run = fleet("provision")
    # The description of the GPUs follows, what is remembered does not
    assert (run.code, run.changed) == (0, 1) and "There are 1 GPUs where there were 2" in run.output, run.output[-3000:]
    assert not checks(fleet("doctor"))["gpus"]
    fleet.host.sh(f"mv /root/gpus /etc/fake-nvidia/gpus; mv /root/card/* {devices}")
    assert checks(fleet("doctor"))["gpus"]


def test_night_upgrades_may_not_take_the_driver(fleet):
    """What the role wrote is enough, also with another package held."""
    fleet.host.apt("install", "unattended-upgrades")
    fleet.host.write("/etc/apt/apt.conf.d/20auto-upgrades", 'APT::Periodic::Unattended-Upgrade "1";\n')
    fleet.host.run("apt-mark", "hold", f"linux-image-{fleet.host.kernel}")
    found = checks(fleet("doctor"))
    assert found["night upgrades"] and found["persistence"]
    fleet.host.sh("mkdir /root/apt; mv /etc/apt/preferences.d/*nvidia-driver* /etc/apt/apt.conf.d/52aikit* /root/apt; systemctl stop nvidia-persistenced")
    found = checks(fleet("doctor"))
    assert not found["night upgrades"] and not found["persistence"]
    fleet.host.sh("mv /root/apt/52aikit* /etc/apt/apt.conf.d; mv /root/apt/* /etc/apt/preferences.d; systemctl start nvidia-persistenced")
    fleet.host.run("apt-mark", "unhold", f"linux-image-{fleet.host.kernel}")


def test_a_host_that_waits_for_its_reboot_is_left_out_and_named(fleet):
    fleet.host.control("in-use")
    run = fleet("deploy", nvidia_driver_state="managed", nvidia_driver_version="580.178.04")
    fleet.host.control("in-use", None)
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    (report,) = run.results("What runs where")
    assert f"Waiting for a reboot, and left out until then: {fleet.host.name}." in report["msg"][-1]
    assert not run.results("Serve and prove each service")


def test_a_fresh_host_on_nouveau_is_left_out_until_its_reboot(gpu_host, tmp_path_factory):
    """Nobody allowed the reboot: that is no failure, and the hosts after it go on."""
    fleet = Fleet(gpu_host("provision-nouveau", "trixie", nouveau=True), tmp_path_factory.mktemp("provision-nouveau"))
    for _run in ("first", "second"):
        run = fleet("provision")
        assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
        assert "nouveau" in fleet.host.run("lsmod") and "1.20.0" in fleet.host.run("nvidia-ctk", "--version")
    assert run.changed == 0, run.output[-3000:]
    run = fleet("deploy")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    (report,) = run.results("What runs where")
    assert f"Waiting for a reboot, and left out until then: {fleet.host.name}." in report["msg"][-1]
    fleet.host.reboot()
    run = fleet("provision")
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert "nvidia.com/gpu=all" in fleet.host.run("nvidia-ctk", "cdi", "list")
