# Headrace's commands. `make` alone lists them; each sets up what it needs first, once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
SERVE := $(VENV)/.stamp-serve
DEV := $(VENV)/.stamp-dev
TRAIN := $(VENV)/.stamp-train
FUZZ := .venv-fuzz/.stamp
export PATH := $(CURDIR)/$(BIN):$(PATH)

# How many seconds `make load` runs, with how many users of each kind, and against what.
LOAD_TIME ?= 60
SCENARIO ?= mixed
# How many seconds `make fuzz` takes in all.
FUZZ_SECONDS ?= 120
# Arguments for `make chat`, `make up` and the benches: make chat Q="What is this?" ARGS="--image a.png"
ARGS ?=
Q ?= What can you do?

.PHONY: help
help: ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z%-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up: one stamp per set of packages, so nothing is installed twice ---

$(PY):
	@bash deploy/setup/venv.sh $(VENV)

$(SERVE): pyproject.toml deploy/setup/constraints.txt | $(PY)
	@bash deploy/setup/install.sh $(VENV) serve
	@touch $@

$(DEV): pyproject.toml deploy/setup/constraints.txt | $(PY)
	@bash deploy/setup/install.sh $(VENV) serve,dev,torch
	@touch $@ $(SERVE)

$(TRAIN): pyproject.toml | $(DEV)
	@bash deploy/setup/install.sh $(VENV) train
	@touch $@

# Apart from the rest: schemathesis brings versions of its own of packages that the mesh pins. What the mesh needs is
# looked up in .venv, after its own.
$(FUZZ): pyproject.toml | $(DEV)
	@$(PY) -m venv .venv-fuzz
	@$(PY) deploy/image/requirements.py fuzz | tail -n +3 | .venv-fuzz/bin/python -m pip install --disable-pip-version-check --quiet -r /dev/stdin
	@$(PY) -c "import site; print(site.getsitepackages()[0])" > "$$(.venv-fuzz/bin/python -c 'import site; print(site.getsitepackages()[0])')/zz_headrace.pth"
	@touch $@

.PHONY: setup
setup: $(DEV) ## make .venv with everything that serving, tests and checks need

# --- a mesh on this machine ---

.PHONY: demo demo-governor up down status chat
demo: $(SERVE) ## start a mesh, ask it real questions, show where the time went, stop it
	@$(BIN)/headrace demo $(ARGS)

demo-governor: $(DEV) ## cut the power budget of a mesh under load and give it back: live, and as a picture
	@$(BIN)/headrace demo-governor $(ARGS)

up: $(SERVE) ## start a mesh and leave it running
	@$(BIN)/headrace up --detach $(ARGS)

down: $(SERVE) ## stop the mesh that `make up` started
	@$(BIN)/headrace down

status: $(SERVE) ## what the running mesh is doing
	@$(BIN)/headrace status

chat: $(SERVE) ## ask the running mesh: make chat Q="What digit is this?" ARGS="--image a.png"
	@$(BIN)/headrace chat "$(Q)" $(ARGS)

# --- tests and checks ---

.PHONY: test check chaos fuzz test-compose
test: $(DEV) ## all tests, one seed of chaos per process and fault (at most 10 minutes on 2 cores)
	@$(PY) -m pytest tests -n 2 --dist loadgroup --max-worker-restart 0 $(ARGS)

check: $(DEV) ## style, types, import contracts, protos, stubs, tidiness
	@bash deploy/setup/check.sh

chaos: $(DEV) ## the whole chaos matrix: every process at every transition, killed and stopped
	@$(PY) -m tests.chaos.matrix $(ARGS)

fuzz: $(FUZZ) ## schemathesis on a live gateway, atheris on all that bytes from outside go through (FUZZ_SECONDS=120)
	@$(PY) -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(ARGS)

test-compose: $(SERVE) ## the containers for real, where there is a Docker engine
	@bash deploy/test-compose.sh $(ARGS)

# --- load, figures, model, protos ---

.PHONY: load model model-audio predictor controllers proto
load: $(DEV) ## a minute of load (HTTP and gRPC, text and images) on the running mesh
	@$(BIN)/headrace load --scenario $(SCENARIO) --seconds $(LOAD_TIME) $(ARGS)

bench-%: $(DEV) ## a bench by its name: make bench-overhead ARGS="--quick --json"
	@$(BIN)/headrace bench $* $(ARGS)

reproduce-%: $(DEV) ## a paper's comparison again: make reproduce-modserve ARGS="--quick"
	@$(BIN)/headrace reproduce $* --out docs/reproduce $(ARGS)

model: $(TRAIN) ## train the image adapter again from packaged data (about half an hour on two quiet cores)
	@$(PY) -m headrace.training $(ARGS)

model-audio: $(TRAIN) ## train the audio adapter again; needs espeak-ng: make model-audio ARGS="--digits fsdd.tar.gz"
	@$(PY) -m headrace.training.audio $(ARGS)

predictor: $(DEV) ## train the length predictor again from the answers and prompts in libs/headrace/assets/lengths
	@$(PY) -m headrace.training.lengths $(ARGS)

controllers: $(DEV) ## train the learnt thermal controllers again (about half an hour of one core)
	@$(PY) -m headrace.training.controllers $(ARGS)

proto: $(DEV) ## generate the stubs in libs/headrace/v1 and oip from protos/
	@$(PY) -m grpc_tools.protoc -I protos --python_out=libs --pyi_out=libs --grpc_python_out=libs protos/headrace/*/*.proto
