# Targets: test, demo, lint, zoo, bench, examples, docs, clean. Each sets up what it needs.
#
# Dependencies live in an environment outside the clone, keyed by the pinned requirements and the Python version, so that
# every clone with the same pins shares it. The package itself is not installed there: PYTHONPATH points at this clone.

PYTHON ?= python3
JOBS ?= 2
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/graphprune
KEY := $(shell { cat requirements/*.txt scripts/make_environment.sh; $(PYTHON) -c 'import sys; print(sys.version, sys.prefix)'; } | sha256sum | cut -c1-12)
DEV := $(CACHE)/dev-$(KEY)
DEMO := $(CACHE)/demo-$(KEY)
# `make demo` alone needs fewer packages than the tests; where the larger environment exists already, it is used.
DEMO_ENVIRONMENT = $(if $(wildcard $(DEV)/complete),$(DEV),$(DEMO))

export PYTHONPATH := $(CURDIR)
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: test lint format check-types demo examples zoo bench docs clean environment

test: lint check-types
	$(DEV)/bin/python -m pytest -n $(JOBS) --dist loadscope $(PYTEST_ARGS)

lint: $(DEV)/complete
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

format: $(DEV)/complete
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

check-types: $(DEV)/complete
	$(DEV)/bin/basedpyright --pythonpath $(DEV)/bin/python

demo: $(DEMO_ENVIRONMENT)/complete
	$(DEMO_ENVIRONMENT)/bin/python examples/crepe_pitch.py --quick

examples: $(DEMO_ENVIRONMENT)/complete
	$(DEMO_ENVIRONMENT)/bin/python examples/crepe_pitch.py
	$(DEMO_ENVIRONMENT)/bin/python examples/minilm_search.py
	$(DEMO_ENVIRONMENT)/bin/python examples/accuracy.py

zoo: $(DEV)/complete
	$(DEV)/bin/python -m tests.zoo --jobs $(JOBS)

bench: $(DEV)/complete
	$(DEV)/bin/python -m tests.benchmarks

docs: $(DEV)/complete
	$(DEV)/bin/python -m pdoc --output-directory build/docs graphprune

environment: $(DEV)/complete

$(DEV)/complete:
	PYTHON="$(PYTHON)" bash scripts/make_environment.sh $(DEV) requirements/dev.txt

$(DEMO)/complete:
	PYTHON="$(PYTHON)" bash scripts/make_environment.sh $(DEMO) requirements/examples.txt

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
