# Every target does all its own set-up: a virtual environment in .venv, with uv where it is at hand, else with pip.
.PHONY: demo test lint bench clean help
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

help: ## What there is to make
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

demo: $(VENV)/.stamp-demo ## Check the embedded sandbox, healthy and faulty, and write out/report.html
	@$(BIN)/roadworthy demo

test: $(VENV)/.stamp-dev ## Run every test
	@$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(VENV)/.stamp-dev ## Formatting, lint, types, and the layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.stamp-dev ## Measure; figures go to the terminal
	@for bench in bench/*.py; do \
	  case "$$(basename "$$bench")" in _*) continue;; esac; \
	  echo "== $$bench"; $(BIN)/python "$$bench"; \
	done

clean: ## Remove everything that make or the tools have written
	@rm -rf $(VENV) build dist out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  command -v "$$python" >/dev/null 2>&1 || continue; \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if "$$python" -c 'import ensurepip, venv' 2>/dev/null && "$$python" -m venv $(VENV); then exit 0; fi; \
	  if command -v uv >/dev/null 2>&1 && uv venv --quiet --python "$$python" $(VENV); then exit 0; fi; \
	  without_venv="$$python"; \
	done; \
	if [ -n "$${without_venv:-}" ]; then \
	  echo "make: $$without_venv cannot make virtual environments. Install its venv module (Debian, Ubuntu: apt-get install python3-venv) or uv." >&2; \
	else \
	  echo "make: no Python 3.11 or newer found (tried python3, python3.11 to python3.14). Install one, or name it: make PYTHON=/path/to/python ..." >&2; \
	fi; exit 1

# $(1): what to install
define install
if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python -e '$(1)'; \
else $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)'; fi
endef

LOCKS := conformance/clients/javascript/package-lock.json tests/javascript/package-lock.json

# Without npm the tests that need JavaScript packages are skipped, and say so.
$(VENV)/.stamp-dev: pyproject.toml $(LOCKS) | $(BIN)/python
	@echo "Setting up $(VENV) for development ..."
	@$(call install,.[dev])
	@if command -v npm >/dev/null 2>&1; then \
	  npm ci --prefix tests/javascript --ignore-scripts --no-audit --no-fund --silent; \
	  $(BIN)/python -m roadworthy.conformance.clients.install >/dev/null; \
	else echo "No npm: the tests of the JavaScript clients and of the published specifications will be skipped."; fi
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-demo: pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV) ..."
	@$(call install,.[server])
	@touch $@
