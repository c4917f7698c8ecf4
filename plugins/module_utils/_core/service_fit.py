# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services of a host and the plan of its GPU memory: what a plan is made from, when an earlier one stays, what it means for the proof.

A plan that a release was proven with stays as long as it still fits and what it was made from (:data:`.fit_record.INPUTS`) is the same. So a
desktop that opens a window, or a driver that counts a few MiB differently, changes nothing; and memory that another program takes
shrinks a plan only when there is no longer room for it. It grows again when it is asked to (``replan``), not by itself: a service
should not be replaced because somebody's notebook ended. It stays too while its model or the GPUs cannot be looked at (a server
that is away, a driver that does not answer in time), as long as what was asked for is the same.

An out-of-memory error while a model loads makes the plan one step smaller. The step is remembered with what it was learned on, and
is forgotten with it: another model, GPU, driver, server, wish or policy starts anew.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from . import fit
from .errors import AikitError, Finding
from .fit import Fit, Gpu, Host, ModelShape, Policy, Share, Wish
from .fit_record import MAX_STEPS, same_inputs, steps
from .fit_types import MIB
from .wish import PLAN_KEYS, files_of, image_key, key_of, uses_gpu

Planner = Callable[..., Sequence[Fit]]


@dataclass(frozen=True)
class Planned:
    """One service. ``state``: ``planned`` (settings come from the plan), ``counted`` (it has its own; the plan says whether they fit),
    ``server`` (left to the server: ``reason`` says why), or ``later`` (``reason`` says what must be there first)."""

    name: str
    state: str
    reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    verdict: Optional[tuple[str, ...]] = None
    fit: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kept: bool = False
    note: str = ""
    findings: tuple[Finding, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fits: Optional[bool] = None

    def as_dict(self) -> dict[str, Any]:
        found = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("findings", "settings", "fit", "before", "verdict")}
        return {
            **found,
            "settings": dict(self.settings),
            "verdict": list(self.verdict or ()),
            "fit": dict(self.fit),
            "before": dict(self.before),
        }


