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
import shutil
import tarfile
import uuid
from typing import Any, Callable, Optional, Sequence

from .._core.data_nvidia_toolkit import HOOK

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]

NODES = ("/dev/nvidiactl",)
_LIFE_SECONDS = 120


def probe(engine: str, arguments: Sequence[str], nodes: Sequence[str], reload: bool, folder: str, run: Run) -> dict[str, Any]:
    """The result of module nvidia_container_check. ``folder``: where the image may be put together."""
    archive = os.path.join(folder, "image.tar")
    missing = _pack(archive, run)
    if missing:
        return _result(engine, False, f"no image can be made: {missing}", "Check by hand that a container sees the GPU.", nodes)
    name = f"aikit-fleet-gpu-check-{uuid.uuid4().hex[:8]}"
    image = f"localhost/{name}:latest"
    status, output, errors = run([engine, "import", archive, image])
    if status != 0:
        return _result(engine, False, f"{engine} import fails: {_last(errors or output)}", f"{engine} info says whether it works.", nodes)
    try:
        return _check(engine, arguments, nodes or NODES, reload, name, image, run)
    finally:
        run([engine, "rm", "--force", name])
        run([engine, "rmi", "--force", image])


def _check(engine: str, arguments: Sequence[str], nodes: Sequence[str], reload: bool, name: str, image: str, run: Run) -> dict[str, Any]:
    command = [engine, "run", "--detach", "--name", name, "--network=none", *arguments, image, "/bin/sleep", str(_LIFE_SECONDS)]
    status, output, errors = run(command)
    if status != 0:
        # A Docker that knows no driver for --gpus found no hook when it started, and looks for it at no other time
        late = "could not select device driver" in errors and shutil.which(HOOK) is not None
        return _result(engine, False, f"{' '.join(arguments)}: {_last(errors or output)}", _start_hint(errors, late), nodes, late)
    refused = _open(engine, name, nodes, run)
    if refused:
        return _result(engine, False, refused, "SELinux or the engine's device rules keep the container from the GPU; journalctl -t audit says which.", nodes)
    if not reload:
        return _result(engine, True, f"{len(nodes)} device nodes open", "", nodes)
    run(["systemctl", "daemon-reload"])
    refused = _open(engine, name, nodes, run)
    if refused:
        hint = "systemd takes the devices away that it was not told of: use CDI (--device nvidia.com/gpu=all) instead of the hook behind --gpus."
        return _result(engine, False, f"after systemctl daemon-reload: {refused}", hint, nodes)
    return _result(engine, True, f"{len(nodes)} device nodes open, also after systemctl daemon-reload", "", nodes)


def _open(engine: str, name: str, nodes: Sequence[str], run: Run) -> str:
    for node in nodes:
        status, output, errors = run([engine, "exec", name, "/bin/dd", f"if={node}", "of=/dev/null", "count=0"])
        if status != 0:
            return _last(errors or output)
    return ""


def _start_hint(errors: str, late: bool) -> str:
    if "unresolvable CDI devices" in errors:
        return "nvidia-ctk cdi list shows what there is. An engine says this too of a specification whose version it does not read."
    if late:
        return "Docker looks for NVIDIA's hook when it starts: restart Docker."
    if "could not select device driver" in errors:
        return f"There is no {HOOK}, which hands out the GPUs behind --gpus: it is in the package nvidia-container-toolkit."
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


def _result(engine: str, passed: bool, detail: str, hint: str, nodes: Sequence[str], restart_needed: bool = False) -> dict[str, Any]:
    return {"changed": False, "engine": engine, "ok": passed, "detail": detail, "hint": hint, "nodes": list(nodes), "restart_needed": restart_needed}


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("See '")]
    return lines[-1].strip() if lines else "no output"
