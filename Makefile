# Needs Python >= 3.11 with venv, and make. Everything else goes into .venv.
#   make install   everything that the commands need, into .venv
#   make demo      train a small attention network on handwritten digits
#   make test      formatting, lint, types, and the tests of everything
#   make test-all  the same with the tests that take long, and all faults
#   make faults    950 faults on purpose, counted, in 20 minutes; goes on where it was stopped
#   make docs      build the documentation site, build/site/index.html
#   make dist      build wheel and sdist, and try each in an empty environment; needs a network
#   make audit     known vulnerabilities of the packages in requirements.lock; needs a network
#   make lock      resolve the versions of requirements.lock again
# README.md and CONTRIBUTING.md say how long they take.

PYTHON ?= python3
BIN := .venv/bin
# Python keeps what it compiles, whatever the environment says: processes start a quarter sooner.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo check test test-all faults docs dist audit lock clean

install: .venv/installed

demo: .venv/installed
	$(BIN)/python main.py --config=configs/digits.py --workdir=runs/digits

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest

test-all: check
	$(BIN)/pytest -m ''
	$(MAKE) faults

faults: .venv/installed
	$(BIN)/pytest tests/faults --counted --dist=load

docs: .venv/docs-installed
	$(BIN)/python docs/make_configuration.py
	$(BIN)/zensical build --clean --strict

# Each of the two is installed into an empty environment, and trains.
dist: .venv/installed
	rm -rf build dist
	PATH="$(CURDIR)/$(BIN):$$PATH" uv build --quiet --out-dir dist
	PATH="$(CURDIR)/$(BIN):$$PATH" uvx twine check --strict dist/*.whl dist/*.tar.gz
	for file in dist/*.whl dist/*.tar.gz; do $(MAKE) --no-print-directory try DIST=$$file || exit 1; done

.PHONY: try
try:
	rm -rf dist/env dist/run && $(PYTHON) -m venv dist/env
	PATH="$(CURDIR)/$(BIN):$$PATH" && if uv --version >/dev/null 2>&1; then \
		uv pip install --quiet --python dist/env/bin/python --constraint requirements.lock $(DIST); \
	else \
		dist/env/bin/python -m pip install --quiet --constraint requirements.lock $(DIST); \
	fi
	cd dist && env/bin/rattn --version && env/bin/rattn --help >/dev/null && \
		env/bin/rattn configs digits >/dev/null && \
		env/bin/rattn train --config=digits --workdir=run --config.num_train_steps=10 && \
		env/bin/rattn evaluate --workdir=run

# uv installs in seconds what pip installs in a minute; either gives the same versions.
.venv/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed; $(PYTHON) is %d.%d. Try make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	@if command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv; then \
		export PATH="$(CURDIR)/$(BIN):$$PATH" && \
		uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[dev]'; \
	else \
		$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'; \
	fi
	@touch $@

.venv/docs-installed: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" && if uv --version >/dev/null 2>&1; then \
		uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[docs]'; \
	else \
		$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[docs]'; \
	fi
	@touch $@

audit: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" uvx pip-audit --requirement requirements.lock --no-deps --disable-pip

lock: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" uv pip compile --quiet --upgrade --universal --extra dev --extra docs \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv
