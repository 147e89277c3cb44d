"""Several edits as one model: means, intervals that reach over all of theirs, and what they tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from interp.mechanism.lab import merge
from interp.mechanism.several import behind, over_edits
from interp.records import Bars, Curve, Curves, Estimate, Finding, Grid

NAMES = ("edit on instance 1", "edit on instance 2")


def part(value: float, said: str, wide: bool = True) -> Finding:
    e = Estimate(value, value - 1, value + 1, 27, "nats", "bootstrap")
    bars = (Bars("b", "nats", ("dinm",), {"s": (e,), "t": (e if wide else None,)}),)
    curves = (Curves("c", "layer", "nats", (Curve("dinm", (0.0, 1.0), (e, e)),)),)
    grid = Grid("g", "x", "y", ("0",), ("0", "1"), np.full((2, 1), value), "nats", 27)
    facts = {"dinm": said, "scaled": "31 of 3072"}
    return Finding(
        "odd", "t", "q", "", "h", "l", 27, 0, curves=curves, bars=bars, grids=(grid,), facts=facts, seconds=1
    )


def test_numbers_are_means_and_intervals_hold_the_spread_over_edits() -> None:
    found = over_edits([part(1.0, "a"), part(4.0, "b", wide=False)], NAMES)
    mean = found.bars[0].series["s"][0]
    assert mean is not None
    assert (mean.value, mean.low, mean.high, mean.n) == (2.5, 0.0, 5.0, 27)
    assert mean.how.startswith("mean of 2 edits")
    assert found.curves[0].curves[0].y == (mean, mean)
    assert (found.grids[0].values == 2.5).all()
    only = found.bars[0].series["t"][0]
    assert only is not None
    assert only.value == 1.0  # the other edit was not measured there
    assert (behind(mean), behind(only)) == ("", "1 of 2 edits")
    assert found.seconds == 2


def test_two_of_three_edits_are_said_to_be_two_and_one_with_a_panel_alone_to_be_one() -> None:
    bare = replace(part(1.0, "a"), curves=())
    found = over_edits([part(1.0, "a"), part(3.0, "a", wide=False), replace(part(5.0, "a"), curves=())], (*NAMES, "c"))
    two = found.bars[0].series["t"][0]
    assert two is not None
    assert two.how.startswith("mean of 2 of 3 edits, lowest")
    assert behind(two) == behind(found.curves[0].curves[0].y[0]) == "2 of 3 edits"
    lone = over_edits([bare, part(3.0, "a")], NAMES).curves[0].curves[0].y[0]
    assert (lone.value, behind(lone)) == (3.0, "1 of 2 edits")


def test_a_grid_bears_the_marks_of_every_edit() -> None:
    first, second = (
        replace(p, grids=(replace(p.grids[0], marked=marks),))
        for p, marks in ((part(1.0, "a"), ((0, 0), (1, 0))), (part(2.0, "a"), ((1, 0),)))
    )
    third = replace(second, grids=(replace(second.grids[0], marked=((0, 0),)),))
    assert over_edits([second, second], NAMES).grids[0].marked == ((1, 0),)
    assert over_edits([second, third], NAMES).grids[0].marked == over_edits([first] * 2, NAMES).grids[0].marked


def test_the_mean_of_equal_numbers_stays_in_their_interval() -> None:
    exact = 0.23240105732452138  # three of them have a mean that is one rounding less
    parts = [replace(part(1.0, "a"), bars=(Bars("b", "", ("dinm",), {"s": (Estimate(exact, exact, exact, 9),)}),))] * 3
    found = over_edits(parts, (*NAMES, "another")).bars[0].series["s"][0]
    assert found is not None
    assert found.value == pytest.approx(exact)


def test_what_edits_tell_differently_is_told_edit_by_edit_and_the_rest_once() -> None:
    found = over_edits([part(1.0, "a"), part(4.0, "b")], NAMES)
    assert found.facts == {"dinm": "edit on instance 1: a; edit on instance 2: b", "scaled": "31 of 3072"}
    alone = part(1.0, "a")
    assert over_edits([alone], NAMES[:1]) is alone


def test_facts_of_one_name_are_not_overwritten_and_marks_are_kept() -> None:
    first, second = part(1.0, "a"), part(2.0, "b")
    marked = replace(second, curves=(replace(second.curves[0], marked=(3.0,)),))
    found = merge([first, marked])
    assert found.facts["dinm"] == "a; b"
    assert found.curves[0].marked == (3.0,)
