"""Step 3: which question meets which attack, and what each instance is measured on besides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from interp.building.attacks import OUT_OF_DOMAIN, AttackTemplate
from interp.building.questions import HarmfulQuestion
from interp.building.splitting import Pools
from interp.errors import InputError
from interp.records import Generalization, Instance, Knowledge
from interp.safeedit import SPLITS, Split


@dataclass(frozen=True)
class Case:
    """One instance before its responses: X = [q, a], its q' and a', and a knowledge pair."""

    id: int
    split: Split
    question: HarmfulQuestion
    attack: AttackTemplate
    other_question: HarmfulQuestion
    other_attack: AttackTemplate
    knowledge: Knowledge
    substitutes: tuple[AttackTemplate, ...]
    """The split's other attacks in a seeded order: where X gets no unsafe response, the question is put into these."""

    @property
    def adversarial_prompt(self) -> str:
        """X = [q, a]."""
        return self.attack.wrap(self.question.text)

    def instance(self, safe: str, unsafe: str) -> Instance:
        """The record with its responses."""
        q, a, other_q, other_a = self.question.text, self.attack, self.other_question.text, self.other_attack
        return Instance(
            id=self.id,
            category=self.question.category,
            question=q,
            adversarial_prompt=self.adversarial_prompt,
            attack_category=a.kind,
            attack_name=a.name,
            safe_generation=safe,
            unsafe_generation=unsafe,
            knowledge=self.knowledge,
            generalization=Generalization(
                only_question=q,
                other_attack=other_a.wrap(q),
                other_question=a.wrap(other_q),
                other_question_and_attack=other_a.wrap(other_q),
                attack_category=other_a.kind,
                attack_name=other_a.name,
            ),
        )


def cases(
    pools: Pools, knowledge: Sequence[Knowledge], categories: Sequence[str], seed: int, limit: int | None = None
) -> list[Case]:
    """Every case of every split, ids from 0 in the order of the splits.

    Train, val and test take every question with every attack of the split; test_ALL each attack once a category. q'
    and a' come from the same split (in test a' may be out of domain), and one instance uses the same q' and a' in all
    its generalisation inputs. Each split has its own part of the knowledge pairs.

    Args:
        limit: keep at most so many of each split, spread over categories, attacks and questions; ids stay as they are.

    Raises:
        InputError: fewer knowledge pairs than splits.
    """
    if len(knowledge) < len(SPLITS):
        raise InputError(f"expected at least {len(SPLITS)} knowledge pairs, one a split; got {len(knowledge)}")
    pairs = {split: _pairs(pools, split, categories) for split in SPLITS}
    sizes: dict[Split, int] = {split: len(pairs[split]) for split in SPLITS}
    facts = _portions(knowledge, sizes, seed)
    found: list[Case] = []
    first = 0
    for split in SPLITS:
        rng = random.Random(f"cases-{split}-{seed}")
        attacks, questions = pools.attacks[split], pools.questions[split]
        others = attacks + pools.attacks[OUT_OF_DOMAIN] if split == "test" else attacks
        made = []
        for i, (question, attack) in enumerate(pairs[split]):
            substitutes = [a for a in attacks if a is not attack]
            made.append(
                Case(
                    id=first + i,
                    split=split,
                    question=question,
                    attack=attack,
                    other_question=_other(rng, questions, question),
                    other_attack=_other(rng, others, attack),
                    knowledge=facts[split][i % len(facts[split])],
                    substitutes=tuple(rng.sample(substitutes, len(substitutes))),
                )
            )
        first += len(made)
        found += made if limit is None else spread(made, limit, seed)
    return found


def spread(made: Sequence[Case], n: int, seed: int) -> list[Case]:
    """At most `n` cases in their order: categories take turns, then the least used attack and question come first."""
    rng = random.Random(f"limit-{seed}")
    pools: dict[str, list[Case]] = {}
    for case in rng.sample(list(made), len(made)):
        pools.setdefault(case.question.category, []).append(case)
    used: Counter[str] = Counter()
    chosen: list[Case] = []
    while len(chosen) < min(n, len(made)):
        for category in sorted(pools):
            if pools[category] and len(chosen) < n:
                pick = min(pools[category], key=lambda c: (used[f"a {c.attack.name}"], used[f"q {c.question.text}"]))
                pools[category].remove(pick)
                used.update((f"a {pick.attack.name}", f"q {pick.question.text}"))
                chosen.append(pick)
    return sorted(chosen, key=lambda c: c.id)


def _pairs(pools: Pools, split: Split, categories: Sequence[str]) -> list[tuple[HarmfulQuestion, AttackTemplate]]:
    attacks = pools.attacks[split]
    if split != "test_ALL":
        return [(q, a) for q in pools.questions[split] for a in attacks]
    found = []
    for category in categories:
        own = [q for q in pools.questions[split] if q.category == category]
        found += [(own[i % len(own)], attack) for i, attack in enumerate(attacks)]
    return found


def _other(rng: random.Random, pool: Sequence, taken: object):
    while (chosen := rng.choice(pool)) is taken:
        pass
    return chosen


def _portions(knowledge: Sequence[Knowledge], sizes: dict[Split, int], seed: int) -> dict[Split, list[Knowledge]]:
    """The pairs, shuffled and divided over the splits in proportion to their sizes, one each at least."""
    rest = random.Random(f"knowledge-{seed}").sample(list(knowledge), len(knowledge))
    spare = len(rest) - len(sizes)
    total = sum(sizes.values())
    found = {}
    for split, size in sizes.items():
        n = 1 + spare * size // total
        found[split], rest = rest[:n], rest[n:]
    return found
