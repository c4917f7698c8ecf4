# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services of a host under one plan: what stays, what changes it, what is learned. The planner is the real one."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import fit_record, plan_report, service_fit, wish
from ansible_collections.aikit.fleet.plugins.module_utils._core.fit import Policy

Q4_0, F32, Q6_K = 2, 0, 14
# Llama 3.1 8B, as its header has it
LLAMA = {
    "metadata": {
        "general.architecture": "llama",
        "general.name": "Llama 3.1 8B",
        "llama.block_count": 32,
        "llama.context_length": 131072,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    },
    "vocabulary": 128256,
    "tensors": [
        ["token_embd.weight", Q4_0, [4096, 128256], ""],
        ["output_norm.weight", F32, [4096], ""],
        ["output.weight", Q6_K, [4096, 128256], ""],
        ["attn_q.weight", Q4_0, [4096, 4096], "0-31"],
        ["attn_k.weight", Q4_0, [4096, 1024], "0-31"],
        ["attn_v.weight", Q4_0, [4096, 1024], "0-31"],
        ["attn_output.weight", Q4_0, [4096, 4096], "0-31"],
        ["ffn_gate.weight", Q4_0, [4096, 14336], "0-31"],
        ["ffn_up.weight", Q4_0, [4096, 14336], "0-31"],
        ["ffn_down.weight", Q4_0, [14336, 4096], "0-31"],
        ["attn_norm.weight", F32, [4096], "0-31"],
        ["ffn_norm.weight", F32, [4096], "0-31"],
    ],
}
FILE = {"name": "llama", "source": "https://models.example/llama.gguf", "sha256": "a" * 64}
KEY = wish.key_of([FILE], "")
SHAPES = {KEY: {"shape": LLAMA}}
UUID = "GPU-1"


def service(name="llama", auto=("gpu_layers", "context_size"), settings=None, **more):
    asked = {**(settings or {}), **{key: "auto" for key in auto}}
    return {
        "name": name,
        "state": "present",
        "image": f"localhost/aikit/{name}:latest",
        "built": True,
        "gpus": ["all"],
        "runtime": "cuda",
        "base_variant": "cuda",
        "server": "llama_cpp",
        "settings": dict(asked),
        "expect": {"verdict": ["proven"]},
        "default_verdict": True,
        "context": "",
        "wish": {"auto": list(auto), "settings": dict(asked), "files": [FILE], "mmproj": [], "problem": ""},
        **more,
    }


def gpu(total=12288, free=None, index=0, uuid=UUID, **more):
    return {
        "index": index,
        "vendor": "nvidia",
        "name": "NVIDIA RTX",
        "uuid": uuid,
        "memory_total_mib": total,
        "memory_free_mib": total - 300 if free is None else free,
        "compute_capability": "8.9",
        "unified_memory": False,
        "mig": None,
        **more,
    }


def info(*gpus, state="loaded", version="580.1"):
    return {"gpus": list(gpus), "driver": {"state": state, "version": version}}


def memory(*entries):
    return {"services": list(entries)}


def ran(planned, held=None, step=None):
    """What a host tells of a service that was started with ``planned``."""
    need = [share["needed_mib"] for share in planned.fit["breakdown"] if share["index"] == 0]
    return {
        "name": planned.name,
        "running": True,
        "held": [{"uuid": UUID, "mib": sum(need) if held is None else held}],
        "source": "driver",
        "fit": copy.deepcopy(dict(planned.fit)),
        "settings": dict(planned.settings),
        "step_down": step or {},
    }


def plan(services, gpus, remembered=None, shapes=None, policy=Policy(), **more):
    return service_fit.plan_host(services, SHAPES if shapes is None else shapes, gpus, remembered, policy, **more)


def one(*args, **more):
    found = plan(*args, **more)
    (entry,) = found.services
    return entry


def test_all_of_it_fits_and_must_be_proven():
    found = one([service()], info(gpu(24576)))
    assert (found.state, found.fits, found.verdict) == ("planned", True, ("proven",))
    assert found.settings["gpu_layers"] == 33 and found.settings["context_size"] > 8192
    assert found.fit["visible"] == [0] and found.fit["planned"] and found.findings == ()
    # One GPU, no experts: nothing to tell a server
    assert not {"tensor_split", "n_cpu_moe"} & set(found.settings) and {"tensor_split", "n_cpu_moe"} <= set(found.fit["settings"])


def test_a_part_of_it_fits_and_partial_will_do():
    found = one([service()], info(gpu(4096)))
    assert found.fit["offload"] == "partial" and found.verdict == ("partial", "proven") and found.fits
    assert 0 < found.settings["gpu_layers"] < 33


