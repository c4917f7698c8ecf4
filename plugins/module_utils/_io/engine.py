# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker through its SDK, Podman through its command: effects only, every decision is in _core."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import traceback
from typing import Any, Callable, Iterable, Iterator, Mapping, Optional, Protocol

from .._core.engine import ContainerState, ImageState, Room, docker_roots, find_image, parse_container, parse_image, podman_roots, uses_containerd_store
from .._core.errors import AikitError
from .._core.reference import is_loopback, split_tag

DOCKER_IMPORT_ERROR = None
try:
    import docker
    from docker.errors import APIError, DockerException, NotFound
except ImportError:
    DOCKER_IMPORT_ERROR = traceback.format_exc()

SERVICE_LABEL = "io.aikit.fleet.service"
# The daemon answers a load only when it has unpacked everything; 40 GB on a slow disk take a while.
LOAD_TIMEOUT_SECONDS = 4 * 3600
CALL_TIMEOUT_SECONDS = 120
ARCHIVE_BYTES = 64 * 1024
# A file of an image that is read into memory and into a module's result
FILE_MAX_BYTES = 1024 * 1024
_PULL_HINT = "The host itself must reach the registry, trust its certificate, and have a login where it wants one."


# Reads the start of a file that may be huge: gets a function that reads the next bytes, and the size of the file
Head = Callable[[Callable[[int], bytes], int], Any]


class Engine(Protocol):
    """What the modules ask of an engine. Every method raises :class:`AikitError` when the engine refuses."""

    name: str

    def version(self) -> dict[str, Any]: ...

    def rooms(self) -> tuple[Room, ...]: ...

    def image(self, ref: str) -> Optional[ImageState]: ...

    def images(self) -> list[ImageState]: ...

    def image_file(self, ref: str, path: str) -> Optional[bytes]: ...

    def image_head(self, ref: str, path: str, read: Head) -> Any: ...

    def load(self, chunks: Iterable[bytes]) -> None: ...

    def remote_digest(self, ref: str, login: Optional[tuple[str, str]] = None) -> str: ...

    def pull(self, ref: str, login: Optional[tuple[str, str]] = None) -> None: ...

    def tag(self, image_id: str, ref: str) -> None: ...

    def remove_image(self, image_id: str) -> None: ...

    def container(self, name: str) -> Optional[ContainerState]: ...

    def containers(self, label: str = SERVICE_LABEL) -> list[ContainerState]: ...

    def logs(self, name: str, tail: Optional[int] = None, since: str = "") -> str: ...

    def processes(self, name: str) -> list[int]: ...

    def start(self, name: str) -> None: ...

    def stop(self, name: str, timeout: int = 30) -> None: ...

    def rename(self, name: str, new: str) -> None: ...

    def remove(self, name: str, volumes: bool = False) -> None: ...


def open_engine(name: str = "auto") -> Engine:
    """The engine of that name, or the first that answers: Docker, then Podman."""
    if name == "docker":
        return DockerEngine()
    if name == "podman":
        return PodmanEngine()
    problems = []
    for kind in (DockerEngine, PodmanEngine):
        try:
            return kind()
        except AikitError as exc:
            problems.append(str(exc))
    raise AikitError("No container engine answers on this host. " + " ".join(problems))


