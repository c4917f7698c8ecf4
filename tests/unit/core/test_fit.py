# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans: what is chosen, what is explained, and what must never happen whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.aikit.fleet.plugins.module_utils._core import container, data_era, fit_memory
from ansible_collections.aikit.fleet.plugins.module_utils._core.errors import AikitError
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit import Fit, Gpu, Host, ModelShape, Policy, Wish, plan
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit_settings import to_llama_env, to_localai
from ansible_collections.aikit.fleet.tests.unit.shapes import SHAPES, shape

LLAMA, TIED, MOE, WINDOW, HYBRID = "Llama 3.1 8B", "Llama 3.2 1B", "Qwen3 30B A3B", "Gemma 3 12B", "Falcon H1 7B"
NEW = "llama_cpp 0.7.0"


def gpu(total: int, free: Optional[int] = None, index: int = 0, **more: Any) -> Gpu:
    return Gpu(index, "NVIDIA Test", total, total if free is None else free, "8.9", uuid=f"GPU-{index}", **more)


def one(model: str, total: int, wishes: Optional[dict[str, Any]] = None, policy: Policy = Policy(), version: str = NEW, **more: Any) -> Fit:
    return plan([Wish("a", shape(model), wishes or {}, **more)], [gpu(total)], policy, version)[0]


# What is chosen


def test_everything_fits() -> None:
    found = one(LLAMA, 24564, {"context_size": 8192})
    assert found.settings == {
        "gpu_layers": 33,
        "context_size": 8192,
        "batch": 512,
        "flash_attention": "on",
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "no_kv_offloading": False,
        "n_cpu_moe": 0,
        "parallel": 1,
        "tensor_split": "",
    }
    assert (found.offload, found.fits, found.layers_offloaded, found.layers_total) == ("full", True, 33, 33)
    assert found.confidence == "exact"
    share = found.breakdown[0]
    # llama.cpp's own lines for this file: 4155.99, 1024.00 and 124.01 MiB
    assert (round(share.weights_mib, 2), share.kv_mib, round(share.compute_mib, 1)) == (4155.99, 1024.0, 124.0)
    assert share.margin_mib == pytest.approx(0.03 * 24564)
    assert share.needed_mib + share.margin_mib <= share.available_mib


def test_the_context_takes_what_is_left() -> None:
    found = one(LLAMA, 8192)
    assert found.offload == "full" and 4096 <= found.settings["context_size"] < 131072
    assert found.settings["context_size"] % 256 == 0
    assert "context is" in found.reason
    # One step more would not fit
    more = one(LLAMA, 8192, {"context_size": found.settings["context_size"] + 256})
    assert more.offload == "partial"


def test_the_context_ends_where_the_model_or_the_policy_says() -> None:
    assert one(TIED, 81559).settings["context_size"] == 131072
    assert one(TIED, 81559, policy=Policy(context_max=16384)).settings["context_size"] == 16384


def test_a_wanted_context_is_kept_and_layers_make_room() -> None:
    found = one(LLAMA, 8192, {"context_size": 65536})
    assert found.settings["context_size"] == 65536
    assert found.offload == "partial" and 0 < found.settings["gpu_layers"] < 33
    assert f"{found.settings['gpu_layers']} of 33 layers fit" in found.reason


def test_a_quantised_cache_where_the_policy_allows_it() -> None:
    plain, quantised = one(LLAMA, 8192), one(LLAMA, 8192, policy=Policy(kv_types=("f16", "q8_0")))
    assert quantised.settings["cache_type_k"] == quantised.settings["cache_type_v"] == "q8_0"
    assert quantised.settings["context_size"] > plain.settings["context_size"]
    # Not where f16 is enough
    assert one(LLAMA, 81559, policy=Policy(kv_types=("f16", "q8_0"))).settings["cache_type_k"] == "f16"


def test_heads_that_blocks_do_not_divide_are_not_quantised() -> None:
    found = one("Pythia 2.8B", 4096, {"context_size": 2048}, Policy(kv_types=("f16", "q8_0")))
    assert found.settings["cache_type_k"] == "f16"


def test_experts_go_to_the_host_before_layers() -> None:
    found = one(MOE, 12288)
    assert found.settings["gpu_layers"] == 49 and 0 < found.settings["n_cpu_moe"] < 48
    assert found.offload == "partial" and "experts" in found.reason
    fewer = one(MOE, 12288, {"n_cpu_moe": found.settings["n_cpu_moe"] - 1, "context_size": found.settings["context_size"]})
    assert fewer.settings["gpu_layers"] < 49


def test_two_gpus_hold_the_experts_that_one_of_them_does_not() -> None:
    sizes = (9615, 6581)
    found = plan([Wish("a", shape(MOE), {"context_size": 8192})], [gpu(size, None, number) for number, size in enumerate(sizes)], server_version=NEW)[0]
    alone = one(MOE, sizes[0], {"context_size": 8192})
    assert found.settings["gpu_layers"] == 49 and 0 < found.settings["n_cpu_moe"] < alone.settings["n_cpu_moe"] - 10
    assert all(share.layers for share in found.breakdown if share.index is not None)


def test_a_server_without_experts_on_the_host_gets_layers() -> None:
    found = one(MOE, 12288, version="localai v3.12.1")
    assert found.settings["n_cpu_moe"] == 0 and 0 < found.settings["gpu_layers"] < 49


def test_nothing_fits() -> None:
    found = one(LLAMA, 600)
    assert (found.offload, found.settings["gpu_layers"], found.layers_offloaded) == ("none", 0, 0)
    assert "Not one layer fits" in found.reason and "gpus: []" in found.reason and not found.fits
    roomier = one("Mistral Small 22B", 1500)
    assert roomier.settings["gpu_layers"] == 0 or roomier.offload == "partial"


