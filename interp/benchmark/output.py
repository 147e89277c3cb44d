"""A table to files: CSV for spreadsheets, Markdown and LaTeX for people, JSON for programs, and a figure."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from interp.plots.text import fixed, rate
from interp.records import Estimate, Table, dumps
from interp.runs import write_text

FIGURE = "_figure"
"""Behind the artefact's name in those of the figure's files: its canonical JSON is another file than the table's."""
DECIMALS = {"s": 2, "nats": 4}
"""Of numbers in a unit other than percent; 1 where it is not here."""
WIDTH = 160
"""Columns of the printed table where it does not go to a terminal."""
TOGETHER = 7
"""Numbers in a printed row; tables that have more are printed in parts, one below the other."""


def write(table: Table, folder: Path, figures: bool = True) -> list[str]:
    """Write `<artefact>.{json,csv,md,tex}` and its figure; returns what to tell the user, one line each."""
    files = {"json": dumps(table) + "\n", "csv": to_csv(table), "md": to_markdown(table), "tex": to_latex(table)}
    for kind, text in files.items():
        write_text(folder / f"{table.artefact}.{kind}", text)
    told = [f"table        {folder / table.artefact}.{{{','.join(files)}}}"]
    if figures:
        from interp.plots.save import save_figure
        from interp.plots.tables import table_figure

        saved = save_figure(table_figure(table), folder, f"{table.artefact}{FIGURE}")
        told += [f"figure       {folder / table.artefact}{FIGURE}.png"] if not saved.note else [saved.note]
    return told


def to_csv(table: Table) -> str:
    """One line per number: row, column, value, low, high, n, unit, how, and the source (ours, or the paper's model)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "column", "value", "low", "high", "n", "unit", "interval", "source"])
    for row in table.rows:
        for column, e in row.cells.items():
            writer.writerow([row.name, column, e.value, e.low, e.high, e.n, e.unit, e.how, "ours"])
    for stated in table.paper:
        for column, value in stated.cells.items():
            writer.writerow([stated.name, column, value, "", "", "", "", "", f"paper, {stated.model}"])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """The table with intervals, the paper's rows under ours, and what it rests on."""
    lines = [f"# {table.artefact}: {table.title}", "", f"| row | {' | '.join(heads(table))} |"]
    lines += ["| --- " * (len(table.columns) + 1) + "|"]
    lines += [f"| {' | '.join(_pipes(cell) for cell in line)} |" for line in body(table)]
    lines += ["", "; ".join(f"{k}: {v}" for k, v in table.facts.items() if v), ""]
    return "\n".join([*lines, *(f"- {note}" for note in table.notes), ""])


def to_latex(table: Table) -> str:
    """A `tabular` for a paper (booktabs), intervals as subscripts."""
    lines = [f"% {table.artefact}: {table.title}"]
    lines += [f"% {'; '.join(f'{k}: {v}' for k, v in table.facts.items() if v)}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}", "\\toprule"]
    lines += [" & ".join(["", *(_tex(h) for h in heads(table))]) + " \\\\", "\\midrule"]
    for row in table.rows:
        cells = [_tex_cell(row.cells.get(c)) for c in table.columns]
        lines.append(" & ".join([_tex(row.name), *cells]) + " \\\\")
        for stated in (p for p in table.paper if p.name == row.name):
            cells = [fixed(stated.cells[c]) if c in stated.cells else "" for c in table.columns]
            lines.append(" & ".join([_tex(f"  paper, {stated.model}"), *cells]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def body(table: Table, decimals: int = 1) -> list[list[str]]:
    """Every line as text: our rows with intervals, the paper's below each. `decimals` is for percent."""

    def cell(e: Estimate | None) -> str:
        return "" if e is None else rate(e, decimals if e.unit == "%" else DECIMALS.get(e.unit, 1))

    lines = []
    for row in table.rows:
        lines.append([row.name, *(cell(row.cells.get(c)) for c in table.columns)])
        for stated in (p for p in table.paper if p.name == row.name):
            cells = [
                fixed(stated.cells[c], decimals if c != "fluency" else 1) if c in stated.cells else ""
                for c in table.columns
            ]
            lines.append([f"  paper, {stated.model}", *cells])
    return lines


def heads(table: Table) -> list[str]:
    """The column heads with units and, where all rows agree, n."""
    found = []
    for column in table.columns:
        estimates = [row.cells[column] for row in table.rows if column in row.cells]
        units, counts = {e.unit for e in estimates}, {e.n for e in estimates}
        unit = next(iter(units)) if len(units) == 1 else ""
        n = f", n = {next(iter(counts))}" if len(counts) == 1 else ""
        found.append(f"{column} ({unit or '%'}{n})")
    return found


def show(table: Table, told: list[str]) -> None:
    """Print the table, what it rests on, and the lines told about its making."""
    from rich.console import Console
    from rich.table import Table as Printed

    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    titles, lines = heads(table), body(table, decimals=0)
    for first in range(0, len(titles), TOGETHER):
        last = first + TOGETHER
        title = f"{table.artefact}: {table.title}" if first == 0 else None
        printed = Printed(title=title, title_justify="left")
        printed.add_column("", no_wrap=True)
        for head in titles[first:last]:
            printed.add_column(head, justify="right")
        for name, *cells in lines:
            stated = name.startswith("  paper")
            if any(cells[first:last]) or not stated:
                printed.add_row(name, *cells[first:last], style="dim" if stated else None)
        console.print(printed)
    for note in table.notes:
        console.print(f"- {note}", highlight=False)
    console.print("; ".join(f"{k}: {v}" for k, v in table.facts.items() if v), highlight=False)
    print("", *told, sep="\n")


def _pipes(text: str) -> str:
    return text.replace("|", "\\|").replace("  paper", "&nbsp;&nbsp;paper")


def _tex(text: str) -> str:
    for plain, escaped in (("&", "\\&"), ("%", "\\%"), ("_", "\\_"), ("#", "\\#")):
        text = text.replace(plain, escaped)
    return text


def _tex_cell(e: Estimate | None) -> str:
    if e is None:
        return ""
    value, low, high = (fixed(x, DECIMALS.get(e.unit, 1)) for x in (e.value, e.low, e.high))
    return f"${value}_{{[{low}, {high}]}}$" if e.low < e.high else f"${value}$"
