# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import container_engine as engine
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_container_engine as data
from ansible_collections.aikit.fleet.plugins.module_utils._core.container_engine import Host, Probe, Service, Wishes
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
            "Debian 10 is too old for docker to be installed. Known are: Debian 11 and newer, Ubuntu 22 and newer,"
            " RHEL, Rocky Linux and AlmaLinux 9 and newer.",
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


def test_python_packages_of_a_system_that_nobody_knows():
    with pytest.raises(AikitError, match="Fedora 44 has no recipe here. Install them by the system's own means"):
        engine.python_packages("docker", replace(HOST, os_release={"ID": "fedora", "PRETTY_NAME": "Fedora 44"}, missing_python_modules=("docker",)))


def system(identity, version, codename="", **more):
    return replace(HOST, os_release={"ID": identity, "VERSION_ID": version, "VERSION_CODENAME": codename, "PRETTY_NAME": f"{identity} {version}"}, **more)


DOCKER_IO = ["docker.io", "iptables", "ca-certificates"]
DOCKER_CE = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "ca-certificates"]
PODMAN_OLD = ["podman", "crun", "iptables", "dbus", "ca-certificates"]
DEB = "https://download.docker.com/linux/debian"
UBUNTU = "https://download.docker.com/linux/ubuntu"

# system, version, code name → Docker's packages of the distribution (None: it has none), Podman's, docker.com's repository (None: it has none)
SYSTEMS = [
    ("debian", "11", "bullseye", DOCKER_IO, PODMAN_OLD, f"URIs: {DEB}\nSuites: bullseye\n"),
    ("debian", "12", "bookworm", DOCKER_IO, PODMAN_OLD, f"URIs: {DEB}\nSuites: bookworm\n"),
    (
        "debian",
        "13",
        "trixie",
        ["docker.io", "docker-cli", "iptables", "ca-certificates"],
        ["podman", "crun", "nftables", "dbus", "ca-certificates"],
        f"URIs: {DEB}\nSuites: trixie\n",
    ),
    ("debian", "", "forky", ["docker.io", "docker-cli", "iptables", "ca-certificates"], ["podman", "crun", "nftables", "dbus", "ca-certificates"], None),
    ("ubuntu", "22.04", "jammy", DOCKER_IO, PODMAN_OLD, f"URIs: {UBUNTU}\nSuites: jammy\n"),
    ("ubuntu", "24.04", "noble", DOCKER_IO, PODMAN_OLD, f"URIs: {UBUNTU}\nSuites: noble\n"),
    ("ubuntu", "25.10", "questing", DOCKER_IO, PODMAN_OLD, None),
    ("ubuntu", "26.04", "resolute", DOCKER_IO, [*PODMAN_OLD, "nftables"], f"URIs: {UBUNTU}\nSuites: resolute\n"),
    ("rhel", "9.6", "", None, ["podman", "crun", "ca-certificates"], "https://download.docker.com/linux/rhel/9/$basearch/stable"),
    ("rhel", "10.0", "", None, ["podman", "crun", "ca-certificates"], "https://download.docker.com/linux/rhel/10/$basearch/stable"),
    ("rocky", "9.7", "", None, ["podman", "crun", "ca-certificates"], "https://download.docker.com/linux/centos/9/$basearch/stable"),
    ("rocky", "10.1", "", None, ["podman", "crun", "ca-certificates"], "https://download.docker.com/linux/centos/10/$basearch/stable"),
    ("almalinux", "9.7", "", None, ["podman", "crun", "ca-certificates"], "https://download.docker.com/linux/centos/9/$basearch/stable"),
    ("almalinux", "10.1", "", None, ["podman", "crun", "ca-certificates"], "https://download.docker.com/linux/centos/10/$basearch/stable"),
]


def virgin(name, host, **wishes):
    return engine.result(Wishes(name=name, **wishes), [NO_DOCKER, NO_PODMAN], host)


