"""How cost grows: every operation in units of a plain forward against each size, and the exponents with intervals."""

from __future__ import annotations

import math
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.save import Saved, save_figures
from interp.plots.text import fixed
from interp.plots.theme import MUTED, errors, finish, heading
from interp.records.growth import Growth

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
"""By place within a group: every row of panels has its own legend."""
GAP = 0.11
"""Between rows of panels, of the figure's height."""


def figures(growth: Growth) -> dict[str, go.Figure]:
    """Name -> figure."""
    return {"growth": cost_figure(growth), "growth_exponents": exponent_figure(growth)}


def save(growth: Growth, folder: Path) -> Saved:
    """Write the figures (PNG, SVG, canonical JSON)."""
    return save_figures(figures(growth), folder)


def cost_figure(growth: Growth) -> go.Figure:
    """Rows: groups of operations; columns: sizes. Whiskers: smallest to largest repeat. Dotted: the plain forward."""
    rows, columns = len(growth.groups), len(growth.axes)
    fig = make_subplots(rows=rows, cols=columns, shared_yaxes=True, horizontal_spacing=0.02, vertical_spacing=GAP)
    height = (1 - GAP * (rows - 1)) / rows
    for r, names in enumerate(growth.groups.values(), start=1):
        legend = f"legend{r if r > 1 else ''}"
        for c, axis in enumerate(growth.axes, start=1):
            for place, name in enumerate((growth.baseline, *names), start=-1):
                line = {"color": MUTED, "width": 1.5, "dash": "dot"} if place < 0 else {"color": COLORS[place]}
                costs = axis.costs[name]
                fig.add_trace(
                    go.Scatter(
                        x=list(axis.values), y=[e.value for e in costs], name=name, legend=legend, showlegend=c == 1,
                        mode="lines" if place < 0 else "lines+markers", line=line,
                        error_y={**errors(costs, thickness=1), "color": line["color"], "width": 2},
                        marker={"symbol": SYMBOLS[place], "size": 6},
                        hovertemplate=f"{name}: %{{y:.3g}} plain forwards at %{{x}}<extra></extra>",
                    ), row=r, col=c,
                )  # fmt: skip
            ticks = [str(v) for v in axis.values]
            fig.update_xaxes(type="log", tickvals=list(axis.values), ticktext=ticks, row=r, col=c)
        top = 1 - (r - 1) * (height + GAP)
        fig.update_layout({legend: {"x": 0, "xanchor": "left", "y": top, "yanchor": "bottom", "orientation": "h"}})
        fig.update_yaxes(title={"text": "cost (plain forwards)"}, row=r, col=1)
    for c, axis in enumerate(growth.axes, start=1):
        fig.update_xaxes(title={"text": axis.name}, row=rows, col=c)
    fig.update_yaxes(type="log", dtick=1)
    return finish(fig, 900, 230 * rows + 70, margin={"t": 36, "l": 72, "b": 56})


def exponent_figure(growth: Growth) -> go.Figure:
    """One panel for each size: the exponent of every operation with its interval, and that of the plain forward."""
    names = [growth.baseline, *(n for group in growth.groups.values() for n in group)]
    fig = make_subplots(rows=1, cols=len(growth.axes), shared_yaxes=True, horizontal_spacing=0.03)
    ends = [x for axis in growth.axes for e in axis.exponents.values() for x in (e.low, e.high)]
    shown = [math.floor(2 * min(ends)) / 2, math.ceil(2 * max(ends)) / 2]
    for c, axis in enumerate(growth.axes, start=1):
        found = [axis.exponents[n] for n in names]
        plain = axis.exponents[growth.baseline].value
        fig.add_trace(
            go.Scatter(
                x=[e.value for e in found], y=names, mode="markers", showlegend=False, error_x=errors(found),
                marker={"color": [MUTED, *[COLORS[0]] * (len(names) - 1)], "size": 7},
                hovertemplate="%{y}: %{x:.2f}<extra></extra>",
            ), row=1, col=c,
        )  # fmt: skip
        fig.add_vline(x=plain, line={"color": MUTED, "width": 1, "dash": "dot"}, row=1, col=c)  # type: ignore[arg-type]
        heading(fig, axis.name, x=0, xref=f"x{c if c > 1 else ''} domain")
        fig.update_xaxes(title={"text": f"exponent, {len(axis.values)} sizes"}, range=shown, row=1, col=c)
    fig.update_yaxes(autorange="reversed", showgrid=True)
    return finish(fig, 900, 130 + 24 * len(names), margin={"t": 36, "l": 140, "b": 52})


def markdown(growth: Growth) -> str:
    """The table: cost at the base point and at the largest size in plain forwards of that point, and exponents."""
    n = growth.repeats
    lines = ["# How cost grows", "", "; ".join(f"{k}: {v}" for k, v in growth.facts.items() if v), ""]
    lines += [
        f"Cost: CPU time in plain forwards of the same model over the same prompts at the base point (median of {n} "
        "repeats; smallest to largest). Exponent: slope of log cost over log size with a 95 % interval; its range of "
        "sizes is in the head of the column, and small models pay a fixed price for every call, which lowers it.",
        "",
    ]
    heads = ["operation", "cost at the base point"]
    heads += [f"{a.name}, {a.values[0]} to {a.values[-1]}" for a in growth.axes]
    lines += [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    first = growth.axes[0]
    for name in growth.operations:
        cost = first.costs[name][first.values.index(first.base)]
        cells = [name, f"{fixed(cost.value, 1)} [{fixed(cost.low, 1)}, {fixed(cost.high, 1)}]"]
        for axis in growth.axes:
            e = axis.exponents[name]
            interval = f" [{fixed(e.low, 2)}, {fixed(e.high, 2)}]" if e.low < e.high else ""
            cells.append(f"{fixed(e.value, 2)}{interval}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Cost at each size in plain forwards of that very point:", ""]
    for axis in growth.axes:
        heads = [axis.name, *(str(v) for v in axis.values)]
        lines += [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
        for name, ratios in axis.against_plain.items():
            if name != growth.baseline:
                lines.append(f"| {' | '.join([name, *(fixed(r, 1) for r in ratios)])} |")
        lines.append("")
    lines += [f"- {name}: {what}" for name, what in growth.operations.items()]
    return "\n".join([*lines, ""])
