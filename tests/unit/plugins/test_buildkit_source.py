# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the BuildKit builder says and does with an aikitfile as the controller reads it: lines and columns, and build arguments in its place."""

from __future__ import annotations

from ansible_collections.aikit.fleet.plugins.module_utils._core import buildkit
from ansible_collections.aikit.fleet.plugins.module_utils._core.aikitfile import Aikitfile
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_aikit import MAIN
from ansible_collections.aikit.fleet.plugins.plugin_utils import yaml_source

V21 = (0, 21, 0)


def source(text):
    return yaml_source.from_text(text, "aikitfile.yaml")


LITERAL = """\
apiVersion: v1alpha1
config: |
  - name: "a"
    system_prompt: 'costs $HOME'
    note: plain

    path: C:\\temp
    said: \\"fine\\"
"""


def test_every_place_in_a_literal_block_with_its_line_and_column():
    parsed = source(LITERAL)
    found = buildkit.refused(Aikitfile(config=parsed["document"]["config"]), parsed, V21)
    rows = LITERAL.split("\n")
    assert [(finding.line, finding.message.split(":")[0]) for finding in found] == [
        (3, '" at line 3, character 11'),
        (3, '" at line 3, character 13'),
        (4, "$ at line 4, character 27"),
        (7, "\\t at line 7, character 13"),
    ]
    for finding in found:
        line, column = (int(word.rstrip(":").split()[-1]) for word in finding.message.split(" at ")[1].split(":")[0].replace("line ", "").split(", character "))
        assert rows[line - 1][column - 1] == finding.message[0]
    assert all(finding.level == "error" and finding.path == "config" and "builder direct" in finding.hint for finding in found)
    # The development branch writes it as it is, and so does what comes after it
    for release in (MAIN, (0, 22, 0)):
        assert buildkit.refused(Aikitfile(config=parsed["document"]["config"]), parsed, release) == ()


def test_build_arguments_replace_what_is_in_the_file():
    parsed = source("apiVersion: v1alpha1\nruntime: cuda\nmodels:\n  - name: a\n    source: a.gguf\nconfig: |\n  - name: a\n")
    assert buildkit.effective(parsed, {}) == parsed and buildkit.effective(parsed, {"other": "1"})["document"] == parsed["document"]
    changed = buildkit.effective(parsed, {"model": "huggingface://o/r/x.gguf", "runtime": "applesilicon"})
    assert changed["document"] == {
        "apiVersion": "v1alpha1",
        "runtime": "applesilicon",
        "models": [{"name": "x.gguf", "source": "huggingface://o/r/x.gguf"}],
    }
    assert changed["text"] == parsed["text"] and changed["config_document"] is None and parsed["document"]["runtime"] == "cuda"
    assert set(changed["lines"]) == {"", "apiVersion"} and "models[0].source" in parsed["lines"]
    assert buildkit.effective({"document": None}, {"model": "a"})["document"] is None
