# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When progress is shown and how, where it is read from, and that it never gets in the way of the module."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
from ansible_collections.aikit.fleet.plugins.action import aikit_image_load, model_file
from ansible_collections.aikit.fleet.plugins.module_utils._core.progress import Stage, document
from ansible_collections.aikit.fleet.plugins.plugin_utils import progress_display as shown
from ansible_collections.aikit.fleet.plugins.plugin_utils.progress_display import Reader, Style, Watch, choose

IN_PLACE, LINES = Style(True, True), Style(False)


@pytest.mark.parametrize(
    "environment, terminal, callback, verbosity, hosts, expected",
    [
        pytest.param({}, True, "default", 0, 1, IN_PLACE, id="a terminal"),
        pytest.param({}, False, "default", 0, 1, None, id="a pipe"),
        pytest.param({}, True, "default", 2, 1, IN_PLACE, id="-vv"),
        pytest.param({}, True, "default", 3, 1, None, id="-vvv"),
        pytest.param({}, True, "community.general.yaml", 0, 1, IN_PLACE, id="another callback for people"),
        pytest.param({}, True, "ansible.posix.json", 0, 1, None, id="json"),
        pytest.param({}, True, "ansible.posix.jsonl", 0, 1, None, id="json lines"),
        pytest.param({}, True, "awx_display", 0, 1, None, id="awx"),
        pytest.param({}, True, "default", 0, 3, LINES, id="several hosts"),
        pytest.param({"TERM": "dumb"}, True, "default", 0, 1, LINES, id="a dumb terminal"),
        pytest.param({"TERM": ""}, True, "default", 0, 1, Style(True, True), id="an empty TERM"),
        pytest.param({"NO_COLOR": "1"}, True, "default", 0, 1, Style(True), id="no colour"),
        pytest.param({"NO_COLOR": ""}, True, "default", 0, 1, IN_PLACE, id="an empty NO_COLOR says nothing"),
        pytest.param({"AIKIT_PROGRESS": "1"}, False, "default", 0, 1, LINES, id="asked for in a pipe"),
        pytest.param({"AIKIT_PROGRESS": "1"}, True, "default", 0, 1, IN_PLACE, id="asked for on a terminal"),
        pytest.param({"AIKIT_PROGRESS": "1"}, True, "default", 4, 1, LINES, id="asked for with -vvvv"),
        pytest.param({"AIKIT_PROGRESS": "1"}, True, "json", 0, 1, LINES, id="asked for with json: stderr is not stdout"),
        pytest.param({"AIKIT_PROGRESS": "1", "AWX_ISOLATED_DATA_DIR": "/x"}, True, "default", 0, 1, None, id="ansible-runner, where it is"),
        pytest.param({"AIKIT_PROGRESS": "0"}, True, "default", 0, 1, None, id="switched off"),
        pytest.param({"AIKIT_PROGRESS": "No "}, True, "default", 0, 1, None, id="switched off in words"),
        pytest.param({"AIKIT_PROGRESS": ""}, True, "default", 0, 1, IN_PLACE, id="an empty variable says nothing"),
    ],
)
def test_when_and_how(monkeypatch, environment, terminal, callback, verbosity, hosts, expected):
    monkeypatch.setattr(shown.constants, "ANSIBLE_NOCOLOR", False)
    assert choose({"TERM": "xterm", **environment}, terminal, callback, verbosity, hosts) == expected


def test_ansible_can_switch_colours_off(monkeypatch):
    monkeypatch.setattr(shown.constants, "ANSIBLE_NOCOLOR", True)
    assert choose({"TERM": "xterm"}, True, "default", 0, 1) == Style(True, False)


@pytest.mark.parametrize(
    "path, expected",
    [
        ("~/.cache/aikit-fleet/progress/x-0a.json", "~/.cache/aikit-fleet/progress/x-0a.json"),
        ("~/a b", "~/'a b'"),
        ("~dev/$(id)", "~dev/'$(id)'"),
        ("~", "~"),
        ("~$(id)/x", "'~$(id)/x'"),
        ("/srv/it's; rm -rf /", "'/srv/it'\"'\"'s; rm -rf /'"),
        ("", ""),
    ],
)
def test_a_path_for_a_shell(path, expected):
    assert shown.quoted(path) == expected


def test_the_shell_finds_it(tmp_path):
    (tmp_path / "a b").write_text("here")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", f"cat {shown.quoted('~/a b')}"], env=environment, capture_output=True, check=True)
    assert done.stdout == b"here"


def status(*stages):
    return json.dumps(document("model_file", 1, 0.0, stages)).encode()


class Source:
    """Status files, one after the other; the last one stays."""

    def __init__(self, *found, every=0.01):
        self.found = list(found)
        self.calls = 0
        self.reader = Reader(self.read, every)

    def read(self):
        self.calls += 1
        item = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(item, Exception):
            raise item
        return item