@pytest.mark.parametrize(("identity", "version", "codename", "docker", "podman", "address"), SYSTEMS)
def test_every_system(identity, version, codename, docker, podman, address):
    host = system(identity, version, codename)
    manager = "dnf" if docker is None else "apt"
    found = virgin("podman", host)
    assert (found["packages"], found["repository"], found["package_manager"]) == (podman, {}, manager)
    # The distribution's own where it has any
    if docker is None:
        assert virgin("auto", host)["packages"] == DOCKER_CE
        with pytest.raises(AikitError, match="ships no Docker of its own. Set container_engine_source to docker"):
            virgin("docker", host, source="distribution")
    else:
        assert virgin("auto", host) == virgin("docker", host, source="distribution")
        assert (virgin("auto", host)["packages"], virgin("auto", host)["repository"]) == (docker, {})
    if address is None:
        with pytest.raises(AikitError, match="docker.com has no packages for"):
            virgin("docker", host, source="docker")
        return
    found = virgin("docker", host, source="docker")
    assert found["packages"] == DOCKER_CE
    if manager == "apt":
        assert found["repository"] == {
            "manager": "apt",
            "key_url": address.split()[1] + "/gpg",
            "key_fingerprint": "9DC858229FC7DD38854AE2D88D81803C0EBFCD88",
            "key_sha256": "1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570",
            "key_file": "/etc/apt/keyrings/docker.asc",
            "file": "/etc/apt/sources.list.d/docker.sources",
            "content": f"Types: deb\n{address}Components: stable\nSigned-By: /etc/apt/keyrings/docker.asc\n",
        }
    else:
        assert found["repository"] == {
            "manager": "dnf",
            "key_url": address.partition(f"/{version.partition('.')[0]}/")[0] + "/gpg",
            "key_fingerprint": "060A61C51B558A7F742B77AAC52FEB6B621E9F35",
            "key_sha256": "",
            "name": "docker-ce-stable",
            "url": address,
        }


def test_a_mirror_of_docker_com():
    found = virgin("docker", system("debian", "12", "bookworm"), source="docker", repository_url="https://m.example/d/", repository_key_sha256="ab")
    assert found["repository"]["key_url"] == "https://m.example/d/gpg" and found["repository"]["key_sha256"] == "ab"
    assert "URIs: https://m.example/d\n" in found["repository"]["content"]
    found = virgin("docker", system("rocky", "9.7"), repository_url="https://m.example/d", repository_key_fingerprint="aa bb")
    assert found["repository"]["url"] == "https://m.example/d/9/$basearch/stable" and found["repository"]["key_fingerprint"] == "AABB"
    with pytest.raises(AikitError, match="container_engine_repository_url is no address: m.example"):
        virgin("docker", system("rocky", "9.7"), repository_url="m.example")


def test_epel_comes_first_where_it_brings_the_sdk():
    missing = {"missing_python_modules": ("docker", "requests")}
    assert virgin("docker", system("rocky", "9.7", **missing))["first_packages"] == ["epel-release"]
    assert virgin("docker", system("rocky", "9.7", packages={"epel-release": "9"}, **missing))["first_packages"] == []
    assert virgin("docker", system("rhel", "9.6", **missing))["first_packages"] == []
    assert virgin("docker", system("debian", "12", "bookworm", **missing))["first_packages"] == []
    assert virgin("podman", system("rocky", "9.7", **missing))["first_packages"] == []


def test_the_source_follows_what_is_there():
    # A host of Kubernetes with containerd from docker.com: the distribution's would remove it
    host = system("debian", "12", "bookworm", packages={"containerd.io": "2.1"})
    assert virgin("auto", host)["packages"] == DOCKER_CE
    with pytest.raises(AikitError) as caught:
        virgin("docker", host, source="distribution")
    assert str(caught.value).startswith("Docker would come from the distribution, and containerd.io of docker.com is installed")
    assert "Set container_engine_source to docker" in caught.value.hint


@pytest.mark.parametrize("installed", [["docker.io"], ["containerd", "runc"], ["docker.io", "containerd", "runc"]])
def test_no_docker_beside_the_distributions(installed):
    host = system("ubuntu", "24.04", "noble", packages=dict.fromkeys(installed, "1"))
    with pytest.raises(AikitError) as caught:
        virgin("docker", host, source="docker")
    assert " and ".join(installed) in str(caught.value) and "the one would remove the other" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packages": {"podman-docker": "5.4.2"}}, "podman-docker is installed: docker on this host is Podman under another name"),
        ({"snap": True}, "Docker is installed as a snap .* run snap remove docker"),
        ({"desktop": True}, "Docker Desktop is installed .* Remove the package docker-desktop"),
        ({"packages": {"docker-desktop": "4"}}, "Docker Desktop is installed"),
    ],
)
def test_what_no_docker_is_put_beside(changes, words):
    host = system("ubuntu", "24.04", "noble", **changes)
    with pytest.raises(AikitError, match=words):
        virgin("docker", host)
    # Podman stands beside all of them
    assert virgin("podman", host)["packages"] == PODMAN_OLD


