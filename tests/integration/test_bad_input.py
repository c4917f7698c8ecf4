# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is wrong with what was given: the error says what, where and what to do, and nothing was changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
import support
from helpers import BASE, gguf, serving, task, tiny_base
from support import docker

NAME = "aikit-e2e-bad"
IMAGE = "localhost/aikit-e2e/bad:1"
ZEROS = "0" * 64


def refused(result, *words):
    """The task failed, changed nothing, and its message holds every one of ``words``."""
    assert result.get("failed") is True and not result.get("changed"), result
    missing = [word for word in words if word not in result["msg"]]
    assert not missing, f"{missing} not in: {result['msg']}"


def tree(folder: Path) -> dict[str, int]:
    """Every file below ``folder`` with its size. Locks hold nothing and stay."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def has_image(name: str = IMAGE) -> bool:
    return docker("images", "--quiet", name) != ""


@pytest.fixture
def folder(tmp_path):
    """A build context with a good model, and a base that is small and counts as one."""
    (tmp_path / "tiny.gguf").write_bytes(gguf())
    tiny_base(tmp_path / "base.tar")
    yield tmp_path
    docker("rmi", "--force", IMAGE, check=False)


def build(folder: Path, check: bool = False, **more):
    """aikit_image with everything of its own below ``folder``."""
    definition = {"apiVersion": "v1alpha1", "models": [{"name": "tiny", "source": "tiny.gguf"}]}
    arguments = {
        "name": IMAGE,
        "definition": definition,
        "context": str(folder),
        "server": "llama_cpp",
        "base": str(folder / "base.tar"),
        "store": str(folder / "store"),
        "cache": str(folder / "cache"),
        "load": ["docker"],
        **more,
    }
    return task("aikit_image", check, **{key: value for key, value in arguments.items() if value is not None})


def models(**model):
    return {"apiVersion": "v1alpha1", "models": [{"name": "tiny", "source": "tiny.gguf", **model}]}


# --- the aikitfile ---------------------------------------------------------------------------------------------------

AIKITFILES = {
    "unknown key": ("apiVersion: v1alpha1\nruntimes: cuda\nmodels: []\n", ["bad.yaml:2", "runtimes", "did you mean runtime?"]),
    "unknown key of config": (
        "apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: a.gguf\nconfig: |\n  - name: a\n    contextsize: 'x'\n    threads: many\n",
        ["bad.yaml:8", "config[0].threads", "a whole number", "'many'"],
    ),
    "wrong type": ("apiVersion: v1alpha1\nmodels:\n  name: a\n  source: a.gguf\n", ["bad.yaml:2", "models", "must be a list", "a mapping"]),
    "duplicate key": (
        "apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: a.gguf\n    name: b\n",
        ["bad.yaml:5", "models[0].name", "is there twice", "line 3"],
    ),
    "bad sha256": (
        "apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: a.gguf\n    sha256: sha256:abc\n",
        ["bad.yaml:5", "models[0].sha256", "'sha256:abc'", "64 digits"],
    ),
    "no YAML": ("apiVersion: v1alpha1\nmodels: [\n", ["bad.yaml", "is no valid YAML", "line 3"]),
    "model that is not there": (
        "apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: a.gguf\nconfig: |\n  - name: a\n    parameters:\n      model: b.gguf\n",
        ["bad.yaml:8", "config[0].parameters.model", "'b.gguf'", "did you mean a.gguf?"],
    ),
    "secret in a source": (
        "apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: https://example/a.gguf?token=SUPERSECRET\n",
        ["bad.yaml:4", "models[0].source", "token=***", "would end in the image", "option token"],
    ),
    "out of the context": (
        "apiVersion: v1alpha1\nmodels:\n  - name: a\n    source: ../../etc/a.gguf\n",
        ["bad.yaml:4", "models[0].source", "leads out of the build context"],
    ),
}


@pytest.mark.parametrize("case", AIKITFILES, ids=lambda case: case.replace(" ", "-"))
def test_an_aikitfile_is_refused_with_path_and_line(case, tmp_path):
    text, words = AIKITFILES[case]
    (tmp_path / "bad.yaml").write_text(text)
    refused(task("aikitfile", src=str(tmp_path / "bad.yaml"), dest=str(tmp_path / "written.yaml")), *words)
    assert not (tmp_path / "written.yaml").exists()


def test_the_builder_refuses_an_aikitfile_before_it_does_anything(quickstart, folder):
    (folder / "bad.yaml").write_text("apiVersion: v1alpha1\nmodel:\n  - name: tiny\n    source: tiny.gguf\n")
    before = tree(folder)
    refused(build(folder, definition=None, src=str(folder / "bad.yaml"), archive=str(folder / "out.tar")), "bad.yaml:2", "did you mean models?")
    assert tree(folder) == before and not has_image()


# --- models ----------------------------------------------------------------------------------------------------------

BAD_MODELS = {
    "missing": (None, {}, ["tiny", "source tiny.gguf", "names no file below", "relative to the folder"]),
    "web page": (b"<!DOCTYPE html><title>Sign in</title>", {}, ["tiny.gguf is no GGUF file", "byte 0", "a web page"]),
    "truncated": (gguf()[:-100], {}, ["tiny.gguf", "cut", "bytes"]),
    "other content": (gguf(), {"sha256": ZEROS}, ["tiny.gguf has another sha256", f"found {hashlib.sha256(gguf()).hexdigest()}", f"expected {ZEROS}"]),
}


@pytest.mark.parametrize("case", BAD_MODELS, ids=lambda case: case.replace(" ", "-"))
def test_a_bad_model_is_refused(quickstart, folder, case):
    content, model, words = BAD_MODELS[case]
    (folder / "tiny.gguf").unlink()
    if content is not None:
        (folder / "tiny.gguf").write_bytes(content)
    refused(build(folder, definition=models(**model), archive=str(folder / "out.tar")), *words)
    assert not (folder / "out.tar").exists() and not has_image()


@pytest.mark.parametrize("case", BAD_MODELS, ids=lambda case: case.replace(" ", "-"))
def test_a_bad_model_does_not_come_into_the_store(tmp_path, case):
    content, model, words = BAD_MODELS[case]
    source = tmp_path / "tiny.gguf"
    if content is not None:
        source.write_bytes(content)
    result = task("model_file", source=str(source), store=str(tmp_path / "store"), **model)
    refused(result, *(["tiny.gguf", "does not exist"] if content is None else words))
    assert not list((tmp_path / "store").glob("sha256/*/*")) and not list((tmp_path / "store").glob("partial/*.part"))


def test_a_model_outside_of_the_context_is_refused(quickstart, folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.gguf"
    outside.write_bytes(gguf())
    (folder / "tiny.gguf").unlink()
    (folder / "tiny.gguf").symlink_to(outside)
    refused(build(folder), "tiny.gguf", "leads out of the context", str(outside), "copy the file there")
    refused(build(folder, definition=models(source=f"../{folder.name}/../x.gguf")), "models[0].source", "leads out of the build context")
    assert not has_image()


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("huggingface://owner", "huggingface://NAMESPACE/REPOSITORY/FILE"),
        ("huggingface://owner/repository/a/b/model.gguf", "huggingface://owner/repository@main/a/b/model.gguf"),
        ("oci://model:1", "oci://REGISTRY/NAME:TAG"),
    ],
)
def test_sources_that_name_nothing_are_refused_with_what_to_do(tmp_path, source, hint):
    refused(task("model_file", source=source, store=str(tmp_path / "store")), source.partition(":")[0], hint)
    assert not tree(tmp_path)


def test_a_source_whose_content_nobody_vouches_for_is_refused(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web/tiny.gguf").write_bytes(gguf())
    store = tmp_path / "store"
    with serving(tmp_path / "web") as address:
        refused(task("model_file", source=f"{address}/tiny.gguf", store=str(store)), f"{address}/tiny.gguf", "set require_sha256 to false")
        assert not [path for path in tree(tmp_path) if path.startswith("store") and path.endswith(("gguf", "part"))]
        assert task("model_file", source=f"{address}/tiny.gguf", store=str(store), require_sha256=False)["changed"]


def test_a_secret_is_shown_nowhere(quickstart, folder):
    """Neither in the message nor in anything else that a result with -vvv holds."""
    result = build(folder, definition=models(source="https://example.invalid/a.gguf?token=SUPERSECRET"), archive=str(folder / "out.tar"))
    refused(result, "token=***", "option token")
    assert "parsed" not in result["invocation"]["module_args"]
    assert "SUPERSECRET" not in json.dumps(result)


def test_an_image_gets_no_keys_of_the_service(quickstart, folder):
    config = "- name: tiny\n  parameters:\n    model: tiny.gguf\n  options: ['--api-key:SECRET', '-hft:SECRET', '--ssl-key-file:/x', '--log-file:/dev/null']\n"
    result = build(folder, definition={**models(), "config": config})
    refused(result, "config[0].options[0]", "--api-key", "set api_key at the service", "-hft", "inference_model_token", "--ssl-key-file", "--log-file")
    assert "SECRET" not in result["msg"] and not has_image()


def test_two_files_of_one_name(quickstart, folder):
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / name / "m.gguf").write_bytes(gguf())
    two = {"apiVersion": "v1alpha1", "models": [{"name": name, "source": f"{name}/*.gguf"} for name in ("x", "y")]}
    refused(build(folder, definition=two), f"{folder}/x/m.gguf", f"{folder}/y/m.gguf", "cannot both be in the image")
    with serving(folder) as address:
        two["models"] = [{"name": f"{name}/m", "source": f"{address}/{name}/m.gguf"} for name in ("x", "y")]
        refused(build(folder, definition=two, load=[]), "No sha256 is given", "set require_sha256 to false")
        assert build(folder, definition=two, load=[], require_sha256=False)["changed"]
        three = {**two, "models": [*two["models"], {"name": "z", "source": "https://example.invalid/z.gguf"}]}
        refused(build(folder, definition=three, token="t0ken"), "example.invalid", "option tokens")
    assert not has_image()


def test_a_definition_without_a_context(quickstart, folder):
    refused(build(folder, context=None), "tiny.gguf is relative", "option context")


def test_a_template_of_localai_that_is_not_marked(quickstart, folder):
    definition = models(promptTemplates=[{"name": "chat", "template": "[INST] {{.Input}} [/INST]"}])
    for result in (build(folder, definition=definition), task("aikitfile", definition=definition)):
        assert result["failed"] and "definition: !unsafe" in json.dumps(result), result


# --- base and image --------------------------------------------------------------------------------------------------


def test_a_base_without_its_description(quickstart, folder):
    (folder / "base.tar.json").unlink()
    refused(build(folder), f"{folder}/base.tar.json", "does not exist", "role llama_cpp_base")
    assert not has_image()


def test_a_base_with_other_bytes(quickstart, folder):
    with open(folder / "base.tar", "r+b") as handle:
        handle.seek(600)
        handle.write(b"!")
    refused(build(folder), f"{folder}/base.tar", "its description says", "llama_cpp_base_refresh: true")
    assert not has_image()


def test_cuda_on_a_base_without_cuda(quickstart, folder):
    definition = {**models(), "runtime": "cuda"}
    refused(build(folder, definition=definition, base=str(BASE)), "runtime: cuda needs", "this base has: cpu", "llama_cpp_base_variant")
    assert not has_image() and not tree(folder / "store")


@pytest.mark.parametrize("name", ["Localhost/Bad Name", "localhost/UPPER:1", "localhost/x:", ""])
def test_an_image_name_that_is_none(quickstart, folder, name):
    refused(build(folder, name=name, archive=str(folder / "out.tar")), f"name: '{name}'" if name else "name")
    assert not (folder / "out.tar").exists()


def flip(path: Path, position: int) -> None:
    with open(path, "r+b") as handle:
        handle.seek(position)
        byte = handle.read(1)
        handle.seek(position)
        handle.write(bytes([byte[0] ^ 0xFF]))


def test_a_damaged_archive_is_not_loaded(quickstart, folder):
    archive = folder / "out.tar"
    built = build(folder, load=[], archive=str(archive))
    assert built["changed"], built
    size = archive.stat().st_size
    with tarfile.open(archive) as reader:
        # The model's layer; its file begins after a header
        (blob,) = [member for member in reader if member.name.endswith(built["image"]["layers"][1]["digest"].removeprefix("sha256:"))]
    flip(archive, blob.offset_data + 700)
    arguments = {"name": IMAGE, "image": built["image"], "archive": str(archive), "engine": "docker"}
    refused(task("aikit_image_load", **arguments), str(archive), built["image"]["layers"][1]["digest"].removeprefix("sha256:"), "run again")
    assert not has_image()
    flip(archive, blob.offset_data + 700)
    os.truncate(archive, blob.offset_data + 700)
    refused(task("aikit_image_load", **arguments), str(archive), "unexpected end")
    archive.write_bytes(b"no tar at all" * 100)
    refused(task("aikit_image_load", **arguments), str(archive), "is no image archive")
    assert not has_image()
    refused(task("aikit_image_load", check=True, **{**arguments, "archive": str(folder / "none.tar")}), f"there is no file {folder}/none.tar")
    refused(task("aikit_image_load", **{**arguments, "image": {"id": built["image"]["id"], "layers": "abc"}}), "layers: must be a list")
    # What is whole is taken, so none of the refusals was for another reason
    assert build(folder, load=[], archive=str(archive))["bytes_written"] == size
    assert task("aikit_image_load", **arguments)["present"] and has_image()
    # A file, and nothing larger
    assert "tiny" in task("aikit_image_info", name=IMAGE, config_path="/aikit/aikitfile.yaml", engine="docker")["config"]
    refused(task("aikit_image_info", name=IMAGE, config_path="/models", engine="docker"), "/models", "is a folder")


# --- the engine and the disk -----------------------------------------------------------------------------------------


@pytest.fixture
def dead_socket(tmp_path, monkeypatch):
    """A socket that nobody listens on, as after a crash of the daemon."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_no_engine_answers(quickstart, folder, dead_socket, monkeypatch):
    words = [f"unix://{dead_socket}", "systemctl start docker"]
    refused(build(folder, archive=str(folder / "out.tar")), *words)
    assert not (folder / "out.tar").exists()
    refused(task("aikit_image_load", name=IMAGE, image={"id": f"sha256:{ZEROS}"}, engine="docker"), *words)
    refused(task("inference_release", name=NAME, step="absent", engine="docker", state_dir=str(folder / "state")), *words)
    refused(task("inference_check", url="http://127.0.0.1:9", container=NAME, engine="docker", timeout_seconds=1), *words)
    assert not (folder / "state").exists()


