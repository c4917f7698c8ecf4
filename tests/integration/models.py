# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Models where they come from: artifacts in a real registry, and parts of a split model."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any, Mapping, Union

from ansible_collections.aikit.fleet.tests.unit.gguf_writer import DEFAULT_METADATA, U16, U32, Value, Writer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Layer = tuple[str, Union[bytes, Path], Mapping[str, str]]


def push(host: str, repository: str, tag: str, layers: list[Layer], media_type: str = MANIFEST) -> str:
    """Push an artifact as its own tools do: a layer is (media type, content, annotations). Returns the manifest's digest."""
    entries = []
    for kind, content, annotations in [("application/vnd.oci.empty.v1+json", b"{}", {}), *layers]:
        data = content.read_bytes() if isinstance(content, Path) else content
        entry: dict[str, Any] = {"mediaType": kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}
        if annotations:
            entry["annotations"] = dict(annotations)
        entries.append(entry)
        with _send("POST", f"http://{host}/v2/{repository}/blobs/uploads/") as answer:
            location = answer.headers["Location"]
        mark = "&" if "?" in location else "?"
        _send("PUT", f"{location}{mark}digest={entry['digest']}", data, "application/octet-stream").close()
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": entries[0], "layers": entries[1:]}
    with _send("PUT", f"http://{host}/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), media_type) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def _send(method: str, url: str, data: bytes = b"", kind: str = "") -> Any:
    request = urllib.request.Request(url, data if method != "GET" else None, {"Content-Type": kind} if kind else {}, method=method)
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)


def parts(stem: str = "model") -> dict[str, bytes]:
    """A model in two parts, by their names."""
    found = {}
    for number, tensor in enumerate((("token_embd.weight", (256, 4), 8), ("blk.0.attn_q.weight", (256, 2), 8))):
        metadata = {"split.no": Value(U16, number), "split.count": Value(U16, 2), "split.tensors.count": Value(U32, 2)}
        if number == 0:
            metadata = {**DEFAULT_METADATA, **metadata}
        found[f"{stem}-{number + 1:05d}-of-00002.gguf"] = Writer().file(metadata=metadata, tensors=[tensor])
    return found
