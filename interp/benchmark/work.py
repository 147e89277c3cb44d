"""Units of work: an arm on a block of instances. What a unit writes depends on nothing but the unit.

Its answers are decoded in one batch of its own, whoever computes it and whatever was computed before: so a run that was
killed, or shared out over processes, ends with the bytes of an unbroken one. Seconds stand in files of their own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from interp.benchmark.arms import Arm
from interp.benchmark.design import Design
from interp.errors import InputError
from interp.evaluation import respond, respond_edited
from interp.judges import Judge
from interp.locate import Convention, layer_distances
from interp.methods.base import Detoxified
from interp.models import HookedModel
from interp.records import Instance
from interp.runs import Run, write_json
from interp.safeedit import Benchmark

SHARED = 9
"""An edit that is asked everything has so many times more to answer than one that is asked its own prompts."""


@dataclass(frozen=True)
class Unit:
    """One piece of work."""

    arm: Arm
    index: int
    """Of the block within the arm."""
    instances: tuple[Instance, ...]
    """Edited in this unit, or asked."""

    @property
    def file(self) -> str:
        """Where its results lie in the run folder, without ending."""
        return f"units/{slug(self.arm.name)}/{self.index:04d}"

    def done(self, run: Run) -> bool:
        """Whether its results are there."""
        return (run.path / f"{self.file}.jsonl").exists()


@dataclass(frozen=True)
class EditNote:
    """What an edit did to the weights."""

    instance_id: int
    category: str
    layer: int | None
    weight_change: float
    """Frobenius norm of the delta over that of the edited matrices, percent."""


@dataclass(frozen=True)
class Located:
    """The layer that one instance locates."""

    instance_id: int
    category: str
    layer: int


@dataclass(frozen=True)
class Bench:
    """What every unit works with."""

    run: Run
    benchmark: Benchmark
    vanilla: HookedModel
    judge: Judge
    design: Design
    batch: int
    max_new_tokens: int
    seed: int


def units(arm: Arm, design: Design, block: int) -> list[Unit]:
    """The units of an arm, in order."""
    instances = design.edited if arm.edits else design.asked
    size = max(1, block // SHARED) if arm.edits and design.shared else block
    starts = range(0, len(instances), size)
    return [Unit(arm, i, tuple(instances[start : start + size])) for i, start in enumerate(starts)]


def answer(bench: Bench, unit: Unit, model: HookedModel, made: Detoxified | None) -> None:
    """Ask one block of prompts of a whole model and write the responses.

    Args:
        model: the arm's model, open.
        made: what its method gave, for the prompts it wants; None for vanilla.
    """
    suffix, prefix = (made.suffix, made.prefix) if made is not None else (unit.arm.suffix, "")
    items = bench.design.items(bench.benchmark, suffix, prefix, bench.seed)
    started = time.perf_counter()
    asked = [item for instance in unit.instances for item in items[instance.id]]
    responses = respond(
        model,
        asked,
        name=unit.arm.name,
        judge=bench.judge,
        max_new_tokens=bench.max_new_tokens,
        batch_size=bench.batch,
    )
    write(bench.run, unit, responses, {"answer": time.perf_counter() - started})


def edit_and_answer(bench: Bench, unit: Unit, broken: Sequence[int] = ()) -> None:
    """Edit once for each instance of a block, ask all the edits together, write responses and what the edits are.

    Args:
        broken: the ids to ask, where the design asks only what broke vanilla.

    Raises:
        InputError: the method makes no edits, or as it does.
    """
    method = unit.arm.method
    assert method is not None
    started = time.perf_counter()
    made = [method.detoxify(bench.vanilla, instance) for instance in unit.instances]
    edited = time.perf_counter()
    edits = [m.edit for m in made if m.edit is not None]
    if len(edits) < len(made):
        raise InputError(f"{unit.arm.name}: expected an edit of each instance, got {len(edits)} of {len(made)}")
    items = bench.design.items(bench.benchmark, made[0].suffix, made[0].prefix, bench.seed)
    if not bench.design.shared:
        asked = [items[instance.id] for instance in unit.instances]
    else:
        chosen = broken if bench.design.broken_only else list(items)
        asked = [[item for owner in chosen for item in items[owner]] for _ in made]
    ids = [i.id for i in unit.instances]
    notes = [
        EditNote(i.id, i.category_key, m.layer, 100 * edit.relative_norm(bench.vanilla))
        for i, m, edit in zip(unit.instances, made, edits, strict=True)
    ]
    found = respond_edited(
        bench.vanilla,
        edits,
        asked,
        name=unit.arm.name,
        edited_on=ids,
        judge=bench.judge,
        max_new_tokens=bench.max_new_tokens,
        batch_size=bench.batch,
    )
    bench.run.save_all(f"{unit.file}.edits", notes)
    took = {"edit": edited - started, "answer": time.perf_counter() - edited}
    write(bench.run, unit, [r for own in found for r in own], took)


def locate(bench: Bench, unit: Unit, convention: Convention) -> None:
    """Write which layer each instance of a block locates."""
    started = time.perf_counter()
    scores = layer_distances(bench.vanilla, unit.instances, convention, batch_size=min(bench.batch, 32))
    found = [Located(i.id, i.category_key, layer) for i, layer in zip(unit.instances, scores.located, strict=True)]
    write(bench.run, unit, found, {"locate": time.perf_counter() - started})


def write(run: Run, unit: Unit, results: Sequence[object], seconds: dict[str, float]) -> None:
    """Write a unit: its seconds, then its results, in one step each."""
    write_json(run.path / f"timings/{slug(unit.arm.name)}/{unit.index:04d}.json", seconds)
    run.save_all(unit.file, results)


def opened(bench: Bench, made: Detoxified | None) -> AbstractContextManager[HookedModel]:
    """The model to ask: vanilla, or what a method made of it."""
    return nullcontext(bench.vanilla) if made is None else made.applied(bench.vanilla)


def slug(name: str) -> str:
    """A row's name as a folder: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "plus")).strip("-")
