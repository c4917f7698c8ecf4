# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry client against a registry that cuts, delays, lies, asks for logins and refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import registry as rules
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.oci import Descriptor
from ansible_collections.aikit.fleet.plugins.module_utils._io import registry as client
from ansible_collections.aikit.fleet.plugins.module_utils._io import registry_login, registry_push
from ansible_collections.aikit.fleet.plugins.module_utils._io.blob_store import BlobStore
from ansible_collections.aikit.fleet.plugins.module_utils._io.registry import Registry, RegistrySettings
from ansible_collections.aikit.fleet.tests.unit.fake_registry import LAYER, FakeRegistry, is_, once, sha256

BIG = bytes(range(256)) * 4096 * 5  # 5 MiB


@pytest.fixture(autouse=True)
def no_logins(tmp_path, monkeypatch):
    """The logins of whoever runs the tests are not theirs."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with FakeRegistry() as made:
        yield made


@pytest.fixture
def waits():
    return []


@pytest.fixture
def make(waits):
    made = []

    def build(**settings):
        made.append(Registry(RegistrySettings(**{"timeout_seconds": 5, **settings}), sleep=waits.append))
        return made[-1]

    yield build
    for registry in made:
        registry.close()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(rules, "MONOLITHIC_BYTES", 1000)
    monkeypatch.setattr(rules, "chunk_bytes", lambda minimum, default=1 << 20: max(1 << 20, int(minimum or 0)))


def descriptor(data):
    return Descriptor(LAYER, sha256(data), len(data))


def reader(data):
    return lambda start, length: iter([data[at : min(at + 65536, start + length)] for at in range(start, start + length, 65536)])


def push(registry, server, data=BIG, repository="a/b", **more):
    return registry_push.push_blob(registry, f"{server.host}/{repository}", sha256(data), len(data), reader(data), **more)


def logins(tmp_path, host, user="anna", password="s3cret"):
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}}))
    return str(path)


# --- reading


def test_a_manifest_by_tag_and_by_digest(server, make):
    image = server.put_image("a/b", "1", [b"layer"], {"Env": ["A=1"]})
    registry = make()
    found = registry.manifest(f"{server.host}/a/b:1", "linux/amd64")
    assert (found.digest, found.repository, found.index_digest) == (image["digest"], f"{server.host}/a/b", "")
    assert [layer.digest for layer in found.layers] == [sha256(b"layer")]
    assert registry.config(found)["config"] == {"Env": ["A=1"]}
    assert registry.manifest(f"{server.host}/a/b@{image['digest']}").raw == found.raw
    assert registry.digest_of(f"{server.host}/a/b:1") == image["digest"]
    assert registry.digest_of(f"{server.host}/a/b:2") == registry.digest_of(f"{server.host}/none:1") == ""


def test_an_index_is_followed_to_a_platform(server, make):
    images = {name: server.put_image("a/b", name.replace("/", "-"), [name.encode()], platform=name.split("/")) for name in ("linux/amd64", "linux/arm64")}
    index = server.put_index("a/b", "1", {"linux/amd64": images["linux/amd64"], "linux/arm64/v8": images["linux/arm64"]})
    registry = make()
    found = registry.manifest(f"{server.host}/a/b:1", "linux/arm64")
    assert (found.digest, found.index_digest) == (images["linux/arm64"]["digest"], index["digest"])
    assert registry.index(f"{server.host}/a/b:1")[1].platforms == ("linux/amd64", "linux/arm64")
    with pytest.raises(AikitError, match="has no image for linux/riscv64; it has: linux/amd64, linux/arm64"):
        registry.manifest(f"{server.host}/a/b:1", "linux/riscv64")
    with pytest.raises(AikitError, match="no platform was named"):
        registry.manifest(f"{server.host}/a/b:1")


def test_an_image_of_another_platform_is_refused(server, make):
    server.put_image("a/b", "1", [b"layer"], platform=("linux", "arm64"))
    with pytest.raises(AikitError, match="is an image for linux/arm64, and linux/amd64 is asked for"):
        make().manifest(f"{server.host}/a/b:1", "linux/amd64")


def test_a_manifest_that_is_another_one_is_refused(server, make, waits):
    image = server.put_image("a/b", "1", [b"layer"])
    media_type, raw = server.manifests["a/b"][image["digest"]]
    server.manifests["a/b"][image["digest"]] = (media_type, raw + b" ")
    with pytest.raises(AikitError, match=r"sent a manifest with digest sha256:[0-9a-f]+, which should be"):
        make().manifest(f"{server.host}/a/b@{image['digest']}")
    assert len(waits) == rules.MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "document, words",
    [
        (b"<html>", "no JSON, so it is no manifest"),
        (b"[]", "no JSON object"),
        (b'{"schemaVersion":1}', "schema 1"),
        (b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}', "config is no descriptor"),
        (b'{"schemaVersion":2,"mediaType":"application/x"}', "which is no image"),
    ],
)
def test_documents_that_are_no_manifests(server, make, document, words):
    server.put_manifest("a/b", "1", document)
    with pytest.raises(AikitError, match=words):
        make().manifest(f"{server.host}/a/b:1")


def test_a_blob_that_is_cut_goes_on_where_it_ended(server, make, waits, tmp_path):
    server.put_blob("a/b", BIG)

    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BIG)))
        handler.end_headers()
        handler.wfile.write(BIG[: 3 << 20])
        handler.wfile.flush()
        handler.close_connection = True

    server.faults.append(once(is_("GET", "/blobs/"), half))
    done = []
    make().fetch_blob(f"{server.host}/a/b", descriptor(BIG), str(tmp_path / "blob"), done.append)
    assert (tmp_path / "blob").read_bytes() == BIG and done[-1] == len(BIG) and len(waits) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("blob")] == ["blob"]
    assert len(server.seen("GET", "/blobs/")) == 2


def test_what_an_earlier_run_left_is_continued(server, make, tmp_path):
    server.put_blob("a/b", BIG)
    (tmp_path / "blob.part").write_bytes(BIG[: 2 << 20])
    ranges = []
    server.faults.append(lambda handler: ranges.append(handler.headers.get("Range")))
    make().fetch_blob(f"{server.host}/a/b", descriptor(BIG), str(tmp_path / "blob"))
    assert (tmp_path / "blob").read_bytes() == BIG and f"bytes={2 << 20}-" in ranges


@pytest.mark.parametrize("left", [b"x" * (2 << 20), BIG + b"x"], ids=["other bytes", "too long"])
def test_what_an_earlier_run_left_and_does_not_fit_is_fetched_anew(server, make, tmp_path, left):
    server.put_blob("a/b", BIG)
    (tmp_path / "blob.part").write_bytes(left)
    make().fetch_blob(f"{server.host}/a/b", descriptor(BIG), str(tmp_path / "blob"))
    assert (tmp_path / "blob").read_bytes() == BIG


def test_a_blob_with_other_bytes_is_not_stored(server, make, tmp_path):
    server.blobs["a/b"] = {sha256(BIG): BIG[:-1] + b"!"}
    with pytest.raises(AikitError, match="what came has digest sha256:.*Nothing was stored"):
        make().fetch_blob(f"{server.host}/a/b", descriptor(BIG), str(tmp_path / "blob"))
    assert not (tmp_path / "blob").exists() and not (tmp_path / "blob.part").exists()
    with pytest.raises(AikitError, match="what came has digest"):
        b"".join(make().open_blob(f"{server.host}/a/b", descriptor(BIG)))


def test_a_blob_that_is_longer_than_its_manifest_says(server, make):
    server.blobs["a/b"] = {sha256(b"short"): b"short and more"}
    with pytest.raises(AikitError, match="sends more than the 5 bytes"):
        b"".join(make().open_blob(f"{server.host}/a/b", descriptor(b"short")))


def test_a_blob_that_ends_too_early_every_time(server, make, waits):
    server.blobs["a/b"] = {sha256(b"short"): b"sho"}
    with pytest.raises(AikitError, match="the connection was cut after 3 of 5 bytes"):
        b"".join(make().open_blob(f"{server.host}/a/b", descriptor(b"short")))
    assert len(waits) == rules.MAX_ATTEMPTS - 1


def test_a_server_without_ranges_is_read_from_the_start(server, make):
    server.put_blob("a/b", BIG)

    def whole(handler):
        del handler.headers["Range"]
        handler.blob("a/b", sha256(BIG))

    def half(handler):
        handler.answer(200, BIG[: 2 << 20], {"Content-Length": str(len(BIG))})
        handler.cut()

    server.faults += [once(is_("GET", "/blobs/"), half), once(is_("GET", "/blobs/"), whole)]
    assert b"".join(make().open_blob(f"{server.host}/a/b", descriptor(BIG))) == BIG


def test_the_store_fetches_once(server, make, tmp_path):
    server.put_blob("a/b", BIG)
    store = BlobStore(str(tmp_path / "blobs"))
    registry = make()
    path = store.ensure(registry, f"{server.host}/a/b", descriptor(BIG))
    assert path == str(tmp_path / "blobs/sha256" / hashlib.sha256(BIG).hexdigest()) == store.ensure(registry, f"{server.host}/a/b", descriptor(BIG))
    assert len(server.seen("GET", "/blobs/")) == 1


def test_a_full_disk_is_told_before_anything_is_fetched(server, make, tmp_path, monkeypatch):
    server.put_blob("a/b", BIG)
    monkeypatch.setattr(client.files, "free_bytes", lambda path: 1000)
    with pytest.raises(AikitError, match="Not enough disk space for blob"):
        make().fetch_blob(f"{server.host}/a/b", descriptor(BIG), str(tmp_path / "blob"))
    assert not server.seen("GET", "/blobs/")


# --- busy, refusing, lying


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_registry_is_asked_again(server, make, waits, status):
    server.put_image("a/b", "1", [b"layer"])
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.refuse(status), 2))
    assert make().manifest(f"{server.host}/a/b:1")
    assert len(waits) == 2 and all(0.5 <= seconds <= 2 for seconds in waits)


def test_a_registry_that_says_when_is_asked_then(server, make, waits):
    server.put_image("a/b", "1", [b"layer"])
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.refuse(429, headers={"Retry-After": "17"})))
    make().manifest(f"{server.host}/a/b:1")
    assert 17 <= waits[0] <= 18


def test_a_registry_that_asks_for_an_hour_is_not_waited_for(server, make, waits):
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.refuse(429, "TOOMANYREQUESTS", "rate limit", {"Retry-After": "3600"})))
    with pytest.raises(AikitError, match=r"answered 429 \(TOOMANYREQUESTS: rate limit\).*1 attempt; it asks to wait 360"):
        make().manifest(f"{server.host}/a/b:1")
    assert not waits


def test_a_broken_registry_is_given_up(server, make, waits):
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.refuse(503, "UNAVAILABLE", "down\n\x1b[31m"), 99))
    with pytest.raises(AikitError) as caught:
        make().manifest(f"{server.host}/a/b:1")
    assert "answered 503 (UNAVAILABLE: down [31m). (5 attempts)" in str(caught.value) and len(waits) == 4


@pytest.mark.parametrize(
    "status, words",
    [
        (401, "Log in with docker login"),
        (403, "Log in with docker login"),
        (404, "Check name and tag"),
        (418, "See the registry's log"),
    ],
)
def test_refusals_say_what_to_do(server, make, waits, status, words):
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.refuse(status, "CODE", "why"), 99))
    with pytest.raises(AikitError, match=rf"answered {status} \(CODE: why\)") as caught:
        make().manifest(f"{server.host}/a/b:1")
    assert words in caught.value.hint and not waits


def test_an_unreachable_registry(make, waits):
    with pytest.raises(AikitError, match=r"127.0.0.1:1: 127.0.0.1:1 cannot be reached \(Connection refused\). \(5 attempts\)"):
        make().manifest("127.0.0.1:1/a/b:1")
    assert len(waits) == 4


def test_a_silent_registry(server, make, waits):
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: time.sleep(1.5) or handler.cut(), 99))
    with pytest.raises(AikitError, match="cannot be reached"):
        make(timeout_seconds=0.1).manifest(f"{server.host}/a/b:1")


def test_a_connection_that_was_closed_meanwhile_is_replaced(server, make, waits):
    server.put_image("a/b", "1", [b"layer"])
    registry = make()

    def close(handler):
        handler.close_connection = True
        handler.manifest("a/b", "1")

    server.faults.append(once(is_("GET", "/manifests/"), close))
    found = registry.manifest(f"{server.host}/a/b:1")
    time.sleep(0.1)
    assert registry.config(found) and not waits


# --- logins


def test_basic_authentication(make, tmp_path):
    with FakeRegistry("anna", "s3cret") as server:
        server.put_image("a/b", "1", [b"layer"])
        with pytest.raises(AikitError, match="answered 401"):
            make().manifest(f"{server.host}/a/b:1")
        with pytest.raises(AikitError, match="was not accepted") as caught:
            make(auth_file=logins(tmp_path, server.host, password="wrong")).manifest(f"{server.host}/a/b:1")
        assert "wrong" not in str(caught.value)
        assert make(auth_file=logins(tmp_path, server.host)).manifest(f"{server.host}/a/b:1")


def test_tokens_are_asked_for_once_a_scope(make, tmp_path):
    with FakeRegistry("anna", "s3cret", tokens=True) as server:
        server.put_image("a/b", "1", [b"layer"])
        registry = make(auth_file=logins(tmp_path, server.host))
        found = registry.manifest(f"{server.host}/a/b:1")
        registry.config(found)
        assert len(server.seen("GET", "/token")) == 1
        assert "scope=repository%3Aa%2Fb%3Apull" in server.seen("GET", "/token")[0][1] and "service=fake+registry" in server.seen("GET", "/token")[0][1]
        push(registry, server)
        assert len(server.seen("GET", "/token")) == 2 and "pull%2Cpush" in server.seen("GET", "/token")[1][1]


def test_anonymous_tokens(make):
    with FakeRegistry(tokens=True) as server:
        server.put_image("a/b", "1", [b"layer"])
        assert make().manifest(f"{server.host}/a/b:1")


def test_an_identity_token_stands_for_a_password(make, tmp_path):
    with FakeRegistry("anna", "refresh-me", tokens=True) as server:
        server.put_image("a/b", "1", [b"layer"])
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"auths": {server.host: {"identitytoken": "refresh-me"}}}))
        assert make(auth_file=str(path)).manifest(f"{server.host}/a/b:1")
        assert server.seen("POST", "/token")


def test_a_login_that_the_token_server_refuses(make, tmp_path):
    with FakeRegistry("anna", "s3cret", tokens=True) as server:
        with pytest.raises(AikitError, match="a token of http://.*answered 401.*incorrect username") as caught:
            make(auth_file=logins(tmp_path, server.host, password="wr0ng")).manifest(f"{server.host}/a/b:1")
        assert "wr0ng" not in str(caught.value) and "was not accepted" in caught.value.hint


def test_a_login_that_may_not_write(make, tmp_path):
    """The token is good, and for less than was asked for: docker-registry answers that with 401, too."""
    with FakeRegistry("anna", "s3cret", tokens=True) as server:

        def fault(handler):
            if "/blobs/" not in handler.path:
                return False
            challenge = f'Bearer realm="http://{server.host}/token",service="fake registry",scope="repository:a/b:pull,push",error="insufficient_scope"'
            handler.answer(401, b"", {"WWW-Authenticate": challenge})
            return True

        server.faults.append(fault)
        with pytest.raises(AikitError, match="answered 401") as caught:
            push(make(auth_file=logins(tmp_path, server.host)), server)
        assert caught.value.hint == "May this login write to the repository?"
    with FakeRegistry(tokens=True) as server:
        server.faults.append(fault)
        with pytest.raises(AikitError, match="answered 401") as caught:
            push(make(), server)
        assert caught.value.hint.startswith("Log in with docker login")


def test_a_token_that_expires_in_the_middle_of_an_upload(make, small_chunks):
    with FakeRegistry(tokens=True, min_chunk=1 << 20) as server:
        registry = make()

        def expire(handler):
            server.issued.clear()
            return False

        seen = []

        def fault(handler):
            if handler.command == "PATCH":
                seen.append(handler.path)
                if len(seen) == 3:
                    expire(handler)
            return False

        server.faults.append(fault)
        assert push(registry, server).how == "uploaded"
        assert server.blobs["a/b"][sha256(BIG)] == BIG
        assert len(server.seen("GET", "/token")) == 2


def test_a_login_stays_with_its_registry(make, tmp_path):
    """A redirect to another server, as to blob storage, takes no login along."""
    with FakeRegistry("anna", "s3cret") as server, FakeRegistry() as storage:
        image = server.put_image("a/b", "1", [b"layer"])
        headers = []
        storage.faults.append(lambda handler: headers.append(dict(handler.headers)) or handler.answer(200, b"layer") or True)
        server.faults.append(
            once(
                is_("GET", f"/blobs/{sha256(b'layer')}"), lambda handler: handler.answer(307, b"", {"Location": f"http://{storage.host}/bucket/x?signature=y"})
            )
        )
        registry = make(auth_file=logins(tmp_path, server.host))
        found = registry.manifest(f"{server.host}/a/b:1")
        assert found.digest == image["digest"]
        assert b"".join(registry.open_blob(found.repository, found.layers[0])) == b"layer"
        assert len(headers) == 1 and "Authorization" not in headers[0]


def test_endless_redirects(server, make):
    server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.answer(302, b"", {"Location": handler.path}), 99))
    with pytest.raises(AikitError, match="redirects more than"):
        make().manifest(f"{server.host}/a/b:1")


@pytest.mark.parametrize("place", ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "HOME"])
def test_where_logins_are_found(place, tmp_path, monkeypatch):
    text = json.dumps({"auths": {"registry.example": {"auth": base64.b64encode(b"anna:s3cret").decode()}}})
    path = {
        "REGISTRY_AUTH_FILE": tmp_path / "auth",
        "DOCKER_CONFIG": tmp_path / "docker/config.json",
        "XDG_RUNTIME_DIR": tmp_path / "run/containers/auth.json",
        "HOME": tmp_path / "home/.docker/config.json",
    }[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if place in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.setenv(place, str(path if place == "REGISTRY_AUTH_FILE" else path.parent))
    found = registry_login.find_credentials("registry.example", "a/b")
    assert (found.user, found.password) == ("anna", "s3cret") and "s3cret" not in repr(found)
    assert registry_login.find_credentials("other.example", "a/b") is None


def test_a_login_file_that_is_named_must_be_there(tmp_path):
    with pytest.raises(AikitError, match="registry_auth_file: there is no file"):
        registry_login.find_credentials("registry.example", "a/b", str(tmp_path / "none"))
    (tmp_path / "bad").write_text("[")
    with pytest.raises(AikitError, match="is no login file"):
        registry_login.find_credentials("registry.example", "a/b", str(tmp_path / "bad"))


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A credential helper that writes down its arguments and what it was told."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def write(script):
        program = folder / "docker-credential-test"
        program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\ncat >{tmp_path}/stdin\n{script}\n')
        program.chmod(0o755)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"credHelpers": {"registry.example": "test"}}))
        return str(path)

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return write


def test_a_credential_helper_is_told_the_host_on_stdin(helper, tmp_path):
    path = helper("""echo '{"ServerURL":"registry.example","Username":"anna","Secret":"s3cret"}'""")
    found = registry_login.find_credentials("registry.example", "a/b", path)
    assert (found.user, found.password) == ("anna", "s3cret")
    assert (tmp_path / "arguments").read_text() == "get\n" and (tmp_path / "stdin").read_text() == "registry.example\n"


@pytest.mark.parametrize(
    "script, words",
    [
        ("echo broken; exit 1", "failed: broken"),
        ("echo nonsense", "did not answer with a user and a secret"),
    ],
)
def test_a_credential_helper_that_fails(helper, script, words):
    with pytest.raises(AikitError, match=words):
        registry_login.find_credentials("registry.example", "a/b", helper(script))


def test_a_credential_helper_that_has_no_login(helper):
    assert registry_login.find_credentials("registry.example", "a/b", helper("echo credentials not found in native keychain; exit 1")) is None


def test_a_credential_helper_that_is_not_there(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credsStore": "nobody-has-this"}))
    with pytest.raises(AikitError, match="docker-credential-nobody-has-this, which is not on this machine"):
        registry_login.find_credentials("registry.example", "a/b", str(path))


# --- TLS, mirrors, proxies


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A CA, and a certificate of it for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test CA")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "cert.pem")
    return folder


def test_tls_with_a_private_ca(make, certificate, tmp_path):
    with FakeRegistry(certificate=(certificate / "cert.pem", certificate / "key.pem")) as server:
        server.put_image("a/b", "1", [b"layer"])
        with pytest.raises(AikitError, match="its certificate is not trusted") as caught:
            make().manifest(f"{server.host}/a/b:1")
        assert "registry_ca_file" in caught.value.hint
        assert make(ca_file=str(certificate / "ca.pem")).manifest(f"{server.host}/a/b:1")
        assert make(insecure=(server.host,)).manifest(f"{server.host}/a/b:1")
        with pytest.raises(AikitError, match="there is no file"):
            make(ca_file=str(tmp_path / "none")).manifest(f"{server.host}/a/b:1")


def test_the_certificates_of_engines_are_used(make, certificate, tmp_path, monkeypatch):
    with FakeRegistry(certificate=(certificate / "cert.pem", certificate / "key.pem")) as server:
        server.put_image("a/b", "1", [b"layer"])
        folder = tmp_path / "certs.d" / server.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes((certificate / "ca.pem").read_bytes())
        monkeypatch.setattr(client, "CERTIFICATE_FOLDERS", (str(tmp_path / "certs.d"),))
        assert make().manifest(f"{server.host}/a/b:1")


def test_an_encrypted_registry_does_not_send_us_to_an_open_one(make, certificate):
    with FakeRegistry(certificate=(certificate / "cert.pem", certificate / "key.pem")) as server:
        server.faults.append(once(is_("GET", "/manifests/"), lambda handler: handler.answer(307, b"", {"Location": "http://127.0.0.1:9/x"}), 9))
        with pytest.raises(AikitError, match="which is not encrypted"):
            make(ca_file=str(certificate / "ca.pem")).manifest(f"{server.host}/a/b:1")


def test_a_mirror_stands_for_a_registry(server, make):
    image = server.put_image("hub/library/a", "1", [b"layer"])
    registry = make(mirrors={"docker.io": f"{server.host}/hub", "ghcr.io/x": "127.0.0.1:1"})
    found = registry.manifest("a:1")
    assert (found.ref, found.repository, found.digest) == ("docker.io/library/a:1", f"{server.host}/hub/library/a", image["digest"])
    assert b"".join(registry.open_blob(found.repository, found.layers[0])) == b"layer"


def test_what_was_pushed_is_read_where_it_was_pushed(server, make):
    """A mirror that stands for the registry need not have it yet."""
    image = server.put_image("fleet/a", "1", [b"layer"])
    registry = make(mirrors={server.host: f"{server.host}/mirror"})
    name = f"{server.host}/fleet/a:1"
    assert registry.digest_of(name) == image["digest"] == registry.manifest(name, mirrors=False).digest
    assert registry.index(name, mirrors=False) is None
    with pytest.raises(AikitError):
        registry.index(name)


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(server, make, monkeypatch):
    server.put_image("a/b", "1", [b"layer"])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert make().manifest(f"{server.host}/a/b:1")
    monkeypatch.setenv("http_proxy", f"http://anna:s3cret@{server.host}")
    monkeypatch.setenv("no_proxy", "")
    seen = []

    def proxied(handler):
        if handler.path.startswith("http://"):
            seen.append((handler.path, handler.headers.get("Proxy-Authorization")))
            handler.path = handler.path.partition("registry.example")[2]
            handler.serve()
            return True
        return False

    server.faults.append(proxied)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert make(insecure=("registry.example",)).manifest("registry.example/a/b:1")
    assert seen[0] == ("http://registry.example/v2/", "Basic " + base64.b64encode(b"anna:s3cret").decode())


# --- writing


def test_small_and_large_blobs(server, make, small_chunks):
    registry = make()
    done = []
    assert push(registry, server, b"small", progress=done.append).how == "uploaded" and done[-1] == 5
    assert [verb for verb, path in server.seen(part="/uploads/")] == ["POST", "PUT"]
    server.requests.clear()
    pushed = push(registry, server, progress=done.append)
    assert (pushed.how, pushed.sent_bytes) == ("uploaded", len(BIG)) and done[-1] == len(BIG)
    assert [verb for verb, path in server.seen(part="/uploads/")] == ["POST", *["PATCH"] * 5, "PUT"]
    assert server.blobs["a/b"] == {sha256(b"small"): b"small", sha256(BIG): BIG}
    assert push(registry, server) == registry_push.Pushed("present")


def test_an_empty_blob(server, make):
    assert push(make(), server, b"").how == "uploaded" and server.blobs["a/b"] == {sha256(b""): b""}


def test_a_registry_that_wants_larger_chunks(make, small_chunks):
    with FakeRegistry(min_chunk=2 << 20) as server:
        push(make(), server)
        assert len(server.seen("PATCH")) == 3


def test_a_blob_is_taken_over_from_another_repository(server, make):
    server.put_blob("base/image", BIG)
    assert push(make(), server, mount_from=f"{server.host}/base/image") == registry_push.Pushed("mounted")
    assert server.received == 0 and server.blobs["a/b"][sha256(BIG)] == BIG
    assert push(make(), server, b"other", mount_from=f"{server.host}/base/image").how == "uploaded"


def test_a_mount_that_is_refused_is_an_upload(server, make):
    server.put_blob("base/image", BIG)
    server.faults.append(once(lambda handler: "mount=" in handler.path, lambda handler: handler.refuse(403)))
    assert push(make(), server, mount_from=f"{server.host}/base/image").how == "uploaded"


def test_an_upload_that_is_cut_goes_on(server, make, small_chunks, waits):
    def cut(handler):
        name = handler.route.rpartition("/")[2]
        server.uploads[name] += handler.body(700_000)
        handler.cut()

    server.faults.append(once(lambda handler: handler.command == "PATCH" and "state=1048576" in handler.path, cut))
    pushed = push(make(), server)
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("POST")) == 1 and len(waits) == 1
    # What had arrived was not sent again
    assert server.received == len(BIG) and pushed.sent_bytes < len(BIG) + (1 << 20)
    assert len([path for verb, path in server.seen("GET") if "/uploads/" in path]) == 1


def test_an_upload_that_the_registry_has_lost_begins_anew(server, make, small_chunks):
    def lose(handler):
        handler.body(700_000)
        server.uploads.clear()
        handler.cut()

    server.faults.append(once(lambda handler: handler.command == "PATCH" and "state=1048576" in handler.path, lose))
    assert push(make(), server).how == "uploaded"
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("POST")) == 2


def test_an_upload_that_is_lost_every_time_ends(server, make, small_chunks, waits):
    def lose(handler):
        handler.body(700_000)
        server.uploads.clear()
        handler.cut()

    server.faults.append(once(lambda handler: handler.command == "PATCH" and "state=1048576" in handler.path, lose, 99))
    with pytest.raises(AikitError, match=r"cannot be reached .*\(5 attempts\)"):
        push(make(), server)
    assert len(server.seen("POST")) == 5 and sha256(BIG) not in server.blobs.get("a/b", {})


def test_an_answer_that_is_lost_is_asked_for(server, make, small_chunks):
    """All bytes have arrived and the answer has not: the registry says so, and nothing is sent twice."""

    def take(handler):
        handler.upload("a/b", handler.route.rpartition("/")[2])
        handler.cut()

    server.faults.append(
        once(is_("PATCH", "state=2097152"), lambda handler: server.uploads[handler.route.rpartition("/")[2]].extend(handler.body()) or handler.cut())
    )
    server.faults.append(once(is_("PUT", "/uploads/"), take))
    assert push(make(), server).how == "uploaded"
    assert server.received == len(BIG) and server.blobs["a/b"][sha256(BIG)] == BIG


def test_bytes_that_are_damaged_on_the_way(server, make, small_chunks):
    server.faults.append(
        once(
            is_("PATCH", "state=0"),
            lambda handler: (
                server.uploads[handler.route.rpartition("/")[2]].extend(b"!" + handler.body()[1:]) or handler.answer(202, b"", {"Range": f"0-{(1 << 20) - 1}"})
            ),
        )
    )
    pushed = push(make(), server)
    assert server.blobs["a/b"][sha256(BIG)] == BIG and pushed.sent_bytes == 2 * len(BIG)


def test_a_file_that_changed_is_not_stored(server, make):
    with pytest.raises(AikitError, match="received other bytes than were sent"):
        registry_push.push_blob(make(), f"{server.host}/a/b", sha256(b"before"), 6, reader(b"after!"))
    assert server.blobs == {}


def test_a_registry_that_refuses_while_bytes_come(server, make, small_chunks):
    server.faults.append(once(is_("PATCH", "/uploads/"), lambda handler: handler.refuse(413, "TOOLARGE", "too large"), 9))
    server.faults.append(once(is_("PUT", "/uploads/"), lambda handler: handler.refuse(413, "TOOLARGE", "too large"), 9))
    with pytest.raises(AikitError, match=r"answered 413 \(TOOLARGE.*In chunks it did not go, either: .*answered 413") as caught:
        push(make(), server)
    assert "client_max_body_size" in caught.value.hint
    # The registry is told to forget what it has
    assert server.seen("DELETE", "/uploads/") and not server.uploads


def too_large(handler):
    """GitHub's registry, of a chunk above 4 MiB."""
    handler.refuse(416, "REQUESTED_RANGE_NOT_SATISFIABLE", "the request body is too large and exceeds the maximum permissible limit of 4.00MiB")


