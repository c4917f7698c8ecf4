# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_gpu, data_nvidia, drain
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_nvidia_driver as data
from ansible_collections.aikit.fleet.plugins.module_utils._core import nvidia_driver as driver
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

GPUS = {
    "maxwell": ("Tesla M60", "13f2", "maxwell"),
    "pascal": ("Tesla P40", "1b38", "pascal"),
    "volta": ("Tesla V100-PCIE-32GB", "1db6", "volta"),
    "turing": ("Tesla T4", "1eb8", "turing"),
    "ampere": ("NVIDIA A100-SXM4-80GB", "20b2", "ampere"),
    "ada": ("NVIDIA L40S", "26b9", "ada"),
    "hopper": ("NVIDIA H100 80GB HBM3", "2330", "hopper"),
    "grace hopper": ("NVIDIA GH200 480GB", "2342", "hopper"),
    "blackwell": ("NVIDIA B200", "2901", "blackwell"),
    "unknown new": ("NVIDIA Device 4001", "4001", ""),
}
OLD = {"maxwell", "pascal", "volta"}
OPEN_ONLY = {"grace hopper", "blackwell", "unknown new"}
SYSTEMS = sorted(data.PLATFORMS)
KERNELS = {"ubuntu": "6.8.0-45-generic", "debian": "6.12.41+deb13-amd64", "rhel": "5.14.0-570.12.1.el9_6.x86_64"}


def gpu(kind, in_use=""):
    name, device, architecture = GPUS[kind]
    return {"vendor": "nvidia", "name": name, "pci_id": f"10de:{device}", "architecture": architecture, "driver_in_use": in_use}


def host(system=("debian", "13"), arch="x86_64", **more):
    identity, version = system
    name = data.PLATFORMS[system].name if system in data.PLATFORMS else identity
    # RHEL and its kin have minor versions
    full = f"{version}.4" if identity in ("rhel", "rocky", "almalinux") else version
    return {
        "secure_boot": None,
        "kernel": KERNELS.get(identity, KERNELS["rhel"]),
        "kernels": [],
        "packages": {},
        "fabric_manager": {"needed": False, "version": ""},
        "os": {"id": identity, "version_id": full, "pretty_name": name, "arch": arch},
        "wsl": False,
        **more,
    }


NONE = {"state": "absent", "version": "", "installed_version": "", "flavour": "", "source": ""}


def loaded(version="580.159.03", flavour="open", source="nvidia_repository", state="loaded"):
    return {"state": state, "version": version, "installed_version": version, "flavour": flavour, "source": source}


def info(gpus=("hopper",), found=None, on=None, engines=()):
    cards = [gpu(kind) if isinstance(kind, str) else kind for kind in gpus]
    return {"gpus": cards, "driver": found or NONE, "host": on or host(), "engines": list(engines), "problems": [], "toolkit": {"version": ""}}


def names(refusals):
    return [refusal["name"] for refusal in refusals]


def madison(plan, *versions, tail="-1"):
    return "\n".join(f" {name} | {version}{tail} | http://mirror Packages" for name in plan["query"] for version in versions)


def parts(plan):
    """The packages of the driver among those that the package manager is asked for."""
    return [name for name in plan["query"] if name not in plan["headers_packages"]]


def offers(plan, *versions, held="", apt=True):
    if apt:
        return {"candidates": madison(plan, *versions), "held": held}
    return {"candidates": "\n".join(f"{name} 3:{version}-1.el9" for name in plan["query"] for version in versions), "held": held}


# --- every system, every generation, every wish --------------------------------------------------------------------

WISHES = {
    "auto": {},
    "580": {"branch": "580"},
    "595": {"branch": "595"},
    "620": {"branch": "620"},
    "open": {"flavour": "open"},
    "proprietary": {"flavour": "proprietary"},
    "distribution": {"source": "distribution"},
    "mirror": {"source": "mirror", "mirror_url": "https://mirror.example/nvidia"},
}
MIXES = [(kind,) for kind in GPUS] + [("volta", "turing"), ("pascal", "hopper"), ("volta", "blackwell"), ("hopper", "blackwell")]
DRIVERS = {
    "none": NONE,
    "nouveau": {**NONE, "state": "nouveau"},
    "good": loaded(),
    "old": loaded("535.104.05", "proprietary"),
    "runfile": loaded("570.86.15", "open", "runfile"),
}


@pytest.mark.parametrize("system", SYSTEMS, ids="-".join)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_whatever_is_wished_no_host_is_broken(system, arch):
    for mix, wish, (name, found), secure, state in itertools.product(MIXES, WISHES, DRIVERS.items(), (None, True), ("ensure", "managed")):
        case = f"{mix} {wish} {name} {secure} {state}"
        facts = info(mix, found, host(system, arch, secure_boot=secure))
        before = deepcopy(facts)
        plan = driver.plan(facts, {"state": state, **WISHES[wish]})
        assert facts == before, "a plan changes nothing"
        assert json.loads(json.dumps(plan)) == plan, case
        assert plan["reason"], case
        if plan["action"] == "refuse":
            assert plan["refusals"] and not plan["change"] and not plan["configure"] and not plan["packages"], case
            assert all(refusal["detail"] and refusal["hint"] for refusal in plan["refusals"]), case
            continue
        if state == "ensure" and found["state"] == "loaded":
            assert plan["action"] == "none" and not plan["configure"], case
            continue
        check_driver(plan, set(mix), data.PLATFORMS[system], arch, case, secure, found)


def check_driver(plan, kinds, system, arch, case, secure, found):
    if kinds & OLD:
        assert plan["branch"] <= 580 and plan["flavour"] == "proprietary", case
    if kinds & OPEN_ONLY:
        assert plan["flavour"] == "open", case
    if kinds & {"blackwell", "unknown new"}:
        assert plan["branch"] >= 570, case
    assert not (kinds & OLD and kinds & OPEN_ONLY), case
    if plan["action"] == "none":
        return
    assert plan["packages"] and not any("{" in package for package in plan["packages"]), case
    assert plan["flavour"] in data.BRANCHES[plan["branch"]].flavours, case
    assert plan["nouveau"]["content"] and plan["persistence"]["content"] and plan["steps"], case
    kind = plan["repository"]["kind"]
    if plan["source"] == "distribution":
        assert kind == "none", case
    else:
        text = json.dumps(plan["repository"])
        folder = {"x86_64": "x86_64", "aarch64": "sbsa"}[arch]
        assert f"/{system.key}/{folder}" in text or "mirror.example" in text, case
        assert system.apt == (kind != "rpm"), case
        assert kind != "rpm" or plan["repository"]["fingerprint"] == data.RPM_KEY_FINGERPRINT, case
        assert kind == "rpm" or system.keyring_sha256 in text, case
    if system.apt:
        assert plan["pin"]["kind"] == "preferences" and f"Pin: version {plan['branch']}." in plan["pin"]["content"], case
        assert all(name in plan["unattended_upgrades"]["content"] for name in ('"^nvidia-"', '"^libnvidia-"')), case
    if secure and found["state"] != "loaded":
        assert (system.family, plan["source"]) in data.SIGNED_SOURCES, case
    if found.get("source"):
        assert plan["source"] == found["source"] or " distribution " in case or " mirror " in case, case


@pytest.mark.parametrize("system", SYSTEMS, ids="-".join)
@pytest.mark.parametrize("state", ["loaded", "mismatch", "installed_not_loaded"])
@pytest.mark.parametrize("source", ["nvidia_repository", "distribution", "runfile", "other", ""])
def test_ensure_never_touches_a_driver_that_is_there(system, state, source):
    on = host(system, kernels=[{"release": "9", "nvidia_module": "570.1"}])
    for wish in WISHES.values():
        plan = driver.plan(info(("ampere",), loaded("570.1", "open", source, state), on), {"state": "ensure", **wish})
        assert plan["action"] == "none" and not plan["change"] and not plan["configure"]


# --- one line for each system ----------------------------------------------------------------------------------------