def test_nothing_of_it_fits():
    found = plan([service()], info(gpu(1024)))
    (finding,) = [finding for finding in found.findings if finding.level == "error"]
    assert not found.fits and finding.message.startswith("nothing of llama fits on its GPUs")
    tolerant = service(default_verdict=False, expect={"verdict": ["cpu"]})
    accepted = plan([tolerant], info(gpu(1400)))
    assert accepted.services[0].fit["offload"] == "none" and not [finding for finding in accepted.findings if finding.level == "error"]
    # Not even for what a server takes that only opens the GPU
    assert plan([tolerant], info(gpu(1024))).findings[0].message.startswith("llama does not fit on this host")


def test_a_verdict_that_the_plan_cannot_meet_is_told_before_anything_travels():
    found = plan([service(default_verdict=False)], info(gpu(4096)))
    (finding,) = found.findings
    assert finding.level == "error" and "must be proven, and only" in finding.message


def test_what_the_user_set_wins_and_the_plan_works_around_it():
    mine = {"context_size": 6000, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    found = one([service(auto=("gpu_layers",), settings=mine)], info(gpu()))
    assert {key: found.settings[key] for key in mine} == mine and found.settings["gpu_layers"] == 33


def test_a_second_run_gives_the_same_plan():
    first = one([service()], info(gpu()))
    held = first.fit["breakdown"][0]["needed_mib"]
    # The driver counts a little differently than the plan did
    for off in (-40, 0, 40):
        again = one([service()], info(gpu(free=int(12288 - 300 - held - off))), memory(ran(first, held + off)))
        assert again.kept and again.settings == first.settings and again.fit == first.fit and again.note == ""


def test_without_what_we_hold_the_plan_would_shrink():
    """The trap: what is free on a host that serves already is what is left beside our own container."""
    first = one([service()], info(gpu()))
    held = first.fit["breakdown"][0]["needed_mib"]
    forgotten = one([service()], info(gpu(free=int(12288 - 300 - held))), memory())
    assert forgotten.fit["offload"] != "full"


def test_foreign_memory_shrinks_a_plan_only_when_there_is_no_room():
    first = one([service()], info(gpu()))
    held = first.fit["breakdown"][0]["needed_mib"]
    margin = first.fit["breakdown"][0]["margin_mib"]
    into_the_margin = one([service()], info(gpu(free=int(12288 - 300 - held - 0.8 * margin))), memory(ran(first)))
    assert into_the_margin.kept and into_the_margin.settings == first.settings and into_the_margin.fits
    gone = one([service()], info(gpu(free=int(12288 - 300 - held - 2 * margin))), memory(ran(first)))
    assert not gone.kept and gone.fits and gone.settings["context_size"] < first.settings["context_size"]


def test_a_plan_does_not_grow_by_itself():
    small = one([service()], info(gpu(free=7000)))
    again = one([service()], info(gpu(free=12288 - 300 - int(small.fit["breakdown"][0]["needed_mib"]))), memory(ran(small)))
    assert again.kept and again.settings == small.settings and "inference_replan=true" in again.note
    asked = one([service()], info(gpu()), memory(ran(small, 0.0)), replan=True)
    assert not asked.kept and asked.settings["context_size"] > small.settings["context_size"]


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": info(gpu(), version="590.2")},
        {"gpus": info(gpu(uuid="GPU-2"))},
        {"services": [service(settings={"parallel": 2})]},
        {"policy": Policy(context_max=16384)},
        {"shapes": {KEY: {"shape": {**LLAMA, "metadata": {**LLAMA["metadata"], "general.name": "another"}}}}},
        {"servers": {"localhost/aikit/llama:latest": "llama_cpp b8120"}},
    ],
)
def test_another_model_gpu_driver_server_wish_or_policy_makes_a_new_plan(change):
    before = {"services": [service()], "gpus": info(gpu()), "servers": {"localhost/aikit/llama:latest": "llama_cpp 0.7.0"}}
    first = one(**before)
    step = fit_record.step_down({}, first.fit, "out of memory")
    same = one(**before, remembered=memory(ran(first, step=None)))
    assert same.kept
    other = one(**{**before, **change}, remembered=memory(ran(first, step=step)))
    # The step is forgotten with what it was learned on
    assert not other.kept and other.fit["step_down"] == 0


def test_a_plan_of_the_time_when_330_mib_were_the_default_for_a_context_stays():
    first = one([service()], info(gpu()))
    # The digest of that time's default policy
    assert first.fit["inputs"]["policy"] == "d02bb47feb58e2a6"
    old, named = one([service()], info(gpu()), policy=Policy(context_mib=330)), one([service()], info(gpu()), policy=Policy(context_mib=400))
    step = fit_record.step_down({}, old.fit, "out of memory")
    again = one([service()], info(gpu()), memory(ran(old, step=step)))
    assert again.fit["step_down"] == 1 and old.fit["inputs"] == first.fit["inputs"] != named.fit["inputs"]
    assert one([service()], info(gpu()), memory(ran(old))).kept


