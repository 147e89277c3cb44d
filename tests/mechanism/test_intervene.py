"""Interventions leave nothing behind, change nothing at dose one, and round within half a step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_lab import small_lab, variant
from torch import Tensor

from interp.errors import InputError
from interp.mechanism.intervene import fed, louder, rounded, trainable_copy, weights_through, written
from interp.mechanism.lab import Subject
from interp.mechanism.readout import compliance, forced, intact_log_probs, log_probs, quality, read
from interp.mechanism.shares import MarginTokens

LAYER = 1


def logits(model, texts) -> Tensor:
    return model.logits(model.tokenize(texts))


def hooks(model) -> int:
    own = sum("forward" in m.__dict__ for m in model.hf.modules())
    return own + sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def test_a_layer_that_writes_nothing_is_one_with_a_zero_matrix(tiny_model, texts) -> None:
    before, found = logits(tiny_model, texts), hooks(tiny_model)
    with written(tiny_model, LAYER, torch.zeros_like):
        ablated = logits(tiny_model, texts)
    subject = Subject("m", tiny_model, small_lab(tiny_model))

    def empty(model) -> None:
        model.value_weight(LAYER).zero_()
        if getattr(model.value_module(LAYER), "bias", None) is not None:
            model.value_module(LAYER).bias.zero_()

    assert torch.allclose(ablated, logits(variant(subject, empty).model, texts), atol=1e-4)
    assert not torch.allclose(ablated, before, atol=1e-2)
    assert torch.equal(logits(tiny_model, texts), before)
    assert hooks(tiny_model) == found


def test_an_error_inside_leaves_no_hook(llama, texts) -> None:
    found = hooks(llama)
    with pytest.raises(RuntimeError), fed(llama, LAYER, lambda h: h[..., :3]), weights_through(llama, lambda w, _: w):
        logits(llama, texts)
    assert hooks(llama) == found


def test_inputs_taken_from_another_model_are_seen_by_the_matrix(llama, texts) -> None:
    seen: list[Tensor] = []
    with fed(llama, LAYER, lambda h: torch.full_like(h, 0.5)), written(llama, LAYER, lambda out: seen.append(out)):
        logits(llama, texts)
    expected = 0.5 * llama.value_vectors(LAYER).sum(dim=0)
    assert torch.allclose(seen[0], expected.expand_as(seen[0]), atol=1e-5)


def test_dose_one_changes_no_bit(tiny_model, texts) -> None:
    before = logits(tiny_model, texts)
    with louder(tiny_model, {0: torch.tensor([3, 5]), LAYER: torch.tensor([0])}, 1.0):
        assert torch.equal(logits(tiny_model, texts), before)


@pytest.mark.parametrize(
    ("architecture", "name"), [("gpt2", "c_fc"), ("llama", "gate_proj"), ("neox", "dense_h_to_4h")]
)
def test_a_dose_is_the_factor_of_the_key_vectors(make_model, architecture, name, texts) -> None:
    model, index = make_model(architecture), torch.tensor([2, 40])
    with louder(model, {LAYER: index}, 5.0):
        found = logits(model, texts)
    weight = getattr(model.mlp(LAYER), name).weight
    with torch.no_grad():  # by hand: a neuron is a column of GPT-2's matrix, a row elsewhere
        (weight.T if architecture == "gpt2" else weight)[index] *= 5.0
    assert torch.allclose(found, logits(model, texts), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_moves_no_element_by_more_than_half_a_step(bits: int) -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    found = rounded(weight, bits)
    assert bool(((found - weight).abs() <= step / 2 + 1e-6).all())
    assert bool((found / step - (found / step).round()).abs().max() < 1e-4)
    assert torch.allclose(rounded(found, bits), found)


def test_rounding_worked_by_hand_and_rows_of_zeros() -> None:
    # int4 has 7 steps: row maximum 7 gives a step of 1.
    assert rounded(torch.tensor([[7.0, -2.4, 0.6], [0.0, 0.0, 0.0]]), 4).tolist() == [[7.0, -2.0, 1.0], [0.0, 0.0, 0.0]]
    with pytest.raises(InputError, match="at least 2 bits, got 1"):
        rounded(torch.ones(1, 1), 1)


def test_every_linear_map_of_the_blocks_is_rounded_and_none_is_kept_so(tiny_model, texts) -> None:
    before = logits(tiny_model, texts)
    kept = {name: p.clone() for name, p in tiny_model.hf.named_parameters()}
    shapes = []
    with weights_through(tiny_model, lambda w, _: shapes.append(tuple(w.shape)) or w):
        assert torch.allclose(logits(tiny_model, texts), before, atol=1e-5)
    matrices = [p for name, p in kept.items() if p.dim() == 2 and f"{tiny_model.layout.blocks}." in name]
    assert len(shapes) == len(matrices)
    assert (32, 48) in shapes  # W_V with one output channel a row, Conv1D too
    with weights_through(tiny_model, lambda w, _: rounded(w, 2)):
        assert not torch.allclose(logits(tiny_model, texts), before, atol=1e-1)
    assert all(torch.equal(p, kept[name]) for name, p in tiny_model.hf.named_parameters())


def test_a_copy_trains_its_own_parameters_and_shares_the_rest(tiny_model) -> None:
    name = tiny_model.value_name(LAYER)
    other = trainable_copy(tiny_model, {name})
    mine, theirs = dict(tiny_model.hf.named_parameters()), dict(other.hf.named_parameters())
    assert theirs[name] is not mine[name]
    assert all(theirs[n] is p for n, p in mine.items() if n != name)
    assert [n for n, p in theirs.items() if p.requires_grad] == [name]
    assert not any(p.requires_grad for p in mine.values())
    with pytest.raises(InputError, match="no parameter nonsense to train"):
        trainable_copy(tiny_model, {"nonsense"})


# --------------------------------------------------------------------------------------------- readout
def test_the_readout_is_that_of_each_prompt_alone(tiny_model, texts) -> None:
    tokens = MarginTokens((10, 11), (12, 13, 14))
    found = read(tiny_model, [tiny_model.tokenize(texts)], tokens)
    for i, text in enumerate(texts):
        last = logits(tiny_model, [text])[0, -1].softmax(-1)
        assert found.named[i] == pytest.approx(float(last[10:15].sum()), abs=1e-5)
        assert found.margin[i] == pytest.approx(float((last[10:12].sum() / last[12:15].sum()).log()), abs=1e-4)


def test_compliance_counts_negative_margins_and_averages_repeats() -> None:
    assert compliance(np.array([-1.0, 2.0, -3.0, 4.0])).value == 50.0
    found = compliance(np.array([[-1.0, 2.0], [-1.0, -2.0]]))
    assert (found.value, found.n) == (75.0, 2)


def test_forced_answers_are_predicted_where_their_tokens_stand(tiny_model) -> None:
    pairs = [("The cat", "sat on the mat"), ("A dog looked at the moon", "and"), ("x", " ")]
    batches = forced(tiny_model, pairs, batch_size=2)
    assert sorted(i for b in batches for i in b.which) == [0, 1]
    for batch, found in log_probs(tiny_model, batches):
        for row, index in enumerate(batch.which):
            head, tail = tiny_model.encode_pair(*pairs[index], eos=False)
            n = int(batch.real[row].sum())
            assert batch.targets[row, :n].tolist() == tail
            alone = tiny_model.logits(tiny_model.pad([head + tail]))[0].log_softmax(-1)
            assert torch.allclose(found[row, :n], alone[len(head) - 1 : -1], atol=1e-4)
    assert max(b.real.shape[1] for b in forced(tiny_model, pairs, longest=2)) == 2


def test_a_model_does_not_move_against_itself(llama) -> None:
    batches = forced(llama, [("The cat", "sat on the mat"), ("A dog", "looked")])
    intact = intact_log_probs(llama, batches)
    assert not quality(llama, batches, intact).kl.any()
    with weights_through(llama, lambda w, _: rounded(w, 2)):
        assert quality(llama, batches, intact).kl.min() > 0
    assert copy.deepcopy(quality(llama, batches).right).max() <= 100.0
