# Each target does its own set-up. PYTHON names the interpreter that makes the virtual environment (3.11 to 3.13),
# TORCH_INDEX the package index that PyTorch comes from, if not the usual one.
VENV := .venv
ifeq ($(OS),Windows_NT)
PYTHON ?= python
SCRIPTS := Scripts
else
PYTHON ?= python3
SCRIPTS := bin
endif
BIN := $(VENV)/$(SCRIPTS)
PIP = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
DOCS := $(VENV)/.docs
LIGHT := $(VENV)-light
RESULTS := build/bench.jsonl
SITE := build/site

.PHONY: help setup demo test test-all test-light check docs bench accuracy clean

help:
	@echo "make setup       a virtual environment in $(VENV) with regraft and its tools;"
	@echo "                 TORCH_INDEX=URL takes PyTorch from there, PYTHON=python3.13 makes it with that interpreter"
	@echo "make demo        train, evaluate and use a first classifier, offline"
	@echo "make test        the tests, in minutes"
	@echo "make test-all    the slow ones too; REGRAFT_DATA=FOLDER names real photographs for those that want them"
	@echo "make test-light  those that need no PyTorch, in seconds, in an environment of their own: PYTHON=python3.13"
	@echo "make check       formatting, linter, types"
	@echo "make docs        the site, in $(SITE)"
	@echo "make bench       regraft against other libraries, hours; REGRAFT_DATA and REGRAFT_WEIGHTS as in"
	@echo "                 benchmarks/README.md, REPEATS=1 for one run of each"
	@echo "make accuracy    the table of docs/accuracy.md, hours; REGRAFT_DATA and REGRAFT_WEIGHTS as well"

setup: $(READY)

# PyTorch first, pinned, both halves from one index: otherwise pip would choose builds of its own, with gigabytes for
# GPUs that are not there, or two that don't fit each other.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "regraft needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(BIN)/python $(PIP) --editable '.[test,check]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/regraft demo -o demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal -m ''

# Another Python, without PyTorch's gigabytes: the syntax of everything, the tests of the rooms that need none.
test-light:
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/$(SCRIPTS)/python $(PIP) cyclopts numpy pandas pillow pillow-heif platformdirs pytest pytest-xdist rich scikit-learn simplejpeg
	$(LIGHT)/$(SCRIPTS)/python -W error -m compileall -q src tests tools examples benchmarks
	PYTHONPATH=src $(LIGHT)/$(SCRIPTS)/python -m pytest -n auto $$(grep -rLE --include='test_*.py' '^ *(import|from) torch' tests/core tests/data) tests/test_words.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/words.py

$(DOCS): $(READY)
	$(BIN)/python $(PIP) --editable '.[docs]'
	@touch $(DOCS)

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(SITE)
	@echo "The site is in $(SITE)/index.html."

$(PEERS): $(READY)
	$(BIN)/python $(PIP) --editable '.[test,bench]'
	@touch $(PEERS)

bench: $(PEERS)
	@mkdir -p $(dir $(RESULTS))
	failed=0; for script in $(filter-out benchmarks/accuracy.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$script -o $(RESULTS) $(if $(REPEATS),--repeats $(REPEATS)) || failed=1; done; exit $$failed

accuracy: $(READY)
	$(BIN)/python benchmarks/accuracy.py

clean:
	rm -rf $(VENV) $(LIGHT) demo build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
