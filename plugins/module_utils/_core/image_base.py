# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image of a registry or an OCI layout as the base of ours: its layers as they are, and llama.cpp's server found in it.

The server cannot be asked for its options where it is not run. It holds their names as texts, though, between two zero bytes, as
it does the names of its variables; which variable stands for which option is known from the releases in our table.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import data_llama_server, oci
from .base import Server, backends_from_names, server_from_table
from .errors import AikitError
from .llama_server import FLAGS
from .oci import Descriptor

SERVER_NAME = "llama-server"
HINT = "Say with base_server what is in the image (path, version, backends), or name an image that has llama.cpp's server."
# Files that tell something: the server, the libraries that its options may be in, ggml's backends
_TELLING = re.compile(r"(?:llama-server|libllama[a-z-]*\.so[0-9.]*|libggml[a-z0-9_.-]*\.so[0-9.]*)\Z")
_WITH_OPTIONS = re.compile(r"(?:llama-server|libllama-[a-z-]+\.so[0-9.]*)\Z")
_TEXT = re.compile(rb"(?<=\0)(--?[a-zA-Z][a-zA-Z0-9.-]{0,47}|LLAMA_[A-Z0-9_]{3,60})(?=\0)")
_BUILD = re.compile(r"(?:^|[-_.])b([0-9]{3,6})\Z")
# Where the loader, or a program with folders of its own below, looks by itself
_LIBRARY_FOLDERS = re.compile(r"/(?:usr/)?(?:local/)?lib(?:32|64)?(?:/|\Z)")
# A text of this length at most may be cut by the end of a piece
TEXT_BYTES = 80


@dataclass(frozen=True)
class ImageBase:
    """A base that is an image. ``digest`` is that of its manifest, ``index_digest`` of the index that led to it.

    ``layers`` are as its manifest has them, ``diff_ids`` what they unpack to; ``config`` is the run-time half of its config;
    ``source`` is the repository (``host/path``) that has the blobs, empty for a layout.
    """

    ref: str
    digest: str
    index_digest: str
    platform: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    config: Mapping[str, Any]
    server: Server
    backends: tuple[str, ...]
    library_path: str = ""
    source: str = ""

    @property
    def architecture(self) -> str:
        return self.platform.split("/")[1]


@dataclass(frozen=True)
class ServerHint:
    """What a user says of the server in a base. ``backends`` is None where nothing was said."""

    path: str = ""
    version: str = ""
    backends: Optional[tuple[str, ...]] = None

    @property
    def complete(self) -> bool:
        return bool(self.path and self.version and self.backends is not None)


@dataclass(frozen=True)
class LayerFiles:
    """What one layer tells: its telling files, what it takes away, and the texts of the programs among the files."""

    files: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def as_dict(self) -> dict[str, Any]:
        return {"files": list(self.files), "removed": list(self.removed), "texts": {key: list(value) for key, value in self.texts.items()}}


def parse_layer_files(value: Mapping[str, Any]) -> Optional[LayerFiles]:
    """What :meth:`LayerFiles.as_dict` wrote; None for anything else."""
    try:
        texts = {str(key): tuple(map(str, words)) for key, words in value["texts"].items()}
        return LayerFiles(tuple(map(str, value["files"])), tuple(map(str, value["removed"])), texts)
    except (KeyError, TypeError, AttributeError):
        return None


def parse_hint(value: Any, option: str = "base_server") -> ServerHint:
    """The option ``base_server``."""
    if not value:
        return ServerHint()
    unknown = set(value) - {"path", "version", "backends"}
    if unknown:
        raise AikitError(f"{option}: {', '.join(sorted(map(str, unknown)))}: no such key.", "It has path, version and backends.")
    path = str(value.get("path") or "")
    if path and not path.startswith("/"):
        raise AikitError(f"{option}.path: {path!r} is no absolute path.", "Give the path in the image, such as /app/llama-server.")
    version = str(value.get("version") or "")
    if version and not server_from_table(version).options:
        known = ", ".join(data_llama_server.VERSIONS)
        raise AikitError(
            f"{option}.version: the options of llama-server {version} are not known; known are: {known}.", "Leave it out: they are looked for in the image."
        )
    backends = value.get("backends")
    if backends is not None and (
        not isinstance(backends, (list, tuple)) or not all(isinstance(entry, str) and re.fullmatch(r"[a-z0-9]+", entry) for entry in backends)
    ):
        raise AikitError(f"{option}.backends: must be a list of words such as cpu, cuda, vulkan.", "They are the names of ggml's backends.")
    return ServerHint(posixpath.normpath(path) if path else "", version, None if backends is None else tuple(sorted(set(backends))))


