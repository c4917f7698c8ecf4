# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The test ground itself: what stands in for NVIDIA must behave like it, or the other tests prove nothing."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def host(gpu_host):
    return gpu_host("ground", nouveau=True)


def policy(host, package):
    lines = host.run("apt-cache", "policy", package).splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith("Candidate:"))


def test_a_new_host_has_a_card_and_nouveau(host):
    assert host.run("cat", f"{host.root}/sys/bus/pci/devices/0000:3b:00.0/vendor") == "0x10de"
    assert host.run("readlink", f"{host.root}/sys/bus/pci/devices/0000:3b:00.0/driver").endswith("/nouveau")
    assert "nouveau" in host.run("lsmod")


def test_the_driver_gets_in_with_a_reboot_and_an_initramfs(host):
    host.add_cuda_repository()
    host.apt("install", f"linux-headers-{host.kernel}", "nvidia-driver-pinning-580.159.03")
    assert policy(host, "nvidia-driver-cuda") == "580.159.03-1"
    host.apt("install", "nvidia-driver-cuda", "nvidia-kernel-open-dkms")
    assert host.run("modinfo", "-F", "version", "nvidia") == "580.159.03"
    assert "couldn't communicate" in host.run("nvidia-smi", check=False)
    before = host.run("cat", "/proc/sys/kernel/random/boot_id")
    host.reboot()
    assert host.run("cat", "/proc/sys/kernel/random/boot_id") != before
    assert "nouveau" in host.run("lsmod"), "the initramfs is not yet made anew"
    host.run("update-initramfs", "-u")
    host.reboot()
    assert host.run("nvidia-smi", "-L").startswith("GPU 0: NVIDIA H100")


def test_a_night_upgrade_ends_in_a_mismatch(host):
    host.apt("install", "unattended-upgrades")
    host.apt("install", "nvidia-driver-pinning-580")
    host.run("unattended-upgrade")
    assert policy(host, "nvidia-driver-cuda") == "580.178.04-1", "the pin keeps the branch"
    done = host.run("sh", "-c", "nvidia-smi; echo exit $?")
    assert "Driver/library version mismatch" in done and "exit 18" in done
    host.reboot()
    assert "580.178.04" in host.run("nvidia-smi")


def test_a_kernel_without_headers_gets_no_module(host):
    host.apt("install", f"linux-image-{host.upcoming_kernel}")
    assert "not found" in host.run("modinfo", "-k", host.upcoming_kernel, "nvidia", check=False)
    host.apt("install", f"linux-headers-{host.upcoming_kernel}")
    assert host.run("modinfo", "-k", host.upcoming_kernel, "-F", "version", "nvidia") == "580.178.04"


def test_a_build_that_fails_and_one_that_lies(host):
    host.control("module-build-fails")
    assert "Bad return status" in host.apt("install", "--reinstall", "nvidia-kernel-open-dkms", check=False)
    host.control("module-build-fails", None)
    host.run("dpkg", "--configure", "--pending")
    host.control("no-module")
    host.apt("install", "--reinstall", "nvidia-kernel-open-dkms")
    assert "not found" in host.run("modinfo", "nvidia", check=False)
    host.control("no-module", None)
    host.run("dkms", "autoinstall")


def test_a_hung_nvidia_smi_does_not_end(host):
    host.control("smi-hang")
    assert host.run("sh", "-c", "timeout --kill-after 1 1 nvidia-smi -L; echo exit $?").endswith("exit 137")
    host.control("smi-hang", None)


def test_unpinned_the_host_runs_away_to_the_newest_branch(host):
    host.apt("purge", "nvidia-driver-pinning-580")
    assert policy(host, "nvidia-driver-cuda") == "595.91.07-1"


def test_a_stranger_s_key_is_refused(host, nvidia_repo):
    key = (nvidia_repo.folder / "stranger.asc").read_text()
    host.write("/usr/share/keyrings/stranger.asc", key)
    host.write("/etc/apt/sources.list.d/wrong.list", f"deb [signed-by=/usr/share/keyrings/stranger.asc] {nvidia_repo.facts['toolkit']['url']} /\n")
    assert "not signed" in host.apt("update", check=False)
    host.run("rm", "/etc/apt/sources.list.d/wrong.list")


def test_the_toolkit_writes_the_specification_that_it_is_told_to(host, nvidia_repo):
    host.add_toolkit_repository()
    host.apt(
        "install",
        *(f"{name}=1.19.1-1" for name in ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")),
    )
    assert "nvidia.com/gpu=all" in host.run("nvidia-ctk", "cdi", "list")
    assert "cdiVersion: 0.7.0" in host.run("cat", "/var/run/cdi/nvidia.yaml")
    host.write("/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env", "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=no-additional-gids-for-device-nodes\n")
    host.run("systemctl", "restart", "nvidia-cdi-refresh.service")
    assert "cdiVersion: 0.5.0" in host.run("cat", "/var/run/cdi/nvidia.yaml")
