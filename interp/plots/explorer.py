"""A figure to go through instances with: a slider moves over a layer heatmap, and the texts below it follow.

Everything is in the figure itself (`layout.sliders` with restyle): it works in a saved notebook and on a page without a
network, and needs no running kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from interp.errors import InputError
from interp.plots.canvas import broken, lines_of
from interp.plots.text import safe
from interp.plots.theme import GRID, INK, SMALL, finish
from interp.records import LayerScores

WIDTH = 900
LONGEST = 420
"""Characters of a text that are shown."""


def explorer(scores: LayerScores, texts: Mapping[str, Sequence[str]], *, signed: bool = True) -> go.Figure:
    """Scores of every layer and instance, a slider that picks an instance, and what was said to it and by it.

    Args:
        scores: one row of numbers per instance, e.g. of `refusal_lens` or `layer_distances`.
        texts: column heading -> one text per instance, e.g. the prompt, the answer before and the answer after an edit.
        signed: whether zero is the middle of the colour scale.

    Raises:
        InputError: a column has not one text per instance, or there is none.
    """
    n, depth = scores.values.shape
    for name, column in texts.items():
        if len(column) != n:
            raise InputError(f"expected {n} texts in the column {name!r}, one per instance, got {len(column)}")
    if not texts:
        raise InputError("expected at least one column of texts, got none")
    finite = np.abs(scores.values[np.isfinite(scores.values)])
    reach = float(finite.max(initial=0.0)) or 1.0
    scale = {"colorscale": "RdBu_r", "zmid": 0, "zmin": -reach, "zmax": reach} if signed else {"colorscale": "Cividis"}
    unit = broken(lines_of(scores.unit, 200, 12))
    fig = go.Figure(
        [
            go.Heatmap(
                z=scores.values.T.tolist(), x=list(range(n)), y=list(range(depth)), xgap=0.5, ygap=0.5,
                colorbar={"title": {"text": unit, "side": "right"}, "len": 0.4, "y": 1, "yanchor": "top"},
                hovertemplate="instance %{x}, layer %{y}: %{z:.2f}<extra></extra>", name="scores", **scale,
            ),
            go.Scatter(**_box(0, depth), mode="lines", line={"color": INK, "width": 2.5}, hoverinfo="skip",
                       showlegend=False, name="chosen instance"),
            go.Table(
                header={"values": [f"<b>{safe(name)}</b>" for name in texts], "align": "left", "fill": {"color": GRID},
                        "font": {"size": 12, "color": INK}},
                cells={"values": _cells(texts, 0), "align": "left", "fill": {"color": "white"},
                       "font": {"size": SMALL + 1, "color": INK}, "height": 22},
                domain={"x": [0, 1], "y": [0, 0.32]}, name="texts",
            ),
        ]
    )  # fmt: skip
    steps = [
        {
            "label": str(i), "method": "restyle",
            "args": [{"x": [_box(i, depth)["x"], None], "cells.values": [None, _cells(texts, i)]}, [1, 2]],
        }
        for i in range(n)
    ]  # fmt: skip
    fig.update_layout(
        sliders=[
            {
                "active": 0, "steps": steps, "x": 0, "len": 1, "y": 0.5, "yanchor": "top", "pad": {"t": 0, "b": 0},
                "currentvalue": {"prefix": "instance ", "font": {"size": 13}, "xanchor": "left"},
                "font": {"size": SMALL}, "ticklen": 3, "minorticklen": 0,
            }
        ],
    )  # fmt: skip
    fig.update_xaxes(
        title={"text": f"Instance (n = {n})"}, range=[-0.6, n - 0.4], showgrid=False, dtick=1 if n < 30 else 5
    )
    fig.update_yaxes(title={"text": "Layer (0-based)"}, range=[-0.6, depth - 0.4], showgrid=False, domain=[0.62, 1],
                     dtick=1 if depth <= 12 else 4)  # fmt: skip
    return finish(fig, WIDTH, 620, margin={"t": 16, "r": 24, "b": 10})


def _box(instance: int, depth: int) -> dict[str, list[float]]:
    """The outline of one column of the heatmap."""
    left, right, low, high = instance - 0.5, instance + 0.5, -0.5, depth - 0.5
    return {"x": [left, right, right, left, left], "y": [low, low, high, high, low]}


def _cells(texts: Mapping[str, Sequence[str]], instance: int) -> list[list[str]]:
    shown = (column[instance] for column in texts.values())
    cut = (t if len(t) <= LONGEST else t[: LONGEST - 1] + "…" for t in shown)
    return [[safe(" ".join(t.split()))] for t in cut]
