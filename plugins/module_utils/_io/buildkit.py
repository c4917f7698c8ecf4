# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of the BuildKit builder: observe the build host and the targets, plan, let ``docker buildx build`` do it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from dataclasses import replace
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence

from .._core import builder as builders
from .._core import buildkit as core
from .._core import data_aikit, data_buildkit, oci, version
from .._core import lock as locks
from .._core import registry as rules
from .._core.aikitfile import Aikitfile, image_file
from .._core.buildkit import Instance, Observed, Target, Versions
from .._core.builder import Choice
from .._core.engine import ImageState, uses_containerd_store
from .._core.errors import AikitError, Finding, raise_for_errors
from .._core.lock import Lock
from .._core.plan import Action, Plan, report
from . import command, files, progress
from .cosign import Signatures
from .engine import Engine, open_engine, present_image
from .load import verified_chunks
from .registry import Registry
from .registry_login import docker_config

# For what only asks. A first look at an instance of ours starts its container
ASK_SECONDS = 60.0
START_SECONDS = 600.0
# What else lies in the context travels too, for frontends that do not say what they want of it
CONTEXT_REMARK_BYTES = 1024 * 1024 * 1024
# What the user's shell says to buildx does not decide here; nor does the state of a Git repository around the context
ENVIRONMENT = {"LC_ALL": "C", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "BUILDX_GIT_INFO": "false", "BUILDX_METADATA_PROVENANCE": "disabled", "NO_COLOR": "1"}
IGNORED = ("BUILDX_BUILDER", "BUILDKIT_PROGRESS", "BUILDX_EXPERIMENTAL", "BUILDKIT_SYNTAX", "SOURCE_DATE_EPOCH")


class Commands:
    """How commands are run; tests record them instead."""

    def ask(self, argv: Sequence[str], timeout: float = ASK_SECONDS) -> tuple[int, str, str]:
        return command.run(argv, timeout, ENVIRONMENT)

    def build(self, argv: Sequence[str], environment: Mapping[str, str], on_line: Callable[[str], None]) -> int:
        """Run a build to its end, whenever that is; every line of its output goes to ``on_line``."""
        inherited = {name: value for name, value in os.environ.items() if name not in IGNORED}
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**inherited, **ENVIRONMENT, **environment},
            )
        except OSError as exc:
            raise AikitError(f"{argv[0]} cannot be run: {exc.strerror}.", "Install Docker and its buildx plugin on the build host.") from None
        try:
            for line in process.stdout or ():
                on_line(line.decode("utf-8", "replace"))
            return process.wait()
        except BaseException:
            # buildx cancels the build when it is asked to end
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        finally:
            process.stdout.close()


def build(
    request: Any,
    choice: Choice,
    aikitfile: Aikitfile,
    findings: Sequence[Finding],
    name: str,
    check_mode: bool,
    started: float,
    lock: Lock,
    signatures: Signatures,
) -> dict[str, Any]:
    """The result of module aikit_image with builder buildkit."""
    run = _Run(request, choice, aikitfile, builders.release(request.aikit_version), name, check_mode, Registry(request.registry_settings), lock, signatures)
    try:
        return run.result(findings, started)
    finally:
        run.registry.close()


