# paygate: `make` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SEED ?= 1
WORKERS ?= 3
FAULT_SECONDS ?= 50
RUNS ?= 2000
JOBS ?= 2
CUTS ?= 10000
KILLS ?= 500

# Tests and campaigns start hundreds of programs: each would compile all of paygate anew, which takes as long as its run.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-interactive test check faults spec model fuzz sim mutants power-cuts crashes flips dump-fuzz costs bench bench-growth bench-dump bench-codec test-tools format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with paygate and its tools (needs Python 3.11 or later with venv and pip)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "paygate needs Python 3.11 or later; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

demo: $(READY) ## a real payment and four that fail, through three real programs
	$(BIN)/python scripts/demo.py

demo-interactive: $(READY) ## the same servers, and you are the customer
	$(BIN)/python scripts/demo.py --interactive

test: $(READY) ## all tests, WORKERS=n files at a time: three keep two cores busy, since some mostly wait
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

check: $(READY) ## format, lint, types, spec freshness, import layers, requirements without a test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=scripts $(BIN)/python -m specgen --check
	$(BIN)/python -m pytest --quiet tests/test_layers.py tests/spec/test_requirements.py

faults: $(READY) ## failing files, cut and altered bytes, on real programs; SEED=n, FAULT_SECONDS=n, CASE='one case'
	PYTHONPATH=tests:scripts $(BIN)/python -m faults --seed $(SEED) --seconds $(FAULT_SECONDS) $(if $(CASE),--case '$(CASE)')

spec: $(READY) ## write what follows from the declarations into spec/
	PYTHONPATH=scripts $(BIN)/python -m specgen

model: $(READY) ## all runs of the formal model of a payment, as it is and with each rule taken out
	$(BIN)/python scripts/check_model.py

sim: $(READY) ## RUNS=n simulated worlds from SEED=n on, judged; JOBS=n processes; WITHOUT=3,7 leaves faults of one out
	PYTHONPATH=tests:scripts $(BIN)/python -m sim --seed $(SEED) --runs $(RUNS) --jobs $(JOBS) \
		$(if $(WITHOUT),--without $(WITHOUT))

mutants: $(READY) ## bugs put into the real code: seeds from SEED=n on until the simulator catches each
	PYTHONPATH=tests:scripts $(BIN)/python -m sim.hunt --seed $(SEED)

power-cuts: $(READY) ## cut both stores' power at every point of CUTS=n cuts' worth of stories, from SEED=n on
	PYTHONPATH=tests $(BIN)/python -m power --seed $(SEED) --cuts $(CUTS) \
		$(if $(STORE),--store $(STORE)) $(if $(POINT),--point $(POINT))

crashes: $(READY) ## SIGKILLs at every failpoint of the three programs, KILLS=n or more of them; PAIRS=all: all pairs; SEED=n
	PYTHONPATH=tests $(BIN)/python -m crash --seed $(SEED) --kills $(KILLS) $(if $(PAIRS),--pairs $(PAIRS))

flips: $(READY) ## one bit of every byte of a bank's and a gateway's database flipped: who notices; SEED=n draws the bits
	PYTHONPATH=tests $(BIN)/python -m audit.flips --seed $(SEED)

dump-fuzz: $(READY) ## ten thousand damaged captures through paygate-dump; SEED=n replays one campaign
	PYTHONPATH=tests:scripts $(BIN)/python -m dump.mutations --seed $(SEED) --count 10000

bench: $(READY) ## payments/s and latency beside PostgreSQL and ISO 8583, the goals judged (results in var/)
	$(BIN)/paygate-bench compare --json var/bench/compare.json --plots var/bench/plots

bench-growth: $(READY) ## cost of a payment, starts and memory against tokens, accounts, history, log, connections
	$(BIN)/paygate-bench growth --json var/bench/growth.json --plots var/bench/plots

costs: $(READY) ## system calls, statements, fsyncs, calls and allocations of a payment, held against ceilings
	$(BIN)/python -m pytest --quiet tests/costs

bench-dump: $(READY) ## paygate-dump against tshark with our dissector, on 100,000 frames
	$(BIN)/python scripts/bench_dump.py

bench-codec: $(READY) ## the compiled codec against code written by hand, and against construct
	$(BIN)/python scripts/bench_codec.py

test-tools: $(READY) ## install what the tests against other implementations need: tshark, Kaitai, Node packages
	scripts/install-test-tools

fuzz: $(READY) ## the codec's property tests with many more examples; SEED=n replays one campaign
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --hypothesis-seed=$(SEED) tests/codec

format: $(READY) ## format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, var/ and caches
	rm -rf .venv var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
