# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import cdi_spec
from ansible_collections.aikit.fleet.plugins.module_utils._core.cdi_spec import Unit

SPEC = """\
---
cdiVersion: 0.7.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
              hostPath: /dev/nvidia0
        additionalGids:
            - 44
    - name: all
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
            - path: "/dev/nvidia-caps/nvidia-cap1"
containerEdits:
    deviceNodes:
        - path: /dev/nvidiactl
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
    mounts:
        - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.03
          containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.580.159.03
"""
JSON = json.dumps(
    {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}}]}
)


@pytest.mark.parametrize("text", [JSON, json.dumps(json.loads(JSON), indent=2)])
def test_json(text):
    assert cdi_spec.nodes(text) == ("/dev/nvidia0",)


def test_yaml():
    assert cdi_spec.nodes(SPEC) == ("/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1", "/dev/nvidiactl")


def test_the_order_of_lines_means_nothing():
    lines = SPEC.splitlines()
    assert cdi_spec.same(SPEC, "\n".join([*lines[:-2], lines[-1].replace("  containerPath", "- containerPath"), lines[-2].replace("- hostPath", "  hostPath")]))
    assert not cdi_spec.same(SPEC, SPEC.replace("580.159.03", "580.178.04"))
    assert not cdi_spec.same(SPEC, "")


UNIT = """\
Environment=NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=a b"
EnvironmentFiles=/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env (ignore_errors=yes)
LoadState=loaded
UnitFileState=enabled
"""


def test_unit():
    unit = cdi_spec.parse_unit(UNIT)
    assert unit == Unit(
        True,
        True,
        ("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml", "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=a b"),
        ("/etc/nvidia-container-toolkit/nvidia-cdi-refresh.env",),
    )
    assert cdi_spec.parse_unit("LoadState=not-found\nUnitFileState=\nEnvironment=\n") == Unit()
    assert cdi_spec.parse_unit("") == Unit()


def test_environment():
    unit = cdi_spec.parse_unit(UNIT)
    text = "# NVIDIA_A=1\nNVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS='c'\nPATH=/bad\nnonsense\n"
    expected = {"NVIDIA_CTK_CDI_OUTPUT_FILE_PATH": "/var/run/cdi/nvidia.yaml", "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS": "c"}
    # The unit has its own; what is given is for hosts without it
    assert cdi_spec.environment(unit, [text], {"NVIDIA_X": "y"}) == expected
    assert cdi_spec.environment(Unit(), [], {"NVIDIA_X": "y"}) == {"NVIDIA_X": "y"}


def test_plan():
    assert not cdi_spec.plan("/p", SPEC, SPEC, "unit", "").changed
    # Without an answer of the driver nothing is known to be wrong
    assert not cdi_spec.plan("/p", "", "", "unit", "no driver").changed
    made = cdi_spec.plan("/p", "", SPEC, "unit", "")
    assert made.actions[0].describe() == "refresh /p (is not there; with unit)" and made.before == {}
    assert made.after["libraries"] == ["libcuda.so.580.159.03"] and made.after["cdiVersion"] == "0.7.0"
    made = cdi_spec.plan("/p", SPEC, SPEC.replace("580.159.03", "580.178.04"), "", "")
    assert made.actions[0].describe() == "refresh /p (is not what the driver has now; with nvidia-ctk)"
    assert made.before["libraries"] != made.after["libraries"]
