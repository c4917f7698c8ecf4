# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role nvidia_container_toolkit on hosts with real Docker and Podman: 26.1 and 5.4 on trixie, 20.10 and 4.3 on bookworm.

The tests of one host go on from one another, as the life of a host does.
"""

from __future__ import annotations

import json

import lab
import pytest
import support

NAMES = ("libnvidia-container-tools", "libnvidia-container1", "nvidia-container-toolkit", "nvidia-container-toolkit-base")
SPEC = "/var/run/cdi/nvidia.yaml"
DOCKER_RUN = ("docker", "run", "--network=none")
DAEMON = '{"features": {"buildkit": true}, "log-driver": "json-file"}'


class Toolkit:
    """The role on one host."""

    def __init__(self, host, folder):
        self.host, self.folder = host, folder
        (folder / "role.yml").write_text(lab.ROLE_PLAY)

    def __call__(self, *arguments, **variables):
        facts = self.host.facts
        given = {
            "role": "nvidia_container_toolkit",
            "nvidia_container_toolkit_repository_url": f"{facts['url']}/libnvidia-container",
            "nvidia_container_toolkit_key_fingerprint": facts["fingerprints"]["toolkit"],
            "__nvidia_container_toolkit_root": self.host.root,
            **variables,
        }
        inventory = self.host.inventory(self.folder)
        return support.playbook("role.yml", "-i", str(inventory), "-e", json.dumps(given), *arguments, cwd=self.folder)

    def facts(self, run):
        return run.results("Put together what there is")[-1]["ansible_facts"]["nvidia_container_toolkit_facts"]

    def bad(self, run):
        return [check["name"] for check in self.facts(run)["checks"] if not check["ok"]]

    def installed(self):
        lines = self.host.run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n", *NAMES, check=False).splitlines()
        return {words[0]: words[2] for words in map(str.split, lines) if len(words) == 3 and words[1] == "installed"}

    def daemon_json(self):
        return json.loads(self.host.run("cat", "/etc/docker/daemon.json"))

    def spec_version(self):
        return self.host.sh(f"sed -n 's/^cdiVersion: //p' {SPEC}")


@pytest.fixture(scope="module")
def new(gpu_host, tmp_path_factory):
    """Trixie with a driver and no toolkit; its user has settings of Docker's, and a container that would not come back."""
    packages = ["docker.io", "docker-cli", "iptables", "podman", "crun", "nftables", "dbus", "python3-docker", "python3-requests", "busybox-static"]
    host = gpu_host("toolkit", "trixie", driver="580.159.03", packages=packages)
    host.write("/etc/docker/daemon.json", DAEMON)
    host.sh("systemctl restart docker; tar -C / -c bin/busybox usr/bin/busybox | docker import - busybox >/dev/null")
    host.run("docker", "run", "--detach", "--name", "precious", "busybox", "/usr/bin/busybox", "sleep", "100000")
    return Toolkit(host, tmp_path_factory.mktemp("toolkit"))


@pytest.fixture(scope="module")
def old(gpu_host, tmp_path_factory):
    """Bookworm, whose Docker and Podman are old, with a driver and no toolkit."""
    packages = ["docker.io", "iptables", "podman", "crun", "dbus", "python3-docker", "python3-requests", "busybox-static"]
    host = gpu_host("toolkit-old", "bookworm", driver="580.159.03", packages=packages)
    host.sh("tar -C / -c bin/busybox usr/bin/busybox | docker import - busybox >/dev/null")
    return Toolkit(host, tmp_path_factory.mktemp("toolkit-old"))


def test_a_host_without_gpus_is_skipped_and_says_why(new):
    run = new(__nvidia_container_toolkit_root="/")
    assert (run.failed, run.changed) == (0, 0)
    assert new.facts(run)["summary"] == "NVIDIA Container Toolkit: skipped: no NVIDIA GPU was found."


