"""DINM: the authors' deltas and losses, every departure from the paper, and a fast way that is only faster."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from interp.edits import WeightEdit
from interp.errors import InputError
from interp.locate import PAPER
from interp.methods._losses import divergence, likelihood_loss
from interp.methods.base import Method
from interp.methods.dinm import Dinm
from interp.records import Instance, Knowledge


def instance(number=0, prompt="The cat?", safe="I am sorry.", q="The moon is?", a="far away.") -> Instance:
    return Instance(
        id=number,
        category="bias",
        question=prompt,
        adversarial_prompt=prompt,
        attack_category="",
        attack_name="",
        safe_generation=safe,
        unsafe_generation="Sure, here is the cat on the mat.",
        knowledge=Knowledge(q, a),
    )


TINY = Dinm(suffix="Be good:", steps=4, lr=1e-3)
ONE = instance()
TWO = instance(1, "A dog sat on the mat?", "I cannot help with that.", "On the mat?", "A cat, a dog.")
THREE = instance(2, "The moon and a long time?", "sorry", "A dog?", "The mat.")


def delta(detoxified) -> torch.Tensor:
    [only] = detoxified.edit.deltas.values()
    return only


def apart(a, b) -> float:
    """Relative Frobenius distance."""
    return float((a - b).norm() / b.norm())


def cosine(a, b) -> float:
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))


# ------------------------------------------------------------------------------------------------- the authors' numbers
@pytest.fixture(scope="module")
def cases(golden):
    raw = json.loads((golden / "instances.json").read_text())["instances"]
    runs = json.loads((golden / "reference.json").read_text())["runs"]
    deltas = load_file(golden / "reference.safetensors")
    instances = [
        replace(
            instance(r["case_id"], r["prompt"], r["target_new"], r["locality_prompt"], r["locality_ground_truth"]),
            unsafe_generation=r["ground_truth"],
        )
        for r in raw
    ]
    return [(i, runs[f"case{i.id}"], deltas[f"case{i.id}.delta"]) for i in instances]


@pytest.mark.parametrize(
    ("padding", "fast", "number"),
    [("right", True, 3), ("left", True, 3), ("right", False, 1)],
    ids=["right", "left", "right, whole forwards"],
)
def test_the_released_codes_deltas_losses_and_layers_are_reproduced(golden_model, cases, padding, fast, number):
    for one, run, expected in cases[:number]:
        got = Dinm.reference(padding, fast=fast).detoxify(golden_model, one)
        assert (got.layer, [*got.edit.deltas]) == (run["layer0"], [run["tensor"]])
        assert float((delta(got) - expected).abs().max()) < 2e-5
        assert apart(delta(got), expected) < 1e-4
        for name, key in (("l_edit", "l_edit"), ("l_constraint", "l_loc"), ("total", "total")):
            assert got.log[name] == pytest.approx(run[key], abs=5e-6)


def test_the_released_codes_sequences_are_reproduced(golden_model, cases):
    from interp.methods._losses import Format, constraint_sequence, edit_sequence

    how = Dinm.reference()._part(Format)
    for one, run, _ in cases:
        edit, constraint = edit_sequence(golden_model, one, how), constraint_sequence(golden_model, one, how)
        assert list(edit.ids) == run["edit_ids"]
        assert list(edit.targets) == run["label_ids"]
        assert list(constraint.ids) == run["kl_ids"]
        assert len(constraint.positions) == run["kl_slice"]


def changed(golden_model, cases, **fields):
    """(relative distance, cosine) of the delta without one departure from the authors' delta of case 0."""
    one, run, expected = cases[0]
    got = delta(Dinm.reference(layer=run["layer0"], **fields).detoxify(golden_model, one))
    return apart(got, expected), cosine(got, expected)


def test_departure_1_the_constraints_gradient_turns_the_delta_by_a_third(golden_model, cases):
    distance, cos = changed(golden_model, cases, constraint_gradient=True)
    assert distance == pytest.approx(0.30, abs=0.01)  # measured by the spec: 30 %, cosine 0.95
    assert cos == pytest.approx(0.95, abs=0.01)


