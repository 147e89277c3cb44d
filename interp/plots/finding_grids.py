"""The heatmaps of a finding: small multiples of one size on one colour scale."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from interp.plots.canvas import Canvas, Rect, fitted, width_of
from interp.plots.text import minus, number, safe
from interp.plots.theme import INK, SMALL
from interp.records import Grid


@dataclass(frozen=True)
class GridShape:
    """What all grids of a block have in common: their size, so that they compare, and the room of their labels."""

    width: float
    height: float
    columns: int
    pad: float
    """Left of a grid whose y labels are shown."""
    foot: float
    """Below a grid, for its x labels."""
    shared: bool
    """Whether the y labels are shown once a line."""
    turned: bool

    @classmethod
    def of(cls, grids: Sequence[Grid], room: float) -> GridShape:
        """Up to three in a line, fewer where a grid is wide or its labels are long."""
        shared = len({(g.y, g.y_label) for g in grids}) == 1
        across, down = max(len(g.x) for g in grids), max(len(g.y) for g in grids)
        pad = 30 + max(min(width_of(y, SMALL), 110) for g in grids for y in g.y)
        columns = min(len(grids), 3)
        while columns > 1 and cls._width(room, pad, columns, shared) < min(5 * across, 280):
            columns -= 1
        columns = -(-len(grids) // -(-len(grids) // columns))  # no single grid on the last line where two can be
        width = min(cls._width(room, pad, columns, shared), max(44.0 * across, 150.0))
        named = any(not _is_number(x) for g in grids for x in g.x)
        wide = max(width_of(x, SMALL) for g in grids for x in g.x)
        turned = named and wide > width / across - 4
        height = float(np.clip(17 * down, 96, 300))
        return cls(width, height, columns, pad, 8 + (0.75 * min(wide, 110) + 8 if turned else 14), shared, turned)

    @staticmethod
    def _width(room: float, pad: float, columns: int, shared: bool) -> float:
        return (room - pad * (1 if shared else columns) - 14 * columns) / columns

    @property
    def cell_width(self) -> float:
        """Room for a grid's heading."""
        return self.width + (0 if self.shared else self.pad) + 8

    def left(self, i: int) -> float:
        """Left edge of the i-th grid of a line."""
        return self.pad + i * (self.width + 14 + (0 if self.shared else self.pad))


def color_scale(grids: Sequence[Grid]) -> dict[str, Any]:
    """One scale for all: blue, white, red about zero where the values have signs, else Cividis."""
    values = np.concatenate([np.asarray(g.values, float).ravel() for g in grids])
    values = values[np.isfinite(values)]
    bar = {"outlinewidth": 0, "thickness": 12, "tickfont": {"size": SMALL}, "title": {"font": {"size": 12}}}
    if grids[0].signed:
        reach = float(np.abs(values).max(initial=0.0)) or 1.0
        return {"colorscale": "RdBu_r", "cmin": -reach, "cmax": reach, "cmid": 0, "colorbar": bar}
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    return {"colorscale": "Cividis", "cmin": low, "cmax": high if high > low else low + 1.0, "colorbar": bar}


def grid(canvas: Canvas, rect: Rect, panel: Grid, color_axis: str, shape: GridShape, named: bool) -> None:
    """One heatmap; values stand in the cells where these are large enough, marked cells are outlined."""
    rows, columns = len(panel.y), len(panel.x)
    upward = all(_is_number(y) for y in panel.y)
    step_x = 1 if shape.turned else _step(panel.x, rect.width, wide=True)
    step_y = _step(panel.y, rect.height, wide=False)
    x = {
        "tickvals": list(range(0, columns, step_x)), "tickangle": -45 if shape.turned else 0,
        "tickfont": {"size": SMALL}, "ticktext": [minus(safe(fitted(t, 110, SMALL))) for t in panel.x[::step_x]],
        "range": [-0.5, columns - 0.5],
    }  # fmt: skip
    y = {
        "tickvals": list(range(0, rows, step_y)), "showticklabels": named, "showgrid": False,
        "tickfont": {"size": SMALL}, "ticktext": [minus(safe(fitted(t, 110, SMALL))) for t in panel.y[::step_y]],
        "range": [-0.5, rows - 0.5] if upward else [rows - 0.5, -0.5],
    }  # fmt: skip
    x_axis, y_axis = canvas.panel(rect, x, y)
    values = np.asarray(panel.values, float)
    written = [[minus(number(v)) if math.isfinite(v) else "" for v in row] for row in values]
    fits = rect.width / columns >= 6 + max((width_of(t, SMALL) for row in written for t in row), default=0)
    fits = fits and rect.height / rows >= 15
    canvas.fig.add_trace(
        go.Heatmap(
            z=values.tolist(), x=list(range(columns)), y=list(range(rows)), coloraxis=color_axis,
            name=safe(panel.title), xaxis=x_axis, yaxis=y_axis, xgap=0.5, ygap=0.5,
            customdata=[[safe(f"{b}, {a}") for a in panel.x] for b in panel.y],
            text=written if fits else None, texttemplate="%{text}" if fits else None,
            textfont={"size": SMALL} if fits else None,
            hovertemplate="%{customdata}: %{z:.3g}<extra>" + safe(panel.title) + "</extra>",
        )
    )  # fmt: skip
    for row, column in panel.marked:
        for color, width in (("white", 3.5), (INK, 1.5)):
            canvas.fig.add_shape(
                type="rect", xref=x_axis, yref=y_axis, x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5,
                line={"color": color, "width": width},
            )  # fmt: skip


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+−]?\d+(\.\d+)?", text.strip()) is not None


def _step(names: Sequence[str], pixels: float, *, wide: bool) -> int:
    """Every how manieth label can be shown without touching its neighbour."""
    need = max(width_of(n, SMALL) for n in names) + 6 if wide else 14
    return max(1, math.ceil(need * len(names) / max(pixels, 1)))
