"""From evidence to scores: thresholds chosen on one half of the plants, everything reported on both and on fresh ones.

All variants of a plant are in one part, and intervals resample plants: variants of one plant are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from interp.calibrate.rules import RULES, SHARES, Rule, accepted, coarse, majority
from interp.errors import InputError
from interp.mechanism.localise import LOCATORS
from interp.records import Estimate
from interp.records.calibration import LocatorResult, LocatorScore, OrganismEvidence, RuleScore
from interp.stats import LEVEL, RESAMPLES, share

HALVES = ("set", "held-out")
PARTS = (*HALVES, "fresh")
"""The halves, and the plants made after everything had been fixed; a small calibration has none of these."""


# ------------------------------------------------------------------------------------------------- rules
def choose(rule: Rule, evidences: Sequence[OrganismEvidence]) -> float:
    """The threshold that is right most often; of several, the middle of the longest run of equally good ones."""
    rights = [sum(rule.says(e, t) in accepted(e) for e in evidences) for t in rule.thresholds]
    best, runs, run = max(rights), [], []
    for i, right in enumerate([*rights, -1]):
        if right == best:
            run.append(i)
        elif run:
            runs.append(run)
            run = []
    longest = max(runs, key=len)
    return rule.thresholds[longest[(len(longest) - 1) // 2]]


def score_rules(evidences: Sequence[OrganismEvidence], seed: int = 0) -> tuple[list[RuleScore], dict[str, float]]:
    """Every rule on every part, the control that always gives one answer last; and the chosen thresholds by rule.

    Raises:
        InputError: one of the halves is empty.
    """
    halves = {half: [e for e in evidences if e.half == half] for half in PARTS}
    for half in HALVES:
        if not halves[half]:
            raise InputError(f"no organism of the half {half!r} was scored; a threshold needs both halves")
    halves = {half: members for half, members in halves.items() if members}
    scores: list[RuleScore] = []
    chosen: dict[str, float] = {}
    for rule in RULES:
        threshold = chosen[rule.name] = choose(rule, halves["set"])
        for half, members in halves.items():
            says = [rule.says(e, threshold) for e in members]
            seconds = float(np.mean([sum(e.seconds.get(r, 0.0) for r in rule.reads) for e in members]))
            shown = threshold if len(rule.thresholds) > 1 else None
            scores.append(_rule_score(rule.name, half, members, says, seed, shown, seconds))
    always = majority(halves["set"])
    name = f"control: always “{always}”"
    scores += [_rule_score(name, half, m, [always] * len(m), seed) for half, m in halves.items()]
    return scores, chosen


def by_threshold(evidences: Sequence[OrganismEvidence]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Half -> (threshold, percent right) of the shares at the plant's layer."""
    found = {}
    for half in PARTS:
        members = [e for e in evidences if e.half == half]
        if not members:
            continue
        found[half] = tuple(
            (t, 100.0 * float(np.mean([SHARES.says(e, t) in accepted(e) for e in members]))) for t in SHARES.thresholds
        )
    return found


def wrong_layer(evidences: Sequence[OrganismEvidence], threshold: float) -> dict[str, dict[str, int]]:
    """What organisms that were erased read as, at layers below, at and above the plant's."""
    from interp.calibrate.rules import from_shares

    found: dict[str, Counter[str]] = {"below": Counter(), "at": Counter(), "above": Counter()}
    for e in evidences:
        if e.truth != "erased":
            continue
        for shares in e.shares:
            where = "at" if shares.layer == e.layer else "below" if shares.layer < e.layer else "above"
            found[where][from_shares(shares, threshold)] += 1
    return {where: dict(sorted(counts.items())) for where, counts in found.items()}


