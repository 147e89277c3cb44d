"""Activation shift: by hand, and the identity of an edit of one matrix on every architecture."""

from __future__ import annotations

import math

import pytest
import torch

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.mechanism.activations import PromptActivations, inputs_untouched, join, record
from interp.mechanism.shift import activation_shift, halves_control, shift_rate

LAYER = 1


def test_the_rate_agrees_with_a_case_worked_by_hand() -> None:
    # means (3, 4) and (3, 5.5): |(0, 1.5)| / |(3, 4)| = 1.5 / 5
    vanilla = torch.tensor([[2.0, 4.0], [4.0, 4.0]])
    shifted = torch.tensor([[2.0, 5.0], [4.0, 6.0]])
    assert shift_rate(vanilla, shifted).value == pytest.approx(30.0)
    # By hand: resampling the inputs' shifts 1 and 2 and lengths 4.4 and 5.6 along (.6, .8) gives 1/4.4 to 2/5.6.
    found = shift_rate(vanilla, shifted)
    assert found.low == pytest.approx(100 / 4.4, rel=1e-6)
    assert found.high == pytest.approx(200 / 5.6, rel=1e-6)
    assert found.n == 2


def test_shifts_that_cancel_over_inputs_are_no_shift_of_the_mean() -> None:
    vanilla = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert shift_rate(vanilla, vanilla + torch.tensor([[0.0, 1.0], [0.0, -1.0]])).value == 0.0
    assert shift_rate(vanilla, vanilla.clone()).high == 0.0


def test_the_interval_holds_the_true_rate_in_many_dimensions() -> None:
    """A true shift of 10 % under noise in 500 dimensions; the norm's own bootstrap would lie above it throughout."""
    covered = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        base = torch.ones(60, 500)
        step = 0.1 * torch.sign(torch.randn(500, generator=generator))
        noise = (
            0.05 * torch.randn(60, 500, generator=generator)
            + 0.05 * torch.randn(60, 1, generator=generator) * step / 0.1
        )
        found = shift_rate(base, base + step + noise, seed)
        covered += found.low <= 10.0 <= found.high
    assert covered >= 33  # nominal 38 of 40; the linearised value is a little high


def test_halves_of_one_model_measure_the_noise_of_the_texts() -> None:
    """Unit normal noise of n inputs in d dimensions around a mean of length L: about 200 sqrt(d / n) / L percent."""
    states = torch.randn(40, 100, generator=torch.Generator().manual_seed(0))
    states[:, 0] += 50.0
    control = halves_control(states)
    assert control is not None
    assert control.value == pytest.approx(200 * math.sqrt(100 / 40) / 50, rel=0.1)
    assert control.low < control.value < control.high
    assert halves_control(states[:3]) is None


def edit_of(model, layer: int, seed: int = 0) -> WeightEdit:
    weight = model.value_weight(layer)
    delta = 0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    provenance = Provenance("test", model.source, model.weight_hash(), layer=layer)
    return WeightEdit({model.value_name(layer): delta}, provenance)


def test_an_edit_of_w_v_shifts_nothing_up_to_its_layer_and_something_above(tiny_model, texts) -> None:
    vanilla = record(tiny_model, texts, LAYER, responses=["the cat sat"] * 4)
    pieces, n = [], len(texts)
    for i, text in enumerate(texts):
        edit = edit_of(tiny_model, LAYER, seed=i)
        with edit.applied(tiny_model) as edited:
            pieces.append(record(edited, [text], LAYER, index=[i], responses=["a dog looked at the moon"]))
        assert inputs_untouched(tiny_model, edit.deltas, LAYER)
    found = activation_shift(vanilla, join(pieces), model="dinm", identity=True)
    assert found.identity
    assert (found.rate.value, found.rate.low, found.rate.high) == (0.0, 0.0, 0.0)
    assert found.by_layer[: LAYER + 1] == (0.0, 0.0)
    assert found.by_layer[LAYER + 1] > 0.1
    assert found.resid_by_layer[LAYER - 1] == 0.0
    assert found.resid_by_layer[LAYER] > 0.1
    assert found.n_inputs == n
    assert found.own_tokens is not None
    assert found.own_tokens.value > 0.1
    assert found.own_tokens_control is not None


def test_the_same_model_twice_is_zero_to_the_last_bit_but_no_identity_unless_said(tiny_model, texts) -> None:
    a, b = record(tiny_model, texts, LAYER), record(tiny_model, texts, LAYER)
    found = activation_shift(a, b, model="vanilla")
    assert found.by_layer == found.resid_by_layer == (0.0,) * tiny_model.n_layers
    assert not found.identity
    assert found.own_tokens is None


