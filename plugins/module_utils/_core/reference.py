# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of images, as engines read them. Source: Docker's reference grammar (distribution/reference)."""

from __future__ import annotations

import re

from .errors import AikitError

HINT = "Use [registry[:port]/]path[:tag] in lower case, for example registry.example:5000/llama:1."

_REFERENCE = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)


_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]|\[0:0:0:0:0:0:0:1\])(?::[0-9]+)?")
_ID = re.compile(r"sha256:[0-9a-f]{12,64}|[0-9a-f]{64}")


def is_id(text: str) -> bool:
    """Whether ``text`` is the id of an image instead of a name, as ``docker images --no-trunc`` prints it."""
    return bool(_ID.fullmatch(text))


def complete(text: str, digest_allowed: bool = False) -> str:
    """``text`` with a tag, or with the digest that it has; empty when engines would refuse it."""
    found = _REFERENCE.fullmatch(text)
    if not found or (found.group("digest") and not digest_allowed):
        return ""
    return text if found.group("digest") else ":".join(split_tag(text))


def short_name(ref: str) -> str:
    """The last part of a name with its tag, which holds no address: for people."""
    return ref.partition("@")[0].rpartition("/")[2]


def split_tag(text: str) -> tuple[str, str]:
    """``registry:5000/a/b:1`` → (``registry:5000/a/b``, ``1``); without a tag: ``latest``."""
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, "latest"
    return name, tag


def check_reference(name: str) -> str:
    """``name`` with a tag, or :class:`AikitError` when engines would refuse it."""
    full = complete(name)
    if not full:
        raise AikitError(f"name: {name!r} is no image reference.", HINT)
    return full


def is_loopback(host: str) -> bool:
    """Whether a registry is on this machine: as in Docker, plain HTTP is fine there."""
    return bool(_LOOPBACK.fullmatch(host))
