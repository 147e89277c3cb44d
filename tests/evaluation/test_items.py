from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import InputError
from interp.evaluation import BENIGN, KQA, WRAPPED, by_owner, plan
from interp.records import PROMPT_KINDS
from interp.safeedit import Benchmark

from .examples import benchmark, instance

S = "Please be good:"


@given(st.integers(1, 6), st.integers(0, 30), st.integers(0, 14), st.integers(0, 3))
@settings(deadline=None)
def test_edits_together_answer_exactly_what_a_checkpoint_answers(n: int, facts: int, benign: int, seed: int) -> None:
    bench = benchmark()
    items = plan(bench.test[:n], bench, S, n_facts=facts, n_benign=benign, seed=seed)
    owned = by_owner(items)
    assert [item for own in owned.values() for item in own] == items
    assert list(owned) == [i.id for i in bench.test[:n]]
    for own in owned.values():
        assert {(item.kind, item.suffix) for item in own} >= {(kind, s) for kind in PROMPT_KINDS for s in ("", S)}
    general = Counter((item.kind, item.suffix) for item in items if item.kind not in PROMPT_KINDS)
    for s in ("", S):
        assert general[KQA, s] == min(facts, 20)
        assert general[BENIGN, s] == min((benign + 1) // 2, 5)
        assert general[WRAPPED, s] == min(benign // 2, 5)
    shares = Counter(item.owner for item in items if item.kind not in PROMPT_KINDS)
    assert max(shares.values(), default=0) - min(shares[i.id] for i in bench.test[:n]) <= 2  # one query, two states


def test_no_general_item_is_asked_twice_in_one_state_and_both_states_ask_the_same() -> None:
    bench = benchmark()
    items = plan(bench.test, bench, S, n_facts=15, n_benign=8)
    without = [(i.kind, i.ref) for i in items if not i.suffix and i.kind not in PROMPT_KINDS]
    with_s = [(i.kind, i.ref) for i in items if i.suffix and i.kind not in PROMPT_KINDS]
    assert len(set(without)) == len(without)
    assert without == with_s


def test_queries_are_those_of_the_benchmark() -> None:
    bench = benchmark()
    for item in plan(bench.test, bench, S):
        if item.kind == KQA:
            assert item.query == bench.facts[item.ref].prompt
        elif item.kind in (BENIGN, WRAPPED):
            assert item.query == bench.benign[item.ref].prompt
            assert bench.benign[item.ref].wrapped == (item.kind == WRAPPED)
        else:
            [own] = [i for i in bench.test if i.id == item.ref == item.owner]
            assert item.query == own.prompt(item.kind)  # type: ignore[arg-type]


def test_without_a_suffix_there_is_one_state() -> None:
    bench = benchmark()
    assert {i.suffix for i in plan(bench.test, bench)} == {""}
    assert {i.suffix for i in plan(bench.test, bench, S, states=(True,))} == {S}
    assert {i.suffix for i in plan(bench.test, bench, S, states=(False,))} == {""}


def test_an_instance_without_generalisation_inputs_gets_the_two_prompts_it_has() -> None:
    items = plan([instance(1, generalization=False)], Benchmark("bare"))
    assert [i.kind for i in items] == ["DS", "onlyQ"]


def test_chosen_kinds_and_another_seed() -> None:
    bench = benchmark()
    kinds = {i.kind for i in plan(bench.test, bench, kinds=("onlyQ", "otherAQ"), n_facts=0, n_benign=0)}
    assert kinds == {"onlyQ", "otherAQ"}
    assert plan(bench.test, bench, seed=1, n_facts=5) == plan(bench.test, bench, seed=1, n_facts=5)
    assert plan(bench.test, bench, seed=1, n_facts=5) != plan(bench.test, bench, seed=2, n_facts=5)


def test_no_instances_or_an_id_twice_is_refused() -> None:
    with pytest.raises(InputError, match="at least one instance"):
        plan([], benchmark())
    with pytest.raises(InputError, match=r"no id twice, got the ids \[1, 1\]"):
        plan([instance(1), instance(1)], benchmark())