def test_the_cpu_is_asked_for() -> None:
    found = plan([Wish("a", shape(LLAMA), {}, gpus=())], [gpu(24564)], server_version=NEW)[0]
    assert found.offload == "none" and found.reason == "The service gets no GPU." and found.fits
    assert [share.device for share in found.breakdown] == ["CPU"]


def test_layers_that_are_asked_for_are_kept_even_where_they_do_not_fit() -> None:
    fitting = one(LLAMA, 8192, {"gpu_layers": 10, "context_size": 4096})
    assert fitting.settings["gpu_layers"] == 10 and fitting.fits
    found = one(LLAMA, 4096, {"gpu_layers": "all", "context_size": 4096})
    assert found.settings["gpu_layers"] == 33 and not found.fits and "run out of memory" in found.reason


def test_slots() -> None:
    shared = one(LLAMA, 24564, {"parallel": 4, "context_size": 16384})
    assert shared.breakdown[0].kv_mib == 2048.0
    assert to_llama_env(shared.settings)["LLAMA_ARG_KV_UNIFIED"] == "1"
    divided = one(LLAMA, 24564, {"parallel": 4, "context_size": 16384, "kv_unified": False})
    assert to_llama_env(divided.settings)["LLAMA_ARG_KV_UNIFIED"] == "0" and divided.breakdown[0].kv_mib == 2048.0
    assert "LLAMA_ARG_KV_UNIFIED" not in to_llama_env(one(LLAMA, 24564).settings)
    windows = [one(WINDOW, 24564, {"parallel": slots, "context_size": 16384}).breakdown[0].kv_mib for slots in (1, 4)]
    assert windows[1] > windows[0]


def test_recurrent_layers_keep_a_state_and_no_cache() -> None:
    found = one(HYBRID, 24564, {"context_size": 8192})
    share = found.breakdown[0]
    assert (share.kv_mib, share.state_mib) == (352.0, pytest.approx(133.80, abs=0.01))


# Several GPUs


def test_one_gpu_is_enough() -> None:
    gpus = [gpu(12288, 6000, 0), gpu(24564, None, 1)]
    found = plan([Wish("a", shape(LLAMA), {"context_size": 8192})], gpus, server_version=NEW)[0]
    assert found.settings["tensor_split"] == "0,33"
    assert [share.layers for share in found.breakdown] == [0, 33, 0]
    # CUDA opens the other one all the same
    assert found.breakdown[0].context_mib == 330 and found.breakdown[0].needed_mib == 330


def test_a_gpu_that_others_fill_is_named() -> None:
    gpus = [gpu(24564, 100, 0), gpu(24564, 23500, 1)]
    found = plan([Wish("a", shape(LLAMA), {"context_size": 8192})], gpus, server_version=NEW)[0]
    assert not found.fits and found.reason.startswith("GPU 0 (NVIDIA Test) has 100 MiB for it, too little: a server takes 330 MiB on every GPU")
    assert "gpus: [1]" in found.reason
    assert plan([Wish("a", shape(LLAMA), {"context_size": 8192}, gpus=("1",))], gpus, server_version=NEW)[0].offload == "full"
    # Where none has room, none is to blame
    full = plan([Wish("a", shape(LLAMA))], [gpu(24564, 100, 0), gpu(24564, 100, 1)], server_version=NEW)[0]
    assert not full.fits and "Not one layer fits" in full.reason


def test_two_gpus_share_a_model() -> None:
    gpus = [gpu(8192, None, 0), gpu(6144, None, 1)]
    found = plan([Wish("a", shape("Mistral Small 22B"), {"context_size": 4096})], gpus, server_version=NEW)[0]
    counts = [int(part) for part in found.settings["tensor_split"].split(",")]
    assert sum(counts) == found.settings["gpu_layers"] == sum(share.layers for share in found.breakdown[:2])
    assert [share.layers for share in found.breakdown[:2]] == counts and all(counts)


def test_gpus_by_number_and_uuid() -> None:
    gpus = [gpu(24564, None, 0), gpu(24564, None, 1)]
    for name in ("1", "GPU-1"):
        found = plan([Wish("a", shape(LLAMA), {}, gpus=(name,))], gpus, server_version=NEW)[0]
        assert [share.index for share in found.breakdown] == [1, None] and found.settings["tensor_split"] == ""
    with pytest.raises(AikitError, match="there is no GPU 7 here"):
        plan([Wish("a", shape(LLAMA), {}, gpus=("7",))], gpus)


def test_an_asked_split_is_kept() -> None:
    gpus = [gpu(24564, None, 0), gpu(24564, None, 1)]
    found = plan([Wish("a", shape(LLAMA), {"tensor_split": "1,3", "context_size": 8192})], gpus, server_version=NEW)[0]
    assert [share.layers for share in found.breakdown] == [9, 24, 0]
    with pytest.raises(AikitError, match="tensor_split names 3 GPUs"):
        plan([Wish("a", shape(LLAMA), {"tensor_split": "1,3,1"})], gpus)


# All services of a host


def test_services_take_in_order_and_leave_room_for_all() -> None:
    wishes = [Wish("first", shape(LLAMA)), Wish("second", shape("Qwen2.5 7B")), Wish("third", shape(TIED))]
    found = plan(wishes, [gpu(24564)], server_version=NEW)
    assert [entry.service for entry in found] == ["first", "second", "third"]
    assert [entry.offload for entry in found] == ["full"] * 3
    needed = sum(entry.breakdown[0].needed_mib for entry in found)
    assert needed + found[0].breakdown[0].margin_mib <= 24564
    # What is left lengthened the first one's context first
    assert found[0].settings["context_size"] > found[2].settings["context_size"]


def test_the_last_service_gets_what_is_left() -> None:
    wishes = [Wish(name, shape(LLAMA), {"context_size": 8192}) for name in ("first", "second")]
    found = plan(wishes, [gpu(10240)], server_version=NEW)
    assert (found[0].offload, found[1].offload) == ("full", "partial")


