# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources of model files: parsing, what is shown of them, and the plan."""

from __future__ import annotations

import hashlib
import subprocess
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.aikit.fleet.plugins.module_utils._core import model_source as sources
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

DIGEST = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


@pytest.mark.parametrize(
    ("text", "kind", "location", "file_name"),
    [
        ("https://example.com/a/m.gguf", "https", "https://example.com/a/m.gguf", "m.gguf"),
        ("HTTPS://example.com/m.gguf?download=true#top", "https", "https://example.com/m.gguf?download=true", "m.gguf"),
        ("http://example.com:8080/m%20x.gguf", "http", "http://example.com:8080/m%20x.gguf", "m x.gguf"),
        ("https://example.com/mödel.gguf", "https", "https://example.com/m%C3%B6del.gguf", "mödel.gguf"),
        ("https://example.com", "https", "https://example.com/", ""),
        ("/srv/m.gguf", "local", "/srv/m.gguf", "m.gguf"),
        (" models/m.gguf ", "local", "models/m.gguf", "m.gguf"),
        ("file:///srv/m%20x.gguf", "local", "/srv/m x.gguf", "m x.gguf"),
        ("file://localhost/srv/m.gguf", "local", "/srv/m.gguf", "m.gguf"),
        ("huggingface://owner/name/m.gguf", "huggingface", "huggingface://owner/name/m.gguf", "m.gguf"),
        ("oci://registry.example:5000/m:1", "oci", "oci://registry.example:5000/m:1", "m"),
        ("oci://registry.ollama.ai/library/llama3.2:1b", "oci", "oci://registry.ollama.ai/library/llama3.2:1b", "llama3.2"),
        ("huggingface://owner/name@v1/a/m.gguf", "huggingface", "huggingface://owner/name@v1/a/m.gguf", "m.gguf"),
        ("huggingface://owner/name", "huggingface", "huggingface://owner/name", ""),
    ],
)
def test_parse(text: str, kind: str, location: str, file_name: str) -> None:
    source = sources.parse(text)
    assert (source.kind, source.location, source.file_name) == (kind, location, file_name)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("/srv/models/", "no path of a file"),
        ("file:///srv/", "no path of a file"),
        ("file://other/srv/m.gguf", "no file URL of this host"),
        ("file://m.gguf", "no file URL of this host"),
        ("ftp://example.com/m.gguf", "unknown scheme ftp://"),
        ("hf://owner/name/m.gguf", "Did you mean huggingface://owner/name/m.gguf?"),
        ("https:///m.gguf", "no valid URL"),
        ("huggingface://owner", "names no repository"),
        ("huggingface://owner/name/a/b/m.gguf", "huggingface://owner/name@main/a/b/m.gguf"),
        ("huggingface://owner/name?token=hunter22", "token=***"),
        ("oci://me:hunter22@registry.example/m:1", "has a login"),
        ("https://example.com:70000/m.gguf", "no valid URL"),
        ("https://good.example\\@example.com/m.gguf", "no valid URL"),
        ("https://example.com:x/m.gguf", "no valid URL"),
        ("https://[::1/m.gguf", "no valid URL"),
        ("https://example.com/a b.gguf", "%20 for a space"),
        ("https://example.com/a\nb.gguf", "no valid URL"),
    ],
)
def test_bad_sources(text: str, part: str) -> None:
    with pytest.raises(AikitError) as caught:
        sources.parse(text)
    assert part in str(caught.value) and caught.value.hint


def test_nothing_secret_is_shown() -> None:
    url = "https://user:hunter22@example.com/m.gguf?X-Signature=abcdef123&download=true#frag"
    source = sources.parse(url)
    assert source.shown == "https://example.com/m.gguf?X-Signature=***&download=***"
    assert sources.secrets(url) == {"hunter22", "abcdef123"}
    for bad in ("ftp://user:hunter22@example.com/m", "https://user:hunter22@exam ple.com/m", "https://user:hunter22@[::1/m"):
        with pytest.raises(AikitError) as caught:
            sources.parse(bad)
        assert "hunter22" not in str(caught.value)


