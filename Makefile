# Everything runs from .venv, which `make install` makes. No other set-up.
SHELL := /bin/bash
PYTHON ?= python3
# STACK=st6: sentence-transformers 6 without PyLate, in an environment of its own.
STACK ?= default
VENV := .venv$(if $(filter st6,$(STACK)),-st6)
CONSTRAINTS := constraints$(if $(filter st6,$(STACK)),-st6).txt
EXTRA := train$(if $(filter st6,$(STACK)),-st6)
BIN := $(VENV)/bin

.PHONY: install demo serve test docs-test lint bench bench-training bench-mining bench-gpu fuzz kills clean setup-embed-dirs train-embed train-embed-tb eval-embed infer-embed

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) api/pages/vendor.json
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=...)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || bash scripts/system_packages.sh venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRA),s3,tools,demo,dev]'
	$(BIN)/python -m api.pages.fetch_assets
	@touch $@

demo: install
	$(BIN)/reason demo

serve: install
	$(BIN)/reason serve

# Brings up PostgreSQL and Redis of its own when none is reachable. WORKERS=0: in one process (--pdb).
WORKERS ?= 2
test: install
	bash scripts/with_services.sh $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

docs-test: install
	$(BIN)/python -m pytest -q tests/docs

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	bash scripts/with_services.sh $(BIN)/python -m benchmarks.latency

# Against sentence-transformers; DATA: a folder with scifact/ and tldr/.
bench-training: install
	$(BIN)/python -m benchmarks.training $(DATA)

# Against mine_hard_negatives of sentence-transformers, on the C++ documentation (DOCS: its archive).
bench-mining: setup-embed-dirs
	$(BIN)/python -m benchmarks.mining data/demo/all-MiniLM-L6-v2 $(if $(DOCS),--docs $(DOCS)) $(ARGS)

# Every path of training that touches a GPU, checked and measured on this machine's.
bench-gpu: install
	$(BIN)/python -m benchmarks.gpu.run

# Schemathesis against the API: some seven thousand requests, every check.
fuzz: install
	bash scripts/with_services.sh $(BIN)/python -m benchmarks.fuzz $(ARGS)

# Twenty times each: SIGKILL of the job's process, the worker, the API.
kills: install
	$(BIN)/python -m benchmarks.kills 20

# The pipeline of configs/train_embed.yaml, with a service of its own if none runs. Again: what has not changed is
# taken from the first run, and after Ctrl-C it goes on. SET="num_epochs=2 seed=7" changes fields.
setup-embed-dirs: install
	mkdir -p data/input data/output
	$(BIN)/python -m client.demo data/demo

train-embed: setup-embed-dirs
	$(BIN)/reason pipeline run configs/train_embed.yaml --out data/output/train-embed $(foreach pair,$(SET),--set $(pair)) $(ARGS)

train-embed-tb: setup-embed-dirs
	$(BIN)/tensorboard --logdir data/artifacts & board=$$!; trap "kill $$board" EXIT; \
	$(MAKE) --no-print-directory train-embed

# The trained model against its base, and its vectors of a corpus: `reason search data/output/embeddings "..."`.
eval-embed: install
	$(BIN)/reason run configs/evaluate.yaml --out data/output/evaluation $(foreach pair,$(SET),--set $(pair)) $(ARGS)

infer-embed: install
	$(BIN)/reason run configs/embed.yaml --out data/output/embeddings $(foreach pair,$(SET),--set $(pair)) $(ARGS)

clean:
	rm -rf .venv .venv-st6 build *.egg-info
