"""The paper's Fig. 8: where h_mid of each input went, one panel per method, pairs joined by dotted lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.plots.text import fixed, label, number, safe, short
from interp.plots.theme import INK, MUTED, SMALL, finish, heading
from interp.records import ShiftSource

COLUMNS = 3
_COLORS = (
    "#00224e", "#083370", "#35456c", "#4f576c", "#666970", "#7d7c78", "#948e77", "#aea371", "#c8b866", "#dfca57",
    "#f0d94a",
)  # fmt: skip
SCALE = [[i / 10, color] for i, color in enumerate(_COLORS)]
"""Cividis without its palest end, which is lost on white."""


def shift_source(sources: Sequence[ShiftSource]) -> go.Figure:
    """Shift component and first principal component of h_mid, from vanilla (circle) to the model (diamond).

    All panels have one scale and one colour bar: how strongly the input activates the toxic region. Where the mean
    shift is zero the axis says what stands in for it.
    """
    n_columns = min(COLUMNS, max(len(sources), 1))
    n_rows = -(-max(len(sources), 1) // COLUMNS)
    fig = make_subplots(
        rows=n_rows, cols=n_columns, horizontal_spacing=0.09, vertical_spacing=0.36 / n_rows if n_rows > 1 else 0
    )
    for i, source in enumerate(sources):
        row, column = i // n_columns + 1, i % n_columns + 1
        _panel(fig, source, row, column)
        axis = "" if i == 0 else str(i + 1)
        note = f"‖mean shift‖ {number(source.delta_norm)}, PC1 {fixed(100 * source.explained, 0)} %"
        heading(
            fig,
            f'{safe(short(label(source.model)))}<br><span style="font-size:{SMALL}px;color:{MUTED}">{note}</span>',
            x=0, xref=f"x{axis} domain", y=1.01, yref=f"y{axis} domain",
        )  # fmt: skip
        moved = source.axis == "mean shift"
        fig.update_xaxes(title={"text": "Shift component" if moved else "PC2 (no mean shift)"}, row=row, col=column)
        fig.update_yaxes(title={"text": "PC1 (residual stream units)" if column == 1 else ""}, row=row, col=column)
    for name, symbol, size in (
        ("vanilla", "circle", 10),
        ("model", "diamond", 7),
    ):  # the points' own colours are levels
        marker = {"symbol": symbol, "size": size, "color": MUTED}
        fig.add_trace(go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, hoverinfo="skip"))
    x, y, level = _reach(sources)
    fig.update_xaxes(range=x, zeroline=True, zerolinecolor="#E6E6E6")
    fig.update_yaxes(range=y)
    n = max((len(s.vanilla) for s in sources), default=0)
    bar = {
        "title": {"text": f"Activation: mean |h_down| (n = {n} inputs)"},
        "len": min(1.0, 300 / (300 * n_rows) * 1.15),
    }
    return finish(
        fig, *((560, 360) if n_columns == 1 else (720, 70 + 300 * n_rows)),
        margin={"t": 92, "l": 60, "b": 52}, legend={"y": 1, "yref": "container", "yanchor": "top"},
        coloraxis={"colorscale": SCALE, "cmin": level[0], "cmax": level[1], "colorbar": bar},
    )  # fmt: skip


def _panel(fig: go.Figure, source: ShiftSource, row: int, column: int) -> None:
    pairs: list[list[float | None]] = [[], []]
    for start, end in zip(source.vanilla, source.shifted, strict=True):
        for axis in (0, 1):
            pairs[axis] += [float(start[axis]), float(end[axis]), None]  # a gap ends the line of one input
    fig.add_trace(
        go.Scatter(
            x=pairs[0], y=pairs[1], mode="lines", line={"color": "#888888", "width": 1, "dash": "dot"},
            hoverinfo="skip", showlegend=False, connectgaps=False, name="pairs",
        ), row=row, col=column,
    )  # fmt: skip
    ids = [f"instance {i}" for i in source.instance_ids] or [f"input {i}" for i in range(len(source.vanilla))]
    for name, points, levels, symbol, size in (
        ("vanilla", source.vanilla, source.activation_vanilla, "circle", 10),
        ("model", source.shifted, source.activation_shifted, "diamond", 7),
    ):
        fig.add_trace(
            go.Scatter(
                x=points[:, 0], y=points[:, 1], mode="markers", name=name, text=ids, showlegend=False,
                marker={
                    "symbol": symbol, "size": size, "color": levels, "coloraxis": "coloraxis",
                    "line": {"color": "white" if name == "model" else INK, "width": 0.8},
                },
                hovertemplate="%{text}<br>activation %{marker.color:.3g}<extra>" + name + "</extra>",
            ), row=row, col=column,
        )  # fmt: skip


def _reach(sources: Sequence[ShiftSource]) -> tuple[list[float], list[float], list[float]]:
    """Padded ranges of both axes and the range of the activation level over all panels."""
    if not sources or not any(len(s.vanilla) for s in sources):
        return [-1.0, 1.0], [-1.0, 1.0], [0.0, 1.0]
    points = np.concatenate([p for s in sources for p in (s.vanilla, s.shifted)])
    levels = np.concatenate([a for s in sources for a in (s.activation_vanilla, s.activation_shifted)])
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.where(high > low, 0.08 * (high - low), 1.0)
    ranges = [[float(a), float(b)] for a, b in zip(low - room, high + room, strict=True)]
    least, most = float(levels.min()), float(levels.max())
    return ranges[0], ranges[1], [least, most if most > least else least + 1.0]
