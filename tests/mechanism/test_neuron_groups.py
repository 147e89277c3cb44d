"""The four groups: the definition by hand, and an exact split of the change of every write."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lab import again, noise, small_lab, variant

from interp.mechanism.lab import Subject, merge
from interp.mechanism.neuron_groups import (
    CAUSE,
    CUMULATIVE,
    GROUPS,
    LAYERS,
    NET,
    NEURON_GROUPS,
    RAISING,
    SHARE,
    changes,
    group_of,
)
from interp.records import Finding


def test_the_groups_are_those_of_the_paper_where_only_activations_changed() -> None:
    v = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 0.5])
    old = torch.tensor([[2.0, -1.0, 2.0, -2.0, 1.0, 1.0, 3.0]])
    new = torch.tensor([[1.0, -3.0, 5.0, -1.0, 2.0, 0.5, 3.0]])
    # less positive, more negative, more positive, less negative; then three that do not lower
    found = changes(old, new, v, v)
    assert found.group.tolist() == [0, 1, 2, 3, 4, 4, 4]
    assert found.total[0].tolist() == [-1.0, -2.0, -3.0, -1.0, 1.0, 0.5, 0.0]
    assert not found.weights.any()
    assert GROUPS == ("TP-", "TN+", "AP+", "AN-")


def test_the_split_is_exact_and_even_where_both_changed() -> None:
    rng = torch.Generator().manual_seed(0)
    h0, h1 = torch.randn(2, 6, 40, generator=rng)
    v0, v1 = torch.randn(2, 40, generator=rng)
    found = changes(h0, h1, v0, v1)
    np.testing.assert_allclose(found.activations + found.weights, (h1 * v1 - h0 * v0).double(), atol=1e-6)
    hand = changes(torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([2.0]), torch.tensor([4.0]))
    # 3 * 4 - 1 * 2 = 10; activations first 4 or last 8, weights last 6 or first 2: the means are 6 and 4
    assert (hand.activations.item(), hand.weights.item()) == (6.0, 4.0)
    assert group_of(np.array([1.0]), np.array([0.0]), np.array([-0.1])).tolist() == [0]


def bars(finding: Finding, title: str) -> dict[str, dict[str, float]]:
    panel = next(b for b in finding.bars if b.title == title)
    return {
        name: {g: e.value for g, e in zip(panel.groups, values, strict=True) if e is not None}
        for name, values in panel.series.items()
    }


@pytest.mark.parametrize("plain", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "neox"])
def test_the_groups_sum_to_what_the_mlps_write_along_the_direction(plain, tiny_models) -> None:
    """Not Gemma2, whose norm behind the MLP is left out (`Finding.limits`)."""
    tiny_model = tiny_models[plain]
    vanilla = Subject("vanilla", tiny_model, small_lab(tiny_model))
    other = variant(vanilla, lambda m: [noise(p, i, 0.05) for i, p in enumerate(m.hf.parameters()) if p.dim() > 1])
    found = NEURON_GROUPS.measure(other, vanilla)
    net, cause = bars(found, NET), bars(found, CAUSE)
    toxic = vanilla.lab.toxic / vanilla.lab.toxic.norm()
    moved = ((other.last("mlp_out") - vanilla.last("mlp_out")) @ toxic).sum(dim=1).mean()
    assert abs(moved) > 0.01
    assert net["net"]["variant"] == pytest.approx(float(moved), abs=1e-4)
    assert sum(net[g]["variant"] for g in (*GROUPS, RAISING)) == pytest.approx(net["net"]["variant"], abs=1e-9)
    for group in (*GROUPS, RAISING, "net"):
        both = cause["activations"][f"variant {group}"] + cause["weights"][f"variant {group}"]
        assert both == pytest.approx(net[group]["variant"], abs=1e-9)
    assert all(net[g]["variant"] <= 0 for g in GROUPS)
    assert sum(bars(found, SHARE)[g]["variant"] for g in GROUPS) == pytest.approx(100.0)
    curve, layers = (next(p for p in found.curves if p.title == t).curves[0] for t in (CUMULATIVE, LAYERS))
    assert curve.x[-1] == 3 * tiny_model.d_mlp
    assert curve.y[-1].value == pytest.approx(net["net"]["variant"], abs=1e-6)
    assert min(e.value for e in curve.y) >= sum(net[g]["variant"] for g in GROUPS) - 1e-6
    assert sum(e.value for e in layers.y) == pytest.approx(net["net"]["variant"], abs=1e-6)


def test_an_edit_of_the_value_vectors_counts_though_no_activation_at_its_layer_changed(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    edited = variant(vanilla, lambda m: noise(m.value_weight(2)), "edited")
    found = NEURON_GROUPS.measure(edited, vanilla)
    cause, net = bars(found, CAUSE), bars(found, NET)
    assert all(value == 0.0 for value in cause["activations"].values())
    assert cause["weights"]["edited net"] == net["net"]["edited"] != 0
    assert all(cause["weights"][f"edited {g}"] < 0 for g in GROUPS)


def test_random_directions_lose_as_much_as_the_toxic_one_under_random_noise(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    other = variant(vanilla, lambda m: noise(m.value_weight(1), scale=0.1), "noise")
    found = merge([NEURON_GROUPS.measure(s, vanilla) for s in (vanilla, other)], NEURON_GROUPS.read)
    assert "noise changes the write" in found.reading
    assert ", within the" in found.reading
    [p] = found.facts.values()
    assert float(p.split()[2]) > 0.05


def test_a_planted_loss_along_the_toxic_direction_is_outside_chance(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    toxic = vanilla.lab.toxic / vanilla.lab.toxic.norm()
    active = torch.sign(vanilla.last("h_down")[:, 2].mean(dim=0))
    cut = variant(vanilla, lambda m: m.value_vectors(2).sub_(5.0 * torch.outer(active, toxic)), "cut")
    found = merge([NEURON_GROUPS.measure(s, vanilla) for s in (vanilla, cut)], NEURON_GROUPS.read)
    assert bars(found, NET)["net"]["cut"] < 0
    assert "outside the" in found.reading


def test_a_model_equal_to_vanilla_changes_nothing(llama) -> None:
    vanilla = Subject("vanilla", llama, small_lab(llama))
    found = merge([NEURON_GROUPS.measure(s, vanilla) for s in (vanilla, again(vanilla))], NEURON_GROUPS.read)
    assert all(e == 0.0 for series in bars(found, NET).values() for e in series.values())
    assert found.reading == "same writes what vanilla writes."
    assert NEURON_GROUPS.read(merge([NEURON_GROUPS.measure(vanilla, vanilla)])).startswith("There is no model")