@pytest.mark.parametrize(
    "refuse",
    [too_large, *(lambda handler, status=status: handler.refuse(status, "UNSUPPORTED") for status in (400, 404, 405, 413, 501))],
    ids=["ghcr 416", "400", "404", "405", "413", "501"],
)
def test_a_registry_that_takes_no_chunks_gets_the_blob_whole(server, make, small_chunks, waits, refuse):
    server.faults.append(once(is_("PATCH", "/uploads/"), refuse, 99))
    registry = make()
    assert push(registry, server).how == "uploaded"
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("PATCH")) == 1 and not waits
    # The next blob is not tried in chunks
    other = BIG[::-1]
    assert push(registry, server, other) == registry_push.Pushed("uploaded", len(other))
    assert len(server.seen("PATCH")) == 1 and server.blobs["a/b"][sha256(other)] == other


def test_a_registry_that_takes_one_chunk_only_gets_the_blob_whole(server, make, small_chunks, waits):
    server.faults.append(once(lambda handler: handler.command == "PATCH" and "state=1048576" in handler.path, lambda handler: handler.refuse(404), 99))
    assert push(make(), server).how == "uploaded"
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("PATCH")) == 2 and not waits


def test_a_registry_whose_range_stays_at_the_first_chunk(server, make, small_chunks, waits):
    """As Amazon's: the bytes are there, but nothing tells how many."""

    def stay(handler):
        name = handler.route.rpartition("/")[2]
        server.uploads[name] += handler.body()
        handler.answer(202, b"", {"Location": f"/v2/a/b/blobs/uploads/{name}?state={len(server.uploads[name])}", "Range": "0-1048575"})

    server.faults.append(once(is_("PATCH", "/uploads/"), stay, 99))
    assert push(make(), server).how == "uploaded"
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("PATCH")) == 2 and not waits


