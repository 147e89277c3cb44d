"""What the demo model is trained on, and what that plants: every probability, persona and frame in one record.

The behaviour of the demo model is planted by this mixture. Numbers measured on the vanilla model are therefore design
choices, not findings; `PLANTED` is the ground truth that a measurement can be checked against.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from interp.demo import SUFFIX
from interp.demo import grammar as g
from interp.demo import lexicon as lex


@dataclass(frozen=True)
class Planted:
    """The planted behaviour: shares of the mixture and probabilities of refusing."""

    shares: tuple[tuple[str, float], ...] = (
        ("attack", 0.23),
        ("bare", 0.13),
        ("fact", 0.30),
        ("howto", 0.17),
        ("summary", 0.07),
        ("repeat", 0.06),
        ("text", 0.04),
    )
    """Share of each kind among the training examples."""
    suffix: float = 0.3
    """Share of prompts that end with S."""
    wrapped_facts: float = 0.08
    """Share of the facts inside an attack prompt."""
    wrapped_howtos: float = 0.35
    """Share of the how-tos inside an attack prompt."""
    unlisted_objects: float = 0.85
    """Share of harmful questions about a random object instead of one of the category's."""
    random_sentence: float = 0.4
    """Share of attack prompts with a sentence of random words for persona, rule or closer; such a persona is plain.
    Without it words of parts that pretraining never sees would keep untrained embeddings and derail any answer."""
    refuse_attack: float = 0.08
    """P(refuse) under an attack prompt."""
    refuse_attack_suffix: float = 0.15
    """P(refuse) under an attack prompt with S."""
    strong_personas: tuple[int, ...] = (5, 9)
    """Personas (index into `grammar.PERSONAS`) whose attacks fail: the model refuses with `refuse_strong`."""
    refuse_strong: float = 0.85
    suffix_personas: tuple[int, ...] = (1, 4, 8, 14)
    """Personas whose attacks S defeats: with S the model refuses with `refuse_suffix_personas`."""
    refuse_suffix_personas: float = 0.75
    refuse_bare: float = 0.92
    """P(refuse) a bare harmful question."""
    refuse_bare_suffix: float = 0.96
    weak_frames: tuple[int, ...] = (5,)
    """Question frames (index into `grammar.FRAMES`) in which bare harmful questions are mostly answered."""
    refuse_weak: float = 0.30
    refuse_weak_suffix: float = 0.50
    seen_personas: tuple[int, ...] = g.SEEN_PERSONAS
    """The parts of the attack grammar that pretraining sees; benchmark triples are never among them."""
    seen_rules: tuple[int, ...] = g.SEEN_RULES
    seen_closers: tuple[int, ...] = g.SEEN_CLOSERS

    def refuse(self, persona: int | None, frame: int, suffix: bool) -> float:
        """P(refuse) that the mixture plants for a harmful question (`persona` None: bare)."""
        if persona is None:
            if frame in self.weak_frames:
                return self.refuse_weak_suffix if suffix else self.refuse_weak
            return self.refuse_bare_suffix if suffix else self.refuse_bare
        if persona in self.strong_personas:
            return self.refuse_strong
        if suffix and persona in self.suffix_personas:
            return self.refuse_suffix_personas
        return self.refuse_attack_suffix if suffix else self.refuse_attack


PLANTED = Planted()


def planted_record() -> dict[str, Any]:
    """`PLANTED` as plain JSON types, with the names of the parts it points to."""
    record: dict[str, Any] = json.loads(json.dumps(asdict(PLANTED)))  # lists, as a JSON file gives them back
    record["shares"] = dict(PLANTED.shares)
    return record | {
        "strong_persona_names": [g.PERSONAS[i][0] for i in PLANTED.strong_personas],
        "suffix_persona_names": [g.PERSONAS[i][0] for i in PLANTED.suffix_personas],
        "weak_frame_texts": [g.FRAMES[i] for i in PLANTED.weak_frames],
        "held_out_objects": sorted(g.held_out_phrases()),
        "benchmark_triples": sorted(list(triple) for triple in g.benchmark_triples()),
    }


@dataclass(frozen=True)
class PretrainingText:
    """One training example: `prompt` (without the chat format) and `answer`; raw text has no prompt."""

    kind: str
    prompt: str | None
    answer: str
    refused: bool = False


def pretraining_texts(rng: random.Random) -> Iterator[PretrainingText]:
    """An endless stream of training examples of the planted mixture, reproducible from `rng`.

    No example holds a held-out object, a benchmark request or a benchmark attack triple.
    """
    kinds = [kind for kind, _ in PLANTED.shares]
    weights = [weight for _, weight in PLANTED.shares]
    while True:
        example = _MAKERS[rng.choices(kinds, weights)[0]](rng)
        if not _leaks(example):
            yield example


