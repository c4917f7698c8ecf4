# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GPU hosts without GPUs: fixture repositories over HTTP, and real systemd hosts with a fake /proc and /sys. By hand:

python tests/hosts/lab.py serve DIRECTORY                      serve repositories until Ctrl-C; DIRECTORY/repository.json says where
python tests/hosts/lab.py host NAME DIRECTORY [SUITE] [JSON]   make a host that knows them; JSON holds gpu_host's further arguments
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import ipaddress
import json
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support

FIXTURE = support.ROOT / "tests/fixtures/fake-nvidia"
FAKE_ROOT = "/opt/fake-root"
# Runs a role (role, entry)
ROLE_PLAY = """\
- name: Role
  hosts: aikit_hosts
  gather_facts: false
  tasks:
    - name: Role
      ansible.builtin.include_role:
        name: "aikit.fleet.{{ role }}"
        tasks_from: "{{ entry | default('main') }}"
"""

# name -> PCI device, class, marketing name, memory (MiB; empty: [N/A]), compute capability, architecture
GPUS = {
    "p40": ("1b38", "0x030200", "Tesla P40", "24576", "6.1", "Pascal"),
    "v100": ("1db6", "0x030200", "Tesla V100-PCIE-32GB", "32768", "7.0", "Volta"),
    "t4": ("1eb8", "0x030200", "Tesla T4", "15360", "7.5", "Turing"),
    "a100": ("20b2", "0x030200", "NVIDIA A100-SXM4-80GB", "81920", "8.0", "Ampere"),
    "l4": ("27b8", "0x030200", "NVIDIA L4", "23034", "8.9", "Ada Lovelace"),
    "rtx4090": ("2684", "0x030000", "NVIDIA GeForce RTX 4090", "24564", "8.9", "Ada Lovelace"),
    "h100": ("2330", "0x030200", "NVIDIA H100 80GB HBM3", "81559", "9.0", "Hopper"),
    "b200": ("2901", "0x030200", "NVIDIA B200", "183359", "10.0", "Blackwell"),
    "gb10": ("2e12", "0x030000", "NVIDIA GB10", "", "12.1", "Blackwell"),
}

OS_RELEASE = {
    "ubuntu2204": ("ubuntu", "22.04", "Ubuntu 22.04.5 LTS", "jammy"),
    "ubuntu2404": ("ubuntu", "24.04", "Ubuntu 24.04.3 LTS", "noble"),
    "ubuntu2604": ("ubuntu", "26.04", "Ubuntu 26.04 LTS", "resolute"),
}
SUITES = {"trixie": "debian13", "bookworm": "debian12", "bullseye": "debian12"}


