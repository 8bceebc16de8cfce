# make quickstart   train on the built-in shop, print the table, write runs/quickstart/report.html
# make test         lint, fast tests, then the tests that use real Ray, vLLM, DeepSpeed and data, two files at a time
# make test-long    trainings on real components that take minutes each, short tests at further values, and properties
#                   on examples drawn at random; `make test` draws the same ones each time
# make types        check the types with pyright
# make three_prices make credit make priors make choices make stability
#                   train and analyse a sweep in the background: credit modes on a toy and on the shop, teachers of
#                   imitation, what it teaches, settings that keep PPO steady. Running the same command again resumes
# make sweep        train the shop at three prices and three seeds, two at once, as jobs of a Ray cluster on this machine
#                   with a token; the same command again goes on. SWEEP=NAME for another; `ray stop` ends the cluster
# make productqa    train and evaluate on real questions, with ablations, prices and the paper's other tasks, in the
#                   order of benchmarks/productqa.mk. Resumes likewise. Needs AGILE_DATA and two pretrained models
# make chat         compare plain sessions with conversations on real questions. Needs AGILE_DATA and the model in both forms
# make bench        measure speed as ratios (docs/benchmarks.md), ONLY=1,2 of them; figures go into runs/bench.json
# make chaos        kill and stop processes of fake runs and of short ones, and check what they leave; tables in runs/chaos.
#                   Resumes likewise
# make install      install from the lock file; all others do this first, and it does nothing if the lock is unchanged
# make extras       install MLflow and Weights & Biases into an environment of their own, and test what they read of a run
#
# BENCH_MODEL=FOLDER of the policy that `make bench` plays; default: runs/quickstart/sft, if it is there, else models/tiny
# AGILE_DATA=FOLDER that contains productqa/; without it, the tests on ProductQA are left out
# VENV=FOLDER of the virtual environment    LOCK=requirements-gpu.txt for GPUs    PYTHON=interpreter that creates it

VENV ?= .venv
LOCK ?= requirements-cpu.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name && break; done)

DATA := $(or $(AGILE_DATA),data)
SLOW := $(if $(wildcard $(DATA)/productqa),integration or data,integration and not data)

STUDIES := three_prices credit priors choices stability

EXTRAS ?= .venv-extras

SWEEP ?= prices
SWEEP_PORT ?= 8265
SWEEP_ADDRESS := http://127.0.0.1:$(SWEEP_PORT)

BENCH_MODEL ?= $(firstword $(wildcard runs/quickstart/sft) models/tiny)

.PHONY: install quickstart sweep test test-long lint types bench chaos extras $(STUDIES)

install: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed, found none; install it or give PYTHON=path" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --quiet -r $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --quiet --no-build-isolation -e .
	echo $(LOCK) > $@

quickstart: install
	$(BIN)/agile-ray model tiny --output models/tiny
	$(BIN)/agile-ray train quickstart

sweep: export RAY_AUTH_MODE := token
sweep: install
	$(BIN)/agile-ray model tiny --output models/tiny
	$(BIN)/ray get-auth-token --generate > /dev/null
	$(BIN)/agile-ray jobs --address $(SWEEP_ADDRESS) > /dev/null 2>&1 \
		|| $(BIN)/ray start --head --num-cpus=8 --dashboard-port=$(SWEEP_PORT) --disable-usage-stats
	$(BIN)/agile-ray sweep $(SWEEP) --parallel 2 --address $(SWEEP_ADDRESS) \
		run.folder=$(CURDIR)/runs model.path=$(CURDIR)/models/tiny

test: install lint
	$(BIN)/python -m pytest -q -m "not integration and not data and not long" --numprocesses=2 --durations=5 --timeout=120
	$(BIN)/python -m pytest -q -m "($(SLOW)) and not long" --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=10 --timeout=600

test-long: install
	$(BIN)/python -m pytest -q -m "hypothesis and not long" --hypothesis-profile=random --numprocesses=2 --timeout=120
	$(BIN)/python -m pytest -q -m long --numprocesses=2 --dist=loadfile --durations=10 --timeout=900

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: install
	test -e $(BENCH_MODEL) || $(BIN)/agile-ray model tiny --output $(BENCH_MODEL)
	mkdir -p runs
	$(BIN)/python benchmarks/bench.py $(if $(ONLY),--only $(ONLY)) --json runs/bench.json model.path=$(BENCH_MODEL)

extras:
	test -x $(EXTRAS)/bin/python || $(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/python -m pip install --quiet -e '.[mlflow,wandb]' tensorboard pytest pytest-timeout hypothesis httpx
	$(EXTRAS)/bin/python -c "import mlflow, wandb"
	$(EXTRAS)/bin/python -m pytest -q --timeout=600 tests/launch/view/test_export_metrics.py

chaos: install
	$(BIN)/python -m tests.chaos.fakes --folder runs/chaos/fakes
	$(BIN)/python -m tests.chaos --folder runs/chaos

three_prices: ANALYSIS := three_prices
credit: ANALYSIS := shop
priors: ANALYSIS := shop 0.1 0.3 --runs runs/priors --compare imitation.asking=judgement
choices: ANALYSIS := shop 0.3 --runs runs/choices --compare imitation.answers=guess
stability: ANALYSIS := stability

$(STUDIES): install
	$(BIN)/agile-ray model tiny --output models/tiny
	$(BIN)/agile-ray model tiny --env recurring --hidden 128 --layers 2 --output models/toy
	mkdir -p runs
	nohup sh -c '$(BIN)/agile-ray sweep $@ && $(BIN)/agile-ray study $(ANALYSIS)' >> runs/$@.log 2>&1 &
	@echo "started; follow it with: tail -f runs/$@.log"

include benchmarks/productqa.mk
