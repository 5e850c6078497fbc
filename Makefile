# make demo: digits -> feature cache -> learning curves.   make test: the tests.   make lint: ruff and mypy.
# Each makes .venv first when it is missing. Needs Python 3.11 or newer, make and a package index.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
WORKERS := 2

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

.venv/installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "alfm needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@echo "Installing alfm and what its tests need into .venv: some minutes, and about 7 GB with CUDA's libraries"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --upgrade pip  # -qq: errors only
	@$(BIN)/python -m pip install -qq --editable '.[test]'
	@touch $@

demo: .venv/installed
	FEATURE_CACHE_DIR=$(DEMO)/features LOG_DIR=$(DEMO)/logs $(BIN)/python -m alfm.extract dataset=digits model=pixels
	FEATURE_CACHE_DIR=$(DEMO)/features LOG_DIR=$(DEMO)/logs $(BIN)/python -m alfm.al_train -m \
		query_strategy=random,margins,badge,typiclust,dropquery init_strategy=random iterations.n=20
	$(BIN)/python -m alfm.report $(DEMO)/logs --out $(DEMO)
	@echo "To type commands yourself, first: . $(BIN)/activate"

# threads that wait do not take the other worker's core
test: .venv/installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: .venv/installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf .venv $(DEMO) build *.egg-info
