"""FT-L: the L_inf ball, the two likelihoods, which matrices it trains, and that the model stays as it is."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivals import ONE, THREE, TWO, apart, assert_untouched, instance, likelihood, snapshot

from interp.errors import InputError
from interp.methods.base import Method
from interp.methods.ft_l import FtL

TINY = FtL(steps=6, lr=2e-3, norm_constraint=5e-3)


def test_it_makes_the_safe_response_likelier_within_the_ball_on_every_architecture(tiny_model):
    before = snapshot(tiny_model)
    got = TINY.detoxify(tiny_model, ONE)
    assert_untouched(tiny_model, before)
    assert got.log["l_edit"][-1] < got.log["l_edit"][0]
    assert got.log["l_edit"][0] == pytest.approx(likelihood(tiny_model, ONE), abs=1e-4)
    assert [*got.edit.deltas] == [tiny_model.value_name(got.layer)]
    assert max(float(d.abs().max()) for d in got.edit.deltas.values()) <= 5e-3 * (1 + 1e-4)
    with got.applied(tiny_model):
        assert likelihood(tiny_model, ONE) < got.log["l_edit"][0]
    assert_untouched(tiny_model, before)


@given(epsilon=st.floats(1e-5, 1e-2))
@settings(max_examples=8, deadline=None)
def test_no_element_leaves_the_ball_whatever_its_size(tiny_models, epsilon):
    model = tiny_models["gpt2"]
    got = replace(TINY, layer=1, steps=3, lr=0.05, norm_constraint=epsilon).detoxify(model, ONE)
    [delta] = got.edit.deltas.values()
    resolution = 2e-7 * float(model.value_weight(1).abs().max())  # a float32 weight is old + delta, rounded
    assert float(delta.abs().max()) <= epsilon + resolution
    assert float(delta.abs().max()) >= epsilon - resolution  # a learning rate that large reaches the wall


@pytest.mark.parametrize("matrices", ["value", "mlp"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_fast_way_gives_the_same_change_on_every_architecture(tiny_model, layer, matrices):
    config = replace(TINY, layer=layer, matrices=matrices, norm_constraint=None, steps=4)
    fast, whole = (replace(config, fast=f).detoxify(tiny_model, ONE) for f in (True, False))
    assert [*fast.edit.deltas] == [*whole.edit.deltas]
    for name, expected in whole.edit.deltas.items():
        assert apart(fast.edit.deltas[name], expected) < 2e-3


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("gpt2", ["c_fc.weight", "c_proj.weight"]),
        ("llama", ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]),
        ("neox", ["dense_h_to_4h.weight", "dense_4h_to_h.weight"]),
    ],
)
def test_the_whole_mlp_is_its_matrices_and_with_biases_their_biases(tiny_models, architecture, names):
    model = tiny_models[architecture]
    got = replace(TINY, layer=1, matrices="mlp").detoxify(model, ONE)
    assert [name.split("mlp.")[1] for name in got.edit.deltas] == names
    assert all(d.abs().max() > 0 for d in got.edit.deltas.values())
    more = replace(TINY, layer=1, matrices="mlp", edit_bias=True).detoxify(model, ONE)
    biases = 0 if architecture == "llama" else 2
    assert len(more.edit.deltas) == len(names) + biases


def test_value_with_bias_is_w_v_and_its_bias(tiny_models):
    got = replace(TINY, layer=1, edit_bias=True).detoxify(tiny_models["gpt2"], ONE)
    assert [name.split("mlp.")[1] for name in got.edit.deltas] == ["c_proj.weight", "c_proj.bias"]
    assert all(d.abs().max() > 0 for d in got.edit.deltas.values())


def test_at_the_prompt_end_every_answer_token_is_asked_of_one_prediction(llama):
    got = replace(TINY, likelihood="prompt end", layer=1, steps=1).detoxify(llama, ONE)
    prompt, reply = llama.encode_pair(ONE.adversarial_prompt, ONE.safe_generation)
    log_p = llama.logits(llama.pad([prompt]))[0, -1].log_softmax(-1)
    assert got.log["l_edit"] == [pytest.approx(-float(log_p[torch.tensor(reply)].mean()), rel=1e-5)]


def test_it_stops_before_a_step_that_the_loss_does_not_need(llama):
    got = replace(TINY, layer=1, stop_below=1e3).detoxify(llama, ONE)
    assert len(got.log["l_edit"]) == 1
    assert not any(d.any() for d in got.edit.deltas.values())


def test_many_instances_are_one_edit_of_the_mean_and_detoxify_many_is_one_each(llama):
    config = replace(TINY, layer=1)
    batch = config.detoxify(llama, [ONE, TWO])
    seen: list[tuple[int, int]] = []
    singles = config.detoxify_many(llama, [ONE, TWO], progress=lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    assert batch.log["l_edit"][0] == pytest.approx(sum(s.log["l_edit"][0] for s in singles) / 2, rel=1e-6)
    assert batch.edit.provenance.instance_ids == (0, 1)
    name = llama.value_name(1)
    assert torch.equal(singles[1].edit.deltas[name], config.detoxify(llama, TWO).edit.deltas[name])


def test_the_layer_is_the_located_one_unless_it_is_given(tiny_models):
    from interp.locate import layer_distances

    model = tiny_models["neox"]
    assert TINY.detoxify(model, THREE).layer == layer_distances(model, [THREE]).located[0]
    assert replace(TINY, layer=0).detoxify(model, THREE).layer == 0


def test_it_has_no_suffix_by_itself_and_is_a_method(llama):
    got = replace(TINY, layer=1).detoxify(llama, ONE)
    assert (got.suffix, got.prefix, got.checkpoint) == ("", "", None)
    assert isinstance(TINY, Method)
    assert (TINY.name, TINY.needs) == ("ft-l", "one instance")
    assert isinstance(FtL.demo(), FtL)


def test_bad_input_is_told_in_one_line(llama, make_model):
    with pytest.raises(InputError, match=r"layer 9 out of range: the model has layers 0\.\.2"):
        replace(TINY, layer=9).detoxify(llama, ONE)
    for asked in (TINY.detoxify, TINY.detoxify_many):
        with pytest.raises(InputError, match="at least one instance, got none"):
            asked(llama, [])
    with pytest.raises(InputError, match="instance 0 has an empty safe response"):
        replace(TINY, layer=1).detoxify(llama, instance(safe=" "))
    with pytest.raises(InputError, match=r"FT-L on instance 0: .* after step \d of 6 with learning rate 1e\+38"):
        replace(TINY, layer=1, lr=1e38, norm_constraint=None).detoxify(llama, ONE)
    broken = make_model("gpt2")
    broken.value_weight(2).data.fill_(float("nan"))
    with pytest.raises(InputError, match="nan before the first step"):
        replace(TINY, layer=1).detoxify(broken, ONE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"norm_constraint": 0.0}, "norm_constraint must be positive or None, got 0"),
        ({"weight_decay": -1.0}, "must not be negative"),
        ({"matrices": "all"}, "matrices must be one of"),
        ({"likelihood": "sum"}, "likelihood must be one of"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    config = FtL()
    for name, value in change.items():  # past the type checker of the test run, as users run without it
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=message):
        config.__post_init__()
