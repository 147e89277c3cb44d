"""Judged answers of a model or of its edits, from the cache where the same question was answered before.

Answers are greedy, so that nothing but what `memory` names decides them. Verdicts are not kept: judges are asked anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from interp.edits import WeightEdit
from interp.evaluation import Item, judged, respond, respond_edited
from interp.judges import Judge
from interp.models import HookedModel
from interp.pipeline.memory import identity, identity_of_edit, remembered
from interp.pipeline.progress import Report
from interp.pipeline.settings import Settings
from interp.pipeline.study import timed
from interp.records import Response

Answers = list[list[Response]]


def answers_of(
    settings: Settings,
    model: HookedModel,
    items: Sequence[Item],
    judge: Judge,
    *,
    name: str,
    took: dict[str, float],
    progress: Report | None = None,
) -> list[Response]:
    """One judged response per item, in order; `took["evaluate"]` grows by the seconds, remembered ones included.

    Raises:
        InputError: as `respond`, or a damaged file in the cache.
    """

    def answer() -> Answers:
        options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch}
        return [respond(model, items, name=name, progress=progress, **options)]

    [found] = _remembered(settings, model, [], [items], answer, took)
    with timed(took, "evaluate"):
        return judged([replace(r, model=name) for r in found], judge)


def answers_of_edits(
    settings: Settings,
    model: HookedModel,
    edits: Sequence[WeightEdit],
    items: Sequence[Sequence[Item]],
    judge: Judge,
    *,
    name: str,
    edited_on: Sequence[int],
    took: dict[str, float],
    progress: Report | None = None,
) -> Answers:
    """`answers_of` for several edits of one model, each asked its own items; all are decoded together.

    Raises:
        InputError: as `respond_edited`, or a damaged file in the cache.
    """

    def answer() -> Answers:
        options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch}
        return respond_edited(model, edits, items, name=name, edited_on=edited_on, progress=progress, **options)

    found = _remembered(settings, model, edits, items, answer, took)
    with timed(took, "evaluate"):
        asked = [replace(r, model=name, edited_on=on) for on, own in zip(edited_on, found, strict=True) for r in own]
        verdicts = iter(judged(asked, judge))  # judged in one batch
        return [[next(verdicts) for _ in own] for own in found]


def _remembered(
    settings: Settings,
    model: HookedModel,
    edits: Sequence[WeightEdit],
    items: Sequence[Sequence[Item]],
    answer: Callable[[], Answers],
    took: dict[str, float],
) -> Answers:
    """What `answer` says, or said before."""
    key = [
        identity(model),
        [identity_of_edit(edit) for edit in edits],
        [[(asdict(i), model.format_prompt(i.query, i.suffix, i.prefix)) for i in own] for own in items],
        settings.max_new_tokens,
        settings.batch,
        settings.delta_memory,
    ]
    found = iter(remembered("answers", key, Response, model, lambda: [r for own in answer() for r in own], took))
    return [[next(found) for _ in own] for own in items]
