# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role inference and the playbooks compute over services and hosts: archives, results, checks, messages."""

from __future__ import annotations

import hashlib
import posixpath
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import registry
from .table import table

# tar headers and the small JSON documents of an archive
ARCHIVE_OVERHEAD_BYTES = 1 << 20


def archive_plan(image: Mapping[str, Any], missing: Iterable[str], builder_dir: str, host_dir: str, whole: str = "") -> dict[str, Any]:
    """The archive that a host needs: only the layers in ``missing``.

    Hosts that lack the same layers share one archive on the builder, so its name says which image and which layers.
    ``whole`` is an archive with all layers that is on the builder already: that one travels, as it is.
    """
    wanted = {layer["digest"] for layer in image["layers"]} if whole else set(missing)
    omit = sorted(layer["digest"] for layer in image["layers"] if layer["digest"] not in wanted)
    size = sum(int(layer["size_bytes"]) for layer in image["layers"] if layer["digest"] in wanted)
    image_id = str(image["id"]).partition(":")[2]
    variant = hashlib.sha256("\n".join(omit).encode("ascii")).hexdigest()[:12] if omit else "full"
    name = f"{image_id[:16]}-{variant}.tar"
    return {
        "builder_path": whole or posixpath.join(builder_dir, name),
        "host_path": posixpath.join(host_dir, f"aikit-fleet-{name}"),
        "omit": omit,
        "size_bytes": size + ARCHIVE_OVERHEAD_BYTES,
        "written": bool(whole),
    }


def transfer_folder(hosts: Iterable[str], sources: Iterable[str], cache_dir: str) -> str:
    """Where a deployment to ``hosts`` keeps archives on their way, on the builder and on the controller.

    Another deployment at the same time has other hosts or another inventory, and must not find its archives gone. The same one, run
    again after a failure, finds them.
    """
    words = "\n".join([*sorted(hosts), "", *(str(source) for source in sources)])
    return posixpath.join(cache_dir, "transfer", hashlib.sha256(words.encode("utf-8")).hexdigest()[:12])


def registry_reference(name: str, digest: str = "") -> str:
    """Where an image is in a registry, by ``digest`` where there is one; empty when its name has no registry.

    ``localhost`` without a port is what engines and this collection call images that are nowhere else.
    """
    if not registry.names_registry(name) or name.startswith("localhost/"):
        return ""
    found = registry.parse_name(name, "image")
    return found.at(digest).text if digest else found.text


