# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read what services hold of a host's GPUs. Nothing is changed, and a host without an engine or a driver holds nothing."""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence

from .._core import release, service_memory
from .._core.engine import ContainerState
from .._core.errors import AikitError
from . import host
from .engine import Engine, open_engine
from .gpu_probe import Programs, Run
from .tree import Tree

SMI_TIMEOUT_SECONDS = 15.0


def observe(
    names: Optional[Sequence[str]], engine: str, state_dir: str, root: str, run: Optional[Run] = None, opened: Callable[[str], Engine] = open_engine
) -> dict[str, Any]:
    """The result of module inference_memory.

    :param names: of the services; None for all that have a state file.
    """
    tree = Tree(root)
    apps = _compute_apps(tree, run)
    try:
        found: Optional[Engine] = opened(engine)
        problem = ""
    except AikitError as exc:
        # A host that was not provisioned yet: a fact, and no error
        found, problem = None, exc.message
    services = []
    for name in host.services(state_dir) if names is None else names:
        state = release.parse_state(host.read_text(host.state_path(state_dir, name)), name, host.state_path(state_dir, name))
        container: Optional[ContainerState] = found.container(name) if found else None
        processes = found.processes(name) if found and container is not None and container.running else []
        firm = service_memory.firm_mib(tree.text(f"proc/{process}/status") for process in processes)
        services.append(service_memory.remembered(name, state, container, processes, apps, firm))
    return {"services": services, "host": _host_memory(tree, run), "engine": found.name if found else "", "problem": problem}


def _host_memory(tree: Tree, run: Optional[Run]) -> dict[str, int]:
    meminfo = tree.text("proc/meminfo")
    groups = [
        (tree.text(f"sys/fs/cgroup/{limit}"), tree.text(f"sys/fs/cgroup/{use}"), tree.text(f"sys/fs/cgroup/{stat}"))
        for limit, use, stat in service_memory.GROUP_FILES
    ]
    return service_memory.host_memory(meminfo, groups, "" if meminfo else Programs(tree, run).output(["sysctl", "-n", "hw.memsize"]).text)


def _compute_apps(tree: Tree, run: Optional[Run]) -> Optional[service_memory.Apps]:
    """None where the driver cannot tell."""
    # nvidia-smi loads the driver where it is not loaded; to look must change nothing
    if tree.data("proc/driver/nvidia/version") is None and not tree.exists("dev/dxg"):
        return None
    programs = Programs(tree, run)
    output = programs.output(["nvidia-smi", *service_memory.SMI_APPS], SMI_TIMEOUT_SECONDS)
    if output.status != 0:
        return None
    apps = service_memory.compute_apps(output.text)
    used = "" if apps else programs.output(["nvidia-smi", *service_memory.SMI_USED], SMI_TIMEOUT_SECONDS).text
    return service_memory.answer(apps, used)
