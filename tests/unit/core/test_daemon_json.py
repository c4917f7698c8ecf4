# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import daemon_json
from ansible_collections.aikit.fleet.plugins.module_utils._core.daemon_json import Process
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

PATH = "/etc/docker/daemon.json"

USERS = """{
    "log-driver": "local",
    "features": {"containerd-snapshotter": true},
    "x-of-a-newer-docker": [1, 2.50, "é"],
    "registry-mirrors": ["https://a.example"]
}
"""


def plan(text, settings=None, absent=()):
    return daemon_json.plan(text, PATH, settings or {}, absent)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ('{\n  "debug": true,\n}\n', 3, 1, "line 3, column 1"),
        ('{"debug": tru}', 1, 11, "is no JSON"),
        ('{"a": 1} {"b": 2}', 1, 10, "Extra data"),
        ('{\n  // no comments\n}', 2, 3, "line 2, column 3"),
        ('{\n  "mtu": NaN\n}', 2, 10, "NaN is no number"),
        ('{\n  "debug": true,\n  "features": {"cdi": true},\n  "debug": false\n}', 4, 3, "the key debug twice: line 2, and again line 4, column 3"),
        ('{"features": {"cdi": true, "x": ["y", {}], "cdi": false}}', 1, 44, "the key cdi twice"),
        ('{"a\\u0062": 1, "ab": 2}', 1, 16, "the key ab twice"),
        ("\n  []\n", 2, 3, "holds no object"),
        ('"text"', 1, 1, "holds no object"),
        ("null", 1, 1, "holds no object"),
    ],
)
def test_a_damaged_file_is_named_with_line_and_column(text, line, column, words):
    with pytest.raises(AikitError) as caught:
        plan(text, {"debug": True})
    assert (caught.value.data["line"], caught.value.data["column"]) == (line, column)
    assert words in str(caught.value) and PATH in str(caught.value) and "Nothing was changed" in str(caught.value)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_told(text):
    with pytest.raises(AikitError, match=r"is empty: line 1, column 1"):
        plan(text, {"debug": True})


def test_the_same_words_in_different_objects_are_no_duplicates():
    text = '{"a": {"x": 1}, "b": {"x": [{"x": 1}, {"x": 2}], "a": "x"}, "x": ":,{"}'
    assert daemon_json.parse(text, PATH) == json.loads(text)


def test_what_is_not_named_stays():
    change = plan(USERS, {"features": {"cdi": True}, "registry-mirrors": ["https://b.example", "https://a.example"]})
    assert json.loads(change.text) == {
        "log-driver": "local",
        "features": {"containerd-snapshotter": True, "cdi": True},
        "x-of-a-newer-docker": [1, 2.5, "é"],
        "registry-mirrors": ["https://a.example", "https://b.example"],
    }
    # Its order, its indentation and its letters too
    assert list(json.loads(change.text)) == list(json.loads(USERS))
    assert change.text.startswith('{\n    "log-driver"') and '"é"' in change.text and change.text.endswith("}\n")
    assert [action.describe() for action in change.plan.actions] == [
        f"set features.cdi (in {PATH})",
        f"set registry-mirrors (in {PATH})",
    ]
    # Nobody asked for the rest: it may hold a proxy's password
    assert set(change.plan.after) == {"features", "registry-mirrors"}
    assert change.plan.before["features"] == {"containerd-snapshotter": True}


@pytest.mark.parametrize(
    ("text", "settings", "absent"),
    [
        (USERS, {}, ()),
        (USERS, {"features": {"containerd-snapshotter": True}, "registry-mirrors": ["https://a.example"]}, ()),
        (USERS, {"features": {}}, ()),
        (USERS, {}, ("features.cdi", "no.such.key", "log-driver.x")),
        # Taken out and put back as it was
        (USERS, {"registry-mirrors": ["https://a.example"]}, ("registry-mirrors",)),
        ('{"a":1,"b":{"c":[]}}', {"b": {"c": []}}, ()),
        (None, {}, ("debug",)),
    ],
)
def test_the_same_meaning_is_not_written_again(text, settings, absent):
    change = plan(text, settings, absent)
    assert not change.plan.changed and change.text == (text or "") and change.restart_keys == ()


