# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start a container with GPUs and open their device nodes in it.

The image is made of the host's own ``sleep`` and ``dd`` with their libraries, some 2 MB: no registry is needed, and what runs is
made for this machine. ``dd count=0`` opens a node and reads nothing, so it says whether the container may use it, not only whether it is there.
"""

from __future__ import annotations

import os
import re
import tarfile
import uuid
from typing import Any, Callable, Optional, Sequence

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

NODES = ("/dev/nvidiactl",)
ARCHIVE = "image.tar"
_LIFE_SECONDS = 120


class _Container:
    """One container of Docker's or Podman's, from an image of its own."""

    def __init__(self, engine: str, name: str, folder: str, run: Run) -> None:
        self.engine, self.name, self.folder, self.run = engine, name, folder, run
        self.image = f"localhost/{name}:latest"

    def prepare(self) -> str:
        """Have something to start; why not."""
        status, output, errors = self.run([self.engine, "import", os.path.join(self.folder, ARCHIVE), self.image])
        return "" if status == 0 else f"{self.engine} import fails: {_last(errors or output)}"

    def start(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        command = ("/bin/sleep", str(_LIFE_SECONDS))
        return self.run([self.engine, "run", "--detach", "--name", self.name, "--network=none", *arguments, self.image, *command])

    def inside(self, *words: str) -> tuple[int, str, str]:
        return self.run([self.engine, "exec", self.name, *words])

    def remove(self) -> None:
        self.run([self.engine, "rm", "--force", self.name])
        self.run([self.engine, "rmi", "--force", self.image])


class _Bare(_Container):
    """One of containerd's own, from a folder; in a namespace where nobody else looks."""

    CTR = ("ctr", "--namespace", "aikit-fleet")

    def prepare(self) -> str:
        folder = os.path.join(self.folder, "root")
        with tarfile.open(os.path.join(self.folder, ARCHIVE)) as tar:
            for member in tar:
                path = os.path.join(folder, member.name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                source = tar.extractfile(member)
                with open(path, "wb") as target:
                    target.write(source.read() if source else b"")
                os.chmod(path, 0o755)
        status, output, errors = self.run([*self.CTR, "version"])
        return "" if status == 0 else f"ctr version fails: {_last(errors or output)}"

    def start(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        command = (os.path.join(self.folder, "root"), self.name, "/bin/sleep", str(_LIFE_SECONDS))
        return self.run([*self.CTR, "run", "--detach", "--rootfs", *arguments, *command])

    def inside(self, *words: str) -> tuple[int, str, str]:
        return self.run([*self.CTR, "tasks", "exec", "--exec-id", uuid.uuid4().hex[:8], self.name, *words])

    def remove(self) -> None:
        self.run([*self.CTR, "tasks", "rm", "--force", self.name])
        self.run([*self.CTR, "containers", "rm", self.name])


def probe(engine: str, arguments: Sequence[str], nodes: Sequence[str], reload: bool, folder: str, run: Run) -> dict[str, Any]:
    """The result of module nvidia_container_check. ``folder``: where the image may be put together."""
    missing = _pack(os.path.join(folder, ARCHIVE), run)
    if missing:
        return _result(engine, False, f"no image can be made: {missing}", "Check by hand that a container sees the GPU.", nodes)
    container = (_Bare if engine == "containerd" else _Container)(engine, f"aikit-fleet-gpu-check-{uuid.uuid4().hex[:8]}", folder, run)
    problem = container.prepare()
    if problem:
        hint = "systemctl status containerd" if engine == "containerd" else f"{engine} info"
        return _result(engine, False, problem, f"{hint} says whether it works.", nodes)
    try:
        return _check(container, arguments, nodes or NODES, reload)
    finally:
        container.remove()


def _check(container: _Container, arguments: Sequence[str], nodes: Sequence[str], reload: bool) -> dict[str, Any]:
    engine = container.engine
    status, output, errors = container.start(arguments)
    if status != 0:
        return _result(engine, False, f"{' '.join(arguments)}: {_last(errors or output)}", _start_hint(errors), nodes)
    refused = _open(container, nodes)
    if refused:
        return _result(engine, False, refused, "SELinux or the engine's device rules keep the container from the GPU; journalctl -t audit says which.", nodes)
    if not reload:
        return _result(engine, True, f"{len(nodes)} device nodes open", "", nodes)
    container.run(["systemctl", "daemon-reload"])
    refused = _open(container, nodes)
    if refused:
        hint = "systemd takes the devices away that it was not told of: use CDI (--device nvidia.com/gpu=all) instead of the hook behind --gpus."
        return _result(engine, False, f"after systemctl daemon-reload: {refused}", hint, nodes)
    return _result(engine, True, f"{len(nodes)} device nodes open, also after systemctl daemon-reload", "", nodes)


def _open(container: _Container, nodes: Sequence[str]) -> str:
    for node in nodes:
        status, output, errors = container.inside("/bin/dd", f"if={node}", "of=/dev/null", "count=0")
        if status != 0:
            return _last(errors or output)
    return ""


def _start_hint(errors: str) -> str:
    if "unresolvable CDI devices" in errors:
        return "nvidia-ctk cdi list shows what there is. An engine says this too of a specification whose version it does not read."
    if "could not select device driver" in errors:
        return "Docker looks for NVIDIA's hook when it starts: restart Docker."
    return "The engine's log says more."


def _pack(archive: str, run: Run) -> str:
    """Make the archive; why it cannot be made."""
    files = {}
    for name in ("sleep", "dd"):
        path: Optional[str] = next((where for where in (f"/bin/{name}", f"/usr/bin/{name}") if os.path.exists(where)), None)
        if path is None:
            return f"there is no {name}"
        files[f"/bin/{name}"] = path
        # Libraries are opened by the path that ldd prints; a static program has none
        _status, output, _errors = run(["ldd", path])
        files.update((library, library) for library in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", output, re.M))
    with tarfile.open(archive, "w") as tar:
        for target, source in sorted(files.items()):
            # What a link leads to, under the name of the link
            info = tarfile.TarInfo(target.lstrip("/"))
            with open(source, "rb") as handle:
                info.size = os.fstat(handle.fileno()).st_size
                info.mode = 0o755
                tar.addfile(info, handle)
    return ""


def _result(engine: str, passed: bool, detail: str, hint: str, nodes: Sequence[str]) -> dict[str, Any]:
    return {"changed": False, "engine": engine, "ok": passed, "detail": detail, "hint": hint, "nodes": list(nodes)}


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("See '")]
    return lines[-1].strip() if lines else "no output"
