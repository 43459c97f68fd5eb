# perfgate's task runner. Every target does its own set-up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A machine that has TensorRT keeps it: its .venv is laid over the system's packages, and nothing that the
# system has is installed again.
SYSTEM := $(shell $(PYTHON) -c "import tensorrt" 2>/dev/null && echo --system-site-packages)
# ONNX Runtime converts graphs and gives the reference answers, also where TensorRT runs them.
EXTRAS := $(if $(SYSTEM),$(shell $(PYTHON) -c "import onnxruntime" 2>/dev/null || echo cpu),cpu)
PYTEST ?= $(BIN)/python -m pytest

.PHONY: help gate test lint format clean
.DEFAULT_GOAL := help

help: ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

gate: $(VENV)/gate.stamp ## Build, measure and gate models/; report in perfgate-out/. ARGS go to perfgate run.
	$(BIN)/perfgate run $(ARGS)

test: $(VENV)/test.stamp ## Run the tests (GPU tests are skipped where there is no GPU). ARGS go to pytest.
	$(PYTEST) $(ARGS)

lint: $(VENV)/test.stamp ## ruff, mypy --strict, and the import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/test.stamp ## Format the code, and fix what can be fixed.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv, generated models, engines and reports.
	rm -rf $(VENV) .perfgate perfgate-out

$(BIN)/python:
	$(PYTHON) -m venv $(SYSTEM) $(VENV)

$(VENV)/gate.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(if $(EXTRAS),[$(EXTRAS)])"
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(if $(EXTRAS),$(EXTRAS)$(,))test,dev]"
	@touch $@ $(VENV)/gate.stamp

, := ,
