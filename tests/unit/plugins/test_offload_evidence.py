# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter that judges a log: which kinds of input it takes."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.aikit.fleet.plugins.filter.offload_evidence import FilterModule
from ansible_collections.aikit.fleet.plugins.module_utils._core.offload import evidence

JUDGE = FilterModule().filters()["offload_evidence"]
LOG = "load_tensors: offloaded 33/33 layers to GPU\nload_tensors: CUDA0 model buffer size = 4403.49 MiB\n"


def test_text_lines_and_bytes_are_judged_alike():
    assert JUDGE(LOG) == JUDGE(LOG.splitlines()) == JUDGE(LOG.encode()) == evidence(LOG).as_dict()


@pytest.mark.parametrize("log", [None, 3, {"a": 1}, [1]])
def test_other_things_are_refused(log):
    with pytest.raises(AnsibleFilterError, match="wants the text of a log"):
        JUDGE(log)
