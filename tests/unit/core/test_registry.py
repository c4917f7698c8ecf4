# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry client decides: names, mirrors, logins, challenges, positions, waits."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import data_registry, reference, registry
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.registry import Challenge, Credentials, Login
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    "text, host, repository, tag, digest",
    [
        ("debian", "docker.io", "library/debian", "latest", ""),
        ("me/app:1", "docker.io", "me/app", "1", ""),
        ("docker.io/debian:sid", "docker.io", "library/debian", "sid", ""),
        ("index.docker.io/library/debian", "docker.io", "library/debian", "latest", ""),
        ("localhost/a", "localhost", "a", "latest", ""),
        ("registry.example:5000/a/b/c:x", "registry.example:5000", "a/b/c", "x", ""),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest", ""),
        (f"ghcr.io/o/a@{DIGEST}", "ghcr.io", "o/a", "", DIGEST),
        (f"ghcr.io/o/a:1@{DIGEST}", "ghcr.io", "o/a", "1", DIGEST),
    ],
)
def test_names(text, host, repository, tag, digest):
    found = registry.parse_name(text)
    assert (found.host, found.repository, found.tag, found.digest) == (host, repository, tag, digest)
    assert found.reference == (digest or tag)
    assert registry.parse_name(found.text) == found
    assert found.at(DIGEST).text == f"{host}/{repository}@{DIGEST}"


@pytest.mark.parametrize("text", ["", "A", "a b", "a@sha256:1", f"@{DIGEST}", "https://a/b", "a:", "../a", "a/../b"])
def test_names_that_are_none(text):
    with pytest.raises(AikitError, match="name: .* is no image reference"):
        registry.parse_name(text)


def test_hosts():
    assert registry.api_host("docker.io") == "registry-1.docker.io" and registry.api_host("ghcr.io") == "ghcr.io"
    assert [reference.is_loopback(host) for host in ("localhost", "127.0.0.1:5000", "[::1]:1", "127.example", "10.0.0.1")] == [True, True, True, False, False]
    assert registry.check_host("Registry.Example:5000", "x") == "registry.example:5000"
    for text in ("https://a", "a/b", "", "a:b"):
        with pytest.raises(AikitError, match="x: .* is no registry"):
            registry.check_host(text, "x")


def test_mirrors():
    mirrors = registry.check_mirrors({"docker.io": "mirror.example/hub/", "docker.io/me": "other:5000", "ghcr.io/a/b": "mirror.example/c"})
    assert registry.mirrored("docker.io/library/debian", mirrors) == "mirror.example/hub/library/debian"
    assert registry.mirrored("docker.io/me/x", mirrors) == "other:5000/x" and registry.mirrored("docker.io/meme/x", mirrors) == "mirror.example/hub/meme/x"
    assert registry.mirrored("ghcr.io/a/b", mirrors) == "mirror.example/c" and registry.mirrored("ghcr.io/a/bb", mirrors) == "ghcr.io/a/bb"
    with pytest.raises(AikitError, match="mirrors"):
        registry.check_mirrors({"docker.io": "mirror.example/UPPER"})


def auth(text):
    return base64.b64encode(text.encode()).decode()


LOGINS = {
    "auths": {
        "https://index.docker.io/v1/": {"auth": auth("hub:1")},
        "registry.example": {"auth": auth("all:p:w")},
        "registry.example/team/app": {"auth": auth("app:2")},
        "https://old.example/v1/": {"username": "old", "password": "3"},
        "token.example": {"identitytoken": "t", "auth": auth("x:y")},
        "empty.example": {},
        "store.example": {},
    },
    "credHelpers": {"helped.example": "ecr-login", "docker.io": ""},
}


