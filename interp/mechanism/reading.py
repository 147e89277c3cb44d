"""From one model's numbers to words: a verdict on the change of behaviour, and on what evidence.

The verdict follows from the causal shares (`shares.verdict`) at a layer located on vanilla, independently of any edit,
and from nothing else. Where the shares there are algebra it is "undecided", and says why. The paper reads two other
numbers, toxicity of the region and shift of what flows into it; both can be zero by construction or move by chance, so
its rule is quoted beside the verdict, never followed.

A method that carries a suffix S is asked twice: without it (what the change does alone) and with it on both sides (what
the change adds to the prompt). The two are told apart in every sentence and have a verdict each.
"""

from __future__ import annotations

from collections.abc import Sequence

from interp.mechanism.shares import CALIBRATED, FEWEST, Thresholds, verdict
from interp.records import ActivationShift, Conclusion, Estimate, Reading, RegionToxicity, SwapShares

ALPHA = 0.05
PAPER_PERCENT = 1.0
"""The paper names no threshold. Its own figures: a toxicity reduction of 2.72 % counts, "almost unchanged" does not."""
REFERENCE = Conclusion("reference", "The vanilla model: everything else is measured against it.")


def conclude(
    region: Sequence[RegionToxicity],
    shift: ActivationShift | None,
    swap: SwapShares | None = None,
    causal: SwapShares | None = None,
    with_suffix: SwapShares | None = None,
    *,
    located: str = "",
    thresholds: Thresholds = CALIBRATED,
    reference: bool = False,
) -> Conclusion:
    """What can be said of one model, in a few plain sentences: the verdict's reason first, then its limits and numbers.

    Args:
        region: toxicity under each definition, the paper's first; may be empty.
        shift: activation shift on identical tokens.
        swap: causal shares at the toxic layer, the one that DINM edits; where there are no others they are read.
        causal: causal shares at the layer where the behaviour was located independently of the edit: these decide.
        with_suffix: the same with S after the prompts of both models, for a method that carries a suffix.
        located: how that layer was located, for the limits, e.g. "logit-lens push, 25 of 27 prompts".
        thresholds: of the verdict.
        reference: this is the vanilla model.
    """
    if reference:
        return REFERENCE
    decides = causal if causal is not None else swap
    word, why = _verdict(decides, thresholds)
    given = None if with_suffix is None else _verdict(with_suffix, thresholds)
    # Said once, by the first of the two that has something to divide.
    first = with_suffix if given is not None and decides is not None and decides.gated else decides
    limits = _limits(first, causal is not None, located)
    said = [
        *(() if given is None else ("Asked without S (what the edit does alone):",)),
        why,
        limits if first is decides else "",
        _swap_sentence(decides),
        _swap_sentence(swap, elsewhere=True) if swap is not None and decides is not None
        and swap.layer != decides.layer else "",
        *(() if given is None else (
            "With S on both sides (what the edit adds to the prompt):",
            given[1],
            limits if first is with_suffix else "",
            _swap_sentence(with_suffix),
            _prompt_sentence(decides, with_suffix),
        )),
        _region_sentence(region),
        _shift_sentence(shift),
        _paper_sentence(region, shift),
    ]  # fmt: skip
    return Conclusion(word, " ".join(s for s in said if s), None if given is None else given[0])


