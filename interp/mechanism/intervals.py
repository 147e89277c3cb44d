"""A bootstrap for numbers that are functions of means: all resamples at once, several numbers from the same draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    clusters: Sequence[int] = (),
    crossed: Sequence[int] = (),
) -> list[Estimate]:
    """Percentile bootstrap of k functions of the column means: `statistic` maps means [..., c] to values [..., k].

    As `stats.bootstrap`, but vectorised: one resample is a row of counts, and its means are one matrix product.

    Args:
        data: one row per prompt.
        statistic: of the column means.
        over: what is resampled, in the plural: the rows or, where there are several clusters, the clusters.
        unit: of the values.
        seed: of the resampling.
        clusters: outer unit (model, edit) of each row. With several, units are resampled first, then each drawn unit's
            rows.
        crossed: which prompt each row is on, where every unit was asked the same ones: prompts are then resampled once
            for all units, independently of the units (Owen's "pigeonhole" bootstrap, 2007, which errs on the wide
            side).

    Raises:
        ValueError: `data` is empty, or a label is missing.
    """
    n = len(data)
    if n == 0:
        raise ValueError("expected at least one unit to resample, got none")
    if any(labels and len(labels) != n for labels in (clusters, crossed)):
        raise ValueError(f"expected a label for each of {n} rows")
    values = statistic(data.mean(axis=0))
    units = len(set(clusters))
    if n == 1:
        return [Estimate(float(v), float(v), float(v), 1, unit, f"one of {over}: no interval") for v in values]
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) if units < 2 else _counts(rng, clusters, crossed)
    draws = statistic(counts @ data / counts.sum(axis=1, keepdims=True))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    inner = "" if units < 2 or n == units else " and prompts"
    how = f"bootstrap 95 % over {over}{inner}, {RESAMPLES} resamples, seed {seed}"
    return [
        Estimate(float(v), min(float(a), float(v)), max(float(b), float(v)), units if units > 1 else n, unit, how)
        for v, a, b in zip(values, low, high, strict=True)
    ]


def bands(data: Float[np.ndarray, "n c"], *, over: str, unit: str, seed: int = 0) -> list[Estimate]:
    """Column means with a band that holds all true means at once in 95 % of samples (bootstrap of the largest |t|).

    Every column's reach is the same multiple of its standard error, so that asking all columns (layers) at once finds
    one that differs no more often than asking a single one.

    Raises:
        ValueError: `data` is empty.
    """
    n = len(data)
    if n == 0:
        raise ValueError("expected at least one unit to resample, got none")
    values = data.mean(axis=0)
    if n == 1:
        return [Estimate(float(v), float(v), float(v), 1, unit, f"one of {over}: no interval") for v in values]
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    draws = counts @ data / n
    error = draws.std(axis=0)
    farthest = (np.abs(draws - values) / np.where(error > 0, error, np.inf)).max(axis=1)
    reach = np.quantile(farthest, LEVEL) * error
    how = f"simultaneous bootstrap band 95 % over {over}, {data.shape[1]} values, {RESAMPLES} resamples, seed {seed}"
    return [Estimate(float(v), float(v - r), float(v + r), n, unit, how) for v, r in zip(values, reach, strict=True)]


def _counts(
    rng: np.random.Generator, clusters: Sequence[int], crossed: Sequence[int]
) -> Float[np.ndarray, "resample n"]:
    """How often each row is drawn, in every resample of outer units."""
    names, unit = np.unique(clusters, return_inverse=True)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    if crossed:
        prompts, item = np.unique(crossed, return_inverse=True)
        picked = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), size=RESAMPLES)
        return (drawn[:, unit] * picked[:, item]).astype(float)
    counts = np.zeros((RESAMPLES, len(unit)))
    for i in range(len(names)):  # a unit drawn k times: k resamples of its rows, added up
        rows = np.flatnonzero(unit == i)
        counts[:, rows] = rng.multinomial(drawn[:, i] * len(rows), np.full(len(rows), 1 / len(rows)))
    return counts