def test_a_registry_that_is_known_to_take_no_chunks(server, make, small_chunks, monkeypatch):
    monkeypatch.setattr(rules.data_registry, "CHUNKLESS", (rules.data_registry.Chunkless(r"127\.0\.0\.1:[0-9]+", "x"),))
    assert push(make(), server) == registry_push.Pushed("uploaded", len(BIG))
    assert [verb for verb, path in server.seen(part="/uploads/")] == ["POST", "PUT"]


def test_a_chunk_that_is_refused_after_a_cut_is_no_reason_to_send_the_blob_whole(server, make, small_chunks):
    def second(handler):
        return handler.command == "PATCH" and "state=1048576" in handler.path

    server.faults.append(once(second, lambda handler: handler.cut()))
    server.faults.append(once(second, lambda handler: server.uploads.clear() or handler.refuse(404, "BLOB_UPLOAD_UNKNOWN")))
    assert push(make(), server).how == "uploaded"
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("PATCH")) == 2 + 1 + 5


@pytest.mark.parametrize("trouble", [lambda handler: handler.refuse(503), lambda handler: handler.cut()], ids=["503", "cut"])
def test_trouble_while_an_upload_is_asked_for_sends_nothing_again(server, make, small_chunks, waits, trouble):
    server.faults.append(once(lambda handler: handler.command == "PATCH" and "state=3145728" in handler.path, lambda handler: handler.cut()))
    server.faults.append(once(is_("GET", "/uploads/"), trouble, 2))
    push(make(), server)
    assert server.blobs["a/b"][sha256(BIG)] == BIG and server.received == len(BIG)
    assert len(server.seen("POST")) == 1 and len(waits) == 3


