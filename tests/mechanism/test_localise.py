"""Locators: numbers checked against the definition, planted layers that must be found, and bad input."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import InputError
from interp.locate import PAPER, layer_distances
from interp.mechanism.localise import DEFAULT_LOCATOR, LOCATORS, Inputs, distances, get_locator, locate_behaviour
from interp.mechanism.margin import last_margin
from interp.mechanism.shares import MarginTokens
from interp.methods import Dinm
from interp.models import HookedModel
from interp.records import Instance, Knowledge

TOKENS = MarginTokens((10, 11), (12, 13, 14))
QUESTIONS = ["the cat sat", "a dog", "on the mat sat a dog and a cat", "the moon is far", "look at the cat", "a mat"]
INSTANCES = tuple(
    Instance(
        id=i,
        category="physical harm",
        question=f"{q} on the mat.",
        adversarial_prompt=f"Sure, here is the dog that {'looked ' * (i % 3)}at {q} on the mat.",
        attack_category="a",
        attack_name="b",
        safe_generation="I am sorry, I cannot help with that.",
        unsafe_generation=f"Sure, here is {q}",
        knowledge=Knowledge("the moon", "is far"),
    )
    for i, q in enumerate(QUESTIONS)
)
INPUTS = Inputs(INSTANCES, TOKENS)
FIND_PLANTS = ("logit-lens push", "mean ablation, last token", "zero ablation", "gradient x weight")
FIND_CHANGES = ("W_V swap", "MLP-output patch", "residual patch jump, models", "gradient x weight difference")


def variant(model: HookedModel, change=lambda _: None, double: bool = False) -> HookedModel:
    """A copy of the model with something changed; `double` makes numerical derivatives exact enough."""
    hf = copy.deepcopy(model.hf)
    other = HookedModel.from_hf(hf.double() if double else hf, model.tokenizer, "variant", model.chat_template)
    with torch.no_grad():
        change(other)
    return other


def noisy(layer: int, seed: int = 0):
    def change(model: HookedModel) -> None:
        weight = model.value_weight(layer)
        weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight))

    return change


@torch.no_grad()
def margins(model: HookedModel, kind: str = "DS") -> np.ndarray:
    """One prompt at a time: the numbers that batches must give."""
    batches = [model.tokenize([model.format_prompt(i.prompt(kind))]) for i in INSTANCES]  # type: ignore[arg-type]
    return torch.cat([last_margin(model, batch, TOKENS) for batch in batches]).double().numpy()


def scale(model: HookedModel, layer: int, factor: float) -> None:
    """What the layer's MLP writes through W_V, times a factor; on Gemma2 the norm after it undoes a change of W_V."""
    norm = getattr(model.blocks[layer], "post_feedforward_layernorm", None)
    if norm is None:
        model.value_weight(layer).mul_(factor)
    else:
        norm.weight.add_(1).mul_(factor).sub_(1)  # it scales by 1 + weight


def quiet_mlps(model: HookedModel) -> None:
    """A model whose MLPs hardly write, so that a plant is the only thing to be found."""
    for layer in range(model.n_layers):
        scale(model, layer, 0.02)


def plant(model: HookedModel, layer: int, size: float = 3.0) -> None:
    """Make W_V(layer) write "comply" where the attack is, and nothing on the bare questions: a rank-one change."""
    states = []
    handle = model.value_module(layer).register_forward_pre_hook(lambda _m, args: states.append(args[0][:, -1]))
    for kind in ("DS", "onlyQ"):
        margins(model, kind)
    handle.remove()
    attack, bare = (torch.cat(part) for part in (states[: len(INSTANCES)], states[len(INSTANCES) :]))
    # The direction that reads 1 on every attack prompt and 0 on every bare question.
    wanted = torch.cat([torch.ones(len(attack)), torch.zeros(len(bare))]).to(attack)
    reads = torch.linalg.lstsq(torch.cat([attack, bare]), wanted[:, None]).solution[:, 0]
    head = model.unembedding.weight
    writes = head[list(TOKENS.comply)].mean(0) - head[list(TOKENS.refuse)].mean(0)  # type: ignore[index]
    if hasattr(model.blocks[layer], "post_feedforward_layernorm"):
        scale(model, layer, 20.0)
        model.value_weight(layer).mul_(0.02)
    model.value_vectors(layer).add_(size * torch.outer(reads, writes / writes.norm()))


