"""How well a plan (`--dry-run`) foretells what a run then takes: forwards, tokens, peak memory, bytes on disk.

    python experiments/plans.py [NAME ...]   # run them (minutes each), write results/plans.json
    python experiments/plans.py --check      # are today's plans within 20 % of what was measured?

Each run is made in a fresh process with an empty cache; forwards and tokens are counted where a block's attention runs
(`interp.costs.counting`), memory is the largest resident memory of the process, disk all files of run folder and cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from interp.costs.counting import bytes_under, counting, peak_resident
from interp.runs import git_commit, read_json, write_json

RESULTS = Path(__file__).parent / "results" / "plans.json"
RUNS = {
    "compare sft dpo dinm": ("compare", "sft", "dpo", "dinm"),
    "table2, 6 instances": ("benchmark", "table2", "--limit", "6"),
    "table1, 4 instances": ("benchmark", "table1", "--limit", "4"),
}
"""All on the demo with the commands' own settings."""
WITHIN = 0.2
DEPTH = 6
"""Blocks of the demo's model."""
BACKWARD = "tokens with a backward pass"
"""Told, and not held to it: of edits they depend on the layers that instances locate, which no plan knows."""
Numbers = dict[str, float]


def plan(arguments: tuple[str, ...]) -> Numbers:
    """What the plan says, with nothing in the cache."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["INTERP_CACHE"] = f"{scratch}/cache"
        work, memory, disk = of_comparison(arguments) if arguments[0] == "compare" else of_table(arguments, scratch)
    return {
        "forwards": work.forwards,
        "tokens": work.tokens,
        BACKWARD: work.learning,
        "peak memory, bytes": max(memory.values()),
        "disk, bytes": sum(disk.values()),
    }


def of_comparison(arguments: tuple[str, ...]) -> Any:
    """Work, memory and disk of a comparison."""
    from interp.costs.comparison import Planned, comparison_disk, comparison_memory, comparison_work
    from interp.costs.work import total
    from interp.pipeline.settings import Settings
    from interp.pipeline.study import open_data, open_model

    settings = Settings(methods=arguments[1:])
    planned = Planned(settings, *open_data(settings), open_model(settings, settings.model, "vanilla"))
    return total(comparison_work(planned)), comparison_memory(planned), comparison_disk(planned)


def of_table(arguments: tuple[str, ...], scratch: str) -> Any:
    """Work, memory and disk of a table."""
    from interp.benchmark.costs import arm_work, asking_of, disk, memory
    from interp.benchmark.engine import Engine, share
    from interp.benchmark.settings import Settings
    from interp.costs.work import total
    from interp.pipeline.progress import Stages

    settings = Settings(arguments[1], instances=int(arguments[3]), out=Path(scratch) / "run")
    engine = Engine(settings, share(settings), Stages(quiet=True))
    asking = asking_of(engine)
    work = total(arm_work(engine, asking, arm, engine.units(arm)) for arm in engine.arms)
    return work, memory(engine, asking), disk(engine, asking)


def measured(name: str) -> Numbers:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--measure", name]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(arguments: tuple[str, ...]) -> Numbers:
    """Run it here and count."""
    with tempfile.TemporaryDirectory() as scratch, counting() as counted:
        os.environ["INTERP_CACHE"] = f"{scratch}/cache"
        if arguments[0] == "compare":
            from interp.compare import run
        else:
            from interp.benchmark.__main__ import run
        with redirect_stdout(sys.stderr):
            code = run([*arguments[1:], "--out", f"{scratch}/run"])
        if code:
            raise SystemExit(code)
        return {
            "forwards": counted.passes / DEPTH,
            "tokens": counted.positions / DEPTH,
            BACKWARD: counted.learning / DEPTH,
            "peak memory, bytes": float(peak_resident() or 0),
            "disk, bytes": float(bytes_under(Path(scratch))),
        }


def compared(names: list[str], record: dict[str, Any]) -> tuple[list[str], bool]:
    """One line per number: planned over measured; and whether those that are held to it are within 20 %."""
    lines, good = [], True
    for name in names:
        today = plan(RUNS[name])
        for what, value in record[name]["measured"].items():
            ratio = today[what] / value if value else 1.0
            good &= what == BACKWARD or abs(ratio - 1) <= WITHIN
            lines.append(f"{name:<22} {what:<28} planned {today[what]:>13,.0f}  measured {value:>13,.0f}  x{ratio:.2f}")
    return lines, good


def main() -> int:
    """Measure or check; 1 where a plan is off by more than 20 %."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *RUNS], help="which runs; all by default")
    parser.add_argument("--check", action="store_true", help="hold today's plans against the committed measurements")
    parser.add_argument("--measure", choices=list(RUNS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(RUNS[given.measure])))
        return 0
    record = read_json(RESULTS) if RESULTS.exists() else {}
    names = given.names or list(RUNS)
    if not given.check:
        for name in names:
            record[name] = {"measured": measured(name), "commit": git_commit()}
            write_json(RESULTS, record)
    lines, good = compared(names, record)
    print(*lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
