# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which builder makes an image: direct where that gives the same image, BuildKit with AIKit's frontend elsewhere.

Source of the table: pkg/aikit2llb/inference of github.com/kaito-project/aikit at v0.21.0 and at 6f814e9 (main): where the
frontend runs no command in the image itself, its layers can be put together without one. Read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from . import data_aikit
from .data_aikit import MAIN, Version
from .errors import AikitError

LLAMA_CPP = "no step of this image runs a command, so its layers are assembled directly"
LOCALAI = "AIKit's frontend runs no command in this image, so its layers are assembled directly"
# (release, runtime) of llama-cpp images: empty where the direct builder makes the same image, else the command that AIKit runs in it
DIRECT: Mapping[tuple[Version, str], str] = {
    ((0, 21, 0), ""): "",
    ((0, 21, 0), "cuda"): "",
    ((0, 21, 0), "applesilicon"): "",
    (MAIN, ""): "",
    (MAIN, "cuda"): "",
    (MAIN, "applesilicon"): "",
    (MAIN, "rocm"): "runtime rocm is installed by apt inside the image",
}


@dataclass(frozen=True)
class Wish:
    """What decides it. ``backend`` is empty where the aikitfile names none; ``only_buildkit`` are options that were given and that only BuildKit takes."""

    server: str
    version: Version
    runtime: str = ""
    backend: str = ""
    has_models: bool = True
    platforms: tuple[str, ...] = ()
    only_buildkit: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """``builder`` is direct or buildkit; ``reason`` is returned to people."""

    builder: str
    reason: str


def why_not_direct(wish: Wish) -> str:
    """Why the direct builder cannot make the image of server localai; empty where it can."""
    if wish.backend not in ("", "llama-cpp"):
        return f"backend {wish.backend} gets its Python libraries and system packages from commands that run inside the image"
    if not wish.has_models and wish.backend:
        return "without models this is a runner image, whose downloader is installed by commands that run inside the image"
    released = sorted({version for version, _runtime in DIRECT})
    if wish.version not in released:
        known = " and ".join(data_aikit.describe(version) for version in released)
        return f"the direct builder knows what AIKit {known} put into an image, not what {data_aikit.describe(wish.version)} does"
    found = DIRECT.get((wish.version, wish.runtime))
    if found is None:
        return f"AIKit {data_aikit.describe(wish.version)} has no runtime {wish.runtime} that the direct builder knows"
    return found


def choose(asked: str, wish: Wish) -> Choice:
    """The builder for an image. :class:`AikitError` where ``asked`` (auto, direct, buildkit) cannot make it, or options do not fit."""
    given = " and ".join(wish.only_buildkit)
    if wish.server == "llama_cpp":
        if asked == "buildkit":
            raise AikitError(
                "builder: buildkit runs AIKit's frontend, which makes images of LocalAI, not of llama.cpp's server.",
                "Write server: localai, or leave builder out: server llama_cpp is assembled directly.",
            )
        if given:
            raise AikitError(f"{given}: only builder buildkit reads this, and it makes images of server localai.", "Leave it out, or write server: localai.")
        return Choice("direct", LLAMA_CPP)
    if asked == "buildkit":
        return Choice("buildkit", "builder: buildkit was asked for")
    why = why_not_direct(wish)
    if asked == "direct":
        if why:
            raise AikitError(f"builder: direct cannot make this image: {why}.", "Write builder: buildkit, or leave it out.")
        if given:
            raise AikitError(f"{given}: only builder buildkit reads this.", "Leave it out, or write builder: buildkit.")
        return Choice("direct", LOCALAI)
    if why:
        return Choice("buildkit", why)
    if given:
        return Choice("buildkit", f"{given} was given, which only BuildKit reads")
    return Choice("direct", LOCALAI)


def given_options(options: Mapping[str, object], names: Sequence[str]) -> tuple[str, ...]:
    """The names of ``names`` that a task gave, in order."""
    return tuple(name for name in names if options.get(name))
