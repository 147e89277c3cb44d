"""Edited models decoded together against each decoded alone."""

from __future__ import annotations

import pytest
import torch

from interp import decode
from interp.edits import Provenance, WeightEdit
from interp.errors import InputError
from interp.multi import RowWeights, generate_edited, shareable


def edit_of(model, layer: int, seed: int, size: float = 0.4, bias: bool = False) -> WeightEdit:
    generator = torch.Generator().manual_seed(seed)
    names = [model.value_name(layer)]
    names += [names[0].removesuffix("weight") + "bias"] if bias else []
    parameters = dict(model.hf.named_parameters())
    deltas = {n: size * torch.randn(parameters[n].shape, generator=generator) for n in names}
    return WeightEdit(deltas, Provenance("random", model.source, model.weight_hash(), layer=layer))


def alone(model, prompts, which, edits, n):
    answers = []
    for prompt, index in zip(prompts, which, strict=True):
        if index is None:
            answers += model.generate([prompt], max_new_tokens=n)
        else:
            with edits[index].applied(model):
                answers += model.generate([prompt], max_new_tokens=n)
    return answers


def test_rows_of_different_edits_answer_as_each_edited_model_alone(tiny_model, texts):
    edits = [edit_of(tiny_model, layer, seed) for layer, seed in ((1, 0), (1, 1), (2, 2), (0, 3))]
    prompts = [*texts, *texts]
    which = [0, 1, 2, 3, None, 0, 2, 1]
    together = generate_edited(tiny_model, prompts, which, edits, max_new_tokens=10, batch_size=3)
    assert together == alone(tiny_model, prompts, which, edits, 10)
    plain = tiny_model.generate(prompts, max_new_tokens=10)
    assert together[4] == plain[4]
    assert sum(a != b for a, b in zip(together, plain, strict=True)) >= 4  # the edits do something


def test_an_edit_of_several_layers_and_of_a_bias_is_followed(make_model, texts):
    model = make_model("gpt2")
    several = edit_of(model, 0, 1)
    several = WeightEdit({**several.deltas, **edit_of(model, 2, 2).deltas}, several.provenance)
    edits = [several, edit_of(model, 1, 3, bias=True)]
    which = [0, 1, 1, 0]
    assert all(shareable(model, e) for e in edits)
    assert generate_edited(model, texts, which, edits, max_new_tokens=8) == alone(model, texts, which, edits, 8)


def test_an_edit_of_other_weights_is_decoded_alone_in_its_place(make_model, texts):
    model, seen = make_model("llama"), []
    name = "model.layers.0.self_attn.o_proj.weight"
    delta = torch.randn(dict(model.hf.named_parameters())[name].shape, generator=torch.Generator().manual_seed(0))
    attention = WeightEdit({name: delta}, Provenance("random", model.source, model.weight_hash()))
    edits, which = [edit_of(model, 1, 0), attention], [1, 0, None, 1]
    together = generate_edited(
        model, texts, which, edits, max_new_tokens=8, progress=lambda done, total: seen.append((done, total))
    )
    assert together == alone(model, texts, which, edits, 8)
    assert seen[-1] == (4, 4)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_model_is_left_as_it_was(llama, texts):
    before = llama.generate(texts, max_new_tokens=6)
    forwards = [llama.value_module(layer).__dict__.get("forward") for layer in range(llama.n_layers)]
    with pytest.raises(RuntimeError, match="stop here"):
        generate_edited(llama, texts, [0] * 4, [edit_of(llama, 1, 0)], max_new_tokens=6, progress=lambda *_: _stop())
    assert [llama.value_module(layer).__dict__.get("forward") for layer in range(llama.n_layers)] == forwards
    assert llama.generate(texts, max_new_tokens=6) == before


def _stop() -> None:
    raise RuntimeError("stop here")


def test_what_cannot_be_decoded_together_is_refused(make_model, texts):
    model = make_model("llama")
    name = "model.layers.0.self_attn.o_proj.weight"
    delta = torch.zeros_like(dict(model.hf.named_parameters())[name])
    attention = WeightEdit({name: delta}, Provenance("random", model.source, model.weight_hash()))
    assert not shareable(model, attention)
    with pytest.raises(InputError, match="expected edits of W_V alone, got one of model"):
        RowWeights(model, {0: attention})
    good = edit_of(model, 1, 0)
    with pytest.raises(InputError, match="one of 1 edits or None"):
        generate_edited(model, texts, [0, 0, 0, 1], [good])
    with pytest.raises(InputError, match="one of 1 edits or None"):
        generate_edited(model, texts, [0], [good])
    with pytest.raises(InputError, match="the edit was made on"):
        generate_edited(make_model("llama", seed=1), texts, [0] * 4, [good])


def test_many_rows_of_many_edits_are_decoded_in_two_threads_each_with_its_own_rows(make_model, texts, monkeypatch):
    monkeypatch.setattr(decode, "processors", lambda: 2)
    model = make_model("llama")
    edits = [edit_of(model, 1, seed) for seed in range(5)]
    prompts = [f"{texts[i % 4]} {i}" for i in range(40)]
    which = [i % 6 if i % 6 < 5 else None for i in range(40)]
    together = generate_edited(model, prompts, which, edits, max_new_tokens=5, batch_size=8)
    assert together == alone(model, prompts, which, edits, 5)