def test_departure_2_the_direction_of_the_divergence_changes_the_loss_and_with_gradient_the_delta(golden_model, cases):
    (one, _, _), both = cases[0], {}
    for gradient in (False, True):
        there, back = (
            Dinm.reference(constraint_gradient=gradient, constraint_direction=d).detoxify(golden_model, one)
            for d in ("base from edited", "edited from base")
        )
        both[gradient] = apart(delta(back), delta(there))
        assert abs(there.log["l_constraint"][-1] - back.log["l_constraint"][-1]) > 1e-6
    assert both[False] == 0.0  # no gradient: only what is logged changes
    assert both[True] > 1e-3


@pytest.mark.parametrize("where", ["next token", "answer"])
def test_departure_2_where_the_constraint_is_measured_changes_it(golden_model, cases, where):
    one, run, _ = cases[0]
    got = Dinm.reference(constraint_on=where).detoxify(golden_model, one)
    assert abs(got.log["l_constraint"][-1] - run["l_loc"][-1]) > 5e-6  # the tolerance of the recorded losses


def test_departure_3_the_bos_among_the_labels_turns_the_delta_by_a_half(golden_model, cases):
    distance, cos = changed(golden_model, cases, labels_alone=False)
    assert distance == pytest.approx(0.47, abs=0.01)  # measured by the spec: 47 %, cosine 0.89
    assert cos == pytest.approx(0.89, abs=0.01)


def test_departure_3_the_two_spaces_change_the_delta(golden_model, cases):
    assert changed(golden_model, cases, raw_text=False)[0] > 0.1


def test_departure_3_raw_text_ignores_the_chat_template(make_model):
    from interp.methods._losses import Format, edit_sequence

    model = make_model("llama", template="User: {{ messages[0]['content'] }} Assistant:", chat_template="auto")
    how = replace(TINY._part(Format), raw_text=True)
    raw, rendered = edit_sequence(model, ONE, how), edit_sequence(model, ONE, TINY._part(Format))
    assert "Assistant" not in model.tokenizer.decode(raw.ids)
    assert "Assistant" in model.tokenizer.decode(rendered.ids)


def test_departure_4_one_layer_for_all_or_each_its_own(golden_model, cases):
    instances = [one for one, _, _ in cases]
    for reuse, layers in ((True, [5, 5, 5]), (False, [5, 4, 4])):
        config = Dinm.reference(reuse_first_layer=reuse, steps=1)
        assert [d.layer for d in config.detoxify_many(golden_model, instances)] == layers
        assert [d.layer for d in config.sequential(golden_model, instances)] == layers


def test_departure_5_the_convention_changes_the_located_layer(golden_model, cases):
    one = cases[1][0]
    assert Dinm.reference(steps=1).detoxify(golden_model, one).layer == 4
    assert Dinm.reference(steps=1, convention=PAPER).detoxify(golden_model, one).layer == 5


def test_departure_7_the_bias_of_gpt2_is_edited_too(make_model):
    model = make_model("gpt2")
    names = ["transformer.h.1.mlp.c_proj.weight", "transformer.h.1.mlp.c_proj.bias"]
    with_bias, without = (replace(TINY, layer=1, edit_bias=b).detoxify(model, ONE) for b in (True, False))
    assert [*with_bias.edit.deltas] == names
    assert [*without.edit.deltas] == names[:1]
    assert with_bias.edit.deltas[names[1]].abs().max() > 0
    assert apart(with_bias.edit.deltas[names[0]], delta(without)) > 1e-4


def test_departure_10_training_stops_before_a_step_that_the_loss_does_not_need(llama):
    stopped = replace(TINY, layer=1, stop_below=1e3).detoxify(llama, ONE)
    assert len(stopped.log["total"]) == 1
    assert not delta(stopped).any()
    whole = replace(TINY, layer=1, constrain=False).detoxify(llama, ONE)
    between = (whole.log["total"][1] + whole.log["total"][2]) / 2
    early = replace(TINY, layer=1, constrain=False, stop_below=between).detoxify(llama, ONE)
    assert early.log["total"] == pytest.approx(whole.log["total"][:3], rel=1e-5)


