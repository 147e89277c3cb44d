"""The words follow the numbers: identities and chance are never evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interp.mechanism.reading import conclude, paper_rule
from interp.records import ActivationShift, Estimate, NullDistribution, RegionToxicity, SwapShares
from interp.stats import exact


def toxicity(
    vanilla: float = 0.10, change: float = -0.05, p: float = 0.001, spread: float = 0.01, shaped: float | None = None
) -> RegionToxicity:
    null = NullDistribution(0.0, 0.01, -0.02, 0.02, 1000, 0)
    moved = Estimate(change, change - spread, change + spread, 5)
    value = Estimate(vanilla + change, vanilla + change - spread, vanilla + change + spread, 5)
    return RegionToxicity(
        "m", 4, "mean cosine, all value vectors", vanilla, value, moved, null, null, p, "cosine", shaped
    )


def shift(rate: float = 20.0, identity: bool = False) -> ActivationShift:
    return ActivationShift("m", 4, exact(rate, 27, "%"), (rate,) * 6, (rate,) * 6, None, None, identity, 27)


def swap(
    erased: float = 0.0, bypassed: float = 0.0, parallel: float = 0.0, width: float = 0.05, gated=False, identity=False
) -> SwapShares:
    def share(x: float) -> Estimate:
        return Estimate(x, x - width, x + width, 27, "share")

    rest = 1 - erased - bypassed - parallel
    return SwapShares(
        "m", 4, share(erased), share(bypassed), share(parallel), share(rest), (erased, bypassed, parallel, rest),
        exact(-3.0, 27), exact(3.0, 27), Estimate(60.0, 5.0 if gated else 45.0, 75.0, 27), gated, identity, 27,
    )  # fmt: skip


def test_vanilla_is_the_reference() -> None:
    assert conclude([toxicity()], shift(), reference=True).verdict == "reference"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (swap(erased=0.95), "erased"),
        (swap(bypassed=0.95), "bypassed"),
        (swap(erased=0.82, width=0.1), "undecided"),
        (swap(erased=0.5, bypassed=0.5), "undecided"),
        (swap(parallel=0.95), "undecided"),
        (swap(erased=0.95, gated=True), "undecided"),
        (swap(erased=1.0, width=0.0, identity=True), "undecided"),
    ],
)
def test_causal_shares_decide_unless_gated_or_algebra(found: SwapShares, verdict: str) -> None:
    assert conclude([toxicity(p=0.5)], shift(), found).verdict == verdict


def test_the_reason_comes_first_and_names_the_layer() -> None:
    def first(found: SwapShares) -> str:
        return conclude([toxicity(p=0.5)], shift(), found).evidence.split(". ")[0]

    assert first(swap(erased=0.95)) == "The change of behaviour was made in W_V of layer 4 itself"
    assert first(swap(bypassed=0.95)).startswith("The change of behaviour was made in what flows into W_V")
    assert first(swap(erased=0.03, parallel=0.65)).endswith("most of the change passes through routes around it")
    assert "carries a part of the change" in first(swap(erased=0.5, bypassed=0.5))
    assert "Too few prompts stopped complying" in first(swap(gated=True))
    identity = conclude([toxicity(p=0.5)], shift(0.0, identity=True), swap(erased=1.0, width=0.0, identity=True))
    assert "does not show that it was erased rather than overruled" in identity.evidence


def test_causal_shares_overrule_the_papers_two_numbers() -> None:
    said = conclude([toxicity()] * 5, shift(0.0), swap(bypassed=0.95))
    assert said.verdict == "bypassed"
    assert "would say erased" in said.evidence


def test_an_identity_zero_with_a_change_within_chance_is_undecided_and_says_why() -> None:
    said = conclude([toxicity(vanilla=0.0075, change=-0.001, p=0.4)] * 5, shift(0.0, identity=True))
    assert said.verdict == "undecided"
    for words in ("by construction", "no evidence", "no more than random directions do", "not above chance", "0 of 5"):
        assert words in said.evidence
    assert "would say erased" in said.evidence  # 13 % down, and the inputs did not move


def test_a_strong_shift_alone_is_no_bypass() -> None:
    said = conclude([toxicity(change=-0.0001, p=0.9)], shift(21.0))
    assert said.verdict == "undecided"
    assert "moved by 21 %" in said.evidence
    assert "would say bypassed" in said.evidence
    assert "No causal evidence" in said.evidence


def test_a_fall_that_no_null_explains_under_most_definitions_is_erased_where_the_inputs_stayed() -> None:
    fall, none = toxicity(), toxicity(p=0.5)
    assert conclude([fall, fall, none], shift(0.0, identity=True)).verdict == "erased"
    assert conclude([fall, none, none], shift(0.0, identity=True)).verdict == "undecided"
    assert conclude([none, fall, fall], shift(0.0, identity=True)).verdict == "undecided"
    assert conclude([fall, fall, fall], shift(5.0)).verdict == "undecided"


@pytest.mark.parametrize(
    "record",
    [
        toxicity(change=0.05),  # rises
        toxicity(vanilla=0.015),  # nothing above chance to take away
        toxicity(spread=0.06),  # the edits disagree
        toxicity(shaped=0.3),  # a random direction among the hidden states does as much
    ],
)
def test_a_fall_needs_every_condition(record: RegionToxicity) -> None:
    assert conclude([toxicity()], shift(0.0, identity=True)).verdict == "erased"
    assert conclude([record], shift(0.0, identity=True)).verdict == "undecided"


def test_edits_that_disagree_are_told() -> None:
    assert "disagree on the direction" in conclude([toxicity(spread=0.06)], None).evidence


def test_a_rise_beyond_chance_is_put_in_words_and_counted() -> None:
    rise, none = toxicity(change=0.05), toxicity(p=0.5)
    said = conclude([rise, rise, none, toxicity()], shift(0.0, identity=True))
    assert said.verdict == "undecided"
    assert "it rose, more than random directions do" in said.evidence
    assert "more toxic than vanilla's" in said.evidence
    assert "1 of 4 definitions show a fall beyond chance, 2 a rise." in said.evidence


@pytest.mark.parametrize("record", [toxicity(), toxicity(change=0.05, p=0.5), toxicity(change=0.05, shaped=0.3)])
def test_a_fall_or_a_change_within_chance_is_not_called_a_rise(record: RegionToxicity) -> None:
    assert "rose" not in conclude([record], None).evidence
    assert "a rise" not in conclude([record], None).evidence


def test_the_papers_rule_by_its_own_two_numbers() -> None:
    assert paper_rule([toxicity()], shift()) == "erased"
    assert paper_rule([toxicity(change=0.0)], shift()) == "bypassed"
    assert paper_rule([toxicity(change=0.0)], shift(0.0)) == "neither"
    assert paper_rule([], shift()) is None
    assert paper_rule([toxicity()], None) is None
    assert paper_rule([replace(toxicity(change=0.0), vanilla=0.0)], shift(0.0)) == "neither"


def test_a_reading_without_any_measure_says_that_nothing_causal_was_measured() -> None:
    said = conclude([], None)
    assert said.verdict == "undecided"
    assert "No causal evidence" in said.evidence
