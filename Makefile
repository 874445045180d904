# make book | gene-pages | ablations | test | check-book | notebooks | clean
# Needs Python 3.11 or newer, make and git; the rest is made here, in .venv and _build.
# Variables: PROFILE=smoke|book|full   PYTHON=the Python to start from   PY=an environment's own Python, used as it is.
#            GENE_MODEL=a folder with a GSFM, or the name of a shipped one, for the gene explorer

PYTHON ?= python3
PROFILE ?= book

ifndef PY
PY := .venv/bin/python
# one stamp per content of the two files: a change of either brings the environment up to date
ENVIRONMENT := .venv/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
endif

.PHONY: help book gene-pages ablations test check-book notebooks colab clean
help:
	@sed -n 's/^# //p' Makefile | head -3

book: $(ENVIRONMENT)
	$(PY) tools/build_book.py --profile $(PROFILE)

# the gene explorer's files alone, made anew when the model, the libraries or the code changed
gene-pages: $(ENVIRONMENT)
	$(PY) tools/gene_pages.py --profile $(PROFILE)

# the grid of the ablations, PROFILE=smoke (some minutes) or full (a night on two cores); stopped, it goes on
ablations: $(ENVIRONMENT)
	$(PY) benchmarks/ablations.py --profile $(PROFILE) --run-dir _build/ablations/$(PROFILE)

test: $(ENVIRONMENT)
	$(PY) -m ruff check .
	$(PY) -m pytest

check-book: $(ENVIRONMENT)
	$(PY) tools/check_book.py

notebooks: $(ENVIRONMENT)
	$(PY) tools/notebooks.py derive

# in an environment that lacks the package: the setup cells must bring it
colab: $(ENVIRONMENT)
	$(PY) -m pip install --quiet papermill
	@set -e; mkdir -p _build; cd _build; for notebook in ../notebooks/[!_]*.ipynb; do \
	  echo "$$notebook"; $(PY) -m papermill --no-progress-bar -k python3 -p profile smoke $$notebook colab.ipynb; done

clean:
	rm -rf _build .pytest_cache .ruff_cache

$(ENVIRONMENT):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11; name another: make PYTHON=/path/to/python3"; exit 1; }
	@echo "environment: installing into .venv (some minutes the first time, about 3 GB)"
	@$(PYTHON) -m venv .venv || { echo "$(PYTHON) cannot make environments; on Debian: apt install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test]"
	@rm -f .venv/installed-*
	@touch $@
