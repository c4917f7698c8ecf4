# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import container_engine as engine
from ansible_collections.aikit.fleet.plugins.module_utils._core.container_engine import Host, Probe
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

BOOKWORM = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
HOST = Host(BOOKWORM, "systemd", False, "/usr/bin/python3", True, ())

NO_DOCKER = Probe("docker", False, problem="/var/run/docker.sock does not exist")
STOPPED_DOCKER = Probe("docker", True, "", "/var/run/docker.sock", "/var/run/docker.sock does not exist")
DOCKER = Probe("docker", True, "26.1.5", "/var/run/docker.sock")
NO_PODMAN = Probe("podman", False)
PODMAN = Probe("podman", True, "5.4.2")


def test_os_release():
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n# ID=other\nVERSION_ID="12"\nEMPTY=\nlower=1\nnonsense\n'
    assert engine.parse_os_release(text) == {**BOOKWORM, "EMPTY": ""}


@pytest.mark.parametrize(
    ("wanted", "probes", "expected"),
    [
        ("auto", [DOCKER, PODMAN], DOCKER),
        ("auto", [NO_DOCKER, PODMAN], PODMAN),
        ("auto", [STOPPED_DOCKER, PODMAN], PODMAN),
        ("auto", [STOPPED_DOCKER, NO_PODMAN], STOPPED_DOCKER),
        ("auto", [NO_DOCKER, NO_PODMAN], NO_DOCKER),
        ("docker", [NO_DOCKER, PODMAN], NO_DOCKER),
        ("podman", [DOCKER, NO_PODMAN], NO_PODMAN),
    ],
)
def test_choice(wanted, probes, expected):
    assert engine.choose(wanted, probes) == expected


@pytest.mark.parametrize(
    ("os_release", "name", "expected"),
    [
        ({"ID": "debian", "VERSION_ID": "11"}, "docker", ("docker.io", "iptables", "ca-certificates")),
        (BOOKWORM, "docker", ("docker.io", "iptables", "ca-certificates")),
        ({"ID": "debian", "VERSION_ID": "13"}, "docker", ("docker.io", "docker-cli", "iptables", "ca-certificates")),
        ({"ID": "debian"}, "docker", ("docker.io", "docker-cli", "iptables", "ca-certificates")),
        ({"ID": "ubuntu", "VERSION_ID": "24.04"}, "docker", ("docker.io", "iptables", "ca-certificates")),
        ({"ID": "debian", "VERSION_ID": "13"}, "podman", ("podman", "crun", "nftables", "dbus", "ca-certificates")),
    ],
)
def test_packages(os_release, name, expected):
    assert engine.packages(name, replace(HOST, os_release=os_release)) == expected


def test_apparmor_is_needed_where_the_kernel_has_it_on():
    assert "apparmor" in engine.packages("docker", replace(HOST, apparmor=True))
    assert "apparmor" not in engine.packages("podman", replace(HOST, apparmor=True))


@pytest.mark.parametrize(
    ("os_release", "message"),
    [
        ({"ID": "fedora", "PRETTY_NAME": "Fedora Linux 44"}, "Fedora Linux 44 has no recipe here for docker. Install docker there by its own means"),
        # Its versions are not Ubuntu's
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian", "VERSION_ID": "22"}, "linuxmint has no recipe"),
        ({}, "An unknown system has no recipe"),
        (
            {"ID": "debian", "VERSION_ID": "10", "PRETTY_NAME": "Debian 10"},
            "Debian 10 is too old for docker to be installed. Known are: Debian 11 and newer, Ubuntu 22 and newer.",
        ),
    ],
)
def test_systems_without_a_recipe(os_release, message):
    with pytest.raises(AikitError) as caught:
        engine.packages("docker", replace(HOST, os_release=os_release))
    assert str(caught.value).startswith(message)


def test_python_packages():
    host = replace(HOST, missing_python_modules=("docker", "requests"))
    assert engine.python_packages("docker", host) == ("python3-docker", "python3-requests")
    assert engine.python_packages("podman", host) == ()
    assert engine.python_packages("docker", HOST) == ()
    with pytest.raises(AikitError, match="/venv/bin/python lacks the Python package docker and requests. /venv/bin/python -m pip install docker requests"):
        engine.python_packages("docker", replace(host, python="/venv/bin/python", python_is_systems=False))


@pytest.mark.parametrize(
    ("name", "manager", "words"),
    [
        ("docker", "systemd", "systemctl start docker"),
        ("docker", "sysvinit", "service docker start"),
        ("docker", "none", "dockerd"),
        ("podman", "systemd", "podman info"),
    ],
)
def test_hints(name, manager, words):
    assert words in engine.start_hint(name, manager)


def test_result_of_a_working_engine_asks_for_nothing():
    # Nobody here knows how to install one on Fedora, and nobody has to
    result = engine.result("auto", [DOCKER, NO_PODMAN], replace(HOST, os_release={"ID": "fedora"}))
    assert result["engine"] == {
        "name": "docker",
        "version": "26.1.5",
        "socket": "/var/run/docker.sock",
        "installed": True,
        "answers": True,
        "problem": "",
        "hint": "",
    }
    assert result["packages"] == result["python_packages"] == []


def test_result_of_a_virgin_host():
    result = engine.result("auto", [NO_DOCKER, NO_PODMAN], HOST)
    assert result["packages"] == ["docker.io", "iptables", "ca-certificates"]
    assert not result["engine"]["answers"] and result["engine"]["hint"]


def test_result_of_a_stopped_engine():
    result = engine.result("auto", [STOPPED_DOCKER, NO_PODMAN], HOST)
    assert result["packages"] == [] and "systemctl start docker" in result["engine"]["hint"]