class _Run:
    def __init__(
        self,
        request: Any,
        choice: Choice,
        aikitfile: Aikitfile,
        release: data_aikit.Version,
        name: str,
        check_mode: bool,
        registry: Registry,
        lock: Lock,
        signatures: Signatures,
    ) -> None:
        self.request = request
        self.choice = choice
        # Who did not ask for BuildKit is told what for it is needed
        self.because = "" if request.builder == "buildkit" else f" It is needed because {choice.reason}."
        self.aikitfile = aikitfile
        self.build_args = core.build_arguments(request.build_args)
        self.source = core.effective(request.parsed, self.build_args)
        self.release = release
        self.name = name
        self.check_mode = check_mode
        self.commands = Commands()
        self.registry = registry
        self.lock = lock
        self.signatures = signatures
        self.cache = files.DigestCache(request.cache, read_only=check_mode)
        self.context = request.context or request.parsed.get("directory") or ""
        self.compression = request.compression or "uncompressed"
        core.check_options(vars(request))
        secrets = core.parse_secrets(request.secrets or {})
        self.secrets = tuple(replace(secret, file=os.path.abspath(os.path.expanduser(secret.file))) if secret.file else secret for secret in secrets)
        self.hidden: tuple[str, ...] = ()
        self.findings: list[Finding] = []
        self.state_path = os.path.join(os.path.dirname(self.cache.directory.rstrip("/")), "buildkit", hashlib.sha256(name.encode()).hexdigest()[:32] + ".json")

    def result(self, findings: Sequence[Finding], started: float) -> dict[str, Any]:
        self.hidden = core.masks(self._secret_values())
        hidden = core.masks([*self.hidden, *(value for key, value in self.build_args.items() if core.is_secret(key, value, self.hidden))])
        raise_for_errors(core.refused(self.aikitfile, self.source, self.release), self.request.parsed["name"])
        sources = core.source_findings(self.aikitfile, self.request.require_sha256, self.request.hub_url)
        raise_for_errors(sources, self.request.parsed["name"])
        self.findings += sources
        frontend, origin = core.frontend(self.request.frontend, str(self.request.parsed.get("text") or ""), self.release)
        self.findings += core.build_arg_findings(self.build_args, frontend, self.hidden)
        self.findings += core.release_findings(frontend, origin, self.release)
        wanted = core.targets(bool(self.request.push), self.request.load, self.request.archive, self.request.oci_layout)
        versions, instance, platforms = self._host(wanted)
        context = self._context_digests()
        asked, frontend = frontend, self._pinned(frontend, origin)
        # BuildKit asks its own mirrors, not those of the task
        self.signatures.verify(frontend, frontend.partition("@")[2], mirrors=False)
        inputs = core.inputs(self.aikitfile.sha256, frontend, self.build_args, platforms, context, self.compression, self.secrets, self.hidden)
        state = files.read_json(self.state_path)
        observed = {target.key: self._observe(target) for target in wanted}
        plan, lacking = core.plan(self.name, wanted, inputs, state, observed, instance)
        # What is locked has to be so before anything is built
        self.findings += locks.check(self.lock, self._locked(asked, frontend, context, ""), self.request.lock_update) if self.request.lock else ()
        there = {target.key: observed[target.key].digest for target in wanted if target not in lacking}
        written = 0
        if lacking and not self.check_mode:
            state, written = self._apply(lacking, inputs, state, instance, versions, frontend, platforms, hidden)
            there.update({target.key: state["targets"][target.key]["digest"] for target in lacking})
        built = core.built_digests(state, inputs)
        image = self._image(there, built, wanted, platforms)
        plan = self._sign(plan, lacking, observed, image)
        if self.request.lock:
            plan = self._lock(plan, self._locked(asked, frontend, context, str(image.get("digest") or next(iter(built.values()), ""))))
        return report(
            plan,
            image={**self._unknown(platforms), **image},
            findings=[finding.as_dict() for finding in (*findings, *self.findings)],
            # BuildKit sends them itself, and tells nobody
            bytes_sent=None,
            bytes_written=written,
            duration_seconds=round(time.monotonic() - started, 3),
            builder="buildkit",
            reason=self.choice.reason,
            frontend=frontend,
            fingerprint=core.fingerprint(inputs),
            signatures=self.signatures.result(),
            instance={"name": instance.name, "driver": instance.driver, "reason": instance.reason},
            **({"archive": self.request.archive} if self.request.archive else {}),
            **({"oci_layout": self.request.oci_layout} if self.request.oci_layout else {}),
            **({"lock": self.request.lock} if self.request.lock else {}),
        )

    def _sign(self, plan: Plan, lacking: Sequence[Target], observed: Mapping[str, Observed], image: Mapping[str, Any]) -> Plan:
        """The plan with the signature in it, where that is missing; outside of check mode it is made."""
        pushed = next((observed[key].digest for key in observed if key.startswith("push")), "")
        waiting = any(target.kind == "push" for target in lacking)
        digest = str(image.get("digest") or "") if waiting else pushed
        actions = self.signatures.plan(self.name, digest, not waiting)
        self.signatures.apply(self.name, digest)
        return replace(plan, actions=(*plan.actions, *actions))

    # --- the lock

    def _locked(self, asked: str, frontend: str, context: Mapping[str, str], digest: str) -> dict[str, Any]:
        """What the lock file says of this build: the frontend's digest, and those of the models that are known before it."""
        models = []
        for model in self.aikitfile.models:
            sha256 = model.sha256 or context.get(model.source, "").partition(":")[2]
            models.append({"name": model.name, "source": model.source, "file": image_file(model), "sha256": sha256, "size_bytes": 0})
        images = {} if "@" in asked else {asked: frontend.partition("@")[2]}
        return locks.document(self.name, digest, self.aikitfile.sha256, {}, models, images)

    def _lock(self, plan: Plan, content: Mapping[str, Any]) -> Plan:
        """The plan with the lock file in it, where that changes; outside of check mode it is written."""
        if content == self.lock.document:
            return plan
        if not self.check_mode:
            files.write_atomic(str(self.request.lock), locks.render(content), keep=True)
        before = {**plan.before, **({"lock": dict(self.lock.document)} if self.lock.exists else {})}
        return Plan((*plan.actions, Action("lock", str(self.request.lock))), before, {**plan.after, "lock": dict(content)})

    # --- what goes in

    def _secret_values(self) -> list[str]:
        """The secrets themselves: to hide them, and to see that they are there."""
        found = []
        for secret in self.secrets:
            path = f"secrets.{secret.id}"
            if secret.environment:
                value = os.environ.get(secret.environment, "")
                if not value:
                    raise AikitError(
                        f"{path}.env: variable {secret.environment} is not set on the build host, or empty.",
                        "Set it for the task (environment:), or give the secret with value or file.",
                    )
            elif secret.file:
                value = self._secret_file(path, secret.file)
            else:
                value = secret.value
            found.append(value)
        return found

    @staticmethod
    def _secret_file(path: str, name: str) -> str:
        try:
            with open(name, "rb") as handle:
                data = handle.read(core.SECRET_MAX_BYTES + 1)
        except OSError as exc:
            raise AikitError(
                f"{path}.file: {name} cannot be read on the build host: {exc.strerror}.", "Put it there, or give the secret with env or value."
            ) from None
        if not data or len(data) > core.SECRET_MAX_BYTES:
            what = "is empty" if not data else f"has more than {core.SECRET_MAX_BYTES} bytes, which BuildKit refuses"
            raise AikitError(f"{path}.file: {name} {what}.", "Name the file that holds the secret.")
        return data.decode("utf-8", "replace")

    def _local_sources(self) -> list[tuple[str, str]]:
        return [(f"models[{number}].source", model.source) for number, model in enumerate(self.aikitfile.models) if "://" not in model.source]

    def _context_digests(self) -> dict[str, str]:
        """The digest of everything that is copied out of the context, by its source."""
        found: dict[str, str] = {}
        for path, source in self._local_sources():
            if not self.context:
                raise AikitError(f"{path}: {source} is relative, and nothing says to what.", "Set context to the folder on the build host that holds it.")
            file = os.path.normpath(os.path.join(self.context, source))
            root = os.path.realpath(self.context)
            if os.path.isabs(source) or os.path.commonpath([root, os.path.realpath(os.path.dirname(file))]) != root:
                raise AikitError(
                    f"{path}: {source} leads out of the context {self.context}.", "BuildKit sees nothing outside of it: move the file there, or set context."
                )
            if os.path.islink(file):
                raise AikitError(
                    f"{path}: {file} is a symbolic link, which AIKit's frontend copies as a link.",
                    "Put the file itself there (a hard link will do); builder direct follows links.",
                )
            if os.path.isdir(file):
                found[source] = _folder_digest(file, self.cache)
            elif os.path.isfile(file):
                found[source] = f"sha256:{files.sha256_file(file, self.cache)}"
            else:
                raise AikitError(f"{path}: there is no file {file} on the build host.", "Put it there, or set context to the folder that holds it.")
        if found:
            self._remark_on_context(list(found))
        return found

    def _remark_on_context(self, used: Sequence[str]) -> None:
        """Frontends up to v0.21.0 ask for the whole context."""
        if self.release > data_aikit.NEWEST_RELEASE:
            return
        wanted = {os.path.normpath(os.path.join(self.context, source)) for source in used}
        other = 0
        for folder, _names, names in os.walk(self.context):
            for name in names:
                path = os.path.normpath(os.path.join(folder, name))
                inside = any(path == entry or path.startswith(f"{entry}/") for entry in wanted)
                with contextlib.suppress(OSError):
                    other += 0 if inside else os.lstat(path).st_size
            if other > CONTEXT_REMARK_BYTES:
                remark = files.human_bytes(CONTEXT_REMARK_BYTES)
                message = f"{self.context} holds more than {remark} beside the models: AIKit's frontend takes all of it, at every build"
                self.findings.append(Finding("warning", "context", 0, message, "put the models into a folder of their own"))
                return

    def _pinned(self, frontend: str, origin: str) -> str:
        if "@" in frontend:
            return frontend
        locked = "" if self.request.lock_update else self.lock.image(frontend)
        digest = locked or self.registry.digest_of(frontend)
        if not digest:
            raise AikitError(
                f"frontend: there is no image {frontend} (from {origin}).",
                "Check its tag, or name a frontend that there is with frontend (AIKit's or a mirror of it).",
            )
        return core.pinned(frontend, digest)

    # --- the build host

    def _host(self, wanted: Sequence[Target]) -> tuple[Versions, Instance, list[str]]:
        request = self.request
        status, text, errors = self.commands.ask(["docker", "version", "--format", "{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}"])
        if status == command.NOT_FOUND:
            problem = f"builder: buildkit needs Docker's command line, and this host has no docker.{self.because}"
            hint = "Role aikit.fleet.container_engine installs Docker; Debian's client is docker-cli."
            if not self.check_mode:
                raise AikitError(problem, hint)
            # A host that is not provided yet: what is asked for is all that can be said
            self.findings.append(Finding("warning", "builder", 0, problem.rstrip("."), hint))
            core.check_targets(wanted, request.platforms, True)
            return Versions("", ""), Instance("", "", "there is no Docker yet"), core.platforms(request.platforms, self.aikitfile.runtime, "")
        docker, here = core.parse_docker(text)
        platforms = core.platforms(request.platforms, self.aikitfile.runtime, here)
        if status or not docker:
            said = _last_line(errors) or _last_line(text)
            raise AikitError(
                f"builder: buildkit: Docker does not answer: {said}", "Start it (systemctl start docker), and check that this user may use its socket."
            )
        status, text, errors = self.commands.ask(["docker", "buildx", "version"])
        buildx = core.parse_buildx(text)
        if status or not buildx:
            raise AikitError(
                f"builder: buildkit needs the buildx plugin of Docker {docker}, and docker buildx version says: "
                f"{_last_line(errors) or _last_line(text)}.{self.because}",
                "Install it on the build host (Debian 13: docker-buildx; docker.com: docker-buildx-plugin), or run role container_engine there with"
                " container_engine_buildx: required.",
            )
        _status, text, _errors = self.commands.ask(["docker", "info", "--format", "{{json .DriverStatus}}"])
        store = uses_containerd_store({"DriverStatus": _json(text) or []})
        asked, image, config = request.buildx_builder, request.buildkit_image, request.buildkitd_config
        if config and not os.path.isfile(config):
            raise AikitError(f"buildkitd_config: there is no file {config} on the build host.", "Copy it there first.")
        exists = {}
        for instance_name in dict.fromkeys([asked] if asked else ["default", data_buildkit.INSTANCE]):
            status, text, _errors = self.commands.ask(["docker", "buildx", "inspect", instance_name])
            if status == 0:
                exists[instance_name] = core.parse_inspect(text)
        versions = Versions(docker, buildx, containerd_store=store)
        instance = core.choose_instance(asked, image, config, versions, exists)
        told = exists.get(instance.name, {}).get("buildkit", "")
        buildkit = core.docker_buildkit(told, docker) if instance.driver == "docker" else version.upstream(told)
        versions = Versions(docker, buildx, buildkit, store)
        core.check_targets(wanted, platforms, store and instance.driver == "docker")
        core.check_versions(versions, ["containerd store"] if store and instance.driver == "docker" else [])
        return versions, instance, platforms

    def _start(self, instance: Instance, versions: Versions) -> Versions:
        """Make an instance of ours where there is none, and see what BuildKit is in it."""
        if instance.create:
            status, text, errors = self.commands.ask(instance.create)
            if status:
                raise AikitError(
                    f"buildx: instance {instance.name} cannot be made: {_last_line(errors) or _last_line(text)}", "docker buildx ls shows what is there."
                )
        if instance.driver == "docker":
            return versions
        status, text, errors = self.commands.ask(["docker", "buildx", "inspect", "--bootstrap", instance.name], START_SECONDS)
        if status:
            said = _last_line(errors) or _last_line(text)
            if instance.create:
                # Half an instance would be taken for a whole one next time
                self.commands.ask(["docker", "buildx", "rm", instance.name])
            raise AikitError(
                f"buildx: instance {instance.name} ({instance.reason}) does not start: {said}",
                core.hint_for(said)
                or "Its image is moby/buildkit: name a mirror of it with buildkit_image, or turn Docker's containerd image store on, which needs no instance.",
            )
        return Versions(versions.docker, versions.buildx, version.upstream(core.parse_inspect(text).get("buildkit", "")), versions.containerd_store)

    # --- the targets

    def _observe(self, target: Target) -> Observed:
        if target.kind == "push":
            digest = self.registry.digest_of(self.name)
            return Observed(digest, self._annotation(digest) if digest else "")
        if target.kind in ("docker", "podman"):
            state = open_engine(target.kind).image(self.name)
            return Observed(state.id if state else "")
        if target.kind == "archive":
            return _observe_archive(target.path, self.cache)
        return _observe_layout(target.path, self.name, self.cache)

    def _annotation(self, digest: str) -> str:
        repository = self.name.rpartition(":")[0]
        # Where it was pushed to, as its digest: a mirror may not have it
        found = self.registry.index(f"{repository}@{digest}", mirrors=False)
        if found is not None:
            return str(found[1].annotations.get(core.FINGERPRINT, ""))
        document = self.registry.manifest(f"{repository}@{digest}", mirrors=False).document
        return str((document.get("annotations") or {}).get(core.FINGERPRINT, ""))

    # --- the build

    def _apply(
        self,
        lacking: Sequence[Target],
        inputs: Mapping[str, Any],
        state: Mapping[str, Any],
        instance: Instance,
        versions: Versions,
        frontend: str,
        platforms: Sequence[str],
        hidden: Sequence[str],
    ) -> tuple[dict[str, Any], int]:
        """Build, for the places that lack the image: the state afterwards, and the bytes written."""
        os.makedirs(os.path.dirname(self.state_path), exist_ok=True)
        with files.lock(f"{self.state_path}.lock"), _workspace(self.state_path[: -len(".json")]) as work:
            versions = self._start(instance, versions)
            paths = _paths(lacking, work)
            extra = core.marks(core.fingerprint(inputs), self.aikitfile.sha256, platforms)
            outputs = core.outputs(lacking, self.name, instance.driver, self.compression, extra, platforms, paths)
            core.check_versions(versions, ["outputs"] if len(outputs) > 1 else [])
            file = os.path.join(work, core.FILE_NAME)
            # The bytes that the user wrote, whatever they are
            files.write_atomic(file, str(self.request.parsed.get("text") or "").encode("utf-8"), 0o600, durable=False)
            metadata = os.path.join(work, "metadata.json")
            context = self.context if self._local_sources() else os.path.join(work, "context")
            os.makedirs(os.path.join(work, "context"), exist_ok=True)
            argv, environment = core.command(
                core.Build(
                    instance.name,
                    frontend,
                    file,
                    context,
                    metadata,
                    outputs,
                    platforms,
                    self.build_args,
                    self.secrets,
                    self.request.cache_from,
                    self.request.cache_to,
                    self.hidden,
                )
            )
            environment.update(docker_config(work, self.request.registry_auth_file, rules.given_logins(self.request.registry_logins or ())))
            output = core.Progress()
            with progress.stage(f"BuildKit: {self.name}", unit="steps") as stage:

                def on_line(line: str) -> None:
                    step = output.feed(line)
                    if step:
                        stage.name = f"BuildKit: {core.mask(step, hidden)}"
                    stage.reach(len(output.done))

                status = self.commands.build(argv, environment, on_line)
            if status:
                raise output.failure(hidden, status)
            told = files.read_json(metadata)
            digest = core.built_digest(told)
            if not digest:
                raise AikitError(
                    "docker buildx build ended well, but tells no digest of an image.",
                    "Its frontend may have made something else than an image; name AIKit's with frontend.",
                )
            done, written = self._deliver(lacking, paths, digest, str(told.get("containerimage.config.digest") or ""))
            fresh = core.new_state(state, self.name, inputs, done, digest)
            files.write_atomic(self.state_path, json.dumps(fresh, sort_keys=True).encode(), 0o600)
            return fresh, written

    def _deliver(self, lacking: Sequence[Target], paths: Mapping[str, str], digest: str, config: str) -> tuple[dict[str, str], int]:
        """Put what became a file where it belongs; the digest that each target has now, and the bytes written."""
        done: dict[str, str] = {}
        written = 0
        # Podman reads a file before that is put away
        for target in sorted(lacking, key=lambda entry: entry.kind != "podman"):
            if target.kind == "push":
                there = self.registry.digest_of(self.name)
                if there != digest:
                    raise AikitError(
                        f"{self.name} was pushed as {digest}, and the registry has {there or 'nothing'} under that tag.",
                        "Somebody else pushed it at the same time; run again.",
                    )
                done[target.key] = there
            elif target.kind == "docker":
                done[target.key] = _loaded(open_engine("docker"), self.name, digest, config)
            elif target.kind == "podman":
                engine = open_engine("podman")
                with progress.stage(f"load {self.name} into podman", os.path.getsize(paths[target.key])) as current:
                    engine.load(current.counted(_chunks(paths[target.key])))
                done[target.key] = _loaded(engine, self.name, digest, config)
            elif target.kind == "archive":
                _sync(paths[target.key])
                os.replace(paths[target.key], target.path)
                written += os.path.getsize(target.path)
                done[target.key] = digest
            else:
                written += _install_layout(paths[target.key], target.path, self.name)
                done[target.key] = digest
        return done, written

    # --- the result

    def _image(self, there: Mapping[str, str], built: Mapping[str, str], wanted: Sequence[Target], platforms: Sequence[str]) -> dict[str, Any]:
        """What there is to say of the image, from the place that counts most.

        ``there`` identifies what is in each place that has it, ``built`` has the digests that were recorded.
        A build from scratch need not give the same digest again, so places may have images of one fingerprint that differ.
        """
        target = core.described_target(wanted)
        digest = there.get(target.key, "")
        if not digest:
            return {}
        platform = platforms[0] if platforms else ""
        if target.kind == "push":
            manifest = self.registry.manifest(f"{self.name.rpartition(':')[0]}@{digest}", platform, mirrors=False)
            return _described(digest, manifest.document, self.registry.config(manifest))
        if target.kind in ("oci_layout", "archive"):
            return _from_files(target.path, digest, platform)
        state = open_engine(target.kind).image(self.name)
        return _in_engine(state, built.get(target.key, "")) if state is not None else {}

    def _unknown(self, platforms: Sequence[str]) -> dict[str, Any]:
        """What is known of the image before it is built."""
        models = [{"name": model.name, "sha256": model.sha256 or "", "size_bytes": 0} for model in self.aikitfile.models]
        config = core.written_config(self.aikitfile, self.release)
        return {
            "ref": self.name,
            "digest": "",
            "id": "",
            "size_bytes": 0,
            "layers": [],
            "server": "localai",
            "runtime": self.aikitfile.runtime,
            "models": models,
            "base": {"ref": "", "digest": ""},
            "env": {},
            "entrypoint": [],
            "command": [],
            "architecture": platforms[0].split("/")[1] if platforms else "",
            "labels": {},
            **({"config": config} if config else {}),
        }


