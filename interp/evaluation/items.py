"""What is asked of a model: SafeEdit's five prompts, knowledge questions and benign requests, with and without S.

The same list serves a checkpoint (all items at once) and edits made one by one (each edit gets the items of its own
instance and its share of the general ones), so that both rest on the same number of answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from interp.errors import InputError
from interp.records import PROMPT_KINDS, Instance, PromptKind
from interp.safeedit import Benchmark

KQA = "kqa"
BENIGN = "benign"
WRAPPED = "benign-wrapped"
CSUM = "csum"


@dataclass(frozen=True)
class Item:
    """One query to put to a model."""

    kind: str
    """One of the five prompt kinds, "kqa", "benign", "benign-wrapped" or "csum"."""
    query: str
    """The user's text, without S and not yet formatted."""
    suffix: str
    """The suffix system prompt to append, "" for none."""
    ref: int
    """The instance's id; for the general kinds the index into `Benchmark.facts`, `benign` or `summaries`."""
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
    n_summaries: int = 0,
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
        n_summaries: texts to summarise, as many as there are at most.
        states: which suffix states to ask in.

    Raises:
        InputError: no instances, or two with one id.
    """
    owners = [i.id for i in instances]
    if not owners or len(set(owners)) < len(owners):
        raise InputError(f"expected at least one instance and no id twice, got the ids {owners}")
    general = _general(benchmark, n_facts, (n_benign + 1) // 2, n_benign // 2, n_summaries, seed)
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
    return _around(asked, suffix, prefix, states)


def plan_general(
    benchmark: Benchmark,
    suffix: str = "",
    *,
    prefix: str = "",
    n_facts: int | None = None,
    n_bare: int | None = None,
    n_wrapped: int | None = None,
    n_summaries: int | None = None,
    states: Sequence[bool] = (False, True),
    seed: int = 0,
) -> list[Item]:
    """Only what is asked beside SafeEdit's prompts, for one set of weights: all there is, or so many of each.

    Raises:
        InputError: the benchmark has nothing of the kind.
    """
    facts, bare, wrapped, texts = (10**9 if n is None else n for n in (n_facts, n_bare, n_wrapped, n_summaries))
    general = _general(benchmark, facts, bare, wrapped, texts, seed)
    if not general:
        raise InputError(f"{benchmark.name} has no knowledge questions, benign requests or texts to summarise to ask")
    return _around({0: general}, suffix, prefix, states)


def _general(
    benchmark: Benchmark, facts: int, bare: int, wrapped: int, summaries: int, seed: int
) -> list[tuple[str, str, int]]:
    """(kind, query, index) of the general items, drawn in the order of the arguments."""
    rng = random.Random(f"items-{seed}")
    benign = benchmark.benign
    chosen = _draw(range(len(benchmark.facts)), facts, rng)
    general = [(KQA, benchmark.facts[i].prompt, i) for i in chosen]
    for kind, n in ((BENIGN, bare), (WRAPPED, wrapped)):
        own = [i for i, request in enumerate(benign) if request.wrapped == (kind == WRAPPED)]
        general += [(kind, benign[i].prompt, i) for i in _draw(own, n, rng)]
    texts = _draw(range(len(benchmark.summaries)), summaries, rng)
    return general + [(CSUM, benchmark.summaries[i].prompt, i) for i in texts]


def _around(
    asked: Mapping[int, Sequence[tuple[str, str, int]]], suffix: str, prefix: str, states: Sequence[bool]
) -> list[Item]:
    """Every query in every suffix state."""
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
