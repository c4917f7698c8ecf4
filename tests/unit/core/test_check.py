# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judging a server's answers, its container and its speed."""

from __future__ import annotations

import json

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import check
from ansible_collections.aikit.fleet.plugins.module_utils._core.check import Completion, Expectation, Reply
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.offload import Evidence

URL = "http://127.0.0.1:8080"


def reply(document, status=200, server="llama.cpp"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Reply(status, {"server": server} if server else {}, body)


def models(*entries, **more):
    return reply({"object": "list", "data": list(entries)}, **more)


LOADING = reply({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)
GEMMA = {"id": "gemma", "aliases": ["gemma", "small"], "owned_by": "llamacpp", "meta": {"size": 246587904}}


# --- readiness


def test_health_waits_while_a_model_is_loaded():
    assert check.judge_health(LOADING, URL) == check.Step("wait", 'it answers HTTP 503, "Loading model"')
    assert check.judge_health(Reply(error="connection refused"), URL).words == "nothing answers at http://127.0.0.1:8080 (connection refused)"
    assert check.judge_health(reply({"status": "ok"}), URL).state == "ask"
    # LocalAI has no /health of llama.cpp's kind, vLLM's is empty
    assert check.judge_health(reply(b"404 page not found", 404, ""), URL).state == "ask"
    assert check.judge_health(reply(b"", 200, "uvicorn"), URL).state == "ask"


def test_a_listener_that_speaks_no_http():
    with pytest.raises(AikitError, match=r'Something else answers .* \(no HTTP: "SSH-2.0-OpenSSH_9.2"\)'):
        check.judge_health(Reply(body=b"SSH-2.0-OpenSSH_9.2", error="it does not speak HTTP", foreign=True), URL)


def test_models_of_llama_server():
    step = check.judge_models(models(GEMMA), URL)
    assert step == check.Step("ready", "", "gemma", True, True, 246587904)
    assert check.judge_models(models(GEMMA), URL, "small").model == "small"
    assert check.judge_models(models(GEMMA), URL, "", ["small"]).state == "ready"


def test_models_of_localai_load_at_the_first_request():
    step = check.judge_models(models({"id": "llama-3.1-8b-instruct", "object": "model"}, server=""), URL)
    assert (step.state, step.llama_cpp, step.loaded, step.size_bytes) == ("ready", False, False, 0)


def test_a_license_among_the_files_that_localai_lists_is_no_model():
    """LocalAI lists what a config names first, and then files; without a config files alone."""
    listed = models(*({"id": name} for name in ("._m.gguf", "LICENSE", "mmproj-m.gguf", "m.GGUF", "n.gguf")), server="")
    assert check.judge_models(listed, URL, files=True).model == "m.GGUF"
    assert check.judge_models(listed, URL, "n.gguf", files=True).model == "n.gguf"
    assert check.judge_models(listed, URL).model == "._m.gguf", "a name of a config may be anything"
    assert check.judge_models(models({"id": "llama3.2"}, {"id": "x"}, server=""), URL, files=True).model == "llama3.2"
    env = {"CONFIG_FILE": "/config.yaml"}
    assert check.lists_files(env, ()) and check.lists_files(env, ("--debug",))
    assert not check.lists_files(env, ("--debug", "--config-file=/config.yaml")) and not check.lists_files({}, ())


@pytest.mark.parametrize(("status", "state", "loaded"), [("loading", "wait", False), ("unloaded", "ready", False), ("loaded", "ready", True)])
def test_models_of_a_router(status, state, loaded):
    step = check.judge_models(models({**GEMMA, "status": {"value": status}}), URL)
    assert (step.state, step.loaded) == (state, loaded)


def test_a_model_that_the_router_could_not_load():
    broken = {"id": "broken", "owned_by": "llamacpp", "status": {"value": "unloaded", "exit_code": 1, "failed": True}}
    with pytest.raises(AikitError, match="could not load model broken: its process ended with exit code 1"):
        check.judge_models(models(GEMMA, broken), URL, "broken")
    assert check.judge_models(models(GEMMA, broken), URL).model == "gemma"


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, {"server": "nginx/1.22.1"}, b"<!DOCTYPE html><title>Welcome to nginx!</title>"),
        Reply(404, {"server": "nginx/1.22.1"}, b"<html>404 Not Found</html>"),
        Reply(200, {"server": "nginx/1.22.1"}, b'{"jobs": []}'),
        Reply(200, {"server": "nginx/1.22.1"}, b"[1, 2]"),
        Reply(302, {"server": "nginx/1.22.1"}, b""),
    ],
)
def test_something_else_on_the_port_is_named(answer):
    with pytest.raises(AikitError, match=r"Something else answers at http://127.0.0.1:8080.*HTTP \d+ from nginx/1.22.1") as caught:
        check.judge_models(answer, URL)
    assert "ss -ltnp" in caught.value.hint


