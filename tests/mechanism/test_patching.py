"""Patching, its estimate, and weight swaps: cases whose truth follows from what was changed."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from interp.errors import InputError
from interp.mechanism.lab import Lab, Subject, merge
from interp.mechanism.margin import MarginTokens, batches, margins
from interp.mechanism.patching import (
    ATTRIBUTION,
    COMPONENTS,
    PATCHING,
    WEIGHT_SWAPS,
    Part,
    attribute,
    by_role,
    effects,
    everywhere,
    from_end,
    parameter_names,
    patch,
    places_of,
    read,
    with_weights,
)
from interp.mechanism.patching.attribution import ALL, BACK, ONE, SIZE, agreement
from interp.mechanism.patching.maps import NO_EFFECT
from interp.mechanism.patching.weights import Receiver, donated, everything
from interp.mechanism.several import over_edits
from interp.models import HookedModel
from interp.records import Finding, Instance, Knowledge, dumps, loads

TOKENS = MarginTokens((10,), (12,))
LAYER = 1


def variant(model: HookedModel, change) -> HookedModel:
    other = HookedModel.from_hf(copy.deepcopy(model.hf), model.tokenizer, "variant", model.chat_template)
    with torch.no_grad():
        change(other)
    return other


def noise(parameter: torch.Tensor, seed: int = 0, scale: float = 0.3) -> None:
    parameter.add_(scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))


def everywhere_noise(model: HookedModel) -> None:
    for i, parameter in enumerate(model.hf.parameters()):
        noise(parameter, i, 0.1)


# --------------------------------------------------------------------------------------------- activations
def test_patching_the_whole_stream_gives_the_donor_at_any_layer_above_the_change(tiny_model, texts) -> None:
    other = variant(tiny_model, lambda m: noise(m.value_weight(LAYER)))
    prompts = batches(tiny_model, texts, batch_size=3)
    truth = margins(other, prompts, TOKENS)
    found = patch(tiny_model, other, prompts, "resid_post", TOKENS)
    np.testing.assert_allclose(found[:, LAYER], truth, atol=1e-4)
    np.testing.assert_allclose(found[:, 0], margins(tiny_model, prompts, TOKENS), atol=1e-4)
    np.testing.assert_allclose(patch(tiny_model, other, prompts, "resid_pre", TOKENS)[:, LAYER + 1], truth, atol=1e-4)
    # Only what this MLP writes differs, so that writing it is enough, and what flows into it carries nothing.
    np.testing.assert_allclose(patch(tiny_model, other, prompts, "mlp_out", TOKENS)[:, LAYER], truth, atol=1e-4)
    clean = margins(tiny_model, prompts, TOKENS)
    for place in places_of(tiny_model)[:-3]:
        for layer in (0, LAYER) if place != "resid_post" else (0,):
            got = patch(tiny_model, other, prompts, place, TOKENS, layers=[layer])
            np.testing.assert_allclose(got[:, 0], clean, atol=1e-4)


def test_patching_what_attention_adds_to_the_stream_moves_the_middle_of_the_block(tiny_model, texts) -> None:
    if "resid_mid" not in places_of(tiny_model):
        return
    other = variant(tiny_model, lambda m: [noise(p, i) for i, p in enumerate(m.attention(LAYER).parameters())])
    prompts = batches(tiny_model, texts)
    truth = margins(other, prompts, TOKENS)
    for place in ("attn_out", "resid_mid"):
        np.testing.assert_allclose(patch(tiny_model, other, prompts, place, TOKENS)[:, LAYER], truth, atol=1e-4)
    into = patch(tiny_model, other, prompts, "h_down", TOKENS)[:, LAYER]  # carries a part
    assert not np.allclose(into, truth, atol=1e-3)


def test_patching_an_identical_model_changes_nothing(tiny_model, texts) -> None:
    twin = variant(tiny_model, lambda _: None)
    prompts = batches(tiny_model, texts)
    clean = margins(tiny_model, prompts, TOKENS)
    for place in places_of(tiny_model):
        found = patch(tiny_model, twin, prompts, place, TOKENS)
        np.testing.assert_allclose(found, np.repeat(clean[:, None], 3, axis=1), atol=1e-5)
    assert {e.value for e in effects(clean, clean, found)} == {0.0}


def test_places_are_what_capture_reads_at_them(tiny_model, texts) -> None:
    from interp.capture import capture

    prompts = [tiny_model.format_prompt(t) for t in texts]
    got = read(tiny_model, tiny_model.tokenize(prompts), TOKENS, places_of(tiny_model))
    want = capture(tiny_model, prompts, places_of(tiny_model), pool="last")
    for key, x in got.acts.items():
        torch.testing.assert_close(x[:, -1].float(), want[key].float(), atol=1e-3, rtol=1e-3)


def test_a_parallel_block_has_no_middle_and_says_so(tiny_models, texts) -> None:
    neox = tiny_models["neox"]
    assert "resid_mid" not in places_of(neox)
    with pytest.raises(InputError, match="run in parallel"):
        patch(neox, neox, batches(neox, texts), "resid_mid", TOKENS)
    with pytest.raises(InputError, match="expected one of resid_pre"):
        patch(neox, neox, batches(neox, texts), "hidden", TOKENS)


def test_single_positions_of_the_last_block_matter_only_at_the_end(llama, texts) -> None:
    other = variant(llama, lambda m: noise(m.value_weight(2)))
    prompts = batches(llama, texts)
    clean, truth = margins(llama, prompts, TOKENS), margins(other, prompts, TOKENS)
    last = patch(llama, other, prompts, "mlp_out", TOKENS, lambda _, b: from_end(b, 0), [2])[:, 0]
    before = patch(llama, other, prompts, "mlp_out", TOKENS, lambda _, b: from_end(b, 1), [2])[:, 0]
    np.testing.assert_allclose(last, truth, atol=1e-4)
    np.testing.assert_allclose(before, clean, atol=1e-4)


# --------------------------------------------------------------------------------------------- positions
QUESTION = "the cat sat"


def instance(number: int = 0, prompt: str = f"Look at the moon: {QUESTION}. A dog!", question: str = QUESTION):
    return Instance(number, "bias", question, prompt, "", "", "I am sorry", "Sure, here is", Knowledge("p", "a"))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_roles_part_the_prompt_by_its_text(tiny_models, architecture) -> None:
    model = tiny_models[architecture]
    rows = [instance(), instance(1, "A dog looked", "not in it")]
    batch = model.tokenize([model.format_prompt(i.adversarial_prompt) for i in rows])
    masks = {role: by_role(model, batch, rows, role) for role in ("all", "last", "question", "attack")}
    assert torch.equal(masks["all"], masks["last"] | masks["question"] | masks["attack"])
    assert not (masks["question"] & masks["attack"]).any()
    assert masks["last"].sum(1).tolist() == [1, 1]
    assert model.tokenizer.decode(batch.input_ids[0][masks["question"][0]]).strip() == QUESTION
    assert not masks["question"][1].any()
    with pytest.raises(InputError, match="unknown role"):
        by_role(model, batch, rows, "verb")
    with pytest.raises(InputError, match="expected 2 instances"):
        by_role(model, batch, rows[:1], "all")


def test_positions_from_the_end_are_empty_in_shorter_prompts(llama, texts) -> None:
    batch = llama.tokenize(texts)
    assert from_end(batch, 0).sum() == len(texts)
    shortest = int(batch.lengths.min())
    assert from_end(batch, shortest).sum() < len(texts)
    assert from_end(batch, 500).sum() == 0
    assert everywhere(batch).sum() == batch.lengths.sum()
    with pytest.raises(InputError, match="0 or more"):
        from_end(batch, -1)


# --------------------------------------------------------------------------------------------- attribution
class Same(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def linear_toy(make_model) -> HookedModel:
    """A GPT-2 without norms and non-linearities that attends to all positions alike: linear in every activation."""
    model = make_model("gpt2")
    for block in model.blocks:
        block.ln_1, block.ln_2, block.mlp.act = Same(), Same(), Same()
        block.attn.c_attn.weight.data[:, :64] = 0.0
        block.attn.c_attn.bias.data[:64] = 0.0
        for parameter in block.parameters():
            parameter.data *= 0.5
    model.hf.transformer.ln_f = Same()
    return model


def test_attribution_equals_patching_on_a_linear_model(make_model, texts) -> None:
    model = linear_toy(make_model)
    other = variant(model, lambda m: [noise(m.value_weight(0), 0, 0.05), noise(m.value_weight(2), 1, 0.05)])
    prompts = batches(model, texts, batch_size=3)
    estimates = attribute(model, other, prompts, TOKENS, last=4)
    for estimate, (receiver, donor) in zip(estimates, ((model, other), (other, model)), strict=True):
        clean = margins(receiver, prompts, TOKENS)[:, None]
        for place in places_of(model):
            true = patch(receiver, donor, prompts, place, TOKENS) - clean
            np.testing.assert_allclose(estimate.all_positions[place], true, atol=1e-4)
            for back in (0, 3):
                true = patch(receiver, donor, prompts, place, TOKENS, lambda _, b, k=back: from_end(b, k)) - clean
                np.testing.assert_allclose(estimate.last[place][:, :, back], true, atol=1e-4)
        assert np.abs(true).max() > 1e-3


def test_attribution_costs_one_forward_backward_pass_per_model_and_batch(llama, texts) -> None:
    other = variant(llama, lambda m: noise(m.value_weight(LAYER)))
    calls = []
    handles = [m.final_norm.register_forward_hook(lambda *_: calls.append(1)) for m in (llama, other)]
    attribute(llama, other, batches(llama, texts, batch_size=2), TOKENS)
    for handle in handles:
        handle.remove()
    assert len(calls) == 2 * 2
    assert all(p.grad is None and not p.requires_grad for p in llama.hf.parameters())


def test_agreement_is_the_correlation_over_cells() -> None:
    truth = np.random.default_rng(0).normal(size=(6, 5))
    assert agreement(2 * truth, truth).value == pytest.approx(1.0)
    assert agreement(-truth, truth).value == pytest.approx(-1.0)
    assert agreement(np.ones((6, 5)), truth).value == 0.0
    means = truth.mean(0), (truth**2).mean(0)
    assert agreement(truth, truth**2).value == pytest.approx(np.corrcoef(*means)[0, 1])


# --------------------------------------------------------------------------------------------- weights
def test_the_components_of_a_block_part_its_parameters(tiny_model) -> None:
    names = [parameter_names(tiny_model, Part(LAYER, c)) for c in COMPONENTS]
    flat = [n for part in names for n in part]
    assert sorted(flat) == sorted(parameter_names(tiny_model, Part(LAYER, "block")))
    assert all(names)
    assert names[0] == [tiny_model.value_name(LAYER)]
    whole = [n for part in everything(tiny_model) for n in parameter_names(tiny_model, part)]
    assert sorted(whole) == sorted(n for n, _ in tiny_model.hf.named_parameters())
    with pytest.raises(InputError, match="expected one of W_V, W_in, attention, norm, block"):
        Part(0, "mlp")
    with pytest.raises(InputError, match="expected one of embeddings, head"):
        Part(None, "W_V")


def test_swapping_everything_gives_the_donor_and_leaves_both_as_they_were(tiny_model, texts) -> None:
    other = variant(tiny_model, everywhere_noise)
    prompts = batches(tiny_model, texts, batch_size=3)
    before = dict(tiny_model.hf.named_parameters())
    receiver = Receiver(tiny_model, prompts, TOKENS)
    found = receiver.with_parts(other, everything(tiny_model))
    np.testing.assert_array_equal(found, margins(other, prompts, TOKENS))
    after = dict(tiny_model.hf.named_parameters())
    assert all(after[n] is p for n, p in before.items())
    np.testing.assert_array_equal(receiver.margins, margins(tiny_model, prompts, TOKENS))


def test_swapping_back_the_one_edited_matrix_recovers_everything_and_nothing_else_does(tiny_model, texts) -> None:
    other = variant(tiny_model, lambda m: noise(m.value_weight(LAYER)))
    prompts = batches(tiny_model, texts)
    receiver = Receiver(other, prompts, TOKENS)
    old = margins(tiny_model, prompts, TOKENS)
    for part in (Part(LAYER, "W_V"), Part(LAYER, "block")):
        after = receiver.with_parts(tiny_model, [part])
        [share] = effects(receiver.margins, old, after[:, None])
        assert share.value == pytest.approx(1.0, abs=1e-4)
    for part in (Part(LAYER, "W_in"), Part(0, "block"), Part(None, "embeddings"), Part(None, "head")):
        assert donated(other, tiny_model, [part]) == {}
        np.testing.assert_array_equal(receiver.with_parts(tiny_model, [part]), receiver.margins)


def test_weights_are_put_back_after_an_error_and_misfits_are_refused(llama, make_model) -> None:
    name, other = llama.value_name(0), make_model("llama", seed=1)
    own = llama.value_weight(0)
    with pytest.raises(RuntimeError, match="stop"), with_weights(llama, {name: other.value_weight(0)}):
        assert llama.value_weight(0) is other.value_weight(0)
        raise RuntimeError("stop")
    assert llama.value_weight(0) is own
    with pytest.raises(InputError, match="no parameter"), with_weights(llama, {"x": own}):
        pass
    with pytest.raises(InputError, match="no parameter"):
        donated(llama, make_model("gpt2"), [Part(0, "W_V")])


# --------------------------------------------------------------------------------------------- analyses
@pytest.fixture(scope="module")
def subjects(make_model):
    """A model whose W_V of one layer makes it refuse what vanilla complies with, on eight prompts."""
    vanilla = make_model("llama")
    words = ("the cat", "the dog", "a moon", "the mat", "a cat", "A dog", "the moon", "a mat")
    rows = tuple(instance(i, f"Look at the moon: {w} sat. A dog!", w) for i, w in enumerate(words))
    other = make_model("llama")
    with torch.no_grad():
        other.value_weight(LAYER).add_(0.4 * torch.randn(32, 48, generator=torch.Generator().manual_seed(1)))
    prompts = batches(vanilla, [r.adversarial_prompt for r in rows])
    logits = [m.logits(prompts[0])[:, -1].mean(0) for m in (vanilla, other)]
    moved = logits[1] - logits[0]
    tokens = MarginTokens((int(moved.argmax()),), (int(moved.argmin()),))
    lab = Lab(rows, (), (), tokens, LAYER, LAYER, torch.zeros(32), batch_size=5)
    return Subject("vanilla", vanilla, lab), Subject("edited", other, lab)


@pytest.mark.parametrize("analysis", [PATCHING, ATTRIBUTION, WEIGHT_SWAPS], ids=lambda a: a.name)
def test_an_analysis_measures_reads_and_is_written(subjects, analysis) -> None:
    vanilla, edited = subjects
    parts = [analysis.measure(s, vanilla) for s in (vanilla, edited)]
    assert (parts[0].curves, parts[0].bars, parts[0].grids) == ((), (), ())
    assert "nly vanilla was measured" in analysis.read(parts[0])
    found = merge(parts, analysis.read)
    assert found.curves
    assert found.grids
    assert all(e.n == 8 for panel in found.curves for c in panel.curves for e in c.y)
    assert "edited" in found.reading
    assert loads(Finding, dumps(found)).curves == found.curves


def test_the_patching_analysis_names_the_edited_block(subjects) -> None:
    vanilla, edited = subjects
    found = PATCHING.measure(edited, vanilla)
    panels = {p.title: p.curves[0] for p in found.curves}
    for direction in ("vanilla's into the model", "the model's into vanilla"):
        stream = [e.value for e in panels[f"residual stream, {direction}"].y]
        assert stream == pytest.approx([0.0, 0.0, 1.0], abs=1e-3)
        mlp = [e.value for e in panels[f"MLP output, {direction}"].y]
        assert mlp[LAYER] == pytest.approx(1.0, abs=1e-3)
    assert f"made in block {LAYER}" in PATCHING.read(found)
    grid = found.grids[0]
    assert grid.x[-1] == "last"
    assert grid.values[LAYER + 1, -1] > 0.1
    assert np.abs(grid.values[: LAYER + 1]).max() < 1e-3


def test_the_weight_swaps_name_the_edited_matrix(subjects) -> None:
    vanilla, edited = subjects
    found = WEIGHT_SWAPS.measure(edited, vanilla)
    grid = found.grids[0]
    assert grid.values[LAYER] == pytest.approx([1.0, 0.0, 0.0, 0.0, 1.0], abs=1e-3)
    assert np.abs(np.delete(grid.values, LAYER, axis=0)).max() == 0.0
    curves = {p.title: [e.value for e in p.curves[0].y] for p in found.curves}
    assert curves["vanilla's weights up to a block"] == pytest.approx([0.0, 1.0, 1.0], abs=1e-3)
    assert curves["vanilla's weights from a block on"] == pytest.approx([1.0, 1.0, 0.0], abs=1e-3)
    assert "W_V of layer 1 most (100 %)" in WEIGHT_SWAPS.read(found)


def test_the_attribution_analysis_shows_its_correlation_with_the_same_patches(subjects) -> None:
    vanilla, edited = subjects
    found = ATTRIBUTION.measure(edited, vanilla)
    series = found.bars[0].series
    for cells in (ALL, ONE, BACK):
        [value] = series[cells]
        assert value is not None
        assert 0.5 < value.value <= 1.0
    assert {f"{SIZE}, {ALL}", f"{SIZE}, {ONE}"} < set(series)


def test_a_model_without_an_effect_is_told_and_not_divided(subjects) -> None:
    vanilla, _ = subjects
    same = Subject("same", variant(vanilla.model, lambda _: None), vanilla.lab)
    for analysis in (PATCHING, ATTRIBUTION, WEIGHT_SWAPS):
        found = analysis.measure(same, vanilla)
        assert (found.curves, found.bars, found.grids) == ((), (), ())
        assert "no effect to divide" in analysis.read(found)


EDITS = ("edit on instance 1", "edit on instance 2", "edit on instance 3")


def without_effect(found: Finding, points: int) -> Finding:
    """An edit whose change is too small to divide."""
    said = f"{NO_EFFECT}: complying first tokens fell by {points} points [-7, 7]"
    return replace(found, curves=(), bars=(), grids=(), facts={"edited": said})


@pytest.mark.parametrize("analysis", [PATCHING, ATTRIBUTION, WEIGHT_SWAPS], ids=lambda a: a.name)
def test_edits_without_an_effect_are_told_and_never_speak_for_all(subjects, analysis) -> None:
    vanilla, edited = subjects
    reference, wide = (analysis.measure(s, vanilla) for s in (vanilla, edited))
    weak = [without_effect(wide, points) for points in (0, 4, 7)]
    none = merge([reference, over_edits(weak, EDITS)], analysis.read).reading
    assert "nly vanilla was measured" not in none
    for name, points in zip(EDITS, (0, 4, 7), strict=True):
        assert f"{name}: no effect to divide: complying first tokens fell by {points} points" in none
    one = merge([reference, over_edits([*weak[:2], wide], EDITS)], analysis.read).reading
    assert one.count("no effect to divide") == 2
    assert "edited, 1 of 3 edits: " in one
    assert "true patches of some" not in one  # how long the third took is no effect
    all_three = merge([reference, over_edits([wide] * 3, EDITS)], analysis.read).reading
    assert "of 3 edits" not in all_three
    assert all_three == merge([reference, wide], analysis.read).reading
