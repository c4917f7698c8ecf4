# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of GPU memory for people and for programs: what a deployment prints, and what playbook plan writes."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional, Sequence

from .table import table

_COLUMNS = ("host", "service", "fits", "layers", "context", "KV", "GPU memory MiB", "of", "host MiB", "settings", "why")
# In the order in which people read them; the rest is shown only where it is not what everybody has
_SHOWN = ("gpu_layers", "context_size", "cache_type_k", "cache_type_v", "batch", "n_cpu_moe", "no_kv_offloading", "tensor_split", "parallel")


def lines(services: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a plan makes of the services of one host, a sentence each, with the settings that change."""
    result = []
    for name, found in services.items():
        if found["state"] == "later":
            result.append(f"{name}: {found['reason']}")
            continue
        if found["state"] == "server":
            result.append(f"{name}: not planned, {found['reason']}")
            continue
        fit = found["fit"]
        words = "keeps its plan" if found["kept"] else "planned" if found["state"] == "planned" else "counted"
        result.append(f"{name}: {words}, {_layers(fit)} layers, context {fit['settings'].get('context_size')}. {fit['reason']}")
        if fit.get("step_down"):
            result.append(f"  {fit['step_down']} step(s) down, after: {fit.get('step_reason') or 'an out-of-memory error'}")
        if found["state"] == "planned":
            result += [f"  {change}" for change in _changes(found["before"], found["settings"])]
        result += [f"  {_share(share)}" for share in _on_gpus(fit)]
        result += [f"  {_share({**share, 'device': 'host memory'})}" for share in _host_shares(fit) if share.get("available_mib")]
        if found.get("note"):
            result.append(f"  {found['note']}")
    return result


def rows(hosts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each service of each host; ``hosts`` maps a host to the result of service_fit."""
    result: list[dict[str, Any]] = []
    for host in sorted(hosts):
        for name, found in (hosts[host].get("services") or {}).items():
            row: dict[str, Any] = {"host": host, "service": name, "why": found["reason"]}
            if found["state"] in ("planned", "counted"):
                fit = found["fit"]
                shares = _on_gpus(fit)
                row.update(
                    {
                        "fits": {True: fit["offload"], False: "NO", None: "?"}[found["fits"]],
                        "layers": _layers(fit),
                        "context": fit["settings"].get("context_size"),
                        "KV": _kv(fit["settings"]),
                        "GPU memory MiB": None if fit.get("delegated") else round(sum(float(share["needed_mib"]) for share in shares)),
                        "of": round(sum(float(share["available_mib"]) for share in shares)) if shares else None,
                        "host MiB": next((round(float(share["needed_mib"])) for share in _host_shares(fit)), None),
                        "settings": _origin(found),
                    }
                )
            else:
                row.update({"fits": "later" if found["state"] == "later" else "?", "settings": "server" if found["state"] == "server" else None})
            result.append(row)
    return result


def plan_lines(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table of playbook plan: what fits where at which context."""
    return table(rows(hosts), _COLUMNS)


def document(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same for programs: ``{fits, known, misfits, hosts: {host: {fits, known, reason, services, findings}}}``."""
    found = {
        host: {
            "fits": bool(plan.get("fits")),
            "known": bool(plan.get("known")),
            "reason": str(plan.get("reason") or ""),
            "services": plan.get("services") or {},
            "findings": plan.get("findings") or [],
        }
        for host, plan in sorted(hosts.items())
    }
    return {
        "fits": all(plan["fits"] for plan in found.values()),
        "known": all(plan["known"] for plan in found.values()),
        "misfits": misfits(hosts),
        "hosts": found,
    }


def misfits(hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What does not fit, and what cannot be said yet, a sentence each."""
    words = {"NO": "does not fit", "later": "is not known to fit yet"}
    return [f"{row['service']} on {row['host']} {words[row['fits']]}: {row['why'].rstrip('.')}." for row in rows(hosts) if row.get("fits") in words]


def _host_shares(fit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What stays out of the GPUs."""
    if fit.get("delegated"):
        return []
    return [share for share in fit.get("breakdown") or () if share.get("index") is None and share.get("needed_mib")]


def _layers(fit: Mapping[str, Any]) -> str:
    return f"{'?' if fit.get('delegated') else fit.get('layers_offloaded')}/{fit.get('layers_total')}"


def _on_gpus(fit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts on GPUs; of what is left to the server's own fit there is only an estimate, which is not shown."""
    if fit.get("delegated"):
        return []
    return [share for share in fit.get("breakdown") or () if share.get("index") is not None and share.get("needed_mib")]


def _kv(settings: Mapping[str, Any]) -> Optional[str]:
    kinds = [str(settings[key]) for key in ("cache_type_k", "cache_type_v") if settings.get(key)]
    if not kinds:
        return None
    where = " in RAM" if settings.get("no_kv_offloading") else ""
    return ("/".join(dict.fromkeys(kinds))) + where


def _origin(found: Mapping[str, Any]) -> str:
    if found["state"] == "counted":
        return "as set"
    step = f", step {found['fit']['step_down']}" if found["fit"].get("step_down") else ""
    return ("kept" if found["kept"] else "planned") + step


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    for key in (*_SHOWN, *sorted({*before, *after} - set(_SHOWN))):
        old, new = before.get(key), after.get(key)
        if before and old != new and not (_nothing(old) and _nothing(new)):
            yield f"{key}: {_word(old)} -> {_word(new)}"
        elif not before and key in _SHOWN and not _nothing(new):
            yield f"{key}: {_word(new)}"


def _nothing(value: Any) -> bool:
    return value is None or value == "" or value is False or value == 0


def _word(value: Any) -> str:
    if value is None or value == "":
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _share(share: Mapping[str, Any]) -> str:
    names: Sequence[tuple[str, str]] = (
        ("weights", "weights_mib"),
        ("KV", "kv_mib"),
        ("states", "state_mib"),
        ("compute", "compute_mib"),
        ("projector", "mmproj_mib"),
        ("driver", "context_mib"),
    )
    margin = f", margin {float(share['margin_mib']):.0f}" if share.get("index") is not None else ""
    parts = " + ".join(f"{word} {float(share.get(key) or 0):.0f}" for word, key in names if float(share.get(key) or 0) >= 0.5)
    return f"{share['device']}: {parts} = {float(share['needed_mib']):.0f} of {float(share['available_mib']):.0f} MiB{margin}"