def test_a_server_that_is_not_known_yet_leaves_the_plan_alone():
    first = one([service()], info(gpu()), servers={"localhost/aikit/llama:latest": "llama_cpp 0.7.0"})
    again = one([service()], info(gpu(free=100)), memory(ran(first)))
    assert again.kept and again.fit["inputs"]["server"] == "llama_cpp 0.7.0"


def test_the_server_that_will_be_built_counts_before_its_image_is_there():
    localai = service(auto=("gpu_layers",), settings={"context_size": 8192}, server="localai")
    localai["wish"]["server"] = "localai v4.0.0"
    built = {localai["image"]: "localai v4.0.0"}
    early, late = plan([localai], info(gpu())), plan([localai], info(gpu()), servers=built)
    # Logits of a whole batch
    compute = early.services[0].fit["breakdown"][0]["compute_mib"]
    assert compute > 250 and compute == late.services[0].fit["breakdown"][0]["compute_mib"]
    newer = plan([localai], info(gpu()), servers={localai["image"]: "localai v4.7.1"})
    assert newer.services[0].fit["breakdown"][0]["compute_mib"] < 130


def unpredicted():
    strange = {key.replace("llama.", "kimi-k3."): value for key, value in LLAMA["metadata"].items()}
    return {KEY: {"shape": {**LLAMA, "metadata": {**strange, "general.architecture": "kimi-k3"}}}}


@pytest.mark.parametrize("free", [23500, 900])
def test_what_is_left_to_the_servers_own_fit_is_not_judged_by_an_estimate(free):
    found = plan([service()], info(gpu(24576, free)), shapes=unpredicted())
    (entry,) = found.services
    assert found.fits and not found.findings and entry.fits is None
    assert entry.verdict == ("partial", "proven") and entry.fit["delegated"]
    assert fit_record.step_down({}, entry.fit, "out of memory") == {}
    row = plan_report.rows({"h": {"services": {"llama": entry.as_dict()}}})[0]
    assert (row["fits"], row["layers"], row["context"], row["GPU memory MiB"]) == ("?", "?/33", "auto", None)
    assert [line.split(".")[0] for line in plan_report.lines({"llama": entry.as_dict()})][0] == "llama: planned, ?/33 layers, context auto"
    # llama.cpp shortens no context that it was given
    assert entry.settings["gpu_layers"] == entry.settings["context_size"] == "auto"
    given = one([service(auto=("gpu_layers",), settings={"context_size": 16384})], info(gpu(24576, free)), shapes=unpredicted())
    assert (given.settings["gpu_layers"], given.settings["context_size"]) == ("auto", 16384)
    layers = one([service(auto=("context_size",), settings={"gpu_layers": 5})], info(gpu(24576, free)), shapes=unpredicted())
    assert (layers.settings["gpu_layers"], layers.settings["context_size"]) == (5, "auto")
    counted = plan([service(auto=(), settings={"gpu_layers": 33, "context_size": 131072})], info(gpu(24576, free)), shapes=unpredicted())
    assert counted.services[0].state == "counted" and counted.fits and not counted.findings


def test_memory_that_somebody_measured_is_added():
    plain, more = plan([service()], info(gpu())), plan([service(settings={"extra_mib": 2000})], info(gpu()))
    assert more.services[0].fit["breakdown"][0]["context_mib"] == 2000 + plain.services[0].fit["breakdown"][0]["context_mib"]
    # It speaks to the plan alone, and is one of the things that the plan was made from
    assert "extra_mib" not in more.services[0].settings
    assert more.services[0].fit["inputs"]["wish"] != plain.services[0].fit["inputs"]["wish"]
    strange = one([service(settings={"extra_mib": 2000})], info(gpu()), shapes=unpredicted())
    assert not strange.fit["delegated"] and strange.settings["gpu_layers"] != "auto"


def test_one_step_down_after_an_error_of_memory():
    first = one([service()], info(gpu()))
    step = fit_record.step_down({}, first.fit, "cudaMalloc failed: out of memory")
    assert (step["count"], step["reason"]) == (1, "cudaMalloc failed: out of memory")
    smaller = one([service()], info(gpu()), memory({**ran(first, 0.0), "step_down": step}))
    assert smaller.settings["context_size"] < first.settings["context_size"] and not smaller.kept
    assert smaller.fit["step_down"] == 1 and smaller.fit["step_reason"].startswith("cudaMalloc")
    # Proven with it, it stays
    again = one([service()], info(gpu(free=100)), memory(ran(smaller, step=step)))
    assert again.kept and again.settings == smaller.settings and again.fit == smaller.fit
    # And can be forgotten
    forgotten = one([service()], info(gpu()), memory(ran(smaller, 0.0, step)), replan=True)
    assert forgotten.settings == first.settings and forgotten.fit["replanned"] and "replanned" not in again.fit


