"""DINM's ablations: each differs from the whole in one thing, and wo/Location never edits the located layer."""

from dataclasses import asdict, replace

import pytest
import torch
from rivals import ONE, THREE, TWO, assert_untouched, snapshot

from interp.errors import InputError
from interp.locate import layer_distances
from interp.methods.ablations import RandomLayer, SuffixAlone, dinm_ablations
from interp.methods.base import SUFFIX_S1, SUFFIX_S2, Method
from interp.methods.dinm import Dinm

BASE = Dinm(steps=2, lr=1e-3)


def test_each_ablation_differs_from_the_whole_in_one_field():
    found = dinm_ablations(BASE, layers=(0, 2))
    assert list(found) == [
        "DINM", "wo/SyPrompt", "wo/Constraint", "wo/Location", "wo/Tune",
        "suffix S1", "suffix S2", "layer 0", "layer 2",
    ]  # fmt: skip
    assert all(isinstance(method, Method) for method in found.values())
    different = {
        name: {field for field, value in asdict(method).items() if value != asdict(BASE)[field]}
        for name, method in found.items()
        if isinstance(method, Dinm)
    }
    assert different == {
        "DINM": set(), "wo/SyPrompt": {"suffix"}, "wo/Constraint": {"constrain"},
        "suffix S1": set(), "suffix S2": {"suffix"}, "layer 0": {"layer"}, "layer 2": {"layer"},
    }  # fmt: skip
    assert found["suffix S2"].suffix == SUFFIX_S2
    assert found["wo/Tune"] == SuffixAlone(suffix=SUFFIX_S1)


def test_without_location_any_other_layer_is_edited_and_never_the_located_one(tiny_model):
    before = snapshot(tiny_model)
    instances = [replace(ONE, id=i) for i in range(12)]
    located = layer_distances(tiny_model, instances).located
    edits = RandomLayer(base=replace(BASE, steps=1), seed=0).detoxify_many(tiny_model, instances)
    assert all(edit.layer != layer for edit, layer in zip(edits, located, strict=True))
    assert [edit.log["located"] for edit in edits] == list(located)
    assert len({edit.layer for edit in edits}) == 2  # 3 layers, one of them located: both others are drawn
    assert {edit.method for edit in edits} == {"dinm-wo-location"}
    assert_untouched(tiny_model, before)


def test_the_random_layer_is_seeded_and_does_not_depend_on_the_company(llama):
    method = RandomLayer(base=BASE, seed=3)
    alone = method.detoxify(llama, TWO)
    _, among, _ = method.detoxify_many(llama, [ONE, TWO, THREE])
    assert alone.layer == among.layer
    name = llama.value_name(alone.layer)
    assert torch.equal(alone.edit.deltas[name], among.edit.deltas[name])
    by_hand = replace(BASE, layer=alone.layer).detoxify(llama, TWO)
    assert torch.equal(alone.edit.deltas[name], by_hand.edit.deltas[name])
    many = [replace(TWO, id=i) for i in range(8)]
    drawn = [[e.layer for e in RandomLayer(base=BASE, seed=s).detoxify_many(llama, many)] for s in (0, 1)]
    assert drawn[0] != drawn[1]


def test_without_tuning_there_is_s_and_nothing_else(llama):
    got = SuffixAlone(suffix="Be good:").detoxify(llama)
    assert (got.edit, got.checkpoint, got.suffix, got.prefix) == (None, None, "Be good:", "")
    assert SuffixAlone.needs == "nothing"


def test_bad_input_is_told_in_one_line(llama, make_model):
    with pytest.raises(InputError, match="got one without S and locating"):
        dinm_ablations(replace(BASE, suffix="", layer=1))
    method = RandomLayer(base=BASE)
    for asked in (method.detoxify, method.detoxify_many):
        with pytest.raises(InputError, match="at least one instance, got none"):
            asked(llama, [])
    with pytest.raises(InputError, match="at least two layers, tiny-llama has 1"):
        method.detoxify(make_model("llama", n_layers=1), ONE)
