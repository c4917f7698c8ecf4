# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From an aikitfile, a base and model files to the layers, the config and the manifest of an OCI image.

Pure: a recipe names files, their bytes are read by ``_io.image``. The same inputs give the same
bytes on every Python, so an image has one digest wherever it is built.
Source of the JSON shapes: OCI image specification 1.1 (config.md, manifest.md, image-layout.md).
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Collection, Iterable, Mapping, Optional, Sequence, Union

from . import image_base, reference
from .aikitfile import Aikitfile, shard
from .base import Base
from .engine import ImageState
from .errors import AikitError
from .image_base import ImageBase
from .oci import MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER, MEDIA_MANIFEST, Descriptor, canonical, comment_of, platform_dict, sha256
from .plan import Action
from .tar import Entry, FileRef, Segment, segments, total_size

if TYPE_CHECKING:
    from .llama_server import ServerSettings

# A fixed moment: engines show an age for it, and a digest does not depend on the clock
CREATED = "1970-01-01T00:00:00Z"
MODELS_DIR = "models"
AIKITFILE_PATH = "aikit/aikitfile.yaml"
CONFIG_PATH = "aikit/config.yaml"
USER = "65532:65532"
PORT = 8080
# The default name of an image that is built for a service begins so
BUILT_HERE = "localhost/aikit/"
# Labels that are annotations of the manifest as well: who looks for an image in a registry reads no config
ANNOTATIONS = frozenset(("io.aikit.fleet.aikitfile.sha256", "io.aikit.fleet.base.packages", "io.aikit.fleet.models"))
# Those that differ from platform to platform
PLATFORM_ANNOTATIONS = ("org.opencontainers.image.base.", "io.aikit.fleet.base.packages", "io.aikit.fleet.inputs")
# Directories that a base has; a directory entry of ours would reset their mode
BASE_DIRECTORIES = frozenset(("", "etc", "usr", "usr/share", "var", "opt", "tmp", "run", "cache"))


@dataclass(frozen=True)
class ModelFile:
    """A model of the aikitfile, the file that holds it on the build host, and its place below /models of the image.

    ``file`` is where AIKit would put it; by default the name of the file. A ``companion`` came with a model and is no part of it,
    such as its license.
    """

    name: str
    path: str
    sha256: str
    size_bytes: int
    file: str = ""
    companion: bool = False

    @property
    def image_path(self) -> str:
        return posixpath.join(MODELS_DIR, self.file or posixpath.basename(self.path))


@dataclass(frozen=True)
class LayerRecipe:
    """A layer to be: ``role`` is base, model or config; ``title`` is for people.

    A layer of another image is kept as it is: its ``digest`` is known, ``media_type`` may say that it is compressed, and then
    ``diff_id`` is the digest of what it unpacks to. ``source`` is the repository (``host/path``) that has the blob; its parts name the
    file that it will be in once it is needed here.
    """

    role: str
    title: str
    parts: tuple[Segment, ...]
    media_type: str = MEDIA_LAYER
    diff_id: str = ""
    digest: str = ""
    source: str = ""

    @property
    def size_bytes(self) -> int:
        return total_size(self.parts)


@dataclass(frozen=True)
class Layer:
    """A layer with its digest (``sha256:…``), which is its diff id too, unless it is compressed."""

    role: str
    title: str
    parts: tuple[Segment, ...]
    digest: str
    size_bytes: int
    media_type: str = MEDIA_LAYER
    diff_id: str = ""
    source: str = ""

    @property
    def unpacked(self) -> str:
        """The digest of what it unpacks to, by which engines know a layer."""
        return self.diff_id or self.digest


@dataclass(frozen=True)
class ImageRecipe:
    """Everything an image is made of, before any byte of a model was read.

    With ``commented`` the annotations are the comment of the config as well: of an image without labels engines know nothing else.
    """

    name: str
    architecture: str
    layers: tuple[LayerRecipe, ...]
    config: Mapping[str, Any]
    annotations: Mapping[str, str]
    variant: str = ""
    commented: bool = False