def test_a_second_error_is_a_second_step_and_there_is_an_end():
    first = one([service()], info(gpu()))
    step = fit_record.step_down({}, first.fit, "once")
    second = one([service()], info(gpu()), memory({**ran(first, 0.0), "step_down": step}))
    state = {"step_down": step}
    further = fit_record.step_down(state, second.fit, "twice")
    assert (further["count"], further["reasons"]) == (2, ["once", "twice"])
    third = one([service()], info(gpu()), memory({**ran(second, 0.0), "step_down": further}))
    assert third.settings["context_size"] < second.settings["context_size"]
    assert fit_record.step_down(state, {**second.fit, "step_down": fit_record.MAX_STEPS}, "again") == {}
    assert fit_record.step_down(state, {}, "never planned") == {}


def test_a_step_leads_to_other_settings():
    """With the context fixed and room to spare, a larger margin alone would give the same plan again."""
    fixed = service(auto=("gpu_layers",), settings={"context_size": 4096})
    first = one([fixed], info(gpu()))
    step = fit_record.step_down({}, first.fit, "out of memory")
    smaller = one([fixed], info(gpu()), memory({**ran(first, 0.0), "step_down": step}))
    assert smaller.settings != first.settings and smaller.settings["gpu_layers"] < first.settings["gpu_layers"]
    assert one([fixed], info(gpu(free=100)), memory(ran(smaller, step=step))).kept


def test_services_of_a_host_are_planned_together():
    found = plan([service("one"), service("two")], info(gpu(16384)))
    needed = [sum(share["needed_mib"] for share in entry.fit["breakdown"] if share["index"] is not None) for entry in found.services]
    assert found.fits and sum(needed) < 16384 and [entry.fit["offload"] for entry in found.services] == ["full", "full"]


STRANGE = {**LLAMA, "metadata": {key.replace("llama.", "strange."): value for key, value in LLAMA["metadata"].items()}}
STRANGE["metadata"]["general.architecture"] = "strange"


def test_a_service_that_is_left_to_llama_cpp_stays_as_it_is():
    shapes, policy = {KEY: {"shape": STRANGE}}, Policy(unknown="server")
    first = one([service()], info(gpu()), shapes=shapes, policy=policy)
    assert (first.state, first.fit["delegated"], first.settings["gpu_layers"]) == ("planned", True, "auto") and first.fits is not False
    held = int(first.fit["breakdown"][0]["needed_mib"])
    # llama.cpp may have taken more or less than anybody planned, and another program some
    for free in (11988 - held, 11988 - held - 700, 11988 - held + 900, 300):
        again = one([service()], info(gpu(free=free)), memory(ran(first, held)), shapes=shapes, policy=policy)
        assert again.kept and again.settings == first.settings and again.fit == first.fit and again.findings == first.findings
    other = one([service(settings={"parallel": 2})], info(gpu()), memory(ran(first)), shapes=shapes, policy=policy)
    assert not other.kept and other.settings["parallel"] == 2


def test_a_model_alone_is_planned_in_place_of_all_services():
    first = one([service()], info(gpu()))
    held = int(first.fit["breakdown"][0]["needed_mib"])
    step = fit_record.step_down({}, first.fit, "out of memory")
    running = memory({**ran(first, held, step), "name": "serves"}, {**ran(first, 100.0, step), "name": "llama"})
    models = [service("big", auto=("context_size",)), service("llama")]
    found = plan(models, info(gpu(free=11988 - held - 100)), running, alone=True)
    for entry in found.services:
        assert entry.fit["breakdown"][0]["available_mib"] == pytest.approx(11988, abs=2)
        # Neither the plan nor the step of a service that has its name
        assert not entry.kept and entry.fit["step_down"] == 0 and entry.before == {}
    assert found.services[1].settings["context_size"] == pytest.approx(first.settings["context_size"], abs=256)


def test_a_service_that_has_its_settings_is_counted():
    fixed = service("fixed", auto=(), settings={"gpu_layers": "all", "context_size": 8192})
    alone = plan([service()], info(gpu()))
    beside = plan([fixed, service()], info(gpu()))
    counted, planned = beside.services
    assert (counted.state, counted.settings, counted.verdict) == ("counted", {}, None)
    assert planned.settings["context_size"] < alone.services[0].settings["context_size"]


def test_settings_that_need_more_than_there_is_are_a_warning():
    found = plan([service(auto=(), settings={"gpu_layers": 33, "context_size": 131072})], info(gpu()))
    (finding,) = found.findings
    assert not found.fits and finding.level == "warning" and "more memory than there is: GPU 0 (NVIDIA RTX) needs" in finding.message


