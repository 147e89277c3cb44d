"""How the cost of each operation grows with the size of the model and of its input."""

from __future__ import annotations

from dataclasses import dataclass

from interp.records.numbers import Estimate


@dataclass(frozen=True)
class GrowthAxis:
    """One size varied while the others stay at the base point."""

    name: str
    """What is varied, with its unit."""
    values: tuple[int, ...]
    base: int
    """Its value at the base point."""
    costs: dict[str, tuple[Estimate, ...]]
    """Operation -> CPU time at each value, in plain forwards of the base point (median; smallest to largest)."""
    against_plain: dict[str, tuple[float, ...]]
    """Operation -> CPU time at each value, in plain forwards of that very point (of medians)."""
    exponents: dict[str, Estimate]
    """Operation -> slope of log cost over log size."""


@dataclass(frozen=True)
class Growth:
    """What a run of the growth benchmark measured."""

    axes: tuple[GrowthAxis, ...]
    operations: dict[str, str]
    """Operation, the baseline first -> what one measurement of it does."""
    groups: dict[str, tuple[str, ...]]
    """Rows of the figure -> their operations."""
    baseline: str
    """The operation that is the unit."""
    repeats: int
    facts: dict[str, str]
    """What it was measured on: base point, model, threads, versions, commit."""
