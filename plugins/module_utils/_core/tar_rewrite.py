# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file system of an image, moved below a folder of another image: its layers in, one tar out.

Two passes over the layers: :func:`plan` reads the headers and decides what is left after whiteouts and replacements,
:func:`rewrite` copies the contents of that. What is in memory is a record for each entry, never a file.

The reader is our own because Python's takes a damaged header in the middle of an archive for its end. It reads ustar, PAX
and GNU's long names, and refuses what no layer of an image has: sparse files, devices, names that lead elsewhere.
Sources: POSIX.1-2017, pax, "ustar Interchange Format"; OCI image specification 1.1, layer.md ("Whiteouts").
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator, Optional, Sequence

from .errors import AikitError
from .tar import BLOCK, END_OF_ARCHIVE, MAX_USTAR_SIZE, ustar

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
# More than any backend has by a factor of ten: beyond that a layer is a trap for the memory
MAX_ENTRIES = 1_000_000
MAX_HEADER_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20

_DEFAULT_DIRECTORY_MODE = 0o755
_OCTAL = re.compile(rb"[0-7]*\Z")
_PAX = re.compile(rb"(\d{1,7}) ([^=]+)=", re.DOTALL)
_ENCODING = ("utf-8", "surrogateescape")
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"1": "link", b"2": "symlink", b"5": "directory"}
_REFUSED = {b"3": "a character device", b"4": "a block device", b"6": "a named pipe", b"S": "a sparse file"}