def test_findings_of_the_planner_come_through():
    asked = service(auto=("context_size",), settings={"f16": True, "gpu_layers": 35})
    found = plan([asked], info(gpu()))
    assert {finding.path for finding in found.findings} == {"llama.settings.f16"} or "35" in str(found.findings)
    assert any("f16 does nothing" in finding.message for finding in found.findings)


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (None, "after provisioning: the host's GPUs could not be looked at"),
        ({"failed": True, "msg": "ssh says no"}, "could not be looked at (ssh says no)"),
        (info(gpu(memory_total_mib=None), state="absent", version=""), "after provisioning: the NVIDIA driver is absent"),
        (info(gpu(memory_total_mib=None), state="installed_not_loaded", version=""), "installed not loaded"),
        (info(), "no NVIDIA GPU was found"),
    ],
)
def test_a_host_that_cannot_be_planned_yet(gpus, words):
    found = plan([service()], gpus)
    assert not found.known and words in found.reason and found.fits
    assert found.services[0].state == "later" and service_fit.settings_of(service(), found.services[0].as_dict()) == service()


def test_a_host_that_cannot_be_planned_though_nothing_comes_later():
    found = plan([service(), service("own", auto=())], info(gpu(memory_total_mib=None), state="absent", version=""), final=True)
    assert found.known and [entry.state for entry in found.services] == ["server", "server"]
    (finding,) = found.findings
    assert finding.level == "warning" and finding.message.startswith("gpu_layers and context_size are left to the server: the NVIDIA driver is absent")


def test_a_model_that_was_not_read_yet():
    shapes = {KEY: {"error": "the header of m is read when the model has been fetched"}}
    found = plan([service()], info(gpu()), shapes=shapes)
    assert not found.known and "when the model has been fetched" in found.reason
    last = plan([service()], info(gpu()), shapes=shapes, final=True)
    assert last.known and last.services[0].state == "server"
    assert last.findings[0].message.startswith("gpu_layers and context_size are left to the server")


AWAY = {KEY: {"error": "the header of its model cannot be read yet: HTTP 503"}}
# What may happen while a host is looked at: of its services' models, of its GPUs
BLIND = {
    "model": {"shapes": AWAY},
    "nvidia-smi": {"gpus": {"failed": True, "msg": "nvidia-smi timed out"}},
    "silent driver": {"gpus": info(gpu(memory_total_mib=None))},
    "unreachable": {"gpus": None},
}


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("blind", BLIND)
@pytest.mark.parametrize("asked", [service(), service(auto=(), settings={"gpu_layers": 33, "context_size": 8192})], ids=["auto", "numbers"])
def test_a_plan_that_was_proven_stays_while_nothing_can_be_looked_at(asked, blind, final):
    first = one([asked], info(gpu()))
    held = int(first.fit["breakdown"][0]["needed_mib"])
    arguments = {"gpus": info(gpu(free=11900 - held)), **BLIND[blind]}
    found = plan([asked], remembered=memory(ran(first)), final=final, **arguments)
    (entry,) = found.services
    assert (entry.state, entry.kept, entry.fits, found.known, found.findings) == (first.state, True, True, True, ())
    assert (entry.settings, entry.fit, entry.verdict) == (first.settings, first.fit, first.verdict)
    assert entry.note.startswith("could not be looked at again (")
    assert service_fit.settings_of(asked, entry.as_dict()) == service_fit.settings_of(asked, first.as_dict())
    assert any(entry.note in line for line in plan_report.lines({"llama": entry.as_dict()}))


@pytest.mark.parametrize(
    "change",
    [
        {"services": [service(settings={"parallel": 2})]},
        {"services": [service(wish={**service()["wish"], "files": [{**FILE, "sha256": "b" * 64}]})]},
        {"policy": Policy(context_max=16384)},
        {"servers": {"localhost/aikit/llama:latest": "llama_cpp b8120"}},
        {"gpus": info(gpu(uuid="GPU-2"))},
        {"replan": True},
    ],
)
def test_what_was_not_planned_like_this_is_not_kept_unseen(change):
    first = one([service()], info(gpu()), servers={"localhost/aikit/llama:latest": "llama_cpp 0.7.0"})
    arguments = {"services": [service()], "gpus": info(gpu()), "remembered": memory(ran(first)), "shapes": {}, **change}
    assert one(**arguments).state == "later"
    step = fit_record.step_down({}, first.fit, "out of memory")
    ran_out = {**arguments, "services": [service()], "gpus": info(gpu()), "remembered": memory(ran(first, step=step)), "replan": False}
    assert one(**ran_out).state == "later"


def host(available, total=65536, *entries):
    return {"services": list(entries), "host": {"total_mib": total, "available_mib": available}}


