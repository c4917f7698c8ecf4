# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role nvidia_container_toolkit where no Docker is: Debian's containerd alone, and Podman of a user. The tests go on from one another."""

from __future__ import annotations

import pytest
from test_nvidia_container_toolkit import Toolkit

CONFIG = "/etc/containerd/config.toml"
PACKAGES = ("containerd", "runc", "podman", "crun", "nftables", "dbus", "uidmap", "python3-requests", "busybox-static")
# As a user would have it: Debian's own, and two settings more
MINE = """\
version = 2

# Ours
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.example/pause:1"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/srv/cni"
"""
USERS = {"nvidia_container_toolkit_rootless_users": ["alice"]}


@pytest.fixture(scope="module")
def role(gpu_host, tmp_path_factory):
    host = gpu_host("engines", "trixie", driver="580.159.03", packages=PACKAGES)
    host.write(CONFIG, MINE)
    host.sh("systemctl restart containerd; useradd --create-home --shell /bin/bash alice")
    # A /proc with mounts in it is one that a user namespace may not mount: the fake boot id goes
    host.sh("umount /proc/sys/kernel/random/boot_id; loginctl enable-linger alice; sleep 2; ls -d /run/user/$(id -u alice)")
    # An overlay on the overlay of this host fails; root's storage is on a volume
    host.write("/home/alice/.config/containers/storage.conf", '[storage]\ndriver = "vfs"\n')
    host.sh("chown -R alice: /home/alice/.config")
    return Toolkit(host, tmp_path_factory.mktemp("engines"))


def dump(role):
    """The settings that containerd has, less the one that is ours."""
    return [line for line in role.host.run("containerd", "config", "dump").splitlines() if "enable_cdi" not in line]


def test_containerd_hands_out_cdi_devices_and_keeps_its_settings(role):
    before, pid = dump(role), role.host.run("systemctl", "show", "--property=MainPID", "--value", "containerd")
    told = role("--check", "--diff")
    assert told.failed == 0 and role.host.run("cat", CONFIG) == MINE.strip()
    run = role()
    assert run.failed == 0, run.messages()
    assert "enable_cdi = true" in role.host.run("containerd", "config", "dump") and dump(role) == before
    added = [line for line in role.host.run("cat", CONFIG).splitlines() if line not in MINE.splitlines()]
    assert added == ["    enable_cdi = true"]
    assert role.host.run("systemctl", "show", "--property=MainPID", "--value", "containerd") != pid
    assert role.bad(run) == [] and "CDI in containerd" in [check["name"] for check in role.facts(run)["checks"]]
    kept = role.host.sh(f"ls {CONFIG}.*~")
    assert role.host.run("cat", kept) == MINE.strip()


def test_a_second_run_changes_nothing(role):
    pid = role.host.run("systemctl", "show", "--property=MainPID", "--value", "containerd")
    run = role()
    assert (run.failed, run.changed) == (0, 0), run.output
    assert role.host.run("systemctl", "show", "--property=MainPID", "--value", "containerd") == pid


def test_containerd_is_restarted_for_our_own_change_and_not_woken(role):
    def pid():
        return role.host.run("systemctl", "show", "--property=MainPID", "--value", "containerd")

    before = pid()
    role.host.sh(f"sleep 3; echo '# later' >>{CONFIG}")
    run = role()
    assert (run.failed, run.changed) == (0, 0) and pid() == before, run.output[-3000:]
    # A restart that an earlier run did not come to
    role.host.run("touch", "/etc/aikit-fleet/nvidia_container_toolkit/containerd")
    assert role().failed == 0 and pid() != before
    role.host.sh(f"systemctl stop containerd; sed -i '/# later/d; s/enable_cdi = true/enable_cdi = false/' {CONFIG}")
    run = role()
    assert (run.failed, run.changed) == (0, 0) and pid() == "0", run.output[-3000:]
    assert "enable_cdi = false" in role.host.run("cat", CONFIG)
    role.host.run("systemctl", "start", "containerd")
    assert role().failed == 0 and "enable_cdi = true" in role.host.run("cat", CONFIG)


def test_a_section_that_a_drop_in_holds_is_refused(role):
    role.host.write("/etc/containerd/conf.d/50-theirs.toml", 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "theirs"\n')
    text = f'imports = ["/etc/containerd/conf.d/*.toml"]\n{MINE}'
    role.host.write(CONFIG, text)
    run = role()
    assert run.failed == 1 and "a file that it imports has the section" in run.messages(), run.messages()
    assert role.host.run("cat", CONFIG) == text.strip()
    role.host.run("rm", "/etc/containerd/conf.d/50-theirs.toml")
    role.host.write(CONFIG, MINE)
    assert role().failed == 0


def test_podman_of_a_user_sees_the_gpu(role):
    run = role(**USERS)
    assert (run.failed, run.changed) == (0, 0), f"{run.messages()}\n{run.output[-3000:]}"
    checks = {check["name"]: check["ok"] for check in role.facts(run)["checks"]}
    assert checks["GPU in a container of podman of alice"] and checks["GPU in a container of podman"]
    # A node that only root may use: the check says so
    role.host.sh("chmod 600 /dev/nvidia0")
    run = role(**USERS)
    role.host.sh("chmod 666 /dev/nvidia0")
    assert run.failed == 1 and role.bad(run) == ["GPU in a container of podman of alice"], run.messages()


def test_a_user_that_is_not_there_is_named(role):
    run = role(nvidia_container_toolkit_rootless_users=["alice", "nobody-here"])
    assert run.failed == 1 and "names nobody-here, and the host has no such user" in run.output


def test_absent_takes_cdi_back(role):
    run = role(nvidia_container_toolkit_state="absent")
    assert run.failed == 0, run.messages()
    assert "enable_cdi = false" in role.host.run("containerd", "config", "dump")
    assert role(nvidia_container_toolkit_state="absent").changed == 0