class DockerEngine:
    """Docker Engine over its API (``DOCKER_HOST`` is honoured)."""

    name = "docker"

    def __init__(self) -> None:
        if DOCKER_IMPORT_ERROR is not None:
            raise AikitError(
                "The Python package docker is missing on this host.",
                "Role container_engine installs it (Debian: python3-docker); with pip: pip install docker.",
                exception=DOCKER_IMPORT_ERROR,
            )
        self._url = url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        try:
            # The SDK reads DOCKER_TLS_VERIFY and DOCKER_CERT_PATH itself
            self._client = docker.from_env(version="auto", timeout=CALL_TIMEOUT_SECONDS).api
            self._client.ping()
        except (DockerException, OSError, ValueError) as exc:
            if "Permission denied" in _reason(exc):
                raise AikitError(
                    f"Docker at {url} may not be used by this user.",
                    "Set ansible_become: true for this host (become: true for a play or a task), or let the user in (group docker, which is as good as root).",
                ) from exc
            raise AikitError(
                f"Docker does not answer at {url}: {_reason(exc)}.",
                "Start it (systemctl start docker, or role container_engine), and check that this user may use the socket.",
            ) from exc

    def version(self) -> dict[str, Any]:
        """``{version, api, cdi_devices, cdi_spec_dirs, runtimes, containerd_store}``."""
        found = self._call("version", self._client.version)
        info = self._call("info", self._client.info)
        return {
            "version": found.get("Version", ""),
            "api": found.get("ApiVersion", ""),
            "cdi_spec_dirs": list(info.get("CDISpecDirs") or ()),
            "cdi_devices": [device.get("ID", "") for device in info.get("DiscoveredDevices") or () if device.get("Source") == "cdi"],
            "runtimes": sorted(info.get("Runtimes") or {}),
            "containerd_store": uses_containerd_store(info),
            "cgroup_version": str(info.get("CgroupVersion") or "1"),
        }

    def rooms(self) -> tuple[Room, ...]:
        """Where a load is written, as far as it can be seen from here: not that of a daemon on another machine."""
        if not self._url.startswith("unix://"):
            return ()
        found = docker_roots(self._call("info", self._client.info))
        # A folder of that name alone says nothing: this may be a container with the socket of its host
        marks = ("containers", "io.containerd.content.v1.content")
        return tuple(room for room in found if any(os.path.isdir(os.path.join(room.path, mark)) for mark in marks))[:1]

    def image(self, ref: str) -> Optional[ImageState]:
        found = self._find(self._client.inspect_image, ref)
        return None if found is None else parse_image(found)

    def images(self) -> list[ImageState]:
        summaries = self._call("list images", self._client.images)
        found = (self.image(summary["Id"]) for summary in summaries)
        return [image for image in found if image is not None]

    def image_file(self, ref: str, path: str) -> Optional[bytes]:
        """A small file of an image, read from a container that never starts; None when it is not there."""
        with self._archive(ref, path) as archive:
            return None if archive is None else _only_file(archive, path, ref)

    def image_head(self, ref: str, path: str, read: Head) -> Any:
        """What ``read`` makes of a file of an image, from a container that never starts; None when it is not there."""
        with self._archive(ref, path) as archive:
            return None if archive is None else _head(archive, path, ref, read)

    @contextlib.contextmanager
    def _archive(self, ref: str, path: str) -> Iterator[Optional[_Chunks]]:
        """A file of an image as a tar archive, which need not be read to its end; None when it is not there."""
        created = self._call(f"create a container of {ref}", self._client.create_container, ref, command=["true"])
        try:
            # The SDK's get_archive cannot be ended: the daemon waits for somebody to read the rest, and the removal waits for the daemon
            url = f"{self._client.base_url}/v{self._client.api_version}/containers/{created['Id']}/archive"
            with contextlib.closing(self._client.get(url, params={"path": path}, stream=True, timeout=CALL_TIMEOUT_SECONDS)) as answer:
                if answer.status_code == 404:
                    yield None
                else:
                    answer.raise_for_status()
                    yield _Chunks(answer.iter_content(ARCHIVE_BYTES))
        except (DockerException, OSError) as exc:
            raise AikitError(f"Docker could not read {path} of {ref}: {_reason(exc)}") from exc
        finally:
            self.remove(created["Id"])

    def load(self, chunks: Iterable[bytes]) -> None:
        """Stream a docker-archive into the daemon; nothing is spooled on our side."""
        client = docker.from_env(version="auto", timeout=LOAD_TIMEOUT_SECONDS).api
        try:
            # Errors come in the stream, with HTTP status 200
            for event in client.load_image(chunks, quiet=True):
                if "error" in event:
                    raise AikitError(f"Docker could not load the image: {event['error'].strip()}")
        except (DockerException, OSError) as exc:
            raise AikitError(f"Docker could not load the image: {_reason(exc)}") from exc
        finally:
            client.close()

    def remote_digest(self, ref: str, login: Optional[tuple[str, str]] = None) -> str:
        """The digest that a registry has under a name now, as the daemon sees it; empty where it does not tell."""
        auth = {"username": login[0], "password": login[1]} if login else None
        try:
            return str(self._client.inspect_distribution(ref, auth_config=auth)["Descriptor"]["digest"])
        except (DockerException, OSError, KeyError, TypeError):
            return ""

    def pull(self, ref: str, login: Optional[tuple[str, str]] = None) -> None:
        """Pull an image by its digest or its tag. A login goes to the daemon in a header and is kept nowhere."""
        repository, tag = ref.split("@", 1) if "@" in ref else split_tag(ref)
        auth = {"username": login[0], "password": login[1]} if login else None
        client = docker.from_env(version="auto", timeout=LOAD_TIMEOUT_SECONDS).api
        try:
            for event in client.pull(repository, tag=tag, stream=True, decode=True, auth_config=auth):
                if "error" in event:
                    raise AikitError(f"Docker could not pull {ref}: {event['error'].strip()}", _PULL_HINT)
        except (DockerException, OSError) as exc:
            raise AikitError(f"Docker could not pull {ref}: {_reason(exc)}", _PULL_HINT) from exc
        finally:
            client.close()

    def tag(self, image_id: str, ref: str) -> None:
        repository, tag = split_tag(ref)
        self._call(f"tag {ref}", self._client.tag, image_id, repository, tag)

    def remove_image(self, image_id: str) -> None:
        if self.image(image_id) is not None:
            self._call(f"remove image {image_id}", self._client.remove_image, image_id, force=True)

    def container(self, name: str) -> Optional[ContainerState]:
        found = self._find(self._client.inspect_container, name)
        return None if found is None else parse_container(found)

    def containers(self, label: str = SERVICE_LABEL) -> list[ContainerState]:
        filters = {"label": [label]} if label else {}
        summaries = self._call("list containers", self._client.containers, all=True, filters=filters)
        found = (self.container(summary["Id"]) for summary in summaries)
        return [container for container in found if container is not None]

    def logs(self, name: str, tail: Optional[int] = None, since: str = "") -> str:
        raw = self._call(
            f"read the logs of {name}",
            self._client.logs,
            name,
            stdout=True,
            stderr=True,
            tail="all" if tail is None else tail,
            since=_epoch_seconds(since),
        )
        return raw.decode("utf-8", "replace")

    def processes(self, name: str) -> list[int]:
        table = self._find(self._client.top, name) or {}
        column = (table.get("Titles") or ["PID"]).index("PID") if "PID" in (table.get("Titles") or ()) else 1
        return [int(row[column]) for row in table.get("Processes") or ()]

    def start(self, name: str) -> None:
        self._call(f"start {name}", self._client.start, name)

    def stop(self, name: str, timeout: int = 30) -> None:
        self._call(f"stop {name}", self._client.stop, name, timeout=timeout)

    def rename(self, name: str, new: str) -> None:
        self._call(f"rename {name} to {new}", self._client.rename, name, new)

    def remove(self, name: str, volumes: bool = False) -> None:
        if self.container(name) is not None:
            self._call(f"remove {name}", self._client.remove_container, name, v=volumes, force=True)

    @staticmethod
    def _call(what: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (DockerException, OSError) as exc:
            raise AikitError(f"Docker could not {what}: {_reason(exc)}") from exc

    def _find(self, function: Any, name: str) -> Any:
        try:
            return function(name)
        except NotFound:
            return None
        except APIError as exc:
            # /top answers 409 for a container that does not run; so do names that are no image references with 400
            if exc.response is not None and exc.response.status_code in (400, 409):
                return None
            raise AikitError(f"Docker could not inspect {name}: {_reason(exc)}") from exc
        except (DockerException, OSError) as exc:
            raise AikitError(f"Docker could not inspect {name}: {_reason(exc)}") from exc


class PodmanEngine:
    """Podman over its command line."""

    name = "podman"

    def __init__(self) -> None:
        if shutil.which("podman") is None:
            raise AikitError("The command podman is missing on this host.", "Install Podman, or use Docker.")
        self._run("info", "--format", "{{.Host.OS}}")

    def version(self) -> dict[str, Any]:
        found = json.loads(self._run("version", "--format", "json"))
        client = found.get("Client") or found
        return {
            "version": client.get("Version", ""),
            "api": client.get("APIVersion", ""),
            "cdi_spec_dirs": ["/etc/cdi", "/var/run/cdi"],
            "cdi_devices": [],
            "runtimes": [],
            "containerd_store": False,
            "cgroup_version": "",
        }

    def rooms(self) -> tuple[Room, ...]:
        """Where a load is written; nothing for a Podman whose service is on another machine."""
        found = podman_roots(json.loads(self._run("info", "--format", "json")), os.environ.get("TMPDIR") or "/var/tmp")
        return tuple(room for room in found if os.path.isdir(room.path))

    def image(self, ref: str) -> Optional[ImageState]:
        found = self._inspect("image", ref)
        return None if found is None else parse_image(found)

    def images(self) -> list[ImageState]:
        ids = self._run("image", "ls", "--quiet", "--no-trunc").split()
        found = (self.image(image_id) for image_id in dict.fromkeys(ids))
        return [image for image in found if image is not None]

    def image_file(self, ref: str, path: str) -> Optional[bytes]:
        container = self._run("create", ref, "true").split()[-1]
        try:
            with subprocess.Popen(
                ["podman", "cp", f"{container}:{path}", "-"], env=_command_env(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    return _only_file(process.stdout, path, ref)
                finally:
                    # What is left of a folder of models nobody reads
                    process.kill()
        finally:
            self.remove(container)

    def image_head(self, ref: str, path: str, read: Head) -> Any:
        container = self._run("create", ref, "true").split()[-1]
        try:
            with subprocess.Popen(
                ["podman", "cp", f"{container}:{path}", "-"], env=_command_env(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    return _head(process.stdout, path, ref, read)
                finally:
                    # The rest of a model of 40 GB nobody reads
                    process.kill()
        finally:
            self.remove(container)

    def load(self, chunks: Iterable[bytes]) -> None:
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                ["podman", "load", "--quiet"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_command_env(),
            ) as process:
                try:
                    _feed(process, chunks)
                except BaseException:
                    process.kill()
                    raise
                code = process.wait()
            if code != 0:
                errors.seek(0)
                text = errors.read().decode("utf-8", "replace").strip()
                raise AikitError(f"podman load failed with exit status {code}: {text}")

    def remote_digest(self, ref: str, login: Optional[tuple[str, str]] = None) -> str:
        """Always empty: Podman has no command that asks a registry for a digest alone."""
        return ""

    def pull(self, ref: str, login: Optional[tuple[str, str]] = None) -> None:
        """Pull an image by its digest or its tag. A login stands in a file for the time of the pull."""
        with tempfile.NamedTemporaryFile("w", prefix="aikit-fleet-", suffix=".json") as file:
            words = ["pull", "--quiet"]
            if login:
                auth = base64.b64encode(":".join(login).encode()).decode("ascii")
                json.dump({"auths": {ref.partition("/")[0]: {"auth": auth}}}, file)
                file.flush()
                words += ["--authfile", file.name]
            if is_loopback(ref.partition("/")[0]):
                # As Docker has it: no encryption is needed within one machine
                words.append("--tls-verify=false")
            self._run(*words, ref)

    def tag(self, image_id: str, ref: str) -> None:
        self._run("tag", image_id, ref)

    def remove_image(self, image_id: str) -> None:
        if self.image(image_id) is not None:
            self._run("image", "rm", "--force", image_id)

    def container(self, name: str) -> Optional[ContainerState]:
        found = self._inspect("container", name)
        return None if found is None else parse_container(found)

    def containers(self, label: str = SERVICE_LABEL) -> list[ContainerState]:
        filters = ("--filter", f"label={label}") if label else ()
        ids = self._run("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        found = (self.container(container_id) for container_id in ids)
        return [container for container in found if container is not None]

    def logs(self, name: str, tail: Optional[int] = None, since: str = "") -> str:
        words = ["logs"]
        if tail is not None:
            words += ["--tail", str(tail)]
        if since:
            words += ["--since", since]
        return self._run(*words, name, merge=True)

    def processes(self, name: str) -> list[int]:
        state = self.container(name)
        if state is None or not state.running:
            return []
        lines = self._run("top", name, "hpid").split()[1:]
        return [int(word) for word in lines if word.isdigit()]

    def start(self, name: str) -> None:
        self._run("start", name)

    def stop(self, name: str, timeout: int = 30) -> None:
        self._run("stop", "--time", str(timeout), name)

    def rename(self, name: str, new: str) -> None:
        self._run("rename", name, new)

    def remove(self, name: str, volumes: bool = False) -> None:
        if self.container(name) is not None:
            self._run("rm", "--force", *(("--volumes",) if volumes else ()), name)

    def _inspect(self, kind: str, name: str) -> Optional[Mapping[str, Any]]:
        # `exists` tells "no" (1) from "failed" (125); `inspect` does not
        code = subprocess.run(
            ["podman", kind, "exists", name], env=_command_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
        if code == 1:
            return None
        documents = json.loads(self._run(kind, "inspect", name))
        return documents[0] if documents else None

    @staticmethod
    def _run(*words: str, merge: bool = False) -> str:
        done = subprocess.run(
            ["podman", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            env=_command_env(),
            check=False,
        )
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            errors = text if merge else done.stderr.decode("utf-8", "replace")
            raise AikitError(f"podman {' '.join(words)} failed with exit status {done.returncode}: {errors.strip()}")
        return text


def present_image(engine: Engine, ref: str, *ids: str) -> Optional[ImageState]:
    """The image that ``ref`` names in ``engine`` if its id is one of ``ids``, else any image with such an id."""
    named = engine.image(ref)
    found = find_image([named] if named else [], *ids)
    if found is not None:
        return found
    for image_id in ids:
        other = engine.image(image_id) if image_id else None
        if other is not None:
            return other
    return None


def _only_file(archive: Any, path: str, ref: str) -> Optional[bytes]:
    """The one file in a tar archive that is read as it comes; None for an empty one."""
    try:
        with tarfile.open(fileobj=archive, mode="r|") as reader:
            member = reader.next()
            if member is None:
                return None
            if member.issym():
                raise AikitError(f"{path} of {ref} is a link to {member.linkname}.", "Give the path of the file itself.")
            if not member.isreg():
                raise AikitError(f"{path} of {ref} is {'a folder' if member.isdir() else 'no regular file'}.", "Give the path of a file in it.")
            if member.size > FILE_MAX_BYTES:
                raise AikitError(
                    f"{path} of {ref} has {member.size} bytes, and files of up to {FILE_MAX_BYTES} bytes are read.",
                    "This is for configuration, not for models.",
                )
            handle = reader.extractfile(member)
            return None if handle is None else handle.read()
    except tarfile.ReadError:
        return None


def _head(archive: Any, path: str, ref: str, read: Head) -> Any:
    """What ``read`` makes of the one file in a tar archive that is read as it comes; None for an empty archive."""
    try:
        with tarfile.open(fileobj=archive, mode="r|") as reader:
            member = reader.next()
            if member is None:
                return None
            handle = reader.extractfile(member) if member.isreg() else None
            if handle is None:
                kind = f"a link to {member.linkname}" if member.issym() else "no regular file"
                raise AikitError(f"{path} of {ref} is {kind}.", "Give the path of the file itself.")
            return read(handle.read, member.size)
    except tarfile.ReadError:
        return None


class _Chunks:
    """Pieces of bytes as a file that can be read once."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _feed(process: Any, chunks: Iterable[bytes]) -> None:
    """Write to a command's stdin; a command that ends early is told by its exit status, not by our broken pipe."""
    try:
        for chunk in chunks:
            process.stdin.write(chunk)
        process.stdin.close()
    except BrokenPipeError:
        pass


def _command_env() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _reason(exc: BaseException) -> str:
    """The daemon's own words, without the SDK's wrapping."""
    explanation = getattr(exc, "explanation", None)
    if isinstance(explanation, bytes):
        explanation = explanation.decode("utf-8", "replace")
    return str(explanation or exc).strip().rstrip(".")


def _epoch_seconds(moment: str) -> Optional[int]:
    """RFC 3339 to whole seconds; older SDKs take nothing finer."""
    if not moment or moment.startswith("0001-"):
        return None
    day_and_time = moment.replace("Z", "+00:00")
    head, _dot, tail = day_and_time.partition(".")
    zone = tail.lstrip("0123456789")
    text = head + (zone if tail else "")
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.timezone.utc)
    return int(found.timestamp())
