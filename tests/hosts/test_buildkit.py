# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builder buildkit on a host with Docker 26.1, buildx 0.13 and a registry: everything is real but the frontend.

AIKit's own lies on a registry that is not there for tests. tests/fixtures/stand-in-frontend stands in its place: pulled by
digest, it speaks BuildKit's gateway protocol, reads the aikitfile, merges file systems, and copies from the context.
The tests go on from one another, as the life of a build host does.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import threading
import time
from pathlib import Path

import pytest
import support

NAME = os.environ.get("AIKIT_TEST_PREFIX", "aikit-hosts-") + "buildkit"
FIXTURE = support.ROOT / "tests/fixtures/stand-in-frontend"
REGISTRY = "localhost:5000"
FRONTEND = f"{REGISTRY}/aikit/aikit:v0.21.0"
IMAGE = f"{REGISTRY}/fleet/flux:1"
PACKAGES = "docker.io docker-cli docker-buildx docker-registry iptables podman crun nftables python3-docker python3-requests python3-grpcio"
STATE = "/root/.cache/aikit-fleet/buildkit"
# Bytes that a careless hand would change: no line feed at the end, CRLF, blanks at the end, what is not ASCII
AIKITFILE = (
    f"#syntax={FRONTEND}\r\napiVersion: v1alpha1   \nruntime: cuda\nbackends: [diffusers]\n# Größe\nmodels:\n  - name: tiny\n    source: weights/tiny.gguf"
)
SECRET = "hf_" + "s3cr3tS3CR3Ts3cr3tS3CR3T"