def test_the_key_is_the_same_for_every_user_and_not_for_every_query() -> None:
    plain = sources.parse("https://example.com/m.gguf").key
    assert sources.parse("https://me:pw@EXAMPLE.com/m.gguf").key == plain
    assert sources.parse("https://example.com/m.gguf?rev=2").key != plain
    assert sources.parse("http://example.com/m.gguf").key != plain
    assert sources.parse("/srv/m.gguf").key != sources.parse("/srv/n.gguf").key


def test_sha256() -> None:
    assert sources.parse_sha256(None) == sources.parse_sha256(" ") == ""
    assert sources.parse_sha256(DIGEST.upper()) == sources.parse_sha256(f"sha256:{DIGEST}\n") == DIGEST
    for bad, part in ((DIGEST[:-1], "63 characters"), ("x" * 64, "no hexadecimal digits"), ("sha512:" + DIGEST, "71 characters")):
        with pytest.raises(AikitError, match=part):
            sources.parse_sha256(bad)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", ".hidden", "x" * 201])
def test_bad_file_names(name: str) -> None:
    with pytest.raises(AikitError) as caught:
        sources.check_file_name(name, "`name`")
    assert "`name`" in str(caught.value)


def test_findings() -> None:
    http = sources.parse("http://example.com/m.gguf")
    https = sources.parse("https://example.com/m.gguf")
    assert [finding.path for finding in sources.findings(http, "", "t")] == ["source", "token"]
    assert sources.findings(http, DIGEST, None) == sources.findings(https, "", "t") == ()


def test_plans() -> None:
    source = sources.parse("https://example.com/m.gguf")
    stored = sources.StoredFile(f"/s/sha256/{DIGEST}/m.gguf", DIGEST, 5)
    same = sources.plan_present(source, "m.gguf", DIGEST, sources.Observed(stored=stored), None)
    assert not same.changed and same.before == same.after == {"path": stored.path, "sha256": DIGEST, "size_bytes": 5}
    link = sources.plan_present(source, "n.gguf", DIGEST, sources.Observed(twin=stored), None)
    assert [action.describe() for action in link.actions] == [f"link /s/sha256/{DIGEST}/n.gguf (to {stored.path})"]
    fetch = sources.plan_present(source, "m.gguf", "", sources.Observed(), 7)
    assert [action.describe() for action in fetch.actions] == ["download https://example.com/m.gguf (7 bytes, as m.gguf)"]
    unknown = sources.plan_present(source, "m.gguf", DIGEST, sources.Observed(), None)
    assert "size not known" in unknown.actions[0].describe() and unknown.after["sha256"] == DIGEST
    mend = sources.plan_present(sources.parse("/srv/m.gguf"), "m.gguf", DIGEST, sources.Observed(damaged=stored.path), 7)
    assert [action.verb for action in mend.actions] == ["replace", "copy"]
    assert not sources.plan_absent(()).changed
    assert sources.plan_absent(("/s/a",)).actions[0].describe() == "remove /s/a"


@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://", "file://", "oci://", "https://u:hunter22@"]))
def test_any_text_is_a_source_or_an_error_for_people(text: str, start: str) -> None:
    try:
        source = sources.parse(start + text)
    except AikitError:
        return
    assert source.key
    assert source.kind == "local" or "hunter22@" not in source.shown


@given(st.text(max_size=30), st.text("abc/%20é?&=#:@", max_size=30))
def test_urls_are_split_as_urllib_does(host: str, rest: str) -> None:
    """The request is made by urllib: the two must agree on who is asked for what."""
    try:
        source = sources.parse(f"https://{host}/{rest}")
    except AikitError:
        return
    theirs = urlsplit(source.location)
    ours = sources.split_url(source.location)
    assert (theirs.netloc.rpartition("@")[2], theirs.path, theirs.query) == (ours.host, ours.path, ours.query)
    assert source.file_name == unquote(theirs.path.rpartition("/")[2])


