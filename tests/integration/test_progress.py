# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Progress of long work as people see it: on a terminal, in a log, not at all; on this machine and on a host over SSH."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
import support
from ansible_collections.aikit.fleet.tests.unit.model_server import ModelServer, Page
from support import docker

DATA = bytes(range(256)) * 4096 * 16
SHA256 = hashlib.sha256(DATA).hexdigest()
# 16 MiB in pieces of 64 KiB: some seconds
PAUSE = 0.012
HOST = os.environ.get("AIKIT_TEST_PREFIX", "") + "aikit-progress-host"
CLEAR = "\r\x1b[K"
SHARE = r"download m\.bin  (\[(\x1b\[36m)?[#-]{20}(\x1b\[0m)?\]  )?[0-9.]+ (kB |MB )?of 16\.8 MB +[0-9]+ %"
BAR = re.compile(f"localhost: {SHARE}")


class Terminal:
    """A command with a terminal for stderr, and for stdout too unless that is a pipe."""

    def __init__(self, argv: list[str], cwd: Path, stdout_too: bool = True, **environment: str) -> None:
        main, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

        def session() -> None:
            os.setsid()
            fcntl.ioctl(2, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=_environment(**environment),
            stdin=other,
            stdout=other if stdout_too else subprocess.PIPE,
            stderr=other,
            preexec_fn=session,
        )
        os.close(other)
        self.main = main
        self.shown = ""
        self.printed = ""
        self.threads = [threading.Thread(target=self._read)]
        if not stdout_too:
            self.threads.append(threading.Thread(target=self._read_stdout))
        for thread in self.threads:
            thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.main, 65536)
            except OSError:
                return
            if not data:
                return
            self.shown += data.decode("utf-8", "replace")

    def _read_stdout(self) -> None:
        self.printed = self.process.stdout.read().decode()

    def type(self, data: bytes) -> None:
        os.write(self.main, data)

    def wait(self, seconds: float = 120) -> "Terminal":
        self.process.wait(seconds)
        for thread in self.threads:
            thread.join(10)
        os.close(self.main)
        return self


def _environment(**extra: str) -> dict[str, str]:
    found = support.environment(**{"TERM": "xterm", **extra})
    for name in ("AIKIT_PROGRESS", "ANSIBLE_STDOUT_CALLBACK", "ANSIBLE_NOCOLOR", "NO_COLOR"):
        if name not in extra:
            found.pop(name, None)
    return found


