PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TORCH  ?= torch==2.13.0
TRITON ?= triton==3.7.1
UV     := $(shell command -v uv 2>/dev/null)

.PHONY: demo test chaos crash hosts lint bench docs notebooks scatter

$(STAMP): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH)
ifneq ($(UV),)
	$(UV) pip install --python $(BIN)/python -e '.[dev,bio,baselines,docs]' '$(TRITON)'
else
	$(BIN)/python -m pip install -e '.[dev,bio,baselines,docs]' '$(TRITON)'
endif
	touch $@

demo: $(STAMP)
	$(BIN)/musegnn run examples/atlas/atlas.yaml --out runs/demo

test: $(STAMP)
	$(BIN)/pytest -q -n 2 -m "not ray and not chaos"
	$(BIN)/pytest -q -m "ray and not chaos" tests/cluster tests/hosts  # one after the other: clusters starve one another

chaos: $(STAMP)
	$(BIN)/pytest -m chaos -rP tests/cluster

crash: $(STAMP)
	$(BIN)/python -m benchmarks crash fuzz

hosts: $(STAMP)
	$(BIN)/python -m tests.hosts --write  # as root on Linux; fills in the table of docs/cluster.md

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typecheck
	$(BIN)/python setup.py -q build_py --build-lib build/typecheck
	MYPYPATH=build/typecheck $(BIN)/mypy --strict -p musegnn

bench: $(STAMP)
	$(BIN)/python -m benchmarks --quick

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs  # then open build/docs/index.html

notebooks: $(STAMP)
	$(BIN)/python -m tests.notebooks  # stores the outputs that the site shows

scatter: $(STAMP)
	$(BIN)/python -m pip install --no-build-isolation torch-scatter
