# The two commands a user needs are `make serve` and `make test`; both install what is missing.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# Each is run to know it: a name on the PATH can be an idle shim, and python3 any version.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
# Which torch: empty for what pip finds by itself (CUDA on Linux), or TORCH=cpu, TORCH=cu126.
TORCH ?=
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
VENV := .venv
BIN := $(VENV)/bin
# Environments next to it, for one purpose each.
VENVS := .venvs
# Two processes; tests that compute with all cores stay in one of them (tests/conftest.py).
WORKERS := -n 2 --dist loadgroup
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP := $(INSTALL) --constraint constraints.txt
# Tests start hundreds of processes; without bytecode each would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=
# A stamp per installation: the second start asks no package index for anything. It bears the
# name of the torch that was asked for, so that asking for another one installs that.
STAMP := $(VENV)/.installed$(TORCH:%=-%)

.PHONY: help serve cluster wheel test test-long test-fast test-versions drill chaos hostile clean-room check lint types generated words format install clean

help:  ## List what can be made.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

serve: $(STAMP)  ## Start the service on 127.0.0.1:8000 with the bundled demo model.
	$(BIN)/python -m service serve

cluster: $(VENV)/.installed-ray  ## Start the service with an engine on a Ray cluster, all on this machine.
	$(BIN)/python -m scripts.cluster.local

# Old modules in build would go into the wheel; nothing of the engine is needed to make one.
wheel: $(VENVS)/wheel/bin/python  ## Build the wheel, with the demo model, into dist.
	@rm -rf build dist/sd_api-*.whl
	$(VENVS)/wheel/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@rm -rf build
	@echo "Start it with:  uvx --from '$$(ls dist/sd_api-*.whl)[engine]' sd-api"

$(VENVS)/wheel/bin/python:
	@$(PYTHON) -m venv $(VENVS)/wheel

test: $(VENV)/.installed-test  ## Run the tests: every kind of them, in minutes.
	$(BIN)/python -m pytest $(WORKERS)

test-long: $(VENV)/.installed-test  ## Run the tests that take longer.
	@# One run, so that no process waits for the other's last file; other requests than make test.
	$(BIN)/python -m pytest $(WORKERS) -m "(long or fuzz) and not matrix" \
		--fuzz-cases $(or $(FUZZ_CASES),2000) --fuzz-seed 2

test-fast: $(VENV)/.installed-test  ## Run the tests that load no model.
	$(BIN)/python -m pytest $(WORKERS) tests/unit --ignore=tests/unit/diffusion --ignore=tests/unit/models \
		--ignore=tests/unit/demo

test-versions: constraints.txt pyproject.toml  ## Run what needs no torch on every other Python installed.
	PYTHON=$(PYTHON) scripts/test_versions.sh

drill: $(VENV)/.installed-test  ## Inject faults and watch every alert fire, arrive and resolve.
	$(BIN)/python -m tests.drills.monitoring

chaos: $(VENV)/.installed-test  ## Kill engine and service under load and see that nothing is lost.
	$(BIN)/python -m tests.drills.chaos

hostile: $(VENV)/.installed-test  ## Attack the service for five minutes and see what other clients notice.
	$(BIN)/python -m tests.drills.hostile

clean-room: $(VENV)/.installed-test  ## Carry out the Dockerfile without a container engine (as root).
	$(BIN)/python -m tests.support.clean_room

# Grafana's component libraries, which draw the dashboards (once, 650 MB).
.render/installed: scripts/render/package-lock.json $(VENV)/.installed-test
	$(BIN)/python -m scripts.render.bundle

check: lint types generated words  ## Check style, types and generated files.

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-test
	$(BIN)/mypy

generated: $(VENV)/.installed-test
	$(BIN)/python -m dashboards.generate --check
	$(BIN)/python -m alerts.generate --check
	$(BIN)/python -m scripts.settings_table --check
	$(BIN)/python -m scripts.api_tables --check
	$(BIN)/python -m scripts.observability_tables --check

words: $(VENV)/.installed-test
	$(BIN)/python -m scripts.plain_english

format: $(VENV)/.installed-test  ## Put the code into its standard form.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(STAMP)  ## Install without starting anything.

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUPPORTED)' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: https://www.python.org"; exit 1; }
	@# Without ensurepip, as on a bare Debian, venv leaves a folder with a Python and no pip.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV) (once; torch is large) ..."
	$(if $(TORCH),$(TORCH_FROM_ITS_INDEX))
	$(PIP) --editable '.[engine]'
	@# For CLIP's vocabulary, which single-file models lack: a data file, and no more, is read.
	$(PIP) --no-deps open_clip_torch
	@rm -f $(VENV)/.installed $(VENV)/.installed-*
	@touch $@

# torch alone: its index has few other packages, and not all in the versions of constraints.txt.
# What it needs comes with the rest, from the usual index. pip takes one build of a version for
# another, so it is told to install even when that version is there.
define TORCH_FROM_ITS_INDEX
@test "$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null)" \
	= "$(TORCH_VERSION)+$(TORCH)" || $(INSTALL) --no-deps --force-reinstall \
	--index-url https://download.pytorch.org/whl/$(TORCH) torch==$(TORCH_VERSION)
endef

$(VENV)/.installed-test: $(STAMP)
	$(PIP) --editable '.[engine,ray,tracing,benchmark,test,lint]'
	@touch $@

$(VENV)/.installed-ray: $(STAMP)
	$(PIP) --editable '.[engine,ray]'
	@touch $@

# Clients that the tests connect to the service: Python and npm packages, apart from our own.
CLIENTS := .venvs/clients
$(CLIENTS)/.installed: tests/clients/requirements.txt tests/clients/package-lock.json $(VENV)/.installed-test
	$(BIN)/python -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt
	@# It reads images without the window that its other packages draw.
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps sd-prompt-reader==1.3.5
	cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	cd $(CLIENTS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

clean:  ## Remove what was installed and built.
	rm -rf $(VENV) $(VENVS) .render build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
