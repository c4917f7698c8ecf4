# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AIKit's own image of an aikitfile: LocalAI, a llama-cpp backend, the models, config.yaml; nothing of ours in its files.

What AIKit's frontend copies and writes is done here as it does it, release by release (data_aikit_release.py); what it lets a
command do cannot be done without running one, and :func:`obstacle` says so.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence

from . import builder, data_aikit, data_aikit_release
from .aikitfile import Aikitfile
from .data_aikit_release import APPLE_SILICON_ENV, CPU, CUDA, PATH, VULKAN, Backend, Release
from .errors import AikitError, Finding
from .image import ImageRecipe, LayerRecipe, ModelFile, file_entries, model_parts
from .oci import canonical
from .tar import Entry, FileRef, segments

ARCHITECTURES = ("amd64", "arm64")
LOCALAI_PATH = "usr/bin/local-ai"
# Stands where AIKit writes the time of its build, which would give every build another digest
INSTALLED_AT = "1970-01-01T00:00:00Z"
OCI_MODE = 0o644
MODEL_MODE = 0o444

_OLLAMA = "oci://registry.ollama.ai/"
# What /bin/sh changes between double quotes, and then its echo; \" is left out because people write it for this very shell
_SHELL = re.compile(r'\\[\\$`\n]|\\[0-7abcefnrtv]|\\\Z|["`]|\$(?=[A-Za-z0-9_{(@*#?$!-])')
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")


@dataclass(frozen=True)
class Overrides:
    """What a user wants otherwise: versions of LocalAI and its backends, and references by the names of :class:`Sources`."""

    version: str = ""
    backend_version: str = ""
    base: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """The images that an image is made of, by reference: ``base``, ``local-ai``, and the backends by their folders."""

    base: str
    local_ai: str
    backends: tuple[tuple[Backend, str], ...]

    def as_dict(self) -> dict[str, str]:
        """Every reference by its name, in the order of the layers."""
        return {"base": self.base, "local-ai": self.local_ai, **{backend.directory: ref for backend, ref in self.backends}}


@dataclass(frozen=True)
class BaseLayer:
    """One layer of the base, kept as it is. ``path`` is where its blob is, or will be."""

    path: str
    digest: str
    diff_id: str
    size_bytes: int
    media_type: str
    source: str


@dataclass(frozen=True)
class Parts:
    """What was found for :class:`Sources`: layers of the base, the modes of its folders, LocalAI's program, backends as tars.

    ``digests`` has the digest of each source by its name. ``folders`` are mode, uid and gid of ``usr`` and ``usr/bin``.
    """

    base_layers: tuple[BaseLayer, ...]
    folders: Mapping[str, tuple[int, int, int]]
    local_ai: FileRef
    backends: tuple[tuple[str, FileRef], ...]
    digests: Mapping[str, str]


def overrides(option: Optional[Mapping[str, Any]], base: Any) -> Overrides:
    """Read options ``localai`` and ``base``."""
    given = option or {}
    if base and not isinstance(base, str):
        hint = "For bases by platform write server: llama_cpp."
        raise AikitError("base: server localai takes the reference of one image, which may have several platforms.", hint)
    if base and base.startswith(("/", "./", "~", "oci:")):
        raise AikitError(
            f"base: {base} is a path, and server localai takes the reference of an image.",
            "Leave base out for AIKit's own; for llama.cpp's server on that base write server: llama_cpp.",
        )
    return Overrides(str(given.get("version") or ""), str(given.get("backend_version") or ""), base or "", dict(given.get("sources") or {}))


def release(aikit_version: str) -> Optional[Release]:
    """The table's entry for a release; None for one that is not in it."""
    version = data_aikit.parse_version(aikit_version)
    return next((entry for entry in data_aikit_release.RELEASES if entry.version == version), None)


def server_version(runtime: str, aikit_version: str) -> str:
    """The version of the llama-cpp backend that a release puts into its images; empty where it is not known."""
    version = builder.release(aikit_version)
    known = next((entry for entry in data_aikit_release.RELEASES if entry.version == version), None)
    if known is not None:
        return known.legacy if runtime == "applesilicon" else known.backend
    older = [localai for found, _date, localai in data_aikit.RELEASES if found <= version]
    return f"v{older[-1]}" if older and runtime != "applesilicon" else ""


