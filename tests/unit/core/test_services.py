# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import services
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from hypothesis import given
from hypothesis import strategies as st


def resolve_one(defaults=None, **service):
    found, findings = services.resolve([{"name": "llama", "image": "registry.example/llama:1", **service}], defaults)
    assert [finding.describe() for finding in findings if finding.level == "error"] == []
    return found[0]


def errors(raw, defaults=None):
    return [finding.describe() for finding in services.resolve(raw, defaults)[1] if finding.level == "error"]


def test_the_shortest_service_gets_every_default():
    found, findings = services.resolve([{"name": "llama", "src": "a.yaml"}])
    assert findings == ()
    assert services.complete(found[0], "").as_dict() == {
        "name": "llama",
        "state": "present",
        "src": "a.yaml",
        "image": "localhost/aikit/llama:latest",
        "gpus": [],
        "bind_address": "127.0.0.1",
        "port": 8080,
        "engine": "auto",
        "server": "localai",
        "base_variant": "",
        "aikit_version": "",
        "context": "",
        "settings": {},
        "expect": {"verdict": ["cpu"]},
        "environment": {},
        "memory": "",
        "cpus": 0.0,
        "timeout_seconds": 600,
        "built": True,
        "has_api_key": False,
        "default_verdict": True,
        "url": "http://127.0.0.1:8080",
    }


def test_defaults_are_merged_into_mappings_and_replaced_elsewhere():
    defaults = {"port": 9000, "gpus": ["all"], "settings": {"threads": 4, "batch": 512}, "environment": {"A": "1"}}
    found = resolve_one(defaults, gpus=[0], settings={"threads": 8}, environment={"B": 2})
    assert (found.port, found.gpus) == (9000, ("0",))
    assert found.settings == {"threads": 8, "batch": 512}
    assert found.environment == {"A": "1", "B": "2"}


def test_a_definition_is_never_merged():
    assert services.merge({"definition": {"a": 1}}, {"definition": {"b": 2}}) == {"definition": {"b": 2}}


