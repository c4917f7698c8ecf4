# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images in real registries: pushed, pulled by four tools, run; and through a network that cuts, damages and delays."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import oras.client
import oras.schemas
import pytest
import registries
import support
from helpers import BASE, gguf, task, tiny_base
from registries import Proxy, Registry, TokenServer
from support import docker

SERVICE = "aikit-e2e-registry"


def run(*words: str, env: Any = None, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def sha256(path: "Path | str") -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def options(registry: Registry, name: str, **more: Any) -> dict[str, Any]:
    model = {"name": "gemma-3-270m", "backend": "llama", "context_size": 1024, "parameters": {"model": support.MODEL_NAME}}
    definition = {"apiVersion": "v1alpha1", "models": [{"name": "gemma-3-270m", "source": support.MODEL_NAME}], "config": json.dumps([model])}
    return {
        "name": name,
        "definition": definition,
        "context": str(support.MODEL_DIR),
        "server": "llama_cpp",
        "base": str(BASE),
        "push": True,
        "registry_auth_file": str(registry.auth_file),
        **more,
    }


@pytest.fixture(scope="module")
def locked(quickstart, tmp_path_factory):
    """A registry with logins and a certificate of its own CA."""
    with Registry(tmp_path_factory.mktemp("locked"), logins=True, tls=True) as made:
        yield made


@pytest.fixture(scope="module")
def open_registry(quickstart, tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("open")) as made:
        yield made


def test_logins_and_certificates(locked):
    name = f"{locked.host}/e2e/gemma:1"
    untrusted = task("aikit_image", **options(locked, name))
    assert "certificate is not trusted" in untrusted["msg"] and "registry_ca_file" in untrusted["msg"]
    (locked.folder / "none.json").write_text("{}")
    stranger = task("aikit_image", **options(locked, name, registry_ca_file=str(locked.ca), registry_auth_file=str(locked.folder / "none.json")))
    assert "answered 401" in stranger["msg"] and "docker login" in stranger["msg"] and not locked.tag("e2e/gemma", "1")
    told = task("aikit_image", check=True, **options(locked, name, registry_ca_file=str(locked.ca)))
    assert told["changed"] and not locked.tag("e2e/gemma", "1")
    done = task("aikit_image", **options(locked, name, registry_ca_file=str(locked.ca)))
    assert done["changed"] and locked.tag("e2e/gemma", "1") == done["image"]["digest"] == told["image"]["digest"], done
    assert not task("aikit_image", **options(locked, name, registry_ca_file=str(locked.ca)))["changed"]
    found = task("aikit_image_info", name=name, registry=True, registry_ca_file=str(locked.ca), registry_auth_file=str(locked.auth_file))
    assert found["images"][0]["digest"] == done["image"]["digest"]
    text = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}", env=registries.environment(locked))
    assert f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" == done["image"]["digest"]
    # A password in a task goes nowhere but to its registry
    login = [{"registry": locked.host, "username": registries.USER, "password": registries.PASSWORD}]
    plain = options(
        locked, f"{locked.host}/e2e/other:1", registry_ca_file=str(locked.ca), registry_logins=login, registry_auth_file=str(locked.folder / "none.json")
    )
    done = task("aikit_image", **plain)
    assert done["changed"] and registries.PASSWORD not in json.dumps(done)