def test_what_was_written_is_not_written_again():
    settings = {"features": {"cdi": True}, "log-opts": {"max-size": "10m"}, "live-restore": True}
    once = plan(None, settings)
    assert once.plan.changed and once.plan.before == {}
    assert not plan(once.text, settings).plan.changed


def test_true_is_not_one():
    assert plan('{"debug": 1}', {"debug": True}).plan.changed
    assert plan('{"a": [1]}', {"a": [True]}).text == '{\n  "a": [\n    1,\n    true\n  ]\n}\n'


@pytest.mark.parametrize(
    ("dotted", "expected"),
    [
        ("log-opts", {"features": {"cdi": True}}),
        ("log-opts.max-size", {"log-opts": {"com.example.x": "1"}, "features": {"cdi": True}}),
        ("log-opts.com.example.x", {"log-opts": {"max-size": "1m"}, "features": {"cdi": True}}),
        # An object with nothing left in it goes too
        ("features.cdi", {"log-opts": {"max-size": "1m", "com.example.x": "1"}}),
    ],
)
def test_taking_out(dotted, expected):
    found = {"log-opts": {"max-size": "1m", "com.example.x": "1"}, "features": {"cdi": True}}
    assert daemon_json.take_out(found, dotted) == expected


def test_a_list_is_replaced_by_taking_it_out_first():
    change = plan(USERS, {"registry-mirrors": ["https://b.example"]}, ["registry-mirrors"])
    assert json.loads(change.text)["registry-mirrors"] == ["https://b.example"]
    assert list(json.loads(change.text))[-1] == "registry-mirrors"


@pytest.mark.parametrize(
    ("text", "settings", "absent", "restart"),
    [
        ("{}", {"registry-mirrors": ["https://b.example"]}, (), ()),
        (USERS, {"live-restore": True, "debug": True}, (), ()),
        ("{}", {"insecure-registries": ["a"], "labels": ["x=y"], "shutdown-timeout": 60, "max-concurrent-downloads": 6}, (), ()),
        ("{}", {"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}, (), ()),
        ("{}", {"default-runtime": "runc", "default-shm-size": "1G"}, (), ()),
        # Read when the daemon starts
        ("{}", {"features": {"cdi": True}}, (), ("features.cdi",)),
        (USERS, {"features": {"containerd-snapshotter": False, "buildkit": True}}, (), ("features.containerd-snapshotter",)),
        ("{}", {"features": {"buildkit": False}}, (), ()),
        ("{}", {"data-root": "/srv/docker", "debug": True}, (), ("data-root",)),
        ("{}", {"log-opts": {"max-size": "10m", "max-file": "3"}}, (), ("log-opts.max-size", "log-opts.max-file")),
        ("{}", {"proxies": {"http-proxy": "http://p"}}, (), ("proxies.http-proxy",)),
        ("{}", {"x-unknown": 1}, (), ("x-unknown",)),
        # A reload sets what is in the file; what is gone from it mostly stays as it was
        (USERS, {}, ("registry-mirrors",), ("registry-mirrors",)),
        (USERS, {}, ("features",), ("features",)),
        ('{"features": {"buildkit": true}}', {}, ("features",), ()),
        ('{"live-restore": true}', {}, ("live-restore",), ("live-restore",)),
        ('{"max-concurrent-downloads": 1, "authorization-plugins": ["a"]}', {}, ("max-concurrent-downloads", "authorization-plugins"), ()),
        ('{"runtimes": {"a": {"path": "a"}, "b": {"path": "b"}}}', {}, ("runtimes.a",), ()),
        ('{"runtimes": {"a": {"path": "a"}}}', {}, ("runtimes.a",), ("runtimes",)),
    ],
)
def test_what_needs_a_restart(text, settings, absent, restart):
    change = plan(text, settings, absent)
    assert change.plan.changed and change.restart_keys == restart


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/c.sock"], {"hosts": "-H", "containerd": "--containerd"}),
        (["dockerd", "-Hfd://", "--registry-mirror", "https://m"], {"hosts": "-H", "registry-mirrors": "--registry-mirror"}),
        (["dockerd", "--log-opt=max-size=1m", "--live-restore", "-D"], {"log-opts": "--log-opt", "live-restore": "--live-restore", "debug": "-D"}),
        (["dockerd", "--data-root", "/srv", "--feature=cdi=true"], {"data-root": "--data-root", "features": "--feature"}),
        (["dockerd"], {}),
    ],
)
def test_flags(argv, expected):
    assert daemon_json.flags(argv) == expected


