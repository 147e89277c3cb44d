"""Units of work: an arm on a block of instances. What a unit writes depends on nothing but the unit.

Its answers are decoded in one batch of its own, whoever computes it and whatever was computed before: so a run that was
killed, or shared out over processes, ends with the bytes of an unbroken one. Seconds stand in files of their own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from interp.benchmark.arms import Arm
from interp.benchmark.design import Design
from interp.errors import InputError
from interp.evaluation import Moved, answered_by, moved, respond, respond_edited
from interp.judges import Judge
from interp.locate import Convention, layer_distances
from interp.methods.base import Detoxified
from interp.models import HookedModel
from interp.multi import EditStore
from interp.records import Instance, Response
from interp.runs import Run, read_json, write_json
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


@dataclass
class Cost:
    """What a unit took. Stands in a file of its own: seconds differ from run to run, results do not."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    cut: int = 0
    """Texts that were cut to fit the model's context."""

    @contextmanager
    def stage(self, name: str, model: HookedModel) -> Iterator[None]:
        """Count the block's seconds, and what `model` cut in it."""
        started, cut = time.perf_counter(), model.truncated
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
        self.cut += model.truncated - cut


@dataclass(frozen=True)
class Bench:
    """What every unit works with."""

    run: Run
    benchmark: Benchmark
    vanilla: HookedModel
    judge: Judge | None
    """None where nothing is answered (layers)."""
    design: Design
    batch: int
    max_new_tokens: int
    seed: int
    others: tuple[Judge, ...] = ()
    """Judges that are only asked how far they agree with the one that decides."""
    delta_memory: int | None = None
    """Bytes of deltas held in memory; the others of a unit wait in its folder."""


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
    asked = [item for instance in unit.instances for item in items[instance.id]]
    cost = Cost()
    with cost.stage("answer", model):
        responses = respond(
            model,
            asked,
            name=unit.arm.name,
            judge=bench.judge,
            max_new_tokens=bench.max_new_tokens,
            batch_size=bench.batch,
        )
    plain = responses if unit.arm.plain else vanilla_responses(bench, unit)
    with cost.stage("move", model):
        found = moved(bench.vanilla, model, answered_by(asked, plain), suffix, prefix, batch_size=bench.batch)
    write(bench, unit, responses, cost, found)


def edit_and_answer(bench: Bench, unit: Unit, broken: Sequence[int] = ()) -> None:
    """Edit once for each instance of a block, ask all the edits together, write responses and what the edits are.

    Args:
        broken: the ids to ask, where the design asks only what broke vanilla.

    Raises:
        InputError: the method makes no edits, or as it does.
    """
    method = unit.arm.method
    assert method is not None
    cost = Cost()
    made: list[Detoxified] = []
    with EditStore(budget=bench.delta_memory, folder=bench.run.path) as edits:
        with cost.stage("edit", bench.vanilla):
            for instance in unit.instances:
                one = method.detoxify(bench.vanilla, instance)
                if one.edit is None:
                    raise InputError(f"{unit.arm.name}: expected an edit of each instance, got none of {instance.id}")
                edits.add(one.edit)
                made.append(replace(one, edit=None))
        items = bench.design.items(bench.benchmark, made[0].suffix, made[0].prefix, bench.seed)
        asked = [[item for owner in bench.design.asked_of(i, broken) for item in items[owner]] for i in unit.instances]
        notes = [
            EditNote(i.id, i.category_key, m.layer, 100 * edit.relative_norm(bench.vanilla))
            for i, m, edit in zip(unit.instances, made, edits, strict=True)
        ]
        with cost.stage("answer", bench.vanilla):
            found = respond_edited(
                bench.vanilla,
                edits,
                asked,
                name=unit.arm.name,
                edited_on=[i.id for i in unit.instances],
                judge=bench.judge,
                max_new_tokens=bench.max_new_tokens,
                batch_size=bench.batch,
            )
        plain, drift = vanilla_responses(bench, unit), []
        with cost.stage("move", bench.vanilla):
            for instance, one, edit, own in zip(unit.instances, made, edits, asked, strict=True):
                answered = answered_by(own, plain)
                if answered:
                    model = edit.beside(bench.vanilla)
                    drift += moved(
                        bench.vanilla,
                        model,
                        answered,
                        one.suffix,
                        one.prefix,
                        edited_on=instance.id,
                        batch_size=bench.batch,
                    )
    bench.run.save_all(f"{unit.file}.edits", notes)
    write(bench, unit, [r for own in found for r in own], cost, drift)


def locate(bench: Bench, unit: Unit, convention: Convention) -> None:
    """Write which layer each instance of a block locates."""
    cost = Cost()
    with cost.stage("locate", bench.vanilla):
        scores = layer_distances(bench.vanilla, unit.instances, convention, batch_size=min(bench.batch, 32))
    found = [Located(i.id, i.category_key, layer) for i, layer in zip(unit.instances, scores.located, strict=True)]
    finish(bench.run, unit, found, cost)


def vanilla_responses(bench: Bench, unit: Unit) -> list[Response]:
    """What vanilla answered in the unit of the same index, whose instances are the same; [] where nothing is asked of
    harmless things.

    Raises:
        InputError: that unit is not done: it is of the same share, and before this one.
    """
    if not (bench.design.facts or bench.design.benign):
        return []
    before = Unit(Arm("vanilla"), unit.index, unit.instances)
    if not before.done(bench.run):
        raise InputError(f"{unit.arm.name} block {unit.index} needs vanilla block {unit.index}, which is missing")
    return bench.run.load_all(before.file, Response)


def write(bench: Bench, unit: Unit, responses: Sequence[Response], cost: Cost, drift: Sequence[Moved]) -> None:
    """Write a unit of answers: how far harmless ones moved, what other judges say, and the answers last."""
    run = bench.run
    if bench.design.facts or bench.design.benign:
        run.save_all(f"{unit.file}.moved", drift)
    if bench.others:
        texts, prompts = [r.text for r in responses], [r.prompt for r in responses]
        for index, judge in enumerate(bench.others, start=2):
            run.save_all(f"{unit.file}.judge-{index}", judge.judge(texts, prompts))
    finish(run, unit, responses, cost)


def finish(run: Run, unit: Unit, results: Sequence[object], cost: Cost) -> None:
    """Write a unit's cost, then its results, in one step each. It is done when its results are there."""
    write_json(cost_file(run, unit), {"seconds": cost.seconds, "cut": cost.cut})
    run.save_all(unit.file, results)


def cost_of(run: Run, unit: Unit) -> Cost:
    """What a unit took. Raises InputError for a damaged file."""
    file = cost_file(run, unit)
    try:
        return Cost(**read_json(file))
    except TypeError as error:
        raise InputError(f"{file} is damaged; delete it and the unit's results, and run again") from error


def cost_file(run: Run, unit: Unit) -> Path:
    """Where a unit's cost stands."""
    return run.path / "costs" / slug(unit.arm.name) / f"{unit.index:04d}.json"


def slug(name: str) -> str:
    """A row's name as a folder: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "plus")).strip("-")
