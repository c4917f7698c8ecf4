# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role container_engine hands to the modules of systems that no test can be run on: every argument, written out."""

from __future__ import annotations

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.aikit.fleet.plugins.module_utils._core import container_engine as engine
from ansible_collections.aikit.fleet.plugins.module_utils._core.container_engine import Host, Probe, Wishes

CE = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "ca-certificates"]
SDK = ["python3-docker", "python3-requests"]


def observed(identity, version, codename="", name="docker", **wishes):
    release = {"ID": identity, "VERSION_ID": version, "VERSION_CODENAME": codename}
    host = Host(release, "systemd", True, "/usr/bin/python3", True, ("docker", "requests"))
    return engine.result(Wishes(name=name, **wishes), [Probe("docker", False), Probe("podman", False)], host)


def inputs(root, found):
    """(module, arguments) of every task that runs, in order."""
    path = root / f"roles/container_engine/tasks/install-{found['package_manager']}.yml"
    templar = Templar(loader=DataLoader(), variables={"__container_engine_observed": found})

    def render(value):
        if isinstance(value, dict):
            return {key: render(inner) for key, inner in value.items()}
        return templar.template(trust_as_template(value)) if isinstance(value, str) else value

    made = []
    for task in yaml.safe_load(path.read_text()):
        if "when" in task and not templar.evaluate_conditional(trust_as_template(task["when"])):
            continue
        assert task["become"] is True
        (module,) = [key for key in task if key.startswith("ansible.builtin.")]
        made.append((module, render(task[module])))
    return made


def dnf(name, **more):
    return ("ansible.builtin.dnf", {"name": name, **more, "lock_timeout": 300})


@pytest.mark.parametrize(
    ("identity", "version", "folder", "first"),
    [
        ("rhel", "9.6", "rhel/9", []),
        ("rhel", "10.1", "rhel/10", []),
        ("rocky", "9.7", "centos/9", ["epel-release"]),
        ("rocky", "10.1", "centos/10", ["epel-release"]),
        ("almalinux", "9.7", "centos/9", ["epel-release"]),
        ("almalinux", "10.1", "centos/10", ["epel-release"]),
    ],
)
def test_docker_on_red_hats_family(root, identity, version, folder, first):
    base = f"https://download.docker.com/linux/{folder.partition('/')[0]}"
    assert inputs(root, observed(identity, version)) == [
        ("ansible.builtin.rpm_key", {"key": f"{base}/gpg", "fingerprint": "060A61C51B558A7F742B77AAC52FEB6B621E9F35"}),
        (
            "ansible.builtin.yum_repository",
            {
                "name": "docker-ce-stable",
                "file": "docker-ce",
                "description": "Docker CE",
                "baseurl": f"https://download.docker.com/linux/{folder}/$basearch/stable",
                "gpgkey": f"{base}/gpg",
                "gpgcheck": True,
            },
        ),
        *([dnf(first)] if first else []),
        dnf([*CE, *SDK], install_weak_deps=False),
    ]


@pytest.mark.parametrize(("identity", "version"), [("rhel", "9.6"), ("rocky", "10.1"), ("almalinux", "9.7")])
def test_podman_on_red_hats_family(root, identity, version):
    assert inputs(root, observed(identity, version, name="podman")) == [dnf(["podman", "crun", "ca-certificates"], install_weak_deps=False)]


@pytest.mark.parametrize(("version", "codename"), [("22.04", "jammy"), ("24.04", "noble"), ("26.04", "resolute")])
def test_ubuntu(root, version, codename):
    def apt(packages):
        return ("ansible.builtin.apt", {"name": packages, "install_recommends": False, "update_cache": True, "lock_timeout": 300})

    assert inputs(root, observed("ubuntu", version, codename)) == [apt(["docker.io", "iptables", "ca-certificates", "apparmor", *SDK])]
    assert inputs(root, observed("ubuntu", version, codename, source="docker")) == [
        ("ansible.builtin.file", {"path": "/etc/apt/keyrings", "state": "directory", "mode": "0755"}),
        (
            "ansible.builtin.get_url",
            {
                "url": "https://download.docker.com/linux/ubuntu/gpg",
                "checksum": "sha256:1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570",
                "dest": "/etc/apt/keyrings/docker.asc",
                "mode": "0644",
            },
        ),
        (
            "ansible.builtin.copy",
            {
                "content": f"Types: deb\nURIs: https://download.docker.com/linux/ubuntu\nSuites: {codename}\nComponents: stable\n"
                "Signed-By: /etc/apt/keyrings/docker.asc\n",
                "dest": "/etc/apt/sources.list.d/docker.sources",
                "mode": "0644",
            },
        ),
        apt([*CE, "apparmor", *SDK]),
    ]