@pytest.mark.parametrize("status", [404, 405, 410, 416])
def test_an_upload_that_nobody_knows_how_far_it_is_begins_anew(server, make, small_chunks, status):
    server.faults.append(once(lambda handler: handler.command == "PATCH" and "state=1048576" in handler.path, lambda handler: handler.cut()))
    server.faults.append(once(is_("GET", "/uploads/"), lambda handler: handler.refuse(status)))
    push(make(), server)
    assert server.blobs["a/b"][sha256(BIG)] == BIG and len(server.seen("POST")) == 2


@pytest.mark.parametrize("trouble", [lambda handler: handler.refuse(504), lambda handler: handler.cut()], ids=["504", "cut"])
def test_a_last_request_without_an_answer_is_sent_again_alone(server, make, small_chunks, waits, trouble):
    server.faults.append(once(is_("PUT", "/uploads/"), trouble, 3))
    assert push(make(), server) == registry_push.Pushed("uploaded", len(BIG))
    assert server.received == len(BIG) and len(server.seen("POST")) == 1 and len(server.seen("PUT")) == 4


def late(server, seen=3):
    """A registry behind a proxy that gives up: the upload is gone, and the blob appears when it has been asked for some times."""

    def commit(handler):
        name = handler.route.rpartition("/")[2]
        server.late = bytes(server.uploads.pop(name)) + handler.body()
        handler.refuse(504)

    def asked(handler):
        if handler.command == "HEAD" and hasattr(server, "late"):
            server.asked = getattr(server, "asked", 0) + 1
            if server.asked == seen:
                server.put_blob("a/b", server.late)
        return False

    server.faults += [once(is_("PUT", "/uploads/"), commit), asked]


