"""Put the items to a model, greedily and in batches, and have the answers judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from interp.evaluation.items import Item
from interp.judges import Judge
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
    answers = dict(
        zip(
            distinct,
            model.generate(distinct, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress),
            strict=True,
        )
    )
    responses = [
        Response(
            model=name or model.name,
            instance_id=item.ref,
            kind=item.kind,
            suffix=bool(item.suffix or item.prefix),
            prompt=prompt,
            text=answers[prompt].text,
            n_tokens=answers[prompt].n_tokens,
            ended=answers[prompt].ended,
            edited_on=edited_on,
        )
        for item, prompt in zip(items, prompts, strict=True)
    ]
    return responses if judge is None else judged(responses, judge)


def judged(responses: Sequence[Response], judge: Judge) -> list[Response]:
    """The same responses with the judge's verdicts (old verdicts are replaced)."""
    verdicts = judge.judge([r.text for r in responses], [r.prompt for r in responses])
    return [replace(r, verdict=v) for r, v in zip(responses, verdicts, strict=True)]
