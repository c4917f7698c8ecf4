# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build and push a model image of 2 GB: aikit_image against BuildKit, Podman and crane, in one host, to one registry, on one disk.

    .venv/bin/python tests/benchmarks/image_build.py [--runs 3] [--gb 2.02] [--arms direct,tuned,...] [--keep]

The host is a container with systemd (tests/tools/host) and its own Docker, Podman and registry, all from Debian. Each run begins with an empty
registry, an empty build cache and the model in the page cache. Arms take turns, so that what disturbs one disturbs all.
Prints tables to paste into docs/benchmarks.md, and every run as JSON with --json FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support
from run import big_model
from support import docker

HOST = os.environ.get("AIKIT_TEST_PREFIX", "") + "aikit-benchmark-builder"
REGISTRY = "127.0.0.1:5000"
BASE = "bench-base:1"
MODEL = "/srv/context/big.gguf"
PACKAGES = "docker.io docker-cli docker-buildx iptables docker-registry podman nftables netavark crun dbus uidmap fuse-overlayfs time"
TUNED = "push=true,compression=uncompressed,force-compression=true,oci-mediatypes=true"

# In the host: what the daemons have used so far. With an argument their peak memory is measured from here.
COUNTERS = r"""
import glob, json, os, sys
found = {"builder_cpu": 0.0, "registry_cpu": 0.0, "daemon_peak": 0, "written": 0}
for path in glob.glob("/proc/[0-9]*/comm"):
    folder = os.path.dirname(path)
    try:
        name = open(path).read().strip()
        if name not in ("dockerd", "containerd", "docker-registry"):
            continue
        if sys.argv[1:]:
            open(folder + "/clear_refs", "w").write("5")
        ticks = open(folder + "/stat").read().rpartition(")")[2].split()[11:15]
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        if name == "docker-registry":
            found["registry_cpu"] += cpu
            continue
        found["builder_cpu"] += cpu
        io = dict(line.split(": ") for line in open(folder + "/io").read().splitlines())
        found["written"] += int(io["write_bytes"])
        peak = [line for line in open(folder + "/status") if line.startswith("VmHWM")][0]
        found["daemon_peak"] += int(peak.split()[1]) * 1024
    except FileNotFoundError:
        continue
found["sent"] = int(open("/sys/class/net/lo/statistics/tx_bytes").read())
print(json.dumps(found))
"""
REGISTRY_CONFIG = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: /srv/registry
http:
  addr: 127.0.0.1:5000
"""
DOCKERFILE = f"FROM {BASE}\nCOPY big.gguf /models/big.gguf\nCOPY config.yaml /config.yaml\nUSER 65532:65532\n"
# Debian has its source alone
CRANE = (
    "[ -x /usr/local/bin/crane ] || { DEBIAN_FRONTEND=noninteractive apt-get -q=2 install --yes --no-install-recommends "
    "golang-go golang-github-google-go-containerregistry-dev >/dev/null; GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=/srv/gocache "
    "go build -o /usr/local/bin/crane github.com/google/go-containerregistry/cmd/crane; rm -rf /srv/gocache; }"
)
TIME = "/usr/bin/time --append --output=/srv/time --format='%e %U %S %M %O'"


@dataclass(frozen=True)
class Row:
    """One run. ``written`` is by the client and the daemons that build, not by the registry; ``sent`` is all that went over loopback."""

    arm: str
    case: str
    seconds: float
    client_cpu: float
    daemon_cpu: float
    registry_cpu: float
    client_peak: int
    daemon_peak: int
    written: int
    sent: int


@dataclass(frozen=True)
class Arm:
    """One way to build and push. ``store`` is Docker's image store: graph, containerd, or empty where Docker is not used."""

    name: str
    title: str
    store: str
    reset: str
    command: str = ""

    @property
    def ref(self) -> str:
        return f"{REGISTRY}/bench/{self.name}:1"


