"""Layer figures: scores per layer and instance with the located layer marked, and how often each layer was located."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import InputError
from interp.plots.text import label, ns_of, safe, wrapped
from interp.plots.theme import INK, MUTED, SAFE, finish
from interp.records import CATEGORIES, Comparison, LayerScores

MAX_LABELS = 12
"""More categories than this are not named on the axis."""
_SHORT = {
    "unfairness and bias": "bias",
    "illegal activities": "illegal",
    "ethics and morality": "ethics",
    "privacy and property": "privacy",
    "political sensitivity": "political",
    "physical harm": "physical",
    "mental harm": "mental",
}
"""As the paper's own tables shorten them."""


def layer_heatmap(scores: LayerScores) -> go.Figure:
    """Score of every layer for every instance, instances grouped by category, each instance's located layer marked."""
    fig = _heatmap(scores)
    located = np.array(scores.located)[_order(scores.categories)]
    n, depth = scores.values.shape
    cell = min(400 / n, 250 / depth)
    fig.add_trace(
        go.Scatter(
            x=list(range(n)),
            y=located.tolist(),
            mode="markers",
            marker={
                "symbol": "circle",
                "size": float(np.clip(0.5 * cell, 3, 9)),
                "color": "white",
                "line": {"color": INK, "width": 1 if cell > 8 else 0.5},
            },
            name="located layer of the instance (argmax)",
            showlegend=True,
            hoverinfo="skip",
        )
    )
    return finish(fig, *_size(scores), margin={"t": 36})


def logit_lens_heatmap(scores: LayerScores, located: int | None = None) -> go.Figure:
    """Signed scores (refuse minus comply, say) of every layer and instance: red above zero, blue below.

    Args:
        scores: any signed score; `unit` labels the colour bar.
        located: a 0-based layer to point at, e.g. the toxic layer.
    """
    fig = _heatmap(scores)
    finite = np.abs(scores.values[np.isfinite(scores.values)])
    reach = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    fig.update_traces(colorscale="RdBu_r", zmid=0, zmin=-reach, zmax=reach)
    if located is not None:
        n, depth = scores.values.shape
        shown = sorted({*range(0, depth, _step(depth)), located})
        fig.update_yaxes(tickvals=shown, ticktext=[f"toxic layer {y}" if y == located else str(y) for y in shown])
        fig.add_shape(
            type="rect", x0=-0.5, x1=n - 0.5, y0=located - 0.5, y1=located + 0.5, line={"color": INK, "width": 1.5}
        )
    return finish(fig, *_size(scores), margin={"t": 16})


def layer_histogram(scores: Sequence[LayerScores]) -> go.Figure:
    """How many instances located each layer, one panel per convention.

    Raises:
        InputError: no scores, or of models of different depth.
    """
    depths = {s.values.shape[1] for s in scores}
    if len(depths) != 1:
        raise InputError(f"expected layer scores of one model, got {len(scores)} of depths {sorted(depths)}")
    return _histogram({s.convention: s.counts for s in scores}, depths.pop())


def located_by_model(comparison: Comparison) -> go.Figure:
    """How many instances located each layer in each model, under the convention in use."""
    depth = comparison.layer_scores[0].values.shape[1]
    rows = comparison.rows
    counts = [[row.located.get(layer, 0) for layer in range(depth)] for row in rows]
    fig = go.Figure(
        go.Heatmap(
            z=counts,
            x=list(range(depth)),
            y=list(range(len(rows))),
            text=[[str(c) if c else "" for c in row] for row in counts],
            texttemplate="%{text}",
            textfont={"size": 11},
            colorscale="Blues",
            zmin=0,
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate="layer %{x}: %{z} instances<extra></extra>",
            name="instances",
        )
    )
    n = ns_of(sum(c) for c in counts)
    fig.update_xaxes(title={"text": f"Located layer (0-based); cells: instances (n = {n})"}, dtick=_step(depth))
    fig.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[safe(label(row.name)) for row in rows],
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
    )
    return finish(fig, 560, 110 + 28 * len(rows), margin={"t": 16})


# ------------------------------------------------------------------------------------------------- parts
def _order(categories: Sequence[str]) -> list[int]:
    """Instances sorted by category in the paper's order, unknown ones after in order of appearance; stable."""
    keys = [c.strip().lower() for c in categories]
    rank = {c: i for i, c in enumerate(dict.fromkeys([*CATEGORIES, *keys]))}
    return sorted(range(len(keys)), key=lambda i: rank[keys[i]])


def _size(scores: LayerScores) -> tuple[int, int]:
    depth = scores.values.shape[1]
    return 560, 360 if depth <= 16 else 460


def _heatmap(scores: LayerScores) -> go.Figure:
    order = _order(scores.categories)
    values = scores.values[order]
    n, depth = values.shape
    keys = [scores.categories[i].strip().lower() for i in order]
    names = [safe(scores.categories[i]) for i in order]
    fig = go.Figure(
        go.Heatmap(
            z=values.T,
            x=list(range(n)),
            y=list(range(depth)),
            customdata=[[[scores.instance_ids[i], name] for i, name in zip(order, names, strict=True)]] * depth,
            hovertemplate="instance %{customdata[0]}, %{customdata[1]}<br>layer %{y}: %{z:.3g}<extra></extra>",
            hoverongaps=False,
            colorbar={"title": {"text": wrapped(scores.unit, 44)}, "x": 1.02},
            name="score",
        )
    )
    starts = [i for i in range(n) if i == 0 or keys[i] != keys[i - 1]]
    grouped = 1 < len(starts) <= MAX_LABELS
    if grouped:
        for start in starts[1:]:
            fig.add_shape(
                type="line",
                x0=start - 0.5,
                x1=start - 0.5,
                y0=-0.5,
                y1=depth - 0.5,
                line={"color": "white", "width": 1.5},
            )
        ends = [*starts[1:], n]
        fig.update_xaxes(
            tickvals=[(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)],
            ticktext=[safe(_SHORT.get(keys[a], keys[a])) for a in starts],
            tickangle=-40,
        )
    by = "Instances by category" if grouped else "Instances"
    title = f"{by} (n = {n}{f', {scores.truncated} cut to the context' if scores.truncated else ''})"
    fig.update_xaxes(title={"text": title}, range=[-0.5, n - 0.5])
    if not grouped:
        fig.update_xaxes(showticklabels=False, ticks="")
    fig.update_yaxes(title={"text": "Layer (0-based)"}, range=[-0.5, depth - 0.5], dtick=_step(depth), showgrid=False)
    return fig


def _step(depth: int) -> int:
    return 1 if depth <= 16 else 4


def _histogram(counts: Mapping[str, Mapping[int, int]], depth: int) -> go.Figure:
    panels = len(counts)
    fig = make_subplots(rows=panels, cols=1, shared_xaxes=True, vertical_spacing=min(0.14, 0.42 / panels))
    n = max((sum(c.values()) for c in counts.values()), default=0)
    for i, (name, found) in enumerate(counts.items(), start=1):
        own = sum(found.values())
        fig.add_trace(
            go.Bar(
                x=list(range(depth)),
                y=[found.get(layer, 0) for layer in range(depth)],
                text=[str(found[layer]) if found.get(layer) else "" for layer in range(depth)],
                textposition="outside",
                textfont={"size": 11},
                cliponaxis=False,
                marker={"color": SAFE if i == 1 else MUTED},
                width=0.7,
                name=safe(name),
                showlegend=False,
                hovertemplate="layer %{x}: %{y} instances<extra></extra>",
            ),
            row=i,
            col=1,
        )
        fig.add_annotation(
            text=f"{safe(name)} (n = {own})", x=0, xref="x domain", y=1, yref="y domain", xanchor="left",
            yanchor="bottom", yshift=4, font={"size": 12}, row=i, col=1,
        )  # fmt: skip
    fig.update_xaxes(range=[-0.6, depth - 0.4], dtick=_step(depth))
    fig.update_yaxes(range=[0, 1.2 * max(n, 1)], nticks=4, dtick=1 if n <= 4 else None)
    fig.update_xaxes(title={"text": "Located layer (0-based)"}, row=panels, col=1)
    fig.update_yaxes(title={"text": "Instances"}, row=(panels + 1) // 2, col=1)
    return finish(fig, 560, 130 + 115 * panels if panels > 1 else 300, bargap=0.3, margin={"t": 36})
