"""Any finding of the mechanism laboratory as one figure: curves, then bars, then grids, whatever their number and size.

Models keep their colours, controls are grey and dashed, intervals are drawn wherever they were computed, and the grids
of one finding share one colour scale per unit. What a panel holds is drawn in `interp.plots.finding_panels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from interp.plots import finding_panels as panels
from interp.plots.canvas import (
    LINE,
    SWATCH_LINE,
    Canvas,
    Rect,
    legend_lines,
    lines_of,
    muted,
    swatch_lines,
    width_of,
)
from interp.plots.finding_grids import GridShape, color_scale
from interp.plots.finding_grids import grid as draw_grid
from interp.plots.finding_looks import Looks
from interp.plots.gallery import Drawn
from interp.plots.text import ns, relabelled
from interp.records import Bars, Curves, Finding, Grid

WIDTH, NARROW = 720, 560
"""Canvas of a figure with several panels, and with one."""
GAP = 18
"""Pixels between panels."""
HEAD = 13
"""Size of a panel's heading."""
AXIS = 12
"""Size of an axis title: panels are smaller than the figures of the paper."""


def draw_finding(finding: Finding) -> Drawn | None:
    """The finding's figure, `deep_<name>`, with its caption; None where it has nothing to draw.

    Panels of half the width stand in pairs, what needs more room takes a whole line, grids stand side by side. Bars of
    which none could be measured are left to the words.
    """
    finding = replace(finding, bars=tuple(panel for panel in finding.bars if _measured(panel)))
    if not (finding.curves or finding.bars or finding.grids):
        return None
    alone = len(finding.curves) + len(finding.bars) == 1 and not finding.grids
    alone = alone and not _needs_line(finding.curves[0] if finding.curves else finding.bars[0], NARROW - 80)
    canvas = Canvas(NARROW if alone else WIDTH)
    looks = Looks.of(finding)
    top = 6.0
    if finding.curves or finding.bars:
        top = _panels(canvas, finding, looks, top)
    for unit in dict.fromkeys((g.unit, g.signed) for g in finding.grids):
        top = _grids(canvas, [g for g in finding.grids if (g.unit, g.signed) == unit], top)
    source = f"; after {finding.source}" if finding.source else ""
    return Drawn(
        f"deep_{finding.name}",
        finding.title,
        canvas.finish(top),
        shows=f"{finding.question} {relabelled(finding.reading)} (n = {finding.n}, seed {finding.seed}{source}.)",
        read=finding.how_to_read,
        limits=finding.limits,
    )


def draw_findings(findings: Sequence[Finding]) -> tuple[Drawn, ...]:
    """Every finding that has something to draw, in order."""
    return tuple(drawn for drawn in map(draw_finding, findings) if drawn is not None)


def _measured(panel: Bars) -> bool:
    return any(e is not None and math.isfinite(e.value) for values in panel.series.values() for e in values)


# ------------------------------------------------------------------------------------------- blocks
def _panels(canvas: Canvas, finding: Finding, looks: Looks, top: float) -> float:
    """Curves and bars, line by line. The curves share one legend; so do bars, unless each panel has series of its own
    or stands beside a curve."""
    names = [c.name for panel in finding.curves for c in panel.curves]
    names = list(dict.fromkeys(sorted(names, key=lambda n: n in looks.controls)))
    legend, top = _legend(canvas, list(dict.fromkeys(looks.curve(n).label for n in names)), top)
    lines = _packed([*finding.curves, *finding.bars], canvas.width)
    many = [panel for panel in finding.bars if len(panel.series) > 1]
    mixed = any(len({type(panel) for panel, _ in line}) > 1 for line in lines)
    common = len(many) > 1 and len({tuple(panel.series) for panel in many}) == 1 and not mixed
    shared, named, named_bars = "", set(), set()
    for cells in lines:
        if common and not shared and isinstance(cells[0][0], Bars):
            shared, top = _legend(canvas, list(many[0].series), top)
        frames = [_Frame.of(panel, cell, own=not common) for panel, cell in cells]
        head = max(f.head + f.legend for f in frames)
        for (panel, cell), frame in zip(cells, frames, strict=True):
            rect = frame.place(canvas, top, head)
            if isinstance(panel, Curves):
                panels.curves(canvas, rect, panel, looks, legend, named)
            elif frame.legend:
                entries = [(looks.series(panel, name).label, looks.series(panel, name).color) for name in panel.series]
                canvas.swatches(entries, cell[0] + 6, top + frame.head - 6, cell[1] - 10)
                panels.bars(canvas, rect, panel, looks, "", set())
            else:
                panels.bars(canvas, rect, panel, looks, shared, named_bars)
        top += head + frames[0].height + max(f.foot for f in frames)
    return top


def _legend(canvas: Canvas, labels: list[str], top: float) -> tuple[str, float]:
    """A legend over the whole width and where the next thing begins; one name needs none."""
    if len(labels) < 2:
        return "", top
    return canvas.legend(2, top), top + 20 * legend_lines(labels, canvas.width - 8) + 10


