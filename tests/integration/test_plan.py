# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings left to a plan, from the first look to the buffers of the log.

The GPU of the plan is one of ``tests/fixtures/fake-gpu-host``: a tree of files. The server is the real one with a real model on Mesa's
software device, whose buffers are compared with the plan; what needs memory to run out is done with ``tests/fixtures/fake-llama-server``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import stand_ins
import support
import yaml
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import STRING, U32, Value, gguf_bytes
from support import docker, inspect

NAME = "aikit-e2e-plan"
TIGHT = "localhost/aikit-e2e/tight:1"
FAKE = support.ROOT / "tests/fixtures/fake-llama-server/llama-server"
AUTO = {"gpu_layers": "auto", "context_size": "auto"}


def tree(folder, scenario):
    subprocess.run([str(support.ROOT / "tests/fixtures/fake-gpu-host/make-tree"), str(folder), scenario], check=True)
    return ("-e", f"__inference_root={folder}")


@pytest.fixture(scope="module")
def own(quickstart, tmp_path_factory):
    found = support.Project(tmp_path_factory.mktemp("plan"))
    found.t4 = tree(found.path / "t4", "t4")
    yield found
    for name in (NAME, f"{NAME}--previous"):
        docker("rm", "--force", "--volumes", name, check=False)


def env():
    return dict(word.split("=", 1) for word in inspect(NAME)["Config"]["Env"])


def serve(own, **more):
    """The real model on the software device."""
    options = {"base_variant": "vulkan", "environment": {"GGML_VK_VISIBLE_DEVICES": "0"}, "expect": {"verdict": ["software"]}, "settings": AUTO}
    own.services = []
    # The first start compiles shaders, on a CPU that may be busy
    return own.service(NAME, more.pop("port", None) or support.free_port(), **{"timeout_seconds": 1800, **options, **more})


@pytest.fixture(scope="module")
def served(own):
    serve(own)
    check = own.run("deploy.yml", "--check", "--diff", *own.t4)
    assert check.code == 0, check.output[-4000:]
    run = own.run("deploy.yml", *own.t4)
    assert run.code == 0, run.output[-4000:]
    return own, check, run


def test_check_mode_says_what_the_plan_is(served):
    _own, check, _run = served
    lines = check.results("Show the plan")[0]["msg"]
    assert lines[0].startswith(f"{NAME}: planned, 19/19 layers, context 32768.")
    assert "  gpu_layers: 19" in lines and any(line.startswith("  GPU 0 (Tesla T4): weights ") for line in lines)


def test_the_container_gets_explicit_settings(served):
    own, _check, run = served
    found = env()
    assert (found["LLAMA_ARG_N_GPU_LAYERS"], found["LLAMA_ARG_CTX_SIZE"], found["LLAMA_ARG_FIT"]) == ("19", "32768", "off")
    current = own.state_of(NAME)["current"]
    assert current["settings"]["gpu_layers"] == 19 and current["release"]["fit"]["confidence"] in ("exact", "known")
    # The image itself says what it always said
    image = json.loads(docker("inspect", inspect(NAME)["Image"]))[0]
    assert "LLAMA_ARG_CTX_SIZE=2048" in image["Config"]["Env"]
    (result,) = [result for result in run.results(f"Prove the answers of {NAME}") if "planned" in result]
    (row,) = result["planned"]
    assert row["device"] == "Vulkan0" and abs(row["kv"]["percent"]) < 0.1 and abs(row["compute"]["percent"]) < 1, row
    # Mesa's device does not take the output matrix, which is the embeddings' and stays with them: 170 MiB. It is noticed
    assert abs(row["weights"]["planned_mib"] - row["weights"]["actual_mib"] - 170) < 0.2, row
    assert "weights 65 MiB where 235 were planned" in result["findings"][0]["message"]


def test_a_second_deployment_keeps_the_plan(served):
    own, _check, _run = served
    before = inspect(NAME)["Id"]
    again = own.run("deploy.yml", *own.t4)
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
    assert inspect(NAME)["Id"] == before
    assert again.results("Show the plan")[-1]["msg"][0].startswith(f"{NAME}: keeps its plan")


def test_what_the_user_sets_wins_and_builds_nothing(served):
    own, _check, _run = served
    image = inspect(NAME)["Image"]
    serve(own, port=own.services[0]["port"], settings={"gpu_layers": "auto", "context_size": 1024})
    check = own.run("deploy.yml", "--check", "--diff", *own.t4)
    (told,) = [result for result in check.results("Make room for the container") if result["changed"]]
    assert '"context_size": 32768' in told["diff"]["before"] and '"context_size": 1024' in told["diff"]["after"]
    run = own.run("deploy.yml", *own.t4)
    assert run.code == 0, run.output[-4000:]
    assert env()["LLAMA_ARG_CTX_SIZE"] == "1024" and env()["LLAMA_ARG_N_GPU_LAYERS"] == "19" and inspect(NAME)["Image"] == image
    assert not [result for result in run.results("Assemble the image") if result["changed"]]
    assert own.run("deploy.yml", *own.t4).changed == 0