def test_a_bare_query_may_be_a_key() -> None:
    assert sources.redact("https://example.com/m?abcdef") == "https://example.com/m?***"


@given(st.text(max_size=80))
def test_redact_takes_anything(text: str) -> None:
    sources.redact(text)
    sources.secrets(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://Models.example.com/m.gguf", "models.example.com"),
        ("https://models.example.com:443/m.gguf", "models.example.com"),
        ("http://models.example.com:80/m.gguf", "models.example.com"),
        ("http://models.example.com:443/m.gguf", "models.example.com:443"),
        ("https://models.example.com:8443/m.gguf", "models.example.com:8443"),
        ("https://[::1]:8443/m.gguf", "[::1]:8443"),
        ("https://models.example.com:/m.gguf", "models.example.com"),
        ("models/m.gguf", ""),
        ("huggingface://o/r/m.gguf", "huggingface.co"),
        ("oci://registry.example/m:1", ""),
    ],
)
def test_host_of(text: str, host: str) -> None:
    assert sources.host_of(text) == host


def test_the_token_of_a_hub_goes_to_that_hub() -> None:
    source = "huggingface://o/r/m.gguf"
    assert sources.host_of(source, "https://mirror.example:8443/hub") == "mirror.example:8443"
    tokens = {"mirror.example:8443": "a", "huggingface.co": "b"}
    assert sources.tokens_by_source([source], None, tokens, "https://mirror.example:8443/hub") == {source: "a"}
    assert sources.tokens_by_source([source, "oci://r.example/m:1"], None, tokens) == {source: "b", "oci://r.example/m:1": None}


def test_the_digest_of_several_files_is_that_of_what_sha256sum_prints(tmp_path: Any) -> None:
    for name, data in (("b.txt", b"2"), ("sub/a.txt", b"1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    command = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()[0]
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("sub/a.txt", "b.txt")}
    assert sources.set_sha256(digests) == printed


def test_what_must_have_a_digest() -> None:
    with pytest.raises(AikitError, match="No sha256 is given for https://example.com/m.gguf") as caught:
        sources.require_pin(sources.parse("https://example.com/m.gguf"), "")
    assert "require_sha256" in caught.value.hint
    sources.require_pin(sources.parse("https://example.com/m.gguf"), DIGEST)
    for text in ("/srv/m.gguf", "huggingface://o/r/m.gguf", "oci://r.example/m:1"):
        sources.require_pin(sources.parse(text), "")


ONE, TWO, OTHER = "https://one.example/m.gguf", "https://one.example:443/n.gguf", "https://two.example:8443/m.gguf"


def test_a_token_is_for_one_host() -> None:
    assert sources.tokens_by_source([ONE, TWO, "local.gguf"], "secret", {}) == {ONE: "secret", TWO: "secret", "local.gguf": None}
    with pytest.raises(AikitError) as caught:
        sources.tokens_by_source([ONE, OTHER], "secret", {})
    assert "one.example, two.example:8443" in str(caught.value) and "option tokens" in caught.value.hint and "secret" not in str(caught.value)


def test_tokens_by_host() -> None:
    assert sources.tokens_by_source([ONE, OTHER, "l.gguf"], None, {"ONE.example": "a", "two.example": "b", "three.example": "c"}) == {
        ONE: "a",
        OTHER: None,
        "l.gguf": None,
    }
    assert sources.tokens_by_source([OTHER], None, {"two.example:8443": "b"}) == {OTHER: "b"}
    assert sources.tokens_by_source([ONE, OTHER], None, {}) == {ONE: None, OTHER: None}
    with pytest.raises(AikitError, match="is no host"):
        sources.tokens_by_source([ONE], None, {"https://one.example": "a"})


def test_names_of_secrets() -> None:
    assert sources.secret_names("https://h/m?x=1&token=SUPERSECRET&sig=short&X-Amz-Signature=deadbeef") == ("token", "X-Amz-Signature")
    assert sources.secret_names("https://h/m?download=true") == ()
