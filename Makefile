# The same commands serve people, pre-commit and .ci/run.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.omnibody-installed
LEROBOT := .venv-lerobot
LAYERS := robots sim_tasks envs policies training deploy_ros

.PHONY: setup demo test test-slow lint mypy bench peers lerobot clean

setup: $(STAMP)

# Torch first and alone: it is by far the largest, and the rest must not pull another one.
# Meta-World last and without its dependencies, as it pins an older MuJoCo.
$(STAMP): pyproject.toml constraints.txt .ci/debian-packages.sh .ci/find-python.sh
	.ci/debian-packages.sh
	test -x $(BIN)/python || "$$(.ci/find-python.sh)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,ros,push-t]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps metaworld imageio
	touch $@

demo: $(STAMP)
	$(BIN)/omnibody demo

test test-slow: export OMP_NUM_THREADS ?= 1

test: lint mypy
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP) lerobot
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: $(STAMP) .namespace
	MYPYPATH=.namespace $(BIN)/mypy --explicit-package-bases -p omnibody

.namespace: Makefile
	rm -rf $@ && mkdir -p $@/omnibody
	for layer in $(LAYERS); do ln -s ../../$$layer $@/omnibody/$$layer; done

# LeRobot's dependencies contradict ours, so it has an environment of its own; with CUDA's libraries it takes 8 GB.
lerobot: $(LEROBOT)/.omnibody-installed

$(LEROBOT)/.omnibody-installed: .ci/find-python.sh
	test -x $(LEROBOT)/bin/python || "$$(.ci/find-python.sh)" -m venv $(LEROBOT)
	$(LEROBOT)/bin/python -m pip install --quiet --disable-pip-version-check lerobot==0.4.4 torch==2.9.1 torchvision==0.24.1
	touch $@

bench: $(STAMP)
	$(BIN)/omnibody bench env
	$(BIN)/omnibody bench policy
	$(BIN)/omnibody bench train

peers: $(STAMP) lerobot
	$(BIN)/omnibody bench peers

clean:
	rm -rf .namespace .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find $(LAYERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
