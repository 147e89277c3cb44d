"""Rules read the evidence, never the truth; what is right for each truth."""

from __future__ import annotations

import dataclasses

import pytest

from calibrate.evidences import organism, shares
from interp.calibrate.rules import RULES, SHARES, VERDICTS, accepted, coarse, from_shares, majority

RULE = {rule.name: rule for rule in RULES}


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        ((1.0, 0.0, 0.0, 0.0), "erased"),
        ((0.0, 1.0, 0.0, 0.0), "bypassed"),
        ((0.0, 0.0, 1.0, 0.0), "parallel"),
        ((0.0, 0.0, 0.0, 1.0), "masked"),
        ((0.0, 0.5, 0.5, 0.0), "upstream"),
        ((0.5, 0.5, 0.0, 0.0), "mixed"),
    ],
)
def test_the_share_that_holds_the_whole_change_names_the_verdict(at: tuple, verdict: str) -> None:
    assert from_shares(shares(2, *at), 0.8) == verdict


def test_without_an_effect_no_share_is_read() -> None:
    assert from_shares(shares(2, 1.0, 0, 0, 0, drop=30.0), 0.8) == "no effect"  # lower end 20


def test_the_lower_end_decides_unless_only_values_are_read() -> None:
    edge = shares(2, 0.83, 0.17, 0.0, 0.0)
    assert from_shares(edge, 0.8) == "mixed"
    assert from_shares(edge, 0.8, by_value=True) == "erased"


def test_the_located_layer_decides_where_it_is_not_the_plants() -> None:
    wrong = organism("erased", located=0)
    assert RULE["four shares, at the plant"].says(wrong, 0.8) == "erased"
    assert RULE["four shares, at the located layer"].says(wrong, 0.8) == "masked"


def test_the_papers_rule_reads_toxicity_first_then_the_shift() -> None:
    rule = RULE["the paper's two measures"]
    assert rule.says(organism("erased", change=-0.01, moved=20.0), 1.0) == "erased"
    assert rule.says(organism("erased", change=+0.01, moved=20.0), 1.0) == "bypassed"
    assert rule.says(organism("erased", change=+0.01, moved=0.1), 1.0) == "no effect"


def test_with_a_null_a_fall_that_chance_explains_is_no_erasure() -> None:
    rule = RULE["the paper's with a random-direction null"]
    assert rule.says(organism("erased", change=-0.01, p=0.4), 1.0) == "no effect"
    assert rule.says(organism("erased", change=-0.01, p=0.01), 1.0) == "erased"


def test_no_rule_sees_the_truth() -> None:
    seen = organism("erased", (0.0, 1.0, 0.0, 0.0))
    hidden = dataclasses.replace(seen, truth="masked", kind="masked", organism="?")
    for rule in RULES:
        assert rule.says(seen, rule.thresholds[0]) == rule.says(hidden, rule.thresholds[0])


def test_every_truth_has_a_right_verdict_and_freely_trained_parts_have_three() -> None:
    for truth in ("erased", "bypassed", "parallel", "masked", "mixed", "none"):
        assert accepted(organism(truth)) <= set(VERDICTS)
        assert len(accepted(organism(truth))) == 1
    assert accepted(organism("mixed", kind="upstream")) == {"bypassed", "parallel", "upstream"}


def test_coarse_verdicts_keep_only_what_the_papers_measures_can_tell() -> None:
    assert {coarse(v) for v in VERDICTS} == {"erased", "not erased", "mixed", "no effect"}


def test_the_majority_is_the_verdict_that_is_right_most_often() -> None:
    assert majority([organism("erased"), organism("erased"), organism("none")]) == "erased"
    assert SHARES.thresholds == tuple(sorted(SHARES.thresholds))