IN_RAM = {"no_kv_offloading": True, "context_size": 32768}


def test_what_the_host_cannot_hold_is_told_before_anything_travels():
    asked = service(auto=("gpu_layers",), settings=IN_RAM)
    assert plan([asked], info(gpu()), host(32000)).findings == ()
    found = plan([asked], info(gpu()), host(3000))
    (finding,) = [finding for finding in found.findings if finding.level == "error"]
    assert not found.fits and "MiB of the model stay in host memory, which has 952 MiB for it" in finding.message
    assert plan_report.rows({"h": {"services": {"llama": found.services[0].as_dict()}}})[0]["fits"] == "NO"
    # Nobody knows what there is
    assert plan([asked], info(gpu()), {"services": []}).findings == plan([asked], info(gpu()), host(0)).findings == ()


def test_memory_of_the_host_is_given_once():
    pair = [service(name, auto=("gpu_layers",), settings=IN_RAM) for name in ("llama", "other")]
    cards = info(gpu(), gpu(index=1, uuid="GPU-2"))
    for number, entry in enumerate(pair):
        entry["gpus"] = [str(number)]
    first = one([pair[0]], cards, host(32000)).fit["breakdown"][-1]
    firm = first["needed_mib"] - first["weights_mib"]
    both = plan(pair, cards, host(int(2 * firm) + 4096))
    assert both.fits, both.findings
    short = plan(pair, cards, host(int(1.5 * firm)))
    assert not short.fits and [planned.fits for planned in short.services] == [True, False]
    left = short.services[1].fit["breakdown"][-1]["available_mib"]
    assert left == pytest.approx(int(1.5 * firm) - firm, abs=1)


UNIFIED = {"unified_memory": True, "name": "NVIDIA GB10"}
# One context alone, so that a plan takes what it takes
ONE_CONTEXT = Policy(context_max=4096)


def unified(services, free, total=49152):
    return plan(services, info(gpu(total, free, **UNIFIED)), host(free, total), policy=ONE_CONTEXT)


def needs(planned, on_cpu):
    return sum(share["needed_mib"] for share in planned.fit["breakdown"] if (share["index"] is None) == on_cpu)


@pytest.mark.parametrize("kept", [{"gpu_layers": 20}, {"no_kv_offloading": True}])
def test_unified_memory_is_given_once_to_the_gpu_and_to_the_cpu(kept):
    """Each part alone would fit, and by far; what counts is their sum, to the last MiB but the reserve."""
    asked = service(auto=("context_size", *(() if "gpu_layers" in kept else ("gpu_layers",))), settings=kept)
    (roomy,) = unified([asked], 40000).services
    reserve = Policy().host_reserve_mib
    together = int(needs(roomy, False) + needs(roomy, True)) + reserve
    assert roomy.fits and max(needs(roomy, False), needs(roomy, True)) + reserve < together - 400
    assert unified([asked], together + 2).services[0].fit["breakdown"][0]["layers"] == roomy.fit["breakdown"][0]["layers"]
    # Fewer layers on the GPU make no room: they would lie in the same memory
    scarce = unified([asked], together - 200)
    assert not scarce.fits and "share one memory" in scarce.services[0].reason
    assert plan_report.rows({"h": {"services": {"llama": scarce.services[0].as_dict()}}})[0]["fits"] == "NO"
    # A GPU with a memory of its own has room for its part, and the host for the rest
    apart = plan([asked], info(gpu(49152, together - 200)), host(together - 200, 49152), policy=ONE_CONTEXT)
    assert apart.fits and needs(apart.services[0], False) == needs(roomy, False)


def test_services_on_unified_memory_leave_each_other_their_part_on_the_cpu():
    """What the first has on the CPU is in the memory that the second would compute in."""
    pair = [service(name, auto=("context_size",), settings={"gpu_layers": 20}) for name in ("llama", "other")]
    both = unified(pair, 40000)
    each = [needs(planned, False) + needs(planned, True) for planned in both.services]
    assert both.fits and each[0] == each[1]
    free = int(sum(each)) + Policy().host_reserve_mib
    assert unified(pair, free + 3).fits
    short = unified(pair, free - 200)
    assert not short.fits and not short.services[1].fits
    assert unified(pair[:1], free - 200).fits


def test_what_the_policy_keeps_free_of_the_host_is_worth_a_warning():
    asked = service(auto=("gpu_layers",), settings=IN_RAM)
    needed = next(share for share in one([asked], info(gpu()), host(32000)).fit["breakdown"] if share["index"] is None)["needed_mib"]
    found = plan([asked], info(gpu()), host(int(needed) + 100))
    assert found.fits and [finding.level for finding in found.findings] == ["warning"] and found.services[0].fit["fits"]
    assert plan([asked], info(gpu()), host(int(needed) + 100), policy=Policy(host_reserve_mib=0)).findings == ()