def watched(source, style, seconds=0.3):
    said = []
    with Watch(source.reader, style, "h1", said.append):
        deadline = time.monotonic() + 10
        while (source.calls < len(source.found) + 5 or len(source.found) > 1) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds if source.calls else 0)
    return said


HALF = Stage("push gemma", 10**9, 2 * 10**9, "bytes", 4.0, 250e6)


def test_in_place_it_is_replaced_and_removed():
    said = watched(Source(b"", status(HALF)), Style(True))
    assert all(text.startswith("\r\x1b[K") for text in said)
    assert "push gemma" in said[0] and "50 %" in said[0] and not any("\n" in text for text in said)
    assert said[-1] == "\r\x1b[K"


def test_in_place_nothing_is_written_before_there_is_something():
    assert watched(Source(b"", b"{", b"\xff"), Style(True), 0.05) == []


def test_between_two_stages_the_line_is_empty():
    said = watched(Source(status(HALF), status()), Style(True), 0.05)
    assert said[-1] == "\r\x1b[K" and len(said) == 2


def test_lines_come_once_for_each_stage_and_then_seldom(monkeypatch):
    other = Stage("push config", 1, 2)
    said = watched(Source(status(HALF), status(HALF), status(other), status(HALF), status(other)), Style(False))
    assert [text.split("  ")[0] for text in said] == ["h1: push gemma", "h1: push config"] and all(text.endswith("\n") for text in said)
    monkeypatch.setattr(shown, "LINE_SECONDS", 0.05)
    assert 3 <= len(watched(Source(status(HALF)), Style(False))) <= 20


def test_a_connection_that_fails_is_asked_again():
    said = watched(Source(OSError("unreachable"), RuntimeError("no"), status(HALF)), Style(True), 0.05)
    assert "push gemma" in said[0]


def test_a_slow_connection_is_asked_less_often():
    source = Source(b"")

    def slow():
        source.calls += 1
        time.sleep(0.05)
        return b""

    with Watch(Reader(slow, 0.01), Style(True), "h1", lambda text: None):
        time.sleep(1.0)
    assert 1 <= source.calls <= 5


def test_a_connection_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(shown, "END_SECONDS", 0.1)
    go, asked, said = threading.Event(), threading.Event(), []

    def hang():
        asked.set()
        go.wait(10)
        return status(HALF)

    watch = Watch(Reader(hang, 0.01), Style(True), "h1", said.append)
    started = time.monotonic()
    with watch:
        asked.wait(10)
    assert time.monotonic() - started < 5
    go.set()
    watch._thread.join(10)
    # Whatever comes later is not shown: Ansible has gone on
    assert said == []


def test_it_writes_to_stderr_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(shown, "display", SimpleNamespace(display=lambda *words, **more: calls.append((words, more))))
    shown._show("text")
    assert calls == [(("text",), {"stderr": True, "screen_only": True, "newline": False})]


# The action plugins


class Become:
    name = "sudo"

    def __init__(self):
        self.used = 0


class Connection:
    transport = "ssh"

    def __init__(self, become=None):
        self.become = become
        self._shell = SimpleNamespace(tmpdir=None)

    def set_become_plugin(self, plugin):
        self.become = plugin


class Local(Connection):
    transport = "local"


class Fragile(Connection):
    def __del__(self):
        pass


class Action(model_file.ActionModule):
    """The plugin, with Ansible's own half left out."""

    def __init__(self, connection, **task):
        given = {"action": "aikit.fleet.model_file", "args": {"source": "/x"}, "async_val": 0, "no_log": False, "run_once": False, "delegate_to": None}
        self._task = SimpleNamespace(**{**given, **task})
        self._connection = connection
        self.executed = []
        self.commands = []
        self.seconds = 0.0

    def _execute_module(self, **options):
        self.executed.append(options)
        time.sleep(self.seconds)
        return {"changed": True, "invocation": {"module_args": dict(options["module_args"])}}

    def _low_level_execute_command(self, command, **dummy):
        self.commands.append((command, self._connection))
        return {"stdout": status(HALF).decode()}


