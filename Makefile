# Every target sets up what it needs: a fresh machine needs only Python (3.11 or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all browser lint format bench figures clean

demo: $(READY)  ## seven methods on breast_cancer: a table and a picture, in about a minute
	$(BIN)/fedjax-lc figure demo --out demo
	cp demo/demo.png plot.png
	@echo "picture: plot.png"

test: $(READY)  ## the test suite
	$(BIN)/python -m pytest -m "not slow"

test-all: $(READY)  ## what `make test` leaves out: tests that repeat at length what a quicker one checks
	$(BIN)/python -m pytest -m slow

browser: $(READY)  ## a headless browser for the tests of the HTML report, which skip without one
	$(BIN)/python -m tests.browser

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## speed against honest baselines
	$(BIN)/fedjax-lc bench single
	$(BIN)/fedjax-lc bench sweep
	$(BIN)/fedjax-lc bench mcm
	$(BIN)/fedjax-lc bench neural
	$(BIN)/fedjax-lc bench feedback

figures: $(READY)  ## all figures of the papers; FEDJAX_LC_DATA names a folder of LibSVM files, else they are fetched
	$(BIN)/fedjax-lc figure locodl --jobs 2
	$(BIN)/fedjax-lc figure mcm --jobs 2
	$(BIN)/fedjax-lc figure savic --jobs 2
	$(BIN)/fedjax-lc figure fedopt --jobs 2
	$(BIN)/fedjax-lc figure liec --jobs 2

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("fedjax_lc needs Python 3.11 or later, found %d.%d: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) demo plot.png .mypy_cache .ruff_cache build dist *.egg-info
