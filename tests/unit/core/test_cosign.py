# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose signature is asked for, cosign's exact words, and what its answers become. The answers are those of cosign 2.5.0 and 3.1.1."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import cosign, data_cosign
from ansible_collections.aikit.fleet.plugins.module_utils._core.cosign import Connection, Demand, Policy
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

DIGEST = "sha256:" + "1" * 64
AIKIT = "ghcr.io/kaito-project/aikit"
KEYLESS = Demand(f"{AIKIT}/base", identity=data_cosign.AIKIT_IDENTITY, issuer=data_cosign.GITHUB_ISSUER)
KEYED = Demand("r.example/base", key="/k.pub", ignore_tlog=True)


def same(repository):
    return repository


def mirror(repository):
    return repository.replace("ghcr.io/", "r.example/ghcr/")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, Policy()),
        ({"mode": "auto", "key": None, "ignore_tlog": False, "identity": None, "issuer": None, "mirrors": False}, Policy()),
        ({"mode": "key", "key": "/k.pub", "ignore_tlog": True}, Policy("key", key="/k.pub", ignore_tlog=True)),
        ({"identity": "^https://a/", "issuer": "https://b"}, Policy(identity="^https://a/", issuer="https://b")),
    ],
)
def test_policies(given, wanted):
    assert cosign.parse_policy(given) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "key"}, "verify.key: mode key needs a public key"),
        ({"key": "/k.pub"}, "verify.key: mode is auto, and key is for mode key"),
        ({"mode": "none", "mirrors": True}, "verify.mirrors: mode is none"),
        ({"mode": "auto", "ignore_tlog": True}, "verify.ignore_tlog: mode is auto"),
        ({"issuer": "https://b"}, "verify.issuer: there is no identity"),
        ({"identity": "https://github.com/a"}, "fits anywhere in a name"),
    ],
)
def test_policies_that_are_none(given, words):
    with pytest.raises(AikitError, match=re.escape(words)):
        cosign.parse_policy(given)


@pytest.mark.parametrize(
    ("policy", "repository", "source_of", "wanted"),
    [
        (Policy(), f"{AIKIT}/base", same, KEYLESS),
        (Policy(), f"{AIKIT}/aikit", same, Demand(f"{AIKIT}/aikit", identity=data_cosign.AIKIT_IDENTITY, issuer=data_cosign.GITHUB_ISSUER)),
        (Policy(), "ghcr.io/sozercan/llama3", same, Demand("ghcr.io/sozercan/llama3", identity=data_cosign.AIKIT_IDENTITY, issuer=data_cosign.GITHUB_ISSUER)),
        (
            Policy(),
            f"{AIKIT}/applesilicon/base",
            same,
            Demand(f"{AIKIT}/applesilicon/base", identity=data_cosign.AIKIT_IDENTITY, issuer=data_cosign.GITHUB_ISSUER, signatures=f"{AIKIT}/base"),
        ),
        (
            Policy(mirrors=True),
            f"{AIKIT}/base",
            mirror,
            Demand("r.example/ghcr/kaito-project/aikit/base", identity=data_cosign.AIKIT_IDENTITY, issuer=data_cosign.GITHUB_ISSUER),
        ),
        (Policy(identity="^https://a/", issuer="https://b"), f"{AIKIT}/base", same, Demand(f"{AIKIT}/base", identity="^https://a/", issuer="https://b")),
        (Policy("key", key="/k.pub"), "quay.io/any/thing", same, Demand("quay.io/any/thing", key="/k.pub")),
        (Policy("key", key="/k.pub"), f"{AIKIT}/base", mirror, Demand("r.example/ghcr/kaito-project/aikit/base", key="/k.pub")),
        (Policy(), f"{AIKIT}/base", mirror, "a mirror that the user named"),
        (Policy(), f"{AIKIT}/localai", same, "does not sign its copy of LocalAI's program"),
        (Policy(), "quay.io/go-skynet/local-ai-backends", same, "LocalAI does not sign the backends of all releases"),
        (Policy(), "ghcr.io/kaito-project/aikit-evil/base", same, "nobody is known to sign ghcr.io/kaito-project/aikit-evil/base"),
        (Policy(), "docker.io/library/ubuntu", same, "nobody is known to sign docker.io/library/ubuntu"),
        (Policy("none"), f"{AIKIT}/base", same, "verify.mode is none"),
    ],
)
def test_whose_signature_is_asked_for(policy, repository, source_of, wanted):
    found = cosign.demand(policy, repository, source_of)
    assert wanted in found if isinstance(wanted, str) else found == wanted


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("https://github.com/kaito-project/aikit/.github/workflows/release-base.yaml@refs/heads/main", True),
        ("https://github.com/sozercan/aikit/.github/workflows/release.yaml@refs/tags/v0.9.0", True),
        ("https://github.com/evil/x/https://github.com/kaito-project/aikit/.github/workflows/release.yaml", False),
        ("https://github.com/kaito-project/aikit-evil/.github/workflows/release.yaml", False),
        ("https://githubXcom/kaito-project/aikit/.github/workflows/release.yaml", False),
    ],
)
def test_the_identity_fits_aikit_alone(name, fits):
    assert bool(re.search(data_cosign.AIKIT_IDENTITY, name)) == fits


