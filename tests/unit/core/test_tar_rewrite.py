# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers moved below a folder: read back by Python's tarfile and GNU tar, and compared with a file system that applies them."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import tar_rewrite
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.tar_rewrite import Member, Reader
from hypothesis import given, settings
from hypothesis import strategies as st

PREFIX = "backends/cpu-llama-cpp"


def entry(name, data=None, kind=None, mode=0o644, link="", uid=0, gid=0, mtime=0, pax=None):
    member = tarfile.TarInfo(name)
    member.mode, member.uid, member.gid, member.mtime, member.linkname = mode, uid, gid, mtime, link
    member.type = kind or (tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
    member.size = len(data) if data else 0
    member.pax_headers = pax or {}
    return member, data or b""


def layer(*entries, format=tarfile.PAX_FORMAT):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as writer:
        for member, data in entries:
            writer.addfile(member, io.BytesIO(data))
    return target.getvalue()


def chunks(raw, size=1000):
    return (raw[start : start + size] for start in range(0, len(raw), size))


def moved(*layers, prefix=PREFIX, extra=(), size=1000):
    plan = tar_rewrite.plan([Reader(chunks(raw, size), "image") for raw in layers], "image")
    return b"".join(tar_rewrite.rewrite(plan, lambda number: Reader(chunks(layers[number], size), "image"), prefix, extra))


def listing(raw):
    """path -> (kind, mode, uid, gid, bytes or target)"""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as reader:
        for member in reader:
            if member.isdir():
                found[member.name] = ("directory", member.mode, member.uid, member.gid, "")
            elif member.issym():
                found[member.name] = ("symlink", member.linkname)
            elif member.islnk():
                found[member.name] = found[member.linkname]
            else:
                found[member.name] = ("file", member.mode, member.uid, member.gid, reader.extractfile(member).read())
    return found


def below(raw):
    """The listing without the prefix and its own folders."""
    return {path[len(PREFIX) + 1 :]: what for path, what in listing(raw).items() if path.startswith(f"{PREFIX}/")}


LINK = tarfile.LNKTYPE
SYMLINK = tarfile.SYMTYPE


def test_one_layer_moves_as_it_is():
    raw = layer(
        entry("./"),
        entry("./lib", mode=0o750, uid=3, gid=4),
        entry("./run.sh", b"#!/bin/sh\n", mode=0o755, mtime=1700000000),
        entry("./lib/a.so.1", b"x" * 3000, mode=0o444),
        entry("./lib/a.so", kind=SYMLINK, link="a.so.1"),
        entry("./lib/absolute", kind=SYMLINK, link="/lib/a.so.1"),
        entry("./lib/outside", kind=SYMLINK, link="../../../etc/passwd"),
        entry("./lib/again.so", kind=LINK, link="./lib/a.so.1"),
        entry("./setuid", b"s", mode=0o4755),
        entry("./empty", b""),
    )
    out = moved(raw)
    assert below(out) == {
        "lib": ("directory", 0o750, 3, 4, ""),
        "run.sh": ("file", 0o755, 0, 0, b"#!/bin/sh\n"),
        "lib/a.so.1": ("file", 0o444, 0, 0, b"x" * 3000),
        "lib/again.so": ("file", 0o444, 0, 0, b"x" * 3000),
        "lib/a.so": ("symlink", "a.so.1"),
        "lib/absolute": ("symlink", "/lib/a.so.1"),
        "lib/outside": ("symlink", "../../../etc/passwd"),
        "setuid": ("file", 0o4755, 0, 0, b"s"),
        "empty": ("file", 0o644, 0, 0, b""),
    }
    with tarfile.open(fileobj=io.BytesIO(out)) as reader:
        # A hard link stays one, and its target moved along
        assert reader.getmember(f"{PREFIX}/lib/again.so").linkname == f"{PREFIX}/lib/a.so.1"
        assert reader.getmember(f"{PREFIX}/run.sh").mtime == 1700000000
        assert reader.getmember("backends").mode == reader.getmember(PREFIX).mode == 0o755


def test_gnu_tar_extracts_it(tmp_path):
    long = "d" * 90 + "/" + "f" * 90
    raw = layer(
        entry("d" * 90),
        entry(long, b"long", mode=0o600),
        entry("link", kind=SYMLINK, link=long),
        entry("hard", kind=LINK, link=long),
        entry("ü", b"umlaut"),
        format=tarfile.GNU_FORMAT,
    )
    out = moved(raw)
    subprocess.run(["tar", "-xf", "-", "-C", str(tmp_path)], input=out, check=True)
    root = tmp_path / PREFIX
    assert (root / long).read_bytes() == b"long" and (root / "link").resolve() == root / long
    assert os.stat(root / "hard").st_ino == os.stat(root / long).st_ino
    assert (root / "ü").read_bytes() == b"umlaut"
    # GNU tar says nothing: no lone zero block, no odd end
    said = subprocess.run(["tar", "-tvf", "-"], input=out, check=True, capture_output=True)
    assert said.stderr == b""


def test_whiteouts_count_for_lower_layers_alone():
    lower = layer(entry("lib"), entry("lib/a", b"lower a"), entry("lib/b", b"lower b"), entry("old"), entry("old/x", b"x"), entry("kept", b"kept"))
    upper = layer(
        # The whiteout stands behind what it must not hide
        entry("lib/b", b"upper b"),
        entry("lib/.wh.b", b""),
        entry(".wh.old", b""),
        entry("lib/.wh.a", b""),
        entry(".wh.never-there", b""),
    )
    found = below(moved(lower, upper))
    assert found == {"lib": ("directory", 0o644, 0, 0, ""), "lib/b": ("file", 0o644, 0, 0, b"upper b"), "kept": ("file", 0o644, 0, 0, b"kept")}


def test_an_opaque_directory_hides_what_is_below_it():
    lower = layer(entry("d", mode=0o700), entry("d/deep"), entry("d/deep/x", b"x"), entry("e", b"e"))
    upper = layer(entry("d", mode=0o755), entry("d/new", b"n"), entry("d/.wh..wh..opq", b""))
    assert below(moved(lower, upper)) == {
        "d": ("directory", 0o755, 0, 0, ""),
        "d/new": ("file", 0o644, 0, 0, b"n"),
        "e": ("file", 0o644, 0, 0, b"e"),
    }


def test_kinds_that_change_from_layer_to_layer():
    lower = layer(entry("a"), entry("a/x", b"x"), entry("b", b"b"), entry("c", kind=SYMLINK, link="b"))
    upper = layer(entry("a", b"now a file"), entry("b", mode=0o711), entry("b/y", b"y"), entry("c", b"now a file"))
    assert below(moved(lower, upper)) == {
        "a": ("file", 0o644, 0, 0, b"now a file"),
        "b": ("directory", 0o711, 0, 0, ""),
        "b/y": ("file", 0o644, 0, 0, b"y"),
        "c": ("file", 0o644, 0, 0, b"now a file"),
    }


def test_hard_links_outlive_their_first_name():
    lower = layer(entry("a", b"content", mode=0o400), entry("b", kind=LINK, link="a"), entry("c", kind=LINK, link="b"))
    upper = layer(entry(".wh.a", b""))
    out = moved(lower, upper)
    assert below(out) == {"b": ("file", 0o400, 0, 0, b"content"), "c": ("file", 0o400, 0, 0, b"content")}
    with tarfile.open(fileobj=io.BytesIO(out)) as reader:
        assert reader.getmember(f"{PREFIX}/c").linkname == f"{PREFIX}/b"


def test_a_hard_link_into_a_lower_layer_and_a_replaced_target():
    lower = layer(entry("a", b"old"), entry("link", kind=SYMLINK, link="a"))
    upper = layer(entry("b", kind=LINK, link="a"), entry("second", kind=LINK, link="link"), entry("a", b"new"))
    assert below(moved(lower, upper)) == {
        "a": ("file", 0o644, 0, 0, b"new"),
        "b": ("file", 0o644, 0, 0, b"old"),
        "link": ("symlink", "a"),
        "second": ("symlink", "a"),
    }


def test_parents_that_no_layer_lists():
    assert below(moved(layer(entry("a/b/c", b"c")))) == {
        "a": ("directory", 0o755, 0, 0, ""),
        "a/b": ("directory", 0o755, 0, 0, ""),
        "a/b/c": ("file", 0o644, 0, 0, b"c"),
    }


def test_a_file_of_ours_replaces_one():
    raw = layer(entry("metadata.json", b"theirs"), entry("other", kind=LINK, link="metadata.json"), entry("third", kind=LINK, link="metadata.json"))
    out = moved(raw, extra=[("metadata.json", 0o644, b"ours")])
    assert below(out) == {
        "metadata.json": ("file", 0o644, 0, 0, b"ours"),
        "other": ("file", 0o644, 0, 0, b"theirs"),
        "third": ("file", 0o644, 0, 0, b"theirs"),
    }
    assert below(moved(layer(entry("metadata.json", b"theirs")), extra=[("metadata.json", 0o600, b"")]))["metadata.json"][1:] == (0o600, 0, 0, b"")
    assert below(moved(layer(entry("metadata.json", kind=SYMLINK, link="x")), extra=[("metadata.json", 0o644, b"o")]))["metadata.json"][4] == b"o"
    with pytest.raises(AikitError, match="metadata.json of the image is a directory"):
        moved(layer(entry("metadata.json")), extra=[("metadata.json", 0o644, b"o")])


def test_extended_attributes_and_large_numbers_stay():
    capability = "\x01\x00\x00\x02"
    raw = layer(
        entry("tool", b"t", uid=3000000, gid=2**31, mtime=2**34, pax={"SCHILY.xattr.security.capability": capability, "comment": "not ours"}),
    )
    with tarfile.open(fileobj=io.BytesIO(moved(raw))) as reader:
        member = reader.getmember(f"{PREFIX}/tool")
        assert (member.uid, member.gid, member.mtime) == (3000000, 2**31, 2**34)
        assert member.pax_headers["SCHILY.xattr.security.capability"] == capability and "comment" not in member.pax_headers


def test_a_size_beyond_what_ustar_holds():
    member = Member("big", "file", 0o644, 0, 0, 9 << 30, 0)
    raw = tar_rewrite.header(member)
    (read,) = [tarfile.TarInfo.frombuf(raw[-512:], "utf-8", "strict")]
    assert read.size == 0 and b"size=9663676416\n" in raw


@pytest.mark.parametrize(
    "bad, message",
    [
        (entry("../x", b"x"), r"\.\./x leads out of the image"),
        (entry("a/../../x", b"x"), "leads out of the image"),
        (entry("/etc/passwd", b"x"), "/etc/passwd is an absolute name"),
        (entry("dev/null", kind=tarfile.CHRTYPE), "dev/null is a character device"),
        (entry("dev/sda", kind=tarfile.BLKTYPE), "dev/sda is a block device"),
        (entry("pipe", kind=tarfile.FIFOTYPE), "pipe is a named pipe"),
        (entry("l", kind=LINK, link="/etc/passwd"), "l: its target /etc/passwd is an absolute name"),
        (entry("l", kind=LINK, link="../x"), r"l: its target \.\./x leads out"),
        (entry("l", kind=LINK, link="nowhere"), "l is a hard link to nowhere, which is no file"),
        (entry("s", kind=SYMLINK, link=""), "s is a symbolic link to nothing"),
        (entry("odd", kind=b"Z"), "odd is of the unknown type"),
        (entry("sparse", b"", kind=b"S"), "sparse is a sparse file"),
        (entry("s", b"x", pax={"GNU.sparse.major": "1"}), "s is a sparse file"),
        (entry("a\x1b[31mred/../x", b""), r"a\\x1b\[31mred"),
    ],
)
def test_what_no_layer_may_hold(bad, message):
    with pytest.raises(AikitError, match=f"^image: .*{message}"):
        moved(layer(bad))


def test_nothing_is_written_through_a_link():
    for upper in (
        layer(entry("lib", kind=SYMLINK, link="/etc"), entry("lib/passwd", b"x")),
        layer(entry("lib", b"file"), entry("lib/a/b", b"x")),
    ):
        with pytest.raises(AikitError, match="lies below lib, which is no directory"):
            moved(upper)
    lower = layer(entry("lib", kind=SYMLINK, link="usr/lib"))
    with pytest.raises(AikitError, match="lib/x lies below lib"):
        moved(lower, layer(entry("lib/x", b"x")))
    # A hard link to a directory
    with pytest.raises(AikitError, match="is no file"):
        moved(layer(entry("d"), entry("l", kind=LINK, link="d")))
    with pytest.raises(AikitError, match="hides nothing"):
        moved(layer(entry(".wh..", b"")))


def test_damage_is_never_the_end():
    raw = layer(entry("a", b"x" * 600), entry("b", b"y"))
    second = raw.index(b"b\0")
    for broken, message in (
        (b"", "ends without the blocks"),
        (raw[:700], "ends too early"),
        (raw[:second], "ends without the blocks"),
        (raw[: second + 100], "ends in the middle of a header"),
        (raw[:second] + b"c" + raw[second + 1 :], "another checksum"),
        (raw + b"trailing", "something behind its end"),
        (b"\x1f\x8b" + raw, "checksum"),
    ):
        with pytest.raises(AikitError, match=f"^image: .*{message}"):
            list(Reader(chunks(broken), "image"))
    assert [member.path for member in Reader(chunks(raw), "image")] == ["a", "b"]


def test_headers_that_lie():
    def pax(data):
        return tar_rewrite.ustar(b"PaxHeaders/x", len(data), 0o644, b"x") + data + b"\0" * (-len(data) % 512) + tar_rewrite.ustar(b"x", 0, 0o644, b"0")

    for data in (b"10 path=x", b"99 path=x\n", b"path=x\n", b"0 path=x\n", b"11 path=xx\n12", b"8 =xxxx\n"):
        with pytest.raises(AikitError, match="PAX header that cannot be read"):
            list(Reader([pax(data)], "image"))
    for data in (b"13 size=-100\n", b"12 mtime=1x\n", b"11 uid=abc\n"):
        with pytest.raises(AikitError, match="for its (size|time|uid)"):
            list(Reader([pax(data)], "image"))
    huge = tar_rewrite.ustar(b"x", 2 << 20, 0o644, b"x")
    with pytest.raises(AikitError, match="a header of 2097152 bytes"):
        list(Reader([huge], "image"))
    octal = bytearray(tar_rewrite.ustar(b"x", 0, 0o644, b"0"))
    octal[124:136] = b"99999999999\0"
    octal[148:156] = b"%06o\0 " % sum(octal[:148] + b"        " + octal[156:])
    with pytest.raises(AikitError, match="for its size"):
        list(Reader([bytes(octal)], "image"))


def test_too_many_entries(monkeypatch):
    monkeypatch.setattr(tar_rewrite, "MAX_ENTRIES", 3)
    with pytest.raises(AikitError, match="more than 3 entries"):
        moved(layer(*(entry(f"f{number}", b"") for number in range(4))))


# ---- against a file system that is put together layer by layer

NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "b/b/c", "c/a"])
STEPS = st.tuples(st.sampled_from(["file", "directory", "symlink", "link", "whiteout", "opaque"]), NAMES, st.integers(0, 3))