def test_an_empty_value_takes_the_default_of_the_key():
    assert resolve_one({"port": 9000}, port=None).port == 8080


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("port", "8081", 8081),
        ("gpus", [], ()),
        ("gpus", ["all"], ("all",)),
        ("gpus", [0, "1", "GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a"], ("0", "1", "GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a")),
        ("gpus", ["MIG-c7384736-a75d-5afc-978f-d2f1294409fd"], ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd",)),
        ("bind_address", "::1", "::1"),
        ("image", "a/b", "a/b:latest"),
        ("image", "r.example:5000/a/b", "r.example:5000/a/b:latest"),
        ("image", "r.example/a@sha256:" + "0" * 64, "r.example/a@sha256:" + "0" * 64),
        ("memory", "16g", "16g"),
        ("aikit_version", "main", "main"),
        ("aikit_version", 0.21, "0.21"),
        ("cpus", 2, 2.0),
        ("cpus", "1.5", 1.5),
        ("expect", {"verdict": "software", "min_tokens_per_second": 5}, {"verdict": ["software"], "min_tokens_per_second": 5.0}),
        ("settings", {"gpu_layers": "auto", "context_size": "4096"}, {"gpu_layers": "auto", "context_size": 4096}),
        ("settings", {"flash_attention": True}, {"flash_attention": "on"}),
        ("settings", {"tensor_split": [3, 1.5]}, {"tensor_split": "3,1.5"}),
        ("settings", {"tensor_split": "3/1"}, {"tensor_split": "3,1"}),
        ("settings", {"no_kv_offloading": "yes"}, {"no_kv_offloading": True}),
    ],
)
def test_values_are_typed(key, value, expected):
    assert getattr(resolve_one(**{key: value}), key) == expected


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ({"prot": 1}, "inference_services[0].prot: is no key of a service (Did you mean port?)"),
        (
            {"name": "x"},
            "inference_services[0].name: 'x' cannot name a container (Use 2 to 63 letters, digits, dots, underscores and single "
            "hyphens, beginning with a letter or digit.)",
        ),
        ({"name": "a--previous"}, "inference_services[0].name: 'a--previous' cannot name a container"),
        ({"name": "-ab"}, "inference_services[0].name: '-ab' cannot name a container"),
        ({"name": 12}, "inference_services[0].name: must be a string, not a number (Quote it.)"),
        ({"name": "host"}, "inference_services[0].name: 'host' is the name of the folder in which a host keeps what is known of its driver"),
        ({"state": "presnt"}, "inference_services[0].state: 'presnt' is none of present, stopped, absent (Did you mean present?)"),
        ({"port": 0}, "inference_services[0].port: 0 is out of range (1 to 65535)"),
        ({"port": True}, "inference_services[0].port: must be a whole number, not True"),
        ({"port": "http"}, "inference_services[0].port: must be a whole number, not 'http'"),
        ({"gpus": "all"}, "inference_services[0].gpus: must be a list, not 'all' (Write [all]; [] means CPU.)"),
        ({"gpus": ["all", 0]}, "inference_services[0].gpus: names all and single GPUs (Keep all, or the single ones.)"),
        ({"gpus": ["0", 0]}, "inference_services[0].gpus[1]: 0 stands there twice"),
        ({"gpus": ["nvidia0"]}, "inference_services[0].gpus[0]: 'nvidia0' names no GPU"),
        ({"gpus": [True]}, "inference_services[0].gpus[0]: True names no GPU"),
        ({"bind_address": "localhost"}, "inference_services[0].bind_address: 'localhost' is no IP address (Use 127.0.0.1.)"),
        ({"image": "Llama:1"}, "inference_services[0].image: 'Llama:1' is no image reference"),
        ({"image": f"sha256:{'a' * 64}"}, f"inference_services[0].image: 'sha256:{'a' * 64}' is the id of an image, which no host can fetch"),
        ({"image": "b" * 64}, f"inference_services[0].image: '{'b' * 64}' is the id of an image, which no host can fetch (Name the image:"),
        ({"settings": {"gpu_layer": 1}}, "inference_services[0].settings.gpu_layer: is no setting (Did you mean gpu_layers?)"),
        (
            {"settings": {"gpu_layers": "some"}},
            "inference_services[0].settings.gpu_layers: must be a whole number or auto, all, not 'some'",
        ),
        ({"settings": {"cache_type_k": "q8"}}, "inference_services[0].settings.cache_type_k: 'q8' is none of f32, f16"),
        ({"settings": [1]}, "inference_services[0].settings: must be a mapping, not a list"),
        ({"expect": {"verdict": ["prooven"]}}, "inference_services[0].expect.verdict: 'prooven' is none of proven"),
        ({"expect": {"verdict": []}}, "inference_services[0].expect.verdict: must be a list of verdicts"),
        ({"expect": {"min_tokens_per_second": -1}}, "inference_services[0].expect.min_tokens_per_second: must be a number"),
        ({"environment": {"A": True}}, "inference_services[0].environment.A: must be a string or a number, not true/false (Quote it.)"),
        ({"environment": {"A-B": "1"}}, "inference_services[0].environment.A-B: is no name of an environment variable"),
        (
            {"environment": {"LLAMA_ARG_PORT": "1"}},
            "inference_services[0].environment.LLAMA_ARG_PORT: is set by the role (Instead, set port.)",
        ),
        ({"src": "a.yaml", "definition": {}}, "inference_services[0]: has src and definition"),
        (
            {"src": "a.yaml", "server": "localai", "base_variant": "cpu"},
            "inference_services[0].base_variant: is for server llama_cpp; an image with LocalAI has AIKit's own base (Take it out, or set server: llama_cpp.)",
        ),
        ({"aikit_version": "v"}, "inference_services[0].aikit_version: 'v' is no release of AIKit (Write one such as 0.21.0, or main.)"),
        ({"aikit_version": True}, "inference_services[0].aikit_version: must be a string, not true/false"),
        ({"src": "a.yaml", "image": "a@sha256:" + "0" * 64}, "inference_services[0].image: has a digest, but is built here"),
        ({"memory": "much"}, "inference_services[0].memory: 'much' is no amount of memory"),
    ],
)
def test_bad_values_are_named_with_their_place_and_the_way_out(service, message):
    found = errors([{"name": "llama", "image": "registry.example/llama:1", **service}])
    assert len(found) == 1
    assert found[0].startswith(message)


