# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
import yaml
from ansible_collections.aikit.fleet.plugins.module_utils._core import cdi
from hypothesis import given
from hypothesis import strategies as st

NEW = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    hooks:
    - hookName: createContainer
      name: not-a-device
- name: GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: all
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  mounts:
  - name: not-a-device
"""
OLD = """cdiVersion: 0.3.0
containerEdits:
  hooks:
  - hookName: createContainer
devices:
  - containerEdits:
      deviceNodes:
      - path: /dev/nvidia0
        name: not-a-device
    name: "0"
  - containerEdits:
      deviceNodes:
      - path: /dev/nvidia1
    name: "1"
  - name: all   # every card
kind: nvidia.com/gpu
"""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (NEW, ["0", "GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a", "all"]),
        (OLD, ["0", "1", "all"]),
        (json.dumps(yaml.safe_load(NEW)), ["0", "GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a", "all"]),
    ],
)
def test_devices_of_a_specification(text, names):
    assert cdi.devices(text) == tuple(f"nvidia.com/gpu={name}" for name in names)


@pytest.mark.parametrize("text", ["", "x", "{", "[]", '{"kind": 1}', "devices:\n- name: a\n", "kind: a/b\n", '{"devices": ["x"], "kind": "a/b"}'])
def test_what_is_no_specification_offers_nothing(text):
    assert cdi.devices(text) == ()


@given(st.text())
def test_no_text_raises(text):
    cdi.devices(text)
    cdi.devices("kind: a/b\ndevices:\n" + text)
    cdi.devices("{" + text)


@given(
    st.lists(st.fixed_dictionaries({"name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True), "containerEdits": st.just({"env": ["A=1"]})})),
    st.sampled_from([True, False]),
)
def test_the_line_reader_agrees_with_a_yaml_parser(devices, sort):
    text = yaml.safe_dump({"kind": "nvidia.com/gpu", "devices": devices, "cdiVersion": "0.5.0"}, sort_keys=sort)
    assert cdi.devices(text) == tuple(f"nvidia.com/gpu={entry['name']}" for entry in devices)


def test_only_nvidias_gpus_count():
    assert cdi.nvidia_gpus(["nvidia.com/gpu=0", "amd.com/gpu=1", "nvidia.com/gpu=0", "nvidia.com/gpu=all"]) == ("0", "all")


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["all"], 0),
        (["0", "all"], 1),
        (["0", "1", "GPU-a", "GPU-b", "all"], 2),
        (["GPU-a", "GPU-b"], 2),
        (["0:0", "0:1", "all"], 1),
        (["MIG-a", "MIG-b"], 1),
        ([], 0),
    ],
)
def test_gpu_count(names, count):
    assert cdi.gpu_count(names) == count
