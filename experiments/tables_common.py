"""What the scripts of the paper's tables share: run the benchmark, then write its files to figures/tables/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from interp.benchmark import output
from interp.benchmark.__main__ import run
from interp.errors import InputError
from interp.records import Table, loads
from interp.runs import source_hash

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "figures" / "tables"


def make(artefact: str, *options: str) -> int:
    """Make an artefact on the demo and write figures/tables/<artefact>.*; the exit code of the benchmark.

    A killed run continues when the script is started again; a run of other source code gets a folder of its own.
    """
    folder = ROOT / "runs" / "tables" / f"{artefact}-{source_hash()[:8]}"
    code = run([artefact, *options, "--out", str(folder)])
    if code == 0:
        output.write(read(folder, artefact), TABLES)
    return code


def read(folder: Path, artefact: str) -> Table:
    """The table in a folder. Raises InputError where it is not there."""
    file = folder / f"{artefact}.json"
    if not file.exists():
        raise InputError(f"no such table: {file}")
    return loads(Table, file.read_text(encoding="utf-8"))


def script(description: str | None, artefact: str, *options: str) -> None:
    """The whole of a script, which has no options of its own."""
    argparse.ArgumentParser(description=description).parse_args()
    sys.exit(make(artefact, *options))
