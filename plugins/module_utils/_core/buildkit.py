# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A build with AIKit's frontend: what is refused before it, its command line, its fingerprint, and what its output says.

Pure: commands are lists that ``_io.buildkit`` runs. A secret never stands in one of them: its value travels in the environment
of the command, or as a file that the user has.
"""

from __future__ import annotations

import copy
import hashlib
import json
import posixpath
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import aikitfile as aikitfiles
from . import data_aikit, data_buildkit, hub, localai, model_source, reference, version
from .aikitfile import Aikitfile
from .data_aikit import Version
from .errors import AikitError, Finding
from .plan import Action, Plan

FILE_NAME = "aikitfile.yaml"
FINGERPRINT = "io.aikit.fleet.fingerprint"
AIKITFILE_SHA256 = "io.aikit.fleet.aikitfile.sha256"
SCHEMA = 1
# Of the log of a step that failed
LOG_LINES = 20
# BuildKit refuses more
SECRET_MAX_BYTES = 500 * 1024
HIDDEN = "********"

_SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(token|secret|passw(or)?d|passphrase|credentials?|api_?key|private_?key|auth)([_.-]|$)|(token|secret|password|apikey)$"
)
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|glpat-[\w-]{20,})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_SECRET_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SYNTAX = re.compile(r"#[ \t]*syntax[ \t]*=[ \t]*(\S+)", re.I)
_DIRECTIVE = re.compile(r"#[ \t]*[A-Za-z][A-Za-z0-9]*[ \t]*=")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What a shell leaves alone, outside of quotes
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9_@%+=:,./-]")


# --- what is refused, and what is remarked


def build_arguments(option: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Option ``build_args`` as text: YAML's true, numbers and empty values as one would type them."""
    found = {}
    for name, value in (option or {}).items():
        if isinstance(value, (dict, list, tuple)):
            raise AikitError(f"build_args.{name}: must be text, found {localai.describe(value)}.", "A build argument is one line of text.")
        found[str(name)] = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return found


def effective(source: Mapping[str, Any], build_args: Mapping[str, str]) -> dict[str, Any]:
    """The parsed aikitfile as AIKit's frontend sees it: build argument ``runtime`` replaces the runtime, ``model`` the models and the config."""
    document = source.get("document")
    model, runtime = build_args.get("model", ""), build_args.get("runtime", "")
    if not isinstance(document, dict) or not (model or runtime):
        return dict(source)
    changed = dict(source)
    changed["document"] = document = copy.deepcopy(document)
    gone = []
    if runtime:
        document["runtime"] = runtime
        gone.append("runtime")
    if model:
        document["models"] = [{"name": posixpath.basename(model.rstrip("/")) or model, "source": model}]
        document.pop("config", None)
        gone += ["models", "config"]
        changed.update(config_document=None, config_lines={})
    # What stands in the file on those lines is not what is judged
    for key in ("lines", "text_lines"):
        changed[key] = {path: line for path, line in (source.get(key) or {}).items() if not path.startswith(tuple(gone))}
    return changed


