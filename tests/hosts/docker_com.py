# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A signed repository that looks like docker.com's for bookworm: Debian's own Docker, under docker.com's names and with its conflicts."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import ipaddress
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import support

CODENAME = "bookworm"
VERSION = "5:29.0.0-1~debian.12~bookworm"
# name -> Debian's packages whose files it holds, further fields
PACKAGES = {
    "docker-ce": (("docker.io",), {"Depends": "containerd.io, docker-ce-cli, iptables", "Conflicts": "docker.io", "Replaces": "docker.io"}),
    "docker-ce-cli": ((), {"Conflicts": "docker.io"}),
    "containerd.io": (("containerd", "runc"), {"Provides": "containerd, runc", "Conflicts": "containerd, runc", "Replaces": "containerd, runc"}),
    "docker-buildx-plugin": ((), {}),
}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass


class Repository:
    """Served where test hosts reach it: ``url``; ``key_sha256`` is of its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "debian"
        self.home = folder / "gnupg"
        self.home.mkdir(mode=0o700)
        architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
        pool = self.folder / "pool"
        pool.mkdir(parents=True)
        index = "\n".join(self._package(name, folder / "build", pool, architecture) for name in PACKAGES)
        dist = self.folder / "dists" / CODENAME
        binary = dist / "stable" / f"binary-{architecture}"
        binary.mkdir(parents=True)
        (binary / "Packages").write_text(index)
        (binary / "Packages.gz").write_bytes(gzip.compress(index.encode()))
        self._release(dist, architecture)
        self.key_sha256 = hashlib.sha256((self.folder / "gpg").read_bytes()).hexdigest()
        # Some versions of Docker leave the gateway out: it is the subnet's first address
        subnet = support.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
        address = str(next(ipaddress.ip_network(subnet).hosts()))
        self.server = http.server.ThreadingHTTPServer((address, 0), functools.partial(_Quiet, directory=str(folder)))
        self.url = f"http://{address}:{self.server.server_address[1]}/debian"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _package(self, name: str, build: Path, pool: Path, architecture: str) -> str:
        sources, fields = PACKAGES[name]
        root = build / name
        (root / "DEBIAN").mkdir(parents=True)
        depends = []
        for source in sources:
            parts = build / source
            support.debian_program(source, "", build)
            archive = next(parts.glob("*.deb"))
            subprocess.run(["dpkg-deb", "--raw-extract", str(archive), str(parts / "raw")], check=True)
            shutil.copytree(parts / "raw", root, symlinks=True, dirs_exist_ok=True)
            control = (parts / "raw/DEBIAN/control").read_text()
            depends += [one.strip() for one in re.search(r"^Depends: (.*)$", control, re.M).group(1).split(",")]
        for unwanted in ("control", "md5sums", "conffiles"):
            (root / "DEBIAN" / unwanted).unlink(missing_ok=True)
        depends = [one for one in depends if one.split()[0] not in ("containerd", "runc", "tini", "iptables", "adduser")]
        fields = {**fields, "Depends": ", ".join(filter(None, [fields.get("Depends", ""), *depends]))}
        control = f"Package: {name}\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: nobody <nobody@example.org>\nDescription: fixture\n"
        control += "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
        (root / "DEBIAN/control").write_text(control)
        file = pool / f"{name}_{architecture}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(root), str(file)], check=True, capture_output=True)
        data = file.read_bytes()
        return f"{control}Filename: pool/{file.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"

    def _release(self, dist: Path, architecture: str) -> None:
        lines = ["Origin: Docker", f"Suite: {CODENAME}", f"Codename: {CODENAME}", "Components: stable", f"Architectures: {architecture}"]
        lines += ["Date: Wed, 25 Nov 2026 00:00:00 UTC", "SHA256:"]
        for path in sorted(dist.rglob("Packages*")):
            data = path.read_bytes()
            lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path.relative_to(dist)}")
        (dist / "Release").write_text("\n".join(lines) + "\n")
        gpg = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        subprocess.run([*gpg, "--quick-generate-key", "Fixture <fixture@example.org>", "rsa2048", "sign", "0"], check=True, capture_output=True)
        subprocess.run([*gpg, "--output", str(dist / "InRelease"), "--clearsign", str(dist / "Release")], check=True, capture_output=True)
        subprocess.run([*gpg, "--armor", "--output", str(self.folder / "gpg"), "--export"], check=True, capture_output=True)
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, capture_output=True)
