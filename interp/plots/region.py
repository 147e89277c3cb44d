"""The paper's Fig. 5 with what chance gives, and the same under every definition of region toxicity.

A change is drawn in standard deviations of its own null, as a *reduction*: right is less toxic. A rate whose base is
not above chance is written, never drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.panels import LANE, band, fit, legend_squares, methods, muted, row_axis, say, zero_lines
from interp.plots.text import NOT_ABOVE_CHANCE, fixed, minus, ns, number, safe, short, signed
from interp.plots.theme import BAND, INK, MUTED, SMALL, Style, bars, errors, finish, heading, legend_height, styles
from interp.records import ActivationShift, Comparison, ComparisonRow, Estimate, RegionToxicity


def region_and_shift(comparison: Comparison) -> go.Figure:
    """The paper's Fig. 5: toxicity reduction of the region and activation shift per method, beside what chance gives.

    Panels: the paper's rate (written where vanilla is not above chance), the reduction in null standard deviations,
    and the activation shift, with the shift on the model's own tokens as an open marker.
    """
    rows = methods(comparison)
    style = styles([row.name for row in comparison.rows])
    fig = make_subplots(rows=1, cols=3, shared_yaxes=True, horizontal_spacing=0.05)
    for y, row in enumerate(rows):
        first = row.region[0] if row.region else None
        _rate_lane(fig, y, row, first, style[row.name])
        _reduction_lane(fig, y, row, first, style[row.name])
        _shift_lane(fig, y, row, style[row.name])
    base = next((row.region[0] for row in comparison.rows if row.region), None)
    vanilla = "" if base is None else f"vanilla {number(base.vanilla)} {base.unit}, z = {fixed(base.z_vanilla)}"
    for column, text in enumerate(
        (f"Region toxicity, rate<br>{muted(vanilla)}", f"Region toxicity, change<br>{muted(_null_n(rows))}",
         f"Activation shift<br>{muted('same prompts; ◇ own answers')}"), start=1,
    ):  # fmt: skip
        axis = "" if column == 1 else str(column)
        heading(fig, minus(text), x=0, xref=f"x{axis} domain", yref="paper", y=1.01)
    for column in (1, 2, 3):
        fit(fig, column)
    zero_lines(fig, (1, 2), len(rows))
    fig.update_xaxes(title={"text": "Reduction (%)"}, row=1, col=1)
    fig.update_xaxes(title={"text": "Reduction (null sd)"}, row=1, col=2)
    n = ns(row.shift.rate for row in rows if row.shift is not None)
    fig.update_xaxes(title={"text": f"Shift (%, n = {n} inputs)"}, row=1, col=3)
    if all(_no_rate(row) for row in rows):
        fig.update_xaxes(range=[0, 1], showticklabels=False, ticks="", row=1, col=1)
    row_axis(fig, [_row_label(row) for row in rows])
    legend_squares(fig, [("what chance gives, 2.5th to 97.5th percentile", BAND)])
    return finish(
        fig, 720, 144 + 62 * max(len(rows), 1), margin={"t": 78, "l": 110, "r": 16},
        legend={"y": 1.0, "yref": "container", "yanchor": "top", "x": 0, "xref": "container"},
    )  # fmt: skip


def region_definitions(comparison: Comparison) -> go.Figure:
    """Every definition of region toxicity: how far vanilla is from chance, and what each method took away.

    A filled marker is beyond both nulls at p < 0.05, an open one is not.
    """
    rows = [row for row in methods(comparison) if row.region]
    style = styles([row.name for row in comparison.rows])
    base = next((row.region for row in comparison.rows if row.region), ())
    fig = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04, column_widths=[0.36, 0.64])
    z = [r.z_vanilla for r in base]
    for y in range(len(base)):
        band(fig, y, -2.0, 2.0, col=1)
    fig.add_trace(
        go.Scatter(
            x=z, y=list(range(len(base))), mode="markers", showlegend=False, name="vanilla",
            marker={"symbol": "circle", "size": 9, "color": "#999999", "line": {"color": INK, "width": 1}},
            hovertemplate="z = %{x:.2f}<extra>vanilla</extra>",
        ), row=1, col=1,
    )  # fmt: skip
    step = 2 * LANE / max(len(rows), 1)
    for i, row in enumerate(rows):
        lanes = [y - LANE + step * (i + 0.5) for y in range(len(row.region))]
        for y, record in zip(lanes, row.region, strict=True):
            null = record.null_change
            if null.std > 0:
                ends = [-(null.high - null.mean) / null.std, -(null.low - null.mean) / null.std]
                band(fig, y, *ends, col=2, half=0.5 * step)
        known = [(y, r) for y, r in zip(lanes, row.region, strict=True) if r.null_change.std > 0]
        reductions = [in_null_sd(r) for _, r in known]
        look, filled = style[row.name], [beyond_both(r) for _, r in known]
        fig.add_trace(
            go.Scatter(
                x=[e.value for e in reductions], y=[y for y, _ in known], mode="markers", name=safe(look.label),
                error_x={**errors(reductions), "color": look.color},
                marker={
                    "symbol": [look.symbol if f else f"{look.symbol}-open" for f in filled], "size": 9,
                    "color": look.color, "line": {"color": look.color, "width": 1.5},
                },
                hovertemplate="reduction %{x:.2f} null sd<extra>" + safe(look.label) + "</extra>",
            ), row=1, col=2,
        )  # fmt: skip
    for column in (1, 2):
        fit(fig, column)
    zero_lines(fig, (1, 2), len(base))
    fig.update_xaxes(title={"text": "Vanilla (null sd)"}, row=1, col=1)
    fig.update_xaxes(title={"text": "Reduction (null sd)"}, row=1, col=2)
    row_axis(fig, [_broken(r.definition) for r in base])
    legend_squares(fig, [("chance", BAND)])
    top = 32 + legend_height([*(style[row.name].label for row in rows), "chance"], 520)
    return finish(fig, 720, top + 78 + 58 * max(len(base), 1), margin={"t": top, "l": 170})


# ------------------------------------------------------------------------------------------------- numbers
def in_null_sd(record: RegionToxicity) -> Estimate:
    """The reduction (minus the change) in standard deviations of the null, measured from the null's mean."""
    null, change = record.null_change, record.change
    value, low, high = (-(x - null.mean) / null.std for x in (change.value, change.high, change.low))
    return Estimate(value, low, high, change.n, "null sd", change.how)


