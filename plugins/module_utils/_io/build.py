# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of the direct builder: observe the inputs and the engines, plan, apply."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Optional, Sequence

from .._core import aikitfile as aikitfiles
from .._core import builder as builders
from .._core import buildkit as buildkit_rules
from .._core import image as images
from .._core import hub, image_base, llama_server, model_source
from .._core.aikitfile import Aikitfile
from .._core import lock as locks
from .._core.errors import AikitError, Finding, raise_for_errors
from .._core.lock import Lock
from .._core.plan import Action, Plan, report
from .._core.reference import check_reference
from .._core.tar import Segment
from . import buildkit, files
from .base_image import FoundBase, find_base
from .cosign import Signatures
from .blob_store import BlobStore
from .engine import open_engine
from .image import FoundModels, find_models, layer_digest
from .localai_image import LocalAIMaker, Maker
from .models import Reach
from .outputs import Outputs, Places
from .registry import Registry, RegistrySettings


@dataclass(frozen=True)
class Request:
    """What the module was asked for; the fields are its options."""

    name: str
    parsed: Optional[dict[str, Any]]
    context: Optional[str]
    server: str
    base: Any
    localai: Optional[dict[str, Any]]
    platforms: list[str]
    aikit_version: str
    load: list[str]
    archive: Optional[str]
    archive_omit: list[str]
    store: str
    cache: str
    token: Optional[str]
    tokens: Optional[dict[str, str]]
    hub_url: str = hub.DEFAULT_URL
    require_sha256: bool = True
    base_server: Optional[dict[str, Any]] = None
    push: bool = False
    oci_layout: Optional[str] = None
    lock: Optional[str] = None
    lock_update: bool = False
    blobs: str = "~/.cache/aikit-fleet/blobs"
    registry_auth_file: Optional[str] = None
    registry_ca_file: Optional[str] = None
    registry_insecure: Sequence[str] = ()
    registry_mirrors: Mapping[str, str] = field(default_factory=dict)
    registry_timeout_seconds: float = 60
    registry_logins: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    builder: str = "auto"
    frontend: Optional[str] = None
    build_args: Optional[dict[str, str]] = None
    secrets: Optional[dict[str, Any]] = None
    cache_from: Sequence[str] = ()
    cache_to: Sequence[str] = ()
    compression: Optional[str] = None
    buildx_builder: Optional[str] = None
    buildkit_image: Optional[str] = None
    buildkitd_config: Optional[str] = None
    verify: Optional[Mapping[str, Any]] = None
    sign_key: Optional[str] = None
    sign_password: Optional[str] = field(default=None, repr=False)
    sign_tlog: bool = False

    @property
    def places(self) -> Places:
        return Places(tuple(self.load), self.archive or "", tuple(self.archive_omit), self.oci_layout or "", self.push)

    @property
    def registry_settings(self) -> RegistrySettings:
        return RegistrySettings(
            self.registry_auth_file,
            self.registry_ca_file,
            tuple(self.registry_insecure or ()),
            self.registry_mirrors or {},
            self.registry_timeout_seconds,
            tuple(self.registry_logins or ()),
        )


