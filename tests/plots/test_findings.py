"""Figures of findings of every size: what they hold, and that nothing in them overlaps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.plots import canonical
from interp.plots.canvas import fitted, legend_lines, lines_of, width_of
from interp.plots.findings import draw_finding, draw_findings
from interp.plots.theme import traces
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid, Tokens

METHODS = ("sft", "dpo", "dinm")
SIX = ("vanilla", *METHODS, "my-finetune-v2-with-a-long-name", "direction")


def estimate(value: float, half: float = 0.5, n: int = 27) -> Estimate:
    return Estimate(value, value - half, value + half, n, "nats", "made up")


def curve(name: str, places: int = 6, control: bool = False, slope: float = 1.0) -> Curve:
    return Curve(name, tuple(map(float, range(places))), tuple(estimate(slope * x) for x in range(places)), control)


def lines(title: str = "Margin", names: tuple[str, ...] = METHODS, places: int = 6, **more: Any) -> Curves:
    found = (*(curve(n, places, slope=i) for i, n in enumerate(names)), curve("random direction", places, True))
    return Curves(title, "Layer (0-based)", "Refusal margin (nats)", found, (4.0,), **more)


def columns(title: str = "Shares", names: tuple[str, ...] = METHODS, kinds: int = 4, stacked: bool = False) -> Bars:
    values = {f"kind {k}": tuple(estimate((-1) ** k * (k + 1)) for _ in names) for k in range(kinds)}
    return Bars(title, "Share (%)", names, values, stacked)


def cells(title: str = "sft: resid_post", rows: int = 6, across: int = 8, signed: bool = True, size: float = 1) -> Grid:
    values = size * np.arange(rows * across, dtype=float).reshape(rows, across)
    places = tuple(str(i - across) for i in range(across))
    return Grid(title, "Position from the end", "Layer (0-based)", places, tuple(map(str, range(rows))), values, "nats",
                27, signed, ((4, 2),))  # fmt: skip


def finding(**more: Any) -> Finding:
    return Finding("made_up", "A title", "What is asked?", "What is said.", "How it is read.", "What it is not.", 27, 3,
                   "Somebody (2024), Eq. 1", **more)  # fmt: skip


def _named_cells(title: str) -> Grid:
    names = ("W_Q", "W_K", "W_V of the attention", "W_O", "MLP in", "MLP out")
    return replace(cells(title, 6, 6, signed=False), x=names, marked=())


CASES = {
    "one panel of curves": finding(curves=(lines(),)),
    "32 layers, six models": finding(curves=(lines(names=SIX, places=32), lines("Other " * 12, SIX, 32))),
    "one bar": finding(bars=(columns(names=("sft",), kinds=1),)),
    "bars of six models": finding(bars=(columns(names=SIX), columns("B", SIX, 2), columns("C", SIX, 8))),
    "stacked": finding(bars=(columns(names=SIX, stacked=True),)),
    "everything": finding(
        curves=(lines(), lines("B"), lines("C", ticks=("one", "two", "a very long third place", "4", "5", "6"))),
        bars=(columns(), columns("B", kinds=1)),
        grids=tuple(cells(f"{m}: all", size=i + 1) for i, m in enumerate(SIX)),
    ),
    "curve beside bars": finding(curves=(lines(),), bars=(columns(),)),
    "wide grids": finding(grids=tuple(cells(m, 6, 32) for m in METHODS)),
    "named cells": finding(grids=tuple(_named_cells(m) for m in METHODS)),
    "one cell": finding(grids=(replace(cells(rows=1, across=1), marked=()),)),
    "two units": finding(grids=(cells(), replace(cells(), unit="sd", signed=False))),
}


@pytest.fixture(params=sorted(CASES))
def figure(request: pytest.FixtureRequest) -> Any:
    drawn = draw_finding(CASES[request.param])
    assert drawn is not None
    return drawn.figure


def rectangles(figure: Any) -> list[tuple[float, float, float, float]]:
    w, h = figure.layout.width, figure.layout.height
    found = []
    for name in figure.to_plotly_json()["layout"]:
        if name.startswith("xaxis"):
            x, y = figure.layout[name].domain, figure.layout["y" + name[1:]].domain
            found.append((x[0] * w, (1 - y[1]) * h, x[1] * w, (1 - y[0]) * h))
    return found


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def boxes_of_texts(figure: Any) -> list[tuple[float, float, float, float]]:
    """Where the texts that lie on the canvas stand, by the font's metrics."""
    w, h = figure.layout.width, figure.layout.height
    found = []
    for note in figure.layout.annotations:
        if note.xref != "paper":
            continue
        parts = note.text.split("<br>")
        wide, high = max(width_of(p, note.font.size) for p in parts), 1.2 * note.font.size * len(parts)
        x, y = note.x * w, (1 - note.y) * h
        if note.textangle:
            found.append((x - high / 2, y - wide / 2, x + high / 2, y + wide / 2))
        else:
            left = x - (wide / 2 if note.xanchor == "center" else 0)
            found.append((left, y, left + wide, y + high))
    return found


