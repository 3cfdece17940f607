# `make test` and `make demo` need Python 3.10 or newer and the network, nothing
# else: they create .venv and install into it, again when a setup file changes.

VENV ?= .venv
JOBS ?= 2
AUDIO ?=
COUNT ?=
SEED ?= 0

BIN := $(VENV)/bin
SETUP_FILES := setup.cfg setup.py pyproject.toml spiritlm_plugin.pth

# The first Python of a supported version that runs (a pyenv shim may not) and
# that can create an environment. Override with `make PYTHON=... test`.
SUITS := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 \
	python3.11 python3.10; do \
	$$p -c '$(SUITS)' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help test demo serve docs bench fuzz reproduce format clean

help:
	@echo "make test            lint, check types, run all tests"
	@echo "make demo [AUDIO=f]  run the demo, on your own recording if given"
	@echo "make serve           serve the model that ships, with a page to talk to it"
	@echo "make docs            build the docs into docs/_build/html"
	@echo "make bench           measure the speed of inference and of training"
	@echo "make reproduce CHECKPOINTS=c DATA=d"
	@echo "                     the paper's tables, with the released weights"
	@echo "make fuzz [COUNT=n] [SEED=n]"
	@echo "                     damaged and strange input, from a seed"
	@echo "make format          format and fix the sources"
	@echo "make clean           remove .venv, build products and caches"
	@echo "Options: PYTHON=python3.11  VENV=.venv  JOBS=2 (test processes)"

test: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/yamllint -s .
	$(BIN)/codespell
	@# Types are checked beside the tests: each leaves a core idle for a while. Files of
	@# many short tests stay at the end, so that processes end together.
	$(BIN)/python -m mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile \
		--no-loadscope-reorder; \
	tests=$$?; wait $$types && exit $$tests

demo: $(VENV)/installed-demo
	$(BIN)/python -m spiritlm_plugin.demo $(if $(AUDIO),"$(AUDIO)")

serve: $(VENV)/installed-serve
	$(BIN)/spiritlm-serve $(OPTIONS)

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -c docs -b html . docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(VENV)/installed-test
	$(BIN)/python -m tests.benchmarks.benchmark_inference
	$(BIN)/python -m tests.benchmarks.benchmark_training

reproduce: $(VENV)/installed-eval
	$(if $(and $(CHECKPOINTS),$(DATA)),,$(error name both: \
		make reproduce CHECKPOINTS=folder DATA=folder))
	cd recipes/Paper && $(abspath $(BIN))/python reproduce.py \
		hparams/reproduce.yaml \
		--checkpoints "$(abspath $(CHECKPOINTS))" --data_folder "$(abspath $(DATA))" \
		$(if $(OUTPUT),--output_folder "$(abspath $(OUTPUT))") \
		$(if $(RECOGNIZER),--recognizer "$(RECOGNIZER)") \
		$(if $(ALIGNER),--aligner "$(ALIGNER)") \
		$(if $(ITEMS),--items $(ITEMS) \
			$(if $(OUTPUT),,--output_folder results/paper/items_$(ITEMS))) \
		$(OPTIONS)

fuzz: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seed $(SEED) \
		$(if $(COUNT),--count $(COUNT))

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info demo_output
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed-%: $(SETUP_FILES) | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[$*]"
	touch $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.10 to 3.14 with venv and" \
		"ensurepip found. Install one, or name it: make PYTHON=..."; exit 1; fi
	$(PYTHON) -m venv --clear $(VENV)
