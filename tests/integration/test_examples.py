# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the documentation shows is run: examples of modules, filters and roles, the README's and the guides' fragments.

Texts are taken as they stand. ``REPLACED`` says what is exchanged in them: addresses that do not exist, folders that are
not a test's to write into, and names that could be those of a real service.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import registries
import stand_ins
import support
import yaml
from ansible_collections.aikit.fleet.tests.oracle import sparse
from ansible_collections.aikit.fleet.tests.unit.hub_server import HubServer
from ansible_collections.aikit.fleet.tests.unit.shapes import shape
from helpers import BASE, gguf, serving, tiny_base
from models import parts, push
from registries import Registry
from support import docker

ROOT = support.ROOT
SERVICE = "aikit-e2e-example"
TINY_SHA256 = hashlib.sha256(gguf()).hexdigest()
PLUGINS = sorted(ROOT.glob("plugins/modules/*.py")) + sorted(ROOT.glob("plugins/filter/*.yml")) + [ROOT / "plugins/filter/unknown_variables.py"]
# Making a base takes a minute and is tested elsewhere; with check mode its packages are still resolved. The others would change this machine
CHECKED = {"llama_cpp_base", "docker_daemon_config", "nvidia_cdi_spec", "nvidia_container_check"}
# What an example takes from tasks before it
VARIABLES = {
    "aikit_image": {"vault_sign_password": "s3cret-word"},
    "aikit_image_load": {"registry_password": "s3cret-word", "build": {"image": {"id": f"sha256:{'0' * 64}", "layers": [{"digest": f"sha256:{'1' * 64}"}]}}},
    "gguf_info": {"model_token": "t0ken"},
    "model_file": {"model_token": "t0ken"},
    "unknown_variables": {"role_path": str(ROOT / "roles/container_engine"), "container_engine_name": "docker"},
}


FLUX = (
    "apiVersion: v1alpha1\nruntime: cuda\nbackends: [diffusers]\n"
    f"models:\n  - name: flux\n    source: https://models.example.com/flux.safetensors\n    sha256: {'f' * 64}\n"
)


