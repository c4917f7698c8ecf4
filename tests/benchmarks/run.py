# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Benchmarks of the main job, as ratios within one run; writes a table to paste into docs/benchmarks.md.

    .venv/bin/python tests/benchmarks/run.py build        # direct build + load against docker build, 2 GB
    .venv/bin/python tests/benchmarks/run.py quickstart   # cold, warm, unchanged
    .venv/bin/python tests/benchmarks/run.py push         # direct build + push against BuildKit, Podman and crane: image_build.py, and its options

Bytes written are those of the disk below Docker's data (whole disk, after sync): run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support
from support import docker

GIB = 2**30


def disk_written() -> int:
    """Bytes written to the disk that holds /var/lib/docker, so far."""
    os.sync()
    device = os.stat("/var/lib/docker").st_dev
    wanted = (os.major(device), os.minor(device))
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == wanted:
            return int(fields[9]) * 512
    raise SystemExit("The disk of /var/lib/docker is not in /proc/diskstats.")


def daemon_peak(reset: bool = False) -> int:
    """Peak memory of dockerd in bytes, since the last reset."""
    pid = Path("/var/run/docker.pid").read_text().strip()
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def measured(argv: list[str], cwd: Path | None = None) -> dict[str, float]:
    """Wall seconds, bytes written, peak memory of the largest client process and of the daemon."""
    daemon_peak(reset=True)
    before = disk_written()
    started = time.monotonic()
    process = subprocess.Popen(argv, cwd=cwd, env=support.environment(DOCKER_BUILDKIT="0"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _none = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        raise SystemExit(output.decode())
    return {"seconds": seconds, "written": disk_written() - before, "daemon_peak": daemon_peak()}


def builder_peak(request: dict[str, object]) -> int:
    """Peak memory in bytes of one process that runs the builder, with what a module has of Ansible, and without what tests load.

    From /proc, because the kernel's ru_maxrss starts with what the parent had.
    """
    begin = "import json, re, sys; sys.path.insert(0, sys.argv[1])\nfrom ansible_collections.aikit.fleet.plugins"

    def run(code: str, argument: str) -> str:
        words = [sys.executable, "-c", f"{begin}.{code}", str(support.ROOT / ".venv/collections"), argument]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    # The controller's side, which is another process
    parsed = json.loads(run("plugin_utils.yaml_source import from_file\nprint(json.dumps(from_file(sys.argv[2])))", str(request.pop("src"))))
    told = run(
        "module_utils._io.build import Request, build\nimport ansible.module_utils.basic\nbuild(Request(**json.loads(sys.argv[2])), False)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1)) * 1024)",
        json.dumps({**request, "parsed": parsed}),
    )
    return int(told.split()[-1])


def big_model(path: Path, size: int) -> None:
    """A valid GGUF file with one tensor of ``size`` bytes; its data are the real weights of the test model, repeated."""
    key, value, tensor = b"general.architecture", b"llama", b"token_embd.weight"
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    # One dimension, type I8 (24), at the start of the data
    head += struct.pack("<Q", len(tensor)) + tensor + struct.pack("<IQIQ", 1, size, 24, 0)
    weights = (support.MODEL_DIR / support.MODEL_NAME).read_bytes()[8 << 20 :]
    with open(path, "wb") as handle:
        handle.write(head + b"\0" * (-len(head) % 32))
        left = size
        while left:
            left -= handle.write(weights[:left])


def build(runs: int, size: int) -> None:
    base = support.CACHE / "bases/sid-cpu-amd64.tar"
    with tempfile.TemporaryDirectory(prefix="aikit-benchmark-", dir="/var/tmp") as name:
        folder = Path(name)
        big_model(folder / "big.gguf", size)
        (folder / "aikitfile.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - name: big\n    source: big.gguf\n")
        task = folder / "build.yml"
        arguments = {
            "name": "localhost/aikit-benchmark/direct:1",
            "src": str(folder / "aikitfile.yaml"),
            "server": "llama_cpp",
            "base": str(base),
            "load": ["docker"],
            "cache": str(folder / "digests"),
            "store": str(folder / "store"),
        }
        task.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [{"aikit.fleet.aikit_image": arguments}]}]))
        docker("import", "--change=ENTRYPOINT [\"/usr/bin/llama-server\"]", str(base), "localhost/aikit-benchmark/base:1")
        (folder / "Dockerfile").write_text("FROM localhost/aikit-benchmark/base:1\nCOPY big.gguf /models/big.gguf\nUSER 65532:65532\n")
        (folder / ".dockerignore").write_text("*\n!big.gguf\n")
        direct_argv = [str(support.BIN / "ansible-playbook"), str(task)]
        docker_argv = ["docker", "build", "--no-cache", "--tag=localhost/aikit-benchmark/docker:1", str(folder)]
        rows: dict[str, list[dict[str, float]]] = {"direct": [], "docker build": [], "direct, config changed": [], "direct, unchanged": []}
        for _run in range(runs):
            for image in ("direct:1", "docker:1"):
                docker("rmi", "--force", f"localhost/aikit-benchmark/{image}", check=False)
            # What lost its name to a changed configuration still holds the layer of the model
            docker("image", "prune", "--force", "--filter=label=io.aikit.fleet.aikitfile.sha256")
            shutil.rmtree(folder / "digests", ignore_errors=True)
            shutil.rmtree(folder / "store", ignore_errors=True)
            rows["direct"].append(measured(direct_argv))
            rows["docker build"].append(measured(docker_argv))
            rows["direct, unchanged"].append(measured(direct_argv))
            with open(folder / "aikitfile.yaml", "a") as handle:
                handle.write(f"# {_run}\n")
            rows["direct, config changed"].append(measured(direct_argv))
        for image in ("direct:1", "docker:1", "base:1"):
            docker("rmi", "--force", f"localhost/aikit-benchmark/{image}", check=False)
        show(rows, "docker build", size)
        shutil.rmtree(folder / "digests", ignore_errors=True)
        unset = {**dict.fromkeys(("archive", "localai", "token", "tokens")), "platforms": [], "archive_omit": []}
        request = {**arguments, **unset, "context": str(folder), "aikit_version": "0.21.0"}
        print(f"\nThe builder's own peak memory: {builder_peak(request) / 2**20:.0f} MiB")
        docker("rmi", "--force", "localhost/aikit-benchmark/direct:1", check=False)