EXPECTED = {
    ("ubuntu", "22.04"): (580, ["nvidia-headless-no-dkms-580-open", "nvidia-dkms-580-open", "nvidia-utils-580"], ["linux-headers-generic-hwe-22.04"], ""),
    ("ubuntu", "24.04"): (580, ["nvidia-headless-no-dkms-580-open", "nvidia-dkms-580-open", "nvidia-utils-580"], ["linux-headers-generic"], ""),
    ("ubuntu", "26.04"): (595, ["nvidia-headless-no-dkms-open", "nvidia-dkms-open"], ["linux-headers-generic"], ""),
    ("debian", "12"): (580, ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"], ["linux-headers-amd64"], ""),
    ("debian", "13"): (580, ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"], ["linux-headers-amd64"], ""),
    ("rhel", "9"): (
        580,
        ["nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced"],
        ["kernel-devel-matched", "kernel-headers"],
        "nvidia-driver:580-open",
    ),
    ("rhel", "10"): (580, ["nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced"], ["kernel-devel-matched", "kernel-headers"], ""),
}


@pytest.mark.parametrize("system", EXPECTED, ids="-".join)
def test_what_a_host_with_an_h100_gets(system):
    plan = driver.plan(info(on=host(system)), {"state": "managed"})
    assert (plan["branch"], plan["packages"], plan["headers_packages"], plan["module_stream"]) == EXPECTED[system]
    assert (plan["action"], plan["flavour"], plan["source"], plan["prerequisites"]) == ("install", "open", "nvidia_repository", [])


@pytest.mark.parametrize("clone", ["rocky", "almalinux"])
def test_clones_of_rhel_get_the_same_and_epel(clone):
    for version in ("9", "10"):
        plan = driver.plan(info(on=host((clone, version))), {"state": "managed"})
        other = driver.plan(info(on=host(("rhel", version))), {"state": "managed"})
        assert plan["prerequisites"] == ["epel-release"]
        assert {**plan, "prerequisites": [], "steps": []} == {**other, "prerequisites": [], "steps": []}


PROPRIETARY = {
    ("ubuntu", "24.04"): ["nvidia-headless-no-dkms-580", "nvidia-dkms-580", "nvidia-utils-580"],
    # NVIDIA publishes no 580 there
    ("ubuntu", "26.04"): [
        "nvidia-headless-no-dkms-580-server",
        "nvidia-utils-580-server",
        "nvidia-compute-utils-580-server",
        "linux-modules-nvidia-580-server-generic",
    ],
    ("debian", "13"): ["nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-persistenced"],
    ("rocky", "9"): ["nvidia-driver-cuda", "kmod-nvidia-latest-dkms", "nvidia-persistenced"],
    ("almalinux", "10"): ["nvidia-driver-cuda", "kmod-nvidia-latest-dkms", "nvidia-persistenced"],
}


@pytest.mark.parametrize("system", PROPRIETARY, ids="-".join)
def test_what_a_host_with_a_v100_gets(system):
    plan = driver.plan(info(("volta",), on=host(system)), {"state": "managed"})
    assert (plan["branch"], plan["flavour"], plan["packages"]) == (580, "proprietary", PROPRIETARY[system])


def test_a_module_of_dnf_names_branch_and_flavour():
    assert driver.plan(info(("pascal",), on=host(("rocky", "9"))), {})["module_stream"] == "nvidia-driver:580-dkms"
    assert driver.plan(info(on=host(("rocky", "9"))), {"branch": "595"})["module_stream"] == "nvidia-driver:595-open"


def test_the_distributions_own():
    plan = driver.plan(info(on=host(("debian", "13"))), {"source": "distribution", "allow": ["branch_ended"]})
    assert plan["branch"] == 550 and plan["repository"] == {"kind": "none"}
    assert plan["packages"] == ["libcuda1", "nvidia-smi", "nvidia-open-kernel-dkms", "firmware-nvidia-gsp", "nvidia-persistenced", "nvidia-modprobe"]
    # The firmware belongs to either kind of modules: taken out, it would take Debian's proprietary ones with it
    there = {name: "550.144.03-1" for name in ("libcuda1", "nvidia-smi", "nvidia-kernel-dkms", "firmware-nvidia-gsp")}
    found = loaded("550.144.03", "proprietary", "distribution")
    given = {"state": "managed", "version": "550.163.01", "allow": ["branch_ended", "below_floor"]}
    plan = driver.plan(info(("volta",), found, host(("debian", "13"), packages=there)), given)
    assert plan["action"] == "upgrade" and plan["remove_packages"] == [] and set(there) <= set(plan["packages"])
    plan = driver.plan(info(on=host(("almalinux", "9"))), {"source": "distribution"})
    assert plan["packages"] == ["nvidia-driver-cuda", "nvidia-open-kmod"] and plan["prerequisites"] == ["almalinux-release-nvidia-driver"]


@pytest.mark.parametrize(("system", "version"), [(("debian", "12"), "535.261.03"), (("debian", "13"), "550.163.01")])
def test_a_driver_that_has_no_fixes_in_its_archive_is_installed_once(system, version):
    """A second run would stop the services for the same version."""
    found = loaded(version, "proprietary", "distribution")
    given = {"state": "managed", "source": "distribution", "allow": ["branch_ended", "below_floor"]}
    plan = driver.plan(info(("volta",), found, host(system)), given)
    assert plan["action"] == "none" and list(names(plan["problems"])).count("below_floor") == 1
    # Also where the version is wished for
    wished = driver.plan(info(("volta",), found, host(system)), {**given, "version": version})
    assert wished["action"] == "none" and list(names(wished["problems"])).count("below_floor") == 1
    plan = driver.plan(info(("volta",), found, host(system)), {**given, "allow": []})
    assert plan["action"] in ("refuse", "upgrade")


# --- repositories ----------------------------------------------------------------------------------------------------


def test_nvidias_repository_comes_with_its_keyring_package():
    plan = driver.plan(info(on=host(("ubuntu", "24.04"), "aarch64")), {})
    assert plan["repository"] == {
        "kind": "keyring_package",
        "package": "cuda-keyring",
        "installed": False,
        "keyring": {
            "url": "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/sbsa/cuda-keyring_1.1-1_all.deb",
            "checksum": "sha256:d2a6b11c096396d868758b86dab1823b25e14d70333f1dfa74da5ddaf6a06dba",
            "path": "/var/lib/aikit-fleet/host/cuda-keyring_1.1-1_all.deb",
        },
    }
    for version, there in (("1.0-1", False), ("1.1-1", True), ("1.2-1", True)):
        found = driver.plan(info(on=host(packages={"cuda-keyring": version})), {})
        assert found["repository"]["installed"] is there


def test_the_rpm_repository():
    assert driver.plan(info(on=host(("rocky", "10"), "aarch64")), {})["repository"] == {
        "kind": "rpm",
        "name": "aikit-fleet-nvidia-driver",
        "description": "NVIDIA's driver",
        "baseurl": "https://developer.download.nvidia.com/compute/cuda/repos/rhel10/sbsa/",
        "key": {
            "url": "https://developer.download.nvidia.com/compute/cuda/repos/rhel10/sbsa/D42D0685.pub",
            "checksum": "",
            "path": "/var/lib/aikit-fleet/host/nvidia-driver-key",
        },
        "signed_by": "/etc/pki/rpm-gpg/RPM-GPG-KEY-aikit-fleet-nvidia-driver",
        "gpgkey": "file:///etc/pki/rpm-gpg/RPM-GPG-KEY-aikit-fleet-nvidia-driver",
        "fingerprint": "610C7B14E068A878070DA4E99CD0A493D42D0685",
    }


def test_the_key_of_an_rpm_mirror_is_checked_too():
    mirror = {"source": "mirror", "mirror_url": "https://mirror.example/rhel9"}
    wishes = {**mirror, "mirror_key": "https://mirror.example/key.asc", "mirror_key_sha256": "b" * 64}
    found = driver.plan(info(on=host(("rocky", "9"))), wishes)["repository"]
    assert (found["key"]["url"], found["key"]["checksum"], found["fingerprint"]) == ("https://mirror.example/key.asc", f"sha256:{'b' * 64}", "")
    # NVIDIA's own, out of the copy
    found = driver.plan(info(on=host(("rocky", "9"))), {**mirror, "mirror_key_sha256": "b" * 64})["repository"]
    assert (found["key"]["url"], found["key"]["checksum"]) == ("https://mirror.example/rhel9/D42D0685.pub", "")
    assert found["fingerprint"] == data.RPM_KEY_FINGERPRINT


MIRROR = {"source": "mirror", "mirror_url": "https://mirror.example/debian13/"}


@pytest.mark.parametrize(
    ("key", "signed_by", "fetched"),
    [
        ("", ".gpg", "keyring"),
        ("https://mirror.example/ring.deb", ".gpg", "keyring"),
        ("https://mirror.example/key.asc", ".asc", "key"),
        ("https://mirror.example/key.gpg", ".gpg", "key"),
    ],
)
def test_a_mirror(key, signed_by, fetched):
    sha256 = "a" * 64 if key else ""
    found = driver.plan(info(), {**MIRROR, "mirror_key": key, "mirror_key_sha256": sha256})["repository"]
    assert found["kind"] == "deb" and found["signed_by"] == f"/usr/share/keyrings/aikit-fleet-nvidia-driver{signed_by}"
    assert found["content"].splitlines()[1:] == [
        "Types: deb",
        "URIs: https://mirror.example/debian13/",
        "Suites: /",
        "Architectures: amd64",
        f"Signed-By: {found['signed_by']}",
    ]
    assert (found["key"] is None) == (fetched == "keyring")
    checksum = sha256 or data.PLATFORMS[("debian", "13")].keyring_sha256
    assert found[fetched]["checksum"] == f"sha256:{checksum}"
    assert found[fetched]["url"] == (key or "https://mirror.example/debian13/cuda-keyring_1.1-1_all.deb")


def test_a_mirror_is_no_other_source():
    """Same packages: a host moves between NVIDIA's repository and a copy of it without a change of its driver."""
    assert driver.plan(info(found=loaded()), {"state": "managed", **MIRROR})["action"] == "none"
    assert names(driver.plan(info(), {"source": "mirror"})["refusals"]) == ["mirror_url"]


# --- hosts that are left alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ensure", "managed"])
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (info(()), "No NVIDIA GPU was found: nothing to do."),
        (info(({"vendor": "amd", "name": "MI300X", "pci_id": "1002:74a1", "architecture": "", "driver_in_use": "amdgpu"},)), "No NVIDIA GPU"),
        (info(on=host(wsl=True)), "WSL2 takes the driver of Windows"),
        (info(found={**NONE, "state": "wsl", "version": "580.1"}), "WSL2"),
        (info((gpu("hopper", "vfio-pci"),), {**NONE, "state": "vfio"}), "passed through"),
        (info(({**gpu("ampere"), "name": "NVIDIA A16-2Q"},)), "virtual GPU"),
        (info(on=host(packages={"nvidia-linux-grid-580": "580.1"})), "virtual GPU"),
        # Even on a system that nobody here knows
        (info((), on=host(("gentoo", "1"))), "No NVIDIA GPU"),
    ],
)
def test_left_alone(state, facts, words):
    plan = driver.plan(facts, {"state": state})
    assert plan["action"] == "none" and not plan["change"] and not plan["configure"] and words in plan["reason"]
    assert not driver.outcome(facts, plan)["expected"]