def beyond_both(record: RegionToxicity) -> bool:
    """Whether the change is larger than random directions make it, under every null that was computed."""
    return max(record.p_change, record.p_change_shaped or 0.0) < 0.05


# ------------------------------------------------------------------------------------------------- lanes
def _rate_lane(fig: go.Figure, y: int, row: ComparisonRow, record: RegionToxicity | None, style: Style) -> None:
    if record is None or record.rate is None:
        text = "not measured" if record is None else NOT_ABOVE_CHANCE
        say(fig, text, y, col=1)
        return
    scale = -100.0 / abs(record.vanilla)
    null = record.null_change
    band(fig, y, scale * null.high, scale * null.low, col=1)
    low, high = sorted((scale * record.change.low, scale * record.change.high))
    low, high = min(low, record.rate), max(high, record.rate)  # an exact change: its quotient differs in the last bit
    _bar(fig, y, Estimate(record.rate, low, high, record.change.n, "%"), row, style, col=1)


def _reduction_lane(fig: go.Figure, y: int, row: ComparisonRow, record: RegionToxicity | None, style: Style) -> None:
    if record is None or record.null_change.std <= 0:
        say(fig, "not measured" if record is None else "no change", y, col=2)
        return
    null = record.null_change
    band(fig, y, -(null.high - null.mean) / null.std, -(null.low - null.mean) / null.std, col=2)
    _bar(fig, y, in_null_sd(record), row, style, col=2)


def _shift_lane(fig: go.Figure, y: int, row: ComparisonRow, style: Style) -> None:
    shift: ActivationShift | None = row.shift
    if shift is None:
        say(fig, "not measured", y, col=3)
        return
    if shift.own_tokens_control is not None and shift.own_tokens is not None:
        control = shift.own_tokens_control
        band(fig, y + 0.27, control.low, control.high, col=3, half=0.14)
    if shift.own_tokens is not None:
        own = shift.own_tokens
        fig.add_trace(
            go.Scatter(
                x=[own.value], y=[y + 0.27], mode="markers", showlegend=False, name=f"{safe(row.name)}, own answers",
                error_x={**errors([own], thickness=1), "color": style.color},
                marker={"symbol": "diamond-open", "size": 8, "color": style.color, "line": {"width": 1.5}},
                hovertemplate="own answers: %{x:.2g} %<extra></extra>",
            ), row=1, col=3,
        )  # fmt: skip
    offset = 0.0 if shift.own_tokens is None else -0.14
    if shift.identity:
        fig.add_annotation(
            text="0 by construction", x=0, y=y + offset, xanchor="left", xshift=4, font={"size": SMALL, "color": MUTED},
            row=1, col=3,
        )  # fmt: skip
        return
    _bar(fig, y + offset, shift.rate, row, style, col=3, width=0.6 if offset == 0 else 0.46)


def _bar(fig: go.Figure, y: float, e: Estimate, row: ComparisonRow, style: Style, col: int, width: float = 0.5) -> None:
    fig.add_trace(
        go.Bar(
            x=[e.value], y=[y], orientation="h", width=width, marker=bars(style), error_x=errors([e]),
            showlegend=False, name=safe(style.label), hovertemplate="%{x:.3g}<extra>" + safe(row.name) + "</extra>",
        ), row=1, col=col,
    )  # fmt: skip


def _row_label(row: ComparisonRow) -> str:
    style = styles([row.name])[row.name]
    if not row.region:
        return safe(short(style.label))
    change = row.region[0].change
    of = f" ({change.n} edits)" if change.n > 1 else ""
    return f"{safe(short(style.label))}{of}<br>" + muted(minus(f"Δ {signed(change.value)}"))


def _no_rate(row: ComparisonRow) -> bool:
    return not row.region or row.region[0].rate is None


def _null_n(rows: Sequence[ComparisonRow]) -> str:
    n = next((row.region[0].null_change.n for row in rows if row.region), 0)
    return f"null: {n} random directions" if n else ""


def _broken(text: str) -> str:
    first, _, rest = text.partition(", ")
    return f"{safe(first)}<br>{safe(rest)}" if rest else safe(first)
