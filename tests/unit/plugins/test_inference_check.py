# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module against servers that speak as llama-server and others do, and containers that do as containers do."""

from __future__ import annotations

import dataclasses
import http.server
import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ContainerState
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._io import inference
from ansible_collections.aikit.fleet.plugins.module_utils._io.openai import Client
from ansible_collections.aikit.fleet.plugins.modules import inference_check

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "logs"
STATE = ContainerState(
    name="llama", id="c1", image_id="sha256:aa", status="running", running=True, started_at="2026-11-22T21:00:00Z", env={"LLAMA_ARG_ALIAS": "gemma"}, pid=4242
)


class FakeEngine:
    """One container; ``after`` replaces its state at the n-th look."""

    name = "docker"

    def __init__(self, state=STATE, log="captured/cpu", after=None):
        self.state, self.after, self.looks = state, after or {}, 0
        self.text = (LOGS / f"{log}.log").read_text() if "/" in log else log
        self.asked = []

    def container(self, name):
        self.looks += 1
        self.state = self.after.get(self.looks, self.state)
        return self.state if self.state is not None and name == self.state.name else None

    def logs(self, name, tail=None, since=""):
        self.asked.append((name, tail, since))
        lines = self.text.splitlines(True)
        return "".join(lines if tail is None else lines[-tail:])

    def processes(self, name):
        return [4242, 4243]


