# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar writer: read back by Python's tarfile and GNU tar, and byte for byte the same everywhere."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import tempfile

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import tar
from hypothesis import given, settings
from hypothesis import strategies as st


def joined(parts):
    return b"".join(part if isinstance(part, bytes) else b"x" * part.size for part in parts)


ENTRIES = (
    tar.Entry("models", 0o755),
    tar.Entry("models/a.gguf", 0o444, (b"hello",)),
    tar.Entry("models/" + "n" * 120 + ".gguf", 0o444, (b"y" * 512,)),
    tar.Entry("models/ü.txt", 0o644, (b"",)),
)


def test_python_reads_it_back():
    with tarfile.open(fileobj=io.BytesIO(joined(tar.segments(ENTRIES)))) as reader:
        members = reader.getmembers()
        assert [(m.name, m.mode, m.size, m.isdir()) for m in members] == [
            ("models", 0o755, 0, True),
            ("models/a.gguf", 0o444, 5, False),
            ("models/" + "n" * 120 + ".gguf", 0o444, 512, False),
            ("models/ü.txt", 0o644, 0, False),
        ]
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}
        assert reader.extractfile(members[1]).read() == b"hello"


def test_gnu_tar_reads_it_back(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(joined(tar.segments(ENTRIES)))
    listed = subprocess.run(["tar", "-tvf", str(path), "--quoting-style=literal"], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    lines = listed.stdout.splitlines()
    assert lines[0].startswith("drwxr-xr-x 0/0") and lines[0].endswith("models/")
    assert lines[1].startswith("-r--r--r-- 0/0") and "1970-01-01" in lines[1]


def test_bytes_do_not_depend_on_the_python_version():
    # A change of this digest changes the digest of every image: it needs a major version and a word in the changelog
    assert hashlib.sha256(joined(tar.segments(ENTRIES))).hexdigest() == ("01efbd20b1184cda21553cfd2b13700693dfe8cda666612f1235f058fc277318")


def test_a_file_above_8_gib_gets_a_pax_size():
    size = 9 * 2**30 + 1
    parts = tar.segments([tar.Entry("big.gguf", 0o444, (tar.FileRef("/big", size),))])
    head = parts[0]
    assert tar.total_size(parts) == len(head) + size + (-size % 512) + 1024
    info = tarfile.open(fileobj=io.BytesIO(head + b"\0" * 1024)).next()
    assert (info.name, info.size) == ("big.gguf", size)


def test_the_largest_ustar_size_needs_no_pax_header():
    assert len(tar.header("f", tar.MAX_USTAR_SIZE, 0o644)) == 512
    assert len(tar.header("f", tar.MAX_USTAR_SIZE + 1, 0o644)) == 3 * 512


@pytest.mark.parametrize("size, padding", [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)])
def test_padding_and_no_empty_segment(size, padding):
    parts = tar.segments([tar.Entry("f", 0o644, (tar.FileRef("/f", size),))])
    assert all(tar.segment_size(part) > 0 for part in parts)
    assert tar.total_size(parts) == 512 + size + padding + 1024


def test_neighbouring_bytes_are_joined():
    parts = tar.segments([tar.Entry("a", 0o644, (b"1", b"2")), tar.Entry("b", 0o644, (tar.FileRef("/b", 3),)), tar.Entry("c", 0o644, (b"4",))])
    assert [type(part).__name__ for part in parts] == ["bytes", "FileRef", "bytes"]


@pytest.mark.parametrize("length", [1, 84, 85, 93, 94, 95, 983, 984, 985, 9982])
def test_a_pax_record_counts_its_own_length(length):
    record = tar._pax_record("path", "p" * length)
    assert int(record.split(b" ", 1)[0]) == len(record)


# Names as file systems have them: long ones for PAX headers, letters beyond ASCII, what a shell or a tar could stumble over
NAMES = st.one_of(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=12),
    st.sampled_from("abü日").flatmap(lambda letter: st.integers(30, 80).map(lambda count: letter * count)),
    st.sampled_from(["-rf", "--", " ", "*", "a b", "\\", "\n", "..."]),
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)
CONTENTS = st.lists(st.binary(max_size=1500), max_size=3).map(tuple)
MODES = st.integers(0, 0o777).map(lambda mode: mode | 0o400)


@st.composite
def trees(draw):
    """Entries with their folders before them; no path twice."""
    found = {}
    for folders, name, mode, content in draw(st.lists(st.tuples(st.lists(NAMES, max_size=3), NAMES, MODES, CONTENTS), max_size=8)):
        paths = ["/".join(folders[: count + 1]) for count in range(len(folders))]
        path = "/".join([*folders, name])
        if path in found or any(found.get(above, tar.Entry(above, 0)).content is not None for above in paths):
            continue
        for above in paths:
            found.setdefault(above, tar.Entry(above, mode | 0o700))
        found[path] = tar.Entry(path, mode, content)
    return list(found.values())


@settings(deadline=None, max_examples=150)
@given(trees())
def test_python_reads_any_tree_back(entries):
    with tarfile.open(fileobj=io.BytesIO(joined(tar.segments(entries)))) as reader:
        found = [(m.name, m.mode, None if m.isdir() else reader.extractfile(m).read()) for m in reader]
    assert found == [(entry.path, entry.mode, None if entry.content is None else b"".join(entry.content)) for entry in entries]


@settings(deadline=None, max_examples=60)
@given(trees())
def test_gnu_tar_unpacks_any_tree(entries):
    with tempfile.TemporaryDirectory() as folder:
        raw = joined(tar.segments(entries))
        done = subprocess.run(
            ["tar", "--extract", "--preserve-permissions", "--no-same-owner", "-f", "-", "-C", folder], input=raw, capture_output=True, check=True
        )
        assert done.stderr == b""
        found = {}
        for where, folders, names in os.walk(folder):
            for name in (*folders, *names):
                path = os.path.join(where, name)
                held = os.lstat(path)
                content = None
                if stat.S_ISREG(held.st_mode):
                    with open(path, "rb") as handle:
                        content = handle.read()
                found[os.path.relpath(path, folder)] = (stat.S_IMODE(held.st_mode), content, int(held.st_mtime) if content is not None else 0)
        assert found == {entry.path: (entry.mode, None if entry.content is None else b"".join(entry.content), 0) for entry in entries}


@given(st.integers(0, 10**14), st.integers(0, 10**7), NAMES)
def test_any_size_is_read_back(size, owner, name):
    owner = min(owner, 0o7777777)
    info = tarfile.open(fileobj=io.BytesIO(tar.header(name, size, 0o644, owner=(owner, owner)) + b"\0" * 1024)).next()
    assert (info.name, info.size, info.uid, info.gid) == (name, size, owner, owner)
