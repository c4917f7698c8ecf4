# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Digest cache, atomic writes, free space and locks, on a real file system."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import files


def aged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock run on, so that the file counts as settled (ctime cannot be set)."""
    real = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: real() + 10**10)


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a file was read to its end."""
    reads: list[int] = []
    real = files.read_into

    def counted(*args: Any) -> int:
        reads.append(1)
        return real(*args)

    monkeypatch.setattr(files, "read_into", counted)
    return reads


@pytest.mark.parametrize("size", [0, 1, files.READ_BYTES - 1, files.READ_BYTES, 3 * files.READ_BYTES + 17])
def test_sha256_of_any_size(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "f"
    path.write_bytes(data)
    seen: list[int] = []
    assert files.sha256_file(str(path), progress=seen.append) == hashlib.sha256(data).hexdigest()
    assert (seen[-1] if seen else 0) == size


def test_a_second_digest_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count_reads: list[int]) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    aged(path, monkeypatch)
    cache = files.DigestCache(str(tmp_path / "cache"))
    first = files.sha256_file(str(path), cache)
    assert files.sha256_file(str(path), cache) == first == hashlib.sha256(b"one").hexdigest()
    assert len(count_reads) == 1


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    aged(path, monkeypatch)
    cache = files.DigestCache(str(tmp_path / "cache"))
    files.sha256_file(str(path), cache)
    status = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"two")
    # Same inode, size and mtime: only ctime tells.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_ino == status.st_ino and path.stat().st_mtime_ns == status.st_mtime_ns
    assert files.sha256_file(str(path), cache) == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_changed_just_now_is_not_cached(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    cache = files.DigestCache(str(tmp_path / "cache"))
    files.sha256_file(str(path), cache)
    assert cache.get("sha256", path.stat()) is None
    assert cache.put("sha256", path.stat(), "x") is False


def test_the_writer_of_a_file_may_cache_its_digest_at_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    cache = files.DigestCache(str(tmp_path / "cache"))
    assert cache.put("sha256", path.stat(), "abc", files.SETTLED) is True
    assert cache.get("sha256", path.stat()) == "abc"


def test_a_file_whose_ctime_is_in_the_future_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    real = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: real() - 10**12)
    cache = files.DigestCache(str(tmp_path / "cache"))
    assert cache.put("sha256", path.stat(), "x") is False


def test_kinds_are_apart(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    cache = files.DigestCache(str(tmp_path / "cache"))
    cache.put("sha256", path.stat(), "a", files.SETTLED)
    cache.put("layer:00ff", path.stat(), "b", files.SETTLED)
    assert cache.get("sha256", path.stat()) == "a"
    assert cache.get("layer:00ff", path.stat()) == "b"
    assert cache.get("layer:11ff", path.stat()) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"kind": "sha256", "file": 1, "value": "x"}', b'{"kind": "sha256"}', b"[" * 60000]
)
def test_a_corrupt_entry_is_a_miss(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    cache = files.DigestCache(str(tmp_path / "cache"))
    cache.put("sha256", path.stat(), "a", files.SETTLED)
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(content)
    assert cache.get("sha256", path.stat()) is None
    assert files.sha256_file(str(path), cache) == hashlib.sha256(b"one").hexdigest()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    aged(path, monkeypatch)
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = files.DigestCache(str(tmp_path / "cache"))
    assert files.sha256_file(str(path), cache) == hashlib.sha256(b"one").hexdigest()


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (2 * files.READ_BYTES))

    def grow(total: int) -> None:
        with path.open("ab") as handle:
            handle.write(b"y") if total == files.READ_BYTES else None

    with pytest.raises(AikitError, match="changed while it was being read"):
        files.sha256_file(str(path), None, grow)