def refused(aikitfile: Aikitfile, source: Mapping[str, Any], release: Version) -> tuple[Finding, ...]:
    """What AIKit's frontend of ``release`` would change or run as a command, and what it cannot copy: errors with line and column."""
    findings: list[Finding] = []

    def error(path: str, line: int, message: str, hint: str) -> None:
        findings.append(Finding("error", path, line, message, hint))

    described = data_aikit.describe(release)
    if not _verbatim(release):
        hint = "do without double quotes, $, backticks and backslashes (single quotes are safe), or build with builder direct, which passes it verbatim"
        texts = [("config", aikitfile.config)]
        for number, model in enumerate(aikitfile.models):
            for index, item in enumerate(model.prompt_templates):
                path = f"models[{number}].promptTemplates[{index}]"
                texts.append((f"{path}.template", item.template))
                if item.template and item.name and not _PLAIN.match(item.name):
                    found = _UNSAFE.search(item.name)
                    shown = found.group() if found else item.name
                    message = f"{shown!r} in the name of a template: AIKit {described} hands the name to a shell"
                    error(f"{path}.name", aikitfile.line(f"{path}.name"), message, "name it with letters, digits and any of _ - . /")
        for path, text in texts:
            for found in aikitfiles.shell_hazards(text):
                where, line = aikitfiles.position(source, path, text, found.start())
                what = repr(found.group())[1:-1].replace("\\\\", "\\")
                error(path, line, f"{what} at {where}: AIKit {described} passes this text through a shell, which changes it or runs it", hint)
    for number, model in enumerate(aikitfile.models):
        path = f"models[{number}].source"
        scheme, colon, _rest = model.source.partition("://")
        if colon and scheme == "oci" and not _PLAIN.match(model.source):
            found = _UNSAFE.search(model.source)
            column = f" (character {found.start() + 1} of the source)" if found else ""
            message = f"{(found.group() if found else '')!r}{column}: AIKit {described} hands oci:// sources to a shell, which would run it"
            error(path, aikitfile.line(path), message, "write the reference without it")
        elif not colon and any(character in model.source for character in "*?["):
            message = f"AIKit's frontend copies files and folders by their names, and {model.source} is a pattern"
            error(path, aikitfile.line(path), message, "list every file under models; builder direct takes patterns")
    return tuple(findings)


def source_findings(aikitfile: Aikitfile, require_sha256: bool, hub_url: str) -> tuple[Finding, ...]:
    """What holds for models that AIKit's frontend downloads: it asks nobody what they should be, and knows one hub alone."""
    findings = []
    for number, model in enumerate(aikitfile.models):
        path = f"models[{number}].source"
        scheme = model.source.partition("://")[0].lower()
        if scheme in (model_source.HTTPS, model_source.HTTP) and require_sha256 and not model.sha256:
            message = f"no sha256 is given for {model_source.parse(model.source).shown}, and AIKit's frontend takes whatever comes"
            hint = "give its sha256 (`sha256sum FILE` prints it), or set require_sha256 to false to trust what comes"
            findings.append(Finding("error", path, aikitfile.line(path), message, hint))
        elif scheme == model_source.HUGGINGFACE and hub_url.rstrip("/") != hub.DEFAULT_URL:
            message = f"AIKit's frontend downloads this from {hub.DEFAULT_URL}, whatever hub_url says"
            findings.append(Finding("warning", path, aikitfile.line(path), message, "put the file into context, or build with builder direct"))
    return tuple(findings)


def _verbatim(release: Version) -> bool:
    """Whether the frontend of a release writes texts as they are. What is newer than all that is known counts as the main branch."""
    return data_aikit.FEATURES["verbatim text"].holds(data_aikit.MAIN if release > data_aikit.NEWEST_RELEASE else release)


def written_config(aikitfile: Aikitfile, release: Version) -> str:
    """The ``/config.yaml`` that AIKit's frontend of a release writes, of a text that :func:`refused` lets pass; empty where it writes none."""
    return aikitfile.config if _verbatim(release) else aikitfile.config.replace('\\"', '"')


