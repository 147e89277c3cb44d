"""A number that knows how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number that knows how sure it is: value, interval, n, unit and how the interval was made."""

    value: float
    low: float
    """Lower end of the interval (equal to `value` where the number is exact)."""
    high: float
    n: int
    """How many independent units (instances, edits, texts) the number rests on."""
    unit: str = ""
    how: str = ""
    """How the interval was made, e.g. "Wilson 95 %" or "bootstrap 95 % over instances, 2000 resamples, seed 0"."""

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n must be >= 0, got {self.n}")
        if not (self.low <= self.value <= self.high or math.isnan(self.value)):
            raise ValueError(f"the interval [{self.low}, {self.high}] does not hold the value {self.value}")
