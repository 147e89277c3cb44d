"""Swap shares: the formula by hand, and models whose truth is known by construction."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.mechanism.shares import (
    MarginTokens,
    SwapMargins,
    batches,
    parts,
    shares_of,
    swap_margins,
    swap_shares,
    swapped,
)
from interp.models import HookedModel
from interp.records import Instance, Knowledge, SwapShares, dumps, loads

TOKENS = MarginTokens((10, 11), (12, 13, 14))
LAYER = 1


def test_the_shares_agree_with_a_case_worked_by_hand() -> None:
    # margin 4 against vanilla's -4; W brings back 2 (R .25), h 4 (.5), both 6 (.75), the block's output 8 (1).
    assert shares_of(np.array([4.0, -4.0, 2.0, 0.0, -2.0, -4.0])) == pytest.approx((0.25, 0.5, 0.25, 0.0))
    # W and h only work together: the Shapley value halves it.
    assert shares_of(np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])) == pytest.approx((0.5, 0.5, 0.0, 0.0))
    assert shares_of(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])) == pytest.approx((0.0,) * 4)


def test_the_margin_is_the_log_odds_of_refusing_over_complying() -> None:
    logits = torch.zeros(1, 320)
    logits[0, 10] = torch.log(torch.tensor(5.0))
    expected = np.log(5 + 1) - np.log(3)
    assert float(TOKENS.margin(logits)) == pytest.approx(expected, rel=1e-6)


def variant(model: HookedModel, change) -> HookedModel:
    """A copy of the model with something changed; `change` gets the clean HF model."""
    hf = copy.deepcopy(model.hf)
    other = HookedModel.from_hf(hf, model.tokenizer, "variant", model.chat_template)
    with torch.no_grad():
        change(other)
    return other


def noise(parameter: torch.Tensor, seed: int = 0, scale: float = 0.5) -> None:
    parameter.add_(scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))


def shares(model: HookedModel, other: HookedModel, texts: list[str]):
    return swap_shares(swap_margins(model, other, texts, LAYER, TOKENS), model="m", layer=LAYER)


def test_a_change_of_only_this_matrix_is_erased_by_algebra(tiny_model, texts) -> None:
    other = variant(tiny_model, lambda m: noise(m.value_weight(LAYER)))
    measured = swap_margins(tiny_model, other, texts, LAYER, TOKENS)
    algebra = swap_margins(tiny_model, other, texts, LAYER, TOKENS, identity=True)
    for name in ("model", "vanilla", "into_model", "into_vanilla"):
        np.testing.assert_allclose(getattr(algebra, name), getattr(measured, name), atol=1e-3)
    found = swap_shares(measured, model="m", layer=LAYER)
    assert found.erased.value == pytest.approx(1.0, abs=1e-3)
    assert found.reverse[0] == pytest.approx(1.0, abs=1e-3)
    assert [found.bypassed.value, found.parallel.value, found.downstream.value] == pytest.approx([0, 0, 0], abs=1e-3)


def test_a_change_of_the_mlp_in_front_of_the_matrix_is_bypassed(llama, texts) -> None:
    found = shares(llama, variant(llama, lambda m: noise(m.blocks[LAYER].mlp.up_proj.weight)), texts)
    assert found.bypassed.value == pytest.approx(1.0, abs=1e-3)
    assert found.bypassed.low == pytest.approx(1.0, abs=1e-3)
    assert found.erased.value == pytest.approx(0.0, abs=1e-3)
    assert found.reverse[1] == pytest.approx(1.0, abs=1e-3)


def test_a_change_above_the_block_is_downstream(tiny_model, texts) -> None:
    found = shares(tiny_model, variant(tiny_model, lambda m: noise(m.value_weight(LAYER + 1))), texts)
    assert found.downstream.value == pytest.approx(1.0, abs=1e-6)
    assert found.erased.value == pytest.approx(0.0, abs=1e-6)


def test_a_change_of_the_embeddings_goes_partly_around_the_region(llama, texts) -> None:
    found = shares(llama, variant(llama, lambda m: noise(m.hf.get_input_embeddings().weight)), texts)
    assert found.erased.value == pytest.approx(0.0, abs=1e-3)
    assert abs(found.parallel.value) > 0.05
    total = found.erased.value + found.bypassed.value + found.parallel.value + found.downstream.value
    assert total == pytest.approx(1.0)


def hooks_of(model: HookedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def test_swapping_leaves_the_model_as_it_was(llama, texts) -> None:
    other = variant(llama, lambda m: noise(m.value_weight(LAYER)))
    prompts = batches(llama, texts, batch_size=3)
    before, hooks = llama.logits(prompts[0]), hooks_of(llama)
    donor = parts(other, prompts, LAYER, TOKENS)
    swapped(llama, prompts, donor, TOKENS)
    assert torch.equal(llama.logits(prompts[0]), before)
    assert hooks_of(llama) == hooks


def test_hooks_are_removed_after_an_error(llama, texts) -> None:
    other = variant(llama, lambda m: noise(m.value_weight(LAYER)))
    donor, hooks = parts(other, batches(llama, texts[:1]), LAYER, TOKENS), hooks_of(llama)
    with pytest.raises(RuntimeError):
        swapped(llama, batches(llama, texts[2:3]), donor, TOKENS)  # other shapes
    assert hooks_of(llama) == hooks


def test_edits_on_their_own_prompts_are_joined(llama, texts) -> None:
    pieces = [
        swap_margins(llama, variant(llama, lambda m, s=s: noise(m.value_weight(LAYER), s)), [text], LAYER, TOKENS)
        for s, text in enumerate(texts)
    ]
    found = swap_shares(SwapMargins.join(pieces), model="dinm", layer=LAYER, identity=True)
    assert found.n == len(texts)
    assert found.identity
    assert found.erased.value == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(InputError, match="at least one edit"):
        SwapMargins.join([])


def margins(before: float, after: float, n: int = 20) -> SwapMargins:
    """Erased by construction: vanilla's matrix brings the whole margin back."""
    new, old = np.full(n, after), np.full(n, before)
    return SwapMargins(new, old, np.stack([old, new, old, old], 1), np.stack([new, old, new, new], 1))


def test_the_gate_closes_where_hardly_any_prompt_stopped_complying() -> None:
    assert not swap_shares(margins(-2.0, 2.0), model="m", layer=0).gated
    still = swap_shares(margins(-2.0, -1.0), model="m", layer=0)
    assert still.gated
    assert still.compliance_drop.value == 0.0
    assert still.erased.value == pytest.approx(1.0)
    nothing = swap_shares(margins(-2.0, -2.0), model="m", layer=0)
    assert nothing.gated
    assert nothing.erased.value == 0.0
    assert loads(SwapShares, dumps(nothing)) == nothing


def instance(safe: str, unsafe: str) -> Instance:
    return Instance(0, "bias", "q", "the cat", "", "", safe, unsafe, Knowledge("p", "a"))


def test_margin_tokens_are_the_first_tokens_of_safe_and_unsafe_answers(llama) -> None:
    found = MarginTokens.of(llama, [instance("I am sorry", "Sure, here is"), instance("I cannot", "the mat")])
    first = {a: llama.encode_pair("the cat", a, eos=False)[1][0] for a in ("I am", "Sure", "the mat")}
    assert found == MarginTokens((first["I am"],), tuple(sorted({first["Sure"], first["the mat"]})))
    with pytest.raises(InputError, match="begin with the same tokens"):
        MarginTokens.of(llama, [instance("Sure not", "Sure, here is")])
