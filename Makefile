# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A thin wrapper: everything here is a virtual environment, a link, and a command that can be typed by hand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COLLECTION := $(VENV)/collections/ansible_collections/aikit/fleet
STEP := tests/tools/step

# Further arguments: make quickstart ARGS="-e quickstart_base_variant=vulkan", make test-unit ARGS="-k tar"
ARGS ?=

export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(VENV)/collections
export ANSIBLE_LOCALHOST_WARNING := false
export ANSIBLE_INVENTORY_UNPARSED_WARNING := false
export LC_ALL := C.UTF-8
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev prepare quickstart test test-unit test-lint test-sanity test-importer test-e2e test-molecule test-hosts test-faults test-fuzz test-matrix test-oracle benchmark constraints stale-data clean

help:
	@echo 'make quickstart     a running, proven inference service on this machine (the first run takes some minutes)'
	@echo 'make setup          what quickstart needs: $(VENV) with pinned packages, this checkout linked in it as aikit.fleet'
	@echo 'make test           all tests that gate a change: unit, lint, sanity, importer, e2e, molecule (each has a target test-NAME), one host of test-hosts'
	@echo 'make test-hosts     GPU hosts: real systemd hosts, fake GPUs, signed repositories with packages that behave like NVIDIA'\''s; one real DKMS build'
	@echo 'make test-faults    kill deployments at many moments and run them again; faulty images'
	@echo 'make test-fuzz      a million damaged model files for the reader of their headers (ARGS="--inputs 20000 --seed 7")'
	@echo 'make test-matrix    unit tests of the pure code on every Python from 3.9 to 3.13 that is here'
	@echo 'make test-oracle    plans of GPU memory against a real llama.cpp with NVIDIA'\''s backend, on GPUs that are not there (root)'
	@echo 'make benchmark      the figures of docs/benchmarks.md'
	@echo 'make stale-data     tables of versions, checksums and package names that are older than six months'
	@echo 'make clean          remove $(VENV) and the tests'\'' leftovers in this folder'

setup: $(VENV)/.setup-run
setup-dev: $(VENV)/.setup-dev

$(VENV)/bin/pip:
	@tests/tools/check-python $(PYTHON)
	@echo '==> making $(VENV)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.setup-run: requirements/run.txt requirements/constraints.txt | $(VENV)/bin/pip
	@echo '==> installing Ansible into $(VENV) (about half a minute)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/run.txt --constraint requirements/constraints.txt
	@mkdir -p $(dir $(COLLECTION))
	@ln -sfn ../../../.. $(COLLECTION)
	@touch $@

$(VENV)/.setup-dev: requirements/dev.txt requirements/constraints.txt $(VENV)/.setup-run
	@echo '==> installing the test tools into $(VENV)'
	@$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt --constraint requirements/constraints.txt
	@touch $@

quickstart: setup
	@ansible-playbook aikit.fleet.quickstart $(ARGS)

# What the tests need from the machine itself; does nothing where it is there.
prepare: setup-dev
	@tests/tools/prepare-machine

test: prepare
	@$(STEP) --reset
	@$(STEP) unit $(MAKE) --no-print-directory test-unit
	@$(STEP) lint $(MAKE) --no-print-directory test-lint
	@$(STEP) sanity $(MAKE) --no-print-directory test-sanity
	@$(STEP) importer $(MAKE) --no-print-directory test-importer
	@$(STEP) e2e $(MAKE) --no-print-directory test-e2e
	@$(STEP) molecule $(MAKE) --no-print-directory test-molecule
	@$(STEP) hosts pytest tests/hosts/test_provision.py
	@$(STEP) --summary

test-unit: setup-dev
	@pytest tests/unit -q --numprocesses=2 --dist=loadfile $(ARGS)

test-lint: setup-dev
	@tests/tools/lint

test-sanity: setup-dev
	@tests/tools/sanity $(ARGS)

test-importer: setup-dev
	@tests/tools/importer

test-e2e: prepare
	@pytest tests/integration --numprocesses=2 --dist=loadfile --durations=20 $(ARGS)

test-molecule: prepare
	@tests/tools/molecule $(ARGS)

test-hosts: prepare
	@pytest tests/hosts $(ARGS)

test-faults: prepare
	@pytest tests/faults $(ARGS)

test-fuzz: setup-dev
	@python tests/fuzz/fuzz_gguf.py $(ARGS)

test-matrix:
	@tests/tools/matrix $(ARGS)

test-oracle: setup-dev
	@$(BIN)/python tests/oracle/observe.py $(ARGS)

benchmark: prepare
	@$(BIN)/python tests/benchmarks/run.py $(ARGS)

constraints: setup-dev
	@tests/tools/constraints

stale-data: setup-dev
	@python tests/tools/stale-data $(ARGS)

clean:
	rm -rf $(VENV) .cache .ansible .mypy_cache .pytest_cache .hypothesis tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
