"""One analysis of the mechanism laboratory as panels and words: what a figure, a report section and a reader need.

Each analysis (`interp.mechanism`) returns a `Finding`; the deep report, its figures and its token views are drawn from
findings alone. Panels of one finding share a figure, in the order curves, bars, grids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from interp.records.numbers import Estimate


@dataclass(frozen=True)
class Curve:
    """One line of a panel: a model, or a control."""

    name: str
    """Row of the comparison ("vanilla", "sft", ...), or what the control is."""
    x: tuple[float, ...]
    y: tuple[Estimate, ...]
    """One estimate per x, with its interval and n."""
    control: bool = False
    """Drawn grey and dashed: what chance, a random direction or an untouched model gives."""

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.name}: {len(self.x)} places and {len(self.y)} values")


@dataclass(frozen=True)
class Curves:
    """Lines over one axis: layers, positions, doses, steps."""

    title: str
    x_label: str
    """With its unit."""
    y_label: str
    """With its unit."""
    curves: tuple[Curve, ...]
    marked: tuple[float, ...] = ()
    """Places on x to mark, e.g. the located layer."""
    log_x: bool = False
    ticks: tuple[str, ...] = ()
    """Names of the x values where they are no numbers (x is then 0, 1, ...)."""


@dataclass(frozen=True)
class Bars:
    """Grouped bars: one group per name, one bar in it per series."""

    title: str
    y_label: str
    groups: tuple[str, ...]
    """Usually the models."""
    series: dict[str, tuple[Estimate | None, ...]]
    """One estimate per group; None: not measured."""
    stacked: bool = False
    """Whether the series add up within a group."""

    def __post_init__(self) -> None:
        for name, values in self.series.items():
            if len(values) != len(self.groups):
                raise ValueError(f"series {name}: {len(values)} values for {len(self.groups)} groups")


@dataclass(frozen=True)
class Grid:
    """A heatmap."""

    title: str
    """Usually the model."""
    x_label: str
    y_label: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    values: Float[np.ndarray, "y x"]
    unit: str
    n: int
    """How many inputs a cell is the mean of."""
    signed: bool = False
    """Whether zero is the middle of the colour scale."""
    marked: tuple[tuple[int, int], ...] = ()
    """Cells (row, column) to mark."""


@dataclass(frozen=True)
class Tokens:
    """A text with a number on each token, for the token views of the report."""

    title: str
    """The model, and which prompt."""
    tokens: tuple[str, ...]
    values: dict[str, tuple[float, ...]]
    """What is shown (with its unit) -> one number per token."""


@dataclass(frozen=True)
class Finding:
    """What one analysis says, with its evidence."""

    name: str
    """File name of its figure and anchor of its section: lower case, no blanks."""
    title: str
    question: str
    """What is asked, one sentence."""
    reading: str
    """What the numbers say, one or two sentences, made from the numbers."""
    how_to_read: str
    limits: str
    """What it does not say."""
    n: int
    """Inputs (prompts, texts, edits) that the numbers rest on."""
    seed: int
    source: str = ""
    """Paper and equation that it follows."""
    curves: tuple[Curves, ...] = ()
    bars: tuple[Bars, ...] = ()
    grids: tuple[Grid, ...] = ()
    tokens: tuple[Tokens, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    """Further numbers in words, by name."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.name != self.name.lower() or not self.name.replace("_", "").isalnum():
            raise ValueError(f"expected a lower-case name of letters, digits and _, got {self.name!r}")
