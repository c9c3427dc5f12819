# Everything runs in a virtual environment in .venv, made on first use and made again when the requirements change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
REQUIREMENTS := pyproject.toml constraints.txt
FASHION_MNIST := /usr/share/datasets/fashion-mnist

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-cluster test-gpu lint format docs pages bench clean fashion-mnist

help:
	@echo "make demo          set up what running needs, then protect a small real dataset and measure it"
	@echo "make test          set up everything, then lint, type check and run the default tests"
	@echo "make test-all      the same with the slow tests"
	@echo "make test-cluster  start a Slurm on this machine (Debian, as root), run the tests that need it, and stop it"
	@echo "make test-gpu      run the tests that need a CUDA device; they are skipped, and say so, where there is none"
	@echo "make lint          ruff, mypy and the words of our texts alone"
	@echo "make format        let ruff format the code and fix what it can"
	@echo "make docs          build the documentation site into site/, and fail on any warning"
	@echo "make pages         refresh all generated pages"
	@echo "make bench         run the programs in bench/"
	@echo "make clean         remove the virtual environment and all caches; results stay"
	@echo "PYTHON=... names another interpreter (3.11 or newer)"

demo: $(VENV)/installed
	$(BIN)/hpcule demo

# One thread a process: two test processes and the workers that they start already keep a small machine busy.
test: lint fashion-mnist
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-all: lint fashion-mnist
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not cluster'

# Exit code 3 of local-cluster: it cannot be had on this machine, and has said why.
test-cluster: $(VENV)/installed-dev
	@code=0; slurm/local-cluster up || code=$$?; \
	if [ $$code = 3 ]; then echo "no local Slurm here: the tests that need it are skipped"; exit 0; fi; \
	trap 'slurm/local-cluster down' EXIT; trap 'exit 130' INT TERM; \
	[ $$code = 0 ] && $(BIN)/python -m pytest -m cluster tests/cluster

test-gpu: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/words.py README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md bench/README.md configs docs hpcule launch slurm \
		tools
	$(BIN)/python tools/words.py --count

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Tables of the documentation, and what the package knows of the records in docs/studies.
pages: $(VENV)/installed
	$(BIN)/python tools/pages.py

bench: $(VENV)/installed
	@for program in $(sort $(wildcard bench/*.py)); do echo "$$program"; $(BIN)/python "$$program" || exit 1; done

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit("hpcule needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# torch goes first and by itself, at the tested version: what is installed after it then finds it in place.
$(VENV)/installed: $(REQUIREMENTS) | $(VENV)/created
	$(PIP) torch torchvision
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	@touch $@

# deepspeed has no wheels; its source builds in seconds, since it compiles operators on first use (DS_BUILD_OPS=0).
$(VENV)/installed-dev: $(VENV)/installed
	DS_BUILD_OPS=0 $(PIP) --editable '.[dev]'
	@touch $@

fashion-mnist:
	@if [ -d $(FASHION_MNIST) ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	    && { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends dataset-fashion-mnist; } \
	        > /dev/null 2>&1 < /dev/null; \
	then echo "installed dataset-fashion-mnist"; \
	else echo "Fashion-MNIST cannot be installed here (Debian package dataset-fashion-mnist, as root): its tests are skipped"; fi
