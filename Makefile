# setup   a virtual environment in .venv with everything (CPU build; EXTRAS=gpu for CUDA machines)
# demo    the whole chain on a made world, then the endpoint until Ctrl-C (ARGS=--once to stop)
# test    every test          lint    ruff and mypy          bench    all benchmarks, or NAME=decode
# gpu-check   what this machine's GPU does, in 8 minutes (ARGS="--device cpu --small" tries it anywhere)
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= cpu
# Where pip finds PyTorch's CPU wheels, so that Linux does not take the CUDA build (several GB).
# Empty where pip's own configuration already knows; e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
ARGS ?=
NAME ?= *
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# On CPU machines .fbgemm-cpu stands in for the CUDA build of fbgemm that torchrec asks for.
SHIM := $(if $(findstring cpu,$(EXTRAS)),./.fbgemm-cpu)
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: setup demo test lint gpu-check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml .fbgemm-cpu/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(INDEX) $(SHIM) -e '.[$(EXTRAS),dev]'
	$(BIN)/python -m pip check
	touch $@

demo: setup
	$(BIN)/recsys demo $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu-check: setup
	PYTHONPATH=. $(BIN)/python tests/gpu/check.py $(ARGS)

bench: setup
	@for file in tests/benchmarks/$(NAME).py; do \
	  case $$file in */__init__.py|*/_*.py) continue;; esac; \
	  echo "$$file"; PYTHONPATH=. $(BIN)/python $$file $(ARGS) || exit 1; done

clean:
	rm -rf $(VENV) runs build *.egg-info
