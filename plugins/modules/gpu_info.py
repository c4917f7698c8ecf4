#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Say which GPUs a host has, what drives them, and what is wrong with them
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
description:
  - Reads everything in one round trip, whether or not a driver is installed - the PCI devices and the kernel's own files,
    C(nvidia-smi) where the NVIDIA driver is loaded, the package manager, the CDI specifications, and the container engines.
  - Nothing but Python is needed on the host.
  - C(nvidia-smi) is killed when it does not answer in time, which becomes one of the RV(problems). It is not run at all where the
    NVIDIA driver is not loaded, for it would load it.
  - What is not known is V(null) or empty. Memory is never V(0).
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - Nothing is ever changed.
  diff_mode:
    description: Returns what changed.
    support: none
    details:
      - Nothing is ever changed.
  idempotent:
    description: A second run returns the same.
    support: full
options:
  timeout_seconds:
    description:
      - How long C(nvidia-smi) may take before it is killed.
    type: float
    default: 10
  root:
    description:
      - What stands for the root of the file system - an unpacked support bundle, a mounted disk, a test's tree.
      - With another folder than V(/) no program is run but those in its C(usr/bin), links in it lead to places in it, and the packages
        are read from its C(var/lib/dpkg/status) where there is one.
    type: path
    default: /
  previous:
    description:
      - GPUs that the host had before, as RV(gpus) of an earlier run. Those that are gone become one of the RV(problems).
      - Without it those that role P(aikit.fleet.nvidia_container_toolkit#role) remembered in C(/var/lib/aikit-fleet/host/gpus.json); an empty list
        compares with nothing.
    type: list
    elements: dict
notes:
  - Set C(become), else the kernel log may not be readable, and with it the GPU's errors; RV(host.kernel_log) says so.
  - The guide C(docs/gpus.md) explains every name of RV(problems).
seealso:
  - module: aikit.fleet.container_engine_info
"""

EXAMPLES = r"""
- name: Look at the GPUs
  aikit.fleet.gpu_info:
  become: true
  register: found

- name: Look again later, and see whether one is gone
  aikit.fleet.gpu_info:
    previous: "{{ found.gpus }}"
  become: true
  register: later

- name: Stop at a host whose GPUs cannot be relied upon
  ansible.builtin.assert:
    that: later.problems | selectattr('severity', 'eq', 'error') | length == 0
    fail_msg: "{{ later.problems | map(attribute='detail') | join(' ') }}"

- name: Look at what a support bundle says
  aikit.fleet.gpu_info:
    root: /srv/bundles/host1
"""

RETURN = r"""
gpus:
  description: The GPUs, by their PCI addresses.
  returned: success
  type: list
  elements: dict
  contains:
    index:
      description:
        - Its number, counted for each vendor as the vendor's tools count.
        - V(null) for a GPU that the loaded driver leaves out.
      returned: always
      type: int
      sample: 0
    vendor:
      description: V(nvidia), V(amd), V(intel) or V(apple).
      returned: always
      type: str
      sample: nvidia
    name:
      description: What its driver calls it, else the PCI id database, else a small table of this collection; may be empty.
      returned: always
      type: str
      sample: NVIDIA H100 80GB HBM3
    uuid:
      description: Its id, which stays with the card; empty without a driver.
      returned: always
      type: str
      sample: GPU-00002330-0000-4000-8000-00000000003b
    pci_bus_id:
      description: Its address as sysfs writes it; empty for Apple.
      returned: always
      type: str
      sample: "0000:3b:00.0"
    pci_id:
      description: Vendor and device.
      returned: always
      type: str
      sample: "10de:2330"
    driver_in_use:
      description: The kernel driver that has it - V(nvidia), V(nouveau), V(vfio-pci), V(amdgpu), another, or empty.
      returned: always
      type: str
      sample: nvidia
    memory_total_mib:
      description: Its memory; V(null) where it is not known, which is so without a driver. For unified memory the system's.
      returned: always
      type: int
      sample: 81559
    memory_free_mib:
      description: What of it is free.
      returned: always
      type: int
      sample: 80959
    compute_capability:
      description: NVIDIA's compute capability; empty for others.
      returned: always
      type: str
      sample: "9.0"
    architecture:
      description:
        - V(maxwell), V(pascal), V(volta), V(turing), V(ampere), V(ada), V(hopper), V(blackwell) or V(rubin).
        - Empty for other vendors and for what is older, or newer than this collection.
      returned: always
      type: str
      sample: hopper
    mig:
      description: How it is divided; V(null) where it cannot be, or without a driver.
      returned: always
      type: dict
      contains:
        current:
          description: V(enabled) or V(disabled).
          returned: always
          type: str
          sample: enabled
        pending:
          description: The same after the next reset.
          returned: always
          type: str
          sample: enabled
        devices:
          description: Its instances, each with C(index), C(profile), C(uuid), C(gpu_instance_id), C(compute_instance_id), C(memory_total_mib).
          returned: always
          type: list
          elements: dict
          sample:
            - index: 0
              profile: 3g.20gb
              uuid: MIG-000020b0-0000-5000-8000-000000000000
              gpu_instance_id: 1
              compute_instance_id: 0
              memory_total_mib: 19968
    virtualization:
      description:
        - How a virtual machine has it, as the driver says - V(none), V(pass-through), V(vgpu) for a part of one in a guest, V(host vgpu) and
          V(host vsga) on a host that hands parts out. Empty without a driver, and where it does not say.
      returned: always
      type: str
      sample: none
    unified_memory:
      description: Whether its memory is the system's.
      returned: always
      type: bool
      sample: false
    gfx:
      description: AMD's name of the instruction set; empty for others, and without a driver.
      returned: always
      type: str
      sample: ""
    open_modules:
      description: Whether NVIDIA's open kernel modules drive it - V(yes), V(no), or V(only) where no others do. V(null) for other vendors.
      returned: always
      type: str
      sample: "yes"
driver:
  description: The NVIDIA driver.
  returned: success
  type: dict
  contains:
    state:
      description:
        - V(loaded), or V(mismatch) where the loaded module, the libraries and the module on disk have different versions.
        - V(installed_not_loaded), V(absent), V(nouveau) where nouveau has a GPU, V(vfio) where all NVIDIA GPUs are set aside for virtual machines.
        - V(wsl) where the driver is that of Windows.
      returned: always
      type: str
      sample: loaded
    version:
      description: The version that is loaded; empty where none is.
      returned: always
      type: str
      sample: 580.159.03
    flavour:
      description: The kind of kernel modules, V(open) or V(proprietary); empty where it is not known.
      returned: always
      type: str
      sample: open
    cuda_version:
      description: The newest CUDA that the driver runs; empty where it is not loaded.
      returned: always
      type: str
      sample: "13.0"
    installed_version:
      description: The version that is installed, loaded or not.
      returned: always
      type: str
      sample: 580.159.03
    branch:
      description: The branch of what is loaded, else of what is installed; V(null) without a driver.
      returned: always
      type: int
      sample: 580
    source:
      description: Where it came from - V(nvidia_repository), V(distribution), V(runfile) or V(other); empty without a driver.
      returned: always
      type: str
      sample: nvidia_repository
    floor:
      description:
        - The first version of its branch without known vulnerabilities, or of the next branch that gets fixes.
        - Empty for a branch newer than all bulletins.
      returned: always
      type: str
      sample: 580.159.03
    below_floor:
      description: Whether it is older; V(null) without a driver, and in WSL.
      returned: always
      type: bool
      sample: false
    parts:
      description: The versions that should be one, of those parts that are there - C(loaded), C(library), C(module).
      returned: always
      type: dict
      sample: {loaded: 580.159.03, library: 580.159.03, module: 580.159.03}
    holders:
      description:
        - Processes that have the driver's device nodes open, each with C(pid), C(name) and the id of its C(container), empty outside of one.
          Another driver needs a reboot while there is one.
        - Without C(become), those of the user alone.
      returned: always
      type: list
      elements: dict
      sample:
        - pid: 4242
          name: llama-server
          container: 8a3c1f0d5be94b2f9ad1c2e55f8f1d4c7f3e9d6b5a4c3b2a1908f7e6d5c4b3a2
toolkit:
  description: The NVIDIA Container Toolkit.
  returned: success
  type: dict
  contains:
    version:
      description: Its version; empty where it is not there.
      returned: always
      type: str
      sample: 1.20.0
    below_floor:
      description: Whether it has known vulnerabilities.
      returned: always
      type: bool
      sample: false
    floor:
      description: The first version without them.
      returned: always
      type: str
      sample: 1.19.1
    packages:
      description: Its packages, with the package manager's versions.
      returned: always
      type: dict
      sample: {nvidia-container-toolkit: 1.20.0-1, nvidia-container-toolkit-base: 1.20.0-1}
cdi:
  description: What the specifications of the Container Device Interface offer.
  returned: success
  type: dict
  contains:
    devices:
      description: The names of the devices.
      returned: always
      type: list
      elements: str
      sample: [nvidia.com/gpu=0, nvidia.com/gpu=all]
    spec_version:
      description: The version that the specification of NVIDIA's GPUs follows, the newest of several; empty where there is none.
      returned: always
      type: str
      sample: 0.7.0
    files:
      description: The files.
      returned: always
      type: list
      elements: str
      sample: [/var/run/cdi/nvidia.yaml]
engines:
  description: The container engines that are there.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: V(docker), V(podman) or V(containerd).
      returned: always
      type: str
      sample: docker
    version:
      description: Its version, or that of its package where it does not answer.
      returned: always
      type: str
      sample: 29.3.0
    answers:
      description: Whether it answers; of containerd, whether someone listens at its socket.
      returned: always
      type: bool
      sample: true
    cdi:
      description: Whether it hands out CDI devices as it is configured.
      returned: always
      type: bool
      sample: true
    gpus_flag:
      description: Whether C(--gpus) works.
      returned: always
      type: bool
      sample: true
    cdi_spec_max:
      description: The newest CDI specification that it reads; empty where it reads none.
      returned: always
      type: str
      sample: 0.7.0
    rootless:
      description: Whether it runs without root's rights.
      returned: always
      type: bool
      sample: false
    problem:
      description: Why it does not answer; empty when it does.
      returned: always
      type: str
      sample: ""
host:
  description: What surrounds the GPUs.
  returned: success
  type: dict
  contains:
    secure_boot:
      description: Whether Secure Boot is on; V(null) where the firmware cannot be asked.
      returned: always
      type: bool
      sample: false
    kernel:
      description: The running kernel.
      returned: always
      type: str
      sample: 6.12.48+deb13-amd64
    headers:
      description: Whether the running kernel's headers are installed.
      returned: always
      type: bool
      sample: true
    kernels:
      description:
        - The kernels in C(/lib/modules), the oldest first.
        - C(image) tells a kernel that can boot from what a removed one left behind. C(nvidia_module) is the version of the module
          that waits for it, V(unknown) where it cannot be asked, and empty where there is none.
      returned: always
      type: list
      elements: dict
      sample:
        - release: 6.12.48+deb13-amd64
          headers: true
          image: true
          nvidia_module: 580.159.03
    fabric_manager:
      description:
        - Fabric Manager, which GPUs behind NVSwitch need. C(state) is what the GPUs say, C(nvlink5) tells Blackwell's NVSwitch.
      returned: always
      type: dict
      sample: {needed: false, nvlink5: false, installed: false, version: "", active: false, state: ""}
    os:
      description: The operating system, as os-release has it.
      returned: always
      type: dict
      sample:
        id: debian
        version_id: "13"
        pretty_name: Debian GNU/Linux 13 (trixie)
        id_like: []
        codename: trixie
        arch: x86_64
    service_manager:
      description: What starts services, V(systemd), V(sysvinit) or V(none).
      returned: always
      type: str
      sample: systemd
    wsl:
      description: Whether this is Linux in Windows.
      returned: always
      type: bool
      sample: false
    selinux:
      description: V(enforcing), V(permissive), V(disabled), or empty where the system has none.
      returned: always
      type: str
      sample: ""
    unattended_upgrades:
      description: Whether packages are upgraded without anyone asking.
      returned: always
      type: bool
      sample: false
    kernel_log:
      description: Whether the kernel log could be read.
      returned: always
      type: bool
      sample: true
    package_manager:
      description: V(dpkg), V(rpm) or empty.
      returned: always
      type: str
      sample: dpkg
    repositories:
      description: Names of the files that describe the package manager's repositories.
      returned: always
      type: list
      elements: str
      sample: [nvidia-container-toolkit.sources]
    packages:
      description: Installed packages of the driver, of what its modules are built with, and of its repositories, with the package manager's versions.
      returned: always
      type: dict
      sample: {nvidia-driver-cuda: 580.159.03-1, nvidia-kernel-open-dkms: 580.159.03-1, dkms: 3.2.2-1}
    unfinished_packages:
      description: Packages of them that dpkg began to change and did not finish, with the state that each was left in.
      returned: always
      type: dict
      sample: {nvidia-kernel-open-dkms: half-configured}
    initramfs_outdated:
      description: Whether the early file system of the next boot is older than the file that keeps nouveau from loading.
      returned: always
      type: bool
      sample: false
    held_packages:
      description: Those of them that are held.
      returned: always
      type: list
      elements: str
      sample: []
    pinned_packages:
      description: Those of them that apt's preferences, or dnf's versionlock, keep at the version that is installed.
      returned: always
      type: list
      elements: str
      sample: [nvidia-driver-cuda, nvidia-kernel-open-dkms]
    unattended_blacklist:
      description: Patterns of the names that C(unattended-upgrades) leaves alone.
      returned: always
      type: list
      elements: str
      sample: [^nvidia-, ^libnvidia-]
    persistence:
      description: NVIDIA's persistence daemon, C(installed) and C(active); V(null) where no systemd starts services.
      returned: always
      type: dict
      sample: {installed: true, active: true}
problems:
  description: What is wrong.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name, which stays.
      returned: always
      type: str
      sample: driver_mismatch
    detail:
      description: What was found.
      returned: always
      type: str
      sample: "The parts of the NVIDIA driver have different versions: loaded 580.126.09, library 580.159.03, module 580.159.03."
    hint:
      description: What to do about it.
      returned: always
      type: str
      sample: Reboot the host.
    severity:
      description: V(error) where the GPUs cannot be relied upon, V(warning) where they work all the same.
      returned: always
      type: str
      sample: error
"""

from ..module_utils._io.gpu_probe import observe
from ..module_utils._module import run_module

ARGUMENT_SPEC = {
    "timeout_seconds": {"type": "float", "default": 10},
    "root": {"type": "path", "default": "/"},
    "previous": {"type": "list", "elements": "dict"},
}


def work(module):
    return {"changed": False, **observe(module.params["root"], module.params["previous"], module.params["timeout_seconds"])}


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC)


if __name__ == "__main__":
    main()