@pytest.mark.parametrize(
    "host, repository, expected",
    [
        ("docker.io", "library/debian", Login(Credentials("hub", "1"))),
        ("registry.example", "team/other", Login(Credentials("all", "p:w"))),
        ("registry.example", "team/app", Login(Credentials("app", "2"))),
        ("registry.example", "team/app/sub", Login(Credentials("app", "2"))),
        ("registry.example:5000", "team/app", Login()),
        ("old.example", "a", Login(Credentials("old", "3"))),
        ("token.example", "a", Login(Credentials(identity_token="t"))),
        ("empty.example", "a", Login()),
        ("helped.example", "a", Login(helper="docker-credential-ecr-login", server="helped.example")),
        ("nobody.example", "a", Login()),
    ],
)
def test_logins(host, repository, expected):
    assert registry.find_login(LOGINS, host, repository, "file") == expected


def test_a_store_of_all_logins():
    stored = {**LOGINS, "credsStore": "pass"}
    assert registry.find_login(stored, "nobody.example", "a", "f") == Login(helper="docker-credential-pass", server="nobody.example")
    assert registry.find_login({"credsStore": "pass"}, "docker.io", "a", "f").server == "https://index.docker.io/v1/"
    assert registry.find_login(stored, "registry.example", "a", "f").credentials == Credentials("all", "p:w")
    with pytest.raises(AikitError, match="no name of a credential helper"):
        registry.find_login({"credsStore": "../x"}, "a", "b", "f")


@pytest.mark.parametrize("value", ["no base64!", auth("nocolon"), base64.b64encode(b"\xff:\xff").decode()])
def test_logins_that_are_none(value):
    with pytest.raises(AikitError, match=r"f: auths: a: auth is not the base64 of user:password") as caught:
        registry.find_login({"auths": {"a": {"auth": value}}}, "a", "b", "f")
    assert value not in str(caught.value)


def test_no_secret_is_printed():
    assert "s3cret" not in repr(Credentials("u", "s3cret", "s3cret")) + repr(registry.Token("s3cret", 1))


@pytest.mark.parametrize(
    "headers, expected",
    [
        (['Bearer realm="https://a/token",service="b",scope="repository:c:pull"'], Challenge("bearer", "https://a/token", "b", "repository:c:pull")),
        (
            ['Bearer realm="https://a/t?x=1,2" , service=b , error="insufficient_scope"'],
            Challenge("bearer", "https://a/t?x=1,2", "b", "", "insufficient_scope"),
        ),
        (['Basic realm="a \\"b\\", c"'], Challenge("basic", 'a "b", c')),
        (["Basic realm=x, Bearer realm=https://t"], Challenge("bearer", "https://t")),
        (["Negotiate abc==", "Basic realm=x"], Challenge("basic", "x")),
        (["Basic"], Challenge("basic")),
        (["Bearer service=x"], None),
        (["Negotiate"], None),
        (["", ",,,", '"'], None),
        ([], None),
    ],
)
def test_challenges(headers, expected):
    assert registry.parse_challenges(headers) == expected


@given(st.lists(st.text(alphabet='Basicer =",\\xBealm', max_size=40)))
def test_any_challenge_is_read(headers):
    registry.parse_challenges(headers)


def test_tokens():
    assert registry.parse_token(b'{"token": "a"}', "x") == registry.Token("a", 60)
    assert registry.parse_token(b'{"access_token": "a", "expires_in": 300}', "x") == registry.Token("a", 300)
    for raw in (b"", b"[]", b'{"token": ""}', b'{"token": "a b"}', b'{"token": 5}', b'{"token": "a\\r\\nX: y"}'):
        with pytest.raises(AikitError, match="x did not answer with a token"):
            registry.parse_token(raw, "x")


@pytest.mark.parametrize("text, expected", [("0-1023", 1024), ("bytes=0-9", 10), ("bytes 0-9", 10), ("0--1", 0), ("5-9", None), ("", None), ("x", None)])
def test_ranges(text, expected):
    assert registry.parse_range(text) == expected