def test_services_have_names_of_their_own() -> None:
    with pytest.raises(AikitError, match="Two services are named a"):
        plan([Wish("a", shape(LLAMA)), Wish("a", shape(LLAMA))], [gpu(24564)])


def test_a_second_run_gives_the_same_plan() -> None:
    wishes = [Wish("first", shape(LLAMA)), Wish("second", shape("Qwen2.5 7B"))]
    before = plan(wishes, [gpu(24564)], server_version=NEW)
    held = int(sum(entry.breakdown[0].needed_mib for entry in before))
    after = plan(wishes, [gpu(24564, 24564 - held, ours_mib=held)], server_version=NEW)
    assert [entry.settings for entry in after] == [entry.settings for entry in before]
    assert one(LLAMA, 24564).settings == one(LLAMA, 24564).settings


def test_an_out_of_memory_error_makes_the_next_plan_smaller() -> None:
    steps = [one(LLAMA, 8192, step_down=number) for number in range(4)]
    contexts = [entry.settings["context_size"] for entry in steps if entry.offload == "full"]
    assert contexts == sorted(contexts, reverse=True) and len(set(contexts)) == len(contexts)
    margins = [entry.breakdown[0].margin_mib for entry in steps]
    assert margins == sorted(margins) and margins[1] == margins[0] + 512


# What is explained


def findings(found: Fit) -> dict[str, str]:
    return {finding.path: finding.message for finding in found.findings}


def test_f16_and_copied_layers_are_explained() -> None:
    found = findings(one(LLAMA, 24564, {"f16": True, "gpu_layers": 35}))
    assert "does nothing" in found["a.settings.f16"]
    assert "35 is the number of AIKit's examples" in found["a.settings.gpu_layers"] and "all of its 33" in found["a.settings.gpu_layers"]
    assert "leaves 22 of its 57 layers on the CPU" in findings(one("Mistral Small 22B", 24564, {"gpu_layers": 35}))["a.settings.gpu_layers"]
    assert findings(one(LLAMA, 24564, {"gpu_layers": "auto"})) == {}


def test_low_vram_is_honoured() -> None:
    plain, low = one(LLAMA, 8192, {"context_size": 32768}), one(LLAMA, 8192, {"context_size": 32768, "low_vram": True})
    assert plain.offload == "partial"
    assert low.settings["batch"] == 128 and low.settings["gpu_layers"] == 33
    assert low.settings["cache_type_k"] == "q8_0" or low.settings["no_kv_offloading"]
    assert "low_vram" in next(iter(findings(low)))
    # A quantised cache is not taken where a smaller batch is enough
    assert one(LLAMA, 24564, {"context_size": 8192, "low_vram": True}).settings["cache_type_k"] == "f16"


def test_a_quantised_cache_needs_flash_attention() -> None:
    found = one(LLAMA, 24564, {"flash_attention": "off", "cache_type_v": "q8_0"})
    assert found.findings[0].level == "error" and found.settings["flash_attention"] == "on"
    off = one(LLAMA, 24564, {"flash_attention": "off", "context_size": 8192}, Policy(kv_types=("q8_0", "f16")))
    assert (off.settings["flash_attention"], off.settings["cache_type_v"]) == ("off", "f16")


def test_flash_attention_is_off_where_the_gpu_has_no_kernel() -> None:
    assert one("MiniCPM3 4B", 24564, {"context_size": 4096}).settings["flash_attention"] == "off"
    found = findings(one("MiniCPM3 4B", 24564, {"context_size": 4096, "flash_attention": "on"}))
    assert "on the CPU" in found["a.settings.flash_attention"]


def test_an_unknown_architecture() -> None:
    known = shape(LLAMA)
    metadata = {key.replace("llama.", "marvin."): value for key, value in known.metadata.items()}
    strange = ModelShape("marvin", metadata, known.weights, known.vocabulary, "Marvin")
    wish = Wish("a", strange, {"context_size": 8192})
    found = plan([wish], [gpu(24564)], server_version=NEW)[0]
    assert found.confidence == "estimated" and "marvin is not known" in found.reason
    sure = one(LLAMA, 24564, {"context_size": 8192})
    assert found.breakdown[0].compute_mib == pytest.approx(1.5 * sure.breakdown[0].compute_mib, rel=0.01)
    left = plan([wish], [gpu(24564)], Policy(unknown="server"), NEW)[0]
    assert left.delegated and left.settings["gpu_layers"] == "auto" and left.fits and "unknown: margin" in left.reason
    assert to_localai(left.settings)["gpu_layers"] == -1
    assert to_llama_env(left.settings)["LLAMA_ARG_FIT"] == "on"
    open_context = plan([replace(wish, settings={"gpu_layers": 7})], [gpu(24564)], Policy(unknown="server"), NEW)[0].settings
    env = to_llama_env(open_context)
    # 0 alone would be all that the model was trained for, whatever fits; the least context lets the server shorten it
    assert (env["LLAMA_ARG_FIT"], env["LLAMA_ARG_CTX_SIZE"], env["LLAMA_ARG_FIT_CTX"], env["LLAMA_ARG_N_GPU_LAYERS"]) == ("on", "0", "4096", "7")
    assert "context_size" not in to_localai(open_context) and to_localai(open_context)["gpu_layers"] == 7
    given = plan([replace(wish, settings={"gpu_layers": 7, "context_size": 8192})], [gpu(24564)], Policy(unknown="server"), NEW)[0].settings
    assert to_llama_env(given)["LLAMA_ARG_FIT"] == "off" and to_localai(given)["context_size"] == 8192
    # Every key is there, with what the user wants
    wanted = {"cache_type_k": "q8_0", "no_kv_offloading": True}
    told = plan([replace(wish, settings=wanted)], [gpu(24564)], Policy(unknown="server"), NEW)[0].settings
    assert set(told) == set(sure.settings) and {key: told[key] for key in wanted} == wanted
    assert to_llama_env(told)["LLAMA_ARG_CACHE_TYPE_K"] == "q8_0" and to_localai(told)["no_kv_offloading"] is True
    assert (told["cache_type_v"], told["n_cpu_moe"], told["tensor_split"]) == ("f16", 0, "")