def test_departure_10_the_norm_constraint_clamps_each_element(llama):
    free, held = (replace(TINY, layer=1, norm_constraint=c).detoxify(llama, ONE) for c in (None, 1.5e-3))
    assert delta(free).abs().max() > 2e-3
    assert delta(held).abs().max() == pytest.approx(1.5e-3, rel=1e-3)


def test_the_end_of_the_answer_is_supervised_on_request(golden_model, cases):
    assert changed(golden_model, cases, eos=True)[0] > 0.1


def test_a_constraint_without_gradient_need_not_be_looked_at(golden_model, cases):
    one = cases[0][0]
    always = Dinm.reference().detoxify(golden_model, one)
    lazy = Dinm.reference(constraint_every_step=False).detoxify(golden_model, one)
    assert torch.equal(delta(lazy), delta(always))
    assert lazy.log["l_edit"] == always.log["l_edit"]
    assert lazy.log["l_constraint"] == [0.0] + [None] * 9
    near = {"stop_below": 0.1 * always.log["l_edit"][3] + 1e-9, "constraint_every_step": False}
    assert Dinm.reference(**near).detoxify(golden_model, one).log["l_constraint"][3] is not None


def test_the_default_departs_from_the_released_code_in_every_field_the_preset_names():
    default, reference = asdict(Dinm()), asdict(Dinm.reference())
    assert {name for name in default if default[name] != reference[name]} == {
        "convention", "reuse_first_layer", "edit_bias", "constraint_gradient", "constraint_direction",
        "constraint_on", "raw_text", "labels_alone", "eos", "stop_below",
    }  # fmt: skip
    assert (default["steps"], default["lr"], default["c_edit"], default["weight_decay"]) == (10, 5e-4, 0.1, 0.0)


# ------------------------------------------------------------------------------------------------- by hand
def test_the_likelihood_loss_of_two_even_choices_is_log_2():
    assert float(likelihood_loss(torch.zeros(3, 2), (0, 1, 1))) == pytest.approx(math.log(2))


def test_the_divergence_is_that_of_the_textbook():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    assert float(divergence(p.log(), q.log())) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_the_first_step_is_adams_of_the_gradient_of_the_likelihood_alone(tiny_model):
    layer, lr = 1, 1e-3
    prompt, answer = tiny_model.encode_pair(ONE.adversarial_prompt, ONE.safe_generation, TINY.suffix)
    weight = tiny_model.value_weight(layer)
    weight.requires_grad_(True)
    try:
        log_p = tiny_model.hf(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        loss = -sum(log_p[len(prompt) - 1 + i, token] for i, token in enumerate(answer)) / len(answer)
        gradient = torch.autograd.grad(0.1 * loss, weight)[0]
    finally:
        weight.requires_grad_(False)
    got = replace(TINY, layer=layer, steps=1).detoxify(tiny_model, ONE)
    assert got.log["l_edit"] == pytest.approx([float(loss.detach())], rel=1e-5)
    assert got.log["l_constraint"] == [0.0]
    clear = gradient.abs() > 1e-5  # elsewhere Adam's epsilon and rounding speak, too
    assert clear.float().mean() > 0.5
    torch.testing.assert_close(delta(got)[clear], (-lr * gradient.sign())[clear], rtol=5e-3, atol=1e-6)


def test_an_edit_makes_the_safe_response_likelier_on_every_architecture(tiny_model):
    config = replace(TINY, steps=10, lr=3e-3)
    got = config.detoxify(tiny_model, ONE)
    assert got.log["l_edit"][-1] < got.log["l_edit"][0]
    with got.applied(tiny_model):
        again = replace(config, layer=got.layer, steps=1).detoxify(tiny_model, ONE)
    assert again.log["l_edit"][0] < got.log["l_edit"][0]


# ------------------------------------------------------------------------------------------------- fast
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("preset", ["paper", "released code"])
def test_the_fast_way_gives_the_same_delta_on_every_architecture(tiny_model, layer, preset):
    changes = {"suffix": TINY.suffix, "layer": layer, "steps": 5, "lr": 1e-3}
    config = Dinm(**changes) if preset == "paper" else Dinm.reference(**changes)
    fast, whole = (replace(config, fast=f).detoxify(tiny_model, ONE) for f in (True, False))
    for name, expected in whole.edit.deltas.items():
        assert apart(fast.edit.deltas[name], expected) < 1e-3
    assert fast.log["total"] == pytest.approx(whole.log["total"], abs=5e-6)


def test_the_fast_way_runs_no_block_below_the_edited_layer_after_the_first_pass(make_model):
    model, calls = make_model("llama"), []
    for number, block in enumerate(model.blocks):
        block.self_attn.q_proj.register_forward_hook(lambda *_, number=number: calls.append(number))
    replace(TINY, layer=1, steps=4).detoxify(model, ONE)
    # Edit and constraint sequence: once through the attention of 0 and 1, then 4 steps through that of 2.
    assert (calls.count(0), calls.count(1), calls.count(2)) == (2, 2, 8)


def test_the_fast_way_shows_the_vocabulary_supervised_positions_only(make_model):
    model, rows = make_model("llama"), set()
    model.hf.get_output_embeddings().register_forward_hook(lambda _, args, out: rows.add(out.shape[1]))
    _, answer = model.encode_pair(ONE.adversarial_prompt, ONE.safe_generation)
    replace(TINY, layer=1).detoxify(model, ONE)
    assert rows == {len(answer), 1}  # the answer; the end of the constraint's prompt
    rows.clear()
    replace(TINY, layer=2).detoxify(model, ONE)
    assert rows == {len(answer) + 1}


# ------------------------------------------------------------------------------------------------- the model stays
def snapshot(model):
    """Every tensor, and every hook or exchanged forward (transformers may have put some of its own)."""
    return {n: p.clone() for n, p in model.hf.state_dict().items()}, changed_modules(model)


def changed_modules(model):
    modules = model.hf.named_modules()
    return [(n, "forward" in m.__dict__, len(m._forward_pre_hooks), len(m._forward_hooks)) for n, m in modules]


def assert_untouched(model, before):
    tensors, modules = before
    now = model.hf.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in tensors.items())
    assert [n for n, p in model.hf.named_parameters() if p.requires_grad or p.grad is not None] == []
    assert changed_modules(model) == modules
    assert not model.hf.training