def _grids(canvas: Canvas, grids: Sequence[Grid], top: float) -> float:
    """Small multiples on one colour scale; y labels stand at the first of a line where all share them."""
    bar = 74
    shape = GridShape.of(grids, canvas.width - bar)
    first, axis = top, ""
    for start in range(0, len(grids), shape.columns):
        line = grids[start : start + shape.columns]
        heads = [lines_of(f"{relabelled(g.title)} (n = {g.n})", shape.cell_width, HEAD) for g in line]
        head = 8 + max(len(h) for h in heads) * HEAD * LINE
        if not axis:
            axis = canvas.color_axis(
                canvas.width - bar + 8, first + head, shape.height, lines_of(grids[0].unit, shape.height + 40, AXIS),
                color_scale(grids),
            )  # fmt: skip
        for i, (grid, lines) in enumerate(zip(line, heads, strict=True)):
            named = i == 0 or not shape.shared
            left = shape.left(i)
            rect = Rect(left, top + head, shape.width, shape.height)
            canvas.text(lines, left, top + 2, size=HEAD)
            draw_grid(canvas, rect, grid, axis, shape, named)
            canvas.text(lines_of(grid.x_label, shape.width, AXIS), left + shape.width / 2,
                        rect.bottom + shape.foot + 2, size=AXIS, anchor="center")  # fmt: skip
            if named:
                canvas.text(lines_of(grid.y_label, shape.height, AXIS), left - shape.pad + 8,
                            rect.top + shape.height / 2, size=AXIS, angle=-90)  # fmt: skip
        below = max(len(lines_of(g.x_label, shape.width, AXIS)) for g in line) * AXIS * LINE
        top += head + shape.height + shape.foot + below + 12
    return top


# ------------------------------------------------------------------------------------------- placing
@dataclass(frozen=True)
class _Frame:
    """Where a panel's own rectangle lies in its cell, and what stands around it."""

    cell: tuple[float, float]
    """Left edge and width."""
    pad: float
    heading: list[str]
    note: str
    x_title: list[str]
    y_title: list[str]
    head: float
    foot: float
    height: float
    legend: float

    @classmethod
    def of(cls, panel: Curves | Bars, cell: tuple[float, float], *, own: bool) -> _Frame:
        """`own`: a panel of several series has a legend of its own, below its heading."""
        height = 196.0 if cell[1] < NARROW / 1.2 else 224.0
        y_title = lines_of(panel.y_label, height, AXIS)
        pad = 20 + panels.value_label_width(panel) + len(y_title) * AXIS * LINE
        room = cell[1] - pad - 8
        heading = lines_of(relabelled(panel.title), cell[1] - 8, HEAD)
        legend = 0.0
        if isinstance(panel, Curves):
            n, x_title = ns(e for c in panel.curves for e in c.y), lines_of(panel.x_label, room, AXIS)
            below = panels.tick_height(panel, room)
        else:
            n, x_title = ns(e for values in panel.series.values() for e in values), []
            below = panels.group_label_height(panel, room)
            if own and len(panel.series) > 1:
                legend = 1.0 * SWATCH_LINE * swatch_lines(list(panel.series), cell[1] - 10) + 4
        foot = below + 10 + len(x_title) * AXIS * LINE + (20 if x_title else 10)
        head = len(heading) * HEAD * LINE + 26
        return cls(cell, pad, heading, f"n = {n}{_marks(panel)}", x_title, y_title, head, foot, height, legend)

    @property
    def width(self) -> float:
        """Of the axes."""
        return self.cell[1] - self.pad - 8

    def place(self, canvas: Canvas, top: float, head: float) -> Rect:
        """Write heading and axis titles; returns the rectangle of the axes."""
        left = self.cell[0]
        rect = Rect(left + self.pad, top + head, self.width, self.height)
        canvas.text(self.heading, left + 4, top, size=HEAD)
        muted(canvas, self.note, left + 4, top + len(self.heading) * HEAD * LINE)
        canvas.text(self.y_title, left + 4 + len(self.y_title) * AXIS * LINE / 2, rect.top + self.height / 2,
                    size=AXIS, angle=-90)  # fmt: skip
        below = rect.bottom + self.foot - 22 - len(self.x_title) * AXIS * LINE
        canvas.text(self.x_title, rect.left + rect.width / 2, below, size=AXIS, anchor="center")
        return rect


def _marks(panel: Curves | Bars) -> str:
    """What the dotted lines of a panel stand at: places that were located before the analysis looked."""
    if isinstance(panel, Bars) or not panel.marked:
        return ""
    return f"; dotted: located, {' and '.join(f'{x:g}' for x in panel.marked)}"


def _packed(found: Sequence, width: float) -> list[list[tuple]]:
    """Panels with their cells (left, width), line by line: two to a line where both can do with half of it."""
    half = (width - GAP) / 2
    lines: list[list[tuple]] = []
    waiting: list = []
    for panel in found:
        if len(found) == 1 or _needs_line(panel, half - 70):
            lines += [[(p, (0.0, width))] for p in waiting] + [[(panel, (0.0, width))]]
            waiting = []
        else:
            waiting.append(panel)
            if len(waiting) == 2:
                lines.append([(waiting[0], (0.0, half)), (waiting[1], (half + GAP, half))])
                waiting = []
    return lines + [[(p, (0.0, width))] for p in waiting]


def _needs_line(panel: Curves | Bars, room: float) -> bool:
    """Whether a panel cannot do with `room` pixels."""
    if isinstance(panel, Bars):
        columns = len(panel.groups) * (1 if panel.stacked else max(len(panel.series), 1))
        return columns * 13 > room or panels.group_label_height(panel, room) > 60
    if not panel.ticks:
        return False
    return len(panel.ticks) * 14 > room or max(width_of(t, 12) for t in panel.ticks) > 130