def test_doctor_says_that_no_engine_answers(project, dead_socket):
    project.service(NAME, support.free_port(), engine="docker")
    run = project.run("aikit.fleet.doctor")
    assert run.code != 0 and run.changed == 0
    assert f"Docker does not answer at unix://{dead_socket}" in run.output, run.output[-3000:]


@pytest.fixture
def small_disk(tmp_path):
    """One mebibyte."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def big_model(folder):
    """Two mebibytes; what is behind the last tensor does not matter."""
    path = folder / "tiny.gguf"
    os.truncate(path, 2 << 20)
    return path


def test_no_space_for_an_archive(quickstart, folder, big_model, small_disk):
    words = [f"the image archive {small_disk}/out.tar", "MB free"]
    refused(build(folder, load=[], archive=str(small_disk / "out.tar")), *words)
    assert not tree(small_disk)
    refused(build(folder, check=True, load=[], archive=str(small_disk / "out.tar")), *words)


def test_no_space_in_the_store(big_model, small_disk):
    store = str(small_disk / "store")
    refused(task("model_file", source=str(big_model), store=store), f"{store} needs 2.1 MB", "1.0 MB free", "larger one")
    refused(task("model_file", check=True, source=str(big_model), store=store), "2.1 MB", "1.0 MB free")
    with serving(big_model.parent) as address:
        refused(task("model_file", source=f"{address}/tiny.gguf", store=store, require_sha256=False), "2.1 MB", "1.0 MB free")
    assert not [path for path in tree(small_disk) if "tiny" in path or path.endswith(".part")]


def test_no_space_on_a_host_for_the_archive_of_its_image(project, small_disk):
    """A host that is not the builder gets an archive; here it is the same machine under another name."""
    project.aikitfile(901, "bad.yaml")
    project.service(NAME, support.free_port(), src="aikitfiles/bad.yaml", image=IMAGE)
    inventory = json.loads((project.path / "inventory.yml").read_text())
    hosts = inventory["aikit_hosts"]["hosts"]
    hosts["second"] = hosts.pop("localhost")
    (project.path / "inventory.yml").write_text(json.dumps(inventory))
    run = project.run("deploy.yml", "-e", f"inference_transfer_dir={small_disk}")
    assert run.code != 0 and not tree(small_disk) and not has_image()
    assert docker("ps", "--all", "--quiet", f"--filter=name=^{NAME}$") == ""
    for word in ("second has not enough disk space", NAME, str(small_disk), "1.00 MB free", "inference_transfer_dir"):
        assert word in run.messages(), run.messages()


# --- what answers on the port ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def greeting(banner: bytes):
    """Something that speaks first, and no HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        with contextlib.suppress(OSError):
            while True:
                connection, _peer = listener.accept()
                with connection:
                    connection.sendall(banner)
                    connection.settimeout(1)
                    with contextlib.suppress(OSError):
                        connection.recv(4096)

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_a_web_server_is_no_inference_server(tmp_path):
    with serving(tmp_path) as url:
        refused(task("inference_check", url=url, timeout_seconds=20), f"Something else answers at {url}", "ss -ltnp", "SimpleHTTP")