def test_a_type_of_tensors_that_is_not_known_is_what_the_reason_says() -> None:
    newer = replace(shape(LLAMA), unknown_types=(99,))
    reason = plan([Wish("a", newer, {"context_size": 8192})], [gpu(24564)], server_version=NEW)[0].reason
    assert "Some of its tensors have a type that is not known (99)" in reason and "architecture llama" not in reason


def test_an_index_for_sparse_attention_is_left_to_the_server() -> None:
    known = shape(LLAMA)
    sparse = replace(known, metadata={**known.metadata, "llama.attention.indexer.top_k": 2048})
    assert "Set extra_mib" in plan([Wish("a", sparse)], [gpu(24564)], server_version=NEW)[0].reason
    measured = plan([Wish("a", sparse, {"context_size": 8192}, extra_mib=4000)], [gpu(24564)], server_version=NEW)[0]
    assert not measured.delegated and measured.confidence == "estimated" and measured.breakdown[0].context_mib == 4330


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gpu_layers", "many"),
        ("context_size", 0),
        ("context_size", True),
        ("cache_type_k", "q9"),
        ("flash_attention", "perhaps"),
        ("tensor_split", "a,b"),
        ("tensor_split", "0,0"),
    ],
)
def test_words_that_are_none(key: str, value: Any) -> None:
    with pytest.raises(AikitError) as caught:
        one(LLAMA, 24564, {key: value})
    assert f"a: settings.{key} is" in caught.value.message and caught.value.hint


def test_an_image_encoder_is_no_model() -> None:
    with pytest.raises(AikitError, match="has no layers to place"):
        plan([Wish("a", ModelShape("clip", {}))], [gpu(24564)])


# The host


def test_an_image_encoder_lies_on_the_first_gpu() -> None:
    encoder = ModelShape("clip", {}, shape(TIED).weights)
    found = one(LLAMA, 24564, {"context_size": 8192}, mmproj=encoder)
    held = sum(weight.size_bytes for weight in encoder.weights) / 2**20
    assert found.breakdown[0].mmproj_mib == pytest.approx(1.35 * held, rel=0.02)
    on_cpu = one(LLAMA, 24564, {"context_size": 8192, "mmproj_offload": False}, mmproj=encoder)
    assert on_cpu.breakdown[0].mmproj_mib == 0 and on_cpu.breakdown[1].weights_mib > held


def test_the_hosts_memory_is_checked() -> None:
    wish = Wish("a", shape(MOE), {"context_size": 8192})
    small = plan([wish], [gpu(8192)], server_version=NEW, host=Host(8192, 6000))[0]
    assert small.fits and small.findings[-1].level == "warning" and "read from disk" in small.findings[-1].message
    locked = replace(wish, settings={**wish.settings, "mmap": False})
    refused = plan([locked], [gpu(8192)], server_version=NEW, host=Host(8192, 6000))[0]
    assert not refused.fits and refused.findings[-1].level == "error"
    assert not plan([wish], [gpu(8192)], server_version=NEW, host=Host(65536, 60000))[0].findings


def test_unified_memory_is_the_hosts() -> None:
    spark = gpu(124610, 120000, unified_memory=True)
    found = plan([Wish("a", shape(LLAMA))], [spark], server_version=NEW, host=Host(124610, 30000))[0]
    assert found.breakdown[0].margin_mib == pytest.approx(0.03 * 124610)
    assert found.breakdown[0].needed_mib <= 30000
    mac = Gpu(0, "Apple M2", 16384, 14000, "", True, vendor="apple")
    assert plan([Wish("a", shape(LLAMA))], [mac], server_version=NEW)[0].breakdown[0].available_mib <= 16384 * 0.66


def test_what_stays_on_the_cpu_lies_in_unified_memory_too() -> None:
    spark = gpu(24576, 16000, unified_memory=True)
    wish = Wish("a", shape(MOE), {"context_size": 8192})
    small = plan([wish], [spark], server_version=NEW, host=Host(24576, 16000))[0]
    # Moving experts or layers to the host would make no room
    assert not small.fits and small.offload == "none" and small.settings["n_cpu_moe"] == 0
    assert small.reason.startswith("GPU and CPU share one memory: Qwen3 30B A3B needs 1") and small.findings[-1].path == "a"
    by_hand = plan([replace(wish, settings={"context_size": 8192, "gpu_layers": 20})], [spark], server_version=NEW)[0]
    assert not by_hand.fits and by_hand.reason.startswith("GPU and CPU share one memory")
    for free in range(16000, 24576, 500):
        found = plan([wish], [gpu(24576, free, unified_memory=True)], server_version=NEW)[0]
        whole = sum(share.needed_mib for share in found.breakdown)
        assert found.offload == ("full" if found.fits else "none") and (not found.fits or whole <= free - 2048)
    assert found.fits and not found.findings


def test_the_gpu_of_a_mac_has_a_part_of_the_memory_and_the_cpu_the_rest() -> None:
    # 6 GiB are the GPU's, and the model needs more
    mac = Gpu(0, "Apple M2", 9216, 9000, "", True, vendor="apple")
    found = plan([Wish("a", shape(LLAMA), {"context_size": 4096})], [mac], server_version=NEW)[0]
    assert found.offload == "partial" and found.fits
    assert found.breakdown[0].needed_mib <= 9216 * 0.66 - 2048 and sum(share.needed_mib for share in found.breakdown) <= 9000 - 2048


