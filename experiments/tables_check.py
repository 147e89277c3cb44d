"""Check figures/tables/: `python experiments/tables_check.py`; exit code 1 and one line for each difference.

Drawing is exact: each committed table must give its committed files, the figure by its canonical JSON. Measuring is
not, across processors: a small Table 2 is run again, and its rates must lie within the intervals as in `figures.py`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tables_common import TABLES, read

from figures import SLACK
from interp.benchmark import output
from interp.benchmark.__main__ import run
from interp.errors import InputError
from interp.plots.canonical import differences, dumps
from interp.plots.tables import table_figure
from interp.records import Estimate, Table
from interp.runs import read_json, write_text

AGAIN, INSTANCES = "table2", 9
TEXTS = {"csv": output.to_csv, "md": output.to_markdown, "tex": output.to_latex}


def redrawn(folder: Path) -> Iterator[str]:
    """Where a committed table does not give the files committed beside it.

    Raises:
        InputError: no table, or a file is missing.
    """
    names = [f.stem for f in sorted(folder.glob("*.json")) if not f.stem.endswith(output.FIGURE)]
    if not names:
        raise InputError(f"no tables in {folder}")
    for name in names:
        table = read(folder, name)
        for kind, text in TEXTS.items():
            file = folder / f"{name}.{kind}"
            if not file.exists() or file.read_text(encoding="utf-8") != text(table):
                yield f"{file.name}: not what {name}.json gives"
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / "figure.json"
            write_text(fresh, dumps(table_figure(table)))
            drawn = read_json(fresh)
        committed = read_json(folder / f"{name}{output.FIGURE}.json")
        yield from (f"{name}{output.FIGURE}: {line}" for line in differences(drawn, committed))


def rates(table: Table) -> dict[str, Estimate]:
    """Every behavioural rate by row and column, percent."""
    return {
        f"{row.name}, {column}": e
        for row in table.rows
        for column, e in row.cells.items()
        if e.unit == "%" and column != "weight change"
    }


def disagreements(committed: Table, fresh: Table) -> Iterator[str]:
    """Rates that lie further apart than the larger half-width of their intervals and `SLACK` allow, or are missing."""
    now = rates(fresh)
    for name, was in rates(committed).items():
        if name not in now:
            yield f"{name}: committed, but not measured now"
            continue
        room = SLACK + max(e.high - e.low for e in (was, now[name])) / 2
        if abs(now[name].value - was.value) > room:
            yield f"{name}: committed {was.value:.1f} %, now {now[name].value:.1f} %, allowed {room:.1f} apart"


def main() -> int:
    """Check; 1 where something differs, 2 where there is nothing to check."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        found = list(redrawn(TABLES))
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "run"
            code = run([AGAIN, "--limit", str(INSTANCES), "--no-figures", "--out", str(out)])
            if code:
                return code
            found += disagreements(read(TABLES, AGAIN), read(out, AGAIN))
    except InputError as error:
        print(f"tables_check: {error}", file=sys.stderr)
        return 2
    print("\n".join(found) or f"the tables agree with {TABLES}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