def test_an_ssh_server_is_no_inference_server():
    with greeting(b"SSH-2.0-OpenSSH_9.2p1\r\n") as url:
        refused(task("inference_check", url=url, timeout_seconds=20), f"Something else answers at {url}", "SSH-2.0")


# --- the inventory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("playbook", ["deploy", "remove"])
def test_the_group_is_missing(tmp_path, playbook):
    (tmp_path / "inventory.yml").write_text("webservers:\n  hosts:\n    localhost:\n      ansible_connection: local\n")
    run = support.playbook(f"aikit.fleet.{playbook}", "-i", "inventory.yml", cwd=tmp_path)
    assert run.code != 0 and run.changed == 0
    assert "no hosts in group aikit_hosts" in run.messages() and "webservers" in run.messages()


def test_there_is_no_inventory(tmp_path):
    run = support.playbook("aikit.fleet.deploy", "-i", "/dev/null", cwd=tmp_path)
    assert run.code != 0 and "no hosts in group aikit_hosts" in run.messages() and "none" in run.messages(), run.output[-2000:]


def deploy_refused(project, *words):
    """A deployment ends while it plans: no task ran on the host."""
    run = project.run()
    assert run.code != 0 and run.changed == 0, run.output[-3000:]
    missing = [word for word in words if word not in run.messages()]
    assert not missing, f"{missing} not in: {run.messages()}"
    assert docker("ps", "--all", "--quiet", f"--filter=name=^{NAME}$") == "" and not project.state.exists()
    return run


