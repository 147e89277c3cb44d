"""Which question and which attack goes into which split: 3:2:1 of the questions, 15/15/15/3 of the attacks.

The paper's numbers come out for its sizes (60 questions a category, 48 attacks); other sizes keep the proportions.
`test_ALL` needs questions and attacks of its own: what there is beyond those sizes. Where there is nothing beyond,
it takes those of val, which are neither trained on nor edited with, and the card says so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from interp.building.attacks import OUT_OF_DOMAIN, AttackTemplate
from interp.building.questions import HarmfulQuestion
from interp.errors import InputError
from interp.safeedit import SPLITS, Split

FEWEST_QUESTIONS = 6
"""A category with fewer has none for some split (3:2:1)."""
FEWEST_ATTACKS = 7
"""With fewer a split has no second attack to generalise to."""


@dataclass(frozen=True)
class Pools:
    """What each split draws from; "ood" holds the out-of-domain attacks, which only test uses as other attacks."""

    questions: dict[Split, tuple[HarmfulQuestion, ...]]
    attacks: dict[str, tuple[AttackTemplate, ...]]
    notes: tuple[str, ...] = ()


def split_pools(
    questions: Sequence[HarmfulQuestion], attacks: Sequence[AttackTemplate], categories: Sequence[str], seed: int
) -> Pools:
    """Every question and attack in its split; those that name their split keep it.

    Raises:
        InputError: a category without questions or with too few, too few attacks, or a split without them.
    """
    by_split = split_questions(questions, categories, seed)
    attacks_of = split_attacks(attacks)
    notes = []
    for what, of in (("questions", by_split), ("attacks", attacks_of)):
        if not of["test_ALL"]:
            of["test_ALL"] = of["val"]  # type: ignore[index, assignment]
            notes.append(f"test_ALL has no {what} of its own and uses those of val")
    for split in SPLITS:
        if len(attacks_of[split]) < 2:
            raise InputError(f"expected at least 2 attacks in {split}, got {len(attacks_of[split])}")
        if len(by_split[split]) < 2:
            raise InputError(f"expected at least 2 questions in {split}, got {len(by_split[split])}")
        for category in categories:
            if not any(q.category == category for q in by_split[split]):
                raise InputError(f"the category {category!r} has no questions in {split}")
    return Pools(by_split, attacks_of, tuple(notes))


def split_questions(
    questions: Sequence[HarmfulQuestion], categories: Sequence[str], seed: int
) -> dict[Split, tuple[HarmfulQuestion, ...]]:
    """The questions of each split, category by category in a seeded order.

    Raises:
        InputError: a category without questions, or with fewer than `FEWEST_QUESTIONS`.
    """
    found: dict[Split, list[HarmfulQuestion]] = {split: [] for split in SPLITS}
    for category in categories:
        own = [q for q in questions if q.category == category]
        if not own:
            raise InputError(f"no questions for the category {category!r}; add some, or leave it out of --categories")
        if own[0].split:
            for split in SPLITS:
                found[split] += [q for q in own if q.split == split]
            continue
        if len(own) < FEWEST_QUESTIONS:
            raise InputError(
                f"the category {category!r} has {len(own)} distinct questions; expected at least {FEWEST_QUESTIONS} "
                "(3:2:1 for train, val and test)"
            )
        random.Random(f"questions-{category}-{seed}").shuffle(own)
        for split, n in question_counts(len(own)).items():
            found[split] += own[:n]
            own = own[n:]
    return {split: tuple(qs) for split, qs in found.items()}


def question_counts(n: int) -> dict[Split, int]:
    """How `n` questions of a category are divided: up to 5 for test_ALL, the rest 3:2:1.

    60 give 30, 20, 10 and none; 65 and more give 5 to test_ALL; below 60 one in 13 goes there.
    """
    own = min(5, n - 60) if n >= 60 else n // 13
    rest = n - own
    test = max(1, round(rest / 6))
    val = max(1, round(rest / 3))
    return {"train": rest - val - test, "val": val, "test": test, "test_ALL": own}


def split_attacks(attacks: Sequence[AttackTemplate]) -> dict[str, tuple[AttackTemplate, ...]]:
    """The attacks of each split in their file's order: a1-15 train, a16-30 val, a31-45 test, a46-48 out of domain.

    63 and more also give a share to test_ALL; what rounding leaves over goes to train.

    Raises:
        InputError: fewer than `FEWEST_ATTACKS`, or none.
    """
    names = ("train", "val", "test", OUT_OF_DOMAIN, "test_ALL")
    if attacks and attacks[0].split:
        return {name: tuple(a for a in attacks if a.split == name) for name in names}
    n = len(attacks)
    if n < FEWEST_ATTACKS:
        raise InputError(f"expected at least {FEWEST_ATTACKS} attacks (15:15:15:3 over the splits), got {n}")
    each, ood = (5 * n // 21, n // 21) if n >= 63 else (5 * n // 16, n // 16)
    counts = [each, each, each, ood, each if n >= 63 else 0]
    found, rest = {}, list(attacks)
    for name, count in zip(names, counts, strict=True):
        found[name], rest = tuple(rest[:count]), rest[count:]
    found["train"] += tuple(rest)
    return found