def test_four_tools_pull_it_and_it_runs(open_registry, tmp_path):
    name = f"{open_registry.host}/e2e/gemma:1"
    done = task("aikit_image", **options(open_registry, name))
    digest = done["image"]["digest"]
    reference = f"{open_registry.host}/e2e/gemma@{digest}"
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path / 'copy'}")
    assert f"sha256:{hashlib.sha256((tmp_path / 'copy/manifest.json').read_bytes()).hexdigest()}" == digest
    for layer in done["image"]["layers"]:
        hexadecimal = layer["digest"].partition(":")[2]
        assert sha256(tmp_path / "copy" / hexadecimal) == hexadecimal
    # The ORAS project's client gives each layer its title as name, and checks none
    client = oras.client.OrasClient(insecure=True)
    manifest = client.get_manifest(reference, validation_schema=oras.schemas.manifest)
    digests = [layer["digest"] for layer in done["image"]["layers"]]
    assert [layer["digest"] for layer in manifest["layers"]] == digests
    assert [f"sha256:{sha256(path)}" for path in client.pull(reference, outdir=str(tmp_path / "oras"))] == digests
    # A store of its own; Podman wants its path short
    with tempfile.TemporaryDirectory() as runroot:
        podman = ["podman", "--root", str(tmp_path / "root"), "--runroot", runroot, "--storage-driver=vfs"]
        run(*podman, "pull", "--quiet", "--tls-verify=false", reference)
        listed = json.loads(run(*podman, "image", "inspect", reference))
        assert f"sha256:{listed[0]['Id']}" == done["image"]["id"]
        run(*podman, "rmi", "--all", "--force")
    port = support.free_port()
    try:
        docker("pull", "--quiet", reference)
        assert docker("image", "inspect", "--format={{.Id}}", reference) in (done["image"]["id"], digest)
        docker("run", "--detach", f"--name={SERVICE}", f"--publish=127.0.0.1:{port}:8080", reference)
        support.wait(lambda: support.completion(port), OSError, 300)
        assert support.completion(port)["usage"]["completion_tokens"] > 0
    finally:
        docker("rm", "--force", "--volumes", SERVICE, check=False)
        docker("rmi", "--force", reference, check=False)


def test_a_changed_setting_sends_kilobytes_and_a_mount_nothing(open_registry):
    name = f"{open_registry.host}/e2e/gemma:2"
    wanted = options(open_registry, name)
    wanted["definition"]["config"] = wanted["definition"]["config"].replace("1024", "2048")
    before = len(open_registry.commits())
    done = task("aikit_image", **wanted)
    assert done["bytes_sent"] < 64 * 1024 and [layer["reused"] for layer in done["image"]["layers"]] == [True, True, False]
    assert len(open_registry.commits()) - before == 2


def test_a_layout_that_others_read(quickstart, tmp_path):
    wanted = options_of_layout(tmp_path)
    done = task("aikit_image", **wanted)
    text = run("skopeo", "inspect", "--raw", f"oci:{tmp_path / 'layout'}:localhost/aikit-e2e/layout:1")
    assert f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" == done["image"]["digest"]
    # Another tool adds an image of its own: both stay
    run("skopeo", "copy", f"oci:{tmp_path / 'layout'}:localhost/aikit-e2e/layout:1", f"oci:{tmp_path / 'layout'}:foreign")
    assert not task("aikit_image", **wanted)["changed"]
    wanted["definition"]["config"] = wanted["definition"]["config"].replace("1024", "2048")
    changed = task("aikit_image", **wanted)
    assert changed["changed"] and changed["image"]["digest"] != done["image"]["digest"]
    assert run("skopeo", "inspect", "--raw", f"oci:{tmp_path / 'layout'}:foreign") == text
    run("skopeo", "copy", f"oci:{tmp_path / 'layout'}:foreign", f"dir:{tmp_path / 'foreign'}")


def options_of_layout(tmp_path: Path) -> dict[str, Any]:
    model = {"name": "gemma-3-270m", "backend": "llama", "context_size": 1024, "parameters": {"model": support.MODEL_NAME}}
    definition = {"apiVersion": "v1alpha1", "models": [{"name": "gemma-3-270m", "source": support.MODEL_NAME}], "config": json.dumps([model])}
    return {
        "name": "localhost/aikit-e2e/layout:1",
        "definition": definition,
        "context": str(support.MODEL_DIR),
        "server": "llama_cpp",
        "base": str(BASE),
        "oci_layout": str(tmp_path / "layout"),
    }