def test_everything_wrong_is_said_at_once():
    found = errors(
        [
            {"name": "llama", "port": "x", "settings": {"batch": "y", "treads": 1}, "environment": {"1A": "", "B": []}},
            {"image": "a:1"},
            "llama",
        ]
    )
    assert [line.partition(":")[0] for line in found] == [
        "inference_services[0].port",
        "inference_services[0].settings.batch",
        "inference_services[0].settings.treads",
        "inference_services[0].environment.1A",
        "inference_services[0].environment.B",
        "inference_services[0]",
        "inference_services[1].name",
        "inference_services[2]",
    ]


@pytest.mark.parametrize(
    ("raw", "defaults", "path"),
    [
        ({"name": "llama"}, None, "inference_services"),
        ("llama", None, "inference_services"),
        ([], ["x"], "inference_service_defaults"),
        ([], {"nmae": 1}, "inference_service_defaults.nmae"),
        ([], {"src": "a.yaml"}, "inference_service_defaults.src"),
    ],
)
def test_wrong_shapes(raw, defaults, path):
    assert [line.partition(":")[0] for line in errors(raw, defaults)] == [path]


def test_no_services_are_fine():
    assert services.resolve(None) == ((), ())


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("::", "127.0.0.1", True),
        ("::1", "0.0.0.0", False),
        ("::1", "127.0.0.1", False),
    ],
)
def test_two_services_on_one_port(one, other, clash):
    raw = [
        {"name": "aa", "image": "a:1", "bind_address": one, "api_key": "k"},
        {"name": "bb", "image": "b:1", "bind_address": other, "api_key": "k"},
    ]
    found = errors(raw)
    assert bool(found) is clash
    if clash:
        assert f"8080 on {other} is the port of aa (inference_services[0]) too" in found[0]


def test_a_stopped_service_holds_no_port():
    assert errors([{"name": "aa", "image": "a:1", "state": "stopped"}, {"name": "bb", "image": "b:1"}]) == []


def test_names_and_images_are_not_shared():
    raw = [
        {"name": "Llama", "src": "a.yaml", "port": 1},
        {"name": "llama", "src": "b.yaml", "port": 2},
        {"name": "x1", "src": "a.yaml", "image": "same:1", "port": 3},
        {"name": "x2", "src": "b.yaml", "image": "same:1", "port": 4},
        {"name": "x3", "src": "a.yaml", "image": "same:1", "port": 5},
    ]
    found = errors(raw)
    assert "inference_services[1].name: 'llama' is the name of inference_services[0] too" in found
    assert any(line.startswith("inference_services[3].image: same:1 is the image of x1") for line in found)
    assert not any("[4].image: same:1 is the image of x1" in line for line in found)


@pytest.mark.parametrize(
    ("address", "key", "warns"), [("0.0.0.0", None, True), ("0.0.0.0", "k", False), ("127.0.0.2", None, False), ("::1", None, False)]
)
def test_a_wide_bind_without_a_key_warns(address, key, warns):
    _found, findings = services.resolve([{"name": "llama", "image": "a:1", "bind_address": address, "api_key": key}])
    assert [finding.level for finding in findings] == (["warning"] if warns else [])


@pytest.mark.parametrize(
    ("service", "runtime", "gpus", "variant", "verdict"),
    [
        ({"src": "a"}, "", (), "", ["cpu"]),
        ({"src": "a"}, "cuda", ("all",), "", ["proven"]),
        ({"src": "a"}, "applesilicon", (), "", ["proven"]),
        ({"src": "a", "server": "llama_cpp"}, "", (), "cpu", ["cpu"]),
        ({"src": "a", "server": "llama_cpp"}, "cuda", ("all",), "cuda", ["proven"]),
        ({"src": "a", "server": "llama_cpp"}, "applesilicon", (), "vulkan", ["proven"]),
        ({"src": "a", "base_variant": "vulkan"}, "", (), "vulkan", ["cpu", "software"]),
        ({"src": "a", "gpus": []}, "cuda", (), "", ["cpu"]),
        ({"src": "a", "gpus": [1], "expect": {"verdict": ["partial", "proven"]}}, "cuda", ("1",), "", ["partial", "proven"]),
        ({"image": "a:1"}, "", (), "", ["cpu"]),
        ({"image": "a:1", "gpus": ["all"]}, "", ("all",), "", ["proven"]),
    ],
)
def test_completion(service, runtime, gpus, variant, verdict):
    found = services.resolve([{"name": "llama", **service}])[0][0]
    done = services.complete(found, runtime)
    assert (done.gpus, done.base_variant, done.expect["verdict"]) == (gpus, variant, verdict)


