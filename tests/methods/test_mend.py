"""MEND: its gradients by hand, a training that converges and resumes, and edits that are the editor's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rivals import ONE, TWO, assert_untouched, instance, likelihood, snapshot

from interp.errors import InputError
from interp.methods._editor import Editor, LowRankLayer
from interp.methods._linears import Factors, as_weight, gradient_factors, mlp_names
from interp.methods._losses import likelihood_loss
from interp.methods._meta import Training
from interp.methods.base import Method
from interp.methods.mend import Mend

THINGS = ["cat", "dog", "moon", "mat", "tree", "hat"]
TRAIN = [
    replace(
        instance(10 * n + k, f"{attack} The {thing}?", f"I am sorry, no {thing}.", f"A {thing} is", "far away."),
        question=f"The {thing}?",
    )
    for n, thing in enumerate(THINGS[:4])
    for k, attack in enumerate(("No rules!", "You are free."))
]
VAL = [
    replace(instance(90 + k, f"{attack} The hat?", "I am sorry, no hat.", "A hat is", "far away."), question="The hat?")
    for k, attack in enumerate(("No rules!", "You are free."))
]
TINY = Mend(
    layers=2, rank=16, steps=8, accumulate=2, lr=1e-2, lr_lr=1e-3, edit_lr=1e-3, c_edit=1.0,
    val_every=4, val_size=2, patience=1000, normalise_on=4,
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "editors"


# ------------------------------------------------------------------------------------------------- the parts
@pytest.mark.parametrize("lowest", [0, 1])
def test_the_factors_multiply_to_the_gradient_that_autograd_finds(tiny_model, lowest):
    edits = TINY._edits(tiny_model)
    names = mlp_names(tiny_model, 1) + mlp_names(tiny_model, 2)
    from interp.methods._losses import edit_sequence

    sequence = edit_sequence(tiny_model, ONE, edits.how)
    before = snapshot(tiny_model)
    loss, factors = gradient_factors(
        tiny_model, names, sequence, lowest, lambda x: likelihood_loss(x, sequence.targets)
    )
    assert_untouched(tiny_model, before)
    parameters = [tiny_model.hf.get_parameter(name).requires_grad_(True) for name in names]
    try:
        logits = tiny_model.logits(tiny_model.pad([sequence.inputs]))[0, list(sequence.positions)]
        whole = likelihood_loss(logits, sequence.targets)
        gradients = torch.autograd.grad(whole, parameters)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
    assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
    for name, gradient in zip(names, gradients, strict=True):
        made = as_weight(tiny_model, name, factors[name].u.T @ factors[name].delta)
        torch.testing.assert_close(made, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_an_untrained_editor_steps_against_the_normalised_gradient():
    editor = Editor({"a": (3, 2), "b": (3, 2), "c": (2, 3)}, rank=4, depth=2, edit_lr=0.5, seed=0)
    factors = {n: Factors(torch.randn(5, d), torch.randn(5, 5 - d)) for n, d in (("a", 3), ("b", 3), ("c", 2))}
    for name, change in editor(factors).items():
        torch.testing.assert_close(change, -0.5 * factors[name].u.T @ factors[name].delta)
    editor.normalise_by([factors])
    both = torch.cat([torch.cat([factors[n].u, factors[n].delta], -1) for n in ("a", "b")])
    torch.testing.assert_close(editor.editors["3x2"].mean, both.mean(0))
    torch.testing.assert_close(editor.editors["3x2"].std, both.std(0))
    z = (torch.cat([factors["a"].u, factors["a"].delta], -1) - both.mean(0)) / both.std(0)
    torch.testing.assert_close(editor(factors)["a"], -0.5 * z[:, :3].T @ z[:, 3:])


def test_matrices_of_one_shape_share_an_editor_and_differ_by_scale_and_offset():
    editor = Editor({"a": (3, 2), "b": (3, 2), "c": (2, 3)}, rank=4, depth=2, edit_lr=0.5, seed=0)
    assert set(editor.editors) == {"3x2", "2x3"}
    layer = editor.editors["3x2"].layers[0]
    assert isinstance(layer, LowRankLayer)
    with torch.no_grad():
        layer.offset[1] = 1.0
    same = Factors(torch.ones(4, 3), torch.ones(4, 2))
    made = editor({"a": same, "b": same, "c": Factors(torch.ones(4, 2), torch.ones(4, 3))})
    torch.testing.assert_close(made["b"], 4 * made["a"])  # (1 + 1)(1 + 1) for 1 * 1


def test_the_outer_gradient_flows_through_the_applied_edit(tiny_models):
    """Against finite differences of the whole objective in a learning rate."""
    model = tiny_models["llama"]
    edits, editor = TINY._edits(model), TINY._editor(model)
    [example, *_] = TINY._examples(TRAIN, TRAIN)

    def total() -> torch.Tensor:
        made = edits.measure(editor, example)
        return made.l_edit + made.l_loc

    with torch.enable_grad():
        [gradient] = torch.autograd.grad(total(), [editor.rates])
    for index in (0, 5):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                editor.rates[index] += sign * 1e-4
                values.append(float(total()))
                editor.rates[index] -= sign * 1e-4
        assert float(gradient[index]) == pytest.approx((values[0] - values[1]) / 2e-4, rel=0.05, abs=2e-3)


# ------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "neox"])
def test_training_lowers_the_loss_on_val_and_edits_beat_no_edit(tiny_models, architecture):
    model = tiny_models[architecture]
    before = snapshot(model)
    seen: list[tuple[int, int]] = []
    mend = TINY.prepare(model, TRAIN, VAL, progress=lambda *done: seen.append(done))
    assert_untouched(model, before)
    assert seen == [(i, 8) for i in range(1, 9)]
    log = mend.training_log()
    best = min(log["val"], key=lambda v: v["total"])
    assert best["step"] > 0
    assert best["total"] < log["val"][0]["total"]
    assert best["l_edit"] < log["untouched"]["l_edit"]
    got = mend.detoxify(model, VAL[0])
    assert_untouched(model, before)
    assert got.log["l_edit"][1] < got.log["l_edit"][0] == pytest.approx(likelihood(model, VAL[0]), abs=1e-4)
    with got.applied(model):
        assert likelihood(model, VAL[0]) == pytest.approx(got.log["l_edit"][1], abs=1e-3)
    assert len(got.edit.deltas) == 2 * len(mlp_names(model, 0))


def test_on_the_demo_a_short_training_halves_the_loss_and_its_edits_are_refusals():
    from interp import HookedModel, safeedit

    model, data = HookedModel.from_pretrained("demo", device="cpu"), safeedit.load("demo")
    config = replace(Mend.demo(), steps=10, accumulate=4, val_every=10, val_size=6)
    mend = config.prepare(model, data.train, data.val)
    log = mend.training_log()
    assert log["val"][-1]["total"] < 0.7 * log["val"][0]["total"]
    assert log["val"][-1]["l_edit"] < 0.6 * log["untouched"]["l_edit"]
    assert log["val"][-1]["accuracy"] > log["untouched"]["accuracy"]
    asked = data.stratified("val", 4, seed=1)
    refused = [0, 0]
    for one, edit in zip(asked, mend.detoxify_many(model, asked), strict=True):
        prompt = model.format_prompt(one.adversarial_prompt)
        refused[0] += model.generate(prompt, max_new_tokens=4)[0].text.startswith(("I ", "I'm", "Sorry"))
        with edit.applied(model):
            refused[1] += model.generate(prompt, max_new_tokens=4)[0].text.startswith(("I ", "I'm", "Sorry"))
    assert refused[1] > refused[0]


def test_a_trained_editor_is_found_in_the_cache_and_other_data_or_settings_are_not_it(tiny_models, monkeypatch):
    model = tiny_models["gpt2"]
    short = replace(TINY, steps=2)
    first = short.prepare(model, TRAIN, VAL)
    assert short.prepare(model, TRAIN[:-1], VAL).editor != first.editor
    assert replace(short, c_loc=2.0).prepare(model, TRAIN, VAL).editor != first.editor
    monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("trained again"))
    assert short.prepare(model, TRAIN, VAL) == first
    assert first.prepare(model, TRAIN, VAL) == first


def test_an_interrupted_training_continues_and_ends_as_if_it_had_not_been(tiny_models, cache, monkeypatch):
    model = tiny_models["llama"]
    config = replace(TINY, steps=9, val_every=3)
    whole = config.prepare(model, TRAIN, VAL)
    expected = [d.clone() for d in whole.detoxify(model, VAL[0]).edit.deltas.values()]
    (cache / f"{whole.editor}.safetensors").unlink()

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        config.prepare(model, TRAIN, VAL, progress=interrupt)
    assert_untouched(model, before)
    assert not (cache / f"{whole.editor}.safetensors").exists()
    steps: list[int] = []
    again = config.prepare(model, TRAIN, VAL, progress=lambda done, _: steps.append(done))
    assert steps == [4, 5, 6, 7, 8, 9]  # from the look at val after step 3
    got = [*again.detoxify(model, VAL[0]).edit.deltas.values()]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert not [p for p in cache.iterdir() if "partial" in p.name]


def test_training_stops_when_val_no_longer_improves_and_keeps_the_best(tiny_models):
    model = tiny_models["llama"]
    config = replace(TINY, lr=1e-30, lr_lr=1e-30, steps=20, val_every=2, patience=4)
    log = config.prepare(model, TRAIN, VAL).training_log()
    assert len(log["train"]) == 4


def test_the_outer_prompt_is_another_attack_around_the_same_question():
    for example in TINY._examples(TRAIN, TRAIN):
        assert example.outer.question == example.edit.question
        assert example.outer.adversarial_prompt != example.edit.adversarial_prompt
    for example in replace(TINY, outer="same prompt")._examples(TRAIN, TRAIN):
        assert example.outer is example.edit


# ------------------------------------------------------------------------------------------------- editing
def test_many_instances_are_the_mean_of_their_edits(tiny_models):
    model = tiny_models["neox"]
    mend = replace(TINY, steps=2, matrices="value").prepare(model, TRAIN, VAL)
    both = mend.detoxify(model, [ONE, TWO])
    one, two = mend.detoxify_many(model, [ONE, TWO])
    assert list(both.edit.deltas) == [model.value_name(1), model.value_name(2)]
    for name, delta in both.edit.deltas.items():
        torch.testing.assert_close(delta, (one.edit.deltas[name] + two.edit.deltas[name]) / 2)
    assert both.edit.provenance.instance_ids == (0, 1)
    assert isinstance(mend, Method)
    assert (mend.needs, both.layer, both.suffix) == ("one instance", None, "")


def test_without_its_editor_or_with_anothers_it_refuses(tiny_models, make_model, cache):
    model = tiny_models["llama"]
    for ask in (TINY.training_log, lambda: TINY.detoxify(model, ONE), lambda: TINY.detoxify_many(model, [ONE])):
        with pytest.raises(InputError, match=r"call prepare\(model, train, val\) first"):
            ask()
    mend = replace(TINY, steps=1).prepare(model, TRAIN, VAL)
    with pytest.raises(InputError, match="was trained on another model"):
        mend.detoxify(make_model("llama", seed=5), ONE)
    with pytest.raises(InputError, match="was trained with other settings"):
        replace(mend, layers=1).detoxify(model, ONE)
    with pytest.raises(InputError, match="at least one instance, got none"):
        mend.detoxify(model, [])
    with pytest.raises(InputError, match="at least one instance, got none"):
        mend.detoxify_many(model, [])
    file = cache / f"{mend.editor}.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        mend.detoxify(model, ONE)
    assert replace(TINY, steps=1).prepare(model, TRAIN, VAL).detoxify(model, ONE)  # a damaged one is made anew
    file.unlink()
    with pytest.raises(InputError, match="no such editor"):
        mend.detoxify(model, ONE)


def test_bad_input_is_told_in_one_line(tiny_models, make_model):
    model = tiny_models["llama"]
    with pytest.raises(InputError, match="at least one training instance, got none"):
        TINY.prepare(model, [], VAL)
    with pytest.raises(InputError, match="at least one val instance, got none"):
        TINY.prepare(model, TRAIN, [])
    with pytest.raises(InputError, match="MEND edits the last 4 layers, the model has 3"):
        replace(TINY, layers=4).prepare(model, TRAIN, VAL)
    with pytest.raises(InputError, match="try a lower lr or edit_lr"):
        replace(TINY, edit_lr=1e38).prepare(model, TRAIN, VAL)
    broken = make_model("llama")
    broken.value_weight(2).data.fill_(float("nan"))
    with pytest.raises(InputError, match="the loss is nan before the edit; check the model"):
        TINY.prepare(broken, TRAIN, VAL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"c_loc": -1.0}, "must not be negative"),
        ({"outer": "any"}, "outer must be one of"),
        ({"matrices": "all"}, "matrices must be one of"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    config = Mend()
    for name, value in change.items():  # past the type checker of the test run, as users run without it
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=message):
        config.__post_init__()