@pytest.mark.parametrize(
    ("wanted", "connection", "argv", "environment"),
    [
        (
            KEYLESS,
            Connection(),
            [
                "cosign", "verify", "--output=json", "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
                r"--certificate-identity-regexp=^https://github\.com/(kaito-project|sozercan)/aikit/\.github/workflows/.+",
                f"ghcr.io/kaito-project/aikit/base@{DIGEST}",
            ],
            {},
        ),
        (
            KEYED,
            Connection("/ca.pem", True),
            [
                "cosign", "verify", "--output=json", "--key=/k.pub", "--insecure-ignore-tlog=true", "--registry-cacert=/ca.pem",
                "--allow-insecure-registry=true", "--allow-http-registry=true", f"r.example/base@{DIGEST}",
            ],
            {},
        ),
        (
            Demand("r.example/a", key="hashivault://k", signatures="r.example/b"),
            Connection(),
            ["cosign", "verify", "--output=json", "--key=hashivault://k", f"r.example/a@{DIGEST}"],
            {"COSIGN_REPOSITORY": "r.example/b"},
        ),
    ],
)  # fmt: skip
def test_the_words_of_verify(wanted, connection, argv, environment):
    assert cosign.verify_command(wanted, DIGEST, connection) == (argv, environment)


def test_the_words_of_sign():
    ref = f"r.example/a@{DIGEST}"
    assert cosign.sign_command("/f.key", ref, False, False, Connection()) == ["cosign", "sign", "--key=/f.key", "--yes", "--tlog-upload=false", ref]
    assert cosign.sign_command("/f.key", ref, True, True, Connection("/ca.pem")) == [
        "cosign", "sign", "--key=/f.key", "--yes", "--tlog-upload=true", "--use-signing-config=false", "--new-bundle-format=false",
        "--registry-cacert=/ca.pem", ref,
    ]  # fmt: skip
    assert cosign.public_key_command("/f.key") == ["cosign", "public-key", "--key=/f.key"]


def test_versions_are_known_by_their_options():
    new = "--certificate-identity-regexp='': --insecure-ignore-tlog=false:"
    assert cosign.check_features(new, "--tlog-upload=true:") is False
    assert cosign.check_features(new, "--use-signing-config=true:") is True
    with pytest.raises(AikitError, match=r"older than 2\.0: cosign verify has no --certificate-identity-regexp, --insecure-ignore-tlog"):
        cosign.check_features("--key='':", "")


