# Two commands: `make demo` runs a real search, `make test` checks everything.
# Both make .venv where it is missing; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FRAME := pyproject.toml constraints.txt

.PHONY: demo test slow clean

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
