# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is this server ours, is it ready, is its answer an answer, and is that what was expected? Decisions only, no I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from .aikitfile import is_projector
from .errors import AikitError
from .offload import Evidence

LOG_LINES = 20
_QUOTE_LIMIT = 160
# With all weights and the KV cache in host memory llama.cpp still held 1.1 GiB of compute buffers beside its context of about 0.5 GiB
_HELD_WITHOUT_LAYERS_MIB = 2048.0
_HELD_SHARE = 0.8

_EXIT_HINTS = {
    132: "SIGILL: the server uses CPU instructions that this host does not have",
    134: "SIGABRT: the server aborted",
    137: "killed: most often for memory, by the kernel or the container's limit",
    139: "SIGSEGV: the server crashed",
    143: "SIGTERM: something stopped it",
}

_VERDICT_HINTS = {
    "partial": "Give the model a bigger GPU, a smaller context or fewer bits, or accept partial in expect.verdict.",
    "cpu": "Check that the container was given a GPU and that the driver works on the host, or accept cpu in expect.verdict.",
    "software": "Give the container a real GPU, or accept software in expect.verdict.",
    "failed": "The reasons say what went wrong while the model was loaded.",
    "unverified": "Make the server log its load (LLAMA_ARG_LOG_VERBOSITY=4, or LocalAI's debug log) and restart it, or accept unverified in expect.verdict.",
    "proven": "",
}

_FAILURE_HINTS = {
    "oom": "Give the model a bigger GPU, fewer layers on the GPU or a smaller context.",
    "ram": "Give the host or the container more memory, keep more of the model on the GPU, or take a smaller model or context.",
    "driver": "Check the GPU driver on the host (nvidia-smi) and that the container gets its libraries.",
    "init": "Check that the container was given the GPU.",
    "arch": "Use a server that was built for this machine.",
    "model": "Check the model file and its sha256.",
    "config": "Check the settings against the options of this version of the server.",
}


@dataclass(frozen=True)
class Reply:
    """What came back over HTTP. ``error`` is set when there was no HTTP answer; header names are lower case."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""
    foreign: bool = False

    def json(self) -> Any:
        """The body as JSON, None when it is none."""
        try:
            return json.loads(self.body.decode("utf-8", "replace"))
        except ValueError:
            return None

    def describe(self) -> str:
        """The first bytes, and who says so."""
        text = "".join(char if char.isprintable() else " " for char in self.body[:_QUOTE_LIMIT].decode("utf-8", "replace")).strip()
        server = f" from {self.headers['server']}" if self.headers.get("server") else ""
        status = f"HTTP {self.status}{server}" if self.status else "no HTTP"
        return f'{status}: "{text}"' if text else status


@dataclass(frozen=True)
class Step:
    """One look at a server: ``wait`` (and why), ``ask`` for its models, or ``ready``."""

    state: str
    words: str = ""
    model: str = ""
    llama_cpp: bool = False
    loaded: bool = False
    size_bytes: int = 0
    router: bool = False


def server_message(reply: Reply) -> str:
    """The server's own words about an error, or the start of what it sent."""
    document = reply.json()
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return str(error)[: 2 * _QUOTE_LIMIT] if error else reply.describe()


def judge_health(reply: Reply, url: str) -> Step:
    """What ``/health`` says. Servers that do not know it are asked for their models."""
    if reply.foreign:
        raise _not_ours(url, reply)
    if reply.error:
        return Step("wait", f"nothing answers at {url} ({reply.error})")
    if reply.status >= 500:
        return Step("wait", f'it answers HTTP {reply.status}, "{server_message(reply)}"')
    return Step("ask")


def lists_files(env: Mapping[str, str], command: Sequence[str]) -> bool:
    """Whether a container runs AIKit's image of an aikitfile without ``config``: LocalAI then serves every file of /models by its name."""
    return "CONFIG_FILE" in env and not any(word.startswith("--config-file") for word in command)