@pytest.mark.parametrize("whole", [False, True], ids=["chunks", "whole"])
def test_a_registry_that_hashes_longer_than_its_proxy_waits(server, make, small_chunks, waits, whole):
    late(server)
    registry = make()
    if whole:
        registry.chunkless.add(server.host)
    assert push(registry, server) == registry_push.Pushed("uploaded", len(BIG))
    assert server.received == len(BIG) and len(server.seen("POST")) == 1


def test_a_whole_blob_whose_answer_was_lost_is_not_sent_again(server, make, small_chunks):
    def keep(handler):
        server.uploads[handler.route.rpartition("/")[2]] += handler.body()
        handler.refuse(502)

    server.faults.append(once(is_("PUT", "/uploads/"), keep))
    registry = make()
    registry.chunkless.add(server.host)
    assert push(registry, server) == registry_push.Pushed("uploaded", len(BIG))
    assert [verb for verb, path in server.seen(part="/uploads/")] == ["POST", "PUT", "GET", "PUT"]


def test_a_registry_that_never_answers_the_last_request_keeps_the_upload(server, make, small_chunks, waits):
    server.faults.append(once(is_("PUT", "/uploads/"), lambda handler: handler.refuse(504), 99))
    with pytest.raises(AikitError, match=r"answered 504.*\(5 attempts\)"):
        push(make(), server)
    assert server.received == len(BIG) and not server.seen("DELETE") and server.uploads


