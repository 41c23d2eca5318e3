PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo label-demo test test-all check clean

# Handwritten digits that come with scikit-learn: no download.
demo: .venv/installed
	$(BIN)/python main.py --config digits.yaml

# You label the same digits in a browser, beside simulated annotators: open the link that it prints.
label-demo: .venv/installed
	$(BIN)/python main.py --config label-demo.yaml

# What needs neither GPU nor network.
test: check
	$(BIN)/python -m pytest -n 3 -m "not gpu and not slow"

# And what takes long.
test-all: check
	$(BIN)/python -m pytest -n 3 -m "not gpu"

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Installed once, and again only when what is needed has changed.
.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