def test_check_mode_on_a_virgin_host_says_what_would_be_done(new):
    run = new("--check", "--diff")
    assert run.failed == 0 and run.changed > 3
    assert "nvidia-container-toolkit=1.20.0-1" in run.results("Say what would be installed")[0]["msg"]
    assert new.installed() == {} and new.daemon_json() == json.loads(DAEMON)
    assert new.host.sh("ls /etc/aikit-fleet /etc/apt/keyrings/nvidia* /etc/apt/preferences.d/nvidia* 2>/dev/null || true") == ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        # NVIDIA's own, which the fixture's key is not
        ({"nvidia_container_toolkit_key_fingerprint": ""}, "expected is C95B321B61E88C1809C4F759DDCAE044F796ECB0"),
        ({"nvidia_container_toolkit_key_sha256": "0" * 64}, "checksum"),
        ({"nvidia_container_toolkit_repo_url": "x"}, "Did you mean nvidia_container_toolkit_repository_url?"),
        ({"nvidia_container_toolkit_version": "1.18.0"}, "below 1.19.1"),
        # A repository that cannot be reached
        ({"nvidia_container_toolkit_repository_url": "http://127.0.0.1:9/libnvidia-container"}, "Nothing was installed"),
    ],
)
def test_refusals_leave_nothing_behind(new, variables, message):
    run = new(**variables)
    assert run.failed == 1 and message in run.messages(), run.output
    assert new.installed() == {}
    assert new.host.sh("ls /etc/apt/keyrings/nvidia* /etc/apt/sources.list.d/nvidia* /etc/aikit-fleet/keys/* 2>/dev/null || true") == ""


def test_docker_is_not_restarted_under_a_container_that_would_not_come_back(new):
    run = new()
    assert run.failed == 1 and "precious would not come back" in run.messages(), run.output
    assert new.installed() == dict.fromkeys(NAMES, "1.20.0-1")
    assert new.host.run("docker", "inspect", "--format", "{{.State.Running}}", "precious") == "true"
    assert new.daemon_json() == {"features": {"buildkit": True, "cdi": True}, "log-driver": "json-file"}
    assert new.spec_version() == "0.7.0"
    # A restart that waited is remembered
    new.host.run("docker", "rm", "--force", "precious")
    run = new()
    assert run.failed == 0, run.messages()
    assert new.bad(run) == []
    assert "runc" in new.host.run("docker", "info", "--format", "{{.DefaultRuntime}}")


def test_a_second_run_changes_nothing(new):
    for state in ("ensure", "managed"):
        new(nvidia_container_toolkit_state=state)
        run = new("--diff", nvidia_container_toolkit_state=state)
        assert (run.failed, run.changed) == (0, 0), run.output
    assert new("--check").changed == 0


def test_a_broken_daemon_json_is_refused_and_not_touched(new):
    broken = '{\n  "features": {"buildkit": true}\n  "debug": true\n}'
    good = new.host.run("cat", "/etc/docker/daemon.json")
    new.host.write("/etc/docker/daemon.json", broken)
    run = new()
    assert run.failed == 1 and "is no JSON: line 3, column 3" in run.messages(), run.messages()
    assert new.host.run("cat", "/etc/docker/daemon.json") == broken
    new.host.write("/etc/docker/daemon.json", good)
    assert new().changed == 0


def test_containers_see_the_gpu_also_after_a_reload_of_systemd(new):
    run = new(entry="verify", nvidia_container_toolkit_verify_daemon_reload=True)
    assert (run.failed, run.changed) == (0, 0)
    details = [check["detail"] for check in new.facts(run)["checks"] if check["name"].startswith("GPU in")]
    assert len(details) == 2 and all("also after systemctl daemon-reload" in detail for detail in details)
    # By other means: the fake nvidia-smi that the specification brings along needs a shell
    for engine, words in (("docker", []), ("podman", ["--cgroups=disabled"])):
        if engine == "podman":
            new.host.sh("docker save busybox | podman load --quiet >/dev/null")
        line = [engine, "run", "--rm", *words, "--network=none", "--device=nvidia.com/gpu=all", "busybox", "/usr/bin/busybox", "ls", "/dev"]
        assert {"nvidia0", "nvidiactl"} <= set(new.host.run(*line).split())
    # Nothing is left behind
    assert "gpu-check" not in new.host.sh("docker ps --all; docker images; podman ps --all; podman images")


@pytest.mark.parametrize("version", ["0.5.0", "0.6.0", "0.7.0"])
def test_engines_read_every_version_of_a_specification(new, version):
    new.host.control("cdi-version", version)
    new.host.sh("systemctl reset-failed nvidia-cdi-refresh; systemctl restart nvidia-cdi-refresh")
    new.host.control("cdi-version", None)
    assert new.host.module("aikit.fleet.gpu_info", root=new.host.root)["cdi"]["spec_version"] == new.spec_version() == version
    for engine in (["docker", "run"], ["podman", "run", "--cgroups=disabled"]):
        line = [*engine, "--rm", "--network=none", "--device=nvidia.com/gpu=all", "busybox", "/usr/bin/busybox", "ls", "/dev"]
        assert {"nvidia0", "nvidiactl"} <= set(new.host.run(*line).split()), engine


