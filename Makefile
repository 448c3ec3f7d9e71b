# `make demo` and `make test` set up all that they need on a machine with Python and make.
PYTHON ?= python3
TORCH ?= 2.13.0
# The wheel of mmcv 2.1.0 that makes the second stack quick to install; pip builds it otherwise.
WHEELS ?= ../shared/wheels

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Errors stay; progress, and warnings about the package index, go.
PIP_FLAGS := -qq --progress-bar off

.PHONY: demo test test-slow test-openmmlab lint clean

demo: .venv/ready
	.venv/bin/python tools/demo.py

test: lint
	.venv/bin/python -m pytest -m 'not slow'

test-slow: .venv/ready
	.venv/bin/python -m pytest -m slow

test-openmmlab: .venv-openmmlab/ready
	.venv-openmmlab/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/ready: setup.py mmseg_recall/stack.py
	$(PYTHON) -m venv .venv
	@echo 'Installing torch $(TORCH) and onedl-mmsegmentation into .venv'
	.venv/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH)
	.venv/bin/python -m pip install $(PIP_FLAGS) --editable '.[onedl,report,dev]'
	@touch $@

.venv-openmmlab/ready: setup.py mmseg_recall/stack.py
	$(PYTHON) -m venv .venv-openmmlab
	@echo 'Installing torch $(TORCH) and mmsegmentation into .venv-openmmlab'
	.venv-openmmlab/bin/python -m pip install $(PIP_FLAGS) torch==$(TORCH) 'setuptools<81'
	.venv-openmmlab/bin/python -m pip install $(PIP_FLAGS) --no-build-isolation \
		$(wildcard $(WHEELS)/mmcv-2.1.0-*.whl) --editable '.[openmmlab,report,dev]'
	@touch $@

clean:
	rm -rf .venv .venv-openmmlab build dist *.egg-info
