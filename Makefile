# Every target makes .venv itself when it is missing; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUICKSTART ?= outputs/quickstart

.PHONY: install quickstart test test-fast lint type bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flowexp needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

install: $(VENV)/.installed

quickstart: install
	$(BIN)/flowexp train experiment=fashion10k/quickstart dirs.run=$(QUICKSTART)
	$(BIN)/flowexp eval run=$(QUICKSTART) num_samples=2000

test: lint type
	$(BIN)/python -m pytest -n 3 --dist worksteal --durations=25 --durations-min=5

test-fast: install
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow and not e2e"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict conf .yamllint.yaml

type: install
	$(BIN)/mypy

bench: install
	$(BIN)/python scripts/bench_loop.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