@dataclass(frozen=True)
class Member:
    """One entry of a tar archive. ``path`` and, for hard links, ``target`` are relative and clean; a symlink's target is as it was.

    ``kind`` is file, directory, symlink or link (to another name of the same archive). ``xattrs`` are PAX records.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: str = ""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Reader:
    """The members of one tar archive, in its order, and the bytes of the one that was given last."""

    def __init__(self, chunks: Iterable[bytes], name: str, strict: bool = True) -> None:
        """Without ``strict``, what could do harm is only read over: nothing may be made of it then."""
        self.name = name
        self._strict = strict
        self._chunks = iter(chunks)
        self._buffer = b""
        self._position = 0
        self._left = 0
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Member]:
        count = 0
        while True:
            member = self._next()
            if member is None:
                return
            count += 1
            if count > MAX_ENTRIES:
                raise self._bad(f"it has more than {MAX_ENTRIES} entries")
            yield member
            for _chunk in self.body():
                pass

    def body(self) -> Iterator[bytes]:
        """The bytes of the current member; what is not taken is passed over."""
        while self._left:
            chunk = self._take(min(self._left, CHUNK_BYTES), exact=False)
            self._left -= len(chunk)
            yield chunk
        if self._padding:
            padding, self._padding = self._padding, 0
            self._take(padding)

    def _next(self) -> Optional[Member]:
        local: dict[bytes, bytes] = {}
        long_name = long_link = None
        while True:
            block = self._block()
            if block is None:
                return None
            size, kind = self._number(block, 124, 12, "size"), block[156:157]
            if kind not in (b"x", b"g", b"L", b"K"):
                break
            if size > MAX_HEADER_BYTES:
                raise self._bad(f"a header of {size} bytes")
            data = self._take(size)
            self._take(-size % BLOCK)
            if kind == b"x":
                local = self._records(data)
            elif kind == b"g":
                self._globals.update(self._records(data))
            elif kind == b"L":
                long_name = data.rstrip(b"\0")
            else:
                long_link = data.rstrip(b"\0")
        records = {**self._globals, **local}
        name = records.get(b"path") or long_name or self._ustar_name(block)
        link = records.get(b"linkpath") or long_link or block[157:257].split(b"\0", 1)[0]
        return self._member(block, kind, records, name.decode(*_ENCODING), link.decode(*_ENCODING), size)

    def _member(self, block: bytes, kind: bytes, records: dict[bytes, bytes], name: str, link: str, size: int) -> Member:
        shown = printable(name)
        if self._strict and (kind in _REFUSED or any(key.startswith(b"GNU.sparse.") for key in records)):
            raise self._bad(f"{shown} is {_REFUSED.get(kind, 'a sparse file')}, which no layer may hold")
        if self._strict and kind not in _KINDS:
            raise self._bad(f"{shown} is of the unknown type {kind!r}")
        what = _KINDS.get(kind, "file")
        what = "directory" if what == "file" and name.endswith("/") and not size else what
        path = self._clean(name, shown)
        target = link
        if what == "link":
            target = self._clean(link, f"{shown}: its target {printable(link)}")
        elif what == "symlink" and (not link or "\0" in link):
            raise self._bad(f"{shown} is a symbolic link to nothing")
        if b"size" in records:
            size = self._decimal(records, b"size", shown)
        # Some writers give a link the size of its target, without its bytes
        size = size if what == "file" and kind not in (b"3", b"4", b"6") else 0
        self._left, self._padding = size, -size % BLOCK
        return Member(
            path,
            what,
            self._number(block, 100, 8, "mode") & 0o7777,
            self._decimal(records, b"uid", shown) if b"uid" in records else self._number(block, 108, 8, "uid"),
            self._decimal(records, b"gid", shown) if b"gid" in records else self._number(block, 116, 8, "gid"),
            size,
            self._time(block, records, shown),
            target if what in ("link", "symlink") else "",
            tuple(sorted((key, value) for key, value in records.items() if key.startswith(b"SCHILY.xattr."))),
        )

    def _block(self) -> Optional[bytes]:
        """The next header block; None at the end of the archive."""
        block = self._take(BLOCK, exact=False, whole=True)
        if not block:
            raise self._bad("it ends without the blocks that end an archive")
        if len(block) < BLOCK:
            raise self._bad("it ends in the middle of a header")
        if not block.strip(b"\0"):
            # The end. What follows is padding
            rest = self._buffer[self._position :]
            self._position = len(self._buffer)
            if rest.strip(b"\0") or any(chunk.strip(b"\0") for chunk in self._chunks):
                raise self._bad("there is something behind its end")
            return None
        stored = self._number(block, 148, 8, "checksum")
        plain = block[:148] + b"        " + block[156:]
        signed = sum(byte - 256 if byte > 127 else byte for byte in plain)
        if stored not in (sum(plain), signed):
            raise self._bad("a header has another checksum than it says")
        return block

    def _ustar_name(self, block: bytes) -> bytes:
        name = block[:100].split(b"\0", 1)[0]
        # GNU's own format has other fields where ustar has the prefix
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        return prefix + b"/" + name if prefix else name

    def _clean(self, name: str, shown: str) -> str:
        if not self._strict:
            # As engines read it
            return posixpath.normpath(f"/{name}").lstrip("/")
        if name.startswith("/"):
            raise self._bad(f"{shown} is an absolute name")
        if "\0" in name:
            raise self._bad(f"{shown} has a NUL in its name")
        if ".." in name.split("/"):
            raise self._bad(f"{shown} leads out of the image with ..")
        path = posixpath.normpath(name) if name else ""
        if not path:
            raise self._bad("an entry has no name")
        return "" if path == "." else path

    def _number(self, block: bytes, start: int, length: int, what: str) -> int:
        raw = block[start : start + length]
        if raw[0] in (0x80, 0xFF):
            # GNU's base-256, for what has too many octal digits; negative numbers are times before 1970
            return int.from_bytes(raw[1:], "big") if raw[0] == 0x80 else 0
        digits = raw.split(b"\0", 1)[0].strip()
        if not _OCTAL.match(digits):
            raise self._bad(f"a header has {raw!r} for its {what}")
        return int(digits or b"0", 8)

    def _decimal(self, records: dict[bytes, bytes], key: bytes, shown: str) -> int:
        if not re.match(rb"\d{1,19}\Z", records[key]):
            raise self._bad(f"{shown} has {records[key]!r} for its {key.decode()}")
        return int(records[key])

    def _time(self, block: bytes, records: dict[bytes, bytes], shown: str) -> int:
        if b"mtime" not in records:
            return self._number(block, 136, 12, "time")
        match = re.match(rb"(-?)(\d{1,15})(\.\d*)?\Z", records[b"mtime"])
        if not match:
            raise self._bad(f"{shown} has {records[b'mtime']!r} for its time")
        return 0 if match.group(1) else int(match.group(2))

    def _records(self, data: bytes) -> dict[bytes, bytes]:
        """PAX records, each ``LENGTH key=value\\n`` where LENGTH counts itself."""
        records: dict[bytes, bytes] = {}
        position = 0
        while position < len(data):
            match = _PAX.match(data, position)
            end = position + int(match.group(1)) if match else 0
            if not match or match.end() > end - 1 or end > len(data) or data[end - 1 : end] != b"\n":
                raise self._bad("a PAX header that cannot be read")
            records[match.group(2)] = data[match.end() : end - 1]
            position = end
        return records

    def _take(self, size: int, exact: bool = True, whole: bool = False) -> bytes:
        """The next ``size`` bytes. Without ``exact`` it may be fewer: what is there, or with ``whole`` what is left before the end."""
        parts: list[bytes] = []
        have = 0
        while have < size:
            if self._position == len(self._buffer):
                self._buffer, self._position = next(self._chunks, b""), 0
                if not self._buffer:
                    break
            part = self._buffer[self._position : self._position + size - have]
            self._position += len(part)
            have += len(part)
            parts.append(part)
            if not exact and not whole:
                break
        if have < size and (exact or not whole and not have):
            raise self._bad("it ends too early")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _bad(self, what: str) -> AikitError:
        return AikitError(f"{self.name}: {what}.", "The image is damaged, or none that a builder made; name another one.")


@dataclass
class _Inode:
    """What one or more names stand for; ``layer`` and ``number`` say where its bytes are."""

    layer: int
    number: int
    member: Member
    names: list[str] = field(default_factory=list)


@dataclass
class _Node:
    inode: Optional[_Inode] = None
    children: Optional[dict[str, _Node]] = None


@dataclass(frozen=True)
class Plan:
    """What the layers leave: directories and symlinks by their paths, files where their bytes come by, hard links last.

    ``files`` has the first name of the file at (layer, number), ``links`` pairs of a name and the first name of its file.
    """

    directories: tuple[Member, ...]
    symlinks: tuple[Member, ...]
    files: dict[tuple[int, int], str]
    links: tuple[tuple[Member, str], ...]

    @property
    def paths(self) -> frozenset[str]:
        """Every path that is there."""
        first = [*self.directories, *self.symlinks, *(member for member, _name in self.links)]
        return frozenset((*(member.path for member in first), *self.files.values()))


def plan(layers: Sequence[Iterable[Member]], name: str) -> Plan:
    """What is left of ``layers``, the lowest first, once each has been put over those below it."""
    root = _Node(children={})
    for number, members in enumerate(layers):
        _apply(root, number, members, name)
    return _collect(root)


def rewrite(
    plan_: Plan, open_layer: Callable[[int], Reader], prefix: str, extra: Sequence[tuple[str, int, bytes]] = ()
) -> Iterator[bytes]:
    """The tar of a plan, every path below ``prefix``; ``extra`` are files (path below it, mode, bytes) that replace what is there.

    The order depends on the layers alone: directories, symlinks, files as the layers have them, hard links.
    """
    replaced = {path for path, _mode, _data in extra}
    for member in plan_.directories:
        if member.path in replaced:
            raise AikitError(f"{member.path} of the image is a directory, where a file belongs.", "Name another image.")
    for folder in _folders_of(prefix):
        yield header(Member(folder, "directory", _DEFAULT_DIRECTORY_MODE, 0, 0, 0, 0))
    for member in plan_.directories:
        yield header(_moved(member, prefix))
    for member in plan_.symlinks:
        if member.path not in replaced:
            yield header(_moved(member, prefix))
    wanted: dict[int, int] = {}
    for layer, _number in plan_.files:
        wanted[layer] = wanted.get(layer, 0) + 1
    first_names: dict[str, str] = {}
    for layer in sorted(wanted):
        reader = open_layer(layer)
        for number, member in enumerate(reader):
            first = plan_.files.get((layer, number))
            if first is None:
                continue
            if first in replaced:
                # Further names of a file that is replaced keep its bytes: the first of them becomes the file
                others = [link.path for link, target in plan_.links if target == first and link.path not in replaced]
                if not others:
                    continue
                first_names[first] = others[0]
            moved = _moved(member, prefix, first_names.get(first, first))
            yield header(moved)
            yield from reader.body()
            yield b"\0" * (-member.size % BLOCK)
    for member, target in plan_.links:
        first = first_names.get(target, target)
        if member.path not in replaced and member.path != first:
            yield header(_moved(member, prefix, target=f"{prefix}/{first}"))
    for path, mode, data in extra:
        yield header(Member(f"{prefix}/{path}", "file", mode, 0, 0, len(data), 0))
        yield data + b"\0" * (-len(data) % BLOCK)
    yield END_OF_ARCHIVE


def header(member: Member) -> bytes:
    """The header of one member: ustar, with a PAX header before it where ustar is too small."""
    name = member.path.encode(*_ENCODING) + (b"/" if member.kind == "directory" else b"")
    link = member.target.encode(*_ENCODING)
    records = list(member.xattrs)
    if len(name) > 100 or not name.isascii() and _is_utf8(name):
        records.append((b"path", name))
    if len(link) > 100 or not link.isascii() and _is_utf8(link):
        records.append((b"linkpath", link))
    numbers = {}
    for key, value, largest in (
        (b"size", member.size, MAX_USTAR_SIZE),
        (b"uid", member.uid, 0o7777777),
        (b"gid", member.gid, 0o7777777),
        (b"mtime", member.mtime, MAX_USTAR_SIZE),
    ):
        numbers[key] = value if value <= largest else 0
        if value > largest:
            records.append((key, b"%d" % value))
    kind = {"file": b"0", "link": b"1", "symlink": b"2", "directory": b"5"}[member.kind]
    block = ustar(
        name[:100],
        numbers[b"size"],
        member.mode,
        kind,
        owner=(numbers[b"uid"], numbers[b"gid"]),
        mtime=numbers[b"mtime"],
        link=link[:100],
    )
    if not records:
        return block
    data = b"".join(_record(key, value) for key, value in sorted(records))
    return ustar(b"PaxHeaders/" + name[:80], len(data), 0o644, b"x") + data + b"\0" * (-len(data) % BLOCK) + block


def printable(name: str) -> str:
    """A name for messages: one line, and no bytes that a terminal would obey."""
    shown = name if len(name) <= 120 else name[:117] + "..."
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in shown) or "an entry without a name"


def _apply(root: _Node, layer: int, members: Iterable[Member], name: str) -> None:
    """Put one layer over what is below it. Its whiteouts count for the layers below alone, wherever in it they stand."""
    added: list[tuple[int, Member]] = []
    for number, member in enumerate(members):
        base = posixpath.basename(member.path)
        if base == OPAQUE:
            node = _find(root, posixpath.dirname(member.path))
            if node is not None and node.children is not None:
                node.children.clear()
        elif base.startswith(WHITEOUT):
            parent = _find(root, posixpath.dirname(member.path))
            hidden = base[len(WHITEOUT) :]
            if hidden in ("", ".", ".."):
                raise AikitError(f"{name}: {printable(member.path)} hides nothing.", "The image is damaged; name another one.")
            if parent is not None and parent.children is not None:
                parent.children.pop(hidden, None)
        else:
            added.append((number, member))
    for number, member in added:
        _add(root, _Inode(layer, number, member), name)


def _add(root: _Node, inode: _Inode, name: str) -> None:
    member = inode.member
    if not member.path:
        # The root: its folder in the new image is a new one
        return
    node = root
    parts = member.path.split("/")
    for depth, part in enumerate(parts[:-1]):
        if node.children is None:
            raise _below(name, member.path, parts[:depth])
        node = node.children.setdefault(part, _Node(children={}))
    if node.children is None:
        raise _below(name, member.path, parts[:-1])
    old = node.children.get(parts[-1])
    if member.kind == "directory":
        if old is not None and old.children is not None:
            old.inode = inode
        else:
            node.children[parts[-1]] = _Node(inode, {})
        return
    if member.kind == "link":
        target = _find(root, member.target)
        if target is None or target.inode is None or target.children is not None:
            raise AikitError(
                f"{name}: {printable(member.path)} is a hard link to {printable(member.target)}, which is no file of the image.",
                "The image is damaged; name another one.",
            )
        inode = target.inode
    node.children[parts[-1]] = _Node(inode)


def _below(name: str, path: str, parent: Sequence[str]) -> AikitError:
    return AikitError(
        f"{name}: {printable(path)} lies below {printable('/'.join(parent))}, which is no directory.",
        "The image is damaged, or made to write elsewhere; name another one.",
    )


def _find(root: _Node, path: str) -> Optional[_Node]:
    node: Optional[_Node] = root
    for part in path.split("/") if path else ():
        if node is None or node.children is None:
            return None
        node = node.children.get(part)
    return node


def _collect(root: _Node) -> Plan:
    directories: list[Member] = []
    symlinks: list[Member] = []
    inodes: dict[int, _Inode] = {}
    stack: list[tuple[str, _Node]] = [("", root)]
    while stack:
        path, node = stack.pop()
        for part, child in (node.children or {}).items():
            below = f"{path}/{part}" if path else part
            if child.children is not None:
                own = child.inode.member if child.inode else Member(below, "directory", _DEFAULT_DIRECTORY_MODE, 0, 0, 0, 0)
                directories.append(own)
                stack.append((below, child))
            elif child.inode is not None and child.inode.member.kind == "symlink":
                symlinks.append(_renamed(child.inode.member, below))
            elif child.inode is not None:
                inodes.setdefault(id(child.inode), child.inode).names.append(below)
    files: dict[tuple[int, int], str] = {}
    links: list[tuple[Member, str]] = []
    for inode in inodes.values():
        first, *others = sorted(inode.names)
        files[(inode.layer, inode.number)] = first
        links += [(_as_link(inode.member, other), first) for other in others]
    return Plan(
        tuple(sorted(directories, key=lambda member: member.path.split("/"))),
        tuple(sorted(symlinks, key=lambda member: member.path)),
        files,
        tuple(sorted(links, key=lambda pair: pair[0].path)),
    )


def _renamed(member: Member, path: str) -> Member:
    return Member(path, member.kind, member.mode, member.uid, member.gid, member.size, member.mtime, member.target, member.xattrs)


def _as_link(member: Member, path: str) -> Member:
    return Member(path, "link", member.mode, member.uid, member.gid, 0, member.mtime)


def _moved(member: Member, prefix: str, path: Optional[str] = None, target: Optional[str] = None) -> Member:
    return Member(
        f"{prefix}/{member.path if path is None else path}",
        member.kind,
        member.mode,
        member.uid,
        member.gid,
        member.size,
        member.mtime,
        member.target if target is None else target,
        member.xattrs,
    )


def _folders_of(prefix: str) -> list[str]:
    parts = prefix.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d" % length + body
