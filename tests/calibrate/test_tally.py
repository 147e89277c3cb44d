"""Thresholds come from one half, scores from both, and intervals from plants."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.evidences import located, organism
from interp.calibrate.rules import SHARES
from interp.calibrate.tally import by_threshold, choose, clustered, score_locators, score_rules, wrong_layer
from interp.errors import InputError

PURE = {"erased": (1.0, 0, 0, 0), "bypassed": (0, 1.0, 0, 0), "parallel": (0, 0, 1.0, 0), "masked": (0, 0, 0, 1.0)}


def zoo(half: str, plant: str) -> list:
    found = [organism(t, at, plant=plant, half=half) for t, at in PURE.items()]
    found.append(organism("mixed", (0.5, 0.5, 0, 0), plant=plant, half=half))
    return [*found, organism("none", plant=plant, half=half, drop=5.0)]


BOTH = [*zoo("set", "p0"), *zoo("set", "p1"), *zoo("held-out", "p2"), *zoo("held-out", "p3")]


def test_the_threshold_is_the_middle_of_the_best_run_and_needs_only_the_first_half() -> None:
    # Mixed organisms have shares of .5 - .05: any threshold from .45 to .95 (exclusive) tells all six truths apart.
    assert choose(SHARES, zoo("set", "p0")) == pytest.approx(0.65, abs=0.06)
    poisoned = [*zoo("set", "p0"), *[organism("masked", plant="p9", half="held-out") for _ in range(50)]]
    _, chosen = score_rules([*poisoned, *zoo("held-out", "p2")])
    assert chosen[SHARES.name] == choose(SHARES, zoo("set", "p0"))


def test_the_shares_are_right_where_the_papers_measures_cannot_be() -> None:
    scores, _ = score_rules(BOTH)
    by = {(s.rule, s.half): s for s in scores}
    assert by["four shares, at the plant", "held-out"].right.value == 100.0
    assert by["four shares, at the plant", "held-out"].right.low < 100.0  # 12 organisms of 2 plants prove little
    assert by["the paper's two measures", "held-out"].right.value < 50.0
    assert by["four shares, at the plant", "held-out"].false_positive.value == 0.0
    confusion = by["four shares, at the plant", "held-out"].confusion
    assert confusion["none"] == {"no effect": 2}
    assert sum(n for said in confusion.values() for n in said.values()) == 12


def test_the_control_always_gives_the_same_answer() -> None:
    scores, _ = score_rules(BOTH)
    control = [s for s in scores if s.rule.startswith("control: always")]
    assert len(control) == 2
    assert all(len({v for said in s.confusion.values() for v in said}) == 1 for s in control)


def test_an_empty_half_is_refused() -> None:
    with pytest.raises(InputError, match="half 'held-out'"):
        score_rules(zoo("set", "p0"))


def test_fresh_plants_are_scored_and_choose_nothing() -> None:
    poisoned = [*BOTH, *[organism("masked", plant="p9", half="fresh") for _ in range(50)]]
    scores, chosen = score_rules(poisoned)
    assert chosen == score_rules(BOTH)[1]
    by = {(s.rule, s.half): s for s in scores}
    assert by[SHARES.name, "fresh"].right.value == 0.0
    assert by[SHARES.name, "held-out"].right.value == 100.0
    assert set(by_threshold(poisoned)) == {"set", "held-out", "fresh"}


def test_every_threshold_is_scored_on_both_halves() -> None:
    curves = by_threshold(BOTH)
    assert set(curves) == {"set", "held-out"}
    assert [t for t, _ in curves["set"]] == list(SHARES.thresholds)
    assert max(right for _, right in curves["held-out"]) == 100.0


def test_an_erasure_reads_masked_from_below_and_parallel_from_above() -> None:
    found = wrong_layer([organism("erased"), organism("masked", PURE["masked"])], 0.8)
    assert found == {"below": {"masked": 2}, "at": {"erased": 1}, "above": {"parallel": 1}}


def test_intervals_resample_plants_and_are_never_narrower_than_wilsons() -> None:
    whole_plants = clustered(["a"] * 10 + ["b"] * 10, [True] * 10 + [False] * 10)
    spread_out = clustered([str(i) for i in range(20)], [True] * 10 + [False] * 10)
    assert whole_plants.low == 0.0
    assert whole_plants.high == 100.0
    assert spread_out.low > 20.0
    always = clustered(["a", "b"], [True, True])
    assert always.value == 100.0
    assert always.low < 50.0
    assert np.isnan(clustered([], []).value)


def test_a_locators_hits_are_also_counted_where_planting_had_to_teach_it() -> None:
    results = [
        located("always 2", 2, 2, plant="a", baseline=2),
        located("always 2", 3, 2, plant="b", baseline=2),
        located("finds", 2, 2, plant="a"),
        located("finds", 3, 3, plant="b"),
        located("finds", 0, 5, plant="c"),
    ]
    by = {s.locator: s for s in score_locators(results)}
    assert by["always 2"].hits.value == 50.0
    assert by["always 2"].hits_elsewhere is not None
    assert by["always 2"].hits_elsewhere.value == 0.0
    assert by["finds"].hits.value == 100.0  # the plant in layer 0 is not counted
    assert by["finds"].hits.n == 2
    assert by["always 2"].rank == 2.0