@pytest.fixture
def fake_docker():
    """A docker command first on PATH that records and builds nothing; the real one again before anything is cleared away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{ROOT / 'tests/fixtures/fake-docker'}:{os.environ['PATH']}")
        yield


# Keyless signatures need sigstore's servers: in place of those this says that they are good. Keys go to the real cosign
COSIGN = """#!/bin/sh
case "$*" in
*--certificate-identity-regexp=*) echo '[]' ;;
*) exec {program} "$@" ;;
esac
"""


@pytest.fixture
def signing(sandbox, registry, monkeypatch):
    """Keys where the examples have them, and everything in the registry signed with that of its mirror."""
    keys, programs, program = sandbox.path / "aikit", sandbox.path / "programs", registries.cosign()
    keys.mkdir()
    programs.mkdir()
    (programs / "cosign").write_text(COSIGN.format(program=program))
    (programs / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    environment = {**os.environ, "COSIGN_PASSWORD": "s3cret-word"}

    def run(*words: str) -> None:
        subprocess.run([program, *words], cwd=keys, env=environment, check=True, capture_output=True)

    for key in ("mirror", "fleet"):
        run("generate-key-pair", f"--output-key-prefix={key}")
    stand_ins.Pusher(registry.host).image("llama", "1", [stand_ins.layer(stand_ins.entry("llama", b"1"))])
    root = registry.folder / "data/docker/registry/v2/repositories"
    for link in [*root.glob("ghcr/**/tags/*/current/link"), *root.glob("quay/**/tags/*/current/link"), root / "llama/_manifests/tags/1/current/link"]:
        repository = link.relative_to(root).as_posix().partition("/_manifests")[0]
        if not link.parents[1].name.endswith(".sig"):
            key = "fleet" if repository == "llama" else "mirror"
            run("sign", f"--key={key}.key", "--yes", "--tlog-upload=false", f"{registry.host}/{repository}@{link.read_text()}")


@pytest.fixture
def fake_containerd():
    """A containerd first on PATH whose CDI is on; Debian 12 has one that is older than CDI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{ROOT / 'tests/fixtures/fake-containerd'}:{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The registry that the examples push to and read from."""
    with Registry(tmp_path_factory.mktemp("registry")) as made:
        stand_ins.fill(made.host)
        push(made.host, "models/tiny", "1", [("application/vnd.ollama.image.model", gguf(), {})])
        yield made


@pytest.fixture
def hub():
    """The hub that the examples take models from."""
    made = HubServer()
    made.repository("example/tiny-GGUF", {"tiny.gguf": gguf()}, gated="t0ken")
    made.repository("example/split-GGUF", {f"Q4_K_M/{name}": data for name, data in parts().items()})
    yield made
    made.close()


@pytest.fixture
def sandbox(quickstart, registry, hub, tmp_path, monkeypatch):
    """A home, a /srv and a project, each as small as it can be; ``replaced`` makes a text fit them."""
    _run, port, _arguments = quickstart
    for name in ("srv/models", "srv/incoming", "srv/images", "project/aikitfiles", "web/private", "home/.cache/aikit-fleet/bases"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "srv/models/gemma-3-270m-q4_k_m.gguf",
        "srv/incoming/mistral-7b.gguf",
        "web/gemma-3-270m-q4_k_m.gguf",
        "web/private/model.gguf",
        "project/aikitfiles/gemma.gguf",
    ):
        (tmp_path / name).write_bytes(gguf())
    for name in ("llama-3.1-8b-q4_k_m.gguf", "qwen2.5-coder-7b-q4_k_m.gguf"):
        sparse.write(tmp_path / "srv/models" / name, shape("Qwen3 0.6B"))
    for name in (BASE.name, f"{BASE.name}.json"):
        (tmp_path / "home/.cache/aikit-fleet/bases" / name).symlink_to(BASE.with_name(name))
    shutil.copy(ROOT / "examples/one-box/aikitfiles/llama.yaml", tmp_path / "project/aikitfiles/llama.yaml")
    shutil.copy(ROOT / "tests/fixtures/logs/captured/cpu.log", tmp_path / "project/server.log")
    # What BuildKit would build goes to a docker command that records; engines are asked over their sockets
    (tmp_path / "project/aikitfiles/flux.yaml").write_text(FLUX)
    (tmp_path / "hf-token").write_text("t0ken")
    (tmp_path / "fake-docker").mkdir()
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path / "fake-docker"))
    (tmp_path / "project/aikitfiles/gemma.yaml").write_text("apiVersion: v1alpha1\nmodels:\n  - name: gemma\n    source: gemma.gguf\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with serving(tmp_path / "web") as address:
        yield Sandbox(tmp_path, address, port, registry.host, hub.url)
    docker("rmi", "--force", "localhost/aikit-e2e/example:1", "localhost/aikit-e2e/example-localai:1", check=False)
    docker("rmi", f"{registry.host}/gemma:1", check=False)


class Sandbox:
    def __init__(self, path: Path, address: str, port: int, registry: str, hub: str) -> None:
        self.path = path
        self.project = path / "project"
        self._replaced = (
            (r"https://models\.example\.com", address),
            (r"a5fd3b62230aa5ec[0-9a-f]{48}|(0123456789abcdef){4}", TINY_SHA256),
            (r"/srv/", f"{path}/srv/"),
            (r"(?<=context: )/srv\b", f"{path}/srv"),
            (r"/var/tmp/gemma\.tar", f"{path}/srv/images/gemma.tar"),
            (r"/tmp/api-key", f"{path}/api-key"),
            (r"/etc/aikit/", f"{path}/aikit/"),
            (r"/run/secrets/hf-token", f"{path}/hf-token"),
            (r"localhost/gemma:1", "localhost/aikit-e2e/example:1"),
            (r"localhost/gemma-localai:1", "localhost/aikit-e2e/example-localai:1"),
            (r"(?<=container: )llama\b", support.QUICKSTART),
            (r"(?<=inference_release:\n    name: )llama\b", SERVICE),
            (r"http://127\.0\.0\.1:8080(?=\n    container)", f"http://127.0.0.1:{port}"),
            (r"hosts: aikit_hosts", "hosts: localhost"),
            (r"registry\.example:5000|ghcr\.io(?=/ggml-org|/kaito-project/aikit/llama)", registry),
            (r"(?m)^( {4})(source|src): huggingface://", rf"\1hub_url: {hub}\n\1\2: huggingface://"),
        )

    def replaced(self, text: str) -> str:
        for pattern, value in self._replaced:
            text = re.sub(pattern, value, text)
        return text

    def tasks(self, text: str, variables: dict[str, Any], *arguments: str) -> support.Run:
        """Run a list of tasks, as a task file is run."""
        (self.project / "tasks.yml").write_text(f"---\n{self.replaced(text)}\n")
        play = {"name": "Example", "hosts": "localhost", "gather_facts": False, "vars": variables}
        play["tasks"] = [{"name": "Run it", "ansible.builtin.import_tasks": "tasks.yml"}]
        (self.project / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        return support.playbook("play.yml", *arguments, cwd=self.project)


class Loader(yaml.SafeLoader):
    """Reads the tag that Ansible adds to YAML, and keeps what it marks."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else node.value)


def examples(path: Path) -> str:
    """The EXAMPLES of a module, or of a filter with its documentation beside it."""
    if path.suffix == ".yml":
        return yaml.safe_load(path.read_text())["EXAMPLES"]
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "EXAMPLES":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no EXAMPLES")


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_examples_of_plugins(path, sandbox, request):
    text, name = examples(path), path.stem
    # What changes PATH first is undone last
    if name in ("aikit_image", "aikit_image_verify"):
        request.getfixturevalue("signing")
    if name == "aikit_image":
        request.getfixturevalue("fake_docker")
    if name == "containerd_cdi":
        request.getfixturevalue("fake_containerd")
    if name == "aikit_image_load":
        tiny_base(sandbox.path / "base.tar")
        text = BUILT.format(base=sandbox.path / "base.tar") + text
    if name == "aikit_image_info":
        tiny_base(sandbox.path / "base.tar")
        text = BUILT.format(base=sandbox.path / "base.tar").replace("archive: /var/tmp/gemma.tar", "oci_layout: /srv/images/layout") + text
    if name == "aikit_image":
        arm = sandbox.path / "home/.cache/aikit-fleet/bases/sid-cpu-arm64.tar"
        tiny_base(arm)
        described = Path(f"{arm}.json")
        described.write_text(json.dumps({**json.loads(described.read_text()), "architecture": "arm64"}))
        text = SERVER_IMAGE + text
    run = sandbox.tasks(text, VARIABLES.get(name, {}), *(["--check"] if name in CHECKED else []))
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
    ran = [entry["task"]["name"] for play in run.document["plays"] for entry in play["tasks"]]
    missing = [task["name"] for task in yaml.load(text, Loader) if not run.results(task["name"])]
    assert not missing, f"{missing} did not run: {ran}"
    if path.parent.name == "modules":
        # An example that runs without its own module shows nothing
        assert any(f"aikit.fleet.{name}" in task for task in yaml.load(text, Loader))


# The image that an example of aikit_image takes as its base
SERVER_IMAGE = """
- name: Make an image with the server
  aikit.fleet.aikit_image:
    name: ghcr.io/ggml-org/llama.cpp:server
    src: aikitfiles/gemma.yaml
    server: llama_cpp
    base: ~/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
    push: true
"""

# The archive that the example of aikit_image_load loads
BUILT = """
- name: Build it
  aikit.fleet.aikit_image:
    name: localhost/gemma:1
    src: aikitfiles/gemma.yaml
    server: llama_cpp
    base: {base}
    archive: /var/tmp/gemma.tar
  register: build
"""


def test_the_example_of_the_speed_gate_is_skipped_only_for_its_gpu():
    skipped = [
        (path.stem, task["name"]) for path in PLUGINS for task in yaml.load(examples(path), Loader) if task.get("when") is False
    ]
    assert skipped == [("inference_check", "Fail unless all layers are on the GPU and it is fast")]


# --- roles, README, guides -------------------------------------------------------------------------------------------


def blocks(path: Path) -> list[str]:
    """The YAML of a Markdown file."""
    return re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.M | re.S)