@dataclass(frozen=True)
class Image:
    """A finished image of one platform. ``id`` is the digest of the config, ``digest`` that of the manifest."""

    name: str
    id: str
    digest: str
    config: bytes
    manifest: bytes
    layers: tuple[Layer, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux/amd64"
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> Mapping[str, str]:
        """What the image says of itself: in labels, or in annotations of its manifest where it must have no labels."""
        return {**self.annotations, **self.labels}

    @property
    def size_bytes(self) -> int:
        return len(self.config) + len(self.manifest) + sum(layer.size_bytes for layer in self.layers)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(MEDIA_MANIFEST, self.digest, len(self.manifest), {}, self.platform)


@dataclass(frozen=True)
class Release:
    """What stands under one name: an image, or an index of several, one a platform, the first of which is for engines that take one only."""

    images: tuple[Image, ...]
    raw: bytes
    media_type: str

    @property
    def name(self) -> str:
        return self.images[0].name

    @property
    def digest(self) -> str:
        return sha256(self.raw)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer once: images of several platforms share those of the models."""
        return tuple({layer.digest: layer for image in self.images for layer in image.layers}.values())

    @property
    def size_bytes(self) -> int:
        own = len(self.raw) if len(self.images) > 1 else 0
        return own + sum(len(image.config) + len(image.manifest) for image in self.images) + sum(layer.size_bytes for layer in self.layers)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw), {}, self.images[0].platform if len(self.images) == 1 else "")

    @property
    def entry(self) -> dict[str, Any]:
        """What stands for it in the index of an OCI layout."""
        names = {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": self.name}
        return {**self.descriptor.as_dict(), "annotations": names}

    def blobs(self) -> dict[str, tuple[Segment, ...]]:
        """Everything that it is made of, by digest."""
        found: dict[str, tuple[Segment, ...]] = {layer.digest: layer.parts for layer in self.layers}
        for image in self.images:
            found.update({image.id: (image.config,), image.digest: (image.manifest,)})
        found[self.digest] = (self.raw,)
        return found


def release(images: Sequence[Image]) -> Release:
    """Put images of several platforms under one name; one image stands for itself."""
    if len(images) == 1:
        return Release(tuple(images), images[0].manifest, MEDIA_MANIFEST)
    annotations = json.loads(images[0].manifest)["annotations"]
    index = {
        "schemaVersion": 2,
        "mediaType": MEDIA_INDEX,
        "manifests": [image.descriptor.as_dict() for image in images],
        # What differs from platform to platform stands in the manifests
        "annotations": {key: value for key, value in annotations.items() if not key.startswith(PLATFORM_ANNOTATIONS)},
    }
    return Release(tuple(images), canonical(index), MEDIA_INDEX)


def model_paths(models: Iterable[ModelFile]) -> dict[str, str]:
    """Where each model lies in the image; further files of one model (shards, a glob) stand under their own names.

    :class:`AikitError` where two files would get one path, or two models one name: one would stand for the other.
    """
    paths: dict[str, str] = {}
    named: set[str] = set()
    owners: dict[str, ModelFile] = {}
    folders: dict[str, ModelFile] = {}
    for model in models:
        other = owners.get(model.image_path) or folders.get(model.image_path)
        other = other or next((owners[parent] for parent in _folders(model.image_path) if parent in owners), None)
        if other is not None:
            raise AikitError(
                f"models: {other.path} of {other.name} and {model.path} of {model.name} cannot both be in the image: "
                f"they would be /{other.image_path} and /{model.image_path}.",
                "Rename one of the files.",
            )
        owners[model.image_path] = model
        folders.update((parent, model) for parent in _folders(model.image_path))
        key = model.name if model.name not in named else model.image_path[len(MODELS_DIR) + 1 :]
        named.add(model.name)
        if key in paths:
            raise AikitError(
                f"models: {model.path} of {model.name} would be called {key}, as another model is already.",
                "Rename one of the models, or the file.",
            )
        paths[key] = f"/{model.image_path}"
    return paths


def check_parts(models: Sequence[ModelFile], counts: Mapping[str, int]) -> frozenset[str]:
    """Refuse a split model of which a part is missing; the ``path`` of every part of those that are whole.

    ``counts`` has the number of parts that the header of the file at ``path`` tells, where one was read.
    """
    have = {model.image_path for model in models}
    whole = set()
    for model in models:
        part, count = shard(model.image_path)
        told = counts.get(model.path, count)
        if count > 1 and told != count:
            raise AikitError(
                f"models: {model.path} of {model.name} is part {part} of {count} by its name, and one of {told} by its content.",
                "The server finds the parts by their names: give the files the names that they were made with.",
            )
        if count < 2 or count > 999:
            continue
        stem = model.image_path[: -len("-00001-of-00002.gguf")]
        missing = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
        missing = [posixpath.basename(path) for path in missing if path not in have]
        if missing:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            raise AikitError(
                f"models: {model.path} of {model.name} is part {part} of {count}, and {len(missing)} of the others are missing: {shown}.",
                "List every part under models, or put them where the source finds them.",
            )
        whole.add(model.path)
    return frozenset(whole)


def check_runtime(runtime: str, base: Union[Base, ImageBase]) -> None:
    """Refuse a base that cannot do what the aikitfile's ``runtime`` promises (a silent CPU fallback otherwise)."""
    has = ", ".join(base.backends) or "none"
    own = isinstance(base, Base)
    if runtime == "cuda" and "cuda" not in base.backends:
        raise AikitError(
            f"runtime: cuda needs a base with llama.cpp's CUDA backend; this base has: {has}.",
            f"{'Set llama_cpp_base_variant to cuda' if own else 'Name an image with it'}, or take runtime out of the aikitfile for a CPU image.",
        )
    if runtime == "applesilicon" and ("vulkan" not in base.backends or base.architecture != "arm64"):
        raise AikitError(
            f"runtime: applesilicon needs an arm64 base with llama.cpp's Vulkan backend; this base is {base.architecture} with: {has}.",
            "Set llama_cpp_base_variant to vulkan and llama_cpp_base_architecture to arm64." if own else "Name an image that has both.",
        )
    if runtime == "rocm" and "hip" not in base.backends:
        raise AikitError(
            f"runtime: rocm needs a base with llama.cpp's HIP backend; this base has: {has}.",
            "Debian has no such package; use runtime: cuda or a CPU image, or name an image with it as base.",
        )


def recipe(
    name: str,
    aikitfile: Aikitfile,
    base: Union[Base, ImageBase],
    base_path: str,
    models: Sequence[ModelFile],
    settings: ServerSettings,
    blob_path: Callable[[str], str] = str,
) -> ImageRecipe:
    """The image of ``aikitfile`` for llama.cpp's server: base, one layer a model file, config last.

    ``base_path`` is the file of a base that is one; ``blob_path`` says by digest where the layers of an image are, or will be.
    """
    check_runtime(aikitfile.runtime, base)
    if isinstance(base, Base):
        layers = [LayerRecipe("base", f"{base.suite} {base.variant}", (FileRef(base_path, base.size_bytes),))]
    else:
        layers = [_kept(base, layer, diff_id, blob_path) for layer, diff_id in zip(base.layers, base.diff_ids)]
    seen: set[str] = set()
    for model in models:
        layers.append(LayerRecipe("model", model.name, model_parts(model, seen)))
    layers.append(LayerRecipe("config", "aikitfile and settings", segments(_config_entries(aikitfile, settings, seen))))
    labels = _labels(aikitfile, base, models)
    return ImageRecipe(
        name=name,
        architecture=base.architecture,
        layers=tuple(layers),
        config=_container_config(base, settings, labels),
        annotations={key: value for key, value in labels.items() if key.startswith("org.opencontainers.") or key in ANNOTATIONS},
        variant=platform_dict(base.platform).get("variant", "") if isinstance(base, ImageBase) else "",
    )


def _kept(base: ImageBase, layer: Descriptor, diff_id: str, blob_path: Callable[[str], str]) -> LayerRecipe:
    """A layer of another image, as it is."""
    return LayerRecipe(
        role="base",
        title=base.ref,
        parts=(FileRef(blob_path(layer.digest), layer.size),),
        media_type=layer.media_type,
        diff_id=diff_id if diff_id != layer.digest else "",
        digest=layer.digest,
        source=base.source,
    )


def laid_over(models: Sequence[ModelFile], later: ModelFile, no_weights: Collection[str]) -> list[ModelFile]:
    """``models`` and ``later`` after them: of two files with one name AIKit's image has the later one.

    ``no_weights`` are the paths of files that no server needs; those of models are never replaced.
    """
    kept = [entry for entry in models if not later.companion or entry.file != later.file or f"/{entry.image_path}" not in no_weights]
    return [*kept, later]


def model_parts(model: ModelFile, seen: set[str], mode: int = 0o444) -> tuple[Segment, ...]:
    """The layer of one model; ``seen`` are the folders that earlier layers have, and is added to."""
    return segments(file_entries(model, seen, mode))


def file_entries(model: ModelFile, seen: set[str], mode: int = 0o444) -> list[Entry]:
    """The file of a model and the folders that it is the first in."""
    return [*_parents(model.image_path, seen), Entry(model.image_path, mode, (FileRef(model.path, model.size_bytes),))]


def finish(plan: ImageRecipe, digests: Sequence[str]) -> Image:
    """The image, once the digest (``sha256:…``) of every layer is known."""
    layers = tuple(
        Layer(layer.role, layer.title, layer.parts, digest, layer.size_bytes, layer.media_type, layer.diff_id, layer.source)
        for layer, digest in zip(plan.layers, digests)
    )
    history = [{"created": CREATED, "created_by": f"aikit.fleet {layer.role}", "comment": layer.title} for layer in layers]
    comment = comment_of(plan.annotations) if plan.commented else ""
    if comment:
        # Docker's graph drivers show the comment of the config, its containerd store that of the last step; Podman lists all steps
        history[-1]["comment"] = comment
    config = canonical(
        {
            "architecture": plan.architecture,
            **({"comment": comment} if comment else {}),
            "config": plan.config,
            "created": CREATED,
            "history": history,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.unpacked for layer in layers]},
            **({"variant": plan.variant} if plan.variant else {}),
        }
    )
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {"mediaType": MEDIA_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [
                {
                    "mediaType": layer.media_type,
                    "digest": layer.digest,
                    "size": layer.size_bytes,
                    "annotations": {"io.aikit.fleet.role": layer.role, "org.opencontainers.image.title": layer.title},
                }
                for layer in layers
            ],
            "annotations": plan.annotations,
        }
    )
    return Image(
        name=plan.name,
        id=sha256(config),
        digest=sha256(manifest),
        config=config,
        manifest=manifest,
        layers=layers,
        labels=plan.config.get("Labels", {}),
        env=dict(pair.split("=", 1) for pair in plan.config["Env"]),
        platform="/".join(part for part in ("linux", plan.architecture, plan.variant) if part),
        annotations=plan.annotations,
    )


