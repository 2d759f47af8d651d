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
CHART := .venv-chart/.stamp
TS := clients/typescript
NODE := $(TS)/node_modules/.stamp
# Of who has npm alone: what concerns the TypeScript client is skipped without it.
IF_NODE := $(if $(shell command -v npm),$(NODE))
DOCS := .venv-docs/.stamp
CLIENTS := .venv-clients/.stamp
export PATH := $(CURDIR)/$(BIN):$(PATH)

# How many seconds `make load` runs, with how many users of each kind, and against what.
LOAD_TIME ?= 60
SCENARIO ?= mixed
# How many seconds `make fuzz` takes in all.
FUZZ_SECONDS ?= 300
# How many processes `make test` has.
WORKERS ?= 3
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

$(FUZZ): pyproject.toml | $(DEV)
	@bash deploy/setup/beside.sh .venv-fuzz fuzz
	@touch $@

$(DOCS): pyproject.toml | $(SERVE)
	@bash deploy/setup/beside.sh .venv-docs docs
	@touch $@

$(CHART): pyproject.toml deploy/helm/tools.sh | $(PY)
	@PYTHON=$(PY) bash deploy/helm/tools.sh .venv-chart
	@touch $@

$(NODE): $(TS)/package-lock.json
	@npm --prefix $(TS) ci --silent
	@touch $@

# Apart from the rest: other people's clients, whose pins clash with the mesh's and with one another's.
$(CLIENTS): tests/clients/requirements.txt | $(DEV)
	@echo "installing other people's clients in .venv-clients (about 1.2 GB; the first time takes some minutes)"
	@$(PY) -m venv .venv-clients
	@.venv-clients/bin/python -m pip install --disable-pip-version-check --no-input --quiet --no-deps -r $<
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

.PHONY: test check chaos fuzz chart alarms panels test-cluster chaos-cluster test-clients test-compose test-typescript
test: $(DEV) ## all tests, one seed of chaos per process and fault
	@$(PY) -m pytest tests -n $(WORKERS) --dist loadgroup --max-worker-restart 0 $(ARGS)

check: $(DEV) $(IF_NODE) ## style, types, import contracts, protos, stubs, tidiness
	@bash deploy/setup/check.sh

chaos: $(DEV) ## the whole chaos matrix: every process at every transition, killed and stopped
	@$(PY) -m tests.chaos.matrix $(ARGS)

fuzz: $(FUZZ) ## schemathesis on a live gateway, atheris on all that bytes from outside go through (FUZZ_SECONDS=300)
	@$(PY) -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(ARGS)

test-clients: $(CLIENTS) $(IF_NODE) ## other people's clients (OpenAI, LiteLLM, LangChain, instructor, Triton, AIPerf, buf, ours in TypeScript) on a real mesh
	@.venv-clients/bin/python -m pytest tests/clients --confcutdir tests/clients $(ARGS)
	@$(if $(IF_NODE),$(MAKE) test-typescript,echo "the TypeScript client: skipped, there is no npm")

chart: $(CHART) | $(DEV) ## the Helm chart: lint, render, validate; there is no cluster in it
	@bash deploy/helm/check.sh .venv-chart $(PY)

test-typescript: $(DEV) $(NODE) ## the TypeScript client on real meshes, and its package; needs Node 20 and npm
	@npm --prefix $(TS) run --silent build:test
	@$(PY) -m pytest tests/e2e/test_typescript.py tests/e2e/test_secure.py -k typescript $(ARGS)

alarms: $(DEV) ## alerts made to fire for real, on a mesh of their own (needs prometheus; about six minutes)
	@$(PY) -m tests.deploy.alarms $(ARGS)

panels: $(DEV) ## every panel of every board on a mesh under load: how many series it has (needs prometheus)
	@$(PY) -m tests.deploy.panels $(ARGS)

test-cluster: $(DEV) ## NATS and Redis as clusters of processes: what takes longer than make test has time for
	@$(PY) -m pytest tests/cluster -o python_files='test_*.py slow_*.py' $(ARGS)

chaos-cluster: $(DEV) ## faults of a cluster's containers under load, where there is a Docker engine (half an hour)
	@$(PY) -m tests.chaos.cluster.run $(ARGS)

test-compose: $(SERVE) ## the containers for real, where there is a Docker engine (LEG=plain, secure or cluster)
	@for leg in $(if $(LEG),$(LEG),plain secure cluster); do bash deploy/test-compose.sh $$leg; done

# --- the site ---

MKDOCS := PYTHONPATH=$(CURDIR):$(CURDIR)/libs NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs

.PHONY: site site-serve howto
site: $(DOCS) ## build the documentation into site/, strictly: a dead link or anchor fails
	@$(MKDOCS) build --strict --quiet --config-file deploy/docs/mkdocs.yml
	@echo "site/index.html"

site-serve: $(DOCS) ## show the documentation at http://127.0.0.1:8008, built anew at each change
	@$(MKDOCS) serve --config-file deploy/docs/mkdocs.yml --dev-addr 127.0.0.1:8008 $(ARGS)

howto: $(DEV) ## do what the how-to pages say, word by word, meshes and simulations included (some minutes)
	@$(PY) -m tests.howto.following $(ARGS)

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

proto: $(DEV) $(IF_NODE) ## generate the stubs in libs/headrace/v1, oip and clients/typescript from protos/
	@bash deploy/setup/stubs.sh libs $(TS)/src/gen
