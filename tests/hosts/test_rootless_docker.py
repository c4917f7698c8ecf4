# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role nvidia_container_toolkit for a user who runs a Docker without root, as Docker's own set-up tool makes it, beside the host's.

The tests go on from one another.
"""

from __future__ import annotations

import json

import pytest
from test_nvidia_container_toolkit import Toolkit

PACKAGES = (
    *("docker.io", "docker-cli", "iptables", "busybox-static", "python3-docker", "python3-requests"),
    *("rootlesskit", "slirp4netns", "uidmap", "dbus-user-session"),
)
USERS = {"nvidia_container_toolkit_rootless_users": ["alice"]}
# As a user would have it. An overlay on the overlay of this host fails
MINE = {"storage-driver": "vfs", "debug": False}
CONFIG = "/home/alice/.config/docker/daemon.json"
SLEEP = ("/usr/bin/busybox", "sleep", "100000")
NAME = "GPU in a container of docker of alice"


class Rootless(Toolkit):
    def alice(self, *words, check=True):
        """A command in a session of the user."""
        line = "export XDG_RUNTIME_DIR=/run/user/$(id -u) DOCKER_HOST=unix:///run/user/$(id -u)/docker.sock; " + " ".join(words)
        return self.host.run("su", "--login", "alice", "--command", line, check=check)

    def pid(self):
        return self.alice("systemctl", "--user", "show", "--property=MainPID", "--value", "docker")

    def settings(self):
        return json.loads(self.host.run("cat", CONFIG))


def wanted(role):
    folders = ["/var/lib/aikit-fleet-cdi", "/etc/cdi", "/var/run/cdi", "/home/alice/.config/cdi", f"/run/user/{role.host.run('id', '-u', 'alice')}/cdi"]
    return {**MINE, "features": {"cdi": True}, "cdi-spec-dirs": folders}


@pytest.fixture(scope="module")
def role(gpu_host, tmp_path_factory):
    host = gpu_host("rootless", "trixie", driver="580.159.03", packages=PACKAGES)
    host.sh("useradd --create-home --shell /bin/bash alice")
    # A /proc with mounts in it is one that a user namespace may not mount: the fake boot id goes
    host.sh("umount /proc/sys/kernel/random/boot_id; loginctl enable-linger alice; sleep 2; ls -d /run/user/$(id -u alice)")
    # For slirp4netns, which a machine has and its containers have not; and where Docker's tool looks for the client, Debian's has it elsewhere
    host.sh("mkdir -p /dev/net; mknod /dev/net/tun c 10 200; chmod 666 /dev/net/tun; ln -s /usr/bin/docker /usr/share/docker.io/contrib/docker")
    host.write(CONFIG, json.dumps(MINE))
    host.sh("chown -R alice: /home/alice/.config; tar -C / -c bin/busybox usr/bin/busybox >/tmp/busybox.tar; chmod 644 /tmp/busybox.tar")
    made = Rootless(host, tmp_path_factory.mktemp("rootless"))
    made.alice("PATH=/usr/share/docker.io/contrib:/usr/sbin:/sbin:$PATH", "dockerd-rootless-setuptool.sh", "install", "--skip-iptables")
    made.alice("docker", "import", "-", "busybox", "</tmp/busybox.tar")
    return made


def test_check_mode_says_what_would_be_done(role):
    pid = role.pid()
    run = role("--check", "--diff", **USERS)
    assert run.failed == 0, run.messages()
    assert role.settings() == MINE and role.pid() == pid


def test_a_users_docker_hands_out_the_gpu_and_keeps_its_settings(role):
    pid = role.pid()
    run = role(**USERS)
    assert run.failed == 0, f"{run.messages()}\n{run.output[-3000:]}"
    assert role.settings() == wanted(role) and role.pid() != pid
    assert role.host.run("stat", "--format=%U", CONFIG) == "alice"
    checks = {check["name"]: check["ok"] for check in role.facts(run)["checks"]}
    assert checks[NAME] and checks["GPU in a container of docker"]
    listed = role.alice("docker", "run", "--rm", "--network=none", "--device=nvidia.com/gpu=all", "busybox", "/usr/bin/busybox", "ls", "/dev").split()
    assert {"nvidia0", "nvidiactl"} <= set(listed)
    assert "gpu-check" not in role.alice("docker", "ps", "--all", ";", "docker", "images")


def test_a_second_run_changes_nothing(role):
    pid = role.pid()
    run = role(**USERS)
    assert (run.failed, run.changed) == (0, 0), run.output
    assert role.pid() == pid


def test_a_refresh_reaches_a_users_docker(role):
    role.host.sh("sed -i s/580.159.03/570.1/ /var/run/cdi/nvidia.yaml; rm /var/lib/aikit-fleet-cdi/nvidia.yaml; systemctl restart nvidia-cdi-refresh")
    assert role.host.run("cat", "/var/lib/aikit-fleet-cdi/nvidia.yaml") == role.host.run("cat", "/var/run/cdi/nvidia.yaml")
    assert "580.159.03" in role.host.run("cat", "/var/lib/aikit-fleet-cdi/nvidia.yaml")
    # Docker hears of a new file a moment later
    run = "docker run --rm --network=none --device=nvidia.com/gpu=all busybox /usr/bin/busybox true"
    role.alice(f"for wait in 0 1 3 9; do sleep $wait; {run} && exit 0; done; exit 1")


def test_a_docker_with_containers_is_not_restarted(role):
    role.host.write(CONFIG, json.dumps(MINE))
    role.alice("systemctl", "--user", "restart", "docker")
    role.alice("docker", "run", "--detach", "--name=precious", "--network=none", "busybox", "/usr/bin/busybox", "sleep", "100000")
    pid = role.pid()
    run = role(**USERS)
    assert role.pid() == pid and "Docker of alice hands out no GPU before it is restarted" in run.output, run.messages()
    assert role.settings() == wanted(role)
    assert run.failed == 1 and role.bad(run) == [NAME]
    role.alice("docker", "rm", "--force", "precious")
    role.alice("systemctl", "--user", "restart", "docker")
    run = role(**USERS)
    assert (run.failed, run.changed) == (0, 0), run.messages()


def test_containers_with_gpus_come_back_with_a_users_docker(role):
    """This Docker starts them before it knows of CDI."""
    for name, policy in (("comes-back", "unless-stopped"), ("stays-away", "no")):
        role.alice("docker", "run", "--detach", f"--name={name}", f"--restart={policy}", "--network=none", "--device=nvidia.com/gpu=all", "busybox", *SLEEP)
    role.alice("systemctl", "--user", "restart", "docker")
    running = "docker inspect --format '{{.State.Running}}' comes-back stays-away"
    assert role.alice(running).split() == ["true", "false"]
    role.alice("docker", "rm", "--force", "comes-back", "stays-away")
