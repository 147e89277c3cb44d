"""Behaviour: what a model answers to SafeEdit's prompts and to harmless ones, judged and scored with intervals."""

from interp.evaluation.defense import defense_scores
from interp.evaluation.entropy import fluency, ngram_entropy
from interp.evaluation.items import BENIGN, KQA, WRAPPED, Item, by_owner, plan
from interp.evaluation.performance import general, matches
from interp.evaluation.responses import judged, respond, respond_edited

__all__ = [
    "BENIGN",
    "KQA",
    "WRAPPED",
    "Item",
    "by_owner",
    "defense_scores",
    "fluency",
    "general",
    "judged",
    "matches",
    "ngram_entropy",
    "plan",
    "respond",
    "respond_edited",
]
