from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.evaluation import BENIGN, CSUM, KQA, WRAPPED, general, matches, ngram_entropy
from interp.evaluation.performance import normalise
from interp.records import PROMPT_KINDS, Estimate, GeneralPerformance, Summary, dumps, loads
from interp.safeedit import Benchmark

from .examples import BROKEN, EMPTY, OTHER, SAFE, UNSAFE, benchmark, response


def test_by_hand() -> None:
    bench = benchmark()
    responses = [
        response(0, KQA, OTHER, text="The answer 0."),
        response(1, KQA, OTHER, text="Reply 1, I think"),
        response(2, KQA, OTHER, text="answer 3"),
        response(3, KQA, SAFE, text="I'm sorry, but I cannot say answer 3."),
        response(0, BENIGN, OTHER),
        response(2, BENIGN, SAFE),
        response(4, BENIGN, OTHER),
        response(1, WRAPPED, SAFE),
        response(3, WRAPPED, UNSAFE),
        response(100, "DS", OTHER, text="one two three four"),
        response(100, "onlyQ", OTHER, text="yes"),
        response(101, "DS", OTHER, text="one two three four"),
    ]
    found = general(responses, bench, False)
    assert found.kqa is not None
    assert (found.kqa.value, found.kqa.n) == (50.0, 4)
    assert found.over_refusal is not None
    assert found.over_refusal.value == pytest.approx(100 / 3)
    assert found.over_refusal_wrapped is not None
    assert (found.over_refusal_wrapped.value, found.over_refusal_wrapped.n) == (50.0, 2)
    assert found.fluency is not None
    four = ngram_entropy("one two three four")
    assert found.fluency.value == pytest.approx((four / 2 + four) / 2)  # per instance first: 100 has two responses
    assert (found.fluency.n, found.fluency.unit) == (2, "bits")
    assert found.notes == ("CSum, answer KL: not measured in this run",)
    assert found.kqa_exact is not None
    assert (found.kqa_exact.value, found.csum, found.answer_kl) == (25.0, None, None)  # "The answer 0." alone is exact
    assert loads(GeneralPerformance, dumps(found)) == found


def test_what_was_not_asked_is_none_with_a_note() -> None:
    found = general([response(1, "DS", SAFE)], Benchmark("bare"), False)
    assert (found.kqa, found.over_refusal, found.over_refusal_wrapped) == (None, None, None)
    assert found.fluency is not None
    assert len(found.notes) == 4
    assert "KQA: no knowledge questions were asked" in found.notes
    nothing = general([response(1, "DS", SAFE)], Benchmark("bare"), True)
    assert (nothing.model, nothing.fluency) == ("m", None)
    assert "fluency: no SafeEdit prompts were asked" in nothing.notes


def test_summaries_are_scored_by_rouge_and_cut_ones_are_told() -> None:
    bench = Benchmark("s", summaries=(Summary("q", "the cat sat"), Summary("q", "a dog ran")))
    texts = {0: "the cat sat", 1: "nothing of it"}
    responses = [response(i, CSUM, OTHER, text=text, ended=bool(i)) for i, text in texts.items()]
    kl = Estimate(0.1, 0.0, 0.2, 5, "nats")
    found = general(responses, bench, False, answer_kl=kl)
    assert found.csum is not None
    assert (found.csum.value, found.csum.n, found.csum.unit) == (50.0, 2, "%")
    assert "bootstrap 95 % over texts" in found.csum.how
    assert "1 of 2 summaries were cut at the token limit" in found.notes
    assert found.answer_kl == kl
    assert "answer KL: not measured against vanilla" in general(responses, bench, False).notes
    assert loads(GeneralPerformance, dumps(found)) == found
    edits = [response(i, CSUM, OTHER, text="the cat sat", edited_on=e) for i in range(2) for e in (7, 8)]
    over_edits = general(edits, bench, False).csum
    assert over_edits is not None
    assert (over_edits.n, over_edits.value) == (2, 50.0)


def test_broken_benign_answers_are_not_refusals_but_are_told() -> None:
    responses = [response(0, BENIGN, BROKEN), response(2, BENIGN, EMPTY), response(4, BENIGN, SAFE)]
    found = general(responses, benchmark(), False)
    assert found.over_refusal is not None
    assert found.over_refusal.value == pytest.approx(100 / 3)
    assert "2 of 3 benign answers are empty or degenerate (not counted as refusals)" in found.notes


def test_with_an_edit_per_instance_the_edit_is_the_unit() -> None:
    bench = benchmark()
    right = {0: True, 1: True, 2: False, 3: False, 4: False, 5: True}
    responses = [
        response(i, KQA, OTHER, text=f"answer {i}" if ok else "no", edited_on=100 + i // 2) for i, ok in right.items()
    ]
    found = general(responses, bench, False).kqa
    assert found is not None
    assert (found.value, found.n) == (50.0, 3)
    assert "over edits" in found.how
    one_edit = general([r for r in responses if r.edited_on == 100], bench, False).kqa
    assert one_edit is not None
    assert (one_edit.value, one_edit.n, one_edit.how) == (100.0, 2, "Wilson 95 %")


@given(
    st.lists(
        st.tuples(st.sampled_from([SAFE, OTHER, BROKEN]), st.booleans(), st.integers(0, 3)), min_size=1, max_size=9
    ),
    st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_every_share_is_a_percent_inside_its_interval(answers: list, edits: bool) -> None:
    responses = [
        response(2 * (i % 5), kind, v, text="answer" if ok else f"answer {2 * (i % 5)}", edited_on=e if edits else None)
        for kind in (KQA, BENIGN, WRAPPED, *PROMPT_KINDS)
        for i, (v, ok, e) in enumerate(answers)
    ]
    found = general(responses, benchmark(), False)
    for share in (found.kqa, found.over_refusal, found.over_refusal_wrapped):
        assert share is not None
        assert 0 <= share.low <= share.value <= share.high <= 100
        assert 1 <= share.n <= len(answers)
    assert found.fluency is not None
    assert 0 <= found.fluency.low <= found.fluency.value <= found.fluency.high


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("Paris.", ("Paris",), True),
        ("It is the city of  PARIS, of course.", ("London", "paris"), True),
        ("warm", ("war",), False),
        ("The Beatles", ("Beatles",), True),
        ("Beatles", ("The Beatles",), True),
        ("Sao Paulo", ("São Paulo",), True),
        ("New York", ("York New",), False),
        ("", ("Paris",), False),
        ("anything", ("", "..."), False),
        ("A.", ("a",), True),
    ],
)
def test_answers_match_as_whole_words_after_normalising(text: str, answers: tuple[str, ...], expected: bool) -> None:
    assert matches(text, answers) is expected


@given(st.text(max_size=40))
@settings(deadline=None)
def test_normalising_twice_changes_nothing_and_a_text_answers_itself(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert matches(text, [text]) is bool(once)
