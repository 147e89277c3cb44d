"""The refusal direction: a planted one is recovered, and a push along it is measured in units of the gap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lab import again, noise, small_lab, variant

from interp.errors import InputError
from interp.mechanism.directions import (
    ALONG,
    ATTACKED,
    BARE,
    HARMLESS,
    OWN,
    POSITION,
    REFUSAL_DIRECTION,
    SHIFT,
    WITHIN,
    _verdict,
)
from interp.mechanism.lab import Subject, merge
from interp.mechanism.refusal_axis import (
    Axis,
    correlations,
    direction_cosines,
    last_of,
    refuses,
    shift_cosines,
    shuffled_directions,
    sides,
)
from interp.mechanism.shares import MarginTokens
from interp.records import Estimate


def clouds(layers: int = 2, d: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two clouds, three apart along a planted direction of each layer."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.nn.functional.normalize(torch.randn(layers, d, generator=generator), dim=-1)
    refused = 0.1 * torch.randn(40, layers, d, generator=generator) + 3 * planted
    return refused, 0.1 * torch.randn(50, layers, d, generator=generator), planted


def test_a_planted_direction_is_recovered_with_its_gap() -> None:
    refused, complied, planted = clouds()
    axis = Axis.between(refused, complied)
    assert torch.allclose((axis.direction * planted).sum(-1), torch.ones(2).double(), atol=1e-2)
    assert axis.gap.numpy() == pytest.approx([3.0, 3.0], abs=0.1)
    assert axis.position(refused).mean(axis=0) == pytest.approx([1.0, 1.0])
    assert axis.position(complied).mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-9)
    assert axis.shift(complied + 1.5 * planted, complied) == pytest.approx(np.full((50, 2), 0.5), abs=0.03)
    assert not axis.shift(refused, refused).any()


def test_shifts_along_the_direction_have_cosine_one_and_others_none() -> None:
    refused, complied, planted = clouds()
    axis = Axis.between(refused, complied)
    sideways = torch.randn(16, generator=torch.Generator().manual_seed(3)).double()
    sideways = (sideways - axis.direction * (axis.direction @ sideways)[:, None]).float()
    assert [e.value for e in shift_cosines(planted.expand(9, -1, -1), axis, 0)] == pytest.approx([1, 1], abs=1e-2)
    assert [e.value for e in shift_cosines(sideways.expand(9, -1, -1), axis, 0)] == pytest.approx([0, 0], abs=1e-5)
    assert [e.value for e in shift_cosines(torch.zeros(9, 2, 16), axis, 0)] == [0.0, 0.0]


def test_shuffled_labels_do_not_find_the_planted_direction() -> None:
    refused, complied, planted = clouds()
    found = shuffled_directions(refused, complied, 50, seed=0)
    assert torch.allclose(found.norm(dim=-1), torch.ones(50, 2).double())
    cosines = torch.einsum("rld,ld->rl", found, planted.double())
    assert abs(float(cosines.mean())) < 0.4  # either sign, as often
    assert torch.equal(found, shuffled_directions(refused, complied, 50, seed=0))


def test_directions_of_the_same_streams_are_the_same_and_of_turned_ones_not() -> None:
    refused, complied, _ = clouds()
    same = direction_cosines((refused, complied), (refused, complied), 0)
    assert [(e.value, e.low) for e in same] == [(pytest.approx(1.0), pytest.approx(1.0))] * 2
    swapped = direction_cosines((refused, complied), (complied[:40], refused.repeat(2, 1, 1)[:50]), 0)
    assert [e.value for e in swapped] == pytest.approx([-1, -1], abs=1e-2)


def test_the_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    x[:, 2] = 5.0
    found = correlations(x, y, 0)
    assert [e.value for e in found[:2]] == pytest.approx([np.corrcoef(x[:, i], y)[0, 1] for i in (0, 1)])
    assert found[0].low < found[0].value < found[0].high
    assert found[2].value == 0.0


@pytest.fixture(scope="module")
def vanilla(make_model) -> Subject:
    """A random model in which a first token of bare questions is made to differ from that of attacked prompts."""
    model = make_model("gpt2", seed=1)
    plain = Subject("vanilla", model, small_lab(model, 10, train=12))
    bare, attacked = (plain.last("resid_post", kind)[:, -1].mean(dim=0) for kind in ("onlyQ", "DS"))
    with torch.no_grad():  # tied: rows 10 and 12 are rare tokens that the prompts do not hold
        difference = torch.nn.functional.normalize(bare - attacked, dim=-1)
        model.unembedding.weight[10], model.unembedding.weight[12] = 60 * difference, -60 * difference
    return Subject("vanilla", model, plain.lab)


def test_a_push_along_the_direction_is_a_boost_and_is_read_as_one(vanilla) -> None:
    found = sides(vanilla)
    assert set(found.refused) <= {i.question for i in vanilla.lab.train}
    assert not refuses(vanilla, found.complied).any()
    assert refuses(vanilla, found.refused).all()
    axis = Axis.between(last_of(vanilla, found.refused), last_of(vanilla, found.complied))
    push = (0.5 * axis.gap[1] * axis.direction[1]).float()
    boosted = variant(vanilla, lambda m: m.blocks[1].mlp.c_proj.bias.add_(push), "boosted")
    parts = [REFUSAL_DIRECTION.measure(s, vanilla) for s in (vanilla, again(vanilla), boosted)]
    finding = merge(parts, REFUSAL_DIRECTION.read)
    panels = {p.title: {c.name: c for c in p.curves} for p in finding.curves}
    assert set(panels) == {POSITION, WITHIN, SHIFT, ALONG, OWN}
    assert [e.value for e in panels[SHIFT]["boosted"].y][:2] == pytest.approx([0.0, 0.5], abs=1e-4)
    assert [e.value for e in panels[ALONG]["boosted"].y][:2] == pytest.approx([0.0, 1.0], abs=1e-4)
    assert [e.value for e in panels[SHIFT]["same"].y] == [0.0] * 3
    assert [e.value for e in panels[OWN]["same"].y] == pytest.approx([1.0] * 3)
    assert panels[POSITION]["vanilla"].y == panels[POSITION]["same"].y
    assert panels[POSITION][BARE].control
    [bars] = finding.bars
    assert {kind: bars.series[kind][1].value for kind in (ATTACKED, HARMLESS)} == pytest.approx(
        {ATTACKED: 0.5, HARMLESS: 0.5}, abs=1e-4
    )
    assert "boosted moves attacked prompts by +0.50" in finding.reading
    assert "so it boosts refusal on both" in finding.reading
    assert "same changes nothing up to there: its shift is exactly 0 by construction" in finding.reading
    assert "+0.00 [+0.00" not in finding.reading
    assert "learnt from" in finding.facts


@pytest.mark.parametrize(
    ("attacked", "harmless", "said"),
    [
        ((0.07, 0.02, 0.10), (0.05, -0.001, 0.09), "; it is not clear whether it boosts refusal on harmless ones too"),
        ((0.07, 0.02, 0.10), (0.30, -0.01, 0.6), "; it is not clear whether it boosts refusal on harmless ones too"),
        ((0.45, 0.44, 0.46), (0.01, -0.01, 0.03), ", so the boost is smaller on harmless ones, if there is any"),
        ((0.45, 0.44, 0.46), (-0.02, -0.03, -0.01), ", so the boost is not on harmless ones"),
        ((0.45, 0.44, 0.46), (0.17, 0.16, 0.17), ", so it boosts refusal on both, less on harmless ones"),
        ((0.45, 0.40, 0.50), (0.42, 0.37, 0.47), ", so it boosts refusal on both"),
        ((0.02, -0.01, 0.05), (0.05, 0.01, 0.09), ""),
    ],
)
def test_an_interval_that_holds_zero_does_not_say_that_harmless_ones_stay(
    attacked: tuple[float, float, float], harmless: tuple[float, float, float], said: str
) -> None:
    moved, other = (Estimate(value, low, high, 27) for value, low, high in (attacked, harmless))
    assert _verdict(moved, other) == said


def test_without_a_training_split_or_harmless_requests_the_instances_serve(vanilla) -> None:
    lab = small_lab(vanilla.model, 10, train=0, benign=0)
    bare = Subject("vanilla", vanilla.model, lab)
    other = variant(bare, lambda m: noise(m.value_weight(1)), "other")
    found = merge([REFUSAL_DIRECTION.measure(s, bare) for s in (bare, other)], REFUSAL_DIRECTION.read)
    assert "no training split" in found.facts["learnt from"]
    assert HARMLESS not in found.bars[0].series


def test_a_model_that_refuses_nothing_has_no_direction(llama) -> None:
    lab = small_lab(llama, tokens=MarginTokens((2,), (12,)))
    with pytest.raises(InputError, match="refused bare questions to learn a direction, got 0 of"):
        sides(Subject("vanilla", llama, lab))


def test_only_vanilla_is_said_so(vanilla) -> None:
    alone = merge([REFUSAL_DIRECTION.measure(vanilla, vanilla)], REFUSAL_DIRECTION.read)
    assert alone.reading == "There is no model to compare with vanilla."
