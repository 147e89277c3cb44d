"""What a benchmark is going to cost, before it runs."""

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
        f"{len(engine.design.edited)} instances edited, {len(engine.design.asked)} asked, seed {engine.settings.seed}",
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
    """How many answers an arm gives, at most (Table 11 cannot know what breaks vanilla)."""
    suffix = arm.suffix or ("S" if arm.method is not None else "")
    items = engine.design.items(engine.benchmark, suffix, "", engine.settings.seed)
    each = sum(map(len, items.values()))
    if not (arm.edits and engine.design.shared):
        return each
    if engine.design.broken_only:
        each = min(each, POOL * len(CATEGORIES))
    return each * len(engine.design.edited)
