# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real nvidia module, built by a real DKMS for Debian's kernel: what gpu_info finds before a reboot is the thing itself, not a fixture.

The machine's own kernel is another one, and a host in a container boots none: DKMS builds for the kernels that are installed.
Four to five minutes on two cores. The proprietary module is taken: the open one of Debian 13's first release (550.163.01-2) does not
compile against the kernels that Debian 13 has since 6.12.107 (pci_resize_resource has an argument more there).
"""

from __future__ import annotations

import os
import subprocess

import lab
import pytest
import support
from ansible_collections.aikit.fleet.plugins.module_utils._core.host_checks import host_checks
from conftest import PREFIX

INSTALL = """
export DEBIAN_FRONTEND=noninteractive
sed -i 's/ main$/ main contrib non-free non-free-firmware/' /etc/apt/sources.list
apt-get -q=2 update
apt-get -q=2 --yes --no-install-recommends install linux-headers-amd64 linux-image-amd64 dkms
apt-get -q=2 --yes --no-install-recommends install nvidia-kernel-dkms nvidia-smi
"""


@pytest.fixture(scope="module")
def host():
    """A plain Debian 13, with Debian's own driver."""
    name = PREFIX + "dkms"
    found = lab.GpuHost(name, {"kernel": os.uname().release, "upcoming_kernel": ""})
    subprocess.run([str(support.ROOT / "tests/tools/host"), "create", name, "trixie"], check=True, stdout=subprocess.DEVNULL)
    found.sh(INSTALL)
    yield found
    found.destroy()


def observe(host):
    return host.module("aikit.fleet.gpu_info")


def test_dkms_made_a_module_for_a_kernel_that_does_not_run(host):
    (line,) = host.run("dkms", "status").splitlines()
    assert line.startswith("nvidia-current/550.") and line.endswith(": installed")
    release = line.split(", ")[1]
    assert release != host.kernel
    (kernel,) = [entry for entry in observe(host)["host"]["kernels"] if entry["release"] == release]
    # Debian calls it nvidia-current.ko.xz
    version = host.sh(f"modinfo -k {release} -F version nvidia-current")
    assert kernel["headers"] and kernel["nvidia_module"] == version != ""


def test_the_driver_that_is_there_is_debian_s(host):
    driver = observe(host)["driver"]
    assert driver["state"] == "installed_not_loaded" and driver["source"] == "distribution" and driver["flavour"] == "proprietary"
    assert driver["installed_version"].startswith("550.") and driver["below_floor"], "a branch without fixes"


def test_a_kernel_without_headers_is_found_before_a_reboot(host):
    host.apt("install", "linux-image-cloud-amd64")
    found = observe(host)
    newest = found["host"]["kernels"][-1]
    assert "cloud" in newest["release"] and not newest["headers"] and newest["nvidia_module"] == ""
    # The card is all that is missing here
    found["gpus"] = [{"vendor": "nvidia", "name": "NVIDIA H100", "pci_bus_id": "0000:3b:00.0"}]
    checks = {check["name"]: check for check in host_checks(found, {}, {"gpus": True})}
    assert not checks["kernel headers"]["ok"] and newest["release"] in checks["kernel headers"]["detail"]
    assert not checks["next kernel"]["ok"] and "after a reboot the GPUs are gone" in checks["next kernel"]["detail"]