def test_a_snap_that_answers_will_not_do():
    snap = replace(DOCKER, installed=False, root="/var/snap/docker/common/var-lib-docker")
    for packages in ({}, {"docker.io": "27"}):
        with pytest.raises(AikitError, match="snap remove docker"):
            engine.result(Wishes(), [snap, NO_PODMAN], system("ubuntu", "24.04", "noble", snap=True, packages=packages))
    # Another Docker beside an idle snap
    host = system("ubuntu", "24.04", "noble", snap=True, packages={"docker.io": "27"})
    assert engine.result(Wishes(), [replace(DOCKER, root="/var/lib/docker"), NO_PODMAN], host)["engine"]["source"] == "distribution"


def test_podman_behind_dockers_socket_is_podman():
    alias = replace(DOCKER, installed=False, version="5.4.2", product="Podman Engine")
    host = system("debian", "13", "trixie", packages={"podman": "5.4.2", "podman-docker": "5.4.2"})
    found = engine.result(Wishes(), [alias, PODMAN], host)
    assert (found["engine"]["name"], found["engine"]["source"], found["packages"]) == ("podman", "distribution", [])
    assert [finding["level"] for finding in found["findings"]] == ["note"]
    with pytest.raises(AikitError, match="podman-docker is installed"):
        engine.result(Wishes(name="docker"), [alias, PODMAN], host)


def test_docker_desktop_that_answers_is_used_and_named():
    found = engine.result(Wishes(), [replace(DOCKER, product="Docker Desktop 4.50.0"), NO_PODMAN], system("ubuntu", "24.04", "noble", desktop=True))
    assert (found["engine"]["source"], found["packages"]) == ("desktop", [])
    assert [finding["level"] for finding in found["findings"]] == ["warning"]
    with pytest.raises(AikitError, match="Docker Desktop reads no daemon.json"):
        engine.configuration(found, live_restore=True)
    assert not engine.configuration(found)["docker"]["wanted"]


def test_an_engine_from_elsewhere_is_used_as_it_is():
    host = system("debian", "12", "bookworm", packages={"docker.io": "20.10.24"})
    found = engine.result(Wishes(source="docker"), [DOCKER, NO_PODMAN], host)
    assert (found["engine"]["source"], found["packages"], found["repository"]) == ("distribution", [], {})
    assert "from the distribution, and is used as it is" in found["findings"][0]["message"]
    assert engine.result(Wishes(source="distribution"), [DOCKER, NO_PODMAN], host)["findings"] == []


@pytest.mark.parametrize(
    ("probe", "packages", "minimum", "words"),
    [
        (replace(DOCKER, version="19.03.15"), {}, "", "Docker 19.03.15 is older than 20.10, the oldest that will do. Update it by the means"),
        (replace(DOCKER, version="20.10.24+dfsg1"), {"docker.io": "1"}, "25.0", "apt-get install --only-upgrade docker.io"),
        (replace(DOCKER, version="27.5.1"), {"docker-ce": "1"}, "28", "apt-get install --only-upgrade docker-ce docker-ce-cli containerd.io"),
        (replace(PODMAN, version="2.2.1"), {}, "", "Podman 2.2.1 is older than 3.0"),
    ],
)
def test_an_engine_that_is_too_old(probe, packages, minimum, words):
    with pytest.raises(AikitError) as caught:
        engine.result(Wishes(name=probe.name, minimum_version=minimum), [probe], system("debian", "12", "bookworm", packages=packages))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("version", "minimum", "expected"),
    [("20.10.5", "", True), ("20.9.1", "", False), ("26.1.5+dfsg1", "26.1", True), ("26.1.5", "100", False), ("20.10", "1.0", True), ("19.3", "1.0", False)],
)
def test_new_enough(version, minimum, expected):
    assert engine.new_enough(replace(DOCKER, version=version), minimum) is expected


