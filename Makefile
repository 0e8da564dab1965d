# make train   from nothing to a trained, scored, registered model (phantom cases)
# make test    the tests; make test-slow runs the long ones too
# make browser the browser that some tests open reports in

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install train test test-slow lint browser clean

install: $(VENV)/installed

$(VENV)/installed: requirements.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(shell grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

train: install
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . -e train --env-manager local --experiment-name kits_ml

test: install lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

test-slow: install
	$(BIN)/python -m pytest

# Debian's chromium, in which tests open the report; without it they skip. Needs root.
browser:
	command -v chromium && command -v chromedriver || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium chromium-driver; }

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
