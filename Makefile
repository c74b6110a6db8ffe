# make demo and make test do all the set-up: they create .venv and install the versions pinned in constraints.txt.
#
#   make demo                       the main job with the shipped toy weights, into runs/demo/
#   make demo SCRATCH=1             the same from nothing, into runs/scratch/
#   make demo DEMO_VIDEOS=folder    with your own videos (two files or more) in place of the shipped ones
#   make test                       lint and tests
#   make check                      lint and types
#   make clean                      remove .venv and caches; runs/ stays

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
SCRATCH ?=
DEMO_VIDEOS ?=

.PHONY: demo test check install clean
.DEFAULT_GOAL := install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python venv is missing: install the package python3-venv of your system"; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (some minutes the first time) ..."
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The folder goes through the environment (conf/demo.yaml reads it there): no shell or parser sees its name.
demo: override export DEMO_VIDEOS := $(value DEMO_VIDEOS)
demo: $(INSTALLED)
	@$(VENV)/bin/moviegen demo $(if $(filter-out 0 no false,$(SCRATCH)),scratch=true run_dir=runs/scratch)

test: $(INSTALLED)
	$(VENV)/bin/python -m ruff check .
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -v --timeout=600 --durations=60 -n 3 --dist loadfile --no-loadscope-reorder

check: $(INSTALLED)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m pyright

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