def from_labels(config: Mapping[str, Any]) -> ServerHint:
    """What the labels of an image say, where aikit.fleet made it."""
    labels = config.get("Labels") or {}
    version = labels.get("io.aikit.fleet.server.version", "")
    if labels.get("io.aikit.fleet.server") != "llama_cpp" or not server_from_table(version).options:
        return ServerHint()
    backends = tuple(entry for entry in labels.get("io.aikit.fleet.backends", "").split(",") if entry)
    return ServerHint(entry_point(config), version, backends)


def entry_point(config: Mapping[str, Any]) -> str:
    """The path of the server, where it is what an image runs."""
    words = config.get("Entrypoint") or config.get("Cmd") or ()
    first = str(words[0]) if isinstance(words, (list, tuple)) and words else ""
    return posixpath.normpath(first) if first.startswith("/") and posixpath.basename(first) == SERVER_NAME else ""


def is_telling(path: str) -> bool:
    return bool(_TELLING.match(posixpath.basename(path)))


def has_options(path: str) -> bool:
    """Whether a file may hold the names of the server's options."""
    return bool(_WITH_OPTIONS.match(posixpath.basename(path)))


def texts(piece: bytes) -> set[str]:
    """Names of options and variables in a piece of a program."""
    return {found.decode("ascii") for found in _TEXT.findall(piece)}


def member_path(name: str) -> str:
    """The path of a member of a layer, without a slash at its beginning."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def removed_path(path: str) -> str:
    """What a whiteout takes away: a path, or a folder's content (with a slash at the end); empty for any other file."""
    folder, name = posixpath.split(path)
    if name == ".wh..wh..opq":
        return f"{folder}/"
    return posixpath.join(folder, name[4:]) if name.startswith(".wh.") else ""


def hides(removed: str, path: str) -> bool:
    """Whether what :func:`removed_path` told takes ``path`` of a lower layer away. A slash alone is all of it."""
    return removed in ("/", path) or path.startswith(removed if removed.endswith("/") else f"{removed}/")


def merge(layers: Sequence[LayerFiles]) -> LayerFiles:
    """The telling files of an image, from its layers, the top first."""
    files: dict[str, tuple[str, ...]] = {}
    hidden: list[str] = []
    for layer in layers:
        for path in layer.files:
            if path not in files and not any(hides(removed, path) for removed in hidden):
                files[path] = layer.texts.get(path, ())
        hidden += layer.removed
    return LayerFiles(tuple(sorted(files)), (), {path: words for path, words in files.items() if words})


def is_enough(found: LayerFiles) -> bool:
    """Whether the layers below need not be read: the server is there, and so are ggml's backends."""
    names = [posixpath.basename(path) for path in found.files]
    return SERVER_NAME in names and bool(backends_from_names(names))


def find_server(found: LayerFiles, config: Mapping[str, Any], hint: ServerHint, ref: str) -> tuple[Server, tuple[str, ...], str]:
    """The server of an image, its backends, and the folder of its libraries where the loader would not find them."""
    told = from_labels(config)
    paths = [path for path in (f"/{name}" for name in found.files) if posixpath.basename(path) == SERVER_NAME]
    asked = hint.path or entry_point(config)
    path = hint.path or next((entry for entry in (told.path, asked, *sorted(paths, key=lambda entry: (len(entry), entry))) if entry), "")
    if not path or (found.files and not hint.path and not told.path and not paths) or (not found.files and not hint.path and not told.path):
        raise AikitError(f"base: {ref} has no llama-server: no layer holds a file of that name.", HINT)
    names = [posixpath.basename(name) for name in found.files]
    backends = hint.backends if hint.backends is not None else told.backends if told.backends is not None else backends_from_names(names)
    if not backends:
        # Linked into the server
        backends = ("cpu",)
    version = hint.version or told.version
    server = server_from_table(version) if version else _from_texts(found, config, ref)
    if not server.options:
        raise AikitError(f"base: the options of {path} in {ref} are not known.", HINT)
    folders = [posixpath.dirname(f"/{name}") for name in found.files if posixpath.basename(name).startswith(("libllama", "libggml"))]
    odd = sorted({folder for folder in folders if not _LIBRARY_FOLDERS.match(folder)})
    return (
        Server(path, server.version, server.build, server.options, server.environment, server.aliases, server.arguments),
        tuple(backends),
        ":".join(odd),
    )


