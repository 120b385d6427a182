# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check -q
OUT    ?= demo
MODULES := $(wildcard dppt_nb/*.py)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test check export clean outputs readme hooks lock lab distclean

demo: $(VENV)/.plain            ## train nano networks on synthetic people and show what they learned
	$(BIN)/dppt demo --out $(OUT)

test: $(VENV)/.dev              ## what CI runs: clean, export, notebooks, tests
	bash tools/check.sh

lab: $(VENV)/.dev               ## read the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

export: $(VENV)/.dev            ## notebooks -> package
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export

outputs: $(VENV)/.dev           ## run every notebook and store its outputs
	$(BIN)/python tools/run_notebooks.py

readme: $(VENV)/.dev            ## nbs/index.ipynb -> README.md
	$(BIN)/python tools/readme.py

hooks: $(VENV)/.dev             ## git hooks that clean notebooks and merge them cell by cell
	$(BIN)/nbdev_install_hooks

lock: $(VENV)/.dev              ## write the versions that are installed now to requirements.lock
	$(BIN)/python tools/lock.py

distclean:                      ## forget the environment and everything built
	rm -rf $(VENV) build dist *.egg-info $(OUT)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "dppt-nb needs Python 3.11 to 3.13; say which one to use: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Making the environment in $(VENV) (about a minute where packages are near, more on a slow line)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.plain: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) install -c requirements.lock -e .
	@touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) install -c requirements.lock -e '.[notebooks,dev]'
	@touch $@ $(VENV)/.plain
