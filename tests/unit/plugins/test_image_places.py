# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images into registries and layouts, images as bases, several platforms, the lock: check, real, again, changed; and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aikit.fleet.plugins.module_utils._core import image_base, tar
from ansible_collections.aikit.fleet.plugins.module_utils._core.engine import ImageState
from ansible_collections.aikit.fleet.plugins.module_utils._core.lock import Lock
from ansible_collections.aikit.fleet.plugins.module_utils._core.oci import comment_of
from ansible_collections.aikit.fleet.plugins.module_utils._io import image as image_io
from ansible_collections.aikit.fleet.plugins.module_utils._io import oci_layout as layouts
from ansible_collections.aikit.fleet.plugins.module_utils._io import localai_image, outputs, progress, registry
from ansible_collections.aikit.fleet.plugins.module_utils._io.blob_store import BlobStore
from ansible_collections.aikit.fleet.plugins.module_utils._io.files import DigestCache
from ansible_collections.aikit.fleet.plugins.modules import aikit_image_info, aikit_image_load
from ansible_collections.aikit.fleet.tests.unit.fake_registry import INDEX, LAYER, MANIFEST, FakeRegistry, is_, once, sha256
from ansible_collections.aikit.fleet.tests.unit.gguf_writer import gguf_bytes
from ansible_collections.aikit.fleet.tests.unit.plugins import test_aikit_image as shared

engine, folder, run = shared.engine, shared.folder, shared.run

PROGRAM = (
    b"\x7fELF\0"
    + b"\0".join(
        name.encode()
        for name in (
            *("--model", "--alias", "--host", "--port", "--verbosity", "--ctx-size", "--models-preset", "--models-max", "--no-such-thing-anywhere"),
            *("LLAMA_ARG_MODEL", "LLAMA_ARG_ALIAS", "LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_LOG_VERBOSITY", "LLAMA_ARG_CTX_SIZE"),
        )
    )
    + b"\0"
)


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    """No logins of whoever runs this, and no waiting."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(registry.rules, "wait_seconds", lambda *dummy: 0.0)


@pytest.fixture
def server():
    with FakeRegistry() as made:
        yield made


def tar_of(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as writer:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
            else:
                member.size = len(data)
            writer.addfile(member, io.BytesIO(data) if isinstance(data, bytes) else None)
    return raw.getvalue()


def packed(data):
    return gzip.compress(data, mtime=0)


def test_a_comment_tells_where_annotations_were_lost():
    # Tools that make an image of Docker's kind of it write no annotations
    config = {"comment": comment_of({"io.aikit.fleet.server": "localai"})}
    assert outputs.state_of(config, "r.example/a:1", "", "sha256:1").facts == {"io.aikit.fleet.server": "localai"}


CONFIG = {
    "Entrypoint": ["/app/llama-server"],
    "Env": ["PATH=/usr/bin", "LLAMA_ARG_HOST=0.0.0.0", "NVIDIA_REQUIRE_CUDA=cuda>=12"],
    "WorkingDir": "/app",
    "Healthcheck": {"Test": ["CMD", "curl", "-f", "http://localhost:8080/health"]},
    "Labels": {"maintainer": "somebody", "org.opencontainers.image.version": "24.04"},
}


def llama_image(
    server,
    repository="llama.cpp",
    tag="server",
    platform=("linux", "amd64"),
    config=None,
    programs=None,
    libraries=("libggml-cpu-haswell.so", "libggml-base.so"),
):
    """An image as llama.cpp's own: a big layer below, libraries, and the server on top; compressed."""
    plain = [
        tar_of({"etc/os-release": b"Ubuntu " + platform[1].encode(), "usr/lib/x86_64-linux-gnu/libc.so.6": os.urandom(100)}),
        tar_of({f"app/{name}": b"library" for name in libraries}),
        tar_of(programs or {"app/llama-server": PROGRAM}),
    ]
    return server.put_image(
        repository, tag, [packed(layer) for layer in plain], config or CONFIG, platform, f"{LAYER}+gzip", [sha256(layer) for layer in plain]
    )


def manifest_of(server, repository, reference):
    return json.loads(server.manifests[repository][reference][1])


def config_of(server, repository, reference):
    return json.loads(server.blobs[repository][manifest_of(server, repository, reference)["config"]["digest"]])


# ---- push


def test_push_check_real_again(server, run):
    name = f"{server.host}/fleet/tiny:1"
    told = run(check_mode=True, name=name, push=True)
    assert told["changed"] and told["actions"] == [f"push {name}"] and told["diff"]["after"] and not server.manifests and not server.blobs
    assert not server.seen("POST") and not server.seen("PUT")
    done = run(name=name, push=True)
    assert done["actions"] == told["actions"] and done["diff"] == told["diff"] and done["image"]["digest"] == told["image"]["digest"]
    assert sha256(server.manifests["fleet/tiny"]["1"][1]) == done["image"]["digest"]
    assert done["bytes_sent"] == server.received - 1 * len(server.manifests["fleet/tiny"]["1"][1]) * 2
    assert [layer["reused"] for layer in done["image"]["layers"]] == [False, False, False]
    server.requests.clear()
    again = run(name=name, push=True)
    assert not again["changed"] and again["bytes_sent"] == 0 and again["diff"] == {"before": "", "after": ""}
    assert [verb for verb, path in server.requests] == ["GET", "HEAD"]
    assert again["image"]["layers"] == [{**layer, "reused": True} for layer in done["image"]["layers"]]


def test_a_changed_setting_sends_a_small_layer(server, run):
    name = f"{server.host}/fleet/tiny:1"
    run(name=name, push=True)
    before = server.received
    told = run(check_mode=True, name=name, push=True, context=4096)
    done = run(name=name, push=True, context=4096)
    assert done["changed"] and server.received - before < 64 * 1024 and done["diff"] == told["diff"]
    assert '"LLAMA_ARG_CTX_SIZE": "2048"' in done["diff"]["before"] and '"LLAMA_ARG_CTX_SIZE": "4096"' in done["diff"]["after"]
    assert [layer["reused"] for layer in done["image"]["layers"]] == [True, True, False]
    assert told["image"]["layers"] == done["image"]["layers"]