def _rule_score(
    name: str,
    half: str,
    members: Sequence[OrganismEvidence],
    says: Sequence[str],
    seed: int,
    threshold: float | None = None,
    seconds: float = 0.0,
) -> RuleScore:
    plants = [e.plant for e in members]
    right = [said in accepted(e) for e, said in zip(members, says, strict=True)]
    rough = [
        (plant, coarse(said) in {coarse(a) for a in accepted(e)})
        for plant, e, said in zip(plants, members, says, strict=True)
        if e.truth != "mixed" or e.kind == "upstream"
    ]
    none = [(e.plant, said != "no effect") for e, said in zip(members, says, strict=True) if e.truth == "none"]
    confusion: dict[str, Counter[str]] = {}
    for e, said in zip(members, says, strict=True):
        confusion.setdefault("upstream" if e.kind == "upstream" else e.truth, Counter())[said] += 1
    return RuleScore(
        rule=name,
        half=half,
        right=clustered(plants, right, seed),
        coarse=clustered([p for p, _ in rough], [r for _, r in rough], seed),
        false_positive=clustered([p for p, _ in none], [r for _, r in none], seed),
        confusion={truth: dict(sorted(said.items())) for truth, said in sorted(confusion.items())},
        threshold=threshold,
        seconds=seconds,
    )


def clustered(plants: Sequence[str], hits: Sequence[bool], seed: int = 0) -> Estimate:
    """A share in percent; the interval is the wider of Wilson's and a bootstrap over plants.

    A bootstrap of a share that is 0 or 100 % in every plant has no width, which would claim too much: then Wilson's
    interval takes the plants as its units, since organisms of one plant may all be right for one reason.
    """
    if not hits:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, "%", "nothing to count")
    names = sorted(set(plants))
    counts = np.array([[sum(h for p, h in zip(plants, hits, strict=True) if p == n), plants.count(n)] for n in names])
    hit, alike = int(sum(hits)), len({*hits}) == 1
    wilson = share(len(names) * hit / len(hits), len(names)) if alike else share(hit, len(hits))
    rng = np.random.default_rng(seed)
    draws = counts[rng.integers(0, len(names), (RESAMPLES, len(names)))].sum(axis=1)
    low, high = np.quantile(100.0 * draws[:, 0] / draws[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    how = f"95 %, the wider of Wilson and a bootstrap over {len(names)} plants, seed {seed}"
    how = f"Wilson 95 % over {len(names)} plants" if alike else how
    return Estimate(wilson.value, min(wilson.low, float(low)), max(wilson.high, float(high)), len(hits), "%", how)


# ------------------------------------------------------------------------------------------------- locators
def score_locators(results: Sequence[LocatorResult], seed: int = 0) -> list[LocatorScore]:
    """Every locator on every part, in the order of the results. Plants in layer 0 are not counted (see README)."""
    scores = []
    for name in dict.fromkeys(r.locator for r in results):
        for half in PARTS:
            mine = [r for r in results if r.locator == name and r.half == half and r.layer >= 1]
            if mine:
                scores.append(_locator_score(name, half, mine, seed))
    return scores


def _locator_score(name: str, half: str, mine: Sequence[LocatorResult], seed: int) -> LocatorScore:
    def hits(keep: Callable[[LocatorResult], bool]) -> Estimate:
        kept = [r for r in mine if keep(r)]
        return clustered([r.plant for r in kept], [r.located == r.layer for r in kept], seed)

    shapes = sorted({r.shape for r in mine})
    informed = [r for r in mine if r.baseline != r.layer]
    return LocatorScore(
        locator=name,
        needs_reference=mine[0].needs_reference,
        half=half,
        hits=hits(lambda _: True),
        hits_elsewhere=hits(lambda r: r.baseline != r.layer) if informed else None,
        rank=float(np.mean([r.rank for r in mine])),
        by_shape={shape: hits(lambda r, shape=shape: r.shape == shape) for shape in shapes},
        seconds=float(np.mean([r.seconds for r in mine])),
        control=name in LOCATORS and LOCATORS[name].control,
    )
