"""Ablation, re-activation, un-alignment and relearning on models whose answer is known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_lab import again, noise, small_lab, variant

from interp.errors import InputError
from interp.mechanism.ablation import LEVEL as ABLATED_LEVEL
from interp.mechanism.ablation import MEAN, donors
from interp.mechanism.interventions import ABLATION, INTERVENTIONS, REACTIVATION, RELEARNING, UNALIGNMENT, Tuning
from interp.mechanism.lab import Subject, merge
from interp.mechanism.reactivation import ALPHAS, BACK, pushed, shift
from interp.mechanism.relearning import ATTACKED, course, relearning, reversal, training_pairs
from interp.mechanism.unalignment import DOSES, RATE, RIGHT, by_cosine, random_neurons
from interp.records import Curve, Curves, Estimate, Finding

LAYER = 1
QUICK = Tuning(steps=(0, 1, 3), pairs=4, lr=3e-3)


@pytest.fixture(params=["gpt2", "llama", "neox"])
def subject(request, tiny_models) -> Subject:
    """A tiny vanilla with its lab, of three MLP layouts in turn."""
    model = tiny_models[request.param]
    return Subject("vanilla", model, small_lab(model, layer=LAYER))


@pytest.fixture
def llama_subject(llama) -> Subject:
    return Subject("vanilla", llama, small_lab(llama, layer=LAYER))


def weights(subject: Subject) -> dict[str, torch.Tensor]:
    return {name: p.clone() for name, p in subject.model.hf.named_parameters()}


@pytest.mark.parametrize("analysis", [*INTERVENTIONS[:-1], relearning(QUICK)], ids=lambda a: a.name)
def test_every_weight_is_bitwise_the_same_after_each_analysis(subject, analysis) -> None:
    other = variant(subject, lambda m: noise(m.value_weight(0)), "sft")
    before = weights(subject), weights(other)
    parts = [analysis.measure(s, subject) for s in (subject, other)]
    finding = merge(parts, analysis.read)
    assert (finding.name, finding.n) == (analysis.name, 8)
    assert finding.reading.endswith(".")
    assert "sft" in finding.reading
    for s, kept in zip((subject, other), before, strict=True):
        assert all(torch.equal(p, kept[name]) for name, p in s.model.hf.named_parameters())


# --------------------------------------------------------------------------------------------- ablation
def test_ablating_a_layer_that_writes_nothing_changes_nothing(subject) -> None:
    def silence(model) -> None:
        model.value_weight(LAYER).zero_()
        if getattr(model.value_module(LAYER), "bias", None) is not None:
            model.value_module(LAYER).bias.zero_()

    silent = variant(subject, silence)
    finding = ABLATION.measure(silent, subject)
    for panel in finding.curves:
        changes = [e.value for e in panel.curves[0].y]
        assert changes[LAYER] == 0.0, panel.title
        assert changes[0] != 0.0
    levels = next(b for b in finding.bars if b.title == ABLATED_LEVEL).series
    assert levels[f"mean, layer {LAYER}"] == levels["intact"]


@pytest.mark.parametrize("biased", ["gpt2", "neox"])
def test_a_layer_that_writes_a_constant_is_its_own_mean(biased, tiny_models) -> None:
    subject = Subject("vanilla", tiny_models[biased], small_lab(tiny_models[biased], layer=LAYER))

    def constant(model) -> None:
        model.value_weight(LAYER).zero_()
        noise(model.value_module(LAYER).bias)

    finding = ABLATION.measure(variant(subject, constant), subject)
    panels = {p.title.split()[-2]: p.curves[0].y[LAYER].value for p in finding.curves}
    assert panels["mean"] == pytest.approx(0.0, abs=1e-4)
    assert panels["resample"] == pytest.approx(0.0, abs=1e-4)
    assert abs(panels["zero"]) > 1e-3


def test_nobody_is_resampled_from_itself() -> None:
    for n in (2, 5, 8):
        assert not (donors(n, n, 3) == np.arange(n)).any()
        assert sorted(donors(n, n, 3)) == list(range(n))
    assert set(donors(7, 3, 0)) == {0, 1, 2}


def test_the_located_layer_is_marked_and_named(llama_subject) -> None:
    finding = merge([ABLATION.measure(llama_subject, llama_subject)], ABLATION.read)
    assert next(p for p in finding.curves if p.title == MEAN).marked == (float(LAYER),)
    assert f"layer {LAYER}" in finding.reading
    lonely = Subject("v", llama_subject.model, replace(llama_subject.lab, benign=()))
    assert "attack prompts themselves" in ABLATION.measure(lonely, lonely).how_to_read


# --------------------------------------------------------------------------------------------- re-activation
def test_every_tokens_own_shift_puts_vanillas_inputs_back_exactly(subject) -> None:
    """Changed in front of W_V only: with vanilla's inputs there the model is vanilla."""
    key = {"c_proj": "c_fc", "down_proj": "gate_proj", "dense_4h_to_h": "dense_h_to_4h"}[subject.model.layout.value]
    other = variant(subject, lambda m: noise(getattr(m.mlp(LAYER), key).weight), "sft")
    moved = shift(subject.model, other.model, other.prompts(), LAYER)
    assert not moved.zero
    assert np.abs(other.margins() - subject.margins()).max() > 0.1
    assert pushed(other, LAYER, moved.own, 1.0) == pytest.approx(subject.margins(), abs=1e-3)
    assert pushed(other, LAYER, moved.own, 0.0) == pytest.approx(other.margins(), abs=1e-5)
    bars = REACTIVATION.measure(other, subject).bars
    if bars and (own := bars[0].series[f"own shifts, layer {LAYER}"][0]) is not None:
        assert own.value == pytest.approx(100.0, abs=1.0)