def test_weights_that_do_not_fit_into_the_host_are_a_warning():
    found = plan([service()], info(gpu(4096)), host(3000))
    assert found.fits and [finding.level for finding in found.findings] == ["warning"] and "read from disk again and again" in found.findings[0].message


def test_host_memory_that_services_of_ours_hold_is_theirs():
    asked = service(auto=("gpu_layers",), settings=IN_RAM)
    first = one([asked], info(gpu()), host(7000))
    held = {**ran(first), "host_held_mib": 4500.0}
    free = info(gpu(free=11988 - int(ran(first)["held"][0]["mib"])))
    again = plan([asked], free, host(2500, 65536, held))
    assert again.services[0].kept and again.findings == () and again.services[0].fit == first.fit
    shares = plan([asked], free, host(2500, 65536, held), replan=True).services[0].fit["breakdown"]
    assert next(share for share in shares if share["index"] is None)["available_mib"] == 7000
    # A service on the CPU keeps what it has, one that goes does not
    cpu, gone = service("other", gpus=[], runtime="", base_variant="cpu"), {**service("other"), "state": "absent"}
    for other, errors in ((cpu, 1), (gone, 0)):
        found = plan([asked, other], info(gpu()), host(2500, 65536, {"name": "other", "host_held_mib": 4500.0}))
        assert len([finding for finding in found.findings if finding.level == "error"]) == errors
    # What was proven to work is not refused when others took memory
    taken = plan([asked], free, host(100, 65536, ran(first)))
    assert taken.services[0].kept and taken.fits and [finding.level for finding in taken.findings] == ["warning"]


def test_settings_of_the_user_that_the_host_cannot_hold_are_a_warning():
    found = plan([service(auto=(), settings={**IN_RAM, "gpu_layers": 33})], info(gpu()), host(3000))
    assert not found.fits and [finding.level for finding in found.findings] == ["warning"] and "more memory than there is" in found.findings[0].message


def test_the_limit_of_the_container_counts():
    asked = service(auto=("gpu_layers",), settings=IN_RAM, memory="2g")
    found = plan([asked], info(gpu()), host(32000))
    assert not found.fits and "and the container may have 2048 (memory)" in found.findings[0].message
    for enough in ("16384m", "16gb", "1.5T", str(16 * 1024**3), "17179869184b", ""):
        assert plan([{**asked, "memory": enough}], info(gpu()), host(32000)).findings == ()


def test_the_hosts_part_is_shown():
    found = one([service(auto=("gpu_layers",), settings=IN_RAM)], info(gpu()), host(32000)).as_dict()
    assert any(line.startswith("  host memory: weights ") and line.endswith(" of 32000 MiB") for line in plan_report.lines({"llama": found}))
    assert plan_report.rows({"h": {"services": {"llama": found}}})[0]["host MiB"] > 4096


def test_a_host_that_lost_its_gpu_keeps_no_plan():
    first = one([service()], info(gpu()))
    assert one([service()], info(), memory(ran(first)), final=True).state == "server"


def test_the_image_of_a_tag_may_be_another_one_and_that_of_a_digest_is_not():
    for image, state in (("r.example/llama:1", "server"), (f"r.example/llama@sha256:{'0' * 64}", "planned")):
        wished = {**service()["wish"], "files": [], "paths": ["/models/m.gguf"]}
        made = service(image=image, built=False, wish=wished)
        first = one([made], info(gpu()), shapes={wish.image_key(image, "/models/m.gguf"): {"shape": LLAMA}})
        unread = {**made, "wish": {**wished, "paths": []}}
        assert first.state == "planned" and one([unread], info(gpu()), memory(ran(first)), final=True).state == state


def test_what_is_kept_unseen_is_not_given_to_others():
    other = service("other", wish={**service()["wish"], "files": [{**FILE, "sha256": "b" * 64}]})
    shapes = {**SHAPES, wish.key_of(other["wish"]["files"], ""): {"shape": LLAMA}}
    first = plan([service(), other], info(gpu(24576)), shapes=shapes).services[0]
    needed = first.fit["breakdown"][0]["needed_mib"]
    for held in (0.0, 1000.0, needed):
        away = {**shapes, **AWAY}
        kept, planned = plan([service(), other], info(gpu(24576, free=int(24276 - held))), memory(ran(first, held)), shapes=away).services
        assert kept.kept and planned.fit["breakdown"][0]["available_mib"] == pytest.approx(24276 - needed, abs=2)