def archive(image: Union[Image, Release], omit: Collection[str] = ()) -> tuple[Segment, ...]:
    """One tar that is a docker-archive and an OCI layout at once; ``omit`` names layer digests to leave out.

    Every engine since Docker 20.10 and Podman 4 loads it; without all layers it loads where an
    engine has the missing ones already, on the same chain. Of several platforms, a docker-archive has the first.
    """
    whole = image if isinstance(image, Release) else release([image])
    blobs = {digest: parts for digest, parts in whole.blobs().items() if digest not in omit}
    index = {"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": [whole.entry]}
    first = whole.images[0]
    docker_manifest = [
        {
            "Config": _blob_path(first.id),
            "RepoTags": [first.name],
            "Layers": [_blob_path(layer.digest) for layer in first.layers],
        }
    ]
    entries = [
        Entry("oci-layout", 0o644, (canonical({"imageLayoutVersion": "1.0.0"}),)),
        Entry("index.json", 0o644, (canonical(index),)),
        Entry("manifest.json", 0o644, (canonical(docker_manifest),)),
        Entry("blobs", 0o755),
        Entry("blobs/sha256", 0o755),
    ]
    entries.extend(Entry(_blob_path(digest), 0o644, blobs[digest]) for digest in sorted(blobs))
    return segments(entries)


