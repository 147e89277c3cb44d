"""Several edits of one method as one model of a comparison: means over edits, with their spread in the intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from interp.mechanism.lab import merged_facts
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid


def over_edits(parts: Sequence[Finding], names: Sequence[str]) -> Finding:
    """One analysis on several edited models, which bear one name, as a finding of one model.

    A number is the mean over the edits that have it, and says so where others have none (`behind`); its interval
    reaches from the lowest lower to the highest upper end of theirs, so that it holds the spread over edits as well as
    that over prompts. Grids are means and bear the marks of every edit, token views are of the first edit alone, and
    what the edits tell differently is told edit by edit.

    Args:
        parts: one per edit, of the same analysis on the same inputs.
        names: what each edit is called, e.g. "edit on instance 12".
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    n = len(parts)
    said = dict.fromkeys(key for part in parts for key in part.facts)
    apart = [
        {
            key: part.facts[key] if _alike(parts, key) else f"{name}: {part.facts[key]}"
            for key in said
            if key in part.facts
        }
        for part, name in zip(parts, names, strict=True)
    ]
    return replace(
        first,
        curves=tuple(_curves(panels, n) for panels in _by_title([p.curves for p in parts])),
        bars=tuple(_bars(panels, n) for panels in _by_title([p.bars for p in parts])),
        grids=tuple(_grid(panels) for panels in _by_title([p.grids for p in parts])),
        facts=merged_facts([replace(part, facts=facts) for part, facts in zip(parts, apart, strict=True)]),
        seconds=sum(p.seconds for p in parts),
    )


def behind(e: Estimate) -> str:
    """Which part of the edits have this number, e.g. "1 of 3 edits"; nothing where all have it."""
    found = re.match(r"(?:mean of )?(\d+ of \d+ edits)", e.how)
    return found.group(1) if found else ""


def of_edits(name: str, e: Estimate) -> str:
    """The model's name, with how many of its edits a number is of where the others have none."""
    return f"{name}, {part}" if (part := behind(e)) else name


def _alike(parts: Sequence[Finding], key: str) -> bool:
    return len({part.facts.get(key) for part in parts}) == 1


def _by_title(panels: Sequence[tuple]) -> list[list]:
    """The panels of one title together; where edits lack one, those that have it."""
    found: dict[str, list] = {}
    for panel in (panel for each in panels for panel in each):
        found.setdefault(panel.title, []).append(panel)
    return list(found.values())


def _mean(estimates: Sequence[Estimate | None], edits: int) -> Estimate | None:
    """Over those that have the number; how many of all the edits they are is read back by `behind`."""
    found = [e for e in estimates if e is not None]
    of = f"{len(found)} edits" if len(found) == edits else f"{len(found)} of {edits} edits"
    if len(found) < 2:
        return replace(found[0], how=f"{of} ({found[0].how})") if found else None
    value, low, high = float(np.mean([e.value for e in found])), min(e.low for e in found), max(e.high for e in found)
    how = f"mean of {of}, lowest to highest end of their intervals ({found[0].how})"
    # The mean of equal numbers may miss them by a rounding.
    return Estimate(value, min(low, value), max(high, value), min(e.n for e in found), found[0].unit, how)


def _curves(panels: Sequence[Curves], edits: int) -> Curves:
    """Curve by curve; one that reads at other places than the first edit's is left to that one."""
    drawn = []
    for curve in panels[0].curves:
        alike = [c for p in panels for c in p.curves if c.name == curve.name and c.x == curve.x]
        y = (_mean(column, edits) for column in zip(*(c.y for c in alike), strict=True))
        drawn.append(Curve(curve.name, curve.x, tuple(e for e in y if e is not None), curve.control))
    return replace(panels[0], curves=tuple(drawn))


def _bars(panels: Sequence[Bars], edits: int) -> Bars:
    groups = panels[0].groups
    alike = [p for p in panels if p.groups == groups]
    series = {
        name: tuple(_mean([p.series[name][i] for p in alike if name in p.series], edits) for i in range(len(groups)))
        for name in dict.fromkeys(name for p in alike for name in p.series)
    }
    return replace(panels[0], series=series)


def _grid(panels: Sequence[Grid]) -> Grid:
    """The mean of the values, and what any edit marks: where edits mark different cells, each of them."""
    alike = [p for p in panels if p.values.shape == panels[0].values.shape]
    marked = sorted({cell for p in alike for cell in p.marked})
    return replace(panels[0], values=np.mean([p.values for p in alike], axis=0), marked=tuple(marked))
