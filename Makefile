# `make demo` and `make test` need Python 3.11 or newer, git and make, and nothing else.
# All paths are relative, so that the folder may be called anything, spaces included.

.DEFAULT_GOAL := help
.PHONY: help install demo register ui image test test-slow mutants lint format types lock lock-image clean

INSTALLED := .venv/.installed
UI_PORT ?= 5000
PYTEST_FLAGS ?=
# For `make mutants`: how many run beside each other, and which (names or patterns; all of them when empty).
JOBS ?= 1
ONLY ?=
# Most of a test is a process that starts: a process per core, but few enough for the memory. The tests of a file stay together.
WORKERS := -n logical --maxprocesses 4 --dist loadfile
# For `make image`: podman or docker; the repository and tag for a cluster; where to take torch from (infra/docker/README.md).
ENGINE ?=
IMAGE ?=
IMAGE_TAG ?=
TORCH_INDEX ?=

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
	@dvc repro register/dvc.yaml
	@.venv/bin/raregrade show comparison --registered registered.json

register: $(INSTALLED) ## Bring the comparison up to date, and take its winner through the gate into the registry.
	@dvc repro register/dvc.yaml

ui: $(INSTALLED) ## Open the runs in MLflow's UI, on port UI_PORT (5000).
	@raregrade ui --port $(UI_PORT)

image: ## Build the container image with podman or Docker (ENGINE=, IMAGE=, IMAGE_TAG=, TORCH_INDEX=).
	@python3 infra/docker/build.py --engine "$(ENGINE)" --name "$(IMAGE)" --tag "$(IMAGE_TAG)" --torch-index "$(TORCH_INDEX)"

test: $(INSTALLED) ## Run the fast tests.
	@pytest -m "not slow" $(WORKERS) $(PYTEST_FLAGS)

test-slow: $(INSTALLED) ## Run the slow tests.
	@pytest -m slow $(WORKERS) $(PYTEST_FLAGS)

mutants: $(INSTALLED) ## Break the code in many small ways, one at a time: tests must notice each (JOBS=, ONLY=).
	@python scripts/mutants.py --jobs $(JOBS) $(if $(ONLY),--only $(foreach name,$(ONLY),'$(name)'))

lint: $(INSTALLED) ## Check style, format and the direction of imports.
	@ruff check .
	@ruff format --check .
	@lint-imports

format: $(INSTALLED) ## Format the code and mend what can be mended.
	@ruff check --fix .
	@ruff format .

types: $(INSTALLED) ## Check the types.
	@mypy

LOCKED := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: $(INSTALLED) ## Resolve the pinned packages anew, within pyproject.toml.
	@uv pip compile pyproject.toml --all-extras --group dev $(LOCKED) --output-file requirements.lock >/dev/null
	@.venv/bin/uv --version | sed 's/^uv \([0-9.]*\).*/uv==\1/' | \
		uv pip compile - $(LOCKED) --output-file requirements-uv.lock >/dev/null
	@$(MAKE) --no-print-directory lock-image

# kfp alone, without what it asks for: all that runs of it in a container is its executor, which needs nothing else.
lock-image: $(INSTALLED) ## Write the locks of the container image, in the versions of requirements.lock.
	@uv pip compile pyproject.toml --extra tracking --extra data --extra tuning --extra losses $(LOCKED) \
		--constraints requirements.lock --output-file requirements-image.lock >/dev/null
	@grep -oE '^kfp==[^ ;\\]+' requirements.lock | \
		uv pip compile - --no-deps $(LOCKED) --constraints requirements.lock >> requirements-image.lock
	@echo hatchling | \
		uv pip compile - $(LOCKED) --constraints requirements.lock --output-file requirements-build.lock >/dev/null

clean: ## Remove caches and build leftovers; never data, models or runs.
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find src tests components pipelines -name __pycache__ -type d -prune -exec rm -rf {} +