def test_example_of_role_container_engine(sandbox):
    """Its settings are for a host of one's own: tried here, made on the hosts of tests/hosts."""
    (text,) = blocks(ROOT / "roles/container_engine/README.md")
    (sandbox.project / "play.yml").write_text(sandbox.replaced(text))
    before = Path("/etc/docker/daemon.json").exists()
    run = support.playbook("play.yml", "--check", cwd=sandbox.project)
    assert run.code == 0 and Path("/etc/docker/daemon.json").exists() == before, run.output[-3000:]


@pytest.mark.parametrize("role", ["nvidia_driver", "nvidia_container_toolkit"])
def test_examples_of_roles_for_nvidia_hosts_leave_this_one_alone(sandbox, role):
    (text,) = blocks(ROOT / f"roles/{role}/README.md")
    (sandbox.project / "play.yml").write_text(sandbox.replaced(text))
    run = support.playbook("play.yml", cwd=sandbox.project)
    assert (run.code, run.changed) == (0, 0), run.output[-3000:]


def test_example_of_role_llama_cpp_base(sandbox):
    """With the base that is there; making one is tested elsewhere."""
    (text,) = blocks(ROOT / "roles/llama_cpp_base/README.md")
    assert "llama_cpp_base_variant: vulkan" in text
    (sandbox.project / "play.yml").write_text(text.replace("llama_cpp_base_variant: vulkan", "llama_cpp_base_variant: cpu"))
    run = support.playbook("play.yml", cwd=sandbox.project)
    assert (run.code, run.changed) == (0, 0), run.output[-3000:]
    (said,) = run.results("Say what it holds")
    assert "llama.cpp" in said["msg"] and "cpu" in said["msg"]


