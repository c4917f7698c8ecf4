# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a base with mmdebstrap and keep it: observe the cache, plan, build beside it, rename."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping, Optional, Sequence

from .._core import base as bases
from .._core.errors import AikitError
from .._core.plan import report
from . import files

# argv, environment → exit status, stdout, stderr
Run = Callable[[Sequence[str], Mapping[str, str]], "tuple[int, str, str]"]

CAPTURED = ("packages", "backends", "version", "help", "devices", "log")


@dataclass(frozen=True)
class Request:
    """What the module was asked for; the fields are its options."""

    variant: str
    suite: str
    mirror: Optional[str]
    keyring: Optional[str]
    architecture: Optional[str]
    extra_packages: list[str]
    source_date_epoch: int
    cache_dir: str
    digest_cache: str
    refresh: bool


def ensure(request: Request, run: Run, check_mode: bool) -> dict[str, Any]:
    """The result of module llama_cpp_base."""
    started = time.monotonic()
    recipe = bases.recipe(
        variant=request.variant,
        suite=request.suite,
        mirror=request.mirror or "",
        architecture=request.architecture or bases.oci_architecture(platform.machine()),
        host_architecture=bases.host_architecture(platform.machine()),
        keyring=request.keyring or "",
        extra_packages=request.extra_packages,
        source_date_epoch=request.source_date_epoch,
    )
    path = os.path.join(request.cache_dir, recipe.file_name)
    cache = files.DigestCache(request.digest_cache)
    present, plan = _plan(request, recipe, path, cache, run, check_mode)
    if plan.changed and not check_mode:
        recipe = _preflight(recipe, run)
        os.makedirs(request.cache_dir, exist_ok=True)
        with files.lock(os.path.join(request.cache_dir, f".{recipe.file_name}.lock"), remove=True):
            # Somebody else may have built it while this one waited
            present, plan = _plan(request, recipe, path, cache, run, check_mode)
            if plan.changed:
                present = _build(recipe, path, cache, run)
    if plan.changed and check_mode:
        # What is there is not what will be
        present = None
    return report(plan, base=_describe(recipe, path, present), duration_seconds=round(time.monotonic() - started, 1))


def _plan(
    request: Request, recipe: bases.BaseRecipe, path: str, cache: files.DigestCache, run: Run, check_mode: bool
) -> tuple[Optional[bases.Base], Any]:
    present, reason = _observe(path, cache)
    available = None
    if request.refresh and present is not None and not (check_mode and shutil.which("mmdebstrap") is None):
        recipe = _preflight(recipe, run)
        available = _available(recipe, request.cache_dir, run)
    return present, bases.plan(recipe, path, present, reason, available)


def _observe(path: str, cache: files.DigestCache) -> tuple[Optional[bases.Base], str]:
    """The base at ``path``, or why there is none that can be trusted."""
    description = f"{path}.json"
    try:
        with open(description, encoding="utf-8") as handle:
            found = bases.parse_base(json.load(handle), description)
        if os.stat(path).st_size != found.size_bytes or files.sha256_file(path, cache) != found.sha256:
            return None, "the file there is not the one that was built"
    except FileNotFoundError:
        return None, "it is not there"
    except (AikitError, ValueError):
        return None, "its description cannot be read"
    return found, ""


def _host_mirror(run: Run) -> str:
    """The Debian mirror that apt on this host uses, or an empty string."""
    if shutil.which("apt-get") is None:
        return ""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian"]
    return bases.parse_mirrors(run(argv, {})[1])


def _preflight(recipe: bases.BaseRecipe, run: Run) -> bases.BaseRecipe:
    """Check what a build needs, before anything is written; the recipe with the mirror filled in."""
    if os.geteuid() != 0:
        raise AikitError("A base is built as root: mmdebstrap unpacks files of many owners.", "Set become: true.")
    for command, package in (("mmdebstrap", "mmdebstrap"), ("dpkg-deb", "dpkg"), ("setpriv", "util-linux"), ("unshare", "util-linux")):
        if shutil.which(command) is None:
            raise AikitError(
                f"{command} is not installed on {platform.node()}.",
                f"Role llama_cpp_base installs it; by hand: apt-get install {package}. It needs a host with Debian or Ubuntu.",
            )
    recipe = replace(recipe, mirror=recipe.mirror or _host_mirror(run))
    if not recipe.mirror:
        raise AikitError(
            "apt on this host knows no Debian mirror.",
            "Set llama_cpp_base_mirror to the URL of one (on Debian, apt-get update makes the host's own known).",
        )
    bases.check_mirror(recipe.mirror)
    if recipe.keyring and not os.path.isfile(recipe.keyring):
        raise AikitError(
            f"keyring: {recipe.keyring} does not exist.", "Install debian-archive-keyring, or set llama_cpp_base_keyring to the keyring of your mirror."
        )
    return recipe


