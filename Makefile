# `make demo` runs a real search, `make test` checks everything; both create .venv where it is missing, and
# PYTHON=python3.12 chooses another interpreter. `make gpu` installs nothing: it tests and measures on the GPU
# of this machine with the packages of PYTHON.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
INPUTS := pyproject.toml constraints.txt

# Tests marked `alone` measure time or memory or start processes, so nothing may run beside them.
PYTEST := -m pytest -q
BESIDE_OTHERS := not slow and not alone

# Folders whose tests neither search nor start processes.
FAST_TESTS := $(addprefix tests/,data packing report selection space search/problem \
	test_bounds.py test_checks.py test_files.py test_layering.py test_memory.py test_optional.py test_signals.py test_style.py \
	kernels/test_activations.py kernels/test_losses.py kernels/test_modified_matmul.py)
ALONE := alone and not slow

MINUTES ?= 5
OUT ?= benchmarks/results

.PHONY: clean demo docs fuzz gpu lint notebooks run-tests slow soak test test-browser test-fast test-oldest

demo: $(VENV)/.demo-installed
	rm -rf runs/demo
	$(BIN)/pmlp search datasets/spambase.csv.gz --target type --space small --trials 2000 --max-epochs 9 --seed 0 --output runs/demo
	$(BIN)/pmlp leaderboard runs/demo --top 10

test: lint
	$(MAKE) --no-print-directory run-tests

test-fast: lint
	$(BIN)/python $(PYTEST) -n auto --dist worksteal -m "$(BESIDE_OTHERS)" $(FAST_TESTS)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The tests alone, with whatever is installed beside $(BIN)/python.
run-tests:
	$(BIN)/python $(PYTEST) -n auto --dist worksteal -m "$(BESIDE_OTHERS)"
	$(BIN)/python $(PYTEST) -m "$(ALONE)"

# Warnings of old versions are theirs, so they are not errors as in `make test`.
test-oldest: $(OLDEST)/.installed
	$(MAKE) --no-print-directory run-tests BIN=$(OLDEST)/bin PYTEST="$(PYTEST) -W default"

# Tests of pages in headless Chromium; a machine without a browser fails them.
test-browser: $(VENV)/.test-installed
	PMLP_REQUIRE_BROWSER=1 $(BIN)/python $(PYTEST) -m "browser and not slow" tests/report

# The documentation site in build/site; links and anchors are checked.
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Runs the notebooks of examples/ and stores their outputs.
notebooks: $(VENV)/.docs-installed
	cd examples && PYTHONWARNINGS=ignore $(abspath $(BIN))/jupyter execute --inplace *.ipynb

slow: $(VENV)/.test-installed
	$(BIN)/python $(PYTEST) -m slow

# Coverage-guided fuzzing of readers, search spaces and run directories, MINUTES each.
fuzz: $(VENV)/.fuzz-installed
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Generated tables, and searches with faults of the system, for MINUTES.
soak: $(VENV)/.test-installed
	$(BIN)/python -W ignore -m tests.faults.soak --minutes $(MINUTES)

# Independent stages, ten minutes in all; OUT is the folder of the results.
gpu:
	@$(PYTHON) -m benchmarks.gpu_stages --out $(OUT)

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Not an editable installation: that would compile the loops at the first search instead of here.
$(VENV)/.demo-installed: $(INPUTS) setup.py $(shell find parallelmlp_search -name '*.py') | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt .
	touch $@

$(VENV)/.test-installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	touch $@ $(VENV)/.demo-installed

$(VENV)/.docs-installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.fuzz-installed: $(INPUTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet -c constraints-oldest.txt -e '.[test]'
	touch $@
