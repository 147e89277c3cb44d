"""What moved at every layer, and through what a change of behaviour passes: the mechanism beside the paper's figures.

The paper's Fig. 4 is in `flow`, Fig. 5 in `region`, Fig. 8 in `source`.
"""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.panels import LANE, legend_squares, methods, muted, row_axis
from interp.plots.text import label, minus, ns, ns_of, safe, short, signed
from interp.plots.theme import BAND, DOUBLE, INK, MUTED, SMALL, errors, finish, heading, legend_height, styles
from interp.records import Comparison, Estimate, SwapShares

PARTS = (
    ("erased: W_V", "#0072B2", "diamond"),
    ("bypassed: its inputs", "#E69F00", "square"),
    ("around the region", "#999999", "circle"),
    ("after the block", "#009E73", "triangle-up"),
)
"""The four shares of a swap in their order: name, colour, symbol."""
LABELLED = 5.0
"""Percent from which a share is written into its bar."""


def by_layer(comparison: Comparison) -> go.Figure:
    """What moved at every layer: inputs of W_V, the residual stream, and the weights. The toxic layer is shaded."""
    rows = methods(comparison)
    style = styles([row.name for row in comparison.rows])
    fig = make_subplots(rows=1, cols=3, horizontal_spacing=0.09)
    depth = max((len(row.weight_change_by_layer) for row in rows), default=1)
    for row in rows:
        shift = row.shift
        series = (
            shift.by_layer if shift else (),
            shift.resid_by_layer if shift else (),
            row.weight_change_by_layer,
        )
        look = style[row.name]
        for column, values in enumerate(series, start=1):
            fig.add_trace(
                go.Scatter(
                    x=list(range(len(values))), y=list(values), mode="lines+markers" if depth <= 16 else "lines",
                    line={"color": look.color, "width": 2},
                    marker={"symbol": look.symbol, "size": 7, "color": look.color},
                    name=safe(look.label), legendgroup=row.name, showlegend=column == 1,
                    hovertemplate="layer %{x}: %{y:.3g} %<extra>" + safe(look.label) + "</extra>",
                ), row=1, col=column,
            )  # fmt: skip
    for column in ("", "2", "3"):
        fig.add_shape(
            type="rect", x0=comparison.layer - 0.5, x1=comparison.layer + 0.5, y0=0, y1=1, xref=f"x{column}",
            yref=f"y{column} domain", fillcolor=BAND, line={"width": 0}, layer="below",
        )  # fmt: skip
    fig.update_xaxes(range=[-0.6, depth - 0.4], dtick=1 if depth <= 8 else 2 if depth <= 16 else 8)
    fig.update_xaxes(title={"text": "Layer (0-based)"}, row=1, col=2)
    fig.update_yaxes(rangemode="tozero")
    n = ns(row.shift.rate for row in rows if row.shift is not None)
    headings = (f"Inputs of W_V (%, n = {n})", f"Residual stream (%, n = {n})", "Weights of the block (%)")
    for column, text in enumerate(headings, start=1):
        heading(fig, text, x=0, xref=f"x{'' if column == 1 else column} domain", y=1.02)
    legend_squares(fig, [("toxic layer", BAND)])
    top = 36 + legend_height([*(style[row.name].label for row in rows), "toxic layer"], 720)
    return finish(
        fig, DOUBLE[0], DOUBLE[1] + top - 56, margin={"t": top, "l": 48},
        legend={"y": 1, "yref": "container", "yanchor": "top"},
    )  # fmt: skip


