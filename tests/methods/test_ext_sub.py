"""Ext-Sub: the arithmetic by hand, deltas that are those of PEFT, trainings on the right responses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rivals import assert_untouched, instance, likelihood, snapshot

from interp.errors import InputError
from interp.methods._linears import as_weight
from interp.methods._trl import Lora
from interp.methods.base import Method
from interp.methods.ext_sub import ExtSub, deficiency, updates

DATA = [
    replace(
        instance(i, f"Tell me of the {w}!", f"I am sorry, not the {w}."), unsafe_generation=f"Sure, here is the {w}."
    )
    for i, w in enumerate(["cat", "dog", "moon", "mat", "tree", "hat", "sofa", "song"])
]
TINY = ExtSub(lr=1e-2, steps=3, batch_size=4, lora=Lora(rank=2, alpha=4.0))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


# ------------------------------------------------------------------------------------------------- arithmetic
def test_the_deficiency_of_two_rows_is_that_computed_on_paper():
    plus = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    minus = torch.tensor([[0.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    # Row 0: the bisector is (1, 1) / sqrt 2; (0, 2) has (1, 1) along it, (-1, 1) is left. Row 1: the same direction.
    # Row 2: the expert learned nothing, so the bisector is the anti-expert's own direction.
    expected = torch.tensor([[-1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(deficiency(plus, minus), expected)
    by_expert = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(deficiency(plus, minus, "expert"), by_expert)


def test_opposite_rows_have_nothing_in_common():
    plus = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(deficiency(plus, -3 * plus), -3 * plus)


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 5), width=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_the_deficiency_is_orthogonal_to_the_shared_direction_and_never_longer(seed, rows, width):
    torch.manual_seed(seed)
    plus, minus = torch.randn(rows, width), torch.randn(rows, width)
    rest = deficiency(plus, minus)
    bisector = plus / plus.norm(dim=-1, keepdim=True) + minus / minus.norm(dim=-1, keepdim=True)
    assert float((rest * bisector).sum(-1).abs().max()) < 1e-4
    assert bool((rest.norm(dim=-1) <= minus.norm(dim=-1) * (1 + 1e-5)).all())


# ------------------------------------------------------------------------------------------------- on models
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "neox"])
def test_the_edit_is_expert_minus_deficiency_and_the_adapters_are_pefts(make_model, architecture):
    from peft import PeftModel

    model = make_model(architecture)
    before = snapshot(model)
    got = TINY.detoxify(model, DATA)
    assert_untouched(model, before)
    folders = _adapters(_cache())
    merged = {}
    for side, folder in folders.items():
        fresh = make_model(architecture)
        with warnings.catch_warnings():  # of transformers, for a property that PEFT reads
            warnings.simplefilter("ignore", FutureWarning)
            merged[side] = PeftModel.from_pretrained(fresh.hf, folder).merge_and_unload().state_dict()
    old = before[0]
    for name, delta in got.edit.deltas.items():
        dense = {side: merged[side][name] - old[name] for side in merged}
        made = {side: as_weight(model, name, updates(model, folders[side])[name].T) for side in folders}
        for side, expected in dense.items():
            torch.testing.assert_close(made[side], expected, rtol=0, atol=1e-5)
        plus, minus = (_rows(model, made[side]) for side in ("expert", "anti-expert"))
        torch.testing.assert_close(_rows(model, delta), plus - deficiency(plus, minus), rtol=0, atol=1e-6)
    assert got.edit.norm > 0
    assert got.edit.provenance.instance_ids == tuple(range(8))
    assert all(-1e-6 <= share <= 1 for share in got.log["shared"].values())


def _cache() -> Path:
    from interp.runs import cache_dir

    return cache_dir() / "models"


def _adapters(folder: Path) -> dict[str, Path]:
    found = [p for p in folder.iterdir() if p.is_dir()]
    return {
        "expert": next(p for p in found if p.name.startswith("ext-sub-expert")),
        "anti-expert": next(p for p in found if p.name.startswith("ext-sub-anti-expert")),
    }


def _rows(model, weight):
    """[d_out, d_in], whatever the layout."""
    return weight.T if "gpt2" in model.name else weight


def test_the_result_likes_safe_responses_more_and_unsafe_ones_less(make_model):
    model = make_model("llama")
    got = replace(TINY, steps=8, batch_size=8).detoxify(model, DATA)
    safe, unsafe = likelihood(model, DATA[0]), likelihood(model, DATA[0], answer=DATA[0].unsafe_generation)
    with got.applied(model):
        assert likelihood(model, DATA[0]) < safe
        gained = unsafe - likelihood(model, DATA[0], answer=DATA[0].unsafe_generation)
        assert gained < safe - likelihood(model, DATA[0])
    assert got.log["expert"]["losses"][-1] < got.log["expert"]["losses"][0]
    assert got.log["anti_expert"]["losses"][-1] < got.log["anti_expert"]["losses"][0]


def test_other_alphas_and_directions_cost_no_new_training(make_model):
    model = make_model("gpt2")
    seen: list[tuple[int, int]] = []
    first = TINY.detoxify(model, DATA, progress=lambda *done: seen.append(done))
    assert seen[0] == (0, 6)
    assert seen[-1] == (6, 6)
    assert seen == sorted(seen)
    for change in ({"alpha": 0.5}, {"common": "expert"}, {"keep_expert": False}):
        other = replace(TINY, **change).detoxify(model, DATA)
        assert other.log["expert"]["cached"]
        assert other.log["anti_expert"]["cached"]
        name = next(iter(first.edit.deltas))
        assert not torch.equal(other.edit.deltas[name], first.edit.deltas[name])
    nothing = replace(TINY, alpha=0.0).detoxify(model, DATA)
    folder = _adapters(_cache())["expert"]
    for name, update in updates(model, folder).items():
        torch.testing.assert_close(nothing.edit.deltas[name], as_weight(model, name, update.T))


def test_targets_choose_the_matrices(make_model):
    model = make_model("llama")
    got = replace(TINY, targets=("q_proj", "down_proj")).detoxify(model, DATA)
    assert {name.split(".")[-2] for name in got.edit.deltas} == {"q_proj", "down_proj"}
    assert len(got.edit.deltas) == 6


def test_an_expert_of_harmless_answers_is_another_expert(make_model):
    model = make_model("llama")
    one, two = (replace(TINY, expert_on=on).detoxify(model, DATA) for on in ("safe responses", "knowledge"))
    assert one.log["expert"]["data_hash"] != two.log["expert"]["data_hash"]
    assert two.log["anti_expert"]["cached"]


def test_bad_input_is_told_in_one_line(make_model):
    model = make_model("llama")
    with pytest.raises(InputError, match="at least one training instance, got none"):
        TINY.detoxify(model, [])
    with pytest.raises(InputError, match="instance 0 has an empty response for the anti-expert"):
        TINY.detoxify(model, [replace(i, unsafe_generation="") for i in DATA[:1]])
    with pytest.raises(InputError, match="no linear modules"):
        replace(TINY, targets=("w_q",)).detoxify(model, DATA)
    with pytest.raises(InputError, match="lower learning rate"):
        replace(TINY, lr=1e30, clip=1e30).detoxify(model, DATA)
    assert isinstance(TINY, Method)
    assert TINY.needs == "the train split"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": None}, "lora must not be None"),
        ({"alpha": -1.0}, "alpha must not be negative"),
        ({"common": "sum"}, "common must be one of"),
        ({"expert_on": "jokes"}, "expert_on must be one of"),
        ({"targets": ()}, "targets must name modules"),
        ({"lr": 0.0}, "learning rate must be positive"),
    ],
)
def test_a_bad_configuration_is_refused(change, message):
    config = ExtSub()
    for name, value in change.items():  # past the type checker of the test run, as users run without it
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=message):
        config.__post_init__()