def load_action(image: Image, engine: str, observed: Optional[ImageState], found: Optional[ImageState]) -> Optional[Action]:
    """What an engine needs: nothing (``observed`` is the image under its name), a tag, or a load."""
    if observed is not None and observed.id in (image.id, image.digest):
        return None
    if found is not None:
        return Action("tag", image.name, engine)
    return Action("load", image.name, engine)


def describe(image: Image) -> dict[str, Any]:
    """What ``--diff`` shows of an image that is wanted."""
    return _described([(layer.role, layer.title, layer.unpacked) for layer in image.layers], image.env, image.labels)


def describe_observed(state: Optional[ImageState], wanted: Image) -> dict[str, Any]:
    """The same of the image that stands under the name now; layers get the titles of the wanted ones where they fit."""
    if state is None:
        return {}
    titles = {layer.unpacked: (layer.role, layer.title) for layer in wanted.layers}
    positions = [(layer.role, layer.title) for layer in wanted.layers]
    layers = []
    for position, digest in enumerate(state.layers):
        fallback = positions[position] if position < len(positions) else ("layer", "")
        role, title = titles.get(digest, fallback)
        layers.append((role, title, digest))
    return _described(layers, state.env, state.labels)


def result(whole: Release, reused: Collection[str], models: Sequence[ModelFile]) -> dict[str, Any]:
    """The module's ``image`` key. ``reused`` names the layer digests that did not have to be sent.

    Of several platforms, ``id``, ``env`` and ``labels`` are those of the first; ``platforms`` has each.
    """
    first = whole.images[0]
    config = json.loads(first.config)["config"]
    several = {
        "platforms": [
            {
                "platform": image.platform,
                "digest": image.digest,
                "id": image.id,
                "base": _base_of(image.facts),
                "layers": [layer.digest for layer in image.layers],
            }
            for image in whole.images
        ]
    }
    return {
        "ref": whole.name,
        "digest": whole.digest,
        "id": first.id,
        "size_bytes": whole.size_bytes,
        "layers": [
            {
                "role": layer.role,
                "title": layer.title,
                "digest": layer.digest,
                **({"diff_id": layer.diff_id} if layer.diff_id else {}),
                "size_bytes": layer.size_bytes,
                "reused": layer.digest in reused,
            }
            for layer in (first.layers if len(whole.images) == 1 else whole.layers)
        ],
        "server": first.facts["io.aikit.fleet.server"],
        "runtime": first.facts["io.aikit.fleet.runtime"],
        "models": [{"name": model.name, "sha256": model.sha256, "size_bytes": model.size_bytes} for model in models if not model.companion],
        "base": _base_of(first.facts),
        "env": dict(first.env),
        "entrypoint": list(config.get("Entrypoint") or ()),
        "command": list(config.get("Cmd") or ()),
        "architecture": first.platform.split("/")[1],
        "labels": dict(first.labels),
        "annotations": dict(first.annotations),
        **(several if len(whole.images) > 1 else {}),
    }


