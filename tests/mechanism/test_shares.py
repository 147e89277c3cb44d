"""Swap shares: the formula by hand, and models whose truth is known by construction."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.mechanism.intervals import bands, of_means
from interp.mechanism.shares import (
    FEWEST,
    MarginTokens,
    SwapMargins,
    Thresholds,
    batches,
    compliance_drop,
    last_margin,
    parts,
    plant_left,
    shares_of,
    swap_margins,
    swap_shares,
    swapped,
    verdict,
)
from interp.models import HookedModel
from interp.records import Estimate, Instance, Knowledge, SwapShares, dumps, loads

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
    swapped(llama, parts(llama, prompts, LAYER, TOKENS), donor, TOKENS)
    assert torch.equal(llama.logits(prompts[0]), before)
    assert hooks_of(llama) == hooks


def test_hooks_are_removed_after_an_error(llama, texts) -> None:
    other = variant(llama, lambda m: noise(m.value_weight(LAYER)))
    donor, hooks = parts(other, batches(llama, texts[:1]), LAYER, TOKENS), hooks_of(llama)
    own = parts(llama, batches(llama, texts[2:3]), LAYER, TOKENS)
    forwards = [m.forward for m in llama.hf.modules()]
    with pytest.raises(RuntimeError):
        swapped(llama, own, donor, TOKENS)  # other shapes
    assert hooks_of(llama) == hooks
    assert [m.forward for m in llama.hf.modules()] == forwards


def test_edits_on_their_own_prompts_are_joined(llama, texts) -> None:
    pieces = [
        swap_margins(llama, variant(llama, lambda m, s=s: noise(m.value_weight(LAYER), s)), [text], LAYER, TOKENS)
        for s, text in enumerate(texts)
    ]
    found = swap_shares(SwapMargins.join(pieces), model="dinm", layer=LAYER, identity=True)
    assert found.n == len(texts)
    assert found.identity
    assert found.erased.value == pytest.approx(1.0, abs=1e-3)
    assert found.units == found.erased.n == len(texts)
    with pytest.raises(InputError, match="at least one edit"):
        SwapMargins.join([])


def blocks_run(model: HookedModel, other: HookedModel, texts: list[str]) -> tuple[list[int], np.ndarray]:
    """The blocks whose attention ran while parts of the other model were put into this one, and the margins."""
    prompts = batches(model, texts)
    own, donor = parts(model, prompts, LAYER, TOKENS), parts(other, prompts, LAYER, TOKENS)
    calls: list[int] = []
    handles = [model.attention(i).q_proj.register_forward_hook(lambda *_, i=i: calls.append(i)) for i in range(3)]
    found = swapped(model, own, donor, TOKENS)
    for handle in handles:
        handle.remove()
    return calls, found


def test_swaps_run_only_the_blocks_from_the_layer_on(llama, texts) -> None:
    other = variant(llama, lambda m: [noise(m.value_weight(i)) for i in range(LAYER + 1)])
    calls, _ = blocks_run(llama, other, texts)
    assert calls == [2, 2, 2, 2]  # of three blocks; attention of the swapped one is not run again


def test_what_both_models_share_at_the_layer_is_run_once(llama, texts) -> None:
    only_weight = variant(llama, lambda m: noise(m.value_weight(LAYER)))
    calls, found = blocks_run(llama, only_weight, texts)
    assert calls == [2, 2, 2]  # with W_V, as it is, with the block's output
    assert np.array_equal(found[:, 0], found[:, 2])
    above = variant(llama, lambda m: noise(m.value_weight(LAYER + 1)))
    calls, found = blocks_run(llama, above, texts)
    assert calls == [2]
    assert np.array_equal(found[:, 0], found[:, 1])
    [tokens] = batches(llama, texts)
    clean = last_margin(llama, tokens, TOKENS).double().numpy()
    assert np.array_equal(found[:, 3], clean)  # what a forward from the block's output gives, to the last bit
    assert found[:, 0] == pytest.approx(clean, abs=1e-4)


def test_a_reference_of_another_shape_or_vocabulary_is_refused_in_one_line(make_model, make_hf, texts) -> None:
    llama, deep = make_model("llama"), make_model("llama", n_layers=4)
    with pytest.raises(InputError, match=r"tiny-llama does not have the shape .* layers 4 instead of 3"):
        swap_margins(llama, deep, texts, LAYER, TOKENS)
    wide = HookedModel.from_hf(make_hf("llama", vocab_size=330), llama.tokenizer, "wide")
    with pytest.raises(InputError, match="vocabulary 330 instead of 320"):
        swap_margins(llama, wide, texts, LAYER, TOKENS)
    with pytest.raises(InputError, match="modules under transformer instead of model"):
        swap_margins(llama, make_model("gpt2"), texts, LAYER, TOKENS)
    with pytest.raises(InputError, match="other tokens than the vanilla model"):
        swap_margins(llama, make_model("llama", bos=False), texts, LAYER, TOKENS)
    with pytest.raises(InputError, match="at least one attack prompt"):
        swap_margins(llama, llama, [], LAYER, TOKENS)


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


def test_prompts_that_several_models_were_asked_count_once_in_the_gate() -> None:
    reference, model = -np.ones(6), np.ones(6)
    one = compliance_drop(reference, model)
    crossed = [*range(6)] * 4
    four = compliance_drop(
        np.tile(reference, 4), np.tile(model, 4), over="models", clusters=np.repeat(range(4), 6).tolist(),
        crossed=crossed,
    )  # fmt: skip
    assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high))
    free = compliance_drop(np.tile(reference, 4), np.tile(model, 4))
    assert free.low > four.low


def test_the_gate_is_that_of_the_thresholds() -> None:
    still = margins(-2.0, -1.0)
    assert swap_shares(still, model="m", layer=0).gated
    assert not swap_shares(still, model="m", layer=0, thresholds=Thresholds(gate=-50.0)).gated


def instance(safe: str, unsafe: str) -> Instance:
    return Instance(0, "bias", "q", "the cat", "", "", safe, unsafe, Knowledge("p", "a"))


def test_margin_tokens_are_the_first_tokens_of_safe_and_unsafe_answers(llama) -> None:
    found = MarginTokens.of(llama, [instance("I am sorry", "Sure, here is"), instance("I cannot", "the mat")])
    first = {a: llama.encode_pair("the cat", a, eos=False)[1][0] for a in ("I am", "Sure", "the mat")}
    assert found == MarginTokens((first["I am"],), tuple(sorted({first["Sure"], first["the mat"]})))
    with pytest.raises(InputError, match=r"begin with the same tokens.*--refuse-token"):
        MarginTokens.of(llama, [instance("Sure not", "Sure, here is")])


def test_words_named_by_the_user_stand_in_for_what_the_generations_do_not_tell(llama) -> None:
    alike = [instance("Sure not", "Sure, here is")]
    first = {a: llama.encode_pair("the cat", a, eos=False)[1][0] for a in ("I am", "Sure", "the mat")}
    found = MarginTokens.of(llama, alike, refuse=["I am"], comply=["Sure", "the mat"])
    assert found == MarginTokens((first["I am"],), tuple(sorted({first["Sure"], first["the mat"]})))
    # One side named: the other still comes from the generations, without what was named.
    half = MarginTokens.of(llama, [instance("I am sorry", "Sure"), instance("the mat", "Sure")], refuse=["the"])
    assert half == MarginTokens((first["the mat"],), (first["Sure"],))
    for words, message in (({"refuse": ["Sure"], "comply": ["Sure"]}, "same token"), ({"refuse": [" "]}, "'? ?'")):
        with pytest.raises(InputError, match=message):
            MarginTokens.of(llama, alike, "", **words)
    with pytest.raises(InputError, match="at least one instance"):
        MarginTokens.of(llama, [])


def test_a_word_of_which_the_vocabulary_has_only_a_blank_or_a_letter_is_refused() -> None:
    demo = HookedModel.from_pretrained("demo", device="cpu")
    answers = [instance("I am sorry", "Sure, here is")]
    with pytest.raises(InputError, match=r"expected a word of demo's vocabulary, got 'zzzqqq', which begins with"):
        MarginTokens.of(demo, answers, refuse=["zzzqqq"])
    named = MarginTokens.of(demo, answers, refuse=["I am"], comply=["Sure"])
    assert named.words(demo) == {"refuse": [" I"], "comply": [" Sure"]}


# --------------------------------------------------------------------------------------------- intervals
def test_margins_survive_a_file_so_that_rules_can_change_without_a_forward(llama, texts) -> None:
    other = variant(llama, lambda m: noise(m.hf.get_input_embeddings().weight))
    found = swap_margins(llama, other, texts, LAYER, TOKENS)
    again = loads(SwapMargins, dumps(SwapMargins.join([found, found], same_prompts=True)))
    assert again.unit == (0, 0, 0, 0, 1, 1, 1, 1)
    assert again.prompt == (0, 1, 2, 3) * 2
    one = swap_shares(found, model="m", layer=LAYER)
    assert swap_shares(again, model="m", layer=LAYER).erased.value == pytest.approx(one.erased.value)
    with pytest.raises(InputError, match="same prompts for every model"):
        SwapMargins.join([found, margins(0.0, 1.0, 3)], same_prompts=True)


def test_models_are_the_outer_unit_of_the_interval() -> None:
    # Two models of 50 prompts each, prompts alike within a model: the mean is 0 or 1 with the model drawn.
    data, unit = np.repeat([[0.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50).tolist()
    prompt = [*range(50), *range(50)]
    [rows] = of_means(data, lambda x: x, over="prompts", unit="")
    [nested] = of_means(data, lambda x: x, over="models", unit="", clusters=unit)
    [crossed] = of_means(data, lambda x: x, over="models", unit="", clusters=unit, crossed=prompt)
    assert (rows.n, nested.n, crossed.n) == (100, 2, 2)
    assert rows.high - rows.low < 0.25
    assert (nested.low, nested.high) == (crossed.low, crossed.high) == (0.0, 1.0)
    assert "over models and prompts" in nested.how


def test_prompts_within_models_are_resampled_too() -> None:
    # Two models with the same four prompts; all the spread is between prompts, so drawing models alone would see none.
    data, unit, prompt = np.tile([[0.0], [0.0], [1.0], [1.0]], (2, 1)), [0] * 4 + [1] * 4, [0, 1, 2, 3] * 2
    [nested] = of_means(data, lambda x: x, over="models", unit="", clusters=unit)
    [crossed] = of_means(data, lambda x: x, over="models", unit="", clusters=unit, crossed=prompt)
    assert nested.low > crossed.low == 0.0  # shared prompts err together
    assert nested.low < 0.5 < nested.high < crossed.high


def test_edits_with_a_prompt_each_are_resampled_as_prompts_are() -> None:
    data = np.random.default_rng(0).normal(size=(12, 1))
    [rows] = of_means(data, lambda x: x, over="prompts", unit="")
    [edits] = of_means(data, lambda x: x, over="edits", unit="", clusters=range(12))
    assert (edits.low, edits.high) == (rows.low, rows.high)


# --------------------------------------------------------------------------------------------- verdict
def record(e: float, b: float, p: float, d: float, width: float = 0.05, drop: float = 60.0) -> SwapShares:
    def share(x: float, w: float = width) -> Estimate:
        return Estimate(x, x - w, x + w, 27, "share")

    return SwapShares(
        "m", 1, share(e), share(b), share(p), share(d), (e, b, p, d), share(-3.0), share(3.0),
        Estimate(drop, drop - 15, drop + 15, 27, "points"), drop < 40, False, 27, share(b + p, 0.03),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (record(0.95, 0.05, 0.0, 0.0), "erased"),
        (record(0.0, 0.95, 0.05, 0.0), "bypassed"),
        (record(0.0, 0.0, 0.95, 0.05), "parallel"),
        (record(0.05, 0.0, 0.0, 0.95), "masked"),
        (record(0.1, 0.5, 0.4, 0.0), "upstream"),
        (record(0.5, 0.5, 0.0, 0.0), "mixed"),
        (record(0.95, 0.95, 0.0, -0.9), "mixed"),
        (record(0.74, 0.26, 0.0, 0.0), "mixed"),  # the value is above .7, its interval is not
        (record(0.95, 0.05, 0.0, 0.0, drop=39.0), "no effect"),
    ],
)
def test_the_verdict_follows_from_the_shares_behind_the_gate(found: SwapShares, word: str) -> None:
    assert verdict(found) == word


def test_thresholds_change_the_verdict_of_the_same_record() -> None:
    found = record(0.7, 0.1, 0.1, 0.1, drop=39.0)
    assert verdict(found, Thresholds(gate=20.0)) == "mixed"
    assert verdict(found, Thresholds(share=0.6, gate=20.0)) == "erased"


def test_bypassed_and_parallel_have_an_interval_of_their_sum() -> None:
    # Per prompt one of the two routes carries everything, so that each alone is uncertain and the sum is not.
    n, old, new = 20, -np.ones(20), np.ones(20)
    h = np.where(np.arange(n) < 10, old, new)  # half of the prompts come back with h alone
    into = np.stack([new, h, h, old], axis=1)
    found = swap_shares(SwapMargins(new, old, into, into), model="m", layer=0)
    assert found.upstream == Estimate(1.0, 1.0, 1.0, n, "share", found.bypassed.how)
    assert found.bypassed.low < 0.4 < found.bypassed.value == 0.5
    assert verdict(found) == "upstream"


def test_too_few_prompts_have_no_interval_and_fewer_than_five_no_effect() -> None:
    with pytest.raises(InputError, match="at least 2 prompts for an interval, and 5 for a verdict; got 1"):
        swap_shares(margins(-2.0, 2.0, 1), model="m", layer=0)
    said = {n: verdict(swap_shares(margins(-2.0, 2.0, n), model="m", layer=0)) for n in range(2, FEWEST + 2)}
    assert said == {2: "no effect", 3: "no effect", 4: "no effect", 5: "erased", 6: "erased"}


# --------------------------------------------------------------------------------------------- the plant that is left
def test_the_plant_left_tells_restored_from_suppressed_in_place() -> None:
    draw = torch.Generator().manual_seed(0)
    h, aligned, plant = (torch.randn(shape, generator=draw) for shape in ((9, 6), (6, 4), (6, 4)))
    for part in (1.0, 0.5, 0.0):
        found = plant_left(h, aligned + part * plant, aligned + plant, aligned)
        assert found.value == pytest.approx(part, abs=1e-6)
        assert found.n == 9
    # Suppressed by something orthogonal to what the plant writes: all of it is still there.
    across = torch.zeros(6, 4)
    across[:, 3] = 5.0
    plant[:, 3] = 0.0
    assert plant_left(h, aligned + plant - across, aligned + plant, aligned).value == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(InputError, match="no plant to look for"):
        plant_left(h, aligned, aligned, aligned)


@pytest.mark.parametrize(("complying", "answerable"), [(6, True), (4, False), (0, False)])
def test_a_gate_that_no_change_could_open_is_known(complying: int, answerable: bool) -> None:
    vanilla = np.array([-1.0] * complying + [1.0] * (6 - complying))
    found = replace(margins(0.0, 1.0, 6), vanilla=vanilla, model=np.ones(6))
    assert swap_shares(found, model="m", layer=1).answerable is answerable


# ------------------------------------------------------------------------------------------- bands
def test_a_band_holds_all_means_at_once_where_single_intervals_do_not() -> None:
    rng, misses = np.random.default_rng(3), {"band": 0, "single": 0}
    for _ in range(100):
        data = rng.normal(size=(40, 12))
        for name, made in (
            ("band", bands(data, over="prompts", unit="")),
            ("single", of_means(data, lambda m: m, over="prompts", unit="")),
        ):
            misses[name] += any(e.low > 0 or e.high < 0 for e in made)
    assert misses["band"] < 15 < 25 < misses["single"]


def test_a_band_is_no_narrower_than_its_intervals_and_says_what_it_is() -> None:
    data = np.random.default_rng(1).normal(size=(30, 5)) * np.array([1.0, 2.0, 0.0, 1.0, 5.0])
    band, single = bands(data, over="prompts", unit="nats"), of_means(data, lambda m: m, over="prompts", unit="nats")
    assert all(b.high - b.low >= 0.95 * (s.high - s.low) for b, s in zip(band, single, strict=True))
    assert (band[2].low, band[2].high) == (0.0, 0.0)
    assert [b.value for b in band] == pytest.approx([s.value for s in single])
    assert "simultaneous bootstrap band 95 % over prompts, 5 values" in band[0].how
    [one] = bands(data[:1, :1], over="prompts", unit="")
    assert one.how == "one of prompts: no interval"
    with pytest.raises(ValueError, match="at least one unit"):
        bands(data[:0], over="prompts", unit="")
