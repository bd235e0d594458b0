# make run      a real analysis in a real container with limits (sets up what it needs)
# make test     lint, types, layers, all tests
# make bench    the numbers to hold, side by side with other engines
# make lint, make packages (Debian packages for all of it), make clean
# Another Python: make test PYTHON=python3.12 (its environment is .venv-python3.12)

PYTHON := python3
VENV := .venv$(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# An ordinary user may have been given no control group; what was not applied is then said.
EFFORT := $(if $(filter 0,$(shell id -u)),,--best-effort)

.PHONY: run test lint bench packages packages-run packages-test packages-bench clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

run: packages-run $(VENV)/.has-examples
	$(BIN)/corten run $(EFFORT) --summary --memory 512m --cpus 1 --pids-limit 64 host python examples/digits.py

test: packages-test lint
	$(BIN)/pytest </dev/null

lint: packages-run $(VENV)/.has-dev
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: packages-bench $(VENV)/.has-dev build/floor
	$(BIN)/python bench/run.py

build/floor: bench/floor.c
	mkdir -p build
	gcc -O2 -std=gnu17 -Wall -Wextra -Werror -Wno-format-truncation -static -o $@ $<

packages:
	scripts/packages $(PYTHON) run test bench

packages-run:
	@scripts/packages $(PYTHON) run

packages-test:
	@scripts/packages $(PYTHON) run test

packages-bench:
	@scripts/packages $(PYTHON) run bench

$(VENV)/.has-examples $(VENV)/.has-dev: $(VENV)/.has-%: pyproject.toml scripts/environment | packages-run
	scripts/environment $(PYTHON) $(VENV) $*
	touch $@

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