def test_which_server_is_built():
    """AIKit's own image, unless llama.cpp's server is named, or a base of it; a pre-made image says itself what it is."""
    servers = []
    for keys in ({"src": "a"}, {"src": "a", "server": "llama_cpp"}, {"src": "a", "base_variant": "cpu"}, {"src": "a", "server": "localai"}, {"image": "a:1"}):
        found = services.resolve([{"name": "llama", **keys}])[0][0]
        servers.append(services.complete(found, "").server)
    assert servers == ["localai", "llama_cpp", "llama_cpp", "localai", ""]


@pytest.mark.parametrize(
    ("service", "runtime", "told"),
    [
        ({"src": "a"}, "", []),
        ({"src": "a"}, "cuda", []),
        ({"src": "a", "gpus": ["all"]}, "", ["error inference_services[0].gpus"]),
        ({"src": "a", "base_variant": "cpu"}, "cuda", ["error inference_services[0].base_variant"]),
        ({"src": "a", "gpus": []}, "cuda", ["warning inference_services[0].gpus"]),
        ({"src": "a", "gpus": ["all"], "base_variant": "vulkan"}, "", []),
    ],
)
def test_conflicts_between_service_and_aikitfile(service, runtime, told):
    found = services.complete(services.resolve([{"name": "llama", **service}])[0][0], runtime)
    assert [f"{finding.level} {finding.path}" for finding in services.conflicts(found, runtime)] == told


def test_the_api_key_is_in_no_shown_form():
    found = resolve_one(api_key="correct-horse")
    assert "correct-horse" not in repr(found)
    assert "correct-horse" not in str(found.as_dict())
    assert found.as_dict()["has_api_key"] is True
    raw = [{"name": "llama", "image": "a:1", "api_key": "correct-horse"}, {"name": "other", "image": "a:1", "port": 1}]
    assert services.api_key(raw, "llama") == "correct-horse"
    assert services.api_key(raw, "other") == ""
    assert services.api_key(raw, "other", {"api_key": "shared"}) == "shared"


@pytest.mark.parametrize(
    ("address", "expected"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("::1", "http://[::1]:80"), ("192.0.2.1", "http://192.0.2.1:80")],
)
def test_url(address, expected):
    assert services.url(address, 80) == expected


@given(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,20}", fullmatch=True))
def test_the_default_image_of_any_name_is_a_reference(name):
    if errors([{"name": name, "image": "a:1"}]):
        return
    reference = services.default_image(name)
    assert errors([{"name": "ok", "image": reference}]) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_input_raises(value):
    services.resolve(value, value)
    services.resolve([{"name": "llama", "image": "a:1", **{key: value for key in ("settings", "gpus", "port", "expect", "environment")}}])


def plan(*found):
    return {
        "services": [
            {"state": "present", "built": True, "aikitfile_sha256": "1", "parsed": {"name": "a.yaml"}, **service} for service in found
        ]
    }


def test_images_to_build_names_each_image_once():
    plans = {
        "h2": plan({"name": "llama", "image": "r.example/b:1"}),
        "h1": plan({"name": "llama", "image": "r.example/b:1"}, {"name": "x", "image": "localhost/a:1"}),
        "h3": plan({"name": "gone", "image": "c:1", "state": "absent"}, {"name": "pre", "image": "d:1", "built": False}),
        "h4": None,
    }
    found = services.images_to_build(plans, "h1")
    assert [(image["image"], image["hosts"], image["archive_hosts"], image["archive"]) for image in found] == [
        ("localhost/a:1", ["h1"], [], False),
        ("r.example/b:1", ["h1", "h2"], ["h2"], True),
    ]
    assert found[0]["services"] == ["x on h1"]
    assert found[0]["parsed"] == {"name": "a.yaml"}
    assert [(image["builder"], image["archive_name"]) for image in found] == [("", ""), ("", "")]


def test_what_buildkit_builds_has_a_file_of_its_own():
    made = {"builder": "buildkit", "builder_reason": "why"}
    plans = {"h1": plan({"name": "a", "image": "a:1", **made}, {"name": "b", "image": "b:1", **made}, {"name": "c", "image": "c:1", "builder": "direct"})}
    one, other, direct = services.images_to_build(plans, "h1")
    assert one["archive_name"].startswith("buildkit-") and one["archive_name"].endswith(".tar") and one["archive_name"] != other["archive_name"]
    assert (one["builder_reason"], direct["archive_name"]) == ("why", "")


