# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both roles with NVIDIA's own repositories: their names, addresses and files, over HTTPS, with keys and checksums that are pinned.

What answers to those names is the fixture, behind a CA that the host comes to trust. Of the collection itself only the checksum of the
keyring package is another one then: that of the fixture's.
"""

from __future__ import annotations

import json
import shutil

import lab
import pytest
import registries
import support
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_nvidia_driver, data_nvidia_toolkit
from conftest import PREFIX

NAMES = ("developer.download.nvidia.com", "nvidia.github.io")
DRIVER = {"role": "nvidia_driver", "nvidia_driver_state": "managed", "nvidia_driver_source": "nvidia_repository"}
TOOLKIT = {"role": "nvidia_container_toolkit", "nvidia_container_toolkit_state": "managed"}
SOURCE = "/etc/apt/sources.list.d/nvidia-container-toolkit.sources"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    found = lab.Repository(tmp_path_factory.mktemp("repositories") / "www", ("debian13",), told=f"https://{NAMES[0]}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def host(repository, tmp_path_factory):
    """It asks the fixture where it means to ask NVIDIA, and does not trust it yet."""
    folder = tmp_path_factory.mktemp("certificate")
    registries.make_certificate(folder, ",".join(f"DNS:{name}" for name in NAMES))
    # What the toolkit's repository needs is there: a refusal then changes nothing at all
    packages = ["podman", "crun", "nftables", "dbus", "gpg", "python3-debian"]
    found = lab.GpuHost(PREFIX + "nvidia-repositories", repository.facts, packages=packages)
    found.destroy()
    found.create()
    found.sh(f"echo 127.0.0.1 {' '.join(NAMES)} >>/etc/hosts")
    found.write("/etc/systemd/system/https.socket", "[Socket]\nListenStream=127.0.0.1:443\n")
    served = repository.secure(folder / "cert.pem", folder / "key.pem")
    found.write("/etc/systemd/system/https.service", f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {served}\n")
    found.sh("systemctl daemon-reload; systemctl start https.socket")
    found.write("/usr/local/share/ca-certificates/test.crt", (folder / "ca.pem").read_text())
    yield found
    found.destroy()


@pytest.fixture(scope="module")
def pinned(repository, tmp_path_factory):
    """The collection as it would be if NVIDIA had made the fixture's keyring package."""
    top = tmp_path_factory.mktemp("collections")
    copy = top / "ansible_collections/aikit/fleet"
    for name in ("plugins", "roles", "meta"):
        shutil.copytree(support.ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(support.ROOT / "galaxy.yml", copy)
    table = copy / "plugins/module_utils/_core/data_nvidia_driver.py"
    real = data_nvidia_driver.PLATFORMS[("debian", "13")].keyring_sha256
    text = table.read_text()
    assert text.count(real) == 1
    table.write_text(text.replace(real, repository.facts["cuda"]["debian13"]["keyring_sha256"]))
    return str(top)


@pytest.fixture
def role(host, tmp_path):
    (tmp_path / "role.yml").write_text(lab.ROLE_PLAY)

    def run(*arguments, collections="", **variables):
        inventory = host.inventory(tmp_path)
        extra = {"ANSIBLE_COLLECTIONS_PATH": collections} if collections else {}
        given = {**host.variables(), **variables}
        return support.playbook("role.yml", "-i", str(inventory), "-e", json.dumps(given), *arguments, cwd=tmp_path, **extra)

    return run


def snapshot(host):
    return host.sh("dpkg-query -W; find /etc /usr/share/keyrings /var/lib/aikit-fleet -type f 2>/dev/null | grep -v ld.so.cache | sort | xargs sha256sum")


def test_a_server_that_is_not_the_one_it_says_is_refused(role, host):
    before = snapshot(host)
    run = role(**DRIVER)
    assert run.failed == 1 and "certificate" in run.messages().lower(), run.output
    assert snapshot(host) == before
    host.sh("update-ca-certificates")


def test_a_keyring_package_with_another_checksum_is_refused(role, host, repository):
    before = snapshot(host)
    run = role(**DRIVER)
    assert run.failed == 1 and data_nvidia_driver.PLATFORMS[("debian", "13")].keyring_sha256 in run.messages(), run.output
    assert "/compute/cuda/repos/debian13/x86_64/cuda-keyring_1.1-1_all.deb" in repository.requests
    assert snapshot(host) == before


def test_a_driver_from_nvidia_s_repository(role, host, pinned):
    run = role(collections=pinned, **DRIVER)
    assert run.failed == 0, run.messages()
    assert host.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "cuda-keyring") == "installed"
    assert "580.178.04-1" in host.run("dpkg-query", "-W", "nvidia-driver-cuda") and "GPU 0" in host.run("nvidia-smi", "-L")
    # From where, and with which key
    (line,) = host.run("cat", "/etc/apt/sources.list.d/cuda-debian13-x86_64.list").splitlines()
    address = f"https://{NAMES[0]}/compute/cuda/repos/debian13/x86_64"
    assert line == f"deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] {address}/ /"
    assert address in host.run("apt-cache", "madison", "nvidia-driver-cuda")
    run = role("--diff", collections=pinned, **DRIVER)
    assert (run.failed, run.changed) == (0, 0), run.output


def test_a_key_of_the_toolkit_that_is_not_nvidia_s_is_refused(role, host, repository):
    before = snapshot(host)
    run = role(**TOOLKIT)
    assert run.failed == 1 and f"expected is {data_nvidia_toolkit.KEY_FINGERPRINT}" in run.messages(), run.output
    assert "/libnvidia-container/gpgkey" in repository.requests
    run = role(**TOOLKIT, nvidia_container_toolkit_key_sha256="0" * 64)
    assert run.failed == 1 and "checksum" in run.messages()
    assert snapshot(host) == before


def test_a_toolkit_from_nvidia_s_repository(role, host, repository):
    facts = repository.facts
    given = {
        **TOOLKIT,
        "nvidia_container_toolkit_key_fingerprint": facts["fingerprints"]["toolkit"],
        "nvidia_container_toolkit_key_sha256": facts["toolkit"]["key_sha256"],
    }
    run = role(**given)
    assert run.failed == 0, run.messages()
    source = host.run("cat", SOURCE)
    assert f"URIs: https://{NAMES[1]}/libnvidia-container/stable/deb/amd64" in source
    key = data_nvidia_toolkit.KEY_PATHS["apt"]
    assert f"Signed-By: {key}" in source and facts["toolkit"]["key_sha256"] in host.run("sha256sum", key)
    run = role("--diff", **given)
    assert (run.failed, run.changed) == (0, 0), run.output


def test_both_go_with_their_keys(role, host, pinned):
    for name, given in (("nvidia_container_toolkit", TOOLKIT), ("nvidia_driver", DRIVER)):
        run = role(collections=pinned, **{**given, f"{name}_state": "absent"})
        assert run.failed == 0, run.messages()
    left = host.sh("ls /etc/apt/sources.list.d /etc/apt/preferences.d /etc/apt/keyrings /usr/share/keyrings 2>/dev/null || true")
    assert "nvidia" not in left and "cuda" not in left
    assert "cuda-keyring" not in host.run("dpkg-query", "-W", "-f", "${Package}\n")
