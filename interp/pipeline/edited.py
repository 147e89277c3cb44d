"""The row of a method that edits once per instance: all edits, then all answers, then a look inside.

Each step takes what the one before left on disk: the edits of a large model need not be in memory together, and a
killed run goes on with the first instance that lacks something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.evaluation import by_owner
from interp.mechanism.activations import PromptActivations, join, record
from interp.mechanism.algebra import shares_at
from interp.mechanism.shares import SwapMargins
from interp.mechanism.weights import edited_value_vectors, edits_change_by_layer
from interp.methods.base import Method
from interp.methods.dinm import Dinm
from interp.models import HookedModel
from interp.multi import EditStore
from interp.pipeline.answers import answers_of_edits
from interp.pipeline.looking import Beside, swaps_of
from interp.pipeline.memory import identity, identity_of_edit, remembered_file
from interp.pipeline.moving import keep_moved
from interp.pipeline.parts import (
    add_kept,
    keep,
    keep_seconds,
    keep_warnings,
    kept,
    load_activations,
    save_activations,
)
from interp.pipeline.rows import Inside, Measured, own_answers, row_of, shares_of, shift_of, source_of
from interp.pipeline.study import Study, timed
from interp.records import Instance, Response, SwapShares
from interp.runs import copy

TOGETHER = 32
"""Edits decoded in one batch: more gain little, and each costs the memory of its matrix."""
KEPT = 1 << 20
"""Bytes of a float32 W_V up to which edits are kept in the cache too: those of a large model would fill the disk."""


def edits_row(study: Study, name: str, method: Method, seconds: dict[str, float]) -> Measured:
    """One edit per instance, each asked its own prompts and its share of the general questions."""
    make_edits(study, name, method, seconds)
    responses = answer(study, name, seconds)
    items, every = by_owner(study.items), edits(study, name, study.instances)
    models = ((e.beside(study.vanilla), items[i.id], i.id) for i, e in zip(study.instances, every, strict=True))
    what = [
        (i.id, identity_of_edit(e)) for i, e in zip(study.instances, edits(study, name, study.instances), strict=True)
    ]
    keep_moved(study, name, models, what, seconds)
    acts, margins, layers, changed = look_inside(study, name, responses, what, seconds)
    with_suffix = shares_with_suffix(study, name, method, changed, what, seconds)
    with timed(seconds, "mechanism"):

        def deltas() -> Iterator:
            return (edit.deltas for edit in edits(study, name, study.instances))

        inside = Inside(
            dict(layers),
            study.region.measure(name, edited_value_vectors(study.vanilla, deltas(), study.layer)),
            edits_change_by_layer(study.vanilla, deltas()),
            shift_of(study, name, acts, set().union(*changed)),
            *shares_of(study, name, margins, changed, over="edits"),
            with_suffix,
        )
    elsewhere = len(study.instances) - layers[study.layer]
    warnings = (f"{name}: {elsewhere} edits are at another layer than the region's ({study.layer})",)
    source = f"{len(study.instances)} edits, one per instance"
    row = row_of(study, name, method.name, source, inside, responses, seconds, warnings if elsewhere else ())
    return Measured(row, source_of(study, name, acts))


def make_edits(study: Study, name: str, method: Method, seconds: dict[str, float]) -> None:
    """Edit once for each instance and write the edit, where it is not there yet."""
    with study.stages.stage(f"{name}: edits") as report:
        base = identity(study.vanilla)
        for done, instance in enumerate(study.instances, start=1):
            file = edit_file(study, name, instance)
            if not file.exists():
                took: dict[str, float] = {}
                write = make_edit(study.vanilla, base, method, instance, took)
                keep_warnings(study.run, "vanilla", study.vanilla)
                keep_seconds(study.run, _edit(name, instance), took)
                write(file)
            add_kept(study.run, _edit(name, instance), seconds)
            report(done, len(study.instances))


def make_edit(
    vanilla: HookedModel, base: Any, method: Method, instance: Instance, took: dict[str, float]
) -> Callable[[Path], object]:
    """Edit for one instance, or take a small edit from the cache; what comes back writes it to a path.

    Args:
        vanilla: the model.
        base: its identity.
        method: edits it.
        instance: what it is edited on.
        took: `took["edit"]` grows by the seconds it takes, or took then.
    """

    def make() -> WeightEdit:
        edit = method.detoxify(vanilla, instance).edit
        if edit is None:
            raise InputError(f"expected an edit from {method.name}, got none")
        return edit

    how: Any = method
    if 4 * vanilla.d_mlp * vanilla.d_model > KEPT or type(how) is not Dinm:  # of others no key says all
        with timed(took, "edit"):
            return make().save
    key = [base, method.name, asdict(how), asdict(instance)]
    kept_edit = remembered_file("edits", key, vanilla, lambda file: make().save(file), took, "edit")
    WeightEdit.load(kept_edit)  # a damaged file is told by its own name, not by that of a copy
    return lambda file: copy(kept_edit, file)


def answer(study: Study, name: str, seconds: dict[str, float]) -> list[Response]:
    """What the edited models answer, each to its own items, in the order of the instances."""
    items = by_owner(study.items)
    missing = [i for i in study.instances if not kept(study.run, f"parts/{name}/{i.id}", {})]
    with study.stages.stage(f"{name}: answers") as report:
        for start in range(0, len(missing), TOGETHER):
            block = missing[start : start + TOGETHER]
            took: dict[str, float] = {}

            def answered(done: int, total: int, before: int = start) -> None:
                share = done / total * min(TOGETHER, len(missing) - before)
                report(round(before + share), len(missing))

            with EditStore(budget=study.settings.delta_bytes) as store:
                for instance, edit in zip(block, edits(study, name, block), strict=True):
                    store.add(edit, edit_file(study, name, instance))
                found = answers_of_edits(
                    study.settings,
                    study.vanilla,
                    store,
                    [items[i.id] for i in block],
                    study.judge,
                    name=name,
                    edited_on=[i.id for i in block],
                    took=took,
                    progress=answered,
                )
            keep_warnings(study.run, "vanilla", study.vanilla)
            for instance, responses in zip(block, found, strict=True):
                keep(study.run, f"parts/{name}/{instance.id}", responses, {k: s / len(block) for k, s in took.items()})
    return [r for i in study.instances for r in kept(study.run, f"parts/{name}/{i.id}", seconds)]


def look_inside(
    study: Study, name: str, responses: Sequence[Response], what: Any, seconds: dict[str, float]
) -> tuple[PromptActivations, dict[int, list[SwapMargins]], Counter[int], list[set[str]]]:
    """Each edited model on its own prompt: activations, swap margins by layer, layers edited, parameters changed.

    The margins and the parameters are of each edit, in the order of the instances. `what` is the identity of the edits.
    """
    by_edit: dict[int, list[Response]] = {}
    for response in responses:
        by_edit.setdefault(response.edited_on if response.edited_on is not None else -1, []).append(response)
    pieces: list[PromptActivations] = []
    layers: Counter[int] = Counter()
    changed: list[set[str]] = []
    total = 2 * len(study.instances)
    with study.stages.stage(f"{name}: inside") as report:
        with timed(seconds, "mechanism"):
            every = zip(study.instances, edits(study, name, study.instances), strict=True)
            for index, (instance, edit) in enumerate(every):
                layers[_layer(edit, name)] += 1
                changed.append(set(edit.deltas))
                file = study.run.path / f"parts/{name}/{instance.id}.activations.safetensors"
                if not file.exists():
                    own = own_answers(by_edit[instance.id], [instance])
                    with edit.applied(study.vanilla) as model:
                        query = [instance.adversarial_prompt]
                        save_activations(file, record(model, query, study.layer, index=[index], responses=own))
                pieces.append(load_activations(file))
                report(index + 1, total)
        models = _beside(study, name, lambda done: report(total // 2 + done, total))
        margins = swaps_of(study, models, what, seconds, layers=study.share_layers)
    return join(pieces), margins, layers, changed


def shares_with_suffix(
    study: Study, name: str, method: Method, changed: Sequence[set[str]], what: Any, seconds: dict[str, float]
) -> SwapShares | None:
    """The shares at the causal layer with the method's S after the prompts of both models: what an edit adds to S.

    None for a method without a suffix.
    """
    suffix, layer = getattr(method, "suffix", ""), study.causal_layer
    if not suffix:
        return None
    with study.stages.stage(f"{name}: shares with S") as report:
        models = _beside(study, name, lambda done: report(done, len(study.instances)))
        found = swaps_of(study, models, what, seconds, layers=[layer], suffix=suffix)[layer]
    options = {"model": name, "seed": study.settings.seed, "over": "edits"}
    with timed(seconds, "mechanism"):
        return shares_at(study.vanilla, found, changed, layer=layer, suffix=True, **options)


def _beside(study: Study, name: str, done: Callable[[int], None]) -> Iterator[Beside]:
    """Each edited model beside vanilla, with its own prompt and what its edit has changed."""
    for index, (instance, edit) in enumerate(
        zip(study.instances, edits(study, name, study.instances), strict=True), start=1
    ):
        yield edit.beside(study.vanilla), [instance.adversarial_prompt], set(edit.deltas)
        done(index)


def edits(study: Study, name: str, instances: Sequence[Instance]) -> Iterator[WeightEdit]:
    """The edits of these instances, read one by one: the matrices of a large model do not fit in memory together."""
    for instance in instances:
        yield WeightEdit.load(edit_file(study, name, instance))


def edit_file(study: Study, name: str, instance: Instance) -> Path:
    """Where the edit of an instance lies."""
    return study.run.path / f"{_edit(name, instance)}.safetensors"


def drop_edits(study: Study, name: str) -> None:
    """Delete the edits of a finished row."""
    for instance in study.instances:
        edit_file(study, name, instance).unlink(missing_ok=True)


def _edit(name: str, instance: Instance) -> str:
    return f"parts/{name}/{instance.id}.edit"


def _layer(edit: WeightEdit, name: str) -> int:
    if edit.provenance.layer is None:
        raise InputError(f"expected an edit of one layer from {name}, got one of several")
    return edit.provenance.layer
