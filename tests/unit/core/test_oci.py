# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests and indexes: read, chosen from, refused."""

from __future__ import annotations

import json

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import oci
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.oci import Descriptor
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    "comment",
    [None, 5, "", "buildkit.dockerfile.v0", 'x io.aikit.fleet:{"a":"b"}', "io.aikit.fleet:", "io.aikit.fleet:[1]", "io.aikit.fleet:" + "[" * 5000],
)
def test_comments_of_others_say_nothing(comment):
    assert oci.facts_in(comment) == oci.config_facts({"comment": comment, "history": [{"comment": comment}]}) == {}


@given(st.dictionaries(st.text(), st.text()))
def test_a_comment_says_what_was_written(facts):
    assert oci.facts_in(oci.comment_of(facts)) == facts


def test_where_a_config_keeps_it():
    comment = oci.comment_of({"a": "b"})
    for config in ({"comment": comment}, {"history": [{}, {"comment": comment}]}, {"comment": "x", "history": [{"comment": comment}]}):
        assert oci.config_facts(config) == {"a": "b"}
    # Somebody built on top of it
    assert [oci.config_facts(config) for config in ({}, {"history": "x"}, {"history": [3]}, {"history": [{"comment": comment}, {}]})] == [{}, {}, {}, {}]


def index(*platforms):
    return oci.Index(
        oci.MEDIA_INDEX, {}, tuple(Descriptor(oci.MEDIA_MANIFEST, f"sha256:{number:064d}", 1, {}, platform) for number, platform in enumerate(platforms)), {}
    )


@pytest.mark.parametrize(
    "have, wanted, number",
    [
        (("linux/amd64", "linux/arm64"), "linux/arm64", 1),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", 1),
        (("linux/arm/v7", "linux/arm/v6"), "linux/arm", 1),
        (("linux/arm64",), "linux/arm64/v8", 0),
        (("linux/amd64/v3", "linux/amd64"), "linux/amd64", 1),
        (("linux/amd64",), "linux/x86_64", 0),
        (("unknown/unknown", "linux/amd64"), "", 1),
        (("linux/s390x",), "", 0),
    ],
)
def test_a_platform_is_chosen(have, wanted, number):
    assert oci.choose_platform(index(*have), wanted).digest == f"sha256:{number:064d}"


@pytest.mark.parametrize(
    "have, wanted",
    [(("linux/amd64",), "linux/arm64"), (("linux/amd64", "linux/arm64"), ""), (("linux/arm/v6",), "linux/arm/v7"), ((), "linux/amd64"), ((), "")],
)
def test_no_platform_is_guessed(have, wanted):
    with pytest.raises(AikitError, match="has no image for|no platform was named"):
        oci.choose_platform(index(*have), wanted)


@pytest.mark.parametrize("text", ["linux", "linux/", "a/b/c/d", "linux/amd64 ", "Linux/AMD64"])
def test_platforms(text):
    if text.strip().count("/") == 1 and not text.endswith("/"):
        assert oci.normalise_platform(text) == "linux/amd64"
    else:
        with pytest.raises(AikitError, match="is no platform"):
            oci.normalise_platform(text)


def test_a_manifest():
    document = {
        "schemaVersion": 2,
        "config": {"digest": DIGEST, "size": 3, "mediaType": oci.DOCKER_CONFIG},
        "layers": [{"digest": DIGEST, "size": 5, "mediaType": "x", "annotations": {"a": "b", "c": 1}}],
        "annotations": {"k": "v"},
    }
    found = oci.parse_manifest(json.dumps(document).encode(), oci.DOCKER_MANIFEST)
    assert (found.media_type, found.config.size, found.annotations) == (oci.DOCKER_MANIFEST, 3, {"k": "v"})
    assert found.layers == (Descriptor("x", DIGEST, 5, {"a": "b"}),)
    assert found.layers[0].as_dict() == {"mediaType": "x", "digest": DIGEST, "size": 5, "annotations": {"a": "b"}}


@pytest.mark.parametrize(
    "descriptor, words",
    [
        (None, "no descriptor"),
        ({"size": 1}, "is no SHA-256 digest"),
        ({"digest": "sha512:" + "1" * 128, "size": 1}, "is no SHA-256 digest"),
        ({"digest": "sha256:" + "../" * 20, "size": 1}, "is no SHA-256 digest"),
        ({"digest": DIGEST, "size": -1}, "is no size"),
        ({"digest": DIGEST, "size": True}, "is no size"),
        ({"digest": DIGEST, "size": "1"}, "is no size"),
        ({"digest": DIGEST, "size": 1, "mediaType": 5}, "mediaType"),
    ],
)
def test_bad_descriptors(descriptor, words):
    with pytest.raises(AikitError, match=words):
        oci.parse_descriptor(descriptor, "config")


def test_an_index_is_no_manifest_and_back():
    raw = json.dumps(
        {"schemaVersion": 2, "manifests": [{"digest": DIGEST, "size": 1, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}]}
    ).encode()
    assert oci.is_index(json.loads(raw), "") and oci.parse_index(raw).platforms == ("linux/arm64",)
    with pytest.raises(AikitError, match="Name a platform"):
        oci.parse_manifest(raw)
    with pytest.raises(AikitError, match="manifests: is no list"):
        oci.parse_index(b"{}")
    assert not oci.is_index({"mediaType": oci.MEDIA_MANIFEST, "manifests": []}, oci.MEDIA_INDEX)


def test_diff_ids_and_types():
    layers = [Descriptor("x", DIGEST, 1)]
    assert oci.diff_ids({"rootfs": {"diff_ids": [DIGEST]}}, layers, "x") == (DIGEST,)
    for config, words in (({}, "no list of digests"), ({"rootfs": {"diff_ids": []}}, "lists 0 layers"), ({"rootfs": {"diff_ids": ["x"]}}, "no list")):
        with pytest.raises(AikitError, match=words):
            oci.diff_ids(config, layers, "x")
    assert oci.layer_media_type("application/vnd.docker.image.rootfs.diff.tar.gzip", "x") == f"{oci.MEDIA_LAYER}+gzip"
    with pytest.raises(AikitError, match="no type of a layer"):
        oci.layer_media_type("application/json", "x")


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform", "os", "annotations"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_what_comes_from_a_registry_is_read_or_refused(raw):
    for parse in (oci.parse_manifest, oci.parse_index):
        try:
            parse(raw)
        except AikitError as exc:
            assert exc.message and exc.hint
