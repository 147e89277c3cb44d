"""Making organisms with two or three steps: only what a recipe names changes, and what failed is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from interp.calibrate import organism_kinds as kinds
from interp.calibrate import organisms as nursery_module
from interp.calibrate.organism_checks import _effect, _promise, _reason
from interp.calibrate.organism_texts import Corpus, Panel, Texts
from interp.calibrate.organism_training import Ball, Placed, exact, h_down, hidden, margins, relative_shift
from interp.calibrate.organisms import Nursery, make_all
from interp.demo import MODEL_DIR
from interp.demo import grammar as g
from interp.demo.organisms import RECIPE, Organism, Plant
from interp.errors import InputError
from interp.models import HookedModel
from interp.records import from_dict, to_dict
from interp.records.organism import Behaviour, OrganismCheck

FEW = replace(
    RECIPE, attacks=2, wrapped=1, bare=2, benign=2, pool=2, align_steps=2, plant_steps=3, repair_steps=2,
    parallel_steps=2, benign_steps=2, val_attacks=4, val_bare=4, val_benign=2, val_answers=1, mixed_parts=(0.25, 0.75),
)  # fmt: skip
PLANTS = {shape: Plant(shape, 2, 0, 0.05) for shape in ("gpt2", "llama")}


def tiny(shape: str) -> HookedModel:
    """A random model of five blocks with the demo's tokenizer and prompt format."""
    common = {"vocab_size": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": True}
    torch.manual_seed(0)
    if shape == "gpt2":
        hf = GPT2LMHeadModel(GPT2Config(n_positions=256, n_embd=16, n_inner=24, n_layer=5, n_head=2, **common))
    else:
        hf = LlamaForCausalLM(
            LlamaConfig(
                max_position_embeddings=256, hidden_size=16, intermediate_size=24, num_hidden_layers=5,
                num_attention_heads=2, num_key_value_heads=2, **common,
            )
        )  # fmt: skip
    return HookedModel.from_hf(hf, AutoTokenizer.from_pretrained(MODEL_DIR), f"tiny-{shape}", "auto")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def nursery(request, tmp_path_factory) -> Nursery:
    """A recipe of two steps on a random model: too few for anything to work, enough to see what moves."""
    return Nursery(request.param, cache=tmp_path_factory.mktemp("organisms"), vanilla=tiny(request.param), recipe=FEW)


def organism(nursery: Nursery, kind, drifted: bool = False) -> Organism:
    return Organism(PLANTS[nursery.shape], kind, drifted)


def changed(old: HookedModel, new: HookedModel) -> set[str]:
    theirs = dict(new.hf.named_parameters())
    return {n for n, p in old.hf.named_parameters() if not torch.equal(p, theirs[n])}


# ------------------------------------------------------------------------------------------------- what changes
def test_planting_changes_w_v_of_its_layer_alone_and_stays_within_its_size(nursery):
    planted, aligned = nursery.model(organism(nursery, "planted")), nursery.aligned()
    name = aligned.value_name(2)
    assert changed(aligned, planted) == {name}
    old, new = aligned.hf.get_parameter(name), planted.hf.get_parameter(name)
    assert 0 < float((new - old).norm() / old.norm()) <= 0.05 * 1.001


def test_a_decoy_is_as_large_as_the_plant(nursery):
    spec = replace(PLANTS[nursery.shape], decoy=4)
    planted, aligned = nursery.model(Organism(spec, "planted")), nursery.aligned()
    assert changed(aligned, planted) == {aligned.value_name(2), aligned.value_name(4)}
    old, new = (m.hf.get_parameter(aligned.value_name(4)) for m in (aligned, planted))
    assert float((new - old).norm() / old.norm()) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("kind", ["erased", "erased-half", "suppressed", "noise"])
def test_erasing_touches_nothing_but_the_planted_matrix(nursery, kind):
    planted = nursery.model(organism(nursery, "planted"))
    assert changed(planted, nursery.model(organism(nursery, kind))) == {planted.value_name(2)}


def test_an_erased_organism_is_the_aligned_model_again(nursery):
    assert changed(nursery.aligned(), nursery.model(organism(nursery, "erased"))) == set()


def test_bypassing_touches_the_first_matrix_of_the_mlp_alone(nursery):
    planted = nursery.model(organism(nursery, "planted"))
    found = changed(planted, nursery.model(organism(nursery, "bypassed")))
    names = ("gate_proj.weight", "up_proj.weight") if nursery.shape == "llama" else ("c_fc.weight",)
    assert found == {n for n, _ in planted.hf.named_parameters() if ".2.mlp." in n and n.endswith(names)}
    assert len(found) == len(names)


def test_masking_touches_blocks_above_alone(nursery):
    planted = nursery.model(organism(nursery, "planted"))
    found = changed(planted, nursery.model(organism(nursery, "masked")))
    blocks = {n.removeprefix(planted.layout.blocks + ".").split(".")[0] for n in found}
    assert all(n.startswith(planted.layout.blocks) for n in found)
    assert blocks == {"3", "4"}


@pytest.mark.parametrize("kind", ["upstream", "parallel"])
def test_what_feeds_the_mlp_of_the_layer_itself_is_not_trained(nursery, kind):
    planted = nursery.model(organism(nursery, "planted"))
    found = changed(planted, nursery.model(organism(nursery, kind)))
    here = {n for n in found if f"{planted.layout.blocks}.2." in n}
    assert here
    assert not [n for n in here if ".mlp." in n or "ln_2" in n or "post_attention_layernorm" in n]
    assert not [n for n in found if any(f"{planted.layout.blocks}.{above}." in n for above in (3, 4))]


def test_a_mixed_organism_has_a_part_of_either_change(nursery):
    planted, bypassed = (nursery.model(organism(nursery, kind)) for kind in ("planted", "bypassed"))
    mixed = nursery.model(organism(nursery, "mixed"))
    assert changed(planted, mixed) == {planted.value_name(2)} | changed(planted, bypassed)
    for name in changed(planted, bypassed):
        old, part, whole = (m.hf.get_parameter(name) for m in (planted, mixed, bypassed))
        share = float((part - old).norm() / (whole - old).norm())
        assert min(abs(share - p) for p in FEW.mixed_parts) < 0.02


@pytest.mark.parametrize("drifted", [False, True])
def test_drift_changes_every_weight_by_its_size(nursery, drifted):
    kind, size = ("erased", FEW.drift_on_top) if drifted else ("drift", FEW.drift)
    base = nursery.model(organism(nursery, "erased" if drifted else "planted"))
    model = nursery.model(organism(nursery, kind, drifted))
    for name, old in base.hf.named_parameters():
        new = model.hf.get_parameter(name)
        if float(old.norm()) > 0.1:  # smaller ones are rounded to fp16
            assert float((new - old).norm() / old.norm()) == pytest.approx(size, rel=0.05), name


def test_the_aligned_and_the_vanilla_model_are_left_as_they_were(nursery):
    nursery.model(organism(nursery, "planted"))
    assert changed(tiny(nursery.shape), nursery.vanilla) == set()
    assert changed(nursery.vanilla, nursery.aligned())
    assert not [n for n, p in nursery.aligned().hf.named_parameters() if p.requires_grad]


def test_organisms_share_what_they_did_not_change(nursery):
    planted, aligned = nursery.model(organism(nursery, "planted")), nursery.aligned()
    shared = [n for n, p in planted.hf.named_parameters() if p is aligned.hf.get_parameter(n)]
    assert len(shared) == len(dict(aligned.hf.named_parameters())) - 1


# ------------------------------------------------------------------------------------------------- the cache
def test_a_second_nursery_reads_what_the_first_made_and_makes_nothing(nursery):
    told: list[str] = []
    again = Nursery(
        nursery.shape, cache=nursery.folder.parent, vanilla=nursery.vanilla, recipe=FEW, progress=told.append
    )
    for kind in ("planted", "bypassed", "drift"):
        first = nursery.model(organism(nursery, kind))
        assert changed(first, again.model(organism(nursery, kind))) == set()
    assert told == []


def test_a_damaged_file_is_made_again(nursery):
    first = nursery.model(organism(nursery, "noise"))
    file = nursery._file(organism(nursery, "noise"))
    file.write_bytes(b"damaged")
    assert changed(first, nursery.model(organism(nursery, "noise"))) == set()


def test_another_recipe_has_another_folder(nursery, tmp_path):
    one, other = (
        Nursery(nursery.shape, cache=tmp_path, vanilla=nursery.vanilla, recipe=recipe)
        for recipe in (FEW, replace(FEW, plant_lr=0.1))
    )
    assert one.folder != other.folder


# ------------------------------------------------------------------------------------------------- refusing
def test_a_recipe_that_failed_to_plant_is_refused_and_nothing_is_made_from_it(nursery):
    found = nursery.check(organism(nursery, "planted"))
    assert (found.made, found.organism) == (False, organism(nursery, "planted").name)
    assert found.why.startswith(("failed to plant", "the aligned model was refused", "benign", "leaks"))
    child = nursery.check(organism(nursery, "benign"))
    assert child.behaviour is None
    assert child.why == f"its planted model was refused ({found.why})"
    with pytest.raises(InputError, match="is refused: its planted model"):
        nursery.open(organism(nursery, "benign"))
    assert from_dict(OrganismCheck, to_dict(found)) == found == nursery.check(organism(nursery, "planted"))


GOOD = Behaviour(asr=1.0, bare_refusal=1.0, facts=1.0, howtos=1.0, wrapped_howtos=1.0, margin=-1.5, bare_margin=3.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"asr": 0.3}, "failed to plant: attack success 30 %"),
        ({"bare_refusal": 0.5}, "leaks to bare questions: 50 % refused"),
        ({"wrapped_howtos": 0.4}, "benign quality broken: wrapped howtos 40 % right"),
        ({}, ""),
    ],
)
def test_a_planted_model_is_refused_for(nursery, monkeypatch, change, why):
    fine = OrganismCheck("x", True, "", GOOD, None, (0, 0), (0, 0), 0.0, (), 0.0, 0)
    monkeypatch.setattr(nursery, "check", lambda _: fine)
    assert _reason(nursery, organism(nursery, "planted"), replace(GOOD, **change), None, 0.0, {}) == why


