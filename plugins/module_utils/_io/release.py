# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Observe a service on this host and carry out the steps that _core.release decided."""

from __future__ import annotations

import os
from typing import Any, Iterable, Mapping, Sequence

from .._core import release
from .._core.errors import AikitError
from . import files, host
from .engine import Engine

LOG_LINES = 60


class ServiceHost:
    """One service on one host."""

    def __init__(self, engine: Engine, name: str, state_dir: str, stop_timeout: int) -> None:
        self.engine = engine
        self.name = name
        self.state_dir = state_dir
        self.state_path = host.state_path(state_dir, name)
        self.stop_timeout = stop_timeout

    def observe(self) -> release.Observed:
        state = release.parse_state(host.read_text(self.state_path), self.name, self.state_path)
        return release.Observed(
            self.name,
            self.engine.container(self.name),
            self.engine.container(self.name + release.PREVIOUS_SUFFIX),
            state,
        )

    def port_owners(self, ports: Sequence[Mapping[str, Any]], leaving: Sequence[str] = ()) -> tuple[release.PortOwner, ...]:
        """Who holds ``ports``, but for this service and those that are ``leaving``."""
        if not ports:
            return ()
        own = [word for name in (self.name, *leaving) for word in (name, name + release.PREVIOUS_SUFFIX)]
        sockets = host.listening(int(port["port"]) for port in ports)
        return release.port_owners(ports, own, self.engine.containers(""), sockets)

    def needed_elsewhere(self) -> set[str]:
        """Images in other services' state files. A file that cannot be read stops the removal of images, not the release."""
        found: set[str] = set()
        for service, text in host.other_states(self.state_dir, self.name):
            try:
                found |= release.image_ids(release.parse_state(text, service, host.state_path(self.state_dir, service)))
            except AikitError:
                return {image.id for image in self.engine.images()}
        return found

    def commit_steps(self, observed: release.Observed, record: Mapping[str, Any], keep_images: int) -> tuple[release.Step, ...]:
        return release.commit(
            observed,
            record,
            keep_images,
            self.engine.images(),
            self.engine.containers(""),
            self.needed_elsewhere(),
            host.service_files(self.state_dir, self.name),
        )

    def absent_steps(self, observed: release.Observed, remove_images: bool) -> tuple[release.Step, ...]:
        folder = os.path.join(self.state_dir, self.name)
        paths = [path for path in (folder, self.state_path) if os.path.lexists(path)]
        if not remove_images:
            return release.absent(observed, paths)
        return release.absent(observed, paths, True, self.engine.images(), self.engine.containers(""), self.needed_elsewhere())

    def last_lines(self, container: str) -> list[str]:
        """What a container said last; empty when it cannot be read: this is told beside another error."""
        try:
            return self.engine.logs(container, tail=LOG_LINES).splitlines()
        except AikitError:
            return []

    def apply(self, steps: Iterable[release.Step]) -> None:
        for step in steps:
            if step.verb == "write":
                os.makedirs(self.state_dir, mode=0o755, exist_ok=True)
                files.write_atomic(self.state_path, release.state_text(step.state or {}).encode("utf-8"), 0o600)
            elif step.verb == "delete":
                host.delete(step.target)
            elif step.verb == "stop":
                self.engine.stop(step.target, timeout=self.stop_timeout)
            elif step.verb == "start":
                self.engine.start(step.target)
            elif step.verb == "rename":
                self.engine.rename(step.target, step.to)
            elif step.verb == "remove":
                self.engine.remove(step.target, volumes=True)
            else:
                self.engine.remove_image(step.target)
