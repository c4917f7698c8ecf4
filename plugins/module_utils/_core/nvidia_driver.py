# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which NVIDIA driver a host gets, from where, and everything that role nvidia_driver writes, installs and checks.

``plan`` takes what module gpu_info found and what the user wishes. It is asked twice where something is to change: before the host's
package manager was asked what it can install, and after (``offers``), when versions are exact. ``outcome`` judges the host afterwards.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Collection, Iterable, Mapping, Optional, Sequence, cast

from . import data_gpu, data_nvidia, gpu_driver
from . import data_nvidia_driver as data
from .data_nvidia_driver import Platform
from .errors import AikitError
from .version import at_least, numbers, upstream

SCHEMA = 1
CHANGES = ("install", "upgrade", "switch", "rollback", "remove")


def plan(
    info: Mapping[str, Any],
    wishes: Mapping[str, Any],
    remembered: str = "",
    offers: Optional[Mapping[str, str]] = None,
) -> dict[str, Any]:
    """What role nvidia_driver does to a host.

    :param remembered: text of the role's state file, empty where there is none.
    :param offers: what the package manager said: ``candidates`` (apt-cache madison, or dnf repoquery) and ``held`` packages.
    """
    return _Planner(info, wishes, remembered, offers).result()


@dataclass(frozen=True)
class Target:
    """A driver to have."""

    branch: int
    version: str
    flavour: str
    source: str


class _Planner:
    def __init__(self, info: Mapping[str, Any], wishes: Mapping[str, Any], remembered: str, offers: Optional[Mapping[str, str]]) -> None:
        self.wishes = wishes
        self.wanted_branch = wanted_branch(wishes.get("branch"))
        self.wanted_version = wanted_version(wishes.get("version"))
        self.offers = offers
        self.allow = set(wishes.get("allow") or ())
        if wishes.get("rollback"):
            # Someone who goes back knows what for
            self.allow |= {"below_floor", "branch_ended"}
        self.driver: Mapping[str, Any] = info["driver"]
        self.state = installed_state(self.driver)
        self.host: Mapping[str, Any] = info["host"]
        self.installed: Mapping[str, str] = self.host.get("packages") or {}
        # Packages that dpkg left between two states
        self.half: Mapping[str, str] = {name: state for name, state in (self.host.get("unfinished_packages") or {}).items() if _is_driver(name)}
        self.unreadable = [problem for problem in info.get("problems") or () if problem["name"] == "packages_unreadable"]
        self.engines = info.get("engines") or ()
        self.gpus = [gpu for gpu in info["gpus"] if gpu["vendor"] == "nvidia"]
        self.driven = [gpu for gpu in self.gpus if gpu.get("driver_in_use") != "vfio-pci"]
        self.platform = platform(self.host["os"])
        self.memory = parse_state(remembered)
        # The change that an earlier run wrote down before it began, and did not come to the end of
        self.begun: Mapping[str, Any] = self.memory.get("changing") or {}
        self.refusals: list[dict[str, str]] = []
        self.problems: list[dict[str, str]] = []
        self.notes: list[str] = []

    # --- the decision ---------------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        action, reason, target = self._decide()
        if self.refusals and action != "none":
            action, reason = "refuse", " ".join(refusal["detail"] for refusal in self.refusals)
        return self._described(action, reason, target)

    def _decide(self) -> tuple[str, str, Optional[Target]]:
        state, wanted = self.state, self.wishes.get("state") or "ensure"
        if self.host.get("wsl") or state == "wsl":
            if wanted == "managed":
                self._problem("wsl", "This is WSL2, whose driver is the one of Windows.", "Update the driver in Windows; none is installed here.")
            return "none", "WSL2 takes the driver of Windows: no Linux driver is ever installed here.", None
        for problem in self.unreadable:
            # An empty list of packages would make a stranger of every driver
            self._refuse(problem["name"], problem["detail"], problem["hint"])
        if wanted == "absent":
            return self._removal()
        if not self.gpus:
            return "none", "No NVIDIA GPU was found: nothing to do.", None
        if not self.driven or state == "vfio":
            return "none", "All NVIDIA GPUs are passed through to virtual machines (vfio-pci): left alone.", None
        if _is_vgpu(self.gpus, self.installed):
            return "none", "This is a virtual GPU (vGPU), whose driver comes with its hypervisor's licence: left alone.", None
        if self.wishes.get("rollback"):
            return self._rollback()
        if wanted == "ensure":
            return self._ensure()
        return self._managed()

    def _ensure(self) -> tuple[str, str, Optional[Target]]:
        state = self.state
        left = self._half_done()
        if left and (self.begun or self._ours()):
            # What this role began is finished, also where nobody asks for more than a driver that works
            return (*self._finish(left), self._resumed())
        if left:
            self._problem("half_installed", left, "Finish it by its own means (dpkg --configure -a), or set nvidia_driver_state: managed.")
        if state == "loaded":
            self._remark()
            return "none", f"{_name(self.driver)} works: left alone.", self._current()
        if state == "mismatch":
            self._remark()
            return "none", self._mismatch(), self._current()
        if state == "installed_not_loaded":
            if self._module_waits() or not self._ours():
                self._not_loaded()
                return "none", f"{_name(self.driver)} is installed and not loaded.", self._current()
            return "install", f"{_name(self.driver)} is installed, but no kernel here has its module.", self._target()
        return "install", "No driver is installed." if state == "absent" else "Only nouveau drives the GPU, which runs no CUDA.", self._target()

    def _managed(self) -> tuple[str, str, Optional[Target]]:
        state = self.state
        left = self._half_done(whole=True)
        if state in ("absent", "nouveau"):
            return "install", left or ("No driver is installed." if state == "absent" else "Only nouveau drives the GPU, which runs no CUDA."), self._target()
        now, target = self._current(), self._target()
        if target is None or now is None or self.refusals:
            return "install", left, target
        change = self._difference(now, target)
        if change:
            return change[0], change[1], target
        if left:
            return (*self._finish(left), self._pinned(target, self._newest_part(now)))
        if state == "mismatch":
            return "none", self._mismatch(), now
        if state == "installed_not_loaded" and not self._module_waits():
            return "install", f"{_name(self.driver)} is installed, but no kernel here has its module.", target
        if state == "installed_not_loaded":
            self._not_loaded()
            self._taken_on(now)
            return "none", f"{_name(self.driver)} is installed and not loaded.", now
        fabric = self.host.get("fabric_manager") or {}
        if fabric.get("needed") and numbers(fabric.get("version") or "") != numbers(now.version):
            found = fabric.get("version") or "not installed"
            return "install", f"Fabric Manager is {found}, and has to be exactly the driver's {now.version}.", self._pinned(target, now)
        self._taken_on(now)
        return "none", f"{_name(self.driver)} is what is wanted.", now

    # --- a change that ended half way ------------------------------------------------------------------------------

    def _half_done(self, whole: bool = False) -> str:
        """What an earlier change left undone; empty where nothing is. With ``whole`` the parts of the driver have to be complete, too."""
        if self.half:
            return f"A change of the driver ended half way: {', '.join(f'{name} is {state}' for name, state in self.half.items())}."
        now = self._current()
        if self.begun and not (now and self._abandoned()):
            version = (self.begun.get("current") or {}).get("version") or "a driver"
            return f"An earlier run began to install {version}, and did not come to its end."
        if not whole or now is None or now.source not in ("nvidia_repository", "distribution"):
            return ""
        apart = sorted(name for name, found in self._parts(now).items() if numbers(found) != numbers(now.version))
        if apart:
            return f"Parts of the driver are of another version than {now.version}: {', '.join(f'{name} {self.installed[name]}' for name in apart)}."
        missing = [name for name in self._mine().get("packages") or () if name not in self.installed]
        return f"Parts of the driver are gone: {', '.join(missing)}." if missing else ""

    def _abandoned(self) -> bool:
        """Whether the change never reached the packages: the driver that was there is there still."""
        return not self.half and self.begun.get("before") == self._driver_packages()

    def _driver_packages(self) -> dict[str, str]:
        return {name: found for name, found in self.installed.items() if _is_driver(name)}

    def _parts(self, now: Target) -> dict[str, str]:
        """Installed packages that have to be of the driver's version."""
        return {
            name: found
            for name, found in self._driver_packages().items()
            if len(numbers(found)) >= 2 and numbers(found)[0] == now.branch and not re.match(data.APART_PACKAGE, name)
        }

    def _newest_part(self, now: Target) -> Target:
        """The version that a half-done change is finished with: the newer one."""
        newest = max((*self._parts(now).values(), now.version), key=numbers)
        return Target(now.branch, upstream(newest), now.flavour, now.source)

    def _finish(self, left: str) -> tuple[str, str]:
        return str(self.begun.get("action") or "install"), left

    def _resumed(self) -> Optional[Target]:
        """What the change was to lead to, unless something else is wished now."""
        aim = self.begun.get("current") or self._mine()
        if self.begun.get("action") == "rollback":
            return self._back_to(aim)
        target = self._target()
        if target and not target.version and aim and (target.branch, target.flavour, target.source) == (aim["branch"], aim["flavour"], aim["source"]):
            return Target(target.branch, aim["version"], target.flavour, target.source)
        return target

    def _back_to(self, record: Mapping[str, Any]) -> Target:
        self.allow |= {"below_floor", "branch_ended"}
        target = Target(record["branch"], record["version"], record["flavour"], record["source"])
        self._check_platform(target.source)
        self._check_gpus(target)
        return target

    def _remembered(self, change: bool, action: str) -> dict[str, Any]:
        """The state file while a change is under way: what is known of the host, and what is being done to it."""
        kept = {key: value for key, value in self.memory.items() if key != "changing"}
        if self.begun and (change or action == "refuse"):
            kept["changing"] = self.begun
        return {**kept, "schema": SCHEMA}

    def _pinned(self, target: Target, now: Target) -> Target:
        return Target(target.branch, target.version or now.version, target.flavour, target.source)

    def _difference(self, now: Target, target: Target) -> Optional[tuple[str, str]]:
        """What turns the driver that is there into the wanted one, and why."""
        if now.source != target.source:
            return "switch", f"The driver comes from {_source_name(now.source)}, wanted is {_source_name(target.source)}."
        if now.flavour and now.flavour != target.flavour:
            return "switch", f"The kernel modules are {now.flavour}, wanted is {target.flavour}."
        if now.branch != target.branch:
            return "upgrade", f"The driver is {now.version} of branch {now.branch}, wanted is branch {target.branch}."
        if target.version and numbers(target.version) != numbers(now.version):
            return "upgrade", f"The driver is {now.version}, wanted is {target.version}."
        if not target.version and self._floor(now.branch) and "below_floor" not in self.allow and self._below(now.version, now.branch):
            return "upgrade", f"The driver is {now.version}; known vulnerabilities are fixed in {self._floor(now.branch)}."
        return None

    def _complete(self, now: Target, target: Target) -> bool:
        """Nothing is to be installed."""
        return self._difference(now, target) is None and not self._half_done(whole=True)

    def _rollback(self) -> tuple[str, str, Optional[Target]]:
        previous = self.memory.get("previous")
        now, left = self._current(), self._half_done(whole=True)
        if self.begun:
            # Half of a rollback is finished, half of anything else is taken back
            previous = self.begun.get("current") if self.begun.get("action") == "rollback" else self.begun.get("previous")
        if not previous:
            self._refuse(
                "no_previous",
                "No earlier driver is remembered on this host.",
                f"Set nvidia_driver_version to the version to go to. ({data.STATE_PATH} remembers what this role replaced.)",
            )
            return "rollback", "", None
        target = self._back_to(previous)
        if now and numbers(now.version) == numbers(target.version) and now.flavour in ("", target.flavour) and not left:
            return "none", f"The driver is {now.version} already.", now
        return "rollback", f"{left} " * bool(left) + f"Back to {target.version}, which was here before.", target

    def _removal(self) -> tuple[str, str, Optional[Target]]:
        now = self._current()
        if not self.memory.get("current") and not self.begun:
            if self.state in ("absent", "nouveau"):
                return "none", "No driver is installed, and nothing of this role's is here.", None
            return "none", f"{_name(self.driver)} was not installed by this role: left alone.", now
        return "remove", "The driver that this role installed is not wanted any more.", now

    # --- what there is, and what is wanted ------------------------------------------------------------------------

    def _current(self) -> Optional[Target]:
        version = self.driver.get("installed_version") or self.driver.get("version") or ""
        if not version:
            return None
        mine = self._mine()
        ours = bool(mine)
        # What this role installed is remembered; from a mirror it may look like no source that is known
        source = mine.get("source", "") if ours else self.driver.get("source") or ""
        flavour = self.driver.get("flavour") or (mine.get("flavour", "") if ours else "")
        return Target(numbers(version)[0], upstream(version), flavour, "nvidia_repository" if source == "mirror" else source)

    def _ours(self) -> bool:
        return bool(self._mine())

    def _mine(self) -> Mapping[str, Any]:
        """What is remembered of the driver that is there: of this role's last change, or of one that it began."""
        version = numbers(self.driver.get("installed_version") or self.driver.get("version") or "")
        records = (self.memory.get("current") or {}, self.begun.get("current") or {})
        return next((record for record in records if version and numbers(record.get("version", "")) == version), {})

    def _target(self) -> Optional[Target]:
        """The wanted driver; refusals say why there is none."""
        source = self._source()
        if not self._check_platform(source):
            return None
        flavours = self._flavours()
        branch = self._branch(source, flavours)
        target = Target(branch, self.wanted_version, self._flavour(flavours, branch, source), source)
        self._check_branch(target)
        self._check_gpus(target)
        self._check_secure_boot(target)
        self._check_fabric_manager(target)
        return target

    def _source(self) -> str:
        wanted = self.wishes.get("source") or "auto"
        now = self._current()
        if wanted == "mirror" and not self.wishes.get("mirror_url"):
            self._refuse(
                "mirror_url",
                "nvidia_driver_source is mirror, but nvidia_driver_mirror_url is empty.",
                "Set it to the copy of NVIDIA's repository.",
            )
        if now and now.source not in ("nvidia_repository", "distribution"):
            self._refuse(
                "foreign_driver",
                f"{_name(self.driver)} was installed by {_source_name(now.source)}, which this role cannot replace.",
                "Leave it with nvidia_driver_state: ensure, or remove it by its own means (a .run file: nvidia-uninstall) and run again.",
            )
        if wanted != "auto":
            return "nvidia_repository" if wanted == "mirror" else str(wanted)
        if now and now.source in ("nvidia_repository", "distribution"):
            return now.source
        if self.platform is None or not self.platform.signed_modules:
            return "nvidia_repository"
        family_has_all = self.platform.family == "ubuntu"
        if self.host.get("secure_boot") and (family_has_all or not self._old_gpus()):
            return "distribution"
        if self._old_gpus() and data.DEFAULT_BRANCHES.get(self.platform.key, data.DEFAULT_BRANCH) > data_gpu.LAST_BRANCH_BEFORE_TURING:
            # NVIDIA publishes no branch for them there, the archive may
            return "distribution"
        return "nvidia_repository"

    def _old_gpus(self) -> list[Mapping[str, Any]]:
        return [gpu for gpu in self.driven if _device(gpu) < data_gpu.FIRST_OPEN_DEVICE]

    def _open_only_gpus(self) -> list[Mapping[str, Any]]:
        return [gpu for gpu in self.driven if open_only(gpu)]

    def _flavours(self) -> tuple[str, ...]:
        """The flavours that drive all GPUs of this host, the better first."""
        old, new = self._old_gpus(), self._open_only_gpus()
        if old and new:
            self._refuse(
                "no_common_driver",
                f"No driver drives both {_names(old)} (proprietary modules only) and {_names(new)} (open modules only).",
                "Take one of them out, or pass it through to a virtual machine (vfio-pci).",
            )
        if old:
            return ("proprietary",)
        return ("open",) if new else ("open", "proprietary")

    def _branch(self, source: str, flavours: Sequence[str]) -> int:
        wanted, version = self.wanted_branch, self.wanted_version
        exact = numbers(version)[0] if version else 0
        if wanted is not None:
            if exact and exact != wanted:
                self._refuse(
                    "version_of_another_branch",
                    f"nvidia_driver_version {version} is not of nvidia_driver_branch {wanted}.",
                    "Leave one of them out.",
                )
            return wanted
        if exact:
            return exact
        now = self._current()
        recommended = self._recommended(source)
        # A branch that still gets fixes and drives all GPUs is kept
        if now and now.source == source and _maintained(now.branch) and not (self._old_gpus() and now.branch > data_gpu.LAST_BRANCH_BEFORE_TURING):
            return now.branch
        return recommended

    def _recommended(self, source: str) -> int:
        system = cast(Platform, self.platform)
        if source == "distribution" and system.distribution_branch:
            return system.distribution_branch
        if self._old_gpus():
            return data_gpu.LAST_BRANCH_BEFORE_TURING
        if (system.family, source) == ("almalinux", "distribution"):
            # It has the newest one alone; which that is, the repository says
            return max(data.BRANCHES)
        return data.DEFAULT_BRANCHES.get(system.key, data.DEFAULT_BRANCH)

    def _flavour(self, flavours: Sequence[str], branch: int, source: str) -> str:
        wanted = self.wishes.get("flavour") or "auto"
        if wanted != "auto":
            return str(wanted)
        now = self._current()
        known = data.BRANCHES[branch].flavours if branch in data.BRANCHES else flavours
        if now and now.source == source and now.flavour in flavours and now.flavour in known:
            return now.flavour
        return flavours[0]

    # --- refusals -------------------------------------------------------------------------------------------------

    def _check_platform(self, source: str) -> bool:
        name = self.host["os"].get("pretty_name") or self.host["os"].get("id") or "An unknown system"
        if self.platform is None:
            self._refuse(
                "unknown_system",
                f"{name} has no recipe here for NVIDIA's driver.",
                f"Install it there by its own means: a driver that works is left alone (nvidia_driver_state: ensure). Known are: {known_systems()}.",
            )
            return False
        if self.host["os"].get("arch") not in data.REPOSITORY_ARCHITECTURES:
            self._refuse("unknown_machine", f"NVIDIA has no driver for {self.host['os'].get('arch')} servers.", "Known are: x86_64, aarch64.")
            return False
        if package_names(self.platform, source) is None:
            self._refuse(
                "no_such_source",
                f"{self.platform.name} has no driver of its own that is known here.",
                "Set nvidia_driver_source to nvidia_repository or mirror.",
            )
            return False
        return True

    def _check_branch(self, target: Target) -> None:
        system = cast(Platform, self.platform)
        known = ", ".join(str(branch) for branch in data.BRANCHES)
        only = system.distribution_branch if target.source == "distribution" else None
        if target.branch not in data.BRANCHES:
            self._refuse(
                "unknown_branch",
                f"Branch {target.branch} is not known here.",
                f"Known are: {known}. Or take it on with nvidia_driver_allow: [unknown_branch].",
            )
        elif target.flavour not in data.BRANCHES[target.branch].flavours:
            self._refuse(
                "flavour_gone",
                f"Branch {target.branch} has no {target.flavour} modules.",
                "Set nvidia_driver_branch to 580 or 595, or nvidia_driver_flavour to open.",
            )
        if only and target.branch != only:
            self._refuse(
                "branch_unpublished",
                f"{system.name} has branch {only} alone in its archive, wanted is {target.branch}.",
                "Set nvidia_driver_source to nvidia_repository.",
            )
        if target.source == "nvidia_repository" and target.branch in data.UNPUBLISHED.get(system.key, ()):
            self._refuse(
                "branch_unpublished",
                f"NVIDIA publishes no branch {target.branch} for {system.name}.",
                f"Set nvidia_driver_branch to {data.DEFAULT_BRANCHES[system.key]}, or nvidia_driver_source to distribution.",
            )
        names = package_names(system, target.source)
        if names is not None and target.flavour not in _fitting(names, target.branch):
            self._refuse(
                "no_such_flavour",
                f"{system.name} has no {target.flavour} modules in its archive.",
                "Set nvidia_driver_source to nvidia_repository.",
            )
        if target.version and self._below(target.version, target.branch):
            self._refuse(
                "below_floor",
                f"Driver {target.version} has known vulnerabilities{self._fixed_in(target.branch)}.",
                "Leave nvidia_driver_version out, or take it on with nvidia_driver_allow: [below_floor].",
            )
        elif not target.version and target.branch not in data_nvidia.DRIVER_FLOORS and below_floor("", target.branch):
            self._refuse(
                "branch_ended",
                f"Branch {target.branch} gets no fixes any more.",
                "Set nvidia_driver_branch: auto, or take it on with nvidia_driver_allow: [branch_ended].",
            )

    def _check_gpus(self, target: Target) -> None:
        old, new = self._old_gpus(), self._open_only_gpus()
        ancient = [gpu for gpu in self.driven if _device(gpu) < data.FIRST_DEVICE]
        if ancient:
            self._refuse(
                "gpu_too_old",
                f"{_names(ancient)} is older than Maxwell: no driver of today drives it.",
                "Take it out, or keep the driver that it has (nvidia_driver_state: ensure).",
            )
        if old and target.branch > data_gpu.LAST_BRANCH_BEFORE_TURING:
            self._refuse(
                "gpu_too_old_for_branch",
                f"Branch {target.branch} does not drive {_names(old)}: the GPU would be gone after the reboot.",
                f"{data_gpu.LAST_BRANCH_BEFORE_TURING} is the last branch for GPUs before Turing: set nvidia_driver_branch: auto.",
            )
        if old and target.flavour == "open":
            self._refuse(
                "open_too_new",
                f"The open kernel modules do not drive {_names(old)}: they begin with Turing.",
                "Set nvidia_driver_flavour: auto.",
            )
        if new and target.flavour == "proprietary":
            self._refuse("open_only", f"The proprietary kernel modules do not drive {_names(new)}.", "Set nvidia_driver_flavour: auto.")
        for gpu in self.driven:
            # What is newer than all that is known here needs at least what the newest known one needs
            first = max(data.FIRST_BRANCHES.values()) if _is_newer_than_known(gpu) else data.FIRST_BRANCHES.get(architecture(gpu), 0)
            if target.branch < first:
                self._refuse(
                    "gpu_too_new_for_branch",
                    f"Branch {target.branch} does not know {gpu['name']}: {first} is the first.",
                    "Set nvidia_driver_branch: auto.",
                )

    def _check_secure_boot(self, target: Target) -> None:
        system = cast(Platform, self.platform)
        if not self.host.get("secure_boot") or (system.family, target.source) in data.SIGNED_SOURCES:
            return
        now = self._current()
        if now and now.source == target.source and (self.state == "loaded" or self.state == "mismatch" and self._complete(now, target)):
            # Modules built here load already, so their key is enrolled; or nothing is to be installed, and a reboot is all that is due
            return
        signed = (
            f"(1) Take the modules that {system.name} signs: nvidia_driver_source: distribution"
            + (" (open modules alone). " if system.family == "almalinux" else ". ")
            if system.signed_modules
            else f"(1) Use a system whose modules are signed, such as Ubuntu or AlmaLinux: {system.name} has none. "
        )
        self._refuse(
            "secure_boot",
            "Secure Boot is on, and it would not load modules that are built on this host with a key that the firmware does not know.",
            signed
            + "(2) Enrol a key of yours (mokutil --import, which asks at the console at the next boot), have dkms sign with it,"
            + " and set nvidia_driver_allow: [secure_boot]. (3) Switch Secure Boot off in the firmware.",
        )

    def _check_fabric_manager(self, target: Target) -> None:
        if self._needs_fabric_manager() and self.platform is not None and target.source == "distribution" and self.platform.family != "ubuntu":
            self._refuse(
                "fabric_manager",
                f"This machine has NVSwitch, and {self.platform.name} has no Fabric Manager.",
                "Set nvidia_driver_source to nvidia_repository.",
            )

    def _refuse(self, name: str, detail: str, hint: str) -> None:
        entry = {"name": name, "detail": detail, "hint": hint}
        if name in self.allow:
            self.problems.append(entry)
        elif entry not in self.refusals:
            self.refusals.append(entry)

    def _problem(self, name: str, detail: str, hint: str) -> None:
        self.problems.append({"name": name, "detail": detail, "hint": hint})

    # --- remarks on a driver that is left alone -------------------------------------------------------------------

    def _taken_on(self, now: Target) -> None:
        """A driver with known vulnerabilities that someone allows: of a distribution there may be no other."""
        if self._below(now.version, now.branch) and all(problem["name"] != "below_floor" for problem in self.problems):
            detail = f"Driver {now.version} has known vulnerabilities{self._fixed_in(now.branch)}."
            word = "below_floor" if self._floor(now.branch) else "branch_ended"
            self._problem("below_floor", detail, f"It stays while nvidia_driver_allow has {word}.")

    def _remark(self) -> None:
        version = self.driver.get("installed_version") or self.driver.get("version") or ""
        if at_least(version, data_nvidia.CUDA_DRIVER_FLOOR) is False:
            self._problem(
                "cuda_floor",
                f"Driver {version} does not run CUDA {data_nvidia.CUDA_FLOOR}, which AIKit's images need.",
                f"Any driver from {data_nvidia.CUDA_DRIVER_FLOOR} on does: nvidia_driver_state: managed upgrades it.",
            )
        if version and self._below(version, numbers(version)[0]):
            self._problem(
                "below_floor",
                f"Driver {version} has known vulnerabilities{self._fixed_in(numbers(version)[0])}.",
                "Upgrade it by its own means, or set nvidia_driver_state: managed.",
            )
        now = self._current()
        if now:
            self._check_gpus_softly(now)

    def _check_gpus_softly(self, now: Target) -> None:
        lost = [gpu for gpu in self._old_gpus() if now.branch > data_gpu.LAST_BRANCH_BEFORE_TURING]
        if lost:
            self._problem(
                "gpu_too_old_for_branch",
                f"Branch {now.branch} does not drive {_names(lost)}.",
                "nvidia_driver_state: managed goes back to branch 580.",
            )

    def _not_loaded(self) -> None:
        nouveau = any(gpu.get("driver_in_use") == "nouveau" for gpu in self.driven)
        detail = f"{_name(self.driver)} is installed, but not loaded" + (": nouveau drives the GPU." if nouveau else ".")
        hint = "Reboot the host. If it is not loaded then, the kernel log says why: dmesg | grep -i -e nvidia -e NVRM."
        if not self._module_waits():
            hint = "The kernel of the next boot has no module of it: see what dkms status says, and install the headers of that kernel."
        self._problem("not_loaded", detail, hint)

    def _mismatch(self) -> str:
        return f"The loaded module is {self.driver.get('version') or 'another one'}, installed is {self.driver.get('installed_version')}: a reboot ends that."

    def _module_waits(self) -> bool:
        """The kernel of the next boot has the module, so that loading it or a reboot is all that is due."""
        return any(kernel.get("nvidia_module") for kernel in kernels_to_check(self.host))

    def _floor(self, branch: int) -> str:
        return data_nvidia.DRIVER_FLOORS.get(branch, "")

    def _fixed_in(self, branch: int) -> str:
        floor = self._floor(branch)
        return f", fixed in {floor}" if floor else f": branch {branch} gets no fixes any more"

    def _below(self, version: str, branch: int) -> bool:
        return below_floor(version, branch)

    def _needs_fabric_manager(self) -> bool:
        return bool((self.host.get("fabric_manager") or {}).get("needed"))

    # --- the description that the tasks read ----------------------------------------------------------------------

    def _described(self, action: str, reason: str, target: Optional[Target]) -> dict[str, Any]:
        change = action in CHANGES
        # Files of ours are kept right where the driver is ours, or is managed and came as packages
        packaged = target is not None and target.source in ("nvidia_repository", "distribution")
        managed = packaged and (self.wishes.get("state") == "managed" or self._ours() or bool(self.begun))
        configure = change and action != "remove" or action == "none" and managed and self.platform is not None and bool(self.driven)
        described = {
            "action": action,
            "reason": reason,
            "change": change,
            "configure": configure,
            "refusals": self.refusals,
            "problems": self.problems,
            "branch": target.branch if target else None,
            "version": target.version if target else "",
            "flavour": target.flavour if target else "",
            "source": target.source if target else "",
            "drain_services": change and self._docker() and self.state in ("loaded", "mismatch"),
            "drained": list(self.memory.get("drained") or ()),
            "load": self._loading(change, action),
            "memory": self._remembered(change, action),
            "forgotten": {"schema": SCHEMA},
            "forget": bool(self.begun) and action == "none",
            "mend": list(data.MEND) if change and (self.half or self.begun) and self.platform and self.platform.apt else [],
            "reboot_required_reason": self._reboot_reason(action),
            "state_dir": data.STATE_DIR,
            "state_path": data.STATE_PATH,
            "rollback": self.memory.get("previous"),
            **_nothing(),
        }
        if action == "remove":
            described.update(self._removed())
        elif configure and target is not None and self.platform is not None:
            described.update(self._wanted(action, target, self.platform))
            if described["state"] and self.offers is not None:
                begun = {key: described["state"][key] for key in ("current", "previous", "repository", "locks")}
                # What was there before this change, also where it is the second try
                before = self.begun.get("before") if self.begun else self._driver_packages()
                described["memory"]["changing"] = {"action": action, "before": before, **begun}
            if self.refusals:
                # What the package manager offers is not what is wanted: known only now
                described.update(action="refuse", change=False, configure=False, reason=" ".join(refusal["detail"] for refusal in self.refusals))
        described["steps"] = self._steps(described)
        return described

    def _wanted(self, action: str, target: Target, system: Platform) -> dict[str, Any]:
        change = action != "none"
        names = _packages(system, target.source, target.branch, target.flavour, self._kernel_flavour())
        fabric = self._fabric_manager(system, target)
        exact = [*names.exact, *fabric["exact"]]
        outdated = self._outdated(system, target, [*exact, *names.plain]) if change else []
        companions = self._companions([*exact, *outdated]) if change else []
        version, specs = target.version, [*exact]
        if change and self.offers is not None:
            version, specs = self._chosen(system, target, exact, outdated)
            specs += self._offered_at(version, companions, system)
        branch = numbers(version)[0] if version else target.branch
        headers = headers_packages(system, self.host) if (system.family, target.source) not in data.SIGNED_SOURCES else []
        if change and self.offers is not None and version:
            self._check_headers(headers, system)
        pin = self._pin(system, target, version, branch, specs)
        return {
            "version": version,
            "branch": branch,
            "repository": self._repository(system, target),
            "prerequisites": self._prerequisites(system, target),
            "query": [*exact, *companions, *headers],
            "packages": [*specs, *names.plain, *fabric["plain"]] if change else [],
            "allow_held": "held" in self.allow,
            "headers_packages": headers,
            "remove_packages": outdated,
            "module_stream": data.MODULE_STREAMS[target.flavour].format(branch=branch)
            if change and system.module_streams and target.source == "nvidia_repository"
            else "",
            "pin": pin,
            "nouveau": {
                "needed": True,
                "path": data.NOUVEAU_PATH,
                "content": data.NOUVEAU_CONTENT,
                "initramfs": _initramfs(),
                "rebuild": bool(change and self.begun or self.host.get("initramfs_outdated")),
                "grubby": [] if system.apt else list(data.GRUBBY),
            },
            "unattended_upgrades": self._upgrades(system, target),
            "fabric_manager": {"packages": [*fabric["exact"], *fabric["plain"]], "service": data.FABRIC_MANAGER_SERVICE if fabric["exact"] else ""},
            "persistence": {"service": data.PERSISTENCE_SERVICE, "path": data.PERSISTENCE_PATH, "content": data.PERSISTENCE_CONTENT},
            "kernels_to_check": [kernel["release"] for kernel in kernels_to_check(self.host)],
            "state": self._state(target, version, [*exact, *names.plain], system, pin.get("locks", []))
            if change and (version or self.offers is not None)
            else None,
        }

    def _prerequisites(self, system: Platform, target: Target) -> list[str]:
        if self.wishes.get("source") == "mirror":
            # Whoever has a mirror has what the driver needs in it too, and nothing else may be reachable
            return []
        return [name for name in data.PREREQUISITES.get((system.family, target.source), ()) if name not in self.installed]

    def _repository(self, system: Platform, target: Target) -> dict[str, Any]:
        if target.source == "distribution":
            return {"kind": "none"}
        machine = self.host["os"]["arch"]
        mirror = str(self.wishes.get("mirror_url") or "").rstrip("/") if self.wishes.get("source") == "mirror" else ""
        url = mirror or f"{data.REPOSITORY}/{system.key}/{data.REPOSITORY_ARCHITECTURES[machine]}"
        key, sha256 = (str(self.wishes.get(name) or "") for name in ("mirror_key", "mirror_key_sha256"))
        if not system.apt:
            own = key if mirror else ""
            return {
                "kind": "rpm",
                "name": data.YUM_REPOSITORY_NAME,
                "description": "NVIDIA's driver",
                "baseurl": f"{url}/",
                "key": {"url": own or f"{url}/{data.RPM_KEY_FILE}", "checksum": f"sha256:{sha256}" if own and sha256 else "", "path": data.RPM_KEY_COPY},
                "signed_by": data.RPM_KEY_PATH,
                "gpgkey": f"file://{data.RPM_KEY_PATH}",
                "fingerprint": "" if own else data.RPM_KEY_FINGERPRINT,
            }
        keyring = {"url": f"{url}/{data.KEYRING_FILE}", "checksum": f"sha256:{system.keyring_sha256}"}
        if not mirror:
            done = numbers(self.installed.get(data.KEYRING_PACKAGE, "")) >= numbers(data.KEYRING_VERSION)
            return {
                "kind": "keyring_package",
                "package": data.KEYRING_PACKAGE,
                "installed": done,
                "keyring": {**keyring, "path": data.KEYRING_COPY},
            }
        # A copy of NVIDIA's folder has the package with the key in it; that package is not installed, because it names NVIDIA's own address
        packed = not key or key.endswith(".deb")
        fetched = {"url": key, "checksum": f"sha256:{sha256}" if sha256 else ""} if key else keyring
        signed_by = data.APT_KEY_PATH + (".gpg" if packed or key.endswith(".gpg") else ".asc")
        return {
            "kind": "deb",
            "path": data.APT_SOURCE_PATH,
            "content": "# Written by aikit.fleet.nvidia_driver\nTypes: deb\n"
            f"URIs: {url}/\nSuites: /\nArchitectures: {data.DEB_ARCHITECTURES[machine]}\nSigned-By: {signed_by}\n",
            "signed_by": signed_by,
            "keyring": {**fetched, "path": data.KEYRING_COPY, "folder": data.KEYRING_FOLDER} if packed else None,
            "extracted": f"{data.KEYRING_FOLDER}/{data.KEYRING_KEY}" if packed else "",
            "key": None if packed else fetched,
        }

    def _pin(self, system: Platform, target: Target, version: str, branch: int, specs: Sequence[str]) -> dict[str, Any]:
        if not system.apt:
            locks = [f"{spec}.*" for spec in specs if any(character.isdigit() for character in spec.rpartition("-")[2])] if version and self.offers else []
            stale = [lock for lock in self._locks() if lock not in locks] if locks else []
            return {"kind": "versionlock", "packages": [data.VERSIONLOCK_PACKAGE], "locks": locks, "stale": stale}
        return {"kind": "preferences", "path": data.PIN_PATH, "content": pin_content(system, target.source, version or f"{branch}.")}

    def _locks(self) -> list[str]:
        """Locks of dnf that this role set, in whichever run."""
        return list(dict.fromkeys([*(self.memory.get("locks") or ()), *(self.begun.get("locks") or ())]))

    def _upgrades(self, system: Platform, target: Target) -> Optional[dict[str, str]]:
        if not system.apt:
            return None
        prebuilt = (system.family, target.source) == ("ubuntu", "distribution")
        patterns = [*data.UPGRADES_BLACKLIST, *(data.UPGRADES_BLACKLIST_KERNEL if prebuilt else ())]
        lines = "".join(f'    "{pattern}";\n' for pattern in patterns)
        content = (
            "// A driver that changes at night no longer fits the loaded module; written by aikit.fleet.nvidia_driver\n"
            f"Unattended-Upgrade::Package-Blacklist {{\n{lines}}};\n"
        )
        return {"path": data.UPGRADES_PATH, "content": content}

    def _fabric_manager(self, system: Platform, target: Target) -> dict[str, list[str]]:
        if not self._needs_fabric_manager():
            return {"exact": [], "plain": []}
        names: Iterable[str] = ()
        if target.source == "distribution":
            names = data.FABRIC_MANAGER_DISTRIBUTION.get(system.family, ())
        else:
            rows = data.FABRIC_MANAGER["rhel" if not system.apt else system.family]
            names = [found for first, found in rows if target.branch >= first][-1]
        blackwell = any(architecture(gpu) == "blackwell" for gpu in self.driven)
        return {
            "exact": [name.format(branch=target.branch) for name in names],
            "plain": list(data.FABRIC_MANAGER_BLACKWELL) if blackwell else [],
        }

    def _outdated(self, system: Platform, target: Target, wanted: Collection[str]) -> list[str]:
        """Installed packages of the old driver that the new one does not replace under the same name."""
        now = self._current()
        if now is None:
            return []
        old = set()
        other = {"open": "proprietary", "proprietary": "open"}[target.flavour]
        for flavour in (other, target.flavour):
            for branch in dict.fromkeys((now.branch, target.branch)):
                names = _packages(system, now.source, branch, flavour, self._kernel_flavour())
                old |= {*names.exact, *names.plain}
        if now.source != target.source:
            old |= {name for name in self.installed if _is_driver(name)}
        if now.branch != target.branch:
            old |= {name for name in self.installed if _is_driver(name) and re.search(rf"-{now.branch}(?:-|$)", name)}
        return sorted(name for name in old & set(self.installed) if name not in wanted)

    def _companions(self, known: Collection[str]) -> list[str]:
        """Further parts of the driver that is there (firmware, libraries), of whichever version: where the new version has them they become it too.
        After half an upgrade apt finds no way by itself, with every version named it does."""
        parts = [name for name, found in self._driver_packages().items() if len(numbers(found)) >= 2]
        return sorted(name for name in {*parts, *self.half} if name not in known)

    def _offered_at(self, version: str, names: Iterable[str], system: Platform) -> list[str]:
        offers = cast("Mapping[str, str]", self.offers)
        offered = parse_candidates(offers.get("candidates", ""), system.apt)
        found = {name: _newest(full for full in offered.get(name, ()) if numbers(full) == numbers(version)) for name in names}
        return [f"{name}{'=' if system.apt else '-'}{full}" for name, full in found.items() if full]

    def _removed(self) -> dict[str, Any]:
        records = [record for record in (self.memory.get("current"), self.begun.get("current")) if record]
        packages = {name for record in records for name in record.get("packages") or ()} | set(self.half)
        # What came along has the driver's own version
        versions = [numbers(record.get("version", "")) for record in records]
        packages |= {
            name for name, found in self._driver_packages().items() for version in versions if version and numbers(found)[: len(version)] == version
        }
        apt = self.platform.apt if self.platform else True
        repository: dict[str, Any] = self.memory.get("repository") or self.begun.get("repository") or {"kind": "none"}
        return {
            "remove_packages": sorted(name for name in packages if name in self.installed or name in self.half),
            "remove_repository": repository,
            "remove_repository_files": [repository[key] for key in ("path", "signed_by") if repository.get(key)]
            + [data.KEYRING_FOLDER, data.KEYRING_COPY, data.RPM_KEY_COPY],
            "remove_files": [*((data.PIN_PATH, data.UPGRADES_PATH) if apt else ()), data.NOUVEAU_PATH, data.PERSISTENCE_PATH],
            "remove_locks": self._locks(),
            "remove_module_stream": bool(self.platform and self.platform.module_streams)
            and any(record.get("source") == "nvidia_repository" for record in records),
            "nouveau": {
                "needed": False,
                "path": data.NOUVEAU_PATH,
                "content": "",
                "initramfs": _initramfs(),
                "rebuild": False,
                "grubby": [] if apt else list(data.GRUBBY_UNDO),
            },
        }

    # --- offers ---------------------------------------------------------------------------------------------------

    def _chosen(self, system: Platform, target: Target, exact: Sequence[str], outdated: Sequence[str]) -> tuple[str, list[str]]:
        """The version to install, and each package with it. Refuses what the package manager cannot install."""
        offers = cast("Mapping[str, str]", self.offers)
        offered = parse_candidates(offers.get("candidates", ""), system.apt)
        held = sorted(set(offers.get("held", "").split()) & {*exact, *outdated})
        if held:
            self._refuse(
                "held",
                f"{', '.join(held)} {'is' if len(held) == 1 else 'are'} held.",
                f"Release it (apt-mark unhold {' '.join(held)}), or take it on with nvidia_driver_allow: [held].",
            )
        missing = [name for name in exact if name not in offered]
        if missing:
            self._refuse(
                "not_offered",
                f"No source of packages on this host offers {', '.join(missing)}.",
                "Debian's own driver needs the components contrib, non-free and non-free-firmware in apt's sources."
                if (system.family, target.source) == ("debian", "distribution")
                else "Check that the repository can be reached and has this branch for this system.",
            )
            return "", list(exact)
        newest_only = (system.family, target.source) == ("almalinux", "distribution")
        common = set.intersection(*({numbers(found) for found in offered[name]} for name in exact))
        fitting = sorted(
            version
            for version in common
            if (version == numbers(target.version) if target.version else newest_only or version[:1] == (target.branch,))
        )
        there = ", ".join(sorted({upstream(found) for found in offered[exact[0]]}, key=numbers))
        if not fitting:
            wanted = target.version or f"a driver of branch {target.branch}"
            self._refuse(
                "not_offered",
                f"The packages are there as {there}, but {wanted} is wanted.",
                "Set nvidia_driver_version or nvidia_driver_branch to one of these.",
            )
            return "", list(exact)
        version = upstream(_newest(found for found in offered[exact[0]] if numbers(found) == fitting[-1]))
        if self._below(version, numbers(version)[0]):
            self._refuse(
                "below_floor",
                f"The newest driver that is offered is {version}, which has known vulnerabilities{self._fixed_in(numbers(version)[0])}.",
                "Update the mirror, choose another source, or take it on with nvidia_driver_allow: [below_floor].",
            )
        return version, self._offered_at(version, exact, system)

    def _check_headers(self, headers: Sequence[str], system: Platform) -> None:
        """Without the headers of the kernel that is booted next, dkms builds no module for it, and says nothing."""
        offered = parse_candidates(cast("Mapping[str, str]", self.offers).get("candidates", ""), system.apt)
        missing = [name for name in headers if name not in offered and name not in self.installed]
        if missing:
            self._refuse(
                "no_headers",
                f"No source of packages on this host offers {', '.join(missing)}, without which no module can be built.",
                "Archives drop the headers of old kernels: upgrade the kernel, reboot, and run again. Those of a kernel of your own you install yourself.",
            )

    def _docker(self) -> bool:
        """Services run under Docker; a daemon that does not answer has none running."""
        return any(engine["name"] == "docker" and engine.get("answers", True) for engine in self.engines)

    def _loading(self, change: bool, action: str) -> str:
        """How the new module may come into use without a reboot: ``load`` it, or ``reload`` where an old one is loaded."""
        if not change or any(gpu.get("driver_in_use") == "nouveau" for gpu in self.driven):
            return ""
        if self.state in ("loaded", "mismatch"):
            return "unload" if action == "remove" else "reload"
        return "" if action == "remove" else "load"

    # --- small things ---------------------------------------------------------------------------------------------

    def _kernel_flavour(self) -> str:
        if self.platform is None or self.platform.family != "ubuntu":
            return ""
        return ubuntu_kernel_flavour(self.platform, self.host)

    def _reboot_reason(self, action: str) -> str:
        if action == "none":
            if self.state == "mismatch":
                return self._mismatch()
            if self.state == "installed_not_loaded" and self._module_waits() and self.problems:
                return "The installed driver is not loaded."
            return ""
        if action == "refuse":
            return ""
        if self.state in ("loaded", "mismatch"):
            return "The loaded module is still that of the old driver."
        if any(gpu.get("driver_in_use") == "nouveau" for gpu in self.driven):
            return "nouveau drives the GPU until then."
        return ""

    def _state(self, target: Target, version: str, packages: Sequence[str], system: Platform, locks: Sequence[str]) -> dict[str, Any]:
        now, mine = self._current(), self._mine()
        previous = self.begun.get("previous") if self.begun else self.memory.get("previous")
        half = self.begun and self.begun["current"]["version"] == version
        # A half-changed host has no driver that one would go back to
        if now and not half and not self.half and now.source in ("nvidia_repository", "distribution") and numbers(now.version) != numbers(version):
            previous = {"version": now.version, "branch": now.branch, "flavour": now.flavour or target.flavour, "source": now.source}
            previous["packages"] = list(mine.get("packages") or ())
        return {
            "schema": SCHEMA,
            "current": {
                "version": version,
                "branch": numbers(version)[0] if version else target.branch,
                "flavour": target.flavour,
                "source": target.source,
                "packages": list(packages),
            },
            "previous": previous,
            "repository": self._remembered_repository(self._repository(system, target)),
            "locks": list(locks),
        }

    def _remembered_repository(self, repository: Mapping[str, Any]) -> dict[str, Any]:
        """What a removal takes away: not a keyring package that was here before this role."""
        mine: dict[str, Any] = self.memory.get("repository") or self.begun.get("repository") or {}
        if mine.get("kind") == repository["kind"]:
            return mine
        return {key: repository[key] for key in ("kind", "name", "package", "path", "signed_by", "installed") if key in repository}

    def _steps(self, described: Mapping[str, Any]) -> list[str]:
        """What would be done, for people."""
        if not described["change"]:
            return []
        if described["action"] == "remove":
            return [f"{', '.join(described['remove_packages']) or 'No package'} would be removed, with what this role wrote."]
        version = described["version"] or f"the newest version of branch {described['branch']} that is offered"
        lines = [
            f"{described['reason']} NVIDIA's driver, {version}, {described['flavour']} modules, from {_source_name(described['source'])},"
            " would be installed."
        ]
        lines.append(f"Packages: {', '.join([*described['prerequisites'], *described['headers_packages'], *described['packages']])}.")
        if described["remove_packages"]:
            lines.append(f"Removed before: {', '.join(described['remove_packages'])}.")
        if described["drain_services"]:
            lines.append("Services of aikit.fleet that hold GPUs would be stopped before and started after.")
        return lines


