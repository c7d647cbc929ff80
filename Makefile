# make train       installs the environment, fetches the dataset, trains the baseline and evaluates it
# make test        runs the quick tests (some minutes); they try each promise at least once
# make test-all    runs all tests
# make docs        builds the documentation site into site/
# make test-crash  runs all trials of tests/faults, and writes their table in docs/reliability.md
# You need python3 (3.11 to 3.13), make and git; make installs everything else into .venv.

SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest -n 2 --dist loadfile
# the interpreter that makes the environment; to choose another: make PYTHON=python3.12 train
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: docs train test test-rest test-all test-crash real-data lint format data bench bench-gpu notebook env clean
.DEFAULT_GOAL := train

train: env
	@$(PY) train.py

test: env real-data
	$(PYTEST) -m "not slow"

test-rest: env real-data  # only the tests that make test leaves out
	$(PYTEST) -m slow

test-all: env real-data
	$(PYTEST)

real-data: env
	@$(PY) -m fmvae.data fetch > /dev/null || echo "without the real data, the tests that need it are skipped"

test-crash: env
	OMP_NUM_THREADS=1 $(PY) -m tests.faults.campaign --write

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

format: env
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

data: env
	@$(PY) -m fmvae.data fetch
	@$(PY) -m fmvae.data eda

bench: env  # close other programs first
	$(PY) -m benchmarks.training
	$(PY) -m benchmarks.by_hand
	$(PY) -m benchmarks.memory
	$(PY) -m benchmarks.contention
	$(PY) -m benchmarks.precision
	$(PY) -m benchmarks.startup
	$(PY) -m benchmarks.overheads
	$(PY) -m benchmarks.tricks
	$(PY) -m benchmarks.stacked
	$(PY) -m benchmarks.convolutions
	$(PY) -m benchmarks.label_maps
	$(PY) -m benchmarks.evaluation
	$(PY) -m benchmarks.decomposition
	$(PY) -m benchmarks.mixtures
	$(PY) -m benchmarks.disentanglement
	$(PY) -m benchmarks.features
	$(PY) -m benchmarks.launchers
	$(PY) -m benchmarks.page

bench-gpu: env  # at most ten minutes; its summary says what failed
	-$(PY) -m benchmarks.gpu_minutes
	$(PY) -m benchmarks.page

docs: env
	@$(PY) -c 'import mkdocs, mkdocstrings' 2> /dev/null || $(PY) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --config-file docs/site/mkdocs.yml && echo site/index.html

notebook: env  # opens it in the browser
	@$(PY) -c 'import jupyterlab' 2> /dev/null || $(PY) -m pip install --quiet --disable-pip-version-check --editable '.[notebook]'
	@$(PY) -m jupyterlab notebooks/explore.ipynb

env: $(VENV)/.installed

# the stamp is written last, so that an interrupted installation is repeated
$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "fmvae: error: python3: no Python 3.11 to 3.13 was found; install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "fmvae: error: $(PYTHON) -m venv: failed; install your system's venv package (on Debian and Ubuntu: python3-venv)"; rm -rf $(VENV); exit 1; }
	@echo "installing the environment into $(VENV) (PyTorch is large: minutes, and some 5 GB)"
	@PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .hypothesis