def paper_rule(
    region: Sequence[RegionToxicity], shift: ActivationShift | None, percent: float = PAPER_PERCENT, null: bool = False
) -> str | None:
    """What the paper's own two numbers would say; None where one of them is missing.

    Args:
        region: toxicity under each definition, the paper's first.
        shift: activation shift on identical tokens.
        percent: what either number must exceed.
        null: whether a fall of toxicity must also be larger than random directions make it.
    """
    if not region or shift is None:
        return None
    first = region[0]
    rate = -100.0 * first.change.value / abs(first.vanilla) if first.vanilla else 0.0
    if rate > percent and (not null or beyond_chance(first)):
        return "erased"
    return "bypassed" if shift.rate.value > percent else "neither"


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
def _verdict(swap: SwapShares | None, thresholds: Thresholds) -> tuple[Reading, str]:
    """The verdict and the one sentence that gives its reason."""
    if swap is None:
        return "undecided", "No causal evidence was measured."
    word, k = verdict(swap, thresholds), swap.layer
    if word == "no effect":
        if swap.n < FEWEST:
            return "undecided", f"{swap.n} prompts cannot show an effect: at least {FEWEST} are needed."
        if swap.compliance_drop.low > 0:
            return "undecided", (
                "There is an effect, but too few prompts stopped complying to ask where the change was made: the "
                f"interval would have to lie above {thresholds.gate:g} points."
            )
        if not swap.answerable:
            return "undecided", (
                f"Vanilla complies with too few of the {swap.n} prompts: had every one been refused, the interval "
                f"would still begin below {thresholds.gate:g} points."
            )
        return word, "That prompts stopped complying cannot be told from no effect."
    if swap.identity:
        return "undecided", (
            f"Only W_V of layer {k} was changed, and the shares are read there: that they call it erased is algebra, "
            "and does not show that it was erased rather than overruled in place."
        )
    if swap.by_algebra and word != "masked":
        return "undecided", f"The shares at layer {k} are algebra: {swap.by_algebra}."
    reasons = {
        "erased": f"The change of behaviour was made in W_V of layer {k} itself.",
        "bypassed": f"The change of behaviour was made in what flows into W_V of layer {k}, not in W_V.",
        "parallel": f"The change of behaviour was made up to layer {k}, but around its region (W_V and its inputs).",
        "upstream": f"The change of behaviour was made before W_V of layer {k}: through its inputs and around it.",
        "masked": f"The change of behaviour was made after layer {k}, whose output still carries vanilla's behaviour.",
    }
    if word in reasons:
        return word, reasons[word] + (f" This is algebra: {swap.by_algebra}." if swap.by_algebra else "")
    biggest = max(_parts(swap), key=lambda part: part[0].value)[1]
    share = "the largest part" if swap.erased.high >= 1 - thresholds.share else "not in W_V; the largest part"
    return word, f"No single route at layer {k} carries the change of behaviour: {share} passes through {biggest}."


def _limits(swap: SwapShares | None, independent: bool, located: str) -> str:
    """What the verdict depends on."""
    if swap is None or swap.gated:
        return ""
    k = swap.layer
    if not independent:
        return f"Layer {k} was not located independently of the edit."
    where = f"Layer {k} is where vanilla's behaviour was located, independently of the edit"
    where += f" ({located})" if located else ""
    if swap.identity:
        return f"{where}; it is also the edited one."
    if swap.by_algebra:
        return f"{where}; what was done after it can be seen in the behaviour alone, not in its shares."
    return f"{where}; at a wrong layer an erasure reads as masked (too low) or parallel (too high)."


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


def _swap_sentence(swap: SwapShares | None, elsewhere: bool = False) -> str:
    if swap is None:
        return ""
    there = f" at the toxic layer {swap.layer}" if elsewhere else ""
    if swap.gated:
        drop = swap.compliance_drop
        return (
            ""
            if elsewhere
            else f"Complying first tokens fell by {drop.value:.0f} points ({drop.low:.0f} to {drop.high:.0f}), too "
            "little to say through which part."
        )
    if swap.identity:
        return f"Swapping the region's matrix{there} undoes everything by algebra, as it is all that was changed."
    lost = swap.compliance_drop
    if swap.by_algebra and swap.downstream.low > 1 - 1e-3:
        return (
            f"Complying first tokens fell by {lost.value:.0f} points ({lost.low:.0f} to {lost.high:.0f}; n = {swap.n})"
            f"; no swap at layer {swap.layer} or below it brings any of that back, by algebra."
        )
    told = ", ".join(
        f"{100 * e.value:.0f} % [{100 * e.low:.0f}, {100 * e.high:.0f}] {name}" for e, name in _parts(swap)
    )
    back = ", ".join(f"{100 * x:.0f}" for x in swap.reverse)
    out = "" if not swap.left_out else f"; {swap.left_out} edits are left out, as theirs are algebra at this layer"
    algebra = f" by algebra ({swap.by_algebra})" if swap.by_algebra else ""
    return (
        f"Swapping parts with vanilla{there}, the change of the refusal margin passes{algebra} through: {told} (other "
        f"direction: {back} %; n = {swap.n}{out})."
    )


def _prompt_sentence(alone: SwapShares | None, given: SwapShares | None) -> str:
    """What S does to vanilla by itself, so that it is not counted for the edit."""
    if alone is None or given is None:
        return ""
    return (
        f"S alone moves vanilla's mean margin from {alone.margin_vanilla.value:+.1f} to "
        f"{given.margin_vanilla.value:+.1f} nats; the edit moves it from {alone.margin_vanilla.value:+.1f} to "
        f"{alone.margin.value:+.1f} without S and from {given.margin_vanilla.value:+.1f} to {given.margin.value:+.1f} "
        "with it."
    )


def _paper_sentence(region: Sequence[RegionToxicity], shift: ActivationShift | None) -> str:
    rule = paper_rule(region, shift)
    if rule is None:
        return ""
    how = f"toxicity of the region down by more than {PAPER_PERCENT:.0f} %: erased; else inputs moved: bypassed"
    return f"The paper's rule ({how}) would say {rule}."