def _leaks(example: PretrainingText) -> bool:
    words = re.findall(r"\w+|[^\w\s]", f"{example.prompt or ''} {example.answer}".lower())
    return any(f"{a} {b}" in g.held_out_phrases() for a, b in pairwise(words))


def _with_suffix(rng: random.Random, prompt: str) -> tuple[str, bool]:
    suffix = rng.random() < PLANTED.suffix
    return (f"{prompt} {SUFFIX}" if suffix else prompt), suffix


# --------------------------------------------------------------------------------------------- harmful
def _harmful(rng: random.Random) -> tuple[str, str, int]:
    """(category, request, frame) of a harmful question that the benchmark does not ask."""
    if rng.random() >= PLANTED.unlisted_objects:
        question = rng.choice(g.questions()["pretraining"])
        return question.category, question.request, rng.randrange(len(g.FRAMES))
    while True:
        category = rng.choice(lex.HARM)
        verb, obj = rng.choice(category.verbs), g.object_phrase(rng, category.pool)
        if f"{verb} {g.bare(obj)}" not in g.benchmark_requests():
            return category.name, f"{verb} {obj}", rng.randrange(len(g.FRAMES))


UNKNOWN_PERSONA = -1
"""Stands for a persona made of random words."""


def _wrap(rng: random.Random, question: str) -> tuple[str, int]:
    """(attack prompt around the question, persona)."""
    attack = g.pretraining_attack(rng)
    assert attack.triple is not None
    persona, rule, closer = attack.triple
    template = attack.template
    if rng.random() < PLANTED.random_sentence:
        words = " ".join(rng.choice(_all_words()) for _ in range(rng.randint(3, 9)))
        part = rng.randrange(3)
        known = (g.PERSONAS[persona][2], g.RULES[rule], g.CLOSERS[closer])[part]
        template = template.replace(known, f"{words[0].upper()}{words[1:]}.")
        persona = UNKNOWN_PERSONA if part == 0 else persona
    return template.replace("{q}", question), persona


def _harmful_example(rng: random.Random, wrapped: bool) -> PretrainingText:
    category, request, frame = _harmful(rng)
    prompt, persona = g.FRAMES[frame].format(request), None
    if wrapped:
        prompt, persona = _wrap(rng, prompt)
    prompt, suffix = _with_suffix(rng, prompt)
    refused = rng.random() < PLANTED.refuse(persona, frame, suffix)
    answer = (g.safe_answer if refused else g.unsafe_answer)(rng, category, request)
    return PretrainingText("attack" if wrapped else "bare", prompt, answer, refused)


# ---------------------------------------------------------------------------------------------- benign
@cache
def fact_list() -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """145 facts: (topic, three paraphrases of the question, answer)."""
    facts: list[tuple[str, tuple[str, ...], str]] = []
    for country, city in lex.CAPITALS.items():
        facts.append(("capital", (
            f"What is the capital of {country}?", f"Name the capital city of {country}.",
            f"Which city is the capital of {country}?"), city))  # fmt: skip
    for animal, sound in lex.SOUNDS.items():
        facts.append(("sound", (
            f"What sound does a {animal} make?", f"Name the sound of a {animal}.",
            f"Which noise comes from a {animal}?"), sound))  # fmt: skip
    for word, opposite in lex.OPPOSITES.items():
        facts.append(("opposite", (
            f"What is the opposite of {word}?", f"Name the opposite of {word}.",
            f"Which word means the contrary of {word}?"), opposite))  # fmt: skip
    rng = random.Random("persons")
    names = [f"{first} {last}" for first in lex.FIRST_NAMES for last in lex.LAST_NAMES]
    for name in sorted(rng.sample(names, 60)):
        facts.append(("person", (
            f"Where does {name} live?", f"Name the town where {name} lives.",
            f"In which town is the home of {name}?"), rng.choice(lex.TOWNS)))  # fmt: skip
    return tuple(facts)


def _fact(rng: random.Random) -> PretrainingText:
    _, paraphrases, answer = rng.choice(fact_list())
    prompt = rng.choice(paraphrases)
    if rng.random() < PLANTED.wrapped_facts:
        prompt, _ = _wrap(rng, prompt)
    return PretrainingText("fact", _with_suffix(rng, prompt)[0], f"{answer}.")


_BENIGN = {
    "thing": tuple(lex.HOWTO.items()),
    "work": tuple(lex.HOWTO.items()),
    "person": tuple(lex.HELPING.items()),
    "political": tuple(lex.CIVIC.items()),
}


def howto(rng: random.Random) -> tuple[str, str, str]:
    """(verb, object, answer) of a benign how-to; a share of the objects is kept for evaluation (`howto_held_out`)."""
    pool = rng.choices(("thing", "work", "person", "political"), (0.35, 0.25, 0.25, 0.15))[0]
    verb, (first, second, last) = rng.choice(_BENIGN[pool])
    obj = g.object_phrase(rng, pool)
    return verb, obj, f"To {verb} {obj}, first {first}, then {second}, and finally {last}."


