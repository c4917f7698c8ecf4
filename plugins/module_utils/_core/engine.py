# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container engine says of its images and containers, read from its inspect documents.

Docker's API and ``podman inspect`` use the same shapes with small differences, which end here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional

from .errors import AikitError
from .oci import config_facts

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class ImageState:
    """An image in an engine's store.

    ``id`` is the config digest on Docker's graph drivers and Podman, the manifest digest with
    Docker's containerd image store; always with ``sha256:``. ``layers`` are diff ids, base first. ``facts`` is what an image
    without labels says of itself in its comment.
    """

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    architecture: str = ""
    os: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def is_behind(self, digest: str) -> bool:
        """Whether a registry has another image, by the digest that it tells; yes where it tells none."""
        return not digest or not any(entry.endswith(f"@{digest}") for entry in self.digests)


@dataclass(frozen=True)
class Room:
    """A folder of this host that an engine writes to when it loads an image, ``copies`` times what it is sent."""

    path: str
    copies: int


@dataclass(frozen=True)
class ContainerState:
    """A container. ``status`` is the engine's word (created, running, restarting, exited, …);
    ``started_at`` is RFC 3339; ``pid`` is 0 when it does not run."""

    name: str
    id: str
    image_id: str
    status: str
    running: bool
    exit_code: int = 0
    restart_count: int = 0
    started_at: str = ""
    health: Optional[str] = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Mapping[str, Any], ...] = ()
    pid: int = 0
    image: str = ""
    error: str = ""
    command: tuple[str, ...] = ()


def parse_image(document: Mapping[str, Any]) -> ImageState:
    """Read one document of ``docker image inspect`` or ``podman image inspect``."""
    config = document.get("Config") or {}
    return ImageState(
        id=_sha256(document.get("Id", "")),
        tags=tuple(tag for tag in document.get("RepoTags") or () if tag != "<none>:<none>"),
        digests=tuple(document.get("RepoDigests") or ()),
        labels=dict(config.get("Labels") or document.get("Labels") or {}),
        env=parse_env(config.get("Env") or ()),
        entrypoint=_words(config.get("Entrypoint")),
        cmd=_words(config.get("Cmd")),
        layers=tuple(_sha256(layer) for layer in (document.get("RootFS") or {}).get("Layers") or ()),
        architecture=document.get("Architecture") or "",
        os=document.get("Os") or "",
        # Podman calls the comment of the first step the image's, and lists all steps
        facts=config_facts({"comment": document.get("Comment"), "history": document.get("History")}),
    )


def parse_container(document: Mapping[str, Any]) -> ContainerState:
    """Read one document of ``docker inspect`` or ``podman inspect``."""
    state = document.get("State") or {}
    config = document.get("Config") or {}
    health = state.get("Health") or state.get("Healthcheck") or {}
    status = (state.get("Status") or "").lower()
    return ContainerState(
        name=str(document.get("Name") or "").lstrip("/"),
        id=document.get("Id") or "",
        image_id=_sha256(document.get("Image") or ""),
        status=status,
        running=bool(state.get("Running")) and status != "restarting",
        exit_code=int(state.get("ExitCode") or 0),
        restart_count=int(document.get("RestartCount") or 0),
        started_at=str(state.get("StartedAt") or ""),
        health=health.get("Status") or None,
        labels=dict(config.get("Labels") or {}),
        env=parse_env(config.get("Env") or ()),
        ports=_ports(document),
        pid=int(state.get("Pid") or 0),
        image=str(config.get("Image") or document.get("ImageName") or ""),
        error=str(state.get("Error") or ""),
        command=tuple(str(word) for word in config.get("Cmd") or ()),
    )


def docker_roots(info: Mapping[str, Any]) -> tuple[Room, ...]:
    """Where Docker's storage may be by ``docker info``, the likeliest first.

    A graph driver unpacks the whole archive into a temporary folder and then takes the layers out of it. The containerd store keeps
    the blobs and unpacks them; containerd has a folder of its own, unless the daemon started it.
    """
    root = str(info.get("DockerRootDir") or "")
    if not root:
        return ()
    if uses_containerd_store(info):
        return tuple(Room(path, 2) for path in (f"{root}/containerd/daemon", "/var/lib/containerd"))
    return (Room(root, 2),)


