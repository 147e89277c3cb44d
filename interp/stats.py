"""Intervals: Wilson for shares, the percentile bootstrap for means (Student's where units are few), paired differences.

Every function returns an `Estimate`, so that no number leaves without its n and the way its interval was made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from interp.records import Estimate

RESAMPLES = 2000
FLIPS = 10_000
LEVEL = 0.95
_Z = 1.959963984540054


def exact(value: float, n: int, unit: str = "") -> Estimate:
    """A number without sampling error (a property of weights, say)."""
    return Estimate(float(value), float(value), float(value), n, unit, "exact")


def share(successes: float, n: int) -> Estimate:
    """A share in percent with its Wilson interval; `successes` may be fractional (neutral scores count 0.5).

    Raises:
        ValueError: n < 1 or successes outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p = successes / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    low, high = min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))
    return Estimate(100 * p, 100 * low, 100 * high, n, "%", "Wilson 95 %")


def share_of_groups(values: Sequence[float] | np.ndarray, groups: Sequence[str], over: str) -> Estimate:
    """A share in percent of units that come in groups (prompts that share an attack): Wilson on the number of groups.

    As if the units of a group were copies of each other, which is the most that grouping can cost: the interval speaks
    for further groups, and errs on the wide side. `n` of the estimate is the number of groups.

    Args:
        values: 0 to 1, one a unit.
        groups: the group of each unit.
        over: the groups' name, in the plural.

    Raises:
        ValueError: no values, or not a group for each.
    """
    if len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"expected a group for each of one or more values, got {len(values)} and {len(groups)}")
    n = len(set(groups))
    found = share(float(np.mean(values)) * n, n)
    how = f"Wilson 95 % over {n} {over}" + (f", {len(values)} prompts" if len(values) != n else "")
    return Estimate(found.value, found.low, found.high, n, found.unit, how)


def sign_flip(differences: Sequence[float], *, seed: int = 0, flips: int = FLIPS) -> float:
    """Two-sided p value of paired differences: how often their mean is as far from 0 when signs are drawn at random.

    Under the hypothesis that the two sides are exchangeable within each pair. The draw itself counts as one of the
    flips, so that p is never 0 and at least 1 / (flips + 1).

    Raises:
        ValueError: no differences.
    """
    values = np.asarray(differences, dtype=float)
    if values.size == 0:
        raise ValueError("expected at least one difference, got none")
    signs = np.random.default_rng(seed).integers(0, 2, (flips, values.size), dtype=np.int8) * 2 - 1
    # Rounding: a flip of equal size must count as one, whatever the order of the sum.
    as_far = np.abs(signs @ values) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()
    return float((1 + as_far.sum()) / (1 + flips))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values of a family of tests, adjusted so that any false rejection in it is rare (Holm 1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest, n = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (n - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def bootstrap(
    data: np.ndarray | Sequence[float],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    over: str = "instances",
    unit: str = "",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Percentile bootstrap of `statistic` (the mean of all, if None) over the first axis of `data` (units x anything).

    The unit of resampling is the independent one (an instance, an edit), never a token. With one unit there is no
    spread to resample: the interval is the value itself and `how` says so.

    Raises:
        ValueError: `data` is empty.
    """
    array = np.asarray(data, dtype=float)
    n = len(array)
    if n == 0:
        raise ValueError("expected at least one unit to resample, got none")
    value = float(array.mean() if statistic is None else statistic(array))
    if n == 1:
        return Estimate(value, value, value, 1, unit, f"one of {over}: no interval")
    rng = np.random.default_rng(seed)
    if statistic is None:  # all resamples at once: the same draws, fifty times as fast
        means = array.reshape(n, -1).mean(axis=1)
        draws = means[rng.integers(0, n, (resamples, n))].mean(axis=1)
    else:
        draws = np.array([statistic(array[rng.integers(0, n, n)]) for _ in range(resamples)], dtype=float)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    how = f"bootstrap 95 % over {over}, {resamples} resamples, seed {seed}"
    return Estimate(value, min(float(low), value), max(float(high), value), n, unit, how)


def mean_of_few(
    data: np.ndarray | Sequence[float],
    *,
    over: str = "instances",
    unit: str = "",
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Mean of a few independent numbers with Student's interval: resampling three of them would give their range.

    Args:
        data: one number a unit; with one unit there is no interval and `how` says so.
        within: where the quantity can lie at all; the interval is cut to it.

    Raises:
        ValueError: `data` is empty.
    """
    from scipy.special import stdtrit

    values = np.asarray(data, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("expected at least one unit, got none")
    value = float(values.mean())
    if n == 1:
        return Estimate(value, value, value, 1, unit, f"one of {over}: no interval")
    reach = float(stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / math.sqrt(n))
    low, high = max(value - reach, within[0]), min(value + reach, within[1])
    return Estimate(value, min(low, value), max(high, value), n, unit, f"Student's t 95 % over {n} {over}")