def test_another_inference_server_on_the_port_is_named():
    with pytest.raises(AikitError, match=r"Another server answers .*: it serves gemma, and the container serves llama \(Server: llama.cpp\)"):
        check.judge_models(models(GEMMA), URL, "", ["llama"])


def test_a_model_that_is_not_there():
    with pytest.raises(AikitError, match="has no model llama; it has gemma"):
        check.judge_models(models(GEMMA), URL, "llama")


def test_no_model_yet_and_errors_on_the_way_are_waited_for():
    assert check.judge_models(models(), URL).words == "it serves no model"
    assert check.judge_models(LOADING, URL).state == "wait"
    assert check.judge_models(Reply(error="connection reset"), URL).state == "wait"
    assert check.judge_models(reply(b"<html>Bad Gateway</html>", 502, "nginx"), URL).words.startswith("it answers HTTP 502")


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_key(status):
    with pytest.raises(AikitError, match="refuses the API key or needs one") as caught:
        check.judge_models(reply({"error": {"message": "Invalid API Key"}}, status), URL)
    assert "api_key" in caught.value.hint


# --- completions


def chunk(text=None, finish=None, **more):
    return {"model": "gemma", "choices": [{"finish_reason": finish, "delta": {"content": text}}], **more}


def collected(*events):
    completion = Completion()
    for index, event in enumerate(events):
        completion.add(event, 1.0 + index)
    return completion


USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def test_a_streamed_completion():
    answer = collected(chunk(None), chunk("The"), chunk(" sea"), chunk("."), chunk(finish="stop"), {"choices": [], **USAGE}).answer("asked")
    assert (answer.text, answer.model, answer.finish_reason) == ("The sea.", "gemma", "stop")
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    # The first chunk has no content; three tokens came one second apart
    assert (answer.time_to_first_token_seconds, answer.tokens_per_second) == (2.0, 1.0)


def test_the_servers_own_timings_win():
    timings = {"timings": {"predicted_n": 3, "predicted_per_second": 61.234}}
    assert collected(chunk("a"), chunk("b", "stop"), {"choices": [], **USAGE, **timings}).answer("").tokens_per_second == 61.23
    one = {"usage": {"completion_tokens": 1}, "timings": {"predicted_n": 1, "predicted_per_second": 1000000.0}}
    assert collected(chunk("a", "length"), {"choices": [], **one}).answer("").tokens_per_second is None


def test_an_answer_in_one_piece_has_no_first_token():
    whole = {"choices": [{"finish_reason": "stop", "message": {"content": "The sea."}}], **USAGE}
    answer = collected(whole).answer("asked")
    assert (answer.text, answer.model, answer.time_to_first_token_seconds, answer.tokens_per_second) == ("The sea.", "asked", None, None)


