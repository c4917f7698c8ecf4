# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model's source at one of its revisions, which stays what it is."""

from __future__ import annotations

import re

from . import hub, model_source, oci_model

_HUB_FILE = re.compile(r"(https://[^/]+/[^/]+/[^/]+/resolve/)[^/]+(/.*)")


def source_at(source: str, revision: str) -> str:
    """A source with a commit or a manifest in place of its branch or its tag."""
    parsed = model_source.parse(source)
    if parsed.kind == model_source.HUGGINGFACE:
        return hub.parse(parsed.location).at(revision).text
    if parsed.kind == model_source.OCI:
        return f"oci://{oci_model.parse(parsed.location).at(revision).text}"
    # A hub told the commit of an address of its own
    return _HUB_FILE.sub(rf"\g<1>{revision}\g<2>", source)
