# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of registries: how large a layer may be, and who takes it only whole."""

from __future__ import annotations

from dataclasses import dataclass

REVIEWED = "2026-11-01"


@dataclass(frozen=True)
class Limit:
    """``host`` is a regular expression that the whole name of a registry matches."""

    host: str
    name: str
    layer_bytes: int
    source: str


LIMITS = (
    Limit(
        r"(?:[a-z0-9-]+\.)?ghcr\.io",
        "GitHub's container registry",
        10 * 10**9,
        "docs.github.com, Working with the Container registry: 10 GB size limit for each layer, 10 minutes for its upload. Read 2026-10.",
    ),
    Limit(
        r"[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|on\.aws)",
        "Amazon ECR",
        52_000 * 1024**2,
        "docs.aws.amazon.com, Amazon ECR service quotas: maximum layer size 52,000 MiB. Read 2026-10.",
    ),
    Limit(
        r"public\.ecr\.aws",
        "Amazon ECR Public",
        10_000 * 1024**2,
        "docs.aws.amazon.com, Amazon ECR Public service quotas: maximum layer size 10,000 MiB. Read 2026-10.",
    ),
)


@dataclass(frozen=True)
class Chunkless:
    """A registry that takes a blob in one request only. What is not listed shows it when it refuses the first chunk."""

    host: str
    source: str


CHUNKLESS = (
    Chunkless(
        r"(?:[a-z0-9-]+\.)?ghcr\.io",
        "oras-project/rust-oci-client on GitHub: a chunk above 4 MiB is answered with 416, 'exceeds the maximum permissible limit of 4.00MiB'. Read 2026-11.",
    ),
    Chunkless(
        r"(?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z0-9-]+\.)?gcr\.io)",
        "docs.cloud.google.com, Artifact Registry, Docker API: no chunked uploads, monolithic ones must be used. Read 2026-11.",
    ),
    Chunkless(
        r"(?:[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|on\.aws)|public\.ecr\.aws)",
        "aws/containers-roadmap on GitHub: the Range of an upload stays at its first chunk, so that nothing tells how far it is. Read 2026-11.",
    ),
)
