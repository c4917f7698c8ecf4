# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server's log proves about where its model runs. Documented in offload_evidence.yml."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ..module_utils._core.offload import evidence


def offload_evidence(log: Any) -> dict[str, Any]:
    """The verdict over a log, given as text or as a list of lines."""
    if isinstance(log, (list, tuple)) and all(isinstance(line, str) for line in log):
        log = "\n".join(log)
    if isinstance(log, bytes):
        log = log.decode("utf-8", "replace")
    if not isinstance(log, str):
        raise AnsibleFilterError(f"offload_evidence wants the text of a log or a list of its lines, not {type(log).__name__}.")
    return evidence(log).as_dict()


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"offload_evidence": offload_evidence}
