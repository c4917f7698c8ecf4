#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aikit_image
short_description: Build an AIKit image from an aikitfile
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.progress
  - aikit.fleet.registry
  - aikit.fleet.signatures
description:
  - Assembles an image from an C(aikitfile), a base and model files, without a daemon and without a temporary copy of the weights.
  - What needs commands inside the image is built by BuildKit with AIKit's own frontend (C(docker buildx build)); O(builder=auto) decides,
    and RV(reason) says why.
  - The layers are the base, one uncompressed layer for each model, and the configuration last. So a changed setting changes a layer of a few kilobytes.
  - The same inputs give the same digest on every machine and every Python.
  - Pushes the image to a registry, loads it into the engines of the build host, writes it as an archive that Docker and Podman load, or as an OCI layout;
    several of these in one run. Without any, it only computes the digest.
  - What a place has already is not sent to it. A registry gets all blobs and manifests first and the tag last, so nothing half-pushed is ever under the tag.
  - Digests of big files are cached by device, inode, size and times of change, so that a second run reads nothing.
attributes:
  async:
    description: Supports being used with the C(async) keyword.
    support: full
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
    details:
      - While a model is not on the build host yet, the digest cannot be known; then RV(image.digest) is empty.
      - Servers are asked for the sizes of models that are missing, so that a disk that is too small is found.
  diff_mode:
    description: Returns the layers, environment and labels that would change.
    support: full
  idempotent:
    description: A second run changes nothing; the image is compared by digest, not by its tag.
    support: full
    details:
      - An image that BuildKit builds is compared by RV(fingerprint), and by the digest that was recorded when it was built.
