"""What stands inside one panel of a finding: lines with bands, bars with whiskers.

Placing the panels is the business of `interp.plots.findings`, heatmaps are in `interp.plots.finding_grids`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from interp.plots.canvas import LINE, Canvas, Rect, broken, fitted, lines_of, width_of
from interp.plots.finding_looks import Looks
from interp.plots.text import number, relabelled, safe
from interp.plots.theme import GRID, INK, MUTED, SMALL, errors
from interp.records import Bars, Curve, Curves, Estimate

ROW = 18
"""Pixels of a line of tick labels."""


# ------------------------------------------------------------------------------------------- curves
def curves(canvas: Canvas, rect: Rect, panel: Curves, looks: Looks, legend: str, named: set[str]) -> None:
    """Lines with bands, or markers with whiskers where there are few places; controls below, models above."""
    places = [x for c in panel.curves for x in c.x]
    x_axis, y_axis = canvas.panel(
        rect, _x_axis(panel, rect, places), _y_axis(_ends(panel), percent="%" in panel.y_label)
    )
    ordered = sorted(panel.curves, key=lambda c: not c.control)
    few = max((len(c.x) for c in panel.curves), default=0) <= 2
    for i, curve in enumerate(ordered):
        look = looks.curve(curve.name)
        more: dict[str, Any] = {"xaxis": x_axis, "yaxis": y_axis, "legendgroup": safe(look.label)}
        if not few:
            for xs, ys in _bands(curve):
                canvas.fig.add_trace(
                    go.Scatter(
                        x=xs, y=ys, fill="toself", fillcolor=_faint(look.color, 0.16), line={"width": 0}, mode="lines",
                        hoverinfo="skip", showlegend=False, **more,
                    )
                )  # fmt: skip
        shown = bool(legend) and look.label not in named
        named.add(look.label)
        step = 0.06 * (i - (len(ordered) - 1) / 2) if few and panel.ticks else 0.0
        markers = len(curve.x) <= 16 and not curve.control
        canvas.fig.add_trace(
            go.Scatter(
                x=[x + step for x in curve.x], y=[e.value for e in curve.y],
                mode="lines+markers" if markers else "lines",
                line={"color": look.color, "width": 1.6 if curve.control else 2, "dash": look.dash},
                marker={"symbol": look.symbol, "size": 6, "color": look.color}, name=safe(fitted(look.label, 260, 12)),
                error_y={**errors(curve.y), "color": look.color} if few else None, showlegend=shown,
                legend=legend or None, legendrank=1001 if curve.control else 1000,
                customdata=[[e.low, e.high, e.n] for e in curve.y],
                hovertemplate="%{x}: %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], n = %{customdata[2]}"
                f"<extra>{safe(look.label)}</extra>", **more,
            )
        )  # fmt: skip
    for x in panel.marked:
        _line(canvas, x_axis, f"{y_axis} domain", x0=x, x1=x, y0=0, y1=1, dash="dot")
    _zero(canvas, f"{x_axis} domain", y_axis, _ends(panel))


def tick_height(panel: Curves, room: float) -> float:
    """Pixels that the labels of the x axis take below it."""
    if not panel.ticks:
        return ROW
    wide = max(width_of(t, 12) for t in panel.ticks)
    return ROW if wide <= room / len(panel.ticks) - 6 else 10 + 0.72 * min(wide, 130)


def _x_axis(panel: Curves, rect: Rect, places: Sequence[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {"showgrid": False}
    if panel.ticks:
        names = [fitted(t, 130, 12) for t in panel.ticks]
        turned = tick_height(panel, rect.width) > ROW
        return axis | {
            "tickvals": list(range(len(names))), "ticktext": [safe(t) for t in names],
            "tickangle": -45 if turned else 0, "range": [-0.4, len(names) - 0.6],
        }  # fmt: skip
    low, high = min(places, default=0.0), max(places, default=1.0)
    if panel.log_x and low > 0:
        room = 0.03 * (math.log10(high / low) or 1.0)
        values = sorted(set(places))
        exact = values if len(values) * 34 <= rect.width else None
        ticks = {"tickvals": exact, "ticktext": [number(v, 3) for v in exact]} if exact else {"dtick": 1}
        return axis | {"type": "log", "range": [math.log10(low) - room, math.log10(high) + room], **ticks}
    whole = all(x == int(x) for x in places)
    span = high - low
    if whole and span <= 64:
        step = next((s for s in (1, 2, 4, 5, 8, 10, 16) if span / s * 26 <= rect.width), 20)
        axis |= {"dtick": step, "tick0": low}
    room = 0.03 * span or 0.5
    return axis | {"range": [low - room, high + room]}


def _bands(curve: Curve) -> Iterator[tuple[list[float], list[float]]]:
    """Outlines of the intervals, one for each stretch without gaps; none where nothing is uncertain."""
    stretch: list[tuple[float, Estimate]] = []
    for x, e in [*zip(curve.x, curve.y, strict=True), (math.nan, Estimate(math.nan, math.nan, math.nan, 0))]:
        if math.isfinite(e.value) and math.isfinite(e.low) and math.isfinite(e.high):
            stretch.append((x, e))
            continue
        if len(stretch) > 1 and any(e.high > e.low for _, e in stretch):
            xs = [x for x, _ in stretch]
            yield xs + xs[::-1], [e.high for _, e in stretch] + [e.low for _, e in reversed(stretch)]
        stretch = []


def _ends(panel: Curves | Bars) -> list[float]:
    if isinstance(panel, Curves):
        return [v for c in panel.curves for e in c.y for v in (e.low, e.value, e.high)]
    return [v for values in panel.series.values() for e in values if e for v in (e.low, e.value, e.high)]


def _y_axis(values: Sequence[float], bars: bool = False, percent: bool = False) -> dict[str, Any]:
    """A range that holds every interval with some room; zero is in it where it is near, and always for bars.

    Percentages that end at 100 have no room for a tick above it.
    """
    found = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if bars or (low > 0 and low < 0.4 * high):
        low = min(low, 0.0)
    if bars or (high < 0 and high > 0.4 * low):
        high = max(high, 0.0)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    span = [low - room if low != 0 else 0.0, high + room if high != 0 else 0.0]
    if percent and high <= 100.0 < span[1]:
        span[1] = 100.0 + 0.03 * (100.0 - span[0])
    return {"range": span, "gridcolor": GRID, "nticks": 6, "tickformat": "~g"}


def value_label_width(panel: Curves | Bars) -> float:
    """Pixels of the widest number on the value axis, of the four to eight that plotly may choose."""
    low, high = _y_axis(_ends(panel), isinstance(panel, Bars), "%" in panel.y_label)["range"]
    step = 10 ** math.floor(math.log10((high - low) / 5))
    decimals = max(0, -round(math.log10(step)))
    return max(width_of(f"{v:.{decimals}f}", 12) for v in (low, high))


def _zero(canvas: Canvas, x: str, y: str, values: Sequence[float]) -> None:
    found = [v for v in values if math.isfinite(v)]
    if found and min(found) < 0 < max(found):
        _line(canvas, x, y, x0=0, x1=1, y0=0, y1=0, dash="solid")


def _line(canvas: Canvas, xref: str, yref: str, *, dash: str, **ends: float) -> None:
    canvas.fig.add_shape(
        type="line", xref=xref, yref=yref, line={"color": INK, "width": 1, "dash": dash},
        layer="below" if dash == "solid" else "above", **ends,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- bars
def bars(canvas: Canvas, rect: Rect, panel: Bars, looks: Looks, legend: str, named: set[str]) -> None:
    """Bars placed by hand: beside each other in a group, or on top of each other from zero up and from zero down."""
    names = list(panel.series)
    width = 0.62 if panel.stacked or len(names) == 1 else 0.84 / max(len(names), 1)
    base = {side: [0.0] * len(panel.groups) for side in (1, -1)}
    bottoms: dict[str, list[float]] = {}
    reach: list[float] = [0.0]
    for name in names:
        bottoms[name] = [0.0] * len(panel.groups)
        for g, e in enumerate(panel.series[name]):
            if e is None or not math.isfinite(e.value):
                continue
            side = 1 if e.value >= 0 else -1
            if panel.stacked:
                bottoms[name][g] = base[side][g]
                base[side][g] += e.value
            reach += [bottoms[name][g] + v for v in (e.low, e.value, e.high) if math.isfinite(v)]
    x_axis, y_axis = canvas.panel(
        rect, _group_axis(panel, rect.width), _y_axis(reach, bars=True, percent="%" in panel.y_label)
    )
    for s, name in enumerate(names):
        shift = 0.0 if panel.stacked else width * (s - (len(names) - 1) / 2)
        lean = 0.5 * width * (s - (len(names) - 1) / 2) / max(len(names), 1) if panel.stacked else 0.0
        shown = bool(legend) and name not in named
        named.add(name)
        _one_series(canvas, panel, name, looks, (x_axis, y_axis), (shift, width, lean), bottoms[name],
                    legend if shown else "")  # fmt: skip
    _line(canvas, f"{x_axis} domain", y_axis, x0=0, x1=1, y0=0, y1=0, dash="solid")


def _one_series(
    canvas: Canvas, panel: Bars, name: str, looks: Looks, axes: tuple[str, str], place: tuple[float, float, float],
    bottom: Sequence[float], legend: str,
) -> None:  # fmt: skip
    shift, width, lean = place
    found = [(g, e) for g, e in enumerate(panel.series[name]) if e is not None and math.isfinite(e.value)]
    single = len(panel.series) == 1
    look = looks.series(panel, name)
    colors = [looks.curve(panel.groups[g]).color for g, _ in found] if single else look.color
    patterns = [looks.curve(panel.groups[g]).pattern for g, _ in found] if single else look.pattern
    white = ["white"] * len(found)
    pattern = {"shape": patterns, "fillmode": "overlay", "fgcolor": white, "size": 6, "solidity": 0.3}
    axis: dict[str, Any] = {"xaxis": axes[0], "yaxis": axes[1], "legendgroup": f"bars {safe(name)}"}
    canvas.fig.add_trace(
        go.Bar(
            x=[g + shift for g, _ in found], y=[e.value for _, e in found], base=[bottom[g] for g, _ in found],
            width=width * (1 if panel.stacked or single else 0.94), name=safe(look.label), showlegend=bool(legend),
            legend=legend or None,
            marker={"color": colors, "line": {"width": 0}, "pattern": pattern},
            customdata=[[safe(panel.groups[g]), e.low, e.high, e.n] for g, e in found],
            hovertemplate="%{customdata[0]}: %{y:.3g} [%{customdata[1]:.3g}, %{customdata[2]:.3g}], "
            f"n = %{{customdata[3]}}<extra>{safe(look.label)}</extra>", **axis,
        )
    )  # fmt: skip
    whiskers = errors([e for _, e in found])
    if whiskers["visible"]:
        canvas.fig.add_trace(
            go.Scatter(
                x=[g + shift + lean for g, _ in found], y=[bottom[g] + e.value for g, e in found], mode="markers",
                marker={"size": 1, "color": INK}, error_y=whiskers, hoverinfo="skip", showlegend=False, **axis,
            )
        )  # fmt: skip
    for g, e in enumerate(panel.series[name]):
        if e is None or not math.isfinite(e.value):
            if panel.stacked:
                continue
            canvas.fig.add_annotation(
                x=g + shift, y=0, xref=axes[0], yref=axes[1], text="n/a", showarrow=False, yanchor="bottom",
                textangle=-90 if width < 0.3 else 0, font={"size": SMALL, "color": MUTED},
            )  # fmt: skip


def _group_lines(panel: Bars, width: float) -> list[list[str]] | None:
    """The groups' names in lines below their bars; None where they must be turned."""
    room = width / max(len(panel.groups), 1) - 6
    found = [lines_of(relabelled(g), max(room, 1), 12, name=True) for g in panel.groups]
    cut = any("…" in line and "…" not in g for lines, g in zip(found, panel.groups, strict=True) for line in lines)
    return None if cut or max(map(len, found), default=1) > 3 else found


def group_label_height(panel: Bars, width: float) -> float:
    """Pixels that the groups' names take below a panel of that width."""
    lines = _group_lines(panel, width)
    if lines is not None:
        return 8 + max(map(len, lines), default=1) * 12 * LINE
    return 12 + 0.72 * min(max(width_of(relabelled(g), 12) for g in panel.groups), 150)


def _group_axis(panel: Bars, width: float) -> dict[str, Any]:
    lines = _group_lines(panel, width)
    names = (
        [broken(found) for found in lines] if lines else [safe(fitted(relabelled(g), 150, 12)) for g in panel.groups]
    )
    return {
        "tickvals": list(range(len(names))), "ticktext": names, "tickangle": 0 if lines else -45, "ticks": "",
        "range": [-0.5, len(names) - 0.5], "showgrid": False, "showline": False,
    }  # fmt: skip


def _faint(color: str, alpha: float) -> str:
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"
