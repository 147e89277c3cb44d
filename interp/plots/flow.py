"""The paper's Fig. 4 drawn from measured numbers: activations flow into the toxic region, model by model.

Every mark is a measurement. Dots: five quantiles of how strongly the inputs activate the region (colour), moved to the
right by the activation shift, with vanilla's places as rings. Box: W_V of the toxic layer, coloured by how far its
toxicity is from chance. Above: what comes out of it, the defence success without the suffix S.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from interp.plots.text import fixed, label, minus, number, safe, short, signed
from interp.plots.theme import INK, MUTED, SMALL, finish, styles
from interp.records import Comparison, ComparisonRow

PER_ROW = 4
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
REGION_SCALE = [[0.0, "#FFFFFF"], [0.5, "#F4A582"], [1.0, "#B2182B"]]
FLOW_SCALE = [[0.0, "#DEEBF7"], [0.5, "#6BAED6"], [1.0, "#08306B"]]
PLACES = (0.16, 0.27, 0.38, 0.49, 0.60)
"""Where the dots stand in vanilla, in panel widths."""
ROOM = 0.24
"""How far right the largest shift moves them."""
FULL = 25.0
"""A shift of at least so many percent uses all the room."""
HEIGHT = 300


@dataclass
class _Marks:
    """Shapes and annotations, given to the figure at once (one by one each costs a pass over all)."""

    shapes: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Flow:
    """What one panel shows."""

    row: ComparisonRow
    z: float | None
    levels: tuple[float, ...]
    shift: float


def toxic_flow(comparison: Comparison) -> go.Figure:
    """Vanilla and every method side by side: activations flowing into the toxic region, with the numbers in it."""
    flows = [_flow(comparison, row) for row in comparison.rows]
    columns = min(len(flows), PER_ROW)
    rows = -(-len(flows) // PER_ROW)
    z_max = max([4.0, *(f.z for f in flows if f.z is not None)])
    seen = [level for f in flows for level in f.levels]
    reach = (min(seen), max(seen)) if seen else (0.0, 1.0)
    if reach[0] == reach[1]:
        reach = (0.0, reach[1] or 1.0)
    unit = max([FULL, *(f.shift for f in flows)])
    fig, marks = go.Figure(), _Marks()
    for i, flow in enumerate(flows):
        _panel(marks, comparison, flow, i % columns, rows - 1 - i // columns, z_max, unit)
    fig.update_layout(shapes=marks.shapes, annotations=marks.annotations)
    _dots(fig, flows, columns, rows, unit)
    _scales(fig, z_max, rows)
    fig.update_xaxes(visible=False, range=[-0.02, columns + 0.02] if columns > 1 else [-0.5, 1.5])
    fig.update_yaxes(visible=False, range=[0, rows], showgrid=False)
    width = max(560, 180 * columns)
    height = HEIGHT * rows + 90
    return finish(
        fig, width, height, margin={"l": 8, "r": 8, "t": 8, "b": 82}, showlegend=False,
        coloraxis={
            "colorscale": FLOW_SCALE, "cmin": reach[0], "cmax": reach[1],
            "colorbar": {
                **_bar("Activation: mean |h_down|, last prompt token", 0.25, HEIGHT * rows),
                **_ticks(*reach),
            },
        },
    )  # fmt: skip


def _flow(comparison: Comparison, row: ComparisonRow) -> _Flow:
    region = row.region[0] if row.region else None
    null = None if region is None else region.null_vanilla
    z = None if region is None or null is None or null.std <= 0 else (region.value.value - null.mean) / null.std
    source = next((s for s in comparison.sources if s.model == row.name), None)
    levels = None if source is None else source.activation_shifted
    if row.name == "vanilla" and comparison.sources:
        levels = comparison.sources[0].activation_vanilla
    quantiles = () if levels is None or not len(levels) else tuple(float(x) for x in np.quantile(levels, QUANTILES))
    return _Flow(row, z, quantiles, row.shift.rate.value if row.shift is not None else 0.0)


def _panel(marks: _Marks, comparison: Comparison, flow: _Flow, x: float, y: float, z_max: float, unit: float) -> None:
    row = flow.row
    moved = ROOM * flow.shift / unit

    def say(text: str, at: float, size: int = SMALL, color: str = INK, bold: bool = False) -> None:
        text = f"<b>{text}</b>" if bold else text
        font = {"size": size, "color": color}
        marks.annotations.append({"text": text, "x": x + 0.5, "y": y + at, "font": font, "showarrow": False})

    share = 0.0 if flow.z is None else float(np.clip(flow.z / z_max, 0.0, 1.0))
    fill = sample_colorscale(REGION_SCALE, [share])[0]
    ink = "white" if share > 0.7 else INK
    color = styles([r.name for r in comparison.rows])[row.name].color
    box = {"x0": x + 0.06, "x1": x + 0.94, "y1": y + 0.76}
    marks.shapes += [
        {"type": "rect", **box, "y0": y + 0.44, "fillcolor": fill, "line": {"color": INK, "width": 1}},
        {"type": "line", **box, "y0": y + 0.76, "line": {"color": color, "width": 5}},
    ]
    say(safe(short(label(row.name))), 0.955, 14, INK, bold=True)
    defense = next((d for d in row.defense if not d.suffix), None)
    if defense is not None and "DS" in defense.by_kind:
        say(f"safe answers {fixed(defense.by_kind['DS'].value, 0)} %", 0.89, SMALL)
    _arrow(marks, x + 0.5, y + 0.765, x + 0.5, y + 0.86)
    say(f"W_V of layer {comparison.layer}", 0.72, SMALL, ink)
    if row.region:
        region = row.region[0]
        say(minus(f"toxicity {number(region.value.value)}"), 0.655, 13, ink, bold=True)
        change = "" if row.name == "vanilla" else f"Δ {signed(region.change.value)}, "
        say(minus(f"{change}z = {'n/a' if flow.z is None else fixed(flow.z)}"), 0.59, SMALL, ink)
        if row.name != "vanilla":
            say(f"p(Δ) = {number(region.p_change)}", 0.535, SMALL, ink)
            say(f"weights moved {number(row.weight_change.value)} %", 0.48, SMALL, ink)
    else:
        say("not measured", 0.60, SMALL, ink)
    for place in PLACES:
        _arrow(marks, x + place + moved, y + 0.275, x + place + moved, y + 0.425)
    if row.shift is None:
        said = "activations: reference" if row.name == "vanilla" else "activations: not measured"
    elif row.shift.identity:
        said = "shift 0 by construction"
    else:
        said = f"shift {number(row.shift.rate.value, 3)} %"
    say(said, 0.13, 13, MUTED if row.shift is None else INK)
    if flow.levels:
        say(f"median activation {number(flow.levels[2])}", 0.065, SMALL, MUTED)


def _dots(fig: go.Figure, flows: list[_Flow], columns: int, rows: int, unit: float) -> None:
    rings: tuple[list[float], list[float]] = ([], [])
    dots: tuple[list[float], list[float], list[float]] = ([], [], [])
    plain: tuple[list[float], list[float]] = ([], [])
    for i, flow in enumerate(flows):
        x, y = i % columns, rows - 1 - i // columns + 0.22
        moved = ROOM * flow.shift / unit
        for q, place in enumerate(PLACES):
            if moved:
                rings[0].append(x + place)
                rings[1].append(y)
            if flow.levels:
                dots[0].append(x + place + moved)
                dots[1].append(y)
                dots[2].append(flow.levels[q])
            else:
                plain[0].append(x + place + moved)
                plain[1].append(y)
    ring = {"symbol": "circle-open", "size": 15, "color": "#BBBBBB", "line": {"width": 1.2}}
    fig.add_trace(go.Scatter(x=rings[0], y=rings[1], mode="markers", marker=ring, hoverinfo="skip", name="vanilla's"))
    fig.add_trace(
        go.Scatter(
            x=dots[0], y=dots[1], mode="markers", name="activation",
            marker={
                "size": 15, "color": dots[2], "coloraxis": "coloraxis", "line": {"color": INK, "width": 0.8},
            },
            hovertemplate="activation %{marker.color:.3g}<extra></extra>",
        )
    )  # fmt: skip
    hollow = {"size": 15, "color": "white", "line": {"color": INK, "width": 0.8}}
    fig.add_trace(go.Scatter(x=plain[0], y=plain[1], mode="markers", marker=hollow, hoverinfo="skip", name="inputs"))


def _arrow(marks: _Marks, x0: float, y0: float, x1: float, y1: float) -> None:
    marks.annotations.append(
        {
            "x": x1, "y": y1, "ax": x0, "ay": y0, "xref": "x", "yref": "y", "axref": "x", "ayref": "y", "text": "",
            "showarrow": True, "arrowhead": 2, "arrowsize": 0.9, "arrowwidth": 1.2, "arrowcolor": "#555555",
        }
    )  # fmt: skip


def _bar(title: str, x: float, height: float) -> dict[str, Any]:
    return {
        "orientation": "h", "x": x, "xanchor": "center", "y": -8 / height, "yanchor": "top", "len": 0.46,
        "thickness": 10, "title": {"text": title, "side": "top", "font": {"size": SMALL}}, "tickfont": {"size": SMALL},
        "nticks": 4,
    }  # fmt: skip


def _ticks(low: float, high: float) -> dict[str, Any]:
    """Both ends and the middle: a narrow range would otherwise get a single tick."""
    values = [low, (low + high) / 2, high]
    return {"tickmode": "array", "tickvals": values, "ticktext": [number(v) for v in values]}


def _scales(fig: go.Figure, z_max: float, rows: int) -> None:
    """The colour bar of the boxes hangs on an unseen trace: shapes have none."""
    fig.add_trace(
        go.Scatter(
            x=[None], y=[None], mode="markers", hoverinfo="skip", name="region",
            marker={
                "color": [0.0], "cmin": 0.0, "cmax": z_max, "colorscale": REGION_SCALE, "showscale": True,
                "colorbar": _bar("Toxicity of the region: z against random directions", 0.75, HEIGHT * rows),
            },
        )
    )  # fmt: skip
