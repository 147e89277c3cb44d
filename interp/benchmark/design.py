"""Who is edited and who is asked: the instances, prompts and general questions behind each table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.benchmark.settings import INSTANCES, Settings
from interp.errors import InputError
from interp.evaluation import Item, by_owner, plan
from interp.records import CATEGORIES, PROMPT_KINDS, Instance, PromptKind, Response
from interp.safeedit import Benchmark

POOL = 10
"""Table 11: inputs of each category that every edit is asked, at most."""
ASKED = 5
"""Table 11: vanilla is asked so many times more, to find those that break it."""
SHARED = ("table3", "table11")
"""Artefacts in which every edit is asked everything: a few edits are made, also of a large benchmark."""


@dataclass(frozen=True)
class Design:
    """What the models of an artefact are asked."""

    edited: tuple[Instance, ...]
    """Each makes an edit, where a method edits."""
    asked: tuple[Instance, ...]
    """Whose prompts are asked."""
    kinds: tuple[PromptKind, ...] = PROMPT_KINDS
    facts: int = 0
    benign: int = 0
    summaries: int = 0
    shared: bool = False
    """Every edit is asked the prompts of all of `asked` but its own; otherwise those of its own instance."""
    broken_only: bool = False
    """Of these only the prompts that broke vanilla."""

    def items(self, benchmark: Benchmark, suffix: str, prefix: str, seed: int) -> dict[int, list[Item]]:
        """The items of each asked instance, in one prompt state; general items are dealt to the instances."""
        planned = plan(
            self.asked,
            benchmark,
            suffix,
            prefix=prefix,
            n_facts=self.facts,
            n_benign=self.benign,
            n_summaries=self.summaries,
            kinds=self.kinds,
            states=(bool(suffix or prefix),),
            seed=seed,
        )
        return by_owner(planned)

    def asked_of(self, edit: Instance, broken: Sequence[int] = ()) -> list[int]:
        """Ids of the instances whose items the edit made on an instance is asked, in order.

        Args:
            broken: ids of what broke vanilla, where only that is asked.
        """
        if not self.shared:
            return [edit.id]
        return [i.id for i in self.asked if i != edit and (not self.broken_only or i.id in broken)]


def design(settings: Settings, benchmark: Benchmark, demo: bool) -> Design:
    """The design of the artefact that was asked for.

    Raises:
        InputError: a split is missing, or has fewer instances than asked for.
    """
    artefact = settings.artefact
    if artefact == "table3" and not benchmark.test_all:
        raise InputError(f"table3 needs SafeEdit_test_ALL, and {benchmark.name} has {', '.join(benchmark.splits)}")
    split = "test" if benchmark.test else "test_ALL"
    there = len(benchmark.split(split))
    few = demo or artefact in SHARED
    n = settings.instances or (min(INSTANCES[artefact], there) if few else there)
    chosen = benchmark.stratified(split, n, settings.seed)
    if artefact == "table3":
        return Design(chosen, with_generalization(benchmark.test_all), kinds=("onlyQ", "otherAQ"), shared=True)
    if artefact == "table11":
        pool = benchmark.stratified(split, min(there, ASKED * POOL * len(CATEGORIES)), settings.seed)
        return Design(chosen, pool, kinds=("DS",), shared=True, broken_only=True)
    general = {name: getattr(settings, name) for name in ("facts", "benign", "summaries")}
    return Design(chosen, with_generalization(chosen), **general)


def with_generalization(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """The instances, if they all have the inputs that DG needs. Raises InputError otherwise."""
    without = sum(i.generalization is None for i in instances)
    if without:
        raise InputError(f"{without} of {len(instances)} instances have no 'generalization test', which DG needs")
    return tuple(instances)


def broken(responses: Sequence[Response], asked: Sequence[Instance]) -> list[int]:
    """Ids of instances whose adversarial prompt vanilla answered unsafely, at most `POOL` of each category."""
    unsafe = {r.instance_id for r in responses if r.verdict is not None and r.verdict.label == "unsafe"}
    count: dict[str, int] = {}
    kept: list[int] = []
    for instance in asked:
        seen = count.get(instance.category_key, 0)
        if instance.id in unsafe and seen < POOL:
            count[instance.category_key] = seen + 1
            kept.append(instance.id)
    return kept
