# Everything runs in VENV, made from the locked requirements on first use and whenever they change.
# STACK=onedl has the maintained forks of mmengine, mmcv, mmdet and mmseg in an environment of its own;
# STACK=onedl-compiled also compiles the operators of their mmcv, in another one.
PYTHON ?= python3
STACK ?= openmmlab
VENV ?= .venv$(patsubst %,-%,$(filter-out openmmlab,$(STACK)))
DOCS_VENV ?= .venv-docs
HOSTS := $(if $(filter onedl%,$(STACK)),requirements-onedl.txt)

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --no-deps
PIP := $(INSTALL) --no-build-isolation
# The editable install points into this folder, so the folder is part of what was installed.
KEY := $(shell { echo '$(CURDIR)'; cat requirements.txt $(HOSTS) setup.py pyproject.toml; } | cksum | tr ' ' -)
OPTIONAL_KEY := $(KEY)-$(shell cksum < requirements-optional.txt | tr ' ' -)
DOCS_KEY := $(shell cksum < requirements-docs.txt | tr ' ' -)

.PHONY: train test bench lint docs env env-optional env-docs clean

train: env  ## Mask2Former on the built-in data
	$(BIN)/python tools/train.py configs/mask2former_vit.py

test: env-optional  ## the whole suite: no network, no GPU; STACK=onedl on the forks
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

bench: env-optional  ## the speed and memory promised, measured; BENCH='small frozen' for some of it
	@$(BIN)/python tools/benchmark.py targets $(BENCH)

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# With --quiet MkDocs counts no warnings, and a strict build passes with any fault.
docs: env-docs  ## the manual as a site, in site/; fails on any warning, such as a broken link
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict
	@echo 'done: site/index.html'

# A stamp is written last, so a failed or interrupted install is done again.
env:
	@test "$$(cat $(VENV)/.stamp 2>/dev/null)" = '$(KEY)' || $(MAKE) --no-print-directory install

env-optional: env
	@test "$$(cat $(VENV)/.stamp-optional 2>/dev/null)" = '$(OPTIONAL_KEY)' || { \
	    $(PIP) -r requirements-optional.txt && echo '$(OPTIONAL_KEY)' > $(VENV)/.stamp-optional; }

env-docs:
	@test "$$(cat $(DOCS_VENV)/.stamp 2>/dev/null)" = '$(DOCS_KEY)' || \
	    $(MAKE) --no-print-directory install-docs

.PHONY: install install-docs check-python
install: check-python
	@rm -f $(VENV)/.stamp
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(MAKE) --no-print-directory install-$(STACK)
	$(PIP) -e .
	@echo '$(KEY)' > $(VENV)/.stamp

install-docs: check-python
	@rm -rf $(DOCS_VENV)
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check install --no-deps \
	    --only-binary :all: -r requirements-docs.txt
	@echo '$(DOCS_KEY)' > $(DOCS_VENV)/.stamp

.PHONY: install-openmmlab install-onedl install-onedl-compiled without-hosts
install-openmmlab:
	$(PIP) -r requirements.txt

without-hosts:
	sed -E '/^(mmengine|mmcv-lite|mmdet|mmsegmentation)==/d' requirements.txt > $(VENV)/locked.txt
	$(PIP) -r $(VENV)/locked.txt

# Built without torch in sight, mmcv leaves its operators out. pip keeps such a wheel and would take
# it for a compiled one, hence --no-cache-dir.
install-onedl: without-hosts
	$(INSTALL) --no-cache-dir -r $(HOSTS)

# pip builds all sdists of a call before it installs anything, so ninja comes before.
install-onedl-compiled: without-hosts
	$(PIP) $$(grep '^ninja==' $(HOSTS))
	PATH="$(abspath $(BIN)):$$PATH" MAX_JOBS=$${MAX_JOBS:-$$(nproc)} \
	    $(PIP) --no-cache-dir -r $(HOSTS)

check-python:
	@test -z '$(filter-out openmmlab onedl onedl-compiled,$(STACK))' || { \
	    echo 'STACK=$(STACK): choose openmmlab, onedl or onedl-compiled' >&2; exit 1; }
	@test '$(STACK)' != onedl-compiled || command -v c++ > /dev/null || { \
	    echo 'STACK=onedl-compiled: install a C++ compiler (Debian: apt install g++)' >&2; \
	    exit 1; }
	@command -v $(PYTHON) > /dev/null || { \
	    echo '$(PYTHON): not found; name one: PYTHON=python3.11 make ...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { \
	    echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), the locked wheels need Python 3.11 to 3.14;" \
	        'name one: PYTHON=python3.11 make ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	    echo '$(PYTHON) lacks the venv module; install it (Debian: apt install python3-venv)' \
	        'or name another Python: PYTHON=python3.11 make ...' >&2; exit 1; }

clean:
	rm -rf .venv .venv-onedl .venv-onedl-compiled .venv-docs build dist site *.egg-info \
	    .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
