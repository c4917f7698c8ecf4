# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What dockerd does with the keys of daemon.json; read in November 2026 in moby's source of 20.10, 26.1, 28 and 29.

daemon/reload.go and daemon/reload_unix.go (what SIGHUP applies), daemon/config/config.go (what must not be in the file and on the
command line at once), cmd/dockerd/config.go (names of flags).
"""

from __future__ import annotations

from typing import Mapping

REVIEWED = "2026-11-25"

CONFIG_FILE = "/etc/docker/daemon.json"

# Keys that SIGHUP applies when they are set or changed. Everything else waits for a restart, features too: they are read when the
# daemon starts (features.cdi, features.containerd-snapshotter), but for features.buildkit, which every build asks for.
RELOADABLE = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-cgroupns-mode",
        "default-ipc-mode",
        "default-runtime",
        "default-shm-size",
        "features.buildkit",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "network-diagnostic-port",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)

# Keys that SIGHUP takes back to their default when they are gone from the file. For the others a missing key means "as it was".
RESET_BY_RELOAD = frozenset(
    {"authorization-plugins", "features.buildkit", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "network-diagnostic-port"}
)

# Flag -> key, where they are not the same word.
FLAG_KEYS: Mapping[str, str] = {
    "-D": "debug",
    "-G": "group",
    "-H": "hosts",
    "-b": "bridge",
    "-g": "data-root",
    "-l": "log-level",
    "-p": "pidfile",
    "-s": "storage-driver",
    "--add-runtime": "runtimes",
    "--authorization-plugin": "authorization-plugins",
    "--cdi-spec-dir": "cdi-spec-dirs",
    "--cluster-store-opt": "cluster-store-opts",
    "--containerd-plugins-namespace": "containerd-plugin-namespace",
    "--default-address-pool": "default-address-pools",
    "--default-network-opt": "default-network-opts",
    "--default-ulimit": "default-ulimits",
    "--dns-opt": "dns-opts",
    "--exec-opt": "exec-opts",
    "--feature": "features",
    "--graph": "data-root",
    "--host": "hosts",
    "--insecure-registry": "insecure-registries",
    "--label": "labels",
    "--log-opt": "log-opts",
    "--node-generic-resource": "node-generic-resources",
    "--registry-mirror": "registry-mirrors",
    "--storage-opt": "storage-opts",
}

# Keys whose members dockerd merges with the flags instead of refusing both.
MERGED_WITH_FLAGS = frozenset({"runtimes"})

# Keys that hold flags of their own instead of being one.
GROUPS = frozenset({"proxies"})

# Keys that are no flags.
WITHOUT_FLAG = frozenset({"builder", "features"})
