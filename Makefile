# The only door: every target makes what it needs. Needs python3 (3.11+), make, sh.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet install
TESTS ?= tests
# A test runs in one of these processes; tests that share a server share a process (loadgroup).
PARALLEL ?= -n auto --maxprocesses 4 --dist loadgroup

# Tests start some hundred processes; without kept bytecode each compiles the package anew.
test test-all: export PYTHONDONTWRITEBYTECODE =
# Each of these processes has a core: PyTorch's threads would wait for each other, spinning.
test test-all: export OMP_NUM_THREADS = 1

.PHONY: run help test test-all lint format types docs bench bench-tools bench-vllm check clean
.DELETE_ON_ERROR:

run: .venv/ready  ## the gateway with the packaged model behind it; another port: make run PORT=8001
	$(BIN)/thinkonce serve --local --host 127.0.0.1 --port $(PORT)

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

test: .venv/ready  ## the default tests
	$(BIN)/python -m pytest $(PARALLEL) $(TESTS)

test-all: .venv/ready  ## the slow ones too
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu" $(TESTS)

lint: .venv/ready  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ready  ## mend what of style can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/ready  ## mypy and pyright
	$(BIN)/mypy
	$(BIN)/pyright

check: lint types test  ## all three

docs: .venv/ready  ## write docs/ pages that are generated
	$(BIN)/python docs/generate.py

bench: .venv/ready  ## all benchmarks, or one: make bench NAME=decorator
	$(BIN)/thinkonce bench $(if $(NAME),$(NAME),--all)

bench-tools: .venv/ready  ## what benchmarks compare with; absent ones are skipped
	$(PIP) -c constraints.txt -r benchmarks/requirements.txt
	test -x .venv/litellm/bin/python || $(PYTHON) -m venv .venv/litellm
	.venv/litellm/bin/pip --disable-pip-version-check --quiet install -r benchmarks/litellm.txt
	test -x .venv/gptcache/bin/python || $(PYTHON) -m venv .venv/gptcache
	.venv/gptcache/bin/pip --disable-pip-version-check --quiet install -r benchmarks/gptcache.txt
	test -x .venv/llama_cpp/bin/python || $(PYTHON) -m venv .venv/llama_cpp
	.venv/llama_cpp/bin/pip --disable-pip-version-check --quiet install -r benchmarks/llama_cpp.txt

# 3.4 GB. torch goes first, and what vLLM pulls in for another torch goes again: it cannot be imported.
bench-vllm: .venv/ready  ## vLLM for the CPU, which benchmarks/kv_others.py compares with
	test -x .venv/vllm/bin/python || $(PYTHON) -m venv .venv/vllm
	.venv/vllm/bin/pip --disable-pip-version-check --quiet install -r benchmarks/vllm.txt
	.venv/vllm/bin/pip --quiet uninstall -y torchvision torchaudio torchcodec

clean:  ## remove what was made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find src tests benchmarks examples docs -name __pycache__ -prune -exec rm -rf {} +

# torch goes first: whatever asks for it later finds the pinned one.
.venv/ready: constraints.txt pyproject.toml models.txt suites.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "1 of 3: PyTorch, 1 to 5 minutes" && $(PIP) -c constraints.txt torch==2.13.0
	@echo "2 of 3: all else, 1 to 3 minutes" && $(PIP) -c constraints.txt -e '.[encryption,gateway,local,otel,plot,semantic,test]'
	@echo "3 of 3: the model, 1 minute" && $(PIP) --no-deps --require-hashes -r models.txt -r suites.txt
	touch $@
