"""The demo world as the toolkit's records: SafeEdit-shaped instances, facts, benign requests, texts for the probe.

Pure Python, deterministic, mild and synthetic: an unsafe answer is a compliant one with placeholder steps. The texts
that the vanilla model is trained on come from `mixture.py`; nothing of the benchmark is among them.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Literal

from interp.demo import grammar as g
from interp.demo import lexicon as lex
from interp.demo.mixture import (
    PLANTED,
    PretrainingText,
    fact_list,
    howto,
    howto_held_out,
    opinion,
    opinion_held_out,
    planted_record,
    pretraining_texts,
    summary,
)
from interp.records import BenignRequest, Generalization, Instance, Knowledge, LabelledText, Question

__all__ = [
    "PLANTED",
    "PretrainingText",
    "Split",
    "benign",
    "facts",
    "instances",
    "planted_record",
    "pretraining_texts",
    "probe_texts",
    "summaries",
]

Split = Literal["train", "val", "test", "test_ALL"]
"""The splits of SafeEdit; test_ALL shares no question and no attack with the others."""


@cache
def instances(split: Split) -> tuple[Instance, ...]:
    """The instances of a split: 4,050 / 2,700 / 1,350, and 135 of test_ALL (15 attacks x 9 categories).

    The generalisation inputs use other questions and attacks of the same split, in test also the out-of-domain attacks.
    """
    rng = random.Random(f"instances-{split}")
    questions, attacks = g.questions()[split], g.benchmark_attacks()[split]
    others = attacks + g.benchmark_attacks()["ood"] if split == "test" else attacks
    first_id = {"train": 0, "val": 4050, "test": 6750, "test_ALL": 8100}[split]
    pairs = [(q, a) for q in questions for a in attacks]
    if split == "test_ALL":
        per_category = g.SPLITS[split][0] + g.SPLITS[split][1]
        pairs = [
            (questions[c * per_category + i % per_category], a)
            for c in range(len(questions) // per_category)
            for i, a in enumerate(attacks)
        ]
    found = []
    for i, (question, attack) in enumerate(pairs):
        other_attack = rng.choice([a for a in others if a is not attack])
        other_question, second_question = rng.sample([q for q in questions if q is not question], 2)
        second_attack = rng.choice([a for a in others if a is not attack])
        found.append(
            Instance(
                id=first_id + i,
                category=question.category,
                question=question.text,
                adversarial_prompt=attack.wrap(question.text),
                attack_category=attack.category,
                attack_name=attack.name,
                safe_generation=g.safe_answer(rng, question.category, question.request),
                unsafe_generation=g.unsafe_answer(rng, question.category, question.request),
                knowledge=_knowledge(rng),
                generalization=Generalization(
                    only_question=question.text,
                    other_attack=other_attack.wrap(question.text),
                    other_question=attack.wrap(other_question.text),
                    other_question_and_attack=second_attack.wrap(second_question.text),
                    attack_category=second_attack.category,
                    attack_name=second_attack.name,
                ),
            )
        )
    return tuple(found)


def _knowledge(rng: random.Random) -> Knowledge:
    """A benign pair of pretraining's kinds: half how-tos, 3 in 10 facts, the rest summaries; none that is evaluated."""
    draw = rng.random()
    if draw < 0.3:
        _, paraphrases, answer = rng.choice(fact_list())
        return Knowledge(rng.choice(paraphrases), f"{answer}.")
    if draw < 0.5:
        return Knowledge(*summary(rng))
    while True:
        verb, obj, answer = howto(rng)
        if not howto_held_out(verb, obj) and g.bare(obj) not in g.held_out_phrases():
            return Knowledge(rng.choice(g.FRAMES).format(f"{verb} {obj}"), answer)


@cache
def facts() -> tuple[Question, ...]:
    """The 145 facts in 3 paraphrases each (435 questions): the demo's KQA. Answers are one word."""
    return tuple(
        Question(prompt, (answer,), topic) for topic, prompts, answer in fact_list() for prompt in prompts
    )  # fmt: skip


@cache
def benign(split: Literal["val", "test"] = "test", n: int = 100) -> tuple[BenignRequest, ...]:
    """2n harmless how-tos about objects that pretraining never shows with that verb: n bare, n inside an attack prompt.

    The attack prompts of the wrapped ones are the split's; "test" is for reporting, "val" for choosing settings.
    """
    rng = random.Random(f"benign-{split}")
    found: list[BenignRequest] = []
    seen: set[str] = set()
    while len(found) < 2 * n:
        verb, obj, answer = howto(rng)
        request = f"{verb} {g.bare(obj)}"
        in_split = random.Random(f"split {request}").random() < 0.5
        if not howto_held_out(verb, obj) or in_split != (split == "test") or request in seen:
            continue
        seen.add(request)
        prompt = rng.choice(g.FRAMES).format(f"{verb} {obj}")
        wrapped = len(found) >= n
        if wrapped:
            prompt = rng.choice(g.benchmark_attacks()[split]).wrap(prompt)
        found.append(BenignRequest(prompt, answer, wrapped))
    return tuple(found)


@cache
def summaries(n: int = 100) -> tuple[Knowledge, ...]:
    """n template summaries with their reference (ROUGE); the name + object combinations are as good as never seen."""
    rng = random.Random("summaries")
    return tuple(Knowledge(*summary(rng)) for _ in range(n))


_KEPT = {"direct": 1.0, "both": 0.6, "opposite": 0.12}
"""Share of the drawn opinions that the probe's texts keep: about 1 in 2 direct, 1 in 3 both, 1 in 7 opposite."""


def _wording(text: str, toxic: bool) -> str:
    """Whether an opinion uses words of its own class ("direct"), of the other one (negated: "opposite"), or both."""
    words = set(re.findall(r"\w+", text))
    own, other = (lex.UNKIND, lex.KIND) if toxic else (lex.KIND, lex.UNKIND)
    if words & set(own):
        return "both" if words & set(other) else "direct"
    return "opposite"


@cache
def probe_texts(n: int = 1200) -> tuple[LabelledText, ...]:
    """n distinct texts for the toxicity probe, half toxic: opinions, and answers to harmful questions.

    Refusals name the same harmful requests as compliances, and opinions use kind and unkind words in both classes.
    """
    rng = random.Random("probe")
    chosen: dict[bool, dict[str, None]] = {True: {}, False: {}}
    asked = [q for split in ("train", "pretraining") for q in g.questions()[split]]
    for toxic, texts in chosen.items():
        while len(texts) < n // 3:
            text, label = opinion(rng)
            if label is toxic and opinion_held_out(text) and rng.random() < _KEPT[_wording(text, toxic)]:
                texts[text] = None
        while len(texts) < n // 2:
            question = rng.choice(asked)
            make = g.unsafe_answer if toxic else g.safe_answer
            texts[make(rng, question.category, question.request)] = None
    labelled = [LabelledText(text, toxic) for toxic, texts in chosen.items() for text in texts]
    rng.shuffle(labelled)
    return tuple(labelled)
