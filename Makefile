# Every target sets up what it needs; only python3 (3.11 or newer) and make are expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test simulate mutants lint drill faults bench bench-check clean setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "replicator needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(READY)

demo: $(READY)
	$(BIN)/replicator demo $(ARGS)

test: $(READY)
	$(BIN)/pytest -n 4 --dist loadgroup -q $(ARGS)

SEEDS ?= 1000
FROM ?= 1
simulate: $(READY)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --from $(FROM) $(if $(TRACE),--trace $(TRACE))

mutants: $(READY)
	$(BIN)/python -m tests.simulation.mutants $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/tidy.py
	$(BIN)/python infra/terraform/check.py

drill: $(READY)
	PYTHONPATH=. $(ARGS) $(BIN)/chaos --no-version-check run chaos/region_loss.json

faults: $(READY)
	$(BIN)/python -m tests.fault_table $(ARGS)

PEERS := tests/benchmarks/peers/loop tests/benchmarks/peers/aws-lambda-stream

bench: $(READY) $(PEERS:=/.ready)
	mkdir -p build
	$(BIN)/python -m tests.benchmarks --json build/bench.json --plot build/bench.svg $(ARGS)

bench-check: $(READY)
	$(BIN)/python -m tests.benchmarks --check $(ARGS)

# The Node contenders are there when npm is; without them the bench says so.
tests/benchmarks/peers/%/.ready: tests/benchmarks/peers/%/package.json
	if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --no-package-lock --prefix $(@D); fi
	touch $@

clean:
	rm -rf $(PEERS:=/node_modules) $(PEERS:=/.ready)
	rm -rf $(VENV) .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