PRUNE = "docker buildx prune --all --force >/dev/null; docker image prune --force >/dev/null"
ARMS = [
    Arm("direct", "direct (`aikit_image`)", "", "rm -rf /srv/digests /srv/store"),
    Arm("tuned", "`buildx`, containerd store, uncompressed", "containerd", PRUNE, f"docker buildx build --output type=image,name=REF,{TUNED} /srv/context"),
    Arm("default", "`buildx --push`, defaults", "graph", PRUNE, "docker buildx build --push --tag REF /srv/context"),
    Arm("containerd", "`buildx --push`, containerd store, defaults", "containerd", PRUNE, "docker buildx build --push --tag REF /srv/context"),
    Arm(
        "podman",
        "`podman build` and `push`",
        "",
        f"podman image rm --all --force >/dev/null 2>&1 || true; podman import /srv/base.tar {BASE} >/dev/null 2>&1",
        "sh -c 'podman build --layers --tag REF /srv/context && podman push --tls-verify=false REF'",
    ),
    Arm(
        "crane",
        "`tar` and `crane append`",
        "",
        f"rm -f /srv/*-layer.tar /srv/base-image.tar; podman image exists localhost/{BASE} || podman import /srv/base.tar {BASE} >/dev/null 2>&1; "
        f"podman save --quiet --format docker-archive --output /srv/base-image.tar localhost/{BASE} >/dev/null",
        "sh -c 'crane push --insecure /srv/base-image.tar REF-base && tar -C /srv/context --transform s,^,models/, -cf /srv/model-layer.tar big.gguf "
        "&& tar -C /srv/context -cf /srv/config-layer.tar config.yaml "
        "&& crane append --insecure --base REF-base --new_layer /srv/model-layer.tar --new_layer /srv/config-layer.tar --new_tag REF'",
    ),
]


