# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From an aikitfile, a base and model files to the layers, the config and the manifest of an OCI image.

Pure: a recipe names files, their bytes are read by ``_io.image``. The same inputs give the same
bytes on every Python, so an image has one digest wherever it is built.
Source of the JSON shapes: OCI image specification 1.1 (config.md, manifest.md, image-layout.md).
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import dataclass, field
from typing import Any, Collection, Iterable, Mapping, Optional, Sequence

from . import reference
from .aikitfile import Aikitfile
from .base import Base
from .engine import ImageState
from .errors import AikitError
from .llama_server import ServerSettings
from .plan import Action
from .tar import Entry, FileRef, Segment, segments, total_size

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"

# A fixed moment: engines show an age for it, and a digest does not depend on the clock
CREATED = "1970-01-01T00:00:00Z"
MODELS_DIR = "models"
AIKITFILE_PATH = "aikit/aikitfile.yaml"
CONFIG_PATH = "aikit/config.yaml"
USER = "65532:65532"
PORT = 8080
# Directories that a base has; a directory entry of ours would reset their mode
BASE_DIRECTORIES = frozenset(("", "etc", "usr", "usr/share", "var", "opt", "tmp", "run", "cache"))


@dataclass(frozen=True)
class ModelFile:
    """A model of the aikitfile and the file that holds it on the build host.

    ``inside`` is where it lies below /models of the image; empty for the name that the file has on the build host.
    """

    name: str
    path: str
    sha256: str
    size_bytes: int
    inside: str = ""

    @property
    def file_name(self) -> str:
        return self.inside or posixpath.basename(self.path)


@dataclass(frozen=True)
class LayerRecipe:
    """A layer to be: ``role`` is base, model or config; ``title`` is for people."""

    role: str
    title: str
    parts: tuple[Segment, ...]

    @property
    def size_bytes(self) -> int:
        return total_size(self.parts)


