# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small inputs for the integration tests, and one task as a playbook runs it."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import struct
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any, Iterator

import support

BASE = support.CACHE / "bases/sid-cpu-amd64.tar"


def task(plugin: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """The result of one module of the collection on localhost."""
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"name": "One task", f"aikit.fleet.{plugin}": arguments}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump([play], file)
        file.flush()
        run = support.playbook(file.name, *(["--check"] if check else []))
    results = run.results("One task")
    assert results, run.output
    return results[0]


def gguf(architecture: str = "llama") -> bytes:
    """A small whole GGUF file: one metadata entry, one tensor of 64 numbers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("general.architecture") + struct.pack("<I", 8) + text(architecture)
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, 64, 0, 0)
    return head + b"\0" * (-len(head) % 32) + b"\0" * 256


def tiny_base(path: Path) -> None:
    """A base of one file that is described as the real one: enough to assemble images that are never run."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as writer:
        member = tarfile.TarInfo("etc/motd")
        member.size = 6
        writer.addfile(member, io.BytesIO(b"hello\n"))
    raw = path.read_bytes()
    description = json.loads(Path(f"{BASE}.json").read_text())
    description.update(sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw))
    Path(f"{path}.json").write_text(json.dumps(description))


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server that gives the files of ``folder``, and knows nothing of models."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_arguments: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
