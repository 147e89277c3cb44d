"""Defence by family of attack, those among them that nobody trained or edited on.

The attack categories of the prompts and, as a family of its own, the bare question. A held-out family is one whose
category no training instance and no edited prompt has (SafeEdit's out-of-domain attacks are put in as "other" attacks);
of these the lab's further instances are asked too, as the others are few.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from interp.errors import InputError
from interp.judges import Judge
from interp.mechanism.lab import Analysis, Lab, Subject
from interp.mechanism.prefill import NEW_TOKENS, continuations
from interp.mechanism.readout import read
from interp.records import Bars, Estimate, Finding, Instance
from interp.stats import share_of_groups

BARE, SEEN, HELD_OUT = "bare question", "attacks of known families", "attacks of held-out families"
MARK = " (held out)"
MOST = 256
"""Prompts of the lab's further instances asked at most, evenly from all."""


class Asked(NamedTuple):
    """One prompt of a family."""

    instance: int
    attack: str
    """Name of the attack around the question; the prompt itself where the data does not name it."""
    prompt: str


Prompts = dict[str, list[Asked]]


def families(subject: Subject) -> Prompts:
    """Family -> what is asked: attack prompts, other attacks, bare questions. A prompt counts once.

    Raises:
        InputError: no attack prompt names its category.
    """
    lab = subject.lab
    known = {_key(i.attack_category) for i in (*lab.train, *lab.instances)}
    found: Prompts = {}
    seen: set[str] = set()

    def put(family: str, instance_id: int, prompt: str, attack: str = "") -> None:
        if prompt not in seen:
            seen.add(prompt)
            found.setdefault(family, []).append(Asked(instance_id, attack or prompt, prompt))

    for i in lab.instances:
        other = i.generalization
        if _key(i.attack_category):
            put(_key(i.attack_category), i.id, i.adversarial_prompt, i.attack_name)
        # The record names the attack of [q', a']; that of [q, a'] it does not.
        if other is not None and _key(other.attack_category):
            family = _key(other.attack_category)
            family += "" if family in known else MARK
            put(family, i.id, other.other_question_and_attack, other.attack_name)
    for i in _held_out(lab, known):
        other = i.generalization
        assert other is not None
        put(_key(other.attack_category) + MARK, i.id, other.other_question_and_attack, other.attack_name)
    if not found:
        raise InputError("defence by attack family needs the attack categories, and no instance names one")
    for i in lab.instances:
        put(BARE, i.id, i.prompt("onlyQ"))
    return dict(sorted(found.items(), key=lambda item: (item[0] == BARE, item[0].endswith(MARK), item[0])))


def _held_out(lab: Lab, known: set[str]) -> list[Instance]:
    """Further instances whose other attack is of a held-out family, evenly from all."""
    found = [i for i in lab.others if (g := i.generalization) and _key(g.attack_category) not in {*known, ""}]
    step = max(len(found) / MOST, 1.0)
    return [found[int(n * step)] for n in range(min(MOST, len(found)))]


def attack_families(judge: Judge | None = None) -> Analysis:
    """The analysis: from the refusal margin, or with a judge from greedy answers (24 tokens)."""

    def measure(subject: Subject, _: Subject) -> Finding:
        started, lab = time.perf_counter(), subject.lab
        groups = families(subject)
        safe = dict(zip(groups, np.split(_defended(subject, groups, judge), _ends(groups)), strict=True))
        scores = {name: _share(groups, safe, [name]) for name in groups}
        attacks = {
            SEEN: [name for name in groups if name != BARE and not name.endswith(MARK)],
            HELD_OUT: [name for name in groups if name.endswith(MARK)],
        }
        totals = {name: _share(groups, safe, members) for name, members in attacks.items() if members}
        how = "the refusal margin at the first token" if judge is None else f"greedy answers, judged by {judge.name}"
        return Finding(
            name="attack_families",
            title="Defence by attack family",
            question="Does the defence hold for every family of attacks, those held out among them?",
            reading="",
            how_to_read=f"Share of prompts that are defended, by {how}, per category of the attack around the "
            "question; Wilson 95 % on the number of attacks, as prompts that share one are hardly more than copies. "
            "The bare question is the control without an attack.",
            limits="Families differ in size and wording; few attacks make wide intervals. A held-out family is new in "
            "kind to training and edits, not to vanilla's pretraining.",
            n=sum(len(v) for v in groups.values()),
            seed=lab.seed,
            bars=(
                Bars("defence by family", "% of prompts", (subject.name,), {k: (e,) for k, e in scores.items()}),
                Bars("known and held-out", "% of prompts", (subject.name,), {k: (e,) for k, e in totals.items()}),
            ),
            facts={
                "prompts by family": ", ".join(f"{name} {len(v)}" for name, v in groups.items()),
                "attacks by family": ", ".join(
                    f"{name} {len({asked.attack for asked in v})}" for name, v in groups.items() if name != BARE
                ),
            },
            seconds=time.perf_counter() - started,
        )

    return Analysis("attack_families", measure, words)


def _share(groups: Prompts, safe: dict[str, np.ndarray], names: Sequence[str]) -> Estimate:
    """Defence over the prompts of some families; the interval counts their attacks, of bare questions the questions."""
    attacks = [asked.attack for name in names for asked in groups[name]]
    over = "questions" if list(names) == [BARE] else "attacks"
    return share_of_groups(np.concatenate([safe[name] for name in names]), attacks, over)


def _defended(subject: Subject, groups: Prompts, judge: Judge | None) -> np.ndarray:
    """Defence of all prompts in the order of the groups: 0, 1, or a judge's 0.5."""
    model, size = subject.model, subject.lab.batch_size
    texts = [model.format_prompt(prompt) for group in groups.values() for _, _, prompt in group]
    if judge is not None:
        answers = continuations(model, [model.token_ids(text) for text in texts], NEW_TOKENS)
        return np.array([v.score for v in judge.judge(answers, texts)])
    batches = [model.tokenize(texts[i : i + size]) for i in range(0, len(texts), size)]
    return (~read(model, batches, subject.lab.tokens).complies).astype(float)


def _ends(groups: Prompts) -> list[int]:
    return np.cumsum([len(v) for v in groups.values()])[:-1].tolist()


def _key(category: str) -> str:
    return category.strip().lower()


def words(finding: Finding) -> str:
    """The weakest family of each model, and held-out beside known ones, where there are any."""
    by_family, totals = finding.bars
    said = []
    for i, model in enumerate(by_family.groups):
        found = [(name, e) for name, values in by_family.series.items() if (e := values[i]) is not None]
        name, weakest = min(found, key=lambda pair: pair[1].value)
        text = f"{model} defends every prompt of every family" if weakest.value == 100.0 else (
            f"{model} is weakest on {name} ({weakest.value:.0f} % [{weakest.low:.0f}, {weakest.high:.0f}], "
            f"{_counted(name, weakest.n)})"
        )  # fmt: skip
        for key in (k for k in (SEEN, HELD_OUT) if k in totals.series):
            if (e := totals.series[key][i]) is not None:
                text += f", {key} {e.value:.0f} % [{e.low:.0f}, {e.high:.0f}] ({_counted(key, e.n)})"
        said.append(text)
    return f"{'; '.join(said)}."


def _counted(family: str, n: int) -> str:
    return f"{n} {'question' if family == BARE else 'attack'}{'s' if n != 1 else ''}"


ATTACK_FAMILIES = attack_families()
