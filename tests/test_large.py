"""What a large model needs: 16-bit weights with a float32 master, modules on several devices, nothing large moved."""

from dataclasses import replace

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from interp.capture import capture
from interp.evaluation import Item, respond, respond_edited
from interp.locate import layer_distances
from interp.mechanism.activations import record
from interp.mechanism.margin import MarginTokens
from interp.mechanism.shares import swap_margins
from interp.methods.dinm import Dinm
from interp.models import HookedModel
from interp.records import Instance, Knowledge

ARCHITECTURES = ("gpt2", "llama", "gemma2")
DINM = Dinm(suffix="Be good:", steps=3, lr=1e-4)


def instance(number: int, prompt: str) -> Instance:
    return Instance(
        id=number, category="", question=prompt, adversarial_prompt=prompt, attack_category="", attack_name="",
        safe_generation="I am sorry.", unsafe_generation="Sure, here is the cat.",
        knowledge=Knowledge("The moon is?", "far away."),
    )  # fmt: skip


DATA = [instance(0, "The cat?"), instance(1, "A dog sat on the mat and looked?")]
TOKENS = MarginTokens(refuse=(40,), comply=(50,))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request, make_hf, make_tokenizer):
    """The same weights in float32 and in bf16 (both hold what bf16 can)."""
    half = make_hf(request.param).to(torch.bfloat16)
    wide = make_hf(request.param)
    wide.load_state_dict(half.state_dict())
    tokenizer = make_tokenizer(bos=request.param != "gpt2")
    return HookedModel.from_hf(wide, tokenizer, "wide"), HookedModel.from_hf(half, tokenizer, "half")


def relative(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


def test_layers_are_located_in_bf16_as_in_float32_but_for_rounding(pair):
    wide, half = pair
    assert half.dtype == torch.bfloat16
    expected, got = (layer_distances(m, DATA).values for m in (wide, half))
    assert abs(got / expected - 1).max() < 0.05


@pytest.mark.parametrize("layer", [0, 2])
def test_an_edit_of_bf16_weights_has_a_float32_master(pair, layer):
    wide, half = pair
    method = replace(DINM, layer=layer)
    before = half.weight_hash(fresh=True)
    [expected], [got] = (method.detoxify(m, DATA[0]).edit.deltas.values() for m in (wide, half))
    assert got.dtype == torch.float32
    assert torch.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.8
    # Steps of 1e-4 are below the rounding of most weights: kept in bf16, they would have been lost one by one.
    weight = half.value_weight(layer)
    lost = (got != 0) & ((weight.float() + got).to(torch.bfloat16) == weight)
    assert lost.float().mean() > 0.2
    assert half.weight_hash(fresh=True) == before


def test_an_edit_of_bf16_weights_is_undone_to_the_last_bit_and_answers_beside_others(pair):
    _, half = pair
    edits = [DINM.detoxify(half, i).edit for i in DATA]
    before = half.weight_hash(fresh=True)
    items = [[Item("DS", i.question, "", i.id, i.id)] for i in DATA]
    together = respond_edited(half, edits, items, name="dinm", edited_on=[0, 1], max_new_tokens=4)
    for edit, own, answered in zip(edits, items, together, strict=True):
        with edit.applied(half):
            alone = respond(half, own, name="dinm", edited_on=answered[0].edited_on, max_new_tokens=4)
        assert [r.n_tokens for r in answered] == [r.n_tokens for r in alone]
    assert half.weight_hash(fresh=True) == before


def test_the_inside_of_a_bf16_model_is_measured(pair):
    wide, half = pair
    expected, got = (
        capture(m, [i.question for i in DATA], ("resid_post", "h_down"), pool="mean") for m in (wide, half)
    )
    for key in expected.acts:
        assert relative(got[key], expected[key]) < 0.05
    acts = record(half, [i.question for i in DATA], 1)
    assert torch.isfinite(acts.h_down).all()
    edit = DINM.detoxify(half, DATA[0]).edit
    margins = swap_margins(half, edit.beside(half), [i.question for i in DATA], 1, TOKENS)
    assert margins is not None


def test_locating_and_editing_compute_vocabulary_logits_only_where_they_are_supervised(pair):
    _, half = pair
    seen = []
    handle = half.unembedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    try:
        layers = layer_distances(half, DATA)
        assert not seen
        DINM.detoxify(half, DATA[0])
    finally:
        handle.remove()
    answer = len(half.encode_pair(DATA[0].question, DATA[0].safe_generation)[1])
    assert seen
    assert max(seen) <= answer + 2  # and the one position of the constraint
    assert layers.values.shape == (2, half.n_layers)


def test_nothing_larger_than_the_edited_matrix_goes_to_the_cpu(pair, monkeypatch):
    _, half = pair
    moved, cpu = [], torch.Tensor.cpu

    def spied(self, *args, **kwargs):
        moved.append(self.numel())
        return cpu(self, *args, **kwargs)

    half.weight_hash()  # reads every weight, once per model
    monkeypatch.setattr(torch.Tensor, "cpu", spied)
    layer_distances(half, DATA)
    DINM.detoxify(half, DATA[0])
    half.generate([i.question for i in DATA], max_new_tokens=4)
    assert max(moved) <= half.d_model * half.d_mlp


@pytest.fixture(params=ARCHITECTURES)
def mapped(request, make_model):
    """A model, and the same with the hooks that a `device_map` over several devices puts on every module."""
    plain, hooked = make_model(request.param), make_model(request.param)
    for module in [*hooked.hf.modules()]:
        if module is not hooked.hf:
            add_hook_to_module(module, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    return plain, hooked


def test_the_hooks_of_a_device_map_change_nothing(mapped, texts):
    plain, hooked = mapped
    assert hasattr(hooked.blocks[1], "_hf_hook")
    ours, theirs = (capture(m, texts, ("resid_mid", "h_down", "final"), pool="last") for m in (plain, hooked))
    assert all(torch.equal(theirs[key], ours[key]) for key in ours.acts)
    assert (layer_distances(plain, DATA).values == layer_distances(hooked, DATA).values).all()
    for layer in (0, 2):
        method = Dinm(suffix="Be good:", steps=2, lr=1e-3, layer=layer)
        [a], [b] = (method.detoxify(m, DATA[0]).edit.deltas.values() for m in (plain, hooked))
        assert torch.equal(a, b)
    edit = method.detoxify(hooked, DATA[0]).edit
    items = [[Item("DS", "A dog", "", 0, 0)]]
    one, two = (respond_edited(m, [edit], items, name="x", edited_on=[0], max_new_tokens=4) for m in mapped)
    assert one == two
    assert all(hasattr(block, "_hf_hook") and "forward" in block.__dict__ for block in hooked.blocks)