def test_experts_stay_with_their_layers_where_the_server_cannot_move_them() -> None:
    old, new = (one(MOE, 12288, {}, version=version) for version in ("localai v4.0.0", "localai v4.5.1"))
    assert new.settings["n_cpu_moe"] > 0 and new.settings["gpu_layers"] == 49
    assert old.settings["n_cpu_moe"] == 0 and 0 < old.settings["gpu_layers"] < 49 and old.fits
    # One that is written down is not counted on, and that is said
    written = one(MOE, 12288, {"n_cpu_moe": 48, "gpu_layers": "all", "context_size": 8192}, version="localai v4.0.0")
    assert not written.fits and any("too old for n_cpu_moe" in finding.message for finding in written.findings)
    assert one(MOE, 12288, {"n_cpu_moe": 48, "gpu_layers": "all", "context_size": 8192}, version="localai v4.7.1").fits


def test_experts_move_also_where_all_layers_are_asked_for() -> None:
    found = one(MOE, 12288, {"gpu_layers": "all"})
    assert found.fits and found.settings["gpu_layers"] == 49 and found.settings["n_cpu_moe"] > 0
    assert not one(MOE, 12288, {"gpu_layers": "all", "n_cpu_moe": 0}).fits


def test_mapped_weights_of_one_service_are_no_ones_loss() -> None:
    big = Wish("big", shape(MOE), {"gpu_layers": 0, "context_size": 2048})
    small = Wish("small", shape(LLAMA), {"gpu_layers": 33, "context_size": 4096})
    found = plan([big, small], [gpu(24564)], server_version=NEW, host=Host(20000, 18000))
    assert [fit.fits for fit in found] == [True, True] and not [finding for fit in found for finding in fit.findings if finding.level == "error"]
    pinned = replace(big, settings={**big.settings, "mmap": False})
    assert not plan([pinned], [gpu(24564)], server_version=NEW, host=Host(20000, 18000))[0].fits


# Servers


def test_eras() -> None:
    old, new = data_era.era("llama_cpp b4896"), data_era.era(NEW)
    assert not old.output_first and new.output_first
    assert data_era.era("localai v4.7.1").outputs_per_slot and not data_era.era("localai v3.12.1").outputs_per_slot
    assert data_era.era("localai v3.12.1").output_first and not data_era.era("localai v3.12.1").unified
    assert data_era.era("") == data_era.era("llama_cpp 99.0") == data_era.NEWEST
    # One cache for all slots since 4.3.0, n_cpu_moe since 4.5.1
    told = {version: data_era.era(f"localai {version}") for version in ("v4.0.0", "v4.2.6", "v4.3.0", "v4.5.0", "v4.5.1", "v4.7.1")}
    assert [found.unified for found in told.values()] == [False, False, True, True, True, True]
    assert [found.cpu_moe for found in told.values()] == [False, False, False, False, True, True]
    assert not told["v4.2.6"].outputs_per_slot
    assert [data_era.era(f"llama_cpp {build}").cpu_moe for build in ("b4896", "b6088", "b6089", "b8179")] == [False, False, True, True]
    # An image that does not say its version may be an old one
    for unknown in ("localai", "localai sha-1a0d06f", "localai main"):
        assert data_era.era(unknown) == data_era.era("localai v3.4.0") and not data_era.era(unknown).outputs_per_slot and not data_era.era(unknown).unified
    assert data_era.era("localai v4.0.0").name == "2026-02" and data_era.era("localai v2.0.0").name == "2024"
    assert data_era.era("llama_cpp 6401").name == data_era.era("llama_cpp b6401").name == "2025"
    assert data_era.era("llama_cpp 1:0.7.0+dfsg-2") == data_era.era("0.7.0") == data_era.era("llama_cpp 0.9.1") == data_era.NEWEST
    assert data_era.era("llama_cpp 0.6.0").name == data_era.era("llama_cpp v0.5.0").name == "2026-09" and data_era.era("llama_cpp 0.1.0").name == "2026-06"
    assert data_era.era("localai v9.0") == data_era.era("localai v4.7.1")


def test_logits_of_a_whole_batch_in_older_servers() -> None:
    older, newer = (one(LLAMA, 24564, {"context_size": 8192}, version=version) for version in ("localai v3.12.1", "localai v4.7.1"))
    assert older.breakdown[0].compute_mib - newer.breakdown[0].compute_mib > 100


def test_the_output_layer_comes_first_in_newer_servers() -> None:
    model = shape(LLAMA)
    load = fit_memory.Load(4096, 10, (10,))
    old, new = (fit_memory.place(model, load, data_era.era(version)) for version in ("llama_cpp b4896", NEW))
    assert (old.output, old.blocks.count(0)) == (-1, 10)
    assert (new.output, new.blocks.count(0)) == (0, 9)


def test_renderers_agree_with_what_containers_get() -> None:
    found = one(MOE, 12288).settings
    env, written = to_llama_env(found), container.llama_settings(found)
    for variable, value in written.items():
        if variable not in ("LLAMA_ARG_BATCH", "LLAMA_ARG_TENSOR_SPLIT"):
            assert env[variable] == value, variable
    assert env["LLAMA_ARG_FIT"] == "off" and env["LLAMA_ARG_UBATCH"] == "512" and env["LLAMA_ARG_BATCH"] == "2048"
    model = to_localai(found)
    overridden = container.localai_override([{"name": "m"}], found)[0]
    assert model["gpu_layers"] == overridden["gpu_layers"] and model["parameters"] == overridden["parameters"]
    assert set(model["options"]) <= set(overridden["options"])


# Whatever the numbers are

NAMES = st.sampled_from(sorted(SHAPES))
TYPES = st.sampled_from([("f16",), ("f16", "q8_0"), ("q8_0",)])
MEMORY = st.integers(min_value=300, max_value=90000)
SOME = settings(max_examples=60, deadline=None)


