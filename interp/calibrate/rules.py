"""Rules that turn measurements into a verdict, and what counts as right for each kind of organism.

Verdicts: "erased", "bypassed", "parallel", "masked", "upstream" (bypassed or parallel, which of the two is open),
"mixed", "no effect". A rule sees the evidence alone, never the truth; its threshold is chosen on one half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from interp.mechanism.reading import fell, paper_rule
from interp.mechanism.shares import Thresholds, verdict
from interp.records import SwapShares
from interp.records.calibration import OrganismEvidence, OrganismLine
from interp.stats import exact

VERDICTS = ("erased", "bypassed", "parallel", "upstream", "masked", "mixed", "no effect")
ACCEPTED: dict[str, frozenset[str]] = {
    "erased": frozenset({"erased"}),
    "bypassed": frozenset({"bypassed"}),
    "parallel": frozenset({"parallel"}),
    "masked": frozenset({"masked"}),
    "mixed": frozenset({"mixed"}),
    "none": frozenset({"no effect"}),
}
"""Truth -> the verdicts that are right."""
UPSTREAM = frozenset({"bypassed", "parallel", "upstream"})
"""Right for parts below the region that were trained freely: construction does not say which of the two routes."""


def accepted(evidence: OrganismEvidence | OrganismLine) -> frozenset[str]:
    """The verdicts that are right for an organism."""
    return UPSTREAM if evidence.kind == "upstream" else ACCEPTED[evidence.truth]


def coarse(verdict: str) -> str:
    """Erased, not erased, mixed or no effect: what the paper's two measures can tell apart at most."""
    return "not erased" if verdict in ("bypassed", "parallel", "upstream", "masked") else verdict


# ------------------------------------------------------------------------------------------------- rules
@dataclass(frozen=True)
class Rule:
    """A way to a verdict."""

    name: str
    says: Callable[[OrganismEvidence, float], str]
    """(evidence, threshold) -> verdict."""
    thresholds: tuple[float, ...]
    """Candidates for the threshold; one means that there is nothing to choose."""
    reads: tuple[str, ...]
    """Which entries of `OrganismEvidence.seconds` it costs."""


def from_shares(shares: SwapShares, threshold: float, *, by_value: bool = False) -> str:
    """What `shares.verdict` says at this threshold; `by_value`: as if every share were known exactly (not the gate)."""
    if by_value:
        names = ("erased", "bypassed", "parallel", "downstream", "upstream")
        known = {name: getattr(shares, name) for name in names}
        shares = replace(shares, **{name: e and exact(e.value, e.n) for name, e in known.items()})
    return verdict(shares, Thresholds(threshold))


def _at(evidence: OrganismEvidence, layer: int) -> SwapShares:
    return evidence.shares[layer]


def _paper(evidence: OrganismEvidence, threshold: float, null: bool = False) -> str:
    """The paper's two measures: the region's toxicity fell by more than the threshold (percent), else inputs moved."""
    said = paper_rule(evidence.region, evidence.shift, threshold, null)
    return "no effect" if said in (None, "neither") else said


def _definitions(evidence: OrganismEvidence, threshold: float) -> str:
    """Toxicity under all definitions: erased where most fell beyond both nulls."""
    if 2 * sum(fell(r) for r in evidence.region) > len(evidence.region):
        return "erased"
    return "bypassed" if evidence.shift.rate.value > threshold else "no effect"


def _weights(evidence: OrganismEvidence, threshold: float) -> str:
    """Weights alone: where most of the squared change is. It runs no prompt, so it cannot know of an effect."""
    words = {"W_V": "erased", "inputs": "bypassed", "around": "parallel", "above": "masked"}
    place = max(evidence.weights, key=lambda group: evidence.weights[group])
    return words[place] if evidence.weights[place] > threshold else "mixed"


SHARES = Rule(
    "four shares, at the plant",
    lambda e, t: from_shares(_at(e, e.layer), t),
    tuple(round(0.30 + 0.05 * i, 2) for i in range(14)),
    ("shares, all layers",),
)
RULES: tuple[Rule, ...] = (
    SHARES,
    Rule("four shares, at the located layer", lambda e, t: from_shares(_at(e, e.located), t), SHARES.thresholds,
         SHARES.reads),
    Rule("four shares, values without intervals", lambda e, t: from_shares(_at(e, e.layer), t, by_value=True),
         SHARES.thresholds, SHARES.reads),
    Rule("the paper's two measures", _paper, (1.0,), ("region toxicity", "shift")),
    Rule("the paper's, best threshold", _paper, (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), ("region toxicity", "shift")),
    Rule("the paper's with a random-direction null", lambda e, t: _paper(e, t, null=True),
         (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), ("region toxicity", "shift")),
    Rule("toxicity under all definitions, with nulls", _definitions, (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
         ("region toxicity", "shift")),
    Rule("control: where the weights changed", _weights, tuple(round(0.1 * i, 1) for i in range(3, 10)), ("weights",)),
)  # fmt: skip


def majority(evidences: Sequence[OrganismEvidence]) -> str:
    """The verdict that is right most often: what a rule that measures nothing would always say."""
    counts = {v: sum(v in accepted(e) for e in evidences) for v in VERDICTS}
    return max(VERDICTS, key=lambda v: counts[v])
