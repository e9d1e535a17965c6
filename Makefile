# Every target does its own set-up: on a bare Debian machine with Python 3, `make demo` and
# `make test` are all there is to type. A second run finds its set-up done and is quick.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
CREATED := $(VENV)/.created
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
BUILT_FROM := pyproject.toml setup.py \
	$(foreach end,h pxd,$(wildcard src/plainsocket/*.$(end) src/plainsocket/*/*.$(end))) \
	$(shell sed -n '/^SOURCES/,/^]/s|^ *"\(.*\)",|src/plainsocket/\1.py|p' setup.py)

FUZZ_VENV := fuzz/.venv
FUZZ_SECONDS ?= 60

TEST_PROCESSES ?= 2

BROWSER_PACKAGES := chromium chromium-driver firefox-esr webkit2gtk-driver xvfb fonts-dejavu-core
TEST_PACKAGES := $(BROWSER_PACKAGES) nginx haproxy caddy apache2-bin squid curl iproute2 systemd tinyproxy-bin dante-server haxe

BROWSER_TOOLS := browser/node_modules/.installed
RUFFLE := flash/node_modules/.installed

.PHONY: help demo browser flash lint check test autobahn matrix works-with screenshot bench bench-quick \
	fuzz clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(RUNTIME) ## start the demo server and print its address (DEMO_ARGS='--port 9000')
	@$(BIN)/plainsocket demo $(DEMO_ARGS)

browser: $(BROWSER_TOOLS) ## build the browser half into src/plainsocket/static
	@cd browser && npm run --silent check && npm run --silent build

lint: $(DEVELOPMENT) $(BROWSER_TOOLS) ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@cd browser && npm run --silent check

check: lint ## the inner loop: lint, format, types, unit tests
	$(BIN)/pytest -m 'not browser and not autobahn and not slow'

# The browsers one after another, the rest side by side; all of it, also after a failure.
test: $(DEVELOPMENT) $(BROWSER_TOOLS) $(RUFFLE) ## the whole suite, in real browsers and with Autobahn's cases
	@tools/debian-packages $(TEST_PACKAGES) || echo 'Tests that need them will say so.' >&2
	@command -v npm >/dev/null || tools/debian-packages nodejs npm || echo 'Socket.IO has no client.' >&2
	@status=0; set -x; \
	$(BIN)/pytest -m 'not browser' -n $(TEST_PROCESSES) || status=1; \
	PLAINSOCKET_PURE=1 $(BIN)/pytest -m 'not browser and not once' -n $(TEST_PROCESSES) || status=1; \
	$(BIN)/pytest -m browser || status=1; \
	exit $$status

autobahn: $(DEVELOPMENT) ## all 517 of Autobahn's cases (about ten minutes)
	PLAINSOCKET_AUTOBAHN=all $(BIN)/pytest tests/test_autobahn.py

matrix: ## the quick tests on every supported Python that is installed
	$(PYTHON) tools/matrix.py $(VERSIONS)

works-with: $(DEVELOPMENT) ## docs/works-with.md, from the tests (WORKS_WITH='-k frameworks' for some of them)
	$(BIN)/pytest -m works_with --works-with .works-with.json $(WORKS_WITH)
	PYTHONPATH=tests $(BIN)/python tools/write_works_with.py .works-with.json docs/works-with.md

screenshot: $(DEVELOPMENT) ## take the README's picture of the demo page
	@tools/debian-packages chromium chromium-driver fonts-dejavu-core
	PYTHONPATH=tests $(BIN)/python tools/screenshot.py docs/demo.png

bench: ## measure, beside other servers
	$(MAKE) -C benchmarks bench

bench-quick: ## the same, shorter
	$(MAKE) -C benchmarks bench-quick

fuzz: $(FUZZ_VENV)/.installed ## fuzz for FUZZ_SECONDS each (60)
	@mkdir -p fuzz/crashes
	@status=0; for target in protocol deflate handshake forwarded carrier; do \
		echo "== $$target, $(FUZZ_SECONDS) s"; \
		mkdir -p fuzz/.work/$$target; \
		$(FUZZ_VENV)/bin/python fuzz/fuzz_$$target.py -max_total_time=$(FUZZ_SECONDS) \
			-max_len=2048 -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=fuzz/crashes/$$target- \
			fuzz/.work/$$target fuzz/corpus/$$target || status=1; \
	done; exit $$status

flash: ## build bridge.swf from flash/Bridge.hx
	@command -v haxe >/dev/null || tools/debian-packages haxe
	haxe --cwd flash build.hxml

clean: ## remove all that make made
	rm -rf $(FUZZ_VENV) fuzz/.work fuzz/crashes fuzz/__pycache__
	rm -rf browser/node_modules flash/node_modules tests/socketio/node_modules
	rm -rf .matrix .works-with.json
	rm -rf $(VENV) build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f src/plainsocket/*.so src/plainsocket/*/*.so
	find examples src tests tools -name __pycache__ -exec rm -rf {} +

# Debian leaves ensurepip out of its python3; a Python from elsewhere has it.
$(CREATED):
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/debian-packages python3-venv
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUNTIME): $(CREATED) $(BUILT_FROM)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEVELOPMENT): $(CREATED) $(BUILT_FROM)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(RUNTIME)

# No script of a package is run: the tools work without.
$(BROWSER_TOOLS): browser/package.json browser/package-lock.json
	@command -v npm >/dev/null || tools/debian-packages nodejs npm
	@cd browser && npm ci --ignore-scripts --silent
	@touch $@

$(RUFFLE): flash/package.json flash/package-lock.json
	@command -v npm >/dev/null || tools/debian-packages nodejs npm
	@cd flash && npm ci --ignore-scripts --silent
	@touch $@

$(FUZZ_VENV)/.installed: fuzz/requirements.txt $(BUILT_FROM)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/debian-packages python3-venv
	@test -x $(FUZZ_VENV)/bin/pip || $(PYTHON) -m venv --clear $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/pip install --quiet --disable-pip-version-check --editable . \
		--requirement fuzz/requirements.txt
	@touch $@