def test_a_gpu_that_is_passed_through_does_not_decide_for_the_others():
    plan = driver.plan(info((gpu("volta", "vfio-pci"), gpu("blackwell"))), {})
    assert (plan["action"], plan["flavour"]) == ("install", "open")


def test_ensure_names_what_is_wrong_with_a_driver_that_works():
    problems = {
        "535.104.05": ["below_floor"],
        "580.142": ["below_floor"],
        "570.172.08": ["below_floor"],
        "515.65.01": ["cuda_floor", "below_floor"],
        "580.159.03": [],
        "615.71.09": [],
    }
    for version, expected in problems.items():
        plan = driver.plan(info(found=loaded(version)), {})
        assert plan["action"] == "none" and names(plan["problems"]) == expected, version
    assert names(driver.plan(info(("volta", "hopper"), loaded("595.91.07")), {})["problems"]) == ["gpu_too_old_for_branch"]


# --- managed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wishes", "gpus", "action", "branch", "words"),
    [
        (loaded(), {}, ("hopper",), "none", 580, "is what is wanted"),
        (loaded("595.91.07"), {}, ("hopper",), "none", 595, "is what is wanted"),
        # A flavour that works is kept
        (loaded(flavour="proprietary"), {}, ("hopper",), "none", 580, "is what is wanted"),
        (loaded("580.142"), {}, ("hopper",), "upgrade", 580, "known vulnerabilities are fixed in 580.159.03"),
        (loaded("570.172.08"), {}, ("hopper",), "upgrade", 580, "wanted is branch 580"),
        (loaded("535.309.01", "proprietary"), {}, ("hopper",), "upgrade", 580, "wanted is branch 580"),
        (loaded(), {"version": "580.178.04"}, ("hopper",), "upgrade", 580, "wanted is 580.178.04"),
        (loaded(), {"branch": "595"}, ("hopper",), "upgrade", 595, "wanted is branch 595"),
        (loaded(), {"flavour": "proprietary"}, ("hopper",), "switch", 580, "wanted is proprietary"),
        (loaded(flavour="proprietary"), {}, ("blackwell",), "switch", 580, "wanted is open"),
        (loaded("595.91.07", "proprietary"), {}, ("volta",), "upgrade", 580, "wanted is branch 580"),
        (loaded(state="mismatch"), {}, ("hopper",), "none", 580, "a reboot ends that"),
        (loaded(state="nouveau"), {}, ("hopper",), "install", 580, "no kernel here has its module"),
    ],
)
def test_managed(found, wishes, gpus, action, branch, words):
    plan = driver.plan(info(gpus, found), {"state": "managed", **wishes})
    assert (plan["action"], plan["branch"]) == (action, branch) and words in plan["reason"]
    assert plan["configure"]


def test_a_driver_that_waits_for_a_reboot_is_not_installed_twice():
    on = host(kernels=[{"release": "6.12.41", "nvidia_module": "580.159.03"}])
    found = {**loaded(state="nouveau"), "version": ""}
    plan = driver.plan(info(found=found, on=on), {"state": "managed"})
    assert plan["action"] == "none" and names(plan["problems"]) == ["not_loaded"]
    after = driver.outcome(info(found=found, on=on), plan)
    assert after["reboot_required"] and after["reboot_is_safe"] and not after["expected"]


def test_sources_are_switched_only_when_asked():
    on = host(
        ("ubuntu", "24.04"), packages={"nvidia-utils-580-server": "580.159.03-0ubuntu0.24.04.1", "libnvidia-compute-580-server": "580.159.03-0ubuntu0.24.04.1"}
    )
    found = loaded(source="distribution")
    assert driver.plan(info(found=found, on=on), {"state": "managed"})["source"] == "distribution"
    plan = driver.plan(info(found=found, on=on), {"state": "managed", "source": "nvidia_repository"})
    assert plan["action"] == "switch" and plan["remove_packages"] == ["libnvidia-compute-580-server", "nvidia-utils-580-server"]
    for source in ("runfile", "other"):
        plan = driver.plan(info(found=loaded(source=source)), {"state": "managed"})
        assert plan["action"] == "refuse" and names(plan["refusals"]) == ["foreign_driver"]


def test_a_switch_of_flavours_takes_the_other_modules_out():
    on = host(packages={"nvidia-kernel-dkms": "580.159.03-1", "nvidia-driver-cuda": "580.159.03-1", "nvidia-container-toolkit": "1.20.0-1"})
    plan = driver.plan(info(("blackwell",), loaded(flavour="proprietary"), on), {"state": "managed"})
    assert plan["action"] == "switch" and plan["remove_packages"] == ["nvidia-kernel-dkms"]


def test_a_new_branch_takes_packages_of_the_old_name_out():
    on = host(
        ("ubuntu", "24.04"), packages={"nvidia-dkms-580-open": "580.159.03-1", "libnvidia-compute-580": "580.159.03-1", "libnvidia-container1": "1.20.0-1"}
    )
    plan = driver.plan(info(found=loaded(), on=on), {"state": "managed", "branch": "595"})
    assert plan["remove_packages"] == ["libnvidia-compute-580", "nvidia-dkms-580-open"]


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "wishes", "refusals"),
    [
        (info(("volta",)), {"branch": "595"}, ["gpu_too_old_for_branch"]),
        (info(("volta",)), {"flavour": "open"}, ["open_too_new"]),
        (info(("blackwell",)), {"flavour": "proprietary"}, ["open_only"]),
        (info(("grace hopper",)), {"flavour": "proprietary"}, ["open_only"]),
        (info(("blackwell",)), {"branch": "550", "allow": ["branch_ended"]}, ["gpu_too_new_for_branch"]),
        (info(("volta", "blackwell")), {}, ["no_common_driver", "open_only"]),
        (info(), {"branch": "555"}, ["unknown_branch", "branch_ended"]),
        (info(), {"branch": "620", "flavour": "proprietary"}, ["flavour_gone"]),
        (info(), {"branch": "595", "version": "580.159.03"}, ["version_of_another_branch"]),
        (info(), {"version": "580.142"}, ["below_floor"]),
        (info(), {"branch": "570"}, ["branch_ended"]),
        (info(), {"source": "distribution", "branch": "580"}, ["branch_unpublished"]),
        (info(on=host(("ubuntu", "26.04"))), {"branch": "580"}, ["branch_unpublished"]),
        (info(on=host(("rocky", "9"))), {"source": "distribution"}, ["no_such_source"]),
        (info(("volta",), on=host(("almalinux", "9"))), {"source": "distribution"}, ["no_such_flavour"]),
        (info(on=host(("fedora", "44"))), {}, ["unknown_system"]),
        (info(on=host(("ubuntu", "20.04"))), {}, ["unknown_system"]),
        (info(on=host(("debian", "11"))), {}, ["unknown_system"]),
        (info(on=host(arch="ppc64le")), {}, ["unknown_machine"]),
        (info(({**gpu("volta"), "name": "Tesla K80", "pci_id": "10de:102d", "architecture": ""},)), {}, ["gpu_too_old"]),
        (info(on=host(("debian", "13"), fabric_manager={"needed": True})), {"source": "distribution", "allow": ["branch_ended"]}, ["fabric_manager"]),
    ],
)
def test_refusals(facts, wishes, refusals):
    plan = driver.plan(facts, {"state": "managed", **wishes})
    assert plan["action"] == "refuse" and names(plan["refusals"]) == refusals
    assert not plan["change"] and not plan["packages"] and plan["repository"] == {"kind": "none"}


