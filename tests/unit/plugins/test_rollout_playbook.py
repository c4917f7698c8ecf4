# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rollouts without a service that runs: how they end when they fail, and what they leave behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from ansible_collections.aikit.fleet.plugins.module_utils._core import fleet
from ansible_collections.aikit.fleet.tests.support import kinds_of_hosts, playbook

# No engine of this machine may have it, and no registry is asked
SERVICE = {"name": "llama", "image": "127.0.0.1:1/never-pulled:1", "gpus": [], "port": 8080, "server": "llama_cpp"}
GOOD = {"inference_services": []}
BAD = {"inference_services": [SERVICE, {**SERVICE, "name": "other", "port": 8081}]}


@pytest.fixture
def rollout(tmp_path):
    """Run it on hosts ``{name: (kind, variables)}``; without provisioning, which this machine has had."""
    kinds = kinds_of_hosts(tmp_path)

    def run(hosts, *arguments, name="deploy", **extra):
        found = {host: {"inference_state_dir": str(tmp_path / "state"), **kinds[kind], **more} for host, (kind, more) in hosts.items()}
        (tmp_path / "hosts.json").write_text(json.dumps({"aikit_hosts": {"hosts": found}}))
        return playbook(f"aikit.fleet.{name}", "-i", str(tmp_path / "hosts.json"), "--skip-tags=provision", "-e", json.dumps(extra), *arguments, cwd=tmp_path)

    return run


def rows(run, task="How the rollout stands"):
    tables = [result for result in run.results(task) if not result.get("skipped")]
    assert len(tables) == 1, run.output[-3000:]
    return [line.split() for line in tables[0]["msg"][2:]]


def test_the_batch_that_fails_ends_with_a_table_of_all_hosts(rollout):
    run = rollout({"a": ("here", GOOD), "b": ("here", BAD), "c": ("here", GOOD), "d": ("here", BAD)}, aikit_serial=[1, 2, 1])
    assert run.code == 2, run.output[-3000:]
    found = rows(run)
    assert [line[:2] for line in found] == [["a", "-"], ["b", "llama"], ["b", "other"], ["c", "-"], ["d", "llama"], ["d", "other"]]
    assert [line[2] for line in found] == ["-", "failed", "failed", "-", "not", "not"]
    assert "never-pulled" in " ".join(found[1]) and found[4][3:] == ["reached", "-", "as", "before", "-"]
    # A host beside it was not broken off, the next batch never began
    assert (run.failed, run.stats["b"]["failures"], run.stats["b"]["rescued"]) == (1, 1, 1)
    assert "never-pulled" in run.messages() and not run.results("Reach the host", "d")


def test_a_failure_that_is_tolerated_stays_one(rollout):
    run = rollout({"a": ("here", BAD), "b": ("here", GOOD), "c": ("here", GOOD)}, aikit_serial=2, aikit_max_fail_percentage=50)
    assert run.code == 2
    assert rows(run)[-1] == ["c", "-", "not", "reached", "-", "as", "before", "-"]
    assert rows(run, "How the rollout went")[-1][:3] == ["c", "-", "-"]
    assert run.results("What runs where")


def test_hosts_that_cannot_be_reached_do_not_hide_the_others(rollout):
    alone = rollout({"a": ("gone", BAD), "b": ("here", GOOD)}, aikit_serial=1)
    assert alone.code != 0 and rows(alone)[0][:3] == ["a", "llama", "unreachable"] and "refused" in str(alone.results("How the rollout stands"))
    assert not alone.results("Reach the host", "b")
    # As ever: in company it stops nobody, and the run is not well
    run = rollout({"a": ("gone", BAD), "b": ("here", GOOD), "c": ("here", GOOD)}, aikit_serial=2)
    assert run.code != 0 and run.stats["a"]["unreachable"] == 1 and run.results("Reach the host", "c")
    assert rows(run, "How the rollout went")[0][:3] == ["a", "llama", "unreachable"]


def test_a_rollback_that_fails_tells_the_same(rollout):
    run = rollout({"a": ("here", BAD), "b": ("here", BAD)}, name="rollback")
    assert run.code == 2 and [line[:3] for line in rows(run)][::2] == [["a", "llama", "failed"], ["b", "llama", "not"]]


def test_archives_of_another_deployment_stay(rollout, tmp_path):
    transfer = tmp_path / "cache/transfer"
    for name, days in (("0123456789ab", 5), ("abandoned", 8)):
        (transfer / name).mkdir(parents=True)
        (transfer / name / "image.tar").write_bytes(b"x")
        os.utime(transfer / name, (time.time() - days * 86400,) * 2)
    folder = fleet.transfer_folder(["a"], [str(tmp_path / "hosts.json")], str(tmp_path / "cache"))
    Path(folder).mkdir()
    run = rollout({"a": ("here", GOOD)}, inference_cache_dir=str(tmp_path / "cache"))
    assert run.code == 0 and run.changed == 0, run.output[-3000:]
    assert os.listdir(transfer) == ["0123456789ab"] and (transfer / "0123456789ab/image.tar").exists()
    # Nor is there a table of troubles without any
    assert all(result.get("skipped") for task in ("How the rollout stands", "How the rollout went") for result in run.results(task))