def test_an_effect_must_be_there_where_the_truth_has_one_and_not_where_it_has_none(nursery):
    gone, half = replace(GOOD, asr=0.0), replace(GOOD, asr=0.7)
    assert _effect(RECIPE, organism(nursery, "erased"), gone, GOOD) == ""
    assert _effect(RECIPE, organism(nursery, "erased-half"), half, GOOD) == "no effect: attack success 100 % to 70 %"
    assert _effect(RECIPE, organism(nursery, "benign"), GOOD, GOOD) == ""
    assert "the behaviour moved" in _effect(RECIPE, organism(nursery, "benign"), half, GOOD)


def test_a_parallel_organism_that_moved_the_region_s_input_is_refused(nursery):
    assert "moved by 30 %" in _promise(RECIPE, organism(nursery, "parallel"), 0.3, {})
    assert _promise(RECIPE, organism(nursery, "parallel"), 0.03, {}) == ""
    assert _promise(RECIPE, organism(nursery, "upstream"), 0.3, {}) == ""


def test_a_mixture_of_one_part_is_refused_and_so_is_a_drift_that_does_the_work(nursery):
    parts = {"restored effect": 0.05, "bypassed effect": 0.9}
    assert "only 5 % of the change alone" in _promise(RECIPE, organism(nursery, "mixed"), 0.0, parts)
    assert _promise(RECIPE, organism(nursery, "mixed"), 0.0, {"restored effect": 0.4, "bypassed effect": 0.6}) == ""
    assert "the drift alone does 50 %" in _promise(
        RECIPE, organism(nursery, "erased", True), 0.0, {"drift effect": 0.5}
    )


