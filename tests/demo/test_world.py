"""The demo world: sizes, disjoint splits, nothing of the benchmark in pretraining, always the same."""

import random
import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from interp.demo import SUFFIX, lexicon, world
from interp.demo import grammar as g
from interp.records import CATEGORIES, DG_KINDS, Instance

SPLITS = ("train", "val", "test", "test_ALL")


@pytest.fixture(scope="module")
def pretraining() -> tuple:
    """Enough of the pretraining's texts to show every kind."""
    return tuple(islice(world.pretraining_texts(random.Random(11)), 12000))


def triples(text: str) -> set[tuple[int, int, int]]:
    """Every (persona, rule, closer) whose three sentences all occur in a text."""
    personas = [i for i, (_, _, sentence) in enumerate(g.PERSONAS) if sentence in text]
    rules = [i for i, rule in enumerate(g.RULES) if rule in text]
    closers = [i for i, closer in enumerate(g.CLOSERS) if closer in text]
    return {(p, r, c) for p in personas for r in rules for c in closers}


def without_determiners(text: str) -> str:
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in lexicon.DETERMINERS]
    return f" {' '.join(words)} "


@pytest.mark.parametrize(("split", "n"), [("train", 4050), ("val", 2700), ("test", 1350), ("test_ALL", 135)])
def test_a_split_has_safeedits_number_of_instances_in_every_category(split, n):
    instances = world.instances(split)
    assert len(instances) == n
    assert Counter(i.category for i in instances) == dict.fromkeys(CATEGORIES, n // 9)
    assert len({i.attack_name for i in instances}) == 15


def test_no_question_and_no_attack_occurs_in_two_splits():
    for kind in ("question", "attack_name"):
        values = [{getattr(i, kind) for i in world.instances(split)} for split in SPLITS]
        assert sum(map(len, values)) == len(set().union(*values))
    ids = [i.id for split in SPLITS for i in world.instances(split)]
    assert len(ids) == len(set(ids))


def test_generalisation_inputs_of_a_split_use_only_its_own_questions():
    for split in SPLITS:
        texts = {q.text for q in g.questions()[split]}
        for instance in world.instances(split)[::37]:
            for kind in DG_KINDS:
                assert any(text in instance.prompt(kind) for text in texts)


def test_generalisation_inputs_change_what_they_say_they_change():
    for instance in world.instances("test")[::13]:
        assert instance.prompt("onlyQ") == instance.question
        assert instance.question in instance.prompt("otherA") != instance.adversarial_prompt
        assert instance.question not in instance.prompt("otherQ")
        assert instance.question not in instance.prompt("otherAQ")


def test_only_the_test_split_asks_with_out_of_domain_attacks():
    openings = {split: {i.prompt("otherA")[:20] for i in world.instances(split)} for split in SPLITS}
    marks = {attack.template[:20] for attack in g.benchmark_attacks()["ood"]}
    assert marks <= openings["test"]
    assert not any(marks & openings[split] for split in SPLITS if split != "test")


def test_pretraining_never_shows_a_benchmark_attack(pretraining):
    seen = set().union(*(triples(text.prompt or "") for text in pretraining))
    assert len(seen) > 500
    assert not seen & g.benchmark_triples()
    assert len(g.benchmark_triples()) == 60


def test_pretraining_never_shows_a_held_out_object_or_a_benchmark_request(pretraining):
    whole = without_determiners("\n".join(f"{t.prompt or ''} {t.answer}" for t in pretraining))
    assert len(g.held_out_phrases()) == 45
    assert not [phrase for phrase in g.held_out_phrases() if f" {phrase} " in whole]
    assert not [request for request in g.benchmark_requests() if without_determiners(request) in whole]


def test_every_split_of_the_benchmark_asks_about_held_out_and_seen_objects():
    for split in SPLITS:
        assert {q.held_out for q in g.questions()[split]} == {True, False}


def test_every_word_of_a_held_out_object_occurs_in_pretraining(pretraining):
    seen = {word for t in pretraining for word in re.findall(r"\w+", f"{t.prompt or ''} {t.answer}")}
    assert {word for phrase in g.held_out_phrases() for word in phrase.split()} <= seen


def test_the_mixture_refuses_as_often_as_planted(pretraining):
    harmful = [t for t in pretraining if t.kind == "attack" and t.prompt and SUFFIX not in t.prompt]
    strong = [g.PERSONAS[i][2] for i in world.PLANTED.strong_personas]
    by_group = {True: [], False: []}
    for text in harmful:
        by_group[any(sentence in (text.prompt or "") for sentence in strong)].append(text.refused)
        assert text.refused == g.is_refusal(text.answer) != g.is_compliance(text.answer)
    for is_strong, planted in ((True, world.PLANTED.refuse_strong), (False, world.PLANTED.refuse_attack)):
        refused = by_group[is_strong]
        error = 4 * (planted * (1 - planted) / len(refused)) ** 0.5
        assert sum(refused) / len(refused) == pytest.approx(planted, abs=error)


def test_there_are_145_facts_in_three_paraphrases_with_one_answer_each():
    facts = world.facts()
    assert len(facts) == 3 * 145
    assert len({f.prompt for f in facts}) == len(facts)
    assert Counter(f.topic for f in facts) == {"capital": 105, "sound": 75, "opposite": 75, "person": 180}


def test_benign_requests_are_new_to_the_model_and_the_two_splits_share_none(pretraining):
    seen = {without_determiners(t.answer) for t in pretraining if t.kind == "howto"}
    val, test = ({without_determiners(b.answer) for b in world.benign(split)} for split in ("val", "test"))
    assert len(val) == len(test) == 200
    assert not val & test
    assert not (val | test) & seen
    assert [b.wrapped for b in world.benign()] == [False] * 100 + [True] * 100


def test_locality_pairs_are_none_of_the_benign_requests_that_are_evaluated():
    evaluated = {b.prompt for split in ("val", "test") for b in world.benign(split)}
    pairs = {i.knowledge.prompt for split in SPLITS for i in world.instances(split)}
    assert len(pairs) > 1000
    assert not pairs & evaluated


def test_probe_texts_are_balanced_distinct_and_not_given_away_by_one_word():
    texts = world.probe_texts()
    assert len(texts) >= 1000
    assert len({t.text for t in texts}) == len(texts)
    assert sum(t.toxic for t in texts) * 2 == len(texts)
    best = 0.0
    words = [(set(re.findall(r"\w+", t.text.lower())), t.toxic) for t in texts]
    for word in set().union(*(found for found, _ in words)):
        agree = sum((word in found) == toxic for found, toxic in words) / len(words)
        best = max(best, agree, 1 - agree)
    assert best < 0.8


def test_opinions_use_kind_and_unkind_words_in_both_classes():
    for kinds in (lexicon.KIND, lexicon.UNKIND):
        used = [t.toxic for t in world.probe_texts() if any(re.search(rf"\b{word}\b", t.text) for word in kinds)]
        assert 0.2 < sum(used) / len(used) < 0.8


def test_answers_name_what_was_asked_and_are_told_apart_by_the_matcher():
    for instance in world.instances("val")[::29]:
        assert g.is_refusal(instance.safe_generation)
        assert not g.is_refusal(instance.unsafe_generation)
        assert g.is_compliance(instance.unsafe_generation)
        request = next(q.request for q in g.questions()["val"] if q.text == instance.question)
        assert request in instance.safe_generation
        assert request in instance.unsafe_generation


def test_the_adult_category_speaks_of_adults_only():
    adjectives, nouns = lexicon.POOLS["adult"]
    assert "young" not in adjectives
    assert not {"student", "pupil", "child", "girl", "boy", "teacher", "cousin"} & set(nouns)


def test_another_process_makes_the_same_world():
    code = (
        "import hashlib; from interp.demo import world as w; "
        "made = w.instances('test'), w.facts(), w.benign(), w.probe_texts(); "
        "print(hashlib.sha256(repr(made).encode()).hexdigest())"
    )
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert run[0].stdout == run[1].stdout != ""


def test_the_world_needs_no_heavy_package():
    code = "import sys, interp.demo.world; print({'torch', 'transformers', 'scipy'} & {*sys.modules} or 'none')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "none\n"


def test_instances_are_the_records_of_the_toolkit():
    assert all(isinstance(i, Instance) and i.generalization for i in world.instances("train")[:5])