def test_the_mean_shift_is_the_mean_over_real_tokens(llama_subject) -> None:
    other = variant(llama_subject, lambda m: noise(m.value_weight(0)), "sft")
    moved = shift(llama_subject.model, other.model, other.prompts(), LAYER)
    pieces = []
    for s in (other, llama_subject):
        texts = [s.model.format_prompt(q) for q in s.lab.queries()]
        from interp.capture import capture

        acts = [capture(s.model, [t], ("h_down",), LAYER)["h_down", LAYER][0] for t in texts]
        pieces.append(torch.cat(acts).mean(dim=0))
    assert torch.allclose(moved.mean, pieces[0] - pieces[1], atol=1e-4)


def test_an_edit_of_the_region_itself_shifts_nothing_and_that_is_said(subject) -> None:
    other = variant(subject, lambda m: noise(m.value_weight(LAYER)), "dinm")
    parts = [REACTIVATION.measure(s, subject) for s in (subject, other)]
    finding = merge(parts, REACTIVATION.read)
    assert "the shift is exactly 0" in finding.facts[f"dinm, layer {LAYER}"]
    assert "exactly 0" in finding.reading
    assert all(c.name == "vanilla" for panel in finding.curves for c in panel.curves)
    assert not finding.bars


def test_doses_begin_at_the_models_own_margin_beside_a_random_direction(llama_subject) -> None:
    other = variant(llama_subject, lambda m: noise(m.value_weight(0), scale=1.0), "sft")
    finding = merge([REACTIVATION.measure(s, llama_subject) for s in (llama_subject, other)], REACTIVATION.read)
    curves = {c.name: c for c in finding.curves[0].curves}
    assert set(curves) == {"vanilla", "sft", "sft, random direction"}
    assert curves["sft"].x == ALPHAS
    assert curves["sft"].y[0].value == curves["sft, random direction"].y[0].value
    assert curves["sft"].y[0].value == pytest.approx(other.margins().mean())
    assert [b.title for b in finding.bars] == [BACK]


def test_a_vanilla_of_another_shape_is_one_line(llama_subject, make_model) -> None:
    with pytest.raises(InputError, match="expected a vanilla model of the shape of"):
        shift(make_model("llama", n_layers=2), llama_subject.model, llama_subject.prompts(), LAYER)


# --------------------------------------------------------------------------------------------- un-alignment
def test_the_planted_toxic_neurons_are_found(subject) -> None:
    toxic = subject.lab.toxic

    def plant(model) -> None:
        model.value_vectors(0)[7] = 3 * toxic
        model.value_vectors(2)[11] = toxic

    planted = variant(subject, plant)
    found = by_cosine(planted.model, toxic, 2)
    assert {layer: index.tolist() for layer, index in found.items()} == {0: [7], 2: [11]}
    with pytest.raises(InputError, match=r"expected 1\.\.144 neurons"):
        by_cosine(planted.model, toxic, 145)


def test_random_neurons_are_as_many_in_each_layer_and_none_of_the_toxic_ones() -> None:
    toxic = {0: torch.tensor([1, 4]), 2: torch.arange(10)}
    found = random_neurons(toxic, 24, seed=1)
    assert {layer: len(index) for layer, index in found.items()} == {0: 2, 2: 10}
    assert all(not set(found[layer].tolist()) & set(toxic[layer].tolist()) for layer in toxic)


def test_dose_one_is_the_model_itself_and_louder_neurons_are_seen(llama_subject) -> None:
    finding = merge([UNALIGNMENT.measure(llama_subject, llama_subject)], UNALIGNMENT.read)
    level = next(p for p in finding.curves if p.title == "refusal margin")
    own, random = level.curves
    assert own.x == DOSES
    assert own.y[0].value == pytest.approx(llama_subject.margins().mean(), abs=1e-5)
    assert own.y[0].value == random.y[0].value
    assert own.y[-1].value != own.y[0].value
    kl = next(p for p in finding.curves if "KL" in p.title)
    assert kl.curves[0].y[0].value == 0.0
    assert kl.curves[0].y[-1].value > 0.0


