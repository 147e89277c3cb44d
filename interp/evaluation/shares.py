"""Intervals for shares whose answers come in groups: the instance, not the answer, is the independent unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from interp.records import Estimate
from interp.stats import bootstrap, share


def unit_means(pairs: Iterable[tuple[Hashable, float]]) -> dict[Hashable, float]:
    """The mean value of each unit, in order of first appearance."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for unit, value in pairs:
        groups[unit].append(value)
    return {unit: sum(values) / len(values) for unit, values in groups.items()}


def wilson(scores: Sequence[float]) -> Estimate:
    """Mean of one score in [0, 1] per unit, in percent, Wilson interval with n = the number of units."""
    return share(min(max(float(sum(scores)), 0.0), float(len(scores))), len(scores))


def bootstrap_share(rows: np.ndarray, over: str, seed: int) -> Estimate:
    """Mean of the column means of scores in [0, 1] (units x columns, NaN where not asked), in percent.

    Bootstrap over units. Where every resample gives the same number (all right, all wrong, one unit) the bootstrap
    sees no spread, which is not certainty: the interval is then Wilson's for that share of the units.
    """

    def mean_of_columns(table: np.ndarray) -> float:
        there = ~np.isnan(table)
        counts = there.sum(axis=0)
        sums = np.where(there, table, 0.0).sum(axis=0)
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    whole = not np.isnan(rows).any()  # the usual case: then the plain mean is the same number, and faster
    statistic = None if whole else mean_of_columns
    estimate = bootstrap(100.0 * rows, statistic, over=over, unit="%", seed=seed)
    if estimate.low < estimate.high:
        return estimate
    flat = wilson([min(max(estimate.value / 100.0, 0.0), 1.0)] * len(rows))
    how = f"Wilson 95 % over {over} (no spread to resample)"
    low, high = min(flat.low, estimate.value), max(flat.high, estimate.value)
    return Estimate(estimate.value, low, high, len(rows), "%", how)
