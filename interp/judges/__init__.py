"""Judges: was a response a refusal, unsafe, or something else? Trained on the benchmark, or any HF classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.judges.base import EMPTY, Judge, JudgeReport
from interp.judges.degeneration import is_degenerate
from interp.judges.demo import TextJudge
from interp.judges.refusal import is_refusal
from interp.safeedit import Benchmark

if TYPE_CHECKING:
    from interp.judges.classifier import ClassifierJudge

__all__ = [
    "EMPTY",
    "ClassifierJudge",
    "Judge",
    "JudgeReport",
    "TextJudge",
    "is_degenerate",
    "is_refusal",
    "load",
]


def load(name: str, benchmark: Benchmark, *, safe_label: int | str | None = None, device: Any = "cpu") -> Judge:
    """A judge by name: "demo" (learned from the benchmark's train split), "safeedit", or a classifier's folder or id.

    Args:
        safe_label: index or name of a classifier's label that means safe, where its config does not tell.

    Raises:
        InputError: as `TextJudge.train` and `ClassifierJudge.from_pretrained`; a safe label for "demo", which has none.
    """
    if name == "demo":
        if safe_label is not None:
            raise InputError(
                f"a safe label ({safe_label!r}) is for a classifier; the judge 'demo' learns its labels from the data"
            )
        return TextJudge.train(benchmark)
    from interp.judges.classifier import ClassifierJudge

    return ClassifierJudge.from_pretrained(name, safe_label=safe_label, device=device)


def __getattr__(name: str) -> Any:
    if name == "ClassifierJudge":  # torch is imported only where such a judge is used
        from interp.judges.classifier import ClassifierJudge

        return ClassifierJudge
    raise AttributeError(f"module 'interp.judges' has no attribute {name!r}")
