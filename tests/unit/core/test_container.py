# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import container
from ansible_collections.aikit.fleet.plugins.module_utils._core.container import container_spec
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError

UUID = "GPU-3a23c669-1f69-c64e-cf85-44e9b07e7a2a"
NO_GPU = {"engine": {"name": "docker"}, "cdi_devices": [], "nvidia_hook": False, "gpu_count": 0}
TWO_BY_CDI = {
    "engine": {"name": "docker"},
    "cdi_devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1", f"nvidia.com/gpu={UUID}", "nvidia.com/gpu=GPU-b", "nvidia.com/gpu=all"],
    "nvidia_hook": True,
    "gpu_count": 2,
}
LEGACY = {"engine": {"name": "docker"}, "cdi_devices": [], "nvidia_hook": True, "gpu_count": 2}


def service(**changes):
    return {
        "name": "llama",
        "bind_address": "127.0.0.1",
        "port": 8080,
        "url": "http://127.0.0.1:8080",
        "gpus": [],
        "settings": {},
        "environment": {},
        "expect": {"verdict": ["proven"]},
        "server": "",
        "memory": "",
        "cpus": 0.0,
        "timeout_seconds": 600,
        **changes,
    }


def llama_image(backends="cpu", **changes):
    return {
        "ref": "localhost/aikit/llama:latest",
        "id": "sha256:1111",
        "digest": "",
        "labels": {"io.aikit.fleet.server": "llama_cpp", "io.aikit.fleet.backends": backends},
        "env": {"LLAMA_ARG_HOST": "0.0.0.0", "LLAMA_ARG_PORT": "8080", "LLAMA_ARG_LOG_VERBOSITY": "4"},
        "entrypoint": ["/usr/bin/llama-server"],
        "server": "llama_cpp",
        "runtime": "cuda" if "cuda" in backends else "",
        **changes,
    }