def test_an_unknown_system_with_a_driver_that_works_is_left_alone():
    facts = info(found=loaded(source="distribution"), on=host(("fedora", "44")))
    assert driver.plan(facts, {})["action"] == "none"
    plan = driver.plan(facts, {"state": "managed"})
    assert "Known are: AlmaLinux 10" in plan["refusals"][0]["hint"] or "Ubuntu 24.04" in plan["refusals"][0]["hint"]


def test_secure_boot():
    for system, source in ((("ubuntu", "24.04"), "distribution"), (("almalinux", "9"), "distribution")):
        plan = driver.plan(info(on=host(system, secure_boot=True)), {})
        assert (plan["action"], plan["source"], plan["headers_packages"]) == ("install", source, [])
    for system in (("debian", "13"), ("rocky", "9")):
        plan = driver.plan(info(on=host(system, secure_boot=True)), {})
        assert names(plan["refusals"]) == ["secure_boot"]
        assert all(f"({number})" in plan["refusals"][0]["hint"] for number in (1, 2, 3))
    plan = driver.plan(info(on=host(("ubuntu", "24.04"), secure_boot=True)), {"source": "nvidia_repository"})
    assert names(plan["refusals"]) == ["secure_boot"] and "nvidia_driver_source: distribution" in plan["refusals"][0]["hint"]
    plan = driver.plan(info(on=host(secure_boot=True)), {"allow": ["secure_boot"]})
    assert plan["action"] == "install" and names(plan["problems"]) == ["secure_boot"]
    # What loads already is signed with a key that the firmware knows
    assert driver.plan(info(found=loaded("580.142"), on=host(secure_boot=True)), {"state": "managed"})["action"] == "upgrade"


def test_a_night_upgrade_under_secure_boot_is_ended_by_a_reboot_alone():
    night = {**loaded("580.159.03", state="mismatch"), "installed_version": "580.178.04"}
    on = host(secure_boot=True, packages={"nvidia-driver-cuda": "580.178.04-1", "nvidia-kernel-open-dkms": "580.178.04-1"})
    plan = driver.plan(info(found=night, on=on), {"state": "managed"})
    assert (plan["action"], plan["refusals"]) == ("none", []) and "a reboot ends that" in plan["reason"]
    # What would have to be built anew is another matter
    plan = driver.plan(info(found=night, on=on), {"state": "managed", "version": "580.190.01"})
    assert plan["action"] == "refuse" and names(plan["refusals"]) == ["secure_boot"]
    on["packages"]["nvidia-kernel-open-dkms"] = "580.159.03-1"
    assert names(driver.plan(info(found=night, on=on), {"state": "managed"})["refusals"]) == ["secure_boot"]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"branch": "R580"}, "nvidia_driver_branch is 'R580', which is no branch. Write auto, or a number such as 580;"),
        ({"branch": "580-server"}, "nvidia_driver_branch is '580-server'"),
        ({"branch": "580.159"}, "nvidia_driver_branch is '580.159'"),
        ({"branch": "newest"}, "a number such as 580;"),
        ({"version": "latest"}, "nvidia_driver_version is 'latest', which is no exact version. Write one such as 580.159.03, or leave it empty"),
        ({"version": "580"}, "nvidia_driver_version is '580'"),
        ({"version": "580.159.03-1"}, "nvidia_driver_version is '580.159.03-1'"),
        ({"version": "580.*"}, "nvidia_driver_version is '580.*'"),
    ],
)
@pytest.mark.parametrize("state", ["ensure", "managed", "absent"])
def test_what_is_no_branch_and_no_version_is_said_by_name(wishes, words, state):
    for facts in (info(), info(()), info(found=loaded())):
        with pytest.raises(AikitError) as caught:
            driver.plan(facts, {"state": state, **wishes})
        assert words in str(caught.value)


@pytest.mark.parametrize("branch", [580, "580", " 580 ", None, "", "auto"])
def test_branches_as_people_write_them(branch):
    assert driver.plan(info(), {"branch": branch})["branch"] == 580


def test_prebuilt_modules_keep_their_kernel():
    plan = driver.plan(info(on=host(("ubuntu", "24.04"), secure_boot=True)), {})
    assert plan["packages"][-1] == "linux-modules-nvidia-580-server-open-generic"
    assert '"^linux-image-"' in plan["unattended_upgrades"]["content"]
    assert '"^linux-image-"' not in driver.plan(info(on=host(("ubuntu", "24.04"))), {})["unattended_upgrades"]["content"]


# --- what the package manager offers -----------------------------------------------------------------------------------


def test_versions_are_exact_when_the_package_manager_was_asked():
    first = driver.plan(info(), {"state": "managed"})
    plan = driver.plan(info(), {"state": "managed"}, "", offers(first, "580.142", "580.178.04", "580.159.03", "595.91.07"))
    assert plan["version"] == "580.178.04"
    assert plan["packages"] == [f"{name}=580.178.04-1" for name in parts(first)]
    assert "Pin: version 580.178.04*\n" in plan["pin"]["content"]
    assert plan["state"]["current"] == {
        "version": "580.178.04",
        "branch": 580,
        "flavour": "open",
        "source": "nvidia_repository",
        "packages": parts(first),
    }


def test_rpms_are_locked():
    facts = info(on=host(("rocky", "10")))
    first = driver.plan(facts, {"state": "managed"})
    plan = driver.plan(facts, {"state": "managed"}, "", offers(first, "580.159.03", "610.57.04", apt=False))
    assert plan["packages"] == [f"{name}-3:580.159.03-1.el9" for name in parts(first)]
    assert plan["pin"] == {
        "kind": "versionlock",
        "packages": ["python3-dnf-plugin-versionlock"],
        "locks": [f"{name}-3:580.159.03-1.el9.*" for name in parts(first)],
        "stale": [],
    }
    assert plan["state"]["locks"] == plan["pin"]["locks"]


def test_locks_of_parts_that_came_along_are_remembered_and_released():
    came = {"nvidia-driver-cuda": "3:580.142-1.el9", "nvidia-driver-libs": "3:580.142-1.el9", "libnvidia-ml": "3:580.142-1.el9"}
    facts = info(found=loaded("580.142"), on=host(("rocky", "9"), packages=came))
    first = driver.plan(facts, {"state": "managed"})
    plan = driver.plan(facts, {"state": "managed"}, "", offers(first, "580.159.03", apt=False))
    assert plan["pin"]["locks"] == plan["state"]["locks"] and "nvidia-driver-libs-3:580.159.03-1.el9.*" in plan["pin"]["locks"]
    text = driver.state_text(plan["state"])
    on = host(("rocky", "9"), packages={name: "3:580.159.03-1.el9" for name in came})
    gone = driver.plan(info(found=loaded(), on=on), {"state": "absent"}, text)
    assert gone["remove_locks"] == plan["pin"]["locks"] and gone["remove_module_stream"]
    # A change that broke off has set its locks as well
    begun = driver.state_text({**plan["memory"], "locks": ["nvidia-driver-cuda-3:580.142-1.el9.*"]})
    first = driver.plan(facts, {"state": "managed", "version": "580.178.04"}, begun)
    again = driver.plan(facts, {"state": "managed", "version": "580.178.04"}, begun, offers(first, "580.178.04", apt=False))
    assert set(again["pin"]["stale"]) == {"nvidia-driver-cuda-3:580.142-1.el9.*", *plan["pin"]["locks"]}


