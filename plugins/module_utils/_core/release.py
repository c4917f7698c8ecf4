# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gated swap: a new container takes the old one's place, and the old one waits until the new one is proven.

Everything here is pure. A step of the swap is decided from what is found (:class:`Observed`), so a run
that was killed is finished by running it again. ``NAME`` is the service's container, ``PREV`` is
``NAME--previous``; the spec is the hash in label ``io.aikit.fleet.spec``; *proven* is the spec of
``current`` in the state file. One swap does, in this order (a kill can come between any two)::

    prepare   1 write pending   2 stop NAME   3 rename NAME to PREV
    role      4 create and start NAME with the wanted spec, prove it
    commit    5 write current, previous; clear pending   6 remove PREV   7 remove old images and files
    restore   5 remove NAME   6 rename PREV to NAME   7 start NAME   8 clear pending   (instead of commit)

What a run finds, and what it does (D is the wanted spec):

======================  =======  =====  ==============================================================================
NAME                    pending  PREV   decision
======================  =======  =====  ==============================================================================
none                    any      no     create (first deployment, or killed before 4 of one)
D, proven               any      no     unchanged (pending is cleared), or start when it does not run
D, not proven           any      no     resume: nothing is stopped, the proof is still due
other                   no       no     replace: 1, 2, 3
other, not in pending   yes      no     replace: killed after 1 or 2, or after 6 of a restore
other, in pending       yes      no     create: a candidate that was never proven is removed; nothing to go back to
other, in pending, but  yes      no     replace
proven
any                     yes      is D   put back: the candidate (if any) is removed, PREV becomes NAME again
none                    yes      yes    create: killed after 3, or after 5 of a restore
D                       yes      yes    resume: killed after 4
other                   yes      yes    create: a candidate of another wish is removed, PREV stays
proven                  no       yes    killed after 5 of a commit: PREV is removed, then as without PREV
none                    no       yes    PREV becomes NAME again, then as without PREV
other or D, not proven  no       yes    the state file was lost: as with pending
======================  =======  =====  ==============================================================================

A container under one of the two names that is not this service's is an error, and is never touched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Collection, Iterable, Mapping, Optional, Sequence

from . import fit_record
from .container import SERVICE_LABEL, SPEC_LABEL, cache_volume
from .engine import ContainerState, ImageState
from .errors import AikitError
from .plan import Action, Plan
from .procnet import Listener
from .services import addresses_overlap

SCHEMA = 1
PREVIOUS_SUFFIX = "--previous"
OUR_IMAGES = "io.aikit.fleet."

# A record is the same when these are; evidence and speed differ from run to run, and the first proof is kept
IDENTITY = ("spec", "id", "digest", "image", "settings", "verdict", "container_id", "started_at", "planned_from")


@dataclass(frozen=True)
class Step:
    """One effect. ``write`` (``state``), ``delete`` a file or folder, ``stop``, ``start``, ``rename`` (``to``), ``remove`` a
    container, ``remove_image``."""

    verb: str
    target: str
    to: str = ""
    state: Optional[Mapping[str, Any]] = field(default=None, hash=False)
    detail: str = ""

    def action(self) -> Action:
        words = {"write": "write state of", "remove_image": "remove image"}
        return Action(words.get(self.verb, self.verb), self.target, self.detail or (f"to {self.to}" if self.to else ""))


@dataclass(frozen=True)
class Observed:
    """What a host has of one service. ``state`` is the parsed state file."""

    name: str
    container: Optional[ContainerState] = None
    previous: Optional[ContainerState] = None
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pending(self) -> Optional[Mapping[str, Any]]:
        return self.state.get("pending") or None

    @property
    def proven(self) -> Optional[str]:
        """The spec that was proven last."""
        return (self.state.get("current") or {}).get("spec") or None

    @property
    def previous_name(self) -> str:
        return self.name + PREVIOUS_SUFFIX


@dataclass(frozen=True)
class Decision:
    """``start_container``: the role has to create or start the container now; ``due``: the proof is still due."""

    name: str
    steps: tuple[Step, ...] = ()
    start_container: bool = True
    due: bool = True


@dataclass(frozen=True)
class PortOwner:
    """Who holds a port that a service wants."""

    bind_address: str
    port: int
    owner: str

    def as_dict(self) -> dict[str, Any]:
        return {"bind_address": self.bind_address, "port": self.port, "owner": self.owner}


# --- the state file ----------------------------------------------------------------------------------------------


def parse_state(text: Optional[str], name: str, path: str) -> dict[str, Any]:
    """The state of a service; an empty one when there is no file."""
    if text is None:
        return empty_state(name)
    hint = "Move the file away and deploy again: the running container is then proven anew."
    try:
        state = json.loads(text)
    except ValueError as exc:
        raise AikitError(f"{path} is no state file of aikit.fleet: {exc}.", hint) from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA or state.get("service") != name:
        found = f"schema {state.get('schema')!r}, service {state.get('service')!r}" if isinstance(state, dict) else "no mapping"
        raise AikitError(f"{path} is not the state of service {name} in schema {SCHEMA} (found: {found}).", hint)
    return {**empty_state(name), **state}


def empty_state(name: str) -> dict[str, Any]:
    return {"schema": SCHEMA, "service": name, "current": None, "previous": None, "pending": None, "retired": []}


def state_text(state: Mapping[str, Any]) -> str:
    return json.dumps(state, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def image_ids(state: Mapping[str, Any], built: bool = False) -> set[str]:
    """Every image that a state file still needs or remembers; with ``built``, of those that were built for its service."""
    records = [state.get("current"), state.get("previous"), (state.get("pending") or {}).get("image"), *(state.get("retired") or ())]
    return {record["id"] for record in records if record and record.get("id") and (not built or record.get("built"))}


# --- prepare -----------------------------------------------------------------------------------------------------


def prepare(observed: Observed, spec: str, image: Mapping[str, Any]) -> Decision:
    """What has to happen before the role starts the container of ``spec``. See the table above."""
    _check_ours(observed)
    steps: list[Step] = []
    current, previous, pending = observed.container, observed.previous, observed.pending
    if previous is not None and pending is None:
        if current is not None and _spec(current) == observed.proven:
            steps.append(Step("remove", observed.previous_name, detail="left over by an interrupted commit"))
            previous = None
        elif current is None:
            steps.append(Step("rename", observed.previous_name, observed.name))
            current, previous = previous, None
    if previous is not None:
        return _under_way(observed, current, previous, spec, image, steps)
    if current is None:
        return _decide("create", observed, steps, _pending(observed, spec, image))
    if _spec(current) == spec:
        if spec == observed.proven and current.running:
            return _decide("unchanged", observed, steps, None, start=False, due=False)
        if spec == observed.proven:
            # What is pending says that it ran; a kill before the start must not lose that, so the commit clears it
            return Decision("start", tuple(steps), due=False)
        return _decide("resume", observed, steps, _pending(observed, spec, image), start=not current.running)
    if pending is not None and pending.get("spec") == _spec(current) != observed.proven:
        # Nothing to go back to. Removed before the new wish is written: written first, a kill would make it look like an old one
        steps.append(Step("remove", observed.name, detail="was never proven"))
        return _decide("create", observed, steps, _pending(observed, spec, image))
    wish = _pending(observed, spec, image, current)
    after = [Step("stop", observed.name)] if _stoppable(current) else []
    after.append(Step("rename", observed.name, observed.previous_name))
    return _decide("replace", observed, steps, wish, after=after)


def _under_way(
    observed: Observed,
    current: Optional[ContainerState],
    previous: ContainerState,
    spec: str,
    image: Mapping[str, Any],
    steps: list[Step],
) -> Decision:
    """A swap was interrupted: PREV is what can be gone back to."""
    drop = [Step("remove", observed.name, detail="was never proven")] if current is not None else []
    if _spec(previous) == spec:
        steps += [*drop, Step("rename", observed.previous_name, observed.name)]
        return Decision("put_back", tuple(steps), due=spec != observed.proven)
    wish = _pending(observed, spec, image, previous)
    if current is not None and _spec(current) == spec:
        return _decide("resume", observed, steps, wish, start=not current.running)
    return _decide("create", observed, [*steps, *drop], wish)


def _decide(
    name: str,
    observed: Observed,
    before: Sequence[Step],
    pending: Optional[Mapping[str, Any]],
    start: bool = True,
    due: bool = True,
    after: Sequence[Step] = (),
) -> Decision:
    write = []
    if (observed.pending or None) != (pending or None):
        write.append(_write(observed, {**observed.state, "pending": pending}))
    return Decision(name, (*before, *write, *after), start, due)


def _pending(
    observed: Observed, spec: str, image: Mapping[str, Any], replaced: Optional[ContainerState] = None
) -> dict[str, Any]:
    """``was_running`` is what the first of several interrupted runs saw: later ones find the container stopped by us."""
    replaces = _spec(replaced) if replaced is not None else None
    was_running = replaced is not None and _stoppable(replaced)
    old = observed.pending
    if old and replaced is not None and old.get("replaces") == replaces:
        was_running = bool(old.get("was_running"))
    elif observed.previous is not None and replaced is observed.previous:
        # The state file was lost; a service that is being replaced was most likely running
        was_running = True
    return {
        "spec": spec,
        "image": {"ref": image.get("ref", ""), "id": image.get("id", ""), **_built(image)},
        "replaces": replaces,
        "was_running": was_running,
    }


# --- commit and restore ------------------------------------------------------------------------------------------


def make_record(spec: Mapping[str, Any], verdict: str, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """What the state file keeps of a release. ``release`` is all that a rollback needs to start it again."""
    image = spec["image"]
    fit = {key: value for key, value in (spec.get("fit") or {}).items() if key != "replanned"}
    release = {key: value for key, value in spec.items() if key != "findings"}
    return {
        **({"planned_from": {**(fit.get("inputs") or {}), "step_down": fit.get("step_down", 0)}} if fit else {}),
        "image": image.get("ref", ""),
        "id": image["id"],
        "digest": image.get("digest", ""),
        **_built(image),
        "settings": dict(spec.get("settings") or {}),
        "spec": spec["spec"],
        "verdict": verdict,
        "evidence": dict(evidence),
        "release": {**release, "fit": fit} if fit else release,
        # For the commit alone: who goes back to this release later has not asked for a new plan
        **({"replanned": True} if (spec.get("fit") or {}).get("replanned") else {}),
    }


def committed(observed: Observed, record: Mapping[str, Any], keep_images: int) -> dict[str, Any]:
    """The state after ``record`` was proven; still with every image that may be removed then."""
    _check_ours(observed)
    current = observed.container
    if current is None or _spec(current) != record["spec"]:
        found = "none is there" if current is None else f"the one there has {_spec(current) or 'none'}"
        raise AikitError(
            f"The container {observed.name} that was proven (spec {record['spec']}) is gone: {found}.",
            "Something else replaced it in the meantime. Deploy again.",
        )
    replanned = record.get("replanned")
    record = {**{key: value for key, value in record.items() if key != "replanned"}, "container_id": current.id, "started_at": current.started_at}
    old, previous = observed.state.get("current"), observed.state.get("previous")
    retired = list(observed.state.get("retired") or ())
    if old and all(old.get(key) == record.get(key) for key in IDENTITY):
        record = old
    elif old and old.get("spec") != record["spec"]:
        if previous:
            retired.insert(0, _image_of(previous))
        previous = old
    if not keep_images and previous:
        retired.insert(0, _image_of(previous))
        previous = None
    kept = {record.get("id"), (previous or {}).get("id")}
    step = observed.state.get("step_down")
    inputs = ((record.get("release") or {}).get("fit") or {}).get("inputs") or {}
    if step and (replanned or not fit_record.same_inputs(step.get("inputs") or {}, inputs)):
        # Learned on a model, GPU or driver that are not those of this release any more, or to be forgotten
        step = None
    unique = {image["id"]: image for image in reversed(retired) if image.get("id") and image["id"] not in kept}
    return {
        **observed.state,
        "current": record,
        "previous": previous,
        "pending": None,
        **({"step_down": step} if "step_down" in observed.state else {}),
        "retired": list(reversed(list(unique.values()))),
    }


def commit(
    observed: Observed,
    record: Mapping[str, Any],
    keep_images: int,
    images: Iterable[ImageState],
    containers: Iterable[ContainerState],
    needed_elsewhere: Collection[str],
    files: Iterable[str] = (),
) -> tuple[Step, ...]:
    """Make ``record`` current, then remove what nobody can go back to any more.

    :param files: paths of this service's files on the host; those that no record names are deleted.
    :param needed_elsewhere: image ids in the state files of other services.
    """
    state = committed(observed, record, keep_images)
    steps: list[Step] = []
    if state != observed.state:
        steps.append(_write(observed, state))
    if observed.previous is not None:
        steps.append(Step("remove", observed.previous_name))
    retired = state["retired"]
    # The previous one counts; without a previous one there is nothing older either
    outdated = retired[max(keep_images - 1, 0) :]
    used = {container.image_id for container in containers if container.name != observed.previous_name}
    by_id = {image.id: image for image in images}
    kept = retired[: max(keep_images - 1, 0)]
    for image in outdated:
        if image["id"] in used | set(needed_elsewhere):
            kept = [*kept, image]
        elif _ours(by_id.get(image["id"]), image["id"] in by_id and bool(image.get("built"))):
            steps.append(Step("remove_image", image["id"], detail=image.get("ref", "")))
    if kept != retired:
        # Written last: an interrupted removal is then tried again
        steps.append(_write(observed, {**state, "retired": kept}))
    releases = [entry.get("release") or {} for entry in (state["current"], state["previous"]) if entry]
    named = {item["path"] for entry in releases for item in entry.get("files") or ()} | {entry.get("api_key_file") for entry in releases}
    steps += [Step("delete", path) for path in sorted(files) if path not in named]
    return tuple(steps)


def would_commit(observed: Observed, record: Mapping[str, Any]) -> tuple[Step, ...]:
    """For check mode, where the container of ``record`` was never started: whether a commit would change anything."""
    current = observed.state.get("current") or {}
    same = current.get("spec") == record["spec"] and current.get("planned_from") == record.get("planned_from")
    if same and observed.pending is None and observed.previous is None:
        return ()
    written = {key: value for key, value in record.items() if key != "replanned"}
    return (_write(observed, {**observed.state, "current": written, "pending": None}),)


def restore(observed: Observed) -> tuple[tuple[Step, ...], bool]:
    """After a failed proof: the old container answers again. The second value says whether there was one.

    Without an old one, a container that was never proven is stopped and left for inspection; one that
    was proven before keeps running, its restart policy may heal it.
    """
    _check_ours(observed)
    current, previous, pending = observed.container, observed.previous, observed.pending
    state = {**observed.state, "pending": None}
    if previous is not None:
        steps = [Step("remove", observed.name)] if current is not None else []
        steps.append(Step("rename", observed.previous_name, observed.name))
        if pending is None or pending.get("was_running"):
            steps.append(Step("start", observed.name))
        failed = (pending or {}).get("image") or {}
        retired = list(state.get("retired") or ())
        if failed.get("id") and failed["id"] not in image_ids(state):
            # Known to the next commit, which removes it when it is too old
            state["retired"] = [failed, *retired]
        if state != observed.state:
            steps.append(_write(observed, state))
        return tuple(steps), True
    if current is None:
        return (), False
    is_old = _spec(current) is not None and _spec(current) in (observed.proven, (pending or {}).get("replaces"))
    if is_old:
        steps = []
        if pending is not None:
            if pending.get("was_running") and not _stoppable(current):
                steps.append(Step("start", observed.name))
            steps.append(_write(observed, state))
        return tuple(steps), pending is not None
    return ((Step("stop", observed.name),) if _stoppable(current) else ()), False


# --- out of memory -----------------------------------------------------------------------------------------------


def step_down(observed: Observed, spec: Mapping[str, Any], reason: str) -> tuple[Step, ...]:
    """Remember that the plan of ``spec`` ran out of memory, so that the next one is smaller. Nothing when no smaller one makes sense.

    :param reason: what the server said; its first line is kept.
    """
    _check_ours(observed)
    reason = (reason.strip().splitlines() or [""])[0]
    entry = fit_record.step_down(observed.state, spec.get("fit") or {}, reason)
    if not entry or entry == observed.state.get("step_down"):
        return ()
    detail = f"step {entry['count']} down: {reason}"
    steps = [Step("write", observed.name, state={**observed.state, "step_down": entry}, detail=detail)]
    current = observed.container
    if current is not None and _stoppable(current) and _spec(current) == spec["spec"] != observed.proven:
        # It would start again and again, and take memory that the next plan counts on
        steps.append(Step("stop", observed.name))
    return tuple(steps)


# --- rollback, stop, absent --------------------------------------------------------------------------------------


def rollback_target(observed: Observed) -> Mapping[str, Any]:
    """The release to go back to: the one before the proven one, or the proven one while something unproven is under way."""
    _check_ours(observed)
    current, previous = observed.state.get("current"), observed.state.get("previous")
    unproven = observed.pending is not None or (observed.container is not None and _spec(observed.container) != observed.proven)
    target: Optional[Mapping[str, Any]] = current if unproven and current else previous
    if not target:
        raise AikitError(
            f"Service {observed.name} has no earlier release on this host.",
            "Only a release that was proven here before can be gone back to (inference_keep_images must be at least 1).",
        )
    return target


def check_image(target: Mapping[str, Any], found: Optional[ImageState]) -> None:
    """Refuse a rollback before anything is stopped."""
    if found is None:
        ref, digest = target.get("image") or target["id"], target.get("digest")
        pull = f"Pull {ref.partition('@')[0]}@{digest} on the host" if digest else f"Load {ref} on the host"
        raise AikitError(f"The image of the earlier release is gone: {ref} ({target['id']}).", f"{pull}, or deploy the release that you want.")


def stop(observed: Observed) -> tuple[Step, ...]:
    _check_ours(observed)
    current = observed.container
    return (Step("stop", observed.name),) if current is not None and _stoppable(current) else ()


def absent(
    observed: Observed,
    paths: Iterable[str],
    remove_images: bool = False,
    images: Iterable[ImageState] = (),
    containers: Iterable[ContainerState] = (),
    needed_elsewhere: Collection[str] = (),
) -> tuple[Step, ...]:
    """Remove what is this service's. ``paths`` (the ones that exist, the state file last) go at the end, so that a rerun can finish."""
    steps = []
    mine = [found for found in (observed.container, observed.previous) if found is not None and _is_ours(found, observed.name)]
    steps += [Step("remove", container.name) for container in mine]
    if remove_images:
        gone = {container.id for container in mine}
        used = {container.image_id for container in containers if container.id not in gone} | set(needed_elsewhere)
        wanted = image_ids(observed.state) | {container.image_id for container in mine}
        built = image_ids(observed.state, built=True)
        steps += [
            Step("remove_image", image.id, detail=image.tags[0] if image.tags else "")
            for image in sorted(images, key=lambda image: image.id)
            if image.id in wanted and image.id not in used and _ours(image, image.id in built)
        ]
    return (*steps, *(Step("delete", path) for path in paths))


def describe(container: Optional[ContainerState]) -> dict[str, Any]:
    """A container as result key; empty when there is none."""
    if container is None:
        return {}
    return {
        "name": container.name,
        "id": container.id,
        "image_id": container.image_id,
        "status": container.status,
        "running": container.running,
        "exit_code": container.exit_code,
        "restart_count": container.restart_count,
        "started_at": container.started_at,
        "health": container.health or "",
        "spec": _spec(container) or "",
        "service": container.labels.get(SERVICE_LABEL, ""),
        "ports": [dict(port) for port in container.ports],
    }


def volumes(name: str) -> tuple[str, ...]:
    """Named volumes that a service may have."""
    return (cache_volume(name),)


def plan(observed: Observed, steps: Sequence[Step], spec: Optional[Mapping[str, Any]] = None) -> Plan:
    """The steps as what people read: containers and the summary of the state before and after.

    :param spec: the container that is prepared: its settings stand beside those of the current release.
    """
    before = _summary(observed.container, observed.previous, observed.state)
    state = observed.state
    found: dict[str, Optional[str]] = {observed.name: before["container"], observed.previous_name: before["previous_container"]}
    for step in steps:
        if step.verb == "write" and step.state is not None:
            state = step.state
        elif step.verb == "rename":
            found[step.to], found[step.target] = found.get(step.target), None
        elif step.verb == "remove":
            found[step.target] = None
        elif step.verb in ("stop", "start") and found.get(step.target):
            short = str(found[step.target]).partition(" ")[0]
            found[step.target] = f"{short} {'running' if step.verb == 'start' else 'stopped'}"
        elif step.verb == "delete" and step.target.endswith(".json"):
            state = empty_state(observed.name)
    after = {
        **_summary(None, None, state),
        "container": found[observed.name],
        "previous_container": found[observed.previous_name],
    }
    if spec and steps:
        before["settings"] = dict((observed.state.get("current") or {}).get("settings") or {})
        after["settings"] = dict(spec.get("settings") or {})
    return Plan(tuple(step.action() for step in steps), before, after)


# --- ports -------------------------------------------------------------------------------------------------------


def port_owners(
    ports: Iterable[Mapping[str, Any]],
    own: Collection[str],
    containers: Iterable[ContainerState],
    found: Iterable[tuple[Listener, str]],
) -> tuple[PortOwner, ...]:
    """Who but this service holds the ports it wants.

    :param own: names of this service's containers.
    :param found: listening sockets of the host with a description of the process behind each.
    """
    # One that its restart policy starts again and again has its ports every other moment
    running = [container for container in containers if _stoppable(container)]
    sockets = tuple(found)
    result = []
    for wish in ports:
        address, port = wish["bind_address"], int(wish["port"])
        holders = [container for container in running if _publishes(container, address, port)]
        others = [container for container in holders if container.name not in own]
        if others:
            result.append(PortOwner(address, port, _describe(others[0])))
            continue
        if holders:
            continue
        for listener, process in sockets:
            if listener.port == port and addresses_overlap(listener.address, address):
                result.append(PortOwner(address, port, process or "a process that this user may not see"))
                break
    return tuple(result)


def check_ports(name: str, owners: Sequence[PortOwner]) -> None:
    """Refuse before anything is stopped."""
    if owners:
        taken = "; ".join(f"{owner.bind_address}:{owner.port} is held by {owner.owner}" for owner in owners)
        raise AikitError(
            f"Service {name} cannot have its port: {taken}.",
            "Stop that, or give the service another port.",
            port_owners=[owner.as_dict() for owner in owners],
        )


def _publishes(container: ContainerState, address: str, port: int) -> bool:
    return any(entry["host_port"] == port and addresses_overlap(entry["host_ip"] or "0.0.0.0", address) for entry in container.ports)


def _describe(container: ContainerState) -> str:
    service = container.labels.get(SERVICE_LABEL)
    return f"container {container.name}" + (f" (service {service})" if service and service != container.name else "")


# --- small helpers -----------------------------------------------------------------------------------------------


def _check_ours(observed: Observed) -> None:
    for container in (observed.container, observed.previous):
        if container is not None and not _is_ours(container, observed.name):
            owner = container.labels.get(SERVICE_LABEL)
            whose = f"it belongs to service {owner}" if owner else f"it has no label {SERVICE_LABEL}"
            raise AikitError(
                f"There is a container {container.name} that is not this service's: {whose}.",
                "Rename or remove it, or give the service another name.",
            )


def _is_ours(container: ContainerState, name: str) -> bool:
    return container.labels.get(SERVICE_LABEL) == name


def _spec(container: ContainerState) -> Optional[str]:
    return container.labels.get(SPEC_LABEL) or None


def _stoppable(container: ContainerState) -> bool:
    """Running, or about to: a restart policy is at work."""
    return container.running or container.status in ("restarting", "paused")


def _ours(image: Optional[ImageState], built: bool = False) -> bool:
    """Whether we may remove an image: its labels say that it is ours, or the state file does (AIKit's images have no labels)."""
    return image is not None and (built or any(label.startswith(OUR_IMAGES) for label in image.labels))


def _image_of(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": record.get("id", ""), "ref": record.get("image", ""), **_built(record)}


def _built(record: Mapping[str, Any]) -> dict[str, bool]:
    """That an image was built for its service; pre-made ones are never removed."""
    return {"built": True} if record.get("built") else {}


def _write(observed: Observed, state: Mapping[str, Any]) -> Step:
    return Step("write", observed.name, state=dict(state), detail="pending" if state.get("pending") else "")


def _summary(
    container: Optional[ContainerState], previous: Optional[ContainerState], state: Mapping[str, Any]
) -> dict[str, Any]:
    def short(found: Optional[ContainerState]) -> Optional[str]:
        return None if found is None else f"{_spec(found)} {'running' if found.running else 'stopped'}"

    def record(key: str) -> Optional[dict[str, Any]]:
        entry = state.get(key)
        return {item: entry.get(item) for item in ("image", "id", "spec", "verdict") if item in entry} if entry else None

    return {
        "container": short(container),
        "previous_container": short(previous),
        "current": record("current"),
        "previous": record("previous"),
        "pending": record("pending"),
    }