def swap_shares(comparison: Comparison) -> go.Figure:
    """Through what a method's change of behaviour passes at the layer that decides; open: the other direction.

    That is the layer where the behaviour was located independently of the edit; the toxic one where none was.
    """
    rows = [replace(row, swap=row.causal or row.swap) for row in methods(comparison)]
    rows = [row for row in rows if row.swap is not None]
    fig = go.Figure()
    step = 2 * LANE / len(PARTS)
    for i, (name, color, symbol) in enumerate(PARTS):
        shown, lanes, back, back_lanes = [], [], [], []
        for y, row in enumerate(rows):
            swap = row.swap
            if swap is None or swap.gated:
                continue
            share = (swap.erased, swap.bypassed, swap.parallel, swap.downstream)[i]
            lane = y - LANE + step * (i + 0.5)
            shown.append(Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n, "%", share.how))
            lanes.append(lane)
            back.append(100 * swap.reverse[i])
            back_lanes.append(lane)
        fig.add_trace(
            go.Scatter(
                x=back, y=back_lanes, mode="markers", showlegend=False, name=f"{name}, other direction",
                marker={"symbol": f"{symbol}-open", "size": 9, "color": color},
                hovertemplate="%{x:.0f} %<extra></extra>",
            )
        )  # fmt: skip
        fig.add_trace(
            go.Scatter(
                x=[e.value for e in shown], y=lanes, mode="markers", name=name,
                error_x={**errors(shown), "color": color},
                marker={"symbol": symbol, "size": 9, "color": color}, hovertemplate="%{x:.0f} %<extra></extra>",
            )
        )  # fmt: skip
    for y, row in enumerate(rows):
        if row.swap is not None and row.swap.gated:
            drop = row.swap.compliance_drop
            text = f"too small a change of behaviour to divide ({signed(-drop.value)} points of compliance)"
            fig.add_annotation(text=minus(text), x=50, y=y, font={"size": SMALL, "color": MUTED})
    for y in range(1, len(rows)):
        fig.add_hline(y=y - 0.5, line={"color": BAND, "width": 1}, layer="below")
    for x in (0, 100):
        fig.add_vline(x=x, line={"color": INK, "width": 1, "dash": "dot"}, layer="below")
    n = ns_of(row.swap.n for row in rows if row.swap is not None)
    fig.update_xaxes(title={"text": f"Share of the change of the refusal margin (%, n = {n} prompts)"})
    reach = [100 * e for row in rows if row.swap and not row.swap.gated for e in _ends(row.swap)]
    fig.update_xaxes(range=[min([-10, *(x - 8 for x in reach)]), max([110, *(x + 8 for x in reach)])])
    labels = [
        safe(short(label(row.name)))
        + (muted("<br>by algebra") if row.swap and row.swap.identity and not row.swap.gated else "")
        + (muted(f"<br>{row.conclusion.verdict}") if row.conclusion.verdict not in ("undecided", "no effect") else "")
        for row in rows
    ]
    row_axis(fig, labels)
    return finish(fig, 560, 120 + 74 * max(len(rows), 1), margin={"t": 40, "l": 84})


def stacked_shares(comparison: Comparison) -> go.Figure:
    """The four shares of each method as one stacked bar, at the layer that decides and at the toxic one."""
    found = [
        (row.name, swap)
        for row in methods(comparison)
        for swap in {s.layer: s for s in (row.causal, row.swap) if s is not None}.values()
    ]
    bars = [f"{safe(short(label(name)))}, layer {swap.layer}" for name, swap in found]
    kept = [(bar, swap) for bar, (_, swap) in zip(bars, found, strict=True) if not swap.gated]
    fig = go.Figure()
    for i, (name, color, _) in enumerate(PARTS):
        shares = [100 * (s.erased, s.bypassed, s.parallel, s.downstream)[i].value for _, s in kept]
        fig.add_trace(
            go.Bar(
                x=shares, y=[bar for bar, _ in kept], orientation="h", name=name, marker={"color": color},
                text=[f"{x:.0f}" if abs(x) >= LABELLED else "" for x in shares], textposition="inside",
                insidetextanchor="middle", textangle=0, hovertemplate="%{x:.1f} %<extra></extra>",
            )
        )  # fmt: skip
    for bar, (_, swap) in zip(bars, found, strict=True):
        if swap.gated:
            fig.add_annotation(text="no effect to divide", x=50, y=bar, font={"size": SMALL, "color": MUTED})
    fig.update_xaxes(title={"text": f"Change of the refusal margin (%, n = {ns_of(s.n for _, s in found)} prompts)"})
    fig.update_yaxes(categoryorder="array", categoryarray=bars[::-1], showgrid=False)
    fig.update_yaxes(range=[-0.6, len(bars) - 0.4])
    fig.update_layout(barmode="relative", bargap=0.35)
    return finish(fig, 620, 130 + 34 * max(len(bars), 1), margin={"t": 52, "l": 120})


def _ends(swap: SwapShares) -> list[float]:
    shares = (swap.erased, swap.bypassed, swap.parallel, swap.downstream)
    return [*(e.low for e in shares), *(e.high for e in shares), *swap.reverse]
