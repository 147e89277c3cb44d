"""What a method is said to cost, against what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from interp.costs.counting import counting
from interp.costs.methods import edit_work, locating, made_once
from interp.costs.work import Work
from interp.locate import PAPER, REFERENCE_RIGHT, Convention, layer_distances
from interp.methods.ablations import RandomLayer
from interp.methods.dinm import Dinm
from interp.methods.direction import Direction
from interp.methods.dpo import Dpo
from interp.methods.ext_sub import ExtSub
from interp.methods.ft_l import FtL
from interp.methods.mend import Mend
from interp.methods.profs import Profs
from interp.methods.sft import Sft
from interp.models import HookedModel
from interp.safeedit import Benchmark, load


@pytest.fixture(scope="module")
def demo() -> HookedModel:
    return HookedModel.from_pretrained("demo")


@pytest.fixture(scope="module")
def data() -> Benchmark:
    return load("demo")


def measured(model: HookedModel, run: Any) -> Work:
    with counting() as counted:
        run()
    depth = model.n_layers
    return Work(counted.passes / depth, counted.positions / depth, counted.learning / depth)


def near(planned: Work, found: Work, share: float) -> bool:
    pairs = ((planned.forwards, found.forwards), (planned.tokens, found.tokens))
    return all(abs(ours - theirs) <= share * theirs for ours, theirs in pairs)


@pytest.mark.parametrize("layer", [0, 3, 5])
@pytest.mark.parametrize("fast", [True, False])
def test_an_edit_costs_what_was_planned_in_every_layer(
    demo: HookedModel, data: Benchmark, layer: int, fast: bool
) -> None:
    method = Dinm(layer=layer, steps=3, fast=fast)
    found = measured(demo, lambda: method.detoxify(demo, data.test[0]))
    assert near(edit_work(method, demo, data.test[0]), found, 0.02)


def test_an_edit_without_constraint_or_with_locating_is_told_apart(demo: HookedModel, data: Benchmark) -> None:
    one = data.test[0]
    plain, located = Dinm(layer=5, constrain=False), Dinm(constrain=False)
    assert near(edit_work(plain, demo, one), measured(demo, lambda: plain.detoxify(demo, one)), 0.02)
    apart = edit_work(located, demo, one).forwards - edit_work(plain, demo, one).forwards
    assert apart == 2


def test_the_random_layer_is_the_one_that_will_be_drawn(demo: HookedModel, data: Benchmark) -> None:
    # Two of three instances locate the last layer, which the plan assumes.
    method = RandomLayer(base=Dinm(steps=3))
    chosen = [i for i in data.test[:12] if layer_distances(demo, i).toxic_layer == demo.n_layers - 1][:2]
    for one in chosen:
        assert near(edit_work(method, demo, one), measured(demo, lambda i=one: method.detoxify(demo, i)), 0.02)
    assert len(chosen) == 2


@pytest.mark.parametrize("likelihood", ["answer", "prompt end"])
def test_ft_l_costs_what_was_planned(demo: HookedModel, data: Benchmark, likelihood: Any) -> None:
    method = FtL(layer=2, steps=3, likelihood=likelihood, norm_constraint=1e-2)
    found = measured(demo, lambda: method.detoxify(demo, data.test[0]))
    assert near(edit_work(method, demo, data.test[0]), found, 0.05)


@pytest.mark.parametrize("convention", [PAPER, REFERENCE_RIGHT], ids=lambda c: c.name)
def test_locating_costs_what_was_planned(demo: HookedModel, data: Benchmark, convention: Convention) -> None:
    found = measured(demo, lambda: layer_distances(demo, data.test[:5], convention, batch_size=4))
    assert near(locating(demo, data.test[:5], convention, 4), found, 0.02)


SMALL = (
    Sft(steps=2, batch_size=4),
    Sft(steps=2, batch_size=4, accumulate=2),
    Dpo(steps=2, batch_size=4),
    ExtSub(steps=2, batch_size=4),
    Profs(rank=2, pairs=12),
    Direction(prompts=12, held_out=4, filtered=False, max_kl=None),
)


@pytest.mark.parametrize("method", SMALL, ids=lambda m: f"{m.name} {getattr(m, 'accumulate', '')}")
def test_what_is_made_once_costs_what_was_planned(demo: HookedModel, data: Benchmark, method: Any) -> None:
    found = measured(demo, lambda: method.detoxify(demo, data.train))
    planned = made_once(method, demo, data.train)
    assert near(planned, found, 0.1)
    if isinstance(method, Sft | Dpo | ExtSub):
        assert planned.learning == pytest.approx(found.learning, rel=0.1)


def test_mend_costs_what_was_planned_to_train_and_to_use(demo: HookedModel, data: Benchmark) -> None:
    sizes = {"rank": 8, "steps": 4, "accumulate": 2, "val_every": 2, "val_size": 3, "normalise_on": 4}
    method = Mend(**sizes)
    found = measured(demo, lambda: method.prepare(demo, data.train, data.val))
    assert near(made_once(method, demo, data.train, data.val), found, 0.2)
    ready, one = method.prepare(demo, data.train, data.val), data.test[0]
    assert near(edit_work(ready, demo, one), measured(demo, lambda: ready.detoxify(demo, one)), 0.05)


def test_twice_the_steps_cost_twice_the_tokens(demo: HookedModel, data: Benchmark) -> None:
    method = Sft(steps=2, batch_size=8)
    once, twice = (made_once(m, demo, data.train) for m in (method, replace(method, steps=4)))
    assert twice.forwards == 2 * once.forwards
    assert twice.tokens == pytest.approx(2 * once.tokens, rel=0.15)
