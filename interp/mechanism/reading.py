"""From one model's numbers to words: erased, bypassed, or undecided, and on what evidence.

The paper reads two numbers: toxicity of the region, and shift of what flows into it. Both can be zero by construction
or move by chance, so its rule is quoted here, never followed alone. A verdict needs causal evidence (`swap`), or a fall
of the region's toxicity that no null explains and most definitions share; without either it is "undecided".
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.records import ActivationShift, Conclusion, Estimate, Reading, RegionToxicity, SwapShares

ALPHA = 0.05
PAPER_PERCENT = 1.0
"""The paper names no threshold. Its own figures: a toxicity reduction of 2.72 % counts, "almost unchanged" does not."""
SHARE = 0.8
"""A share counts as the whole of a change where the lower end of its interval is above this (evidence.md)."""
REFERENCE = Conclusion("reference", "The vanilla model: everything else is measured against it.")


def conclude(
    region: Sequence[RegionToxicity],
    shift: ActivationShift | None,
    swap: SwapShares | None = None,
    *,
    reference: bool = False,
) -> Conclusion:
    """What can be said of one model, in a few plain sentences: the verdict's reason first, then the numbers.

    Args:
        region: toxicity under each definition, the paper's first; may be empty.
        shift: activation shift on identical tokens.
        swap: causal shares at the same layer, where they were measured.
        reference: this is the vanilla model.
    """
    if reference:
        return REFERENCE
    verdict, why = _verdict(region, shift, swap)
    said = [why, _region_sentence(region), _shift_sentence(shift), _swap_sentence(swap), _paper_sentence(region, shift)]
    return Conclusion(verdict, " ".join(s for s in said if s))


def paper_rule(region: Sequence[RegionToxicity], shift: ActivationShift | None) -> str | None:
    """What the paper's own two numbers would say; None where one of them is missing."""
    if not region or shift is None:
        return None
    first = region[0]
    if first.vanilla != 0 and -100.0 * first.change.value / abs(first.vanilla) > PAPER_PERCENT:
        return "erased"
    return "bypassed" if shift.rate.value > PAPER_PERCENT else "neither"


def beyond_chance(record: RegionToxicity) -> bool:
    """Whether the change is larger than random directions make it, under every null that was computed."""
    return max(record.p_change, record.p_change_shaped or 0.0) < ALPHA


def fell(record: RegionToxicity) -> bool:
    """A fall beyond chance, the same way for the edits' whole interval, from a vanilla value that is above chance."""
    return beyond_chance(record) and record.z_vanilla > 2.0 and record.change.high < 0.0


def rose(record: RegionToxicity) -> bool:
    """A rise beyond chance, the same way for the edits' whole interval, wherever vanilla's value stood."""
    return beyond_chance(record) and record.change.low > 0.0


# --------------------------------------------------------------------------------------------- verdict
def _verdict(
    region: Sequence[RegionToxicity], shift: ActivationShift | None, swap: SwapShares | None
) -> tuple[Reading, str]:
    """The verdict and the one sentence that gives its reason."""
    if swap is not None and not swap.gated and not swap.identity:
        return _causal(swap)
    falls = bool(region) and fell(region[0]) and 2 * sum(fell(r) for r in region) > len(region)
    if falls and shift is not None and shift.rate.value == 0.0:
        return (
            "erased",
            "As far as weights tell: the region is less toxic and nothing in front of it moved.",
        )
    if swap is not None and swap.gated:
        return "undecided", "Too few prompts stopped complying to ask where the change was made."
    if shift is not None and shift.identity:
        why = "Nothing in front of the region was changed, so that shift and swaps are identities, and its toxicity"
        return "undecided", f"{why} does not show that it was erased rather than overruled."
    return "undecided", "A region that moved need not be why the behaviour changed."


def _causal(swap: SwapShares) -> tuple[Reading, str]:
    where = f"of layer {swap.layer}"
    if swap.erased.low > SHARE:
        return "erased", f"The change of behaviour was made in W_V {where} itself."
    if swap.bypassed.low > SHARE:
        return "bypassed", f"The change of behaviour was made in what flows into W_V {where}, not in W_V."
    if swap.erased.high < 1 - SHARE:
        biggest = max(_parts(swap), key=lambda part: part[0].value)[1]
        return "undecided", f"Not erased in W_V {where}: most of the change passes through {biggest}."
    return "undecided", f"W_V {where} carries a part of the change, and other routes the rest."


def _parts(swap: SwapShares) -> tuple[tuple[Estimate, str], ...]:
    return (
        (swap.erased, "the region's matrix"),
        (swap.bypassed, "its inputs"),
        (swap.parallel, "routes around it"),
        (swap.downstream, "later layers"),
    )


# --------------------------------------------------------------------------------------------- sentences
def _region_sentence(region: Sequence[RegionToxicity]) -> str:
    if not region:
        return ""
    first = region[0]
    moved = f"moved by {first.change.value:+.2g} from {first.vanilla:.2g} ({_p(first)})"
    if not beyond_chance(first):
        says = f"{moved}, no more than random directions do"
    elif first.change.low <= 0.0 <= first.change.high and first.change.n > 1:
        says = f"{moved}, but the edits disagree on the direction"
    elif rose(first):
        says = (
            f"{moved}: it rose, more than random directions do, so that the region reads as more toxic than vanilla's"
        )
    else:
        says = f"{moved}, more than random directions do"
    if abs(first.z_vanilla) <= 2.0:
        says += "; vanilla's own value is not above chance, so that there was little to take away"
    falls, rises = sum(fell(r) for r in region), sum(rose(r) for r in region)
    agree = f"{falls} of {len(region)} definitions show a fall beyond chance" + (f", {rises} a rise" if rises else "")
    return f"Region toxicity ({first.definition}) {says}; {agree}."


def _p(record: RegionToxicity) -> str:
    shaped = record.p_change_shaped
    return f"p = {record.p_change:.2g}" + ("" if shaped is None else f", {shaped:.2g} against the harder null")


def _shift_sentence(shift: ActivationShift | None) -> str:
    if shift is None:
        return ""
    if shift.identity:
        return (
            "What flows into the region did not move on given tokens, by construction: nothing in front of it was "
            "changed, so the zero is no evidence."
        )
    return f"What flows into the region moved by {shift.rate.value:.2g} % on given tokens."


def _swap_sentence(swap: SwapShares | None) -> str:
    if swap is None:
        return "No causal evidence was measured."
    if swap.identity:
        return "Swapping the region's matrix undoes everything by algebra, as it is all that was changed."
    if swap.gated:
        drop = swap.compliance_drop
        return (
            f"Complying first tokens fell by {drop.value:.0f} points ({drop.low:.0f} to {drop.high:.0f}), too little "
            "to say through which part."
        )
    told = ", ".join(f"{100 * e.value:.0f} % through {name}" for e, name in _parts(swap))
    back = ", ".join(f"{100 * x:.0f}" for x in swap.reverse)
    return f"Swapping parts with vanilla, the change of the refusal margin passes {told} (other direction: {back} %)."


def _paper_sentence(region: Sequence[RegionToxicity], shift: ActivationShift | None) -> str:
    rule = paper_rule(region, shift)
    if rule is None:
        return ""
    how = f"toxicity of the region down by more than {PAPER_PERCENT:.0f} %: erased; else inputs moved: bypassed"
    return f"The paper's rule ({how}) would say {rule}."