def test_panels_and_their_texts_do_not_overlap_and_lie_on_the_canvas(figure: Any) -> None:
    boxes = [*rectangles(figure), *boxes_of_texts(figure)]
    for i, a in enumerate(boxes):
        assert min(a[:2]) >= -1, a
        assert (a[2] <= figure.layout.width + 1) & (a[3] <= figure.layout.height + 1), a
        for b in boxes[:i]:
            assert not overlap(a, b), (a, b)


def test_panels_are_large_enough_to_read_at_column_width(figure: Any) -> None:
    assert figure.layout.width in (560, 720)
    for left, top, right, bottom in rectangles(figure):
        assert right - left >= 40
        assert bottom - top >= 90
    assert all(note.font.size >= 11 for note in figure.layout.annotations)


def test_a_figure_is_drawn_the_same_twice(figure: Any) -> None:
    again = [canonical.canonical(d.figure) for d in draw_findings(tuple(CASES.values()))]
    assert canonical.canonical(figure) in again


def test_models_keep_their_colours_and_controls_are_grey_and_dashed() -> None:
    figure: Any = draw_finding(finding(curves=(lines(names=(*METHODS, "sft, benign")),))).figure  # type: ignore[union-attr]
    found = {t.name: t.line for t in figure.data if t.name}
    assert found["SFT"].color == "#E69F00"
    assert found["SFT"].dash == "solid"
    assert found["SFT, benign"].color == "#E69F00"
    assert found["SFT, benign"].dash != "solid"
    red, green, blue = (int(found["random direction"].color[i : i + 2], 16) for i in (1, 3, 5))
    assert red == green == blue
    assert found["random direction"].dash != "solid"


def test_every_interval_is_drawn() -> None:
    figure: Any = draw_finding(finding(curves=(lines(),), bars=(columns(kinds=2),))).figure  # type: ignore[union-attr]
    bands = [t for t in figure.data if t.type == "scatter" and t.fill == "toself"]
    assert len(bands) == 4
    assert sorted(max(t.y) for t in bands) == [0.5, 5.5, 5.5, 10.5]
    whiskers = [t for t in figure.data if t.type == "scatter" and t.error_y.array and len(t.error_y.array) == 3]
    assert [list(t.error_y.array) for t in whiskers] == [[0.5] * 3] * 2


def test_what_is_not_finite_leaves_a_gap_and_what_was_not_measured_says_so() -> None:
    nothing = Estimate(math.nan, math.nan, math.nan, 0)
    broken = Curve("sft", (0.0, 1.0, 2.0, 3.0, 4.0), (*(estimate(1.0),) * 2, nothing, *(estimate(2.0),) * 2))
    bars = Bars("B", "%", ("sft", "dpo"), {"a": (estimate(1.0), None), "b": (None, estimate(1.0))})
    figure: Any = draw_finding(finding(curves=(Curves("A", "x", "y", (broken,)),), bars=(bars,))).figure  # type: ignore[union-attr]
    assert len([t for t in figure.data if t.type == "scatter" and t.fill == "toself"]) == 2
    assert [n.text for n in figure.layout.annotations].count("n/a") == 2


def test_stacked_bars_stand_on_each_other_from_zero_both_ways() -> None:
    figure: Any = draw_finding(finding(bars=(columns(kinds=4, stacked=True),))).figure  # type: ignore[union-attr]
    bars = [t for t in figure.data if t.type == "bar"]
    assert [t.base[0] for t in bars] == [0, 0, 1, -2]  # values 1, -2, 3, -4


