"""Layers over instances: counts and stability worked by hand, and the panels of several models together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.mechanism.lab import Lab, Subject, merge
from interp.mechanism.localise import DEFAULT_LOCATOR, LOCATORS
from interp.mechanism.localise import distribution as d
from interp.mechanism.several import over_edits
from interp.mechanism.shares import MarginTokens
from interp.records import (
    Bars,
    Curve,
    Curves,
    Estimate,
    Finding,
    Generalization,
    Grid,
    Instance,
    Knowledge,
    LayerScores,
)

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


def test_scores_that_are_alike_at_all_layers_name_none_and_are_not_counted() -> None:
    rounding = replace(scores(0), unit="nats of refusal margin", values=np.array([[4e-7, 0.0, -2e-7]]))
    equal, small = replace(rounding, values=np.full((1, 3), 2.5)), replace(rounding, values=np.array([[0, 3e-4, 0]]))
    assert [d.mode(s) for s in (rounding, equal, small)] == [None, None, 1]
    assert d.mode(replace(rounding, unit="|| change || / || W_V ||")) == 0  # exact, however small
    mixed = replace(scores(2, 0, 2, 2), values=np.array([[0, 0, 1.0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))
    assert d.mode(mixed) == 2
    assert [e.value for e in d._counted("m", mixed).curves[0].y] == [0.0, 0.0, 25.0]
    assert d.same_layer(mixed, mixed).value == 25.0
    assert d.by_chance(mixed, mixed).value == pytest.approx(100 / 16)
    assert d.resampled_mode(mixed).value == pytest.approx(100 * (1 - 0.75**4), abs=4)
    grid = d._grid("m", {"zero ablation": rounding, "logit-lens push": small})
    assert grid.marked == ((1, 1),)
    assert d._told("zero ablation", rounding) == "zero ablation: no layer, all score alike"


def found_by(
    counts: tuple[float, ...], marks: Mapping[str, int | None], stays: Estimate | None = None, sample: float = 97.0
) -> Finding:
    """A finding of one model: percent of instances per layer, the layer each locator names, what another attack
    leaves."""
    chosen = Curve("dinm", tuple(map(float, range(3))), tuple(Estimate(v, v - 9, v + 9, 27, "%") for v in counts))
    rows = tuple(d.SHORT.get(name, name) for name in marks)
    cells = tuple((i, layer) for i, layer in enumerate(marks.values()) if layer is not None)
    grid = Grid("dinm: locators", "", "", ("0", "1", "2"), rows, np.zeros((len(rows), 3)), "", 27, marked=cells)
    series: dict[str, tuple[Estimate | None, ...]] = {d.RESAMPLED: (Estimate(sample, sample, sample, 27, "%"),)}
    if stays:
        series |= {"attack": (stays,), d.CHANCE: (Estimate(47, 38, 57, 27, "%"),)}
    bars, curves = (Bars(d.HOLDS, "%", ("dinm",), series),), (Curves("c", "layer", "%", (chosen,)),)
    return Finding("layers", "t", "q", "", "h", "l", 27, 0, curves=curves, bars=bars, grids=(grid,))


ALONE = {"gradient x weight": 1, "logit-lens push": 1, "zero ablation": 0, "singular value share": 1}


def test_the_reading_counts_the_others_and_tells_the_two_kinds_apart() -> None:
    said = d.LAYERS.read(found_by((20, 60, 20), ALONE))
    assert said.endswith("the mode of 97 % of resamples; 1 of 2 other locators of the model alone name it.")
    pairs = {"W_V swap": 1, "MLP-output patch": 2, "relative weight change": 1}
    said = d.LAYERS.read(found_by((20, 60, 20), {**ALONE, **pairs}))
    assert "; 1 of 2 other locators of the model alone name it, 1 of 2 that ask where vanilla was changed" in said
    blind = {**ALONE, "zero ablation": None, "W_V swap": None}
    assert "; 1 of 1 other locators of the model alone name it." in d.LAYERS.read(found_by((20, 60, 20), blind))
    none = d.LAYERS.read(found_by((0, 0, 0), dict.fromkeys(ALONE)))
    assert none == "By gradient x weight, dinm: no layer, as all score alike for every instance."


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(37, 72, "not clear of chance"), (58, 80, "more than chance"), (20, 37, "less than chance")],
)
def test_stability_is_said_to_be_beyond_chance_or_not(low: float, high: float, said: str) -> None:
    kept = Estimate((low + high) / 2, low, high, 27, "%")
    assert f"% [{low}, {high}] keep their layer, {said} (47 % [38, 57])" in d.LAYERS.read(
        found_by((20, 60, 20), ALONE, kept)
    )


def test_edits_that_locate_different_layers_are_told_so_and_are_not_read_off_the_first() -> None:
    first = found_by((10, 90, 0), {**ALONE, "zero ablation": 0}, sample=60)
    second = found_by((90, 10, 0), {**ALONE, "gradient x weight": 0, "logit-lens push": 0, "zero ablation": 0})
    third = replace(second, curves=found_by((80, 20, 0), ALONE).curves)
    names = ("edit on instance 1", "edit on instance 2", "edit on instance 3")
    said = d.LAYERS.read(over_edits([first, second, third], names))
    assert "dinm: layer 0 for 60 % " in said
    assert "over its edits, of which each by itself has its mode at layer 0 or 1" in said
    assert "resamples" not in said
    assert "; 1 of 2 other locators of the model alone name it (1 more for some edits)" in said
    alike = d.LAYERS.read(over_edits([second, third], names[:2]))
    assert "of instances, the mode of 97 % of resamples; 2 of 2 other locators" in alike


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
