"""Every analysis of the mechanism laboratory, in the order of the deep report. The list, and nothing else."""

from __future__ import annotations

from interp.mechanism.lab import Analysis
from interp.mechanism.margins import MARGINS

ANALYSES: tuple[Analysis, ...] = (MARGINS,)
