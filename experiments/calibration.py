"""Make `figures/calibration/` anew, or check what is committed there.

    python experiments/calibration.py            # make and score every organism (about an hour the first time)
    python experiments/calibration.py --check    # redraw the committed record, score a few organisms again

Drawing is exact: the committed record must give the committed page and figures. Measuring is not, across processors:
training amplifies the last bit of a float. So a few organisms are made and scored again, and must be read as the
committed record reads them, at its threshold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from check_figures import compare

from interp.calibrate.__main__ import run
from interp.errors import InputError
from interp.records import loads
from interp.records.calibration import Calibration
from interp.runs import write_text

FOLDER = Path(__file__).parents[1] / "figures" / "calibration"
ODD = 1
"""Organisms of the small run that may be read differently: another processor trains other models."""


def read(folder: Path) -> Calibration:
    """The record of a folder. Raises InputError where it is missing or damaged."""
    from interp.calibrate import output

    try:
        return loads(Calibration, (folder / output.RECORD).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"no calibration in {folder}: {error.strerror}") from error


def redrawn(committed: Calibration) -> list[str]:
    """Where the committed record does not give the committed page and figures."""
    from interp.calibrate import output
    from interp.plots.calibration import draw_calibration
    from interp.plots.canonical import dumps

    with tempfile.TemporaryDirectory() as scratch:
        for drawn in draw_calibration(committed):
            write_text(Path(scratch) / f"{drawn.name}.json", dumps(drawn.figure))
        found = compare(Path(scratch), FOLDER)
    text = (FOLDER / output.PAGE).read_text(encoding="utf-8")
    return found + ([] if text == output.page(committed) else [f"{output.PAGE}: not what {output.RECORD} gives"])


def disagreements(committed: Calibration, fresh: Calibration) -> list[str]:
    """Where organisms and plants made again are not read as the committed ones."""
    from interp.calibrate.rules import SHARES

    then = {o.organism: o for o in committed.organisms}
    odd = []
    for o in fresh.organisms:
        was = then.get(o.organism)
        now = o.says[SHARES.name]
        if was is None:
            odd.append(f"{o.organism}: scored now, but not in the committed record")
        elif was.says[SHARES.name] != now:
            odd.append(f"{o.organism} ({o.truth}): committed as {was.says[SHARES.name]}, now {now}")
    found = odd if len(odd) > ODD else []
    default = committed.config["default locator"]
    hits = {r.organism: r.located == r.layer for r in committed.results if r.locator == default}
    for r in fresh.results:
        if r.locator == default and hits.get(r.organism) and r.located != r.layer:
            found.append(f"{r.organism}: {default} found layer {r.layer} then, layer {r.located} now")
    if not fresh.organisms:
        found.append("no organism of the small run could be made")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Make or check; 1 where something differs, 2 for bad input."""
    parser = argparse.ArgumentParser(description="Make figures/calibration anew, or check it.")
    parser.add_argument("--check", action="store_true", help="rewrite nothing; exit 1 where something differs")
    given = parser.parse_args(arguments)
    try:
        if not given.check:
            from interp.calibrate import output

            with tempfile.TemporaryDirectory() as scratch:
                code = run(["--out", str(Path(scratch) / "run")])
                if code == 0:
                    output.write(read(Path(scratch) / "run"), FOLDER)
            return code
        committed = read(FOLDER)
        found = redrawn(committed)
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "run"
            code = run(["--small", "--shape", "gpt2", "--no-figures", "--out", str(out)])
            if code:
                return code
            found += disagreements(committed, read(out))
    except InputError as error:
        print(f"calibration: {error}", file=sys.stderr)
        return 2
    print("\n".join(found) or f"the calibration agrees with {FOLDER}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