class Model:
    """Layers put over each other in the plainest way: a dictionary of paths."""

    def __init__(self):
        self.tree = {}

    def hide(self, path):
        for key in [key for key in self.tree if key == path or key.startswith(f"{path}/")]:
            del self.tree[key]

    def put(self, path, what):
        parent = os.path.dirname(path)
        if parent and parent not in self.tree:
            self.put(parent, ("directory", 0o755, 0, 0, ""))
        if what[0] != "directory" or self.tree.get(path, ("",))[0] != "directory":
            self.hide(path)
        self.tree[path] = what

    def fits(self, path):
        parent = os.path.dirname(path)
        return not parent or (self.fits(parent) and self.tree.get(parent, ("directory",))[0] == "directory")

    def layer(self, steps, number):
        entries, later = [], []
        for kind, path, value in steps:
            folder, name = os.path.split(path)
            if kind == "whiteout":
                entries.append(entry(os.path.join(folder, f".wh.{name}"), b""))
                if self.fits(path):
                    self.hide(path)
            elif kind == "opaque":
                entries.append(entry(f"{path}/.wh..wh..opq", b""))
                if self.tree.get(path, ("",))[0] == "directory":
                    for key in [key for key in self.tree if key.startswith(f"{path}/")]:
                        del self.tree[key]
            else:
                later.append((kind, path, value))
        for kind, path, value in later:
            if not self.fits(path):
                continue
            if kind == "file":
                data = bytes(f"{number} {path} {value}", "ascii") * (1 + value * 300)
                entries.append(entry(path, data, mode=0o600 + value))
                self.put(path, ("file", 0o600 + value, 0, 0, data))
            elif kind == "directory":
                entries.append(entry(path, mode=0o700 + value))
                self.put(path, ("directory", 0o700 + value, 0, 0, ""))
            elif kind == "symlink":
                entries.append(entry(path, kind=SYMLINK, link=f"target{value}"))
                self.put(path, ("symlink", f"target{value}"))
            else:
                files = sorted(key for key, what in self.tree.items() if what[0] == "file")
                files = [key for key in files if not path.startswith(f"{key}/") and not key.startswith(f"{path}/")]
                if files:
                    target = files[value % len(files)]
                    entries.append(entry(path, kind=LINK, link=target))
                    what = self.tree[target]
                    self.put(path, what)
        return layer(*entries)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=8), min_size=1, max_size=4), st.integers(1, 3000))
def test_layers_become_what_a_file_system_would(layers, size):
    model = Model()
    raw = [model.layer(steps, number) for number, steps in enumerate(layers)]
    out = moved(*raw, size=size)
    assert below(out) == model.tree
    # Once more: the same bytes, whatever the pieces in which they came
    assert moved(*raw) == out


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 20))
def test_damaged_archives_end_in_our_error_or_in_a_tar(rnd: random.Random, changes):
    links = (entry("l", kind=LINK, link="lib/x"), entry("s", kind=SYMLINK, link="x"))
    raw = bytearray(layer(entry("lib"), entry("lib/x", b"x" * 700), entry("n" * 150, b"y"), *links))
    for _change in range(changes):
        raw[rnd.randrange(len(raw))] = rnd.randrange(256)
    if rnd.random() < 0.3:
        del raw[rnd.randrange(len(raw)) :]
    try:
        out = moved(bytes(raw))
    except AikitError as exc:
        assert str(exc).isprintable() or "\n" in str(exc)
        return
    with tarfile.open(fileobj=io.BytesIO(out)) as reader:
        assert all(name == "backends" or name.startswith(PREFIX) for name in reader.getnames())
