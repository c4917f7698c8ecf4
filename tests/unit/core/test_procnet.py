# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core.procnet import Listener, listeners, socket_inode
from hypothesis import given
from hypothesis import strategies as st

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TAIL = "00000000:00000000 00:00000000 00000000     0        0"


def line(address, state="0A", inode=46998):
    return f"   0: {address} 00000000:0000 {state} {TAIL} {inode} 1 000000008c7be3c3 100 0 0 10 0\n"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0100007F:46A0", "127.0.0.1"),
        ("00000000:46A0", "0.0.0.0"),
        ("0A0200C0:46A0", "192.0.2.10"),
        ("00000000000000000000000000000000:46A0", "::"),
        ("00000000000000000000000001000000:46A0", "::1"),
        ("0000000000000000FFFF00000100007F:46A0", "127.0.0.1"),
        ("B80D0120000000000000000001000000:46A0", "2001:db8::1"),
    ],
)
def test_addresses_on_little_endian(address, expected):
    assert listeners(HEAD + line(address), "little") == (Listener(expected, 18080, 46998),)


def test_addresses_on_big_endian():
    assert listeners(HEAD + line("7F000001:46A0"), "big") == (Listener("127.0.0.1", 18080, 46998),)


def test_only_listening_sockets_count():
    text = HEAD + line("0100007F:0050", "01") + line("0100007F:0051", "06") + line("0100007F:0052", "0A", 7)
    assert listeners(text, "little") == (Listener("127.0.0.1", 82, 7),)


@pytest.mark.parametrize("text", ["", HEAD, HEAD + "broken\n", HEAD + line("XYZ:46A0"), HEAD + line("01:46A0")])
def test_what_makes_no_sense_is_passed_over(text):
    assert listeners(text, "little") == ()


@given(st.text())
def test_no_text_raises(text):
    listeners(HEAD + text)


@pytest.mark.parametrize(("link", "inode"), [("socket:[46998]", 46998), ("pipe:[1]", 0), ("/dev/null", 0), ("socket:[x]", 0), ("", 0)])
def test_socket_inode(link, inode):
    assert socket_inode(link) == inode
