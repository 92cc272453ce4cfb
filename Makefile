# Every target sets up what it needs in .venv, once; `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALLED := $(VENV)/.installed
RECIPE := recipes/LibriSpeech/todm
# Threads that sleep while they wait, instead of spinning: with another process on the same two
# cores, a training step of the mini recipe took 0.7 s so, and over 10 s otherwise.
export OMP_WAIT_POLICY ?= PASSIVE

# The folder of gpu.md.
OUT ?= results/gpu_check

# Processes that share the tests, each on one thread.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench gpu-check docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(INSTALLED) ## train a supernet on synthesised speech, cut out a subnet, transcribe with it
	cd $(RECIPE) && OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node=2 train.py \
	    hparams/mini.yaml --max_batch_seconds=15 --device=cpu
	cd $(RECIPE) && $(BIN)/todm-sb export results/mini/1234 results/mini/1234/exported/min --subnet min
	cd $(RECIPE) && $(BIN)/todm-sb transcribe --model results/mini/1234/exported/min --reference \
	    $$(ls results/mini_corpus/test-clean/*/*/*-0001.flac | head -n 3)

test: $(INSTALLED) ## the fast tests (5 to 9 minutes on 2 cores)
	$(PYTEST) -m 'not slow'

test-all: $(INSTALLED) ## all tests, whole training runs among them
	$(PYTEST)

lint: $(INSTALLED) ## ruff, rules and format; imports that respect the floors; types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

bench: $(INSTALLED) ## the claims of benchmarks/README.md that need no trained network, measured here
	for script in $(filter-out %/measure.py %/synthetic_transducer.py %/engines.py %/deployment.py %/streaming.py %/versions.py %/cold_start.py %/device_latency.py %/hotwords.py %/one_utterance.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; OMP_NUM_THREADS=1 $(BIN)/python $$script || exit 1; done

gpu-check: $(INSTALLED) ## all that only a GPU can show, in five minutes; without one a test of itself
	$(BIN)/python benchmarks/gpu_check --out $(OUT)

docs: $(INSTALLED) ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean: ## remove the environment, not the results
	rm -rf $(VENV) *.egg-info
