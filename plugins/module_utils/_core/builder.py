# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which builder makes an image: direct where that gives the same image, BuildKit with AIKit's frontend elsewhere.

Where the frontend runs no command in the image itself, its layers can be put together without one. Source: data_aikit_release.py
for cuda, pkg/aikit2llb/inference/convert.go of github.com/kaito-project/aikit at v0.21.0 and 6f814e9 (main) for the others. Read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

from . import data_aikit, data_aikit_release
from .aikitfile import Aikitfile
from .data_aikit import Version
from .errors import AikitError

# What only the frontend's build reads
BUILDKIT_OPTIONS = ("frontend", "build_args", "secrets", "cache_from", "cache_to", "compression", "buildx_builder", "buildkit_image", "buildkitd_config")

LLAMA_CPP = "no step of this image runs a command, so its layers are assembled directly"
LOCALAI = "AIKit's frontend runs no command in this image, so its layers are assembled directly"
# What the frontend runs inside a llama-cpp image, by runtime; empty: nothing. That of cuda differs between the releases.
COMMANDS: Mapping[str, str] = {
    "": "",
    "applesilicon": "",
    "rocm": "apt-get install of rocm",
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
    known_release = next((entry for entry in data_aikit_release.RELEASES if entry.version == wish.version), None)
    if known_release is None:
        known = " and ".join(data_aikit.describe(entry.version) for entry in data_aikit_release.RELEASES)
        return f"the direct builder knows what AIKit {known} put into an image, not what {data_aikit.describe(wish.version)} does"
    # What is not listed is not known to be without commands
    commands = known_release.cuda_commands if wish.runtime == "cuda" else COMMANDS.get(wish.runtime, "its own commands")
    if wish.runtime == "cuda" and wish.platforms and not any("amd64" in platform for platform in wish.platforms):
        # For arm64 AIKit makes the CPU's image, although runtime is cuda
        commands = ""
    return f"with runtime {wish.runtime} AIKit {data_aikit.describe(wish.version)} runs commands inside the image ({commands})" if commands else ""


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
        return Choice("buildkit", f"only BuildKit reads what was given: {given}")
    return Choice("direct", LOCALAI)


def given_options(options: Mapping[str, object], names: Sequence[str] = BUILDKIT_OPTIONS) -> tuple[str, ...]:
    """The names of ``names`` that a task gave, in order."""
    return tuple(name for name in names if options.get(name))


def release(aikit_version: str) -> Version:
    """The release that an option ``aikit_version`` means."""
    return data_aikit.parse_version(aikit_version) or data_aikit.NEWEST_RELEASE


def decide(server: str, asked: str, aikitfile: Aikitfile, aikit_version: str, platforms: Sequence[str], options: Mapping[str, object]) -> Choice:
    """The builder for a checked aikitfile (with its build arguments) and the options of a task."""
    wish = Wish(
        server=server,
        version=release(aikit_version),
        runtime=aikitfile.runtime,
        backend=aikitfile.backends[0] if aikitfile.backends else "",
        has_models=bool(aikitfile.models),
        platforms=tuple(platforms),
        only_buildkit=given_options(options),
    )
    return choose(asked, wish)