@dataclass(frozen=True)
class Outcome:
    """The plan of a host. ``known`` is false while something that it needs is not there yet; ``reason`` says what."""

    known: bool
    reason: str = ""
    services: tuple[Planned, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether nothing is known not to fit."""
        return all(service.fits is not False for service in self.services)


def plan_host(
    services: Sequence[Mapping[str, Any]],
    shapes: Mapping[str, Mapping[str, Any]],
    gpu_info: Optional[Mapping[str, Any]],
    memory: Optional[Mapping[str, Any]],
    policy: Policy,
    servers: Optional[Mapping[str, str]] = None,
    replan: bool = False,
    final: bool = False,
    alone: bool = False,
    planner: Optional[Planner] = None,
) -> Outcome:
    """Settings for the services of one host.

    :param services: ``services`` of service_plan's result.
    :param shapes: models by the keys of :func:`wish.key_of`: ``{shape}`` or ``{error}``.
    :param gpu_info: result of gpu_info; None where the host could not be asked.
    :param memory: result of inference_memory; None likewise.
    :param servers: by image, what serves in it ("llama_cpp 0.7.0"), as far as it is known.
    :param replan: make a new plan, whatever earlier ones and earlier errors said.
    :param final: nothing comes later: what is not known now is left to the server.
    :param alone: each service as if it were the only one, in place of all that run there.
    """
    if alone:
        if memory and "services" in memory:
            memory = {**memory, "services": [_only_held(entry) for entry in memory["services"]]}
        parts = [
            plan_host([service], shapes, gpu_info, memory, policy, servers, replan, final, planner=planner)
            for service in services
            if service.get("state") == "present"
        ]
        reason = next((part.reason for part in parts if part.reason), "")
        every = tuple(entry for part in parts for entry in part.services)
        return Outcome(all(part.known for part in parts), reason, every, tuple(finding for part in parts for finding in part.findings))
    wanted = [service for service in services if service.get("state") == "present" and service.get("wish") is not None]
    left = tuple(_left(service, "it computes on the CPU") for service in wanted if not uses_gpu(service) and service["wish"]["auto"])
    candidates = [service for service in wanted if uses_gpu(service)]
    if not candidates:
        return Outcome(True, "", left)
    found, why = host_gpus(gpu_info, any(service.get("gpus") for service in candidates))
    if found and memory and "services" not in memory:
        # Without it, what our own containers hold would count as taken
        found, why = (), f"after provisioning: {str(memory.get('msg') or 'the services of the host could not be looked at').strip()}"
    if not found:
        unseen = _unseen(gpu_info) and not replan
        old = {entry["name"]: entry for entry in (memory or {}).get("services") or ()}
        later = tuple(
            (unseen and _as_it_was(service, old.get(service["name"]) or {}, _inputs_anyway(service, servers, policy), why))
            or _without_gpus(service, why, final)
            for service in candidates
        )
        findings = tuple(finding for entry in later for finding in entry.findings)
        return Outcome(not any(entry.state == "later" for entry in later), why, (*left, *later), findings)
    # What is on its way out gives its memory back; a service on the CPU keeps it
    stays = {service["name"] for service in services if service.get("state") == "present"} - {service["name"] for service in candidates}
    return _Host(candidates, shapes, gpu_info or {}, found, memory or {}, policy, servers or {}, replan, final, planner or fit.plan, stays).plan(left)


def host_gpus(gpu_info: Optional[Mapping[str, Any]], nvidia: bool) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs whose memory is known, or why none is. MIG instances stand in the place of the GPU that they are parts of."""
    if not gpu_info or "gpus" not in gpu_info:
        message = str((gpu_info or {}).get("msg") or "").strip()
        return (), f"after provisioning: the host's GPUs could not be looked at{f' ({message})' if message else ''}"
    state = (gpu_info.get("driver") or {}).get("state")
    mine = [gpu for gpu in gpu_info["gpus"] if not nvidia or gpu.get("vendor") == "nvidia"]
    if not mine:
        return (), "no NVIDIA GPU was found on the host" if nvidia else "no GPU was found on the host"
    result: list[Gpu] = []
    for gpu in mine:
        result += _gpu(gpu)
    if result:
        return tuple(result), ""
    if nvidia and state not in ("loaded", "wsl"):
        return (), f"after provisioning: the NVIDIA driver is {str(state).replace('_', ' ')}, so the memory of the GPUs is not known"
    return (), "the driver does not tell the memory of the GPUs"


def _only_held(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What a service holds, without what it was planned and proven with: another one that has its name by chance must not be given that."""
    visible = (entry.get("fit") or {}).get("visible")
    held = {key: entry[key] for key in ("name", "held", "host_held_mib") if key in entry}
    return {**held, "fit": {"visible": visible} if visible else {}}


def _unseen(gpu_info: Optional[Mapping[str, Any]]) -> bool:
    """Whether it is not known what GPUs the host has: nobody answered, or a driver that is loaded did not tell their memory."""
    if not gpu_info or "gpus" not in gpu_info:
        return True
    return bool(gpu_info["gpus"]) and (gpu_info.get("driver") or {}).get("state") in ("loaded", "wsl")


def settings_of(service: Mapping[str, Any], found: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """The service with what the plan decided, for filter container_spec. Without a plan, or with one for later, nothing changes."""
    if not found or found.get("state") not in ("planned", "counted"):
        return dict(service)
    result = {**service, "fit": dict(found["fit"])}
    if found["state"] == "planned":
        result["settings"] = dict(found["settings"])
    if found.get("verdict") and service.get("default_verdict"):
        result["expect"] = {**(service.get("expect") or {}), "verdict": list(found["verdict"])}
    return result


# --- one host ----------------------------------------------------------------------------------------------------


class _Host:
    def __init__(
        self,
        services: Sequence[Mapping[str, Any]],
        shapes: Mapping[str, Mapping[str, Any]],
        gpu_info: Mapping[str, Any],
        gpus: Sequence[Gpu],
        memory: Mapping[str, Any],
        policy: Policy,
        servers: Mapping[str, str],
        replan: bool,
        final: bool,
        planner: Planner,
        stays: Iterable[str] = (),
    ) -> None:
        self.services = services
        self.shapes = shapes
        self.driver = str((gpu_info.get("driver") or {}).get("version") or "")
        self.gpus = gpus
        self.memory = {entry["name"]: entry for entry in memory.get("services") or ()}
        self.policy = policy
        self.servers = servers
        self.replan = replan
        self.final = final
        self.planner = planner
        self.stays = frozenset(stays)
        self.told = memory.get("host") or {}
        self.host: Optional[Host] = None

    def plan(self, left: tuple[Planned, ...]) -> Outcome:
        wishes: dict[str, Wish] = {}
        inputs: dict[str, dict[str, Any]] = {}
        aside: dict[str, Planned] = {}
        for service in self.services:
            name = service["name"]
            try:
                wish = self._wish(service)
                inputs[name] = self._inputs(service, wish)
                down = 0 if self.replan else steps(self.memory.get(name) or {}, inputs[name])
                wishes[name] = replace(wish, step_down=down)
            except AikitError as exc:
                aside[name] = self._kept_unseen(service, exc) or _unplannable(service, exc, self.final)
        self._set_aside_what_cannot(wishes, aside)
        pinned = {} if self.replan else {name: kept for name in wishes for kept in [self._recorded(name, wishes[name], inputs[name])] if kept}
        gpus = self._with_ours(aside)
        self.host = self._host({*aside, *self.stays})
        fits = self._solve(wishes, gpus, pinned)
        while True:
            worse = next((name for name in pinned if not _still_fits(fits[name], pinned[name])), "")
            if not worse:
                break
            del pinned[worse]
            fits = self._solve(wishes, gpus, pinned)
        fresh = self._solve(wishes, gpus, {}) if pinned else fits
        result = []
        for service in self.services:
            name = service["name"]
            if name in aside:
                result.append(aside[name])
                continue
            down = 0 if self.replan else steps(self.memory.get(name) or {}, inputs[name])
            result.append(self._outcome(service, fits[name], inputs[name], down, pinned.get(name) or {}, fresh[name]))
        waits = [entry for entry in result if entry.state == "later"]
        reason = waits[0].reason if waits else ""
        findings = [finding for entry in result for finding in entry.findings]
        if any(entry.state == "planned" for entry in result):
            findings += [_uncounted(entry) for entry in result if entry.state == "server" and not entry.findings]
        return Outcome(not waits, reason, (*left, *result), tuple(findings))

    def _kept_unseen(self, service: Mapping[str, Any], problem: AikitError) -> Optional[Planned]:
        """The plan that a service runs with, where its model cannot be looked at now."""
        if self.replan or not isinstance(problem, _Later):
            return None
        try:
            inputs = self._inputs_of_host(service, self._chosen(tuple(service.get("gpus") or ("all",))))
        except AikitError:
            return None
        return _as_it_was(service, self.memory.get(service["name"]) or {}, inputs, problem.message)

    def _set_aside_what_cannot(self, wishes: dict[str, Wish], aside: dict[str, Planned]) -> None:
        """One service that a planner refuses must not take the plan from the others."""
        for service in self.services:
            name = service["name"]
            if name in wishes:
                try:
                    self._plan({name: wishes[name]}, self.gpus, {})
                except AikitError as exc:
                    del wishes[name]
                    aside[name] = _unplannable(service, exc, True)

    def _step_further(self, name: str, wishes: dict[str, Wish], found: Fit) -> bool:
        """A step that leads to the very settings that ran out of memory is none."""
        wish = wishes[name]
        tried = ((self.memory.get(name) or {}).get("step_down") or {}).get("settings") or {}
        if not wish.step_down or not tried or wish.step_down >= 4 * MAX_STEPS or _explicit(found.settings) != _explicit(tried):
            return False
        wishes[name] = replace(wish, step_down=wish.step_down + 1)
        return True

    def _solve(self, wishes: dict[str, Wish], gpus: Sequence[Gpu], pinned: Mapping[str, Mapping[str, Any]]) -> dict[str, Fit]:
        fits = self._plan(wishes, gpus, pinned)
        while sum(self._step_further(name, wishes, fits[name]) for name in wishes if name not in pinned):
            fits = self._plan(wishes, gpus, pinned)
        return fits

    def _plan(self, wishes: Mapping[str, Wish], gpus: Sequence[Gpu], pinned: Mapping[str, Mapping[str, Any]]) -> dict[str, Fit]:
        asked = [
            # The steps are in these settings already
            replace(wish, settings={**wish.settings, **_explicit(pinned[name]["settings"])}, step_down=0) if name in pinned else wish
            for name, wish in wishes.items()
        ]
        return {found.service: found for found in self.planner(asked, gpus, self.policy, host=self.host)} if asked else {}

    def _wish(self, service: Mapping[str, Any]) -> Wish:
        asked = service["wish"]
        if asked["problem"]:
            raise AikitError(asked["problem"])
        lists = files_of(service)
        if not lists:
            # A pre-made image: its models are read where it is
            keys = [image_key(str(service["image"]), path) for path in asked.get("paths") or ()]
            if not keys:
                raise _Later("its image was not read yet")
        else:
            keys = [key_of(files, service.get("context") or "") for files in lists]
        shape = self._shape(keys[0])
        projector = self._shape(keys[1]) if len(keys) > 1 else None
        settings = dict(asked["settings"])
        if settings.get("context_size") == -1:
            # LocalAI's word for all that the model was trained for
            settings["context_size"] = shape.context_length or "auto"
        remembered = (self.memory.get(service["name"], {}).get("fit") or {}).get("inputs") or {}
        version = self.servers.get(service["image"]) or asked.get("server") or remembered.get("server") or ""
        gpus = tuple(service.get("gpus") or ("all",))
        extra = int(settings.pop("extra_mib", 0))
        return Wish(service["name"], shape, settings, self._chosen(gpus), projector, 0, version or str(service.get("server") or ""), extra)

    def _shape(self, key: str) -> ModelShape:
        found = self.shapes.get(key) or {}
        if not found.get("shape"):
            raise _Later(str(found.get("error") or "the header of its model was not read yet"))
        return ModelShape.from_dict(found["shape"])

    def _chosen(self, gpus: Sequence[str]) -> tuple[str, ...]:
        """Indexes of the GPUs that the service's container sees, as ``gpus`` of a wish."""
        if "all" in gpus:
            divided = [gpu for gpu in self.gpus if gpu.uuid.startswith("MIG-")]
            # A CUDA process that sees instances uses the first
            found = [gpu for gpu in self.gpus if gpu not in divided] or divided[:1]
        else:
            found = [gpu for gpu in self.gpus if str(gpu.index) in gpus or (gpu.uuid and gpu.uuid in gpus) or _instance(gpu) in gpus]
            known = {str(gpu.index) for gpu in self.gpus} | {gpu.uuid for gpu in self.gpus} | {_instance(gpu) for gpu in self.gpus}
            missing = [name for name in gpus if name not in known]
            if missing:
                there = ", ".join(_instance(gpu) or str(gpu.index) for gpu in self.gpus)
                raise AikitError(f"it asks for GPU {', '.join(missing)}, and the host has {there}")
        return tuple(str(gpu.index) for gpu in found)

    def _inputs(self, service: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
        return {
            "model": _digest(wish.model.as_dict()),
            "projector": _digest(wish.mmproj.as_dict()) if wish.mmproj else "none",
            "wish": _digest({**wish.settings, "extra_mib": wish.extra_mib}),
            **self._inputs_of_host(service, wish.gpus),
        }

    def _inputs_of_host(self, service: Mapping[str, Any], visible: Sequence[str]) -> dict[str, Any]:
        mine = [gpu for gpu in self.gpus if str(gpu.index) in visible]
        return {
            "gpus": " ".join(f"{gpu.uuid or gpu.index}:{gpu.total_mib}" for gpu in mine),
            "driver": self.driver,
            **_inputs_anyway(service, self.servers, self.policy),
        }

    def _recorded(self, name: str, wish: Wish, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The plan that the service runs with, if it was made from the same."""
        old = (self.memory.get(name) or {}).get("fit") or {}
        usable = old.get("planned") and old.get("settings") and int(old.get("step_down") or 0) == wish.step_down
        return old if usable and same_inputs(old.get("inputs") or {}, inputs) else {}

    def _with_ours(self, aside: Mapping[str, Planned]) -> tuple[Gpu, ...]:
        """The GPUs with what our containers hold of them.

        What is held by a service that cannot be planned stays taken, and so does what a plan that is kept unseen has beyond that.
        """
        ours: dict[int, float] = {}
        reserved: dict[int, float] = {}
        for name, entry in self.memory.items():
            held = self._held(entry)
            if name not in aside:
                for index, mib in held.items():
                    ours[index] = ours.get(index, 0.0) + mib
            elif aside[name].kept:
                for share in aside[name].fit.get("breakdown") or ():
                    if share.get("index") is not None:
                        index = int(share["index"])
                        reserved[index] = reserved.get(index, 0.0) + max(0.0, float(share.get("needed_mib") or 0.0) - held.get(index, 0.0))
        return tuple(
            replace(gpu, free_mib=max(0, int(gpu.free_mib - reserved.get(gpu.index, 0.0))), ours_mib=int(ours.get(gpu.index, 0.0))) for gpu in self.gpus
        )

    def _host(self, others: Iterable[str]) -> Optional[Host]:
        """The host's memory, with what our containers hold of it; that of ``others`` stays taken."""
        total, available = int(self.told.get("total_mib") or 0), int(self.told.get("available_mib") or 0)
        if not available:
            return None
        ours = sum(float(entry.get("host_held_mib") or 0.0) for name, entry in self.memory.items() if name not in others)
        return Host(total, min(total, int(available + ours)))

    def _held(self, entry: Mapping[str, Any]) -> dict[int, float]:
        """What a service holds, by the host's index of the GPU."""
        visible = [int(index) for index in (entry.get("fit") or {}).get("visible") or [gpu.index for gpu in self.gpus]]
        held: dict[int, float] = {}
        for part in entry.get("held") or ():
            index = self._index(part, visible)
            if index is not None:
                held[index] = held.get(index, 0.0) + float(part["mib"])
        return held

    def _index(self, part: Mapping[str, Any], visible: Sequence[int]) -> Optional[int]:
        if "uuid" in part:
            return next((gpu.index for gpu in self.gpus if gpu.uuid == part["uuid"]), None)
        if "position" in part:
            position = int(part["position"])
            return visible[position] if position < len(visible) else None
        return int(part["index"])

    def _outcome(self, service: Mapping[str, Any], found: Fit, inputs: Mapping[str, Any], down: int, kept: Mapping[str, Any], fresh: Fit) -> Planned:
        name, asked = service["name"], service["wish"]
        memory = self.memory.get(name) or {}
        found, short = _of_host(name, found, _limit_mib(str(service.get("memory") or "")), bool(kept))
        record = self._record(service, found, inputs, down, kept)
        before = {key: memory["settings"][key] for key in sorted(memory.get("settings") or {})}
        findings = list(_named(service, found.findings))
        if kept and found.delegated:
            found = replace(found, offload=str(kept.get("offload")))
        room = _room(found)
        reason = str(record["reason"])
        if not asked["auto"]:
            room = "; ".join(part for part in (room, short) if part)
            if room:
                message = f"its settings need more memory than there is: {room}"
                hint = "Set gpu_layers and context_size to auto, take smaller ones, or give it another GPU."
                findings.append(Finding("warning", name, 0, message, hint))
            return Planned(name, "counted", reason, {}, None, record, False, "", tuple(findings), before, not room)
        settings = _settings(service, record)
        verdict = expected(found)
        room = room or short
        # What is left to the server's own fit has only an estimate
        fits = None if found.delegated else (found.fits or bool(kept)) and not room and found.offload != "none"
        shown = service.get("gpus") or service.get("runtime") == "applesilicon"
        given = (service.get("expect") or {}).get("verdict") or ()
        problem = _unacceptable(name, found, verdict if service.get("default_verdict") and shown else given, room, found.fits or bool(kept))
        if problem:
            findings.append(problem)
        note = _growth(found, fresh) if kept else ""
        return Planned(name, "planned", reason, settings, verdict if shown else None, record, bool(kept), note, tuple(findings), before, fits)

    def _record(self, service: Mapping[str, Any], found: Fit, inputs: Mapping[str, Any], down: int, kept: Mapping[str, Any]) -> dict[str, Any]:
        """What the state file keeps of a plan."""
        if kept:
            known = {key: value for key, value in inputs.items() if value}
            return {**kept, "inputs": {**kept["inputs"], **known}, "asked": _asked(service)}
        record = {key: value for key, value in found.as_dict().items() if key != "findings"}
        record.update(
            planned=bool(service["wish"]["auto"]),
            step_down=down,
            inputs=dict(inputs),
            asked=_asked(service),
            visible=sorted(int(index) for index in self._chosen(tuple(service.get("gpus") or ("all",)))),
        )
        if self.replan:
            # What was learned before is forgotten with the proof
            record["replanned"] = True
        if down:
            record["step_reason"] = str(((self.memory.get(service["name"]) or {}).get("step_down") or {}).get("reason") or "")
        return record


# --- small decisions ---------------------------------------------------------------------------------------------


class _Later(AikitError):
    """Something that is there after a later stage."""


def expected(found: Fit) -> tuple[str, ...]:
    """The verdicts that a plan lets expect."""
    if found.delegated:
        return ("partial", "proven")
    if found.offload == "none":
        return ()
    return ("proven",) if found.offload == "full" else ("partial", "proven")


def _explicit(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _served(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a server is told: not what means nothing to it."""
    return {key: value for key, value in _explicit(settings).items() if not (key == "tensor_split" and not value) and not (key == "n_cpu_moe" and not value)}


def _unacceptable(name: str, found: Fit, acceptable: Sequence[str], room: str, fits: bool) -> Optional[Finding]:
    """What has to be said before 40 GB travel: the proof would fail."""
    where = name
    if found.delegated:
        return None
    sure = found.confidence != "estimated"
    hint = "Take a smaller model or fewer bits, give it another GPU, or let expect.verdict accept less."
    if found.offload == "none" and not set(acceptable) & {"cpu", "software", "unverified"}:
        instead = "Take a smaller model, give it another GPU, set gpus: [] for the CPU, or let expect.verdict accept cpu."
        return Finding("error", where, 0, f"nothing of {name} fits on its GPUs: {found.reason}", instead)
    if room or not fits:
        return Finding("error", where, 0, f"{name} does not fit on this host: {room or found.reason}", hint)
    if found.offload == "partial" and acceptable and not set(acceptable) & {"partial", "software", "unverified"}:
        return Finding(
            "error" if sure else "warning",
            where,
            0,
            f"{name} must be {' or '.join(acceptable)}, and only {found.layers_offloaded} of {found.layers_total} layers fit: {found.reason}",
            hint,
        )
    return None


def _room(found: Fit) -> str:
    """Where more is needed than is there, without any margin. What is left to the server's own fit takes no more than there is."""
    lacks: list[str] = []
    if found.delegated:
        return ""
    for share in found.breakdown:
        if share.index is not None and share.available_mib and share.needed_mib > share.available_mib:
            lacks.append(f"{share.device} needs {share.needed_mib:.0f} MiB and has {share.available_mib:.0f}")
    return "; ".join(lacks)


def _of_host(name: str, found: Fit, limit_mib: float, kept: bool) -> tuple[Fit, str]:
    """A plan with what a planner says of the host's memory as warnings, and apart from it what cannot be held at all.

    Where the host is short only of what the policy keeps free, or where the plan was proven to work, it is no more than a warning.

    :param limit_mib: of the service's container; 0 for none.
    """
    if found.delegated:
        # Only an estimate
        return found, ""
    share = next((share for share in found.breakdown if share.index is None), Share(""))
    # Mapped weights are read again where there is no room for them
    firm = share.needed_mib - share.weights_mib
    short, softened = "", False
    findings: list[Finding] = []
    for finding in found.findings:
        about_host = finding.level == "error" and finding.path == name
        if about_host and firm > share.available_mib and not kept:
            short = finding.message
        else:
            softened = softened or about_host
            findings.append(replace(finding, level="warning") if about_host else finding)
    if limit_mib and firm > limit_mib and not kept:
        short = f"{firm:.0f} MiB besides the weights stay in host memory, and the container may have {limit_mib:.0f} (memory)"
    fits = not short and (found.fits or (softened and _with_margins(found)))
    return replace(found, findings=tuple(findings), fits=fits), short


def _with_margins(found: Fit) -> bool:
    """Whether every GPU holds its part, and the margin stays free."""
    shares = [share for share in found.breakdown if share.index is not None and share.needed_mib]
    return all(share.needed_mib + share.margin_mib <= share.available_mib + 0.01 for share in shares)


def _limit_mib(text: str) -> float:
    """``16g`` as a service has it."""
    found = re.match(r"(\d+(?:\.\d+)?)([kmgt]?)", text.lower())
    return float(found.group(1)) * 1024.0 ** " kmgt".index(found.group(2) or " ") / MIB if found else 0.0


def _still_fits(found: Fit, recorded: Mapping[str, Any]) -> bool:
    """Whether a plan of earlier has room; the margin is what it may have lost since. llama.cpp's own fit finds room for what is left to it."""
    if found.delegated and recorded.get("delegated"):
        return True
    return not _room(found) and found.offload == recorded.get("offload")


def _growth(kept: Fit, fresh: Fit) -> str:
    """What a new plan would give, where it is more than a little."""
    if fresh.layers_offloaded > kept.layers_offloaded:
        layers = f"{fresh.layers_offloaded} of {fresh.layers_total} layers on the GPU instead of {kept.layers_offloaded}"
        return f"a new plan would put {layers}; inference_replan=true makes one"
    new, old = fresh.settings.get("context_size"), kept.settings.get("context_size")
    if isinstance(new, int) and isinstance(old, int) and new > 1.25 * old:
        return f"a new plan would give a context of {new} instead of {old}; inference_replan=true makes one"
    return ""


def _left(service: Mapping[str, Any], reason: str) -> Planned:
    return Planned(service["name"], "server", f"auto is left to the server: {reason}")


def _settings(service: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a plan, and what the user set."""
    auto = service["wish"]["auto"]
    own = {key: value for key, value in (service.get("settings") or {}).items() if value != "auto" and key not in auto and key not in PLAN_KEYS}
    return {**_served(record["settings"]), **own}


def _as_it_was(service: Mapping[str, Any], remembered: Mapping[str, Any], inputs: Mapping[str, Any], why: str) -> Optional[Planned]:
    """The plan that a service runs with, where a new one cannot be made now; None where something else is asked for than then.

    :param inputs: what is known of them.
    """
    old, auto = remembered.get("fit") or {}, service["wish"]["auto"]
    asked = "" if service["wish"]["problem"] else _asked(service)
    same = asked and old.get("asked") == asked and same_inputs(old.get("inputs") or {}, inputs)
    if not same or not old.get("settings") or bool(old.get("planned")) != bool(auto):
        return None
    if int(old.get("step_down") or 0) != steps(remembered, old["inputs"]):
        # It ran out of memory
        return None
    note = f"could not be looked at again ({why.replace('after provisioning: ', '')})"
    reason, before = str(old.get("reason") or ""), dict(remembered.get("settings") or {})
    if not auto:
        return Planned(service["name"], "counted", reason, {}, None, old, True, note, (), before, True)
    shown = service.get("gpus") or service.get("runtime") == "applesilicon"
    found = Fit(service["name"], old["settings"], str(old.get("offload")), str(old.get("confidence")), reason, delegated=bool(old.get("delegated")))
    verdict, fits = expected(found) if shown else None, None if found.delegated else True
    return Planned(service["name"], "planned", reason, _settings(service, old), verdict, old, True, note, (), before, fits)


def _asked(service: Mapping[str, Any]) -> str:
    """What was asked for, as far as it is known without looking at anything; empty where that does not tell which model it is."""
    asked, context = service["wish"], service.get("context") or ""
    models = [key_of(files, context) for files in (asked.get("files"), asked.get("mmproj")) if files]
    if not models and "@sha256:" not in str(service["image"]):
        # A tag can have moved
        return ""
    # Of a pre-made image, the rest is known once it was read
    wanted = [asked["auto"], asked["settings"]] if models else [service["image"]]
    return _digest([*wanted, service.get("settings") or {}, list(service.get("gpus") or ()), models])


def _inputs_anyway(service: Mapping[str, Any], servers: Optional[Mapping[str, str]], policy: Policy) -> dict[str, str]:
    """The inputs of a plan that are known without looking at the host."""
    # Plans and errors of memory of earlier are remembered with a policy that had 330 where 0 now says what a card of its name takes: nobody asked
    # for another one
    told = {**{item.name: getattr(policy, item.name) for item in fields(policy)}, "context_mib": policy.context_mib or 330}
    return {"server": (servers or {}).get(service["image"], ""), "policy": _digest(told)}


def _without_gpus(service: Mapping[str, Any], why: str, final: bool) -> Planned:
    auto = service["wish"]["auto"]
    if service.get("gpus") and final:
        return _unplannable(service, AikitError(why.replace("after provisioning: ", "")), True)
    if not service.get("gpus"):
        # A Vulkan build finds its device by itself, also where nothing on the host tells of it
        return _left(service, why) if auto else Planned(service["name"], "server", why)
    return Planned(service["name"], "later", why)


def _unplannable(service: Mapping[str, Any], problem: AikitError, final: bool) -> Planned:
    if isinstance(problem, _Later) and not final:
        return Planned(service["name"], "later", problem.message)
    auto = service["wish"]["auto"]
    findings: tuple[Finding, ...] = ()
    if auto:
        hint = "Set them to numbers, or let expect.verdict accept what the server makes of it."
        findings = (Finding("warning", service["name"], 0, f"{' and '.join(auto)} are left to the server: {problem.message}", hint),)
    return Planned(service["name"], "server", problem.message, findings=findings)


def _uncounted(entry: Planned) -> Finding:
    hint = "If it does not run yet, the others may be given memory that it needs: list it first, or give it a GPU of its own."
    return Finding("warning", entry.name, 0, f"what it needs is not counted: {entry.reason}", hint)


def _named(service: Mapping[str, Any], found: Iterable[Finding]) -> Iterable[Finding]:
    for finding in found:
        path = finding.path if finding.path.startswith(service["name"]) else f"{service['name']}: {finding.path}" if finding.path else service["name"]
        yield replace(finding, path=path)


def _gpu(gpu: Mapping[str, Any]) -> list[Gpu]:
    mig = gpu.get("mig") or {}
    index = gpu.get("index")
    if index is None:
        return []
    capability, vendor = str(gpu.get("compute_capability") or ""), str(gpu.get("vendor") or "nvidia")
    if mig.get("current") == "enabled":
        # A number of its own, beyond those of whole GPUs
        return [
            Gpu(
                1000 * (int(index) + 1) + int(device["index"]),
                f"{gpu.get('name')} MIG {device.get('profile') or device['index']}",
                int(device["memory_total_mib"]),
                int(device["memory_total_mib"]),
                capability,
                uuid=str(device.get("uuid") or ""),
                vendor=vendor,
            )
            for device in mig.get("devices") or ()
            if device.get("memory_total_mib")
        ]
    if gpu.get("memory_total_mib") is None:
        return []
    free = gpu.get("memory_free_mib")
    return [
        Gpu(
            int(index),
            str(gpu.get("name") or ""),
            int(gpu["memory_total_mib"]),
            int(gpu["memory_total_mib"] if free is None else free),
            capability,
            bool(gpu.get("unified_memory")),
            uuid=str(gpu.get("uuid") or ""),
            vendor=vendor,
        )
    ]


def _instance(gpu: Gpu) -> str:
    """``0:1`` for the second instance of GPU 0."""
    return f"{gpu.index // 1000 - 1}:{gpu.index % 1000}" if gpu.uuid.startswith("MIG-") else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode("utf-8")).hexdigest()[:16]
