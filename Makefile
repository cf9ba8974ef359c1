# `make demo` and `make test` need Python 3.11 or newer, git and make, and nothing else.
# All paths are relative, so that the folder may be called anything, spaces included.

.DEFAULT_GOAL := help
.PHONY: help install demo ui test test-slow lint format types lock clean

INSTALLED := .venv/.installed
UI_PORT ?= 5000
PYTEST_FLAGS ?=

# dvc and the stages that it starts find the tools of the environment by name.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## Make .venv with the pinned packages. Name a Python with PYTHON=...

$(INSTALLED): requirements.lock requirements-uv.lock pyproject.toml
	@.venv/bin/python -c 'import pip' 2>/dev/null || sh scripts/make-venv.sh $(if $(PYTHON),"$(PYTHON)")
	@echo "Installing the pinned packages into .venv; the first time this downloads a few GB."
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
	@.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## Run the whole pipeline on synthetic images, and print the comparison.
	@git rev-parse --git-dir >/dev/null 2>&1 || dvc config --local core.no_scm true
	@dvc repro
	@.venv/bin/raregrade show comparison --registered registered.json

ui: $(INSTALLED) ## Open the runs in MLflow's UI, on port UI_PORT (5000).
	@uri=$$(python -c 'from raregrade.config import load_params; print(load_params().tracking.uri)') && \
	case "$$uri" in \
	http*) echo "The runs are kept by the server at $$uri: open it in a browser." ;; \
	none) echo "tracking.uri is none in params.yaml: nothing is logged." ;; \
	*) echo "Open http://127.0.0.1:$(UI_PORT)/#/experiments/1/runs in a browser; Ctrl-C stops the server."; \
	   MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri "$$uri" --port $(UI_PORT) --workers 1 ;; \
	esac

test: $(INSTALLED) ## Run the fast tests.
	@pytest -m "not slow" $(PYTEST_FLAGS)

test-slow: $(INSTALLED) ## Run the slow tests.
	@pytest -m slow $(PYTEST_FLAGS)

lint: $(INSTALLED) ## Check style, format and the direction of imports.
	@ruff check .
	@ruff format --check .
	@lint-imports

format: $(INSTALLED) ## Format the code and mend what can be mended.
	@ruff check --fix .
	@ruff format .

types: $(INSTALLED) ## Check the types.
	@mypy

lock: $(INSTALLED) ## Resolve the pinned packages anew, within pyproject.toml.
	@uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --output-file requirements.lock
	@.venv/bin/uv --version | sed 's/^uv \([0-9.]*\).*/uv==\1/' | uv pip compile - --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --output-file requirements-uv.lock

clean: ## Remove caches and build leftovers; never data, models or runs.
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find src tests components pipelines -name __pycache__ -type d -prune -exec rm -rf {} +