def test_positions():
    assert [registry.upload_position(*pair) for pair in (("0-0", 0), ("0-0", 5), ("0-9", 0), ("", 0), ("", 5))] == [0, 0, 10, 0, -1]
    assert (
        registry.content_range("bytes 5-9/10") == (5, 10) and registry.content_range("bytes 5-9/*") == (5, None) and registry.content_range("x") == (None, None)
    )
    assert registry.chunk_bytes("", 10) == 10 and registry.chunk_bytes("20", 10) == 20 and registry.chunk_bytes("x", 10) == 10


@given(st.integers(1, 20), st.none() | st.floats(0, 5000), st.floats(0, 1))
def test_waits(failures, asked, chance):
    seconds = registry.wait_seconds(failures, asked, chance)
    if asked is None:
        assert 0.5 <= seconds <= registry.MAX_WAIT_SECONDS
    else:
        assert asked <= seconds <= asked + 1


def test_origins_and_redirects():
    assert registry.origin("https://A.example:443/x?y") == registry.origin("https://a.example") == ("https", "a.example")
    assert registry.origin("http://a:80/") == ("http", "a") != registry.origin("http://a:8080/")
    registry.check_redirect("http://a/", "https://b/", "x")
    with pytest.raises(AikitError, match="not encrypted"):
        registry.check_redirect("https://a/", "http://a/", "x")
    for target in ("ftp://a/", "nonsense", "https:///x"):
        with pytest.raises(AikitError, match="no address"):
            registry.check_redirect("http://a/", target, "x")
    with pytest.raises(AikitError) as caught:
        registry.check_redirect("https://a/", "http://u:s3cret@b/x?signature=s3cret", "x")
    assert "s3cret" not in str(caught.value)


def test_errors_of_a_registry():
    assert registry.error_text(b'{"errors":[{"code":"A","message":"b"},{"code":"C"}]}') == "A: b; C"
    assert registry.error_text(b'{"details":"x"}') == "x"
    assert registry.error_text(b"<html>") == registry.error_text(b"[1]") == ""
    assert len(registry.error_text(b'{"message":"' + b"x" * 5000 + b'"}')) == 400
    assert registry.refusal("a", "h", 404, b"", False, False).data == {"http_status": 404}


@pytest.mark.parametrize(
    "host, size, name",
    [
        ("ghcr.io", 10**10 + 1, "GitHub"),
        ("ghcr.io", 10**10, ""),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", 52_000 * 2**20 + 1, "Amazon ECR"),
        ("public.ecr.aws", 10_000 * 2**20 + 1, "Amazon ECR Public"),
        ("registry.example", 10**15, ""),
    ],
)
def test_limits(host, size, name):
    found = registry.layer_findings(host, [("small", 1), ("big", size)])
    assert bool(found) == bool(name) and all(name in finding.message and "big" in finding.message for finding in found)
    assert all(entry.source.endswith(".") and "Read 20" in entry.source for entry in (*data_registry.LIMITS, *data_registry.CHUNKLESS))


@pytest.mark.parametrize(
    "host, whole",
    [
        ("ghcr.io", True),
        ("containers.ghcr.io", True),
        ("europe-west4-docker.pkg.dev", True),
        ("eu.gcr.io", True),
        ("gcr.io", True),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", True),
        ("public.ecr.aws", True),
        ("docker.io", False),
        ("quay.io", False),
        ("ghcr.io.example", False),
        ("127.0.0.1:5000", False),
    ],
)
def test_registries_that_take_no_chunks(host, whole):
    assert registry.takes_no_chunks(host) == whole


def test_given_logins():
    entry = {"registry": "Registry.example:5000", "username": "u", "password": "p"}
    assert registry.given_logins([entry, {**entry, "registry": "index.docker.io"}]) == {
        "registry.example:5000": Credentials("u", "p"),
        "docker.io": Credentials("u", "p"),
    }
    for changes in ({"registry": "https://x"}, {"username": ""}, {"password": ""}):
        with pytest.raises(AikitError, match="registry_logins"):
            registry.given_logins([{**entry, **changes}])
