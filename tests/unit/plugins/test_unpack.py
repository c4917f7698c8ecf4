# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers are unpacked while they are read, whatever packed them, and damage is told."""

from __future__ import annotations

import gzip
import os
import subprocess
import tracemalloc

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io.unpack import unpacked

DATA = os.urandom(700_000) + b"text " * 500_000


def zstd(data):
    return subprocess.run(["zstd", "--quiet", "--stdout"], input=data, capture_output=True, check=True).stdout


def read(path):
    return b"".join(unpacked(str(path), "layer sha256:1"))


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        gzip.compress,
        lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
        lambda data: gzip.compress(data) + b"\0" * 512,
    ],
)
def test_what_was_packed_comes_back(tmp_path, pack):
    (tmp_path / "layer").write_bytes(pack(DATA))
    assert read(tmp_path / "layer") == DATA


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_how_much_of_the_file_was_read_is_told(tmp_path, pack):
    (tmp_path / "layer").write_bytes(pack(DATA))
    told = []
    assert b"".join(unpacked(str(tmp_path / "layer"), "layer sha256:1", told.append)) == DATA
    assert told == sorted(told) and told[-1] == (tmp_path / "layer").stat().st_size and len(set(told)) > 1 or pack is gzip.compress


def test_zstd(tmp_path, monkeypatch):
    # The program that the product calls, or one that does the same where it is not installed
    if subprocess.run(["sh", "-c", "command -v zstd"], capture_output=True, check=False).returncode:
        (tmp_path / "zstd").write_text('#!/bin/sh\nexec tail -c +5\n')
        (tmp_path / "zstd").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        packed = b"\x28\xb5\x2f\xfd" + DATA
    else:
        packed = zstd(DATA)
    (tmp_path / "layer").write_bytes(packed)
    assert read(tmp_path / "layer") == DATA
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AikitError, match="packed with zstd, and program zstd is not on this machine. Install package zstd"):
        read(tmp_path / "layer")


def test_a_zstd_that_fails(tmp_path, monkeypatch):
    (tmp_path / "zstd").write_text("#!/bin/sh\necho 'Decoding error: corrupt' >&2\nexit 1\n")
    (tmp_path / "zstd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    (tmp_path / "layer").write_bytes(b"\x28\xb5\x2f\xfdgarbage")
    with pytest.raises(AikitError, match="layer sha256:1 cannot be unpacked: Decoding error: corrupt"):
        read(tmp_path / "layer")


@pytest.mark.parametrize("cut", [15, 5000, 690_000])
def test_a_cut_is_told(tmp_path, cut):
    (tmp_path / "layer").write_bytes(gzip.compress(DATA)[:cut])
    with pytest.raises(AikitError, match="layer sha256:1 ends in the middle of its gzip data"):
        read(tmp_path / "layer")


def test_damage_is_told(tmp_path):
    packed = bytearray(gzip.compress(DATA))
    packed[1000] ^= 255
    packed[-6] ^= 255
    (tmp_path / "layer").write_bytes(packed)
    with pytest.raises(AikitError, match="is no valid gzip data"):
        read(tmp_path / "layer")
    (tmp_path / "layer").write_bytes(gzip.compress(b"x") + b"trailing garbage")
    with pytest.raises(AikitError, match="is no valid gzip data"):
        read(tmp_path / "layer")


def test_a_small_layer_that_unpacks_to_much_takes_no_memory(tmp_path):
    (tmp_path / "layer").write_bytes(gzip.compress(b"\0" * (256 << 20), 9))
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in unpacked(str(tmp_path / "layer"), "layer")) == 256 << 20
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