def test_a_change_below_the_region_is_seen_and_never_called_an_identity(llama, texts) -> None:
    vanilla = record(llama, texts, LAYER)
    with edit_of(llama, 0).applied(llama) as edited:
        found = activation_shift(vanilla, record(edited, texts, LAYER), model="m", identity=True)
    assert found.rate.value > 1.0
    assert not found.identity


def test_an_edit_recorded_alone_is_compared_with_the_same_prompts_of_vanilla(llama, texts) -> None:
    vanilla = record(llama, texts, LAYER)
    with edit_of(llama, 0).applied(llama) as edited:
        one = activation_shift(vanilla, record(edited, [texts[2]], LAYER, index=[2]), model="m")
        both = record(edited, texts, LAYER)
    assert one.n_inputs == 1
    base, moved = vanilla.h_down[2, LAYER], both.h_down[2, LAYER]
    assert one.rate.value == pytest.approx(100 * float((moved - base).norm() / base.norm()), rel=1e-5)
    assert "no interval" in one.rate.how


def test_recordings_are_means_over_the_real_tokens_or_the_last_one(tiny_model, texts) -> None:
    mean, last = record(tiny_model, texts[:1], LAYER), record(tiny_model, texts[:1], LAYER, pooling="last")
    seen = []
    handle = tiny_model.value_module(LAYER).register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    try:
        with torch.no_grad():
            tiny_model.logits(tiny_model.tokenize(texts[:1]))
    finally:
        handle.remove()
    close = {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(mean.h_down[0, LAYER], seen[0].mean(0), **close)
    torch.testing.assert_close(last.h_down[0, LAYER], seen[0][-1], **close)
    torch.testing.assert_close(mean.strength[0], seen[0][-1].abs().mean(), **close)
    torch.testing.assert_close(mean.h_down_mean, mean.h_down[0, LAYER])


def test_own_tokens_are_those_after_the_prompt_and_an_empty_answer_counts_nowhere(llama, texts) -> None:
    found = record(llama, texts[:2], LAYER, responses=["the dog sat", "  "])
    assert found.own is not None
    assert found.own[1].isnan().all()
    prompt, answer = llama.encode_pair(texts[0], "the dog sat", eos=False)
    seen = []
    handle = llama.value_module(LAYER).register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    try:
        with torch.no_grad():
            llama.logits(llama.pad([[*prompt, *answer]]))
    finally:
        handle.remove()
    torch.testing.assert_close(found.own[0], seen[0][len(prompt) :].mean(0), atol=1e-4, rtol=1e-3)
    shift = activation_shift(found, record(llama, texts[:2], LAYER, responses=["the dog sat", "a"]), model="m")
    assert shift.own_tokens is not None
    assert (shift.own_tokens.value, shift.own_tokens.n) == (0.0, 1)


def test_the_suffix_is_part_of_the_prompt(llama, texts) -> None:
    plain, suffixed = record(llama, texts[:1], LAYER), record(llama, texts[:1], LAYER, suffix="the dog")
    joined = record(llama, [f"{texts[0]} the dog"], LAYER)
    assert torch.equal(suffixed.h_down, joined.h_down)
    assert not torch.equal(suffixed.h_down, plain.h_down)


def synthetic(index: tuple[int, ...], layer: int = 0, own: bool = False) -> PromptActivations:
    n = len(index)
    return PromptActivations(
        layer, "mean", index, torch.ones(n, 2, 3), torch.ones(n, 2, 4), torch.ones(n, 4), torch.ones(n),
        torch.ones(n, 3) if own else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: join([]), "at least one recording"),
        (lambda: join([synthetic((0,)), synthetic((0, 1))]), "every prompt once"),
        (lambda: join([synthetic((0,)), synthetic((1,), layer=1)]), "one layer and pooling"),
        (lambda: join([synthetic((0,)), synthetic((1,), own=True)]), "all with or all without responses"),
        (
            lambda: activation_shift(synthetic((0,)), synthetic((0, 7)), model="m"),
            r"prompts \[7\], which were not recorded",
        ),
        (
            lambda: activation_shift(synthetic((0,)), synthetic((0,), layer=1), model="m"),
            "expected a recording of layer 0",
        ),
    ],
)
def test_recordings_that_do_not_fit_are_told(call, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def test_bad_prompts_are_told(llama, texts) -> None:
    with pytest.raises(InputError, match="at least one prompt"):
        record(llama, [], LAYER)
    with pytest.raises(InputError, match="expected 4 responses, one per prompt, got 1"):
        record(llama, texts, LAYER, responses=["a"])
    with pytest.raises(InputError, match="layer 7 out of range"):
        record(llama, texts, 7)
