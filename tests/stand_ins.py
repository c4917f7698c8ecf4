# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry with images in place of those that AIKit is made of, in the shape that these have.

AIKit's own registries cannot be reached where the tests run. Media types, indexes, attestations, titles and layers are those of
the real ones (oras push of LocalAI's program, buildx for the others); what is in them is small, and answers as LocalAI does.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, Optional, Sequence

import support

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FAKE = support.ROOT / "tests/fixtures/fake-localai"
MIRRORS = {"ghcr.io": "ghcr", "quay.io": "quay", "docker.io": "hub"}


def entry(name: str, data: Optional[bytes] = None, mode: int = 0o644, kind: bytes = b"", link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A directory, a file, or with ``kind`` something else, for :func:`layer`."""
    member = tarfile.TarInfo(name)
    member.type = kind or (tarfile.DIRTYPE if data is None else tarfile.REGTYPE)
    member.mode = mode if kind or data is not None else (0o755 if mode == 0o644 else mode)
    member.size, member.linkname, member.mtime = len(data or b""), link, 1700000000
    return member, data or b""


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for member, data in entries:
            writer.addfile(member, io.BytesIO(data))
    return target.getvalue()


def localai_root(root: Path, log: Sequence[str]) -> Path:
    """The files of an image that answers as LocalAI does, and logs these lines of its backend."""
    for folder in ("bin", "usr/bin", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    shutil.copy(FAKE / "local-ai", root / "usr/bin/local-ai")
    shutil.copy(FAKE / "config.yaml", root / "config.yaml")
    (root / "backend.log").write_text("\n".join(log) + "\n")
    return root


class Pusher:
    """Puts images into one registry, over its API and without any of our code."""

    def __init__(self, host: str) -> None:
        self.host = host

    def blob(self, repository: str, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/blobs/uploads/", data=b"", method="POST")
        with urllib.request.urlopen(request) as answer:
            location = answer.headers["Location"]
        location += ("&" if "?" in location else "?") + f"digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(location, data=data, method="PUT", headers=headers)).close()
        return {"digest": digest, "size": len(data)}

    def manifest(self, repository: str, reference: str, document: dict[str, Any]) -> dict[str, Any]:
        raw = json.dumps(document, indent=2).encode()
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        url = f"http://{self.host}/v2/{repository}/manifests/{reference or digest}"
        request = urllib.request.Request(url, data=raw, method="PUT", headers={"Content-Type": document["mediaType"]})
        urllib.request.urlopen(request).close()
        return {"mediaType": document["mediaType"], "digest": digest, "size": len(raw)}

    def image(self, repository: str, reference: str, layers: Sequence[bytes], architecture: str = "amd64", compress: Any = None) -> dict[str, Any]:
        """One image; ``compress`` packs a layer, with gzip by default."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/none"], "Labels": {"somebody.else": "yes"}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw).hexdigest() for raw in layers]},
        }
        pack = compress or (lambda raw: gzip.compress(raw, mtime=0))
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **self.blob(repository, json.dumps(config).encode())},
            "layers": [{"mediaType": LAYER, **self.blob(repository, pack(raw))} for raw in layers],
        }
        return self.manifest(repository, reference, document)

    def index(self, repository: str, tag: str, layers: dict[str, Sequence[bytes]]) -> dict[str, Any]:
        """An index as buildx pushes it: an image and an attestation for each platform."""
        listed = []
        for architecture, content in layers.items():
            found = self.image(repository, "", content, architecture)
            listed.append({**found, "platform": {"os": "linux", "architecture": architecture}})
            attestation = self.image(repository, "", [layer(entry("attestation", architecture.encode()))], "unknown")
            notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": found["digest"]}
            listed.append({**attestation, "platform": {"os": "unknown", "architecture": "unknown"}, "annotations": notes})
        return self.manifest(repository, tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})

    def artifact(self, repository: str, tag: str, files: dict[str, bytes]) -> dict[str, Any]:
        """Files as ``oras push`` puts them: raw, with their names as titles."""
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.unknown.artifact.v1",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", **self.blob(repository, b"{}"), "data": "e30="},
            "layers": [
                {
                    "mediaType": "application/vnd.localai.binary.layer.v1+octet-stream",
                    **self.blob(repository, data),
                    "annotations": {"org.opencontainers.image.title": name},
                }
                for name, data in files.items()
            ],
            "annotations": {"org.opencontainers.image.title": "local-ai", "org.opencontainers.image.created": "2026-08-03T07:12:00Z"},
        }
        return self.manifest(repository, tag, document)


SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE


def base_layers(lines: Sequence[str] = (), cuda: bool = False) -> list[bytes]:
    """A small system; ``lines`` are what the stand-in for LocalAI says of its backend."""
    system = [
        entry("bin", mode=0o755),
        entry("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755),
        entry("bin/sh", kind=SYMLINK, mode=0o777, link="busybox"),
        entry("etc"),
        entry("etc/os-release", b"PRETTY_NAME=stand-in\n"),
        entry("tmp", mode=0o1777),
        entry("usr"),
        entry("usr/bin"),
        entry("usr/bin/env", b"#!/bin/sh\n", 0o755),
        entry("obsolete", b"gone in the next layer"),
    ]
    second = [entry(".wh.obsolete", b""), entry("backend.log", "".join(f"{line}\n" for line in lines).encode())]
    return [layer(*system), layer(*second, *([entry("cuda", b"")] if cuda else []))]


def backend_layers(name: str) -> list[bytes]:
    """A backend as its image is: run.sh, programs, libraries with their links; in layers of which the later change the earlier."""
    first = layer(
        entry("./"),
        entry("./run.sh", f"#!/bin/bash\nexec {name}\n".encode(), 0o755),
        entry("./llama-cpp-fallback", name.encode() * 5000, 0o755),
        entry("./llama-cpp-avx", kind=HARDLINK, mode=0o755, link="./llama-cpp-fallback"),
        entry("./lib", mode=0o755),
        entry("./lib/ld.so", b"loader", 0o755),
        entry("./lib/libc.so.6", b"libc" * 1000, 0o644),
        entry("./lib/libc.so", kind=SYMLINK, mode=0o777, link="libc.so.6"),
        entry("./lib/absolute.so", kind=SYMLINK, mode=0o777, link="/lib/libc.so.6"),
        entry("./lib/" + "deep/" * 25),
        entry("./lib/" + "deep/" * 25 + "file", b"deep", 0o600),
        entry("./private", mode=0o700),
        entry("./private/old", b"old", 0o400),
        entry("./dropped", b"whiteout"),
        entry("./replaced", b"first"),
        entry("./opaque"),
        entry("./opaque/hidden", b"hidden"),
    )
    second = layer(
        entry(".wh.dropped", b""),
        entry("replaced", b"second", 0o640),
        entry("opaque", mode=0o711),
        entry("opaque/.wh..wh..opq", b""),
        entry("opaque/seen", b"seen"),
        entry("new-a", b"one file" * 64, 0o4755),
        entry("new-b", kind=HARDLINK, mode=0o4755, link="new-a"),
    )
    return [first, second]


def fill(host: str, lines: Sequence[str] = (), cuda: bool = False) -> None:
    """Every image that the two releases of AIKit are made of."""
    push = Pusher(host)
    base = base_layers(lines, cuda)
    program = (FAKE / "local-ai").read_bytes()
    for repository, tag in (("ghcr/kaito-project/aikit/base", "latest"), ("hub/library/ubuntu", "22.04")):
        push.index(repository, tag, {"amd64": base, "arm64": [layer(entry("arm64", b""), entry("usr"), entry("usr/bin"))]})
    # Fedora's /usr/bin is not writable, not even by its owner
    fedora = layer(entry("usr"), entry("usr/bin", mode=0o555), entry("usr/bin/vulkaninfo", b"", 0o755), entry("dev/null", kind=tarfile.CHRTYPE))
    push.index("ghcr/kaito-project/aikit/applesilicon/base", "latest", {"arm64": [fedora]})
    for version in ("v4.0.0", "v4.7.1", "v3.12.1"):
        for architecture in ("amd64", "arm64"):
            push.artifact("ghcr/kaito-project/aikit/localai", f"{version}-{architecture}", {"local-ai": program})
        backends = "quay/go-skynet/local-ai-backends"
        cpu = backend_layers(f"{version}-cpu")
        push.index(backends, f"{version}-cpu-llama-cpp", {"amd64": cpu, "arm64": cpu})
        push.index(backends, f"{version}-gpu-vulkan-llama-cpp", {"amd64": cpu, "arm64": cpu})
        # This one is there for one platform, without an index
        push.image(backends, f"{version}-gpu-nvidia-cuda-12-llama-cpp", backend_layers(f"{version}-cuda"))


def mirrors(host: str) -> dict[str, str]:
    """Option ``registry_mirrors``: where the stand-ins are."""
    return {name: f"{host}/{folder}" for name, folder in MIRRORS.items()}