def sound(found: Fit) -> None:
    for share in found.breakdown:
        if share.index is not None and found.fits and not found.delegated and share.needed_mib:
            assert share.needed_mib + share.margin_mib <= share.available_mib + 0.01
    assert found.layers_offloaded == sum(share.layers for share in found.breakdown if share.index is not None)
    assert sum(share.layers for share in found.breakdown) == found.layers_total
    if found.settings.get("cache_type_v", "f16") not in ("f16", "f32", "bf16"):
        assert found.settings["flash_attention"] == "on"


@SOME
@given(name=NAMES, total=MEMORY, free=st.floats(0.05, 1), slots=st.integers(1, 4), types=TYPES, low=st.booleans())
def test_no_plan_takes_more_than_there_is(name: str, total: int, free: float, slots: int, types: tuple[str, ...], low: bool) -> None:
    wish = Wish("a", shape(name), {"parallel": slots, "low_vram": low})
    found = plan([wish], [gpu(total, int(total * free))], Policy(kv_types=types), NEW)[0]
    if found.offload != "none":
        assert found.fits
    sound(found)


@SOME
@given(name=NAMES, total=MEMORY, more=st.integers(0, 20000))
def test_more_memory_is_never_worse(name: str, total: int, more: int) -> None:
    free = min(total, 69000)
    small, large = (plan([Wish("a", shape(name))], [gpu(90000, size)], server_version=NEW)[0] for size in (free, free + more))

    def rank(found: Fit) -> tuple[int, int, int]:
        return found.layers_offloaded, -found.settings["n_cpu_moe"], found.settings["context_size"]

    assert rank(large) >= rank(small)


@settings(max_examples=15, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4), sizes=st.lists(MEMORY, min_size=1, max_size=3))
def test_hosts_are_never_given_away_twice(names: list[str], sizes: list[int]) -> None:
    gpus = [gpu(size, None, index) for index, size in enumerate(sizes)]
    wishes = [Wish(f"s{number}", shape(name)) for number, name in enumerate(names)]
    found = plan(wishes, gpus, server_version=NEW)
    assert found == plan(wishes, gpus, server_version=NEW)
    for index, size in enumerate(sizes):
        taken = sum(share.needed_mib for entry in found for share in entry.breakdown if share.index == index and entry.fits and entry.offload != "none")
        assert taken <= size
    for entry in found:
        sound(entry)


@SOME
@given(name=NAMES, context=st.integers(1, 500).map(lambda number: number * 256), layers=st.integers(0, 100), slots=st.integers(1, 4), flash=st.booleans())
def test_memory_grows_with_what_is_asked_for(name: str, context: int, layers: int, slots: int, flash: bool) -> None:
    model = shape(name)
    layers = min(layers, model.block_count + 1)
    load = fit_memory.Load(context, layers, (layers,), slots, flash=flash)
    (used,), cpu = fit_memory.measure(model, load)
    (longer,), _cpu = fit_memory.measure(model, replace(load, context=context + 4096))
    assert longer.kv >= used.kv and longer.compute >= used.compute and longer.weights == used.weights
    (whole,), _cpu = fit_memory.measure(model, replace(load, gpu_layers=model.block_count + 1, counts=(model.block_count + 1,)))
    assert whole.weights >= used.weights and whole.kv >= used.kv
    assert min(used.weights, used.kv, used.state, used.compute, cpu.weights, cpu.kv, cpu.compute) >= 0


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_travel(name: str) -> None:
    model = shape(name)
    again = ModelShape.from_dict(model.as_dict())
    assert again.as_dict() == model.as_dict()
    assert sorted((weight.layer, weight.name) for weight in again.weights) == sorted((weight.layer, weight.name) for weight in model.weights)


def test_a_shape_that_is_none() -> None:
    for wrong in (None, {}, {"metadata": {}, "tensors": 5}, {"metadata": {}, "tensors": [["a", 0]]}, {"metadata": {}, "tensors": [["a", 0, [1], "0-99999"]]}):
        with pytest.raises(AikitError, match="no shape of a model"):
            ModelShape.from_dict(wrong)


# Embeddings and ranking


def test_a_text_whose_embedding_is_made_lies_in_one_batch() -> None:
    for total, context in ((24564, 8192), (4800, 5888)):
        found = one("Qwen3 Embedding 4B", total, {"embeddings": True})
        assert (found.settings["context_size"], found.settings["batch"]) == (context, context)
    # Longer texts than the server's own batch are cut by nobody, and a batch that is given stays
    assert one("Qwen3 Embedding 4B", 24564, {"embeddings": True, "context_size": 32768}).settings["batch"] == 8192
    assert one("Qwen3 Embedding 4B", 24564, {"embeddings": True, "batch": 1024}).settings["batch"] == 1024
    assert one("BGE small", 8192, {"embeddings": True}).settings["batch"] == 512
    # Slots that do not share a cache have a part of the context each
    divided = one("Qwen3 Embedding 4B", 24564, {"embeddings": True, "parallel": 4, "kv_unified": False, "context_size": 16384})
    assert divided.settings["batch"] == 4096
    # Without a cache a batch is divided among the slots, and the server stops where that leaves a rest
    assert one("EuroBERT 210M", 24564, {"embeddings": True, "parallel": 3, "context_size": 512}).settings["batch"] == 510
    for wishes in ({}, {"context_size": 256}, {"kv_unified": False, "context_size": 8192}):
        told = one("BGE M3", 24564, {"embeddings": True, "parallel": 3, **wishes}).settings
        assert min(told["context_size"], told["batch"]) % 3 == 0 and told["batch"] > 250
    assert one("BGE M3", 24564, {"embeddings": True, "parallel": 3}).settings["batch"] == 8190
    assert one("BGE M3", 24564, {"embeddings": True}).settings["batch"] == 8192