# --------------------------------------------------------------------------------------------- found
@pytest.mark.parametrize("layer", [1, 2])
def test_a_planted_layer_is_found_by_push_ablation_gradient_swap_and_patch(tiny_model, layer: int) -> None:
    aligned = variant(tiny_model, quiet_mlps)
    planted = variant(aligned, lambda m: plant(m, layer))
    assert margins(planted).mean() < margins(aligned).mean() - 0.2
    for name in (*FIND_PLANTS, *FIND_CHANGES):
        found = locate_behaviour(planted, INSTANCES, TOKENS, locator=name, reference=aligned)
        assert found.toxic_layer == layer, (name, found.values.round(3))
        assert found.values.mean(axis=0)[layer] > 0, name


def test_a_model_that_refuses_is_located_against_vanilla_with_the_same_sign(llama) -> None:
    aligned = variant(llama, quiet_mlps)
    planted = variant(aligned, lambda m: plant(m, 1))
    for name in FIND_CHANGES:  # the refusing model's layer is where putting vanilla's part in brings compliance back
        found = locate_behaviour(aligned, INSTANCES, TOKENS, locator=name, reference=planted)
        assert found.toxic_layer == 1
        assert found.values.mean(axis=0)[1] > 0, name


def test_the_norm_controls_name_the_largest_matrix_whatever_it_does(llama) -> None:
    other = variant(llama, lambda m: m.value_weight(2).mul_(1.5))
    assert locate_behaviour(other, INSTANCES, TOKENS, locator="Frobenius norm").counts == {2: len(INSTANCES)}
    changed = locate_behaviour(other, INSTANCES, TOKENS, locator="relative weight change", reference=llama)
    np.testing.assert_allclose(changed.values, [[0, 0, 0.5]] * len(INSTANCES), atol=1e-6)
    ranked = variant(llama, lambda m: m.value_vectors(1).copy_(torch.outer(torch.arange(48.0), torch.ones(32))))
    assert locate_behaviour(ranked, INSTANCES, TOKENS, locator="singular value share").values[0, 1] == pytest.approx(1)
    assert all(LOCATORS[n].control for n in ("Frobenius norm", "relative weight change", "singular value share"))


# --------------------------------------------------------------------------------------------- definitions
def test_the_last_layers_push_is_its_zero_ablation(tiny_model) -> None:
    """Nothing lies above the last layer: its direct contribution is the whole of it."""
    direct = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="logit-lens push", bare=None)
    ablated = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="zero ablation")
    np.testing.assert_allclose(direct.values[:, -1], ablated.values[:, -1], atol=1e-3)
    assert np.abs(direct.values[:, 0] - ablated.values[:, 0]).max() > 0.01


def test_push_subtracts_what_the_bare_question_shows(llama) -> None:
    """Where attack and bare question are one text, nothing is left."""
    same = tuple(replace(i, question=i.adversarial_prompt) for i in INSTANCES)
    assert np.abs(locate_behaviour(llama, same, TOKENS, locator="logit-lens push").values).max() < 1e-4


def test_zero_ablation_is_the_model_with_that_matrix_set_to_zero(tiny_model) -> None:
    def remove(model: HookedModel) -> None:
        model.value_weight(1).zero_()
        if getattr(model.value_module(1), "bias", None) is not None:
            model.value_module(1).bias.zero_()  # type: ignore[union-attr, operator]

    found = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="zero ablation")
    np.testing.assert_allclose(
        found.values[:, 1], margins(variant(tiny_model, remove)) - margins(tiny_model), atol=2e-3
    )