def test_containers_see_the_gpu_after_a_restart_of_the_host(new):
    # Docker 26.1 itself forgets such a container when it starts
    options = ["--detach", "--restart=unless-stopped", "--network=none", "--name=comes-back", "--device=nvidia.com/gpu=all"]
    new.host.run("docker", "run", *options, "busybox", "/usr/bin/busybox", "sleep", "100000")
    new.host.reboot()
    run = new(entry="verify")
    assert run.failed == 0, run.messages()
    assert new.host.run("docker", "inspect", "--format", "{{.State.Running}}", "comes-back") == "true"
    assert "nvidia0" in new.host.run("docker", "exec", "comes-back", "/usr/bin/busybox", "ls", "/dev")
    new.host.run("docker", "rm", "--force", "comes-back")
    assert {"nvidia-cdi-refresh.service", "nvidia-persistenced.service"} <= set(
        new.host.run("systemctl", "show", "docker", "--property=After", "--value").split()
    )


def test_a_specification_that_is_not_the_drivers_is_renewed(new):
    new.host.sh(f"sed -i s/580.159.03/570.1/ {SPEC}; cp {SPEC} /etc/cdi/nvidia.yaml 2>/dev/null || {{ mkdir /etc/cdi; cp {SPEC} /etc/cdi/nvidia.yaml; }}")
    # Started too often, it is not started again before systemd is told to forget
    new.host.control("ctk-error", "out of order")
    new.host.sh("for n in 1 2 3 4 5 6 7; do systemctl start nvidia-cdi-refresh.service || true; done")
    run = new(entry="verify")
    assert run.failed == 1 and "CDI specification is current" in new.bad(run)
    # While nothing new can be made, the old one stays
    run = new()
    assert run.failed == 1 and "out of order" in run.messages() and new.host.run("ls", "/etc/cdi") == "nvidia.yaml"
    new.host.control("ctk-error", None)
    run = new("--check", "--diff")
    assert run.failed == 0 and "570.1" in new.host.run("cat", SPEC)
    run = new()
    assert run.failed == 0 and run.changed == 3, run.output
    assert "580.159.03" in new.host.run("cat", SPEC)
    assert new.host.run("ls", "/etc/cdi") == "nvidia.yaml.aikit-fleet-backup"
    assert new().changed == 0


def test_absent_takes_back_what_was_done_and_no_more(new):
    run = new("--check", nvidia_container_toolkit_state="absent")
    assert run.failed == 0 and run.changed and len(new.installed()) == 4
    run = new(nvidia_container_toolkit_state="absent")
    assert run.failed == 0, run.messages()
    assert new.installed() == {} and new.daemon_json() == json.loads(DAEMON)
    left = new.host.sh(
        "ls /etc/aikit-fleet/nvidia_container_toolkit /etc/apt/preferences.d /etc/apt/sources.list.d /etc/systemd/system/docker.service.d 2>/dev/null || true"
    )
    assert "toolkit" not in left and "aikit" not in left
    assert "580.159.03" in new.host.run("nvidia-smi"), "the driver is not the toolkit's"
    run = new(nvidia_container_toolkit_state="absent")
    assert (run.failed, run.changed) == (0, 0)


def test_a_first_install_for_engines_that_are_old(old):
    run = old(nvidia_container_toolkit_state="managed")
    assert run.failed == 0 and old.bad(run) == [], run.messages()
    assert old.installed() == dict.fromkeys(NAMES, "1.20.0-1") and old.spec_version() == "0.5.0"
    assert {f"GPU in a container of {engine}" for engine in ("docker", "podman")} <= {check["name"] for check in old.facts(run)["checks"]}
    assert "nvidia0" in old.host.run(*DOCKER_RUN, "--rm", "--gpus=all", "busybox", "/usr/bin/busybox", "ls", "/dev").split()
    run = old("--diff", nvidia_container_toolkit_state="managed")
    assert (run.failed, run.changed) == (0, 0), run.output
    run = old(nvidia_container_toolkit_state="absent")
    assert run.failed == 0 and old.installed() == {} and old.daemon_json() == {}, run.messages()


