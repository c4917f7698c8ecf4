# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wait for a server, ask it once, and gather what proves where its model runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any, Callable, Mapping, Optional

from .._core import check, planned
from .._core.container import api_key_of
from .._core.engine import ContainerState
from .._core.errors import AikitError
from .._core.offload import Evidence, evidence
from .engine import Engine
from .openai import Client, Refused

_POLL_SECONDS = 0.5
_LOOK_TIMEOUT_SECONDS = 5.0
# A model that is in memory answers a short prompt in less, also while a GPU compiles its shaders
_ANSWER_SECONDS = 120.0
_SMI_TIMEOUT_SECONDS = 15


class Watched:
    """The container behind a server; without one, every question has an empty answer."""

    def __init__(self, engine: Optional[Engine], name: str) -> None:
        self._engine, self._name = engine, name
        self.state: Optional[ContainerState] = None
        if engine is not None:
            self.state = engine.container(name)
            if self.state is None:
                raise AikitError(f"There is no container {name}.", "Deploy the service first, or correct the name.")
            self._restarts = self.state.restart_count

    def look(self) -> None:
        """Raise when the container has ended, with its last words."""
        if self._engine is None:
            return
        state = self._engine.container(self._name)
        if state is None:
            raise AikitError(f"Container {self._name} was removed while the check waited for it.")
        if check.down(state.status, state.running, state.restart_count, self._restarts):
            log = self._engine.logs(self._name, tail=2000)
            found = evidence(log)
            failure = check.ended(self._name, state.status, state.exit_code, state.restart_count, found, log, state.error)
            raise AikitError(failure.message, failure.hint, found=found)
        self.state = state

    def log(self, tail: Optional[int] = None) -> str:
        """What the container wrote since it started."""
        if self._engine is None or self.state is None:
            return ""
        return self._engine.logs(self._name, tail=tail, since=self.state.started_at)

    def processes(self) -> list[int]:
        return [] if self._engine is None else self._engine.processes(self._name)


