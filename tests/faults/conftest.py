# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Helpers to break things in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
import support


@pytest.fixture(scope="session", autouse=True)
def swept():
    """A run that was killed leaves containers that Docker starts again: they would be taken for this run's."""
    support.sweep("aikit-gate", "aikit-kill", "aikit-remote")


def descendants(pid):
    """Every process below ``pid``, by /proc; Ansible's workers have process groups of their own."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        here = todo.pop()
        found.append(here)
        todo += children.get(here, [])
    return found


class Timeline:
    """When a playbook began each of its tasks. Moments are told in tasks, so that they are the same on a busy machine."""

    def __init__(self, name, *arguments, cwd=None):
        self.command = (name, *arguments)
        self.cwd = cwd
        started = time.monotonic()
        self.marks = []
        with self._start() as process:
            for line in process.stdout:
                if line.startswith("TASK "):
                    self.marks.append(time.monotonic() - started)
        self.seconds = time.monotonic() - started
        assert process.returncode == 0, f"{self.command} failed"

    def kill_at(self, fraction):
        """Run it again, and kill -9 all of it where ``fraction`` of its time had passed in the first run; True when it was still at work."""
        moment = self.seconds * fraction
        number = max(1, sum(mark <= moment for mark in self.marks))
        # Half of what had passed of the task: faster runs are caught inside it too
        inside = max(0.0, moment - self.marks[number - 1]) / 2
        with self._start() as process:
            for line in process.stdout:
                number -= line.startswith("TASK ")
                if number == 0:
                    break
            try:
                process.wait(inside)
                return False
            except subprocess.TimeoutExpired:
                kill(process.pid)
                process.stdout.close()
                return True

    def _start(self):
        return subprocess.Popen(
            [str(support.BIN / "ansible-playbook"), *self.command],
            cwd=self.cwd or support.ROOT,
            env=support.environment(PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


def kill(pid):
    """kill -9 ``pid`` and all below it; stopped first, because a process must not start another between the listing and the kill."""
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for found in descendants(pid):
            try:
                os.kill(found, signum)
            except ProcessLookupError:
                pass