class FakeServer(http.server.ThreadingHTTPServer):
    """Answers as it is told to: ``server.loading`` times 503, then ``server.models`` and ``server.events``."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.banner = "llama.cpp"
        self.loading = 0
        self.health = (200, {"status": "ok"})
        self.models = (200, {"object": "list", "data": [{"id": "gemma", "aliases": ["gemma"], "owned_by": "llamacpp", "meta": {"size": 246587904}}]})
        self.events = stream("The", " sea", ".")
        self.whole = None
        self.resources = None
        self.requests = []
        self.keys = []
        self.cut = False

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    def version_string(self):
        return self.server.banner

    def log_message(self, *_args):
        pass

    def send(self, status, document, kind="application/json"):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        server = self.server
        server.keys.append(self.headers.get("Authorization"))
        if server.loading > 0:
            server.loading -= self.path.endswith("/health")
            self.send(503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})
        elif self.path.endswith("/health"):
            self.send(*server.health)
        elif self.path.endswith("/v1/models"):
            self.send(*server.models)
        elif self.path == "/api/resources" and server.resources:
            self.send(200, server.resources)
        else:
            self.send(404, {"error": {"message": "File Not Found"}})

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append((self.path, body))
        if isinstance(server.events, tuple):
            self.send(*server.events)
        elif not body.get("stream"):
            self.send(200, server.whole)
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for event in server.events:
                if callable(event):
                    event()
                    continue
                data = event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode()
                self.wfile.write(data + b"\n\n")
                self.wfile.flush()
            if not server.cut:
                self.wfile.write(b"data: [DONE]\n\n")


def stream(*texts, usage=True, finish="stop"):
    events = [{"model": "gemma", "choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": None}}]}]
    events += [{"model": "gemma", "choices": [{"index": 0, "finish_reason": None, "delta": {"content": text}}]} for text in texts]
    events.append({"model": "gemma", "choices": [{"index": 0, "finish_reason": finish, "delta": {}}]})
    if usage:
        timings = {"predicted_n": len(texts), "predicted_per_second": 61.3}
        events.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(texts)}, "timings": timings})
    return events


@pytest.fixture
def server():
    with FakeServer() as fake:
        thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        fake.shutdown()
        thread.join()


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture(autouse=True)
def quick(monkeypatch, engine):
    monkeypatch.setattr(inference, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(inference, "gpu_processes", lambda: None)
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)


def run(capsys, **params):
    """(exit code, result) of the module."""
    check_mode = params.pop("check_mode", False)
    with patch_module_args({**params, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit) as ended:
        inference_check.main()
    return ended.value.code, json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_a_service_on_the_cpu(capsys, server, engine):
    code, result = run(capsys, url=server.url, container="llama")
    assert code == 0
    assert (result["changed"], result["actions"], result["passed"]) == (False, [], True)
    assert (result["verdict"], result["evidence"]["sources"]) == ("cpu", ["log"])
    assert (result["answer"], result["model"], result["finish_reason"]) == ("The sea.", "gemma", "stop")
    assert (result["prompt_tokens"], result["completion_tokens"], result["tokens_per_second"]) == (9, 3, 61.3)
    assert result["time_to_first_token_seconds"] is not None and result["ready_seconds"] is not None
    assert (result["container_id"], result["started_at"]) == ("c1", "2026-11-22T21:00:00Z")
    assert engine.asked == [("llama", None, "2026-11-22T21:00:00Z")]
    # One completion, and no more
    assert [path for path, _body in server.requests] == ["/v1/chat/completions"]
    body = server.requests[0][1]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("gemma", 32, True)


def test_check_mode_asks_too(capsys, server):
    assert run(capsys, url=server.url, container="llama", check_mode=True)[1]["answer"] == "The sea."


def test_check_mode_before_the_deployment(capsys, server):
    code, result = run(capsys, url=server.url, container="other", check_mode=True)
    assert (code, result["verdict"], result["passed"]) == (0, "unverified", True)
    assert "after the deployment" in result["reasons"][0]
    assert server.requests == []


def test_a_container_that_is_not_there(capsys, server):
    code, result = run(capsys, url=server.url, container="other")
    assert (code, result["msg"]) == (1, "There is no container other. Deploy the service first, or correct the name.")
    assert (result["verdict"], result["passed"], result["changed"]) == ("failed", False, False)


def test_the_key_is_sent_and_not_shown(capsys, server):
    result = run(capsys, url=server.url, container="llama", api_key="sk-geheim")[1]
    assert set(server.keys) == {"Bearer sk-geheim"}
    assert "sk-geheim" not in json.dumps(result)


def test_a_missing_key_fails_at_once(capsys, server):
    server.models = (401, {"error": {"message": "Invalid API Key"}})
    code, result = run(capsys, url=server.url, container="llama")
    assert code == 1 and "refuses the API key" in result["msg"]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_base_urls(capsys, server, suffix):
    assert run(capsys, url=server.url + suffix, container="llama")[0] == 0
    assert server.requests[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x:99999"])
def test_no_url(capsys, url):
    code, result = run(capsys, url=url)
    assert code == 1 and "Write it like http://127.0.0.1:8080" in result["msg"]


# --- waiting


def test_it_waits_while_the_model_is_loaded(capsys, server):
    server.loading = 5
    code, result = run(capsys, url=server.url, container="llama")
    assert (code, server.loading) == (0, 0)
    assert result["ready_seconds"] > 0.04


def test_it_waits_for_a_port_that_nobody_listens_on_yet(capsys, server):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, result = run(capsys, url=url, container="llama", timeout_seconds=0.3)
    assert code == 1
    assert "was not ready after 0 seconds: nothing answers at" in result["msg"] and "(connection refused)" in result["msg"]
    assert (result["verdict"], result["ready_seconds"], result["answer"]) == ("failed", None, "")


def test_never_ready(capsys, server, engine):
    server.loading = 10**6
    code, result = run(capsys, url=server.url, container="llama", timeout_seconds=1)
    assert code == 1
    assert 'was not ready after 1 seconds: it answers HTTP 503, "Loading model"' in result["msg"]
    assert "Its last log line" in result["msg"]
    assert result["evidence"]["container_id"] == "c1"
    assert "timeout_seconds" in result["hint"]


@pytest.mark.parametrize(
    "state",
    [
        dataclasses.replace(STATE, status="exited", running=False, exit_code=1),
        dataclasses.replace(STATE, status="restarting", running=False, exit_code=1, restart_count=1),
        dataclasses.replace(STATE, restart_count=1, exit_code=1),
    ],
    ids=["exited", "restarting", "restarted"],
)
def test_a_container_that_ends_is_reported_at_once(capsys, server, monkeypatch, state):
    engine = FakeEngine(log="captured/out-of-memory", after={4: state})
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    server.loading = 10**6
    started = time.monotonic()
    code, result = run(capsys, url=server.url, container="llama", timeout_seconds=60)
    assert time.monotonic() - started < 10
    assert code == 1
    assert result["msg"].startswith("Container llama ended with exit code 1")
    assert "The GPU has not enough memory" in result["msg"]
    assert "exiting due to model loading error" in result["msg"]
    assert (result["verdict"], result["evidence"]["failure"]) == ("failed", "oom")


def test_a_container_that_is_removed_meanwhile(capsys, server, monkeypatch):
    engine = FakeEngine()
    real = engine.container
    engine.container = lambda name: None if engine.looks > 2 else real(name)
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    server.loading = 10**6
    assert "was removed while the check waited" in run(capsys, url=server.url, container="llama")[1]["msg"]


def test_a_kill_for_memory_is_called_one(capsys, server, monkeypatch):
    engine = FakeEngine(state=dataclasses.replace(STATE, status="exited", running=False, exit_code=137))
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    assert "exit code 137 (killed: most often for memory" in run(capsys, url=server.url, container="llama")[1]["msg"]


# --- others on the port


def test_a_web_server_on_the_port(capsys, server):
    server.banner = "nginx/1.22.1"
    server.health = server.models = (404, b"<html><h1>404 Not Found</h1></html>")
    code, result = run(capsys, url=server.url, container="llama")
    assert code == 1
    assert "Something else answers" in result["msg"] and 'HTTP 404 from nginx/1.22.1: "<html><h1>404 Not Found' in result["msg"]


def test_another_llama_server_on_the_port(capsys, server):
    server.models = (200, {"data": [{"id": "other", "owned_by": "llamacpp"}]})
    assert "it serves other, and the container serves gemma" in run(capsys, url=server.url, container="llama")[1]["msg"]


def banner(data):
    """A listener that sends ``data`` to whoever connects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                peer, _address = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(4096)
                peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_listener_that_speaks_no_http(capsys):
    listener, url = banner(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    with listener:
        result = run(capsys, url=url, container="llama", timeout_seconds=5)[1]
    assert "Something else answers" in result["msg"] and "SSH-2.0-OpenSSH_9.2p1" in result["msg"]


def test_a_proxy_that_closes_is_waited_for(capsys):
    """Docker's proxy accepts before the server in the container listens."""
    listener, url = banner(b"")
    with listener:
        result = run(capsys, url=url, container="llama", timeout_seconds=0.3)[1]
    assert "was not ready" in result["msg"] and "it closed the connection without an answer" in result["msg"]


def test_a_listener_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert Client(f"http://127.0.0.1:{listener.getsockname()[1]}").get("/health", 0.1).error == "no answer in time"


# --- completions


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "completion is empty"),
        (stream(), "completion is empty"),
        ([b"data: <html>"], "something else than a completion: <html>"),
        ([*stream("a")[:2], b'error: {"error": {"message": "context full"}}'], "broke the completion off: context full"),
        (stream("a", finish=None), "no finish_reason"),
        ([*stream("a"), b"data: [DONE]", b"data: <html>"], None),
        ((500, {"error": {"message": "model name=broken failed to load"}}), "HTTP 500, model name=broken failed to load"),
        ((200, b"<html>proxy</html>"), "something else than a completion"),
    ],
    ids=["nothing", "no tokens", "garbage", "error", "cut", "after the end", "http 500", "html"],
)
def test_what_is_no_completion(capsys, server, events, words):
    server.events = events
    code, result = run(capsys, url=server.url, container="llama")
    if words is None:
        assert code == 0
        return
    assert code == 1 and words in result["msg"]
    assert result["verdict"] == "failed" and result["reasons"]
    assert result["evidence"]["devices"] == []


def test_a_server_that_dies_over_the_answer(capsys, server, monkeypatch):
    dead = dataclasses.replace(STATE, status="exited", running=False, exit_code=139)
    engine = FakeEngine(log="made/crash-after-load", after={5: dead})
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)

    def die():
        raise ConnectionResetError

    server.events = [*stream("a")[:2], die]
    server.cut = True
    code, result = run(capsys, url=server.url, container="llama")
    assert code == 1
    # A stream that just ends looks complete to HTTP; its missing end does not
    assert result["msg"].startswith("Container llama ended with exit code 139 (SIGSEGV")
    assert "illegal memory access" in result["msg"]


def test_a_stream_without_its_end(capsys, server):
    server.cut = True
    assert run(capsys, url=server.url, container="llama")[1]["answer"] == "The sea."
    server.events = stream("The", " sea")[:2]
    assert "closed the connection in the middle of the answer" in run(capsys, url=server.url, container="llama")[1]["msg"]


def test_an_answer_that_takes_too_long(server):
    server.events = [*stream("a")[:2], lambda: time.sleep(1), *stream("b")]
    watched = inference.Watched(None, "")
    with pytest.raises(AikitError, match="did not give a completion: no answer in time"):
        inference.ask(Client(server.url), watched, "gemma", "hi", 4, 0.2)


