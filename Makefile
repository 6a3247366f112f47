SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# State of the platform that `make run` starts; tests never see it. All else lives in .venv and .cache.
run stop: export HZC_HOME ?= $(CURDIR)/.hzc
# Options for the command behind a target: make test ARGS="-k lease -x"
ARGS ?=

PY := .venv/bin/python
SAM := .venv-sam/bin/sam

.PHONY: help
help: ## Show this list
	@echo 'Hanzo Compute. Targets:'
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done
	@echo 'HZC_HOME holds the state of `make run` (default .hzc in the checkout); PYTHON names an interpreter.'

.PHONY: venv
venv: ## Prepare .venv with everything for tests and checks
	@scripts/bootstrap dev

.PHONY: run
run: ## Start the platform in the background and carry a demo job through it
	@scripts/bootstrap runtime
	@.venv/bin/hzc demo $(ARGS)

.PHONY: stop
stop: ## Stop the platform that `make run` started
	@scripts/bootstrap runtime
	@.venv/bin/hzc down $(ARGS)

.PHONY: test
test: ## Run the tests (ARGS="-k lease -x" goes to pytest)
	@scripts/bootstrap dev
	$(PY) -m pytest -n auto --dist loadfile $(ARGS)

.PHONY: bench
bench: ## Run the benchmarks (ARGS="--only post,get --rounds 5"); see docs/benchmarks.md
	@scripts/bootstrap bench
	$(PY) -m tests.bench $(ARGS)

.PHONY: soak
soak: ## Load a platform of its own for ten minutes (ARGS="--clients 64 --minutes 10")
	@scripts/bootstrap dev
	$(PY) -m tests.bench.soak $(ARGS)

.PHONY: guests
guests: ## Build the guest examples in C and AssemblyScript into build/guests; see docs/guests.md
	@scripts/build_guests

.PHONY: layers
layers: ## Build the Lambda layers into build/layers, and look through them
	@scripts/bootstrap dev
	$(PY) scripts/build_layers.py hllm

.PHONY: test-pythons
test-pythons: ## Run the tests on every other Python that is here
	@scripts/test_pythons $(ARGS)

.PHONY: check
check: ## Lint, types, import arrows, sources, templates, API description
	@scripts/bootstrap dev
	@scripts/bootstrap sam
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy scripts/check_sources.py scripts/build_layers.py
	.venv/bin/lint-imports
	$(PY) scripts/check_sources.py
	$(PY) -m pip check
	.venv/bin/cfn-lint template.yaml
	AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(SAM) validate --lint --template template.yaml
	$(PY) -m hanzo_compute_host.template --check
	$(PY) -m hanzo_compute_host.openapi --check

.PHONY: format
format: ## Let ruff put the sources in order
	@scripts/bootstrap dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Regenerates every lock from its .in file. LOCK_ARGS=--upgrade takes the newest versions.
# Nothing of this machine's configuration gets in: no index address, no path.
LOCK := env -u PIP_FIND_LINKS -u UV_FIND_LINKS ../.venv/bin/uv pip compile --no-config --quiet --universal \
	--python-version 3.11 --generate-hashes --strip-extras --no-annotate --no-emit-index-url \
	--custom-compile-command 'make lock' $(LOCK_ARGS)

.PHONY: lock
lock: ## Regenerate the locks from requirements/*.in (LOCK_ARGS=--upgrade for newest)
	@scripts/bootstrap dev
	cd requirements && for name in runtime dev bench sam hllm; do $(LOCK) $$name.in -o $$name.lock || exit; done

.PHONY: clean
clean: ## Stop the platform; remove .hzc, the venvs, caches and build results
	@if [[ -x .venv/bin/hzc && -d "$(CURDIR)/.hzc" ]]; then HZC_HOME="$(CURDIR)/.hzc" .venv/bin/hzc down || true; fi
	rm -rf .hzc .venv .venv-sam .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .aws-sam
	rm -rf build dist
	find . -name node_modules -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