def test_a_stream_of_dnf_is_reset_only_where_there_are_streams():
    for system, expected in ((("rocky", "9"), True), (("rhel", "10"), False), (("debian", "13"), False)):
        gone = driver.plan(info(found=loaded("580.178.04"), on=host(system)), {"state": "absent"}, TEXT)
        assert gone["action"] == "remove" and gone["remove_module_stream"] is expected, system


@pytest.mark.parametrize(
    ("wishes", "versions", "held", "refusal", "words"),
    [
        ({}, ("595.91.07",), "", "not_offered", "The packages are there as 595.91.07, but a driver of branch 580 is wanted."),
        ({"version": "580.178.04"}, ("580.159.03",), "", "not_offered", "but 580.178.04 is wanted"),
        ({}, ("580.142",), "", "below_floor", "The newest driver that is offered is 580.142"),
        ({}, ("580.159.03",), "nvidia-driver-cuda\nvim\n", "held", "nvidia-driver-cuda is held."),
        ({}, (), "", "not_offered", "No source of packages on this host offers nvidia-driver-cuda"),
    ],
)
def test_what_cannot_be_installed_is_refused(wishes, versions, held, refusal, words):
    first = driver.plan(info(), {"state": "managed", **wishes})
    plan = driver.plan(info(), {"state": "managed", **wishes}, "", offers(first, *versions, held=held))
    assert plan["action"] == "refuse" and not plan["change"] and names(plan["refusals"]) == [refusal] and words in plan["reason"]


def test_parts_that_lag_behind_become_the_new_version_too():
    on = host(packages={"nvidia-driver-cuda": "580.142-1", "firmware-nvidia-gsp": "580.142-1", "nvidia-container-toolkit": "1.20.0-1", "vim": "580.142"})
    first = driver.plan(info(found=loaded("580.142"), on=on), {"state": "managed"})
    assert parts(first)[-1] == "firmware-nvidia-gsp"
    plan = driver.plan(info(found=loaded("580.142"), on=on), {"state": "managed"}, "", offers(first, "580.178.04"))
    assert "firmware-nvidia-gsp=580.178.04-1" in plan["packages"] and not any("container" in name for name in plan["packages"])


def test_the_newest_build_of_a_version_is_taken():
    text = " p | 580.1-0ubuntu0.24.04.1 | a\n p | 580.1-0ubuntu0.24.04.10 | a\n p | 580.1-0ubuntu0.24.04.2 | b\n p | 580.1-0 | a Sources\n"
    assert driver.parse_candidates(text, True) == {"p": ["580.1-0ubuntu0.24.04.1", "580.1-0ubuntu0.24.04.10", "580.1-0ubuntu0.24.04.2"]}
    first = driver.plan(info(), {})
    lines = "\n".join(f" {name} | 580.159.03-{build} | x" for name in first["query"] for build in (1, 10, 2))
    assert driver.plan(info(), {}, "", {"candidates": lines})["packages"][0] == "nvidia-driver-cuda=580.159.03-10"


# --- Fabric Manager ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "gpus", "wishes", "expected"),
    [
        (("debian", "13"), ("hopper",), {}, ["nvidia-fabricmanager", "libnvidia-nscq"]),
        (("debian", "13"), ("blackwell",), {}, ["nvidia-fabricmanager", "libnvidia-nscq", "nvlsm", "infiniband-diags"]),
        (("rocky", "9"), ("hopper",), {}, ["nvidia-fabricmanager", "libnvidia-nscq"]),
        (("ubuntu", "22.04"), ("ampere",), {"branch": "535", "allow": ["branch_ended"]}, ["nvidia-fabricmanager-535", "libnvidia-nscq-535"]),
        (("ubuntu", "24.04"), ("hopper",), {"source": "distribution"}, ["nvidia-fabricmanager-580", "libnvidia-nscq-580"]),
    ],
)
def test_fabric_manager(system, gpus, wishes, expected):
    facts = info(gpus, on=host(system, fabric_manager={"needed": True, "version": ""}))
    first = driver.plan(facts, wishes)
    assert first["fabric_manager"] == {"packages": expected, "service": "nvidia-fabricmanager.service"}
    version = {"535": "535.309.01"}.get(wishes.get("branch"), "580.159.03")
    apt = system[0] != "rocky"
    plan = driver.plan(facts, wishes, "", offers(first, version, apt=apt))
    assert [name for name in plan["packages"] if name.startswith(f"{expected[0]}{'=' if apt else '-3:'}{version}")], plan["packages"]


def test_a_fabric_manager_of_another_version_is_put_right_without_another_driver():
    on = host(fabric_manager={"needed": True, "version": "580.142"})
    plan = driver.plan(info(found=loaded(), on=on), {"state": "managed"})
    assert plan["action"] == "install" and plan["version"] == "580.159.03" and "exactly the driver's" in plan["reason"]
    on["fabric_manager"]["version"] = "580.159.03"
    assert driver.plan(info(found=loaded(), on=on), {"state": "managed"})["action"] == "none"


# --- headers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "kernel", "packages", "expected"),
    [
        (("ubuntu", "24.04"), "6.8.0-45-generic", {}, "linux-headers-generic"),
        (("ubuntu", "24.04"), "6.14.0-27-generic", {}, "linux-headers-generic-hwe-24.04"),
        (("ubuntu", "24.04"), "6.8.0-45-generic", {"linux-image-generic-hwe-24.04": "6.8"}, "linux-headers-generic-hwe-24.04"),
        (("ubuntu", "22.04"), "6.8.0-1021-aws", {}, "linux-headers-aws"),
        (("ubuntu", "24.04"), "6.8.0-45-generic-64k", {}, "linux-headers-generic-64k"),
        (("debian", "13"), "6.12.41+deb13-amd64", {}, "linux-headers-amd64"),
        (("debian", "13"), "6.12.41+deb13-cloud-amd64", {}, "linux-headers-cloud-amd64"),
        (("debian", "12"), "6.1.0-37-custom", {"linux-image-amd64": "6.1"}, "linux-headers-amd64"),
        (("rocky", "9"), "5.14.0-570.el9.aarch64+64k", {}, "kernel-64k-devel-matched"),
        (("rhel", "10"), "6.12.0-55.el10_0.x86_64", {}, "kernel-devel-matched"),
    ],
)
def test_headers(system, kernel, packages, expected):
    assert driver.headers_packages(data.PLATFORMS[system], host(system, kernel=kernel, packages=packages))[0] == expected


OLD_KERNEL = {"release": "6.1.0-18-amd64", "headers": False, "image": True, "nvidia_module": ""}
NEW_HEADERS = {"release": "6.1.0-30-amd64", "headers": True, "image": False, "nvidia_module": "580.178.04"}


def test_the_kernel_that_is_booted_next_gets_its_headers_too():
    """The metapackage brings those of the newest kernel of the archive, which this host does not have."""
    on = host(("debian", "12"), kernel="6.1.0-18-amd64", kernels=[OLD_KERNEL])
    first = driver.plan(info(on=on), {"state": "managed"})
    assert first["headers_packages"] == ["linux-headers-amd64", "linux-headers-6.1.0-18-amd64"]
    assert set(first["headers_packages"]) <= set(first["query"])
    assert driver.plan(info(on=on), {"state": "managed"}, "", offers(first, "580.178.04"))["action"] == "install"
    # Debian drops old kernels from its archive
    gone = "\n".join(line for line in madison(first, "580.178.04").splitlines() if "6.1.0-18" not in line)
    plan = driver.plan(info(on=on), {"state": "managed"}, "", {"candidates": gone})
    assert plan["action"] == "refuse" and names(plan["refusals"]) == ["no_headers"] and not plan["change"]
    assert "offers linux-headers-6.1.0-18-amd64" in plan["reason"] and "upgrade the kernel, reboot" in plan["refusals"][0]["hint"]
    # Those that are there need no source
    on = host(("debian", "12"), kernel="6.1.0-18-amd64", kernels=[{**OLD_KERNEL, "headers": True}], packages={"linux-headers-amd64": "6.1.76-1"})
    first = driver.plan(info(on=on), {"state": "managed"})
    assert first["headers_packages"] == ["linux-headers-amd64"]
    known = "\n".join(line for line in madison(first, "580.178.04").splitlines() if "linux-headers" not in line)
    assert driver.plan(info(on=on), {"state": "managed"}, "", {"candidates": known})["action"] == "install"


