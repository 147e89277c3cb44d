from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from interp.edits import Provenance, WeightEdit
from interp.evaluation import Item, by_owner, judged, plan, respond, respond_edited
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


def test_edits_answered_together_respond_as_each_edited_model_alone(llama: Any) -> None:
    edits = [edit(llama, layer, seed) for seed, layer in enumerate((1, 2, 1))]
    bench = benchmark()
    asked = list(by_owner(items(3)).values())
    ids = [i.id for i in bench.test[:3]]
    seen: list[tuple[int, int]] = []
    together = respond_edited(
        llama,
        edits,
        asked,
        name="row",
        edited_on=ids,
        judge=Length(),
        max_new_tokens=6,
        progress=lambda done, total: seen.append((done, total)),
    )
    for own, weights, instance, responses in zip(asked, edits, ids, together, strict=True):
        with weights.applied(llama) as edited:
            assert responses == respond(edited, own, name="row", edited_on=instance, judge=Length(), max_new_tokens=6)
    assert seen[-1][0] == seen[-1][1] == len({(r.edited_on, r.prompt) for own in together for r in own})
    assert respond_edited(llama, edits, [[], [], []], name="row", edited_on=ids) == [[], [], []]


def edit(model: Any, layer: int, seed: int) -> WeightEdit:
    generator = torch.Generator().manual_seed(seed)
    delta = 0.4 * torch.randn(model.value_weight(layer).shape, generator=generator)
    return WeightEdit({model.value_name(layer): delta}, Provenance("random", model.source, model.weight_hash()))