def build(request: Request, check_mode: bool) -> dict[str, Any]:
    """The result of module aikit_image."""
    started = time.monotonic()
    name = check_reference(request.name)
    if not request.parsed:
        raise AikitError("parsed: the aikitfile was not read.", "Call aikit.fleet.aikit_image as a task; its action plugin reads the file.")
    source = buildkit_rules.effective(request.parsed, buildkit_rules.build_arguments(request.build_args))
    aikitfile, findings = aikitfiles.load(source, request.aikit_version, tuple(request.platforms))
    choice = builders.decide(request.server, request.builder, aikitfile, request.aikit_version, request.platforms, vars(request))
    if request.lock_update and not request.lock:
        raise AikitError("lock_update is true, and no lock is named.", "Set lock to the path of the lock file.")
    lock = _read_lock(request.lock)
    signatures = Signatures(request, check_mode)
    if choice.builder == "buildkit":
        return buildkit.build(request, choice, aikitfile, findings, name, check_mode, started, lock, signatures)
    cache = files.DigestCache(request.cache, read_only=check_mode)
    pins = Lock() if request.lock_update else lock
    registry, store = Registry(request.registry_settings), BlobStore(request.blobs)
    # Before a model is fetched: what cannot be had, or cannot serve it, is known now
    maker: Maker
    if request.server == "localai":
        maker = LocalAIMaker(request, aikitfile, registry, store, cache, pins, signatures, check_mode)
    else:
        maker = LlamaCppMaker(request, aikitfile, registry, store, cache, pins, signatures)
    context = request.context or request.parsed.get("directory") or ""
    tokens = model_source.tokens_by_source([model.source for model in aikitfile.models], request.token, request.tokens or {}, request.hub_url)
    reach = Reach(hub_url=request.hub_url, registry=request.registry_settings)
    pinned, revisions = _pin_models(aikitfile, pins)
    beside = request.server == "localai"
    found = find_models(pinned, context, request.store, tokens, cache, check_mode, reach, request.require_sha256, revisions, request.lock_update, beside)
    for model in aikitfile.models:
        if model.source.startswith(f"{model_source.OCI}://"):
            why = "it is a model, and signatures are asked for on images; it is taken by its digest"
            signatures.skip(model.source, found.revisions.get(model.name, ""), why)
    findings = (*findings, *found.findings)
    fetched = (*maker.actions, *found.actions)
    if maker.absent or found.absent:
        return _unknown(name, fetched, request, findings, started, choice.reason, signatures)
    whole = _assemble(maker, name, found, cache)
    content = _lock_content(whole, aikitfile, maker, found) if request.lock else {}
    remarks = (*maker.findings, *(locks.check(lock, content, request.lock_update) if content else ()))
    outputs = Outputs(whole, request.places, cache, registry, store, open_engine)
    told = [finding.as_dict() for finding in (*findings, *remarks, *outputs.findings())]
    try:
        plan = _with_lock(outputs.plan(), request.lock or "", lock, content)
        pushed = request.push and not any(action.verb == "push" for action in plan.actions)
        plan = replace(plan, actions=(*plan.actions, *signatures.plan(name, whole.digest, pushed)))
        reused = outputs.reused
        sent = written = 0
        if not check_mode:
            sent, written = outputs.apply()
            reused &= outputs.reused
            signatures.apply(name, whole.digest)
            if any(action.verb == "lock" for action in plan.actions):
                files.write_atomic(str(request.lock), locks.render(content), keep=True)
    except AikitError as exc:
        # One of them may say why: a layer that is larger than the registry takes
        raise exc.also(findings=told) from None
    registry.close()
    return report(
        replace(plan, actions=(*fetched, *plan.actions)),
        image={**images.result(whole, reused, found.models), **maker.result},
        findings=told,
        bytes_sent=sent,
        bytes_written=written,
        duration_seconds=round(time.monotonic() - started, 3),
        builder="direct",
        signatures=signatures.result(),
        reason=choice.reason,
        **_given(request),
    )


class LlamaCppMaker(Maker):
    """llama.cpp's server on a base that holds it."""

    def __init__(
        self,
        request: Request,
        aikitfile: Aikitfile,
        registry: Registry,
        store: BlobStore,
        cache: files.DigestCache,
        pins: Lock,
        signatures: Signatures,
    ) -> None:
        super().__init__()
        if request.base is None:
            hint = "Build one with role llama_cpp_base and give the path of its .tar file, or name an image."
            raise AikitError("base: server llama_cpp needs a base that has it.", hint)
        self.request = request
        self.aikitfile = aikitfile
        self.sources = image_base.split_bases(request.base, request.platforms)
        hint = image_base.parse_hint(request.base_server)
        self.bases: dict[str, FoundBase] = {
            platform: find_base(text, platform, hint, registry, store, cache, pins.base(platform, text), signatures.verify, signatures.skip)
            for platform, text in self.sources.items()
        }
        if len(self.bases) > 1 and not all(platform.startswith("linux/") for platform in self.bases):
            raise AikitError(f"platforms: {', '.join(self.bases)}: images are for linux.", "Name linux platforms.")
        for found in self.bases.values():
            images.check_runtime(aikitfile.runtime, found.base)

    def recipes(self, name: str, found: FoundModels) -> list[images.ImageRecipe]:
        paths = found.served
        made = []
        remarks: dict[Finding, None] = {}
        for found_base in self.bases.values():
            settings = llama_server.translate(self.aikitfile, found_base.base.server, paths, found.metadata)
            raise_for_errors(settings.findings, (self.request.parsed or {})["name"])
            remarks.update(dict.fromkeys(settings.findings))
            made.append(images.recipe(name, self.aikitfile, found_base.base, found_base.path, found.models, settings, found_base.blob_path))
        self.findings = tuple(remarks)
        return made

    def locked_bases(self, whole: images.Release) -> dict[str, dict[str, Any]]:
        return {
            image.platform: locks.base_entry(self.sources[platform], found_base.base, found_base.resolved)
            for image, (platform, found_base) in zip(whole.images, self.bases.items())
        }


