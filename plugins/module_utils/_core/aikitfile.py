# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inference half of AIKit's aikitfile (apiVersion v1alpha1), strictly.

AIKit ignores keys that it does not know, never reads the ``config`` block, and checks little else before it has
downloaded everything. Here all of it is checked at once, with the line of every finding.
"""

from __future__ import annotations

import fnmatch
import hashlib
import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional, Sequence

from . import data_aikit, hub, localai, model_source
from .errors import AikitError, Finding, raise_for_errors
from .yaml_text import render

__all__ = [
    "Aikitfile",
    "Model",
    "PromptTemplate",
    "image_file",
    "is_repository",
    "repository_file",
    "load",
    "meant",
    "normalised",
    "position",
    "render",
    "shard",
    "shell_hazards",
    "validate",
]

API_VERSION = "v1alpha1"
KEYS = ("apiVersion", "debug", "runtime", "backends", "models", "config", "loadToMemory")
MODEL_KEYS = ("name", "source", "sha256", "promptTemplates")
TEMPLATE_KEYS = ("name", "template")
FINE_TUNE_KEYS = ("baseModel", "datasets")
DEFAULT_VERSION = "0.21.0"

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf\Z", re.ASCII)
_HOST_LIKE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(ai|co|com|dev|io|net|org)(:\d+)?/", re.ASCII)
_OLLAMA = "registry.ollama.ai"
# What a shell changes between double quotes: a lone quote, an expansion, a command, the backslash before any of them, and
# what its echo writes another character for
_SHELL = re.compile(r'\\[\\$`"\nabcfnrtv0]|["`]|\$(?=[A-Za-z0-9_{(@*#?$!-])')
_GPU_RUNTIMES = ("cuda", "rocm", "applesilicon")


@dataclass(frozen=True)
class PromptTemplate:
    """A template file: ``/models/<name>.tmpl``."""

    name: str
    template: str


@dataclass(frozen=True)
class Model:
    """One entry of ``models``. ``sha256`` is None where the file does not name one."""

    name: str
    source: str
    sha256: Optional[str] = None
    prompt_templates: tuple[PromptTemplate, ...] = ()


@dataclass(frozen=True)
class Aikitfile:
    """A valid aikitfile. ``runtime`` is empty for the CPU.

    ``model_configs`` is the parsed ``config`` block with ``\\"`` undone (see :func:`localai.unescape`), ``text`` the
    whole file as it was written, ``sha256`` the digest of that text, ``lines`` the line of each path of it.
    """

    api_version: str = API_VERSION
    debug: bool = False
    runtime: str = ""
    backends: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    config: str = ""
    model_configs: tuple[Mapping[str, Any], ...] = ()
    load_to_memory: tuple[str, ...] = ()
    text: str = ""
    sha256: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, path: str) -> int:
        """The line of ``path`` or of its closest parent, 0 where none is known."""
        return _line(self.lines, path)


def load(source: Mapping[str, Any], aikit_version: str = DEFAULT_VERSION, platforms: Sequence[str] = ()) -> tuple[Aikitfile, tuple[Finding, ...]]:
    """The aikitfile and the warnings about it; :class:`AikitError` with all errors at once."""
    aikitfile, findings = validate(source, aikit_version, platforms)
    raise_for_errors(findings, str(source.get("name") or "aikitfile"))
    if aikitfile is None:
        raise AikitError("The aikitfile is empty.")
    return aikitfile, findings


def validate(source: Mapping[str, Any], aikit_version: str = DEFAULT_VERSION, platforms: Sequence[str] = ()) -> tuple[Optional[Aikitfile], tuple[Finding, ...]]:
    """Every finding about a parsed aikitfile, errors and warnings, in the order of the file.

    ``source`` is what plugin_utils/yaml_source.py makes of a file or an inline definition. The first value is None
    when there is an error. Never raises, whatever the document holds.
    """
    check = _Check(source, aikit_version, platforms)
    aikitfile = check.run()
    findings = tuple(sorted(dict.fromkeys(check.findings), key=lambda finding: (finding.line or 1 << 30)))
    if any(finding.level == "error" for finding in findings):
        return None, findings
    return aikitfile, findings


def normalised(aikitfile: Aikitfile) -> dict[str, Any]:
    """The aikitfile as a plain mapping in one fixed shape; ``render`` of it is a file that means the same."""
    models: list[dict[str, Any]] = []
    for model in aikitfile.models:
        entry: dict[str, Any] = {"name": model.name, "source": model.source}
        if model.sha256:
            entry["sha256"] = model.sha256
        if model.prompt_templates:
            entry["promptTemplates"] = [{"name": item.name, "template": item.template} for item in model.prompt_templates]
        models.append(entry)
    document: dict[str, Any] = {
        "apiVersion": aikitfile.api_version,
        "debug": aikitfile.debug,
        "runtime": aikitfile.runtime,
        "backends": list(aikitfile.backends),
        "models": models,
        "config": aikitfile.config,
    }
    # Left out when empty: releases up to v0.21.0 do not know the key
    if aikitfile.load_to_memory:
        document["loadToMemory"] = list(aikitfile.load_to_memory)
    return document


# Files of a repository that are no part of its model (.gitattributes, the third, is never listed)
_LEFT_OUT = ("README.md", "LICENSE")


def image_file(model: Model) -> str:
    """Where a model's file lies below /models of an AIKit image; empty where only the download tells (a glob, a repository)."""
    scheme, rest = _split(model.source)
    if scheme in ("http", "https"):
        url = model_source.split_url(model.source)
        name = posixpath.basename(model_source.unquote(url.path)) if model_source.HOST.fullmatch(url.host) else ""
        return posixpath.normpath(posixpath.join(posixpath.dirname(model.name), name)) if name and "/" in model.name else name
    if scheme == "huggingface":
        parts = rest.split("/")
        if len(parts) > 2 and re.search(r"[@:]", parts[1]):
            return parts[-1]
        return parts[min(len(parts), 4) - 1] if len(parts) > 2 else ""
    if scheme == "oci":
        parts = rest.split(":")[0].split("/")
        return parts[2] if parts[0] == _OLLAMA and len(parts) > 2 else ""
    if scheme or _is_glob(model.source):
        return ""
    return posixpath.basename(model.source)