def playbook_file(folder: Path, hosts: str, arguments: dict[str, Any], inventory: Optional[dict[str, Any]] = None, **keywords: Any) -> list[str]:
    """A playbook with one task; the command that runs it."""
    task = {"name": "Have the model", "aikit.fleet.model_file": arguments, "register": "model", **keywords}
    (folder / "play.yml").write_text(json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": [task]}]))
    words = []
    if inventory is not None:
        (folder / "inventory.json").write_text(json.dumps(inventory))
        words = ["--inventory", "inventory.json"]
    return [str(support.BIN / "ansible-playbook"), *words, "play.yml"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = tmp_path / "home"
    made.mkdir()
    monkeypatch.setenv("HOME", str(made))
    return made


@pytest.fixture
def command(tmp_path, home):
    """The command of a download that takes some seconds."""
    server = ModelServer()
    server.pages["/m.bin"] = Page(DATA, pause_seconds=PAUSE)

    def make(**keywords: Any) -> list[str]:
        arguments = {"source": f"{server.url}/m.bin", "sha256": SHA256, "store": str(tmp_path / "store"), **keywords.pop("arguments", {})}
        return playbook_file(tmp_path, "localhost", arguments, **keywords)

    yield make
    server.close()


def left_behind(home: Path) -> list[Path]:
    return [path for path in (home / ".cache").rglob("*") if "progress" in path.parts]


def statuses(home: Path) -> list[dict[str, Any]]:
    """What the status files say right now."""
    found = []
    for path in (home / ".cache/aikit-fleet/progress").glob("*.json"):
        try:
            found.append({"name": path.name, **json.loads(path.read_bytes())})
        except FileNotFoundError:
            pass
    return found


def recap(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text[text.index("PLAY RECAP") :])


def test_a_terminal_shows_it_in_one_line(command, tmp_path, home):
    found = Terminal(command(), tmp_path).wait()
    assert found.process.returncode == 0 and "changed=1" in recap(found.shown)
    parts = found.shown[found.shown.index("TASK [") : found.shown.index("PLAY RECAP")].split(CLEAR)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", part) for part in parts[1:-1]]
    assert len(lines) >= 3 and all(BAR.match(line) for line in lines), lines
    assert all("\n" not in line and len(line) < 120 for line in lines)
    shares = [int(re.search(r"([0-9]+) %", line).group(1)) for line in lines]
    assert shares == sorted(shares) and shares[0] < shares[-1] and "left" in lines[-1] and "/s" in lines[-1]
    # The line is gone before Ansible goes on
    assert "changed: [localhost]" in parts[-1] and "download" not in parts[-1]
    assert "\x1b[36m" in parts[-2]
    assert not left_behind(home)


def test_no_colour_where_none_is_wanted(command, tmp_path):
    found = Terminal(command(), tmp_path, NO_COLOR="1").wait()
    line = found.shown.split(CLEAR)[1]
    assert BAR.match(line) and "\x1b" not in line


def test_a_dumb_terminal_gets_lines(command, tmp_path):
    found = Terminal(command(), tmp_path, TERM="dumb").wait()
    assert BAR.search(found.shown) and CLEAR not in found.shown


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"AIKIT_PROGRESS": "0"}, id="switched off"),
        pytest.param({"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}, id="json"),
        pytest.param({"AWX_ISOLATED_DATA_DIR": "/nonexistent"}, id="ansible-runner"),
        pytest.param({"RUNNER_OMIT_EVENTS": "False", "AIKIT_PROGRESS": "1"}, id="ansible-runner, asked for"),
    ],
)
def test_a_terminal_that_belongs_to_a_program_shows_none(command, tmp_path, home, environment):
    found = Terminal(command(), tmp_path, **environment).wait()
    assert found.process.returncode == 0
    assert "download m.bin" not in found.shown.replace("download http", "") and CLEAR not in found.shown
    assert not left_behind(home)


@pytest.mark.parametrize("asked", ["", "1"])
def test_ansible_runner_itself_gets_what_ansible_says_and_no_more(command, tmp_path, home, asked):
    """It gives Ansible a terminal, and makes events and artifacts of everything that comes there."""
    command()
    private = tmp_path / "runner"
    (private / "project").mkdir(parents=True)
    (tmp_path / "play.yml").rename(private / "project/play.yml")
    seen: list[dict[str, Any]] = []
    argv = [str(support.BIN / "ansible-runner"), "run", str(private), "--playbook=play.yml", "--ident=one"]
    path = f"{support.BIN}:{os.environ['PATH']}"
    out, errors = piped(argv, tmp_path, lambda: seen.extend(statuses(home)), PATH=path, AIKIT_PROGRESS=asked)
    artifacts = private / "artifacts/one"
    assert (artifacts / "status").read_text() == "successful" and (artifacts / "rc").read_text() == "0"
    events = [json.loads(file.read_text()) for file in (artifacts / "job_events").glob("*.json")]
    events.sort(key=lambda event: event["counter"])
    # Nothing came between the events, and nothing is in one that Ansible did not say
    assert {event["event"] for event in events} <= {
        *("playbook_on_start", "playbook_on_play_start", "playbook_on_task_start", "runner_on_start", "runner_on_ok", "playbook_on_stats", "warning")
    }
    said = "\n".join([(artifacts / "stdout").read_text(), out, errors, *(event["stdout"] for event in events)])
    assert "PLAY RECAP" in said and "m.bin" not in said and CLEAR not in said and (artifacts / "stderr").read_text() == ""
    (done,) = [event["event_data"]["res"] for event in events if event["event"] == "runner_on_ok"]
    assert done["changed"] and done["downloaded_bytes"] == len(DATA)
    # Whoever wants to know how far it is finds it in the status file
    assert len({entry["stages"][0]["done"] for entry in seen if entry["stages"]}) >= 5
    assert not left_behind(home)


