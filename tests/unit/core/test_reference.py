# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of images."""

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import reference

DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a", "a:latest"),
        ("localhost/aikit/a:1", "localhost/aikit/a:1"),
        ("r.example:5000/x/y_z-1", "r.example:5000/x/y_z-1:latest"),
        ("[2001:db8::1]:5000/x", "[2001:db8::1]:5000/x:latest"),
        (f"r.example/a{DIGEST}", f"r.example/a{DIGEST}"),
        (f"r.example:5000/a:1{DIGEST}", f"r.example:5000/a:1{DIGEST}"),
    ],
)
def test_references_get_a_tag(text, expected):
    assert reference.complete(text, digest_allowed=True) == expected


@pytest.mark.parametrize("text", ["", "A", "a b", "a:", "a:b:c", "-a", "a//b", "http://a/b", "a@sha256:0", "a@sha512:" + "0" * 64])
def test_what_is_no_reference(text):
    assert reference.complete(text, digest_allowed=True) == ""


def test_a_digest_is_not_always_allowed():
    assert reference.complete(f"a{DIGEST}") == ""


@pytest.mark.parametrize(
    "text, expected",
    [
        ("registry.example:5000/a/b:1", ("registry.example:5000/a/b", "1")),
        ("registry.example:5000/a/b", ("registry.example:5000/a/b", "latest")),
        ("a", ("a", "latest")),
    ],
)
def test_split_tag(text, expected):
    assert reference.split_tag(text) == expected