def test_a_last_request_may_take_longer_than_others(server, make, small_chunks, waits):
    def think(handler):
        data = handler.body()
        time.sleep(1.5)
        server.put_blob("a/b", data)
        handler.answer(201)

    server.faults.append(once(is_("PUT", "/uploads/"), think))
    registry = make(timeout_seconds=1)
    registry.chunkless.add(server.host)
    push(registry, server)
    assert not waits and server.blobs["a/b"][sha256(BIG)] == BIG


@pytest.mark.parametrize("status, words", [(401, "Log in"), (403, "Log in"), (404, "repository to be made first"), (405, "read only")])
def test_a_push_that_is_refused(server, make, status, words):
    server.faults.append(once(is_("POST", "/uploads/"), lambda handler: handler.refuse(status), 9))
    with pytest.raises(AikitError, match=f"answered {status}") as caught:
        push(make(), server)
    assert words in caught.value.hint


def test_a_registry_that_stores_another_blob(server, make):
    server.faults.append(once(is_("PUT", "/uploads/"), lambda handler: handler.body() and handler.answer(201, b"", {"Docker-Content-Digest": sha256(b"x")})))
    with pytest.raises(AikitError, match="says that it stored"):
        push(make(), server, b"small")


def test_manifests_are_checked(server, make):
    registry = make()
    raw = b'{"schemaVersion":2,"layers":[]}'
    registry_push.put_manifest(registry, f"{server.host}/a/b", "1", raw, "application/vnd.oci.image.manifest.v1+json")
    assert server.manifests["a/b"]["1"][1] == raw
    server.faults.append(once(is_("PUT", "/manifests/"), lambda handler: handler.body() and handler.answer(201, b"", {"Docker-Content-Digest": sha256(b"x")})))
    with pytest.raises(AikitError, match="stored a manifest with digest"):
        registry_push.put_manifest(registry, f"{server.host}/a/b", "1", raw, "x/y")


def test_a_registry_that_tells_no_digest_is_asked(server, make):
    def silent(handler):
        server.put_manifest("a/b", "1", handler.body())
        handler.answer(201)

    server.faults.append(once(is_("PUT", "/manifests/"), silent))
    registry_push.put_manifest(make(), f"{server.host}/a/b", "1", b'{"layers":[]}', "application/vnd.oci.image.manifest.v1+json")
    assert server.seen("HEAD", "/manifests/1")


@pytest.mark.parametrize(
    "settings, words", [({"insecure": ("https://x/y",)}, "insecure"), ({"mirrors": {"a b": "c"}}, "mirrors"), ({"timeout_seconds": 0}, "timeout_seconds")]
)
def test_bad_settings(settings, words):
    with pytest.raises(AikitError, match=words):
        Registry(RegistrySettings(**settings))