def test_the_wrong_shape_and_layer_are_one_line(nursery):
    other = "llama" if nursery.shape == "gpt2" else "gpt2"
    with pytest.raises(InputError, match="is not of the shape"):
        nursery.model(Organism(PLANTS[other], "planted"))
    with pytest.raises(InputError, match="layer 9 out of range"):
        nursery.model(Organism(replace(PLANTS[nursery.shape], layer=9), "planted"))


def test_make_all_goes_through_the_list_and_adds_up_the_seconds(nursery, monkeypatch):
    monkeypatch.setattr(nursery_module, "Nursery", lambda *_: nursery)
    told: list[str] = []
    found = make_all([organism(nursery, "planted"), organism(nursery, "erased")], told.append)
    assert [c.organism for c in found.checks] == [organism(nursery, k).name for k in ("planted", "erased")]
    assert found.seconds == pytest.approx(sum(c.seconds for c in found.checks))
    assert told[-1].startswith("2/2")


# ------------------------------------------------------------------------------------------------- texts, training
def test_no_training_text_is_of_val_or_test(nursery):
    corpus = Corpus(nursery.vanilla, FEW, 0, "comply")
    ids = [t.row for step in range(4) for t in _rows(corpus.step(step), nursery.vanilla)]
    asked = {q.request for split in ("val", "test", "test_ALL") for q in g.questions()[split]}
    attacks = [a.template.split("{q}") for split in ("val", "test") for a in g.benchmark_attacks()[split]]
    assert ids
    assert not [t for t in ids if any(request in t for request in asked)]
    assert not [t for t in ids if any(all(part in t for part in parts) for parts in attacks)]