def test_an_image_of_another_maker_as_base(open_registry, tmp_path):
    """llama.cpp's server in an image that Docker made and compressed; its options are found in its bytes."""
    source = f"{open_registry.host}/e2e/llama:server"
    port = support.free_port()
    name = f"{open_registry.host}/e2e/on-llama:1"
    try:
        docker("import", '--change=ENTRYPOINT ["/usr/bin/llama-server"]', "--change=ENV LLAMA_ARG_HOST=0.0.0.0", str(BASE), source)
        docker("push", "--quiet", source)
        wanted = options(open_registry, name, base=source, blobs=str(tmp_path / "blobs"), lock=str(tmp_path / "lock.json"))
        done = task("aikit_image", **wanted)
        assert done.get("changed"), done.get("msg", done)
        # Nothing of the base was fetched to be kept, or sent
        assert not (tmp_path / "blobs").exists() and [layer["reused"] for layer in done["image"]["layers"]][0] is True
        reference = f"{open_registry.host}/e2e/on-llama@{done['image']['digest']}"
        docker("pull", "--quiet", reference)
        docker("run", "--detach", f"--name={SERVICE}-base", f"--publish=127.0.0.1:{port}:8080", reference)
        support.wait(lambda: support.completion(port), OSError, 300)
        known = task("aikit_image", **options(open_registry, f"{open_registry.host}/e2e/known:1"))
        for key in ("LLAMA_ARG_MODEL", "LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_ALIAS", "LLAMA_ARG_LOG_VERBOSITY"):
            assert done["image"]["env"][key] == known["image"]["env"][key]
        # The tag moves; what is locked stays
        docker("import", '--change=ENTRYPOINT ["/usr/bin/llama-server"]', "--change=ENV A=1", str(BASE), source)
        docker("push", "--quiet", source)
        assert not task("aikit_image", **wanted)["changed"]
        assert task("aikit_image", check=True, **wanted, lock_update=True)["changed"]
    finally:
        docker("rm", "--force", "--volumes", f"{SERVICE}-base", check=False)
        for line in docker("images", "--no-trunc", "--format={{.Repository}} {{.ID}}").splitlines():
            if line.startswith((source.rpartition(":")[0], name.rpartition(":")[0])):
                docker("rmi", "--force", line.split()[1], check=False)


# --- a network that breaks


@pytest.fixture
def small(tmp_path, quickstart):
    """A base and a model of 40 MB that nobody runs."""
    tiny_base(tmp_path / "base.tar")
    (tmp_path / "m.gguf").write_bytes(gguf() + os.urandom(40_000_000))
    definition = {"apiVersion": "v1alpha1", "models": [{"name": "m", "source": "m.gguf"}]}
    return {"definition": definition, "context": str(tmp_path), "server": "llama_cpp", "base": str(tmp_path / "base.tar"), "push": True}


def stored(registry: Registry, done: dict[str, Any]) -> None:
    """Every blob of an image is in the registry's storage, with its own bytes."""
    for digest in [layer["digest"] for layer in done["image"]["layers"]] + [done["image"]["id"], done["image"]["digest"]]:
        value = digest.partition(":")[2]
        assert sha256(registry.folder / f"data/docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data") == value


@pytest.mark.parametrize(
    "up, down",
    [
        (registries.cut_after(10_000_000), None),
        (registries.cut_after(20_000_000, 3), None),
        (registries.damage_at(5_000_000), None),
        (registries.slow(0.2, 10_000_000), None),
        (None, registries.cut_after(150, 3)),
    ],
    ids=["cut", "cut three times", "damaged", "slow", "answers cut"],
)
def test_a_push_through_a_bad_network(open_registry, small, up, down, request):
    repository = f"bad/{request.node.callspec.id.replace(' ', '-')}"
    with Proxy(open_registry.port) as proxy:
        proxy.up, proxy.down = up or proxy.up, down or proxy.down
        done = task("aikit_image", name=f"{proxy.host}/{repository}:1", **small)
        assert done.get("changed") and open_registry.tag(repository, "1") == done["image"]["digest"], done
        stored(open_registry, done)
        before = proxy.sent
        assert not task("aikit_image", name=f"{proxy.host}/{repository}:1", **small)["changed"] and proxy.sent - before < 4096


def test_a_push_that_never_comes_through_leaves_no_tag(open_registry, small):
    with Proxy(open_registry.port) as proxy:
        proxy.up = registries.damage_every(5_000_000)
        failed = task("aikit_image", name=f"{proxy.host}/bad/never:1", **small)
        assert failed["failed"] and "received other bytes than were sent" in failed["msg"] and not open_registry.tag("bad/never", "1")
        # Nothing was taken for good that is not
        proxy.up = lambda piece, _offset: piece
        done = task("aikit_image", name=f"{proxy.host}/bad/never:1", **small)
        stored(open_registry, done)