def test_one_vector_for_a_text_takes_no_logits() -> None:
    def compute(model: str, wishes: dict[str, Any], version: str = NEW) -> float:
        return one(model, 24564, {"context_size": 4096, **wishes}, version=version).breakdown[0].compute_mib

    logits = 4 * 4096 * 151665 / 2**20
    pooled = compute("Qwen3 Embedding 4B", {"embeddings": True})
    assert pooled < 1000 and pooled == compute("Qwen3 Embedding 4B", {"reranking": True})
    # Servers before October 2026 make them all the same, and so does every server for a model that makes no one vector of them
    assert compute("Qwen3 Embedding 4B", {"embeddings": True}, "localai v4.7.1") > logits
    assert compute(TIED, {"embeddings": True}) > 4 * 4096 * 128256 / 2**20 > compute(TIED, {"reranking": True})
    # A model that writes nothing has none anywhere
    for name in ("BGE M3", "Jina Embeddings v3", "Nomic Embed 1.5", "ModernBERT embed base"):
        assert compute(name, {"embeddings": True}, "localai v4.7.1") < 300


def test_a_cache_that_flash_attention_does_not_read_is_named() -> None:
    wishes = {"context_size": 8192, "cache_type_k": "q8_0"}
    for version in ("localai v4.7.1", "llama_cpp b8179"):
        found = one(LLAMA, 24564, wishes, version=version)
        assert [finding.path for finding in found.findings] == ["a.settings.cache_type_k"]
        assert "keys of type q8_0 with values of type f16" in found.findings[0].message
    for fine in ({**wishes, "cache_type_v": "q8_0"}, {**wishes, "flash_attention": "off"}, {"context_size": 8192}):
        assert not one(LLAMA, 24564, fine, version="localai v4.7.1").findings
    assert not one(LLAMA, 24564, wishes).findings
    assert one(LLAMA, 24564, {**wishes, "cache_type_k": "iq4_nl", "cache_type_v": "iq4_nl"}).findings
    # ... and is not chosen either
    tight = Policy(kv_types=("f16", "q5_1", "q8_0"), context_max=32768)
    assert one(LLAMA, 7000, policy=tight, version="localai v4.7.1").settings["cache_type_v"] == "q8_0"
    assert one(LLAMA, 7000, policy=tight).settings["cache_type_v"] == "q5_1"


def test_large_cards_take_more_for_themselves() -> None:
    def outside(name: str, policy: Policy = Policy(), **more: Any) -> float:
        card = Gpu(0, name, 98304, 98304, "12.0", **more)
        return plan([Wish("a", shape(LLAMA), {"context_size": 8192})], [card], policy, NEW)[0].breakdown[0].context_mib

    assert outside("NVIDIA GeForce RTX 3060") == outside("Quadro P1000") == outside("") == 330
    assert outside("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition") == 752
    assert outside("NVIDIA H100 80GB HBM3") == 528 and outside("AMD Instinct MI300X", vendor="amd") == 1216
    # Whole words count, and the chip of a notebook is a smaller one
    assert outside("NVIDIA RTX A1000") == outside("NVIDIA RTX A1000 6GB Laptop GPU") == outside("NVIDIA GeForce RTX 4090 Laptop GPU") == 330
    assert outside("NVIDIA A100-SXM4-40GB") == 432 and outside("NVIDIA L40S") == 568 and outside("NVIDIA GeForce RTX 4090") == 512
    assert outside("NVIDIA GB200") == 592 and outside("AMD Instinct MI250X", vendor="amd") == 440
    # What an operator says counts, and an instance of a GPU has few of its multiprocessors
    assert outside("NVIDIA H100 80GB HBM3", Policy(context_mib=400)) == 400
    assert outside("NVIDIA H100 80GB HBM3", uuid="MIG-1") == 330
    busy = [Gpu(0, "NVIDIA H200", 143771, 143771, "9.0"), Gpu(1, "NVIDIA H200", 143771, 4700, "9.0")]
    assert "a server takes 528 MiB" in plan([Wish("a", shape(LLAMA), {"gpu_layers": 33})], busy, server_version=NEW)[0].reason


def test_hybrids_of_old_servers_do_not_divide_the_context_among_slots() -> None:
    wishes = {"context_size": 8192, "parallel": 4}
    old, new = (one(HYBRID, 24564, wishes, version=version).breakdown[0].kv_mib for version in ("localai v3.4.0", "localai v3.12.1"))
    assert old == 4 * new
    dense = [one(LLAMA, 24564, wishes, version=version).breakdown[0].kv_mib for version in ("localai v3.4.0", "localai v3.12.1")]
    assert dense[0] == dense[1]


def test_experts_beside_a_delta_net() -> None:
    """Between the matrices of two experts something else takes a part of their room, so two lie there at once."""
    for name, expert in (("Kimi Linear 48B A3B", 324), ("Qwen3 Next 80B A3B", 288), ("Qwen3.6 35B A3B", 210)):
        found = one(name, 98304, {"context_size": 8192, "n_cpu_moe": 20})
        assert 2 * expert < found.breakdown[0].compute_mib < 2 * expert + 50


def test_without_flash_attention_a_cache_in_host_memory_is_read_there() -> None:
    wishes = {"context_size": 32768, "flash_attention": "off", "gpu_layers": 33}
    here, away = (one(LLAMA, 24564, {**wishes, "no_kv_offloading": there}).breakdown[0].compute_mib for there in (False, True))
    # The scores of 32 heads
    assert here - away > 32 * 4 * 512 * 32768 / 2**20 * 0.9


def test_a_block_that_reads_the_cache_of_another_gpu_gets_a_copy() -> None:
    model = shape("Gemma 3n E4B")
    loads = [fit_memory.Load(context=32768, gpu_layers=36, counts=counts) for counts in ((36, 0), (20, 16), (28, 8))]
    _one, half, late = (fit_memory.measure(model, load)[0] for load in loads)
    layers = model.layers
    cache = sum(32768 * 2 * (layer.key_width + layer.value_width) for layer in layers[20:] if not layer.window) * 4
    assert half[1].compute - late[1].compute > cache / 3 > 0


