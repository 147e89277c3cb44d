"""Locating: the authors' distances, the formula by hand, and batches that change nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.locate import (
    CONVENTIONS,
    PAPER,
    PAPER_FINAL_NORM,
    REFERENCE_LEFT,
    REFERENCE_RIGHT,
    Convention,
    layer_distances,
)
from interp.models import HookedModel
from interp.records import Instance, Knowledge


def instance(prompt: str, safe: str, unsafe: str, number: int = 0) -> Instance:
    return Instance(
        id=number,
        category="bias",
        question=prompt,
        adversarial_prompt=prompt,
        attack_category="",
        attack_name="",
        safe_generation=safe,
        unsafe_generation=unsafe,
        knowledge=Knowledge("The moon?", "Far away."),
    )


@pytest.fixture(scope="module")
def instances():
    return [
        instance("The cat?", "I am sorry.", "Sure, here is the cat on the mat.", 3),
        instance("A dog, and the moon is far away?", "I cannot help with that, I am sorry.", "Sure.", 1),
        instance("On?", "sorry", "Sure, here is a long time.", 2),
    ]


@pytest.fixture(scope="module")
def golden_instances(golden):
    raw = json.loads((golden / "instances.json").read_text())["instances"]
    return [instance(r["prompt"], r["target_new"], r["ground_truth"], r["case_id"]) for r in raw]


@pytest.fixture(scope="module")
def golden_locate(golden):
    return json.loads((golden / "reference.json").read_text())["locate"]


# ------------------------------------------------------------------------------------------------- the authors' numbers
@pytest.mark.parametrize("convention", [REFERENCE_RIGHT, REFERENCE_LEFT], ids=lambda c: c.padding)
def test_the_released_codes_distances_and_layers_are_reproduced(
    golden_model, golden_instances, golden_locate, convention
):
    expected = golden_locate[convention.padding]["per_instance"]
    scores = layer_distances(golden_model, golden_instances, convention, batch_size=6)
    np.testing.assert_allclose(scores.values, [e["distances"] for e in expected], rtol=1e-5)
    assert scores.located == tuple(e["layer0"] for e in expected) == (5, 4, 4)


@pytest.mark.parametrize(("over", "key"), [("common", "common_real_columns"), ("last", "last_token")])
def test_the_recorded_variants_without_padding_are_reproduced(golden_model, golden_instances, golden_locate, over, key):
    expected = golden_locate["variants_right"]["per_instance"]
    convention = Convention("variant", given="nothing", over=over, final_norm=True)
    scores = layer_distances(golden_model, golden_instances, convention)
    np.testing.assert_allclose(scores.values, [e[f"distances_{key}"] for e in expected], rtol=1e-5)
    assert scores.located == tuple(
        e[f"layer0_{key.split('_')[0]}" if over == "common" else "layer0_last_token"] for e in expected
    )


def test_only_left_padded_matrices_depend_on_the_attention_backend(golden, golden_instances, golden_locate):
    eager = HookedModel.from_pretrained(golden / "tiny_model", device="cpu")
    eager.hf.set_attn_implementation("eager")
    for convention, low, high in ((REFERENCE_RIGHT, 0, 1e-5), (REFERENCE_LEFT, 0.01, 0.16)):
        expected = np.array([e["distances"] for e in golden_locate[convention.padding]["per_instance"]])
        apart = np.abs(layer_distances(eager, golden_instances, convention).values / expected - 1).max()
        assert low <= apart <= high


# ------------------------------------------------------------------------------------------------- by hand
def test_the_papers_distance_is_the_l2_norm_between_the_mean_states_of_the_responses_given_the_query(llama):
    one = instance("The cat?", "I am sorry.", "Sure, here is the cat.")
    means = []
    for answer in (one.safe_generation, one.unsafe_generation):
        prompt, reply = llama.encode_pair(one.adversarial_prompt, answer, eos=False)
        with torch.no_grad():
            states = llama.hf(torch.tensor([prompt + reply]), output_hidden_states=True).hidden_states
        means.append([s[0, len(prompt) :].mean(0) for s in states[1:]])
    expected = [float((a - b).norm()) for a, b in zip(*means, strict=True)]
    before, after = (layer_distances(llama, one, c).values[0] for c in (PAPER, PAPER_FINAL_NORM))
    # transformers calls the state after the final norm its last one.
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    np.testing.assert_allclose(before[:-1], expected[:-1], rtol=1e-5)
    assert before[-1] != pytest.approx(after[-1], rel=1e-3)


def test_identical_responses_lie_at_distance_zero(tiny_model):
    one = instance("The cat?", "I am sorry.", "I am sorry.")
    # Rounding only: the two equal rows may be reduced in another order, by thread.
    assert layer_distances(tiny_model, one).values.max() < 1e-4


def test_the_paper_reads_the_responses_in_the_light_of_the_query(llama):
    a, b = (instance(q, "I am sorry.", "Sure.") for q in ("The cat?", "A dog sat on the mat?"))
    paper, alone = layer_distances(llama, [a, b]).values, layer_distances(llama, [a, b], REFERENCE_RIGHT).values
    assert np.abs(paper[0] - paper[1]).min() > 1e-3
    np.testing.assert_allclose(alone[0], alone[1], rtol=1e-6)


def test_a_suffix_follows_the_query(llama):
    with_suffix = layer_distances(llama, instance("The cat?", "sorry", "Sure"), replace(PAPER, suffix="Be good:"))
    typed = layer_distances(llama, instance("The cat? Be good:", "sorry", "Sure"))
    np.testing.assert_allclose(with_suffix.values, typed.values, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- batches
@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=lambda c: c.name)
def test_batches_give_what_one_by_one_gives(tiny_model, instances, convention):
    alone = np.concatenate([layer_distances(tiny_model, i, convention, batch_size=1).values for i in instances])
    for batch_size in (2, 4, 64):
        together = layer_distances(tiny_model, instances, convention, batch_size=batch_size)
        np.testing.assert_allclose(together.values, alone, rtol=2e-5, atol=1e-6)
    assert together.instance_ids == (3, 1, 2)


def test_what_fills_the_padding_does_not_matter(make_model, instances):
    values = [
        layer_distances(make_model("llama", pad=pad), instances, batch_size=8).values for pad in ("<pad>", "</s>")
    ]
    np.testing.assert_array_equal(*values)


def test_progress_counts_instances(llama, instances):
    seen = []
    layer_distances(llama, instances, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_record_says_what_was_measured(llama, instances):
    scores = layer_distances(llama, instances)
    assert (scores.model, scores.convention, scores.categories) == (llama.name, "paper", ("bias",) * 3)
    assert "L2" in scores.unit
    assert scores.values.shape == (3, llama.n_layers)
    assert "final norm" in layer_distances(llama, instances, PAPER_FINAL_NORM).unit


def test_the_model_is_left_as_it_was(make_model, instances):
    model = make_model("llama")
    before = model.weight_hash()
    layer_distances(model, instances)
    with pytest.raises(RuntimeError, match="in the middle"):
        layer_distances(model, instances, progress=lambda *_: (_ for _ in ()).throw(RuntimeError("in the middle")))
    assert model.weight_hash(fresh=True) == before
    assert not any(m._forward_hooks for m in model.hf.modules())


# ------------------------------------------------------------------------------------------------- bad input
def test_what_does_not_fit_is_cut_and_counted(make_model):
    model = make_model("llama")
    long = instance("The cat sat on the mat. " * 40, "I am sorry.", "Sure.")
    scores = layer_distances(model, [long, instance("The cat?", "sorry", "Sure")])
    assert scores.truncated == 1
    assert np.isfinite(scores.values).all()
    assert any("cut from the left" in line for line in model.warnings)


def test_bad_input_is_told_in_one_line(llama, instances):
    with pytest.raises(InputError, match="at least one instance, got none"):
        layer_distances(llama, [])
    with pytest.raises(InputError, match="batch_size >= 1, got 0"):
        layer_distances(llama, instances, batch_size=0)
    with pytest.raises(InputError, match="instance 7 has an empty unsafe response"):
        layer_distances(llama, instance("The cat?", "sorry", " ", 7))
    with pytest.raises(InputError, match='given="nothing"'):
        Convention("x", over="matrix")
    with pytest.raises(InputError, match="suffix follows the query"):
        Convention("x", given="nothing", suffix="S")
    with pytest.raises(InputError, match="left padding"):
        Convention("x", padding="left")


def test_states_that_are_not_finite_are_refused(make_model, instances):
    model = make_model("llama")
    model.value_weight(1).data.fill_(float("nan"))
    with pytest.raises(InputError, match="instance 3 are not finite"):
        layer_distances(model, instances)
