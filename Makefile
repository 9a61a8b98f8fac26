# Everything here needs Python 3.11 or later, make and git, and sets up the rest by itself:
#
#   make demo     the twelve handlers on both engines, on real servers; documents in build/demo, jobs in the dashboard
#   make test     the tests, without those that soak or repeat
#   make test-long  those; `make test-all` is both
#   make dev      Postgres, Temporal, workers, beat and the dashboard, until Ctrl-C
#   make soak     ten minutes of mixed work while everything breaks; SOAK_ARGS="--minutes 2 --jobs 20000 --seed 5"
#   make screenshots  takes the pictures of docs/pictures anew
#   make bench    how fast it is, beside other queues (an hour; ROUNDS=5 ONLY=publish,drain SYSTEMS=jobbridge,celery_redis)
#   make docs     the documentation as a site, in build/site
#   make conformance  writes docs/conformance.md anew
#   make histories  records what workflows of this version leave at Temporal, to be replayed by all later ones
#   make lint     format, lint, types, import contracts
#   make ci       what continuous integration runs
#
# PYTHON=/path/to/python3.12 chooses another interpreter, JOBS=4 the number of test processes.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= auto
PYTEST_ARGS ?=
ROUNDS ?= 5
ONLY ?=
SYSTEMS ?=
SOAK_ARGS ?=

# The environment holds absolute paths: a checkout that was moved needs a new one.
HERE := $(shell printf '%s' "$(CURDIR)" | cksum | cut -d' ' -f1)
READY := $(VENV)/.ready-$(HERE)

.PHONY: help demo test test-long test-all soak chromium servers monitors django6 screenshots docs conformance histories bench bench-peers dev lint format types contracts ci wheel clean setup

help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

setup: $(READY) chromium servers monitors django6

# What the browser tests need, and nothing else does.
chromium:
	@.ci/chromium

# What some tests put in front of Postgres, where tools of others keep their locks, and brokers that jobs are taken over from.
servers:
	@.ci/server pgbouncer
	@.ci/server redis-server
	@.ci/server rabbitmq-server

# Flower and celery-exporter, in an environment of their own: see pyproject.toml.
monitors: build/monitors/.ready

build/monitors/.ready: $(READY)
	@UV_PROJECT_ENVIRONMENT=build/monitors .ci/uv sync --quiet --locked --no-dev --extra temporal --group monitors --python $(BIN)/python
	@touch $@

# Django 6, on a Python that it takes: see .ci/django6.
django6: build/django6/.ready

build/django6/.ready: $(READY) .ci/django6
	@.ci/django6 build/django6

$(READY): pyproject.toml uv.lock .ci/bootstrap .ci/uv
	@PYTHON="$(PYTHON)" UV_VERSION=$(UV_VERSION) .ci/bootstrap $(VENV)
	@touch $@

demo: $(READY)
	$(BIN)/jobbridge demo

soak: $(READY)
	$(BIN)/python -m tests.soak $(SOAK_ARGS)

# Strictly: a link that leads nowhere, or a page that nothing leads to, is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

conformance: $(READY)
	$(BIN)/python -m tests.conformance

histories: $(READY)
	$(BIN)/python -m tests.integration.temporal.record_histories

PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses=4

test: $(READY) chromium servers
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-long: $(READY) chromium servers monitors django6
	$(PYTEST) -m long $(PYTEST_ARGS)

test-all: $(READY) chromium servers monitors django6
	$(PYTEST) $(PYTEST_ARGS)

# What others' queues need; what cannot be had is left out of the benchmark.
bench-peers: $(READY)
	@.ci/bench-servers
	@.ci/bench-peers build/bench

bench: bench-peers
	$(BIN)/python -m benchmarks --rounds $(ROUNDS) --only "$(ONLY)" --systems "$(SYSTEMS)"

screenshots: $(READY) chromium
	$(BIN)/python -m tests.browser.screenshots

dev: $(READY)
	$(BIN)/jobbridge dev

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types contracts

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports --no-cache

wheel: $(READY)
	.ci/uv build --wheel --out-dir dist

ci:
	.ci/run

clean:
	rm -rf $(VENV) .uv build dist .mypy_cache .ruff_cache .pytest_cache