def test_thoughts_are_tokens():
    thought = {"choices": [{"delta": {"reasoning_content": "hm"}}]}
    assert collected(thought, chunk("The", "stop", **USAGE)).answer("").time_to_first_token_seconds == 1.0


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "completion is empty"),
        ([chunk(finish="stop"), {"choices": [], "usage": {"completion_tokens": 0}}], "completion is empty"),
        ([chunk("a"), {"choices": [], **USAGE}], "no finish_reason"),
        ([chunk("a", "stop")], "no usage"),
        ([chunk("a"), {"error": {"message": "slot unavailable"}}], "slot unavailable"),
        (["<html>"], "something else than a completion: <html>"),
        ([["a"]], "something else than a completion"),
    ],
)
def test_what_is_no_completion(events, words):
    with pytest.raises(AikitError, match=words):
        collected(*events).answer("")


@pytest.mark.parametrize("event", [{"choices": ["x"]}, {"choices": [{"delta": "x"}]}, {"choices": None}, {"usage": 3, "timings": [], "choices": [{}]}])
def test_strange_events_do_not_break_anything(event):
    assert collected(chunk("a", "stop", **USAGE), event).answer("").text == "a"


# --- containers


def test_down():
    assert not check.down("running", True, 3, 3)
    assert check.down("running", True, 4, 3)
    assert check.down("restarting", False, 1, 0)
    assert check.down("exited", False, 0, 0)
    assert check.down("created", False, 0, 0)


def test_an_ended_container_says_why():
    found = Evidence("failed", ('The GPU has not enough memory: "cudaMalloc failed".',), failure="oom")
    log = "".join(f"line {number}\n" for number in range(100))
    message = check.ended("llama", "restarting", 137, 2, found, log).message
    assert message.startswith("Container llama ended with exit code 137 (killed: most often for memory")
    assert "restarted 2 times" in message
    assert "The GPU has not enough memory" in message
    assert "line 80\n" in message and "line 79\n" not in message and message.endswith("  line 99")


def test_other_ends():
    silent = Evidence("unverified", ("no reason to show",))
    assert "SIGILL" in check.ended("llama", "exited", 132, 0, silent, "").message
    assert "no reason" not in check.ended("llama", "exited", 1, 0, silent, "").message
    created = check.ended("llama", "created", 0, 0, silent, "", "port is already allocated")
    assert created.message == "Container llama was created, but never started.\nThe engine says: port is already allocated"
    assert check.ended("llama", "paused", 0, 0, silent, "").hint == "docker unpause llama lets it go on."


def test_never_ready_says_what_it_was_doing():
    error = check.not_ready(URL, 30, 'it answers HTTP 503, "Loading model"', "a\nload_tensors: loading model tensors\n\n")
    assert 'not ready after 30 seconds: it answers HTTP 503, "Loading model"' in error.message
    assert 'Its last log line: "load_tensors: loading model tensors"' in error.message
    assert "did not answer" in check.not_ready(URL, 30, "", "").message


# --- evidence

STORED = {"container_id": "c1", "started_at": "t1", "verdict": "proven", "reasons": ["r"], "layers_offloaded": 33, "layers_total": 33}


def test_stored_evidence_is_of_one_run():
    assert check.stored_evidence(STORED, "c1", "t1").verdict == "proven"
    assert check.stored_evidence(STORED, "c1", "t2") is None
    assert check.stored_evidence(STORED, "c2", "t1") is None
    assert check.stored_evidence({}, "", "") is None
    assert check.stored_evidence({"container_id": "c1", "started_at": "t1"}, "c1", "t1") is None
    assert check.stored_evidence({**STORED, "verdict": "unverified"}, "c1", "t1") is None


def test_compute_apps():
    assert check.compute_apps("4242, 5120 MiB\n4300, [N/A]\n4242, 10 MiB\n\nNo running processes found\n") == {4242: 5130.0, 4300: 0.0}
    assert check.compute_apps("") == {}


SILENT = Evidence("unverified", ("The log is silent.",))