def build_arg_findings(build_args: Mapping[str, str], frontend: str, hidden: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Remarks on build arguments; :class:`AikitError` for what must not be one. ``hidden`` is what :func:`masks` makes of the secrets."""
    findings = []
    for name, value in build_args.items():
        path = f"build_args.{name}"
        if not _NAME.match(name):
            raise AikitError(f"build_args: {name!r} is no name of a build argument.", "Use letters, digits, and any of _ . - after a letter.")
        if name == "BUILDKIT_SYNTAX":
            raise AikitError("build_args: BUILDKIT_SYNTAX names the frontend.", "Write it into frontend: it is resolved to a digest then.")
        if name in data_buildkit.FINE_TUNE_BUILD_ARGS:
            raise AikitError(
                f"build_args: {name} is for fine-tuning, which this module does not build.", "Run AIKit itself for that (docker buildx build --target unsloth)."
            )
        if "\0" in value or "\n" in value:
            raise AikitError(f"build_args: the value of {name} has more than one line.", "A build argument is one line.")
        if is_secret(name, value, hidden):
            message = "looks like a secret: BuildKit keeps build arguments in its cache and its records, and a frontend may write them into the image"
            findings.append(Finding("warning", path, 0, message, "give it with secrets, where the frontend reads one"))
        known = (*data_buildkit.AIKIT_BUILD_ARGS, *data_buildkit.BUILDKIT_BUILD_ARGS)
        if is_aikit(frontend) and name not in known and name.upper() not in data_buildkit.PROXY_BUILD_ARGS:
            near = [word for word in known if word.lower() == name.lower().replace("-", "").replace("_", "")]
            hint = f"write {near[0]}" if near else f"it reads {' and '.join(data_buildkit.AIKIT_BUILD_ARGS)}"
            findings.append(Finding("warning", path, 0, "AIKit's frontend reads no build argument of that name", hint))
    return tuple(findings)


def is_secret(name: str, value: str, hidden: Sequence[str] = ()) -> bool:
    """Whether a build argument looks like a secret, by its name or by its value, or holds something that is ``hidden``."""
    if any(secret in value for secret in hidden):
        return True
    return bool(value) and bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value) or ("://" in value and model_source.secrets(value)))


def check_options(options: Mapping[str, Any]) -> None:
    """Options that mean something to the direct builder alone."""
    for name, why in data_buildkit.DIRECT_OPTIONS.items():
        if options.get(name):
            raise AikitError(f"{name}: builder buildkit cannot use this: {why}.", "Leave it out, or write builder: direct where that can make the image.")


# --- secrets


@dataclass(frozen=True)
class Secret:
    """A secret of a build: exactly one of ``environment`` (a variable on the build host), ``file`` and ``value``."""

    id: str
    environment: str = ""
    file: str = ""
    value: str = ""


def parse_secrets(wanted: Mapping[str, Any]) -> tuple[Secret, ...]:
    """Option ``secrets``: id → {env | file | value}. Messages name keys, never values."""
    found = []
    for name in sorted(wanted):
        entry = wanted[name]
        path = f"secrets.{name}"
        if not _SECRET_ID.match(name):
            raise AikitError(f"secrets: {name!r} is no id of a secret.", "Use letters, digits and any of _ . -, for example hf-token.")
        if not isinstance(entry, Mapping):
            raise AikitError(f"{path}: must be a mapping with one of env, file and value.", "Write, for example, hf-token: {env: HF_TOKEN}.")
        unknown = sorted(set(entry) - {"env", "file", "value"})
        given = [key for key in ("env", "file", "value") if entry.get(key) not in (None, "")]
        if unknown:
            raise AikitError(f"{path}: unknown key {unknown[0]}.", "It takes one of env, file and value.")
        if len(given) != 1:
            what = f"{' and '.join(given)} are both given" if given else "nothing is given, or it is empty"
            raise AikitError(f"{path}: {what}.", "Give exactly one of env (a variable on the build host), file (a path there) and value.")
        text = entry[given[0]]
        if not isinstance(text, str):
            raise AikitError(f"{path}.{given[0]}: must be text.", "Put it into quotes.")
        if given[0] == "env" and not _ENVIRONMENT_NAME.match(text):
            raise AikitError(f"{path}.env: this is no name of an environment variable.", "Write the variable's name here, and a secret itself with value.")
        found.append(Secret(name, **{"environment" if given[0] == "env" else given[0]: text}))
    return tuple(found)


def secret_arguments(secrets: Sequence[Secret]) -> tuple[list[str], dict[str, str]]:
    """Arguments of buildx, and the environment that they refer to."""
    words: list[str] = []
    environment: dict[str, str] = {}
    for number, secret in enumerate(secrets, 1):
        if secret.file:
            words += ["--secret", csv([f"id={secret.id}", f"src={secret.file}"])]
            continue
        name = secret.environment
        if not name:
            name = f"AIKIT_FLEET_SECRET_{number}"
            environment[name] = secret.value
        words += ["--secret", csv([f"id={secret.id}", f"env={name}"])]
    return words, environment


def masks(values: Iterable[str]) -> tuple[str, ...]:
    """What must not be shown: each value, and each line of one that has several; longest first."""
    found = set()
    for value in values:
        lines = [value, value.strip(), *(value.splitlines() if "\n" in value.strip() else ())]
        found |= {line for line in lines if len(line.strip()) > 3}
        found |= {json.dumps(line)[1:-1] for line in lines if len(line.strip()) > 3}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def mask(text: str, hidden: Sequence[str]) -> str:
    for value in hidden:
        text = text.replace(value, HIDDEN)
    return text


# --- the frontend


def syntax_line(text: str) -> str:
    """The reference in the file's ``#syntax=`` line, which must stand before everything else; empty where there is none."""
    for line in text.lstrip("\ufeff").splitlines():
        found = _SYNTAX.match(line.strip())
        if found:
            return found.group(1)
        if not _DIRECTIVE.match(line.strip()):
            return ""
    return ""


def default_frontend(release: Version) -> str:
    """AIKit's frontend of a release."""
    repository = next(name for first, name in reversed(data_buildkit.FRONTENDS) if release >= first)
    tag = data_buildkit.MAIN_TAG if release >= data_aikit.MAIN else data_aikit.describe(release)
    return f"{repository}:{tag}"


def frontend(option: Optional[str], text: str, release: Version) -> tuple[str, str]:
    """The frontend's reference with a tag or a digest, and where it comes from: the option, the file, or the release."""
    syntax = syntax_line(text)
    found, origin = (option, "frontend") if option else (syntax, "the #syntax line") if syntax else (default_frontend(release), "aikit_version")
    full = reference.complete(found or "", digest_allowed=True)
    if not full:
        raise AikitError(f"{origin}: {found!r} is no image reference.", reference.HINT)
    return full, origin


def is_aikit(name: str) -> bool:
    """Whether a reference is AIKit's own frontend, on whatever registry."""
    return reference.split_tag(name.partition("@")[0])[0].endswith(data_buildkit.FRONTEND_NAMES)


def release_findings(name: str, origin: str, release: Version) -> tuple[Finding, ...]:
    """A frontend of another release than the one that the aikitfile was checked for."""
    tag = reference.split_tag(name.partition("@")[0])[1]
    told = data_aikit.MAIN if tag == data_buildkit.MAIN_TAG else data_aikit.parse_version(tag)
    if not is_aikit(name) or told is None or told == release:
        return ()
    described = data_aikit.describe(release)
    message = f"{name} (from {origin}) is AIKit {data_aikit.describe(told)}, and the aikitfile was checked for {described}"
    return (Finding("warning", "frontend", 0, message, f"set aikit_version to {data_aikit.describe(told).lstrip('v')}"),)


def pinned(name: str, digest: str) -> str:
    """``registry/a:1`` and a digest → ``registry/a:1@sha256:…``: the tag is for people, the digest decides."""
    if "@" in name:
        return name
    if not _DIGEST.fullmatch(digest):
        raise AikitError(f"{name}: the registry gave {digest!r} as its digest, which is none.", "Name the frontend by digest: NAME@sha256:…")
    return f"{name}@{digest}"


# --- versions and the instance


@dataclass(frozen=True)
class Versions:
    """What the build host has. ``containerd_store`` is Docker's image store."""

    docker: str
    buildx: str
    buildkit: str = ""
    containerd_store: bool = False


def parse_buildx(text: str) -> str:
    """The version out of ``docker buildx version``: ``github.com/docker/buildx v0.13.1 788433953``."""
    words = text.split()
    return version.upstream(words[1]) if len(words) > 1 and "buildx" in words[0] else ""


def parse_inspect(text: str) -> dict[str, str]:
    """What ``docker buildx inspect`` says: driver, status, buildkit, options."""
    found: dict[str, str] = {}
    keys = {"driver": "driver", "status": "status", "buildkit version": "buildkit", "buildkit": "buildkit", "driver options": "options", "error": "error"}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        word = keys.get(key.strip().lower())
        if colon and word and value.strip():
            found.setdefault(word, value.strip())
    return found


def docker_buildkit(told: str, docker: str) -> str:
    """The version of the BuildKit inside Docker: as told, else the one that this Docker was made with."""
    if any(version.numbers(told)):
        return version.upstream(told)
    return next((found for first, found in reversed(data_buildkit.DOCKER_BUILDKIT) if version.at_least(docker, first)), "")


def check_versions(found: Versions, features: Sequence[str] = ()) -> None:
    """:class:`AikitError` when a program is too old: what is there, what is needed and for what, what to do."""
    have = {"Docker": found.docker, "buildx": found.buildx, "BuildKit": found.buildkit}
    floors = [*data_buildkit.FLOORS, *(floor for name in features for floor in data_buildkit.FEATURES[name])]
    for floor in floors:
        mine = have[floor.program]
        if mine and version.at_least(mine, floor.version) is False:
            raise AikitError(f"builder: buildkit needs {floor.program} {floor.version} or newer {floor.what}; this host has {mine}.", floor.hint)


@dataclass(frozen=True)
class Instance:
    """The buildx instance that builds. ``create`` is its command line when it has to be made first; ``reason`` says why it is this one."""

    name: str
    driver: str
    reason: str
    create: tuple[str, ...] = ()


def choose_instance(
    asked: Optional[str], image: Optional[str], config: Optional[str], found: Versions, exists: Mapping[str, Mapping[str, str]]
) -> Instance:
    """Docker's own BuildKit where it can do it, else an instance of ours. ``exists`` has what ``inspect`` said of those that are there."""
    if asked:
        if asked not in exists:
            raise AikitError(
                f"buildx_builder: there is no instance {asked} on this host.", "docker buildx ls lists them; without the option one is made where needed."
            )
        if image or config:
            raise AikitError(
                "buildx_builder: an instance that is there has its image and its configuration already.", "Leave buildkit_image and buildkitd_config out."
            )
        return Instance(asked, exists[asked].get("driver", ""), "buildx_builder was given")
    if found.containerd_store and not image and not config:
        return Instance("default", "docker", "Docker's own BuildKit, with the containerd image store")
    if image or config:
        reason = f"{'buildkit_image' if image else 'buildkitd_config'} was given"
    else:
        reason = "Docker's graph driver cannot merge file systems, which AIKit's frontend does"
    name = data_buildkit.INSTANCE
    if name in exists:
        options = exists[name].get("options", "")
        told = re.search(r'image="?([^" ,]+)', options)
        if image and (told.group(1) if told else "") != image:
            raise AikitError(
                f"buildkit_image: instance {name} is there with {told.group(1) if told else 'the default image'}, not with {image}.",
                f"Remove it (docker buildx rm {name}; its cache goes too), or leave buildkit_image out.",
            )
        return Instance(name, exists[name].get("driver", "docker-container"), reason)
    create = ["docker", "buildx", "create", "--name", name, "--driver", "docker-container"]
    if image:
        create += ["--driver-opt", csv([f"image={image}"])]
    if config:
        create += ["--config", config]
    return Instance(name, "docker-container", reason, tuple(create))


def parse_docker(text: str) -> tuple[str, str]:
    """Version and platform out of ``26.1.5+dfsg1 linux/amd64``."""
    words = text.split()
    return (version.upstream(words[0]), words[1] if len(words) > 1 else "") if words else ("", "")


def platforms(asked: Sequence[str], runtime: str, host: str) -> list[str]:
    """The platforms of an image, never left to whoever builds: as asked for, else arm64 for Apple Silicon, else that of the build host."""
    if asked:
        return list(dict.fromkeys(asked))
    if runtime == "applesilicon":
        return ["linux/arm64"]
    return [host] if host else []


# --- targets and the command


@dataclass(frozen=True)
class Target:
    """One place that the image goes to. ``kind`` is push, docker, podman, archive or oci_layout; ``path`` of the last two."""

    kind: str
    path: str = ""

    @property
    def key(self) -> str:
        """How the target is called in the state file."""
        return f"{self.kind}:{self.path}" if self.path else self.kind

    def action(self, name: str) -> Action:
        if self.kind == "push":
            return Action("push", name)
        if self.kind in ("docker", "podman"):
            return Action("load", name, self.kind)
        return Action("write", self.path)


def targets(push: bool, load: Sequence[str], archive: Optional[str], oci_layout: Optional[str]) -> tuple[Target, ...]:
    found = [Target("push")] if push else []
    found += [Target(engine) for engine in dict.fromkeys(load)]
    found += [Target("archive", archive)] if archive else []
    found += [Target("oci_layout", oci_layout)] if oci_layout else []
    return tuple(found)


def described_target(wanted: Sequence[Target]) -> Target:
    """The one of several places whose image is described: hosts pull what the registry has, and files tell more than engines."""
    return min(wanted, key=lambda target: ("push", "oci_layout", "archive", "docker", "podman").index(target.kind))


def check_targets(wanted: Sequence[Target], platforms: Sequence[str], containerd_store: bool) -> None:
    """What cannot hold an image for several platforms."""
    if not wanted:
        raise AikitError(
            "builder: buildkit has nowhere to put the image.",
            "Give at least one of push, load, archive and oci_layout: without one, a build leaves nothing but a cache.",
        )
    if len(platforms) < 2:
        return
    for target in wanted:
        if target.kind == "podman" or (target.kind == "docker" and not containerd_store):
            what = "Podman" if target.kind == "podman" else "Docker's graph driver"
            raise AikitError(
                f"load: {what} takes an image of one platform, and platforms has {len(platforms)}.", "Push it, or write an oci_layout or an archive."
            )


def marks(fingerprint: str, aikitfile_sha256: str, platforms: Sequence[str]) -> list[str]:
    """Exporter attributes that put the fingerprint on manifests, and on the index where there is one.

    Not a label: those are set by a frontend, and AIKit's sets none that it is given.
    """
    values = {FINGERPRINT: fingerprint, AIKITFILE_SHA256: aikitfile_sha256}
    prefixes = ["annotation", "annotation-index"] if len(platforms) > 1 else ["annotation"]
    return [f"{prefix}.{key}={value}" for prefix in prefixes for key, value in values.items()]


def outputs(
    wanted: Sequence[Target], name: str, driver: str, compression: str, extra: Sequence[str], platforms: Sequence[str], paths: Mapping[str, str]
) -> list[str]:
    """The ``--output`` values. ``paths`` says where what becomes a file is written (by the target's key)."""
    shape = ["oci-mediatypes=true", f"compression={compression}", "force-compression=true", *extra]
    kinds = [target.kind for target in wanted]
    found = []
    for target in wanted:
        if target.kind == "push":
            found.append(csv(["type=image", f"name={name}", "push=true", *shape]))
        elif target.kind == "docker" and driver == "docker":
            # What Docker's own BuildKit pushes it has as an image already
            if "push" not in kinds:
                found.append(csv(["type=image", f"name={name}", *shape]))
        elif target.kind == "podman" and "archive" in kinds:
            # Podman reads that archive
            continue
        elif target.kind == "docker":
            found.append(csv(["type=docker", f"name={name}", *shape]))
        elif target.kind == "oci_layout":
            found.append(csv(["type=oci", f"name={name}", f"dest={paths[target.key]}", "tar=false", *shape]))
        else:
            kind = "oci" if len(platforms) > 1 else "docker"
            found.append(csv([f"type={kind}", f"name={name}", f"dest={paths[target.key]}", *shape]))
    return found


def csv(fields: Sequence[str]) -> str:
    """One line of comma-separated values, as buildx reads them."""
    return ",".join('"' + text.replace('"', '""') + '"' if any(character in text for character in ',"\n') else text for text in fields)


@dataclass(frozen=True)
class Build:
    """Everything that a command line is made of. ``hidden`` is what must not stand in it, as :func:`masks` makes it."""

    instance: str
    frontend: str
    file: str
    context: str
    metadata: str
    outputs: Sequence[str]
    platforms: Sequence[str] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[Secret] = ()
    cache_from: Sequence[str] = ()
    cache_to: Sequence[str] = ()
    hidden: Sequence[str] = ()


def command(build: Build) -> tuple[list[str], dict[str, str]]:
    """The command line, and the environment that its secrets are in. What looks like a secret travels in the environment also as a build argument."""
    words = ["docker", "buildx", "build", "--builder", build.instance, "--progress", "plain", "--provenance=false"]
    words += ["--build-arg", f"BUILDKIT_SYNTAX={build.frontend}"]
    environment: dict[str, str] = {}
    for name, value in sorted(build.build_args.items()):
        if is_secret(name, value, build.hidden):
            # Also with a name that no shell would take: buildx asks for it by its name
            environment[name] = value
            words += ["--build-arg", name]
        else:
            words += ["--build-arg", f"{name}={value}"]
    secret_words, secret_environment = secret_arguments(build.secrets)
    words += secret_words
    if build.platforms:
        words += ["--platform", ",".join(build.platforms)]
    for option, values in (("--cache-from", build.cache_from), ("--cache-to", build.cache_to), ("--output", build.outputs)):
        for value in values:
            words += [option, value]
    words += ["--metadata-file", build.metadata, "--file", build.file, build.context]
    return words, {**environment, **secret_environment}


# --- fingerprint, state, plan


def inputs(
    aikitfile_sha256: str,
    frontend_reference: str,
    build_args: Mapping[str, str],
    platforms: Sequence[str],
    context: Mapping[str, str],
    compression: str,
    secrets: Sequence[Secret],
    hidden: Sequence[str] = (),
) -> dict[str, Any]:
    """What an image is made of, without secrets: of one that is a build argument only a short digest, of the others their ids."""

    def shown(name: str, value: str) -> str:
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}" if is_secret(name, value, hidden) else value

    return {
        "aikitfile": aikitfile_sha256,
        "build_args": {name: shown(name, value) for name, value in build_args.items()},
        "compression": compression,
        "context": dict(context),
        "frontend": frontend_reference,
        "platforms": sorted(platforms),
        "secrets": [secret.id for secret in secrets],
    }