def _base_of(labels: Mapping[str, str]) -> dict[str, str]:
    return {"ref": labels.get("org.opencontainers.image.base.name", ""), "digest": labels.get("org.opencontainers.image.base.digest", "")}


def info(state: ImageState, asked: str = "", annotations: Optional[Mapping[str, str]] = None) -> dict[str, Any]:
    """What an image says of itself, whoever built it; fields that it does not say are empty.

    ``asked`` is the name under which it was found, of which it may have several. ``annotations`` are those of its manifest, which
    registries and layouts have and engines do not. Images with LocalAI have no labels, because AIKit's have none: they speak in
    annotations, and in a comment that says the same.
    """
    annotations = annotations or state.facts
    labels = {**state.facts, **annotations, **state.labels}
    server = labels.get("io.aikit.fleet.server", "")
    if not server and any(posixpath.basename(word) == "local-ai" for word in state.entrypoint):
        server = "localai"
    runtime = labels.get("io.aikit.fleet.runtime", labels.get("ai.kaito.aikit.runtime", ""))
    if not runtime and state.env.get("BUILD_TYPE") == "cublas":
        # AIKit puts no label on its images; its cuda images carry this variable
        runtime = "cuda"
    return {
        "ref": _asked_for(state.tags, asked),
        "tags": list(state.tags),
        "digest": state.digests[0].partition("@")[2] if state.digests else "",
        "id": state.id,
        "runtime": runtime,
        "server": server,
        "models": _listed_models(labels.get("io.aikit.fleet.models", "")),
        "aikitfile_sha256": labels.get("io.aikit.fleet.aikitfile.sha256", ""),
        "base": _base_of(labels),
        "labels": dict(state.labels),
        "annotations": dict(annotations),
        "env": dict(state.env),
        "entrypoint": list(state.entrypoint),
        "command": list(state.cmd),
        "architecture": state.architecture,
        "platform": f"{state.os or 'linux'}/{state.architecture}" if state.architecture else "",
    }