class Lab:
    """The host and what runs in it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self.store = ""
        self.version = 0

    def sh(self, script: str, check: bool = True) -> str:
        done = subprocess.run(["docker", "exec", HOST, "sh", "-euc", script], capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise SystemExit(f"{script}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()

    def prepare(self, crane: str) -> None:
        subprocess.run([str(support.ROOT / "tests/tools/host"), "create", HOST, "trixie", "--volume=/srv"], check=True, stdout=subprocess.DEVNULL)
        install = f"apt-get -q=2 update; DEBIAN_FRONTEND=noninteractive apt-get -q=2 install --yes --no-install-recommends {PACKAGES} >/dev/null"
        self.sh(f"command -v podman docker-registry dockerd >/dev/null && [ -x /usr/bin/time ] || {{ {install}; }}")
        self.sh("mkdir -p /srv/context /srv/registry /srv/bin; chown docker-registry: /srv/registry")
        for path, text in (("/srv/bin/counters", COUNTERS), ("/etc/docker/registry/config.yml", REGISTRY_CONFIG), ("/srv/context/Dockerfile", DOCKERFILE)):
            self.write(path, text)
        self.write("/srv/bin/python", f'#!/bin/sh\nexec {TIME} /usr/bin/python3 "$@"\n')
        self.sh("chmod 755 /srv/bin/*")
        base = support.CACHE / "bases/sid-cpu-amd64.tar"
        for suffix in ("", ".json"):
            docker("cp", f"{base}{suffix}", f"{HOST}:/srv/base.tar{suffix}")
        model = self.folder / "big.gguf"
        big_model(model, self.size)
        docker("cp", str(model), f"{HOST}:{MODEL}")
        model.unlink()
        if crane == "debian":
            self.sh(CRANE)
        elif crane:
            docker("cp", crane, f"{HOST}:/usr/local/bin/crane")
        self.change_config()

    def write(self, path: str, text: str) -> None:
        subprocess.run(["docker", "exec", "--interactive", HOST, "sh", "-euc", f"cat >{path}"], input=text, text=True, check=True)

    def use_store(self, store: str) -> None:
        if store in ("", self.store):
            return
        self.write("/etc/docker/daemon.json", json.dumps({"features": {"containerd-snapshotter": store == "containerd"}}))
        self.sh("systemctl restart containerd docker; docker info >/dev/null")
        self.store = store
        self.import_base()

    def import_base(self) -> None:
        if self.store:
            self.sh(f"docker image inspect {BASE} >/dev/null 2>&1 || docker import /srv/base.tar {BASE} >/dev/null")

    def empty_registry(self) -> None:
        self.sh("systemctl stop docker-registry; rm -rf /srv/registry/docker; systemctl start docker-registry")
        answers = "import socket; socket.create_connection(('127.0.0.1', 5000))"
        self.sh(f'for i in $(seq 50); do python3 -c "{answers}" 2>/dev/null && exit 0; sleep 0.1; done; exit 1')

    def change_config(self) -> None:
        """What a user changes between two builds: the size of the context."""
        self.version += 1
        config = f"- name: big\n  context_size: {2048 + self.version}\n  parameters:\n    model: big.gguf\n"
        self.write("/srv/context/config.yaml", config)
        text = "apiVersion: v1alpha1\nmodels:\n  - name: big\n    source: big.gguf\nconfig: |\n" + "".join(f"  {line}\n" for line in config.splitlines())
        (self.folder / "aikitfile.yaml").write_text(text)

    def change_model(self) -> None:
        """Some bytes in the middle of the weights are others."""
        self.version += 1
        change = f"f = open('{MODEL}', 'r+b'); f.seek({self.size // 2}); f.write(b'{self.version:016d}')"
        self.sh(f'python3 -c "{change}"')

    def settle(self) -> None:
        """The model in the page cache, nothing waiting to be written, files old enough for a digest cache."""
        self.sh(f"cat {MODEL} /srv/base.tar >/dev/null; sync; sleep 2.5")

    def counters(self, reset: bool = False) -> dict[str, float]:
        return json.loads(docker("exec", HOST, "python3", "/srv/bin/counters", *(["reset"] if reset else [])))

    def measure(self, arm: str, case: str, run: Callable[[], Any]) -> Row:
        self.sh("rm -f /srv/time")
        before = self.counters(reset=True)
        run()
        after = self.counters()
        times = [[float(word) for word in line.split()] for line in self.sh("cat /srv/time").splitlines() if line[:1].isdigit()]
        if not times:
            raise SystemExit(f"{arm}: /srv/time has nothing")
        used = {key: after[key] - before[key] for key in after}
        return Row(
            arm,
            case,
            sum(entry[0] for entry in times),
            sum(entry[1] + entry[2] for entry in times),
            used["builder_cpu"],
            used["registry_cpu"],
            int(max(entry[3] for entry in times) * 1024),
            int(after["daemon_peak"]),
            int(used["written"] + sum(entry[4] for entry in times) * 512),
            int(used["sent"]),
        )

    # --- one build and push

    def build(self, arm: Arm, case: str) -> Row:
        if arm.name == "direct":
            return self.measure(arm.name, case, lambda: self.direct(arm))
        command = arm.command.replace("REF", arm.ref)
        return self.measure(arm.name, case, lambda: self.sh(f"{TIME} {command}"))

    def direct(self, arm: Arm) -> None:
        arguments = {
            "name": arm.ref,
            "src": str(self.folder / "aikitfile.yaml"),
            "context": "/srv/context",
            "server": "llama_cpp",
            "base": "/srv/base.tar",
            "push": True,
            "cache": "/srv/digests",
            "store": "/srv/store",
            "blobs": "/srv/blobs",
        }
        play = [{"hosts": HOST, "gather_facts": False, "tasks": [{"aikit.fleet.aikit_image": arguments}]}]
        (self.folder / "build.json").write_text(json.dumps(play))
        variables = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/srv/bin/python"}
        (self.folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {HOST: variables}}}))
        run = support.playbook(str(self.folder / "build.json"), "--inventory", str(self.folder / "inventory.json"))
        if run.code != 0:
            raise SystemExit(run.output)

    def cold(self, arm: Arm) -> Row:
        self.use_store(arm.store)
        self.sh(arm.reset.replace("REF", arm.ref))
        self.import_base()
        self.empty_registry()
        self.settle()
        return self.build(arm, "cold")

    def pull(self, engine: str, title: str, image: str) -> Row:
        tls = " --tls-verify=false" if engine == "podman" else ""
        ref = f"{REGISTRY}/bench/{image}:1"
        clean = f"{engine} image rm --force {ref} >/dev/null 2>&1 || true"
        if engine == "docker":
            # Layers of the build would serve as those of the pull
            clean += f"; docker image rm --force {BASE} >/dev/null 2>&1 || true; {PRUNE}"
        self.sh(clean)
        self.sh("sync; sleep 1")
        row = self.measure(title, f"pull of {image}", lambda: self.sh(f"{TIME} {engine} pull --quiet{tls} {ref}"))
        self.sh(clean)
        return row

    def floor(self) -> float:
        """Seconds to read the model once, with its digest, and to write it once, down to the disk."""
        script = (
            "import hashlib, os, time; started = time.monotonic(); digest = hashlib.sha256()\n"
            f"with open('{MODEL}', 'rb', buffering=0) as reader, open('/srv/floor', 'wb', buffering=0) as writer:\n"
            "    buffer = memoryview(bytearray(1 << 20))\n"
            "    while count := reader.readinto(buffer):\n"
            "        digest.update(buffer[:count]); writer.write(buffer[:count])\n"
            "    os.fsync(writer.fileno())\n"
            "print(time.monotonic() - started); os.unlink('/srv/floor')"
        )
        self.settle()
        return float(docker("exec", HOST, "python3", "-c", script))

    def versions(self) -> str:
        return self.sh("docker --version; docker buildx version; podman --version; docker-registry --version 2>&1 | head -n 1; python3 --version")


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"


def size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def show(rows: list[Row], floors: list[float], titles: dict[str, str]) -> str:
    """Markdown tables: minimum and median, and how many times as long as the direct way in the same run."""
    text = []
    floor = statistics.median(floors)
    for case in dict.fromkeys(row.case for row in rows if not row.case.startswith("pull")):
        there = [row for row in rows if row.case == case]
        text += [
            f"\n### {case}\n",
            "| how | seconds: median (min, n) | × direct | CPU s: client + daemons | CPU s: registry | peak memory: client + daemons | written | sent |",
            "|---|---|---|---|---|---|---|---|",
        ]
        direct = [row.seconds for row in there if row.arm == "direct"]
        for arm in dict.fromkeys(row.arm for row in there):
            mine = [row for row in there if row.arm == arm]
            seconds = [row.seconds for row in mine]
            ratio = f"{statistics.median(seconds) / statistics.median(direct):.1f}" if direct else ""
            middle = {name: statistics.median(getattr(row, name) for row in mine) for name in ("client_cpu", "daemon_cpu", "registry_cpu", "written", "sent")}
            peak = f"{mebibytes(max(row.client_peak for row in mine))} + {mebibytes(max(row.daemon_peak for row in mine))}"
            # The direct builder uses no daemon; what those of the host do meanwhile is not its own
            daemons = "0" if arm in ("direct", "podman", "crane") else f"{middle['daemon_cpu']:.1f}"
            if daemons == "0":
                peak = mebibytes(max(row.client_peak for row in mine))
            text.append(
                f"| {titles.get(arm, arm)} | {statistics.median(seconds):.1f} ({min(seconds):.1f}, {len(seconds)}) | {ratio} "
                f"| {middle['client_cpu']:.1f} + {daemons} | {middle['registry_cpu']:.1f} | {peak} | {size(middle['written'])} | {size(middle['sent'])} |"
            )
        if case == "cold":
            text.append(f"\nFloor (one read with its sha256, one write to the disk): {floor:.1f} s (min {min(floors):.1f}, n {len(floors)}).")
            if direct:
                text.append(f"Direct is {statistics.median(direct) / floor:.2f} × the floor (of the minima: {min(direct) / min(floors):.2f}).")
    pulls = [row for row in rows if row.case.startswith("pull")]
    if pulls:
        text += ["\n### pull\n", "| engine | image of | seconds: median (min, n) | CPU s: client + daemons | written | received |", "|---|---|---|---|---|---|"]
        for arm, case in dict.fromkeys((row.arm, row.case) for row in pulls):
            mine = [row for row in pulls if (row.arm, row.case) == (arm, case)]
            seconds = [row.seconds for row in mine]
            middle = {name: statistics.median(getattr(row, name) for row in mine) for name in ("client_cpu", "daemon_cpu", "written", "sent")}
            daemon = 0 if arm == "podman" else round(middle["daemon_cpu"], 1)
            text.append(
                f"| {arm} | {titles.get(case[8:], case[8:])} | {statistics.median(seconds):.1f} ({min(seconds):.1f}, {len(seconds)}) "
                f"| {middle['client_cpu']:.1f} + {daemon} | {size(middle['written'])} | {size(middle['sent'])} |"
            )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gb", type=float, default=2.02, help="size of the model")
    parser.add_argument("--arms", default="direct,tuned,default,crane,podman,containerd")
    parser.add_argument("--cases", default="cold,config,model,pull", help="only the first run has model and pull")
    parser.add_argument("--crane", default=shutil.which("crane") or "debian", help="by default the one here, else Debian's, built in the host")
    parser.add_argument("--json", type=Path, help="file for every single run")
    parser.add_argument("--show", type=Path, nargs="+", help="print the tables of such files together, and measure nothing")
    parser.add_argument("--keep", action="store_true", help="leave the host there, for another run")
    arguments = parser.parse_args()
    titles = {arm.name: arm.title for arm in ARMS}
    rows: list[Row] = []
    if arguments.show:
        files = [json.loads(path.read_text()) for path in arguments.show]
        rows = [Row(**row) for found in files for row in found["rows"]]
        print(show(rows, [floor for found in files for floor in found["floors"]], titles))
        return
    wanted = [arm for arm in ARMS if arm.name in arguments.arms.split(",")]
    cases = arguments.cases.split(",")
    needs()
    floors: list[float] = []

    def note(row: Row) -> Row:
        rows.append(row)
        print(f"{time.strftime('%H:%M:%S')} {row.arm}, {row.case}: {row.seconds:.1f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"floors": floors, "rows": [vars(entry) for entry in rows]}, indent=1))
        return row

    try:
        with tempfile.TemporaryDirectory(prefix="aikit-benchmark-", dir="/var/tmp") as name:
            lab = Lab(Path(name), int(arguments.gb * 1e9))
            lab.prepare(arguments.crane if any(arm.name == "crane" for arm in wanted) else "")
            versions = lab.versions()
            for number in range(arguments.runs):
                floors.append(lab.floor())
                for arm in wanted:
                    note(lab.cold(arm))
                    if "config" in cases:
                        lab.change_config()
                        lab.settle()
                        note(lab.build(arm, "configuration changed"))
                    if "model" in cases and number == 0:
                        lab.change_model()
                        lab.settle()
                        note(lab.build(arm, "model changed"))
                    if "pull" in cases and number == 0:
                        for store in ("graph", "containerd"):
                            lab.use_store(store)
                            note(lab.pull("docker", f"docker, {store} store", arm.name))
                        note(lab.pull("podman", "podman", arm.name))
    finally:
        if not arguments.keep:
            subprocess.run([str(support.ROOT / "tests/tools/host"), "destroy", HOST], check=False)
    print(versions)
    print(show(rows, floors, titles))


def needs() -> None:
    """The base and the weights, where they are not here yet."""
    if not (support.MODEL_DIR / support.MODEL_NAME).is_file():
        support.playbook("aikit.fleet.quickstart_model")
    if not (support.CACHE / "bases/sid-cpu-amd64.tar").is_file():
        with tempfile.TemporaryDirectory(prefix="aikit-benchmark-") as name:
            play = Path(name) / "base.json"
            role = {"name": "aikit.fleet.llama_cpp_base"}
            play.write_text(json.dumps([{"hosts": "localhost", "tasks": [{"ansible.builtin.include_role": role, "vars": {"llama_cpp_base_variant": "cpu"}}]}]))
            run = support.playbook(str(play))
            if run.code != 0:
                raise SystemExit(run.output)


if __name__ == "__main__":
    main()
