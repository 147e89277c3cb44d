"""Layer scores, activations and swap margins: what forwards say of a model's inside, computed once and kept.

Verdicts, intervals and shares are made anew from them each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from interp.locate import Convention, layer_distances
from interp.mechanism.activations import PromptActivations, record
from interp.mechanism.localise import locate_behaviour
from interp.mechanism.shares import MarginTokens, SwapMargins, swap_margins
from interp.models import HookedModel
from interp.pipeline.memory import identity, remembered, remembered_file
from interp.pipeline.parts import keep_warnings, load_activations, save_activations
from interp.pipeline.progress import Report
from interp.pipeline.settings import Settings
from interp.pipeline.study import CONVENTIONS, Study, digest
from interp.records import Instance, LayerScores
from interp.runs import Run

STAGE = "mechanism"
"""The stage of a row that its seconds count in."""
Beside = tuple[HookedModel, Sequence[str], AbstractSet[str] | None]
"""A model, the prompts it is asked, and the parameters that an edit has changed (None: not an edit)."""


def locate(
    settings: Settings,
    model: HookedModel,
    instances: tuple[Instance, ...],
    seconds: dict[str, float],
    progress: Report | None = None,
    convention: str | None = None,
) -> LayerScores:
    """Layer distances under a convention, by default the one in use; `seconds` grows by what they take, or took."""
    how: Convention = CONVENTIONS[convention or settings.convention]

    def measure() -> list[LayerScores]:
        return [layer_distances(model, instances, how, batch_size=settings.batch, progress=progress)]

    key = [identity(model), asdict(how), _asked(instances), settings.batch]
    [found] = remembered("layers", key, LayerScores, model, measure, seconds, STAGE, 1)
    return replace(found, model=model.name)


def vanilla_scores(
    settings: Settings, vanilla: HookedModel, instances: tuple[Instance, ...], run: Run, progress: Report | None = None
) -> tuple[LayerScores, ...]:
    """Vanilla's layer distances, the convention in use first: measured now, or read from the run folder."""
    names = [settings.convention, *(name for name in CONVENTIONS if name != settings.convention)]
    for name in names:
        if not run.has(f"layer-scores-{name}"):
            scores = locate(settings, vanilla, instances, {}, progress if name == settings.convention else None, name)
            keep_warnings(run, "vanilla", vanilla)
            run.save(f"layer-scores-{name}", scores)
    return tuple(run.load(f"layer-scores-{name}", LayerScores) for name in names)


def locate_causal(
    settings: Settings, vanilla: HookedModel, instances: tuple[Instance, ...], tokens: MarginTokens, run: Run
) -> LayerScores:
    """Where vanilla's behaviour sits by the default locator: measured now, or read from the run folder."""

    def measure() -> list[LayerScores]:
        return [locate_behaviour(vanilla, instances, tokens, batch_size=settings.batch)]

    if not run.has("causal-scores"):
        key = [identity(vanilla), "behaviour", asdict(tokens), _asked(instances), settings.batch]
        [found] = remembered("layers", key, LayerScores, vanilla, measure, {}, STAGE, 1)
        run.save("causal-scores", replace(found, model=vanilla.name))
    return run.load("causal-scores", LayerScores)


def recorded(
    model: HookedModel, queries: Sequence[str], layer: int, answers: Sequence[str], seconds: dict[str, float]
) -> PromptActivations:
    """`record` of a whole model on some prompts and its own answers to them."""

    def write(file: Path) -> None:
        save_activations(file, record(model, queries, layer, responses=answers))

    key = [identity(model), list(queries), layer, list(answers)]
    return load_activations(remembered_file("activations", key, model, write, seconds, STAGE))


def swaps_of(
    study: Study,
    models: Iterable[Beside],
    what: Any,
    seconds: dict[str, float],
    *,
    layers: Sequence[int],
    suffix: str = "",
) -> dict[int, list[SwapMargins]]:
    """Swap margins of some models against vanilla, by layer, each a list in the order of the models.

    Args:
        models: looked at where nothing is remembered of them.
        what: identity of the models and of what they are asked, for the cache.
        seconds: of the row.
        layers: 0-based.
        suffix: the suffix S, for both models.

    Raises:
        InputError: as `swap_margins`, or a damaged file in the cache.
    """
    vanilla, tokens = study.vanilla, study.margin_tokens

    def measure() -> Iterator[SwapMargins]:
        for model, queries, changed in models:
            for layer in layers:
                algebra = changed is not None and changed <= {vanilla.value_name(layer)}
                yield swap_margins(vanilla, model, queries, layer, tokens, suffix=suffix, identity=algebra)

    key = [identity(vanilla), what, study.queries, suffix, list(layers), asdict(tokens)]
    found = remembered("swaps", key, SwapMargins, vanilla, lambda: [*measure()], seconds, STAGE)
    return {layer: found[i :: len(layers)] for i, layer in enumerate(layers)}


def _asked(instances: Sequence[Instance]) -> str:
    return digest([i.__dict__ for i in instances])
