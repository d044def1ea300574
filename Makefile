# Each target sets up what it needs in a virtual environment of its own (VENV).
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
BIN := $(VENV)/bin
HMR := $(BIN)/hmr-jax

.PHONY: quickstart test test-slow test-optimized test-brief test-all lint types format clean

$(VENV)/.base: setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'hmr_jax needs Python 3.11 or newer, found %d.%d (set PYTHON=...)' % sys.version_info[:2])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[data]"
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet -e ".[data,dev]"
	touch $@

# Make data, train, evaluate on held-out motion, export, reload and compare.
quickstart: $(VENV)/.base
	$(HMR) doctor
	$(HMR) data build synthetic --config=configs/quickstart.py --out=$(RUN)/data
	$(HMR) train --config=configs/quickstart.py --workdir=$(RUN)
	$(HMR) eval --workdir=$(RUN) --baselines
	$(HMR) export --workdir=$(RUN) --out=$(RUN)/export --verify

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2

# Compiled as users do: the long tests; and with the fast ones.
test-slow: $(VENV)/.dev
	HMR_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -q -n 2 -m slow

test-optimized: $(VENV)/.dev
	HMR_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -q -n 2 -m "slow or not slow"

# What a second Python must show: a clean import and some rooms.
test-brief: $(VENV)/.dev
	$(BIN)/python -W error -c "import hmr_jax"
	$(BIN)/python -m pytest -q tests/geometry tests/metrics tests/training tests/test_files.py

test-all: test test-slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info