def test_what_an_unknown_service_holds_is_not_given_away():
    strange = service("strange", wish={"auto": [], "settings": {}, "files": [], "mmproj": [], "problem": "it serves 2 models"})
    held = {"name": "strange", "running": True, "held": [{"uuid": UUID, "mib": 5000}], "source": "driver", "fit": {}, "settings": {}, "step_down": {}}
    found = plan([strange, service()], info(gpu(free=6900)), memory(held))
    assert found.services[1].fit["breakdown"][0]["available_mib"] == 6900
    assert "what it needs is not counted: it serves 2 models" in found.findings[-1].message


def test_memory_that_leaves_with_a_service_is_there_for_the_others():
    gone = {**service("gone"), "state": "absent"}
    held = {"name": "gone", "running": True, "held": [{"uuid": UUID, "mib": 5000}], "source": "driver", "fit": {}, "settings": {}, "step_down": {}}
    found = plan([gone, service()], info(gpu(free=6900)), memory(held))
    assert found.services[0].fit["breakdown"][0]["available_mib"] == 11900


def test_a_service_on_the_cpu_is_left_alone():
    found = one([service(gpus=[], runtime="", base_variant="cpu")], info(gpu()))
    assert found.state == "server" and found.fits is None


def test_a_vulkan_build_is_planned_where_a_gpu_is_known_and_keeps_its_expectation():
    vulkan = service(gpus=[], runtime="", base_variant="vulkan", expect={"verdict": ["cpu", "software"]})
    found = one([vulkan], info(gpu()))
    assert (found.state, found.verdict) == ("planned", None)
    assert one([vulkan], info()).state == "server"


def test_gpus_by_index_by_uuid_and_instances():
    two = info(gpu(), gpu(index=1, uuid="GPU-2"))
    assert one([service(gpus=["1"])], two).fit["visible"] == [1]
    assert one([service(gpus=["GPU-2"])], two).fit["visible"] == [1]
    assert one([service()], two).fit["visible"] == [0, 1]
    missing = plan([service(gpus=["5"])], two)
    assert "it asks for GPU 5, and the host has 0, 1" in missing.findings[0].message
    large = {"index": 1, "profile": "3g.20gb", "uuid": "MIG-a", "memory_total_mib": 19968}
    instances = [large, {"index": 2, "profile": "1g", "uuid": "MIG-b", "memory_total_mib": 4864}]
    divided = info(gpu(40960, mig={"current": "enabled", "devices": instances}))
    for asked in (["MIG-a"], ["0:1"], ["all"]):
        found = one([service(gpus=asked)], divided)
        assert found.fit["breakdown"][0]["available_mib"] == 19968 and "MIG 3g.20gb" in found.fit["breakdown"][0]["device"]


def test_what_the_role_gets():
    found = one([service()], info(gpu(4096))).as_dict()
    served = service_fit.settings_of(service(), found)
    assert served["settings"]["gpu_layers"] == found["settings"]["gpu_layers"] and served["expect"] == {"verdict": ["partial", "proven"]}
    own = service(default_verdict=False, expect={"verdict": ["partial"], "min_tokens_per_second": 5})
    assert service_fit.settings_of(own, found)["expect"] == own["expect"]
    counted = one([service(auto=())], info(gpu())).as_dict()
    assert service_fit.settings_of(service(auto=(), settings={"threads": 2}), counted)["settings"] == {"threads": 2}


def test_a_table_and_a_document():
    hosts = {"h1": {"services": {entry.name: entry.as_dict() for entry in plan([service()], info(gpu())).services}, "fits": True, "known": True}}
    hosts["h2"] = {"services": {entry.name: entry.as_dict() for entry in plan([service()], None).services}, "fits": True, "known": False, "reason": "why"}
    hosts["h3"] = {"services": {entry.name: entry.as_dict() for entry in plan([service()], info(gpu(1024))).services}, "fits": False, "known": True}
    text = plan_report.plan_lines(hosts)
    assert text[2].split()[:4] == ["h1", "llama", "full", "33/33"] and text[3].split()[:3] == ["h2", "llama", "later"] and text[4].split()[2] == "NO"
    document = plan_report.document(hosts)
    assert (document["fits"], document["known"]) == (False, False) and document["hosts"]["h1"]["services"]["llama"]["settings"]["gpu_layers"] == 33
    assert [text.split(":")[0] for text in document["misfits"]] == ["llama on h2 is not known to fit yet", "llama on h3 does not fit"]


def test_changes_are_shown_setting_by_setting():
    first = one([service()], info(gpu()))
    assert any(line.startswith("  gpu_layers: 33") for line in plan_report.lines({"llama": first.as_dict()}))
    before = {"gpu_layers": 20, "context_size": first.settings["context_size"]}
    entry = {**ran(first, 0.0), "settings": before, "fit": {}}
    lines = plan_report.lines({"llama": one([service()], info(gpu()), memory(entry)).as_dict()})
    assert "  gpu_layers: 20 -> 33" in lines and not any(line.startswith("  context_size") for line in lines)
