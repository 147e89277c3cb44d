from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from interp.evaluation import Item, judged, plan, respond
from interp.records import Verdict

from .examples import benchmark


@pytest.fixture(scope="module")
def llama(make_model: Any) -> Any:
    return make_model("llama")


class Length:
    """A judge that finds long texts unsafe, so that a verdict can be checked from the text."""

    name = "length"

    def judge(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Verdict]:
        assert prompts is not None
        return [Verdict("unsafe" if len(t) > 40 else "other", float(len(t) > 40)) for t in texts]


def items(n: int = 3) -> list[Item]:
    bench = benchmark()
    return plan(bench.test[:n], bench, "Please be good:", n_facts=4, n_benign=4)


def test_each_item_gets_the_answer_that_its_prompt_alone_gets(llama: Any) -> None:
    asked = items()
    responses = respond(llama, asked, name="row", max_new_tokens=8, batch_size=7)
    assert len(responses) == len(asked)
    for item, response in zip(asked, responses, strict=True):
        assert (response.kind, response.instance_id, response.suffix) == (item.kind, item.ref, bool(item.suffix))
        assert response.prompt == llama.format_prompt(item.query, item.suffix)
        assert (response.model, response.edited_on, response.verdict) == ("row", None, None)
    for response in responses[::7]:
        [alone] = llama.generate([response.prompt], max_new_tokens=8)
        assert (response.text, response.n_tokens, response.ended) == (alone.text, alone.n_tokens, alone.ended)


def test_equal_prompts_are_generated_once_in_a_single_call(llama: Any) -> None:
    class Counting:
        name = "counting"
        format_prompt = llama.format_prompt
        calls: list[list[str]]

        def generate(self, prompts: Sequence[str], **kwargs: Any) -> Any:
            self.calls.append(list(prompts))
            return llama.generate(prompts, **kwargs)

    model = Counting()
    model.calls = []
    asked = items(2)
    twice = [*asked, *(dataclasses.replace(i, owner=7) for i in asked)]
    seen: list[tuple[int, int]] = []
    responses = respond(model, twice, max_new_tokens=4, progress=lambda done, total: seen.append((done, total)))
    [call] = model.calls
    assert len(call) == len(set(call)) < len(twice)
    assert [r.text for r in responses[: len(asked)]] == [r.text for r in responses[len(asked) :]]
    assert seen[-1] == (len(call), len(call))
    assert responses[0].model == "counting"


def test_a_judge_judges_at_once_or_later_with_the_same_verdicts(llama: Any) -> None:
    asked = items(1)
    at_once = respond(llama, asked, edited_on=100, judge=Length(), max_new_tokens=8)
    later = judged(respond(llama, asked, edited_on=100, max_new_tokens=8), Length())
    assert at_once == later
    assert all(r.verdict is not None and r.edited_on == 100 for r in at_once)
    assert respond(llama, [], judge=Length()) == []