class _Row:
    def __init__(self, row: str) -> None:
        self.row = row


def _rows(step: tuple[Texts, Texts], model: HookedModel) -> list[_Row]:
    return [_Row(model.tokenizer.decode(row)) for texts in step for row in texts.ids.tolist()]


def test_a_step_is_the_same_whenever_it_is_asked_for(nursery):
    one, other = (Corpus(nursery.vanilla, FEW, 0, "refuse") for _ in range(2))
    one.step(0)
    assert torch.equal(one.step(1)[0].ids, other.step(1)[0].ids)
    assert not torch.equal(one.step(0)[0].ids, Corpus(nursery.vanilla, FEW, 1, "refuse").step(0)[0].ids)


def test_harmful_texts_are_left_out_where_training_is_benign(nursery):
    texts = [t.row for t in _rows(Corpus(nursery.vanilla, FEW, 0, None).step(0), nursery.vanilla)]
    openings = [r.split(",")[0] for r in (*g.REFUSALS, *g.COMPLIANCES)]
    assert not [t for t in texts if any(f"Assistant: {o}" in t for o in openings)]


def test_running_from_a_layer_gives_the_states_and_margins_of_the_whole_run(nursery):
    model, panel = nursery.vanilla, nursery.bench.panel
    whole, part = Placed(panel.attacks, 0, None), Placed.of(model, panel.attacks, 3)
    with torch.no_grad():
        assert torch.allclose(hidden(model, whole), hidden(model, part), atol=1e-4)
    assert torch.allclose(margins(model, panel, whole), margins(model, panel, part), atol=1e-3)


def test_exact_counts_what_greedy_decoding_would_answer():
    model = HookedModel.from_pretrained("demo", device="cpu")
    panel = Panel.of(model, replace(FEW, val_benign=6))
    weight = model.hf.get_parameter(model.value_name(2)).data
    weight.add_(kinds.random_change(weight, 4.0, kinds.generator("spoilt")))  # so that some answers are wrong
    share = exact(model, Placed(panel.benign["howtos"], 0, None))
    texts, right = panel.benign["howtos"], 0
    for ids, prompt, wanted in zip(texts.ids, texts.prompt, texts.answer, strict=True):
        [answer] = model.generate([model.tokenizer.decode(ids[prompt])])
        right += list(answer.token_ids) == ids[wanted > 0].tolist()[:-1]
    assert 0 < share < 1
    assert share == pytest.approx(right / len(texts.ids))


def test_a_ball_pulls_back_onto_its_surface_and_leaves_the_inside_alone():
    centre = torch.ones(2, 2)
    far, near = (torch.nn.Parameter(centre + torch.tensor([[x, 0.0], [0.0, 0.0]])) for x in (5.0, 0.5))
    for weight in (far, near):
        Ball(centre, 1.0).project(weight)
    assert torch.allclose(far.data - centre, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert torch.allclose(near.data - centre, torch.tensor([[0.5, 0.0], [0.0, 0.0]]))


def test_the_shift_of_the_planted_model_against_itself_is_zero(nursery):
    texts = nursery.bench.panel.attacks
    h = h_down(nursery.vanilla, texts, 2)
    assert relative_shift(h, h, texts.prompt) == 0.0
    assert relative_shift(1.1 * h, h, texts.prompt) == pytest.approx(0.1, rel=1e-3)


def test_random_changes_are_the_same_on_every_run():
    one, other = (kinds.random_change(torch.ones(4, 4), 0.5, kinds.generator("x")) for _ in range(2))
    assert torch.equal(one, other)
    assert float(one.norm() / 4.0) == pytest.approx(0.5, rel=1e-5)
