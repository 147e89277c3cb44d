# What .ci/run checks after the tests, long steps first. With -j2 -O two of them run side by side on one thread each, and
# what a step says is printed when it ends. After one that fails none is begun, and make fails.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
PY := .venv/bin/python
STEP = exec 2>&1; printf '\n== %s\n' '$@'; trap 'printf "== %s: %s s\n" "$@" "$$SECONDS"' EXIT; set -x
export OMP_NUM_THREADS := 1

.PHONY: all figures deep calibration lint demo notebooks tables plans
all: calibration figures lint notebooks demo deep tables plans

# The notebooks take longest. Make would start these before them as long as the notebooks' own prerequisites are not made,
# and then run the notebooks alone at the end.
demo deep tables plans: | lint

# The main job; figures regenerated and compared with the committed ones.
figures:
	@$(STEP)
	$(PY) experiments/figures.py --check

# The mechanism laboratory: figures redrawn, cheap analyses measured again in the run that `figures` leaves.
deep: figures
	@$(STEP)
	$(PY) experiments/deep_figures.py --check

# Page and figures of the calibration redrawn, a few organisms made and scored again.
calibration:
	@$(STEP)
	$(PY) experiments/calibration.py --check

# Format, lint, types. A make of its own, whose output waits for the end of the step like any other.
lint:
	@$(STEP)
	env -u MAKEFLAGS make lint

# The shipped demo models behave as their card says.
demo:
	@$(STEP)
	$(PY) -m interp.demo.evaluate --check
	$(PY) -m interp.demo.evaluate --model interp/demo/llama --out interp/demo/llama_evaluation.json --check
	$(PY) -m interp.demo.evaluate --model interp/demo/replica --out interp/demo/replica_evaluation.json --check
	$(PY) -m interp.demo.pretrain --check --until 25

# Notebooks executed, with what the steps before them trained.
notebooks: figures calibration
	@$(STEP)
	$(PY) experiments/notebooks.py --check

# The paper's tables: figures redrawn, a smaller run held to the committed one.
tables:
	@$(STEP)
	$(PY) experiments/tables_check.py
	$(PY) experiments/edit_every_layer.py --check

# Plans hold; the record of how cost grows redrawn.
plans:
	@$(STEP)
	$(PY) experiments/plans.py --check
	$(PY) experiments/benchmarks/growth.py --check