def fingerprint(found: Mapping[str, Any]) -> str:
    """The sha256 of the inputs, in one fixed form. The frontend counts by its digest, not by what its tag is called."""
    counted = {**found, "frontend": str(found["frontend"]).rpartition("@")[2], "schema": SCHEMA}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Observed:
    """What was found of one target. ``digest`` identifies what is there now (empty: nothing), ``annotation`` is the fingerprint that it carries."""

    digest: str = ""
    annotation: str = ""


def current(target: Target, wanted: str, state: Mapping[str, Any], observed: Observed) -> bool:
    """Whether a target has the image of this fingerprint: what was recorded still stands there, or it says so itself.

    A tag alone says nothing: somebody may have pushed something else under it.
    """
    if not observed.digest:
        return False
    if observed.annotation:
        return observed.annotation == wanted
    recorded = (state.get("targets") or {}).get(target.key) or {}
    return recorded.get("fingerprint") == wanted and recorded.get("digest") == observed.digest


def plan(
    name: str, wanted: Sequence[Target], found: Mapping[str, Any], state: Mapping[str, Any], observed: Mapping[str, Observed], instance: Instance
) -> tuple[Plan, tuple[Target, ...]]:
    """The actions, and the targets that the build is for."""
    mark = fingerprint(found)
    lacking = tuple(target for target in wanted if not current(target, mark, state, observed.get(target.key, Observed())))
    if not lacking:
        return Plan(), ()
    actions = [Action("create", f"buildx instance {instance.name}", instance.driver)] if instance.create else []
    actions.append(Action("build", name, "BuildKit"))
    actions += [target.action(name) for target in lacking]
    before, after = changed_inputs(state.get("inputs") or {}, found)
    before["targets"] = {target.key: observed.get(target.key, Observed()).digest or "absent" for target in lacking}
    after["targets"] = {target.key: f"fingerprint {mark}" for target in lacking}
    return Plan(tuple(actions), before, after), lacking