@pytest.mark.parametrize(
    ("held", "size_bytes", "verdict"),
    [
        (6200, 5 * 2**30, "proven"),
        (6100, 5 * 2**30, "unverified"),  # with a context and its buffers beside them, less than the weights
        (3000, 5 * 2**30, "unverified"),
        (1000, 2**28, "unverified"),  # no more than a context takes when all weights of this small model are elsewhere
        (2300, 2**28, "proven"),
        (2048, 0, "unverified"),
        (80000, 0, "unverified"),  # of a model whose size nobody tells
    ],
)
def test_held_memory_speaks_where_the_log_is_silent(held, size_bytes, verdict):
    found, source = check.corroborate(SILENT, {4242: held, 1: 9999}, [4242], size_bytes)
    assert (found.verdict, source) == (verdict, "nvidia-smi")
    assert f"hold {held} MiB" in found.reasons[-1]
    if verdict == "unverified":
        assert "does not prove where the weights are" in found.reasons[-1]
        assert ("the server does not tell the size" in found.reasons[-1]) == (not size_bytes)


@pytest.mark.parametrize("verdict", ["proven", "partial", "cpu", "software", "failed"])
def test_held_memory_lifts_no_other_verdict(verdict):
    found, source = check.corroborate(Evidence(verdict, ("r",)), {4242: 9000}, [4242], 2**20)
    assert (found.verdict, source) == (verdict, "nvidia-smi")


def test_no_held_memory():
    assert check.corroborate(SILENT, {1: 9000}, [4242], 0)[0].reasons[-1] == "The GPU driver sees no compute process of this container."
    proven = Evidence("proven", ("r",))
    assert check.corroborate(proven, {}, [4242], 0) == (proven, "")


def test_resources():
    assert check.resources({"type": "gpu", "gpus": [{"name": "NVIDIA L4"}]}) == "LocalAI's resources list NVIDIA L4."
    assert check.resources({"type": "ram", "gpus": None}) == "LocalAI's resources list no GPU."
    assert check.resources("<html>") == check.resources({}) == check.resources({"type": "gpu", "gpus": []}) == ""


# --- expectations

RESULT = {"verdict": "proven", "reasons": ["r."], "tokens_per_second": 30.0, "time_to_first_token_seconds": 0.5, "ready_seconds": 4.0}


def test_expectations_are_read():
    assert check.expectation(None) == check.expectation({}) == check.expectation({"verdict": None}) == Expectation()
    assert check.expectation({"verdict": ["cpu"], "min_tokens_per_second": 2}) == Expectation(("cpu",), 2)


def test_met():
    assert check.unmet(Expectation(("partial", "proven"), 30.0, 0.5, 4.0), RESULT) == ([], "")
    assert check.unmet(Expectation(), {**RESULT, "verdict": "unverified"}) == ([], "")
    assert check.unmet(Expectation(("failed",)), {**RESULT, "verdict": "failed"}) == ([], "")


@pytest.mark.parametrize("verdict", ["partial", "cpu", "software", "failed", "unverified"])
def test_another_verdict(verdict):
    problems, hint = check.unmet(Expectation(("proven",)), {**RESULT, "verdict": verdict})
    assert problems == [f"The verdict is not as expected: expected proven, found {verdict}. r."]
    assert hint


def test_failed_is_never_good_enough_by_itself():
    assert check.unmet(Expectation(), {**RESULT, "verdict": "failed"})[0] == ["The verdict is not as expected: found failed. r."]


def test_too_slow():
    problems, _hint = check.unmet(Expectation((), 40.0, 0.1, 1.0), RESULT)
    assert problems == [
        "Expected at least 40 tokens/s (min_tokens_per_second), found 30.",
        "Expected at most 0.1 s to the first token (max_time_to_first_token_seconds), found 0.5.",
        "Expected at most 1 s until it was ready (max_ready_seconds), found 4.",
    ]
    problems, hint = check.unmet(Expectation((), 40.0), {**RESULT, "tokens_per_second": None})
    assert "too short to measure" in problems[0] and "max_tokens" in hint
