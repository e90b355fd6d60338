# Each target does its own set-up. PYTHON names the interpreter that makes the virtual environment (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test test-all check clean

help:
	@echo "make setup     a virtual environment in $(VENV) with regraft and its tools"
	@echo "make demo      train, evaluate and use a first classifier, offline"
	@echo "make test      the tests, in minutes"
	@echo "make test-all  the slow ones too; REGRAFT_DATA=FOLDER names real photographs for those that want them"
	@echo "make check     formatting, linter, types"

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
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -m ''

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
