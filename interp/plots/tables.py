"""A table of the paper as a figure: panels of points with intervals, or a matrix where rows and columns are alike."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.text import fixed, safe
from interp.plots.theme import INK, MUTED, SMALL, errors, finish, heading
from interp.records import Estimate, Table

MATRICES = ("table11", "layers")
PANELS = (
    "DS and DG",
    "DS",
    "DG-Avg",
    "KQA",
    "answer KL",
    "over-refusal, wrapped",
    "otherAQ",
    "onlyQ",
    "over-refusal",
    "fluency",
    "weight change",
    "peak memory",
    "of the weights",
    "seconds",
)
"""Columns that are drawn, the ones that decide first."""
MOST = 5
DECADES = 20.0
"""Seconds, or KL, that differ by more than this factor are drawn on a logarithmic axis."""
PAPER_SYMBOLS = ("triangle-up-open", "square-open")
WIDTH = 900


def table_figure(table: Table) -> go.Figure:
    """The figure of a table: `matrix` for crossed categories and layer counts, else `points`."""
    return matrix(table) if table.artefact in MATRICES else points(table)


def points(table: Table) -> go.Figure:
    """One panel per metric, one line per row: ours with its interval, the paper's as open symbols."""
    columns = [c for c in PANELS if c in table.columns][:MOST]
    names = [row.name for row in table.rows]
    fig = make_subplots(rows=1, cols=max(len(columns), 1), shared_yaxes=True, horizontal_spacing=0.03)
    models = list(dict.fromkeys(row.model for row in table.paper))
    told: set[str] = set()
    for c, column in enumerate(columns, start=1):
        every = [(row.name, row.cells[column]) for row in table.rows if column in row.cells]
        logarithmic = wide([e for _, e in every])
        found = [(name, e) for name, e in every if e.value > 0 or not logarithmic]
        estimates = [e for _, e in found]
        fig.add_trace(
            go.Scatter(
                x=[e.value for e in estimates], y=[safe(name) for name, _ in found], mode="markers",
                marker={"color": INK, "size": 8}, error_x=errors(estimates), name="ours", legendgroup="ours",
                showlegend=c == 1, customdata=[[e.low, e.high, e.n] for e in estimates],
                hovertemplate="%{y}: %{x:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], n = %{customdata[2]}"
                "<extra></extra>",
            ), row=1, col=c,
        )  # fmt: skip
        for symbol, model in zip(PAPER_SYMBOLS, models, strict=False):
            stated = [(r.name, r.cells[column]) for r in table.paper if r.model == model and column in r.cells]
            fig.add_trace(
                go.Scatter(
                    x=[v for _, v in stated], y=[safe(name) for name, _ in stated], mode="markers",
                    marker={"color": MUTED, "symbol": symbol, "size": 8}, name=f"paper, {safe(model)}",
                    legendgroup=model, showlegend=bool(stated) and model not in told,
                    hovertemplate="%{y}: %{x}<extra>paper</extra>",
                ), row=1, col=c,
            )  # fmt: skip
            told |= {model} if stated else set()
        ref = "" if c == 1 else str(c)
        heading(fig, safe(column), x=0, xref=f"x{ref} domain", y=1.01, yref=f"y{ref} domain")
        unit = next((e.unit for e in estimates if e.unit), "%")
        percent = unit == "%" and column != "weight change"
        zero = " (0 not drawn)" if len(found) < len(every) else ""
        fig.update_xaxes(title={"text": unit + zero}, row=1, col=c)
        if percent:
            fig.update_xaxes(range=[-4, 104], dtick=50, row=1, col=c)
        elif logarithmic:
            fig.update_xaxes(type="log", dtick=1, row=1, col=c)
        else:
            fig.update_xaxes(nticks=4, row=1, col=c)
    order = [safe(name) for name in reversed(names)]
    fig.update_yaxes(categoryorder="array", categoryarray=order, range=[-0.6, len(names) - 0.4])
    fig.update_layout(legend={"y": 1, "yref": "container", "yanchor": "top"})
    return finish(fig, WIDTH, 130 + 26 * len(names), margin={"t": 62, "l": 130, "b": 56})


def wide(estimates: Sequence[Estimate]) -> bool:
    """Whether seconds, or KL, differ so much that only a logarithmic axis tells the small ones apart."""
    positive = [e.value for e in estimates if e.value > 0 and e.unit in ("s", "nats")]
    return bool(positive) and max(positive) > DECADES * min(positive)


def matrix(table: Table) -> go.Figure:
    """Rows by columns, the value in each cell."""
    values = [[row.cells[c].value if c in row.cells else None for c in table.columns] for row in table.rows]
    fig = go.Figure(
        go.Heatmap(
            z=values, x=_labels(table.columns), y=_labels([row.name for row in table.rows]), zmin=0, zmax=100,
            text=[["" if v is None else fixed(v, 0) for v in line] for line in values],
            texttemplate="%{text}", textfont={"size": SMALL}, colorbar={"title": {"text": "%"}},
            hovertemplate="%{y} / %{x}: %{z:.1f} %<extra></extra>",
        )
    )  # fmt: skip
    across, down = ("category asked", "category edited on") if table.artefact == "table11" else ("layer", "convention")
    counts = {e.n for row in table.rows for e in row.cells.values()}
    if table.artefact == "layers" and len(counts) == 1:
        across += f" (share of {counts.pop()} instances that locate it)"
    fig.update_xaxes(title={"text": across}, side="bottom", showgrid=False)
    fig.update_yaxes(title={"text": down}, autorange="reversed", showgrid=False)
    return finish(fig, 760, 100 + 34 * len(table.rows), margin={"t": 16, "l": 150, "b": 64})


def _labels(names: Sequence[str]) -> list[str]:
    return [safe(name.removeprefix("layer ")) for name in names]
