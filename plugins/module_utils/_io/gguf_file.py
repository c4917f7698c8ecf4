# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the headers of GGUF files on this machine."""

from __future__ import annotations

import os
import re

from .._core import gguf
from .._core.errors import AikitError
from .._core.fit_shape import ModelShape

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf\Z")


def read_shape(path: str) -> ModelShape:
    """The shape of a model. Of a split one, any part stands for all, which lie beside it."""
    path = os.path.expanduser(path)
    return ModelShape.from_header([read_header(part) for part in parts(path)])


def parts(path: str) -> list[str]:
    match = _PART.match(path)
    if not match:
        return [path]
    count = int(match.group(3))
    return [f"{match.group(1)}-{number:05d}-of-{match.group(3)}.gguf" for number in range(1, count + 1)]


def read_header(path: str) -> gguf.GgufHeader:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as exc:
        raise AikitError(
            f"{path} could not be opened: {exc.strerror}.", "Give the path of a GGUF file on the machine that plans, and all parts of a split one."
        ) from exc
    try:
        return gguf.check(lambda offset, length: os.pread(descriptor, length, offset), os.fstat(descriptor).st_size, path)
    finally:
        os.close(descriptor)
