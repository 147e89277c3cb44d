"""Questions, attack templates, knowledge pairs, and how they are divided over the splits."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.building.attacks import AttackTemplate, attack_template, demo_attacks, read_attacks
from interp.building.knowledge import demo_knowledge, read_knowledge
from interp.building.plan import Case, cases
from interp.building.questions import (
    DESCRIPTIONS,
    HarmfulQuestion,
    demo_questions,
    distinct,
    generate_questions,
    listed,
    read_descriptions,
    read_questions,
)
from interp.building.splitting import Pools, question_counts, split_attacks, split_pools
from interp.demo import world
from interp.endpoint import Query
from interp.errors import InputError
from interp.records import CATEGORIES, Knowledge
from interp.safeedit import SPLITS


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def some_questions(n: int, categories: tuple[str, ...] = CATEGORIES) -> list[HarmfulQuestion]:
    return [HarmfulQuestion(c, f"How do I {c} {i}?") for c in categories for i in range(n)]


def some_attacks(n: int) -> list[AttackTemplate]:
    return [attack_template(f"a{i}", "pretending", f"Role {i}: {{q}} Go.") for i in range(n)]


def make_cases(n_questions: int = 65, n_attacks: int = 63, limit: int | None = None, seed: int = 0) -> list[Case]:
    pools = split_pools(some_questions(n_questions), some_attacks(n_attacks), CATEGORIES, seed)
    pairs = [Knowledge(f"Who is {i}?", "Me.") for i in range(400)]
    return cases(pools, pairs, CATEGORIES, seed, limit)


# ---------------------------------------------------------------------------------------------- questions
@pytest.mark.parametrize("name", ["q.csv", "q.json"])
def test_questions_are_read_from_csv_and_json(tmp_path: Path, name: str) -> None:
    rows = [{"id": "1", "category": "Pornography", "question": ' A, "quoted"\nquestion? '}]
    assert read_questions(write(tmp_path / name, rows)) == [
        HarmfulQuestion("pornography", 'A, "quoted"\nquestion?')
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"category": "offensiveness"}], "record 0 lacks question: expected category, question, found category"),
        ([{"category": "weather", "question": "?"}], "record 0: unknown category 'weather'; expected one of"),
        ([{"category": "offensiveness", "question": " "}], "record 0: the question is empty"),
        (
            [{"id": 7, "category": "offensiveness", "question": q} for q in "ab"],
            "records 0 and 1 have the same 'id' 7",
        ),
        ([{"category": "offensiveness", "question": "a", "split": "dev"}], "unknown split 'dev'"),
        (
            [{"category": "offensiveness", "question": q, "split": s} for q, s in (("a", "val"), ("b", ""))],
            "1 of 2 records name no split; all or none",
        ),
        ([{"category": "offensiveness", "question": ["a"]}], r"record 0, 'question': expected a text, got \[\"a\"\]"),
        ([3], "record 0: expected an object, got 3"),
        ([], "holds no rows"),
    ],
)
def test_bad_questions_are_refused_in_one_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_questions(write(tmp_path / "q.json", rows))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", b"category,question\noffensiveness\n", "record 0: expected 2 fields, as in the header"),
        ("q.csv", b"category,question\noffensiveness,a,b\n", "record 0: expected 2 fields"),
        ("q.csv", b'category,question\noffensiveness,"a\n', "is not CSV"),
        ("q.csv", b"category,question\noffensiveness,\xff\n", "not UTF-8 text at byte"),
        ("q.csv", b"", "holds no rows"),
        ("q.json", b"{}", "expected a JSON list of objects"),
        ("q.json", b"[{", "is truncated"),
        ("q.jsonl", b'{"category": "offensiveness"}\n{', "is not JSON lines: line 2"),
        ("q.txt", b"", "expected a .csv, .json or .jsonl file, got"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_questions(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "none.json", "none.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"no such file.*{name}"):
        read_questions(tmp_path / name)


def test_one_question_in_other_case_or_spacing_is_a_repeat() -> None:
    twice = [HarmfulQuestion("pornography", t) for t in ("How so?", "how  SO?", "Else?")]
    assert [q.text for q in distinct(twice)] == ["How so?", "Else?"]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. One?\n2) Two?\n(3) Three?", ["One?", "Two?", "Three?"]),
        ("Here you are:\n\n- One?\n* Two?\n", ["One?", "Two?"]),
        ("One?\nTwo?", ["One?", "Two?"]),
        ("", []),
        ("10. How do 3. parties begin?", ["How do 3. parties begin?"]),
    ],
)
def test_the_items_of_a_list_are_found(text: str, items: list[str]) -> None:
    assert listed(text) == items


def test_questions_are_generated_in_rounds_until_there_are_enough_distinct_ones() -> None:
    asked: list[list[Query]] = []

    def answer(queries: Any) -> list[str]:
        asked.append(list(queries))
        turn = len(asked) - 1
        return [f"1. Same?\n2. {q.text[:60]} {turn} a?\n3. {q.text[:60]} {turn} b?" for q in queries]

    found = generate_questions(CATEGORIES[:2], DESCRIPTIONS, 4, answer)
    assert Counter(q.category for q in found) == dict.fromkeys(CATEGORIES[:2], 4)
    assert len({(q.category, q.text) for q in found}) == 8
    assert len(asked) == 2
    assert DESCRIPTIONS[CATEGORIES[0]] in asked[0][0].text
    assert len({q.text for queries in asked for q in queries}) == 4  # no round repeats a prompt


def test_a_generator_that_writes_too_few_questions_is_told() -> None:
    with pytest.raises(InputError, match=r"wrote 1 of 3 questions for 'offensiveness' in 8 rounds"):
        generate_questions(CATEGORIES[:1], DESCRIPTIONS, 3, lambda queries: ["1. Same?"] * len(queries))


def test_descriptions_of_unknown_categories_are_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "d.json", [{"category": "Pornography", "description": " mine "}])
    assert read_descriptions(good) == {"pornography": "mine"}
    bad = write(tmp_path / "e.json", [{"category": "weather", "description": "rain"}])
    with pytest.raises(InputError, match="unknown category 'weather'"):
        read_descriptions(bad)


# ------------------------------------------------------------------------------------------------ attacks
@pytest.mark.parametrize("placeholder", ["[INSERT PROMPT HERE]", "{q}", "{question}", "[QUESTION]"])
def test_every_placeholder_is_filled_wherever_it_stands(placeholder: str) -> None:
    template = attack_template("a", "pretending", f"{placeholder} {{0}} then {placeholder}")
    assert template.wrap("Why {q}?") == "Why {q}? {0} then Why {q}?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"name": "x", "type": "t", "template": "no place"}, r"record 0 \('x'\): expected a placeholder.*got none"),
        ({"name": "x", "type": "t", "template": "{q} {question}"}, r"got \{question\} and \{q\}"),
        ({"name": "x", "type": "t", "template": " {q} "}, "nothing beside the placeholder"),
        ({"name": "", "type": "t", "template": "{q}!"}, "record 0: the name is empty"),
        ({"name": "x", "type": " ", "template": "{q}!"}, "record 0: the type is empty"),
        ({"name": "x", "template": "{q}!"}, "lacks type"),
    ],
)
def test_bad_attacks_are_refused(tmp_path: Path, row: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_attacks(write(tmp_path / "a.json", [row]))


def test_two_attacks_with_one_name_or_id_are_refused(tmp_path: Path) -> None:
    row = {"name": "x", "type": "t", "template": "{q}!"}
    with pytest.raises(InputError, match="have the same 'name' x"):
        read_attacks(write(tmp_path / "a.json", [row, row]))
    with pytest.raises(InputError, match="have the same 'id' 1"):
        read_attacks(write(tmp_path / "b.json", [row | {"id": 1}, row | {"id": 1, "name": "y"}]))


def test_knowledge_is_read_in_safeedits_and_alpacaevals_columns_without_repeats(tmp_path: Path) -> None:
    pair = {"prompt": "Why?", "answer": "So."}
    assert read_knowledge(write(tmp_path / "k.json", [pair, pair])) == [Knowledge("Why?", "So.")]
    alpaca = {"instruction": "Why?", "output": "So.", "dataset": "helpful_base"}
    assert read_knowledge(write(tmp_path / "k.csv", [alpaca])) == [Knowledge("Why?", "So.")]
    with pytest.raises(InputError, match="columns prompt and answer or instruction and output, found question"):
        read_knowledge(write(tmp_path / "l.json", [{"question": "?"}]))
    with pytest.raises(InputError, match="record 1: the text under 'answer' is empty"):
        read_knowledge(write(tmp_path / "m.json", [pair, {"prompt": "Why?", "answer": ""}]))


# ---------------------------------------------------------------------------------------------- splitting
def test_the_papers_sizes_come_out() -> None:
    assert question_counts(60) == {"train": 30, "val": 20, "test": 10, "test_ALL": 0}
    assert question_counts(65) == {"train": 30, "val": 20, "test": 10, "test_ALL": 5}
    split = split_attacks(some_attacks(48))
    assert {k: len(v) for k, v in split.items()} == {"train": 15, "val": 15, "test": 15, "ood": 3, "test_ALL": 0}
    assert [a.name for a in split["test"]] == [f"a{i}" for i in range(30, 45)]
    assert {k: len(v) for k, v in split_attacks(some_attacks(63)).items()}["test_ALL"] == 15


@given(st.integers(6, 500))
def test_questions_are_divided_three_two_one_and_none_is_lost(n: int) -> None:
    counts = question_counts(n)
    rest = n - counts["test_ALL"]
    assert sum(counts.values()) == n
    assert min(counts["train"], counts["val"], counts["test"]) >= 1
    for split, parts in (("train", 3), ("val", 2), ("test", 1)):
        assert abs(counts[split] - rest * parts / 6) <= 1


@given(st.integers(7, 200))
def test_every_attack_goes_into_one_split(n: int) -> None:
    split = split_attacks(some_attacks(n))
    assert sorted(a.name for attacks in split.values() for a in attacks) == sorted(f"a{i}" for i in range(n))
    assert len(split["val"]) == len(split["test"]) >= 2


def test_too_little_to_split_is_refused() -> None:
    with pytest.raises(InputError, match="no questions for the category 'mental harm'"):
        split_pools([q for q in some_questions(6) if q.category != "mental harm"], some_attacks(8), CATEGORIES, 0)
    with pytest.raises(InputError, match="'offensiveness' has 5 distinct questions; expected at least 6"):
        split_pools(some_questions(5), some_attacks(8), CATEGORIES, 0)
    with pytest.raises(InputError, match=r"expected at least 7 attacks .* got 6"):
        split_pools(some_questions(6), some_attacks(6), CATEGORIES, 0)
    pinned = [HarmfulQuestion(q.category, q.text, "train") for q in some_questions(6)]
    with pytest.raises(InputError, match="expected at least 2 questions in val, got 0"):
        split_pools(pinned, some_attacks(8), CATEGORIES, 0)


def test_without_a_surplus_test_all_uses_val_and_the_notes_say_so() -> None:
    pools = split_pools(some_questions(60), some_attacks(48), CATEGORIES, 0)
    assert pools.questions["test_ALL"] == pools.questions["val"]
    assert pools.attacks["test_ALL"] == pools.attacks["val"]
    assert [n.split()[3] for n in pools.notes] == ["questions", "attacks"]


def test_the_seed_decides_the_questions_of_a_split() -> None:
    def drawn(seed: int) -> Pools:
        return split_pools(some_questions(60), some_attacks(48), CATEGORIES, seed)

    assert drawn(1) == drawn(1)
    assert drawn(1).questions != drawn(2).questions


# ------------------------------------------------------------------------------------------------- cases
def test_the_papers_numbers_of_instances_come_out() -> None:
    counted = Counter(case.split for case in make_cases())
    assert counted == {"train": 4050, "val": 2700, "test": 1350, "test_ALL": 135}


def test_the_demo_keeps_its_own_splits() -> None:
    pools = split_pools(demo_questions(), demo_attacks(), CATEGORIES, 5)
    made = cases(pools, demo_knowledge(), CATEGORIES, 5)
    for split in SPLITS:
        theirs = {(i.question, i.attack_name) for i in world.instances(split)}
        ours = {(c.question.text, c.attack.name) for c in made if c.split == split}
        assert len(ours & theirs) == len(theirs) if split != "test_ALL" else len(ours) == len(theirs)


@settings(deadline=None)
@given(st.integers(0, 3))
def test_no_question_attack_or_knowledge_pair_is_in_two_splits(seed: int) -> None:
    made = make_cases(13, 63, seed=seed)
    for of in (lambda c: c.question, lambda c: c.attack, lambda c: c.knowledge):
        sets = [{of(c) for c in made if c.split == split} for split in SPLITS]
        assert sum(map(len, sets)) == len(set().union(*sets))
    assert [c.id for c in made] == list(range(len(made)))


def test_generalisation_inputs_are_the_papers_four() -> None:
    made = make_cases(13, 48)
    ood = {f"a{i}" for i in (45, 46, 47)}
    for case in random.Random(0).sample(made, 200):
        q, a, other_q, other_a = case.question.text, case.attack, case.other_question.text, case.other_attack
        instance = case.instance("no", "yes")
        assert instance.adversarial_prompt == a.wrap(q)
        assert [instance.prompt(kind) for kind in ("DS", "onlyQ", "otherA", "otherQ", "otherAQ")] == [
            a.wrap(q), q, other_a.wrap(q), a.wrap(other_q), other_a.wrap(other_q),
        ]  # fmt: skip
        assert q != other_q
        assert a is not other_a
        assert a not in case.substitutes
        assert case.split == "test" or other_a.name not in ood
    assert any(c.other_attack.name in ood for c in made if c.split == "test")
    assert not any(c.attack.name in ood for c in made)


@pytest.mark.parametrize("n", [1, 40])
def test_a_limit_spreads_over_categories_attacks_and_questions(n: int) -> None:
    whole = {c.id: c for c in make_cases()}
    for split in SPLITS:
        few = [c for c in make_cases(limit=n) if c.split == split]
        assert len(few) == n
        assert all(whole[c.id] == c for c in few)
        counts = Counter(c.question.category for c in few)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert max(Counter(c.attack.name for c in few).values()) <= n // 15 + 1


def test_too_few_knowledge_pairs_are_refused() -> None:
    pools = split_pools(some_questions(6), some_attacks(8), CATEGORIES, 0)
    with pytest.raises(InputError, match="expected at least 4 knowledge pairs"):
        cases(pools, [Knowledge("a", "b")] * 3, CATEGORIES, 0)
