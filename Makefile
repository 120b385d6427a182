# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check -q
OUT    ?= demo
# Where PyTorch comes from: `auto` (the small CPU wheels unless there is an NVIDIA GPU), `cpu`, or
# `default` (the usual index).
TORCH  ?= auto
BROKEN := the environment in $(VENV) is broken or was moved; run make distclean, which removes it, and try again
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test soak export outputs readme hooks lock lab docs page distclean sound

demo: $(VENV)/.plain            ## a picture at once, then three small networks trained on synthetic people; ALL=1: five
	$(BIN)/dppt demo --out "$(OUT)" $(if $(ALL),--all)

test: $(VENV)/.dev              ## what CI runs: clean, export, README, ruff, notebooks, tests
	bash tools/check.sh

soak: $(VENV)/.dev              ## the same with all that is long by nature, of which `make test` runs a sample
	DPPT_SOAK=1 DPPT_FUZZ=$${DPPT_FUZZ:-10000} bash tools/check.sh

lab: $(VENV)/.dev               ## read the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

export: $(VENV)/.dev            ## notebooks -> package
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

outputs: $(VENV)/.dev           ## run every notebook and store its outputs
	$(BIN)/python tools/run_notebooks.py

readme: $(VENV)/.dev            ## nbs/index.ipynb -> README.md, and tools/pypi.md for the package index
	$(BIN)/python tools/readme.py

docs: $(VENV)/.docs             ## the site, into _site/: pages from the notebooks, reference, landing page (npm once)
	$(BIN)/python tools/docs.py

page: $(VENV)/.docs             ## the page that runs networks in a browser, alone, into _site/try/ (npm once)
	$(BIN)/python tools/browser_page.py

hooks: $(VENV)/.dev             ## git hooks that clean notebooks and merge them cell by cell
	$(BIN)/nbdev_install_hooks

lock: $(VENV)/.docs             ## write the versions that are installed now to requirements.lock
	$(BIN)/python tools/lock.py

help:                           ## what can be made
	@sed -n 's/^\([a-z]*\):.*## */\1|/p' Makefile | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'

distclean:                      ## forget the environment and everything built
	rm -rf $(VENV) build dist *.egg-info _docs _site demo    # not OUT, which may be anybody's folder

$(VENV)/bin/python:
	@! test -L $@ || { echo "$(BROKEN)"; exit 1; }    # a link that leads nowhere
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	  || { echo "dppt-nb needs Python 3.11 to 3.13; say which one to use: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Making the environment in $(VENV) (about a minute where packages are near, more on a slow line)"
	$(PYTHON) -m venv $(VENV)

# Looked at each time: has it pip and, once installed, this package, whose folder may have moved?
sound: | $(VENV)/bin/python
	@$(BIN)/python -I -c 'import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))' \
	  pip $(if $(wildcard $(VENV)/.plain),dppt_nb) 2>/dev/null || { echo "$(BROKEN)"; exit 1; }

# PyTorch first, so that the next line finds it there and does not fetch gigabytes of CUDA.
$(VENV)/.torch: requirements.lock | sound
	@bash tools/torch.sh $(TORCH) $(BIN)/pip
	@touch $@

$(VENV)/.plain: pyproject.toml requirements.lock $(VENV)/.torch
	$(PIP) install -c requirements.lock -e .
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock $(VENV)/.torch
	$(PIP) install -c requirements.lock -e '.[notebooks,dev,export]'
	@touch $@ $(VENV)/.plain

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) install -c requirements.lock -e '.[notebooks,dev,docs,export]'
	@touch $@
