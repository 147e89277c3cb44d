"""A table of the paper on our data."""

from __future__ import annotations

from dataclasses import dataclass

from interp.records.numbers import Estimate


@dataclass(frozen=True)
class TableRow:
    """One row of a table: a method, or what else the table counts."""

    name: str
    cells: dict[str, Estimate]
    """By column, each with its unit; a column that was not measured is not there."""


@dataclass(frozen=True)
class PaperRow:
    """What the paper states for the row of the same name."""

    name: str
    model: str
    cells: dict[str, float]


@dataclass(frozen=True)
class Table:
    """A table of the paper on our data, with the paper's numbers beside it."""

    artefact: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    paper: tuple[PaperRow, ...]
    facts: dict[str, str]
    """What it was run on: model, data, n, seed, judge, versions."""
    notes: tuple[str, ...] = ()
