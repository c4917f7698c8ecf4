# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a finished image goes: engines, an archive, an OCI layout, a registry, or several of them.

What each place lacks is asked first, so that a plan says what will happen, and a second run finds nothing to do.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Callable, Collection, Iterator, Optional

from .._core import base as bases
from .._core import image as images
from .._core import oci
from .._core import registry as rules
from .._core.engine import ImageState, parse_env
from .._core.errors import AikitError, Finding
from .._core.image import Image, Layer, Release
from .._core.oci import Descriptor, config_facts
from .._core.plan import Action, Plan
from . import files, progress
from .blob_store import BlobStore
from .engine import Engine, open_engine, present_image
from .image import archive_is_current, archive_need, load, missing_bytes, stream_range, write_archive
from .load import load_needs
from .oci_layout import Blob, Layout
from .registry import Registry, RemoteManifest
from .registry_push import Counter, Pushed, has_blob, push_blob, put_manifest

# Blobs of one image that are sent at the same time, as Docker does
UPLOADS = 4


@dataclass(frozen=True)
class Places:
    """Where an image shall be."""

    load: tuple[str, ...] = ()
    archive: str = ""
    archive_omit: tuple[str, ...] = ()
    oci_layout: str = ""
    push: bool = False

    def actions(self, name: str) -> list[Action]:
        """What would be done where nothing is there yet."""
        found = [Action("load", name, engine) for engine in dict.fromkeys(self.load)]
        found += [Action("write", self.archive)] if self.archive else []
        found += [Action("store", self.oci_layout, name)] if self.oci_layout else []
        found += [Action("push", name)] if self.push else []
        return found