def test_a_tag_that_moved_is_put_back_without_sending_anything(server, run):
    name = f"{server.host}/fleet/tiny:1"
    first = run(name=name, push=True)
    server.manifests["fleet/tiny"]["1"] = ("application/vnd.oci.image.manifest.v1+json", b"{}")
    again = run(name=name, push=True)
    assert again["changed"] and again["bytes_sent"] == 0 and sha256(server.manifests["fleet/tiny"]["1"][1]) == first["image"]["digest"]


@pytest.mark.parametrize("part", ["/blobs/uploads/", "/manifests/sha256"])
def test_nothing_is_under_the_tag_before_all_is_there(server, run, part):
    name = f"{server.host}/fleet/tiny:1"
    run(name=name, push=True)
    tagged = server.manifests["fleet/tiny"]["1"]
    server.faults.append(once(is_("PUT", part), lambda handler: handler.refuse(403, "DENIED", "no"), 99))
    failed = run(name=name, push=True, context=4096)
    assert failed["failed"] and "answered 403 (DENIED: no)" in failed["msg"] and server.manifests["fleet/tiny"]["1"] == tagged
    server.faults.clear()
    assert run(name=name, push=True, context=4096)["changed"]


def test_the_order_of_a_push(server, run):
    run(name=f"{server.host}/fleet/tiny:1", push=True)
    puts = [path.partition("?")[0] for verb, path in server.seen("PUT")]
    assert all("/blobs/" in path for path in puts[:-2]) and "/manifests/sha256:" in puts[-2] and puts[-1].endswith("/manifests/1")


def test_a_push_that_is_cut_goes_on_in_the_next_run(server, run):
    name = f"{server.host}/fleet/tiny:1"
    seen = []

    def cut(handler):
        if handler.command == "PUT" and "/manifests/" in handler.path:
            seen.append(1)
            handler.cut()

    server.faults.append(cut)
    assert "cannot be reached" in run(name=name, push=True)["msg"]
    server.faults.clear()
    before = server.received
    assert run(name=name, push=True)["bytes_sent"] == 0 and server.received - before < 5000


def test_a_registry_that_cannot_be_reached(run, server):
    failed = run(name="127.0.0.1:1/fleet/tiny:1", push=True)
    assert failed["failed"] and "Connection refused" in failed["msg"]
    assert run(check_mode=True, name="127.0.0.1:1/fleet/tiny:1", push=True)["failed"]


def test_layers_that_are_too_large_are_remarked(folder, run, monkeypatch):
    monkeypatch.setattr(outputs.rules.data_registry, "LIMITS", (outputs.rules.data_registry.Limit("127.0.0.1:[0-9]+", "A registry", 1000, "x"),))
    with FakeRegistry() as server:
        done = run(name=f"{server.host}/fleet/tiny:1", push=True)
    (finding,) = [entry for entry in done["findings"] if entry["path"] == "push" and "of tiny " in entry["message"]]
    assert finding["level"] == "warning" and "A registry takes 1000 at most" in finding["message"] and "llama-gguf-split" in finding["hint"]


def test_a_layer_that_is_too_large_is_remarked_when_the_registry_refuses_it(folder, run, monkeypatch):
    warnings = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda dummy, text: warnings.append(text))
    monkeypatch.setattr(outputs.rules.data_registry, "LIMITS", (outputs.rules.data_registry.Limit("127.0.0.1:[0-9]+", "A strict one", 1000, "x"),))
    with FakeRegistry() as server:
        server.faults.append(once(is_("PUT", "/uploads/"), lambda handler: handler.refuse(413, "TOOLARGE"), 99))
        failed = run(name=f"{server.host}/fleet/tiny:1", push=True)
    assert failed["failed"] and "answered 413" in failed["msg"]
    assert any(finding["path"] == "push" and "A strict one takes 1000 at most" in finding["message"] for finding in failed["findings"])
    assert any("A strict one takes 1000 at most" in warning for warning in warnings)


def test_every_part_of_a_split_model_is_a_layer(folder, run, server):
    done = run(name=f"{server.host}/fleet/split:1", push=True, parsed=shared.split(folder, 1, 2))
    assert [layer["role"] for layer in done["image"]["layers"]] == ["base", "model", "model", "config"]
    assert done["image"]["env"]["LLAMA_ARG_MODEL"] == "/models/m-00001-of-00002.gguf"


# ---- layouts


