# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""daemon.json on disk: read, have dockerd validate it, keep the old one, replace it whole."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence

from .._core import daemon_json
from .._core.daemon_json import Change, Process
from .._core.errors import AikitError
from .._core.plan import report
from .files import read_json, sync_directory, write_atomic

UNIT = "docker.service"
SELINUX = "security.selinux"
# Gone after a reboot, as the daemon it speaks of
REMEMBERED = "run/aikit-fleet/docker-restart.json"

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


@dataclass(frozen=True)
class Request:
    settings: Mapping[str, Any]
    absent: Sequence[str]
    path: str
    dockerd: str
    backup: bool
    # What else than a setting Docker sees only at its start
    restart_for: Sequence[str] = ()


def ensure(request: Request, run: Run, check_mode: bool, root: str = "/") -> dict[str, Any]:
    """The result of module docker_daemon_config. ``root``: what stands for / where processes are looked up."""
    # A link stays a link: what it points to is replaced
    path = os.path.realpath(request.path)
    text = _read(path)
    change = daemon_json.plan(text, path, request.settings, request.absent)
    processes = [process for process in _processes(root) if daemon_json.config_file(process) in (request.path, path)]
    backup_file, validated = "", False
    pending = _pending(path, processes, root)
    if change.plan.changed:
        lines = [(f"the running dockerd (pid {process.pid})", process.argv) for process in processes]
        daemon_json.refuse_flags(change, request.settings, path, [*lines, (UNIT, _unit(path, run, root))])
        validated = _validate(request, path, change, run)
        if not check_mode:
            backup_file = _keep(path) if request.backup and text is not None else ""
            _replace(path, change.text)
    restart_keys = sorted({*pending, *change.restart_keys, *request.restart_for})
    if not check_mode and set(restart_keys) != set(pending):
        _remember(path, processes, restart_keys, root)
    return report(
        change.plan,
        path=path,
        backup_file=backup_file,
        validated=validated,
        restart_needed=bool(restart_keys),
        restart_keys=restart_keys,
        reload_enough=change.plan.changed and not restart_keys,
        running=bool(processes),
    )


def _read(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as handle:
            return handle.read().decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        column = exc.start - exc.object.rfind(b"\n", 0, exc.start)
        raise AikitError(
            f"{path} is no UTF-8 text: line {line}, column {column}: {exc.reason}.",
            "Nothing was changed: mend the file by hand, then run again.",
            line=line,
            column=column,
        ) from None


def _processes(root: str) -> list[Process]:
    """Every dockerd of this host; those in containers have a root folder of their own and are not ours."""
    found = []
    for directory in glob.glob(os.path.join(root, "proc", "[0-9]*")):
        # A process may end while it is looked at
        with contextlib.suppress(OSError):
            with open(os.path.join(directory, "cmdline"), "rb") as handle:
                argv = tuple(word.decode(errors="replace") for word in handle.read().split(b"\0")[:-1])
            if argv and os.path.basename(argv[0]) == "dockerd" and os.path.samefile(os.path.join(directory, "root"), root):
                found.append(Process(int(os.path.basename(directory)), argv, os.stat(directory).st_uid == 0, _started(directory)))
    return sorted(found, key=lambda process: process.pid)


def _started(directory: str) -> str:
    """When a process began, in ticks since boot: with its number, what tells it from a later one."""
    with open(os.path.join(directory, "stat"), encoding="utf-8", errors="replace") as handle:
        # The second field is the program's name in brackets, and may hold anything
        return handle.read().rpartition(")")[2].split()[19]


def _pending(path: str, processes: Sequence[Process], root: str) -> tuple[str, ...]:
    """What an earlier run wrote that still waits for a restart: it may have ended before it came to that."""
    found = read_json(os.path.join(root, REMEMBERED))
    running = [process.identity for process in processes]
    if found.get("path") != path or not any(identity in running for identity in found.get("daemons") or ()):
        return ()
    return tuple(found.get("keys") or ())


def _remember(path: str, processes: Sequence[Process], keys: Sequence[str], root: str) -> None:
    content = {"path": path, "daemons": [process.identity for process in processes], "keys": sorted(set(keys))}
    if keys and processes:
        # An ordinary user's rootless Docker has no right to write there, and does without
        with contextlib.suppress(OSError):
            write_atomic(os.path.join(root, REMEMBERED), json.dumps(content).encode(), durable=False)


def _unit(path: str, run: Run, root: str) -> tuple[str, ...]:
    # systemd makes this folder early at boot, and only where it is in charge
    if not os.path.isdir(os.path.join(root, "run/systemd/system")):
        return ()
    status, output, _errors = run(["systemctl", "show", "--property=ExecStart", UNIT])
    argv = daemon_json.unit_argv(output) if status == 0 else ()
    return argv if daemon_json.config_file(Process(0, argv)) == path else ()


def _program(name: str) -> Optional[str]:
    # Daemons are in sbin, which is not on every user's PATH
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")


def _validate(request: Request, path: str, change: Change, run: Run) -> bool:
    """Whether dockerd itself found the new file good; False where there is none, or an old one that cannot say."""
    program = _program(request.dockerd)
    if program is None:
        return False
    with tempfile.TemporaryDirectory(prefix="aikit-fleet-") as folder:
        trial = os.path.join(folder, "daemon.json")
        with open(trial, "w", encoding="utf-8", opener=_private) as handle:
            handle.write(change.text)
        status, output, errors = run([program, "--validate", f"--config-file={trial}"])
    said = (errors or output).replace(trial, path)
    if status == 0:
        return True
    if not daemon_json.cannot_validate(said):
        daemon_json.refuse_invalid(path, said)
    _status, output, errors = run([program, "--help"])
    daemon_json.refuse_unknown(path, output + errors, request.settings)
    return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _keep(path: str) -> str:
    """A copy of the file beside it, its owner and mode too: it may hold a proxy's password."""
    kept = f"{path}.{time.strftime('%Y-%m-%dT%H-%M-%S')}~"
    with open(path, "rb") as handle:
        _write(kept, handle.read(), os.stat(path))
    return kept


def _replace(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    try:
        like: Optional[os.stat_result] = os.stat(path)
    except FileNotFoundError:
        like = None
    _write(path, text.encode(), like, _context(path))


def _write(path: str, content: bytes, like: Optional[os.stat_result], context: bytes = b"") -> None:
    """Readers see the old bytes or the new ones, also after a crash."""
    directory, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            if like is not None:
                os.fchown(handle.fileno(), like.st_uid, like.st_gid)
            os.fchmod(handle.fileno(), 0o644 if like is None else like.st_mode & 0o7777)
            if context:
                os.setxattr(handle.fileno(), SELINUX, context)
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def _context(path: str) -> bytes:
    """The file's SELinux label, where there is one."""
    try:
        return os.getxattr(path, SELINUX)
    except OSError:
        return b""