# --- tokens of a server that signs them


def test_tokens_for_a_push_a_mount_and_a_pull(small, tmp_path):
    with TokenServer(tmp_path / "tokens") as tokens, Registry(tmp_path / "registry", tokens=tokens) as registry:
        logins = {"registry_auth_file": str(registry.auth_file)}
        name = f"{registry.host}/tokens/base:1"
        (tmp_path / "none.json").write_text("{}")
        stranger = task("aikit_image", name=name, **small, registry_auth_file=str(tmp_path / "none.json"))
        assert "answered 401 (incorrect username or password)" in stranger["msg"] and not registry.tag("tokens/base", "1")
        tokens.may_push = False
        reader = task("aikit_image", name=name, **small, **logins)
        assert "tokens/base" in reader["msg"] and "May this login write to the repository?" in reader["msg"] and not registry.tag("tokens/base", "1")
        tokens.may_push = True
        done = task("aikit_image", name=name, **small, **logins)
        assert done.get("changed") and registry.tag("tokens/base", "1") == done["image"]["digest"], done
        stored(registry, done)
        # Another tool gets along with this server, too
        text = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}", env=registries.environment(registry))
        assert f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" == done["image"]["digest"]
        (told,) = task("aikit_image_info", name=name, registry=True, **logins)["images"]
        assert told["digest"] == done["image"]["digest"]
        # What lies in another repository is taken over there, which needs a right to each
        before, given = len(registry.commits()), len(tokens.given)
        hint = {"path": "/usr/bin/llama-server", "version": "0.7.0", "backends": ["cpu"]}
        (tmp_path / "above.gguf").write_bytes(gguf())
        above = {"apiVersion": "v1alpha1", "models": [{"name": "above", "source": "above.gguf"}]}
        wanted = {**small, "definition": above, "base": name, "base_server": hint, "blobs": str(tmp_path / "blobs")}
        mounted = task("aikit_image", name=f"{registry.host}/tokens/other:1", **wanted, **logins)
        assert mounted.get("changed"), mounted
        kept = {layer["digest"] for layer in done["image"]["layers"]}
        assert kept < {layer["digest"] for layer in mounted["image"]["layers"]} and mounted["bytes_sent"] < 65536
        assert not kept & {f"sha256:{value}" for value in registry.commits()[before:]}
        assert ("tokens/other:pull,push", "tokens/base:pull") in tokens.given[given:]


@pytest.mark.parametrize("told", [300, 2], ids=["said to be good for longer", "renewed in time"])
def test_tokens_that_end_in_the_middle(small, tmp_path, told):
    """Four blobs at a time, at some megabytes a second: a token ends between the small ones, and before the large one is whole."""
    for number in range(8):
        (tmp_path / f"{number}.gguf").write_bytes(gguf() + os.urandom(6_000_000))
        small["definition"]["models"].append({"name": f"small-{number}", "source": f"{number}.gguf"})
    with TokenServer(tmp_path / "tokens", 2, told) as tokens, Registry(tmp_path / "registry", tokens=tokens) as registry, Proxy(registry.port) as proxy:
        proxy.up = proxy.down = registries.slow(0.5, 2_000_000)
        # The login of the registry is that of its proxy
        auth = tmp_path / "auth.json"
        auth.write_text(registry.auth_file.read_text().replace(registry.host, proxy.host))
        name = f"{proxy.host}/tokens/short:1"
        done = task("aikit_image", name=name, **small, registry_auth_file=str(auth))
        assert done.get("changed") and registry.tag("tokens/short", "1") == done["image"]["digest"], done
        stored(registry, done)
        commits = registry.commits()
        assert len(commits) == len(set(commits)), "a blob was uploaded twice"
        pushes = [scopes for scopes in tokens.given if "tokens/short:pull,push" in scopes]
        assert len(pushes) > 2
        if told == 300:
            assert sum(registry.answers(method, 401) for method in ("POST", "PATCH", "PUT", "HEAD")) > 0
        # And back: its layers are fetched to be kept
        given = len(tokens.given)
        hint = {"path": "/usr/bin/llama-server", "version": "0.7.0", "backends": ["cpu"]}
        wanted = {**small, "base": name, "base_server": hint, "push": False, "oci_layout": str(tmp_path / "layout"), "blobs": str(tmp_path / "blobs")}
        wanted["definition"] = {"apiVersion": "v1alpha1", "models": [{"name": "above", "source": "above.gguf"}]}
        (tmp_path / "above.gguf").write_bytes(gguf("qwen2"))
        back = task("aikit_image", name="localhost/aikit-e2e/x:1", **wanted, registry_auth_file=str(auth))
        assert back.get("changed"), back
        count = len(done["image"]["layers"])
        assert [layer["digest"] for layer in back["image"]["layers"][:count]] == [layer["digest"] for layer in done["image"]["layers"]]
        assert len(tokens.given) - given > 2


