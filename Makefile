# Everything a developer runs. Needs Python 3.11 or newer and make; Java 17 and Maven for the real Kafka broker.

PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$each; break; }; done)
PACKAGES := schemas attribution rollup invoicing pipeline deploy
READY := .venv/ready
BIN := .venv/bin

# What a shell may carry that would send an installation, or an import, elsewhere.
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV VIRTUAL_ENV
export ONLY BENCH_JSON FUZZ_SECONDS SEED INVOICES

.PHONY: help setup demo up test check format bench fuzz faults metrics documents invoice-faults lock clean
.DEFAULT_GOAL := help

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install what requirements.lock names; PYTHON=… chooses the interpreter

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3' >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@touch $@

demo: $(READY) ## a month from call records to invoices, everything embedded; exit 0 if every count is right
	$(BIN)/python -m deploy.demo $(ARGUMENTS)

up: $(READY) ## the same stack kept running, addresses printed, until Ctrl-C
	$(BIN)/python -m deploy.up $(ARGUMENTS)

test: $(READY) ## all tests, on a real Postgres, and Apache Kafka where Java and Maven are at hand
	$(BIN)/pytest $(ARGUMENTS)

check: $(READY) ## formatting, lint, types, who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES) tests
	$(BIN)/lint-imports

format: $(READY) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure; ONLY=ingest runs one part, BENCH_JSON=FILE writes the figures
	$(BIN)/python -m deploy.bench $(ARGUMENTS)

fuzz: $(READY) ## damaged messages against every format; FUZZ_SECONDS=600 runs longer, SEED=n repeats a run
	$(BIN)/python -m deploy.fuzz

metrics: $(READY) ## write deploy/metrics.md anew from the catalogue of metrics
	$(BIN)/python -m pipeline.metrics.documentation > deploy/metrics.md

documents: $(READY) ## write anew what is made from the code: schemas, settings, commands, metrics
	$(BIN)/python -m deploy.documents

invoice-faults: $(READY) ## one invoice per statement, whatever breaks; SEED=1 COUNT=2000 KILLS=50 (many minutes)
	$(BIN)/python -m deploy.invoice_faults --seed $(or $(SEED),1) --count $(or $(COUNT),2000) --kills $(or $(KILLS),50)

faults: $(READY) ## kills, frozen workers and outages on a real Kafka and Postgres; COUNT=200 kills, SEED=n plans the same again
	$(BIN)/python -m deploy.faults --seed $(or $(SEED),1) --count $(or $(COUNT),20) $(ARGUMENTS)

lock: ## write both lock files anew from pyproject.toml; ARGUMENTS=--upgrade takes newer versions
	@uv=$$(command -v uv) || { "$(PYTHON)" -m venv .run/uv && .run/uv/bin/python -m pip install --quiet uv && uv=.run/uv/bin/uv; }; \
	compile="$$uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header"; \
	$$compile --extra dev $(ARGUMENTS) --output-file requirements.lock pyproject.toml && \
	$$compile --constraint requirements.lock --output-file requirements-run.lock pyproject.toml

clean: ## remove the environment, caches and everything fetched or kept under .run
	rm -rf .venv .run build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