def _nothing() -> dict[str, Any]:
    return {
        "repository": {"kind": "none"},
        "prerequisites": [],
        "query": [],
        "packages": [],
        "headers_packages": [],
        "remove_packages": [],
        "remove_repository": {"kind": "none"},
        "remove_repository_files": [],
        "remove_files": [],
        "remove_locks": [],
        "remove_module_stream": False,
        "allow_held": False,
        "module_stream": "",
        "pin": None,
        "nouveau": {"needed": False, "path": data.NOUVEAU_PATH, "content": "", "initramfs": [], "rebuild": False, "grubby": []},
        "unattended_upgrades": None,
        "fabric_manager": {"packages": [], "service": ""},
        "persistence": {"service": data.PERSISTENCE_SERVICE, "path": data.PERSISTENCE_PATH, "content": ""},
        "kernels_to_check": [],
        "state": None,
    }


# --- after the change --------------------------------------------------------------------------------------------


def outcome(info: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    """What became of a plan: facts, whether a reboot is due and safe, and what is wrong."""
    driver, host = info["driver"], info["host"]
    state = installed_state(driver)
    gpus = [gpu for gpu in info["gpus"] if gpu["vendor"] == "nvidia"]
    broken = [problem for problem in info.get("problems") or () if problem["name"] in data.BROKEN]
    problems = list(described["problems"])
    # A plan without a source leaves the host alone, unless it is one that was refused
    wanted = described["action"] != "remove" and bool(gpus) and (described["source"] != "" or described["action"] == "refuse")
    reason = ""
    if wanted and state == "mismatch":
        reason = f"The loaded module is {driver.get('version') or 'another one'}, installed is {driver.get('installed_version')}."
    elif wanted and state == "installed_not_loaded":
        reason = "The installed driver is not loaded yet."
    elif wanted and state == "nouveau" and described["change"]:
        reason = "nouveau drives the GPU until then."
    elif described["action"] == "remove" and state in ("loaded", "mismatch"):
        reason = "The module of the removed driver is still loaded."
    kernels = kernels_to_check(host)
    installed = driver.get("installed_version") or driver.get("version") or ""
    without = [_without(kernel, installed) for kernel in kernels if not _has_module(kernel, installed)]
    if not kernels:
        without = ["No kernel was found on this host."]
    safe = described["action"] == "remove" or not without
    refusal = f"{' '.join(without)} A reboot now would leave the host without its GPU. See what dkms status says, and install the headers of that kernel."
    if reason and not safe:
        reason = f"{reason} {refusal}"
    # A driver that a reboot would bring into use may wait for it; one that is not there, or that no reboot would load, may not
    waits = bool(reason) and state != "nouveau" and not (state == "installed_not_loaded" and not safe)
    wrong = [*(described["refusals"] if described["action"] == "refuse" else ()), *broken]
    return {
        "facts": {
            "state": state,
            "version": driver.get("version") or "",
            "installed_version": driver.get("installed_version") or "",
            "branch": driver.get("branch"),
            "flavour": driver.get("flavour") or "",
            "source": driver.get("source") or "",
            "cuda_version": driver.get("cuda_version") or "",
            "gpus": len(gpus),
            "action": described["action"],
            "reason": described["reason"],
            "problems": problems,
        },
        "reboot_required": bool(reason),
        "reboot_required_reason": reason,
        "reboot_is_safe": safe,
        "reboot_refusal": "" if safe else refusal,
        "works": state == "loaded" and not broken,
        "summary": _summary(described, driver, reason, gpus),
        "failure": " ".join(["NVIDIA's driver does not work.", *filter(None, [reason]), *(f"{entry['detail']} {entry['hint']}" for entry in wrong)]),
        "expected": wanted and not waits,
    }


def _summary(described: Mapping[str, Any], driver: Mapping[str, Any], reboot: str, gpus: Sequence[Any]) -> str:
    words = [described["reason"]]
    if described["change"] and gpus and driver["state"] == "loaded":
        words.append(f"Now: {driver.get('version')} ({driver.get('flavour')} modules).")
    if reboot:
        words.append(f"A reboot is due. {reboot}")
    return " ".join(words)


def _has_module(kernel: Mapping[str, Any], installed: str) -> bool:
    """A module that does not tell its version is believed to fit."""
    found = str(kernel.get("nvidia_module") or "")
    return bool(found) and (not numbers(found) or numbers(found) == numbers(installed))


def _without(kernel: Mapping[str, Any], installed: str) -> str:
    found = kernel.get("nvidia_module") or ""
    has = f"NVIDIA's module {found}, installed is {installed}" if found else "no module of NVIDIA's driver"
    return f"Kernel {kernel['release']} has {has}{'' if kernel.get('headers') or found else ' and no headers to build one'}."


def kernels_to_check(host: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The kernel that the next boot takes: the newest."""
    # What has no image is no kernel to boot: headers alone, or a host that is a container
    kernels = [kernel for kernel in host.get("kernels") or () if kernel.get("image", True)]
    return [max(kernels, key=lambda kernel: gpu_driver.boot_order(kernel["release"]))] if kernels else []


def installed_state(driver: Mapping[str, Any]) -> str:
    """The driver's state; where nouveau still has the GPU and NVIDIA's driver is installed, it is the latter's."""
    return "installed_not_loaded" if driver["state"] == "nouveau" and driver.get("installed_version") else str(driver["state"])


# --- what users write ---------------------------------------------------------------------------------------------


def wanted_branch(value: Any) -> Optional[int]:
    """The number of a branch; None for ``auto``."""
    text = str(value or "auto").strip()
    if text == "auto":
        return None
    if re.fullmatch(r"\d{3,4}", text, re.ASCII):
        return int(text)
    found = re.search(r"\d{3,4}", text, re.ASCII)
    likely = found.group() if found else str(data.DEFAULT_BRANCH)
    raise AikitError(
        f"nvidia_driver_branch is {text!r}, which is no branch.",
        f"Write auto, or a number such as {likely}; an exact version goes into nvidia_driver_version, the kind of modules into nvidia_driver_flavour.",
    )


def wanted_version(value: Any) -> str:
    """An exact version; empty where the branch decides."""
    text = str(value or "").strip()
    if text and not re.fullmatch(r"\d{3,4}(\.\d{1,5}){1,2}", text, re.ASCII):
        raise AikitError(
            f"nvidia_driver_version is {text!r}, which is no exact version.",
            "Write one such as 580.159.03, or leave it empty for the newest of the branch in nvidia_driver_branch.",
        )
    return text


# --- what is known of GPUs and systems ---------------------------------------------------------------------------


def platform(os: Mapping[str, Any]) -> Optional[Platform]:
    """The system, where it is one of ours."""
    identity, version = str(os.get("id", "")), str(os.get("version_id", ""))
    return data.PLATFORMS.get((identity, version)) or data.PLATFORMS.get((identity, version.partition(".")[0]))


def known_systems() -> str:
    return ", ".join(dict.fromkeys(system.name for system in data.PLATFORMS.values()))


def package_names(system: Platform, source: str) -> Optional[Sequence[tuple[int, Mapping[str, data.Packages]]]]:
    """How packages of ``source`` are named on ``system``; AlmaLinux takes NVIDIA's for RHEL."""
    family = "rhel" if source == "nvidia_repository" and not system.apt else system.family
    return data.PACKAGES.get((family, source))


def _fitting(names: Sequence[tuple[int, Mapping[str, data.Packages]]], branch: int) -> Mapping[str, data.Packages]:
    return [found for first, found in names if branch >= first][-1]


def _packages(system: Platform, source: str, branch: int, flavour: str, kernel: str) -> data.Packages:
    names = package_names(system, source)
    found = _fitting(names, branch).get(flavour) if names else None
    if found is None:
        return data.Packages(())
    words = {"branch": branch, "kernel": kernel}
    return data.Packages(tuple(name.format(**words) for name in found.exact), tuple(name.format(**words) for name in found.plain))


def headers_packages(system: Platform, host: Mapping[str, Any]) -> list[str]:
    """The package that always draws the headers of the newest kernel in, and those of the kernel that is booted next where it lacks them:
    the archive may have a newer one by now. dkms builds a module for every kernel that has headers."""
    kernel = str(host.get("kernel") or "")
    if not system.apt:
        # These bring the kernel that they belong to
        return list(data.RPM_HEADERS_64K if kernel.endswith("+64k") or kernel.endswith("64k") else data.RPM_HEADERS)
    lacking = [f"linux-headers-{found['release']}" for found in kernels_to_check(host) if not found.get("headers", True)]
    return [_headers_metapackage(system, host, kernel), *lacking]


def _headers_metapackage(system: Platform, host: Mapping[str, Any], kernel: str) -> str:
    if system.family == "ubuntu":
        return f"linux-headers-{ubuntu_kernel_flavour(system, host)}"
    machine = data.DEB_ARCHITECTURES.get(host["os"]["arch"], "amd64")
    installed = host.get("packages") or {}
    for name in (f"cloud-{machine}", f"rt-{machine}", machine):
        if f"linux-image-{name}" in installed or kernel.endswith(f"-{name}"):
            return f"linux-headers-{name}"
    return f"linux-headers-{machine}"


def ubuntu_kernel_flavour(system: Platform, host: Mapping[str, Any]) -> str:
    """``generic``, ``aws`` or ``generic-hwe-24.04``: how the packages of a host's kernel are called."""
    installed = host.get("packages") or {}
    release = system.name.partition(" ")[2]
    kernel = str(host.get("kernel") or "")
    found = re.match(r"(\d+\.\d+)\.\d+-\d+-([a-z0-9-]+)$", kernel)
    flavour = found.group(2) if found else "generic"
    for name in (f"{flavour}-hwe-{release}", flavour):
        if f"linux-image-{name}" in installed:
            return name
    newer = bool(found) and numbers(found.group(1) if found else "") > numbers(data.UBUNTU_KERNELS[system.key])
    return f"{flavour}-hwe-{release}" if newer and flavour in ("generic", "generic-64k", "lowlatency") else flavour


def pin_content(system: Platform, source: str, version: str) -> str:
    """A file of apt's preferences that keeps the driver at ``version`` (``580.`` is the whole branch), above all other sources."""
    records = []
    other = data.FOREIGN_RELEASES.get((system.family, source))
    if other:
        records.append(f"Package: {' '.join(data.FOREIGN_PACKAGES)}\nPin: {other}\nPin-Priority: -1\n")
    records.append(f"Package: {' '.join(data.PIN_PACKAGES)}\nPin: version {version}*\nPin-Priority: 1001\n")
    return "# NVIDIA's driver stays as it is until someone wants another; written by aikit.fleet.nvidia_driver\n" + "\n".join(records)


def parse_candidates(text: str, apt: bool) -> dict[str, list[str]]:
    """Package → versions, of ``apt-cache madison`` (`` name | version | source``) or of dnf repoquery (``name version``)."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = [word.strip() for word in (line.split("|") if apt else line.split())]
        if len(words) >= 2 and numbers(words[1]) and (not apt or not words[2:] or "Sources" not in words[2]):
            versions = found.setdefault(words[0], [])
            if words[1] not in versions:
                versions.append(words[1])
    return found


def state_text(state: Mapping[str, Any], drained: Sequence[str] = ()) -> str:
    """The role's state file; ``drained`` names the services that wait to be started again."""
    kept = {key: value for key, value in state.items() if key != "drained"}
    return json.dumps({**kept, **({"drained": sorted(drained)} if drained else {})}, indent=2, sort_keys=True) + "\n"


def parse_state(text: str) -> dict[str, Any]:
    """What the role remembers of a host; an empty mapping where it never changed it."""
    if not text.strip():
        return {}
    try:
        state = json.loads(text)
    except ValueError as error:
        raise AikitError(f"{data.STATE_PATH} is not JSON: {error}.", "Move it away: the driver is then one that this role does not know.") from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise AikitError(f"{data.STATE_PATH} is not of schema {SCHEMA}.", "Move it away: the driver is then one that this role does not know.")
    return state


def architecture(gpu: Mapping[str, Any]) -> str:
    """The architecture as gpu_info tells it, or by the PCI id."""
    known = data_gpu.nvidia_range(_device(gpu))
    return str(gpu.get("architecture") or (known[0] if known else ""))


def open_only(gpu: Mapping[str, Any]) -> bool:
    """Whether NVIDIA's proprietary modules do not drive a GPU: Grace Hopper, Blackwell, and what is newer than all that is known here."""
    return architecture(gpu) in data_gpu.OPEN_ONLY_ARCHITECTURES or _device(gpu) in data_gpu.OPEN_ONLY_DEVICES or _is_newer_than_known(gpu)


def _is_newer_than_known(gpu: Mapping[str, Any]) -> bool:
    return _device(gpu) > max(last for _first, last, _architecture, _capability in data_gpu.NVIDIA_RANGES)


def below_floor(version: str, branch: int) -> bool:
    """Whether a driver has known vulnerabilities: below its branch's floor, or of a branch without fixes. A feature branch newer than
    all floors is not judged."""
    if branch in data_nvidia.DRIVER_FLOORS:
        return bool(version) and bool(gpu_driver.floor_of(version)[1])
    return bool(gpu_driver.floor_of(str(branch))[1]) or (branch in data.BRANCHES and data.BRANCHES[branch].status == "ended")


def _device(gpu: Mapping[str, Any]) -> int:
    """The device id; a GPU whose id is not known is taken by its architecture."""
    device = str(gpu.get("pci_id") or "").partition(":")[2]
    if re.fullmatch(r"[0-9a-fA-F]{4}", device):
        return int(device, 16)
    for first, _last, name, _capability in data_gpu.NVIDIA_RANGES:
        if name == gpu.get("architecture"):
            return first
    return data_gpu.FIRST_OPEN_DEVICE


def _maintained(branch: int) -> bool:
    return branch in data.BRANCHES and data.BRANCHES[branch].status != "ended"


def _is_vgpu(gpus: Sequence[Mapping[str, Any]], packages: Iterable[str]) -> bool:
    """Known from the driver or its packages. Without either, a part of a GPU looks like the whole one: it has the same device id."""
    named = any(gpu.get("virtualization") == "vgpu" or re.search(data.VGPU_NAME, str(gpu.get("name") or "")) for gpu in gpus)
    return named or any(re.match(data.VGPU_PACKAGE, name) for name in packages)


def _is_driver(name: str) -> bool:
    return bool(re.match(data.DRIVER_PACKAGE, name)) and not re.match(data.NO_DRIVER_PACKAGE, name)


def _initramfs() -> list[dict[str, Any]]:
    return [{"program": program, "argv": list(argv)} for program, argv in data.INITRAMFS]


def _newest(versions: Iterable[str]) -> str:
    """The newest build of one upstream version."""
    return max(versions, key=lambda text: [int(number) for number in re.findall(r"\d+", text)], default="")


def _name(driver: Mapping[str, Any]) -> str:
    version = driver.get("installed_version") or driver.get("version") or "of an unknown version"
    flavour = f" ({driver['flavour']} modules)" if driver.get("flavour") else ""
    return f"NVIDIA's driver {version}{flavour}"


def _names(gpus: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(str(gpu.get("name") or gpu.get("pci_id")) for gpu in gpus))


def _source_name(source: str) -> str:
    names = {"nvidia_repository": "NVIDIA's repository", "distribution": "the distribution", "runfile": "a .run file"}
    return names.get(source, "an unknown source")
