"""Parts shared by the figures that have one row per method: rows, bands of chance, ranges, legend squares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from interp.plots.theme import BAND, INK, MUTED, SMALL, traces
from interp.records import Comparison, ComparisonRow

LANE = 0.42
"""Half the height of a row."""


def methods(comparison: Comparison) -> list[ComparisonRow]:
    """The rows that something was done to: all but vanilla."""
    return [row for row in comparison.rows if row.name != "vanilla"]


def band(fig: go.Figure, y: float, low: float, high: float, col: int, half: float = LANE) -> None:
    """The grey ground of what chance gives, on one row of one panel."""
    fig.add_shape(
        type="rect", x0=low, x1=high, y0=y - half, y1=y + half, fillcolor=BAND, line={"width": 0}, layer="below",
        row=1, col=col,
    )  # fmt: skip


def say(fig: go.Figure, text: str, y: float, col: int) -> None:
    """A text in the middle of one row of one panel, where there is nothing to draw."""
    axis = "" if col == 1 else str(col)
    fig.add_annotation(
        text=text, x=0.5, xref=f"x{axis} domain", y=y, yref=f"y{axis}", font={"size": SMALL, "color": MUTED}
    )


def fit(fig: go.Figure, col: int) -> None:
    """Set a panel's range to hold its bands, bars and intervals with some room (shapes alone would be cut)."""
    axis = "x" if col == 1 else f"x{col}"
    found = [0.0]
    for shape in fig.layout.shapes:
        if shape.xref == axis:
            found += [shape.x0, shape.x1]
    for trace in traces(fig):
        if (trace.xaxis or "x") == axis:
            for i, x in enumerate(trace.x):
                up, down = trace.error_x.array, trace.error_x.arrayminus
                found += [x + (up[i] if up is not None else 0.0), x - (down[i] if down is not None else 0.0)]
    found = [x for x in found if math.isfinite(x)]
    low, high = min(found), max(found)
    room = 0.06 * (high - low) or 0.5
    fig.update_xaxes(range=[low - room if low < 0 else 0, high + room], row=1, col=col)


def zero_lines(fig: go.Figure, columns: Sequence[int], rows: int) -> None:
    """A line at zero in some panels."""
    for column in columns:
        fig.add_shape(
            type="line", x0=0, x1=0, y0=-0.5, y1=rows - 0.5, line={"color": INK, "width": 1}, row=1, col=column
        )


def row_axis(fig: go.Figure, labels: list[str]) -> None:
    """Name the rows, the first on top."""
    n = len(labels)
    fig.update_yaxes(tickvals=list(range(n)), range=[n - 0.5, -0.5], showgrid=False, ticks="")
    fig.update_yaxes(ticktext=labels)


def legend_squares(fig: go.Figure, entries: Sequence[tuple[str, str]]) -> None:
    """Squares in the legend for what is drawn as shapes."""
    for text, color in entries:
        fig.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="markers", name=text, showlegend=True, hoverinfo="skip",
                marker={"symbol": "square", "size": 12, "color": color},
            )
        )  # fmt: skip


def muted(text: str) -> str:
    """A second line of a label, small and grey."""
    return f'<span style="font-size:{SMALL}px;color:{MUTED}">{text}</span>'