def built_here(state: ImageState) -> bool:
    """Whether aikit.fleet built an image: by its labels, by its comment, or by a name that only images for services get.

    What BuildKit makes with AIKit's frontend has neither labels nor a comment of ours.
    """
    return any("io.aikit.fleet.server" in told for told in (state.labels, state.facts)) or any(tag.startswith(BUILT_HERE) for tag in state.tags)


def _asked_for(tags: Sequence[str], asked: str) -> str:
    """The tag that was meant by ``asked`` (engines complete short names with a registry); the first where it was an id."""
    full = reference.complete(asked) if asked else ""
    exact = [tag for tag in tags if full and tag == full]
    longer = [tag for tag in tags if full and tag.endswith(f"/{full}")]
    return next(iter((*exact, *longer, *tags)), "")


def _listed_models(label: str) -> list[Any]:
    """The models of the label; nothing when somebody else wrote it, in another form."""
    try:
        found = json.loads(label) if label else []
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(entry, dict) for entry in found) else []


def _described(layers: Iterable[tuple[str, str, str]], env: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "layers": [f"{role}: {title} {digest}" for role, title, digest in layers],
        "env": dict(env),
        "labels": dict(labels),
    }


def _container_config(base: Union[Base, ImageBase], settings: ServerSettings, labels: Mapping[str, str]) -> dict[str, Any]:
    """The run-time half of the image config; settings are environment variables so that a host can override each."""
    second = 1_000_000_000
    config: dict[str, Any] = {
        "Cmd": list(settings.args),
        "Entrypoint": [base.server.path],
        "Env": [f"{key}={value}" for key, value in sorted(_environment(base, settings).items())],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Labels": dict(labels),
        "StopSignal": "SIGTERM",
        "User": USER,
        "WorkingDir": "/",
    }
    if isinstance(base, Base):
        # wget comes with the base (llama.cpp-tools depends on it); /health is 503 until the model is loaded
        config["Healthcheck"] = {
            "Test": ["CMD", "/usr/bin/wget", "-q", "-T", "5", "-t", "1", "-O", "/dev/null", f"http://127.0.0.1:{PORT}/health"],
            "Interval": 10 * second,
            "Timeout": 6 * second,
            "StartPeriod": 600 * second,
            "Retries": 3,
        }
    else:
        # What programs an image has only its makers know: their check, where they have one
        if base.config.get("Healthcheck"):
            config["Healthcheck"] = base.config["Healthcheck"]
        config["WorkingDir"] = base.config.get("WorkingDir") or "/"
    return config


