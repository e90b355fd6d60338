# Each target does its own set-up. PYTHON names the interpreter that makes the virtual environment (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
RESULTS := build/bench.jsonl

.PHONY: help setup demo test test-all check bench accuracy clean

help:
	@echo "make setup     a virtual environment in $(VENV) with regraft and its tools"
	@echo "make demo      train, evaluate and use a first classifier, offline"
	@echo "make test      the tests, in minutes"
	@echo "make test-all  the slow ones too; REGRAFT_DATA=FOLDER names real photographs for those that want them"
	@echo "make check     formatting, linter, types"
	@echo "make bench     regraft against other libraries, hours; REGRAFT_DATA and REGRAFT_WEIGHTS as in benchmarks/README.md,"
	@echo "               REPEATS=1 for one run of each"
	@echo "make accuracy  the table of docs/accuracy.md, hours; REGRAFT_DATA and REGRAFT_WEIGHTS as well"

setup: $(READY)

# torch first and pinned: otherwise pip would choose a build of its own, with gigabytes for GPUs that are not there.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "regraft needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/regraft demo -o demo

test: $(READY)
	$(BIN)/python -m pytest -n auto

test-all: $(READY)
	$(BIN)/python -m pytest -n auto -m ''

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,bench]'
	@touch $(PEERS)

bench: $(PEERS)
	@mkdir -p $(dir $(RESULTS))
	failed=0; for script in $(filter-out benchmarks/accuracy.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$script -o $(RESULTS) $(if $(REPEATS),--repeats $(REPEATS)) || failed=1; done; exit $$failed

accuracy: $(READY)
	$(BIN)/python benchmarks/accuracy.py

clean:
	rm -rf $(VENV) demo build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
