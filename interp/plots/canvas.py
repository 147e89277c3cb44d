"""Panels placed by the pixel: where a figure's number of panels is not known beforehand, nothing may overlap by luck.

plotly makes room for labels by moving panels, each by itself. Here widths of texts are estimated from the font's
metrics, every panel gets a rectangle that holds its labels, and margins are switched off. What goes into a rectangle is
drawn by `interp.plots.findings`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from interp.plots.text import safe
from interp.plots.theme import INK, MUTED, finish

LINE = 1.25
"""Height of a line of text over its size."""
SWATCH_LINE = 17
"""Height of a line of a panel's own legend."""
_NARROW, _WIDE = set("ijl.,:;'|! ftI()[]/-"), set("mwMWG%@OQ")


def width_of(text: str, size: float) -> float:
    """Pixels that a text takes in Liberation Sans, a little more than less."""
    ems = sum(0.32 if c in _NARROW else 0.86 if c in _WIDE else 0.69 if c.isupper() else 0.565 for c in text)
    return ems * size


def lines_of(text: str, room: float, size: float, *, name: bool = False) -> list[str]:
    """A text broken at blanks so that each line fits into `room` pixels; a longer word is cut in its middle.

    A name is also broken behind its hyphens and underscores.
    """
    pieces = re.findall(r"[^\s\-_/]*[\-_/]*\s*" if name else r"\S+\s*", text.strip())
    lines = [""]
    for piece in pieces:
        if not lines[-1] or width_of((lines[-1] + piece).rstrip(), size) <= room:
            lines[-1] += piece
        else:
            lines.append(piece)
    return [fitted(line.rstrip(), room, size) for line in lines]