def test_example_of_role_inference(sandbox):
    """For real: the role alone plans, builds, serves and proves."""
    (text,) = blocks(ROOT / "roles/inference/README.md")
    os.link(support.MODEL_DIR / support.MODEL_NAME, sandbox.project / "aikitfiles" / support.MODEL_NAME)
    (sandbox.project / "aikitfiles/llama.yaml").write_text(support.AIKITFILE % 512)
    text = sandbox.replaced(text).replace("name: llama\n", f"name: {SERVICE}\n").replace("port: 8080", f"port: {support.free_port()}")
    (sandbox.project / "play.yml").write_text(text)
    arguments = ["-e", f"inference_state_dir={sandbox.path}/state", "-e", f"ansible_python_interpreter={sys.executable}"]
    try:
        run = support.playbook("play.yml", *arguments, cwd=sandbox.project)
        assert run.code == 0, run.output[-4000:]
        state = json.loads((sandbox.path / f"state/{SERVICE}.json").read_text())
        assert state["current"]["verdict"] == "cpu" and state["pending"] is None
    finally:
        docker("rm", "--force", "--volumes", SERVICE, check=False)
        docker("rmi", f"localhost/aikit/{SERVICE}:latest", check=False)


def test_fifteen_lines_of_the_readme(sandbox):
    """Two files and an aikitfile: they plan, and their deployment can be tried, which asks for no GPU yet."""
    (text,) = blocks(ROOT / "README.md")
    inventory, deploy = text.split("# deploy.yml\n")
    assert inventory.startswith("# inventory.yml\n") and len(text.splitlines()) <= 16
    (sandbox.project / "inventory.yml").write_text(inventory)
    (sandbox.project / "deploy.yml").write_text(deploy)
    aikitfile = (sandbox.project / "aikitfiles/llama.yaml").read_text()
    (sandbox.project / "aikitfiles/llama.yaml").write_text(aikitfile + "runtime: cuda\n")
    planned = support.playbook("aikit.fleet.plan", "-i", "inventory.yml", cwd=sandbox.project)
    assert planned.code == 0, planned.output[-3000:]
    (table,) = planned.results("What would run where")
    assert table["msg"][2].split()[:3] == ["gpu1.example", "llama", "present"] and table["msg"][2].split()[-1] == "proven"
    local = ["-e", "ansible_connection=local", "-e", f"ansible_python_interpreter={sys.executable}", "-e", f"inference_state_dir={sandbox.path}/state"]
    tried = support.playbook("deploy.yml", "-i", "inventory.yml", "--check", *local, cwd=sandbox.project)
    assert tried.code == 0, f"{tried.messages()}\n{tried.output[-3000:]}"
    assert docker("ps", "--all", "--quiet", "--filter=name=^llama$") == ""