def localai_image(**changes):
    return {
        "ref": "registry.example/llama3.2:1b",
        "id": "sha256:2222",
        "digest": "sha256:3333",
        "labels": {},
        "env": {"CONFIG_FILE": "/config.yaml", "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
        "entrypoint": ["local-ai"],
        "command": ["--config-file=/config.yaml"],
        "server": "localai",
        "runtime": "cuda",
        **changes,
    }


def expected(spec, **changes):
    """The whole container of a llama_cpp service on the CPU, with ``changes``."""
    base = {
        "name": "llama",
        "state": "started",
        "image": "sha256:1111",
        "pull": "never",
        "image_name_mismatch": "ignore",
        "user": "65532:65532",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opts": ["no-new-privileges"],
        "restart_policy": "unless-stopped",
        "published_ports": ["127.0.0.1:8080:8080"],
        "log_driver": "json-file",
        "log_options": {"max-size": "64m", "max-file": "3"},
        "stop_timeout": 30,
        "env": {},
        "labels": {"io.aikit.fleet.service": "llama", "io.aikit.fleet.spec": spec["spec"]},
    }
    return {**base, **changes}


def test_cpu():
    found = container_spec(service(), llama_image(), NO_GPU)
    assert found["container"] == expected(found)
    assert {key: value for key, value in found.items() if key not in ("container", "spec")} == {
        "name": "llama",
        "server": "llama_cpp",
        "files": [],
        "directory": "/var/lib/aikit-fleet/llama",
        "api_key_file": "",
        "volumes": [],
        "gpu": {"method": "none", "count": 0},
        "image": {"ref": "localhost/aikit/llama:latest", "id": "sha256:1111", "digest": ""},
        "settings": {},
        "expect": {"verdict": ["proven"]},
        "url": "http://127.0.0.1:8080",
        "ports": [{"bind_address": "127.0.0.1", "port": 8080}],
        "findings": [],
    }


def test_all_gpus_by_cdi():
    found = container_spec(service(gpus=["all"]), llama_image("cpu,cuda"), TWO_BY_CDI)
    assert found["container"] == expected(
        found,
        env={"LLAMA_ARG_DEVICE": "CUDA0,CUDA1"},
        device_requests=[{"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]}],
    )
    assert found["gpu"] == {"method": "cdi", "count": 2}


def test_one_gpu_by_uuid():
    found = container_spec(service(gpus=[UUID]), llama_image("cpu,cuda"), TWO_BY_CDI)
    assert found["container"] == expected(
        found,
        env={"LLAMA_ARG_DEVICE": "CUDA0"},
        device_requests=[{"driver": "cdi", "device_ids": [f"nvidia.com/gpu={UUID}"]}],
    )


def test_all_gpus_by_the_legacy_hook():
    found = container_spec(service(gpus=["all"]), llama_image("cpu,cuda"), LEGACY)
    assert found["container"] == expected(
        found,
        env={"LLAMA_ARG_DEVICE": "CUDA0,CUDA1", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
        device_requests=[{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}],
    )
    assert found["gpu"] == {"method": "gpus", "count": 2}


def test_one_gpu_by_the_legacy_hook():
    found = container_spec(service(gpus=["1"]), llama_image("cpu,cuda"), LEGACY)
    assert found["container"]["device_requests"] == [{"driver": "nvidia", "device_ids": ["1"], "capabilities": [["gpu"]]}]
    assert found["container"]["env"]["LLAMA_ARG_DEVICE"] == "CUDA0"


def test_vulkan_in_software_keeps_its_shaders():
    found = container_spec(service(environment={"GGML_VK_VISIBLE_DEVICES": "0"}), llama_image("cpu,vulkan"), NO_GPU)
    assert found["container"] == expected(
        found,
        env={"GGML_VK_VISIBLE_DEVICES": "0", "MESA_SHADER_CACHE_DIR": "/cache"},
        mounts=[{"type": "volume", "source": "aikit-fleet-llama-cache", "target": "/cache", "labels": {"io.aikit.fleet.service": "llama"}}],
    )
    assert found["volumes"] == ["aikit-fleet-llama-cache"]


def test_vulkan_on_gpus():
    found = container_spec(service(gpus=["0", "1"]), llama_image("cpu,vulkan"), LEGACY)
    assert found["container"]["env"] == {
        "LLAMA_ARG_DEVICE": "Vulkan0,Vulkan1",
        "MESA_SHADER_CACHE_DIR": "/cache",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility,graphics",
    }


CONFIG = [{"name": "llama-3.2-1b", "backend": "llama", "parameters": {"model": "m.gguf"}, "options": ["parallel:2", "verbosity:1", "x:y"]}]


def test_premade_localai():
    found = container_spec(service(gpus=["all"], settings={"context_size": 4096}, timeout_seconds=300), localai_image(), TWO_BY_CDI, config=CONFIG)
    path = found["files"][0]["path"]
    assert found["container"] == expected(
        found,
        image="sha256:2222",
        read_only=False,
        tmpfs=[
            "/tmp:rw,exec,nosuid,nodev,mode=1777",
            "/data:rw,noexec,nosuid,nodev,mode=0700,uid=65532,gid=65532",
            "/configuration:rw,noexec,nosuid,nodev,mode=0700,uid=65532,gid=65532",
        ],
        healthcheck={
            "test": ["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080"],
            "interval": "10s",
            "timeout": "6s",
            "retries": 3,
            "start_period": "300s",
        },
        env={
            "LOCALAI_FORCE_META_BACKEND_CAPABILITY": "nvidia",
            "LOCALAI_LOAD_TO_MEMORY": "llama-3.2-1b",
            "LOCALAI_LOG_FORMAT": "json",
            "LOCALAI_LOG_LEVEL": "debug",
        },
        entrypoint=["bash", "-c", container.LOCALAI_GPU_CHECK, "aikit.fleet", "local-ai"],
        command=["--config-file=/config.yaml"],
        mounts=[{"type": "bind", "source": path, "target": "/config.yaml", "read_only": True}],
        device_requests=[{"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]}],
    )
    assert path.startswith("/var/lib/aikit-fleet/llama/config-") and path.endswith(".yaml")
    assert json.loads(found["files"][0]["content"]) == [
        {
            "name": "llama-3.2-1b",
            "backend": "llama",
            "parameters": {"model": "m.gguf"},
            "context_size": 4096,
            "options": ["parallel:2", "x:y", "verbosity:4"],
        }
    ]
    assert found["image"]["digest"] == "sha256:3333"


@pytest.mark.parametrize("script, code, started", [("echo GPU 0: L4", 0, True), ("echo No devices were found; exit 6", 69, False), ("", 69, False)])
def test_localai_does_not_start_without_its_gpu(tmp_path, script, code, started):
    """The script itself, under a bash that finds this nvidia-smi or none; the server is what follows it."""
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    words = ["/bin/bash", "-c", container.LOCALAI_GPU_CHECK, "aikit.fleet", "/bin/echo", "server", "--debug", "a b"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False)
    assert (done.returncode, done.stdout) == (code, "server --debug a b\n" if started else "")
    assert ("this service was given GPUs, and the driver lists none" in done.stderr) != started


def test_the_gpu_check_of_localai_is_for_services_with_gpus():
    plain = container_spec(service(), localai_image(), NO_GPU, config=CONFIG)["container"]
    assert "entrypoint" not in plain and "command" not in plain and "LOCALAI_FORCE_META_BACKEND_CAPABILITY" not in plain["env"]
    # An image that does not say what it starts with, and has no CUDA backend to insist on
    other = container_spec(service(gpus=["all"]), localai_image(command=[], runtime=""), TWO_BY_CDI, config=CONFIG)["container"]
    assert other["entrypoint"][-1] == "local-ai" and "command" not in other and "LOCALAI_FORCE_META_BACKEND_CAPABILITY" not in other["env"]


def test_images_with_localai_that_were_built_are_remembered_as_such():
    assert "built" not in container_spec(service(), localai_image(), NO_GPU)["image"]
    assert container_spec(service(built=True), localai_image(), NO_GPU)["image"]["built"] is True


def test_localai_on_the_cpu_gets_no_gpu_from_a_default_runtime():
    found = container_spec(service(), localai_image(), NO_GPU, config=CONFIG)
    assert found["container"]["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "device_requests" not in found["container"]


def test_localai_without_a_configuration_takes_no_settings():
    found = container_spec(service(settings={"threads": 2}), localai_image(), NO_GPU)
    assert found["files"] == [] and "mounts" not in found["container"]
    assert [finding["level"] for finding in found["findings"]] == ["warning"]


EVERY_SETTING = {
    "gpu_layers": "all",
    "context_size": 4096,
    "batch": 256,
    "flash_attention": "auto",
    "cache_type_k": "q8_0",
    "cache_type_v": "f16",
    "no_kv_offloading": True,
    "n_cpu_moe": 3,
    "parallel": 4,
    "tensor_split": "3,1",
    "threads": 8,
}


def test_every_setting_of_localai():
    settings = {**EVERY_SETTING, "context_size": "auto"}
    model = {"name": "a", "parameters": {"model": "m", "batch": 1}, "context_size": 9}
    assert container.localai_override([model, {"name": "b", "backend": "diffusers"}, "odd"], settings) == [
        {
            "name": "a",
            "parameters": {"model": "m", "batch": 256},
            "context_size": 9,
            "gpu_layers": 99999999,
            "flash_attention": "auto",
            "cache_type_k": "q8_0",
            "cache_type_v": "f16",
            "no_kv_offloading": True,
            "tensor_split": "3,1",
            "threads": 8,
            "options": ["n_cpu_moe:3", "parallel:4", "verbosity:4"],
        },
        {"name": "b", "backend": "diffusers"},
        "odd",
    ]


def test_every_setting_of_llama_cpp():
    assert container_spec(service(settings=EVERY_SETTING), llama_image(), NO_GPU)["container"]["env"] == {
        "LLAMA_ARG_BATCH": "256",
        "LLAMA_ARG_CACHE_TYPE_K": "q8_0",
        "LLAMA_ARG_CACHE_TYPE_V": "f16",
        "LLAMA_ARG_CTX_SIZE": "4096",
        "LLAMA_ARG_FLASH_ATTN": "auto",
        "LLAMA_ARG_KV_OFFLOAD": "0",
        "LLAMA_ARG_N_CPU_MOE": "3",
        "LLAMA_ARG_N_GPU_LAYERS": "all",
        "LLAMA_ARG_N_PARALLEL": "4",
        "LLAMA_ARG_TENSOR_SPLIT": "3,1",
        "LLAMA_ARG_THREADS": "8",
    }


def test_auto_is_left_to_image_and_server():
    assert container.llama_settings({"gpu_layers": "auto", "context_size": "auto", "parallel": "auto", "no_kv_offloading": False}) == {
        "LLAMA_ARG_KV_OFFLOAD": "1"
    }


def test_every_setting_has_a_meaning_for_both_servers(root):
    from ansible_collections.aikit.fleet.plugins.module_utils._core.services import SETTINGS

    # Words to the plan, and no settings of any server
    settings = set(SETTINGS) - {"low_vram", "extra_mib"}
    assert settings == {*container.LLAMA_SETTINGS, "no_kv_offloading"}
    assert settings == {*container.LOCALAI_KEYS, *container.LOCALAI_OPTIONS, "batch"}


def test_every_variable_for_llama_server_is_one_that_it_knows(fixtures):
    known = (fixtures / "llama-server-0.7.0-help.txt").read_text(encoding="utf-8")
    names = {*container.LLAMA_SETTINGS.values(), "LLAMA_ARG_KV_OFFLOAD", "LLAMA_ARG_DEVICE", "LLAMA_ARG_API_KEY_FILE", "LLAMA_ARG_LOG_VERBOSITY"}
    assert [name for name in sorted(names) if f"(env: {name})" not in known] == []


def test_what_an_image_of_others_lacks_is_added():
    image = llama_image(labels={}, env={}, entrypoint=["/app/llama-server"], server="")
    found = container_spec(service(gpus=["0"]), image, TWO_BY_CDI)
    assert found["server"] == "llama_cpp"
    assert found["container"]["env"] == {
        "LLAMA_ARG_DEVICE": "CUDA0",
        "LLAMA_ARG_HOST": "0.0.0.0",
        "LLAMA_ARG_LOG_VERBOSITY": "4",
        "LLAMA_ARG_PORT": "8080",
    }


@pytest.mark.parametrize(
    ("changes", "host", "message"),
    [
        ({"gpus": ["all"]}, NO_GPU, r"Service llama asks for GPUs \(all\), but this host can give none to a container"),
        ({"gpus": ["2", "0"]}, TWO_BY_CDI, r"asks for GPU 2, but the engine of this host knows only 0, 1, GPU-3a23"),
    ],
)
def test_a_host_that_cannot_is_an_error_with_a_hint(changes, host, message):
    with pytest.raises(AikitError, match=message) as caught:
        container_spec(service(**changes), llama_image("cpu,cuda"), host)
    assert "nvidia-ctk cdi" in caught.value.hint


def test_gpus_for_an_image_without_a_gpu_backend_are_an_error():
    with pytest.raises(AikitError, match="has only these backends of llama.cpp: cpu"):
        container_spec(service(gpus=["all"]), llama_image("cpu"), TWO_BY_CDI)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (localai_image(labels={"ai.kaito.aikit.runner": "true"}), "is a runner image of AIKit"),
        (llama_image(labels={}, env={}, entrypoint=["/bin/sh"], server=""), r"starts neither llama-server nor LocalAI \(entrypoint: /bin/sh\)"),
    ],
)
def test_images_that_serve_nothing(image, message):
    with pytest.raises(AikitError, match=message):
        container_spec(service(), image, NO_GPU)


def test_a_service_can_say_what_its_image_serves():
    image = llama_image(labels={}, env={}, entrypoint=["/bin/start"], server="")
    assert container_spec(service(server="llama_cpp"), image, NO_GPU)["server"] == "llama_cpp"


@pytest.mark.parametrize("image", [localai_image(server="", env={}), localai_image(server="", entrypoint=["/x"])])
def test_localai_is_known_by_entrypoint_or_environment(image):
    assert container_spec(service(), image, NO_GPU)["server"] == "localai"


@pytest.mark.parametrize(
    ("image", "target", "variable"),
    [(llama_image(), "/run/aikit-fleet/api-key", {"LLAMA_ARG_API_KEY_FILE": "/run/aikit-fleet/api-key"}), (localai_image(), "/etc/localai.env", {})],
)
def test_the_api_key_is_a_file_and_in_nothing_that_is_shown(image, target, variable):
    found = container_spec(service(), image, NO_GPU, api_key="correct-horse", state_dir="/srv/state")
    assert "correct-horse" not in json.dumps(found)
    path = found["api_key_file"]
    assert path.startswith("/srv/state/llama/api-key-")
    assert {"type": "bind", "source": path, "target": target, "read_only": True} in found["container"]["mounts"]
    assert variable.items() <= found["container"]["env"].items()
    other = container_spec(service(), image, NO_GPU, api_key="correct-horse-2", state_dir="/srv/state")
    assert other["spec"] != found["spec"]
    # A file of its own: the container that is kept, and a rollback, still have their key
    assert other["api_key_file"] != path
    assert {**other["container"], "labels": {}, "mounts": []} == {**found["container"], "labels": {}, "mounts": []}


def test_the_text_of_the_key_file():
    assert container.api_key_content("llama_cpp", "a'b") == "a'b\n"
    assert container.api_key_content("localai", "a$b\\") == "LOCALAI_API_KEY='a$b\\'\n"
    with pytest.raises(AikitError):
        container.api_key_content("localai", "a'b")
    for server, key in (("llama_cpp", "a'b=c"), ("localai", "a$b\\=")):
        assert container.api_key_of(container.api_key_content(server, key)) == key
    assert container.api_key_of("first\nsecond\n") == "first" and container.api_key_of("") == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 8081},
        {"bind_address": "0.0.0.0"},
        {"settings": {"threads": 2}},
        {"environment": {"A": "1"}},
        {"memory": "8g"},
        {"cpus": 2.0},
    ],
)
def test_every_option_counts_and_taking_it_out_too(changes):
    plain = container_spec(service(), llama_image(), NO_GPU)
    changed = container_spec(service(**changes), llama_image(), NO_GPU)
    assert plain["spec"] != changed["spec"]
    assert container_spec(service(), llama_image(), NO_GPU)["spec"] == plain["spec"]


def test_what_only_the_proof_reads_replaces_nothing():
    plain = container_spec(service(), llama_image(), NO_GPU)
    assert container_spec(service(expect={"verdict": ["cpu"]}), llama_image(), NO_GPU)["spec"] == plain["spec"]
    assert container_spec(service(timeout_seconds=5), llama_image(), NO_GPU)["spec"] == plain["spec"]


def test_another_image_is_another_container():
    plain = container_spec(service(), llama_image(), NO_GPU)
    assert container_spec(service(), llama_image(id="sha256:9999"), NO_GPU)["spec"] != plain["spec"]


def test_limits_and_addresses():
    found = container_spec(service(memory="8g", cpus=1.5, bind_address="::1"), llama_image(), NO_GPU)["container"]
    assert (found["memory"], found["cpus"], found["published_ports"]) == ("8g", 1.5, ["[::1]:8080:8080"])


def test_the_users_environment_has_the_last_word():
    found = container_spec(service(environment={"LLAMA_ARG_THREADS": "1"}, settings={"threads": 4}), llama_image(), NO_GPU)
    assert found["container"]["env"] == {"LLAMA_ARG_THREADS": "1"}


# --- settings that a plan made ---------------------------------------------------------------------------------------

PLANNED = {
    "gpu_layers": 33,
    "context_size": 21760,
    "batch": 512,
    "flash_attention": "on",
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "no_kv_offloading": False,
    "parallel": 1,
    "threads": 8,
}


def planned(settings=None, **changes):
    fit = {"planned": True, "offload": "full", "breakdown": [], "inputs": {"model": "m"}}
    return service(settings=PLANNED if settings is None else settings, fit=fit, **changes)


def test_a_plan_reaches_llama_server_as_variables(fixtures):
    found = container_spec(planned(gpus=["0"]), llama_image("cuda"), TWO_BY_CDI)
    env = found["container"]["env"]
    assert env == {
        "LLAMA_ARG_BATCH": "2048",
        "LLAMA_ARG_CACHE_TYPE_K": "f16",
        "LLAMA_ARG_CACHE_TYPE_V": "f16",
        "LLAMA_ARG_CTX_SIZE": "21760",
        "LLAMA_ARG_DEVICE": "CUDA0",
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_FLASH_ATTN": "on",
        "LLAMA_ARG_KV_OFFLOAD": "1",
        "LLAMA_ARG_N_GPU_LAYERS": "33",
        "LLAMA_ARG_N_PARALLEL": "1",
        "LLAMA_ARG_THREADS": "8",
        "LLAMA_ARG_UBATCH": "512",
    }
    known = (fixtures / "llama-server-0.7.0-help.txt").read_text(encoding="utf-8")
    assert [name for name in env if f"(env: {name})" not in known] == []
    assert found["fit"]["planned"] and found["settings"] == PLANNED


def test_a_plan_for_several_gpus_counts_them_as_the_driver_does():
    several = {**PLANNED, "tensor_split": "20,13"}
    env = container_spec(planned(several, gpus=["all"]), llama_image("cuda"), TWO_BY_CDI)["container"]["env"]
    assert (env["LLAMA_ARG_TENSOR_SPLIT"], env["CUDA_DEVICE_ORDER"]) == ("20,13", "PCI_BUS_ID")
    assert "CUDA_DEVICE_ORDER" not in container_spec(service(gpus=["all"]), llama_image("cuda"), TWO_BY_CDI)["container"]["env"]


def test_what_a_plan_was_made_from_does_not_replace_a_container():
    one = planned()
    other = {**one, "fit": {**one["fit"], "reason": "another", "inputs": {"model": "m", "server": "llama_cpp 0.7.0"}}}
    assert container_spec(one, llama_image(), NO_GPU)["spec"] == container_spec(other, llama_image(), NO_GPU)["spec"]
    smaller = planned({**PLANNED, "context_size": 8192})
    assert container_spec(one, llama_image(), NO_GPU)["spec"] != container_spec(smaller, llama_image(), NO_GPU)["spec"]


def test_a_plan_reaches_localai_in_its_configuration():
    config = [{"name": "a", "backend": "llama-cpp", "parameters": {"model": "m", "batch": 9}, "options": ["parallel:4", "use_jinja"], "gpu_layers": 35}]
    found = container_spec(planned({**PLANNED, "n_cpu_moe": 3}, gpus=["0"]), localai_image(), TWO_BY_CDI, config=config)
    (model,) = json.loads(found["files"][0]["content"])
    assert model["parameters"] == {"model": "m", "batch": 512}
    assert sorted(model["options"]) == ["n_cpu_moe:3", "parallel:1", "use_jinja", "verbosity:4"]
    expected_keys = {"gpu_layers": 33, "context_size": 21760, "flash_attention": "on", "cache_type_k": "f16", "cache_type_v": "f16", "no_kv_offloading": False}
    assert {key: model[key] for key in expected_keys} == expected_keys and "tensor_split" not in model


def test_what_a_plan_hands_over_to_llama_cpp():
    handed = {"gpu_layers": "auto", "context_size": 4096, "batch": 512, "flash_attention": "on", "parallel": 1}
    env = container_spec(planned(handed), llama_image(), NO_GPU)["container"]["env"]
    assert (env["LLAMA_ARG_N_GPU_LAYERS"], env["LLAMA_ARG_FIT"]) == ("auto", "on")
    (model,) = container.localai_override([{"name": "a"}], handed, handed)
    assert model["gpu_layers"] == -1 and model["context_size"] == 4096


EIGHT_CORES = {**NO_GPU, "cores": 8}


@pytest.mark.parametrize(
    "cpus, host, threads",
    [
        (0.0, EIGHT_CORES, None),
        (2.0, EIGHT_CORES, "2"),
        # One more than may run has all of them wait
        (7.65, EIGHT_CORES, "7"),
        (0.5, EIGHT_CORES, "1"),
        # More than cores are hardware threads, which the server does not count either
        (8.0, EIGHT_CORES, None),
        (12.0, EIGHT_CORES, None),
        (2.0, NO_GPU, "2"),
    ],
)
def test_a_server_has_no_more_threads_than_its_container_may_use(cpus, host, threads):
    assert container_spec(service(cpus=cpus), llama_image(), host)["container"]["env"].get("LLAMA_ARG_THREADS") == threads


def test_a_number_of_threads_that_somebody_set_stays():
    assert container_spec(service(cpus=2.0, settings={"threads": 3}), llama_image(), EIGHT_CORES)["container"]["env"]["LLAMA_ARG_THREADS"] == "3"
    assert container_spec(service(cpus=2.0, environment={"LLAMA_ARG_THREADS": "4"}), llama_image(), EIGHT_CORES)["container"]["env"]["LLAMA_ARG_THREADS"] == "4"
    inside = {**llama_image()["env"], "LLAMA_ARG_THREADS": "5"}
    assert "LLAMA_ARG_THREADS" not in container_spec(service(cpus=2.0), llama_image(env=inside), EIGHT_CORES)["container"]["env"]


@pytest.mark.parametrize("config", [CONFIG, None])
def test_threads_of_localai(config):
    """Of models that say nothing of them, also where the image has no configuration: a number in one wins in LocalAI itself."""
    found = container_spec(service(cpus=2.0), localai_image(), EIGHT_CORES, config=config)
    assert found["container"]["env"]["LOCALAI_THREADS"] == "2"
    assert all("threads" not in json.loads(file["content"])[0] or config[0].get("threads") for file in found["files"])
    assert "LOCALAI_THREADS" not in container_spec(service(), localai_image(), EIGHT_CORES, config=config)["container"]["env"]


@pytest.mark.parametrize("name", ["LOCALAI_THREADS", "THREADS"])
def test_threads_of_localai_that_somebody_set_stay(name):
    env = container_spec(service(cpus=2.0, environment={name: "3"}), localai_image(), EIGHT_CORES)["container"]["env"]
    assert env[name] == "3" and env.get("LOCALAI_THREADS", "3") == "3"
    inside = {**localai_image()["env"], name: "5"}
    assert "LOCALAI_THREADS" not in container_spec(service(cpus=2.0), localai_image(env=inside), EIGHT_CORES)["container"]["env"]