def built_digests(state: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """The digest of the image that each target got, of those that were built from the same."""
    mark = fingerprint(found)
    targets = state.get("targets") or {}
    return {key: str(entry.get("built") or "") for key, entry in targets.items() if entry.get("fingerprint") == mark}


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs that differ, as they were and as they are."""
    keys = [key for key in sorted(set(old) | set(new)) if old.get(key) != new.get(key)]
    return {key: old[key] for key in keys if key in old}, {key: new[key] for key in keys if key in new}


def new_state(state: Mapping[str, Any], name: str, found: Mapping[str, Any], done: Mapping[str, str], built: str) -> dict[str, Any]:
    """The state after a build: ``done`` has the digest of each target that it was for, ``built`` is that of the image, which engines do not tell."""
    mark = fingerprint(found)
    entries = {key: {"built": built, "digest": digest, "fingerprint": mark} for key, digest in done.items()}
    return {"schema": SCHEMA, "name": name, "inputs": dict(found), "targets": {**(state.get("targets") or {}), **entries}}


# --- what a build says


class Progress:
    """Reads ``--progress plain`` line by line: which step is under way, and the end of every step's log.

    ``#7 [1/2] RUN …`` names a step, ``#7 0.431 text`` is its log, ``#7 DONE 0.5s``, ``#7 CACHED`` and ``#7 ERROR: …`` end it.
    """

    _LINE = re.compile(r"#(\d+) (.*)")
    _LOG = re.compile(r"\d+\.\d+ ?(.*)")

    def __init__(self, log_lines: int = LOG_LINES) -> None:
        self.names: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.done: set[str] = set()
        self.logs: dict[str, "deque[str]"] = {}
        self.tail: "deque[str]" = deque(maxlen=log_lines)
        self.message = ""
        self._log_lines = log_lines

    def feed(self, line: str) -> Optional[str]:
        """One line; returns the name of a step when it begins."""
        line = line.rstrip("\r\n")
        if line.strip():
            self.tail.append(line)
        found = self._LINE.match(line)
        if not found:
            if line.startswith(("ERROR: ", "error: ")):
                self.message = line.partition(": ")[2]
            return None
        number, text = found.groups()
        if number == "0":
            return None
        if number not in self.names:
            self.names[number] = text
            return text
        if text.startswith("ERROR: "):
            self.errors[number] = text[len("ERROR: ") :]
        elif text == "CANCELED":
            self.done.add(number)
        elif text == "CACHED" or text.startswith("DONE "):
            self.done.add(number)
        else:
            log = self._LOG.match(text)
            if log:
                self.logs.setdefault(number, deque(maxlen=self._log_lines)).append(log.group(1))
        return None

    def failure(self, hidden: Sequence[str], status: int) -> AikitError:
        """Why the build failed: the step, its error and the end of its log, or what buildx itself said."""
        number = next(reversed(list(self.errors)), "")
        if number:
            message = f"BuildKit: step {self.names[number]!r} failed: {self.errors[number]}"
            log = list(self.logs.get(number, ()))
            if log:
                what = "line" if len(log) == 1 else f"{len(log)} lines"
                message += f"\nThe last {what} of its log:\n" + "\n".join(f"  {line}" for line in log) + "\n"
            else:
                message += "."
        elif self.message:
            message = f"BuildKit: {self.message}."
        else:
            message = f"docker buildx build ended with status {status}:\n" + "\n".join(f"  {line}" for line in self.tail) + "\n"
        message = mask(message, hidden)
        return AikitError(message, hint_for(f"{message}\n{mask(self.message, hidden)}"), failed_step=mask(self.names.get(number, ""), hidden))


def hint_for(text: str) -> str:
    """What to do about an error of BuildKit; empty where nothing is known of it."""
    return next((hint for pattern, hint in data_buildkit.HINTS if re.search(pattern, text, re.S)), "")


def built_digest(metadata: Mapping[str, Any]) -> str:
    """The digest of the manifest or index out of ``--metadata-file``; empty where it has none."""
    digest = str(metadata.get("containerimage.digest") or "")
    return digest if _DIGEST.fullmatch(digest) else ""
