# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on disk: digests and their cache, atomic writes, free space, locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, Optional

from .._core.errors import AikitError

READ_BYTES = 1024 * 1024
# A write in the same clock tick as the one before leaves the file's times as they were, so a file that
# changed this recently can change again without a trace. Two seconds cover the coarsest file systems.
SETTLE_NS = 2 * 10**9
# From this size on, waiting until the file has settled is cheaper than hashing it once more next time.
WAIT_TO_SETTLE_BYTES = 1024 * 1024 * 1024

Progress = Callable[[str], None]


def identity(status: os.stat_result) -> dict[str, int]:
    """What changes when a file's bytes change: a write sets ctime, and nobody can set ctime back."""
    return {
        "dev": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


class DigestCache:
    """Digests that were computed before, for files that have not changed since.

    One small JSON file per kind and inode, replaced atomically: any number of processes may use one
    folder. An entry that cannot be read, or belongs to an older state of the file, is a miss. The cache
    is never needed for a right answer, so a folder that cannot be written is not an error. With
    ``read_only`` (check mode) nothing is ever written.
    """

    def __init__(self, directory: str, read_only: bool = False) -> None:
        self.directory = os.path.expanduser(directory)
        self.read_only = read_only

    def get(self, kind: str, status: os.stat_result) -> Optional[str]:
        """The value that was stored under ``kind`` for exactly this state of the file, or None."""
        entry = read_json(self._path(kind, status))
        if entry.get("kind") != kind or entry.get("file") != identity(status):
            return None
        value = entry.get("value")
        return value if isinstance(value, str) else None

    def put(self, kind: str, status: os.stat_result, value: str, read_at_ns: Optional[int] = None) -> bool:
        """Store ``value``; False when it would not be safe, or when the folder cannot be written.

        ``status`` is the state of the file, the same before and after reading it. ``read_at_ns`` is the
        clock (``time.time_ns()``) when reading began; without it, now. A file that had changed less than
        two seconds before that is not stored: a later write could leave the same times behind. A caller
        that wrote the file itself, hashed what it wrote and let nobody else at it passes
        ``read_at_ns=SETTLED``.
        """
        if read_at_ns is None:
            read_at_ns = time.time_ns()
        if self.read_only or read_at_ns - status.st_ctime_ns < SETTLE_NS:
            return False
        entry = {"kind": kind, "file": identity(status), "value": value}
        try:
            write_atomic(self._path(kind, status), json.dumps(entry, sort_keys=True).encode(), 0o600, durable=False)
        except OSError:
            return False
        return True

    def forget(self, kind: str, status: os.stat_result) -> None:
        """Drop the entry of a file that is about to go."""
        if not self.read_only:
            with contextlib.suppress(OSError):
                os.unlink(self._path(kind, status))

    def _path(self, kind: str, status: os.stat_result) -> str:
        key = f"{kind}\0{status.st_dev}\0{status.st_ino}".encode()
        return os.path.join(self.directory, hashlib.sha256(key).hexdigest() + ".json")


# For DigestCache.put: later than any clock.
SETTLED = 2**63


def sha256_file(path: str, cache: Optional[DigestCache] = None, progress: Optional[Callable[[int], None]] = None) -> str:
    """The SHA-256 of a file in hex; one buffer of memory, whatever its size.

    ``progress`` is called with the number of bytes read so far. A file that changes while it is read
    is an error: its digest would describe bytes that never stood there together.
    """
    with open(path, "rb", buffering=0) as handle:
        before = os.fstat(handle.fileno())
        if cache is not None:
            known = cache.get("sha256", before)
            if known is not None:
                return known
            if not cache.read_only:
                settle(before)
        started = time.time_ns()
        digest = hashlib.sha256()
        read_into(handle, digest.update, progress)
        after = os.fstat(handle.fileno())
    if identity(before) != identity(after):
        raise AikitError(f"{path} changed while it was being read.", "Let whatever writes it finish, then run again.")
    value = digest.hexdigest()
    if cache is not None:
        cache.put("sha256", after, value, started)
    return value


def read_into(handle: Any, consume: Callable[[memoryview], Any], progress: Optional[Callable[[int], None]] = None) -> int:
    """Pass an unbuffered binary file to ``consume`` to its end, in pieces of one reused buffer; the bytes read."""
    buffer = memoryview(bytearray(READ_BYTES))
    total = 0
    while True:
        count = handle.readinto(buffer)
        if not count:
            return total
        consume(buffer[:count])
        total += count
        if progress is not None:
            progress(total)


def write_all(handle: Any, piece: memoryview) -> None:
    """Write a piece to an unbuffered file, however many calls it takes."""
    while piece:
        piece = piece[handle.write(piece) :]


def read_json(path: str, limit: int = 65536) -> dict[str, Any]:
    """A small JSON file that holds a mapping; empty when it is missing, broken, or longer than ``limit``."""
    try:
        with open(path, encoding="utf-8") as handle:
            value = json.loads(handle.read(limit))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_atomic(path: str, data: bytes, mode: int = 0o644, durable: bool = True, keep: bool = False) -> None:
    """Write a file so that readers see the old bytes or the new ones, never a part, also after a crash.

    Missing parent folders are made. ``durable=False`` leaves out the two fsync calls, for what can be made again.
    ``keep`` is for files that are the user's: a link stays and its target is written, owner and group stay too.
    """
    directory, name = os.path.split(os.path.realpath(path) if keep else os.path.abspath(path))
    os.makedirs(directory, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name[:100]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            if keep:
                _keep_owner(handle.fileno(), os.path.join(directory, name))
            os.fchmod(handle.fileno(), mode)
            if durable:
                os.fsync(handle.fileno())
        os.replace(temporary, os.path.join(directory, name))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(directory)


def _keep_owner(descriptor: int, path: str) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        except PermissionError:
            raise AikitError(
                f"{path} belongs to user {status.st_uid} and group {status.st_gid}, and writing it would change that.", "Run the task as its owner, or as root."
            ) from None


def sync_directory(path: str) -> None:
    """Make a rename in this folder survive a power cut, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # Some network file systems refuse it; the rename itself has happened.
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def free_bytes(path: str) -> int:
    """What this user can still write below ``path``, which need not exist yet."""
    status = os.statvfs(_nearest_existing(path))
    return status.f_bavail * status.f_frsize


def require_space(path: str, needed_bytes: int, what: str) -> None:
    """Fail before anything is written when ``what`` (a noun phrase) does not fit below ``path``."""
    require_spaces([Need(path, needed_bytes, what)])


@dataclass(frozen=True)
class Need:
    """``size_bytes`` that ``what`` (a noun phrase) will take below ``path``."""

    path: str
    size_bytes: int
    what: str


def require_spaces(needs: Iterable[Need]) -> None:
    """The same for all that a run will write; what stands on one file system counts together."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(os.stat(_nearest_existing(need.path)).st_dev, []).append(need)
    for together in disks.values():
        needed = sum(need.size_bytes for need in together)
        paths = " and ".join(dict.fromkeys(need.path for need in together))
        free = free_bytes(together[0].path)
        if needed <= free:
            continue
        raise AikitError(
            f"Not enough disk space for {' and '.join(dict.fromkeys(need.what for need in together))}: {paths} needs {human_bytes(needed)}"
            f" and has {human_bytes(free)} free ({human_bytes(needed - free)} short).",
            f"Free some space on the file system of {_nearest_existing(together[0].path)}, or choose a folder on a larger one.",
            needed_bytes=needed,
            free_bytes=free,
        )


def leftover_bytes(path: str, remove: bool) -> int:
    """What a run that was killed has left at ``path``; with ``remove`` it is gone then, and counts nothing."""
    if remove:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def human_bytes(count: int) -> str:
    """A size for people: 4.1 GB, 12 kB. Decimal units, as disks and downloads are labelled."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@contextlib.contextmanager
def lock(
    path: str, progress: Optional[Progress] = None, timeout_seconds: Optional[float] = None, remove: bool = False
) -> Iterator[None]:
    """Hold an exclusive lock between processes for the time of a ``with`` block.

    ``path`` is a lock file and nothing else: it is created, and holds the number of the process that has
    the lock. The kernel releases it however that process ends. ``progress`` is told once when there is a
    wait; without ``timeout_seconds`` the wait has no end. ``remove`` takes the file away afterwards.
    """
    path = os.path.abspath(path)
    descriptor = _acquire(path, progress, timeout_seconds)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(path)
        os.close(descriptor)


def _acquire(path: str, progress: Optional[Progress], timeout_seconds: Optional[float]) -> int:
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pause = 0.02
    told = False
    while True:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if _try_flock(descriptor) and _is_same_file(descriptor, path):
                return descriptor
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if progress is not None and not told:
            progress(f"waiting for process {holder}, which holds {path}")
            told = True
        if deadline is not None and time.monotonic() >= deadline:
            raise AikitError(
                f"Process {holder} still holds {path} after {timeout_seconds:g} seconds.", "Let it finish, or end it; then run again."
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(descriptor: int, path: str) -> bool:
    # The holder before may have removed the file after it was opened here: that lock excludes nobody.
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def settle(status: os.stat_result) -> bool:
    """Whether the digest of a file can be remembered now. It waits until that is so for a big file that has just been written."""
    age = time.time_ns() - status.st_ctime_ns
    if status.st_size >= WAIT_TO_SETTLE_BYTES and 0 <= age < SETTLE_NS:
        time.sleep((SETTLE_NS - age) / 10**9)
        return True
    return age >= SETTLE_NS


def _nearest_existing(path: str) -> str:
    path = os.path.abspath(os.path.expanduser(path))
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
