# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who signs which images, and where the signatures are.

Sources: github.com/kaito-project/aikit, website/docs/security.md and .github/workflows (release.yaml, release-base.yaml,
patch-models.yaml, mirror-localai.yml); github.com/mudler/LocalAI, .github/workflows/backend_build.yml and backend_merge.yml. Read 2026-11.
"""

from __future__ import annotations

from dataclasses import dataclass

REVIEWED = "2026-11-25"

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
# Go's regular expressions, from the first character on
AIKIT_IDENTITY = r"^https://github\.com/(kaito-project|sozercan)/aikit/\.github/workflows/.+"


@dataclass(frozen=True)
class Signer:
    """``prefix`` is a repository, or what stands before the slash in those that are meant.

    ``signatures`` is the repository with the signatures where that is another; ``unsigned`` says why there are none to ask for.
    """

    prefix: str
    identity: str = ""
    issuer: str = GITHUB_ISSUER
    signatures: str = ""
    unsigned: str = ""


# The longest prefix counts
SIGNERS: tuple[Signer, ...] = (
    Signer("ghcr.io/kaito-project/aikit", AIKIT_IDENTITY),
    # Its workflow signs both bases under the name of one
    Signer("ghcr.io/kaito-project/aikit/applesilicon/base", AIKIT_IDENTITY, signatures="ghcr.io/kaito-project/aikit/base"),
    Signer("ghcr.io/kaito-project/aikit/localai", unsigned="AIKit does not sign its copy of LocalAI's program; it is taken by its digest"),
    Signer("ghcr.io/sozercan", AIKIT_IDENTITY),
    Signer(
        "quay.io/go-skynet/local-ai-backends",
        unsigned="LocalAI does not sign the backends of all releases that AIKit takes; they are taken by their digests",
    ),
)

# The oldest cosign that is known to do what is asked of it. Debian's builds do not say their version, so its options tell
OLDEST = "2.0"
NEEDED_OPTIONS = ("--certificate-identity-regexp", "--insecure-ignore-tlog")
# A cosign with this option (3) writes another form of signatures (bundles, as referrers) unless it is told not to; one without
# cannot read them. AIKit's workflows have signed with cosign 3 since late 2025
NEW_FORM_OPTION = "--use-signing-config"