def test_write_atomic_makes_folders_and_sets_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "f"
    files.write_atomic(str(path), b"one", 0o640)
    files.write_atomic(str(path), b"two", 0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["f"]


def test_a_file_of_the_users_keeps_its_owner_and_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, link = tmp_path / "a" / "target", tmp_path / "link"
    target.parent.mkdir()
    target.write_bytes(b"one")
    link.symlink_to("a/target")
    owners: list[tuple[int, int]] = []
    real = os.fstat

    def other(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor)[:10])
        fields[stat.ST_UID] += 1
        return os.stat_result(fields)

    monkeypatch.setattr(files.os, "fchown", lambda descriptor, uid, gid: owners.append((uid, gid)))
    monkeypatch.setattr(files.os, "fstat", other)
    files.write_atomic(str(link), b"two", 0o640, durable=False, keep=True)
    assert link.is_symlink() and target.read_bytes() == b"two" and owners == [(target.stat().st_uid, target.stat().st_gid)]
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["a", "link", "target"]

    def refuse(descriptor: int, uid: int, gid: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "fchown", refuse)
    with pytest.raises(AikitError, match="writing it would change that"):
        files.write_atomic(str(link), b"three", durable=False, keep=True)
    assert target.read_bytes() == b"two" and len(list(target.parent.iterdir())) == 1
    files.write_atomic(str(tmp_path / "new"), b"x", keep=True)
    # Everything else of ours is replaced, whatever stood there
    files.write_atomic(str(link), b"four", durable=False)
    assert not link.is_symlink() and target.read_bytes() == b"two"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert files.free_bytes(str(tmp_path / "not" / "yet")) > 0
    files.require_space(str(tmp_path / "not" / "yet"), 1, "a byte")


def test_too_little_space_says_how_much_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1_500_000)
    with pytest.raises(AikitError) as caught:
        files.require_space(str(tmp_path / "store"), 4_000_000_000, "the model x.gguf")
    text = str(caught.value)
    for part in ("the model x.gguf", str(tmp_path / "store"), "4.0 GB", "1.5 MB", "Free some space"):
        assert part in text
    assert caught.value.data == {"needed_bytes": 4_000_000_000, "free_bytes": 1_500_000}


def test_what_stands_on_one_disk_counts_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    one, two = files.Need(str(tmp_path / "a"), 600, "the image archive a"), files.Need(str(tmp_path / "b"), 700, "loading x into docker")
    files.require_spaces([one])
    with pytest.raises(AikitError) as caught:
        files.require_spaces([one, two])
    text = str(caught.value)
    assert f"the image archive a and loading x into docker: {tmp_path}/a and {tmp_path}/b needs 1.3 kB" in text
    assert caught.value.data == {"needed_bytes": 1300, "free_bytes": 1000}
    real = os.stat
    monkeypatch.setattr(files.os, "stat", lambda path: SimpleNamespace(st_dev=len(str(path))) if str(path).startswith(str(tmp_path)) else real(path))
    (tmp_path / "elsewhere").mkdir()
    files.require_spaces([one, files.Need(str(tmp_path / "elsewhere"), 700, "other")])


def test_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    assert files.leftover_bytes(str(path), remove=False) == files.leftover_bytes(str(path), remove=True) == 0
    path.write_bytes(b"12345")
    assert files.leftover_bytes(str(path), remove=False) == 5 and path.exists()
    assert files.leftover_bytes(str(path), remove=True) == 0 and not path.exists()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (253113024, "253.1 MB"), (40 * 10**9, "40.0 GB"), (2 * 10**12, "2.0 TB")]
)
def test_human_bytes(count: int, text: str) -> None:
    assert files.human_bytes(count) == text


HOLDER = """
import sys, time
from ansible_collections.aikit.fleet.plugins.module_utils._io import files
with files.lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_excludes_another_process_and_ends_with_it(tmp_path: Path, root: Path) -> None:
    namespace = tmp_path / "import" / "ansible_collections" / "aikit"
    namespace.mkdir(parents=True)
    (namespace / "fleet").symlink_to(root)
    path = tmp_path / "locks" / "x.lock"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "import")}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, env=env)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        told: list[str] = []
        with pytest.raises(AikitError, match=f"Process {holder.pid} still holds"):
            with files.lock(str(path), told.append, timeout_seconds=0.1):
                pass
        assert told == [f"waiting for process {holder.pid}, which holds {path}"]
    finally:
        holder.kill()
        holder.wait()
    with files.lock(str(path), timeout_seconds=5):
        assert path.read_text() == f"{os.getpid()}\n"


def test_many_threads_take_turns_although_the_file_is_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "x.lock")
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for dummy in range(10):
            with files.lock(path, remove=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for dummy in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40 and max(most) == 1
    assert not os.path.exists(path)
