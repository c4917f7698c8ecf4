# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module gpu_fit: every option, the files that it reads, and its examples and samples as they are printed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from ansible_collections.aikit.fleet.plugins.module_utils._core.data_ggml import TENSOR_TYPES
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_options import fits, policy_of
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_shape import ModelShape
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_types import Policy
from ansible_collections.aikit.fleet.plugins.module_utils._io.gguf_file import parts, read_shape
from ansible_collections.aikit.fleet.plugins.modules import gpu_fit
from ansible_collections.aikit.fleet.tests.oracle import sparse
from ansible_collections.aikit.fleet.tests.unit.shapes import SHAPES, shape

L4 = {"index": 0, "name": "NVIDIA L4", "memory_total_mib": 23034}
LLAMA = SHAPES["Llama 3.1 8B"]


def nothing(path: str) -> ModelShape:
    raise AssertionError(path)


def run(services: Any, gpus: Any = (L4,), policy: Any = None, version: str = "llama_cpp 0.7.0", host: Any = None) -> Any:
    return fits(services, gpus, policy or {}, version, host, nothing)


def module(**params: Any) -> dict[str, Any]:
    """The module itself, as Ansible starts it."""
    code = (
        "import sys; sys.path[:0] = " + repr([path for path in sys.path if path]) + "\n"
        "import tests.conftest\n"
        "from ansible.module_utils import basic\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "from ansible_collections.aikit.fleet.plugins.modules import gpu_fit\n"
        "import json\n"
        "with patch_module_args(json.load(sys.stdin)):\n    gpu_fit.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(params), capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[-1])


def test_the_module_runs() -> None:
    options = {"services": [{"name": "chat", "model": LLAMA, "settings": {"f16": True}}], "gpus": [L4], "server_version": "llama_cpp 0.7.0"}
    found = module(**options, _ansible_check_mode=True)
    assert found["changed"] is False
    fit = found["fits"][0]
    assert (fit["service"], fit["offload"], fit["settings"]["gpu_layers"]) == ("chat", "full", 33)
    assert fit["localai"]["gpu_layers"] == 33 and fit["environment"]["LLAMA_ARG_N_GPU_LAYERS"] == "33"
    assert "f16 does nothing" in json.dumps(found["warnings"])
    assert found["fits"] == module(**options)["fits"]
    documented = yaml.safe_load(gpu_fit.RETURN)["fits"]["contains"]
    assert set(fit) == set(documented)
    assert set(fit["settings"]) == set(documented["settings"]["sample"])
    assert set(documented["breakdown"]["sample"][0]) == set(fit["breakdown"][0])


def test_the_module_refuses_with_a_hint() -> None:
    found = module(services=[{"name": "chat", "model": {"metadata": {}}}], gpus=[L4])
    assert found["failed"] and "services[0].model is no shape of a model" in found["msg"] and found["hint"]
    found = module(services=[{"name": "chat", "model": "/nowhere.gguf"}], gpus=[L4])
    assert found["failed"] and "/nowhere.gguf could not be opened" in found["msg"]


def test_a_file_is_read(tmp_path: Any) -> None:
    path = tmp_path / "m.gguf"
    sparse.write(path, shape("Qwen3 0.6B"))
    read = read_shape(str(path))
    assert read.as_dict()["tensors"] == shape("Qwen3 0.6B").as_dict()["tensors"]
    assert read.vocabulary == shape("Qwen3 0.6B").vocabulary
    assert all(read.metadata[key] == value for key, value in shape("Qwen3 0.6B").metadata.items() if not isinstance(value, float))


def test_parts_of_a_split_model() -> None:
    assert parts("/m/a-00002-of-00003.gguf") == [f"/m/a-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert parts("/m/a.gguf") == ["/m/a.gguf"]


def test_models_in_all_forms() -> None:
    for model in (LLAMA, {"shape": LLAMA}, {"gguf": {"shape": LLAMA}}):
        assert run([{"name": "a", "model": model}])[0].layers_total == 33
    with pytest.raises(AikitError, match=r"services\[0\].model is int"):
        run([{"name": "a", "model": 5}])


def test_a_result_of_gguf_info() -> None:
    model = shape("Llama 3.1 8B")
    names = {number: name for number, (name, _block, _size) in TENSOR_TYPES.items()}
    tensors = []
    for weight in model.weights:
        name = f"blk.{weight.layer}.{weight.name}" if weight.layer >= 0 else weight.name
        tensors.append({"name": name, "type": names[weight.type_id], "shape": list(weight.shape)})
    facts = {"architecture": "llama", "tensor_count": len(tensors), "vocabulary_size": model.vocabulary}
    whole = {"gguf": {**facts, "tensors": tensors, "metadata": dict(model.metadata)}}
    assert run([{"name": "a", "model": whole}])[0] == run([{"name": "a", "model": LLAMA}])[0]
    with pytest.raises(AikitError, match="without its tensors") as caught:
        run([{"name": "a", "model": {"gguf": facts}}])
    assert "tensors: true" in caught.value.hint
    strange = {"gguf": {**facts, "tensors": [*tensors, {"name": "blk.0.x", "type": "type 99", "shape": [8]}], "metadata": dict(model.metadata)}}
    assert run([{"name": "a", "model": strange}])[0].confidence == "estimated"


def test_options_of_a_service() -> None:
    one = {"name": "a", "model": LLAMA, "settings": {"context_size": 8192}}
    two = [L4, {**L4, "index": 1, "uuid": "GPU-b"}]
    assert run([{**one, "gpus": ["GPU-b"]}], two)[0].breakdown[0].index == 1
    assert run([{**one, "gpus": []}], two)[0].offload == "none"
    assert len(run([one], two)[0].breakdown) == 3
    assert run([{**one, "step_down": 2}])[0].breakdown[0].margin_mib > run([one])[0].breakdown[0].margin_mib
    assert run([{**one, "extra_mib": 100}])[0].breakdown[0].context_mib == 430
    assert run([{**one, "mmproj": SHAPES["Qwen3 0.6B"]}])[0].breakdown[0].mmproj_mib > 0
    older = run([{**one, "server_version": "localai v3.12.1"}])[0].breakdown[0].compute_mib
    assert older > run([one])[0].breakdown[0].compute_mib


def test_gpus() -> None:
    one = {"name": "a", "model": LLAMA}
    whole = run([one])[0].settings["context_size"]
    assert run([one], [{**L4, "memory_free_mib": 12000}])[0].settings["context_size"] < whole
    assert run([one], [{**L4, "memory_free_mib": 12000, "ours_mib": 11034}])[0].settings["context_size"] == whole
    for wrong in (None, 0, "24", True):
        with pytest.raises(AikitError, match=r"gpus\[0\].memory_total_mib"):
            run([one], [{"index": 0, "memory_total_mib": wrong}])


def test_the_hosts_memory() -> None:
    one = {"name": "a", "model": SHAPES["Mistral Small 22B"], "settings": {"context_size": 8192}}
    small = run([one], [{**L4, "memory_total_mib": 8192}], host={"memory_total_mib": 8192, "memory_available_mib": 5000})[0]
    assert "host memory" in small.findings[0].message


def test_policies() -> None:
    given = {"margin_mib": 1024, "margin_percent": 5, "context_mib": 500, "kv_types": ["q8_0"], "context_min": 8192, "context_max": 16384}
    more = {"unknown": "server", "unknown_percent": 20, "host_reserve_mib": 1024}
    found = policy_of({**given, **more})
    assert found == Policy(1024, 5.0, 500, ("q8_0",), 8192, 16384, 20.0, "server", 1024)
    assert policy_of({}) == policy_of({"margin_mib": None}) == Policy()
    settings = run([{"name": "a", "model": LLAMA}], policy=given)[0]
    assert settings.settings["cache_type_k"] == "q8_0" and settings.settings["context_size"] == 16384
    assert settings.breakdown[0].margin_mib == pytest.approx(23034 * 0.05) and settings.breakdown[0].context_mib == 500
    # As -e on a command line has them
    assert policy_of({"margin_mib": "1024", "margin_percent": "2.5"}) == Policy(1024, 2.5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"margin": 1}, "inference_fit_policy.margin is no setting of a plan. Did you mean margin_mib?"),
        ({"kv_types": ["q9"]}, "kv_types has 'q9'"),
        ({"kv_types": ["f16", "Q8_0"]}, "kv_types has 'Q8_0'"),
        ({"kv_types": "f16"}, "kv_types has 'f16'"),
        ({"kv_types": []}, "kv_types has []"),
        ({"kv_types": [{"q8_0": 1}]}, "kv_types has {'q8_0': 1}"),
        ({"unknown": "sever"}, "unknown is 'sever'. Give margin or server."),
        ({"unknown": ["server"]}, "unknown is ['server']"),
        ({"margin_mib": -1}, "margin_mib is -1"),
        ({"margin_mib": True}, "margin_mib is True"),
        ({"margin_mib": "much"}, "margin_mib is 'much'"),
        ({"margin_mib": [1]}, "margin_mib is [1]"),
        ({"margin_percent": float("nan")}, "margin_percent is nan"),
        ({"context_max": float("inf")}, "context_max is inf"),
    ],
)
def test_a_policy_that_is_none(wrong: Any, words: str) -> None:
    with pytest.raises(AikitError) as caught:
        policy_of(wrong, "inference_fit_policy")
    assert words in str(caught.value) and caught.value.hint and str(caught.value).startswith("inference_fit_policy.")


def test_documented_defaults_are_the_planners() -> None:
    documented = yaml.safe_load(gpu_fit.DOCUMENTATION)["options"]["policy"]["suboptions"]
    spec = gpu_fit.ARGUMENT_SPEC["policy"]["options"]
    assert set(documented) == set(spec) == set(Policy.__dataclass_fields__)
    for defaults in (documented, spec):
        assert policy_of({key: entry["default"] for key, entry in defaults.items()}) == Policy()


def test_pictures_and_tables_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "tests/tools/fit-docs", "--check"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