def test_a_layout_check_real_again(folder, run):
    path = folder / "layout"
    told = run(check_mode=True, oci_layout=str(path))
    assert told["actions"] == [f"store {path} (localhost/tiny:1)"] and not path.exists()
    done = run(oci_layout=str(path))
    assert done["actions"] == told["actions"] and done["oci_layout"] == str(path) and done["bytes_written"] > 0
    (entry,) = json.loads((path / "index.json").read_text())["manifests"]
    assert entry["digest"] == done["image"]["digest"] and entry["annotations"]["org.opencontainers.image.ref.name"] == "localhost/tiny:1"
    assert json.loads((path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for blob in (path / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    again = run(oci_layout=str(path))
    assert not again["changed"] and again["bytes_written"] == 0
    assert sorted(entry.name for entry in path.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_entries_of_others_stay_and_what_nobody_needs_goes(folder, run):
    path = folder / "layout"
    run(oci_layout=str(path), name="localhost/other:1")
    foreign = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": json.loads((path / "index.json").read_text())["manifests"][0]["digest"],
        "size": 1,
        "x": 1,
    }
    index = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps({**index, "manifests": [*index["manifests"], foreign]}))
    run(oci_layout=str(path))
    first = set(os.listdir(path / "blobs/sha256"))
    done = run(oci_layout=str(path), context=4096)
    assert done["changed"]
    manifests = json.loads((path / "index.json").read_text())["manifests"]
    assert foreign in manifests and [(entry.get("annotations") or {}).get("org.opencontainers.image.ref.name") for entry in manifests] == [
        "localhost/other:1",
        None,
        "localhost/tiny:1",
    ]
    # The first version under this name is the image of the other one, too: what they share stays
    assert first <= set(os.listdir(path / "blobs/sha256"))
    run(oci_layout=str(path), context=8000)
    now = set(os.listdir(path / "blobs/sha256"))
    assert done["image"]["digest"].partition(":")[2] not in now and first <= now


def test_a_blob_that_was_damaged_is_written_again(folder, run):
    path = folder / "layout"
    done = run(oci_layout=str(path))
    blob = path / "blobs/sha256" / done["image"]["layers"][1]["digest"].partition(":")[2]
    blob.write_bytes(b"!" + blob.read_bytes()[1:])
    again = run(oci_layout=str(path))
    assert again["changed"] and hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_a_base_is_not_copied_where_it_can_be_shared(folder, run):
    run(oci_layout=str(folder / "layout"))
    blob = folder / "layout/blobs/sha256" / hashlib.sha256((folder / "base.tar").read_bytes()).hexdigest()
    assert blob.read_bytes() == (folder / "base.tar").read_bytes()
    assert os.stat(blob).st_ino == os.stat(folder / "base.tar").st_ino or layouts.FICLONE


@pytest.mark.parametrize(
    "content, words",
    [
        ({"notes.txt": "x"}, "with other things in it"),
        ({"oci-layout": '{"imageLayoutVersion":"9"}'}, "version '9'"),
        ({"oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": "["}, "no index of images"),
    ],
)
def test_folders_that_are_no_layouts(folder, run, content, words):
    path = folder / "layout"
    path.mkdir()
    for name, text in content.items():
        (path / name).write_text(text)
    assert words in run(oci_layout=str(path))["msg"]
    assert {entry.name for entry in path.iterdir()} == set(content)


def test_a_layout_without_room_is_not_begun(folder, run, monkeypatch):
    monkeypatch.setattr(layouts.files, "free_bytes", lambda path: 100)
    failed = run(check_mode=True, oci_layout=str(folder / "layout"))
    assert "Not enough disk space for the layout" in failed["msg"] and not (folder / "layout").exists()


def test_a_model_that_changes_while_a_layout_is_written(folder, run, monkeypatch):
    real = layouts.stream

    def change(parts):
        yield from (piece.replace(b"GGUF", b"FUGG") for piece in real(parts))

    monkeypatch.setattr(layouts, "stream", change)
    failed = run(oci_layout=str(folder / "layout"))
    assert "A file changed while" in failed["msg"]
    assert not (folder / "layout/index.json").exists() and not list((folder / "layout").rglob("*.part"))


def test_everything_in_one_run(folder, engine, run, server):
    name = f"{server.host}/fleet/tiny:1"
    places = {"load": ["docker"], "archive": str(folder / "out.tar"), "oci_layout": str(folder / "layout"), "push": True, "lock": str(folder / "lock.json")}
    told = run(check_mode=True, name=name, **places)
    done = run(name=name, **places)
    assert (
        told["actions"]
        == done["actions"]
        == [
            f"load {name} (docker)",
            f"write {folder}/out.tar",
            f"store {folder}/layout ({name})",
            f"push {name}",
            f"lock {folder}/lock.json",
        ]
    )
    assert not run(name=name, **places)["changed"]


@pytest.fixture
def stages(monkeypatch):
    """What was done of how much, by the name of the stage; of several with one name, in the last one."""
    found = {}

    class Recorded(progress.Stage):
        def __exit__(self, *words):
            super().__exit__(*words)
            found[self.name] = (self.done, self.total)

    monkeypatch.setattr(progress, "Stage", Recorded)
    return found


def test_an_image_that_is_looked_into_tells_how_far_it_is(run, server, stages):
    llama_image(server)
    run(base=f"{server.host}/llama.cpp:server", load=[], name=f"{server.host}/fleet/tiny:1", push=True)
    sizes = [layer["size"] for layer in manifest_of(server, "llama.cpp", "server")["layers"]]
    # From the top down to the libraries
    assert stages["look into llama.cpp:server"] == (sizes[1], sizes[1])


def test_a_backend_tells_how_far_it_is(folder, server, stages):
    layers = [packed(tar_of({"bin/run": os.urandom(3 << 20)})), packed(tar_of({"lib/x.so": os.urandom(100)}))]
    server.put_image("local-ai-backends", "cpu", layers, media_type=f"{LAYER}+gzip")
    ref = f"{server.host}/local-ai-backends:cpu"
    client = registry.Registry(registry.RegistrySettings())
    preparation = localai_image.Preparation(client, BlobStore(str(folder / "blobs")), DigestCache(str(folder / "digests")), Lock(), None, False)
    (folder / "blobs/backends").mkdir(parents=True)
    made = preparation._rewrite(client.manifest(ref), ref, "backends/cpu", [], str(folder / "blobs/backends/x.tar"), {})
    size = sum(map(len, layers))
    assert made.size > 3 << 20 and stages["fetch local-ai-backends:cpu"] == (len(layers[1]), len(layers[1]))
    for name in ("look into local-ai-backends:cpu", "repack local-ai-backends:cpu"):
        done, total = stages[name]
        assert total == size and 0.9 * size < done <= size


def test_every_place_tells_how_far_it_is(folder, engine, run, server, stages):
    name = f"{server.host}/fleet/tiny:1"
    image = run(name=name, load=["docker"], archive=str(folder / "out.tar"), oci_layout=str(folder / "layout"), push=True)["image"]
    # All of it is counted, and each stage comes to its end
    assert all(done == total for done, total in stages.values()), stages
    assert {"hash tiny.gguf", f"load {name} into docker", "write out.tar", "push tiny", "push the configuration"} <= set(stages)
    layer = next(layer for layer in image["layers"] if layer["title"] == "tiny")
    assert stages["push tiny"][1] == stages["hash tiny.gguf"][1] == layer["size_bytes"]
    assert stages["write out.tar"][1] == (folder / "out.tar").stat().st_size
    assert sum("write blob" in stage for stage in stages) >= 1


def test_check_mode_before_the_model_is_there_names_all_places(folder, run):
    parsed = {**shared.aikitfile(("tiny", "tiny.gguf")), "directory": str(folder / "not-yet")}
    told = run(check_mode=True, name="127.0.0.1:1/a:1", parsed=parsed, push=True, oci_layout="/x/layout", lock="/x/lock.json")
    assert told["actions"] == ["store /x/layout (127.0.0.1:1/a:1)", "push 127.0.0.1:1/a:1", "lock /x/lock.json"]


# ---- images as bases


def test_an_image_as_base_is_kept_as_it_is(server, run):
    base = llama_image(server, libraries=("libggml-cpu-haswell.so", "libggml-cuda.so", "libllama.so"))
    done = run(name=f"{server.host}/fleet/tiny:1", base=f"{server.host}/llama.cpp:server", push=True)
    below, above = manifest_of(server, "llama.cpp", "server"), manifest_of(server, "fleet/tiny", "1")
    assert [(layer["mediaType"], layer["digest"], layer["size"]) for layer in above["layers"][:3]] == [
        (layer["mediaType"], layer["digest"], layer["size"]) for layer in below["layers"]
    ]
    # Nothing of it was sent, and only the two upper layers were looked into
    assert [layer["reused"] for layer in done["image"]["layers"]] == [True, True, True, False, False]
    assert len([path for verb, path in server.seen("GET") if "/blobs/sha256" in path]) == 3
    assert len(server.seen("POST", "mount=")) == 3
    config = config_of(server, "fleet/tiny", "1")
    run_time = config["config"]
    assert run_time["Entrypoint"] == ["/app/llama-server"] and run_time["WorkingDir"] == "/app" and run_time["Healthcheck"] == CONFIG["Healthcheck"]
    env = dict(pair.split("=", 1) for pair in run_time["Env"])
    assert env["NVIDIA_REQUIRE_CUDA"] == "cuda>=12" and env["LLAMA_ARG_MODEL"] == "/models/tiny.gguf" and env["LLAMA_ARG_CTX_SIZE"] == "2048"
    assert env["LD_LIBRARY_PATH"] == "/app" and env["NVIDIA_VISIBLE_DEVICES"] == "all" and env["PATH"] == "/usr/bin"
    labels = run_time["Labels"]
    assert labels["maintainer"] == "somebody" and "org.opencontainers.image.version" not in labels and labels["io.aikit.fleet.backends"] == "cpu,cuda"
    assert labels["org.opencontainers.image.base.name"] == f"{server.host}/llama.cpp:server"
    assert labels["org.opencontainers.image.base.digest"] == base["digest"] == done["image"]["base"]["digest"]
    assert config["rootfs"]["diff_ids"][:3] == config_of(server, "llama.cpp", "server")["rootfs"]["diff_ids"]
    server.requests.clear()
    again = run(name=f"{server.host}/fleet/tiny:1", base=f"{server.host}/llama.cpp:server", push=True)
    assert not again["changed"] and len([path for verb, path in server.seen("GET") if "/blobs/sha256" in path]) == 1


def test_a_base_of_another_registry_is_fetched_where_it_must_be(server, run, folder):
    llama_image(server)
    with FakeRegistry() as target:
        done = run(name=f"{target.host}/fleet/tiny:1", base=f"{server.host}/llama.cpp:server", push=True, blobs=str(folder / "blobs"))
        assert [layer["reused"] for layer in done["image"]["layers"]] == [False] * 5 and len(list((folder / "blobs/sha256").iterdir())) == 3
        # From then on the target has it
        other = run(name=f"{target.host}/fleet/tiny:2", base=f"{server.host}/llama.cpp:server", push=True, context=4096, blobs=str(folder / "none"))
        assert [layer["reused"] for layer in other["image"]["layers"]] == [True, True, True, True, False] and not (folder / "none").exists()


def test_an_image_as_base_in_an_engine_an_archive_and_a_layout(server, run, folder, engine):
    llama_image(server)
    places = {"load": ["docker"], "archive": str(folder / "out.tar"), "oci_layout": str(folder / "layout"), "blobs": str(folder / "blobs")}
    base = f"{server.host}/llama.cpp:server"
    told = run(check_mode=True, base=base, **places)
    assert not (folder / "blobs").exists()
    done = run(base=base, **places)
    assert done["actions"] == told["actions"] and done["image"]["layers"][0]["diff_id"] != done["image"]["layers"][0]["digest"]
    assert engine.image("localhost/tiny:1").layers[0] == done["image"]["layers"][0]["diff_id"]
    assert not run(base=base, **places)["changed"]
    # The layers that an engine has are known by what they unpack to
    changed = run(base=base, context=4096, **places)
    assert [layer["reused"] for layer in changed["image"]["layers"]] == [True] * 4 + [False]


def test_an_image_of_a_layout_as_base(server, run, folder):
    llama_image(server)
    run(base=f"{server.host}/llama.cpp:server", oci_layout=str(folder / "layout"), blobs=str(folder / "blobs"))
    done = run(base=f"oci:{folder}/layout:localhost/tiny:1", name=f"{server.host}/fleet/on-top:1", push=True, context=4096)
    assert done["changed"] and [layer["role"] for layer in done["image"]["layers"]] == ["base"] * 5 + ["model", "config"]
    assert done["image"]["base"]["ref"] == "localhost/tiny:1"
    assert "has no image localhost/none:1" in run(base=f"oci:{folder}/layout:localhost/none:1")["msg"]
    assert "is no OCI layout" in run(base=f"oci:{folder}/none")["msg"]


@pytest.mark.parametrize(
    "programs, config, words",
    [
        ({"app/other": b"x"}, {"Entrypoint": ["/bin/sh"]}, "has no llama-server: no layer holds a file of that name"),
        ({"app/llama-server": b"\x7fELF no texts"}, CONFIG, "the options of /app/llama-server in .* are not known"),
    ],
)
def test_images_without_a_server(server, run, programs, config, words):
    import re

    llama_image(server, programs=programs, config=config)
    failed = run(base=f"{server.host}/llama.cpp:server")
    assert re.search(words, failed["msg"]) and "base_server" in failed["hint"]


def test_what_is_said_of_a_base_is_not_looked_for(server, run):
    llama_image(server, programs={"srv/llama-server": b"x"}, config={})
    base = {"base": f"{server.host}/llama.cpp:server", "name": f"{server.host}/fleet/tiny:1", "push": True}
    done = run(**base, base_server={"path": "/srv/llama-server", "version": "0.7.0", "backends": ["cpu"]})
    assert len([path for verb, path in server.seen("GET") if "/blobs/sha256" in path]) == 1
    assert config_of(server, "fleet/tiny", "1")["config"]["Entrypoint"] == ["/srv/llama-server"] and done["changed"]


@pytest.mark.parametrize(
    "value, words",
    [
        ({"path": "app/x"}, "no absolute path"),
        ({"version": "0.0.1"}, "known are: 0.7.0"),
        ({"backends": "cuda"}, "must be a list of words"),
        ({"where": "x"}, "where: no such key"),
    ],
)
def test_bad_descriptions_of_a_base(server, run, value, words):
    assert words in run(base=f"{server.host}/llama.cpp:server", base_server=value)["msg"]


def test_a_runtime_that_an_image_cannot_serve(server, run, folder):
    llama_image(server)
    parsed = shared.yaml_source.from_text(shared.AIKITFILE.format(context=1) + "runtime: cuda\n", "a.yaml")
    failed = run(base=f"{server.host}/llama.cpp:server", parsed={**parsed, "directory": str(folder)})
    assert "runtime: cuda needs a base with llama.cpp's CUDA backend; this base has: cpu" in failed["msg"] and "llama_cpp_base_variant" not in failed["msg"]


def test_a_server_that_a_higher_layer_takes_away(server, run):
    plain = [tar_of({"app/llama-server": PROGRAM}), tar_of({"app/.wh.llama-server": b""})]
    server.put_image("llama.cpp", "server", [packed(layer) for layer in plain], {}, media_type=f"{LAYER}+gzip", diff_ids=[sha256(layer) for layer in plain])
    assert "has no llama-server" in run(base=f"{server.host}/llama.cpp:server")["msg"]


@pytest.mark.parametrize("name", [".wh.app", "./.wh.app", "/.wh.app", ".wh..wh..opq", "./.wh..wh..opq"])
def test_a_whiteout_in_the_root_of_a_layer(server, run, name):
    plain = [tar_of({"app/llama-server": PROGRAM, "app/llama.yaml": b"old"}), tar_of({name: b""})]
    server.put_image("llama.cpp", "server", [packed(layer) for layer in plain], {}, media_type=f"{LAYER}+gzip", diff_ids=[sha256(layer) for layer in plain])
    assert "has no llama-server" in run(base=f"{server.host}/llama.cpp:server")["msg"]
    assert run(aikit_image_info, name=f"{server.host}/llama.cpp:server", registry=True, config_path="/app/llama.yaml")["config"] == ""


def test_a_layer_with_other_bytes_is_refused(server, run):
    llama_image(server)
    top = manifest_of(server, "llama.cpp", "server")["layers"][-1]["digest"]
    server.blobs["llama.cpp"][top] = packed(tar_of({"app/llama-server": PROGRAM + b"!"}))
    failed = run(base=f"{server.host}/llama.cpp:server")
    assert failed["failed"] and ("what came has digest" in failed["msg"] or "sends more than" in failed["msg"] or "was cut" in failed["msg"])


@pytest.mark.parametrize("mounted", [False, True])
def test_docker_types_become_those_of_oci(server, run, mounted):
    """Docker says gzip of every layer that it pushes, also of a plain one that it mounts from another repository."""
    plain = tar_of({"app/llama-server": PROGRAM, "app/libggml-cpu.so": b"x", "config.yaml": b"- name: a\n"})
    raw = plain if mounted else packed(plain)
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": CONFIG, "rootfs": {"type": "layers", "diff_ids": [sha256(plain)]}}).encode()
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **server.put_blob("d", config)},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **server.put_blob("d", raw)}],
    }
    server.put_manifest("d", "1", document, kind)
    done = run(base=f"{server.host}/d:1", name=f"{server.host}/fleet/tiny:1", push=True)
    assert done["changed"], done
    assert run(aikit_image_info, name=f"{server.host}/d:1", registry=True, config_path="/config.yaml")["config"] == "- name: a\n"
    assert {layer["mediaType"] for layer in manifest_of(server, "fleet/tiny", "1")["layers"]} == {LAYER, f"{LAYER}+gzip"}


