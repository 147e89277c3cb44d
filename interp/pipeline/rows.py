"""One row of the comparison: a model, or one edit per instance, measured against the study.

Parts are written as they come (`parts/<row>/...`), the responses of a part last and in one step: a part whose responses
are there is complete and is read back, never computed twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from interp.evaluation import defense_scores, general
from interp.mechanism.activations import PromptActivations, inputs_untouched
from interp.mechanism.algebra import shares_at
from interp.mechanism.reading import conclude
from interp.mechanism.region import RegionMeasurement
from interp.mechanism.shares import SwapMargins, check_comparable
from interp.mechanism.shift import activation_shift
from interp.mechanism.source import shift_source
from interp.mechanism.weights import (
    change_by_layer,
    changed_parameters,
)
from interp.models import HookedModel
from interp.pipeline.answers import answers_of
from interp.pipeline.looking import locate, recorded, swaps_of
from interp.pipeline.memory import identity
from interp.pipeline.moving import answer_kl_of, keep_moved
from interp.pipeline.parts import (
    add,
    keep,
    keep_warnings,
    kept,
    recall_warnings,
)
from interp.pipeline.study import Study, timed
from interp.records import ActivationShift, ComparisonRow, Instance, Response, ShiftSource, SwapShares


@dataclass(frozen=True)
class Measured:
    """A row and what is drawn beside it."""

    row: ComparisonRow
    source: ShiftSource


@dataclass(frozen=True)
class Inside:
    """What was measured inside a model."""

    located: dict[int, int]
    region: RegionMeasurement
    by_layer: tuple[float, ...]
    """Relative change of each block's parameters, percent."""
    shift: ActivationShift | None = None
    swap: SwapShares | None = None
    """At the toxic layer."""
    causal: SwapShares | None = None
    """At the layer that was located independently of any edit."""
    causal_with_suffix: SwapShares | None = None
    """The same with S on both sides, for a method that carries a suffix."""


# ------------------------------------------------------------------------------------------------- rows
def vanilla_row(study: Study, seconds: dict[str, float]) -> ComparisonRow:
    """The reference row: vanilla against itself, so that every number has its base beside it."""
    region = study.region.measure("vanilla", [study.vanilla.value_vectors(study.layer)])
    inside = Inside(study.scores[0].counts, region, (0.0,) * study.vanilla.n_layers)
    responses = study.run.load_all("parts/vanilla", Response)
    keep_moved(study, "vanilla", [(study.vanilla, study.items, None)], identity(study.vanilla), seconds)
    return row_of(study, "vanilla", "vanilla", study.settings.model, inside, responses, seconds)


def checkpoint_row(
    study: Study, name: str, method: str, source: str, model: HookedModel, seconds: dict[str, float]
) -> Measured:
    """Measure a whole model: trained here, or made elsewhere.

    Raises:
        InputError: it does not have vanilla's shape or vocabulary.
    """
    check_comparable(study.vanilla, model, name, study.queries)
    recall_warnings(study.run, name, model)
    responses = kept(study.run, f"parts/{name}", seconds)
    if not responses:
        took: dict[str, float] = {}
        with study.stages.stage(f"{name}: answers") as report:
            responses = answers_of(
                study.settings, model, study.items, study.judge, name=name, took=took, progress=report
            )
        keep_warnings(study.run, name, model)
        keep(study.run, f"parts/{name}", responses, took)
        add(seconds, took)
    what = identity(model)
    keep_moved(study, name, [(model, study.items, None)], what, seconds)
    with study.stages.stage(f"{name}: inside") as report:
        located = locate(study.settings, model, study.instances, seconds, report).counts
        margins = swaps_of(study, [(model, study.queries, None)], what, seconds, layers=study.share_layers)
        acts = recorded(model, study.queries, study.layer, own_answers(responses, study.instances), seconds)
        with timed(seconds, "mechanism"):
            changed = set(changed_parameters(study.vanilla, model))
            inside = Inside(
                located,
                study.region.measure(name, [model.value_vectors(study.layer)]),
                change_by_layer(study.vanilla, model),
                shift_of(study, name, acts, changed),
                *shares_of(study, name, margins, [changed]),
            )
    keep_warnings(study.run, "vanilla", study.vanilla)
    warnings = tuple(f"{name}: {line}" for line in model.warnings)
    row = row_of(study, name, method, source, inside, responses, seconds, warnings)
    return Measured(row, source_of(study, name, acts))


# ------------------------------------------------------------------------------------------------- measuring
def shift_of(study: Study, name: str, acts: PromptActivations, changed: set[str]) -> ActivationShift:
    """The activation shift, marked as an identity where the changed parameters cannot reach the region's input."""
    identity = inputs_untouched(study.vanilla, changed, study.layer)
    return activation_shift(study.base, acts, model=name, identity=identity, seed=study.settings.seed)


def shares_of(
    study: Study,
    name: str,
    margins: Mapping[int, Sequence[SwapMargins]],
    changed: Sequence[Collection[str]],
    over: str = "models",
) -> tuple[SwapShares, SwapShares]:
    """The causal shares at the toxic and at the causal layer, with what is algebra marked.

    Args:
        study: for vanilla, the layers and the seed.
        name: the row.
        margins: by layer, one of each model or edit.
        changed: parameters that each model or edit has changed.
        over: what the models or edits are called, in the plural.
    """
    options = {"model": name, "seed": study.settings.seed, "over": over}
    found = {layer: shares_at(study.vanilla, at, changed, layer=layer, **options) for layer, at in margins.items()}
    return found[study.layer], found[study.causal_layer]


def own_answers(responses: Iterable[Response], instances: Iterable[Instance]) -> list[str]:
    """What a model answered to each adversarial prompt, without the suffix."""
    texts = {r.instance_id: r.text for r in responses if r.kind == "DS" and not r.suffix}
    return [texts[i.id] for i in instances]


# ------------------------------------------------------------------------------------------------- small parts
def source_of(study: Study, name: str, acts: PromptActivations) -> ShiftSource:
    """Where a shift comes from, prompt by prompt (Fig. 8)."""
    return shift_source(study.base, acts, model=name, instance_ids=[i.id for i in study.instances])


def row_of(
    study: Study,
    name: str,
    method: str,
    source: str,
    inside: Inside,
    responses: list[Response],
    seconds: dict[str, float],
    warnings: tuple[str, ...] = (),
) -> ComparisonRow:
    """The record of a row: what was measured inside it, and its answers scored."""
    states = (False, True) if study.suffix else (False,)
    seed = study.settings.seed
    toxicity = inside.region.toxicity
    return ComparisonRow(
        name=name,
        method=method,
        source=source,
        located=inside.located,
        region=toxicity,
        shift=inside.shift,
        weight_change=inside.region.weight_change,
        weight_change_by_layer=inside.by_layer,
        defense=tuple(defense_scores(responses, s, judge=study.judge.name, seed=seed) for s in states),
        general=tuple(
            general(responses, study.benchmark, s, seed=seed, answer_kl=answer_kl_of(study, name, s)) for s in states
        ),
        conclusion=conclude(
            toxicity,
            inside.shift,
            inside.swap,
            inside.causal,
            inside.causal_with_suffix,
            located=study.causal_how,
            reference=name == "vanilla",
        ),
        seconds=dict(seconds),
        swap=inside.swap,
        causal=inside.causal,
        warnings=warnings,
        causal_with_suffix=inside.causal_with_suffix,
    )
