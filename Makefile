# make demo and make test are all a newcomer needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint types docs bench setup clean

demo: setup  ## the main job on the embedded digits: table, results.json, report.html
	$(BIN)/compatlearn demo --out runs/demo

test: setup  ## all tests, one process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: lint types docs test  ## what CI runs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

docs: setup  ## the pages and the API reference, in site/; a broken link is an error
	$(BIN)/zensical build --strict

bench: setup  ## ratios against what a user would do instead, and the pictures of docs/benchmarks.md
	mkdir -p runs/bench
	$(BIN)/python benchmarks/pseudo.py --json-file runs/bench/pseudo.json
	$(BIN)/python benchmarks/search.py --sweep --json-file runs/bench/search.json
	$(BIN)/python benchmarks/features.py --json-file runs/bench/features.json
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/cluster.py --json runs/bench/cluster.json
	$(BIN)/python benchmarks/plot.py runs/bench docs/images/benchmarks.png

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "compatlearn needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	touch $@

clean:
	rm -rf $(VENV) runs site
