# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Option status_file of the modules that work for long."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  status_file:
    description:
      - File on the host that the module runs on, which tells as JSON how far the work is. It is replaced a few times a second, and removed at the end.
      - By default a file of its own below C(~/.cache/aikit-fleet/progress). Work that is over in a moment makes none.
      - On a terminal the action plugin shows it; see C(docs/progress.md).
    type: path
"""