class _Handler(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # pylint: disable=redefined-builtin
        pass


class _Secure(http.server.ThreadingHTTPServer):
    """Says goodbye as TLS wants it: for apt everything else is a broken connection."""

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(2)
            request.unwrap()
        super().shutdown_request(request)


class Repository:
    """The fixture repositories, built and served where test hosts reach them. ``facts`` is repository.json.

    ``told``: the address that the keyring package tells hosts; theirs, where none is given.
    """

    def __init__(self, folder: Path, distributions: tuple[str, ...] = ("debian12", "debian13", "ubuntu2404"), told: str = "") -> None:
        self.folder = folder
        # Some versions of Docker leave the gateway out: it is the subnet's first address
        subnet = support.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
        address = str(next(ipaddress.ip_network(subnet).hosts()))
        self.requests: list[str] = []
        self.handler = functools.partial(type("Handler", (_Handler,), {"requests": self.requests}), directory=str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        self.servers = [http.server.ThreadingHTTPServer((address, 0), self.handler)]
        self.url = f"http://{address}:{self.servers[0].server_address[1]}"
        command = [sys.executable, str(FIXTURE / "build"), str(folder), "--url", told or self.url]
        for name in distributions:
            command += ["--distribution", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.facts: dict[str, Any] = {**json.loads((folder / "repository.json").read_text()), "url": self.url}
        threading.Thread(target=self.servers[0].serve_forever, daemon=True).start()

    def secure(self, certificate: Path, key: Path) -> str:
        """Serve the same over TLS, too; the address and port."""
        server = _Secure((self.servers[0].server_address[0], 0), self.handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"{server.server_address[0]}:{server.server_address[1]}"

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


class GpuHost:
    """A running host. ``root`` is what modules take as the root of its file system."""

    root = FAKE_ROOT

    def __init__(self, name: str, facts: dict[str, Any], suite: str = "trixie", **scenario: Any) -> None:
        self.name = name
        self.facts = facts
        self.kernel: str = facts["kernel"]
        self.upcoming_kernel: str = facts["upcoming_kernel"]
        self.suite = suite
        self.scenario = scenario
        self.distribution: str = scenario.get("distribution") or SUITES[suite]

    # --- what a test does with a host

    def run(self, *words: str, check: bool = True, stdin: Optional[str] = None) -> str:
        """Run a command on the host; its output, both streams."""
        command = ["docker", "exec", *(["--interactive"] if stdin is not None else []), self.name, *words]
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(words)}: exit {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def sh(self, script: str, check: bool = True) -> str:
        return self.run("sh", "-euc", script, check=check)

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-euc", f'mkdir -p "$(dirname {path})"; cat >{path}', stdin=text)

    def control(self, name: str, text: Optional[str] = "") -> None:
        """Make /etc/fake-nvidia/NAME, or take it away with None. README.md of the fixture lists the names."""
        if text is None:
            self.run("rm", "-rf", f"/etc/fake-nvidia/{name}")
        else:
            self.write(f"/etc/fake-nvidia/{name}", text)

    def apt(self, *words: str, check: bool = True) -> str:
        return self.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q=2", "--yes", "--no-install-recommends", *words, check=check)

    def module(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of one module, run as Ansible runs it."""
        environment = support.environment(ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_LOAD_CALLBACK_PLUGINS="1")
        command = [str(support.BIN / "ansible"), self.name, "--inventory", f"{self.name},", "--connection", "community.docker.docker"]
        command += [
            "--extra-vars",
            "ansible_python_interpreter=/usr/bin/python3",
            "--module-name",
            name,
            *(["--args", json.dumps(arguments)] if arguments else []),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        (play,) = json.loads(done.stdout[done.stdout.index("{\n") :])["plays"]
        result = dict(play["tasks"][0]["hosts"][self.name])
        assert not result.get("failed") and not result.get("unreachable"), result
        return result

    def install_driver(self, version: str, open_modules: bool = True) -> None:
        """NVIDIA's packages of one version, as someone else would have installed them, and a reboot."""
        self.add_cuda_repository()
        modules = "nvidia-kernel-open-dkms" if open_modules else "nvidia-kernel-dkms"
        names = f"nvidia-driver-cuda libcuda1 libnvidia-ml1 nvidia-persistenced nvidia-modprobe {modules} nvidia-kernel-common firmware-nvidia-gsp"
        if self.distribution.startswith("ubuntu"):
            tail = f"-{version.partition('.')[0]}" if version < "590" else ""
            flavour = "-open" if open_modules else ""
            both = ("libnvidia-compute", "libnvidia-cfg1", "nvidia-utils", "nvidia-kernel-common", "nvidia-firmware")
            kernel = ("nvidia-kernel-source", "nvidia-dkms", "nvidia-headless-no-dkms")
            names = " ".join([*(f"{name}{tail}" for name in both), *(f"{name}{tail}{flavour}" for name in kernel), "nvidia-persistenced"])
        suffix = "-1ubuntu1" if self.distribution.startswith("ubuntu") else "-1"
        self.apt("install", f"linux-headers-{self.kernel}", *(f"{name}={version}{suffix}" for name in names.split()))
        self.sh("! command -v update-initramfs >/dev/null || update-initramfs -u -k all")
        self.reboot()

    def add_cuda_repository(self) -> None:
        keyring = self.facts["cuda"][self.distribution]["keyring_path"]
        support.docker("cp", keyring, f"{self.name}:/var/tmp/cuda-keyring.deb")
        self.run("dpkg", "--install", "/var/tmp/cuda-keyring.deb")
        self.apt("update")

    def add_toolkit_repository(self) -> None:
        support.docker("cp", self.facts["keys"]["toolkit"].replace(".asc", ".gpg"), f"{self.name}:/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg")
        line = f"deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] {self.facts['toolkit']['url']} /\n"
        self.write("/etc/apt/sources.list.d/nvidia-container-toolkit.list", line)
        self.apt("update")

    def reboot(self) -> None:
        """Stop and start it: units come up as after a boot, and the fake kernel loads what it finds."""
        support.docker("restart", "--time", "10", self.name)
        self.wait()

    def wait(self) -> None:
        subprocess.run([str(support.ROOT / "tests/tools/host"), "create", self.name, self.suite], check=True, stdout=subprocess.DEVNULL)

    def inventory(self, folder: Path, **variables: Any) -> Path:
        """An inventory of this host alone; preset: a fake root for every role, the fixture's repositories."""
        path = folder / f"{self.name}.json"
        host = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3", **self.variables(), **variables}
        path.write_text(json.dumps({"aikit_hosts": {"hosts": {self.name: host}}}))
        return path

    def variables(self) -> dict[str, Any]:
        return {f"__{role}_root": self.root for role in ("nvidia_driver", "nvidia_container_toolkit", "container_engine", "inference")}

    def destroy(self) -> None:
        subprocess.run([str(support.ROOT / "tests/tools/host"), "destroy", self.name], check=True)

    # --- how it is made

    def create(self) -> "GpuHost":
        # A host that reboots itself comes back
        command = [str(support.ROOT / "tests/tools/host"), "create", self.name, self.suite, "--restart=unless-stopped", "--stop-signal=SIGRTMIN+3"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.play()
        self._apt_sources()
        names = ["kmod", f"linux-image-{self.kernel}", "initramfs-tools", *self.scenario.get("packages", ())]
        names.append("linux-image-generic" if self.distribution.startswith("ubuntu") else "linux-image-amd64")
        if self.scenario.get("headers"):
            names.append(f"linux-headers-{self.kernel}")
        self.apt("update")
        self.apt("install", *names)
        self.run("systemctl", "start", "fake-nvidia-boot.service")
        if self.scenario.get("driver"):
            self.install_driver(self.scenario["driver"], self.scenario.get("open_modules", True))
        return self

    def play(self) -> None:
        """Lay the fake files down, and have a fake kernel at each boot from now on."""
        self._copy()
        # Below another root than / programs are taken from usr/bin alone
        self.sh("mkdir -p /lib/modules; for name in modinfo dockerd; do ln -sf ../sbin/$name /usr/bin/$name; done")
        self.sh("systemctl daemon-reload; systemctl enable --quiet fake-nvidia-boot.service")

    def _apt_sources(self) -> None:
        support.docker("cp", self.facts["keys"]["cuda"].replace(".asc", ".gpg"), f"{self.name}:/usr/share/keyrings/fake-distribution.gpg")
        url = f"{self.facts['url']}/distribution/{self.distribution}/"
        self.write("/etc/apt/sources.list.d/fake-distribution.list", f"deb [signed-by=/usr/share/keyrings/fake-distribution.gpg] {url} /\n")
        # Its small packages stand before Debian's big ones of the same names
        self.write("/etc/apt/preferences.d/fake-distribution", "Package: *\nPin: release l=fake distribution\nPin-Priority: 700\n")

    def _copy(self) -> None:
        """The fake parts of the file system, in one archive."""
        buffer = BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:

            def own(entry: tarfile.TarInfo) -> tarfile.TarInfo:
                entry.uid = entry.gid = 0
                return entry

            for path in sorted((FIXTURE / "host").rglob("*")):
                if path.is_file():
                    archive.add(path, str(path.relative_to(FIXTURE / "host")), filter=own)
            for name, text in self.files().items():
                entry = tarfile.TarInfo(name)
                data = text if isinstance(text, bytes) else text.encode()
                entry.size, entry.mode = len(data), 0o644
                archive.addfile(entry, BytesIO(data))
        done = subprocess.run(["docker", "cp", "-", f"{self.name}:/"], input=buffer.getvalue(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def files(self) -> dict[str, "str | bytes"]:
        """Every fake file of the scenario, without the leading slash."""
        scenario = self.scenario
        found: dict[str, "str | bytes"] = {}
        lines = []
        for index, kind in enumerate(scenario.get("gpus", ("h100",))):
            device, pci_class, name, memory, capability, architecture = GPUS[kind]
            slot = f"0000:{0x3B + 2 * index:02x}:00.0"
            uuid = f"GPU-{index:08x}-fa4e-fa4e-fa4e-{int(device, 16):012x}"
            lines.append(f"{index};{uuid};{name};0000{slot.upper()};{memory};{capability};{architecture}")
            found.update(_pci(slot, "0x10de", f"0x{device}", pci_class))
            # The card's sound output has the same vendor, and is no GPU
            found.update(_pci(slot[:-1] + "1", "0x10de", "0x22ba", "0x040300"))
        if scenario.get("nvswitch"):
            for index in range(4):
                found.update(_pci(f"0000:{0x80 + index:02x}:00.0", "0x10de", "0x22a3", "0x068000"))
            found["opt/fake-root/proc/driver/nvidia-nvswitch/devices/0000:80:00.0/information"] = "fake\n"
        found["etc/fake-nvidia/gpus"] = "".join(line + "\n" for line in lines)
        if scenario.get("nouveau"):
            found["etc/fake-nvidia/nouveau"] = ""
        if scenario.get("secure_boot") is not None:
            variable = "opt/fake-root/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
            found[variable] = b"\x06\x00\x00\x00" + (b"\x01" if scenario["secure_boot"] else b"\x00")
            if scenario["secure_boot"]:
                found["etc/fake-nvidia/secure-boot"] = ""
        proc = "opt/fake-root/proc"
        found[f"{proc}/sys/kernel/osrelease"] = self.kernel + "\n"
        found[f"{proc}/modules"] = "overlay 208896 0 - Live 0x0000000000000000\n"
        found[f"{proc}/meminfo"] = "MemTotal:       131072000 kB\nMemFree:        120000000 kB\nMemAvailable:   125000000 kB\n"
        found[f"{proc}/version"] = f"Linux version {self.kernel} (fake)\n"
        found[f"{proc}/cmdline"] = f"BOOT_IMAGE=/boot/vmlinuz-{self.kernel} ro\n"
        if self.distribution in OS_RELEASE:
            identity, number, pretty, codename = OS_RELEASE[self.distribution]
            lines = [f'PRETTY_NAME="{pretty}"', 'NAME="Ubuntu"', f'VERSION_ID="{number}"', f"VERSION_CODENAME={codename}", f"ID={identity}", "ID_LIKE=debian"]
            found["usr/lib/os-release"] = "".join(f"{line}\n" for line in lines)
        found.update({path.lstrip("/"): text for path, text in scenario.get("files", {}).items()})
        return found


def _pci(slot: str, vendor: str, device: str, pci_class: str) -> dict[str, "str | bytes"]:
    folder = f"opt/fake-root/sys/bus/pci/devices/{slot}"
    return {f"{folder}/vendor": f"{vendor}\n", f"{folder}/device": f"{device}\n", f"{folder}/class": f"{pci_class}\n"}


def main(words: list[str]) -> None:
    if words[:1] == ["serve"]:
        repository = Repository(Path(words[1]), tuple(words[2:]) or ("debian12", "debian13", "ubuntu2404"))
        print(json.dumps(repository.facts, indent=2), flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            repository.close()
    elif words[:1] == ["host"]:
        name, folder, suite, scenario = [*words[1:], *("", "", "trixie", "{}")[len(words) - 1 :]]
        facts = json.loads((Path(folder) / "repository.json").read_text())
        GpuHost(name, facts, suite, **json.loads(scenario)).create()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