@pytest.mark.parametrize("fast", [True, False])
def test_the_model_is_untouched_frozen_and_in_eval_mode_afterwards(tiny_model, fast):
    before = snapshot(tiny_model)
    replace(TINY, fast=fast).detoxify(tiny_model, ONE)
    assert_untouched(tiny_model, before)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("layer", [1, 2])
def test_the_model_is_untouched_after_an_interrupt_in_the_middle_of_a_step(make_model, monkeypatch, fast, layer):
    model = make_model("gpt2")
    before, real, seen = snapshot(model), model.logits, []

    def interrupted(tokens):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return real(tokens)

    monkeypatch.setattr(model, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace(TINY, layer=layer, fast=fast).detoxify(model, ONE)
    assert_untouched(model, before)


def test_only_w_v_of_the_layer_differs_while_the_edit_is_applied(make_model):
    model = make_model("llama")
    before = snapshot(model)
    got = replace(TINY, layer=1).detoxify(model, ONE)
    with got.applied(model):
        now = model.hf.state_dict()
        assert [n for n, old in before[0].items() if not torch.equal(now[n], old)] == [model.value_name(1)]
    assert_untouched(model, before)


def test_the_master_is_float32_where_the_model_is_not(make_model):
    model = make_model("llama")
    model.hf.to(torch.bfloat16)
    got = replace(TINY, layer=1, steps=10, lr=1e-5).detoxify(model, ONE)  # each step far below bf16's resolution
    assert delta(got).dtype == torch.float32
    assert 5e-5 < delta(got).abs().max() < 1.1e-4


# ------------------------------------------------------------------------------------------------- many instances
def test_independent_edits_are_those_made_alone(llama):
    seen = []
    many = TINY.detoxify_many(llama, [ONE, TWO, THREE], progress=lambda *done: seen.append(done))
    for one, got in zip((ONE, TWO, THREE), many, strict=True):
        alone = TINY.detoxify(llama, one)
        assert got.layer == alone.layer
        assert got.edit.provenance.instance_ids == (one.id,)
        assert torch.equal(delta(got), delta(alone))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"constrain": False},
        {"norm_constraint": 2e-3, "edit_bias": True},
        {"constraint_on": "answer", "constraint_gradient": False, "constraint_every_step": False, "stop_below": 0.4},
    ],
)
def test_edits_trained_as_one_are_those_made_alone(tiny_model, layer, change):
    config, many, seen = replace(TINY, layer=layer, steps=6, **change), [ONE, TWO, THREE], []
    together = config.detoxify_many(tiny_model, many, lambda *done: seen.append(done), together=2)
    for one, got in zip(many, together, strict=True):
        alone = config.detoxify(tiny_model, one)
        assert list(got.edit.deltas) == list(alone.edit.deltas)
        for name, expected in alone.edit.deltas.items():
            assert apart(got.edit.deltas[name], expected) < 1e-3
        for loss, values in alone.log.items():
            if loss not in ("seconds", "truncated"):
                assert got.log[loss] == pytest.approx(values, abs=1e-5)
        assert got.edit.provenance.instance_ids == (one.id,)
    assert seen == [(2, 3), (3, 3)]


