# `make demo` and `make test` work on a fresh machine that has only Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-all test-wheel test-cluster test-triton smoke lint bench gpu-check docs golden
.DEFAULT_GOAL := help

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(STAMP)  ## make the virtual environment and install what is missing

demo: setup  ## generate, train, score and draw, about four minutes on two cores
	$(BIN)/slotssm demo

test: setup  ## the test suite without the slow tests, a few minutes
	$(PYTEST) -m "not slow"

test-all: setup  ## the whole test suite
	$(PYTEST)

test-wheel: setup  ## build and install the wheel in an environment of its own, and run the quick start there
	$(BIN)/python -m pytest -n 0 -q -m slow tests/test_package.py

test-cluster: setup  ## cells in a real Slurm cluster on this machine (root, slurm-wlm and munge); skipped elsewhere
	$(BIN)/python -m pytest -n 0 -q tests/cluster

test-triton: setup  ## the GPU kernels, interpreted on the CPU (package triton); skipped elsewhere
	TRITON_INTERPRET=1 $(PYTEST) -q tests/ops/interpreted

smoke: setup  ## generate, train, resume, evaluate and draw tiny runs through the installed command
	PATH="$(abspath $(BIN)):$$PATH" bash tests/smoke.sh

lint: setup  ## style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup  ## benchmarks, side by side; run them on an idle machine
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/generate.py --scenes --episodes 500
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/probe.py

gpu-check: setup  ## check and measure everything on a CUDA GPU; skipped elsewhere
	$(BIN)/python benchmarks/gpu_check.py --json gpu-check.json

docs: setup  ## rewrite the generated parts of the documentation
	$(BIN)/python docs/build_cli_reference.py
	$(BIN)/python docs/build_configuration_reference.py

golden: setup docs  ## rewrite the golden files; review the difference
	$(BIN)/python tests/golden/rewrite.py