@pytest.fixture
def terminal(monkeypatch):
    said = []
    monkeypatch.setattr(shown, "TERMINAL", os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(shown, "_show", said.append)
    monkeypatch.setattr(shown, "REMOTE_SECONDS", 0.01)
    monkeypatch.setattr(shown, "BECOME_SECONDS", 0.01)
    monkeypatch.setattr(shown, "LOCAL_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    for name in (shown.VARIABLE, *shown.RUNNER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    yield said
    os.close(shown.TERMINAL)


VARS = {"inventory_hostname": "h1", "ansible_play_batch": ["h1"]}


def test_a_remote_file_is_read_with_one_more_command(terminal):
    action = Action(Connection())
    action.seconds = 0.3
    result = shown.execute_module(action, {"source": "/x"}, VARS)
    (options,) = action.executed
    path = options["module_args"]["status_file"]
    assert path.startswith("~/.cache/aikit-fleet/progress/model_file-") and options["module_args"]["source"] == "/x"
    assert {command for command, _connection in action.commands} == {f"head -c 65536 {path} 2>/dev/null"}
    # Over a copy: the module's own command has state in the connection
    assert all(connection is not action._connection for _command, connection in action.commands)
    assert all(connection._shell is not action._connection._shell for _command, connection in action.commands)
    assert "h1: push gemma" in terminal[0] and terminal[-1] == shown.CLEAR
    assert result["invocation"]["module_args"] == {"source": "/x"}


def test_privilege_escalation_has_a_state_of_its_own(terminal):
    action = Action(Connection(Become()))
    source = shown.reader(action, "/x")
    source.read()
    ((_command, connection),) = action.commands
    assert isinstance(connection.become, Become) and connection.become is not action._connection.become


def test_a_local_file_is_read_as_one(terminal, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    action = Action(Local())
    source = shown.reader(action, "~/x.json")
    assert source.read() == b""
    (tmp_path / "x.json").write_bytes(status(HALF))
    assert source.read() == status(HALF) and not action.commands
    # Not with the rights of another user
    assert shown.reader(Action(Local(Become())), "~/x.json").every_seconds == shown.BECOME_SECONDS


def test_a_connection_that_cannot_be_shared_shows_nothing(terminal):
    action = Action(Fragile())
    assert shown.reader(action, "/x") is None
    shown.execute_module(action, {"source": "/x"}, VARS)
    assert action.executed == [{"module_args": {"source": "/x"}, "task_vars": VARS}] and terminal == []


@pytest.mark.parametrize("task", [{"async_val": 60}, {"no_log": True}], ids=["async", "no_log"])
def test_what_is_not_shown_runs_as_it_would(terminal, task):
    action = Action(Connection(), **task)
    shown.execute_module(action, {"source": "/x"}, VARS)
    assert action.executed == [{"module_args": {"source": "/x"}, "task_vars": VARS, "wrap_async": task.get("async_val", 0)}]
    assert not action.commands and terminal == []


def test_where_nobody_looks_nothing_is_read(terminal, monkeypatch):
    monkeypatch.setenv("AIKIT_PROGRESS", "0")
    action = Action(Connection())
    action.seconds = 0.1
    threads = threading.active_count()
    shown.execute_module(action, {"source": "/x"}, None)
    assert action.executed == [{"module_args": {"source": "/x"}, "task_vars": {}, "wrap_async": 0}] and not action.commands
    assert threading.active_count() == threads


def test_a_status_file_of_ones_own_is_read(terminal):
    action = Action(Connection())
    action.seconds = 0.2
    result = shown.execute_module(action, {"source": "/x", "status_file": "/srv/here.json"}, VARS)
    assert action.commands[0][0] == "head -c 65536 /srv/here.json 2>/dev/null"
    assert result["invocation"]["module_args"]["status_file"] == "/srv/here.json"


@pytest.mark.parametrize(
    "task, variables, name, in_place",
    [
        ({}, {"ansible_play_batch": ["h1", "h2"]}, "h1", False),
        ({"run_once": True}, {"ansible_play_batch": ["h1", "h2"]}, "h1", True),
        ({"delegate_to": "builder", "run_once": True}, {}, "builder", True),
    ],
)
def test_whose_work_it_is(terminal, task, variables, name, in_place):
    action = Action(Connection(), **task)
    action.seconds = 0.2
    shown.execute_module(action, {"source": "/x"}, {**VARS, **variables})
    assert f"{name}: push gemma" in terminal[0] and terminal[0].startswith(shown.CLEAR) == in_place


def test_the_terminal_goes_when_the_module_fails(terminal):
    class Failing(Action):
        def _execute_module(self, **options):
            super()._execute_module(**options)
            raise RuntimeError("connection lost")

    action = Failing(Connection())
    action.seconds = 0.2
    with pytest.raises(RuntimeError):
        shown.execute_module(action, {"source": "/x"}, VARS)
    assert terminal[-1] == shown.CLEAR


@pytest.mark.parametrize("plugin", [model_file, aikit_image_load])
def test_the_plugins_pass_their_arguments(monkeypatch, plugin):
    calls = []
    monkeypatch.setattr(plugin, "execute_module", lambda *words: calls.append(words) or {"changed": False})
    monkeypatch.setattr(plugin.ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    action = object.__new__(plugin.ActionModule)
    action._task = SimpleNamespace(args={"source": "/x"})
    assert action.run(task_vars=VARS) == {"changed": False}
    assert calls == [(action, {"source": "/x"}, VARS)]
    assert plugin.ActionModule._supports_async and plugin.ActionModule._supports_check_mode