@pytest.fixture
def own(quickstart, tmp_path):
    found = support.Project(tmp_path / "project")
    yield found
    docker("rm", "--force", "--volumes", NAME, check=False)
    docker("rmi", f"localhost/aikit/{NAME}:latest", check=False)


def test_everything_wrong_with_the_services_is_told_at_once(own):
    (own.path / "aikitfiles/bad.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - name: a\n    sources: a.gguf\n")
    own.services = [
        {"name": NAME, "sr": "aikitfiles/gemma.yaml", "src": "aikitfiles/gemma.yaml", "prot": 8080},
        {"name": "second", "src": "aikitfiles/missing.yaml", "port": "http", "settings": {"gpu_layer": 3}},
        {"name": "third", "src": "aikitfiles/bad.yaml", "image": "Registry/UPPER", "expect": {"verdict": ["prooven"]}},
        {"name": NAME, "bind_address": "localhost"},
    ]
    own.write()
    deploy_refused(
        own,
        "inference_services[0].sr",
        "Did you mean src?",
        "inference_services[0].prot",
        "Did you mean port?",
        "aikitfiles/missing.yaml",
        "inference_services[1].port",
        "inference_services[1].settings.gpu_layer",
        "gpu_layers",
        "aikitfiles/bad.yaml:4",
        "did you mean source?",
        "inference_services[2].image",
        "inference_services[2].expect.verdict",
        "inference_services[3].bind_address",
        f"'{NAME}' is the name of inference_services[0] too",
        "has neither src, definition nor image",
    )


