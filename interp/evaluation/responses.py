"""Put the items to a model, greedily and in batches, and have the answers judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from interp.edits import WeightEdit
from interp.evaluation.items import Item
from interp.judges import Judge
from interp.models import HookedModel
from interp.multi import generate_edited
from interp.records import Response


@runtime_checkable
class Answering(Protocol):
    """What is needed of a model (a `HookedModel` has it): formatting a query, and answering prompts greedily."""

    name: str

    def format_prompt(self, query: str, suffix: str = "", prefix: str = "") -> str:
        """The prompt for a query, between the system prompts where they are given."""
        ...

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 64,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[Any]:
        """One `Generation` (text, n_tokens, ended) per prompt, in order."""
        ...


def respond(
    model: Answering,
    items: Sequence[Item],
    *,
    name: str | None = None,
    edited_on: int | None = None,
    judge: Judge | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """One response per item, in order; all kinds and suffix states share batches, equal prompts are answered once.

    Args:
        name: the row of the comparison the responses belong to; the model's own name by default.
        edited_on: the id of the instance the model was edited on, where it is an edit.
        judge: judges the responses at once; without one they carry no verdict (see `judged`).
        progress: called with (done, total) distinct prompts after each batch.

    Raises:
        InputError: as `HookedModel.generate`.
    """
    prompts = [model.format_prompt(item.query, item.suffix, item.prefix) for item in items]
    distinct = list(dict.fromkeys(prompts))
    if not distinct:
        return []
    texts = model.generate(distinct, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
    answers = dict(zip(distinct, texts, strict=True))
    responses = [
        _response(name or model.name, item, prompt, answers[prompt], edited_on)
        for item, prompt in zip(items, prompts, strict=True)
    ]
    return responses if judge is None else judged(responses, judge)


def respond_edited(
    model: HookedModel,
    edits: Sequence[WeightEdit],
    items: Sequence[Sequence[Item]],
    *,
    name: str,
    edited_on: Sequence[int],
    judge: Judge | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Response]]:
    """The responses of many edits of one model, decoded together: for each edit one response per item of its own.

    The same as `respond` on each edited model, at a fraction of the time (`interp.multi`).

    Args:
        edits: of `model`.
        items: what each edit is asked, in the order of the edits.
        edited_on: the id of the instance of each edit.
        progress: called with (done, total) distinct prompts of all edits.

    Raises:
        InputError: as `generate_edited`.
    """
    asked = [[model.format_prompt(i.query, i.suffix, i.prefix) for i in own] for own in items]
    distinct = list(dict.fromkeys((edit, prompt) for edit, prompts in enumerate(asked) for prompt in prompts))
    if not distinct:
        return [[] for _ in edits]
    texts = generate_edited(
        model,
        [prompt for _, prompt in distinct],
        [edit for edit, _ in distinct],
        edits,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    answers = dict(zip(distinct, texts, strict=True))
    found = [
        [
            _response(name, item, prompt, answers[edit, prompt], edited_on[edit])
            for item, prompt in zip(own, asked[edit], strict=True)
        ]
        for edit, own in enumerate(items)
    ]
    if judge is None:
        return found
    verdicts = iter(judged([r for own in found for r in own], judge))  # judged in one batch
    return [[next(verdicts) for _ in own] for own in found]


def _response(name: str, item: Item, prompt: str, answer: Any, edited_on: int | None) -> Response:
    return Response(
        model=name,
        instance_id=item.ref,
        kind=item.kind,
        suffix=bool(item.suffix or item.prefix),
        prompt=prompt,
        text=answer.text,
        n_tokens=answer.n_tokens,
        ended=answer.ended,
        edited_on=edited_on,
    )


def judged(responses: Sequence[Response], judge: Judge) -> list[Response]:
    """The same responses with the judge's verdicts (old verdicts are replaced)."""
    verdicts = judge.judge([r.text for r in responses], [r.prompt for r in responses])
    return [replace(r, verdict=v) for r, v in zip(responses, verdicts, strict=True)]
