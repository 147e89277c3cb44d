"""Every analysis of the mechanism laboratory, in the order of the deep report. The list, and nothing else."""

from __future__ import annotations

from interp.mechanism.directions import REFUSAL_DIRECTION
from interp.mechanism.geometry import GEOMETRY
from interp.mechanism.interventions import ABLATION, REACTIVATION, RELEARNING, UNALIGNMENT
from interp.mechanism.lab import Analysis
from interp.mechanism.lens import MARGIN_LENS
from interp.mechanism.localise.distribution import LAYERS
from interp.mechanism.margins import MARGINS
from interp.mechanism.neuron_groups import NEURON_GROUPS
from interp.mechanism.neurons import NEURONS
from interp.mechanism.patching import ATTRIBUTION, PATCHING, WEIGHT_SWAPS
from interp.mechanism.robustness import ATTACK_FAMILIES, FIRST_TOKENS, PREFILL, QUANTISATION, REVERSAL
from interp.mechanism.spectra import WEIGHT_SPECTRA

LOOKING: tuple[Analysis, ...] = (MARGINS, MARGIN_LENS, LAYERS)
"""Where the margin can be read off, and where locators say that it is made."""
SWAPPING: tuple[Analysis, ...] = (PATCHING, ATTRIBUTION, WEIGHT_SWAPS)
"""Through what it passes."""
DIRECTIONS: tuple[Analysis, ...] = (NEURONS, NEURON_GROUPS, REFUSAL_DIRECTION, GEOMETRY, WEIGHT_SPECTRA)
"""Neurons and directions that carry it."""
INTERVENING: tuple[Analysis, ...] = (ABLATION, REACTIVATION, UNALIGNMENT, RELEARNING)
"""What brings the behaviour back."""
ROBUSTNESS: tuple[Analysis, ...] = (FIRST_TOKENS, PREFILL, ATTACK_FAMILIES, REVERSAL, QUANTISATION)
"""How deep safety goes."""
ANALYSES: tuple[Analysis, ...] = (*LOOKING, *SWAPPING, *DIRECTIONS, *INTERVENING, *ROBUSTNESS)
