"""The plan of a run in words: one line a stage, then the sums, what they assume, and what is already there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interp.costs.space import spoken
from interp.costs.work import Work, total

WHAT = (
    "a forward is one sequence once through all blocks (through some: their share); rows of a batch count each; tokens "
    "are its positions, padding included; a backward pass costs about two forwards more",
    "answers are expected to be as long as the data's own; an edit is assumed at the last layer, the behaviour in the "
    "middle one",
    "memory: resident, of this process on a CPU, at its peak; disk: at the end of the run (edits over --delta-memory "
    "wait there for a while)",
)


def stages(parts: Sequence[Work], at_most: Work) -> list[str]:
    """Forwards and tokens of each stage, their sums, and the most they can be."""
    width = max(len(w.stage) for w in parts)
    lines = [f"  {w.stage:<{width}}  {numbers(w)}" for w in parts]
    return [*lines, f"  {'in all':<{width}}  {numbers(total(parts))}", f"  {'at most':<{width}}  {numbers(at_most)}"]


def numbers(work: Work) -> str:
    """Forwards and tokens of a stage."""
    backward = f", {work.learning:,.0f} of them with a backward pass" if work.learning >= 0.5 else ""
    return f"{work.forwards:>10,.0f} forwards {work.tokens:>12,.0f} tokens{backward}"


def space(memory: Mapping[str, int], disk: Mapping[str, int]) -> list[str]:
    """The peak of memory, and bytes on disk."""
    peak = max(memory, key=lambda name: memory[name])
    places = ", ".join(f"{name} {spoken(size)}" for name, size in disk.items())
    return [f"memory    {spoken(memory[peak])} at the peak ({peak})", f"disk      {places}"]
