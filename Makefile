# `make demo` and `make test` work on a fresh machine: everything they need is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KOMODO_FILES ?=
PYTEST_ARGS ?=
# More workers than processors: most tests wait for timers, hosts and servers.
JOBS ?= 4

# Temporal's sandbox imports the workflow modules again for every workflow. Without bytecode files this takes five times
# as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test setup lint lock clean

demo: setup ## Upgrade a simulated fleet: embedded Temporal server, real SSH, no root, no network
	@$(BIN)/komodo-upgrade demo --yes

test: setup ## Run the fast tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(if $(KOMODO_FILES),--komodo-files=$(KOMODO_FILES)) $(PYTEST_ARGS)

lint: setup ## Run ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

setup: $(VENV)/.installed ## Install the locked dependencies and this project into .venv

$(VENV)/.installed: pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## Update requirements.lock from the version ranges in pyproject.toml
	@test -x build/lock/bin/python || $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet pip-tools
	build/lock/bin/python -m piptools compile --quiet --extra dev --extra embedded --extra notify --extra otel --all-build-deps --allow-unsafe --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml
	build/lock/bin/python -m piptools compile --quiet --extra notify --extra otel --all-build-deps --allow-unsafe --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --constraint requirements.lock \
	  --output-file deploy/compose/requirements.lock pyproject.toml

clean: ## Remove everything that was installed or built
	rm -rf $(VENV) dist build

# End to end, as root: real systemd, sshd, Docker and database (docs/e2e.md). KOMODO_BIN and MONGO_TOOLS select real
# programs, KOMODO_FILES selects Komodo's official files. The first test builds the test bed, which may take a while.
.PHONY: e2e e2e-all e2e-down
E2E := KUE_RUN=1 KOMODO_FILES=$(if $(KOMODO_FILES),$(abspath $(KOMODO_FILES))) $(BIN)/python -m pytest tests/e2e -s \
  --timeout 1800

e2e: setup ## Run the default end-to-end scenarios
	$(E2E) -m e2e $(PYTEST_ARGS)

e2e-all: setup ## Run all end-to-end scenarios
	$(E2E) -m "e2e or e2e_all" $(PYTEST_ARGS)

e2e-down: setup ## Remove what an interrupted run left; images and caches stay
	$(BIN)/python -m tests.e2e.bed down

# Compare with asyncssh, pyinfra and Ansible on the same hosts, with a real sshd on loopback, as root (docs/bench.md). The
# other tools are installed in their own environment and only run as programs.
.PHONY: bench
HOSTS ?= 20 100
REPEAT ?= 3
BENCH_ARGS ?=
PEERS := build/bench-peers

bench: setup $(PEERS)/.installed ## Measure time and CPU against other tools, and the effect of kill -9 in the middle
	$(BIN)/python -m bench.compare --hosts $(HOSTS) --repeat $(REPEAT) --peers $(PEERS) $(BENCH_ARGS)

$(PEERS)/.installed:
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet ansible-core==2.19.14 pyinfra==3.10.0
	@touch $@

# A simulated fleet of each size behind real SSH: upgraded by two workers, of which one is killed, and rolled back.
.PHONY: scale
SCALE ?= 100 300

scale: setup ## Measure time, CPU, memory, histories and open files of large fleets
	$(BIN)/python -m bench.scale --servers $(SCALE)

# Crash the worker, the connection and Temporal before, during and after every activity call, on the sandbox
# (docs/crash-sweep.md). SWEEP="kill happy dump_database" selects cells; SWEEP_JOBS runs go on at the same time.
.PHONY: crash-sweep
SWEEP_JOBS ?= 3
SWEEP ?=

crash-sweep: setup ## Print the table of crashes; fail if a cell fails
	SWEEP="$(SWEEP)" $(BIN)/python -m tests.sweep -j $(SWEEP_JOBS)

# Random runs: random faults, decisions and worker restarts, on the workflows with test doubles, and one in twenty on the
# sandbox. A failing run prints itself; pin it as an @example.
.PHONY: invariants
KU_RUNS ?= 300

invariants: setup ## Check the invariants on random runs, different ones each time
	KU_RUNS=$(KU_RUNS) $(BIN)/python -m pytest tests/workflows/test_invariants.py tests/fleet/test_random_runs.py -n 2 \
	  --timeout 3600 -p no:logging $(PYTEST_ARGS)
