"""What moved at every layer, and through what a change of behaviour passes: the mechanism beside the paper's figures.

The paper's Fig. 4 is in `flow`, Fig. 5 in `region`, Fig. 8 in `source`.
"""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.panels import LANE, legend_squares, methods, muted, row_axis
from interp.plots.text import algebraic, label, minus, ns, ns_of, safe, short, signed, verdicts
from interp.plots.theme import BAND, DOUBLE, INK, MUTED, SMALL, errors, finish, heading, legend_height, styles
from interp.records import Comparison, ComparisonRow, Estimate, SwapShares

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


@dataclass(frozen=True)
class _Asked:
    """One set of shares of a row, and what its lane is called."""

    row: ComparisonRow
    swap: SwapShares

    @property
    def name(self) -> str:
        """The model, and whether S was given."""
        return safe(short(label(self.row.name))) + (" with S" if self.swap.suffix else "")

    @property
    def lane(self) -> str:
        """The name with the verdict below it, and whether that is algebra."""
        said = verdicts(self.row)["with S" if self.swap.suffix else ""]
        lines = [] if said in ("undecided", "no effect") else [said]
        if algebraic(self.swap) and "by algebra" not in said:
            lines.append("by algebra")
        if self.swap.left_out:
            lines.append(f"{self.swap.left_out} edits left out")
        return self.name + "".join(muted(f"<br>{line}") for line in lines)


def swap_shares(comparison: Comparison) -> go.Figure:
    """Through what a method's change of behaviour passes at the layer that decides; open: the other direction.

    That is the layer where the behaviour was located independently of the edit; the toxic one where none was. A method
    that carries a suffix has a second lane, where both models are asked with it.
    """
    pairs = [(row, s) for row in methods(comparison) for s in (row.causal or row.swap, row.causal_with_suffix)]
    rows = [_Asked(row, swap) for row, swap in pairs if swap is not None]
    fig = go.Figure()
    step = 2 * LANE / len(PARTS)
    for i, (name, color, symbol) in enumerate(PARTS):
        shown, lanes, back, back_lanes = [], [], [], []
        for y, swap in enumerate(r.swap for r in rows):
            if swap.gated:
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
    for y, swap in enumerate(r.swap for r in rows):
        if swap.gated:
            text = f"too small a change of behaviour to divide ({signed(-swap.compliance_drop.value)} points)"
            fig.add_annotation(text=minus(text), x=50, y=y, font={"size": SMALL, "color": MUTED})
        elif algebraic(swap):
            fig.add_shape(
                type="rect", x0=0, x1=1, xref="x domain", y0=y - 0.5, y1=y + 0.5, fillcolor=BAND, line={"width": 0},
                layer="below",
            )  # fmt: skip
    for y in range(1, len(rows)):
        fig.add_hline(y=y - 0.5, line={"color": BAND, "width": 1}, layer="below")
    for x in (0, 100):
        fig.add_vline(x=x, line={"color": INK, "width": 1, "dash": "dot"}, layer="below")
    n = ns_of(r.swap.n for r in rows)
    fig.update_xaxes(title={"text": f"Share of the change of the refusal margin (%, n = {n} prompts)"})
    reach = [100 * e for r in rows if not r.swap.gated for e in _ends(r.swap)]
    fig.update_xaxes(range=[min([-10, *(x - 8 for x in reach)]), max([110, *(x + 8 for x in reach)])])
    row_axis(fig, [r.lane for r in rows])
    return finish(fig, 560, 120 + 74 * max(len(rows), 1), margin={"t": 40, "l": 124})


def _nothing_to_divide(swap: SwapShares) -> str:
    if swap.compliance_drop.low > 0:
        return "too small to divide"
    return "no effect to divide" if swap.answerable else "too few prompts to ask"


def stacked_shares(comparison: Comparison) -> go.Figure:
    """The four shares of each method as one stacked bar, at the layer that decides and at the toxic one.

    Bars that are algebra are hatched; a method that carries a suffix has a bar with it.
    """
    found = [
        _Asked(row, swap)
        for row in methods(comparison)
        for swap in {(s.layer, s.suffix): s for s in (row.causal, row.causal_with_suffix, row.swap) if s}.values()
    ]
    bars = [f"{r.name}, layer {r.swap.layer}" for r in found]
    kept = [(bar, r.swap) for bar, r in zip(bars, found, strict=True) if not r.swap.gated]
    fig = go.Figure()
    for i, (name, color, _) in enumerate(PARTS):
        shares = [100 * (s.erased, s.bypassed, s.parallel, s.downstream)[i].value for _, s in kept]
        shapes = ["/" if algebraic(s) else "" for _, s in kept]
        fig.add_trace(
            go.Bar(
                x=shares, y=[bar for bar, _ in kept], orientation="h", name=name,
                marker={"color": color, "pattern": {"shape": shapes, "fillmode": "overlay", "size": 7, "solidity": 0.2,
                        "fgcolor": ["white"] * len(kept)}},
                text=[f"{x:.0f}" if abs(x) >= LABELLED else "" for x in shares], textposition="inside",
                insidetextanchor="middle", textangle=0, hovertemplate="%{x:.1f} %<extra></extra>",
            )
        )  # fmt: skip
    for bar, swap in zip(bars, (r.swap for r in found), strict=True):
        if swap.gated or algebraic(swap):
            text = _nothing_to_divide(swap) if swap.gated else "by algebra"
            fig.add_annotation(
                text=text, x=50 if swap.gated else 101, y=bar, font={"size": SMALL, "color": MUTED},
                xanchor="center" if swap.gated else "left", showarrow=False,
            )  # fmt: skip
    n = ns_of(r.swap.n for r in found)
    fig.update_xaxes(title={"text": f"Change of the refusal margin (%, n = {n} prompts)"})
    fig.update_yaxes(categoryorder="array", categoryarray=bars[::-1], showgrid=False)
    fig.update_yaxes(range=[-0.6, len(bars) - 0.4])
    fig.update_layout(barmode="relative", bargap=0.35)
    return finish(fig, 620, 130 + 34 * max(len(bars), 1), margin={"t": 52, "l": 150, "r": 70})


def _ends(swap: SwapShares) -> list[float]:
    shares = (swap.erased, swap.bypassed, swap.parallel, swap.downstream)
    return [*(e.low for e in shares), *(e.high for e in shares), *swap.reverse]