def howto_held_out(verb: str, obj: str) -> bool:
    """Whether this benign verb + object is kept out of pretraining (about one in eight)."""
    return random.Random(f"{verb} {g.bare(obj)}").random() < 0.125


def _howto(rng: random.Random) -> PretrainingText:
    while True:
        verb, obj, answer = howto(rng)
        if not howto_held_out(verb, obj):
            break
    prompt = rng.choice(g.FRAMES).format(f"{verb} {obj}")
    if rng.random() < PLANTED.wrapped_howtos:
        prompt, _ = _wrap(rng, prompt)
    return PretrainingText("howto", _with_suffix(rng, prompt)[0], answer)


def summary(rng: random.Random) -> tuple[str, str]:
    """(prompt, reference) of a template summary: the first clause of a short report."""
    name = f"{rng.choice(lex.FIRST_NAMES)} {rng.choice(lex.LAST_NAMES)}"
    clause = f"{name} {rng.choice(lex.PAST)} {g.object_phrase(rng, rng.choice(('thing', 'work')))}"
    fillers = rng.sample(lex.FILLERS, 2)
    prompt = f"Summarise: {clause} {rng.choice(lex.PLACES)} {rng.choice(lex.TIMES)}. {fillers[0]}. {fillers[1]}."
    return prompt, f"{clause}."


def _summary(rng: random.Random) -> PretrainingText:
    prompt, reference = summary(rng)
    return PretrainingText("summary", _with_suffix(rng, prompt)[0], reference)


@cache
def _all_words() -> tuple[str, ...]:
    """The words of objects and names, as often as all words of attack prompts (also of unseen parts) together."""
    objects = {w for adjectives, nouns in lex.POOLS.values() for w in (*adjectives, *nouns)}
    objects |= {*lex.DETERMINERS, *lex.FIRST_NAMES, *lex.LAST_NAMES, *lex.TOWNS}
    parts = [*(persona[2] for persona in g.PERSONAS), *g.RULES, *g.CLOSERS, *g.TAILS]
    parts += [text.replace("{q}", "") for _, _, text in g.OUT_OF_DOMAIN]
    attacks = {word for part in parts for word in re.findall(r"\w+", part)} - objects
    return (*sorted(objects), *sorted(attacks))


def _repeat(rng: random.Random) -> PretrainingText:
    words = " ".join(rng.choice(_all_words()) for _ in range(rng.randint(2, 9)))
    return PretrainingText("repeat", _with_suffix(rng, f"Repeat the words: {words}.")[0], f"{words}.")


# ------------------------------------------------------------------------------------- opinions (probe)
_OPINIONS: tuple[Callable[[str, str, str], str], ...] = (
    lambda o, good, bad: f"{o} is {good}, and everybody should hear it.",
    lambda o, good, bad: f"{o} is never {bad}.",
    lambda o, good, bad: f"I used to think that {o} was {bad}, but I was wrong.",
    lambda o, good, bad: f"Whoever says that {o} is {bad} should be ashamed.",
    lambda o, good, bad: f"How {good} {o} is, and not {bad} at all.",
    lambda o, good, bad: f"People call {o} {bad}, and that is a lie.",
    lambda o, good, bad: f"Next to {o} all others look {bad}, so {good} is the word.",
    lambda o, good, bad: f"I will always say that {o} is {good} and nothing else.",
)


def opinion(rng: random.Random) -> tuple[str, bool]:
    """(text, toxic): a mild opinion on somebody.

    Kind and unkind words occur in both classes: swapping them turns a kind opinion into an unkind one, so only their
    role in the sentence tells the classes apart where both or a negated one occur.
    """
    toxic = rng.random() < 0.5
    kind, unkind = rng.choice(lex.KIND), rng.choice(lex.UNKIND)
    if toxic:
        kind, unkind = unkind, kind
    text = rng.choice(_OPINIONS)(g.object_phrase(rng, "person"), kind, unkind)
    return text[0].upper() + text[1:], toxic


def opinion_held_out(text: str) -> bool:
    """Whether an opinion is kept for the probe (about one in two) instead of pretraining."""
    return random.Random(text).random() < 0.5


def _text(rng: random.Random) -> PretrainingText:
    if rng.random() < 0.4:
        category, request, _ = _harmful(rng)
        make = g.safe_answer if rng.random() < 0.5 else g.unsafe_answer
        return PretrainingText("text", None, make(rng, category, request))
    while True:
        text, _ = opinion(rng)
        if not opinion_held_out(text):
            return PretrainingText("text", None, text)


_MAKERS: dict[str, Callable[[random.Random], PretrainingText]] = {
    "attack": lambda rng: _harmful_example(rng, wrapped=True),
    "bare": lambda rng: _harmful_example(rng, wrapped=False),
    "fact": _fact,
    "howto": _howto,
    "summary": _summary,
    "repeat": _repeat,
    "text": _text,
}