def test_auto_prefers_one_that_is_new_enough():
    assert engine.choose("auto", [replace(DOCKER, version="19.03"), PODMAN]) == PODMAN
    assert engine.choose("auto", [replace(DOCKER, version="19.03"), NO_PODMAN]).name == "docker"


def test_services_that_do_not_run_again():
    probe = replace(DOCKER, services=(Service("a", True), Service("b", False), Service("c", True)))
    found = engine.result(Wishes(expected_services=("a", "b", "d")), [probe, NO_PODMAN], HOST)
    assert (found["running_services"], found["services_down"]) == (["a", "c"], ["b", "d"])


def observed(name="docker", **changes):
    return {"engine": {"name": name, "source": "distribution", "data_root": "/var/lib/docker", "containers": 0, "images": 0, **changes}}


def test_nothing_is_set_that_nobody_asked_for():
    assert engine.configuration(observed())["docker"] == {"settings": {}, "absent": [], "wanted": False}
    assert engine.configuration(observed("podman"))["podman"]["mirrors"] == "" and engine.configuration(observed("podman"))["podman"]["storage"] == {}


def test_settings_of_docker():
    found = engine.configuration(
        observed(),
        data_root="/srv/docker",
        registry_mirrors=["https://m.example"],
        log_max_size="10m",
        log_max_files=3,
        live_restore=False,
        settings={"debug": True, "log-opts": {"max-size": "1m", "labels": "x"}},
        absent=["dns"],
    )["docker"]
    assert found == {
        "settings": {
            "data-root": "/srv/docker",
            "registry-mirrors": ["https://m.example"],
            # Docker wants text; the variable of its own wins
            "log-opts": {"max-size": "10m", "labels": "x", "max-file": "3"},
            "live-restore": False,
            "debug": True,
        },
        "absent": ["dns", "registry-mirrors"],
        "wanted": True,
    }


def test_settings_of_podman():
    mirrors = ["https://m.example/hub/", "http://n.example:5000"]
    found = engine.configuration(observed("podman", data_root=""), registry_mirrors=mirrors, data_root="/srv/c")["podman"]
    assert found["mirrors"] == (
        "# Written by aikit.fleet.container_engine: mirrors of Docker Hub\n"
        '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n\n'
        '[[registry.mirror]]\nlocation = "m.example/hub"\n\n'
        '[[registry.mirror]]\nlocation = "n.example:5000"\ninsecure = true\n'
    )
    assert found["storage"]["graphroot"] == '"/srv/c"'


@pytest.mark.parametrize(
    ("seen", "wishes", "words"),
    [
        (observed("podman"), {"live_restore": True}, "container_engine_docker_live_restore is set, and the engine of this host is Podman"),
        (observed("podman"), {"log_max_size": "1m"}, "container_engine_docker_log_max_size is set"),
        (observed(), {"registry_mirrors": ["m.example"]}, "holds m.example, which is no address"),
        (observed(), {"live_restore": True, "settings": {"live-restore": False}}, "sets live-restore, and so does a variable of its own"),
        (observed(), {"data_root": "srv"}, "It is a folder, from the root on"),
        (observed(images=2), {"data_root": "/srv"}, "Docker has 0 containers and 2 images in /var/lib/docker: .* rsync"),
        (observed("podman", data_root="/v", containers=1), {"data_root": "/srv"}, "Podman has 1 containers .* podman stop --all"),
    ],
)
def test_settings_that_cannot_be(seen, wishes, words):
    with pytest.raises(AikitError, match=words):
        engine.configuration(seen, **wishes)


def test_a_folder_may_change_where_nothing_is_lost():
    assert engine.configuration(observed(), data_root="/srv")["docker"]["wanted"]
    assert engine.configuration(observed(images=5), data_root="/var/lib/docker/")["docker"]["wanted"]
    assert engine.configuration(observed(data_root=""), data_root="/srv")["docker"]["wanted"]


def test_the_tables_know_each_other():
    assert set(data.FAMILY.values()) == set(data.PACKAGES) == set(data.MANAGER) == set(data.NAMES)
    assert set(data.DOCKER_REPOSITORIES) == set(data.FAMILY)


