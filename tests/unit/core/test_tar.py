# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar writer: read back by Python's tarfile and GNU tar, and byte for byte the same everywhere."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import tar


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
    assert hashlib.sha256(joined(tar.segments(ENTRIES))).hexdigest() == (
        "01efbd20b1184cda21553cfd2b13700693dfe8cda666612f1235f058fc277318"
    )


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