@dataclass(frozen=True)
class Layer:
    """A layer with its digest (``sha256:…``), which is its diff id too: layers are not compressed."""

    role: str
    title: str
    parts: tuple[Segment, ...]
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class ImageRecipe:
    """Everything an image is made of, before any byte of a model was read."""

    name: str
    architecture: str
    layers: tuple[LayerRecipe, ...]
    config: Mapping[str, Any]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Image:
    """A finished image. ``id`` is the digest of the config, ``digest`` that of the manifest."""

    name: str
    id: str
    digest: str
    config: bytes
    manifest: bytes
    layers: tuple[Layer, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return len(self.config) + len(self.manifest) + sum(layer.size_bytes for layer in self.layers)


def model_paths(models: Iterable[ModelFile]) -> dict[str, str]:
    """Where each model lies in the image; further files of one model (shards, a glob) stand under their own names.

    :raises AikitError: for two files that would lie in one place: the later layer would hide the earlier one's weights.
    """
    paths: dict[str, str] = {}
    placed: dict[str, ModelFile] = {}
    for model in models:
        other = placed.setdefault(model.file_name, model)
        if other is not model:
            raise AikitError(
                f"Models {other.name} and {model.name} would both lie at /{MODELS_DIR}/{model.file_name} in the image ({other.path} and {model.path}).",
                "Give one of the files another name, or put a folder before the model's name (NAME: FOLDER/NAME) where the source is an address.",
            )
        key = model.name if model.name not in paths else model.file_name
        paths[key] = f"/{MODELS_DIR}/{model.file_name}"
    return paths


def check_reference(name: str) -> str:
    """``name`` with a tag, or :class:`AikitError` when engines would refuse it."""
    full = reference.complete(name)
    if not full:
        raise AikitError(f"name: {name!r} is no image reference.", reference.HINT)
    return full


def check_runtime(runtime: str, base: Base) -> None:
    """Refuse a base that cannot do what the aikitfile's ``runtime`` promises (a silent CPU fallback otherwise)."""
    has = ", ".join(base.backends) or "none"
    if runtime == "cuda" and "cuda" not in base.backends:
        raise AikitError(
            f"runtime: cuda needs a base with llama.cpp's CUDA backend; this base has: {has}.",
            "Set llama_cpp_base_variant to cuda, or take runtime out of the aikitfile for a CPU image.",
        )
    if runtime == "applesilicon" and ("vulkan" not in base.backends or base.architecture != "arm64"):
        raise AikitError(
            f"runtime: applesilicon needs an arm64 base with llama.cpp's Vulkan backend; this base is {base.architecture} with: {has}.",
            "Set llama_cpp_base_variant to vulkan and llama_cpp_base_architecture to arm64.",
        )
    if runtime == "rocm":
        raise AikitError(
            f"runtime: rocm needs a base with llama.cpp's HIP backend; this base has: {has}.",
            "Debian has no such package; use runtime: cuda or a CPU image.",
        )


def recipe(
    name: str,
    aikitfile: Aikitfile,
    base: Base,
    base_path: str,
    models: Sequence[ModelFile],
    settings: ServerSettings,
) -> ImageRecipe:
    """The image of ``aikitfile`` for llama.cpp's server: base, one layer a model, config last."""
    check_runtime(aikitfile.runtime, base)
    layers = [LayerRecipe("base", f"{base.suite} {base.variant}", (FileRef(base_path, base.size_bytes),))]
    seen: set[str] = set()
    for model in models:
        entries = [*_parents(f"{MODELS_DIR}/{model.file_name}", seen)]
        entries.append(Entry(f"{MODELS_DIR}/{model.file_name}", 0o444, (FileRef(model.path, model.size_bytes),)))
        layers.append(LayerRecipe("model", model.name, segments(entries)))
    layers.append(LayerRecipe("config", "aikitfile and settings", segments(_config_entries(aikitfile, settings, seen))))
    labels = _labels(aikitfile, base, models)
    return ImageRecipe(
        name=name,
        architecture=base.architecture,
        layers=tuple(layers),
        config=_container_config(base, settings, labels),
        # Registries and tools read annotations without fetching the configuration that holds the labels
        annotations=labels,
    )


def finish(plan: ImageRecipe, digests: Sequence[str]) -> Image:
    """The image, once the digest (``sha256:…``) of every layer is known."""
    layers = tuple(
        Layer(layer.role, layer.title, layer.parts, digest, layer.size_bytes)
        for layer, digest in zip(plan.layers, digests)
    )
    config = canonical(
        {
            "architecture": plan.architecture,
            "config": plan.config,
            "created": CREATED,
            "history": [
                {"created": CREATED, "created_by": f"aikit.fleet {layer.role}", "comment": layer.title}
                for layer in layers
            ],
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": {"mediaType": MEDIA_CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [
                {
                    "mediaType": MEDIA_LAYER,
                    "digest": layer.digest,
                    "size": layer.size_bytes,
                    "annotations": {"io.aikit.fleet.role": layer.role, "io.aikit.fleet.title": layer.title},
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
        labels=plan.config["Labels"],
        env=dict(pair.split("=", 1) for pair in plan.config["Env"]),
    )


def archive(image: Image, omit: Collection[str] = ()) -> tuple[Segment, ...]:
    """One tar that is a docker-archive and an OCI layout at once; ``omit`` names layer digests to leave out.

    Every engine since Docker 20.10 and Podman 4 loads it; without all layers it loads where an
    engine has the missing ones already, on the same chain.
    """
    blobs: dict[str, tuple[Segment, ...]] = {image.id: (image.config,), image.digest: (image.manifest,)}
    for layer in image.layers:
        if layer.digest not in omit:
            blobs[layer.digest] = layer.parts
    architecture = json.loads(image.config)["architecture"]
    index = {
        "schemaVersion": 2,
        "mediaType": MEDIA_INDEX,
        "manifests": [
            {
                "mediaType": MEDIA_MANIFEST,
                "digest": image.digest,
                "size": len(image.manifest),
                "platform": {"os": "linux", "architecture": architecture},
                "annotations": {
                    "io.containerd.image.name": image.name,
                    "org.opencontainers.image.ref.name": image.name,
                },
            }
        ],
    }
    docker_manifest = [
        {
            "Config": _blob_path(image.id),
            "RepoTags": [image.name],
            "Layers": [_blob_path(layer.digest) for layer in image.layers],
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


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, as UTF-8: the exact bytes that are hashed and stored."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def sha256(data: bytes) -> str:
    """``sha256:<hex>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def load_action(image: Image, engine: str, observed: Optional[ImageState], found: Optional[ImageState]) -> Optional[Action]:
    """What an engine needs: nothing (``observed`` is the image under its name), a tag, or a load."""
    if observed is not None and observed.id in (image.id, image.digest):
        return None
    if found is not None:
        return Action("tag", image.name, engine)
    return Action("load", image.name, engine)


def describe(image: Image) -> dict[str, Any]:
    """What ``--diff`` shows of an image that is wanted."""
    return _described([(layer.role, layer.title, layer.digest) for layer in image.layers], image.env, image.labels)


def describe_observed(state: Optional[ImageState], wanted: Image) -> dict[str, Any]:
    """The same of the image that stands under the name now; layers get the titles of the wanted ones where they fit."""
    if state is None:
        return {}
    titles = {layer.digest: (layer.role, layer.title) for layer in wanted.layers}
    positions = [(layer.role, layer.title) for layer in wanted.layers]
    layers = []
    for position, digest in enumerate(state.layers):
        fallback = positions[position] if position < len(positions) else ("layer", "")
        role, title = titles.get(digest, fallback)
        layers.append((role, title, digest))
    return _described(layers, state.env, state.labels)


def result(image: Image, reused: Collection[str], base: Base, models: Sequence[ModelFile]) -> dict[str, Any]:
    """The module's ``image`` key. ``reused`` names the layer digests that did not have to be sent."""
    return {
        "ref": image.name,
        "digest": image.digest,
        "id": image.id,
        "size_bytes": image.size_bytes,
        "layers": [
            {
                "role": layer.role,
                "title": layer.title,
                "digest": layer.digest,
                "size_bytes": layer.size_bytes,
                "reused": layer.digest in reused,
            }
            for layer in image.layers
        ],
        "server": image.labels["io.aikit.fleet.server"],
        "runtime": image.labels["io.aikit.fleet.runtime"],
        "models": [
            {"name": model.name, "sha256": model.sha256, "size_bytes": model.size_bytes} for model in models
        ],
        "base": {"ref": image.labels["org.opencontainers.image.base.name"], "digest": f"sha256:{base.sha256}"},
        "env": dict(image.env),
        "labels": dict(image.labels),
    }


def info(state: ImageState) -> dict[str, Any]:
    """What an image says of itself, whoever built it; fields that it does not say are empty."""
    labels = state.labels
    server = labels.get("io.aikit.fleet.server", "")
    if not server and any(posixpath.basename(word) == "local-ai" for word in state.entrypoint):
        server = "localai"
    runtime = labels.get("io.aikit.fleet.runtime", labels.get("ai.kaito.aikit.runtime", ""))
    if not runtime and state.env.get("BUILD_TYPE") == "cublas":
        # AIKit puts no label on its images; its cuda images carry this variable
        runtime = "cuda"
    return {
        "ref": state.tags[0] if state.tags else "",
        "digest": state.digests[0].partition("@")[2] if state.digests else "",
        "id": state.id,
        "runtime": runtime,
        "server": server,
        "models": json.loads(labels.get("io.aikit.fleet.models", "[]")),
        "aikitfile_sha256": labels.get("io.aikit.fleet.aikitfile.sha256", ""),
        "base": {
            "ref": labels.get("org.opencontainers.image.base.name", ""),
            "digest": labels.get("org.opencontainers.image.base.digest", ""),
        },
        "labels": dict(labels),
        "env": dict(state.env),
        "entrypoint": list(state.entrypoint),
        "architecture": state.architecture,
    }


def _described(layers: Iterable[tuple[str, str, str]], env: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "layers": [f"{role}: {title} {digest}" for role, title, digest in layers],
        "env": dict(env),
        "labels": dict(labels),
    }


def _container_config(base: Base, settings: ServerSettings, labels: Mapping[str, str]) -> dict[str, Any]:
    """The run-time half of the image config; settings are environment variables so that a host can override each."""
    server = base.server.path
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **settings.env}
    if "vulkan" in base.backends:
        # Mesa compiles shaders for a minute at every start unless it finds them again
        env["MESA_SHADER_CACHE_DIR"] = "/cache"
    if "cuda" in base.backends:
        # Read by the NVIDIA container runtime: `--gpus all` and a bare run under that runtime get the GPUs
        env["NVIDIA_VISIBLE_DEVICES"] = "all"
        env["NVIDIA_DRIVER_CAPABILITIES"] = "compute,utility"
    second = 1_000_000_000
    return {
        "Cmd": list(settings.args),
        "Entrypoint": [server],
        "Env": [f"{key}={value}" for key, value in sorted(env.items())],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        # wget comes with the base (llama.cpp-tools depends on it); /health is 503 until the model is loaded
        "Healthcheck": {
            "Test": ["CMD", "/usr/bin/wget", "-q", "-T", "5", "-t", "1", "-O", "/dev/null", f"http://127.0.0.1:{PORT}/health"],
            "Interval": 10 * second,
            "Timeout": 6 * second,
            "StartPeriod": 600 * second,
            "Retries": 3,
        },
        "Labels": dict(labels),
        "StopSignal": "SIGTERM",
        "User": USER,
        "WorkingDir": "/",
    }


def _labels(aikitfile: Aikitfile, base: Base, models: Sequence[ModelFile]) -> dict[str, str]:
    listed = [{"name": model.name, "sha256": model.sha256, "size_bytes": model.size_bytes} for model in models]
    packages = [package for package in base.packages if package.get("name", "").startswith(("llama.cpp", "libggml"))]
    return {
        "io.aikit.fleet.aikitfile.sha256": aikitfile.sha256,
        "io.aikit.fleet.backends": ",".join(base.backends),
        "io.aikit.fleet.base.packages": " ".join(f"{package['name']}={package['version']}" for package in packages),
        "io.aikit.fleet.models": canonical(listed).decode("utf-8"),
        "io.aikit.fleet.runtime": aikitfile.runtime,
        "io.aikit.fleet.server": "llama_cpp",
        "io.aikit.fleet.server.version": base.server.version,
        "org.opencontainers.image.base.digest": f"sha256:{base.sha256}",
        "org.opencontainers.image.base.name": f"aikit.fleet/llama_cpp_base:{base.suite}-{base.variant}",
        "org.opencontainers.image.title": ", ".join(model.name for model in models),
    }


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


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)
