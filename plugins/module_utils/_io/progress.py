# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long work tells how far it is, in a status file. For whoever does such work::

    with progress.stage("push layer gemma", size_bytes) as stage:
        for chunk in chunks:
            send(chunk)
            stage.advance(len(chunk))

    for chunk in progress.counted(chunks, "write archive", size_bytes): ...

    with progress.stage("build", steps, unit="steps") as stage: ...

``stage`` may be called anywhere and from any thread; a stage belongs to the thread that advances it. Outside of
:func:`reporting` it does nothing. Names are shown to people: the name of a model or an image, never an address with a secret.

A thread writes the file four times a second while something goes on, so ``advance`` is one addition. What is over before the
first look leaves no file, and at the end, also one by a signal, the file is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from types import TracebackType
from typing import Any, Callable, Iterable, Iterator, Optional

from .._core import progress as core
from .._core.errors import AikitError
from .._core.progress import BYTES

DIRECTORY = "~/.cache/aikit-fleet/progress"
WRITE_SECONDS = 0.25
# A file that nobody has touched for longer belongs to a process that is gone
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 24 * 3600.0
# Below this size a stage is over before it could be read about
SMALL_BYTES = 4 * 1024 * 1024
# The longest status file that is read, and one that is longer is none
MAX_BYTES = 65536


class Stage:
    """One thing under way. Use it in ``with``; without one nothing is shown."""

    def __init__(self, name: str, total: Optional[int], unit: str, owner: Optional[Reporter] = None) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0
        self.started = 0.0
        self.rate = core.begin(0.0)
        self._owner = owner

    def advance(self, count: int) -> None:
        """So much more is done."""
        self.done += count

    def reach(self, done: int) -> None:
        """So much is done in all."""
        self.done = done

    def start_at(self, done: int, total: Optional[int] = None) -> None:
        """So much was there before (the beginning of a download): it is done, and no speed."""
        self.done = done
        self.total = self.total if total is None else total
        self.rate = core.begin(time.monotonic(), done)

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, counted when the next one is asked for."""
        for chunk in chunks:
            yield chunk
            self.advance(len(chunk))

    def __enter__(self) -> Stage:
        self.started = time.monotonic()
        self.rate = core.begin(self.started, self.done)
        if self._owner is not None:
            self._owner.add(self)
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        if self._owner is not None:
            self._owner.remove(self)

    def look(self, now: float) -> core.Stage:
        """What there is to say of it now."""
        done = self.done
        self.rate = core.measure(self.rate, now, done)
        return core.Stage(core.plain(self.name), done, self.total, self.unit, max(0.0, now - self.started), self.rate.per_second)


class Reporter:
    """The stages of this process, and the thread that writes them to ``path``."""

    def __init__(self, path: str, work: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self.work = work
        self._stages: list[Stage] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._made: list[str] = []
        self._failed = False

    def add(self, stage: Stage) -> None:
        with self._lock:
            self._stages.append(stage)
            if self._thread is None and not self._stop.is_set():
                # A daemon: a process that ends does not wait for it
                self._thread = threading.Thread(target=self._run, name="aikit-progress", daemon=True)
                self._thread.start()

    def remove(self, stage: Stage) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._stages.remove(stage)

    def close(self, timeout_seconds: Optional[float] = None) -> None:
        """Stop writing, and leave nothing behind: neither the file nor the folders that were made for it."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join(timeout_seconds)
        for path in (self.path, f"{self.path}.tmp"):
            with contextlib.suppress(OSError):
                os.unlink(path)
        for folder in self._made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def _run(self) -> None:
        if os.path.dirname(self.path) == os.path.expanduser(DIRECTORY):
            remove_stale(DIRECTORY)
        written = -HEARTBEAT_SECONDS
        last: list[dict[str, Any]] = []
        while not self._stop.wait(WRITE_SECONDS) and not self._failed:
            now = time.monotonic()
            with self._lock:
                stages = list(self._stages)
            looks = [stage.look(now) for stage in stages[: core.MAX_STAGES]]
            counts = [{"name": look.name, "done": look.done, "total": look.total} for look in looks]
            if counts == last and now - written < HEARTBEAT_SECONDS:
                continue
            last, written = counts, now
            self._write(core.document(self.work, os.getpid(), time.time(), looks))

    def _write(self, document: dict[str, Any]) -> None:
        """Progress is worth no failure: a folder that cannot be written means there is none to see."""
        try:
            if not self._made and not os.path.isdir(os.path.dirname(self.path)):
                self._made = _missing_folders(os.path.dirname(self.path))
                for folder in reversed(self._made):
                    os.mkdir(folder, 0o700)
            # Readers see the old bytes or the new ones, never a part
            with open(os.open(f"{self.path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as handle:
                handle.write(json.dumps(document).encode())
            os.replace(f"{self.path}.tmp", self.path)
        except OSError:
            self._failed = True


_active: Optional[Reporter] = None


def stage(name: str, total: Optional[int] = None, unit: str = BYTES) -> Stage:
    """Something that takes time begins: ``total`` bytes (or what ``unit``, a plural noun, says), None where that is not known."""
    small = unit == BYTES and total is not None and total < SMALL_BYTES
    return Stage(name, total, unit, None if small else _active)


def counted(chunks: Iterable[bytes], name: str, total: Optional[int] = None) -> Iterator[bytes]:
    """A stage for as long as the chunks last."""
    with stage(name, total) as current:
        yield from current.counted(chunks)


@contextlib.contextmanager
def reporting(path: Optional[str], work: str) -> Iterator[None]:
    """Write the stages that begin within to the status file ``path`` (by default one of this process below ``DIRECTORY``)."""
    global _active  # pylint: disable=global-statement
    reporter = Reporter(path or os.path.join(DIRECTORY, f"{work}-{os.getpid()}.json"), work)
    _require_own(reporter.path)
    before, _active = _active, reporter
    try:
        # A signal can come while this thread has the lock that the other waits for
        with _on_signals(lambda: reporter.close(timeout_seconds=1.0)):
            yield
    finally:
        _active = before
        reporter.close()


def read(data: bytes) -> tuple[core.Stage, ...]:
    """The stages in the bytes of a status file; none in anything else."""
    if len(data) > MAX_BYTES:
        return ()
    try:
        return core.parse(json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError):
        return ()


def remove_stale(directory: str) -> None:
    """Remove what processes have left that were killed: a living one touches its file every few seconds."""
    folder = os.path.expanduser(directory)
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS and entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)


def _require_own(path: str) -> None:
    """The file is replaced and at the end removed: it must be none of somebody else's."""
    if not os.path.lexists(path):
        return
    try:
        with open(path, "rb") as handle:
            found = json.loads(handle.read(MAX_BYTES + 1).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("version") != core.VERSION or "stages" not in found:
        raise AikitError(f"status_file: {path} is there, and is no status file.", "Give the name of a file that does not exist.")


def _missing_folders(path: str) -> list[str]:
    """The folders above a file that do not exist, the lowest first."""
    missing = []
    while not os.path.isdir(path) and path not in ("", os.sep):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


@contextlib.contextmanager
def _on_signals(tidy: Callable[[], None]) -> Iterator[None]:
    """An interrupted playbook ends its modules with a signal: they end by it as before, and tidy up first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, dummy: Any) -> None:
        tidy()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    mine = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
