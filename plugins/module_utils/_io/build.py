# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of the direct builder: observe the inputs and the engines, plan, apply."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any, Optional, Sequence

from .._core import aikitfile as aikitfiles
from .._core import image as images
from .._core import llama_server, model_source
from .._core.base import Base
from .._core.engine import ImageState, missing_layers
from .._core.errors import AikitError, Finding, raise_for_errors
from .._core.plan import Action, Plan, report
from . import files, progress
from .engine import Engine, open_engine, present_image
from .image import archive_is_current, archive_need, find_models, layer_digest, load, load_needs, missing_bytes, read_base, verified_chunks, write_archive

REASON = "no step of this image runs a command, so its layers are assembled directly"


@dataclass(frozen=True)
class Request:
    """What the module was asked for; the fields are its options."""

    name: str
    parsed: Optional[dict[str, Any]]
    context: Optional[str]
    server: str
    base: str
    platforms: list[str]
    aikit_version: str
    load: list[str]
    archive: Optional[str]
    archive_omit: list[str]
    store: str
    cache: str
    token: Optional[str]
    tokens: Optional[dict[str, str]]


def build(request: Request, check_mode: bool) -> dict[str, Any]:
    """The result of module aikit_image."""
    started = time.monotonic()
    name = images.check_reference(request.name)
    if not request.parsed:
        raise AikitError("parsed: the aikitfile was not read.", "Call aikit.fleet.aikit_image as a task; its action plugin reads the file.")
    aikitfile, findings = aikitfiles.load(request.parsed, request.aikit_version, tuple(request.platforms))
    cache = files.DigestCache(request.cache, read_only=check_mode)
    base = read_base(request.base, cache)
    _check_platforms(request.platforms, base)
    # Before a model is fetched: a base that cannot serve it is known now
    images.check_runtime(aikitfile.runtime, base)
    context = request.context or request.parsed.get("directory") or ""
    tokens = model_source.tokens_by_source([model.source for model in aikitfile.models], request.token, request.tokens or {})
    found = find_models(aikitfile, context, request.store, tokens, cache, check_mode)
    findings = (*findings, *found.findings)
    if found.absent:
        return _unknown(name, found.actions, request, findings, started)
    models = found.models
    settings = llama_server.translate(aikitfile, base.server, images.model_paths(models), found.metadata)
    raise_for_errors(settings.findings, request.parsed["name"])
    recipe = images.recipe(name, aikitfile, base, request.base, models, settings)
    image = images.finish(recipe, [layer_digest(layer, cache) for layer in recipe.layers])
    plan, reused = _plan(image, request, cache)
    sent = written = 0
    if not check_mode:
        sent, written, reused = _apply(plan.actions, image, request, cache, reused)
    return report(
        replace(plan, actions=(*found.actions, *plan.actions)),
        image=images.result(image, reused, base, models),
        findings=[finding.as_dict() for finding in (*findings, *settings.findings)],
        bytes_sent=sent,
        bytes_written=written,
        duration_seconds=round(time.monotonic() - started, 3),
        builder="direct",
        reason=REASON,
        **({"archive": request.archive} if request.archive else {}),
    )


def _plan(image: images.Image, request: Request, cache: files.DigestCache) -> tuple[Plan, set[str]]:
    """What the engines and the archive lack, and the layers that need not be sent to an engine.

    The diff is that of the first place that changes. :class:`AikitError` when the disks have no room for it.
    """
    actions: list[Action] = []
    before: dict[str, Any] = {}
    needs: list[files.Need] = []
    missing: set[str] = set()
    for name in dict.fromkeys(request.load):
        engine = open_engine(name)
        observed = engine.image(image.name)
        found = present_image(engine, image.name, image.id, image.digest)
        action = images.load_action(image, name, observed, found)
        if action is not None:
            before = before or images.describe_observed(observed, image)
            actions.append(action)
            if action.verb == "load":
                size_bytes, lacking = missing_bytes(engine, image)
                missing |= lacking
                needs += load_needs(engine, image.name, size_bytes)
    if request.archive:
        parts = images.archive(image, request.archive_omit)
        if not archive_is_current(request.archive, parts, cache):
            actions.append(Action("write", request.archive))
            needs.append(archive_need(request.archive, parts))
    files.require_spaces(needs)
    after = images.describe(image) if actions else {}
    return Plan(tuple(actions), before, after), {layer.digest for layer in image.layers} - missing


