# Everything starts on a bare machine: what is missing is installed, or named. `make help` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help setup demo test check contracts bench chaos audit up down status serve lock clean

# A Python for the scripts that run before .venv exists; looked for once, and only when a target needs it.
PYTHON ?= $(eval PYTHON := $$(shell deploy/local/python.sh))$(or $(PYTHON),$(error no Python found))
LOCAL = $(PYTHON) deploy/local
BIN := .venv/bin
HOME_DIR ?= .local
# More workers than cores: the tests wait for servers most of the time.
WORKERS ?= 4

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything for development in .venv (starts no server)
	@$(LOCAL)/install.py dev

demo: ## play one generation through, against the stand-in hub: its events and its MP4
	@$(LOCAL)/install.py demo
	@$(PYTHON) deploy/local/demo.py --home $(HOME_DIR)

test: setup ## bring the servers up and run all tests with coverage
	@$(LOCAL)/install.py tools
	@$(LOCAL)/stack.py up --home $(HOME_DIR)
	@servers=$$($(LOCAL)/stack.py env --home $(HOME_DIR)) && eval "$$servers" && \
		unset OXEN_API_KEY OXEN_BASE_URL PYTHONDONTWRITEBYTECODE && \
		$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report=term $(ARGS) </dev/null

check: setup ## format, lint, types, direction of the imports, the contract as written, lock files, nothing of this machine committed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/unit/test_architecture.py
	$(BIN)/drover contracts --check
	$(BIN)/python deploy/local/lock.py check
	$(BIN)/python deploy/local/committed.py

contracts: setup ## write the contract's documents (AsyncAPI, schemas, examples) to contracts/ from the code
	@$(BIN)/drover contracts --out contracts

bench: ## throughput, latency, CPU and memory under load, beside a floor; table and pictures in .local/bench
	@$(LOCAL)/install.py bench
	@unset PYTHONDONTWRITEBYTECODE && $(BIN)/python -m tests.bench --out $(HOME_DIR)/bench $(ARGS)

chaos: setup ## the faults that take their time, three campaigns of kills and freezes, a soak; reports in .local/chaos
	@$(BIN)/python -m pytest -q -m chaos_long tests/chaos </dev/null
	@$(BIN)/python -m tests.chaos --out $(HOME_DIR)/chaos $(ARGS)

audit: ## an SBOM of what is deployed, in .local/sbom.json; known vulnerabilities of the locked packages
	@$(LOCAL)/install.py audit
	@$(BIN)/python deploy/local/audit.py --sbom $(HOME_DIR)/sbom.json

up: ## start the local Postgres, RabbitMQ and sandbox
	@$(LOCAL)/install.py demo
	@$(LOCAL)/stack.py up --with-sandbox --home $(HOME_DIR)

down: ## stop them; their data stay
	@$(LOCAL)/stack.py down --home $(HOME_DIR)

status: ## what of them runs, and where
	@$(LOCAL)/stack.py status --home $(HOME_DIR)

serve: up ## run the service against them, or against the hub that OXEN_API_KEY opens
	@settings=$$($(LOCAL)/stack.py env --with-sandbox --home $(HOME_DIR)) && eval "$$settings" && \
		echo "hub: $${OXEN_BASE_URL:-https://hub.oxen.ai, the real one: generations cost money}" && exec $(BIN)/drover serve

lock: setup ## resolve the dependencies anew and write deploy/lock/
	@$(BIN)/python deploy/local/lock.py write
	@$(LOCAL)/install.py dev

clean: ## stop the servers, drop their data and everything that was installed or built
	@$(LOCAL)/stack.py wipe --home $(HOME_DIR)
	rm -rf .venv $(HOME_DIR) .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
