# The two commands a user needs are `make serve` and `make test`; both install what is missing.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Where pip finds torch: empty for the default (CUDA on Linux), or TORCH=cpu, TORCH=cu126.
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
TORCH_INDEX := $(if $(TORCH),--index-url https://download.pytorch.org/whl/$(TORCH))

.PHONY: help serve test test-fast test-versions check lint types format install clean

help:  ## List what can be made.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

serve: $(VENV)/.installed  ## Start the service on 127.0.0.1:8000 with the bundled demo model.
	$(BIN)/python -m service serve

test: $(VENV)/.installed-test  ## Run the whole test suite.
	$(BIN)/python -m pytest

test-fast: $(VENV)/.installed-test  ## Run the tests that load no model.
	$(BIN)/python -m pytest tests/unit --ignore=tests/unit/diffusion --ignore=tests/unit/demo

test-versions: constraints.txt pyproject.toml  ## Run what needs no torch on every other Python installed.
	PYTHON=$(PYTHON) scripts/test_versions.sh

check: lint types  ## Check style and types.

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-test
	$(BIN)/mypy

format: $(VENV)/.installed-test  ## Put the code into its standard form.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(VENV)/.installed  ## Install without starting anything.

# A stamp per installation: the second start asks no package index for anything.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: https://www.python.org"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; torch is large) ..."
	@if [ -n "$(TORCH)" ]; then $(PIP) $(TORCH_INDEX) torch; fi
	$(PIP) --editable '.[engine]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[engine,test,lint]'
	@touch $@

clean:  ## Remove what was installed and built.
	rm -rf $(VENV) .venvs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