def judge_models(reply: Reply, url: str, wanted: str = "", aliases: Sequence[str] = (), files: bool = False) -> Step:
    """What ``/v1/models`` says: which model to ask, and whether it is in memory already.

    ``aliases`` are the names that the container was told to serve; when the server at ``url`` knows none of them, it is another one.
    With ``files`` its models are files, of which some can be none, such as a license.
    """
    if reply.foreign:
        raise _not_ours(url, reply)
    if reply.error:
        return Step("wait", f"nothing answers at {url} ({reply.error})")
    if reply.status in (401, 403):
        raise AikitError(
            f"The server at {url} refuses the API key or needs one (HTTP {reply.status}: {server_message(reply)}).", "Set api_key to the service's key."
        )
    if reply.status >= 500:
        return Step("wait", f'it answers HTTP {reply.status}, "{server_message(reply)}"')
    document = reply.json()
    entries = document.get("data") if isinstance(document, dict) else None
    if reply.status != 200 or not isinstance(entries, list):
        raise _not_ours(url, reply)
    models = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    if not models:
        return Step("wait", "it serves no model")
    names = {entry["id"]: {entry["id"], *(name for name in entry.get("aliases") or () if isinstance(name, str))} for entry in models}
    served = set().union(*names.values())
    if aliases and not served.intersection(aliases):
        raise AikitError(
            f"Another server answers at {url}: it serves {_list(names)}, and the container serves {_list(aliases)}"
            f"{_by(reply)}.",
            "Find out who listens on that port (ss -ltnp), and give the service another one.",
        )
    if wanted and wanted not in served:
        raise AikitError(f"The server at {url} has no model {wanted}; it has {_list(names)}.", "Ask for one of these, or leave model out.")
    first = next((entry for entry in models if files and _is_weights(entry["id"])), models[0])
    entry = next((entry for entry in models if wanted in names[entry["id"]]), first)
    llama_cpp = "llama.cpp" in reply.headers.get("server", "") or entry.get("owned_by") == "llamacpp"
    status = _mapping(entry.get("status"))
    value = str(status.get("value", "loaded" if llama_cpp else ""))
    if status.get("failed"):
        raise AikitError(
            f"The server at {url} could not load model {entry['id']}: its process ended with exit code {status.get('exit_code', 'unknown')}.",
            "The container's log says why.",
        )
    if value in ("loading", "downloading"):
        return Step("wait", f"model {entry['id']} is {value}")
    size = _mapping(entry.get("meta")).get("size")
    return Step("ready", "", wanted or entry["id"], llama_cpp, value == "loaded", size if isinstance(size, int) else 0, bool(status))


def _is_weights(name: str) -> bool:
    return name.lower().endswith(".gguf") and not name.startswith(".") and not is_projector(name)


