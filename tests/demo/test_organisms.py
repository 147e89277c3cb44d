"""The list of model organisms: counts, names, halves, truths. No model is made here."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import fields
from typing import get_args

import pytest

from interp.demo import organisms as o

ALL = o.organisms()


def test_there_are_at_least_100_organisms_with_a_truth_of_either_shape():
    with_truth = [x for x in ALL if x.truth not in ("reference", "planted")]
    assert len(with_truth) >= 100
    assert {x.plant.shape for x in with_truth} == set(get_args(o.Shape))


def test_names_are_unique_and_say_what_the_organism_is():
    assert len({x.name for x in ALL}) == len(ALL)
    assert o.Plant("gpt2", 2, 0, o.SIZES["m"]).name == "gpt2-k2-s0-m"
    assert o.Plant("llama", 3, 1, 0.123).name == "llama-k3-s1-0.123"
    assert o.Organism(o.PLANTS[0], "erased-half", True).name == f"{o.PLANTS[0].name}-erased-half-drifted"


def test_all_organisms_of_a_plant_are_in_one_part():
    halves = {p.name: {x.half for x in ALL if x.plant == p} for p in o.PLANTS}
    assert all(len(found) == 1 for found in halves.values())


@pytest.mark.parametrize("shape", get_args(o.Shape))
@pytest.mark.parametrize("layer", range(1, 6))
def test_of_the_three_plants_of_a_layer_one_is_in_each_part(shape, layer):
    here = [o.Organism(p, "planted") for p in o.PLANTS if (p.shape, p.layer) == (shape, layer)]
    assert Counter(x.half for x in here) == {"set": 1, "held-out": 1, "fresh": 1}
    assert len({x.plant.size for x in here}) == 2
    assert [x.plant.decoy is None for x in here] == [x.plant.seed % 2 == 0 for x in here]


def test_fresh_plants_share_no_seed_with_the_halves_and_take_the_size_of_their_parity():
    fresh = [p for p in o.PLANTS if o.Organism(p, "planted").half == "fresh"]
    others = {(p.shape, p.layer, p.seed): p for p in o.PLANTS if p not in fresh}
    assert len(fresh) == 10
    assert not {p.seed for p in fresh} & {p.seed for p in others.values()}
    assert all(p.size == others[p.shape, p.layer, p.seed % 2].size for p in fresh)
    assert {p.decoy is None for p in fresh} == {True, False}


def test_both_halves_have_every_size_and_seed():
    for half in ("set", "held-out"):
        plants = [p for p in o.PLANTS if o.Organism(p, "planted").half == half]
        assert {p.seed for p in plants} == {0, 1}
        assert {p.name.rsplit("-", 1)[1] for p in plants} >= {"s", "m", "l"}


def test_every_kind_has_a_truth_and_a_line_of_explanation():
    assert set(o.TRUTHS) == set(o.WHAT) == set(get_args(o.Kind))
    assert set(o.TRUTHS.values()) == set(get_args(o.Truth))
    for half in ("set", "held-out", "fresh"):
        truths = {x.truth for x in ALL if x.half == half}
        assert truths == set(get_args(o.Truth)) - {"reference"}


def test_no_decoy_is_where_the_plant_is():
    assert all(p.decoy != p.layer and (p.decoy is None or 1 <= p.decoy <= 5) for p in o.PLANTS)


def test_the_last_layer_has_no_masked_organism():
    assert not [x for x in ALL if x.kind == "masked" and x.plant.layer == 5]
    assert {x.plant.layer for x in ALL if x.kind == "masked"} == {1, 2, 3, 4}


def test_the_small_set_is_part_of_the_whole_and_has_both_halves():
    assert set(o.SMALL) <= set(ALL)
    assert {x.half for x in o.SMALL} == {"set", "held-out"}
    assert {x.truth for x in o.SMALL} >= {"planted", "erased", "bypassed", "masked", "mixed", "none"}
    assert len(o.SMALL) <= 16


def test_the_recipe_is_frozen_and_hashable():
    assert hash(o.RECIPE) == hash(o.Recipe())
    assert all(getattr(o.RECIPE, f.name) is not None for f in fields(o.Recipe))


def test_the_list_needs_no_torch():
    code = "import sys, interp.demo.organisms, interp.records.organism; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
