#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inference_release
short_description: Swap the container of a service for a new one that still has to be proven
version_added: 0.1.0
author:
  - aikit.fleet authors (@aikit-fleet)
extends_documentation_fragment:
  - aikit.fleet.engine
description:
  - One step of a release of an inference service on a host. Role P(aikit.fleet.inference#role) calls the steps in order.
  - V(prepare) puts the running container aside (stopped, renamed to C(NAME--previous), its image kept), V(commit) makes the new one current
    after its proof, V(restore) brings the old one back after a failed proof.
  - What is current, previous and under way is kept in a state file for each service. A release that was interrupted at any point is finished
    by running it again from V(prepare).
  - Containers and images without the labels of aikit.fleet are never touched.
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
    support: full
  diff_mode:
    description: Returns the containers and releases of the service before and after.
    support: full
  idempotent:
    description: A step that was done is not done again.
    support: full
options:
  name:
    description:
      - Name of the service, and of its container.
    type: str
    required: true
  step:
    description:
      - What to do.
    type: str
    choices:
      observe: Change nothing, return what is there.
      prepare: Decide what O(spec) needs, and make room for its container.
      commit: Make the container of O(spec) current; remove the one before and outdated images.
      step_down: Remember that the plan of O(spec) ran out of memory, so that the next plan is smaller.
      restore: Take the new container away and start the old one again.
      rollback: Change nothing, return the release to go back to as RV(release).
      stop: Stop the container.
      absent: Remove containers, state file and configuration.
    default: observe
  spec:
    description:
      - The container as filter P(aikit.fleet.container_spec#filter) describes it.
      - Required for V(prepare), V(commit) and V(step_down).
    type: dict
  ports:
    description:
      - Ports to look up in V(observe). For V(prepare), those of O(spec) are looked up.
    type: list
    elements: dict
    default: []
    suboptions:
      bind_address:
        description:
          - IP address that the service listens on.
        type: str
        default: 127.0.0.1
      port:
        description:
          - Port number.
        type: int
        required: true
  reason:
    description:
      - For V(step_down), what the server said. Its first line is kept.
    type: str
    default: ""
  verdict:
    description:
      - For V(commit), the verdict of the proof.
    type: str
    default: ""
  evidence:
    description:
      - For V(commit), what proved it; kept in the state file.
    type: dict
    default: {}
  leaving:
    description:
      - For V(prepare) in check mode, other services that the same run stops, or moves to ports of their own. A real run has done so by then.
    type: list
    elements: str
    default: []
  keep_images:
    description:
      - For V(commit), how many earlier images of this service stay on the host. V(0) leaves nothing to go back to.
      - Only images that aikit.fleet built, and that no container and no other service needs, are removed.
    type: int
    default: 1
  remove_images:
    description:
      - For V(absent), whether to remove the images of the service too. Only those that aikit.fleet built are removed.
    type: bool
    default: false
  state_dir:
    description:
      - Folder of the state files.
    type: path
    default: /var/lib/aikit-fleet
  stop_timeout:
    description:
      - Seconds that a container gets to end before it is killed.
    type: int
    default: 30
seealso:
  - plugin: aikit.fleet.container_spec
    plugin_type: filter
  - module: aikit.fleet.inference_check
"""

EXAMPLES = r"""
- name: Look at a service
  aikit.fleet.inference_release:
    name: llama
    ports:
      - port: 8080
  register: observed

- name: Stop a service
  aikit.fleet.inference_release:
    name: llama
    step: stop

- name: Remove a service with its images
  aikit.fleet.inference_release:
    name: llama
    step: absent
    remove_images: true
"""

RETURN = r"""
decision:
  description:
    - What V(prepare) found to be needed.
    - V(unchanged), V(start) (it is there, but does not run), V(create) (there is none), V(replace) (another one was put aside), V(resume)
      (an interrupted release goes on), V(put_back) (the one that was put aside is wanted again).
  returned: when O(step=prepare)
  type: str
  sample: replace
start_container:
  description: Whether the container has to be created or started now.
  returned: when O(step=prepare)
  type: bool
  sample: true
proof_due:
  description: Whether the container of O(spec) was never proven on this host.
  returned: when O(step=prepare)
  type: bool
  sample: true
stepped:
  description: Whether a smaller plan is to be made. False when the service was not planned, or is at its last step.
  returned: when O(step=step_down)
  type: bool
  sample: true
restored:
  description: Whether there was an old container to go back to.
  returned: when O(step=restore)
  type: bool
  sample: true
logs:
  description: The last lines of the container that was taken away.
  returned: when O(step=restore)
  type: list
  elements: str
  sample:
    - 'error while handling environment variable "LLAMA_ARG_DEVICE": invalid device: CUDA0'
release:
  description: The release to go back to, in the form of O(spec).
  returned: when O(step=rollback)
  type: dict
  sample:
    name: llama
    spec: 4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a
host:
  description: What the container of a service depends on. See filter P(aikit.fleet.container_spec#filter).
  returned: when O(step=observe)
  type: dict
  contains:
    engine:
      description: Name and version of the engine, and what it offers.
      type: dict
      sample:
        name: docker
        version: 28.2.2
    cdi_devices:
      description: Devices that the engine can hand to a container by CDI.
      type: list
      elements: str
      sample: [nvidia.com/gpu=0, nvidia.com/gpu=all]
    nvidia_hook:
      description: Whether C(--gpus) works without CDI.
      type: bool
      sample: false
    gpu_count:
      description: How many GPUs NVIDIA's driver sees.
      type: int
      sample: 1
    cores:
      description: How many cores the host has; hardware threads of one core count once.
      type: int
      sample: 16
port_owners:
  description: Who but this service holds the ports that it wants.
  returned: when O(step=observe)
  type: list
  elements: dict
  sample:
    - bind_address: 127.0.0.1
      port: 8080
      owner: nginx (pid 812)
container:
  description: The container before this step; empty when there is none.
  returned: always
  type: dict
  sample:
    name: llama
    status: running
    running: true
    spec: 4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a
previous_container:
  description: The container that was put aside, before this step; empty when there is none.
  returned: always
  type: dict
  sample: {}
state:
  description: The state file before this step.
  returned: always
  type: dict
  sample:
    schema: 1
    service: llama
    current: null
    previous: null
    pending: null
    retired: []
volumes:
  description: Named volumes that the service may have; O(step=absent) leaves them to the caller.
  returned: always
  type: list
  elements: str
  sample: [aikit-fleet-llama-cache]
actions:
  description: What was done, or in check mode would be done.
  returned: always
  type: list
  elements: str
  sample:
    - write state of llama (pending)
    - stop llama
    - rename llama (to llama--previous)
"""

from ..module_utils._core import release
from ..module_utils._io import host
from ..module_utils._io.engine import open_engine
from ..module_utils._io.release import ServiceHost
from ..module_utils._module import ENGINE_OPTION, report, run_module

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "step": {
        "type": "str",
        "choices": ["observe", "prepare", "commit", "step_down", "restore", "rollback", "stop", "absent"],
        "default": "observe",
    },
    "spec": {"type": "dict"},
    "ports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"bind_address": {"type": "str", "default": "127.0.0.1"}, "port": {"type": "int", "required": True}},
    },
    "reason": {"type": "str", "default": ""},
    "verdict": {"type": "str", "default": ""},
    "evidence": {"type": "dict", "default": {}},
    "leaving": {"type": "list", "elements": "str", "default": []},
    "keep_images": {"type": "int", "default": 1},
    "remove_images": {"type": "bool", "default": False},
    "state_dir": {"type": "path", "default": "/var/lib/aikit-fleet"},
    "stop_timeout": {"type": "int", "default": 30},
    "engine": ENGINE_OPTION,
}


def work(module):
    params = module.params
    service = ServiceHost(open_engine(params["engine"]), params["name"], params["state_dir"], params["stop_timeout"])
    observed = service.observe()
    steps, extra = STEPS[params["step"]](service, observed, params, module.check_mode)
    if not module.check_mode:
        service.apply(steps)
    return report(
        release.plan(observed, steps, params["spec"] if params["step"] == "prepare" else None),
        container=release.describe(observed.container),
        previous_container=release.describe(observed.previous),
        state=dict(observed.state),
        volumes=list(release.volumes(service.name)),
        **extra,
    )


def observe(service, observed, params, check_mode):
    owners = service.port_owners(params["ports"])
    return (), {"host": host.describe(service.engine), "port_owners": [owner.as_dict() for owner in owners]}


def prepare(service, observed, params, check_mode):
    spec = params["spec"]
    decision = release.prepare(observed, spec["spec"], spec["image"])
    if decision.start_container:
        release.check_ports(service.name, service.port_owners(spec["ports"], params["leaving"] if check_mode else ()))
    return decision.steps, {"decision": decision.name, "start_container": decision.start_container, "proof_due": decision.due}


def commit(service, observed, params, check_mode):
    record = release.make_record(params["spec"], params["verdict"], params["evidence"])
    if check_mode:
        return release.would_commit(observed, record), {}
    return service.commit_steps(observed, record, params["keep_images"]), {}


def step_down(service, observed, params, check_mode):
    steps = release.step_down(observed, params["spec"], params["reason"])
    return steps, {"stepped": bool(steps)}


def restore(service, observed, params, check_mode):
    steps, restored = release.restore(observed)
    return steps, {"restored": restored, "logs": service.last_lines(service.name) if observed.container else []}


def rollback(service, observed, params, check_mode):
    target = release.rollback_target(observed)
    release.check_image(target, service.engine.image(target["id"]))
    return (), {"release": target["release"]}


STEPS = {
    "observe": observe,
    "prepare": prepare,
    "commit": commit,
    "step_down": step_down,
    "restore": restore,
    "rollback": rollback,
    "stop": lambda service, observed, params, check_mode: (release.stop(observed), {}),
    "absent": lambda service, observed, params, check_mode: (service.absent_steps(observed, params["remove_images"]), {}),
}


def main():
    run_module(work, argument_spec=ARGUMENT_SPEC, required_if=[("step", step, ["spec"]) for step in ("prepare", "commit", "step_down")])


if __name__ == "__main__":
    main()