def quickstart() -> None:
    with tempfile.TemporaryDirectory(prefix="aikit-benchmark-") as name:
        words = ["-e", f"quickstart_port={support.free_port()}", "-e", "quickstart_name=aikit-benchmark"]
        words += ["-e", f"inference_cache_dir={name}/cache", "-e", f"inference_state_dir={name}/state"]
        argv = [str(support.BIN / "ansible-playbook"), "aikit.fleet.quickstart", *words]
        rows = {"cold": [measured(argv)]}
        rows["unchanged"] = [measured(argv) for _run in range(3)]
        docker("rm", "--force", "--volumes", "aikit-benchmark", check=False)
        rows["container gone"] = [measured(argv)]
        docker("rm", "--force", "--volumes", "aikit-benchmark", check=False)
        docker("rmi", "--force", "localhost/aikit/aikit-benchmark:latest", check=False)
        rows["image and container gone"] = [measured(argv)]
        docker("rm", "--force", "--volumes", "aikit-benchmark", check=False)
        docker("rmi", "--force", "localhost/aikit/aikit-benchmark:latest", check=False)
        show(rows, "cold", 0)


def show(rows: dict[str, list[dict[str, float]]], baseline: str, size: int) -> None:
    """Medians with the range; ratios against ``baseline``."""
    reference = statistics.median(row["seconds"] for row in rows[baseline])
    print(f"| what | seconds (median, range of {max(map(len, rows.values()))}) | times {baseline} | written | daemon's peak memory |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        seconds = sorted(row["seconds"] for row in found)
        written = statistics.median(row["written"] for row in found)
        share = f" ({written / size:.2f} × the model)" if size else ""
        peak = max(row["daemon_peak"] for row in found) / 2**20
        print(
            f"| {name} | {statistics.median(seconds):.1f} ({seconds[0]:.1f}–{seconds[-1]:.1f}) | {statistics.median(seconds) / reference:.2f} "
            f"| {written / 1e6:.0f} MB{share} | {peak:.0f} MiB |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "quickstart", "push", "all"], nargs="?", default="all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the model of the build benchmark")
    arguments, further = parser.parse_known_args()
    if further and arguments.what != "push":
        parser.error(f"{' '.join(further)}: not known")
    support.sweep("aikit-benchmark")
    if arguments.what in ("build", "all"):
        build(arguments.runs, int(arguments.gib * GIB))
    if arguments.what in ("quickstart", "all"):
        quickstart()
    if arguments.what in ("push", "all"):
        script = Path(__file__).with_name("image_build.py")
        subprocess.run([sys.executable, str(script), "--runs", str(arguments.runs), *further], check=True)


if __name__ == "__main__":
    main()