def test_a_misspelt_variable(own):
    inventory = json.loads((own.path / "inventory.yml").read_text())
    inventory["aikit_hosts"]["vars"].update(inference_servces=[], inference_state_directory="/x", container_engine_nam="docker")
    (own.path / "inventory.yml").write_text(json.dumps(inventory))
    deploy_refused(own, "inference_servces", "Did you mean inference_services?", "inference_state_directory", "inference_state_dir", "container_engine_nam")


def test_templates_of_localai_that_are_not_marked(own):
    template = {"name": "chat", "template": "[INST] {{.Input}} [/INST]"}
    model = {"name": "gemma", "source": support.MODEL_NAME, "promptTemplates": [template]}
    own.services = [{"name": NAME, "context": str(support.MODEL_DIR), "definition": {"apiVersion": "v1alpha1", "models": [model]}}]
    own.write()
    deploy_refused(own, "inference_services[0].definition.models[0].promptTemplates[0].template", "'{{.Input", "!unsafe")


def test_a_key_that_a_service_may_not_set(own):
    own.service(NAME, support.free_port(), environment={"LLAMA_ARG_PORT": "9000"})
    deploy_refused(own, "inference_services[0].environment", "LLAMA_ARG_PORT", "set port")


def test_gpus_for_an_aikitfile_without_runtime(own):
    own.service(NAME, support.free_port(), gpus=["all"])
    deploy_refused(own, "inference_services[0].gpus", "runtime: cuda", "gpus: []")