def uses_containerd_store(info: Mapping[str, Any]) -> bool:
    """Whether Docker keeps images in containerd's store, by ``docker info``."""
    return any("io.containerd.snapshotter" in str(value) for _key, value in info.get("DriverStatus") or ())


def podman_roots(info: Mapping[str, Any], temporary: str) -> tuple[Room, ...]:
    """Where Podman's storage is by ``podman info``; it copies what it reads from stdin to ``temporary`` first."""
    root = str((info.get("store") or {}).get("graphRoot") or "")
    remote = bool((info.get("host") or {}).get("serviceIsRemote"))
    return (Room(root, 1), Room(temporary, 1)) if root and not remote else ()


def parse_env(pairs: Iterable[str]) -> dict[str, str]:
    """``["A=1", "B=x=y"]`` as a mapping; a name without ``=`` has the empty value."""
    result = {}
    for pair in pairs:
        key, _equals, value = pair.partition("=")
        result[key] = value
    return result


def find_image(images: Iterable[ImageState], *ids: str) -> Optional[ImageState]:
    """The image whose id is one of ``ids`` (engines differ in which digest they call the id)."""
    wanted = {_sha256(image_id) for image_id in ids if image_id}
    for image in images:
        if image.id in wanted:
            return image
    return None


def missing_layers(images: Iterable[ImageState], diff_ids: Iterable[str]) -> tuple[str, ...]:
    """The layers of ``diff_ids`` (base first) that an engine lacks.

    An engine can reuse a layer only on top of the same chain, so the answer is what follows the
    longest common prefix with any image it has.
    """
    wanted = tuple(diff_ids)
    have = 0
    for image in images:
        common = 0
        for mine, theirs in zip(wanted, image.layers):
            if mine != theirs:
                break
            common += 1
        have = max(have, common)
    return wanted[have:]


def _ports(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Published ports: what runs now, else what was asked for (a stopped container has none bound)."""
    network = (document.get("NetworkSettings") or {}).get("Ports") or {}
    asked = (document.get("HostConfig") or {}).get("PortBindings") or {}
    bindings = {port: found for port, found in network.items() if found} or asked
    result = []
    for port, found in sorted(bindings.items()):
        for binding in found or ():
            host_port = str(binding.get("HostPort") or "")
            result.append(
                {
                    "host_ip": binding.get("HostIp") or "0.0.0.0",
                    "host_port": int(host_port) if host_port.isdigit() else 0,
                    "container_port": int(port.partition("/")[0]),
                }
            )
    return tuple(result)


def _sha256(digest: str) -> str:
    """Podman leaves the prefix away."""
    return f"sha256:{digest}" if digest and ":" not in digest else digest


def _words(value: Any) -> tuple[str, ...]:
    """Podman prints an entrypoint as one string, Docker as a list."""
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def identities(described: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """Id and digest of an image, and diff id and digest of its layers, from what :func:`.image.result` made and users passed on."""
    hint = "Give the image that aikit.fleet.aikit_image returned."
    ids: list[str] = [described.get(key) or "" for key in ("id", "digest")]
    if not any(ids):
        raise AikitError("image: neither id nor digest is set.", hint)
    layers = described.get("layers") or []
    found: list[Mapping[str, Any]] = [layer for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []
    if not isinstance(layers, list) or len(found) != len(layers):
        raise AikitError("image: layers: must be a list of mappings with the key digest.", hint)
    keys = [(index, key) for index, layer in enumerate(found) for key in ("digest", "diff_id") if key == "digest" or key in layer]
    digests = [(f"layers[{index}].{key}", found[index].get(key, "")) for index, key in keys]
    for where, value in (("id", ids[0]), ("digest", ids[1]), *digests):
        if (value or where.startswith("layers")) and not _DIGEST.match(str(value)):
            raise AikitError(f"image: {where}: {value!r} is no digest.", f"A digest is sha256: and 64 hexadecimal digits. {hint}")
    return ids, [(layer.get("diff_id") or layer["digest"], layer["digest"]) for layer in found]