def test_a_docker_that_was_started_before_a_toolkit_of_somebody_else_s(old):
    # It forgets the hook of the toolkit that was there
    old.host.sh("systemctl restart docker")
    old.host.add_toolkit_repository()
    old.host.apt("install", *(f"{name}=1.18.0-1" for name in NAMES))
    old.host.run(*DOCKER_RUN, "--detach", "--name=precious", "busybox", "/usr/bin/busybox", "sleep", "100000")
    run = old()
    assert run.failed == 1 and "precious would not come back" in run.messages() and "could not select device driver" in run.messages(), run.output
    assert {"docker restart", "GPU in a container of docker"} <= set(old.bad(run))
    assert old.host.run("docker", "inspect", "--format", "{{.State.Running}}", "precious") == "true"
    old.host.run("docker", "rm", "--force", "precious")
    # Only looks, and says it
    run = old(entry="verify")
    assert run.failed == 1 and "restart Docker" in run.messages()
    before = old.host.run("systemctl", "show", "docker", "--property=MainPID")
    run = old()
    assert run.failed == 0 and old.bad(run) == ["toolkit version"], run.messages()
    assert old.host.run("systemctl", "show", "docker", "--property=MainPID") != before


def test_a_toolkit_below_the_floor_is_reported_and_left_alone(old):
    run = old()
    assert (run.failed, run.changed) == (0, 0), run.messages()
    facts = old.facts(run)
    assert "1.18.0, below 1.19.1" in facts["problems"][0]["detail"] and old.bad(run) == ["toolkit version"]
    assert old.installed() == dict.fromkeys(NAMES, "1.18.0-1")
    # Somebody else's stays
    run = old(nvidia_container_toolkit_state="absent")
    assert run.failed == 0 and old.installed() == dict.fromkeys(NAMES, "1.18.0-1")
    assert "nvidia" not in old.host.run("cat", "/etc/docker/daemon.json")


def test_managed_upgrades_all_packages_together(old):
    run = old("--check", nvidia_container_toolkit_state="managed")
    assert run.failed == 0 and old.installed()["libnvidia-container1"] == "1.18.0-1"
    run = old(nvidia_container_toolkit_state="managed")
    assert run.failed == 0, run.messages()
    assert old.installed() == dict.fromkeys(NAMES, "1.20.0-1")
    # The same repository under its older name would have two keys
    assert "nvidia-container-toolkit.list" not in old.host.run("ls", "/etc/apt/sources.list.d")
    run = old(nvidia_container_toolkit_state="managed")
    assert (run.failed, run.changed) == (0, 0), run.output


def test_the_specification_is_one_that_podman_4_3_reads(old):
    assert old.spec_version() == "0.5.0"
    run = old(entry="verify", nvidia_container_toolkit_verify_daemon_reload=True)
    # What a reload takes from containers with --gpus is not seen here: the fixture's nodes are free to all
    assert old.bad(run) == [], run.messages()
    assert "nvidia" in old.host.run("docker", "info", "--format", "{{json .Runtimes}}")
    assert old.host.run("docker", "info", "--format", "{{.DefaultRuntime}}") == "runc"
    # What the flag is for
    old.host.sh("rm /etc/systemd/system/nvidia-cdi-refresh.service.d/aikit-fleet.conf; systemctl daemon-reload; systemctl restart nvidia-cdi-refresh")
    run = old(entry="verify")
    assert {"CDI specification is readable", "GPU in a container of podman"} <= set(old.bad(run))
    assert "reads up to 0.5.0" in run.messages()
    run = old()
    assert run.failed == 0 and old.spec_version() == "0.5.0"


def test_rollback_and_pin(old):
    run = old(nvidia_container_toolkit_state="managed", nvidia_container_toolkit_version="1.19.1")
    assert run.failed == 0, run.messages()
    assert old.installed() == dict.fromkeys(NAMES, "1.19.1-1")
    assert "nvidia-container" not in old.host.apt("--simulate", "upgrade")
    # Half an upgrade by hand is mended
    old.host.apt("remove", "nvidia-container-toolkit", "libnvidia-container-tools")
    run = old(nvidia_container_toolkit_state="managed", nvidia_container_toolkit_version="1.19.1")
    assert run.failed == 0 and old.installed() == dict.fromkeys(NAMES, "1.19.1-1")


def test_a_host_that_waits_for_a_reboot(old):
    names = old.host.sh("dpkg-query -W -f '${Package} ${Version}\\n' | awk '$2 == \"580.159.03-1\" && $1 !~ /pinning/ {print $1}'").split()
    # The new version has to be chosen over the pin of the old one
    old.host.sh("rm -f /etc/apt/preferences.d/*nvidia-driver*")
    old.host.apt("install", "--allow-change-held-packages", *(f"{name}=580.178.04-1" for name in names))
    run = old(nvidia_container_toolkit_state="managed", nvidia_container_toolkit_version="1.19.1")
    assert run.failed == 0 and old.facts(run)["waits_for"] == "reboot", run.output
    assert "after a reboot" in old.facts(run)["summary"]