NO_HOST = "dial tcp: lookup tuf-repo-cdn.sigstore.dev on 192.0.2.53:53: no such host"
REFUSALS = [
    (KEYED, 10, "WARNING: Skipping\nError: no signatures found\nerror during command execution: no signatures found\n", True, "is not signed", "cosign copy"),
    (KEYLESS, 10, "Error: no signatures found\n", False, "is not signed", "does not see the signatures that cosign 3 writes"),
    (KEYED, 12, "Error: no matching signatures: invalid signature when validating ASN.1 encoded signature\n", True, "has no signature by key /k.pub", "check"),
    (
        KEYED,
        1,
        "Error: no matching attestations: failed to verify signature: accepted signatures do not match threshold, Found: 0, Expected 1\n",
        True,
        "has no signature by key /k.pub",
        "check the key",
    ),
    (
        KEYLESS,
        12,
        "Error: no matching signatures: none of the expected identities matched what was in the certificate, got subjects [evil@example.com] with issuer x\n",
        True,
        "is signed by evil@example.com, and not by ^https",
        "verify.identity",
    ),
    (
        KEYLESS,
        1,
        'Error: no matching attestations: failed to verify certificate identity: no matching CertificateIdentity found, last error: '
        'expected SAN value to match regex "^https", got "https://github.com/evil/x"\n',
        True,
        "is signed by https://github.com/evil/x, and not by ^https",
        "verify.identity",
    ),
    (KEYLESS, 1, f'Error: getting Rekor public keys: tuf: failed to download: Get "https://x": {NO_HOST}\n', True, "cannot be reached", "mode: key"),
    (KEYED, 1, "Error: loading public key: open none.pub: no such file or directory\n", True, "the key cannot be read", "path of a key"),
    (KEYED, 1, "Error: GET https://r.example/token: UNAUTHORIZED: authentication required\n", True, "the registry refuses", "docker login"),
    (KEYED, 127, "", True, "cosign is not on the build host", "apt install cosign"),
    (KEYED, 124, "no answer within 240 seconds", True, "cosign failed (124): no answer within 240 seconds", "by hand"),
    (KEYED, 1, "Error: a surprise\n", True, "cosign failed (1): a surprise", "by hand"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "status", "text", "bundles", "message", "hint"), REFUSALS)
def test_refusals_say_what_to_do(wanted, status, text, bundles, message, hint):
    found = cosign.refusal(wanted, DIGEST, status, text, bundles)
    assert message in found.message and hint in found.hint and f"@{DIGEST}" in found.message
    assert ("cosign 3" in found.hint) == (not bundles)


def test_a_wrong_password():
    found = cosign.trouble("sign_key: x@y", 1, f'Error: signing: rekor: Post "https://rekor.sigstore.dev": {NO_HOST}\n', signing=True)
    assert "sign_tlog" in found.hint and "verify" not in found.hint
    found = cosign.trouble("sign_key: /f.key", 1, "Error: decrypt: encrypted: decryption failed\n")
    assert "does not open the key" in found.message and "sign_password" in found.hint


@pytest.mark.parametrize(
    ("status", "text", "wanted"),
    [
        (10, "", True), (12, "", True), (1, "Error: no signatures found", True), (1, "Error: no matching attestations: x", True),
        (1, f"Error: {NO_HOST}", False), (124, "no answer", False),
    ],
)  # fmt: skip
def test_what_counts_as_unsigned(status, text, wanted):
    assert cosign.is_unsigned(status, text) == wanted


def test_who_signed():
    told = json.dumps([{"optional": {"Subject": "https://a"}}, {"optional": {"Subject": "https://a"}}, {"optional": None}])
    assert cosign.signed_by(told, KEYLESS) == "https://a" and cosign.signed_by(told, KEYED) == "key /k.pub"
    assert cosign.signed_by("no JSON", KEYLESS) == KEYLESS.by and cosign.signed_by('[{"optional": {}}]', KEYLESS) == KEYLESS.by


def test_a_record_is_of_one_question():
    base = cosign.record_key(KEYED, DIGEST, "a")
    others = [cosign.record_key(KEYED, DIGEST, "b"), cosign.record_key(KEYED, DIGEST[:-1] + "2", "a"), cosign.record_key(KEYLESS, DIGEST, "a")]
    others.append(cosign.record_key(Demand("r.example/base", key="/k.pub"), DIGEST, "a"))
    assert len({base, *others}) == 5 and base == cosign.record_key(KEYED, DIGEST, "a")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/k", "", False, False), "the image is not pushed"),
        ((None, "x", False, True), "sign_password: there is no sign_key"),
        ((None, None, True, True), "sign_tlog: there is no sign_key"),
    ],
)
def test_options_of_signing_that_do_not_fit(arguments, words):
    with pytest.raises(AikitError, match=re.escape(words)):
        cosign.check_sign(*arguments)
    cosign.check_sign("/k", "x", True, True)
    cosign.check_sign(None, None, False, False)
