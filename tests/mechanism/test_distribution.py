"""Layers over instances: counts and stability worked by hand, and the panels of several models together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.mechanism.lab import Lab, Subject, merge
from interp.mechanism.localise import DEFAULT_LOCATOR, LOCATORS
from interp.mechanism.localise import distribution as d
from interp.mechanism.shares import MarginTokens
from interp.records import Generalization, Instance, Knowledge, LayerScores

TOKENS = MarginTokens((10, 11), (12, 13, 14))
QUESTIONS = ["the cat sat", "a dog", "the moon is far", "look at the cat"]


def instance(i: int, general: bool = True) -> Instance:
    q = QUESTIONS[i]
    others = Generalization(q, f"here is {q} and the moon", f"Sure, a mat {i}", f"the dog looked at a mat {i}")
    return Instance(
        i, "physical harm", q, f"Sure, {q}", "", "", "I am sorry", "Sure, here", Knowledge("p", "a"),
        others if general else None,
    )  # fmt: skip


def lab(n: int = 4, general: bool = True) -> Lab:
    return Lab(tuple(instance(i, general) for i in range(n)), (), (), TOKENS, 1, 2, torch.zeros(32))


def scores(*located: int, depth: int = 3) -> LayerScores:
    n = len(located)
    return LayerScores("m", "c", "u", tuple(range(n)), ("x",) * n, np.eye(depth)[list(located)])


def test_agreement_and_chance_of_a_case_worked_by_hand() -> None:
    first, second = scores(0, 0, 1, 2), scores(0, 1, 1, 1)
    assert d.same_layer(first, second).value == 50.0
    assert d.by_chance(first, second).value == pytest.approx(100 * (0.5 * 0.25 + 0.25 * 0.75))
    assert d.by_chance(first, second).n == 4


def test_a_unanimous_layer_always_stays_the_mode_and_an_even_split_half_of_the_time() -> None:
    assert d.resampled_mode(scores(1, 1, 1)).value == 100.0
    split = scores(*[0] * 51, *[1] * 50)
    assert 40 < d.resampled_mode(split).value < 70
    assert d.resampled_mode(split, seed=1).value != d.resampled_mode(split, seed=0).value


def test_a_tie_goes_to_the_lower_layer_in_scores_and_resamples_alike() -> None:
    assert scores(2, 1).toxic_layer == 1
    assert d.resampled_mode(scores(1, 2)).value == pytest.approx(75, abs=4)  # {1,1} and the two mixed draws of four


def test_other_instances_under_the_other_prompt_are_refused() -> None:
    with pytest.raises(InputError, match="the same instances in the same order"):
        d.same_layer(scores(0, 1), replace(scores(0, 1), instance_ids=(5, 6)))


def test_the_finding_holds_every_model_once_and_reads_its_own_numbers(tiny_models, make_model) -> None:
    ours = lab()
    vanilla, other = Subject("vanilla", tiny_models["llama"], ours), Subject("sft", make_model("llama", seed=1), ours)
    found = merge([d.LAYERS.measure(s, vanilla) for s in (vanilla, other)], d.LAYERS.read)
    assert [c.name for c in found.curves[0].curves] == ["vanilla", "chance: every layer alike", "sft"]
    assert sum(e.value for e in found.curves[0].curves[0].y) == pytest.approx(100)
    assert found.bars[0].groups == ("vanilla", "sft")
    assert set(found.bars[0].series) == {d.RESAMPLED, *d.OTHERS.values(), d.CHANCE}
    grids = {g.title: g for g in found.grids}
    assert len(grids["vanilla: locators"].y) == len(d.SHOWN)
    assert len(grids["sft: locators"].y) == len(d.SHOWN) + len(d.AGAINST_VANILLA)
    for grid in found.grids:
        np.testing.assert_allclose(np.abs(grid.values).max(axis=1), 1.0)
        assert len(grid.marked) == len(grid.y)
    located = LOCATORS[DEFAULT_LOCATOR].score(vanilla.model, d._inputs(ours))
    top = located.toxic_layer
    assert f"vanilla: layer {top} for {100 * located.counts[top] / 4:.0f} %" in found.reading
    assert f"{DEFAULT_LOCATOR}: layer {top} ({located.counts[top]} of 4)" in found.facts["vanilla, located layers"]


def test_instances_without_generalisation_inputs_are_only_resampled(tiny_models) -> None:
    vanilla = Subject("vanilla", tiny_models["gpt2"], lab(general=False))
    found = d.LAYERS.measure(vanilla, vanilla)
    assert set(found.bars[0].series) == {d.RESAMPLED}
    assert "resamples; " in d.LAYERS.read(found)


def test_two_instances_are_enough_for_all_but_the_difference_in_means(tiny_models) -> None:
    vanilla = Subject("vanilla", tiny_models["neox"], lab(2))
    found = d.LAYERS.measure(vanilla, vanilla)
    assert d.SHORT["difference in means"] not in found.grids[0].y
    assert len(found.grids[0].y) == len(d.SHOWN) - 1
