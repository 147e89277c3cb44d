"""The house style of every figure: one explicit template, one colour and pattern per method, fixed trace ids.

Colours are Okabe and Ito's; patterns and symbols keep the methods apart in grey. Nothing global is changed: each figure
carries its template, and `finish` is the last call of every function that draws one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from interp.plots.text import label
from interp.records import Estimate

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
INK = "#222222"
MUTED = "#666666"
GRID = "#E6E6E6"
BAND = "#DEDEDE"
"""Ground of what chance gives."""
SAFE, UNSAFE = "#0072B2", "#D55E00"
SMALL = 11
"""Size of the smallest text in a figure, px."""
SINGLE = (560, 360)
DOUBLE = (720, 340)

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud"],
}
"""For every `to_html`: plotly.js would otherwise offer to upload the chart."""


@dataclass(frozen=True)
class Style:
    """How one method is drawn everywhere."""

    label: str
    color: str
    pattern: str
    """Pattern of its bars; "" for none."""
    symbol: str
    """Marker of its points."""


_FIXED = {
    "vanilla": ("#999999", "", "circle"),
    "sft": ("#E69F00", "/", "square"),
    "dpo": ("#56B4E9", ".", "triangle-up"),
    "dinm": ("#0072B2", "", "diamond"),
}
_OTHERS = (
    ("#009E73", "x", "cross"),
    ("#CC79A7", "\\", "pentagon"),
    ("#D55E00", "-", "star"),
    ("#000000", "|", "hexagon"),
    ("#F0E442", "+", "triangle-down"),
)


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each row of a comparison: known methods have theirs, models made elsewhere take the rest in order."""
    others = [name for name in names if name not in _FIXED]
    return {
        name: Style(label(name), *(_FIXED.get(name) or _OTHERS[others.index(name) % len(_OTHERS)])) for name in names
    }


def _template() -> go.layout.Template:
    axis = {
        "showline": True, "linecolor": INK, "linewidth": 1, "ticks": "outside", "ticklen": 4, "tickcolor": INK,
        "zeroline": False, "showgrid": False, "automargin": True,
        "title": {"font": {"size": 14}, "standoff": 8}, "tickfont": {"size": 12},
    }  # fmt: skip
    bar = {
        "outlinewidth": 0,
        "thickness": 12,
        "title": {"font": {"size": 12}, "side": "right"},
        "tickfont": {"size": 11},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "xaxis": axis,
            "yaxis": {**axis, "showgrid": True, "gridcolor": GRID},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "font": {"size": 12},
            },
            "margin": {"l": 64, "r": 16, "t": 40, "b": 56},
            "coloraxis": {"colorbar": bar},
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "annotationdefaults": {"font": {"size": SMALL}, "showarrow": False},
        },
        data={"heatmap": [go.Heatmap(colorscale="Cividis", colorbar=bar)]},
    )


PAPER = _template()


def finish(fig: go.Figure, width: int, height: int, **layout: Any) -> go.Figure:
    """Give a figure the house template, its size and fixed trace ids (random ones change the files at every run)."""
    fig.update_layout(template=PAPER, width=width, height=height, **layout)
    for i, trace in enumerate(traces(fig)):
        trace.uid = f"trace{i}"
    return fig


def traces(fig: go.Figure) -> tuple[Any, ...]:
    """The traces of a figure (plotly's own annotation of `data` is wrong)."""
    data: Any = fig.data
    return data


def bars(style: Style) -> dict[str, Any]:
    """The `marker` of a method's bars."""
    pattern = {"shape": style.pattern, "fillmode": "overlay", "fgcolor": "white", "size": 6, "solidity": 0.3}
    return {"color": style.color, "line": {"width": 0}, **({"pattern": pattern} if style.pattern else {})}


def errors(estimates: Sequence[Estimate], scale: float = 1.0, thickness: float = 1.2) -> dict[str, Any]:
    """`error_x` or `error_y` for some estimates; a negative `scale` swaps the ends."""
    up = [abs(scale) * ((e.high - e.value) if scale > 0 else (e.value - e.low)) for e in estimates]
    down = [abs(scale) * ((e.value - e.low) if scale > 0 else (e.high - e.value)) for e in estimates]
    return {
        "type": "data", "symmetric": False, "array": up, "arrayminus": down,
        "color": INK, "thickness": thickness, "width": 3, "visible": any(x > 0 for x in (*up, *down)),
    }  # fmt: skip


def legend_height(labels: Sequence[str], width: int) -> int:
    """Pixels that a horizontal legend takes: plotly puts its entries in columns of equal width."""
    widest = 48 + 7 * max((len(text) for text in labels), default=0)
    per_row = max(1, min(len(labels), width // widest))
    return 20 * -(-len(labels) // per_row)


def heading(fig: go.Figure, text: str, *, x: float, y: float = 1.0, xref: str = "paper", yref: str = "paper") -> None:
    """A panel's heading, left-aligned above it (a figure has no title: captions live in the text)."""
    fig.add_annotation(
        text=text, x=x, y=y, xref=xref, yref=yref, xanchor="left", yanchor="bottom", align="left", font={"size": 13}
    )