def _apply(
    actions: Sequence[Action], image: images.Image, request: Request, cache: files.DigestCache, reused: set[str]
) -> tuple[int, int, set[str]]:
    """Returns bytes sent, bytes written, and the layers that no engine needed."""
    sent = written = 0
    for action in actions:
        if action.verb == "write":
            with files.lock(f"{action.target}.lock", remove=True):
                if not archive_is_current(action.target, images.archive(image, request.archive_omit), cache):
                    written += write_archive(action.target, image, request.archive_omit, cache)
            continue
        engine = open_engine(action.detail)
        if action.verb == "tag":
            found = present_image(engine, image.name, image.id, image.digest)
            if found is not None:
                engine.tag(found.id, image.name)
                continue
        count, had = load(engine, image)
        sent += count
        reused = reused & had
    return sent, written, reused


def _unknown(name: str, downloads: Sequence[Action], request: Request, findings: tuple[Finding, ...], started: float) -> dict[str, Any]:
    """Check mode before the models were fetched: what would be done, without digests."""
    actions = [*downloads, *(Action("load", name, engine) for engine in request.load)]
    if request.archive:
        actions.append(Action("write", request.archive))
    return report(
        Plan(tuple(actions), {}, {"ref": name} if actions else {}),
        image={"ref": name, "digest": "", "id": "", "size_bytes": 0, "layers": []},
        findings=[finding.as_dict() for finding in findings],
        bytes_sent=0,
        bytes_written=0,
        duration_seconds=round(time.monotonic() - started, 3),
        builder="direct",
        reason=REASON,
        **({"archive": request.archive} if request.archive else {}),
    )


def _check_platforms(platforms: list[str], base: Base) -> None:
    have = f"linux/{base.architecture}"
    other = [platform for platform in platforms if platform != have]
    if other:
        raise AikitError(
            f"platforms: {', '.join(other)} asked for, but the base is {have}.",
            "Build a base with llama_cpp_base_architecture set to it, one image a platform.",
        )


def load_archive(name: str, image: dict[str, Any], archive: Optional[str], engine_name: str, check_mode: bool) -> dict[str, Any]:
    """The result of module aikit_image_load."""
    name = images.check_reference(name)
    ids, diff_ids = images.identities(image)
    engine = open_engine(engine_name)
    named = engine.image(name)
    found = present_image(engine, name, *ids)
    missing = [] if found else list(missing_layers(engine.images(), diff_ids))
    actions = []
    if found is None and archive:
        if not os.path.isfile(archive):
            raise AikitError(f"archive: there is no file {archive} on this host.", "Copy it there first; module aikit.fleet.aikit_image writes it.")
        files.require_spaces(load_needs(engine, name, os.path.getsize(archive)))
        actions.append(Action("load", name, engine.name))
    elif found is None:
        # Asked before anything travels
        size = sum(int(layer.get("size_bytes") or 0) for layer in image.get("layers") or () if layer["digest"] in missing)
        files.require_spaces(load_needs(engine, name, size))
    elif named is None or named.id != found.id:
        actions.append(Action("tag", name, engine.name))
    if not check_mode:
        if found is not None and actions:
            engine.tag(found.id, name)
        elif found is None and archive:
            found = _load(engine, name, ids, archive)
    return report(
        Plan(tuple(actions), {"image": named.id if named else None}, {"image": ids[0] if actions else named.id if named else None}),
        present=found is not None,
        id=found.id if found else "",
        missing=[] if found else missing,
        engine=engine.name,
    )


def _load(engine: Engine, name: str, ids: list[str], archive: str) -> ImageState:
    try:
        with progress.stage(f"load {name} into {engine.name}", os.path.getsize(archive)) as current:
            engine.load(current.counted(verified_chunks(archive)))
    except AikitError:
        # Docker's containerd store keeps the tag of an image whose load failed
        half = present_image(engine, name, *ids)
        if half is not None:
            engine.remove_image(half.id)
        raise
    loaded = present_image(engine, name, *ids)
    if loaded is None:
        raise AikitError(f"{archive} was loaded, but {engine.name} does not list {ids[0]}.", "The archive holds another image; build it again.")
    named = engine.image(name)
    if named is None or named.id != loaded.id:
        # The archive was written under another name
        engine.tag(loaded.id, name)
    return loaded
