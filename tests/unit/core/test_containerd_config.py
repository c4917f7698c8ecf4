# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import containerd_config as config
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

DEBIAN = """\
version = 2

# CNI as Debian has it
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "mine/pause:1"  # mine
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd/opt"
"""


def test_a_line_is_put_into_its_table():
    made = config.enable_cdi(DEBIAN, "x")
    added = [line for line in made.splitlines() if line not in DEBIAN.splitlines()]
    assert added == ["    enable_cdi = true"]
    lines = made.splitlines()
    assert lines[lines.index(added[0]) - 1] == '  [plugins."io.containerd.grpc.v1.cri"]'
    assert config.enable_cdi(made, "x") == made, "and once is enough"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 'version = 2\n\n[plugins."io.containerd.grpc.v1.cri"]\n  enable_cdi = true\n'),
        ("\n", 'version = 2\n\n[plugins."io.containerd.grpc.v1.cri"]\n  enable_cdi = true\n'),
        ("version = 2\nroot = '/x'\n", "version = 2\nroot = '/x'\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  enable_cdi = true\n"),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'] # x\n\tenable_cdi = false # why\n",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'] # x\n\tenable_cdi = true # why\n",
        ),
        # A key of that name in a table of others is not the one
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n[other]\nenable_cdi = false\n',
            'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  enable_cdi = true\n[other]\nenable_cdi = false\n',
        ),
    ],
)
def test_files(text, expected):
    assert config.enable_cdi(text, "x") == expected


@pytest.mark.parametrize("text", ["root = '/x'\n", "version = 1\n", "version = 9\n"])
def test_versions_that_nobody_knows(text):
    with pytest.raises(AikitError, match="/etc/c.toml is of version"):
        config.enable_cdi(text, "/etc/c.toml")


BEFORE = 'imports = ["/etc/c.toml"]\n    enable_cdi = false\n    sandbox_image = "mine/pause:1"\n'


def test_what_containerd_makes_of_it():
    config.check(BEFORE, BEFORE.replace("false", "true").replace("/etc/c.toml", "/tmp/t/c.toml"), "/etc/c.toml", "/tmp/t/c.toml")
    with pytest.raises(AikitError, match="a file that it imports"):
        config.check(BEFORE, BEFORE, "/etc/c.toml", "/etc/c.toml")
    with pytest.raises(AikitError, match='would lose settings: sandbox_image = "mine/pause:1"'):
        config.check(BEFORE, BEFORE.replace("false", "true").replace("mine", "other"), "/etc/c.toml", "/etc/c.toml")
