# Sendense: what a newcomer and the CI call. `make help` lists it.

PYTHON ?= python3
BIN := .venv/bin
# Passed on to the program of the target: make test ARGS="tests/unit -k layer"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup tools test soak lint format clients breaking release-protos demo demo-up demo-down bench-quick bench-catalog clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

setup: ## install what is needed into .venv (and Debian packages, as root); nothing when it is there
	@$(PYTHON) scripts/setup.py

tools: setup ## make grpcurl, govc, vcsim, Go, Node and their plugins ready, for tests and generated clients
	@$(PYTHON) scripts/setup_test_tools.py

test: tools ## run all tests
	@$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

soak: tools ## for long: random lives of VMs, losses of power, 1,000 kills of hub and agent, all faults
	@$(BIN)/pytest -n 2 --dist worksteal -m "soak or crash" $(ARGS) tests

lint: setup breaking ## check format, style, types, import directions and protos
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p hub -p agent -p shared -p simulator -p sendense -p tools -p bench
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint

breaking: setup ## check that peers of the last release understand today's protos
	@$(PYTHON) scripts/released_protos.py check

release-protos: setup ## keep today's protos as those of a release: make release-protos VERSION=x.y.z
	@$(PYTHON) scripts/released_protos.py release "$(VERSION)"

format: setup ## put the code into the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clients: tools ## generate the Go and TypeScript clients (sdk/go/gen, sdk/typescript/gen)
	@$(PYTHON) scripts/generate_clients.py $(ARGS)

demo: setup ## back a simulated VM up three times, restore it, compare every byte
	@$(BIN)/python -m tools.demo run $(ARGS)

demo-up: setup ## leave simulator, hub and agent running for exploring
	@$(BIN)/python -m tools.demo up $(ARGS)

demo-down: setup ## stop them
	@$(BIN)/python -m tools.demo down $(ARGS)

bench-quick: setup ## measure backup and restore against qemu-img; writes bench/results/quick.json
	@$(BIN)/python -m bench.quick $(ARGS)

bench-catalog: setup ## measure the catalog at 1,000,000 disk rows; writes bench/results/catalog.json
	@$(BIN)/python -m bench.catalog $(ARGS)

clean: ## remove what building, testing and the demo left behind (not what was installed)
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m tools.demo down; fi
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} +; fi
	@rm -rf demo dist sdk/go/gen sdk/typescript/gen sdk/typescript/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
