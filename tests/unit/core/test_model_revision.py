# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources of models at one of their revisions."""

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import model_revision

COMMIT = "a" * 40
DIGEST = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    "source, revision, expected",
    [
        ("huggingface://ns/repo", COMMIT, f"huggingface://ns/repo@{COMMIT}"),
        ("huggingface://ns/repo/m.gguf", COMMIT, f"huggingface://ns/repo@{COMMIT}/m.gguf"),
        ("huggingface://ns/repo/branch/m.gguf", COMMIT, f"huggingface://ns/repo@{COMMIT}/m.gguf"),
        ("huggingface://ns/repo@refs%2Fpr%2F1/q4/m.gguf", COMMIT, f"huggingface://ns/repo@{COMMIT}/q4/m.gguf"),
        ("oci://registry.example:5000/models/tiny:1", DIGEST, f"oci://registry.example:5000/models/tiny@{DIGEST}"),
        ("oci://registry.ollama.ai/library/llama3.2:1b", DIGEST, f"oci://registry.ollama.ai/library/llama3.2@{DIGEST}"),
        ("https://hub.example/ns/repo/resolve/main/q4/m.gguf", COMMIT, f"https://hub.example/ns/repo/resolve/{COMMIT}/q4/m.gguf"),
        ("https://models.example/m.gguf?download=true", COMMIT, "https://models.example/m.gguf?download=true"),
    ],
)
def test_a_source_at_a_revision(source, revision, expected):
    assert model_revision.source_at(source, revision) == expected
