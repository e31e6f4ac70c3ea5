# make demo   see it work        make test   the tests        make up   run it
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null)

ifdef UV
  MAKE_VENV = uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
  INSTALL   = uv pip install --quiet --python $(BIN)/python --constraint requirements.lock
else
  MAKE_VENV = $(PYTHON) -m venv $(VENV)
  INSTALL   = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
endif

.PHONY: demo up test test-page test-consumers check-operations lint bench faults lock clean

demo: $(VENV)/.installed
	@$(BIN)/onysoft-worker demo

up: $(VENV)/.installed
	@$(BIN)/onysoft-worker up

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 4 --dist load --maxschedchunk 2

# The operators' page in a real browser; needs a Chromium.
test-page: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/browser

# The receivers of docs/webhooks.md that are not Python; needs node and go, which compiles offline.
test-consumers: $(VENV)/.installed-dev
	@for each in node:nodejs go:golang-go; do command -v $${each%:*} >/dev/null \
	  || { echo "make test-consumers needs $${each%:*}: apt install $${each#*:}" >&2; exit 1; }; done
	CONSUMERS="node go" $(BIN)/python -m pytest tests/consumers/test_receivers.py

# The alert rules and the dashboard's queries; needs promtool.
check-operations:
	docs/operations/check.sh

# The tables of docs/failures.md, from the one in jobs/failures.py.
.PHONY: failures-page
failures-page: $(VENV)/.installed
	$(BIN)/python -m worker.failures_page

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/run.py

# What two workers make of a hostile gateway and of an account's limits: counts, bounds, and a status that tells.
faults: $(VENV)/.installed-dev
	$(BIN)/python bench/faults/run.py

# What a consumer of webhooks that fails, hangs or is gone does to the others, and how much goes to one at a time.
.PHONY: webhooks
webhooks: $(VENV)/.installed-dev
	$(BIN)/python bench/webhooks/run.py

# What is lost, stuck or paid twice while workers, Redis and the lines to gateway and receiver die: nothing is to be.
.PHONY: chaos
chaos: $(VENV)/.installed-dev
	$(BIN)/python bench/chaos/run.py

# Whether Redis grows with the jobs that have passed through, and what a backlog of 100,000 costs the others.
.PHONY: growth
growth: $(VENV)/.installed-dev
	$(BIN)/python bench/growth/run.py

# Renew the pins: everything the project and its tools need, exact, no addresses.
lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip | grep -v ' @ ' > requirements.lock

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "onysoft-worker needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making $(VENV)"; $(MAKE_VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml requirements.lock
	@echo "installing what the worker needs"; $(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"; $(INSTALL) --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