def service_result(service: Mapping[str, Any], check: Mapping[str, Any], spec: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
    """One service of one host for the report; ``check`` is the result of inference_check, empty where none was made, and ``spec``
    the container that was proven."""
    keys = ("verdict", "reasons", "evidence", "model", "tokens_per_second", "time_to_first_token_seconds", "ready_seconds")
    result = {key: service.get(key) for key in ("name", "state", "image", "url", "has_api_key", "gpus", "port")}
    result.update({key: check.get(key) for key in keys})
    image = (spec or {}).get("image") or {}
    # A rollback goes to another image than the inventory names
    result.update(image=image.get("ref") or result["image"], image_id=image.get("id") or "")
    return result


def failed_result(service: Mapping[str, Any], failure: str, restored: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """One service whose release failed, for the report: with the image that runs now, where one does. Arguments as of :func:`release_failure`."""
    outcome = _after(restored, answers)
    current = ((restored.get("state") or {}).get("current") or {}) if outcome in ("rolled back", "not touched", "down") else {}
    result = service_result(service, {}, {"image": {"ref": current.get("image"), "id": current.get("id")}})
    return {**result, "verdict": current.get("verdict"), "image": current.get("image") or "", "outcome": outcome, "failure": _first_line(failure)}


def failure_text(result: Mapping[str, Any]) -> str:
    """What went wrong, by the result of the task that failed; of a loop, by its first item that did."""
    failed = [item for item in result.get("results") or () if item.get("failed")]
    message = (failed[0] if failed else result).get("msg")
    return str(message or "An error on another host of its batch ended its part; it is told above.").strip()


# What of a rollout is worth a table of its own
TROUBLE = ("failed", "rolled back", "down", "not touched", "unreachable", "lost")


def any_failed(rollouts: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a host of a batch that is at its end did not do its part; ``rollouts`` as of :func:`rollout_table`."""
    return any(rollout.get("state") != "done" for rollout in rollouts.values())


def rollout_table(
    hosts: Sequence[str],
    rollouts: Mapping[str, Mapping[str, Any]],
    plans: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    waits: Optional[Mapping[str, bool]] = None,
) -> list[str]:
    """How every service of every host came through a rollout; empty where nothing went wrong.

    :param rollouts: hosts whose batch began, with ``state`` (``begun``, ``done``, ``failed``, ``unreachable``) and ``failure``.
    :param waits: whether a host waits for a reboot.
    """
    rows = []
    trouble = False
    for host in hosts:
        found = {str(result["name"]): result for result in results.get(host) or ()}
        services = (plans.get(host) or {}).get("services") or ()
        rest = _of_host(rollouts.get(host) or {}, bool((waits or {}).get(host)))
        first = next((name for name, result in found.items() if result.get("failure")), None)
        if first is not None:
            rest = ("not reached", f"{first} failed before it")
        trouble = trouble or first is not None or rest[0] in TROUBLE
        for service in services or ({"name": None},):
            result = found.get(str(service["name"])) or {}
            outcome, why = (_outcome(result), result.get("failure")) if result else rest
            rows.append(
                {
                    "host": host,
                    "service": service["name"],
                    "rollout": outcome,
                    "verdict": result.get("verdict"),
                    "image": _image(result) if result else "as before",
                    "why": _short(why),
                }
            )
    return table(rows, ("host", "service", "rollout", "verdict", "image", "why")) if trouble else []


def service_checks(service: Mapping[str, Any], observed: Mapping[str, Any], check: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The doctor's checks of one service: ``{name, ok, detail, hint}``."""
    name, state = service["name"], service["state"]
    if "container" not in observed:
        return [_check(f"{name}: engine", False, observed.get("msg") or "the engine cannot be asked", "Run aikit.fleet.provision.")]
    container = observed.get("container") or {}
    running = bool(container.get("running"))
    status = container.get("status") or "there is none"
    if state == "absent":
        return [_check(f"{name}: container", not container, status if container else "absent, as wanted", "Run aikit.fleet.deploy.")]
    if state == "stopped":
        return [_check(f"{name}: container", not running, status if running else "stopped, as wanted", "Run aikit.fleet.deploy.")]
    checks = [_check(f"{name}: container", running, status, "Run aikit.fleet.deploy; docker logs says why it ended.")]
    pending = (observed.get("state") or {}).get("pending")
    if pending:
        detail = "a release was interrupted before it was proven"
        checks.append(_check(f"{name}: release", False, detail, "Run aikit.fleet.deploy again; it finishes the release."))
    if running:
        ok = bool(check.get("passed"))
        detail = _proof(check) if ok else str(check.get("msg") or "was not asked")
        checks.append(_check(f"{name}: proof", ok, detail, str(check.get("hint") or "Run aikit.fleet.deploy.")))
        if check.get("planned"):
            # Off the plan is worth a look, and no failure: the service answers
            checks.append(_check(f"{name}: memory", True, "; ".join(_memory(row) for row in check["planned"]), ""))
    return checks


def services_to_remove(
    planned: Iterable[Mapping[str, Any]], state_files: Iterable[Mapping[str, Any]], containers: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every service that a host has or should have, by name: from the inventory, the state files and the labels of containers."""
    known = {service["name"]: dict(service) for service in planned}
    names = [posixpath.basename(str(entry["path"]))[: -len(".json")] for entry in state_files]
    names += [str((entry.get("Labels") or {}).get("io.aikit.fleet.service") or "") for entry in containers]
    for name in names:
        if name and name not in known:
            known[name] = {"name": name, "engine": "auto", "image": "", "url": "", "gpus": [], "port": None, "has_api_key": False}
    return [{**known[name], "state": "absent"} for name in sorted(known)]


def images_to_remove(images: Iterable[Mapping[str, Any]], running: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What becomes of the images of a host: ``remove`` them, or ``keep`` those that a running container of somebody else's needs, and say whose."""
    users: dict[str, list[str]] = {}
    for container in running:
        if "io.aikit.fleet.service" not in (container.get("Labels") or {}):
            names = container.get("Names") or [container.get("Id") or ""]
            users.setdefault(str(container.get("ImageID") or ""), []).append(str(names[0]).lstrip("/"))
    found: dict[str, list[dict[str, Any]]] = {"remove": [], "keep": []}
    for image in images:
        names = sorted(users.get(str(image["id"]), ()))
        found["keep" if names else "remove"].append({**image, "used_by": names})
    return found


def release_failure(name: str, failure: str, restored: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """The message of a failed release: what went wrong, and what runs now."""
    failure = failure.rstrip()
    outcome = _after(restored, answers)
    if restored.get("skipped") or "restored" not in restored:
        return f"{name}: {failure}"
    if outcome == "not touched":
        return f"{name}: {failure}\nThe release that runs was not touched."
    if outcome == "failed":
        return f"{name}: {failure}\nThere was no earlier release of {name} to go back to."
    if answers.get("skipped"):
        return f"{name}: {failure}\nThe earlier release was put back."
    if outcome == "down":
        return f"{name}: {failure}\nThe earlier release was put back, but does not answer: {answers.get('msg', 'no answer')}"
    return f"{name}: {failure}\nThe earlier release was put back and answers again (verdict {answers['verdict']})."


def service_names(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every service that is present somewhere, each once."""
    return sorted({str(service["name"]) for plan in plans.values() for service in plan.get("services") or () if service["state"] == "present"})


def plan_table(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What would run where."""
    rows = []
    for host in sorted(plans):
        for service in plans[host].get("services") or ():
            rows.append(
                {
                    "host": host,
                    "service": service["name"],
                    "state": service["state"],
                    "image": service["image"],
                    "from": _origin(service),
                    "models": ", ".join(model["name"] for model in service.get("models") or ()) or None,
                    "gpus": ", ".join(service.get("gpus") or ()) or "none",
                    "listens on": f"{service['bind_address']}:{service['port']}",
                    "expects": " or ".join((service.get("expect") or {}).get("verdict") or ()) or None,
                }
            )
    return table(rows, ("host", "service", "state", "image", "from", "models", "gpus", "listens on", "expects"))


def checks_table(checks: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The doctor's checks of all hosts, with hints where something is wrong."""
    rows: list[dict[str, Optional[str]]] = []
    for host in sorted(checks):
        for check in checks[host]:
            hint = None if check["ok"] else str(check["hint"])
            rows.append({"host": host, "check": str(check["name"]), "ok": "yes" if check["ok"] else "NO", "detail": _first_line(check["detail"]), "hint": hint})
    return table(rows, ("host", "check", "ok", "detail", "hint"))


def checks_report(checks: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The doctor's checks for programs: ``{ok, hosts: {host: [{name, ok, detail, hint}]}}``."""
    hosts = {host: [{key: check[key] for key in ("name", "ok", "detail", "hint")} for check in checks[host]] for host in sorted(checks)}
    # Where nothing was checked, nothing is known to be well
    return {"ok": bool(hosts) and all(found and all(check["ok"] for check in found) for found in hosts.values()), "hosts": hosts}


def not_checked(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The check of a host that could not be looked at, by the result of the task that did not come to its end."""
    detail = str(result.get("msg") or "its answers are missing")
    if result.get("unreachable"):
        return [_check("reachable", False, detail, "Is it up, and does Ansible's connection to it work: ansible HOST -m ping?")]
    return [_check("checked", False, detail, str(result.get("hint") or "Mend that, and run the doctor again."))]


def all_checks(checks: Mapping[str, Sequence[Mapping[str, Any]]], hosts: Iterable[str]) -> dict[str, list[Mapping[str, Any]]]:
    """``checks`` of every one of ``hosts``: one that got lost on the way has a failed check that says so."""
    return {host: list(checks.get(host) or not_checked({"unreachable": True})) for host in hosts}


def _after(restored: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """What became of a service whose release failed, in a word of the report."""
    if not restored.get("restored"):
        container = restored.get("container") or {}
        current = (restored.get("state") or {}).get("current") or {}
        return "not touched" if container.get("running") and container.get("spec") == current.get("spec") else "failed"
    return "rolled back" if answers.get("skipped") or answers.get("passed") else "down"


def _of_host(rollout: Mapping[str, Any], waits: bool) -> tuple[str, Optional[str]]:
    """What is told of services without a result, by how far their host came."""
    state = rollout.get("state")
    if state in ("failed", "unreachable"):
        return state, str(rollout["failure"])
    if state == "begun":
        return ("waits for a reboot", None) if waits else ("lost", "its connection was lost half way, or an error on another host ended its part; see above")
    # Done without a result: its part had nothing to do with services
    return ("-", None) if state else ("not reached", None)


def _outcome(result: Mapping[str, Any]) -> str:
    if result.get("outcome"):
        return str(result["outcome"])
    if result.get("state") != "present":
        return str(result.get("state"))
    # In check mode, what would be started anew cannot be proven
    return "proven" if result.get("verdict") else "would be replaced"


def _image(result: Mapping[str, Any]) -> Optional[str]:
    digest = str(result.get("image_id") or "").partition(":")[2][:12]
    return f"{result['image']} ({digest})" if result.get("image") and digest else result.get("image")


def _short(text: Optional[str]) -> Optional[str]:
    line = _first_line(text or "")
    return f"{line[:159]}…" if len(line) > 160 else line or None


def _origin(service: Mapping[str, Any]) -> str:
    if not service.get("built"):
        return "pre-made image"
    how = service.get("runtime") or "cpu"
    if service.get("builder") == "buildkit":
        how += ", built by BuildKit"
    return f"{posixpath.basename(service.get('src') or 'definition')} ({how})"


def _proof(check: Mapping[str, Any]) -> str:
    speed = check.get("tokens_per_second")
    return f"{check['verdict']}" + (f", {speed:.1f} tokens/s" if isinstance(speed, (int, float)) else "")


def _memory(row: Mapping[str, Any]) -> str:
    total = row["total"]
    percent = "" if total["percent"] is None else f" ({total['percent']:+.1f} %)"
    return f"{row['device']} {total['actual_mib']:.0f} MiB, planned {total['planned_mib']:.0f}{percent}"


def _check(name: str, ok: bool, detail: str, hint: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "hint": "" if ok else hint}


def _first_line(text: Any) -> str:
    return (str(text).strip().splitlines() or [""])[0]