class Outputs:
    """The way of one image to its places. ``open_`` is :func:`engine.open_engine`."""

    def __init__(
        self,
        whole: Release,
        places: Places,
        cache: files.DigestCache,
        registry: Registry,
        store: BlobStore,
        open_: Callable[[str], Engine] = open_engine,
    ) -> None:
        self.whole = whole
        self.places = places
        self.cache = cache
        self.registry = registry
        self.store = store
        self.open_engine = open_
        self.needed: set[str] = set()
        self.actions: tuple[Action, ...] = ()

    @property
    def reused(self) -> set[str]:
        """The digests of the layers that need not be sent, or were not."""
        return {layer.digest for layer in self.whole.layers} - self.needed

    def findings(self) -> tuple[Finding, ...]:
        """Remarks on the places."""
        if not self.places.push:
            return ()
        host = rules.parse_name(self.whole.name).host
        return rules.layer_findings(host, ((layer.title, layer.size_bytes) for layer in self.whole.layers))

    # --- what is lacking

    def plan(self) -> Plan:
        """What the places lack. The diff is that of the first that changes. :class:`AikitError` when a disk has no room for it."""
        actions: list[Action] = []
        before: dict[str, Any] = {}
        needs: list[files.Need] = []
        for name in dict.fromkeys(self.places.load):
            engine = self.open_engine(name)
            image = self._for_engine()
            observed = engine.image(image.name)
            action = images.load_action(image, name, observed, present_image(engine, image.name, image.id, image.digest))
            if action is not None:
                before = before or images.describe_observed(observed, image)
                actions.append(action)
                if action.verb == "load":
                    size_bytes, lacking = missing_bytes(engine, image)
                    self.needed |= lacking
                    needs += load_needs(engine, image.name, size_bytes)
        if self.places.archive:
            parts = images.archive(self.whole, self.places.archive_omit)
            if not archive_is_current(self.places.archive, parts, self.cache):
                actions.append(Action("write", self.places.archive))
                needs.append(archive_need(self.places.archive, parts))
        if self.places.oci_layout:
            layout = Layout(self.places.oci_layout)
            layout.check()
            lacking_blobs = layout.lacking(self._blobs(), self.cache)
            if lacking_blobs or not layout.is_current(self.whole.entry):
                actions.append(Action("store", self.places.oci_layout, self.whole.name))
                needs.append(files.Need(layout.path, sum(blob.size for blob in lacking_blobs), f"the layout {layout.path}"))
        if self.places.push:
            action = self._plan_push()
            if action is not None:
                before = before or self._pushed_before()
                actions.append(action)
        files.require_spaces(needs)
        self.actions = tuple(actions)
        return Plan(self.actions, before, images.describe(self.whole.images[0]) if actions else {})

    def _for_engine(self) -> Image:
        """The image for this machine, of several platforms."""
        try:
            architecture = bases.oci_architecture(os.uname().machine)
        except AikitError:
            architecture = ""
        return next((image for image in self.whole.images if image.platform.split("/")[1] == architecture), self.whole.images[0])

    def _blobs(self) -> list[Blob]:
        return [Blob(digest, parts) for digest, parts in self.whole.blobs().items()]

    def _plan_push(self) -> Optional[Action]:
        name = rules.parse_name(self.whole.name)
        if self.registry.digest_of(name.text) == self.whole.digest:
            return None
        lacking = {layer.digest for layer in self.whole.layers if not has_blob(self.registry, name.full_repository, layer.digest)}
        self.needed |= {layer.digest for layer in self.whole.layers if layer.digest in lacking and not self._mount(layer)}
        return Action("push", name.text)

    def _mount(self, layer: Layer) -> str:
        """The repository that a layer may be taken over from, within the registry that it goes to."""
        name = rules.parse_name(self.whole.name)
        return layer.source if layer.source and rules.split_repository(layer.source)[0] == name.host and layer.source != name.full_repository else ""

    def _pushed_before(self) -> dict[str, Any]:
        first = self.whole.images[0]
        try:
            if not self.registry.digest_of(first.name):
                return {}
            # A mirror is for reading; this is what stands where we write
            found = self.registry.manifest(first.name, first.platform, mirrors=False)
            return images.describe_observed(remote_state(self.registry, found), first)
        except AikitError:
            # Something that is no image, which the push replaces
            return {}

    # --- bringing it there

    def apply(self) -> tuple[int, int]:
        """Do what :meth:`plan` found; returns the bytes sent and the bytes written. A registry comes last, and there the tag."""
        sent = written = 0
        self.needed = set()
        for action in self.actions:
            if action.verb == "write":
                written += self._write_archive(action.target)
            elif action.verb == "store":
                layout = Layout(action.target)
                self.fetch({blob.digest for blob in layout.lacking(self._blobs(), self.cache)})
                written += layout.write(self.whole.entry, self._blobs(), self.cache)
            elif action.verb == "push":
                sent += self._push()
            else:
                sent += self._load(action)
        return sent, written

    def fetch(self, digests: Collection[str]) -> None:
        """Have the layers of a registry's image here that are needed here."""
        for layer in self.whole.layers:
            if layer.digest not in digests or not layer.source:
                continue
            descriptor = Descriptor(layer.media_type, layer.digest, layer.size_bytes)
            if not self.store.has(descriptor):
                with progress.stage(f"fetch {layer.title or layer.digest}", layer.size_bytes) as current:
                    path = self.store.ensure(self.registry, layer.source, descriptor, current.reach)
                self.cache.put("sha256", os.stat(path), layer.digest.partition(":")[2], files.SETTLED)

    def _write_archive(self, path: str) -> int:
        omit = self.places.archive_omit
        with files.lock(f"{path}.lock", remove=True):
            if archive_is_current(path, images.archive(self.whole, omit), self.cache):
                return 0
            self.fetch({layer.digest for layer in self.whole.layers} - set(omit))
            return write_archive(path, self.whole, omit, self.cache)

    def _load(self, action: Action) -> int:
        image = self._for_engine()
        engine = self.open_engine(action.detail)
        if action.verb == "tag":
            found = present_image(engine, image.name, image.id, image.digest)
            if found is not None:
                engine.tag(found.id, image.name)
                return 0
        count, had = load(engine, image, self.fetch)
        self.needed |= {layer.digest for layer in image.layers} - had
        return count

    def _push(self) -> int:
        name = rules.parse_name(self.whole.name)
        repository = name.full_repository
        counter = Counter()
        stop = threading.Event()

        def send(digest: str, size: int, read: Callable[[int, int], Iterator[bytes]], mount: str, title: str) -> tuple[str, Pushed]:
            def guarded(start: int, length: int) -> Iterator[bytes]:
                for piece in read(start, length):
                    if stop.is_set():
                        raise AikitError("The push was stopped.")
                    yield piece

            with progress.stage(f"push {title}", size) as current:
                done = push_blob(self.registry, repository, digest, size, guarded, mount, current.reach)
            counter.add(done.sent_bytes)
            return digest, done

        with ThreadPoolExecutor(UPLOADS, "push") as pool:
            # The largest first, so that the last one is not waited for alone
            tasks = [
                pool.submit(send, layer.digest, layer.size_bytes, self._reader(layer), self._mount(layer), layer.title or layer.digest)
                for layer in sorted(self.whole.layers, key=lambda layer: -layer.size_bytes)
            ]
            for image in self.whole.images:
                tasks.append(pool.submit(send, image.id, len(image.config), _bytes_reader(image.config), "", "the configuration"))
            try:
                done, dummy = wait(tasks, return_when=FIRST_EXCEPTION)
                failed = next((task for task in done if task.exception() is not None), None)
                if failed is not None:
                    failed.result()
            except BaseException:
                stop.set()
                for task in tasks:
                    task.cancel()
                raise
        self.needed |= {digest for digest, pushed in (task.result() for task in tasks) if pushed.how == "uploaded"}
        for image in self.whole.images:
            put_manifest(self.registry, repository, image.digest, image.manifest, oci.MEDIA_MANIFEST)
        if len(self.whole.images) > 1:
            put_manifest(self.registry, repository, self.whole.digest, self.whole.raw, self.whole.media_type)
        if name.tag:
            put_manifest(self.registry, repository, name.tag, self.whole.raw, self.whole.media_type)
        return counter.total

    def _reader(self, layer: Layer) -> Callable[[int, int], Iterator[bytes]]:
        def read(start: int, length: int) -> Iterator[bytes]:
            # Only now is it certain that the registry has not got it
            self.fetch((layer.digest,))
            yield from stream_range(layer.parts, start, length)

        return read


