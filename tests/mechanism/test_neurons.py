"""Toxic value vectors: a planted one is found, and what a change does to it is measured on the same neurons."""

from __future__ import annotations

import pytest
import torch
from tiny_lab import again, noise, small_lab, variant

from interp.errors import InputError
from interp.mechanism.lab import Subject, merge
from interp.mechanism.neurons import (
    CHANGE,
    COSINES,
    ISOTROPIC,
    NEURONS,
    PLACES,
    RANDOM,
    TOXIC,
    top_vectors,
    vectors_at,
    vocabulary,
)
from interp.models import HookedModel
from interp.records import dumps, loads
from interp.records.finding import Finding


def planted(model: HookedModel, layer: int, neuron: int, direction: torch.Tensor) -> None:
    model.value_vectors(layer)[neuron] = 3.0 * direction


def test_a_planted_toxic_vector_is_the_first_of_all_layers(tiny_model) -> None:
    plain = Subject("vanilla", tiny_model, small_lab(tiny_model))
    subject = variant(plain, lambda m: planted(m, 2, 7, plain.lab.toxic))
    top = top_vectors(subject.model, torch.stack([plain.lab.toxic, -plain.lab.toxic]), k=5)
    assert (int(top.layer[0, 0]), int(top.neuron[0, 0])) == (2, 7)
    assert float(top.cosine[0, 0]) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(top.cosine[0], top.cosine[0].sort(descending=True).values)
    assert torch.allclose(vectors_at(subject.model, top)[0, 0], 3.0 * plain.lab.toxic)


def test_the_top_vectors_are_those_of_a_search_over_everything(llama) -> None:
    direction = torch.randn(2, llama.d_model, generator=torch.Generator().manual_seed(1))
    top = top_vectors(llama, direction, k=9)
    every = torch.cat([llama.value_vectors(layer) for layer in range(3)])
    expected = torch.nn.functional.cosine_similarity(every[None], direction[:, None], dim=-1).topk(9, dim=1)
    torch.testing.assert_close(top.cosine, expected.values)
    assert torch.equal(top.layer * llama.d_mlp + top.neuron, expected.indices)
    assert top_vectors(llama, direction, k=10**6).cosine.shape == (2, 3 * llama.d_mlp)
    with pytest.raises(InputError, match="at least one value vector"):
        top_vectors(llama, direction, k=0)


def test_the_vocabulary_of_an_unembedding_row_is_its_token(llama) -> None:
    row = llama.unembedding.weight[300].detach()
    assert vocabulary(llama, row * 100, n=1) == repr(llama.tokenizer.decode([300]))


def test_a_model_equal_to_vanilla_moves_nothing_and_its_curve_is_vanillas(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    found = merge([NEURONS.measure(s, vanilla) for s in (vanilla, again(vanilla))], NEURONS.read)
    panels = {p.title: {c.name: c for c in p.curves} for p in found.curves}
    assert list(panels[COSINES]) == ["vanilla", RANDOM, ISOTROPIC, "same"]
    assert panels[COSINES]["same"].y == panels[COSINES]["vanilla"].y
    assert sum(e.value for e in panels[PLACES]["vanilla"].y) == 20
    [bars] = found.bars
    assert bars.title.startswith(CHANGE)
    assert [e.value for name in (TOXIC, RANDOM) for e in bars.series[name]] == [0.0] * 4
    assert "same by exactly 0 by construction" in found.reading
    assert "within" not in found.reading
    assert loads(Finding, dumps(found)) == found


def test_a_weakened_planted_vector_lies_outside_what_chance_moves(llama) -> None:
    plain = Subject("plain", llama, small_lab(llama))
    toxic = plain.lab.toxic

    def plant(m: HookedModel) -> None:
        for neuron in range(20):
            planted(m, 1, neuron, toxic)

    vanilla = variant(plain, plant, "vanilla")
    cut = variant(vanilla, lambda m: m.value_vectors(1)[:20].sub_(4.0 * toxic), "cut")
    other = variant(vanilla, lambda m: noise(m.value_weight(0), scale=1e-3), "other")
    found = merge([NEURONS.measure(s, vanilla) for s in (vanilla, cut, other)], NEURONS.read)
    moved = [e.value for e in found.bars[0].series[TOXIC]]
    assert moved == pytest.approx([0.0, -2.0, 0.0], abs=1e-4)  # cosine 1 becomes -1
    assert "Of vanilla's 20 most toxic value vectors, 20 are more aligned" in found.reading
    assert "cut by -2.0000 (outside" in found.reading
    slight = variant(vanilla, lambda m: noise(m.value_vectors(1)[:20], scale=1e-3), "slight")
    assert "slight by -0.0" in merge([NEURONS.measure(s, vanilla) for s in (vanilla, slight)], NEURONS.read).reading
    assert any("first singular vector" in name and said.startswith("holds 100 %") for name, said in found.facts.items())
