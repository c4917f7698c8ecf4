# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor's checks of one host: what gpu_info and container_engine_info found, judged by what the host is to do.

gpu_info names what is wrong; here each problem finds its check, and keeps its words. What a result does not tell is not judged.
"""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, Optional, Sequence

from . import data_nvidia
from .version import at_least, numbers

PROVISION = "Run aikit.fleet.provision."

# Problems that a check below speaks of. Every other one becomes a check of its own.
_DRIVER = ("driver_mismatch", "nouveau_in_use", "driver_not_loaded", "nvidia_smi_hung", "nvidia_smi_missing", "nvidia_smi_failed", "nvidia_smi_unreadable")
_FABRIC = ("fabric_manager_inactive", "fabric_manager_mismatch", "fabric_not_ready")
_TOOLKIT = ("toolkit_below_floor", "toolkit_mixed")

# They tell of a program that erred, and stay in the kernel log until the next boot: the host is well
_NOT_THE_HOST = frozenset({"xid_application"})

_BUILT_HERE = re.compile(r".*nvidia.*dkms.*")


class Problems:
    """The problems of gpu_info; those that a check took are not told twice."""

    def __init__(self, found: Sequence[Mapping[str, Any]]) -> None:
        self._found = list(found)

    def take(self, *names: str) -> Optional[Mapping[str, Any]]:
        """The first problem of one of ``names``. The others of that name are said by the doctor on their own."""
        for name in names:
            for problem in self._found:
                if problem["name"] == name:
                    self._found.remove(problem)
                    return problem
        return None

    def rest(self) -> Iterator[Mapping[str, Any]]:
        yield from self._found


def host_checks(found: Mapping[str, Any], engine: Optional[Mapping[str, Any]] = None, wishes: Optional[Mapping[str, Any]] = None) -> list[dict[str, Any]]:
    """``{name, ok, detail, hint}`` per check.

    ``found`` is the result of gpu_info, ``engine`` that of container_engine_info (or its key ``engine``), ``wishes`` says
    what the host is to do: ``gpus``, whether a service wants a GPU here. GPUs are judged on a host whose services want
    them, and on one that was made for it, also before it has a service.
    """
    told = dict((engine or {}).get("engine") or engine or {})
    checks = [_engine(told)] if told else []
    gpus = list(found.get("gpus") or ())
    if not (wishes or {}).get("gpus") and not _made_for_gpus(found):
        return checks
    problems = Problems(found.get("problems") or ())
    checks.append(_gpus(gpus, problems))
    nvidia = [gpu for gpu in gpus if gpu.get("vendor") == "nvidia"]
    driver = found.get("driver") or {}
    if nvidia or driver.get("state") == "wsl":
        checks += _nvidia(found, driver, str(told.get("name") or ""), problems)
    for gpu in gpus:
        if gpu.get("vendor") == "amd":
            detail = f"GPU {gpu.get('pci_bus_id')} is driven by {gpu.get('driver_in_use') or 'nothing'}"
            checks.append(_check("driver", gpu.get("driver_in_use") == "amdgpu", detail, "Install and load amdgpu."))
    for problem in problems.rest():
        checks.append(_check(str(problem["name"]).replace("_", " "), problem["name"] in _NOT_THE_HOST, problem["detail"], problem["hint"]))
    return checks


def _made_for_gpus(found: Mapping[str, Any]) -> bool:
    """The Container Toolkit says what a host is for: a desktop with a card and NVIDIA's driver has none, nor need of one."""
    cards = any(gpu.get("vendor") == "nvidia" for gpu in found.get("gpus") or ()) or any(
        problem["name"] == "gpus_missing" for problem in found.get("problems") or ()
    )
    return cards and bool((found.get("toolkit") or {}).get("version"))


def _nvidia(found: Mapping[str, Any], driver: Mapping[str, Any], engine: str, problems: Problems) -> Iterator[dict[str, Any]]:
    host = found.get("host") or {}
    wsl = driver.get("state") == "wsl"
    yield _driver(driver, problems)
    yield from _floors(driver, problems)
    if not wsl:
        yield _secure_boot(host.get("secure_boot"), problems)
        yield from _kernels(host, driver, problems)
        yield from _fabric(host.get("fabric_manager") or {}, driver, problems)
        yield from _persistence(host.get("persistence"))
        yield from _night_upgrades(host)
    yield _toolkit(found.get("toolkit") or {}, problems)
    yield from _cdi(found, engine, problems)


