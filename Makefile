# Thin on purpose: whatever takes more than two lines is in scripts/ or in Python.
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
PYTEST := $(BIN)/pytest --dist worksteal --numprocesses $(WORKERS)
MAKEFLAGS += --no-print-directory
export PYTHON
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run dev install servers servers-up browser test test-slow chaos abuse guards lint audit format bench bench-scale \
	secrets clean help

run: $(VENV)/.runtime ## Serve on 127.0.0.1:8000; prints the administrator's password the first time
	@exec scripts/run.sh

dev: $(VENV)/.development ## Serve with reload, debugger and readable log; PORT=8001 for another port
	@exec scripts/dev.sh

install: $(VENV)/.development ## Make the virtual environment with everything for tests and tools

servers: install ## Install PostgreSQL, Redis and RabbitMQ where they are missing
	@$(BIN)/python -m tests.support.servers install </dev/null

servers-up: servers ## Run private servers in a shell; pytest in it starts none. `exit` stops them
	@$(BIN)/python -m tests.support.servers run -- "$${SHELL:-sh}"

browser: install ## Install what all tests need: the servers, Chromium, Prometheus, nginx, PgBouncer
	@$(BIN)/python -m tests.support.servers install --browser </dev/null

test: browser ## Run all tests on private servers; ARGS go to pytest
	@$(PYTEST) $(ARGS) </dev/null

test-slow: servers ## Run the tests that take minutes
	@$(PYTEST) -m "slow or chaos" $(ARGS) </dev/null

chaos: servers ## Prove that nothing is lost while processes die; ARGS="--rounds 10" for more
	@$(BIN)/python -m tests.chaos $(ARGS) </dev/null

abuse: browser ## Run hostile traffic beside honest users for 30 minutes; ARGS="--minutes 2" for less
	@$(BIN)/python -m tests.abuse $(ARGS) </dev/null

guards: servers ## Take each guard of credentials and sessions out, and see a test fail
	@$(BIN)/python -m tests.guards $(ARGS) </dev/null

lint: install ## Check format, style, types and the direction of imports
	@scripts/lint.sh

audit: install ## Look for pinned libraries with known weaknesses
	@$(BIN)/python scripts/audit.py requirements.txt requirements-dev.txt

format: install ## Format the code
	@$(BIN)/black .

bench: install ## Measure the service under load
	@$(BIN)/python -m tests.support.servers install --load </dev/null
	@$(BIN)/python -m tests.support.servers run -- $(BIN)/python -m benchmarks $(ARGS)

bench-scale: servers ## Ask the same questions of 1000 users and of a million; takes minutes
	@$(BIN)/python -m benchmarks.scale $(ARGS) </dev/null

secrets: ## Make the passwords and keys that docker-compose.yml mounts
	@scripts/make_secrets.sh

clean: ## Remove what tools have made; instance/ with its data stays
	@scripts/clean.sh

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 14

$(VENV)/.runtime: requirements.txt
	@scripts/venv.sh $@ $^

$(VENV)/.development: requirements.txt requirements-dev.txt
	@scripts/venv.sh $@ $^