def test_without_harmless_requests_the_missing_check_is_said(llama_subject) -> None:
    bare = Subject("vanilla", llama_subject.model, replace(llama_subject.lab, benign=()))
    finding = merge([UNALIGNMENT.measure(bare, bare)], UNALIGNMENT.read)
    assert RIGHT not in [p.title for p in finding.curves]
    assert RATE in [p.title for p in finding.curves]
    assert "nothing tells an un-aligned model from a broken one" in finding.reading


# --------------------------------------------------------------------------------------------- relearning
def test_training_lowers_the_loss_and_is_done_once(subject) -> None:
    found = course(subject, "unsafe", QUICK)
    assert found.loss[-1] < found.loss[0]
    assert found.margins["DS"].shape == (3, 8)
    assert found.margins["DS"][0] == pytest.approx(subject.margins())
    assert np.abs(found.margins["DS"][-1] - found.margins["DS"][0]).max() > 1e-3
    assert course(subject, "unsafe", QUICK) is found
    assert course(again(subject), "unsafe", QUICK) is not found
    assert course(again(subject), "unsafe", QUICK).loss == found.loss


def test_the_loss_before_the_first_step_is_the_models_own(llama_subject) -> None:
    pairs = training_pairs(llama_subject.lab.train, "unsafe", 4, 0)
    total, n = 0.0, 0
    for prompt, answer in pairs:
        head, tail = llama_subject.model.encode_pair(prompt, answer, eos=False)
        said = llama_subject.model.logits(llama_subject.model.pad([head + tail]))[0].log_softmax(-1)
        total -= sum(float(said[len(head) - 1 + t, token]) for t, token in enumerate(tail))
        n += len(tail)
    assert course(llama_subject, "unsafe", QUICK).loss[0] == pytest.approx(total / n, rel=1e-4)


def test_training_the_value_matrices_alone_changes_other_things_less(llama_subject) -> None:
    part = course(llama_subject, "unsafe", replace(QUICK, values_only=True))
    whole = course(llama_subject, "unsafe", QUICK)
    assert part.loss[0] == pytest.approx(whole.loss[0])
    assert whole.loss[-1] < part.loss[-1] < part.loss[0]


def test_relearning_has_its_control_beside_it_and_reversal_reads_the_same_run(llama_subject) -> None:
    relearned = merge([relearning(QUICK).measure(llama_subject, llama_subject)], RELEARNING.read)
    names = [c.name for c in relearned.curves[0].curves]
    assert names == ["vanilla", "vanilla, harmless pairs"]
    assert relearned.curves[0].curves[1].control
    analysis = reversal(QUICK)
    lasted = merge([analysis.measure(llama_subject, llama_subject)], analysis.read)
    attacked = next(p for p in lasted.curves if p.title == "compliance under attack, unsafe steps")
    assert attacked.curves[0].y == relearned.curves[0].curves[0].y
    assert lasted.seconds < 0.5 * relearned.seconds


def test_what_was_lost_is_held_against_vanilla_wherever_its_curve_stands() -> None:
    def curve(name: str, *values: float) -> Curve:
        y = tuple(Estimate(v, v, v, 8, "%") for v in values)
        return Curve(name, (0.0, 1.0, 2.0), y, name.endswith("pairs"))

    vanilla, sft = (
        (curve("vanilla", 90, 90, 90), curve("vanilla, harmless pairs", 90, 90, 90)),
        (
            curve("sft", 10, 40, 60),
            curve("sft, harmless pairs", 10, 10, 10),
        ),
    )

    def read(*curves: Curve) -> str:
        panel = Curves(ATTACKED, "steps", "%", curves)
        return RELEARNING.read(Finding("relearning", "t", "q", "", "h", "l", 8, 0, curves=(panel,)))

    for order in ((*vanilla, *sft), (*sft, *vanilla)):
        assert "sft is half-way back within 2 steps" in read(*order)
    alone = read(*sft)
    assert "sft has no vanilla to be held against (10 %" in alone
    assert "to relearn" not in alone


def test_no_training_instances_is_one_line(llama_subject) -> None:
    empty = Subject("vanilla", llama_subject.model, replace(llama_subject.lab, train=()))
    with pytest.raises(InputError, match="needs training instances with unsafe answers, and the lab has none"):
        RELEARNING.measure(empty, empty)


def test_tunings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="steps that rise from 0"):
        Tuning(steps=(1, 2))
    with pytest.raises(InputError, match="at least one pair"):
        Tuning(pairs=0)