def test_what_a_server_takes_beside_its_buffers_with_the_first_long_text() -> None:
    """Qwen3.6 35B A3B on an RTX 3080, context 150,016: 7981 MiB at rest, 8275 at the peak of a long text."""
    wishes = {"context_size": 150016, "n_cpu_moe": 40, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "batch": 4096}
    old, new = (one("Qwen3.6 35B A3B", 24564, wishes, version=version).breakdown[0] for version in ("llama_cpp b9300", NEW))
    assert old.context_mib - 330 == pytest.approx(8275 - 7981, abs=2)
    assert old.pool_mib == old.context_mib - 330 and old.as_dict()["pool_mib"] == round(old.pool_mib, 2)
    # Newer builds have that in their compute buffer
    assert new.context_mib == 330 and new.pool_mib == 0
    # Scores in f16, for all heads
    plain = {"context_size": 16384, "flash_attention": "off"}
    assert one(LLAMA, 24564, plain).breakdown[0].context_mib == 330 + 2 * 512 * 16384 * 32 / 2**20
    assert one(LLAMA, 24564, {**plain, "no_kv_offloading": True}).breakdown[0].context_mib == 330


def test_latent_attention_has_one_type_of_cache() -> None:
    name = "DeepSeek V2 Lite"
    for wishes in ({"cache_type_k": "q8_0"}, {"cache_type_v": "q8_0"}, {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}):
        found = one(name, 24564, {"context_size": 8192, **wishes})
        assert (found.settings["cache_type_k"], found.settings["cache_type_v"]) == ("q8_0", "q8_0") and not found.findings
    both = one(name, 24564, {"context_size": 8192, "cache_type_k": "q8_0", "cache_type_v": "f16"})
    assert [finding.level for finding in both.findings] == ["error"] and "cannot differ" in both.findings[0].message
    # Older servers do not stop
    for version, levels in (("llama_cpp 0.5.0", ["error"]), ("localai v4.7.1", ["warning"]), ("localai v3.4.0", ["warning"])):
        older = one(name, 24564, {"context_size": 8192, "cache_type_k": "q8_0", "cache_type_v": "f16"}, version=version)
        assert [finding.level for finding in older.findings] == levels
    alone = one(name, 24564, {"context_size": 8192, "cache_type_k": "q8_0"}, version="localai v4.7.1")
    assert (alone.settings["cache_type_k"], alone.settings["cache_type_v"], alone.findings) == ("q8_0", "f16", ())


def test_latent_attention_without_flash_attention() -> None:
    wishes = {"context_size": 8192, "cache_type_k": "q8_0", "flash_attention": "off"}
    old = one("DeepSeek V2 Lite", 24564, wishes, version="localai v3.12.1")
    assert [old.settings[key] for key in ("cache_type_k", "cache_type_v", "flash_attention")] == ["q8_0", "f16", "off"] and not old.findings
    new = one("DeepSeek V2 Lite", 24564, wishes)
    assert [new.settings[key] for key in ("cache_type_k", "cache_type_v", "flash_attention")] == ["q8_0", "q8_0", "on"]
    assert [(finding.level, finding.path) for finding in new.findings] == [("error", "a.settings.cache_type_k")]


def test_a_quantised_cache_of_values_has_flash_attention_also_where_no_gpu_computes_it() -> None:
    found = one("StableLM 2 12B", 24564, {"context_size": 4096, "cache_type_k": "q8_0", "cache_type_v": "q8_0"})
    assert found.settings["flash_attention"] == "on" and [finding.path for finding in found.findings] == ["a.settings.cache_type_v"]
    assert one("StableLM 2 12B", 24564, {"context_size": 4096}).settings["flash_attention"] == "off"


def test_what_nvidias_kernels_read_matters_only_where_they_run() -> None:
    old, mixed, policy = "localai v4.7.1", {"context_size": 8192, "cache_type_k": "q8_0"}, Policy(kv_types=("q5_1",))

    def told(model: str, wishes: dict[str, Any], vendor: str = "nvidia", gpus: tuple[str, ...] = ("all",)) -> tuple[list[str], str]:
        found = plan([Wish("a", shape(model), wishes, gpus)], [gpu(24564, vendor=vendor)], policy, old)[0]
        return [finding.path for finding in found.findings], found.settings["cache_type_v"]

    for vendor in ("nvidia", "amd"):
        assert told(LLAMA, mixed, vendor) == (["a.settings.cache_type_k", "a.policy.kv_types"], "f16")
        assert told(LLAMA, {}, vendor) == (["a.policy.kv_types"], "f16")
    for vendor in ("apple", "intel", ""):
        assert told(LLAMA, mixed, vendor) == told(LLAMA, {}, vendor) == ([], "q5_1")
    assert told(LLAMA, mixed, gpus=()) == told(LLAMA, {"no_kv_offloading": True}) == told(LLAMA, {"gpu_layers": 0}) == ([], "q5_1")
    for name in ("Mamba 2 2.7B", "BGE M3"):
        assert told(name, {**mixed, "context_size": 2048})[0] == []
    # Blocks of 32 do not divide heads of 80: the server would stop
    assert one("Pythia 2.8B", 24564, policy=Policy(kv_types=("q8_0",))).settings["cache_type_k"] == "f16"
    # Types that are given leave the policy nothing to choose, and without flash attention no server takes it
    assert told(LLAMA, {**mixed, "cache_type_v": "q8_0"}) == ([], "q8_0")
    assert told(LLAMA, {"flash_attention": "off"}, "apple") == (["a.policy.kv_types"], "f16")