def test_one_name_for_two_contents_is_an_error():
    plans = {"h1": plan({"name": "aa", "image": "a:1"}), "h2": plan({"name": "bb", "image": "a:1", "aikitfile_sha256": "2"})}
    with pytest.raises(AikitError, match=r"a:1 is wanted with different contents \(aikitfile_sha256\) by aa on h1 and bb on h2"):
        services.images_to_build(plans, "localhost")


def serving(name, port, state="present", address="127.0.0.1"):
    return {"name": name, "port": port, "state": state, "bind_address": address}


def runs(name, *ports, address="127.0.0.1"):
    return {"Labels": {"io.aikit.fleet.service": name}, "Ports": [{"IP": address, "PrivatePort": 8080, "PublicPort": port} for port in ports]}


@pytest.mark.parametrize(
    "wanted, containers, order",
    [
        ([serving("a", 1), serving("b", 2)], [], "ab"),
        ([serving("a", 1), serving("b", 2)], [runs("a", 1), runs("b", 2)], "ab"),
        # What stops makes room
        ([serving("a", 1), serving("b", 1, "stopped")], [runs("b", 1)], "ba"),
        # a takes what b leaves, and b what c leaves
        ([serving("a", 2), serving("b", 3), serving("c", 4)], [runs("a", 1), runs("b", 2), runs("c", 3)], "cba"),
        ([serving("a", 2), serving("b", 3)], [runs("b", 2, address="0.0.0.0")], "ba"),
        # Another address is another port; what is not published, not labelled or not planned counts for nothing
        ([serving("a", 2), serving("b", 3)], [runs("b", 2, address="10.0.0.1")], "ab"),
        ([serving("a", 2), serving("b", 3)], [{"Labels": {"io.aikit.fleet.service": "b"}, "Ports": [{"PrivatePort": 2}]}], "ab"),
        ([serving("a", 2), serving("b", 3)], [{"Labels": None, "Ports": [{"PublicPort": 2}]}, runs("z", 2)], "ab"),
    ],
)
def test_who_makes_room_comes_first(wanted, containers, order):
    assert "".join(service["name"] for service in services.serving_order(wanted, containers)) == order


def test_ports_that_are_exchanged_take_two_deployments():
    wanted = [serving("d", 9), serving("a", 2), serving("b", 3), serving("c", 1)]
    with pytest.raises(AikitError) as told:
        services.serving_order(wanted, [runs("a", 1), runs("b", 2), runs("c", 3), runs("d", 9)])
    assert str(told.value) == (
        "a, b and c exchange their ports: each wants one that another still has (a wants 2, b wants 3, c wants 1). No service was touched."
        " Deploy twice: first with a free port for a, then with 2. So each is proven while the one before it can still come back."
    )


def test_a_rollback_makes_room_as_a_deployment_does():
    """a went from port 1 to 2, then b from 3 to 1: back goes b first."""
    releases = [{"name": name, "ports": [{"bind_address": "127.0.0.1", "port": port}]} for name, port in (("a", 1), ("b", 3))]
    order = services.rollback_order([serving("a", 2), serving("b", 1), serving("c", 9)], releases, [runs("a", 2), runs("b", 1), runs("c", 9)])
    assert [(entry["service"]["name"], entry["service"]["port"], entry["release"]["ports"][0]["port"]) for entry in order] == [("b", 1, 3), ("a", 2, 1)]


def computing(name, **more):
    return {"name": name, "state": "present", "gpus": [], "base_variant": "cpu", "cpus": 0.0, "settings": {}, **more}


@pytest.mark.parametrize(
    "other",
    [{"gpus": ["0"]}, {"state": "stopped"}, {"cpus": 4.0}, {"settings": {"threads": 4}}, {"base_variant": "vulkan"}],
)
def test_one_service_has_the_cpu_for_itself(other):
    assert services.crowded([computing("a"), computing("b", **other)]) == ()


def test_services_that_fight_for_the_cpu_are_named():
    (finding,) = services.crowded([computing("a"), computing("b"), computing("c"), computing("d", cpus=1.0)])
    assert finding.level == "warning" and finding.message.startswith("a, b and c compute on the CPU") and "cpus for each" in finding.hint
