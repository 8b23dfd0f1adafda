# Kept short: anything longer than two lines is in scripts/ or in Python.
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
PYTEST := $(BIN)/pytest --dist worksteal --numprocesses $(WORKERS)
MAKEFLAGS += --no-print-directory
export PYTHON
# With it, each process of a test run would compile all modules and rewrite all assertions.
unexport PYTHONDONTWRITEBYTECODE
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run dev install servers servers-up browser test test-thorough test-slow test-busy cluster-test chaos soak abuse guards lint audit \
	format messages bench bench-scale bench-hashes bench-versions flames client client-code bench-client secrets clean help

run: $(VENV)/.runtime ## Start the service on 127.0.0.1:8000; prints the administrator's password the first time
	@exec scripts/run.sh

dev: $(VENV)/.development ## Serve with reload, debugger and readable log; PORT=8001 for another port
	@exec scripts/dev.sh

install: $(VENV)/.development ## Create the virtual environment with all test and development tools

servers: install ## Install PostgreSQL, Redis and RabbitMQ if they are missing
	@$(BIN)/python -m tests.support.servers install </dev/null

servers-up: servers ## Run private servers in a shell; pytest in it starts none. `exit` stops them
	@$(BIN)/python -m tests.support.servers run -- "$${SHELL:-sh}"

browser: install ## Install what all tests need: the servers, Chromium, Prometheus, nginx, PgBouncer
	@$(BIN)/python -m tests.support.servers install --browser </dev/null

test: browser ## Run the tests on private servers in five minutes; ARGS are passed to pytest
	@$(PYTEST) $(ARGS) </dev/null

test-thorough: browser ## Run the rest: what takes seconds, and the repetitions on SQLite (ten minutes)
	@$(PYTEST) -m "thorough and not slow and not chaos and not cluster" $(ARGS) </dev/null

test-slow: browser ## Run the slow tests one after the other, because some compare times (minutes)
	@$(BIN)/pytest -m "slow or chaos" $(ARGS) </dev/null

cluster-test: install ## Run the tests of failovers and upgrades on real clusters (minutes)
	@$(BIN)/python -m tests.support.servers install --clusters </dev/null
	@$(BIN)/pytest -m cluster -n 2 --maxschedchunk 1 tests/cluster $(ARGS) </dev/null

test-busy: browser ## Run both parts three times on a busy machine: no test may depend on its speed
	@for _ in 1 2 3; do scripts/busy.sh $(PYTEST) -m "not slow and not chaos and not cluster" $(ARGS) </dev/null || exit 1; done

chaos: servers ## Check that no data is lost when processes are killed; ARGS="--rounds 10" for more
	@$(BIN)/python -m tests.chaos $(ARGS) </dev/null

soak: servers ## Use the service for an hour, and report what grows; ARGS="--minutes 5" for less
	@$(BIN)/python -m tests.soak $(ARGS) </dev/null

abuse: browser ## Run hostile traffic together with legitimate users for 30 minutes; ARGS="--minutes 2" for less
	@$(BIN)/python -m tests.abuse $(ARGS) </dev/null

guards: servers ## Remove each guard of credentials and sessions and check that a test fails
	@$(BIN)/python -m tests.guards $(ARGS) </dev/null

lint: install ## Check format, style, types and import layers
	@scripts/lint.sh

audit: install ## Check pinned libraries for known vulnerabilities
	@$(BIN)/python scripts/audit.py requirements.txt requirements-dev.txt

format: install ## Format the code
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

messages: install ## Update the catalogues of translated texts; ARGS=fr adds a language
	@$(BIN)/python -m tests.support.catalogues $(ARGS)

bench: install ## Measure the service under load; ARGS=--peers also measures comparable projects
	@$(BIN)/python -m tests.support.servers install --load </dev/null
	@$(BIN)/python -m tests.support.servers run -- $(BIN)/python -m benchmarks $(ARGS)

bench-scale: servers ## Run the same queries with 1000 and a million users (minutes)
	@$(BIN)/python -m benchmarks.scale $(ARGS) </dev/null

bench-hashes: install ## Compare the most expensive imported password hashes with bcrypt
	@$(BIN)/python -m benchmarks.hashes $(ARGS)

bench-versions: install ## Compare the time of a request with that of a commit: ARGS=COMMIT
	@$(BIN)/python -m tests.support.servers run -- $(BIN)/python -m benchmarks.versions $(ARGS)

flames: install ## Record flame graphs of the most frequent requests in docs/flames/
	@$(BIN)/python -m tests.support.servers install --load </dev/null
	@$(BIN)/python -m tests.support.servers run -- $(BIN)/python -m benchmarks.flames $(ARGS)

client: browser ## Build the client package, install it alone, and run its examples beside the service
	@scripts/client.sh $(ARGS) </dev/null

client-code: install ## Write the generated modules of the client package again
	@scripts/client_code.sh

bench-client: install ## Measure the figures of client/README.md
	@$(BIN)/python client/benchmarks/verification.py

secrets: ## Create the passwords and keys that docker-compose.yml mounts
	@scripts/make_secrets.sh

clean: ## Remove generated files; instance/ with its data is kept
	@scripts/clean.sh

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 16

$(VENV)/.runtime: requirements.txt
	@scripts/venv.sh $@ $^

$(VENV)/.development: requirements.txt requirements-dev.txt scripts/venv.sh
	@scripts/venv.sh $@ requirements.txt requirements-dev.txt
