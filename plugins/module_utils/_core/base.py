# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base image that is made on the spot: a Debian root file system with llama.cpp's server.

A base is a tar file with a description beside it (``BASE.tar.json``). This module knows the recipe of
a base, reads what the build printed, and reads and writes the description.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import data_base, data_llama_server, model_source
from .errors import AikitError
from .plan import Action, Plan

SCHEMA = 1
# Part of every key: raise it whenever hook_script, the excludes or the way mmdebstrap is called change the bytes.
RECIPE_VERSION = 1
DEFAULT_SOURCE_DATE_EPOCH = 1767225600
SERVER_PATH = "/usr/bin/llama-server"
UID = 65532

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*\Z")
_OPTION = re.compile(r"-{1,2}[A-Za-z0-9][A-Za-z0-9._-]*")
_ENVIRONMENT = re.compile(r"\(env: ([A-Z][A-Z0-9_]*)\)")
_VERSION = re.compile(r"^version: (\S+)(?: \(build (\d+)[,)])?", re.MULTILINE)
_BACKEND = re.compile(r"libggml-([a-z0-9]+)(?:-[a-z0-9_.]+)?\.(?:so|dylib)\Z")
_SIMULATED = re.compile(r"^Inst (\S+) (?:\[[^]]*\] )?\((\S+) .*\[([a-z0-9-]+)\]\)", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """llama.cpp's server in a base. ``environment`` names the option that each variable stands for.

    ``options`` is empty when nothing is known about this version: it could not be run, and is not in our table.
    ``aliases`` has the first long name of each option by its other names, ``arguments`` what the help calls the value
    of an option (N, FNAME …), empty for one that takes none; both are empty where nobody has looked.
    """

    path: str
    version: str
    build: str = ""
    options: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    arguments: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def spellings(self, option: str) -> frozenset[str]:
        """``option`` and all other names of it."""
        first = self.aliases.get(option, option)
        return frozenset((option, first, *(name for name, other in self.aliases.items() if other == first)))


@dataclass(frozen=True)
class Base:
    """What the description of a base says."""

    variant: str
    suite: str
    architecture: str
    sha256: str
    size_bytes: int
    packages: tuple[Mapping[str, str], ...]
    server: Server
    backends: tuple[str, ...]
    key: str

    def as_dict(self) -> dict[str, Any]:
        """The description as it is written; :func:`parse_base` reads it back."""
        return {
            "schema": SCHEMA,
            "variant": self.variant,
            "suite": self.suite,
            "architecture": self.architecture,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "packages": [dict(package) for package in self.packages],
            "server": {
                "path": self.server.path,
                "version": self.server.version,
                "build": self.server.build,
                "options": sorted(self.server.options),
                "environment": dict(sorted(self.server.environment.items())),
                "aliases": dict(sorted(self.server.aliases.items())),
                "arguments": dict(sorted(self.server.arguments.items())),
            },
            "backends": list(self.backends),
            "key": self.key,
        }


@dataclass(frozen=True)
class BaseRecipe:
    """All that decides which bytes a base has, and where its packages come from.

    The mirror is not part of ``key``: it says where the packages are fetched, the archive's signature says what they are.
    """

    variant: str
    suite: str
    mirror: str
    architecture: str
    packages: tuple[str, ...]
    components: tuple[str, ...]
    excludes: tuple[str, ...]
    keyring: str = ""
    source_date_epoch: int = DEFAULT_SOURCE_DATE_EPOCH
    native: bool = True
    plain: bool = True

    @property
    def key(self) -> str:
        inputs = {
            "recipe": RECIPE_VERSION,
            "variant": self.variant,
            "suite": self.suite,
            "architecture": self.architecture,
            "packages": sorted(self.packages),
            "components": self.components,
            "excludes": self.excludes,
            "source_date_epoch": self.source_date_epoch,
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """SUITE-VARIANT-ARCHITECTURE.tar; bases with inputs of the user's own do not share a file with the plain one."""
        name = f"{self.suite}-{self.variant}-{self.architecture}"
        return f"{name}.tar" if self.plain else f"{name}-{self.key[:12]}.tar"

    @property
    def needed_bytes(self) -> int:
        """Disk space that a build takes at its peak: packages, unpacked tree, tar file, package lists."""
        return int(data_base.VARIANTS[self.variant]["needed_bytes"])

    @property
    def source(self) -> str:
        """The line for apt's list of sources."""
        option = f"[signed-by={self.keyring}] " if self.keyring else ""
        return f"deb {option}{self.mirror} {self.suite} {' '.join(self.components)}"

    def argv(self, work: str, output: str) -> list[str]:
        """mmdebstrap's command line. ``work`` holds the files of :meth:`files`."""
        options = [f"--include={','.join(self.packages)}", f"--architectures={data_base.ARCHITECTURES[self.architecture]}"]
        options += [f"--dpkgopt=path-exclude={pattern}" for pattern in self.excludes]
        options += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
        options += [f"--extract-hook=sh {shlex.quote(f'{work}/hook')} \"$1\" {shlex.quote(work)}"]
        # The hook removes all that apt leaves behind, so mmdebstrap need not; device nodes are every engine's own.
        options += ["--skip=cleanup/apt", "--skip=output/dev"]
        return [*self._command(work), "--format=tar", *options, self.suite, output, self.source]

    def simulate_argv(self, work: str) -> list[str]:
        """The command that prints which packages a build would take today, without fetching one."""
        options = [f"--include={','.join(self.packages)}", f"--architectures={data_base.ARCHITECTURES[self.architecture]}"]
        return [*self._command(work), "--verbose", "--simulate", "--format=null", *options, self.suite, "/dev/null", self.source]

    def _command(self, work: str) -> list[str]:
        # mmdebstrap mounts the host's /dev/shm, /proc and /sys below its tree. When it is killed they stay, and whoever
        # removes the tree would remove the host's files. Namespaces of its own end with it, and it ends with the module.
        contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        return [*contained, "mmdebstrap", "--mode=root", "--variant=extract", f"--aptopt={work}/apt.conf", "--skip=check/qemu"]

    def environment(self, work: str) -> dict[str, str]:
        return {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(self.source_date_epoch), "TMPDIR": f"{work}/tmp"}

    def files(self, work: str, apt_settings: str = "") -> dict[str, str]:
        """File name → text of what has to stand in ``work`` before a build. ``apt_settings`` are the host's own (its proxy)."""
        apt = [
            "// Archives that move are often mirrored past the time their index is valid for; the signature still counts.",
            'Acquire::Check-Valid-Until "false";',
            'Acquire::Retries "3";',
            'Acquire::Languages "none";',
            # A login for the mirror is the host's business, and stays in its files
            'Dir::Etc::netrc "/etc/apt/auth.conf";',
            'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";',
            apt_settings.strip(),
        ]
        provided = data_base.VARIANTS[self.variant]["provided"]
        if provided:
            apt.append(f'Dir::State::status "{work}/status";')
        files = {"apt.conf": "\n".join(apt) + "\n", "hook": hook_script(self.native)}
        if provided:
            files["status"] = _STATUS.format(provides=", ".join(provided))
        return files


# What the host's container toolkit mounts into every container must not come from a package as well: this
# entry tells apt that it is there.
_STATUS = """Package: aikit-fleet-host-driver
Status: install ok installed
Priority: optional
Section: misc
Maintainer: nobody
Architecture: all
Multi-Arch: foreign
Version: 1
Provides: {provides}
Description: driver libraries that the host mounts into the container

"""

# Runs once all packages are unpacked, with the root's path and the work folder as arguments. mmdebstrap's variant
# "extract" runs no maintainer script: what a base needs of their work is done here.
_HOOK = r"""
root=$1
work=$2
# The last lines of this file are shown when a step fails
exec 2>"$work/log"
set -eux

for deb in "$root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --show --showformat='${{Package}} ${{Version}} ${{Architecture}}\n' "$deb"
    # Scanners read what is installed here
    dpkg-deb --field "$deb" | sed '1a Status: install ok installed' >&3
    echo >&3
done >"$work/packages" 3>"$work/installed"

find "$root/usr/lib" -path '*/ggml/*' -name 'libggml-*.so' -printf '%f\n' >"$work/backends"

printf 'root:x:0:0:root:/root:/usr/sbin/nologin\nllama:x:{uid}:{uid}:llama:/cache:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nllama:x:{uid}:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

rm -rf "$root/var/cache/apt" "$root/var/lib/apt" "$root/var/log/apt" "$root/var/cache/debconf" "$root/var/lib/dpkg" \
    "$root/etc/apt/sources.list" "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" \
    "$root/etc/hostname" "$root/etc/resolv.conf"
mkdir -p "$root/var/lib/dpkg"
mv "$work/installed" "$root/var/lib/dpkg/status"

{run}
# A volume mounted here takes over owner and mode
mkdir -p "$root/cache"
chown {uid}:{uid} "$root/cache"
chmod 0700 "$root/cache"
"""

_RUN = r"""
serve() {{
    env -i PATH="$PATH" LC_ALL=C.UTF-8 chroot --userspec={uid}:{uid} "$root" {server} "$@"
}}
serve --version >"$work/version" 2>&1
serve --help >"$work/help"
serve --list-devices >"$work/devices"
"""


def hook_script(native: bool) -> str:
    """The shell script that finishes the root file system; it asks the server about itself where it can run here."""
    run = _RUN.format(uid=UID, server=SERVER_PATH).strip() if native else "# Made for another architecture: the server cannot run here."
    return _HOOK.format(uid=UID, run=run + "\n").lstrip()


def recipe(
    variant: str,
    suite: str,
    mirror: str,
    architecture: str,
    host_architecture: str = "",
    keyring: str = "",
    extra_packages: Sequence[str] = (),
    source_date_epoch: int = DEFAULT_SOURCE_DATE_EPOCH,
) -> BaseRecipe:
    """The recipe for these wishes; ``architecture`` is the name that images use (amd64, arm64)."""
    if variant not in data_base.VARIANTS:
        raise AikitError(f"variant: there is no base {variant!r}.", f"Choose one of: {', '.join(data_base.VARIANTS)}.")
    known = data_base.VARIANTS[variant]
    if architecture not in data_base.ARCHITECTURES:
        raise AikitError(f"architecture: {architecture!r} is not supported.", f"Choose one of: {', '.join(data_base.ARCHITECTURES)}.")
    if architecture not in known["architectures"]:
        raise AikitError(
            f"architecture: Debian has no packages of the {variant} variant for {architecture}.",
            f"The {variant} variant exists for: {', '.join(known['architectures'])}.",
        )
    if not _NAME.match(suite):
        raise AikitError(f"suite: {suite!r} is no name of a Debian suite.", "A suite is a word such as sid or forky.")
    check_mirror(mirror)
    if re.search(r"[\s\[\],]", keyring):
        raise AikitError(f"keyring: {keyring!r} holds a character that apt's list of sources cannot.", "Copy the keyring to a plain path.")
    for package in extra_packages:
        if not _NAME.match(package):
            raise AikitError(f"extra_packages: {package!r} is no package name.", "Give names alone, without versions.")
    extra = tuple(sorted(set(extra_packages) - set(known["packages"])))
    return BaseRecipe(
        variant=variant,
        suite=suite,
        mirror=mirror.rstrip("/"),
        architecture=architecture,
        packages=(*known["packages"], *extra),
        components=tuple(known["components"]),
        excludes=tuple(data_base.EXCLUDES),
        keyring=keyring,
        source_date_epoch=source_date_epoch,
        native=architecture == (host_architecture or architecture),
        plain=not extra and source_date_epoch == DEFAULT_SOURCE_DATE_EPOCH,
    )


def check_mirror(mirror: str) -> None:
    """Refuse what is no URL, and one with a login: it would stand in the list of processes, in messages and in the base's files."""
    shown = model_source.redact(mirror)
    if model_source.split_url(mirror).user:
        raise AikitError(
            f"mirror: {shown} has a user name or password in it.",
            "Take it out and give the login to apt on the build host: a file in /etc/apt/auth.conf.d with the line "
            "machine HOST login NAME password PASSWORD.",
        )
    if re.search(r"[\s\[\]]", mirror):
        raise AikitError(f"mirror: {shown!r} is no URL.", "Give the URL alone, without options, suite and components.")


def oci_architecture(machine: str) -> str:
    """The name that images use for what uname calls ``machine``."""
    try:
        return data_base.MACHINES[machine]
    except KeyError:
        raise AikitError(
            f"architecture: this machine is {machine!r}, which no base is made for.", f"Choose one of: {', '.join(data_base.ARCHITECTURES)}."
        ) from None


def host_architecture(machine: str) -> str:
    """The same for the machine that builds, which may be one that no base is made for."""
    return data_base.MACHINES.get(machine, "other")


def parse_mirrors(text: str) -> str:
    """The first usable mirror among the repositories that apt listed, or an empty string."""
    urls = sorted({line.strip().rstrip("/") for line in text.splitlines()})
    return next((url for url in urls if url.startswith(("https://", "http://", "file:/", "copy:/"))), "")


def parse_packages(text: str) -> tuple[Mapping[str, str], ...]:
    """Packages from lines ``NAME VERSION ARCHITECTURE``, sorted."""
    rows = sorted({tuple(line.split()) for line in text.splitlines() if line.strip()})
    return tuple({"name": row[0], "version": row[1], "architecture": row[2]} for row in rows if len(row) == 3)


def parse_simulation(text: str) -> tuple[Mapping[str, str], ...]:
    """Packages that apt said it would install, sorted."""
    return parse_packages("\n".join(" ".join(row) for row in _SIMULATED.findall(text)))


def parse_version(text: str) -> tuple[str, str]:
    """Version and build number from the output of ``llama-server --version``; empty strings where it has none.

    Builds from a checkout call the build number their version: ``version: 6401 (c252ce67)``.
    """
    found = _VERSION.search(text)
    if not found:
        return "", ""
    return found.group(1), found.group(2) or ""


def parse_help(text: str) -> tuple[frozenset[str], Mapping[str, str]]:
    """Every option that ``llama-server --help`` lists, and the option that each environment variable stands for.

    Options that are only listed to say that they are gone are left out.
    """
    options: set[str] = set()
    environment: dict[str, str] = {}
    for names, _argument, description in _entries(text):
        options.update(names)
        for variable in _ENVIRONMENT.findall(description):
            environment.setdefault(variable, _first_name(names))
    return frozenset(options), environment


def parse_arguments(text: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """``aliases`` and ``arguments`` of a :class:`Server`, from the same text."""
    aliases: dict[str, str] = {}
    arguments: dict[str, str] = {}
    for names, argument, _description in _entries(text):
        aliases.update((name, _first_name(names)) for name in names if name != _first_name(names))
        arguments.update((name, argument) for name in names)
    return aliases, arguments


def _first_name(names: Sequence[str]) -> str:
    # A negated twin stands after its positive form; values of the variable mean the positive one.
    return next((name for name in names if name.startswith("--")), names[0])


def _entries(text: str) -> Iterable[tuple[list[str], str, str]]:
    """Option names, what their value is called (empty without one) and the text that follows, for each option that is not gone."""
    names: list[str] = []
    rest: list[str] = []
    argument = ""
    for line in [*text.splitlines(), "-"]:
        if line.startswith("-") and not line.startswith("-----"):
            if names and "argument has been removed" not in " ".join(rest):
                yield names, argument, " ".join(rest)
            names, tail = _option_names(line)
            # One blank before the value, several before the description
            found = re.match(r" (\S.*?)(?:\s{2,}|$)", tail)
            argument = found.group(1) if found else ""
            rest = [tail]
        else:
            rest.append(line.strip())


def _option_names(line: str) -> tuple[list[str], str]:
    """``-c,  --ctx-size N   size of …`` → the two names, and what stands behind them."""
    names: list[str] = []
    position = 0
    while True:
        found = _OPTION.match(line, position)
        if not found:
            return names, line[position:]
        names.append(found.group())
        position = found.end()
        separator = re.match(r",\s*(?=-)", line[position:])
        if not separator:
            return names, line[position:]
        position += separator.end()


def backends_from_names(names: Iterable[str]) -> tuple[str, ...]:
    """Backends among the files of ggml's plug-in folder, sorted; one CPU backend per micro-architecture counts once."""
    found = (_BACKEND.match(name.rsplit("/", 1)[-1]) for name in names)
    return tuple(sorted({match.group(1) for match in found if match} - {"base"}))


def server_from_table(version: str) -> Server:
    """What our table knows about a version that could not be asked. Without an entry the options are empty."""
    known = data_llama_server.VERSIONS.get(version)
    if known is None:
        return Server(SERVER_PATH, version)
    return Server(SERVER_PATH, version, known["build"], frozenset(known["options"]), known["environment"], known["aliases"], known["arguments"])


def describe(recipe_: BaseRecipe, captured: Mapping[str, str], sha256: str, size_bytes: int) -> Base:
    """The description of a base that was just built; ``captured`` is what the hook wrote, by file name."""
    packages = parse_packages(captured.get("packages", ""))
    backends = backends_from_names(captured.get("backends", "").split())
    if recipe_.native:
        version, build = parse_version(captured.get("version", ""))
        options, environment = parse_help(captured.get("help", ""))
        server = Server(SERVER_PATH, version, build, options, environment, *parse_arguments(captured.get("help", "")))
        if not version or not options:
            raise AikitError(
                f"{SERVER_PATH} in the new base does not describe itself: {captured.get('version', '').strip() or 'it printed nothing'}",
                "Take another suite, or report this with the version of llama.cpp-tools in it.",
            )
    else:
        server = server_from_table(_package_version(packages, "llama.cpp-tools"))
    if recipe_.variant not in backends:
        raise AikitError(
            f"The new base has no {recipe_.variant} backend; it has: {', '.join(backends) or 'none'}.",
            f"Suite {recipe_.suite} packages it differently: take another suite.",
        )
    return Base(recipe_.variant, recipe_.suite, recipe_.architecture, sha256, size_bytes, packages, server, backends, recipe_.key)


def _package_version(packages: Iterable[Mapping[str, str]], name: str) -> str:
    """The upstream part of a package's version: 1:0.7.0+dfsg-2 → 0.7.0."""
    version = next((package["version"] for package in packages if package["name"] == name), "")
    return re.split(r"[+~-]", version.split(":", 1)[-1], maxsplit=1)[0]


def parse_base(mapping: Any, name: str) -> Base:
    """Read a description; ``name`` is where it stands."""
    hint = "Build the base again with llama_cpp_base_refresh: true."
    if not isinstance(mapping, Mapping):
        raise AikitError(f"{name}: a mapping was expected.", hint)
    if mapping.get("schema") != SCHEMA:
        raise AikitError(f"{name}: schema {mapping.get('schema')!r} was expected to be {SCHEMA}.", hint)

    def take(source: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
        value = source.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise AikitError(f"{name}: {where}{key}: a {_KINDS[kind]} was expected, found {value!r}.", hint)
        return value

    server = take(mapping, "server", dict)
    packages = take(mapping, "packages", list)
    for index, package in enumerate(packages):
        if not isinstance(package, dict):
            raise AikitError(f"{name}: packages[{index}]: a mapping was expected, found {package!r}.", hint)
        for key in ("name", "version", "architecture"):
            take(package, key, str, f"packages[{index}].")
    # Bases that were made before these were recorded
    known = server_from_table(str(server.get("version")))
    server = {"aliases": dict(known.aliases), "arguments": dict(known.arguments), **server}
    sha256 = take(mapping, "sha256", str)
    if not re.match(r"[0-9a-f]{64}\Z", sha256):
        raise AikitError(f"{name}: sha256: {sha256!r} is no SHA-256 in hex.", hint)
    return Base(
        variant=take(mapping, "variant", str),
        suite=take(mapping, "suite", str),
        architecture=take(mapping, "architecture", str),
        sha256=sha256,
        size_bytes=take(mapping, "size_bytes", int),
        packages=tuple(packages),
        server=Server(
            path=take(server, "path", str, "server."),
            version=take(server, "version", str, "server."),
            build=take(server, "build", str, "server."),
            options=frozenset(take(server, "options", list, "server.")),
            environment=take(server, "environment", dict, "server."),
            aliases=take(server, "aliases", dict, "server."),
            arguments=take(server, "arguments", dict, "server."),
        ),
        backends=tuple(take(mapping, "backends", list)),
        key=take(mapping, "key", str),
    )


_KINDS = {str: "string", int: "number", list: "list", dict: "mapping"}


def plan(
    recipe_: BaseRecipe, path: str, present: Optional[Base], reason: str, available: Optional[Sequence[Mapping[str, str]]] = None
) -> Plan:
    """Build the base unless it is there.

    ``present`` is the base that stands at ``path``; without one, ``reason`` says why. ``available`` are the packages that the
    archive has today, when the user asked to compare.
    """
    after: dict[str, Any] = {"path": path, "key": recipe_.key, "packages": _versions(available) if available is not None else "as the archive has them"}
    if present is None:
        return Plan((Action("build", path, reason),), {}, after)
    before = {"path": path, "key": present.key, "packages": _versions(present.packages)}
    if present.key != recipe_.key:
        return Plan((Action("build", path, "the recipe has changed"),), before, after)
    if available is None or before["packages"] == after["packages"]:
        return Plan((), before, before)
    return Plan((Action("build", path, package_changes(present.packages, available)),), before, after)


def _versions(packages: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {package["name"]: package["version"] for package in packages}


def package_changes(before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]]) -> str:
    """What differs, for people: ``libc6 2.43-7 → 2.43-8, 12 more``."""
    old, new = _versions(before), _versions(after)
    changes = []
    # The server first: it is what people look for
    for name in sorted({*old, *new}, key=lambda name: (not name.startswith(("llama", "libllama", "libggml")), name)):
        if old.get(name) != new.get(name):
            changes.append(f"{name} {old.get(name, 'new')} → {new.get(name, 'gone')}")
    more = [f"{len(changes) - 5} more"] if len(changes) > 5 else []
    return ", ".join(changes[:5] + more)


def failure(recipe_: BaseRecipe, output: str) -> AikitError:
    """The error for a build that failed, from what mmdebstrap printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "W: Failed", "Err:")) or "error" in line.lower()] or lines[-3:]
    quoted = list(dict.fromkeys(line for line in told if not _EMPTY_WORDS.match(line))) or told
    quoted = [_URL_LOGIN.sub(r"\1***@", line) for line in quoted]
    text = "\n".join(told)
    missing = re.search(r"Unable to locate package (\S+)", text)
    for pattern, hint in _FAILURES:
        if re.search(pattern, text):
            break
    else:
        hint = "Run the task again with -vvv to see all that mmdebstrap printed."
    return AikitError(
        f"The base {recipe_.suite}-{recipe_.variant}-{recipe_.architecture} cannot be built: {' / '.join(quoted[-4:]).rstrip('.')}.",
        hint.format(
            suite=recipe_.suite, mirror=recipe_.mirror, keyring=recipe_.keyring, package=missing.group(1) if missing else ""
        ),
    )


_URL_LOGIN = re.compile(r"(://)[^/\s@]+@")

# Lines of mmdebstrap and apt that only say that something failed, or say it again.
_EMPTY_WORDS = re.compile(r"E: (mmdebstrap failed|.* failed: E: |apt-get .* failed|Couldn't find any)")

_FAILURES = (
    (r"No space left on device", "Free some space, or choose a folder on a larger file system with llama_cpp_base_cache_dir."),
    (
        r"NO_PUBKEY|not signed|couldn't be verified|keyring|Signed-By",
        "The suite must be signed by a key in {keyring}: install a newer debian-archive-keyring,"
        " or set llama_cpp_base_keyring for a mirror with keys of its own.",
    ),
    (r"Unable to locate package", "Suite {suite} has no package {package}: llama.cpp is in Debian's suites forky and sid (llama_cpp_base_suite)."),
    (
        r"does not have a Release file|404 +Not Found .*Release|no longer has a Release",
        "{mirror} has no suite {suite}: set llama_cpp_base_suite to one that it has, for example sid.",
    ),
    (
        r"Temporary failure resolving|Could not resolve|Could not connect|Connection (refused|timed out)|Network is unreachable|Cannot initiate the connection"
        r"|Unable to connect|Failed to fetch|Some index files failed",
        "{mirror} cannot be reached, or not all of it: check the network and the proxy, or set llama_cpp_base_mirror to a mirror"
        " that answers here. Then run again.",
    ),
    (
        r"unmet dependencies|held broken packages|is not going to be installed",
        "The packages of suite {suite} do not fit together today, as happens in a suite that moves:"
        " wait a day, or take another suite or mirror.",
    ),
)