def test_the_command_line_of_a_unit():
    text = (
        "ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS ;"
        " ignore_errors=no ; start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
    )
    assert daemon_json.unit_argv(text) == ("/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock")
    assert daemon_json.unit_argv("ExecStart=\n") == () == daemon_json.unit_argv("")


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        (Process(1, ("dockerd",)), PATH),
        (Process(1, ("dockerd",), root=False), ""),
        (Process(1, ("dockerd", "--config-file", "/x.json")), "/x.json"),
        (Process(1, ("dockerd", "--config-file=/x.json"), root=False), "/x.json"),
    ],
)
def test_which_file_a_daemon_reads(process, expected):
    assert daemon_json.config_file(process) == expected


def refuse(settings, argv, text="{}"):
    daemon_json.refuse_flags(plan(text, settings), settings, PATH, [("docker.service", argv)])


@pytest.mark.parametrize(
    ("settings", "argv", "key", "flag"),
    [
        ({"hosts": ["fd://"]}, ["dockerd", "-H", "fd://"], "hosts", "-H"),
        ({"data-root": "/srv"}, ["dockerd", "--data-root=/var"], "data-root", "--data-root"),
        ({"log-opts": {"max-size": "1m"}}, ["dockerd", "--log-opt", "max-size=2m"], "log-opts", "--log-opt"),
        ({"proxies": {"http-proxy": "http://p"}}, ["dockerd", "--http-proxy=http://q"], "http-proxy", "--http-proxy"),
    ],
)
def test_a_key_that_is_a_flag_is_refused(settings, argv, key, flag):
    # The key in a group is checked by its own name
    with pytest.raises(AikitError) as caught:
        refuse(settings, argv)
    assert caught.value.data == {"key": key, "flag": flag}
    assert str(caught.value).startswith(f"{key} cannot be set in {PATH}: docker.service sets it with the flag {flag}")


@pytest.mark.parametrize(
    ("settings", "argv", "text"),
    [
        ({"debug": True}, ["dockerd", "-H", "fd://"], "{}"),
        # dockerd merges these itself
        ({"runtimes": {"a": {"path": "a"}}}, ["dockerd", "--add-runtime", "b=/b"], "{}"),
        # Not ours: it stands there already, and Docker may run with another file
        ({"debug": True, "hosts": ["fd://"]}, ["dockerd", "-H", "fd://"], '{"hosts": ["fd://"]}'),
    ],
)
def test_flags_that_do_not_matter(settings, argv, text):
    refuse(settings, argv, text)


def test_a_daemon_that_refuses_the_file_is_quoted():
    with pytest.raises(AikitError, match="dockerd would not start with the new /etc/docker/daemon.json: unable to configure: no such thing[.] Nothing"):
        daemon_json.refuse_invalid(PATH, "warning\nunable to configure: no such thing\n")
    with pytest.raises(AikitError, match="it gives no reason"):
        daemon_json.refuse_invalid(PATH, "")


def test_a_daemon_that_cannot_validate_is_asked_what_it_knows():
    text = "Options:\n  --config-file string\n  -D, --debug  on\n  --log-opt map\n  --add-runtime runtime\n"
    daemon_json.refuse_unknown(PATH, text, {"debug": True, "log-opts": {}, "features": {}, "runtimes": {}})
    daemon_json.refuse_unknown(PATH, "", {"debg": True})
    with pytest.raises(AikitError, match="this version knows no setting debg, cdi-spec-dirs"):
        daemon_json.refuse_unknown(PATH, text, {"debg": True, "cdi-spec-dirs": []})
