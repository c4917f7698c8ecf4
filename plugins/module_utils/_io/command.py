# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a program that may hang or talk without end: after a time it is killed, whatever it does."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from typing import Mapping, Optional, Sequence

# As timeout(1) and the shell have them
TIMED_OUT = 124
NOT_FOUND = 127
MOST_BYTES = 32 * 1024 * 1024
# A program that waits for a broken device cannot be killed before the device answers: it is left behind then
GRACE_SECONDS = 1.0


def run(argv: Sequence[str], timeout: float, environment: Optional[Mapping[str, str]] = None) -> tuple[int, str, str]:
    """Status, output and errors of ``argv``. Never waits longer than ``timeout`` and a moment, and never raises."""
    try:
        # A session of its own, so that what it started dies with it
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            start_new_session=True,
        )
    except OSError as exc:
        return NOT_FOUND, "", str(exc)
    deadline = time.monotonic() + timeout
    texts = _read(process, deadline)
    status: Optional[int] = None
    if texts is not None:
        try:
            status = process.wait(max(0.01, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
    if status is None:
        _kill(process)
        return TIMED_OUT, "", f"no answer within {timeout:g} seconds"
    return status, *texts  # type: ignore[misc]


def _read(process: "subprocess.Popen[bytes]", deadline: float) -> Optional[tuple[str, str]]:
    """Output and errors; None when they do not end in time, or not at all."""
    texts = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0 or sum(map(len, texts.values())) > MOST_BYTES:
                return None
            for key, _events in selector.select(left):
                chunk = os.read(key.fd, 65536)
                texts[key.fileobj] += chunk  # type: ignore[index]
                if not chunk:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
    output, errors = (bytes(text).decode("utf-8", "replace") for text in texts.values())
    return output, errors


def _kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        pass
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