def legend_lines(labels: Sequence[str], room: float) -> int:
    """Lines that a horizontal legend takes; plotly lets its entries flow, or puts them in columns."""
    widths = [52 + width_of(text, 12) for text in labels]
    per_line = max(1, int(room // max(widths)))
    flowing, used = 1, 0.0
    for w in widths:
        flowing, used = (flowing + 1, w) if used + w > room else (flowing, used + w)
    return max(flowing, -(-len(labels) // per_line))


def fitted(text: str, room: float, size: float) -> str:
    """The text, or what fits of its two ends."""
    if width_of(text, size) <= room:
        return text
    keep = len(text)
    while keep > 2 and width_of(text[:keep] + "…", size) > room:
        keep -= 1
    tail = keep // 3
    return f"{text[: keep - tail]}…{text[len(text) - tail :] if tail else ''}"


def broken(lines: Sequence[str]) -> str:
    """Lines for plotly, escaped."""
    return "<br>".join(safe(line) for line in lines)


def swatch_width(text: str, room: float) -> float:
    """Pixels that an entry of `Canvas.swatches` takes."""
    return 15 + width_of(fitted(text, room - 20, 12), 12) + 14


def swatch_lines(labels: Sequence[str], room: float) -> int:
    """Lines that `Canvas.swatches` takes."""
    lines, used = 1, 0.0
    for wide in (swatch_width(text, room) for text in labels):
        lines, used = (lines + 1, wide) if used and used + wide > room else (lines, used + wide)
    return lines


@dataclass(frozen=True)
class Rect:
    """A rectangle on a canvas, pixels from the upper left corner."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height


class Canvas:
    """A figure whose panels and texts are placed by the pixel; the height is given when it is finished.

    Everything is kept until then, because plotly counts from below in fractions of a height not known before.
    """

    def __init__(self, width: int) -> None:
        self.fig = go.Figure()
        self.width = width
        self._axes: list[tuple[Rect, dict, dict]] = []
        self._texts: list[dict] = []
        self._legends: list[tuple[float, float, dict]] = []
        self._squares: list[tuple[float, float, str]] = []
        self._bars: dict[str, tuple[float, float, float, dict]] = {}

    def panel(self, rect: Rect, x: dict, y: dict) -> tuple[str, str]:
        """A new pair of axes that fill `rect`; returns their names for traces ("x2", "y2")."""
        self._axes.append((rect, x, y))
        number = "" if len(self._axes) == 1 else str(len(self._axes))
        return f"x{number}", f"y{number}"

    def text(
        self, lines: Sequence[str], left: float, top: float, *, size: int = 13, color: str = INK, anchor: str = "left",
        angle: float = 0,
    ) -> None:  # fmt: skip
        """Lines of text, escaped here. (left, top) is a corner of their box, or its middle where it is turned."""
        where = {"xanchor": anchor, "yanchor": "top"} if not angle else {"xanchor": "center", "yanchor": "middle"}
        self._texts.append(
            {
                "text": broken(lines), "x": left, "y": top, "xref": "paper", "yref": "paper", "showarrow": False,
                "textangle": angle, "font": {"size": size, "color": color}, "align": anchor, **where,
            }
        )  # fmt: skip

    def legend(self, left: float, top: float) -> str:
        """A new horizontal legend; returns its name for traces."""
        self._legends.append((left, top, {}))
        return "legend" if len(self._legends) == 1 else f"legend{len(self._legends)}"

    def swatches(self, entries: Sequence[tuple[str, str]], left: float, top: float, room: float) -> None:
        """A legend of coloured squares within `room` pixels: plotly's own would run over the next panel."""
        x, y = left, top
        for text, color in entries:
            wide = swatch_width(text, room)
            if x > left and x + wide > left + room:
                x, y = left, y + SWATCH_LINE
            self._squares.append((x, y + 4, color))
            self.text([fitted(text, room - 20, 12)], x + 15, y, size=12)
            x += wide

    def color_axis(self, left: float, top: float, length: float, unit: Sequence[str], scale: dict) -> str:
        """A new colour scale with its bar, `length` pixels high; returns its name for traces."""
        name = "coloraxis" if not self._bars else f"coloraxis{len(self._bars) + 1}"
        self._bars[name] = (left, top, length, {"title": {"text": broken(unit)}, "scale": scale})
        return name

    def finish(self, height: float) -> go.Figure:
        """The figure, `height` pixels high."""
        w, h = self.width, round(height)
        layout: dict = {"margin": {"l": 0, "r": 0, "t": 0, "b": 0, "autoexpand": False}, "barmode": "overlay"}
        for i, (rect, x, y) in enumerate(self._axes, start=1):
            number = "" if i == 1 else str(i)
            layout[f"xaxis{number}"] = {
                "automargin": False, **x, "domain": [rect.left / w, rect.right / w], "anchor": f"y{number}",
            }  # fmt: skip
            layout[f"yaxis{number}"] = {
                "automargin": False, **y, "domain": [1 - rect.bottom / h, 1 - rect.top / h], "anchor": f"x{number}",
            }  # fmt: skip
        for i, (left, top, more) in enumerate(self._legends, start=1):
            layout["legend" if i == 1 else f"legend{i}"] = {
                "orientation": "h", "x": left / w, "xanchor": "left", "y": 1 - top / h, "yanchor": "top",
                "font": {"size": 12}, "tracegroupgap": 0, "bgcolor": "rgba(0,0,0,0)", **more,
            }  # fmt: skip
        for name, (left, top, length, more) in self._bars.items():
            bar = {
                "x": left / w, "xanchor": "left", "xpad": 0, "y": 1 - top / h, "yanchor": "top", "ypad": 0,
                "len": length / h, "lenmode": "fraction", "title": {**more["title"], "side": "right"},
            }  # fmt: skip
            layout[name] = {**more["scale"], "colorbar": bar}
        texts = [{**t, "x": t["x"] / w, "y": 1 - t["y"] / h} for t in self._texts]
        for left, top, color in self._squares:
            self.fig.add_shape(
                type="rect", xref="paper", yref="paper", x0=left / w, x1=(left + 10) / w, y0=1 - top / h,
                y1=1 - (top + 10) / h, fillcolor=color, line={"width": 0},
            )  # fmt: skip
        drawn: Any = self.fig.layout
        self.fig.update_layout(annotations=[*drawn.annotations, *texts])
        return finish(self.fig, w, h, **layout)


def muted(canvas: Canvas, line: str, left: float, top: float) -> None:
    """A small grey line."""
    canvas.text([line], left, top, size=11, color=MUTED)
