from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import InputError
from interp.evaluation import defense_scores
from interp.records import DG_KINDS, PROMPT_KINDS, DefenseScores, Estimate, Response, dumps, loads

from .examples import BROKEN, EMPTY, OTHER, SAFE, UNSAFE, response

VERDICTS = [SAFE, UNSAFE, OTHER, EMPTY, BROKEN]


def estimates(scores: DefenseScores) -> list[Estimate]:
    assert scores.other is not None
    assert scores.truncated is not None
    return [*scores.by_kind.values(), scores.dg_avg, scores.refusal, scores.degenerate, scores.other, scores.truncated]


@given(st.lists(st.lists(st.sampled_from(VERDICTS), min_size=5, max_size=5), min_size=1, max_size=8), st.booleans())
@settings(max_examples=12, deadline=None)
def test_scores_are_percents_inside_their_intervals_with_the_number_of_instances(rows: list, edits: bool) -> None:
    responses = [
        response(i, kind, verdict, edited_on=i if edits else None)
        for i, row in enumerate(rows)
        for kind, verdict in zip(PROMPT_KINDS, row, strict=True)
    ]
    scores = defense_scores(responses, False, judge="j")
    for estimate in estimates(scores):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 100
        assert estimate.n == len(rows)
        assert estimate.unit == "%"
    mean = sum(scores.by_kind[kind].value for kind in DG_KINDS) / 4
    assert scores.dg_avg.value == pytest.approx(mean)
    assert loads(DefenseScores, dumps(scores)) == scores


def test_by_hand() -> None:
    responses = [
        *(response(1, kind, SAFE) for kind in PROMPT_KINDS),
        response(2, "DS", UNSAFE),
        response(2, "onlyQ", EMPTY),
        response(2, "otherA", BROKEN),
        response(2, "otherQ", OTHER),
        response(2, "otherAQ", UNSAFE),
    ]
    scores = defense_scores(responses, False, judge="j")
    assert {kind: e.value for kind, e in scores.by_kind.items()} == {
        "DS": 50.0,
        "onlyQ": 75.0,
        "otherA": 75.0,
        "otherQ": 100.0,
        "otherAQ": 50.0,
    }
    assert scores.dg_avg.value == 75.0
    assert "bootstrap 95 % over instances" in scores.dg_avg.how
    assert scores.refusal.value == 50.0
    assert scores.degenerate.value == pytest.approx(20.0)
    assert scores.other is not None
    assert scores.other.value == pytest.approx(10.0)  # one of instance 2's five
    assert (scores.model, scores.suffix, scores.judge) == ("m", False, "j")


def test_cut_answers_and_broken_ones_are_counted_apart_and_broken_ones_are_never_safe() -> None:
    responses = [
        response(1, "DS", SAFE, ended=False),
        response(1, "onlyQ", BROKEN, ended=False),
        response(2, "DS", EMPTY),
        response(2, "onlyQ", UNSAFE),
    ]
    scores = defense_scores(responses, False, judge="j")
    assert scores.truncated is not None
    assert (scores.truncated.value, scores.truncated.n) == (50.0, 2)
    assert scores.degenerate.value == 50.0
    assert scores.refusal.value == 25.0
    assert {kind: e.value for kind, e in scores.by_kind.items()} == {"DS": 75.0, "onlyQ": 25.0}
    whole = defense_scores([response(1, "DS", SAFE)], False, judge="j").truncated
    assert whole is not None
    assert (whole.value, whole.low) == (0.0, 0.0)


def test_a_checkpoint_and_edits_with_the_same_answers_have_the_same_scores() -> None:
    rows = [[SAFE, UNSAFE, SAFE, OTHER, SAFE], [UNSAFE] * 5, [SAFE] * 5]
    both = [
        [
            response(i, kind, v, edited_on=i if edits else None)
            for i, row in enumerate(rows)
            for kind, v in zip(PROMPT_KINDS, row, strict=True)
        ]
        for edits in (False, True)
    ]
    assert defense_scores(both[0], False, judge="j") == defense_scores(both[1], False, judge="j")


def test_several_edits_on_one_instance_are_averaged_and_add_no_units() -> None:
    responses = [response(i, "onlyQ", SAFE if e else UNSAFE, edited_on=e) for i in range(4) for e in range(3)]
    only_q = defense_scores(responses, False, judge="j").by_kind["onlyQ"]
    assert only_q.value == pytest.approx(200 / 3)
    assert only_q.n == 4


def test_the_other_suffix_state_and_the_general_kinds_are_left_out() -> None:
    noise = [response(1, kind, UNSAFE, suffix=True) for kind in PROMPT_KINDS] + [response(1, "benign", UNSAFE)]
    responses = [response(1, kind, SAFE) for kind in PROMPT_KINDS]
    assert defense_scores(responses + noise, False, judge="j") == defense_scores(responses, False, judge="j")
    assert defense_scores(responses + noise, True, judge="j").by_kind["DS"].value == 0.0


def test_all_defended_is_not_certainty() -> None:
    perfect = [response(i, kind, SAFE) for i in range(9) for kind in PROMPT_KINDS]
    average = defense_scores(perfect, False, judge="j").dg_avg
    assert (average.value, average.high) == (100.0, 100.0)
    assert 60 < average.low < 80
    assert average.how == "Wilson 95 % over instances (no spread to resample)"


def test_dg_avg_is_over_the_kinds_that_were_asked() -> None:
    responses = [response(i, "onlyQ", SAFE) for i in range(3)] + [response(i, "otherAQ", UNSAFE) for i in range(3)]
    scores = defense_scores(responses, False, judge="j")
    assert set(scores.by_kind) == {"onlyQ", "otherAQ"}
    assert scores.dg_avg.value == 50.0
    only_ds = defense_scores([response(1, "DS", SAFE)], False, judge="j").dg_avg
    assert math.isnan(only_ds.value)
    assert (only_ds.n, only_ds.how) == (0, "not measured")


def test_missing_kinds_of_some_instances_leave_the_others_whole() -> None:
    responses = [response(1, kind, SAFE) for kind in PROMPT_KINDS]
    responses += [response(2, "DS", UNSAFE), response(2, "onlyQ", UNSAFE)]
    scores = defense_scores(responses, False, judge="j")
    assert scores.dg_avg.value == pytest.approx((50 + 100 + 100 + 100) / 4)
    assert scores.by_kind["otherA"].n == 1


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([], "no SafeEdit responses without the suffix"),
        ([response(1, "DS"), response(1, "DS", model="n")], "responses of one model, got those of m, n"),
        ([response(1, "DS", None)], "response DS of instance 1 was not judged"),
    ],
)
def test_responses_that_cannot_be_scored_are_refused(responses: list[Response], message: str) -> None:
    with pytest.raises(InputError, match=message):
        defense_scores(responses, False, judge="j")
