# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that no role's argument_specs.yml lists, because playbooks read them. Last changed 2026-11."""

from __future__ import annotations

# Read by the playbooks; a play-level keyword sees them only as extra vars or as vars of the play
PLAY_LEVEL = {
    "aikit_serial": "how many hosts at a time (serial of the rollout)",
    "aikit_max_fail_percentage": "how many hosts of a batch may fail before the rollout stops",
}

PLAYBOOK_VARIABLES = {
    **PLAY_LEVEL,
    "inference_cache_dir": "where the build host keeps models, bases and archives",
    "inference_project_dir": "what relative paths in inference_services start from",
    "inference_service_defaults": "merged under each service",
    "inference_services": "the services of a host",
    "inference_state_dir": "where a host keeps what runs and what ran before",
}

# Prefix that belongs to the collection although no role is named so
PLAYBOOK_PREFIXES = ("aikit_",)

# A role leaves what it found in variables of these names
RESULT_SUFFIXES = ("facts", "result", "results", "checks", "reboot_required")
