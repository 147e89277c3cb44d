# Two commands are enough on a fresh machine: `make compare` and `make test`. Both set up .venv first.
PYTHON ?= python3
PY := .venv/bin/python
export OMP_WAIT_POLICY ?= PASSIVE
# Test files are dealt out to as many workers as there are cores, in the order that tests/conftest.py gives them.
WORKERS ?= -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: compare test lint figures notebooks browser

compare: .venv/.installed browser
	$(PY) -m interp.compare sft dpo dinm

test: .venv/.installed browser
	OMP_NUM_THREADS=1 $(PY) -m pytest $(WORKERS)

lint: .venv/.installed
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright

figures: .venv/.installed browser
	$(PY) experiments/figures.py

notebooks: .venv/.installed
	$(PY) experiments/notebooks.py

# torch first and pinned, so that no other package chooses one. On Linux PyPI's build brings CUDA packages along.
# Compiling what was installed is left to all processors; templates among it are no Python, and that is no fault.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "interp needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --no-compile torch==2.13.0
	$(PY) -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	$(PY) -W ignore -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
	touch $@

# A browser draws PNG and SVG and runs the page tests. Without root the hint is printed and everything else still works.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 || \
	if command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null; \
	else echo "note: no Chromium found; PNG and SVG need it (Debian: sudo apt-get install chromium fonts-liberation)"; fi