def test_all_grids_of_a_unit_share_one_colour_scale_centred_on_zero_where_they_have_signs() -> None:
    figure: Any = draw_finding(CASES["everything"]).figure  # type: ignore[union-attr]
    assert {t.coloraxis for t in figure.data if t.type == "heatmap"} == {"coloraxis"}
    axis = figure.layout.coloraxis
    assert (axis.cmin, axis.cmid, axis.cmax) == (-47 * 6, 0, 47 * 6)
    two: Any = draw_finding(CASES["two units"]).figure  # type: ignore[union-attr]
    assert two.layout.coloraxis2.cmin == 0.0
    outlined = [s for s in figure.layout.shapes if s.line.width == 1.5]
    assert len(outlined) == 6


def test_the_caption_has_question_reading_n_seed_source_and_limits() -> None:
    drawn = draw_finding(finding(curves=(lines(),)))
    assert drawn is not None
    assert drawn.name == "deep_made_up"
    for part in (
        "What is asked?",
        "What is said.",
        "n = 27, seed 3",
        "Somebody (2024)",
        "How it is read.",
        "What it is",
    ):
        assert part in drawn.caption


def test_a_finding_of_words_and_tokens_alone_has_no_figure() -> None:
    assert draw_finding(finding(tokens=(Tokens("vanilla", ("a",), {"nats": (1.0,)}),))) is None


def test_names_of_unknown_origin_are_escaped() -> None:
    evil = "<b onclick=x>"
    panel = Curves(evil, evil, evil, (curve(evil),))
    bars = Bars(evil, evil, (evil,), {evil: (estimate(1.0),), "b": (estimate(1.0),)})
    grid = replace(cells(evil), x_label=evil, y_label=evil, unit=evil)
    drawn = draw_finding(finding(curves=(panel,), bars=(bars,), grids=(grid,)))
    assert drawn is not None
    assert "<b" not in canonical.dumps(drawn.figure).replace("<br>", "")


def test_text_is_broken_to_fit_and_no_letter_of_a_short_word_is_lost() -> None:
    found = lines_of("one two three four", width_of("one two", 12), 12)
    assert " ".join(found) == "one two three four"
    assert all(width_of(line, 12) <= width_of("one two", 12) for line in found[:1])
    assert lines_of("my-long-name", width_of("my-long-", 12), 12, name=True) == ["my-long-", "name"]
    assert width_of(fitted("a" * 100, 60, 12), 12) <= 60
    assert legend_lines(["a"], 500) == 1
    assert legend_lines(["a long name indeed"] * 6, 300) > 1


def test_a_control_that_every_model_brings_along_has_one_entry_in_the_legend() -> None:
    names = [f"random directions, {name}" for name in METHODS]
    found = (*(curve(name) for name in METHODS), *(curve(name, control=True) for name in names))
    drawn = draw_finding(finding(curves=(Curves("c", "Layer", "cosine", found),)))
    assert drawn is not None
    shown = [t.name for t in traces(drawn.figure) if t.showlegend]
    assert sorted(shown) == sorted(["SFT", "DPO", "DINM", "random directions (each model's)"])


def test_percentages_that_end_at_100_have_no_tick_above_it_and_marked_places_are_explained() -> None:
    y = tuple(Estimate(v, v, v, 27, "%") for v in (90.0, 100.0))
    panel = Curves("c", "steps", "% of tokens", (Curve("sft", (0.0, 1.0), y),), marked=(1.0,))
    drawn = draw_finding(finding(curves=(panel,)))
    assert drawn is not None
    assert drawn.figure.layout.yaxis.range[1] < 105
    assert any("dotted: located, 1" in a.text for a in drawn.figure.layout.annotations)


def test_bars_of_which_none_could_be_measured_are_left_to_the_words() -> None:
    lost = Estimate(math.nan, math.nan, math.nan, 0, "%", "nothing to divide")
    nothing = replace(columns("Nothing to divide"), series={"first": (lost, None, lost), "later": (None, None, None)})
    with_it, without = finding(bars=(columns(), nothing)), finding(bars=(columns(),))
    drawn, expected = draw_finding(with_it), draw_finding(without)
    assert drawn is not None
    assert expected is not None
    assert canonical.dumps(drawn.figure) == canonical.dumps(expected.figure)
    assert draw_finding(finding(bars=(nothing,))) is None
