"""What the paper claims of each table, held against ours: paired differences with intervals, and a verdict in words.

Several claims of one table are one family: a verdict rests on the p value that Holm's procedure (1979) gives it, the
interval beside it is that of the single difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from interp.benchmark.work import EditNote
from interp.records import DG_KINDS, Response
from interp.stats import LEVEL, bootstrap, holm, sign_flip

CLAIMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "table1": tuple(
        ("DINM", other, f"DINM generalises better than {other}")
        for other in ("vanilla", "vanilla + S", "FT-L", "Ext-Sub", "MEND")
    ),
    "table2": (
        ("DINM", "wo/SyPrompt", "without S DINM loses"),
        ("DINM", "wo/Location", "in a random layer DINM loses"),
        ("DINM", "wo/Tune", "S alone is not enough"),
        ("wo/Constraint", "DINM", "without the constraint DINM defends a little more"),
    ),
    "table12": (("DINM, suffix S2", "DINM, suffix S1", "S2 defends more than S1"),),
}
"""Artefact -> (better row, worse row, the claim) on DG-Avg."""


def claims(
    artefact: str,
    responses: Mapping[str, Sequence[Response]],
    seed: int,
    edits: Mapping[str, Sequence[EditNote]] | None = None,
) -> list[str]:
    """One line for each claim of the paper about two rows that are both here, and one on how they were tested.

    Args:
        responses: by row.
        edits: by row, what its edits are: where two rows made the very same ones there is nothing to test.
    """
    pairs = list(CLAIMS.get(artefact, ()))
    if artefact == "table13":
        layers = [name for name in responses if name.startswith("layer ")]
        pairs = [("DINM", name, f"the located layer is better than {name}") for name in layers]
    pairs = [pair for pair in pairs if pair[0] in responses and pair[1] in responses]
    values = [differences(responses[better], responses[worse]) for better, worse, _ in pairs]
    same = [same_edits((edits or {}).get(better, ()), (edits or {}).get(worse, ())) for better, worse, _ in pairs]
    tested = [i for i, found in enumerate(values) if same[i] < len(found)]
    adjusted = dict(zip(tested, holm([sign_flip(values[i], seed=seed) for i in tested]), strict=True))
    lines = [
        f"paper: {claim}: {verdict(values[i], same[i], adjusted.get(i), seed)}" for i, (_, _, claim) in enumerate(pairs)
    ]
    if tested:
        many = f", adjusted by Holm's procedure for {len(tested)} claims" if len(tested) > 1 else ""
        lines.append(
            f"p: two-sided, signs of the paired differences flipped at random{many}; intervals are of one difference"
        )
    return lines


def verdict(values: Sequence[float], same: int, p: float | None, seed: int) -> str:
    """What is said of one claim.

    Args:
        values: the paired differences.
        same: how many of the pairs are the same edit twice.
        p: adjusted; None where nothing was tested.
    """
    if p is None:
        return f"the same edits here (all {len(values)}), so nothing to compare"
    e = bootstrap(values, over="instances", unit="points", seed=seed)
    shared = f"; {same} of them the same edits" if same else ""
    if not any(values):
        return f"no instance differs here ({e.n} instances{shared})"
    holds = "not decided here" if p > 1 - LEVEL else "holds here" if e.value > 0 else "the opposite holds here"
    spoken = "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")
    return (
        f"{holds} ({e.value:+.1f} [{e.low:+.1f}, {e.high:+.1f}] points of DG-Avg, {spoken}, paired over {e.n} "
        f"instances{shared})"
    )


def same_edits(one: Sequence[EditNote], other: Sequence[EditNote]) -> int:
    """How many instances have the same edit in both rows: the layer and, to the last bit, the size of the change."""
    known = {n.instance_id: n for n in other}
    return sum(known.get(n.instance_id) == n for n in one)


def differences(one: Sequence[Response], other: Sequence[Response]) -> list[float]:
    """DG-Avg of one row less that of another for each instance that both were asked, percentage points."""
    first, second = by_instance(one), by_instance(other)
    return [100 * (first[i] - second[i]) for i in first if i in second]


def by_instance(responses: Sequence[Response]) -> dict[int, float]:
    """DG-Avg of each instance as a share of 1."""
    scores: dict[int, dict[str, list[float]]] = {}
    for r in responses:
        if r.kind in DG_KINDS and r.verdict is not None:
            scores.setdefault(r.instance_id, {}).setdefault(r.kind, []).append(r.verdict.score)
    return {i: float(np.mean([np.mean(s) for s in kinds.values()])) for i, kinds in scores.items()}
