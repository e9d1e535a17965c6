# Every target does its own set-up: on a bare Debian machine with Python 3, `make demo` and
# `make test` are all there is to type. A second run finds its set-up done and is quick.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
CREATED := $(VENV)/.created
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development

BROWSER_PACKAGES := chromium chromium-driver firefox-esr webkit2gtk-driver xvfb fonts-dejavu-core

.PHONY: help demo check test screenshot bench bench-quick clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(RUNTIME) ## start the demo server and print its address (DEMO_ARGS='--port 9000')
	@$(BIN)/plainsocket demo $(DEMO_ARGS)

check: $(DEVELOPMENT) ## the inner loop: lint, format, types, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m 'not browser and not autobahn and not slow'

test: $(DEVELOPMENT) ## the whole suite, in real browsers and with Autobahn's cases
	@tools/debian-packages $(BROWSER_PACKAGES) || echo 'Tests that need them will say so.' >&2
	$(BIN)/pytest

screenshot: $(DEVELOPMENT) ## take the README's picture of the demo page
	@tools/debian-packages chromium chromium-driver fonts-dejavu-core
	PYTHONPATH=tests $(BIN)/python tools/screenshot.py docs/demo.png

bench: ## measure, beside other servers
	$(MAKE) -C benchmarks bench

bench-quick: ## the same, shorter
	$(MAKE) -C benchmarks bench-quick

clean: ## remove all that make made
	rm -rf $(VENV) build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find examples src tests tools -name __pycache__ -exec rm -rf {} +

# Debian leaves ensurepip out of its python3; a Python from elsewhere has it.
$(CREATED):
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/debian-packages python3-venv
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUNTIME): $(CREATED) pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEVELOPMENT): $(CREATED) pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(RUNTIME)