def _pin_models(aikitfile: aikitfiles.Aikitfile, lock: Lock) -> tuple[aikitfiles.Aikitfile, dict[str, str]]:
    """The models with the sha256 that the lock has, where the aikitfile names none: what comes must be the same again.

    And the revisions of their sources, by name; not where the aikitfile asks for another file by now.
    """
    pinned = []
    revisions = {}
    for model in aikitfile.models:
        if "://" in model.source:
            locked = lock.model(model.name, model.source)
            if not model.sha256 or lock.has(model.name, model.source, model.sha256):
                revisions[model.name] = lock.revision(model.name, model.source)
            if aikitfiles.is_repository(model.source):
                # Its commit says it all; an image has not every file of it
                locked = ""
            model = replace(model, sha256=model.sha256 or locked or None)
        pinned.append(model)
    return replace(aikitfile, models=tuple(pinned)), revisions


def _assemble(maker: Maker, name: str, found: FoundModels, cache: files.DigestCache) -> images.Release:
    """The image of every platform, under one name; each layer is read once."""
    made: list[images.Image] = []
    digests: dict[tuple[Segment, ...], str] = {}
    for recipe in maker.recipes(name, found):
        for layer in recipe.layers:
            if layer.parts not in digests:
                digests[layer.parts] = layer_digest(layer, cache)
        made.append(images.finish(recipe, [digests[layer.parts] for layer in recipe.layers]))
    return images.release(made)


def _read_lock(path: Optional[str]) -> Lock:
    if not path:
        return Lock()
    try:
        with open(path, "rb") as handle:
            return locks.parse(handle.read(), path)
    except FileNotFoundError:
        return Lock(path=path)


def _lock_content(whole: images.Release, aikitfile: aikitfiles.Aikitfile, maker: Maker, found: FoundModels) -> dict[str, Any]:
    models = locks.model_entries(found.models, {model.name: model.source for model in aikitfile.models}, found.revisions)
    return locks.document(whole.name, whole.digest, aikitfile.sha256, maker.locked_bases(whole), models, maker.locked_images)


def _with_lock(plan: Plan, path: str, lock: Lock, content: Mapping[str, Any]) -> Plan:
    """The plan with the lock file in it, where that changes."""
    if not content or content == lock.document:
        return plan
    before = {**plan.before, **({"lock": dict(lock.document)} if lock.exists else {})}
    return Plan((*plan.actions, Action("lock", path)), before, {**plan.after, "lock": dict(content)})


def _given(request: Request) -> dict[str, Any]:
    """What was asked for and stands in the result again."""
    return {key: value for key, value in (("archive", request.archive), ("oci_layout", request.oci_layout), ("lock", request.lock)) if value}


def _unknown(
    name: str,
    downloads: Sequence[Action],
    request: Request,
    findings: tuple[Finding, ...],
    started: float,
    reason: str,
    signatures: Signatures,
) -> dict[str, Any]:
    """Check mode before the models were fetched: what would be done, without digests."""
    signing = signatures.plan(name, "", False)
    actions = [*downloads, *request.places.actions(name), *signing, *([Action("lock", request.lock)] if request.lock else [])]
    return report(
        Plan(tuple(actions), {}, {"ref": name} if actions else {}),
        image={"ref": name, "digest": "", "id": "", "size_bytes": 0, "layers": []},
        findings=[finding.as_dict() for finding in findings],
        bytes_sent=0,
        bytes_written=0,
        duration_seconds=round(time.monotonic() - started, 3),
        builder="direct",
        signatures=signatures.result(),
        reason=reason,
        **_given(request),
    )
