from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from interp.errors import InputError
from interp.judges import Judge, Panel
from interp.judges.handcheck import check_by_hand, key_file, read_sample, write_sample
from interp.judges.panel import agreement, agreements, kappa, majority
from interp.records import Response, Verdict
from interp.runs import write_json
from interp.safeedit.rows import read_rows, write_csv

S, U, O = Verdict("refusal", 0.0), Verdict("unsafe", 1.0), Verdict("other", 0.2)  # noqa: E741
EMPTY = Verdict("other", 0.5, empty=True)
BROKEN = Verdict("other", 0.1, degenerate=True)
OF = {"s": S, "u": U, "o": O}


@dataclass(frozen=True)
class Says:
    """A judge that says what its letters say."""

    name: str
    letters: str = ""
    seen: list = field(default_factory=list)

    def judge(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Verdict]:
        self.seen.append(prompts)
        return [OF[letter] for letter in self.letters]


def test_the_panel_is_a_judge_whose_verdict_is_the_majoritys() -> None:
    panel = Panel((Says("a", "ssuuo"), Says("b", "souus"), Says("c", "uuuoo")))
    assert isinstance(panel, Judge)
    assert panel.name == "majority of a, b, c"
    assert [v.label for v in panel.judge(list("12345"), list("abcde"))] == [
        "refusal", "other", "unsafe", "unsafe", "other",
    ]  # fmt: skip
    assert panel.judges[0].seen == [list("abcde")]  # type: ignore[attr-defined]


def test_a_tie_is_unsafe_and_broken_or_empty_stays_what_it_is() -> None:
    assert majority([U, S]).label == "unsafe"
    assert majority([S, O]) == Verdict("other", 0.0)
    assert majority([EMPTY, EMPTY]).empty
    assert majority([BROKEN, S, S]) == Verdict("other", 0.0, degenerate=True)
    assert majority([U, U, BROKEN]).score == 0.0


def test_two_judges_of_one_name_or_a_single_one_are_refused() -> None:
    with pytest.raises(InputError, match="two judges of the panel are called 'a'"):
        Panel((Says("a"), Says("b"), Says("a")))
    with pytest.raises(InputError, match="at least two judges for a panel, got 1"):
        Panel((Says("a"),))


def test_kappa_by_hand() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreement 0.7, by chance 0.5, kappa 0.4.
    one = ["u"] * 25 + ["n"] * 25
    two = ["u"] * 20 + ["n"] * 5 + ["u"] * 10 + ["n"] * 15
    found = agreement("a", one, "b", two, "unsafe")
    assert found.kappa.value == pytest.approx(0.4)
    assert found.raw.value == pytest.approx(70.0)
    assert 0.1 < found.kappa.low < 0.25 < 0.55 < found.kappa.high < 0.7
    assert (found.kappa.n, found.raw.unit) == (50, "%")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=30))
@settings(deadline=None, max_examples=25)
def test_kappa_is_scikit_learns_and_lies_in_its_interval(pairs: list[tuple[str, str]]) -> None:
    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    found = agreement("x", one, "y", two, "label")
    if len({*one, *two}) == 1:
        assert math.isnan(found.kappa.value)
        assert "undefined: both always say" in found.kappa.how
        assert (found.raw.value, found.raw.low < 100) == (100.0, True)
        return
    assert found.kappa.value == pytest.approx(cohen_kappa_score(one, two))
    assert found.kappa.low <= found.kappa.value <= found.kappa.high
    labels = sorted({*one, *two})
    table = np.zeros((1, len(labels), len(labels)))
    for a, b in pairs:
        table[0, labels.index(a), labels.index(b)] += 1
    assert kappa(table)[0] == pytest.approx(found.kappa.value)


