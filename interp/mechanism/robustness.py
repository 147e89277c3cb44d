"""How deep safety goes: along the answer, across attacks, under fine-tuning, rounding and further edits.

The analyses of robustness under one roof; each has a module of its own. None of them changes a model.
"""

from __future__ import annotations

from interp.mechanism.families import ATTACK_FAMILIES, attack_families
from interp.mechanism.first_tokens import FIRST_TOKENS
from interp.mechanism.prefill import PREFILL, prefill
from interp.mechanism.quantisation import QUANTISATION
from interp.mechanism.relearning import REVERSAL, reversal
from interp.mechanism.repeated import repeated_edits
from interp.mechanism.sequential import sequential_survival

ROBUSTNESS = (FIRST_TOKENS, PREFILL, ATTACK_FAMILIES, REVERSAL, QUANTISATION)

__all__ = [
    "ATTACK_FAMILIES",
    "FIRST_TOKENS",
    "PREFILL",
    "QUANTISATION",
    "REVERSAL",
    "ROBUSTNESS",
    "attack_families",
    "prefill",
    "repeated_edits",
    "reversal",
    "sequential_survival",
]
