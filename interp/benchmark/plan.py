"""What a benchmark is going to cost, before it runs, and what it cost."""

from __future__ import annotations

from interp.benchmark.arms import Arm
from interp.benchmark.design import POOL
from interp.benchmark.engine import Engine
from interp.records import CATEGORIES


def plan(engine: Engine) -> list[str]:
    """The plan of a run, one line each: rows, units, edits, answers, and what of it is already there."""
    limit = engine.settings.max_new_tokens
    lines = [
        f"plan of {engine.settings.artefact} in {engine.run.path}",
        f"{len(engine.design.asked)} instances, seed {engine.settings.seed}",
    ]
    total = 0
    for arm in engine.arms:
        every, lacking = engine.units(arm), len(engine.missing(arm))
        edits = len(engine.design.edited) if arm.edits else 0
        asked = 0 if engine.locating else answers(engine, arm)
        total += asked
        parts = [f"{len(every)} units", f"{edits} edits" if edits else "", f"{asked:,} answers" if asked else ""]
        state = "all done" if not lacking else f"{lacking} units to do"
        lines.append(f"  {arm.name}: {', '.join(p for p in parts if p)} ({state})")
    if total:
        lines.append(
            f"at most {total:,} answers of {limit} tokens: {total:,} prompts read and {total * (limit - 1):,} further "
            "tokens, one forward of one row each; rows share forwards, and answers that end early need fewer"
        )
    return lines


def answers(engine: Engine, arm: Arm) -> int:
    """How many answers an arm gives; in Table 11 at most, until it is known what breaks vanilla."""
    items = engine.design.items(engine.benchmark, arm.suffix, "", engine.settings.seed)
    if not arm.edits:
        return sum(map(len, items.values()))
    if engine.design.broken_only and engine.missing(engine.arms[0]):
        return min(len(items), POOL * len(CATEGORIES)) * len(engine.design.edited)
    broken = engine.broken() if engine.design.broken_only else ()
    return sum(len(items[i]) for edited in engine.design.edited for i in engine.design.asked_of(edited, broken))


def costs(engine: Engine) -> str:
    """One line: the seconds of each row by stage, over all runs and processes that took part."""
    rows = []
    for arm in engine.arms:
        spoken = ", ".join(f"{stage} {took:.0f}" for stage, took in engine.cost(arm).seconds.items())
        rows.append(f"{arm.name} ({spoken})")
    return f"seconds      {'; '.join(rows)}; training apart"
