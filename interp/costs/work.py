"""Forwards and tokens as a sum of parts, and how many a batch of sequences is.

A *forward* is one sequence once through all blocks of a model. A pass through some of the blocks counts by their share
(a block counts where its attention runs), and rows of a batch count each. *Tokens* are the positions of these
sequences, padding included, by the same shares. `interp.costs.counting` counts the very same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from interp.decode import PREFILL_TOKENS


@dataclass(frozen=True)
class Work:
    """Forwards and tokens of one stage, or of several."""

    forwards: float = 0.0
    tokens: float = 0.0
    learning: float = 0.0
    """Those of the tokens that a backward pass follows, which costs about two forwards more."""
    stage: str = ""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.forwards + other.forwards, self.tokens + other.tokens, self.learning + other.learning, self.stage
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.forwards * times, self.tokens * times, self.learning * times, self.stage)

    __rmul__ = __mul__

    def named(self, stage: str) -> Work:
        """The same under a name."""
        return replace(self, stage=stage)


NOTHING = Work()


def total(parts: Iterable[Work]) -> Work:
    """The sum, without a name."""
    return sum((replace(part, stage="") for part in parts), NOTHING)


def passed(lengths: Sequence[int], *, share: float = 1.0, batch: int = 1, learning: bool = False) -> Work:
    """Sequences of these lengths through a share of the blocks, sorted by length, each batch padded to its longest."""
    order = sorted(lengths)
    chunks = [order[start : start + batch] for start in range(0, len(order), batch)]
    tokens = share * sum(len(chunk) * chunk[-1] for chunk in chunks)
    return Work(share * len(order), tokens, tokens if learning else 0.0)


def answered(prompts: Sequence[int], answers: Sequence[int], slots: int) -> Work:
    """Prompts read, an answer's first token with its prompt, and every further token a forward of its own.

    Args:
        prompts: lengths of the different prompts in tokens.
        answers: tokens of each answer, what ends it included; a prompt can have several, by edits of one model.
        slots: rows decoded at a time.
    """
    steps = sum(answers) - len(answers)
    together = max(1, min(slots, PREFILL_TOKENS // max(prompts)))
    return passed(prompts, batch=together) + Work(steps, steps)