options:
  name:
    description:
      - Name of the image, with or without a tag (C(latest)).
    type: str
    required: true
  src:
    description:
      - Path of the aikitfile on the controller.
      - One of O(src) and O(definition) is required.
    type: path
  definition:
    description:
      - The aikitfile as a mapping. Mark it C(!unsafe) where it holds LocalAI templates such as C({{.Input}}).
    type: dict
  context:
    description:
      - Folder on the build host to which sources without a scheme are relative.
      - By default the folder of O(src). Needed when a O(definition) has such sources.
    type: path
  builder:
    description:
      - How the image is built.
    type: str
    choices:
      auto: The fastest builder that gives an equivalent image; RV(reason) says why.
      direct: Assemble the image from its layers.
      buildkit: Let C(docker buildx build) run AIKit's frontend. Only for O(server=localai).
    default: auto
  server:
    description:
      - The program that serves the model.
      - With V(localai) the image has the files, the environment and the command of AIKit's own, release by release (O(aikit_version)).
        Its parts come from the registries that AIKit takes them from, see O(localai) and O(registry_mirrors).
    type: str
    choices:
      localai: LocalAI, as in every image of AIKit.
      llama_cpp: llama.cpp's own server, under the settings of the aikitfile. Needs O(base), and no registry.
    default: localai
  base:
    description:
      - For server V(llama_cpp), which needs it. For V(localai) the reference of an image to take in place of AIKit's base, which is rarely needed.
      - Path of the base on the build host, as role C(aikit.fleet.llama_cpp_base) makes it. Its description stands beside it, with C(.json) added.
      - Or the name of an image in a registry, by tag or digest, that has llama.cpp's server, for example C(ghcr.io/ggml-org/llama.cpp:server-cuda).
        Its layers stay as they are. They are fetched only where they are needed; a registry that has them, or can take them over from another
        of its repositories, is not sent them.
      - Or an image in an OCI layout on the build host, as C(oci:FOLDER) or C(oci:FOLDER:NAME).
      - Or a mapping of platforms to any of these, for an image of several platforms.
    type: raw
  localai:
    description:
      - What to take in place of the parts that O(aikit_version) stands for. Only for server V(localai), and not for O(builder=buildkit).
    type: dict
    suboptions:
      version:
        description:
          - Version of LocalAI's program, as in the tags of its artifact.
        type: str
      backend_version:
        description:
          - Version of LocalAI's llama-cpp backends, as in their tags.
        type: str
      sources:
        description:
          - References by part, best with a digest. The parts are C(base), C(local-ai), C(cpu-llama-cpp), C(cuda12-llama-cpp) and C(gpu-vulkan-llama-cpp).
          - C(local-ai) is an artifact with one file of that name, the others are images.
        type: dict
  base_server:
    description:
      - What is in a O(base) that is an image. What is not said here is looked for in its config and in the files of its layers, of which
        as many are read as it takes, once; they are read as a stream and not kept.
      - C(path) is the path of C(llama-server), C(backends) a list of ggml's backends (C(cpu), C(cuda), C(vulkan)), C(version) a release
        whose options are known to aikit.fleet. With all three, no layer is read.
    type: dict
  platforms:
    description:
      - Platforms the image is for. Without it, that of the base; with server V(localai) that of the build host, or V(linux/arm64) for C(applesilicon).
      - With several, the image is an index; the layers of the models are the same for all platforms, and are sent and kept once.
        A O(base) in a registry or a layout must have them all.
      - O(load) takes the image for the platform of the build host. What reads no indexes finds the first platform in an O(archive).
    type: list
    elements: str
    default: []
  push:
    description:
      - Push the image to the registry in O(name).
      - Logins are those of C(docker login) and C(podman login) on the build host, see O(registry_auth_file).
    type: bool
    default: false
  oci_layout:
    description:
      - Folder on the build host to keep the image in, as an OCI layout. Other images in it stay, and blobs that they share are there once.
    type: path
  lock:
    description:
      - Path on the build host of a lock file. What is in it is taken, whatever its name stands for today, so that a build gives the same image again.
        What is new is written to it; what nobody asks for any more is named in RV(findings).
      - It has the digests of bases, the versions of their packages, the SHA-256 of every model file, and the commit or the manifest that its source
        meant; with builder V(buildkit) the digest
        of the frontend, and the SHA-256 of the models that are known before the build. What the frontend itself fetches by a tag is not in it.
      - Where an input is not what the lock file says, and cannot be had any more, the build fails and names it.
    type: path
  lock_update:
    description:
      - Take what the names stand for today, and bring O(lock) up to date.
    type: bool
    default: false
  aikit_version:
    description:
      - The AIKit release whose rules the aikitfile must follow.
    type: str
    default: 0.21.0
  load:
    description:
      - Engines of the build host to load the image into.
      - Only layers that an engine lacks are sent.
    type: list
    elements: str
    choices: [docker, podman]
    default: []
  frontend:
    description:
      - The frontend that BuildKit runs, by tag or digest. A tag is resolved to its digest, which is what runs.
      - By default that of the C(#syntax) line of the aikitfile, and without one AIKit's of O(aikit_version).
      - Only for O(builder=buildkit).
    type: str
  build_args:
    description:
      - Build arguments of the frontend. AIKit's reads C(model), which replaces the models and the config of the aikitfile, and C(runtime).
      - What looks like a secret is warned about, see O(secrets).
      - Only for O(builder=buildkit).
    type: dict
  secrets:
    description:
      - Secrets of the build by their ids, for example C(hf-token). Each is a mapping with one of C(env) (a variable on the build host),
        C(file) (a path there) and C(value).
      - Their values stand in no command line, no log, no result and no layer.
      - Only for O(builder=buildkit).
    type: dict
  cache_from:
    description:
      - Caches to read from, as C(docker buildx build --cache-from) takes them.
      - Only for O(builder=buildkit).
    type: list
    elements: str
    default: []
  cache_to:
    description:
      - Caches to write to, as C(docker buildx build --cache-to) takes them.
      - Only for O(builder=buildkit).
    type: list
    elements: str
    default: []
  compression:
    description:
      - Compression of the layers that BuildKit writes. V(uncompressed) by default, because quantised weights do not shrink.
      - Only for O(builder=buildkit).
    type: str
    choices: [uncompressed, gzip, zstd]
  buildx_builder:
    description:
      - Name of the buildx instance that builds, which must be there.
      - By default Docker's own BuildKit where it has the containerd image store, else an instance C(aikit-fleet) with driver
        C(docker-container) that is made when it is not there, and kept.
      - Only for O(builder=buildkit).
    type: str
  buildkit_image:
    description:
      - Image of BuildKit for instance C(aikit-fleet), for example a mirror of C(moby/buildkit). With it that instance builds.
      - Only for O(builder=buildkit).
    type: str
  buildkitd_config:
    description:
      - Path on the build host of a C(buildkitd.toml) for instance C(aikit-fleet). It is read when the instance is made. With it that instance builds.
      - Only for O(builder=buildkit).
    type: path
  archive:
    description:
      - Path on the build host to write the image to, as one file that is a C(docker-archive) and an OCI layout.
    type: path
  archive_omit:
    description:
      - Digests of layers to leave out of O(archive), because the engine that will load it has them.
      - Module M(aikit.fleet.aikit_image_load) returns them.
    type: list
    elements: str
    default: []
  sign_key:
    description:
      - Private key to sign the image with, as a path on the build host or as the reference of a key in a KMS. Needs O(push), because a signature
        is kept beside the image.
      - An image that this key has signed is not signed again.
    type: str
  sign_password:
    description:
      - Password of O(sign_key).
    type: str
  sign_tlog:
    description:
      - Write the signature into sigstore's public transparency log. Everybody can read there that this digest was signed with this key.
    type: bool
    default: false
  store:
    description:
      - Where models that are downloaded are kept, see M(aikit.fleet.model_file).
    type: path
    default: ~/.cache/aikit-fleet/models
  cache:
    description:
      - Folder of the digest cache.
    type: path
    default: ~/.cache/aikit-fleet/digests
  blobs:
    description:
      - Where layers of registries are kept that were needed on the build host.
    type: path
    default: ~/.cache/aikit-fleet/blobs
  token:
    description:
      - Bearer token for the sources of the models, which must be of one host then. It is sent to that host alone.
      - No source may hold a secret itself, because the aikitfile becomes a part of the image.
    type: str
  tokens:
    description:
      - Bearer tokens by host, for models that come from several, each with its port where the source has one.
      - A host that is not here gets no token. Tokens of hosts that no source has are not used.
      - Mutually exclusive with O(token).
    type: dict
  hub_url:
    description:
      - The hub that C(huggingface://) sources are read from, see M(aikit.fleet.model_file). With O(builder=buildkit) AIKit's frontend asks its own.
    type: str
    default: https://huggingface.co
  require_sha256:
    description:
      - Refuse models of C(https) and C(http) sources for which the aikitfile names no C(sha256), and no hub tells it.
      - With O(builder=buildkit) no hub is asked, because AIKit's frontend downloads what comes.
      - With V(false), whatever comes is taken.
    type: bool
    default: true
  parsed:
    description:
      - The parsed aikitfile. Filled in by the action plugin, do not set it.
    type: dict
seealso:
  - module: aikit.fleet.aikitfile
  - module: aikit.fleet.model_file
  - module: aikit.fleet.aikit_image_load
"""

EXAMPLES = r"""
- name: Build an image and load it into Docker
  aikit.fleet.aikit_image:
    name: localhost/gemma:1
    src: aikitfiles/gemma.yaml
    server: llama_cpp
    base: ~/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
    load: [docker]

- name: Build AIKit's own image, with everything that it takes from registries read from one of yours
  aikit.fleet.aikit_image:
    name: localhost/gemma-localai:1
    src: aikitfiles/gemma.yaml
    aikit_version: main
    registry_mirrors:
      ghcr.io: registry.example:5000/ghcr
      quay.io: registry.example:5000/quay
    load: [docker]

- name: Write an archive for hosts that reach no registry
  aikit.fleet.aikit_image:
    name: localhost/gemma:1
    definition: !unsafe
      apiVersion: v1alpha1
      models:
        - name: gemma
          source: models/gemma-3-270m-q4_k_m.gguf
    context: /srv
    server: llama_cpp
    base: ~/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
    archive: /srv/images/gemma.tar

- name: Push an image on top of llama.cpp's own server image, the same one each time
  aikit.fleet.aikit_image:
    name: registry.example:5000/gemma:1
    src: aikitfiles/gemma.yaml
    server: llama_cpp
    base: ghcr.io/ggml-org/llama.cpp:server
    lock: gemma.lock.json
    push: true

- name: One name for two platforms, in a registry and in a layout
  aikit.fleet.aikit_image:
    name: registry.example:5000/gemma:2
    src: aikitfiles/gemma.yaml
    server: llama_cpp
    base:
      linux/amd64: ~/.cache/aikit-fleet/bases/sid-cpu-amd64.tar
      linux/arm64: ~/.cache/aikit-fleet/bases/sid-cpu-arm64.tar
    push: true
    oci_layout: /srv/images/layout
    registry_ca_file: /etc/ssl/example-ca.pem

- name: Sign what is pushed, on parts that were copied into a registry of yours and signed there with another key
  aikit.fleet.aikit_image:
    name: registry.example:5000/gemma-localai:1
    src: aikitfiles/gemma.yaml
    aikit_version: main
    registry_mirrors:
      ghcr.io: registry.example:5000/ghcr
      quay.io: registry.example:5000/quay
    verify:
      mode: key
      key: /etc/aikit/mirror.pub
      ignore_tlog: true
    push: true
    sign_key: /etc/aikit/fleet.key
    sign_password: "{{ vault_sign_password }}"

- name: Build what needs commands inside the image with AIKit's frontend
  aikit.fleet.aikit_image:
    name: registry.example:5000/flux:1
    src: aikitfiles/flux.yaml
    server: localai
    frontend: ghcr.io/kaito-project/aikit/aikit:v0.21.0@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    secrets:
      hf-token:
        file: /run/secrets/hf-token
    archive: /srv/images/flux.tar
"""

RETURN = r"""
image:
  description: The image.
  returned: always
  type: dict
  contains:
    ref:
      description: Name with tag.
      type: str
      sample: localhost/gemma:1
    digest:
      description: Digest of the manifest, or of the index where there are several platforms. Empty while a model is not on the build host (check mode).
      type: str
      sample: sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
    id:
      description: Digest of the config, which is what Docker and Podman show as the image's id.
      type: str
      sample: sha256:0b1f4a5b6ad0c35a22ef1f3a7b3f8e63d0c41c2f5be7a2f57c3dbd5a0a9c4e2f
    size_bytes:
      description: Size of all layers, the config and the manifest.
      type: int
      sample: 321197568
    layers:
      description:
        - The layers, base first. C(reused) is true where nothing had to be sent.
        - A layer that is compressed has C(diff_id), the digest of what it unpacks to.
      type: list
      elements: dict
      sample:
        - role: model
          title: gemma
          digest: sha256:9a1c0f1f8d6f6e0d3d7a2c7f1b5b7f0c4a3e2d1c0b9a8f7e6d5c4b3a29181706
          size_bytes: 253116416
          reused: false
    server:
      description: The program that serves the model.
      type: str
      sample: llama_cpp
    runtime:
      description: The aikitfile's runtime, empty for the CPU.
      type: str
      sample: cuda
    models:
      description: Name, sha256 and size of every model file.
      type: list
      elements: dict
      sample:
        - name: gemma
          sha256: a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
          size_bytes: 253113024
    base:
      description: Reference and digest of the base.
      type: dict
      sample:
        ref: aikit.fleet/llama_cpp_base:sid-cpu
        digest: sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b
    platforms:
      description: The image of each platform.
      returned: when there are several
      type: list
      elements: dict
      sample:
        - platform: linux/arm64
          digest: sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
          id: sha256:0b1f4a5b6ad0c35a22ef1f3a7b3f8e63d0c41c2f5be7a2f57c3dbd5a0a9c4e2f
          base:
            ref: aikit.fleet/llama_cpp_base:sid-cpu
            digest: sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b
          layers: [sha256:9a1c0f1f8d6f6e0d3d7a2c7f1b5b7f0c4a3e2d1c0b9a8f7e6d5c4b3a29181706]
    env:
      description: The environment that is built in; a host may override each variable.
      type: dict
      sample:
        LLAMA_ARG_ALIAS: gemma
        LLAMA_ARG_MODEL: /models/gemma-3-270m-q4_k_m.gguf
    entrypoint:
      description: The program that a container of the image starts.
      type: list
      elements: str
      sample: [local-ai]
    command:
      description: The arguments of that program.
      type: list
      elements: str
      sample: [--config-file=/config.yaml]
    config:
      description: The text of C(/config.yaml) in an image with LocalAI.
      returned: with O(server=localai), where the aikitfile has a config
      type: str
      sample: |
        - name: gemma
          parameters:
            model: gemma-3-270m-q4_k_m.gguf
    labels:
      description: The labels of the image. Images with LocalAI have none, as AIKit's own.
      type: dict
      sample:
        io.aikit.fleet.server: llama_cpp
    annotations:
      description: The annotations of the manifest, which a registry tells. With O(server=localai) each source stands there by its digest.
      type: dict
      sample:
        io.aikit.fleet.server: localai
        io.aikit.fleet.server.version: v4.7.1
        io.aikit.fleet.inputs: '{"base":"ghcr.io/kaito-project/aikit/base:latest@sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b"}'
findings:
  description: Remarks on the aikitfile and on settings that cannot be translated.
  returned: always
  type: list
  elements: dict
  sample:
    - level: warning
      path: config[0].f16
      line: 12
      message: f16 does nothing in llama.cpp
      hint: remove it
archive:
  description: Path of the archive.
  returned: when O(archive) is set
  type: str
  sample: /srv/images/gemma.tar
oci_layout:
  description: Folder of the layout.
  returned: when O(oci_layout) is set
  type: str
  sample: /srv/images/layout
lock:
  description: Path of the lock file.
  returned: when O(lock) is set
  type: str
  sample: gemma.lock.json
frontend:
  description: The frontend that made the image, by digest.
  returned: with builder V(buildkit)
  type: str
  sample: ghcr.io/kaito-project/aikit/aikit:v0.21.0@sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
fingerprint:
  description:
    - Digest of everything that the image is made of - the bytes of the aikitfile, the frontend's digest, build arguments, platforms,
      the files of the context, the compression.
    - It is an annotation of the image, C(io.aikit.fleet.fingerprint).
  returned: with builder V(buildkit)
  type: str
  sample: 0b1f4a5b6ad0c35a22ef1f3a7b3f8e63d0c41c2f5be7a2f57c3dbd5a0a9c4e2f
instance:
  description: The buildx instance that built, or would build, and why it was this one.
  returned: with builder V(buildkit)
  type: dict
  sample:
    name: default
    driver: docker
    reason: Docker's own BuildKit, with the containerd image store
signatures:
  description: Signatures of what was taken and made.
  returned: always
  type: dict
  contains:
    verified:
      description: Who signed what, by name and digest.
      type: list
      elements: dict
      sample:
        - ref: ghcr.io/kaito-project/aikit/base:latest
          digest: sha256:5a1f0c5ad2bd0d2b4d1c2a7c5a0f2f3f6b7d8e9fa0b1c2d3e4f5061728394a5b
          by: https://github.com/kaito-project/aikit/.github/workflows/release-base.yaml@refs/heads/main
    skipped:
      description: What was taken without a signature, and the reason; also bases that are no images of a registry, and models of one.
      type: list
      elements: dict
      sample:
        - ref: ghcr.io/kaito-project/aikit/localai:v4.7.1-amd64
          digest: sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
          reason: AIKit does not sign its copy of LocalAI's program; it is taken by its digest
    signed:
      description:
        - The signature that O(sign_key) asks for. C(changed) is whether it was made, or would be. Empty without O(sign_key).
        - While cosign is not on the build host, check mode cannot tell, and says that it would be made.
      type: dict
      sample:
        ref: registry.example:5000/gemma:1
        digest: sha256:6d6f36d0e3b0f5b9b0c3f1a1f7c6b0a55f2d1a3d4a8f2d6c0a3a5f0e9d0b7c11
        key: /etc/aikit/fleet.key
        tlog: false
        changed: true
bytes_written:
  description: Bytes written to O(archive) and O(oci_layout).
  returned: always
  type: int
  sample: 0
bytes_sent:
  description:
    - Bytes of layers and configs sent to engines and to the registry, also those that were sent in vain because a connection was cut.
    - Null with builder V(buildkit), because BuildKit sends them itself and does not tell; nor does C(reused) of a layer say anything then.
  returned: always
  type: int
  sample: 321207296
duration_seconds:
  description: How long the module worked.
  returned: always
  type: float
  sample: 2.4
builder:
  description: The builder that was used.
  returned: always
  type: str
  sample: direct
reason:
  description: Why that builder was used.
  returned: always
  type: str
  sample: no step of this image runs a command, so its layers are assembled directly
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
  sample: [load localhost/gemma:1 (docker)]
"""

import dataclasses

from ..module_utils._build_secrets import hide_build_secrets
from ..module_utils._io.build import Request, build
from ..module_utils._module import REGISTRY_OPTIONS, STATUS_FILE_OPTION, VERIFY_OPTION, hide_sources, run_module

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "src": {"type": "path"},
    "definition": {"type": "dict"},
    "context": {"type": "path"},
    "builder": {"type": "str", "choices": ["auto", "direct", "buildkit"], "default": "auto"},
    "server": {"type": "str", "choices": ["localai", "llama_cpp"], "default": "localai"},
    "base": {"type": "raw"},
    "localai": {"type": "dict", "options": {"version": {"type": "str"}, "backend_version": {"type": "str"}, "sources": {"type": "dict"}}},
    "base_server": {"type": "dict"},
    "platforms": {"type": "list", "elements": "str", "default": []},
    "aikit_version": {"type": "str", "default": "0.21.0"},
    "load": {"type": "list", "elements": "str", "choices": ["docker", "podman"], "default": []},
    "frontend": {"type": "str"},
    "build_args": {"type": "dict"},
    # All of it, so that no value is ever logged; what is no secret is shown again by hide_build_secrets
    "secrets": {"type": "dict", "no_log": True},
    "cache_from": {"type": "list", "elements": "str", "default": []},
    "cache_to": {"type": "list", "elements": "str", "default": []},
    "compression": {"type": "str", "choices": ["uncompressed", "gzip", "zstd"]},
    "buildx_builder": {"type": "str"},
    "buildkit_image": {"type": "str"},
    "buildkitd_config": {"type": "path"},
    "archive": {"type": "path"},
    "archive_omit": {"type": "list", "elements": "str", "default": []},
    "push": {"type": "bool", "default": False},
    "oci_layout": {"type": "path"},
    "lock": {"type": "path"},
    "lock_update": {"type": "bool", "default": False},
    "verify": VERIFY_OPTION,
    # A path; what it holds is never read here
    "sign_key": {"type": "str", "no_log": False},
    "sign_password": {"type": "str", "no_log": True},
    "sign_tlog": {"type": "bool", "default": False},
    "store": {"type": "path", "default": "~/.cache/aikit-fleet/models"},
    "cache": {"type": "path", "default": "~/.cache/aikit-fleet/digests"},
    "blobs": {"type": "path", "default": "~/.cache/aikit-fleet/blobs"},
    "token": {"type": "str", "no_log": True},
    "tokens": {"type": "dict", "no_log": True},
    "hub_url": {"type": "str", "default": "https://huggingface.co"},
    "require_sha256": {"type": "bool", "default": True},
    "status_file": STATUS_FILE_OPTION,
    "parsed": {"type": "dict"},
    **REGISTRY_OPTIONS,
}


def work(module):
    hide_sources(module, module.params["parsed"])
    hide_build_secrets(module)
    return build(Request(**{field.name: module.params[field.name] for field in dataclasses.fields(Request)}), module.check_mode)


def main():
    run_module(
        work,
        argument_spec=ARGUMENT_SPEC,
        mutually_exclusive=[("src", "definition"), ("token", "tokens")],
        required_one_of=[("src", "definition", "parsed")],
    )


if __name__ == "__main__":
    main()
