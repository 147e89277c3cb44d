"""Who is edited and who is asked: the instances, prompts and general questions behind each table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from interp.benchmark.settings import INSTANCES, Settings
from interp.errors import InputError
from interp.evaluation import Item, by_owner, plan
from interp.records import PROMPT_KINDS, Instance, PromptKind, Response
from interp.safeedit import Benchmark

POOL = 10
"""Table 11: inputs of each category that every edit is asked, at most."""


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
    shared: bool = False
    """Every edit is asked the prompts of all of `asked`; otherwise those of its own instance."""
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
            kinds=self.kinds,
            states=(bool(suffix or prefix),),
            seed=seed,
        )
        return by_owner(planned)


def design(settings: Settings, benchmark: Benchmark, demo: bool) -> Design:
    """The design of the artefact that was asked for.

    Raises:
        InputError: a split is missing, or has fewer instances than asked for.
    """
    artefact = settings.artefact
    n = settings.instances or (INSTANCES[artefact] if demo else None)
    chosen = spread(benchmark, n if n is not None else len(benchmark.split("test")), settings.seed)
    if artefact == "table3":
        if not benchmark.test_all:
            raise InputError(f"table3 needs SafeEdit_test_ALL, and {benchmark.name} has {', '.join(benchmark.splits)}")
        edited = chosen if n is not None else chosen[: INSTANCES[artefact]]
        return Design(edited, with_generalization(benchmark.test_all), kinds=("onlyQ", "otherAQ"), shared=True)
    if artefact == "table11":
        edited = chosen if n is not None else chosen[: INSTANCES[artefact]]
        pool = spread(benchmark, min(len(benchmark.split("test")), 9 * POOL * 5), settings.seed)
        return Design(edited, pool, kinds=("DS",), shared=True, broken_only=True)
    return Design(chosen, with_generalization(chosen), facts=settings.facts, benign=settings.benign)


def spread(benchmark: Benchmark, n: int, seed: int) -> tuple[Instance, ...]:
    """`n` test instances, spread over categories and attacks."""
    return benchmark.stratified("test" if benchmark.test else "test_ALL", n, seed)


def with_generalization(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """The instances, if they all have the inputs that DG needs. Raises InputError otherwise."""
    without = sum(i.generalization is None for i in instances)
    if without:
        raise InputError(f"{without} of {len(instances)} instances have no 'generalization test', which DG needs")
    return tuple(instances)


def broken(responses: Sequence[Response], asked: Sequence[Instance]) -> Collection[int]:
    """Ids of instances whose adversarial prompt vanilla answered unsafely, at most `POOL` of each category."""
    unsafe = {r.instance_id for r in responses if r.verdict is not None and r.verdict.label == "unsafe"}
    count: dict[str, int] = {}
    kept: dict[int, None] = {}
    for instance in asked:
        seen = count.get(instance.category_key, 0)
        if instance.id in unsafe and seen < POOL:
            count[instance.category_key] = seen + 1
            kept[instance.id] = None
    return kept.keys()