def test_plan_writes_a_table_and_a_document_and_changes_nothing(served):
    own, _check, _run = served
    target = own.path / "plan.json"
    run = own.run("aikit.fleet.plan", *own.t4, "-e", f"inference_plan_report={target}", "-e", "inference_plan_strict=true")
    assert (run.code, run.changed) == (0, 0), run.output[-3000:]
    (table,) = run.results("What fits where")
    assert table["msg"][2].split()[:4] == ["localhost", NAME, "full", "19/19"]
    document = json.loads(target.read_text())
    context = own.state_of(NAME)["current"]["settings"]["context_size"]
    assert document["fits"] and document["known"] and document["hosts"]["localhost"]["services"][NAME]["settings"]["context_size"] == context


def test_models_of_a_list_where_there_is_no_driver(served):
    own, _check, _run = served
    model = {"source": str(support.MODEL_DIR / support.MODEL_NAME), "sha256": support.MODEL_SHA256}
    listed = json.dumps({"inference_plan_models": [model]})
    run = own.run("aikit.fleet.plan", *own.t4, "-e", listed)
    (table,) = run.results("What fits where")
    assert table["msg"][2].split()[:5] == ["localhost", "gemma-3-270m-q4_k_m.gguf", "full", "19/19", "32768"], table
    virgin = tree(own.path / "virgin", "h100-no-driver")
    later = own.run("aikit.fleet.plan", *virgin, "-e", listed)
    assert later.code == 0 and "after provisioning: the NVIDIA driver is absent" in later.results("What fits where")[0]["msg"][2]
    strict = own.run("aikit.fleet.plan", *virgin, "-e", listed, "-e", "inference_plan_strict=true")
    assert strict.code != 0 and "is not known to fit yet" in strict.messages()


# --- a GPU that runs out of memory -----------------------------------------------------------------------------------


def wide_model(path):
    """A file of some kilobytes whose cache takes an eighth of a MiB for each token."""
    metadata = {
        "general.architecture": Value(STRING, "llama"),
        "general.name": Value(STRING, "Wide"),
        "llama.block_count": Value(U32, 2),
        "llama.context_length": Value(U32, 1048576),
        "llama.embedding_length": Value(U32, 256),
        "llama.feed_forward_length": Value(U32, 512),
        "llama.attention.head_count": Value(U32, 64),
        "llama.attention.head_count_kv": Value(U32, 64),
        "llama.attention.key_length": Value(U32, 256),
        "llama.attention.value_length": Value(U32, 256),
    }
    tensors = [("token_embd.weight", (256, 64), 0), ("output_norm.weight", (256,), 0)]
    for layer in range(2):
        tensors += [(f"blk.{layer}.ffn_up.weight", (256, 512), 1), (f"blk.{layer}.ffn_down.weight", (512, 256), 1)]
    path.write_bytes(gguf_bytes(metadata=metadata, tensors=tensors))


