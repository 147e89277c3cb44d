"""Compare regenerated figures with the committed ones by their canonical JSON, number by number, never by pixels.

    python experiments/check_figures.py NEW [COMMITTED]     # folders of <name>.json; COMMITTED defaults to figures/

Tolerances: rtol 1e-4, atol 1e-6. Arrays that plotly stored as base64 are decoded first. JSON files that are no figures
are left alone. Exit code 1 and one line per difference where something differs, is missing, or is new; 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from interp.errors import InputError
from interp.plots.canonical import ATOL, RTOL, differences
from interp.runs import read_json

FIGURES = Path(__file__).parents[1] / "figures"
SHOWN = 5
"""Differences printed per figure."""


def figures(folder: Path) -> dict[str, Any]:
    """Name -> figure, for every JSON file of a folder that holds one.

    Raises:
        InputError: no such folder, no figure in it, or a file that is not JSON.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of figures, got {folder}")
    read = {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
    found = {name: data for name, data in read.items() if isinstance(data, dict) and {"data", "layout"} <= {*data}}
    if not found:
        raise InputError(f"{folder} holds no figure (JSON with data and layout)")
    return found


def compare(new: Path, committed: Path, rtol: float = RTOL, atol: float = ATOL) -> list[str]:
    """What differs between two folders of figures, one line each; empty where they agree."""
    ours, theirs = figures(new), figures(committed)
    lines = []
    for name in sorted({*ours, *theirs}):
        if name not in ours:
            lines.append(f"{name}: committed, but not regenerated")
        elif name not in theirs:
            lines.append(f"{name}: regenerated, but not committed")
        else:
            found = list(differences(ours[name], theirs[name], rtol=rtol, atol=atol))
            lines += [f"{name}: {line}" for line in found[:SHOWN]]
            lines += [f"{name}: and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Compare two folders; 1 where something differs."""
    parser = argparse.ArgumentParser(description="Compare regenerated figures with the committed ones.")
    parser.add_argument("new", type=Path, help="folder of regenerated figures")
    parser.add_argument("committed", type=Path, nargs="?", default=FIGURES, help="folder of committed figures")
    parser.add_argument("--rtol", type=float, default=RTOL)
    parser.add_argument("--atol", type=float, default=ATOL)
    given = parser.parse_args(arguments)
    try:
        lines = compare(given.new, given.committed, given.rtol, given.atol)
    except (InputError, json.JSONDecodeError) as error:
        print(f"check_figures: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines) or f"{len(figures(given.committed))} figures agree with {given.committed}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
