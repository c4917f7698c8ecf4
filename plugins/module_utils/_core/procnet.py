# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who listens where: /proc/net/tcp and /proc/net/tcp6, read without a tool that a host may lack.

Source of the format: Documentation/networking/proc_net_tcp.rst of the Linux kernel.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass

_LISTEN = "0A"


@dataclass(frozen=True)
class Listener:
    """A listening socket; ``inode`` is what /proc/PID/fd names it by."""

    address: str
    port: int
    inode: int


def listeners(text: str, byteorder: str = sys.byteorder) -> tuple[Listener, ...]:
    """The listening sockets of one of the two files. Lines that make no sense are passed over."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or words[3] != _LISTEN or not words[9].isdigit():
            continue
        address, colon, port = words[1].partition(":")
        try:
            found.append(Listener(_address(address, byteorder), int(port, 16), int(words[9])))
        except ValueError:
            continue
    return tuple(found)


def socket_inode(link: str) -> int:
    """The inode in ``socket:[12345]``, what a link in /proc/PID/fd points at; 0 for anything else."""
    if link.startswith("socket:[") and link.endswith("]") and link[8:-1].isdigit():
        return int(link[8:-1])
    return 0


def _address(digits: str, byteorder: str) -> str:
    """The kernel prints 32-bit words in the byte order of the machine."""
    raw = bytes.fromhex(digits)
    if len(raw) not in (4, 16):
        raise ValueError(digits)
    if byteorder == "little":
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
