# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a build with BuildKit no result and no log may show."""

from __future__ import annotations

import os

from ansible.module_utils.basic import AnsibleModule

from ._core.buildkit import SECRET_MAX_BYTES, is_secret, masks


def hide_build_secrets(module: AnsibleModule) -> None:
    """Keep build arguments that look like secrets out of the result, and let the names in option ``secrets`` be read.

    Ansible hides every text of an option that is no_log, also names of variables and files, which messages need.
    """
    secrets = (module.params["secrets"] or {}).values()
    texts = [(key, value) for entry in secrets if isinstance(entry, dict) for key, value in entry.items() if isinstance(value, str)]
    hidden = masks(_secret_value(key, value) for key, value in texts)
    for name, value in (module.params["build_args"] or {}).items():
        if is_secret(str(name), str(value), hidden):
            module.no_log_values.add(str(value))
    names = {value for key, value in texts if key in ("env", "file")}
    module.no_log_values -= names - {value for key, value in texts if key not in ("env", "file")}


def _secret_value(key: str, value: str) -> str:
    """What an entry of ``secrets`` stands for; the builder says what is wrong with one that stands for nothing."""
    if key == "env":
        return os.environ.get(value, "")
    if key == "file":
        try:
            with open(os.path.expanduser(value), encoding="utf-8", errors="replace") as handle:
                return handle.read(SECRET_MAX_BYTES)
        except OSError:
            return ""
    return value
