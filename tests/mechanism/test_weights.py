"""Weight changes: exact where only one matrix moved, and the same from deltas as from two models."""

from __future__ import annotations

import pytest
import torch

from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.mechanism.activations import inputs_untouched
from interp.mechanism.weights import change_by_layer, changed_parameters, edited_value_vectors, edits_change_by_layer


def edit_of(model, layer: int, seed: int = 0) -> WeightEdit:
    weight = model.value_weight(layer)
    delta = 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    provenance = Provenance("test", model.source, model.weight_hash(), layer=layer)
    return WeightEdit({model.value_name(layer): delta}, provenance)


def test_edited_value_vectors_are_those_of_the_applied_edit(tiny_model) -> None:
    edits = [edit_of(tiny_model, 1, seed) for seed in (0, 1)]
    before = tiny_model.value_vectors(1).clone()
    streamed = list(edited_value_vectors(tiny_model, (e.deltas for e in edits), 1))
    assert torch.equal(tiny_model.value_vectors(1), before)
    for edit, W in zip(edits, streamed, strict=True):
        with edit.applied(tiny_model):
            assert torch.equal(tiny_model.value_vectors(1), W)
    [other] = edited_value_vectors(tiny_model, [edits[0].deltas], 2)
    assert torch.equal(other, tiny_model.value_vectors(2))


def test_only_the_edited_block_changed_and_deltas_say_the_same_as_models(tiny_model) -> None:
    edit = edit_of(tiny_model, 1)
    beside = edit.beside(tiny_model)
    found = change_by_layer(tiny_model, beside)
    block = sum(float(p.double().square().sum()) for p in tiny_model.blocks[1].parameters()) ** 0.5
    assert found[0] == found[2] == 0.0
    assert found[1] == pytest.approx(100 * edit.norm / block, rel=1e-4)
    assert edits_change_by_layer(tiny_model, [edit.deltas]) == pytest.approx(found, rel=1e-4)
    assert changed_parameters(tiny_model, beside) == [tiny_model.value_name(1)]


def test_the_mean_over_edits_of_different_layers(llama) -> None:
    a, b = edit_of(llama, 0), edit_of(llama, 2)
    alone = change_by_layer(llama, a.beside(llama))[0]
    found = edits_change_by_layer(llama, [a.deltas, b.deltas])
    assert found[0] == pytest.approx(alone / 2, rel=1e-4)
    assert found[1] == 0.0


def test_another_shape_is_refused(llama, tiny_models) -> None:
    with pytest.raises(InputError, match="does not have the shape"):
        change_by_layer(llama, tiny_models["gpt2"])
    with pytest.raises(InputError, match="at least one edit"):
        edits_change_by_layer(llama, [])


def test_what_reaches_the_inputs_of_the_region(tiny_model) -> None:
    name = tiny_model.value_name
    first = next(n for n, _ in tiny_model.hf.named_parameters())  # the embeddings
    norm = f"{tiny_model.layout.final_norm}.weight"
    assert inputs_untouched(tiny_model, [name(1)], 1)
    assert inputs_untouched(tiny_model, [name(2), norm], 1)
    assert not inputs_untouched(tiny_model, [name(1), name(0)], 1)
    assert not inputs_untouched(tiny_model, [first], 1)
    before_it = next(n for n, _ in tiny_model.hf.named_parameters() if f"{tiny_model.layout.blocks}.1." in n)
    assert not inputs_untouched(tiny_model, [before_it], 1)
    head = [n for n, _ in tiny_model.hf.named_parameters() if n.startswith(("lm_head", "embed_out"))]
    assert inputs_untouched(tiny_model, head, 1)
