"""A bootstrap for numbers that are functions of means: all resamples at once, several numbers from the same draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from interp.records import Estimate
from interp.stats import LEVEL, RESAMPLES


def of_means(
    data: Float[np.ndarray, "n c"],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    over: str,
    unit: str,
    seed: int = 0,
) -> list[Estimate]:
    """Percentile bootstrap of k functions of the column means: `statistic` maps means [..., c] to values [..., k].

    As `stats.bootstrap`, but vectorised: one resample is a row of counts, and its means are one matrix product.

    Raises:
        ValueError: `data` is empty.
    """
    n = len(data)
    if n == 0:
        raise ValueError("expected at least one unit to resample, got none")
    values = statistic(data.mean(axis=0))
    if n == 1:
        return [Estimate(float(v), float(v), float(v), 1, unit, f"one of {over}: no interval") for v in values]
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    draws = statistic(counts @ data / n)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    how = f"bootstrap 95 % over {over}, {RESAMPLES} resamples, seed {seed}"
    return [
        Estimate(float(v), min(float(a), float(v)), max(float(b), float(v)), n, unit, how)
        for v, a, b in zip(values, low, high, strict=True)
    ]