def test_gpus_that_this_host_cannot_give(own):
    """Known when the host is looked at, so the engine was asked; what runs is not touched."""
    own.service(NAME, support.free_port())
    assert own.run().code == 0
    before = support.inspect(NAME)
    docker("tag", before["Image"], "localhost/aikit-e2e/cannot:1")
    own.services = [{"name": NAME, "image": "localhost/aikit-e2e/cannot:1", "gpus": ["all"], "port": own.services[0]["port"]}]
    own.write()
    run = own.run()
    # The model's header was read from the image, without a container that stays
    assert docker("ps", "--all", "--quiet", "--filter=status=created", "--filter=ancestor=localhost/aikit-e2e/cannot:1") == ""
    docker("rmi", "localhost/aikit-e2e/cannot:1")
    assert run.code != 0 and NAME in run.messages() and "can give none" in run.messages() and "Container Toolkit" in run.messages(), run.messages()
    after = support.inspect(NAME)
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])


def test_variables_of_the_play_in_group_vars_warn(own):
    (own.path / "group_vars").mkdir()
    (own.path / "group_vars/aikit_hosts.yml").write_text("aikit_serial: 1\n")
    run = own.run("aikit.fleet.plan")
    assert run.code == 0
    words = " ".join(run.output.split())
    assert "aikit_serial" in words and "-e aikit_serial=" in words and "has no effect" in words, run.output[-2000:]
    quiet = own.run("aikit.fleet.plan", "-e", "aikit_serial=1")
    assert "has no effect" not in " ".join(quiet.output.split())


def test_remove_asks_first(own):
    own.service(NAME, support.free_port(), state="stopped")
    run = own.run("aikit.fleet.remove")
    assert run.code != 0 and run.changed == 0 and "-e confirm=yes" in run.messages()