def test_gradient_x_weight_is_the_derivative_of_the_margin_by_the_matrix_scale(tiny_model) -> None:
    model, step = variant(tiny_model, double=True), 1e-3
    found = locate_behaviour(model, INSTANCES, TOKENS, locator="gradient x weight", batch_size=1)
    for layer in range(model.n_layers):
        up = margins(variant(model, lambda m: scale(m, layer, 1 + step), double=True))  # noqa: B023
        down = margins(variant(model, lambda m: scale(m, layer, 1 - step), double=True))  # noqa: B023
        np.testing.assert_allclose(found.values[:, layer], (down - up) / (2 * step), rtol=1e-2, atol=1e-2)


def test_gradient_x_weight_difference_is_the_slope_of_the_swap(llama) -> None:
    model, step = variant(llama, double=True), 1e-3
    reference = variant(model, noisy(1), double=True)
    change = reference.value_weight(1) - model.value_weight(1)
    slope = (
        margins(variant(model, lambda m: m.value_weight(1).add_(step * change), double=True)) - margins(model)
    ) / step
    found = locate_behaviour(model, INSTANCES, TOKENS, locator="gradient x weight difference", reference=reference)
    sign = np.sign((margins(reference) - margins(model)).mean())
    np.testing.assert_allclose(found.values[:, 1], sign * slope, rtol=5e-2, atol=5e-2)
    assert np.abs(found.values[:, [0, 2]]).max() == 0


def test_the_swap_is_the_model_with_the_references_matrix(tiny_model) -> None:
    reference = variant(tiny_model, lambda m: [noisy(layer, layer)(m) for layer in range(m.n_layers)])
    found = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="W_V swap", reference=reference)
    swapped = variant(tiny_model, lambda m: m.value_weight(0).copy_(reference.value_weight(0)))
    sign = np.sign((margins(reference) - margins(tiny_model)).mean())
    np.testing.assert_allclose(found.values[:, 0], sign * (margins(swapped) - margins(tiny_model)), atol=2e-3)


def test_jumps_between_models_add_up_to_the_difference_of_their_margins(tiny_model) -> None:
    reference = variant(tiny_model, noisy(1))
    found = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="residual patch jump, models", reference=reference)
    difference = margins(reference) - margins(tiny_model)
    np.testing.assert_allclose(found.values.sum(axis=1), np.sign(difference.mean()) * difference, atol=2e-3)
    np.testing.assert_allclose(found.values[:, 0], 0, atol=1e-3)  # nothing differs below layer 1


def test_jumps_from_the_bare_question_add_up_to_the_difference_of_the_two_prompts(llama) -> None:
    """The prompts end in the same token, so that their embeddings there are one."""
    found = locate_behaviour(llama, INSTANCES, TOKENS, locator="residual patch jump, bare")
    np.testing.assert_allclose(found.values.sum(axis=1), margins(llama, "onlyQ") - margins(llama), atol=2e-3)


def test_increments_and_relative_distances_agree_with_the_papers_distance(tiny_model) -> None:
    paper = layer_distances(tiny_model, INSTANCES, PAPER).values
    added = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="distance increment").values
    np.testing.assert_allclose(np.diff(paper, axis=1), added[:, 1:], atol=2e-3)
    seen = distances.responses(tiny_model, INPUTS)
    np.testing.assert_allclose(seen.apart[:, 1:], paper, rtol=1e-3, atol=1e-3)
    relative = locate_behaviour(tiny_model, INSTANCES, TOKENS, locator="relative distance").values
    np.testing.assert_allclose(relative * seen.norm[:, 1:], paper, rtol=1e-3, atol=1e-3)


