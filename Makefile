# make train   from nothing to a trained, scored, registered model (phantom cases)
# make test    the tests; make test-slow runs the long ones too
# make test-backends  the tests on all three Keras backends, in .venv-backends with JAX; elsewhere they skip what is missing
# make browser the browser that some tests open reports in

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BACKENDS := .venv-backends

.PHONY: install train test test-slow test-backends lint browser clean

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

# JAX in an environment of its own, which finds everything else in .venv.
$(BACKENDS)/installed: $(VENV)/installed requirements-backends.txt
	$(BIN)/python -m venv $(BACKENDS)
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> "$$($(BACKENDS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	$(BACKENDS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-backends.txt
	touch $@

test-backends: $(BACKENDS)/installed
	$(BACKENDS)/bin/python -m pytest -k "backend or devices" tests/models tests/training

# Debian's chromium, in which tests open the report; without it they skip. Needs root.
browser:
	command -v chromium && command -v chromedriver || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium chromium-driver; }

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(BACKENDS) build dist *.egg-info .pytest_cache .ruff_cache