def test_one_box(sandbox):
    """Its model is on the internet, so it is planned and tried, not run."""
    project = sandbox.path / "one-box"
    shutil.copytree(ROOT / "examples/one-box", project)
    for name in ("inventory.yml", "deploy.yml", "requirements.yml", "group_vars/aikit_hosts.yml"):
        assert yaml.safe_load((project / name).read_text()), name
    planned = support.playbook("aikit.fleet.plan", "-i", "inventory.yml", cwd=project)
    assert planned.code == 0, planned.output[-3000:]
    (table,) = planned.results("What would run where")
    assert "llama-3.2-1b-instruct" in table["msg"][2] and "127.0.0.1:8080" in table["msg"][2]
    tried = support.playbook("deploy.yml", "-i", "inventory.yml", "--check", "--diff", "-e", f"inference_state_dir={sandbox.path}/state", cwd=project)
    assert tried.code == 0, f"{tried.messages()}\n{tried.output[-3000:]}"
    (built,) = tried.results("Assemble the image")
    assert built["changed"] and built["image"]["id"] == "" and "download https://huggingface.co/" in built["actions"][0]
    assert not list((sandbox.path / "home/.cache/aikit-fleet").rglob("*.gguf"))
    required = yaml.safe_load((project / "requirements.yml").read_text())["collections"]
    assert [entry["name"] for entry in required] == ["aikit.fleet"]


ROLES = tuple(f"{path.name}_" for path in (ROOT / "roles").iterdir())
GUIDES = [(path, number) for path in sorted((ROOT / "docs").glob("*.md")) for number, _text in enumerate(blocks(path))]


@pytest.mark.parametrize("path, number", GUIDES, ids=lambda value: getattr(value, "stem", value))
def test_fragments_of_the_guides(path, number, sandbox, request):
    """Tasks are run, services are planned, parts of a service are put into one; variables of roles are known to the plan."""
    text = sandbox.replaced(blocks(path)[number])
    document = yaml.load(text, Loader)
    if path.stem in ("buildkit", "registries"):
        request.getfixturevalue("signing")
    if path.stem == "buildkit":
        request.getfixturevalue("fake_docker")
    if isinstance(document, list) and any("import_playbook" in key or key == "hosts" for entry in document for key in entry):
        (sandbox.project / "play.yml").write_text(text)
        run = support.playbook("play.yml", "--syntax-check", cwd=sandbox.project)
    elif isinstance(document, list):
        # Replaced there, and once only
        run = sandbox.tasks(blocks(path)[number], {"model_token": "t0ken", "vault_sign_password": "s3cret-word"})
    else:
        if all(key.startswith(ROLES) for key in document) and "inference_services" not in document:
            text += "inference_services:\n  - name: llama\n    image: localhost/aikit-e2e/example:1\n"
        elif "inference_services" not in document:
            indented = "".join(f"    {line}\n" for line in text.splitlines())
            text = f"inference_services:\n  - name: llama\n    image: localhost/aikit-e2e/example:1\n{indented}"
        (sandbox.project / "group_vars").mkdir()
        (sandbox.project / "group_vars/aikit_hosts.yml").write_text(text)
        (sandbox.project / "inventory.yml").write_text("aikit_hosts:\n  hosts:\n    gpu1.example:\n")
        vault = {f"vault_{name}": "s3cret-word" for name in ("registry_password", "models_token", "mirror_token")}
        run = support.playbook("aikit.fleet.plan", "-i", "inventory.yml", "-e", json.dumps(vault), cwd=sandbox.project)
        assert run.code or "llama" in run.results("What would run where")[0]["msg"][2]
    assert run.code == 0, f"{run.messages()}\n{run.output[-3000:]}"