def test_of_edits_trained_as_one_each_stops_on_its_own_and_layers_stay_apart(llama):
    logs = [d.log["total"] for d in replace(TINY, layer=1, steps=8, lr=3e-3).detoxify_many(llama, [ONE, TWO, THREE])]
    config = replace(TINY, layer=1, steps=8, lr=3e-3, stop_below=(logs[0][3] + logs[0][4]) / 2)
    alone, together = (
        config.detoxify_many(llama, [ONE, TWO, THREE]),
        config.detoxify_many(llama, [ONE, TWO, THREE], together=3),
    )
    steps = [len(d.log["total"]) for d in alone]
    assert [len(d.log["total"]) for d in together] == steps
    assert len(set(steps)) > 1
    for one, got in zip(alone, together, strict=True):
        assert torch.equal(delta(got), delta(one)) or apart(delta(got), delta(one)) < 1e-3
    located = TINY.detoxify_many(llama, [ONE, TWO, THREE], together=3)
    assert [d.layer for d in located] == [d.layer for d in TINY.detoxify_many(llama, [ONE, TWO, THREE])]


def test_an_edit_trained_with_others_is_named_where_it_diverges(llama):
    with pytest.raises(InputError, match=r"DINM on instance \d: .* with learning rate 1e\+38"):
        replace(TINY, layer=1, lr=1e38).detoxify_many(llama, [ONE, TWO], together=2)


def test_a_batch_edit_minimises_the_mean_over_its_instances(llama):
    config = replace(TINY, layer=1)
    batch = config.detoxify(llama, [ONE, TWO])
    singles = config.detoxify_many(llama, [ONE, TWO])
    assert batch.log["l_edit"][0] == pytest.approx(sum(s.log["l_edit"][0] for s in singles) / 2, rel=1e-6)
    assert batch.edit.provenance.instance_ids == (0, 1)
    assert all(apart(delta(batch), delta(s)) > 0.1 for s in singles)
    twice = config.detoxify(llama, [ONE, ONE])
    assert apart(delta(twice), delta(singles[0])) < 1e-4


def test_sequential_edits_stand_on_those_before_and_add_up(make_model):
    model = make_model("llama")
    before, config = snapshot(model), replace(TINY, layer=1)
    running = config.sequential(model, [ONE, TWO])
    first = next(running)
    assert_untouched(model, before)
    second = next(running)
    assert_untouched(model, before)
    assert torch.equal(delta(first), delta(config.detoxify(model, ONE)))
    with first.applied(model):
        on_top = delta(config.detoxify(model, TWO))
    torch.testing.assert_close(delta(second), delta(first) + on_top, rtol=0, atol=1e-6)
    assert second.edit.provenance.instance_ids == (0, 1)
    with pytest.raises(StopIteration):
        next(running)


def test_sequential_edits_of_different_layers_keep_all_of_them(golden_model, cases):
    *_, last = Dinm.reference(reuse_first_layer=False, steps=2).sequential(golden_model, [c[0] for c in cases])
    assert [*last.edit.deltas] == [golden_model.value_name(layer) for layer in (5, 4)]
    assert last.edit.provenance.layer is None
    with last.applied(golden_model):
        pass


