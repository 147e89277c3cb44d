"""The paper's claims held against ours: by hand, and by what holds of any data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.benchmark.claims import claims, same_edits
from interp.benchmark.work import EditNote
from interp.records import DG_KINDS, Response, Verdict
from interp.stats import holm, sign_flip


def rows(**scores: list[int]) -> dict[str, list[Response]]:
    """Row -> responses: the score of each instance, in all four DG kinds."""
    return {
        name.replace("_", " "): [
            Response(name, i, kind, True, "p", "t", 1, True, i, Verdict("other" if s else "unsafe", 0.5))
            for i, s in enumerate(own)
            for kind in DG_KINDS
        ]
        for name, own in scores.items()
    }


def notes(*layers: int) -> list[EditNote]:
    return [EditNote(i, "a", layer, 1.0 + layer / 7) for i, layer in enumerate(layers)]


def test_holm_by_hand() -> None:
    # Holm 1979: smallest times 4, next times 3, ...; never smaller than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_are_between_the_single_ones_and_bonferronis(p: list[float]) -> None:
    adjusted = holm(p)
    for one, found in zip(p, adjusted, strict=True):
        assert one <= found <= min(1.0, len(p) * one) + 1e-12 or found == max(
            min(1.0, (len(p) - sorted(p).index(q)) * q) for q in p if q <= one
        )
        assert 0 <= found <= 1
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_sign_flips_by_hand() -> None:
    # All of 3 differences alike: 2 of the 8 patterns are as far from 0.
    assert sign_flip([1.0, 1.0, 1.0], flips=20_000) == pytest.approx(0.25, abs=0.01)
    assert sign_flip([0.0] * 5) == 1.0
    assert sign_flip([3.0] * 30) < 0.001
    with pytest.raises(ValueError, match="at least one difference"):
        sign_flip([])


def test_a_layer_with_the_very_edits_of_the_located_one_is_not_tested() -> None:
    answers = rows(DINM=[1] * 8, layer_0=[0] * 8, layer_1=[1] * 8, layer_2=[1] * 8)
    edits = {
        "DINM": notes(*[1] * 8),
        "layer 0": notes(*[0] * 8),
        "layer 1": notes(*[1] * 8),
        "layer 2": notes(*[1] * 6, 2, 2),
    }
    first, second, third, how = claims("table13", answers, 0, edits)
    assert "layer 0: holds here (+100.0 [+100.0, +100.0] points of DG-Avg, p = " in first
    assert second.endswith("layer 1: the same edits here (all 8), so nothing to compare")
    assert third.endswith("layer 2: no instance differs here (8 instances; 6 of them the same edits)")
    assert "Holm's procedure for 2 claims" in how


def test_many_claims_need_more_than_one() -> None:
    """A difference that one claim alone would decide is left open among several."""
    one = rows(DINM=[1] * 6, layer_0=[0] * 6)
    assert "holds here" in claims("table13", one, 0)[0]  # p = 2/64
    several = one | rows(layer_1=[1] * 6, layer_2=[1] * 6)
    assert "not decided here" in claims("table13", several, 0)[0]


def test_edits_are_the_same_where_layer_and_size_are() -> None:
    assert same_edits(notes(1, 2, 3), notes(1, 3, 3)) == 2
    assert same_edits([], notes(1)) == 0