@pytest.mark.parametrize("verify", [None, {"mode": "none"}, {"mode": "key", "key": "/k.pub"}], ids=["auto", "none", "key"])
def test_what_can_have_no_signature_is_named(server, run, folder, verify):
    options = {"load": [], "oci_layout": str(folder / "out"), **({"verify": verify} if verify else {})}
    (skipped,) = run(**options)["signatures"]["skipped"]
    assert skipped["ref"] == str(folder / "base.tar") and skipped["digest"] == f"sha256:{hashlib.sha256((folder / 'base.tar').read_bytes()).hexdigest()}"
    assert skipped["reason"].startswith("it is a file on the build host")
    run(name="localhost/base:1", load=[], oci_layout=str(folder / "layout"))
    manifest, source = oci_model(server, "1", {"tiny.gguf": gguf_bytes()}), f"oci://{server.host}/models/tiny:1"
    told = run(**options, base=f"oci:{folder / 'layout'}", parsed=shared.aikitfile(("tiny", source)))["signatures"]["skipped"]
    assert [(entry["ref"], entry["reason"].partition(",")[0]) for entry in told] == [
        (f"oci:{folder / 'layout'}", "it is in an OCI layout on the build host"),
        (source, "it is a model"),
    ]
    assert told[1]["digest"] == manifest


