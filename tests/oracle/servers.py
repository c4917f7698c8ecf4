# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real llama.cpp builds that load a model on GPUs that are not there, and say how large every buffer is.

Two kinds: Debian's llama-server (in a small root file system of its own), and the libraries in npm's ``@node-llama-cpp/linux-x64-cuda``,
which hold older builds. Both come with NVIDIA's backend as it is; ``pretend_cuda.c`` stands in for the driver under it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping

HERE = Path(__file__).resolve().parent
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size =\s*([\d.]+) MiB")
_FLASH = re.compile(r"Flash Attention (?:was auto, set to |)(enabled|disabled)")
_SPLITS = re.compile(r"graph splits = (\d+)|splits = (\d+)")
# What says best why a model did not load, the best first
_WRONG = (r"GGML_ASSERT\(", r"does not support|does not divide|requires ", r"failed to allocate", r"(?i)unknown model|error|failed|abort")
_NEEDED = re.compile(r"\[(lib(?:cudart|cublas|cuda)\.so[^\]]*)\]")
_SYMBOL = re.compile(r"(?:__cuda|cuda|cublas|cu[A-Z])")
SUITE = "sid"
PACKAGES = "base-files,coreutils,llama.cpp-tools,libggml0-backend-vulkan,mesa-vulkan-drivers,ca-certificates"