@pytest.mark.parametrize("state", ["ensure", "managed"])
def test_a_module_for_a_kernel_that_nobody_boots_is_waited_for_by_none(state):
    on = host(("debian", "12"), kernel="6.1.0-18-amd64", kernels=[OLD_KERNEL, NEW_HEADERS], packages={"nvidia-driver-cuda": "580.178.04-1"})
    found = {**loaded("580.178.04", state="installed_not_loaded"), "version": ""}
    plan = driver.plan(info(found=found, on=on), {"state": state}, TEXT)
    assert plan["action"] == "install" and "no kernel here has its module" in plan["reason"]
    assert "linux-headers-6.1.0-18-amd64" in plan["headers_packages"]
    # It may not pass for a host that waits for its reboot
    after = driver.outcome(info(found=found, on=on), plan)
    assert after["expected"] and not after["works"] and not after["reboot_is_safe"] and "Kernel 6.1.0-18-amd64 has no module" in after["failure"]
    # A driver of someone else's is named, without advice that would do harm
    plan = driver.plan(info(found=found, on=on), {"state": "ensure"})
    assert plan["action"] == "none" and "no module of it" in plan["problems"][0]["hint"]


@pytest.mark.parametrize(
    ("releases", "newest"),
    [
        (("5.14.0-427.el9.x86_64", "5.14.0-427.8.1.el9_4.x86_64"), "5.14.0-427.8.1.el9_4.x86_64"),
        (("5.14.0-427.13.1.el9_4.aarch64+64k", "5.14.0-427.8.1.el9_4.aarch64+64k"), "5.14.0-427.13.1.el9_4.aarch64+64k"),
        (("6.12.0-55.el10_0.x86_64", "6.12.0-55.9.1.el10_0.x86_64"), "6.12.0-55.9.1.el10_0.x86_64"),
        (("6.8.0-60-generic", "6.8.0-9-generic"), "6.8.0-60-generic"),
        (("6.1.0-18-amd64", "6.1.0-30-amd64"), "6.1.0-30-amd64"),
        (("6.12.9+deb13-amd64", "6.12.41+deb13-amd64"), "6.12.41+deb13-amd64"),
        # Flavours of one version
        (("6.12.41+deb13-amd64", "6.12.41+deb13-cloud-amd64"), "6.12.41+deb13-cloud-amd64"),
        (("6.12.0-55.9.1.el10_0.x86_64", "6.12.0-55.9.1.el10_0.x86_64+debug"), "6.12.0-55.9.1.el10_0.x86_64"),
    ],
)
def test_which_kernel_is_booted_next(releases, newest):
    for order in (releases, releases[::-1]):
        (found,) = driver.kernels_to_check({"kernels": [{"release": release} for release in order]})
        assert found["release"] == newest


# --- rollback and removal --------------------------------------------------------------------------------------------------

REMEMBERED = {
    "schema": 1,
    "current": {"version": "580.178.04", "branch": 580, "flavour": "open", "source": "nvidia_repository", "packages": ["nvidia-driver-cuda"]},
    "previous": {"version": "580.142", "branch": 580, "flavour": "open", "source": "nvidia_repository", "packages": ["nvidia-driver-cuda"]},
    "repository": {"kind": "deb", "path": "/etc/apt/sources.list.d/x.sources", "signed_by": "/usr/share/keyrings/x.gpg"},
    "locks": [],
}
TEXT = json.dumps(REMEMBERED)


def test_rollback_goes_to_what_was_here_before_even_below_the_floor():
    first = driver.plan(info(found=loaded("580.178.04")), {"rollback": True}, TEXT)
    assert (first["action"], first["version"]) == ("rollback", "580.142")
    plan = driver.plan(info(found=loaded("580.178.04")), {"rollback": True}, TEXT, offers(first, "580.142", "580.178.04"))
    assert plan["packages"][0] == "nvidia-driver-cuda=580.142-1" and names(plan["problems"]) == ["below_floor"]
    # And back again
    assert plan["state"]["previous"]["version"] == "580.178.04"
    plan = driver.plan(info(found=loaded("580.178.04")), {"rollback": True})
    assert plan["action"] == "refuse" and names(plan["refusals"]) == ["no_previous"]
    assert driver.plan(info(found=loaded("580.142")), {"rollback": True}, TEXT)["action"] == "none"


def test_removal_takes_what_came_along_and_leaves_the_rest():
    on = host(packages={"nvidia-driver-cuda": "580.178.04-1", "libcuda1": "580.178.04-1", "nvidia-container-toolkit": "1.20.0", "linux-headers-amd64": "6.12"})
    plan = driver.plan(info(found=loaded("580.178.04"), on=on), {"state": "absent"}, TEXT)
    assert plan["action"] == "remove" and plan["remove_packages"] == ["libcuda1", "nvidia-driver-cuda"]
    assert plan["remove_repository_files"][:2] == ["/etc/apt/sources.list.d/x.sources", "/usr/share/keyrings/x.gpg"]
    assert data.PIN_PATH in plan["remove_files"]
    plan = driver.plan(info(found=loaded("580.178.04"), on=on), {"state": "absent"})
    assert plan["action"] == "none" and "was not installed by this role" in plan["reason"]


def test_a_keyring_package_that_was_here_before_stays():
    on = host(packages={"cuda-keyring": "1.1-1"})
    first = driver.plan(info(on=on), {})
    state = driver.plan(info(on=on), {}, "", offers(first, "580.159.03"))["state"]
    assert state["repository"]["installed"] is True
    # One that this role brought is its own after an upgrade too
    mine = {**REMEMBERED, "repository": {"kind": "keyring_package", "package": "cuda-keyring", "installed": False}}
    text = json.dumps(mine)
    facts = info(found=loaded("580.178.04"), on=on)
    first = driver.plan(facts, {"state": "managed", "version": "580.190.01"}, text)
    assert driver.plan(facts, {"state": "managed", "version": "580.190.01"}, text, offers(first, "580.190.01"))["state"]["repository"]["installed"] is False


def test_a_driver_of_ours_is_kept_right_in_ensure_too():
    plan = driver.plan(info(found=loaded("580.178.04")), {"state": "ensure"}, TEXT)
    assert plan["action"] == "none" and plan["configure"] and "Pin: version 580.178.04*" in plan["pin"]["content"]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}'])
def test_a_state_file_that_is_none(text):
    with pytest.raises(AikitError, match="Move it away"):
        driver.plan(info(), {}, text)


def test_the_state_file():
    text = driver.state_text({"schema": 1, "current": None}, ["b", "a"])
    assert json.loads(text) == {"schema": 1, "current": None, "drained": ["a", "b"]}
    assert "drained" not in driver.state_text(json.loads(text))
    assert driver.plan(info(), {}, text)["drained"] == ["a", "b"]


# --- a change that ended half way ------------------------------------------------------------------------------------------

PARTS = ("nvidia-driver-cuda", "libcuda1", "libnvidia-ml1", "nvidia-kernel-open-dkms", "nvidia-persistenced", "nvidia-modprobe")
MANAGED = {"state": "managed", "version": "580.178.04"}


def at(version, **other):
    return {name: f"{other.get(name, version)}-1" for name in PARTS}


def journal(facts, wishes, *versions, remembered=""):
    """The state file as the role writes it before it begins."""
    first = driver.plan(facts, wishes, remembered)
    plan = driver.plan(facts, wishes, remembered, offers(first, *(versions or ("580.142", "580.159.03", "580.178.04"))))
    assert plan["change"] and plan["memory"]["changing"]["current"] == plan["state"]["current"]
    assert "changing" not in plan["state"], "it is over when the state is written"
    return driver.state_text(plan["memory"], plan["drained"])


WAITS = [{"release": "6.12.41", "nvidia_module": "580.178.04"}]