def fake_server(folder, name, limit):
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    for part in ("bin", "usr/bin", "models"):
        (root / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in ("sh", "cat"):
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(FAKE, root / "usr/bin/llama-server")
    wide_model(root / "models/wide.gguf")
    (root / "limit").write_text(f"{limit}\n")
    with tarfile.open(folder / "image.tar", "w") as writer:
        writer.add(root, ".")
    changes = ['ENTRYPOINT ["/usr/bin/llama-server"]', "ENV LLAMA_ARG_MODEL=/models/wide.gguf", "ENV PATH=/usr/bin:/bin"]
    docker("import", *(f"--change={change}" for change in changes), str(folder / "image.tar"), name)


@pytest.fixture
def tight(own, tmp_path):
    """A pre-made image, and the context that its first plan gives."""
    name = TIGHT
    docker("rm", "--force", "--volumes", NAME, check=False)
    shutil.rmtree(own.state, ignore_errors=True)
    fake_server(tmp_path, name, 10**9)
    own.services = [{"name": NAME, "image": name, "port": support.free_port(), "base_variant": "vulkan", "settings": AUTO, "expect": {"verdict": ["proven"]}}]
    own.write()
    run = own.run("aikit.fleet.plan", *own.t4)
    assert run.code == 0, run.output[-3000:]
    context = int(run.results("What fits where")[0]["msg"][2].split()[4])
    assert 8192 < context < 131072
    yield name, context
    for container in (NAME, f"{NAME}--previous"):
        docker("rm", "--force", "--volumes", container, check=False)
    docker("rmi", "--force", name, check=False)


def test_one_step_down_is_remembered(own, tight, tmp_path):
    name, context = tight
    fake_server(tmp_path, name, context - 1)
    run = own.run("deploy.yml", *own.t4)
    assert run.code == 0, run.output[-5000:]
    state = own.state_of(NAME)
    smaller = state["current"]["settings"]["context_size"]
    assert 0.5 * context < smaller < context and int(env()["LLAMA_ARG_CTX_SIZE"]) == smaller
    assert state["step_down"]["count"] == 1 and "memory" in state["step_down"]["reason"] and state["pending"] is None
    assert state["current"]["release"]["fit"]["step_down"] == 1 and state["current"]["verdict"] == "proven"
    (row,) = [result["planned"] for result in run.results(f"Prove the answers of {NAME}") if result.get("planned")][-1]
    assert row["kv"]["percent"] == 0.0
    # Later runs know, and try nothing
    again = own.run("deploy.yml", *own.t4)
    assert (again.code, again.changed) == (0, 0), again.output[-3000:]
    table = own.run("aikit.fleet.plan", *own.t4)
    assert "step 1" in table.results("What fits where")[0]["msg"][2]
    # It can be forgotten: with more room, all of it is used again
    fake_server(tmp_path, name, 10**9)
    forgotten = own.run("deploy.yml", *own.t4, "-e", "inference_replan=true")
    assert forgotten.code == 0, forgotten.output[-4000:]
    state = own.state_of(NAME)
    assert state["current"]["settings"]["context_size"] >= context and not state["step_down"]
    assert own.run("deploy.yml", *own.t4).changed == 0


def test_a_second_failure_fails_the_host_and_the_old_one_answers(own, tight, tmp_path):
    name, context = tight
    assert own.run("deploy.yml", *own.t4).code == 0
    before = inspect(NAME)["Id"]
    fake_server(tmp_path, name, 100)
    run = own.run("deploy.yml", *own.t4)
    assert run.code != 0 and "cudaMalloc failed" in run.messages() and "answers again" in run.messages(), run.output[-4000:]
    assert inspect(NAME)["Id"] == before and inspect(NAME)["State"]["Running"]
    assert own.state_of(NAME)["step_down"]["count"] == 1


# --- LocalAI -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def local_ai(own, tmp_path):
    """A pre-made image as AIKit makes them, with a model that can be read, and a server that says what a card with it says."""
    name = "localhost/aikit-e2e/planned-localai:1"
    docker("rm", "--force", "--volumes", NAME, check=False)
    shutil.rmtree(own.state, ignore_errors=True)
    lines = (support.ROOT / "tests/fixtures/logs/made/localai-xlog-json-cuda.log").read_text().splitlines()
    root = stand_ins.localai_root(tmp_path / "root", [json.loads(line)["line"] for line in lines])
    (root / "models").mkdir()
    wide_model(root / "models/fake-model.gguf")
    (root / "cuda").touch()
    with tarfile.open(tmp_path / "image.tar", "w") as writer:
        writer.add(root, ".")
    changes = ['ENTRYPOINT ["local-ai"]', "ENV CONFIG_FILE=/config.yaml", "ENV PATH=/usr/bin:/bin"]
    docker("import", *(f"--change={change}" for change in changes), str(tmp_path / "image.tar"), name)
    own.services = [{"name": NAME, "image": name, "port": support.free_port(), "base_variant": "vulkan", "settings": AUTO, "expect": {"verdict": ["proven"]}}]
    own.write()
    yield name
    for container in (NAME, f"{NAME}--previous"):
        docker("rm", "--force", "--volumes", container, check=False)
    docker("rmi", "--force", name, check=False)


def served_configuration():
    (mount,) = [mount for mount in inspect(NAME)["Mounts"] if mount["Destination"] == "/config.yaml"]
    assert mount["RW"] is False
    (model,) = yaml.safe_load(Path(mount["Source"]).read_text())
    return model


def test_the_plan_of_a_host_is_mounted_over_the_configuration_of_localai(own, local_ai):
    run = own.run("deploy.yml", *own.t4)
    assert run.code == 0, run.output[-5000:]
    # Planned twice, before and after the provisioning, and read once
    assert len(run.results("Read what the image says of itself")) == 3
    assert len([result for result in run.results("Read the headers of its models") if not result.get("skipped")]) == 1
    small, current = served_configuration(), own.state_of(NAME)["current"]
    assert current["release"]["server"] == "localai" and current["settings"]["context_size"] == small["context_size"] > 8192
    assert (small["gpu_layers"], small["flash_attention"], small["cache_type_k"], small["no_kv_offloading"]) == (3, "on", "f16", False)
    assert small["options"] == ["parallel:1", "verbosity:4"] and small["parameters"] == {"model": "fake-model.gguf", "batch": 512}
    # What the plan does not decide is the image's
    assert small["template"] == {"chat": "{{.Input}}\n"} and small["backend"] == "llama-cpp"
    before, image = inspect(NAME)["Id"], inspect(NAME)["Image"]
    again = own.run("deploy.yml", *own.t4)
    assert (again.code, again.changed) == (0, 0) and inspect(NAME)["Id"] == before, again.output[-3000:]
    # On another card: other settings, the same image
    check = own.run("deploy.yml", "--check", "--diff", *tree(own.path / "large", "h100-loaded"))
    (told,) = [result for result in check.results("Make room for the container") if result["changed"]]
    assert f'"context_size": {small["context_size"]}' in told["diff"]["before"]
    larger = own.run("deploy.yml", "-e", f"__inference_root={own.path / 'large'}")
    assert larger.code == 0, larger.output[-5000:]
    assert served_configuration()["context_size"] > small["context_size"] and inspect(NAME)["Image"] == image
