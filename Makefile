# `make demo` runs a real search, `make test` checks everything; both make .venv where it is missing, and
# PYTHON=python3.12 chooses another interpreter. `make gpu` installs nothing: it tests and measures on the GPU
# of this machine with the packages of PYTHON.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FRAME := pyproject.toml constraints.txt

.PHONY: demo test slow gpu clean

demo: $(VENV)/.demo-installed
	rm -rf runs/demo
	$(BIN)/pmlp search datasets/spambase.csv.gz --target type --space small --trials 2000 --max-epochs 9 --seed 0 --output runs/demo
	$(BIN)/pmlp leaderboard runs/demo --top 10

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -q -m slow

# Versions are whatever is there, so their warnings are not errors as in `make test`.
gpu:
	$(PYTHON) -m benchmarks.gpu --check
	$(PYTHON) -m pytest -q -W default -p no:cacheprovider tests/kernels tests/engine tests/benchmarks/test_gpu.py
	$(PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: $(FRAME) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.test-installed: $(FRAME) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	touch $@ $(VENV)/.demo-installed