def is_repository(source: str) -> bool:
    """Whether a source is a whole repository of the hub."""
    scheme, rest = _split(source)
    return scheme == "huggingface" and rest.count("/") == 1


def repository_file(model: Model, path: str) -> Optional[str]:
    """Where a file of a source with several lies below /models of an AIKit image; None for one that AIKit leaves out.

    A whole repository of the hub has a folder of its own there (pkg/aikit2llb/inference/download.go).
    """
    if not is_repository(model.source):
        return path
    namespace, _slash, repository = _split(model.source)[1].partition("/")
    return None if path in _LEFT_OUT else f"{namespace}/{re.split('[@:]', repository)[0]}/{path}"


def shard(file_name: str) -> tuple[int, int]:
    """Which part of how many a split GGUF's file is; (1, 1) for a file of its own."""
    match = _SHARD.search(file_name)
    return (int(match.group(1)), int(match.group(2))) if match else (1, 1)


def is_projector(file_name: str) -> bool:
    """Whether a file is a multimodal projector by its name: it belongs to a model, and is none."""
    return posixpath.basename(file_name).lower().startswith("mmproj")


def matches(file_name: str, reference: str) -> bool:
    """Whether ``reference``, as a config names files, means ``file_name`` below /models."""
    wanted = posixpath.normpath(reference.strip())
    if wanted.startswith("/models/"):
        wanted = wanted[len("/models/") :]
    return wanted in (file_name, posixpath.basename(file_name))


def meant(file_names: Iterable[str], reference: str) -> list[str]:
    """The files below /models that ``reference`` means: the one of that path, else all of that name, which should be one."""
    found = [name for name in file_names if matches(name, reference)]
    exact = [name for name in found if posixpath.normpath(reference.strip()) in (name, f"/models/{name}")]
    return exact or found


def shell_hazards(text: str) -> list[re.Match[str]]:
    """What a shell would change, or run, in a text that AIKit up to v0.21.0 hands to one between double quotes (``\\"`` is how a quote is written there)."""
    return [match for match in _SHELL.finditer(text) if match.group() != '\\"']


def position(source: Mapping[str, Any], path: str, text: str, offset: int) -> tuple[str, int]:
    """Where the character at ``offset`` of a text stands, for people, and its line (0 where only the line within the text is known).

    A literal block has lines and columns in the file; a text between quotes may be folded, so what counts there is the text itself.
    """
    row = text.count("\n", 0, offset)
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    first = (source.get("text_lines") or {}).get(path, 0)
    if not first:
        return f"line {row + 1} of the text, character {column}", 0
    rows = str(source.get("text") or "").split("\n")
    mine = text.split("\n")[row]
    there = rows[first - 1 + row].rstrip("\r") if first - 1 + row < len(rows) else ""
    indent = len(there) - len(mine) if there.endswith(mine) else 0
    return f"line {first + row}, character {indent + column}", first + row


def _split(source: str) -> tuple[str, str]:
    match = _SCHEME.match(source)
    return (match.group(1), source[match.end() :]) if match else ("", source)


def _is_glob(source: str) -> bool:
    return any(character in source for character in "*?[")


def _line(lines: Mapping[str, int], path: str) -> int:
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return 0


def _join(parent: str, key: Any) -> str:
    return f"{parent}.{key}" if parent else str(key)