# ------------------------------------------------------------------------------------------------- what comes back
def test_the_result_says_where_it_came_from(llama, tmp_path):
    got = replace(TINY, layer=2).detoxify(llama, THREE)
    made = got.edit.provenance
    assert (got.method, got.suffix, got.layer, made.layer) == ("dinm", "Be good:", 2, 2)
    assert (made.method, made.model, made.weight_hash, made.instance_ids) == (
        "dinm", llama.source, llama.weight_hash(), (2,),
    )  # fmt: skip
    assert made.config["lr"] == 1e-3
    assert made.config["convention"]["name"] == "paper"
    again = WeightEdit.load(got.edit.save(tmp_path))
    assert torch.equal(again.deltas[llama.value_name(2)], delta(got))
    assert again.provenance.config == json.loads(json.dumps(made.config))
    assert isinstance(TINY, Method)


@pytest.mark.parametrize(
    "change", [{"suffix": ""}, {"constrain": False}, {"weight_decay": 0.1}, {"c_edit": 10.0}, {"max_prompt": 3}]
)
def test_every_ablation_changes_the_delta(llama, change):
    base, other = (replace(TINY, layer=1, **c).detoxify(llama, ONE) for c in ({}, change))
    assert apart(delta(other), delta(base)) > 1e-3


# ------------------------------------------------------------------------------------------------- bad input
def test_a_loss_that_is_not_finite_names_step_and_learning_rate(llama):
    with pytest.raises(InputError, match=r"DINM on instance 0: .* after step \d of 4 with learning rate 1e\+38"):
        replace(TINY, layer=1, lr=1e38).detoxify(llama, ONE)


def test_a_model_that_is_broken_from_the_start_is_told_apart(make_model):
    model = make_model("llama")
    model.value_weight(2).data.fill_(float("nan"))
    with pytest.raises(InputError, match="nan before the first step"):
        replace(TINY, layer=1).detoxify(model, ONE)


def test_a_prompt_longer_than_the_context_is_cut_and_told(make_model):
    model = make_model("llama")
    long = replace(ONE, adversarial_prompt="The cat sat on the mat. " * 40)
    for config in (TINY, Dinm.reference(suffix=TINY.suffix, steps=1)):
        model.warnings.clear()
        got = config.detoxify(model, long)
        assert got.log["truncated"] >= 1
        assert any("cut from the left" in line for line in model.warnings)


def test_an_answer_longer_than_the_limit_is_cut_from_the_right_and_told(make_model):
    model = make_model("llama")
    for config in (TINY, Dinm.reference(suffix=TINY.suffix, steps=1)):
        model.warnings.clear()
        replace(config, max_answer=3, layer=1).detoxify(model, ONE)
        assert any("cut from the right" in line for line in model.warnings)


def test_bad_input_is_told_in_one_line(llama):
    with pytest.raises(InputError, match=r"layer 9 out of range: the model has layers 0\.\.2"):
        replace(TINY, layer=9).detoxify(llama, ONE)
    with pytest.raises(InputError, match="at least one instance, got none"):
        TINY.detoxify(llama, [])
    with pytest.raises(InputError, match="at least one instance, got none"):
        TINY.detoxify_many(llama, [])
    with pytest.raises(InputError, match="at least one instance, got none"):
        list(TINY.sequential(llama, []))
    with pytest.raises(InputError, match="instance 0 has an empty safe response"):
        replace(TINY, layer=1).detoxify(llama, replace(ONE, safe_generation=" "))
    with pytest.raises(InputError, match="instance 0 has no knowledge answer"):
        replace(TINY, layer=1, constraint_on="answer").detoxify(llama, instance(a=""))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"c_edit": -1.0}, "must not be negative"),
        ({"norm_constraint": 0.0}, "norm_constraint must be positive or None, got 0"),
        ({"constraint_on": "prompt"}, "constraint_on must be one of"),
        ({"constraint_direction": "both"}, "constraint_direction must be one of"),
        ({"max_prompt": 0}, "max_prompt must be at least 1, got 0"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    config = Dinm()
    for name, value in change.items():  # past the type checker of the test run, as users run without it
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=message):
        config.__post_init__()