def test_stdout_is_clean_json_while_a_terminal_shows_it(command, tmp_path):
    found = Terminal(command(), tmp_path, stdout_too=False, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", AIKIT_PROGRESS="1").wait()
    assert BAR.search(found.shown)
    document = json.loads(found.printed)
    assert document["stats"]["localhost"]["changed"] == 1
    result = document["plays"][0]["tasks"][0]["hosts"]["localhost"]
    assert result["downloaded_bytes"] == len(DATA) and "status_file" not in result["invocation"]["module_args"]


def piped(argv: list[str], cwd: Path, during: Callable[[], None] = lambda: None, **environment: str) -> tuple[str, str]:
    """stdout and stderr of a command without a terminal; ``during`` is called over and over while it runs."""
    with open(cwd / "stdout", "wb") as out, open(cwd / "stderr", "wb") as errors:
        with subprocess.Popen(argv, cwd=cwd, env=_environment(**environment), stdin=subprocess.DEVNULL, stdout=out, stderr=errors) as process:
            while process.poll() is None:
                during()
                time.sleep(0.02)
    assert process.returncode == 0, (cwd / "stdout").read_text() + (cwd / "stderr").read_text()
    return (cwd / "stdout").read_text(), (cwd / "stderr").read_text()


def test_a_log_gets_lines_when_asked(command, tmp_path, home):
    out, errors = piped(command(), tmp_path, AIKIT_PROGRESS="1")
    lines = [line for line in errors.splitlines() if "download m.bin" in line]
    assert len(lines) == 1 and BAR.match(lines[0]) and "\x1b" not in errors and "\r" not in errors
    assert "download m.bin" not in out and not left_behind(home)


def test_a_log_has_nothing_else_and_the_status_file_tells_it(command, tmp_path, home):
    seen: list[dict[str, Any]] = []
    out, errors = piped(command(), tmp_path, lambda: seen.extend(statuses(home)))
    assert "download m.bin" not in out + errors
    assert {entry["work"] for entry in seen} == {"model_file"} and all(re.fullmatch(r"model_file-[0-9]+\.json", entry["name"]) for entry in seen)
    done = [entry["stages"][0]["done"] for entry in seen if entry["stages"]]
    assert done == sorted(done) and len(set(done)) >= 5 and done[-1] > done[0]
    stage = next(entry["stages"][0] for entry in reversed(seen) if entry["stages"])
    assert stage["name"] == "download m.bin" and stage["total"] == len(DATA) and stage["unit"] == "bytes" and stage["per_second"] > 0
    assert not left_behind(home)


def test_a_status_file_of_ones_own(command, tmp_path):
    path = tmp_path / "status" / "here.json"
    seen = []
    piped(command(arguments={"status_file": str(path)}), tmp_path, lambda: seen.append(path.exists()))
    assert any(seen) and not path.parent.exists()


def test_check_mode_changes_nothing_and_asks_nothing_more(command, tmp_path, home):
    found = Terminal([*command(), "--check"], tmp_path).wait()
    assert found.process.returncode == 0 and "changed=1" in recap(found.shown)
    assert not (tmp_path / "store").exists() and not left_behind(home)


def test_an_asynchronous_task_is_left_to_ansible(command, tmp_path, home):
    found = Terminal(command(**{"async": 60, "poll": 1}), tmp_path, ANSIBLE_ASYNC_DIR=str(tmp_path / "async")).wait()
    assert found.process.returncode == 0, found.shown
    assert "changed=1" in recap(found.shown) and CLEAR not in found.shown
    assert not left_behind(home)


def test_a_task_with_secrets_shows_nothing(command, tmp_path):
    found = Terminal(command(no_log=True), tmp_path).wait()
    assert found.process.returncode == 0 and "download m.bin" not in found.shown and CLEAR not in found.shown


def wait_for_line(terminal: Terminal, line: re.Pattern[str]) -> None:
    def look() -> None:
        assert line.search(terminal.shown), terminal.shown

    support.wait(look, AssertionError, 30)


def running(word: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in path.read_bytes().decode("utf-8", "replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_an_interruption_ends_everything(command, tmp_path, home):
    found = Terminal(command(), tmp_path, ANSIBLE_LOCAL_TEMP=str(tmp_path / "local"), ANSIBLE_REMOTE_TEMP=str(tmp_path / "remote"))
    wait_for_line(found, BAR)
    found.type(b"\x03")
    found.wait(30)
    assert found.process.returncode in (99, -signal.SIGINT, 130) and "Traceback" not in found.shown
    assert "User interrupted execution" in found.shown
    support.wait(lambda: [].index(running(str(tmp_path / "remote"))) if running(str(tmp_path / "remote")) else None, ValueError, 10)
    assert not left_behind(home)
    # The download goes on where it was
    again = Terminal(command(), tmp_path).wait()
    assert again.process.returncode == 0 and list((tmp_path / "store/sha256").rglob("m.bin"))


# A host over SSH


@pytest.fixture(scope="module")
def ssh_host(tmp_path_factory):
    """A real host with sshd, a user who needs a password for sudo, and a slow web server of its own."""
    folder = tmp_path_factory.mktemp("ssh")
    tool = str(support.ROOT / "tests/tools/host")
    subprocess.run([tool, "create", HOST], check=True)
    try:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        install = "DEBIAN_FRONTEND=noninteractive apt-get -q=2 install --yes --no-install-recommends openssh-server"
        docker("exec", HOST, "sh", "-euc", f"apt-get -q=2 update; {install}")
        user = "useradd --create-home --shell /bin/bash dev; echo dev:secret-of-dev | chpasswd; echo 'dev ALL=(ALL) ALL' >/etc/sudoers.d/dev"
        docker("exec", HOST, "sh", "-euc", user)
        for user in ("root", "dev"):
            docker("exec", HOST, "sh", "-euc", f"install -d -m 700 -o {user} -g {user} ~{user}/.ssh")
            docker("cp", str(folder / "key.pub"), f"{HOST}:/srv/key.pub")
            docker("exec", HOST, "sh", "-euc", f"install -m 600 -o {user} -g {user} /srv/key.pub ~{user}/.ssh/authorized_keys")
        docker("exec", HOST, "systemctl", "start", "ssh")
        docker("cp", str(support.ROOT / "tests/unit/model_server.py"), f"{HOST}:/srv/model_server.py")
        serve = (
            "import sys, time; sys.path.insert(0, '/srv')\n"
            "from model_server import ModelServer, Page\n"
            f"server = ModelServer(); server.pages['/m.bin'] = Page(bytes(range(256)) * 4096 * 16, pause_seconds={PAUSE})\n"
            "open('/srv/port.part', 'w').write(str(server.port)); import os; os.rename('/srv/port.part', '/srv/port')\n"
            "time.sleep(3600)"
        )
        docker("exec", "--detach", HOST, "python3", "-c", serve)
        port = support.wait(lambda: docker("exec", HOST, "cat", "/srv/port"), AssertionError)
        address = docker("inspect", "--format={{.NetworkSettings.IPAddress}}", HOST)
        # What Ansible runs as ssh notes each of its commands
        ssh = folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" | tr "\\n" " " >>{folder}/commands\necho >>{folder}/commands\nexec ssh "$@"\n')
        ssh.chmod(0o755)
        variables = {
            "ansible_host": address,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(folder / "key"),
            "ansible_ssh_executable": str(ssh),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/known -o StrictHostKeyChecking=accept-new",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        yield {"variables": variables, "url": f"http://127.0.0.1:{port}/m.bin", "commands": folder / "commands"}
    finally:
        subprocess.run([tool, "destroy", HOST], check=True)


def remote(ssh_host, folder: Path, variables: Optional[dict[str, Any]] = None, **keywords: Any) -> list[str]:
    docker("exec", HOST, "rm", "-rf", "/srv/store")
    docker("exec", HOST, "install", "-d", "-m", "1777", "/srv/store")
    ssh_host["commands"].unlink(missing_ok=True)
    inventory = {"all": {"hosts": {"far": {**ssh_host["variables"], **(variables or {})}}}}
    return playbook_file(folder, "far", {"source": ssh_host["url"], "sha256": SHA256, "store": "/srv/store"}, inventory, **keywords)


def reads(ssh_host) -> int:
    return sum("head -c" in line for line in ssh_host["commands"].read_text().splitlines())


FAR = re.compile(f"far: {SHARE}")
SUDO = {"ansible_user": "dev", "ansible_become": True, "ansible_become_password": "secret-of-dev"}


@pytest.mark.parametrize(
    "variables, environment",
    [
        pytest.param({}, {}, id="root"),
        pytest.param({}, {"ANSIBLE_PIPELINING": "1"}, id="pipelining"),
        pytest.param(SUDO, {}, id="sudo with a password"),
        pytest.param({"ansible_user": "dev"}, {}, id="another user"),
        pytest.param({}, {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none"}, id="no shared connection"),
    ],
)
def test_a_host_over_ssh(ssh_host, tmp_path, variables, environment):
    found = Terminal(remote(ssh_host, tmp_path, variables), tmp_path, **environment).wait()
    assert found.process.returncode == 0 and "changed=1" in recap(found.shown), found.shown
    assert FAR.search(found.shown.split(CLEAR)[1]), found.shown
    assert 1 <= reads(ssh_host) <= 8
    left = docker("exec", HOST, "sh", "-c", "find /root/.cache /home/dev/.cache -path '*progress*' 2>/dev/null || true")
    assert left == ""


def test_a_host_over_ssh_costs_nothing_when_nobody_looks(ssh_host, tmp_path):
    _out, errors = piped(remote(ssh_host, tmp_path), tmp_path)
    assert reads(ssh_host) == 0 and "download" not in errors
    silent = len(ssh_host["commands"].read_text().splitlines())
    piped(remote(ssh_host, tmp_path), tmp_path, AIKIT_PROGRESS="0")
    assert len(ssh_host["commands"].read_text().splitlines()) == silent


def test_a_host_over_ssh_whose_connection_breaks_says_what_ansible_says(ssh_host, tmp_path):
    found = Terminal(remote(ssh_host, tmp_path), tmp_path)
    wait_for_line(found, FAR)
    try:
        # The service, and what serves connections that are there
        docker("exec", HOST, "sh", "-c", "systemctl stop ssh; pkill sshd || true")
        found.wait(60)
        assert found.process.returncode == 4 and "UNREACHABLE" in found.shown and "Traceback" not in found.shown
        assert "progress" not in found.shown
    finally:
        docker("exec", HOST, "systemctl", "start", "ssh")


def test_an_interruption_over_ssh(ssh_host, tmp_path):
    found = Terminal(remote(ssh_host, tmp_path), tmp_path)
    wait_for_line(found, FAR)
    found.type(b"\x03")
    found.wait(30)
    assert "User interrupted execution" in found.shown and "Traceback" not in found.shown


def test_several_hosts_have_lines_of_their_own(ssh_host, tmp_path):
    words = remote(ssh_host, tmp_path)
    inventory = {"all": {"hosts": {name: ssh_host["variables"] for name in ("far", "away")}}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    plays = json.loads((tmp_path / "play.yml").read_text())
    plays[0]["hosts"] = "all"
    plays[0]["tasks"][0]["aikit.fleet.model_file"]["store"] = "/srv/store/{{ inventory_hostname }}"
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    found = Terminal(words, tmp_path).wait()
    assert found.process.returncode == 0 and CLEAR not in found.shown
    lines = [line.partition(":")[0] for line in found.shown.splitlines() if ": download m.bin" in line]
    assert sorted(lines) == ["away", "far"]