def test_a_base_through_a_bad_network(open_registry, small, tmp_path):
    # Another model than that of the image above: what is here already is not fetched
    (tmp_path / "below.gguf").write_bytes(gguf() + os.urandom(40_000_000))
    below = {"apiVersion": "v1alpha1", "models": [{"name": "below", "source": "below.gguf"}]}
    good = task("aikit_image", name=f"{open_registry.host}/e2e/base:1", **{**small, "definition": below})
    with Proxy(open_registry.port) as proxy:
        proxy.down = registries.cut_after(9_000_000, 2)
        hint = {"path": "/usr/bin/llama-server", "version": "0.7.0", "backends": ["cpu"]}
        wanted = {
            **small,
            "base": f"{proxy.host}/e2e/base:1",
            "base_server": hint,
            "push": False,
            "oci_layout": str(tmp_path / "layout"),
            "blobs": str(tmp_path / "blobs"),
        }
        done = task("aikit_image", name="localhost/aikit-e2e/x:1", **wanted)
        assert done.get("changed") and [layer["digest"] for layer in done["image"]["layers"][:3]] == [layer["digest"] for layer in good["image"]["layers"]], (
            done
        )
        proxy.down = registries.damage_every(5_000_000)
        failed = task("aikit_image", name="localhost/aikit-e2e/x:1", **{**wanted, "oci_layout": str(tmp_path / "other"), "blobs": str(tmp_path / "fresh")})
        assert failed["failed"] and "what came has digest" in failed["msg"]
        assert not (tmp_path / "other/index.json").exists() and not list((tmp_path / "fresh").rglob("*.part"))


def test_a_registry_that_goes_away_and_comes_back(quickstart, small, tmp_path):
    with Registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/gone/m:1"
        registry.stop()
        failed = task("aikit_image", name=name, **small)
        assert "Connection refused" in failed["msg"]
        registry.start()
        assert task("aikit_image", name=name, **small)["changed"]


# --- a fleet


def test_hosts_pull_what_the_builder_pushed(open_registry, tmp_path):
    project = support.Project(tmp_path / "project")
    # An image that no other test makes: what an engine has is not pulled
    project.aikitfile(1792)
    port = support.free_port()
    image = f"{open_registry.host}/e2e/fleet:1"
    project.service(SERVICE, port, image=image)
    try:
        first = project.run()
        assert first.code == 0, first.output[-4000:]
        (pulled,) = first.results("Pull what the builder pushed")
        digest = open_registry.tag("e2e/fleet", "1")
        assert pulled["actions"] == [f"pull {open_registry.host}/e2e/fleet@{digest} (docker)"]
        assert f"{open_registry.host}/e2e/fleet@{digest}" in docker("image", "inspect", "--format={{.RepoDigests}}", image)
        assert support.completion(port)["usage"]["completion_tokens"] > 0
        again = project.run()
        assert (again.code, again.changed) == (0, 0), again.output[-3000:]
        # A registry in the name is where it is built for, too
        built = project.run("aikit.fleet.build")
        assert built.code == 0 and not built.results("Assemble the image")[-1].get("archive"), built.output[-3000:]
    finally:
        docker("rm", "--force", "--volumes", SERVICE, check=False)
        docker("rmi", "--force", image, check=False)
