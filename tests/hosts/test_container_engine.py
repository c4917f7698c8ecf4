# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role container_engine and module docker_daemon_config on real systemd hosts, with real Docker and Podman."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import docker_com
import support

# Two runs on one machine must not take each other's hosts
PREFIX = os.environ.get("AIKIT_TEST_PREFIX", "aikit-hosts-") + "engine-"
DAEMON_JSON = "/etc/docker/daemon.json"
# No registry is needed: the host's own busy parts make an image
IMAGE = "ldd /usr/bin/sleep | grep -o '/lib[^ ]*' | xargs tar -cPhf - /usr/bin/sleep | docker import - test:1"
START = "docker run --detach --name {} --label io.aikit.fleet.service={} --restart unless-stopped test:1 /usr/bin/sleep 100000"


class Host:
    def __init__(self, name, suite, folder):
        self.name = PREFIX + name
        self.folder = folder
        self.tool("destroy")
        self.tool("create", suite)
        self.playbook = folder / f"{name}.yml"
        self.playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "roles": ["aikit.fleet.container_engine"]}]))

    def tool(self, action, *words):
        subprocess.run([str(support.ROOT / "tests/tools/host"), action, self.name, *words], check=True, stdout=subprocess.DEVNULL)

    def sh(self, script, check=True):
        done = subprocess.run(["docker", "exec", self.name, "sh", "-euc", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}: exit {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def write(self, path, text):
        subprocess.run(["docker", "exec", "-i", self.name, "sh", "-c", f"mkdir -p $(dirname {path}); cat >{path}"], input=text, text=True, check=True)

    def install(self, *packages):
        self.sh(f"apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {' '.join(packages)}")

    def role(self, *words, groups_of=("all",), **variables):
        inventory = self.folder / "inventory.json"
        variables = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3", **variables}
        inventory.write_text(json.dumps({group: {"hosts": {self.name: variables}} for group in groups_of}))
        return support.playbook(str(self.playbook), "-i", str(inventory), *words)

    def ok(self, *words, changed=None, **variables):
        run = self.role(*words, **variables)
        assert run.code == 0, run.output[-3000:]
        assert changed is None or run.changed == changed, [task for play in run.document["plays"] for task in play["tasks"]]
        return run

    def refused(self, words, **variables):
        run = self.role(**variables)
        assert run.code != 0 and words in run.messages(), run.output[-3000:]


@pytest.fixture
def host(tmp_path):
    made = []

    def make(name, suite="trixie"):
        made.append(Host(name, suite, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.tool("destroy")


@pytest.mark.parametrize("suite", ["trixie", "bookworm", "bullseye"])
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_virgin_host(host, suite, engine):
    made = host(f"{engine}-{suite}", suite)
    told = made.ok("--check", container_engine_name=engine)
    assert told.changed and made.sh(f"command -v {engine}", check=False) == ""
    made.ok(container_engine_name=engine)
    made.sh(f"{engine} version")
    # Nobody asked for a setting
    assert made.sh(f"ls {DAEMON_JSON} /etc/containers/registries.conf.d/50-aikit-fleet.conf 2>/dev/null", check=False) == ""
    made.ok(container_engine_name=engine, changed=0)
    made.ok("--check", container_engine_name=engine, changed=0)


def test_a_host_that_builds_gets_buildx(host):
    made = host("builder")
    made.ok(container_engine_name="docker")
    made.sh("! docker buildx version >/dev/null 2>&1")
    pid = daemon(made)
    told = made.ok("--check", container_engine_buildx="required")
    assert told.changed and "docker-buildx would be installed" in str(told.results("Say what would be installed"))
    made.sh("! docker buildx version >/dev/null 2>&1")
    # A Docker that is there gets nothing unasked
    made.ok(groups_of=["aikit_builders"], changed=0)
    made.ok(container_engine_buildx="required")
    # Nothing that runs was disturbed
    assert made.sh("docker buildx version").startswith("github.com/docker/buildx") and daemon(made) == pid
    made.ok(container_engine_buildx="required", changed=0)
    made.ok("--check", container_engine_buildx="required", changed=0)


def test_a_system_without_buildx_says_where_there_is_one(host):
    made = host("old-builder", "bookworm")
    made.refused("has no package with buildx", container_engine_name="docker", container_engine_buildx="required")
    assert made.sh("command -v dockerd", check=False) == ""
    made.ok("--check", container_engine_name="docker", groups_of=["aikit_builders"])


FOREIGN = '{\n    "features": {"containerd-snapshotter": true},\n    "log-opts": {"labels": "mine"},\n    "registry-mirrors": ["https://old.example"]\n}\n'
WISHES = {
    "container_engine_docker_live_restore": True,
    "container_engine_docker_log_max_size": "10m",
    "container_engine_docker_log_max_files": 3,
    "container_engine_registry_mirrors": ["https://mirror.example"],
    "container_engine_docker_settings": {"features": {"cdi": True}},
}


def started(made):
    return made.sh("docker inspect --format '{{.State.StartedAt}}' llama")


def daemon(made):
    return made.sh("pidof dockerd")


def test_settings_are_merged_and_services_come_back(host):
    made = host("settings")
    made.write(DAEMON_JSON, FOREIGN)
    made.sh(f"chmod 640 {DAEMON_JSON}")
    made.ok()
    assert made.sh(f"cat {DAEMON_JSON}") == FOREIGN.strip()
    made.sh(f"{IMAGE}; {START.format('llama', 'llama')}")
    before, pid = started(made), daemon(made)

    told = made.ok("--check", "--diff", **WISHES)
    assert told.changed and daemon(made) == pid and made.sh(f"cat {DAEMON_JSON}") == FOREIGN.strip()
    made.ok(**WISHES)
    # Restarted, for features.cdi and the log; live-restore came first, so the service went on
    assert daemon(made) != pid and started(made) == before
    assert json.loads(made.sh(f"cat {DAEMON_JSON}")) == {
        "features": {"containerd-snapshotter": True, "cdi": True},
        "log-opts": {"labels": "mine", "max-size": "10m", "max-file": "3"},
        "registry-mirrors": ["https://mirror.example"],
        "live-restore": True,
    }
    assert made.sh(f"stat -c %a {DAEMON_JSON}") == "640"
    assert made.sh(f"cat {DAEMON_JSON}.*~") == FOREIGN.strip()
    about = json.loads(made.sh("docker info --format '{{json .}}'"))
    assert about["DriverStatus"] == [["driver-type", "io.containerd.snapshotter.v1"]] and about["LiveRestoreEnabled"]
    assert about["RegistryConfig"]["Mirrors"] == ["https://mirror.example/"] and about["CDISpecDirs"]
    pid = daemon(made)
    made.ok(changed=0, **WISHES)
    assert daemon(made) == pid and len(made.sh(f"ls {DAEMON_JSON}*").split()) == 2

    # A reload is enough
    made.ok(**{**WISHES, "container_engine_registry_mirrors": ["https://other.example"]})
    assert daemon(made) == pid and "other.example" in made.sh("docker info")

    # Without live-restore the service stops with Docker, and comes back
    made.ok(container_engine_docker_live_restore=False, container_engine_docker_log_max_size="20m")
    assert daemon(made) != pid and started(made) != before
    assert made.sh("docker inspect --format '{{.State.Status}}' llama") == "running"

    # A container that would not come back, whosever it is, keeps Docker from its restart
    made.sh("docker run --detach --name foreign test:1 /usr/bin/sleep 100000")
    pid = daemon(made)
    run = made.ok(container_engine_docker_log_max_size="30m")
    assert "foreign would not come back" in run.output and daemon(made) == pid
    made.ok(changed=0, container_engine_docker_log_max_size="30m")
    assert daemon(made) == pid and made.sh("docker inspect --format '{{.State.Running}}' foreign") == "true"
    # The restart is owed until it may be
    made.sh("docker rm --force foreign")
    made.ok(container_engine_docker_log_max_size="30m")
    assert daemon(made) != pid

    # A service that stays away is told
    made.sh("docker run --detach --name lost --label io.aikit.fleet.service=lost test:1 /usr/bin/sleep 100000")
    made.refused("lost does not run again: docker logs says why", container_engine_docker_log_max_size="40m", container_engine_docker_restart="always")

    # Another folder would hide them all
    made.refused("it would see none of them", container_engine_data_root="/srv/docker")
    made.ok(container_engine_data_root="/var/lib/docker")


def test_what_docker_would_refuse_is_refused_first(host):
    made = host("refused")
    made.ok()
    pid = daemon(made)
    broken = '{\n  "debug": true\n  "dns": []\n}\n'
    made.write(DAEMON_JSON, broken)
    made.refused("is no JSON: line 3, column 3", container_engine_docker_live_restore=True)
    assert made.sh(f"cat {DAEMON_JSON}") == broken.strip()
    made.ok(changed=0)
    made.sh(f"rm {DAEMON_JSON}")
    made.refused("hosts cannot be set", container_engine_docker_settings={"hosts": ["fd://"]})
    made.refused("would not start with the new", container_engine_docker_settings={"debgu": True})
    made.refused("is older than 99", container_engine_minimum_version="99")
    made.refused("container_engine_nam is no variable", container_engine_nam="x")
    assert made.sh(f"ls {DAEMON_JSON}* 2>/dev/null", check=False) == "" and daemon(made) == pid
    # A folder of its own, where nothing is lost, and on a stopped Docker
    made.sh("systemctl stop docker.socket docker.service")
    made.ok(container_engine_data_root="/srv/docker")
    assert made.sh("docker info --format '{{.DockerRootDir}}'") == "/srv/docker"
    made.ok(container_engine_data_root="/srv/docker", changed=0)


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_podman_under_dockers_name(host, suite):
    made = host(f"alias-{suite}", suite)
    made.install("podman", "podman-docker", "crun", "dbus", "nftables", "iptables")
    made.sh("systemctl start podman.socket; systemd-tmpfiles --create podman-docker.conf || true")
    made.sh("test -S /run/docker.sock")
    run = made.ok(changed=0)
    assert run.results("Say which engine there is")[0]["ansible_facts"]["container_engine_facts"]["name"] == "podman"
    made.refused("docker on this host is Podman under another name", container_engine_name="docker")
    assert made.sh("dpkg-query -W -f '${db:Status-Abbrev}' podman-docker") == "ii"
    made.refused("is for Docker only", container_engine_docker_live_restore=True)

    # Overlay on the host's own overlay fails; this is a volume
    storage = "/var/lib/docker/podman"
    mirrors = ["https://mirror.example/hub", "http://10.0.0.1:5000"]
    assert made.ok("--check", container_engine_registry_mirrors=mirrors).changed == 1
    made.ok(container_engine_registry_mirrors=mirrors, container_engine_data_root=storage, changed=2)
    about = json.loads(made.sh("podman info --format json 2>/dev/null"))
    assert [mirror["Location"] for mirror in about["registries"]["docker.io"]["Mirrors"]] == ["mirror.example/hub", "10.0.0.1:5000"]
    assert about["store"]["graphRoot"] == storage
    made.ok(container_engine_registry_mirrors=mirrors, container_engine_data_root=storage, changed=0)
    made.ok(changed=1)
    assert "docker.io" not in json.loads(made.sh("podman info --format json 2>/dev/null"))["registries"]


def test_packages_of_docker_com(host, tmp_path):
    repository = docker_com.Repository(tmp_path)
    try:
        made = host("ce", "bookworm")
        wishes = {"container_engine_source": "docker", "container_engine_repository_url": repository.url}
        # Not the key that we know: nothing of it reaches apt
        made.refused("did not match 1500c1f5", **wishes)
        assert made.sh("ls /etc/apt/keyrings/docker.asc /etc/apt/sources.list.d/docker.sources 2>/dev/null", check=False) == ""
        wishes["container_engine_repository_key_sha256"] = repository.key_sha256
        # The distribution's containerd would be taken away, and with it what runs in it
        made.install("containerd")
        made.refused("containerd and runc of the distribution are installed: the one would remove the other", **wishes)
        made.sh("apt-get purge -y -qq containerd runc")
        made.ok("--check", **wishes, changed=2)
        assert made.sh("ls /etc/apt/keyrings/docker.asc 2>/dev/null", check=False) == ""
        made.ok(**wishes)
        installed = made.sh("dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' docker-ce containerd.io docker.io 2>/dev/null", check=False)
        assert [line.split()[1] for line in installed.splitlines() if line.startswith("ii")] == ["containerd.io", "docker-ce"]
        made.ok(**wishes, changed=0)
        # From elsewhere than asked for, and used as it is
        run = made.ok(container_engine_source="distribution", changed=0)
        assert "from docker.com, and is used as it is" in run.output
        # Half of it gone: the rest comes from where the other half is from
        made.sh("apt-get purge -y -qq docker-ce docker-ce-cli; rm -f /run/docker.sock; systemctl stop docker.socket || true")
        made.refused("containerd.io of docker.com is installed", container_engine_source="distribution", container_engine_name="docker")
        made.ok(**{**wishes, "container_engine_source": "auto"})
        made.sh("docker version")
    finally:
        repository.close()
