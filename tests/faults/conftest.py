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

import support


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


def killed_after(seconds, name, *arguments, cwd=None):
    """Start a playbook and kill -9 all of it after ``seconds``; True when it was still at work then."""
    process = subprocess.Popen(
        [str(support.BIN / "ansible-playbook"), name, *arguments],
        cwd=cwd or support.ROOT,
        env=support.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        # Stop them first: a process must not start another between the listing and the kill
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in descendants(process.pid):
                try:
                    os.kill(pid, signum)
                except ProcessLookupError:
                    pass
        process.wait()
        return True


def timed(name, *arguments, cwd=None):
    started = time.monotonic()
    run = support.playbook(name, *arguments, cwd=cwd)
    return run, time.monotonic() - started