def mirror() -> str:
    """Where this machine gets Debian's packages from; AIKIT_TEST_MIRROR says otherwise."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    known = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    plain = [address.rstrip("/") for address in known if address.rstrip("/").endswith("/debian")]
    found = os.environ.get("AIKIT_TEST_MIRROR") or next(iter(plain), "")
    if not found:
        raise RuntimeError("This machine has no mirror of Debian among its package sources: name one in AIKIT_TEST_MIRROR.")
    return found


@dataclass(frozen=True)
class Config:
    """Settings of one load."""

    gpu_layers: int = 999
    context: int = 8192
    parallel: int = 1
    unified: bool = True
    ubatch: int = 512
    flash: bool = True
    type_k: str = "f16"
    type_v: str = "f16"
    cpu_moe: int = 0
    kv_on_host: bool = False
    gpus: int = 1
    split: str = ""
    embeddings: bool = False
    # NVIDIA's compute capability, 0 for the software Vulkan device
    capability: int = 90

    def short(self) -> dict[str, Any]:
        """Only what differs from the default."""
        plain = asdict(Config())
        return {key: value for key, value in asdict(self).items() if value != plain[key]}


@dataclass(frozen=True)
class Observation:
    """MiB by device and kind, as the log says; empty with ``error`` where the model did not load."""

    buffers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: str = ""
    flash: str = ""


def parse(log: str) -> Observation:
    buffers: dict[str, dict[str, float]] = {}
    for device, kind, size in _BUFFER.findall(log):
        entry = buffers.setdefault(device, {})
        entry[kind.lower()] = round(entry.get(kind.lower(), 0.0) + float(size), 2)
    flash = _FLASH.findall(log)
    if not any("compute" in entry for entry in buffers.values()):
        lines = [line.strip() for line in log.splitlines()]
        found = [line for pattern in _WRONG for line in lines if re.search(pattern, line)]
        # Not where this machine keeps its builds, nor when it was
        return Observation(error=re.sub(r"^[\d.]+ [EIW] |\S*/(?=[^/\s]+)", "", found[0] if found else log[-200:].strip())[-200:])
    return Observation(buffers, flash=flash[-1] if flash else "")


class Debian:
    """Debian's llama-server in a root file system under ``work``."""

    def __init__(self, work: Path) -> None:
        self.root = work / "root"
        self.models = self.root / "models"

    @property
    def version(self) -> str:
        done = subprocess.run(self._command(["/usr/bin/llama-server", "--version"], {}), capture_output=True, text=True, check=True)
        found = re.search(r"version: (\S+) \(build (\d+)", done.stdout + done.stderr)
        return f"{found.group(1)} (build {found.group(2)})" if found else "unknown"

    def prepare(self) -> None:
        if not (self.root / "usr/bin/llama-server").exists():
            shutil.rmtree(self.root, ignore_errors=True)
            hooks = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"
            options = ["--variant=extract", hooks, f"--include={PACKAGES}", "--aptopt=Acquire::Check-Valid-Until \"false\""]
            subprocess.run(["mmdebstrap", *options, SUITE, str(self.root), f"deb {mirror()} {SUITE} main"], check=True)
        backend = self.root / "usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cuda.so"
        if not backend.exists():
            self._fetch_backend(backend)
        pretend(backend, self.root / "pretend")
        self.models.mkdir(exist_ok=True)

    def _fetch_backend(self, target: Path) -> None:
        """NVIDIA's backend alone: what it depends on is what we stand in for."""
        apt = self.root.parent / "apt"
        (apt / "lists/partial").mkdir(parents=True, exist_ok=True)
        (apt / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        (apt / "sources.list").write_text(f"deb {mirror()} {SUITE} main contrib\n", encoding="utf-8")
        settings = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": apt / "lists",
            "Dir::Cache": apt / "cache",
            "Dir::State::status": "/dev/null",
            "Acquire::Check-Valid-Until": "false",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        subprocess.run(["apt-get", *options, "update", "-q"], check=True)
        subprocess.run(["apt-get", *options, "download", "libggml0-backend-cuda"], check=True, cwd=apt)
        package = next(apt.glob("libggml0-backend-cuda_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(apt / "package")], check=True)
        shutil.copy(next((apt / "package").rglob("libggml-cuda.so")), target)

    def _command(self, words: Iterable[str], environment: Mapping[str, str]) -> list[str]:
        pairs = [f"{key}={value}" for key, value in {"PATH": "/usr/bin:/bin", "HOME": "/root", **environment}.items()]
        return ["/usr/sbin/chroot", str(self.root), "/usr/bin/env", "-i", *pairs, *words]

    def observe(self, model: str, config: Config, timeout: float = 180) -> Observation:
        words = ["/usr/bin/llama-server", "-m", f"/models/{model}", "--log-verbosity", "4", "--fit", "off", "--no-warmup", "--no-repack"]
        words += ["--port", str(20000 + os.getpid() % 20000), "-ngl", str(config.gpu_layers), "-c", str(config.context)]
        words += ["-np", str(config.parallel), "-ub", str(config.ubatch)]
        words += ["-b", str(max(2048, config.ubatch)), "-fa", "on" if config.flash else "off", "-ctk", config.type_k, "-ctv", config.type_v]
        words += ["-kvu" if config.unified else "-no-kvu"]
        if config.cpu_moe:
            words += ["-ncmoe", str(config.cpu_moe)]
        if config.kv_on_host:
            words += ["-nkvo"]
        if config.split:
            words += ["-ts", config.split]
        if config.embeddings:
            words += ["--embeddings"]
        environment = {"LD_LIBRARY_PATH": "/pretend", "LD_PRELOAD": "/pretend/files.so", "PRETEND_GPUS": str(config.gpus), "PRETEND_CC": str(config.capability)}
        if not config.capability:
            environment = {"GGML_VK_VISIBLE_DEVICES": "0", "LD_LIBRARY_PATH": "/nowhere", "LD_PRELOAD": "/pretend/files.so"}
        return parse(_until_reserved(self._command(words, environment), timeout))


def _until_reserved(command: list[str], timeout: float) -> str:
    """The log up to the line that ends the reservation of memory."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "reserve took" in line or "graph splits" in line:
            process.kill()
            break
    process.wait()
    timer.cancel()
    return "".join(lines)


class Npm:
    """A build of llama.cpp from npm, driven through its C interface in a process of its own."""

    def __init__(self, work: Path, package: str) -> None:
        self.package, self.folder = package, work / f"npm-{package}"
        self.bin = self.folder / "package/bins/linux-x64-cuda"
        self.models = work / "root/models"

    @property
    def version(self) -> str:
        data = json.loads((self.bin / "_nlcBuildMetadata.json").read_text(encoding="utf-8"))
        return str(data["buildOptions"]["llamaCpp"]["release"])

    def prepare(self) -> None:
        if not self.bin.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"@node-llama-cpp/linux-x64-cuda@{self.package}"
            done = subprocess.run(["npm", "pack", "--silent", name], check=True, cwd=self.folder, capture_output=True, text=True)
            subprocess.run(["tar", "xzf", done.stdout.split()[-1]], check=True, cwd=self.folder)
        pretend(self.bin / "libggml-cuda.so", self.folder / "pretend")

    def observe(self, model: str, config: Config, timeout: float = 180) -> Observation:
        folder = self.folder / "pretend"
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{folder}:{self.bin}",
            "LD_PRELOAD": str(folder / "files.so"),
            "PRETEND_GPUS": str(config.gpus),
            "PRETEND_CC": str(config.capability),
        }
        command = [sys.executable, str(HERE / "load_library.py"), str(self.bin), str(self.models / model), json.dumps(asdict(config))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
        return parse(done.stdout + done.stderr)


def pretend(backend: Path, target: Path) -> None:
    """Build the libraries that ``backend`` asks for."""
    target.mkdir(parents=True, exist_ok=True)
    source = HERE / "pretend_cuda.c"
    own = set(re.findall(r"^[\w *]+?\*{0,2}(\w+)\([^;]*\{", source.read_text(encoding="utf-8"), re.M))
    wanted = {}
    for line in subprocess.run(["nm", "-D", str(backend)], capture_output=True, text=True, check=True).stdout.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "U" and _SYMBOL.match(words[1]):
            name, _at, version = words[1].partition("@")
            wanted[name] = version
    dynamic = subprocess.run(["readelf", "-d", str(backend)], capture_output=True, text=True, check=True).stdout
    rest = target / "rest.c"
    rest.write_text("".join(f"int {name}() {{ return 0; }}\n" for name in sorted(wanted) if name not in own), encoding="utf-8")
    for library in _NEEDED.findall(dynamic):
        driver = library.startswith("libcuda.so")
        names = [name for name, version in sorted(wanted.items()) if version == library or (not version and driver)]
        head = "" if driver else f"{library} "
        script = target / "symbols.map"
        script.write_text(f"{head}{{ global: {' '.join(f'{name};' for name in names)} local: *; }};\n", encoding="utf-8")
        release = re.search(r"libcudart\.so\.(\d+)", dynamic)
        options = ["-O1", "-w", "-shared", "-fPIC", f"-DCUDART={release.group(1) if release else 12}"]
        links = [f"-Wl,-soname,{library}", f"-Wl,--version-script={script}"]
        subprocess.run(["gcc", *options, "-o", str(target / library), str(source), str(rest), *links], check=True)
    subprocess.run(["gcc", "-O1", "-w", "-shared", "-fPIC", "-o", str(target / "files.so"), str(HERE / "pretend_files.c")], check=True)
