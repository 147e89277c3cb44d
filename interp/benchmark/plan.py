"""What a benchmark is going to cost, before it runs, and what it cost."""

from __future__ import annotations

from interp.benchmark.arms import Arm
from interp.benchmark.costs import arm_work, asking_of, disk, memory
from interp.benchmark.design import POOL
from interp.benchmark.engine import Engine
from interp.costs.telling import WHAT, space, stages
from interp.costs.work import total
from interp.records import CATEGORIES


def plan(engine: Engine) -> list[str]:
    """The plan of a run, one line each: rows, units, edits, answers, and what of it is already there."""
    lines = [
        f"plan of {engine.settings.artefact} in {engine.run.path}",
        f"{len(engine.design.asked)} instances, seed {engine.settings.seed}",
    ]
    for arm in engine.arms:
        every, lacking = engine.units(arm), len(engine.missing(arm))
        edits = len(engine.design.edited) if arm.edits else 0
        asked = 0 if engine.locating else answers(engine, arm)
        parts = [f"{len(every)} units", f"{edits} edits" if edits else "", f"{asked:,} answers" if asked else ""]
        state = "all done" if not lacking else f"{lacking} units to do"
        lines.append(f"  {arm.name}: {', '.join(p for p in parts if p)} ({state})")
    return [*lines, *costs_ahead(engine)]


def costs_ahead(engine: Engine) -> list[str]:
    """What is left to do in forwards and tokens, row by row; the peak of memory and the disk of the whole."""
    asking, left = asking_of(engine), {arm.name: (arm, engine.missing(arm)) for arm in engine.arms}
    parts = [arm_work(engine, asking, arm, units).named(name) for name, (arm, units) in left.items()]
    most = total(arm_work(engine, asking, arm, units, at_most=True) for arm, units in left.values())
    lines = ["left to do", *stages(parts, most)]
    lines += [] if engine.locating else space(memory(engine, asking), disk(engine, asking))
    return [*lines, *(f"- {line}" for line in WHAT)]


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