@pytest.mark.parametrize("state", ["ensure", "managed"])
@pytest.mark.parametrize(
    ("found", "on", "words"),
    [
        # Pin and blacklist are written, no package is there
        ({"state": "nouveau"}, {}, "An earlier run began to install 580.178.04"),
        # dpkg was killed among the packages
        (
            {"state": "nouveau"},
            {"unfinished_packages": {"nvidia-kernel-open-dkms": "unpacked", "vim": "unpacked"}},
            "nvidia-kernel-open-dkms is unpacked.",
        ),
        # The module could not be built
        (
            {"state": "nouveau", "installed_version": "580.178.04", "source": "nvidia_repository"},
            {"packages": at("580.178.04"), "unfinished_packages": {"nvidia-kernel-open-dkms": "half-configured"}},
            "nvidia-kernel-open-dkms is half-configured",
        ),
        # The packages are there, and what follows them is not
        (
            {"state": "nouveau", "installed_version": "580.178.04", "source": "nvidia_repository"},
            {"packages": at("580.178.04"), "kernels": WAITS},
            "began to install 580.178.04",
        ),
        (
            {"state": "loaded", "version": "580.178.04", "installed_version": "580.178.04", "source": "nvidia_repository", "flavour": "open"},
            {"packages": at("580.178.04"), "kernels": WAITS},
            "began to install 580.178.04",
        ),
    ],
    ids=["no package", "unpacked", "half-configured", "not loaded", "loaded"],
)
def test_a_first_installation_that_was_interrupted_is_finished(state, found, on, words):
    text = journal(info(), MANAGED)
    facts = info(found={**NONE, **found}, on=host(**on))
    for wishes in (MANAGED, {**MANAGED, "version": ""}):
        plan = driver.plan(facts, {**wishes, "state": state}, text)
        assert plan["action"] == "install" and words in plan["reason"], plan["reason"]
        assert plan["nouveau"]["rebuild"] and plan["mend"] == ["dpkg", "--configure", "-a"] and plan["pin"]["kind"] == "preferences"
        exact = driver.plan(facts, {**wishes, "state": state}, text, offers(plan, "580.178.04", "595.91.07"))
        assert "nvidia-kernel-open-dkms=580.178.04-1" in exact["packages"] and exact["state"]["current"]["version"] == "580.178.04"
        assert exact["state"]["previous"] is None, "half a driver is nothing to go back to"
    # And when the state was written, nothing is left to do
    if found["state"] == "loaded":
        written = driver.state_text(exact["state"])
        plan = driver.plan(facts, {"state": state}, written)
        assert (plan["action"], plan["mend"], plan["nouveau"]["rebuild"], plan["forget"]) == ("none", [], False, False)


def test_an_upgrade_that_was_interrupted_is_finished_and_can_be_taken_back():
    before = info(found=loaded("580.159.03"), on=host(packages=at("580.159.03")))
    text = journal(before, MANAGED)
    half = info(found={**loaded("580.159.03", state="mismatch"), "installed_version": "580.178.04"})
    half["host"]["packages"] = at("580.178.04", **{"nvidia-kernel-open-dkms": "580.159.03"})
    for state in ("ensure", "managed"):
        plan = driver.plan(half, {"state": state}, text)
        assert (plan["action"], plan["version"]) == ("upgrade", "580.178.04") and "began to install 580.178.04" in plan["reason"]
        exact = driver.plan(half, {"state": state}, text, offers(plan, "580.159.03", "580.178.04"))
        assert exact["state"]["previous"]["version"] == "580.159.03"
        assert exact["memory"]["changing"]["before"] == at("580.159.03"), "what was there before the first try"
    back = driver.plan(half, {"rollback": True}, text)
    assert (back["action"], back["version"]) == ("rollback", "580.159.03")
    # The rollback is interrupted in turn: both ways lead on
    text = journal(half, {"rollback": True}, remembered=text)
    for wishes in ({"state": "ensure"}, {"rollback": True}):
        plan = driver.plan(half, wishes, text)
        assert (plan["action"], plan["version"]) == ("rollback", "580.159.03"), wishes


def test_a_change_that_never_reached_the_packages_is_forgotten():
    before = info(found=loaded("580.159.03"), on=host(packages=at("580.159.03")))
    text = journal(before, MANAGED)
    plan = driver.plan(before, {"state": "ensure"}, text)
    assert (plan["action"], plan["forget"], plan["configure"]) == ("none", True, True)
    assert "Pin: version 580.159.03*" in plan["pin"]["content"] and "changing" not in plan["memory"]
    # Unless it is wanted still
    plan = driver.plan(before, MANAGED, text)
    assert (plan["action"], plan["version"], plan["forget"]) == ("upgrade", "580.178.04", False)


def test_what_is_wished_now_counts_more_than_what_was_begun():
    text = journal(info(), MANAGED)
    on = host(packages=at("580.178.04"), unfinished_packages={"nvidia-kernel-open-dkms": "half-configured"})
    found = {**NONE, "state": "installed_not_loaded", "installed_version": "580.178.04", "source": "nvidia_repository"}
    plan = driver.plan(info(found=found, on=on), {"state": "ensure", "branch": "595"}, text)
    assert plan["change"] and plan["branch"] == 595 and plan["version"] == ""
    plan = driver.plan(info(found=found, on=on), {"state": "managed", "version": "580.159.03"}, text)
    assert (plan["action"], plan["version"]) == ("upgrade", "580.159.03")


def test_half_an_upgrade_by_someone_else():
    on = host(packages=at("580.178.04", **{"nvidia-kernel-open-dkms": "580.159.03", "nvidia-persistenced": "580.54.14"}))
    found = {**loaded("580.159.03", state="mismatch"), "installed_version": "580.178.04"}
    plan = driver.plan(info(found=found, on=on), {"state": "managed"})
    assert (plan["action"], plan["version"]) == ("install", "580.178.04")
    assert plan["reason"] == "Parts of the driver are of another version than 580.178.04: nvidia-kernel-open-dkms 580.159.03-1."
    # A driver of someone else's is left alone, and named
    assert driver.plan(info(found=found, on=on), {"state": "ensure"})["action"] == "none"
    on = host(packages=at("580.159.03"), unfinished_packages={"libcuda1": "half-configured"})
    plan = driver.plan(info(found=loaded(), on=on), {"state": "ensure"})
    assert plan["action"] == "none" and names(plan["problems"]) == ["half_installed"] and not plan["configure"]
    assert driver.plan(info(found=loaded(), on=on), {"state": "managed"})["action"] == "install"


def test_a_part_that_someone_removed_comes_back_when_managed():
    packages = at("580.178.04")
    remembered = {**REMEMBERED, "current": {**REMEMBERED["current"], "packages": [*packages]}}
    del packages["nvidia-persistenced"]
    facts = info(found=loaded("580.178.04"), on=host(packages=packages))
    plan = driver.plan(facts, {"state": "managed"}, json.dumps(remembered))
    assert plan["action"] == "install" and plan["reason"] == "Parts of the driver are gone: nvidia-persistenced."
    assert driver.plan(facts, {"state": "ensure"}, json.dumps(remembered))["action"] == "none"


def test_an_early_file_system_that_was_not_rebuilt_is():
    facts = info(found=loaded("580.178.04"), on=host(initramfs_outdated=True))
    plan = driver.plan(facts, {"state": "ensure"}, TEXT)
    assert plan["action"] == "none" and plan["configure"] and plan["nouveau"]["rebuild"]


def test_half_an_installation_can_be_removed():
    text = journal(info(), MANAGED)
    on = host(packages={"libcuda1": "580.178.04-1", "nvidia-container-toolkit": "1.20.0"}, unfinished_packages={"nvidia-kernel-open-dkms": "half-configured"})
    plan = driver.plan(info(on=on), {"state": "absent"}, text)
    assert plan["action"] == "remove" and plan["remove_packages"] == ["libcuda1", "nvidia-kernel-open-dkms"]
    assert plan["mend"] and data.PIN_PATH in plan["remove_files"] and plan["remove_repository"]["kind"] == "keyring_package"


def test_rpm_has_nothing_to_mend():
    facts = info(on=host(("rocky", "9")))
    first = driver.plan(facts, MANAGED)
    text = driver.state_text(driver.plan(facts, MANAGED, "", offers(first, "580.178.04", apt=False))["memory"])
    plan = driver.plan(facts, MANAGED, text)
    assert plan["action"] == "install" and plan["mend"] == [] and "began to install 580.178.04" in plan["reason"]


# --- services --------------------------------------------------------------------------------------------------------------

DOCKER = {"name": "docker", "version": "26.1.5", "answers": True}


@pytest.mark.parametrize(
    ("found", "wishes", "engines", "expected"),
    [
        (loaded("580.142"), {"state": "managed"}, [DOCKER], True),
        (loaded("580.142"), {"state": "managed"}, [], False),
        (loaded("580.142"), {"state": "managed"}, [{**DOCKER, "answers": False}], False),
        (loaded(), {"state": "managed"}, [DOCKER], False),
        (NONE, {"state": "managed"}, [DOCKER], False),
    ],
)
def test_services_are_stopped_only_for_a_change(found, wishes, engines, expected):
    assert driver.plan(info(found=found, engines=engines), wishes)["drain_services"] is expected


