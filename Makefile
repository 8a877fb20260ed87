# `make demo` and `make test` do all the set-up; the second time there is nothing to set up. See `make help`.
#
#   PYTHON   the interpreter to make .venv with: 3.11 or newer; without it one is looked for on the path
#   ARGS     more arguments for the command, as in: make test ARGS="-k store"
#
# All paths here are relative, so the folder may lie anywhere and its name may hold blanks.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test bench docs lint format typecheck clean

PYTHON ?=
ARGS ?=
BIN := .venv/bin
TORCH := torch==2.13.0
# A new stamp is due when the folder was moved or the requirements have changed.
INSTALLED := .venv/.installed-$(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' '-')

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-18s%s\n", $$1, $$2 }'

install: $(INSTALLED) ## create .venv with conpet and everything the other targets need

demo: $(INSTALLED) ## teach a language model 150 intents as ten tasks, one after another
	@$(BIN)/conpet demo $(ARGS)

test: $(INSTALLED) ## run all tests, one process per core
	@$(BIN)/python -m pytest --numprocesses logical --dist worksteal $(ARGS)

bench: $(INSTALLED) ## measure speed against plain Transformers and PEFT (docs/benchmarks/performance.md)
	@$(BIN)/python -m benchmarks.speed $(ARGS)

docs: $(INSTALLED) ## build the documentation site into build/docs; warnings and broken links are errors
	@$(BIN)/python -m sphinx -E -W --keep-going --quiet -b html docs build/docs $(ARGS)
	@echo "build/docs/index.html"

lint: $(INSTALLED) ## check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(INSTALLED) ## format the code
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

typecheck: $(INSTALLED) ## check types
	$(BIN)/python -m mypy $(ARGS)

clean: ## remove generated files (keeps workspaces and downloaded models)
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# torch is named first, and by its version, so that pip takes the build at hand that suits the machine.
$(INSTALLED):
	@set -e; \
	new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	if ! new_enough $(BIN)/python || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		python='$(PYTHON)'; \
		for found in python3 python3.13 python3.12 python3.11 python3.14 python; do \
			if test -z "$$python" && new_enough "$$found"; then python=$$found; fi; \
		done; \
		: "$${python:=python3}"; \
		if ! new_enough "$$python"; then \
			found=$$("$$python" --version 2>&1 | grep '^Python') || found='not a Python'; \
			echo "conpet needs Python 3.11 or newer; $$python is $$found." >&2; \
			echo "Install one, or name it: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.11" >&2; \
			exit 1; \
		fi; \
		"$$python" -m venv --clear .venv; \
	fi; \
	rm -f .venv/.installed-*; \
	echo "Setting up .venv with $$($(BIN)/python --version); this takes a few minutes, once." >&2; \
	install="$(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt"; \
	$$install $(TORCH) setuptools; \
	$$install --no-build-isolation --editable '.[dev,docs,parquet,excel,zst,tune,bench,serve,client,audit,mlflow,browser]'; \
	touch '$@'