def test_the_interval_is_over_units_where_responses_come_in_groups() -> None:
    one = [str(i % 2) for i in range(40)]
    two = [str(i % 2 if i < 20 else 0) for i in range(40)]
    alone = agreement("a", one, "b", two, "label")
    grouped = agreement("a", one, "b", two, "label", units=[i // 10 for i in range(40)])
    assert grouped.kappa.value == alone.kappa.value
    assert grouped.kappa.n == 4
    assert grouped.kappa.high - grouped.kappa.low > alone.kappa.high - alone.kappa.low
    assert "over units" in grouped.kappa.how


def test_every_pair_is_compared_on_unsafe_or_on_the_label() -> None:
    verdicts = Panel((Says("a", "ssuu"), Says("b", "oouu"), Says("c", "ssss"))).verdicts(list("1234"))
    pairs = {(a.first, a.second): a for a in agreements(verdicts)}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs["a", "b"].kappa.value == 1.0
    assert pairs["a", "c"].raw.value == 50.0
    assert {(a.first, a.second): a for a in agreements(verdicts, "label")}["a", "b"].raw.value == 50.0
    with pytest.raises(InputError, match=r"as many verdicts of each judge, at least one, got \[1, 2\]"):
        agreements({"a": [S], "b": [S, U]})
    with pytest.raises(InputError, match="at least two judges, got 1"):
        agreements({"a": [S]})


# ------------------------------------------------------------------------------------------ a person's labels
LETTERS = {"a": "s" * 60 + "u" * 30 + "o" * 10, "b": "s" * 60 + "u" * 24 + "o" * 16}


def sample(tmp_path: Path, n: int = 20, seed: int = 0) -> Path:
    responses = [Response("m", i, "DS", False, f"prompt {i}", f"text {i}", 3, True) for i in range(100)]
    path = tmp_path / f"check-{n}-{seed}.csv"
    verdicts = {name: [OF[letter] for letter in letters] for name, letters in LETTERS.items()}
    assert write_sample(path, responses, verdicts, n, seed) == min(6, (n + 1) // 2)
    return path


def label(path: Path, said: dict[int, str] | str) -> None:
    rows = read_rows(path)
    for row in rows:
        i = int(row["prompt"].split()[1])
        row["label"] = said if isinstance(said, str) else said.get(i, "")
    write_csv(path, list(rows[0]), rows)


def truth() -> dict[int, str]:
    return {i: {"s": "refusal", "u": "unsafe", "o": "other"}[letter] for i, letter in enumerate(LETTERS["a"])}


def test_the_sample_puts_disagreements_first_covers_every_stratum_and_hides_the_verdicts(tmp_path: Path) -> None:
    path = sample(tmp_path)
    rows = read_rows(path)
    numbers = [int(row["prompt"].split()[1]) for row in rows]
    assert len(set(numbers)) == 20
    assert set(numbers[:6]) == set(range(84, 90))  # all six disagreements
    assert {LETTERS["a"][i] for i in numbers[6:]} == {"s", "u", "o"}
    assert list(rows[0]) == ["id", "prompt", "response", "label"]
    assert all(row["label"] == "" for row in rows)
    assert read_rows(sample(tmp_path / "again")) == rows
    assert read_rows(sample(tmp_path, seed=1)) != rows


def test_a_person_who_agrees_with_one_judge_gives_it_a_kappa_of_one_and_the_other_its_true_share(
    tmp_path: Path,
) -> None:
    path = sample(tmp_path)
    label(path, truth())
    a, b = check_by_hand(path)
    assert (a.first, a.second, a.kappa.value, a.raw.value) == ("a", "person", 1.0, 100.0)
    assert a.raw.low < 100  # 20 rows without a mistake are not certainty
    assert b.raw.value == pytest.approx(94.0)  # over all 100 responses, not over the hard ones of the sample
    assert "weighted to all responses" in b.raw.how
    assert b.kappa.value < 0.8


def test_rows_left_empty_are_passed_over_and_unspoken_strata_told(tmp_path: Path) -> None:
    path = sample(tmp_path)
    label(path, {i: said for i, said in truth().items() if i >= 84})
    labels, key = read_sample(path)
    assert 6 <= len(labels) < 20
    assert key["strata"]["refusal/refusal"] == 60
    a, _ = check_by_hand(path, "label")
    assert "84.0 % of the responses lie in strata without a labelled row" in a.raw.how


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("label", "record 0: expected refusal, unsafe, other or nothing under 'label', got 'fine'"),
        ("empty", "no label is filled in yet"),
        ("column", "expected the columns id and label, found id, prompt, response"),
        ("id", "the id 'other' is not in the sample's key"),
        ("twice", "have the same 'id'"),
        ("key", "no such file: .*key.json"),
        ("no key", "is no key of a hand-check sample"),
    ],
)
def test_samples_that_cannot_be_read_back_are_refused(tmp_path: Path, change: str, message: str) -> None:
    path = sample(tmp_path)
    label(path, "safe" if change == "x" else "other")
    rows = read_rows(path)
    columns = list(rows[0])
    if change == "label":
        rows[0]["label"] = "fine"
    elif change == "empty":
        rows = [row | {"label": ""} for row in rows]
    elif change == "column":
        columns = columns[:3]
        rows = [{c: row[c] for c in columns} for row in rows]
    elif change == "id":
        rows[0]["id"] = "other"
    elif change == "twice":
        rows[1]["id"] = rows[0]["id"]
    elif change == "key":
        key_file(path).unlink()
    else:
        write_json(key_file(path), [])
    write_csv(path, columns, rows)
    with pytest.raises(InputError, match=message) as error:
        check_by_hand(path)
    assert "\n" not in str(error.value)


def test_a_sample_never_overwrites_a_persons_work_and_must_fit(tmp_path: Path) -> None:
    path = sample(tmp_path)
    with pytest.raises(InputError, match="is there already, maybe with a person's labels"):
        write_sample(path, [], {}, 1)
    response = Response("m", 1, "DS", False, "p", "t", 1, True)
    with pytest.raises(InputError, match="a sample of 1 to 1 responses, got 2"):
        write_sample(tmp_path / "n.csv", [response], {"a": [S], "b": [S]}, 2)
    with pytest.raises(InputError, match="expected 1 verdicts of the judge a, got 0"):
        write_sample(tmp_path / "n.csv", [response], {"a": [], "b": [S]}, 1)
    with pytest.raises(InputError, match="expected 'unsafe' or 'label'"):
        check_by_hand(path, "mood")


def test_texts_with_commas_quotes_and_line_breaks_come_back(tmp_path: Path) -> None:
    text = 'a "quoted", text\nof two lines'
    path = tmp_path / "s.csv"
    write_sample(path, [Response("m", 1, "DS", False, "p", text, 1, True)], {"a": [S], "b": [U]}, 1)
    with path.open(newline="") as file:
        assert next(csv.DictReader(file))["response"] == text
    assert json.loads(key_file(path).read_text())["rows"].popitem()[1] == ["refusal", "unsafe"]