def _bytes_reader(data: bytes) -> Callable[[int, int], Iterator[bytes]]:
    return lambda start, length: iter((data[start : start + length],))


def remote_state(registry: Registry, found: RemoteManifest) -> ImageState:
    """An image in a registry as an engine would describe it."""
    return state_of(registry.config(found), found.ref, f"{found.repository}@{found.digest}", found.config.digest)


def state_of(config: dict[str, Any], ref: str, by_digest: str, config_digest: str) -> ImageState:
    """The config of an image as an engine would describe it."""
    run = config.get("config")
    run = run if isinstance(run, dict) else {}
    rootfs = config.get("rootfs")
    layers = rootfs.get("diff_ids") if isinstance(rootfs, dict) else ()
    return ImageState(
        id=config_digest,
        tags=(ref,) if ref and "@" not in ref else (),
        digests=(by_digest,) if by_digest else (),
        labels={str(key): str(value) for key, value in (run.get("Labels") or {}).items()},
        env=parse_env(entry for entry in run.get("Env") or () if isinstance(entry, str)),
        entrypoint=tuple(str(word) for word in run.get("Entrypoint") or ()),
        cmd=tuple(str(word) for word in run.get("Cmd") or ()),
        layers=tuple(str(layer) for layer in layers or ()),
        architecture=str(config.get("architecture") or ""),
        os=str(config.get("os") or ""),
        facts=config_facts(config),
    )
