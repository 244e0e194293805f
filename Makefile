# Two commands on a fresh machine: `make demo` and `make test`. Each sets up all it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KOMODO_FILES ?=
PYTEST_ARGS ?=
# More than processors: most tests wait for clocks, hosts and servers, and seldom compute.
JOBS ?= 4

# Temporal's sandbox imports the workflows' modules anew for every workflow: without bytecode files that costs five times
# as much.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test setup lint lock clean

demo: setup ## Upgrade a simulated fleet end to end: embedded Temporal server, real SSH, no root, no network
	@$(BIN)/komodo-upgrade demo --yes

test: setup ## The fast tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(if $(KOMODO_FILES),--komodo-files=$(KOMODO_FILES)) $(PYTEST_ARGS)

lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## Write requirements.lock anew from pyproject.toml's ranges (pip-tools in an environment of its own)
	@test -x build/lock/bin/python || $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet pip-tools
	build/lock/bin/python -m piptools compile --quiet --extra dev --all-build-deps --allow-unsafe --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) dist build

# End to end, as root: real systemd, sshd, Docker and database (docs/e2e.md). KOMODO_BIN and MONGO_TOOLS choose real
# programs, KOMODO_FILES Komodo's official files.
.PHONY: e2e e2e-all e2e-down
E2E_FILES := $(if $(KOMODO_FILES),$(abspath $(KOMODO_FILES)))

e2e: setup ## The default scenarios on the bed
	KUE_RUN=1 KOMODO_FILES=$(E2E_FILES) $(BIN)/python -m pytest tests/e2e -s -m e2e $(PYTEST_ARGS)

e2e-all: setup ## All scenarios on the bed
	KUE_RUN=1 KOMODO_FILES=$(E2E_FILES) $(BIN)/python -m pytest tests/e2e -s -m "e2e or e2e_all" $(PYTEST_ARGS)

e2e-down: setup ## Remove what a killed run left behind; images and caches stay
	$(BIN)/python -m tests.e2e.bed down

# Against bare asyncssh, pyinfra and Ansible on the same hosts, real sshd on loopback, as root (docs/bench.md). The peers
# live in an environment of their own and are only run as programs.
.PHONY: bench
HOSTS ?= 20 100
REPEAT ?= 3
BENCH_ARGS ?=
PEERS := build/bench-peers

bench: setup $(PEERS)/.installed ## This tool against its peers: ratios, CPU, and a kill -9 in the middle of each
	$(BIN)/python -m bench.compare --hosts $(HOSTS) --repeat $(REPEAT) --peers $(PEERS) $(BENCH_ARGS)

$(PEERS)/.installed:
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet ansible-core==2.19.14 pyinfra==3.10.0
	@touch $@

# Crash at every step: the worker, the connection and Temporal die before, during and after every activity call, on the
# sandbox (docs/crash-sweep.md). Narrowed by SWEEP="kill happy dump_database"; NIGHTS at the same time.
.PHONY: crash-sweep
NIGHTS ?= 3
SWEEP ?=

crash-sweep: setup ## Prints the table; fails if any cell does
	SWEEP="$(SWEEP)" $(BIN)/python -m tests.sweep -j $(NIGHTS)

# Random nights: what breaks, what people say and when, workers that forget everything. On the workflows with doubles, and
# one in twenty on the sandbox with its files. A night that fails prints itself; pin it as an @example.
.PHONY: invariants
KU_NIGHTS ?= 300

invariants: setup ## Other nights each time
	KU_NIGHTS=$(KU_NIGHTS) $(BIN)/python -m pytest tests/workflows/test_invariants.py tests/fleet/test_random_nights.py -n 2 \
	  -p no:logging $(PYTEST_ARGS)