class _Check:
    """One pass over one document. Each ``_x`` method looks at one part and adds to ``findings``."""

    def __init__(self, source: Mapping[str, Any], aikit_version: str, platforms: Sequence[str]) -> None:
        self.source = source
        self.findings: list[Finding] = []
        self.lines = dict(source.get("lines") or {})
        self.lines.update({f"config{path}": line for path, line in (source.get("config_lines") or {}).items()})
        self.text_lines: Mapping[str, int] = source.get("text_lines") or {}
        self.version = self._version(aikit_version)
        self.architectures = self._platforms(platforms)
        self.runtime = ""
        self.backends: tuple[str, ...] = ()
        self.models: tuple[Model, ...] = ()
        self.templates: dict[str, str] = {}
        self.config_names: tuple[str, ...] = ()

    def error(self, path: str, message: str, hint: str = "") -> None:
        self.findings.append(Finding("error", path, _line(self.lines, path), message, hint))

    def warning(self, path: str, message: str, hint: str = "", line: int = 0) -> None:
        self.findings.append(Finding("warning", path, line or _line(self.lines, path), message, hint))

    def run(self) -> Optional[Aikitfile]:
        problems = self.source.get("problems") or ()
        self.findings.extend(Finding(**problem) for problem in problems)
        document = self.source.get("document")
        if document is None:
            if not any(problem["level"] == "error" for problem in problems):
                self.error("", "the aikitfile is empty", "it needs at least apiVersion: v1alpha1 and models")
            return None
        if not isinstance(document, dict):
            self.error("", f"an aikitfile is a mapping, this is {localai.describe(document)}")
            return None
        if any(key in document for key in FINE_TUNE_KEYS):
            self._refuse_fine_tune(document)
            return None
        self._unknown_keys(document, "", KEYS)
        self._api_version(document)
        debug = self._flag(document, "debug")
        self.runtime = self._runtime(document)
        self.backends = self._backends(document)
        self.models = self._models(document)
        config, configs = self._config(document)
        load_to_memory = self._load_to_memory(document)
        self._across(config)
        text = str(self.source.get("text") or "")
        return Aikitfile(
            API_VERSION,
            debug,
            self.runtime,
            self.backends,
            self.models,
            config,
            configs,
            load_to_memory,
            text,
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            self.lines,
        )

    # ---- what the caller asked for

    def _version(self, text: str) -> data_aikit.Version:
        version = data_aikit.parse_version(str(text))
        if version is None:
            self.error("aikit_version", f"{localai.describe(text)} is no AIKit version", "write a release such as 0.21.0, or main")
            return data_aikit.NEWEST_RELEASE
        if version > data_aikit.NEWEST_RELEASE and version != data_aikit.MAIN:
            newest = data_aikit.describe(data_aikit.NEWEST_RELEASE)
            self.warning("aikit_version", f"{text} is newer than the newest release known here ({newest}): checked against main")
            return data_aikit.MAIN
        return version

    def _platforms(self, platforms: Sequence[str]) -> tuple[str, ...]:
        architectures = []
        for platform in platforms:
            parts = str(platform).split("/")
            if len(parts) not in (2, 3) or parts[0] != "linux" or parts[1] not in ("amd64", "arm64"):
                self.error("platforms", f"{localai.describe(platform)} is no platform that AIKit builds for", "write linux/amd64 or linux/arm64")
            else:
                architectures.append(parts[1])
        return tuple(dict.fromkeys(architectures))

    def _has(self, feature: str) -> bool:
        return data_aikit.FEATURES[feature].holds(self.version)

    def _needs(self, path: str, feature: str) -> None:
        span = data_aikit.FEATURES[feature]
        if not span.holds(self.version):
            first = data_aikit.describe(span.first)
            have = data_aikit.describe(self.version)
            self.error(path, f"AIKit {have} does not have {feature}", f"they came with {first}; set aikit_version if you build with that")

    # ---- top level

    def _refuse_fine_tune(self, document: Mapping[str, Any]) -> None:
        key = next(key for key in FINE_TUNE_KEYS if key in document)
        self.error(
            key,
            f"{key} makes this a fine-tune file: it describes a training run, not an image that serves a model",
            "build it with AIKit itself (docker buildx build --target unsloth), then name the GGUF that comes out under models here",
        )

    def _unknown_keys(self, mapping: Mapping[str, Any], parent: str, known: Sequence[str]) -> None:
        for key in mapping:
            if key in known:
                continue
            near = localai.did_you_mean(str(key), known)
            hint = near or f"known keys: {', '.join(known)}"
            if not parent and key == "name":
                hint = "the image's name is given when it is built; models and config have names of their own"
            elif not parent and key in localai.MODEL_KEYS and not near:
                hint = "that is a setting of a model: write it inside config"
            self.error(_join(parent, key), f"unknown key {key}", hint)

    def _api_version(self, document: Mapping[str, Any]) -> None:
        value = document.get("apiVersion")
        if value is None:
            self.error("apiVersion", "apiVersion is missing", f"write apiVersion: {API_VERSION}")
        elif value != API_VERSION:
            self.error("apiVersion", f"{localai.describe(value)} is not supported", f"the only one is {API_VERSION}")

    def _flag(self, document: Mapping[str, Any], key: str) -> bool:
        value = document.get(key)
        if value is not None and not isinstance(value, bool):
            self.error(key, f"must be true or false, found {localai.describe(value)}")
        return value is True

    def _text(self, mapping: Mapping[str, Any], key: str, parent: str = "") -> str:
        value = mapping.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            quote = "" if isinstance(value, (dict, list)) else "put it in single quotes"
            self.error(_join(parent, key), f"must be text, found {localai.describe(value)}", quote)
            return ""
        return value

    def _list(self, mapping: Mapping[str, Any], key: str, parent: str = "") -> list[Any]:
        value = mapping.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            hint = f"write a list with one entry: [{value}]" if isinstance(value, str) and key != "models" else ""
            self.error(_join(parent, key), f"must be a list, found {localai.describe(value)}", hint)
            return []
        return value

    def _runtime(self, document: Mapping[str, Any]) -> str:
        runtime = self._text(document, "runtime")
        span = data_aikit.RUNTIMES.get(runtime)
        if span is None:
            near = localai.did_you_mean(runtime, data_aikit.RUNTIMES, "cuda, rocm (main only), applesilicon, or none at all for the CPU")
            hint = data_aikit.RUNTIME_WORDS.get(runtime.lower(), near)
            self.error("runtime", f"runtime {localai.describe(runtime)} is not known", hint)
        elif not span.holds(self.version):
            if runtime.startswith("avx"):
                hint = f"the last one was {self._last(span)}; leave runtime out, every CPU image picks the best instructions by itself now"
            else:
                hint = f"it comes with {data_aikit.describe(span.first)}"
            self.error("runtime", f"AIKit {data_aikit.describe(self.version)} does not have runtime {runtime}", hint)
        return runtime

    @staticmethod
    def _last(span: data_aikit.Span) -> str:
        last = span.last()
        return data_aikit.describe(last) if last else ""

    def _backends(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        names = []
        entries = self._list(document, "backends")
        for index, name in enumerate(entries):
            path = f"backends[{index}]"
            if not isinstance(name, str):
                self.error(path, f"must be text, found {localai.describe(name)}")
                continue
            names.append(name)
            self._backend(path, name)
        if len(entries) > 1:
            self.error("backends", f"only one backend is supported, found {len(entries)}", "one image serves one backend: write one aikitfile for each")
        return tuple(names)

    def _backend(self, path: str, name: str) -> None:
        span = data_aikit.BACKENDS.get(name)
        if span is None:
            near = localai.did_you_mean(name, data_aikit.BACKENDS, "llama-cpp, diffusers or vllm")
            hint = data_aikit.BACKEND_WORDS.get(name.lower(), near)
            self.error(path, f"backend {localai.describe(name)} is not known", hint)
            return
        if span.holds(self.version):
            return
        have = data_aikit.describe(self.version)
        if self.version >= span.first:
            self.error(path, f"AIKit {have} does not have backend {name}", f"the last one that had it is {self._last(span)}; llama-cpp serves GGUF models")
        elif name == "llama-cpp":
            self.error(path, f"AIKit {have} does not know the name llama-cpp", "leave backends out: it was the default that had no name until v0.19.0")
        else:
            self.error(path, f"AIKit {have} does not have backend {name}", f"it came with {data_aikit.describe(span.first)}")

    # ---- models

    def _models(self, document: Mapping[str, Any]) -> tuple[Model, ...]:
        models = []
        names: dict[str, str] = {}
        files: dict[str, str] = {}
        for index, entry in enumerate(self._list(document, "models")):
            path = f"models[{index}]"
            if not isinstance(entry, dict):
                self.error(path, f"a model is a mapping with name and source, found {localai.describe(entry)}")
                continue
            model = self._model(path, entry)
            models.append(model)
            if model.name:
                if model.name in names:
                    self.error(f"{path}.name", f"{model.name} is already the name of {names[model.name]}", "each model needs a name of its own")
                names.setdefault(model.name, path)
            name = image_file(model)
            if name:
                if name in files:
                    self.error(f"{path}.source", f"/models/{name} is already the file of {files[name]}", "one would overwrite the other: rename a file")
                files.setdefault(name, path)
        self._shards(models, files)
        return tuple(models)

    def _model(self, path: str, entry: Mapping[str, Any]) -> Model:
        self._unknown_keys(entry, path, MODEL_KEYS)
        name = self._text(entry, "name", path)
        source = self._text(entry, "source", path)
        sha256 = self._text(entry, "sha256", path)
        if entry.get("name") in (None, ""):
            self.error(f"{path}.name", "name is missing")
        elif name != name.strip() or not name.isprintable():
            self.error(f"{path}.name", "name has blanks around it, or characters that do not print")
        elif ".." in name.split("/") or name.startswith("/") or name.endswith("/"):
            self.error(f"{path}.name", f"{localai.describe(name)} leads out of /models", "a / in a name makes a folder below /models, nothing more")
        if entry.get("source") in (None, ""):
            self.error(f"{path}.source", "source is missing")
        elif source:
            self._source(f"{path}.source", source)
        if sha256:
            self._sha256(f"{path}.sha256", sha256, source)
        elif source.startswith("http://"):
            self.warning(f"{path}.source", "comes over plain HTTP and has no sha256: nothing says whether the file is the right one", "add sha256")
        return Model(name, source, sha256 or None, self._prompt_templates(entry, path))

    def _sha256(self, path: str, sha256: str, source: str) -> None:
        if not _SHA256.match(sha256):
            plain = sha256.strip().lower()
            plain = plain[len("sha256:") :] if plain.startswith("sha256:") else plain
            hint = f"write {plain}" if _SHA256.match(plain) else f"64 digits of 0-9 and a-f; this has {len(sha256)} characters"
            self.error(path, f"{localai.describe(sha256)} is no SHA-256 digest", hint)
        elif source and _split(source)[0] not in ("http", "https"):
            kind = _split(source)[0]
            what = f"a {kind}:// source" if kind else "a local file"
            self.warning(path, f"AIKit's own build checks sha256 only for http and https, not for {what}", "builder direct checks it")

    def _source(self, path: str, source: str) -> None:
        if source != source.strip() or not source.isprintable():
            self.error(path, "source has blanks around it, or characters that do not print")
            return
        scheme, rest = _split(source)
        if scheme and (model_source.split_url(source).user or model_source.secrets(source)):
            self._secret_source(path, source)
            return
        check = {"http": self._http, "https": self._http, "huggingface": self._huggingface, "oci": self._oci, "": self._local}.get(scheme)
        if check is not None:
            check(path, source, rest)
            return
        hints = {
            "file": "for a local file write a path relative to the build context, without a scheme",
            "hf": f"write huggingface://{rest}",
            "ollama": f"write oci://{_OLLAMA}/library/{rest}",
            "docker": f"write oci://{rest}",
            "s3": "fetch it first, or give an https address of it",
        }
        near = localai.suggest(scheme, ("http", "https", "huggingface", "oci"))
        default = f"did you mean {near}://?" if near else "http://, https://, huggingface://, oci://, or a path relative to the build context"
        self.error(path, f"{scheme}:// is no scheme that AIKit knows", hints.get(scheme.lower(), default))

    def _secret_source(self, path: str, source: str) -> None:
        """The whole file goes into the image, where everybody who has it reads it."""
        if model_source.split_url(source).user:
            what = "a user name or password"
        else:
            what = "what looks like a key: " + ", ".join(f"{name}=***" for name in model_source.secret_names(source))
        self.error(
            path,
            f"has {what} in it, which would end in the image",
            "take it out; a token is given to the build: option token of aikit_image, inference_model_token of role inference. "
            "Or fetch a signed URL with model_file, and name the file here",
        )

    def _http(self, path: str, source: str, rest: str) -> None:
        parts = model_source.split_url(source)
        if not model_source.HOST.fullmatch(parts.host) or " " in source:
            self.error(path, "is no valid address")
        elif not posixpath.basename(parts.path):
            self.error(path, "names no file: the address ends in /")
        elif parts.host == "huggingface.co" and "/blob/" in parts.path:
            self.error(path, "is the web page about the file, not the file", "write /resolve/ in place of /blob/")

    def _huggingface(self, path: str, source: str, rest: str) -> None:
        self._needs(path, "huggingface:// sources")
        parts = rest.split("/")
        if len(parts) < 2 or not all(parts):
            self.error(path, "must be huggingface://NAMESPACE/REPOSITORY/FILE", "NAMESPACE/REPOSITORY alone takes the whole repository")
        elif len(parts) == 3 and re.search(r"[@:]", parts[1]):
            repository, revision = re.split(r"[@:]", parts[1], maxsplit=1)
            self.error(
                path,
                f"a revision ({revision}) is read only where a whole repository is taken",
                f"write huggingface://{parts[0]}/{repository}/{revision}/{parts[2]}",
            )
        elif len(parts) > 3 and re.search(r"[@:]", parts[1]):
            repository, revision = re.split(r"[@:]", parts[1], maxsplit=1)
            try:
                hub.parse(source)
            except AikitError as exc:
                self.error(path, str(exc.message).rstrip("."), exc.hint)
                return
            self.warning(
                path,
                f"a revision ({revision}) with the path of a file is read by builder direct alone, not by AIKit's own build",
                f"for both write https://huggingface.co/{parts[0]}/{repository}/resolve/{revision}/{'/'.join(parts[2:])}",
            )
        elif len(parts) > 4:
            self.error(
                path,
                f"has {len(parts)} parts: AIKit reads at most NAMESPACE/REPOSITORY/BRANCH/FILE, and would fetch {'/'.join(parts[:3])}",
                f"for a file in a folder write https://huggingface.co/{parts[0]}/{parts[1]}/resolve/main/{'/'.join(parts[2:])}",
            )
        elif len(parts) == 4:
            self.warning(
                path,
                f"AIKit reads the third of four parts, {parts[2]}, as a branch, never as a folder",
                f"for a folder write https://huggingface.co/{parts[0]}/{parts[1]}/resolve/main/{parts[2]}/{parts[3]}",
            )
        elif len(parts) == 2 and self.backends in ((), ("llama-cpp",)):
            self.warning(
                path,
                "takes every file of the repository into the image",
                "name one GGUF file: huggingface://NAMESPACE/REPOSITORY/FILE",
            )

    def _oci(self, path: str, source: str, rest: str) -> None:
        self._needs(path, "oci:// sources")
        parts = rest.split("/")
        if len(parts) < 2 or not all(parts):
            self.error(path, "must be oci://REGISTRY/NAME:TAG")
            return
        tagged = ":" in parts[-1] or "@" in parts[-1]
        if parts[0] == _OLLAMA:
            if len(parts) != 3 or parts[1] != "library":
                self.error(path, f"AIKit reads only oci://{_OLLAMA}/library/NAME:TAG", "models outside library need another source")
            elif not tagged or "@" in parts[-1]:
                self.error(path, "needs a tag: AIKit's build stops without one", f"write {source.split('@')[0]}:latest, or the tag you want")
        elif not tagged:
            self.warning(path, "has no tag, so it means latest, which moves", "add a tag or a digest")

    def _local(self, path: str, source: str, rest: str) -> None:
        parts = source.split("/")
        if source.startswith("/"):
            self.error(path, "is an absolute path, which AIKit takes for an address with no scheme", "write it relative to the build context")
        elif source.startswith("~"):
            self.error(path, "starts with ~, which nothing expands here", "write it relative to the build context")
        elif ".." in parts:
            self.error(
                path, "leads out of the build context: AIKit drops the .. and takes another file", "move the file below the context, or set option context"
            )
        elif "\\" in source:
            self.error(path, "has a backslash in it", "folders are separated by /")
        elif source.endswith("/"):
            self.error(path, "names a folder", f"name the file, or all of its files: {source}*")
        elif _HOST_LIKE.match(source):
            address = model_source.redact(f"https://{source}")
            self.warning(path, "looks like an address but has no scheme, so it is read as a local path", f"did you mean {address}?")

    def _prompt_templates(self, entry: Mapping[str, Any], parent: str) -> tuple[PromptTemplate, ...]:
        templates = []
        for index, item in enumerate(self._list(entry, "promptTemplates", parent)):
            path = f"{parent}.promptTemplates[{index}]"
            if not isinstance(item, dict):
                self.error(path, f"a prompt template is a mapping with name and template, found {localai.describe(item)}")
                continue
            self._unknown_keys(item, path, TEMPLATE_KEYS)
            name = self._text(item, "name", path)
            template = self._text(item, "template", path)
            for key, have in (("name", name), ("template", template)):
                if not have and item.get(key) in (None, ""):
                    self.warning(path, f"has no {key}: AIKit writes no file for it, and says nothing")
            if name and (name != name.strip() or not name.isprintable() or "/" in name):
                self.error(f"{path}.name", f"{localai.describe(name)} is no file name", "AIKit writes the template to /models/<name>.tmpl")
            elif name and template:
                if self.templates.get(name, template) != template:
                    self.error(f"{path}.name", f"another template is called {name} too: the last one would win", "rename one of them")
                self.templates.setdefault(name, template)
            self._shell_hazard(f"{path}.template", template)
            templates.append(PromptTemplate(name, template))
        return tuple(templates)

    def _shards(self, models: Sequence[Model], files: Mapping[str, str]) -> None:
        """A split GGUF needs all of its parts."""
        others = [model for model in models if not image_file(model)]
        # A whole repository, or an artifact of a registry: its files are known once it is here
        if any(_split(model.source)[0] for model in others):
            return
        globs = [posixpath.basename(model.source) for model in others]
        for name, path in files.items():
            part, count = shard(name)
            if part != 1 or count < 2 or count > 999:
                continue
            stem = name[: -len("-00001-of-00002.gguf")]
            missing = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(2, count + 1)]
            missing = [other for other in missing if other not in files and not any(fnmatch.fnmatchcase(other, pattern) for pattern in globs)]
            if missing:
                shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
                self.error(f"{path}.source", f"is part 1 of {count}, and {len(missing)} of the others are missing: {shown}", "list every part under models")

    # ---- config

    def _config(self, document: Mapping[str, Any]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        value = document.get("config")
        if isinstance(value, (dict, list)):
            self.error("config", f"must be one text, found {localai.describe(value)}", "write config: | and indent the YAML below it")
            return "", ()
        config = self._text(document, "config")
        self._shell_hazard("config", config)
        parsed = self.source.get("config_document")
        if parsed is None:
            return config, ()
        if not isinstance(parsed, list):
            hint = "put - before the first key, and indent the rest by two more" if isinstance(parsed, dict) else ""
            self.error("config", f"must hold a list of models, found {localai.describe(parsed)}", hint)
            return config, ()
        configs: list[Mapping[str, Any]] = []
        names: list[str] = []
        for index, raw in enumerate(parsed):
            path = f"config[{index}]"
            if not isinstance(raw, dict):
                self.error(path, f"a model's settings are a mapping, found {localai.describe(raw)}")
                continue
            entry = localai.unescape(raw)
            configs.append(entry)
            name = self._model_config(path, entry)
            if name and name in names:
                self.error(f"{path}.name", f"{name} is already the name of config[{names.index(name)}]", "clients choose a model by this name")
            names.append(name)
        self.config_names = tuple(name for name in names if name)
        self._references(configs)
        return config, tuple(configs)

    def _model_config(self, path: str, entry: Mapping[str, Any]) -> str:
        self._config_keys(path, entry, "", localai.MODEL_KEYS)
        for section, keys in localai.SECTIONS.items():
            if isinstance(entry.get(section), dict):
                self._config_keys(f"{path}.{section}", entry[section], section, keys)
        name = entry.get("name")
        if name in (None, ""):
            self.error(f"{path}.name", "name is missing", "it is the model's name in requests")
        elif not isinstance(name, str):
            self.error(f"{path}.name", f"must be text, found {localai.describe(name)}", "put it in single quotes")
        elif name != name.strip() or not name.isprintable():
            self.error(f"{path}.name", "name has blanks around it, or characters that do not print")
        else:
            self._settings(path, entry)
            return name
        self._settings(path, entry)
        return ""

    def _config_keys(self, path: str, entry: Mapping[str, Any], section: str, keys: Mapping[str, str]) -> None:
        for key, value in entry.items():
            where = _join(path, key)
            kind = keys.get(key)
            if kind is None:
                self.warning(where, f"LocalAI has no setting {key}, and ignores it", localai.hint_for_key(str(key), section))
                continue
            if key in ("gpu_layers", "context_size", "threads", "batch") and value == "auto":
                self.error(
                    where, "auto is no value of an aikitfile", "write settings: {" + key + ": auto} at the service, in inference_services; leave it out here"
                )
                continue
            expected = localai.mismatch(value, kind)
            if expected and key != "name":
                self.error(where, f"must be {expected}, found {localai.describe(value)}")

    def _settings(self, path: str, entry: Mapping[str, Any]) -> None:
        """Values that are well formed but cannot work, or do nothing."""
        backend = entry.get("backend")
        if not localai.is_llama(backend):
            self._other_backend(path, entry)
            return
        if self.backends and self.backends[0] not in ("llama-cpp",) and self.backends[0] in data_aikit.BACKENDS:
            self.warning(f"{path}.backend", f"the image holds backend {self.backends[0]}, not llama-cpp", f"write backend: {self.backends[0]}")
            return
        self._gpu_settings(path, entry)
        for key in ("cache_type_k", "cache_type_v"):
            value = entry.get(key)
            if isinstance(value, str) and value and value not in localai.CACHE_TYPES:
                hint = localai.did_you_mean(value, localai.CACHE_TYPES, f"one of {', '.join(localai.CACHE_TYPES)}")
                self.error(f"{path}.{key}", f"{localai.describe(value)} is no cache type", hint)
        for key, least in (("context_size", -1), ("threads", 0)):
            value = entry.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                self.error(f"{path}.{key}", f"{value} is too small", f"{least} is the least")
            elif isinstance(value, int) and value >= 1 << 31:
                self.error(f"{path}.{key}", f"{value} is too large", "llama.cpp counts up to 2147483647")

    def _gpu_settings(self, path: str, entry: Mapping[str, Any]) -> None:
        f16 = entry.get("f16")
        if f16 is True and self._has("f16 without effect"):
            self.warning(
                f"{path}.f16",
                "does nothing: today's llama.cpp backend does not read f16",
                "leave it out; the precision is the model file's, that of the KV cache is set by cache_type_k and cache_type_v",
            )
        if entry.get("low_vram") is True:
            self.warning(
                f"{path}.low_vram",
                "does nothing: no llama.cpp backend reads low_vram",
                "use no_kv_offloading, cache_type_k and cache_type_v, a smaller context_size, or fewer gpu_layers;"
                " in the settings of a service, low_vram is a wish that a plan honours",
            )
        layers = entry.get("gpu_layers")
        if not isinstance(layers, int) or isinstance(layers, bool):
            return
        where = f"{path}.gpu_layers"
        if self.runtime not in _GPU_RUNTIMES:
            if layers != 0:
                self.warning(where, "does nothing: without runtime the image is for the CPU", "add runtime: cuda, or leave gpu_layers out")
        elif layers == 0:
            self.warning(where, f"0 keeps the whole model on the CPU, although runtime is {self.runtime}", "leave it out for all layers")
        elif layers == 35:
            self.warning(
                where,
                "35 is the example of AIKit's documentation: a model with more layers stays partly on the CPU",
                "leave it out for all layers",
            )

    def _other_backend(self, path: str, entry: Mapping[str, Any]) -> None:
        backend = str(entry.get("backend"))
        if backend in data_aikit.BACKENDS and backend not in self.backends:
            have = self.backends[0] if self.backends else "llama-cpp"
            self.error(f"{path}.backend", f"the image holds backend {have}, not {backend}", f"write backends: [{backend}]")
        elif backend not in data_aikit.BACKENDS:
            hint = localai.did_you_mean(backend, ("llama", *data_aikit.BACKENDS))
            self.warning(f"{path}.backend", f"an AIKit image has no backend {backend}", hint)
        if backend in ("exllama2", "exllama"):
            for key in ("gpu_layers", "f16", "low_vram"):
                if entry.get(key) is not None:
                    self.warning(f"{path}.{key}", f"does nothing: {backend} always runs on the GPU, wholly", "leave it out")

    def _references(self, configs: Sequence[Mapping[str, Any]]) -> None:
        """Files and templates that the config names must be there."""
        files = [image_file(model) for model in self.models]
        globs = [posixpath.basename(model.source) for model in self.models if not _split(model.source)[0] and _is_glob(model.source)]
        # A whole repository, or an artifact of a registry: its files are known once it is here
        unknown = any(not name and (_split(model.source)[0] or posixpath.basename(model.source) == "*") for name, model in zip(files, self.models))
        used: set[str] = set()
        used_templates: set[str] = set()
        llama = 0
        for index, entry in enumerate(configs):
            path = f"config[{index}]"
            used_templates |= self._template_references(path, entry)
            if not localai.is_llama(entry.get("backend")) or entry.get("alias"):
                continue
            llama += 1
            for where, reference in self._file_references(path, entry):
                found = meant(filter(None, files), reference)
                used.update(found)
                if len(found) > 1:
                    self.error(where, f"{localai.describe(reference)} is the name of several files: {', '.join(found)}", f"write {found[0]}, with its folder")
                if found or unknown or any(fnmatch.fnmatchcase(posixpath.basename(reference), pattern) for pattern in globs):
                    continue
                names = [name for name in files if name]
                hint = localai.did_you_mean(reference, names, f"files of models: {', '.join(names) or 'none'}")
                self.error(where, f"{localai.describe(reference)} is no file of models", hint)
        if llama and not unknown and not globs:
            for index, name in enumerate(files):
                if name not in used and shard(name)[0] == 1:
                    self.warning(f"models[{index}]", f"no model of config uses {name}: it is in the image and not served")
        if configs:
            self._unused_templates(used_templates)

    def _file_references(self, path: str, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = []
        parameters = entry.get("parameters")
        model = parameters.get("model") if isinstance(parameters, dict) else None
        if isinstance(model, str) and model:
            found.append((f"{path}.parameters.model", model))
        elif model is None or model == "":
            self.error(f"{path}.parameters.model", "names no model file", "write parameters: {model: FILE}, FILE being one of models")
        for key in localai.FILE_KEYS:
            if isinstance(entry.get(key), str) and entry[key]:
                found.append((f"{path}.{key}", entry[key]))
        adapters = entry.get("lora_adapters")
        if isinstance(adapters, list):
            found += [(f"{path}.lora_adapters[{index}]", name) for index, name in enumerate(adapters) if isinstance(name, str)]
        return found

    def _template_references(self, path: str, entry: Mapping[str, Any]) -> set[str]:
        used: set[str] = set()
        section = entry.get("template")
        if not isinstance(section, dict):
            return used
        for key in localai.TEMPLATES:
            value = section.get(key)
            if not isinstance(value, str) or not value:
                continue
            if value in self.templates:
                used.add(value)
            elif not re.search(r"[{}\s]", value):
                hint = localai.did_you_mean(value, self.templates, f"promptTemplates of models: {', '.join(self.templates) or 'none'}")
                self.error(f"{path}.template.{key}", f"{localai.describe(value)} is no template: every prompt would be that word", hint)
        return used

    def _unused_templates(self, used: set[str]) -> None:
        for index, model in enumerate(self.models):
            for number, item in enumerate(model.prompt_templates):
                if item.name and item.template and item.name not in used:
                    self.warning(f"models[{index}].promptTemplates[{number}]", f"no model of config uses template {item.name}")

    def _shell_hazard(self, path: str, text: str) -> None:
        """Releases before verbatim text hand config and templates to a shell, between double quotes."""
        if self._has("verbatim text"):
            position = text.find('\\"')
            if position >= 0:
                where, line = self._position(path, text, position)
                self.warning(
                    path,
                    f'\\" at {where} reaches LocalAI with its backslash: AIKit {data_aikit.describe(self.version)} passes this text verbatim',
                    "write plain quotes, or none",
                    line,
                )
            return
        hits = shell_hazards(text)
        if not hits:
            return
        where, line = self._position(path, text, hits[0].start())
        what = repr(hits[0].group())[1:-1].replace("\\\\", "\\")
        more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
        newest = data_aikit.describe(data_aikit.NEWEST_RELEASE)
        self.warning(
            path,
            f"{what} at {where}{more}: AIKit's own build up to {newest} passes this text through a shell, which changes it",
            "do without double quotes, $, backticks and backslashes (single quotes are safe); builder direct passes it verbatim",
            line,
        )

    def _position(self, path: str, text: str, offset: int) -> tuple[str, int]:
        return position(self.source, path, text, offset)

    # ---- loadToMemory

    def _load_to_memory(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        if "loadToMemory" in document and not self._has("loadToMemory"):
            self.error(
                "loadToMemory",
                f"AIKit {data_aikit.describe(self.version)} does not have loadToMemory",
                "it is on AIKit's main branch only: set aikit_version to main",
            )
        names: list[str] = []
        for index, name in enumerate(self._list(document, "loadToMemory")):
            path = f"loadToMemory[{index}]"
            if not isinstance(name, str) or not name.strip():
                self.error(path, f"must be the name of a model, found {localai.describe(name)}")
                continue
            if any(character in name for character in ",\\\0"):
                self.error(path, f"{localai.describe(name)} has a comma, a backslash or a NUL in it, which AIKit refuses")
            elif name in names:
                self.error(path, f"{name} is there twice")
            elif self.config_names and name not in self.config_names:
                hint = localai.did_you_mean(name, self.config_names, "names of config: " + ", ".join(self.config_names))
                self.error(path, f"config has no model {name}", hint)
            names.append(name)
        return tuple(names)

    # ---- rules across keys

    def _across(self, config: str) -> None:
        backend = self.backends[0] if self.backends else ""
        where = "backends[0]" if backend else "runtime"
        other = backend in data_aikit.BACKENDS and backend != "llama-cpp"
        if backend in data_aikit.CUDA_ONLY_BACKENDS and self.runtime != "cuda":
            why = " (it always runs on the GPU)" if backend in ("exllama2", "exllama") else ""
            self.error(where, f"backend {backend} needs runtime cuda{why}", "write runtime: cuda")
        elif self.runtime in ("applesilicon", "rocm") and other:
            self.error(where, f"runtime {self.runtime} allows only backend llama-cpp, not {backend}")
        if self.runtime == "applesilicon":
            self._apple_silicon(backend)
        if "arm64" in self.architectures:
            self._needs("platforms", "platform linux/arm64")
            if self.runtime == "rocm":
                self.error("runtime", "runtime rocm is for linux/amd64 only", "take linux/arm64 out of platforms")
            if other:
                self.error(where, f"backend {backend} is not there for linux/arm64", "only llama-cpp is")
            elif self.runtime == "cuda":
                self.warning("runtime", "for linux/arm64 AIKit builds an image that runs on the CPU only, although runtime is cuda", "build for linux/amd64")
        if not self.models and "models" not in {finding.path for finding in self.findings}:
            self._no_models(backend, config)

    def _apple_silicon(self, backend: str) -> None:
        if "amd64" in self.architectures:
            self.error("runtime", "runtime applesilicon is for linux/arm64 only", "take linux/amd64 out of platforms")
        if backend and not self.models:
            self.error("runtime", "runtime applesilicon has no runner images", "add models, or take backends out")
        if backend == "llama-cpp" and (0, 15, 0) <= self.version < (0, 19, 0):
            self.error("backends", "AIKit up to v0.18.2 takes no backends with runtime applesilicon", "leave backends out")
        for index, model in enumerate(self.models):
            name = image_file(model)
            if name and _split(model.source)[0] != "oci" and not name.lower().endswith(".gguf"):
                self.error(f"models[{index}].source", f"runtime applesilicon serves GGUF models only, {name} is none")

    def _no_models(self, backend: str, config: str) -> None:
        if not self._has("images without models"):
            self.error("models", "models is missing")
        elif backend and self._has("runner images"):
            told = " and its config is used by no model" if config else ""
            self.warning(
                "backends",
                f"without models this builds a runner: the image stops with a usage text unless a model is named when it is started{told}",
                "list the model under models for an image that serves by itself",
            )
        else:
            self.warning("models", "there are no models: the image holds none unless the build is given one (build argument model)")
