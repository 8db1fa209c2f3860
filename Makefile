# `make demo` and `make test` are all a newcomer needs. People without a GPU may save gigabytes with
# `make demo TORCH_INDEX=<PyTorch's index of CPU wheels>`.
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: demo test test-nightly lint format reapack clean

demo: .venv/user
	$(BIN)/punchin demo
	@echo '. $(BIN)/activate   # then the command is punchin'

# Two files side by side; the tests of one file share what they start.
test: .venv/dev
	$(BIN)/pytest -n 2 --dist loadfile -m "not nightly"

test-nightly: .venv/dev
	$(BIN)/pytest

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# For a release: `make reapack URL=<the repository's raw files at its tag>` writes index.xml for REAPER's ReaPack.
reapack: .venv/dev
	$(BIN)/python -m punchin.clients.install.reapack --url "$(URL)"

# pip, not python: Debian without python3-venv leaves a folder that has python alone.
.venv/bin/pip:
	$(PYTHON) -m venv .venv

# The index of CPU wheels holds torch alone; everything else comes from the usual place.
.venv/torch: constraints.txt | .venv/bin/pip
	$(BIN)/pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	touch $@

.venv/user: pyproject.toml constraints.txt .venv/torch
	$(BIN)/pip install -q -c constraints.txt -e ".[all]"
	touch $@

.venv/dev: pyproject.toml constraints.txt .venv/torch
	$(BIN)/pip install -q -c constraints.txt -e ".[all,test,lint]"
	touch $@ .venv/user

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
