# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows on the controller's terminal what a module's status file says, while the module runs.

The module runs as it would anyhow; a thread beside it reads the file: a local one as a file, a remote one with one more command
over the same connection. What goes wrong there is never the module's failure. Nothing is ever written to stdout. When progress
is not shown, nothing is read, and the file has its default name.

Ansible forks a process for each task and takes its terminal away; it loads action plugins before that, so here the import is
the moment to look at stderr. Writing goes through Ansible's Display, which hands it to the process that has the terminal.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import secrets
import shlex
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._core import progress as core
from ..module_utils._io import progress

VARIABLE = "AIKIT_PROGRESS"
LOCAL_SECONDS = 0.5
REMOTE_SECONDS = 1.0
# sudo and its kin write each command to the host's log
BECOME_SECONDS = 2.0
# Reading takes at most this share of the time
MAX_SHARE = 0.25
# Without a line that can be replaced: one for each new stage, and one each time so much has passed
LINE_SECONDS = 10.0
END_SECONDS = 2.0
CLEAR = "\r\x1b[K"
# Output for programs, and what runs Ansible for a program: there stdout and stderr are one stream
MACHINE_CALLBACK = re.compile("json|runner|awx|null", re.IGNORECASE)
RUNNER_VARIABLES = ("AWX_ISOLATED_DATA_DIR", "RUNNER_OMIT_EVENTS", "RUNNER_ONLY_FAILED_EVENTS")

display = Display()


def _terminal() -> Optional[int]:
    """A descriptor of the terminal that stderr is, which stays when a forked process loses its own."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            return os.dup(sys.stderr.fileno())
    return None


TERMINAL = _terminal()


@dataclass(frozen=True)
class Style:
    """How progress is shown: in one line that is replaced, or (``in_place`` false) in lines that stay."""

    in_place: bool
    colour: bool = False


def choose(environment: Mapping[str, str], terminal: bool, callback: str, verbosity: int, hosts: int) -> Optional[Style]:
    """How to show progress, or None for not at all. ``hosts`` work at the same time, each with a line of its own."""
    asked = environment.get(VARIABLE, "").strip().lower()
    runner = any(name in environment for name in RUNNER_VARIABLES)
    if asked in ("0", "no", "false", "off") or runner:
        return None
    if not asked and (not terminal or verbosity > 2 or MACHINE_CALLBACK.search(callback)):
        return None
    # Lines of several hosts, or of Ansible's own at -vvv, would overwrite each other
    in_place = terminal and environment.get("TERM", "dumb") != "dumb" and hosts == 1 and verbosity <= 2 and not MACHINE_CALLBACK.search(callback)
    return Style(in_place, colour=in_place and not environment.get("NO_COLOR") and not constants.ANSIBLE_NOCOLOR)


def execute_module(action: ActionBase, arguments: dict[str, Any], task_vars: Optional[dict[str, Any]]) -> dict[str, Any]:
    """Run the module of the task, and show how far it is where somebody looks."""
    task = action._task
    task_vars = task_vars or {}
    hosts = 1 if task.run_once else len(task_vars.get("ansible_play_batch") or "1")
    style = choose(os.environ, TERMINAL is not None, constants.DEFAULT_STDOUT_CALLBACK, display.verbosity, hosts)
    given = arguments.get("status_file")
    if style is None or task.async_val or task.no_log:
        return action._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=task.async_val)
    path = str(given) if given else f"{progress.DIRECTORY}/{task.action.rpartition('.')[2]}-{secrets.token_hex(8)}.json"
    name = task.delegate_to or task_vars.get("inventory_hostname") or ""
    source = reader(action, path)
    if source is None:
        return action._execute_module(module_args=arguments, task_vars=task_vars)
    with Watch(source, style, str(name)):
        result = action._execute_module(module_args={**arguments, "status_file": path}, task_vars=task_vars)
    if not given:
        # A name that is another one each time says nothing to who reads the result
        result.get("invocation", {}).get("module_args", {}).pop("status_file", None)
    return result


@dataclass(frozen=True)
class Reader:
    """How the bytes of a status file are read (b"" for none), and how often."""

    read: Callable[[], bytes]
    every_seconds: float


def reader(action: ActionBase, path: str) -> Optional[Reader]:
    """Reads ``path`` where the task of ``action`` runs, with the rights that it runs with; None where two at a time cannot be had."""
    connection = action._connection
    if connection.transport.rpartition(".")[2] == "local" and connection.become is None:
        return Reader(lambda: _read_file(os.path.expanduser(path)), LOCAL_SECONDS)
    if hasattr(connection, "__del__"):
        # A copy that goes away would take the connection with it
        return None
    # Copies: privilege escalation keeps its state in its plugin, and the module has just begun to use that
    other = copy.copy(action)
    other._connection = copy.copy(connection)
    other._connection._shell = copy.copy(connection._shell)
    if connection.become is not None:
        other._connection.set_become_plugin(copy.copy(connection.become))
    command = f"head -c {progress.MAX_BYTES} {quoted(path)} 2>/dev/null"
    return Reader(
        lambda: other._low_level_execute_command(command)["stdout"].encode("utf-8", "surrogateescape"),
        REMOTE_SECONDS if connection.become is None else BECOME_SECONDS,
    )


def quoted(path: str) -> str:
    """A path for a shell, which still finds the home folder that the path begins with."""
    home = re.match(r"~[A-Za-z0-9_.-]*(/|$)", path)
    head = home.group(0) if home else ""
    rest = path[len(head) :]
    return head + (shlex.quote(rest) if rest else "")


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(progress.MAX_BYTES)
    except OSError:
        return b""


class Watch:
    """Reads and shows in a thread for the time of a ``with`` block."""

    def __init__(self, source: Reader, style: Style, host: str, show: Optional[Callable[[str], None]] = None) -> None:
        self.source = source
        self.style = style
        self.host = host
        self.show = show or _show
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="aikit-progress", daemon=True)
        self._shown = False
        self._named: set[str] = set()
        self._said = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *dummy: Any) -> None:
        self._stop.set()
        # A connection that hangs is not waited for
        self._thread.join(END_SECONDS)
        with self._lock:
            if self._shown and self.style.in_place:
                self.show(CLEAR)
            self._shown = False

    def _run(self) -> None:
        wait = self.source.every_seconds
        while not self._stop.wait(wait):
            started = time.monotonic()
            try:
                stages = progress.read(self.source.read())
            except Exception:  # pylint: disable=broad-exception-caught
                # Whatever a connection raises: the module's own command tells it to the user
                stages = ()
            took = time.monotonic() - started
            wait = max(self.source.every_seconds, took / MAX_SHARE - took)
            with self._lock:
                if not self._stop.is_set():
                    self._present(stages, time.monotonic())

    def _present(self, stages: tuple[core.Stage, ...], now: float) -> None:
        if self.style.in_place:
            text = core.line(stages, _width() - 1, self.host, self.style.colour)
            if text or self._shown:
                self.show(CLEAR + text)
            self._shown = bool(text)
            return
        main = core.main_stage(stages)
        if main is not None and (main.name not in self._named or now - self._said >= LINE_SECONDS):
            self._named.add(main.name)
            self._said = now
            self.show(core.line(stages, 160, self.host) + "\n")


def _show(text: str) -> None:
    display.display(text, stderr=True, screen_only=True, newline=False)


def _width() -> int:
    with contextlib.suppress(OSError):
        if TERMINAL is not None:
            return os.get_terminal_size(TERMINAL).columns or 80
    return 80