def _from_texts(found: LayerFiles, config: Mapping[str, Any], ref: str) -> Server:
    """The server's options by the texts in it and its libraries, which other programs of llama.cpp share: only known ones count."""
    words = {word for group in found.texts.values() for word in group}
    if "--model" not in words or "--port" not in words:
        return Server("", "")
    labels = config.get("Labels") or {}
    named = str(labels.get("org.opencontainers.image.version") or "")
    version = named if re.fullmatch(r"[A-Za-z0-9._+-]{1,40}", named) else ""
    tag = _BUILD.search(ref.partition("@")[0])
    build = tag.group(1) if tag else ""
    for known in reversed(list(data_llama_server.VERSIONS)):
        table = server_from_table(known)
        if all(option in words for option in table.options if option.startswith("--")):
            return Server("", version, build, table.options, table.environment, table.aliases, table.arguments)
    newest = server_from_table(list(data_llama_server.VERSIONS)[-1])
    possible = newest.options | {name for flag in FLAGS.values() for name in (*flag.names, *flag.off)}
    options = {word for word in words & possible if word.startswith("--")}
    # Short names are the ends of other texts, too; they are known by their long ones
    aliases = {name: first for name, first in newest.aliases.items() if first in options and (name in options or not name.startswith("--"))}
    options |= {name for name in aliases if not name.startswith("--")}
    environment = {variable: option for variable, option in newest.environment.items() if variable in words and option in options}
    arguments = {name: value for name, value in newest.arguments.items() if name in options}
    return Server("", version, build, frozenset(options), environment, aliases, arguments)


def split_bases(base: Any, platforms: Sequence[str]) -> dict[str, str]:
    """The base of each platform. ``base`` is one for all, or a mapping; without ``platforms`` one text has the key ``""``."""
    if isinstance(base, Mapping):
        found = {oci.normalise_platform(str(key)): str(value) for key, value in base.items()}
        if not found:
            raise AikitError("base: the mapping is empty.", "Give one base a platform, for example {linux/amd64: ..., linux/arm64: ...}.")
        wanted = [oci.normalise_platform(entry) for entry in platforms] or list(found)
        missing = [entry for entry in wanted if entry not in found]
        if missing:
            raise AikitError(f"base: has nothing for {', '.join(missing)}; it has: {', '.join(found)}.", "Add it, or take it out of platforms.")
        return {entry: found[entry] for entry in dict.fromkeys(wanted)}
    if not isinstance(base, str) or not base.strip():
        raise AikitError("base: neither a text nor a mapping of platforms.", "Give the path of a base, or the name of an image.")
    return {entry: base.strip() for entry in dict.fromkeys(oci.normalise_platform(platform) for platform in platforms)} or {"": base.strip()}


def kind(text: str) -> str:
    """What a base is by its name alone: ``path`` or ``image``; a folder that is a layout is for the hands to see."""
    if text.startswith("oci:"):
        return "layout"
    if text.startswith(("/", "~", ".")) or text.endswith(".tar"):
        return "path"
    return "image"


def split_layout(text: str) -> tuple[str, str]:
    """``oci:/folder:name`` → folder and name; the name may have colons of its own."""
    rest = text[len("oci:") :] if text.startswith("oci:") else text
    folder, dummy, name = rest.partition(":")
    return folder, name


def env_pairs(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment of an image."""
    pairs = config.get("Env") or ()
    return dict(_pair(entry) for entry in pairs if isinstance(entry, str)) if isinstance(pairs, (list, tuple)) else {}


def _pair(text: str) -> tuple[str, str]:
    key, dummy, value = text.partition("=")
    return key, value


def joined(paths: Iterable[str]) -> str:
    """A search path without empty and repeated entries."""
    return ":".join(dict.fromkeys(entry for path in paths for entry in path.split(":") if entry))
