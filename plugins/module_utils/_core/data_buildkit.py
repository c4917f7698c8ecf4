# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AIKit's frontend is called, what it needs of Docker, buildx and BuildKit, and what their messages mean.

Sources, read 2026-11: github.com/kaito-project/aikit (.github/workflows/release.yaml and pre-release.yaml, pkg/build,
pkg/aikit2llb/inference; v0.1.0 to v0.21.0 and main at 6f814e9), github.com/docker/buildx (commands/build.go, build/build.go,
build/opt.go, driver/docker; v0.9.0 to v0.13.1), github.com/moby/buildkit (solver/pb/caps.go, exporter/oci/export.go,
frontend/gateway; v0.9.0 to v0.13.0), github.com/moby/moby (vendor.mod of each release; pull request 45153).
"""

from __future__ import annotations

from dataclasses import dataclass

from .data_aikit import Version

REVIEWED = "2026-11-25"

# From which release on the frontend lies where; its tag is the release's with v, and dev for the main branch
FRONTENDS: tuple[tuple[Version, str], ...] = (
    ((0, 1, 0), "ghcr.io/sozercan/aikit"),
    ((0, 18, 2), "ghcr.io/kaito-project/aikit/aikit"),
)
MAIN_TAG = "dev"
# A frontend of one of these names is AIKit's own, on whatever registry it lies
FRONTEND_NAMES = ("aikit/aikit", "sozercan/aikit")

# Build arguments that AIKit's frontend reads for an image that serves (pkg/build/args.go), and BuildKit's own
AIKIT_BUILD_ARGS = ("model", "runtime")
FINE_TUNE_BUILD_ARGS = ("nvidiaDriverVersion", "cdiDevice")
BUILDKIT_BUILD_ARGS = ("BUILDKIT_INLINE_CACHE", "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "SOURCE_DATE_EPOCH")
PROXY_BUILD_ARGS = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Floor:
    """The first version of a program that can do ``what``, and why that is needed."""

    program: str
    version: str
    what: str
    hint: str


_DOCKER = "Install a newer Docker (role aikit.fleet.container_engine with container_engine_source: docker)."
_BUILDX = "Install a newer buildx (Debian: docker-buildx; docker.com: docker-buildx-plugin)."
_BUILDKIT = "Name an instance with a newer BuildKit (buildx_builder), or a newer image for ours (buildkit_image)."

# Every build needs these
FLOORS: tuple[Floor, ...] = (
    # --provenance=false came with 0.10.0 (commands/build.go)
    Floor("buildx", "0.10.0", "to leave attestations out of an image", _BUILDX),
    # Merge and diff are in 0.10.0 (solver/pb/caps.go), annotations of an exported image in 0.11.0 (docs/annotations.md)
    Floor("BuildKit", "0.11.0", "to merge file systems, as AIKit's frontend does, and to annotate an image", _BUILDKIT),
)
# What only some builds need
FEATURES: dict[str, tuple[Floor, ...]] = {
    "outputs": (
        # "multiple outputs currently unsupported" before (build/build.go)
        Floor("buildx", "0.13.0", "for more than one output of one build", _BUILDX),
        Floor("BuildKit", "0.13.0", "for more than one output of one build", _BUILDKIT),
    ),
    # Docker's own BuildKit merges file systems with the containerd image store alone, which came with 24.0
    "containerd store": (Floor("Docker", "24.0.0", "for the containerd image store", _DOCKER),),
}
# The BuildKit that Docker holds: Debian's does not tell its version (v0.0.0+unknown)
DOCKER_BUILDKIT: tuple[tuple[str, str], ...] = (
    ("18.09", "0.4.0"),
    ("19.03", "0.6.0"),
    ("20.10", "0.8.0"),
    ("23.0", "0.10.0"),
    ("24.0", "0.11.0"),
    ("25.0", "0.12.0"),
    ("26.0", "0.13.0"),
    ("27.0", "0.14.0"),
    ("28.0", "0.20.0"),
)

# The instance that is made where Docker itself cannot build: kept, and used again
INSTANCE = "aikit-fleet"

# What stands in an error, and what to do about it. The first that fits counts.
HINTS: tuple[tuple[str, str], ...] = (
    (
        r"mergeop\s+has been disabled|unknown API capability (mergeop|diffop)|(mergeop|diffop)\s+is not supported",
        "Docker's graph drivers cannot merge file systems: turn the containerd image store on (features: containerd-snapshotter in daemon.json),"
        " or leave buildx_builder out, so that an instance of its own builds.",
    ),
    (r"no space left on device", "Free some space where BuildKit keeps its cache (docker buildx du; docker buildx prune)."),
    (r"exec format error", "A step for another architecture needs its emulator: install qemu-user-binfmt (or qemu-user-static) on the build host."),
    (r"no match for platform", "The frontend, or an image that it builds from, does not exist for that platform: take it out of platforms."),
    (r"failed to calculate checksum of ref .* not found", "A source without a scheme is looked for in context: check its path there."),
    (
        r"(failed to push|pushing).*(denied|unauthorized|authentication required)",
        "Log in to the registry on the build host (docker login) as the user of the task.",
    ),
    (
        r"denied|unauthorized|authentication required|403 Forbidden|401 Unauthorized",
        "Log in to the registry on the build host (docker login) as the user of the task.",
    ),
    (r"server gave HTTP response to HTTPS client", "The registry speaks plain HTTP: name it in buildkitd_config (http = true), or give it a certificate."),
    (r"x509: ", "The registry's certificate is not trusted: put its CA into /etc/docker/certs.d/HOST/ca.crt, or into buildkitd_config."),
    (
        r"no such host|connection refused|i/o timeout|network is unreachable|Temporary failure in name resolution",
        "BuildKit cannot reach that host: check the network and the proxy of the build host, or name a mirror of the frontend with frontend.",
    ),
    (
        r"failed to resolve source metadata.*not found|manifest unknown",
        "There is no such image: check the name and the tag of the frontend and of what it builds from.",
    ),
    (r"ResourceExhausted|signal: killed|exit code: 137", "The step was killed, which mostly means that memory ran out."),
    (r"unsupported URL scheme", "AIKit takes https, http, huggingface and oci sources, and paths inside the context."),
)


# Options of the direct builder, and why BuildKit has no use for them
DIRECT_OPTIONS: dict[str, str] = {
    "base": "AIKit's frontend chooses the base itself",
    "localai": "AIKit's frontend takes the parts of its own release",
    "archive_omit": "BuildKit writes whole archives",
    "token": "AIKit's frontend downloads models without a login; put the file into context instead",
    "tokens": "AIKit's frontend downloads models without a login; put the files into context instead",
}