def _engine(engine: Mapping[str, Any]) -> dict[str, Any]:
    if engine.get("msg") and "name" not in engine:
        # The module failed: with an engine that will not do
        hint = str(engine.get("hint") or f"Mend it. {PROVISION}")
        return _check("engine", False, str(engine["msg"]).replace(hint, "").strip(), hint)
    name = engine.get("name") or "no engine"
    if engine.get("answers"):
        return _check("engine", True, f"{name} {engine.get('version')}".strip(), "")
    detail = engine.get("problem") or (f"{name} does not answer" if engine.get("installed") else f"{name} is not installed")
    return _check("engine", False, str(detail), str(engine.get("hint") or PROVISION))


def _gpus(gpus: Sequence[Mapping[str, Any]], problems: Problems) -> dict[str, Any]:
    gone = problems.take("gpus_missing")
    if gone:
        return _of("gpus", gone)
    if not gpus:
        hint = "Look at the card's seat, or at what the virtual machine is given; or ask for no GPU: gpus: []."
        return _check("gpus", False, "no GPU is there, and services want one", hint)
    counts: dict[str, int] = {}
    for gpu in gpus:
        name = str(gpu.get("name") or gpu.get("pci_id") or gpu.get("vendor"))
        counts[name] = counts.get(name, 0) + 1
    return _check("gpus", True, ", ".join(f"{count} x {name}" for name, count in counts.items()), "")


