"""The words follow the numbers: identities and chance are never evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interp.mechanism.reading import conclude, fell, paper_rule
from interp.mechanism.shares import Thresholds
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
    erased: float = 0.0,
    bypassed: float = 0.0,
    parallel: float = 0.0,
    width: float = 0.05,
    gated=False,
    identity=False,
    layer: int = 4,
    n: int = 27,
    drop: float | None = None,
) -> SwapShares:
    def share(x: float) -> Estimate:
        return Estimate(x, x - width, x + width, 27, "share")

    rest = 1 - erased - bypassed - parallel
    least = (-5.0 if gated else 45.0) if drop is None else drop
    return SwapShares(
        "m", layer, share(erased), share(bypassed), share(parallel), share(rest), (erased, bypassed, parallel, rest),
        exact(-3.0, 27), exact(3.0, 27), Estimate(60.0, least, 75.0, 27), gated, identity, n,
        share(bypassed + parallel),
    )  # fmt: skip


def test_vanilla_is_the_reference() -> None:
    assert conclude([toxicity()], shift(), reference=True).verdict == "reference"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (swap(erased=0.95), "erased"),
        (swap(bypassed=0.95), "bypassed"),
        (swap(parallel=0.95), "parallel"),
        (swap(bypassed=0.5, parallel=0.45), "upstream"),
        (swap(), "masked"),
        (swap(erased=0.72, width=0.1), "mixed"),
        (swap(erased=0.5, bypassed=0.5), "mixed"),
        (swap(erased=0.95, gated=True), "no effect"),
        (swap(erased=0.95, gated=True, drop=2.0), "undecided"),
        (swap(erased=0.95, gated=True, n=4), "undecided"),
        (swap(erased=1.0, width=0.0, identity=True), "undecided"),
        (swap(erased=1.0, width=0.0, identity=True, gated=True), "no effect"),
        (None, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_shares_unless_they_are_algebra(found: SwapShares | None, verdict: str) -> None:
    assert conclude([toxicity(p=0.5)], shift(), found).verdict == verdict


def test_an_effect_that_is_too_small_to_divide_is_not_called_none() -> None:
    said = conclude([], None, swap(gated=True, drop=2.0))
    assert said.evidence.startswith("There is an effect, but too few prompts stopped complying to ask")
    assert "lie above 25 points" in said.evidence
    assert "cannot be told from no effect" in conclude([], None, swap(gated=True)).evidence


def test_where_vanilla_complies_with_too_few_prompts_no_change_is_called_none() -> None:
    said = conclude([], None, replace(swap(gated=True), answerable=False))
    assert said.verdict == "undecided"
    assert "Vanilla complies with too few of the 27 prompts" in said.evidence


def test_shares_at_a_layer_located_independently_decide_and_the_others_are_told() -> None:
    said = conclude(
        [], None, swap(erased=1.0, width=0.0, identity=True), swap(width=0.0, layer=1), located="push, 9 of 9 prompts"
    )
    assert said.verdict == "masked"
    for words in (
        "after layer 1", "independently of the edit (push, 9 of 9 prompts)",
        "at the toxic layer 4 undoes everything by algebra",
    ):  # fmt: skip
        assert words in said.evidence
    alone = conclude([], None, swap(erased=0.95))
    assert "was not located independently" in alone.evidence
    wrong = conclude([], None, swap(erased=0.95), swap(erased=0.95))
    assert "at a wrong layer an erasure reads as masked (too low) or parallel (too high)" in wrong.evidence
    assert "toxic layer" not in wrong.evidence  # the same one is not told twice


ABOVE = "nothing up to the output of layer 1 was changed"


def test_what_is_masked_by_algebra_is_said_to_be_so() -> None:
    above = replace(swap(width=0.0, layer=1), by_algebra=ABOVE)
    said = conclude([], None, None, above)
    assert said.verdict == "masked"
    assert f"This is algebra: {ABOVE}." in said.evidence
    assert "at a wrong layer" not in said.evidence
    both = replace(swap(erased=0.9, layer=1), by_algebra="of 9 edits 8 changed W_V of layer 1 alone and 1 nothing")
    assert conclude([], None, None, both).verdict == "undecided"
    some = conclude([], None, None, replace(swap(bypassed=0.95, layer=1), left_out=3))
    assert "3 edits are left out, as theirs are algebra at this layer" in some.evidence


def test_what_was_asked_with_s_has_a_verdict_of_its_own_and_is_never_mixed_in() -> None:
    alone, given = swap(gated=True, layer=1), replace(swap(bypassed=0.95, layer=1), suffix=True)
    said = conclude([], None, None, alone, given, located="push")
    assert (said.verdict, said.with_suffix) == ("no effect", "bypassed")
    without, with_s = said.evidence.split("With S on both sides")
    assert "cannot be told from no effect" in without
    assert "independently of the edit (push)" not in without
    for words in ("in what flows into W_V of layer 1", "independently of the edit (push)", "S alone moves vanilla's"):
        assert words in with_s
    assert conclude([], None, None, alone).with_suffix is None


def test_thresholds_move_the_verdict() -> None:
    found = swap(erased=0.7)
    assert conclude([], None, found).verdict == "mixed"
    assert conclude([], None, found, thresholds=Thresholds(share=0.6)).verdict == "erased"


def test_the_reason_comes_first_and_names_the_layer() -> None:
    def first(found: SwapShares) -> str:
        return conclude([toxicity(p=0.5)], shift(), found).evidence.split(". ")[0]

    assert first(swap(erased=0.95)) == "The change of behaviour was made in W_V of layer 4 itself"
    assert first(swap(bypassed=0.95)).startswith("The change of behaviour was made in what flows into W_V")
    assert first(swap()).startswith("The change of behaviour was made after layer 4")
    assert first(swap(erased=0.03, parallel=0.65)).endswith(
        "not in W_V; the largest part passes through routes around it"
    )
    assert "No single route at layer 4" in first(swap(erased=0.5, bypassed=0.5))
    assert "cannot be told from no effect" in first(swap(gated=True))
    assert first(swap(gated=True, n=4)).startswith("4 prompts cannot show an effect: at least 5")
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


def test_a_fall_of_toxicity_is_told_but_never_decides() -> None:
    fall = toxicity()
    assert fell(fall)
    said = conclude([fall] * 5, shift(0.0, identity=True))
    assert said.verdict == "undecided"
    assert "5 of 5 definitions show a fall beyond chance" in said.evidence
    assert "would say erased" in said.evidence


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
    assert not fell(record)
    assert "0 of 1 definitions show a fall" in conclude([record], None).evidence


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