def _environment(base: Union[Base, ImageBase], settings: ServerSettings) -> dict[str, str]:
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    if isinstance(base, ImageBase):
        env.update(image_base.env_pairs(base.config))
        if base.library_path:
            env["LD_LIBRARY_PATH"] = image_base.joined((base.library_path, env.get("LD_LIBRARY_PATH", "")))
    elif "vulkan" in base.backends:
        # Mesa compiles shaders for a minute at every start unless it finds them again
        env["MESA_SHADER_CACHE_DIR"] = "/cache"
    if "cuda" in base.backends:
        # Read by the NVIDIA container runtime: `--gpus all` and a bare run under that runtime get the GPUs
        env["NVIDIA_VISIBLE_DEVICES"] = "all"
        env["NVIDIA_DRIVER_CAPABILITIES"] = "compute,utility"
    return {**env, **settings.env}


def _labels(aikitfile: Aikitfile, base: Union[Base, ImageBase], models: Sequence[ModelFile]) -> dict[str, str]:
    listed = [{"name": model.name, "sha256": model.sha256, "size_bytes": model.size_bytes} for model in models]
    labels = {
        "io.aikit.fleet.aikitfile.sha256": aikitfile.sha256,
        "io.aikit.fleet.backends": ",".join(base.backends),
        "io.aikit.fleet.models": canonical(listed).decode("utf-8"),
        "io.aikit.fleet.runtime": aikitfile.runtime,
        "io.aikit.fleet.server": "llama_cpp",
        "io.aikit.fleet.server.version": base.server.version,
        "org.opencontainers.image.title": ", ".join(model.name for model in models),
    }
    if isinstance(base, Base):
        packages = [package for package in base.packages if package.get("name", "").startswith(("llama.cpp", "libggml"))]
        labels["io.aikit.fleet.base.packages"] = " ".join(f"{package['name']}={package['version']}" for package in packages)
        labels["org.opencontainers.image.base.digest"] = f"sha256:{base.sha256}"
        labels["org.opencontainers.image.base.name"] = f"aikit.fleet/llama_cpp_base:{base.suite}-{base.variant}"
        return labels
    labels["org.opencontainers.image.base.digest"] = base.digest
    labels["org.opencontainers.image.base.name"] = base.ref
    inherited = base.config.get("Labels") or {}
    # What a base says of itself as an image is not true of this one
    return {**{key: value for key, value in inherited.items() if not key.startswith(("org.opencontainers.image.", "io.aikit.fleet."))}, **labels}


def _config_entries(aikitfile: Aikitfile, settings: ServerSettings, seen: set[str]) -> list[Entry]:
    files = {AIKITFILE_PATH: aikitfile.text}
    if aikitfile.config:
        files[CONFIG_PATH] = aikitfile.config
    files.update({path.lstrip("/"): text for path, text in settings.files.items()})
    entries: list[Entry] = []
    for path in sorted(files):
        entries.extend(_parents(path, seen))
        entries.append(Entry(path, 0o444, (files[path].encode("utf-8"),)))
    return entries


def _parents(path: str, seen: set[str]) -> list[Entry]:
    """Directory entries for the parents of ``path`` that neither the base nor an earlier layer has."""
    entries: list[Entry] = []
    parent = posixpath.dirname(path)
    while parent not in BASE_DIRECTORIES and parent not in seen:
        seen.add(parent)
        entries.insert(0, Entry(parent, 0o755))
        parent = posixpath.dirname(parent)
    return entries


def _folders(path: str) -> list[str]:
    """The folders above ``path``, the nearest first."""
    parent = posixpath.dirname(path)
    return [parent, *_folders(parent)] if parent else []


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)