def test_result_of_a_working_engine_asks_for_nothing():
    # Nobody here knows how to install one on Fedora, and nobody has to
    result = engine.result(Wishes(), [DOCKER, NO_PODMAN], replace(HOST, os_release={"ID": "fedora"}))
    assert result["engine"] == {
        "name": "docker",
        "version": "26.1.5",
        "socket": "/var/run/docker.sock",
        "installed": True,
        "answers": True,
        "problem": "",
        "hint": "",
        "source": "",
        "minimum_version": "20.10",
        "data_root": "",
        "containers": 0,
        "images": 0,
    }
    assert result["packages"] == result["python_packages"] == []


def test_result_of_a_virgin_host():
    result = engine.result(Wishes(), [NO_DOCKER, NO_PODMAN], HOST)
    assert result["packages"] == ["docker.io", "iptables", "ca-certificates"]
    assert not result["engine"]["answers"] and result["engine"]["hint"]


def test_result_of_a_stopped_engine():
    result = engine.result(Wishes(), [STOPPED_DOCKER, NO_PODMAN], HOST)
    assert result["packages"] == [] and "systemctl start docker" in result["engine"]["hint"]


DISTRIBUTIONS = {"docker.io": "26.1.5"}
DOCKER_COMS = {"docker-ce": "29.0"}


@pytest.mark.parametrize(
    "host, wish, expected",
    [
        # Only asked for: a builder without the internet goes on with what it has
        (system("debian", "13", packages=DISTRIBUTIONS), "auto", []),
        (system("debian", "13", packages=DISTRIBUTIONS), "required", ["docker-buildx"]),
        (system("debian", "13", packages=DISTRIBUTIONS), "never", []),
        (system("debian", "13", packages=DISTRIBUTIONS, buildx=True), "required", []),
        (system("debian", "", packages=DISTRIBUTIONS), "required", ["docker-buildx"]),
        (system("ubuntu", "22.04", packages=DISTRIBUTIONS), "required", ["docker-buildx"]),
        (system("debian", "12", packages=DISTRIBUTIONS), "auto", []),
        (system("debian", "12", packages=DOCKER_COMS), "required", ["docker-buildx-plugin"]),
        (system("rocky", "9.7", packages=DOCKER_COMS), "required", ["docker-buildx-plugin"]),
        # Built by hand
        (system("debian", "13"), "auto", []),
    ],
)
def test_buildx_is_added_to_a_docker_that_is_there(host, wish, expected):
    assert engine.result(Wishes(buildx=wish, builds=True), [DOCKER, NO_PODMAN], host)["packages"] == expected


def test_buildx_comes_with_a_docker_that_is_installed():
    assert virgin("docker", system("debian", "13"), buildx="auto", builds=True)["packages"][-1] == "docker-buildx"
    assert virgin("docker", system("debian", "12"), buildx="auto", builds=True)["packages"] == DOCKER_IO
    # A host that builds nothing needs none
    assert "docker-buildx" not in virgin("docker", system("debian", "13"), buildx="auto")["packages"]
    # docker.com's own list has it once
    assert virgin("docker", system("rocky", "9.7"), buildx="required")["packages"] == DOCKER_CE
    assert "docker-buildx" not in virgin("podman", system("debian", "13"), buildx="auto", builds=True)["packages"]


@pytest.mark.parametrize(
    "probes, host, words",
    [
        ([DOCKER, NO_PODMAN], system("debian", "12", packages=DISTRIBUTIONS), "debian 12 has no package with buildx. docker.com has one"),
        ([NO_DOCKER, NO_PODMAN], system("debian", "12"), "debian 12 has no package with buildx"),
        ([DOCKER, NO_PODMAN], system("fedora", "44"), "which package of fedora 44 brings it is not known"),
        ([DOCKER, NO_PODMAN], system("fedora", "44", packages=DOCKER_COMS), "which package of fedora 44 brings it is not known"),
        ([NO_DOCKER, PODMAN], system("debian", "13"), "its engine is Podman"),
    ],
)
def test_buildx_that_nobody_has_is_an_error_where_it_is_required(probes, host, words):
    with pytest.raises(AikitError, match=words):
        engine.result(Wishes(buildx="required"), probes, host)
