"""What a comparison leaves behind: the record, the raw generations, figures, the report, the table on the terminal.

Records in, files out: nothing here loads a model, so that `figures/` can be redrawn from a committed record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp.errors import InputError
from interp.judges.panel import agreement_lines
from interp.pipeline.progress import Stages
from interp.pipeline.settings import Settings
from interp.records import Comparison, Finding, Response, dumps
from interp.runs import Run, write_text

if TYPE_CHECKING:
    from interp.plots.gallery import Drawn


PIPE_WIDTH = 140
"""Columns of the table where it does not go to a terminal (a log, a file)."""


@dataclass(frozen=True)
class Deep:
    """What the laboratory found; nothing where it was not asked for."""

    findings: tuple[Finding, ...] = ()
    told: tuple[str, ...] = ()
    """One line for each analysis that could not be done."""


def write_records(run: Run, comparison: Comparison) -> list[str]:
    """Write the generations and the record into the run folder; returns what to tell the user, one line each.

    The record comes last: a run with `comparison.json` is complete.
    """
    parts = [response for row in comparison.rows for response in responses(run, row.name)]
    run.save_all("generations", parts)
    record = run.path / "comparison.json"
    told = [line for a in comparison.agreements for line in agreement_lines(a)]
    told += [f"record       {record}", f"generations  {run.path / 'generations.jsonl'}"]
    if not record.exists():
        write_text(record, dumps(comparison) + "\n")
    return told


def write_pictures(run: Run, comparison: Comparison, settings: Settings, stages: Stages, deep: Deep) -> list[str]:
    """Write figures and the report, where they are asked for; returns what to tell the user, one line each."""
    told = [f"deep         {run.path / 'deep'}"] if deep.findings else []
    told += [f"deep         {line}" for line in deep.told]
    if settings.figures:
        from interp.plots.report import write_report

        with stages.stage("figures and report"):
            drawn, hint = draw(comparison, run.path / "figures", deep.findings)
            write_report(comparison, drawn, run.path / "report.html", findings=deep.findings, not_done=deep.told)
        told += [f"figures      {run.path / 'figures'}", f"report       {run.path / 'report.html'}"]
        told += [hint] if hint else []
    return told


def start_drawing() -> None:
    """Start what draws the figures in the background; never fails, never waits."""
    from interp.plots.save import start_renderer

    start_renderer()


def responses(run: Run, name: str) -> list[Response]:
    """Every response of one row, in the order of its parts."""
    whole = run.load_all(f"parts/{name}", Response)
    if whole:
        return whole
    # Hidden files are what a killed write left behind.
    parts = [p for p in (run.path / "parts" / name).glob("*.jsonl") if not p.name.startswith(".")]
    files = sorted(parts, key=lambda p: int(p.stem))
    found = [r for file in files for r in run.load_all(f"parts/{name}/{file.stem}", Response)]
    if not found:
        raise InputError(f"the responses of {name} are gone from {run.path / 'parts'}; delete the folder and run again")
    return found


def draw(comparison: Comparison, folder: Path, findings: Sequence[Finding] = ()) -> tuple[Sequence[Drawn], str]:
    """Draw every figure of a comparison and of the laboratory into a folder (PNG, SVG, canonical JSON, captions).

    Returns:
        The figures with their captions, and one line for the user where PNG and SVG could not be made, else "".
    """
    from interp.plots.findings import draw_findings
    from interp.plots.gallery import draw, save_gallery

    drawn = (*draw(comparison), *draw_findings(findings))
    return drawn, save_gallery(drawn, folder, planted=comparison.planted).note


def show(comparison: Comparison, run: Run, told: list[str]) -> None:
    """Print the table, the conclusions in words and where everything is, on standard output."""
    from rich.console import Console

    from interp.plots.table import print_comparison

    console = Console()
    print_comparison(comparison, console if console.is_terminal else Console(width=PIPE_WIDTH))
    print(f"\nrun          {run.path}")
    print("\n".join(told))