def _not_ours(url: str, reply: Reply) -> AikitError:
    return AikitError(
        f"Something else answers at {url}; it is no inference server ({reply.describe()}).",
        "Find out who listens on that port (ss -ltnp), and give the service another one.",
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _by(reply: Reply) -> str:
    return f" (Server: {reply.headers['server']})" if reply.headers.get("server") else ""


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


# --- the completion --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A completion. ``tokens_per_second`` and the time to the first token are None where they could not be measured."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    time_to_first_token_seconds: Optional[float]
    tokens_per_second: Optional[float]


def request(model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """The body of a chat completion that is streamed, with the usage at its end."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class Completion:
    """Collects the events of a streamed completion; a server that answers in one piece gives one event."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._model = ""
        self._finish = ""
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._first: Optional[float] = None
        self._last: Optional[float] = None
        self._streamed = False

    def add(self, event: Any, seconds: float) -> None:
        """Take one event that came ``seconds`` after the request."""
        if not isinstance(event, dict):
            raise AikitError(f"The server sent something else than a completion: {str(event)[:_QUOTE_LIMIT]}")
        if event.get("error"):
            raise AikitError(f"The server broke the completion off: {server_message(Reply(200, {}, json.dumps(event).encode()))}")
        self._model = str(event.get("model") or self._model)
        self._usage = event["usage"] if isinstance(event.get("usage"), dict) else self._usage
        self._timings = event["timings"] if isinstance(event.get("timings"), dict) else self._timings
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            self._streamed = self._streamed or "delta" in choice
            part = choice.get("delta") or choice.get("message") or {}
            # Models that think send their thoughts first; these are tokens too
            texts = [part.get(key) for key in ("content", "reasoning_content", "reasoning")] if isinstance(part, dict) else []
            for text in texts:
                if isinstance(text, str) and text:
                    self._first = seconds if self._first is None else self._first
                    self._last = seconds
                    self._text.append(text)
            self._finish = str(choice.get("finish_reason") or self._finish)

    def answer(self, model: str) -> Answer:
        """The whole completion; an error when it is none."""
        text = "".join(self._text)
        tokens = _count(self._usage.get("completion_tokens"))
        if not text and not tokens:
            raise AikitError("The server's completion is empty: it has no text and counts no tokens.")
        if not self._finish:
            raise AikitError("The server's completion has no finish_reason: it was cut off.", "Look at the container's log.")
        if not tokens:
            raise AikitError("The server's completion has no usage: it does not count its tokens.")
        streamed = self._first if self._streamed else None
        return Answer(
            text,
            self._model or model,
            _count(self._usage.get("prompt_tokens")),
            tokens,
            self._finish,
            None if streamed is None else round(streamed, 3),
            self._speed(tokens),
        )

    @property
    def finished(self) -> bool:
        """Whether the text is complete, if not all that is told of it."""
        return bool(self._finish)

    @property
    def lacks_usage(self) -> bool:
        """Whether there is a text whose tokens were not counted."""
        return bool(self._text) and self.finished and not _count(self._usage.get("completion_tokens"))

    def _speed(self, tokens: int) -> Optional[float]:
        measured = self._timings.get("predicted_per_second")
        # One token is predicted with the prompt, in no time at all
        if isinstance(measured, (int, float)) and _count(self._timings.get("predicted_n")) > 1:
            return round(float(measured), 2)
        if self._first is not None and self._last is not None and self._last > self._first and tokens > 1:
            return round((tokens - 1) / (self._last - self._first), 2)
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


# --- containers ------------------------------------------------------------------------------------------------------


def down(status: str, running: bool, restart_count: int, first_restart_count: int) -> bool:
    """Whether a container that should come up has ended, if only to be started again by its restart policy."""
    return status in ("exited", "dead", "removing", "restarting", "stopped", "paused") or restart_count > first_restart_count or not running


def ended(name: str, status: str, exit_code: int, restart_count: int, found: Evidence, log: str, error: str = "") -> AikitError:
    """The error for a container that does not run: how it ended, why, and its last words."""
    if status == "created":
        text, hint = f"Container {name} was created, but never started.", "Start it."
    elif status == "paused":
        text, hint = f"Container {name} is paused.", f"docker unpause {name} lets it go on."
    else:
        meaning = f" ({_EXIT_HINTS[exit_code]})" if exit_code in _EXIT_HINTS else ""
        again = f", and was restarted {restart_count} times" if restart_count else ""
        text, hint = f"Container {name} ended with exit code {exit_code}{meaning}{again}.", _FAILURE_HINTS.get(found.failure, "")
    parts = [text]
    if error:
        parts.append(f"The engine says: {error}")
    if found.verdict == "failed":
        parts += found.reasons
    lines = last_lines(log)
    if lines:
        parts.append("Its last lines:\n" + "\n".join(f"  {line}" for line in lines))
    return AikitError("\n".join(parts), hint)


def not_ready(url: str, seconds: float, last: str, log: str) -> AikitError:
    """The error for a server that did not get ready in time: what it was doing."""
    lines = last_lines(log, 1)
    line = f' Its last log line: "{lines[0].strip()[: 2 * _QUOTE_LIMIT]}".' if lines else ""
    return AikitError(
        f"The server at {url} was not ready after {seconds:.0f} seconds: {last or 'it did not answer'}.{line}",
        "Big models take minutes to load: raise timeout_seconds when it was still loading.",
    )


def last_lines(log: str, count: int = LOG_LINES) -> list[str]:
    """The last lines of a log that are not empty."""
    # A line can be as long as a prompt; whoever reads the error wants its start
    return [line[:500] for line in log[-count * 4096 :].splitlines() if line.strip()][-count:]


# --- evidence --------------------------------------------------------------------------------------------------------


def stored_evidence(stored: Mapping[str, Any], container_id: str, started_at: str) -> Optional[Evidence]:
    """Evidence of an earlier check, when it is of this very run of this very container."""
    if not stored or not container_id or stored.get("container_id") != container_id or stored.get("started_at") != started_at:
        return None
    if stored.get("verdict") not in ("proven", "partial", "cpu", "software"):
        return None
    return Evidence(
        str(stored["verdict"]),
        tuple(str(reason) for reason in stored.get("reasons") or ()),
        stored.get("layers_offloaded"),
        stored.get("layers_total"),
        tuple(stored.get("devices") or ()),
        tuple(stored.get("buffers") or ()),
    )


def compute_apps(text: str) -> dict[int, float]:
    """GPU memory in MiB by process, from ``nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader``."""
    held: dict[int, float] = {}
    for line in text.splitlines():
        pid, _comma, memory = line.partition(",")
        words = memory.split()
        if pid.strip().isdigit():
            # [N/A] where the driver cannot tell, as on WSL and in MIG slices of old drivers
            amount = float(words[0]) if words and words[0].replace(".", "", 1).isdigit() else 0.0
            held[int(pid)] = held.get(int(pid), 0.0) + amount
    return held


def corroborate(found: Evidence, held: Mapping[int, float], processes: Iterable[int], size_bytes: int) -> tuple[Evidence, str]:
    """Add what the driver says of the container's processes, and return it with a name for this source.

    Memory that is held proves the offload only where the log is silent (``unverified``), where the size of the model is known,
    and where it is more than a server without a single layer on the GPU takes there (context, compute buffers) and 80 % of the
    model together. It never lifts any other verdict.
    """
    mine = {pid: held[pid] for pid in processes if pid in held}
    if not held and found.verdict != "unverified":
        return found, ""
    if not mine:
        words = "The GPU driver sees no compute process of this container."
        return (_add_reason(found, words), "") if found.verdict in ("unverified", "cpu") else (found, "")
    total = sum(mine.values())
    words = f"The GPU driver says that the container's processes hold {total:.0f} MiB of GPU memory."
    size = size_bytes / 1048576
    if found.verdict == "unverified":
        if size and total >= _HELD_SHARE * size + _HELD_WITHOUT_LAYERS_MIB:
            upgraded = _add_reason(found, f"{words} The model needs {size:.0f} MiB.")
            return Evidence("proven", upgraded.reasons, found.layers_offloaded, found.layers_total, found.devices, found.buffers), "nvidia-smi"
        taken = f"a context and its buffers take up to {_HELD_WITHOUT_LAYERS_MIB:.0f} MiB without any layer"
        known = f"the model has {size:.0f} MiB, and {taken}" if size else f"the server does not tell the size of the model, and {taken}"
        words = f"{words} That does not prove where the weights are: {known}."
    return _add_reason(found, words), "nvidia-smi"


def resources(document: Any) -> str:
    """What LocalAI's ``/api/resources`` says, as a reason; empty when it says nothing."""
    if not isinstance(document, dict):
        return ""
    gpus = document.get("gpus")
    if document.get("type") == "gpu" and isinstance(gpus, list) and gpus:
        names = ", ".join(str(gpu.get("name") or gpu.get("vendor") or "a GPU") for gpu in gpus if isinstance(gpu, dict))
        return f"LocalAI's resources list {names or 'a GPU'}."
    return "LocalAI's resources list no GPU." if document.get("type") == "ram" else ""


def add_reason(found: Evidence, words: str) -> Evidence:
    """``found`` with one more reason; nothing changes without words."""
    return _add_reason(found, words) if words else found


def _add_reason(found: Evidence, words: str) -> Evidence:
    # Stored evidence holds what the driver said at an earlier check; its newest word counts
    kept = [reason for reason in found.reasons if not (reason.startswith("The GPU driver ") and words.startswith("The GPU driver "))]
    return Evidence(
        found.verdict, (*kept, words), found.layers_offloaded, found.layers_total, found.devices, found.buffers, found.failure
    )


# --- expectations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expectation:
    """What a service must show. Without verdicts, everything but ``failed`` will do."""

    verdicts: tuple[str, ...] = ()
    min_tokens_per_second: Optional[float] = None
    max_time_to_first_token_seconds: Optional[float] = None
    max_ready_seconds: Optional[float] = None


def expectation(options: Optional[Mapping[str, Any]]) -> Expectation:
    """Read the option ``expect``; keys without a value do not count."""
    given = options or {}
    return Expectation(
        tuple(given.get("verdict") or ()),
        given.get("min_tokens_per_second"),
        given.get("max_time_to_first_token_seconds"),
        given.get("max_ready_seconds"),
    )


def unmet(wanted: Expectation, result: Mapping[str, Any]) -> tuple[list[str], str]:
    """What of ``wanted`` the result does not meet, in sentences, and a hint; both empty when all is met."""
    problems, hint = [], ""
    verdict = result["verdict"]
    if verdict not in wanted.verdicts if wanted.verdicts else verdict == "failed":
        expected = f"expected {' or '.join(wanted.verdicts)}, found {verdict}" if wanted.verdicts else "found failed"
        problems.append(f"The verdict is not as expected: {expected}. {' '.join(result['reasons'])}".strip())
        hint = _VERDICT_HINTS[verdict]
    limits = (
        ("min_tokens_per_second", "tokens_per_second", wanted.min_tokens_per_second, "tokens/s", -1),
        ("max_time_to_first_token_seconds", "time_to_first_token_seconds", wanted.max_time_to_first_token_seconds, "s to the first token", 1),
        ("max_ready_seconds", "ready_seconds", wanted.max_ready_seconds, "s until it was ready", 1),
    )
    for option, key, limit, unit, sign in limits:
        value = result.get(key)
        if limit is None:
            continue
        word = "at least" if sign < 0 else "at most"
        if value is None:
            problems.append(f"Expected {word} {limit:g} {unit} ({option}), and the answer was too short to measure it.")
            hint = hint or "Raise max_tokens."
        elif (value - limit) * sign > 0:
            problems.append(f"Expected {word} {limit:g} {unit} ({option}), found {value:g}.")
    return problems, hint
