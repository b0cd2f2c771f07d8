# `make demo` and `make test` do all the set-up that they need; Python 3.11 or newer and `make` must be there.
PYTHON ?= python3
# An open range of torch may bring several GB of CUDA packages to a machine without a GPU.
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
FUZZ_S ?= 600

VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Written last, so that an environment whose making was interrupted is made anew.
READY := $(VENV)/.ready
READY_BENCH := $(VENV)/.ready-bench
READY_FUZZ := $(VENV)/.ready-fuzz

# The pages that embstore draws are tested in a browser, which no package index has: root on Debian or Ubuntu gets one.
FIND_CHROMIUM := { which chromium || which chromium-browser || which google-chrome; } > /dev/null 2>&1
INSTALL_CHROMIUM := { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium fonts-dejavu-core; } > /dev/null 2>&1

export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test slow faults fuzz check format docs bench bench-postgres clean

help:
	@echo "make demo    index 1,000 documents three times and search them"
	@echo "make test    run the tests"
	@echo "make slow    run the tests that take minutes"
	@echo "make faults  inject every fault as often as promised (an hour)"
	@echo "make fuzz    read mutated files for FUZZ_S seconds (10 minutes; Linux)"
	@echo "make check   ruff, the format and the types"
	@echo "make format  write the format and what ruff can mend"
	@echo "make docs    build the site of docs/ into build/site"
	@echo "make bench   run the benchmarks, beside every competitor (10 minutes)"
	@echo "make bench-postgres  the same on a server (15 minutes)"
	@echo "make clean   remove the environment and everything that was built"

demo: $(READY)
	$(BIN)/embstore demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

slow: $(READY)
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

faults: $(READY)
	$(BIN)/python -m pytest tests/faults --whole-faults -m "slow or not slow" --timeout 7200 $(PYTEST_ARGS)

fuzz: $(READY_FUZZ)
	$(BIN)/python -m tests.faults.fuzz_files --seconds $(FUZZ_S)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict embstore migrations tests/typing

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages take in what `tests.docs_pages` writes; a warning ends it.
docs: $(READY)
	$(BIN)/python -m tests.docs_pages
	$(BIN)/python -m zensical build --strict
	@echo "to look at it, with its search: $(BIN)/python -m http.server --directory build/site"

bench: $(READY_BENCH)
	$(BIN)/python -m benchmarks

bench-postgres: $(READY_BENCH)
	$(BIN)/python -m benchmarks.postgres

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("embstore needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[demo,dev]"
	@$(FIND_CHROMIUM) || $(INSTALL_CHROMIUM) || echo "no Chromium found: the tests that need a browser will be skipped"
	@$(BIN)/python -c 'open("$(READY)", "w").close()'

# Everything that embstore is compared with: large, and of no use to the other targets.
$(READY_BENCH): $(READY)
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[demo,dev,bench]"
	@$(BIN)/python -c 'open("$(READY_BENCH)", "w").close()'

$(READY_FUZZ): $(READY)
	$(BIN)/python -m pip install --quiet "$(TORCH)" --editable ".[demo,dev,fuzz]"
	@$(BIN)/python -c 'open("$(READY_FUZZ)", "w").close()'