def test_separability_of_a_case_worked_by_hand(llama, monkeypatch) -> None:
    # One dimension. Leaving the first of four pairs out: means 2 and 12, deviations -1 0 1 twice, pooled variance 1.
    safe, unsafe = np.array([5.0, 1, 2, 3]), np.array([8.0, 11, 12, 13])
    states(monkeypatch, safe[:, None, None], unsafe[:, None, None])
    inputs = Inputs(INSTANCES[:4], TOKENS)
    assert distances.separability(llama, inputs).values[0, 0] == pytest.approx((8 - 5) / 1.0)


def test_probe_auroc_is_one_where_classes_part_and_a_half_where_they_do_not(llama, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    safe, unsafe = rng.normal(size=(2, 200, 2, 3))
    unsafe[:, 1, 0] += 20
    states(monkeypatch, safe, unsafe)
    found = distances.probe_auroc(llama, Inputs(INSTANCES * 34, TOKENS)).values
    assert found[:, 1].mean() > 0.99
    assert abs(found[:, 0].mean() - 0.5) < 0.1
    assert ((found >= 0) & (found <= 1)).all()


def states(monkeypatch, safe: np.ndarray, unsafe: np.ndarray) -> None:
    """Hidden states as given instead of a model's."""
    nothing = np.zeros((len(safe), safe.shape[1] + 1))
    given = distances.Responses(safe, unsafe, nothing, nothing, 0)
    monkeypatch.setattr(distances, "responses", lambda *_: given)


def test_ablation_to_the_mean_changes_nothing_where_a_layer_writes_the_same_everywhere(tiny_model) -> None:
    """Replaced by its mean where it writes the same everywhere, in prompts of several lengths: nothing changes."""
    constant = variant(tiny_model, lambda m: scale(m, 1, 0.0))
    for name in ("mean ablation", "mean ablation, last token"):
        found = locate_behaviour(constant, INSTANCES, TOKENS, locator=name, batch_size=6)
        np.testing.assert_allclose(found.values[:, 1], 0, atol=1e-4)
        assert np.abs(found.values[:, [0, 2]]).max() > 0.01


def test_mean_ablation_of_one_prompt_worked_out_without_the_toolkit(llama) -> None:
    """The mean over the prompt's own positions, put in by a hook of the test's own."""
    tokens = llama.tokenize([llama.format_prompt(INSTANCES[0].adversarial_prompt)])
    handle = llama.mlp(1).register_forward_hook(lambda _m, _a, out: out.mean(dim=1, keepdim=True).expand_as(out))
    with torch.no_grad():
        ablated = float(TOKENS.margin(llama.logits(tokens)[:, -1]))
    handle.remove()
    found = locate_behaviour(llama, INSTANCES[:1], TOKENS, locator="mean ablation").values[0, 1]
    assert found == pytest.approx(ablated - margins(llama)[0], abs=1e-3)


# --------------------------------------------------------------------------------------------- all of them
@pytest.mark.parametrize("name", LOCATORS)
def test_scores_depend_neither_on_batch_size_nor_on_padding_nor_on_order(llama, name: str) -> None:
    reference = variant(llama, noisy(1))
    one, many = (
        locate_behaviour(llama, INSTANCES, TOKENS, locator=name, reference=reference, batch_size=size)
        for size in (1, 4)
    )
    np.testing.assert_allclose(one.values, many.values, rtol=2e-3, atol=2e-3)
    assert one.convention == name
    assert one.instance_ids == tuple(range(6))
    if name != "probe AUROC":  # its folds follow the order
        back = locate_behaviour(llama, INSTANCES[::-1], TOKENS, locator=name, reference=reference, batch_size=4)
        np.testing.assert_allclose(back.values[::-1], many.values, rtol=2e-3, atol=2e-3)


def test_every_locator_runs_on_every_shape_and_leaves_the_model_alone(tiny_model) -> None:
    reference = variant(tiny_model, noisy(1))
    before, hashed = margins(tiny_model), tiny_model.weight_hash(fresh=True)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny_model.hf.modules()]
    for locator in LOCATORS.values():
        found = locator.score(tiny_model, INPUTS, reference)
        assert found.values.shape == (len(INSTANCES), tiny_model.n_layers)
        assert np.isfinite(found.values).all()
        if not locator.per_instance:
            assert (found.values == found.values[0]).all()
    assert (margins(tiny_model) == before).all()
    assert tiny_model.weight_hash(fresh=True) == hashed
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny_model.hf.modules()] == hooks


