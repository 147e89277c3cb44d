"""What the paper claims of each table, held against ours: paired differences with intervals, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from interp.records import DG_KINDS, Estimate, Response
from interp.stats import bootstrap

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


def claims(artefact: str, responses: Mapping[str, Sequence[Response]], seed: int) -> list[str]:
    """One line for each claim of the paper about two rows that are both here."""
    pairs = list(CLAIMS.get(artefact, ()))
    if artefact == "table13":
        layers = [name for name in responses if name.startswith("layer ")]
        pairs = [("DINM", name, f"the located layer is better than {name}") for name in layers]
    found = []
    for better, worse, claim in pairs:
        if better in responses and worse in responses:
            e = difference(responses[better], responses[worse], seed)
            holds = "holds here" if e.low > 0 else "the opposite holds here" if e.high < 0 else "not decided here"
            numbers = f"{e.value:+.1f} [{e.low:+.1f}, {e.high:+.1f}] points of DG-Avg, paired over {e.n} instances"
            found.append(f"paper: {claim}: {holds} ({numbers})")
    return found


def difference(one: Sequence[Response], other: Sequence[Response], seed: int) -> Estimate:
    """DG-Avg of one row less that of another, percentage points, bootstrap over the instances both were asked."""
    first, second = by_instance(one), by_instance(other)
    shared = [i for i in first if i in second]
    return bootstrap([100 * (first[i] - second[i]) for i in shared], over="instances", unit="points", seed=seed)


def by_instance(responses: Sequence[Response]) -> dict[int, float]:
    """DG-Avg of each instance as a share of 1."""
    scores: dict[int, dict[str, list[float]]] = {}
    for r in responses:
        if r.kind in DG_KINDS and r.verdict is not None:
            scores.setdefault(r.instance_id, {}).setdefault(r.kind, []).append(r.verdict.score)
    return {i: float(np.mean([np.mean(s) for s in kinds.values()])) for i, kinds in scores.items()}
