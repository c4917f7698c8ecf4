# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status file of long work: what stands in it, when it is there, and that it is gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import files, progress

MB = 1_000_000


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def wait_for(probe, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come")


def stages_of(path):
    try:
        return [(stage.name, stage.done, stage.total) for stage in progress.read(path.read_bytes())]
    except FileNotFoundError:
        return []


def test_a_stage_is_told_and_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "folder" / "status.json"
    with progress.reporting(str(path), "aikit_image"):
        with progress.stage("push gemma", 10 * MB) as stage:
            stage.advance(2 * MB)
            assert wait_for(lambda: stages_of(path)) == [("push gemma", 2 * MB, 10 * MB)]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            document = json.loads(path.read_bytes())
            assert document["work"] == "aikit_image" and document["pid"] == os.getpid() and abs(document["updated"] - time.time()) < 5
            stage.advance(3 * MB)
            wait_for(lambda: stages_of(path) == [("push gemma", 5 * MB, 10 * MB)])
            assert json.loads(path.read_bytes())["stages"][0]["per_second"] > 0
        wait_for(lambda: json.loads(path.read_bytes())["stages"] == [])
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_without_a_path_it_has_a_place_of_its_own(home):
    path = home / ".cache/aikit-fleet/progress" / f"model_file-{os.getpid()}.json"
    with progress.reporting(None, "model_file"), progress.stage("download m"):
        assert wait_for(lambda: stages_of(path)) == [("download m", 0, None)]
    assert not list(home.iterdir())


def test_folders_that_were_there_stay(home):
    (home / ".cache/aikit-fleet").mkdir(parents=True)
    path = home / ".cache/aikit-fleet/progress/x.json"
    with progress.reporting(str(path), "x"), progress.stage("x"):
        wait_for(path.exists)
        (path.parent / "another.json").touch()
    assert [entry.name for entry in path.parent.iterdir()] == ["another.json"]


def test_what_is_over_in_a_moment_makes_no_file_and_no_thread(tmp_path):
    threads = threading.active_count()
    path = tmp_path / "status.json"
    with progress.reporting(str(path), "x"):
        with progress.stage("small", progress.SMALL_BYTES - 1) as stage:
            stage.advance(progress.SMALL_BYTES - 1)
            assert threading.active_count() == threads
            time.sleep(2 * progress.WRITE_SECONDS)
        assert not path.exists()
        with progress.stage("short"):
            assert threading.active_count() == threads + 1
        assert not path.exists()
    assert threading.active_count() == threads


def test_outside_of_reporting_nothing_happens(home):
    with progress.stage("x") as stage:
        stage.advance(5)
        time.sleep(2 * progress.WRITE_SECONDS)
    assert list(progress.counted([b"ab", b"c"], "x", 10**9)) == [b"ab", b"c"]
    assert not list(home.iterdir())


def test_many_threads_have_their_own_stages(tmp_path):
    path = tmp_path / "status.json"
    go = threading.Event()

    def work(number):
        with progress.stage(f"push {number}", 100 * MB) as stage:
            stage.advance(number * MB)
            go.wait(10)

    with progress.reporting(str(path), "x"):
        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        wait_for(lambda: sorted(stages_of(path)) == [(f"push {number}", number * MB, 100 * MB) for number in range(8)])
        go.set()
        for worker in workers:
            worker.join()
    assert not path.exists()


def test_the_beginning_of_a_download_is_no_speed(tmp_path):
    path = tmp_path / "status.json"
    with progress.reporting(str(path), "x"), progress.stage("download m", 10**12) as stage:
        stage.start_at(5 * 10**11)
        wait_for(lambda: stages_of(path) == [("download m", 5 * 10**11, 10**12)])
        assert json.loads(path.read_bytes())["stages"][0]["per_second"] == 0


def test_it_is_touched_while_nothing_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.3)
    path = tmp_path / "status.json"
    with progress.reporting(str(path), "x"), progress.stage("docker unpacks"):
        first = wait_for(lambda: path.exists() and json.loads(path.read_bytes()))["updated"]
        wait_for(lambda: json.loads(path.read_bytes())["updated"] > first)


def test_readers_never_see_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.001)
    path = tmp_path / "status.json"
    with progress.reporting(str(path), "x"), progress.stage("n" * 150, 10**12) as stage:
        wait_for(path.exists)
        for _look in range(500):
            stage.advance(1)
            assert json.loads(path.read_bytes())["version"] == 1


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").touch()
    with progress.reporting(str(tmp_path / "file" / "status.json"), "x"), progress.stage("x") as stage:
        time.sleep(2 * progress.WRITE_SECONDS)
        stage.advance(1)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("content", [b"precious", b"{}", b'{"version": 1}', b"[1]", b"\xff"])
def test_a_file_of_somebody_else_is_refused(tmp_path, content):
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(AikitError, match="precious is there, and is no status file"):
        with progress.reporting(str(path), "x"):
            pass
    assert path.read_bytes() == content


def test_what_a_killed_process_left_is_taken_over_and_removed_later(home, tmp_path):
    folder = home / ".cache/aikit-fleet/progress"
    folder.mkdir(parents=True)
    for name, age in (("old.json", 2 * progress.STALE_SECONDS), ("young.json", 60)):
        (folder / name).write_text('{"version": 1, "stages": []}')
        os.utime(folder / name, (time.time() - age,) * 2)
    path = folder / "young.json"
    with progress.reporting(str(path), "x"), progress.stage("x"):
        wait_for(lambda: stages_of(path))
        assert not (folder / "old.json").exists()
    assert not list(folder.iterdir())
    # Another folder is not ours to tidy
    (tmp_path / "old.json").touch()
    os.utime(tmp_path / "old.json", (0, 0))
    with progress.reporting(str(tmp_path / "status.json"), "x"), progress.stage("x"):
        wait_for((tmp_path / "status.json").exists)
    assert (tmp_path / "old.json").exists()


SCRIPT = """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    import conftest
    from ansible_collections.aikit.fleet.plugins.module_utils._io import progress
    with progress.reporting(sys.argv[2], "x"), progress.stage("x") as stage:
        while True:
            stage.advance(1)
            time.sleep(0.001)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_as_before_and_the_file_goes(tmp_path, root, number):
    path = tmp_path / "made" / "status.json"
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), str(root / "tests"), str(path)], stderr=subprocess.PIPE) as process:
        wait_for(path.exists)
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == -number
    assert not path.parent.exists()


def test_the_signals_are_as_they_were(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    with progress.reporting(str(tmp_path / "status.json"), "x"):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 60000, b'{"version": 1, "stages": []}' + b" " * progress.MAX_BYTES])
def test_what_is_no_status_file_says_nothing(data):
    assert progress.read(data) == ()


def test_hashing_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.001)
    model, path, seen = tmp_path / "m.gguf", tmp_path / "status.json", set()
    with open(model, "wb") as handle:
        handle.truncate(64 * 1024 * 1024)
    with progress.reporting(str(path), "x"):
        files.sha256_file(str(model), progress=lambda count: seen.update(stages_of(path)))
    assert {name for name, _done, _total in seen} == {"hash m.gguf"} and {total for _name, _done, total in seen} == {64 * 1024 * 1024}
    assert len({done for _name, done, _total in seen}) > 1


def test_advancing_costs_nothing():
    """Less than a hundredth of what hashing takes: 1 MiB pieces at 2 GB/s are half a millisecond each."""
    with progress.stage("x", 10**9) as stage:
        started = time.perf_counter()
        for _piece in range(10_000):
            stage.advance(1)
        assert (time.perf_counter() - started) / 10_000 < 5e-6
