# Every target makes .venv itself when it is missing; PYTHON chooses the interpreter (3.11 or newer).
# TORCH=cpu installs the CPU build of torch, from TORCH_INDEX or, if that is empty, from pip's configured
# index. It only matters when .venv is made, so run `make clean` before changing it.
PYTHON ?= python3
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/bin
QUICKSTART ?= outputs/quickstart

SIZE := $(if $(TORCH),less than 2 GB on disk (torch for the CPU),2 to 3 minutes and 6.2 GB on disk with the CUDA libraries of Linux; TORCH=cpu needs less than 2 GB)
define CPU_TORCH
$(BIN)/python -m pip install --constraint constraints.txt --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	@$(BIN)/python -c 'import importlib.util, pathlib, runpy, sys; sys.exit(runpy.run_path(str(pathlib.Path(importlib.util.find_spec("torch").origin).with_name("version.py")))["cuda"] is not None)' || { echo "$(VENV) has a torch with CUDA: run make clean, then make TORCH=cpu TORCH_INDEX=URL ... with an index that has the CPU build"; exit 1; }
endef

.PHONY: install quickstart test test-fast lint type bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flowexp needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@case "$(TORCH)" in ""|cpu) ;; *) echo "TORCH=$(TORCH) is unknown: TORCH=cpu installs the CPU build of torch; without it pip chooses"; exit 1;; esac
	@echo "Installing flowexp and its dependencies into $(VENV): $(SIZE)."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(if $(TORCH),$(CPU_TORCH))
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	@touch $@
	@echo "Installed. To use the command flowexp in this shell: . $(BIN)/activate"

install: $(VENV)/.installed

quickstart: install
	@echo "Training for about 3 minutes and scoring for about 1 on two idle cores; results are written to $(QUICKSTART)."
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
