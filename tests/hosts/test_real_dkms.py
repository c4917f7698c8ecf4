# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real nvidia module, built by a real DKMS for Debian's kernel: what gpu_info and role nvidia_driver find before a reboot is the thing itself.

The role installs Debian's own packages. A GPU before Turing and what a kernel does at boot are fake, all else is Debian's; the machine's own kernel
is another one, and DKMS builds for those that are installed. Seven to eight minutes on two cores. The proprietary module is taken: the open one of
Debian 13's first release (550.163.01-2) does not compile against the kernels that Debian 13 has since 6.12.107 (pci_resize_resource has an
argument more there).
"""

from __future__ import annotations

import json
import os
import subprocess

import lab
import pytest
import support
from ansible_collections.aikit.fleet.plugins.module_utils._core.host_checks import host_checks
from conftest import PREFIX
from test_nvidia_driver import PLAYBOOK, facts, good

KERNEL = """
export DEBIAN_FRONTEND=noninteractive
sed -i 's/ main$/ main contrib non-free non-free-firmware/' /etc/apt/sources.list
apt-get -q=2 update
apt-get -q=2 --yes --no-install-recommends install linux-image-amd64 initramfs-tools kmod
"""
WISHES = {"nvidia_driver_state": "managed", "nvidia_driver_source": "distribution", "nvidia_driver_allow": ["branch_ended", "below_floor"]}


@pytest.fixture(scope="module")
def host():
    """A plain Debian 13 that runs Debian's kernel, or so it says, and has no driver."""
    name = PREFIX + "dkms"
    found = lab.GpuHost(name, {"kernel": "", "upcoming_kernel": ""}, gpus=("v100",), nouveau=True)
    subprocess.run([str(support.ROOT / "tests/tools/host"), "create", name, "trixie"], check=True, stdout=subprocess.DEVNULL)
    found.sh(KERNEL)
    (found.kernel,) = found.run("ls", "/lib/modules").splitlines()
    found.play()
    found.run("systemctl", "start", "fake-nvidia-boot.service")
    yield found
    found.destroy()


@pytest.fixture
def role(host, tmp_path):
    (tmp_path / "driver.yml").write_text(PLAYBOOK)

    def run(*arguments, **variables):
        given = {"__nvidia_driver_root": host.root, **WISHES, **variables}
        command = ["driver.yml", "-i", str(host.inventory(tmp_path)), "-e", json.dumps(given), *arguments]
        # The compiler is all that it waits for
        return support.playbook(*command, cwd=tmp_path, timeout=3600)

    return run


def test_the_role_installs_debian_s_own_driver(role):
    run = good(role())
    found = facts(run)
    assert found["facts"]["source"] == "distribution" and found["facts"]["installed_version"].startswith("550.") and found["reboot"] is True
    assert good(role()).changed == 0


def observe(host):
    return host.module("aikit.fleet.gpu_info")


def test_dkms_made_a_module_for_a_kernel_that_does_not_run(host):
    (line,) = host.run("dkms", "status").splitlines()
    assert line.startswith("nvidia-current/550.") and line.endswith(": installed")
    release = line.split(", ")[1]
    assert release == host.kernel != os.uname().release
    (kernel,) = [entry for entry in observe(host)["host"]["kernels"] if entry["release"] == release]
    # Debian calls it nvidia-current.ko.xz
    version = host.sh(f"modinfo -k {release} -F version nvidia-current")
    assert kernel["headers"] and kernel["nvidia_module"] == version != ""


def test_the_driver_that_is_there_is_debian_s(host):
    driver = observe(host)["driver"]
    assert driver["state"] == "installed_not_loaded" and driver["source"] == "distribution" and driver["flavour"] == "proprietary"
    assert driver["installed_version"].startswith("550.") and driver["below_floor"], "a branch without fixes"


def test_a_reboot_into_a_kernel_that_has_the_module_is_let_through(role, host):
    run = good(role("--check", nvidia_driver_reboot="if_required"))
    (said,) = run.results("Say that the host would be rebooted")
    assert "would be rebooted" in said["msg"]


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


def test_a_reboot_into_a_kernel_that_gets_no_module_is_refused(role, host):
    # The role brings the headers, and this is a kernel for which DKMS builds nothing, and says that all is well
    host.write("/etc/dkms/nvidia-current.conf", 'BUILD_EXCLUSIVE_KERNEL="^[^c]*$"\n')
    newest = observe(host)["host"]["kernels"][-1]["release"]
    assert "cloud" in newest
    before = host.run("cat", "/proc/sys/kernel/random/boot_id")
    run = role(nvidia_driver_reboot="if_required")
    assert run.code != 0 and f"Kernel {newest} has no module of NVIDIA's driver" in run.messages(), run.output[-2000:]
    assert "A reboot now would leave the host without its GPU" in run.messages()
    assert host.run("cat", "/proc/sys/kernel/random/boot_id") == before
    # Without a reboot the driver would not work after the next one: no success either
    run = role()
    assert run.code != 0 and newest in run.messages(), run.output[-2000:]
    (kernel,) = [entry for entry in observe(host)["host"]["kernels"] if entry["release"] == newest]
    assert kernel["headers"] and kernel["nvidia_module"] == ""
