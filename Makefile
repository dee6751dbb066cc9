# Sendense: what a newcomer and the CI call. `make help` lists it.

PYTHON ?= python3
BIN := .venv/bin
# Passed on to the program of the target: make test ARGS="tests/unit -k layer"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup tools test lint format demo demo-up demo-down bench-quick clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

setup: ## install what is needed into .venv (and Debian packages, as root); nothing when it is there
	@$(PYTHON) scripts/setup.py

tools: setup ## make grpcurl, Go, Node and their plugins ready, for tests and generated clients
	@$(PYTHON) scripts/setup_test_tools.py

test: tools ## run all tests
	@$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

lint: setup ## check format, style, types, import directions and protos
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p hub -p agent -p shared -p simulator -p sendense -p tools -p bench
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint

format: setup ## put the code into the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

demo: setup ## back a simulated VM up three times, restore it, compare every byte
	@$(BIN)/python -m tools.demo run $(ARGS)

demo-up: setup ## leave simulator, hub and agent running for exploring
	@$(BIN)/python -m tools.demo up $(ARGS)

demo-down: setup ## stop them
	@$(BIN)/python -m tools.demo down $(ARGS)

bench-quick: setup ## measure backup and restore against qemu-img; writes bench/results/quick.json
	@$(BIN)/python -m bench.quick $(ARGS)

clean: ## remove what building, testing and the demo left behind (not .venv)
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tools.demo down; fi
	@rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
