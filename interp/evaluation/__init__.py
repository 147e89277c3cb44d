"""Behaviour: what a model answers to SafeEdit's prompts and to harmless ones, judged and scored with intervals.

Names are looked up when they are asked for: `python -m interp.evaluation --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.evaluation.defense import defense_scores
    from interp.evaluation.divergence import (
        Answered,
        Moved,
        answer_kl,
        answer_kl_of_edits,
        answered_by,
        gold_answers,
        mean_moved,
        moved,
        own_answers,
    )
    from interp.evaluation.entropy import fluency, ngram_entropy
    from interp.evaluation.harness import HarnessTasks, find_tasks, run_harness
    from interp.evaluation.items import BENIGN, CSUM, KQA, WRAPPED, Item, by_owner, plan, plan_general
    from interp.evaluation.knowledge import exact_match, load_questions
    from interp.evaluation.performance import general, matches
    from interp.evaluation.refusals import load_benign
    from interp.evaluation.responses import judged, respond, respond_edited
    from interp.evaluation.sources import with_files
    from interp.evaluation.summaries import load_summaries, rouge1

_NAMES = {
    "defense": ("defense_scores",),
    "divergence": (
        "Answered",
        "Moved",
        "answer_kl",
        "answer_kl_of_edits",
        "answered_by",
        "gold_answers",
        "mean_moved",
        "moved",
        "own_answers",
    ),
    "entropy": ("fluency", "ngram_entropy"),
    "harness": ("HarnessTasks", "find_tasks", "run_harness"),
    "items": ("BENIGN", "CSUM", "KQA", "WRAPPED", "Item", "by_owner", "plan", "plan_general"),
    "knowledge": ("exact_match", "load_questions"),
    "performance": ("general", "matches"),
    "refusals": ("load_benign",),
    "responses": ("judged", "respond", "respond_edited"),
    "sources": ("with_files",),
    "summaries": ("load_summaries", "rouge1"),
}
"""Module -> what it has to offer."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "BENIGN",
    "CSUM",
    "KQA",
    "WRAPPED",
    "Answered",
    "HarnessTasks",
    "Item",
    "Moved",
    "answer_kl",
    "answer_kl_of_edits",
    "answered_by",
    "by_owner",
    "defense_scores",
    "exact_match",
    "find_tasks",
    "fluency",
    "general",
    "gold_answers",
    "judged",
    "load_benign",
    "load_questions",
    "load_summaries",
    "matches",
    "mean_moved",
    "moved",
    "ngram_entropy",
    "own_answers",
    "plan",
    "plan_general",
    "respond",
    "respond_edited",
    "rouge1",
    "run_harness",
    "with_files",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"interp.evaluation.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module 'interp.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
