"""What is asked of a model: SafeEdit's five prompts, knowledge questions and benign requests, with and without S.

The same list serves a checkpoint (all items at once) and edits made one by one (each edit gets the items of its own
instance and its share of the general ones), so that both rest on the same number of answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from interp.errors import InputError
from interp.records import PROMPT_KINDS, Instance, PromptKind
from interp.safeedit import Benchmark

KQA = "kqa"
BENIGN = "benign"
WRAPPED = "benign-wrapped"


@dataclass(frozen=True)
class Item:
    """One query to put to a model."""

    kind: str
    """One of the five prompt kinds, "kqa", "benign" or "benign-wrapped"."""
    query: str
    """The user's text, without S and not yet formatted."""
    suffix: str
    """The suffix system prompt to append, "" for none."""
    ref: int
    """The instance's id; for the general kinds the index into `Benchmark.facts` or `Benchmark.benign`."""
    owner: int
    """The id of the instance whose edit answers it, where every instance has its own edit."""
    prefix: str = ""
    """A system prompt in front of the query (Self-Reminder has one), "" for none."""


def plan(
    instances: Sequence[Instance],
    benchmark: Benchmark,
    suffix: str = "",
    *,
    prefix: str = "",
    n_facts: int = 60,
    n_benign: int = 60,
    kinds: Sequence[PromptKind] = PROMPT_KINDS,
    states: Sequence[bool] = (False, True),
    seed: int = 0,
) -> list[Item]:
    """Every item of an evaluation, those of one instance together and both suffix states side by side.

    General items are drawn without repeats and dealt to the instances in turn; a drawn one is asked in every suffix
    state. An instance without generalisation inputs gets DS and onlyQ alone.

    Args:
        suffix: the text S; without suffix and prefix there is no state with S.
        prefix: the text before the query in the state with S.
        n_facts: knowledge questions, as many as there are at most.
        n_benign: benign requests, half bare and half wrapped, as many as there are at most.
        states: which suffix states to ask in.

    Raises:
        InputError: no instances, or two with one id.
    """
    owners = [i.id for i in instances]
    if not owners or len(set(owners)) < len(owners):
        raise InputError(f"expected at least one instance and no id twice, got the ids {owners}")
    rng = random.Random(f"items-{seed}")
    facts = _draw(range(len(benchmark.facts)), n_facts, rng)
    bare = [i for i, request in enumerate(benchmark.benign) if not request.wrapped]
    wrapped = [i for i, request in enumerate(benchmark.benign) if request.wrapped]
    general = [(KQA, benchmark.facts[i].prompt, i) for i in facts]
    general += [(BENIGN, benchmark.benign[i].prompt, i) for i in _draw(bare, (n_benign + 1) // 2, rng)]
    general += [(WRAPPED, benchmark.benign[i].prompt, i) for i in _draw(wrapped, n_benign // 2, rng)]

    asked: dict[int, list[tuple[str, str, int]]] = {
        instance.id: [
            (kind, instance.prompt(kind), instance.id)
            for kind in kinds
            if kind in ("DS", "onlyQ") or instance.generalization is not None
        ]
        for instance in instances
    }
    for turn, item in enumerate(general):
        asked[owners[turn % len(owners)]].append(item)
    prompts = {False: ("", ""), True: (suffix, prefix)}
    around = [prompts[on] for on in (False, True) if on in states and (any(prompts[on]) or not on)]
    return [
        Item(kind, query, after, ref, owner, before)
        for owner, queries in asked.items()
        for kind, query, ref in queries
        for after, before in around
    ]


def by_owner(items: Iterable[Item]) -> dict[int, list[Item]]:
    """The items of each instance's edit, in the order of the plan: one `respond` call an edit."""
    found: dict[int, list[Item]] = {}
    for item in items:
        found.setdefault(item.owner, []).append(item)
    return found


def _draw(indices: Sequence[int], n: int, rng: random.Random) -> list[int]:
    return rng.sample(indices, min(n, len(indices)))