def container(name, running=True, labels=None, **settings):
    return {"Name": f"/{name}", "State": {"Running": running}, "Config": {"Labels": labels or {}}, "HostConfig": settings}


def test_services_that_hold_gpus():
    ours = {"io.aikit.fleet.service": "x"}
    found = [
        container("cdi", labels=ours, DeviceRequests=[{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]),
        container("node", labels=ours, Devices=[{"PathOnHost": "/dev/nvidia0"}]),
        container("stopped", False, ours, DeviceRequests=[{}]),
        container("cpu", labels=ours, DeviceRequests=None, Devices=[{"PathOnHost": "/dev/fuse"}]),
        container("foreign", DeviceRequests=[{"Driver": "cdi"}]),
    ]
    assert drain.gpu_services(found) == ["cdi", "node"]


def test_services_that_were_removed_while_they_waited_are_forgotten():
    looked = [{"item": "here", "exists": True}, {"item": "gone", "exists": False}, {"item": "unseen", "failed": True}]
    assert drain.left(looked) == ["here", "unseen"]


def test_who_else_holds_the_gpus():
    ours = {"io.aikit.fleet.service": "x"}
    gpu_wanted = {"DeviceRequests": [{"Driver": "cdi"}]}
    found = [
        {**container("llama", labels=ours, **gpu_wanted), "Id": "a" * 64},
        {**container("cpu", labels=ours), "Id": "c" * 64},
        {**container("stopped", False, ours, **gpu_wanted), "Id": "d" * 64},
    ]
    holders = [
        {"pid": 100, "name": "nvidia-persiste", "container": ""},
        {"pid": 101, "name": "nv-fabricmanage", "container": ""},
        {"pid": 200, "name": "llama-server", "container": "a" * 64},
        {"pid": 201, "name": "python3", "container": "a" * 64},
        {"pid": 300, "name": "dcgm-exporter", "container": ""},
        {"pid": 400, "name": "jupyter", "container": "b" * 64},
        {"pid": 401, "name": "python3", "container": "b" * 64},
        # The daemon of somebody's container is not the one that is stopped here
        {"pid": 500, "name": "nvidia-persiste", "container": "e" * 64},
        # Nobody stops what only looks like ours
        {"pid": 600, "name": "smuggler", "container": "c" * 64},
    ]
    assert drain.other_holders(holders, found) == [
        "dcgm-exporter (process 300)",
        "jupyter (process 400 in container bbbbbbbbbbbb)",
        "nvidia-persiste (process 500 in container eeeeeeeeeeee)",
        "smuggler (process 600 in container cccccccccccc)",
    ]
    assert drain.other_holders(holders[:4], found) == []


# --- afterwards --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernels", "safe", "words"),
    [
        ([{"release": "6.12.41-amd64", "nvidia_module": "580.159.03"}], True, ""),
        (
            [{"release": "6.12.9-amd64", "nvidia_module": "580.159.03"}, {"release": "6.12.41-amd64", "nvidia_module": ""}],
            False,
            "Kernel 6.12.41-amd64 has no module",
        ),
        ([{"release": "6.12.9-amd64", "nvidia_module": ""}, {"release": "6.12.41-amd64", "nvidia_module": "unknown"}], True, ""),
        ([{"release": "6.12.41-amd64", "nvidia_module": "580.142"}], False, "has NVIDIA's module 580.142, installed is 580.159.03"),
        ([{"release": "9.0", "nvidia_module": "", "image": False}, {"release": "6.12", "nvidia_module": "580.159.03", "image": True}], True, ""),
        ([{"release": "6.12.41-amd64", "nvidia_module": "", "headers": False}], False, "no headers to build one"),
        ([], False, "No kernel was found"),
    ],
)
def test_no_reboot_into_a_kernel_without_the_module(kernels, safe, words):
    plan = driver.plan(info(), {"state": "managed"})
    after = driver.outcome(info(found={**loaded(state="installed_not_loaded"), "version": ""}, on=host(kernels=kernels)), plan)
    assert after["reboot_required"] and after["reboot_is_safe"] is safe and words in after["reboot_refusal"]


@pytest.mark.parametrize(
    ("facts", "wishes", "expected", "words"),
    [
        # Nothing is installed, and nothing can be
        (info(on=host(secure_boot=True)), {"state": "managed"}, True, "Secure Boot is on"),
        (info(on=host(("fedora", "44"))), {"state": "ensure"}, True, "has no recipe here"),
        (info(found={**NONE, "state": "nouveau"}, on=host(secure_boot=True)), {"state": "managed"}, True, "Secure Boot is on"),
        # Nothing is installed yet
        (info(), {"state": "ensure"}, True, "does not work"),
        (info(found={**NONE, "state": "nouveau"}), {"state": "ensure"}, True, "does not work"),
        # One that works, and that this role would not change
        (info(found=loaded(source="runfile")), {"state": "managed"}, True, ""),
        (info(found={**loaded(source="runfile", state="mismatch")}), {"state": "managed"}, False, ""),
        (info(()), {"state": "managed"}, False, ""),
        (info((gpu("hopper", "vfio-pci"),), {**NONE, "state": "vfio"}), {"state": "managed"}, False, ""),
        (info(on=host(wsl=True)), {"state": "managed"}, False, ""),
        (info(), {"state": "absent"}, False, ""),
    ],
)
def test_where_a_driver_should_work(facts, wishes, expected, words):
    after = driver.outcome(facts, driver.plan(facts, wishes))
    assert after["expected"] is expected
    assert not expected or after["works"] is (words == "") and words in after["failure"]


def test_a_driver_that_is_loaded_and_of_no_use_does_not_work():
    facts = info(found=loaded())
    plan = driver.plan(facts, {})
    assert driver.outcome(facts, plan)["works"]
    facts["problems"] = [{"name": "nvidia_smi_hung", "detail": "nvidia-smi did not end within 10 s.", "hint": "Look at the kernel log."}]
    after = driver.outcome(facts, plan)
    assert after["expected"] and not after["works"] and "did not end within 10 s." in after["failure"]


# --- tables ------------------------------------------------------------------------------------------------------------------


def test_tables_agree_with_each_other():
    assert set(data_nvidia.DRIVER_FLOORS) <= set(data.BRANCHES)
    assert data.BRANCHES[data.DEFAULT_BRANCH].status == "lts" and data.DEFAULT_BRANCH == data_gpu.LAST_BRANCH_BEFORE_TURING
    for system in data.PLATFORMS.values():
        assert driver.package_names(system, "nvidia_repository")
        assert not system.apt or re.fullmatch("[0-9a-f]{64}", system.keyring_sha256)
        assert data.DEFAULT_BRANCHES.get(system.key, data.DEFAULT_BRANCH) not in data.UNPUBLISHED.get(system.key, ())


GUIDE = Path(__file__).resolve().parents[3] / "docs/drivers.md"
ROWS = (
    ("Maxwell, Pascal, Volta", ("maxwell", "pascal", "volta")),
    ("Turing, Ampere, Ada, Hopper", ("turing", "ampere", "ada", "hopper")),
    ("Grace Hopper, Blackwell, newer", ("grace hopper", "blackwell", "unknown new")),
)


def guide_table():
    systems = {"Ubuntu 26.04": ("ubuntu", "26.04"), "all others": ("debian", "13")}
    lines = [f"| GPUs | {' | '.join(reversed(systems))} |", "|---|---|---|"]
    for title, kinds in ROWS:
        cells = []
        for key in reversed(list(systems.values())):
            found = {
                (plan["branch"], plan["flavour"], plan["source"]) for plan in (driver.plan(info((kind,), on=host(key)), {"state": "managed"}) for kind in kinds)
            }
            ((branch, flavour, source),) = found
            cells.append(f"{branch}, {flavour}" + (", from Ubuntu's archive" if source == "distribution" else ""))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def test_the_guide_shows_what_is_chosen():
    text = GUIDE.read_text()
    for line in guide_table():
        assert line in text, line
    for branch, known in data.BRANCHES.items():
        line = f"| {branch} | {known.status}{f', until {known.end}' if known.end and known.status != 'ended' else ''} | {', '.join(known.flavours)} |"
        assert line in text, line


def test_all_systems_but_one_choose_alike():
    for system, kind in itertools.product(SYSTEMS, GPUS):
        if system == ("ubuntu", "26.04"):
            continue
        here, there = (driver.plan(info((kind,), on=host(key)), {"state": "managed"}) for key in (system, ("debian", "13")))
        assert [here[key] for key in ("branch", "flavour", "source")] == [there[key] for key in ("branch", "flavour", "source")]