def wait(
    client: Client,
    watched: Watched,
    model: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> check.Step:
    """Until the server says that it can answer; an error as soon as it is clear that it never will."""
    deadline = clock() + seconds
    env: Mapping[str, str] = watched.state.env if watched.state is not None else {}
    aliases = [name.strip() for name in env.get("LLAMA_ARG_ALIAS", "").split(",") if name.strip()]
    loose = watched.state is not None and check.lists_files(env, watched.state.command)
    while True:
        watched.look()
        timeout = max(1.0, min(_LOOK_TIMEOUT_SECONDS, deadline - clock()))
        step = check.judge_health(client.get("/health", timeout), client.url)
        if step.state == "ask":
            step = check.judge_models(client.get("/v1/models", timeout), client.url, model, aliases, loose)
        if step.state == "ready":
            return step
        if clock() >= deadline:
            raise check.not_ready(client.url, seconds, step.words, watched.log(tail=20))
        sleep(_POLL_SECONDS)


def ask(client: Client, watched: Watched, model: str, prompt: str, max_tokens: int, seconds: float) -> check.Answer:
    """One completion. A server that leaves the usage out of a stream is asked again, in one piece."""
    body = check.request(model, prompt, max_tokens)
    try:
        completion = _collect(client, body, seconds)
        if completion.lacks_usage:
            whole = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
            for elapsed, event in client.complete("/v1/chat/completions", whole, seconds):
                completion.add({**event, "choices": []} if isinstance(event, dict) else event, elapsed)
    except Refused as exc:
        reply = exc.reply
        # A process that died takes a moment to be seen as dead
        for _attempt in range(4 if reply.error else 0):
            watched.look()
            time.sleep(_POLL_SECONDS)
        reason = reply.error or f"HTTP {reply.status}, {check.server_message(reply)}"
        raise AikitError(f"The server at {client.url} did not give a completion: {reason}.", "Look at the container's log.") from exc
    return completion.answer(model)


def _collect(client: Client, body: dict[str, Any], seconds: float) -> check.Completion:
    completion = check.Completion()
    try:
        for elapsed, event in client.complete("/v1/chat/completions", body, seconds):
            completion.add(event, elapsed)
    except Refused:
        if not completion.finished:
            raise
    return completion


def gather(client: Client, watched: Watched, log: str, stored: Mapping[str, Any], step: check.Step) -> tuple[Evidence, list[str]]:
    """The evidence and where it comes from: the log or an earlier check of the same run, then the GPU's driver.

    A completion has just succeeded. Where a server loads its only model at its start, nothing that the log of this run
    has gained since an earlier check can tell more about the load, and clients may have written it.
    """
    text = log or watched.log()
    found = evidence(text, one_run=not log)
    sources = ["log"] if text else []
    if not text and watched.state is None:
        found = Evidence("unverified", ("Neither a container nor a log was given, so nothing says where the model runs.",))
    state = watched.state
    if state is not None and (found.verdict == "unverified" or (not log and step.loaded and not step.router)):
        earlier = check.stored_evidence(stored, state.id, state.started_at)
        if earlier is not None:
            found, sources = earlier, ["stored"]
    if state is not None:
        listing = gpu_processes()
        if listing is not None:
            found, source = check.corroborate(found, check.compute_apps(listing), watched.processes(), step.size_bytes)
            sources += [source] if source else []
    if not step.llama_cpp and found.verdict in ("unverified", "cpu"):
        reply = client.get("/api/resources")
        words = check.resources(reply.json()) if reply.status == 200 else ""
        found = check.add_reason(found, words)
        sources += ["resources"] if words else []
    return found, sources


def gpu_processes() -> Optional[str]:
    """What NVIDIA's driver says of compute processes; None where it cannot be asked."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run(
            [command, "--query-compute-apps=pid,used_memory", "--format=csv,noheader"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_SMI_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def find_api_key(key: Optional[str], path: Optional[str], hidden: set[str]) -> str:
    """The key that was given, or the one in the file that the role wrote on this host; the latter is added to ``hidden``."""
    if not path:
        return key or ""
    with open(path, encoding="utf-8") as handle:
        found = api_key_of(handle.read())
    if found:
        hidden.add(found)
    return found


def read_log(log: str) -> str:
    """The option ``log``: the name of a file, or the text itself."""
    if log and "\n" not in log and os.path.isfile(log):
        with open(log, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    return log


def prove(
    client: Client,
    watched: Watched,
    model: str,
    prompt: str,
    max_tokens: int,
    seconds: float,
    log: str,
    stored: Mapping[str, Any],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Wait, ask and judge. An error carries what is known by then."""
    started = clock()
    try:
        step = wait(client, watched, model, seconds, clock)
        left = max(_ANSWER_SECONDS, started + seconds - clock())
        if not step.loaded:
            # LocalAI and the router load at the first request; its time is part of getting ready, not of the answer
            ask(client, watched, step.model, prompt, 1, left)
        ready = clock() - started
        answer = ask(client, watched, step.model, prompt, max_tokens, left)
    except AikitError as exc:
        found = exc.data.get("found") or _known(watched, log)
        failed = Evidence(
            "failed",
            found.reasons if found.verdict == "failed" else (exc.message.splitlines()[0], *found.reasons),
            found.layers_offloaded,
            found.layers_total,
            found.devices,
            found.buffers,
            found.failure,
        )
        raise AikitError(exc.message, exc.hint, **result(failed, [], watched, None, None)) from exc
    found, sources = gather(client, watched, log, stored, step)
    return result(found, sources, watched, answer, ready)


def _known(watched: Watched, log: str) -> Evidence:
    """What the log says of a server that did not answer; it matters only when it can be read."""
    try:
        return evidence(log or watched.log())
    except AikitError:
        return Evidence("unverified")


def complete(data: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a check that failed before it knew anything else, and whatever ``data`` adds."""
    unknown = result(Evidence("failed"), [], Watched(None, ""), None, None)
    return {**unknown, **data}


def result(
    found: Evidence, sources: list[str], watched: Watched, answer: Optional[check.Answer], ready: Optional[float]
) -> dict[str, Any]:
    """The keys that the module returns. ``evidence`` is complete, so that it can be kept and given back to a later check."""
    state = watched.state
    run = {"container_id": state.id if state else "", "started_at": state.started_at if state else ""}
    return {
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "evidence": {**found.as_dict(), "sources": sources, **run},
        "answer": answer.text if answer else "",
        "model": answer.model if answer else "",
        "ready_seconds": None if ready is None else round(ready, 3),
        "time_to_first_token_seconds": answer.time_to_first_token_seconds if answer else None,
        "tokens_per_second": answer.tokens_per_second if answer else None,
        "prompt_tokens": answer.prompt_tokens if answer else None,
        "completion_tokens": answer.completion_tokens if answer else None,
        "finish_reason": answer.finish_reason if answer else "",
        "planned": [],
        "findings": [],
        **run,
    }


def beside_plan(found: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, Any]:
    """``found`` with the plan's amounts beside those of the log."""
    rows = planned.compare(fit, found["evidence"]["buffers"])
    return {**found, "planned": rows, "findings": [finding.as_dict() for finding in planned.findings(rows)]}
