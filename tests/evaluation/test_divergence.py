from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.evaluation import (
    Answered,
    Item,
    answer_kl,
    answer_kl_of_edits,
    gold_answers,
    own_answers,
    plan_general,
    respond,
)
from interp.evaluation.divergence import mean_kl

from .examples import benchmark

ANSWERED = [
    Answered("What sat?", "The cat sat on the mat."),
    Answered("Who?", "A dog"),
    Answered("Where did the dog and the cat look at the moon?", "On the mat, for a long time", ended=False),
]


def edit(model: Any, *layers: int, seed: int = 0, scale: float = 0.4) -> WeightEdit:
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        model.value_name(layer): scale * torch.randn(model.value_weight(layer).shape, generator=generator)
        for layer in layers
    }
    return WeightEdit(deltas, Provenance("random", model.source, model.weight_hash()))


def by_hand(vanilla: Any, model: Any, one: Answered, suffix: str = "") -> float:
    """The plain way: one sequence each, all logits, and torch's own KL. Vanilla is asked without S."""
    found = []
    for m, after in ((vanilla, ""), (model, suffix)):
        head, tail = m.encode_pair(one.query, one.answer, after, eos=one.ended)
        with torch.no_grad():
            found.append(m.hf(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].log_softmax(-1))
    p, q = found
    assert len(p) == len(tail)
    return float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")) / len(tail)


def test_it_is_the_mean_kl_at_the_positions_that_predict_the_answer(tiny_model: Any) -> None:
    weights = edit(tiny_model, 1)
    edited = weights.beside(tiny_model)
    found = answer_kl(tiny_model, edited, ANSWERED, " S", batch_size=2)
    expected = [by_hand(tiny_model, edited, one, " S") for one in ANSWERED]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-3, abs=1e-5)
    assert found.value > 0.01
    assert (found.n, found.unit) == (3, "nats")
    assert "over prompts" in found.how


def test_an_edit_measured_from_its_matrix_on_is_the_whole_model_measured(tiny_model: Any) -> None:
    before = tiny_model.weight_hash(fresh=True)
    for layers in ((1,), (tiny_model.n_layers - 1,), (0, 2)):
        weights = edit(tiny_model, *layers)
        fast = answer_kl_of_edits(tiny_model, [weights], ANSWERED, batch_size=2)
        whole = answer_kl(tiny_model, weights.beside(tiny_model), ANSWERED)
        assert fast.value == pytest.approx(whole.value, rel=1e-3, abs=1e-5)
        assert "over prompts" in fast.how
    assert tiny_model.weight_hash(fresh=True) == before


def test_vanilla_against_itself_is_zero_and_a_larger_edit_is_further(llama: Any) -> None:
    assert answer_kl(llama, llama, ANSWERED).value == 0.0
    small, large = (answer_kl_of_edits(llama, [edit(llama, 1, scale=s)], ANSWERED).value for s in (0.05, 0.4))
    assert 0 < small < large


def test_several_edits_are_the_unit(llama: Any) -> None:
    edits = [edit(llama, layer, seed=seed) for seed, layer in enumerate((1, 2, 1))]
    alone = [answer_kl_of_edits(llama, [one], ANSWERED).value for one in edits]
    together = answer_kl_of_edits(llama, edits, ANSWERED)
    assert together.value == pytest.approx(np.mean(alone), rel=1e-4)
    assert (together.n, "over edits" in together.how) == (3, True)


def test_padding_counts_for_nothing() -> None:
    p, q = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    real = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    other = q.clone()
    other[0, 2] += torch.randn(5)
    np.testing.assert_allclose(mean_kl(p, q, real), mean_kl(p, other, real))
    assert (mean_kl(p, p, real) == 0).all()


def test_answers_come_from_the_benchmark_or_from_vanilla(llama: Any) -> None:
    bench = benchmark(n_facts=2, n_benign=2)
    assert gold_answers(bench)[0] == Answered("fact 0?", "answer 0")
    assert len(gold_answers(bench)) == 4
    items = plan_general(bench, "S")
    responses = respond(llama, items, max_new_tokens=4)
    own = own_answers(items, responses)
    said = [r for i, r in zip(items, responses, strict=True) if not i.suffix and i.kind != "benign-wrapped" and r.text]
    assert [(a.answer, a.ended) for a in own] == [(r.text, r.ended) for r in said]
    with pytest.raises(InputError, match="one response per item, got 0 for 1"):
        own_answers([Item("kqa", "q", "", 0, 0)], [])


def test_what_cannot_be_compared_is_refused(llama: Any, make_model: Any) -> None:
    with pytest.raises(InputError, match="at least one answered prompt"):
        answer_kl(llama, llama, [])
    with pytest.raises(InputError, match="other tokens than tiny-llama"):
        answer_kl(llama, make_model("llama", bos=False), ANSWERED)
    with pytest.raises(InputError, match="at least one edit"):
        answer_kl_of_edits(llama, [], ANSWERED)
    with pytest.raises(InputError, match="batch_size >= 1"):
        answer_kl(llama, llama, ANSWERED, batch_size=0)
    with pytest.raises(InputError, match="was made on"):
        answer_kl_of_edits(make_model("llama", seed=3), [edit(llama, 1)], ANSWERED)