def obstacle(aikitfile: Aikitfile, aikit_version: str, architectures: Sequence[str]) -> str:
    """Why AIKit's image of this aikitfile cannot be assembled from layers; empty when it can."""
    wish = builder.Wish(
        server="localai",
        version=builder.release(aikit_version),
        runtime=aikitfile.runtime,
        backend=aikitfile.backends[0] if aikitfile.backends else "",
        has_models=bool(aikitfile.models),
        platforms=tuple(f"linux/{name}" for name in architectures),
    )
    return builder.why_not_direct(wish)


def require_direct(aikitfile: Aikitfile, aikit_version: str, architectures: Sequence[str]) -> Release:
    """The release, or :class:`AikitError` with what stands against it."""
    found = release(aikit_version)
    why = obstacle(aikitfile, aikit_version, architectures)
    if why or found is None:
        hint = "Use builder: buildkit, which lets AIKit's own frontend do it"
        if aikitfile.runtime == "cuda" and found is not None and found.cuda_commands:
            hint += "; or set aikit_version: main, whose cuda images are made of layers alone"
        raise AikitError(f"server: localai: {why}, so its image cannot be assembled directly.", f"{hint}.")
    return found


def architecture(platforms: Sequence[str], runtime: str, machine: str) -> str:
    """The one architecture an image is for: as asked for, else arm64 for Apple Silicon, else that of the build host."""
    asked = [platform.split("/")[1] for platform in platforms]
    found = asked[0] if asked else "arm64" if runtime == "applesilicon" else {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    if found not in ARCHITECTURES:
        raise AikitError(f"platforms: AIKit has no images for {found}.", "Name linux/amd64 or linux/arm64.")
    if runtime == "applesilicon" and found != "arm64":
        raise AikitError(f"platforms: runtime applesilicon is for linux/arm64 only, not linux/{found}.", "Take platforms out, or name linux/arm64.")
    return found


def backends(runtime: str, architecture_: str) -> tuple[Backend, ...]:
    """The builds of the llama-cpp backend that an image holds; cuda images have the CPU's to fall back on."""
    if runtime == "applesilicon":
        return (VULKAN,)
    if runtime == "cuda" and architecture_ == "amd64":
        return (CUDA, CPU)
    return (CPU,)


def sources(aikitfile: Aikitfile, found: Release, architecture_: str, overrides: Overrides) -> Sources:
    """The references of everything that goes into an image."""
    apple = aikitfile.runtime == "applesilicon"
    version = overrides.version or (found.legacy if apple else found.localai)
    backend_version = overrides.backend_version or (found.legacy if apple else found.backend)
    wanted = backends(aikitfile.runtime, architecture_)
    if apple:
        base = data_aikit_release.APPLE_SILICON_BASE
    else:
        base = found.named_backend_base if aikitfile.backends else data_aikit_release.BASE
    given = dict(overrides.sources)
    tag = f"{data_aikit_release.BACKEND_REPOSITORY}:{backend_version}"
    known = ("base", "local-ai", *data_aikit_release.BACKENDS)
    for key in given:
        if key not in known:
            raise AikitError(f"localai: sources: {key} is no part of an image.", f"Known: {', '.join(known)}.")
    if overrides.base and given.get("base", overrides.base) != overrides.base:
        raise AikitError(f"base is {overrides.base}, and localai: sources: base is {given['base']}.", "Keep one of the two.")
    return Sources(
        overrides.base or given.get("base") or base,
        given.get("local-ai") or f"{data_aikit_release.LOCALAI_REPOSITORY}:{version}-{architecture_}",
        tuple((backend, given.get(backend.directory) or f"{tag}-{backend.tag_suffix}") for backend in wanted),
    )


def folders_of_base(base: str) -> bool:
    """Whether /usr and /usr/bin keep the modes that they have in the base.

    AIKit copies LocalAI into Ubuntu, and lays the difference over its own base: there the folders are Ubuntu's, root's and 0755.
    """
    return base != data_aikit_release.BASE


def metadata(found: Release, backend: Backend) -> bytes:
    """The metadata.json that makes LocalAI list a backend as installed."""
    lines = ['  "alias": "llama-cpp"', f'  "name": "{backend.directory}"', f'  "gallery_url": "{data_aikit_release.GALLERY_URL}"']
    if found.installed_at:
        lines.append(f'  "installed_at": "{INSTALLED_AT}"')
    return ("{\n" + ",\n".join(lines) + "\n}").encode()


@dataclass(frozen=True)
class Texts:
    """What is written into an image: config.yaml (None where there is none), templates by name, and errors about them."""

    config: Optional[bytes]
    templates: Mapping[str, bytes]
    findings: tuple[Finding, ...] = ()


def texts(aikitfile: Aikitfile, found: Release, text_lines: Optional[Mapping[str, int]] = None) -> Texts:
    """The texts as the release writes them. What its shell would change is an error with its position.

    ``text_lines`` has the line of the aikitfile on which each text begins, by its path.
    """
    findings: list[Finding] = []
    lines = text_lines or {}

    def written(path: str, text: str) -> bytes:
        if found.shell_text:
            text, finding = shell_text(text, path, lines.get(path, 0), data_aikit.describe(found.version))
            findings.extend(finding)
        return text.encode("utf-8")

    templates: dict[str, bytes] = {}
    for index, model in enumerate(aikitfile.models):
        for number, template in enumerate(model.prompt_templates):
            if not template.name or not template.template:
                continue
            path = f"models[{index}].promptTemplates[{number}]"
            if found.shell_text and not _TEMPLATE_NAME.match(template.name):
                message = f"{template.name!r} is a word that the shell of AIKit {data_aikit.describe(found.version)} may read as something else"
                findings.append(Finding("error", f"{path}.name", aikitfile.line(f"{path}.name"), message, "use letters, digits, dots, - and _ alone"))
            templates[template.name] = written(f"{path}.template", template.template)
    config = written("config", aikitfile.config) if aikitfile.config else None
    return Texts(config, templates, tuple(findings))


def shell_text(text: str, path: str, first_line: int, version: str) -> tuple[str, tuple[Finding, ...]]:
    r"""What ``sh -c 'echo -n "TEXT"'`` writes, of texts of which it changes nothing but ``\"``; an error about others."""
    hits = [match for match in _SHELL.finditer(text) if not _escaped_quote(text, match)]
    if not hits:
        return text.replace('\\"', '"'), ()
    offset = hits[0].start()
    row = text.count("\n", 0, offset)
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    line = first_line + row if first_line else 0
    where = f"line {line}, character {column}" if line else f"line {row + 1} of the text, character {column}"
    more = f" and {len(hits) - 1} more" if len(hits) > 1 else ""
    what = {"\n": "a backslash at the end of the line"}.get(hits[0].group()[-1:], hits[0].group())
    return text, (
        Finding(
            "error",
            path,
            line,
            f"{what} at {where}{more}: AIKit {version} hands this text to a shell, which changes it or runs a part of it",
            r"do without double quotes (but for \"), $, backticks and backslashes; or set aikit_version: main, which passes texts verbatim",
        ),
    )


def _escaped_quote(text: str, match: re.Match[str]) -> bool:
    r"""Whether a lone quote that was found is the end of ``\"``; a backslash before that one would be a hit of its own."""
    return match.group() == '"' and text[match.start() - 1 : match.start()] == "\\"


def container_config(aikitfile: Aikitfile, found: Release, architecture_: str) -> dict[str, Any]:
    """Env, Entrypoint, Cmd and WorkingDir, as AIKit sets them. There are no labels, and two variables may have one name."""
    env = [f"PATH={PATH}", f"CONFIG_FILE={data_aikit_release.CONFIG_FILE}"]
    if aikitfile.load_to_memory and found.load_to_memory:
        env.append(f"LOCALAI_LOAD_TO_MEMORY={','.join(aikitfile.load_to_memory)}")
    if aikitfile.runtime == "cuda":
        env += found.cuda_env
    if aikitfile.runtime == "applesilicon":
        env += APPLE_SILICON_ENV
    command = ["--debug"] if aikitfile.debug else []
    if aikitfile.config:
        command.append(f"--config-file={data_aikit_release.CONFIG_FILE}")
    return {
        **({"Cmd": command} if command else {}),
        "Entrypoint": ["local-ai"],
        "Env": env,
        "WorkingDir": "/",
    }


def model_mode(aikitfile: Aikitfile, model: ModelFile) -> int:
    """The mode of a model's file: those of artifacts of a registry are as oras writes them, all others are read-only."""
    source = next((entry.source for entry in aikitfile.models if entry.name == model.name), "")
    return OCI_MODE if source.startswith("oci://") and not source.startswith(_OLLAMA) else MODEL_MODE


def recipe(
    name: str, aikitfile: Aikitfile, aikit_version: str, found: Release, architecture_: str, parts: Parts, models: Sequence[ModelFile], written: Texts
) -> ImageRecipe:
    """The image: base, LocalAI, backends, one layer a model, one for all that came with models and is none, configuration last."""
    refs = parts.digests
    layers = [
        LayerRecipe("base", "base", (FileRef(layer.path, layer.size_bytes),), layer.media_type, layer.diff_id, layer.digest, layer.source)
        for layer in parts.base_layers
    ]
    layers.append(LayerRecipe("server", "local-ai", segments(_program_entries(parts))))
    layers += [LayerRecipe("backend", directory, (file,)) for directory, file in parts.backends]
    seen: set[str] = set()
    companions = [model for model in models if model.companion]
    models = [model for model in models if not model.companion]
    for model in models:
        layers.append(LayerRecipe("model", model.name, model_parts(model, seen, model_mode(aikitfile, model))))
    if companions:
        # There may be hundreds, and engines take about 125 layers
        beside = [entry for file in companions for entry in file_entries(file, seen, model_mode(aikitfile, file))]
        layers.append(LayerRecipe("model", "files beside the models", segments(beside)))
    entries = _text_entries(written, seen)
    if entries:
        layers.append(LayerRecipe("config", "config.yaml and templates", segments(entries)))
    listed = [{"name": model.name, "sha256": model.sha256, "size_bytes": model.size_bytes} for model in models]
    base_name, dummy, base_digest = refs["base"].rpartition("@")
    # The tag of a backend begins with its version, unless somebody names another source for it
    backend = re.search(r":(v\d+\.\d+\.\d+)-", refs[posixpath.basename(parts.backends[0][0])])
    return ImageRecipe(
        name=name,
        architecture=architecture_,
        layers=tuple(layers),
        config=container_config(aikitfile, found, architecture_),
        # AIKit's images have no labels: what ours say of themselves stands in the manifest, and for engines in a comment
        commented=True,
        annotations={
            "io.aikit.fleet.aikit.version": aikit_version,
            "io.aikit.fleet.aikitfile.sha256": aikitfile.sha256,
            "io.aikit.fleet.inputs": canonical(refs).decode("utf-8"),
            "io.aikit.fleet.models": canonical(listed).decode("utf-8"),
            "io.aikit.fleet.runtime": aikitfile.runtime,
            "io.aikit.fleet.server": "localai",
            **({"io.aikit.fleet.server.version": backend.group(1)} if backend else {}),
            "org.opencontainers.image.base.digest": base_digest,
            "org.opencontainers.image.base.name": base_name,
            "org.opencontainers.image.title": ", ".join(dict.fromkeys(model.name for model in models)),
        },
    )


def _program_entries(parts: Parts) -> list[Entry]:
    entries = []
    for path in ("usr", "usr/bin"):
        mode, uid, gid = parts.folders.get(path, (0o755, 0, 0))
        entries.append(Entry(path, mode, None, (uid, gid)))
    return [*entries, Entry(LOCALAI_PATH, 0o755, (parts.local_ai,))]


def _text_entries(written: Texts, seen: set[str]) -> list[Entry]:
    entries = []
    if written.config is not None:
        entries += [Entry("config.yaml", 0o644, (written.config,)), Entry("configuration", 0o755)]
    if written.templates and "models" not in seen:
        entries.append(Entry("models", 0o755))
    entries += [Entry(f"models/{name}.tmpl", 0o644, (written.templates[name],)) for name in sorted(written.templates)]
    return entries