def _workspace(path: str) -> str:
    """A new folder for a build, beside the result; what builds that were killed have left is removed."""
    directory, name = os.path.split(path)
    prefix = f".{name}.work-"
    for leftover in os.listdir(directory):
        if leftover.startswith(prefix):
            _remove(os.path.join(directory, leftover))
    work = tempfile.mkdtemp(prefix=prefix, dir=directory)
    os.chmod(work, 0o755)
    os.mkdir(os.path.join(work, "tmp"))
    return work


def _remove(work: str) -> None:
    # mmdebstrap runs in a mount namespace of its own. Should one of its mounts show here all the same, removing
    # what is below it would remove the host's files.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as handle:
        mounts = [line.split()[4] for line in handle]
    below = [mount for mount in mounts if mount.startswith(os.path.realpath(work) + "/")]
    if below:
        raise AikitError(f"{work} is left over from a build that was ended, and something is mounted at {below[0]}.", f"umount {below[0]}, then run again.")
    shutil.rmtree(work, ignore_errors=True)


def _prepare(recipe: bases.BaseRecipe, work: str, run: Run) -> None:
    # apt inside the new root does not read the host's settings: a proxy would be forgotten.
    apt_settings = run(["apt-config", "dump", "--format", '%f "%v";%n', "Acquire::http", "Acquire::https"], {})[1]
    for name, text in recipe.files(work, apt_settings).items():
        files.write_atomic(os.path.join(work, name), text.encode(), 0o644, durable=False)


def _available(recipe: bases.BaseRecipe, cache_dir: str, run: Run) -> tuple[Mapping[str, str], ...]:
    """The packages that a build would take today; only apt's lists are fetched, into a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix=".simulate-", dir=cache_dir) as work:
        os.chmod(work, 0o755)
        os.mkdir(os.path.join(work, "tmp"))
        _prepare(recipe, work, run)
        status, output, errors = run(recipe.simulate_argv(work), recipe.environment(work))
        packages = bases.parse_simulation(output + "\n" + errors)
    if status != 0 or not packages:
        raise bases.failure(recipe, output + "\n" + errors)
    return packages


def _build(recipe: bases.BaseRecipe, path: str, cache: files.DigestCache, run: Run) -> bases.Base:
    work = _workspace(path)
    try:
        files.require_space(os.path.dirname(path), recipe.needed_bytes, f"building {recipe.file_name}")
        _prepare(recipe, work, run)
        output = os.path.join(work, "base.tar")
        status, printed, errors = run(recipe.argv(work, output), recipe.environment(work))
        if status != 0:
            raise bases.failure(recipe, printed + "\n" + errors + "\n" + _last_lines(_captured(work)))
        os.chmod(output, 0o644)
        built = bases.describe(recipe, _captured(work), files.sha256_file(output), os.stat(output).st_size)
        _keep(output, path, built, cache)
    finally:
        _remove(work)
    return built


def _captured(work: str) -> dict[str, str]:
    """What the hook wrote, by file name."""
    captured = {}
    for name in CAPTURED:
        path = os.path.join(work, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as handle:
                captured[name] = handle.read()
    return captured


def _last_lines(captured: Mapping[str, str]) -> str:
    """What the hook did last, for the error of a build that failed in it."""
    lines = (captured.get("log", "") + captured.get("version", "")).splitlines()[-4:]
    return "".join(f"error in the hook: {line}\n" for line in lines)


def _keep(output: str, path: str, built: bases.Base, cache: files.DigestCache) -> None:
    """Move the tar file to its place. Without its description it counts for nothing, so that one goes first and comes last."""
    description = f"{path}.json"
    with open(output, "rb") as handle:
        os.fsync(handle.fileno())
    if os.path.exists(description):
        os.unlink(description)
    os.replace(output, path)
    cache.put("sha256", os.stat(path), built.sha256, files.SETTLED)
    files.write_atomic(description, (json.dumps(built.as_dict(), indent=1, sort_keys=True) + "\n").encode(), 0o644)


def _describe(recipe: bases.BaseRecipe, path: str, present: Optional[bases.Base]) -> dict[str, Any]:
    """What the module returns as ``base``; without a base (check mode) only what is known before it is built."""
    if present is None:
        return {"path": path, "variant": recipe.variant, "suite": recipe.suite, "architecture": recipe.architecture, "key": recipe.key, "sha256": ""}
    described = present.as_dict()
    del described["schema"]
    described["server"] = {"path": present.server.path, "version": present.server.version, "build": present.server.build}
    return {**described, "path": path}
