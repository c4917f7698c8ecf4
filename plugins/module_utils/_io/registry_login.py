# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The logins of registries that ``docker login`` and ``podman login`` keep, in files or in the programs that those name."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import Any, Mapping, Optional

from .._core import registry as rules
from .._core.errors import AikitError
from .._core.registry import Credentials
from . import files

HELPER_TIMEOUT_SECONDS = 60
FILE_MAX_BYTES = 4 * 1024 * 1024


def login_files(auth_file: Optional[str]) -> list[str]:
    """Where logins may be. One that is named is the only one; else what the environment names goes before the usual places."""
    if auth_file:
        return [os.path.expanduser(auth_file)]
    environment = os.environ
    found = [environment.get("REGISTRY_AUTH_FILE") or ""]
    if environment.get("DOCKER_CONFIG"):
        found.append(os.path.join(environment["DOCKER_CONFIG"], "config.json"))
    runtime = environment.get("XDG_RUNTIME_DIR")
    found.append(os.path.join(runtime, "containers/auth.json") if runtime else f"/run/containers/{os.getuid()}/auth.json")
    found.append(os.path.expanduser("~/.config/containers/auth.json"))
    if not environment.get("DOCKER_CONFIG"):
        found.append(os.path.expanduser("~/.docker/config.json"))
    return [path for path in found if path]


def find_credentials(host: str, repository: str, auth_file: Optional[str] = None) -> Optional[Credentials]:
    """The login of ``host/repository``, from the first file that has one; None where there is none."""
    for path in login_files(auth_file):
        try:
            with open(path, "rb") as handle:
                raw = handle.read(FILE_MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            if auth_file:
                raise AikitError(
                    f"registry_auth_file: there is no file {path} on this machine.", "Name the file that docker login or podman login wrote."
                ) from None
            continue
        except OSError as exc:
            if auth_file:
                raise AikitError(f"registry_auth_file: {path} cannot be read: {exc.strerror}.", "Give this user the right to read it.") from None
            continue
        login = rules.find_login(rules.parse_login_file(raw, path), host, repository, path)
        credentials = login.credentials if not login.helper else ask_helper(login.helper, login.server, path)
        if credentials is not None:
            return credentials
    return None


def ask_helper(helper: str, server: str, where: str) -> Optional[Credentials]:
    """What a credential helper knows of ``server``; the name goes in on stdin, the secret comes back on stdout."""
    try:
        done = subprocess.run([helper, "get"], input=f"{server}\n".encode(), capture_output=True, timeout=HELPER_TIMEOUT_SECONDS, check=False)
    except FileNotFoundError:
        raise AikitError(f"{where} names the credential helper {helper}, which is not on this machine.", "Install it, or log in again without it.") from None
    except (OSError, subprocess.TimeoutExpired) as exc:
        text = f"no answer within {HELPER_TIMEOUT_SECONDS} seconds" if isinstance(exc, subprocess.TimeoutExpired) else str(exc.strerror or exc)
        raise AikitError(f"{helper}, which {where} names, failed: {text}.", "Try it: echo HOST | " + f"{helper} get") from None
    if done.returncode == 0:
        return rules.parse_helper_answer(done.stdout, helper)
    text = (done.stdout + b" " + done.stderr).decode("utf-8", "replace").strip()
    if rules.helper_has_none(text):
        return None
    raise AikitError(f"{helper}, which {where} names, failed: {' '.join(text.split())[:300]}.", "Log in again with docker login.")


def docker_config(work: str, auth_file: Optional[str], logins: Mapping[str, Credentials]) -> dict[str, str]:
    """The environment with which docker takes its logins from a file or from the task, and everything else from where it always does."""
    if not auth_file and not logins:
        return {}
    usual = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    document: dict[str, Any] = {}
    source = os.path.expanduser(auth_file) if auth_file else os.path.join(usual, "config.json")
    try:
        with open(source, "rb") as handle:
            document = rules.parse_login_file(handle.read(), source)
    except OSError as exc:
        if auth_file:
            raise AikitError(
                f"registry_auth_file: {auth_file} cannot be read: {exc.strerror}.", "Log in first (docker login, podman login), or leave it out."
            ) from None
    if logins:
        # A program that keeps logins would be asked before what stands here
        document = {"auths": dict(document.get("auths") or {}), "credHelpers": dict(document.get("credHelpers") or {})}
    for host, login in logins.items():
        key = "https://index.docker.io/v1/" if host == rules.DOCKER_HUB else host
        document["auths"][key] = {"auth": base64.b64encode(f"{login.user}:{login.password}".encode()).decode()}
        document["credHelpers"].pop(key, None)
    path = os.path.join(work, "docker")
    os.mkdir(path, 0o700)
    files.write_atomic(os.path.join(path, "config.json"), json.dumps(document).encode(), 0o600, durable=False)
    for name in ("cli-plugins", "contexts"):
        if os.path.isdir(os.path.join(usual, name)):
            os.symlink(os.path.join(usual, name), os.path.join(path, name))
    return {"DOCKER_CONFIG": path, "BUILDX_CONFIG": os.environ.get("BUILDX_CONFIG") or os.path.join(usual, "buildx")}