def test_usage_is_asked_for_again_where_streams_have_none(capsys, server):
    server.events = stream("The", " sea", usage=False)
    server.whole = {"choices": [{"finish_reason": "stop", "message": {"content": "Another."}}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    result = run(capsys, url=server.url, container="llama")[1]
    assert (result["answer"], result["completion_tokens"], result["prompt_tokens"]) == ("The sea", 2, 9)
    assert [body.get("stream", False) for _path, body in server.requests] == [True, False]


def test_a_server_that_does_not_stream(capsys, server):
    server.events = (200, {"choices": [{"finish_reason": "stop", "message": {"content": "The sea."}}], "usage": {"completion_tokens": 3}})
    result = run(capsys, url=server.url, container="llama")[1]
    assert (result["answer"], result["time_to_first_token_seconds"], result["tokens_per_second"]) == ("The sea.", None, None)


def test_localai_loads_at_the_first_request(capsys, server, monkeypatch):
    engine = FakeEngine(state=dataclasses.replace(STATE, env={}), log="made/localai-xlog-ansi-cuda")
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    server.banner, server.health = "", (404, b"404 page not found")
    server.models = (200, {"object": "list", "data": [{"id": "llama-3.1-8b-instruct", "object": "model"}]})
    result = run(capsys, url=server.url, container="llama", expect={"verdict": ["proven"]})[1]
    assert result["verdict"] == "proven"
    assert [body["max_tokens"] for _path, body in server.requests] == [1, 32]
    assert {body["model"] for _path, body in server.requests} == {"llama-3.1-8b-instruct"}


@pytest.mark.parametrize(("command", "asked"), [((), "m.gguf"), (("--config-file=/config.yaml",), "LICENSE")])
def test_localai_without_a_config_is_asked_for_a_model(capsys, server, monkeypatch, command, asked):
    state = dataclasses.replace(STATE, env={"CONFIG_FILE": "/config.yaml"}, command=command)
    monkeypatch.setattr(inference_check, "open_engine", lambda name: FakeEngine(state=state, log="made/localai-xlog-ansi-cuda"))
    server.banner = ""
    server.models = (200, {"object": "list", "data": [{"id": "LICENSE", "object": "model"}, {"id": "m.gguf", "object": "model"}]})
    run(capsys, url=server.url, container="llama")
    assert {body["model"] for _path, body in server.requests} == {asked}


def test_localai_says_what_it_sees(capsys, server, monkeypatch):
    engine = FakeEngine(state=dataclasses.replace(STATE, env={}), log="made/localai-debug-off")
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    server.banner = ""
    server.models = (200, {"data": [{"id": "m"}]})
    server.resources = {"type": "ram", "gpus": []}
    result = run(capsys, url=server.url, container="llama")[1]
    assert result["evidence"]["sources"] == ["log", "resources"]
    assert result["reasons"][-1] == "LocalAI's resources list no GPU."


# --- evidence


def test_a_log_instead_of_a_container(capsys, server, tmp_path):
    text = (LOGS / "made" / "2026-vulkan-full.log").read_text()
    file = tmp_path / "server.log"
    file.write_text(text)
    for log in (text, str(file)):
        result = run(capsys, url=server.url, log=log)[1]
        assert (result["verdict"], result["container_id"]) == ("proven", "")


def test_neither_a_log_nor_a_container(capsys, server):
    result = run(capsys, url=server.url)[1]
    assert (result["verdict"], result["answer"]) == ("unverified", "The sea.")
    assert "Neither a container nor a log" in result["reasons"][0]


def test_evidence_is_kept_for_when_the_log_is_gone(capsys, server, monkeypatch, engine):
    kept = run(capsys, url=server.url, container="llama")[1]["evidence"]
    rotated = FakeEngine(log="made/rotated")
    monkeypatch.setattr(inference_check, "open_engine", lambda name: rotated)
    result = run(capsys, url=server.url, container="llama", evidence=kept)[1]
    assert (result["verdict"], result["evidence"]["sources"]) == ("cpu", ["stored"])
    assert result["evidence"]["buffers"] == kept["buffers"]
    # and again, from what that check returned
    assert run(capsys, url=server.url, container="llama", evidence=result["evidence"])[1]["verdict"] == "cpu"
    rotated.state = dataclasses.replace(STATE, started_at="2026-11-23T08:00:00Z")
    assert run(capsys, url=server.url, container="llama", evidence=kept)[1]["verdict"] == "unverified"


def test_kept_evidence_of_a_server_that_loads_once_wins_over_its_log(capsys, server):
    kept = {"container_id": "c1", "started_at": STATE.started_at, "verdict": "proven", "reasons": ["old"]}
    assert run(capsys, url=server.url, container="llama", evidence=kept)[1]["verdict"] == "proven"
    # not over a log that was given, not for another run, and not when it settled nothing
    assert run(capsys, url=server.url, container="llama", evidence=kept, log=str(LOGS / "captured/cpu.log"))[1]["verdict"] == "cpu"
    for other in ({"started_at": "2026-11-22T20:00:00Z"}, {"container_id": "c2"}, {"verdict": "failed"}, {"verdict": "unverified"}):
        assert run(capsys, url=server.url, container="llama", evidence={**kept, **other})[1]["verdict"] == "cpu"


@pytest.mark.parametrize("status", [{"value": "loaded"}, {"value": "unloaded"}])
def test_a_fresh_load_of_a_router_wins_over_kept_evidence(capsys, server, status):
    kept = {"container_id": "c1", "started_at": STATE.started_at, "verdict": "proven", "reasons": ["old"]}
    server.models = (200, {"data": [{"id": "gemma", "owned_by": "llamacpp", "status": status}]})
    assert run(capsys, url=server.url, container="llama", evidence=kept)[1]["verdict"] == "cpu"


@pytest.mark.parametrize(
    "request_log",
    [
        'srv    operator(): got exception: {"error":{"code":500,"message":"CUDA error: foo","type":"server_error"}}\n',
        "load_tensors: offloaded 33/33 layers to GPU\nload_tensors: CUDA0 model buffer size = 5000.00 MiB\n",
        "CUDA error: foo\nsrv  llama_server: initializing\n"
        "load_tensors: offloaded 33/33 layers to GPU\nload_tensors: CUDA0 model buffer size = 5000.00 MiB\n",
        "other | error loading model: foo\n[41000] load_tensors: offloaded 33/33 layers to GPU\n",
    ],
)
def test_a_clients_request_does_not_change_the_verdict(capsys, server, monkeypatch, request_log):
    clean = run(capsys, url=server.url, container="llama")[1]
    engine = FakeEngine()
    engine.text += request_log
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    result = run(capsys, url=server.url, container="llama")[1]
    assert (result["verdict"], result["evidence"]) == ("cpu", clean["evidence"])


def test_the_driver_corroborates(capsys, server, monkeypatch):
    engine = FakeEngine(log="captured/quiet")
    monkeypatch.setattr(inference_check, "open_engine", lambda name: engine)
    monkeypatch.setattr(inference, "gpu_processes", lambda: "4242, 2900 MiB\n17, 5000 MiB\n")
    result = run(capsys, url=server.url, container="llama", expect={"verdict": ["proven"]})[1]
    assert (result["verdict"], result["evidence"]["sources"]) == ("proven", ["log", "nvidia-smi"])
    assert "hold 2900 MiB" in result["reasons"][-1]
    # Kept evidence holds the driver's word already, which is not said twice
    again = run(capsys, url=server.url, container="llama", evidence=result["evidence"])[1]
    assert (again["verdict"], again["evidence"]["sources"]) == ("proven", ["stored", "nvidia-smi"])
    assert sum("The GPU driver" in reason for reason in again["reasons"]) == 1


def test_nvidia_smi_is_called_with_a_limit(monkeypatch, tmp_path):
    monkeypatch.undo()
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert inference.gpu_processes() is None
    tool.write_text("#!/bin/sh\necho \"4242, 10 MiB\"\n")
    tool.chmod(0o755)
    assert inference.gpu_processes() == "4242, 10 MiB\n"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert inference.gpu_processes() is None
    seen = {}

    def hang(argv, **options):
        seen.update(argv=argv, **options)
        raise subprocess.TimeoutExpired(argv, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert inference.gpu_processes() is None
    assert seen["argv"][1:] == ["--query-compute-apps=pid,used_memory", "--format=csv,noheader"]
    assert seen["timeout"] == 15


# --- expectations


def test_an_unmet_expectation_keeps_all_results(capsys, server):
    code, result = run(capsys, url=server.url, container="llama", expect={"verdict": ["proven", "partial"], "min_tokens_per_second": 100})
    assert code == 1
    assert "expected proven or partial, found cpu. All 235 MiB of weights lie in host memory" in result["msg"]
    assert "Expected at least 100 tokens/s (min_tokens_per_second), found 61.3." in result["msg"]
    assert (result["verdict"], result["passed"], result["answer"]) == ("cpu", False, "The sea.")
    assert "given a GPU" in result["hint"]


def test_a_met_expectation(capsys, server):
    expect = {"verdict": ["cpu"], "min_tokens_per_second": 1, "max_time_to_first_token_seconds": 60, "max_ready_seconds": 60}
    assert run(capsys, url=server.url, container="llama", expect=expect)[0] == 0


@pytest.mark.parametrize("expect", [{"verdict": ["prooven"]}, {"min_token_per_second": 3}, {"min_tokens_per_second": "fast"}])
def test_a_wrong_expectation(capsys, server, expect):
    code, result = run(capsys, url=server.url, container="llama", expect=expect)
    assert code == 1 and server.requests == []
    assert "expect" in result["msg"]


def test_no_tokens_at_all(capsys, server):
    assert "at least 1 token" in run(capsys, url=server.url, max_tokens=0)[1]["msg"]


def test_a_plan_is_put_beside_the_log(capsys, server, monkeypatch):
    """The captured log has 65.16 MiB of weights, KV caches of 12 and 37.5, and 23.52 for computing."""
    monkeypatch.setattr(inference_check, "open_engine", lambda name: FakeEngine(log="captured/vulkan-full"))
    share = {"device": "GPU 0", "index": 0, "weights_mib": 65.16, "kv_mib": 49.5, "state_mib": 0.0, "compute_mib": 23.52}
    _code, found = run(capsys, url=server.url, container="llama", planned={"breakdown": [share], "visible": [0]})
    assert found["planned"][0]["total"] == {"planned_mib": 138.18, "actual_mib": 138.18, "percent": 0.0} and found["findings"] == []
    _code, off = run(capsys, url=server.url, container="llama", planned={"breakdown": [{**share, "kv_mib": 25.0}]})
    assert off["passed"] and off["planned"][0]["kv"]["percent"] == 98.0
    assert "kv 50 MiB where 25 were planned" in off["findings"][0]["message"]
    assert run(capsys, url=server.url, container="llama")[1]["planned"] == []