def _driver(driver: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    state = str(driver.get("state") or "absent")
    problem = problems.take(*_DRIVER)
    if problem:
        return _of("driver", problem)
    if state in ("loaded", "wsl"):
        origin = "of Windows" if state == "wsl" else str(driver.get("source") or "").replace("_", " ")
        words = (driver.get("version"), driver.get("flavour"), f"({origin})" if origin else "")
        return _check("driver", True, " ".join(str(word) for word in words if word) or state, "")
    hints = {
        "vfio": "The cards are given to virtual machines (vfio-pci): take them back, or ask for no GPU here.",
        "installed_not_loaded": "Reboot the host, or load the driver: modprobe nvidia.",
        "mismatch": "Reboot the host.",
    }
    return _check("driver", False, state.replace("_", " "), hints.get(state, PROVISION))


def _floors(driver: Mapping[str, Any], problems: Problems) -> Iterator[dict[str, Any]]:
    version = str(driver.get("version") or driver.get("installed_version") or "")
    below, old = problems.take("driver_below_floor"), problems.take("cuda_below_floor")
    if not version:
        return
    if below:
        yield _of("driver floor", below)
    elif driver.get("state") != "wsl":
        floor = driver.get("floor") or ""
        detail = f"{version}, floor {floor}" if floor else f"{version} is newer than every known floor"
        yield _check("driver floor", not driver.get("below_floor"), detail, f"Upgrade the driver to {floor} or newer.")
    cuda = str(driver.get("cuda_version") or "")
    if old:
        yield _of("cuda floor", old)
    elif cuda:
        ok = at_least(cuda, data_nvidia.CUDA_FLOOR) is not False
        yield _check("cuda floor", ok, f"{cuda}, images need {data_nvidia.CUDA_FLOOR}", f"Upgrade the driver to {data_nvidia.CUDA_DRIVER_FLOOR} or newer.")


def _secure_boot(state: Optional[bool], problems: Problems) -> dict[str, Any]:
    rejected = problems.take("secure_boot_rejects_module")
    if rejected:
        return _of("secure boot", rejected)
    words = {True: "on; the modules that are loaded are signed", False: "off", None: "not known; this is no UEFI system, or a container"}
    return _check("secure boot", True, words[state], "")


def _kernels(host: Mapping[str, Any], driver: Mapping[str, Any], problems: Problems) -> Iterator[dict[str, Any]]:
    """A kernel that gets no module leaves the host without GPUs after its next reboot, which may be months away."""
    running = problems.take("headers_missing")
    # A folder without an image is what a removed kernel leaves behind
    kernels = [kernel for kernel in host.get("kernels") or () if kernel.get("image", True)]
    if not kernels or not (driver.get("version") or driver.get("installed_version")):
        return
    if any(_BUILT_HERE.fullmatch(name) for name in host.get("packages") or ()):
        lacking = [str(kernel["release"]) for kernel in kernels if not kernel.get("headers")]
        detail = f"no headers for {', '.join(lacking)}" if lacking else f"there for all {len(kernels)} kernels" if len(kernels) > 1 else "there"
        hint = "Install the headers, and the metapackage that brings those of the next kernel; remove kernels that are not used."
        yield _check("kernel headers", not lacking, detail, running["hint"] if running else hint)
    newest = kernels[-1]
    release, module = str(newest["release"]), str(newest.get("nvidia_module") or "")
    wanted = str(driver.get("installed_version") or driver.get("version") or "")
    if not module:
        yield _check(
            "next kernel",
            False,
            f"{release} has no nvidia module: after a reboot the GPUs are gone",
            "Install its headers and build the module (dkms autoinstall -k RELEASE; make.log below /var/lib/dkms says why it failed), or boot another kernel.",
        )
        return
    same = module == "unknown" or not wanted or numbers(module) == numbers(wanted)
    detail = f"{release} has nvidia {module}" + ("" if same else f", the driver is {wanted}")
    yield _check("next kernel", same, detail, "Build the module of the driver's version: dkms autoinstall -k RELEASE.")


def _fabric(manager: Mapping[str, Any], driver: Mapping[str, Any], problems: Problems) -> Iterator[dict[str, Any]]:
    problem = problems.take(*_FABRIC)
    if problem:
        yield _of("fabric manager", problem)
    elif manager.get("needed"):
        ok = bool(manager.get("active"))
        found = f"{manager.get('version') or 'of unknown version'}, {manager.get('state') or 'active'}"
        detail = found if ok else "the cards are joined by NVSwitch, and it does not run"
        yield _check("fabric manager", ok, detail, f"Install nvidia-fabricmanager {driver.get('version') or ''}".rstrip() + ", and start it.")


def _persistence(daemon: Optional[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    if daemon is None:
        return
    # Without one all works, and programs wait while the driver wakes the GPUs; a driver from elsewhere may have none
    ok = bool(daemon.get("active") or not daemon.get("installed"))
    detail = "active" if daemon.get("active") else "not active" if daemon.get("installed") else "not installed"
    yield _check("persistence", ok, detail, "systemctl enable --now nvidia-persistenced, or run aikit.fleet.provision.")


def _night_upgrades(host: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Unattended upgrades replace the driver's libraries while its module stays loaded: the next container finds a mismatch."""
    if not host.get("unattended_upgrades"):
        yield _check("night upgrades", True, "no package is upgraded unasked", "")
        return
    driver = [name for name in host.get("packages") or () if re.match(r"(lib)?nvidia-(?!container)|libcuda1|cuda-drivers|linux-modules-nvidia-", name)]
    # Pinning packages and settings have no part in a mismatch
    driver = [name for name in driver if "pinning" not in name]
    if "unattended_blacklist" not in host:
        return
    kept = {*host.get("held_packages", ()), *host.get("pinned_packages", ())}
    open_ = sorted(name for name in driver if name not in kept and not any(_matches(pattern, name) for pattern in host["unattended_blacklist"]))
    detail = f"may replace {', '.join(open_[:3])}{' and more' if len(open_) > 3 else ''} under a running driver" if open_ else "leave the driver alone"
    hint = "Set nvidia_driver_state: managed and run aikit.fleet.provision, which pins the driver; or have the package manager hold it (apt-mark hold)."
    yield _check("night upgrades", not open_, detail, hint)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.match(pattern, name) is not None
    except re.error:
        # A pattern that is none keeps nothing back
        return False


def _toolkit(toolkit: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    problem = problems.take(*_TOOLKIT)
    if problem:
        return _of("toolkit", problem)
    version = str(toolkit.get("version") or "")
    if not version:
        return _check("toolkit", False, "NVIDIA Container Toolkit is not installed", PROVISION)
    floor = str(toolkit.get("floor") or data_nvidia.TOOLKIT_FLOOR)
    return _check("toolkit", not toolkit.get("below_floor"), f"{version}, floor {floor}", f"Upgrade its four packages to {floor} or newer.")


def _cdi(found: Mapping[str, Any], engine: str, problems: Problems) -> Iterator[dict[str, Any]]:
    cdi = found.get("cdi") or {}
    names = [name for name in cdi.get("devices") or () if name.startswith("nvidia.com/gpu=")]
    missing, new = problems.take("cdi_devices_missing"), problems.take("cdi_spec_too_new")
    if names:
        yield _check("cdi devices", True, f"{len(names)}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}", "")
    else:
        yield _of("cdi devices", missing) if missing else _check("cdi devices", False, "no CDI specification offers a GPU", PROVISION)
    mine = next((entry for entry in found.get("engines") or () if entry.get("name") == engine), None)
    if mine is None:
        return
    called = f"{engine} {mine.get('version') or ''}".strip()
    yield _check("cdi in engine", bool(mine.get("cdi")), f"{called} {'hands' if mine.get('cdi') else 'does not hand'} out CDI devices", PROVISION)
    spec, most = str(cdi.get("spec_version") or ""), str(mine.get("cdi_spec_max") or "")
    if new:
        yield _of("cdi specification", new)
    elif spec and most:
        ok = at_least(most, spec) is not False
        yield _check("cdi specification", ok, f"{spec}; {called} reads {most} and older", PROVISION)


def _of(name: str, problem: Mapping[str, Any]) -> dict[str, Any]:
    return _check(name, False, problem["detail"], problem["hint"])


def _check(name: str, ok: bool, detail: Any, hint: Any) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": str(detail), "hint": "" if ok else str(hint)}