def test_signing_without_cosign(server, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    options = {"name": f"{server.host}/fleet/tiny:1", "push": True, "load": [], "sign_key": "/etc/fleet.key"}
    told = run(check_mode=True, **options)
    assert told["actions"] == [f"push {options['name']}", f"sign {options['name']} (key /etc/fleet.key)"] and told["signatures"]["signed"]["changed"]
    run(**{**options, "sign_key": None})
    assert run(check_mode=True, **options)["actions"] == [f"sign {options['name']} (key /etc/fleet.key)"]
    failed = run(**options)
    assert "sign_key: /etc/fleet.key: cosign is not on the build host" in failed["msg"]
    assert failed["hint"].endswith("or leave sign_key out.") and "verify" not in failed["hint"]


def test_a_base_that_is_nothing(run):
    assert "is neither a file, nor a layout, nor the name of an image" in run(base="Not An Image")["msg"]
    assert "base: the mapping is empty" in run(base={})["msg"]


# ---- several platforms


def test_an_index_of_platforms_shares_the_model(server, run, folder, engine):
    images = {f"linux/{name}": llama_image(server, tag=name, platform=("linux", name)) for name in ("amd64", "arm64")}
    server.put_index("llama.cpp", "server", images)
    name = f"{server.host}/fleet/tiny:1"
    platforms = ["linux/amd64", "linux/arm64"]
    options = {"name": name, "base": f"{server.host}/llama.cpp:server", "platforms": platforms, "push": True}
    done = run(**options, load=["docker"], oci_layout=str(folder / "layout"), archive=str(folder / "out.tar"), blobs=str(folder / "blobs"))
    index = manifest_of(server, "fleet/tiny", "1")
    assert [entry["platform"] for entry in index["manifests"]] == [{"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}]
    manifests = [manifest_of(server, "fleet/tiny", entry["digest"]) for entry in index["manifests"]]
    assert manifests[0]["layers"][3:] == manifests[1]["layers"][3:] and manifests[0]["layers"][0] != manifests[1]["layers"][0]
    model = manifests[0]["layers"][3]["digest"]
    assert len([path for verb, path in server.seen("PUT") if model.partition(":")[2] in path]) == 1
    assert done["image"]["digest"] == sha256(server.manifests["fleet/tiny"]["1"][1])
    assert [entry["platform"] for entry in done["image"]["platforms"]] == platforms and done["image"]["platforms"][1]["digest"] == index["manifests"][1][
        "digest"
    ]
    assert len(done["image"]["layers"]) == 8 - (manifests[0]["layers"][1:3] == manifests[1]["layers"][1:3]) * 2
    puts = [path for verb, path in server.seen("PUT") if "/manifests/" in path]
    assert puts[-1].endswith("/manifests/1") and puts[-2].endswith(done["image"]["digest"]) and len(puts) == 4
    assert not run(**options, load=["docker"], oci_layout=str(folder / "layout"), archive=str(folder / "out.tar"), blobs=str(folder / "blobs"))["changed"]
    # An engine gets the image for this machine
    machine = {"x86_64": 0, "aarch64": 1}.get(os.uname().machine, 0)
    assert engine.image(name).id == manifests[machine]["config"]["digest"]
    found = run(aikit_image_info, name=name, registry=True)["images"]
    assert [image["platform"] for image in found] == platforms and {image["index_digest"] for image in found} == {done["image"]["digest"]}
    found = run(aikit_image_info, oci_layout=str(folder / "layout"))["images"]
    assert [image["platform"] for image in found] == platforms and {image["ref"] for image in found} == {name}


def test_a_base_for_each_platform(server, run, folder):
    shared.write_base(folder / "arm.tar", architecture="arm64")
    done = run(name=f"{server.host}/fleet/tiny:1", push=True, base={"linux/amd64": str(folder / "base.tar"), "linux/arm64": str(folder / "arm.tar")})
    assert [entry["platform"] for entry in done["image"]["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert "base: has nothing for linux/arm64" in run(platforms=["linux/arm64"], base={"linux/amd64": str(folder / "base.tar")})["msg"]


def test_a_base_without_the_platform(server, run):
    llama_image(server)
    failed = run(name=f"{server.host}/fleet/tiny:1", push=True, base=f"{server.host}/llama.cpp:server", platforms=["linux/amd64", "linux/arm64"])
    assert "is an image for linux/amd64, and linux/arm64 is asked for" in failed["msg"] and "fleet/tiny" not in server.manifests


# ---- the lock


def test_a_lock_check_real_again(folder, run):
    path = folder / "lock.json"
    told = run(check_mode=True, lock=str(path))
    assert told["actions"] == [f"lock {path}"] and not path.exists()
    done = run(lock=str(path))
    assert done["changed"] and done["lock"] == str(path)
    content = json.loads(path.read_text())
    model = hashlib.sha256(gguf_bytes()).hexdigest()
    assert content["digest"] == done["image"]["digest"] and content["models"] == [
        {"name": "tiny", "source": "tiny.gguf", "file": "models/tiny.gguf", "sha256": model, "size_bytes": len(gguf_bytes())}
    ]
    assert content["base"]["linux/amd64"]["packages"] == {"llama.cpp-tools": "0.7.0-1"} and content["base"]["linux/amd64"]["source"] == str(folder / "base.tar")
    assert path.read_text().count("\n") > 15
    assert not run(lock=str(path))["changed"]


def test_a_lock_holds_a_tag_to_its_digest(server, run, folder):
    first = llama_image(server)
    base, path = f"{server.host}/llama.cpp:server", folder / "lock.json"
    options = {"name": f"{server.host}/fleet/tiny:1", "base": base, "push": True, "lock": str(path)}
    built = run(**options)
    assert json.loads(path.read_text())["base"]["linux/amd64"] == {"source": base, "ref": base, "digest": first["digest"], "manifest": first["digest"]}
    second = llama_image(server, config={**CONFIG, "User": "x"})
    assert first != second
    again = run(**options)
    assert not again["changed"] and again["image"]["digest"] == built["image"]["digest"]
    told = run(**options, lock_update=True, check_mode=True)
    assert (
        told["actions"] == [f"push {options['name']}", f"lock {path}"]
        and first["digest"] in told["diff"]["before"]
        and second["digest"] in told["diff"]["after"]
    )
    moved = run(**options, lock_update=True)
    assert moved["image"]["base"]["digest"] == second["digest"] == json.loads(path.read_text())["base"]["linux/amd64"]["digest"]
    assert any("locked is " + first["digest"] in finding["message"] for finding in moved["findings"])
    assert not run(**options)["changed"]


def test_an_input_that_is_not_what_the_lock_says(folder, run):
    path = folder / "lock.json"
    run(lock=str(path))
    before = path.read_text()
    (folder / "tiny.gguf").write_bytes(gguf_bytes() + b"\0" * 32)
    failed = run(lock=str(path))
    assert "models: tiny: tiny.gguf has sha256" in failed["msg"] and "lock_update: true" in failed["hint"] and path.read_text() == before
    assert run(lock=str(path), lock_update=True)["changed"]
    shared.write_base(folder / "base.tar", packages=[{"name": "llama.cpp-tools", "version": "0.8.0-1", "architecture": "amd64"}])
    with open(folder / "base.tar", "ab") as handle:
        handle.write(b"\0" * 512)
    description = json.loads((folder / "base.tar.json").read_text())
    raw = (folder / "base.tar").read_bytes()
    (folder / "base.tar.json").write_text(json.dumps({**description, "sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}))
    failed = run(lock=str(path))
    assert "base of linux/amd64" in failed["msg"] and "llama.cpp-tools 0.7.0-1 → 0.8.0-1" in failed["msg"]


def oci_model(server, tag, files):
    """An artifact as oras pushes it."""
    titled = [
        {"mediaType": LAYER, **server.put_blob("models/tiny", data), "annotations": {"org.opencontainers.image.title": name}} for name, data in files.items()
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", **server.put_blob("models/tiny", b"{}")}
    return server.put_manifest("models/tiny", tag, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": titled})["digest"]


@pytest.mark.parametrize("several", [False, True], ids=["one file", "several files"])
def test_a_lock_holds_the_tag_of_a_model_to_its_manifest(server, run, folder, several):
    old = {"tiny.gguf": gguf_bytes(), **({"README.md": b"old"} if several else {})}
    new = {"tiny.gguf": gguf_bytes(fill=1), **({"README.md": b"new"} if several else {})}
    first = oci_model(server, "1", old)
    path, source = folder / "lock.json", f"oci://{server.host}/models/tiny:1"
    options = {"lock": str(path), "load": [], "oci_layout": str(folder / "layout"), "parsed": shared.aikitfile(("tiny", source))}
    built = run(**options)
    assert [(entry["source"], entry["revision"]) for entry in json.loads(path.read_text())["models"]] == [(source, first)] * len(old)
    count = len(server.requests)
    assert not run(**options)["changed"] and len(server.requests) == count, "a second run asks nobody"
    second = oci_model(server, "1", new)
    # A builder that has never seen the model
    fresh = {**options, "store": str(folder / "other"), "oci_layout": str(folder / "again")}
    again = run(**fresh)
    assert again["image"]["digest"] == built["image"]["digest"] and json.loads(path.read_text())["models"][0]["revision"] == first
    assert not run(**fresh)["changed"]
    # And the one that took the old one for the tag
    moved = run(**options, lock_update=True)
    assert moved["image"]["digest"] != built["image"]["digest"] and json.loads(path.read_text())["models"][0]["revision"] == second
    assert not run(**options)["changed"] and not run(**options, lock_update=True)["changed"]


@pytest.mark.parametrize("path", ["", "/main/tiny.gguf"], ids=["a repository", "a file"])
def test_a_lock_holds_the_branch_of_a_model_to_its_commit(hub_server, run, folder, path):
    repository = hub_server.repository("ns/tiny", {"tiny.gguf": gguf_bytes(), "README.md": b"old"})
    first = repository.branches["main"]
    source = f"huggingface://ns/tiny{path}"
    options = {"lock": str(folder / "lock.json"), "load": [], "hub_url": hub_server.url, "parsed": shared.aikitfile(("tiny", source))}
    built = run(**options, oci_layout=str(folder / "layout"))
    assert {entry["revision"] for entry in json.loads((folder / "lock.json").read_text())["models"]} == {first}
    repository.commit({"tiny.gguf": gguf_bytes(fill=1), "README.md": b"new"})
    fresh = {**options, "store": str(folder / "other"), "oci_layout": str(folder / "again")}
    again = run(**fresh)
    assert again["image"]["digest"] == built["image"]["digest"]
    assert not run(**fresh)["changed"]


def test_a_model_that_the_aikitfile_names_anew_is_not_held_by_the_lock(server, run, folder):
    oci_model(server, "1", {"tiny.gguf": gguf_bytes()})
    path, source = folder / "lock.json", f"oci://{server.host}/models/tiny:1"
    options = {"lock": str(path), "load": [], "oci_layout": str(folder / "layout")}
    run(**options, parsed=shared.aikitfile(("tiny", source)))
    oci_model(server, "1", {"tiny.gguf": gguf_bytes(fill=1)})
    parsed = shared.aikitfile(("tiny", source, hashlib.sha256(gguf_bytes(fill=1)).hexdigest()))
    failed = run(**options, parsed=parsed)
    assert "does not fit what is there now" in failed["msg"] and "lock_update" in failed["hint"]
    assert run(**options, parsed=parsed, lock_update=True)["changed"]


def test_stale_entries_are_named(folder, run):
    path = folder / "lock.json"
    run(lock=str(path))
    (folder / "other.gguf").write_bytes(gguf_bytes())
    parsed = {**shared.aikitfile(("other", "other.gguf")), "directory": str(folder)}
    done = run(lock=str(path), parsed=parsed)
    assert [finding["message"] for finding in done["findings"] if finding["path"] == "lock"] == [
        "model tiny (tiny.gguf, models/tiny.gguf) is not used any more"
    ]
    assert [entry["name"] for entry in json.loads(path.read_text())["models"]] == ["other"]


@pytest.mark.parametrize("text, words", [("[", "is no JSON"), ("{}", "is no lock file"), ('{"schema": 9}', "has schema 9")])
def test_files_that_are_no_locks(folder, run, text, words):
    (folder / "lock.json").write_text(text)
    assert words in run(lock=str(folder / "lock.json"))["msg"]


def test_updating_no_lock(run):
    assert "no lock is named" in run(lock_update=True)["msg"]


# ---- a host pulls


def test_a_host_pulls_by_digest_check_real_again(run, engine):
    built = run()["image"]
    name, reference = "registry.example:5000/fleet/tiny:1", f"registry.example:5000/fleet/tiny@{built['digest']}"
    pulls = []

    def pull(ref, login):
        pulls.append((ref, login))
        engine.stored[ref] = ImageState(built["id"], digests=(ref,))

    engine.pull = pull
    logins = [{"registry": "registry.example:5000", "username": "anna", "password": "s3cret-word"}]
    options = {"name": name, "image": built, "pull": reference, "registry_logins": logins}
    told = run(aikit_image_load, check_mode=True, **options)
    assert told["actions"] == [f"pull {reference} (docker)"] and not pulls and not told["present"]
    done = run(aikit_image_load, **options)
    assert done["actions"] == told["actions"] and done["present"] and pulls == [(reference, ("anna", "s3cret-word"))]
    assert "s3cret-word" not in json.dumps(done) and engine.image(name).id == built["id"]
    assert not run(aikit_image_load, **options)["changed"] and len(pulls) == 1


def test_a_host_that_pulls_another_image_says_so(run, engine):
    built = run()["image"]
    engine.pull = lambda ref, login: None
    failed = run(aikit_image_load, name="registry.example/a:1", image=built, pull=f"registry.example/a@{built['digest']}")
    assert "does not list" in failed["msg"]
    assert "names no digest" in run(aikit_image_load, name="registry.example/a:1", image=built, pull="registry.example/a:1")["msg"]
    failed = run(aikit_image_load, name="registry.example/a:1", image=built, pull=f"registry.example/a@{built['digest']}", archive="/x")
    assert "mutually exclusive" in failed["msg"]


def test_logins_of_a_task_go_before_those_in_files(run, folder):
    with FakeRegistry("anna", "s3cret-word") as server:
        name = f"{server.host}/fleet/tiny:1"
        (folder / "auth.json").write_text('{"auths": {}}')
        options = {"name": name, "push": True, "registry_auth_file": str(folder / "auth.json")}
        assert "answered 401" in run(**options)["msg"]
        done = run(**options, registry_logins=[{"registry": server.host, "username": "anna", "password": "s3cret-word"}])
        assert done["changed"] and "s3cret-word" not in json.dumps(done)
        assert "has no username" in run(**options, registry_logins=[{"registry": server.host, "username": "", "password": "s3cret-word"}])["msg"]


# ---- reading back


def test_info_from_a_registry_and_a_layout(server, run, folder, engine):
    name = f"{server.host}/fleet/tiny:1"
    done = run(name=name, push=True, oci_layout=str(folder / "layout"), load=["docker"])
    in_registry = run(aikit_image_info, name=name, registry=True, config_path="/aikit/aikitfile.yaml")
    (there,) = in_registry["images"]
    (kept,) = run(aikit_image_info, oci_layout=str(folder / "layout"))["images"]
    (loaded,) = run(aikit_image_info, name=name)["images"]
    for found in (there, kept):
        assert found["digest"] == done["image"]["digest"] and found["id"] == done["image"]["id"] == loaded["id"]
        for key in ("ref", "server", "runtime", "models", "aikitfile_sha256", "base", "labels", "env", "entrypoint"):
            assert found[key] == loaded[key], key
    assert in_registry["config"] == shared.AIKITFILE.format(context=2048)
    kept = run(aikit_image_info, oci_layout=str(folder / "layout"), name=name, config_path="/aikit/config.yaml")
    assert kept["config"].startswith("- name: tiny")
    assert run(aikit_image_info, name=f"{server.host}/fleet/none:1", registry=True)["images"] == []
    assert run(aikit_image_info, name="localhost/none:1", oci_layout=str(folder / "layout"))["images"] == []
    assert run(aikit_image_info, oci_layout=str(folder / "layout"), name=name, config_path="/models")["msg"].startswith("/models of")
    assert "is no OCI layout" in run(aikit_image_info, oci_layout=str(folder))["msg"]
    assert run(aikit_image_info, registry=True)["failed"] and run(aikit_image_info, registry=True, name="x", oci_layout="/x")["failed"]


def test_a_file_is_read_from_the_highest_layer_that_has_it_whatever_its_size(server, run):
    layers = [tar_of({"config.yaml": b"old"}), tar_of({"config.yaml": b"new", "model": bytes(17 << 20)}), tar_of({"other": b""})]
    server.put_image("fleet/tiny", "1", layers)
    assert run(aikit_image_info, name=f"{server.host}/fleet/tiny:1", registry=True, config_path="/config.yaml")["config"] == "new"


def test_info_of_an_index_without_platforms(server, run, folder):
    first, second = (server.put_image("fleet/tiny", tag, [tar_of({"x": tag.encode()})], {"Labels": {"n": tag}}) for tag in ("one", "two"))
    index = server.put_manifest("fleet/tiny", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [first, second]}, INDEX)
    name = f"{server.host}/fleet/tiny:1"
    found = run(aikit_image_info, name=name, registry=True)["images"]
    assert [(image["ref"], image["digest"], image["index_digest"], image["labels"]["n"]) for image in found] == [
        (name, first["digest"], index["digest"], "one"),
        (name, second["digest"], index["digest"], "two"),
    ]
    # The same index in a layout
    blobs = folder / "layout/blobs/sha256"
    blobs.mkdir(parents=True)
    for raw in (*server.blobs["fleet/tiny"].values(), *(raw for media_type, raw in server.manifests["fleet/tiny"].values())):
        (blobs / hashlib.sha256(raw).hexdigest()).write_bytes(raw)
    (folder / "layout/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    kept = run(aikit_image_info, oci_layout=str(folder / "layout"))["images"]
    assert [(image["digest"], image["index_digest"]) for image in kept] == [(image["digest"], index["digest"]) for image in (first, second)]
    # A part that is lost is no image that is not there
    del server.manifests["fleet/tiny"][second["digest"]]
    assert "answered 404" in run(aikit_image_info, name=name, registry=True)["msg"]


@pytest.mark.parametrize("start, length", [(0, 12), (0, 3), (2, 3), (3, 6), (4, 2), (5, 7), (9, 3), (11, 1), (0, 0)])
def test_a_part_of_a_layer(folder, start, length):
    (folder / "part").write_bytes(b"defghi")
    parts = (b"abc", tar.FileRef(str(folder / "part"), 6), b"jkl")
    assert b"".join(image_io.stream_range(parts, start, length)) == b"abcdefghijkl"[start : start + length]


def test_a_file_that_became_shorter(folder):
    (folder / "part").write_bytes(b"de")
    with pytest.raises(image_io.AikitError, match="became shorter"):
        b"".join(image_io.stream_range((tar.FileRef(str(folder / "part"), 6),), 1, 5))


def test_texts_of_a_program():
    assert image_base.texts(b"\0--model\0--x y\0LLAMA_ARG_MODEL\0-ngl\0no\0") == {"--model", "LLAMA_ARG_MODEL", "-ngl"}
