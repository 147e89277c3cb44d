"""What happens when something is done to the located region: ablated, pushed back, made louder, trained again.

The four analyses of interventions under one roof; each has a module of its own. None of them changes a model.
"""

from __future__ import annotations

from interp.mechanism.ablation import ABLATION
from interp.mechanism.reactivation import REACTIVATION
from interp.mechanism.relearning import RELEARNING, Tuning, relearning
from interp.mechanism.unalignment import UNALIGNMENT

INTERVENTIONS = (ABLATION, REACTIVATION, UNALIGNMENT, RELEARNING)

__all__ = ["ABLATION", "INTERVENTIONS", "REACTIVATION", "RELEARNING", "UNALIGNMENT", "Tuning", "relearning"]