class BuildHost:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aikitfile = folder / "flux.yaml"
        self.aikitfile.write_bytes(AIKITFILE.encode())
        host = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3"}
        (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {NAME: host}}}))
        self.tool("destroy")
        self.tool("create", "trixie")
        self.sh(f"apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {PACKAGES}")
        # Debian's registry asks for a login: one without, and one with
        self.sh("sed '/^auth:/,/path:/d' /etc/docker/registry/config.yml >/etc/docker/registry/open.yml")
        self.sh("sed -i 's/:5000/:5001/; s,/var/lib/docker-registry,/var/lib/docker-registry-closed,' /etc/docker/registry/config.yml")
        self.sh("mkdir -p /var/lib/docker-registry-closed; chown docker-registry: /var/lib/docker-registry-closed; systemctl restart docker-registry")
        self.sh("systemd-run --quiet --unit=open-registry docker-registry serve /etc/docker/registry/open.yml")
        self.sh("mkdir -p /opt/stand-in")
        support.docker("cp", f"{FIXTURE}/.", f"{NAME}:/opt/stand-in")
        self.sh("mkdir -p /srv/flux/weights; echo GGUF >/srv/flux/weights/tiny.gguf")

    def tool(self, action, *words):
        subprocess.run([str(support.ROOT / "tests/tools/host"), action, NAME, *words], check=True, stdout=subprocess.DEVNULL)

    def sh(self, script, check=True):
        done = subprocess.run(["docker", "exec", NAME, "sh", "-euc", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}: exit {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def docker_settings(self, **features):
        self.sh(f"echo '{json.dumps({'features': features})}' >/etc/docker/daemon.json; systemctl restart docker")

    def build(self, *words, environment=None, **arguments):
        arguments = {"name": IMAGE, "src": str(self.aikitfile), "context": "/srv/flux", "server": "localai", **arguments}
        task = {"name": "Build", "aikit.fleet.aikit_image": arguments, "environment": environment or {}}
        (self.folder / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        run = support.playbook("play.yml", "-i", "inventory.json", *words, cwd=self.folder)
        assert run.results("Build"), run.output[-3000:]
        return run, run.results("Build")[0]

    def ok(self, *words, **arguments):
        run, result = self.build(*words, **arguments)
        assert run.code == 0, f"{run.messages()}\n{run.output[-2000:]}"
        return result

    def refused(self, **arguments):
        run, result = self.build(**arguments)
        assert run.code != 0, result
        return result["msg"]

    def inside(self, path, image=IMAGE):
        return self.sh(f"id=$(docker create {image} x); docker cp -q $id:{path} - | tar -xO | sha256sum | cut -c 1-64; docker rm $id >/dev/null")

    def tag(self, image=IMAGE):
        return "sha256:" + self.sh(f"docker buildx imagetools inspect --raw {image} | sha256sum | cut -c 1-64")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    made = BuildHost(tmp_path_factory.mktemp("buildkit"))
    yield made
    made.tool("destroy")


def test_a_graph_driver_cannot_build_and_says_why(host):
    host.docker_settings()
    host.sh(f"/opt/stand-in/make-image {FRONTEND} && docker push -q {FRONTEND} && docker rmi {FRONTEND}")
    # An instance of its own would; its image is on a registry that this host does not reach
    told = host.ok("--check", push=True)
    assert told["actions"][:2] == ["create buildx instance aikit-fleet (docker-container)", f"build {IMAGE} (BuildKit)"]
    assert told["instance"]["reason"] == "Docker's graph driver cannot merge file systems, which AIKit's frontend does"
    assert "aikit-fleet" not in host.sh("docker buildx ls")
    message = host.refused(push=True, buildkit_image=f"{REGISTRY}/no/buildkit:1")
    assert "instance aikit-fleet (buildkit_image was given) does not start" in message and "no/buildkit" in message
    assert "aikit-fleet" not in host.sh("docker buildx ls"), "half an instance stays"
    message = host.refused(push=True, buildx_builder="default")
    assert "mergeop" in message and "turn the containerd image store on" in message
    assert host.sh(f"ls {STATE}/*.json 2>/dev/null || true") == ""


def test_check_mode_builds_nothing_and_is_right(host):
    host.docker_settings(**{"containerd-snapshotter": True})
    told = host.ok("--check", "--diff", push=True, load=["docker"], archive="/srv/out/flux.tar", oci_layout="/srv/out/flux")
    assert told["changed"] and told["image"]["digest"] == ""
    assert told["actions"] == [f"build {IMAGE} (BuildKit)", f"push {IMAGE}", f"load {IMAGE} (docker)", "write /srv/out/flux.tar", "write /srv/out/flux"]
    assert told["builder"] == "buildkit" and told["reason"].startswith("backend diffusers gets its Python libraries")
    assert told["frontend"] == f"{FRONTEND}@{host.tag(FRONTEND)}" and told["instance"]["name"] == "default"
    assert host.sh(f"docker images -q; ls /srv/out {STATE}/*.json 2>/dev/null || true") == ""


def test_one_build_to_everywhere(host):
    built = host.ok("--diff", push=True, load=["docker", "podman"], archive="/srv/out/flux.tar", oci_layout="/srv/out/flux")
    assert built["changed"] and built["image"]["digest"] == host.tag()
    # The aikitfile reached the frontend as it was written
    assert host.inside("/aikit/aikitfile.yaml") == built_sha(AIKITFILE) and host.inside("/models/tiny.gguf") == built_sha("GGUF\n")
    assert json.loads(host.sh("cat /srv/out/flux/index.json"))["manifests"][0]["digest"] == built["image"]["digest"]
    assert host.sh(f"podman image inspect {IMAGE} --format '{{{{.Id}}}}' 2>/dev/null") == built["image"]["id"].partition(":")[2]
    raw = json.loads(host.sh(f"docker buildx imagetools inspect --raw {IMAGE}"))
    assert raw["annotations"]["io.aikit.fleet.fingerprint"] == built["fingerprint"]
    assert {layer["mediaType"] for layer in raw["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert [layer["digest"] for layer in built["image"]["layers"]] == [layer["digest"] for layer in raw["layers"]]
    assert built["image"]["env"] == {"CONFIG_FILE": "/config.yaml"} and built["bytes_written"] > 10000
    assert host.sh(f"ls -d {STATE}/build-* /srv/out/*.part 2>/dev/null || true") == ""
    host.sh("docker rmi $(docker images -q) >/dev/null; docker load -i /srv/out/flux.tar")


def test_a_second_run_changes_nothing(host):
    wanted = {"push": True, "load": ["docker", "podman"], "archive": "/srv/out/flux.tar", "oci_layout": "/srv/out/flux"}
    # The image was loaded again by hand above: it is the same
    for words in (["--check"], []):
        again = host.ok(*words, **wanted)
        assert not again["changed"] and again["actions"] == [] and again["diff"] == {"before": "", "after": ""}
        assert again["image"]["digest"] == host.tag() and again["image"]["layers"]
    # Another build host, without what this one remembers: registry, archive and layout say it themselves
    host.sh(f"rm {STATE}/*.json")
    again = host.ok(push=True, archive="/srv/out/flux.tar", oci_layout="/srv/out/flux")
    assert not again["changed"] and again["image"]["digest"] == host.tag()
    # What an engine has cannot be known without it; the layers come from the cache
    assert host.ok(**wanted)["actions"] == [f"build {IMAGE} (BuildKit)", f"load {IMAGE} (docker)", f"load {IMAGE} (podman)"]
    assert not host.ok(**wanted)["changed"]


def test_a_tag_that_was_moved_is_not_believed(host):
    digest = host.tag()
    host.sh(
        f"docker tag {FRONTEND.rpartition(':')[0]}@{host.tag(FRONTEND)} {IMAGE} 2>/dev/null || "
        f"docker pull -q {FRONTEND} && docker tag {FRONTEND} {IMAGE}; docker push -q {IMAGE}"
    )
    assert host.tag() != digest
    moved = host.ok(push=True, load=["docker"])
    assert moved["actions"] == [f"build {IMAGE} (BuildKit)", f"push {IMAGE}", f"load {IMAGE} (docker)"] and host.tag() == digest
    host.sh("truncate -s 5000 /srv/out/flux.tar; echo x >>/srv/out/flux/$(cd /srv/out/flux; ls -S blobs/sha256/* | head -n 1)")
    again = host.ok(archive="/srv/out/flux.tar", oci_layout="/srv/out/flux", push=True)
    assert again["actions"] == [f"build {IMAGE} (BuildKit)", "write /srv/out/flux.tar", "write /srv/out/flux"]
    assert not host.ok(archive="/srv/out/flux.tar", oci_layout="/srv/out/flux", push=True)["changed"]


def test_what_changes_an_image_is_seen_and_shown(host):
    before = host.tag()
    host.sh("echo GGUF2 >/srv/flux/weights/tiny.gguf; echo unused >/srv/flux/notes.txt")
    for words in (["--check", "--diff"], ["--diff"]):
        told = host.ok(*words, push=True)
        assert told["changed"] and "weights/tiny.gguf" in told["diff"]["before"] and "aikitfile" not in told["diff"]["before"]
    assert host.tag() not in ("", before) and not host.ok(push=True)["changed"]
    # The tag of the frontend stands for another one now
    host.sh(f"echo '# newer' >>/opt/stand-in/frontend.py; /opt/stand-in/make-image {FRONTEND}; docker push -q {FRONTEND}")
    told = host.ok("--diff", push=True)
    assert told["changed"] and "frontend" in told["diff"]["after"] and "context" not in told["diff"]["after"]
    assert not host.ok(push=True)["changed"]
    assert host.ok("--check", push=True, build_args={"model": "weights/tiny.gguf"})["changed"]
    # Without platforms it is for the build host's
    assert not host.ok("--check", push=True, platforms=["linux/amd64"])["changed"]
    assert host.ok("--check", push=True, compression="gzip")["changed"]


READ = "import hashlib; s = open('/run/secrets/hf-token').read(); print('it is', s); open('/out/sum', 'w').write(hashlib.sha256(s.encode()).hexdigest())"


@pytest.mark.parametrize("kind", ["value", "env", "file"])
def test_a_secret_reaches_the_step_and_nothing_else(host, kind):
    host.sh(f"printf %s {SECRET} >/root/hf-token")
    given = {"value": SECRET, "env": "MY_TOKEN", "file": "/root/hf-token"}[kind]
    image = f"{REGISTRY}/fleet/secret:{kind}"
    environment = {"MY_TOKEN": SECRET} if kind == "env" else {}
    run, built = host.build(
        "-vvv",
        name=image,
        load=["docker"],
        build_args={"run": READ + f"  # {kind}"},
        secrets={"hf-token": {kind: given}},
        environment=environment,
    )
    assert run.code == 0, run.messages()
    assert SECRET not in json.dumps(built)
    # Ansible itself prints the environment of a task with -vvv
    assert kind == "env" or SECRET not in run.output
    assert host.inside("/out/sum", image) == built_sha(hashlib.sha256(SECRET.encode()).hexdigest())
    assert host.sh(f"docker save {image} | grep -c {SECRET} || true") == "0"
    assert host.sh(f"grep -rl {SECRET} {STATE} /tmp 2>/dev/null || true") == ""
    assert not host.ok(name=image, load=["docker"], build_args={"run": READ + f"  # {kind}"}, secrets={"hf-token": {kind: given}}, environment=environment)[
        "changed"
    ]


def test_a_build_argument_that_is_a_secret_reaches_the_frontend(host):
    """buildx takes it out of its environment, also under a name that a shell could not set."""
    image = f"{REGISTRY}/fleet/secret:argument"
    run, built = host.build(name=image, load=["docker"], build_args={"hf-token": SECRET})
    assert run.code == 0, run.messages()
    assert SECRET not in json.dumps(built) and SECRET not in run.output
    told = host.sh(f"id=$(docker create {image} x); docker cp -q $id:/aikit/options.json - | tar -xO; docker rm $id >/dev/null")
    assert json.loads(told)["build_args"]["hf-token"] == SECRET
    assert host.sh(f"grep -rl {SECRET} {STATE} 2>/dev/null || true") == ""


def test_a_failing_step_shows_its_log_without_the_secret(host):
    run, told = host.build(
        load=["docker"],
        build_args={"run": "print(open('/run/secrets/hf-token').read()); print('no such wheel'); raise SystemExit(3)"},
        secrets={"hf-token": {"value": SECRET}},
    )
    assert run.code != 0 and told["failed_step"] == "[linux/amd64] run"
    assert "BuildKit: step '[linux/amd64] run' failed:" in told["msg"] and "exit code: 3" in told["msg"]
    assert "The last 2 lines of its log:\n  ********\n  no such wheel\n" in told["msg"] and SECRET not in run.output
    # What was there before is as it was
    assert not host.ok(push=True)["changed"]


def test_what_cannot_be_had(host):
    assert "variable NOT_SET is not set" in host.refused(push=True, secrets={"hf-token": {"env": "NOT_SET"}})
    assert f"there is no image {REGISTRY}/aikit/aikit:v9" in host.refused(push=True, frontend=f"{REGISTRY}/aikit/aikit:v9")
    host.sh("mv /srv/flux/weights/tiny.gguf /srv/flux/tiny; ln -s ../tiny /srv/flux/weights/tiny.gguf")
    assert "is a symbolic link" in host.refused(push=True)
    host.sh("rm /srv/flux/weights/tiny.gguf")
    assert "there is no file /srv/flux/weights/tiny.gguf on the build host" in host.refused(push=True)
    host.sh("mv /srv/flux/tiny /srv/flux/weights/tiny.gguf")
    assert "nowhere to put the image" in host.refused()
    closed = IMAGE.replace("5000", "5001")
    message = host.refused(name=closed, push=True)
    assert "localhost:5001" in message and "docker login" in message


def test_a_registry_with_a_login(host):
    host.sh(
        "apt-get install -y -qq --no-install-recommends apache2-utils >/dev/null; "
        "htpasswd -Bbn builder s3cret >/etc/docker/registry/htpasswd; systemctl restart docker-registry"
    )
    host.sh("sleep 1; echo s3cret | docker login --username builder --password-stdin localhost:5001 2>/dev/null")
    closed = IMAGE.replace("5000", "5001")
    assert host.ok(name=closed, push=True)["changed"] and not host.ok(name=closed, push=True)["changed"]


def test_two_platforms(host):
    wanted = {"name": f"{REGISTRY}/fleet/llama:1", "server": "localai", "push": True, "platforms": ["linux/amd64", "linux/arm64"]}
    host.aikitfile.write_text(f"#syntax={FRONTEND}\napiVersion: v1alpha1\nmodels:\n  - name: tiny\n    source: weights/tiny.gguf\n")
    try:
        built = host.ok(**wanted, builder="buildkit", oci_layout="/srv/out/flux", archive="/srv/out/llama.tar", load=["docker"])
        index = json.loads(host.sh(f"docker buildx imagetools inspect --raw {wanted['name']}"))
        assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
        assert index["annotations"]["io.aikit.fleet.fingerprint"] == built["fingerprint"] and built["image"]["digest"] == host.tag(wanted["name"])
        # The layout has both images now, and nothing that neither needs
        names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in json.loads(host.sh("cat /srv/out/flux/index.json"))["manifests"]]
        assert sorted(names) == sorted([IMAGE, wanted["name"]])
        again = host.ok(**wanted, builder="buildkit", oci_layout="/srv/out/flux", archive="/srv/out/llama.tar", load=["docker"])
        assert not again["changed"]
        assert "Podman takes an image of one platform" in host.refused(**wanted, builder="buildkit", load=["podman"])
    finally:
        host.aikitfile.write_bytes(AIKITFILE.encode())


def test_caches_go_out_and_come_in(host):
    name = f"{REGISTRY}/fleet/cached:1"
    told = {"name": name, "push": True, "build_args": {"run": "print('once')"}}
    host.ok(**told, cache_to=[f"type=registry,ref={REGISTRY}/fleet/cache:1,mode=max,image-manifest=true,oci-mediatypes=true"])
    host.sh(f"docker buildx prune --all --force >/dev/null; rm {STATE}/*.json")
    # The registry has it still, and says so: only what reads the cache needs a build
    host.ok(**{**told, "push": False}, load=["docker"], cache_from=[f"type=registry,ref={REGISTRY}/fleet/cache:1"])
    assert host.sh(f"docker buildx imagetools inspect {REGISTRY}/fleet/cache:1 >/dev/null && echo there") == "there"


def pids(host, *words):
    """The processes of the host whose command has one of the words."""
    look = f"for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -qE '{'|'.join(words)}' && echo ${{p#/proc/}}; done 2>/dev/null; true"
    own = "grep -qE"
    return [pid for pid in host.sh(look).split() if own not in host.sh(f"tr '\\0' ' ' </proc/{pid}/cmdline 2>/dev/null || true")]


# Who is killed: the module alone, with the program that it runs, and as if the power went, with Docker itself
VICTIMS = {
    "module": ("AnsiballZ_aikit_image",),
    "buildx": ("AnsiballZ_aikit_image", "buildx build"),
    "docker": ("AnsiballZ_aikit_image", "buildx build", "/usr/sbin/dockerd"),
}


@pytest.mark.parametrize("victims", VICTIMS)
def test_builds_that_are_killed(host, victims):
    """kill -9 at moments of a build that pushes, loads and writes; then again: nothing is corrupt, and nothing is sent twice."""
    moments = random.Random(victims)
    seconds = 0.0
    killed = 0
    for number in range(4):
        name = f"{REGISTRY}/kill/{victims}-{number}:1"
        wanted = {"name": name, "push": True, "load": ["docker"], "archive": f"/srv/killed/{number}.tar", "oci_layout": f"/srv/killed/{number}"}
        host.sh("mkdir -p /srv/killed; { echo GGUF; head -c 40000000 /dev/urandom; } >/srv/flux/weights/tiny.gguf; rm -rf /srv/killed/*")
        if number == 0:
            # The first says how long it takes
            built = host.ok(**wanted)
            seconds = built["duration_seconds"]
        else:
            thread = threading.Thread(target=host.build, kwargs=wanted)
            thread.start()
            support.wait(lambda: started(host), AssertionError, 60)
            time.sleep(moments.uniform(0.1, max(1.0, seconds)))
            found = pids(host, *VICTIMS[victims])
            killed += bool(pids(host, "AnsiballZ_aikit_image"))
            host.sh(f"kill -9 {' '.join(found)} 2>/dev/null || true")
            thread.join(120)
            assert not thread.is_alive()
            if victims == "docker":
                # systemd starts it again by itself, until it was killed too often
                host.sh("systemctl reset-failed docker; systemctl start docker")
            built = host.ok(**wanted)
        assert host.tag(name) == built["image"]["digest"]
        assert host.sh(f"ls -d {STATE}/build-* /srv/killed/*.part /srv/killed/*/*.part 2>/dev/null || true") == ""
        host.sh(f'cd /srv/killed/{number}/blobs/sha256; for blob in *; do echo "$blob  $blob"; done | sha256sum --check --quiet')
        index = json.loads(host.sh(f"cat /srv/killed/{number}/index.json"))
        assert [entry["digest"] for entry in index["manifests"]] == [built["image"]["digest"]]
        sent = host.sh(
            f"journalctl --unit=open-registry --output=cat | grep -oE 'PUT /v2/kill/{victims}-{number}/blobs/[^ ]*digest=[^ ]* HTTP[^ ]* 201' || true"
        )
        digests = [line.rpartition("digest=")[2] for line in sent.splitlines()]
        assert digests and len(digests) == len(set(digests)), "a blob was sent twice"
        assert not host.ok(**wanted)["changed"]
        # What stands in the registry and in the archive is whole
        host.sh(f"docker rmi --force {name} >/dev/null; docker pull --quiet {name}; docker rmi --force {name} >/dev/null")
        host.sh(f"docker load --input /srv/killed/{number}.tar")
        assert host.inside("/models/tiny.gguf", name) == host.sh("sha256sum /srv/flux/weights/tiny.gguf | cut -c 1-64")
    assert killed > 1


def started(host):
    assert pids(host, "AnsiballZ_aikit_image")


def built_sha(text):
    return hashlib.sha256(text.encode()).hexdigest()