def _described(digest: str, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """An image by its manifest and its config."""
    run = config.get("config") or {}
    unpacked = (config.get("rootfs") or {}).get("diff_ids") or []
    layers = [
        {
            "role": "layer",
            "title": "",
            "digest": layer["digest"],
            **({"diff_id": unpacked[number]} if number < len(unpacked) and unpacked[number] != layer["digest"] else {}),
            "size_bytes": layer["size"],
            "reused": False,
        }
        for number, layer in enumerate(manifest["layers"])
    ]
    found = {
        "digest": digest,
        "id": manifest["config"]["digest"],
        "size_bytes": sum(layer["size"] for layer in manifest["layers"]) + int(manifest["config"].get("size") or 0),
        "layers": layers,
        "env": dict(pair.partition("=")[::2] for pair in run.get("Env") or ()),
        "entrypoint": list(run.get("Entrypoint") or ()),
        "command": list(run.get("Cmd") or ()),
        "labels": dict(run.get("Labels") or {}),
    }
    return {**found, "architecture": config["architecture"]} if config.get("architecture") else found


def _in_engine(state: ImageState, digest: str) -> dict[str, Any]:
    """An image as an engine tells of it, which knows no digests and no sizes of layers."""
    found = {
        "digest": digest,
        "id": state.id,
        "layers": [{"role": "layer", "title": "", "digest": layer, "size_bytes": 0, "reused": False} for layer in state.layers],
        "env": dict(state.env),
        "entrypoint": list(state.entrypoint),
        "command": list(state.cmd),
        "labels": dict(state.labels),
    }
    return {**found, "architecture": state.architecture} if state.architecture else found


def _loaded(engine: Engine, name: str, digest: str, config: str) -> str:
    state = present_image(engine, name, config, digest)
    if state is None:
        raise AikitError(f"{engine.name} does not list the image {name} that was loaded into it.", "Run again; docker images shows what is there.")
    named = engine.image(name)
    if named is None or named.id != state.id:
        engine.tag(state.id, name)
    return state.id


def _paths(lacking: Sequence[Target], work: str) -> dict[str, str]:
    """Where each target that becomes a file is written first: beside its place, or in the workspace."""
    paths = {}
    for target in lacking:
        if target.kind == "archive":
            os.makedirs(os.path.dirname(os.path.abspath(target.path)), exist_ok=True)
            files.leftover_bytes(f"{target.path}.part", remove=True)
            paths[target.key] = f"{target.path}.part"
        elif target.kind == "oci_layout":
            path = target.path.rstrip("/")
            if os.path.isdir(path) and os.listdir(path) and not os.path.isfile(os.path.join(path, "oci-layout")):
                raise AikitError(f"oci_layout: {path} holds something that is no OCI layout.", "Name an empty folder, or one that does not exist yet.")
            shutil.rmtree(f"{path}.part", ignore_errors=True)
            paths[target.key] = f"{path}.part"
    for target in lacking:
        if target.kind == "podman":
            archive = next((path for key, path in paths.items() if key.startswith("archive:")), "")
            paths[target.key] = archive or os.path.join(work, "podman.tar")
    return paths


@contextlib.contextmanager
def _workspace(prefix: str) -> Iterator[str]:
    """A folder that nobody else can look into, gone afterwards. What a build of this image has left that was killed goes too: its lock is ours."""
    parent, name = os.path.split(prefix)
    for entry in os.listdir(parent):
        if entry.startswith(f"{name}-build-"):
            shutil.rmtree(os.path.join(parent, entry), ignore_errors=True)
    path = tempfile.mkdtemp(prefix=f"{name}-build-", dir=parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# --- archives and layouts


def _observe_archive(path: str, cache: files.DigestCache) -> Observed:
    """The image in an archive, its blobs checked once; nothing when it is damaged or no archive."""
    if not os.path.isfile(path):
        return Observed()
    try:
        status = os.stat(path)
        if cache.get("buildkit-archive", status) is None:
            started = time.time_ns()
            for _chunk in verified_chunks(path):
                pass
            cache.put("buildkit-archive", status, "whole", started)
        return _observed_index(_read_blobs(path), "")
    except AikitError:
        return Observed()


def _observe_layout(path: str, name: str, cache: files.DigestCache) -> Observed:
    index = os.path.join(path, "index.json")
    if not os.path.isfile(index):
        return Observed()
    try:
        read = _read_blobs(path)
        observed = _observed_index(read, name)
        for descriptor in _reachable(read, observed.digest):
            if not _is_whole(os.path.join(path, "blobs/sha256", descriptor.partition(":")[2]), descriptor, cache):
                return Observed()
        return observed
    except (AikitError, OSError):
        return Observed()


def _is_whole(path: str, digest: str, cache: files.DigestCache) -> bool:
    return os.path.isfile(path) and f"sha256:{files.sha256_file(path, cache)}" == digest


Reader = Callable[[str], Optional[bytes]]


def _read_blobs(path: str) -> Reader:
    """A function that reads a small member of an archive or a layout by its name; None when it is not there."""
    if os.path.isdir(path):

        def from_folder(name: str) -> Optional[bytes]:
            file = os.path.join(path, name)
            if not os.path.isfile(file) or os.path.getsize(file) > oci.MANIFEST_MAX_BYTES:
                return None
            with open(file, "rb") as handle:
                return handle.read()

        return from_folder

    def from_archive(name: str) -> Optional[bytes]:
        try:
            with tarfile.open(path, "r:") as reader:
                member = reader.getmember(name)
                handle = reader.extractfile(member) if member.isfile() and member.size <= oci.MANIFEST_MAX_BYTES else None
                return handle.read() if handle else None
        except (KeyError, tarfile.TarError, OSError):
            return None

    return from_archive


def _document(read: Reader, name: str) -> dict[str, Any]:
    data = read(name)
    if data is None:
        raise AikitError(f"{name} is missing.")
    return oci.parse_document(data, name)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.partition(':')[2]}"


def _observed_index(read: Reader, name: str) -> Observed:
    """The image that an index.json names: the one of that name, or the only one."""
    entries = [entry for entry in _document(read, "index.json").get("manifests") or () if isinstance(entry, dict)]
    named = [entry for entry in entries if name and _names(entry, name)]
    chosen = named[0] if named else entries[0] if len(entries) == 1 and not name else None
    if chosen is None:
        return Observed()
    document = _document(read, _blob_name(str(chosen["digest"])))
    return Observed(str(chosen["digest"]), str((document.get("annotations") or {}).get(core.FINGERPRINT, "")))


def _names(entry: Mapping[str, Any], name: str) -> bool:
    """Whether an entry of an index is the image ``name``; BuildKit writes docker.io's names out in full."""
    told = (entry.get("annotations") or {}).get("org.opencontainers.image.ref.name", "")
    return told in (name, f"docker.io/{name}", f"docker.io/library/{name}")


def _reachable(read: Reader, digest: str) -> Iterator[str]:
    """Every blob of an image, through an index to its manifests."""
    if not digest:
        return
    yield digest
    document = _document(read, _blob_name(digest))
    for entry in document.get("manifests") or ():
        yield from _reachable(read, str(entry["digest"]))
    for entry in [*([document["config"]] if "config" in document else []), *(document.get("layers") or ())]:
        yield str(entry["digest"])


def _from_files(path: str, digest: str, platform: str) -> dict[str, Any]:
    read = _read_blobs(path)
    data = read(_blob_name(digest))
    document = oci.parse_document(data or b"", path)
    if isinstance(document.get("manifests"), list):
        chosen = oci.choose_platform(oci.parse_index(data or b"", str(document.get("mediaType") or ""), path), platform, path)
        document = _document(read, _blob_name(chosen.digest))
    return _described(digest, document, _document(read, _blob_name(str(document["config"]["digest"]))))


def _install_layout(made: str, path: str, name: str) -> int:
    """Put a layout that was just written into its place: images of other names stay, and what nothing refers to any more goes."""
    path = path.rstrip("/")
    shutil.rmtree(os.path.join(made, "ingest"), ignore_errors=True)
    written = sum(os.path.getsize(os.path.join(folder, entry)) for folder, _folders, entries in os.walk(made) for entry in entries)
    if not os.path.isfile(os.path.join(path, "index.json")):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        if os.path.isdir(path):
            os.rmdir(path)
        os.replace(made, path)
        return written
    fresh = json.loads(_read_blobs(made)("index.json") or b"{}")
    index = json.loads(_read_blobs(path)("index.json") or b"{}")
    blobs = os.path.join(path, "blobs/sha256")
    os.makedirs(blobs, exist_ok=True)
    for entry in os.listdir(os.path.join(made, "blobs/sha256")):
        os.replace(os.path.join(made, "blobs/sha256", entry), os.path.join(blobs, entry))
    kept = [entry for entry in index.get("manifests") or () if not _names(entry, name)]
    index["manifests"] = [*kept, *fresh["manifests"]]
    # Readers find the old image or the new one: its blobs are there already
    files.write_atomic(os.path.join(path, "index.json"), json.dumps(index, sort_keys=True).encode())
    read = _read_blobs(path)
    used = {digest.partition(":")[2] for entry in index["manifests"] for digest in _reachable(read, str(entry["digest"]))}
    for entry in os.listdir(blobs):
        if re.fullmatch(r"[0-9a-f]{64}", entry) and entry not in used:
            os.unlink(os.path.join(blobs, entry))
    shutil.rmtree(made, ignore_errors=True)
    return written


def _chunks(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as handle:
        yield from iter(lambda: handle.read(files.READ_BYTES), b"")


def _sync(path: str) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


# --- small things


def _folder_digest(folder: str, cache: files.DigestCache) -> str:
    """The digest of a folder: of the names and the digests of all files below it."""
    digest = hashlib.sha256()
    for parent, names, entries in os.walk(folder):
        names.sort()
        for entry in sorted(entries):
            path = os.path.join(parent, entry)
            content = f"link {os.readlink(path)}" if os.path.islink(path) else files.sha256_file(path, cache) if os.path.isfile(path) else "special"
            digest.update(f"{os.path.relpath(path, folder)}\0{content}\n".encode("utf-8", "surrogateescape"))
    return f"sha256:{digest.hexdigest()}"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