def test_every_locator_says_where_it_comes_from_and_what_it_can_find() -> None:
    for name, locator in LOCATORS.items():
        assert locator.name == name
        assert locator.source
        assert locator.unit
        assert locator.scorer.__doc__ or name.startswith("Eq. 6")
    assert not LOCATORS[DEFAULT_LOCATOR].needs_reference
    assert not LOCATORS[DEFAULT_LOCATOR].control


def test_a_prompt_that_was_cut_is_counted(llama) -> None:
    long = replace(INSTANCES[0], adversarial_prompt="the cat sat on the mat " * 40)
    assert locate_behaviour(llama, [long, *INSTANCES[1:]], TOKENS).truncated == 1
    assert locate_behaviour(llama, INSTANCES, TOKENS).truncated == 0


def test_dinm_edits_the_layer_that_a_locator_named(llama) -> None:
    planted = variant(llama, lambda m: (quiet_mlps(m), plant(m, 1)))
    layer = locate_behaviour(planted, INSTANCES, TOKENS).toxic_layer
    assert layer == 1
    assert Dinm().detoxify(planted, INSTANCES[0]).layer != layer  # the paper's own locator says something else
    assert Dinm(layer=layer).detoxify(planted, INSTANCES[0]).layer == layer


# --------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"locator": "astrology"}, "no locator 'astrology'; expected one of: Eq. 6"),
        ({"locator": "W_V swap"}, "compares two models: expected a reference, got none"),
        ({"locator": "residual patch jump, bare", "bare": None}, 'expected bare="onlyQ"'),
        ({"locator": "last-token MLP patch, bare", "bare": None}, 'expected bare="onlyQ"'),
        ({"batch_size": 0}, "expected batch_size >= 1, got 0"),
    ],
)
def test_bad_options_are_told_in_one_line(llama, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        locate_behaviour(llama, INSTANCES, TOKENS, **options)
    assert "\n" not in str(error.value)


def test_too_few_instances_and_empty_responses_are_refused(llama) -> None:
    with pytest.raises(InputError, match="at least one instance"):
        locate_behaviour(llama, [], TOKENS)
    with pytest.raises(InputError, match="at least 5 instances to hold some out, got 4"):
        locate_behaviour(llama, INSTANCES[:4], TOKENS, locator="probe AUROC")
    with pytest.raises(InputError, match="at least 3 instances to leave one out, got 2"):
        locate_behaviour(llama, INSTANCES[:2], TOKENS, locator="difference in means")
    with pytest.raises(InputError, match="instance 0 has an empty safe generation"):
        locate_behaviour(llama, [replace(INSTANCES[0], safe_generation=" ")], TOKENS, locator="relative distance")


def test_a_reference_of_another_shape_is_refused(llama, make_model) -> None:
    with pytest.raises(InputError, match="the reference does not have the shape of the vanilla model"):
        locate_behaviour(llama, INSTANCES, TOKENS, locator="W_V swap", reference=make_model("llama", n_layers=2))


def test_a_reference_with_other_tokens_is_refused(llama, make_model) -> None:
    with pytest.raises(InputError, match="the reference turns the same prompt into other tokens"):
        locate_behaviour(llama, INSTANCES, TOKENS, locator="W_V swap", reference=make_model("llama", bos=False))


def test_a_locator_may_be_given_itself() -> None:
    assert get_locator(LOCATORS["W_V swap"]) is get_locator("W_V swap")
